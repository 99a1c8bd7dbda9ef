use std::{
    collections::VecDeque,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{self, BoxStream, StreamExt},
};
use sqlx::{
    ConnectOptions, Connection, QueryBuilder, SqliteConnection, SqliteExecutor, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{sync::watch, time::Instant};

use super::{
    Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
    Position,
};
use crate::{
    revocation::{Change, ScopeKey},
    time::Clock,
};

/// A backend in one SQLite file, for the processes of one machine.
///
/// An acknowledged write survives `kill -9` and a loss of power (WAL with `synchronous = FULL`). Several
/// processes may share the file, and several fleets by [`Sqlite::namespace`]; each process learns of the
/// others' writes within [`Sqlite::poll_interval`]. Clones share their connections.
///
/// The file must lie on a local disk: SQLite's locks do not hold on network file systems. Restore a backup only
/// while no process has the file open. A file that is deleted or replaced while it is open makes everything fail
/// until this process is restarted, rather than writing where nobody reads.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("revocations.db");
/// use std::time::Duration;
/// use tower_revocation::{Revocations, backend::Sqlite, denylist::Staleness, sync::SyncConfig};
///
/// let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
/// let revocations = Revocations::start(Sqlite::open(path).await?, config).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Sqlite {
    file: Arc<File>,
    namespace: Arc<str>,
    poll_interval: Duration,
}

struct File {
    path: PathBuf,
    identity: Identity,
    /// Of the write-ahead log, where acknowledged writes lie until they are copied into the file.
    log: Option<Identity>,
    /// One connection, which syncs every commit to the disk.
    writer: SqlitePool,
    /// For reading, and for writes that may be lost with the machine: heartbeats and purges.
    others: SqlitePool,
    /// Says that something was written in this process.
    written: watch::Sender<()>,
}

/// `PRAGMA application_id` of our files: "trev".
const APPLICATION_ID: i64 = 0x7472_6576;
/// What leads from each version of the schema to the next.
const MIGRATIONS: [&str; 4] = [
    include_str!("sqlite/1.sql"),
    include_str!("sqlite/2.sql"),
    include_str!("sqlite/3.sql"),
    include_str!("sqlite/4.sql"),
];

/// How long to wait for the locks of other processes.
const BUSY: Duration = Duration::from_secs(5);
const READERS: u32 = 4;
/// How many changes are read at once.
const PAGE: usize = 4096;
/// How many changes one statement inserts.
const ROWS: usize = 1000;
/// How many keys one statement looks up.
const KEYS: usize = 500;
/// How many changes are purged before writers get their turn.
const PURGED: u64 = 1000;
const HEARTBEAT: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(25);

impl Sqlite {
    /// Opens a file, or creates it (mode 0600) where there is none. Its directory must exist.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read and written, stays locked for 5 s, is damaged, is not ours, was written by a newer
    /// version, or lies where SQLite cannot promise durability. The error names the file.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref();
        let unusable = |error: io::Error| {
            let what =
                format!("opening the SQLite file {}; check that its directory exists and is writable", path.display());
            BackendError::new(BackendErrorKind::Unavailable, what).because(error)
        };
        let path = std::path::absolute(path).map_err(unusable)?;
        create(&path).map_err(unusable)?;
        let identity = identity(&path).map_err(unusable)?;

        let options = SqliteConnectOptions::new().filename(&path).busy_timeout(BUSY).disable_statement_logging();
        // A connection of the pool lives as long as the pool: it must not come back on another file.
        let pool = |most, synchronous| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .acquire_timeout(BUSY)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .connect_lazy_with(options.clone().synchronous(synchronous))
        };
        let mut file = File {
            writer: pool(1, SqliteSynchronous::Full),
            others: pool(READERS, SqliteSynchronous::Normal),
            written: watch::Sender::new(()),
            path,
            identity,
            log: None,
        };
        file.set_up().await?;
        file.log = self::identity(&file.log_path()).ok();
        file.still_there()?;
        Ok(Self { file: Arc::new(file), namespace: "default".into(), poll_interval: POLL_INTERVAL })
    }

    /// Opens the file that a URL names: `sqlite://` and its path, as it is.
    ///
    /// # Errors
    ///
    /// Where the URL is another one, and as [`Sqlite::open`].
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        match url.strip_prefix("sqlite://") {
            Some(path) if !path.is_empty() && !path.contains('?') => Self::open(path).await,
            // Not repeated: the URL of another kind of store may hold a password.
            _ => Err(BackendError::new(
                BackendErrorKind::Settings,
                "opening an SQLite file by its URL; it must be sqlite:// and a path, without parameters, \
                 as in sqlite:///var/lib/revocations.db",
            )),
        }
    }

    /// Keeps this fleet apart from others in the same file. Default: `default`.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<Arc<str>>) -> Self {
        self.namespace = name.into();
        self
    }

    /// How often to ask for what other processes wrote. Default: 25 ms, at most 500 ms.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.min(HEARTBEAT);
        self
    }

    /// One page of changes after `offset`, none later than `end`.
    async fn page(&self, offset: i64, end: i64) -> Result<Vec<(i64, Vec<u8>)>, BackendError> {
        // The plus keeps the planner on the primary key, where the order is.
        sqlx::query_as(
            "SELECT seq, record FROM changes WHERE seq > ? AND seq <= ? AND +namespace = ? ORDER BY seq LIMIT ?",
        )
        .bind(offset)
        .bind(end)
        .bind(&*self.namespace)
        .bind(PAGE as i64)
        .fetch_all(&self.file.others)
        .await
        .map_err(|error| self.file.failed("reading changes from", error))
    }
}

impl Backend for Sqlite {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        async move {
            let failed = |error| self.file.failed("agreeing on the fleet's settings in", error);
            sqlx::query("INSERT INTO meta VALUES (?, 'settings', ?) ON CONFLICT DO NOTHING")
                .bind(&*self.namespace)
                .bind(ours.encode())
                .execute(&self.file.writer)
                .await
                .map_err(failed)?;
            let settings: Vec<u8> =
                sqlx::query_scalar("SELECT value FROM meta WHERE namespace = ? AND key = 'settings'")
                    .bind(&*self.namespace)
                    .fetch_one(&self.file.writer)
                    .await
                    .map_err(failed)?;
            self.file.still_there()?;
            FleetSettings::decode(&settings)
        }
        .boxed()
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        async move {
            let failed = |error| self.file.failed("recording revocations in", error);
            let mut transaction = self.file.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            for part in batch.chunks(ROWS) {
                let mut insert = QueryBuilder::new("INSERT INTO changes (namespace, key, retain_until, record) ");
                insert.push_values(part, |mut row, change| {
                    row.push_bind(&*self.namespace)
                        .push_bind(change.key().to_bytes().to_vec())
                        .push_bind(clamped(change.retain_until()))
                        .push_bind(change.encode());
                });
                insert.build().persistent(part.len() == 1).execute(&mut *transaction).await.map_err(failed)?;
            }
            let head = head(&mut *transaction).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            self.file.still_there()?;
            self.file.written.send_replace(());
            Ok(head.position())
        }
        .boxed()
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        // No store has the incarnation "": without a place to resume from, the feed starts over.
        let reached = from.map_or(Head { incarnation: String::new(), seq: 0 }, |from| Head {
            incarnation: from.incarnation().to_owned(),
            seq: i64::try_from(from.offset()).unwrap_or(i64::MAX),
        });
        let feed = Feed {
            store: self,
            clock,
            reached,
            ready: VecDeque::new(),
            written: self.file.written.subscribe(),
            at_end: false,
            in_step: None,
        };
        stream::try_unfold(feed, |mut feed| async move { Ok(Some((feed.next().await?, feed))) }).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        async move {
            let mut found = Vec::new();
            for part in keys.chunks(KEYS) {
                let mut query = QueryBuilder::new("SELECT seq, record FROM changes WHERE namespace = ");
                query.push_bind(&*self.namespace).push(" AND key IN (");
                let mut list = query.separated(", ");
                for key in part {
                    list.push_bind(key.to_bytes().to_vec());
                }
                query.push(") ORDER BY seq");
                let rows: Vec<(i64, Vec<u8>)> = query
                    .build_query_as()
                    .persistent(part.len() == 1)
                    .fetch_all(&self.file.others)
                    .await
                    .map_err(|error| self.file.failed("looking up revocations in", error))?;
                for (seq, record) in rows {
                    found.push(Change::decode(&record).map_err(|why| {
                        let what = format!("looking up {}; repair or remove it", self.file.record(seq));
                        BackendError::new(BackendErrorKind::Corrupt, what).because(why)
                    })?);
                }
            }
            self.file.still_there()?;
            Ok(found)
        }
        .boxed()
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        async move {
            let failed = |error| self.file.failed("announcing a node in", error);
            let unreadable = |error| {
                let what = format!("reading what nodes announced in the SQLite file {}", self.file.path.display());
                BackendError::new(BackendErrorKind::Corrupt, what).because(error)
            };
            let status = serde_json::to_string(node).map_err(unreadable)?;
            let mut transaction = self.file.others.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            sqlx::query("INSERT OR REPLACE INTO nodes (namespace, node, status) VALUES (?, ?, ?)")
                .bind(&*self.namespace)
                .bind(node.key())
                .bind(status)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            let all: Vec<String> = sqlx::query_scalar("SELECT status FROM nodes WHERE namespace = ? ORDER BY node")
                .bind(&*self.namespace)
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            self.file.still_there()?;
            all.iter().map(|status| serde_json::from_str(status).map_err(unreadable)).collect()
        }
        .boxed()
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let unreadable = |error| {
                let what = format!("taking a node off the list in the SQLite file {}", self.file.path.display());
                BackendError::new(BackendErrorKind::Corrupt, what).because(error)
            };
            sqlx::query("DELETE FROM nodes WHERE namespace = ? AND node = ? AND status = ?")
                .bind(&*self.namespace)
                .bind(node.key())
                .bind(serde_json::to_string(node).map_err(unreadable)?)
                .execute(&self.file.others)
                .await
                .map_err(|error| self.file.failed("taking a node off the list in", error))?;
            self.file.still_there()
        }
        .boxed()
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        async move {
            let failed = |error| self.file.failed("claiming a message in", error);
            let digest = claim.digest();
            let mut transaction = self.file.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            let held: Option<(Vec<u8>, bool)> =
                sqlx::query_as("SELECT message, finished FROM claims WHERE namespace = ? AND digest = ?")
                    .bind(&*self.namespace)
                    .bind(&digest[..])
                    .fetch_optional(&mut *transaction)
                    .await
                    .map_err(failed)?;
            let outcome = match held {
                Some((message, finished)) => claim.against(&message, finished),
                None => {
                    sqlx::query(
                        "INSERT INTO claims (namespace, digest, until, message, finished) VALUES (?, ?, ?, ?, 0)",
                    )
                    .bind(&*self.namespace)
                    .bind(&digest[..])
                    .bind(clamped(claim.until))
                    .bind(&claim.message[..])
                    .execute(&mut *transaction)
                    .await
                    .map_err(failed)?;
                    Claim::First
                }
            };
            transaction.commit().await.map_err(failed)?;
            self.file.still_there()?;
            Ok(outcome)
        }
        .boxed()
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            sqlx::query(
                "INSERT INTO claims (namespace, digest, until, message, finished) VALUES (?, ?, ?, ?, 1) \
                 ON CONFLICT DO UPDATE SET finished = 1",
            )
            .bind(&*self.namespace)
            .bind(&claim.digest()[..])
            .bind(clamped(claim.until))
            .bind(&claim.message[..])
            .execute(&self.file.writer)
            .await
            .map_err(|error| self.file.failed("finishing a message in", error))?;
            self.file.still_there()
        }
        .boxed()
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            sqlx::query("INSERT OR REPLACE INTO intents (namespace, id, record) VALUES (?, ?, ?)")
                .bind(&*self.namespace)
                .bind(intent.id.cast_signed())
                .bind(&*intent.record)
                .execute(&self.file.writer)
                .await
                .map_err(|error| self.file.failed("announcing what is to be recorded in", error))?;
            self.file.still_there()
        }
        .boxed()
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        async move {
            sqlx::query("DELETE FROM intents WHERE namespace = ? AND id = ?")
                .bind(&*self.namespace)
                .bind(id.cast_signed())
                .execute(&self.file.writer)
                .await
                .map_err(|error| self.file.failed("settling what was to be recorded in", error))?;
            self.file.still_there()
        }
        .boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        async move {
            let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT id, record FROM intents WHERE namespace = ?")
                .bind(&*self.namespace)
                .fetch_all(&self.file.others)
                .await
                .map_err(|error| self.file.failed("looking for what was to be recorded in", error))?;
            self.file.still_there()?;
            Ok(rows.into_iter().map(|(id, record)| Intent::stored(id.cast_unsigned(), record)).collect())
        }
        .boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        async move {
            sqlx::query("DELETE FROM claims WHERE namespace = ? AND until < ?")
                .bind(&*self.namespace)
                .bind(clamped(before))
                .execute(&self.file.others)
                .await
                .map_err(|error| self.file.failed("purging expired claims from", error))?;
            let mut purged = 0;
            loop {
                let part = sqlx::query(
                    "DELETE FROM changes WHERE seq IN \
                     (SELECT seq FROM changes WHERE namespace = ? AND retain_until < ? LIMIT ?)",
                )
                .bind(&*self.namespace)
                .bind(clamped(before))
                .bind(PURGED as i64)
                .execute(&self.file.others)
                .await
                .map_err(|error| self.file.failed("purging expired revocations from", error))?
                .rows_affected();
                purged += part;
                if part < PURGED {
                    return Ok(purged);
                }
            }
        }
        .boxed()
    }

    fn durability(&self) -> Durability {
        Durability::Machine
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.file.path).field("namespace", &self.namespace).finish()
    }
}

/// One run of [`Backend::follow`].
struct Feed<'a> {
    store: &'a Sqlite,
    clock: &'a dyn Clock,
    reached: Head,
    /// What has been read and not yet been said.
    ready: VecDeque<Event>,
    written: watch::Receiver<()>,
    /// Whether the last look reached the end.
    at_end: bool,
    /// When it was last said that all is delivered.
    in_step: Option<Instant>,
}

impl Feed<'_> {
    async fn next(&mut self) -> Result<Event, BackendError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.at_end {
                // Other processes are not heard: time-outs are what finds their writes.
                let _ = tokio::time::timeout(self.store.poll_interval, self.written.changed()).await;
            }
            self.look().await?;
        }
    }

    /// Reads what is new, up to a page.
    async fn look(&mut self) -> Result<(), BackendError> {
        let file = &*self.store.file;
        self.written.mark_unchanged();
        let as_of = self.clock.now();
        let head = head(&file.others).await.map_err(|error| file.failed("following", error))?;
        if self.reached.incarnation == head.incarnation && self.reached.seq > head.seq {
            // What we had read is gone: the file was restored from a backup.
            file.begin_another_life(&self.reached).await?;
            return Ok(());
        }
        if self.reached.incarnation != head.incarnation {
            self.reached = Head { incarnation: head.incarnation.clone(), seq: 0 };
            self.in_step = None;
            self.ready.push_back(Event::Snapshot);
        }
        let rows = match self.reached.seq < head.seq {
            true => self.store.page(self.reached.seq, head.seq).await?,
            false => Vec::new(),
        };
        let full = rows.len() == PAGE;
        let end = rows.last().filter(|_| full).map_or(head.seq, |(seq, _)| *seq);
        self.deliver(rows);
        let moved = self.reached.seq < end;
        self.reached.seq = end;
        self.at_end = end == head.seq;
        if self.at_end && (moved || self.in_step.is_none_or(|said| said.elapsed() >= HEARTBEAT)) {
            file.still_there()?;
            self.ready.push_back(Event::CaughtUp { position: self.reached.position(), as_of });
            self.in_step = Some(Instant::now());
        }
        Ok(())
    }

    fn deliver(&mut self, rows: Vec<(i64, Vec<u8>)>) {
        let mut changes = Vec::with_capacity(rows.len());
        for (seq, record) in rows {
            match Change::decode(&record) {
                Ok(change) => changes.push(change),
                Err(why) => self.ready.push_back(Event::Unreadable { name: self.store.file.record(seq), why }),
            }
        }
        if !changes.is_empty() {
            self.ready.push_back(Event::Changes(changes));
        }
    }
}

/// The number of the last change ever stored, in one life of the file.
struct Head {
    incarnation: String,
    seq: i64,
}

impl Head {
    fn position(&self) -> Position {
        Position::new(self.incarnation.clone(), u128::from(self.seq.unsigned_abs()))
    }
}

async fn head(connection: impl SqliteExecutor<'_>) -> Result<Head, sqlx::Error> {
    let (incarnation, seq) = sqlx::query_as(
        "SELECT value, COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0) \
         FROM meta WHERE namespace = '' AND key = 'incarnation'",
    )
    .fetch_one(connection)
    .await?;
    Ok(Head { incarnation, seq })
}

impl File {
    /// Brings the schema up to date, and makes sure that the file can keep its promises.
    async fn set_up(&self) -> Result<(), BackendError> {
        let failed = |error| self.failed("opening", error);
        let mut writer = self.writer.acquire().await.map_err(failed)?;
        self.migrate(&mut writer).await?;

        let begun = Instant::now();
        let mode = loop {
            // SQLite does not wait for the lock here.
            match sqlx::query_scalar::<_, String>("PRAGMA journal_mode = WAL").fetch_one(&mut *writer).await {
                Err(error) if code(&error) == Some(5) && begun.elapsed() < BUSY => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                mode => break mode.map_err(failed)?,
            }
        };
        if mode != "wal" {
            return Err(self.unfit(&format!("its journal mode stays {mode} and must be wal; move it to a local disk")));
        }
        let synchronous: i64 =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *writer).await.map_err(failed)?;
        if synchronous != 2 {
            return Err(self.unfit(&format!("synchronous is {synchronous} and must be 2 (FULL)")));
        }
        // The first look makes the write-ahead log, so that it can be told from another one later.
        sqlx::query("SELECT count(*) FROM meta").execute(&mut *writer).await.map(drop).map_err(failed)
    }

    async fn migrate(&self, writer: &mut SqliteConnection) -> Result<(), BackendError> {
        let failed = |error| self.failed("opening", error);
        // Also where there is nothing to do: it finds out whether the file can be written at all.
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let (application, version, tables): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), \
             (SELECT count(*) FROM sqlite_schema)",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
        let ours = application == APPLICATION_ID;
        if !ours && (application, version, tables) != (0, 0, 0) {
            return Err(self.unfit("it is the database of another program; name another file"));
        }
        let todo = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..)).ok_or_else(|| {
            self.unfit(&format!(
                "a newer version wrote it (its schema is {version}, this program knows up to {}); upgrade this program",
                MIGRATIONS.len()
            ))
        })?;
        for migration in todo {
            sqlx::raw_sql(*migration).execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// Gives the file, restored from a backup, an incarnation of its own, so that every node starts over.
    async fn begin_another_life(&self, known: &Head) -> Result<(), BackendError> {
        sqlx::query(
            "UPDATE meta SET value = lower(hex(randomblob(8))) \
             WHERE namespace = '' AND key = 'incarnation' AND value = ? \
             AND COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0) < ?",
        )
        .bind(&known.incarnation)
        .bind(known.seq)
        .execute(&self.writer)
        .await
        .map(drop)
        .map_err(|error| self.failed("starting over after a restore of", error))
    }

    fn log_path(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push("-wal");
        path.into()
    }

    /// What is written to a file that has lost its name is lost with it.
    fn still_there(&self) -> Result<(), BackendError> {
        let lost = |what: &str| {
            let path = self.path.display();
            let what = format!("the SQLite file {path} {what} while it was open; put it back, or restart this process");
            BackendError::new(BackendErrorKind::Unavailable, what)
        };
        let log_is_ours = || self.log.is_none() || identity(&self.log_path()).ok() == self.log;
        match identity(&self.path) {
            Ok(identity) if identity == self.identity && !log_is_ours() => Err(lost("lost its write-ahead log")),
            Ok(identity) if identity == self.identity => Ok(()),
            Ok(_) => Err(lost("was replaced")),
            Err(error) => Err(lost("went out of reach").because(error)),
        }
    }

    /// What names a record for an operator.
    fn record(&self, seq: i64) -> String {
        format!("{} changes.seq={seq}", self.path.display())
    }

    fn unfit(&self, why: &str) -> BackendError {
        BackendError::new(BackendErrorKind::Settings, format!("opening the SQLite file {}: {why}", self.path.display()))
    }

    fn failed(&self, doing: &str, error: sqlx::Error) -> BackendError {
        use BackendErrorKind::{Corrupt, Unavailable};
        let (kind, advice) = match code(&error) {
            Some(5 | 6) => (Unavailable, "another process holds its lock; try again"),
            Some(8) => (Unavailable, "it is read-only; make the file and its directory writable"),
            Some(11) => (Corrupt, "it is damaged; restore it from a backup"),
            Some(13) => (Unavailable, "the disk is full; free some space"),
            Some(14) => (Unavailable, "check that its directory is there and writable"),
            Some(26) => (Corrupt, "it is no SQLite database; name another file, or restore it from a backup"),
            _ => (Unavailable, "check the disk that it lies on"),
        };
        BackendError::new(kind, format!("{doing} the SQLite file {}: {advice}", self.path.display())).because(error)
    }
}

/// SQLite's primary result code.
fn code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// SQLite's integers are signed. Nothing is kept for less long by that.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes an empty file that only its owner can read, unless there is a file.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    // Closing a file drops all locks that this process has on it, SQLite's too: nobody may open it meanwhile.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What tells a file from another one in its place.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|_| (0, 0))
}
