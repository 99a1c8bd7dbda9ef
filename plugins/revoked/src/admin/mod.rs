//! The admin listener: health, metrics, the API of operators, and the page that uses it.
//!
//! `docs/revoked.md` tells what it answers; `route` has the list that the answers and their OpenAPI document come from.

mod answer;
mod auth;
mod body;
mod check;
mod denials;
mod feed;
mod health;
mod import;
mod list;
mod live;
mod metrics;
mod openapi;
mod page;
mod preview;
mod report;
mod revoke;
mod route;
mod scope;
mod streams;
mod switch;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower_revocation::endpoint::PeerAddress;

pub use self::{
    answer::AdminBody,
    auth::{Access, token_path},
    metrics::OF_DAEMON,
};
use self::{
    answer::Problem,
    route::{Call, Need},
};
use crate::engine::Engine;

/// How many connections may be open, apart from those of the other listeners: who floods those must not lock operators
/// out.
pub const CONNECTIONS: usize = 256;
/// How many requests may read everything that the store holds, at once.
const SCANS: usize = 4;
/// How long one of these waits for the others: longer than a reader that stands still is borne with.
const TURN: Duration = Duration::from_secs(30);
/// How many requests may be sent changes as they happen.
const WATCHERS: usize = 64;

/// Answers operators, and whoever looks after the daemon's health.
#[derive(Clone)]
pub struct AdminListener {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<Engine>,
    access: Access,
    stop: CancellationToken,
    exposition: metrics::Exposition,
    scans: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
}

impl AdminListener {
    /// The listener in front of this engine; `stop` ends what would go on for ever.
    pub fn new(engine: Arc<Engine>, access: Access, stop: CancellationToken) -> Self {
        let (scans, watchers) = (Arc::new(Semaphore::new(SCANS)), Arc::new(Semaphore::new(WATCHERS)));
        let exposition = metrics::Exposition::of(&engine);
        Self { inner: Arc::new(Inner { engine, access, stop, exposition, scans, watchers }) }
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<AdminBody> {
        let mut response = match self.inner.answer(request).await {
            Ok(response) => response,
            Err(problem) => problem.response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
        response
    }
}

impl Inner {
    /// The right to read everything. Whoever waits for it in vain hears so.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = || Problem::unavailable("too much is being read already");
        let turn = timeout(TURN, Arc::clone(&self.scans).acquire_owned()).await;
        turn.map_err(|_| busy())?.map_err(|_| busy())
    }

    /// The right to be sent changes as they happen.
    fn watcher(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let watcher = Arc::clone(&self.watchers).try_acquire_owned();
        watcher.map_err(|_| Problem::unavailable("too many are watching already"))
    }

    /// The latest cutoff that is recorded at `now` as it was asked for: clocks may be off, and not by more.
    fn latest_cutoff(&self, now: u64) -> u64 {
        let tokens = &self.engine.config().tokens;
        now.saturating_add(tokens.leeway.0.max(tokens.skew.0).as_secs())
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<AdminBody>, Problem> {
        let (head, body) = request.into_parts();
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        if let Some(file) = page::find(head.uri.path()) {
            self.access.judge_names(&head.headers, &head.uri)?;
            return file.answer(method);
        }
        let route = route::find(method, head.uri.path())?;
        if route.need != Need::Nothing {
            let peer = head.extensions.get::<PeerAddress>().map(|PeerAddress(peer)| *peer);
            self.access.admit(route.need, peer, &head.headers, &head.uri)?;
        }
        let query = list::Query::new(route, &head.uri)?;
        body::fits(route, &head.headers)?;
        match route.call {
            Call::Live => Ok(health::live()),
            Call::Ready => Ok(health::ready(self)),
            Call::Status => Ok(health::status(self)),
            Call::Nodes => Ok(health::nodes(self)),
            Call::Report => Ok(report::answer(self)),
            Call::Metrics => Ok(metrics::answer(self)),
            Call::OpenApi => Ok(openapi::answer()),
            Call::List => list::answer(self, &query).await,
            Call::Revoke => revoke::revoke(self, body::json(body).await?).await,
            Call::Lift => revoke::lift(self, body::json(body).await?).await,
            Call::Preview => preview::answer(self, body::json(body).await?).await,
            Call::Check => Ok(check::answer(self, body::json(body).await?).await),
            Call::Endpoints => Ok(switch::list(self)),
            Call::Switch => switch::turn(self, &body::json(body).await?),
            Call::Watch => streams::watch(self),
            Call::Feed => feed::answer(self),
            Call::Denials => Ok(denials::answer(self)),
            Call::Export => streams::export(self).await,
            Call::Import => import::answer(self, body).await,
        }
    }
}

/// What an operator's name becomes in the audit trail; no client of the endpoints can have the same.
fn author(by: Option<&str>) -> String {
    by.map_or_else(|| "admin".to_owned(), |by| format!("admin:{by}"))
}

impl fmt::Debug for AdminListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminListener").finish_non_exhaustive()
    }
}

/// Whether nobody but this machine can reach what listens there.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
