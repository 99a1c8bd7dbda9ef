//! TLS on the main listener.

use std::{fmt, io, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_revocation::endpoint::ClientCertificate;

use crate::{
    config::{AuthMethod, Config, Fault, Tls},
    parts,
};

/// Accepts TLS connections.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    /// Tells which client certificates come from a certification authority that counts.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
}

impl Acceptor {
    /// As the configuration has it.
    ///
    /// # Errors
    ///
    /// Where a file cannot be used.
    pub fn new(config: &Config, section: &Tls) -> Result<Self, Fault> {
        let fault = |key: &str, error: &dyn std::fmt::Display| Fault::new(format!("tls.{key}"), error);
        let chain = parts::certificates(&config.path(&section.cert_file), "tls.cert_file")?;
        let path = config.path(&section.key_file);
        let key = PrivateKeyDer::from_pem_file(&path)
            .map_err(|error| Fault::new("tls.key_file", format!("{}: {error}", path.display())))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| fault("cert_file", &error))?;

        let mut authorities: Option<Arc<dyn ClientCertVerifier>> = None;
        if let Some(path) = &section.client_ca_file {
            let mut roots = RootCertStore::empty();
            for certificate in parts::certificates(&config.path(path), "tls.client_ca_file")? {
                roots.add(certificate).map_err(|error| fault("client_ca_file", &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            authorities = Some(verifier.map_err(|error| fault("client_ca_file", &error))?);
        }
        let own = config.client.iter().any(|client| client.auth_method == AuthMethod::SelfSignedTlsClientAuth);
        let builder = if authorities.is_some() || own {
            builder.with_client_cert_verifier(Arc::new(AnyCertificate { algorithms }))
        } else {
            builder.with_no_client_auth()
        };
        let mut tls = builder.with_single_cert(chain, key).map_err(|error| fault("cert_file", &error))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { tls: TlsAcceptor::from(Arc::new(tls)), authorities })
    }

    /// Shakes hands; also tells which certificate the client showed.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<ClientCertificate>)> {
        let stream = self.tls.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| self.judge(chain));
        Ok((stream, certificate))
    }

    fn judge(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (own, others) = chain.split_first()?;
        let certificate = ClientCertificate::new(own.as_ref());
        let verified = self
            .authorities
            .as_ref()
            .is_some_and(|authorities| authorities.verify_client_cert(own, others, UnixTime::now()).is_ok());
        Some(if verified { certificate.verified() } else { certificate })
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("authorities", &self.authorities.is_some()).finish_non_exhaustive()
    }
}

/// Takes any certificate whose key the client holds, or none: who a client is decides whoever asks for it, and most
/// clients are users.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
