use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    EndpointError, EndpointName, Endpoints, FrontFuture, IntrospectionOverlay, Mode, Target, forward,
    metadata::{self, Metadata},
    observe, overlay,
    refusal::Refusal,
    route::{Match, Route, Routes},
};
use crate::{
    AskingService, RevocationLayer,
    recorder::Recorder,
    response::{DenyResponse, Json},
    spans,
    token::IdentitySource,
};

/// Stands in front of an authorization server: as [`EndpointLayer`](super::EndpointLayer), and what needs the service
/// behind: [modes](Mode), [metadata](Metadata) and the [recorder](Recorder).
///
/// It builds bodies, so request and response bodies must be ones that come from bytes, such as axum's or
/// `http_body_util::Full<Bytes>`; convert others in between with tower's `map_request` and `map_response`. The service
/// is cloned for a request that it takes part in. Requests that only pass still cost no allocation.
///
/// Wrap the whole service, as there.
#[must_use]
pub struct FrontLayer<I, D = Json> {
    layer: RevocationLayer<I, D>,
    front: Arc<Front>,
}

/// What a front does besides the check.
#[derive(Clone, Debug)]
pub(super) struct Front {
    pub(super) endpoints: Endpoints,
    pub(super) modes: [Mode; EndpointName::ALL.len()],
    pub(super) metadata: Option<Metadata>,
    pub(super) recorder: Option<Observed>,
    pub(super) overlay: Option<IntrospectionOverlay>,
}

/// A recorder and the token endpoint that it listens to.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) recorder: Recorder,
    pub(super) routes: Routes<()>,
}

/// What a path means to a [`Front`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Endpoint(Target),
    Metadata,
    Token,
    Introspection,
    Ambiguous,
}

impl<I: IdentitySource, D> FrontLayer<I, D> {
    /// Puts the endpoints in front of the check; every one answers by itself until [`FrontLayer::mode`] says
    /// otherwise.
    ///
    /// # Errors
    ///
    /// Where `layer` checks another denylist than the one that the endpoints write to.
    pub fn new(layer: RevocationLayer<I, D>, endpoints: Endpoints) -> Result<Self, EndpointError> {
        endpoints.check(layer.guard().denylist())?;
        let front = Front { endpoints, modes: Default::default(), metadata: None, recorder: None, overlay: None };
        Ok(Self { layer, front: Arc::new(front) })
    }

    /// Who answers requests to an endpoint. Introspection answers by itself always; see [`FrontLayer::introspection`].
    pub fn mode(mut self, endpoint: EndpointName, mode: Mode) -> Self {
        Arc::make_mut(&mut self.front).modes[endpoint as usize] = mode;
        self
    }

    /// The endpoint that requests to this path are for, also where it is only another spelling of the endpoint's path;
    /// `None` where the service behind answers by itself, as for an endpoint that is off.
    pub fn endpoint_at(&self, path: &str) -> Option<EndpointName> {
        self.front.endpoints.find(path).map(Target::endpoint)
    }

    /// Whether an endpoint or the recorder judges requests to this path. Those for metadata, which may lie under any
    /// path, are only checked, as all others are.
    pub fn judges(&self, path: &str) -> bool {
        !matches!(self.front.way(path), None | Some(Way::Metadata))
    }

    /// The endpoints, with their switches.
    pub fn endpoints(&self) -> &Endpoints {
        &self.front.endpoints
    }

    /// Takes events that are fetched; `None` where there is no events endpoint.
    #[cfg(feature = "signals")]
    pub fn event_receiver(&self) -> Option<super::EventReceiver> {
        super::EventReceiver::front(Arc::clone(&self.front))
    }

    /// Adds what is answered here to the server's metadata (RFC 8414).
    ///
    /// # Errors
    ///
    /// Where a URL in it may not be published: see [`Metadata::new`].
    pub fn metadata(mut self, metadata: Metadata) -> Result<Self, EndpointError> {
        metadata.check()?;
        Arc::make_mut(&mut self.front).metadata = Some(metadata);
        Ok(self)
    }

    /// Ends streams that are open when their token is revoked, too.
    #[cfg(feature = "streams")]
    pub fn end_streams(self, options: crate::streams::EndStreams) -> crate::streams::EndStreamsLayer<Self> {
        crate::streams::EndStreamsLayer::around(Self { layer: self.layer.open_streams(options), ..self })
    }

    /// Has the introspection endpoint of the service behind answer `{"active":false}` for what is revoked here.
    ///
    /// # Errors
    ///
    /// Where an endpoint of this layer has the same path.
    pub fn introspection(mut self, overlay: IntrospectionOverlay) -> Result<Self, EndpointError> {
        if let Some(((), path)) = overlay.routes.iter().find(|(_, path)| self.front.endpoints.find(path).is_some()) {
            return Err(EndpointError::SamePath { path: path.to_owned() });
        }
        Arc::make_mut(&mut self.front).overlay = Some(overlay);
        Ok(self)
    }

    /// Learns from the answers of the token endpoint at this path which tokens belong together.
    ///
    /// # Errors
    ///
    /// Where the path could be written in another way, or the recorder writes to another denylist than the endpoints.
    pub fn recorder(mut self, recorder: Recorder, token_endpoint: &str) -> Result<Self, EndpointError> {
        if !recorder.writes_to(&self.front.endpoints.revocations) {
            return Err(EndpointError::OtherDenylist);
        }
        let mut routes = Routes::default();
        routes.set((), Some(Route::new(token_endpoint)?));
        Arc::make_mut(&mut self.front).recorder = Some(Observed { recorder, routes });
        Ok(self)
    }
}

impl<I, D: Clone> Clone for FrontLayer<I, D> {
    fn clone(&self) -> Self {
        Self { layer: self.layer.clone(), front: Arc::clone(&self.front) }
    }
}

impl<S, I, D: Clone> Layer<S> for FrontLayer<I, D> {
    type Service = FrontService<S, I, D>;

    fn layer(&self, inner: S) -> Self::Service {
        FrontService { checked: self.layer.clone().asking().layer(inner), front: Arc::clone(&self.front) }
    }
}

impl<I: fmt::Debug, D> fmt::Debug for FrontLayer<I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontLayer").field("layer", &self.layer).field("front", &self.front).finish()
    }
}

impl Front {
    fn way(&self, path: &str) -> Option<Way> {
        if let Some(target) = self.endpoints.find(path) {
            return Some(Way::Endpoint(target));
        }
        if self.metadata.is_some() && metadata::is_document(path) {
            return Some(Way::Metadata);
        }
        if let Some(overlay) = &self.overlay {
            match overlay.routes.find(path) {
                Match::Exact(()) => return Some(Way::Introspection),
                Match::Ambiguous(()) => return Some(Way::Ambiguous),
                Match::Other => {}
            }
        }
        match self.recorder.as_ref()?.routes.find(path) {
            Match::Exact(()) => Some(Way::Token),
            Match::Ambiguous(()) => Some(Way::Ambiguous),
            Match::Other => None,
        }
    }

    pub(super) const fn mode(&self, target: Target) -> Mode {
        match target {
            Target::Endpoint(EndpointName::Introspection) => Mode::Terminate,
            Target::Endpoint(endpoint) => self.modes[endpoint as usize],
            Target::Ambiguous(_) => Mode::Terminate,
        }
    }
}

/// The service that [`FrontLayer`] makes.
pub struct FrontService<S, I, D = Json> {
    checked: AskingService<S, I, D>,
    front: Arc<Front>,
}

impl<S, I, D> FrontService<S, I, D> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        self.checked.get_ref()
    }
}

impl<S: Clone, I, D: Clone> Clone for FrontService<S, I, D> {
    fn clone(&self) -> Self {
        Self { checked: self.checked.clone(), front: Arc::clone(&self.front) }
    }
}

impl<S, I, D, ReqBody, ResBody> Service<Request<ReqBody>> for FrontService<S, I, D>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    I: IdentitySource,
    D: DenyResponse<ResBody> + Clone + Send + 'static,
    ReqBody: Body + From<Bytes> + Send + 'static,
    ReqBody::Data: Send,
    ResBody: Body + From<Bytes> + Send + 'static,
    ResBody::Data: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = FrontFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.checked.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        self.front.endpoints.remove_hearsay(&mut request);
        let Some(way) = self.front.way(request.uri().path()) else {
            return match self.checked.begin(request) {
                Ok(checked) => FrontFuture::checked(checked),
                Err(later) => FrontFuture::boxed(later.then(|checked| checked).boxed()),
            };
        };
        // The ready service goes along, a fresh clone stays.
        let clone = self.checked.clone();
        let ready = mem::replace(&mut self.checked, clone);
        let front = Arc::clone(&self.front);
        FrontFuture::boxed(match way {
            Way::Endpoint(target) => {
                let method = request.method().clone();
                let answer = forward::run(front, target, request, ready.into_inner());
                spans::endpoint(target.endpoint(), &method, answer).boxed()
            }
            Way::Metadata => metadata::run(front, request, ready).boxed(),
            // `Authorization: Basic` authenticates the client; anything else there is a token, and is checked as one.
            Way::Introspection if observe::is_basic(request.headers()) => {
                overlay::run(front, request, ready.into_inner()).boxed()
            }
            Way::Introspection => overlay::run(front, request, ready).boxed(),
            Way::Token if observe::is_basic(request.headers()) => {
                observe::run(front, request, ready.into_inner()).boxed()
            }
            Way::Token => observe::run(front, request, ready).boxed(),
            Way::Ambiguous => {
                let answer = front.endpoints.turn_away(Refusal::AmbiguousPath).into_response();
                futures_util::future::ready(Ok(answer)).boxed()
            }
        })
    }
}

impl<S: fmt::Debug, I: fmt::Debug, D> fmt::Debug for FrontService<S, I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrontService").field("checked", &self.checked).field("front", &self.front).finish()
    }
}
