use std::{
    hash::{Hash, Hasher},
    time::Duration,
};

use siphasher::sip::SipHasher13;

/// Spreads what nodes do, so that a fleet does not come back in one moment. From the node's name alone, so that a run can
/// be repeated.
pub(super) struct Jitter(SipHasher13);

impl Jitter {
    pub(super) fn of(node: &str, what: &str) -> Self {
        let mut hasher = SipHasher13::new();
        (node, what).hash(&mut hasher);
        Self(hasher)
    }

    /// Between half of `pause` and all of it.
    pub(super) fn spread(&mut self, pause: Duration) -> Duration {
        self.0.write_u8(0);
        pause / 2 + (pause / 2).mul_f64(self.0.finish() as f64 / u64::MAX as f64)
    }
}
