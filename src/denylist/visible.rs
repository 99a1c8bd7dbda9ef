//! The order in which a change becomes visible to checks, and in which a check looks.
//!
//! Writers (one at a time, under the denylist's lock): the kind's bit, the filter, the entry, and only
//! then the generation. Readers: the generation first, then the kinds, the filter and the entry. So a
//! check that starts after [`Visible::announce`] returned sees the entry, and a verdict that was reached
//! from an older look is cached under an older generation. `loom/` checks this file under all
//! interleavings, with a model in place of the map.

use std::sync::Arc;

use super::{
    atomic::{AtomicU32, AtomicU64, Ordering, Swap},
    filter::Filter,
};

/// The exact entries behind the filter.
pub(crate) trait Map {
    /// What is kept for a key.
    type Entry;

    fn put(&self, key: u128, entry: Self::Entry);
    fn find(&self, key: u128) -> Option<Self::Entry>;
    fn remove(&self, key: u128);
}

pub(crate) struct Visible<M> {
    /// A bit for each kind of scope that holds an entry.
    kinds: AtomicU32,
    filter: Swap<Filter>,
    map: M,
    generation: AtomicU64,
}

impl<M: Map> Visible<M> {
    /// `generation` is the first; 0 means "never looked" to who remembers one.
    pub(crate) fn new(map: M, filter: Arc<Filter>, generation: u64) -> Self {
        Self { kinds: AtomicU32::new(0), filter: Swap::new(filter), map, generation: AtomicU64::new(generation) }
    }

    /// Writer: makes an entry visible. `building` is a filter that is being filled to replace the present one.
    pub(crate) fn put(&self, key: u128, kind_bit: u32, entry: M::Entry, building: Option<&Filter>) {
        self.kinds.fetch_or(kind_bit, Ordering::Release);
        self.filter.with(|filter| filter.insert(key));
        if let Some(building) = building {
            building.insert(key);
        }
        self.map.put(key, entry);
    }

    /// Writer: something of these kinds is about to be held elsewhere.
    #[cfg_attr(loom, expect(dead_code, reason = "the model does not need it"))]
    pub(crate) fn raise_kinds(&self, kind_bits: u32) {
        self.kinds.fetch_or(kind_bits, Ordering::Release);
    }

    /// Writer: what is held for a key.
    pub(crate) fn find(&self, key: u128) -> Option<M::Entry> {
        self.map.find(key)
    }

    /// Writer: drops an entry. Its filter bits stay until the next filter.
    pub(crate) fn remove(&self, key: u128) {
        self.map.remove(key);
    }

    /// Writer: these kinds hold nothing any more, after their last entries were removed.
    pub(crate) fn clear_kinds(&self, kind_bits: u32) {
        self.kinds.fetch_and(!kind_bits, Ordering::Release);
    }

    /// Writer: publishes a complete filter.
    pub(crate) fn replace_filter(&self, filter: Arc<Filter>) {
        self.filter.store(filter);
        self.announce();
    }

    /// Writer: everything that was put before is now what every new check sees.
    pub(crate) fn announce(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Reader: what `look` finds, unless it is known to find nothing under the present generation. That it found nothing
    /// is to be remembered under the generation that was read *before* looking: what changes meanwhile makes the next
    /// check look again.
    #[inline]
    pub(crate) fn unless_clear<R>(
        &self,
        is_clear: impl FnOnce(u64) -> bool,
        look: impl FnOnce() -> Option<R>,
        remember: impl FnOnce(u64),
    ) -> Option<R> {
        let generation = self.generation();
        if is_clear(generation) {
            return None;
        }
        let found = look();
        if found.is_none() {
            remember(generation);
        }
        found
    }

    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Which kinds hold anything.
    #[inline]
    pub(crate) fn kinds(&self) -> u32 {
        self.kinds.load(Ordering::Acquire)
    }

    /// A bit for each key, by its place, that may be held.
    #[inline]
    pub(crate) fn may_hold(&self, keys: impl Iterator<Item = (u32, u128)> + Clone) -> u32 {
        self.filter.with(|filter| {
            // Every key's block is asked for before anything depends on what is in it: together they wait once.
            let mut hits = 0;
            for (place, key) in keys.clone() {
                hits |= u32::from(filter.may_contain_at_first_sight(key)) << place;
            }
            if hits == 0 {
                return 0;
            }
            keys.filter(|(place, key)| hits & (1 << place) != 0 && filter.may_contain(*key))
                .fold(0, |hits, (place, _)| hits | 1 << place)
        })
    }

    /// Reader: the exact entry, after the filter said "maybe".
    pub(crate) fn look_up(&self, key: u128) -> Option<M::Entry> {
        self.map.find(key)
    }

    pub(crate) fn filter_capacity(&self) -> usize {
        self.filter.with(Filter::capacity)
    }

    #[cfg_attr(loom, expect(dead_code, reason = "the model does not look inside"))]
    pub(crate) const fn map(&self) -> &M {
        &self.map
    }
}
