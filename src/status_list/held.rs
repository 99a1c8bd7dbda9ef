//! One list, as this node holds it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;

use super::{Status, StatusList};
use crate::time::Moment;

/// A list that tokens point to: what was last fetched, and whether it may still be gone by.
///
/// Tokens that were verified keep it at hand, so that a request costs a load and the look at a few bits.
pub(crate) struct Place {
    pub(super) iss: Box<str>,
    pub(super) uri: Box<str>,
    pub(super) held: ArcSwapOption<Held>,
    /// The minute of its last use (of the monotonic clock).
    touched: AtomicU64,
}

/// What was fetched.
pub(super) struct Held {
    pub(super) list: StatusList,
    pub(super) iat: u64,
    exp: Option<u64>,
    ttl_millis: u64,
    fetched: Moment,
    _room: Room,
}

/// What a list says of a token, as far as it is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Status(Status),
    /// The list ends before the token's index.
    OutOfRange,
    /// None is here that may be gone by.
    Nothing,
}

impl Place {
    pub(super) fn new(iss: &str, uri: &str) -> Self {
        Self { iss: iss.into(), uri: uri.into(), held: ArcSwapOption::empty(), touched: AtomicU64::new(0) }
    }

    /// What the list says of the token at `idx`. `stale`: also one whose `ttl` is over, though never one past its `exp`.
    #[inline]
    pub(super) fn tell(&self, idx: u64, now: Moment, stale: bool) -> Told {
        self.touch(now);
        match &*self.held.load() {
            Some(held) if held.is_good(now, stale) => held.list.get(idx).map_or(Told::OutOfRange, Told::Status),
            _ => Told::Nothing,
        }
    }

    #[inline]
    fn touch(&self, now: Moment) {
        let minute = now.monotonic / 60_000;
        // Written seldom, so that threads do not wait for each other.
        if self.touched.load(Ordering::Relaxed) != minute {
            self.touched.store(minute, Ordering::Relaxed);
        }
    }

    /// How many minutes ago it was last of use.
    pub(super) fn idle_minutes(&self, now: Moment) -> u64 {
        (now.monotonic / 60_000).saturating_sub(self.touched.load(Ordering::Relaxed))
    }
}

impl Held {
    pub(super) const fn new(
        list: StatusList,
        iat: u64,
        exp: Option<u64>,
        ttl_millis: u64,
        fetched: Moment,
        room: Room,
    ) -> Self {
        Self { list, iat, exp, ttl_millis, fetched, _room: room }
    }

    #[inline]
    fn is_good(&self, now: Moment, stale: bool) -> bool {
        self.exp.is_none_or(|exp| now.unix() < exp) && (stale || now.millis_since(self.fetched) < self.ttl_millis)
    }

    /// When it should have been fetched anew, in milliseconds from `fetched`.
    pub(super) fn lasts_millis(&self) -> u64 {
        let exp = self.exp.map_or(u64::MAX, |exp| exp.saturating_mul(1000).saturating_sub(self.fetched.wall));
        self.ttl_millis.min(exp)
    }
}

/// Bytes that lists take in memory, given back when the list goes.
pub(super) struct Room {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl Room {
    /// Takes room for so many bytes, where all lists together stay below `most`.
    pub(super) fn take(used: &Arc<AtomicU64>, bytes: u64, most: u64) -> Option<Self> {
        let fits = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= most);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        Some(Self { used: Arc::clone(used), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
