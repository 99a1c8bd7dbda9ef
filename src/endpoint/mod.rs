//! The revocation routes, answered in front of a service.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::{sync::Arc, time::Duration};
//! # use tower_revocation::{RevocationLayer, Revocations, backend::Memory, denylist::Staleness, sync::SyncConfig};
//! # use tower_revocation::token::{Identity, Verifier, Verify, VerifyError};
//! # struct Yours;
//! # impl Verifier for Yours {
//! #     fn verify(&self, _: &str, _: u64) -> Result<Identity, VerifyError> { Err(VerifyError::Malformed) }
//! #     fn verify_expired(&self, _: &str, _: u64) -> Result<Identity, VerifyError> { Err(VerifyError::Malformed) }
//! #     fn epoch(&self) -> u64 { 0 }
//! # }
//! # let verifier = Arc::new(Yours);
//! # let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
//! # let revocations = Revocations::start(Memory::new(), config).await?;
//! use tower_revocation::endpoint::{Clients, EndpointLayer, Endpoints, RegisteredClient, SecretMethod, TokenEndpoint};
//!
//! let clients = Clients::new()
//!     .client(RegisteredClient::confidential("web", "q7Fz…", SecretMethod::Basic).issuers(["https://as.example/"]))?;
//! let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier.clone()));
//! let endpoints = Endpoints::new(revocations).token(TokenEndpoint::new(verifier, clients));
//! let layer = EndpointLayer::new(check, endpoints)?;
//! # let _ = layer;
//! # Ok(()) }
//! ```

mod answer;
#[cfg(feature = "jwt")]
mod assertion;
mod audit;
mod bearer;
mod body;
mod caller;
#[cfg(feature = "mtls")]
mod certificate;
mod client;
mod coding;
#[cfg(feature = "signals")]
mod events;
mod form;
mod forward;
mod front;
mod future;
mod global;
mod intake;
mod introspection;
mod json;
mod layer;
mod limit;
#[cfg(feature = "signals")]
mod logout;
pub mod metadata;
mod mode;
#[cfg(feature = "signals")]
mod notify;
mod observe;
mod overlay;
mod plan;
#[cfg(feature = "signals")]
mod post;
mod presented;
mod profile;
mod refusal;
mod registry;
mod replay;
mod responder;
mod route;
mod service;
mod session;
mod signal;
mod signed;
mod subject;
mod switch;
mod token;
mod users;
mod wait;

use std::{fmt, sync::Arc};

use http::{Request, StatusCode, request::Parts};
use http_body::Body;

pub(crate) use self::answer::Answer;
#[cfg(feature = "mtls")]
pub use self::certificate::{CertificateHeader, CertificateName, ClientCertificate};
use self::{
    audit::Listeners,
    intake::Context,
    plan::{Done, Intent, Plan, Reach, Refused},
    refusal::Refusal,
    replay::Claimed,
    route::{Match, Route, Routes},
};
pub use self::{
    audit::{AuditRecord, AuditSink, JsonLines},
    client::{AuthMethod, Call, Client, ClientAuthenticator, ClientError},
    front::{FrontLayer, FrontService},
    future::{EndpointFuture, FrontFuture},
    global::{CutoffChoice, GlobalEndpoint, UnknownUser},
    introspection::IntrospectionEndpoint,
    layer::EndpointLayer,
    limit::{FailureLimit, PeerAddress},
    mode::Mode,
    overlay::IntrospectionOverlay,
    presented::{Presented, Secret},
    profile::Profile,
    registry::{Clients, ClientsError, RegisteredClient, SecretMethod},
    responder::Responder,
    service::EndpointService,
    session::SessionEndpoint,
    signed::SignedRequests,
    switch::{EndpointName, Switches},
    token::{TokenEndpoint, Unowned},
    users::SeveralUsers,
    wait::{Incomplete, Wait},
};
#[cfg(feature = "signals")]
pub use self::{
    events::{EventCounts, EventReceiver, EventsEndpoint, Poll, Polling, Transmitter},
    logout::{BackchannelLogoutEndpoint, OfflineAccess},
    notify::{LogoutNotices, LogoutSender},
    post::SendError,
};
use crate::{Revocations, denylist::Denylist, revocation::Revocation, spans, sync::Intended};

/// The revocation routes that are answered here. There are none until they are added.
#[derive(Clone, Debug)]
#[must_use]
pub struct Endpoints {
    revocations: Revocations,
    profile: Profile,
    routes: Routes<EndpointName>,
    switches: Switches,
    listeners: Listeners,
    waits: [Wait; EndpointName::ALL.len()],
    token: Option<Arc<TokenEndpoint>>,
    session: Option<Arc<SessionEndpoint>>,
    global: Option<Arc<GlobalEndpoint>>,
    #[cfg(feature = "signals")]
    logout: Option<Arc<BackchannelLogoutEndpoint>>,
    #[cfg(feature = "signals")]
    events: Option<Arc<EventsEndpoint>>,
    introspection: Option<Arc<IntrospectionEndpoint>>,
    #[cfg(feature = "mtls")]
    hearsay: certificate::Hearsay,
}

/// What a path means to [`Endpoints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Endpoint(EndpointName),
    /// The endpoint's only in the eyes of someone who normalises.
    Ambiguous(EndpointName),
}

impl Endpoints {
    /// Records with this handle.
    pub fn new(revocations: Revocations) -> Self {
        Self {
            revocations,
            profile: Profile::default(),
            routes: Routes::default(),
            switches: Switches::default(),
            listeners: Listeners::default(),
            waits: Default::default(),
            token: None,
            session: None,
            global: None,
            #[cfg(feature = "signals")]
            logout: None,
            #[cfg(feature = "signals")]
            events: None,
            introspection: None,
            #[cfg(feature = "mtls")]
            hearsay: certificate::Hearsay::default(),
        }
    }

    /// Has the paths and answers of this profile. Default: [`Profile::Standard`].
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self.routed()
    }

    /// Answers token revocation (RFC 7009).
    pub fn token(mut self, endpoint: TokenEndpoint) -> Self {
        self.token = Some(Arc::new(endpoint));
        self.routed()
    }

    /// Answers session revocation.
    pub fn session(mut self, endpoint: SessionEndpoint) -> Self {
        self.session = Some(Arc::new(endpoint));
        self.routed()
    }

    /// Answers global token revocation (draft-parecki-oauth-global-token-revocation).
    pub fn global(mut self, endpoint: GlobalEndpoint) -> Self {
        self.global = Some(Arc::new(endpoint));
        self.routed()
    }

    /// Takes logout tokens (OpenID Connect Back-Channel Logout 1.0).
    #[cfg(feature = "signals")]
    pub fn backchannel_logout(mut self, endpoint: BackchannelLogoutEndpoint) -> Self {
        self.logout = Some(Arc::new(endpoint));
        self.routed()
    }

    /// Takes security events (RFC 8935, OpenID Shared Signals).
    #[cfg(feature = "signals")]
    pub fn events(mut self, endpoint: EventsEndpoint) -> Self {
        self.events = Some(Arc::new(endpoint));
        self.routed()
    }

    /// Takes events that are fetched; `None` where there is no events endpoint.
    #[cfg(feature = "signals")]
    pub fn event_receiver(&self) -> Option<EventReceiver> {
        EventReceiver::alone(self.clone())
    }

    /// What the events endpoint has received, where there is one.
    #[cfg(feature = "signals")]
    pub fn event_counts(&self) -> Option<EventCounts> {
        self.events.as_deref().map(EventsEndpoint::counts)
    }

    /// Answers introspection (RFC 7662).
    pub fn introspection(mut self, endpoint: IntrospectionEndpoint) -> Self {
        self.introspection = Some(Arc::new(endpoint));
        self.routed()
    }

    /// Gives a record of every decision to `sink`, before it is answered. There can be several.
    pub fn audit(mut self, sink: impl AuditSink) -> Self {
        self.listeners.add_sink(sink);
        self
    }

    /// Calls `hook` with what a request revoked, once it is durable and before it is answered, so that the application
    /// can tell others. There can be several. A hook that has to wait should hand over to a task.
    pub fn after_revocation(mut self, hook: impl Fn(&[Revocation]) + Send + Sync + 'static) -> Self {
        self.listeners.add_hook(hook);
        self
    }

    /// How far a revocation has to come before this endpoint answers with success. Default: [`Wait::Local`].
    pub const fn wait(mut self, endpoint: EndpointName, wait: Wait) -> Self {
        self.waits[endpoint as usize] = wait;
        self
    }

    /// Switches the endpoints off and on, now or while they run.
    pub const fn switches(&self) -> &Switches {
        &self.switches
    }

    /// The endpoints that are on, with their paths: what metadata may tell.
    pub fn advertised(&self) -> Vec<(EndpointName, &str)> {
        self.routes.iter().filter(|(endpoint, _)| self.switches.is_on(*endpoint)).collect()
    }

    /// The endpoints that are there, and off.
    fn switched_off(&self) -> impl Iterator<Item = EndpointName> {
        self.routes.iter().map(|(endpoint, _)| endpoint).filter(|endpoint| !self.switches.is_on(*endpoint))
    }

    /// The paths of the endpoints that are there.
    fn routed(mut self) -> Self {
        let own = [
            (EndpointName::Token, self.token.as_deref().map(TokenEndpoint::route)),
            (EndpointName::Session, self.session.as_deref().map(SessionEndpoint::route)),
            (EndpointName::Global, self.global.as_deref().map(GlobalEndpoint::route)),
            #[cfg(feature = "signals")]
            (EndpointName::BackchannelLogout, self.logout.as_deref().map(BackchannelLogoutEndpoint::route)),
            #[cfg(feature = "signals")]
            (EndpointName::Events, self.events.as_deref().map(EventsEndpoint::route)),
            (EndpointName::Introspection, self.introspection.as_deref().map(IntrospectionEndpoint::route)),
        ];
        for (endpoint, own) in own {
            let usual = || self.profile.ways().path(endpoint).and_then(|path| Route::new(path).ok());
            self.routes.set(endpoint, own.and_then(|own| own.cloned().or_else(usual)));
        }
        #[cfg(feature = "mtls")]
        {
            self.hearsay = certificate::Hearsay::about(self.clients().filter_map(|known| known.certificate_header()));
        }
        self
    }

    /// Who tells the clients of the endpoints that are there.
    #[cfg(feature = "mtls")]
    fn clients(&self) -> impl Iterator<Item = &dyn ClientAuthenticator> {
        let token = self.token.as_deref().map(TokenEndpoint::clients);
        let session = self.session.as_deref().map(SessionEndpoint::clients);
        let global = self.global.as_deref().map(GlobalEndpoint::clients);
        let all = token.into_iter().chain(session).chain(global);
        #[cfg(feature = "signals")]
        let all = {
            let logout = self.logout.as_deref().map(BackchannelLogoutEndpoint::clients);
            all.chain(logout).chain(self.events.as_deref().map(EventsEndpoint::clients))
        };
        all.chain(self.introspection.as_deref().map(IntrospectionEndpoint::clients))
    }

    /// Removes what the sender of a request may not say of certificates: neither we nor the service behind believe it.
    #[cfg_attr(not(feature = "mtls"), expect(unused_variables, clippy::unused_self, reason = "nobody may say any"))]
    #[inline]
    fn remove_hearsay<B>(&self, request: &mut Request<B>) {
        #[cfg(feature = "mtls")]
        self.hearsay.remove_from(request);
    }

    /// Whether every endpoint has a path to itself, and writes to the list that is asked of all other requests.
    fn check(&self, asked: &Arc<Denylist>) -> Result<(), EndpointError> {
        if !Arc::ptr_eq(asked, self.revocations.denylist()) {
            return Err(EndpointError::OtherDenylist);
        }
        for endpoint in EndpointName::ALL.into_iter().filter(|endpoint| self.is_there(*endpoint)) {
            let Some((_, path)) = self.routes.iter().find(|(name, _)| *name == endpoint) else {
                return Err(EndpointError::NoPath { endpoint });
            };
            if self.routes.iter().any(|(name, other)| name != endpoint && other == path) {
                return Err(EndpointError::SamePath { path: path.to_owned() });
            }
        }
        Ok(())
    }

    const fn is_there(&self, endpoint: EndpointName) -> bool {
        match endpoint {
            EndpointName::Token => self.token.is_some(),
            EndpointName::Session => self.session.is_some(),
            EndpointName::Global => self.global.is_some(),
            EndpointName::Introspection => self.introspection.is_some(),
            #[cfg(feature = "signals")]
            EndpointName::BackchannelLogout => self.logout.is_some(),
            #[cfg(feature = "signals")]
            EndpointName::Events => self.events.is_some(),
            #[cfg(not(feature = "signals"))]
            EndpointName::BackchannelLogout | EndpointName::Events => false,
        }
    }

    /// The endpoint of a path; `None` for the paths of the service behind.
    #[inline]
    fn find(&self, path: &str) -> Option<Target> {
        let (target, endpoint) = match self.routes.find(path) {
            Match::Other => return None,
            Match::Exact(endpoint) => (Target::Endpoint(endpoint), endpoint),
            Match::Ambiguous(endpoint) => (Target::Ambiguous(endpoint), endpoint),
        };
        (self.switches.is_on(endpoint) || self.profile.ways().refuses_when_off).then_some(target)
    }

    /// Answers a request to `target`. Owns what it needs: the caller keeps nothing alive for it.
    async fn answer<B: Body>(self: Arc<Self>, target: Target, request: Request<B>) -> Answer {
        let (head, body) = request.into_parts();
        let (plan, claimed) = match self.plan(target, &head, body).await {
            Ok(planned) => planned,
            Err(answer) => return answer,
        };
        let lost = self.answer_to(target, Refusal::NotRecorded);
        // To its end, also where nobody waits for the answer any more.
        let committed = tokio::spawn(spans::same(async move {
            let client = plan.client.clone();
            let mut answer = self.commit(target, plan, None, Vec::new()).await;
            if answer.is_success()
                && let Err(incomplete) = self.confirm(target, &client).await
            {
                answer = incomplete;
            }
            self.finish(target, Some(&client), claimed, answer.status())
                .await
                .map_or_else(|refused| refused, |()| answer)
        }));
        committed.await.unwrap_or(lost)
    }

    /// What a request to `target` comes to, and what of it counts once, or the answer to one that is refused.
    async fn plan<B: Body>(&self, target: Target, head: &Parts, body: B) -> Result<(Plan, Claimed), Answer> {
        let ways = self.profile.ways();
        let on = self.switches.is_on(target.endpoint());
        let claimed = Claimed::default();
        let context = Context { revocations: &self.revocations, claimed: &claimed, ways, on };
        // An endpoint that is not there has no path.
        let ambiguous = || Err(Refused::from(Refusal::AmbiguousPath));
        let planned = match target {
            Target::Endpoint(EndpointName::Token) => match &self.token {
                Some(token) => token.plan(&context, head, body).await,
                None => ambiguous(),
            },
            Target::Endpoint(EndpointName::Session) => match &self.session {
                Some(session) => session.plan(&context, head, body).await,
                None => ambiguous(),
            },
            Target::Endpoint(EndpointName::Global) => match &self.global {
                Some(global) => global.plan(&context, head, body).await,
                None => ambiguous(),
            },
            Target::Endpoint(EndpointName::Introspection) => match &self.introspection {
                Some(introspection) => introspection.plan(&context, head, body).await,
                None => ambiguous(),
            },
            #[cfg(feature = "signals")]
            Target::Endpoint(EndpointName::BackchannelLogout) => match &self.logout {
                Some(logout) => logout.plan(&context, head, body).await,
                None => ambiguous(),
            },
            #[cfg(feature = "signals")]
            Target::Endpoint(EndpointName::Events) => match &self.events {
                Some(events) => events.plan(&context, head, body).await,
                None => ambiguous(),
            },
            #[cfg(not(feature = "signals"))]
            Target::Endpoint(EndpointName::BackchannelLogout | EndpointName::Events) => ambiguous(),
            Target::Ambiguous(_) => ambiguous(),
        };
        match planned {
            Ok(plan) => Ok((plan, claimed)),
            Err(Refused { client, refusal }) => {
                let answer = self.refuse(target, client.as_ref(), refusal);
                self.finish(target, client.as_ref(), claimed, answer.status()).await?;
                Err(answer)
            }
        }
    }

    /// Waits until what was recorded holds where it must, as far as that was asked for; else the answer in place of
    /// success.
    async fn confirm(&self, target: Target, client: &Client) -> Result<(), Answer> {
        let Wait::Everywhere { limit, otherwise } = self.waits[target.endpoint() as usize] else { return Ok(()) };
        let everywhere = self.revocations.everywhere(limit).await;
        match &everywhere {
            Ok(everywhere) if everywhere.is_complete() => Ok(()),
            _ => {
                #[cfg(feature = "tracing")]
                tracing::warn!(endpoint = %target.endpoint(), ?everywhere, "not every node has confirmed a revocation");
                Err(otherwise.answer(everywhere.as_ref().ok(), client))
            }
        }
    }

    /// Before an answer with this status is given: what counts once is used up, unless the same request may succeed
    /// later. The answer in its place where that cannot be recorded.
    async fn finish(
        &self,
        target: Target,
        client: Option<&Client>,
        claimed: Claimed,
        status: StatusCode,
    ) -> Result<(), Answer> {
        if status.is_server_error() || status == StatusCode::UNPROCESSABLE_ENTITY {
            return Ok(());
        }
        claimed.finish(&self.revocations).await.map_err(|_| self.refuse(target, client, Refusal::NotRecorded))
    }

    /// The answer to a request that is refused, once it is on record.
    fn refuse(&self, target: Target, client: Option<&Client>, refusal: Refusal) -> Answer {
        let answer = self.answer_to(target, refusal);
        let done = Done { outcome: refusal.as_str(), ..Done::default() };
        self.log(target, client, &done, Reach::default(), &answer);
        answer
    }

    /// How an endpoint words a refusal.
    fn answer_to(&self, target: Target, refusal: Refusal) -> Answer {
        let ways = self.profile.ways();
        match target.endpoint() {
            EndpointName::Events => refusal.answer_to_set(ways),
            EndpointName::BackchannelLogout => refusal.answer_to_logout(ways),
            _ => refusal.answer(ways),
        }
    }

    /// The answer to a request that is refused before it is an endpoint's.
    fn turn_away(&self, refusal: Refusal) -> Answer {
        refusal.answer(self.profile.ways())
    }

    /// Does what was planned and what comes `besides`, as it was announced where it was: durable and enforced here, or
    /// refused.
    async fn commit(
        &self,
        target: Target,
        plan: Plan,
        announced: Option<Intended>,
        besides: Vec<Revocation>,
    ) -> Answer {
        let Plan { client, intent, success, reach, body: _ } = plan;
        if let Intent::Told = intent {
            // It is no decision, and there may be many.
            return success;
        }
        let (mut done, result) = intent.commit(&self.revocations, announced, besides).await;
        let answer = match result {
            Ok(()) => success,
            Err(refusal) => {
                done.outcome = refusal.as_str();
                self.answer_to(target, refusal)
            }
        };
        self.listeners.revoked(&done.revocations);
        self.log(target, Some(&client), &done, reach, &answer);
        answer
    }

    fn log(&self, target: Target, client: Option<&Client>, done: &Done, reach: Reach, answer: &Answer) {
        self.listeners.decided(&AuditRecord {
            at: self.revocations.denylist().exact_now().unix(),
            endpoint: target.endpoint(),
            client: client.map(|client| client.id().to_owned()),
            outcome: done.outcome,
            status: answer.status().as_u16(),
            scopes: done.scopes(),
            users: reach.users,
            sessions: reach.sessions,
        });
    }
}

impl Target {
    const fn endpoint(self) -> EndpointName {
        match self {
            Self::Endpoint(endpoint) | Self::Ambiguous(endpoint) => endpoint,
        }
    }
}

/// Endpoints that would not do what they promise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointError {
    /// A path that could be written in another way.
    Path {
        /// The path.
        path: String,
    },
    /// An endpoint that has no path in this profile, and was given none.
    NoPath {
        /// The endpoint.
        endpoint: EndpointName,
    },
    /// Two endpoints with one path.
    SamePath {
        /// The path.
        path: String,
    },
    /// The layer checks another denylist than the endpoints write to.
    OtherDenylist,
    /// A base of endpoints that no metadata may publish.
    Url {
        /// The URL.
        url: String,
    },
    /// Plain http, which no metadata may publish (RFC 7009 §2).
    PlainHttp {
        /// The URL.
        url: String,
    },
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path } => write!(
                f,
                "the endpoint path {path:?} is not plain; write it like \"/oauth/revoke\", without escapes, \
                 query, empty or dot segments"
            ),
            Self::NoPath { endpoint } => {
                write!(f, "the {endpoint} endpoint has no path in this profile; give it one, or leave it out")
            }
            Self::SamePath { path } => write!(f, "two endpoints have the path {path:?}; give each its own"),
            Self::OtherDenylist => f.write_str(
                "the layer checks another denylist than the endpoints write to; build it on \
                 `revocations.denylist()` of the same handle",
            ),
            Self::Url { url } => write!(
                f,
                "{url:?} cannot be the base of endpoints; write it like \"https://as.example\", without user, query or \
                 fragment"
            ),
            Self::PlainHttp { url } => write!(
                f,
                "metadata may not publish {url:?}, which is plain http; use https, or say \
                 `Metadata::allow_plain_http` where nobody else can listen"
            ),
        }
    }
}

impl std::error::Error for EndpointError {}
