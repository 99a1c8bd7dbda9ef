//! What the endpoints cost: requests that are none of theirs, against the check alone, and revocations of one token, of
//! a user's sessions, and of all that a user has.
//!
//! The in-memory backend stands behind, so that no disk is measured. Services are called directly.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

#[allow(unused)]
#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use common::{ISSUER, token, unix, verifier};
use criterion::{BatchSize, Criterion};
use futures_util::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt as _};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Memory,
    denylist::Staleness,
    directory::{ClaimsOnly, Directory, DirectoryError, RecordedDirectory, User},
    endpoint::{
        Clients, EndpointLayer, Endpoints, GlobalEndpoint, RegisteredClient, SecretMethod, SessionEndpoint,
        TokenEndpoint,
    },
    recorder::{MemoryStore, Recorder, RecorderStore},
    response::Bare,
    revocation::Scope,
    sync::SyncConfig,
    token::{Claims, FromExtension, Identity, OpaqueKeys, Verifier as _},
};

/// How many users have recorded tokens.
const USERS: usize = 16;
const SESSIONS: usize = 50;
const RECORDED: usize = 10_000;
const RECORDED_SESSIONS: usize = 100;

type Incoming = Request<Full<Bytes>>;

/// Hands the request back in its response, so that dropping it is not measured.
#[derive(Clone)]
struct Bounce;

#[derive(Default)]
struct Back(#[allow(dead_code, reason = "it is dropped later")] Option<Incoming>);

impl From<Bytes> for Back {
    fn from(_: Bytes) -> Self {
        Self(None)
    }
}

impl Service<Incoming> for Bounce {
    type Response = Response<Back>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Back>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Incoming) -> Self::Future {
        ready(Ok(Response::new(Back(Some(request)))))
    }
}

/// A directory of users with [`SESSIONS`] sessions each.
struct ManySessions;

impl Directory for ManySessions {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        ClaimsOnly.find_users(attribute, value, issuers)
    }

    fn sessions_of<'a>(&'a self, user: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        ready(Ok((0..SESSIONS).map(|n| format!("{}-{n}", user.sub)).collect())).boxed()
    }

    fn session_of_token<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        ready(Ok(None)).boxed()
    }
}

/// Users with [`RECORDED`] tokens each.
async fn recorded() -> MemoryStore {
    let store = MemoryStore::new();
    for (user, session) in (0..USERS).flat_map(|user| (0..RECORDED_SESSIONS).map(move |session| (user, session))) {
        let id = format!("{user}-{session}");
        let grant = serde_json::from_value(json!({
            "id": format!("grant:{id}"), "iss": ISSUER, "sid": id, "sub": format!("user-{user}"), "client_id": "app",
            "began": unix(), "expires": unix() + 3600, "offline": false, "ended": false,
        }))
        .unwrap();
        let member = |n: usize| {
            serde_json::from_value(json!({
                "token": Scope::token(ISSUER, format!("{id}-{n}")), "alias": null, "kind": "access",
                "expires": unix() + 3600, "spent": false,
            }))
            .unwrap()
        };
        let members = (0..RECORDED / RECORDED_SESSIONS).map(member).collect::<Vec<_>>();
        let _ = store.record(&grant, &members).await.unwrap();
    }
    store
}

fn request(path: &str, kind: &str, body: String) -> Incoming {
    Request::post(path)
        .header("content-type", kind)
        .header("authorization", format!("Basic {}", STANDARD.encode("app:app-secret")))
        .body(Full::from(body))
        .unwrap()
}

fn form(path: &str, body: String) -> Incoming {
    request(path, "application/x-www-form-urlencoded", body)
}

/// Services are polled here, so that no runtime is measured.
fn passing(
    criterion: &mut Criterion,
    name: &str,
    mut service: impl Service<Incoming, Response = Response<Back>, Error = Infallible>,
    request: &Incoming,
) {
    let mut cx = Context::from_waker(Waker::noop());
    criterion.bench_function(name, |bencher| {
        bencher.iter_batched(
            || request.clone(),
            |request| {
                black_box(service.poll_ready(&mut cx).is_ready());
                match pin!(service.call(black_box(request))).poll(&mut cx) {
                    Poll::Ready(Ok(response)) if response.status() == 200 => response,
                    _ => panic!("it does not pass"),
                }
            },
            BatchSize::SmallInput,
        );
    });
}

/// Each request once: a revocation that is in force already costs less. Prints the median.
fn each_once(
    runtime: &Runtime,
    name: &str,
    service: &(impl Service<Incoming, Response = Response<Back>, Error = Infallible> + Clone),
    expected: u16,
    requests: impl Iterator<Item = Incoming>,
) {
    let mut times = Vec::new();
    for request in requests {
        let began = Instant::now();
        let response = runtime.block_on(service.clone().oneshot(request)).unwrap();
        times.push(began.elapsed());
        assert_eq!(response.status(), expected);
    }
    times.sort();
    println!("{name:<50} median {:?} of {}", times[times.len() / 2], times.len());
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    let one_threaded = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    measure(&mut criterion, &one_threaded, "one-threaded");
    let with_a_worker = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    measure(&mut criterion, &with_a_worker, "with a worker");
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, runtime: &Runtime, kind: &str) {
    let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(600)));
    config.denylist.budget = 5_000_000;
    let revocations = runtime.block_on(Revocations::start(Memory::new(), config)).unwrap();
    let keys = OpaqueKeys::new("bench", [7; 32]).unwrap();
    let recorder = Recorder::new(revocations.clone(), runtime.block_on(recorded()), keys, ISSUER);
    let client = RegisteredClient::confidential("app", "app-secret", SecretMethod::Basic);
    let client = client.any_issuer().scopes(["revoke_session", "global_token_revocation"]);
    let clients = || Clients::new().client(client.clone()).unwrap();
    let endpoints = Endpoints::new(revocations.clone())
        .token(TokenEndpoint::new(verifier(), clients()))
        .session(SessionEndpoint::new(ManySessions, [ISSUER], clients()))
        .global(GlobalEndpoint::new(RecordedDirectory::new(ClaimsOnly, recorder), [ISSUER], clients()));
    let check =
        || RevocationLayer::new(revocations.denylist().clone(), FromExtension::<Identity>::new()).deny_with(Bare);
    let service = EndpointLayer::new(check(), endpoints).unwrap().layer(Bounce);

    let claims = Claims::new(ISSUER).jti("1").sid("s").sub("alice").client_id("app").iat(unix()).exp(unix() + 3600);
    let identity = Identity::with_keys(&claims, revocations.denylist().hasher());
    for path in ["/", "/api/v1/orders/4711/items"] {
        let mut request = Request::get(path).body(Full::default()).unwrap();
        request.extensions_mut().insert(identity.clone());
        passing(criterion, &format!("{kind}: pass {path}, check alone"), check().layer(Bounce), &request);
        passing(criterion, &format!("{kind}: pass {path}, with endpoints"), service.clone(), &request);
    }
    let one = |n: usize| token(json!({"jti": format!("bench-{n}"), "sub": format!("user-{n}")}));
    let verifier = verifier();
    criterion.bench_function(&format!("{kind}: token, its verification alone"), |bencher| {
        let turn = Cell::new(0);
        let next = || one(turn.replace(turn.get() + 1));
        bencher.iter_batched(next, |token| verifier.verify(&token, unix()).unwrap(), BatchSize::SmallInput);
    });
    let turn = Cell::new(1_000_000_000);
    criterion.bench_function(&format!("{kind}: token, revoked"), |bencher| {
        let next = || form("/oauth/revoke", format!("token={}", one(turn.replace(turn.get() + 1))));
        let revoke = |request| async {
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200);
            response
        };
        bencher.to_async(runtime).iter_batched(next, revoke, BatchSize::SmallInput);
    });
    let sessions = (0..1000)
        .map(|n| form("/oauth/revoke_session", format!("user_criterion_key=sub&user_criterion_value=visitor-{n}")));
    each_once(runtime, &format!("{kind}: session, user with 50 sessions"), &service, 200, sessions);
    let globals = (0..USERS).map(|n| {
        let subject = json!({"format": "iss_sub", "iss": ISSUER, "sub": format!("user-{n}")});
        request("/oauth/global-token-revocation", "application/json", json!({"sub_id": subject}).to_string())
    });
    each_once(runtime, &format!("{kind}: global, user with 10,000 recorded tokens"), &service, 204, globals);
}
