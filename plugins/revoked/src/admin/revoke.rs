//! Revokes, and lifts.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt as _;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tower_revocation::{
    revocation::{Cutoff, Revocation, RevocationId, Scope, ScopeKind},
    sync::{Everywhere, Revoked, Unconfirmed},
    token::{Verifier as _, VerifyError},
};
use zeroize::Zeroizing;

use super::{
    Inner,
    answer::{self, AdminBody, Problem},
    author,
    live::{Piece, live},
    scope::{At, ScopeText},
};

/// A token in a request. It is never shown.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Token(Zeroizing<String>);

impl Token {
    pub(super) fn expose(&self) -> &str {
        self.0.trim()
    }
}

/// How far success reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wait {
    /// This node refuses.
    #[default]
    Local,
    /// Every node does.
    All,
}

/// A scope, or a token that names one.
pub(super) struct Selection {
    pub(super) scope: Option<ScopeText>,
    pub(super) token: Option<Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Revoke {
    scope: Option<ScopeText>,
    token: Option<Token>,
    cutoff: Option<At>,
    #[serde(default)]
    ban: bool,
    reason: Option<String>,
    by: Option<String>,
    #[serde(default)]
    wait: Wait,
    /// Seconds.
    wait_limit: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lift {
    scope: Option<ScopeText>,
    #[serde(default)]
    ids: Vec<String>,
    /// Ends everything about the scope, a ban too, and leaves a cutoff at this moment.
    #[serde(default)]
    enable: bool,
    by: Option<String>,
}

/// How long is waited for other nodes, unless it is said, and at most. Seconds.
const WAIT: u64 = 5;
const LONGEST_WAIT: u64 = 60;
/// How many characters a reason or a name may have.
const TEXT: usize = 1000;
/// How many ids one lift may name.
const IDS: usize = 1000;

pub(super) async fn revoke(inner: &Inner, asked: Revoke) -> Result<Response<AdminBody>, Problem> {
    let Revoke { scope, token, cutoff, ban, reason, by, wait, wait_limit } = asked;
    bounded(&[("reason", &reason), ("by", &by)])?;
    let revocations = inner.engine.revocations();
    let now = revocations.denylist().exact_now().unix();
    let author = author(by.as_deref());
    let (mut revocation, cutoff) = plan(inner, Selection { scope, token }, cutoff, ban, now).await?;
    if let Some(reason) = reason {
        revocation = revocation.reason(reason);
    }
    let scope = revocation.scope().clone();
    let revocation = revocation.revoked_by(&author);
    let outcome = revocations.revoke(revocation.clone()).await?;
    inner.engine.notify(&revocation);
    let grants = end_grants(inner, &scope, cutoff, &author).await?;
    let (word, id, position) = match &outcome {
        Revoked::Recorded { id, position } => ("recorded", Some(*id), Some(position.to_string())),
        Revoked::Covered => ("covered", None, None),
        Revoked::Expired => ("expired", None, None),
        Revoked::Widened { id, .. } => ("widened", Some(*id), None),
        _ => ("recorded", None, None),
    };
    tracing::info!(kind = scope.kind().as_str(), outcome = word, ban, by = author, "an operator revoked");
    let answer = json!({
        "outcome": word,
        "id": id.map(|id| id.to_string()),
        "position": position,
        "scope": ScopeText::from(&scope),
        "grants": grants,
        "everywhere": wait == Wait::All,
    });
    if wait == Wait::All {
        let limit = Duration::from_secs(wait_limit.unwrap_or(WAIT).min(LONGEST_WAIT));
        // What was coarsened is refused as the wider scope.
        let kinds = match &outcome {
            Revoked::Recorded { .. } if grants.is_none_or(|ended| ended == 0) => vec![scope.kind()],
            Revoked::Widened { scope: wider, .. } => vec![wider.kind()],
            // By what, nobody says.
            _ => ScopeKind::ALL.to_vec(),
        };
        let everywhere = revocations.everywhere_of(&kinds, limit).await;
        confirm(
            everywhere.map(|Everywhere { unconfirmed, .. }| unconfirmed).map_err(|error| error.to_string()),
            &answer,
        )?;
    }
    Ok(answer::json(StatusCode::OK, &answer))
}

/// Success with `wait = all` means that every node refuses.
fn confirm(outcome: Result<Vec<Unconfirmed>, String>, answer: &serde_json::Value) -> Result<(), Problem> {
    let (unconfirmed, why) = match outcome {
        Ok(unconfirmed) if unconfirmed.is_empty() => return Ok(()),
        Ok(unconfirmed) => (unconfirmed, "some nodes have not confirmed in time".to_owned()),
        Err(error) => (Vec::new(), error),
    };
    let nodes: Vec<_> = unconfirmed.iter().map(ToString::to_string).collect();
    let what = format!("it is recorded and goes on spreading, but not every node is known to refuse: {why}");
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_everywhere", what).with("unconfirmed", nodes);
    Err(["id", "scope", "outcome"].into_iter().fold(problem, |problem, name| problem.with(name, answer[name].clone())))
}

/// The decision that is asked for at `now`, and its cutoff, where one was given.
pub(super) async fn plan(
    inner: &Inner,
    selection: Selection,
    cutoff: Option<At>,
    ban: bool,
    now: u64,
) -> Result<(Revocation, Option<Cutoff>), Problem> {
    let what = "cutoff is a number of Unix seconds, an RFC 3339 time in UTC, \"now\" or \"forever\"";
    let read = |cutoff: At| cutoff.cutoff(now).ok_or_else(|| Problem::unprocessable(what));
    let cutoff = cutoff.map(read).transpose()?;
    // It would be recorded as no more than that: less than was asked for must not look like success.
    if cutoff.and_then(Cutoff::secs).is_some_and(|secs| secs > inner.latest_cutoff(now)) {
        let what = "cutoff is in the future: what will be issued is refused by a ban, until that is lifted";
        return Err(Problem::unprocessable(what));
    }
    if ban && (cutoff.is_some() || selection.token.is_some()) {
        return Err(Problem::unprocessable("a ban is about a scope, and has no cutoff"));
    }
    let mut revocation = select(inner, selection).await?;
    if ban {
        revocation = Revocation::ban(revocation.scope().clone());
    }
    if let Some(cutoff) = cutoff {
        revocation = revocation.cutoff(cutoff);
    }
    Ok((revocation, cutoff))
}

/// What is to be revoked.
async fn select(inner: &Inner, selection: Selection) -> Result<Revocation, Problem> {
    let config = inner.engine.config();
    match selection {
        Selection { scope: Some(scope), token: None } => {
            let issuers: Vec<_> = config.issuer.iter().map(|issuer| issuer.issuer.clone()).collect();
            scope.resolve(&issuers).map(Revocation::new)
        }
        Selection { scope: None, token: Some(token) } => by_token(inner, token.expose()).await,
        _ => Err(Problem::unprocessable("give either \"scope\" or \"token\"")),
    }
}

/// The revocation of one token: of a JWT by its verified claims, of an opaque one by its digest.
async fn by_token(inner: &Inner, token: &str) -> Result<Revocation, Problem> {
    let now = inner.engine.revocations().denylist().exact_now().unix();
    let error = match inner.engine.verifier().verify_expired(token, now) {
        Ok(identity) => {
            return Revocation::token_of(&identity).ok_or_else(|| {
                let what = "nothing in the token tells it apart from others; revoke its session or its user";
                Problem::unprocessable(what)
            });
        }
        Err(VerifyError::KeyNotAvailable) => return Err(Problem::unavailable("the key of the token is being fetched")),
        Err(error) => error,
    };
    let nobodys = || Problem::unprocessable(format!("the token is none of a known issuer's ({})", error.as_str()));
    let (Some(keys), Some(recorder)) = (inner.engine.opaque_keys(), inner.engine.recorder()) else {
        return Err(nobodys());
    };
    // What looks like a JWT is refused by its claims, not by its digest, unless it was seen issued.
    let looks_like_jwt = token.matches('.').count() == 2;
    if token.is_empty() || looks_like_jwt && recorder.family_of(token).await?.is_none() {
        return Err(nobodys());
    }
    let digest = keys.digests(token.as_bytes()).next().ok_or_else(nobodys)?;
    Ok(Revocation::new(Scope::opaque_token(digest)))
}

/// Ends the grants that the recorder knows of the scope, as far as they began before the cutoff. How many.
async fn end_grants(inner: &Inner, scope: &Scope, cutoff: Option<Cutoff>, by: &str) -> Result<Option<usize>, Problem> {
    let Some(recorder) = inner.engine.recorder() else { return Ok(None) };
    let Some(cutoff) = cutoff else { return Ok(Some(recorder.end(scope, by).await?)) };
    let grants = recorder.grants_of(scope).await?;
    let mut ended = 0;
    for grant in grants.iter().filter(|grant| cutoff.covers(grant.began)) {
        recorder.end_grant(grant, by).await?;
        ended += 1;
    }
    Ok(Some(ended))
}

pub(super) async fn lift(inner: &Inner, asked: Lift) -> Result<Response<AdminBody>, Problem> {
    let Lift { scope, ids, enable, by } = asked;
    bounded(&[("by", &by)])?;
    if enable != ids.is_empty() {
        return Err(Problem::unprocessable("give either \"ids\" or \"enable\": true"));
    }
    if ids.len() > IDS {
        return Err(Problem::unprocessable(format!("there are more than {IDS} ids")));
    }
    let ids = ids.iter().map(|id| id.parse()).collect::<Result<Vec<RevocationId>, _>>();
    let ids = ids.map_err(|_| Problem::unprocessable("an id has up to 16 hexadecimal digits"))?;
    let revocations = inner.engine.revocations();
    let author = author(by.as_deref());
    let scope = scope
        .map(|scope| scope.read().ok_or_else(|| Problem::unprocessable("the scope lacks a value, or has one too many")))
        .transpose()?;
    let lifts: Vec<(Scope, Vec<RevocationId>)> = match scope {
        Some(scope) if enable => {
            revocations.enable(&scope, &author).await?;
            tracing::info!(kind = scope.kind().as_str(), by = author, "an operator enabled a scope");
            let answer = json!({ "lifted": [], "enabled": ScopeText::from(&scope) });
            return Ok(answer::json(StatusCode::OK, &answer));
        }
        Some(scope) => vec![(scope, ids)],
        None if enable => return Err(Problem::unprocessable("\"enable\" needs a scope")),
        None => find(inner, &ids).await?,
    };
    let mut lifted = Vec::new();
    for (scope, ids) in &lifts {
        revocations.lift(scope, ids, &author).await?;
        lifted.extend(ids.iter().map(ToString::to_string));
        tracing::info!(kind = scope.kind().as_str(), ids = ?ids, by = author, "an operator lifted revocations");
    }
    Ok(answer::json(StatusCode::OK, &json!({ "lifted": lifted, "enabled": null })))
}

/// The scopes of the live revocations with these ids.
async fn find(inner: &Inner, ids: &[RevocationId]) -> Result<Vec<(Scope, Vec<RevocationId>)>, Problem> {
    let _turn = inner.turn().await?;
    let mut missing = ids.to_vec();
    let mut found: Vec<(Scope, Vec<RevocationId>)> = Vec::new();
    let mut pieces = pin!(live(inner.engine.revocations()));
    while let Some(piece) = pieces.next().await {
        let Piece::Records(records) = piece? else { continue };
        for record in records.iter().filter(|record| ids.contains(&record.id())) {
            let Some(scope) = record.detail().scope else {
                let what = format!("only the key of the scope of {} is known; it cannot be lifted", record.id());
                return Err(Problem::unprocessable(what));
            };
            missing.retain(|id| *id != record.id());
            match found.iter_mut().find(|(other, _)| *other == scope) {
                Some((_, ids)) if ids.contains(&record.id()) => {}
                Some((_, ids)) => ids.push(record.id()),
                None => found.push((scope, vec![record.id()])),
            }
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
    let what = "no live revocation has these ids, and nothing was lifted; with their scope they can be all the same";
    Err(Problem::new(StatusCode::NOT_FOUND, "not_found", what).with("missing", missing))
}

fn bounded(texts: &[(&str, &Option<String>)]) -> Result<(), Problem> {
    for (name, text) in texts {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.chars().count() > TEXT) {
            return Err(Problem::unprocessable(format!("{name} is empty, or longer than {TEXT} characters")));
        }
    }
    Ok(())
}
