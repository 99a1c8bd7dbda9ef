//! The directory in PostgreSQL, against a server of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tower_revocation::directory::{Directory, SqlDirectory, SqlStatements, User};

const ISSUER: &str = "https://issuer.example/";
const PASSWORD: &str = "s3cret";

/// A private server, which ends with the test.
struct Server {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its fast shutdown; a killed one would leave shared memory behind.
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().ok();
        self.child.wait().ok();
    }
}

/// The newest installed server's programs. Debian keeps them out of PATH.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let usable = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").is_file());
    let version = |bin: &PathBuf| bin.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    usable.max_by_key(version).expect("no /usr/lib/postgresql/*/bin/initdb: install the Debian package `postgresql`")
}

/// PostgreSQL refuses to run as root.
fn command(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

impl Server {
    async fn start() -> Self {
        let bin = programs();
        let folder = tempfile::tempdir().unwrap();
        let (data, password) = (folder.path().join("data"), folder.path().join("password"));
        fs::create_dir(&data).unwrap();
        fs::write(&password, PASSWORD).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            let own = Command::new("chown").args(["nobody:nogroup"]).args([&data, &password]).status();
            assert!(own.unwrap().success());
        }
        let made = command(&bin.join("initdb"))
            .args([
                "--auth=scram-sha-256",
                "--username=owner",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "--pwfile",
            ])
            .arg(&password)
            .arg("-D")
            .arg(&data)
            .current_dir(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = command(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-c", "fsync=off", "-c"])
            .arg(format!("unix_socket_directories={}", data.display()))
            .current_dir(&data)
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self { child, port, _folder: folder };
        let log = server._folder.path().join("log");
        for attempt in 0.. {
            match sqlx::PgPool::connect(&server.url()).await {
                Ok(_) => break,
                Err(error) if attempt == 100 => panic!("{error}: {}", fs::read_to_string(&log).unwrap()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        server
    }

    fn url(&self) -> String {
        format!("postgres://owner:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }
}

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
    let server = Server::start().await;
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
    let place = format!("postgres://owner@127.0.0.1:{}/postgres", server.port);
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
