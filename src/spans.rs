//! Spans around what takes part in a revocation, where the feature `tracing` is on; else nothing.
//!
//! Fields are named as OpenTelemetry's semantic conventions have them, as far as those know them.

use std::future::Future;

#[cfg(feature = "tracing")]
use tracing::{Instrument, Span};

/// Who waits for what is to be published.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    #[cfg(feature = "tracing")]
    span: Span,
}

impl Waiting {
    pub(crate) fn here() -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: Span::current(),
        }
    }
}

/// The write of one batch, for all of these.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]
pub(crate) fn publish<'a, F: Future>(
    changes: usize,
    waiting: impl Iterator<Item = &'a Waiting>,
    write: F,
) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    let write = {
        let span = tracing::info_span!("revocation.publish", otel.kind = "client", revocation.changes = changes);
        // A batch belongs to none of the requests that it is for: they are linked.
        waiting.for_each(|waiting| _ = span.follows_from(&waiting.span));
        write.instrument(span)
    };
    write
}

/// Changes become visible to checks.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]
pub(crate) fn apply<T>(changes: usize, apply: impl FnOnce() -> T) -> T {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("revocation.apply", revocation.changes = changes).entered();
    apply()
}

/// The wait for all nodes.
pub(crate) fn everywhere<F: Future>(wait: F) -> impl Future<Output = F::Output> {
    #[cfg(feature = "tracing")]
    let wait = wait.instrument(tracing::info_span!("revocation.everywhere", otel.kind = "client"));
    wait
}

/// A request to an endpoint.
#[cfg(feature = "endpoint")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]
pub(crate) fn endpoint<F: Future>(
    endpoint: crate::endpoint::EndpointName,
    method: &http::Method,
    answer: F,
) -> impl Future<Output = F::Output> + use<F> {
    #[cfg(feature = "tracing")]
    let answer = answer.instrument(tracing::info_span!(
        "revocation.endpoint",
        otel.kind = "server",
        revocation.endpoint = endpoint.as_str(),
        http.request.method = method.as_str(),
        http.response.status_code = tracing::field::Empty,
    ));
    answer
}

/// The endpoint's answer has this status.
#[cfg(feature = "endpoint")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]
pub(crate) fn answered(status: u16) {
    #[cfg(feature = "tracing")]
    Span::current().record("http.response.status_code", status);
}

/// What goes on in a task of its own, in the span of who began it.
#[cfg(feature = "endpoint")]
pub(crate) fn same<F: Future>(task: F) -> impl Future<Output = F::Output> + use<F> {
    #[cfg(feature = "tracing")]
    let task = task.in_current_span();
    task
}
