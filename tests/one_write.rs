//! However many sessions and tokens a revocation is about, it is one write to the backend.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
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
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{
        Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, Memory, NodeStatus,
        OneTime, Position,
    },
    denylist::{DenylistConfig, Verdict},
    directory::{ClaimsOnly, Directory, DirectoryError, RecordedDirectory, User},
    endpoint::{
        Clients, Endpoints, FrontLayer, GlobalEndpoint, RegisteredClient, SecretMethod, SessionEndpoint, TokenEndpoint,
    },
    recorder::{Ended, Grant, Member, MemoryStore, Recorded, Recorder, RecorderStore},
    revocation::{Change, Scope, ScopeKey},
    time::Clock,
    token::{Claims, Identity, OpaqueKeys, Verify},
};

/// Counts what is written, and fails where it is told.
#[derive(Default)]
struct Counting {
    inner: Memory,
    writes: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
}

impl Backend for Counting {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        self.inner.agree(ours)
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        if self.fails.load(Ordering::SeqCst) {
            let error = BackendError::new(BackendErrorKind::Unavailable, "as the test wants it");
            return future::ready(Err(error)).boxed();
        }
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

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.retire(node)
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

/// A store in which something turns up right after the first grants were marked, as another node records it.
#[derive(Clone, Default)]
struct Late {
    inner: MemoryStore,
    late: Arc<Mutex<Vec<(Grant, Member)>>>,
}

impl Late {
    fn comes_late(&self, grant: &Grant, member: Member) {
        self.late.lock().unwrap().push((grant.clone(), member));
    }
}

impl RecorderStore for Late {
    fn record<'a>(&'a self, grant: &'a Grant, all: &'a [Member]) -> BoxFuture<'a, Result<Recorded, BackendError>> {
        self.inner.record(grant, all)
    }

    fn find<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<Option<(Grant, Member)>, BackendError>> {
        self.inner.find(token)
    }

    fn grants<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Grant>, BackendError>> {
        self.inner.grants(scopes)
    }

    fn members<'a>(&'a self, grant: &'a str) -> BoxFuture<'a, Result<Vec<Member>, BackendError>> {
        self.inner.members(grant)
    }

    fn end<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Ended>, BackendError>> {
        async move {
            let ended = self.inner.end(scopes).await?;
            let late = std::mem::take(&mut *self.late.lock().unwrap());
            for (grant, member) in late {
                let _ = self.inner.record(&grant, &[member]).await?;
            }
            Ok(ended)
        }
        .boxed()
    }

    fn spend<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<bool, BackendError>> {
        self.inner.spend(token)
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.inner.purge(before)
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
    fails: Arc<AtomicBool>,
    store: Late,
    recorder: Recorder,
}

fn keys() -> OpaqueKeys {
    OpaqueKeys::new("test", [7; 32]).unwrap()
}

fn opaque(name: &str) -> Scope {
    Scope::opaque_token(keys().digests(name.as_bytes()).next().unwrap())
}

fn grant(id: &str, claims: Value) -> Grant {
    let mut all = json!({
        "id": id, "iss": ISSUER, "sub": "alice", "client_id": "app", "began": unix(), "expires": unix() + 900,
        "offline": false, "ended": false,
    });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

/// An access token that claims this.
fn member(token: Scope, says: Value) -> Member {
    let all = json!({
        "token": token, "alias": null, "kind": "access", "expires": unix() + 900, "spent": false, "says": says,
    });
    serde_json::from_value(all).unwrap()
}

fn jwt(session: usize, n: usize) -> Member {
    let says = json!({"sid": null, "sub": "alice", "client_id": "app", "iat": unix()});
    member(Scope::token(ISSUER, format!("{session}-{n}")), says)
}

fn unnamed(session: usize, n: usize) -> Member {
    member(opaque(&format!("{session}-{n}")), json!({}))
}

impl Setup {
    /// A user `alice` with so many recorded sessions, of so many tokens each.
    async fn new(sessions: usize, tokens: usize) -> Self {
        Self::with(sessions, tokens, jwt, |_| {}).await
    }

    async fn with(
        sessions: usize,
        tokens: usize,
        member: fn(usize, usize) -> Member,
        configure: impl FnOnce(&mut DenylistConfig),
    ) -> Self {
        let backend = Counting::default();
        let (writes, fails) = (backend.writes.clone(), backend.fails.clone());
        let mut config = common::config();
        configure(&mut config.denylist);
        let revocations = Revocations::start(backend, config).await.unwrap();
        let store = Late::default();
        for session in 0..sessions {
            let claims = json!({"sid": format!("session-{session}"), "began": unix() - 100 + session as u64});
            let members = (0..tokens).map(|n| member(session, n)).collect::<Vec<_>>();
            let _ = store.record(&grant(&format!("grant:{session}"), claims), &members).await.unwrap();
        }
        let recorder = Recorder::new(revocations.clone(), store.clone(), keys(), ISSUER);
        Self { revocations, writes, fails, store, recorder }
    }

    fn directory<D: Directory>(&self, users: D) -> RecordedDirectory<D> {
        RecordedDirectory::new(users, self.recorder.clone())
    }

    /// The status, and how many writes it took.
    async fn post(&self, path: &str, kind: &str, body: String) -> (StatusCode, usize) {
        self.post_as("app", path, kind, body).await
    }

    async fn post_as(&self, client: &str, path: &str, kind: &str, body: String) -> (StatusCode, usize) {
        let registered = |id| RegisteredClient::confidential(id, "secret", SecretMethod::Basic).any_issuer();
        let scopes = ["revoke_session", "global_token_revocation"];
        let all = Clients::new().client(registered("app").scopes(scopes)).unwrap();
        let all = all.client(registered("other")).unwrap();
        let clients = || all.clone();
        let endpoints = Endpoints::new(self.revocations.clone())
            .token(
                TokenEndpoint::new(verifier(), clients()).opaque(keys(), Duration::from_secs(900)).allow_all([ISSUER]),
            )
            .session(SessionEndpoint::new(self.directory(ClaimsOnly), [ISSUER], clients()))
            .global(GlobalEndpoint::new(self.directory(ClaimsOnly), [ISSUER], clients()));
        let source = Verify::new(verifier()).opaque(keys());
        let check = RevocationLayer::new(self.revocations.denylist().clone(), source);
        let inner =
            service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
        let request = Request::post(path)
            .header("content-type", kind)
            .header("authorization", format!("Basic {}", STANDARD.encode(format!("{client}:secret"))))
            .body(Full::from(body))
            .unwrap();
        let before = self.writes.load(Ordering::SeqCst);
        let layer = FrontLayer::new(check, endpoints).unwrap().recorder(self.recorder.clone(), "/oauth/token").unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        (response.status(), self.writes.load(Ordering::SeqCst) - before)
    }

    fn is_revoked(&self, claims: Claims<'_>) -> bool {
        let identity =
            Identity::with_keys(&claims.iat(unix() - 5).exp(unix() + 600), self.revocations.denylist().hasher());
        matches!(self.revocations.check(&identity), Verdict::Deny(_))
    }
}

impl Setup {
    async fn end_sessions(&self) -> (StatusCode, usize) {
        let body = "user_criterion_key=sub&user_criterion_value=alice".to_owned();
        self.post("/oauth/revoke_session", FORM, body).await
    }

    async fn end_all(&self) -> (StatusCode, usize) {
        let body = json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "alice"}}).to_string();
        self.post("/oauth/global-token-revocation", "application/json", body).await
    }

    fn records(&self) -> usize {
        self.revocations.denylist().records()
    }

    fn is_opaque_revoked(&self, name: &str) -> bool {
        let digest = keys().digests(name.as_bytes()).next().unwrap();
        self.is_revoked(Claims::new(ISSUER).opaque(&digest))
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
    let setup = Setup::new(50, 3).await;
    let in_session = |sid| Claims::new(ISSUER).jti("x").sub("bob").sid(sid);
    assert!(!setup.is_revoked(in_session("session-49")));
    assert_eq!(setup.end_sessions().await, (StatusCode::OK, 1));
    assert!(setup.is_revoked(in_session("session-0")) && setup.is_revoked(in_session("session-49")));
    assert!(!setup.is_revoked(in_session("session-50")));
    assert!(setup.is_revoked(Claims::new(ISSUER).jti("y").sub("alice")));
    assert_eq!(setup.records(), 1 + 50, "the cutoff and the sessions: it reaches the tokens by itself");
    let grants = setup.store.grants(&[Scope::subject(ISSUER, "alice")]).await.unwrap();
    assert!(grants.len() == 50 && grants.iter().all(|grant| grant.ended));
}

#[tokio::test]
async fn the_opaque_tokens_of_a_users_sessions_end_in_the_same_write() {
    let setup = Setup::with(50, 3, unnamed, |_| {}).await;
    assert_eq!(setup.end_sessions().await, (StatusCode::OK, 1));
    assert!(setup.is_opaque_revoked("0-0") && setup.is_opaque_revoked("49-2"));
    assert_eq!(setup.records(), 1 + 50 + 150);
}

#[tokio::test]
async fn a_user_with_ten_thousand_recorded_tokens_is_one_write() {
    let setup = Setup::new(100, 100).await;
    assert_eq!(setup.end_all().await, (StatusCode::NO_CONTENT, 1));
    assert!(setup.is_revoked(Claims::new(ISSUER).jti("99-99").sub("alice")));
    assert!(setup.is_revoked(Claims::new(ISSUER).jti("z").sid("session-99")));
    assert_eq!(setup.records(), 1 + 100);
}

#[tokio::test]
async fn a_user_with_ten_thousand_opaque_tokens_is_one_write() {
    let setup = Setup::with(100, 100, unnamed, |_| {}).await;
    assert_eq!(setup.end_all().await, (StatusCode::NO_CONTENT, 1));
    assert!(setup.is_opaque_revoked("0-0") && setup.is_opaque_revoked("99-99"));
    assert_eq!(setup.records(), 1 + 100 + 10_000);
    // Once more: what is covered already is not stored again.
    assert_eq!(setup.end_all().await, (StatusCode::NO_CONTENT, 1));
    assert_eq!(setup.records(), 2 * (1 + 100) + 10_000);
}

/// What a cutoff is keyed by must be in the token itself, and it must have been issued before.
#[tokio::test]
async fn only_tokens_that_the_cutoff_reaches_need_no_entry() {
    let reached = json!({"sub": "alice", "iat": unix()});
    for (token, says, entry) in [
        (Scope::token(ISSUER, "t"), reached.clone(), 0),
        (Scope::signing_input(ISSUER, [1; 32]), reached.clone(), 0),
        (Scope::token(ISSUER, "t"), json!({"sid": "session", "iat": unix()}), 0),
        (Scope::token(ISSUER, "t"), json!({"sid": "session"}), 0),
        (Scope::token(ISSUER, "t"), json!({"client_id": "app", "iat": unix()}), 1),
        (Scope::token(ISSUER, "t"), json!({"sub": "alice"}), 1),
        (Scope::token(ISSUER, "t"), json!({"sub": "alice", "iat": unix() + 40}), 1),
        (Scope::token(ISSUER, "t"), json!({"sub": "bob", "iat": unix()}), 1),
        (Scope::token("https://elsewhere.example/", "t"), reached, 1),
        (opaque("t"), json!({}), 1),
    ] {
        let setup = Setup::new(0, 0).await;
        let member = [member(token, says.clone())];
        let _ = setup.store.record(&grant("g", json!({"sid": "session"})), &member).await.unwrap();
        assert_eq!(setup.end_all().await, (StatusCode::NO_CONTENT, 1));
        assert_eq!(setup.records(), 2 + entry, "{says}");
    }
}

#[tokio::test]
async fn a_grant_is_one_write() {
    let setup = Setup::with(1, 3, unnamed, |_| {}).await;
    assert_eq!(setup.post("/oauth/revoke", FORM, "token=0-1".to_owned()).await, (StatusCode::OK, 1));
    assert!(["0-0", "0-1", "0-2"].iter().all(|name| setup.is_opaque_revoked(name)));
    // The grant and its tokens, each once.
    assert_eq!(setup.records(), 1 + 3);
    assert_eq!(setup.post("/oauth/revoke", FORM, "token=0-2".to_owned()).await, (StatusCode::OK, 0));
    assert_eq!(setup.recorder.end(&Scope::subject(ISSUER, "alice"), "test").await.unwrap(), 1);
    assert_eq!(setup.records(), 1 + 3 + 1, "a decision of code stands by itself");
}

#[tokio::test]
async fn code_ends_many_grants_in_one_write() {
    let setup = Setup::with(50, 2, unnamed, |_| {}).await;
    assert_eq!(setup.recorder.end(&Scope::subject(ISSUER, "alice"), "test").await.unwrap(), 50);
    assert_eq!((setup.writes.load(Ordering::SeqCst), setup.records()), (1, 50 * 3));
    assert!(setup.is_opaque_revoked("49-1"));
}

/// The mark stands, nothing was published, and nothing pretended: a retry does all of it.
#[tokio::test]
async fn f33_a_retry_publishes_what_is_marked_already() {
    for token_alone in [false, true] {
        let setup = Setup::with(2, 2, unnamed, |_| {}).await;
        let revoke = async || match token_alone {
            true => setup.post("/oauth/revoke", FORM, "token=1-0".to_owned()).await,
            false => setup.end_all().await,
        };
        setup.fails.store(true, Ordering::SeqCst);
        assert_eq!(revoke().await, (StatusCode::SERVICE_UNAVAILABLE, 0));
        assert!(!setup.is_opaque_revoked("1-1"));
        setup.fails.store(false, Ordering::SeqCst);
        let (status, writes) = revoke().await;
        assert!(status.is_success() && writes == 1, "{status} {writes}");
        assert!(setup.is_opaque_revoked("1-0") && setup.is_opaque_revoked("1-1"));
    }
}

/// F30: what another node records while a revocation is being written does not get away; who logs in after it does.
#[tokio::test]
async fn f30_what_is_recorded_between_mark_and_write_ends() {
    let setup = Setup::with(1, 1, unnamed, |_| {}).await;
    let before = grant("grant:before", json!({"began": unix() - 5}));
    let after = grant("grant:after", json!({"began": unix() + 100}));
    setup.store.comes_late(&before, member(opaque("before"), json!({})));
    setup.store.comes_late(&after, member(opaque("after"), json!({})));
    assert_eq!(setup.end_all().await, (StatusCode::NO_CONTENT, 2));
    assert!(setup.is_opaque_revoked("0-0") && setup.is_opaque_revoked("before"));
    assert!(!setup.is_opaque_revoked("after"));
    let ended = setup.store.grants(&[Scope::session(ISSUER, "grant:before")]).await.unwrap();
    assert!(ended[0].ended);
    let goes_on = setup.store.grants(&[Scope::session(ISSUER, "grant:after")]).await.unwrap();
    assert!(!goes_on[0].ended);
}

/// Rule 4: a client that revokes over and over keeps nobody else from it.
#[tokio::test]
async fn rule_4_ending_grants_has_quotas() {
    let setup = Setup::with(30, 3, unnamed, |config| {
        (config.budget, config.client_quota, config.subject_quota) = (100, 20, 1000);
    })
    .await;
    let mut refused = 0;
    for session in 0..30 {
        match setup.post("/oauth/revoke", FORM, format!("token={session}-0")).await {
            (StatusCode::OK, 1) => assert!(setup.is_opaque_revoked(&format!("{session}-2"))),
            (StatusCode::SERVICE_UNAVAILABLE, 0) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    // Its quota counts its own tokens and those that it presents; what is counted over both is at most twice of it.
    assert!(refused > 10 && setup.records() <= 40, "{refused} {}", setup.records());
    let other = token(json!({"jti": "other", "sub": "bob", "client_id": "other"}));
    assert_eq!(setup.post_as("other", "/oauth/revoke", FORM, format!("token={other}")).await, (StatusCode::OK, 1));
    let body = "user_criterion_key=sub&user_criterion_value=bob".to_owned();
    assert_eq!(setup.post("/oauth/revoke_session", FORM, body).await, (StatusCode::OK, 1));
}

/// Rule 4: one request counts as a whole, and never takes the last fifth.
#[tokio::test]
async fn rule_4_one_grant_of_many_tokens() {
    let body = || "token=0-0".to_owned();
    let setup = Setup::with(1, 90, unnamed, |config| config.budget = 100).await;
    for token in ["token=0-0", "token=all"] {
        let answer = setup.post("/oauth/revoke", FORM, token.to_owned()).await;
        assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, 0), "{token}");
    }
    let setup = Setup::with(1, 90, unnamed, |config| config.subject_quota = 50).await;
    assert_eq!(setup.post("/oauth/revoke", FORM, body()).await, (StatusCode::SERVICE_UNAVAILABLE, 0));
    assert_eq!(setup.records(), 0);
    // An administrator's has no quota.
    assert_eq!(setup.end_sessions().await, (StatusCode::OK, 1));
    assert!(setup.is_opaque_revoked("0-89"));
}

/// Rule 4: where the tokens say whose they are, all of that user's tokens at that client are cut off instead.
#[tokio::test]
async fn rule_4_jwts_over_quota_are_coarsened() {
    let setup = Setup::with(1, 90, jwt, |config| config.subject_quota = 10).await;
    let presented = token(json!({"jti": "0-0"}));
    let id = setup.store.grants(&[Scope::subject(ISSUER, "alice")]).await.unwrap().remove(0).id;
    let _ = setup.store.record(&grant(&id, json!({})), &[member(opaque("x"), json!({}))]).await.unwrap();
    assert_eq!(setup.post("/oauth/revoke", FORM, format!("token={presented}")).await, (StatusCode::OK, 1));
    assert!(setup.is_opaque_revoked("x"), "the quota is for what nothing wider reaches");
    assert!(setup.is_revoked(Claims::new(ISSUER).jti("0-89").sub("alice").client_id("app")));
    assert!(!setup.is_revoked(Claims::new(ISSUER).jti("x").sub("alice").client_id("other")));
    assert!(setup.records() <= 12, "{}", setup.records());
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
