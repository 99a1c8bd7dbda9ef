//! How this node stands, and its fleet.

use http::{Response, StatusCode};
use serde_json::{Value, json};
use tower_revocation::{
    backend::Position,
    sync::{Node, Status},
};

use super::{
    Inner,
    answer::{self, AdminBody},
    report,
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
    answer::json(StatusCode::OK, &status_document(inner))
}

pub(super) fn status_document(inner: &Inner) -> Value {
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
    let counts = inner.engine.counts();
    let config = inner.engine.config();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "node": node,
        "ready": why.is_empty(),
        "why": why,
        "staleness": staleness.map(|staleness| staleness.as_secs_f64()),
        "stale_after": policy.after().as_secs_f64(),
        "serves_when_stale": policy.serves(),
        "rollout": report::rollout(inner),
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
        "issuers": config.issuer.iter().map(|issuer| issuer.issuer.as_str()).collect::<Vec<_>>(),
        "requests": {
            "refused": counts.refused,
            "would_refuse": counts.would_refuse,
            "served_stale": counts.served_stale,
        },
    })
}

pub(super) fn nodes(inner: &Inner) -> Response<AdminBody> {
    answer::json(StatusCode::OK, &nodes_document(inner))
}

pub(super) fn nodes_document(inner: &Inner) -> Value {
    let nodes = inner.engine.revocations().nodes();
    let newest = newest(&nodes);
    let nodes: Vec<_> = nodes
        .iter()
        .map(|node| {
            json!({
                "node": node.status.node,
                "state": state(node),
                "silent_for": node.silent_for.as_secs_f64(),
                "lease": node.status.lease.as_secs_f64(),
                "applied": node.status.applied.as_ref().map(ToString::to_string),
                "behind": newest.and_then(|newest| behind(node.status.applied.as_ref()?, newest)),
                "enforces": node.status.enforces,
                "shadows": node.status.shadowed_scopes().map(|kind| kind.as_str()).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "nodes": nodes })
}

/// The newest place that a node has announced. Places in another life of the store are not comparable; this is the life
/// of who spoke last.
fn newest(nodes: &[Node]) -> Option<&Position> {
    let last = nodes.iter().filter(|node| node.status.applied.is_some()).min_by_key(|node| node.silent_for)?;
    let life = last.status.applied.as_ref()?.incarnation();
    let places = nodes.iter().filter_map(|node| node.status.applied.as_ref());
    places.filter(|place| place.incarnation() == life).max_by_key(|place| place.offset())
}

/// How far a place is behind the newest; `None`: it belongs to another life of the store.
fn behind(place: &Position, newest: &Position) -> Option<Value> {
    if place.incarnation() != newest.incarnation() {
        return None;
    }
    // Redis counts milliseconds in the upper half, and what came in each of them in the lower.
    let (amount, unit) = match (place.offset() >> 64, newest.offset() >> 64) {
        (0, 0) => (newest.offset().saturating_sub(place.offset()), "changes"),
        (place, newest) => (newest.saturating_sub(place), "milliseconds"),
    };
    Some(json!({ "amount": u64::try_from(amount).unwrap_or(u64::MAX), "unit": unit }))
}

/// The state that a node is in, as far as this one can tell.
pub(super) fn state(node: &Node) -> &'static str {
    match node.silent_for > node.status.lease {
        true => "silent",
        false if node.status.shadows != 0 && !node.status.serves_when_stale => "in_shadow",
        false if !node.status.enforces => "serves_stale",
        false => "live",
    }
}
