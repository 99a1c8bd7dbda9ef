//! The tower door for a check that has to ask somebody now and then.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    ResponseFuture, RevocationLayer, RevocationService,
    guard::{Held, Line},
    response::{DenyResponse, Json},
    token::IdentitySource,
};

/// The layer that [`RevocationLayer::asking`] makes.
///
/// It differs from that one only for requests that what is at hand does not decide: those whose token may be revoked where
/// the denylist is in [tiered mode](crate::denylist::Mode::Tiered), and those for which the source of identities was told
/// to ask others. These wait until whoever was asked has answered, and reach the service behind after that or not at all.
/// To be able to wait, it needs a service that can be cloned.
#[must_use]
pub struct AskingLayer<I, D = Json> {
    layer: RevocationLayer<I, D>,
}

impl<I, D> AskingLayer<I, D> {
    pub(crate) const fn new(layer: RevocationLayer<I, D>) -> Self {
        Self { layer }
    }

    #[cfg(feature = "streams")]
    pub(crate) fn open_streams(self, options: crate::streams::EndStreams) -> Self
    where
        I: IdentitySource,
    {
        Self { layer: self.layer.open_streams(options) }
    }
}

impl<I, D: Clone> Clone for AskingLayer<I, D> {
    fn clone(&self) -> Self {
        Self { layer: self.layer.clone() }
    }
}

impl<S, I, D: Clone> Layer<S> for AskingLayer<I, D> {
    type Service = AskingService<S, I, D>;

    fn layer(&self, inner: S) -> Self::Service {
        AskingService::new(self.layer.layer(inner))
    }
}

impl<I: fmt::Debug, D> fmt::Debug for AskingLayer<I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskingLayer").field("layer", &self.layer).finish()
    }
}

/// The service that [`AskingLayer`] makes.
///
/// Requests that need not wait cost no allocation and no box, and the response's body type stays as it is.
pub struct AskingService<S, I, D = Json> {
    checked: RevocationService<S, I, D>,
}

impl<S, I, D> AskingService<S, I, D> {
    pub(crate) const fn new(checked: RevocationService<S, I, D>) -> Self {
        Self { checked }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        self.checked.get_ref()
    }
}

#[cfg(feature = "endpoint")]
impl<S, I, D> AskingService<S, I, D> {
    pub(crate) fn into_inner(self) -> S {
        self.checked.into_inner()
    }
}

impl<S: Clone, I, D: Clone> Clone for AskingService<S, I, D> {
    fn clone(&self) -> Self {
        Self { checked: self.checked.clone() }
    }
}

impl<S, I, D> AskingService<S, I, D> {
    /// The answer, or what it is once whoever has to be asked has answered.
    #[inline]
    #[expect(clippy::async_yields_async, reason = "the inner service's future keeps its type, and is not boxed too")]
    pub(crate) fn begin<ReqBody, ResBody>(
        &mut self,
        request: Request<ReqBody>,
    ) -> Result<ResponseFuture<S::Future>, Later<S::Future>>
    where
        S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        I: IdentitySource,
        D: DenyResponse<ResBody> + Clone + Send + 'static,
        ReqBody: Send + 'static,
    {
        let guard = self.checked.guard();
        match guard.judge(request.method(), request.uri(), request.headers(), request.extensions()) {
            Ok(passed) => Ok(self.checked.pass(request, &passed)),
            Err(Held::Refused(rejection)) => Ok(self.checked.refuse(rejection, request.headers())),
            Err(Held::Unclear(question)) => {
                let guard = Arc::clone(guard);
                // The ready service goes along, a fresh clone stays.
                let clone = self.checked.clone();
                let mut ready = mem::replace(&mut self.checked, clone);
                Err(Box::pin(async move {
                    let line = Line { method: request.method(), uri: request.uri() };
                    match guard.ask(*question, line).await {
                        Ok(passed) => ready.pass(request, &passed),
                        Err(rejection) => ready.refuse(rejection, request.headers()),
                    }
                }))
            }
        }
    }
}

impl<S, I, D, ReqBody, ResBody> Service<Request<ReqBody>> for AskingService<S, I, D>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    I: IdentitySource,
    D: DenyResponse<ResBody> + Clone + Send + 'static,
    ReqBody: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = AskingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.checked.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        match self.begin(request) {
            Ok(now) => AskingFuture { later: None, now: Some(now) },
            Err(later) => AskingFuture { later: Some(later), now: None },
        }
    }
}

impl<S: fmt::Debug, I: fmt::Debug, D> fmt::Debug for AskingService<S, I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskingService").field("checked", &self.checked).finish()
    }
}

/// Resolves once whoever was asked has answered.
pub(crate) type Later<F> = Pin<Box<dyn Future<Output = ResponseFuture<F>> + Send>>;

pin_project! {
    /// The answer of an [`AskingService`]: the inner service's, or a refusal, perhaps after somebody was asked.
    #[must_use = "futures do nothing unless polled"]
    pub struct AskingFuture<F: Future> {
        later: Option<Later<F>>,
        #[pin]
        now: Option<ResponseFuture<F>>,
    }
}

impl<F: Future> fmt::Debug for AskingFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.now {
            Some(now) => now.fmt(f),
            None => f.write_str("AskingFuture(asking)"),
        }
    }
}

impl<F: Future> Future for AskingFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(later) = this.later {
            let answer = ready!(later.as_mut().poll(cx));
            *this.later = None;
            this.now.set(Some(answer));
        }
        match this.now.as_pin_mut() {
            Some(now) => now.poll(cx),
            // One of both is always there.
            None => Poll::Pending,
        }
    }
}
