//! Tells registered clients of logouts (OpenID Connect Back-Channel Logout 1.0 §2.5).

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::json;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use super::{
    logout::{EVENT, TYP},
    post::{Post, SendError},
};
use crate::{
    recorder::Recorder,
    revocation::{Revocation, Scope},
    time::{Clock, SystemClock},
    token::SigningKey,
};

/// How long an answer may take.
const LONGEST: Duration = Duration::from_secs(10);
/// The first time between two tries; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const BACK_OFF: Duration = Duration::from_secs(60);
/// How many messages go to one client at the same time.
const AT_ONCE: usize = 4;
/// How long a logout token is good for, in seconds (§2.4 encourages no more than two minutes).
const LIFETIME: u64 = 120;

/// Sends logout tokens to clients, as the provider that ended a session.
///
/// What is sent follows from revocations made here: of a session, with its `sid`; of a subject, with its `sub`; of one
/// client's part of either, to that client alone. Only those of this issuer count. With a [`Recorder`], only clients that
/// have grants of that session or user are told; without, each one.
///
/// Put [`LogoutNotices::notify`] into [`Endpoints::after_revocation`](super::Endpoints::after_revocation): the node that
/// answered a request sends, and no other. The queue is in memory and bounded. What is waiting in it is lost when the
/// process ends, and what does not fit is dropped and counted: the revocation itself stands in either case.
#[must_use]
pub struct LogoutSender {
    issuer: String,
    key: SigningKey,
    clients: Vec<(String, String, bool)>,
    recorder: Option<Recorder>,
    queue: usize,
    attempts: u32,
    allow_http: bool,
}

/// A running [`LogoutSender`]. Clones send together.
#[derive(Clone)]
pub struct LogoutNotices(Arc<Inner>);

struct Inner {
    issuer: String,
    key: SigningKey,
    clients: BTreeMap<String, Receiver>,
    recorder: Option<Recorder>,
    attempts: u32,
    post: Post,
    room: Arc<Semaphore>,
    runtime: Handle,
    counts: Counts,
}

struct Receiver {
    url: Uri,
    session_required: bool,
    at_once: Semaphore,
}

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    given_up: AtomicU64,
    dropped: AtomicU64,
}

impl LogoutSender {
    /// Signs as this issuer, with this key, whose public part the issuer publishes.
    pub fn new(issuer: impl Into<String>, key: SigningKey) -> Self {
        let clients = Vec::new();
        Self { issuer: issuer.into(), key, clients, recorder: None, queue: 10_000, attempts: 8, allow_http: false }
    }

    /// Tells this client at its `backchannel_logout_uri`; with `session_required`
    /// (`backchannel_logout_session_required`) only of sessions, by their `sid`.
    pub fn client(mut self, client_id: impl Into<String>, uri: impl Into<String>, session_required: bool) -> Self {
        self.clients.push((client_id.into(), uri.into(), session_required));
        self
    }

    /// Tells only clients that have grants of what was revoked.
    pub fn recorder(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// How many revocations may wait until all their clients are told. Default: 10,000.
    pub const fn queue(mut self, most: usize) -> Self {
        self.queue = most;
        self
    }

    /// How often to try each client: after 1 s, 2 s, 4 s and so on up to a minute. Default: 8 times, some two minutes.
    pub const fn attempts(mut self, most: u32) -> Self {
        self.attempts = most;
        self
    }

    /// Allows clients at plain http: where nobody else can listen.
    pub const fn allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// Begins, on the present tokio runtime.
    ///
    /// # Errors
    ///
    /// Where nothing may be sent to the URL of a client.
    pub fn start(self) -> Result<LogoutNotices, SendError> {
        let Self { issuer, key, clients, recorder, queue, attempts, allow_http } = self;
        let runtime = Handle::try_current().map_err(|_| SendError::NoRuntime)?;
        let post = Post::new(allow_http)?;
        let mut all = BTreeMap::new();
        for (id, url, session_required) in clients {
            let url = post.check(&url)?;
            all.insert(id, Receiver { url, session_required, at_once: Semaphore::new(AT_ONCE) });
        }
        let room = Arc::new(Semaphore::new(queue.min(Semaphore::MAX_PERMITS)));
        let counts = Counts::default();
        Ok(LogoutNotices(Arc::new(Inner {
            issuer,
            key,
            clients: all,
            recorder,
            attempts,
            post,
            room,
            runtime,
            counts,
        })))
    }
}

/// What a logout is about.
#[derive(Clone, PartialEq, Eq)]
struct Notice {
    scope: Scope,
    sub: Option<String>,
    sid: Option<String>,
    /// The only client that it concerns.
    client: Option<String>,
}

impl LogoutNotices {
    /// Tells the clients that these revocations concern. It never waits.
    pub fn notify(&self, revocations: &[Revocation]) {
        let mut notices: Vec<Notice> = Vec::new();
        for revocation in revocations {
            if let Some(notice) = self.0.notice(revocation.scope())
                && !notices.contains(&notice)
            {
                notices.push(notice);
            }
        }
        // Whoever is told of the user needs not be told of each session.
        let users = notices.iter().any(|notice| notice.sid.is_none());
        for notice in notices {
            let Ok(room) = Arc::clone(&self.0.room).try_acquire_owned() else {
                self.0.counts.dropped.fetch_add(1, Ordering::Relaxed);
                #[cfg(feature = "tracing")]
                tracing::error!("the queue of logout tokens is full; clients are not told of a logout");
                continue;
            };
            let inner = Arc::clone(&self.0);
            let only_required = users && notice.sid.is_some();
            self.0.runtime.spawn(async move { inner.tell(notice, only_required, room).await });
        }
    }

    /// How many messages were delivered, refused by the client, tried again, given up, and revocations that no message
    /// was made for since the queue was full.
    pub fn counts(&self) -> [(&'static str, u64); 5] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { delivered, refused, retried, given_up, dropped } = &self.0.counts;
        [
            ("delivered", load(delivered)),
            ("refused", load(refused)),
            ("retried", load(retried)),
            ("given_up", load(given_up)),
            ("dropped", load(dropped)),
        ]
    }
}

impl Inner {
    fn notice(&self, scope: &Scope) -> Option<Notice> {
        let notice = |sub: Option<&String>, sid: Option<&String>, client: Option<&String>| Notice {
            scope: scope.clone(),
            sub: sub.cloned(),
            sid: sid.cloned(),
            client: client.cloned(),
        };
        let notice = match scope {
            // A grant stands for a session by its own id, which no client knows.
            Scope::Session { sid, .. } if sid.starts_with("grant:") => return None,
            Scope::Session { sid, .. } => notice(None, Some(sid), None),
            Scope::ClientSession { sid, client_id, .. } => notice(None, Some(sid), Some(client_id)),
            Scope::Subject { sub, .. } => notice(Some(sub), None, None),
            Scope::SubjectClient { sub, client_id, .. } => notice(Some(sub), None, Some(client_id)),
            _ => return None,
        };
        (scope.iss() == Some(&*self.issuer)).then_some(notice)
    }

    async fn tell(self: Arc<Self>, notice: Notice, only_required: bool, _room: OwnedSemaphorePermit) {
        let known = self.known(&notice.scope).await;
        let concerned = self.clients.iter().filter(|(id, client)| {
            notice.client.as_ref().is_none_or(|only| only == *id)
                && known.as_ref().is_none_or(|known| known.contains(*id))
                && (!client.session_required || notice.sid.is_some())
                && (!only_required || client.session_required)
        });
        futures_util::future::join_all(concerned.map(|(id, client)| self.deliver(id, client, &notice))).await;
    }

    /// The clients that have grants of it; `None` where nobody can say.
    async fn known(&self, scope: &Scope) -> Option<HashSet<String>> {
        let grants = self.recorder.as_ref()?.grants_of(scope).await.ok()?;
        // One whose client is not known may be anybody's.
        grants.into_iter().map(|grant| grant.client_id).collect()
    }

    async fn deliver(&self, id: &str, client: &Receiver, notice: &Notice) {
        let mut wait = PAUSE;
        for attempt in 1..=self.attempts.max(1) {
            match self.send(id, client, notice).await {
                Some(StatusCode::OK | StatusCode::NO_CONTENT) => {
                    self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                // It will say the same again; a redirect is followed by nobody.
                Some(status)
                    if !status.is_server_error()
                        && ![StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status) =>
                {
                    self.counts.refused.fetch_add(1, Ordering::Relaxed);
                    #[cfg(feature = "tracing")]
                    tracing::warn!(client = id, status = status.as_u16(), "a client refused a logout token");
                    return;
                }
                _ if attempt < self.attempts => {
                    self.counts.retried.fetch_add(1, Ordering::Relaxed);
                    sleep(wait).await;
                    wait = (wait * 2).min(BACK_OFF);
                }
                _ => {}
            }
        }
        self.counts.given_up.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "tracing")]
        tracing::error!(client = id, "a client could not be told of a logout");
    }

    /// One try, with a token of its own: the last one may be over by now, and what it asks for is idempotent.
    async fn send(&self, id: &str, client: &Receiver, notice: &Notice) -> Option<StatusCode> {
        let _turn = client.at_once.acquire().await.ok()?;
        let iat = SystemClock.exact().unix();
        let mut claims = json!({
            "iss": self.issuer,
            "aud": id,
            "iat": iat,
            "exp": iat + LIFETIME,
            "jti": format!("{:032x}", u128::from_ne_bytes(crate::random::bytes())),
            "events": { EVENT: {} },
        });
        for (name, value) in [("sub", &notice.sub), ("sid", &notice.sid)] {
            if let Some(value) = value {
                claims[name] = json!(value);
            }
        }
        let token = self.key.sign(TYP, claims.to_string().as_bytes()).ok()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(super::form::FORM));
        let body = format!("logout_token={token}");
        let (status, _) = self.post.send(&client.url, headers, body, 64 << 10, LONGEST).await?;
        Some(status)
    }
}

impl fmt::Debug for LogoutSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogoutSender")
            .field("issuer", &self.issuer)
            .field("clients", &self.clients.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LogoutNotices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogoutNotices({:?})", self.counts())
    }
}
