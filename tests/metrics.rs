//! What the library measures, as an exporter shows it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{sync::Arc, time::Duration};

use http::{Request, request::Parts};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use tower_revocation::{
    Guard, RevocationLayer, Revocations,
    backend::Memory,
    denylist::{Denylist, DenylistConfig, Staleness},
    metrics::Metrics,
    policy::{NoToken, Policy},
    revocation::{Change, Revocation, Scope},
    sync::SyncConfig,
    token::{Claims, Identity, Verifier, Verify, VerifyError},
};

const ISS: &str = "https://issuer.example/";

/// Takes what is between the dots for a user's name.
struct Trusting;

impl Verifier for Trusting {
    fn verify(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        let sub = token.split('.').nth(1).ok_or(VerifyError::Malformed)?;
        if sub.starts_with("forged") {
            return Err(VerifyError::Signature);
        }
        Ok(Identity::from_verified(&Claims::new(ISS).jti(sub).sid(sub).sub(sub).iat(now).exp(now + 600)))
    }

    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.verify(token, now)
    }

    fn epoch(&self) -> u64 {
        1
    }
}

fn token(sub: &str) -> String {
    // A cache goes by the end of a token.
    format!("aaaaaaaaaaaaaaaa.{sub}.bbbbbbbbbbbbbbbb{sub}")
}

fn request(token: Option<&str>) -> Parts {
    let request = Request::get("/");
    let request =
        token.into_iter().fold(request, |request, token| request.header("authorization", format!("Bearer {token}")));
    request.body(()).unwrap().into_parts().0
}

fn denylist() -> Arc<Denylist> {
    let denylist = Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(60))));
    denylist.in_step_at(denylist.now());
    Arc::new(denylist)
}

fn revoke(denylist: &Denylist, sub: &str) {
    let record = Revocation::new(Scope::subject(ISS, sub));
    let record = record.into_record(denylist.hasher(), denylist.lifetimes(), denylist.now().unix());
    denylist.apply(&[Change::Revoke(record)]);
}

/// What an exporter shows.
struct Shown {
    recorder: PrometheusRecorder,
}

impl Shown {
    fn new() -> Self {
        Self { recorder: PrometheusBuilder::new().build_recorder() }
    }

    fn after(&self, metrics: &Metrics) -> String {
        ::metrics::with_local_recorder(&self.recorder, || {
            metrics.describe();
            metrics.publish();
        });
        self.recorder.handle().render()
    }
}

/// The sum of all samples that begin like this.
fn sum(text: &str, start: &str) -> f64 {
    let values: Vec<f64> = text
        .lines()
        .filter(|line| line.strip_prefix(start).is_some_and(|rest| rest.starts_with(['{', ' ', ','])))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "there is no {start} in\n{text}");
    values.iter().sum()
}

/// Each thread counts for itself, and none of it is lost: also of threads that have ended.
#[test]
fn what_passes_is_counted_whichever_thread_it_passes_on() {
    const THREADS: usize = 100;
    const EACH: usize = 500;
    let (list, shown) = (denylist(), Shown::new());
    let layer = RevocationLayer::new(Arc::clone(&list), Verify::new(Trusting));
    let metrics = Metrics::of_denylist(list).guard(Arc::clone(layer.guard()));
    for round in 1..=2_u16 {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for n in 0..EACH {
                        let token = token(&format!("user-{}", n % 5));
                        assert!(layer.guard().check_parts(&request(Some(&token))).is_ok());
                    }
                    assert!(layer.guard().check_parts(&request(None)).is_ok());
                });
            }
        });
        let text = shown.after(&metrics);
        let (round, each, threads) = (f64::from(round), EACH as f64, THREADS as f64);
        assert_eq!(sum(&text, r#"revoked_checks_total{verdict="allow",reason="clear"}"#), round * threads * each);
        assert_eq!(sum(&text, r#"revoked_checks_total{verdict="allow",reason="no_token"}"#), round * threads);
        let found = |place: &str| sum(&text, &format!("revoked_token_cache_lookups_total{{found=\"{place}\"}}"));
        assert_eq!(found("thread") + found("shared") + found("nowhere"), round * threads * each);
        // Every thread takes each of the five from the others once.
        assert!(found("nowhere") >= 5.0 && found("shared") + found("nowhere") >= round * threads * 5.0);
        assert!(found("thread") > round * threads * each * 0.9);
    }
}

#[test]
fn refusals_are_counted_by_reason_and_in_shadow_mode_apart() {
    let (list, shown) = (denylist(), Shown::new());
    revoke(&list, "alice");
    let guard = |policy| Arc::new(Guard::new(Arc::clone(&list), Verify::new(Trusting), policy));
    let (real, shadow) = (
        guard(Policy::default().no_token(NoToken::Deny)),
        guard(Policy::default().shadow(tower_revocation::rollout::Shadow::ALL)),
    );
    let metrics = Metrics::of_denylist(Arc::clone(&list)).guard(Arc::clone(&real)).guard(Arc::clone(&shadow));
    for _ in 0..3 {
        assert!(real.check_parts(&request(Some(&token("alice")))).is_err());
        assert!(shadow.check_parts(&request(Some(&token("alice")))).is_ok());
    }
    assert!(real.check_parts(&request(Some(&token("forged")))).is_err());
    assert!(real.check_parts(&request(None)).is_err());

    let text = shown.after(&metrics);
    let checks = |labels: &str| sum(&text, &format!("revoked_checks_total{{{labels}}}"));
    assert_eq!(checks(r#"verdict="deny",reason="revoked""#), 6.0);
    assert_eq!(checks(r#"verdict="deny",reason="signature""#), 1.0);
    assert_eq!(checks(r#"verdict="deny",reason="no_token""#), 1.0);
    assert_eq!(checks(r#"verdict="allow",reason="clear""#), 0.0);
    assert_eq!(sum(&text, r#"revoked_requests_refused_total{reason="revoked"}"#), 3.0);
    assert_eq!(sum(&text, "revoked_requests_refused_total"), 5.0);
    assert_eq!(sum(&text, r#"revoked_requests_would_refuse_total{reason="revoked"}"#), 3.0);
    assert_eq!(sum(&text, "revoked_requests_would_refuse_total"), 3.0);
    assert_eq!(sum(&text, r#"revoked_denials_total{kind="subject"}"#), 6.0);
    assert_eq!(sum(&text, "revoked_denials_total"), 6.0);
    assert_eq!((real.refused(), shadow.would_refuse()), (5, 3));
    // Nothing more happens, nothing more is counted.
    assert_eq!(sum(&shown.after(&metrics), "revoked_checks_total"), sum(&text, "revoked_checks_total"));
}

#[test]
fn the_filters_mistakes_are_counted() {
    let (list, shown) = (denylist(), Shown::new());
    for n in 0..50_000 {
        revoke(&list, &format!("revoked-{n}"));
    }
    let guard = Arc::new(Guard::new(Arc::clone(&list), Verify::new(Trusting), Policy::default()));
    for n in 0..20_000 {
        assert!(guard.check_parts(&request(Some(&token(&format!("other-{n}"))))).is_ok());
    }
    let text = shown.after(&Metrics::of_denylist(Arc::clone(&list)).guard(guard));
    let mistakes = sum(&text, "revoked_filter_false_positives_total");
    assert!(mistakes > 0.0 && mistakes < 1000.0, "{mistakes} of 20,000");
    assert_eq!(sum(&text, r#"revoked_scopes{kind="subject"}"#), 50_000.0);
    assert_eq!(sum(&text, r#"revoked_scope_bytes{kind="subject"}"#), 50_000.0 * 401.0);
}

#[tokio::test]
async fn a_nodes_standing_is_published_again_and_again() {
    let recorder = PrometheusBuilder::new().install_recorder().unwrap();
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(60)));
    let revocations = Revocations::start(Memory::new(), config).await.unwrap();
    let metrics = Metrics::of(&revocations);
    let publishing = tokio::spawn(async move { metrics.publish_every(Duration::from_millis(10)).await });
    for n in 0..3 {
        let _ = revocations.revoke(Revocation::new(Scope::subject(ISS, format!("user-{n}")))).await.unwrap();
    }
    assert!(revocations.everywhere(Duration::from_secs(10)).await.unwrap().is_complete());
    let limit = tokio::time::Instant::now() + Duration::from_secs(20);
    let text = loop {
        let text = recorder.render();
        let lines =
            ["revoked_records 3", "revoked_ready 1", "revoked_nodes{state=\"live\"} 1", "revoked_position_lag 0"];
        if lines.iter().all(|line| text.contains(&format!("{line}\n"))) {
            break text;
        }
        assert!(tokio::time::Instant::now() < limit, "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(sum(&text, "revoked_revoke_durable_seconds_count"), 3.0);
    assert_eq!(sum(&text, "revoked_revoke_applied_seconds_count"), 3.0);
    assert_eq!(sum(&text, "revoked_revoke_everywhere_seconds_count"), 1.0);
    assert!(sum(&text, "revoked_revoke_applied_seconds_sum") >= sum(&text, "revoked_revoke_durable_seconds_sum"));
    assert_eq!(sum(&text, "revoked_everywhere_total{outcome=\"complete\"}"), 1.0);
    publishing.abort();
}
