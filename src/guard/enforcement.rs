//! What of its policy a guard enforces now.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    denylist::Denylist,
    policy::{Policy, StaleRequests},
    reject::Rejection,
    rollout::{Place, Rollout},
};

/// The roll-out of a guard. As long as it lives, the list knows what it lets through.
pub(crate) struct Enforcement {
    denylist: Arc<Denylist>,
    bits: AtomicU64,
    serves_when_stale: bool,
    changes: Mutex<()>,
}

impl Enforcement {
    pub(super) fn new(denylist: Arc<Denylist>, policy: &Policy) -> Self {
        let serves_when_stale = policy.stale == StaleRequests::Serve;
        if serves_when_stale {
            denylist.lenience().serve();
        }
        denylist.lenience().shadow(policy.rollout.not_enforced());
        let bits = AtomicU64::new(policy.rollout.to_bits());
        Self { denylist, bits, serves_when_stale, changes: Mutex::new(()) }
    }

    pub(crate) fn rollout(&self) -> Rollout {
        Rollout::from_bits(self.bits.load(Ordering::Acquire))
    }

    /// Whether what is refused for this passes, for a user of this place.
    pub(crate) fn spares(&self, rejection: Rejection, place: Option<Place>) -> bool {
        self.rollout().shadow_of(place).covers(rejection)
    }

    pub(super) fn change(&self, to: Rollout) {
        let _turn = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, after) = (self.rollout().not_enforced(), to.not_enforced());
        // Told before anything passes, and taken back only once it is refused.
        self.denylist.lenience().shadow(after & !before);
        self.bits.store(to.to_bits(), Ordering::Release);
        self.denylist.lenience().shadow_no_more(before & !after);
    }
}

impl Drop for Enforcement {
    fn drop(&mut self) {
        let lenience = self.denylist.lenience();
        lenience.shadow_no_more(self.rollout().not_enforced());
        if self.serves_when_stale {
            lenience.serve_no_more();
        }
    }
}
