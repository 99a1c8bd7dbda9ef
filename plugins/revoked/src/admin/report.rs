//! Who sends what is refused, or would be.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tower_revocation::report::{Missing, Refused, Report, Sender};

use super::{
    Inner,
    answer::{self, AdminBody},
};

pub(super) fn answer(inner: &Inner) -> Response<AdminBody> {
    let engine = &inner.engine;
    let (Report { since, missing, refused, left_out, .. }, counts) = (engine.report(), engine.counts());
    let missing = missing.iter().map(|row| {
        let Missing { sender, jti, sid, iat, last_seen, .. } = row;
        with_sender(sender, json!({ "jti": jti, "sid": sid, "iat": iat, "last_seen": last_seen }))
    });
    let refused = refused.iter().map(|row| {
        let Refused { sender, reason, scope, refused, would_refuse, last_seen, .. } = row;
        let counts = json!({
            "reason": reason,
            "scope": scope.map(|kind| kind.as_str()),
            "refused": refused,
            "would_refuse": would_refuse,
            "last_seen": last_seen,
        });
        with_sender(sender, counts)
    });
    let report = json!({
        "since": since,
        "rollout": rollout(inner),
        "refused_in_all": counts.refused,
        "would_refuse_in_all": counts.would_refuse,
        "missing": missing.collect::<Vec<_>>(),
        "refused": refused.collect::<Vec<_>>(),
        "left_out": left_out,
    });
    answer::json(StatusCode::OK, &report)
}

/// What is enforced, and for whom.
pub(super) fn rollout(inner: &Inner) -> Value {
    let rollout = inner.engine.guard().rollout();
    json!({
        "shadow": rollout.shadow.names(),
        "percent": f64::from(rollout.percent.as_hundredths()) / 100.0,
    })
}

fn with_sender(sender: &Sender, mut row: Value) -> Value {
    let (who, iss, client_id) = match sender {
        Sender::Client { iss, client_id, .. } => ("client", Some(iss), client_id.as_ref()),
        Sender::Others => ("others", None, None),
        _ => ("unknown", None, None),
    };
    let of: Map<String, Value> = [("sender", json!(who)), ("iss", json!(iss)), ("client_id", json!(client_id))]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
    if let Some(row) = row.as_object_mut() {
        row.extend(of);
    }
    row
}
