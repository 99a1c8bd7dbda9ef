//! The NATS backend: bad servers and streams, logins, faults of the network, crashes, and batches that are not complete.
//! What every backend must do is in `conformance_nats.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "common/certificates.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of other stores")]
mod certificates;
mod common;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self,
    message::PublishMessage,
    stream::{Config, DiscardPolicy, StorageType},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use certificates::Certificates;
use common::{
    faults::{Fault, Proxy},
    server::Server,
};
use futures_util::{StreamExt, future::join_all, stream::BoxStream};
use nkeys::KeyPair;
use serde_json::json;
use tempfile::TempDir;
use tower_revocation::{
    Revocations,
    backend::{Backend, BackendError, BackendErrorKind, Event, Nats, NatsOptions, Position},
    denylist::Staleness,
    revocation::{Change, Lifetimes, Revocation, Scope, ScopeHasher},
    sync::SyncConfig,
    time::SystemClock,
};

const ISSUER: &str = "https://issuer.example/";
/// How long to wait for anything.
const LIMIT: Duration = Duration::from_secs(30);

// ---- what cannot be used

#[tokio::test]
async fn refuses_urls_that_it_does_not_understand() {
    for url in [
        "redis://user:geheim@127.0.0.1",
        "nats://",
        "nats://user:geheim@127.0.0.1/?tls=true",
        "nats://127.0.0.1/stream",
        "nats://user:geheim%zz@127.0.0.1",
        "nats://geheim@127.0.0.1",
        "nats://a:geheim@127.0.0.1,nats://b:geheim@127.0.0.1",
        "127.0.0.1:4222",
        "",
    ] {
        let error = Nats::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Settings, "{url}: {error}");
        assert!(!shown(&error).contains("geheim"), "{url}: {error:?}");
    }
}

#[tokio::test]
async fn refuses_namespaces_that_no_stream_can_have() {
    for name in ["", "a.b", "a b", "*", ">", "a/b", "ä", &"x".repeat(65)] {
        let error = NatsOptions::new().namespace(name).connect("nats://127.0.0.1:1").await.unwrap_err();
        assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("namespace"), "{error}");
    }
}

#[tokio::test]
async fn names_a_server_that_does_not_answer() {
    let error = Nats::connect("nats://user:geheim@127.0.0.1:1").await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1:1") && !shown(&error).contains("geheim"), "{error:?}");
}

#[tokio::test]
async fn logs_in_and_names_a_refused_login_without_the_password() {
    let file = folder();
    let accounts = "accounts { \
        A { jetstream: enabled, users: [ { user: owner, password: \"ge@im\" } ] }, \
        B { users: [ { user: poor, password: geheim } ] } }";
    let (_file, server) = configured(&file, accounts);
    let url = |login: &str| format!("nats://{login}@127.0.0.1:{}", server.port());
    let store = Nats::connect(&url("owner:ge%40im")).await.unwrap();
    store.publish(&[token("1")]).await.unwrap();

    let error = Nats::connect(&url("owner:geheim")).await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Settings, "{error}");
    assert!(error.to_string().contains("login") && !shown(&error).contains("geheim"), "{error:?}");
    let error = Nats::connect(&url("poor:geheim")).await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Settings, "{error}");
    assert!(error.to_string().contains("JetStream") && !shown(&error).contains("geheim"), "{error:?}");

    let both = NatsOptions::new().token("geheim").connect(&url("owner:geheim")).await.unwrap_err();
    assert!(both.kind() == BackendErrorKind::Settings && !shown(&both).contains("geheim"), "{both:?}");
    let missing = NatsOptions::new().credentials_file("/nowhere/a.creds").connect(&server.url()).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/a.creds"), "{missing}");
    assert!(!format!("{:?}", NatsOptions::new().token("geheim")).contains("geheim"));
}

#[tokio::test]
async fn logs_in_with_a_token() {
    let server = Server::nats_with(&["--auth", "geheim"]);
    NatsOptions::new().token("geheim").connect(&server.url()).await.unwrap();
    let error = NatsOptions::new().token("geheimnis").connect(&server.url()).await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && !shown(&error).contains("geheimnis"), "{error:?}");
}

/// The server trusts an operator, who has signed for an account, which has signed for users.
#[tokio::test]
async fn logs_in_with_a_credentials_file() {
    let [operator, system, account] = [KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account()];
    let (ours, revoked, strange) = (KeyPair::new_user(), KeyPair::new_user(), KeyPair::new_account());
    let unlimited = [
        "subs",
        "data",
        "payload",
        "imports",
        "exports",
        "conn",
        "leaf",
        "mem_storage",
        "disk_storage",
        "streams",
        "consumer",
    ];
    let mut limits: serde_json::Map<_, _> = unlimited.map(|limit| (limit.to_owned(), json!(-1))).into_iter().collect();
    limits.insert("wildcards".into(), json!(true));
    let revocations = json!({ revoked.public_key(): common::unix() + 60 });
    let signed_for =
        jwt(&operator, &account, json!({ "type": "account", "limits": limits, "revocations": revocations }));
    let signed_for_system = jwt(&operator, &system, json!({ "type": "account" }));
    let config = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{ {}: {signed_for}, {}: {signed_for_system} }}",
        jwt(&operator, &operator, json!({ "type": "operator" })),
        system.public_key(),
        account.public_key(),
        system.public_key(),
    );
    let folder = folder();
    let (folder, server) = configured(&folder, &config);
    let unlimited = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
    let file = |name: &str, jwt: &str, key: &KeyPair| {
        let path = folder.path().join(name);
        let seed = key.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        fs::write(&path, text).unwrap();
        (path, seed)
    };
    let (good, _) = file("good.creds", &jwt(&account, &ours, unlimited.clone()), &ours);
    let store = NatsOptions::new().credentials_file(good).connect(&server.url()).await.unwrap();
    let mut feed = Reader::of(&store, None);
    let position = store.publish(&[token("1"), token("2")]).await.unwrap();
    while feed.caught_up().await < position {}
    assert_eq!(feed.seen.len(), 2);

    let other = KeyPair::new_user();
    let cases = [
        ("signed by another account", jwt(&strange, &ours, unlimited.clone()), &ours),
        ("another one's key", jwt(&account, &ours, unlimited.clone()), &other),
        ("revoked", jwt(&account, &revoked, unlimited), &revoked),
        ("no JWT", "geheim".to_owned(), &ours),
    ];
    for (why, jwt, key) in cases {
        let (path, seed) = file("bad.creds", &jwt, key);
        let error = NatsOptions::new().credentials_file(path).connect(&server.url()).await.expect_err(why);
        assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("login"), "{why}: {error}");
        assert!(!shown(&error).contains(&seed) && !shown(&error).contains(&jwt), "{why}: {error:?}");
    }
    let path = folder.path().join("none.creds");
    fs::write(&path, "geheim").unwrap();
    let error = NatsOptions::new().credentials_file(path).connect(&server.url()).await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("none.creds"), "{error}");
    assert!(!shown(&error).contains("geheim"), "{error:?}");
    // Without any, too.
    let error = Nats::connect(&server.url()).await.unwrap_err();
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("login"), "{error}");
}

/// Where the server asks for a certificate (`verify: true`).
#[tokio::test]
async fn shows_the_server_its_certificate() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let [certificate, key] = ours.server();
    let files = [certificate, key, ours.authority()].map(|path| path.to_str().unwrap().to_owned());
    let server =
        Server::nats_with(&["--tlsverify", "--tlscert", &files[0], "--tlskey", &files[1], "--tlscacert", &files[2]]);
    let url = format!("tls://127.0.0.1:{}", server.port());
    let with = |ca: &Certificates, client: Option<&Certificates>| {
        let options = NatsOptions::new().ca_file(ca.authority());
        match client.map(Certificates::client) {
            Some([chain, key]) => options.client_certificate(chain, key),
            None => options,
        }
    };
    let store = with(&ours, Some(&ours)).connect(&url).await.unwrap();
    let mut feed = Reader::of(&store, None);
    let position = store.publish(&[token("1")]).await.unwrap();
    while feed.caught_up().await < position {}

    for (why, options) in [
        ("the server asks for a certificate", with(&ours, None)),
        ("the server does not know who signed it", with(&ours, Some(&others))),
        ("we do not know who signed the server's", with(&others, Some(&ours))),
        ("there is no such file", with(&ours, None).client_certificate("/nowhere/a.pem", "/nowhere/a.key")),
    ] {
        let error = options.connect(&url).await.expect_err(why);
        assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("TLS"), "{why}: {error}");
    }
}

#[tokio::test]
async fn speaks_tls_with_the_servers_that_it_trusts() {
    let folder = folder();
    let (certificate, key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
    self_signed(&certificate, &key);
    let [certificate_path, key_path] = [&certificate, &key].map(|path| path.to_str().unwrap());
    let server = Server::nats_with(&["--tls", "--tlscert", certificate_path, "--tlskey", key_path]);
    let url = format!("tls://localhost:{}", server.port());
    let store = NatsOptions::new().ca_file(&certificate).connect(&url).await.unwrap();
    store.publish(&[token("1")]).await.unwrap();
    assert!(Nats::connect(&url).await.is_err(), "a certificate of nobody whom we trust");

    let plain = Server::nats();
    let url = format!("tls://localhost:{}", plain.port());
    assert!(NatsOptions::new().ca_file(&certificate).connect(&url).await.is_err(), "a server without TLS");
}

#[tokio::test]
async fn refuses_streams_that_could_lose_revocations() {
    let server = Server::nats();
    let context = context(&server).await;
    let good = |namespace: &str| Config {
        name: format!("TREV_{namespace}"),
        subjects: ["c", "b", "h"].map(|kind| format!("trev.{namespace}.{kind}.>")).to_vec(),
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        num_replicas: 1,
        ..Config::default()
    };
    let bad: [(&str, Config); 9] = [
        ("storage", Config { storage: StorageType::Memory, ..good("storage") }),
        ("discard", Config { discard: DiscardPolicy::Old, ..good("discard") }),
        ("max_age", Config { max_age: Duration::from_secs(3600), ..good("max_age") }),
        ("max_bytes", Config { max_bytes: 1 << 20, ..good("max_bytes") }),
        ("max_msgs", Config { max_messages: 10, ..good("max_msgs") }),
        ("max_msg_size", Config { max_message_size: 1000, ..good("max_msg_size") }),
        ("max_msgs_per_subject", Config { max_messages_per_subject: 2, ..good("max_msgs_per_subject") }),
        ("deny_purge", Config { deny_purge: true, ..good("deny_purge") }),
        ("subjects", Config { subjects: vec!["trev.subjects.c.>".into()], ..good("subjects") }),
    ];
    for (setting, config) in bad {
        context.create_stream(config).await.unwrap();
        let error = NatsOptions::new().namespace(setting).connect(&server.url()).await.unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Settings, "{setting}: {error}");
        let named = error.to_string();
        assert!(named.contains(&format!("{setting}:")) && named.contains(&format!("TREV_{setting}")), "{error}");
    }
    context.create_stream(good("good")).await.unwrap();
    NatsOptions::new().namespace("good").connect(&server.url()).await.unwrap();
    let error = NatsOptions::new().namespace("good").replicas(3).connect(&server.url()).await.unwrap_err();
    assert!(error.to_string().contains("num_replicas"), "{error}");
}

/// Also while it runs: whoever edits the stream hears of it, and nothing counts as up to date.
#[tokio::test]
async fn notices_settings_that_become_bad() {
    let server = Server::nats();
    let store = Nats::connect(&server.url()).await.unwrap();
    let mut feed = Reader::of(&store, None);
    feed.caught_up().await;
    let context = context(&server).await;
    let mut config = context.get_stream("TREV_default").await.unwrap().cached_info().config.clone();
    config.max_age = Duration::from_secs(3600);
    context.update_stream(config).await.unwrap();
    let error = feed.failure().await;
    assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("max_age"), "{error}");
}

// ---- lives of a stream

#[tokio::test]
async fn a_stream_that_was_made_anew_is_another() {
    let server = Server::nats();
    let store = Nats::connect(&server.url()).await.unwrap();
    let before = store.publish(&[token("1"), token("2")]).await.unwrap();
    let mut feed = Reader::of(&store, None);
    let from = feed.caught_up().await;
    assert!(from >= before);
    context(&server).await.delete_stream("TREV_default").await.unwrap();
    let again = Nats::connect(&server.url()).await.unwrap();
    let after = again.publish(&tokens("new", 10)).await.unwrap();
    feed.failure().await;
    assert_eq!(before.partial_cmp(&after), None, "places of two lives cannot be compared");
    let mut resumed = Reader::of(&again, Some(from));
    resumed.caught_up().await;
    assert!(resumed.snapshots == 1 && resumed.seen.len() == 10, "{:?}", resumed.seen);
}

/// The server lost the end of the log, and the sequences were given anew: the life is the same, the place is not.
#[tokio::test]
async fn starts_over_where_another_message_took_its_place() {
    let mut server = Server::nats();
    let store = Nats::connect(&server.url()).await.unwrap();
    store.publish(&[token("kept")]).await.unwrap();
    server.stop();
    let backup = folder();
    copy(&server.folder().join("data"), &backup.path().join("data"));
    server.start_again();
    let store = Nats::connect(&server.url()).await.unwrap();
    for change in tokens("lost", 3) {
        store.publish(&[change]).await.unwrap();
    }
    let from = Reader::of(&store, None).caught_up().await;
    server.stop();
    fs::remove_dir_all(server.folder().join("data")).unwrap();
    copy(&backup.path().join("data"), &server.folder().join("data"));
    server.start_again();
    let store = Nats::connect(&server.url()).await.unwrap();
    let new = tokens("new", 6);
    for change in &new {
        store.publish(std::slice::from_ref(change)).await.unwrap();
    }
    let mut resumed = Reader::of(&store, Some(from));
    resumed.caught_up().await;
    assert_eq!(resumed.snapshots, 1, "resumed from a place that another message has taken");
    assert!(new.iter().all(|change| resumed.seen.contains(change)));
}

// ---- batches

#[tokio::test]
async fn a_big_batch_is_whole() {
    let server = Server::nats();
    let store = Nats::connect(&server.url()).await.unwrap();
    let batch = tokens("big", 10_000);
    let mut feed = Reader::of(&store, None);
    feed.caught_up().await;
    let position = store.publish(&batch).await.unwrap();
    while feed.caught_up().await < position {}
    assert!(feed.seen == batch, "{} of 10,000 in order", feed.seen.len());
}

/// A publisher was killed between the parts: nobody sees them, and nobody waits for them. Where the end comes after all,
/// everybody sees all, those too who began to read behind the parts.
#[tokio::test]
async fn half_a_batch_is_never_applied_and_delays_nobody() {
    let server = Server::nats();
    let store = Nats::connect(&server.url()).await.unwrap();
    let context = context(&server).await;
    let parts = tokens("part", 3);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (batch, mut places) = ("b.max.dead", Vec::new());
    for (n, part) in parts.iter().enumerate() {
        let subject = format!("trev.default.c.{}.max.{}.dead-{n}", hex(&part.key().to_bytes()), u64::MAX);
        let message = PublishMessage::build().payload(part.encode().into()).header("Trev-Batch", batch);
        places.push(context.send_publish(subject, message).await.unwrap().await.unwrap().sequence);
    }
    let keys: Vec<_> = parts.iter().map(Change::key).collect();
    let mut early = Reader::of(&store, None);
    early.caught_up().await;
    let other = token("other");
    let position = store.publish(std::slice::from_ref(&other)).await.unwrap();
    while early.caught_up().await < position {}
    assert_eq!(early.seen, std::slice::from_ref(&other), "parts of a batch that is not complete");
    assert!(store.lookup(&keys).await.unwrap().is_empty(), "a look-up finds parts of a batch that is not complete");
    // It begins behind the parts, which it has not read.
    let mut late = Reader::of(&store, Some(early.caught_up().await));
    late.caught_up().await;
    assert_eq!((late.snapshots, late.seen.len()), (0, 0));

    let mut end = vec![1];
    end.extend_from_slice(&places[0].to_be_bytes());
    end.extend_from_slice(&3_u32.to_be_bytes());
    context.publish(format!("trev.default.{batch}"), end.into()).await.unwrap().await.unwrap();
    for reader in [&mut early, &mut late] {
        reader.until(|seen| seen.len() >= 3).await;
        assert!(reader.seen.ends_with(&parts), "{:?}", reader.seen);
    }
    assert_eq!(store.lookup(&keys).await.unwrap(), parts);
}

/// What counts is not replaced by the same as part of a batch that never counts.
#[tokio::test]
async fn a_dropped_batch_takes_nothing_along() {
    let server = Server::nats();
    let store = Nats::connect(&server.url()).await.unwrap();
    let changes = tokens("kept", 300);
    for change in &changes {
        store.publish(std::slice::from_ref(change)).await.unwrap();
    }
    for patience in 0..40 {
        let _ = tokio::time::timeout(Duration::from_micros(patience * 100), store.publish(&changes)).await;
    }
    let mut feed = Reader::of(&store, None);
    feed.caught_up().await;
    assert!(changes.iter().all(|change| feed.seen.contains(change)));
    let keys: Vec<_> = changes.iter().map(Change::key).collect();
    let found = store.lookup(&keys).await.unwrap();
    assert!(changes.iter().all(|change| found.contains(change)));
}

// ---- faults

/// Nothing that was acknowledged is lost where the server is killed under load, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_acknowledged() {
    let mut server = Server::nats();
    let url = server.url();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publishers = (0..3).map(|publisher| {
        let (url, stopped) = (url.clone(), stopped.clone());
        tokio::spawn(async move {
            let store = Nats::connect(&url).await.unwrap();
            let (mut acknowledged, mut round) = (Vec::new(), 0);
            while !*stopped.borrow() {
                let batch = tokens(&format!("{publisher} {round}"), 1 + round % 3);
                round += 1;
                if store.publish(&batch).await.is_ok() {
                    acknowledged.extend(batch);
                }
            }
            acknowledged
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let store = Nats::connect(&url).await.unwrap();
    for kill in 0..3 {
        // It works again, and then goes on for a while.
        let began = Instant::now();
        for n in 0..50 {
            while store.publish(&[token(&format!("kill {kill} {n}"))]).await.is_err() {
                assert!(began.elapsed() < LIMIT, "it does not work again");
            }
        }
        server.crash();
    }
    stop.send_replace(true);
    let acknowledged: Vec<_> = join_all(publishers).await.into_iter().flat_map(Result::unwrap).collect();
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    let fresh = Nats::connect(&url).await.unwrap();
    let mut feed = Reader::of(&fresh, None);
    feed.caught_up().await;
    let lost: Vec<_> = acknowledged.iter().filter(|change| !feed.seen.contains(change)).collect();
    assert!(lost.is_empty(), "{} of {} are lost", lost.len(), acknowledged.len());
}

/// A connection on which no answer arrives fails what waits on it, and is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_answers_fails_calls_and_is_replaced() {
    let server = Server::nats();
    let proxy = Proxy::to(server.port()).await;
    let store = Nats::connect(&server.url_at(proxy.port())).await.unwrap();
    proxy.set(Fault::AnswersLost);
    let change = [token("1")];
    let publish = store.publish(&change);
    assert!(tokio::time::timeout(LIMIT, publish).await.expect("it hangs").is_err(), "acknowledged");
    let key = token("1").key();
    assert!(tokio::time::timeout(LIMIT, store.lookup(&[key])).await.expect("it hangs").is_err());
    proxy.set(Fault::None);
    publish_again(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_is_used_again() {
    let server = Server::nats();
    let store = Nats::connect(&server.url()).await.unwrap();
    server.pause();
    let change = [token("1")];
    let publish = store.publish(&change);
    assert!(tokio::time::timeout(LIMIT, publish).await.expect("it hangs").is_err());
    server.resume();
    publish_again(&store).await;
}

/// A node goes on by itself after each fault, and then refuses what was revoked elsewhere meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_recovers_from_each_fault() {
    let server = Server::nats();
    let proxy = Proxy::to(server.port()).await;
    let config = || SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let near = Revocations::start(Nats::connect(&server.url()).await.unwrap(), config()).await.unwrap();
    let far = Nats::connect(&server.url_at(proxy.port())).await.unwrap();
    let far = Revocations::start(far, config()).await.unwrap();
    for (n, fault) in [Fault::Silence, Fault::Cut, Fault::AnswersLost].into_iter().enumerate() {
        proxy.set(fault);
        let _ = near.revoke(Revocation::ban(Scope::token(ISSUER, n.to_string()))).await.unwrap();
        let began = Instant::now();
        while far.status().last_error.is_none() {
            assert!(began.elapsed() < LIMIT, "{fault:?} is not noticed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.set(Fault::None);
        while far.denylist().records() < n + 1 || far.status().last_error.is_some() {
            assert!(began.elapsed() < 2 * LIMIT, "no recovery from {fault:?}: {:?}", far.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

// ---- helpers

fn token(name: &str) -> Change {
    let scope = Scope::token(ISSUER, name);
    let record = Revocation::ban(scope).into_record(&ScopeHasher::new([7; 16]), &Lifetimes::DEFAULT, 1);
    Change::Revoke(record)
}

fn tokens(name: &str, count: usize) -> Vec<Change> {
    (0..count).map(|n| token(&format!("{name} {n}"))).collect()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn configured<'f>(folder: &'f TempDir, config: &str) -> (&'f TempDir, Server) {
    let path = folder.path().join("nats.conf");
    fs::write(&path, config).unwrap();
    (folder, Server::nats_with(&["-c", path.to_str().unwrap()]))
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A NATS JWT by which one key vouches for another.
fn jwt(by: &KeyPair, subject: &KeyPair, mut claims: serde_json::Value) -> String {
    claims["version"] = json!(2);
    let body = json!({
        "jti": subject.public_key(), "iat": common::unix(), "iss": by.public_key(), "name": "tests",
        "sub": subject.public_key(), "nats": claims,
    });
    let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let signed = [head, body].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(by.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn self_signed(certificate: &Path, key: &Path) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn context(server: &Server) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.unwrap())
}

async fn publish_again(store: &Nats) {
    let began = Instant::now();
    while let Err(error) = store.publish(&[token("again")]).await {
        assert!(began.elapsed() < LIMIT, "it does not work again: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn shown(error: &BackendError) -> String {
    format!("{error} {error:?}")
}

struct Reader<'a> {
    feed: BoxStream<'a, Result<Event, BackendError>>,
    seen: Vec<Change>,
    snapshots: usize,
}

impl<'a> Reader<'a> {
    fn of(store: &'a Nats, from: Option<Position>) -> Self {
        Self { feed: store.follow(from, &SystemClock), seen: Vec::new(), snapshots: 0 }
    }

    async fn event(&mut self) -> Option<Result<Event, BackendError>> {
        tokio::time::timeout(LIMIT, self.feed.next()).await.expect("the feed is silent")
    }

    /// Where it says so next; `None` for any other event.
    async fn step(&mut self) -> Option<Position> {
        match self.event().await.expect("the feed ended").unwrap() {
            Event::Snapshot => self.snapshots += 1,
            Event::Changes(changes) => self.seen.extend(changes),
            Event::CaughtUp { position, .. } => return Some(position),
            other => panic!("{other:?}"),
        }
        None
    }

    async fn caught_up(&mut self) -> Position {
        loop {
            if let Some(position) = self.step().await {
                return position;
            }
        }
    }

    async fn until(&mut self, enough: impl Fn(&[Change]) -> bool) {
        let began = Instant::now();
        while !enough(&self.seen) {
            assert!(began.elapsed() < LIMIT, "it does not arrive");
            self.step().await;
        }
    }

    async fn failure(&mut self) -> BackendError {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < LIMIT, "the feed does not fail");
            if let Err(error) = self.event().await.expect("the feed ended") {
                return error;
            }
        }
    }
}
