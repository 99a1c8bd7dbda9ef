//! Private servers: each in a folder of its own, on a free loopback port, ended with the test.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running server, which can be stopped, killed and started again with its data.
pub struct Server {
    kind: Kind,
    extra: Vec<String>,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Redis,
    Postgres,
    Nats,
}

/// The owner's password in PostgreSQL.
pub const PASSWORD: &str = "s3cret";

const PATIENCE: Duration = Duration::from_secs(30);

impl Server {
    /// Redis that acknowledges what is on the disk.
    pub fn redis() -> Self {
        Self::redis_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Redis with these options only.
    pub fn redis_with(options: &[&str]) -> Self {
        Self::start(Kind::Redis, options)
    }

    /// PostgreSQL that survives a crash of its processes.
    pub fn postgres() -> Self {
        Self::postgres_with(&["-c", "fsync=off"])
    }

    /// PostgreSQL with these options.
    pub fn postgres_with(options: &[&str]) -> Self {
        Self::start(Kind::Postgres, options)
    }

    /// A standby of the PostgreSQL server that is reached at this port, called `standby` there.
    pub fn postgres_standby_of(port: u16) -> Self {
        Self::start_on(Kind::Postgres, &["-c", "fsync=off"], Some(port))
    }

    /// NATS with JetStream.
    pub fn nats() -> Self {
        Self::nats_with(&[])
    }

    /// The same, with these options.
    pub fn nats_with(options: &[&str]) -> Self {
        Self::start(Kind::Nats, options)
    }

    fn start(kind: Kind, options: &[&str]) -> Self {
        Self::start_on(kind, options, None)
    }

    fn start_on(kind: Kind, options: &[&str], primary: Option<u16>) -> Self {
        let extra = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { kind, extra, port: 0, folder: tempfile::tempdir().unwrap(), child: None };
        match primary {
            Some(port) => server.copy_from(port),
            None => server.prepare(),
        }
        // Somebody else may take the port in between.
        for _ in 0..10 {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if server.try_start() {
                return server;
            }
        }
        panic!("the server does not start:\n{}", server.log());
    }

    /// The port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its address as the backends take it.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// The same, by way of another port.
    pub fn url_at(&self, port: u16) -> String {
        match self.kind {
            Kind::Redis => format!("redis://127.0.0.1:{port}"),
            Kind::Postgres => format!("postgres://owner:{PASSWORD}@127.0.0.1:{port}/postgres"),
            Kind::Nats => format!("nats://127.0.0.1:{port}"),
        }
    }

    /// Where it keeps its data and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Ends it at once, as a crash of its process does.
    pub fn kill(&mut self) {
        self.signal("-KILL");
        self.reap();
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.signal(if self.kind == Kind::Postgres { "-INT" } else { "-TERM" });
        self.reap();
    }

    /// Starts it again on its port, with its data.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let began = Instant::now();
        // What a killed one left behind may take a moment to go.
        while !self.try_start() {
            assert!(began.elapsed() < PATIENCE, "the server does not start again:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it and starts it again.
    pub fn crash(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Lets it stand still, with its connections open.
    pub fn pause(&self) {
        self.signal_all("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal_all("-CONT");
    }

    fn signal(&self, signal: &str) {
        if let Some(child) = &self.child {
            Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        }
    }

    /// To the processes that it started as well.
    fn signal_all(&self, signal: &str) {
        let Some(child) = &self.child else { return };
        let id = child.id().to_string();
        Command::new("pkill").args([signal, "-P", &id]).status().unwrap();
        Command::new("kill").args([signal, &id]).status().unwrap();
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    fn prepare(&self) {
        let data = self.data();
        if self.kind == Kind::Postgres {
            let copied = Command::new("cp").arg("-a").arg(cluster()).arg(&data).status().unwrap();
            assert!(copied.success(), "copying the database cluster");
            fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        } else {
            fs::create_dir(data).unwrap();
        }
    }

    /// Takes a primary's data, with what makes it follow that one.
    fn copy_from(&self, port: u16) {
        let data = self.data();
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if is_root() {
            assert!(Command::new("chown").arg("nobody:nogroup").arg(&data).status().unwrap().success());
        }
        let primary = format!("host=127.0.0.1 port={port} user=owner password={PASSWORD} application_name=standby");
        let output = ending_with_us(&programs().join("pg_basebackup"), true)
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-d", &primary, "-D"])
            .arg(&data)
            .current_dir(&data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self) -> Command {
        let (port, data) = (self.port.to_string(), self.data());
        let mut command;
        match self.kind {
            Kind::Redis => {
                command = ending_with_us(Path::new("redis-server"), false);
                command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--dir"]).arg(&data);
            }
            Kind::Postgres => {
                command = ending_with_us(&programs().join("postgres"), true);
                command.args(["-p", &port, "-h", "127.0.0.1", "-c"]);
                command.arg(format!("unix_socket_directories={}", data.display()));
                command.arg("-D").arg(&data).current_dir(&data);
            }
            Kind::Nats => {
                command = ending_with_us(Path::new("nats-server"), false);
                command.args(["-js", "-a", "127.0.0.1", "-p", &port, "-sd"]).arg(&data);
            }
        }
        command.args(&self.extra);
        command
    }

    fn try_start(&mut self) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.answers() {
                self.child = Some(child);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        self.kill();
        false
    }

    /// Whether it takes commands, not only connections.
    fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut answer = [0; 5];
        match self.kind {
            Kind::Redis => {
                // With a password, it asks for that first.
                let up = [b"+PONG", b"-NOAU"];
                stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && up.contains(&&answer)
            }
            Kind::Nats => stream.read_exact(&mut answer).is_ok() && answer == *b"INFO ",
            // While it starts, the answer to a login is an error ("E").
            Kind::Postgres => {
                let login = b"\0\0\0\x29\0\x03\0\0user\0owner\0database\0postgres\0\0";
                let mut login = login.to_vec();
                login[3] = login.len() as u8;
                stream.write_all(&login).is_ok() && stream.read_exact(&mut answer[..1]).is_ok() && answer[0] == b'R'
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal_all("-CONT");
        // A killed PostgreSQL would leave shared memory behind.
        if self.kind == Kind::Postgres { self.stop() } else { self.kill() }
    }
}

/// A program that does not outlive the test. PostgreSQL refuses to run as root.
fn ending_with_us(program: &Path, never_as_root: bool) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if never_as_root && is_root() {
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The newest installed PostgreSQL's programs. Debian keeps them out of PATH.
pub fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let usable = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").is_file());
    let version = |bin: &PathBuf| bin.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    usable.max_by_key(version).expect("no /usr/lib/postgresql/*/bin/initdb: install the Debian package `postgresql`")
}

/// An empty database cluster to copy, made once: making one takes a second.
fn cluster() -> PathBuf {
    let version = programs().parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgresql-{version}"));
    if made.is_dir() {
        return made;
    }
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let (data, password) = (folder.path().join("data"), folder.path().join("password"));
    fs::create_dir(&data).unwrap();
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        let own = Command::new("chown").args(["nobody:nogroup"]).args([&data, &password]).status();
        assert!(own.unwrap().success());
    }
    let output = ending_with_us(&programs().join("initdb"), true)
        .args(["--auth=scram-sha-256", "--username=owner", "--no-sync", "--encoding=UTF8", "--locale=C", "--pwfile"])
        .arg(&password)
        .arg("-D")
        .arg(&data)
        .current_dir(&data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Of several tests that make one at once, the first wins.
    let own = made.with_extension(format!("{}", std::process::id()));
    let copied = Command::new("cp").arg("-a").arg(&data).arg(&own).status().unwrap();
    assert!(copied.success(), "copying the database cluster");
    if fs::rename(&own, &made).is_err() {
        fs::remove_dir_all(&own).unwrap();
    }
    made
}
