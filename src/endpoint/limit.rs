use std::{
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore},
};
use moka::sync::Cache;

/// How many failed authentications are borne, for each client id and for each peer address.
///
/// Whoever has used them up is answered 429 until time has given one back. Only failures count. An address from
/// which a client has authenticated itself goes on where others guess at that client's secret, so that guessing
/// does not lock the client out.
///
/// The time is the denylist's clock. The counts are this process's own, and bounded: some ten thousand client ids
/// and as many addresses, those in use longest kept. IPv6 addresses count by their /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct FailureLimit {
    burst: NonZeroU32,
    every: Duration,
}

/// The peer of a connection, for the server to put into a request's extensions.
///
/// It must come from the socket (or the PROXY protocol), not from a header. A layer cannot see it otherwise:
///
/// ```
/// use std::net::SocketAddr;
/// use tower_revocation::endpoint::PeerAddress;
///
/// fn mark<B>(request: &mut http::Request<B>, peer: SocketAddr) {
///     request.extensions_mut().insert(PeerAddress(peer));
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddress(pub SocketAddr);

impl FailureLimit {
    /// As many failures as `burst` at once, then one `every` so often; `every` is cut so that `burst` of them come to a
    /// century and a half at most.
    pub const fn new(burst: NonZeroU32, every: Duration) -> Self {
        Self { burst, every }
    }
}

/// Ten at once, then one a second.
impl Default for FailureLimit {
    fn default() -> Self {
        Self::new(NonZeroU32::MIN.saturating_add(9), Duration::from_secs(1))
    }
}

/// The failures of late.
#[derive(Clone)]
pub(super) struct Failures(Arc<Inner>);

struct Inner {
    limit: FailureLimit,
    clock: Fed,
    /// Known clients and others apart: made-up ids do not push out the counts of real ones.
    known: Limited<Box<str>>,
    unknown: Limited<Box<str>>,
    peers: Limited<IpAddr>,
    /// From where a client has authenticated itself.
    at_home: Cache<(Box<str>, IpAddr), ()>,
}

/// Who tries.
#[derive(Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) id: Option<&'a str>,
    pub(super) known: bool,
    pub(super) peer: Option<IpAddr>,
}

impl Failures {
    const MOST: u64 = 10_000;

    pub(super) fn new(limit: FailureLimit) -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        let clock = Fed::default();
        Self(Arc::new(Inner {
            limit,
            known: Limited::new(limit, &clock),
            unknown: Limited::new(limit, &clock),
            peers: Limited::new(limit, &clock),
            at_home: Cache::builder().max_capacity(Self::MOST).time_to_live(day).build(),
            clock,
        }))
    }

    /// How long to wait before trying at all. `now` is in milliseconds of the monotonic clock.
    pub(super) fn wait(&self, who: Who<'_>, now: u64) -> Option<Duration> {
        self.0.clock.feed(now);
        let by_peer = who.peer.and_then(|peer| self.0.peers.wait(&network(peer)));
        let by_id = who.id.filter(|id| !self.is_at_home(id, who.peer)).and_then(|id| self.ids(who).wait(&id.into()));
        by_peer.max(by_id)
    }

    pub(super) fn failed(&self, who: Who<'_>, now: u64) {
        self.0.clock.feed(now);
        if let Some(peer) = who.peer {
            self.0.peers.count(&network(peer));
        }
        if let Some(id) = who.id {
            self.ids(who).count(&id.into());
        }
    }

    pub(super) fn succeeded(&self, who: Who<'_>) {
        if let (Some(id), Some(peer)) = (who.id, who.peer) {
            self.0.at_home.insert((id.into(), network(peer)), ());
        }
    }

    fn is_at_home(&self, id: &str, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|peer| self.0.at_home.contains_key(&(id.into(), network(peer))))
    }

    fn ids(&self, who: Who<'_>) -> &Limited<Box<str>> {
        if who.known { &self.0.known } else { &self.0.unknown }
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.limit.fmt(f)
    }
}

/// The failures of each key: one limiter says whether to wait, and leaves the counts alone; the other counts what failed,
/// and never refuses, so that failures at the same time count as many.
struct Limited<K: Key> {
    looks: Limiter<Look<K>>,
    counts: Limiter<Count<K>>,
}

type Limiter<S> = RateLimiter<<S as StateStore>::Key, S, Fed, NoOpMiddleware<Nanos>>;

trait Key: Hash + Eq + Clone + Send + Sync + 'static {}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Key for K {}

/// Bounded: what was used longest ago is forgotten first.
type Counts<K> = Cache<K, Arc<InMemoryState>>;

impl<K: Key> Limited<K> {
    fn new(limit: FailureLimit, clock: &Fed) -> Self {
        // Half of what the limiter can tell is for the present, so that nothing in it overflows.
        let longest = u64::MAX / 4;
        let burst = limit.burst.get();
        let every = nanos(limit.every).clamp(1_000_000, longest / u64::from(burst));
        let quota = |burst: u32| {
            let quota = Quota::with_period(Duration::from_nanos(every)).unwrap_or(Quota::per_second(limit.burst));
            quota.allow_burst(NonZeroU32::new(burst).unwrap_or(limit.burst))
        };
        let unbounded = u32::try_from(longest / every).unwrap_or(u32::MAX);
        let counts = Counts::new(Failures::MOST);
        Self {
            looks: RateLimiter::new(quota(burst), Look(counts.clone()), clock.clone()),
            counts: RateLimiter::new(quota(unbounded), Count(counts), clock.clone()),
        }
    }

    fn wait(&self, key: &K) -> Option<Duration> {
        let until = self.looks.check_key(key).err()?;
        // Another call may have brought a later time meanwhile.
        Some(until.wait_time_from(self.looks.clock().now())).filter(|wait| !wait.is_zero())
    }

    fn count(&self, key: &K) {
        let _ = self.counts.check_key(key);
    }
}

/// Counts.
struct Count<K>(Counts<K>);

impl<K: Key> StateStore for Count<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.get_with_by_ref(key, Arc::default).measure_and_replace(&NotKeyed::NonKey, f)
    }
}

/// Looks, and changes nothing.
struct Look<K>(Counts<K>);

impl<K: Key> StateStore for Look<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let outcome = match self.0.get(key) {
            // An error leaves the state as it is.
            Some(state) => match state.measure_and_replace(&NotKeyed::NonKey, |at| Err::<((), Nanos), _>(f(at))) {
                Ok(()) => f(None),
                Err(outcome) => outcome,
            },
            None => f(None),
        };
        outcome.map(|(value, _)| value)
    }
}

/// Shows the latest time that it was told, since each call brings its own.
#[derive(Clone, Debug, Default)]
struct Fed(Arc<AtomicU64>);

impl Fed {
    fn feed(&self, millis: u64) {
        self.0.fetch_max(millis.saturating_mul(1_000_000).min(u64::MAX / 4), Ordering::Relaxed);
    }
}

impl Clock for Fed {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What one subscriber is given: an IPv4 address, or a /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who<'a>(id: &'a str, peer: Option<&str>) -> Who<'a> {
        Who { id: Some(id), known: true, peer: peer.and_then(|peer| peer.parse().ok()) }
    }

    #[test]
    fn failures_use_up_the_burst_and_time_gives_them_back() {
        let failures = Failures::new(FailureLimit::default());
        let (a, b) = (who("a", None), who("b", None));
        for _ in 0..10 {
            assert_eq!(failures.wait(a, 5_000), None);
            failures.failed(a, 5_000);
        }
        assert_eq!(failures.wait(a, 5_000), Some(Duration::from_secs(1)));
        assert_eq!((failures.wait(a, 5_999), failures.wait(b, 5_000)), (Some(Duration::from_millis(1)), None));
        assert_eq!(failures.wait(a, 6_000), None);
        failures.failed(a, 6_000);
        assert_eq!(failures.wait(a, 6_500), Some(Duration::from_millis(500)));
    }

    #[test]
    fn addresses_count_across_ids_and_by_their_network() {
        let failures = Failures::new(FailureLimit::default());
        for n in 0..10 {
            failures.failed(who(&n.to_string(), Some("2001:db8::1")), 0);
        }
        assert!(failures.wait(who("x", Some("2001:db8::2")), 0).is_some());
        assert!(failures.wait(who("x", Some("2001:db8:0:1::1")), 0).is_none());
        assert!(failures.wait(who("0", None), 0).is_none());
    }

    #[test]
    fn who_guesses_at_a_client_does_not_lock_it_out() {
        let failures = Failures::new(FailureLimit::default());
        failures.succeeded(who("a", Some("192.0.2.1")));
        for n in 0..20 {
            failures.failed(who("a", Some(&format!("198.51.100.{n}"))), 0);
        }
        assert!(failures.wait(who("a", Some("203.0.113.1")), 0).is_some());
        assert!(failures.wait(who("a", Some("192.0.2.1")), 0).is_none());
    }

    #[test]
    fn unknown_ids_are_bounded_and_push_out_no_known_one() {
        let failures = Failures::new(FailureLimit::default());
        for _ in 0..20 {
            failures.failed(who("a", None), 0);
        }
        for n in 0..Failures::MOST * 3 {
            failures.failed(Who { id: Some(&format!("made up {n}")), known: false, peer: None }, 0);
        }
        assert!(failures.wait(who("a", None), 0).is_some());
        let limited = Limited::new(FailureLimit::default(), &Fed::default());
        for n in 0..Failures::MOST * 3 {
            limited.count(&n);
        }
        let Count(counts) = limited.counts.into_state_store();
        counts.run_pending_tasks();
        assert!(counts.entry_count() <= Failures::MOST);
    }

    /// Guesses that were under way together, so that none of them saw the others fail.
    #[test]
    fn failures_at_the_same_time_count_as_many() {
        let failures = Failures::new(FailureLimit::default());
        for _ in 0..40 {
            failures.failed(who("a", None), 0);
        }
        assert_eq!(failures.wait(who("a", None), 0), Some(Duration::from_secs(31)));
    }

    #[test]
    fn looking_uses_nothing_up_and_time_never_goes_back() {
        let failures = Failures::new(FailureLimit::new(NonZeroU32::MIN, Duration::from_secs(1)));
        for now in [0, 9_000, 9_000, 8_000] {
            assert_eq!(failures.wait(who("a", None), now), None);
        }
        failures.failed(who("a", None), 8_000);
        assert_eq!(failures.wait(who("a", None), 9_000), Some(Duration::from_secs(1)));
    }

    #[test]
    fn the_widest_limits_overflow_nothing() {
        for limit in [
            FailureLimit::new(NonZeroU32::MAX, Duration::MAX),
            FailureLimit::new(NonZeroU32::MIN, Duration::MAX),
            FailureLimit::new(NonZeroU32::MAX, Duration::ZERO),
        ] {
            let failures = Failures::new(limit);
            for now in [0, u64::MAX, u64::MAX] {
                failures.failed(who("a", Some("192.0.2.1")), now);
            }
            let _ = failures.wait(who("a", Some("192.0.2.1")), u64::MAX);
        }
    }
}
