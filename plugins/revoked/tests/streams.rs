//! What is open through the reverse proxy ends when its token is revoked, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod site;

use std::{
    net::{SocketAddr, TcpListener},
    ops::Deref,
};

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use site::{Site, bearer, eventually, get, send, soon, token::token};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

/// A site whose metrics can be read.
struct Watched {
    site: Site,
    admin: SocketAddr,
}

impl Watched {
    async fn new(settings: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { site: Site::new(&format!("{settings}[admin]\nlisten = \"{free}\"\n")).await, admin: free }
    }

    async fn metric(&self, name: &str) -> u64 {
        let ask = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin);
        let metrics = send(self.admin, ask).await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("revoked_{name} ")));
        line.unwrap_or_else(|| panic!("no {name}: {metrics}")).parse().unwrap()
    }

    async fn eventually_open(&self, count: u64) {
        let open = async || self.metric("open_streams").await == count;
        eventually(&format!("{count} streams are open"), open).await;
    }
}

impl Deref for Watched {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// Sends a request, and reads until `until` has come.
async fn begin(site: &Site, path: &str, token: &str, more: &str, until: &str) -> TcpStream {
    let mut stream = TcpStream::connect(site.daemon.main).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: api.example\r\n{}\r\n{more}\r\n", bearer(token));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(until) {
        let byte = soon("more of the answer", stream.read_u8()).await;
        read.push(byte.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&read))));
    }
    stream
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = soon("the connection is closed", stream.read_to_end(&mut rest)).await;
    rest
}

#[tokio::test]
async fn server_sent_events_are_aborted() {
    let site = Watched::new("").await;
    let events = site.upstream.events();
    events.send(Bytes::from_static(b"data: hello\n\n")).unwrap();
    let mut stream = begin(&site, "/sse", &token("1"), "", "hello").await;
    site.eventually_open(1).await;
    site.daemon.revoke(&token("1")).await;
    assert_eq!(get(site.daemon.main, "/", &[&bearer(&token("1"))]).await.status, 401);
    let rest = rest(&mut stream).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "no last chunk: {}", rest.escape_ascii());
    site.eventually_open(0).await;
    eventually("the service behind is told", async || events.is_closed()).await;
    assert_eq!(site.metric("streams_ended_total").await, 1);
}

#[tokio::test]
async fn a_websocket_tunnel_is_closed_on_both_sides() {
    let site = Watched::new("").await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut stream = begin(&site, "/ws", &token("1"), upgrade, "\r\n\r\n").await;
    let mut other = begin(&site, "/ws", &token("2"), upgrade, "\r\n\r\n").await;
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    soon("the echo", stream.read_exact(&mut echo)).await.unwrap();
    site.eventually_open(2).await;
    site.daemon.revoke(&token("1")).await;
    assert_eq!(rest(&mut stream).await, b"");
    site.eventually_open(1).await;
    other.write_all(b"pong").await.unwrap();
    soon("the other echo", other.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"pong");
}

#[tokio::test]
async fn a_grpc_call_ends_with_unauthenticated() {
    let site = Watched::new("").await;
    let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
    let messages = stream::unfold(receiver, |mut receiver| async move {
        Some((Ok::<_, std::convert::Infallible>(Frame::data(receiver.recv().await?)), receiver))
    });
    let request = Request::post(format!("http://{}/test.Echo/Both", site.daemon.main))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", token("1")))
        .body(StreamBody::new(Box::pin(messages)))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let mut body = soon("the head", client.request(request)).await.unwrap().into_body();
    sender.send(Bytes::from_static(b"\0\0\0\0\x02hi")).unwrap();
    let echoed = soon("the echo", body.frame()).await.unwrap().unwrap();
    assert_eq!(echoed.into_data().unwrap(), &b"\0\0\0\0\x02hi"[..]);
    // What is sent, and what is answered.
    site.eventually_open(2).await;
    site.daemon.revoke(&token("1")).await;
    let last = soon("the trailers", body.frame()).await.unwrap().unwrap();
    let trailers = last.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "16");
    assert_eq!(trailers["grpc-message"], "The access token was revoked");
    site.eventually_open(0).await;
}

#[tokio::test]
async fn turned_off_nothing_ends() {
    let site = Watched::new("[streams]\nend = \"off\"\n").await;
    let events = site.upstream.events();
    events.send(Bytes::from_static(b"data: hello\n\n")).unwrap();
    let mut stream = begin(&site, "/sse", &token("1"), "", "hello").await;
    site.daemon.revoke(&token("1")).await;
    site.eventually_open(0).await;
    events.send(Bytes::from_static(b"data: more\n\n")).unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"more") {
        read.push(soon("the next event", stream.read_u8()).await.unwrap());
    }
}

#[tokio::test]
async fn scopes_that_do_not_exist_are_refused() {
    // Any file that is long enough will do.
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let text = format!(
        "[staleness]\nafter = \"10s\"\nthen = \"refuse\"\n[streams]\nscopes = [\"sessions\"]\n\
         [[issuer]]\nissuer = \"https://a\"\nany_audience = true\nalgorithms = [\"HS256\"]\nsecret_file = \"{key}\"\n"
    );
    let config = revoked::config::parse(&text, []).unwrap();
    let error = revoked::engine::Engine::dry(config).await.unwrap_err().to_string();
    assert!(error.contains("streams.scopes"), "{error}");
}
