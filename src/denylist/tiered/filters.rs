//! The complete filter of a denylist whose entries are not all in memory.
//!
//! Nobody can list the keys to build a new filter from, so it must grow and forget without them: it is a shelf for each
//! span of time in which records may leave, a whole shelf is dropped once its span is over, and a full shelf is
//! lengthened by another filter, half as large as all that stand there. A check asks every filter.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    denylist::{atomic::Swap, filter::Filter},
    revocation::ScopeKind,
};

/// What checks see: every filter of every shelf.
pub(super) struct Filters(Swap<Vec<Arc<Filter>>>);

impl Filters {
    pub(super) fn new() -> Self {
        Self(Swap::new(Arc::default()))
    }

    /// A bit for each key, by its place, that may be held.
    #[inline]
    pub(super) fn may_hold(&self, keys: impl Iterator<Item = (u32, u128)>) -> u32 {
        self.0.with(|filters| {
            let mut hits = 0;
            for (place, key) in keys {
                for filter in filters {
                    hits |= u32::from(filter.may_contain(key)) << place;
                }
            }
            hits
        })
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.with(Vec::len)
    }

    pub(super) fn may_contain(&self, key: u128) -> bool {
        self.may_hold(std::iter::once((0, key))) != 0
    }
}

/// How many scopes of each kind.
pub(crate) type Counts = [u64; ScopeKind::ALL.len()];

/// The same filters, as the one writer sees them.
pub(super) struct Shelves {
    /// By the last span of time in which something on them must be kept.
    shelves: BTreeMap<u64, Shelf>,
    /// Seconds.
    span: u64,
    /// For how many entries the first filter of a shelf is made.
    smallest: usize,
}

#[derive(Default)]
struct Shelf {
    filters: Vec<Arc<Filter>>,
    capacity: usize,
    held: usize,
    counts: Counts,
    /// A bit for each kind that stands here, those included that the filters had already by chance.
    kinds: u32,
}

/// What became of the shelves.
pub(crate) struct Expired {
    /// What stood on those that were dropped.
    pub(crate) dropped: Counts,
    /// A bit for each kind that stands on the others.
    pub(crate) kinds: u32,
}

/// How many shelves there are for all that tokens can need; one more is for what stays until it is lifted.
const SPANS: u64 = 4;
/// Where records stand that stay for longer than any token lives.
const FOR_EVER: u64 = u64::MAX;

impl Shelves {
    /// `keep` is how long a record is usually kept at most (seconds), `budget` how many there may be.
    pub(super) fn new(keep: u64, budget: usize) -> Self {
        Self { shelves: BTreeMap::new(), span: (keep / SPANS).max(60), smallest: (budget / 16).max(1 << 12) }
    }

    fn place(&self, until: u64, now: u64) -> u64 {
        let (place, present) = (until / self.span, now / self.span);
        // What ought to have left already came late; it leaves with what leaves next.
        if place > present + 2 * SPANS { FOR_EVER } else { place.max(present) }
    }

    /// Whether `key` stands where something kept until then has to, or longer.
    #[cfg(feature = "sync")]
    pub(super) fn hold(&self, key: u128, until: u64, now: u64) -> bool {
        // What was far ahead once stands where nothing leaves.
        self.shelves.range(self.place(until, now)..).any(|(_, shelf)| shelf.holds(key))
    }

    /// Puts a key where it is kept until then; whether it was not there.
    pub(super) fn insert(&mut self, key: u128, kind: ScopeKind, until: u64, now: u64, seen: &Filters) -> bool {
        let (place, smallest) = (self.place(until, now), self.smallest);
        let shelf = self.shelves.entry(place).or_default();
        shelf.kinds |= 1 << kind as u32;
        if shelf.holds(key) {
            return false;
        }
        let grows = shelf.held >= shelf.capacity;
        if grows {
            let entries = smallest.max(shelf.capacity / 2);
            let filter = Arc::new(Filter::for_entries(entries, crate::random::u64()));
            shelf.capacity += filter.capacity();
            shelf.filters.push(filter);
        }
        if let Some(filter) = shelf.filters.last() {
            filter.insert(key);
        }
        shelf.held += 1;
        shelf.counts[kind as usize] += 1;
        if grows {
            self.show(seen);
        }
        true
    }

    /// Drops the shelves whose time was over at `before` (Unix seconds).
    pub(super) fn expire(&mut self, before: u64, seen: &Filters) -> Expired {
        let mut dropped = Counts::default();
        let present = before / self.span;
        let live = self.shelves.split_off(&present);
        let over = std::mem::replace(&mut self.shelves, live);
        for shelf in over.values() {
            dropped.iter_mut().zip(shelf.counts).for_each(|(dropped, count)| *dropped += count);
        }
        if !over.is_empty() {
            self.show(seen);
        }
        Expired { dropped, kinds: self.shelves.values().fold(0, |kinds, shelf| kinds | shelf.kinds) }
    }

    fn show(&self, seen: &Filters) {
        seen.0.store(Arc::new(self.shelves.values().flat_map(|shelf| shelf.filters.iter().cloned()).collect()));
    }

    /// The bytes of all filters.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        // 16 bits for each entry that there is room for.
        self.shelves.values().map(|shelf| shelf.capacity * 2).sum()
    }
}

impl Shelf {
    fn holds(&self, key: u128) -> bool {
        self.filters.iter().any(|filter| filter.may_contain(key))
    }
}
