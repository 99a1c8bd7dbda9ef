//! A daemon of one's own, tokens for it, plain HTTP, and programs that end with the test.
#![allow(dead_code, unreachable_pub, reason = "not every test needs all of it")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const ISSUER: &str = "https://issuer.example/";
pub const SECRET: &[u8] = b"thirty-two bytes of a test secret";
/// `c:4`
const BASIC: &str = "Yzo0";
const LIMIT: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "{what} has not come about");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A program that ends with the test.
pub struct Program(pub Child);

impl Program {
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Asks it to end, and waits until it has.
    pub fn end(&mut self) -> ExitStatus {
        self.signal("TERM");
        let mut status = None;
        until("the end of a program", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running `revoked`.
pub struct Daemon {
    pub program: Program,
    pub folder: TempDir,
    ports: HashMap<String, u16>,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// With these sections besides, in the memory of the process.
    pub fn start(sections: &str) -> Self {
        Self::start_on("memory:", "10s", sections)
    }

    pub fn start_on(backend: &str, stale_after: &str, sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("issuer.secret"), SECRET).unwrap();
        let config = format!(
            r#"
            listen = "127.0.0.1:0"
            external_url = "https://as.example"
            [admin]
            listen = "127.0.0.1:0"
            [backend]
            url = "{backend}"
            [staleness]
            after = "{stale_after}"
            then = "refuse"
            [[issuer]]
            issuer = "{ISSUER}"
            any_audience = true
            algorithms = ["HS256"]
            secret_file = "issuer.secret"
            [[client]]
            id = "c"
            secret = "4"
            {sections}
            "#
        );
        let file = folder.path().join("revoked.toml");
        fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_revoked"))
            .args(["serve", "--config"])
            .arg(&file)
            .env("RUST_LOG", "info,revoked=debug")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut daemon = Self { program: Program(child), folder, ports: HashMap::new(), log };
        let doors =
            2 + ["[ext_authz]", "[spoe]", "[forward_auth]"].iter().filter(|name| sections.contains(*name)).count();
        until("the daemon", || {
            assert!(daemon.program.0.try_wait().unwrap().is_none(), "{}", daemon.log());
            daemon.ports = addresses(&daemon.log());
            daemon.ports.len() == doors
        });
        let token = token(&json!({ "jti": "is it loaded?" }));
        let place = if sections.contains("cookie:session") { "Cookie: session=" } else { "Authorization: Bearer " };
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{place}{token}\r\n");
        until("the list", || http(daemon.port("main listener"), &request, "").status != 503);
        daemon
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn port(&self, door: &str) -> u16 {
        self.ports[door]
    }

    /// Door, reason and path of the requests that it refused last, newest first, as operators are told.
    pub fn denials(&self) -> Vec<[String; 3]> {
        let head = format!("GET /api/v1/denials HTTP/1.1\r\nHost: localhost:{}\r\n", self.port("admin"));
        let answer = http(self.port("admin"), &head, "");
        assert!(!answer.body.contains("eyJ"), "{}", answer.body);
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        let word = |denied: &Value, name: &str| denied[name].as_str().unwrap().to_owned();
        let denials = said["denials"].as_array().unwrap().iter();
        denials.map(|denied| ["door", "reason", "path"].map(|name| word(denied, name))).collect()
    }

    /// Ends a token as its client does.
    pub fn revoke(&self, token: &str) {
        let answer = http(self.port("main listener"), &revocation("/oauth/revoke"), &format!("token={token}"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The head of a revocation request.
pub fn revocation(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: as.example\r\nAuthorization: Basic {BASIC}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n"
    )
}

fn addresses(log: &str) -> HashMap<String, u16> {
    let address = |line: &str| {
        let (before, after) = line.split_once(" address=")?;
        let (_, door) = before.rsplit_once(": ")?;
        let port = after.split_whitespace().next()?.rsplit_once(':')?.1.parse().ok()?;
        Some((door.to_owned(), port))
    };
    log.lines().filter_map(address).collect()
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The claims of a token of the client, with these in place of the usual ones.
pub fn claims(these: &Value) -> Value {
    // A session of its own: ending a token ends the client's tokens of its session.
    let sid = format!("of {}", these["jti"]);
    let mut claims = json!({
        "iss": ISSUER, "sub": "alice", "sid": sid, "client_id": "c", "iat": now() - 10, "exp": now() + 600
    });
    for (name, value) in these.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

pub fn token(these: &Value) -> String {
    encode(&Header::default(), &claims(these), &EncodingKey::from_secret(SECRET)).unwrap()
}

/// An answer over plain HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// The value of a header field in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Sends `head`, which has its last empty line and its length still to come, with `body`.
pub fn http(port: u16, head: &str, body: &str) -> Answer {
    try_http(port, head, body).expect("an answer")
}

pub fn try_http(port: u16, head: &str, body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    let length = body.len();
    let length = if length > 0 { format!("Content-Length: {length}\r\n") } else { String::new() };
    stream.write_all(format!("{head}{length}Connection: close\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}

/// A service behind a gateway: answers with the head of the request that it got.
pub struct Echo {
    pub port: u16,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                thread::spawn(move || Self::answer(stream, &seen));
            }
        });
        Self { port, requests }
    }

    fn answer(mut stream: TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        seen.lock().unwrap().push(head.clone());
        let length = head.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{head}");
        stream.write_all(answer.as_bytes()).ok()
    }

    /// How many requests have come to it.
    pub fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program of the machine: what the variable names, or on the path, or where `tests/run.sh` installs it. Where every gateway
/// is required, one that is missing is a failure; else the test says so and is skipped.
pub fn program(name: &str, variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/gateways/venv/bin");
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), installed]);
    let mut files = folders.map(|folder| folder.join(name));
    let found = std::env::var_os(variable).map(PathBuf::from).or_else(|| files.find(|file| file.is_file()));
    if found.is_none() {
        let missing = format!("there is no {name}; install it, or say in {variable} where it is");
        let required = std::env::var("REVOCATION_TESTS_GATEWAYS").is_ok_and(|value| value == "required");
        assert!(!required, "{missing}");
        eprintln!("SKIPPED: {missing}");
    }
    found
}

/// Runs a gateway until it answers on `port`.
pub fn gateway(program: &Path, arguments: &[&str], folder: &Path, port: u16) -> Program {
    let log = fs::File::create(folder.join("gateway.log")).unwrap();
    let child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut program = Program(child);
    until("the gateway", || {
        let ended = program.0.try_wait().unwrap();
        assert!(ended.is_none(), "{}", fs::read_to_string(folder.join("gateway.log")).unwrap());
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    program
}

/// Makes a database unreadable for those who have it open.
pub fn ruin(file: &Path) {
    for end in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        if let Ok(metadata) = fs::metadata(&name) {
            fs::write(&name, vec![0x55; metadata.len() as usize]).unwrap();
        }
    }
}
