//! The directory in PostgreSQL, against a server of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/certificates.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of other stores")]
mod certificates;
#[path = "common/server.rs"]
#[allow(dead_code, unreachable_pub)]
mod server;

use std::{path::Path, time::Duration};

use tower_revocation::directory::{Directory, SqlDirectory, SqlStatements, User};

use self::{
    certificates::Certificates,
    server::{PASSWORD, Server},
};

const ISSUER: &str = "https://issuer.example/";

fn statements() -> SqlStatements {
    let mut statements = SqlStatements::default();
    statements.find_users =
        Some("SELECT issuer, sub FROM users WHERE attribute = $1 AND value = $2 ORDER BY position".to_owned());
    statements.sessions_of_subject = Some("SELECT sid FROM sessions WHERE issuer = $1 AND sub = $2".to_owned());
    statements.session_of_token = Some("SELECT sid FROM tokens WHERE issuer = $1 AND jti = $2".to_owned());
    statements
}

#[tokio::test]
async fn a_directory_in_postgresql() {
    let server = Server::postgres();
    let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
    for statement in [
        "CREATE TABLE users (issuer text, sub varchar(20), attribute text, value text, position int)",
        "CREATE TABLE sessions (issuer text, sub text, sid text, id uuid DEFAULT gen_random_uuid())",
        "CREATE TABLE tokens (issuer text, jti text, sid text)",
        "INSERT INTO users VALUES ('https://other.example/', 'x', 'uid', 'a''b', 1)",
        "INSERT INTO users VALUES ('https://issuer.example/', '2', 'uid', 'a''b', 3)",
        "INSERT INTO users VALUES ('https://issuer.example/', '1', 'uid', 'a''b', 2)",
        "INSERT INTO sessions VALUES ('https://issuer.example/', '1', 's1'), ('https://issuer.example/', '1', 's2')",
        "INSERT INTO tokens VALUES ('https://issuer.example/', 'j', 's1')",
        "CREATE FUNCTION spoil(text) RETURNS text LANGUAGE sql AS 'DELETE FROM tokens RETURNING sid'",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }

    let directory = SqlDirectory::connect(&server.url(), statements()).await.unwrap();
    let issuers = [ISSUER.to_owned()];
    let found = directory.find_users("uid", "a'b", &issuers).await.unwrap();
    assert_eq!(found, [User::new(ISSUER, "1"), User::new(ISSUER, "2")]);
    assert_eq!(directory.find_users("uid", "' OR 1=1 --", &issuers).await.unwrap(), []);
    assert_eq!(directory.sessions_of(&found[0]).await.unwrap(), ["s1", "s2"]);
    assert_eq!(directory.session_of_token(ISSUER, "j").await.unwrap().as_deref(), Some("s1"));
    assert_eq!(directory.session_of_token(ISSUER, "k").await.unwrap(), None);
    // No text there can be like this; it is an error, not "nobody".
    directory.find_users("uid", "a\0b", &issuers).await.unwrap_err();

    // A statement that does not fit is a start-up error which names it.
    for (set, expected) in [
        ("SELECT sid FROM missing WHERE $1 = $2", "missing"),
        ("SELECT sid FROM sessions WHERE issuer = $1 AND sub = $2 AND sid = $3", ""),
        ("SELECT id FROM sessions WHERE issuer = $1 AND sub = $2", "id::text"),
        ("SELECT spoil($1) WHERE $2 = ''", "read-only"),
        ("SELECT FROM sessions WHERE issuer = $1 AND sub = $2", ""),
    ] {
        let mut statements = statements();
        statements.sessions_of_subject = Some(set.to_owned());
        let error = SqlDirectory::connect(&server.url(), statements).await.unwrap_err().to_string();
        assert!(error.contains("sessions_of_subject") && error.contains(expected), "{set}: {error}");
    }
    let mut one_column = statements();
    one_column.find_users = Some("SELECT issuer FROM users WHERE attribute = $1 AND value = $2".to_owned());
    let error = SqlDirectory::connect(&server.url(), one_column).await.unwrap_err().to_string();
    assert!(error.contains("find_users"), "{error}");
    let mut cast = SqlStatements::default();
    cast.sessions_of_subject = Some("SELECT id::text FROM sessions WHERE issuer = $1 AND sub = $2".to_owned());
    let casting = SqlDirectory::connect(&server.url(), cast).await.unwrap();
    assert_eq!(casting.sessions_of(&found[0]).await.unwrap().len(), 2);

    // What cannot be reached is named, its password is not.
    let wrong = server.url().replace(PASSWORD, "wr0ng");
    let error = SqlDirectory::connect(&wrong, statements()).await.unwrap_err().to_string();
    let place = format!("postgres://owner@127.0.0.1:{}/postgres", server.port());
    assert!(error.contains(&place) && !error.contains("wr0ng"), "{error}");
    let error = SqlDirectory::connect("mysql://owner:s3cret@db/users", statements()).await.unwrap_err().to_string();
    assert!(error.contains("postgres://") && !error.contains(PASSWORD), "{error}");

    // A server that is gone is an error, never "nobody", and soon.
    let url = server.url();
    drop(server);
    let began = std::time::Instant::now();
    directory.find_users("uid", "a'b", &issuers).await.unwrap_err();
    let error = SqlDirectory::connect(&url, statements()).await.unwrap_err().to_string();
    assert!(error.contains(&place) && !error.contains(PASSWORD), "{error}");
    assert!(began.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn over_tls_with_the_right_server_only() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let server = Server::postgres_with(&ours.postgres_options().each_ref().map(String::as_str));
    let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
    sqlx::query("CREATE VIEW users AS SELECT 'https://issuer.example/' AS issuer, ssl::text AS sub FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .execute(&pool)
        .await
        .unwrap();
    let mut statements = SqlStatements::default();
    statements.find_users = Some("SELECT issuer, sub FROM users WHERE $1 = $2".to_owned());
    let connect = async |ca: &Path, host: &str| {
        let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.url(), ca.display());
        SqlDirectory::connect(&url.replace("127.0.0.1", host), statements.clone()).await
    };
    let directory = connect(&ours.authority(), "127.0.0.1").await.unwrap();
    let found = directory.find_users("x", "x", &[ISSUER.to_owned()]).await.unwrap();
    assert_eq!(found, [User::new(ISSUER, "true")], "the connection is encrypted");
    for (ca, host) in [(others.authority(), "127.0.0.1"), (ours.authority(), "localhost")] {
        let error = connect(&ca, host).await.unwrap_err().to_string();
        assert!(error.contains("certificate") && !error.contains(PASSWORD), "{error}");
    }
    let plain = Server::postgres();
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", plain.url(), ours.authority().display());
    let error = SqlDirectory::connect(&url, statements.clone()).await.unwrap_err().to_string();
    assert!(!error.contains(PASSWORD), "{error}");
}
