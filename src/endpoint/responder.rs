use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;

use super::{EndpointError, Endpoints};
use crate::{Guard, token::IdentitySource};

/// The endpoints without a service around them, for proxies that speak their own types and call a [`Guard`] for all other
/// requests.
///
/// Ask it first: what clients authenticate themselves with at an endpoint is no token to be checked.
#[derive(Clone, Debug)]
pub struct Responder {
    endpoints: Arc<Endpoints>,
}

impl Responder {
    /// Answers what `guard` is not to be asked about.
    ///
    /// # Errors
    ///
    /// Where `guard` checks another denylist than the one that the endpoints write to, or an endpoint has no path to
    /// itself.
    pub fn new<I: IdentitySource>(guard: &Guard<I>, endpoints: Endpoints) -> Result<Self, EndpointError> {
        endpoints.check(guard.denylist())?;
        Ok(Self { endpoints: Arc::new(endpoints) })
    }

    /// Whether requests for this path are answered here. So are those for a path that only looks like an endpoint's once it
    /// is normalised, with 400.
    pub fn answers(&self, path: &str) -> bool {
        self.endpoints.find(path).is_some()
    }

    /// The answer to a request for a path that is answered here; `None` to any other. The body is read within the
    /// endpoint's bounds.
    pub async fn respond<B: Body>(&self, mut request: Request<B>) -> Option<Response<Bytes>> {
        let target = self.endpoints.find(request.uri().path())?;
        self.endpoints.remove_hearsay(&mut request);
        Some(Arc::clone(&self.endpoints).answer(target, request).await.into_response())
    }
}
