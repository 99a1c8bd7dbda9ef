//! The revocation endpoint in front of axum and hyper, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

#[path = "common/faulty.rs"]
#[allow(unreachable_pub, dead_code)]
mod faulty;
#[path = "common/log.rs"]
#[allow(unreachable_pub)]
mod log;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, routing::get};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use faulty::Faulty;
use futures_util::future::{self, BoxFuture, FutureExt};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use log::Log;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_revocation::{
    Guard, RevocationLayer, Revocations,
    backend::{Backend, Memory},
    denylist::{Staleness, Verdict},
    endpoint::{
        Call, Client, ClientAuthenticator, ClientError, Clients, EndpointError, EndpointLayer, Endpoints, Presented,
        RegisteredClient, Responder, SecretMethod, TokenEndpoint, Unowned,
    },
    policy::Policy,
    sync::SyncConfig,
    token::{Claims, Identity, OpaqueKeys, Verifier, Verify, VerifyError},
};

const ISSUER: &str = "https://issuer.example/";
const OTHER_ISSUER: &str = "https://other.example/";
const FORM: &str = "content-type: application/x-www-form-urlencoded";

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

// Tokens: a toy of the shape of a JWT.

fn token(claims: Value) -> String {
    let mut all = json!({"iss": ISSUER, "sub": "alice", "client_id": "web", "iat": unix(), "exp": unix() + 600});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    let input = format!("toy.{}", URL_SAFE_NO_PAD.encode(all.to_string()));
    let mac = mac(&input);
    format!("{input}.{mac}")
}

fn mac(input: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("the toy's key {input}")))
}

struct Toy;

impl Verifier for Toy {
    fn verify(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        let identity = self.verify_expired(token, now)?;
        if identity.exp().unwrap() <= now { Err(VerifyError::Expired) } else { Ok(identity) }
    }

    fn verify_expired(&self, token: &str, _: u64) -> Result<Identity, VerifyError> {
        let (input, given) = token.rsplit_once('.').ok_or(VerifyError::Malformed)?;
        let payload = input.strip_prefix("toy.").ok_or(VerifyError::Malformed)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| VerifyError::Malformed)?;
        let claims: Value = serde_json::from_slice(&payload).map_err(|_| VerifyError::Malformed)?;
        if claims["key"] == "absent" {
            return Err(VerifyError::KeyNotAvailable);
        }
        if mac(input) != given {
            return Err(VerifyError::Signature);
        }
        let text = |name: &str| claims[name].as_str();
        let mut identity = Claims::new(text("iss").ok_or(VerifyError::UnknownIssuer)?);
        (identity.jti, identity.sid, identity.sub) = (text("jti"), text("sid"), text("sub"));
        identity.client_id = text("client_id");
        (identity.iat, identity.exp) = (claims["iat"].as_u64(), claims["exp"].as_u64());
        if identity.jti.is_none() && claims["nameless"] != true {
            identity.signing_input = Some(Sha256::digest(input).into());
        }
        Ok(Identity::from_verified(&identity))
    }

    fn epoch(&self) -> u64 {
        0
    }
}

// The server.

fn clients() -> Clients {
    let basic = |id, secret| RegisteredClient::confidential(id, secret, SecretMethod::Basic);
    Clients::new()
        .client(basic("web", "web's secret").issuers([ISSUER]))
        .and_then(|clients| clients.client(basic("other", "other's secret").issuers([ISSUER])))
        .and_then(|clients| {
            let post = RegisteredClient::confidential("post", "post's secret", SecretMethod::Post);
            clients.client(post.issuers([ISSUER]))
        })
        .and_then(|clients| clients.client(RegisteredClient::public("app").issuers([ISSUER])))
        .unwrap()
}

fn opaque_keys() -> OpaqueKeys {
    OpaqueKeys::new("k1", [7; 32]).unwrap()
}

fn config() -> SyncConfig {
    SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)))
}

struct Server {
    address: SocketAddr,
    revocations: Revocations,
}

impl Server {
    async fn start() -> Self {
        Self::with(Memory::new(), TokenEndpoint::new(Toy, clients())).await
    }

    async fn with(backend: impl Backend, endpoint: TokenEndpoint) -> Self {
        Self::configured(backend, endpoint, config()).await
    }

    async fn configured(backend: impl Backend, endpoint: TokenEndpoint, config: SyncConfig) -> Self {
        let revocations = Revocations::start(backend, config).await.unwrap();
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(Toy).opaque(opaque_keys()));
        let endpoints = Endpoints::new(revocations.clone()).token(endpoint);
        let layer = EndpointLayer::new(check, endpoints).unwrap();
        let router = Router::new().route("/", get(|| async { "in" })).fallback(|| async { "inner" }).layer(layer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, revocations }
    }

    /// The request as it is; the connection ends with the answer.
    async fn raw(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        answer(&mut stream).await
    }

    async fn send(&self, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        self.raw(request).await
    }

    async fn post(&self, headers: &[&str], body: &str) -> Answer {
        self.send("POST", "/oauth/revoke", &[&[FORM], headers].concat(), body).await
    }

    /// Revokes as the client `web`.
    async fn revoke(&self, token: &str) -> Answer {
        self.post(&[&web()], &form(&[("token", token)])).await
    }

    /// What the service behind says to a request with this token.
    async fn status(&self, token: &str) -> u16 {
        self.send("GET", "/", &[&format!("authorization: Bearer {token}")], "").await.status
    }

    fn records(&self) -> usize {
        self.revocations.denylist().records()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn error(&self) -> String {
        let json: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(self.header("content-type"), Some("application/json"));
        json["error"].as_str().unwrap().to_owned()
    }

    /// Every byte but the time.
    fn bytes(&self) -> String {
        let lines = self.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
        format!("{}\n\n{}", lines.collect::<Vec<_>>().join("\n"), self.body)
    }

    /// What holds for every answer of the endpoint.
    #[track_caller]
    fn assert(&self, status: u16, error: &str) {
        assert_eq!((self.status, self.error()), (status, error.to_owned()), "{}", self.body);
        self.assert_not_stored();
        assert_eq!(self.header("allow"), (status == 405).then_some("POST"));
        assert_eq!(self.header("retry-after"), (status == 503).then_some("1"));
        assert!(status == 401 || self.header("www-authenticate").is_none());
    }

    #[track_caller]
    fn assert_ok(&self) {
        assert_eq!((self.status, self.body.as_str()), (200, ""));
        self.assert_not_stored();
    }

    #[track_caller]
    fn assert_not_stored(&self) {
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("pragma"), Some("no-cache"));
    }
}

async fn answer(stream: &mut (impl AsyncReadExt + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{read:?}: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn encode(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

fn basic(id: &str, secret: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}

fn web() -> String {
    basic("web", "web's secret")
}

// What it does.

/// L1, L3: the answer 200 means that the very next request is refused.
#[tokio::test]
async fn a_revoked_token_is_refused_from_the_next_request_on() {
    let server = Server::start().await;
    let (one, other) = (token(json!({"jti": "1"})), token(json!({"jti": "2"})));
    assert_eq!(server.status(&one).await, 200);
    server.revoke(&one).await.assert_ok();
    assert_eq!((server.status(&one).await, server.status(&other).await), (401, 200));
}

/// F37: whatever there was to revoke, the answer is the same to the byte.
#[tokio::test]
async fn f37_unknown_garbage_and_revoked_tokens_are_answered_alike() {
    let server = Server::start().await;
    let live = token(json!({"jti": "1"}));
    let first = server.revoke(&live).await;
    first.assert_ok();
    let records = server.records();
    let forged = format!("{}x", token(json!({"jti": "2"})));
    let expired = token(json!({"jti": "3", "iat": unix() - 9000, "exp": unix() - 8000}));
    for again in [&live, "garbage", "a.b.c", "\u{1F600}", &forged, &expired] {
        assert_eq!(server.revoke(again).await.bytes(), first.bytes(), "{again}");
    }
    for hint in ["access_token", "refresh_token", "nonsense", ""] {
        let body = form(&[("token", &live), ("token_type_hint", hint), ("unknown", "x")]);
        assert_eq!(server.post(&[&web()], &body).await.bytes(), first.bytes(), "{hint}");
    }
    assert_eq!(server.records(), records);
}

/// Rule 13: all of the session at that client, and nothing of another client in the same session.
#[tokio::test]
async fn rule_13_a_sid_ends_the_session_at_this_client_only() {
    let server = Server::start().await;
    let access = token(json!({"jti": "a", "sid": "s"}));
    let refresh = token(json!({"jti": "r", "sid": "s"}));
    let later = token(json!({"jti": "l", "sid": "s", "iat": unix() + 1}));
    let others = token(json!({"jti": "o", "sid": "s", "client_id": "other"}));
    let elsewhere = token(json!({"jti": "e", "sid": "s2"}));
    server.revoke(&access).await.assert_ok();
    for dead in [&access, &refresh, &later] {
        assert_eq!(server.status(dead).await, 401);
    }
    for alive in [&others, &elsewhere] {
        assert_eq!(server.status(alive).await, 200);
    }
}

/// Rule 13: an expired token still says which session to end.
#[tokio::test]
async fn rule_13_an_expired_token_ends_its_session_at_its_client() {
    let server = Server::start().await;
    let expired = token(json!({"jti": "x", "sid": "s", "iat": unix() - 9000, "exp": unix() - 8000}));
    let live = token(json!({"jti": "a", "sid": "s"}));
    let others = token(json!({"jti": "o", "sid": "s", "client_id": "other"}));
    server.revoke(&expired).await.assert_ok();
    assert_eq!((server.status(&live).await, server.status(&others).await), (401, 200));
}

/// Rule 16: never a 200 without effect.
#[tokio::test]
async fn rule_16_a_token_without_jti_is_revoked_by_its_signing_input() {
    let server = Server::start().await;
    let (one, other) = (token(json!({})), token(json!({"sub": "bob"})));
    server.revoke(&one).await.assert_ok();
    assert_eq!((server.status(&one).await, server.status(&other).await), (401, 200));
    server.revoke(&token(json!({"nameless": true}))).await.assert(400, "unsupported_token_type");
}

/// F34: a client ends its own tokens only.
#[tokio::test]
async fn f34_tokens_of_others_stay() {
    let server = Server::start().await;
    let others = token(json!({"jti": "1", "client_id": "other"}));
    let others_session = token(json!({"jti": "2", "sid": "s", "client_id": "other"}));
    // Rule 14: a client of the same name at an issuer that is not ours.
    let namesakes = token(json!({"jti": "3", "iss": OTHER_ISSUER}));
    let nobodys = token(json!({"jti": "4", "client_id": null}));
    let first = server.revoke(&others).await;
    for foreign in [&others, &others_session, &namesakes, &nobodys] {
        let answer = server.revoke(foreign).await;
        answer.assert(400, "invalid_request");
        assert_eq!(answer.bytes(), first.bytes());
        assert_eq!(server.status(foreign).await, 200);
    }
    assert_eq!(server.records(), 0);
}

#[tokio::test]
async fn tokens_without_a_client_can_be_left_to_confidential_clients() {
    let endpoint = TokenEndpoint::new(Toy, clients()).unowned(Unowned::AllowConfidential);
    let server = Server::with(Memory::new(), endpoint).await;
    let nobodys = token(json!({"jti": "1", "sid": "s", "client_id": null}));
    let body = form(&[("token", &nobodys), ("client_id", "app")]);
    server.post(&[], &body).await.assert(400, "invalid_request");
    assert_eq!(server.status(&nobodys).await, 200);
    server.revoke(&nobodys).await.assert_ok();
    assert_eq!(server.status(&nobodys).await, 401);
    assert_eq!(server.status(&token(json!({"jti": "2", "sid": "s", "client_id": null}))).await, 200);
}

#[tokio::test]
async fn opaque_tokens_are_for_confidential_clients() {
    let server = Server::with(
        Memory::new(),
        TokenEndpoint::new(Toy, clients()).opaque(opaque_keys(), Duration::from_secs(24 * 60 * 60)),
    )
    .await;
    let from_app = form(&[("token", "an-opaque-token"), ("client_id", "app")]);
    let without_effect = server.post(&[], &from_app).await;
    without_effect.assert_ok();
    assert_eq!(server.status("an-opaque-token").await, 200);
    let revoked = server.revoke("an-opaque-token").await;
    assert_eq!(revoked.bytes(), without_effect.bytes());
    assert_eq!((server.status("an-opaque-token").await, server.status("another").await), (401, 200));

    // Without keys nothing is stored.
    let server = Server::start().await;
    server.revoke("an-opaque-token").await.assert_ok();
    assert_eq!(server.records(), 0);
}

/// Rule 4: a client fills its own quota only. Tokens beyond it still die, with their subject's at that client; an
/// opaque one names no subject, so that nothing is pretended.
#[tokio::test]
async fn rule_4_revocations_count_against_the_client() {
    let mut config = config();
    config.denylist.client_quota = 2;
    let endpoint = TokenEndpoint::new(Toy, clients()).opaque(opaque_keys(), Duration::from_secs(24 * 60 * 60));
    let server = Server::configured(Memory::new(), endpoint, config).await;
    for n in 0..4 {
        let token = token(json!({"jti": n.to_string(), "sub": n.to_string()}));
        server.revoke(&token).await.assert_ok();
        assert_eq!(server.status(&token).await, 401, "{n}");
    }
    for (sub, expected) in [("0", 200), ("3", 401)] {
        assert_eq!(server.status(&token(json!({"jti": "another", "sub": sub}))).await, expected, "{sub}");
    }
    for (token, expected) in [("opaque-1", 401), ("opaque-2", 401), ("opaque-3", 200)] {
        let answer = server.revoke(token).await;
        if expected == 401 {
            answer.assert_ok()
        } else {
            answer.assert(503, "temporarily_unavailable")
        }
        assert_eq!(server.status(token).await, expected, "{token}");
    }
}

// Who may ask.

/// F35: public clients revoke, by saying who they are.
#[tokio::test]
async fn f35_public_clients_can_revoke() {
    let server = Server::start().await;
    let apps = token(json!({"jti": "1", "client_id": "app"}));
    server.post(&[], &form(&[("token", &apps), ("client_id", "app")])).await.assert_ok();
    assert_eq!(server.status(&apps).await, 401);
}

#[tokio::test]
async fn client_secret_post() {
    let server = Server::start().await;
    let posts = token(json!({"jti": "1", "client_id": "post"}));
    let body = form(&[("token", &posts), ("client_id", "post"), ("client_secret", "post's secret")]);
    server.post(&[], &body).await.assert_ok();
    assert_eq!(server.status(&posts).await, 401);
}

/// Unknown, wrong secret, wrong method: nobody learns which, and nothing is revoked.
#[tokio::test]
async fn refused_clients_are_refused_alike() {
    let server = Server::start().await;
    let webs = token(json!({"jti": "1"}));
    let posts = |id, secret| form(&[("token", &webs), ("client_id", id), ("client_secret", secret)]);
    let alone = form(&[("token", &webs)]);
    let id_alone = |id| form(&[("token", &webs), ("client_id", id)]);
    let cases: Vec<(Vec<String>, String)> = vec![
        (vec![basic("web", "wrong")], alone.clone()),
        (vec![basic("web", "")], alone.clone()),
        (vec![basic("nobody", "web's secret")], alone.clone()),
        (vec![basic("post", "post's secret")], alone.clone()),
        (vec![basic("app", "")], alone.clone()),
        (vec![basic("app", "x")], alone.clone()),
        (vec!["authorization: Basic !".into()], alone.clone()),
        (vec!["authorization: Basic".into()], alone.clone()),
        (vec!["authorization: Digest x".into()], alone.clone()),
        (vec![], posts("web", "web's secret")),
        (vec![], posts("post", "wrong")),
        (vec![], posts("nobody", "x")),
        (vec![], posts("app", "x")),
        (vec![], id_alone("web")),
        (vec![], id_alone("post")),
        (vec![], id_alone("nobody")),
        (vec![], form(&[("token", &webs), ("client_secret", "web's secret")])),
        (vec![], form(&[("token", &webs), ("client_id", "web"), ("client_assertion", "a.b.c")])),
        (vec![], alone.clone()),
        (vec![], String::new()),
    ];
    let first = server.post(&[&basic("web", "wrong")], &alone).await;
    for (headers, body) in cases {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = server.post(&headers, &body).await;
        answer.assert(401, "invalid_client");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"revocation\""));
        assert_eq!(answer.bytes(), first.bytes(), "{headers:?} {body}");
    }
    assert_eq!(server.status(&webs).await, 200);
}

/// A challenge is for those who can answer it, and for those who tried (RFC 6749 §5.2).
#[tokio::test]
async fn basic_is_asked_for_only_where_it_is_accepted() {
    let public_only = Clients::new().client(RegisteredClient::public("app").any_issuer()).unwrap();
    let server = Server::with(Memory::new(), TokenEndpoint::new(Toy, public_only)).await;
    let answer = server.post(&[], "token=x&client_id=nobody").await;
    answer.assert(401, "invalid_client");
    assert_eq!(answer.header("www-authenticate"), None);
    let answer = server.post(&[&web()], "token=x").await;
    answer.assert(401, "invalid_client");
    assert!(answer.header("www-authenticate").is_some());
}

#[tokio::test]
async fn one_client_authentication_only() {
    let server = Server::start().await;
    let webs = token(json!({"jti": "1"}));
    let body = |fields: &[(&str, &str)]| form(&[&[("token", &*webs)], fields].concat());
    let web = web();
    let joined = format!("{web}, {}", web.trim_start_matches("authorization: "));
    for (headers, body) in [
        (vec![&*web, &*web], body(&[])),
        (vec![&*web, "authorization: Bearer x"], body(&[])),
        (vec![&*joined], body(&[])),
        (vec![&*web], body(&[("client_id", "web"), ("client_secret", "web's secret")])),
        (vec![&*web], body(&[("client_secret", "web's secret")])),
        (vec![&*web], body(&[("client_assertion", "a.b.c")])),
        (vec![&*web], body(&[("client_id", "other")])),
        (vec![], body(&[("client_id", "web"), ("client_secret", "x"), ("client_assertion", "a.b.c")])),
    ] {
        server.post(&headers, &body).await.assert(400, "invalid_request");
    }
    assert_eq!(server.status(&webs).await, 200);
    // The same client twice is no contradiction.
    server.post(&[&web], &body(&[("client_id", "web")])).await.assert_ok();
    assert_eq!(server.status(&webs).await, 401);
}

struct Unreachable;

impl ClientAuthenticator for Unreachable {
    fn authenticate<'a>(&'a self, _: &'a Presented, _: Call<'a>) -> BoxFuture<'a, Result<Client, ClientError>> {
        future::ready(Err(ClientError::Unavailable)).boxed()
    }
}

// Which requests it takes.

#[tokio::test]
async fn only_post() {
    let server = Server::start().await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        server.send(method, "/oauth/revoke", &[], "").await.assert(405, "invalid_request");
    }
}

#[tokio::test]
async fn only_plain_forms() {
    let server = Server::start().await;
    let body = "token=x&client_id=app";
    for headers in [
        &["content-type: application/json"][..],
        &[],
        &["content-type: application/x-www-form-urlencoded; charset=iso-8859-1"],
        &["content-type: application/x-www-form-urlencoded; charset=utf-7"],
        &["content-type: application/x-www-form-urlencoded; charset=utf-16"],
        &["content-type: application/x-www-form-urlencoded; charset=utf-8; charset=utf-7"],
        &["content-type: application/x-www-form-urlencoded; charset=utf-8, application/json"],
        &["content-type: application/x-www-form-urlencoded; charset"],
        &["content-type: application/x-www-form-urlencoded; boundary=x"],
        &[FORM, FORM],
        &[FORM, "content-encoding: gzip"],
        &[FORM, "content-encoding: identity", "content-encoding: gzip"],
    ] {
        server.send("POST", "/oauth/revoke", headers, body).await.assert(415, "invalid_request");
    }
    for utf8 in [
        "content-type: Application/x-www-form-urlencoded; Charset=\"UTF-8\"",
        "content-type: application/x-www-form-urlencoded; charset=utf-8",
        "content-type: application/x-www-form-urlencoded;charset=UTF-8",
    ] {
        server.send("POST", "/oauth/revoke", &[utf8, "content-encoding: identity"], body).await.assert_ok();
    }
}

/// Rule 17: what two parsers could read differently is refused, and nothing is revoked.
#[tokio::test]
async fn rule_17_ambiguous_forms_are_refused() {
    let server = Server::start().await;
    let webs = token(json!({"jti": "1"}));
    for body in [
        format!("token={webs}&token={webs}"),
        format!("token=&token={webs}"),
        format!("token={webs}&%74oken=x"),
        format!("token={webs}&x=1&x=1"),
        format!("token={webs}&client_id=web&client_id=web"),
        format!("token={webs};x=1"),
        format!("token={webs}&x=%"),
        format!("token={webs}&x=%FF"),
        format!("token={webs}&x=%00"),
        "token=%zz".to_owned(),
        "token=".to_owned(),
        "token".to_owned(),
        "token_type_hint=access_token".to_owned(),
        String::new(),
        format!("token={}", "x".repeat(16 * 1024 + 1)),
    ] {
        server.post(&[&web()], &body).await.assert(400, "invalid_request");
    }
    for target in ["/oauth/revoke?token=x", "/oauth/revoke?x", "/oauth/revoke?client_id=web"] {
        let answer = server.send("POST", target, &[FORM, &web()], &format!("token={webs}")).await;
        answer.assert(400, "invalid_request");
    }
    assert_eq!(server.status(&webs).await, 200);
}

/// F44: a path that someone else could take for the endpoint's reaches neither.
#[tokio::test]
async fn f44_ambiguous_paths_are_refused() {
    let server = Server::start().await;
    let webs = token(json!({"jti": "1"}));
    for target in [
        "/oauth/%72evoke",
        "/oauth/%2572evoke",
        "/oauth%2frevoke",
        "/oauth//revoke",
        "//oauth/revoke",
        "/oauth/revoke/",
        "/oauth/./revoke",
        "/oauth/x/../revoke",
        "/oauth/revoke;x",
        "/oauth\\revoke",
    ] {
        for method in ["POST", "GET"] {
            let answer = server.send(method, target, &[FORM, &web()], &format!("token={webs}")).await;
            answer.assert(400, "invalid_request");
        }
    }
    for target in ["/oauth", "/oauth/", "/oauth/revoke2", "/oauth/revoke/x", "/other/?a=%"] {
        assert_eq!(server.send("POST", target, &[FORM], "").await.body, "inner", "{target}");
    }
    assert_eq!(server.status(&webs).await, 200);
}

#[tokio::test]
async fn the_path_can_be_set() {
    let endpoint = TokenEndpoint::new(Toy, clients()).path("/jans-auth/restv1/revoke").unwrap();
    let server = Server::with(Memory::new(), endpoint).await;
    let body = "token=x&client_id=app";
    server.send("POST", "/jans-auth/restv1/revoke", &[FORM], body).await.assert_ok();
    assert_eq!(server.send("POST", "/oauth/revoke", &[FORM], body).await.body, "inner");
    let error = TokenEndpoint::new(Toy, clients()).path("/oauth//revoke").unwrap_err();
    assert_eq!(error, EndpointError::Path { path: "/oauth//revoke".to_owned() });
}

#[tokio::test]
async fn a_layer_over_another_denylist_is_refused() {
    let ours = Revocations::start(Memory::new(), config()).await.unwrap();
    let theirs = Revocations::start(Memory::new(), config()).await.unwrap();
    let check = RevocationLayer::new(theirs.denylist().clone(), Verify::new(Toy));
    assert_eq!(EndpointLayer::new(check, Endpoints::new(ours)).unwrap_err(), EndpointError::OtherDenylist);
}

/// What a proxy that is no tower service does.
#[tokio::test]
async fn a_door_without_a_service() {
    let revocations = Revocations::start(Memory::new(), config()).await.unwrap();
    let guard = Guard::new(revocations.denylist().clone(), Verify::new(Toy), Policy::default());
    let endpoints = Endpoints::new(revocations).token(TokenEndpoint::new(Toy, clients()));
    let responder = Responder::new(&guard, endpoints).unwrap();
    let token = token(json!({"client_id": "app", "jti": "1"}));
    let request = |path: &str, body: String| {
        let (name, value) = FORM.split_once(": ").unwrap();
        Request::post(path).header(name, value).body(Full::<Bytes>::from(body)).unwrap()
    };
    let (head, _) = Request::get("/").header("authorization", format!("Bearer {token}")).body(()).unwrap().into_parts();

    assert!(guard.check_parts(&head).is_ok());
    assert!(!responder.answers("/other"));
    assert!(responder.respond(request("/other", String::new())).await.is_none());
    assert!(responder.answers("/oauth//revoke"));
    assert_eq!(responder.respond(request("/oauth//revoke", String::new())).await.unwrap().status(), 400);
    assert!(responder.answers("/oauth/revoke"));
    let body = format!("client_id=app&token={token}");
    assert_eq!(responder.respond(request("/oauth/revoke", body)).await.unwrap().status(), 200);

    let denial = guard.denial(guard.check_parts(&head).unwrap_err(), &head.headers);
    assert_eq!((denial.status().as_u16(), denial.rejection.error()), (401, Some("invalid_token")));

    let theirs = Revocations::start(Memory::new(), config()).await.unwrap();
    assert_eq!(Responder::new(&guard, Endpoints::new(theirs)).unwrap_err(), EndpointError::OtherDenylist);
}

// Large and slow bodies.

#[tokio::test]
async fn large_bodies_are_refused_before_they_are_read() {
    let server = Server::start().await;
    let head = format!("POST /oauth/revoke HTTP/1.1\r\nhost: test\r\n{FORM}\r\ncontent-length: 65537\r\n\r\n");
    server.raw(head).await.assert(413, "invalid_request");
    let most = "x".repeat((64 << 10) - "client_id=app&token=".len());
    server.post(&[], &format!("client_id=app&token={most}")).await.assert(400, "invalid_request");
}

#[tokio::test]
async fn a_stream_of_100_mb_is_refused_and_cut_off() {
    const CHUNKS: usize = 1600;
    let server = Server::start().await;
    let (mut read, mut write) = TcpStream::connect(server.address).await.unwrap().into_split();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        let head = format!("POST /oauth/revoke HTTP/1.1\r\nhost: test\r\n{FORM}\r\ntransfer-encoding: chunked\r\n\r\n");
        write.write_all(head.as_bytes()).await?;
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(64 << 10));
        for _ in 0..CHUNKS {
            write.write_all(chunk.as_bytes()).await?;
            counted.fetch_add(1, Ordering::Relaxed);
        }
        write.write_all(b"0\r\n\r\n").await
    });
    answer(&mut read).await.assert(413, "invalid_request");
    let sending = tokio::time::timeout(Duration::from_secs(10), sending).await.unwrap().unwrap();
    assert!(sending.is_err(), "the connection was not closed");
    // What fits into the buffers of two sockets.
    assert!(sent.load(Ordering::Relaxed) < CHUNKS / 2);
}

/// 64 MB in frames of 64 KiB, unannounced; counts those that were asked for.
struct Large(Arc<AtomicUsize>);

impl http_body::Body for Large {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let more = self.0.fetch_add(1, Ordering::Relaxed) < 1000;
        Poll::Ready(more.then(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 64 << 10])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[tokio::test]
async fn no_more_is_read_than_the_limit() {
    let revocations = Revocations::start(Memory::new(), config()).await.unwrap();
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(Toy));
    let endpoints = Endpoints::new(revocations).token(TokenEndpoint::new(Toy, clients()));
    let inner = service_fn(|_: Request<Large>| async { Ok::<_, Infallible>(Response::new(Bytes::new())) });
    let service = EndpointLayer::new(check, endpoints).unwrap().layer(inner);
    let frames = Arc::new(AtomicUsize::new(0));
    let request = Request::post("/oauth/revoke")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Large(Arc::clone(&frames)))
        .unwrap();
    assert_eq!(service.oneshot(request).await.unwrap().status(), 413);
    assert_eq!(frames.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn slow_bodies_are_given_up() {
    let endpoint = TokenEndpoint::new(Toy, clients()).read_timeout(Duration::from_millis(50));
    let server = Server::with(Memory::new(), endpoint).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST /oauth/revoke HTTP/1.1\r\nhost: test\r\n{FORM}\r\ncontent-length: 100\r\n\r\ntoken=");
    stream.write_all(head.as_bytes()).await.unwrap();
    answer(&mut stream).await.assert(408, "invalid_request");
}

#[tokio::test]
async fn a_body_that_breaks_off_revokes_nothing() {
    let server = Server::start().await;
    let apps = token(json!({"jti": "1", "client_id": "app"}));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /oauth/revoke HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n";
    let body = format!("client_id=app&token={apps}");
    let request = format!("{head}{FORM}\r\n\r\n{:x}\r\n{body}\r\nnot a chunk\r\n", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 200"));
    assert_eq!(server.status(&apps).await, 200);
}

// What goes wrong behind it.

/// F33: nothing is pretended.
#[tokio::test]
async fn f33_what_was_not_recorded_is_not_answered_with_success() {
    let backend = Faulty::new(Memory::new());
    let server = Server::with(backend.clone(), TokenEndpoint::new(Toy, clients())).await;
    let webs = token(json!({"jti": "1", "sid": "s"}));
    backend.faults.publish.store(true, Ordering::Relaxed);
    server.revoke(&webs).await.assert(503, "temporarily_unavailable");
    assert_eq!(server.status(&webs).await, 200);
    backend.faults.publish.store(false, Ordering::Relaxed);
    server.revoke(&webs).await.assert_ok();
    assert_eq!(server.status(&webs).await, 401);
}

#[tokio::test]
async fn what_cannot_be_judged_now_is_worth_another_try() {
    let server = Server::start().await;
    server.revoke(&token(json!({"key": "absent"}))).await.assert(503, "temporarily_unavailable");
    let server = Server::with(Memory::new(), TokenEndpoint::new(Toy, Unreachable)).await;
    server.post(&[&web()], "token=x").await.assert(503, "temporarily_unavailable");
    server.revocations.shutdown().await;
}

#[tokio::test]
async fn after_the_shutdown_nothing_is_pretended() {
    let server = Server::start().await;
    server.revocations.shutdown().await;
    server.revoke(&token(json!({"jti": "1"}))).await.assert(503, "temporarily_unavailable");
}

// Everything else.

/// L9, F41: no token and no secret in a log, whatever is sent.
#[tokio::test]
async fn l9_no_token_and_no_secret_is_logged() {
    let log = Log::start();

    let server = Server::with(
        Memory::new(),
        TokenEndpoint::new(Toy, clients()).opaque(opaque_keys(), Duration::from_secs(24 * 60 * 60)),
    )
    .await;
    let webs = token(json!({"jti": "jti-hush", "sub": "sub-hush"}));
    let sessions = token(json!({"jti": "jti-hush", "sid": "sid-hush"}));
    let others = token(json!({"jti": "jti-hush", "client_id": "other"}));
    for token in [&webs, &sessions, &others, "opaque-hush", "a.b.hush"] {
        let _ = server.revoke(token).await;
        let _ = server.status(token).await;
        let _ = server.post(&[&basic("web", "secret-hush")], &form(&[("token", token)])).await;
        let _ = server.post(&[&basic("id-hush", "secret-hush")], &form(&[("token", token)])).await;
        let _ = server.post(&[], &form(&[("token", token), ("client_id", "web"), ("client_secret", "hush")])).await;
        let _ = server.post(&[], &format!("token={token}&token={token}")).await;
    }
    let log = log.text();
    for expected in
        ["recorded", "foreign_token", "malformed_token", "invalid_client", "duplicate_parameter", "client=\"web\""]
    {
        assert!(log.contains(expected), "{expected} not in {log}");
    }
    let web = web();
    let mac = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in
        ["hush", "web's secret", web.trim_start_matches("authorization: Basic "), &mac(&webs), &mac(&sessions)]
    {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// Around plain hyper: the body types stay as they are.
#[tokio::test]
async fn around_a_plain_hyper_service() {
    let revocations = Revocations::start(Memory::new(), config()).await.unwrap();
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(Toy));
    let endpoints = Endpoints::new(revocations.clone()).token(TokenEndpoint::new(Toy, clients()));
    let inner = service_fn(|_: Request<hyper::body::Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"in"))))
    });
    let service = TowerToHyperService::new(EndpointLayer::new(check, endpoints).unwrap().layer(inner));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    let server = Server { address, revocations };
    let webs = token(json!({"jti": "1"}));
    assert_eq!(server.status(&webs).await, 200);
    server.revoke(&webs).await.assert_ok();
    assert_eq!(server.status(&webs).await, 401);
    let identity = Toy.verify(&webs, unix()).unwrap();
    assert!(matches!(server.revocations.check(&identity), Verdict::Deny(_)));
}

/// L3: "revoked" is true of the presented token itself, also for a check that reads neither its session nor its client.
#[tokio::test]
async fn l3_the_presented_token_itself_is_revoked() {
    let server = Server::start().await;
    let token = token(json!({"jti": "1", "sid": "s"}));
    server.revoke(&token).await.assert_ok();
    let now = server.revocations.denylist().now().unix();
    let bare = Identity::from_verified(&Claims::new(ISSUER).jti("1").iat(now).exp(now + 60));
    assert!(matches!(server.revocations.check(&bare), Verdict::Deny(_)));
}
