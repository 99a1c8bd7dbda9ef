//! Logout tokens (OpenID Connect Back-Channel Logout 1.0) and security events (RFC 8935, RFC 8936, SSF, CAEP, RISC),
//! over real sockets. Row by row of the standards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::{Router, extract::State, routing::post};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{
    AUDIENCE, Answer, ISSUER, config, eventually, faulty::Faulty, issuer, listen, raw, signed, token, unix, verifier,
};
use futures_util::{FutureExt, future, future::BoxFuture};
use serde_json::{Value, json};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Memory,
    denylist::Verdict,
    directory::{Directory, DirectoryError, User},
    endpoint::{
        BackchannelLogoutEndpoint, EndpointName, Endpoints, EventsEndpoint, FrontLayer, LogoutNotices, LogoutSender,
        OfflineAccess, Poll, SendError, Transmitter,
    },
    recorder::{MemoryStore, Recorder},
    revocation::{Revocation, Scope},
    token::{Algorithm, Issuer, Keys, OpaqueKeys, SigningKey, Verifier, Verify},
};

const TX: &str = "https://tx.example/";
const OTHER_TX: &str = "https://other-tx.example/";
const OTHER_ISSUER: &str = "https://other.example/";
const EVENTS_AUDIENCE: &str = "https://as.example/events";
const SECRET: &str = "push-secret";
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// Alice by any attribute with the value `alice`, and her session `known`.
struct People;

impl Directory for People {
    fn find_users<'a>(
        &'a self,
        _: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        let known =
            ["alice@example.com", "+12065550100", "acct:alice@example.com", "did:example:alice", "urn:alice", "a-1"];
        let users = issuers.iter().filter(|_| known.contains(&value)).map(|iss| User::new(iss, "alice")).collect();
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

    fn issuer(&self, iss: &str) -> Issuer {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "1", "x": x}).to_string();
        Issuer::new(iss).algorithms([Algorithm::EdDSA]).keys(Keys::jwks(jwk))
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(input.as_bytes())))
    }

    fn set(&self, claims: Value) -> String {
        self.sign(r#"{"alg":"EdDSA","typ":"secevent+jwt","kid":"1"}"#, &with(set_claims(), claims).to_string())
    }
}

/// Another signature of the same length.
fn altered(signature: &str) -> String {
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{first}{}", &signature[1..])
}

fn jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The claims over these; null takes one away.
fn with(mut all: Value, claims: Value) -> Value {
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    all
}

fn set_claims() -> Value {
    json!({
        "iss": TX, "aud": EVENTS_AUDIENCE, "jti": jti(), "iat": unix(),
        "sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "alice"},
        "events": { format!("{CAEP}session-revoked"): { "event_timestamp": unix() } },
    })
}

fn event(uri: impl AsRef<str>, payload: Value) -> Value {
    json!({ uri.as_ref(): payload })
}

fn logout_claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "rp-1", "iat": unix(), "exp": unix() + 120, "jti": jti(), "sub": "alice", "sid": "s-1",
        "events": { LOGOUT_EVENT: {} },
    })
}

fn logout_token(claims: Value) -> String {
    signed(r#"{"alg":"HS256","typ":"logout+jwt"}"#, &with(logout_claims(), claims).to_string())
}

struct Fleet {
    backend: Faulty<Arc<Memory>>,
    key: Arc<Key>,
    other_key: Arc<Key>,
}

struct Node {
    address: SocketAddr,
    revocations: Revocations,
    front: FrontLayer<Verify<tower_revocation::token::JwtVerifier>>,
    key: Arc<Key>,
}

impl Fleet {
    fn new() -> Self {
        let backend = Faulty::new(Arc::new(Memory::new()));
        Self { backend, key: Arc::new(Key::new()), other_key: Arc::new(Key::new()) }
    }

    async fn node(&self) -> Node {
        self.node_with(|endpoints| endpoints).await
    }

    async fn node_with(&self, more: impl FnOnce(Endpoints) -> Endpoints) -> Node {
        let revocations = Revocations::start(self.backend.clone(), config()).await.unwrap();
        let logout = BackchannelLogoutEndpoint::new(["rp-1"], [issuer()]).unwrap();
        let tx = Transmitter::new(self.key.issuer(TX)).subject_issuer(ISSUER).push_secret(SECRET);
        let other = Transmitter::new(self.other_key.issuer(OTHER_TX)).subject_issuer(OTHER_ISSUER).push_secret("other");
        let events = EventsEndpoint::new([EVENTS_AUDIENCE], [tx, other], People).unwrap();
        let endpoints = Endpoints::new(revocations.clone()).backchannel_logout(logout).events(events);
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let front = FrontLayer::new(check, more(endpoints)).unwrap();
        let router = Router::new().fallback(|| async { "behind" }).layer(front.clone());
        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Node { address, revocations, front, key: Arc::clone(&self.key) }
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

    async fn log_out(&self, token: &str) -> Answer {
        let form = ["content-type: application/x-www-form-urlencoded"];
        self.post("/backchannel_logout", &form, &format!("logout_token={token}")).await
    }

    async fn push_with(&self, headers: &[&str], set: &str) -> Answer {
        self.post("/events", headers, set).await
    }

    async fn push(&self, set: &str) -> Answer {
        let bearer = format!("authorization: Bearer {SECRET}");
        self.push_with(&["content-type: application/secevent+jwt", "accept: application/json", &bearer], set).await
    }

    /// Pushes a SET with these claims, which is taken.
    async fn tell(&self, claims: Value) {
        let answer = self.push(&self.key.set(claims)).await;
        assert_eq!((answer.status, &*answer.body), (202, ""), "{}", answer.head);
    }

    /// Whether a token with these claims is refused, by a request over a socket.
    async fn refuses(&self, claims: Value) -> bool {
        // Issued before whatever is told of it now.
        let claims = with(json!({"iat": unix() - 5}), claims);
        let bearer = format!("authorization: Bearer {}", token(claims));
        match common::get(self.address, "/api", &[&bearer]).await.status {
            200 => false,
            401 => true,
            other => panic!("{other}"),
        }
    }

    fn err(&self, answer: &Answer) -> String {
        let body: Value =
            serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{} {}", answer.head, answer.body));
        assert!(body["description"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("content-language"), Some("en"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        body["err"].as_str().unwrap().to_owned()
    }
}

// Back-Channel Logout 1.0

#[tokio::test]
async fn a_logout_token_with_a_sid_ends_that_session_for_ever() {
    let fleet = Fleet::new();
    let node = fleet.node().await;
    assert!(!node.refuses(json!({"jti": "a", "sid": "s-1"})).await);
    let answer = node.log_out(&logout_token(json!({}))).await;
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(node.refuses(json!({"jti": "a", "sid": "s-1"})).await);
    assert!(node.refuses(json!({"jti": "b", "sid": "s-1", "iat": unix() + 20})).await, "minted afterwards");
    assert!(!node.refuses(json!({"jti": "c", "sid": "s-2"})).await, "another session of hers");
    let again = node.log_out(&logout_token(json!({}))).await;
    assert_eq!(again.status, 200, "already logged out is success (§2.7)");
}

#[tokio::test]
async fn a_logout_token_with_a_sub_alone_ends_what_was_issued_until_then() {
    let node = Fleet::new().node().await;
    let then = unix() - 30;
    assert_eq!(node.log_out(&logout_token(json!({"sid": null, "iat": then, "exp": then + 90}))).await.status, 200);
    assert!(node.refuses(json!({"jti": "a", "iat": then})).await);
    assert!(!node.refuses(json!({"jti": "b", "iat": then + 1})).await, "a login since then goes on");
    assert!(!node.refuses(json!({"jti": "c", "sub": "bob", "iat": then})).await);
    assert_eq!(node.log_out(&logout_token(json!({"sub": null, "sid": "s-9"}))).await.status, 200);
    assert!(node.refuses(json!({"jti": "d", "sub": "carol", "sid": "s-9"})).await);
}

/// §2.4, §2.6, and nothing is recorded of any of them.
#[tokio::test]
async fn every_rule_for_logout_tokens() {
    let node = Fleet::new().node().await;
    let now = unix();
    let bad: [(&str, Value); 27] = [
        ("no iss", json!({"iss": null})),
        ("another iss", json!({"iss": "https://nobody.example/"})),
        ("no aud", json!({"aud": null})),
        ("another aud", json!({"aud": "rp-2"})),
        ("the API's audience", json!({"aud": AUDIENCE})),
        ("aud of another type", json!({"aud": 7})),
        ("no iat", json!({"iat": null})),
        ("iat of another type", json!({"iat": "now"})),
        ("ten minutes ahead", json!({"iat": now + 600, "exp": now + 720})),
        ("ten minutes behind", json!({"iat": now - 600, "exp": now - 480})),
        ("no exp", json!({"exp": null})),
        ("lives for an hour", json!({"exp": now + 3600})),
        ("ends before it begins", json!({"iat": now, "exp": now - 10})),
        ("no jti", json!({"jti": null})),
        ("an empty jti", json!({"jti": ""})),
        ("no events", json!({"events": null})),
        ("events of another type", json!({"events": [LOGOUT_EVENT]})),
        ("another event", json!({"events": event("https://other.example/", json!({}))})),
        ("two events", json!({"events": {LOGOUT_EVENT: {}, "https://other.example/": {}}})),
        ("the event is no object", json!({"events": {LOGOUT_EVENT: true}})),
        ("the event is null", json!({"events": {LOGOUT_EVENT: Value::Array(vec![])}})),
        ("neither sub nor sid", json!({"sub": null, "sid": null})),
        ("sub of another type", json!({"sub": 7})),
        ("sid of another type", json!({"sid": ["s-1"]})),
        ("an empty sid", json!({"sid": ""})),
        ("a nonce", json!({"nonce": "n"})),
        ("a future nbf", json!({"nbf": now + 600})),
    ];
    let claims = logout_claims().to_string();
    let header = r#"{"alg":"HS256","typ":"logout+jwt"}"#;
    let good = logout_token(json!({}));
    let (input, signature) = good.rsplit_once('.').unwrap();
    let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(&claims));
    let doubled = claims.replacen('{', r#"{"sub":"bob","#, 1);
    let mut tokens: Vec<(&str, String)> = bad.into_iter().map(|(name, claims)| (name, logout_token(claims))).collect();
    tokens.extend([
        ("unsigned", unsigned),
        ("an altered signature", format!("{input}.{}", altered(signature))),
        ("the alg of another key", Key::new().sign(r#"{"alg":"EdDSA","typ":"logout+jwt"}"#, &claims)),
        ("another alg", signed(r#"{"alg":"HS512","typ":"logout+jwt"}"#, &claims)),
        ("a critical header", signed(r#"{"alg":"HS256","typ":"logout+jwt","crit":["x"],"x":1}"#, &claims)),
        ("an access token's type", signed(r#"{"alg":"HS256","typ":"at+jwt"}"#, &claims)),
        ("a SET's type", signed(r#"{"alg":"HS256","typ":"secevent+jwt"}"#, &claims)),
        ("a member twice", signed(header, &doubled)),
        ("an access token", token(json!({"jti": "x"}))),
        ("nothing", String::new()),
        ("no JWT", "abc".to_owned()),
        ("a JWE", "a.b.c.d.e".to_owned()),
        ("17 KB", format!("{input}{}.{signature}", "A".repeat(17 << 10))),
    ]);
    for (name, token) in tokens {
        let answer = node.log_out(&token).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        assert_eq!((answer.status, &body["error"]), (400, &json!("invalid_request")), "{name}: {}", answer.body);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
    }
    let announced = "POST /backchannel_logout HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
                     content-type: application/x-www-form-urlencoded\r\ncontent-length: 1048576\r\n\r\n";
    assert_eq!(raw(node.address, announced).await.status, 413, "one megabyte");
    assert!(!node.refuses(json!({"jti": "a", "sid": "s-1"})).await, "nothing was recorded");
    assert!(node.revocations.denylist().records() == 0, "nothing was recorded");
    // Without a type, or with the plain one, they are taken all the same (§2.4).
    for header in
        [r#"{"alg":"HS256"}"#, r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"alg":"HS256","typ":"application/logout+jwt"}"#]
    {
        assert_eq!(node.log_out(&signed(header, &logout_claims().to_string())).await.status, 200, "{header}");
    }
}

#[tokio::test]
async fn requests_that_are_no_logout_forms() {
    let node = Fleet::new().node().await;
    let token = logout_token(json!({}));
    let form = "content-type: application/x-www-form-urlencoded";
    let json_body = json!({"logout_token": token}).to_string();
    let path = "/backchannel_logout";
    for (path, headers, body) in [
        (path, &["content-type: application/json"][..], json_body),
        (path, &[], format!("logout_token={token}")),
        (path, &[form, form], format!("logout_token={token}")),
        (path, &[form, "content-encoding: gzip"], format!("logout_token={token}")),
        (path, &[form], format!("logout_token={token}&logout_token={token}")),
        (path, &[form], "other=1".to_owned()),
        (path, &[form], String::new()),
        ("/backchannel_logout?x=1", &[form], format!("logout_token={token}")),
        ("/Backchannel_Logout", &[form], format!("logout_token={token}")),
    ] {
        assert_eq!(node.post(path, headers, &body).await.status, 400, "{path} {headers:?} {body:.40}");
    }
    let get = common::get(node.address, path, &[]).await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    let extra = node.post(path, &[form], &format!("x=1&logout_token={token}")).await;
    assert_eq!(extra.status, 200, "unknown parameters are ignored (§2.5)");
}

/// Rule 18, in two nodes of one fleet.
#[tokio::test]
async fn rule_18_a_logout_token_counts_once_and_again_after_a_503() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.node().await, fleet.node().await);
    let token = logout_token(json!({}));
    fleet.backend.faults.publish.store(true, Ordering::SeqCst);
    let answer = one.log_out(&token).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    fleet.backend.faults.publish.store(false, Ordering::SeqCst);
    assert_eq!(two.log_out(&token).await.status, 200, "it came to nothing before");
    for node in [&one, &two] {
        assert_eq!(node.log_out(&token).await.status, 400, "it counts once");
    }
}

/// §2.7: tokens with `offline_access` stay, where the recorder knows which they are.
#[tokio::test]
async fn offline_access_stays_where_it_is_known_unless_the_user_says_otherwise() {
    for (choice, stays) in [(OfflineAccess::Stays, true), (OfflineAccess::Ends, false)] {
        let revocations = common::revocations().await;
        let logout = BackchannelLogoutEndpoint::new(["rp-1"], [issuer()]).unwrap().offline_access(choice);
        let endpoints = Endpoints::new(revocations.clone()).backchannel_logout(logout);
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let recorder =
            Recorder::new(revocations.clone(), MemoryStore::new(), OpaqueKeys::new("k", [7; 32]).unwrap(), ISSUER);
        let front = FrontLayer::new(check, endpoints).unwrap().recorder(recorder, "/token").unwrap();
        // Behind: a token endpoint that grants what the refresh token says, and echoes.
        let grant = |request: axum::extract::Request| async move {
            let body = axum::body::to_bytes(request.into_body(), 10_000).await.unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let kind = text.rsplit('=').next().unwrap().trim_start_matches("refresh-").to_owned();
            let scope = if kind == "offline" { "openid offline_access" } else { "openid" };
            let access = token(json!({"jti": jti(), "sid": "s-1"}));
            axum::Json(json!({
                "access_token": access, "token_type": "Bearer", "expires_in": 600,
                "refresh_token": format!("refresh-{kind}"), "scope": scope,
            }))
        };
        let router = Router::new().route("/token", post(grant)).fallback(|| async { "behind" }).layer(front.clone());
        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        let node = Node { address, revocations, front, key: Arc::new(Key::new()) };
        let form = ["content-type: application/x-www-form-urlencoded", "authorization: Basic YXBwOnM="];
        let first = async |kind: &str| {
            let answer = node.post("/token", &form, &format!("grant_type=authorization_code&code={kind}")).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            body["access_token"].as_str().unwrap().to_owned()
        };
        let passes = async |token: &str| {
            common::get(node.address, "/", &[&format!("authorization: Bearer {token}")]).await.status == 200
        };
        let (online, offline) = (first("online").await, first("offline").await);
        assert!(passes(&online).await && passes(&offline).await);
        assert_eq!(node.log_out(&logout_token(json!({}))).await.status, 200);
        assert!(!passes(&online).await, "{choice:?}");
        assert_eq!(passes(&offline).await, stays, "{choice:?}");
        let refresh = async |kind: &str| {
            let body = format!("grant_type=refresh_token&refresh_token=refresh-{kind}");
            node.post("/token", &form, &body).await.status
        };
        assert_eq!(refresh("online").await, 400, "{choice:?}");
        assert_eq!(refresh("offline").await, if stays { 200 } else { 400 }, "{choice:?}");
    }
}

// RFC 8935

#[tokio::test]
async fn every_event_does_what_it_says() {
    let then = unix() - 100;
    for (uri, payload) in [
        (format!("{CAEP}session-revoked"), json!({"event_timestamp": then})),
        (
            format!("{CAEP}session-revoked"),
            json!({"event_timestamp": then, "initiating_entity": "admin", "reason_admin": {"en": "x"}}),
        ),
        (
            format!("{CAEP}credential-change"),
            json!({"event_timestamp": then, "credential_type": "password", "change_type": "update"}),
        ),
        (format!("{CAEP}token-claims-change"), json!({"event_timestamp": then, "claims": {"role": "user"}})),
        (format!("{RISC}credential-compromise"), json!({"event_timestamp": then, "credential_type": "password"})),
        (format!("{RISC}sessions-revoked"), json!({"event_timestamp": then})),
    ] {
        let node = Fleet::new().node().await;
        assert!(!node.refuses(json!({"jti": "a", "iat": then})).await);
        node.tell(json!({"events": event(&uri, payload)})).await;
        assert!(node.refuses(json!({"jti": "a", "iat": then})).await, "{uri}");
        assert!(!node.refuses(json!({"jti": "b", "iat": then + 1})).await, "{uri}: event_timestamp is the cutoff");
        assert!(!node.refuses(json!({"jti": "c", "iat": then, "sub": "bob"})).await, "{uri}");
    }
    for uri in [format!("{RISC}account-disabled"), format!("{RISC}account-purged")] {
        let node = Fleet::new().node().await;
        node.tell(json!({"events": event(&uri, json!({"reason": "hijacking", "event_timestamp": then}))})).await;
        assert!(node.refuses(json!({"jti": "b", "iat": unix() + 10})).await, "{uri}: later tokens too");
        node.tell(json!({"events": event(format!("{RISC}account-enabled"), json!({"event_timestamp": then + 10}))}))
            .await;
        assert!(!node.refuses(json!({"jti": "c", "iat": then + 11})).await, "{uri}: lifted");
        assert!(node.refuses(json!({"jti": "d", "iat": then + 10})).await, "{uri}: a cutoff stays");
    }
    // Nothing happens, and they are accepted: verification, stream updates, and what nobody here knows.
    let node = Fleet::new().node().await;
    for uri in [
        format!("{SSF}verification"),
        format!("{SSF}stream-updated"),
        format!("{CAEP}device-compliance-change"),
        format!("{RISC}identifier-changed"),
        "https://vendor.example/event".to_owned(),
    ] {
        node.tell(json!({"events": event(&uri, json!({"state": "x", "status": "paused"}))})).await;
        node.tell(json!({"events": event(&uri, json!({})), "sub_id": {"format": "opaque", "id": "stream-1"}})).await;
        node.tell(json!({"events": event(&uri, json!({})), "sub_id": null})).await;
    }
    assert!(node.revocations.denylist().records() == 0);
    let counts = node.front.endpoints().event_counts().unwrap();
    let of = |name: &str| counts.events.iter().find(|(known, _)| *known == name).unwrap().1;
    assert_eq!((of("verification"), of("stream-updated"), of("unknown")), (3, 3, 9));
}

#[tokio::test]
async fn every_kind_of_subject() {
    let opaque = |id: &str| json!({"format": "opaque", "id": id});
    let alice = json!({"format": "iss_sub", "iss": ISSUER, "sub": "alice"});
    for (subject, dead, alive) in [
        (alice.clone(), json!({}), json!({"sub": "bob"})),
        (json!({"format": "email", "email": "alice@example.com"}), json!({}), json!({"sub": "bob"})),
        (json!({"format": "phone_number", "phone_number": "+12065550100"}), json!({}), json!({"sub": "bob"})),
        (json!({"format": "account", "uri": "acct:alice@example.com"}), json!({}), json!({"sub": "bob"})),
        (json!({"format": "did", "url": "did:example:alice"}), json!({}), json!({"sub": "bob"})),
        (json!({"format": "uri", "uri": "urn:alice"}), json!({}), json!({"sub": "bob"})),
        (opaque("a-1"), json!({}), json!({"sub": "bob"})),
        (
            json!({"format": "aliases", "identifiers": [{"format": "email", "email": "x@y.example"}, alice]}),
            json!({}),
            json!({"sub": "bob"}),
        ),
        (json!({"format": "jwt_id", "iss": ISSUER, "jti": "t"}), json!({"jti": "t"}), json!({"jti": "u"})),
        (json!({"format": "complex", "session": opaque("s-1")}), json!({"sid": "s-1"}), json!({"sid": "s-2"})),
        (
            json!({"format": "complex", "user": alice, "session": opaque("s-1")}),
            json!({"sid": "s-1"}),
            json!({"sid": "s-2"}),
        ),
        (
            json!({"format": "complex", "session": {"format": "iss_sub", "iss": ISSUER, "sub": "s-1"}, "application": opaque("app")}),
            json!({"sid": "s-1"}),
            json!({"sid": "s-1", "client_id": "other"}),
        ),
        (
            json!({"format": "complex", "user": alice, "tenant": opaque("t"), "device": opaque("d")}),
            json!({}),
            json!({"sub": "bob"}),
        ),
        (
            json!({"format": "complex", "user": alice, "application": opaque("app")}),
            json!({}),
            json!({"client_id": "other"}),
        ),
        (
            json!({"format": "complex", "application": opaque("app")}),
            json!({"sub": "bob"}),
            json!({"client_id": "other"}),
        ),
        (json!({"subject_type": "iss-sub", "iss": ISSUER, "sub": "alice"}), json!({}), json!({"sub": "bob"})),
    ] {
        let node = Fleet::new().node().await;
        node.tell(json!({"sub_id": subject})).await;
        assert!(node.refuses(with(json!({"jti": "x"}), dead)).await, "{subject}");
        assert!(!node.refuses(with(json!({"jti": "y"}), alive)).await, "{subject}");
        // As drafts had it, inside the event.
        let node = Fleet::new().node().await;
        let inside = event(format!("{CAEP}session-revoked"), json!({"subject": subject, "event_timestamp": unix()}));
        node.tell(json!({"sub_id": null, "events": inside})).await;
        assert!(node.revocations.denylist().records() > 0, "{subject}");
    }
    // A user that nobody knows: nothing to do, and counted.
    let node = Fleet::new().node().await;
    node.tell(json!({"sub_id": {"format": "email", "email": "nobody@example.com"}})).await;
    assert_eq!(node.front.endpoints().event_counts().unwrap().unknown_subjects, 1);
}

/// Rules 14 and 15, RFC 8935 §2.3 and §2.4; nothing is recorded of any of them.
#[tokio::test]
async fn everything_that_is_wrong_with_a_set_has_its_code() {
    let fleet = Fleet::new();
    let node = fleet.node().await;
    let now = unix();
    let set = |claims| fleet.key.set(claims);
    let claims = set_claims().to_string();
    let good = set(json!({}));
    let (input, signature) = good.rsplit_once('.').unwrap();
    let revoked = format!("{CAEP}session-revoked");
    let subject = |json: Value| set(json!({"sub_id": json}));
    let opaque = json!({"format": "opaque", "id": "x"});
    for (name, set, err) in [
        ("no iss", set(json!({"iss": null})), "invalid_issuer"),
        ("unknown iss", set(json!({"iss": "https://nobody.example/"})), "invalid_issuer"),
        ("no aud", set(json!({"aud": null})), "invalid_audience"),
        ("another aud", set(json!({"aud": ["https://other.example/"]})), "invalid_audience"),
        ("another key", Key::new().set(json!({})), "invalid_key"),
        ("another's key", fleet.other_key.set(json!({})), "invalid_key"),
        ("altered", format!("{input}.{}", altered(signature)), "invalid_key"),
        (
            "none",
            format!(
                "{}.{}.",
                URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"secevent+jwt"}"#),
                URL_SAFE_NO_PAD.encode(&claims)
            ),
            "invalid_key",
        ),
        ("HMAC with a public key", signed(r#"{"alg":"HS256","typ":"secevent+jwt","kid":"1"}"#, &claims), "invalid_key"),
        ("no type", fleet.key.sign(r#"{"alg":"EdDSA"}"#, &claims), "invalid_request"),
        ("another type", fleet.key.sign(r#"{"alg":"EdDSA","typ":"JWT"}"#, &claims), "invalid_request"),
        ("no jti", set(json!({"jti": null})), "invalid_request"),
        ("no iat", set(json!({"iat": null})), "invalid_request"),
        ("ten minutes ahead", set(json!({"iat": now + 600})), "invalid_request"),
        ("an exp", set(json!({"exp": now + 60})), "invalid_request"),
        ("a sub", set(json!({"sub": "alice"})), "invalid_request"),
        ("no events", set(json!({"events": null})), "invalid_request"),
        ("an empty events", set(json!({"events": {}})), "invalid_request"),
        (
            "two events",
            set(json!({"events": {revoked.clone(): {}, format!("{RISC}account-disabled"): {}}})),
            "invalid_request",
        ),
        ("an event that is no object", set(json!({"events": {revoked.clone(): 1}})), "invalid_request"),
        (
            "a timestamp that is no time",
            set(json!({"events": event(&revoked, json!({"event_timestamp": "now"}))})),
            "invalid_request",
        ),
        ("no subject", set(json!({"sub_id": null})), "invalid_request"),
        ("two subjects", set(json!({"events": event(&revoked, json!({"subject": opaque}))})), "invalid_request"),
        (
            "a member twice",
            fleet.key.sign(r#"{"alg":"EdDSA","typ":"secevent+jwt"}"#, &claims.replacen('{', r#"{"jti":"x","#, 1)),
            "invalid_request",
        ),
        ("an unknown format", subject(json!({"format": "vendor", "id": "x"})), "invalid_request"),
        ("a member too many", subject(json!({"format": "opaque", "id": "x", "y": 1})), "invalid_request"),
        ("an IP address", subject(json!({"format": "ip-addresses", "ip-addresses": ["192.0.2.1"]})), "invalid_request"),
        (
            "a SAML assertion",
            subject(json!({"format": "saml_assertion_id", "issuer": "i", "assertion_id": "a"})),
            "invalid_request",
        ),
        ("a tenant alone", subject(json!({"format": "complex", "tenant": opaque})), "invalid_request"),
        ("a foreign user", subject(json!({"format": "iss_sub", "iss": OTHER_ISSUER, "sub": "alice"})), "access_denied"),
        ("its own subject", subject(json!({"format": "iss_sub", "iss": TX, "sub": "alice"})), "access_denied"),
        ("a foreign token", subject(json!({"format": "jwt_id", "iss": OTHER_ISSUER, "jti": "t"})), "access_denied"),
        (
            "a foreign session",
            subject(json!({"format": "complex", "session": {"format": "iss_sub", "iss": OTHER_ISSUER, "sub": "s"}})),
            "access_denied",
        ),
        (
            "a foreign user's session",
            subject(
                json!({"format": "complex", "user": {"format": "iss_sub", "iss": OTHER_ISSUER, "sub": "a"}, "session": opaque}),
            ),
            "access_denied",
        ),
        ("nothing", String::new(), "invalid_request"),
        ("no JWT", "abc".to_owned(), "invalid_request"),
        ("an access token", token(json!({})), "invalid_issuer"),
    ] {
        let answer = node.push(&set).await;
        assert_eq!((answer.status, &*node.err(&answer)), (400, err), "{name}: {}", answer.body);
    }
    let (media, bearer) = ("content-type: application/secevent+jwt", format!("authorization: Bearer {SECRET}"));
    for (name, headers) in [
        ("no secret", vec![media]),
        ("another secret", vec![media, "authorization: Bearer wrong"]),
        ("another's secret", vec![media, "authorization: Bearer other"]),
        ("another scheme", vec![media, "authorization: Basic cHVzaC1zZWNyZXQ="]),
        ("two secrets", vec![media, &bearer, &bearer]),
    ] {
        let answer = node.push_with(&headers, &good).await;
        assert_eq!((answer.status, &*node.err(&answer)), (400, "authentication_failed"), "{name}");
    }
    for headers in [
        vec!["content-type: application/json", &bearer],
        vec!["content-type: application/jwt", &bearer],
        vec![&*bearer],
    ] {
        let answer = node.push_with(&headers, &good).await;
        assert_eq!((answer.status, &*node.err(&answer)), (415, "invalid_request"), "{headers:?}");
    }
    let announced = format!(
        "POST /events HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{media}\r\n{bearer}\r\ncontent-length: 1048576\r\n\r\n"
    );
    let large = raw(node.address, announced).await;
    assert_eq!((large.status, &*node.err(&large)), (413, "invalid_request"));
    assert_eq!(common::get(node.address, "/events", &[]).await.status, 405);
    assert!(node.revocations.denylist().records() == 0, "nothing was recorded");
    assert!(node.front.endpoints().event_counts().unwrap().refused > 40);
}

#[tokio::test]
async fn the_same_event_again_is_answered_as_if_it_were_the_first() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.node().await, fleet.node().await);
    let set = fleet.key.set(json!({}));
    for node in [&one, &one, &two] {
        let answer = node.push(&set).await;
        assert_eq!((answer.status, &*answer.body), (202, ""));
    }
    let records = one.revocations.revocations_of(&Scope::subject(ISSUER, "alice"));
    assert_eq!(records.len(), 1, "and changes nothing");
}

/// Rule 9: a future event would lock a user out.
#[tokio::test]
async fn rule_9_a_future_event_timestamp_is_capped() {
    let node = Fleet::new().node().await;
    let ahead = json!({"event_timestamp": unix() + 100_000});
    node.tell(json!({"events": event(format!("{CAEP}session-revoked"), ahead)})).await;
    assert!(node.refuses(json!({"jti": "a"})).await);
    assert!(!node.refuses(json!({"jti": "b", "iat": unix() + 40})).await, "the skew is 30 s");
}

/// L4: events come in any order, from two transmitters, to two nodes.
#[tokio::test]
async fn l4_a_ban_that_is_told_late_does_not_outlive_its_end() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.node().await, fleet.node().await);
    let at = |name: &str, seconds: u64| json!({"events": event(format!("{RISC}{name}"), json!({"event_timestamp": seconds}))});
    let then = unix() - 100;
    one.tell(at("account-enabled", then + 50)).await;
    two.tell(at("account-disabled", then)).await;
    assert!(!two.refuses(json!({"jti": "a", "iat": then + 60})).await, "it had ended");
    assert!(two.refuses(json!({"jti": "b", "iat": then})).await);
    one.tell(at("account-disabled", then + 60)).await;
    assert!(one.refuses(json!({"jti": "c", "iat": unix()})).await);
    // What an operator banned, no transmitter enables.
    one.tell(at("account-enabled", then + 70)).await;
    assert!(!one.refuses(json!({"jti": "d", "iat": unix()})).await);
    let _ = one.revocations.revoke(Revocation::ban(Scope::subject(ISSUER, "alice"))).await.unwrap();
    one.tell(at("account-enabled", then + 80)).await;
    assert!(one.refuses(json!({"jti": "e", "iat": unix()})).await);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_accepted() {
    let fleet = Fleet::new();
    let node = fleet.node().await;
    let (set, ban) = (
        fleet.key.set(json!({})),
        fleet.key.set(json!({"events": event(format!("{RISC}account-disabled"), json!({}))})),
    );
    fleet.backend.faults.publish.store(true, Ordering::SeqCst);
    for set in [&set, &ban] {
        let answer = node.push(set).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        assert_eq!(node.err(&answer), "invalid_request");
    }
    fleet.backend.faults.publish.store(false, Ordering::SeqCst);
    for set in [&set, &ban] {
        assert_eq!(node.push(set).await.status, 202);
    }
}

/// Bounded and fair: one that floods is told to wait, and another one is heard.
#[tokio::test]
async fn a_transmitter_that_floods_keeps_nobody_else_waiting() {
    let fleet = Fleet::new();
    let revocations = common::revocations().await;
    let tx = Transmitter::new(fleet.key.issuer(TX)).subject_issuer(ISSUER).rate(std::num::NonZeroU32::new(5).unwrap());
    let other = Transmitter::new(fleet.other_key.issuer(OTHER_TX)).subject_issuer(ISSUER);
    let events = EventsEndpoint::new([EVENTS_AUDIENCE], [tx, other], People).unwrap();
    let endpoints = Endpoints::new(revocations.clone()).events(events);
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let front = FrontLayer::new(check, endpoints).unwrap();
    let router = Router::new().fallback(|| async { "behind" }).layer(front.clone());
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let node = Node { address, revocations, front, key: Arc::clone(&fleet.key) };
    let mut limited = 0;
    for _ in 0..60 {
        let answer = node.push(&fleet.key.set(json!({}))).await;
        if answer.status == 429 {
            assert!(answer.header("retry-after").is_some());
            limited += 1;
        } else {
            assert_eq!(answer.status, 202);
        }
    }
    assert!(limited > 0);
    assert_eq!(node.push(&fleet.other_key.set(json!({"iss": OTHER_TX}))).await.status, 202);
    assert_eq!(node.front.endpoints().event_counts().unwrap().too_fast, limited);
}

#[tokio::test]
async fn endpoints_that_are_off_leave_their_path_to_the_service_behind() {
    let node = Fleet::new().node().await;
    for endpoint in [EndpointName::BackchannelLogout, EndpointName::Events] {
        node.front.endpoints().switches().set(endpoint, false);
    }
    assert_eq!(node.log_out(&logout_token(json!({}))).await.body, "behind");
    assert_eq!(
        node.push_with(&["content-type: application/secevent+jwt"], &node.key.set(json!({}))).await.body,
        "behind"
    );
    assert!(node.revocations.denylist().records() == 0);
}

// RFC 8936

/// The `Authorization` and the body of a request.
type Asked = (Option<String>, Value);

/// What a transmitter has to tell, and what it was asked.
#[derive(Clone, Default)]
struct Stream {
    sets: Arc<Mutex<Vec<(String, String)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

async fn polled(State(stream): State<Stream>, headers: http::HeaderMap, body: axum::body::Bytes) -> axum::Json<Value> {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let mut sets = stream.sets.lock().unwrap();
    let told = asked["ack"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let told: Vec<&str> =
        told.chain(asked["setErrs"].as_object().into_iter().flatten().map(|(jti, _)| jti.as_str())).collect();
    sets.retain(|(jti, _)| !told.contains(&jti.as_str()));
    stream.asked.lock().unwrap().push((authorization, asked.clone()));
    let sets: serde_json::Map<_, _> = sets.iter().map(|(jti, set)| (jti.clone(), json!(set))).collect();
    axum::Json(json!({ "sets": sets, "moreAvailable": false }))
}

#[tokio::test]
async fn polled_events_are_acknowledged_once_they_are_durable() {
    let fleet = Fleet::new();
    let node = fleet.node().await;
    let stream = Stream::default();
    let (listener, address) = listen().await;
    let router = Router::new().route("/poll", post(polled)).with_state(stream.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let good = fleet.key.set(json!({"jti": "good"}));
    let foreign =
        fleet.key.set(json!({"jti": "foreign", "sub_id": {"format": "jwt_id", "iss": OTHER_ISSUER, "jti": "t"}}));
    let others = fleet.other_key.set(
        json!({"jti": "others", "iss": OTHER_TX, "sub_id": {"format": "jwt_id", "iss": OTHER_ISSUER, "jti": "t"}}),
    );
    *stream.sets.lock().unwrap() = vec![
        ("good".to_owned(), good),
        ("foreign".to_owned(), foreign),
        ("others".to_owned(), others),
        ("bad".to_owned(), "x".to_owned()),
    ];
    fleet.backend.faults.publish.store(true, Ordering::SeqCst);
    let front = node.front.clone();
    let url = format!("http://{address}/poll");
    assert!(matches!(Poll::new(TX, &url).start(|| None).map(drop), Err(SendError::NotHttps { .. })));
    let polling = Poll::new(TX, &url).bearer("poll-secret").allow_http().start(move || front.event_receiver()).unwrap();
    let asked = || stream.asked.lock().unwrap().clone();
    let told = |name: &str, jti: &str| {
        asked().iter().find_map(|(_, asked)| match &asked[name] {
            Value::Array(all) => all.contains(&json!(jti)).then_some(Value::Bool(true)),
            all => all.get(jti).cloned(),
        })
    };
    eventually("what is refused is told", || async { told("setErrs", "foreign").is_some() }).await;
    assert_eq!(told("setErrs", "foreign").unwrap()["err"], "access_denied");
    assert_eq!(
        told("setErrs", "others").unwrap()["err"],
        "invalid_issuer",
        "a transmitter delivers its own events only"
    );
    assert_eq!(told("setErrs", "bad").unwrap()["err"], "invalid_request");
    assert!(told("ack", "good").is_none() && told("setErrs", "good").is_none(), "not recorded, not acknowledged");
    assert!(node.revocations.denylist().records() == 0);
    fleet.backend.faults.publish.store(false, Ordering::SeqCst);
    eventually("it is acknowledged", || async { told("ack", "good").is_some() }).await;
    assert!(node.refuses(json!({"jti": "a"})).await);
    assert!(asked().iter().all(|(authorization, asked)| {
        authorization.as_deref() == Some("Bearer poll-secret") && asked["maxEvents"] == 100
    }));
    eventually("it is counted", || async { polling.counts()[0] == ("acknowledged", 1) && polling.counts()[1].1 == 3 })
        .await;
}

// The sender

/// A client that is told: what it got, and what it answers.
#[derive(Clone)]
struct Told {
    got: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

async fn told(State(client): State<Told>, body: String) -> axum::response::Response {
    client.got.lock().unwrap().push(body.strip_prefix("logout_token=").unwrap().to_owned());
    let status = client.answers.lock().unwrap().pop().unwrap_or(200);
    axum::response::Response::builder()
        .status(status)
        .header("location", "/elsewhere")
        .body(axum::body::Body::empty())
        .unwrap()
}

struct Clients {
    address: SocketAddr,
    one: Told,
    two: Told,
}

impl Clients {
    async fn start() -> Self {
        let client = || Told { got: Arc::default(), answers: Arc::default() };
        let (one, two) = (client(), client());
        let router = Router::new()
            .merge(Router::new().route("/one", post(told)).with_state(one.clone()))
            .merge(Router::new().route("/two", post(told)).with_state(two.clone()));
        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, one, two }
    }

    fn sender(&self, key: &SigningKey) -> LogoutSender {
        let key = SigningKey::pem(PEM).unwrap().with_kid(key.kid());
        LogoutSender::new(ISSUER, key)
            .client("rp-1", format!("http://{}/one", self.address), false)
            .client("rp-2", format!("http://{}/two", self.address), true)
            .allow_http()
    }
}

/// A key of the tests.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDKmeoVt5cS1jWpqo497RVorXz5rP8XcWhyJ6oT28U7J\n-----END PRIVATE KEY-----\n";

fn count(notices: &LogoutNotices, name: &str) -> u64 {
    notices.counts().iter().find(|(known, _)| *known == name).unwrap().1
}

#[tokio::test]
async fn clients_are_told_with_tokens_that_the_receiver_takes() {
    let clients = Clients::start().await;
    let key = SigningKey::pem(PEM).unwrap();
    let notices = clients.sender(&key).start().unwrap();
    let fleet = Fleet::new();
    let hooked = notices.clone();
    let node =
        fleet.node_with(move |endpoints| endpoints.after_revocation(move |revoked| hooked.notify(revoked))).await;
    // It tries again where a client fails, but not where it refuses.
    *clients.one.answers.lock().unwrap() = vec![200, 503];
    node.tell(json!({"sub_id": {"format": "complex", "session": {"format": "opaque", "id": "s-1"}}})).await;
    eventually("both are told", || async { count(&notices, "delivered") == 2 }).await;
    assert_eq!((count(&notices, "retried"), clients.one.got.lock().unwrap().len()), (1, 2));
    node.tell(json!({})).await;
    eventually("of a user too", || async { count(&notices, "delivered") == 3 }).await;
    assert_eq!(clients.two.got.lock().unwrap().len(), 1, "it needs a sid");

    // Our own receiver takes them, for their audience only.
    let jwk = json!({"keys": [serde_json::from_str::<Value>(&key.public_jwk()).unwrap()]}).to_string();
    let us = || Issuer::new(ISSUER).algorithms([Algorithm::EdDSA]).keys(Keys::jwks(jwk.clone()));
    let revocations = common::revocations().await;
    let logout = BackchannelLogoutEndpoint::new(["rp-1"], [us()]).unwrap();
    let endpoints = Endpoints::new(revocations.clone()).backchannel_logout(logout);
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let front = FrontLayer::new(check, endpoints).unwrap();
    let router = Router::new().fallback(|| async { "behind" }).layer(front.clone());
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let rp = Node { address, revocations, front, key: fleet.key };
    let (session, user) = {
        let got = clients.one.got.lock().unwrap();
        (got[1].clone(), got[2].clone())
    };
    let others = clients.two.got.lock().unwrap()[0].clone();
    assert_eq!(rp.log_out(&others).await.status, 400, "another client's");
    assert_eq!(rp.log_out(&session).await.status, 200);
    assert!(rp.refuses(json!({"jti": "a", "sub": "bob", "sid": "s-1"})).await);
    assert_eq!(rp.log_out(&user).await.status, 200);
    assert!(rp.refuses(json!({"jti": "b"})).await);
}

#[tokio::test]
async fn a_sender_follows_no_redirect_and_gives_up_in_the_end() {
    let clients = Clients::start().await;
    let key = SigningKey::pem(PEM).unwrap();
    let notices = clients.sender(&key).attempts(2).start().unwrap();
    *clients.one.answers.lock().unwrap() = vec![302];
    notices.notify(&[Revocation::new(Scope::client_session(ISSUER, "s-1", "rp-1"))]);
    eventually("a redirect is a refusal", || async { count(&notices, "refused") == 1 }).await;
    *clients.one.answers.lock().unwrap() = vec![500, 500];
    notices.notify(&[Revocation::new(Scope::subject_client(ISSUER, "alice", "rp-1"))]);
    eventually("it gives up", || async { count(&notices, "given_up") == 1 }).await;
    notices
        .notify(&[Revocation::new(Scope::subject(OTHER_ISSUER, "alice")), Revocation::new(Scope::token(ISSUER, "t"))]);
    let full = clients.sender(&key).queue(0).start().unwrap();
    full.notify(&[Revocation::new(Scope::subject(ISSUER, "alice"))]);
    assert_eq!(count(&full, "dropped"), 1);
    assert_eq!((clients.one.got.lock().unwrap().len(), clients.two.got.lock().unwrap().len()), (3, 0));
    let plain =
        LogoutSender::new(ISSUER, SigningKey::pem(PEM).unwrap()).client("rp", "http://rp.example/logout", false);
    assert!(matches!(plain.start().map(drop), Err(SendError::NotHttps { .. })));
}

#[tokio::test]
async fn verdicts_of_the_handle_agree_with_what_sockets_say() {
    let node = Fleet::new().node().await;
    node.tell(json!({})).await;
    let identity = verifier().verify(&token(json!({"jti": "a", "iat": unix() - 5})), unix()).unwrap();
    assert!(matches!(node.revocations.check(&identity), Verdict::Deny(_)));
}
