//! When every node refuses what was revoked.

use std::{fmt, time::Duration};

use super::{Revocations, RevokeError};
use crate::{
    backend::{BackendError, BackendErrorKind},
    revocation::ScopeKind,
    spans,
};

/// How far a revocation has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Everywhere {
    /// The nodes of which it is not known that they refuse what was revoked; none: every node does.
    pub unconfirmed: Vec<Unconfirmed>,
}

/// A node that has not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unconfirmed {
    /// Its name.
    pub node: String,
    /// Which run of it: one that was restarted is named until the lease of the run before has ended.
    pub session: u64,
    /// Why.
    pub why: Lag,
}

/// Why a node has not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lag {
    /// It has not said yet that it applied the revocation, and its lease goes on.
    Behind,
    /// It serves on while stale ([`Staleness::serve_after`](crate::denylist::Staleness::serve_after)), so it never counts.
    ServesStale,
    /// Some of its guards do not refuse all that is revoked for a scope of such a kind: see [`rollout`](crate::rollout).
    Shadows,
}

impl Everywhere {
    /// Whether every node that enforces refuses.
    pub fn is_complete(&self) -> bool {
        self.unconfirmed.is_empty()
    }
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Lag::Behind => "behind",
            Lag::ServesStale => "serves while stale",
            Lag::Shadows => "in shadow",
        };
        write!(f, "{} ({why})", self.node)
    }
}

/// How long to wait between two looks at what the nodes say.
const PAUSE: Duration = Duration::from_millis(10);

impl Revocations {
    /// Waits until every node of the fleet that enforces refuses what was recorded before this call: it has applied it,
    /// or its lease has run out and it refuses everything. Nodes of which that is not known after `limit` are named.
    ///
    /// What was recorded goes on spreading, whatever the outcome. `docs/consistency.md` says what this promises, and under
    /// which assumptions.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::time::Duration;
    /// # use tower_revocation::{Revocations, backend::Memory, denylist::Staleness, revocation::{Revocation, Scope}, sync::SyncConfig};
    /// # let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    /// # let revocations = Revocations::start(Memory::new(), config).await?;
    /// let outcome = revocations.revoke(Revocation::new(Scope::subject("https://issuer.example/", "alice"))).await?;
    /// let everywhere = revocations.everywhere(Duration::from_secs(2)).await?;
    /// assert!(everywhere.is_complete());
    /// # let _ = outcome; Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Where the backend does not answer within `limit`.
    pub async fn everywhere(&self, limit: Duration) -> Result<Everywhere, RevokeError> {
        self.everywhere_of(&ScopeKind::ALL, limit).await
    }

    /// The same for revocations of scopes of these kinds: a node that has others in shadow counts as enforcing.
    ///
    /// # Errors
    ///
    /// Where the backend does not answer within `limit`.
    pub async fn everywhere_of(&self, kinds: &[ScopeKind], limit: Duration) -> Result<Everywhere, RevokeError> {
        let kinds = kinds.iter().fold(0, |bits, kind| bits | 1 << *kind as u32);
        #[cfg(feature = "metrics")]
        let began = tokio::time::Instant::now();
        let outcome = spans::everywhere(self.wait_everywhere(kinds, limit)).await;
        #[cfg(feature = "metrics")]
        crate::metrics::EVERYWHERE.increment(&[match &outcome {
            Ok(everywhere) if everywhere.is_complete() => {
                crate::metrics::REVOKE_EVERYWHERE.observe(began.elapsed());
                "complete"
            }
            Ok(_) => "incomplete",
            Err(_) => "failed",
        }]);
        outcome
    }

    async fn wait_everywhere(&self, kinds: u32, limit: Duration) -> Result<Everywhere, RevokeError> {
        let inner = &*self.inner;
        let unavailable = || {
            let what = format!("asking the backend what the nodes have applied: no answer within {limit:?}");
            RevokeError::Backend(BackendError::new(BackendErrorKind::Unavailable, what))
        };
        let deadline = tokio::time::Instant::now() + limit;
        // A place that is not before anything recorded earlier, by whichever node.
        let place = tokio::time::timeout_at(deadline, inner.backend.publish(&[])).await;
        let position = place.map_err(|_| unavailable())?.map_err(RevokeError::Backend)?;
        let recorded = inner.denylist.now();
        let mut known = None;
        loop {
            // The list has to be read after the write: who joins later loads it.
            let read = tokio::time::timeout_at(deadline, inner.announcements.renewed()).await;
            if read.is_ok() {
                let now = inner.denylist.now();
                let ago = Duration::from_millis(now.monotonic.saturating_sub(recorded.monotonic));
                let unconfirmed = inner.announcements.fleet().unconfirmed(&position, kinds, ago, now);
                let waits = unconfirmed.iter().any(|node| node.why == Lag::Behind);
                known = Some(Everywhere { unconfirmed });
                if !waits {
                    break;
                }
            }
            if tokio::time::timeout_at(deadline, tokio::time::sleep(PAUSE)).await.is_err() {
                break;
            }
        }
        known.ok_or_else(unavailable)
    }
}
