//! Messages that count once, in two nodes over one SQLite file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{net::SocketAddr, sync::atomic::Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::Router;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{Answer, ISSUER, config, faulty::Faulty, listen, raw, token, unix, verifier};
use futures_util::{FutureExt, future, future::BoxFuture};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Sqlite,
    denylist::Verdict,
    directory::{Directory, DirectoryError, User},
    endpoint::{
        Client, Clients, EndpointName, Endpoints, FrontLayer, GlobalEndpoint, Mode, RegisteredClient, SignedRequests,
        TokenEndpoint,
    },
    token::{Algorithm, Issuer, Keys, Verifier, Verify},
};

const IDP: &str = "https://idp.example/";
const GLOBAL: &str = "/oauth/global-token-revocation";
const REVOKE: &str = "/oauth/revoke";
const URL: &str = "https://as.example/";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Alice and Bob.
struct People;

impl Directory for People {
    fn find_users<'a>(
        &'a self,
        _: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        let known = ["alice", "bob"].contains(&value);
        let users = issuers.iter().filter(|_| known).map(|iss| User::new(iss, value)).collect();
        future::ready(Ok(users)).boxed()
    }

    fn sessions_of<'a>(&'a self, _: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        future::ready(Ok(Vec::new())).boxed()
    }

    fn session_of_token<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        future::ready(Ok(None)).boxed()
    }
}

struct Key(Ed25519KeyPair);

impl Key {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn keys(&self) -> Keys {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        Keys::jwks(json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "1", "x": x}).to_string())
    }

    fn sign(&self, typ: &str, claims: Value) -> String {
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(json!({"alg": "EdDSA", "typ": typ, "kid": "1"})), part(claims));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(input.as_bytes())))
    }

    /// A signed request; one like no other.
    fn request(&self) -> String {
        let (now, jti) = (unix(), jti());
        let claims =
            json!({"iss": IDP, "sub": "okta", "aud": URL, "jti": jti, "iat": now, "nbf": now, "exp": now + 300});
        self.sign("global-token-revocation+jwt", claims)
    }

    /// An assertion of the client `app`.
    fn assertion(&self) -> String {
        let now = unix();
        let claims = json!({"iss": "app", "sub": "app", "aud": URL, "jti": jti(), "iat": now, "exp": now + 120});
        self.sign("JWT", claims)
    }
}

fn jti() -> String {
    format!("{:?}", std::time::Instant::now())
}

/// A fleet's file, and the key of those who may ask.
struct Fleet {
    key: Key,
    directory: TempDir,
}

struct Node {
    address: SocketAddr,
    revocations: Revocations,
    backend: Faulty<Sqlite>,
}

impl Fleet {
    fn new() -> Self {
        Self { key: Key::new(), directory: tempfile::tempdir().unwrap() }
    }

    async fn node(&self) -> Node {
        self.node_in(Mode::Terminate, 200).await
    }

    /// A node in front of a service that answers with this status.
    async fn node_in(&self, mode: Mode, behind: u16) -> Node {
        let backend = Faulty::new(Sqlite::open(self.directory.path().join("revocations.db")).await.unwrap());
        let revocations = Revocations::start(backend.clone(), config()).await.unwrap();
        let idp = Issuer::new(IDP).any_audience().algorithms([Algorithm::EdDSA]).keys(self.key.keys());
        let sender = Client::confidential("okta").issuers([ISSUER]).scopes(["global_token_revocation"]);
        let signed = SignedRequests::new(URL, [idp]).unwrap().sender(IDP, sender);
        let app = RegisteredClient::private_key_jwt("app", self.key.keys(), [Algorithm::EdDSA]).unwrap();
        let clients = Clients::new().audience([URL]).client(app.issuers([ISSUER])).unwrap();
        let endpoints = Endpoints::new(revocations.clone())
            .token(TokenEndpoint::new(verifier(), clients.clone()))
            .global(GlobalEndpoint::new(People, [ISSUER], clients).signed_jwt(signed));
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let front = FrontLayer::new(check, endpoints).unwrap();
        let layer = front.mode(EndpointName::Token, mode).mode(EndpointName::Global, mode);
        let status = http::StatusCode::from_u16(behind).unwrap();
        let router = Router::new().fallback(move || async move { status }).layer(layer);
        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Node { address, revocations, backend }
    }
}

impl Node {
    async fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        raw(self.address, request + &format!("content-length: {}\r\n\r\n{body}", body.len())).await
    }

    /// A signed request to log this user out; the status.
    async fn log_out(&self, jwt: &str, sub: &str) -> u16 {
        let body = json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": sub}}).to_string();
        self.post(GLOBAL, &["content-type: application/json", &format!("authorization: Bearer {jwt}")], &body)
            .await
            .status
    }

    /// The revocation of a token with an assertion; the status.
    async fn revoke(&self, assertion: &str, token: &str) -> u16 {
        let body = format!("token={token}&client_assertion={assertion}&client_assertion_type={JWT_BEARER}");
        self.post(REVOKE, &["content-type: application/x-www-form-urlencoded"], &body).await.status
    }

    fn is_dead(&self, token: &str) -> bool {
        matches!(self.revocations.check(&verifier().verify(token, unix()).unwrap()), Verdict::Deny(_))
    }

    /// Whether it can write, from now on.
    fn writes(&self, it_can: bool) {
        self.backend.faults.publish.store(!it_can, Ordering::SeqCst);
    }

    /// Whether it can finish messages, from now on.
    fn finishes(&self, it_can: bool) {
        self.backend.faults.finish.store(!it_can, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn rule_18_a_signed_request_that_came_to_nothing_may_come_again_at_another_node() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.node().await, fleet.node().await);
    one.writes(false);
    let jwt = fleet.key.request();
    let alice = token(json!({"sub": "alice", "jti": "a"}));
    for _ in 0..2 {
        assert_eq!(one.log_out(&jwt, "alice").await, 503);
    }
    assert_eq!(two.log_out(&jwt, "bob").await, 401, "another body under the same jti");
    assert_eq!(two.log_out(&jwt, "nobody").await, 401, "who exists is not to be found out with it");
    assert_eq!(two.log_out(&jwt, "alice").await, 204, "that did not use it up");
    assert!(two.is_dead(&alice) && !two.is_dead(&token(json!({"sub": "bob", "jti": "b"}))));
    for node in [&one, &two] {
        assert_eq!(node.log_out(&jwt, "alice").await, 401, "it counts once");
        assert_eq!(node.log_out(&jwt, "bob").await, 401);
    }
}

#[tokio::test]
async fn rule_18_an_assertion_whose_request_came_to_nothing_may_come_again_at_another_node() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.node().await, fleet.node().await);
    one.writes(false);
    let assertion = fleet.key.assertion();
    let [token, other] = ["1", "2"].map(|jti| token(json!({"jti": jti})));
    for _ in 0..2 {
        assert_eq!(one.revoke(&assertion, &token).await, 503);
    }
    assert_eq!(two.revoke(&assertion, &other).await, 401, "another body under the same jti");
    assert_eq!(two.revoke(&assertion, &token).await, 200, "that did not use it up");
    assert!(two.is_dead(&token) && !two.is_dead(&other));
    one.writes(true);
    for node in [&one, &two] {
        assert_eq!(node.revoke(&assertion, &token).await, 401, "it counts once");
    }
}

/// A crash, too: what was claimed lies in the backend alone.
#[tokio::test]
async fn rule_18_a_node_that_starts_again_knows_what_was_claimed() {
    let fleet = Fleet::new();
    let (jwt, assertion, token) = (fleet.key.request(), fleet.key.assertion(), token(json!({"jti": "1"})));
    let node = fleet.node().await;
    node.writes(false);
    assert_eq!((node.log_out(&jwt, "alice").await, node.revoke(&assertion, &token).await), (503, 503));
    drop(node);
    let node = fleet.node().await;
    assert_eq!((node.log_out(&jwt, "bob").await, node.revoke(&assertion, "x").await), (401, 401));
    assert_eq!((node.log_out(&jwt, "alice").await, node.revoke(&assertion, &token).await), (204, 200));
    drop(node);
    let node = fleet.node().await;
    assert_eq!((node.log_out(&jwt, "alice").await, node.revoke(&assertion, &token).await), (401, 401));
}

/// What is finally refused is used up, with the same body too.
#[tokio::test]
async fn rule_18_a_final_refusal_finishes_the_message() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.node().await, fleet.node().await);
    let (jwt, assertion) = (fleet.key.request(), fleet.key.assertion());
    let foreign = token(json!({"client_id": "somebody else", "jti": "1"}));
    assert_eq!((one.log_out(&jwt, "nobody").await, one.revoke(&assertion, &foreign).await), (404, 400));
    assert_eq!((two.log_out(&jwt, "nobody").await, two.revoke(&assertion, &foreign).await), (401, 401));
}

/// A message that could come again with any body later is no message that was answered.
#[tokio::test]
async fn rule_18_no_answer_before_the_message_is_finished() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.node().await, fleet.node().await);
    one.finishes(false);
    let (jwt, assertion, token) = (fleet.key.request(), fleet.key.assertion(), token(json!({"jti": "1"})));
    assert_eq!((one.log_out(&jwt, "nobody").await, one.revoke(&assertion, &token).await), (503, 503));
    assert_eq!((two.log_out(&jwt, "nobody").await, two.revoke(&assertion, &token).await), (404, 200));
    one.finishes(true);
    assert_eq!((one.log_out(&jwt, "nobody").await, one.revoke(&assertion, &token).await), (401, 401));
}

/// The request ends with the answer of the service behind, where that is given.
#[tokio::test]
async fn rule_18_a_message_that_the_server_behind_could_not_serve_may_come_again() {
    for mode in [Mode::RecordThenForward, Mode::ForwardThenRecord] {
        let fleet = Fleet::new();
        let (down, refuses) = (fleet.node_in(mode, 503).await, fleet.node_in(mode, 400).await);
        let up = fleet.node_in(mode, 200).await;
        let (jwt, assertion, token) = (fleet.key.request(), fleet.key.assertion(), token(json!({"jti": "1"})));
        assert_eq!((down.log_out(&jwt, "alice").await, down.revoke(&assertion, &token).await), (503, 503));
        assert_eq!((up.log_out(&jwt, "alice").await, up.revoke(&assertion, &token).await), (200, 200), "{mode:?}");
        assert_eq!((up.log_out(&jwt, "alice").await, up.revoke(&assertion, &token).await), (401, 401), "{mode:?}");
        let (jwt, assertion) = (fleet.key.request(), fleet.key.assertion());
        assert_eq!((refuses.log_out(&jwt, "bob").await, refuses.revoke(&assertion, &token).await), (400, 400));
        assert_eq!((up.log_out(&jwt, "bob").await, up.revoke(&assertion, &token).await), (401, 401), "{mode:?}");
    }
}

/// Whoever races with the very same request gets the very same answer, and whoever comes later none.
#[tokio::test]
async fn rule_18_one_body_wins_a_race() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.node().await, fleet.node().await);
    let jwt = fleet.key.request();
    let users = ["alice", "bob"];
    let racing = (0..8).map(|n| [&one, &two][n % 2].log_out(&jwt, users[n / 2 % 2]));
    let statuses = future::join_all(racing).await;
    let served = |user| statuses.iter().enumerate().any(|(n, status)| n / 2 % 2 == user && *status == 204);
    assert!(served(0) != served(1), "one of two bodies: {statuses:?}");
    assert!(statuses.iter().all(|status| [204, 401].contains(status)), "{statuses:?}");
    for user in users {
        assert_eq!(two.log_out(&jwt, user).await, 401);
    }
}
