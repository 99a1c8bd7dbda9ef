//! The modes of an endpoint in front of an authorization server, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use common::{Answer, ISSUER, eventually, faulty::Faulty, log::Log, raw, token, verifier};
use http::HeaderMap;
use serde_json::json;
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceExt};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{Backend, Intent, Memory, Sqlite},
    denylist::{Reason, Verdict},
    endpoint::{Clients, EndpointName, Endpoints, FrontLayer, Mode, RegisteredClient, SecretMethod, TokenEndpoint},
    time::ManualClock,
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
        Self::on(common::revocations().await, mode, behind).await
    }

    async fn on(revocations: Revocations, mode: Mode, behind: Behind) -> Self {
        let basic = |id, secret| RegisteredClient::confidential(id, secret, SecretMethod::Basic).issuers([ISSUER]);
        let clients =
            Clients::new().client(basic("app", "secret")).and_then(|all| all.client(basic("other", "secret"))).unwrap();
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let endpoints =
            Endpoints::new(revocations.clone()).token(TokenEndpoint::new(verifier(), clients).allow_all([ISSUER]));
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
        is_revoked(&self.revocations, token)
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
        assert_eq!(server.behind.calls(), 0, "{mode:?}");
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

/// What is cut off is what was issued until the answer, not until the question.
#[tokio::test]
async fn what_is_issued_while_the_server_behind_takes_its_time_dies_too() {
    let (backend, clock, gate) = (Memory::new(), clock(), Arc::new(Notify::new()));
    let behind = Behind { gate: Some(gate.clone()), ..Behind::default() };
    let server = Server::on(node(backend.clone(), clock.clone()).await, Mode::ForwardThenRecord, behind).await;
    let asking = {
        let (address, request) = (server.address, Server::request("token=all", &[APP]));
        tokio::spawn(async move { raw(address, request).await })
    };
    eventually("the request went on", || async { server.behind.calls() == 1 }).await;
    clock.advance(Duration::from_secs(5));
    let meanwhile = token(json!({"jti": "1", "iat": common::unix() + 3}));
    gate.notify_one();
    assert_eq!(asking.await.unwrap().status, 200);
    assert!(matches!(
        server.revocations.check(&verifier().verify(&meanwhile, common::unix()).unwrap()),
        Verdict::Deny(Reason::Revoked(_))
    ));
    assert_eq!(backend.intents().await.unwrap(), []);
    assert_eq!(server.revocations.denylist().records(), 1, "the later cutoff says it all");
}

/// What nobody can say of a server that was asked, a node that comes later decides: revoked.
#[tokio::test]
async fn rule_17_a_crash_before_the_record_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revocations.db");
    let token = token(json!({"jti": "1"}));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .envs([(FILE, path.as_os_str()), (TOKEN, token.as_ref())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap() == "asked"), "the child ended before the server behind was asked");
    // SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    let backend = Sqlite::open(&path).await.unwrap();
    assert_eq!(backend.intents().await.unwrap().len(), 1);
    let clock = Arc::new(ManualClock::at(common::unix()));
    let early = node(backend.clone(), clock.clone()).await;
    assert!(!is_revoked(&early, &token), "it may still be under way");
    drop(early);
    clock.advance(LEFT_BEHIND);
    // At once: its own clock stands still from now on.
    let revocations = node(backend.clone(), clock.clone()).await;
    eventually("the intent is recorded", || async { is_revoked(&revocations, &token) }).await;
    eventually("and settled", || async { backend.intents().await.unwrap().is_empty() }).await;
    drop(revocations);
    assert!(is_revoked(&node(backend, clock).await, &token), "durably");
}

const FILE: &str = "TOWER_REVOCATION_TEST_FILE";
const TOKEN: &str = "TOWER_REVOCATION_TEST_TOKEN";
/// After how long an intent is taken for left behind, and more.
const LEFT_BEHIND: Duration = Duration::from_secs(61);

/// What that process does; nothing where it is run as a test.
#[test]
fn child() {
    let (Some(path), Ok(token)) = (std::env::var_os(FILE), std::env::var(TOKEN)) else { return };
    // An orphan ends.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let revocations = Revocations::start(Sqlite::open(path).await.unwrap(), common::config()).await.unwrap();
        let held = Behind { gate: Some(Arc::default()), ..Behind::default() };
        let server = Server::on(revocations, Mode::ForwardThenRecord, held).await;
        let asking = server.revoke(&token);
        let asked = eventually("the request went on", || async { server.behind.calls() == 1 });
        tokio::select! { _ = asking => panic!("answered"), () = asked => {} }
        // The name of the test stands on the same line.
        println!("\nasked");
        std::future::pending().await
    })
}

async fn node(backend: impl Backend, clock: Arc<ManualClock>) -> Revocations {
    let mut config = common::config();
    config.denylist.clock = clock;
    Revocations::start(backend, config).await.unwrap()
}

fn is_revoked(revocations: &Revocations, token: &str) -> bool {
    let identity = verifier().verify(token, common::unix()).unwrap();
    matches!(revocations.check(&identity), Verdict::Deny(_))
}

#[tokio::test]
async fn rule_17_nothing_is_left_behind() {
    let backend = Memory::new();
    let clock = Arc::new(ManualClock::at(common::unix()));
    let server =
        Server::on(node(backend.clone(), clock.clone()).await, Mode::ForwardThenRecord, Behind::default()).await;
    let [refused, revoked] = ["1", "2"].map(|jti| token(json!({"jti": jti})));
    for status in [400, 503, 302] {
        server.behind.answers(status, "");
        assert_eq!(server.revoke(&refused).await.status, status);
        assert_eq!(backend.intents().await.unwrap(), [], "{status}");
    }
    for _ in 0..2 {
        assert_eq!(server.revoke(&revoked).await.status, 200);
        assert_eq!(backend.intents().await.unwrap(), []);
    }
    assert_eq!(server.post("token=opaque", &[APP]).await.status, 200);
    assert_eq!(backend.intents().await.unwrap(), [], "there was nothing to record");
    clock.advance(LEFT_BEHIND);
    let later = node(backend, clock).await;
    assert_eq!((is_revoked(&later, &refused), is_revoked(&later, &revoked)), (false, true));
    assert_eq!(later.denylist().records(), 1, "recorded once");
}

/// Rule 17: what could be lost does not go on.
#[tokio::test]
async fn rule_17_without_an_intent_nothing_goes_on() {
    let backend = Faulty::new(Memory::new());
    let server = Server::on(node(backend.clone(), clock()).await, Mode::ForwardThenRecord, Behind::default()).await;
    backend.faults.intend.store(true, Ordering::SeqCst);
    let token = token(json!({"jti": "1"}));
    let answer = server.revoke(&token).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(server.behind.calls(), 0);
    assert!(!server.is_revoked(&token));
    backend.faults.intend.store(false, Ordering::SeqCst);
    assert_eq!(server.revoke(&token).await.status, 200);
}

/// F33, rule 17: it is not answered with success before it is recorded, and it is recorded even so.
#[tokio::test]
async fn rule_17_what_could_not_be_recorded_is_recorded_later() {
    let backend = Faulty::new(Memory::new());
    let clock = clock();
    let server =
        Server::on(node(backend.clone(), clock.clone()).await, Mode::ForwardThenRecord, Behind::default()).await;
    backend.faults.publish.store(true, Ordering::SeqCst);
    let token = token(json!({"jti": "1"}));
    assert_eq!(server.revoke(&token).await.status, 503);
    assert_eq!(server.behind.calls(), 1);
    clock.advance(LEFT_BEHIND);
    // While it cannot be recorded it stays, and is tried again: by the request, and by two turns.
    eventually("it is tried", || async { backend.faults.failed.load(Ordering::SeqCst) == 3 }).await;
    assert_eq!(backend.intents().await.unwrap().len(), 1);
    backend.faults.publish.store(false, Ordering::SeqCst);
    eventually("it is recorded", || async { server.is_revoked(&token) }).await;
    eventually("and settled", || async { backend.intents().await.unwrap().is_empty() }).await;
}

/// An intent that stays is recorded: more is revoked than need be, never less.
#[tokio::test]
async fn rule_17_an_intent_that_cannot_be_settled_is_recorded_later() {
    let backend = Faulty::new(Memory::new());
    let clock = clock();
    let server =
        Server::on(node(backend.clone(), clock.clone()).await, Mode::ForwardThenRecord, Behind::default()).await;
    backend.faults.settle.store(true, Ordering::SeqCst);
    let [refused, revoked] = ["1", "2"].map(|jti| token(json!({"jti": jti})));
    assert_eq!(server.revoke(&revoked).await.status, 200);
    server.behind.answers(400, "no");
    assert_eq!(server.revoke(&refused).await.body, "no", "the answer is given all the same");
    assert!(!server.is_revoked(&refused));
    backend.faults.settle.store(false, Ordering::SeqCst);
    clock.advance(LEFT_BEHIND);
    eventually("all are settled", || async { backend.intents().await.unwrap().is_empty() }).await;
    assert!(server.is_revoked(&refused));
    assert_eq!(server.revocations.denylist().records(), 2, "what was recorded before is recorded once");
}

/// Its clock was a year ahead when it went down: nobody waits for that.
#[tokio::test]
async fn rule_17_an_intent_from_the_future() {
    let backend = Memory::new();
    let ahead = Arc::new(ManualClock::at(common::unix() + 31_536_000));
    let behind = Behind { gate: Some(Arc::default()), ..Behind::default() };
    let server = Server::on(node(backend.clone(), ahead).await, Mode::ForwardThenRecord, behind).await;
    let iat = common::unix() + 31_536_000;
    let token = token(json!({"jti": "1", "iat": iat, "exp": iat + 600}));
    let asking = server.revoke(&token);
    let announced = eventually("it is announced", || async { !backend.intents().await.unwrap().is_empty() });
    tokio::select! { _ = asking => panic!("answered"), () = announced => {} }
    drop(server);
    let clock = clock();
    let revocations = node(backend.clone(), clock.clone()).await;
    // Each time it looks, some time has passed.
    eventually("the intent is recorded", || async {
        clock.advance(Duration::from_secs(1));
        revocations.denylist().records() == 1
    })
    .await;
    eventually("and settled", || async { backend.intents().await.unwrap().is_empty() }).await;
}

/// Neither dropped in silence nor in the way of others.
#[tokio::test]
async fn rule_17_an_unreadable_intent_stays_and_stops_no_other() {
    let log = Log::start();
    let backend = Memory::new();
    let clock = clock();
    let gate = Arc::new(Notify::new());
    let behind = Behind { gate: Some(gate), ..Behind::default() };
    let server = Server::on(node(backend.clone(), clock.clone()).await, Mode::ForwardThenRecord, behind).await;
    let cut = Intent::new(0, &[]).record[..8].to_vec();
    let unreadable = [(1, Vec::new()), (2, cut), (u64::MAX, b"\xFF of a later version".to_vec())]
        .map(|(id, record)| Intent::stored(id, record));
    for intent in &unreadable {
        backend.intend(intent).await.unwrap();
    }
    let named = |intent: &Intent| format!("intent={:016x}", intent.id);
    eventually("all are logged", || async { unreadable.iter().all(|intent| log.text().contains(&named(intent))) })
        .await;
    let token = token(json!({"jti": "1"}));
    let asking = server.revoke(&token);
    let announced = eventually("it is announced", || async { backend.intents().await.unwrap().len() == 4 });
    tokio::select! { _ = asking => panic!("answered"), () = announced => {} }
    clock.advance(LEFT_BEHIND);
    eventually("the readable one is recorded", || async { server.is_revoked(&token) }).await;
    eventually("and settled", || async { backend.intents().await.unwrap().len() == 3 }).await;
    for intent in backend.intents().await.unwrap() {
        assert!(unreadable.contains(&intent));
        let logged = log.text();
        assert_eq!(logged.matches(&named(&intent)).count(), 1, "logged once: {logged}");
    }
}

/// A server that takes its time is cut off before other nodes take its caller for dead.
#[tokio::test(start_paused = true)]
async fn rule_17_a_server_that_does_not_answer() {
    let backend = Memory::new();
    let clock = clock();
    let behind = Behind { gate: Some(Arc::default()), ..Behind::default() };
    let server = Server::on(node(backend.clone(), clock.clone()).await, Mode::ForwardThenRecord, behind).await;
    let token = token(json!({"jti": "1"}));
    let begun = tokio::time::Instant::now();
    let answer = server.router.clone().oneshot(request(&token)).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(begun.elapsed() < LEFT_BEHIND / 2);
    assert!(!server.is_revoked(&token));
    clock.advance(LEFT_BEHIND);
    eventually("it is recorded", || async { server.is_revoked(&token) }).await;
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(common::unix()))
}

fn request(token: &str) -> Request {
    Request::post("/oauth/revoke")
        .header("authorization", APP.split_once(": ").unwrap().1)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(format!("token={token}")))
        .unwrap()
}

/// A client that goes away between the two steps leaves no revocation half done.
#[tokio::test]
async fn both_steps_run_to_their_end() {
    let gate = Arc::new(Notify::new());
    let server = Server::with(Mode::ForwardThenRecord, Behind { gate: Some(gate.clone()), ..Behind::default() }).await;
    let token = token(json!({"jti": "1"}));
    let asking = tokio::spawn(server.router.clone().oneshot(request(&token)));
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
        let request = request(&token(json!({"jti": "1"})));
        let answer = service.ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(axum::body::to_bytes(answer.into_body(), 100).await.unwrap(), "ready");
    }
}
