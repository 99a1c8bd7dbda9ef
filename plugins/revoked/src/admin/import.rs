//! Takes in what another store has exported.

use std::collections::HashMap;

use bytes::Buf as _;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_revocation::{
    Revocations,
    revocation::{Cutoff, Revocation, ScopeKey, ScopeState},
};

use super::{
    Inner,
    answer::{self, AdminBody, Problem},
    body::{self, MOST, PATIENCE},
    live::lookup,
    scope::Listed,
};

/// How many are recorded in one write.
const BATCH: usize = 500;
/// How many lines that cannot be used are named.
const NAMED: usize = 20;

pub(super) async fn answer(inner: &Inner, mut body: Incoming) -> Result<Response<AdminBody>, Problem> {
    let mut import = Import::new(inner);
    let mut lines = Lines::default();
    let broken = |import: &Import<'_>, problem: Problem| import.so_far(problem);
    loop {
        let frame = timeout(PATIENCE, body.frame()).await.map_err(|_| broken(&import, body::late()))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| {
            let what = "the body broke off";
            broken(&import, Problem::new(StatusCode::BAD_REQUEST, "invalid_request", what))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        for line in lines.push(data.chunk()).map_err(|problem| broken(&import, problem))? {
            import.line(&line).await?;
        }
    }
    import.line(&lines.rest).await?;
    import.record().await?;
    tracing::info!(recorded = import.recorded, read = import.read, failed = import.failed, "an operator imported");
    if import.failed > 0 {
        return Err(import.so_far(Problem::unprocessable("some lines cannot be used; the others are recorded")));
    }
    Ok(answer::json(StatusCode::OK, &Value::Object(import.counts())))
}

/// An import under way.
struct Import<'a> {
    inner: &'a Inner,
    revocations: &'a Revocations,
    batch: Vec<Line>,
    /// Lines, empty ones included.
    at: u64,
    read: u64,
    recorded: u64,
    failed: u64,
    errors: Vec<Value>,
}

/// What a line says.
struct Line {
    revocation: Revocation,
    key: ScopeKey,
    cutoff: Cutoff,
    retain_until: u64,
}

impl Line {
    /// Whether `state` says as much. A ban covers bans only: it will be lifted one day.
    fn is_covered_by(&self, state: &ScopeState) -> bool {
        let ban = |until: u64| until == u64::MAX;
        let kept = |until: u64| until >= self.retain_until && ban(until) == ban(self.retain_until);
        state.cutoff().is_some_and(|cutoff| cutoff >= self.cutoff) && state.retain_until().is_some_and(kept)
    }
}

impl<'a> Import<'a> {
    fn new(inner: &'a Inner) -> Self {
        let revocations = inner.engine.revocations();
        Self { inner, revocations, batch: Vec::new(), at: 0, read: 0, recorded: 0, failed: 0, errors: Vec::new() }
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Problem> {
        self.at += 1;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        match self.read(line) {
            Ok(line) => {
                self.read += 1;
                self.batch.push(line);
            }
            Err(what) => {
                self.failed += 1;
                if self.errors.len() < NAMED {
                    self.errors.push(json!({ "line": self.at, "error": what }));
                }
            }
        }
        if self.batch.len() < BATCH { Ok(()) } else { self.record().await }
    }

    fn read(&self, line: &[u8]) -> Result<Line, String> {
        let listed: Listed = body::read_json(line).map_err(|_| "this is no exported revocation".to_owned())?;
        let denylist = self.revocations.denylist();
        let scope =
            listed.scope.as_ref().ok_or("only the key of its scope is known, which counts in its own store alone")?;
        let scope = scope.read().ok_or("its scope lacks a value, or has one too many")?;
        let (now, key) = (denylist.exact_now().unix(), denylist.hasher().key(&scope));
        let cutoff = listed.cutoff.cutoff(now).ok_or("its cutoff is no time")?;
        if cutoff.secs().is_some_and(|secs| secs > self.inner.latest_cutoff(now)) {
            return Err("its cutoff is in the future, and would be recorded as now".to_owned());
        }
        let retain_until = listed.retain_until.until().ok_or("its retain_until is no time")?;
        let mut revocation = if retain_until == u64::MAX {
            Revocation::ban(scope)
        } else {
            // It is kept for as long as it was to be, by the lifetimes of this fleet.
            let kept_after_exp = denylist.lifetimes().retain_token(0);
            Revocation::new(scope).cutoff(cutoff).token_expires(retain_until.saturating_sub(kept_after_exp))
        };
        if let Some(reason) = listed.reason {
            revocation = revocation.reason(reason);
        }
        let revocation = revocation.revoked_by(listed.revoked_by.unwrap_or_else(|| super::author(None)));
        let cutoff = if retain_until == u64::MAX { Cutoff::FOREVER } else { cutoff };
        Ok(Line { revocation, key, cutoff, retain_until })
    }

    async fn record(&mut self) -> Result<(), Problem> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let recorded = self.record_all(batch).await;
        self.recorded += recorded.map_err(|problem| self.so_far(problem))? as u64;
        Ok(())
    }

    /// Records what the store does not hold already. How many.
    async fn record_all(&self, lines: Vec<Line>) -> Result<usize, Problem> {
        let keys: Vec<_> = lines.iter().map(|line| line.key).collect();
        let mut states: HashMap<_, ScopeState> = HashMap::new();
        for change in lookup(self.revocations, &keys).await? {
            states.entry(change.key()).or_default().apply(&change);
        }
        let new =
            lines.into_iter().filter(|line| !states.get(&line.key).is_some_and(|state| line.is_covered_by(state)));
        Ok(self.revocations.revoke_all(new.map(|line| line.revocation)).await?.len())
    }

    fn counts(&self) -> serde_json::Map<String, Value> {
        // What is not recorded is covered already, or over.
        let counts =
            json!({ "read": self.read, "recorded": self.recorded, "failed": self.failed, "errors": self.errors });
        counts.as_object().cloned().unwrap_or_default()
    }

    fn so_far(&self, problem: Problem) -> Problem {
        self.counts().into_iter().fold(problem, |problem, (name, value)| problem.with(&name, value))
    }
}

/// Pieces of a body, cut into lines.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes in a piece, and returns the lines that end in it.
    fn push(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, Problem> {
        self.rest.extend_from_slice(piece);
        let mut lines: Vec<Vec<u8>> = self.rest.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        self.rest = lines.pop().unwrap_or_default();
        if lines.iter().chain([&self.rest]).any(|line| line.len() > MOST) {
            let what = format!("a line is longer than {MOST} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", what));
        }
        Ok(lines)
    }
}
