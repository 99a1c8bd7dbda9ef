//! Each thread's own few tokens, in front of the cache that all threads share.
//!
//! A hit costs a short hash and the comparison of the token: no lock, and no write that other threads wait for, since
//! what is kept here is this thread's own copy. Like the
//! cache behind it, it may forget whatever it likes, and says nothing of whether a token is still good: time, epoch and
//! denylist are asked on every hit.

use std::{cell::RefCell, sync::Arc};

use super::Verified;

/// Which cache a token belongs to. No two caches of a process have the same, so that what a dropped one leaves behind
/// is found by none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CacheId(u64);

impl CacheId {
    pub(super) fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The token, where this thread has it of this cache, whatever the epoch was.
#[inline]
pub(super) fn get(cache: CacheId, token: &[u8]) -> Option<Arc<Verified>> {
    // While a thread ends it has none.
    LEVEL.try_with(|level| level.try_borrow().ok()?.get(cache, token)).ok().flatten()
}

/// Keeps a copy of a token for this thread, where there is room for it, and returns it.
pub(super) fn keep(cache: CacheId, verified: &Verified) -> Option<Arc<Verified>> {
    let (kept, replaced) = LEVEL.try_with(|level| level.try_borrow_mut().ok()?.keep(cache, verified)).ok().flatten()?;
    drop(replaced);
    Some(kept)
}

thread_local! {
    static LEVEL: RefCell<Level> = const { RefCell::new(Level { slots: Vec::new(), seed: [0; 2], turned_away: 0 }) };
}

struct Level {
    /// Empty until something is kept.
    slots: Vec<Option<Slot>>,
    seed: [u64; 2],
    /// How many tokens found their set full.
    turned_away: usize,
}

struct Slot {
    hash: u64,
    cache: CacheId,
    verified: Arc<Verified>,
}

const SETS: usize = 64;
const WAYS: usize = 4;
/// One in so many takes a place where its set is full: more tokens than there are places must not push each other out
/// on every request.
const ONE_IN: usize = 16;
/// Longer tokens are left to the shared cache: what one thread holds stays within half a mebibyte.
const MAX_TOKEN: usize = 2048;

impl Level {
    #[inline]
    fn get(&self, cache: CacheId, token: &[u8]) -> Option<Arc<Verified>> {
        let hash = self.hash(token)?;
        let slots = self.slots.get(set(hash))?;
        let found = slots.iter().flatten().find(|slot| slot.hash == hash && slot.is(cache, token))?;
        Some(Arc::clone(&found.verified))
    }

    /// The copy that is kept, and what it replaced, to be dropped outside.
    fn keep(&mut self, cache: CacheId, verified: &Verified) -> Option<(Arc<Verified>, Option<Slot>)> {
        if verified.token().len() > MAX_TOKEN {
            return None;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(SETS * WAYS, || None);
            self.seed = [crate::random::u64(), crate::random::u64()];
        }
        let hash = self.hash(verified.token())?;
        let slots = self.slots.get_mut(set(hash))?;
        let same = |slot: &Option<Slot>| slot.as_ref().is_some_and(|slot| slot.is(cache, verified.token()));
        let place = slots.iter().position(same).or_else(|| slots.iter().position(Option::is_none));
        if place.is_none() {
            self.turned_away = self.turned_away.wrapping_add(1);
            if !self.turned_away.is_multiple_of(ONE_IN) {
                return None;
            }
        }
        // What came first goes first.
        slots.get_mut(..=place.or_else(|| slots.len().checked_sub(1))?)?.rotate_right(1);
        let kept = Arc::new(verified.clone());
        let replaced = slots.first_mut()?.replace(Slot { hash, cache, verified: Arc::clone(&kept) });
        Some((kept, replaced))
    }

    /// Of the token's end and length. Who could make many verified tokens fall together would only have them looked up
    /// in the cache behind, so that it need not withstand more.
    #[inline]
    fn hash(&self, token: &[u8]) -> Option<u64> {
        let (tail, [one, other]) = (token.last_chunk::<16>()?, self.seed);
        let (words, _) = tail.as_chunks::<8>();
        let word = |n: usize| words.get(n).map_or(0, |word| u64::from_le_bytes(*word));
        let product = u128::from(word(0) ^ one) * u128::from(word(1) ^ other ^ token.len() as u64);
        Some(product as u64 ^ (product >> 64) as u64)
    }
}

impl Slot {
    #[inline]
    fn is(&self, cache: CacheId, token: &[u8]) -> bool {
        self.cache == cache && self.verified.token() == token
    }
}

#[inline]
fn set(hash: u64) -> std::ops::Range<usize> {
    let start = hash as usize % SETS * WAYS;
    start..start + WAYS
}
