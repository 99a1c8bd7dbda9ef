//! Indexes in a SQLite file.

use std::{path::Path, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _};
use sqlx::{
    ConnectOptions as _, Row as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::{
    IndexError, StatusIndex,
    index::{KEPT, TRIES, any, unix},
};
use crate::{
    backend::create_private,
    token::{Claims, Identity, VerifiedClaims as _},
};

/// Which token has which index, in one SQLite file of its own, for the processes of one machine.
///
/// What is assigned or recorded survives `kill -9` and a loss of power (WAL with `synchronous = FULL`). It holds what
/// tokens say of themselves, never tokens.
#[derive(Clone, Debug)]
pub struct SqliteIndex {
    entries: u64,
    pool: SqlitePool,
}

/// How long to wait for the locks of other processes.
const BUSY: Duration = Duration::from_secs(5);
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS status_index (idx INTEGER PRIMARY KEY, iss TEXT NOT NULL, jti TEXT, \
                      signing_input BLOB, sid TEXT, sub TEXT, client_id TEXT, iat INTEGER, auth_time INTEGER, exp INTEGER NOT NULL) STRICT; \
                      CREATE INDEX IF NOT EXISTS status_index_exp ON status_index (exp)";
/// Takes the place of a token that has long expired, and no other.
const PUT: &str = "INSERT INTO status_index (idx, iss, jti, signing_input, sid, sub, client_id, iat, auth_time, exp) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (idx) DO UPDATE SET iss = ?2, jti = ?3, \
                   signing_input = ?4, sid = ?5, sub = ?6, client_id = ?7, iat = ?8, auth_time = ?9, exp = ?10 \
                   WHERE status_index.exp < ?11 OR (iss = ?2 AND jti IS ?3 AND signing_input IS ?4 AND sid IS ?5 AND sub IS ?6 \
                   AND client_id IS ?7 AND iat IS ?8 AND auth_time IS ?9 AND exp = ?10)";
const ALL: &str =
    "SELECT idx, iss, jti, signing_input, sid, sub, client_id, iat, auth_time, exp FROM status_index WHERE exp >= ?1";

impl SqliteIndex {
    /// Opens a file, or creates it (mode 0600) where there is none, for indexes below `entries`.
    ///
    /// # Errors
    ///
    /// Where it cannot be read and written, or stays locked for 5 s. The error names the file.
    pub async fn open(path: impl AsRef<Path>, entries: u64) -> Result<Self, IndexError> {
        let path = path.as_ref();
        let failed = |error: &dyn std::fmt::Display| IndexError::Store(format!("{}: {error}", path.display()));
        create_private(path).map_err(|error| failed(&error))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(BUSY).connect_with(options).await;
        let pool = pool.map_err(|error| failed(&error))?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(|error| failed(&error))?;
        Ok(Self { entries, pool })
    }

    async fn put(&self, idx: u64, token: &Identity) -> Result<(), IndexError> {
        if idx >= self.entries {
            return Err(IndexError::OutOfRange);
        }
        let claims = token.claims();
        let exp = claims.exp.ok_or(IndexError::NoExpiry)?;
        let number = |number: u64| i64::try_from(number).map_err(|_| IndexError::OutOfRange);
        let time = |time: Option<u64>| time.map(number).transpose();
        let done = sqlx::query(PUT)
            .bind(number(idx)?)
            .bind(claims.iss)
            .bind(claims.jti)
            .bind(claims.signing_input.as_ref().map(<[u8; 32]>::as_slice))
            .bind(claims.sid)
            .bind(claims.sub)
            .bind(claims.client_id)
            .bind(time(claims.iat)?)
            .bind(time(claims.auth_time)?)
            .bind(number(exp)?)
            .bind(number(unix().saturating_sub(KEPT))?)
            .execute(&self.pool)
            .await
            .map_err(|error| IndexError::Store(error.to_string()))?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(IndexError::Taken) }
    }
}

impl StatusIndex for SqliteIndex {
    fn assign<'a>(&'a self, token: &'a Identity) -> BoxFuture<'a, Result<u64, IndexError>> {
        async move {
            for _ in 0..TRIES {
                let idx = any(self.entries);
                match self.put(idx, token).await {
                    Err(IndexError::Taken) => {}
                    put => return put.map(|()| idx),
                }
            }
            Err(IndexError::Full)
        }
        .boxed()
    }

    fn record<'a>(&'a self, idx: u64, token: &'a Identity) -> BoxFuture<'a, Result<(), IndexError>> {
        self.put(idx, token).boxed()
    }

    fn assigned(&self, now: u64) -> BoxFuture<'_, Result<Vec<(u64, Identity)>, IndexError>> {
        async move {
            let failed = |error: sqlx::Error| IndexError::Store(error.to_string());
            let since = i64::try_from(now.saturating_sub(KEPT)).map_err(|_| IndexError::OutOfRange)?;
            sqlx::query("DELETE FROM status_index WHERE exp < ?1")
                .bind(since)
                .execute(&self.pool)
                .await
                .map_err(failed)?;
            let rows = sqlx::query(ALL).bind(since).fetch_all(&self.pool).await.map_err(failed)?;
            rows.iter().map(|row| token(row).map_err(failed)).collect()
        }
        .boxed()
    }
}

fn token(row: &SqliteRow) -> Result<(u64, Identity), sqlx::Error> {
    let unreadable = || sqlx::Error::Decode("a number below zero, or a digest of another length".into());
    let number = |number: i64| u64::try_from(number).map_err(|_| unreadable());
    let time = |column: usize| row.try_get::<Option<i64>, _>(column)?.map(number).transpose();
    let text = |column: usize| row.try_get::<Option<&str>, _>(column);
    let signing_input = row.try_get::<Option<&[u8]>, _>(3)?.map(<[u8; 32]>::try_from).transpose();
    let mut claims = Claims::new(row.try_get(1)?);
    claims.jti = text(2)?;
    claims.signing_input = signing_input.map_err(|_| unreadable())?;
    claims.sid = text(4)?;
    claims.sub = text(5)?;
    claims.client_id = text(6)?;
    claims.iat = time(7)?;
    claims.auth_time = time(8)?;
    claims.exp = time(9)?;
    Ok((number(row.try_get(0)?)?, Identity::from_verified(&claims)))
}
