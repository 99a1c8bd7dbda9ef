//! A replica and a store that differ: what one of them has lost, the other gives back.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::{ISSUER, config, eventually, faulty::Faulty, unix};
use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use tokio::sync::watch;
use tower_revocation::{
    Revocations,
    backend::{
        Backend, BackendError, Claim, Durability, Event, FleetSettings, Intent, Memory, NodeStatus, OneTime, Position,
    },
    denylist::{Mode, Tiered, Verdict},
    revocation::{Change, Cutoff, Revocation, Scope, ScopeKey},
    sync::SyncConfig,
    time::{Clock, ManualClock},
    token::{Claims, Identity},
};

fn often() -> SyncConfig {
    let mut config = config();
    config.compare_every = Duration::from_millis(100);
    config
}

fn token(jti: &str) -> Identity {
    Identity::from_verified(&Claims::new(ISSUER).jti(jti).sub("alice").iat(unix() - 10).exp(unix() + 600))
}

fn is_dead(node: &Revocations, jti: &str) -> bool {
    matches!(node.check(&token(jti)), Verdict::Deny(_))
}

async fn revoke(node: &Revocations, scope: Scope) {
    let _ = node.revoke(Revocation::new(scope)).await.unwrap();
}

/// A feed that loses something is no reason to miss it for good.
#[tokio::test]
async fn f6_a_replica_that_has_missed_something_finds_it() {
    let store = Memory::new();
    let faulty = Faulty::new(store.clone());
    let deaf = Revocations::start(faulty.clone(), often()).await.unwrap();
    let other = Revocations::start(store, config()).await.unwrap();
    faulty.faults.deaf.store(true, SeqCst);
    revoke(&other, Scope::token(ISSUER, "missed")).await;
    let place = other.status().applied;
    eventually("it believes that it is in step", async || deaf.status().applied >= place).await;
    assert!(!is_dead(&deaf, "missed"));
    faulty.faults.deaf.store(false, SeqCst);
    eventually("the comparison finds it", async || is_dead(&deaf, "missed")).await;
    assert_eq!((deaf.status().repaired, deaf.status().written_back), (1, 0));
    // What is the same is no difference, however often it is compared.
    revoke(&other, Scope::token(ISSUER, "heard")).await;
    eventually("the feed", async || is_dead(&deaf, "heard")).await;
    let so_far = deaf.status().compared;
    eventually("more comparisons", async || deaf.status().compared >= so_far + 2).await;
    assert_eq!((deaf.status().repaired, deaf.status().written_back), (1, 0));
}

/// Rule 6: a clock that was far ahead when the node started, and is set right later, does not let in again what it had let go.
#[tokio::test]
async fn rule_6_what_a_wrong_clock_let_go_comes_back_once_it_is_set_right() {
    let store = Memory::new();
    let other = Revocations::start(store.clone(), config()).await.unwrap();
    revoke(&other, Scope::token(ISSUER, "x")).await;
    let clock = Arc::new(ManualClock::at(unix() + 90 * 24 * 3600));
    let mut ahead = config();
    ahead.denylist.clock = clock.clone();
    let node = Revocations::start(store, ahead).await.unwrap();
    node.denylist().maintain();
    assert_eq!(node.status().records, 0, "it has expired, by that clock");
    clock.step_wall(unix());
    eventually("it comes back", async || is_dead(&node, "x")).await;
    node.denylist().maintain();
    assert!(is_dead(&node, "x"));
}

/// A store that can be put back to an earlier state.
#[derive(Clone)]
struct Restorable(Arc<(Mutex<&'static Memory>, watch::Sender<u64>)>);

impl Restorable {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(leaked(Memory::new())), watch::Sender::new(0))))
    }

    fn now(&self) -> &'static Memory {
        *self.0.0.lock().unwrap()
    }

    /// Another life of the store, which holds this.
    async fn restore(&self, backup: &[Change], settings: &FleetSettings) {
        self.replace(backup, settings).await;
        self.notice();
    }

    /// The same, while feeds have not heard of it.
    async fn replace(&self, backup: &[Change], settings: &FleetSettings) {
        let memory = Memory::new();
        memory.agree(settings).await.unwrap();
        memory.publish(backup).await.unwrap();
        *self.0.0.lock().unwrap() = leaked(memory);
    }

    fn notice(&self) {
        self.0.1.send_modify(|life| *life += 1);
    }
}

fn leaked(memory: Memory) -> &'static Memory {
    Box::leak(Box::new(memory))
}

impl Backend for Restorable {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        self.now().agree(ours)
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        self.now().publish(batch)
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let mut life = self.0.1.subscribe();
        life.mark_unchanged();
        self.now().follow(from, clock).take_until(Box::pin(async move { life.changed().await })).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        self.now().lookup(keys)
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        self.now().heartbeat(node)
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        self.now().retire(node)
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        self.now().claim_once(claim)
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        self.now().finish_once(claim)
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        self.now().intend(intent)
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        self.now().settle(id)
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        self.now().intents()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.now().purge(before)
    }

    fn durability(&self) -> Durability {
        Durability::None
    }
}

/// Nodes write back what a restored store has lost, before they follow it; tombstones included.
#[tokio::test]
async fn rule_25_a_restored_store_gets_back_what_nodes_hold() {
    let store = Restorable::new();
    let node = Revocations::start(store.clone(), config()).await.unwrap();
    let (kept, lost, lifted) =
        (Scope::token(ISSUER, "kept"), Scope::token(ISSUER, "lost"), Scope::subject(ISSUER, "alice"));
    revoke(&node, kept.clone()).await;
    let _ = node.revoke(Revocation::new(lifted.clone()).cutoff(Cutoff::FOREVER)).await.unwrap();
    let hasher = node.denylist().hasher();
    let backup = store.now().lookup(&[hasher.key(&kept), hasher.key(&lifted)]).await.unwrap();
    let settings = store.now().agree(&FleetSettings::new(1, node.denylist().lifetimes(), None)).await.unwrap();
    // After the backup.
    revoke(&node, lost).await;
    node.lift(&lifted, &node.revocations_of(&lifted), "operator").await.unwrap();
    assert!(is_dead(&node, "lost") && !is_dead(&node, "other"));

    store.restore(&backup, &settings).await;
    eventually("it writes back", async || node.status().written_back == 2).await;
    let fresh = Revocations::start(store.clone(), config()).await.unwrap();
    assert!(is_dead(&fresh, "kept") && is_dead(&fresh, "lost"));
    assert!(!is_dead(&fresh, "other"), "what was lifted stays lifted");
    assert!(is_dead(&node, "kept") && is_dead(&node, "lost") && !is_dead(&node, "other"));
}

/// A server that took over lacks the last of what was acknowledged: a node that has dropped it from memory refuses it before
/// and after it has noticed, and gives it back.
#[tokio::test]
async fn l1_rule_25_a_node_with_nothing_at_hand_knows_what_it_heard_last() {
    let store = Restorable::new();
    let mut config = config();
    config.denylist.mode = Mode::Tiered(Tiered::default().entries(0).look_ups_per_source(u32::MAX));
    let node = Revocations::start(store.clone(), config).await.unwrap();
    let settings = store.now().agree(&FleetSettings::new(1, node.denylist().lifetimes(), None)).await.unwrap();
    revoke(&node, Scope::token(ISSUER, "lost")).await;
    // Of this user the older revocation is kept, and the lift of it lost.
    revoke(&node, Scope::subject(ISSUER, "alice")).await;
    let alice = Scope::subject(ISSUER, "alice");
    let backup = store.now().lookup(&[node.denylist().hasher().key(&alice)]).await.unwrap();
    let ids = node.find_revocations_of(&alice).await.unwrap();
    node.lift(&alice, &ids, "operator").await.unwrap();

    store.replace(&backup, &settings).await;
    let asked = async |jti: &str| {
        // Nothing stays at hand.
        node.denylist().maintain();
        node.check_or_ask(&token(jti)).await
    };
    assert!(matches!(asked("lost").await, Verdict::Deny(_)), "the node has not noticed yet");
    assert_eq!(asked("other").await, Verdict::Allow, "what was lifted stays lifted");
    store.notice();
    eventually("it writes back", async || node.status().written_back == 2).await;
    assert!(matches!(asked("lost").await, Verdict::Deny(_)));
    assert_eq!(asked("other").await, Verdict::Allow);
    let fresh = Revocations::start(store.clone(), self::config()).await.unwrap();
    assert!(is_dead(&fresh, "lost") && !is_dead(&fresh, "other"));
}

/// What is kept for long is no difference once less of its time is left.
#[tokio::test]
async fn a_comparison_finds_no_difference_where_there_is_none() {
    let (store, clock) = (Memory::new(), Arc::new(ManualClock::at(unix())));
    let mut config = often();
    config.denylist.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    config.denylist.mode = Mode::Tiered(Tiered::default().entries(0));
    let node = Revocations::start(store, config).await.unwrap();
    let day = Duration::from_secs(86_400);
    let scope = Scope::token(ISSUER, "kept for a month");
    let _ = node.revoke(Revocation::new(scope).token_expires(unix() + 30 * 86_400)).await.unwrap();
    for _ in 0..28 {
        clock.advance(day);
        node.denylist().maintain();
    }
    let compared = node.status().compared;
    eventually("it compares", async || node.status().compared > compared + 1).await;
    assert_eq!(node.status().repaired, 0);
}

/// Where the same store has lost something without a new life, the comparison finds that too.
#[tokio::test]
async fn rule_25_repair_is_union() {
    let store = Memory::new();
    let faulty = Faulty::new(store.clone());
    let node = Revocations::start(faulty.clone(), often()).await.unwrap();
    revoke(&node, Scope::token(ISSUER, "x")).await;
    // Past every retention: somebody's clock is far ahead.
    assert!(store.purge(u64::MAX - 1).await.unwrap() > 0);
    eventually("it is written back", async || node.status().written_back == 1).await;
    assert!(is_dead(&node, "x"), "nothing leaves the replica for it");
    let fresh = Revocations::start(store, config()).await.unwrap();
    assert!(is_dead(&fresh, "x"));
}
