//! Spans around what takes part in a revocation, where the feature `tracing` is on; else nothing.
//!
//! Fields are named as OpenTelemetry's semantic conventions have them, as far as those know them.

#[cfg(feature = "tracing")]
use std::fmt::{self, Write as _};
#[cfg(feature = "sync")]
use std::future::Future;

#[cfg(all(feature = "tracing", feature = "sync"))]
use tracing::{Instrument, Span};

/// A path as it may be shown: segments long enough to be a secret are left out.
#[cfg(feature = "tracing")]
pub(crate) struct Path<'a>(pub(crate) &'a str);

/// A UUID is no secret, what is longer may be.
#[cfg(feature = "tracing")]
const LONGEST_SEGMENT: usize = 36;
#[cfg(feature = "tracing")]
const MOST_SEGMENTS: usize = 16;

#[cfg(feature = "tracing")]
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.split('/').enumerate() {
            if place > 0 {
                f.write_char('/')?;
            }
            if place > MOST_SEGMENTS {
                return f.write_char('…');
            }
            f.write_str(if segment.len() > LONGEST_SEGMENT { "…" } else { segment })?;
        }
        Ok(())
    }
}

/// Who waits for what is to be published.
#[cfg(feature = "sync")]
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    #[cfg(feature = "tracing")]
    span: Span,
}

#[cfg(feature = "sync")]
impl Waiting {
    pub(crate) fn here() -> Self {
        Self {
            #[cfg(feature = "tracing")]
            span: Span::current(),
        }
    }
}

/// The write of one batch, for all of these.
#[cfg(feature = "sync")]
#[cfg_attr(
    not(feature = "tracing"),
    expect(unused_variables, clippy::needless_pass_by_value, reason = "nobody listens")
)]
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
#[cfg(feature = "sync")]
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]
pub(crate) fn apply<T>(changes: usize, apply: impl FnOnce() -> T) -> T {
    #[cfg(feature = "tracing")]
    let _span = tracing::debug_span!("revocation.apply", revocation.changes = changes).entered();
    apply()
}

/// The wait for all nodes.
#[cfg(feature = "sync")]
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

#[cfg(all(test, feature = "tracing"))]
mod tests {
    use super::*;

    #[test]
    fn long_segments_are_not_shown() {
        let shown = |path: &str| Path(path).to_string();
        assert_eq!(shown("/"), "/");
        assert_eq!(shown("/orders/4711/"), "/orders/4711/");
        assert_eq!(shown("/users/123e4567-e89b-12d3-a456-426614174000"), "/users/123e4567-e89b-12d3-a456-426614174000");
        assert_eq!(shown(&format!("/reset/{}/now", "x".repeat(37))), "/reset/…/now");
        assert!(shown(&"/a".repeat(10_000)).len() < 100);
    }
}
