//! Fetches lists from where tokens say that they are: an address that somebody else chose.

use std::{
    error::Error,
    fmt,
    future::Future,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use futures_util::future::BoxFuture;
use http::{
    Request, Response, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION},
    uri::Scheme,
};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tower_service::Service;

use super::token::TYP;
use crate::token::{Fetch, FetchError, FetchErrorKind};

/// What a fetch may do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reach {
    /// `http` too; then this machine's own addresses also, for `http` alone.
    pub(super) http: bool,
    /// Addresses of private networks, of this machine and of its link too.
    pub(super) private: bool,
    /// How many redirects are followed. Each is held against the rest.
    pub(super) redirects: u8,
    /// The most bytes of a body, as it comes and once gzip is taken off.
    pub(super) max_body: usize,
}

/// Fetches over HTTPS, from public addresses only.
///
/// A name is resolved once, each address that comes out is checked, and the connection goes to one of these: a name that
/// means something else a moment later gains nothing.
pub(super) struct ListFetch {
    client: Client<HttpsConnector<HttpConnector<Checked>>, Empty<Bytes>>,
    reach: Reach,
}

impl ListFetch {
    pub(super) fn new(reach: Reach) -> Result<Self, FetchErrorKind> {
        let provider = aws_lc_rs::default_provider();
        let mut http = HttpConnector::new_with_resolver(Checked { names: GaiResolver::new(), reach });
        http.enforce_http(false);
        let https = HttpsConnectorBuilder::new();
        let https = match https.with_provider_and_native_roots(provider.clone()) {
            Ok(https) => https,
            // Lists over plain HTTP need no certification authorities.
            Err(_) if reach.http => HttpsConnectorBuilder::new().with_tls_config(
                ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions()
                    .map_err(|_| FetchErrorKind::NoRoots)?
                    .with_root_certificates(RootCertStore::empty())
                    .with_no_client_auth(),
            ),
            Err(_) => return Err(FetchErrorKind::NoRoots),
        };
        let https = if reach.http { https.https_or_http() } else { https.https_only() };
        let connector = https.enable_http1().wrap_connector(http);
        // Fetches are minutes apart: no connection is worth keeping.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, reach })
    }

    async fn list(&self, url: &str) -> Result<Bytes, FetchErrorKind> {
        let mut url: Uri = url.parse().map_err(|_| FetchErrorKind::Url)?;
        let mut redirects = self.reach.redirects;
        let response = loop {
            self.reach.check(&url)?;
            let request = Request::get(url.clone())
                .header(ACCEPT, format!("application/{TYP}"))
                .header(ACCEPT_ENCODING, "gzip")
                .body(Empty::new())
                .map_err(|_| FetchErrorKind::Url)?;
            let response = self.client.request(request).await.map_err(|error| connection(&error))?;
            let target = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 if redirects > 0 => redirected(&url, &response),
                200..=299 => break response,
                status => return Err(FetchErrorKind::Status(status)),
            };
            redirects -= 1;
            url = target.ok_or(FetchErrorKind::Url)?;
        };
        if !is_status_list(response.headers()) {
            return Err(FetchErrorKind::ContentType);
        }
        let coding = Coding::of(response.headers())?;
        let body = match Limited::new(response.into_body(), self.reach.max_body).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(FetchErrorKind::TooLarge),
            Err(error) => return Err(connection(&*error)),
        };
        coding.decode(body, self.reach.max_body)
    }
}

impl Fetch for ListFetch {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        Box::pin(async move { self.list(url).await.map_err(|kind| FetchError::new(url, kind)) })
    }
}

impl fmt::Debug for ListFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListFetch").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Reach {
    /// Whether this may be fetched, as far as its spelling tells. What a name stands for is looked at when it is resolved.
    pub(super) fn check(self, url: &Uri) -> Result<(), FetchErrorKind> {
        let authority = url.authority().filter(|authority| !authority.as_str().contains('@'));
        let host = authority.map(|authority| authority.host()).filter(|host| !host.is_empty());
        let host = host.ok_or(FetchErrorKind::Url)?;
        let plain = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => false,
            Some(scheme) if *scheme == Scheme::HTTP && self.http => true,
            _ => return Err(FetchErrorKind::NotHttps),
        };
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if !self.allows(address, plain) => Err(FetchErrorKind::PrivateAddress),
            _ => Ok(()),
        }
    }

    fn allows(self, address: IpAddr, plain: bool) -> bool {
        self.private || is_public(address) || (self.http && plain && address.to_canonical().is_loopback())
    }
}

/// Whether the address is one of the public internet, and stands for no other (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // NAT64 and 6to4 reach an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Teredo, documentation.
        [0x2001, 0 | 0xdb8, ..] | [0x3fff, ..] => false,
        // Global unicast, and nothing else.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Resolves names, and lets no address through that may not be reached.
#[derive(Clone)]
struct Checked {
    names: GaiResolver,
    reach: Reach,
}

impl Service<Name> for Checked {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.names.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (resolving, reach) = (self.names.call(name), self.reach);
        Box::pin(async move {
            let addresses: Vec<_> = resolving.await?.collect();
            // A name that stands for both kinds is nobody's honest one. Which scheme it is for is not known here: names
            // of this machine are left to `localhost`, see `Reach::allows`.
            if addresses.iter().all(|address| reach.allows(address.ip(), true)) {
                Ok(addresses.into_iter())
            } else {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, Private))
            }
        })
    }
}

/// Marks a refusal on its way through the client.
#[derive(Debug)]
struct Private;

impl fmt::Display for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name stands for an address that is not public")
    }
}

impl Error for Private {}

fn redirected(from: &Uri, response: &Response<Incoming>) -> Option<Uri> {
    let target: Uri = response.headers().get(LOCATION)?.to_str().ok()?.parse().ok()?;
    if target.scheme().is_some() {
        return Some(target);
    }
    // Only a path of the same place.
    let path = target.path_and_query().filter(|path| path.as_str().starts_with('/') && target.authority().is_none())?;
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(path.clone());
    Uri::from_parts(parts).ok()
}

fn is_status_list(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(format!("application/{TYP}").as_bytes())
}

#[derive(Clone, Copy)]
enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Self, FetchErrorKind> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        match (values.next().map(|value| value.as_bytes().trim_ascii().to_ascii_lowercase()), values.next()) {
            (None, _) => Ok(Self::Identity),
            (Some(coding), None) if coding == b"identity" => Ok(Self::Identity),
            (Some(coding), None) if coding == b"gzip" || coding == b"x-gzip" => Ok(Self::Gzip),
            _ => Err(FetchErrorKind::ContentType),
        }
    }

    fn decode(self, body: Bytes, limit: usize) -> Result<Bytes, FetchErrorKind> {
        let Self::Gzip = self else { return Ok(body) };
        let mut plain = Vec::new();
        let mut gzip = GzDecoder::new(&*body).take(limit as u64 + 1);
        gzip.read_to_end(&mut plain).map_err(|_| FetchErrorKind::ContentType)?;
        if plain.len() > limit { Err(FetchErrorKind::TooLarge) } else { Ok(plain.into()) }
    }
}

/// The cause at the bottom: those above only say that there was one.
fn connection(mut error: &(dyn Error + 'static)) -> FetchErrorKind {
    loop {
        let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if io.is_some_and(|inner| inner.is::<Private>()) {
            return FetchErrorKind::PrivateAddress;
        }
        match error.source() {
            Some(source) => error = source,
            None => return FetchErrorKind::Connection(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_that_are_not_public() {
        for public in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.9.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "203.0.113.5",
            "192.88.99.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "fec0::1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn what_may_be_asked() {
        let reach = |http, private| Reach { http, private, redirects: 0, max_body: 0 };
        let check = |reach: Reach, url: &str| reach.check(&url.parse().unwrap());
        use FetchErrorKind::{NotHttps, PrivateAddress, Url};
        for (allowed, url, expected) in [
            (reach(false, false), "https://lists.example/1", Ok(())),
            (reach(false, false), "http://lists.example/1", Err(NotHttps)),
            (reach(false, false), "https://127.0.0.1/1", Err(PrivateAddress)),
            (reach(false, false), "https://[::1]/1", Err(PrivateAddress)),
            (reach(false, false), "https://[::ffff:10.0.0.1]/1", Err(PrivateAddress)),
            (reach(false, false), "https://user@lists.example/1", Err(Url)),
            (reach(false, false), "/1", Err(Url)),
            (reach(false, false), "ftp://lists.example/1", Err(NotHttps)),
            (reach(true, false), "http://127.0.0.1:8080/1", Ok(())),
            (reach(true, false), "https://127.0.0.1:8080/1", Err(PrivateAddress)),
            (reach(true, false), "http://10.0.0.1/1", Err(PrivateAddress)),
            (reach(true, false), "http://169.254.169.254/latest", Err(PrivateAddress)),
            (reach(true, true), "http://10.0.0.1/1", Ok(())),
            (reach(false, true), "https://10.0.0.1/1", Ok(())),
        ] {
            assert_eq!(check(allowed, url), expected, "{url}");
        }
    }
}
