//! How long a revocation takes to reach another node, how long a node takes to load, and how much the fleet bears.
//!
//! `cargo bench --bench propagation` starts private servers and prints Markdown; `-- redis` runs one store alone.
//! Everything is on one machine, over loopback: what it says of networks is nothing, what it says of this crate is the
//! difference to the raw transport in the same run.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../tests/common/server.rs"]
#[allow(dead_code, unreachable_pub)]
mod server;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use server::Server;
use tower_revocation::{
    Revocations,
    backend::{self, Backend},
    denylist::{Staleness, Verdict},
    revocation::{Change, Revocation, Scope},
    sync::SyncConfig,
    token::{Claims, Identity},
};

const ISSUER: &str = "https://issuer.example/";
const SAMPLES: usize = 400;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!(
        "| store | raw p50 | raw p99 | idle p50 | idle p99 | under 1,000/s p50 | p99 | 1 M until ready | raw fetch | sustained |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for kind in ["redis", "postgres", "nats", "sqlite"] {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == kind) {
            runtime.block_on(measure(kind));
        }
    }
}

struct Store {
    url: String,
    _server: Option<Server>,
    _folder: Option<tempfile::TempDir>,
}

impl Store {
    fn start(kind: &str) -> Self {
        let server = match kind {
            "redis" => Server::redis(),
            // With fsync, as it is.
            "postgres" => Server::postgres_with(&[]),
            "nats" => Server::nats(),
            _ => {
                let folder = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}/revocations.db", folder.path().display());
                return Self { url, _server: None, _folder: Some(folder) };
            }
        };
        Self { url: server.url(), _server: Some(server), _folder: None }
    }

    async fn open(&self) -> Arc<dyn Backend> {
        backend::connect(&self.url).await.unwrap()
    }

    async fn node(&self) -> Revocations {
        let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
        config.denylist.budget = 4_000_000;
        config.load_timeout = Duration::from_secs(120);
        Revocations::start(self.open().await, config).await.unwrap()
    }
}

fn scope(item: &str) -> Scope {
    Scope::token(ISSUER, item)
}

fn token(item: &str, now: u64) -> Identity {
    Identity::from_verified(&Claims::new(ISSUER).jti(item).iat(now).exp(now + 600))
}

async fn measure(kind: &'static str) {
    let store = Store::start(kind);
    let raw = raw(kind, &store).await;
    let nodes = [store.node().await, store.node().await, store.node().await];
    let idle = latencies(&nodes, "idle").await;
    let busy = under_load(&nodes).await;
    let sustained = sustained(&nodes).await;
    drop(nodes);
    let (ready, fetch) = load(&store).await;
    let show =
        |[p50, p99]: [Duration; 2]| format!("{:.2} ms | {:.2} ms", p50.as_secs_f64() * 1e3, p99.as_secs_f64() * 1e3);
    let raw = raw.map_or_else(|| "– | –".to_owned(), show);
    println!(
        "| {kind} | {raw} | {} | {} | {:.2} s | {:.2} s | {sustained} |",
        show(idle),
        show(busy),
        ready.as_secs_f64(),
        fetch.as_secs_f64()
    );
}

fn percentiles(mut all: Vec<Duration>) -> [Duration; 2] {
    all.sort_unstable();
    [all[all.len() / 2], all[all.len() * 99 / 100]]
}

/// From the call's start to the refusal on another node.
async fn latencies(nodes: &[Revocations; 3], name: &str) -> [Duration; 2] {
    let mut all = Vec::with_capacity(SAMPLES);
    for sample in 0..SAMPLES {
        let item = format!("{name} {sample}");
        let token = token(&item, nodes[1].denylist().now().unix());
        let seen = nodes[1].clone();
        let (sender, started) = std::sync::mpsc::channel::<Instant>();
        // A thread of its own: the runtime's timers are a millisecond coarse.
        let waiter = std::thread::spawn(move || {
            while !matches!(seen.check(&token), Verdict::Deny(_)) {
                std::thread::sleep(Duration::from_micros(20));
            }
            let end = Instant::now();
            end - started.recv().unwrap()
        });
        sender.send(Instant::now()).unwrap();
        let _ = nodes[0].revoke(Revocation::new(scope(&item))).await.unwrap();
        all.push(tokio::task::block_in_place(|| waiter.join().unwrap()));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    percentiles(all)
}

async fn under_load(nodes: &[Revocations; 3]) -> [Duration; 2] {
    let over = Arc::new(AtomicBool::new(false));
    let tasks = [0, 1, 2].map(|number| {
        let (node, over) = (nodes[number].clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut turns = tokio::time::interval(Duration::from_millis(9));
            for turn in 0.. {
                turns.tick().await;
                if over.load(Ordering::Relaxed) {
                    return;
                }
                // Three at once every nine milliseconds, on three nodes.
                let all = (0..3).map(|one| node.revoke(Revocation::new(scope(&format!("load {number} {turn} {one}")))));
                futures_util::future::join_all(all).await.into_iter().for_each(|outcome| drop(outcome.unwrap()));
            }
        })
    });
    let measured = latencies(nodes, "busy").await;
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    measured
}

/// 10,000 a second for five seconds from three nodes; how stale the nodes were at worst.
async fn sustained(nodes: &[Revocations; 3]) -> String {
    const SECONDS: u64 = 5;
    const EACH: usize = 34;
    let began = Instant::now();
    let tasks = [0, 1, 2].map(|number| {
        let node = nodes[number].clone();
        tokio::spawn(async move {
            let mut turns = tokio::time::interval(Duration::from_millis(10));
            let mut writes = futures_util::stream::FuturesUnordered::new();
            for turn in 0..SECONDS * 100 {
                turns.tick().await;
                for one in 0..EACH {
                    let node = node.clone();
                    writes.push(tokio::spawn(async move {
                        node.revoke(Revocation::new(scope(&format!("sustained {number} {turn} {one}")))).await
                    }));
                }
            }
            let mut done = 0;
            while let Some(outcome) = writes.next().await {
                done += usize::from(outcome.unwrap().is_ok());
            }
            done
        })
    });
    let mut worst = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(SECONDS) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let staleness = nodes.iter().filter_map(|node| node.status().staleness).max();
        worst = worst.max(staleness.unwrap_or(Duration::MAX));
    }
    let mut done = 0;
    for task in tasks {
        done += task.await.unwrap();
    }
    let rate = done as f64 / began.elapsed().as_secs_f64();
    format!("{rate:.0}/s, stale by {} ms at most", worst.as_millis())
}

/// A fresh node on a million live revocations, and the mere fetch of them.
async fn load(store: &Store) -> (Duration, Duration) {
    const MANY: u64 = 1_000_000;
    let writer = store.node().await;
    let now = writer.denylist().now().unix();
    let change = |number: u64| {
        let revocation = Revocation::new(scope(&format!("many {number}"))).token_expires(now + 3600);
        Change::Revoke(revocation.into_record(writer.denylist().hasher(), writer.denylist().lifetimes(), now))
    };
    for page in 0..MANY / 1000 {
        let batch: Vec<_> = (page * 1000..(page + 1) * 1000).map(change).collect();
        writer.backend().publish(&batch).await.unwrap();
    }
    drop(writer);
    let backend = store.open().await;
    let clock = tower_revocation::time::SystemClock;
    let began = Instant::now();
    let mut feed = backend.follow(None, &clock);
    let mut fetched = 0;
    while let Some(event) = feed.next().await {
        match event.unwrap() {
            backend::Event::Changes(changes) => fetched += changes.len(),
            backend::Event::CaughtUp { .. } => break,
            _ => {}
        }
    }
    let fetch = began.elapsed();
    drop(feed);
    assert!(fetched as u64 >= MANY, "only {fetched}");
    let began = Instant::now();
    let node = store.node().await;
    let ready = began.elapsed();
    assert!(node.status().records as u64 >= MANY);
    (ready, fetch)
}

/// A bare durable publish and its arrival elsewhere.
async fn raw(kind: &str, store: &Store) -> Option<[Duration; 2]> {
    let mut all = Vec::with_capacity(SAMPLES);
    match kind {
        "redis" => {
            let client = redis::Client::open(store.url.as_str()).unwrap();
            let mut writer = client.get_multiplexed_async_connection().await.unwrap();
            let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
            let reading = tokio::spawn(async move {
                let mut reader = client.get_multiplexed_async_connection().await.unwrap();
                reader.set_response_timeout(Duration::from_secs(5));
                let mut last = "$".to_owned();
                loop {
                    let mut command = redis::cmd("XREAD");
                    command.arg("BLOCK").arg(2000).arg("STREAMS").arg("raw").arg(&last);
                    let reply: redis::streams::StreamReadReply = command.query_async(&mut reader).await.unwrap();
                    for id in reply.keys.into_iter().flat_map(|key| key.ids) {
                        last = id.id;
                        if arrived.send(Instant::now()).is_err() {
                            return;
                        }
                    }
                }
            });
            tokio::time::sleep(Duration::from_millis(100)).await;
            for _ in 0..SAMPLES {
                let began = Instant::now();
                let command = redis::cmd("XADD").arg("raw").arg("*").arg("r").arg(&[7_u8; 120][..]).to_owned();
                let _: String = command.query_async(&mut writer).await.unwrap();
                all.push(arrivals.recv().await.unwrap() - began);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            reading.abort();
        }
        "postgres" => {
            let pool = sqlx::PgPool::connect(&store.url).await.unwrap();
            sqlx::query("CREATE TABLE raw (record bytea)").execute(&pool).await.unwrap();
            let mut listener = sqlx::postgres::PgListener::connect(&store.url).await.unwrap();
            listener.listen("raw").await.unwrap();
            for _ in 0..SAMPLES {
                let began = Instant::now();
                let mut transaction = pool.begin().await.unwrap();
                sqlx::query("INSERT INTO raw VALUES ($1)")
                    .bind(&[7_u8; 120][..])
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
                sqlx::query("NOTIFY raw").execute(&mut *transaction).await.unwrap();
                transaction.commit().await.unwrap();
                listener.recv().await.unwrap();
                all.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        "nats" => {
            let client = async_nats::connect(&store.url).await.unwrap();
            let reader = async_nats::connect(&store.url).await.unwrap();
            let stream = async_nats::jetstream::new(client);
            let config = async_nats::jetstream::stream::Config {
                name: "RAW".to_owned(),
                subjects: vec!["raw".to_owned()],
                ..Default::default()
            };
            stream.create_stream(config).await.unwrap();
            let raw = async_nats::jetstream::new(reader).get_stream("RAW").await.unwrap();
            let ordered = async_nats::jetstream::consumer::push::OrderedConfig {
                deliver_subject: "raw-delivery".to_owned(),
                ..Default::default()
            };
            let mut messages = raw.create_consumer(ordered).await.unwrap().messages().await.unwrap();
            for _ in 0..SAMPLES {
                let began = Instant::now();
                let published = stream.publish("raw", vec![7_u8; 120].into()).await.unwrap();
                let (acknowledged, message) = tokio::join!(published, messages.next());
                acknowledged.unwrap();
                message.unwrap().unwrap();
                all.push(began.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        _ => return None,
    }
    Some(percentiles(all))
}
