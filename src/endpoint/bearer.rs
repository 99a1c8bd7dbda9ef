//! Callers that show an access token (RFC 6750).

use super::{AuthMethod, Call, Client, ClientError};
use crate::{
    denylist::Verdict,
    token::{Verifier, VerifyError},
};

/// The client to which a token was issued, with no more power than the token has: its own scopes and its own issuer,
/// whatever else that client is registered for.
pub(super) fn authenticate(token: &str, verifier: &dyn Verifier, call: Call<'_>) -> Result<Client, ClientError> {
    let now = call.revocations.denylist().now().unix();
    let identity = verifier.verify(token, now).map_err(|error| match error {
        VerifyError::KeyNotAvailable => ClientError::Unavailable,
        _ => ClientError::Refused,
    })?;
    match call.revocations.check(&identity) {
        Verdict::Allow => {}
        Verdict::Deny(_) => return Err(ClientError::Refused),
        Verdict::Unknown(_) => return Err(ClientError::Unavailable),
    }
    let id = identity.client_id().ok_or(ClientError::Refused)?;
    let scopes = identity.scope().unwrap_or_default().split(' ').filter(|scope| !scope.is_empty());
    Ok(Client::confidential(id).issuers([identity.iss()]).scopes(scopes).authenticated_by(AuthMethod::Bearer))
}
