use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

pin_project! {
    /// The answer of a [`RevocationService`](crate::RevocationService): the inner service's, or a refusal.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F: Future> {
        #[pin]
        kind: Kind<F>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F: Future> {
        Passed { #[pin] future: F },
        Refused { answer: Option<F::Output> },
    }
}

impl<F: Future> ResponseFuture<F> {
    pub(crate) const fn passed(future: F) -> Self {
        Self { kind: Kind::Passed { future } }
    }

    pub(crate) const fn refused(answer: F::Output) -> Self {
        Self { kind: Kind::Refused { answer: Some(answer) } }
    }
}

impl<F: Future> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Passed { .. } => "ResponseFuture(passed)",
            Kind::Refused { .. } => "ResponseFuture(refused)",
        })
    }
}

impl<F: Future> Future for ResponseFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            KindProj::Passed { future } => Poll::Ready(ready!(future.poll(cx))),
            // Polled again after it was ready, it never will be: no panic of ours.
            KindProj::Refused { answer } => answer.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}
