//! What the black-box tests share: tokens signed with a real key, and nodes that run on a manual or real clock.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    missing_docs
)]

pub mod faults;
pub mod faulty;
pub mod log;
pub mod neighbour;
pub mod server;

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tower_revocation::{
    Revocations,
    backend::Memory,
    denylist::Staleness,
    sync::SyncConfig,
    token::{Algorithm, Issuer, JwtVerifier, Keys},
};

pub const ISSUER: &str = "https://issuer.example/";
pub const AUDIENCE: &str = "https://api.example/";
pub const SECRET: &[u8] = b"a secret of the tests, thirty-two bytes or more";

pub fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A JWT with these claims over the usual ones, signed with HS256.
pub fn token(claims: serde_json::Value) -> String {
    let mut all = serde_json::json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "iat": unix(), "exp": unix() + 600,
    });
    for (name, value) in claims.as_object().unwrap() {
        if value.is_null() {
            all.as_object_mut().unwrap().remove(name);
        } else {
            all[name] = value.clone();
        }
    }
    signed(r#"{"alg":"HS256","typ":"at+jwt"}"#, &all.to_string())
}

pub fn signed(header: &str, payload: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub fn issuer() -> Issuer {
    Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::HS256]).keys(Keys::secret(SECRET))
}

pub fn verifier() -> JwtVerifier {
    JwtVerifier::builder().issuer(issuer()).build().unwrap()
}

pub async fn revocations() -> Revocations {
    Revocations::start(Memory::new(), config()).await.unwrap()
}

pub fn config() -> SyncConfig {
    SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)))
}

/// Waits until `condition` holds, for ten seconds at most.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    for _ in 0..1000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still not so after ten seconds: {what}");
}

/// Spawns a server task on a free loopback port.
pub async fn listen() -> (tokio::net::TcpListener, std::net::SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// One HTTP/1.1 exchange with raw bytes, so that the request is exactly what the test says.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub async fn raw(address: std::net::SocketAddr, request: impl AsRef<[u8]>) -> Answer {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// A GET with these header lines.
pub async fn get(address: std::net::SocketAddr, target: &str, headers: &[&str]) -> Answer {
    let mut request = format!("GET {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n").into_bytes();
    for header in headers {
        request.extend_from_slice(header.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    raw(address, request).await
}
