//! The exact entries: a moka cache without a capacity and without deadlines.
//!
//! A capacity would make moka drop or refuse live revocations, so there is none; the budget is kept by
//! refusing writes. A deadline of moka's own would be by a clock that is not ours, and takes 48 bytes an entry: what has
//! expired is removed by the list in `expiry.rs` alone.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use moka::sync::Cache;

use super::visible::Map;
use crate::revocation::{Change, Cutoff, RevocationId, ScopeState};

/// What is held for one scope. Nearly always a single revocation.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    One {
        id: RevocationId,
        cutoff: Cutoff,
        retain_until: u64,
    },
    /// With their joint cutoff, so that a check does not walk through them.
    Several {
        cutoff: Option<Cutoff>,
        state: Arc<ScopeState>,
    },
}

impl Entry {
    pub(crate) fn from_state(state: ScopeState) -> Self {
        match state.only() {
            Some((id, cutoff, retain_until)) => Self::One { id, cutoff, retain_until },
            None => Self::Several { cutoff: state.cutoff(), state: Arc::new(state) },
        }
    }

    pub(crate) fn state(&self) -> ScopeState {
        match self {
            Self::One { id, cutoff, retain_until } => {
                let mut state = ScopeState::default();
                state.revoke(*id, *cutoff, *retain_until);
                state
            }
            Self::Several { state, .. } => (**state).clone(),
        }
    }

    /// The entry with `change` merged in; `None` where that changes nothing.
    pub(crate) fn merged(before: Option<&Self>, change: &Change) -> Option<Self> {
        if let (None, Change::Revoke(record)) = (before, change) {
            return Some(Self::One { id: record.id(), cutoff: record.cutoff(), retain_until: record.retain_until() });
        }
        let before = before.map(Self::state).unwrap_or_default();
        let mut after = before.clone();
        after.apply(change);
        (after != before).then(|| Self::from_state(after))
    }

    pub(crate) fn cutoff(&self) -> Option<Cutoff> {
        match self {
            Self::One { cutoff, .. } => Some(*cutoff),
            Self::Several { cutoff, .. } => *cutoff,
        }
    }

    pub(crate) fn remember_until(&self) -> u64 {
        match self {
            Self::One { retain_until, .. } => *retain_until,
            Self::Several { state, .. } => state.remember_until(),
        }
    }

    pub(crate) fn records(&self) -> usize {
        match self {
            Self::One { .. } => 1,
            Self::Several { state, .. } => state.len(),
        }
    }
}

pub(crate) struct Entries(Cache<u128, Entry, KeyHash>);

impl Entries {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().build_with_hasher(KeyHash))
    }

    /// All entries. Complete only while nobody writes.
    #[cfg(feature = "sync")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u128, Entry)> + '_ {
        self.0.iter().map(|(key, entry)| (*key, entry))
    }

    /// Lets moka free what was removed.
    pub(crate) fn tidy(&self) {
        self.0.run_pending_tasks();
    }
}

impl Map for Entries {
    type Entry = Entry;

    fn put(&self, key: u128, entry: Entry) {
        self.0.insert(key, entry);
    }

    #[inline]
    fn find(&self, key: u128) -> Option<Entry> {
        // `contains_key` is a fraction of `get`, and nearly every look-up here is a false "maybe".
        if self.0.contains_key(&key) { self.0.get(&key) } else { None }
    }

    fn remove(&self, key: u128) {
        self.0.invalidate(&key);
    }
}

/// Keys are keyed hashes already.
#[derive(Clone, Copy)]
pub(super) struct KeyHash;

pub(super) struct Folded(u64);

impl BuildHasher for KeyHash {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(0)
    }
}

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(1) ^ u64::from_ne_bytes(word);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64 ^ (key as u64);
    }
}
