use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use super::Why;
use crate::time::Moment;

/// What happens once this node has not been known to be in step with the backend for too long.
///
/// There is no default: choosing between refusing everyone and missing revocations is the user's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staleness {
    pub(crate) after: Duration,
    pub(crate) then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Refuse,
    Serve,
}

impl Staleness {
    /// Requests with a token are refused (503 with `Retry-After`) once the node is stale for this long.
    pub const fn refuse_after(after: Duration) -> Self {
        Self { after, then: Then::Refuse }
    }

    /// Requests are served from what the node last knew. It counts as stale, and not ready, after this long.
    pub const fn serve_after(after: Duration) -> Self {
        Self { after, then: Then::Serve }
    }

    /// The limit.
    pub const fn after(&self) -> Duration {
        self.after
    }

    /// Whether a stale node goes on serving.
    pub const fn serves(&self) -> bool {
        matches!(self.then, Then::Serve)
    }
}

/// When this node was last known to be in step with the backend.
#[derive(Debug)]
pub(super) struct Freshness {
    staleness: Staleness,
    /// Its limit in whole milliseconds.
    most: u64,
    /// Milliseconds of both clocks, the monotonic one counted from [`BEGINNING`]; 0: never.
    wall: AtomicU64,
    monotonic: AtomicU64,
    /// Nothing keeps the list in step any more.
    abandoned: AtomicBool,
    /// What is held came from a copy, and no store has been heard since.
    copied: AtomicBool,
}

/// Where the monotonic clock begins: a moment before this process, or this machine, was started is later than 0.
const BEGINNING: u64 = 1 << 62;

impl Freshness {
    pub(super) fn new(staleness: Staleness) -> Self {
        let most = u64::try_from(staleness.after.as_millis()).unwrap_or(u64::MAX);
        Self {
            staleness,
            most,
            wall: AtomicU64::new(0),
            monotonic: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
            copied: AtomicBool::new(false),
        }
    }

    pub(super) const fn staleness(&self) -> Staleness {
        self.staleness
    }

    /// Everything the backend held at `moment` has been applied.
    pub(super) fn in_step_at(&self, moment: Moment) {
        self.set(Moment::new(moment.wall, BEGINNING.saturating_add(moment.monotonic)));
        self.copied.store(false, Ordering::Relaxed);
    }

    /// What is held comes from a copy.
    #[cfg(feature = "sync")]
    pub(super) fn begins_from_copy(&self) {
        self.copied.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_from_copy(&self) -> bool {
        self.copied.load(Ordering::Relaxed)
    }

    /// The same of a moment so long before `now`, which another process may have seen.
    #[cfg(feature = "sync")]
    pub(super) fn in_step_before(&self, now: Moment, age: Duration) {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let monotonic = BEGINNING.saturating_add(now.monotonic).saturating_sub(age);
        self.set(Moment::new(now.wall.saturating_sub(age), monotonic));
    }

    fn set(&self, moment: Moment) {
        // Only ever later: an answer that was slow to arrive must not make a fresh node look stale.
        if self.monotonic.fetch_max(moment.monotonic, Ordering::AcqRel) > moment.monotonic {
            return;
        }
        // Wall time follows the moment, since it may be stepped back. 0 is kept for "never".
        self.wall.store(moment.wall.max(1), Ordering::Release);
    }

    pub(super) fn age(&self, now: Moment) -> Option<Duration> {
        self.age_in_millis(now).map(Duration::from_millis)
    }

    #[inline]
    fn age_in_millis(&self, now: Moment) -> Option<u64> {
        match self.wall.load(Ordering::Acquire) {
            0 => None,
            wall => {
                let now = Moment::new(now.wall, BEGINNING.saturating_add(now.monotonic));
                Some(now.millis_since(Moment::new(wall, self.monotonic.load(Ordering::Acquire))))
            }
        }
    }

    /// Changes with every new moment.
    #[cfg(feature = "sync")]
    pub(super) fn mark(&self) -> (u64, u64) {
        (self.wall.load(Ordering::Acquire), self.monotonic.load(Ordering::Acquire))
    }

    #[cfg(feature = "sync")]
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Why the node cannot be trusted to know everything, if so; a limit crossed counts whatever the policy.
    #[inline]
    pub(super) fn doubt(&self, now: Moment) -> Option<Why> {
        match self.age_in_millis(now) {
            None => Some(Why::NotReady),
            Some(age) if age > self.most => Some(Why::Stale),
            Some(_) if self.abandoned.load(Ordering::Relaxed) => Some(Why::Stale),
            Some(_) => None,
        }
    }

    /// The doubt that stops a request: none where the user chose to serve from a stale list.
    #[inline]
    pub(super) fn refuses(&self, now: Moment) -> Option<Why> {
        match self.doubt(now) {
            // Serving on was chosen for a backend that is away, not for a list that nobody keeps.
            Some(Why::Stale) if self.staleness.serves() && !self.abandoned.load(Ordering::Relaxed) => None,
            doubt => doubt,
        }
    }
}

#[cfg(all(test, feature = "sync"))]
mod tests {
    use super::*;

    /// Also where the machine has just been started: no clock that is stepped back makes it younger.
    #[test]
    fn a_moment_before_the_start_keeps_its_age() {
        let freshness = Freshness::new(Staleness::refuse_after(Duration::from_secs(60)));
        let (hour, at) = (Duration::from_secs(3600), |wall, monotonic| Moment::new(wall, monotonic));
        let now = at(1_800_000_000_000, 5_000);
        freshness.in_step_before(now, hour);
        assert_eq!(freshness.age(now), Some(hour));
        assert_eq!(
            freshness.age(at(now.wall - 7_200_000, now.monotonic)),
            Some(hour),
            "the wall clock is stepped back"
        );
        assert_eq!(freshness.age(at(now.wall, now.monotonic + 1000)), Some(hour + Duration::from_secs(1)));
        freshness.in_step_before(now, Duration::MAX);
        assert_eq!(freshness.age(now), Some(hour), "only ever later");
        freshness.in_step_at(at(now.wall, now.monotonic));
        assert_eq!(freshness.age(now), Some(Duration::ZERO));
        let never = Freshness::new(Staleness::refuse_after(Duration::from_secs(60)));
        never.in_step_before(now, Duration::MAX);
        assert_eq!(never.doubt(now), Some(Why::Stale));
    }
}
