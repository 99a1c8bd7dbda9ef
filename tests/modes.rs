//! The modes of an endpoint in front of an authorization server, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use common::{Answer, ISSUER, eventually, raw, token, verifier};
use http::HeaderMap;
use serde_json::json;
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceExt};
use tower_revocation::{
    RevocationLayer, Revocations,
    denylist::Verdict,
    endpoint::{Clients, EndpointName, Endpoints, FrontLayer, Mode, RegisteredClient, SecretMethod, TokenEndpoint},
    token::{Verifier, Verify},
};

/// What the server behind got, and what it answers.
#[derive(Clone, Default)]
struct Behind {
    seen: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
    answers: Arc<Mutex<Option<Response>>>,
    /// Holds the answer back until it is told.
    gate: Option<Arc<Notify>>,
    panics: bool,
}

impl Behind {
    async fn answer(self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        self.seen.lock().unwrap().push((head.uri.to_string(), head.headers, body));
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        assert!(!self.panics, "as the test wants it");
        let answer = self.answers.lock().unwrap().take();
        answer.unwrap_or_else(|| Response::new(Body::from("from behind")))
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn answers(&self, status: u16, body: &'static str) {
        let answer = Response::builder().status(status).header("x-behind", "yes").body(Body::from(body)).unwrap();
        *self.answers.lock().unwrap() = Some(answer);
    }
}

struct Server {
    address: SocketAddr,
    behind: Behind,
    revocations: Revocations,
    router: Router,
}

impl Server {
    async fn start(mode: Mode) -> Self {
        Self::with(mode, Behind::default()).await
    }

    async fn with(mode: Mode, behind: Behind) -> Self {
        let revocations = common::revocations().await;
        let basic = |id, secret| RegisteredClient::confidential(id, secret, SecretMethod::Basic).issuers([ISSUER]);
        let clients =
            Clients::new().client(basic("app", "secret")).and_then(|all| all.client(basic("other", "secret"))).unwrap();
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let endpoints = Endpoints::new(revocations.clone()).token(TokenEndpoint::new(verifier(), clients));
        let layer = FrontLayer::new(check, endpoints).unwrap().mode(EndpointName::Token, mode);
        let inner = behind.clone();
        let router = Router::new().fallback(move |request| inner.clone().answer(request)).layer(layer);
        let (listener, address) = common::listen().await;
        let served = router.clone();
        tokio::spawn(async move { axum::serve(listener, served).await });
        Self { address, behind, revocations, router }
    }

    fn request(body: &str, headers: &[&str]) -> String {
        let mut request = "POST /oauth/revoke HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
            content-type: application/x-www-form-urlencoded\r\n"
            .to_owned();
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request + &format!("content-length: {}\r\n\r\n{body}", body.len())
    }

    async fn post(&self, body: &str, headers: &[&str]) -> Answer {
        raw(self.address, Self::request(body, headers)).await
    }

    /// As the client `app`.
    async fn revoke(&self, token: &str) -> Answer {
        self.post(&format!("token={token}"), &[APP]).await
    }

    fn is_revoked(&self, token: &str) -> bool {
        let identity = verifier().verify(token, common::unix()).unwrap();
        matches!(self.revocations.check(&identity), Verdict::Deny(_))
    }
}

/// `app:secret` and `other:secret`.
const APP: &str = "authorization: Basic YXBwOnNlY3JldA==";
const OTHER: &str = "authorization: Basic b3RoZXI6c2VjcmV0";
const FORWARDING: [Mode; 2] = [Mode::RecordThenForward, Mode::ForwardThenRecord];

#[tokio::test]
async fn terminate_does_not_ask_behind() {
    let server = Server::start(Mode::Terminate).await;
    let token = token(json!({"jti": "1"}));
    let answer = server.revoke(&token).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(server.is_revoked(&token));
    assert_eq!(server.behind.calls(), 0);
}

#[tokio::test]
async fn the_request_goes_on_as_it_came() {
    for mode in FORWARDING {
        let server = Server::start(mode).await;
        let token = token(json!({"jti": "1"}));
        // As another encoder would not write it: an escape for a plain letter, lower case, empty pairs, plus signs.
        let body = format!("&token={}&token%5Fhint=%61%2f+b&&x=", token.replace('e', "%65"));
        let headers = [APP, "x-custom: one", "X-Custom: two", "accept-encoding: br", "cookie: a=b"];
        let answer = server.post(&body, &headers).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "from behind"), "{mode:?}");
        assert!(server.is_revoked(&token), "{mode:?}");
        let seen = server.behind.seen.lock().unwrap();
        let [(uri, headers, bytes)] = &seen[..] else { panic!("{} requests", seen.len()) };
        assert_eq!((uri.as_str(), &bytes[..]), ("/oauth/revoke", body.as_bytes()));
        assert_eq!(headers["content-length"], body.len().to_string());
        assert_eq!(headers.get_all("x-custom").iter().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((headers["accept-encoding"].as_bytes(), headers["cookie"].as_bytes()), (&b"br"[..], &b"a=b"[..]));
        assert_eq!(headers["authorization"], APP.split_once(": ").unwrap().1);
    }
}

#[tokio::test]
async fn a_chunked_request_goes_on_whole() {
    let server = Server::start(Mode::RecordThenForward).await;
    let token = token(json!({"jti": "1"}));
    let body = format!("token={token}");
    let (one, two) = body.split_at(20);
    let request = format!(
        "POST /oauth/revoke HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{APP}\r\n\
         content-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len(),
    );
    assert_eq!(raw(server.address, request).await.body, "from behind");
    assert_eq!(server.behind.seen.lock().unwrap()[0].2, body);
}

/// F38: a server that cannot revoke JWTs does not keep us from it.
#[tokio::test]
async fn f38_a_refusal_behind() {
    const REFUSAL: &str = r#"{"error":"unsupported_token_type"}"#;
    for (status, body) in [(400, REFUSAL), (500, "broken"), (503, ""), (302, "")] {
        for mode in FORWARDING {
            let server = Server::start(mode).await;
            let token = token(json!({"jti": "1"}));
            server.behind.answers(status, body);
            let answer = server.revoke(&token).await;
            assert_eq!((answer.status, answer.body.as_str()), (status, body), "{mode:?}");
            assert_eq!(answer.header("x-behind"), Some("yes"), "untouched: {mode:?}");
            assert_eq!(server.is_revoked(&token), mode == Mode::RecordThenForward, "{mode:?} {status}");
            assert_eq!(server.revocations.denylist().records(), usize::from(mode == Mode::RecordThenForward));
        }
    }
}

/// F33: success is never answered without a record, whatever the server behind says.
#[tokio::test]
async fn f33_what_cannot_be_recorded_is_503() {
    for mode in [Mode::Terminate, Mode::RecordThenForward, Mode::ForwardThenRecord] {
        let server = Server::start(mode).await;
        server.revocations.shutdown().await;
        let answer = server.revoke(&token(json!({"jti": "1"}))).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{mode:?}");
        assert!(answer.body.contains("temporarily_unavailable"), "{}", answer.body);
        assert_eq!(server.behind.calls(), usize::from(mode == Mode::ForwardThenRecord), "{mode:?}");
    }
}

/// Rule 17: what stands against a request is answered here.
#[tokio::test]
async fn rule_17_what_is_refused_here_never_goes_on() {
    for mode in FORWARDING {
        let server = Server::start(mode).await;
        let token = token(json!({"jti": "1"}));
        let body = format!("token={token}");
        for (status, body, headers) in [
            (401, body.as_str(), &[][..]),
            (401, &body, &["authorization: Basic YXBwOndyb25n"]),
            (400, &body, &[OTHER]),
            (400, "token=a&token=b", &[APP]),
            (400, "token_type_hint=x", &[APP]),
            (415, &body, &[APP, "content-encoding: gzip"]),
        ] {
            assert_eq!(server.post(body, headers).await.status, status, "{mode:?} {headers:?}");
        }
        let get = "GET /oauth/revoke HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        assert_eq!(raw(server.address, get).await.status, 405);
        let ambiguous = Server::request(&body, &[APP]).replace("/oauth/revoke", "/oauth//revoke");
        assert_eq!(raw(server.address, ambiguous).await.status, 400);
        assert_eq!(server.behind.calls(), 0, "{mode:?}");
        assert!(!server.is_revoked(&token));
    }
}

/// RFC 7009 §2.2: a token that nobody knows here may be one of the server's own.
#[tokio::test]
async fn unknown_tokens_go_on() {
    for mode in FORWARDING {
        let server = Server::start(mode).await;
        assert_eq!(server.post("token=opaque", &[APP]).await.body, "from behind");
        assert_eq!((server.behind.calls(), server.revocations.denylist().records()), (1, 0), "{mode:?}");
    }
}

#[tokio::test]
async fn recorded_before_it_goes_on_or_after_the_answer() {
    for mode in FORWARDING {
        let gate = Arc::new(Notify::new());
        let server = Server::with(mode, Behind { gate: Some(gate.clone()), ..Behind::default() }).await;
        let token = token(json!({"jti": "1"}));
        let asking = {
            let (address, request) = (server.address, Server::request(&format!("token={token}"), &[APP]));
            tokio::spawn(async move { raw(address, request).await })
        };
        eventually("the request went on", || async { server.behind.calls() == 1 }).await;
        assert_eq!(server.is_revoked(&token), mode == Mode::RecordThenForward, "{mode:?}");
        gate.notify_one();
        assert_eq!(asking.await.unwrap().status, 200);
        assert!(server.is_revoked(&token), "{mode:?}");
    }
}

/// A client that goes away between the two steps leaves no revocation half done.
#[tokio::test]
async fn both_steps_run_to_their_end() {
    let gate = Arc::new(Notify::new());
    let server = Server::with(Mode::ForwardThenRecord, Behind { gate: Some(gate.clone()), ..Behind::default() }).await;
    let token = token(json!({"jti": "1"}));
    let request = Request::post("/oauth/revoke")
        .header("authorization", APP.split_once(": ").unwrap().1)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(format!("token={token}")))
        .unwrap();
    let asking = tokio::spawn(server.router.clone().oneshot(request));
    eventually("the request went on", || async { server.behind.calls() == 1 }).await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    gate.notify_one();
    eventually("it is recorded", || async { server.is_revoked(&token) }).await;
}

#[tokio::test]
async fn a_panic_behind_is_no_success() {
    for mode in FORWARDING {
        let server = Server::with(mode, Behind { panics: true, ..Behind::default() }).await;
        let token = token(json!({"jti": "1"}));
        assert_eq!(server.revoke(&token).await.status, 503, "{mode:?}");
        assert_eq!(server.is_revoked(&token), mode == Mode::RecordThenForward, "{mode:?}");
    }
}

/// A retry after a 503 succeeds, and the rest of the service is checked as ever.
#[tokio::test]
async fn other_requests_are_checked() {
    let server = Server::start(Mode::ForwardThenRecord).await;
    let token = token(json!({"jti": "1"}));
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(common::get(server.address, "/x", &[&bearer]).await.status, 200);
    for _ in 0..2 {
        assert_eq!(server.revoke(&token).await.status, 200);
    }
    assert_eq!(common::get(server.address, "/x", &[&bearer]).await.status, 401);
}

/// A service that must be asked whether it is ready before it is called, as tower's limits must; a clone anew.
struct Strict(bool);

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self(false)
    }
}

impl Service<Request> for Strict {
    type Response = Response;
    type Error = Infallible;
    type Future = Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0 = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        assert!(std::mem::take(&mut self.0), "called without being ready");
        ready(Ok(Response::new(Body::from("ready"))))
    }
}

#[tokio::test]
async fn the_ready_service_is_the_one_that_is_called() {
    let revocations = common::revocations().await;
    let client = RegisteredClient::confidential("app", "secret", SecretMethod::Basic).issuers([ISSUER]);
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let endpoint = TokenEndpoint::new(verifier(), Clients::new().client(client).unwrap());
    let layer = FrontLayer::new(check, Endpoints::new(revocations).token(endpoint)).unwrap();
    let mut service = layer.mode(EndpointName::Token, Mode::RecordThenForward).layer(Strict(false));
    for _ in 0..2 {
        let request = Request::post("/oauth/revoke")
            .header("authorization", APP.split_once(": ").unwrap().1)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("token={}", token(json!({"jti": "1"})))))
            .unwrap();
        let answer = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), "ready");
    }
}
