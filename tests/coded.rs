//! Compressed answers of the service behind, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use common::{ISSUER, verifier};
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_revocation::{
    RevocationLayer,
    backend::Memory,
    endpoint::{
        Clients, EndpointName, Endpoints, FrontLayer, RegisteredClient, SecretMethod, Switches, TokenEndpoint,
        metadata::Metadata,
    },
    recorder::{MemoryStore, Recorder},
    token::{OpaqueKeys, Verify},
};

const FORM: &str = "content-type: application/x-www-form-urlencoded";
const OAUTH: &str = "/.well-known/oauth-authorization-server";
/// `app:secret`.
const APP: &str = "authorization: Basic YXBwOnNlY3JldA==";

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// What the server behind answers to everything, and what it was asked last.
#[derive(Clone, Default)]
struct Behind {
    coding: Arc<Mutex<&'static str>>,
    body: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<HeaderMap>>,
}

impl Behind {
    async fn answer(self, request: Request) -> Response {
        *self.asked.lock().unwrap() = request.headers().clone();
        let answer = Response::builder().header("content-type", "application/json").header("vary", "Accept-Encoding");
        let coding = *self.coding.lock().unwrap();
        let answer = if coding.is_empty() { answer } else { answer.header("content-encoding", coding) };
        answer.header("etag", "\"theirs\"").body(Body::from(self.body.lock().unwrap().clone())).unwrap()
    }

    fn answers(&self, coding: &'static str, body: Vec<u8>) {
        *self.coding.lock().unwrap() = coding;
        *self.body.lock().unwrap() = body;
    }
}

struct Server {
    address: SocketAddr,
    behind: Behind,
    switches: Switches,
}

struct Answer {
    status: u16,
    head: String,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let of = |line: &'_ str| line.split_once(':').is_some_and(|(header, _)| header.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of(line)).map(|line| line[name.len() + 1..].trim())
    }
}

impl Server {
    async fn start() -> Self {
        let revocations = tower_revocation::Revocations::start(Memory::new(), common::config()).await.unwrap();
        let keys = || OpaqueKeys::new("k1", [7; 32]).unwrap();
        let recorder = Recorder::new(revocations.clone(), MemoryStore::new(), keys(), ISSUER);
        let app = RegisteredClient::confidential("app", "secret", SecretMethod::Basic).issuers([ISSUER]);
        let token = TokenEndpoint::new(verifier(), Clients::new().client(app).unwrap());
        let endpoints = Endpoints::new(revocations.clone()).token(token.opaque(keys(), Duration::from_secs(3600)));
        let switches = endpoints.switches().clone();
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()).opaque(keys()));
        let layer = FrontLayer::new(check, endpoints).unwrap().recorder(recorder, "/oauth/token").unwrap();
        let layer = layer.metadata(Metadata::new("https://as.example")).unwrap();
        let behind = Behind::default();
        let inner = behind.clone();
        let router = Router::new()
            .route("/api", axum::routing::get(|| async { "in" }))
            .fallback(move |request| inner.clone().answer(request))
            .layer(layer);
        let (listener, address) = common::listen().await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, behind, switches }
    }

    /// One exchange, with the body as the bytes that came.
    async fn send(&self, target: &str, headers: &[&str], body: Option<&str>) -> Answer {
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        let body = body.unwrap_or_default();
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: bytes.split_off(end + 4).into() }
    }

    async fn token(&self, accepts: &[&str]) -> Answer {
        let headers = [&[APP, FORM], accepts].concat();
        self.send("/oauth/token", &headers, Some("grant_type=authorization_code&code=x")).await
    }

    async fn document(&self) -> Answer {
        self.send(OAUTH, &["accept-encoding: gzip"], None).await
    }

    async fn api(&self, token: &str) -> u16 {
        self.send("/api", &[&format!("authorization: Bearer {token}")], None).await.status
    }
}

/// The client gets the very bytes that the server sent, and they were learnt from all the same.
#[tokio::test]
async fn coded_token_answers_are_learnt_from_and_pass_as_they_came() {
    let plain = json!({"access_token": "a1", "refresh_token": "r1", "expires_in": 600}).to_string();
    for (coding, body) in [
        ("", plain.clone().into_bytes()),
        ("gzip", gzip(plain.as_bytes())),
        ("x-gzip", gzip(plain.as_bytes())),
        ("deflate", deflate(plain.as_bytes())),
        ("identity", plain.clone().into_bytes()),
    ] {
        let server = Server::start().await;
        server.behind.answers(coding, body.clone());
        let answer = server.token(&["accept-encoding: gzip, deflate"]).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &body[..]), "{coding}");
        assert_eq!(answer.header("content-encoding").unwrap_or_default(), coding);
        assert_eq!(answer.header("content-length"), Some(&*body.len().to_string()), "{coding}");
        assert_eq!((answer.header("vary"), answer.header("etag")), (Some("Accept-Encoding"), Some("\"theirs\"")));
        assert_eq!(server.api("a1").await, 200);
        // Only who has learnt the grant knows that the access token goes with the refresh token.
        let revoked = server.send("/oauth/revoke", &[APP, FORM], Some("token=r1")).await;
        assert_eq!((revoked.status, server.api("a1").await), (200, 401), "{coding}");
    }
}

#[tokio::test]
async fn behind_is_asked_for_what_the_client_accepts_and_can_be_read_here() {
    let server = Server::start().await;
    server.behind.answers("", json!({"access_token": "a1"}).to_string().into_bytes());
    for (accepts, asked) in [
        (&[][..], "identity"),
        (&["accept-encoding: br, zstd"], "identity"),
        (&["accept-encoding: *"], "identity"),
        (&["accept-encoding: gzip"], "gzip"),
        (&["accept-encoding: br;q=1.0, gzip;q=0.8, *;q=0.1", "accept-encoding: deflate"], "gzip;q=0.8, deflate"),
    ] {
        assert_eq!(server.token(accepts).await.status, 200);
        let seen = server.behind.asked.lock().unwrap().clone();
        assert_eq!(seen.get_all("accept-encoding").iter().collect::<Vec<_>>(), [asked], "{accepts:?}");
    }
}

#[tokio::test]
async fn token_answers_that_cannot_be_read_are_not_released() {
    let plain = json!({"access_token": "a1"}).to_string();
    let bomb = format!("{{\"access_token\":\"a1\",\"x\":\"{}\"}}", " ".repeat(64 << 20));
    for (row, coding, body) in [
        ("unknown", "br", plain.clone().into_bytes()),
        ("not what it says", "gzip", plain.clone().into_bytes()),
        ("cut off", "gzip", gzip(plain.as_bytes())[..20].to_vec()),
        ("more after it", "gzip", [gzip(plain.as_bytes()), b"{}".to_vec()].concat()),
        ("twice", "gzip, gzip", gzip(&gzip(plain.as_bytes()))),
        ("a bomb", "gzip", gzip(bomb.as_bytes())),
        ("a bomb", "deflate", deflate(bomb.as_bytes())),
    ] {
        let server = Server::start().await;
        server.behind.answers(coding, body);
        let answer = server.token(&["accept-encoding: gzip, deflate, br"]).await;
        assert_eq!(answer.status, 502, "{row}");
        assert_eq!((answer.header("content-encoding"), answer.header("cache-control")), (None, Some("no-store")));
        assert!(String::from_utf8_lossy(&answer.body).contains("server_error"), "{row}");
    }
}

#[tokio::test]
async fn coded_metadata_is_changed_and_sent_uncoded() {
    let theirs = json!({"issuer": "https://as.example", "revocation_endpoint": "x"}).to_string();
    let server = Server::start().await;
    let mut tags = Vec::new();
    for (coding, body) in
        [("", theirs.clone().into_bytes()), ("gzip", gzip(theirs.as_bytes())), ("deflate", deflate(theirs.as_bytes()))]
    {
        server.behind.answers(coding, body);
        let answer = server.document().await;
        let expected =
            json!({"issuer": "https://as.example", "revocation_endpoint": "https://as.example/oauth/revoke"});
        assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), expected, "{coding}");
        assert_eq!((answer.status, answer.header("content-encoding")), (200, None), "{coding}");
        assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
        // What the server said of its own choice stays true.
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
        tags.push(answer.header("etag").unwrap().to_owned());
    }
    assert!(tags.iter().all(|tag| *tag == tags[0] && *tag != "\"theirs\""), "{tags:?}");
    server.switches.set(EndpointName::Token, false);
    let answer = server.document().await;
    assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), json!({"issuer": "https://as.example"}));
    assert_ne!(answer.header("etag"), Some(&*tags[0]));
}

#[tokio::test]
async fn coded_metadata_that_cannot_be_read() {
    let server = Server::start().await;
    let bomb = [b"{\"x\":\"", &*vec![b' '; 64 << 20], b"\"}"].concat();
    for (coding, body) in [("gzip", gzip(&bomb)), ("deflate", deflate(&bomb))] {
        server.behind.answers(coding, body);
        assert_eq!(server.document().await.status, 502, "{coding}");
    }
    for (coding, body) in [("br", b"{}".to_vec()), ("gzip", b"{}".to_vec()), ("gzip, gzip", gzip(&gzip(b"{}")))] {
        server.behind.answers(coding, body.clone());
        let answer = server.document().await;
        assert_eq!((answer.status, &answer.body[..]), (200, &body[..]), "{coding}");
        assert_eq!(answer.header("content-encoding"), Some(coding));
    }
}
