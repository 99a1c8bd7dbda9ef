//! Nodes as processes on one store, faults, and a check of everything that clients were told.
//!
//! A short run for each store is part of the tests. `HISTORY_SEEDS=200 cargo test --release --test history -- many` is
//! a long one; `HISTORY_SEED=n` runs one seed alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod common;
#[path = "history/laws.rs"]
#[allow(unreachable_pub)]
mod laws;
#[path = "history/node.rs"]
#[allow(unreachable_pub)]
mod node;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    faults::{Fault, Proxy},
    server::Server,
};
use laws::{Answer, Event, History, Item, Random, Success, What};
use node::Process;
use tempfile::TempDir;

const NODES: usize = 3;
const REFUSE_AFTER: Duration = Duration::from_millis(1500);
/// How many entries a node in tiered mode keeps in memory.
const LITTLE: Option<u64> = Some(8);
/// For how long clients and faults go on.
const LENGTH: Duration = Duration::from_secs(4);
/// For how long it may take until all is well again once the faults are over.
const RECOVERY: Duration = Duration::from_secs(40);

/// A store to run nodes on.
enum Store {
    Sqlite(TempDir),
    /// With the way of each node to it.
    Server(Mutex<Server>, Vec<Proxy>),
}

impl Store {
    async fn start(kind: &str) -> Self {
        let server = match kind {
            "sqlite" => return Self::Sqlite(tempfile::tempdir().unwrap()),
            "redis" => Server::redis(),
            "postgres" => Server::postgres(),
            "nats" => Server::nats(),
            other => panic!("no such store: {other}"),
        };
        let mut proxies = Vec::new();
        for _ in 0..NODES {
            proxies.push(Proxy::to(server.port()).await);
        }
        Self::Server(Mutex::new(server), proxies)
    }

    fn url(&self, node: usize) -> String {
        match self {
            Self::Sqlite(folder) => format!("sqlite://{}/revocations.db", folder.path().display()),
            Self::Server(server, proxies) => server.lock().unwrap().url_at(proxies[node].port()),
        }
    }

    /// Something goes wrong with it for a while.
    async fn suffer(&self, random: &mut Random) -> String {
        match self {
            Self::Sqlite(folder) => {
                // Another process holds its lock.
                let path = folder.path().join("revocations.db");
                let long = random.millis(50, 2500);
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                if let Ok(mut connection) = sqlx::ConnectOptions::connect(&options).await
                    && sqlx::query("BEGIN IMMEDIATE").execute(&mut connection).await.is_ok()
                {
                    tokio::time::sleep(long).await;
                }
                format!("the file was locked for {long:?}")
            }
            Self::Server(server, proxies) => match random.below(5) {
                0 => {
                    let long = random.millis(50, 2500);
                    server.lock().unwrap().pause();
                    tokio::time::sleep(long).await;
                    server.lock().unwrap().resume();
                    format!("the server stood still for {long:?}")
                }
                1 => {
                    tokio::task::block_in_place(|| server.lock().unwrap().kill());
                    let long = random.millis(0, 1000);
                    tokio::time::sleep(long).await;
                    tokio::task::block_in_place(|| server.lock().unwrap().start_again());
                    format!("the server was killed, and away for {long:?}")
                }
                _ => {
                    let node = random.below(NODES as u64) as usize;
                    let fault = match random.below(4) {
                        0 => Fault::Cut,
                        1 => Fault::Silence,
                        2 => Fault::AnswersLost,
                        _ => Fault::Delay(random.millis(5, 400)),
                    };
                    let long = random.millis(50, 3000);
                    proxies[node].set(fault);
                    tokio::time::sleep(long).await;
                    proxies[node].set(Fault::None);
                    format!("node {node}: {fault:?} for {long:?}")
                }
            },
        }
    }
}

/// All that a run shares.
struct Run {
    store: Store,
    nodes: Vec<Process>,
    history: Mutex<History>,
    began: Instant,
    over: AtomicBool,
    next: AtomicU32,
}

impl Run {
    async fn timed(&self, node: usize, item: Item, does: impl Future<Output = Option<What>>) {
        let start = self.began.elapsed();
        let what = does.await;
        let end = self.began.elapsed();
        if let Some(what) = what {
            self.history.lock().unwrap().events.push(Event { item, node, start, end, what });
        }
    }

    async fn revoke(&self, node: usize, item: Item, everywhere: bool) {
        self.timed(node, item, async {
            let outcome = self.nodes[node].revoke(item, everywhere).await;
            Some(match (outcome, everywhere) {
                (Some(true), true) => What::Revoked(Success::Everywhere),
                // What was recorded holds on that node, though others have not confirmed.
                (Some(false), true) | (Some(true), false) => What::Revoked(Success::Local),
                _ => What::NotRevoked,
            })
        })
        .await;
    }

    async fn check(&self, node: usize, item: Item) {
        self.timed(node, item, async { self.nodes[node].check(item).await.map(What::Checked) }).await;
    }

    /// Clients that revoke and check.
    async fn client(self: Arc<Self>, mut random: Random) {
        while !self.over.load(Ordering::SeqCst) {
            let node = random.below(NODES as u64) as usize;
            let newest = self.next.load(Ordering::SeqCst);
            match random.below(10) {
                0 | 1 => {
                    let item = self.next.fetch_add(1, Ordering::SeqCst);
                    self.revoke(node, item, random.below(3) == 0).await;
                    // Right after, where a mistake shows first.
                    for _ in 0..3 {
                        self.check(random.below(NODES as u64) as usize, item).await;
                    }
                }
                _ => {
                    let back = random.below(u64::from(newest.min(12)) + 1) as u32;
                    self.check(node, newest.saturating_sub(back)).await;
                }
            }
            tokio::time::sleep(random.millis(1, 15)).await;
        }
    }

    async fn faults(self: Arc<Self>, mut random: Random) -> Vec<String> {
        let mut happened = Vec::new();
        while !self.over.load(Ordering::SeqCst) {
            tokio::time::sleep(random.millis(20, 400)).await;
            let node = random.below(NODES as u64) as usize;
            let at = self.began.elapsed();
            let what = match random.below(8) {
                0 => {
                    self.nodes[node].kill();
                    tokio::time::sleep(random.millis(0, 500)).await;
                    self.nodes[node].start();
                    format!("node {node} was killed and started again")
                }
                1 => {
                    let long = random.millis(50, 3000);
                    self.nodes[node].signal("-STOP");
                    tokio::time::sleep(long).await;
                    self.nodes[node].signal("-CONT");
                    format!("node {node} stood still for {long:?}")
                }
                2 => {
                    let by = random.below(600) as i64 - 300;
                    self.nodes[node].step_clock(by).await;
                    format!("the clock of node {node} was stepped to {by} s off")
                }
                _ => self.store.suffer(&mut random).await,
            };
            happened.push(format!("{at:?}: {what}"));
        }
        happened
    }

    /// Once the faults are over, all nodes know everything that succeeded.
    async fn settle(&self, happened: &[String]) {
        let began = Instant::now();
        let revoked = self.history.lock().unwrap().revoked();
        for node in 0..NODES {
            for item in &revoked {
                loop {
                    let answer = self.nodes[node].check(*item).await;
                    if answer == Some(Answer::Deny) {
                        break;
                    }
                    assert!(
                        began.elapsed() < RECOVERY,
                        "node {node} still says {answer:?} of {item}; {}; after {happened:#?}",
                        self.nodes[node].status().await
                    );
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// One run; what it came to.
async fn run(kind: &str, at_hand: Option<u64>, seed: u64) -> [usize; 4] {
    let mut random = Random::new(seed);
    let store = Store::start(kind).await;
    let nodes: Vec<_> = (0..NODES)
        .map(|node| {
            // Clocks that are minutes apart.
            let offset = random.below(360) as i64 - 180;
            Process::start_new(&store.url(node), &format!("node-{node}"), offset, REFUSE_AFTER, at_hand)
        })
        .collect();
    let run = Arc::new(Run {
        store,
        nodes,
        history: Mutex::default(),
        began: Instant::now(),
        over: AtomicBool::new(false),
        next: AtomicU32::new(1),
    });
    for node in &run.nodes {
        node.ready().await;
    }
    let clients: Vec<_> = (0..6).map(|_| tokio::spawn(Arc::clone(&run).client(Random::new(random.next())))).collect();
    let faults = tokio::spawn(Arc::clone(&run).faults(Random::new(random.next())));
    tokio::time::sleep(LENGTH).await;
    run.over.store(true, Ordering::SeqCst);
    let happened = faults.await.unwrap();
    for client in clients {
        client.await.unwrap();
    }
    run.settle(&happened).await;
    let history = run.history.lock().unwrap();
    let violations = history.violations(REFUSE_AFTER);
    assert!(
        violations.is_empty(),
        "{} violations, run it again with HISTORY_SEED={seed} cargo test --test history -- {kind} (at hand: {at_hand:?})\n\
         {}\nafter {happened:#?}",
        violations.len(),
        violations.iter().take(5).cloned().collect::<Vec<_>>().join("\n"),
    );
    [
        history.count(|what| matches!(what, What::Revoked(Success::Local))),
        history.count(|what| matches!(what, What::Revoked(Success::Everywhere))),
        history.count(|what| matches!(what, What::Checked(_))),
        happened.len(),
    ]
}

/// The seeds of a short run, or those that were asked for.
fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    match (number("HISTORY_SEED"), number("HISTORY_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(seeds)) => (1..=seeds).collect(),
        (None, None) if std::env::var("REVOCATION_TESTS_FULL").as_deref() == Ok("true") => (1..=20).collect(),
        (None, None) => vec![1, 2],
    }
}

/// Several at once: they mostly wait.
async fn keeps_its_promises(kind: &'static str, at_hand: Option<u64>) {
    let at_once: usize = std::env::var("HISTORY_AT_ONCE").ok().and_then(|value| value.parse().ok()).unwrap_or(2);
    let seeds = Mutex::new(seeds().into_iter());
    let total = Mutex::new([0; 4]);
    let worker = async || {
        loop {
            let Some(seed) = seeds.lock().unwrap().next() else { return };
            let counts = run(kind, at_hand, seed).await;
            let mut total = total.lock().unwrap();
            total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        }
    };
    futures_util::future::join_all((0..at_once).map(|_| worker())).await;
    let total = *total.lock().unwrap();
    println!(
        "{kind} (at hand: {at_hand:?}): local {}, everywhere {}, checks {}, faults {}, violations 0",
        total[0], total[1], total[2], total[3]
    );
    assert!(total[0] > 0 && total[1] > 0 && total[2] > 100 && total[3] > 0, "nothing much happened: {total:?}");
}

#[test]
fn the_checker_sees_violations() {
    laws::selftest();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_its_promises() {
    keeps_its_promises("sqlite", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_keeps_its_promises() {
    keeps_its_promises("redis", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_keeps_its_promises() {
    keeps_its_promises("postgres", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nats_keeps_its_promises() {
    keeps_its_promises("nats", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_its_promises_with_little_at_hand() {
    keeps_its_promises("sqlite", LITTLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn redis_keeps_its_promises_with_little_at_hand() {
    keeps_its_promises("redis", LITTLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_keeps_its_promises_with_little_at_hand() {
    keeps_its_promises("postgres", LITTLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nats_keeps_its_promises_with_little_at_hand() {
    keeps_its_promises("nats", LITTLE).await;
}

/// A node: what this binary is when a run starts it.
#[test]
#[ignore = "runs as a process of its own"]
fn node_process() {
    node::main();
}
