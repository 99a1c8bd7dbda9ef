//! Key sets that are fetched and kept fresh.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::Uri;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    Epoch, HttpFetch, KeyError,
    key::{KeySet, LiveKeys},
};

/// Gets documents: how key sets are fetched. [`HttpFetch`] does it over HTTP.
pub trait Fetch: Send + Sync + 'static {
    /// The document at `url`. It must not follow redirects. The caller limits the time, and drops the future then.
    ///
    /// # Errors
    ///
    /// Where there is no document to be had.
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Bytes, FetchError>>;
}

/// A document that could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    url: Box<str>,
    kind: FetchErrorKind,
}

/// What went wrong with a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchErrorKind {
    /// Not a URL with a host and without credentials.
    Url,
    /// Not `https`.
    NotHttps,
    /// No certificate authority to trust was found on this system.
    NoRoots,
    /// No connection, or it broke.
    Connection(String),
    /// Another status than 200 (RFC 9110 §15.3.1); redirects are not followed.
    Status(u16),
    /// The document is larger than allowed: 1 MiB for a key set.
    TooLarge,
    /// Its host is, or stands for, an address that is not public.
    PrivateAddress,
    /// Another media type or content coding than asked for.
    ContentType,
    /// Nothing came in time.
    Timeout,
    /// Not a JWK set.
    Content(KeyError),
}

impl FetchError {
    /// A failure to fetch `url`. Query and fragment are left out, since they may hold secrets.
    pub fn new(url: &str, kind: FetchErrorKind) -> Self {
        Self { url: redacted(url).into(), kind }
    }

    /// What was to be fetched.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What went wrong.
    pub const fn kind(&self) -> &FetchErrorKind {
        &self.kind
    }
}

/// The URL without query, fragment and credentials.
fn redacted(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not fetched: {}", self.url, self.kind)
    }
}

impl std::error::Error for FetchError {}

impl std::error::Error for FetchErrorKind {}

impl fmt::Display for FetchErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str("it is not a URL with a host and without credentials"),
            Self::NotHttps => f.write_str("it is not https; allow http explicitly if the network can be trusted"),
            Self::NoRoots => f.write_str("no certificate authorities were found; install them or set SSL_CERT_FILE"),
            Self::Connection(what) => write!(f, "the connection failed ({what})"),
            Self::Status(status) => {
                write!(f, "the answer was {status} and not 200; give the URL of the document itself")
            }
            Self::TooLarge => f.write_str("it is larger than allowed (1 MiB for a key set)"),
            Self::PrivateAddress => {
                f.write_str("its address is not a public one; allow private ones explicitly if it can be trusted")
            }
            Self::ContentType => f.write_str("its media type or content coding is not the one that was asked for"),
            Self::Timeout => f.write_str("nothing came in time"),
            Self::Content(error) => write!(f, "{error}"),
        }
    }
}

/// The URL of a JWK set, and how it is kept fresh.
///
/// A token that names an unknown `kid`, or names none and fits no key, has the set fetched again, but not sooner than
/// [`JwksUrl::min_interval`] after the last time, however many such tokens come. Such a token is
/// [`VerifyError::KeyNotAvailable`](crate::token::VerifyError::KeyNotAvailable) while a fetch is due or under way, and
/// [`VerifyError::Signature`](crate::token::VerifyError::Signature) where it would be too soon for one.
///
/// Whenever a fetch fails the keys that are there stay, and it is tried again after 1 s, 2 s, 4 s and so on up to 60 s.
/// A set without keys is not a failure: it withdraws them all.
#[derive(Clone)]
#[must_use]
pub struct JwksUrl {
    url: String,
    refresh_every: Duration,
    min_interval: Duration,
    timeout: Duration,
    allow_http: bool,
    fetch: Option<Arc<dyn Fetch>>,
}

impl JwksUrl {
    /// The set at this URL: fetched every 5 minutes, for an unknown `kid` at most every 10 seconds, within 5 seconds.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            refresh_every: Duration::from_secs(5 * 60),
            min_interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            allow_http: false,
            fetch: None,
        }
    }

    /// How often it is fetched without cause. At least a second.
    pub fn refresh_every(mut self, every: Duration) -> Self {
        self.refresh_every = every.max(Duration::from_secs(1));
        self
    }

    /// How long after the last fetch an unknown `kid` may cause another.
    pub const fn min_interval(mut self, interval: Duration) -> Self {
        self.min_interval = interval;
        self
    }

    /// How long one fetch may take.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Lets the URL be `http`. Whoever can change what the network carries can then make tokens.
    pub const fn allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Fetches in another way than with [`HttpFetch`].
    pub fn fetch_with(mut self, fetch: impl Fetch) -> Self {
        self.fetch = Some(Arc::new(fetch));
        self
    }

    pub(super) fn redacted(&self) -> String {
        redacted(&self.url)
    }

    fn error(&self, kind: FetchErrorKind) -> FetchError {
        FetchError::new(&self.url, kind)
    }

    fn check(&self) -> Result<(), FetchError> {
        let url: Uri = self.url.parse().map_err(|_| self.error(FetchErrorKind::Url))?;
        if url.authority().is_none_or(|authority| authority.host().is_empty() || authority.as_str().contains('@')) {
            return Err(self.error(FetchErrorKind::Url));
        }
        match url.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.allow_http => Ok(()),
            _ => Err(self.error(FetchErrorKind::NotHttps)),
        }
    }
}

impl fmt::Debug for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksUrl")
            .field("url", &self.redacted())
            .field("refresh_every", &self.refresh_every)
            .field("min_interval", &self.min_interval)
            .field("timeout", &self.timeout)
            .field("allow_http", &self.allow_http)
            .finish_non_exhaustive()
    }
}

/// Keeps one key set fresh, by a task that ends with it.
pub(super) struct Refresher {
    url: Box<str>,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// What the task and those who wait for it share.
struct Shared {
    min_interval: Duration,
    wanted: Notify,
    status: watch::Sender<Status>,
}

/// How fetching went.
#[derive(Clone, Default)]
struct Status {
    /// When it last succeeded.
    fetched: Option<Instant>,
    /// Why it failed since.
    error: Option<FetchError>,
}

impl Refresher {
    /// Begins to fetch. `keys` are those that `before` fetched from the same URL.
    pub(super) fn start(
        runtime: &Handle,
        url: &JwksUrl,
        keys: LiveKeys,
        epoch: Epoch,
        before: Option<&Self>,
    ) -> Result<Self, FetchError> {
        url.check()?;
        let fetch = match &url.fetch {
            Some(fetch) => Arc::clone(fetch),
            None => {
                let fetch = if url.allow_http { HttpFetch::allowing_http() } else { HttpFetch::new() };
                Arc::new(fetch.map_err(|kind| url.error(kind))?)
            }
        };
        let status = before.map(|before| before.shared.status.borrow().clone()).unwrap_or_default();
        let shared = Arc::new(Shared {
            min_interval: url.min_interval,
            wanted: Notify::new(),
            status: watch::Sender::new(status),
        });
        let job = Job { url: url.clone(), fetch, keys, epoch, shared: Arc::clone(&shared) };
        let task = runtime.spawn(job.run()).abort_handle();
        Ok(Self { url: url.url.as_str().into(), shared, task })
    }

    pub(super) fn is_for(&self, url: &JwksUrl) -> bool {
        *self.url == *url.url
    }

    /// A key is wanted that is not there. Whether it may yet come: the task fetches then. Not, if it just did.
    pub(super) fn want(&self) -> bool {
        if self.fetched_just_now() {
            return false;
        }
        self.shared.wanted.notify_one();
        true
    }

    /// Whether the limit on fetches stands in the way of another one now.
    pub(super) fn fetched_just_now(&self) -> bool {
        let fetched = self.shared.status.borrow().fetched;
        fetched.is_some_and(|fetched| fetched.elapsed() < self.shared.min_interval)
    }

    pub(super) async fn ready(&self, deadline: Instant) -> Result<(), FetchError> {
        let mut status = self.shared.status.subscribe();
        let fetched = status.wait_for(|status| status.fetched.is_some()).map(|_| ());
        if timeout_at(deadline, fetched).await.is_ok() {
            return Ok(());
        }
        let error = self.shared.status.borrow().error.clone();
        Err(error.unwrap_or_else(|| FetchError::new(&self.url, FetchErrorKind::Timeout)))
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task does.
struct Job {
    url: JwksUrl,
    fetch: Arc<dyn Fetch>,
    keys: LiveKeys,
    epoch: Epoch,
    shared: Arc<Shared>,
}

impl Job {
    async fn run(self) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let pause = match self.fetch().await {
                Ok(keys) => {
                    failures = 0;
                    self.keys.replace(keys, &self.epoch);
                    // What was asked for meanwhile is answered; the keys come first, then the word that they are new.
                    let _ = pin!(self.shared.wanted.notified()).now_or_never();
                    self.shared.status.send_modify(|status| {
                        *status = Status { fetched: Some(Instant::now()), error: None };
                    });
                    between(self.url.refresh_every.mul_f64(0.9), self.url.refresh_every)
                }
                Err(error) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!(%error, failures, "key set not fetched; the keys that are there stay");
                    self.shared.status.send_modify(|status| status.error = Some(error));
                    failures += 1;
                    back_off(failures)
                }
            };
            let wanted = async {
                self.shared.wanted.notified().await;
                sleep_until(began + self.url.min_interval).await;
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = wanted => {}
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let url = &self.url;
        let document =
            timeout(url.timeout, self.fetch.get(&url.url)).await.map_err(|_| url.error(FetchErrorKind::Timeout))??;
        if document.len() > KeySet::MAX_BYTES {
            return Err(url.error(FetchErrorKind::TooLarge));
        }
        let keys = KeySet::jwks(&document).map_err(|error| url.error(FetchErrorKind::Content(error)))?;
        Ok(keys.public())
    }
}

/// 1 s after the first failure, doubled with each, up to 60 s; spread, so that a fleet does not come back as one.
pub(super) fn back_off(failures: u32) -> Duration {
    const MOST: Duration = Duration::from_secs(60);
    let least = Duration::from_secs(1 << (failures - 1).min(6)).min(MOST);
    between(least, (least * 3 / 2).min(MOST))
}

/// A random time in this range.
fn between(least: Duration, most: Duration) -> Duration {
    let fraction = crate::random::u64() as f64 / u64::MAX as f64;
    least + most.saturating_sub(least).mul_f64(fraction)
}
