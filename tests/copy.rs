//! Nodes that start from their copy while their store is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use common::{ISSUER, eventually, faulty::Faulty, log::Log, server::Server, unix};
use tempfile::TempDir;
use tower_revocation::{
    Revocations,
    backend::{self, Backend, BackendErrorKind, Durability, FleetSettings, Memory},
    denylist::{Staleness, Verdict, Why},
    revocation::{Lifetimes, Revocation, Scope},
    sync::{Agreement, CopyFault, RevokeError, Revoked, StartError, SyncConfig},
    time::{Clock, ManualClock},
    token::{Claims, Identity},
};

const BOUND: Duration = Duration::from_secs(10);

/// A node's folder, and its clock.
struct Place {
    folder: TempDir,
    clock: Arc<ManualClock>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: Arc::new(ManualClock::at(unix())) }
    }

    fn copy(&self) -> PathBuf {
        self.folder.path().join("copy")
    }

    fn config(&self) -> SyncConfig {
        self.config_with(Staleness::refuse_after(BOUND))
    }

    fn config_with(&self, staleness: Staleness) -> SyncConfig {
        let mut config = SyncConfig::new(staleness);
        config.denylist.clock = self.clock.clone();
        config.keep_copy = Some(self.copy());
        // At the end only, unless a test says otherwise.
        config.copy_every = Duration::from_secs(3600);
        config
    }

    /// Starts a node that revokes "dead", and stops: its copy is there.
    async fn prepared(&self, store: impl Backend) {
        let node = Revocations::start(store, self.config()).await.unwrap();
        revoke(&node, "dead").await;
        node.shutdown().await;
        assert_eq!(node.status().copy_error, None);
    }

    /// A node whose store is away.
    async fn alone(&self) -> Result<Revocations, StartError> {
        Revocations::start(away(Memory::new()), self.config()).await
    }

    /// The same, once a writer that still runs has ended.
    async fn alone_soon(&self) -> Revocations {
        for _ in 0..1000 {
            match self.alone().await {
                Err(StartError::Copy { fault: CopyFault::InUse, .. }) => {}
                started => return started.unwrap(),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the copy stays in use");
    }

    async fn refused(&self) -> CopyFault {
        let error = self.alone().await.unwrap_err();
        assert!(error.to_string().contains(self.copy().to_str().unwrap()), "{error}");
        let StartError::Copy { path, fault, .. } = error else { panic!("{error}") };
        assert_eq!(path, self.copy());
        fault
    }
}

fn away(store: Memory) -> Faulty<Memory> {
    let store = Faulty::new(store);
    store.faults.agree.store(true, SeqCst);
    store
}

fn token(jti: &str) -> Identity {
    Identity::from_verified(&Claims::new(ISSUER).jti(jti).sub("alice").iat(unix() - 10).exp(unix() + 600))
}

fn is_dead(node: &Revocations, jti: &str) -> bool {
    matches!(node.check(&token(jti)), Verdict::Deny(_))
}

async fn revoke(node: &Revocations, jti: &str) {
    let _ = node.revoke(Revocation::new(Scope::token(ISSUER, jti))).await.unwrap();
}

/// A store that can be away.
enum Store {
    Server(Server),
    File(TempDir),
}

impl Store {
    fn url(&self) -> String {
        match self {
            Self::Server(server) => server.url(),
            Self::File(folder) => format!("sqlite://{}", folder.path().join("here/store.db").display()),
        }
    }

    fn goes(&mut self) {
        match self {
            Self::Server(server) => server.kill(),
            Self::File(folder) => fs::rename(folder.path().join("here"), folder.path().join("there")).unwrap(),
        }
    }

    fn comes_back(&mut self) {
        match self {
            Self::Server(server) => server.start_again(),
            Self::File(folder) => fs::rename(folder.path().join("there"), folder.path().join("here")).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_node_starts_while_redis_is_away() {
    starts_while_away(Store::Server(Server::redis())).await;
}

#[tokio::test]
async fn a_node_starts_while_postgres_is_away() {
    starts_while_away(Store::Server(Server::postgres())).await;
}

#[tokio::test]
async fn a_node_starts_while_its_file_is_away() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("here")).unwrap();
    starts_while_away(Store::File(folder)).await;
}

async fn starts_while_away(mut store: Store) {
    let place = Place::new();
    let first = Revocations::start(backend::connect(&store.url()).await.unwrap(), place.config()).await.unwrap();
    revoke(&first, "dead").await;
    let lifted = Scope::token(ISSUER, "lifted");
    let Revoked::Recorded { id, .. } = first.revoke(Revocation::new(lifted.clone())).await.unwrap() else { panic!() };
    first.lift(&lifted, &[id], "an admin").await.unwrap();
    first.shutdown().await;
    let durability = first.status().durability;
    drop(first);
    assert_eq!(fs::metadata(place.copy()).unwrap().permissions().mode() & 0o777, 0o600);

    store.goes();
    place.clock.advance(Duration::from_secs(3));
    let node = Revocations::start(backend::connect_lazily(&store.url()).await.unwrap(), place.config()).await.unwrap();
    let status = node.status();
    assert_eq!(status.agreement, Agreement::Pending);
    assert!(status.ready && status.applied.is_some(), "{status:?}");
    assert_eq!((status.staleness, status.durability), (Some(Duration::from_secs(3)), Durability::None));
    assert!(status.last_error.is_some_and(|error| !error.contains("s3cret")), "it says why");
    assert!(is_dead(&node, "dead"));
    assert_eq!((node.check(&token("other")), node.check(&token("lifted"))), (Verdict::Allow, Verdict::Allow));
    let error = node.revoke(Revocation::new(Scope::token(ISSUER, "x"))).await.unwrap_err();
    let RevokeError::Backend(why) = &error else { panic!("{error}") };
    assert!(why.kind() == BackendErrorKind::Unavailable && why.to_string().contains("its copy"), "{why}");
    assert!(!is_dead(&node, "x"));

    store.comes_back();
    let other = Revocations::start(
        backend::connect(&store.url()).await.unwrap(),
        SyncConfig::new(Staleness::refuse_after(BOUND)),
    );
    let other = other.await.unwrap();
    revoke(&other, "meanwhile").await;
    eventually("what others revoked arrives", async || is_dead(&node, "meanwhile")).await;
    eventually("it is in step", async || node.status().staleness == Some(Duration::ZERO)).await;
    let status = node.status();
    assert_eq!((status.agreement, status.durability, status.last_error), (Agreement::Reached, durability, None));
    assert!(is_dead(&node, "dead") && node.check(&token("lifted")) == Verdict::Allow);
    revoke(&node, "later").await;
    eventually("what it revokes is heard", async || is_dead(&other, "later")).await;
    assert_eq!((status.repaired, status.written_back), (0, 0), "nothing was lost");
}

/// Whatever would have been asked of the store: not before it has agreed.
#[tokio::test]
async fn nothing_goes_to_a_store_that_has_not_agreed() {
    let (place, memory) = (Place::new(), Memory::new());
    place.prepared(memory.clone()).await;
    let node = Revocations::start(away(memory), place.config()).await.unwrap();
    let calls = [
        node.backend().publish(&[]).await.map(drop),
        node.backend().intents().await.map(drop),
        node.backend().settle(7).await,
        node.backend().purge(u64::MAX).await.map(drop),
        node.backend().lookup(&[]).await.map(drop),
    ];
    for call in calls {
        let error = call.unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Unavailable);
        assert!(error.to_string().contains("has not reached its backend"), "{error}");
    }
    assert!(matches!(node.everywhere(Duration::from_secs(1)).await, Err(RevokeError::Backend(_))));
    assert!(node.nodes().is_empty());
}

#[tokio::test]
async fn a_copy_has_its_true_age() {
    let place = Place::new();
    place.prepared(Memory::new()).await;
    place.clock.advance(BOUND);
    let node = place.alone().await.unwrap();
    assert_eq!((node.status().staleness, node.check(&token("other"))), (Some(BOUND), Verdict::Allow));
    place.clock.advance(Duration::from_millis(1));
    assert_eq!(node.check(&token("other")), Verdict::Unknown(Why::Stale));
    node.shutdown().await;

    // Older than the bound at the start: what was revoked is refused, and everything else as well.
    let node = place.alone().await.unwrap();
    assert_eq!(node.status().staleness, Some(BOUND + Duration::from_millis(1)), "a stop does not make it younger");
    assert_eq!(node.check(&token("other")), Verdict::Unknown(Why::Stale));
    assert!(is_dead(&node, "dead") && !node.status().ready);
    node.shutdown().await;

    let serving = place.config_with(Staleness::serve_after(BOUND));
    let node = Revocations::start(away(Memory::new()), serving).await.unwrap();
    assert_eq!(node.check(&token("other")), Verdict::Allow, "serving while stale was chosen");
    assert!(is_dead(&node, "dead") && !node.status().ready);
}

#[tokio::test]
async fn a_clock_that_was_set_back_makes_no_copy_younger() {
    let place = Place::new();
    place.prepared(Memory::new()).await;
    let written = place.clock.now().unix();

    // To a moment after the copy was made, while the machine went on.
    place.clock.advance(Duration::from_secs(60));
    place.clock.step_wall(written + 1);
    let node = place.alone().await.unwrap();
    assert_eq!(node.status().staleness, Some(Duration::from_secs(60)));
    assert_eq!(node.check(&token("other")), Verdict::Unknown(Why::Stale));
    node.shutdown().await;

    // To a moment before it was made.
    place.clock.step_wall(written - 1);
    let node = place.alone().await.unwrap();
    assert!(node.status().staleness > Some(Duration::from_secs(365 * 24 * 3600)));
    assert_eq!(node.check(&token("other")), Verdict::Unknown(Why::Stale));
    assert!(is_dead(&node, "dead"));
    node.shutdown().await;

    // On a machine that was started since, whose monotonic clock shows less.
    let restarted = Place { clock: Arc::new(ManualClock::at(written + 5)), ..place };
    let node = restarted.alone().await.unwrap();
    assert_eq!(node.status().staleness, Some(Duration::from_secs(5)));
    restarted.clock.step_wall(written);
    assert_eq!(node.status().staleness, Some(Duration::from_secs(5)), "set back later on");
}

/// The fleet has other settings now: the node learns it once the store is there.
#[tokio::test]
async fn a_node_whose_fleet_has_changed_is_never_in_step() {
    for (budget, named) in [(1_000_000, "secret"), (5, "budget")] {
        let place = Place::new();
        place.prepared(Memory::new()).await;
        let changed = Memory::new();
        changed.agree(&FleetSettings::new(budget, &Lifetimes::DEFAULT, None)).await.unwrap();
        let store = away(changed.clone());
        let node = Revocations::start(store.clone(), place.config()).await.unwrap();
        assert_eq!(node.check(&token("other")), Verdict::Allow);
        let before = fs::read(place.copy()).unwrap();
        store.faults.agree.store(false, SeqCst);
        eventually("it finds out", async || matches!(node.status().agreement, Agreement::Differs { .. })).await;
        let Agreement::Differs { setting, .. } = node.status().agreement else { panic!() };
        assert_eq!(setting, named);
        assert_eq!(node.check(&token("other")), Verdict::Unknown(Why::Stale), "as if it had not been started");
        assert!(is_dead(&node, "dead") && !node.status().ready);
        let RevokeError::Backend(error) = node.revoke(Revocation::new(Scope::token(ISSUER, "x"))).await.unwrap_err()
        else {
            panic!()
        };
        assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains(named), "{error}");
        node.shutdown().await;
        assert_eq!(fs::read(place.copy()).unwrap(), before, "its copy stays what it was");
        let observer = tower_revocation::backend::NodeStatus::new("observer", true, BOUND);
        assert_eq!(changed.heartbeat(&observer).await.unwrap().len(), 1, "it has not announced itself");
    }
}

/// A store that was emptied meanwhile gets back what the copy holds.
#[tokio::test]
async fn an_emptied_store_comes_back_with_the_same_secret() {
    let (place, emptied) = (Place::new(), Memory::new());
    place.prepared(Memory::new()).await;
    let store = away(emptied.clone());
    let node = Revocations::start(store.clone(), place.config()).await.unwrap();
    store.faults.agree.store(false, SeqCst);
    eventually("it writes back", async || node.status().written_back == 1).await;
    let other = Revocations::start(emptied, SyncConfig::new(Staleness::refuse_after(BOUND))).await.unwrap();
    assert!(is_dead(&other, "dead"));
}

#[tokio::test]
async fn a_bad_copy_is_an_error_that_names_it() {
    let place = Place::new();
    assert!(matches!(place.refused().await, CopyFault::Missing));
    let memory = Memory::new();
    place.prepared(memory.clone()).await;
    let good = fs::read(place.copy()).unwrap();
    let head = u32::from_be_bytes(good[8..12].try_into().unwrap()) as usize;

    for length in [0, 7, 11, 12 + head, good.len() - 33, good.len() - 1] {
        overwrite(&place.copy(), &good[..length]);
        assert!(matches!(place.refused().await, CopyFault::Damaged(_)), "{length} bytes");
    }
    overwrite(&place.copy(), &[&good[..], b"x"].concat());
    assert!(matches!(place.refused().await, CopyFault::Damaged(_)), "longer");
    let version = 12 + good[12..].windows(11).position(|part| part == b"\"version\":1").unwrap() + 10;
    for at in (0..good.len()).filter(|at| *at != version) {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        overwrite(&place.copy(), &flipped);
        assert!(matches!(place.refused().await, CopyFault::Damaged(_)), "byte {at}");
    }
    let mut other = good.clone();
    other[version] = b'2';
    overwrite(&place.copy(), &other);
    assert!(matches!(place.refused().await, CopyFault::Version { theirs: 2, ours: 1 }));

    overwrite(&place.copy(), &good);
    fs::set_permissions(place.copy(), fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(place.refused().await, CopyFault::Exposed { mode: 0o604 }));
    fs::set_permissions(place.copy(), fs::Permissions::from_mode(0o600)).unwrap();

    type Set = fn(&mut SyncConfig);
    let other_settings: [(Set, &str); 4] = [
        (|config| config.denylist.budget = 5, "budget"),
        (|config| config.denylist.lifetimes = Lifetimes::DEFAULT.leeway(Duration::from_secs(1)), "leeway"),
        (|config| config.digest_key = Some("k2".into()), "digest key"),
        (|config| config.denylist.staleness = Staleness::refuse_after(2 * BOUND), "shorter staleness bound"),
    ];
    for (change, named) in other_settings {
        let mut config = place.config();
        change(&mut config);
        let error = Revocations::start(away(Memory::new()), config).await.unwrap_err();
        let StartError::Copy { fault: CopyFault::Settings { setting, .. }, .. } = &error else { panic!("{error}") };
        assert_eq!(*setting, named);
    }

    let node = place.alone().await.unwrap();
    assert!(matches!(place.refused().await, CopyFault::InUse));
    node.shutdown().await;

    // With the store there, nobody needs it: it is replaced.
    overwrite(&place.copy(), b"rubbish");
    let node = Revocations::start(memory.clone(), place.config()).await.unwrap();
    assert!(is_dead(&node, "dead"));
    node.shutdown().await;
    assert!(is_dead(&place.alone().await.unwrap(), "dead"));

    // What the store refuses is not made good by a copy.
    let mut config = place.config();
    config.denylist.budget = 5;
    let error = Revocations::start(memory, config).await.unwrap_err();
    assert!(matches!(error, StartError::Fleet { setting: "budget", .. }), "{error}");
}

/// A bad copy that nobody needs is replaced, and somebody hears of it.
#[tokio::test]
async fn a_bad_copy_is_reported_where_the_store_is_there() {
    let (log, place, memory) = (Log::start(), Place::new(), Memory::new());
    place.prepared(memory.clone()).await;
    overwrite(&place.copy(), b"rubbish, rubbish, rubbish, rubbish, rubbish, rubbish");
    let node = Revocations::start(memory, place.config()).await.unwrap();
    let said = || log.text().lines().any(|line| line.contains("no copy of a denylist") && line.contains("replaced"));
    eventually("it is reported", async || said()).await;
    node.shutdown().await;
    assert!(is_dead(&place.alone().await.unwrap(), "dead"));
    assert!(log.text().contains("this node runs from its copy"));
}

fn overwrite(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

/// A server with a setting that forgets is not away.
#[tokio::test]
async fn an_unfit_server_is_no_reason_to_start_from_a_copy() {
    let place = Place::new();
    place.prepared(Memory::new()).await;
    let mut server = Server::redis_with(&["--appendonly", "no"]);
    server.kill();
    let store = backend::connect_lazily(&server.url()).await.unwrap();
    server.start_again();
    // The pause after the first try.
    eventually("it is asked", async || match Revocations::start(Arc::clone(&store), place.config()).await {
        Err(StartError::Backend(error)) => {
            assert!(error.kind() == BackendErrorKind::Settings && error.to_string().contains("appendonly"), "{error}");
            true
        }
        Err(error) => panic!("{error}"),
        Ok(node) => {
            node.shutdown().await;
            false
        }
    })
    .await;
    let error = backend::connect_lazily(&server.url()).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Settings, "at once, where it is there at once");
}

/// A node that was killed while it wrote leaves the copy before, and something beside it.
#[tokio::test]
async fn what_a_crash_left_behind_does_no_harm() {
    let (place, memory) = (Place::new(), Memory::new());
    place.prepared(memory.clone()).await;
    let temporary = place.folder.path().join("copy.tmp");
    fs::write(&temporary, &fs::read(place.copy()).unwrap()[..40]).unwrap();
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644)).unwrap();
    let node = place.alone().await.unwrap();
    assert!(is_dead(&node, "dead"));
    node.shutdown().await;

    let node = Revocations::start(memory, place.config()).await.unwrap();
    revoke(&node, "later").await;
    node.shutdown().await;
    assert_eq!(node.status().copy_error, None);
    assert!(!temporary.exists());
    assert_eq!(fs::metadata(place.copy()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(is_dead(&place.alone().await.unwrap(), "later"));
}

/// L1, over a crash: what the node refused after its copy was written is not let in again, since the copy does not say that
/// it is all. What it holds is refused as ever, and an orderly end after that does not make it younger.
#[tokio::test]
async fn l1_a_copy_of_a_node_that_was_killed_vouches_for_nothing() {
    let (place, memory) = (Place::new(), Memory::new());
    place.prepared(memory.clone()).await;
    let node = Revocations::start(memory.clone(), place.config()).await.unwrap();
    revoke(&node, "later").await;
    // No orderly end, and no copy since.
    drop(node);
    for _ in 0..2 {
        let node = place.alone_soon().await;
        assert!(is_dead(&node, "dead"));
        assert_eq!(node.check(&token("later")), Verdict::Unknown(Why::Stale));
        assert_eq!(node.check(&token("other")), Verdict::Unknown(Why::Stale));
        node.shutdown().await;
    }
    // The store knows all of it.
    let node = Revocations::start(memory, place.config()).await.unwrap();
    assert!(is_dead(&node, "later"));
    node.shutdown().await;
    let node = place.alone().await.unwrap();
    assert!(is_dead(&node, "later") && node.check(&token("other")) == Verdict::Allow);
}

/// L1: another process kept the copy when this one started, and came to an orderly end before this one was killed.
#[tokio::test]
async fn l1_a_process_that_waited_for_the_copy_is_told_of_as_well() {
    let (place, memory) = (Place::new(), Memory::new());
    place.prepared(memory.clone()).await;
    for killed in [true, false] {
        let deaf = Faulty::new(memory.clone());
        let first = Revocations::start(deaf.clone(), place.config()).await.unwrap();
        deaf.faults.deaf.store(true, SeqCst);
        let second = Revocations::start(memory.clone(), place.config()).await.unwrap();
        let late = format!("late-{killed}");
        revoke(&second, &late).await;
        first.shutdown().await;
        if !killed {
            second.shutdown().await;
        }
        drop(second);
        let node = place.alone_soon().await;
        let expected = if killed { Verdict::Unknown(Why::Stale) } else { Verdict::Allow };
        assert_eq!((is_dead(&node, "dead"), node.check(&token("other"))), (true, expected));
        assert!(node.check(&token(&late)) != Verdict::Allow, "killed: {killed}");
        node.shutdown().await;
    }
}

/// L1: where nothing can tell of a sudden end, there is no copy that would be taken for one of an orderly end.
#[tokio::test]
async fn l1_a_node_that_cannot_tell_of_its_end_leaves_no_copy() {
    let (place, memory) = (Place::new(), Memory::new());
    place.prepared(memory.clone()).await;
    let lock = place.folder.path().join("copy.lock");
    fs::create_dir(&lock).unwrap();
    let node = Revocations::start(memory, place.config()).await.unwrap();
    revoke(&node, "later").await;
    drop(node);
    fs::remove_dir(&lock).unwrap();
    // A writer that still ends may hold it for a moment.
    eventually("it is seen to be missing", async || match place.refused().await {
        CopyFault::Missing => true,
        CopyFault::InUse => false,
        fault => panic!("{fault}"),
    })
    .await;
}

/// L1: what still ends when a shutdown is interrupted may apply something; the next one waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn l1_a_shutdown_waits_for_what_an_interrupted_one_began() {
    let (place, memory) = (Place::new(), Memory::new());
    let store = Faulty::new(memory.clone());
    let node = Revocations::start(store.clone(), place.config()).await.unwrap();
    let other = Revocations::start(memory, SyncConfig::new(Staleness::refuse_after(BOUND))).await.unwrap();
    store.faults.stuck.store(true, SeqCst);
    revoke(&other, "late").await;
    eventually("its feed is stuck", async || store.faults.sticks.load(SeqCst)).await;
    let moment = Duration::from_millis(500);
    assert!(tokio::time::timeout(moment, node.shutdown()).await.is_err(), "interrupted");
    let again = node.clone();
    let mut again = tokio::spawn(async move { again.shutdown().await });
    let _ = tokio::time::timeout(moment, &mut again).await;
    store.faults.stuck.store(false, SeqCst);
    if !again.is_finished() {
        again.await.unwrap();
    }
    eventually("what was on its way is applied", async || is_dead(&node, "late")).await;
    assert!(is_dead(&place.alone_soon().await, "late"));
}

/// L2: a copy is not sent again, so what a wrong clock would let go is kept until the store was heard.
#[tokio::test]
async fn l2_a_clock_that_is_ahead_at_the_start_forgets_nothing_of_a_copy() {
    let (place, memory) = (Place::new(), Memory::new());
    place.prepared(memory.clone()).await;
    let written = place.clock.now().unix();
    place.clock.step_wall(written + 90 * 24 * 3600);
    let store = away(memory);
    let node = Revocations::start(store.clone(), place.config()).await.unwrap();
    node.denylist().maintain();
    place.clock.step_wall(written + 1);
    store.faults.agree.store(false, SeqCst);
    eventually("it is in step", async || node.check(&token("other")) == Verdict::Allow).await;
    assert!(is_dead(&node, "dead"));
    assert_eq!(node.status().repaired, 0);
}

/// A start that failed has applied nothing: the copy is as good as before.
#[tokio::test]
async fn a_start_that_failed_leaves_the_copy_as_it_was() {
    let place = Place::new();
    let memory = Memory::new();
    place.prepared(memory.clone()).await;

    let mut config = place.config();
    config.denylist.budget = 5;
    let error = Revocations::start(away(Memory::new()), config).await.unwrap_err();
    assert!(matches!(error, StartError::Copy { fault: CopyFault::Settings { .. }, .. }), "{error}");
    let node = place.alone().await.unwrap();
    assert_eq!(node.check(&token("other")), Verdict::Allow, "after a start with other settings");
    node.shutdown().await;

    let silent = Faulty::new(memory);
    silent.faults.halt.store(true, SeqCst);
    let mut config = place.config();
    config.load_timeout = Duration::from_millis(100);
    let error = Revocations::start(silent, config).await.unwrap_err();
    assert!(matches!(error, StartError::NotLoaded { .. }), "{error}");
    let node = place.alone().await.unwrap();
    assert_eq!(node.check(&token("other")), Verdict::Allow, "after a start that was not loaded");
    assert!(is_dead(&node, "dead"));
}

/// The bound is kept in milliseconds.
#[tokio::test]
async fn a_bound_with_a_fraction_of_a_millisecond_is_not_longer_than_itself() {
    let place = Place::new();
    let config = || place.config_with(Staleness::refuse_after(BOUND + Duration::from_micros(500)));
    Revocations::start(Memory::new(), config()).await.unwrap().shutdown().await;
    let node = Revocations::start(away(Memory::new()), config()).await.unwrap();
    assert_eq!(node.check(&token("other")), Verdict::Allow);
}

/// While it runs, too; and where nothing was revoked, so that it is not older than need be.
#[tokio::test]
async fn a_copy_is_written_now_and_then() {
    let (place, memory) = (Place::new(), Memory::new());
    let mut config = place.config();
    config.copy_every = Duration::from_millis(20);
    let node = Revocations::start(memory, config.clone()).await.unwrap();
    revoke(&node, "dead").await;
    let as_of_now = || {
        let as_of = format!("\"as_of\":{},", place.clock.now().wall);
        String::from_utf8_lossy(&fs::read(place.copy()).unwrap_or_default()).contains(&as_of)
    };
    eventually("it is written", async || as_of_now()).await;
    place.clock.advance(Duration::from_secs(3));
    assert!(!as_of_now());
    eventually("it is written anew", async || as_of_now()).await;
    drop(node);
    let node = place.alone_soon().await;
    assert!(is_dead(&node, "dead"));
    node.shutdown().await;

    // One that cannot be written is shown.
    let nowhere = Place { folder: tempfile::tempdir().unwrap(), clock: place.clock.clone() };
    config.keep_copy = Some(nowhere.folder.path().join("missing/copy"));
    let node = Revocations::start(Memory::new(), config).await.unwrap();
    eventually("it says so", async || node.status().copy_error.is_some_and(|error| error.contains("missing/copy")))
        .await;
}

/// All of it: many pages, several records of one scope, scopes that were extended.
#[tokio::test]
async fn a_copy_holds_everything() {
    let place = Place::new();
    let node = Revocations::start(Memory::new(), place.config()).await.unwrap();
    let expires = unix() + 600;
    let many = (0..9000).map(|n| {
        let jti = n.to_string();
        let token = Claims::new(ISSUER).jti(&jti).exp(expires + n % 2 * 600);
        Revocation::token_of(&Identity::from_verified(&token)).unwrap()
    });
    assert_eq!(node.revoke_all(many).await.unwrap().len(), 9000);
    for minute in 0..10 {
        let again = Revocation::new(Scope::token(ISSUER, "longer")).token_expires(unix() + 600 + 60 * minute);
        let _ = node.revoke(again).await.unwrap();
    }
    let lifted = Scope::subject(ISSUER, "bob");
    for _ in 0..5 {
        let _ = node.revoke(Revocation::new(lifted.clone())).await.unwrap();
    }
    node.lift(&lifted, &node.revocations_of(&lifted)[..3], "an admin").await.unwrap();
    let records = node.status().records;
    node.shutdown().await;

    let restarted = place.alone().await.unwrap();
    assert_eq!(restarted.status().records, records);
    assert!((0..9000).all(|n| is_dead(&restarted, &n.to_string())));
    for scope in [Scope::token(ISSUER, "longer"), lifted] {
        assert_eq!(restarted.revocations_of(&scope), node.revocations_of(&scope));
    }
    let text = fs::read(place.copy()).unwrap();
    for value in [ISSUER, "longer", "an admin"] {
        assert!(!text.windows(value.len()).any(|part| part == value.as_bytes()), "{value} can be read in it");
    }
}
