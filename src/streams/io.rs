use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Ended, Open};

/// A connection that is closed when the token is revoked that opened it: made by [`Open::guard_io`].
///
/// For hyper's `Upgraded`, wrap it into `TokioIo` first. Whoever reads or writes then gets an [`io::Error`] around
/// [`Ended`]; both may be tasks of their own.
pub struct GuardedIo<T> {
    /// `None` once it is closed.
    io: Option<T>,
    open: Open,
    /// Who else waits: the registration tells the last one only.
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy)]
enum Side {
    Read,
    Write,
}

impl<T> GuardedIo<T> {
    pub(super) const fn new(open: Open, io: T) -> Self {
        Self { io: Some(io), open, reader: None, writer: None }
    }

    /// The registration, to renew it.
    pub const fn open_mut(&mut self) -> &mut Open {
        &mut self.open
    }

    /// The connection while it is good.
    fn good(&mut self, side: Side, context: &mut Context<'_>) -> io::Result<&mut T> {
        if let Poll::Ready(rejection) = self.open.poll_ended(context) {
            self.io = None;
            self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
            return Err(io::Error::other(Ended(rejection)));
        }
        let waits = match side {
            Side::Read => &mut self.reader,
            Side::Write => &mut self.writer,
        };
        match waits {
            Some(waker) => waker.clone_from(context.waker()),
            None => *waits = Some(context.waker().clone()),
        }
        self.io.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for GuardedIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.good(Side::Read, context)?).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for GuardedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.good(Side::Write, context)?).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.good(Side::Write, context)?).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.good(Side::Write, context)?).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.good(Side::Write, context)?).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

impl<T> fmt::Debug for GuardedIo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedIo").field("open", &self.open).finish_non_exhaustive()
    }
}
