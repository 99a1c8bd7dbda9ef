use std::{fmt, sync::Arc, time::Duration};

use http::{Method, request::Parts};
use http_body::Body;

use super::{
    AuthMethod, Client, ClientAuthenticator, EndpointError, body, caller,
    form::{self, Form},
    plan::{Intent, Plan},
    refusal::Refusal,
    route::Route,
};
use crate::{
    Revocations,
    revocation::{Revocation, Scope},
    token::{CompactJws, Identity, MAX_TOKEN, OpaqueKeys, Verifier, VerifyError},
};

/// The token revocation endpoint (RFC 7009). It answers by itself; the service behind is not asked.
///
/// A client ends its own tokens, and no others:
///
/// - A token with a `sid` ends the session *at that client*, access and refresh tokens alike: other clients of the
///   same login go on. A token without one ends alone. Expired tokens count too.
/// - A token that is unknown, malformed, badly signed or already revoked is answered like one that was revoked just
///   now (RFC 7009 §2.2), and has no effect.
/// - A token of another client, or of an issuer that the client has no say over, is `invalid_request`.
/// - 200 is answered only once the revocation is durable and enforced here; else 503 with `Retry-After`.
///
/// `token_type_hint` is ignored, as RFC 7009 §2.1 allows.
#[must_use]
pub struct TokenEndpoint {
    route: Route,
    verifier: Arc<dyn Verifier>,
    clients: Arc<dyn ClientAuthenticator>,
    unowned: Unowned,
    bearer_scope: Option<String>,
    opaque: Option<OpaqueKeys>,
    max_body: usize,
    read_timeout: Duration,
}

/// A verified token that names no client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unowned {
    /// It is nobody's, so nobody revokes it here: `invalid_request`.
    #[default]
    Refuse,
    /// Any confidential client may end it, alone: such a token is in no client's part of a session.
    AllowConfidential,
}

impl TokenEndpoint {
    /// The endpoint at `/oauth/revoke`, for tokens that `verifier` vouches for and clients that `clients` knows.
    pub fn new(verifier: impl Verifier, clients: impl ClientAuthenticator) -> Self {
        Self {
            route: Route::default(),
            verifier: Arc::new(verifier),
            clients: Arc::new(clients),
            unowned: Unowned::default(),
            bearer_scope: None,
            opaque: None,
            max_body: 64 << 10,
            read_timeout: Duration::from_secs(10),
        }
    }

    /// Answers at this path, as requests that arrive at the layer have it.
    ///
    /// # Errors
    ///
    /// Where the path could be written in another way: it must begin with a slash, end without one, and hold no
    /// escapes, empty or dot segments.
    pub fn path(mut self, path: &str) -> Result<Self, EndpointError> {
        self.route = Route::new(path)?;
        Ok(self)
    }

    /// Tokens without a client. Default: [`Unowned::Refuse`].
    pub const fn unowned(mut self, unowned: Unowned) -> Self {
        self.unowned = unowned;
        self
    }

    /// Lets clients authenticate themselves with an access token of this scope (see
    /// [`Clients::access_tokens`](super::Clients::access_tokens)). By default none will do: RFC 7009 §2.1 wants the
    /// client's own credentials, and whoever serves a client's requests holds its access tokens.
    pub fn bearer_scope(mut self, scope: impl Into<String>) -> Self {
        self.bearer_scope = Some(scope.into());
        self
    }

    /// Lets confidential clients revoke opaque tokens (whatever is not shaped like a JWT), within their quota. Give
    /// [`Verify::opaque`](crate::token::Verify::opaque) the same keys.
    ///
    /// Nothing here knows whose such a token is: who holds it may end it, as they may use it (RFC 7009 §5). Public
    /// clients, which anyone can claim to be, have no effect: they could fill the list with made-up tokens.
    pub fn opaque(mut self, keys: OpaqueKeys) -> Self {
        self.opaque = Some(keys);
        self
    }

    /// The longest body, in bytes. Default: 64 KiB.
    pub const fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// How long the body may take to arrive. Default: 10 s.
    pub const fn read_timeout(mut self, time: Duration) -> Self {
        self.read_timeout = time;
        self
    }

    pub(super) const fn route(&self) -> &Route {
        &self.route
    }

    /// What a request comes to; what stands against it is answered at once.
    pub(super) async fn plan<B: Body>(
        &self,
        revocations: &Revocations,
        head: &Parts,
        body: B,
    ) -> Result<Plan, Refusal> {
        if head.method != Method::POST {
            return Err(Refusal::Method);
        }
        if head.uri.query().is_some_and(|query| !query.is_empty()) {
            return Err(Refusal::Query);
        }
        form::check_head(&head.headers)?;
        let body = body::read(body, self.max_body, self.read_timeout).await?;
        let form = Form::parse(&body)?;
        let client = caller::authenticate(&*self.clients, revocations, head, &form).await?;
        if client.method() == Some(AuthMethod::Bearer)
            && !self.bearer_scope.as_deref().is_some_and(|scope| client.has_scope(scope))
        {
            return Err(Refusal::Scope);
        }
        let intent = self.intent(revocations, &client, &form)?;
        Ok(Plan { client, intent, body })
    }

    fn intent(&self, revocations: &Revocations, client: &Client, form: &Form) -> Result<Intent, Refusal> {
        let token = form.get("token").ok_or(Refusal::NoToken)?;
        if token.len() > MAX_TOKEN {
            return Err(Refusal::LongToken);
        }
        let now = revocations.denylist().now().unix();
        let revocation = match &self.opaque {
            // The same fork as at the check: what is looked up as opaque is revoked as opaque.
            Some(keys) if !CompactJws::looks_like(token) => {
                if !client.is_confidential() {
                    return Ok(Intent::Nothing("opaque_token_of_a_public_client"));
                }
                let Some(digest) = keys.digests(token.as_bytes()).next() else { return Err(Refusal::NotRecorded) };
                let until = now.saturating_add(revocations.denylist().lifetimes().max_lifetime_secs());
                Revocation::new(Scope::opaque_token(digest)).token_expires(until).owned_by_client(client.id())
            }
            _ => match self.verifier.verify_expired(token, now) {
                Ok(identity) => self.revocation_of(&identity, client)?,
                Err(VerifyError::KeyNotAvailable) => return Err(Refusal::KeyNotAvailable),
                Err(error) => return Ok(Intent::Nothing(error.as_str())),
            },
        };
        Ok(Intent::Revoke(Box::new(revocation.reason("token_revocation").revoked_by(client.id()))))
    }

    /// What this client's wish to revoke this token comes to.
    fn revocation_of(&self, identity: &Identity, client: &Client) -> Result<Revocation, Refusal> {
        if !client.has_issuer(identity.iss()) {
            return Err(Refusal::Foreign);
        }
        let session = match identity.client_id() {
            Some(owner) if owner == client.id() => identity.sid(),
            Some(_) => return Err(Refusal::Foreign),
            None if self.unowned == Unowned::AllowConfidential && client.is_confidential() => None,
            None => return Err(Refusal::Unowned),
        };
        let revocation = match session {
            Some(sid) => Revocation::new(Scope::client_session(identity.iss(), sid, client.id())),
            None => Revocation::token_of(identity).ok_or(Refusal::Nameless)?,
        };
        Ok(revocation.owned_by(identity, client.id()))
    }
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenEndpoint")
            .field("route", &self.route)
            .field("unowned", &self.unowned)
            .field("opaque", &self.opaque)
            .field("max_body", &self.max_body)
            .field("read_timeout", &self.read_timeout)
            .finish_non_exhaustive()
    }
}
