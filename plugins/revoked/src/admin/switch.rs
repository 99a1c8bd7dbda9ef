//! Endpoints on and off while the daemon runs.

use std::{collections::BTreeMap, fmt};

use http::{Response, StatusCode};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

use super::{
    Inner,
    answer::{self, AdminBody, Problem},
};

/// Which endpoints to turn, each named once.
#[derive(Default)]
pub(super) struct Switches(BTreeMap<String, bool>);

impl<'de> Deserialize<'de> for Switches {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self::default())
    }
}

impl<'de> Visitor<'de> for Switches {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names of endpoints, each with true or false")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((name, on)) = map.next_entry::<String, bool>()? {
            if self.0.insert(name, on).is_some() {
                return Err(de::Error::custom("duplicate field"));
            }
        }
        Ok(self)
    }
}

pub(super) fn list(inner: &Inner) -> Response<AdminBody> {
    let switches = inner.engine.switches();
    let named = |switch: &crate::engine::Switch| {
        (switch.name.as_str().to_owned(), json!({ "enabled": switch.enabled, "path": switch.path }))
    };
    let endpoints: serde_json::Map<String, Value> = switches.iter().map(named).collect();
    answer::json(StatusCode::OK, &json!({ "endpoints": endpoints }))
}

pub(super) fn turn(inner: &Inner, Switches(wanted): &Switches) -> Result<Response<AdminBody>, Problem> {
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
