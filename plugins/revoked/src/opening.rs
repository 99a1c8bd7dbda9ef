//! A limit on how long a connection may take until it is clear which version of HTTP it speaks.
//!
//! hyper's own limit, for heads, counts only from then on: a client that says nothing, or only the start of HTTP/2's
//! preface, would hold its connection for good.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// What a connection of HTTP/2 starts with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pin_project! {
    /// A stream whose start is waited for within a limit.
    pub(crate) struct Opening<T> {
        #[pin]
        stream: T,
        limit: Option<Pin<Box<Sleep>>>,
        // As many bytes of the preface have come.
        matched: usize,
    }
}

impl<T> Opening<T> {
    pub(crate) fn new(stream: T, limit: Duration) -> Self {
        Self { stream, limit: Some(Box::pin(sleep(limit))), matched: 0 }
    }
}

impl<T: AsyncRead> AsyncRead for Opening<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let polled = this.stream.poll_read(cx, buffer);
        let Some(limit) = this.limit else { return polled };
        let come = &buffer.filled()[before..];
        let rest = &PREFACE[*this.matched..];
        let same = come.iter().zip(rest).take_while(|(byte, wanted)| byte == wanted).count();
        *this.matched += same;
        if same < come.len() || *this.matched == PREFACE.len() {
            *this.limit = None;
        } else if polled.is_pending() && limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<T: AsyncWrite> AsyncWrite for Opening<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// What reading says about a connection that has said this, and then nothing for longer than the limit.
    async fn after(said: &[&[u8]]) -> Option<io::ErrorKind> {
        let (mut client, server) = duplex(1024);
        let mut server = Opening::new(server, LIMIT);
        let mut buffer = [0; 64];
        for part in said {
            client.write_all(part).await.unwrap_or_default();
            assert_eq!(server.read(&mut buffer).await.ok(), Some(part.len()));
        }
        let waited = tokio::time::timeout(LIMIT * 2, server.read(&mut buffer)).await;
        waited.ok().and_then(Result::err).map(|error| error.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_half_a_preface_end_at_the_limit() {
        assert_eq!(after(&[]).await, Some(io::ErrorKind::TimedOut));
        assert_eq!(after(&[b"PRI"]).await, Some(io::ErrorKind::TimedOut));
        assert_eq!(after(&[b"P", b"RI * HTTP/2.0\r\n"]).await, Some(io::ErrorKind::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_said_its_version_is_left_to_hyper() {
        assert_eq!(after(&[b"G"]).await, None);
        assert_eq!(after(&[b"PRO"]).await, None);
        assert_eq!(after(&[PREFACE]).await, None);
        assert_eq!(after(&[b"PRI", &PREFACE[3..]]).await, None);
    }
}
