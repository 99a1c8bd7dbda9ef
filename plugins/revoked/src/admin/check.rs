//! What the doors say of a token.

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_revocation::{
    Revocations,
    backend::BackendError,
    reject::Rejection,
    revocation::Scope,
    token::{Identity, VerifiedClaims as _, Verifier as _},
};

use super::{
    Inner,
    answer::{self, AdminBody},
    live::{live_record, lookup},
    revoke::Token,
    scope::Listed,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    token: Token,
}

pub(super) async fn answer(inner: &Inner, Check { token }: Check) -> Response<AdminBody> {
    let revocations = inner.engine.revocations();
    let (judged, shadowed) = inner.engine.probe(token.expose()).await;
    let (verdict, reason, detail) = match (&judged, &shadowed) {
        (Ok(_), Some(rejection)) => ("allow", rejection.as_str(), format!("in shadow: {rejection}")),
        (Ok(_), None) => ("allow", "not_revoked", "nothing that this node knows revokes it".to_owned()),
        (Err(rejection @ Rejection::Unknown(_)), _) => ("unknown", rejection.as_str(), rejection.to_string()),
        (Err(rejection), _) => ("deny", rejection.as_str(), rejection.to_string()),
    };
    // What is refused for its time or a revocation still tells whose it is.
    let now = revocations.denylist().exact_now().unix();
    let identity = inner.engine.verifier().verify_expired(token.expose(), now).ok();
    let mut scopes = identity.as_ref().map(scopes).unwrap_or_default();
    if let (None, Some(keys)) = (&identity, inner.engine.opaque_keys()) {
        scopes.extend(keys.digests(token.expose().as_bytes()).map(Scope::opaque_token));
    }
    // The verdict stands also where the store cannot be asked.
    let found = covering(revocations, &scopes, identity.as_ref()).await.ok();
    let answer = json!({
        "verdict": verdict,
        "reason": reason,
        "detail": detail,
        "shadow": shadowed.is_some(),
        "identity": identity.as_ref().map(claims),
        "revocations": found,
    });
    answer::json(StatusCode::OK, &answer)
}

fn claims(identity: &Identity) -> Value {
    json!({
        "iss": identity.iss(),
        "sub": identity.sub(),
        "sid": identity.sid(),
        "jti": identity.jti(),
        "client_id": identity.client_id(),
        "iat": identity.iat(),
        "exp": identity.exp(),
    })
}

/// The scopes that a token falls under.
fn scopes(identity: &Identity) -> Vec<Scope> {
    let (iss, sid, sub, client) = (identity.iss(), identity.sid(), identity.sub(), identity.client_id());
    let mut scopes: Vec<_> = identity.claims().token_scope().into_iter().collect();
    scopes.extend(sid.map(|sid| Scope::session(iss, sid)));
    scopes.extend(sid.zip(client).map(|(sid, client)| Scope::client_session(iss, sid, client)));
    scopes.extend(sub.map(|sub| Scope::subject(iss, sub)));
    scopes.extend(sub.zip(client).map(|(sub, client)| Scope::subject_client(iss, sub, client)));
    scopes.extend(client.map(|client| Scope::client(iss, client)));
    scopes.push(Scope::issuer(iss));
    scopes
}

/// The live revocations of these scopes that reach the token.
async fn covering(
    revocations: &Revocations,
    scopes: &[Scope],
    identity: Option<&Identity>,
) -> Result<Vec<Listed>, BackendError> {
    let denylist = revocations.denylist();
    let keys: Vec<_> = scopes.iter().map(|scope| denylist.hasher().key(scope)).collect();
    let live = lookup(revocations, &keys).await?.into_iter();
    let iat = identity.and_then(Identity::iat);
    let live = live.filter_map(|change| live_record(denylist, change));
    let reaches = live.filter(|record| iat.is_none_or(|iat| record.cutoff().covers(iat)));
    Ok(reaches.map(|record| Listed::from(&record)).collect())
}
