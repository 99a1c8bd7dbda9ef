//! A denylist whose entries are not all in memory, behind axum over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use common::{
    ISSUER, eventually,
    faulty::{Faults, Faulty},
    listen, token, unix, verifier,
};
use serde_json::json;
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{Backend, Memory, Sqlite},
    denylist::{Mode, Staleness, Tiered, Verdict, Why},
    policy::Policy,
    revocation::{Revocation, Scope},
    sync::{StartError, SyncConfig},
    time::ManualClock,
    token::{Claims, FromExtension, Identity, Peek, TokenCacheConfig, Verifier, VerifierBehind, Verify},
};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(60);

/// A node that has nothing at hand, unless it was just asked for.
fn forgetful() -> Tiered {
    Tiered::default().entries(0).look_up_limit(LONG).look_ups_per_source(u32::MAX)
}

fn config(tiered: Tiered) -> SyncConfig {
    let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(30)));
    config.denylist.mode = Mode::Tiered(tiered);
    config
}

struct Site {
    address: SocketAddr,
    revocations: Revocations,
    faults: Arc<Faults>,
    /// How many requests reached the service behind.
    passed: Arc<AtomicUsize>,
}

impl Site {
    async fn with(backend: impl Backend, config: SyncConfig) -> Self {
        let backend = Faulty::new(backend);
        let faults = Arc::clone(&backend.faults);
        let revocations = Revocations::start(backend, config).await.unwrap();
        let passed = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&passed);
        let app = Router::new().route(
            "/",
            get(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async { "in" }
            }),
        );
        let source = Verify::new(verifier()).cache(TokenCacheConfig::max_bytes(1 << 20));
        let layer = RevocationLayer::with_policy(revocations.denylist().clone(), source, Policy::default());
        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, app.layer(layer.asking())).await });
        Self { address, revocations, faults, passed }
    }

    async fn new(tiered: Tiered) -> Self {
        Self::with(Memory::new(), config(tiered)).await
    }

    /// Revokes, and drops the entry.
    async fn revoke(&self, scope: Scope) {
        let _ = self.revocations.revoke(Revocation::new(scope)).await.unwrap();
        self.evict();
    }

    fn evict(&self) {
        self.revocations.denylist().maintain();
    }

    async fn status(&self, token: &str) -> u16 {
        status(self.address, token).await
    }

    fn looked_up(&self) -> usize {
        self.faults.looked_up.load(Ordering::SeqCst)
    }

    fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }
}

async fn status(address: SocketAddr, token: &str) -> u16 {
    common::get(address, "/", &[&format!("authorization: Bearer {token}")]).await.status
}

fn of(sub: &str) -> String {
    token(json!({"sub": sub, "jti": format!("token of {sub}"), "iat": unix() - 10}))
}

fn identity(token: &str) -> Identity {
    verifier().verify(token, unix()).unwrap()
}

/// L1, L2: what is dropped from memory is refused all the same, and nobody else is.
async fn refuses_what_it_has_dropped(backend: impl Backend) {
    let site = Site::with(backend, config(forgetful().entries(8))).await;
    let scopes = (0..200).map(|n| Revocation::new(Scope::subject(ISSUER, format!("gone {n}"))));
    site.revocations.revoke_all(scopes).await.unwrap();
    site.evict();
    for n in 0..200 {
        assert_eq!(site.status(&of(&format!("gone {n}"))).await, 401, "{n}");
        assert_eq!(site.status(&of(&format!("here {n}"))).await, 200, "{n}");
    }
    assert_eq!(site.passed(), 200);
    assert!((190..=210).contains(&site.looked_up()), "about once for each that was dropped: {}", site.looked_up());
}

#[tokio::test]
async fn l1_what_is_dropped_is_refused_memory() {
    refuses_what_it_has_dropped(Memory::new()).await;
}

#[tokio::test]
async fn l1_what_is_dropped_is_refused_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Sqlite::open(folder.path().join("revocations.db")).await.unwrap();
    refuses_what_it_has_dropped(backend).await;
}

/// L2: a restart forgets nothing, though it loads the filter alone.
#[tokio::test]
async fn l2_a_restart_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revocations.db");
    for run in 0..3 {
        let backend = Sqlite::open(&path).await.unwrap();
        let site = Site::with(backend, config(forgetful())).await;
        site.evict();
        for n in 0..run {
            assert_eq!(site.status(&of(&n.to_string())).await, 401, "{n} in run {run}");
        }
        assert_eq!(site.status(&of(&run.to_string())).await, 200);
        site.revoke(Scope::subject(ISSUER, run.to_string())).await;
        assert_eq!(site.status(&of(&run.to_string())).await, 401);
        site.revocations.shutdown().await;
    }
}

/// A token that the filter takes for a revoked one passes once the backend was asked, and then without asking.
#[tokio::test]
async fn a_false_maybe_passes_and_is_asked_once() {
    let site = Site::new(forgetful().entries(1000)).await;
    let all = (0..60_000).map(|n| Revocation::new(Scope::token(ISSUER, format!("revoked {n}"))));
    for part in all.collect::<Vec<_>>().chunks(1000) {
        site.revocations.revoke_all(part.to_vec()).await.unwrap();
    }
    let now = unix();
    let denylist = site.revocations.denylist();
    let unclear = |n: &usize| {
        let jti = format!("innocent {n}");
        let claims = Claims::new(ISSUER).jti(&jti).iat(now).exp(now + 600);
        denylist.check(&Identity::from_verified(&claims)) == Verdict::Unknown(Why::NotAsked)
    };
    let jti = (0..100_000).find(unclear).expect("a filter without a false maybe");
    let token = token(json!({"jti": format!("innocent {jti}")}));
    assert_eq!((site.status(&token).await, site.looked_up()), (200, 1));
    let _ = site.revocations.revoke(Revocation::new(Scope::subject(ISSUER, "somebody"))).await.unwrap();
    assert_eq!((site.status(&token).await, site.looked_up()), (200, 1), "remembered, also under a new generation");
    let _ = site.revocations.revoke(Revocation::new(Scope::token(ISSUER, format!("innocent {jti}")))).await.unwrap();
    assert_eq!((site.status(&token).await, site.looked_up()), (401, 1), "what was remembered is revoked now");
}

/// Nobody passes while the backend is away, and the service behind sees nothing of it.
#[tokio::test]
async fn l1_a_backend_that_is_away_lets_nobody_pass() {
    let site = Site::new(forgetful()).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    site.faults.lookup.store(true, Ordering::SeqCst);
    let answer = common::get(site.address, "/", &[&format!("authorization: Bearer {}", of("alice"))]).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!((site.status(&of("bob")).await, site.passed()), (200, 1), "who is surely not revoked passes");
    site.faults.lookup.store(false, Ordering::SeqCst);
    assert_eq!(site.status(&of("alice")).await, 401);
}

/// The same where a stale list is served from: a "maybe" is what this node has heard of.
#[tokio::test]
async fn l1_serving_stale_does_not_pass_a_maybe() {
    let mut config = config(forgetful());
    config.denylist.staleness = Staleness::serve_after(Duration::from_secs(30));
    let site = Site::with(Memory::new(), config).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    site.faults.lookup.store(true, Ordering::SeqCst);
    assert_eq!((site.status(&of("alice")).await, site.passed()), (503, 0));
}

/// L8: a request waits for as long as was said, and no longer.
#[tokio::test]
async fn l8_a_backend_that_is_silent_is_waited_for_within_a_limit() {
    let site = Site::new(forgetful().look_up_limit(Duration::from_millis(50))).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    site.faults.late.store(true, Ordering::SeqCst);
    assert_eq!((site.status(&of("alice")).await, site.passed()), (503, 0));
    site.faults.late.store(false, Ordering::SeqCst);
    assert_eq!(site.status(&of("alice")).await, 401);
}

/// A hundred requests of one user make one look-up.
#[tokio::test]
async fn who_waits_for_the_same_scope_waits_for_one_look_up() {
    let site = Site::new(forgetful()).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    site.faults.late.store(true, Ordering::SeqCst);
    let address = site.address;
    let asking: Vec<_> = (0..100).map(|_| tokio::spawn(async move { status(address, &of("alice")).await })).collect();
    eventually("somebody asks", async || site.looked_up() > 0).await;
    // Whoever gives up does not take the answer with them.
    asking[0].abort();
    // Other scopes are not held up.
    assert_eq!(site.status(&of("bob")).await, 200);
    site.faults.late.store(false, Ordering::SeqCst);
    for (n, asking) in asking.into_iter().enumerate().skip(1) {
        assert_eq!(asking.await.unwrap(), 401, "{n}");
    }
    // Requests that came after the answer find it at hand or ask again; most came before.
    assert!(site.looked_up() <= 50, "{} look-ups", site.looked_up());
}

/// A server on another runtime outlives the one that asks: it refuses, and goes on answering.
#[test]
fn l1_nobody_passes_or_waits_once_nobody_asks() {
    let theirs = tokio::runtime::Runtime::new().unwrap();
    let revocations = theirs.block_on(async {
        let revocations = Revocations::start(Memory::new(), config(forgetful())).await.unwrap();
        let _ = revocations.revoke(Revocation::new(Scope::subject(ISSUER, "alice"))).await.unwrap();
        revocations.denylist().maintain();
        revocations
    });
    theirs.shutdown_background();
    let (denylist, (answered, answer)) = (revocations.denylist().clone(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        let ours = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..2 {
            answered.send(ours.block_on(denylist.check_or_ask(&identity(&of("alice"))))).unwrap();
        }
    });
    for _ in 0..2 {
        let verdict = answer.recv_timeout(LONG).expect("an answer");
        assert!(matches!(verdict, Verdict::Unknown(_) | Verdict::Deny(_)), "{verdict:?}");
    }
}

/// A look-up that was answered before a revocation does not hide it.
#[tokio::test]
async fn l1_what_is_revoked_during_a_look_up_is_refused() {
    let site = Site::new(forgetful()).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    let ids = site.revocations.find_revocations_of(&Scope::subject(ISSUER, "alice")).await.unwrap();
    site.revocations.lift(&Scope::subject(ISSUER, "alice"), &ids, "the test").await.unwrap();
    site.evict();
    let asked = site.looked_up();
    assert_eq!((site.status(&of("alice")).await, site.looked_up()), (200, asked + 1), "lifted, and asked for");
    site.evict();
    site.faults.late.store(true, Ordering::SeqCst);
    let address = site.address;
    let asking = tokio::spawn(async move { status(address, &of("alice")).await });
    eventually("it asks", async || site.looked_up() == asked + 2).await;
    // The backend has answered by now: "not revoked".
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    site.faults.late.store(false, Ordering::SeqCst);
    assert_eq!(asking.await.unwrap(), 401);
    assert_eq!(site.status(&of("alice")).await, 401);
}

/// Rule 27: one user cannot make a node ask as often as they like.
#[tokio::test]
async fn rule27_look_ups_are_limited_for_each_user() {
    let mut config = config(forgetful().look_ups_per_source(3));
    config.denylist.clock = Arc::new(ManualClock::at(unix()));
    let site = Site::with(Memory::new(), config).await;
    let jtis = (0..8).map(|n| Revocation::new(Scope::token(ISSUER, n.to_string())));
    site.revocations.revoke_all(jtis).await.unwrap();
    site.evict();
    let mut answers = Vec::new();
    for n in 0..6 {
        answers.push(site.status(&token(json!({"jti": n.to_string(), "sub": "alice"}))).await);
    }
    assert_eq!(answers, [401, 401, 401, 503, 503, 503]);
    assert_eq!(site.status(&token(json!({"jti": "7", "sub": "bob"}))).await, 401, "others are not held up");
    assert_eq!(site.looked_up(), 4);
}

/// Rule 27: nobody asks for a token that is not verified, and a door that cannot wait refuses.
#[tokio::test]
async fn rule27_who_cannot_ask_refuses() {
    let site = Site::new(forgetful()).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    let app = || Router::new().route("/", get(|| async { "in" }));
    let serve = async |app: Router| {
        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    };
    let denylist = site.revocations.denylist();
    let peek = Peek::new(VerifierBehind::i_promise()).issuer(ISSUER);
    let peeking = serve(app().layer(RevocationLayer::new(denylist.clone(), peek).asking())).await;
    let waiting_not = serve(app().layer(RevocationLayer::new(denylist.clone(), Verify::new(verifier())))).await;
    for address in [peeking, waiting_not] {
        assert_eq!((status(address, &of("alice")).await, status(address, &of("bob")).await), (503, 200));
    }
    assert_eq!(site.revocations.check(&identity(&of("alice"))), Verdict::Unknown(Why::NotAsked));
    assert_eq!(site.looked_up(), 0);
    assert!(matches!(site.revocations.check_or_ask(&identity(&of("alice"))).await, Verdict::Deny(_)));
    assert_eq!(site.looked_up(), 1);
}

/// Identities that a layer outside has verified are asked for.
#[tokio::test]
async fn verified_claims_are_asked_for() {
    let site = Site::new(forgetful()).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    let layer = RevocationLayer::new(site.revocations.denylist().clone(), FromExtension::<Identity>::new());
    for (sub, expected) in [("alice", 401), ("bob", 200)] {
        let app = Router::new().route("/", get(|| async { "in" }));
        let app = app.layer(layer.clone().asking()).layer(axum::Extension(identity(&of(sub))));
        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, app).await });
        assert_eq!(status(address, &of(sub)).await, expected, "{sub}");
    }
    assert_eq!(site.looked_up(), 1);
}

/// What is lifted passes, whether the lift came before or after the entry was dropped.
#[tokio::test]
async fn what_was_lifted_passes() {
    let site = Site::new(forgetful()).await;
    let scope = Scope::subject(ISSUER, "alice");
    for round in 0..3 {
        site.revoke(scope.clone()).await;
        assert_eq!(site.status(&of("alice")).await, 401, "{round}");
        site.evict();
        let ids = site.revocations.find_revocations_of(&scope).await.unwrap();
        assert_eq!(ids.len(), 1, "{round}");
        site.revocations.lift(&scope, &ids, "the test").await.unwrap();
        assert_eq!(site.status(&of("alice")).await, 200, "{round}: at hand");
        site.evict();
        assert_eq!(site.status(&of("alice")).await, 200, "{round}: dropped");
    }
    // A ban is found by the one who ends it.
    let _ = site.revocations.revoke(Revocation::ban(scope.clone())).await.unwrap();
    site.evict();
    site.revocations.enable(&scope, "the test").await.unwrap();
    site.evict();
    assert_eq!(site.status(&of("alice")).await, 401, "issued before");
    let later = token(json!({"sub": "alice", "iat": unix() + 20}));
    assert_eq!(site.status(&later).await, 200);
}

/// A node that refuses anyway asks nobody.
#[tokio::test]
async fn a_stale_node_does_not_ask() {
    let mut config = config(forgetful());
    let clock = Arc::new(ManualClock::at(unix()));
    config.denylist.clock = clock.clone();
    let site = Site::with(Memory::new(), config).await;
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    site.revocations.shutdown().await;
    clock.advance(Duration::from_secs(60));
    assert_eq!((site.status(&of("alice")).await, site.looked_up()), (503, 0));
}

/// What the backend lost and this node has not at hand, it cannot give back: no copy is made of it.
#[tokio::test]
async fn no_copy_is_kept() {
    let mut config = config(forgetful());
    config.keep_copy = Some("/nowhere/copy".into());
    let error = Revocations::start(Memory::new(), config).await.unwrap_err();
    assert!(matches!(error, StartError::NoCopy { .. }), "{error}");
}
