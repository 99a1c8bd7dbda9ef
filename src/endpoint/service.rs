use std::{
    error::Error,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{EndpointFuture, Endpoints};
use crate::{
    AskingService,
    response::{DenyResponse, Json},
    spans,
    token::IdentitySource,
};

/// The service that [`EndpointLayer`](super::EndpointLayer) makes.
///
/// Requests that pass cost no allocation and no box, and the response's body type stays as it is.
pub struct EndpointService<S, I, D = Json> {
    checked: AskingService<S, I, D>,
    endpoints: Arc<Endpoints>,
}

impl<S, I, D> EndpointService<S, I, D> {
    pub(super) const fn new(checked: AskingService<S, I, D>, endpoints: Arc<Endpoints>) -> Self {
        Self { checked, endpoints }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        self.checked.get_ref()
    }
}

impl<S: Clone, I, D: Clone> Clone for EndpointService<S, I, D> {
    fn clone(&self) -> Self {
        Self::new(self.checked.clone(), Arc::clone(&self.endpoints))
    }
}

impl<S, I, D, ReqBody, ResBody> Service<Request<ReqBody>> for EndpointService<S, I, D>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    I: IdentitySource,
    D: DenyResponse<ResBody> + Clone + Send + 'static,
    ReqBody: Body + Send + 'static,
    ReqBody::Data: Send,
    ReqBody::Error: Into<Box<dyn Error + Send + Sync>>,
    ResBody: From<Bytes>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = EndpointFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.checked.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        self.endpoints.remove_hearsay(&mut request);
        match self.endpoints.find(request.uri().path()) {
            None => match self.checked.begin(request) {
                Ok(checked) => EndpointFuture::checked(checked),
                Err(later) => EndpointFuture::asking(later),
            },
            Some(target) => {
                let method = request.method().clone();
                let answer = Arc::clone(&self.endpoints).answer(target, request);
                EndpointFuture::answered(Box::pin(spans::endpoint(target.endpoint(), &method, answer)))
            }
        }
    }
}

impl<S: fmt::Debug, I: fmt::Debug, D> fmt::Debug for EndpointService<S, I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointService").field("checked", &self.checked).field("endpoints", &self.endpoints).finish()
    }
}
