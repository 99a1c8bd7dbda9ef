use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
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
    /// As many failures as `burst` at once, then one `every` so often.
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
pub(super) struct Failures {
    limit: FailureLimit,
    /// Known clients and others apart: made-up ids do not push out the counts of real ones.
    known: Counts<Box<str>>,
    unknown: Counts<Box<str>>,
    peers: Counts<IpAddr>,
    /// From where a client has authenticated itself.
    at_home: Cache<(Box<str>, IpAddr), ()>,
}

/// For each key the time (milliseconds) at which no failure of it counts any more (the generic cell rate algorithm).
type Counts<K> = Cache<K, Arc<AtomicU64>>;

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
        Self {
            limit,
            known: Cache::new(Self::MOST),
            unknown: Cache::new(Self::MOST),
            peers: Cache::new(Self::MOST),
            at_home: Cache::builder().max_capacity(Self::MOST).time_to_live(day).build(),
        }
    }

    /// How long to wait before trying at all.
    pub(super) fn wait(&self, who: Who<'_>, now: u64) -> Option<Duration> {
        let by_peer = who.peer.and_then(|peer| self.peers.get(&network(peer)));
        let by_id = who.id.filter(|id| !self.is_at_home(id, who.peer)).and_then(|id| self.ids(who).get(id));
        let until = |count: Arc<AtomicU64>| count.load(Ordering::Relaxed).saturating_sub(self.borne());
        let wait = by_peer.into_iter().chain(by_id).map(until).max()?.saturating_sub(now);
        (wait > 0).then(|| Duration::from_millis(wait))
    }

    pub(super) fn failed(&self, who: Who<'_>, now: u64) {
        let by_peer = who.peer.map(|peer| self.peers.get_with(network(peer), Arc::default));
        let by_id = who.id.map(|id| self.ids(who).get_with(id.into(), Arc::default));
        let every = millis(self.limit.every).max(1);
        for count in by_peer.into_iter().chain(by_id) {
            let _ =
                count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| Some(at.max(now).saturating_add(every)));
        }
    }

    pub(super) fn succeeded(&self, who: Who<'_>) {
        if let (Some(id), Some(peer)) = (who.id, who.peer) {
            self.at_home.insert((id.into(), network(peer)), ());
        }
    }

    fn is_at_home(&self, id: &str, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|peer| self.at_home.contains_key(&(id.into(), network(peer))))
    }

    fn ids(&self, who: Who<'_>) -> &Counts<Box<str>> {
        if who.known { &self.known } else { &self.unknown }
    }

    /// How far ahead of the clock a count may be: one more failure must still fit.
    fn borne(&self) -> u64 {
        let every = millis(self.limit.every).max(1);
        every.saturating_mul(u64::from(self.limit.burst.get() - 1))
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt(f)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
        failures.unknown.run_pending_tasks();
        assert!(failures.unknown.entry_count() <= Failures::MOST);
        assert!(failures.wait(who("a", None), 0).is_some());
    }
}
