use std::{fmt, str::FromStr as _, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt};
use sqlx::{
    AssertSqlSafe, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use super::{Directory, DirectoryError, User};

/// Users, sessions and tokens from an application's own SQLite database. It is only read.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("directory.db");
/// # let url = format!("sqlite://{}", path.display());
/// # let pool = sqlx::SqlitePool::connect(&format!("{url}?mode=rwc")).await?;
/// # sqlx::query("CREATE TABLE users (issuer, sub, attribute, value, position)").execute(&pool).await?;
/// # sqlx::query("CREATE TABLE sessions (issuer, sub, sid)").execute(&pool).await?;
/// use tower_revocation::directory::{SqlDirectory, SqlStatements};
///
/// let mut statements = SqlStatements::default();
/// statements.find_users =
///     Some("SELECT issuer, sub FROM users WHERE attribute = ?1 AND value = ?2 ORDER BY position".to_owned());
/// statements.sessions_of_subject = Some("SELECT sid FROM sessions WHERE issuer = ?1 AND sub = ?2".to_owned());
/// let directory = SqlDirectory::open(&url, statements).await?;
/// # let _ = directory; Ok(()) }
/// ```
pub struct SqlDirectory {
    pool: SqlitePool,
    statements: SqlStatements,
}

/// What [`SqlDirectory`] asks: parameters are bound by position, columns are read by position. A statement that is left
/// out finds nothing. They come from whoever configures the directory, never from a request.
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

impl SqlDirectory {
    /// Opens a database by its URL, `sqlite://PATH`, and checks the statements against it.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened for reading, or a statement does not fit it.
    pub async fn open(url: &str, statements: SqlStatements) -> Result<Self, DirectoryError> {
        let opening = || DirectoryError::new("opening the users' database (is the URL like sqlite://PATH?)");
        let options = SqliteConnectOptions::from_str(url).map_err(|error| opening().because(error))?.read_only(true);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await;
        let this = Self { pool: pool.map_err(|error| opening().because(error))?, statements };
        // Nobody has these names; what matters is that the statements can be asked.
        let nobody = User::new("", "");
        this.find_users("", "", &[]).await?;
        this.sessions_of(&nobody).await?;
        this.session_of_token("", "").await?;
        Ok(this)
    }

    async fn ask<Row>(
        &self,
        what: &'static str,
        statement: Option<&str>,
        parameters: [&str; 2],
    ) -> Result<Vec<Row>, DirectoryError>
    where
        Row: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow> + Send + Unpin,
    {
        let Some(statement) = statement else { return Ok(Vec::new()) };
        let [first, second] = parameters.map(Arc::<str>::from);
        let rows = sqlx::query_as(AssertSqlSafe(statement)).bind(first).bind(second).fetch_all(&self.pool).await;
        rows.map_err(|error| DirectoryError::new(format!("asking the users' database ({what})")).because(error))
    }
}

impl Directory for SqlDirectory {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        async move {
            let statement = self.statements.find_users.as_deref();
            let rows: Vec<(String, String)> = self.ask("find_users", statement, [attribute, value]).await?;
            Ok(rows.into_iter().filter(|(iss, _)| issuers.contains(iss)).map(|(iss, sub)| User { iss, sub }).collect())
        }
        .boxed()
    }

    fn sessions_of<'a>(&'a self, user: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        async move {
            let statement = self.statements.sessions_of_subject.as_deref();
            let rows: Vec<(String,)> = self.ask("sessions_of_subject", statement, [&user.iss, &user.sub]).await?;
            Ok(rows.into_iter().map(|(sid,)| sid).collect())
        }
        .boxed()
    }

    fn session_of_token<'a>(
        &'a self,
        iss: &'a str,
        jti: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        async move {
            let statement = self.statements.session_of_token.as_deref();
            let rows: Vec<(String,)> = self.ask("session_of_token", statement, [iss, jti]).await?;
            Ok(rows.into_iter().next().map(|(sid,)| sid))
        }
        .boxed()
    }
}

impl fmt::Debug for SqlDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlDirectory").field("statements", &self.statements).finish_non_exhaustive()
    }
}
