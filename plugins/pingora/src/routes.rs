use http::Request;
use pingora::{Result, proxy::Session};
use tower_revocation::{
    endpoint::{EndpointError, Endpoints, PeerAddress, Responder},
    token::IdentitySource,
};

use crate::{RevocationGuard, answer::answer, body::SessionBody};

/// Answers the revocation routes, from [`request_filter`](pingora::proxy::ProxyHttp::request_filter).
///
/// Call it before the guard: what clients authenticate themselves with at a route is no token to be checked.
///
/// Where clients authenticate by certificates that a header tells of, other requests keep such headers on their way to the
/// upstream; [`RevocationGuard::identity_header`] with `|_| None` removes them.
#[derive(Clone, Debug)]
#[must_use]
pub struct RevocationRoutes(Responder);

impl RevocationRoutes {
    /// Answers what `guard` is not to be asked about.
    ///
    /// # Errors
    ///
    /// Where `guard` checks another denylist than the one that the endpoints write to, or an endpoint has no path to
    /// itself.
    pub fn new<I: IdentitySource, D>(
        guard: &RevocationGuard<I, D>,
        endpoints: Endpoints,
    ) -> Result<Self, EndpointError> {
        Responder::new(guard.guard(), endpoints).map(Self)
    }

    /// Whether the request was for a revocation route, and answered: what `request_filter` returns.
    ///
    /// The body is read within the endpoint's bounds. Failed authentications count against the peer's address, unless
    /// an earlier filter put another [`PeerAddress`] into the request's extensions.
    ///
    /// # Errors
    ///
    /// Where the answer could not be written.
    pub async fn answer(&self, session: &mut Session) -> Result<bool> {
        if !self.0.answers(session.req_header().uri.path()) {
            return Ok(false);
        }
        let mut head = session.req_header().as_owned_parts();
        if head.extensions.get::<PeerAddress>().is_none()
            && let Some(peer) = session.client_addr().and_then(|address| address.as_inet())
        {
            head.extensions.insert(PeerAddress(*peer));
        }
        let body = SessionBody::new(session);
        let Some(response) = self.0.respond(Request::from_parts(head, body)).await else { return Ok(false) };
        answer(session, response).await?;
        Ok(true)
    }
}
