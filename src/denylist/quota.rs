//! How many self-service entries each subject and each client holds, in a fixed amount of memory.

use std::collections::HashMap;

#[cfg(feature = "sync")]
use crate::revocation::Record;
use crate::revocation::ScopeKey;

/// A count-min sketch in two generations: it never counts too few within one lifetime of a token, and
/// forgets what is older than two.
pub(super) struct Quota {
    current: Box<[[u32; WIDTH]; DEPTH]>,
    previous: Box<[[u32; WIDTH]; DEPTH]>,
    since: u64,
    window: u64,
}

/// What of a batch is admitted already, and counts for the rest of it before any of it is held.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    records: usize,
    owners: HashMap<(ScopeKey, bool), u32>,
}

impl Batch {
    /// How many records.
    pub(super) const fn records(&self) -> usize {
        self.records
    }

    /// How many of them count for `owner`, of those that stay long or of the others.
    pub(super) fn count(&self, owner: ScopeKey, long: bool) -> u32 {
        self.owners.get(&(owner, long)).copied().unwrap_or(0)
    }

    /// Counts a record in.
    #[cfg(feature = "sync")]
    pub(super) fn add(&mut self, record: &Record, long: bool) {
        self.records += 1;
        for owner in record.owners() {
            *self.owners.entry((*owner, long)).or_default() += 1;
        }
    }
}

const DEPTH: usize = 4;
const WIDTH: usize = 1 << 14;

impl Quota {
    /// `window` is how long an entry can stay, `now` the present, both in seconds.
    pub(super) fn new(window: u64, now: u64) -> Self {
        Self { current: zeroes(), previous: zeroes(), since: now, window: window.max(1) }
    }

    pub(super) fn add(&mut self, key: u128) {
        for (row, place) in self.current.iter_mut().zip(places(key)) {
            row[place] = row[place].saturating_add(1);
        }
    }

    /// At least as many as were added for `key` within the window.
    pub(super) fn count(&self, key: u128) -> u32 {
        let rows = self.current.iter().zip(self.previous.iter()).zip(places(key));
        rows.map(|((now, before), place)| now[place].saturating_add(before[place])).min().unwrap_or(0)
    }

    pub(super) fn turn(&mut self, now: u64) {
        if now.saturating_sub(self.since) >= self.window {
            self.previous = std::mem::replace(&mut self.current, zeroes());
            self.since = now;
        }
    }
}

fn zeroes() -> Box<[[u32; WIDTH]; DEPTH]> {
    // Made on the heap: half of it would not fit every thread's stack.
    match vec![[0; WIDTH]; DEPTH].into_boxed_slice().try_into() {
        Ok(rows) => rows,
        Err(_) => Box::new([[0; WIDTH]; DEPTH]),
    }
}

/// Keys are keyed hashes already: slices of them are independent enough.
fn places(key: u128) -> [usize; DEPTH] {
    std::array::from_fn(|row| (key >> (8 + 24 * row)) as usize % WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_counts_too_few_and_forgets_after_two_windows() {
        let mut quota = Quota::new(100, 0);
        let keys: Vec<u128> = (0..200).map(|_| u128::from_ne_bytes(crate::random::bytes())).collect();
        for (n, key) in keys.iter().enumerate() {
            (0..n).for_each(|_| quota.add(*key));
        }
        quota.turn(100);
        for (n, key) in keys.iter().enumerate() {
            assert!(quota.count(*key) >= n as u32);
        }
        quota.turn(200);
        assert!(keys.iter().all(|key| quota.count(*key) == 0));
    }
}
