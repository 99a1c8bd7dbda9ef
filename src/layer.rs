use std::{fmt, sync::Arc};

use tower_layer::Layer;

#[cfg(feature = "streams")]
use crate::streams::{EndStreams, Streams};
use crate::{
    AskingLayer, Guard, RevocationService, denylist::Denylist, policy::Policy, response::Json, token::IdentitySource,
};

/// Refuses every request that carries a revoked token.
///
/// Wrap the *whole* service from outside: in axum, routes added after `Router::layer` are not covered.
/// Order, from the outside: tracing, CORS (or browsers cannot read the 401), timeouts and limits, **this**,
/// then the service's own verification.
///
/// A layer cannot be built without saying where identities come from, and one that verifies nothing
/// cannot be built without the word that something behind it does.
#[must_use]
pub struct RevocationLayer<I, D = Json> {
    pub(crate) guard: Arc<Guard<I>>,
    pub(crate) deny: D,
    pub(crate) insert_identity: bool,
    #[cfg(feature = "streams")]
    pub(crate) streams: Option<Streams>,
}

impl<I: IdentitySource> RevocationLayer<I> {
    /// Checks requests against `denylist`, taking identities from `source`.
    pub fn new(denylist: Arc<Denylist>, source: I) -> Self {
        Self::with_policy(denylist, source, Policy::default())
    }

    /// The same, with a policy for what requests leave open.
    pub fn with_policy(denylist: Arc<Denylist>, source: I, policy: Policy) -> Self {
        Self::from(Arc::new(Guard::new(denylist, source, policy)))
    }
}

/// Several doors can share one guard, with its cache and counters.
impl<I> From<Arc<Guard<I>>> for RevocationLayer<I> {
    fn from(guard: Arc<Guard<I>>) -> Self {
        Self {
            guard,
            deny: Json,
            insert_identity: false,
            #[cfg(feature = "streams")]
            streams: None,
        }
    }
}

impl<I, D> RevocationLayer<I, D> {
    /// Answers refused requests with what `deny` builds: [`Json`], [`Bare`](crate::response::Bare), or a closure
    /// `|denial: Denial| -> Response<B>`.
    pub fn deny_with<E>(self, deny: E) -> RevocationLayer<I, E> {
        RevocationLayer {
            guard: self.guard,
            deny,
            insert_identity: self.insert_identity,
            #[cfg(feature = "streams")]
            streams: self.streams,
        }
    }

    /// Puts the [`Identity`](crate::token::Identity) into the extensions of requests that pass, where the layer
    /// verified the token itself. Costs up to three allocations a request.
    pub fn insert_identity(mut self, insert: bool) -> Self {
        self.insert_identity = insert;
        self
    }

    /// Lets requests wait where somebody else has to tell whether their token may pass: for a denylist in
    /// [tiered mode](crate::denylist::Mode::Tiered), and for a source of identities that was told to ask others. Without
    /// this they are refused.
    pub const fn asking(self) -> AskingLayer<I, D> {
        AskingLayer::new(self)
    }

    /// Whether it puts anything into the requests that pass.
    #[inline]
    pub(crate) const fn adds(&self) -> bool {
        #[cfg(feature = "streams")]
        let opens = self.streams.is_some();
        #[cfg(not(feature = "streams"))]
        let opens = false;
        self.insert_identity || opens
    }

    /// Puts an opening into the requests that pass.
    #[cfg(feature = "streams")]
    pub(crate) fn open_streams(mut self, options: EndStreams) -> Self
    where
        I: IdentitySource,
    {
        self.streams = Some(self.guard.streams(options));
        self
    }

    /// The decision behind the layer, with its counters.
    pub const fn guard(&self) -> &Arc<Guard<I>> {
        &self.guard
    }
}

impl<I, D: Clone> Clone for RevocationLayer<I, D> {
    fn clone(&self) -> Self {
        Self {
            guard: Arc::clone(&self.guard),
            deny: self.deny.clone(),
            insert_identity: self.insert_identity,
            #[cfg(feature = "streams")]
            streams: self.streams.clone(),
        }
    }
}

impl<S, I, D: Clone> Layer<S> for RevocationLayer<I, D> {
    type Service = RevocationService<S, I, D>;

    fn layer(&self, inner: S) -> Self::Service {
        RevocationService::new(inner, self.clone())
    }
}

impl<I: fmt::Debug, D> fmt::Debug for RevocationLayer<I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationLayer").field("guard", &self.guard).finish_non_exhaustive()
    }
}
