use std::time::Duration;

/// How much of the denylist a node keeps in memory. A choice of each node: its fleet may be mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// All of it. No request waits for anything.
    #[default]
    Exact,
    /// A filter of all of it, and the entries that were used last: for lists that do not fit into memory. A request whose
    /// token may be revoked, says the filter, while its entry is not at hand, waits until the backend was asked.
    Tiered(Tiered),
}

/// Settings of [`Mode::Tiered`].
///
/// Only doors that can wait ask: [`RevocationLayer::asking`](crate::RevocationLayer::asking),
/// [`Guard::check_or_ask`](crate::Guard::check_or_ask), the revocation routes' layer and
/// [`Denylist::check_or_ask`](super::Denylist::check_or_ask). All others refuse instead, with
/// [`Why::NotAsked`](super::Why::NotAsked). What is not answered in time is refused as well, also where a stale list is
/// served from: that was chosen for revocations that this node has not heard of.
///
/// ```
/// use std::time::Duration;
/// use tower_revocation::{denylist::{Mode, Staleness, Tiered}, sync::SyncConfig};
///
/// let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
/// config.denylist.budget = 100_000_000;
/// config.denylist.mode = Mode::Tiered(Tiered::default().entries(1_000_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Tiered {
    pub(crate) entries: u64,
    pub(crate) look_up_limit: Duration,
    pub(crate) look_ups_at_once: usize,
    pub(crate) look_ups_per_source: u32,
}

impl Default for Tiered {
    fn default() -> Self {
        Self {
            entries: 100_000,
            look_up_limit: Duration::from_millis(250),
            look_ups_at_once: 64,
            look_ups_per_source: 50,
        }
    }
}

impl Tiered {
    /// How many entries are kept at hand, each about 400 bytes: those that were applied or looked up last, scopes that
    /// turned out not to be revoked included. As many changes of the last ten minutes, and 65,536 at least, are kept beside
    /// them (about 100 bytes each): a server that takes over from another one may not have them. Default: 100,000.
    pub const fn entries(mut self, entries: u64) -> Self {
        self.entries = entries;
        self
    }

    /// How long a request waits for the backend; then it is refused with 503. Default: 250 ms.
    pub const fn look_up_limit(mut self, limit: Duration) -> Self {
        self.look_up_limit = limit;
        self
    }

    /// How many look-ups run at once; the others wait their turn, within their limit. Default: 64.
    pub const fn look_ups_at_once(mut self, most: usize) -> Self {
        self.look_ups_at_once = most;
        self
    }

    /// How many look-ups one user (or, where a token names none, one client) may cause in a second; more are refused
    /// with 503. Default: 50.
    pub const fn look_ups_per_source(mut self, most: u32) -> Self {
        self.look_ups_per_source = most;
        self
    }
}
