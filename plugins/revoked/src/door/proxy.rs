//! Passes requests on to the server behind, as they came but for what concerns one connection only (RFC 9110 §7.6.1).

use std::{error::Error as _, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;
use hyper::upgrade::{OnUpgrade, on};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tower_revocation::{
    endpoint::PeerAddress,
    streams::{Opening, StreamBody},
};

use super::main_listener::plain;
use crate::{
    body::ProxyBody,
    config::{Config, Fault, Upstream},
    listen::Slot,
    parts,
};

/// The way to the server behind.
#[derive(Debug)]
pub(super) struct Proxy {
    scheme: Scheme,
    authority: Authority,
    /// Put in front of each path; empty, or without a slash at its end.
    prefix: String,
    http1: Client<HttpsConnector<HttpConnector>, StreamBody<ProxyBody>>,
    /// For gRPC without TLS, which needs HTTP/2 from the first byte on.
    http2: Client<HttpsConnector<HttpConnector>, StreamBody<ProxyBody>>,
    always_http2: bool,
    response_timeout: Duration,
}

/// How long an idle connection is kept: less than what servers usually keep theirs for.
const IDLE: Duration = Duration::from_secs(50);
/// The most idle connections that are kept.
const MAX_IDLE: usize = 256;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

impl Proxy {
    pub(super) fn new(config: &Config, section: &Upstream) -> Result<Self, Fault> {
        let wrong = |what: &str| Fault::new("upstream.url", format!("{what}; write it like \"http://127.0.0.1:3000\""));
        let url: Uri = section.url.parse().map_err(|_| wrong("is no URL"))?;
        let scheme = url.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
        let scheme = scheme.ok_or_else(|| wrong("is neither http nor https"))?.clone();
        let authority = url.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("has no host"))?.clone();
        if authority.as_str().contains('@') || url.query().is_some() {
            return Err(wrong("has a user or a query"));
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(section.connect_timeout.0));
        let tls = tls(config, section)?;
        let https = || HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
        let client = |https: HttpsConnector<HttpConnector>, http2: bool| {
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MAX_IDLE)
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .http2_only(http2)
                .build(https)
        };
        Ok(Self {
            scheme,
            authority,
            prefix: url.path().trim_end_matches('/').to_owned(),
            http1: client(https().enable_http1().wrap_connector(tcp.clone()), false),
            http2: client(https().enable_http2().wrap_connector(tcp), true),
            always_http2: section.http2,
            response_timeout: section.response_timeout.0,
        })
    }

    /// Passes a request on, and its answer back.
    pub(super) async fn forward(&self, mut request: Request<StreamBody<ProxyBody>>) -> Response<ProxyBody> {
        if request.method() == Method::CONNECT {
            return plain(StatusCode::METHOD_NOT_ALLOWED);
        }
        let (Some(uri), true) = (self.uri(request.uri()), one_host(&mut request)) else {
            return plain(StatusCode::BAD_REQUEST);
        };
        join_cookies(&mut request);
        let slot = request.extensions_mut().remove::<Arc<Slot>>();
        let opening = request.extensions_mut().remove::<Opening>();
        let upgrade = upgrade_asked(&request);
        let from_client = upgrade.is_some().then(|| on(&mut request));
        forwarded(&mut request);
        strip(request.headers_mut());
        if let Some(protocol) = &upgrade {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, protocol.clone());
        }
        *request.uri_mut() = uri;
        let http2 = upgrade.is_none() && (self.always_http2 || is_grpc(request.headers()));
        *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        if !http2 && !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
            // A GET or HEAD is sent without its body otherwise.
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if http2 {
            // The authority of HTTP/2 is that of the URI (RFC 9113 §8.3.1); the client's name is in `X-Forwarded-Host`.
            request.headers_mut().remove(header::HOST);
        }
        let client = if http2 { &self.http2 } else { &self.http1 };
        let answered = timeout(self.response_timeout, client.request(request)).await;
        let mut response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if is_of_client(&error) => return plain(StatusCode::BAD_REQUEST),
            Ok(Err(error)) => {
                tracing::warn!(error = %chain(&error), upstream = %self.authority, "the server behind cannot be reached");
                return plain(StatusCode::BAD_GATEWAY);
            }
            Err(_) => {
                tracing::warn!(upstream = %self.authority, "the server behind did not answer in time");
                return plain(StatusCode::GATEWAY_TIMEOUT);
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (Some(from_client), Some(asked)) = (from_client, upgrade) else {
                return plain(StatusCode::BAD_GATEWAY);
            };
            let protocol = response.headers().get(header::UPGRADE).cloned().unwrap_or(asked);
            join(from_client, on(&mut response), slot, opening.as_ref());
            strip(response.headers_mut());
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(header::UPGRADE, protocol);
        } else {
            strip(response.headers_mut());
        }
        // Each side speaks its own version (RFC 9110 §2.5).
        *response.version_mut() = Version::default();
        response.map(ProxyBody::from)
    }

    fn uri(&self, asked: &Uri) -> Option<Uri> {
        let asked = asked.path_and_query().map_or("/", PathAndQuery::as_str);
        // `OPTIONS *` is about a server as a whole.
        let path = if asked == "*" { asked.to_owned() } else { format!("{}{asked}", self.prefix) };
        let builder = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        builder.path_and_query(path).build().ok()
    }
}

/// The protocol that the client asks to change to, such as `websocket`. Only HTTP/1.1 has that.
fn upgrade_asked<B>(request: &Request<B>) -> Option<HeaderValue> {
    let asks = options(request.headers()).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let protocol = request.headers().get(header::UPGRADE)?;
    // These would be connections whose requests nobody checks. Bytes: what is not text may be read as a list all the same.
    let text = protocol.as_bytes().to_ascii_lowercase();
    let carries_requests = |name: &[u8]| text.windows(name.len()).any(|part| part == name);
    let unchecked = carries_requests(b"h2c") || carries_requests(b"http") || carries_requests(b"tls");
    (asks && request.version() == Version::HTTP_11 && !unchecked).then(|| protocol.clone())
}

/// The options of the connection.
fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Removes what concerns the connection alone.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = options(headers).filter_map(|name| name.parse().ok()).collect();
    // Whoever names what a message is about would make the server behind see another message than was checked.
    let kept = [header::AUTHORIZATION, header::COOKIE, header::HOST, header::CONTENT_TYPE, X_FORWARDED_FOR];
    for name in named.iter().filter(|name| !kept.contains(name) && !name.as_str().starts_with("x-forwarded-")) {
        headers.remove(name);
    }
    // gRPC asks for trailers by it.
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Leaves one name of the server in `Host`: that of the target where it has one (RFC 9112 §3.2.2, RFC 9113 §8.3.1). False
/// where it cannot be told.
fn one_host<B>(request: &mut Request<B>) -> bool {
    if let Some(authority) = request.uri().authority() {
        let Some(name) = HeaderValue::from_str(authority.as_str()).ok().filter(|name| !name.as_bytes().contains(&b'@'))
        else {
            return false;
        };
        request.headers_mut().insert(header::HOST, name);
        return true;
    }
    match request.headers().get_all(header::HOST).iter().count() {
        0 => request.version() != Version::HTTP_11,
        count => count == 1,
    }
}

/// Joins what HTTP/2 may split (RFC 9113 §8.2.3).
fn join_cookies<B>(request: &mut Request<B>) {
    let mut cookies = request.headers().get_all(header::COOKIE).iter();
    if request.version() != Version::HTTP_2 || cookies.nth(1).is_none() {
        return;
    }
    let all: Vec<_> = request.headers().get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        request.headers_mut().insert(header::COOKIE, joined);
    }
}

/// Says whose request it is and how it came. What the client itself says of that goes in front, or away.
fn forwarded<B>(request: &mut Request<B>) {
    let peer = request.extensions().get::<PeerAddress>().map(|PeerAddress(peer)| peer.ip().to_canonical().to_string());
    let tls = request.extensions().get::<crate::listen::OverTls>().is_some();
    let headers = request.headers_mut();
    if let Some(peer) = peer {
        let before: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
        let all = before.into_iter().chain([peer.as_str()]).collect::<Vec<_>>().join(", ");
        if let Ok(all) = HeaderValue::from_str(&all) {
            headers.insert(X_FORWARDED_FOR, all);
        }
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(if tls { "https" } else { "http" }));
    match headers.get(header::HOST).cloned() {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
}

fn is_grpc(headers: &HeaderMap) -> bool {
    // gRPC-Web goes over HTTP/1.1.
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

/// Carries bytes both ways until both ends have nothing more to say, or the token is revoked that the connection was opened
/// with: then it is closed. Till then the connection counts as open.
fn join(client: OnUpgrade, server: OnUpgrade, slot: Option<Arc<Slot>>, opening: Option<&Opening>) {
    let mut open = opening.map(Opening::open);
    let ended = async move {
        match &mut open {
            Some(open) => open.ended().await,
            None => std::future::pending().await,
        }
    };
    let carried = async {
        let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return Ok(()) };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
    };
    tokio::spawn(async move {
        let _slot = slot;
        tokio::select! {
            why = ended => tracing::debug!(reason = why.as_str(), "an upgraded connection was closed"),
            carried = carried => if let Err(error) = carried {
                tracing::debug!(%error, "an upgraded connection ended early");
            },
        }
    });
}

fn tls(config: &Config, section: &Upstream) -> Result<ClientConfig, Fault> {
    let fault = |error: &dyn std::fmt::Display| Fault::new("upstream.ca_file", error);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| fault(&error))?;
    let mut roots = RootCertStore::empty();
    match &section.ca_file {
        Some(path) => {
            for certificate in parts::certificates(&config.path(path), "upstream.ca_file")? {
                roots.add(certificate).map_err(|error| fault(&error))?;
            }
        }
        // Only where it is needed: a small container may have none.
        None if section.url.starts_with("https") => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(fault(&"no certificate authorities were found; install them, or name a file"));
            }
        }
        None => {}
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Whether it is the client's body that broke off or could not be read.
fn is_of_client(error: &hyper_util::client::legacy::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_user)
}

/// An error with its causes.
fn chain(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.extend([": ", &error.to_string()]);
        cause = error.source();
    }
    text
}
