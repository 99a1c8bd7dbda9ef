//! Several nodes on one store: who is fresh, who enforces, and when a revocation holds everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use axum::Router;
use common::{Answer, ISSUER, eventually, faulty::Faulty, log::Log};
use http::{Request, header};
use tower_revocation::{
    Guard, RevocationLayer, Revocations,
    backend::{Backend, Memory, NodeStatus},
    denylist::{Staleness, Verdict, Why},
    endpoint::{
        Clients, EndpointName, Endpoints, FrontLayer, Incomplete, Mode, RegisteredClient, SecretMethod, TokenEndpoint,
        Wait,
    },
    policy::{Policy, StaleRequests},
    revocation::{Revocation, Scope},
    sync::{Lag, SyncConfig},
    time::ManualClock,
    token::{Claims, FromExtension, Identity, Verifier as _, Verify},
};

const LEASE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(5);

fn config(name: &str, staleness: Staleness, clock: &Arc<ManualClock>) -> SyncConfig {
    let mut config = SyncConfig::new(staleness);
    config.node = name.to_owned();
    config.denylist.clock = clock.clone();
    config
}

/// Two processes under one name: each is waited for, and both say that there is another.
#[tokio::test]
async fn two_processes_of_one_name_are_both_waited_for() {
    let log = Log::start();
    let (store, clock) = (Memory::new(), clock());
    let publisher = node("publisher", store.clone(), &clock).await;
    let (one, two) = (Faulty::new(store.clone()), Faulty::new(store.clone()));
    let (one_node, two_node) = (node("same", one.clone(), &clock).await, node("same", two.clone(), &clock).await);
    // The clock of the leases stands still but for this.
    eventually("both notice", async || {
        clock.advance(Duration::from_millis(1));
        [&one_node, &two_node].map(|node| node.status().namesakes) == [1, 1]
    })
    .await;
    assert_eq!(publisher.status().namesakes, 0);
    assert!(log.text().contains("give each node a name of its own"), "{}", log.text());

    for (jti, halted, other) in [("x", &one, &two_node), ("y", &two, &one_node)] {
        // Renews its lease, and hears nothing of what is revoked; the other one confirms.
        halted.faults.halt.store(true, SeqCst);
        let _ = publisher.revoke(Revocation::new(scope(jti))).await.unwrap();
        eventually("the other applies it", async || other.status().applied == publisher.status().applied).await;
        let everywhere = publisher.everywhere(Duration::from_millis(300)).await.unwrap();
        let named: Vec<_> = everywhere.unconfirmed.iter().map(ToString::to_string).collect();
        assert_eq!(named, ["same (behind)"]);
        halted.faults.halt.store(false, SeqCst);
        eventually("both confirm", async || publisher.everywhere(SOON).await.unwrap().is_complete()).await;
    }
    drop(two_node);
    eventually("one is alone again", async || {
        clock.advance(LEASE / 10);
        one_node.status().namesakes == 0
    })
    .await;
}

/// A node that was started again is no other node; until the lease of the run before has ended, that one may serve.
#[tokio::test]
async fn a_restart_is_no_namesake_and_the_run_before_is_waited_for() {
    let (store, clock) = (Memory::new(), clock());
    let publisher = node("publisher", store.clone(), &clock).await;
    let before = NodeStatus::new("a", true, LEASE);
    store.heartbeat(&before).await.unwrap();
    let again = node("a", store, &clock).await;
    let _ = publisher.revoke(Revocation::new(scope("x"))).await.unwrap();
    let everywhere = publisher.everywhere(Duration::from_millis(300)).await.unwrap();
    let named: Vec<_> = everywhere.unconfirmed.iter().map(|node| (&*node.node, node.session)).collect();
    assert_eq!(named, [("a", before.session)]);
    assert!(!again.everywhere(Duration::from_millis(300)).await.unwrap().is_complete());
    assert_eq!(again.status().namesakes, 0);
    clock.advance(LEASE + LEASE / 10);
    assert!(publisher.everywhere(SOON).await.unwrap().is_complete());
}

async fn node(name: &str, backend: impl Backend, clock: &Arc<ManualClock>) -> Revocations {
    Revocations::start(backend, config(name, Staleness::refuse_after(LEASE), clock)).await.unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(1_800_000_000))
}

fn scope(jti: &str) -> Scope {
    Scope::token(ISSUER, jti)
}

fn token(jti: &str) -> Identity {
    Identity::from_verified(&Claims::new(ISSUER).jti(jti).iat(1_799_999_900).exp(1_800_000_600))
}

#[tokio::test]
async fn everywhere_is_when_all_nodes_have_applied_it() {
    let (store, clock) = (Memory::new(), clock());
    let a = node("a", store.clone(), &clock).await;
    let b = node("b", store.clone(), &clock).await;
    let c = node("c", store.clone(), &clock).await;
    let _ = a.revoke(Revocation::new(scope("x"))).await.unwrap();
    let everywhere = a.everywhere(SOON).await.unwrap();
    assert!(everywhere.is_complete(), "{everywhere:?}");
    for node in [&a, &b, &c] {
        assert!(matches!(node.check(&token("x")), Verdict::Deny(_)));
    }
    let names: Vec<_> = a.nodes().into_iter().map(|node| node.status.node).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

/// A node that is still on the list and says nothing any more is waited for, and named, until its lease has run out.
#[tokio::test]
async fn a_silent_node_is_named_until_its_lease_ends() {
    let (store, clock) = (Memory::new(), clock());
    let a = node("a", store.clone(), &clock).await;
    let silent = NodeStatus::new("silent", true, LEASE);
    store.heartbeat(&silent).await.unwrap();
    let _ = a.revoke(Revocation::new(scope("x"))).await.unwrap();
    let everywhere = a.everywhere(Duration::from_millis(300)).await.unwrap();
    assert_eq!(everywhere.unconfirmed.len(), 1, "{everywhere:?}");
    assert_eq!((&*everywhere.unconfirmed[0].node, everywhere.unconfirmed[0].why), ("silent", Lag::Behind));
    assert_eq!(everywhere.unconfirmed[0].to_string(), "silent (behind)");

    // Its own clock may be slow: the lease alone is not enough.
    clock.advance(LEASE);
    assert!(!a.everywhere(Duration::from_millis(300)).await.unwrap().is_complete());
    clock.advance(LEASE / 10);
    assert!(a.everywhere(SOON).await.unwrap().is_complete());

    // Long after that it is off the list.
    clock.advance(LEASE * 30);
    eventually("the silent node is forgotten", async || a.nodes().iter().all(|node| node.status.node != "silent"))
        .await;
}

/// A wall clock that jumps ahead ends no lease.
#[tokio::test]
async fn a_wall_clock_that_jumps_does_not_end_the_wait() {
    let (store, clock) = (Memory::new(), clock());
    let a = node("a", store.clone(), &clock).await;
    store.heartbeat(&NodeStatus::new("silent", true, LEASE)).await.unwrap();
    let _ = a.revoke(Revocation::new(scope("x"))).await.unwrap();
    clock.step_wall(1_800_100_000);
    assert!(!a.everywhere(Duration::from_millis(500)).await.unwrap().is_complete());
}

/// As long as a node renews its announcement it may be fresh by what it asked before the write: it has to confirm.
#[tokio::test]
async fn a_node_that_says_nothing_new_about_its_place_is_waited_for() {
    let (store, clock) = (Memory::new(), clock());
    let a = node("a", store.clone(), &clock).await;
    let mut behind = NodeStatus::new("behind", true, LEASE);
    behind.applied = a.status().applied;
    store.heartbeat(&behind).await.unwrap();
    let _ = a.revoke(Revocation::new(scope("x"))).await.unwrap();
    assert!(!a.everywhere(Duration::from_millis(200)).await.unwrap().is_complete());
    eventually("it says that it has applied the write", async || {
        let mut status = behind.clone();
        status.applied = a.status().applied;
        status.beat = a.nodes().iter().find(|node| node.status.node == "behind").unwrap().status.beat + 1;
        store.heartbeat(&status).await.unwrap();
        a.everywhere(Duration::from_millis(200)).await.unwrap().is_complete()
    })
    .await;
}

#[tokio::test]
async fn nodes_that_serve_while_stale_never_count() {
    let (store, clock) = (Memory::new(), clock());
    let a = node("a", store.clone(), &clock).await;
    let lax = Revocations::start(store.clone(), config("lax", Staleness::serve_after(LEASE), &clock)).await.unwrap();
    let partly = node("partly", store.clone(), &clock).await;
    let policy = Policy::default().stale(StaleRequests::Serve);
    let guard = Guard::new(partly.denylist().clone(), FromExtension::<Identity>::new(), policy);
    let _ = a.revoke(Revocation::new(scope("x"))).await.unwrap();
    eventually("both are named", async || {
        let everywhere = a.everywhere(SOON).await.unwrap();
        let serves: Vec<_> = everywhere.unconfirmed.iter().map(|node| (&*node.node, node.why)).collect();
        serves == [("lax", Lag::ServesStale), ("partly", Lag::ServesStale)]
    })
    .await;
    drop((lax, guard));
}

/// A node that hears the feed but cannot announce itself refuses before others stop waiting for it, and comes back by
/// itself.
#[tokio::test]
async fn a_node_that_cannot_renew_its_lease_refuses() {
    let (store, clock) = (Memory::new(), clock());
    let faulty = Faulty::new(store.clone());
    let b = node("b", faulty.clone(), &clock).await;
    assert_eq!(b.check(&token("x")), Verdict::Allow);
    faulty.faults.heartbeat.store(true, SeqCst);
    clock.advance(LEASE + Duration::from_millis(1));
    // Its feed goes on: what is revoked is refused for that, everything else for the lease.
    let _ = node("a", store, &clock).await.revoke(Revocation::new(scope("y"))).await.unwrap();
    eventually("the feed", async || matches!(b.check(&token("y")), Verdict::Deny(_))).await;
    assert_eq!(b.check(&token("x")), Verdict::Unknown(Why::Stale));
    faulty.faults.heartbeat.store(false, SeqCst);
    eventually("it joins again", async || b.check(&token("x")) == Verdict::Allow).await;
}

/// Nobody waits for a node before it has joined: so it is not ready before.
#[tokio::test]
async fn a_node_that_cannot_join_is_not_ready() {
    let clock = clock();
    let faulty = Faulty::new(Memory::new());
    faulty.faults.heartbeat.store(true, SeqCst);
    let b =
        Revocations::start_unloaded(faulty.clone(), config("b", Staleness::refuse_after(LEASE), &clock)).await.unwrap();
    assert!(b.loaded(Duration::from_millis(500)).await.is_err());
    assert_eq!(b.check(&token("x")), Verdict::Unknown(Why::NotReady));
    faulty.faults.heartbeat.store(false, SeqCst);
    b.loaded(SOON).await.unwrap();
    assert_eq!(b.check(&token("x")), Verdict::Allow);
}

/// One class of routes serves on while the list is stale, another refuses; both refuse what is revoked.
#[tokio::test]
async fn staleness_by_class_of_routes() {
    let (store, clock) = (Memory::new(), clock());
    let faulty = Faulty::new(store);
    let a = node("a", faulty.clone(), &clock).await;
    let _ = a.revoke(Revocation::new(scope("x"))).await.unwrap();
    let guard =
        |stale| Guard::new(a.denylist().clone(), FromExtension::<Identity>::new(), Policy::default().stale(stale));
    let (usual, lax) = (guard(StaleRequests::AsConfigured), guard(StaleRequests::Serve));
    let request = |jti| {
        let request =
            Request::builder().header(header::AUTHORIZATION, "Bearer t").extension(token(jti)).body(()).unwrap();
        request.into_parts().0
    };
    assert!(usual.check_parts(&request("y")).is_ok() && lax.check_parts(&request("y")).is_ok());
    faulty.faults.heartbeat.store(true, SeqCst);
    clock.advance(LEASE * 2);
    assert!(usual.check_parts(&request("y")).is_err());
    assert!(lax.check_parts(&request("y")).is_ok());
    assert!(lax.check_parts(&request("x")).is_err(), "what is known to be revoked");
    assert_eq!((usual.served_stale(), lax.served_stale()), (0, 1));
}

/// A server with this waiting at its token endpoint; it also has a public client.
async fn serve(revocations: &Revocations, mode: Mode, wait: Wait) -> SocketAddr {
    let app = RegisteredClient::confidential("app", "secret", SecretMethod::Basic).issuers([ISSUER]);
    let public = RegisteredClient::public("public").issuers([ISSUER]);
    let clients = Clients::new().client(app).and_then(|clients| clients.client(public)).unwrap();
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(common::verifier()));
    let endpoints = Endpoints::new(revocations.clone())
        .token(TokenEndpoint::new(common::verifier(), clients))
        .wait(EndpointName::Token, wait);
    let layer = FrontLayer::new(check, endpoints).unwrap().mode(EndpointName::Token, mode);
    let router = Router::new().fallback(|| async { "from behind" }).layer(layer);
    let (listener, address) = common::listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn revoke(address: SocketAddr, client: &str) -> Answer {
    let (header, id) = match client {
        "app" => ("authorization: Basic YXBwOnNlY3JldA==\r\n", ""),
        _ => ("", "&client_id=public"),
    };
    let token = common::token(serde_json::json!({"jti": format!("{client}-token"), "client_id": client}));
    let body = format!("token={token}{id}");
    let head = format!(
        "POST /oauth/revoke HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{header}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    common::raw(address, head + &body).await
}

#[tokio::test]
async fn an_endpoint_that_waits_answers_success_once_it_holds_everywhere() {
    let (store, clock) = (Memory::new(), Arc::new(ManualClock::at(common::unix())));
    let a = node("a", store.clone(), &clock).await;
    let b = node("b", store.clone(), &clock).await;
    let wait = |otherwise| Wait::Everywhere { limit: Duration::from_secs(2), otherwise };
    let address = serve(&a, Mode::Terminate, wait(Incomplete::Unavailable)).await;
    assert_eq!(revoke(address, "app").await.status, 200);
    let dead = common::verifier().verify(&common::token(serde_json::json!({"jti": "app-token"})), common::unix());
    assert!(matches!(b.check(&dead.unwrap()), Verdict::Deny(_)), "at once, on the other node");
}

/// Says which nodes have not confirmed, to those who may know; the revocation stands.
#[tokio::test]
async fn an_endpoint_that_waits_says_who_has_not_confirmed() {
    let (store, clock) = (Memory::new(), Arc::new(ManualClock::at(common::unix())));
    let a = node("a", store.clone(), &clock).await;
    store.heartbeat(&NodeStatus::new("silent", true, LEASE)).await.unwrap();
    let wait = |otherwise| Wait::Everywhere { limit: Duration::from_millis(200), otherwise };

    let strict = serve(&a, Mode::Terminate, wait(Incomplete::Unavailable)).await;
    let answer = revoke(strict, "app").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{}", answer.body);
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["error"], "temporarily_unavailable");
    assert_eq!(body["unconfirmed"], serde_json::json!(["silent (behind)"]));
    let answer = revoke(strict, "public").await;
    assert_eq!(answer.status, 503);
    assert!(!answer.body.contains("silent"), "{}", answer.body);

    let lax = serve(&a, Mode::Terminate, wait(Incomplete::Accepted)).await;
    let answer = revoke(lax, "app").await;
    assert_eq!((answer.status, &*answer.body), (202, r#"{"unconfirmed":["silent (behind)"]}"#));
    let token = common::token(serde_json::json!({"jti": "app-token"}));
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(common::get(lax, "/api", &[&bearer]).await.status, 401, "it stands");

    for mode in [Mode::RecordThenForward, Mode::ForwardThenRecord] {
        let forwarding = serve(&a, mode, wait(Incomplete::Accepted)).await;
        let answer = revoke(forwarding, "app").await;
        assert_eq!((answer.status, &*answer.body), (200, "from behind"));
        let forwarding = serve(&a, mode, wait(Incomplete::Unavailable)).await;
        assert_eq!(revoke(forwarding, "app").await.status, 503);
    }
}

/// What has no effect is answered as late as what has.
#[tokio::test]
async fn an_endpoint_that_waits_does_so_for_unknown_tokens_too() {
    let (store, clock) = (Memory::new(), Arc::new(ManualClock::at(common::unix())));
    let a = node("a", store.clone(), &clock).await;
    store.heartbeat(&NodeStatus::new("silent", true, LEASE)).await.unwrap();
    let wait = Wait::Everywhere { limit: Duration::from_millis(200), otherwise: Incomplete::Unavailable };
    let address = serve(&a, Mode::Terminate, wait).await;
    let unknown = "POST /oauth/revoke HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
        authorization: Basic YXBwOnNlY3JldA==\r\ncontent-type: application/x-www-form-urlencoded\r\n\
        content-length: 9\r\n\r\ntoken=x.y";
    assert_eq!(common::raw(address, unknown).await.status, 503);
}

/// A store that has lost the announcements is no reason not to wait for nodes that are known.
#[tokio::test]
async fn nodes_that_vanish_from_the_list_are_waited_for() {
    let (store, clock) = (Memory::new(), clock());
    let a = node("a", store.clone(), &clock).await;
    let silent = NodeStatus::new("silent", true, LEASE);
    store.heartbeat(&silent).await.unwrap();
    eventually("it is known", async || a.nodes().iter().any(|node| node.status.node == "silent")).await;
    store.retire(&silent).await.unwrap();
    let _ = a.revoke(Revocation::new(scope("x"))).await.unwrap();
    assert!(!a.everywhere(Duration::from_millis(300)).await.unwrap().is_complete());
    clock.advance(LEASE + LEASE / 10);
    assert!(a.everywhere(SOON).await.unwrap().is_complete());
}
