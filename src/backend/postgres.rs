mod feed;
mod schema;
mod session;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{self, BoxStream, StreamExt},
};

use self::{
    feed::{Feed, Head},
    schema::Schema,
    session::{Bound, Sessions},
};
use super::{
    Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
    Position,
};
use crate::{
    revocation::{Change, ScopeKey},
    time::Clock,
};

/// A backend in PostgreSQL, in a schema of its own.
///
/// An acknowledged write survives what the server survives: a loss of power, unless `fsync` or `full_page_writes` is off
/// there ([`Backend::durability`] tells). Its order is the order in which it becomes visible, and no foreign transaction
/// can delay it. Clones share their connections: up to eight, and one for each follower.
///
/// Over a network, end the URL in `?sslmode=verify-full&sslrootcert=PATH`: by default PostgreSQL's clients take any
/// certificate, and go without TLS where the server has none. Connect to the server itself, or to a pooler that keeps
/// sessions together: one that shares them between transactions breaks what a session is set to, durability included.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tower_revocation::{Revocations, backend::Postgres, denylist::Staleness, sync::SyncConfig};
///
/// let url = "postgres://revocation:secret@db.example/auth?sslmode=verify-full&sslrootcert=/etc/ssl/db-ca.pem";
/// let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
/// let revocations = Revocations::start(Postgres::connect(url).await?, config).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Postgres {
    server: Arc<Sessions>,
    schema: Arc<Schema>,
    namespace: Arc<str>,
}

const HEARTBEAT: Duration = Duration::from_millis(500);
/// How many keys one statement looks up.
const KEYS: usize = 1000;
/// How many changes are purged before others get their turn.
const PURGED: i64 = 1000;

impl Postgres {
    /// The schema that [`Postgres::connect`] uses.
    pub const SCHEMA: &str = "tower_revocation";

    /// Connects to a server by its URL, `postgres://USER:PASSWORD@HOST/DATABASE`, and makes the tables where they are
    /// missing. What the URL leaves out is taken from `PGHOST`, `PGPASSWORD` and their like.
    ///
    /// # Errors
    ///
    /// Where the server cannot be reached within 4 s, refuses the user, is a standby or read-only, where the tables are
    /// older than this program and the role may not change them, or newer, or where the role lacks a right. The error
    /// names the server without the password, and what to do.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        Self::connect_to_schema(url, Self::SCHEMA).await
    }

    /// The same, with the tables in a schema of another name: up to 63 of `a-z`, `0-9` and `_`.
    ///
    /// # Errors
    ///
    /// As [`Postgres::connect`], and where the schema has another name than that.
    pub async fn connect_to_schema(url: &str, schema: &str) -> Result<Self, BackendError> {
        let (server, schema) = (Sessions::to(url)?, Schema::named(schema)?);
        let mut session = server.open().await?;
        server.in_time("setting up the tables in", schema.set_up(&mut session, &server)).await?;
        server.keep(session);
        Ok(Self { server: Arc::new(server), schema: Arc::new(schema), namespace: "default".into() })
    }

    /// Keeps this fleet apart from others in the same schema. Default: `default`.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<Arc<str>>) -> Self {
        self.namespace = name.into();
        self
    }

    /// The SQL that makes the tables in this schema, for whoever does not let the nodes' role do so.
    ///
    /// # Errors
    ///
    /// Where the schema is not named by up to 63 of `a-z`, `0-9` and `_`.
    pub fn schema_sql(schema: &str) -> Result<String, BackendError> {
        Ok(Schema::named(schema)?.definition())
    }

    async fn ask<T>(&self, doing: &str, sql: &str, bound: Bound) -> Result<Vec<T>, BackendError>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        self.server.ask(doing, &self.schema.sql(sql), bound).await
    }

    /// The first parameter of every statement.
    fn fleet(&self) -> Bound {
        Bound::new().and(&*self.namespace)
    }

    /// What names a record for an operator.
    fn record(&self, seq: i64) -> String {
        format!("{} {}.changes.seq={seq}", self.server.place(), self.schema.0)
    }

    fn corrupt(&self, doing: &str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
        BackendError::new(BackendErrorKind::Corrupt, format!("{doing} {}", self.server.place())).because(why)
    }

    fn without_incarnation(&self) -> BackendError {
        let why = format!("{}.meta lacks its row 'incarnation'; restore it from a backup", self.schema.0);
        self.corrupt("reading the incarnation from", why)
    }
}

impl Backend for Postgres {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        const DOING: &str = "agreeing on the fleet's settings in";
        async move {
            let store = "INSERT INTO {s}.meta VALUES ($1, 'settings', $2) ON CONFLICT DO NOTHING RETURNING value";
            let mut held: Vec<(Vec<u8>,)> = self.ask(DOING, store, self.fleet().and(ours.encode())).await?;
            if held.is_empty() {
                let read = "SELECT value FROM {s}.meta WHERE namespace = $1 AND key = 'settings'";
                held = self.ask(DOING, read, self.fleet()).await?;
            }
            let (settings,) = held.first().ok_or_else(|| self.corrupt(DOING, "they were deleted meanwhile"))?;
            FleetSettings::decode(settings)
        }
        .boxed()
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        async move {
            let (sql, bound) = match batch {
                [] => (
                    "SELECT incarnation, (SELECT coalesce(max(seq), 0) FROM {s}.changes WHERE namespace = $1) \
                     FROM {s}.life",
                    self.fleet(),
                ),
                // One statement, sent whole: no node stops in the middle of a transaction, its lock in hand.
                batch => (
                    "SELECT incarnation, head FROM {s}.publish($1, $2, $3, $4)",
                    self.fleet()
                        .and(batch.iter().map(|change| change.key().to_bytes().to_vec()).collect::<Vec<_>>())
                        .and(batch.iter().map(|change| clamped(change.retain_until())).collect::<Vec<_>>())
                        .and(batch.iter().map(Change::encode).collect::<Vec<_>>()),
                ),
            };
            let head: Vec<(String, i64)> = self.ask("recording revocations in", sql, bound).await?;
            let (incarnation, seq) = head.into_iter().next().ok_or_else(|| self.without_incarnation())?;
            Ok(Head::new(incarnation, seq).position())
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
            let mut found = Vec::new();
            for part in keys.chunks(KEYS) {
                let part: Vec<_> = part.iter().map(|key| key.to_bytes().to_vec()).collect();
                let sql = "SELECT seq, record FROM {s}.changes WHERE namespace = $1 AND key = ANY ($2) ORDER BY seq";
                let rows: Vec<(i64, Vec<u8>)> =
                    self.ask("looking up revocations in", sql, self.fleet().and(part)).await?;
                for (seq, record) in rows {
                    found.push(Change::decode(&record).map_err(|why| {
                        let what = format!("looking up {}; repair or remove it", self.record(seq));
                        BackendError::new(BackendErrorKind::Corrupt, what).because(why)
                    })?);
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        const DOING: &str = "announcing a node in";
        async move {
            let status = serde_json::to_string(node).map_err(|error| self.corrupt(DOING, error))?;
            let sql = "WITH ours AS (INSERT INTO {s}.nodes (namespace, node, status) VALUES ($1, $2, $3) \
                       ON CONFLICT (namespace, node) DO UPDATE SET status = excluded.status RETURNING status) \
                       SELECT status FROM ours \
                       UNION ALL SELECT status FROM {s}.nodes WHERE namespace = $1 AND node <> $2";
            let all: Vec<(String,)> = self.ask(DOING, sql, self.fleet().and(&*node.key()).and(status)).await?;
            let read = |(status,): &(String,)| serde_json::from_str(status).map_err(|error| self.corrupt(DOING, error));
            all.iter().map(read).collect()
        }
        .boxed()
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        const DOING: &str = "taking a node off the list in";
        async move {
            let status = serde_json::to_string(node).map_err(|error| self.corrupt(DOING, error))?;
            let sql = "DELETE FROM {s}.nodes WHERE namespace = $1 AND node = $2 AND status = $3 RETURNING node";
            self.ask::<(String,)>(DOING, sql, self.fleet().and(&*node.key()).and(status)).await.map(drop)
        }
        .boxed()
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        const DOING: &str = "claiming a message in";
        async move {
            let digest = claim.digest();
            loop {
                let insert = "INSERT INTO {s}.claims (namespace, digest, until, message, finished) \
                              VALUES ($1, $2, $3, $4, false) ON CONFLICT DO NOTHING RETURNING finished";
                let bound = self.fleet().and(&digest[..]).and(clamped(claim.until)).and(&claim.message[..]);
                if !self.ask::<(bool,)>(DOING, insert, bound).await?.is_empty() {
                    return Ok(Claim::First);
                }
                let held = "SELECT message, finished FROM {s}.claims WHERE namespace = $1 AND digest = $2";
                let held: Vec<(Vec<u8>, bool)> = self.ask(DOING, held, self.fleet().and(&digest[..])).await?;
                if let Some((message, finished)) = held.first() {
                    return Ok(claim.against(message, *finished));
                }
                // It was purged in between.
            }
        }
        .boxed()
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let sql = "INSERT INTO {s}.claims (namespace, digest, until, message, finished) \
                       VALUES ($1, $2, $3, $4, true) \
                       ON CONFLICT (namespace, digest) DO UPDATE SET finished = true RETURNING finished";
            let bound = self.fleet().and(&claim.digest()[..]).and(clamped(claim.until)).and(&claim.message[..]);
            self.ask::<(bool,)>("finishing a message in", sql, bound).await.map(drop)
        }
        .boxed()
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let sql = "INSERT INTO {s}.intents (namespace, id, record) VALUES ($1, $2, $3) \
                       ON CONFLICT (namespace, id) DO UPDATE SET record = excluded.record RETURNING id";
            let bound = self.fleet().and(intent.id.cast_signed()).and(&*intent.record);
            self.ask::<(i64,)>("announcing what is to be recorded in", sql, bound).await.map(drop)
        }
        .boxed()
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            let sql = "DELETE FROM {s}.intents WHERE namespace = $1 AND id = $2 RETURNING id";
            let bound = self.fleet().and(id.cast_signed());
            self.ask::<(i64,)>("settling what was to be recorded in", sql, bound).await.map(drop)
        }
        .boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        async move {
            let sql = "SELECT id, record FROM {s}.intents WHERE namespace = $1";
            let rows: Vec<(i64, Vec<u8>)> =
                self.ask("looking for what was to be recorded in", sql, self.fleet()).await?;
            Ok(rows.into_iter().map(|(id, record)| Intent::stored(id.cast_unsigned(), record)).collect())
        }
        .boxed()
    }

    /// The newest change stays whatever its age: it shows where the order stands. So does what another node is purging.
    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        async move {
            let changes = "WITH gone AS (DELETE FROM {s}.changes WHERE namespace = $1 AND seq IN \
                           (SELECT seq FROM {s}.changes WHERE namespace = $1 AND retain_until < $2 \
                           AND seq < (SELECT max(seq) FROM {s}.changes WHERE namespace = $1) \
                           LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING seq) SELECT count(*) FROM gone";
            let claims = "WITH gone AS (DELETE FROM {s}.claims WHERE namespace = $1 AND digest IN \
                          (SELECT digest FROM {s}.claims WHERE namespace = $1 AND until < $2 \
                          LIMIT $3 FOR UPDATE SKIP LOCKED) RETURNING digest) SELECT count(*) FROM gone";
            self.purge_all("purging expired claims from", claims, before).await?;
            self.purge_all("purging expired revocations from", changes, before).await
        }
        .boxed()
    }

    fn durability(&self) -> Durability {
        self.server.durability()
    }
}

impl Postgres {
    /// Little by little, in transactions of their own, so that nobody waits.
    async fn purge_all(&self, doing: &str, sql: &str, before: u64) -> Result<u64, BackendError> {
        let mut purged = 0;
        loop {
            let part: Vec<(i64,)> = self.ask(doing, sql, self.fleet().and(clamped(before)).and(PURGED)).await?;
            let part = part.first().map_or(0, |(count,)| *count);
            purged += part.unsigned_abs();
            if part < PURGED {
                return Ok(purged);
            }
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("server", &self.server.place())
            .field("schema", &self.schema.0)
            .field("namespace", &self.namespace)
            .finish()
    }
}

/// PostgreSQL's integers are signed. Nothing is kept for less long by that.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
