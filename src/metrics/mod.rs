//! What is measured, for the [`metrics`](https://docs.rs/metrics) facade: any exporter that speaks it can show it.
//!
//! Names, units and labels are in [`METRICS`] and, with hints for alerts, in `docs/metrics.md`. No label holds anything
//! from outside: neither tokens nor users nor clients. What a passing check counts, each thread counts for itself, and
//! [`Metrics::publish`] adds it up: call it before each scrape, or now and then with [`Metrics::publish_every`]. Times are
//! recorded as they are measured, since only writes are.
//!
//! ```
//! # #[cfg(feature = "sync")] #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tower_revocation::{
//!     RevocationLayer, Revocations,
//!     backend::Memory,
//!     denylist::Staleness,
//!     metrics::Metrics,
//!     sync::SyncConfig,
//!     token::{Peek, VerifierBehind},
//! };
//!
//! let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
//! let revocations = Revocations::start(Memory::new(), config).await?;
//! let source = Peek::new(VerifierBehind::i_promise()).issuer("https://issuer.example/");
//! let layer = RevocationLayer::new(revocations.denylist().clone(), source);
//!
//! // After the exporter was installed, `metrics_exporter_prometheus::PrometheusBuilder::new().install()?`, say.
//! let metrics = Metrics::of(&revocations).guard(layer.guard().clone());
//! metrics.describe();
//! tokio::spawn(async move { metrics.publish_every(Duration::from_secs(5)).await });
//! # Ok(()) }
//! # #[cfg(not(feature = "sync"))] fn main() {}
//! ```

mod catalogue;
#[cfg(feature = "sync")]
mod watched;

#[cfg(feature = "sync")]
use std::time::Duration;
use std::{fmt, sync::Arc};

#[cfg(feature = "endpoint")]
pub(crate) use self::catalogue::ENDPOINT_ANSWERS;
#[cfg(feature = "sync")]
pub(crate) use self::catalogue::{EVERYWHERE, REVOKE_APPLIED, REVOKE_DURABLE, REVOKE_EVERYWHERE};
pub use self::catalogue::{Kind, METRICS, Metric};
#[cfg(feature = "sync")]
pub(crate) use self::watched::{Failures, Watched};
use crate::{
    Guard,
    counts::{Counts, REASONS},
    denylist::Denylist,
    revocation::ScopeKind,
    token::IdentitySource,
};
#[cfg(feature = "sync")]
use crate::{Revocations, sync::Node};

/// Gives what was counted to the recorder of this process.
///
/// Counters are set to their totals, so that there should be one of these in a process, with every guard that counts.
/// It holds on to the handle and the guards.
#[must_use]
pub struct Metrics {
    denylist: Arc<Denylist>,
    #[cfg(feature = "sync")]
    revocations: Option<Revocations>,
    guards: Vec<Arc<dyn Counted>>,
}

/// Something that judges requests.
trait Counted: Send + Sync {
    fn counts(&self) -> &Counts;
}

impl<I: IdentitySource> Counted for Guard<I> {
    fn counts(&self) -> &Counts {
        Self::counts(self)
    }
}

/// What a check that passes, or looks a token up, counts, in the order of [`Step`](crate::counts::Step).
const ALLOWED: [&str; 2] = ["clear", "no_token"];
const FOUND: [&str; 3] = ["thread", "shared", "nowhere"];

/// The states of nodes.
#[cfg(feature = "sync")]
const STATES: [&str; 4] = ["live", "serves_stale", "in_shadow", "silent"];

impl Metrics {
    /// Those of a list that something else than [`Revocations`](crate::sync) keeps in step.
    pub const fn of_denylist(denylist: Arc<Denylist>) -> Self {
        Self {
            denylist,
            #[cfg(feature = "sync")]
            revocations: None,
            guards: Vec::new(),
        }
    }

    /// Those of a list, its store and its fleet.
    #[cfg(feature = "sync")]
    pub fn of(revocations: &Revocations) -> Self {
        Self { revocations: Some(revocations.clone()), ..Self::of_denylist(Arc::clone(revocations.denylist())) }
    }

    /// Adds what this guard counts: see [`RevocationLayer::guard`](crate::RevocationLayer::guard).
    pub fn guard<I: IdentitySource>(mut self, guard: Arc<Guard<I>>) -> Self {
        self.guards.push(guard);
        self
    }

    /// Tells the recorder what each metric means. Once, after it was installed.
    pub fn describe(&self) {
        METRICS.iter().for_each(Metric::describe);
    }

    /// Gives everything that was counted so far to the recorder, and how the list stands now. Takes some hundred
    /// microseconds; waits for nothing.
    pub fn publish(&self) {
        self.publish_checks();
        self.publish_denylist();
        #[cfg(feature = "sync")]
        if let Some(revocations) = &self.revocations {
            publish_sync(revocations);
        }
    }

    /// Publishes at once and then again and again, until it is dropped.
    #[cfg(feature = "sync")]
    pub async fn publish_every(&self, period: Duration) {
        loop {
            self.publish();
            tokio::time::sleep(period).await;
        }
    }

    fn publish_checks(&self) {
        let all = || self.guards.iter().map(|guard| guard.counts());
        let [clear, no_token, found @ ..] = all().map(Counts::steps).fold([0; 5], added);
        for (reason, total) in ALLOWED.into_iter().zip([clear, no_token]) {
            catalogue::CHECKS.total(&["allow", reason], total);
        }
        for (place, total) in FOUND.into_iter().zip(found) {
            catalogue::TOKEN_CACHE.total(&[place], total);
        }

        let refused = all().map(|counts| counts.refused.revoked()).fold([0; _], added);
        let shadowed = all().map(|counts| counts.shadowed.revoked()).fold([0; _], added);
        for (kind, total) in ScopeKind::ALL.into_iter().zip(added(refused, shadowed)) {
            catalogue::DENIALS.total(&[kind.as_str()], total);
        }
        let (refused, shadowed) = (refused.iter().sum(), shadowed.iter().sum());
        publish_refusals("revoked", refused, shadowed);
        let refused = all().map(|counts| counts.refused.others()).fold([0; _], added);
        let shadowed = all().map(|counts| counts.shadowed.others()).fold([0; _], added);
        for (reason, (refused, shadowed)) in REASONS.into_iter().zip(refused.into_iter().zip(shadowed)) {
            publish_refusals(reason, refused, shadowed);
        }

        let load = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        catalogue::SERVED_STALE.total(&[], all().map(|counts| load(&counts.served_stale)).sum());
        let missing = all().map(|counts| counts.missing_claims().map(|(_, count)| count)).fold([0; 3], added);
        for (claim, total) in ["jti", "sid", "iat"].into_iter().zip(missing) {
            catalogue::MISSING_CLAIM.total(&[claim], total);
        }
    }

    fn publish_denylist(&self) {
        let denylist = &self.denylist;
        catalogue::FALSE_POSITIVES.total(&[], denylist.false_positives());
        #[cfg(feature = "streams")]
        {
            catalogue::OPEN_STREAMS.set(&[], denylist.open_streams() as f64);
            catalogue::STREAMS_ENDED.total(&[], denylist.ended_streams());
            catalogue::STREAMS_WOULD_END.total(&[], denylist.would_end_streams());
        }
        for (kind, scopes) in denylist.scopes() {
            catalogue::SCOPES.set(&[kind.as_str()], scopes as f64);
        }
        for (kind, bytes) in denylist.bytes() {
            catalogue::SCOPE_BYTES.set(&[kind.as_str()], bytes as f64);
        }
        catalogue::RECORDS.set(&[], denylist.records() as f64);
        catalogue::BUDGET.set(&[], denylist.budget() as f64);
        let staleness = denylist.staleness().map_or(f64::INFINITY, |staleness| staleness.as_secs_f64());
        catalogue::STALENESS.set(&[], staleness);
        catalogue::STALE_AFTER.set(&[], denylist.staleness_policy().after().as_secs_f64());
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("denylist", &self.denylist).field("guards", &self.guards.len()).finish()
    }
}

fn added<const N: usize>(some: [u64; N], more: [u64; N]) -> [u64; N] {
    std::array::from_fn(|place| some[place].wrapping_add(more[place]))
}

fn publish_refusals(reason: &'static str, refused: u64, shadowed: u64) {
    /// The reasons for which this node cannot tell.
    const UNKNOWN: [&str; 5] = ["not_ready", "stale", "no_answer", "not_asked", "no_status_list"];
    let verdict = if UNKNOWN.contains(&reason) { "unknown" } else { "deny" };
    catalogue::CHECKS.total(&[verdict, reason], refused.wrapping_add(shadowed));
    catalogue::REFUSED.total(&[reason], refused);
    catalogue::WOULD_REFUSE.total(&[reason], shadowed);
}

#[cfg(feature = "sync")]
fn publish_sync(revocations: &Revocations) {
    let (status, nodes) = (revocations.status(), revocations.nodes());
    let flag = |flag| if flag { 1.0 } else { 0.0 };
    catalogue::READY.set(&[], flag(status.ready && status.unreadable.is_empty()));
    let applied = status.applied.as_ref();
    catalogue::APPLIED.set(&[], applied.map_or(0.0, |position| position.offset() as f64));
    // What a node that is gone has announced may belong to what the store has lost since.
    let announced = nodes.iter().filter(|node| state(node) != "silent").filter_map(|node| node.status.applied.as_ref());
    let ahead = announced.filter(|position| applied.is_none_or(|applied| applied < *position));
    let furthest = ahead.map(crate::backend::Position::offset).max();
    let lag = furthest.map_or(0, |furthest| furthest - applied.map_or(0, crate::backend::Position::offset));
    catalogue::LAG.set(&[], lag as f64);
    catalogue::OVER_BUDGET.set(&[], flag(status.over_budget));
    catalogue::UNREADABLE.set(&[], status.unreadable.len() as f64);
    for of in STATES {
        catalogue::NODES.set(&[of], nodes.iter().filter(|node| state(node) == of).count() as f64);
    }
    catalogue::COMPARED.total(&[], status.compared);
    catalogue::REPAIRED.total(&[], status.repaired);
    catalogue::WRITTEN_BACK.total(&[], status.written_back);
    for (operation, kind, total) in revocations.failures().totals() {
        catalogue::BACKEND_ERRORS.total(&[operation, kind], total);
    }
}

/// The state that a node is in, as far as this one can tell.
#[cfg(feature = "sync")]
fn state(node: &Node) -> &'static str {
    match node.silent_for > node.status.lease {
        true => "silent",
        false if node.status.shadows != 0 && !node.status.serves_when_stale => "in_shadow",
        false if !node.status.enforces => "serves_stale",
        false => "live",
    }
}
