use super::atomic::{AtomicU64, Ordering};

/// A split-block Bloom filter over keyed hashes: "surely not" or "maybe".
///
/// A key lives in one block of 256 bits, half a cache line, and sets one bit in each of its eight
/// 32-bit lanes. At 16 bits an entry, one look-up in a thousand is a false "maybe".
pub(crate) struct Filter {
    /// Four words a block.
    words: Box<[AtomicU64]>,
    blocks: u64,
    /// Fresh for each filter, so that false positives do not repeat from one to the next.
    seed: u64,
}

const WORDS: usize = 4;
const BITS_PER_ENTRY: usize = 16;

impl Filter {
    /// A filter for this many entries; more only make "maybe" more likely.
    pub(crate) fn for_entries(entries: usize, seed: u64) -> Self {
        let blocks = (entries * BITS_PER_ENTRY).div_ceil(WORDS * 64).max(1);
        let words = (0..blocks * WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words, blocks: blocks as u64, seed }
    }

    /// One that says "maybe" of every key.
    #[cfg_attr(loom, expect(dead_code, reason = "the model does not need it"))]
    pub(crate) fn of_everything() -> Self {
        Self { words: (0..WORDS).map(|_| AtomicU64::new(u64::MAX)).collect(), blocks: 1, seed: 0 }
    }

    /// How many entries it is made for.
    pub(crate) fn capacity(&self) -> usize {
        self.words.len() * 64 / BITS_PER_ENTRY
    }

    #[inline]
    pub(crate) fn insert(&self, key: u128) {
        let (start, masks) = self.place(key);
        for (word, mask) in self.words[start..start + WORDS].iter().zip(masks) {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// Whether it may hold the key, by a quarter of its bits: a third of the work, and enough for most keys.
    #[inline]
    pub(crate) fn may_contain_at_first_sight(&self, key: u128) -> bool {
        let (start, mask) = (self.start(key), self.mask(key, 0));
        self.words.get(start).is_some_and(|word| mask & !word.load(Ordering::Relaxed) == 0)
    }

    #[inline]
    pub(crate) fn may_contain(&self, key: u128) -> bool {
        let (start, masks) = self.place(key);
        let mut missing = 0;
        for (word, mask) in self.words[start..start + WORDS].iter().zip(masks) {
            missing |= mask & !word.load(Ordering::Relaxed);
        }
        missing == 0
    }

    #[inline]
    fn place(&self, key: u128) -> (usize, [u64; WORDS]) {
        (self.start(key), std::array::from_fn(|n| self.mask(key, n as u32)))
    }

    /// Where the block begins. The key is a keyed hash already; the seed only shifts it.
    #[inline]
    fn start(&self, key: u128) -> usize {
        let high = ((key >> 64) as u64).wrapping_add(self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((u128::from(high) * u128::from(self.blocks)) >> 64) as usize * WORDS
    }

    /// Two of the eight bits, in a word's two lanes.
    #[inline]
    const fn mask(&self, key: u128, word: u32) -> u64 {
        // The low four bits of the key are its kind; the five-bit slices leave them out.
        let slices = ((key as u64) ^ self.seed) >> (4 + 10 * word);
        1 << (slices & 31) | 1 << (32 | slices >> 5 & 31)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_and_little_else() {
        let keys = |n: u64| (0..n).map(|_| u128::from_ne_bytes(crate::random::bytes()));
        let filter = Filter::for_entries(10_000, crate::random::u64());
        let inside: Vec<_> = keys(10_000).collect();
        inside.iter().for_each(|key| filter.insert(*key));
        assert!(inside.iter().all(|key| filter.may_contain(*key) && filter.may_contain_at_first_sight(*key)));
        let false_positives = keys(100_000).filter(|key| filter.may_contain(*key)).count();
        assert!(false_positives < 500, "{false_positives} of 100,000");
    }
}
