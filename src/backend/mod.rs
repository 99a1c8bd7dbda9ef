//! The shared truth behind the denylists of a fleet: durable, ordered, with a change feed.

pub mod conformance;
mod connect;
mod file;
mod intent;
mod lazy;
pub(crate) mod list;
mod memory;
#[cfg(feature = "nats")]
mod nats;
mod one_time;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "nats")]
pub use self::nats::{Nats, NatsOptions};
#[cfg(feature = "endpoint")]
pub(crate) use self::one_time::digest;
#[cfg(feature = "postgres")]
pub use self::postgres::Postgres;
#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisOptions};
#[cfg(feature = "sqlite")]
pub use self::sqlite::Sqlite;
#[cfg(all(feature = "sqlite", feature = "endpoint"))]
pub(crate) use self::sqlite::create as create_private;
pub use self::{
    connect::{connect, connect_lazily},
    file::File,
    intent::Intent,
    lazy::Lazy,
    memory::Memory,
    one_time::{Claim, OneTime},
};

use std::{error::Error, fmt, sync::Arc, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};
use serde::{Deserialize, Serialize};

use crate::{
    revocation::{Change, Lifetimes, ScopeHasher, ScopeKey, ScopeKind, Unreadable},
    time::{Clock, Moment},
};

/// Where revocations live. Implement it to bring your own store, and run
/// [`conformance`] against it: the conditions it must meet are all checked there.
///
/// Futures may be dropped at any time; a write that was begun may then have happened or not.
pub trait Backend: Send + Sync + 'static {
    /// Stores the fleet's settings if it holds none yet, and returns those it holds.
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>>;

    /// Stores a batch durably, all or nothing. Resolves once the crash that [`Backend::durability`] names can no
    /// longer lose it. Storing the same change twice is harmless.
    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>>;

    /// Everything live, then every later change, in order and without a gap.
    ///
    /// Resumes after `from` where the backend still can, else starts over with [`Event::Snapshot`]. Says
    /// [`Event::CaughtUp`] at least once a second while it is in touch with the store, traffic or not.
    /// Ends, or yields an error, when it has lost touch; it is then called again.
    fn follow<'a>(&'a self, from: Option<Position>, clock: &'a dyn Clock)
    -> BoxStream<'a, Result<Event, BackendError>>;

    /// The live changes of these keys, exactly.
    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>>;

    /// Announces what this run of a node has applied, in place of what it announced before under its
    /// [`NodeStatus::key`], and returns what every run has announced, itself included. The store judges no lease: it has
    /// other clocks. It tells runs of one name apart: one that was replaced by another may serve on.
    ///
    /// An announcement must be visible to every later call on every node, and the first one of a node must survive what
    /// an acknowledged write survives: whoever publishes waits for the nodes that are listed.
    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>>;

    /// Takes a run of a node off the list, unless it has announced something else than this since.
    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Claims a message that counts once, for the whole fleet: of all claims under one id, however they race, one is
    /// [`Claim::First`]. Others are [`Claim::Again`] where they come with the same [`OneTime::message`] and it is not
    /// finished, else [`Claim::Repeated`]. The first must hold, as durably as a change, until a purge later than its
    /// [`OneTime::until`].
    ///
    /// Store [`OneTime::digest`], not the message's id.
    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>>;

    /// Finishes a message that was claimed: from now on every claim of it is [`Claim::Repeated`], as durably as a
    /// change. Finishing it twice is harmless; one that is not there counts as claimed.
    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Stores an intent, as durably as a change, until it is settled.
    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Deletes the intent with this id, if there is one.
    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>>;

    /// All intents that are not settled, of every node, in any order.
    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>>;

    /// Deletes changes whose `retain_until` lies before `before` (Unix seconds), and says how many; and claims whose
    /// [`OneTime::until`] does.
    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>>;

    /// Which crash an acknowledged write survives.
    fn durability(&self) -> Durability;
}

impl<B: Backend + ?Sized> Backend for Arc<B> {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        (**self).agree(ours)
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        (**self).publish(batch)
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        (**self).follow(from, clock)
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        (**self).lookup(keys)
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        (**self).heartbeat(node)
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        (**self).retire(node)
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        (**self).claim_once(claim)
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        (**self).finish_once(claim)
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        (**self).intend(intent)
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        (**self).settle(id)
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        (**self).intents()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        (**self).purge(before)
    }

    fn durability(&self) -> Durability {
        (**self).durability()
    }
}

/// What the feed of a backend says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// What follows, up to the next [`Event::CaughtUp`], is everything live. It adds to what is known:
    /// nothing leaves a replica because the backend lacks it.
    Snapshot,
    /// Changes, in the order in which the store holds them.
    Changes(Vec<Change>),
    /// All that the store held at `as_of` has been delivered.
    CaughtUp {
        /// Where to resume.
        position: Position,
        /// When the store was asked, by the clock given to [`Backend::follow`].
        as_of: Moment,
    },
    /// A record that this version cannot read. The node is not in sync until an operator has dealt with it.
    Unreadable {
        /// What names the record in the store.
        name: String,
        /// What is wrong with it.
        why: Unreadable,
    },
}

/// A place in a backend's feed.
///
/// Places are comparable within one incarnation of the store only: a restore from a backup begins another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    incarnation: String,
    offset: u128,
}

impl Position {
    /// The place `offset` of the store's `incarnation`.
    pub fn new(incarnation: impl Into<String>, offset: u128) -> Self {
        Self { incarnation: incarnation.into(), offset }
    }

    /// Which life of the store it belongs to.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// The place: grows with every change.
    pub const fn offset(&self) -> u128 {
        self.offset
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self.incarnation == other.incarnation).then(|| self.offset.cmp(&other.offset))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.offset, self.incarnation)
    }
}

/// What a node says of itself, and learns of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its name. Unique in the fleet, if its operator saw to that.
    pub node: String,
    /// Which run of the node: random for each start.
    pub session: u64,
    /// Counts its announcements: whoever sees it grow knows that the node lives.
    pub beat: u64,
    /// What it has applied; `None` while it loads.
    pub applied: Option<Position>,
    /// Whether it refuses all that is revoked, and everything once stale. Else the next two say what it does not.
    pub enforces: bool,
    /// Whether it goes on serving once stale: it never counts as enforcing then. Where it is neither this nor
    /// [`shadows`](Self::shadows) anything, a node of an earlier version does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serves_when_stale: bool,
    /// The kinds of scopes that it does not refuse everywhere (see [`rollout`](crate::rollout)), a bit for each: the one
    /// at the place of the [`ScopeKind`]'s number.
    ///
    /// [`ScopeKind`]: crate::revocation::ScopeKind
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shadows: u32,
    /// After how long without a renewal it refuses.
    pub lease: Duration,
}

impl NodeStatus {
    /// A node that has just started, and applied nothing yet.
    pub fn new(node: impl Into<String>, enforces: bool, lease: Duration) -> Self {
        Self {
            node: node.into(),
            session: crate::random::u64(),
            beat: 0,
            applied: None,
            enforces,
            serves_when_stale: false,
            shadows: 0,
            lease,
        }
    }

    /// What a store keeps it under: its name and its session, so that no run of a node takes the place of another.
    pub fn key(&self) -> String {
        format!("{}/{:016x}", self.node, self.session)
    }

    /// The kinds of scopes that it does not refuse everywhere.
    pub fn shadowed_scopes(&self) -> impl Iterator<Item = ScopeKind> {
        let shadows = self.shadows;
        ScopeKind::ALL.into_iter().filter(move |kind| shadows & 1 << *kind as u32 != 0)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks for it")]
const fn is_zero(bits: &u32) -> bool {
    *bits == 0
}

/// What all nodes of a fleet must have in common; kept in the backend and compared at start.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FleetSettings {
    /// The secret of the [`ScopeHasher`]. Drawn by the first node.
    secret: [u8; 16],
    /// The denylist's budget.
    pub budget: usize,
    /// See [`Lifetimes::leeway`]. Seconds.
    pub leeway: u64,
    /// See [`Lifetimes::skew`]. Seconds.
    pub skew: u64,
    /// See [`Lifetimes::max_lifetime`]. Seconds.
    pub max_lifetime: u64,
    /// See [`Lifetimes::max_refresh_lifetime`]. Seconds; what is less than `max_lifetime`, as in settings that were
    /// stored before there was this one, counts as that.
    #[serde(default)]
    pub max_refresh_lifetime: u64,
    /// The id of the key that opaque tokens are digested with.
    pub digest_key: Option<String>,
}

impl FleetSettings {
    /// The settings of a first node, with a fresh secret.
    pub fn new(budget: usize, lifetimes: &Lifetimes, digest_key: Option<String>) -> Self {
        Self {
            secret: *ScopeHasher::random().secret(),
            budget,
            leeway: lifetimes.leeway_secs(),
            skew: lifetimes.skew_secs(),
            max_lifetime: lifetimes.max_lifetime_secs(),
            max_refresh_lifetime: lifetimes.max_refresh_lifetime_secs(),
            digest_key,
        }
    }

    /// The hasher that the fleet shares.
    pub fn hasher(&self) -> ScopeHasher {
        ScopeHasher::new(self.secret)
    }

    /// Whether these are of the same fleet: they have one secret.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        self.secret == other.secret
    }

    /// The first setting in which this node differs from the fleet, with both values.
    pub(crate) fn difference(&self, ours: &Self) -> Option<(&'static str, String, String)> {
        let refresh = |settings: &Self| format!("{} s", settings.max_refresh_lifetime.max(settings.max_lifetime));
        let pairs = [
            ("budget", self.budget.to_string(), ours.budget.to_string()),
            ("leeway", format!("{} s", self.leeway), format!("{} s", ours.leeway)),
            ("skew", format!("{} s", self.skew), format!("{} s", ours.skew)),
            ("max_lifetime", format!("{} s", self.max_lifetime), format!("{} s", ours.max_lifetime)),
            ("max_refresh_lifetime", refresh(self), refresh(ours)),
            ("digest key", format!("{:?}", self.digest_key), format!("{:?}", ours.digest_key)),
        ];
        pairs.into_iter().find(|(_, theirs, ours)| theirs != ours)
    }

    /// The settings as bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        // Numbers and strings only: nothing here can fail to serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads stored settings.
    ///
    /// # Errors
    ///
    /// Where the bytes are not settings.
    pub fn decode(bytes: &[u8]) -> Result<Self, BackendError> {
        serde_json::from_slice(bytes).map_err(|error| {
            BackendError::new(BackendErrorKind::Corrupt, "reading the fleet's settings from the backend").because(error)
        })
    }
}

impl fmt::Debug for FleetSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetSettings")
            .field("budget", &self.budget)
            .field("leeway", &self.leeway)
            .field("skew", &self.skew)
            .field("max_lifetime", &self.max_lifetime)
            .field("max_refresh_lifetime", &self.max_refresh_lifetime)
            .field("digest_key", &self.digest_key)
            .finish_non_exhaustive()
    }
}

/// Which crash an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// None: it lives in this process.
    None,
    /// The store's process may be killed; a crash of its machine can lose the last writes.
    Process,
    /// The store's machine may lose power.
    Machine,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none (this process's memory)",
            Self::Process => "survives a crash of the store's process",
            Self::Machine => "survives a crash of the store's machine",
        })
    }
}

/// A backend could not do what was asked.
#[derive(Debug)]
pub struct BackendError {
    kind: BackendErrorKind,
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of [`BackendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// Out of reach, too slow, locked or out of space: another try may work.
    Unavailable,
    /// It is set up in a way that would break a promise; it says which setting.
    Settings,
    /// What it holds cannot be read.
    Corrupt,
    /// Nothing can be recorded in it.
    ReadOnly,
}

impl BackendError {
    /// An error of this kind; `what` says what was tried, on what, and what to do.
    pub fn new(kind: BackendErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind.
    pub const fn kind(&self) -> BackendErrorKind {
        self.kind
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule 5: what was stored before there was a bound for refresh tokens means that they live as long as others.
    #[test]
    fn rule5_settings_of_before_can_be_read_and_compared() {
        let ours = |lifetimes: Lifetimes| FleetSettings::new(7, &lifetimes, None);
        let mut stored: serde_json::Value = serde_json::from_slice(&ours(Lifetimes::DEFAULT).encode()).unwrap();
        stored.as_object_mut().unwrap().remove("max_refresh_lifetime").unwrap();
        let before = FleetSettings::decode(stored.to_string().as_bytes()).unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(before.difference(&ours(Lifetimes::DEFAULT)), None);
        assert_eq!(before.difference(&ours(Lifetimes::DEFAULT.max_refresh_lifetime(hour))), None, "never less");
        let longer = ours(Lifetimes::DEFAULT.max_refresh_lifetime(48 * hour));
        let expected = ("max_refresh_lifetime", "86400 s".to_owned(), "172800 s".to_owned());
        assert_eq!(before.difference(&longer), Some(expected));
    }
}
