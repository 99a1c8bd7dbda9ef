//! Requests that carry their own proof: a JWT made for one call of the global endpoint.

use std::{collections::HashMap, fmt, sync::Arc};

use http::header::{self, HeaderMap};

use super::{Client, intake::Context, refusal::Refusal};
use crate::backend::OneTime;
#[cfg(feature = "jwt")]
use crate::token::{ClaimNames, Issuer, JwtConfigError, JwtVerifier};
use crate::token::{CompactJws, Members, Verifier, VerifyError};

/// The type of these JWTs (RFC 7515 §4.1.9).
const TYP: &str = "global-token-revocation+jwt";
/// How long one may be good for, in seconds.
const MAX_LIFETIME: u64 = 5 * 60;
/// How long one is remembered, in seconds: longer than it is good for, with a leeway of a minute at both ends.
const REMEMBERED: u64 = 10 * 60;
/// Their namespace among messages that count once.
const NAMESPACE: &str = "global-token-revocation";

/// The signed requests that Okta (Universal Logout) and Auth0 send: `Authorization: Bearer` with a JWT of the type
/// `global-token-revocation+jwt`, made for one call.
///
/// It must be signed by one of the issuers with an asymmetric key, be for this endpoint (`aud`), good for no more
/// than five minutes, and have a `jti` that was not used before. Its `iss` and `sub` name the sender, which must be
/// one of [`SignedRequests::sender`].
///
/// Uses of a `jti` are remembered in the backend, for the whole fleet. A request whose answer was 422 or 503, or got lost
/// before it was given, may be sent again as it is, to any node, and has its effect once; with another body it may not.
#[must_use]
pub struct SignedRequests {
    verifier: Arc<dyn Verifier>,
    senders: HashMap<(String, String), Client>,
}

impl SignedRequests {
    /// Requests signed by these issuers, for the endpoint at `url` (without query and fragment). Whatever audience and
    /// claim names the issuers have does not count here, nor do their HMAC algorithms: whoever holds such a secret
    /// could sign.
    ///
    /// # Errors
    ///
    /// Where an issuer has no keys or no asymmetric algorithm, or its keys cannot be read.
    #[cfg(feature = "jwt")]
    pub fn new(url: &str, issuers: impl IntoIterator<Item = Issuer>) -> Result<Self, JwtConfigError> {
        let verifier = issuers.into_iter().fold(JwtVerifier::builder(), |builder, issuer| {
            let issuer = issuer.asymmetric().claim_names(ClaimNames::default());
            builder.issuer(issuer.audience([url]).require_typ(TYP))
        });
        Ok(Self::verified_by(verifier.build()?))
    }

    /// Requests that `verifier` vouches for. It must check signature, type, audience and times.
    pub fn verified_by(verifier: impl Verifier) -> Self {
        Self { verifier: Arc::new(verifier), senders: HashMap::new() }
    }

    /// Lets the sender that `iss` calls `client.id()` (the `sub` of its requests) reach the users of the client's
    /// issuers. The client needs the scope `global_token_revocation`; without it, and unknown, it gets 403.
    pub fn sender(mut self, iss: impl Into<String>, client: Client) -> Self {
        self.senders.insert((iss.into(), client.id().to_owned()), client);
        self
    }

    /// What such a request carries, not verified; `None` where it is none.
    pub(super) fn carried_by(headers: &HeaderMap) -> Option<&str> {
        let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(one), None) = (authorizations.next(), authorizations.next()) else { return None };
        let (scheme, token) = one.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && is_of_type(token)).then_some(token)
    }

    /// The sender of such a request.
    pub(super) fn authenticate(&self, token: &str, now: u64, scope: &str) -> Result<Sender, Refusal> {
        let identity = self.verifier.verify(token, now).map_err(|error| match error {
            VerifyError::KeyNotAvailable => Refusal::AssertionKeys,
            _ => Refusal::Assertion,
        })?;
        let (Some(jti), Some(sub), Some(exp)) = (identity.jti(), identity.sub(), identity.exp()) else {
            return Err(Refusal::Assertion);
        };
        if exp > identity.iat().unwrap_or(now).saturating_add(MAX_LIFETIME) {
            return Err(Refusal::Assertion);
        }
        let sender = self.senders.get(&(identity.iss().to_owned(), sub.to_owned()));
        let client = sender.filter(|client| client.has_scope(scope)).ok_or(Refusal::UnknownCaller)?;
        Ok(Sender { client: client.clone(), iss: identity.iss().to_owned(), jti: jti.to_owned() })
    }

    /// Takes the request with this digest, which counts once.
    pub(super) async fn claim(context: &Context<'_>, sender: &Sender, message: [u8; 32]) -> Result<(), Refusal> {
        let until = context.revocations.denylist().now().unix().saturating_add(REMEMBERED);
        let claim = OneTime::new(NAMESPACE, &sender.iss, &sender.jti, message, until);
        match context.claimed.claim(context.revocations, claim).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Assertion),
            Err(_) => Err(Refusal::NotLoggedOut),
        }
    }
}

/// Whose request it is, and which.
pub(super) struct Sender {
    pub(super) client: Client,
    iss: String,
    jti: String,
}

impl Sender {
    /// Issuer and client in one text, which no other two make.
    pub(super) fn name(&self) -> String {
        format!("{:?} {:?}", self.iss, self.client.id())
    }
}

/// Whether a token says that it is such a request. Nothing of it is verified.
fn is_of_type(token: &str) -> bool {
    let Ok(jws) = CompactJws::parse(token) else { return false };
    let typ =
        Members::parse(&jws.header).and_then(|header| Ok(header.string("typ")?.map(|typ| typ.to_ascii_lowercase())));
    typ.is_ok_and(|typ| typ.is_some_and(|typ| typ.strip_prefix("application/").unwrap_or(&typ) == TYP))
}

impl fmt::Debug for SignedRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedRequests").field("senders", &self.senders.keys()).finish_non_exhaustive()
    }
}
