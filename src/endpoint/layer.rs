use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{EndpointError, EndpointService, Endpoints};
use crate::{RevocationLayer, response::Json, token::IdentitySource};

/// Answers the revocation routes, and refuses every other request that carries a revoked token.
///
/// Wrap the *whole* service from outside: a router that strips a prefix (axum's `nest`) hides the path that requests
/// came with. A path that only looks like an endpoint's once it is normalised (`//`, `%72`, `/../`, a trailing
/// slash) is answered 400, since the service behind could see it as its own.
///
/// In front of an authorization server, [`FrontLayer`](super::FrontLayer) does more: it can let that server answer too.
///
/// Order and limits as for [`RevocationLayer`]; limits on concurrency belong outside, since an endpoint's answer
/// never calls the service behind.
#[must_use]
pub struct EndpointLayer<I, D = Json> {
    layer: RevocationLayer<I, D>,
    endpoints: Arc<Endpoints>,
}

impl<I: IdentitySource, D> EndpointLayer<I, D> {
    /// Puts the endpoints in front of the check.
    ///
    /// # Errors
    ///
    /// Where `layer` checks another denylist than the one that the endpoints write to, or an endpoint has no path to
    /// itself.
    pub fn new(layer: RevocationLayer<I, D>, endpoints: Endpoints) -> Result<Self, EndpointError> {
        endpoints.check(layer.guard().denylist())?;
        Ok(Self { layer, endpoints: Arc::new(endpoints) })
    }

    /// Ends streams that are open when their token is revoked, too.
    #[cfg(feature = "streams")]
    pub fn end_streams(self, options: crate::streams::EndStreams) -> crate::streams::EndStreamsLayer<Self> {
        crate::streams::EndStreamsLayer::around(Self { layer: self.layer.open_streams(options), ..self })
    }
}

impl<I, D: Clone> Clone for EndpointLayer<I, D> {
    fn clone(&self) -> Self {
        Self { layer: self.layer.clone(), endpoints: Arc::clone(&self.endpoints) }
    }
}

impl<S, I, D: Clone> Layer<S> for EndpointLayer<I, D> {
    type Service = EndpointService<S, I, D>;

    fn layer(&self, inner: S) -> Self::Service {
        EndpointService::new(self.layer.clone().asking().layer(inner), Arc::clone(&self.endpoints))
    }
}

impl<I: fmt::Debug, D> fmt::Debug for EndpointLayer<I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointLayer").field("layer", &self.layer).field("endpoints", &self.endpoints).finish()
    }
}
