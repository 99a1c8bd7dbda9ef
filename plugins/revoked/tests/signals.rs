//! Logout tokens and security events, at the daemon's doors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod site;

use std::fs;

use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use site::{
    Answer, Daemon, Upstream, get, send,
    token::{ISSUER, SECRET, token_with, unix},
    wire::{head, post_form},
};

const TX: &str = "https://tx.example/";

fn logout_token(claims: &Value) -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let input = format!("{}.{}", part(r#"{"typ":"logout+jwt","alg":"HS256"}"#), part(&claims.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

struct Key(Ed25519KeyPair);

impl Key {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "1", "x": x}]}).to_string()
    }

    fn set(&self, event: &str, subject: &Value) -> String {
        let uri = format!("https://schemas.openid.net/secevent/{event}");
        let claims = json!({
            "iss": TX, "aud": "https://as.example/events", "jti": event, "iat": unix(), "sub_id": subject,
            "events": { uri: {} },
        });
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let header = part(r#"{"typ":"secevent+jwt","alg":"EdDSA","kid":"1"}"#);
        let input = format!("{header}.{}", part(&claims.to_string()));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(input.as_bytes())))
    }
}

const SETTINGS: &str = r#"
[admin]
listen = "127.0.0.1:0"

[endpoints.backchannel_logout]
enabled = true
audience = ["rp-1"]

[endpoints.events]
enabled = true
audience = ["https://as.example/events"]

[[transmitter]]
issuer = "https://tx.example/"
algorithms = ["EdDSA"]
jwks_file = "tx.jwks.json"
push_secret = "s3cret-of-tx"
subject_issuer = "https://issuer.example/"
"#;

async fn daemon(key: &Key, settings: &str) -> (Daemon, Upstream) {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tx.jwks.json"), key.jwks()).unwrap();
    let daemon = Daemon::start_in(folder, &upstream.url(), settings).await;
    (daemon, upstream)
}

async fn push(daemon: &Daemon, secret: &str, set: &str) -> Answer {
    let length = format!("content-length: {}", set.len());
    let bearer = format!("authorization: Bearer {secret}");
    let headers = ["content-type: application/secevent+jwt", &length, &bearer];
    send(daemon.main, head("POST", "/events", &headers) + set).await
}

#[tokio::test]
async fn logout_tokens_end_sessions_at_every_door() {
    let (daemon, _upstream) = daemon(&Key::new(), SETTINGS).await;
    let token = token_with(json!({"jti": "a", "sid": "s-1"}));
    assert_eq!(daemon.with_token(&token).await.status, 200);
    let claims = json!({
        "iss": ISSUER, "aud": "rp-1", "iat": unix(), "exp": unix() + 120, "jti": "1", "sid": "s-1",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    });
    let post =
        async |token: &str| post_form(daemon.main, "/backchannel_logout", &[], &format!("logout_token={token}")).await;
    let mut forged = claims.clone();
    forged["nonce"] = json!("n");
    let answer = post(&logout_token(&forged)).await;
    assert_eq!((answer.status, answer.header("cache-control")), (400, Some("no-store")));
    assert!(answer.text().contains("invalid_request"));
    assert_eq!(daemon.with_token(&token).await.status, 200);
    assert_eq!(post(&logout_token(&claims)).await.status, 200);
    assert_eq!(post(&logout_token(&claims)).await.status, 400, "it counts once");
    assert_eq!(daemon.with_token(&token).await.status, 401);
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(get(daemon.check, "/check", &[&bearer]).await.status, 401);
}

#[tokio::test]
async fn events_end_sessions_and_disable_accounts() {
    let key = Key::new();
    let (daemon, upstream) = daemon(&key, SETTINGS).await;
    let secret = "s3cret-of-tx";
    let alice = json!({"format": "iss_sub", "iss": ISSUER, "sub": "alice"});
    let later = token_with(json!({"jti": "b", "iat": unix() + 20}));
    let answer = push(&daemon, "wrong", &key.set("caep/event-type/session-revoked", &alice)).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains(r#""err":"authentication_failed""#), "{}", answer.text());
    assert_eq!(answer.header("content-language"), Some("en"));
    let session = json!({"format": "complex", "session": {"format": "opaque", "id": "s-1"}});
    let answer = push(&daemon, secret, &key.set("caep/event-type/session-revoked", &session)).await;
    assert_eq!((answer.status, answer.text()), (202, String::new()));
    assert_eq!(daemon.with_token(&token_with(json!({"jti": "a", "sid": "s-1"}))).await.status, 401);
    assert_eq!(daemon.with_token(&later).await.status, 200);
    assert_eq!(push(&daemon, secret, &key.set("risc/event-type/account-disabled", &alice)).await.status, 202);
    assert_eq!(daemon.with_token(&later).await.status, 401);
    assert_eq!(push(&daemon, secret, &key.set("risc/event-type/account-enabled", &alice)).await.status, 202);
    assert_eq!(daemon.with_token(&later).await.status, 200);
    let foreign = json!({"format": "iss_sub", "iss": "https://other.example/", "sub": "alice"});
    let answer = push(&daemon, secret, &key.set("caep/event-type/session-revoked", &foreign)).await;
    assert!(answer.text().contains(r#""err":"access_denied""#), "{}", answer.text());

    // Another key from the next reload on.
    let other = Key::new();
    fs::write(daemon.folder().join("tx.jwks.json"), other.jwks()).unwrap();
    daemon.reload(&upstream.url(), SETTINGS).await;
    let answer = push(&daemon, secret, &key.set("caep/event-type/session-revoked", &alice)).await;
    assert!(answer.text().contains(r#""err":"invalid_key""#), "{}", answer.text());
    assert_eq!(push(&daemon, secret, &other.set("caep/event-type/session-revoked", &alice)).await.status, 202);
}

#[tokio::test]
async fn off_they_leave_their_paths_to_the_server_behind() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::start(&upstream.url(), "").await;
    assert_eq!(post_form(daemon.main, "/backchannel_logout", &[], "logout_token=x").await.status, 200);
    assert_eq!(post_form(daemon.main, "/events", &[], "x=1").await.status, 200);
}
