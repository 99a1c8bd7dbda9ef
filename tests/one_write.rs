//! However many sessions and tokens a revocation is about, it is one write to the backend.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use common::{ISSUER, token, unix, verifier};
use futures_util::{
    future::{self, BoxFuture, FutureExt},
    stream::BoxStream,
};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{
        Backend, BackendError, Claim, Durability, Event, FleetSettings, Intent, Memory, NodeStatus, OneTime, Position,
    },
    denylist::Verdict,
    directory::{ClaimsOnly, Directory, DirectoryError, RecordedDirectory, User},
    endpoint::{
        Clients, EndpointLayer, Endpoints, GlobalEndpoint, RegisteredClient, SecretMethod, SessionEndpoint,
        TokenEndpoint,
    },
    recorder::{MemoryStore, Recorder, RecorderStore},
    revocation::{Change, Scope, ScopeKey},
    time::Clock,
    token::{Claims, Identity, OpaqueKeys, Verify},
};

/// Counts what is written.
#[derive(Default)]
struct Counting {
    inner: Memory,
    writes: Arc<AtomicUsize>,
}

impl Backend for Counting {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        self.inner.agree(ours)
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.publish(batch)
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        self.inner.follow(from, clock)
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        self.inner.lookup(keys)
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        self.inner.heartbeat(node)
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.claim_once(claim)
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.finish_once(claim)
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.intend(intent)
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.inner.settle(id)
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        self.inner.intents()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.inner.purge(before)
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }
}

/// A directory in which each user has two sessions, and each token one.
struct TwoEach;

impl Directory for TwoEach {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        ClaimsOnly.find_users(attribute, value, issuers)
    }

    fn sessions_of<'a>(&'a self, _: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        future::ready(Ok(vec!["session-0".to_owned(), "elsewhere".to_owned()])).boxed()
    }

    fn session_of_token<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        future::ready(Ok(Some("elsewhere".to_owned()))).boxed()
    }
}

struct Setup {
    revocations: Revocations,
    writes: Arc<AtomicUsize>,
    store: MemoryStore,
    recorder: Recorder,
}

impl Setup {
    /// A user `alice` with so many recorded sessions, of so many tokens each.
    async fn new(sessions: usize, tokens: usize) -> Self {
        let backend = Counting::default();
        let writes = backend.writes.clone();
        let revocations = Revocations::start(backend, common::config()).await.unwrap();
        let store = MemoryStore::new();
        for session in 0..sessions {
            let grant = serde_json::from_value(json!({
                "id": format!("grant:{session}"), "iss": ISSUER, "sid": format!("session-{session}"), "sub": "alice",
                "client_id": "app", "began": unix() + session as u64, "expires": unix() + 900, "offline": false,
                "ended": false,
            }));
            let member = |n: usize| {
                serde_json::from_value(json!({
                    "token": Scope::token(ISSUER, format!("{session}-{n}")), "alias": null, "kind": "access",
                    "expires": unix() + 900, "spent": false,
                }))
            };
            let members = (0..tokens).map(|n| member(n).unwrap()).collect::<Vec<_>>();
            let _ = store.record(&grant.unwrap(), &members).await.unwrap();
        }
        let keys = OpaqueKeys::new("test", [7; 32]).unwrap();
        let recorder = Recorder::new(revocations.clone(), store.clone(), keys, ISSUER);
        Self { revocations, writes, store, recorder }
    }

    fn directory<D: Directory>(&self, users: D) -> RecordedDirectory<D> {
        RecordedDirectory::new(users, self.recorder.clone())
    }

    /// The status, and how many writes it took.
    async fn post(&self, path: &str, kind: &str, body: String) -> (StatusCode, usize) {
        let client = RegisteredClient::confidential("app", "app-secret", SecretMethod::Basic);
        let scopes = ["revoke_session", "global_token_revocation"];
        let clients = || Clients::new().client(client.clone().any_issuer().scopes(scopes)).unwrap();
        let endpoints = Endpoints::new(self.revocations.clone())
            .token(TokenEndpoint::new(verifier(), clients()))
            .session(SessionEndpoint::new(self.directory(ClaimsOnly), [ISSUER], clients()))
            .global(GlobalEndpoint::new(self.directory(ClaimsOnly), [ISSUER], clients()));
        let check = RevocationLayer::new(self.revocations.denylist().clone(), Verify::new(verifier()));
        let inner =
            service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
        let request = Request::post(path)
            .header("content-type", kind)
            .header("authorization", format!("Basic {}", STANDARD.encode("app:app-secret")))
            .body(Full::from(body))
            .unwrap();
        let before = self.writes.load(Ordering::SeqCst);
        let response = EndpointLayer::new(check, endpoints).unwrap().layer(inner).oneshot(request).await.unwrap();
        (response.status(), self.writes.load(Ordering::SeqCst) - before)
    }

    fn is_revoked(&self, claims: Claims<'_>) -> bool {
        let identity =
            Identity::with_keys(&claims.iat(unix() - 5).exp(unix() + 600), self.revocations.denylist().hasher());
        matches!(self.revocations.check(&identity), Verdict::Deny(_))
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn a_token_is_one_write() {
    let setup = Setup::new(0, 0).await;
    let token = token(json!({"jti": "one"}));
    assert_eq!(setup.post("/oauth/revoke", FORM, format!("token={token}")).await, (StatusCode::OK, 1));
    assert!(setup.is_revoked(Claims::new(ISSUER).jti("one")));
}

/// The inner directory knows no sessions: that they end is the recorder's doing. The token is another user's, so that
/// the cutoff of `alice` does not reach it.
#[tokio::test]
async fn the_sessions_of_a_user_that_only_the_recorder_knows_end_in_one_write() {
    let setup = Setup::new(50, 1).await;
    let in_session = |sid| Claims::new(ISSUER).jti("x").sub("bob").sid(sid);
    assert!(!setup.is_revoked(in_session("session-49")));
    let body = "user_criterion_key=sub&user_criterion_value=alice".to_owned();
    assert_eq!(setup.post("/oauth/revoke_session", FORM, body).await, (StatusCode::OK, 1));
    assert!(setup.is_revoked(in_session("session-0")) && setup.is_revoked(in_session("session-49")));
    assert!(!setup.is_revoked(in_session("session-50")));
    assert!(setup.is_revoked(Claims::new(ISSUER).jti("y").sub("alice")));
}

#[tokio::test]
async fn a_user_with_ten_thousand_recorded_tokens_is_one_write() {
    let setup = Setup::new(100, 100).await;
    let body = json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "alice"}}).to_string();
    let answer = setup.post("/oauth/global-token-revocation", "application/json", body).await;
    assert_eq!(answer, (StatusCode::NO_CONTENT, 1));
    assert!(setup.is_revoked(Claims::new(ISSUER).jti("99-99").sub("alice")));
    assert!(setup.is_revoked(Claims::new(ISSUER).jti("z").sid("session-99")));
}

#[tokio::test]
async fn recorder_and_directory_answer_together() {
    let setup = Setup::new(2, 1).await;
    let directory = setup.directory(TwoEach);
    let alice = User::new(ISSUER, "alice");
    let found = directory.find_users("sub", "alice", &[ISSUER.to_owned()]).await.unwrap();
    assert_eq!(found, std::slice::from_ref(&alice));
    assert_eq!(directory.sessions_of(&alice).await.unwrap(), ["session-0", "elsewhere", "session-1"]);
    assert_eq!(directory.session_of_token(ISSUER, "1-0").await.unwrap().as_deref(), Some("session-1"));
    assert_eq!(directory.session_of_token(ISSUER, "unknown").await.unwrap().as_deref(), Some("elsewhere"));
    assert_eq!(setup.store.purge(unix() + 10_000).await.unwrap(), 2);
    assert_eq!(directory.sessions_of(&alice).await.unwrap(), ["session-0", "elsewhere"]);
}
