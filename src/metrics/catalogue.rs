//! Every metric there is. The documentation is held against this list by a test.

use metrics::{Key, Label, Level, Metadata, Unit};

/// A metric: what it is called and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name. Counters end in `_total`, what has a unit in that unit.
    pub name: &'static str,
    /// What kind it is of.
    pub kind: Kind,
    /// What is counted or measured.
    pub unit: Unit,
    /// Its labels. Each has a few values that are known beforehand; none comes from outside.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It only grows, but for a restart.
    Counter,
    /// It has one value at a time.
    Gauge,
    /// How often which values were seen.
    Histogram,
}

impl Kind {
    /// The name of the kind, as Prometheus has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Where the metrics say that they come from.
const METADATA: Metadata<'static> = Metadata::new("tower_revocation", Level::INFO, None);

impl Metric {
    /// Something that only grows.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, unit: Unit::Count, labels, help }
    }

    /// Something that has one value at a time.
    pub const fn gauge(name: &'static str, unit: Unit, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, unit, labels, help }
    }

    #[cfg(feature = "sync")]
    const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, unit: Unit::Seconds, labels: &[], help }
    }

    /// Tells the recorder of this process what it is.
    pub fn describe(&self) {
        let (name, unit, help) = (self.name.into(), Some(self.unit), self.help.into());
        metrics::with_recorder(|recorder| match self.kind {
            Kind::Counter => recorder.describe_counter(name, unit, help),
            Kind::Gauge => recorder.describe_gauge(name, unit, help),
            Kind::Histogram => recorder.describe_histogram(name, unit, help),
        });
    }

    /// Sets a counter to what was counted in all. `values`: of the labels, in their order.
    pub fn total(&self, values: &[&'static str], total: u64) {
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA).absolute(total));
    }

    /// Counts one more. `values`: of the labels, in their order.
    pub fn increment(&self, values: &[&'static str]) {
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_counter(&key, &METADATA).increment(1));
    }

    /// Sets a gauge. `values`: of the labels, in their order.
    pub fn set(&self, values: &[&'static str], value: f64) {
        let key = self.key(values);
        metrics::with_recorder(|recorder| recorder.register_gauge(&key, &METADATA).set(value));
    }

    /// Adds a value to a histogram.
    #[cfg(feature = "sync")]
    pub(crate) fn observe(&self, value: std::time::Duration) {
        let key = self.key(&[]);
        metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA).record(value.as_secs_f64()));
    }

    fn key(&self, values: &[&'static str]) -> Key {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let labels = self.labels.iter().zip(values).map(|(label, value)| Label::from_static_parts(label, value));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}

macro_rules! catalogue {
    ($($(#[$which:meta])* $constant:ident = $metric:expr;)*) => {
        $($(#[$which])* pub(crate) const $constant: Metric = $metric;)*

        /// Every metric that this crate has, with the features that it was built with.
        pub const METRICS: &[Metric] = &[$($(#[$which])* $constant),*];
    };
}

catalogue! {
    CHECKS = Metric::counter("revoked_checks_total", &["verdict", "reason"], "Requests that were judged, by verdict and reason; in shadow mode the verdict counts, not what became of it.");
    REFUSED = Metric::counter("revoked_requests_refused_total", &["reason"], "Requests that were refused, at every door.");
    WOULD_REFUSE = Metric::counter("revoked_requests_would_refuse_total", &["reason"], "Requests that shadow mode let pass and that would have been refused.");
    DENIALS = Metric::counter("revoked_denials_total", &["kind"], "Requests whose token is revoked, by the kind of the revoked scope; in shadow mode too.");
    SERVED_STALE = Metric::counter("revoked_requests_served_stale_total", &[], "Requests that were served while the denylist was stale.");
    MISSING_CLAIM = Metric::counter("revoked_tokens_missing_claim_total", &["claim"], "Tokens without a claim that revocation could go by, counted when they are verified.");
    TOKEN_CACHE = Metric::counter("revoked_token_cache_lookups_total", &["found"], "Look-ups in the cache of verified tokens, by where the token was: with the thread, with all threads, or nowhere.");
    FALSE_POSITIVES = Metric::counter("revoked_filter_false_positives_total", &[], "Keys of which the filter said maybe and that are not revoked.");
    #[cfg(feature = "streams")]
    OPEN_STREAMS = Metric::gauge("revoked_open_streams", Unit::Count, &[], "Answers, request bodies and connections that are open and end with their token.");
    #[cfg(feature = "streams")]
    STREAMS_ENDED = Metric::counter("revoked_streams_ended_total", &[], "Of these, those that were ended.");
    #[cfg(feature = "streams")]
    STREAMS_WOULD_END = Metric::counter("revoked_streams_would_end_total", &[], "Of these, those that shadow mode would have ended.");
    SCOPES = Metric::gauge("revoked_scopes", Unit::Count, &["kind"], "Scopes with a revocation, by kind.");
    SCOPE_BYTES = Metric::gauge("revoked_scope_bytes", Unit::Bytes, &["kind"], "About what these scopes take in memory.");
    RECORDS = Metric::gauge("revoked_records", Unit::Count, &[], "Records held, tombstones included.");
    BUDGET = Metric::gauge("revoked_records_budget", Unit::Count, &[], "Records that may be held.");
    STALENESS = Metric::gauge("revoked_staleness_seconds", Unit::Seconds, &[], "Age of the last moment at which this node was in step with the store; +Inf before the first.");
    STALE_AFTER = Metric::gauge("revoked_stale_after_seconds", Unit::Seconds, &[], "The age from which on this node counts as stale.");
    #[cfg(feature = "sync")]
    READY = Metric::gauge("revoked_ready", Unit::Count, &[], "1 where this node is loaded, in step and can record, else 0.");
    #[cfg(feature = "sync")]
    APPLIED = Metric::gauge("revoked_applied_position", Unit::Count, &[], "Place in the store's feed that this node has applied; 0 before the first.");
    #[cfg(feature = "sync")]
    LAG = Metric::gauge("revoked_position_lag", Unit::Count, &[], "How far this node's applied position is behind the furthest one that a live node has announced.");
    #[cfg(feature = "sync")]
    OVER_BUDGET = Metric::gauge("revoked_over_budget", Unit::Count, &[], "1 where more is held than may be, so that new revocations are refused, else 0.");
    #[cfg(feature = "sync")]
    UNREADABLE = Metric::gauge("revoked_unreadable_records", Unit::Count, &[], "Records in the store that this node cannot read; while there are any it is not in step.");
    #[cfg(feature = "sync")]
    NODES = Metric::gauge("revoked_nodes", Unit::Count, &["state"], "Nodes of the fleet: live, going on while stale, silent for longer than their lease.");
    #[cfg(feature = "sync")]
    COMPARED = Metric::counter("revoked_compared_total", &[], "Comparisons of this node with the store.");
    #[cfg(feature = "sync")]
    REPAIRED = Metric::counter("revoked_repaired_total", &[], "Revocations that this node had missed and a comparison found.");
    #[cfg(feature = "sync")]
    WRITTEN_BACK = Metric::counter("revoked_written_back_total", &[], "Revocations that the store had lost and got back.");
    #[cfg(feature = "sync")]
    BACKEND_ERRORS = Metric::counter("revoked_backend_errors_total", &["operation", "kind"], "What the store failed at; unanswered: whoever asked stopped waiting.");
    #[cfg(feature = "sync")]
    REVOKE_DURABLE = Metric::histogram("revoked_revoke_durable_seconds", "From the call that revokes or lifts until the store has acknowledged it.");
    #[cfg(feature = "sync")]
    REVOKE_APPLIED = Metric::histogram("revoked_revoke_applied_seconds", "From the call that revokes or lifts until this node goes by it.");
    #[cfg(feature = "sync")]
    REVOKE_EVERYWHERE = Metric::histogram("revoked_revoke_everywhere_seconds", "From when what was recorded is to hold everywhere until every node that enforces goes by it.");
    #[cfg(feature = "sync")]
    EVERYWHERE = Metric::counter("revoked_everywhere_total", &["outcome"], "Waits until every node goes by what was recorded: complete, incomplete after the time limit, or failed.");
    #[cfg(feature = "endpoint")]
    ENDPOINT_ANSWERS = Metric::counter("revoked_endpoint_answers_total", &["endpoint", "status"], "Decisions of the revocation routes, by the status of their answer.");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            let Metric { name, kind, unit, help, labels } = metric;
            assert!(names.insert(*name), "{name} is there twice");
            assert!(name.starts_with("revoked_"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(*unit == Unit::Seconds, name.ends_with("_seconds"), "{name}");
            assert_eq!(*unit == Unit::Bytes, name.ends_with("_bytes"), "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
            assert!(labels.len() <= 2, "{name}");
        }
    }
}
