use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    future::{self, BoxFuture, FutureExt},
    stream::{self, BoxStream, StreamExt},
};
use tokio::sync::watch;

use super::{Backend, BackendError, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime, Position};
use crate::{
    revocation::{Change, ScopeKey},
    time::Clock,
};

/// A backend in this process's memory, for tests and for a single process that may forget.
///
/// What it does **not** promise: revocations do not survive the process, and other processes do not see
/// them. Clones share one store, so several nodes of one process stay in step.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The offset of the last change.
    last: watch::Sender<u128>,
    incarnation: String,
}

#[derive(Default)]
struct State {
    settings: Option<FleetSettings>,
    /// Changes and their offsets, in order.
    log: Vec<(u128, Change)>,
    nodes: HashMap<String, NodeStatus>,
    /// By the digests of their ids.
    claims: HashMap<[u8; 32], Claimed>,
    intents: HashMap<u64, Intent>,
}

struct Claimed {
    message: [u8; 32],
    until: u64,
    finished: bool,
}

/// How many changes one event carries.
const PAGE: usize = 4096;
const HEARTBEAT: Duration = Duration::from_millis(500);

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        let shared = Shared {
            state: Mutex::default(),
            last: watch::Sender::new(0),
            incarnation: format!("{:016x}", crate::random::u64()),
        };
        Self { shared: Arc::new(shared) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn position(&self, offset: u128) -> Position {
        Position::new(self.shared.incarnation.clone(), offset)
    }

    /// Whether it is a place of this store.
    pub(super) fn holds(&self, from: &Position) -> bool {
        from.incarnation() == self.shared.incarnation && from.offset() <= *self.shared.last.borrow()
    }

    /// The next changes after `offset`, up to a page.
    pub(super) fn after(&self, offset: u128) -> Vec<(u128, Change)> {
        let state = self.state();
        let from = state.log.partition_point(|(at, _)| *at <= offset);
        state.log[from..].iter().take(PAGE).cloned().collect()
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for Memory {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        let settings = self.state().settings.get_or_insert_with(|| ours.clone()).clone();
        future::ready(Ok(settings)).boxed()
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        async move {
            let last = {
                let mut state = self.state();
                let first = *self.shared.last.borrow() + 1;
                state.log.extend((first..).zip(batch.iter().cloned()));
                let last = first - 1 + batch.len() as u128;
                // Under the lock, so that it never goes back.
                self.shared.last.send_replace(last);
                last
            };
            Ok(self.position(last))
        }
        .boxed()
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let resume = from.filter(|from| self.holds(from)).map(|from| from.offset());
        let start = stream::iter(resume.is_none().then_some(Ok(Event::Snapshot)));
        let changes = stream::unfold(
            (resume.unwrap_or(0), self.shared.last.subscribe(), true),
            move |(offset, mut last, mut at_once)| async move {
                loop {
                    let as_of = clock.now();
                    let end = *last.borrow_and_update();
                    if end > offset {
                        let page = self.after(offset);
                        // The tail of the log may have been purged: then there is nothing left to deliver.
                        let reached = page.last().map_or(end, |(at, _)| *at);
                        let changes = page.into_iter().map(|(_, change)| change).collect();
                        return Some((Ok(Event::Changes(changes)), (reached, last, true)));
                    }
                    if at_once {
                        let event = Event::CaughtUp { position: self.position(offset), as_of };
                        return Some((Ok(event), (offset, last, false)));
                    }
                    // The sender lives as long as `self`. A time-out is the next heartbeat.
                    let _ = tokio::time::timeout(HEARTBEAT, last.changed()).await;
                    at_once = true;
                }
            },
        );
        start.chain(changes).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        let state = self.state();
        let found = state.log.iter().filter(|(_, change)| keys.contains(&change.key()));
        future::ready(Ok(found.map(|(_, change)| change.clone()).collect())).boxed()
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        let mut state = self.state();
        state.nodes.insert(node.key(), node.clone());
        future::ready(Ok(state.nodes.values().cloned().collect())).boxed()
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        self.state().nodes.retain(|_, announced| announced != node);
        future::ready(Ok(())).boxed()
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        let outcome = match self.state().claims.entry(claim.digest()) {
            Entry::Occupied(held) => claim.against(&held.get().message, held.get().finished),
            Entry::Vacant(place) => {
                place.insert(Claimed { message: claim.message, until: claim.until, finished: false });
                Claim::First
            }
        };
        future::ready(Ok(outcome)).boxed()
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        let claimed = Claimed { message: claim.message, until: claim.until, finished: false };
        self.state().claims.entry(claim.digest()).or_insert(claimed).finished = true;
        future::ready(Ok(())).boxed()
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        self.state().intents.insert(intent.id, intent.clone());
        future::ready(Ok(())).boxed()
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        self.state().intents.remove(&id);
        future::ready(Ok(())).boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        future::ready(Ok(self.state().intents.values().cloned().collect())).boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        let mut state = self.state();
        state.claims.retain(|_, claimed| claimed.until >= before);
        let held = state.log.len();
        state.log.retain(|(_, change)| change.retain_until() >= before);
        future::ready(Ok((held - state.log.len()) as u64)).boxed()
    }

    fn durability(&self) -> Durability {
        Durability::None
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("changes", &self.state().log.len()).finish()
    }
}
