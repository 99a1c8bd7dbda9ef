//! Whether this node may be trusted to know everything: it must be in step with the feed, and its fleet must know it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::{denylist::Denylist, time::Moment};

/// What makes the denylist fresh: that the feed was caught up with, and that the node's announcement was renewed, both
/// counted from the moment at which the store was *asked*.
///
/// The lease is the time after which a stale node refuses. A node that cannot renew it refuses as one that hears nothing
/// does, so whoever publishes knows: once that time has gone by, each node has heard of it or refuses. See
/// `docs/consistency.md`.
pub(super) struct Standing {
    denylist: Arc<Denylist>,
    inner: Mutex<Inner>,
    /// How often the node has joined its fleet: once, and again whenever its lease had run out.
    memberships: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    in_step: Option<Moment>,
    renewed: Option<Moment>,
}

impl Standing {
    pub(super) fn new(denylist: Arc<Denylist>) -> Self {
        Self { denylist, inner: Mutex::default(), memberships: watch::Sender::new(0) }
    }

    /// Changes whenever the node has joined.
    pub(super) fn memberships(&self) -> watch::Receiver<u64> {
        self.memberships.subscribe()
    }

    /// An announcement was stored that was sent at `sent`, as the node heard at `answered`.
    pub(super) fn renewed(&self, sent: Moment, answered: Moment) {
        let lease = self.denylist.staleness_policy().after();
        let mut inner = self.lock();
        // It may have been stored as late as that: nobody may have waited for the node any more by then.
        let lapsed = inner.renewed.is_none_or(|last| answered.since(last) > lease);
        inner.renewed = Some(sent);
        if lapsed {
            // Others may not have waited for it: what was read before it joined does not count any more.
            inner.in_step = None;
            self.memberships.send_modify(|count| *count += 1);
        }
        self.tell(&inner);
    }

    /// Everything that the store held at `as_of` is applied, read by a feed that began in this `membership`.
    pub(super) fn caught_up(&self, membership: u64, as_of: Moment) {
        let mut inner = self.lock();
        if membership == *self.memberships.borrow() {
            inner.in_step = Some(as_of);
            self.tell(&inner);
        }
    }

    fn tell(&self, inner: &Inner) {
        if let (Some(in_step), Some(renewed)) = (inner.in_step, inner.renewed) {
            let older = if in_step.monotonic <= renewed.monotonic { in_step } else { renewed };
            self.denylist.in_step_at(older);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
