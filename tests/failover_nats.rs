//! Three NATS servers that are one JetStream cluster, of which some are killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use common::{ISSUER, server::Server};
use futures_util::{StreamExt, future::join_all};
use tokio::sync::watch;
use tower_revocation::{
    Revocations,
    backend::{Backend, BackendError, BackendErrorKind, Event, Nats, NatsOptions, NodeStatus},
    denylist::Staleness,
    revocation::{Change, Lifetimes, Revocation, Scope, ScopeHasher, ScopeKey},
    sync::SyncConfig,
    time::SystemClock,
};

/// How long to wait for anything. Elections take several seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// The leader of the log is killed while nodes write and read; in a full run each server in turn, as it leads. What was
/// acknowledged is there, and a reader that goes on where it was gets each of them, without a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_costs_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start();
    let store = cluster.connect().await;
    let (near, far) = (node(cluster.connect().await).await, node(cluster.connect().await).await);
    let (stop, stopped) = watch::channel(false);
    let reader = tokio::spawn(read_on(cluster.connect().await, stopped.clone()));
    let writers = (0..3).map(|writer| tokio::spawn(write_on(store.clone(), writer, stopped.clone())));
    let writers: Vec<_> = writers.collect();

    let rounds = if in_full() { 4 } else { 1 };
    for round in 0..rounds {
        works_for_a_while(&store, &format!("before {round}")).await;
        let leader = cluster.leader().await;
        cluster.servers[leader].kill();
        works_for_a_while(&store, &format!("after {round}")).await;
        let jti = format!("node {round}");
        eventually("a node revokes", async || near.revoke(Revocation::ban(token_scope(&jti))).await.map(drop)).await;
        let key = far.denylist().hasher().key(&token_scope(&jti));
        let begun = Instant::now();
        while far.denylist().revocations(key).is_empty() {
            assert!(begun.elapsed() < LIMIT, "{jti} does not arrive: {:?}", far.status().last_error);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if round + 1 < rounds {
            cluster.servers[leader].start_again();
            cluster.in_step().await;
        }
    }

    stop.send_replace(true);
    let acknowledged: HashSet<_> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    let end = eventually("the end of the log", async || store.publish(&[]).await).await;
    let (seen, snapshots, failures) = reader.await.unwrap();
    assert!(failures > 0 || rounds == 1, "the reader was never cut off");
    assert_eq!(snapshots, 1, "it goes on where it was");
    let missing = acknowledged.iter().filter(|key| !seen.contains(*key)).count();
    assert_eq!(missing, 0, "of {} acknowledged, not read on {end}", acknowledged.len());
    let fresh = read_anew(&cluster.connect().await).await;
    let missing = acknowledged.iter().filter(|key| !fresh.contains(*key)).count();
    assert_eq!(missing, 0, "of {} acknowledged, not in a new snapshot", acknowledged.len());
}

/// One server of three is no majority: it acknowledges nothing, and says that it is not there rather than set up wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_acknowledges_nothing() {
    let mut cluster = Cluster::start();
    let store = cluster.connect().await;
    let before = token("before");
    store.publish(std::slice::from_ref(&before)).await.unwrap();
    let leader = cluster.leader().await;
    cluster.servers[leader].kill();
    cluster.servers[(leader + 1) % 3].kill();

    let status = NodeStatus::new("one", true, Duration::from_secs(1));
    let begun = Instant::now();
    for round in 0..if in_full() { 4 } else { 1 } {
        // Each call gives up, whatever the survivor believes by now.
        for batch in [&[token(&format!("{round}"))][..], &[token(&format!("{round} a")), token(&format!("{round} b"))]]
        {
            let error = store.publish(batch).await.expect_err("acknowledged by a minority");
            assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{error}");
        }
        let error = store.heartbeat(&status).await.expect_err("a minority keeps a node fresh");
        assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{error}");
    }
    // Until the survivor has noticed that it is alone it may still answer what only reads: no node starts by that.
    loop {
        let outcome = cluster.options().connect(&cluster.url()).await;
        assert!(begun.elapsed() < LIMIT, "the survivor does not notice: {outcome:?}");
        match outcome {
            Ok(store) => {
                let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(60)));
                assert!(Revocations::start(store, config).await.is_err(), "a minority is enough to start with");
            }
            Err(error) => {
                assert_eq!(error.kind(), BackendErrorKind::Unavailable, "it comes back by itself: {error}");
                if error.to_string().contains("temporarily unavailable") {
                    break;
                }
            }
        }
    }
    assert!(begun.elapsed() < 2 * LIMIT, "calls hang");

    for server in [leader, (leader + 1) % 3] {
        cluster.servers[server].start_again();
    }
    eventually("a majority is back", async || store.publish(&[token("after")]).await).await;
    let seen = read_anew(&cluster.connect().await).await;
    for jti in ["before", "after"] {
        assert!(seen.contains(&token(jti).key()), "{jti} is gone");
    }
}

// ---- helpers

/// Whether this is a run that may take minutes.
fn in_full() -> bool {
    std::env::var("REVOCATION_TESTS_FULL").as_deref() == Ok("true")
}

struct Cluster {
    servers: Vec<Server>,
}

impl Cluster {
    fn start() -> Self {
        // Held until all are known, so that they differ.
        let free: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let routes: Vec<_> = free.iter().map(|port| format!("nats://{}", port.local_addr().unwrap())).collect();
        drop(free);
        let all = routes.join(",");
        let start = |(n, own): (usize, &String)| {
            let name = format!("n{n}");
            Server::nats_with(&["-n", &name, "--cluster_name", "tests", "--cluster", own, "--routes", &all])
        };
        Self { servers: routes.iter().enumerate().map(start).collect() }
    }

    fn url(&self) -> String {
        self.servers.iter().map(Server::url).collect::<Vec<_>>().join(",")
    }

    fn options(&self) -> NatsOptions {
        NatsOptions::new().replicas(3)
    }

    async fn connect(&self) -> Nats {
        eventually("the cluster is up", async || self.options().connect(&self.url()).await).await
    }

    async fn info(&self) -> Result<jetstream::stream::ClusterInfo, async_nats::Error> {
        let addresses: Vec<async_nats::ServerAddr> =
            self.servers.iter().map(|server| server.url().parse().unwrap()).collect();
        let context = jetstream::new(async_nats::connect(addresses).await?);
        let stream = context.get_stream("TREV_default").await?;
        stream.cached_info().cluster.clone().ok_or_else(|| "no cluster".into())
    }

    /// Which server leads the log.
    async fn leader(&self) -> usize {
        let leader = async || self.info().await?.leader.ok_or_else(|| async_nats::Error::from("none"));
        let name = eventually("a leader", leader).await;
        name.trim_start_matches('n').parse().unwrap_or_else(|_: std::num::ParseIntError| panic!("{name}"))
    }

    /// Waits until all servers have all of the log.
    async fn in_step(&self) {
        eventually("all replicas are in step", async || {
            let info = self.info().await?;
            match info.leader.is_some() && info.replicas.iter().all(|replica| replica.current && !replica.offline) {
                true => Ok(()),
                false => Err::<(), async_nats::Error>(format!("{info:?}").into()),
            }
        })
        .await;
    }
}

/// Writes one after the other, singly and in batches. What was acknowledged.
async fn write_on(store: Nats, writer: usize, stopped: watch::Receiver<bool>) -> Vec<ScopeKey> {
    let (mut acknowledged, mut round) = (Vec::new(), 0);
    while !*stopped.borrow() {
        let batch: Vec<_> = (0..=round % 3).map(|n| token(&format!("writer {writer} {round} {n}"))).collect();
        round += 1;
        if store.publish(&batch).await.is_ok() {
            acknowledged.extend(batch.iter().map(Change::key));
        }
    }
    acknowledged
}

/// Follows the log until the writers have stopped and all is read; goes on where it was after each failure.
async fn read_on(store: Nats, stopped: watch::Receiver<bool>) -> (HashSet<ScopeKey>, usize, usize) {
    let (mut seen, mut from, mut snapshots, mut failures) = (HashSet::new(), None, 0, 0);
    let mut last_success = Instant::now();
    loop {
        let mut feed = store.follow(from.clone(), &SystemClock);
        while let Some(event) = tokio::time::timeout(LIMIT, feed.next()).await.expect("the feed is silent") {
            match event {
                Ok(Event::Snapshot) => snapshots += 1,
                Ok(Event::Changes(changes)) => seen.extend(changes.iter().map(Change::key)),
                Ok(Event::CaughtUp { position, .. }) => {
                    last_success = Instant::now();
                    from = Some(position);
                    // Writers that had not stopped when this was asked may still be acknowledged: once more then.
                    if *stopped.borrow()
                        && let Ok(end) = store.publish(&[]).await
                        && from.as_ref().is_some_and(|from| *from >= end)
                    {
                        return (seen, snapshots, failures);
                    }
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    failures += 1;
                    assert!(last_success.elapsed() < LIMIT, "the feed does not come back: {error}");
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All that a new reader sees. One that the servers put where a dead one was has to try again.
async fn read_anew(store: &Nats) -> HashSet<ScopeKey> {
    eventually("a new reader", async || {
        let (mut feed, mut seen) = (store.follow(None, &SystemClock), HashSet::new());
        loop {
            match tokio::time::timeout(LIMIT, feed.next())
                .await
                .expect("the feed is silent")
                .expect("the feed ended")?
            {
                Event::Changes(changes) => seen.extend(changes.iter().map(Change::key)),
                Event::CaughtUp { .. } => return Ok::<_, BackendError>(seen),
                _ => {}
            }
        }
    })
    .await
}

async fn works_for_a_while(store: &Nats, what: &str) {
    for n in 0..20 {
        let change = [token(&format!("{what} {n}"))];
        eventually("it works", async || store.publish(&change).await).await;
    }
}

async fn node(store: Nats) -> Revocations {
    // Longer than any election.
    let config = || SyncConfig::new(Staleness::refuse_after(Duration::from_secs(60)));
    eventually("a node starts", async || Revocations::start(store.clone(), config()).await).await
}

async fn eventually<T, E: std::fmt::Display>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(begun.elapsed() < LIMIT, "{what}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn token_scope(jti: &str) -> Scope {
    Scope::token(ISSUER, jti)
}

fn token(jti: &str) -> Change {
    let revocation = Revocation::ban(token_scope(jti));
    Change::Revoke(revocation.into_record(&ScopeHasher::new([7; 16]), &Lifetimes::DEFAULT, 1))
}
