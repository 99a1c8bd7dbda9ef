//! The clock that everything reads, so that tests can turn it.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use tower_revocation::{
//!     denylist::{Denylist, DenylistConfig, Staleness, Why},
//!     time::ManualClock,
//! };
//!
//! let clock = Arc::new(ManualClock::at(1_800_000_000));
//! let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
//! config.clock = clock.clone();
//! let denylist = Denylist::new(config);
//! denylist.in_step_at(denylist.now());
//! assert_eq!(denylist.not_ready(), None);
//! clock.advance(Duration::from_secs(11));
//! assert_eq!(denylist.not_ready(), Some(Why::Stale));
//! ```

use std::{fmt, time::Duration};

#[cfg(target_os = "linux")]
use rustix::time::ClockId;

/// A moment on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Moment {
    /// Wall clock: milliseconds since the Unix epoch. May jump.
    pub wall: u64,
    /// Monotonic clock: milliseconds since some fixed moment. Never goes back; may stand still while the machine sleeps.
    pub monotonic: u64,
}

impl Moment {
    /// A moment, both clocks in milliseconds.
    pub const fn new(wall: u64, monotonic: u64) -> Self {
        Self { wall, monotonic }
    }

    /// The wall clock in Unix seconds.
    pub const fn unix(self) -> u64 {
        self.wall / 1000
    }

    /// How long ago `earlier` was, by the clock that says longer.
    ///
    /// The wall clock counts time asleep, the monotonic one is not fooled by a step back: together they
    /// never say "fresh" of something old.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis_since(earlier))
    }

    #[inline]
    pub(crate) const fn millis_since(self, earlier: Self) -> u64 {
        let wall = self.wall.saturating_sub(earlier.wall);
        let monotonic = self.monotonic.saturating_sub(earlier.monotonic);
        if wall > monotonic { wall } else { monotonic }
    }
}

/// Tells the time. Read on every request, so it should be cheap.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The present moment.
    fn now(&self) -> Moment;

    /// The present moment, not a few milliseconds behind. For what decides up to which second tokens are dead: one that
    /// was issued in the first milliseconds of a second must not escape a cutoff made after it.
    fn exact(&self) -> Moment {
        self.now()
    }
}

/// The operating system's clocks; on Linux the coarse ones, a few milliseconds behind and five times cheaper.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[cfg(target_os = "linux")]
impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Moment {
        Moment::new(millis(ClockId::RealtimeCoarse), millis(ClockId::MonotonicCoarse))
    }

    fn exact(&self) -> Moment {
        Moment::new(millis(ClockId::Realtime), millis(ClockId::Monotonic))
    }
}

#[cfg(target_os = "linux")]
fn millis(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000) + time.tv_nsec as u64 / 1_000_000
}

#[cfg(not(target_os = "linux"))]
impl Clock for SystemClock {
    fn now(&self) -> Moment {
        use std::{
            sync::OnceLock,
            time::{Instant, SystemTime, UNIX_EPOCH},
        };
        static START: OnceLock<Instant> = OnceLock::new();
        let start = START.get_or_init(Instant::now);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment::new(wall.as_millis() as u64, start.elapsed().as_millis() as u64)
    }
}

/// A clock that stands until it is turned, for tests.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::Mutex<Moment>);

impl ManualClock {
    /// A clock that shows `unix` seconds.
    pub fn at(unix: u64) -> Self {
        Self(std::sync::Mutex::new(Moment::new(unix.saturating_mul(1000), 0)))
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let by = by.as_millis() as u64;
        let mut now = self.lock();
        now.wall += by;
        now.monotonic += by;
    }

    /// Steps the wall clock alone, as an administrator or NTP may do.
    pub fn step_wall(&self, unix: u64) {
        self.lock().wall = unix.saturating_mul(1000);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Moment> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        *self.lock()
    }
}
