//! The recorder in front of an authorization server's token endpoint, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    slice::from_ref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use common::{Answer, ISSUER, eventually, raw, token, verifier};
use futures_util::future::{BoxFuture, FutureExt};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{Backend, BackendError, BackendErrorKind, Memory},
    endpoint::{Clients, Endpoints, FrontLayer, RegisteredClient, SecretMethod, TokenEndpoint},
    recorder::{Ended, Grant, Member, MemoryStore, Recorded, Recorder, RecorderStore, Replay},
    revocation::{Lifetimes, Revocation, Scope},
    sync::SyncConfig,
    time::ManualClock,
    token::{OpaqueKeys, Verify},
};

/// What the authorization server got and answers.
#[derive(Clone)]
struct Behind {
    seen: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    answers: Arc<Mutex<VecDeque<Response>>>,
    /// A permit for each answer that it may give.
    gate: Arc<Semaphore>,
}

impl Behind {
    async fn token(self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        self.seen.lock().unwrap().push((head.headers, body));
        let answer = self.answers.lock().unwrap().pop_front();
        self.gate.acquire().await.unwrap().forget();
        answer.unwrap_or_else(|| Response::builder().status(500).body(Body::from("no answer was set")).unwrap())
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn answers(&self, json: Value) {
        let answer = Response::builder().header("content-type", "application/json;charset=UTF-8");
        self.raw_answer(answer.header("cache-control", "no-store").body(Body::from(json.to_string())).unwrap());
    }

    fn raw_answer(&self, answer: Response) {
        self.answers.lock().unwrap().push_back(answer);
    }
}

struct Server {
    address: SocketAddr,
    behind: Behind,
    revocations: Revocations,
    recorder: Recorder,
}

fn keys() -> OpaqueKeys {
    OpaqueKeys::new("k1", [7; 32]).unwrap()
}

/// `app:secret`, `other:secret`, `desk:secret` and `elsewhere:secret`.
const APP: &str = "authorization: Basic YXBwOnNlY3JldA==";
const OTHER: &str = "authorization: Basic b3RoZXI6c2VjcmV0";
const DESK: &str = "authorization: Basic ZGVzazpzZWNyZXQ=";
const ELSEWHERE: &str = "authorization: Basic ZWxzZXdoZXJlOnNlY3JldA==";
const FORM: &str = "content-type: application/x-www-form-urlencoded";

impl Server {
    async fn start() -> Self {
        Self::with(|recorder| recorder).await
    }

    async fn with(configure: impl FnOnce(Recorder) -> Recorder) -> Self {
        Self::on(Memory::new(), MemoryStore::new(), configure).await
    }

    async fn on(
        backend: impl Backend,
        store: impl RecorderStore,
        configure: impl FnOnce(Recorder) -> Recorder,
    ) -> Self {
        Self::in_time(backend, store, configure, common::config()).await
    }

    async fn in_time(
        backend: impl Backend,
        store: impl RecorderStore,
        configure: impl FnOnce(Recorder) -> Recorder,
        config: SyncConfig,
    ) -> Self {
        Self::answering(backend, store, configure, config, |endpoint| endpoint).await
    }

    async fn answering(
        backend: impl Backend,
        store: impl RecorderStore,
        configure: impl FnOnce(Recorder) -> Recorder,
        config: SyncConfig,
        settings: impl FnOnce(TokenEndpoint) -> TokenEndpoint,
    ) -> Self {
        let revocations = Revocations::start(backend, config).await.unwrap();
        let recorder = configure(Recorder::new(revocations.clone(), store, keys(), ISSUER));
        let basic = |id, secret| RegisteredClient::confidential(id, secret, SecretMethod::Basic).issuers([ISSUER]);
        let clients =
            Clients::new().client(basic("app", "secret")).and_then(|all| all.client(basic("other", "secret")));
        let public = RegisteredClient::public("public").issuers([ISSUER]);
        let desk = |id, issuer| {
            RegisteredClient::confidential(id, "secret", SecretMethod::Basic)
                .issuers([issuer])
                .scopes(["revoke_any_token"])
        };
        let clients = clients.and_then(|all| all.client(public));
        let clients = clients.and_then(|all| all.client(desk("desk", ISSUER)));
        let clients = clients.and_then(|all| all.client(desk("elsewhere", "https://elsewhere.example/"))).unwrap();
        let source = Verify::new(verifier()).opaque(keys());
        let check = RevocationLayer::new(revocations.denylist().clone(), source);
        let endpoint = TokenEndpoint::new(verifier(), clients).opaque(keys(), Duration::from_secs(24 * 60 * 60));
        let endpoints = Endpoints::new(revocations.clone()).token(settings(endpoint));
        let layer = FrontLayer::new(check, endpoints).unwrap().recorder(recorder.clone(), "/oauth/token").unwrap();
        let behind = Behind {
            seen: Arc::default(),
            answers: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        let inner = behind.clone();
        let router = Router::new()
            .route("/api", axum::routing::get(|| async { "in" }))
            .fallback(move |request| inner.clone().token(request))
            .layer(layer);
        let (listener, address) = common::listen().await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, behind, revocations, recorder }
    }

    fn request(target: &str, headers: &[&str], body: &str) -> String {
        let mut request = format!("POST {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{FORM}\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request + &format!("content-length: {}\r\n\r\n{body}", body.len())
    }

    async fn token(&self, body: &str) -> Answer {
        raw(self.address, Self::request("/oauth/token", &[APP], body)).await
    }

    /// A token request whose answer is awaited later.
    fn asking(&self, body: &str) -> tokio::task::JoinHandle<Answer> {
        let (address, request) = (self.address, Self::request("/oauth/token", &[APP], body));
        tokio::spawn(async move { raw(address, request).await })
    }

    async fn issue(&self, answer: Value) {
        self.behind.answers(answer.clone());
        let given = self.token("grant_type=authorization_code&code=x").await;
        assert_eq!((given.status, given.body), (200, answer.to_string()));
    }

    async fn refresh(&self, token: &str, answer: Value) -> Answer {
        self.behind.answers(answer);
        self.ask_refresh(token).await
    }

    async fn ask_refresh(&self, token: &str) -> Answer {
        self.token(&format!("grant_type=refresh_token&refresh_token={token}")).await
    }

    async fn revoke(&self, token: &str) -> u16 {
        self.revoke_as(APP, token).await
    }

    async fn revoke_as(&self, client: &str, token: &str) -> u16 {
        raw(self.address, Self::request("/oauth/revoke", &[client], &format!("token={token}"))).await.status
    }

    async fn issue_to(&self, client: &str, answer: Value) {
        self.behind.answers(answer);
        let request = Self::request("/oauth/token", &[client], "grant_type=authorization_code&code=x");
        assert_eq!(raw(self.address, request).await.status, 200);
    }

    fn records(&self) -> usize {
        self.revocations.denylist().records()
    }

    async fn api(&self, token: &str) -> u16 {
        common::get(self.address, "/api", &[&format!("authorization: Bearer {token}")]).await.status
    }

    /// The refresh is refused before the server behind sees it.
    async fn assert_refused(&self, refresh_token: &str, error: &str) {
        let calls = self.behind.calls();
        let answer = self.ask_refresh(refresh_token).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap()["error"], error);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(self.behind.calls(), calls, "behind saw it");
    }
}

fn opaque(n: u32) -> Value {
    json!({"access_token": format!("a{n}"), "token_type": "Bearer", "expires_in": 600, "refresh_token": format!("r{n}")})
}

// ---- one grant, one end

#[tokio::test]
async fn revoking_one_opaque_token_ends_its_grant() {
    for revoked in ["a1", "r1", "a2", "r2"] {
        let server = Server::start().await;
        server.issue(opaque(1)).await;
        server.issue(json!({"access_token": "b1", "refresh_token": "s1"})).await;
        assert_eq!(server.refresh("r1", opaque(2)).await.body, opaque(2).to_string());
        assert_eq!((server.api("a1").await, server.api("a2").await), (200, 200));

        assert_eq!(server.revoke(revoked).await, 200);
        assert_eq!((server.api("a1").await, server.api("a2").await), (401, 401), "{revoked}");
        server.assert_refused("r1", "invalid_grant").await;
        server.assert_refused("r2", "invalid_grant").await;

        assert_eq!(server.api("b1").await, 200, "another grant goes on");
        assert_eq!(server.refresh("s1", json!({"access_token": "b2"})).await.status, 200);
    }
}

#[tokio::test]
async fn revoking_one_jwt_without_a_session_ends_its_grant() {
    for revoked in 0..4 {
        let server = Server::with(|recorder| recorder.verifier(verifier())).await;
        let (one, two) = (token(json!({"jti": "1"})), token(json!({"jti": null, "n": 2})));
        // Not for us: the verifier does not accept it.
        let refresh = token(json!({"jti": "r", "aud": "someone else"}));
        server.issue(json!({"access_token": one, "refresh_token": "r1"})).await;
        assert_eq!(server.refresh("r1", json!({"access_token": two, "refresh_token": refresh})).await.status, 200);
        assert_eq!((server.api(&one).await, server.api(&two).await), (200, 200));
        assert_eq!(server.revoke([&one, &two, "r1", &refresh][revoked]).await, 200);
        assert_eq!((server.api(&one).await, server.api(&two).await), (401, 401), "{revoked}");
        server.assert_refused("r1", "invalid_grant").await;
        server.assert_refused(&refresh, "invalid_grant").await;
    }
}

#[tokio::test]
async fn a_session_ends_the_grants_in_it() {
    let server = Server::start().await;
    let one = token(json!({"jti": "1", "sid": "s"}));
    server.issue(json!({"access_token": one, "refresh_token": "r1"})).await;
    server.issue(json!({"access_token": "a2", "refresh_token": "r2", "id_token": token(json!({"sid": "s"}))})).await;
    assert_eq!(server.revoke(&one).await, 200);
    assert_eq!((server.api(&one).await, server.api("a2").await), (401, 401));
    server.assert_refused("r1", "invalid_grant").await;
    server.assert_refused("r2", "invalid_grant").await;
}

/// RFC 7009 §2.1: a token of another client is refused, and nothing happens to it.
#[tokio::test]
async fn nobody_elses_grant_ends() {
    let server = Server::start().await;
    server.issue(opaque(1)).await;
    for token in ["a1", "r1"] {
        let answer = raw(server.address, Server::request("/oauth/revoke", &[OTHER], &format!("token={token}"))).await;
        assert_eq!((answer.status, answer.body.contains("invalid_request")), (400, true), "{}", answer.body);
    }
    assert_eq!(server.api("a1").await, 200);
    assert_eq!(server.refresh("r1", opaque(2)).await.status, 200);
}

/// Janssen's `allowRevokeForOtherClients`, for tokens that say nothing.
#[tokio::test]
async fn a_client_with_the_scope_ends_grants_of_others_where_that_is_on() {
    for on in [false, true] {
        let allow = |endpoint: TokenEndpoint| endpoint.allow_other_clients(on);
        let server = Server::answering(Memory::new(), MemoryStore::new(), |all| all, common::config(), allow).await;
        server.issue(opaque(1)).await;
        assert_eq!(server.revoke_as(OTHER, "r1").await, 400, "without the scope");
        assert_eq!(server.revoke_as(ELSEWHERE, "r1").await, 400, "at another issuer");
        assert_eq!(server.api("a1").await, 200);
        assert_eq!(server.revoke_as(DESK, "r1").await, if on { 200 } else { 400 });
        assert_eq!(server.api("a1").await, if on { 401 } else { 200 });
        if on {
            server.assert_refused("r1", "invalid_grant").await;
        }
    }
}

#[tokio::test]
async fn all_tokens_of_a_client_are_those_that_the_recorder_knows_too() {
    let allow = |endpoint: TokenEndpoint| endpoint.allow_all([ISSUER]);
    let server = Server::answering(Memory::new(), MemoryStore::new(), |all| all, common::config(), allow).await;
    server.issue(opaque(1)).await;
    server.issue(opaque(2)).await;
    server.issue_to(OTHER, opaque(3)).await;
    assert_eq!(server.revoke("all").await, 200);
    assert_eq!((server.api("a1").await, server.api("a2").await, server.api("a3").await), (401, 401, 200));
    server.assert_refused("r1", "invalid_grant").await;
    // The client's cutoff and two access tokens.
    assert_eq!(server.records(), 3);
}

#[tokio::test]
async fn a_public_client_ends_its_own_grant() {
    let server = Server::start().await;
    server.behind.answers(opaque(1));
    let request = Server::request("/oauth/token", &[], "grant_type=authorization_code&code=x&client_id=public");
    assert_eq!(raw(server.address, request).await.status, 200);
    server.issue(opaque(2)).await;
    let revoke = |token| raw(server.address, Server::request("/oauth/revoke", &[], token));
    assert_eq!(revoke("token=r2&client_id=public").await.status, 400);
    assert_eq!(revoke("token=r1&client_id=public").await.status, 200);
    assert_eq!((server.api("a1").await, server.api("a2").await), (401, 200));
    server.assert_refused("r1", "invalid_grant").await;
    // Nobody's token: nothing is stored for who proves nothing.
    let records = server.revocations.denylist().records();
    assert_eq!(revoke("token=made-up&client_id=public").await.status, 200);
    assert_eq!(server.revocations.denylist().records(), records);
}

/// Who makes up a refresh token with the name of another one's reaches nothing.
#[tokio::test]
async fn a_forged_refresh_token_names_nobody() {
    let server = Server::with(|recorder| recorder.replay(Replay::TokenAuthority)).await;
    let refresh = token(json!({"jti": "r"}));
    server.issue(json!({"access_token": "a1", "refresh_token": refresh})).await;
    assert_eq!(server.refresh(&refresh, json!({"access_token": "a2", "refresh_token": "r2"})).await.status, 200);
    let forged = common::signed("{}", &json!({"iss": ISSUER, "jti": "r"}).to_string());
    server.assert_refused(&forged, "invalid_grant").await;
    assert_eq!(server.api("a2").await, 200);
}

// ---- cutoffs and what was never seen

/// Rule 10: a user who was logged out does not come back by a refresh.
#[tokio::test]
async fn rule_10_a_refresh_does_not_survive_a_cutoff() {
    let subject = Scope::subject(ISSUER, "alice");
    for scope in [subject, Scope::client(ISSUER, "app"), Scope::session(ISSUER, "s"), Scope::issuer(ISSUER)] {
        let server = Server::start().await;
        let one = token(json!({"jti": "1", "sid": "s"}));
        server.issue(json!({"access_token": one, "refresh_token": "r1"})).await;
        let _ = server.revocations.revoke(Revocation::new(scope)).await.unwrap();
        server.assert_refused("r1", "invalid_grant").await;
    }
}

#[tokio::test]
async fn rule_10_a_refresh_of_unknown_origin() {
    let server = Server::start().await;
    server.assert_refused("never-seen", "invalid_grant").await;
    server.issue(opaque(1)).await;
    server.assert_refused("a1", "invalid_grant").await;

    let server = Server::with(|recorder| recorder.adopt_unknown(true)).await;
    assert_eq!(server.refresh("old", opaque(1)).await.status, 200);
    assert_eq!(server.revoke("r1").await, 200);
    assert_eq!(server.api("a1").await, 401);
    assert_eq!(server.revoke("older").await, 200);
    server.assert_refused("older", "invalid_grant").await;
}

const DAY: u64 = 24 * 60 * 60;

/// A server whose clock is turned by hand, and what turns it.
async fn with_clock(lifetimes: impl FnOnce(Lifetimes) -> Lifetimes) -> (Server, impl AsyncFn(u64)) {
    let clock = Arc::new(ManualClock::at(common::unix()));
    let mut config = common::config();
    config.denylist.clock = clock.clone();
    config.denylist.lifetimes = lifetimes(config.denylist.lifetimes);
    let server = Server::in_time(Memory::new(), MemoryStore::new(), |recorder| recorder, config).await;
    let revocations = server.revocations.clone();
    let pass = async move |seconds| {
        clock.advance(Duration::from_secs(seconds));
        eventually("in step", || async { revocations.denylist().not_ready().is_none() }).await;
        revocations.denylist().maintain();
    };
    (server, pass)
}

/// Rule 10: a cutoff that is made in code is kept for as long as there can be refresh tokens.
#[tokio::test]
async fn rule_10_a_cutoff_made_in_code_outlives_every_refresh_token() {
    let refresh = |lifetimes: Lifetimes| lifetimes.max_refresh_lifetime(Duration::from_secs(30 * DAY));
    let scopes = [
        Scope::subject(ISSUER, "alice"),
        Scope::subject_client(ISSUER, "alice", "app"),
        Scope::session(ISSUER, "s"),
        Scope::client_session(ISSUER, "s", "app"),
        Scope::client(ISSUER, "app"),
        Scope::issuer(ISSUER),
    ];
    futures_util::future::join_all(scopes.map(async |scope| {
        let (server, pass) = with_clock(refresh).await;
        let (alice, bob) = (token(json!({"sid": "s"})), token(json!({"sub": "bob", "client_id": "other"})));
        server.issue(json!({"access_token": alice, "refresh_token": "r1"})).await;
        server.issue_to(OTHER, json!({"access_token": bob, "refresh_token": "r2"})).await;
        let _ = server.revocations.revoke(Revocation::new(scope.clone())).await.unwrap();
        for days in [1, 28] {
            pass(days * DAY + 900).await;
            server.assert_refused("r1", "invalid_grant").await;
        }
        if scope != Scope::issuer(ISSUER) {
            assert_eq!(server.refresh("r2", json!({"access_token": "b2"})).await.status, 200, "{scope:?}");
        }
        // Whichever leaves first, the token or the cutoff.
        pass(DAY).await;
        server.assert_refused("r1", "invalid_grant").await;
        pass(DAY).await;
        server.assert_refused("r1", "invalid_grant").await;
    }))
    .await;
}

/// Rule 10: a refresh token that lives longer than cutoffs are kept is forgotten, hence refused.
#[tokio::test]
async fn rule_10_refresh_tokens_have_a_bound_of_their_own() {
    let (server, pass) = with_clock(|lifetimes| lifetimes).await;
    let forever = token(json!({"jti": "r", "exp": common::unix() + 90 * DAY}));
    for (n, refresh) in [forever.as_str(), "opaque"].into_iter().enumerate() {
        server
            .issue(json!({
                "access_token": format!("a{n}"), "refresh_token": refresh, "refresh_expires_in": 90 * DAY,
            }))
            .await;
    }
    pass(DAY - 900).await;
    assert_eq!(server.refresh(&forever, json!({"access_token": "b"})).await.status, 200);
    pass(900 + 900).await;
    server.assert_refused(&forever, "invalid_grant").await;
    server.assert_refused("opaque", "invalid_grant").await;
}

/// A grant that ended by one of its tokens stays dead for as long, whatever the store says.
#[tokio::test]
async fn a_grant_that_has_ended_is_in_the_denylist() {
    let server = Server::start().await;
    server.issue(json!({"access_token": token(json!({"sid": "s"})), "refresh_token": "r1"})).await;
    let grant = server.recorder.family_of("r1").await.unwrap().unwrap();
    let _ = server.revocations.revoke(Revocation::new(Scope::session(ISSUER, &grant.id))).await.unwrap();
    server.assert_refused("r1", "invalid_grant").await;
    server.issue(opaque(2)).await;
    let grant = server.recorder.family_of("r2").await.unwrap().unwrap();
    assert_eq!(server.revoke("a2").await, 200);
    assert_eq!(server.revocations.revocations_of(&Scope::session(ISSUER, &grant.id)).len(), 1);
}

// ---- replay

#[tokio::test]
async fn a_replay_ends_the_grant() {
    for (replay, error) in [(Replay::EndsGrant, "invalid_grant"), (Replay::TokenAuthority, "invalid_request")] {
        let server = Server::with(|recorder| recorder.replay(replay)).await;
        server.issue(opaque(1)).await;
        assert_eq!(server.refresh("r1", opaque(2)).await.status, 200);
        assert_eq!((server.api("a1").await, server.api("a2").await), (200, 200));
        server.assert_refused("r1", error).await;
        assert_eq!((server.api("a1").await, server.api("a2").await), (401, 401));
        server.assert_refused("r2", "invalid_grant").await;
    }
}

#[tokio::test]
async fn a_token_that_is_not_rotated_may_be_used_again() {
    let server = Server::with(|recorder| recorder.replay(Replay::EndsGrant)).await;
    server.issue(opaque(1)).await;
    for n in 2..4 {
        assert_eq!(server.refresh("r1", json!({"access_token": format!("a{n}")})).await.status, 200);
        let same = json!({"access_token": format!("b{n}"), "refresh_token": "r1"});
        assert_eq!(server.refresh("r1", same).await.status, 200);
    }
    assert_eq!(server.revoke("a3").await, 200);
    assert_eq!((server.api("a1").await, server.api("b2").await), (401, 401));
}

/// What expires is forgotten; a refresh token that is not rotated lives on by its use.
#[tokio::test]
async fn what_has_expired_is_forgotten() {
    let start = common::unix();
    let clock = Arc::new(ManualClock::at(start));
    let mut config = common::config();
    config.denylist.clock = clock.clone();
    let lifetime = |recorder: Recorder| recorder.refresh_lifetime(Duration::from_secs(1000));
    let server = Server::in_time(Memory::new(), MemoryStore::new(), lifetime, config).await;
    let pass = async |seconds| {
        clock.advance(Duration::from_secs(seconds));
        eventually("in step", || async { server.revocations.denylist().not_ready().is_none() }).await;
    };
    server.issue(opaque(1)).await;
    server.issue(opaque(9)).await;
    pass(900).await;
    assert_eq!(server.refresh("r1", json!({"access_token": "a2", "expires_in": 600})).await.status, 200);
    assert_eq!(server.recorder.family_of("r1").await.unwrap().unwrap().expires, start + 1900);
    pass(600).await;
    server.issue(opaque(8)).await;
    eventually("a1 is forgotten", || async { server.recorder.family_of("a1").await.unwrap().is_none() }).await;
    assert_eq!(server.refresh("r1", json!({"access_token": "a3"})).await.status, 200);
    server.assert_refused("r9", "invalid_grant").await;
}

#[tokio::test]
async fn replay_is_the_servers_business_by_default() {
    let server = Server::start().await;
    server.issue(opaque(1)).await;
    for n in 2..4 {
        assert_eq!(server.refresh("r1", opaque(n)).await.status, 200);
    }
    assert_eq!(server.revoke("r3").await, 200);
    assert_eq!(server.api("a2").await, 401, "still one grant");
}

#[tokio::test]
async fn token_authority_ends_the_grant_of_a_token_that_another_client_presents() {
    let server = Server::with(|recorder| recorder.replay(Replay::TokenAuthority).refresh_ends_access(true)).await;
    server.issue(opaque(1)).await;
    assert_eq!(server.refresh("r1", opaque(2)).await.status, 200);
    assert_eq!((server.api("a1").await, server.api("a2").await), (401, 200), "refreshed");
    let body = "grant_type=refresh_token&refresh_token=r2";
    let answer = raw(server.address, Server::request("/oauth/token", &[OTHER], body)).await;
    assert_eq!((answer.status, answer.body.contains("invalid_request")), (400, true));
    assert_eq!(server.api("a2").await, 401);
}

/// Two at once: the server behind may let both through, the recorder does not.
#[tokio::test]
async fn two_uses_at_once_are_a_replay() {
    let server = Server::with(|recorder| recorder.replay(Replay::EndsGrant)).await;
    server.issue(opaque(1)).await;
    let gate = &server.behind.gate;
    gate.forget_permits(Semaphore::MAX_PERMITS);
    server.behind.answers(opaque(2));
    server.behind.answers(opaque(3));
    let body = "grant_type=refresh_token&refresh_token=r1";
    let (one, two) = (server.asking(body), server.asking(body));
    eventually("both are behind", || async { server.behind.calls() == 3 }).await;
    gate.add_permits(2);
    let mut statuses = [one.await.unwrap().status, two.await.unwrap().status];
    statuses.sort_unstable();
    // The loser ends the grant, and may do so before the winner's answer is released.
    assert!(statuses == [200, 400] || statuses == [400, 503], "{statuses:?}");
    for token in ["a1", "a2", "a3"] {
        if server.recorder.family_of(token).await.unwrap().is_some() {
            assert_eq!(server.api(token).await, 401, "{token}");
        }
    }
}

// ---- races and failures

/// F30: a revocation while a refresh is under way ends what the refresh brings.
#[tokio::test]
async fn f30_a_refresh_does_not_outrun_a_revocation() {
    for revoke_all in [false, true] {
        let server = Server::start().await;
        let one = token(json!({"jti": "1"}));
        server.issue(json!({"access_token": one, "refresh_token": "r1"})).await;
        server.behind.gate.forget_permits(Semaphore::MAX_PERMITS);
        server.behind.answers(opaque(2));
        let asking = server.asking("grant_type=refresh_token&refresh_token=r1");
        eventually("it is behind", || async { server.behind.calls() == 2 }).await;
        if revoke_all {
            let _ = server.revocations.revoke(Revocation::new(Scope::subject(ISSUER, "alice"))).await.unwrap();
        } else {
            assert_eq!(server.revoke("r1").await, 200);
        }
        server.behind.gate.add_permits(1);
        let answer = asking.await.unwrap();
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.body);
        assert!(!answer.body.contains("a2"), "not released");
        server.assert_refused("r1", "invalid_grant").await;
        if revoke_all {
            assert_eq!(server.api("a2").await, 401, "it was issued, and is dead");
        }
    }
}

/// F30: what was asked for before a cutoff is not issued after it, however long the answer takes.
#[tokio::test]
async fn f30_an_answer_that_takes_long_does_not_outrun_a_cutoff() {
    for scope in [Scope::client(ISSUER, "app"), Scope::issuer(ISSUER)] {
        let (server, pass) = with_clock(|lifetimes| lifetimes).await;
        server.behind.gate.forget_permits(Semaphore::MAX_PERMITS);
        server.behind.answers(opaque(1));
        let asking = server.asking("grant_type=authorization_code&code=x");
        eventually("it is behind", || async { server.behind.calls() == 1 }).await;
        let _ = server.revocations.revoke(Revocation::new(scope)).await.unwrap();
        pass(2).await;
        server.behind.gate.add_permits(1);
        let answer = asking.await.unwrap();
        assert_eq!((answer.status, answer.body.contains("a1")), (503, false), "{}", answer.body);
        server.assert_refused("r1", "invalid_grant").await;
        assert_eq!(server.api("a1").await, 401, "it was issued, and is dead");
        // A login after it works.
        server.behind.gate.add_permits(1);
        server.issue(opaque(2)).await;
        assert_eq!(server.api("a2").await, 200);
    }
}

/// Rule 4: who logs in again and again in a session that has ended leaves room for others to revoke.
#[tokio::test]
async fn rule_4_logins_in_a_dead_session_do_not_fill_the_list() {
    let mut config = common::config();
    config.denylist.budget = 21;
    let server = Server::in_time(Memory::new(), MemoryStore::new(), |recorder| recorder, config).await;
    let _ = server.revocations.revoke(Revocation::new(Scope::session(ISSUER, "s"))).await.unwrap();
    for n in 0..20 {
        let access = token(json!({"sid": "s", "jti": n.to_string()}));
        server.behind.answers(json!({"access_token": access, "refresh_token": format!("r{n}")}));
        assert_eq!(server.token("grant_type=authorization_code&code=x").await.status, 503);
    }
    let _ = server.revocations.revoke(Revocation::new(Scope::subject(ISSUER, "bob"))).await.unwrap();
}

/// Rule 4: where a quota widens a decision, what no longer reaches all of a grant is no success.
#[tokio::test]
async fn rule_4_no_success_where_a_widened_decision_leaves_a_token_alive() {
    for (quota, status) in [(100, 200), (2, 503)] {
        let mut config = common::config();
        config.denylist.subject_quota = quota;
        let server = Server::in_time(Memory::new(), MemoryStore::new(), |recorder| recorder, config).await;
        let one = token(json!({"jti": "1", "sid": "s"}));
        let nobodys = token(json!({"jti": "2", "sid": "s", "sub": null}));
        server.issue(json!({"access_token": one, "refresh_token": "r1"})).await;
        assert_eq!(server.refresh("r1", json!({"access_token": nobodys})).await.status, 200);
        assert_eq!(server.revoke(&token(json!({"jti": "3", "sid": "other"}))).await, 200);
        assert_eq!((server.api(&one).await, server.api(&nobodys).await), (200, 200));
        assert_eq!(server.revoke(&one).await, status);
        if status == 200 {
            assert_eq!((server.api(&one).await, server.api(&nobodys).await), (401, 401));
        }
        server.assert_refused("r1", "invalid_grant").await;
    }
}

/// F30, across nodes: what another node revoked counts before the feed brings it.
#[tokio::test]
async fn f30_another_nodes_revocation_counts_at_once() {
    let backend = Memory::new();
    let server = Server::on(backend.clone(), MemoryStore::new(), |recorder| recorder).await;
    let other = Revocations::start(backend, common::config()).await.unwrap();
    // From here on the feed brings nothing.
    server.revocations.shutdown().await;
    server.issue(json!({"access_token": "a1", "id_token": token(json!({"sub": "bob"}))})).await;
    let _ = other.revoke(Revocation::new(Scope::subject(ISSUER, "alice"))).await.unwrap();
    server.behind.answers(json!({"access_token": "a2", "id_token": token(json!({"sub": "alice", "iat": 1}))}));
    let answer = server.token("grant_type=authorization_code&code=x").await;
    assert_eq!((answer.status, answer.body.contains("a2")), (503, false), "{}", answer.body);
}

/// A store that can be told to fail.
struct Failing<S>(S, Arc<AtomicBool>);

impl<S: RecorderStore> Failing<S> {
    fn guard<'a, T>(&self, run: BoxFuture<'a, Result<T, BackendError>>) -> BoxFuture<'a, Result<T, BackendError>> {
        match self.1.load(Ordering::Relaxed) {
            true => async { Err(BackendError::new(BackendErrorKind::Unavailable, "as the test wants it")) }.boxed(),
            false => run,
        }
    }
}

impl<S: RecorderStore> RecorderStore for Failing<S> {
    fn record<'a>(&'a self, grant: &'a Grant, all: &'a [Member]) -> BoxFuture<'a, Result<Recorded, BackendError>> {
        self.guard(self.0.record(grant, all))
    }
    fn find<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<Option<(Grant, Member)>, BackendError>> {
        self.guard(self.0.find(token))
    }
    fn grants<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Grant>, BackendError>> {
        self.guard(self.0.grants(scopes))
    }
    fn members<'a>(&'a self, grant: &'a str) -> BoxFuture<'a, Result<Vec<Member>, BackendError>> {
        self.guard(self.0.members(grant))
    }
    fn end<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Ended>, BackendError>> {
        self.guard(self.0.end(scopes))
    }
    fn spend<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<bool, BackendError>> {
        self.guard(self.0.spend(token))
    }
    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.0.purge(before)
    }
}

/// Rule 19: nothing is released that is not recorded, and nothing pretended.
#[tokio::test]
async fn rule_19_a_store_that_fails() {
    let failing = Arc::new(AtomicBool::new(false));
    let store = Failing(MemoryStore::new(), failing.clone());
    let server = Server::on(Memory::new(), store, |recorder| recorder).await;
    server.issue(opaque(1)).await;
    failing.store(true, Ordering::Relaxed);
    server.behind.answers(opaque(2));
    let answer = server.token("grant_type=authorization_code&code=x").await;
    assert_eq!((answer.status, answer.body.contains("a2")), (503, false));
    assert_eq!(server.ask_refresh("r1").await.status, 503);
    assert_eq!(server.revoke("r1").await, 503);
    failing.store(false, Ordering::Relaxed);
    assert_eq!(server.revoke("r1").await, 200);
    assert_eq!(server.api("a1").await, 401);
}

/// Rule 19: the first write wins.
#[tokio::test]
async fn rule_19_a_token_of_another_grant() {
    let server = Server::start().await;
    server.issue(opaque(1)).await;
    server.behind.answers(json!({"access_token": "b1", "refresh_token": "r1"}));
    let request = Server::request("/oauth/token", &[OTHER], "grant_type=authorization_code&code=x");
    assert_eq!(raw(server.address, request).await.status, 503);
    let grant = server.recorder.family_of("r1").await.unwrap().unwrap();
    assert_eq!(grant.client_id.as_deref(), Some("app"));
    assert_eq!(server.recorder.family_of("b1").await.unwrap(), None, "all or nothing");
    // The same token once more, as servers that cache them answer, is no conflict.
    server.issue(opaque(1)).await;
}

// ---- requests and answers

#[tokio::test]
async fn bodies_pass_byte_for_byte() {
    let server = Server::start().await;
    let text =
        "{ \"access_token\" : \"\\u0061\\u0031\",\n \"expires_in\":\"600\", \"x\":1.0, \"refresh_token\":\"r1\" }\n";
    let chunks = text.as_bytes().chunks(7).map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)));
    let body = Body::from_stream(futures_util::stream::iter(chunks.collect::<Vec<_>>()));
    let answer = Response::builder().header("content-type", "application/json").header("x-more", "kept");
    server.behind.raw_answer(answer.body(body).unwrap());
    let asked = "&grant%5Ftype=%61uthorization_code&code=a+b%2fc&&";
    let request = Server::request("/oauth/token", &[APP, "accept-encoding: gzip, br", "x-custom: 1"], asked);
    let answer = raw(server.address, request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, text));
    assert_eq!(answer.header("x-more"), Some("kept"));
    {
        let seen = server.behind.seen.lock().unwrap();
        let (headers, body) = &seen[0];
        assert_eq!(body, asked.as_bytes());
        assert_eq!(headers["accept-encoding"], "gzip", "what the client accepts and can be read here");
        assert_eq!(
            (headers["x-custom"].as_bytes(), headers["content-length"].to_str().unwrap()),
            (&b"1"[..], &*asked.len().to_string())
        );
    }
    assert_eq!(server.revoke("r1").await, 200);
    assert_eq!(server.api("a1").await, 401, "escapes were undone");
}

#[tokio::test]
async fn nothing_is_learnt_from_errors() {
    let server = Server::start().await;
    for status in [400, 401, 500, 302] {
        let body = Body::from(opaque(1).to_string());
        let answer = Response::builder().status(status).header("content-type", "application/json");
        server.behind.raw_answer(answer.body(body).unwrap());
        let answer = server.token("grant_type=authorization_code&code=x").await;
        assert_eq!((answer.status, answer.body), (status, opaque(1).to_string()));
        assert_eq!(server.recorder.family_of("r1").await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_not_released() {
    let server = Server::start().await;
    let plain = [("content-type", "application/json")];
    for (headers, body) in [
        (&[("content-type", "application/json"), ("content-encoding", "gzip")][..], r#"{"access_token":"a1"}"#),
        (&[("content-type", "text/plain")], r#"{"access_token":"a1"}"#),
        (&[], r#"{"access_token":"a1"}"#),
        (&plain, r#"{"access_token":"a1","access_token":"a2"}"#),
        (&plain, r#"{"access_token":1}"#),
        (&plain, "a1"),
    ] {
        let mut answer = Response::builder();
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        server.behind.raw_answer(answer.body(Body::from(body)).unwrap());
        let answer = server.token("grant_type=authorization_code&code=x").await;
        assert_eq!((answer.status, answer.body.contains("a1")), (502, false), "{headers:?} {body}");
    }
}

#[tokio::test]
async fn a_request_that_two_could_read_differently_is_refused() {
    let server = Server::start().await;
    for (target, headers, body, status) in [
        ("/oauth/token", &[APP][..], "grant_type=refresh_token&refresh_token=a&refresh_token=b", 400),
        ("/oauth/token", &[APP], "grant_type=x;refresh_token=a", 400),
        ("/oauth/token?grant_type=refresh_token", &[APP], "refresh_token=a", 400),
        ("/oauth/token", &[APP, "content-encoding: gzip"], "grant_type=x", 415),
        ("/oauth//token", &[APP], "grant_type=x", 400),
        ("/oauth/tok%65n", &[APP], "grant_type=x", 400),
    ] {
        let answer = raw(server.address, Server::request(target, headers, body)).await;
        assert_eq!(answer.status, status, "{target} {body}");
    }
    assert_eq!(common::get(server.address, "/oauth/token", &[]).await.status, 405);
    assert_eq!(server.behind.calls(), 0);
    let preflight = "OPTIONS /oauth/token HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    raw(server.address, preflight).await;
    assert_eq!(server.behind.calls(), 1);
}

// ---- who is who

#[tokio::test]
async fn sessions_and_their_tokens() {
    let server = Server::start().await;
    let one = token(json!({"jti": "1", "sid": "s", "iat": common::unix() - 9}));
    server.issue(json!({"access_token": one, "refresh_token": "r1", "scope": "openid offline_access"})).await;
    server.issue(json!({"access_token": token(json!({"jti": "2"})), "scope": "openid"})).await;
    server.issue(json!({"access_token": token(json!({"jti": "3", "sub": "bob"}))})).await;
    let of = |jti| server.recorder.session_of_token(ISSUER, jti);
    assert_eq!(of("1").await.unwrap().as_deref(), Some("s"));
    let grant = of("2").await.unwrap().unwrap();
    assert!(grant.starts_with("grant:"));
    assert_eq!(of("4").await.unwrap(), None);
    assert_eq!(server.recorder.sessions_of_subject(ISSUER, "alice").await.unwrap(), ["s".to_owned(), grant.clone()]);
    assert!(server.recorder.family_of("r1").await.unwrap().unwrap().offline);
    // A grant's id does as a session.
    assert_eq!(server.recorder.end(&Scope::session(ISSUER, grant), "test").await.unwrap(), 1);
    assert_eq!(server.recorder.end(&Scope::subject(ISSUER, "alice"), "test").await.unwrap(), 2);
    assert_eq!(server.api(&one).await, 401);
}

// ---- stores

async fn sqlite(directory: &tempfile::TempDir) -> tower_revocation::recorder::SqliteStore {
    tower_revocation::recorder::SqliteStore::open(directory.path().join("recorder.db")).await.unwrap()
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let backend = || tower_revocation::backend::Sqlite::open(directory.path().join("revocations.db"));
    let replay = |recorder: Recorder| recorder.replay(Replay::EndsGrant);
    let one = token(json!({"jti": "1"}));
    let server = Server::on(backend().await.unwrap(), sqlite(&directory).await, replay).await;
    server.issue(json!({"access_token": one, "refresh_token": "first-refresh-token"})).await;
    assert_eq!(server.refresh("first-refresh-token", opaque(2)).await.status, 200);
    server.issue(opaque(3)).await;
    assert_eq!(server.revoke("r3").await, 200);
    server.revocations.shutdown().await;

    let server = Server::on(backend().await.unwrap(), sqlite(&directory).await, replay).await;
    assert_eq!((server.api(&one).await, server.api("a2").await, server.api("a3").await), (200, 200, 401));
    server.assert_refused("r3", "invalid_grant").await;
    server.assert_refused("first-refresh-token", "invalid_grant").await;
    assert_eq!((server.api(&one).await, server.api("a2").await), (401, 401), "the replay is known as one");

    // L9: no token in the file.
    let mut bytes = std::fs::read(directory.path().join("recorder.db")).unwrap();
    bytes.extend(std::fs::read(directory.path().join("recorder.db-wal")).unwrap_or_default());
    for secret in [one.as_str(), one.rsplit_once('.').unwrap().1, "first-refresh-token"] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(directory.path().join("recorder.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_foreign_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revocations.db");
    tower_revocation::backend::Sqlite::open(&path).await.unwrap();
    let error = tower_revocation::recorder::SqliteStore::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Settings);
    assert!(error.to_string().contains("revocations.db"), "{error}");
}

#[tokio::test]
async fn many_open_one_file_at_once() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let opening = (0..8).map(|_| {
        let directory = directory.clone();
        tokio::spawn(async move { sqlite(&directory).await })
    });
    for store in opening.collect::<Vec<_>>() {
        store.await.unwrap();
    }
}

#[tokio::test]
async fn every_store_keeps_the_rules() {
    let directory = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn RecorderStore>; 2] = [Arc::new(MemoryStore::new()), Arc::new(sqlite(&directory).await)];
    for store in stores {
        let grant = |id: &str, extra: Value| -> Grant {
            let mut all =
                json!({"id": id, "iss": ISSUER, "began": 5, "expires": 100, "offline": false, "ended": false});
            all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            serde_json::from_value(all).unwrap()
        };
        let member = |token: &Scope, alias: Option<&Scope>, kind: &str, expires: u64| -> Member {
            let all = json!({"token": token, "alias": alias, "kind": kind, "expires": expires, "spent": false});
            serde_json::from_value(all).unwrap()
        };
        let [one, two, three] = ["1", "2", "3"].map(|jti| Scope::token(ISSUER, jti));
        let digest = Scope::opaque_token(keys().digests(b"r").next().unwrap());
        let first = [member(&one, None, "access", 50), member(&two, Some(&digest), "refresh", 100)];
        let g1 = grant("g1", json!({"client_id": "app", "sub": "alice"}));
        assert_eq!(store.record(&g1, &first).await.unwrap(), Recorded::Done);
        assert_eq!(store.record(&g1, &first).await.unwrap(), Recorded::Done, "twice is once");
        let found = store.find(&digest).await.unwrap().unwrap();
        assert_eq!(found, (g1.clone(), first[1].clone()));
        assert_eq!(store.find(&two).await.unwrap().unwrap(), found);

        // All or nothing, also by an alias.
        let g2 = grant("g2", json!({"sid": "s"}));
        for taken in [&one, &digest] {
            let all = [member(&three, None, "access", 9), member(taken, None, "access", 9)];
            assert_eq!(store.record(&g2, &all).await.unwrap(), Recorded::Conflict);
        }
        let alias = [member(&three, Some(&digest), "refresh", 9)];
        assert_eq!(store.record(&g2, &alias).await.unwrap(), Recorded::Conflict);
        assert_eq!(store.find(&three).await.unwrap(), None);
        assert!(store.grants(&[Scope::session(ISSUER, "s")]).await.unwrap().is_empty());

        // It lives longer where it is seen again.
        let longer = [member(&Scope::token(ISSUER, "2b"), Some(&digest), "access", 120)];
        assert_eq!(store.record(&g1, &longer).await.unwrap(), Recorded::Done);
        let two_then = store.find(&digest).await.unwrap().unwrap().1;
        assert_eq!(two_then, member(&two, Some(&digest), "refresh", 120));
        assert_eq!(store.record(&g1, &first).await.unwrap(), Recorded::Done);
        assert_eq!(store.find(&two).await.unwrap().unwrap().1, two_then);

        // What is known stays; what was lacking comes.
        let later = grant("g1", json!({"client_id": "other", "sid": "s", "began": 9, "expires": 200, "offline": true}));
        assert_eq!(store.record(&later, &[]).await.unwrap(), Recorded::Done);
        let expected =
            grant("g1", json!({"client_id": "app", "sub": "alice", "sid": "s", "expires": 200, "offline": true}));
        for scope in [
            Scope::session(ISSUER, "s"),
            Scope::session(ISSUER, "g1"),
            Scope::client_session(ISSUER, "s", "app"),
            Scope::subject(ISSUER, "alice"),
            Scope::subject_client(ISSUER, "alice", "app"),
            Scope::client(ISSUER, "app"),
            Scope::issuer(ISSUER),
            Scope::token(ISSUER, "1"),
            digest.clone(),
        ] {
            assert_eq!(store.grants(from_ref(&scope)).await.unwrap(), from_ref(&expected), "{scope:?}");
        }
        for scope in [
            Scope::session(ISSUER, "t"),
            Scope::session("other", "s"),
            Scope::client_session(ISSUER, "s", "other"),
            Scope::subject_client(ISSUER, "alice", "other"),
            Scope::token(ISSUER, "unknown"),
        ] {
            assert!(store.grants(from_ref(&scope)).await.unwrap().is_empty(), "{scope:?}");
        }

        // Spent once, by either name.
        let spent =
            futures_util::future::join_all((0..8).map(|n| store.spend(if n % 2 == 0 { &two } else { &digest })));
        assert_eq!(spent.await.into_iter().filter(|first| *first.as_ref().unwrap()).count(), 1);
        assert!(store.find(&two).await.unwrap().unwrap().1.spent);
        assert!(!store.spend(&three).await.unwrap());

        // Forgotten when over, a token before its grant.
        assert_eq!(store.purge(51).await.unwrap(), 1);
        assert_eq!(store.find(&one).await.unwrap(), None);
        assert_eq!(store.members("g1").await.unwrap().len(), 1);

        // Ended for good.
        let mut over = expected;
        over.ended = true;
        let ended = Ended::new(over, store.members("g1").await.unwrap());
        let scopes = [Scope::client(ISSUER, "app"), Scope::session(ISSUER, "unknown"), digest.clone()];
        for _ in 0..2 {
            assert_eq!(store.end(&scopes).await.unwrap(), from_ref(&ended), "each once, also what had ended");
        }
        assert_eq!(store.end(&[Scope::session(ISSUER, "unknown")]).await.unwrap(), []);
        assert!(store.find(&two).await.unwrap().unwrap().0.ended);
        let new = [member(&three, None, "access", 150)];
        assert_eq!(store.record(&g1, &new).await.unwrap(), Recorded::Ended);
        assert_eq!(store.find(&three).await.unwrap(), None);
        assert_eq!(store.purge(201).await.unwrap(), 1);
        assert!(store.grants(&[Scope::issuer(ISSUER)]).await.unwrap().is_empty());
    }
}

/// L9: what is printed says nothing.
#[tokio::test]
async fn l9_nothing_is_printed() {
    let server = Server::start().await;
    server.issue(json!({"access_token": "secret-a", "refresh_token": "secret-r"})).await;
    let grant = server.recorder.family_of("secret-r").await.unwrap();
    let printed = format!("{:?} {grant:?}", server.recorder);
    assert!(!printed.contains("secret-"), "{printed}");
}

/// L1: the token endpoint is no way around the check, by whichever parameter or header a revoked token comes.
#[tokio::test]
async fn l1_a_revoked_token_buys_nothing_at_the_token_endpoint() {
    let server = Server::on(Memory::new(), MemoryStore::new(), |recorder| recorder.verifier(verifier())).await;
    let (dead, live) = (token(json!({"jti": "dead"})), token(json!({"jti": "live"})));
    assert_eq!(server.revoke(&dead).await, 200);
    let exchange = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
    for (name, token, status) in [
        ("subject_token", &dead, 400),
        ("actor_token", &dead, 400),
        ("assertion", &dead, 400),
        ("subject_token", &live, 200),
    ] {
        if status == 200 {
            server.behind.answers(json!({"access_token": "exchanged"}));
        }
        let answer = server.token(&format!("{exchange}&{name}={token}")).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
    }
    for (token, status) in [(&dead, 401), (&live, 200)] {
        let bearer = format!("authorization: Bearer {token}");
        if status == 200 {
            server.behind.answers(json!({"access_token": "granted"}));
        }
        let request = Server::request("/oauth/token", &[&bearer], "grant_type=client_credentials");
        assert_eq!(raw(server.address, request).await.status, status);
    }
}

/// Rules 17, 19: what another parser could read as a parameter, a path or a client of its own never reaches it.
#[tokio::test]
async fn rule19_nothing_that_two_parsers_read_differently_gets_behind() {
    let server = Server::on(Memory::new(), MemoryStore::new(), |recorder| recorder).await;
    server.behind.answers(json!({"access_token": "a1"}));
    let refresh = "grant_type=refresh_token";
    for body in ["[refresh_token]=r", "+refresh_token=r", "refresh_token[]=r", "Refresh_Token=r&refresh_token=s"] {
        assert_eq!(server.token(&format!("{refresh}&{body}")).await.status, 400, "{body}");
    }
    // `APP` authenticates as "app".
    assert_eq!(server.token(&format!("{refresh}&refresh_token=r&client_id=other")).await.status, 400);
    for path in ["/oauth/token.json", "/OAuth/Token", "/oauth/token%20", "/oauth//token"] {
        let request = Server::request(path, &[APP], &format!("{refresh}&refresh_token=r"));
        assert_eq!(raw(server.address, request).await.status, 400, "{path}");
    }
    assert!(server.behind.seen.lock().unwrap().is_empty());
}
