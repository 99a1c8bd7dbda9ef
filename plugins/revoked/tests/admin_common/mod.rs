//! What the tests of the admin listener and the command line share: the real binary in a folder of its own.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    missing_docs
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const ISSUER: &str = "https://issuer.example/";
pub const SECRET: &[u8] = b"a secret of the tests, thirty-two bytes or more";
pub const TOKEN: &str = "the-admin-token-of-these-tests";
const PATIENCE: Duration = Duration::from_secs(20);

pub fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A JWT with these claims over the usual ones.
/// With these claims besides the usual ones; one that is null is left out.
pub fn jwt(claims: Value) -> String {
    let mut all = json!({ "iss": ISSUER, "aud": "api", "sub": "alice", "sid": "s1", "jti": "t1", "client_id": "app",
                          "iat": unix() - 5, "exp": unix() + 600 });
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let input = format!("{}.{}", encode(r#"{"alg":"HS256","typ":"JWT"}"#), encode(&all.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("still not so after {PATIENCE:?}: {what}");
}

/// A daemon.
pub struct Daemon {
    pub folder: TempDir,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    upstream: SocketAddr,
}

impl Daemon {
    /// One with the embedded store and a token.
    pub fn start() -> Self {
        let daemon = Self::prepared("sqlite://revoked.db", true, "");
        daemon.running()
    }

    /// The configuration is there, and nothing runs yet.
    pub fn prepared(backend: &str, token: bool, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (listen, admin) = (([127, 0, 0, 1], free_port()).into(), ([127, 0, 0, 1], free_port()).into());
        let daemon = Self { folder, listen, admin, child: None, environment: Vec::new(), upstream: upstream() };
        fs::write(daemon.path("issuer.key"), SECRET).unwrap();
        fs::write(daemon.path("token"), format!("{TOKEN}\n")).unwrap();
        let token = if token { "token_file = \"token\"\n" } else { "" };
        daemon.write_config(&daemon.config_text(backend, token, more));
        daemon
    }

    pub fn config_text(&self, backend: &str, admin: &str, more: &str) -> String {
        let Self { listen, admin: address, upstream, .. } = self;
        format!(
            "listen = \"{listen}\"\n[upstream]\nurl = \"http://{upstream}\"\n\n[admin]\nlisten = \"{address}\"\n{admin}\n\
             [backend]\nurl = \"{backend}\"\n\n[staleness]\nafter = \"3s\"\nthen = \"refuse\"\n\n\
             [[issuer]]\nissuer = \"{ISSUER}\"\naudience = [\"api\"]\nalgorithms = [\"HS256\"]\nsecret_file = \"issuer.key\"\n\n\
             [[client]]\nid = \"app\"\nsecret = \"s3cret\"\nauth_method = \"client_secret_basic\"\n{more}"
        )
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("revoked.toml")
    }

    pub fn write_config(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// Starts it, and waits until it is ready.
    pub fn running(self) -> Self {
        let this = self.spawned();
        eventually("the daemon is ready", || this.try_get("/readyz").is_some_and(|answer| answer.status == 200));
        this
    }

    /// Starts it, and waits until it answers.
    pub fn spawned(mut self) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = revoked();
        command.args(["serve", "--config"]).arg(self.config());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let began = Instant::now();
        while self.try_get("/livez").is_none() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "the daemon does not start:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        self
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Waits until it has ended, and well.
    pub fn ended(&mut self) {
        let mut child = self.child.take().unwrap();
        eventually("the daemon has ended", || child.try_wait().unwrap().is_some());
        assert!(child.wait().unwrap().success());
    }

    /// Reads its configuration anew; waits for what it says of that.
    pub fn reload(&self, expected: &str) {
        let before = self.log().len();
        self.signal("-HUP");
        eventually(expected, || self.log()[before..].contains(expected));
    }

    fn try_get(&self, path: &str) -> Option<Answer> {
        try_http(self.admin, "GET", path, &[&format!("host: {}", self.admin)], b"")
    }

    /// Asks the admin listener without a token.
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap()
    }

    /// Asks it with these header lines and nothing but a `Host` besides.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let host = format!("host: {}", self.admin);
        let headers: Vec<&str> = [host.as_str()].into_iter().chain(headers.iter().copied()).collect();
        http(self.admin, method, path, &headers, body.as_bytes())
    }

    /// Asks it as an operator does.
    pub fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let token = format!("authorization: Bearer {TOKEN}");
        self.ask(method, path, &[&token, "content-type: application/json"], &body.to_string())
    }

    pub fn revoke(&self, scope: Value) -> Value {
        let answer = self.call("POST", "/api/v1/revocations", json!({ "scope": scope }));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// A request through the reverse proxy.
    pub fn through(&self, token: &str) -> u16 {
        let authorization = format!("authorization: Bearer {token}");
        http(self.listen, "GET", "/", &["host: app", &authorization], b"").status
    }

    /// The command line, about this daemon.
    pub fn cli(&self, arguments: &[&str]) -> Run {
        self.cli_with(arguments, "")
    }

    pub fn cli_with(&self, arguments: &[&str], input: &str) -> Run {
        let mut command = revoked();
        command.args(arguments).env("REVOKED_CONFIG", self.config());
        run(command, input)
    }

    /// A command that goes on; its lines as they come.
    pub fn follow(&self, arguments: &[&str]) -> Following {
        let mut command = revoked();
        command.args(arguments).env("REVOKED_CONFIG", self.config());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Following { child, lines }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    /// The next line that holds this.
    pub fn line(&self, wanted: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line with {wanted}"));
            if line.contains(wanted) {
                return line;
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// The binary, without anything that the machine's environment says.
pub fn revoked() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_revoked"));
    command.env_clear().env("HOSTNAME", "test");
    command
}

pub fn run(mut command: Command, input: &str) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Run { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
}

pub fn check_config(file: &Path) -> Run {
    let mut command = revoked();
    command.args(["config", "check"]).arg(file);
    run(command, "")
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub fn http(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    try_http(address, method, path, headers, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

fn try_http(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    for header in headers {
        head.extend([header, "\r\n"]);
    }
    if !body.is_empty() || method != "GET" {
        head.extend(["content-length: ", &body.len().to_string(), "\r\n"]);
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    // What is refused early may not be read to its end.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body) } else { body.to_owned() };
    Some(Answer { status, head: head.to_owned(), body })
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        body.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

/// A service that answers everything with 200.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                    if line == "\r\n" {
                        let _ = reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

/// A Redis of its own.
pub struct Redis {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Redis {
    pub fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""])
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server (Debian: redis-server)");
        eventually("redis answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port, _folder: folder }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
