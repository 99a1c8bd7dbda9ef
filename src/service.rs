use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use tower_service::Service;

use crate::{
    Guard, Passed, ResponseFuture, RevocationLayer,
    reject::Rejection,
    response::{DenyResponse, Json},
    token::IdentitySource,
};

/// The service that [`RevocationLayer`](crate::RevocationLayer) makes.
///
/// Requests that pass cost no allocation and no box, and the response's body type stays as it is.
pub struct RevocationService<S, I, D = Json> {
    inner: S,
    layer: RevocationLayer<I, D>,
}

impl<S, I, D> RevocationService<S, I, D> {
    pub(crate) const fn new(inner: S, layer: RevocationLayer<I, D>) -> Self {
        Self { inner, layer }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S, I, D> RevocationService<S, I, D> {
    pub(crate) const fn guard(&self) -> &Arc<Guard<I>> {
        &self.layer.guard
    }

    #[inline]
    pub(crate) fn pass<ReqBody>(&mut self, mut request: Request<ReqBody>, passed: &Passed) -> ResponseFuture<S::Future>
    where
        S: Service<Request<ReqBody>>,
        I: IdentitySource,
    {
        if let (true, Some(identity)) = (self.layer.insert_identity, passed.identity()) {
            request.extensions_mut().insert(identity.clone());
        }
        #[cfg(feature = "streams")]
        if let Some(streams) = &self.layer.streams {
            let (uri, headers, extensions) = (request.uri(), request.headers(), request.extensions());
            if let Some(opening) = self.layer.guard.opening(streams, uri, headers, extensions, passed) {
                request.extensions_mut().insert(opening);
            }
        }
        ResponseFuture::passed(self.inner.call(request))
    }

    pub(crate) fn refuse<F, ResBody, E>(&self, rejection: Rejection, headers: &HeaderMap) -> ResponseFuture<F>
    where
        F: Future<Output = Result<Response<ResBody>, E>>,
        I: IdentitySource,
        D: DenyResponse<ResBody>,
    {
        let mut response = self.layer.deny.deny(self.layer.guard.denial(rejection, headers));
        response.extensions_mut().insert(rejection);
        ResponseFuture::refused(Ok(response))
    }
}

#[cfg(feature = "endpoint")]
impl<S, I, D> RevocationService<S, I, D> {
    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, I, D: Clone> Clone for RevocationService<S, I, D> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.layer.clone())
    }
}

impl<S, I, D, ReqBody, ResBody> Service<Request<ReqBody>> for RevocationService<S, I, D>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    I: IdentitySource,
    D: DenyResponse<ResBody>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        match self.layer.guard.check(request.method(), request.uri(), request.headers(), request.extensions()) {
            // Handed on as it came: each move of a request copies its head.
            Ok(_) if !self.layer.adds() => ResponseFuture::passed(self.inner.call(request)),
            Ok(passed) => self.pass(request, &passed),
            Err(rejection) => self.refuse(rejection, request.headers()),
        }
    }
}

impl<S: fmt::Debug, I: fmt::Debug, D> fmt::Debug for RevocationService<S, I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationService")
            .field("inner", &self.inner)
            .field("guard", &self.layer.guard)
            .finish_non_exhaustive()
    }
}
