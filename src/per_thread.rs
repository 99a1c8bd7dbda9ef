//! Numbers that every thread counts in a place of its own.
//!
//! A thread that counts writes to a line that no other thread writes to, without a locked instruction. Threads take a
//! place when they count for the first time, one for all numbers, and leave it to another when they end. Those that find
//! none left count together.

use std::{
    cell::Cell,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Some counters.
pub(crate) struct PerThread {
    places: Box<[Place; PLACES]>,
    /// Of the threads that have no place.
    together: Place,
}

/// A cache line, and the one that processors fetch with it.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Place([AtomicU64; COUNTERS]);

/// How many counters there are.
const COUNTERS: usize = 8;
/// How many threads count at once without meeting: more than a server has cores.
const PLACES: usize = 64;
const NOT_YET: usize = usize::MAX;
const NONE_LEFT: usize = usize::MAX - 1;

impl Default for PerThread {
    fn default() -> Self {
        Self { places: Box::new(std::array::from_fn(|_| Place::default())), together: Place::default() }
    }
}

impl PerThread {
    /// Counts one more of the counter with this number, below [`COUNTERS`].
    #[inline]
    pub(crate) fn add(&self, counter: usize) {
        match self.places.get(PLACE.get()) {
            // Nobody else writes to it.
            Some(Place(counters)) => {
                let count = &counters[counter];
                count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            }
            None => self.add_first(counter),
        }
    }

    #[cold]
    fn add_first(&self, counter: usize) {
        if PLACE.get() == NOT_YET {
            PLACE.set(Taken::place());
            if PLACE.get() < PLACES {
                return self.add(counter);
            }
        }
        self.together.0[counter].fetch_add(1, Ordering::Relaxed);
    }

    /// What all threads have counted.
    pub(crate) fn sum(&self, counter: usize) -> u64 {
        let places = self.places.iter().chain([&self.together]);
        places.map(|Place(counters)| counters[counter].load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

impl std::fmt::Debug for PerThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries((0..COUNTERS).map(|counter| self.sum(counter))).finish()
    }
}

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(NOT_YET) };
    static TAKEN: Cell<Option<Taken>> = const { Cell::new(None) };
}

static FREE: Mutex<Free> = Mutex::new(Free { never_taken: 0, left: Vec::new() });

struct Free {
    never_taken: usize,
    left: Vec<usize>,
}

fn free() -> MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place that belongs to this thread until it ends. The lock hands the counts in it over to the next.
struct Taken(usize);

impl Taken {
    fn place() -> usize {
        let mut free = free();
        let new = (free.never_taken < PLACES).then_some(free.never_taken);
        let Some(place) = free.left.pop().or(new) else { return NONE_LEFT };
        free.never_taken = free.never_taken.max(place + 1);
        drop(free);
        // Where the thread is ending already, it goes back at once.
        let taken = Self(place);
        match TAKEN.try_with(move |own| own.set(Some(taken))) {
            Ok(()) => place,
            Err(_) => NONE_LEFT,
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // What this thread may still count, it counts together with others.
        PLACE.set(NONE_LEFT);
        free().left.push(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// More threads than places, twice: places are left to others, and no count is lost.
    #[test]
    fn no_count_is_lost() {
        let (first, second) = (PerThread::default(), PerThread::default());
        let threads = PLACES + 10;
        for round in 1..=2 {
            let all_count = Barrier::new(threads);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        all_count.wait();
                        for _ in 0..1000 {
                            first.add(0);
                            second.add(COUNTERS - 1);
                        }
                        // None ends before the others have a place, or none.
                        all_count.wait();
                    });
                }
            });
            assert_eq!(first.sum(0), round * 1000 * threads as u64);
            assert_eq!(second.sum(COUNTERS - 1), round * 1000 * threads as u64);
            assert_eq!((first.sum(1), second.sum(0)), (0, 0));
            assert!(first.together.0[0].load(Ordering::Relaxed) >= round * 10_000, "some found no place");
        }
        // All places were left.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let before = first.together.0[0].load(Ordering::Relaxed);
                first.add(0);
                assert_eq!(first.together.0[0].load(Ordering::Relaxed), before, "it has a place");
            });
        });
    }
}
