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

    #[inline]
    pub(crate) fn may_contain(&self, key: u128) -> bool {
        let (start, masks) = self.place(key);
        let mut missing = 0;
        for (word, mask) in self.words[start..start + WORDS].iter().zip(masks) {
            missing |= mask & !word.load(Ordering::Relaxed);
        }
        missing == 0
    }

    /// The block and its eight bits. The key is a keyed hash already; the seed only shifts it.
    #[inline]
    fn place(&self, key: u128) -> (usize, [u64; WORDS]) {
        let high = ((key >> 64) as u64).wrapping_add(self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // The low four bits of the key are its kind; the five-bit slices below leave them out.
        let low = (key as u64) ^ self.seed;
        let block = ((u128::from(high) * u128::from(self.blocks)) >> 64) as usize;
        let lane = |n: u32| 1_u64 << ((low >> (4 + 5 * n)) & 31);
        let masks =
            [lane(0) | lane(1) << 32, lane(2) | lane(3) << 32, lane(4) | lane(5) << 32, lane(6) | lane(7) << 32];
        (block * WORDS, masks)
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
        assert!(inside.iter().all(|key| filter.may_contain(*key)));
        let false_positives = keys(100_000).filter(|key| filter.may_contain(*key)).count();
        assert!(false_positives < 500, "{false_positives} of 100,000");
    }
}
