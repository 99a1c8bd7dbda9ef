//! A request's body, as the endpoints read it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::header;
use http_body::{Body, Frame, SizeHint};
use pingora::{BError, Result, proxy::Session};

use crate::answer::content_length;

/// The body of the session's request, read when it is asked for.
pub(crate) struct SessionBody<'a> {
    next: Option<Next<'a>>,
    length: u64,
}

/// The next chunk, and the session back.
type Next<'a> = Pin<Box<dyn Future<Output = (&'a mut Session, Result<Option<Bytes>>)> + Send + 'a>>;

impl<'a> SessionBody<'a> {
    pub(crate) fn new(session: &'a mut Session) -> Self {
        let length = content_length(session.req_header()).unwrap_or(0);
        Self { next: Some(Box::pin(first(session))), length }
    }
}

async fn first(session: &mut Session) -> (&mut Session, Result<Option<Bytes>>) {
    if session.req_header().headers.contains_key(header::EXPECT) {
        // Else Pingora takes this for an answer before the body, and closes.
        session.set_close_on_response_before_downstream_finish(false);
        if let Err(error) = session.write_continue_response().await {
            return (session, Err(error));
        }
    }
    further(session).await
}

async fn further(session: &mut Session) -> (&mut Session, Result<Option<Bytes>>) {
    let chunk = session.read_request_body().await;
    if chunk.is_err() {
        // Nobody knows where the next request would begin.
        session.set_keepalive(None);
    }
    (session, chunk)
}

impl Body for SessionBody<'_> {
    type Data = Bytes;
    type Error = BError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let (session, chunk) = ready!(next.as_mut().poll(cx));
        self.next = match chunk {
            Ok(Some(_)) => Some(Box::pin(further(session))),
            _ => None,
        };
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)).transpose())
    }

    fn size_hint(&self) -> SizeHint {
        // Once reading has begun nobody asks.
        let mut hint = SizeHint::new();
        hint.set_lower(self.length);
        hint
    }
}

impl fmt::Debug for SessionBody<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionBody").field("length", &self.length).finish_non_exhaustive()
    }
}
