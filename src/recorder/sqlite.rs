use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use sqlx::{
    ConnectOptions, QueryBuilder, Row as _, Sqlite, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use tokio::time::Instant;

use super::{
    Ended, Grant, Member, MemberKind, Recorded, RecorderStore,
    reach::{name, names_of},
};
use crate::{
    backend::{BackendError, BackendErrorKind, create_private},
    revocation::{Scope, ScopeKind},
};

/// What a recorder has learnt, in one SQLite file of its own, for the processes of one machine.
///
/// What is recorded survives `kill -9` and a loss of power (WAL with `synchronous = FULL`). The file must lie on a
/// local disk. It holds digests and names of tokens, never tokens. Clones share their connection.
#[derive(Clone)]
pub struct SqliteStore {
    path: PathBuf,
    /// One connection: its transactions come one after the other.
    pool: SqlitePool,
}

/// `PRAGMA application_id` of our files: "trer".
const APPLICATION_ID: i64 = 0x7472_6572;
/// What leads from each version of the schema to the next.
const MIGRATIONS: [&str; 1] = [include_str!("1.sql")];
/// How long to wait for the locks of other processes.
const BUSY: Duration = Duration::from_secs(5);
/// How many values one statement looks up: SQLite takes 32,766.
const VALUES: usize = 1000;
const GRANT: &str = "SELECT id, iss, sid, sub, client_id, began, expires, offline, ended FROM grants";

impl SqliteStore {
    /// Opens a file, or creates it (mode 0600) where there is none. Its directory must exist.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read and written, stays locked for 5 s, is not a recorder's, or was written by a newer
    /// version. The error names the file.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, BackendError> {
        let path = path.as_ref().to_owned();
        create_private(&path).map_err(|error| {
            let what = format!("opening the recorder's file {}; check that its directory exists", path.display());
            BackendError::new(BackendErrorKind::Unavailable, what).because(error)
        })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(BUSY)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let this = Self { path, pool };
        this.connect().await?;
        this.migrate().await?;
        Ok(this)
    }

    async fn connect(&self) -> Result<(), BackendError> {
        let begun = Instant::now();
        loop {
            match self.pool.acquire().await {
                // SQLite does not wait for the lock when a file becomes a WAL file.
                Err(error) if is_busy(&error) && begun.elapsed() < BUSY => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                connection => return connection.map(drop).map_err(|error| self.failed("opening", error)),
            }
        }
    }

    async fn migrate(&self) -> Result<(), BackendError> {
        let failed = |error| self.failed("opening", error);
        let unfit = |why: &str| {
            let what = format!("opening the recorder's file {}: {why}", self.path.display());
            BackendError::new(BackendErrorKind::Settings, what)
        };
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        let (application, version, tables): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), \
             (SELECT count(*) FROM sqlite_schema)",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
        if application != APPLICATION_ID && (application, version, tables) != (0, 0, 0) {
            return Err(unfit("it is the database of another program; name another file"));
        }
        let todo = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..));
        for migration in todo.ok_or_else(|| unfit("a newer version wrote it; upgrade this program"))? {
            sqlx::raw_sql(*migration).execute(&mut *transaction).await.map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    fn failed(&self, doing: &str, error: sqlx::Error) -> BackendError {
        let what = format!("{doing} the recorder's file {}; check the disk that it lies on", self.path.display());
        BackendError::new(BackendErrorKind::Unavailable, what).because(error)
    }

    async fn end_all(&self, scopes: &[Scope]) -> Result<Vec<Ended>, sqlx::Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let grants = grants_of(&mut transaction, scopes).await?;
        let mut members: HashMap<String, Vec<Member>> = HashMap::new();
        for grants in grants.chunks(VALUES) {
            let among = |start| {
                let mut query = QueryBuilder::<Sqlite>::new(start);
                let mut list = query.separated(", ");
                for grant in grants {
                    list.push_bind(&grant.id);
                }
                query.push(")");
                query
            };
            among("UPDATE grants SET ended = 1 WHERE id IN (").build().execute(&mut *transaction).await?;
            let mut query =
                among("SELECT token, alias, kind, expires, spent, says, grant_id FROM members WHERE grant_id IN (");
            for row in query.build().fetch_all(&mut *transaction).await? {
                members.entry(row.try_get(6)?).or_default().push(member(&row, 0)?);
            }
        }
        transaction.commit().await?;
        let ended = |grant: Grant| Ended::new(Grant { ended: true, ..grant }, Vec::new());
        let mut all = grants.into_iter().map(ended).collect::<Vec<_>>();
        all.iter_mut().for_each(|ended| ended.members = members.remove(&ended.grant.id).unwrap_or_default());
        Ok(all)
    }

    async fn record_all(&self, grant: &Grant, members: &[Member]) -> Result<Recorded, sqlx::Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let ended: Option<bool> = sqlx::query_scalar("SELECT ended FROM grants WHERE id = ?")
            .bind(&grant.id)
            .fetch_optional(&mut *transaction)
            .await?;
        if ended == Some(true) {
            return Ok(Recorded::Ended);
        }
        sqlx::query(
            "INSERT INTO grants (id, iss, sid, sub, client_id, began, expires, offline, ended) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET sid = COALESCE(sid, excluded.sid), \
             sub = COALESCE(sub, excluded.sub), client_id = COALESCE(client_id, excluded.client_id), \
             expires = MAX(expires, excluded.expires), offline = MAX(offline, excluded.offline)",
        )
        .bind(&grant.id)
        .bind(&grant.iss)
        .bind(&grant.sid)
        .bind(&grant.sub)
        .bind(&grant.client_id)
        .bind(clamped(grant.began))
        .bind(clamped(grant.expires))
        .bind(grant.offline)
        .bind(grant.ended)
        .execute(&mut *transaction)
        .await?;
        for member in members {
            match known(&mut transaction, member).await? {
                Some((_, owner)) if owner != grant.id => return Ok(Recorded::Conflict),
                Some((token, _)) => extend(&mut transaction, &token, member.expires).await?,
                None => insert(&mut transaction, &grant.id, member).await?,
            }
        }
        transaction.commit().await?;
        Ok(Recorded::Done)
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// The grants that any of these scopes is about, each once. Scopes that one index answers are looked up together.
async fn grants_of(connection: &mut SqliteConnection, scopes: &[Scope]) -> Result<Vec<Grant>, sqlx::Error> {
    let mut queries: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for scope in scopes {
        let conditions: &[(&str, &str)] = match scope.kind() {
            ScopeKind::Session | ScopeKind::ClientSession => &[("sid IN (", ")"), ("id IN (", ")")],
            ScopeKind::Subject | ScopeKind::SubjectClient => &[("sub IN (", ")")],
            ScopeKind::Client => &[("client_id IN (", ")")],
            ScopeKind::Issuer => &[("iss IN (", ")")],
            ScopeKind::Token | ScopeKind::SigningInput | ScopeKind::OpaqueToken => &[
                ("id IN (SELECT grant_id FROM members WHERE token IN (", "))"),
                ("id IN (SELECT grant_id FROM members WHERE alias IN (", "))"),
            ],
        };
        let (iss, value) = match name(scope) {
            Some((ScopeKind::Issuer, [iss, ..])) => (Some(iss), iss.to_owned()),
            Some((_, [iss, value, _])) => (Some(iss), value.to_owned()),
            None => (None, key(scope)),
        };
        for condition in conditions {
            queries.entry((iss, condition)).or_default().push(value.clone());
        }
    }
    let wanted = scopes.iter().filter_map(name).collect::<HashSet<_>>();
    let mut found = HashMap::new();
    for ((iss, (condition, end)), values) in queries {
        for values in values.chunks(VALUES) {
            let mut query = QueryBuilder::<Sqlite>::new(GRANT);
            query.push(" WHERE ");
            if let Some(iss) = iss {
                query.push("iss = ").push_bind(iss).push(" AND ");
            }
            query.push(*condition);
            let mut list = query.separated(", ");
            for value in values {
                list.push_bind(value);
            }
            query.push(*end);
            for row in query.build().persistent(values.len() == 1).fetch_all(&mut *connection).await? {
                let grant = grant(&row)?;
                // What the index cannot tell apart.
                if iss.is_none() || names_of(&grant).any(|name| wanted.contains(&name)) {
                    found.insert(grant.id.clone(), grant);
                }
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The name and the grant of a token that is there already.
async fn known(connection: &mut SqliteConnection, member: &Member) -> Result<Option<(String, String)>, sqlx::Error> {
    for name in std::iter::once(&member.token).chain(&member.alias) {
        let found = sqlx::query_as("SELECT token, grant_id FROM members WHERE token = ?1 OR alias = ?1")
            .bind(key(name))
            .fetch_optional(&mut *connection)
            .await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

async fn extend(connection: &mut SqliteConnection, token: &str, expires: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE members SET expires = ?1 WHERE token = ?2 AND expires < ?1")
        .bind(clamped(expires))
        .bind(token)
        .execute(connection)
        .await
        .map(drop)
}

async fn insert(connection: &mut SqliteConnection, grant: &str, member: &Member) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO members (token, alias, grant_id, kind, expires, spent, says) VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(key(&member.token))
        .bind(member.alias.as_ref().map(key))
        .bind(grant)
        .bind(kind(member.kind))
        .bind(clamped(member.expires))
        .bind(member.spent)
        // Strings and numbers only: nothing here can fail to serialise.
        .bind(serde_json::to_string(&member.says).unwrap_or_default())
        .execute(connection)
        .await
        .map(drop)
}

impl RecorderStore for SqliteStore {
    fn record<'a>(&'a self, grant: &'a Grant, members: &'a [Member]) -> BoxFuture<'a, Result<Recorded, BackendError>> {
        async move { self.record_all(grant, members).await.map_err(|error| self.failed("recording in", error)) }.boxed()
    }

    fn find<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<Option<(Grant, Member)>, BackendError>> {
        async move {
            let row = sqlx::query(
                "SELECT id, iss, sid, sub, client_id, began, grants.expires, offline, ended, \
                 token, alias, kind, members.expires, spent, says \
                 FROM members JOIN grants ON grants.id = grant_id WHERE token = ?1 OR alias = ?1",
            )
            .bind(key(token))
            .fetch_optional(&self.pool)
            .await;
            let found = row.and_then(|row| row.map(|row| Ok((grant(&row)?, member(&row, 9)?))).transpose());
            found.map_err(|error| self.failed("reading", error))
        }
        .boxed()
    }

    fn grants<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Grant>, BackendError>> {
        async move {
            let grants = async { grants_of(&mut *self.pool.acquire().await?, scopes).await };
            grants.await.map_err(|error| self.failed("reading", error))
        }
        .boxed()
    }

    fn members<'a>(&'a self, grant: &'a str) -> BoxFuture<'a, Result<Vec<Member>, BackendError>> {
        async move {
            let rows = sqlx::query("SELECT token, alias, kind, expires, spent, says FROM members WHERE grant_id = ?")
                .bind(grant)
                .fetch_all(&self.pool)
                .await;
            let members = rows.and_then(|rows| rows.iter().map(|row| member(row, 0)).collect());
            members.map_err(|error| self.failed("reading", error))
        }
        .boxed()
    }

    fn end<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Ended>, BackendError>> {
        async move { self.end_all(scopes).await.map_err(|error| self.failed("revoking in", error)) }.boxed()
    }

    fn spend<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<bool, BackendError>> {
        async move {
            let spent = sqlx::query("UPDATE members SET spent = 1 WHERE (token = ?1 OR alias = ?1) AND spent = 0")
                .bind(key(token))
                .execute(&self.pool)
                .await;
            spent.map(|done| done.rows_affected() > 0).map_err(|error| self.failed("recording in", error))
        }
        .boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        async move {
            let failed = |error| self.failed("purging", error);
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            let purged = sqlx::query("DELETE FROM members WHERE expires < ?")
                .bind(clamped(before))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?
                .rows_affected();
            sqlx::query("DELETE FROM grants WHERE expires < ?")
                .bind(clamped(before))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            Ok(purged)
        }
        .boxed()
    }
}

fn grant(row: &SqliteRow) -> Result<Grant, sqlx::Error> {
    Ok(Grant {
        id: row.try_get(0)?,
        iss: row.try_get(1)?,
        sid: row.try_get(2)?,
        sub: row.try_get(3)?,
        client_id: row.try_get(4)?,
        began: row.try_get::<i64, _>(5)?.unsigned_abs(),
        expires: row.try_get::<i64, _>(6)?.unsigned_abs(),
        offline: row.try_get(7)?,
        ended: row.try_get(8)?,
    })
}

fn member(row: &SqliteRow, first: usize) -> Result<Member, sqlx::Error> {
    let scope = |text: &str| serde_json::from_str::<Scope>(text).map_err(|error| sqlx::Error::Decode(error.into()));
    let kind = match row.try_get::<&str, _>(first + 2)? {
        "refresh" => MemberKind::Refresh,
        "access" => MemberKind::Access,
        _ => return Err(sqlx::Error::Decode("a token of an unknown kind".into())),
    };
    Ok(Member {
        token: scope(row.try_get(first)?)?,
        alias: row.try_get::<Option<&str>, _>(first + 1)?.map(scope).transpose()?,
        kind,
        expires: row.try_get::<i64, _>(first + 3)?.unsigned_abs(),
        spent: row.try_get(first + 4)?,
        says: serde_json::from_str(row.try_get(first + 5)?).map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

const fn kind(kind: MemberKind) -> &'static str {
    match kind {
        MemberKind::Access => "access",
        MemberKind::Refresh => "refresh",
    }
}

/// A scope as it is stored: the same for the same scope.
fn key(scope: &Scope) -> String {
    // Strings and bytes only: nothing here can fail to serialise.
    serde_json::to_string(scope).unwrap_or_default()
}

/// SQLite's integers are signed. Nothing is kept for less long by that.
fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}
