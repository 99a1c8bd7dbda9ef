//! Tells what a revocation would record and end, and records nothing.

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tower_revocation::{
    directory::{Directory as _, User},
    revocation::Scope,
};

use super::{
    Inner,
    answer::{self, AdminBody, Problem},
    live::{live_record, lookup},
    revoke::{Selection, Token, plan},
    scope::{At, Listed, ScopeText},
};

/// What is to be revoked, and how.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    scope: Option<ScopeText>,
    token: Option<Token>,
    cutoff: Option<At>,
    #[serde(default)]
    ban: bool,
}

pub(super) async fn answer(inner: &Inner, asked: Plan) -> Result<Response<AdminBody>, Problem> {
    let Plan { scope, token, cutoff, ban } = asked;
    let revocations = inner.engine.revocations();
    let denylist = revocations.denylist();
    let now = denylist.exact_now().unix();
    let (revocation, _) = plan(inner, Selection { scope, token }, cutoff, ban, now).await?;
    let scope = revocation.scope().clone();
    let record = revocation.into_record(denylist.hasher(), denylist.lifetimes(), now);
    let there = lookup(revocations, &[record.key()]).await?;
    let there: Vec<_> = there.into_iter().filter_map(|change| live_record(denylist, change)).collect();
    let (mut sessions, mut grants) = (None, None);
    if let Scope::Subject { iss, sub, .. } = &scope {
        let known = inner.engine.directory().sessions_of(&User::new(iss, sub)).await;
        sessions = Some(known.map_err(|error| Problem::unavailable(error.to_string()))?.len());
    }
    if let Some(recorder) = inner.engine.recorder() {
        let known = recorder.grants_of(&scope).await?;
        grants = Some(known.iter().filter(|grant| !grant.ended).count());
    }
    let would = Listed::from(&record);
    let answer = json!({
        "scope": ScopeText::from(&scope),
        "revocations": there.len(),
        "cutoff": there.iter().map(|record| record.cutoff()).max().map(At::from),
        "would": { "cutoff": would.cutoff, "retain_until": would.retain_until },
        "sessions": sessions,
        "grants": grants,
    });
    Ok(answer::json(StatusCode::OK, &answer))
}
