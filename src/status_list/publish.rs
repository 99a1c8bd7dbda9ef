//! The denylist as a Token Status List, for resource servers that do not run this crate.

use std::{
    convert::Infallible,
    fmt,
    io::Write as _,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::future::{BoxFuture, FutureExt as _};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{self, HeaderMap},
    request::Parts,
};
use http_body_util::Full;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tower_service::Service;

use super::{Bits, IndexError, Status, StatusIndex, StatusList, token::TYP};
use crate::{
    denylist::{Denylist, Reason, Verdict},
    time::Moment,
    token::{Identity, SignError, SigningKey, StatusClaim, StatusRef},
};

/// Publishes the denylist of one issuer as a signed list, of the tokens that a [`StatusIndex`] knows.
///
/// A token that the denylist refuses is INVALID in the list. The list is made anew when it is asked for and the denylist has
/// changed, but not more often than every second, and when half of its `ttl` is over. While this node cannot tell what is
/// revoked (it is not loaded, or stale), it answers 503: a list that is signed says what is so.
///
/// ```no_run
/// use std::sync::Arc;
/// use tower_revocation::{
///     Revocations,
///     status_list::{MemoryIndex, StatusListPublisher},
///     token::SigningKey,
/// };
///
/// # fn example(revocations: Revocations) -> Result<(), Box<dyn std::error::Error>> {
/// let index = Arc::new(MemoryIndex::new(1 << 20));
/// let publisher = Arc::new(StatusListPublisher::new(
///     Arc::clone(revocations.denylist()),
///     index,
///     SigningKey::file("status-list.key.pem")?,
///     "https://issuer.example/",
///     "https://issuer.example/statuslists/1",
///     1 << 20,
/// ));
/// // In axum: `Router::new().route_service("/statuslists/1", publisher.service())`.
/// # Ok(()) }
/// ```
pub struct StatusListPublisher {
    denylist: Arc<Denylist>,
    index: Arc<dyn StatusIndex>,
    key: SigningKey,
    iss: String,
    uri: String,
    entries: usize,
    bits: Bits,
    ttl: Duration,
    lifetime: Duration,
    current: ArcSwapOption<Published>,
    /// One makes it, others wait for that one.
    making: Mutex<()>,
}

struct Published {
    body: Bytes,
    gzip: Bytes,
    etag: HeaderValue,
    generation: u64,
    made: Moment,
}

/// Why there is no list to serve.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// This node cannot tell what is revoked at the moment.
    Unknown,
    /// The indexes could not be read.
    Index(IndexError),
    /// The key could not sign.
    Sign(SignError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("this node cannot tell what is revoked at the moment: it is not loaded, or stale")
            }
            Self::Index(error) => error.fmt(f),
            Self::Sign(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {}

impl StatusListPublisher {
    /// A list of `entries` tokens of the issuer `iss`, with a bit each, that is fetched at `uri`. It says so itself, for
    /// tokens have to name it in the same way.
    pub fn new(
        denylist: Arc<Denylist>,
        index: Arc<dyn StatusIndex>,
        key: SigningKey,
        iss: impl Into<String>,
        uri: impl Into<String>,
        entries: usize,
    ) -> Self {
        Self {
            denylist,
            index,
            key,
            iss: iss.into(),
            uri: uri.into(),
            entries,
            bits: Bits::ONE,
            ttl: Duration::from_secs(60),
            lifetime: Duration::from_secs(60 * 60),
            current: ArcSwapOption::empty(),
            making: Mutex::new(()),
        }
    }

    /// After how long whoever has the list should fetch it again (`ttl`), and how long it counts at most (`exp`). Whole
    /// seconds, at least one. Defaults: a minute, an hour.
    #[must_use]
    pub fn lasting(mut self, ttl: Duration, lifetime: Duration) -> Self {
        self.ttl = ttl.max(Duration::from_secs(1));
        self.lifetime = lifetime.max(self.ttl);
        self
    }

    /// Where tokens say that the list is.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Where indexes come from.
    pub fn index(&self) -> &Arc<dyn StatusIndex> {
        &self.index
    }

    /// Remembers the index of a token that points here; others are none of its business. Resolves once a crash can no
    /// longer forget it: release the token only then.
    ///
    /// # Errors
    ///
    /// As [`StatusIndex::record`].
    pub async fn learn(&self, token: &Identity) -> Result<(), IndexError> {
        match token.status() {
            StatusClaim::List(StatusRef { uri, idx }) if uri == self.uri && token.iss() == self.iss => {
                self.index.record(idx, token).await
            }
            _ => Ok(()),
        }
    }

    /// The list as a signed token (`statuslist+jwt`), as it is now.
    ///
    /// # Errors
    ///
    /// Where it could not be made.
    pub async fn token(&self) -> Result<String, PublishError> {
        let published = self.published().await?;
        Ok(String::from_utf8_lossy(&published.body).into_owned())
    }

    /// The same as a tower service.
    pub fn service(self: &Arc<Self>) -> StatusListService {
        StatusListService(Arc::clone(self))
    }

    async fn published(&self) -> Result<Arc<Published>, PublishError> {
        if let Some(current) = self.current.load_full().filter(|current| self.is_current(current)) {
            return Ok(current);
        }
        let _making = self.making.lock().await;
        if let Some(current) = self.current.load_full().filter(|current| self.is_current(current)) {
            return Ok(current);
        }
        let made = Arc::new(self.make().await?);
        self.current.store(Some(Arc::clone(&made)));
        Ok(made)
    }

    fn is_current(&self, published: &Published) -> bool {
        const LEAST: u64 = 1000;
        let age = self.denylist.now().millis_since(published.made);
        // What became unknown must not be served from before.
        let known = self.denylist.freshness(self.denylist.now()).is_none();
        let same = published.generation == self.denylist.generation();
        known && age < self.ttl.as_millis() as u64 / 2 && (same || age < LEAST)
    }

    async fn make(&self) -> Result<Published, PublishError> {
        // Read before anything is looked at: what changes meanwhile has it made again.
        let (generation, made) = (self.denylist.generation(), self.denylist.now());
        if self.denylist.freshness(made).is_some() {
            return Err(PublishError::Unknown);
        }
        let assigned = self.index.assigned(made.unix()).await.map_err(PublishError::Index)?;
        let mut list = StatusList::all_valid(self.bits, self.entries);
        for (number, (idx, token)) in assigned.into_iter().enumerate() {
            if number % 1024 == 0 {
                tokio::task::yield_now().await;
            }
            if token.iss() != self.iss {
                continue;
            }
            let status = match self.denylist.check_or_ask(&token).await {
                Verdict::Allow => continue,
                Verdict::Deny(Reason::OutOfBounds(_)) => continue,
                Verdict::Deny(_) => Status::INVALID,
                Verdict::Unknown(_) => return Err(PublishError::Unknown),
            };
            list.set(idx, status).map_err(|_| PublishError::Index(IndexError::OutOfRange))?;
        }
        let claims = json!({
            "iss": self.iss,
            "sub": self.uri,
            "iat": made.unix(),
            "exp": made.unix() + self.lifetime.as_secs(),
            "ttl": self.ttl.as_secs(),
            "status_list": { "bits": self.bits.get(), "lst": list.compress() },
        });
        let token = self.key.sign(TYP, claims.to_string().as_bytes()).map_err(PublishError::Sign)?;
        let gzip = gzip(token.as_bytes());
        Ok(Published { etag: etag(token.as_bytes()), gzip, body: token.into(), generation, made })
    }

    /// The answer to a request for the list (draft-ietf-oauth-status-list §8).
    pub async fn respond(&self, request: &Parts) -> Response<Bytes> {
        let plain = |status: StatusCode, name, value: HeaderValue| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = status;
            response.headers_mut().insert(name, value);
            response
        };
        if request.method != Method::GET && request.method != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        let no_store = HeaderValue::from_static("no-store");
        // How it was at another time is not kept (§8.4).
        if request.uri.query().is_some_and(asks_for_time) {
            return plain(StatusCode::NOT_IMPLEMENTED, header::CACHE_CONTROL, no_store);
        }
        if !accepts(&request.headers) {
            return plain(StatusCode::NOT_ACCEPTABLE, header::CACHE_CONTROL, no_store);
        }
        let published = match self.published().await {
            Ok(published) => published,
            Err(_error) => {
                #[cfg(feature = "tracing")]
                tracing::error!(error = %_error, uri = self.uri, "the status list could not be made");
                let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, header::CACHE_CONTROL, no_store);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                return response;
            }
        };
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        let left = self.ttl.as_secs().saturating_sub(self.denylist.now().millis_since(published.made) / 1000);
        if let Ok(age) = HeaderValue::try_from(format!("max-age={left}")) {
            headers.insert(header::CACHE_CONTROL, age);
        }
        headers.insert(header::ETAG, published.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        // Anybody may read it, browsers too (§8.1).
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if is_known(&request.headers, &published.etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/statuslist+jwt"));
        let body = if takes_gzip(&request.headers) {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            published.gzip.clone()
        } else {
            published.body.clone()
        };
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if request.method == Method::GET {
            *response.body_mut() = body;
        }
        response
    }
}

fn asks_for_time(query: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some("time"))
}

/// The items of a list header, with their weights taken off where these are not zero.
fn items(headers: &HeaderMap, name: header::HeaderName) -> Vec<String> {
    let lists = headers.get_all(name).iter().filter_map(|list| list.to_str().ok());
    let items = lists.flat_map(|list| list.split(',')).filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let essence = parts.next().filter(|essence| !essence.is_empty())?.to_ascii_lowercase();
        let zero = |part: &str| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        };
        (!parts.any(zero)).then_some(essence)
    });
    items.collect()
}

fn accepts(headers: &HeaderMap) -> bool {
    let accepted = items(headers, header::ACCEPT);
    !headers.contains_key(header::ACCEPT)
        || accepted.iter().any(|kind| ["application/statuslist+jwt", "application/*", "*/*"].contains(&kind.as_str()))
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    items(headers, header::ACCEPT_ENCODING).iter().any(|coding| coding == "gzip" || coding == "*")
}

/// A weak entity tag (RFC 9110 §8.8.3): the same for every coding.
fn etag(body: &[u8]) -> HeaderValue {
    let digest: String = Sha256::digest(body)[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    // Hexadecimal digits between quotes.
    HeaderValue::try_from(format!("W/\"{digest}\"")).unwrap_or(HeaderValue::from_static("W/\"\""))
}

fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let opaque = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut held = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    held.any(|held| held == b"*" || opaque(held) == opaque(etag.as_bytes()))
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}

impl fmt::Debug for StatusListPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iss, uri, key, entries, .. } = self;
        f.debug_struct("StatusListPublisher")
            .field("iss", iss)
            .field("uri", uri)
            .field("key", key)
            .field("entries", entries)
            .finish_non_exhaustive()
    }
}

/// The service that [`StatusListPublisher::service`] makes.
#[derive(Clone, Debug)]
pub struct StatusListService(Arc<StatusListPublisher>);

impl<B> Service<Request<B>> for StatusListService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let publisher = Arc::clone(&self.0);
        let (head, _) = request.into_parts();
        async move { Ok(publisher.respond(&head).await.map(Full::new)) }.boxed()
    }
}
