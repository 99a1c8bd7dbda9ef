use std::{fmt, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use sqlx::{
    AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Pool, Row as _, SqlSafeStr as _,
    Statement as _, Type, pool::PoolOptions,
};

use super::{Directory, DirectoryError, User};

/// Users, sessions and tokens from an application's own database, SQLite or PostgreSQL. It is only read.
#[cfg_attr(
    feature = "sqlite",
    doc = r#"
```
# #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
# let folder = tempfile::tempdir()?;
# let path = folder.path().join("directory.db");
# let url = format!("sqlite://{}", path.display());
# let pool = sqlx::SqlitePool::connect(&format!("{url}?mode=rwc")).await?;
# sqlx::query("CREATE TABLE users (issuer, sub, attribute, value, position)").execute(&pool).await?;
# sqlx::query("CREATE TABLE sessions (issuer, sub, sid)").execute(&pool).await?;
use tower_revocation::directory::{SqlDirectory, SqlStatements};

let mut statements = SqlStatements::default();
statements.find_users =
    Some("SELECT issuer, sub FROM users WHERE attribute = $1 AND value = $2 ORDER BY position".to_owned());
statements.sessions_of_subject = Some("SELECT sid FROM sessions WHERE issuer = $1 AND sub = $2".to_owned());
let directory = SqlDirectory::connect(&url, statements).await?;
# let _ = directory; Ok(()) }
```
"#
)]
pub struct SqlDirectory {
    pool: AnyPool,
    statements: SqlStatements,
}

enum AnyPool {
    #[cfg(feature = "sqlite")]
    Sqlite(Pool<sqlx::Sqlite>),
    #[cfg(feature = "postgres")]
    Postgres(Pool<sqlx::Postgres>),
}

/// What [`SqlDirectory`] asks: parameters are `$1` and `$2`, bound as text; columns are read by position, as text that
/// is never NULL (cast what is not text: `id::text`). A statement that is left out finds nothing. They come from
/// whoever configures the directory, never from a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqlStatements {
    /// By attribute and value: the issuer and the `sub` of users, first match first.
    pub find_users: Option<String>,
    /// By issuer and `sub`: the user's `sid`s.
    pub sessions_of_subject: Option<String>,
    /// By issuer and `jti`: the token's `sid`.
    pub session_of_token: Option<String>,
}

/// How many connections are open at once.
const CONNECTIONS: u32 = 4;

/// How long a connection, and then an answer, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl SqlDirectory {
    /// Opens a database by its URL, `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`, and checks the
    /// statements against it.
    ///
    /// Over a network, end the URL in `?sslmode=verify-full&sslrootcert=PATH`: by default PostgreSQL's clients take
    /// any certificate, and go without TLS where the server has none.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened for reading, or a statement does not fit it. The error names the URL without its
    /// password, or the statement.
    pub async fn connect(url: &str, statements: SqlStatements) -> Result<Self, DirectoryError> {
        let pool = AnyPool::connect(url).await?;
        let this = Self { pool, statements };
        this.check::<2>("find_users", this.statements.find_users.as_deref()).await?;
        this.check::<1>("sessions_of_subject", this.statements.sessions_of_subject.as_deref()).await?;
        this.check::<1>("session_of_token", this.statements.session_of_token.as_deref()).await?;
        Ok(this)
    }

    /// Whether a statement can be prepared, has the columns that are read, and may be asked.
    async fn check<const N: usize>(&self, what: &'static str, statement: Option<&str>) -> Result<(), DirectoryError> {
        let Some(sql) = statement else { return Ok(()) };
        let fits = async {
            match &self.pool {
                #[cfg(feature = "sqlite")]
                AnyPool::Sqlite(pool) => prepare::<_, N>(pool, sql, false).await,
                #[cfg(feature = "postgres")]
                AnyPool::Postgres(pool) => prepare::<_, N>(pool, sql, true).await,
            }
        };
        let fits = in_time(fits).await;
        fits.map_err(|error| DirectoryError::new(format!("the users' database: the statement {what}")).because(error))?;
        // Nobody has these names; what matters is that it can be asked.
        self.ask::<N>(what, statement, ["", ""]).await.map(drop)
    }

    async fn ask<const N: usize>(
        &self,
        what: &'static str,
        statement: Option<&str>,
        parameters: [&str; 2],
    ) -> Result<Vec<[String; N]>, DirectoryError> {
        let Some(sql) = statement else { return Ok(Vec::new()) };
        let rows = async {
            match &self.pool {
                #[cfg(feature = "sqlite")]
                AnyPool::Sqlite(pool) => fetch(pool, sql, parameters).await,
                #[cfg(feature = "postgres")]
                AnyPool::Postgres(pool) => fetch(pool, sql, parameters).await,
            }
        };
        let rows = in_time(rows).await;
        rows.map_err(|error| DirectoryError::new(format!("asking the users' database ({what})")).because(error))
    }
}

impl AnyPool {
    async fn connect(url: &str) -> Result<Self, DirectoryError> {
        let failed = |error: sqlx::Error| {
            let what = format!("connecting to the users' database {}; check its URL, and that it runs", shown(url));
            DirectoryError::new(what).because(error)
        };
        match url.split(':').next() {
            #[cfg(feature = "sqlite")]
            Some("sqlite") => {
                let options = url.parse::<sqlx::sqlite::SqliteConnectOptions>().map_err(failed)?.read_only(true);
                pool().connect_with(options).await.map(Self::Sqlite).map_err(failed)
            }
            #[cfg(feature = "postgres")]
            Some("postgres" | "postgresql") => {
                let options = url.parse::<sqlx::postgres::PgConnectOptions>().map_err(failed)?;
                let options = options.options([("default_transaction_read_only", "on")]);
                pool().connect_with(options).await.map(Self::Postgres).map_err(failed)
            }
            _ => {
                let kinds: &[&str] = &[
                    #[cfg(feature = "sqlite")]
                    "sqlite://PATH",
                    #[cfg(feature = "postgres")]
                    "postgres://USER:PASSWORD@HOST/DATABASE",
                ];
                Err(DirectoryError::new(format!("the users' database: its URL is not like {}", kinds.join(" or "))))
            }
        }
    }
}

fn pool<DB: Database>() -> PoolOptions<DB> {
    PoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(PATIENCE)
}

/// A URL without its password and options. A `?` before an `@` may be either's: nothing of that is shown.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let until = |text: &str, ends: &[char]| text.split(ends).next().unwrap_or_default().to_owned();
    let place = match rest.rsplit_once('@') {
        Some((user, _)) if user.contains(['?', '#']) => "…".to_owned(),
        Some((user, place)) => format!("{}@{}", until(user, &[':', '/']), until(place, &['?', '#'])),
        None => until(rest, &['?', '#']),
    };
    format!("{scheme}://{place}")
}

async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(2 * PATIENCE, answer).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

async fn prepare<DB: Database, const N: usize>(pool: &Pool<DB>, sql: &str, typed: bool) -> Result<(), sqlx::Error>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    String: Type<DB>,
{
    let text = <String as Type<DB>>::type_info();
    let statement = pool.prepare_with(AssertSqlSafe(sql).into_sql_str(), &[text.clone(), text]).await?;
    let columns = statement.columns();
    if columns.len() < N {
        return Err(sqlx::Error::ColumnIndexOutOfBounds { index: N - 1, len: columns.len() });
    }
    let other = |column: &&DB::Column| !<String as Type<DB>>::compatible(sqlx::Column::type_info(*column));
    match columns.iter().take(N).find(other).filter(|_| typed) {
        Some(column) => {
            let name = sqlx::Column::name(column);
            Err(sqlx::Error::Decode(format!("the column {name} is not text; cast it: {name}::text").into()))
        }
        None => Ok(()),
    }
}

async fn fetch<DB: Database, const N: usize>(
    pool: &Pool<DB>,
    sql: &str,
    parameters: [&str; 2],
) -> Result<Vec<[String; N]>, sqlx::Error>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    String: for<'t> Encode<'t, DB> + for<'r> Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let [first, second] = parameters.map(str::to_owned);
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(first).bind(second).fetch_all(pool).await?;
    let read = |row: &DB::Row| {
        let mut columns = [const { String::new() }; N];
        for (index, column) in columns.iter_mut().enumerate() {
            *column = row.try_get(index)?;
        }
        Ok(columns)
    };
    rows.iter().map(read).collect()
}

impl Directory for SqlDirectory {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        async move {
            let rows = self.ask("find_users", self.statements.find_users.as_deref(), [attribute, value]).await?;
            let ours = rows.into_iter().filter(|[iss, _]| issuers.contains(iss));
            Ok(ours.map(|[iss, sub]| User { iss, sub }).collect())
        }
        .boxed()
    }

    fn sessions_of<'a>(&'a self, user: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        async move {
            let statement = self.statements.sessions_of_subject.as_deref();
            let rows = self.ask("sessions_of_subject", statement, [&user.iss, &user.sub]).await?;
            Ok(rows.into_iter().map(|[sid]| sid).collect())
        }
        .boxed()
    }

    fn session_of_token<'a>(
        &'a self,
        iss: &'a str,
        jti: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        async move {
            let rows = self.ask("session_of_token", self.statements.session_of_token.as_deref(), [iss, jti]).await?;
            Ok(rows.into_iter().next().map(|[sid]| sid))
        }
        .boxed()
    }
}

impl fmt::Debug for SqlDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlDirectory").field("statements", &self.statements).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, expected) in [
            ("postgres://app:s3cret@db.example:5432/users?password=x", "postgres://app@db.example:5432/users"),
            ("postgres://app:s3/c@r@db/users", "postgres://app@db/users"),
            ("postgres://app:s3?c@db/users", "postgres://…"),
            ("postgres://db/users?password=s3cret", "postgres://db/users"),
            ("postgres:///users?host=/run&password=s3@cret:", "postgres://…"),
            ("sqlite://users.db?mode=ro", "sqlite://users.db"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
