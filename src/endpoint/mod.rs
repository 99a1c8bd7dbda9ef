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
mod bearer;
mod body;
mod caller;
#[cfg(feature = "mtls")]
mod certificate;
mod client;
mod form;
mod future;
mod layer;
mod limit;
mod plan;
mod presented;
mod refusal;
mod registry;
mod route;
mod service;
mod token;

use std::{fmt, future::Future, sync::Arc};

use http::Request;
use http_body::Body;

pub(crate) use self::answer::Answer;
#[cfg(feature = "mtls")]
pub use self::certificate::{CertificateHeader, CertificateName, ClientCertificate};
pub use self::{
    client::{AuthMethod, Call, Client, ClientAuthenticator, ClientError},
    future::EndpointFuture,
    layer::EndpointLayer,
    limit::{FailureLimit, PeerAddress},
    presented::{Presented, Secret},
    registry::{Clients, ClientsError, RegisteredClient, SecretMethod},
    service::EndpointService,
    token::{TokenEndpoint, Unowned},
};
use self::{refusal::Refusal, route::Match};
use crate::Revocations;

/// The revocation routes that are answered here. There are none until they are added.
#[derive(Clone, Debug)]
#[must_use]
pub struct Endpoints {
    revocations: Revocations,
    token: Option<Arc<TokenEndpoint>>,
}

/// What a path means to [`Endpoints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Token,
    Ambiguous,
}

impl Endpoints {
    /// Records with this handle.
    pub const fn new(revocations: Revocations) -> Self {
        Self { revocations, token: None }
    }

    /// Answers token revocation (RFC 7009).
    pub fn token(mut self, endpoint: TokenEndpoint) -> Self {
        self.token = Some(Arc::new(endpoint));
        self
    }

    /// The endpoint of a path; `None` for the paths of the service behind.
    #[inline]
    fn find(&self, path: &str) -> Option<Target> {
        match self.token.as_ref()?.route().matches(path) {
            Match::Exact => Some(Target::Token),
            Match::Ambiguous => Some(Target::Ambiguous),
            Match::Other => None,
        }
    }

    /// Answers a request to `target`. Owns what it needs: the caller keeps nothing alive for it.
    fn answer<B: Body>(&self, target: Target, request: Request<B>) -> impl Future<Output = Answer> + use<B> {
        let revocations = self.revocations.clone();
        let endpoint = self.token.clone().filter(|_| target == Target::Token);
        async move {
            let (head, body) = request.into_parts();
            let planned = match endpoint {
                Some(endpoint) => endpoint.plan(&revocations, &head, body).await,
                None => Err(Refusal::AmbiguousPath),
            };
            match planned {
                Ok(plan) => plan.commit(&revocations).await,
                Err(refusal) => {
                    plan::log(None, Err(refusal));
                    refusal.answer()
                }
            }
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
    /// The layer checks another denylist than the endpoints write to.
    OtherDenylist,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path } => write!(
                f,
                "the endpoint path {path:?} is not plain; write it like \"/oauth/revoke\", without escapes, \
                 query, empty or dot segments"
            ),
            Self::OtherDenylist => f.write_str(
                "the layer checks another denylist than the endpoints write to; build it on \
                 `revocations.denylist()` of the same handle",
            ),
        }
    }
}

impl std::error::Error for EndpointError {}
