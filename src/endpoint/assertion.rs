//! Clients that sign with a key of their own (`private_key_jwt`, RFC 7523 §2.2, §3; OpenID Connect Core §9).

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{Call, ClientError, ClientsError};
use crate::token::{Algorithm, CompactJws, Issuer, JwtVerifier, Keys, Members, Verifier, VerifyError};

/// How far a client's clock may differ.
const LEEWAY: Duration = Duration::from_secs(60);
/// The furthest away an assertion's `exp` may be, but for the leeway: also how long its `jti` is remembered.
const MAX_LIFETIME: Duration = Duration::from_secs(300);
/// The namespace of assertions among messages that count once.
const NAMESPACE: &str = "client_assertion";

/// What verifies the assertions of one client. Secrets are no keys here: who verifies with one could sign, too.
pub(super) fn verifier(
    id: &str,
    keys: Keys,
    algorithms: impl IntoIterator<Item = Algorithm>,
) -> Result<Arc<JwtVerifier>, ClientsError> {
    let algorithms: Vec<_> = algorithms.into_iter().collect();
    if algorithms.iter().any(|algorithm| algorithm.is_hmac()) {
        return Err(ClientsError::SymmetricAlgorithm { id: id.to_owned() });
    }
    // Whom an assertion is for is checked more strictly than for access tokens: below.
    let issuer = Issuer::new(id).client_assertions().any_audience().algorithms(algorithms).keys(keys);
    let verifier = JwtVerifier::builder().leeway(LEEWAY).issuer(issuer).build();
    verifier.map(Arc::new).map_err(|source| ClientsError::Keys { id: id.to_owned(), source })
}

/// The client that an assertion names as its issuer. Nothing is verified yet.
pub(super) fn claimed_id(assertion: &str) -> Option<String> {
    let jws = CompactJws::parse(assertion).ok()?;
    let claims = Members::parse(&jws.payload).ok()?;
    claims.string("iss").ok()?.map(Cow::into_owned)
}

/// Whether the client signed this, for us, just now, and sends it for the first time.
pub(super) async fn check(
    assertion: &str,
    verifier: &JwtVerifier,
    audience: &[String],
    call: Call<'_>,
) -> Result<(), ClientError> {
    let now = call.revocations.denylist().now().unix();
    let identity = verifier.verify(assertion, now).map_err(|error| match error {
        VerifyError::KeyNotAvailable => ClientError::Unavailable,
        _ => ClientError::Refused,
    })?;
    let (Some(jti), Some(exp)) = (identity.jti(), identity.exp()) else { return Err(ClientError::Refused) };
    let latest = now.saturating_add((MAX_LIFETIME + LEEWAY).as_secs());
    if identity.sub() != Some(identity.iss()) || exp > latest || !is_for(assertion, audience) {
        return Err(ClientError::Refused);
    }
    // Other nodes' clocks may be behind: remembered until it has expired for all of them.
    let until = exp.saturating_add(2 * LEEWAY.as_secs());
    call.claim_once(NAMESPACE, identity.iss(), jti, until).await
}

/// Whether it is for us and nobody else: another recipient could send it on to us.
fn is_for(assertion: &str, ours: &[String]) -> bool {
    let Ok(jws) = CompactJws::parse(assertion) else { return false };
    let Ok(claims) = Members::parse(&jws.payload) else { return false };
    let aud = match claims.raw("aud") {
        Some(list) if list.get().starts_with('[') => claims.get::<Vec<String>>("aud").ok().flatten(),
        _ => claims.string("aud").ok().flatten().map(|one: Cow<'_, str>| vec![one.into_owned()]),
    };
    aud.is_some_and(|aud| !aud.is_empty() && aud.iter().all(|aud| ours.contains(aud)))
}
