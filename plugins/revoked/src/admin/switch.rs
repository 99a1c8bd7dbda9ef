//! Endpoints on and off while the daemon runs.

use std::collections::BTreeMap;

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    Inner,
    answer::{self, AdminBody, Problem},
};

pub(super) fn list(inner: &Inner) -> Response<AdminBody> {
    let switches = inner.engine.switches();
    let named = |switch: &crate::engine::Switch| {
        (switch.name.as_str().to_owned(), json!({ "enabled": switch.enabled, "path": switch.path }))
    };
    let endpoints: serde_json::Map<String, Value> = switches.iter().map(named).collect();
    answer::json(StatusCode::OK, &json!({ "endpoints": endpoints }))
}

pub(super) fn turn(inner: &Inner, wanted: &BTreeMap<String, bool>) -> Result<Response<AdminBody>, Problem> {
    let there = inner.engine.switches();
    let find = |name: &str| there.iter().find(|switch| switch.name.as_str() == name);
    let unknown = wanted.keys().any(|name| find(name).is_none());
    if unknown || wanted.is_empty() {
        let names: Vec<_> = there.iter().map(|switch| switch.name.as_str()).collect();
        let what = format!("name endpoints that there are ({}), each with true or false", names.join(", "));
        return Err(Problem::unprocessable(what));
    }
    for (name, on) in wanted {
        if let Some(switch) = find(name) {
            inner.engine.switch(switch.name, *on);
            tracing::info!(endpoint = %switch.name, on, "an operator turned an endpoint");
        }
    }
    Ok(list(inner))
}
