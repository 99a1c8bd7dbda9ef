//! PostgreSQL with a standby that is promoted after the primary was killed. A proxy is the address that moves to it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use common::{
    ISSUER, eventually,
    faults::{Fault, Proxy},
    server::Server,
};
use futures_util::{StreamExt, future::join_all};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::watch;
use tower_revocation::{
    Revocations,
    backend::{Backend, BackendErrorKind, Event, NodeStatus, Position, Postgres},
    denylist::{Mode, Staleness, Tiered, Verdict},
    revocation::{Change, Lifetimes, Revocation, Scope, ScopeHasher, ScopeKey},
    sync::SyncConfig,
    time::SystemClock,
    token::{Claims, Identity},
};

/// How long to wait for anything.
const LIMIT: Duration = Duration::from_secs(30);

/// With a synchronous standby, what was acknowledged is on both; what it has not got is not acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_has_all_that_was_acknowledged() {
    let mut pair = Pair::start(&["-c", "fsync=off", "-c", "synchronous_standby_names=standby"]).await;
    let store = Postgres::connect(&pair.url()).await.unwrap();
    let (here, there) = (node(&pair).await, node(&pair).await);
    // Whatever a role is set to.
    run(&pair.primary.url(), "ALTER ROLE owner SET synchronous_commit = local").await;

    pair.replication.set(Fault::Silence);
    let alone = Postgres::connect(&pair.url()).await.unwrap();
    let status = NodeStatus::new("one", true, Duration::from_secs(1));
    let batch = [token("one alone")];
    let (publish, heartbeat) = tokio::join!(alone.publish(&batch), alone.heartbeat(&status));
    for error in [publish.map(drop).unwrap_err(), heartbeat.map(drop).unwrap_err()] {
        assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{error}");
    }
    pair.replication.set(Fault::None);

    let (stop, stopped) = watch::channel(false);
    let writers = (0..3).map(|writer| tokio::spawn(write_on(store.clone(), writer, stopped.clone())));
    let writers: Vec<_> = writers.collect();
    works_for_a_while(&store, "before").await;
    let (_, before, _) = read_all(&store, None).await;
    pair.fail_over().await;
    works_for_a_while(&store, "after").await;
    stop.send_replace(true);
    let acknowledged: Vec<_> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    assert!(acknowledged.len() > 40, "{}", acknowledged.len());

    let (seen, after, snapshot) = read_all(&store, Some(before.clone())).await;
    let missing = acknowledged.iter().filter(|key| !seen.contains(*key)).count();
    assert_eq!(missing, 0, "of {} acknowledged", acknowledged.len());
    assert!(snapshot && before.partial_cmp(&after).is_none(), "{after} is not the life of {before}");
    revoke(&here, "nodes go on").await;
    knows(&there, "nodes go on").await;
}

/// With an asynchronous one, the promoted server can lack what was acknowledged: a node that holds it writes it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_25_what_an_asynchronous_standby_lacks_is_written_back() {
    let mut pair = Pair::start(&["-c", "fsync=off"]).await;
    let (here, there) = (node(&pair).await, node(&pair).await);
    revoke(&here, "on both").await;
    let place: String = ask(&pair.primary.url(), "SELECT pg_current_wal_lsn()::text").await;
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{place}'");
    eventually("the standby has it", async || ask(&pair.standby.url(), &replayed).await).await;

    pair.replication.set(Fault::Cut);
    revoke(&here, "on the primary only").await;
    knows(&there, "on the primary only").await;
    pair.fail_over().await;
    let store = async || Postgres::connect(&pair.standby.url()).await.unwrap();
    // Two nodes hold it, and either may be the first to see what is missing.
    let key = key_of(&here, "on the primary only");
    let begun = Instant::now();
    while store().await.lookup(&[key]).await.unwrap().is_empty() {
        assert!(begun.elapsed() < LIMIT, "it is not written back: {:?}", here.status());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(here.status().written_back + there.status().written_back > 0, "nodes count what they write back");
    let fresh = node(&pair).await;
    for jti in ["on both", "on the primary only"] {
        for node in [&here, &there, &fresh] {
            knows(node, jti).await;
        }
    }
    revoke(&there, "nodes go on").await;
    knows(&here, "nodes go on").await;
}

/// L1: the same with nodes that have next to nothing at hand. None of them lets the token pass at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_what_an_asynchronous_standby_lacks_is_refused_with_nothing_at_hand() {
    let mut pair = Pair::start(&["-c", "fsync=off"]).await;
    let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(60)));
    config.denylist.mode = Mode::Tiered(Tiered::default().entries(0).look_ups_per_source(u32::MAX));
    let here = Revocations::start(Postgres::connect(&pair.url()).await.unwrap(), config).await.unwrap();
    let place: String = ask(&pair.primary.url(), "SELECT pg_current_wal_lsn()::text").await;
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{place}'");
    eventually("the standby has it", async || ask(&pair.standby.url(), &replayed).await).await;
    pair.replication.set(Fault::Cut);
    revoke(&here, "on the primary only").await;
    pair.fail_over().await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let token = Identity::from_verified(&Claims::new(ISSUER).jti("on the primary only").iat(now - 10).exp(now + 600));
    let (mut denied, begun) = (0, Instant::now());
    // Also after it was written back.
    while denied < 20 || here.status().written_back == 0 {
        assert!(begun.elapsed() < LIMIT, "it is not written back: {:?}", here.status());
        here.denylist().maintain();
        match here.check_or_ask(&token).await {
            Verdict::Deny(_) => denied += 1,
            verdict => assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?} after {denied} denials"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let fresh = node(&pair).await;
    knows(&fresh, "on the primary only").await;
}

// ---- helpers

/// A primary, its standby, the way between them, and the address at which nodes reach the one that is in charge.
struct Pair {
    primary: Server,
    standby: Server,
    replication: Proxy,
    address: Proxy,
}

impl Pair {
    async fn start(options: &[&str]) -> Self {
        let primary = Server::postgres_with(options);
        let (replication, address) = (Proxy::to(primary.port()).await, Proxy::to(primary.port()).await);
        let way = replication.port();
        let standby = tokio::task::spawn_blocking(move || Server::postgres_standby_of(way)).await.unwrap();
        let pair = Self { primary, standby, replication, address };
        let streams = "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming'";
        eventually("the standby follows", async || ask(&pair.primary.url(), streams).await).await;
        pair
    }

    fn url(&self) -> String {
        self.primary.url_at(self.address.port())
    }

    /// The primary is killed, the standby promoted, and the address moves to it.
    async fn fail_over(&mut self) {
        self.primary.kill();
        assert!(ask::<bool>(&self.standby.url(), "SELECT pg_promote()").await);
        self.address.lead_to(self.standby.port());
    }
}

async fn write_on(store: Postgres, writer: usize, stopped: watch::Receiver<bool>) -> Vec<ScopeKey> {
    let (mut acknowledged, mut round) = (Vec::new(), 0);
    while !*stopped.borrow() {
        let batch: Vec<_> = (0..=round % 3).map(|n| token(&format!("writer {writer} {round} {n}"))).collect();
        round += 1;
        match store.publish(&batch).await {
            Ok(_) => acknowledged.extend(batch.iter().map(Change::key)),
            // While there is no server the answer comes at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    acknowledged
}

async fn works_for_a_while(store: &Postgres, what: &str) {
    for n in 0..20 {
        let (change, begun) = ([token(&format!("{what} {n}"))], Instant::now());
        while let Err(error) = store.publish(&change).await {
            assert!(begun.elapsed() < LIMIT, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Everything up to the first `CaughtUp`, and whether it was a snapshot.
async fn read_all(store: &Postgres, from: Option<Position>) -> (HashSet<ScopeKey>, Position, bool) {
    let mut feed = store.follow(from, &SystemClock);
    let (mut seen, mut snapshot) = (HashSet::new(), false);
    loop {
        match tokio::time::timeout(LIMIT, feed.next()).await.expect("an event in time").expect("a feed").unwrap() {
            Event::Snapshot => snapshot = true,
            Event::Changes(changes) => seen.extend(changes.iter().map(Change::key)),
            Event::CaughtUp { position, .. } => return (seen, position, snapshot),
            other => panic!("{other:?}"),
        }
    }
}

async fn node(pair: &Pair) -> Revocations {
    let store = Postgres::connect(&pair.url()).await.unwrap();
    Revocations::start(store, SyncConfig::new(Staleness::refuse_after(Duration::from_secs(60)))).await.unwrap()
}

async fn revoke(node: &Revocations, jti: &str) {
    let begun = Instant::now();
    while let Err(error) = node.revoke(Revocation::ban(Scope::token(ISSUER, jti))).await {
        assert!(begun.elapsed() < LIMIT, "{jti}: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn key_of(node: &Revocations, jti: &str) -> ScopeKey {
    node.denylist().hasher().key(&Scope::token(ISSUER, jti))
}

async fn knows(node: &Revocations, jti: &str) {
    let (key, begun) = (key_of(node, jti), Instant::now());
    while node.denylist().revocations(key).is_empty() {
        assert!(begun.elapsed() < LIMIT, "{jti} does not arrive: {:?}", node.status().last_error);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn run(url: &str, statement: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
}

async fn ask<T>(url: &str, question: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(&mut connection).await.unwrap()
}

fn token(jti: &str) -> Change {
    let revocation = Revocation::ban(Scope::token(ISSUER, jti));
    Change::Revoke(revocation.into_record(&ScopeHasher::new([7; 16]), &Lifetimes::DEFAULT, 1))
}
