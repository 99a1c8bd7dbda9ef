//! The door for Envoy's `ext_authz` filter over gRPC (`envoy.service.auth.v3.Authorization`).
//!
//! Whoever can reach the listener tells of requests what it likes, so it must be reachable for the gateway alone.
//!
//! - **Headers** come from `header_map` (`encode_raw_headers: true`) or else from `headers`, where Envoy has joined what a
//!   client sent several times. Both are read strictly. Where the filter has `allowed_headers`, every header that a token
//!   may come in has to be listed.
//! - **A request that may pass** goes on with the identity headers of the configuration, in place of what the client wrote
//!   there; where nothing is known they are empty.
//! - **A refusal** is a `denied_response`: Envoy answers the client with its status, headers and body. It never is an error
//!   of the check itself, which Envoy lets through with `failure_mode_allow`. A gRPC client gets a gRPC status.
//! - **Claims** that a filter in front has verified, such as `jwt_authn` with `payload_in_metadata`, take the place of
//!   verifying the token here, if their namespace is in `ext_authz.trusted_metadata` and in the filter's
//!   `metadata_context_namespaces`. They must have an `iss` that is configured and have to be those of the token that the
//!   request shows, if it shows one. Without a `jti` the token has to be shown, and is verified here.
//! - **Tokens in forms** are not seen here, whatever `tokens.sources` says.
//! - **Revocation requests** are refused, for they belong to the main listener, or answered within the check
//!   (`ext_authz.answer_endpoints`): that needs `with_request_body` on these routes.

mod endpoint;
mod metadata;
mod reply;
mod request;

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse,
    authorization_server::{Authorization, AuthorizationServer},
};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;
use tonic::{Status, body::Body};
use tower_revocation::{
    reject::Rejection,
    response::Denial,
    token::{ExtractError, Extractor, Identity},
};
use tower_service::Service as _;

use self::request::Head;
use super::refusal::{Refusal, is_misrouted};
use crate::{
    config::{Config, ExtAuthz as Section, Fault, Mode},
    denials::Door,
    engine::Engine,
    identity::IdentityHeaders,
    parts,
};

/// The largest check that is read; Envoy's `max_request_bytes` has to be less.
const MOST: usize = 1024 * 1024;
/// How long a check may take as a whole. What asks a store has limits of its own, far below.
const LIMIT: Duration = Duration::from_secs(30);

/// Answers the checks of Envoy.
#[derive(Clone, Debug)]
pub struct ExtAuthz {
    server: AuthorizationServer<Checks>,
}

#[derive(Debug)]
struct Checks {
    engine: Arc<Engine>,
    extractor: Extractor,
    identity_headers: IdentityHeaders,
    trusted_metadata: Vec<String>,
    answer_endpoints: bool,
}

impl ExtAuthz {
    /// The door in front of this engine.
    ///
    /// # Errors
    ///
    /// Where a key of the section cannot be used.
    pub fn new(engine: Arc<Engine>, section: &Section) -> Result<Self, Fault> {
        let config = engine.config();
        if section.answer_endpoints {
            refuse_forwarding(&config)?;
        }
        let checks = Checks {
            extractor: parts::extractor(&config)?.0,
            identity_headers: IdentityHeaders::new(&section.identity_headers, "ext_authz.identity_headers")?,
            trusted_metadata: section.trusted_metadata.clone(),
            answer_endpoints: section.answer_endpoints,
            engine,
        };
        Ok(Self { server: AuthorizationServer::new(checks).max_decoding_message_size(MOST) })
    }

    /// Answers a gRPC request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match timeout(LIMIT, self.server.clone().call(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => Status::deadline_exceeded("the check did not come in, or was not answered, in time").into_http(),
        }
    }
}

/// Within a check there is no server behind that a revocation could be forwarded to.
fn refuse_forwarding(config: &Config) -> Result<(), Fault> {
    let sections = [&config.endpoints.token, &config.endpoints.session, &config.endpoints.global];
    if sections.iter().any(|section| section.mode != Mode::Terminate) {
        let what = "needs mode = \"terminate\" for every endpoint: within a check nothing can be forwarded";
        return Err(Fault::new("ext_authz.answer_endpoints", what));
    }
    Ok(())
}

#[tonic::async_trait]
impl Authorization for Checks {
    async fn check(&self, request: tonic::Request<CheckRequest>) -> Result<tonic::Response<CheckResponse>, Status> {
        let reply = match self.judge(request.into_inner()).await {
            Ok(identity) => reply::pass(&self.identity_headers, identity.as_ref()),
            Err(refusal) => reply::refuse(refusal),
        };
        Ok(tonic::Response::new(reply))
    }
}

impl Checks {
    /// Who sent the request, or why it must not pass.
    async fn judge(&self, check: CheckRequest) -> Result<Option<Identity>, Refusal> {
        let attributes = check.attributes.ok_or_else(Refusal::unclear)?;
        // Without it, the check is not about HTTP.
        let http = attributes.request.and_then(|request| request.http);
        let (head, body) = http.and_then(request::read).ok_or_else(Refusal::unclear)?;
        if self.answer_endpoints && self.engine.endpoint_at(head.uri.path()).is_some() {
            let peer = request::peer(attributes.source);
            return Err(endpoint::answer(&self.engine, head, body, peer).await);
        }
        if is_misrouted(&self.engine, &head.method, &head.uri) {
            return Err(Refusal::misrouted(head.uri.path()));
        }
        let claims = match attributes.metadata_context {
            Some(context) => metadata::claims(context.filter_metadata, &self.trusted_metadata),
            None => Ok(None),
        };
        match claims {
            Ok(None) => self.verify(&head).await,
            Ok(Some(claims)) => self.vouched(&head, &claims).await,
            Err(rejection) => Err(self.refusal(rejection, &head)),
        }
    }

    async fn verify(&self, head: &Head) -> Result<Option<Identity>, Refusal> {
        let Head { method, uri, headers, extensions } = head;
        let passed = self.engine.judge(method, uri, headers, extensions).await;
        passed.map(|passed| passed.identity().cloned()).map_err(|denial| self.refused(denial, head))
    }

    /// The same where somebody in front has verified the claims.
    async fn vouched(&self, head: &Head, claims: &metadata::Claims) -> Result<Option<Identity>, Refusal> {
        let refuse = |rejection| self.refusal(rejection, head);
        let identity = claims.identity(&self.engine.config()).map_err(|error| refuse(Rejection::Token(error)))?;
        let Some(jti) = identity.jti() else {
            // Nothing but the token itself tells whether it was revoked alone.
            return match self.verify(head).await? {
                Some(verified) if metadata::are_alike(&verified, &identity) => Ok(Some(verified)),
                _ => Err(refuse(Rejection::MissingJti)),
            };
        };
        if let Ok(Some(shown)) = self.extractor.find(&head.headers, &head.uri)
            && !claims.are_of(shown.token(), identity.iss(), jti, &self.engine.config())
        {
            // The service behind may go by the other one.
            return Err(refuse(Rejection::Credential(ExtractError::Several)));
        }
        let judged = self.engine.judge_vouched(&head.method, &head.uri, &head.headers, identity).await;
        judged.map(Some).map_err(|denial| self.refused(denial, head))
    }

    fn refusal(&self, rejection: Rejection, head: &Head) -> Refusal {
        self.refused(self.engine.denial(rejection, &head.headers), head)
    }

    fn refused(&self, denial: Denial, head: &Head) -> Refusal {
        self.engine.denials().add(Door::ExtAuthz, &head.method, head.uri.path(), denial.rejection);
        reply::refusal(denial, &head.headers)
    }
}
