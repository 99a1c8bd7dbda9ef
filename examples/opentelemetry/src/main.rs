//! Spans of a revocation, exported with OpenTelemetry; here to standard output. Use the OTLP exporter in its place.
//!
//! `cargo run --manifest-path examples/opentelemetry/Cargo.toml`

use std::{error::Error, time::Duration};

use http::Request;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter};
use tower_revocation::{
    Guard, Revocations,
    backend::Memory,
    denylist::Staleness,
    policy::Policy,
    sync::SyncConfig,
    token::{Claims, FromExtension, Identity},
};
use tracing::Instrument as _;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt as _};

/// Traces go to this exporter, one at a time, in the order in which they end.
fn tracing_to(exporter: impl SpanExporter + 'static) -> (SdkTracerProvider, impl tracing::Subscriber + Send + Sync) {
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).build();
    let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("opentelemetry-example"));
    // A line for each refused request, and the moment at which a change is visible, are of the level debug.
    (provider, tracing_subscriber::registry().with(LevelFilter::DEBUG).with(traces))
}

/// Revokes, and sends a request with the revoked token.
async fn log_alice_out() -> Result<(), Box<dyn Error>> {
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await?;
    let now = revocations.denylist().now().unix();
    let claims = Claims::new("https://issuer.example/").jti("7f2c").sid("s1").sub("alice").iat(now).exp(now + 600);
    let identity = Identity::from_verified(&claims);

    // As a layer of tower-http, or the server, would have it.
    let logout = tracing::info_span!("POST /logout", otel.kind = "server", http.request.method = "POST");
    let outcome = async {
        let _ = revocations.log_out(&identity).await?;
        revocations.everywhere(Duration::from_secs(2)).await
    };
    let everywhere = outcome.instrument(logout).await?;
    println!("every node refuses it: {}", everywhere.is_complete());

    let guard = Guard::new(revocations.denylist().clone(), FromExtension::<Identity>::new(), Policy::default());
    let request = tracing::info_span!("GET /orders", otel.kind = "server", http.request.method = "GET");
    request.in_scope(|| {
        let (mut request, ()) = Request::get("/orders").body(())?.into_parts();
        request.extensions.insert(identity);
        // The reason is an event of the span.
        println!("the next request: {:?}", guard.check_parts(&request).map(drop));
        Ok::<_, http::Error>(())
    })?;
    revocations.shutdown().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (provider, subscriber) = tracing_to(opentelemetry_stdout::SpanExporter::default());
    tracing::subscriber::set_global_default(subscriber)?;
    log_alice_out().await?;
    provider.shutdown()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::InMemorySpanExporter;

    use super::*;

    #[tokio::test]
    async fn a_revocation_is_traced_from_the_call_to_the_check() -> Result<(), Box<dyn Error>> {
        let spans = InMemorySpanExporter::default();
        let (provider, subscriber) = tracing_to(spans.clone());
        tracing::subscriber::set_global_default(subscriber)?;
        log_alice_out().await?;
        provider.force_flush()?;

        let spans = spans.get_finished_spans()?;
        let span = |name: &str| spans.iter().find(|span| span.name == name).expect(name);
        let (logout, publish) = (span("POST /logout"), span("revocation.publish"));
        // One batch may be for many: it is linked to each.
        assert!(publish.links.iter().any(|link| link.span_context.span_id() == logout.span_context.span_id()));
        assert_eq!(span("revocation.everywhere").parent_span_id, logout.span_context.span_id());
        let _ = span("revocation.apply");

        let request = span("GET /orders");
        let refused = request.events.iter().find(|event| event.name == "request refused").expect("an event");
        let said = |name: &str| {
            refused.attributes.iter().find(|said| said.key.as_str() == name).map(|said| said.value.to_string())
        };
        assert_eq!(said("error.type").as_deref(), Some("revoked"));
        assert_eq!(said("http.request.method").as_deref(), Some("GET"));
        assert_eq!(said("url.path").as_deref(), Some("/orders"));
        assert_eq!(said("http.response.status_code").as_deref(), Some("401"));
        assert_eq!(said("revocation.scope").as_deref(), Some("session"));
        Ok(())
    }
}
