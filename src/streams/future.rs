use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{Open, Opening, StreamBody, body::Ends};

pin_project! {
    /// The answer of an [`EndStreamsService`](super::EndStreamsService).
    #[must_use = "futures do nothing unless polled"]
    pub struct EndStreamsFuture<F> {
        #[pin]
        answering: Option<F>,
        opening: Option<Opening>,
        // Of a request whose body may take long: its content type.
        sends: Option<Option<HeaderValue>>,
        open: Option<Open>,
    }
}

impl<F> EndStreamsFuture<F> {
    pub(super) const fn new(answering: F, opening: Option<Opening>, sends: Option<Option<HeaderValue>>) -> Self {
        Self { answering: Some(answering), opening, sends, open: None }
    }
}

impl<F, B, E> Future for EndStreamsFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<StreamBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let (Some(open), Some(opening)) = (this.open.as_mut(), this.opening.as_ref())
                && let Poll::Ready(rejection) = open.poll_ended(cx)
            {
                // Whoever was answering stops, and reads no more of the request.
                this.answering.set(None);
                *this.open = None;
                let content_type = this.sends.take().flatten().map(|kind| (header::CONTENT_TYPE, kind));
                let denial = opening.shared().denial(rejection, &HeaderMap::from_iter(content_type));
                let mut response = denial.into_response(StreamBody::empty());
                response.extensions_mut().insert(rejection);
                return Poll::Ready(Ok(response));
            }
            // Polled again after it was ready, it never will be: no panic of ours.
            let Some(answering) = this.answering.as_mut().as_pin_mut() else { return Poll::Pending };
            let answer = answering.poll(cx);
            if let (Poll::Pending, Some(opening), true, None) =
                (&answer, this.opening.as_ref(), this.sends.is_some(), this.open.as_ref())
            {
                *this.open = Some(opening.open());
                continue;
            }
            let answer = ready!(answer);
            this.answering.set(None);
            let (opening, open) = (this.opening.take(), this.open.take());
            return Poll::Ready(answer.map(|response| watch(response, opening, open)));
        }
    }
}

fn watch<B: Body>(response: Response<B>, opening: Option<Opening>, open: Option<Open>) -> Response<StreamBody<B>> {
    let Some(opening) = opening.filter(|_| response.status() != StatusCode::SWITCHING_PROTOCOLS) else {
        return response.map(StreamBody::new);
    };
    let ends = Ends::of(response.headers());
    response.map(|body| StreamBody::watched(body, opening, open, ends))
}

impl<F> fmt::Debug for EndStreamsFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndStreamsFuture").field("opening", &self.opening).finish_non_exhaustive()
    }
}
