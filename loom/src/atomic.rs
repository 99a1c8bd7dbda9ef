//! loom's atomics in the place of `src/denylist/atomic.rs`.

pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use std::sync::{Arc, PoisonError};

use loom::sync::atomic::AtomicUsize;

/// A shared pointer that promises what arc-swap does and no more: a load sees what came before the store it reads.
///
/// A lock of loom's would order more than that and could hide a mistake. The list behind the index is only storage;
/// no model switches threads while it is locked.
pub(crate) struct Swap<T> {
    values: std::sync::Mutex<Vec<Arc<T>>>,
    current: AtomicUsize,
}

impl<T> Swap<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self { values: std::sync::Mutex::new(vec![value]), current: AtomicUsize::new(0) }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        let current = self.current.load(Ordering::Acquire);
        let value = Arc::clone(&self.values.lock().unwrap_or_else(PoisonError::into_inner)[current]);
        f(&value)
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        let place = {
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values.push(value);
            values.len() - 1
        };
        self.current.store(place, Ordering::Release);
    }
}
