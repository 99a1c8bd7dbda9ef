//! How this node stands, and its fleet.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use tower_revocation::sync::{Node, Status};

use super::{
    Inner,
    answer::{self, AdminBody},
};

pub(super) fn live() -> Response<AdminBody> {
    answer::json(StatusCode::OK, &json!({ "live": true }))
}

pub(super) fn ready(inner: &Inner) -> Response<AdminBody> {
    let why = why_not_ready(inner);
    let status = if why.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, &json!({ "ready": why.is_empty(), "why": why }))
}

/// What keeps this node from being ready; nothing: it is.
pub(super) fn why_not_ready(inner: &Inner) -> Vec<String> {
    let revocations = inner.engine.revocations();
    let status = revocations.status();
    let mut why = Vec::new();
    if inner.stop.is_cancelled() {
        why.push("shutting down".to_owned());
    }
    match revocations.denylist().not_ready() {
        Some(doubt) => {
            why.push(doubt.to_string());
            // Else there is nothing wrong but time.
            why.extend(status.last_error);
        }
        None if !status.ready => why.push("revocations cannot be recorded".to_owned()),
        None => {}
    }
    why.extend(status.unreadable.iter().map(|record| format!("a record cannot be read: {record}")));
    why
}

pub(super) fn status(inner: &Inner) -> Response<AdminBody> {
    let revocations = inner.engine.revocations();
    let denylist = revocations.denylist();
    let Status {
        node,
        staleness,
        applied,
        records,
        budget,
        over_budget,
        compared,
        repaired,
        written_back,
        durability,
        unreadable,
        last_error,
        ..
    } = revocations.status();
    let why = why_not_ready(inner);
    let scopes: serde_json::Map<String, Value> =
        denylist.scopes().map(|(kind, count)| (kind.as_str().to_owned(), count.into())).collect();
    let policy = denylist.staleness_policy();
    let status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": node,
        "ready": why.is_empty(),
        "why": why,
        "staleness": staleness.map(|staleness| staleness.as_secs_f64()),
        "stale_after": policy.after().as_secs_f64(),
        "serves_when_stale": policy.serves(),
        "applied": applied.map(|position| position.to_string()),
        "records": records,
        "budget": budget,
        "over_budget": over_budget,
        "scopes": scopes,
        "compared": compared,
        "repaired": repaired,
        "written_back": written_back,
        "durability": durability.to_string(),
        "unreadable": unreadable,
        "last_error": last_error,
    });
    answer::json(StatusCode::OK, &status)
}

pub(super) fn nodes(inner: &Inner) -> Response<AdminBody> {
    let nodes = inner.engine.revocations().nodes();
    let nodes: Vec<_> = nodes
        .iter()
        .map(|node| {
            json!({
                "node": node.status.node,
                "state": state(node),
                "silent_for": node.silent_for.as_secs_f64(),
                "lease": node.status.lease.as_secs_f64(),
                "applied": node.status.applied.as_ref().map(ToString::to_string),
                "enforces": node.status.enforces,
            })
        })
        .collect();
    answer::json(StatusCode::OK, &json!({ "nodes": nodes }))
}

/// The states that a node can be in, as far as this one can tell.
pub(super) const STATES: [&str; 3] = ["live", "serves_stale", "silent"];

/// Which one it is in.
pub(super) fn state(node: &Node) -> &'static str {
    match node.silent_for > node.status.lease {
        true => "silent",
        false if !node.status.enforces => "serves_stale",
        false => "live",
    }
}
