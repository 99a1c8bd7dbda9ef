//! Asks the issuer: once for all who wait for the same token, a few at a time, within a time limit.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, StatusCode, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    time::timeout,
};

use super::{
    Introspection, IntrospectionCredentials,
    answer::{Answer, MAX_ANSWER, Reading},
    checked,
    held::{Cache, Held, Outcome},
};
use crate::{
    denylist::Why,
    policy::MissingClaim,
    reject::Rejection,
    revocation::ScopeHasher,
    time::{Clock, Moment},
    token::{
        Claims, Identity, OpaqueKeys, ScopeKeys, VerifiedClaims as _, VerifyError,
        cache::Verified,
        jwt,
        question::{Known, Told},
        source::Context,
        strict::{CompactJws, Members, StrictClaims},
    },
};

/// Settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IntrospectionError {
    /// Not a URL with a host, and without credentials and fragment.
    Url,
    /// Not `https`.
    NotHttps,
    /// The issuer is empty.
    NoIssuer,
    /// The credentials hold what no header can.
    Credentials,
    /// There is no tokio runtime to ask from.
    NoRuntime,
    /// No certificate authority to trust was found on this system.
    NoRoots,
}

impl fmt::Display for IntrospectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "the introspection URL is not a URL with a host and without credentials and fragment",
            Self::NotHttps => "the introspection URL is not https; allow http explicitly if the network can be trusted",
            Self::NoIssuer => "introspection needs the issuer of the tokens; it is empty",
            Self::Credentials => "the credentials for introspection hold what no header can",
            Self::NoRuntime => "introspection asks from tasks; make it inside a tokio runtime",
            Self::NoRoots => "no certificate authorities were found; install them or set SSL_CERT_FILE",
        })
    }
}

impl Error for IntrospectionError {}

/// The issuer's endpoint.
#[derive(Clone)]
pub(super) struct Server {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    authorization: Option<HeaderValue>,
    credentials: IntrospectionCredentials,
    pub(super) reading: Reading,
}

/// Why there is no answer. Never holds anything of it.
#[derive(Debug)]
enum Failure {
    Connection(String),
    Status(StatusCode),
    NotJson,
    Unreadable,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(what) => write!(f, "the connection failed ({what})"),
            Self::Status(status) => write!(f, "the answer was {} and not 200", status.as_u16()),
            Self::NotJson => f.write_str("the answer was no application/json, or coded"),
            Self::Unreadable => f.write_str(
                "the answer was not one of RFC 7662: a JSON object with the Boolean `active`, read strictly",
            ),
        }
    }
}

impl Server {
    pub(super) fn new(
        url: &str,
        issuer: String,
        credentials: IntrospectionCredentials,
        http: bool,
    ) -> Result<Self, IntrospectionError> {
        let url = checked(url, http)?;
        if issuer.is_empty() {
            return Err(IntrospectionError::NoIssuer);
        }
        let authorization = credentials.header().transpose().map_err(|_| IntrospectionError::Credentials)?;
        let connector = jwt::connector(http).map_err(|_| IntrospectionError::NoRoots)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Self { client, url, authorization, credentials, reading: Reading::new(issuer) })
    }

    async fn post(&self, token: &str) -> Result<Bytes, Failure> {
        let form = self.credentials.form(token);
        let mut request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::from_owner(form))).map_err(|_| Failure::Unreadable)?;
        let response = self.client.request(request).await.map_err(|error| connection(&error))?;
        // A redirect is no answer: it would carry the token elsewhere.
        if response.status() != StatusCode::OK {
            return Err(Failure::Status(response.status()));
        }
        if !is_plain_json(response.headers()) {
            return Err(Failure::NotJson);
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| connection(&*error))
    }
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else { return false };
    let media = one.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let plain = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    media.eq_ignore_ascii_case(b"application/json") && headers.get_all(CONTENT_ENCODING).iter().all(plain)
}

/// The cause at the bottom: those above only say that there was one.
fn connection(mut error: &(dyn Error + 'static)) -> Failure {
    while let Some(source) = error.source() {
        error = source;
    }
    Failure::Connection(error.to_string())
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("host", &self.url.authority())
            .field("reading", &self.reading)
            .finish_non_exhaustive()
    }
}

/// What has been done so far, for metrics.
#[derive(Clone, Debug, Default)]
pub struct IntrospectionCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    failed: AtomicU64,
    turned_away: AtomicU64,
}

impl IntrospectionCounts {
    /// Questions that were asked.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Questions that were not answered in time, or not in a way that can be read.
    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// Tokens that were not asked about, since too many were waiting.
    pub fn turned_away(&self) -> u64 {
        self.0.turned_away.load(Ordering::Relaxed)
    }
}

/// The questions that are being asked.
pub(super) struct Asking {
    runtime: Handle,
    pub(super) limit: Duration,
    turns: Arc<Semaphore>,
    most_waiting: usize,
    flights: Arc<Flights>,
    counts: IntrospectionCounts,
}

type Flights = Mutex<HashMap<Box<str>, watch::Receiver<Heard>>>;

/// `None` while it is under way.
type Heard = Option<Result<Arc<Held>, Why>>;

/// How many may wait for each that is asked.
const WAITING: usize = 16;

impl Asking {
    pub(super) fn new(limit: Duration, at_once: usize) -> Result<Self, IntrospectionError> {
        let runtime = Handle::try_current().map_err(|_| IntrospectionError::NoRuntime)?;
        let mut asking = Self {
            runtime,
            limit,
            turns: Arc::new(Semaphore::new(0)),
            most_waiting: 0,
            flights: Arc::default(),
            counts: IntrospectionCounts::default(),
        };
        asking.at_once(at_once);
        Ok(asking)
    }

    pub(super) fn at_once(&mut self, most: usize) {
        let most = most.min(Semaphore::MAX_PERMITS);
        self.turns = Arc::new(Semaphore::new(most));
        self.most_waiting = most.saturating_mul(WAITING);
    }

    pub(super) fn counts(&self) -> IntrospectionCounts {
        self.counts.clone()
    }
}

fn lock(flights: &Flights) -> MutexGuard<'_, HashMap<Box<str>, watch::Receiver<Heard>>> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Introspection {
    /// What the issuer says of a token.
    pub(super) fn ask(&self, token: &str, context: Context<'_>) -> Told {
        let joined = self.join(token, context);
        Box::pin(async move {
            let mut flight = joined.map_err(Rejection::Unknown)?;
            let no_answer = Rejection::Unknown(Why::NoAnswer);
            // It never ends without an outcome, but with its runtime.
            let told = flight.wait_for(Option::is_some).await.map_err(|_| no_answer)?.clone();
            let held = told.ok_or(no_answer)?.map_err(Rejection::Unknown)?;
            match &held.outcome {
                Outcome::Inactive(error) => Err(Rejection::Token(*error)),
                Outcome::Active { verified, digests } => Ok(Known::told(Arc::clone(verified), digests.clone())),
            }
        })
    }

    /// Joins the question about this token that is under way, or asks one.
    fn join(&self, token: &str, context: Context<'_>) -> Result<watch::Receiver<Heard>, Why> {
        let mut flights = lock(&self.asking.flights);
        if let Some(flight) = flights.get(token) {
            return Ok(flight.clone());
        }
        if flights.len() >= self.asking.most_waiting {
            self.asking.counts.0.turned_away.fetch_add(1, Ordering::Relaxed);
            return Err(Why::NotAsked);
        }
        let (told, awaited) = watch::channel(None);
        flights.insert(token.into(), awaited.clone());
        let denylist = context.denylist;
        let flight = Flight {
            token: token.into(),
            flights: Arc::clone(&self.asking.flights),
            told,
            counts: self.asking.counts.clone(),
            server: Arc::clone(&self.server),
            cache: self.cache.share(),
            reader: Reader {
                digests: self.digests.clone(),
                keep: self.keep,
                keep_inactive: self.keep_inactive,
                missing_exp: self.missing_exp,
                hasher: denylist.hasher().clone(),
                leeway: denylist.lifetimes().leeway_secs(),
            },
            clock: Arc::clone(denylist.clock()),
        };
        // It goes on where the one who asked first stops waiting, for the others and for the next.
        self.asking.runtime.spawn(flight.run(Arc::clone(&self.asking.turns), self.asking.limit));
        Ok(awaited)
    }
}

/// One question under way.
struct Flight {
    token: Box<str>,
    flights: Arc<Flights>,
    told: watch::Sender<Heard>,
    counts: IntrospectionCounts,
    server: Arc<Server>,
    cache: Cache,
    reader: Reader,
    clock: Arc<dyn Clock>,
}

impl Flight {
    async fn run(self, turns: Arc<Semaphore>, limit: Duration) {
        // Whatever the issuer says is as of now at the earliest.
        let asked = self.clock.now();
        let answered = timeout(limit, async {
            let _turn = turns.acquire().await;
            self.counts.0.asked.fetch_add(1, Ordering::Relaxed);
            let body = self.server.post(&self.token).await?;
            self.reader.read(&self.server.reading, &self.token, &body, asked)
        })
        .await;
        let held = match answered {
            Ok(Ok(held)) => Ok(Arc::new(held)),
            Ok(Err(_failure)) => {
                #[cfg(feature = "tracing")]
                tracing::warn!(issuer = %self.server.reading.issuer, error = %_failure, "introspection failed");
                Err(Why::NoAnswer)
            }
            Err(_) => {
                #[cfg(feature = "tracing")]
                tracing::warn!(issuer = %self.server.reading.issuer, ?limit, "introspection failed: no answer in time");
                Err(Why::NoAnswer)
            }
        };
        match &held {
            Ok(held) => self.cache.insert(&self.token, Arc::clone(held)),
            Err(_) => drop(self.counts.0.failed.fetch_add(1, Ordering::Relaxed)),
        }
        self.told.send_replace(Some(held));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        lock(&self.flights).remove(&self.token);
        // A panic on the way must not leave anybody waiting.
        self.told.send_if_modified(|told| {
            let missing = told.is_none();
            told.get_or_insert(Err(Why::NoAnswer));
            missing
        });
    }
}

/// Turns answers into what is held.
struct Reader {
    digests: OpaqueKeys,
    keep: Duration,
    keep_inactive: Duration,
    missing_exp: MissingClaim,
    hasher: ScopeHasher,
    leeway: u64,
}

impl Reader {
    fn read(&self, reading: &Reading, token: &str, json: &[u8], asked: Moment) -> Result<Held, Failure> {
        let inactive = |error| Ok(Held::new(Outcome::Inactive(error), asked, self.keep_inactive));
        let answer = reading.read(json, asked.unix().saturating_add(self.leeway)).map_err(|_| Failure::Unreadable)?;
        let claims = match answer {
            Answer::Inactive(error) => return inactive(error),
            Answer::Active(claims) => claims,
        };
        let exp = match claims.exp {
            Some(exp) => exp,
            // Then it counts until the issuer is asked next.
            None if self.missing_exp == MissingClaim::Allow => {
                asked.unix().saturating_add(self.keep.as_secs()).saturating_add(1)
            }
            None => return inactive(VerifyError::LivesTooLong),
        };
        let digests: Vec<_> = self.digests.digests(token.as_bytes()).collect();
        let mut keys: Vec<ScopeKeys> =
            digests.iter().map(|digest| Claims::default().opaque(digest).keys(&self.hasher)).collect();
        keys.extend(self.keys_of_jwt(reading, token));
        let told = Claims {
            signing_input: None,
            opaque: digests.first(),
            exp: Some(exp),
            ..claims.as_claims(&reading.issuer, b"")
        };
        let identity = Identity::from_verified(&told);
        let own = identity.claims().keys(&self.hasher);
        let verified = Arc::new(Verified::new(token, identity, own, 0));
        // Never past its end.
        let keep = self.keep.min(Duration::from_secs(exp.saturating_sub(asked.unix())));
        Ok(Held::new(Outcome::Active { verified, digests: keys.into() }, asked, keep))
    }

    /// Of a JWT, which others may revoke by what it says itself. Its issuer has vouched for it.
    fn keys_of_jwt(&self, reading: &Reading, token: &str) -> Option<ScopeKeys> {
        let jws = CompactJws::parse(token).ok()?;
        let payload = Members::parse(&jws.payload).ok()?;
        let claims: StrictClaims<'_> = payload.claims(&reading.names).ok()?;
        Some(claims.as_claims(&reading.issuer, jws.signing_input).keys(&self.hasher))
    }
}
