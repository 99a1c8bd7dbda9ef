//! Certificates for servers of the tests: of an authority made for one test.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// An authority, and certificates by it for a server at 127.0.0.1 and for a client.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { folder };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let authority = ["-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"];
        this.openssl(&[&["req"], &key[..], &authority].concat());
        let by_authority = ["-addext", "basicConstraints=critical,CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key"];
        let leaf = [&["req", "-x509"], &key[..], &by_authority].concat();
        let server = ["-subj", "/CN=server", "-addext", "subjectAltName=IP:127.0.0.1"];
        this.openssl(&[&leaf, &server[..], &["-keyout", "server.key", "-out", "server.pem"]].concat());
        let client = ["-subj", "/CN=client", "-addext", "subjectAltName=DNS:client"];
        this.openssl(&[&leaf, &client[..], &["-keyout", "client.key", "-out", "client.pem"]].concat());
        // Servers that refuse to run as root must own their key.
        if fs::metadata(this.key()).unwrap().uid() == 0 {
            assert!(Command::new("chown").arg("nobody:nogroup").arg(this.key()).status().unwrap().success());
        }
        this
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The client's certificate and its key.
    pub fn client(&self) -> [PathBuf; 2] {
        ["client.pem", "client.key"].map(|name| self.path(name))
    }

    /// The server's certificate and its key.
    pub fn server(&self) -> [PathBuf; 2] {
        [self.path("server.pem"), self.key()]
    }

    /// What makes PostgreSQL use the server's certificate.
    pub fn postgres_options(&self) -> [String; 8] {
        let file = |name: &str, path: PathBuf| format!("{name}={}", path.display());
        let options = [
            "fsync=off".to_owned(),
            "ssl=on".to_owned(),
            file("ssl_cert_file", self.path("server.pem")),
            file("ssl_key_file", self.key()),
        ];
        let [fsync, on, certificate, key] = options;
        ["-c".into(), fsync, "-c".into(), on, "-c".into(), certificate, "-c".into(), key]
    }

    fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &[&str]) {
        let output =
            Command::new("openssl").args(arguments).current_dir(Path::new(self.folder.path())).output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
