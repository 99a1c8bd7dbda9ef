//! Clients that show a certificate (mutual TLS, RFC 8705 §2).

use std::{fmt, net::IpAddr, str::FromStr as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use sha2::{Digest, Sha256};
use x509_cert::{
    Certificate,
    der::{Decode as _, pem},
    ext::pkix::{SubjectAltName, name::GeneralName},
    name::Name,
};

use super::{
    PeerAddress,
    form::{decode, hex},
    refusal::Refusal,
};

/// The certificate that a client showed when the connection was made, for the server to put into a request's
/// extensions.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct ClientCertificate {
    /// DER; `None` where a proxy told the rest only.
    der: Option<Vec<u8>>,
    sha256: [u8; 32],
    /// The subject as a proxy wrote it.
    subject: Option<String>,
    verified: bool,
}

impl ClientCertificate {
    /// A certificate (DER) whose key the client has proved to hold, whoever issued it.
    pub fn new(der: impl Into<Vec<u8>>) -> Self {
        let der = der.into();
        Self { sha256: Sha256::digest(&der).into(), der: Some(der), subject: None, verified: false }
    }

    /// Its chain was verified: it comes from a certification authority that may name clients here, and is valid now.
    pub const fn verified(mut self) -> Self {
        self.verified = true;
        self
    }

    /// The SHA-256 of its DER form.
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// Whether its chain was verified, and it carries this name.
    pub(super) fn is_verified_as(&self, name: &CertificateName) -> bool {
        self.verified && self.carries(name)
    }

    fn carries(&self, name: &CertificateName) -> bool {
        let Some(der) = &self.der else {
            return matches!((name, &self.subject), (CertificateName::SubjectDn(dn), Some(subject)) if dn == subject);
        };
        let Ok(certificate) = Certificate::from_der(der) else { return false };
        let certificate = certificate.tbs_certificate;
        if let CertificateName::SubjectDn(dn) = name {
            return canonical(dn).is_some_and(|dn| dn == certificate.subject.to_string());
        }
        let Ok(Some((_, SubjectAltName(names)))) = certificate.get::<SubjectAltName>() else { return false };
        names.iter().any(|found| match (name, found) {
            (CertificateName::Dns(dns), GeneralName::DnsName(found)) => found.as_str().eq_ignore_ascii_case(dns),
            (CertificateName::Uri(uri), GeneralName::UniformResourceIdentifier(found)) => found.as_str() == uri,
            (CertificateName::Email(email), GeneralName::Rfc822Name(found)) => found.as_str() == email,
            (CertificateName::Ip(IpAddr::V4(ip)), GeneralName::IpAddress(found)) => found.as_bytes() == ip.octets(),
            (CertificateName::Ip(IpAddr::V6(ip)), GeneralName::IpAddress(found)) => found.as_bytes() == ip.octets(),
            _ => false,
        })
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("verified", &self.verified).finish_non_exhaustive()
    }
}

/// What names a `tls_client_auth` client in its certificate: exactly one of these (RFC 8705 §2.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateName {
    /// `tls_client_auth_subject_dn`: the subject, written as in RFC 4514, such as `CN=client,O=Example`.
    SubjectDn(String),
    /// `tls_client_auth_san_dns`.
    Dns(String),
    /// `tls_client_auth_san_uri`.
    Uri(String),
    /// `tls_client_auth_san_ip`.
    Ip(IpAddr),
    /// `tls_client_auth_san_email`.
    Email(String),
}

impl CertificateName {
    /// Whether a certificate could carry it.
    pub(super) fn is_usable(&self) -> bool {
        match self {
            Self::SubjectDn(dn) => canonical(dn).is_some(),
            Self::Dns(text) | Self::Uri(text) | Self::Email(text) => !text.is_empty(),
            Self::Ip(_) => true,
        }
    }
}

/// A name in one spelling.
fn canonical(dn: &str) -> Option<String> {
    Name::from_str(dn).ok().filter(|name| !name.is_empty()).map(|name| name.to_string())
}

/// A header in which a TLS-terminating proxy tells the client's certificate.
///
/// It counts from the proxies listed here alone, by [`PeerAddress`]. From anyone else it is removed, so that the service
/// behind does not believe it either: with every header that tells of certificates (`Client-Cert`, `Client-Cert-Chain`,
/// `X-Forwarded-Client-Cert`, that of [`CertificateHeader::verified_where`], and what differs from them by `_` for `-`).
///
/// What a listed proxy sends in its header, and in that of [`CertificateHeader::verified_where`], must be its own: it has
/// to remove both from what clients send. The others are removed from its requests, too. Requests of a listed proxy without the header show no certificate: one on the connection is the proxy's own.
#[derive(Clone, Debug)]
#[must_use]
pub struct CertificateHeader {
    format: Format,
    proxies: Vec<IpAddr>,
    verified: Verified,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    ClientCert,
    Xfcc,
}

/// How a proxy says that it verified the chain.
#[derive(Clone, Debug)]
enum Verified {
    Never,
    Always,
    Says(HeaderName, HeaderValue),
}

impl CertificateHeader {
    /// `Client-Cert` (RFC 9440).
    pub fn client_cert(proxies: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::new(Format::ClientCert, proxies)
    }

    /// Envoy's `X-Forwarded-Client-Cert`, with exactly one element, so Envoy must be set to `SANITIZE_SET`. It needs
    /// `Cert` or `Hash`.
    pub fn x_forwarded_client_cert(proxies: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::new(Format::Xfcc, proxies)
    }

    fn new(format: Format, proxies: impl IntoIterator<Item = IpAddr>) -> Self {
        let proxies = proxies.into_iter().map(|proxy| proxy.to_canonical()).collect();
        Self { format, proxies, verified: Verified::Never }
    }

    /// The chain was verified where this header, once, has exactly this value: such as `X-SSL-Client-Verify: SUCCESS`.
    /// Without it `tls_client_auth` refuses, as it must.
    pub fn verified_where(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.verified = Verified::Says(name, value);
        self
    }

    /// The proxy lets no connection through whose chain it has not verified.
    pub fn verified_always(mut self) -> Self {
        self.verified = Verified::Always;
        self
    }

    /// The header that tells that the chain was verified.
    const fn signal(&self) -> Option<&HeaderName> {
        match &self.verified {
            Verified::Says(name, _) => Some(name),
            Verified::Never | Verified::Always => None,
        }
    }

    const fn name(&self) -> &'static str {
        match self.format {
            Format::ClientCert => "client-cert",
            Format::Xfcc => "x-forwarded-client-cert",
        }
    }

    /// Whether its proxies set this header.
    fn is_its(&self, name: &HeaderName) -> bool {
        name == self.name() || self.signal() == Some(name)
    }

    pub(super) fn trusts(&self, peer: Option<PeerAddress>) -> bool {
        peer.is_some_and(|PeerAddress(peer)| self.proxies.contains(&peer.ip().to_canonical()))
    }

    fn read(&self, headers: &HeaderMap) -> Result<Option<ClientCertificate>, Refusal> {
        let mut values = headers.get_all(self.name()).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refusal::Certificate);
        }
        let certificate = match self.format {
            Format::ClientCert => client_cert(value.as_bytes()),
            Format::Xfcc => xfcc(value.as_bytes()),
        };
        let verified = match &self.verified {
            Verified::Never => false,
            Verified::Always => true,
            Verified::Says(name, expected) => headers.get_all(name).iter().eq([expected]),
        };
        certificate.map(|certificate| Some(ClientCertificate { verified, ..certificate })).ok_or(Refusal::Certificate)
    }
}

/// Takes away what only listed proxies may say of certificates, from the requests of everyone else.
#[derive(Clone, Debug, Default)]
pub(super) struct Hearsay {
    /// Whoever one of them lists may speak.
    believed: Vec<CertificateHeader>,
    names: Vec<HeaderName>,
}

/// What tells of certificates, whichever of them is configured.
const TELLING: [HeaderName; 3] = [
    HeaderName::from_static("client-cert"),
    HeaderName::from_static("client-cert-chain"),
    HeaderName::from_static("x-forwarded-client-cert"),
];

impl Hearsay {
    /// Nothing is taken away where no such header is configured.
    pub(super) fn about<'a>(headers: impl Iterator<Item = &'a CertificateHeader>) -> Self {
        let believed: Vec<_> = headers.cloned().collect();
        let signals = believed.iter().filter_map(CertificateHeader::signal).cloned();
        let names = if believed.is_empty() { Vec::new() } else { TELLING.into_iter().chain(signals).collect() };
        Self { believed, names }
    }

    #[inline]
    pub(super) fn remove_from<B>(&self, request: &mut Request<B>) {
        if !self.believed.is_empty() {
            self.remove_unless_believed(request);
        }
    }

    fn remove_unless_believed<B>(&self, request: &mut Request<B>) {
        let peer = request.extensions().get().copied();
        // A listed proxy answers for its own headers alone: others may be the client's.
        let its_own = |name: &HeaderName| self.believed.iter().any(|header| header.trusts(peer) && header.is_its(name));
        let doubtful = |name: &&HeaderName| self.names.iter().any(|known| is_read_as(name, known)) && !its_own(name);
        let headers = request.headers_mut();
        while let Some(name) = headers.keys().find(doubtful).cloned() {
            headers.remove(name);
        }
    }
}

/// Whether a service could take one for the other: gateways in the manner of CGI make `-` and `_` the same.
fn is_read_as(name: &HeaderName, known: &HeaderName) -> bool {
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let (name, known) = (name.as_str().bytes().map(dash), known.as_str().bytes().map(dash));
    name.eq(known)
}

/// The certificate behind a request.
pub(super) fn of(head: &Parts, header: Option<&CertificateHeader>) -> Result<Option<ClientCertificate>, Refusal> {
    match header.filter(|header| header.trusts(head.extensions.get().copied())) {
        Some(header) => header.read(&head.headers),
        None => Ok(head.extensions.get().cloned()),
    }
}

/// A byte sequence (RFC 8941 §3.3.5): base64 between colons.
fn client_cert(value: &[u8]) -> Option<ClientCertificate> {
    let base64 = value.trim_ascii().strip_prefix(b":")?.strip_suffix(b":")?;
    STANDARD.decode(base64).ok().filter(|der| !der.is_empty()).map(ClientCertificate::new)
}

/// The one element: pairs `key=value` between semicolons, values quoted where they hold separators.
fn xfcc(value: &[u8]) -> Option<ClientCertificate> {
    let (mut hash, mut cert, mut subject) = (None, None, None);
    for (key, value) in pairs(std::str::from_utf8(value).ok()?)? {
        let place = match key.to_ascii_lowercase().as_str() {
            "hash" => &mut hash,
            "cert" => &mut cert,
            "subject" => &mut subject,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    let sha256 = hash.map(|hash| sha256(&hash).ok_or(())).transpose().ok()?;
    let Some(cert) = cert else {
        return Some(ClientCertificate { der: None, sha256: sha256?, subject, verified: false });
    };
    let pem = decode(cert.as_bytes())?;
    let (label, der) = pem::decode_vec(pem.as_bytes()).ok()?;
    let certificate = ClientCertificate::new(der);
    (label == "CERTIFICATE" && sha256.is_none_or(|hash| hash == certificate.sha256)).then_some(certificate)
}

/// `None` where there is a second element, or anything out of place.
fn pairs(element: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = element.trim();
    loop {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find([';', ',', '"']).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        pairs.push((key.to_owned(), value));
        if after.is_empty() {
            return Some(pairs);
        }
        rest = after.strip_prefix(';')?;
    }
}

/// A value up to its closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' if quoted[at + 1..].starts_with('"') => {
                chars.next();
                value.push('"');
            }
            char => value.push(char),
        }
    }
    None
}

fn sha256(hash: &str) -> Option<[u8; 32]> {
    let digits = hash.as_bytes();
    let mut sha256 = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in sha256.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex(pair[0])? << 4 | hex(pair[1])?;
    }
    Some(sha256)
}
