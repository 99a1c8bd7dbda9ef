use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::HeaderName;
use pingora::{Result, proxy::Session};
use tower_revocation::{
    Guard,
    denylist::Denylist,
    policy::Policy,
    response::{DenyResponse, Json},
    token::{Identity, IdentitySource},
};

use crate::{
    answer::answer,
    identity_headers::IdentityHeaders,
    target::{is_readable, unreadable},
};

/// Refuses every request that carries a revoked token, from
/// [`request_filter`](pingora::proxy::ProxyHttp::request_filter).
///
/// It is built from what a [`RevocationLayer`](tower_revocation::RevocationLayer) is built from, and decides and answers as
/// that does.
#[must_use]
pub struct RevocationGuard<I, D = Json> {
    guard: Arc<Guard<I>>,
    deny: D,
    insert_identity: bool,
    identity_headers: IdentityHeaders,
}

impl<I: IdentitySource> RevocationGuard<I> {
    /// Checks requests against `denylist`, taking identities from `source`.
    pub fn new(denylist: Arc<Denylist>, source: I) -> Self {
        Self::with_policy(denylist, source, Policy::default())
    }

    /// The same, with a policy for what requests leave open.
    pub fn with_policy(denylist: Arc<Denylist>, source: I, policy: Policy) -> Self {
        Self {
            guard: Arc::new(Guard::new(denylist, source, policy)),
            deny: Json,
            insert_identity: false,
            identity_headers: IdentityHeaders::default(),
        }
    }
}

impl<I, D> RevocationGuard<I, D> {
    /// Answers refused requests with what `deny` builds: [`Json`], [`Bare`](tower_revocation::response::Bare), or a
    /// closure `|denial: Denial| -> Response<Bytes>`.
    pub fn deny_with<E>(self, deny: E) -> RevocationGuard<I, E> {
        let Self { guard, deny: _, insert_identity, identity_headers } = self;
        RevocationGuard { guard, deny, insert_identity, identity_headers }
    }

    /// Puts the [`Identity`] into the extensions of requests that pass, where the guard verified the token itself:
    /// `session.req_header().extensions.get::<Identity>()`.
    pub fn insert_identity(mut self, insert: bool) -> Self {
        self.insert_identity = insert;
        self
    }

    /// Tells the upstream who calls, in this header: with what `value` takes from the identity, where the guard verified
    /// the token itself.
    ///
    /// The client's own header of that name is removed from every request that passes, and so is one whose name differs
    /// in `-` and `_` only, since some servers take the two for the same. Of what a header cannot hold as it is (other
    /// than visible ASCII, spaces at an end) nothing is sent. Leave `value` at `|_| None` to remove only.
    ///
    /// A client can have the header left out by naming it in `Connection`, as Pingora removes what is named there: to the
    /// upstream, a request without the header must be nobody's.
    pub fn identity_header(mut self, name: HeaderName, value: fn(&Identity) -> Option<&str>) -> Self {
        self.identity_headers.add(name, value);
        self
    }

    /// The decision behind it, with its counters.
    pub const fn guard(&self) -> &Arc<Guard<I>> {
        &self.guard
    }
}

impl<I: IdentitySource, D: DenyResponse<Bytes>> RevocationGuard<I, D> {
    /// Whether the request was refused, and answered: what `request_filter` returns.
    ///
    /// A request whose target has no form of RFC 9112 §3.2 is answered 400 whatever the policy, since the upstream could
    /// find a path or a token in it that Pingora does not show.
    ///
    /// # Errors
    ///
    /// Where the answer could not be written. Return it: the request does not pass then either.
    pub async fn check(&self, session: &mut Session) -> Result<bool> {
        let head = session.req_header();
        if !is_readable(head) {
            answer(session, unreadable()).await?;
            return Ok(true);
        }
        match self.guard.check_parts_or_ask(head).await {
            Ok(passed) => {
                let head = session.req_header_mut();
                self.identity_headers.overwrite(head, passed.identity())?;
                if let (true, Some(identity)) = (self.insert_identity, passed.identity()) {
                    head.extensions_mut().insert(identity.clone());
                }
                Ok(false)
            }
            Err(rejection) => {
                let response = self.deny.deny(self.guard.denial(rejection, &head.headers));
                answer(session, response).await?;
                Ok(true)
            }
        }
    }
}

impl<I, D: Clone> Clone for RevocationGuard<I, D> {
    fn clone(&self) -> Self {
        Self {
            guard: Arc::clone(&self.guard),
            deny: self.deny.clone(),
            insert_identity: self.insert_identity,
            identity_headers: self.identity_headers.clone(),
        }
    }
}

impl<I: fmt::Debug, D> fmt::Debug for RevocationGuard<I, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationGuard").field("guard", &self.guard).finish_non_exhaustive()
    }
}
