mod address;
mod feed;
mod link;
mod options;
mod place;
mod script;
mod settings;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{self, BoxStream, StreamExt},
};
use redis::{RedisError, Value};

pub use self::options::RedisOptions;
use self::{
    feed::Feed,
    link::{Link, OPEN, failed, read, unavailable, unfit},
};
use super::{
    Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
    Position,
};
use crate::{
    revocation::{Change, ScopeKey},
    time::Clock,
};

/// A backend in Redis: one server, a master that Sentinels watch, or a Cluster. Version 6.2 or later.
///
/// An acknowledged write survives `kill -9` of the server where `appendonly` is `yes`, and a loss of power where
/// `appendfsync` is `always` too. A fail-over can lose what the promoted replica had not got:
/// [`RedisOptions::replicas`] narrows that. Clones share their connections.
///
/// All is kept under keys that begin with the namespace in braces. What is live lies in a stream, in the order in which
/// it was written; nothing has a time to live, and nothing goes through Pub/Sub.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tower_revocation::{Revocations, backend::Redis, denylist::Staleness, sync::SyncConfig};
///
/// let store = Redis::connect("redis://revocations:s3cret@redis.internal:6379/0").await?;
/// let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
/// let revocations = Revocations::start(store, config).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    options: RedisOptions,
    /// The store that was found at first: no other one will do.
    store: String,
    durability: Durability,
    /// For all but feeds; none where the last one failed.
    link: Mutex<Option<Arc<Link>>>,
    /// Held while connecting, so that many callers do it once.
    connecting: tokio::sync::Mutex<()>,
}

/// How many keys are looked up at once, and how many changes are purged before writers get their turn.
const KEYS: usize = 500;
const PURGED: u64 = 1000;
/// Scores are floating-point numbers; up to here they are exact.
const EXACT: u64 = 1 << 53;

impl Redis {
    /// Connects to the server that a URL names, with the defaults.
    ///
    /// `redis://user:password@host:6379/0` is one server, `redis+sentinel://host:26379,host:26379/name/0` the master
    /// that Sentinels watch under this name, `redis+cluster://host:6379,host:6379` a Cluster; with `rediss` in front,
    /// over TLS. Port and database may be left out, user and password too. There are no parameters.
    ///
    /// # Errors
    ///
    /// Where the URL is another one, and as [`RedisOptions::connect`]. No error holds the URL's password.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::options(url)?.connect().await
    }

    /// The defaults for the server that a URL names, to be changed before connecting.
    ///
    /// # Errors
    ///
    /// Where the URL is another one than [`Redis::connect`] describes.
    pub fn options(url: &str) -> Result<RedisOptions, BackendError> {
        RedisOptions::new(url)
    }

    async fn open(options: RedisOptions) -> Result<Self, BackendError> {
        let link = Link::open(&options, None).await?;
        let (store, durability) = (link.store.clone(), link.durability);
        let link = Mutex::new(Some(Arc::new(link)));
        let connecting = tokio::sync::Mutex::default();
        Ok(Self { shared: Arc::new(Shared { options, store, durability, link, connecting }) })
    }

    /// A new connection to the same store, which must not promise less than it did.
    async fn connect_again(&self) -> Result<Link, BackendError> {
        let Shared { options, store, durability, .. } = &*self.shared;
        let link = Link::open(options, Some(store)).await?;
        if link.durability < *durability {
            let server = &link.server;
            let why =
                format!("appendonly or appendfsync of {server} are weaker than at the start; set them as they were");
            return Err(unfit(options, &why));
        }
        Ok(link)
    }

    async fn link(&self) -> Result<Arc<Link>, BackendError> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let turn = tokio::time::timeout(OPEN, self.shared.connecting.lock()).await;
        let _turn = turn.map_err(|_| unavailable(&self.shared.options, "others have tried in vain for long"))?;
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let link = Arc::new(self.connect_again().await?);
        *self.slot() = Some(Arc::clone(&link));
        Ok(link)
    }

    fn current(&self) -> Option<Arc<Link>> {
        self.slot().clone()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Link>>> {
        self.shared.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a script that reads, or deletes what nobody needs.
    async fn ask(&self, doing: &str, script: &str, arguments: &[&[u8]]) -> Result<Value, BackendError> {
        self.run(doing, script, arguments, 0).await
    }

    /// Runs a script that writes.
    async fn write(&self, doing: &str, script: &str, arguments: &[&[u8]]) -> Result<Value, BackendError> {
        self.run(doing, script, arguments, self.shared.options.replicas).await
    }

    async fn run(
        &self,
        doing: &str,
        script: &str,
        arguments: &[&[u8]],
        replicas: usize,
    ) -> Result<Value, BackendError> {
        let mut tried_again = false;
        loop {
            let mut held = Held { store: self, link: self.link().await?, answered: false };
            let outcome = match replicas {
                0 => held.link.run(script, arguments).await.map(|value| (value, 0)),
                _ => held.link.run_and_wait(script, arguments, replicas).await,
            };
            match outcome {
                Ok((value, reached)) => {
                    held.answered = true;
                    if reached < replicas {
                        let what = format!("{reached} of {replicas} replicas have it: a fail-over may lose it");
                        let options = &self.shared.options;
                        let what = format!("{doing} {}, namespace {}: {what}", options.address, options.namespace);
                        return Err(BackendError::new(BackendErrorKind::Unavailable, what));
                    }
                    return Ok(value);
                }
                // The server went away since the last call, or is not the one any more. All scripts may run twice.
                Err(error) if !tried_again && is_elsewhere(&error) => tried_again = true,
                Err(error) => return Err(self.failed(doing, error)),
            }
        }
    }

    fn failed(&self, doing: &str, error: RedisError) -> BackendError {
        failed(&self.shared.options, doing, error)
    }

    fn corrupt(&self, doing: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
        let Shared { options, .. } = &*self.shared;
        let what = format!("{doing} {}, namespace {}; repair or remove it", options.address, options.namespace);
        BackendError::new(BackendErrorKind::Corrupt, what).because(error)
    }

    /// What names a record for an operator.
    fn record(&self, log: &str, place: impl fmt::Display) -> String {
        format!("{} {log} {place}", self.shared.options.address)
    }
}

impl Backend for Redis {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        async move {
            let doing = "agreeing on the fleet's settings in";
            let held = self.write(doing, script::AGREE, &[&ours.encode()]).await?;
            let held: Vec<u8> = read(held).map_err(|error| self.failed(doing, error))?;
            FleetSettings::decode(&held)
        }
        .boxed()
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        async move {
            let doing = "writing revocations to";
            let parts: Vec<_> = batch
                .iter()
                .map(|change| (change.key().to_bytes(), score(change.retain_until()), change.encode()))
                .collect();
            let arguments: Vec<&[u8]> =
                parts.iter().flat_map(|(key, score, record)| [&key[..], score.as_bytes(), record]).collect();
            let head = match batch {
                [] => self.ask(doing, script::PUBLISH, &[]).await?,
                _ => self.write(doing, script::PUBLISH, &arguments).await?,
            };
            let (incarnation, place) =
                link::read_head(&self.shared.store, head).map_err(|error| self.failed(doing, error))?;
            Ok(place.in_life(&incarnation))
        }
        .boxed()
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let feed = Feed::new(self, from, clock);
        stream::try_unfold(feed, |mut feed| async move { Ok(Some((feed.next().await?, feed))) }).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        async move {
            let doing = "looking up revocations in";
            let mut found = Vec::new();
            for part in keys.chunks(KEYS) {
                let part: Vec<_> = part.iter().map(|key| key.to_bytes()).collect();
                let arguments: Vec<_> = part.iter().map(|key| &key[..]).collect();
                let rows = self.ask(doing, script::LOOKUP, &arguments).await?;
                let rows: Vec<(String, Vec<u8>)> = read(rows).map_err(|error| self.failed(doing, error))?;
                for (place, record) in rows {
                    found.push(
                        Change::decode(&record)
                            .map_err(|why| self.corrupt(&format!("looking up the record {place} in"), why))?,
                    );
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        async move {
            let doing = "announcing a node in";
            let status = serde_json::to_vec(node).map_err(|error| self.corrupt(doing, error))?;
            // With replicas, as a write: a master that was cut off from them, and replaced, does not keep a node fresh.
            let all = self.write(doing, script::HEARTBEAT, &[node.key().as_bytes(), &status]).await?;
            let all: Vec<Vec<u8>> = read(all).map_err(|error| self.failed(doing, error))?;
            let unreadable = |error| self.corrupt("reading what nodes announced in", error);
            all.iter().map(|status| serde_json::from_slice(status).map_err(unreadable)).collect()
        }
        .boxed()
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let doing = "taking a node off the list in";
            let status = serde_json::to_vec(node).map_err(|error| self.corrupt(doing, error))?;
            self.ask(doing, script::RETIRE, &[node.key().as_bytes(), &status]).await.map(drop)
        }
        .boxed()
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        async move {
            let doing = "claiming a message in";
            let arguments = [&claim.digest()[..], &claim.message, score(claim.until).as_bytes()].map(<[u8]>::to_vec);
            let held = self.write(doing, script::CLAIM, &arguments.each_ref().map(Vec::as_slice)).await?;
            let held: Option<Vec<u8>> = read(held).map_err(|error| self.failed(doing, error))?;
            Ok(match held.as_deref() {
                None => Claim::First,
                Some([finished, message @ ..]) => claim.against(message, *finished != b'0'),
                Some([]) => Claim::Repeated,
            })
        }
        .boxed()
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let arguments = [&claim.digest()[..], &claim.message, score(claim.until).as_bytes()].map(<[u8]>::to_vec);
            let arguments = arguments.each_ref().map(Vec::as_slice);
            self.write("finishing a message in", script::FINISH, &arguments).await.map(drop)
        }
        .boxed()
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let id = intent.id.to_string();
            let arguments = [id.as_bytes(), &intent.record];
            self.write("announcing what is to be recorded in", script::INTEND, &arguments).await.map(drop)
        }
        .boxed()
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            let id = id.to_string();
            self.write("settling what was to be recorded in", script::SETTLE, &[id.as_bytes()]).await.map(drop)
        }
        .boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        async move {
            let doing = "looking for what was to be recorded in";
            let rows = self.ask(doing, script::INTENTS, &[]).await?;
            let rows: Vec<(u64, Vec<u8>)> = read(rows).map_err(|error| self.failed(doing, error))?;
            Ok(rows.into_iter().map(|(id, record)| Intent::stored(id, record)).collect())
        }
        .boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        async move {
            let doing = "purging what has expired from";
            let (before, most) = (score(before), PURGED.to_string());
            let mut purged = 0;
            loop {
                let part = self.ask(doing, script::PURGE, &[before.as_bytes(), most.as_bytes()]).await?;
                let (changes, claims): (u64, u64) = read(part).map_err(|error| self.failed(doing, error))?;
                purged += changes;
                if changes < PURGED && claims < PURGED {
                    return Ok(purged);
                }
            }
        }
        .boxed()
    }

    fn durability(&self) -> Durability {
        self.shared.durability
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.options.fmt(f)
    }
}

/// A moment as a score. Nothing is purged before its time by that: the latest moments are one.
fn score(moment: u64) -> String {
    moment.min(EXACT).to_string()
}

/// A connection that is given up unless it has answered: also where the caller stopped waiting.
struct Held<'a> {
    store: &'a Redis,
    link: Arc<Link>,
    answered: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.store.slot().take_if(|link| Arc::ptr_eq(link, &self.link));
        }
    }
}

/// Whether another connection is likely to do better, at once.
fn is_elsewhere(error: &RedisError) -> bool {
    error.is_connection_dropped() || matches!(error.code(), Some("MOVED" | "READONLY"))
}
