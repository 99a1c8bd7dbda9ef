//! Metrics, in the text format of Prometheus: those of the library, and the few that only a daemon has. `docs/metrics.md`
//! lists them all.

use std::{sync::OnceLock, time::Duration};

use http::{Response, StatusCode};
use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tower_revocation::metrics::{METRICS as OF_LIBRARY, Metric, Metrics};

use super::{
    Inner,
    answer::{self, AdminBody},
    route::METRICS,
};
use crate::engine::Engine;

const BUILD_INFO: Metric =
    Metric::gauge("revoked_build_info", Unit::Count, &["version"], "Always 1; the version is in the label.");
const WRONG_TOKENS: Metric =
    Metric::counter("revoked_admin_wrong_tokens_total", &[], "Wrong tokens shown to the admin listener.");
const ENDPOINT_ENABLED: Metric =
    Metric::gauge("revoked_endpoint_enabled", Unit::Count, &["endpoint"], "1 where the endpoint is on, else 0.");

/// The metrics that only a daemon has.
pub const OF_DAEMON: [Metric; 3] = [BUILD_INFO, WRONG_TOKENS, ENDPOINT_ENABLED];

/// Upper bounds of the buckets of what is timed, in seconds.
const BUCKETS: [f64; 14] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// How often what was timed is moved to its buckets, where nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder of this process. There can be one only, so that it is installed where it is first asked for.
fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS);
        let installed = builder.and_then(PrometheusBuilder::install_recorder);
        let installed = installed
            .inspect_err(|error| tracing::error!(%error, "nothing is measured: another recorder is installed"))
            .ok()?;
        OF_LIBRARY.iter().chain(&OF_DAEMON).for_each(Metric::describe);
        Some(installed)
    };
    RECORDER.get_or_init(install).as_ref()
}

/// What a daemon shows.
#[derive(Debug)]
pub(super) struct Exposition {
    metrics: Metrics,
}

impl Exposition {
    pub(super) fn of(engine: &Engine) -> Self {
        // From the start on, so that nothing goes unmeasured before the first scrape.
        if let Some(recorder) = recorder() {
            BUILD_INFO.set(&[env!("CARGO_PKG_VERSION")], 1.0);
            tokio::spawn(async {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    recorder.run_upkeep();
                }
            });
        }
        Self { metrics: engine.metrics() }
    }
}

pub(super) fn answer(inner: &Inner) -> Response<AdminBody> {
    let Some(recorder) = recorder() else {
        return answer::whole(StatusCode::SERVICE_UNAVAILABLE, METRICS, String::new());
    };
    inner.exposition.metrics.publish();
    WRONG_TOKENS.total(&[], inner.access.failed());
    for switch in inner.engine.switches() {
        ENDPOINT_ENABLED.set(&[switch.name.as_str()], if switch.enabled { 1.0 } else { 0.0 });
    }
    answer::whole(StatusCode::OK, METRICS, recorder.render())
}
