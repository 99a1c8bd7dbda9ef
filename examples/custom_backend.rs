//! A backend of one's own, and the suite that says whether it keeps the promises.
//!
//! This one is a journal: a file of JSON lines, each synced before it counts, read back on opening. It is for one
//! process; the suite opens several handles on it, kills them, plants what cannot be read, and races claims.
//!
//! ```sh
//! cargo run --example custom_backend
//! ```
#![allow(clippy::expect_used, reason = "the suite fails by panicking")]

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tower_revocation::{
    backend::{
        Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
        Position,
        conformance::{self, Network, Skipped},
    },
    revocation::{Change, ScopeKey},
    time::Clock,
};

#[tokio::main]
async fn main() {
    let fresh = async || Harness { directory: tempfile::tempdir().expect("a temporary directory") };
    let report = conformance::run(fresh).await;
    println!("the journal keeps every promise of a backend: {report}");
}

/// A line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Life(String),
    Settings(Vec<u8>),
    Changes(Vec<Vec<u8>>),
    Node(NodeStatus),
    Retire(NodeStatus),
    Claim { id: [u8; 32], message: [u8; 32], until: u64, finished: bool },
    Intend { id: u64, record: Vec<u8> },
    Settle(u64),
    Purge(u64),
}

/// Clones share the file.
#[derive(Clone)]
struct Journal(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// How many changes were ever written.
    written: watch::Sender<u128>,
}

struct State {
    file: File,
    life: String,
    settings: Option<Vec<u8>>,
    changes: BTreeMap<u128, Vec<u8>>,
    nodes: HashMap<String, NodeStatus>,
    claims: HashMap<[u8; 32], ([u8; 32], u64, bool)>,
    intents: HashMap<u64, Vec<u8>>,
    last: u128,
}

impl Journal {
    fn open(path: &Path) -> Result<Self, BackendError> {
        let failed = |error: std::io::Error| {
            BackendError::new(BackendErrorKind::Unavailable, format!("opening {}", path.display())).because(error)
        };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let mut state = State {
            file: file.try_clone().map_err(failed)?,
            life: String::new(),
            settings: None,
            changes: BTreeMap::new(),
            nodes: HashMap::new(),
            claims: HashMap::new(),
            intents: HashMap::new(),
            last: 0,
        };
        let mut whole = 0;
        let mut lines = BufReader::new(&file);
        let mut line = String::new();
        while lines.read_line(&mut line).map_err(failed)? > 0 && line.ends_with('\n') {
            let read = serde_json::from_str(&line).map_err(|error| {
                let what = format!("reading {} at byte {whole}; repair it", path.display());
                BackendError::new(BackendErrorKind::Corrupt, what).because(error)
            })?;
            state.take_in(read);
            whole += line.len() as u64;
            line.clear();
        }
        // What a crash left half written was never acknowledged.
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        if state.life.is_empty() {
            state.append(Line::Life(format!("{:?}", std::time::SystemTime::now())))?;
        }
        let written = watch::Sender::new(state.last);
        Ok(Self(Arc::new(Shared { state: Mutex::new(state), written })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Durable first, and only then true.
    fn append(&mut self, line: Line) -> Result<(), BackendError> {
        let failed = |error: std::io::Error| {
            BackendError::new(BackendErrorKind::Unavailable, "writing to the journal").because(error)
        };
        let mut text = serde_json::to_string(&line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.take_in(line);
        Ok(())
    }

    fn take_in(&mut self, line: Line) {
        match line {
            Line::Life(life) => self.life = life,
            Line::Settings(settings) => self.settings = Some(settings),
            Line::Changes(records) => {
                for record in records {
                    self.last += 1;
                    self.changes.insert(self.last, record);
                }
            }
            Line::Node(status) => drop(self.nodes.insert(status.key(), status)),
            Line::Retire(status) => self.nodes.retain(|_, known| *known != status),
            Line::Claim { id, message, until, finished } => drop(self.claims.insert(id, (message, until, finished))),
            Line::Intend { id, record } => drop(self.intents.insert(id, record)),
            Line::Settle(id) => drop(self.intents.remove(&id)),
            Line::Purge(before) => {
                self.changes.retain(|_, record| Change::decode(record).map_or(true, |it| it.retain_until() >= before));
                self.claims.retain(|_, (_, until, _)| *until >= before);
            }
        }
    }

    fn position(&self) -> Position {
        Position::new(&*self.life, self.last)
    }
}

impl Backend for Journal {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        let mut state = self.state();
        let agreed = match &state.settings {
            Some(settings) => FleetSettings::decode(settings),
            None => state.append(Line::Settings(ours.encode())).map(|()| ours.clone()),
        };
        future::ready(agreed).boxed()
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        let mut state = self.state();
        let written = match batch {
            [] => Ok(()),
            _ => state.append(Line::Changes(batch.iter().map(Change::encode).collect())),
        };
        let outcome = written.map(|()| state.position());
        self.0.written.send_replace(state.last);
        future::ready(outcome).boxed()
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let here = self.state().position();
        let from = from.filter(|from| *from <= here).map(|from| from.offset());
        let start = stream::iter(from.is_none().then_some(Ok(Event::Snapshot)));
        let news = self.0.written.subscribe();
        let pages = stream::unfold((from.unwrap_or(0), news, true), move |(reached, mut news, at_once)| async move {
            if !at_once {
                // The time out is the heartbeat.
                let _ = tokio::time::timeout(Duration::from_millis(500), news.changed()).await;
            }
            let as_of = clock.now();
            news.mark_unchanged();
            let (mut events, mut changes) = (Vec::new(), Vec::new());
            let state = self.state();
            for (number, record) in state.changes.range(reached + 1..) {
                match Change::decode(record) {
                    Ok(change) => changes.push(change),
                    Err(why) => {
                        events.push(Ok(Event::Changes(std::mem::take(&mut changes))));
                        events.push(Ok(Event::Unreadable { name: format!("change {number} of the journal"), why }));
                    }
                }
            }
            events.push(Ok(Event::Changes(changes)));
            events.push(Ok(Event::CaughtUp { position: state.position(), as_of }));
            Some((stream::iter(events), (state.last, news, false)))
        });
        start.chain(pages.flatten()).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        let state = self.state();
        let all = state.changes.values().map(|record| {
            Change::decode(record).map_err(|why| {
                BackendError::new(BackendErrorKind::Corrupt, "looking revocations up in the journal").because(why)
            })
        });
        let wanted = |change: &Result<Change, _>| change.as_ref().map_or(true, |change| keys.contains(&change.key()));
        future::ready(all.filter(wanted).collect()).boxed()
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        let mut state = self.state();
        let outcome = state.append(Line::Node(node.clone()));
        future::ready(outcome.map(|()| state.nodes.values().cloned().collect())).boxed()
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        future::ready(self.state().append(Line::Retire(node.clone()))).boxed()
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        let mut state = self.state();
        let id = claim.digest();
        let outcome = match state.claims.get(&id) {
            Some((message, _, finished)) => Ok(claim.against(message, *finished)),
            None => {
                let line = Line::Claim { id, message: claim.message, until: claim.until, finished: false };
                state.append(line).map(|()| Claim::First)
            }
        };
        future::ready(outcome).boxed()
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        let mut state = self.state();
        let id = claim.digest();
        let (message, until, _) = state.claims.get(&id).copied().unwrap_or((claim.message, claim.until, false));
        future::ready(state.append(Line::Claim { id, message, until, finished: true })).boxed()
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        let line = Line::Intend { id: intent.id, record: intent.record.clone() };
        future::ready(self.state().append(line)).boxed()
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        future::ready(self.state().append(Line::Settle(id))).boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        let state = self.state();
        let intents = state.intents.iter().map(|(id, record)| Intent::stored(*id, record.clone())).collect();
        future::ready(Ok(intents)).boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        let mut state = self.state();
        let held = state.changes.len();
        let outcome = state.append(Line::Purge(before));
        future::ready(outcome.map(|()| (held - state.changes.len()) as u64)).boxed()
    }

    fn durability(&self) -> Durability {
        Durability::Machine
    }
}

/// A fresh journal for each check. Handles of one process share it, as long as one is open.
struct Harness {
    directory: tempfile::TempDir,
}

/// The journals that are open, by path.
static OPEN: Mutex<BTreeMap<PathBuf, std::sync::Weak<Shared>>> = Mutex::new(BTreeMap::new());

impl conformance::Harness for Harness {
    type Backend = Journal;

    async fn open(&self) -> Journal {
        let path = self.directory.path().join("journal");
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = open.get(&path).and_then(std::sync::Weak::upgrade) {
            return Journal(shared);
        }
        let journal = Journal::open(&path).expect("a journal");
        open.insert(path, Arc::downgrade(&journal.0));
        journal
    }

    async fn open_afar(&self) -> Result<(Journal, Box<dyn Network>), Skipped> {
        Err(Skipped::because("the journal is a file: there is no network"))
    }

    async fn plant(&self, record: &[u8]) -> bool {
        let journal = self.open().await;
        let mut state = journal.state();
        state.append(Line::Changes(vec![record.to_vec()])).expect("a line");
        journal.0.written.send_replace(state.last);
        true
    }
}
