//! HTTP/1.1 by hand, so that a request is exactly what the test says.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::soon;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).into_iter().next()
    }

    pub fn headers(&self, name: &str) -> Vec<&str> {
        let line = |line| {
            let (header, value): (&str, &str) = str::split_once(line, ':')?;
            header.eq_ignore_ascii_case(name).then(|| value.trim())
        };
        self.head.lines().skip(1).filter_map(line).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection, and what came in over it and was not taken yet.
pub struct Wire<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

impl Wire {
    pub async fn to(address: SocketAddr) -> Self {
        Self::over(soon("connecting", TcpStream::connect(address)).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub const fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon("sending", self.stream.write_all(bytes.as_ref())).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Says that nothing more is coming.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// More bytes; whether there were any.
    async fn more(&mut self) -> bool {
        // A server that refuses may reset the connection: its end either way.
        soon("reading", self.stream.read_buf(&mut self.buffer)).await.is_ok_and(|read| read > 0)
    }

    /// The head of the next answer; status 0 where the connection ended first.
    pub async fn head(&mut self) -> Answer {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.take(end + 4)[..end]).into_owned();
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
                // Interim answers announce the real one.
                if (100..200).contains(&status) && status != 101 {
                    continue;
                }
                return Answer { status, head, body: Vec::new() };
            }
            if !self.more().await {
                let head = String::from_utf8_lossy(&self.buffer).into_owned();
                return Answer { status: 0, head, body: Vec::new() };
            }
        }
    }

    /// The next answer with its whole body.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            while let Some(chunk) = self.chunk().await {
                answer.body.extend(chunk);
            }
        } else if let Some(length) = answer.header("content-length").and_then(|length| length.parse().ok()) {
            answer.body = self.exactly(length).await;
        } else if ![0, 101, 204, 304].contains(&answer.status) {
            answer.body = self.rest().await;
        }
        answer
    }

    /// The next chunk of a chunked body; `None` at its end.
    pub async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line().await;
        let length = usize::from_str_radix(line.split(';').next().unwrap().trim(), 16).expect("a chunk's length");
        if length == 0 {
            while !self.line().await.is_empty() {}
            return None;
        }
        let mut chunk = self.exactly(length + 2).await;
        chunk.truncate(length);
        Some(chunk)
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                return String::from_utf8_lossy(&self.take(end + 2)[..end]).into_owned();
            }
            assert!(self.more().await, "the connection ended within a line");
        }
    }

    pub async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.more().await, "the connection ended {} bytes early", length - self.buffer.len());
        }
        self.take(length)
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }
}

/// The answer to these bytes, over a connection of its own.
pub async fn send(address: SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::to(address).await;
    wire.write(request).await;
    wire.answer().await
}

/// The answer to a GET with these header lines.
pub async fn get(address: SocketAddr, target: &str, headers: &[&str]) -> Answer {
    send(address, head("GET", target, headers)).await
}

/// The answer to a POST of a form.
pub async fn post_form(address: SocketAddr, target: &str, headers: &[&str], form: &str) -> Answer {
    let length = format!("content-length: {}", form.len());
    let all = [headers, &["content-type: application/x-www-form-urlencoded", &length]].concat();
    send(address, head("POST", target, &all) + form).await
}

/// The head of a request after which the connection ends.
pub fn head(method: &str, target: &str, headers: &[&str]) -> String {
    let lines: String = headers.iter().flat_map(|line| [line, "\r\n"]).collect();
    format!("{method} {target} HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n{lines}\r\n")
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
