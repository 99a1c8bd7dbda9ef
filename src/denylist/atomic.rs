//! The atomics that the ordering rests on; the model-checking package puts its own in their place.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(feature = "streams")]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::fence};

use std::sync::Arc;

/// A shared pointer that is swapped as a whole.
pub(crate) struct Swap<T>(arc_swap::ArcSwap<T>);

impl<T> Swap<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self(arc_swap::ArcSwap::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.0.load())
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        self.0.store(value);
    }
}
