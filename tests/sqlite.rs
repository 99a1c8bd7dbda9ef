//! The SQLite backend: bad files, crashes, several processes, and a whole node on top of it.
//! What every backend must do is in `conformance.rs`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    future::Future,
    io::{BufRead, BufReader, Lines, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::BoxStream};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tower_revocation::{
    Revocations,
    backend::{Backend, BackendError, BackendErrorKind, Claim, Event, OneTime, Position, Sqlite},
    denylist::{Staleness, Verdict},
    revocation::{Change, Lifetimes, Record, Revocation, RevocationId, Scope, ScopeHasher},
    sync::{RevokeError, Revoked, StartError, SyncConfig},
    time::SystemClock,
    token::{Claims, Identity},
};

const ISSUER: &str = "https://issuer.example/";
/// How long to wait for anything.
const LIMIT: Duration = Duration::from_secs(30);

// ---- files that cannot be used

#[tokio::test]
async fn creates_a_file_for_its_owner_alone() {
    let (_directory, path) = place();
    let store = Sqlite::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    store.publish(&[token("1")]).await.unwrap();
    for name in ["revocations.db", "revocations.db-wal", "revocations.db-shm"] {
        let mode = fs::metadata(path.with_file_name(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn opens_a_fresh_file_many_times_at_once() {
    let (_directory, path) = place();
    let opening = (0..8).map(|_| tokio::spawn(Sqlite::open(path.clone())));
    let mut positions = Vec::new();
    for store in opening.collect::<Vec<_>>() {
        let store = store.await.unwrap().unwrap();
        positions.push(store.publish(&[token("1")]).await.unwrap());
    }
    assert!(positions.is_sorted_by(|a, b| a < b), "all in one life of the store: {positions:?}");
}

#[tokio::test]
async fn refuses_urls_that_are_not_its_own_without_repeating_them() {
    for url in ["postgres://user:secret@host/db", "sqlite://", "sqlite::memory:", "secret", "sqlite:///x?mode=secret"] {
        let error = Sqlite::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Settings, "{url}");
        assert!(!error.to_string().contains("secret") && error.to_string().contains("sqlite:///"), "{url}: {error}");
    }
}

#[tokio::test]
async fn refuses_a_place_where_no_file_can_be() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().join("missing/revocations.db"), directory.path().to_owned()] {
        refused(&path, BackendErrorKind::Unavailable, "directory").await;
    }
}

#[tokio::test]
async fn refuses_a_file_that_is_no_database() {
    let (_directory, path) = place();
    fs::write(&path, "no database at all\n".repeat(200)).unwrap();
    refused(&path, BackendErrorKind::Corrupt, "no SQLite database").await;
    assert!(fs::read_to_string(&path).unwrap().starts_with("no database"), "it is left as it was");
}

#[tokio::test]
async fn refuses_the_database_of_another_program_and_leaves_it_alone() {
    for sql in ["CREATE TABLE theirs (x)", "PRAGMA application_id = 7", "PRAGMA user_version = 1"] {
        let (_directory, path) = place();
        raw(&path, sql).await;
        let before = fs::read(&path).unwrap();
        refused(&path, BackendErrorKind::Settings, "another program").await;
        assert!(before == fs::read(&path).unwrap(), "{sql}: it is left as it was");
    }
}

#[tokio::test]
async fn refuses_the_file_of_a_newer_version() {
    let (_directory, path) = place();
    drop(Sqlite::open(&path).await.unwrap());
    raw(&path, "PRAGMA user_version = 99").await;
    refused(&path, BackendErrorKind::Settings, "its schema is 99, this program knows up to 4").await;
}

/// Nobody knows what a message of that version came in: it may not come again.
#[tokio::test]
async fn what_an_earlier_version_claimed_stays_claimed() {
    let (_directory, path) = place();
    raw(&path, include_str!("../src/backend/sqlite/1.sql")).await;
    raw(&path, include_str!("../src/backend/sqlite/2.sql")).await;
    let message = OneTime::new("test", ISSUER, "message", [0; 32], u64::MAX);
    let digest: String = message.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    raw(&path, &format!("INSERT INTO claims VALUES ('default', x'{digest}', 9)")).await;
    let store = Sqlite::open(&path).await.unwrap();
    assert_eq!(store.claim_once(&message).await.unwrap(), Claim::Repeated);
}

/// What an earlier version wrote is kept, and can do what this version does.
#[tokio::test]
async fn brings_the_file_of_an_earlier_version_up_to_date() {
    let (_directory, path) = place();
    raw(&path, include_str!("../src/backend/sqlite/1.sql")).await;
    raw(&path, "INSERT INTO changes VALUES (1, 'kept', x'00', 9, x'00')").await;
    let message = OneTime::new("test", ISSUER, "message", [1; 32], u64::MAX);
    for expected in [Claim::First, Claim::Again] {
        let store = Sqlite::open(&path).await.unwrap();
        assert_eq!(store.claim_once(&message).await.unwrap(), expected);
    }
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM changes WHERE namespace = 'kept'")
        .fetch_one(&mut raw_connection(&path).await)
        .await
        .unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn refuses_a_file_that_was_cut_off() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    store.publish(&tokens("old", 2000)).await.unwrap();
    drop(store);
    raw(&path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let length = fs::metadata(&path).unwrap().len();
    for length in [length / 2, length / 2 + 100, 4096, 700] {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        refused(&path, BackendErrorKind::Corrupt, "backup").await;
    }
}

#[tokio::test]
async fn refuses_a_file_that_another_process_keeps_locked() {
    let (_directory, path) = place();
    drop(Sqlite::open(&path).await.unwrap());
    let mut other = Process::start("lock", &path);
    other.wait_for("locked");
    refused(&path, BackendErrorKind::Unavailable, "another process holds its lock").await;
    other.kill();
    Sqlite::open(&path).await.unwrap();
}

#[tokio::test]
async fn refuses_a_file_that_it_may_not_write() {
    let (directory, path) = place();
    Sqlite::open(&path).await.unwrap().publish(&[token("1")]).await.unwrap();
    raw(&path, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for file in fs::read_dir(directory.path()).unwrap() {
        allow(&file.unwrap().path(), 0o444);
    }
    allow(directory.path(), 0o755);
    // Root may write anything: another user tries, with a copy of this program that it can reach.
    let program = directory.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new(&program);
    if fs::metadata(&program).unwrap().uid() == 0 {
        command.uid(65534);
    }
    let mut other = Process::run(command, "open", &path);
    let error = other.wait_for("error ");
    assert!(error.contains(&*path.to_string_lossy()) && error.contains("read-only"), "{error}");
}

// ---- crashes

/// L2: whatever was acknowledged before `kill -9` is there after it.
#[tokio::test(flavor = "multi_thread")]
async fn l2_kill_forgets_nothing_that_was_acknowledged() {
    let (_directory, path) = place();
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut child = Process::start(&format!("publish {round}"), &path);
        // At another moment of a write each time.
        for _ in 0..10 + 7 * round {
            acknowledged.push(child.wait_for("acknowledged "));
        }
        std::thread::sleep(Duration::from_micros(137 * round));
        acknowledged
            .extend(child.kill().iter().filter_map(|line| Some(line.strip_prefix("acknowledged ")?.to_owned())));
    }
    let store = Sqlite::open(&path).await.unwrap();
    assert!(acknowledged.len() > 150);
    for part in acknowledged.chunks(100) {
        let keys: Vec<_> = part.iter().map(|name| token(name).key()).collect();
        let found = store.lookup(&keys).await.unwrap();
        assert_eq!(found.len(), keys.len(), "of {part:?}");
    }
    let everything = snapshot(&store).await;
    assert!(acknowledged.iter().all(|name| everything.contains(&token(name))));
}

/// A disk without room: writes fail, say so, and what was acknowledged stays.
#[tokio::test]
async fn a_write_that_finds_no_room_is_an_error() {
    let (_directory, path) = place();
    drop(Sqlite::open(&path).await.unwrap());
    let mut command = Command::new("sh");
    // No file may grow past 256 KiB or 512 KiB, as the shell counts.
    command.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    let mut child = Process::run(command, "fill", &path);
    let mut acknowledged = Vec::new();
    let error = loop {
        let line = child.wait_for("");
        match (line.strip_prefix("acknowledged "), line.strip_prefix("error ")) {
            (Some(name), _) => acknowledged.push(name.to_owned()),
            (_, Some(error)) => break error.to_owned(),
            _ => {}
        }
    };
    assert!(error.contains(&*path.to_string_lossy()) && error.contains("disk"), "{error}");
    assert_eq!(child.wait_for("again "), "error", "the handle goes on saying so");
    assert_eq!(child.wait_for("lookup "), "found", "what was written can be read");
    child.kill();
    assert!(acknowledged.len() > 3, "some fit: {acknowledged:?}");
    let everything = snapshot(&Sqlite::open(&path).await.unwrap()).await;
    assert_eq!(everything.len(), acknowledged.len() * 50, "batches are there whole, the failed one is not");
    assert!(acknowledged.iter().all(|batch| tokens(batch, 50).iter().all(|change| everything.contains(change))));
}

// ---- several handles and processes

#[tokio::test]
async fn two_processes_stay_in_step() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    let mut feed = store.follow(None, &SystemClock);
    let mut child = Process::start("echo", &path);
    child.wait_for("following");
    for round in 0..10 {
        store.publish(&[token(&format!("ping {round}"))]).await.unwrap();
        let pong = token(&format!("pong {round}"));
        until(&mut feed, |event| matches!(event, Event::Changes(changes) if changes.contains(&pong))).await;
    }
}

/// The same scope may be revoked in one fleet and not in the other.
#[tokio::test]
async fn fleets_in_one_file_do_not_see_each_other() {
    let (_directory, path) = place();
    let ours = Sqlite::open(&path).await.unwrap();
    let theirs = ours.clone().namespace("theirs");
    ours.publish(&[token("1")]).await.unwrap();
    assert!(theirs.lookup(&[token("1").key()]).await.unwrap().is_empty());
    assert!(snapshot(&theirs).await.is_empty());
    assert_eq!(ours.lookup(&[token("1").key()]).await.unwrap(), [token("1")]);
}

/// A follower does not wait for its next poll to see what was written in its own process.
#[tokio::test]
async fn a_write_wakes_the_followers_of_its_process() {
    let (_directory, path) = place();
    let store = Sqlite::open(&path).await.unwrap().poll_interval(Duration::from_secs(60));
    let mut feed = store.follow(None, &SystemClock);
    until(&mut feed, |event| matches!(event, Event::CaughtUp { .. })).await;
    let begun = Instant::now();
    for round in 0..20 {
        let change = token(&round.to_string());
        store.clone().publish(std::slice::from_ref(&change)).await.unwrap();
        until(&mut feed, |event| matches!(event, Event::Changes(changes) if changes.contains(&change))).await;
        until(&mut feed, |event| matches!(event, Event::CaughtUp { .. })).await;
    }
    // With nothing but polls, at most every 500 ms, these would take 10 s.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_file_that_is_taken_away_is_an_error_and_not_an_empty_feed() {
    let (directory, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    store.publish(&[token("1")]).await.unwrap();
    let mut feed = store.follow(None, &SystemClock);
    until(&mut feed, |event| matches!(event, Event::CaughtUp { .. })).await;

    let elsewhere = directory.path().join("elsewhere.db");
    fs::rename(&path, &elsewhere).unwrap();
    for _ in 0..2 {
        let failed = store.publish(&[token("2")]).await.unwrap_err();
        assert!(failed.to_string().contains(&*path.to_string_lossy()), "{failed}");
        assert_eq!(failed.kind(), BackendErrorKind::Unavailable, "{failed}");
        let failed = failure(&mut feed).await;
        assert!(failed.to_string().contains(&*path.to_string_lossy()), "{failed}");
        feed = store.follow(None, &SystemClock);
        // Then another file lies in its place.
        fs::copy(&elsewhere, &path).unwrap();
    }
    fs::remove_file(&path).unwrap();
    fs::rename(&elsewhere, &path).unwrap();
    store.publish(&[token("3")]).await.unwrap();
    assert!(snapshot(&store).await.contains(&token("1")));
}

/// A file that was restored from a backup has lost changes: nodes start over, in another life of the store.
#[tokio::test]
async fn a_restored_file_begins_another_life() {
    let (_directory, path) = place();
    let (a, b) = (Sqlite::open(&path).await.unwrap(), Sqlite::open(&path).await.unwrap());
    a.publish(&tokens("kept", 5)).await.unwrap();
    let last = a.publish(&tokens("lost", 20)).await.unwrap();
    let mut running = b.follow(None, &SystemClock);
    until(&mut running, |event| matches!(event, Event::CaughtUp { .. })).await;
    raw(&path, "DELETE FROM changes WHERE seq > 5; UPDATE sqlite_sequence SET seq = 5").await;
    until(&mut running, |event| matches!(event, Event::Snapshot)).await;
    let reached = caught_up(&mut running).await;
    assert_ne!(reached.incarnation(), last.incarnation());
    a.publish(&tokens("new", 30)).await.unwrap();
    let mut resumed = a.follow(Some(last), &SystemClock);
    let mut events = Vec::new();
    until(&mut resumed, |event| {
        events.push(event.clone());
        matches!(event, Event::CaughtUp { .. })
    })
    .await;
    assert!(matches!(events[0], Event::Snapshot), "{events:?}");
    assert!(matches!(&events[1], Event::Changes(changes) if changes.len() == 35), "{events:?}");
}

// ---- a whole node

#[tokio::test]
async fn a_revocation_reaches_the_other_node_and_outlives_both() {
    let (_directory, path) = place();
    let here = Revocations::start(Sqlite::open(&path).await.unwrap(), config()).await.unwrap();
    let there = Revocations::start(Sqlite::open(&path).await.unwrap(), config()).await.unwrap();
    let (alice, bob) = (identity("alice"), identity("bob"));
    assert_eq!(there.check(&alice), Verdict::Allow);
    let Revoked::Recorded { position, .. } = here.revoke(Revocation::session_of(&alice).unwrap()).await.unwrap() else {
        panic!("nothing was recorded");
    };
    assert!(matches!(here.check(&alice), Verdict::Deny(_)), "denied here when `revoke` returns");
    eventually("the other node denies", async || matches!(there.check(&alice), Verdict::Deny(_))).await;
    assert_eq!(there.check(&bob), Verdict::Allow);
    eventually("the position arrives", async || there.status().applied.is_some_and(|applied| applied >= position))
        .await;
    for node in [here, there] {
        node.shutdown().await;
    }

    let again = Revocations::start(Sqlite::open(&path).await.unwrap(), config()).await.unwrap();
    assert!(matches!(again.check(&alice), Verdict::Deny(_)), "denied when `start` returns");
    assert_eq!(again.check(&bob), Verdict::Allow);
    // What is lifted once is lifted for the next start as well.
    let scope = Scope::token(ISSUER, "alice");
    again.lift(&scope, &again.revocations_of(&scope), "a test").await.unwrap();
    again.shutdown().await;
    let last = Revocations::start(Sqlite::open(&path).await.unwrap(), config()).await.unwrap();
    assert_eq!(last.check(&alice), Verdict::Allow);
}

/// L3: nothing pretends while the store cannot write.
#[tokio::test]
async fn l3_a_locked_file_fails_the_revocation_and_recovers() {
    let (_directory, path) = place();
    let mut config = config();
    config.publish_timeout = Duration::from_millis(300);
    let node = Revocations::start(Sqlite::open(&path).await.unwrap(), config).await.unwrap();
    let alice = identity("alice");
    let mut lock = raw_connection(&path).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut lock).await.unwrap();
    for _ in 0..2 {
        let refused = node.revoke(Revocation::session_of(&alice).unwrap()).await.unwrap_err();
        assert!(matches!(refused, RevokeError::Backend(_)), "{refused}");
        assert_eq!(node.check(&alice), Verdict::Allow, "what was not recorded is not enforced");
    }
    assert!(node.status().ready, "reading goes on");
    lock.close().await.unwrap();
    let revoked = async || node.revoke(Revocation::session_of(&alice).unwrap()).await.is_ok();
    eventually("writing works again", revoked).await;
    assert!(matches!(node.check(&alice), Verdict::Deny(_)));
}

#[tokio::test]
async fn an_unreadable_record_keeps_a_node_from_being_in_sync() {
    let (_directory, path) = place();
    Sqlite::open(&path).await.unwrap().publish(&[token("1")]).await.unwrap();
    raw(&path, "INSERT INTO changes VALUES (77, 'default', x'00', 9, x'00')").await;
    let mut config = config();
    config.load_timeout = Duration::from_secs(1);
    let store = Sqlite::open(&path).await.unwrap();
    let failed = Revocations::start(store.clone(), config).await.unwrap_err();
    assert!(matches!(&failed, StartError::NotLoaded { .. }), "{failed}");
    let node = Revocations::start_unloaded(store, self::config()).await.unwrap();
    let name = format!("{} changes.seq=77", path.display());
    let named = async || node.status().unreadable.iter().any(|record| record.starts_with(&name));
    eventually("status names the record", named).await;
    raw(&path, "DELETE FROM changes WHERE seq = 77").await;
    node.loaded(LIMIT).await.unwrap();
}

/// What earlier versions called `by` and `at`.
#[test]
fn reads_the_names_of_an_earlier_version() {
    let revocation = Revocation::new(Scope::token(ISSUER, "1")).revoked_by("helpdesk").reason("stolen");
    let record = revocation.into_record(&ScopeHasher::new([7; 16]), &Lifetimes::DEFAULT, 1000);
    let bytes = Change::Revoke(record.clone()).encode();
    let json = bytes.iter().position(|byte| *byte == b'{').unwrap();
    let (head, detail) = bytes.split_at(json);
    let detail = std::str::from_utf8(detail).unwrap();
    assert!(detail.contains(r#""revoked_by":"helpdesk""#) && detail.contains(r#""revoked_at":1000"#), "{detail}");
    let older = detail.replace("revoked_by", "by").replace("revoked_at", "at");
    let Ok(Change::Revoke(read)) = Change::decode(&[head, older.as_bytes()].concat()) else { panic!("{older}") };
    let detail = read.detail();
    assert_eq!((detail.revoked_by.as_deref(), detail.revoked_at), (Some("helpdesk"), 1000));
    assert_eq!(detail, record.detail());
}

#[tokio::test]
async fn a_node_with_other_settings_does_not_start() {
    let (_directory, path) = place();
    let _node = Revocations::start(Sqlite::open(&path).await.unwrap(), config()).await.unwrap();
    let mut other = config();
    other.denylist.budget = 7;
    let refused = Revocations::start(Sqlite::open(&path).await.unwrap(), other.clone()).await.unwrap_err();
    assert!(matches!(refused, StartError::Fleet { setting: "budget", .. }), "{refused}");
    let apart = Sqlite::open(&path).await.unwrap().namespace("apart");
    let node = Revocations::start(apart, other).await.unwrap();
    assert!(node.status().ready, "another fleet in the same file has settings of its own");
}

// ---- helpers

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revocations.db");
    (directory, path)
}

fn config() -> SyncConfig {
    SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)))
}

fn identity(name: &str) -> Identity {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    Identity::from_verified(&Claims::new(ISSUER).jti(name).iat(now).exp(now + 600))
}

/// The same change for the same name, in every process.
fn token(name: &str) -> Change {
    let record =
        Revocation::ban(Scope::token(ISSUER, name)).into_record(&ScopeHasher::new([7; 16]), &Lifetimes::DEFAULT, 1);
    // A record's id is random: one made of the key takes its place.
    let id = u64::from_be_bytes(*record.key().to_bytes().first_chunk().unwrap());
    let (cutoff, retain_until) = (record.cutoff(), record.retain_until());
    Change::Revoke(Record::new(record.key(), RevocationId::from_u64(id), cutoff, retain_until, &record.detail()))
}

fn tokens(name: &str, count: usize) -> Vec<Change> {
    (0..count).map(|n| token(&format!("{name} {n}"))).collect()
}

async fn raw_connection(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).busy_timeout(LIMIT).connect().await.unwrap()
}

async fn raw(path: &Path, sql: &str) {
    let mut connection = raw_connection(path).await;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn refused(path: &Path, kind: BackendErrorKind, says: &str) {
    let error = Sqlite::open(path).await.expect_err("a bad file was opened");
    let text = error.to_string();
    assert!(
        text.contains(&*path.to_string_lossy()) && text.contains(says),
        "it names the file and says {says:?}: {text}"
    );
    assert_eq!(error.kind(), kind, "{text}");
}

type Feed<'a> = BoxStream<'a, Result<Event, BackendError>>;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}

async fn until(feed: &mut Feed<'_>, mut is_it: impl FnMut(&Event) -> bool) {
    within(async { while !is_it(&feed.next().await.unwrap().unwrap()) {} }).await;
}

async fn caught_up(feed: &mut Feed<'_>) -> Position {
    let mut reached = None;
    until(feed, |event| {
        if let Event::CaughtUp { position, .. } = event {
            reached = Some(position.clone());
        }
        reached.is_some()
    })
    .await;
    reached.unwrap()
}

async fn failure(feed: &mut Feed<'_>) -> BackendError {
    let next = async {
        loop {
            if let Err(error) = feed.next().await.expect("an error before the end") {
                return error;
            }
        }
    };
    within(next).await
}

async fn snapshot(store: &Sqlite) -> Vec<Change> {
    let mut all = Vec::new();
    let mut feed = store.follow(None, &SystemClock);
    until(&mut feed, |event| {
        if let Event::Changes(changes) = event {
            all.extend_from_slice(changes);
        }
        matches!(event, Event::CaughtUp { .. })
    })
    .await;
    all
}

async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// ---- other processes: this program again, running the test `child` alone

const ROLE: &str = "TOWER_REVOCATION_TEST_ROLE";
const FILE: &str = "TOWER_REVOCATION_TEST_FILE";

struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// It ends when this is closed.
    _stdin: Option<ChildStdin>,
}

impl Process {
    fn start(role: &str, path: &Path) -> Self {
        Self::run(Command::new(std::env::current_exe().unwrap()), role, path)
    }

    fn run(mut command: Command, role: &str, path: &Path) -> Self {
        command.args(["child", "--exact", "--nocapture"]).env(ROLE, role).env(FILE, path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _stdin: child.stdin.take(), child, lines }
    }

    /// Waits for a line that begins with this; returns the rest of it.
    fn wait_for(&mut self, prefix: &str) -> String {
        loop {
            let line =
                self.lines.next().unwrap_or_else(|| panic!("the child ended before it said {prefix:?}")).unwrap();
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    /// SIGKILL; returns what it had said before.
    fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.by_ref().map_while(Result::ok).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

/// What the other processes do; nothing where it is run as a test.
#[test]
fn child() {
    let (Ok(role), Some(path)) = (std::env::var(ROLE), std::env::var_os(FILE)) else { return };
    // The name of the test stands on the same line.
    say("");
    // An orphan ends.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(play(&role, Path::new(&path)));
}

async fn play(role: &str, path: &Path) {
    match role.split_once(' ').unwrap_or((role, "")) {
        ("open", _) => match Sqlite::open(path).await {
            Ok(_) => say("opened"),
            Err(error) => say(&format!("error {error}")),
        },
        ("lock", _) => {
            let mut lock = raw_connection(path).await;
            sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut lock).await.unwrap();
            say("locked");
            std::future::pending::<()>().await;
        }
        ("publish", round) => {
            let store = Sqlite::open(path).await.unwrap();
            for n in 0.. {
                let name = format!("{round} {n}");
                store.publish(&[token(&name)]).await.unwrap();
                say(&format!("acknowledged {name}"));
            }
        }
        ("fill", _) => {
            let store = Sqlite::open(path).await.unwrap();
            for n in 0.. {
                let name = format!("batch {n}");
                match store.publish(&tokens(&name, 50)).await {
                    Ok(_) => say(&format!("acknowledged {name}")),
                    Err(error) => {
                        say(&format!("error {error}"));
                        break;
                    }
                }
            }
            let again = store.publish(&tokens("again", 5000)).await;
            say(if again.is_ok() { "again written" } else { "again error" });
            let found = store.lookup(&[token("batch 0 0").key()]).await.unwrap();
            say(if found.is_empty() { "lookup nothing" } else { "lookup found" });
            std::future::pending::<()>().await;
        }
        ("echo", _) => {
            let store = Sqlite::open(path).await.unwrap();
            let mut feed = store.follow(None, &SystemClock);
            let mut round = 0;
            say("following");
            while let Some(event) = feed.next().await {
                let Event::Changes(changes) = event.unwrap() else { continue };
                if changes.contains(&token(&format!("ping {round}"))) {
                    store.publish(&[token(&format!("pong {round}"))]).await.unwrap();
                    round += 1;
                }
            }
        }
        other => panic!("no such role: {other:?}"),
    }
}

/// L3: what is acknowledged lies in the write-ahead log at first; without its name it would be lost with it.
#[cfg(unix)]
#[tokio::test]
async fn l3_a_lost_write_ahead_log_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revoked.db");
    let backend = Sqlite::open(&path).await.unwrap();
    let record = Revocation::new(Scope::token("i", "1")).into_record(&ScopeHasher::random(), &Lifetimes::DEFAULT, 0);
    backend.publish(&[Change::Revoke(record.clone())]).await.unwrap();
    std::fs::remove_file(directory.path().join("revoked.db-wal")).unwrap();
    let error = backend.publish(&[Change::Revoke(record)]).await.unwrap_err();
    assert!(error.to_string().contains("write-ahead log"), "{error}");
}
