//! Certificates of an authority made for one test, and connections with them.

use std::{net::SocketAddr, path::PathBuf, process::Command, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::soon;

/// An authority (`ca`), a certificate by it for 127.0.0.1 (`server`), one for a client (`by-authority`), and two that
/// vouch for themselves: `own`, and one that claims the name of the other client.
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    pub fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        this.make("ca", "authority", &[]);
        let by_authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
        this.make("server", "server", &[&by_authority[..], &["-addext", "subjectAltName=IP:127.0.0.1"]].concat());
        this.make("by-authority", "by-authority", &by_authority);
        this.make("own", "own", &[]);
        this.make("by-authority-forged", "by-authority", &[]);
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Settings of a daemon that has these certificates.
    pub fn settings(&self, more: &str) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "\n[tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\nclient_ca_file = \"{}\"\n{more}",
            path("server.pem"),
            path("server.key"),
            path("ca.pem")
        )
    }

    /// A connection that speaks `protocol`, with this client's certificate.
    pub async fn connect(&self, address: SocketAddr, protocol: &str, client: Option<&str>) -> TlsStream<TcpStream> {
        let pem = |name: &str| CertificateDer::from_pem_file(self.path(name)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(pem("ca.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![pem(&format!("{name}.pem"))], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.into()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        soon("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
    }

    fn make(&self, name: &str, common_name: &str, more: &[&str]) {
        let (key, pem, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={common_name}"));
        let usual =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let own = ["-subj", &subject, "-keyout", &key, "-out", &pem];
        let made = Command::new("openssl").args(usual).args(own).args(more).current_dir(self.folder.path()).output();
        let made = made.expect("openssl is installed");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    }
}
