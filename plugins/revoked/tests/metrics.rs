//! The metrics: read by Prometheus' own parser, as documented, and all that dashboard and alerts name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod admin_common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use admin_common::{Daemon, eventually, http, jwt, run};
use revoked::admin::OF_DAEMON;
use serde_json::{Value, json};
use tower_revocation::{
    metrics::{Kind, METRICS, Metric},
    revocation::ScopeKind,
};

fn all() -> impl Iterator<Item = Metric> {
    METRICS.iter().copied().chain(OF_DAEMON)
}

fn docs(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

#[test]
fn the_documentation_has_every_metric_as_it_is() {
    let text = docs("metrics.md");
    let documented: BTreeSet<Vec<String>> = text
        .lines()
        .filter(|line| line.starts_with("| `revoked_"))
        .map(|line| line.split('|').map(str::trim).skip(1).take(5).map(str::to_owned).collect())
        .collect();
    let there = all().map(|metric| {
        let Metric { name, kind, unit, labels, help, .. } = metric;
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let row = [format!("`{name}`"), kind.as_str().into(), unit.as_str().into(), labels.join(", "), help.into()];
        row.to_vec()
    });
    assert_eq!(documented, there.collect());
    for kind in ScopeKind::ALL {
        assert!(text.contains(&format!("`{kind}`")), "{kind}");
    }
}

/// What Prometheus' client library for Python makes of it.
struct Parsed {
    families: BTreeMap<String, (String, String)>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

const PARSER: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    print(json.dumps({"family": family.name, "type": family.type, "help": family.documentation}))
    for sample in family.samples:
        print(json.dumps({"sample": sample.name, "labels": sample.labels, "value": str(sample.value)}))
"#;

/// The Python of the tests, if it has this package.
fn python(package: &str) -> Option<PathBuf> {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/gateways/venv/bin/python");
    let has = || Command::new(&python).args(["-c", &format!("import {package}")]).output().unwrap().status.success();
    if python.exists() && has() {
        return Some(python);
    }
    let missing = format!("the Python package {package} is missing in target/gateways/venv");
    assert!(!std::env::var("REVOCATION_TESTS_GATEWAYS").is_ok_and(|value| value == "required"), "{missing}");
    eprintln!("SKIPPED: {missing}");
    None
}

impl Parsed {
    fn from(python: &PathBuf, text: &str) -> Self {
        let mut command = Command::new(python);
        command.args(["-c", PARSER]);
        let lines = run(command, text).succeeded().out;
        let mut parsed = Self { families: BTreeMap::new(), samples: Vec::new() };
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            if line.get("family").is_some() {
                parsed.families.insert(field("family"), (field("type"), field("help")));
            } else {
                let labels = line["labels"].as_object().unwrap().iter();
                let labels = labels.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
                parsed.samples.push((field("sample"), labels, field("value").parse().unwrap()));
            }
        }
        parsed
    }

    /// The sum of the samples with this name and these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |own: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| own.get(*name).is_some_and(|own| own == value))
        };
        let mut values = self.samples.iter().filter(|(own, with, _)| own == name && fits(with)).peekable();
        assert!(values.peek().is_some(), "there is no {name} with {labels:?}");
        values.map(|(.., value)| value).sum()
    }
}

#[test]
fn a_prometheus_parser_finds_every_documented_metric() {
    let Some(python) = python("prometheus_client") else { return };
    let daemon = Daemon::start();
    let (alice, bob) = (jwt(json!({})), jwt(json!({ "sub": "bob", "jti": "t2", "sid": "s2" })));
    let malformed = jwt(json!({ "sub": "carol", "jti": 7, "sid": "s3" }));
    for _ in 0..5 {
        assert_eq!(daemon.through(&alice), 200);
        assert_eq!(daemon.through(&bob), 200);
    }
    assert_eq!(http(daemon.listen, "GET", "/", &["host: app"], b"").status, 200);
    let forged = format!("{}x", jwt(json!({ "sub": "eve" })));
    assert_eq!(daemon.through(&forged), 401);
    // A number is no string: malformed is not missing.
    assert_eq!(daemon.through(&malformed), 401);
    let revoke = json!({ "scope": { "kind": "subject", "iss": admin_common::ISSUER, "sub": "alice" }, "wait": "all" });
    assert_eq!(daemon.call("POST", "/api/v1/revocations", revoke).status, 200);
    for _ in 0..3 {
        assert_eq!(daemon.through(&alice), 401);
    }
    let form = format!("token={bob}");
    let wrong = ["host: app", "authorization: Basic YXBwOnM", "content-type: application/x-www-form-urlencoded"];
    assert_eq!(http(daemon.listen, "POST", "/oauth/revoke", &wrong, form.as_bytes()).status, 401);
    let right = ["host: app", "authorization: Basic YXBwOnMzY3JldA==", wrong[2]];
    assert_eq!(http(daemon.listen, "POST", "/oauth/revoke", &right, form.as_bytes()).status, 200);
    assert_eq!(daemon.through(&bob), 401);
    assert_eq!(daemon.ask("GET", "/api/v1/status", &["authorization: Bearer wrong"], "").status, 401);

    let answer = daemon.get("/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let parsed = Parsed::from(&python, &answer.body);
    for Metric { name, kind, help, labels, .. } in all() {
        let family = name.strip_suffix("_total").unwrap_or(name);
        let expected = (kind.as_str().to_owned(), help.to_owned());
        assert_eq!(parsed.families.get(family), Some(&expected), "{name}\n{}", answer.body);
        let sample = if kind == Kind::Histogram { format!("{name}_count") } else { name.to_owned() };
        let own: Vec<_> = parsed.samples.iter().filter(|(of, ..)| *of == sample).collect();
        assert!(!own.is_empty(), "{name} has no value");
        for (_, with, _) in own {
            let with: BTreeSet<_> = with.keys().map(String::as_str).collect();
            assert_eq!(with, labels.iter().copied().collect(), "{name}");
        }
    }
    let known: BTreeSet<_> = all().map(|metric| metric.name.trim_end_matches("_total").to_owned()).collect();
    assert_eq!(parsed.families.keys().cloned().collect::<BTreeSet<_>>(), known, "nothing else is shown");

    let sum = |name, labels: &[(&str, &str)]| parsed.sum(name, labels);
    assert_eq!(sum("revoked_checks_total", &[("verdict", "allow"), ("reason", "clear")]), 10.0);
    assert_eq!(sum("revoked_checks_total", &[("reason", "no_token")]), 1.0);
    assert_eq!(sum("revoked_checks_total", &[("verdict", "deny"), ("reason", "revoked")]), 4.0);
    assert_eq!(sum("revoked_checks_total", &[("verdict", "unknown")]), 0.0);
    assert_eq!(sum("revoked_denials_total", &[("kind", "subject")]), 3.0);
    assert_eq!(sum("revoked_denials_total", &[]), 4.0);
    assert_eq!(sum("revoked_requests_refused_total", &[]), 6.0);
    assert_eq!(sum("revoked_requests_refused_total", &[("reason", "signature")]), 1.0);
    assert_eq!(sum("revoked_requests_refused_total", &[("reason", "malformed_token")]), 1.0);
    assert_eq!(sum("revoked_requests_would_refuse_total", &[]), 0.0);
    assert_eq!(sum("revoked_token_cache_lookups_total", &[]), 16.0);
    assert_eq!(sum("revoked_token_cache_lookups_total", &[("found", "nowhere")]), 4.0);
    assert_eq!(sum("revoked_scopes", &[("kind", "subject")]), 1.0);
    assert!(sum("revoked_scope_bytes", &[("kind", "subject")]) > 100.0);
    // A client's revocation ends its part of the session, too.
    assert_eq!(sum("revoked_records", &[]), 3.0);
    assert!(sum("revoked_staleness_seconds", &[]) < 3.0);
    assert_eq!(sum("revoked_stale_after_seconds", &[]), 3.0);
    assert_eq!(sum("revoked_nodes", &[("state", "live")]), 1.0);
    assert_eq!(sum("revoked_position_lag", &[]), 0.0);
    assert!(sum("revoked_applied_position", &[]) >= 2.0);
    assert_eq!(sum("revoked_revoke_durable_seconds_count", &[]), 2.0);
    assert_eq!(sum("revoked_revoke_applied_seconds_count", &[]), 2.0);
    assert_eq!(sum("revoked_revoke_everywhere_seconds_count", &[]), 1.0);
    assert_eq!(sum("revoked_revoke_applied_seconds_bucket", &[("le", "+Inf")]), 2.0);
    assert_eq!(sum("revoked_everywhere_total", &[("outcome", "complete")]), 1.0);
    assert_eq!(sum("revoked_endpoint_answers_total", &[("endpoint", "token"), ("status", "200")]), 1.0);
    assert_eq!(sum("revoked_endpoint_answers_total", &[("endpoint", "token"), ("status", "401")]), 1.0);
    assert_eq!(sum("revoked_backend_errors_total", &[]), 0.0);
    assert_eq!(sum("revoked_admin_wrong_tokens_total", &[]), 1.0);
    for secret in ["alice", "bob", "t1", "t2", "app", "s3cret", admin_common::ISSUER, &alice, &bob] {
        assert!(!answer.body.contains(&format!("\"{secret}\"")), "{secret} is a label");
    }
}

#[test]
fn a_store_that_goes_away_is_seen() {
    let redis = admin_common::Redis::start();
    let daemon = Daemon::prepared(&redis.url(), true, "").running();
    drop(redis);
    let errors = |operation: &str| {
        let start = format!("revoked_backend_errors_total{{operation=\"{operation}\"");
        let text = daemon.get("/metrics").body;
        let of = text.lines().filter(|line| line.starts_with(&start));
        of.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum::<f64>()
    };
    eventually("following fails", || errors("follow") > 0.0);
    eventually("announcing fails", || errors("heartbeat") > 0.0);
    let subject = json!({ "scope": { "kind": "subject", "iss": admin_common::ISSUER, "sub": "alice" } });
    assert_eq!(daemon.call("POST", "/api/v1/revocations", subject).status, 503);
    eventually("writing failed", || errors("publish") + errors("lookup") > 0.0);
    eventually("requests are turned away", || daemon.through(&jwt(json!({}))) == 503);
    let text = daemon.get("/metrics").body;
    let unknown = r#"revoked_checks_total{verdict="unknown",reason="stale"} "#;
    let count = text.lines().find_map(|line| line.strip_prefix(unknown)).unwrap();
    assert!(count.parse::<u64>().unwrap() > 0, "{text}");
}

/// Every `revoked_…` in a text.
fn named(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("revoked_") {
        // Not the end of another word.
        let before = text[..at].chars().next_back();
        if before.is_none_or(|before| !before.is_ascii_alphanumeric() && before != '_') {
            let end = |sign: char| !sign.is_ascii_alphanumeric() && sign != '_';
            names.insert(text[at..].split(end).next().unwrap().to_owned());
        }
    }
    names
}

#[test]
fn dashboard_and_alerts_name_only_what_is_there() {
    let mut shown = BTreeSet::new();
    for metric in all() {
        match metric.kind {
            Kind::Histogram => shown.extend(["bucket", "sum", "count"].map(|part| format!("{}_{part}", metric.name))),
            _ => _ = shown.insert(metric.name.to_owned()),
        }
    }
    let dashboard: Value = serde_json::from_str(&docs("grafana/revoked.json")).unwrap();
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    assert!(expressions.len() > 20);
    let in_dashboard = named(&expressions.join("\n"));
    let alerts = docs("prometheus/alerts.yaml");
    let in_alerts = named(&alerts);
    assert!(in_alerts.len() > 10);
    for name in in_dashboard.iter().chain(&in_alerts) {
        assert!(shown.contains(name), "{name} is no metric");
    }
    // What is measured can be seen.
    let unseen = ["revoked_build_info", "revoked_applied_position", "revoked_endpoint_enabled"];
    for metric in all().filter(|metric| !unseen.contains(&metric.name)) {
        let name = if metric.kind == Kind::Histogram { format!("{}_bucket", metric.name) } else { metric.name.into() };
        assert!(in_dashboard.contains(&name), "{name} is not in the dashboard");
    }

    let Some(python) = python("yaml") else { return };
    let mut command = Command::new(python);
    command.args(["-c", "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))"]);
    let rules: Value = serde_json::from_str(&run(command, &alerts).succeeded().out).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() > 10);
    for rule in rules {
        assert!(rule["alert"].is_string() && !named(rule["expr"].as_str().unwrap()).is_empty(), "{rule}");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{rule}");
        assert!(rule["annotations"]["summary"].is_string(), "{rule}");
    }
}
