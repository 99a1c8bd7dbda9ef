use std::{
    error::Error as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    Arguments, ConnectOptions as _, Encode, Executor, FromRow, PgConnection, Postgres, Type,
    error::BoxDynError,
    postgres::{PgArguments, PgConnectOptions, PgRow},
};
use tokio::sync::Semaphore;

use super::schema::safe;
use crate::backend::{BackendError, BackendErrorKind, Durability};

/// How long a call takes at most: less than callers and followers wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// How many connections one handle and its clones have, besides one for each follower.
const CONNECTIONS: usize = 8;
/// What a URL may say besides user, host, port and database.
const PARAMETERS: [&str; 17] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Makes a session keep our promises, whatever server, database and role were set to, and says what it cannot change.
///
/// What begins a transaction and then dies, hangs or goes out of reach must not hold its locks for long.
const PREPARE: &str = "SELECT pg_is_in_recovery(), \
    current_setting('default_transaction_read_only')::boolean, \
    current_setting('fsync')::boolean AND current_setting('full_page_writes')::boolean, \
    set_config('search_path', 'pg_catalog', false), \
    set_config('synchronous_commit', \
        CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false), \
    set_config('default_transaction_isolation', 'read committed', false), \
    set_config('statement_timeout', '4s', false), \
    set_config('lock_timeout', '3s', false), \
    set_config('idle_in_transaction_session_timeout', '5s', false), \
    CASE WHEN current_setting('idle_session_timeout', true) <> '' \
        THEN set_config('idle_session_timeout', '0', false) END, \
    set_config('tcp_keepalives_idle', '5', false), \
    set_config('tcp_keepalives_interval', '2', false), \
    set_config('tcp_keepalives_count', '3', false), \
    set_config('tcp_user_timeout', '10s', false)";

/// The connections to one server.
///
/// One whose call failed, or was given up in the middle, never comes back.
pub(super) struct Sessions {
    pub(super) options: PgConnectOptions,
    idle: Mutex<Vec<PgConnection>>,
    turns: Semaphore,
    survives_its_machine: AtomicBool,
}

/// Parameters, which can be sent again.
pub(super) struct Bound(Result<PgArguments, BoxDynError>);

impl Bound {
    pub(super) fn new() -> Self {
        Self(Ok(PgArguments::default()))
    }

    #[must_use]
    pub(super) fn and<'t>(self, value: impl Encode<'t, Postgres> + Type<Postgres>) -> Self {
        Self(self.0.and_then(|mut all| Arguments::add(&mut all, value).map(|()| all)))
    }

    fn again(&self) -> Result<PgArguments, sqlx::Error> {
        self.0.as_ref().cloned().map_err(|error| sqlx::Error::Encode(error.to_string().into()))
    }
}

impl Sessions {
    pub(super) fn to(url: &str) -> Result<Self, BackendError> {
        Ok(Self {
            options: options(url)?,
            idle: Mutex::default(),
            turns: Semaphore::new(CONNECTIONS),
            survives_its_machine: AtomicBool::new(false),
        })
    }

    /// The rows that one statement returns, each statement being a transaction. Where a connection turns out to be gone, it
    /// is asked again: all that we ask is idempotent.
    pub(super) async fn ask<T>(&self, doing: &str, sql: &str, bound: Bound) -> Result<Vec<T>, BackendError>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let answer = async {
            let _turn = self.turns.acquire().await;
            if let Some(connection) = self.kept() {
                match self.ask_on(connection, sql, &bound).await {
                    Err(error) if is_lost(&error) => {}
                    answer => return answer.map_err(|error| self.failed(doing, error)),
                }
            }
            let fresh = self.open().await?;
            self.ask_on(fresh, sql, &bound).await.map_err(|error| self.failed(doing, error))
        };
        self.in_time(doing, answer).await
    }

    async fn ask_on<T>(&self, mut connection: PgConnection, sql: &str, bound: &Bound) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        // Where one hangs or breaks, the others may as well: they are left behind together.
        let mut doubt = Doubt { sessions: self, doubted: true };
        let rows = rows(&mut connection, sql, bound).await;
        doubt.doubted = rows.as_ref().is_err_and(is_lost);
        drop(doubt);
        if rows.is_ok() {
            self.keep(connection);
        }
        rows
    }

    /// A new connection, ready for use.
    pub(super) async fn open(&self) -> Result<PgConnection, BackendError> {
        let opening = async {
            let failed = |error| self.failed("connecting to", error);
            let mut connection = self.options.connect().await.map_err(failed)?;
            self.prepare(&mut connection).await?;
            Ok(connection)
        };
        self.in_time("connecting to", opening).await
    }

    /// Makes this session keep our promises.
    ///
    /// # Errors
    ///
    /// Where the server cannot.
    pub(super) async fn prepare<'c>(
        &self,
        session: impl Executor<'c, Database = Postgres>,
    ) -> Result<(), BackendError> {
        let (standby, read_only, synced): (bool, bool, bool) =
            sqlx::query_as(PREPARE).fetch_one(session).await.map_err(|error| self.failed("preparing", error))?;
        if standby {
            return Err(self.unfit("it is a standby (pg_is_in_recovery); name the primary server"));
        }
        if read_only {
            return Err(self.unfit("default_transaction_read_only is on for this role or database; turn it off"));
        }
        self.survives_its_machine.store(synced, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn durability(&self) -> Durability {
        if self.survives_its_machine.load(Ordering::Relaxed) { Durability::Machine } else { Durability::Process }
    }

    pub(super) fn keep(&self, connection: PgConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    fn kept(&self) -> Option<PgConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) async fn in_time<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| {
            let what = format!("{doing} {}: no answer within {PATIENCE:?}", self.place());
            Err(BackendError::new(BackendErrorKind::Unavailable, what))
        })
    }

    /// The server, as errors name it: never with its password.
    pub(super) fn place(&self) -> String {
        let options = &self.options;
        let (user, database) = (options.get_username(), options.get_database().unwrap_or(options.get_username()));
        match options.get_socket() {
            Some(socket) => format!("PostgreSQL at {} (user {user}, database {database})", socket.display()),
            None => format!("PostgreSQL at postgres://{user}@{}:{}/{database}", options.get_host(), options.get_port()),
        }
    }

    pub(super) fn unfit(&self, why: &str) -> BackendError {
        BackendError::new(BackendErrorKind::Settings, format!("using {}: {why}", self.place()))
    }

    pub(super) fn failed(&self, doing: &str, error: sqlx::Error) -> BackendError {
        use BackendErrorKind::{Corrupt, Settings, Unavailable};
        let code = code(&error).unwrap_or_default();
        let (kind, advice) = match code.get(..2) {
            Some("28") => (Settings, "the server refuses this user; check the password, and pg_hba.conf"),
            Some("3D") => (Settings, "there is no such database; create it"),
            Some("3F") => (Corrupt, "its schema is gone; restore it, or start again for an empty one"),
            Some("42") if code == "42501" => (Settings, "the role lacks a right; grant it"),
            Some("42") => (Corrupt, "its tables are not as they were; restore them, or start again"),
            Some("25") => (Settings, "it takes no writes; name the primary server"),
            Some("53") => (Unavailable, "it lacks connections, memory or disk; free some"),
            Some("55") => (Unavailable, "another session holds a lock; look for it in pg_locks"),
            Some("XX") => (Corrupt, "it is damaged; see its log"),
            _ if is_about_tls(&error) => (Settings, "check its certificate, sslmode and sslrootcert"),
            _ => (Unavailable, "check that it runs and can be reached"),
        };
        BackendError::new(kind, format!("{doing} {}: {advice}", self.place())).because(error)
    }
}

/// While it is open whether a connection still works, and where it does not, the ones that are kept go too.
struct Doubt<'a> {
    sessions: &'a Sessions,
    doubted: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.doubted {
            self.sessions.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

/// The rows that one statement returns.
pub(super) async fn rows<'c, T>(
    session: impl Executor<'c, Database = Postgres>,
    sql: &str,
    bound: &Bound,
) -> Result<Vec<T>, sqlx::Error>
where
    T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    sqlx::query_as_with(safe(sql), bound.again()?).fetch_all(session).await
}

/// The server's code for what went wrong (SQLSTATE).
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(Into::into)
}

/// Whether the connection has ended, so that another one may do better.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(_) => code(error).is_some_and(|code| code.starts_with("57P") || code.starts_with("08")),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}

/// A certificate that is refused comes as data that is invalid.
fn is_about_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

fn options(url: &str) -> Result<PgConnectOptions, BackendError> {
    let wrong = |why: &str| {
        let what = format!(
            "connecting to PostgreSQL by its URL: {why}; it must be like \
             postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full&sslrootcert=PATH"
        );
        BackendError::new(BackendErrorKind::Settings, what)
    };
    // Not repeated: the URL holds a password, in whichever part of it.
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(wrong("it has another scheme"));
    }
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let parameters = parameters.split('#').next().unwrap_or_default();
    let names =
        parameters.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split('=').next().unwrap_or(pair));
    for name in names {
        let bare = name.split('[').next().filter(|bare| *bare == "options" || *bare == name).unwrap_or(name);
        if !PARAMETERS.contains(&bare) {
            let shown = if url.matches('@').count() <= 1 && !parameters.contains('@') { name } else { "of it" };
            return Err(wrong(&format!("a parameter {shown:?} is not understood")));
        }
    }
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        wrong(&cause)
    })?;
    let name = options.get_application_name().unwrap_or("tower-revocation").to_owned();
    Ok(options.application_name(&name).disable_statement_logging())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_are_not_understood_are_errors_without_secrets() {
        for (url, expected) in [
            ("mysql://owner:s3cret@db/x", "another scheme"),
            ("owner:s3cret@db/x", "another scheme"),
            ("postgres://owner:s3cret@db/x?sslmod=verify-full", "\"sslmod\""),
            ("postgres://owner:s3cret@db/x?sslmode=sure", "sure"),
            ("postgres://owner:s3cret@db/x?ssl%6Dode=disable", "not understood"),
            ("postgres://owner:s3?s3cret=@db/x", "not understood"),
            ("postgres://owner:1?s3cret@db/x", "not understood"),
            ("postgres://owner:s3cret@db:port/x", "port"),
        ] {
            let error = options(url).unwrap_err();
            assert_eq!(error.kind(), BackendErrorKind::Settings, "{url}");
            let error = error.to_string();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{url}: {error}");
        }
        let options =
            options("postgresql://o:s3cret@db/x?options[geqo]=off&sslmode=require&application_name=a").unwrap();
        assert_eq!(options.get_application_name(), Some("a"));
    }
}
