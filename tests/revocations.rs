//! The handle and the replica task against a backend that misbehaves.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{ISSUER, config, eventually, unix};
use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::{self, BoxStream},
};
use tower_revocation::{
    Revocations,
    backend::{
        Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, Memory, NodeStatus,
        OneTime, Position,
    },
    denylist::{OutOfBounds, Reason, Staleness, Verdict, Why},
    revocation::{Change, Cutoff, Revocation, Scope, ScopeKey, ScopeKind},
    sync::{RevokeError, Revoked, StartError, SyncConfig},
    time::{Clock, ManualClock},
    token::{Claims, Identity},
};

/// A memory backend with faults that a test switches on.
#[derive(Clone, Default)]
struct Faulty {
    inner: Memory,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    refuse_writes: AtomicBool,
    hang_writes: AtomicBool,
    /// Ends the feed at its next event.
    cut_feed: AtomicBool,
    refuse_feed: AtomicBool,
    unreadable: AtomicBool,
    feeds: AtomicUsize,
    snapshots: AtomicUsize,
}

fn on(fault: &AtomicBool) -> bool {
    fault.load(Ordering::SeqCst)
}

fn set(fault: &AtomicBool, to: bool) {
    fault.store(to, Ordering::SeqCst);
}

fn down(what: &str) -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, format!("{what}: switched off by the test"))
}

impl Backend for Faulty {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        self.inner.agree(ours)
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        async move {
            if on(&self.faults.refuse_writes) {
                return Err(down("publish"));
            }
            while on(&self.faults.hang_writes) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.inner.publish(batch).await
        }
        .boxed()
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        self.faults.feeds.fetch_add(1, Ordering::SeqCst);
        if on(&self.faults.refuse_feed) {
            return stream::iter([Err(down("follow"))]).boxed();
        }
        let unreadable = on(&self.faults.unreadable).then(|| {
            let why = Change::decode(&[1, 2, 3]).unwrap_err();
            Ok(Event::Unreadable { name: "row 7".to_owned(), why })
        });
        let feed = self.inner.follow(from, clock).map(|event| {
            if matches!(event, Ok(Event::Snapshot)) {
                self.faults.snapshots.fetch_add(1, Ordering::SeqCst);
            }
            if self.faults.cut_feed.swap(false, Ordering::SeqCst) { Err(down("follow")) } else { event }
        });
        stream::iter(unreadable).chain(feed).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        self.inner.lookup(keys)
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        self.inner.heartbeat(node)
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.retire(node)
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        self.inner.claim_once(claim)
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.finish_once(claim)
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.intend(intent)
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        self.inner.settle(id)
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        self.inner.intents()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.inner.purge(before)
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }
}

fn alice(jti: &str, iat: u64) -> Identity {
    Identity::from_verified(&Claims::new(ISSUER).jti(jti).sub("alice").sid("s").iat(iat).exp(iat + 600))
}

fn denied(revocations: &Revocations, identity: &Identity) -> bool {
    matches!(revocations.check(identity), Verdict::Deny(_))
}

/// L3, F33: where the backend does not acknowledge, nothing pretends.
#[tokio::test]
async fn l3_no_acknowledgement_no_success() {
    let backend = Faulty::default();
    let mut config = config();
    config.publish_timeout = Duration::from_millis(50);
    let revocations = Revocations::start(backend.clone(), config).await.unwrap();
    let identity = alice("1", unix());

    set(&backend.faults.refuse_writes, true);
    let error = revocations.log_out(&identity).await.unwrap_err();
    assert!(matches!(error, RevokeError::Backend(_)), "{error}");
    assert_eq!(revocations.check(&identity), Verdict::Allow);
    assert_eq!(revocations.denylist().records(), 0);

    set(&backend.faults.refuse_writes, false);
    set(&backend.faults.hang_writes, true);
    let error = revocations.log_out(&identity).await.unwrap_err();
    assert!(error.to_string().contains("50ms"), "{error}");
    set(&backend.faults.hang_writes, false);

    assert!(matches!(revocations.log_out(&identity).await, Ok(Revoked::Recorded { .. })));
    assert!(denied(&revocations, &identity));
}

/// L4: a lift takes back the decisions that it names, and no other that happened to say the same.
#[tokio::test]
async fn l4_the_same_decision_twice_is_two() {
    let revocations = Revocations::start(Memory::new(), config()).await.unwrap();
    let identity = alice("1", unix());
    let _ = revocations.log_out(&identity).await.unwrap();
    let first = revocations.revocations_of(&Scope::session(ISSUER, "s"));
    let _ = revocations.log_out(&identity).await.unwrap();
    revocations.lift(&Scope::session(ISSUER, "s"), &first, "the test").await.unwrap();
    assert!(denied(&revocations, &identity));
    let all = revocations.revocations_of(&Scope::session(ISSUER, "s"));
    revocations.lift(&Scope::session(ISSUER, "s"), &all, "the test").await.unwrap();
    assert_eq!(revocations.check(&identity), Verdict::Allow);
}

/// Repeating a decision does not fill the list: from some number on, one covers the next ones too.
#[tokio::test]
async fn rule4_repeating_a_decision_does_not_fill_the_list() {
    let clock = Arc::new(ManualClock::at(unix()));
    let mut config = config();
    config.denylist.clock = clock.clone();
    let revocations = Revocations::start(Memory::new(), config).await.unwrap();
    for _ in 0..300 {
        let now = clock.now().unix();
        let identity = alice("1", now);
        let _ = revocations.log_out_everywhere(&identity).await.unwrap();
        assert!(denied(&revocations, &identity));
        clock.advance(Duration::from_secs(1));
    }
    assert!(revocations.denylist().records() < 40, "{}", revocations.denylist().records());
}

/// L1, rule 8: the issuer's clock is ahead of ours, and its token is out of reach of no log-out.
#[tokio::test]
async fn l1_an_issuer_with_a_fast_clock() {
    let revocations = Revocations::start(Memory::new(), config()).await.unwrap();
    for ahead in [1, 45] {
        let identity = alice("1", unix() + ahead);
        assert_eq!(revocations.check(&identity), Verdict::Allow);
        let _ = revocations.log_out_everywhere(&identity).await.unwrap();
        assert!(denied(&revocations, &identity), "{ahead} s ahead");
    }
}

/// L1, L2: what lives longer than records are kept is refused from the start, not accepted again at the end.
#[tokio::test]
async fn l1_tokens_that_outlive_their_revocation_are_refused() {
    let clock = Arc::new(ManualClock::at(unix()));
    let mut config = config();
    config.denylist.clock = clock.clone();
    let revocations = Revocations::start(Memory::new(), config).await.unwrap();
    let now = clock.now().unix();
    let month = Identity::from_verified(&Claims::new(ISSUER).jti("1").sid("s").iat(now).exp(now + 30 * 24 * 60 * 60));
    assert!(denied(&revocations, &month));
    let _ = revocations.log_out(&month).await.unwrap();
    for _ in 0..40 {
        clock.advance(Duration::from_secs(24 * 60 * 60));
        assert!(!matches!(revocations.check(&month), Verdict::Allow));
    }
}

/// L7: once nobody keeps the list in step, not even "serve" goes on serving from it.
#[tokio::test]
async fn l7_a_list_without_its_handle_is_stale() {
    let config = SyncConfig::new(Staleness::serve_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await.unwrap();
    let denylist = revocations.denylist().clone();
    let identity = alice("1", unix());
    assert_eq!(denylist.check(&identity), Verdict::Allow);
    drop(revocations);
    assert_eq!(denylist.check(&identity), Verdict::Unknown(Why::Stale));
}

/// L3: "done" means that this node enforces it, without waiting for the feed.
#[tokio::test]
async fn l3_done_means_enforced_here() {
    let backend = Faulty::default();
    let revocations = Revocations::start(backend.clone(), config()).await.unwrap();
    set(&backend.faults.refuse_feed, true);
    set(&backend.faults.cut_feed, true);
    for n in 0..100 {
        let identity = Identity::from_verified(&Claims::new(ISSUER).jti(&n.to_string()).iat(unix()).exp(unix() + 60));
        let _ = revocations.log_out(&identity).await.unwrap();
        assert!(denied(&revocations, &identity), "{n}");
    }
}

/// A caller that stops waiting (a client that hangs up) does not stop the revocation.
#[tokio::test]
async fn a_dropped_caller_does_not_undo() {
    let backend = Faulty::default();
    let revocations = Revocations::start(backend.clone(), config()).await.unwrap();
    set(&backend.faults.hang_writes, true);
    let identity = alice("1", unix());
    let mut call = Box::pin(revocations.log_out(&identity));
    assert!(futures_util::poll!(&mut call).is_pending());
    drop(call);
    set(&backend.faults.hang_writes, false);
    eventually("the revocation is applied", || async { denied(&revocations, &identity) }).await;
}

/// F6: a feed that breaks is resumed where it was, and nothing is missed.
#[tokio::test]
async fn f6_the_feed_resumes_without_a_gap() {
    let backend = Faulty::default();
    let here = Revocations::start(backend.clone(), config()).await.unwrap();
    let there = Revocations::start(backend.inner.clone(), config()).await.unwrap();
    let tokens: Vec<_> = (0..50)
        .map(|n: u32| Identity::from_verified(&Claims::new(ISSUER).jti(&n.to_string()).iat(unix()).exp(unix() + 600)))
        .collect();
    for (n, token) in tokens.iter().enumerate() {
        set(&backend.faults.cut_feed, n % 10 == 0);
        let _ = there.log_out(token).await.unwrap();
    }
    eventually("all have arrived", || async { tokens.iter().all(|token| denied(&here, token)) }).await;
    assert!(backend.faults.feeds.load(Ordering::SeqCst) > 1);
    assert_eq!(backend.faults.snapshots.load(Ordering::SeqCst), 1, "resumed, not loaded anew");
}

/// L10, F15: a record that cannot be read is never skipped; the node is not in step until it is dealt with.
#[tokio::test]
async fn f15_unreadable_means_not_in_sync() {
    let backend = Faulty::default();
    set(&backend.faults.unreadable, true);
    let mut config = config();
    config.load_timeout = Duration::from_millis(300);
    let error = Revocations::start(backend.clone(), config.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::NotLoaded { .. }), "{error}");

    let revocations = Revocations::start_unloaded(backend.clone(), config).await.unwrap();
    eventually("it is reported", || async { !revocations.status().unreadable.is_empty() }).await;
    assert!(revocations.status().unreadable[0].starts_with("row 7"));
    assert_eq!(revocations.check(&alice("1", unix())), Verdict::Unknown(Why::NotReady));
    set(&backend.faults.unreadable, false);
    eventually("it goes on by itself", || async { revocations.status().ready }).await;
}

/// F1, L7: a node that has lost touch goes stale, and recovers without a restart.
#[tokio::test]
async fn f1_l7_stale_and_back() {
    let backend = Faulty::default();
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_millis(1500)));
    let revocations = Revocations::start(backend.clone(), config).await.unwrap();
    let identity = alice("1", unix());
    assert_eq!(revocations.check(&identity), Verdict::Allow);
    set(&backend.faults.refuse_feed, true);
    set(&backend.faults.cut_feed, true);
    eventually("it is stale", || async { revocations.check(&identity) == Verdict::Unknown(Why::Stale) }).await;
    assert!(!revocations.status().ready && revocations.status().last_error.is_some());
    // What is known to be revoked is refused as such all the same.
    let _ = revocations.log_out(&identity).await.unwrap();
    assert!(denied(&revocations, &identity));
    set(&backend.faults.refuse_feed, false);
    eventually("it is back", || async { revocations.status().ready }).await;
    assert_eq!(revocations.status().last_error, None);
}

/// L4: a lift names what it has seen; a ban ends with a cutoff.
#[tokio::test]
async fn l4_lift_and_enable() {
    let backend = Memory::new();
    let here = Revocations::start(backend.clone(), config()).await.unwrap();
    let there = Revocations::start(backend, config()).await.unwrap();
    let scope = Scope::subject(ISSUER, "alice");
    let (old, new) = (alice("old", unix() - 10), alice("new", unix() + 20));

    let _ = here.revoke(Revocation::ban(scope.clone())).await.unwrap();
    assert!(denied(&here, &old) && denied(&here, &new));
    eventually("the ban arrives", || async { denied(&there, &new) }).await;
    there.enable(&scope, "support").await.unwrap();
    assert!(denied(&there, &old) && !denied(&there, &new));
    eventually("so does its end", || async { !denied(&here, &new) }).await;
    assert!(denied(&here, &old));

    // A lift of what was seen does not touch what came after.
    let seen = here.revocations_of(&scope);
    let _ = here.revoke(Revocation::ban(scope.clone())).await.unwrap();
    here.lift(&scope, &seen, "support").await.unwrap();
    assert!(denied(&here, &new));
    here.lift(&scope, &here.revocations_of(&scope), "support").await.unwrap();
    assert_eq!(here.check(&old), Verdict::Allow);
}

/// L2: at the budget a write fails and says so; nothing live leaves.
#[tokio::test]
async fn l2_a_full_list_refuses_the_write() {
    let mut config = config();
    config.denylist.budget = 10;
    let revocations = Revocations::start(Memory::new(), config).await.unwrap();
    let token =
        |n: usize| Identity::from_verified(&Claims::new(ISSUER).jti(&n.to_string()).iat(unix()).exp(unix() + 60));
    for n in 0..10 {
        let _ = revocations.log_out(&token(n)).await.unwrap();
    }
    let error = revocations.log_out(&token(10)).await.unwrap_err();
    assert!(matches!(error, RevokeError::Full { budget: 10 }), "{error}");
    assert_eq!(revocations.check(&token(10)), Verdict::Allow);
    assert!((0..10).all(|n| denied(&revocations, &token(n))));
}

/// Rule 5: what the feed brings is applied over the budget too, with an alarm.
#[tokio::test]
async fn rule5_the_feed_is_applied_over_the_budget() {
    let backend = Memory::new();
    let mut config = config();
    config.denylist.budget = 10;
    let here = Revocations::start(backend.clone(), config).await.unwrap();
    // Written past every node's budget, as by one that was started with another.
    let records = (0..20).map(|n| {
        let revocation = Revocation::new(Scope::token(ISSUER, n.to_string())).token_expires(unix() + 60);
        Change::Revoke(revocation.into_record(here.denylist().hasher(), here.denylist().lifetimes(), unix()))
    });
    backend.publish(&records.collect::<Vec<_>>()).await.unwrap();
    eventually("the alarm", || async { here.status().over_budget }).await;
    let last = Identity::from_verified(&Claims::new(ISSUER).jti("19").iat(unix()).exp(unix() + 60));
    assert!(denied(&here, &last));
    assert!(matches!(here.log_out(&alice("1", unix())).await, Err(RevokeError::Full { .. })));
}

/// Rule 8: what was issued in the future would beat every cutoff, whoever verified it.
#[tokio::test]
async fn rule_8_an_iat_from_the_future_is_refused() {
    let clock = Arc::new(ManualClock::at(unix()));
    let mut config = config();
    config.denylist.clock = clock;
    let revocations = Revocations::start(Memory::new(), config).await.unwrap();
    let now = revocations.denylist().now().unix();
    assert_eq!(revocations.check(&alice("1", now + 60)), Verdict::Allow);
    let refused = |out| Verdict::Deny(Reason::OutOfBounds(out));
    assert_eq!(revocations.check(&alice("2", now + 61)), refused(OutOfBounds::Future));
    for (iat, exp) in [(1 << 53, now + 600), (u64::MAX, now + 600), (now, 1 << 53)] {
        let absurd = Identity::from_verified(&Claims::new(ISSUER).jti("3").iat(iat).exp(exp));
        assert_eq!(revocations.check(&absurd), refused(OutOfBounds::Absurd), "{iat} {exp}");
    }
}

/// Rule 9: a cutoff from the future would lock a user out; it is capped.
#[tokio::test]
async fn rule9_future_cutoffs_are_capped() {
    let revocations = Revocations::start(Memory::new(), config()).await.unwrap();
    let future = Revocation::new(Scope::subject(ISSUER, "alice")).cutoff(Cutoff::at(unix() + 1_000_000));
    let _ = revocations.revoke(future).await.unwrap();
    assert_eq!(revocations.check(&alice("1", unix())), Verdict::Deny(Reason::Revoked(ScopeKind::Subject)));
    let clock = Arc::new(ManualClock::at(unix()));
    let mut config = config();
    config.denylist.clock = clock.clone();
    let revocations = Revocations::start(Memory::new(), config).await.unwrap();
    let future = Revocation::new(Scope::subject(ISSUER, "alice")).cutoff(Cutoff::at(unix() + 1_000_000));
    let _ = revocations.revoke(future).await.unwrap();
    clock.advance(Duration::from_secs(70));
    let later = alice("1", clock.now().unix());
    eventually("a later login works", || async { revocations.check(&later) == Verdict::Allow }).await;
}

/// Rule 5: a node whose settings differ from its fleet's does not start, and says which one.
#[tokio::test]
async fn rule5_a_node_that_differs_does_not_start() {
    let backend = Memory::new();
    let _first = Revocations::start(backend.clone(), config()).await.unwrap();
    let mut other = config();
    other.denylist.lifetimes = other.denylist.lifetimes.max_lifetime(Duration::from_secs(60));
    let error = Revocations::start(backend.clone(), other).await.unwrap_err();
    assert!(error.to_string().contains("max_lifetime is 60 s, its fleet's is 86400 s"), "{error}");
    let mut other = config();
    other.digest_key = Some("k2".to_owned());
    assert!(matches!(Revocations::start(backend, other).await, Err(StartError::Fleet { setting: "digest key", .. })));
}

/// F32: an empty selector is an error, never "nothing to do". Expired tokens store nothing.
#[tokio::test]
async fn f32_nothing_to_revoke_is_an_error() {
    let revocations = Revocations::start(Memory::new(), config()).await.unwrap();
    let nameless = Identity::from_verified(&Claims::new(ISSUER).exp(unix() + 60));
    assert!(matches!(revocations.log_out(&nameless).await, Err(RevokeError::NothingToRevoke)));
    assert!(matches!(revocations.log_out_everywhere(&nameless).await, Err(RevokeError::NothingToRevoke)));
    let expired = Revocation::new(Scope::token(ISSUER, "1")).token_expires(unix() - 1000);
    assert!(matches!(revocations.revoke(expired).await, Ok(Revoked::Expired)));
    assert_eq!(revocations.denylist().records(), 0);
}

/// Shutdown finishes what was begun; afterwards nothing is accepted.
#[tokio::test]
async fn shutdown_finishes_what_was_begun() {
    let backend = Memory::new();
    let revocations = Revocations::start(backend.clone(), config()).await.unwrap();
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let revocations = revocations.clone();
            let revocation = Revocation::new(Scope::token(ISSUER, n.to_string()));
            tokio::spawn(async move { revocations.revoke(revocation).await })
        })
        .collect();
    tokio::task::yield_now().await;
    revocations.shutdown().await;
    let mut recorded = 0;
    for call in calls {
        recorded += usize::from(call.await.unwrap().is_ok());
    }
    let again = Revocations::start(backend, config()).await.unwrap();
    assert!(again.denylist().records() >= recorded);
    let late = revocations.revoke(Revocation::new(Scope::token(ISSUER, "late"))).await;
    assert!(matches!(late, Err(RevokeError::Stopped)), "{late:?}");
}
