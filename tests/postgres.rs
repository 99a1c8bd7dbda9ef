//! The backend in PostgreSQL: bad settings, roles, restores, order, and lost connections.
//! What every backend must do is in `conformance_postgres.rs`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/certificates.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of other stores")]
mod certificates;
mod common;

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::BoxStream};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tower_revocation::{
    backend::{
        Backend, BackendError, BackendErrorKind, Claim, Durability, Event, NodeStatus, OneTime, Position, Postgres,
    },
    revocation::{Change, Cutoff, Detail, Record, RevocationId, Scope, ScopeHasher, ScopeKey},
    time::SystemClock,
};

use self::{
    certificates::Certificates,
    common::{
        faults::{Fault, Proxy},
        server::{PASSWORD, Server, programs},
    },
};

/// How long to wait for anything.
const LIMIT: Duration = Duration::from_secs(30);

// ---- what is refused at the start

#[tokio::test]
async fn refuses_what_cannot_keep_promises_and_names_it() {
    let mut server = Server::postgres();
    let on = format!("{}?options[default_transaction_read_only]=on", server.url());
    let error = refused(&on).await;
    assert!(error.contains("default_transaction_read_only"), "{error}");
    server.stop();
    fs::write(server.folder().join("data/standby.signal"), "").unwrap();
    server.start_again();
    let error = refused(&server.url()).await;
    assert!(error.contains("standby"), "{error}");
}

#[tokio::test]
async fn names_what_is_wrong_without_secrets() {
    let server = Server::postgres();
    let place = format!("postgres://owner@127.0.0.1:{}/postgres", server.port());
    let wrong = server.url().replace(PASSWORD, "wr0ng");
    let error = refused(&wrong).await;
    assert!(error.contains(&place) && error.contains("check the password"), "{error}");
    let error = refused(&server.url().replace("/postgres", "/missing")).await;
    assert!(error.contains("missing") && error.contains("create it"), "{error}");
    for parameter in ["sslmod=require", "SSLMODE=require", "connect_timeout=1"] {
        let error = refused(&format!("{}?{parameter}", server.url())).await;
        assert!(error.contains(parameter.split('=').next().unwrap()), "{error}");
    }
    let error = refused(&server.url().replace("postgres://", "redis://")).await;
    assert!(error.contains("scheme"), "{error}");
    let error = Postgres::connect_to_schema(&server.url(), "a\"; DROP").await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Settings);

    let store = Postgres::connect(&server.url()).await.unwrap();
    let shown = format!("{store:?}");
    assert!(shown.contains(&place) && !shown.contains(PASSWORD), "{shown}");
    let url = server.url();
    drop(server);
    let error = Postgres::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Unavailable);
    let calls = [error, store.publish(&[change(1)]).await.unwrap_err(), store.lookup(&[key(1)]).await.unwrap_err()];
    let feed = store.follow(None, &SystemClock).next().await.unwrap().unwrap_err();
    for error in calls.into_iter().chain([feed]) {
        let error = format!("{error} {error:?}");
        assert!(error.contains(&place) && !error.contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn tells_which_crash_it_survives() {
    for (options, expected) in [
        (&["-c", "fsync=off"][..], Durability::Process),
        (&["-c", "full_page_writes=off"], Durability::Process),
        (&[], Durability::Machine),
    ] {
        let server = Server::postgres_with(options);
        assert_eq!(Postgres::connect(&server.url()).await.unwrap().durability(), expected, "{options:?}");
    }
}

/// Whatever the server and the role are set to.
#[tokio::test]
async fn acknowledges_what_is_on_the_disk() {
    let mut server = Server::postgres_with(&["-c", "synchronous_commit=off", "-c", "wal_writer_delay=10s"]);
    let url = server.url();
    run(&url, &["ALTER ROLE owner SET synchronous_commit = off"]).await;
    let off = format!("{url}?options[synchronous_commit]=off");
    for n in 0..5 {
        let store = Postgres::connect(&off).await.unwrap();
        store.publish(&[change(n)]).await.unwrap();
        server.crash();
    }
    let store = Postgres::connect(&off).await.unwrap();
    let keys: Vec<_> = (0..5).map(key).collect();
    assert_eq!(store.lookup(&keys).await.unwrap().len(), 5, "what was acknowledged survives a crash");
}

// ---- TLS

#[tokio::test]
async fn speaks_tls_with_the_right_server_only() {
    let (ours, others) = (Certificates::new(), Certificates::new());
    let server = Server::postgres_with(&ours.postgres_options().each_ref().map(String::as_str));
    let url = |mode: &str, ca: &Path| format!("{}?sslmode={mode}&sslrootcert={}", server.url(), ca.display());
    let store = Postgres::connect(&url("verify-full", &ours.authority())).await.unwrap();
    let mut follower = Follower::new(&store, None);
    follower.catch_up().await;
    let position = store.publish(&[change(1)]).await.unwrap();
    follower.reach(&position).await;
    let plain: i64 = ask(
        &server.url(),
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                         WHERE application_name = 'tower-revocation' AND NOT ssl",
    )
    .await;
    assert_eq!(plain, 0, "every connection is encrypted");

    let error = refused(&url("verify-full", &others.authority())).await;
    assert!(error.contains("certificate"), "{error}");
    let elsewhere = url("verify-full", &ours.authority()).replace("127.0.0.1", "localhost");
    let error = refused(&elsewhere).await;
    assert!(error.contains("certificate"), "{error}");
    // A server without TLS.
    let plain = Server::postgres();
    let error =
        refused(&format!("{}?sslmode=verify-full&sslrootcert={}", plain.url(), ours.authority().display())).await;
    assert!(error.contains("sslmode"), "{error}");
}

// ---- the schema

#[tokio::test]
async fn makes_the_tables_once_however_many_start() {
    let server = Server::postgres();
    let starting = (0..8).map(|_| {
        let url = server.url();
        tokio::spawn(async move { Postgres::connect(&url).await })
    });
    let mut positions = Vec::new();
    for store in starting.collect::<Vec<_>>() {
        positions.push(store.await.unwrap().unwrap().publish(&[change(1)]).await.unwrap());
    }
    assert!(positions.is_sorted_by(|a, b| a < b), "all in one life of the store: {positions:?}");
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_is_told_what_to_run() {
    let server = Server::postgres();
    let url = server.url();
    run(&url, &["CREATE ROLE node LOGIN PASSWORD 'n0de'", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"]).await;
    let node = url.replace(&format!("owner:{PASSWORD}"), "node:n0de");

    let error = refused(&node).await;
    assert!(error.contains("the role node") && error.contains("schema_sql(\"tower_revocation\")"), "{error}");
    let grants = error.find("GRANT").map(|at| error[at..].split(": ").next().unwrap()).unwrap();
    run(&url, &[&Postgres::schema_sql(Postgres::SCHEMA).unwrap()]).await;
    let error = refused(&node).await;
    assert!(error.contains("USAGE on tower_revocation"), "{error}");
    run(&url, &[grants]).await;
    let store = Postgres::connect(&node).await.unwrap();
    let position = store.publish(&[change(1)]).await.unwrap();
    let mut follower = Follower::new(&store, None);
    follower.reach(&position).await;
    store.purge(1000).await.unwrap();
    store.heartbeat(&NodeStatus::new("one", true, Duration::from_secs(1))).await.unwrap();

    // Each right that is missing is named.
    for (right, on) in [("DELETE", "changes"), ("UPDATE", "meta"), ("INSERT", "claims"), ("SELECT", "life")] {
        run(&url, &[&format!("REVOKE {right} ON tower_revocation.{on} FROM node")]).await;
        let error = refused(&node).await;
        assert!(error.contains(&format!("{right} on ")) && error.contains(on), "{error}");
        run(&url, &[&format!("GRANT {right} ON tower_revocation.{on} TO node")]).await;
    }
}

#[tokio::test]
async fn refuses_the_tables_of_newer_versions_and_of_others() {
    let server = Server::postgres();
    Postgres::connect(&server.url()).await.unwrap();
    for (version, expected) in [("2", "upgrade this program"), ("0", "another program's"), ("x", "another program's")] {
        let set = format!("UPDATE tower_revocation.meta SET value = '{version}' WHERE key = 'schema_version'");
        run(&server.url(), &[&set]).await;
        let error = refused(&server.url()).await;
        assert!(error.contains(expected) && error.contains("tower_revocation"), "{error}");
    }
}

#[tokio::test]
async fn schemas_are_apart() {
    let server = Server::postgres();
    let [a, b] = ["one", "two"].map(|schema| {
        let url = server.url();
        async move { Postgres::connect_to_schema(&url, schema).await.unwrap() }
    });
    let (a, b) = (a.await, b.await);
    let position = a.publish(&[change(1)]).await.unwrap();
    assert!(b.lookup(&[key(1)]).await.unwrap().is_empty());
    assert!(b.publish(&[change(2)]).await.unwrap().partial_cmp(&position).is_none());
}

// ---- order

/// Whoever says that it has reached a place has delivered all that was placed before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_follower_misses_a_change_however_many_publish() {
    const PUBLISHERS: u64 = 6;
    const EACH: u64 = 150;
    let server = Server::postgres();
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(Postgres::connect(&server.url()).await.unwrap());
    }
    let placed = Mutex::new(HashMap::<ScopeKey, Position>::new());
    let publishing = futures_util::future::join_all((0..PUBLISHERS).map(|publisher| {
        let (store, placed) = (&stores[publisher as usize % 3], &placed);
        async move {
            for n in 0..EACH {
                // Of different sizes: what begins first may end last.
                let first = publisher * 1_000_000 + n * 1000;
                let batch: Vec<_> = (first..=first + (n * 7 + publisher) % 40).map(change).collect();
                let position = store.publish(&batch).await.unwrap();
                placed.lock().unwrap().extend(batch.iter().map(|change| (change.key(), position.clone())));
            }
        }
    }));
    let following = futures_util::future::join_all(stores.iter().map(|store| {
        let placed = &placed;
        async move {
            let mut follower = Follower::new(store, None);
            let total = (0..PUBLISHERS).flat_map(|p| (0..EACH).map(move |n| (n * 7 + p) % 40 + 1)).sum::<u64>();
            while follower.seen.len() < total as usize {
                let reached = follower.catch_up().await;
                let held: HashSet<_> = follower.seen.iter().map(Change::key).collect();
                let placed = placed.lock().unwrap();
                let missing = placed.iter().filter(|(key, place)| **place <= reached && !held.contains(key)).count();
                assert_eq!(missing, 0, "changes are missing at {reached} that were placed before it");
            }
            assert_eq!(follower.seen.len(), total as usize, "each once");
        }
    }));
    tokio::time::timeout(2 * LIMIT, async { tokio::join!(publishing, following) }).await.unwrap();
}

/// A transaction that has written something elsewhere and then does nothing holds up nobody.
#[tokio::test]
async fn a_foreign_idle_transaction_delays_nothing() {
    let server = Server::postgres();
    let (a, b) = (Postgres::connect(&server.url()).await.unwrap(), Postgres::connect(&server.url()).await.unwrap());
    let mut foreign = PgConnection::connect(&server.url()).await.unwrap();
    let mut idle = foreign.begin().await.unwrap();
    for sql in ["CREATE TABLE theirs (n int)", "INSERT INTO theirs VALUES (1)", "SELECT pg_current_xact_id()"] {
        sqlx::query(sql).execute(&mut *idle).await.unwrap();
    }
    let mut follower = Follower::new(&b, None);
    follower.catch_up().await;
    for n in 0..20 {
        let position = a.publish(&[change(n)]).await.unwrap();
        follower.reach(&position).await;
    }
    assert_eq!(follower.seen.len(), 20);
    let mut late = Follower::new(&a, None);
    late.catch_up().await;
    assert_eq!(late.seen.len(), 20);
    idle.rollback().await.unwrap();
}

/// What somebody holds on to is left for later.
#[tokio::test]
async fn a_purge_waits_for_nobody() {
    let server = Server::postgres();
    let store = Postgres::connect(&server.url()).await.unwrap();
    store.publish(&[expired(1), expired(2), change(3)]).await.unwrap();
    let mut foreign = PgConnection::connect(&server.url()).await.unwrap();
    let mut holding = foreign.begin().await.unwrap();
    let hold = "SELECT seq FROM tower_revocation.changes ORDER BY seq LIMIT 1 FOR UPDATE";
    sqlx::query(hold).execute(&mut *holding).await.unwrap();
    assert_eq!(store.purge(1000).await.unwrap(), 1);
    holding.rollback().await.unwrap();
    assert_eq!(store.purge(1000).await.unwrap(), 1);
}

/// A place never goes back, though all that it was made of has expired.
#[tokio::test]
async fn a_purge_of_everything_keeps_the_place() {
    let server = Server::postgres();
    let store = Postgres::connect(&server.url()).await.unwrap();
    let position = store.publish(&[expired(1), expired(2)]).await.unwrap();
    store.purge(1000).await.unwrap();
    assert_eq!(store.publish(&[]).await.unwrap(), position);
    let mut late = Follower::new(&store, None);
    assert_eq!(late.catch_up().await, position);
    let mut resumed = Follower::new(&store, Some(position));
    resumed.catch_up().await;
    assert_eq!(resumed.snapshots, 0, "it goes on where it was");
}

// ---- crashes and restores

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_load_loses_nothing_that_was_acknowledged() {
    let mut server = Server::postgres();
    let store = Arc::new(Postgres::connect(&server.url()).await.unwrap());
    let (acknowledged, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let next = Arc::new(AtomicU64::new(0));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
            let (stop, next) = (Arc::clone(&stop), Arc::clone(&next));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if store.publish(&[change(n)]).await.is_ok() {
                        acknowledged.lock().unwrap().push(n);
                    }
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let enough = acknowledged.lock().unwrap().len() + 100;
        wait_until("more is acknowledged", || acknowledged.lock().unwrap().len() >= enough).await;
        server = tokio::task::spawn_blocking(move || {
            server.crash();
            server
        })
        .await
        .unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    let keys: Vec<_> = acknowledged.lock().unwrap().iter().map(|n| key(*n)).collect();
    let mut late = Follower::new(&store, None);
    late.catch_up().await;
    let held: HashSet<_> = late.seen.iter().map(Change::key).collect();
    assert_eq!(keys.iter().filter(|key| !held.contains(key)).count(), 0, "of {} acknowledged", keys.len());
}

/// A dump that is restored holds fewer changes under the same numbers.
#[tokio::test]
async fn a_restored_dump_begins_another_life() {
    let server = Server::postgres();
    let store = Postgres::connect(&server.url()).await.unwrap();
    let mut follower = Follower::new(&store, None);
    store.publish(&[change(1)]).await.unwrap();
    let dump = server.folder().join("dump.sql");
    tool(
        "pg_dump",
        &["--clean", "--no-owner", "-n", "tower_revocation", "-f", dump.to_str().unwrap(), "-d", &server.url()],
    );
    let before = store.publish(&[change(2)]).await.unwrap();
    follower.reach(&before).await;
    tool("psql", &["-q", "-v", "ON_ERROR_STOP=1", "-f", dump.to_str().unwrap(), "-d", &server.url()]);
    let after = publish_again(&store, &[change(3), change(4)]).await;
    assert!(before.partial_cmp(&after).is_none(), "{before} and {after} are places of different lives");
    drop(follower);
    let mut follower = Follower::new(&store, Some(before));
    follower.reach(&after).await;
    assert_eq!((follower.snapshots, follower.numbers()), (1, vec![1, 3, 4]));
}

/// A copy of the disk is the same life of the same server; its numbers go back all the same.
#[tokio::test]
async fn a_restored_copy_of_the_disk_begins_another_life() {
    let mut server = Server::postgres();
    let store = Postgres::connect(&server.url()).await.unwrap();
    store.publish(&[change(1)]).await.unwrap();
    server.stop();
    let (data, copy) = (server.folder().join("data"), server.folder().join("copy"));
    let done = Command::new("cp").arg("-a").arg(&data).arg(&copy).status().unwrap();
    assert!(done.success());
    server.start_again();
    let before = publish_again(&store, &[change(2), change(3)]).await;
    let mut follower = Follower::new(&store, None);
    follower.reach(&before).await;
    drop(follower);
    server.stop();
    fs::remove_dir_all(&data).unwrap();
    fs::rename(&copy, &data).unwrap();
    server.start_again();

    let mut follower = Follower::new(&store, Some(before.clone()));
    follower.catch_up().await;
    assert_eq!((follower.snapshots, follower.numbers()), (1, vec![1]));
    let after = store.publish(&[change(4), change(5), change(6)]).await.unwrap();
    assert!(before.partial_cmp(&after).is_none(), "{before} and {after} are places of different lives");
}

#[tokio::test]
async fn names_the_row_that_cannot_be_read() {
    let server = Server::postgres();
    let store = Postgres::connect(&server.url()).await.unwrap();
    store.publish(&[change(1)]).await.unwrap();
    run(
        &server.url(),
        &["INSERT INTO tower_revocation.changes (namespace, key, retain_until, record) \
                          VALUES ('default', '\\x07', 9, '\\x00')"],
    )
    .await;
    let seq: i64 = ask(&server.url(), "SELECT max(seq) FROM tower_revocation.changes").await;
    let mut follower = Follower::new(&store, None);
    follower.catch_up().await;
    let name = format!("tower_revocation.changes.seq={seq}");
    assert!(follower.unreadable.len() == 1 && follower.unreadable[0].contains(&name), "{:?}", follower.unreadable);
    // The name is how it is found and removed.
    run(&server.url(), &[&format!("DELETE FROM tower_revocation.changes WHERE seq = {seq}")]).await;
    let mut follower = Follower::new(&store, None);
    follower.catch_up().await;
    assert_eq!((follower.unreadable.len(), follower.numbers()), (0, vec![1]));
}

// ---- connections that are lost

#[tokio::test]
async fn goes_on_after_a_cut() {
    let server = Server::postgres();
    let proxy = Proxy::to(server.port()).await;
    let store = Postgres::connect(&server.url_at(proxy.port())).await.unwrap();
    let mut follower = Follower::new(&store, None);
    let from = follower.reach(&store.publish(&[change(1)]).await.unwrap()).await;
    proxy.set(Fault::Cut);
    follower.fails().await;
    store.publish(&[change(2)]).await.unwrap_err();
    proxy.set(Fault::None);
    let position = store.publish(&[change(3)]).await.unwrap();
    let mut follower = Follower::new(&store, Some(from));
    follower.reach(&position).await;
    assert_eq!((follower.snapshots, follower.numbers()), (0, vec![3]), "it goes on where it was");
}

/// A server that ends its sessions, as at a fail-over, is asked again on a fresh one: no caller notices.
#[tokio::test]
async fn asks_again_where_a_kept_connection_has_ended() {
    let server = Server::postgres();
    let store = Postgres::connect(&server.url()).await.unwrap();
    for n in 0..3 {
        store.publish(&[change(n)]).await.unwrap();
        let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                   WHERE application_name = 'tower-revocation'";
        assert!(ask::<i64>(&server.url(), end).await > 0);
    }
    let message = OneTime::new("test", common::ISSUER, "1", [1; 32], u64::MAX);
    assert_eq!(store.claim_once(&message).await.unwrap(), Claim::First);
}

/// A cable pulled out: each call gives up in time, and the next one takes a fresh connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_silence_and_goes_on() {
    let server = Server::postgres();
    let proxy = Proxy::to(server.port()).await;
    let (store, other) = (
        Postgres::connect(&server.url_at(proxy.port())).await.unwrap(),
        Postgres::connect(&server.url()).await.unwrap(),
    );
    let mut follower = Follower::new(&store, None);
    let from = follower.reach(&store.publish(&[change(1)]).await.unwrap()).await;
    // Several connections are kept, and all of them go silent.
    let keys = [key(1)];
    futures_util::future::join_all((0..4).map(|_| store.lookup(&keys))).await;
    proxy.set(Fault::Silence);
    let big: Vec<_> = (1000..6000).map(change).collect();
    let node = NodeStatus::new("one", true, Duration::from_secs(1));
    let message = OneTime::new("test", common::ISSUER, "1", [1; 32], u64::MAX);
    let (publish, lookup, heartbeat, claim, feed, ()) = tokio::time::timeout(LIMIT, async {
        tokio::join!(
            store.publish(&big),
            store.lookup(&keys),
            store.heartbeat(&node),
            store.claim_once(&message),
            follower.fails(),
            // Nobody else is held up by what hangs half way.
            async { drop(other.publish(&[change(2)]).await.unwrap()) },
        )
    })
    .await
    .unwrap();
    let outcomes = [publish.map(drop), lookup.map(drop), heartbeat.map(drop), claim.map(drop)];
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    assert!(feed.to_string().contains("no answer"), "{feed}");

    proxy.set(Fault::None);
    let position = store.publish(&[change(3)]).await.unwrap();
    let mut follower = Follower::new(&store, Some(from));
    follower.reach(&position).await;
    assert!(follower.numbers().contains(&2) && follower.numbers().contains(&3));
}

/// Connections that were kept when one went silent are not tried one after the other.
#[tokio::test]
async fn leaves_silent_connections_behind_together() {
    let server = Server::postgres();
    let proxy = Proxy::to(server.port()).await;
    let store = Postgres::connect(&server.url_at(proxy.port())).await.unwrap();
    let sessions = async || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tower-revocation'";
        ask::<i64>(&server.url(), count).await
    };
    let keys = [key(1)];
    futures_util::future::join_all((0..4).map(|_| store.lookup(&keys))).await;
    assert!(sessions().await > 1);
    proxy.set(Fault::Silence);
    // Also where the caller gives up first.
    let patience = Duration::from_millis(100);
    tokio::time::timeout(patience, store.publish(&[change(1)])).await.unwrap_err();
    // All but the one whose request is still on its way.
    common::eventually("none is kept", async || sessions().await <= 1).await;
    proxy.set(Fault::None);
    store.publish(&[change(1)]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goes_on_after_the_server_stood_still() {
    let server = Server::postgres();
    let store = Postgres::connect(&server.url()).await.unwrap();
    let mut follower = Follower::new(&store, None);
    let from = follower.reach(&store.publish(&[change(1)]).await.unwrap()).await;
    let held_up = [change(2)];
    server.pause();
    let (publish, feed) = tokio::join!(store.publish(&held_up), follower.fails());
    assert_eq!(
        (publish.unwrap_err().kind(), feed.kind()),
        (BackendErrorKind::Unavailable, BackendErrorKind::Unavailable)
    );
    server.resume();
    let position = publish_again(&store, &[change(3)]).await;
    let mut follower = Follower::new(&store, Some(from));
    follower.reach(&position).await;
    assert!(follower.numbers().contains(&3));
}

/// Ours hold the lock within one message only. Where somebody else does, nobody hangs, and the error says where to look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_is_an_error_that_says_so() {
    let server = Server::postgres();
    let (store, url) = (Postgres::connect(&server.url()).await.unwrap(), server.url());
    store.publish(&[change(1)]).await.unwrap();
    let mut foreign = PgConnection::connect(&url).await.unwrap();
    let mut holding = foreign.begin().await.unwrap();
    let take = "SELECT pg_advisory_xact_lock(hashtextextended(tower_revocation.channel('default'), 0))";
    sqlx::query(take).execute(&mut *holding).await.unwrap();
    let error = store.publish(&[change(2)]).await.unwrap_err();
    assert!(error.to_string().contains("pg_locks"), "{error}");
    // Reading needs no lock.
    let mut follower = Follower::new(&store, None);
    follower.catch_up().await;
    assert_eq!(follower.numbers(), [1]);
    holding.rollback().await.unwrap();
    store.publish(&[change(3)]).await.unwrap();
}

// ---- helpers

async fn refused(url: &str) -> String {
    let error = Postgres::connect(url).await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Settings, "{error}");
    let error = error.to_string();
    assert!(!["wr0ng", PASSWORD, "n0de"].iter().any(|secret| error.contains(secret)), "{error}");
    error
}

async fn run(url: &str, statements: &[&str]) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe((*statement).to_owned())).execute(&mut connection).await.unwrap();
    }
}

async fn ask<T>(url: &str, question: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(&mut connection).await.unwrap()
}

fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new(programs().join(name)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

fn key(n: u64) -> ScopeKey {
    ScopeHasher::new([7; 16]).key(&Scope::token(common::ISSUER, n.to_string()))
}

fn record(n: u64, retain_until: u64) -> Change {
    let id = RevocationId::from_u64(n);
    Change::Revoke(Record::new(key(n), id, Cutoff::FOREVER, retain_until, &Detail::default()))
}

fn change(n: u64) -> Change {
    record(n, common::unix() + 3600)
}

fn expired(n: u64) -> Change {
    record(n, 9)
}

async fn publish_again(store: &Postgres, batch: &[Change]) -> Position {
    let begun = Instant::now();
    loop {
        match store.publish(batch).await {
            Ok(position) => return position,
            Err(error) => assert!(begun.elapsed() < LIMIT, "{error}"),
        }
    }
}

async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A feed and what it said.
struct Follower<'a> {
    feed: BoxStream<'a, Result<Event, BackendError>>,
    seen: Vec<Change>,
    snapshots: usize,
    unreadable: Vec<String>,
}

impl<'a> Follower<'a> {
    fn new(store: &'a Postgres, from: Option<Position>) -> Self {
        let feed = store.follow(from, &SystemClock);
        Self { feed, seen: Vec::new(), snapshots: 0, unreadable: Vec::new() }
    }

    async fn next(&mut self) -> Result<Event, BackendError> {
        tokio::time::timeout(LIMIT, self.feed.next()).await.expect("the feed is silent").expect("the feed ended")
    }

    /// Reads up to the next `CaughtUp`.
    async fn catch_up(&mut self) -> Position {
        loop {
            match self.next().await.unwrap() {
                Event::Snapshot => self.snapshots += 1,
                Event::Changes(changes) => self.seen.extend(changes),
                Event::Unreadable { name, .. } => self.unreadable.push(name),
                Event::CaughtUp { position, .. } => return position,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn reach(&mut self, position: &Position) -> Position {
        let begun = Instant::now();
        loop {
            let reached = self.catch_up().await;
            if reached >= *position {
                return reached;
            }
            assert!(begun.elapsed() < LIMIT, "{position} is not reached: {reached}");
        }
    }

    /// Reads up to the feed's failure.
    async fn fails(&mut self) -> BackendError {
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    /// Whose revocations it delivered, in order.
    fn numbers(&self) -> Vec<u64> {
        let id = |change: &Change| match change {
            Change::Revoke(record) => record.id().as_u64(),
            other => panic!("{other:?}"),
        };
        self.seen.iter().map(id).collect()
    }
}
