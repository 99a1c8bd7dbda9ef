//! Keeps a denylist in step with its backend, and records what is revoked.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::time::Duration;
//! # use tower_revocation::{Revocations, backend::Memory, denylist::Staleness, sync::SyncConfig};
//! use tower_revocation::{revocation::{Revocation, Scope}, sync::Revoked};
//!
//! let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
//! config.node = "gateway-1".to_owned();
//! let revocations = Revocations::start(Memory::new(), config).await?;
//!
//! // Once this returns it is durable, and refused here.
//! let scope = Scope::subject("https://issuer.example/", "alice");
//! if let Revoked::Recorded { id, .. } = revocations.revoke(Revocation::new(scope.clone())).await? {
//!     // A mistake: what was seen is taken back, and nothing that came later.
//!     revocations.lift(&scope, &[id], "help desk").await?;
//! }
//! revocations.shutdown().await;
//! # Ok(()) }
//! ```

#[cfg(feature = "signals")]
mod accounts;
mod agreement;
mod announce;
mod copy;
mod everywhere;
mod fleet;
mod intended;
mod jitter;
mod look_up;
mod publisher;
mod repair;
mod replica;
#[cfg(all(feature = "jwt", feature = "endpoint"))]
mod snapshot;
mod standing;

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

#[cfg(feature = "signals")]
pub(crate) use self::accounts::{Account, Word};
#[cfg(feature = "endpoint")]
pub(crate) use self::intended::Intended;
pub(crate) use self::repair::Snapshot;
#[cfg(all(feature = "jwt", feature = "endpoint"))]
pub use self::snapshot::{Imported, SignedSnapshot, SnapshotError, SnapshotVerifier};
use self::{
    agreement::Agreed,
    announce::Announcements,
    copy::{End, Keeper, LocalCopy, Source},
    jitter::Jitter,
    look_up::LookUps,
    publisher::Publisher,
    repair::Repairs,
    standing::Standing,
};
pub use self::{
    agreement::Agreement,
    copy::CopyFault,
    everywhere::{Everywhere, Lag, Unconfirmed},
    fleet::Node,
};
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, Durability, FleetSettings, Position},
    denylist::{Admission, Batch, Denylist, DenylistConfig, Mode, Staleness, Verdict},
    revocation::{Change, Cutoff, Detail, Lift, Record, Revocation, RevocationId, Scope, ScopeKey, ScopeState},
    token::{Identity, VerifiedClaims},
};

/// Settings of [`Revocations`].
///
/// What happens once the list is stale must be said; everything else has a default.
///
/// ```
/// use std::time::Duration;
/// use tower_revocation::{denylist::Staleness, sync::SyncConfig};
///
/// let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
/// config.denylist.budget = 5_000_000;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SyncConfig {
    /// Settings of the denylist. Its hasher is the fleet's: what is set here counts for a first node only.
    pub denylist: DenylistConfig,
    /// This node's name, which should be unique in the fleet ([`Status::namesakes`]). Default: the host's name and a
    /// random suffix.
    pub node: String,
    /// The id of the key that opaque tokens are digested with ([`OpaqueKeys::current_id`]), compared across the fleet:
    /// nodes with different keys would miss each other's revocations.
    ///
    /// [`OpaqueKeys::current_id`]: crate::token::OpaqueKeys::current_id
    pub digest_key: Option<String>,
    /// How long to wait for the backend to acknowledge a write. Default: 5 s.
    pub publish_timeout: Duration,
    /// How often to read everything that the backend holds and to compare, in case something was missed or lost. What
    /// differs is mended, counted and logged. Default: 10 min.
    pub compare_every: Duration,
    /// How long [`Revocations::start`] waits for the first snapshot. Default: 30 s.
    pub load_timeout: Duration,
    /// A file in which to keep a copy of the denylist, so that this node can start while the backend is away, as stale as
    /// the copy is. Default: none.
    ///
    /// Mode 0600, in a folder that must exist, on a local disk; `.lock` and `.tmp` are added to its name for two more. It
    /// is this node's alone. What it holds, and what a node promises that runs from it, is said in `docs/consistency.md`.
    /// A backend in a server has to be connected to [lazily](crate::backend::connect_lazily) for that.
    pub keep_copy: Option<PathBuf>,
    /// How often the copy is written, where anything has changed since; also at [`Revocations::shutdown`]. Default: 30 s.
    ///
    /// A node that crashed refuses what the copy before holds, and everything else until the backend is there: only a copy
    /// that was written at an orderly end vouches for anything. A million revocations are 65 MB.
    pub copy_every: Duration,
}

impl SyncConfig {
    /// The defaults, with this choice about staleness.
    pub fn new(staleness: Staleness) -> Self {
        let host = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
        let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("node").to_owned();
        Self {
            denylist: DenylistConfig::new(staleness),
            node: format!("{host}-{:08x}", crate::random::u64() as u32),
            digest_key: None,
            publish_timeout: Duration::from_secs(5),
            compare_every: Duration::from_secs(10 * 60),
            load_timeout: Duration::from_secs(30),
            keep_copy: None,
            copy_every: Duration::from_secs(30),
        }
    }
}

/// The handle for code: revokes, lifts, checks. Cheap to clone.
///
/// Runs a task that keeps the denylist in step with the backend. Keep a clone for as long as the service runs: the
/// task ends with the last one, and the denylist counts as stale from then on, whatever the policy is.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tower_revocation::{
///     backend::Memory, denylist::{Staleness, Verdict},
///     sync::{Revocations, SyncConfig}, token::{Claims, Identity},
/// };
///
/// let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
/// let revocations = Revocations::start(Memory::new(), config).await?;
/// let now = revocations.denylist().now().unix();
/// let identity = Identity::from_verified(&Claims::new("https://issuer.example/").jti("1").iat(now).exp(now + 600));
///
/// let _ = revocations.log_out(&identity).await?;
/// assert!(matches!(revocations.check(&identity), Verdict::Deny(_)));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Revocations {
    inner: Arc<Inner>,
}

struct Inner {
    denylist: Arc<Denylist>,
    backend: Arc<dyn Backend>,
    publisher: Publisher,
    publish_timeout: Duration,
    state: watch::Receiver<replica::State>,
    announcements: Arc<Announcements>,
    repairs: Arc<Repairs>,
    node: String,
    agreed: Agreed,
    #[cfg(feature = "metrics")]
    failures: Arc<crate::metrics::Failures>,
    copy: Option<(Arc<Keeper>, Source)>,
    /// Aborted when the last handle goes.
    tasks: Mutex<JoinSet<()>>,
}

/// What became of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Revoked {
    /// It is durable and enforced here.
    Recorded {
        /// Names it, for a lift.
        id: RevocationId,
        /// Its place in the backend's feed.
        position: Position,
    },
    /// An earlier revocation covers it: nothing was stored.
    Covered,
    /// Whatever it could match has expired: nothing was stored.
    Expired,
    /// The token's owner holds too many entries: the owner's tokens at that client were cut off instead.
    Widened {
        /// Names the wider revocation, for a lift.
        id: RevocationId,
        /// What was cut off.
        scope: Scope,
    },
}

/// What stands in the way of storing a record, if anything.
enum Prepared {
    Store { record: Record, widened: Option<Scope> },
    Covered(Record),
    Expired,
}

/// A revocation was not recorded. Nothing changed here; a backend that did not answer may hold it all the same.
#[derive(Debug)]
#[non_exhaustive]
pub enum RevokeError {
    /// The denylist's budget is used up.
    Full {
        /// The budget.
        budget: usize,
    },
    /// The backend did not acknowledge the write in time. It may have happened.
    Backend(BackendError),
    /// The token names nothing that could be revoked: no session, no id, no subject.
    NothingToRevoke,
    /// The handle is shutting down.
    Stopped,
}

impl fmt::Display for RevokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { budget } => {
                write!(f, "the denylist is full ({budget} revocations); raise its budget, or revoke a wider scope")
            }
            Self::Backend(error) => write!(f, "the backend did not acknowledge the revocation: {error}"),
            Self::NothingToRevoke => f.write_str(
                "nothing was revoked: the token has neither sid nor jti (for all of a user's tokens it needs sub)",
            ),
            Self::Stopped => f.write_str("the revocation was not recorded: shutting down"),
        }
    }
}

impl Error for RevokeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Backend(error) => Some(error),
            Self::Full { .. } | Self::NothingToRevoke | Self::Stopped => None,
        }
    }
}

/// The handle could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The backend failed.
    Backend(BackendError),
    /// This node's settings differ from those of its fleet.
    Fleet {
        /// The setting.
        setting: &'static str,
        /// What the fleet has.
        theirs: String,
        /// What this node has.
        ours: String,
    },
    /// The backend is away, and this node's copy cannot be used either.
    Copy {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        fault: CopyFault,
        /// What is wrong with the backend.
        away: BackendError,
    },
    /// A copy is to be kept of a denylist that is not all in memory: it would not be whole.
    NoCopy {
        /// Its file.
        path: PathBuf,
    },
    /// The first snapshot did not arrive in time.
    NotLoaded {
        /// How long was waited.
        waited: Duration,
        /// What stood in the way last.
        last_error: Option<String>,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(error) => error.fmt(f),
            Self::Fleet { setting, theirs, ours } => write!(
                f,
                "this node's {setting} is {ours}, its fleet's is {theirs} (stored in the backend): give all nodes the same"
            ),
            Self::Copy { path, fault, away } => {
                let path = path.display();
                write!(f, "the backend is away ({away}), and this node's copy {path} cannot be started from: {fault}")
            }
            Self::NoCopy { path } => {
                let path = path.display();
                write!(f, "no copy {path} can be kept in tiered mode: leave keep_copy out, or hold all of the denylist")
            }
            Self::NotLoaded { waited, last_error } => {
                write!(f, "the denylist was not loaded within {waited:?}")?;
                last_error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
            }
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Backend(error) => Some(error),
            Self::Copy { fault, .. } => Some(fault),
            Self::Fleet { .. } | Self::NoCopy { .. } | Self::NotLoaded { .. } => None,
        }
    }
}

impl From<BackendError> for StartError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

/// How a node stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// How many other processes live under this name, too: an alarm. Each is waited for all the same; give each a name
    /// of its own, to know which is meant.
    pub namesakes: usize,
    /// Whether it is loaded and in step, and can record; or runs from a copy that is fresh enough.
    pub ready: bool,
    /// Whether it has its fleet's settings, or runs from its copy and cannot know yet.
    pub agreement: Agreement,
    /// How long ago it was last known to be in step; `None`: never yet.
    pub staleness: Option<Duration>,
    /// What it has applied.
    pub applied: Option<Position>,
    /// How many records it holds.
    pub records: usize,
    /// The budget of records.
    pub budget: usize,
    /// More is held than the budget allows, since other nodes recorded it: an alarm. New revocations are refused.
    pub over_budget: bool,
    /// How often this node was compared with the backend.
    pub compared: u64,
    /// How many revocations this node had missed, and a comparison with the backend has found.
    pub repaired: u64,
    /// How many revocations the backend had lost, and this node has written back.
    pub written_back: u64,
    /// Which crash an acknowledged revocation survives.
    pub durability: Durability,
    /// Records that it cannot read. While there are any, the node is not in sync.
    pub unreadable: Vec<String>,
    /// What went wrong last with the feed, or keeps the node from its backend since the start.
    pub last_error: Option<String>,
    /// Why the copy that it keeps could not be written the last time.
    pub copy_error: Option<String>,
}

impl Revocations {
    /// Connects to a backend, loads everything it holds, and keeps in step from then on.
    ///
    /// # Errors
    ///
    /// Where the backend cannot be reached or read, its settings would break a promise, this node differs from
    /// its fleet, or the first snapshot does not arrive in time.
    pub async fn start(backend: impl Backend, config: SyncConfig) -> Result<Self, StartError> {
        let load_timeout = config.load_timeout;
        let this = Self::start_unloaded(backend, config).await?;
        if let Err(error) = this.loaded(load_timeout).await {
            // The copy stays what it was.
            this.shutdown().await;
            return Err(error);
        }
        Ok(this)
    }

    /// The same, without waiting for the first snapshot: until it is in, the denylist answers
    /// [`Why::NotReady`](crate::denylist::Why::NotReady).
    ///
    /// # Errors
    ///
    /// As [`Revocations::start`], but for the snapshot.
    pub async fn start_unloaded(backend: impl Backend, config: SyncConfig) -> Result<Self, StartError> {
        let SyncConfig { denylist, node, digest_key, publish_timeout, compare_every, keep_copy, copy_every, .. } =
            config;
        if let (Some(path), Mode::Tiered(_)) = (&keep_copy, denylist.mode) {
            return Err(StartError::NoCopy { path: path.clone() });
        }
        let ours = FleetSettings::new(denylist.budget, &denylist.lifetimes, digest_key);
        let backend: Arc<dyn Backend> = Arc::new(backend);
        #[cfg(feature = "metrics")]
        let failures = Arc::<crate::metrics::Failures>::default();
        #[cfg(feature = "metrics")]
        let backend: Arc<dyn Backend> = Arc::new(crate::metrics::Watched::new(backend, Arc::clone(&failures)));
        let keeper = keep_copy.map(|path| Arc::new(Keeper::of(path)));
        let Begun { backend, denylist, settings, applied, agreed } =
            begin(backend, denylist, ours, publish_timeout, keeper.as_ref()).await?;
        LookUps::serve(&denylist, &backend);
        let mut tasks = JoinSet::new();
        let standing = Arc::new(Standing::new(Arc::clone(&denylist)));
        let repairs = Arc::<Repairs>::default();
        let state = replica::spawn(
            Arc::clone(&backend),
            Arc::clone(&denylist),
            Arc::clone(&standing),
            Arc::clone(&repairs),
            Jitter::of(&node, "feed"),
            applied,
            &mut tasks,
        );
        tasks.spawn(repair::compare_every(
            compare_every,
            Jitter::of(&node, "comparison"),
            Arc::clone(&backend),
            Arc::clone(&denylist),
            Arc::clone(&repairs),
            state.clone(),
        ));
        let announcements = Announcements::spawn(
            Arc::clone(&backend),
            Arc::clone(&denylist),
            standing,
            node.clone(),
            state.clone(),
            &mut tasks,
        );
        let publisher = Publisher::spawn(Arc::clone(&backend), Arc::clone(&denylist), publish_timeout, &mut tasks);
        let recover =
            intended::recover(Arc::clone(&backend), Arc::clone(&denylist), publisher.clone(), publish_timeout);
        tasks.spawn(recover);
        let copy = keeper.map(|keeper| {
            let source = Source { denylist: Arc::clone(&denylist), settings, state: state.clone() };
            tasks.spawn(Arc::clone(&keeper).keep(copy_every, source.clone()));
            (keeper, source)
        });
        let tasks = Mutex::new(tasks);
        Ok(Self {
            inner: Arc::new(Inner {
                denylist,
                backend,
                publisher,
                publish_timeout,
                state,
                announcements,
                repairs,
                node,
                agreed,
                #[cfg(feature = "metrics")]
                failures,
                copy,
                tasks,
            }),
        })
    }

    /// Waits until the first snapshot is in.
    ///
    /// # Errors
    ///
    /// Where it takes longer than `timeout`.
    pub async fn loaded(&self, timeout: Duration) -> Result<(), StartError> {
        let mut state = self.inner.state.clone();
        let loaded = tokio::time::timeout(timeout, state.wait_for(|state| state.applied.is_some())).await;
        match loaded {
            Ok(Ok(_)) => Ok(()),
            _ => {
                Err(StartError::NotLoaded { waited: timeout, last_error: self.inner.state.borrow().last_error.clone() })
            }
        }
    }

    /// Revokes. When it returns `Ok`, the revocation is durable and this node refuses what it covers.
    ///
    /// Runs to its end even where the caller stops waiting.
    ///
    /// Where a `Recorder` listens to a token endpoint, refreshes of what is covered are refused as well; opaque access
    /// tokens of a user, session or client end with `Recorder::end`.
    ///
    /// # Errors
    ///
    /// Where the backend does not acknowledge, or the budget is used up.
    pub async fn revoke(&self, revocation: Revocation) -> Result<Revoked, RevokeError> {
        let (record, widened) = match self.prepare(&revocation, &Batch::default())? {
            Prepared::Expired => return Ok(Revoked::Expired),
            Prepared::Covered(record) => match self.not_covered(vec![record]).await?.pop() {
                None => return Ok(Revoked::Covered),
                Some(record) => (record, None),
            },
            Prepared::Store { record, widened } => (record, widened),
        };
        let id = record.id();
        let position = self.publish(vec![record]).await?;
        Ok(match widened {
            Some(scope) => Revoked::Widened { id, scope },
            None => Revoked::Recorded { id, position },
        })
    }

    /// Records many decisions in one write; nothing is stored for those that are covered or expired.
    ///
    /// # Errors
    ///
    /// As [`Revocations::revoke`]; none of them is recorded then, or all are.
    pub async fn revoke_all(
        &self,
        revocations: impl IntoIterator<Item = Revocation>,
    ) -> Result<Vec<RevocationId>, RevokeError> {
        let records = self.prepare_all(revocations).await?;
        let ids = records.iter().map(Record::id).collect();
        if !records.is_empty() {
            self.publish(records).await?;
        }
        Ok(ids)
    }

    /// The records of many decisions that are one batch: none for those that are covered or expired.
    async fn prepare_all(&self, revocations: impl IntoIterator<Item = Revocation>) -> Result<Vec<Record>, RevokeError> {
        let denylist = &self.inner.denylist;
        let (mut batch, mut records, mut covered) = (Batch::default(), Vec::new(), Vec::new());
        let mut wider = HashMap::new();
        for revocation in revocations {
            match self.prepare(&revocation, &batch)? {
                Prepared::Expired => {}
                Prepared::Covered(record) => covered.push(record),
                // Many over one quota come to the same cutoff.
                Prepared::Store { record, widened: Some(_) }
                    if wider.get(&record.key()).is_some_and(|cutoff| *cutoff >= record.cutoff()) => {}
                Prepared::Store { record, widened } => {
                    if widened.is_some() {
                        wider.insert(record.key(), record.cutoff());
                    }
                    denylist.add(&record, &mut batch);
                    records.push(record);
                }
            }
        }
        records.extend(self.not_covered(covered).await?);
        Ok(records)
    }

    async fn publish(&self, records: Vec<Record>) -> Result<Position, RevokeError> {
        let denylist = &self.inner.denylist;
        let self_service = records.iter().all(|record| !record.owners().is_empty());
        // Held until they are applied, so that many at once do not overrun the budget together.
        let room = denylist.reserve(records.len(), self_service);
        let _room = room.ok_or(RevokeError::Full { budget: denylist.budget() })?;
        self.inner.publisher.publish(records.into_iter().map(Change::Revoke).collect()).await
    }

    /// The record of a decision, and what would become of it, together with the rest of its batch.
    fn prepare(&self, revocation: &Revocation, batch: &Batch) -> Result<Prepared, RevokeError> {
        let denylist = &self.inner.denylist;
        let full = || RevokeError::Full { budget: denylist.budget() };
        let record = self.record(revocation);
        if revocation.is_implied() && denylist.covers(&record) {
            return Ok(Prepared::Covered(record));
        }
        match denylist.admit(&record, true, batch) {
            Admission::Room => {
                return Ok(Prepared::Store { record: self.reach_ahead(revocation, record), widened: None });
            }
            Admission::Covered => return Ok(Prepared::Covered(record)),
            Admission::Expired => return Ok(Prepared::Expired),
            Admission::Full => return Err(full()),
            Admission::OverQuota => {}
        }
        // A full quota does not keep anyone from revoking: their tokens at that client are cut off instead.
        let wider = revocation.widened().ok_or_else(full)?;
        let scope = wider.scope().clone();
        let record = self.record(&wider);
        match denylist.admit(&record, false, batch) {
            Admission::Room | Admission::OverQuota => {
                Ok(Prepared::Store { record: self.reach_ahead(&wider, record), widened: Some(scope) })
            }
            Admission::Covered => Ok(Prepared::Covered(record)),
            Admission::Expired => Ok(Prepared::Expired),
            Admission::Full => Err(full()),
        }
    }

    /// A scope that is cut off every second would hold a record for each: a crowded one is cut off a little ahead, which
    /// covers the next ones too.
    fn reach_ahead(&self, revocation: &Revocation, record: Record) -> Record {
        let denylist = &self.inner.denylist;
        if record.cutoff() == Cutoff::FOREVER || !denylist.is_crowded(record.key()) {
            return record;
        }
        let ahead = denylist.exact_now().unix().saturating_add(denylist.lifetimes().skew_secs());
        self.record(&revocation.clone().cutoff(Cutoff::at(ahead).max(record.cutoff())))
    }

    fn record(&self, revocation: &Revocation) -> Record {
        let denylist = &self.inner.denylist;
        let hasher = denylist.hasher();
        let owners: Vec<_> = revocation.owner().map_or_else(Vec::new, |owner| {
            let sub = owner.sub.as_ref().map(|sub| Scope::subject(&owner.iss, sub));
            let client = owner.client_id.as_ref().map(|client_id| Scope::client(&owner.iss, client_id));
            sub.into_iter().chain(client).map(|scope| hasher.key(&scope)).collect()
        });
        let now = denylist.exact_now().unix();
        revocation.clone().into_record(hasher, denylist.lifetimes(), now).owned_by(owners)
    }

    /// Those of the records that the backend does not hold as covered: this node may not have heard yet that what
    /// covers them here was lifted.
    async fn not_covered(&self, mut records: Vec<Record>) -> Result<Vec<Record>, RevokeError> {
        if records.is_empty() {
            return Ok(records);
        }
        let keys: Vec<_> = records.iter().map(Record::key).collect();
        let states = self.held_by_backend(&keys).await?;
        records.retain(|record| !states.get(&record.key()).is_some_and(|state| state.covers(record)));
        Ok(records)
    }

    /// What the backend holds of these scopes.
    async fn held_by_backend(&self, keys: &[ScopeKey]) -> Result<HashMap<ScopeKey, ScopeState>, RevokeError> {
        let found = tokio::time::timeout(self.inner.publish_timeout, self.inner.backend.lookup(keys)).await;
        let found = found.map_err(|_| {
            let what =
                format!("looking {} revocations up: no answer within {:?}", keys.len(), self.inner.publish_timeout);
            RevokeError::Backend(BackendError::new(BackendErrorKind::Unavailable, what))
        })?;
        let mut states: HashMap<_, ScopeState> = HashMap::new();
        for change in found.map_err(RevokeError::Backend)? {
            states.entry(change.key()).or_default().apply(&change);
        }
        Ok(states)
    }

    /// Logs the current user out: ends the session of this token, or the token where it names no session.
    ///
    /// # Errors
    ///
    /// As [`Revocations::revoke`], and where the token names neither.
    pub async fn log_out(&self, identity: &impl VerifiedClaims) -> Result<Revoked, RevokeError> {
        self.revoke(Revocation::session_of(identity).ok_or(RevokeError::NothingToRevoke)?).await
    }

    /// Logs the current user out everywhere: every token of this token's subject issued until now.
    ///
    /// # Errors
    ///
    /// As [`Revocations::revoke`], and where the token has no `sub`.
    pub async fn log_out_everywhere(&self, identity: &impl VerifiedClaims) -> Result<Revoked, RevokeError> {
        self.revoke(Revocation::subject_of(identity).ok_or(RevokeError::NothingToRevoke)?).await
    }

    /// Takes back revocations of a scope: those with these ids, and no others, not even later ones.
    ///
    /// Ids that this node does not hold are lifted as well, should they arrive later.
    ///
    /// # Errors
    ///
    /// Where the backend does not acknowledge.
    pub async fn lift(&self, scope: &Scope, ids: &[RevocationId], by: &str) -> Result<(), RevokeError> {
        if ids.is_empty() {
            return Ok(());
        }
        let changes = self.lifts(scope, ids, by, &self.state_of(scope).await?);
        self.inner.publisher.publish(changes).await.map(|_| ())
    }

    /// Ends every ban and revocation of a scope that this node knows, and leaves a cutoff at this moment: tokens
    /// issued before stay dead, new ones live.
    ///
    /// # Errors
    ///
    /// Where the backend does not acknowledge.
    pub async fn enable(&self, scope: &Scope, by: &str) -> Result<(), RevokeError> {
        let denylist = &self.inner.denylist;
        let now = denylist.exact_now().unix();
        let held = self.state_of(scope).await?;
        let ids: Vec<_> = held.ids().collect();
        let cutoff = Revocation::new(scope.clone()).cutoff(crate::revocation::Cutoff::at(now)).revoked_by(by);
        let cutoff = cutoff.into_record(denylist.hasher(), denylist.lifetimes(), now);
        // One write, the cutoff first: at no moment is an old token good again.
        let mut changes = vec![Change::Revoke(cutoff)];
        changes.extend(self.lifts(scope, &ids, by, &held));
        self.inner.publisher.publish(changes).await.map(|_| ())
    }

    fn lifts(&self, scope: &Scope, ids: &[RevocationId], by: &str, held: &ScopeState) -> Vec<Change> {
        const MOST: usize = 1000;
        let denylist = &self.inner.denylist;
        let key = denylist.hasher().key(scope);
        let now = denylist.exact_now().unix();
        // The tombstone outlasts what it lifts. What has not arrived here yet may be a ban, which is kept for ever.
        let known: Vec<_> = held.ids().collect();
        let until = match held.retain_until() {
            Some(retained) if ids.iter().all(|id| known.contains(id)) => {
                retained.max(denylist.lifetimes().retain_scope(now))
            }
            _ => u64::MAX,
        };
        let detail =
            Detail { scope: Some(scope.clone()), revoked_by: Some(by.to_owned()), revoked_at: now, reason: None };
        ids.chunks(MOST).map(|ids| Change::Lift(Lift::new(key, ids.to_vec(), until, &detail))).collect()
    }

    /// All that this node knows of a scope; where that is not at hand, with what the backend knows.
    async fn state_of(&self, scope: &Scope) -> Result<ScopeState, RevokeError> {
        let denylist = &self.inner.denylist;
        let key = denylist.hasher().key(scope);
        let (Some((_, Some(asking))), None) = (denylist.asks(), denylist.state(key)) else {
            return Ok(denylist.state(key).unwrap_or_default());
        };
        let answers = asking.look_up(vec![key], None).await.map_err(|why| {
            let what = format!("looking up what is revoked: {why}; try again");
            RevokeError::Backend(BackendError::new(BackendErrorKind::Unavailable, what))
        })?;
        Ok(answers.get(&key.as_u128()).map(|entry| entry.state()).unwrap_or_default())
    }

    /// The ids of the live revocations of a scope: what a lift names. In [tiered mode](Mode::Tiered) the backend is asked
    /// where they are not at hand.
    ///
    /// # Errors
    ///
    /// Where the backend was asked, and did not answer in time.
    pub async fn find_revocations_of(&self, scope: &Scope) -> Result<Vec<RevocationId>, RevokeError> {
        Ok(self.state_of(scope).await?.ids().collect())
    }

    /// The ids of the live revocations of a scope that this node holds: what a lift names. In
    /// [tiered mode](Mode::Tiered) it holds few: use [`Revocations::find_revocations_of`].
    pub fn revocations_of(&self, scope: &Scope) -> Vec<RevocationId> {
        let denylist = &self.inner.denylist;
        denylist.revocations(denylist.hasher().key(scope))
    }

    /// Whether a token may pass; in [tiered mode](Mode::Tiered) the backend is asked where only that can tell.
    pub async fn check_or_ask(&self, identity: &Identity) -> Verdict {
        self.inner.denylist.check_or_ask(identity).await
    }

    /// Whether a token may pass, as far as this node knows.
    pub fn check(&self, identity: &Identity) -> Verdict {
        self.inner.denylist.check(identity)
    }

    /// The denylist, to build layers on.
    pub fn denylist(&self) -> &Arc<Denylist> {
        &self.inner.denylist
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// What the backend has failed at.
    #[cfg(feature = "metrics")]
    pub(crate) fn failures(&self) -> &crate::metrics::Failures {
        &self.inner.failures
    }

    /// The nodes of the fleet that announced themselves lately, this one included, by name; each run of one apart.
    pub fn nodes(&self) -> Vec<Node> {
        self.inner.announcements.fleet().nodes(self.inner.denylist.now())
    }

    /// How this node stands.
    pub fn status(&self) -> Status {
        let Inner { denylist, backend, state, node, copy, .. } = &*self.inner;
        let (state, (agreement, disagreement)) = (state.borrow(), self.inner.agreed.get());
        Status {
            node: node.clone(),
            namesakes: self.inner.announcements.namesakes(),
            ready: denylist.not_ready().is_none() && self.inner.publisher.runs(),
            agreement,
            staleness: denylist.staleness(),
            applied: state.applied.clone(),
            records: denylist.records(),
            budget: denylist.budget(),
            over_budget: state.over_budget,
            compared: self.inner.repairs.compared.load(Ordering::Relaxed),
            repaired: self.inner.repairs.here.load(Ordering::Relaxed),
            written_back: self.inner.repairs.there.load(Ordering::Relaxed),
            durability: backend.durability(),
            unreadable: state.unreadable.iter().cloned().collect(),
            last_error: disagreement.or_else(|| state.last_error.clone()),
            copy_error: copy.as_ref().and_then(|(keeper, _)| keeper.failed()),
        }
    }

    /// Finishes the writes under way, stops the tasks, and writes the copy where one is kept. Requests that are still being
    /// served are judged by what is known, until the denylist is stale.
    pub async fn shutdown(&self) {
        self.inner.publisher.close().await;
        // Whoever shuts it down as well, or again after it was interrupted, waits for them too: they may still apply something.
        self.inner.tasks.lock().await.shutdown().await;
        if let Some((keeper, source)) = &self.inner.copy {
            Arc::clone(keeper).close(source.clone()).await;
        }
    }
}

/// What a node begins with.
struct Begun {
    backend: Arc<dyn Backend>,
    denylist: Arc<Denylist>,
    settings: FleetSettings,
    applied: Option<Position>,
    agreed: Agreed,
}

/// Agrees with the fleet on the settings; where the backend is away, starts from the copy, if one is kept.
async fn begin(
    backend: Arc<dyn Backend>,
    config: DenylistConfig,
    ours: FleetSettings,
    timeout: Duration,
    keeper: Option<&Arc<Keeper>>,
) -> Result<Begun, StartError> {
    let answer = match keeper {
        None => backend.agree(&ours).await,
        Some(_) => tokio::time::timeout(timeout, backend.agree(&ours)).await.unwrap_or_else(|_| {
            let what = format!("agreeing on the fleet's settings: no answer within {timeout:?}");
            Err(BackendError::new(BackendErrorKind::Unavailable, what))
        }),
    };
    let settings = match (answer, keeper) {
        (Ok(settings), _) => settings,
        (Err(away), Some(keeper)) if away.kind() == BackendErrorKind::Unavailable => {
            return begin_from_copy(backend, config, ours, away, keeper).await;
        }
        (Err(error), _) => return Err(error.into()),
    };
    if let Some((setting, theirs, ours)) = settings.difference(&ours) {
        return Err(StartError::Fleet { setting, theirs, ours });
    }
    if let Some(keeper) = keeper.map(Arc::clone) {
        // Where another process keeps it, that is said when it is to be written.
        let _ = tokio::task::spawn_blocking(move || keeper.take_if_free()).await;
    }
    #[cfg(feature = "tracing")]
    if backend.durability() == Durability::None {
        tracing::warn!("revocations live in this process's memory only: a restart forgets them");
    }
    let denylist = Arc::new(Denylist::new(DenylistConfig { hasher: settings.hasher(), ..config }));
    Ok(Begun { backend, denylist, settings, applied: None, agreed: Agreed::default() })
}

async fn begin_from_copy(
    backend: Arc<dyn Backend>,
    config: DenylistConfig,
    ours: FleetSettings,
    away: BackendError,
    keeper: &Arc<Keeper>,
) -> Result<Begun, StartError> {
    let from = Arc::clone(keeper);
    let load = move |end| {
        let copy = LocalCopy::open(from.path())?;
        let settings = copy.settings(&ours, config.staleness.after())?.clone();
        let denylist = Denylist::new(DenylistConfig { hasher: settings.hasher(), ..config });
        let applied = copy.load(&denylist, end)?;
        // Else it is written anew, as old as it counts.
        if end == End::Orderly {
            from.is_as(&denylist);
        }
        Ok((Arc::new(denylist), settings, applied))
    };
    let kept = Arc::clone(keeper);
    let loading = move || {
        let end = kept.take()?;
        load(end).inspect_err(|_: &CopyFault| kept.leave())
    };
    let path = keeper.path().to_owned();
    let loaded = tokio::task::spawn_blocking(loading).await;
    let (denylist, settings, applied) = match loaded {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(fault)) => return Err(StartError::Copy { path, fault, away }),
        // Only where the runtime is going down.
        Err(_) => return Err(away.into()),
    };
    #[cfg(feature = "tracing")]
    tracing::error!(
        copy = %path.display(), staleness = ?denylist.staleness(), %away,
        "the backend is away: this node runs from its copy, and nothing can be revoked here"
    );
    let agreed = Agreed::default();
    let backend = agreed.first(backend, settings.clone(), &path, Arc::clone(&denylist), &away);
    Ok(Begun { backend: Arc::new(backend), denylist, settings, applied: Some(applied), agreed })
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The tasks end with it. A layer that lives on must not go on as if it were kept in step.
        self.denylist.abandon();
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations").field("node", &self.inner.node).field("denylist", &self.inner.denylist).finish()
    }
}
