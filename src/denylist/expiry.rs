//! Which keys are held, ordered by when they may leave: the list that expiry and new filters work from.

use std::collections::BTreeMap;

/// Keys by the minute in which the last record of their scope may leave.
///
/// A scope that was extended stands in several minutes; only in the latest may it leave.
#[derive(Default)]
pub(super) struct Expiry {
    minutes: BTreeMap<u64, Vec<u128>>,
}

impl Expiry {
    /// The minute after which something kept until `secs` may leave.
    pub(super) const fn minute(secs: u64) -> u64 {
        secs / 60 + 1
    }

    pub(super) fn add(&mut self, key: u128, until: u64) {
        self.minutes.entry(Self::minute(until)).or_default().push(key);
    }

    /// Takes up to `most` keys of minutes that have wholly passed at `now` (Unix seconds).
    pub(super) fn due(&mut self, now: u64, most: usize) -> Vec<u128> {
        let Some(mut entry) = self.minutes.first_entry() else { return Vec::new() };
        if entry.key().saturating_mul(60) > now {
            return Vec::new();
        }
        let keys = entry.get_mut();
        let taken = keys.split_off(keys.len().saturating_sub(most));
        if keys.is_empty() {
            entry.remove();
        }
        taken
    }

    pub(super) fn minutes(&self) -> Vec<u64> {
        self.minutes.keys().copied().collect()
    }

    /// Up to `most` keys of one minute, from the place `from`.
    pub(super) fn part(&self, minute: u64, from: usize, most: usize) -> &[u128] {
        let keys = self.minutes.get(&minute).map_or(&[][..], Vec::as_slice);
        let from = from.min(keys.len());
        &keys[from..keys.len().min(from + most)]
    }
}
