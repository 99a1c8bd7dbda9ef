//! The API's own description (OpenAPI 3.1), made of the routes.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    answer::{self, AdminBody},
    route::{Need, ROUTES, Route},
};
use crate::denials::Door;

pub(super) fn answer() -> Response<AdminBody> {
    answer::json(StatusCode::OK, &document())
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "revoked",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The API of operators. Calls that change something need the token; others need it where the \
                            listener can be reached from other machines.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut answers: Map<String, Value> = Map::new();
    for own in route.answers {
        answers.insert(
            own.status.to_string(),
            json!({ "description": own.what, "content": content(own.media, own.schema) }),
        );
    }
    for (status, what) in route.usual_answers() {
        answers.insert(
            status.to_string(),
            json!({ "description": what, "content": content("application/json", "Problem") }),
        );
    }
    let mut operation = json!({
        "operationId": format!("{:?}", route.call).to_ascii_lowercase(),
        "summary": route.summary,
        "responses": answers,
    });
    match route.need {
        Need::Nothing => operation["security"] = json!([]),
        Need::Read => operation["security"] = json!([{}, { "token": [] }]),
        Need::Write => operation["security"] = json!([{ "token": [] }]),
    }
    if !route.query.is_empty() {
        let parameter = |(name, what): &(&str, &str)| {
            let kind = if *name == "limit" { "integer" } else { "string" };
            json!({ "name": name, "in": "query", "description": what, "schema": { "type": kind } })
        };
        operation["parameters"] = route.query.iter().map(parameter).collect();
    }
    if let Some((media, schema)) = route.takes {
        operation["requestBody"] = json!({ "required": true, "content": content(media, schema) });
    }
    operation
}

fn content(media: &str, schema: &str) -> Value {
    json!({ media: { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let maybe = |kind: &str| json!({ "type": [kind, "null"] });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let of = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let list = |name: &str| json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{name}") } });
    let object = |properties: Value, required: &[&str]| json!({ "type": "object", "properties": properties, "required": required });
    let selection = json!({ "scope": of("Scope"), "token": { "type": "string", "writeOnly": true } });
    let mut revoke = selection.clone();
    if let (Some(revoke), Value::Object(more)) = (
        revoke.as_object_mut(),
        json!({
            "cutoff": of("Time"),
            "ban": { "type": "boolean", "description": "Refuse every token of the scope until this is lifted." },
            "reason": text(),
            "by": { "type": "string", "description": "Who asks; recorded as `admin:` and this." },
            "wait": { "enum": ["local", "all"] },
            "wait_limit": { "type": "integer", "description": "Seconds; at most 60.", "default": 5 },
        }),
    ) {
        revoke.extend(more);
    }
    let mut plan = selection.clone();
    if let (Some(plan), Value::Object(more)) =
        (plan.as_object_mut(), json!({ "cutoff": of("Time"), "ban": { "type": "boolean" } }))
    {
        plan.extend(more);
    }
    let until = || json!({ "type": ["integer", "string"], "description": "Unix seconds, or `lifted`: a ban." });
    json!({
        "Problem": object(json!({
            "error": text(),
            "error_description": text(),
            "unconfirmed": texts(),
            "missing": texts(),
        }), &["error", "error_description"]),
        "Scope": object(json!({
            "kind": { "enum": ["token", "signing_input", "opaque_token", "session", "client_session", "subject",
                               "subject_client", "client", "issuer"] },
            "iss": { "type": "string", "description": "May be left out in requests where there is one issuer only." },
            "jti": text(), "sid": text(), "sub": text(), "client_id": text(),
            "sha256": { "type": "string", "description": "Of the signing input, hexadecimal." },
            "digest": { "type": "string", "description": "The id of the key, a colon, the digest in hexadecimal." },
        }), &["kind"]),
        "Time": {
            "description": "Unix seconds; in requests also an RFC 3339 time in UTC, `now` or `forever`, in answers \
                            `forever`.",
            "type": ["integer", "string"],
        },
        "Revocation": object(json!({
            "id": text(),
            "scope": { "anyOf": [of("Scope"), { "type": "null" }], "description": "null: only its key is known." },
            "cutoff": of("Time"),
            "retain_until": until(),
            "reason": maybe("string"),
            "revoked_by": maybe("string"),
            "revoked_at": count(),
        }), &["scope", "cutoff", "retain_until"]),
        "Page": object(json!({
            "revocations": list("Revocation"),
            "next": { "type": ["string", "null"], "description": "Where the next page begins: `after`." },
            "unreadable": count(),
        }), &["revocations", "next", "unreadable"]),
        "Plan": object(plan, &[]),
        "Revoke": object(revoke, &[]),
        "Revoked": object(json!({
            "outcome": { "enum": ["recorded", "covered", "expired", "widened"] },
            "id": maybe("string"),
            "position": maybe("string"),
            "scope": of("Scope"),
            "grants": { "type": ["integer", "null"], "description": "Grants that the recorder ended; null: none is there." },
            "everywhere": { "type": "boolean", "description": "Whether every node refuses it, not this one alone." },
        }), &["outcome", "id", "scope", "everywhere"]),
        "Lift": object(json!({
            "scope": of("Scope"),
            "ids": texts(),
            "enable": { "type": "boolean", "description": "End everything about the scope, leaving a cutoff at this moment." },
            "by": text(),
        }), &[]),
        "Lifted": object(json!({
            "lifted": texts(),
            "enabled": { "anyOf": [of("Scope"), { "type": "null" }] },
        }), &["lifted", "enabled"]),
        "Preview": object(json!({
            "scope": of("Scope"),
            "revocations": count(),
            "cutoff": { "anyOf": [of("Time"), { "type": "null" }], "description": "The latest of those." },
            "would": object(json!({
                "cutoff": of("Time"),
                "retain_until": until(),
            }), &["cutoff", "retain_until"]),
            "sessions": { "type": ["integer", "null"], "description": "Of a user; null: nobody knows." },
            "grants": { "type": ["integer", "null"], "description": "null: there is no recorder." },
        }), &["scope", "revocations", "cutoff", "would", "sessions", "grants"]),
        "Denials": object(json!({ "denials": list("Denied") }), &["denials"]),
        "Denied": object(json!({
            "number": count(),
            "denied_at": { "type": "integer", "description": "Unix milliseconds." },
            "door": { "enum": Door::ALL },
            "reason": text(),
            "scope": { "type": ["string", "null"], "description": "The kind of scope that was revoked; null: another reason." },
            "method": text(),
            "path": { "type": "string", "description": "Without the query, shortened; `…` for parts that may be tokens." },
        }), &["number", "denied_at", "door", "reason", "scope", "method", "path"]),
        "Check": object(json!({ "token": { "type": "string", "writeOnly": true } }), &["token"]),
        "Verdict": object(json!({
            "verdict": { "enum": ["allow", "deny", "unknown"] },
            "reason": text(),
            "detail": text(),
            "shadow": { "type": "boolean", "description": "It passes only since what refuses it is in shadow." },
            "identity": { "type": ["object", "null"] },
            "revocations": {
                "type": ["array", "null"], "items": of("Revocation"),
                "description": "Those that reach it; null: the store cannot be asked.",
            },
        }), &["verdict", "reason", "detail", "identity", "revocations"]),
        "Rollout": object(json!({
            "shadow": { "type": "array", "items": { "type": "string" }, "description": "What refuses nobody." },
            "percent": { "type": "number", "description": "For how many of the users the rest is enforced." },
        }), &["shadow", "percent"]),
        "Report": object(json!({
            "since": { "type": "integer", "description": "Unix seconds." },
            "rollout": of("Rollout"),
            "refused_in_all": count(),
            "would_refuse_in_all": count(),
            "missing": { "type": "array", "items": object(json!({
                "sender": { "enum": ["client", "others", "unknown"] }, "iss": maybe("string"), "client_id": maybe("string"),
                "jti": count(), "sid": count(), "iat": count(), "last_seen": count(),
            }), &["sender", "iss", "client_id", "jti", "sid", "iat", "last_seen"]) },
            "refused": { "type": "array", "items": object(json!({
                "sender": { "enum": ["client", "others", "unknown"] }, "iss": maybe("string"), "client_id": maybe("string"),
                "reason": text(), "scope": maybe("string"), "refused": count(), "would_refuse": count(), "last_seen": count(),
            }), &["sender", "iss", "client_id", "reason", "scope", "refused", "would_refuse", "last_seen"]) },
            "left_out": { "type": "integer", "description": "Counted in all, and in no row." },
        }), &["since", "rollout", "refused_in_all", "would_refuse_in_all", "missing", "refused", "left_out"]),
        "Endpoints": object(json!({
            "endpoints": {
                "type": "object",
                "additionalProperties": object(json!({ "enabled": { "type": "boolean" }, "path": text() }), &["enabled", "path"]),
            },
        }), &["endpoints"]),
        "Switches": { "type": "object", "additionalProperties": { "type": "boolean" }, "minProperties": 1 },
        "Change": object(json!({
            "event": { "enum": ["watching", "snapshot", "revoked", "lifted", "unreadable", "unknown"] },
            "position": maybe("string"),
            "revocation": of("Revocation"),
            "ids": texts(),
            "scope": { "anyOf": [of("Scope"), { "type": "null" }] },
            "lifted_by": maybe("string"),
            "lifted_at": count(),
            "record": text(),
        }), &["event"]),
        "Imported": object(json!({
            "read": count(), "recorded": count(), "failed": count(), "errors": { "type": "array" },
        }), &["read", "recorded", "failed", "errors"]),
        "Live": object(json!({ "live": { "const": true } }), &["live"]),
        "Ready": object(json!({ "ready": { "type": "boolean" }, "why": texts() }), &["ready", "why"]),
        "Status": object(json!({
            "version": text(), "node": text(), "ready": { "type": "boolean" }, "why": texts(),
            "staleness": { "type": ["number", "null"], "description": "Seconds; null: not loaded yet." },
            "stale_after": { "type": "number", "description": "Seconds." },
            "serves_when_stale": { "type": "boolean" },
            "rollout": of("Rollout"),
            "applied": maybe("string"), "records": count(), "budget": count(), "over_budget": { "type": "boolean" },
            "scopes": { "type": "object", "additionalProperties": count() },
            "compared": count(), "repaired": count(), "written_back": count(),
            "durability": text(), "unreadable": texts(), "last_error": maybe("string"),
            "issuers": texts(),
            "requests": of("Requests"),
        }), &["version", "node", "ready"]),
        "Requests": object(json!({ "refused": count(), "would_refuse": count(), "served_stale": count() }),
                           &["refused", "would_refuse", "served_stale"]),
        "Nodes": object(json!({ "nodes": list("Node") }), &["nodes"]),
        "Node": object(json!({
            "node": text(),
            "state": { "enum": ["live", "serves_stale", "in_shadow", "silent"] },
            "silent_for": { "type": "number", "description": "Seconds." },
            "lease": { "type": "number", "description": "Seconds." },
            "applied": maybe("string"),
            "behind": {
                "description": "How far its place is behind the newest that a node has announced; null: nobody can tell.",
                "anyOf": [
                    object(json!({ "amount": count(), "unit": { "enum": ["changes", "milliseconds"] } }), &["amount", "unit"]),
                    { "type": "null" },
                ],
            },
            "enforces": { "type": "boolean" },
            "shadows": { "type": "array", "items": { "type": "string" }, "description": "Kinds of scopes that it does not refuse everywhere." },
        }), &["node", "state", "silent_for", "lease", "applied", "behind", "enforces", "shadows"]),
        "Text": text(),
        "Object": { "type": "object" },
    })
}
