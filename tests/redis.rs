//! What is special about the backend in Redis, over real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    faults::{Fault, Proxy},
    server::Server,
};
use futures_util::StreamExt;
use tokio::{sync::watch, task::JoinHandle};
use tower_revocation::{
    Revocations,
    backend::{
        Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
        Position, Redis,
    },
    denylist::{Mode, Staleness, Tiered, Verdict},
    revocation::{Change, Cutoff, Detail, Lifetimes, Record, Revocation, RevocationId, Scope, ScopeHasher},
    sync::SyncConfig,
    time::SystemClock,
    token::{Claims, Identity},
};

const LIMIT: Duration = Duration::from_secs(30);
const PASSWORD: &str = "s3cret-of-the-tests";
const HASHER: fn() -> ScopeHasher = || ScopeHasher::new([7; 16]);
/// What the documentation tells operators to allow.
const ACL: &str = "~{default}:* -@all +info +eval +exists +hdel +hget +hgetall +hset +hsetnx +hvals +select +wait \
                   +xadd +xdel +xinfo|stream +xlen +xrange +xread +zadd +zcard +zrangebylex +zrangebyscore +zrem";

fn change(n: u64) -> Change {
    let key = HASHER().key(&Scope::token(common::ISSUER, n.to_string()));
    let until = common::unix() + 3600;
    Change::Revoke(Record::new(key, RevocationId::from_u64(n), Cutoff::FOREVER, until, &Detail::default()))
}

fn id(change: &Change) -> u64 {
    let Change::Revoke(record) = change else { panic!("a lift") };
    record.id().as_u64()
}

/// Everything up to the first `CaughtUp`, and whether it was a snapshot.
async fn load(store: &Redis, from: Option<Position>) -> Result<(Vec<u64>, Position, bool), BackendError> {
    let mut feed = store.follow(from, &SystemClock);
    let (mut seen, mut snapshot) = (Vec::new(), false);
    loop {
        match tokio::time::timeout(LIMIT, feed.next()).await.expect("an event in time").expect("a feed")? {
            Event::Snapshot => snapshot = true,
            Event::Changes(changes) => seen.extend(changes.iter().map(id)),
            Event::CaughtUp { position, .. } => return Ok((seen, position, snapshot)),
            other => panic!("{other:?}"),
        }
    }
}

/// Tries until it works: a fail-over or a restart takes a while.
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

async fn command(url: &str, words: &[&str]) -> redis::Value {
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut connection).await.unwrap()
}

async fn node(store: Redis) -> Revocations {
    Revocations::start(store, SyncConfig::new(Staleness::refuse_after(Duration::from_secs(60)))).await.unwrap()
}

/// Waits until this node knows the revocation of this token.
async fn knows(node: &Revocations, jti: &str) {
    let key = node.denylist().hasher().key(&Scope::token(common::ISSUER, jti));
    let begun = Instant::now();
    while node.denylist().revocations(key).is_empty() {
        assert!(begun.elapsed() < LIMIT, "{jti} does not arrive: {:?}", node.status().last_error);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn revoke(node: &Revocations, jti: &str) {
    drop(node.revoke(token(jti)).await.unwrap());
}

fn token(jti: &str) -> Revocation {
    Revocation::new(Scope::token(common::ISSUER, jti))
}

#[tokio::test]
async fn settings_that_would_forget_are_refused_by_name() {
    let durable = ["--appendonly", "yes"];
    for (options, named) in [
        (&["--appendonly", "no"][..], "appendonly"),
        (&["--appendonly", "yes", "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"], "maxmemory-policy"),
        (&["--appendonly", "yes", "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-random"], "maxmemory-policy"),
    ] {
        let server = Server::redis_with(options);
        let error = Redis::connect(&server.url()).await.unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Settings, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
    let master = Server::redis_with(&durable);
    let replica = Server::redis_with(&["--appendonly", "yes", "--replicaof", &format!("127.0.0.1 {}", master.port())]);
    let error = Redis::connect(&replica.url()).await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("read-only replica"), "{error}");
}

#[tokio::test]
async fn durability_is_what_the_server_is_set_to() {
    for (options, expected) in [
        (&["--appendonly", "yes", "--appendfsync", "always"][..], Durability::Machine),
        (&["--appendonly", "yes", "--appendfsync", "everysec"], Durability::Process),
        (&["--appendonly", "no"], Durability::None),
    ] {
        let server = Server::redis_with(options);
        let store = Redis::options(&server.url()).unwrap().allow_without_persistence().connect().await.unwrap();
        assert_eq!(store.durability(), expected, "{options:?}");
    }
    // A server that promises less than it did is not written to.
    let server = Server::redis();
    let store = Redis::connect(&server.url()).await.unwrap();
    command(&server.url(), &["CONFIG", "SET", "appendfsync", "no"]).await;
    let error = store.follow(None, &SystemClock).next().await.unwrap().unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("appendfsync"), "{error}");
}

/// A full server refuses writes, and forgets nothing, also where it may evict what has a time to live.
#[tokio::test]
async fn a_full_server_refuses_writes_and_keeps_all() {
    for policy in ["noeviction", "volatile-lru"] {
        let limits = ["--appendonly", "yes", "--maxmemory", "4mb", "--maxmemory-policy", policy];
        let server = Server::redis_with(&limits);
        let store = Redis::connect(&server.url()).await.unwrap();
        let mut acknowledged = Vec::new();
        let error = loop {
            let next = acknowledged.len() as u64;
            let batch: Vec<_> = (next..next + 500).map(change).collect();
            match store.publish(&batch).await {
                Ok(_) => acknowledged.extend(next..next + 500),
                Err(error) => break error,
            }
            assert!(acknowledged.len() < 1_000_000, "it is never full");
        };
        assert!(error.kind() == BackendErrorKind::Unavailable && error.to_string().contains("maxmemory"), "{error}");
        assert!(acknowledged.len() > 1000);
        assert_eq!(load(&store, None).await.unwrap().0, acknowledged, "{policy}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_named_and_never_printed() {
    let server = Server::redis_with(&["--appendonly", "yes"]);
    command(&server.url(), &["ACL", "SETUSER", "default", "resetpass", ">another one"]).await;
    let port = server.port();
    for url in [
        format!("redis://:{PASSWORD}@127.0.0.1:{port}"),
        format!("redis://somebody:{PASSWORD}@127.0.0.1:{port}"),
        format!("redis://127.0.0.1:{port}"),
    ] {
        let error = Redis::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Settings, "{error}");
        assert!(error.to_string().contains("password"), "{error}");
        assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    }
    let options = Redis::options(&format!("redis://:{PASSWORD}@127.0.0.1:{port}")).unwrap();
    assert!(!format!("{options:?}").contains(PASSWORD));
    // With nobody there.
    drop(server);
    let error = options.connect().await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Unavailable);
    assert!(error.to_string().contains(&port.to_string()) && !error.to_string().contains(PASSWORD), "{error}");
}

#[tokio::test]
async fn other_urls_namespaces_and_layouts_are_refused() {
    let server = Server::redis();
    for url in ["postgres://localhost", "redis://localhost?namespace=x", "redis://"] {
        assert_eq!(Redis::connect(url).await.unwrap_err().kind(), BackendErrorKind::Settings, "{url}");
    }
    for namespace in ["", "a{b", "a}b"] {
        let options = Redis::options(&server.url()).unwrap().namespace(namespace);
        assert_eq!(options.connect().await.unwrap_err().kind(), BackendErrorKind::Settings, "{namespace}");
    }
    Redis::connect(&server.url()).await.unwrap();
    command(&server.url(), &["HSET", "{default}:meta", "version", "2"]).await;
    let error = Redis::connect(&server.url()).await.unwrap_err();
    assert!(error.to_string().contains("upgrade this program"), "{error}");
    command(&server.url(), &["SET", "{ours}:meta", "something else"]).await;
    let error = Redis::options(&server.url()).unwrap().namespace("ours").connect().await.unwrap_err();
    assert!(error.to_string().contains("another namespace"), "{error}");
}

/// A user who may do what the documentation lists, and nothing else, can do all that there is to do.
#[tokio::test]
async fn a_restricted_user_is_enough() {
    assert!(include_str!("../docs/backends.md").contains(ACL), "the documentation lists what is tried here");
    let server = Server::redis();
    let allow = |rules: &str| {
        let mut words = vec!["ACL", "SETUSER", "revocations", "reset", "on"];
        let password = format!(">{PASSWORD}");
        words.push(&password);
        words.extend(rules.split_whitespace());
        let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        let url = server.url();
        async move { command(&url, &words.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    allow(ACL).await;
    let url = format!("redis://revocations:{PASSWORD}@127.0.0.1:{}", server.port());
    let store = Redis::connect(&url).await.unwrap();
    assert_eq!(store.durability(), Durability::Process, "it may not ask for appendfsync");
    let settings = FleetSettings::new(1, &Lifetimes::DEFAULT, None);
    assert_eq!(store.agree(&settings).await.unwrap(), settings);
    store.publish(&[change(1)]).await.unwrap();
    assert_eq!(load(&store, None).await.unwrap().0, [1]);
    assert_eq!(store.lookup(&[change(1).key()]).await.unwrap().len(), 1);
    let status = NodeStatus::new("one", true, LIMIT);
    assert_eq!(store.heartbeat(&status).await.unwrap(), std::slice::from_ref(&status));
    store.retire(&status).await.unwrap();
    let message = OneTime::new("test", common::ISSUER, "1", [1; 32], 7);
    assert_eq!(store.claim_once(&message).await.unwrap(), Claim::First);
    store.finish_once(&message).await.unwrap();
    let intent = Intent::new(1, &[change(2)]);
    store.intend(&intent).await.unwrap();
    assert_eq!(store.intents().await.unwrap(), std::slice::from_ref(&intent));
    store.settle(intent.id).await.unwrap();
    assert_eq!(store.purge(u64::MAX).await.unwrap(), 1);
    let error = Redis::options(&url).unwrap().replicas(1).connect().await.unwrap().publish(&[change(3)]).await;
    assert!(error.unwrap_err().to_string().contains("0 of 1 replicas"), "it may wait for replicas");

    // Whatever is missing, or another namespace, is said.
    allow(&format!("{ACL} +config|get")).await;
    assert_eq!(Redis::connect(&url).await.unwrap().durability(), Durability::Machine);
    let error = Redis::options(&url).unwrap().namespace("theirs").connect().await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("ACL"), "{error}");
    allow(&format!("{ACL} -xadd")).await;
    let error = store.publish(&[change(4)]).await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("ACL"), "{error}");
}

/// Whoever stops waiting earlier leaves no dead connection to the next caller.
#[tokio::test]
async fn a_call_that_was_dropped_gives_its_connection_up() {
    let server = Server::redis();
    let proxy = Proxy::to(server.port()).await;
    let store = Redis::connect(&format!("redis://127.0.0.1:{}", proxy.port())).await.unwrap();
    proxy.set(Fault::AnswersLost);
    let batch = [change(1)];
    assert!(tokio::time::timeout(Duration::from_millis(100), store.publish(&batch)).await.is_err());
    proxy.set(Fault::None);
    // On the old connection it would take the answer to the first for its own.
    store.publish(&[change(2)]).await.unwrap();
    assert_eq!(load(&store, None).await.unwrap().0, [1, 2]);
}

#[tokio::test]
async fn a_cut_costs_no_call() {
    let server = Server::redis();
    let proxy = Proxy::to(server.port()).await;
    let store = Redis::connect(&format!("redis://127.0.0.1:{}", proxy.port())).await.unwrap();
    let here = node(store.clone()).await;
    for round in 0..5 {
        proxy.set(Fault::Cut);
        assert!(store.publish(&[change(round)]).await.is_err(), "there is no way");
        proxy.set(Fault::None);
        store.publish(&[change(100 + round)]).await.unwrap();
        // Connections that are there, and are closed while nobody uses them.
        command(&server.url(), &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        store.publish(&[change(200 + round)]).await.unwrap();
    }
    let other = node(Redis::connect(&server.url()).await.unwrap()).await;
    revoke(&other, "after").await;
    knows(&here, "after").await;
}

#[tokio::test]
async fn a_paused_server_is_caught_up_with() {
    let server = Server::redis();
    let (a, b) = (Redis::connect(&server.url()).await.unwrap(), Redis::connect(&server.url()).await.unwrap());
    let (here, there) = (node(a).await, node(b).await);
    server.pause();
    let begun = Instant::now();
    while here.status().last_error.is_none() {
        assert!(begun.elapsed() < LIMIT, "the feed does not notice");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.resume();
    let begun = Instant::now();
    while let Err(error) = there.revoke(token("after")).await {
        assert!(begun.elapsed() < LIMIT, "{error}");
    }
    knows(&here, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_load_loses_nothing_acknowledged() {
    let mut server = Server::redis();
    let store = Redis::connect(&server.url()).await.unwrap();
    let (_, before, _) = load(&store, None).await.unwrap();
    let tasks: Vec<_> = (0..4_u64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for n in (task * 1_000_000..).step_by(10) {
                    let batch: Vec<_> = (n..n + 10).map(change).collect();
                    match store.publish(&batch).await {
                        Ok(_) => acknowledged.extend(n..n + 10),
                        Err(_) => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill();
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.unwrap());
    }
    assert!(!acknowledged.is_empty());
    server.start_again();
    let (seen, after, snapshot) = load(&store, Some(before.clone())).await.unwrap();
    assert!(acknowledged.iter().all(|n| seen.contains(n)), "{} acknowledged, {} there", acknowledged.len(), seen.len());
    assert!(seen.len().is_multiple_of(10), "batches are whole");
    assert!(snapshot && before.incarnation() != after.incarnation(), "it is another life of the server");
}

/// A store that goes back to a backup is another one, and whoever was ahead of it starts over.
#[tokio::test]
async fn a_restore_is_another_incarnation() {
    let mut server = Server::redis();
    let store = Redis::connect(&server.url()).await.unwrap();
    store.publish(&[change(1)]).await.unwrap();
    server.stop();
    let (data, backup) = (server.folder().join("data"), server.folder().join("backup"));
    let copy =
        |from: &Path, to: &Path| assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    copy(&data, &backup);
    server.start_again();
    let lost = store.publish(&[change(2)]).await.unwrap();
    let (seen, position, _) = load(&store, None).await.unwrap();
    assert!(seen == [1, 2] && position >= lost);
    server.kill();
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    server.start_again();
    let (seen, restored, snapshot) = load(&store, Some(position.clone())).await.unwrap();
    assert!(seen == [1] && snapshot, "{seen:?}");
    assert_eq!(restored.partial_cmp(&position), None, "{restored} has nothing to do with {position}");
}

/// Whoever has read all goes on there, with what comes next and nothing else.
#[tokio::test]
async fn the_end_of_the_log_is_a_place_to_go_on_from() {
    let server = Server::redis();
    let store = Redis::connect(&server.url()).await.unwrap();
    store.publish(&[change(1), change(2)]).await.unwrap();
    let (_, end, _) = load(&store, None).await.unwrap();
    let (seen, _, snapshot) = load(&store, Some(end)).await.unwrap();
    assert!(seen.is_empty() && !snapshot, "{seen:?}");
}

/// A place that was acknowledged is reached also where what was there has been purged before anybody read it.
#[tokio::test]
async fn what_was_purged_keeps_its_place() {
    let server = Server::redis();
    let store = Redis::connect(&server.url()).await.unwrap();
    let from = store.publish(&[change(1)]).await.unwrap();
    let mut feed = store.follow(Some(from.clone()), &SystemClock);
    let last = store.publish(&[change(2)]).await.unwrap();
    assert_eq!(store.purge(u64::MAX).await.unwrap(), 2);
    assert!(store.publish(&[]).await.unwrap() >= last);
    assert!(load(&store, None).await.unwrap().1 >= last && load(&store, Some(from)).await.unwrap().1 >= last);
    let reached =
        async { while !matches!(feed.next().await, Some(Ok(Event::CaughtUp { position, .. })) if position >= last) {} };
    tokio::time::timeout(LIMIT, reached).await.expect("the place is reached");
}

/// What somebody empties or trims is not filled anew as if nothing had been there.
#[tokio::test]
async fn an_emptied_or_trimmed_store_is_refused() {
    let server = Server::redis();
    for (namespace, words) in [
        ("a", &["FLUSHALL"][..]),
        ("b", &["DEL", "{b}:log"]),
        ("c", &["XTRIM", "{c}:log", "MAXLEN", "1"]),
        ("d", &["HDEL", "{d}:meta", "store"]),
        ("e", &["HSET", "{e}:meta", "store", "another"]),
    ] {
        let store = Redis::options(&server.url()).unwrap().namespace(namespace).connect().await.unwrap();
        store.publish(&[change(1), change(2)]).await.unwrap();
        let mut feed = store.follow(None, &SystemClock);
        command(&server.url(), words).await;
        let ended = async { while let Some(Ok(_)) = feed.next().await {} };
        tokio::time::timeout(LIMIT, ended).await.expect("the feed ends");
        for error in [
            store.publish(&[change(3)]).await.map(drop).unwrap_err(),
            store.lookup(&[change(1).key()]).await.map(drop).unwrap_err(),
            load(&store, None).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), BackendErrorKind::Corrupt, "{words:?}: {error}");
        }
    }
}

#[tokio::test]
async fn an_unreadable_record_is_named_until_it_is_removed() {
    let server = Server::redis();
    let store = Redis::connect(&server.url()).await.unwrap();
    store.publish(&[change(1)]).await.unwrap();
    for words in
        [&["XADD", "{default}:log", "77777777777777-7", "c", "\0"][..], &["XADD", "{default}:log", "*", "x", "y"]]
    {
        command(&server.url(), words).await;
        let mut feed = store.follow(None, &SystemClock);
        let name = loop {
            match feed.next().await.unwrap().unwrap() {
                Event::Unreadable { name, .. } => break name,
                Event::CaughtUp { .. } => panic!("it was skipped"),
                _ => {}
            }
        };
        let place = name.rsplit(' ').next().unwrap().to_owned();
        assert!(name.contains("{default}:log 77777777777777-"), "{name}");
        drop(feed);
        // As the documentation says.
        let script = "for _, key in ipairs({KEYS[2], KEYS[3]}) do for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do \
                      if member:sub(17) == ARGV[1] then redis.call('ZREM', key, member) end end end \
                      return redis.call('XDEL', KEYS[1], ARGV[1])";
        let keys = ["{default}:log", "{default}:index", "{default}:expiry"];
        let removed = command(&server.url(), &["EVAL", script, "3", keys[0], keys[1], keys[2], &place]).await;
        assert_eq!(removed, redis::Value::Int(1));
        assert_eq!(load(&store, None).await.unwrap().0, [1]);
    }
}

/// Certificates made for one test.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        for authority in ["ca", "other"] {
            this.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={authority} \
                 -keyout {authority}.key -out {authority}.pem"
            ));
        }
        fs::write(this.path("ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=critical,CA:FALSE")
            .unwrap();
        for leaf in ["server", "client"] {
            this.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={leaf} -keyout {leaf}.key -out {leaf}.csr"
            ));
            this.openssl(&format!(
                "x509 -req -in {leaf}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out {leaf}.pem"
            ));
        }
        this
    }

    fn openssl(&self, arguments: &str) {
        let output =
            Command::new("openssl").args(arguments.split_whitespace()).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn tls_takes_known_servers_only() {
    let certificates = Certificates::new();
    let port = free_port();
    let files = ["server.pem", "server.key", "ca.pem"].map(|name| certificates.path(name));
    let server = Server::redis_with(&[
        "--appendonly",
        "yes",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &files[0],
        "--tls-key-file",
        &files[1],
        "--tls-ca-cert-file",
        &files[2],
    ]);
    let options = || Redis::options(&format!("rediss://127.0.0.1:{port}/1")).unwrap();
    let [chain, key, authority, other] =
        ["client.pem", "client.key", "ca.pem", "other.pem"].map(|name| certificates.read(name));
    let known = || options().client_certificate(chain.clone(), key.clone());
    let store = known().authority(authority.clone()).connect().await.unwrap();
    store.publish(&[change(1)]).await.unwrap();
    assert_eq!(load(&store, None).await.unwrap().0, [1]);
    for (why, options) in [
        ("the system does not know the authority", known()),
        ("it is another authority", known().authority(other)),
        ("the server asks for a certificate", options().authority(authority.clone())),
        ("it is no certificate", known().authority("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
    ] {
        assert!(options.connect().await.is_err(), "{why}");
    }
    // Certificates are no decoration of an open connection.
    let error = Redis::options(&server.url()).unwrap().authority(authority).connect().await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("rediss"), "{error}");
}

/// Two nodes that share the slots: whichever is asked first, all ends up on the one that holds them.
#[tokio::test]
async fn a_cluster_leads_to_the_node_that_holds_the_keys() {
    let options = ["--appendonly", "yes", "--cluster-enabled", "yes"];
    let (one, two) = (Server::redis_with(&options), Server::redis_with(&options));
    command(&one.url(), &["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]).await;
    command(&two.url(), &["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]).await;
    command(&two.url(), &["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await;
    command(&one.url(), &["CLUSTER", "MEET", "127.0.0.1", &two.port().to_string()]).await;
    for (ours, theirs) in [(&one, &two), (&two, &one)] {
        for namespace in ["a", "b", "c", "d"] {
            let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", ours.port(), theirs.port());
            let connect = async || Redis::options(&url)?.namespace(namespace).connect().await;
            let store = eventually("the cluster is up", connect).await;
            store.publish(&[change(1)]).await.unwrap();
            assert!(load(&store, None).await.unwrap().0.contains(&1));
        }
    }
    // Without being told that it is a Cluster, one of them refuses, and says what to do.
    let (first, second) = (Redis::connect(&one.url()).await, Redis::connect(&two.url()).await);
    let error = first.err().or(second.err()).unwrap();
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
}

/// `CLUSTER ADDSLOTSRANGE 0 16383` on a single node.
#[tokio::test]
async fn a_cluster_of_one_node_works() {
    let server = Server::redis_with(&["--appendonly", "yes", "--cluster-enabled", "yes"]);
    command(&server.url(), &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    let url = format!("redis+cluster://127.0.0.1:{}", server.port());
    let store = eventually("the cluster is up", async || Redis::connect(&url).await).await;
    let (a, b) = (node(store.clone()).await, node(store).await);
    revoke(&a, "in a cluster").await;
    knows(&b, "in a cluster").await;
}

/// Writes one after the other, singly and in batches, until told to stop. What was acknowledged.
fn write_on(store: &Redis, first: u64, stopped: &watch::Receiver<bool>) -> JoinHandle<Vec<u64>> {
    let (store, stopped) = (store.clone(), stopped.clone());
    tokio::spawn(async move {
        let (mut acknowledged, mut next) = (Vec::new(), first);
        while !*stopped.borrow() {
            let batch: Vec<_> = (next..=next + next % 3).collect();
            next += 3;
            let changes: Vec<_> = batch.iter().copied().map(change).collect();
            match store.publish(&changes).await {
                Ok(_) => acknowledged.extend(batch),
                // Redirections come at once.
                Err(error) => {
                    assert_eq!(error.kind(), BackendErrorKind::Unavailable, "it passes by itself: {error}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        acknowledged
    })
}

/// Two nodes of a Cluster: the first holds all slots, the second none.
async fn cluster_of_two() -> (Server, Server) {
    let options = ["--appendonly", "yes", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
    let options = [&options[..], &["--repl-diskless-sync-delay", "0"]].concat();
    let (one, two) = (Server::redis_with(&options), Server::redis_with(&options));
    command(&one.url(), &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    command(&two.url(), &["CLUSTER", "SET-CONFIG-EPOCH", "2"]).await;
    command(&one.url(), &["CLUSTER", "MEET", "127.0.0.1", &two.port().to_string()]).await;
    for server in [&one, &two] {
        let port = [one.port(), two.port()].map(|port| port.to_string());
        eventually("they know each other", async || {
            let nodes = text(command(&server.url(), &["CLUSTER", "NODES"]).await);
            match port.iter().all(|port| nodes.contains(port))
                && !nodes.contains("handshake")
                && nodes.contains("0-16383")
            {
                true => Ok(()),
                false => Err(BackendError::new(BackendErrorKind::Unavailable, nodes)),
            }
        })
        .await;
    }
    (one, two)
}

fn text(value: redis::Value) -> String {
    redis::from_redis_value(value).unwrap()
}

/// What happens to a Cluster while three write and two nodes run loses nothing that was acknowledged, and all go on, in
/// another life of the store.
async fn survives(url: &str, replicas: usize, happening: impl AsyncFnOnce()) {
    let connect = async || Redis::options(url)?.replicas(replicas).connect().await;
    let store = eventually("the cluster is up", connect).await;
    eventually("it works", async || store.publish(&[change(0)]).await).await;
    let (here, there) = (node(store.clone()).await, node(connect().await.unwrap()).await);
    revoke(&here, "before").await;
    let (_, before, _) = load(&store, None).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let writers = [1_000_000, 2_000_000, 3_000_000].map(|first| write_on(&store, first, &stopped));
    for n in 1..20 {
        eventually("before", async || store.publish(&[change(n)]).await).await;
    }
    happening().await;
    for n in 20..40 {
        eventually("after", async || store.publish(&[change(n)]).await).await;
    }
    stop.send_replace(true);
    let mut acknowledged: Vec<_> = (0..40).collect();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    let (seen, after, snapshot) = eventually("a feed", async || load(&store, Some(before.clone())).await).await;
    let missing = acknowledged.iter().filter(|n| !seen.contains(n)).count();
    assert_eq!(missing, 0, "of {} acknowledged", acknowledged.len());
    assert!(snapshot && after.partial_cmp(&before).is_none(), "{after} is not the life of {before}");
    eventually("a node revokes", async || here.revoke(token("after")).await.map(drop)).await;
    knows(&there, "after").await;
    for jti in ["before", "after"] {
        knows(&node(connect().await.unwrap()).await, jti).await;
    }
}

/// The slot of the namespace moves to the other node, key by key, while everybody works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_takes_everybody_along() {
    let (one, two) = cluster_of_two().await;
    let slot = redis::from_redis_value::<u64>(command(&one.url(), &["CLUSTER", "KEYSLOT", "{default}:log"]).await);
    let slot = slot.unwrap().to_string();
    let [from, to] = [&one, &two].map(|server| {
        let url = server.url();
        async move { text(command(&url, &["CLUSTER", "MYID"]).await) }
    });
    let (from, to) = (from.await, to.await);
    let url = format!("redis+cluster://127.0.0.1:{}", one.port());
    let idle = eventually("the cluster is up", async || Redis::connect(&url).await).await;
    survives(&url, 0, async || {
        command(&two.url(), &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]).await;
        command(&one.url(), &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]).await;
        let port = two.port().to_string();
        loop {
            let keys = command(&one.url(), &["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).await;
            let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
            let Some(key) = keys.first() else { break };
            command(&one.url(), &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
            // Half of the keys are here and half are there: nobody may take that for all, or for an empty store.
            let url = format!("redis+cluster://127.0.0.1:{},127.0.0.1:{port}", one.port());
            let error = Redis::connect(&url).await.map(drop).unwrap_err();
            assert_eq!(error.kind(), BackendErrorKind::Unavailable, "{key}: {error}");
        }
        for server in [&two, &one] {
            command(&server.url(), &["CLUSTER", "SETSLOT", &slot, "NODE", &to]).await;
        }
        // Whoever did nothing meanwhile does not notice.
        idle.publish(&[change(4_000_000)]).await.unwrap();
    })
    .await;
}

/// The other node is a replica, and takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_in_a_cluster_is_followed() {
    let (one, two) = cluster_of_two().await;
    let master = text(command(&one.url(), &["CLUSTER", "MYID"]).await);
    command(&two.url(), &["CLUSTER", "REPLICATE", &master]).await;
    let is = async |server: &Server, what: &str| {
        eventually(what, async || {
            let info = text(command(&server.url(), &["INFO", "replication"]).await);
            match info.contains(what) {
                true => Ok(()),
                false => Err(BackendError::new(BackendErrorKind::Unavailable, info)),
            }
        })
        .await;
    };
    is(&two, "master_link_status:up").await;
    survives(&format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", one.port(), two.port()), 1, async || {
        command(&two.url(), &["CLUSTER", "FAILOVER"]).await;
        is(&two, "role:master").await;
    })
    .await;
}

/// Any program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A Sentinel with these further lines in its configuration.
fn sentinel(folder: &Path, master: u16, more: &str) -> (Program, u16) {
    let port = free_port();
    let file = folder.join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {master} 1\n\
         sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n{more}\n",
        folder.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "redis-server"]).arg(&file).arg("--sentinel");
    (Program(command.stdout(Stdio::null()).spawn().unwrap()), port)
}

/// The Sentinel learns of the replica from the master, every ten seconds.
async fn learns_of(sentinel: &str, replica: &Server) {
    eventually("the Sentinel knows the replica", async || {
        let known = format!("{:?}", command(sentinel, &["SENTINEL", "REPLICAS", "main"]).await);
        match known.contains(&replica.port().to_string()) && !known.contains("s_down") {
            true => Ok(()),
            false => Err(BackendError::new(BackendErrorKind::Unavailable, known)),
        }
    })
    .await;
}

/// The Sentinels have a password of their own, and the servers another.
#[tokio::test]
async fn sentinels_and_servers_have_passwords_of_their_own() {
    const SENTINEL: &str = "s3ntinel-of-the-tests";
    let password = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"];
    let durable = [&["--appendonly", "yes"][..], &password].concat();
    let master = Server::redis_with(&durable);
    let of_master = format!("127.0.0.1 {}", master.port());
    let replica = Server::redis_with(&[&durable[..], &["--replicaof", &of_master]].concat());
    let folder = tempfile::tempdir().unwrap();
    let passwords = format!("requirepass {SENTINEL}\nsentinel auth-pass main {PASSWORD}");
    let (_sentinel, port) = sentinel(folder.path(), master.port(), &passwords);
    let options = |server: &str| Redis::options(&format!("redis+sentinel://{server}127.0.0.1:{port}/main")).unwrap();
    let right = format!(":{PASSWORD}@");
    let good = || options(&right).sentinel_credentials("", SENTINEL).replicas(1);
    let store = eventually("the Sentinel is up", async || good().connect().await).await;
    for (why, options) in [
        ("none for the Sentinel", options(&right)),
        ("another one for the Sentinel", options(&right).sentinel_credentials("", "geheim")),
        ("the server's for the Sentinel", options(&right).sentinel_credentials("", PASSWORD)),
        ("another user at the Sentinel", options(&right).sentinel_credentials("somebody", SENTINEL)),
        ("none for the server", options("").sentinel_credentials("", SENTINEL)),
        ("the Sentinel's for the server", options(&format!(":{SENTINEL}@")).sentinel_credentials("", SENTINEL)),
    ] {
        let error = options.connect().await.expect_err(why);
        assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("password"), "{why}: {error}");
        let shown = format!("{error} {error:?}");
        assert!([PASSWORD, SENTINEL, "geheim"].iter().all(|secret| !shown.contains(secret)), "{why}: {shown}");
    }
    eventually("the replica is in step", async || store.publish(&[change(1)]).await).await;
    let (_, before, _) = load(&store, None).await.unwrap();
    let sentinel_url = format!("redis://:{SENTINEL}@127.0.0.1:{port}");
    learns_of(&sentinel_url, &replica).await;
    eventually("the Sentinel may begin", async || {
        let mut connection =
            redis::Client::open(&*sentinel_url).unwrap().get_multiplexed_async_connection().await.unwrap();
        let begun = redis::cmd("SENTINEL").arg(&["FAILOVER", "main"]).query_async::<()>(&mut connection).await;
        begun.map_err(|error| BackendError::new(BackendErrorKind::Unavailable, error.to_string()))
    })
    .await;
    eventually("a fail-over", async || {
        let (seen, after, _) = load(&store, Some(before.clone())).await?;
        match after.incarnation() != before.incarnation() && seen == [1] {
            true => store.publish(&[change(2)]).await.map(drop),
            false => Err(BackendError::new(BackendErrorKind::Unavailable, format!("{seen:?} {after}"))),
        }
    })
    .await;
}

#[tokio::test]
async fn a_fail_over_is_followed() {
    let mut master = Server::redis();
    let of_master = format!("127.0.0.1 {}", master.port());
    let replica = Server::redis_with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--replicaof",
        &of_master,
        "--repl-diskless-sync-delay",
        "0",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let (_sentinel, port) = sentinel(folder.path(), master.port(), "");
    // The first one does not answer.
    let url = format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{port}/main", free_port());
    let connect = async || Redis::options(&url)?.replicas(1).connect().await;
    let store = eventually("the Sentinel is up", connect).await;
    eventually("the replica is in step", async || store.publish(&[change(1)]).await).await;
    let error = Redis::connect(&url.replace("/main", "/another")).await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("no master"), "{error}");
    let here = node(store.clone()).await;
    revoke(&here, "before").await;
    let (_, before, _) = load(&store, None).await.unwrap();
    learns_of(&format!("redis://127.0.0.1:{port}"), &replica).await;
    // What only the old master will have: the replica stands still.
    replica.pause();
    let error = store.publish(&[change(2)]).await.unwrap_err();
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    master.kill();
    replica.resume();
    let (seen, after, snapshot) = eventually("a fail-over", async || load(&store, Some(before.clone())).await).await;
    assert!(snapshot && after.partial_cmp(&before).is_none(), "{after} is not the life of {before}");
    assert!(seen.contains(&1), "what was acknowledged is there");
    let alone = Redis::connect(&url).await.unwrap();
    alone.publish(&[change(3)]).await.unwrap();
    let other = node(alone).await;
    revoke(&other, "after").await;
    knows(&other, "before").await;
    knows(&here, "after").await;
}

/// L1: a replica that lacks what was acknowledged takes over. A node that has dropped it from memory lets the token pass at
/// no moment, and writes it back.
#[tokio::test]
async fn l1_what_a_promoted_replica_lacks_is_refused_with_nothing_at_hand() {
    let mut master = Server::redis();
    let replication = Proxy::to(master.port()).await;
    let of_master = format!("127.0.0.1 {}", replication.port());
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let replica =
        Server::redis_with(&[&durable[..], &["--replicaof", &of_master, "--repl-diskless-sync-delay", "0"]].concat());
    let address = Proxy::to(master.port()).await;
    let store = Redis::connect(&master.url_at(address.port())).await.unwrap();
    let waits = Redis::options(&master.url()).unwrap().replicas(1).connect().await.unwrap();
    eventually("the replica is in step", async || waits.publish(&[change(1)]).await).await;
    let mut config = SyncConfig::new(Staleness::refuse_after(LIMIT));
    config.denylist.mode = Mode::Tiered(Tiered::default().entries(0).look_ups_per_source(u32::MAX));
    let node = Revocations::start(store, config).await.unwrap();
    // The fleet's settings are there as well before it hears no more.
    eventually("the replica is in step", async || waits.publish(&[change(2)]).await).await;
    replication.set(Fault::Cut);
    revoke(&node, "on the master only").await;
    master.kill();
    command(&replica.url(), &["REPLICAOF", "NO", "ONE"]).await;
    address.lead_to(replica.port());
    let claims = Claims::new(common::ISSUER).jti("on the master only").iat(common::unix() - 10);
    let token = Identity::from_verified(&claims.exp(common::unix() + 600));
    let (mut denied, begun) = (0, Instant::now());
    while denied < 20 || node.status().written_back == 0 {
        assert!(begun.elapsed() < LIMIT, "it is not written back: {:?}", node.status());
        node.denylist().maintain();
        match node.check_or_ask(&token).await {
            Verdict::Deny(_) => denied += 1,
            verdict => assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict:?} after {denied} denials"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let fresh = self::node(Redis::connect(&replica.url()).await.unwrap()).await;
    knows(&fresh, "on the master only").await;
}

#[tokio::test]
async fn replicas_are_waited_for() {
    let master = Server::redis();
    let store = Redis::options(&master.url()).unwrap().replicas(1).connect().await.unwrap();
    let error = store.publish(&[change(1)]).await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Unavailable && error.to_string().contains("0 of 1 replicas"), "{error}");
    let status = NodeStatus::new("one", true, LIMIT);
    assert!(store.heartbeat(&status).await.is_err(), "a master that is cut off keeps no node fresh");
    // Whatever else must not be forgotten. Each on a connection of its own, so that none waits behind another one.
    let connect = async || Redis::options(&master.url()).unwrap().replicas(1).connect().await.unwrap();
    let stores = [connect().await, connect().await, connect().await, connect().await, connect().await];
    let settings = FleetSettings::new(1, &Lifetimes::DEFAULT, None);
    let message = OneTime::new("test", common::ISSUER, "1", [1; 32], common::unix() + 60);
    let intent = Intent::new(1, &[change(3)]);
    let outcomes = tokio::join!(
        async { stores[0].agree(&settings).await.map(drop) },
        async { stores[1].claim_once(&message).await.map(drop) },
        async { stores[2].finish_once(&message).await },
        async { stores[3].intend(&intent).await },
        async { stores[4].settle(intent.id).await },
    );
    for error in <[_; 5]>::from(outcomes).map(Result::unwrap_err) {
        assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    }
    let _replica = Server::redis_with(&[
        "--replicaof",
        &format!("127.0.0.1 {}", master.port()),
        "--repl-diskless-sync-delay",
        "0",
    ]);
    eventually("the replica is in step", async || store.publish(&[change(2)]).await).await;
    assert_eq!(store.heartbeat(&status).await.unwrap(), std::slice::from_ref(&status));
}
