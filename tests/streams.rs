//! What is open ends when its token is revoked: answers, request bodies and connections, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bytes::Bytes;
use common::{ISSUER, eventually, listen, token, unix, verifier};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody as Frames};
use hyper::body::Frame;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tower_revocation::{
    RevocationLayer, Revocations,
    policy::Policy,
    reject::Rejection,
    revocation::{Cutoff, REFRESHED, Revocation, Scope, ScopeKind},
    rollout::Shadow,
    streams::{EndStreams, Ended, Opening},
    token::{Claims, Identity, Verifier as _, Verify},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A service whose answers stay open, and how many of its handlers' bodies are alive.
struct Site {
    address: SocketAddr,
    revocations: Revocations,
    alive: Arc<AtomicUsize>,
}

/// Counts what is alive.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One event, and then silence for as long as it may last.
fn feed(alive: &Arc<AtomicUsize>, content_type: &'static str) -> Response {
    let alive = Alive::new(alive);
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"data: hello\n\n"))]);
    let body = first.chain(stream::pending()).map(move |event| {
        let _ = &alive;
        event
    });
    ([(header::CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response()
}

fn app(alive: &Arc<AtomicUsize>) -> Router {
    let (sse, chunked, upgraded) = (Arc::clone(alive), Arc::clone(alive), Arc::clone(alive));
    Router::new()
        .route("/small", get(|| async { "in" }))
        .route("/sse", get(move || async move { feed(&sse, "text/event-stream") }))
        .route("/chunked", get(move || async move { feed(&chunked, "application/octet-stream") }))
        .route(
            "/upload",
            post(|body: Body| async move {
                match body.collect().await {
                    Ok(body) => body.to_bytes().len().to_string(),
                    Err(error) => format!("broken: {error}"),
                }
            }),
        )
        .route(
            "/raw",
            get(move |Extension(opening): Extension<Opening>, mut request: Request<Body>| async move {
                let upgrade = hyper::upgrade::on(&mut request);
                let alive = Alive::new(&upgraded);
                tokio::spawn(async move {
                    let _alive = alive;
                    let io = opening.open().guard_io(TokioIo::new(upgrade.await.unwrap()));
                    let (mut reader, mut writer) = tokio::io::split(io);
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
                (StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")])
            }),
        )
}

async fn serve_with(options: EndStreams, policy: Policy) -> Site {
    let revocations = common::revocations().await;
    let alive = Arc::new(AtomicUsize::new(0));
    let layer = RevocationLayer::with_policy(revocations.denylist().clone(), Verify::new(verifier()), policy);
    let router = app(&alive).layer(layer.end_streams(options));
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Site { address, revocations, alive }
}

async fn serve() -> Site {
    serve_with(EndStreams::default(), Policy::default()).await
}

impl Site {
    async fn revoke(&self, scope: Scope) {
        let _ = self.revocations.revoke(Revocation::new(scope)).await.unwrap();
    }

    fn open(&self) -> usize {
        self.revocations.denylist().open_streams()
    }

    async fn eventually_open(&self, count: usize) {
        eventually(&format!("{count} streams are open"), || async { self.open() == count }).await;
    }

    /// An answer over HTTP/1.1 that has begun.
    async fn begin(&self, path: &str, claims: Value) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\n\r\n", token(claims));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut begun = Vec::new();
        while !String::from_utf8_lossy(&begun).contains("hello") {
            let mut part = [0; 4096];
            let read = timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&begun));
            begun.extend_from_slice(&part[..read]);
        }
        stream
    }
}

/// What comes until the connection is closed.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
    rest
}

/// SSE and chunked answers end aborted: without the last chunk that would make them look complete.
#[tokio::test]
async fn http1_answers_are_aborted() {
    let site = serve().await;
    for path in ["/sse", "/chunked"] {
        let mut stream = site.begin(path, json!({"jti": path, "sub": "alice"})).await;
        let mut other = site.begin(path, json!({"jti": "other", "sub": "bob"})).await;
        site.eventually_open(2).await;
        site.revoke(Scope::token(ISSUER, path)).await;
        assert_eq!(rest(&mut stream).await, b"", "no clean end");
        site.eventually_open(1).await;
        // The other one still runs: it is closed by its own revocation only.
        assert_eq!(other.try_read(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        site.revoke(Scope::subject(ISSUER, "bob")).await;
        assert_eq!(rest(&mut other).await, b"");
        site.eventually_open(0).await;
        let scope = Scope::subject(ISSUER, "bob");
        site.revocations.lift(&scope, &site.revocations.revocations_of(&scope), "the test").await.unwrap();
    }
    eventually("the handlers' bodies are dropped", || async { site.alive.load(Ordering::SeqCst) == 0 }).await;
    assert_eq!(site.revocations.denylist().ended_streams(), 4);
}

/// Each kind of scope ends the streams of its tokens, and no others.
#[tokio::test]
async fn by_every_scope() {
    let scopes = [
        Scope::token(ISSUER, "1"),
        Scope::session(ISSUER, "s1"),
        Scope::client_session(ISSUER, "s1", "app"),
        Scope::subject(ISSUER, "alice"),
        Scope::subject_client(ISSUER, "alice", "app"),
        Scope::client(ISSUER, "app"),
        Scope::issuer(ISSUER),
    ];
    for scope in scopes {
        let site = serve().await;
        let other = json!({"jti": "2", "sid": "s2", "sub": "bob", "client_id": "other"});
        let mut one = site.begin("/sse", json!({"jti": "1", "sid": "s1", "sub": "alice", "client_id": "app"})).await;
        let _two = site.begin("/sse", other).await;
        site.eventually_open(2).await;
        let left = usize::from(scope.kind() != ScopeKind::Issuer);
        site.revoke(scope.clone()).await;
        rest(&mut one).await;
        site.eventually_open(left).await;
    }
}

/// A cutoff ends what was issued until then; a login that came after it goes on, and so does an older `auth_time`'s not.
#[tokio::test]
async fn a_cutoff_compares_the_times_of_the_token() {
    let site = serve().await;
    let (now, old) = (unix(), unix() - 300);
    let mut stale = site.begin("/sse", json!({"jti": "1", "iat": old})).await;
    let mut refreshed = site.begin("/sse", json!({"jti": "2", "iat": now, "auth_time": old})).await;
    let fresh = site.begin("/sse", json!({"jti": "3", "iat": now, "auth_time": now})).await;
    site.eventually_open(3).await;
    let revocation = Revocation::new(Scope::subject(ISSUER, "alice")).cutoff(Cutoff::at(now - 60));
    let _ = site.revocations.revoke(revocation).await.unwrap();
    rest(&mut stale).await;
    rest(&mut refreshed).await;
    site.eventually_open(1).await;
    assert_eq!(fresh.try_read(&mut [0; 16]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn http2_streams_are_reset() {
    let site = serve().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let request = |claims| {
        let request = Request::get(format!("http://{}/sse", site.address));
        request.header("authorization", format!("Bearer {}", token(claims))).body(Full::default()).unwrap()
    };
    let mut ended = client.request(request(json!({"jti": "1", "sub": "alice"}))).await.unwrap().into_body();
    let mut other = client.request(request(json!({"jti": "2", "sub": "bob"}))).await.unwrap().into_body();
    for body in [&mut ended, &mut other] {
        assert!(timeout(PATIENCE, body.frame()).await.unwrap().unwrap().is_ok());
    }
    site.eventually_open(2).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    let error = timeout(PATIENCE, ended.frame()).await.unwrap().unwrap().unwrap_err();
    assert!(!error.is_timeout(), "{error}");
    site.eventually_open(1).await;
    // The connection is the same, and its other stream goes on.
    assert!(timeout(Duration::from_millis(50), other.frame()).await.is_err());
}

/// Who is sending a request that is not answered yet hears of it, and the handler ends.
#[tokio::test]
async fn an_upload_is_answered_401() {
    let site = serve().await;
    let (sender, chunks) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::post(format!("http://{}/upload", site.address))
        .header("authorization", format!("Bearer {}", token(json!({"jti": "1"}))))
        .body(Frames::new(ReceiverStream::new(chunks)))
        .unwrap();
    let answer = tokio::spawn(client.request(request));
    sender.send(Ok(Frame::data(Bytes::from_static(b"part")))).await.unwrap();
    eventually("it is registered", || async { site.open() > 0 }).await;
    site.revoke(Scope::token(ISSUER, "1")).await;
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.status(), 401);
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(challenge.contains("invalid_token") && challenge.contains("revoked"), "{challenge}");
    site.eventually_open(0).await;
}

/// A connection that was upgraded, and whose bytes are nobody's business, is closed; also while nothing is sent.
#[tokio::test]
async fn an_upgraded_connection_is_closed() {
    let site = serve().await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let head = "GET /raw HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n";
    let head = format!("{head}authorization: Bearer {}\r\n\r\n", token(json!({"jti": "1"})));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut echo)).await.unwrap().unwrap();
    assert_eq!((&answer[..12], &echo), (&b"HTTP/1.1 101"[..], b"ping"));
    site.eventually_open(1).await;
    site.revoke(Scope::token(ISSUER, "1")).await;
    assert_eq!(rest(&mut stream).await, b"");
    site.eventually_open(0).await;
    eventually("the task has ended", || async { site.alive.load(Ordering::SeqCst) == 0 }).await;
}

/// Short answers are not registered, and neither is what carries no token.
#[tokio::test]
async fn short_answers_and_strangers_are_not_registered() {
    let site = serve().await;
    let good = token(json!({"jti": "1"}));
    let answer = common::get(site.address, "/small", &[&format!("authorization: Bearer {good}")]).await;
    assert_eq!((answer.status, site.open()), (200, 0));
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(b"GET /sse HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut part = [0; 1024];
    while !String::from_utf8_lossy(&part).contains("hello") {
        assert_ne!(timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap(), 0);
    }
    assert_eq!(site.open(), 0);
}

/// A lift within the grace period keeps the stream; without one it ends, and not before the period is over.
#[tokio::test]
async fn a_lift_within_the_grace_period_keeps_the_stream() {
    let site = serve_with(EndStreams::default().grace(Duration::from_millis(300)), Policy::default()).await;
    let mut stream = site.begin("/sse", json!({"jti": "1"})).await;
    site.eventually_open(1).await;
    let scope = Scope::subject(ISSUER, "alice");
    site.revoke(scope.clone()).await;
    site.revocations.lift(&scope, &site.revocations.revocations_of(&scope), "the test").await.unwrap();
    assert!(timeout(Duration::from_millis(900), stream.read_u8()).await.is_err(), "lifted in time");
    assert_eq!((site.open(), site.revocations.denylist().ended_streams()), (1, 0));
    site.revoke(scope).await;
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test]
async fn at_expiry_where_that_is_asked_for() {
    // A minute of leeway is what requests get too.
    let nearly = json!({"jti": "1", "iat": unix() - 120, "exp": unix() - 58});
    let site = serve_with(EndStreams::default().at_expiry(true), Policy::default()).await;
    let other = serve().await;
    let mut ends = site.begin("/sse", nearly.clone()).await;
    let mut stays = other.begin("/sse", nearly).await;
    assert_eq!(rest(&mut ends).await, b"");
    assert!(timeout(Duration::from_millis(200), stays.read_u8()).await.is_err());
    assert_eq!(other.open(), 1);
}

#[tokio::test]
async fn shadow_mode_counts_and_ends_nothing() {
    let site = serve_with(EndStreams::default(), Policy::default().shadow(Shadow::ALL)).await;
    let mut stream = site.begin("/sse", json!({"jti": "1"})).await;
    site.eventually_open(1).await;
    site.revoke(Scope::token(ISSUER, "1")).await;
    let denylist = site.revocations.denylist();
    eventually("it is counted", || async { denylist.would_end_streams() == 1 }).await;
    assert!(timeout(Duration::from_millis(100), stream.read_u8()).await.is_err());
    assert_eq!((denylist.ended_streams(), site.open()), (0, 1));
}

#[tokio::test]
async fn only_the_scopes_that_were_chosen() {
    let options = EndStreams::default().scopes([ScopeKind::Session]);
    let site = serve_with(options, Policy::default()).await;
    let mut stream = site.begin("/sse", json!({"jti": "1", "sid": "s"})).await;
    site.eventually_open(1).await;
    site.revoke(Scope::token(ISSUER, "1")).await;
    assert!(timeout(Duration::from_millis(200), stream.read_u8()).await.is_err());
    site.revoke(Scope::session(ISSUER, "s")).await;
    assert_eq!(rest(&mut stream).await, b"");
}

/// What a refresh leaves behind does not kick the stream; what the user revokes then does, though the token was dead for
/// requests already.
#[tokio::test]
async fn a_refresh_keeps_the_stream_and_a_later_revocation_ends_it() {
    let site = serve().await;
    let kept = json!({"jti": "1", "exp": unix() + 600});
    let mut stream = site.begin("/sse", kept.clone()).await;
    site.eventually_open(1).await;
    let exp = kept["exp"].as_u64().unwrap();
    let of_token = || Revocation::new(Scope::token(ISSUER, "1")).token_expires(exp);
    let _ = site.revocations.revoke(of_token().reason(REFRESHED)).await.unwrap();
    let bearer = format!("authorization: Bearer {}", token(kept.clone()));
    assert_eq!(common::get(site.address, "/small", &[&bearer]).await.status, 401);
    assert!(timeout(Duration::from_millis(200), stream.read_u8()).await.is_err());
    // As the owner of the token does it, whose covered revocations are not stored.
    let identity =
        Identity::from_verified(&Claims::new(ISSUER).jti("1").sub("alice").client_id("app").iat(unix()).exp(exp));
    let _ = site.revocations.revoke(Revocation::token_of(&identity).unwrap()).await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");

    let site = serve_with(EndStreams::default().on_refresh(true), Policy::default()).await;
    let mut stream = site.begin("/sse", kept).await;
    site.eventually_open(1).await;
    let _ = site.revocations.revoke(of_token().reason(REFRESHED)).await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
}

/// Thousands of streams whose clients went away leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_leave_no_registration() {
    let site = serve().await;
    for round in 0..4 {
        let begun = stream::iter(0..500)
            .map(|n| site.begin("/sse", json!({"jti": format!("{round}-{n}"), "sub": format!("user {n}")})))
            .buffer_unordered(50);
        let streams: Vec<_> = begun.collect().await;
        site.eventually_open(streams.len()).await;
        drop(streams);
        site.eventually_open(0).await;
    }
    eventually("the bodies are dropped", || async { site.alive.load(Ordering::SeqCst) == 0 }).await;
    assert_eq!(site.revocations.denylist().ended_streams(), 0);
}

/// A storm of revocations while streams are open: those it is about end, all of them, and nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_ends_what_it_is_about() {
    let site = serve().await;
    let begun = stream::iter(0..300)
        .map(|n| site.begin("/sse", json!({"jti": n.to_string(), "sub": format!("user {n}")})))
        .buffer_unordered(50);
    let mut streams: Vec<_> = begun.collect().await;
    site.eventually_open(streams.len()).await;
    let storm = (0..20_000).map(|n| Revocation::new(Scope::subject(ISSUER, format!("user {n}"))));
    for part in storm.collect::<Vec<_>>().chunks(500) {
        let _ = site.revocations.revoke_all(part.iter().cloned()).await.unwrap();
    }
    for stream in &mut streams {
        rest(stream).await;
    }
    site.eventually_open(0).await;
    assert_eq!(site.revocations.denylist().ended_streams(), 300);
}

/// A revocation between the check of a request and the registration of its answer is not lost.
#[tokio::test]
async fn a_revocation_before_the_registration_is_found() {
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let within = revocations.clone();
    let handler = move || async move {
        // The request has passed; its answer is not there yet.
        let _ = within.revoke(Revocation::new(Scope::subject(ISSUER, "alice"))).await.unwrap();
        feed(&Arc::default(), "text/event-stream")
    };
    let router = Router::new().route("/", get(handler)).layer(layer.end_streams(EndStreams::default()));
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {}\r\n\r\n", token(json!({"jti": "1"})));
    stream.write_all(head.as_bytes()).await.unwrap();
    let all = String::from_utf8(rest(&mut stream).await).unwrap();
    // The connection may end before the head has left.
    assert!(!all.ends_with("0\r\n\r\n"), "no clean end: {all}");
    assert_eq!((revocations.denylist().open_streams(), revocations.denylist().ended_streams()), (0, 1));
}

/// A body that never waits is looked after as well.
#[tokio::test]
async fn a_body_that_never_waits_is_ended() {
    struct Flood;
    impl futures_util::Stream for Flood {
        type Item = Result<Bytes, Infallible>;
        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(Some(Ok(Bytes::from_static(&[b'x'; 4096]))))
        }
    }
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let router = Router::new()
        .route("/", get(|| async { Body::from_stream(Flood) }))
        .layer(layer.end_streams(EndStreams::default()));
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: t\r\nauthorization: Bearer {}\r\n\r\n", token(json!({"jti": "1"})));
    stream.write_all(head.as_bytes()).await.unwrap();
    eventually("it is registered", || async { revocations.denylist().open_streams() == 1 }).await;
    let _ = revocations.revoke(Revocation::new(Scope::token(ISSUER, "1"))).await.unwrap();
    rest(&mut stream).await;
    assert_eq!(revocations.denylist().open_streams(), 0);
}

/// A handler that holds what it opened: it hears why, and a better token lets it go on.
#[tokio::test]
async fn a_renewed_stream_goes_by_its_new_token() {
    let revocations = common::revocations().await;
    let guard =
        tower_revocation::Guard::new(revocations.denylist().clone(), Verify::new(verifier()), Policy::default());
    let streams = guard.streams(EndStreams::default());
    let (parts, ()) = Request::get("/")
        .header("authorization", format!("Bearer {}", token(json!({"jti": "1"}))))
        .body(())
        .unwrap()
        .into_parts();
    let passed = guard.check_parts(&parts).unwrap();
    let opening = guard.opening(&streams, &parts.uri, &parts.headers, &parts.extensions, &passed).unwrap();
    let mut open = opening.open();
    open.renew(&verifier().verify(&token(json!({"jti": "2"})), unix()).unwrap());
    let _ = revocations.revoke(Revocation::new(Scope::token(ISSUER, "1"))).await.unwrap();
    assert!(timeout(Duration::from_millis(50), open.ended()).await.is_err(), "the old token is nothing to it now");
    let _ = revocations.revoke(Revocation::new(Scope::token(ISSUER, "2"))).await.unwrap();
    let why = timeout(PATIENCE, open.ended()).await.unwrap();
    assert!(matches!(why, Rejection::Revoked(_)), "{why}");
    assert!(Ended(why).to_string().contains("revoked by token"));
    assert_eq!(revocations.denylist().open_streams(), 0);
}

/// The guard that owns the frames says goodbye with code 1008, also to a client that is silent.
#[tokio::test]
async fn a_websocket_is_closed_with_code_1008() {
    use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade};
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let handler = |Extension(opening): Extension<Opening>, upgrade: WebSocketUpgrade| async move {
        upgrade.on_upgrade(|socket| async move {
            let close = || Message::Close(Some(CloseFrame { code: 1008, reason: "revoked".into() }));
            let mut socket = opening.guard_socket(socket, close);
            while let Some(Ok(message)) = socket.next().await {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    };
    let router = Router::new().route("/", get(handler)).layer(layer.end_streams(EndStreams::default()));
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n",
        token(json!({"jti": "1"}))
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    // A text frame "hi", masked with zeroes (RFC 6455 §5.2), and its echo.
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    let mut echo = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut echo)).await.unwrap().unwrap();
    assert_eq!(&echo, &[0x81, 2, b'h', b'i']);
    eventually("it is registered", || async { revocations.denylist().open_streams() == 1 }).await;
    let _ = revocations.revoke(Revocation::new(Scope::token(ISSUER, "1"))).await.unwrap();
    assert_eq!(rest(&mut stream).await, [&[0x88, 9, 0x03, 0xF0], &b"revoked"[..]].concat());
    assert_eq!(revocations.denylist().open_streams(), 0);
}
