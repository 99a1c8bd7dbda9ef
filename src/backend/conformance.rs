//! The conditions that every [`Backend`] must meet, as checks that can be run against yours.
//!
//! Say how to make a store in a [`Harness`], then let [`conformance_tests!`](crate::conformance_tests) make a test of each
//! check, or call [`run`]. A check panics where its condition is not met, and says which. One that a store leaves no room for
//! is skipped, and says why.
//!
//! ```
//! use tower_revocation::backend::{Memory, conformance::{self, Harness, Network, Skipped}};
//!
//! struct InMemory(Memory);
//!
//! impl Harness for InMemory {
//!     type Backend = Memory;
//!     async fn open(&self) -> Memory {
//!         self.0.clone()
//!     }
//!     async fn open_afar(&self) -> Result<(Memory, Box<dyn Network>), Skipped> {
//!         Err(Skipped::because("the store is in this process: there is no network"))
//!     }
//! }
//!
//! # let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! println!("{}", conformance::run(async || InMemory(Memory::new())).await);
//! # });
//! ```
#![allow(clippy::missing_panics_doc, reason = "a check has no other way to fail")]

mod network;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::join_all,
    stream::{BoxStream, StreamExt},
};
use tokio::sync::mpsc;

pub use self::network::{Network, Way, bears_a_slow_network, goes_on_after_a_cut, goes_on_after_silence};
use super::{Backend, BackendError, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime, Position};
use crate::{
    revocation::{
        Change, Cutoff, Detail, Lifetimes, Lift, Record, RevocationId, Scope, ScopeHasher, ScopeKey, ScopeState,
    },
    time::{Clock, ManualClock, Moment, SystemClock},
};

/// A store for the checks, empty at first, of one's own for each check: a fresh file, a fresh namespace.
pub trait Harness: Send + Sync {
    /// The backend under test.
    type Backend: Backend;

    /// Opens the store once more, as another node would.
    fn open(&self) -> impl Future<Output = Self::Backend> + Send;

    /// Opens the store over a network of this one's own that fails on demand; [`Harness::open`] is not concerned. Where
    /// there is no network to a store, it says so.
    fn open_afar(&self) -> impl Future<Output = Result<(Self::Backend, Box<dyn Network>), Skipped>> + Send;

    /// Crashes the store as hard as its [`Durability`] allows, and starts it again. All that was opened has been dropped.
    /// By default nothing more happens; a store of [`Durability::None`] is not asked.
    fn restart(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Stores `record` as the next change, past the backend, though it may be unreadable. Whether that is possible.
    fn plant(&self, record: &[u8]) -> impl Future<Output = bool> + Send {
        let _ = record;
        async { false }
    }
}

/// Makes a `#[tokio::test]` of each check of [`conformance`](crate::backend::conformance).
///
/// Takes an async function or closure that makes a fresh [`Harness`](crate::backend::conformance::Harness). The
/// tests run on several threads.
///
/// ```
/// # use tower_revocation::backend::{Memory, conformance::{Harness, Network, Skipped}};
/// # struct InMemory(Memory);
/// # impl Harness for InMemory {
/// #     type Backend = Memory;
/// #     async fn open(&self) -> Memory { self.0.clone() }
/// #     async fn open_afar(&self) -> Result<(Memory, Box<dyn Network>), Skipped> {
/// #         Err(Skipped::because("the store is in this process: there is no network"))
/// #     }
/// # }
/// mod memory {
///     use super::*;
///     tower_revocation::conformance_tests!(async || InMemory(Memory::new()));
/// }
/// ```
#[macro_export]
macro_rules! conformance_tests {
    ($fresh:expr) => {
        $crate::conformance_tests! { @list tests $fresh }
    };
    (@list $then:ident $fresh:expr) => {
        $crate::conformance_tests! { @$then $fresh;
            agrees_on_the_first_settings
            delivers_to_followers_and_later_snapshots
            keeps_the_order
            stores_a_batch_whole_or_not_at_all
            resumes_without_a_gap
            delivers_a_snapshot_of_many_pages
            takes_the_same_change_twice
            merges_what_two_nodes_revoke_at_once
            delivers_lifts
            says_caught_up_without_traffic
            says_caught_up_only_when_it_is
            looks_up_exactly
            purges_only_what_has_expired
            keeps_the_extremes
            delivers_whatever_the_clock_says
            lists_nodes_until_they_retire
            lists_nodes_over_a_crash
            starts_over_from_a_foreign_position
            survives_a_crash
            lets_one_claim_a_message
            lets_nothing_else_come_under_a_claimed_id
            finishes_messages
            forgets_claims_when_they_are_over
            remembers_claims_over_a_crash
            keeps_intents_until_they_are_settled
            keeps_intents_over_a_crash
            reports_what_is_unreadable
            delivers_concurrent_changes_in_order
            goes_on_after_a_cut
            goes_on_after_silence
            bears_a_slow_network
        }
    };
    (@tests $fresh:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let outcome = $crate::backend::conformance::$check(&($fresh)().await).await;
                $crate::backend::conformance::Outcome::tell(outcome, stringify!($check));
            }
        )*
    };
    (@run $fresh:expr; $($check:ident)*) => {
        [$(
            (
                stringify!($check),
                AssertUnwindSafe(async { Outcome::of($check(&($fresh)().await).await) }).catch_unwind().await.ok(),
            ),
        )*]
    };
}

/// Runs every check, each on a store of its own. It needs a runtime of several threads.
///
/// Panics in the end, naming the checks that failed, where any did.
pub async fn run<H: Harness>(fresh: impl AsyncFn() -> H) -> Report {
    let outcomes = conformance_tests!(@list run fresh);
    let failed: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome.is_none()).map(|(check, _)| *check).collect();
    assert!(failed.is_empty(), "{} of {} checks failed: {}", failed.len(), outcomes.len(), failed.join(", "));
    let mut report = Report { passed: Vec::new(), skipped: Vec::new() };
    for (check, outcome) in outcomes {
        match outcome {
            Some(Err(skipped)) => report.skipped.push((check, skipped)),
            _ => report.passed.push(check),
        }
    }
    report
}

/// What a run of all checks came to, where none failed.
#[derive(Clone, Debug)]
#[must_use = "some checks may have been skipped"]
#[non_exhaustive]
pub struct Report {
    /// The checks whose condition is met.
    pub passed: Vec<&'static str>,
    /// Those that the store leaves no room for.
    pub skipped: Vec<(&'static str, Skipped)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checks passed, {} skipped", self.passed.len(), self.skipped.len())?;
        self.skipped.iter().try_for_each(|(check, why)| write!(f, "\n{check} was skipped: {why}"))
    }
}

/// A check has nothing to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    why: String,
}

impl Skipped {
    /// For this reason.
    pub fn because(why: impl Into<String>) -> Self {
        Self { why: why.into() }
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What a check returns: nothing, where it applies to every store.
#[doc(hidden)]
pub trait Outcome: Sized {
    fn of(self) -> Result<(), Skipped>;

    #[allow(clippy::print_stdout, reason = "a test that does not fail has no other way to say something")]
    fn tell(self, check: &str) {
        if let Err(skipped) = self.of() {
            println!("{check} was skipped: {skipped}");
        }
    }
}

impl Outcome for () {
    fn of(self) -> Result<(), Skipped> {
        Ok(())
    }
}

impl Outcome for Result<(), Skipped> {
    fn of(self) -> Self {
        self
    }
}

/// The settings that the first node stores hold for all, for good.
pub async fn agrees_on_the_first_settings<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let offers: Vec<_> =
        (1..=8).map(|n| FleetSettings::new(n, &Lifetimes::DEFAULT, Some(format!("key {n}")))).collect();
    let racing = offers.iter().enumerate().map(|(n, ours)| if n % 2 == 0 { a.agree(ours) } else { b.agree(ours) });
    let agreed = done("agree", join_all(racing).map(|all| all.into_iter().collect::<Result<Vec<_>, _>>())).await;
    let fleet = &agreed[0];
    assert!(offers.contains(fleet), "agree returned settings that nobody offered: {fleet:?}");
    assert!(agreed.iter().all(|one| one == fleet), "agree returned different settings to racing nodes: {agreed:?}");
    let later = FleetSettings::new(99, &Lifetimes::DEFAULT, None);
    assert!(done("agree", b.agree(&later)).await == *fleet, "agree replaced the fleet's settings by a later node's");
}

/// A change reaches those who follow already, those who come later, and followers on the handle that published it.
pub async fn delivers_to_followers_and_later_snapshots<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let (mut here, mut there) = (Follower::new(&a, None), Follower::new(&b, None));
    here.catch_up().await;
    there.catch_up().await;
    assert_eq!((there.snapshots, there.seen.len()), (1, 0), "an empty store says Snapshot, then CaughtUp");
    let change = make.token(1);
    let position = done("publish", a.publish(std::slice::from_ref(&change))).await;
    for follower in [&mut here, &mut there] {
        follower.until("a published change", |seen| seen.seen.contains(&change)).await;
        follower.until("a position that is not behind the published one", |seen| seen.reached(&position)).await;
    }
    let mut late = Follower::new(&b, None);
    late.catch_up().await;
    assert_eq!(late.seen, [change], "a later snapshot holds what was published");
    assert!(late.reached(&position), "the position of a snapshot is not behind what it holds");

    let nothing = done("publish of an empty batch", a.publish(&[])).await;
    assert!(nothing >= position, "an empty batch is placed behind what was published before it");
}

/// Changes come in the order in which they were published, in a feed as in a snapshot.
pub async fn keeps_the_order<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let changes = make.tokens(0..300);
    let mut follower = Follower::new(&b, None);
    follower.catch_up().await;
    let mut positions = Vec::new();
    for batch in changes.chunks(7) {
        positions.push(done("publish", a.publish(batch)).await);
    }
    assert!(positions.is_sorted(), "positions of one publisher grow: {positions:?}");
    follower.until("all changes", |seen| seen.seen.len() >= changes.len()).await;
    assert!(follower.distinct() == changes, "the feed keeps the order");
    let mut late = Follower::new(&a, None);
    late.catch_up().await;
    assert!(late.distinct() == changes, "the snapshot keeps the order");
}

/// A batch is stored whole or not at all, also where its caller goes away in the middle.
pub async fn stores_a_batch_whole_or_not_at_all<H: Harness>(harness: &H) {
    const SIZE: u64 = 200;
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let batches: Vec<_> = (0..24).map(|n| make.tokens(n * SIZE..(n + 1) * SIZE)).collect();
    let publishing = async {
        for (n, batch) in batches.iter().enumerate() {
            // Later and later in the write; the last ones come to their end.
            let patience = if n < 16 { Duration::from_micros(n as u64 * 250) } else { LIMIT };
            let _ = tokio::time::timeout(patience, a.publish(batch)).await;
        }
        done("publish", a.publish(&[make.token(1_000_000)])).await
    };
    let mut follower = Follower::new(&b, None);
    let following = async {
        // Also meanwhile: half a batch never counts as caught up.
        for _ in 0..3 {
            follower.catch_up().await;
            follower.assert_whole(&batches);
        }
    };
    let (last, ()) = tokio::join!(publishing, following);
    follower.until("the last change", |seen| seen.reached(&last)).await;
    follower.assert_whole(&batches);
    assert!(batches[16..].iter().all(|batch| follower.seen.contains(&batch[0])), "acknowledged batches are delivered");
    let mut late = Follower::new(&b, None);
    late.catch_up().await;
    late.assert_whole(&batches);
}

/// Whoever comes back to a position gets all that came after it, or a snapshot of everything.
pub async fn resumes_without_a_gap<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let (before, missed, after) = (make.tokens(0..50), make.tokens(50..120), make.tokens(120..150));
    done("publish", a.publish(&before)).await;
    let mut first = Follower::new(&b, None);
    let from = first.catch_up().await;
    drop(first);
    done("publish", a.publish(&missed)).await;
    // On another handle than the one that it came from.
    let mut resumed = Follower::new(&a, Some(from.clone()));
    resumed.catch_up().await;
    done("publish", b.publish(&after)).await;
    let (start, all) = match resumed.snapshots {
        0 => (before.len(), [before, missed, after].concat()),
        _ => (0, [before, missed, after].concat()),
    };
    resumed.until("changes published after resuming", |seen| seen.seen.contains(&all[149])).await;
    let distinct = resumed.distinct();
    assert!(all[start..].iter().all(|change| distinct.contains(change)), "resuming from {from} leaves no gap");
    assert!(distinct.ends_with(&all[50..]), "resuming from {from} keeps the order");

    let (end, count) = (resumed.catch_up().await, all.len());
    drop(resumed);
    let mut idle = Follower::new(&b, Some(end.clone()));
    let reached = idle.catch_up().await;
    assert!(
        idle.snapshots == 0 || idle.distinct().len() == count,
        "a snapshot on resuming at the end holds everything"
    );
    assert!(reached >= end, "resuming at {end} does not lead back to {reached}");
}

/// A snapshot is not cut off at any size of page.
pub async fn delivers_a_snapshot_of_many_pages<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    // One more than the usual sizes of pages would hold, too.
    let changes = make.tokens(0..10_001);
    for batch in changes.chunks(2500) {
        done("publish of 2,500 changes", a.publish(batch)).await;
    }
    let mut follower = Follower::new(&b, None);
    follower.catch_up().await;
    assert_eq!(follower.distinct().len(), changes.len(), "the snapshot is complete before CaughtUp");
    assert!(follower.distinct() == changes, "the snapshot keeps the order");
}

/// A change that is published again, or delivered again, changes nothing.
pub async fn takes_the_same_change_twice<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let change = make.token(1);
    for store in [&a, &b, &a] {
        done("publish of the same change", store.publish(&[change.clone(), change.clone()])).await;
    }
    let mut follower = Follower::new(&b, None);
    follower.catch_up().await;
    let once = state_of([&change]);
    assert_eq!(state_of(&follower.seen), once, "duplicates in the feed merge to one");
    let found = done("lookup", a.lookup(&[change.key()])).await;
    assert_eq!(state_of(&found), once, "duplicates in a look-up merge to one");
}

/// Two nodes that revoke one scope at once end with the same state, the join of both.
pub async fn merges_what_two_nodes_revoke_at_once<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let now = SystemClock.now().unix();
    for round in 0..10_u64 {
        let key = make.key(&Scope::subject(ISSUER, round.to_string()));
        // The later cutoff has the earlier retention.
        let one = revoke(key, Cutoff::at(now + 5), now + 1000);
        let two = revoke(key, Cutoff::at(now), now + 2000);
        let (first, second) =
            tokio::join!(a.publish(std::slice::from_ref(&one)), b.publish(std::slice::from_ref(&two)));
        assert!(first.is_ok() && second.is_ok(), "two nodes publish at once: {first:?}, {second:?}");
        let expected = state_of([&one, &two]);
        for store in [&a, &b] {
            let mut follower = Follower::new(store, None);
            follower.catch_up().await;
            let state = state_of(follower.seen.iter().filter(|change| change.key() == key));
            assert_eq!(state, expected, "both revocations of one scope are kept, and merge");
            assert_eq!(state_of(&done("lookup", store.lookup(&[key])).await), expected, "and are found");
        }
    }
}

/// A lift is delivered, and one that comes again does not undo a later revocation.
pub async fn delivers_lifts<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let key = Maker::new().key(&Scope::subject(ISSUER, "alice"));
    let revoked = revoke(key, Cutoff::FOREVER, u64::MAX);
    let lift = Change::Lift(Lift::new(key, ids(&revoked), u64::MAX, &Detail::default()));
    let again = revoke(key, Cutoff::at(7), u64::MAX);
    let mut follower = Follower::new(&b, None);
    for change in [&revoked, &lift] {
        done("publish", a.publish(std::slice::from_ref(change))).await;
    }
    follower.until("a lift", |seen| seen.seen.contains(&lift)).await;
    assert_eq!(state_of(&follower.seen).cutoff(), None, "what was lifted is live no more");
    for change in [&again, &lift, &revoked] {
        done("publish", a.publish(std::slice::from_ref(change))).await;
    }
    let mut late = Follower::new(&b, None);
    late.catch_up().await;
    assert_eq!(state_of(&late.seen).cutoff(), Some(Cutoff::at(7)), "only what the lift names is lifted");
    let found = done("lookup", a.lookup(&[key])).await;
    assert_eq!(state_of(&found), state_of(&late.seen), "a look-up returns lifts too");
}

/// A feed without traffic still says that it is in step, as of ever later moments.
pub async fn says_caught_up_without_traffic<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let clock = ManualClock::at(1_000_000);
    let mut follower = Follower::with_clock(&store, None, &clock);
    for round in 1..=3_u64 {
        clock.advance(Duration::from_secs(10));
        let expected = 1_000_000 + 10 * round;
        let begun = Instant::now();
        let fresh = |seen: &Follower<'_>| seen.as_of.is_some_and(|as_of| as_of.unix() == expected);
        follower.until("CaughtUp without traffic, by the clock given", fresh).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "CaughtUp within 5 s, traffic or not");
    }
}

/// Whatever was acknowledged before `as_of` has been delivered before [`Event::CaughtUp`] says so.
///
/// Whenever the feed asks for the time, something is published before it is told.
pub async fn says_caught_up_only_when_it_is<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let changes = make.tokens(0..50);
    let (ask, mut asked) = mpsc::unbounded_channel();
    let (answer, answers) = std::sync::mpsc::channel();
    let clock = EventfulClock { ask, answers: Mutex::new(answers) };
    let publishing = tokio::spawn(async move {
        let mut moment = 0;
        while asked.recv().await.is_some() {
            if let Some(change) = changes.get(moment as usize) {
                done("publish", a.publish(std::slice::from_ref(change))).await;
                moment += 1;
            }
            // The feed may have given up waiting.
            let _ = answer.send(moment);
        }
    });
    {
        let mut follower = Follower::with_clock(&b, None, &clock);
        let mut acknowledged = 0;
        while acknowledged < 50 {
            follower.catch_up().await;
            // As many had been acknowledged as the clock showed.
            acknowledged = follower.as_of.map_or(0, |as_of| as_of.wall);
            let keys = follower.keys();
            let missing = (0..acknowledged).filter(|n| !keys.contains(&make.token(*n).key())).count();
            assert_eq!(missing, 0, "changes lack at CaughtUp that were acknowledged before its as_of");
        }
    }
    drop(clock);
    publishing.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
}

/// A look-up finds all changes of the keys asked for, lifts too, and nothing else.
pub async fn looks_up_exactly<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let changes = make.tokens(0..1500);
    done("publish", a.publish(&changes)).await;
    let twice = changes[3].key();
    let second = revoke(twice, Cutoff::at(1), u64::MAX);
    let lift = Change::Lift(Lift::new(twice, ids(&changes[3]), u64::MAX, &Detail::default()));
    done("publish", a.publish(&[second.clone(), lift.clone()])).await;
    // What has been acknowledged is found at once, on any handle.
    let found = done("lookup", b.lookup(&[twice])).await;
    for change in [&changes[3], &second, &lift] {
        assert!(found.contains(change), "a look-up lacks {change:?}: {found:?}");
    }
    assert_eq!(found.len(), 3, "a look-up returns the changes of its keys alone");
    assert!(done("lookup", b.lookup(&[make.token(9999).key()])).await.is_empty(), "an unknown key finds nothing");
    assert!(done("lookup", b.lookup(&[])).await.is_empty(), "no key finds nothing");
    let keys: Vec<_> = changes[100..1400].iter().map(Change::key).collect();
    let found: HashSet<_> = done("lookup of 1,300 keys", b.lookup(&keys)).await.iter().map(Change::key).collect();
    assert!(found == keys.into_iter().collect(), "a look-up of many keys finds each of them, and no other");
}

/// A purge deletes what expired before the moment given, and nothing that is still to be kept.
pub async fn purges_only_what_has_expired<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let until = |n: u64, retain_until| revoke(make.token(n).key(), Cutoff::FOREVER, retain_until);
    let expired: Vec<_> = (0..2500).map(|n| until(n, 1 + n % 999)).collect();
    let kept =
        [1000, 1001, u64::MAX - 1, u64::MAX].map(|retain_until| until(10_000 + retain_until % 977, retain_until));
    // Of one scope, only one revocation has expired.
    let lasting = revoke(expired[0].key(), Cutoff::at(5), 1000);
    done("publish", a.publish(&[&expired[..], &kept[..], std::slice::from_ref(&lasting)].concat())).await;
    let mut behind = Follower::new(&b, None);
    let from = behind.catch_up().await;
    drop(behind);
    let after = until(20_000, 1_000_000);
    done("publish", a.publish(std::slice::from_ref(&after))).await;

    assert_eq!(done("purge", b.purge(0)).await, 0, "nothing lies before 0");
    assert_eq!(done("purge", b.purge(1000)).await, 2500, "all that expired before, and no other, is purged");
    assert_eq!(done("purge", a.purge(1000)).await, 0, "a second purge finds nothing");
    let mut late = Follower::new(&a, None);
    late.catch_up().await;
    let left: Vec<_> = kept.iter().chain([&lasting, &after]).cloned().collect();
    assert!(late.distinct() == left, "what is still to be kept stays: {:?}", late.seen);
    let found = done("lookup", a.lookup(&[lasting.key()])).await;
    assert_eq!(found, [lasting], "a scope that was revoked again stays revoked");
    let mut resumed = Follower::new(&b, Some(from));
    resumed.catch_up().await;
    assert!(resumed.seen.contains(&after), "a purge does not cut off who was behind");

    done("purge of all that is no ban", a.purge(u64::MAX)).await;
    let found = done("lookup", a.lookup(&[kept[3].key()])).await;
    assert!(found.contains(&kept[3]), "a ban is never purged");
    let position = done("publish", a.publish(std::slice::from_ref(&after))).await;
    assert!(resumed.position < Some(position), "positions go on growing after a purge");
}

/// Bans, cutoffs for ever and at zero, many owners, ids and details come back as they were.
pub async fn keeps_the_extremes<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    let key = |sub: &str| make.key(&Scope::subject(ISSUER, sub));
    let detail = |reason: String| Detail {
        reason: Some(reason),
        revoked_by: Some("\0\u{10ffff}'\"".into()),
        ..Detail::default()
    };
    let id = RevocationId::from_u64;
    let changes = vec![
        Change::Revoke(Record::new(key("ban"), id(u64::MAX), Cutoff::FOREVER, u64::MAX, &Detail::default())),
        Change::Revoke(Record::new(key("least"), id(0), Cutoff::at(0), 0, &Detail::default())),
        Change::Revoke(Record::new(key("sign"), id(1 << 63), Cutoff::at(1 << 63), 1 << 63, &Detail::default())),
        Change::Revoke(Record::new(key("most"), id(1), Cutoff::at(u64::MAX - 1), u64::MAX - 1, &Detail::default())),
        Change::Revoke(
            Record::new(key("long"), id(2), Cutoff::at(2), 2, &detail("x".repeat(100_000)))
                .owned_by(vec![key("o"); 255]),
        ),
        Change::Lift(Lift::new(key("none"), Vec::new(), u64::MAX, &detail(String::new()))),
        Change::Lift(Lift::new(key("all"), (0..1000).map(id).collect(), u64::MAX, &Detail::default())),
    ];
    let mut follower = Follower::new(&b, None);
    follower.catch_up().await;
    done("publish", a.publish(&changes)).await;
    follower.until("all changes", |seen| seen.seen.len() >= changes.len()).await;
    assert!(follower.distinct() == changes, "a feed returns what was published: {:?}", follower.seen);
    let keys: Vec<_> = changes.iter().map(Change::key).collect();
    let found = done("lookup", b.lookup(&keys)).await;
    assert!(changes.iter().all(|change| found.contains(change)), "a look-up returns what was published: {found:?}");
}

/// A change counts until it is purged, however far its times lie from any clock.
pub async fn delivers_whatever_the_clock_says<H: Harness>(harness: &H) {
    let store = harness.open().await;
    let make = Maker::new();
    let changes: Vec<_> = [0, 1, 1_000_000, SystemClock.now().unix(), 1 << 62]
        .into_iter()
        .zip(1..)
        .map(|(retain_until, n)| revoke(make.token(n).key(), Cutoff::FOREVER, retain_until))
        .collect();
    done("publish", store.publish(&changes)).await;
    for clock in [ManualClock::at(0), ManualClock::at(1 << 50)] {
        let mut follower = Follower::with_clock(&store, None, &clock);
        follower.catch_up().await;
        assert!(follower.distinct() == changes, "a snapshot holds all that was not purged: {:?}", follower.seen);
    }
}

/// What nodes announce is there for all until it is replaced or taken back. Another run under the same name replaces
/// nothing: both may serve.
pub async fn lists_nodes_until_they_retire<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let mut one = NodeStatus::new("one", true, Duration::from_secs(60));
    assert_eq!(done("heartbeat", a.heartbeat(&one)).await, [one.clone()], "a node sees itself");
    let two = NodeStatus::new("two: with \"signs\", {spaces} and ünicode", false, Duration::from_millis(1));
    let mut nodes = done("heartbeat", b.heartbeat(&two)).await;
    nodes.sort_by(|a, b| a.node.cmp(&b.node));
    assert_eq!(nodes, [one.clone(), two.clone()], "a node sees the others");
    let before = one.clone();
    one.applied = Some(Position::new("life", u128::from(u64::MAX)));
    one.beat = u64::MAX;
    let nodes = done("heartbeat", a.heartbeat(&one)).await;
    assert!(nodes.contains(&one) && nodes.len() == 2, "a second announcement replaces the first: {nodes:?}");

    done("retire", b.retire(&before)).await;
    let nodes = done("heartbeat", b.heartbeat(&two)).await;
    assert!(nodes.contains(&one), "a node that has announced something else since stays on the list: {nodes:?}");
    assert!(nodes.contains(&two), "a lease of a millisecond is not the store's to judge");
    let namesake = NodeStatus::new("one", true, Duration::from_secs(60));
    let nodes = done("heartbeat", b.heartbeat(&namesake)).await;
    assert!(nodes.contains(&one) && nodes.contains(&namesake), "two runs of one name are two nodes: {nodes:?}");
    done("retire", a.retire(&namesake)).await;
    let nodes = done("heartbeat", b.heartbeat(&two)).await;
    assert!(nodes.contains(&one), "a run that retires takes no other of its name along: {nodes:?}");
    done("retire", b.retire(&one)).await;
    done("retire of a node that is not there", a.retire(&one)).await;
    assert_eq!(done("heartbeat", b.heartbeat(&two)).await, [two], "a node that has retired is off the list");
}

/// A position of another store, or of another life of this one, leads to a snapshot.
pub async fn starts_over_from_a_foreign_position<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let changes = Maker::new().tokens(0..20);
    let last = done("publish", a.publish(&changes)).await;
    let foreign = Position::new(format!("not {}", last.incarnation()), last.offset());
    // What a restore from a backup leaves behind; a store that cannot be restored has no such positions.
    let ahead = Position::new(last.incarnation(), last.offset() + 1_000_000);
    let ahead = (a.durability() != Durability::None).then_some(ahead);
    for from in [foreign].into_iter().chain(ahead) {
        let mut follower = Follower::new(&b, Some(from.clone()));
        let reached = follower.catch_up().await;
        assert!(follower.snapshots > 0, "following from {from}, which is none of the store's, starts with Snapshot");
        assert!(follower.distinct() == changes, "following from {from} delivers everything");
        assert!(reached.partial_cmp(&from).is_none() || reached < from, "{reached} is where the store is");
    }
}

/// What was acknowledged is there after a crash, settings included.
pub async fn survives_a_crash<H: Harness>(harness: &H) -> Result<(), Skipped> {
    let make = Maker::new();
    let (before, after) = (make.tokens(0..100), make.tokens(100..150));
    let ours = FleetSettings::new(7, &Lifetimes::DEFAULT, None);
    let (fleet, from) = {
        let store = harness.open().await;
        lasting(&store)?;
        let fleet = done("agree", store.agree(&ours)).await;
        done("publish", store.publish(&before)).await;
        let from = Follower::new(&store, None).catch_up().await;
        done("publish", store.publish(&after)).await;
        (fleet, from)
    };
    harness.restart().await;
    let store = harness.open().await;
    let other = FleetSettings::new(8, &Lifetimes::DEFAULT, None);
    assert!(done("agree", store.agree(&other)).await == fleet, "the fleet's settings survive a crash");
    let all = [before, after.clone()].concat();
    let mut follower = Follower::new(&store, None);
    follower.catch_up().await;
    assert!(follower.distinct() == all, "{} of {} changes survived a crash", follower.distinct().len(), all.len());
    let mut resumed = Follower::new(&store, Some(from));
    resumed.catch_up().await;
    assert!(after.iter().all(|change| resumed.seen.contains(change)), "resuming after a crash leaves no gap");
    Ok(())
}

/// Of all who claim a message, one is the first; other namespaces, makers and ids are other messages.
pub async fn lets_one_claim_a_message<H: Harness>(harness: &H) {
    const RACING: usize = 16;
    let (a, b) = (harness.open().await, harness.open().await);
    for round in 0..8 {
        let id = format!("message {round}");
        let message = OneTime::new("conformance", ISSUER, &id, [1; 32], u64::MAX);
        let racing = (0..RACING).map(|n| if n % 2 == 0 { a.claim_once(&message) } else { b.claim_once(&message) });
        let claims =
            done("claim_once", join_all(racing).map(|all| all.into_iter().collect::<Result<Vec<_>, _>>())).await;
        let first = claims.iter().filter(|claim| **claim == Claim::First).count();
        assert_eq!(first, 1, "of {RACING} racing claims of one message, one is the first");
        let again = claims.iter().filter(|claim| **claim == Claim::Again).count();
        assert_eq!(again, RACING - 1, "the others of {RACING} come again, since it is not finished");
        assert_eq!(done("claim_once", b.claim_once(&message)).await, Claim::Again, "and so does one that comes later");
    }
    // What only looks the same when it is joined.
    let shifted = format!("e{ISSUER}");
    let others = [
        OneTime::new("elsewhere", ISSUER, "message 0", [1; 32], u64::MAX),
        OneTime::new("conformance", "https://other.example/", "message 0", [1; 32], u64::MAX),
        OneTime::new("conformance", ISSUER, "message 8", [1; 32], u64::MAX),
        OneTime::new("conformanc", &shifted, "message 0", [1; 32], u64::MAX),
    ];
    for other in others {
        assert_eq!(done("claim_once", a.claim_once(&other)).await, Claim::First, "{other:?} is another message");
    }
}

/// Under the id of a message that was claimed, nothing else may come, however they race.
pub async fn lets_nothing_else_come_under_a_claimed_id<H: Harness>(harness: &H) {
    const RACING: u8 = 16;
    let (a, b) = (harness.open().await, harness.open().await);
    for round in 0..8 {
        let id = format!("message {round}");
        let messages: Vec<_> =
            (0..RACING).map(|n| OneTime::new("conformance", ISSUER, &id, [n; 32], u64::MAX)).collect();
        let store = |n: usize| [&a, &b][n % 2];
        let racing = messages.iter().enumerate().map(|(n, message)| store(n).claim_once(message));
        let claims =
            done("claim_once", join_all(racing).map(|all| all.into_iter().collect::<Result<Vec<_>, _>>())).await;
        assert_eq!(claims.iter().filter(|claim| **claim == Claim::First).count(), 1, "one is the first: {claims:?}");
        assert!(!claims.contains(&Claim::Again), "the others are not the same message: {claims:?}");
        for (n, (message, claim)) in messages.iter().zip(claims).enumerate() {
            let later = if claim == Claim::First { Claim::Again } else { Claim::Repeated };
            assert_eq!(done("claim_once", store(n + 1).claim_once(message)).await, later, "the first one holds");
        }
    }
}

/// What is finished never comes again, on any handle; other messages do.
pub async fn finishes_messages<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let [message, other] = ["message", "other"].map(|id| OneTime::new("conformance", ISSUER, id, [1; 32], u64::MAX));
    for message in [&message, &other] {
        assert_eq!(done("claim_once", a.claim_once(message)).await, Claim::First);
    }
    for store in [&b, &a] {
        done("finish_once", store.finish_once(&message)).await;
        for store in [&a, &b] {
            assert_eq!(done("claim_once", store.claim_once(&message)).await, Claim::Repeated, "what is finished");
            assert_eq!(done("claim_once", store.claim_once(&other)).await, Claim::Again, "what is not finished");
        }
    }
    // The claim was lost, or purged by a node whose clock is ahead.
    let unknown = OneTime::new("conformance", ISSUER, "unknown", [1; 32], u64::MAX);
    done("finish_once", a.finish_once(&unknown)).await;
    assert_eq!(done("claim_once", b.claim_once(&unknown)).await, Claim::Repeated, "finished without being claimed");
}

/// A purge forgets claims that are over, and no others.
pub async fn forgets_claims_when_they_are_over<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let messages = [("over", 999), ("not over", 1000), ("never over", u64::MAX)];
    let messages = messages.map(|(id, until)| OneTime::new("conformance", ISSUER, id, [1; 32], until));
    for message in &messages {
        assert_eq!(done("claim_once", a.claim_once(message)).await, Claim::First);
        done("finish_once", a.finish_once(message)).await;
    }
    assert_eq!(done("purge", b.purge(1000)).await, 0, "a purge counts changes, not claims");
    let expected = [Claim::First, Claim::Repeated, Claim::Repeated];
    for (message, expected) in messages.iter().zip(expected) {
        assert_eq!(done("claim_once", b.claim_once(message)).await, expected, "{message:?} after a purge of 1000");
    }
}

/// A claim that was acknowledged is remembered after the hardest crash that the store's [`Durability`] covers, and so is
/// that it was finished.
pub async fn remembers_claims_over_a_crash<H: Harness>(harness: &H) -> Result<(), Skipped> {
    let message = |id, message| OneTime::new("conformance", ISSUER, id, [message; 32], u64::MAX);
    {
        let store = harness.open().await;
        lasting(&store)?;
        for id in ["claimed", "finished"] {
            assert_eq!(done("claim_once", store.claim_once(&message(id, 1))).await, Claim::First);
        }
        done("finish_once", store.finish_once(&message("finished", 1))).await;
    }
    harness.restart().await;
    let store = harness.open().await;
    for (id, digest, expected) in
        [("claimed", 2, Claim::Repeated), ("claimed", 1, Claim::Again), ("finished", 1, Claim::Repeated)]
    {
        let claim = done("claim_once", store.claim_once(&message(id, digest))).await;
        assert_eq!(claim, expected, "what was {id} with {digest} survives a crash");
    }
    Ok(())
}

/// An intent is there, as it was, for every node, until it is settled; a purge leaves it alone.
pub async fn keeps_intents_until_they_are_settled<H: Harness>(harness: &H) {
    let (a, b) = (harness.open().await, harness.open().await);
    let make = Maker::new();
    assert_eq!(done("intents", a.intents()).await, [], "an empty store has no intents");
    let mut intents: Vec<_> = (0..3).map(|n| Intent::new(n, &make.tokens(n * 10..n * 11 + 5))).collect();
    // What no version can read is kept all the same.
    intents.extend([0, 1, u64::MAX, 1 << 63].map(|id| Intent::stored(id, id.to_be_bytes().to_vec())));
    for (n, intent) in intents.iter().enumerate() {
        done("intend", if n % 2 == 0 { &a } else { &b }.intend(intent)).await;
    }
    done("purge", a.purge(u64::MAX)).await;
    intents.sort_by_key(|intent| intent.id);
    for store in [&a, &b] {
        assert_eq!(all_intents(store).await, intents, "every intent is there for every node");
    }
    for (n, intent) in intents.iter().enumerate() {
        // Twice, as two nodes would that found it.
        for store in [&b, &a] {
            done("settle", store.settle(intent.id)).await;
            assert_eq!(all_intents(store).await, intents[n + 1..], "one that was settled is gone, and no other");
        }
    }
}

/// An intent that was acknowledged survives the hardest crash that the store's [`Durability`] covers.
pub async fn keeps_intents_over_a_crash<H: Harness>(harness: &H) -> Result<(), Skipped> {
    let intents = [1, 2].map(|n| Intent::new(n, &[Maker::new().token(n)]));
    {
        let store = harness.open().await;
        lasting(&store)?;
        for intent in &intents {
            done("intend", store.intend(intent)).await;
        }
        done("settle", store.settle(intents[0].id)).await;
    }
    harness.restart().await;
    let store = harness.open().await;
    assert_eq!(done("intents", store.intents()).await, intents[1..], "intents, and that they are settled, survive");
    Ok(())
}

/// A node that was listed is listed after the hardest crash that the store's [`Durability`] covers: it may still serve.
pub async fn lists_nodes_over_a_crash<H: Harness>(harness: &H) -> Result<(), Skipped> {
    let one = NodeStatus::new("one", true, Duration::from_secs(60));
    {
        let store = harness.open().await;
        lasting(&store)?;
        done("heartbeat", store.heartbeat(&one)).await;
    }
    harness.restart().await;
    let store = harness.open().await;
    let nodes = done("heartbeat", store.heartbeat(&NodeStatus::new("two", true, Duration::from_secs(60)))).await;
    assert!(nodes.contains(&one), "the announcement of a node survives: {nodes:?}");
    Ok(())
}

/// A record that cannot be read is reported, by name, and never skipped in silence; all others are delivered.
pub async fn reports_what_is_unreadable<H: Harness>(harness: &H) -> Result<(), Skipped> {
    let store = harness.open().await;
    let make = Maker::new();
    let (before, after) = (make.token(1), make.token(2));
    let mut there = Follower::new(&store, None);
    there.catch_up().await;
    done("publish", store.publish(std::slice::from_ref(&before))).await;
    let mut unreadable = make.token(3).encode();
    unreadable[0] = 0;
    if !harness.plant(&unreadable).await {
        return Err(Skipped::because("nothing can be stored past the backend"));
    }
    done("publish", store.publish(std::slice::from_ref(&after))).await;
    let mut late = Follower::new(&store, None);
    late.catch_up().await;
    there.until("a change after an unreadable one", |seen| seen.seen.contains(&after)).await;
    there.catch_up().await;
    for follower in [there, late] {
        assert_eq!(follower.unreadable.len(), 1, "an unreadable record is reported once: {:?}", follower.unreadable);
        assert!(!follower.unreadable[0].is_empty(), "an unreadable record has a name");
        assert_eq!(follower.distinct(), [before.clone(), after.clone()], "the others are delivered");
    }
    Ok(())
}

/// Nothing is lost, and the order of positions is kept, where many publish at once.
pub async fn delivers_concurrent_changes_in_order<H: Harness>(harness: &H) {
    const TASKS: u64 = 8;
    const EACH: u64 = 50;
    let stores = [harness.open().await, harness.open().await];
    let stores = stores.map(Arc::new);
    let make = Maker::new();
    let mut early = Follower::new(&*stores[1], None);
    early.catch_up().await;
    let tasks = (0..TASKS).map(|task| {
        let (store, changes) = (Arc::clone(&stores[task as usize % 2]), make.tokens(task * EACH..(task + 1) * EACH));
        tokio::spawn(async move {
            let mut placed = Vec::new();
            for change in changes {
                let position =
                    done("one of many publishes at once", store.publish(std::slice::from_ref(&change))).await;
                placed.push((change.key(), position));
            }
            placed
        })
    });
    let tasks = join_all(tasks.collect::<Vec<_>>());
    // This one begins in the middle of it.
    let mut late = Follower::new(&*stores[0], None);
    late.until("the first changes", |seen| seen.seen.len() >= 20).await;
    let placed: HashMap<ScopeKey, Position> = tasks
        .await
        .into_iter()
        .flat_map(|task| task.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
        .collect();
    let count = (TASKS * EACH) as usize;
    for follower in [&mut early, &mut late] {
        follower.until("all that was published", |seen| seen.keys().len() >= count).await;
        let order: Vec<_> = follower.distinct().iter().map(|change| placed.get(&change.key())).collect();
        assert!(order.iter().all(Option::is_some), "a feed delivers what was published, and nothing else");
        assert!(order.is_sorted(), "a feed keeps the order of positions: {order:?}");
    }
}

/// How long a check waits for anything.
const LIMIT: Duration = Duration::from_secs(30);
const ISSUER: &str = "https://issuer.example/";

/// What a call returned, in time.
async fn done<T>(what: &str, call: impl Future<Output = Result<T, BackendError>>) -> T {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => panic!("{what} failed: {error}"),
        Err(_) => panic!("{what} did not return within {LIMIT:?}"),
    }
}

/// Whether there is anything to say about a crash.
fn lasting(store: &impl Backend) -> Result<(), Skipped> {
    match store.durability() {
        Durability::None => Err(Skipped::because("the store promises to survive no crash")),
        _ => Ok(()),
    }
}

/// Makes changes with keys of its own.
struct Maker(ScopeHasher);

impl Maker {
    fn new() -> Self {
        Self(ScopeHasher::random())
    }

    fn key(&self, scope: &Scope) -> ScopeKey {
        self.0.key(scope)
    }

    fn token(&self, n: u64) -> Change {
        let key = self.key(&Scope::token(ISSUER, n.to_string()));
        let until = SystemClock.now().unix() + 3600;
        Change::Revoke(Record::new(key, RevocationId::from_u64(n), Cutoff::FOREVER, until, &Detail::default()))
    }

    fn tokens(&self, numbers: std::ops::Range<u64>) -> Vec<Change> {
        numbers.map(|n| self.token(n)).collect()
    }
}

fn revoke(key: ScopeKey, cutoff: Cutoff, retain_until: u64) -> Change {
    Change::Revoke(Record::new(key, RevocationId::random(), cutoff, retain_until, &Detail::default()))
}

fn ids(change: &Change) -> Vec<RevocationId> {
    match change {
        Change::Revoke(record) => vec![record.id()],
        Change::Lift(lift) => lift.ids().to_vec(),
    }
}

async fn all_intents(store: &impl Backend) -> Vec<Intent> {
    let mut all = done("intents", store.intents()).await;
    all.sort_by_key(|intent| intent.id);
    all
}

fn state_of<'a>(changes: impl IntoIterator<Item = &'a Change>) -> ScopeState {
    let mut state = ScopeState::default();
    changes.into_iter().for_each(|change| state.apply(change));
    state
}

/// A feed and all that it said.
struct Follower<'a> {
    feed: BoxStream<'a, Result<Event, BackendError>>,
    seen: Vec<Change>,
    snapshots: usize,
    unreadable: Vec<String>,
    position: Option<Position>,
    as_of: Option<Moment>,
}

impl<'a> Follower<'a> {
    fn new(store: &'a impl Backend, from: Option<Position>) -> Self {
        Self::with_clock(store, from, &SystemClock)
    }

    fn with_clock(store: &'a impl Backend, from: Option<Position>, clock: &'a dyn Clock) -> Self {
        let feed = store.follow(from, clock);
        Self { feed, seen: Vec::new(), snapshots: 0, unreadable: Vec::new(), position: None, as_of: None }
    }

    /// The next event; whether it was that all is delivered.
    async fn step(&mut self, wanted: &str) -> bool {
        self.try_step(wanted).await.unwrap_or_else(|why| panic!("waiting for {wanted}: the feed {why}"))
    }

    /// The same; how the feed ended, where it does.
    async fn try_step(&mut self, wanted: &str) -> Result<bool, String> {
        let event = match tokio::time::timeout(LIMIT, self.feed.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) => return Err(format!("failed: {error}")),
            Ok(None) => return Err("ended".to_owned()),
            Err(_) => panic!("waiting for {wanted}: the feed was silent for {LIMIT:?}"),
        };
        match event {
            Event::Snapshot => self.snapshots += 1,
            Event::Changes(changes) => self.seen.extend(changes),
            Event::Unreadable { name, .. } => self.unreadable.push(name),
            Event::CaughtUp { position, as_of } => {
                assert!(self.as_of.is_none_or(|before| before.wall <= as_of.wall), "as_of never goes back");
                (self.position, self.as_of) = (Some(position), Some(as_of));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads up to the next [`Event::CaughtUp`]; returns its position.
    async fn catch_up(&mut self) -> Position {
        let begun = Instant::now();
        while !self.step("CaughtUp").await {
            assert!(begun.elapsed() < LIMIT, "no CaughtUp within {LIMIT:?}");
        }
        self.position.clone().unwrap_or_else(|| panic!("CaughtUp carries a position"))
    }

    async fn until(&mut self, wanted: &str, is_there: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_there(self) {
            assert!(begun.elapsed() < LIMIT, "{wanted} did not arrive within {LIMIT:?}");
            self.step(wanted).await;
        }
    }

    fn reached(&self, position: &Position) -> bool {
        self.position.as_ref().is_some_and(|reached| reached >= position)
    }

    fn keys(&self) -> HashSet<ScopeKey> {
        self.seen.iter().map(Change::key).collect()
    }

    /// What was delivered, without what was delivered again.
    fn distinct(&self) -> Vec<Change> {
        let mut known = HashSet::new();
        self.seen.iter().filter(|change| known.insert(change.encode())).cloned().collect()
    }

    fn assert_whole(&self, batches: &[Vec<Change>]) {
        let keys = self.keys();
        for (n, batch) in batches.iter().enumerate() {
            let held = batch.iter().filter(|change| keys.contains(&change.key())).count();
            assert!(held == 0 || held == batch.len(), "{held} of the {} changes of batch {n} are there", batch.len());
        }
    }
}

/// A clock that lets something happen before it tells the time.
#[derive(Debug)]
struct EventfulClock {
    ask: mpsc::UnboundedSender<()>,
    answers: Mutex<std::sync::mpsc::Receiver<u64>>,
}

impl Clock for EventfulClock {
    fn now(&self) -> Moment {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = self.ask.send(()).ok();
        let now = asked.and_then(|()| answers.recv_timeout(LIMIT).ok());
        now.map_or(Moment::default(), |now| Moment::new(now, now))
    }
}
