//! The daemon as a process, with a folder of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tempfile::TempDir;

use super::{
    Answer, bearer, eventually,
    token::{AUDIENCE, ISSUER, SECRET, token},
    wire::{get, post_form},
};

/// What a running daemon has.
pub struct Daemon {
    process: Process,
    folder: TempDir,
    /// The main listener.
    pub main: SocketAddr,
    /// The forward-auth listener.
    pub check: SocketAddr,
    /// The listener for Envoy over gRPC, where the settings open one.
    pub ext_authz: Option<SocketAddr>,
    /// The listener for HAProxy, where the settings open one.
    pub spoe: Option<SocketAddr>,
}

impl Daemon {
    /// In front of `upstream`, with these settings. A section that they have replaces the usual one.
    pub async fn start(upstream: &str, settings: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), upstream, settings).await
    }

    /// The same in a folder that has files which the settings name.
    pub async fn start_in(folder: TempDir, upstream: &str, settings: &str) -> Self {
        fs::write(folder.path().join("issuer.secret"), SECRET).unwrap();
        let file = folder.path().join("revoked.toml");
        fs::write(&file, configuration(upstream, settings)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_revoked"));
        command.args(["serve", "--config"]).arg(&file).env("RUST_LOG", "debug,h2=info,sqlx=warn");
        let mut process = Process::spawn("revoked", &mut command);
        let main = process.address("main listener").await;
        let check = process.address("forward-auth").await;
        let mut opened = async |section: &str, name: &str| match settings.contains(section) {
            true => Some(process.address(name).await),
            false => None,
        };
        let ext_authz = opened("[ext_authz]", "ext_authz").await;
        let spoe = opened("[spoe]", "SPOE").await;
        // Until the list is loaded, nothing with a token passes.
        let probe = bearer(&token("probe"));
        eventually("the daemon is ready", async || get(check, "/check", &[&probe]).await.status != 503).await;
        Self { process, folder, main, check, ext_authz, spoe }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the main listener says to a GET with this token.
    pub async fn with_token(&self, token: &str) -> Answer {
        get(self.main, "/", &[&bearer(token)]).await
    }

    /// Revokes a token at the revocation route of `address`, which is the daemon's or a gateway's.
    pub async fn revoke_at(address: SocketAddr, token: &str) -> Answer {
        let basic = format!("authorization: Basic {}", STANDARD.encode("app:s3cret"));
        post_form(address, "/oauth/revoke", &[&basic], &format!("token={token}")).await
    }

    pub async fn revoke(&self, token: &str) {
        let answer = Self::revoke_at(self.main, token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Changes the settings, and has them read anew.
    pub async fn reload(&self, upstream: &str, settings: &str) {
        fs::write(self.folder().join("revoked.toml"), configuration(upstream, settings)).unwrap();
        let before = self.process.count("configuration was");
        self.signal("HUP");
        eventually("the configuration is read anew", async || self.process.count("configuration was") > before).await;
    }

    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Stops it where it stands; its connections stay open.
    pub async fn pause(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        let stands = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap();
            // Behind the name, which stands in parentheses.
            stat.rsplit(") ").next().unwrap().starts_with('T')
        };
        let all = async || fs::read_dir(&tasks).unwrap().all(|task| stands(task.unwrap()));
        eventually("each of its threads stands", all).await;
    }

    /// Whether its log says this.
    pub fn says(&self, text: &str) -> bool {
        self.process.count(text) > 0
    }

    pub const fn pid(&self) -> u32 {
        self.process.pid
    }

    /// How it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    /// Ends it at once, as a crash would.
    pub async fn crash(&mut self) {
        self.signal("KILL");
        assert_eq!(self.ended().await.signal(), Some(9));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert!(!self.says("panicked"), "the daemon panicked:\n{}", self.process.log());
            assert!(!self.says("s3cret"), "a secret is in the log:\n{}", self.process.log());
            // The first part of every token here.
            assert!(!self.says("eyJhbGciOiJIUzI1NiIs"), "a token is in the log:\n{}", self.process.log());
        }
    }
}

fn configuration(upstream: &str, settings: &str) -> String {
    let usual = [
        ("[backend]", "url = \"memory:\"\nnode = \"one\"".to_owned()),
        ("[staleness]", "after = \"10s\"\nthen = \"refuse\"".to_owned()),
        ("[upstream]", format!("url = \"{upstream}\"")),
        (
            "[forward_auth]",
            "listen = \"127.0.0.1:0\"\nidentity_headers = [\"x-auth-subject\", \"x-auth-session\"]".to_owned(),
        ),
        (
            "[[issuer]]",
            format!(
                "issuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\nalgorithms = [\"HS256\"]\nsecret_file = \"issuer.secret\""
            ),
        ),
        ("[[client]]", "id = \"app\"\nsecret = \"s3cret\"".to_owned()),
    ];
    let (top, sections) = match settings.find("\n[") {
        Some(start) => settings.split_at(start),
        None if settings.starts_with('[') => ("", settings),
        None => (settings, ""),
    };
    let mut text = format!("listen = \"127.0.0.1:0\"\nexternal_url = \"https://api.example\"\n{top}\n");
    for (name, lines) in usual {
        if !sections.lines().any(|line| line == name) {
            text += &format!("{name}\n{lines}\n");
        }
    }
    // A section that is named and empty is left out.
    text + &sections.replace("[upstream]\nnone = true\n", "")
}

/// A process whose standard error is kept.
pub struct Process {
    name: String,
    child: Child,
    pub pid: u32,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {name} ({command:?}): {error}"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::clone(&log));
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
        Self { name: name.to_owned(), pid: child.id(), child, log }
    }

    /// The address in the log line that has `text`.
    async fn address(&mut self, text: &str) -> SocketAddr {
        let mut found = None;
        for _ in 0..2000 {
            found =
                self.lines().iter().filter(|line| line.contains(text)).find_map(|line| {
                    line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok())
                });
            if found.is_some() || self.child.try_wait().unwrap().is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        found.unwrap_or_else(|| panic!("{} did not open {text:?}:\n{}", self.name, self.log()))
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn log(&self) -> String {
        self.lines().join("\n")
    }

    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid.to_string()]).status().unwrap();
        assert!(sent.success(), "kill -{name} {} ({})", self.pid, self.name);
    }

    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the process has ended", async || self.child.try_wait().unwrap().is_some()).await;
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of the kits or the tests, by its path in this package.
pub fn package_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
