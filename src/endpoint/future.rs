use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Response;
use pin_project_lite::pin_project;

use super::Answer;
use crate::{ResponseFuture, asking::Later};

pin_project! {
    /// The answer of an [`EndpointService`](super::EndpointService): the checked service's, or an endpoint's.
    #[must_use = "futures do nothing unless polled"]
    pub struct EndpointFuture<F: Future> {
        #[pin]
        kind: Kind<F>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<F: Future> {
        Checked { #[pin] future: ResponseFuture<F> },
        // Boxed, so that the requests that pass do not carry its size.
        Answered { future: BoxFuture<'static, Answer> },
        Asking { later: Later<F> },
    }
}

impl<F: Future> EndpointFuture<F> {
    pub(super) const fn checked(future: ResponseFuture<F>) -> Self {
        Self { kind: Kind::Checked { future } }
    }

    pub(super) const fn asking(later: Later<F>) -> Self {
        Self { kind: Kind::Asking { later } }
    }

    pub(super) const fn answered(future: BoxFuture<'static, Answer>) -> Self {
        Self { kind: Kind::Answered { future } }
    }
}

impl<F, B, E> Future for EndpointFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<Bytes>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut kind = self.project().kind;
        loop {
            match kind.as_mut().project() {
                KindProj::Checked { future } => return future.poll(cx),
                KindProj::Answered { future } => {
                    return Poll::Ready(Ok(ready!(future.as_mut().poll(cx)).into_response()));
                }
                KindProj::Asking { later } => {
                    let future = ready!(later.as_mut().poll(cx));
                    kind.set(Kind::Checked { future });
                }
            }
        }
    }
}

impl<F: Future> fmt::Debug for EndpointFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Checked { .. } => "EndpointFuture(checked)",
            Kind::Answered { .. } => "EndpointFuture(answered)",
            Kind::Asking { .. } => "EndpointFuture(asking)",
        })
    }
}

pin_project! {
    /// The answer of a [`FrontService`](super::FrontService): the checked service's, or one that took a detour.
    #[must_use = "futures do nothing unless polled"]
    pub struct FrontFuture<F: Future> {
        #[pin]
        kind: FrontKind<F>,
    }
}

pin_project! {
    #[project = FrontKindProj]
    enum FrontKind<F: Future> {
        Checked { #[pin] future: ResponseFuture<F> },
        Boxed { future: BoxFuture<'static, F::Output> },
    }
}

impl<F: Future> FrontFuture<F> {
    pub(super) const fn checked(future: ResponseFuture<F>) -> Self {
        Self { kind: FrontKind::Checked { future } }
    }

    pub(super) const fn boxed(future: BoxFuture<'static, F::Output>) -> Self {
        Self { kind: FrontKind::Boxed { future } }
    }
}

impl<F: Future> Future for FrontFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().kind.project() {
            FrontKindProj::Checked { future } => future.poll(cx),
            FrontKindProj::Boxed { future } => future.as_mut().poll(cx),
        }
    }
}

impl<F: Future> fmt::Debug for FrontFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            FrontKind::Checked { .. } => "FrontFuture(checked)",
            FrontKind::Boxed { .. } => "FrontFuture(boxed)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes pays a word at most.
    #[test]
    fn stays_small() {
        type Inner = std::future::Ready<Result<Response<Bytes>, std::convert::Infallible>>;
        let word = size_of::<usize>();
        assert!(size_of::<EndpointFuture<Inner>>() <= size_of::<ResponseFuture<Inner>>() + word);
        assert!(size_of::<FrontFuture<Inner>>() <= size_of::<ResponseFuture<Inner>>() + word);
    }
}
