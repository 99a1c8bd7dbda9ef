use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::session::{Sessions, code};
use crate::backend::{BackendError, BackendErrorKind};

/// What leads from each version of the schema to the next.
const MIGRATIONS: [&str; 1] = [include_str!("1.sql")];

/// What a node does with each table and function.
const RIGHTS: &str = "SELECT needed.what FROM (VALUES \
    ('meta', 'SELECT'), ('meta', 'INSERT'), ('meta', 'UPDATE'), \
    ('changes', 'SELECT'), ('changes', 'INSERT'), ('changes', 'DELETE'), ('changes', 'UPDATE'), \
    ('nodes', 'SELECT'), ('nodes', 'INSERT'), ('nodes', 'UPDATE'), ('nodes', 'DELETE'), \
    ('claims', 'SELECT'), ('claims', 'INSERT'), ('claims', 'UPDATE'), ('claims', 'DELETE'), \
    ('intents', 'SELECT'), ('intents', 'INSERT'), ('intents', 'UPDATE'), ('intents', 'DELETE'), \
    ('life', 'SELECT')) AS listed (name, privilege), \
    LATERAL (SELECT privilege || ' on {s}.' || name AS what, '{s}.' || name AS of) AS needed \
    WHERE NOT has_table_privilege(needed.of, privilege) \
    UNION ALL \
    SELECT 'EXECUTE on ' || called FROM (VALUES ('{s}.channel(text)'), ('{s}.publish(text, bytea[], bigint[], bytea[])')) \
        AS listed (called) \
    WHERE NOT has_function_privilege(called, 'EXECUTE')";

/// Statements about a schema of ours: `{s}` stands for its name, which is a plain one.
#[derive(Debug)]
pub(super) struct Schema(pub(super) String);

/// Our own statements: nothing from outside is in them but the name of the schema, which [`Schema::named`] has checked.
pub(super) fn safe(sql: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql.to_owned())
}

impl Schema {
    /// A schema with a name that needs no quotes.
    pub(super) fn named(name: &str) -> Result<Self, BackendError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        // PostgreSQL cuts names at 63 bytes, keeps pg_ for itself, and takes no digit first.
        let fits = (1..=63).contains(&name.len()) && name.bytes().all(plain);
        if !fits || name.starts_with("pg_") || name.starts_with(|first: char| first.is_ascii_digit()) {
            let what = format!(
                "using the PostgreSQL schema {name:?}: name it by up to 63 of a-z, 0-9 and _, not beginning with a digit or pg_"
            );
            return Err(BackendError::new(BackendErrorKind::Settings, what));
        }
        Ok(Self(name.to_owned()))
    }

    /// A statement about this schema.
    pub(super) fn sql(&self, statement: &str) -> String {
        // In quotes it may be a word of SQL's, too.
        statement.replace("{s}", &format!("\"{}\"", self.0))
    }

    /// All that makes the current version out of nothing, as one transaction.
    pub(super) fn definition(&self) -> String {
        let all = MIGRATIONS.map(|migration| self.sql(migration)).join("\n");
        format!("BEGIN;\n{all}COMMIT;\n")
    }

    /// Brings the schema up to date where that is needed and allowed, and makes sure of our rights.
    pub(super) async fn set_up(&self, session: &mut PgConnection, server: &Sessions) -> Result<(), BackendError> {
        let failed = |error| server.failed("setting up the tables in", error);
        if self.version(session, server).await? < MIGRATIONS.len() {
            self.migrate(session, server).await?;
        }
        let missing: Vec<String> =
            sqlx::query_scalar(safe(&self.sql(RIGHTS))).fetch_all(session).await.map_err(failed)?;
        match missing.as_slice() {
            [] => Ok(()),
            missing => Err(self.lacks(server, &missing.join(", "))),
        }
    }

    async fn migrate(&self, session: &mut PgConnection, server: &Sessions) -> Result<(), BackendError> {
        let failed = |error| server.failed("setting up the tables in", error);
        let mut transaction = session.begin().await.map_err(failed)?;
        // Nodes that start at once take turns.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('tower_revocation schema ' || $1, 0))")
            .bind(&self.0)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let version = self.version(&mut transaction, server).await?;
        for migration in MIGRATIONS.iter().skip(version) {
            let done = sqlx::raw_sql(safe(&self.sql(migration))).execute(&mut *transaction).await;
            done.map_err(|error| match code(&error).as_deref() {
                Some("42501") => self.outdated(server, version).because(error),
                _ => failed(error),
            })?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// The version that is there; 0 where nothing is.
    async fn version(&self, session: &mut PgConnection, server: &Sessions) -> Result<usize, BackendError> {
        let failed = |error| server.failed("reading the version of the tables in", error);
        let there: Option<(bool, bool)> = sqlx::query_as(
            "SELECT has_schema_privilege(pg_namespace.oid, 'USAGE'), has_table_privilege(pg_class.oid, 'SELECT') \
             FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid \
             WHERE nspname = $1 AND relname = 'meta'",
        )
        .bind(&self.0)
        .fetch_optional(&mut *session)
        .await
        .map_err(failed)?;
        match there {
            None => return Ok(0),
            Some((true, true)) => {}
            Some((false, _)) => return Err(self.lacks(server, &format!("USAGE on {}", self.0))),
            Some((true, false)) => return Err(self.lacks(server, &format!("SELECT on {}.meta", self.0))),
        }
        let version: Option<Vec<u8>> = sqlx::query_scalar(safe(
            &self.sql("SELECT value FROM {s}.meta WHERE namespace = '' AND key = 'schema_version'"),
        ))
        .fetch_optional(session)
        .await
        .map_err(failed)?;
        let version = version.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<usize>().ok());
        match version {
            Some(version @ 1..) if version <= MIGRATIONS.len() => Ok(version),
            Some(version @ 1..) => Err(server.unfit(&format!(
                "a newer version made the schema {} (it is {version}, this program knows up to {}); upgrade this program",
                self.0,
                MIGRATIONS.len()
            ))),
            _ => Err(server.unfit(&format!("the schema {} is another program's; name another one", self.0))),
        }
    }

    fn outdated(&self, server: &Sessions, version: usize) -> BackendError {
        let (schema, role) = (&self.0, server.options.get_username());
        server.unfit(&format!(
            "the schema {schema} has version {version} and must have {}, and the role {role} may not make it; run the SQL of \
             Postgres::schema_sql(\"{schema}\"), which docs/backends.md shows how to print, as the owner of the database, \
             then {}",
            MIGRATIONS.len(),
            self.grants(server)
        ))
    }

    fn lacks(&self, server: &Sessions, rights: &str) -> BackendError {
        let role = server.options.get_username();
        server.unfit(&format!("the role {role} lacks {rights}; as the owner, run: {}", self.grants(server)))
    }

    fn grants(&self, server: &Sessions) -> String {
        let (schema, role) = (&self.0, server.options.get_username());
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO \"{role}\"; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO \"{role}\"; \
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO \"{role}\""
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_schemas_need_no_quotes() {
        for name in ["tower_revocation", "a", "_1", "user"] {
            Schema::named(name).unwrap();
        }
        for name in ["", "A", "1a", "a-b", "a\"b", "a;b", "pg_x", "ä", &"a".repeat(64)] {
            Schema::named(name).unwrap_err();
        }
    }
}
