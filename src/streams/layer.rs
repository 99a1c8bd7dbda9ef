use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{EndStreams, EndStreamsFuture, Opening, StreamBody, body};
use crate::{AskingLayer, RevocationLayer, token::IdentitySource};

/// A layer that checks requests, and ends what those that pass have open once their token is revoked.
///
/// Made by [`RevocationLayer::end_streams`], or that of [`AskingLayer`], `EndpointLayer` or `FrontLayer`. The service inside
/// gets requests with a [`StreamBody`] and its answers leave with one; a [`DenyResponse`](crate::response::DenyResponse)
/// of your own builds its body with [`StreamBody::new`].
#[derive(Clone, Debug)]
#[must_use]
pub struct EndStreamsLayer<L> {
    checks: L,
}

impl<L> EndStreamsLayer<L> {
    /// `checks` has to put openings into the requests that pass.
    pub(crate) const fn around(checks: L) -> Self {
        Self { checks }
    }

    /// The layer that checks.
    pub const fn get_ref(&self) -> &L {
        &self.checks
    }
}

impl<I: IdentitySource, D> RevocationLayer<I, D> {
    /// Ends streams that are open when their token is revoked, too.
    pub fn end_streams(self, options: EndStreams) -> EndStreamsLayer<Self> {
        EndStreamsLayer::around(self.open_streams(options))
    }
}

impl<I: IdentitySource, D> AskingLayer<I, D> {
    /// Ends streams that are open when their token is revoked, too.
    pub fn end_streams(self, options: EndStreams) -> EndStreamsLayer<Self> {
        EndStreamsLayer::around(self.open_streams(options))
    }
}

impl<S, L> Layer<S> for EndStreamsLayer<L>
where
    L: Layer<EndStreamsService<S>>,
{
    type Service = L::Service;

    fn layer(&self, inner: S) -> Self::Service {
        self.checks.layer(EndStreamsService { inner })
    }
}

/// What [`EndStreamsLayer`] puts between the check and the service behind.
#[derive(Clone, Debug)]
pub struct EndStreamsService<S> {
    inner: S,
}

impl<S> EndStreamsService<S> {
    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for EndStreamsService<S>
where
    S: Service<Request<StreamBody<ReqBody>>, Response = Response<ResBody>>,
    ReqBody: Body,
    ResBody: Body,
{
    type Response = Response<StreamBody<ResBody>>;
    type Error = S::Error;
    type Future = EndStreamsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let Some(opening) = request.extensions().get::<Opening>().cloned() else {
            return EndStreamsFuture::new(self.inner.call(request.map(StreamBody::new)), None, None);
        };
        // A request that goes on sending may go on for long before it is answered.
        let sends = body::is_long(request.body(), &opening).then(|| content_type(&request));
        let watched = opening.clone();
        let request = request.map(|body| StreamBody::watched(body, watched, None, body::Ends::Abort));
        EndStreamsFuture::new(self.inner.call(request), Some(opening), sends)
    }
}

fn content_type<B>(request: &Request<B>) -> Option<HeaderValue> {
    request.headers().get(header::CONTENT_TYPE).cloned()
}
