//! Metrics, in the text format of Prometheus. `docs/revoked.md` lists them.

use std::fmt::{Display, Write as _};

use http::{Response, StatusCode};

use super::{
    Inner,
    answer::{self, AdminBody},
    health,
    route::METRICS,
};

/// Text that grows by a metric at a time.
struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP revoked_{name} {help}\n# TYPE revoked_{name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, "gauge", help);
        let _ = writeln!(self.0, "revoked_{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric(name, "counter", help);
        let _ = writeln!(self.0, "revoked_{name} {value}");
    }

    /// One value for each of a few names that are known beforehand.
    fn labelled<V: Display>(&mut self, name: &str, label: &str, values: impl IntoIterator<Item = (&'static str, V)>) {
        for (of, value) in values {
            let _ = writeln!(self.0, "revoked_{name}{{{label}=\"{of}\"}} {value}");
        }
    }
}

pub(super) fn answer(inner: &Inner) -> Response<AdminBody> {
    let engine = &inner.engine;
    let revocations = engine.revocations();
    let (status, counts, nodes) = (revocations.status(), engine.counts(), revocations.nodes());
    let mut text = Text(String::with_capacity(4096));

    text.metric("build_info", "gauge", "Always 1; the version is in the label.");
    text.labelled("build_info", "version", [(env!("CARGO_PKG_VERSION"), 1)]);
    let ready = health::why_not_ready(inner).is_empty();
    text.gauge("ready", "1 where this node is loaded, in step and can record, else 0.", u8::from(ready));
    let staleness = status.staleness.map_or(f64::INFINITY, |staleness| staleness.as_secs_f64());
    let staleness = if staleness.is_finite() { staleness.to_string() } else { "+Inf".to_owned() };
    text.gauge("staleness_seconds", "Age of the last moment at which this node was in step; +Inf before.", staleness);
    let applied = status.applied.map_or(0, |position| position.offset());
    text.gauge("applied_position", "Place in the store's feed that this node has applied.", applied);
    text.gauge("records", "Records held, tombstones included.", status.records);
    text.gauge("records_budget", "Records that may be held.", status.budget);
    text.gauge("over_budget", "1 where more is held than may be, else 0.", u8::from(status.over_budget));
    text.gauge("unreadable_records", "Records in the store that this node cannot read.", status.unreadable.len());
    text.metric("scopes", "gauge", "Scopes with a revocation, by kind.");
    text.labelled("scopes", "kind", revocations.denylist().scopes().map(|(kind, count)| (kind.as_str(), count)));
    text.metric("nodes", "gauge", "Nodes of the fleet, by state.");
    let in_state = |state| (state, nodes.iter().filter(|node| health::state(node) == state).count());
    text.labelled("nodes", "state", health::STATES.map(in_state));

    text.counter("requests_refused_total", "Requests that were refused, at every door.", counts.refused);
    let would = "Requests that shadow mode would have refused.";
    text.counter("requests_would_refuse_total", would, counts.would_refuse);
    let served = "Requests that were served while the list was stale.";
    text.counter("requests_served_stale_total", served, counts.served_stale);
    text.metric("tokens_missing_claim_total", "counter", "Tokens without a claim, by its name.");
    text.labelled("tokens_missing_claim_total", "claim", counts.missing_claims);

    text.counter("compared_total", "Comparisons of this node with the store.", status.compared);
    text.counter("repaired_total", "Revocations that this node had missed and a comparison found.", status.repaired);
    text.counter("written_back_total", "Revocations that the store had lost and got back.", status.written_back);
    text.counter("admin_wrong_tokens_total", "Wrong tokens shown to the admin listener.", inner.access.failed());
    text.metric("endpoint_enabled", "gauge", "1 where the endpoint is on, else 0.");
    let switches = engine.switches();
    let enabled = switches.iter().map(|switch| (switch.name.as_str(), u8::from(switch.enabled)));
    text.labelled("endpoint_enabled", "endpoint", enabled);
    answer::whole(StatusCode::OK, METRICS, text.0)
}
