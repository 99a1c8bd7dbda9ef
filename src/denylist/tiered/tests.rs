//! Verdicts with and without everything in memory are the same, over random histories.
#![cfg(feature = "sync")]

use std::{
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use proptest::{collection::vec, prelude::*};

use super::{Answering, Filters, LookUp, Shelves};
use crate::{
    denylist::{Denylist, DenylistConfig, Mode, Staleness, Tiered, Verdict, Why},
    revocation::{Change, Cutoff, Detail, Lift, Revocation, RevocationId, Scope, ScopeKey, ScopeKind},
    time::{Clock, ManualClock},
    token::{Claims, Identity},
};

const ISS: &str = "https://issuer.example/";
const NOW: u64 = 1_700_000_000;

/// A store that holds everything, and what reaches the list while it answers.
struct Store {
    list: Weak<Denylist>,
    log: Mutex<Vec<Change>>,
    meanwhile: Mutex<Option<Change>>,
}

impl LookUp for Store {
    fn look_up(&self, keys: Vec<ScopeKey>, _: Option<ScopeKey>) -> Answering<'_> {
        let list = self.list.upgrade().unwrap();
        list.expect_answer(&keys);
        let held = |change: &&Change| keys.contains(&change.key());
        let answer: Vec<_> = self.log.lock().unwrap().iter().filter(held).cloned().collect();
        if let Some(change) = self.meanwhile.lock().unwrap().take() {
            self.log.lock().unwrap().push(change.clone());
            list.apply(&[change]);
            // What was applied may be dropped before the answer is in.
            list.maintain();
        }
        std::future::ready(Ok(list.answered(&keys, Some(&answer)))).boxed()
    }
}

/// The same list twice.
struct Pair {
    exact: Denylist,
    tiered: Arc<Denylist>,
    store: Arc<Store>,
    clock: Arc<ManualClock>,
}

impl Pair {
    fn new(entries: u64) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let mut config = DenylistConfig::new(Staleness::serve_after(Duration::MAX));
        config.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let exact = Denylist::new(config.clone());
        config.mode = Mode::Tiered(Tiered::default().entries(entries));
        let tiered = Arc::new(Denylist::new(config));
        let store =
            Arc::new(Store { list: Arc::downgrade(&tiered), log: Mutex::default(), meanwhile: Mutex::default() });
        tiered.ask_with(Arc::clone(&store) as Arc<dyn LookUp>);
        exact.in_step_at(exact.now());
        tiered.in_step_at(tiered.now());
        Self { exact, tiered, store, clock }
    }

    fn apply(&self, change: Change) {
        self.store.log.lock().unwrap().push(change.clone());
        self.tiered.apply(std::slice::from_ref(&change));
        self.exact.apply(&[change]);
    }

    fn maintain(&self) {
        self.tiered.maintain();
        self.exact.maintain();
    }

    fn now(&self) -> u64 {
        self.exact.now().unix()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Revoke {
        scope: u8,
        at: u64,
        ban: bool,
    },
    /// Of one that was made, or is still to come.
    Lift {
        scope: u8,
        which: usize,
    },
    /// What is known already arrives again.
    Repeat(usize),
    Check {
        user: u8,
        age: u64,
    },
    /// While the backend answers, this scope is revoked.
    CheckAndRevoke {
        user: u8,
    },
    Evict,
    Wait(u64),
}

fn scope(n: u8) -> Scope {
    let name = (n % 3).to_string();
    match n / 3 % 3 {
        0 => Scope::subject(ISS, name),
        1 => Scope::token(ISS, name),
        _ => Scope::session(ISS, name),
    }
}

fn token(user: u8, age: u64, now: u64) -> Identity {
    let name = (user % 3).to_string();
    let iat = now.saturating_sub(age);
    Identity::from_verified(&Claims::new(ISS).sub(&name).jti(&name).sid(&name).iat(iat).exp(iat + 20 * 60 * 60))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u8..9, 0_u64..2000, prop::bool::weighted(0.2)).prop_map(|(scope, at, ban)| Step::Revoke { scope, at, ban }),
        2 => (0_u8..9, 0_usize..8).prop_map(|(scope, which)| Step::Lift { scope, which }),
        1 => (0_usize..64).prop_map(Step::Repeat),
        4 => (0_u8..3, 0_u64..100_000).prop_map(|(user, age)| Step::Check { user, age }),
        1 => (0_u8..3).prop_map(|user| Step::CheckAndRevoke { user }),
        3 => Just(Step::Evict),
        1 => (1_u64..40_000).prop_map(Step::Wait),
    ]
}

fn run(entries: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let pair = Pair::new(entries);
    let (hasher, lifetimes) = (pair.tiered.hasher().clone(), *pair.tiered.lifetimes());
    // Ids are the same in both, and may be lifted before they are revoked.
    let id = |scope: u8, which: usize| RevocationId::from_u64(u64::from(scope % 9) * 100 + which as u64);
    let mut made = [0; 9];
    let record = |pair: &Pair, n: u8, id: RevocationId, at: u64, ban: bool| {
        let revocation = match ban {
            true => Revocation::ban(scope(n)),
            false => Revocation::new(scope(n)).cutoff(Cutoff::at(pair.now().saturating_sub(at))),
        };
        let record = revocation.into_record(&hasher, &lifetimes, pair.now());
        let detail = Detail::default();
        let (cutoff, until) = (record.cutoff(), record.retain_until());
        Change::Revoke(crate::revocation::Record::new(record.key(), id, cutoff, until, &detail))
    };
    for step in steps {
        match step {
            Step::Revoke { scope, at, ban } => {
                let which = &mut made[usize::from(scope % 9)];
                let change = record(&pair, scope, id(scope, *which), at, ban);
                *which += 1;
                pair.apply(change);
            }
            Step::Lift { scope: n, which } => {
                let key = hasher.key(&scope(n));
                pair.apply(Change::Lift(Lift::new(key, vec![id(n, which)], u64::MAX, &Detail::default())));
            }
            Step::Repeat(at) => {
                let log = pair.store.log.lock().unwrap();
                let change = log.get(at % log.len().max(1)).cloned();
                drop(log);
                if let Some(change) = change {
                    pair.tiered.apply(std::slice::from_ref(&change));
                    pair.exact.apply(&[change]);
                }
            }
            Step::Check { user, age } => {
                let token = token(user, age, pair.now());
                let exact = pair.exact.check(&token);
                let at_hand = pair.tiered.check(&token);
                prop_assert!(
                    at_hand == Verdict::Unknown(Why::NotAsked) || is_denied(at_hand) == is_denied(exact),
                    "{at_hand:?} {exact:?}"
                );
                let asked = pair.tiered.check_or_ask(&token).now_or_never().unwrap();
                prop_assert_eq!(is_denied(asked), is_denied(exact), "{:?} {:?}", asked, exact);
            }
            Step::CheckAndRevoke { user } => {
                let token = token(user, 60, pair.now());
                let change = record(&pair, user, RevocationId::random(), 0, true);
                *pair.store.meanwhile.lock().unwrap() = Some(change.clone());
                let asked = pair.tiered.check_or_ask(&token).now_or_never().unwrap();
                if pair.store.meanwhile.lock().unwrap().take().is_none() {
                    // It was applied while the backend answered: the answer knows of it.
                    prop_assert!(is_denied(asked), "{:?}", asked);
                    pair.exact.apply(&[change]);
                }
            }
            Step::Evict => pair.maintain(),
            Step::Wait(secs) => pair.clock.advance(Duration::from_secs(secs)),
        }
    }
    Ok(())
}

fn is_denied(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Deny(_))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// L1, L2: whatever is dropped, added, lifted, repeated, or arrives while the backend answers.
    #[test]
    fn l1_verdicts_are_those_of_the_whole_list(entries in 0_u64..6, steps in vec(step(), 1..80)) {
        run(entries, steps)?;
    }

    /// L2: a shelf goes once everything on it may go, and nothing on it before.
    #[test]
    fn l2_a_shelf_holds_until_its_time(untils in vec(0_u64..160_000, 1..40), now in 0_u64..300_000) {
        let (filters, mut shelves) = (Filters::new(), Shelves::new(86_400, 1000));
        for (key, until) in untils.iter().enumerate() {
            shelves.insert(key as u128 * 0x1234_5678_9abc_def1_0000_0000_0010, ScopeKind::Session, *until, 0, &filters);
        }
        let before = filters.count();
        let expired = shelves.expire(now, &filters);
        for (key, until) in untils.iter().enumerate() {
            let holds = filters.may_contain(key as u128 * 0x1234_5678_9abc_def1_0000_0000_0010);
            prop_assert!(holds || *until < now, "{until} at {now}");
        }
        if untils.iter().all(|until| until + 86_400 / 4 <= now) {
            prop_assert_eq!((filters.count(), expired.kinds), (0, 0), "of {}", before);
        }
    }
}

/// What it costs to hold one more revocation: three bytes at most.
#[test]
fn three_bytes_a_revocation() {
    const MANY: usize = 200_000;
    let random = |_| u128::from_ne_bytes(crate::random::bytes());
    // All at once, and over a day.
    for span in [1, 86_400] {
        let (filters, mut shelves) = (Filters::new(), Shelves::new(86_400, MANY));
        for (n, key) in (0..MANY).map(random).enumerate() {
            shelves.insert(key, ScopeKind::Token, NOW + n as u64 % span, NOW, &filters);
        }
        assert!(shelves.bytes() <= 3 * MANY, "{} bytes", shelves.bytes());
        let wrong = (0..100_000).filter(|n| filters.may_contain(random(*n))).count();
        assert!(wrong < 2000, "{wrong} of 100,000 are a false maybe");
    }
}

/// A scope that the filter has by chance still keeps its kind visible.
#[test]
fn l1_a_kind_stays_while_a_scope_of_it_does() {
    let (filters, mut shelves) = (Filters::new(), Shelves::new(86_400, 1000));
    shelves.insert(0x50, ScopeKind::Subject, NOW, NOW, &filters);
    // The same bits, another kind.
    assert!(!shelves.insert(0x50, ScopeKind::Session, NOW, NOW, &filters));
    assert_eq!(shelves.expire(NOW, &filters).kinds, 1 << ScopeKind::Subject as u32 | 1 << ScopeKind::Session as u32);
}
