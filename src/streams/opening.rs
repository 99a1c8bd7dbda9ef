use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap, Uri};

use super::{EndStreams, Open};
use crate::{
    Guard, Passed,
    denylist::{Denylist, streams::Terms},
    guard::Enforcement,
    policy::{Policy, StaleRequests},
    reject::Rejection,
    response::{Challenge, Denial},
    rollout::{Place, Shadow},
    token::{Carried, Head, IdentitySource, ScopeKeys},
};

/// What all streams behind one guard have in common: made once, by [`Guard::streams`].
#[derive(Clone)]
pub struct Streams(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) denylist: Arc<Denylist>,
    pub(super) options: EndStreams,
    pub(super) terms: Terms,
    pub(super) enforcement: Arc<Enforcement>,
    challenge: Arc<Challenge>,
    dpop: bool,
    retry_after: u64,
}

impl Shared {
    /// The answer to a request that is ended before it was answered.
    pub(super) fn denial(&self, rejection: Rejection, request: &HeaderMap) -> Denial {
        Denial::new(rejection, request, self.dpop, Arc::clone(&self.challenge), self.retry_after)
    }
}

impl Streams {
    pub(crate) fn new(
        denylist: Arc<Denylist>,
        policy: &Policy,
        enforcement: Arc<Enforcement>,
        options: EndStreams,
        (challenge, dpop): (Arc<Challenge>, bool),
    ) -> Self {
        let refuses_stale = match policy.stale {
            StaleRequests::AsConfigured => !denylist.staleness_policy().serves(),
            StaleRequests::Serve => false,
            StaleRequests::Refuse => true,
        };
        let terms = Terms {
            missing_iat: policy.missing_iat,
            ends_on_refresh: options.on_refresh,
            ends_when_stale: options.when_stale && refuses_stale,
        };
        let retry_after = policy.retry_after.as_secs().max(1);
        Self(Arc::new(Shared { denylist, options, terms, enforcement, challenge, dpop, retry_after }))
    }
}

impl Streams {
    /// The keys that end what is opened with them, as far as that is rolled out now, and where their user stands. Kinds of
    /// scopes in shadow must not hide another.
    pub(super) fn watched(&self, keys: &ScopeKeys) -> (ScopeKeys, Option<Place>) {
        let (place, shared) = (keys.place(), &*self.0);
        let kinds = match shared.enforcement.rollout().shadow_of(place) {
            // Nothing ends, and what would have is counted.
            Shadow::ALL => shared.options.kinds,
            some => shared.options.kinds & !some.scopes(),
        };
        (keys.only(kinds), place)
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// The right to open streams that a request's token gives, and takes back.
///
/// [`EndStreamsLayer`](super::EndStreamsLayer) puts it into the extensions of requests that pass with a token, and sees to
/// their bodies by itself. Who takes over the connection, as for a WebSocket, takes it from there and holds what it
/// [opens](Opening::open).
#[derive(Clone)]
pub struct Opening(Arc<Inner>);

struct Inner {
    streams: Streams,
    keys: ScopeKeys,
    place: Option<Place>,
    exp: Option<u64>,
}

impl Opening {
    pub(super) fn new(streams: Streams, carried: Carried) -> Self {
        let Carried { keys, exp } = carried;
        let (keys, place) = streams.watched(&keys);
        Self(Arc::new(Inner { streams, keys, place, exp }))
    }

    /// Registers a stream: from now on, and for as long as what this returns is kept, it hears of revocations.
    pub fn open(&self) -> Open {
        let Inner { streams, keys, place, exp } = &*self.0;
        Open::new(streams.clone(), keys, *place, *exp)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.streams.0
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("keys", &self.0.keys).finish_non_exhaustive()
    }
}

impl<I: IdentitySource> Guard<I> {
    /// Ends streams of requests that this guard lets pass.
    pub fn streams(&self, options: EndStreams) -> Streams {
        Streams::new(
            Arc::clone(self.denylist()),
            self.policy(),
            Arc::clone(self.enforcement()),
            options,
            self.challenges(),
        )
    }

    /// What a request that passed may open; `None` where it carries no token, or nothing is to end.
    pub fn opening(
        &self,
        streams: &Streams,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &Extensions,
        passed: &Passed,
    ) -> Option<Opening> {
        if !streams.0.options.on {
            return None;
        }
        let carried = self.carried(Head { uri, headers, extensions }, passed)?;
        Some(Opening::new(streams.clone(), carried))
    }
}
