use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Sink, Stream};
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep},
};

use super::{Ended, Open, Opening};
use crate::reject::Rejection;

/// A WebSocket that is closed, with a close frame, when the token is revoked that opened it.
///
/// It takes any socket that is a stream and a sink of messages, as axum's `WebSocket` and tungstenite's are, and the close
/// frame to send: code 1008 (RFC 6455 §7.4.1, "policy violation"). It notices while somebody reads or writes; a handler
/// that does neither for long asks [`Open::ended`] instead, or reads beside what it waits for.
///
/// ```ignore
/// let close = || Message::Close(Some(CloseFrame { code: 1008, reason: "revoked".into() }));
/// upgrade.on_upgrade(move |socket| serve(opening.guard_socket(socket, close)))
/// ```
pub struct GuardedSocket<S, M> {
    /// `None` once it is closed.
    socket: Option<S>,
    open: Open,
    close: Option<M>,
    ended: Option<Rejection>,
    /// How long the close frame may still take.
    limit: Option<Pin<Box<Sleep>>>,
}

/// A client that does not read is not waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

impl Opening {
    /// Guards a WebSocket: once it is to end, the message `close` is sent, and the socket is dropped.
    pub fn guard_socket<S, M>(&self, socket: S, close: impl FnOnce() -> M) -> GuardedSocket<S, M> {
        GuardedSocket { socket: Some(socket), open: self.open(), close: Some(close()), ended: None, limit: None }
    }
}

impl<S: Sink<M> + Unpin, M: Unpin> GuardedSocket<S, M> {
    /// The registration, to renew it.
    pub const fn open_mut(&mut self) -> &mut Open {
        &mut self.open
    }

    /// The socket while it is good; else the reason, once it is closed.
    fn poll_good(&mut self, context: &mut Context<'_>) -> Poll<Result<&mut S, Rejection>> {
        if self.ended.is_none()
            && let Poll::Ready(rejection) = self.open.poll_ended(context)
        {
            self.ended = Some(rejection);
            self.limit = Handle::try_current().is_ok().then(|| Box::pin(sleep(CLOSE_LIMIT)));
        }
        let Some(rejection) = self.ended else {
            return match &mut self.socket {
                Some(socket) => Poll::Ready(Ok(socket)),
                None => Poll::Pending,
            };
        };
        if self.poll_close(context).is_pending()
            && self.limit.as_mut().is_some_and(|limit| limit.as_mut().poll(context).is_pending())
        {
            return Poll::Pending;
        }
        self.socket = None;
        Poll::Ready(Err(rejection))
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Option<()>> {
        let Some(socket) = &mut self.socket else { return Poll::Ready(None) };
        let mut socket = Pin::new(socket);
        if self.close.is_some() {
            let ready = ready!(socket.as_mut().poll_ready(context));
            let sent = ready.and_then(|()| self.close.take().map_or(Ok(()), |close| socket.as_mut().start_send(close)));
            if sent.is_err() {
                return Poll::Ready(None);
            }
        }
        socket.poll_flush(context).map(Result::ok)
    }

    fn poll_with<R>(
        &mut self,
        context: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<Result<R, S::Error>>,
    ) -> Poll<Result<R, SocketError<S::Error>>> {
        match ready!(self.poll_good(context)) {
            Ok(socket) => act(Pin::new(socket), context).map_err(SocketError::Socket),
            Err(rejection) => Poll::Ready(Err(SocketError::Ended(Ended(rejection)))),
        }
    }
}

impl<S, M> Stream for GuardedSocket<S, M>
where
    S: Stream + Sink<M> + Unpin,
    M: Unpin,
{
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        match ready!(self.poll_good(context)) {
            Ok(socket) => Pin::new(socket).poll_next(context),
            Err(_) => Poll::Ready(None),
        }
    }
}

impl<S: Sink<M> + Unpin, M: Unpin> Sink<M> for GuardedSocket<S, M> {
    type Error = SocketError<S::Error>;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_with(context, Sink::poll_ready)
    }

    fn start_send(mut self: Pin<&mut Self>, message: M) -> Result<(), Self::Error> {
        match (self.ended, &mut self.socket) {
            (Some(rejection), _) => Err(SocketError::Ended(Ended(rejection))),
            (None, Some(socket)) => Pin::new(socket).start_send(message).map_err(SocketError::Socket),
            (None, None) => Ok(()),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_with(context, Sink::poll_flush)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_with(context, Sink::poll_close)
    }
}

impl<S, M> fmt::Debug for GuardedSocket<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedSocket").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Why a [`GuardedSocket`] takes no message.
#[derive(Debug)]
#[non_exhaustive]
pub enum SocketError<E> {
    /// Its token is revoked.
    Ended(Ended),
    /// The socket has an error.
    Socket(E),
}

impl<E: fmt::Display> fmt::Display for SocketError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(ended) => ended.fmt(f),
            Self::Socket(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for SocketError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Ended(ended) => Some(ended),
            Self::Socket(error) => Some(error),
        }
    }
}
