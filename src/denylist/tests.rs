//! The laws of the denylist, over random changes and a clock that the tests turn.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::{Admission, Batch, Denylist, DenylistConfig, MIN_FILTER, Reason, Staleness, Verdict, Why};
use crate::{
    policy::MissingIat,
    revocation::{
        Change, Cutoff, Detail, Lifetimes, Lift, Record, Revocation, RevocationId, Scope, ScopeHasher, ScopeKey,
        ScopeKind, ScopeState,
    },
    time::{Clock, ManualClock, Moment},
    token::{Claims, Identity, OpaqueKeys},
};

const ISS: &str = "https://issuer.example/";
const NOW: u64 = 1_700_000_000;
const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;
/// Nothing that a token can match is kept longer.
const KEEP: u64 = Lifetimes::DEFAULT.retain_scope(0);

fn config(clock: &Arc<ManualClock>) -> DenylistConfig {
    let mut config = DenylistConfig::new(Staleness::serve_after(Duration::MAX));
    config.clock = Arc::clone(clock) as Arc<dyn Clock>;
    config
}

fn ready(config: DenylistConfig) -> Denylist {
    let list = Denylist::new(config);
    list.in_step_at(list.now());
    list
}

fn list() -> (Denylist, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(NOW));
    (ready(config(&clock)), clock)
}

fn id(number: u64) -> RevocationId {
    RevocationId::from_u64(number)
}

fn record(key: ScopeKey, number: u64, cutoff: Cutoff, retain_until: u64) -> Record {
    Record::new(key, id(number), cutoff, retain_until, &Detail::default())
}

fn revoke(key: ScopeKey, number: u64, cutoff: Cutoff, retain_until: u64) -> Change {
    Change::Revoke(record(key, number, cutoff, retain_until))
}

fn lift(key: ScopeKey, numbers: &[u64], retain_until: u64) -> Change {
    Change::Lift(Lift::new(key, numbers.iter().copied().map(id).collect(), retain_until, &Detail::default()))
}

fn check(list: &Denylist, claims: &Claims<'_>) -> Verdict {
    // Without the bounds on a token's own times, which would hide what the list says.
    list.check_keys(&claims.keys(list.hasher()), MissingIat::DenyIfCutoff, list.now())
}

fn denies(list: &Denylist, claims: &Claims<'_>) -> bool {
    match check(list, claims) {
        Verdict::Deny(_) => true,
        Verdict::Allow => false,
        Verdict::Unknown(why) => panic!("{why}"),
    }
}

fn record_now(list: &Denylist, revocation: Revocation) -> Record {
    revocation.into_record(list.hasher(), list.lifetimes(), list.now().unix())
}

fn revoke_now(list: &Denylist, scope: Scope) {
    list.apply(&[Change::Revoke(record_now(list, Revocation::new(scope)))]);
}

fn jti(number: usize) -> String {
    format!("jti-{number}")
}

fn token_key(list: &Denylist, number: usize) -> ScopeKey {
    list.hasher().key(&Scope::token(ISS, jti(number)))
}

fn tokens(list: &Denylist, numbers: std::ops::Range<usize>, retain_until: u64) -> Vec<Change> {
    numbers.map(|n| revoke(token_key(list, n), n as u64, Cutoff::FOREVER, retain_until)).collect()
}

fn denies_token(list: &Denylist, number: usize) -> bool {
    denies(list, &Claims::new(ISS).jti(&jti(number)).iat(NOW))
}

fn scopes(list: &Denylist) -> usize {
    list.scopes().map(|(_, count)| count).sum()
}

/// A key for tests that look at states alone.
fn some_key() -> ScopeKey {
    ScopeKey::new(ScopeKind::Subject, 0x1234_5670)
}

fn changes(key: ScopeKey) -> impl Strategy<Value = Vec<Change>> {
    let cutoff = prop_oneof![9 => (NOW - 20..NOW + 20).prop_map(Cutoff::at), 1 => Just(Cutoff::FOREVER)];
    let revoked = (0..6_u64, cutoff, NOW..NOW + 20).prop_map(move |(n, cutoff, until)| revoke(key, n, cutoff, until));
    let lifted = (vec(0..6_u64, 0..3), NOW..NOW + 20).prop_map(move |(ids, until)| lift(key, &ids, until));
    vec(prop_oneof![2 => revoked, 1 => lifted], 0..12)
}

/// The changes, and the same ones in another order with some of them twice.
fn redelivered(key: ScopeKey) -> impl Strategy<Value = (Vec<Change>, Vec<Change>)> {
    changes(key)
        .prop_flat_map(|changes| {
            let again = proptest::sample::subsequence(changes.clone(), 0..=changes.len());
            (Just(changes), again)
        })
        .prop_flat_map(|(changes, again)| {
            let all: Vec<_> = changes.iter().chain(&again).cloned().collect();
            (Just(changes), Just(all).prop_shuffle())
        })
}

fn state(changes: &[Change]) -> ScopeState {
    let mut state = ScopeState::default();
    changes.iter().for_each(|change| state.apply(change));
    state
}

fn join(a: &ScopeState, b: &ScopeState) -> ScopeState {
    let mut joined = a.clone();
    joined.join(b);
    joined
}

proptest! {
    #[test]
    fn l4_order_and_redelivery_do_not_matter((once, redelivered) in redelivered(some_key())) {
        prop_assert_eq!(state(&once), state(&redelivered));
    }

    #[test]
    fn l4_join_is_commutative_associative_and_idempotent(
        a in changes(some_key()), b in changes(some_key()), c in changes(some_key()),
    ) {
        let (a, b, c) = (state(&a), state(&b), state(&c));
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a);
    }

    /// What is live are the revocations that no lift has named, with the latest cutoff and retention of each.
    #[test]
    fn l4_a_state_is_what_its_changes_say(changes in changes(some_key())) {
        let mut lifted = Vec::new();
        let mut live = BTreeMap::<RevocationId, (Cutoff, u64)>::new();
        for change in &changes {
            match change {
                Change::Lift(lift) => lifted.extend_from_slice(lift.ids()),
                Change::Revoke(record) => {
                    let (cutoff, until) = live.entry(record.id()).or_insert((record.cutoff(), 0));
                    *cutoff = (*cutoff).max(record.cutoff());
                    *until = (*until).max(record.retain_until());
                }
            }
        }
        live.retain(|id, _| !lifted.contains(id));
        let state = state(&changes);
        prop_assert_eq!(state.ids().collect::<Vec<_>>(), live.keys().copied().collect::<Vec<_>>());
        prop_assert_eq!(state.cutoff(), live.values().map(|(cutoff, _)| *cutoff).max());
        prop_assert_eq!(state.retain_until(), live.values().map(|(_, until)| *until).max());
    }

    /// Nodes that saw the same changes in other orders agree, also in what they count.
    #[test]
    fn l4_lists_converge((once, redelivered) in redelivered(some_key())) {
        let ((a, _), (b, _)) = (list(), list());
        a.apply(&once);
        redelivered.iter().for_each(|change| b.apply(std::slice::from_ref(change)));
        prop_assert_eq!(a.revocations(some_key()), b.revocations(some_key()));
        let retained = |list: &Denylist| list.find(some_key()).map(|entry| entry.state().retain_until());
        prop_assert_eq!(retained(&a), retained(&b));
        prop_assert_eq!(a.records(), b.records());
        prop_assert_eq!(a.records(), state(&once).len());
        prop_assert_eq!(scopes(&a), scopes(&b));
    }
}

#[test]
fn l4_a_lift_takes_back_what_it_names_for_good_and_nothing_else() {
    let (list, _) = list();
    let key = list.hasher().key(&Scope::subject(ISS, "alice"));
    let revocation = |number| revoke(key, number, Cutoff::at(NOW), NOW + DAY);
    let token = Claims::new(ISS).sub("alice").iat(NOW);

    list.apply(&[revocation(1), revocation(2)]);
    list.apply(&[lift(key, &[1], NOW)]);
    assert!(denies(&list, &token), "the other revocation holds");
    list.apply(&[revocation(1)]);
    assert_eq!(list.revocations(key), [id(2)], "redelivered after its lift");
    list.apply(&[lift(key, &[2], NOW)]);
    assert!(!denies(&list, &token));
    list.apply(&[revocation(1), revocation(2)]);
    assert!(!denies(&list, &token));

    list.apply(&[revocation(3)]);
    list.apply(&[lift(key, &[1], NOW), lift(key, &[2], NOW), lift(key, &[1, 2], NOW)]);
    assert!(denies(&list, &token), "a redelivered lift undoes nothing later");
}

/// A lift that overtakes its revocation holds.
#[test]
fn l4_a_lift_may_come_first() {
    let (list, _) = list();
    let key = list.hasher().key(&Scope::subject(ISS, "alice"));
    list.apply(&[lift(key, &[1], NOW)]);
    list.apply(&[revoke(key, 1, Cutoff::at(NOW), NOW + DAY)]);
    assert!(!denies(&list, &Claims::new(ISS).sub("alice").iat(NOW)));
}

#[derive(Clone, Debug)]
enum Step {
    Revoke {
        scope: usize,
        id: u64,
        keep: u64,
    },
    Lift {
        scope: usize,
        id: u64,
        keep: u64,
    },
    Advance(u64),
    /// Puts the wall clock this far from where it would be had nobody touched it.
    Wall(i64),
    Maintain,
}

const SCOPES: usize = 3;

fn steps(with_clock_steps: bool) -> impl Strategy<Value = Vec<Step>> {
    let wall = prop_oneof![-20..20_i64, -(2 * DAY as i64)..2 * DAY as i64];
    let weight = u32::from(with_clock_steps);
    let step = prop_oneof![
        6 => (0..SCOPES, 0..4_u64, 0..2 * DAY).prop_map(|(scope, id, keep)| Step::Revoke { scope, id, keep }),
        2 => (0..SCOPES, 0..4_u64, 0..DAY).prop_map(|(scope, id, keep)| Step::Lift { scope, id, keep }),
        4 => (0..8 * HOUR).prop_map(Step::Advance),
        2 => (0..200_u64).prop_map(Step::Advance),
        weight => wall.prop_map(Step::Wall),
        6 => Just(Step::Maintain),
    ];
    vec(step, 1..60)
}

/// What must be known of one revocation.
#[derive(Clone, Copy)]
struct Known {
    lifted: bool,
    until: u64,
    /// Its time was over at a moment at which entries could be removed.
    may_have_left: bool,
}

/// Rule 6, as it reads: nothing leaves before its time and a margin, nor for a token's whole life after a jump.
struct Model {
    known: BTreeMap<(usize, u64), Known>,
    anchor: Moment,
    hold_until: u64,
}

impl Model {
    fn learn(&mut self, scope: usize, id: u64, until: u64, lifted: bool) {
        let known = self.known.entry((scope, id)).or_insert(Known { lifted, until, may_have_left: false });
        // What has left may be learnt anew; whether it had left is the list's business.
        known.lifted |= lifted;
        known.until = known.until.max(until);
    }

    fn maintain(&mut self, now: Moment) {
        let skew = Lifetimes::DEFAULT.skew.as_secs();
        let offset = |moment: Moment| moment.wall as i128 - moment.monotonic as i128;
        if offset(now).abs_diff(offset(self.anchor)) > u128::from(skew) * 1000 {
            self.anchor = now;
            self.hold_until = now.monotonic + KEEP * 1000;
        }
        if now.monotonic >= self.hold_until {
            for known in self.known.values_mut() {
                known.may_have_left |= known.until < now.unix() - skew;
            }
        }
    }

    /// Whether the scope must be refused or must not be; `None` where either will do.
    fn expects(&self, scope: usize) -> Option<bool> {
        let all = || self.known.range((scope, 0)..(scope + 1, 0)).map(|(_, known)| known);
        if all().any(|known| !known.lifted && !known.may_have_left) {
            Some(true)
        } else {
            all().all(|known| known.lifted && !known.may_have_left).then_some(false)
        }
    }
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let (list, clock) = list();
    let mut model = Model { known: BTreeMap::new(), anchor: list.now(), hold_until: 0 };
    for step in steps {
        let now = list.now().unix();
        match *step {
            Step::Revoke { scope, id, keep } => {
                list.apply(&[revoke(token_key(&list, scope), id, Cutoff::FOREVER, now + keep)]);
                model.learn(scope, id, now + keep, false);
            }
            Step::Lift { scope, id, keep } => {
                list.apply(&[lift(token_key(&list, scope), &[id], now + keep)]);
                model.learn(scope, id, now + keep, true);
            }
            Step::Advance(secs) => clock.advance(Duration::from_secs(secs)),
            Step::Wall(offset) => clock.step_wall((NOW + list.now().monotonic / 1000).saturating_add_signed(offset)),
            Step::Maintain => {
                list.maintain();
                model.maintain(list.now());
            }
        }
        for scope in 0..SCOPES {
            if let Some(refused) = model.expects(scope) {
                prop_assert_eq!(denies_token(&list, scope), refused, "scope {} after {:?}", scope, step);
            }
        }
    }
    // Once every time is over, the memory comes back.
    clock.advance(Duration::from_secs(10 * DAY));
    list.maintain();
    clock.advance(Duration::from_secs(KEEP));
    forget(&list);
    prop_assert_eq!((list.records(), scopes(&list), list.visible.kinds()), (0, 0, 0));
    Ok(())
}

/// Maintains until nothing leaves any more.
fn forget(list: &Denylist) {
    let due = |list: &Denylist| list.lock().expiry.minutes().len();
    let mut before = usize::MAX;
    while due(list) < before {
        before = due(list);
        list.maintain();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn l1_l2_live_entries_deny_at_every_step(steps in steps(false)) {
        run(&steps)?;
    }

    #[test]
    fn rule6_nothing_is_forgotten_by_a_clock_that_jumps(steps in steps(true)) {
        run(&steps)?;
    }
}

#[test]
fn l2_entries_stay_until_their_time_and_the_margin_are_over() {
    let (list, clock) = list();
    // The last second of a minute: by the minute, as entries are listed, it could leave at once.
    let until = NOW.next_multiple_of(60) + 59;
    list.apply(&tokens(&list, 0..1, until));
    clock.advance(Duration::from_secs(until - NOW) + Lifetimes::DEFAULT.skew);
    forget(&list);
    assert!(denies_token(&list, 0));
    clock.advance(Duration::from_secs(1));
    forget(&list);
    assert!(!denies_token(&list, 0));
    assert_eq!((list.records(), scopes(&list), list.visible.kinds()), (0, 0, 0));
}

/// A scope that is revoked again stays as long as the later revocation.
#[test]
fn l2_an_extended_entry_stays() {
    let (list, clock) = list();
    let key = token_key(&list, 0);
    list.apply(&[revoke(key, 1, Cutoff::FOREVER, NOW + 100)]);
    list.apply(&[revoke(key, 2, Cutoff::FOREVER, NOW + DAY)]);
    for _ in 0..23 {
        clock.advance(Duration::from_secs(HOUR));
        list.maintain();
        assert!(denies_token(&list, 0));
    }
    clock.advance(Duration::from_secs(2 * HOUR));
    forget(&list);
    assert_eq!(list.records(), 0);
}

#[test]
fn l2_a_ban_stays_until_it_is_lifted() {
    let (list, clock) = list();
    let ban = record_now(&list, Revocation::ban(Scope::subject(ISS, "mallory")));
    list.apply(&[Change::Revoke(ban.clone())]);
    clock.advance(Duration::from_secs(3650 * DAY));
    forget(&list);
    let later = Claims::new(ISS).sub("mallory").iat(list.now().unix());
    assert!(denies(&list, &later), "also tokens issued later");
    list.apply(&[lift(ban.key(), &[ban.id().as_u64()], list.now().unix() + KEEP)]);
    assert!(!denies(&list, &later));
}

/// Writes and checks go on while a filter that has become too small is replaced, and so do they when it shrinks.
#[test]
fn l2_new_filters_lose_nothing() {
    let (list, clock) = list();
    let many = MIN_FILTER + 5000;
    list.apply(&tokens(&list, 0..many, NOW + HOUR));
    assert!(list.wants_maintenance());
    let done = AtomicBool::new(false);
    let last = std::thread::scope(|threads| {
        threads.spawn(|| {
            list.maintain();
            done.store(true, Ordering::Release);
        });
        let mut next = many;
        while !done.load(Ordering::Acquire) || next == many {
            // A minute of its own each: none that the walk over what is held would pass anyway.
            list.apply(&tokens(&list, next..next + 1, NOW + DAY + 60 * next as u64));
            assert!(denies_token(&list, next), "missed while the filter is built");
            next += 1;
        }
        next
    });
    assert!(!list.wants_maintenance());
    assert!(list.visible.filter_capacity() > MIN_FILTER);
    assert!((0..last).all(|n| denies_token(&list, n)), "lost by the new filter");
    assert_eq!((list.records(), scopes(&list)), (last, last));

    // What came meanwhile lives longer than the rest, and survives the smaller filter.
    clock.advance(Duration::from_secs(2 * HOUR));
    forget(&list);
    assert_eq!(list.visible.filter_capacity(), MIN_FILTER);
    assert_eq!(list.records(), last - many);
    assert!((many..last).all(|n| denies_token(&list, n)));
    assert!((0..many).all(|n| !denies_token(&list, n)));
}

/// A present entry denies whatever the clock says, and stays for a token's whole life after a jump.
#[test]
fn rule6_a_jump_of_the_clock_holds_removal() {
    let (list, clock) = list();
    list.apply(&tokens(&list, 0..1, NOW + HOUR));
    clock.step_wall(NOW + 30 * DAY);
    assert!(denies_token(&list, 0));
    forget(&list);
    assert!(denies_token(&list, 0));
    clock.step_wall(NOW);
    forget(&list);
    assert!(denies_token(&list, 0));
    clock.advance(Duration::from_secs(KEEP - 1));
    forget(&list);
    assert!(denies_token(&list, 0));
    clock.advance(Duration::from_secs(1));
    forget(&list);
    assert_eq!(list.records(), 0);
}

/// One cutoff for each scope of the token, or none; the token is in all of them.
fn seven_scopes() -> [Scope; 6] {
    [
        Scope::session(ISS, "s"),
        Scope::client_session(ISS, "s", "c"),
        Scope::subject(ISS, "a"),
        Scope::subject_client(ISS, "a", "c"),
        Scope::client(ISS, "c"),
        Scope::issuer(ISS),
    ]
}

proptest! {
    /// F19, F21, rules 8 and 10: the latest of all cutoffs holds, to the second, and for what belongs to a person a
    /// refresh does not help.
    #[test]
    fn f19_f21_rule10_a_token_is_dead_where_any_cutoff_covers_it(
        cutoffs in proptest::array::uniform6(proptest::option::of(NOW - 5..NOW + 5)),
        iat in NOW - 6..NOW + 6,
        auth_time in proptest::option::of(NOW - 6..NOW + 6),
    ) {
        let (list, _) = list();
        let mut dead = false;
        for (scope, cutoff) in seven_scopes().iter().zip(cutoffs) {
            let Some(cutoff) = cutoff else { continue };
            list.apply(&[revoke(list.hasher().key(scope), 1, Cutoff::at(cutoff), NOW + DAY)]);
            let of_a_person = !matches!(scope.kind(), ScopeKind::Client | ScopeKind::Issuer);
            let issued = auth_time.filter(|_| of_a_person).map_or(iat, |auth_time| auth_time.min(iat));
            dead |= issued <= cutoff;
        }
        let mut token = Claims::new(ISS).jti("t").sid("s").sub("a").client_id("c").iat(iat);
        token.auth_time = auth_time;
        prop_assert_eq!(denies(&list, &token), dead);
    }

    /// F20: what is compared is when the token was issued; the clock has no say.
    #[test]
    fn f20_a_cutoff_is_never_compared_with_now(
        cutoff in NOW - 5..NOW + 5, iat in NOW - 6..NOW + 6, clock_says in prop_oneof![Just(0), NOW - DAY..NOW + DAY],
    ) {
        let (list, clock) = list();
        let key = list.hasher().key(&Scope::subject(ISS, "a"));
        list.apply(&[revoke(key, 1, Cutoff::at(cutoff), NOW + DAY)]);
        clock.step_wall(clock_says);
        prop_assert_eq!(denies(&list, &Claims::new(ISS).sub("a").iat(iat)), iat <= cutoff);
    }
}

/// F21, rule 8: within the second of the cutoff a token is refused.
#[test]
fn f21_the_second_of_the_cutoff_is_refused() {
    let (list, _) = list();
    revoke_now(&list, Scope::subject(ISS, "alice"));
    let token = |iat| Claims::new(ISS).sub("alice").iat(iat);
    assert!(denies(&list, &token(NOW - 1)));
    assert!(denies(&list, &token(NOW)));
    assert!(!denies(&list, &token(NOW + 1)));
}

/// F28: who is logged out everywhere can log in again; who refreshes an old login has not.
#[test]
fn f28_a_login_after_the_cutoff_gets_in_and_a_refresh_does_not() {
    let (list, clock) = list();
    revoke_now(&list, Scope::subject(ISS, "alice"));
    clock.advance(Duration::from_secs(1));
    let login = Claims::new(ISS).sub("alice").iat(NOW + 1);
    assert!(!denies(&list, &login));
    assert!(!denies(&list, &login.auth_time(NOW + 1)));
    assert!(denies(&list, &login.auth_time(NOW)), "a refresh of a login from before");
}

/// F22: what to do without `iat` is a policy; what is dead for ever is dead under each.
#[test]
fn f22_tokens_without_iat_follow_the_policy() {
    let (list, _) = list();
    revoke_now(&list, Scope::subject(ISS, "alice"));
    revoke_now(&list, Scope::session(ISS, "s"));
    let verdict = |claims: Claims<'_>, policy| list.check_keys(&claims.keys(list.hasher()), policy, list.now());
    let (alice, session, bob) = (Claims::new(ISS).sub("alice"), Claims::new(ISS).sid("s"), Claims::new(ISS).sub("bob"));
    let no_time = Verdict::Deny(Reason::NoIssueTime(ScopeKind::Subject));
    assert_eq!(verdict(alice, MissingIat::DenyIfCutoff), no_time);
    assert_eq!(verdict(alice, MissingIat::Deny), no_time);
    assert_eq!(verdict(alice, MissingIat::Allow), Verdict::Allow);
    assert_eq!(verdict(bob, MissingIat::DenyIfCutoff), Verdict::Allow);
    for policy in [MissingIat::DenyIfCutoff, MissingIat::Deny, MissingIat::Allow] {
        assert_eq!(verdict(session, policy), Verdict::Deny(Reason::Revoked(ScopeKind::Session)));
    }
    // For a person's scopes `auth_time` will do: the token is no older.
    assert_eq!(
        verdict(alice.auth_time(NOW), MissingIat::DenyIfCutoff),
        Verdict::Deny(Reason::Revoked(ScopeKind::Subject))
    );
}

/// F18: whatever can be stored is looked for, and by nothing else.
#[test]
fn f18_every_kind_reaches_its_tokens_and_no_others() {
    let keys = OpaqueKeys::new("k", [7; 32]).unwrap();
    let digest = keys.digests(b"opaque").next().unwrap();
    let other_digest = keys.digests(b"other").next().unwrap();
    let jwt = Claims::new(ISS).jti("t").sid("s").sub("a").client_id("c").iat(NOW);
    let unnamed = Claims { jti: None, ..jwt.signing_input([1; 32]) };
    let opaque = Claims::default().opaque(&digest).iat(NOW);
    let cases = [
        (Scope::token(ISS, "t"), jwt, jwt.jti("t2")),
        (Scope::signing_input(ISS, [1; 32]), unnamed, unnamed.signing_input([2; 32])),
        (Scope::opaque_token(digest.clone()), opaque, Claims::default().opaque(&other_digest).iat(NOW)),
        (Scope::session(ISS, "s"), jwt, jwt.sid("s2")),
        (Scope::client_session(ISS, "s", "c"), jwt, jwt.client_id("c2")),
        (Scope::subject(ISS, "a"), jwt, jwt.sub("a2")),
        (Scope::subject_client(ISS, "a", "c"), jwt, jwt.client_id("c2")),
        (Scope::client(ISS, "c"), jwt, jwt.client_id("c2")),
        (Scope::issuer(ISS), jwt, Claims { iss: "https://other.example/", ..jwt }),
    ];
    assert_eq!(cases.each_ref().map(|(scope, ..)| scope.kind()), ScopeKind::ALL, "a kind without a case");
    for (scope, inside, outside) in cases {
        let (list, _) = list();
        assert_eq!(check(&list, &inside), Verdict::Allow);
        revoke_now(&list, scope.clone());
        assert_eq!(check(&list, &inside), Verdict::Deny(Reason::Revoked(scope.kind())));
        assert_eq!(check(&list, &outside), Verdict::Allow, "{scope:?}");
        let elsewhere = Claims { iss: "https://other.example/", ..inside };
        let same_issuer_matters = scope.kind() != ScopeKind::OpaqueToken;
        assert_eq!(denies(&list, &elsewhere), !same_issuer_matters, "{scope:?}");
        assert_eq!(
            list.scopes().filter(|(_, count)| *count == 1).map(|(kind, _)| kind).collect::<Vec<_>>(),
            [scope.kind()]
        );
    }
}

/// L1: what was remembered as clear before a change is asked again after it.
#[test]
fn l1_every_change_and_every_new_filter_moves_the_generation() {
    let (list, _) = list();
    let mut generations = vec![list.visible.generation()];
    list.apply(&tokens(&list, 0..1, NOW + DAY));
    generations.push(list.visible.generation());
    list.apply(&[lift(token_key(&list, 0), &[0], NOW + DAY)]);
    generations.push(list.visible.generation());
    list.apply(&tokens(&list, 1..MIN_FILTER + 2, NOW + DAY));
    generations.push(list.visible.generation());
    list.maintain();
    generations.push(list.visible.generation());
    assert!(generations.is_sorted_by(|earlier, later| earlier < later), "{generations:?}");
    assert_ne!(generations[0], 0, "0 is kept for tokens never looked up");
}

/// L7: before the first snapshot and when stale this node cannot tell; what it knows it refuses all the same.
#[test]
fn l7_a_node_says_when_it_cannot_tell() {
    let clock = Arc::new(ManualClock::at(NOW));
    let mut refusing = config(&clock);
    refusing.staleness = Staleness::refuse_after(Duration::from_secs(10));
    let mut serving = config(&clock);
    serving.staleness = Staleness::serve_after(Duration::from_secs(10));
    let (refusing, serving) = (Denylist::new(refusing), Denylist::new(serving));
    let [clear, revoked] = ["clear", "revoked"].map(|jti| Claims::new(ISS).jti(jti).iat(NOW));
    for list in [&refusing, &serving] {
        revoke_now(list, Scope::token(ISS, "revoked"));
        assert_eq!(check(list, &clear), Verdict::Unknown(Why::NotReady));
        assert!(matches!(check(list, &revoked), Verdict::Deny(_)));
        list.in_step_at(list.now());
        assert_eq!(check(list, &clear), Verdict::Allow);
    }
    clock.advance(Duration::from_millis(10_001));
    assert_eq!(check(&refusing, &clear), Verdict::Unknown(Why::Stale));
    assert_eq!(check(&serving, &clear), Verdict::Allow);
    for list in [&refusing, &serving] {
        assert_eq!(list.not_ready(), Some(Why::Stale));
        assert!(matches!(check(list, &revoked), Verdict::Deny(_)));
    }
    // A step back of the wall clock makes nothing look fresh.
    clock.step_wall(NOW);
    assert_eq!(check(&refusing, &clear), Verdict::Unknown(Why::Stale));
}

fn owned(list: &Denylist, number: usize, sub: &str, client_id: &str) -> Record {
    let owners = [Scope::subject(ISS, sub), Scope::client(ISS, client_id)].map(|scope| list.hasher().key(&scope));
    record(token_key(list, number), number as u64, Cutoff::FOREVER, NOW + DAY).owned_by(owners)
}

/// L2, rule 4: a full list refuses the write, and the last fifth is not for self-service.
#[test]
fn l2_rule4_a_full_list_refuses_writes_and_keeps_a_fifth() {
    let clock = Arc::new(ManualClock::at(NOW));
    let mut config = config(&clock);
    config.budget = 10;
    let list = ready(config);
    let session = || record_now(&list, Revocation::new(Scope::session(ISS, "s")));

    list.apply(&tokens(&list, 0..7, NOW + DAY));
    assert_eq!(list.admit(&owned(&list, 7, "a", "c"), true, &Batch::default()), Admission::Room);
    list.apply(&tokens(&list, 7..8, NOW + DAY));
    assert_eq!(list.admit(&owned(&list, 8, "a", "c"), true, &Batch::default()), Admission::Full);
    assert_eq!(list.admit(&session(), true, &Batch::default()), Admission::Room);
    list.apply(&tokens(&list, 8..10, NOW + DAY));
    assert_eq!(list.admit(&session(), true, &Batch::default()), Admission::Full);

    // What the backend holds is enforced all the same.
    list.apply(&[Change::Revoke(session())]);
    assert!(denies(&list, &Claims::new(ISS).sid("s").iat(NOW)));
    list.apply(&tokens(&list, 10..100, NOW + DAY));
    assert!((0..100).all(|n| denies_token(&list, n)));

    // Room comes back with time.
    clock.advance(Duration::from_secs(2 * KEEP));
    forget(&list);
    assert_eq!(
        list.admit(&record_now(&list, Revocation::new(Scope::session(ISS, "s2"))), true, &Batch::default()),
        Admission::Room
    );
}

#[test]
fn rule4_quotas_are_each_subjects_and_each_clients_own() {
    let clock = Arc::new(ManualClock::at(NOW));
    let mut config = config(&clock);
    (config.subject_quota, config.client_quota) = (3, 5);
    let list = ready(config);
    let put = |n, sub, client| list.apply(&[Change::Revoke(owned(&list, n, sub, client))]);
    for n in 0..3 {
        assert_eq!(list.admit(&owned(&list, n, "a", "c"), true, &Batch::default()), Admission::Room);
        put(n, "a", "c");
        put(n, "a", "c"); // a redelivery does not count
    }
    assert_eq!(list.admit(&owned(&list, 3, "a", "c"), true, &Batch::default()), Admission::OverQuota);
    assert_eq!(
        list.admit(&owned(&list, 3, "a", "c2"), true, &Batch::default()),
        Admission::OverQuota,
        "the subject's, at whatever client"
    );
    assert_eq!(list.admit(&owned(&list, 3, "b", "c"), true, &Batch::default()), Admission::Room);
    put(3, "b", "c");
    put(4, "b2", "c");
    assert_eq!(
        list.admit(&owned(&list, 5, "b3", "c"), true, &Batch::default()),
        Admission::OverQuota,
        "the client's, of whatever subject"
    );
    assert_eq!(list.admit(&owned(&list, 5, "b3", "c2"), true, &Batch::default()), Admission::Room);
    // Others' writes have no quota.
    assert_eq!(
        list.admit(&record(token_key(&list, 5), 5, Cutoff::FOREVER, NOW + DAY), true, &Batch::default()),
        Admission::Room
    );
    // What was self-service long ago does not count for ever.
    for _ in 0..2 {
        clock.advance(Duration::from_secs(KEEP));
        list.maintain();
    }
    let later = record(token_key(&list, 9), 9, Cutoff::FOREVER, NOW + 9 * DAY);
    let later = later.owned_by([list.hasher().key(&Scope::subject(ISS, "a"))]);
    assert_eq!(list.admit(&later, true, &Batch::default()), Admission::Room);
}

#[test]
fn rule4_what_is_covered_or_expired_stores_nothing() {
    let (list, _) = list();
    let key = list.hasher().key(&Scope::subject(ISS, "a"));
    let owner = list.hasher().key(&Scope::client(ISS, "c"));
    let admit = |cutoff, until| {
        list.admit(&record(key, 9, Cutoff::at(cutoff), until).owned_by([owner]), true, &Batch::default())
    };
    assert_eq!(admit(NOW, NOW - 1), Admission::Expired);
    assert_eq!(admit(NOW, NOW), Admission::Room);
    list.apply(&[revoke(key, 1, Cutoff::at(NOW), NOW + DAY)]);
    assert_eq!(admit(NOW, NOW + DAY), Admission::Covered);
    assert_eq!(admit(NOW - 1, NOW + HOUR), Admission::Covered);
    assert_eq!(admit(NOW + 1, NOW + DAY), Admission::Room, "a later cutoff adds something");
    assert_eq!(admit(NOW, NOW + DAY + 1), Admission::Room, "so does a longer life");
    list.apply(&[lift(key, &[1], NOW + DAY)]);
    assert_eq!(admit(NOW, NOW + DAY), Admission::Room, "what was lifted covers nothing");
    // Who answers for others has each decision stored, so that a lift of one leaves the others; up to a number.
    let session = list.hasher().key(&Scope::session(ISS, "s"));
    let decision = |n| record(session, n, Cutoff::FOREVER, NOW + DAY);
    for n in 0..16 {
        assert_eq!(list.admit(&decision(n), true, &Batch::default()), Admission::Room);
        list.apply(&[Change::Revoke(decision(n))]);
    }
    assert_eq!(list.admit(&decision(16), true, &Batch::default()), Admission::Covered);
}

/// F10, F16: a panic of some writer stops neither checks nor writes.
#[test]
fn f10_f16_a_poisoned_lock_stops_nothing() {
    let (list, clock) = list();
    list.apply(&tokens(&list, 0..1, NOW + DAY));
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            let _held = list.lock();
            panic!("a writer dies; this panic is part of the test");
        });
        assert!(writer.join().is_err());
    });
    assert!(list.writer.is_poisoned());
    list.apply(&tokens(&list, 1..2, NOW + DAY));
    assert!(denies_token(&list, 0) && denies_token(&list, 1) && !denies_token(&list, 2));
    clock.advance(Duration::from_secs(2 * DAY));
    forget(&list);
    assert_eq!(list.records(), 0);
}

/// Every default must be able to bite.
#[test]
fn rule4_the_default_client_quota_can_be_reached() {
    let (list, _) = list();
    let client = list.hasher().key(&Scope::client(ISS, "c"));
    // 255 owners a record: the same count with less work.
    for n in 0..2000 {
        let record = record(token_key(&list, n), n as u64, Cutoff::FOREVER, NOW + DAY).owned_by([client; 255]);
        list.apply(&[Change::Revoke(record)]);
    }
    assert_eq!(list.admit(&owned(&list, 2000, "a", "c"), true, &Batch::default()), Admission::OverQuota);
}

/// One call catches up, however long the last one was ago.
#[test]
fn l2_one_maintenance_frees_everything_that_is_due() {
    let (list, clock) = list();
    for minute in 0..10 {
        list.apply(&tokens(&list, minute..minute + 1, NOW + 60 * minute as u64));
    }
    clock.advance(Duration::from_secs(HOUR));
    list.maintain();
    assert_eq!(list.records(), 0);
}

/// An answer that was slow to arrive says nothing new.
#[test]
fn l7_an_older_moment_does_not_make_a_node_look_stale() {
    let (list, clock) = list();
    let before = list.now();
    clock.advance(Duration::from_secs(60));
    list.in_step_at(list.now());
    list.in_step_at(before);
    assert_eq!(list.staleness(), Some(Duration::ZERO));
}

/// What keys remember of one list says nothing to another, though both count their generations alike.
#[test]
fn l1_keys_that_are_clear_in_one_list_are_looked_up_in_another() {
    let hasher = ScopeHasher::random();
    let list = || {
        let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(60)));
        config.hasher = hasher.clone();
        let list = Denylist::new(config);
        list.in_step_at(list.now());
        list
    };
    let (one, other) = (list(), list());
    let now = one.now().unix();
    let revoke = |list: &Denylist, sub: &str| {
        let record = Revocation::new(Scope::subject("i", sub)).into_record(&hasher, list.lifetimes(), now);
        list.apply(&[Change::Revoke(record)]);
    };
    revoke(&one, "bob");
    revoke(&other, "alice");
    let alice = Identity::with_keys(&Claims::new("i").sub("alice").iat(now).exp(now + 60), &hasher);
    for _ in 0..2 {
        assert_eq!(one.check(&alice), Verdict::Allow);
        assert_eq!(other.check(&alice), Verdict::Deny(Reason::Revoked(ScopeKind::Subject)));
    }
    // Nor does it outlive a change.
    revoke(&one, "alice");
    assert_eq!(one.check(&alice), Verdict::Deny(Reason::Revoked(ScopeKind::Subject)));
}

/// Whether a cutoff covers a token without `iat` is a matter of policy: one guard's answer is not another's.
#[test]
fn keys_without_a_time_remember_nothing() {
    let list = Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(60))));
    let now = list.now();
    list.in_step_at(now);
    let record = Revocation::new(Scope::subject("i", "alice")).into_record(list.hasher(), list.lifetimes(), now.unix());
    list.apply(&[Change::Revoke(record)]);
    let keys = Claims::new("i").sub("alice").keys(list.hasher());
    for _ in 0..2 {
        assert_eq!(list.check_keys(&keys, MissingIat::Allow, now), Verdict::Allow);
        let denied = Verdict::Deny(Reason::NoIssueTime(ScopeKind::Subject));
        assert_eq!(list.check_keys(&keys, MissingIat::DenyIfCutoff, now), denied);
    }
}
