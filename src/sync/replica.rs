//! The task that follows the backend's feed and keeps the denylist in step with it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::StreamExt;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::{
    jitter::Jitter,
    repair::{self, Repairs, Snapshot},
    standing::Standing,
};
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, Event, Position},
    denylist::Denylist,
    revocation::Change,
    spans,
};

/// What the replica task says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) applied: Option<Position>,
    pub(super) unreadable: BTreeSet<String>,
    pub(super) last_error: Option<String>,
    /// More is held than the budget allows.
    pub(super) over_budget: bool,
}

/// A feed that is silent for longer has lost touch, whatever its connection says.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const MAINTENANCE: Duration = Duration::from_secs(5);
const PURGE: Duration = Duration::from_secs(60);
/// A node whose clock is ahead must not delete what others still need.
const PURGE_MARGIN: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn spawn(
    backend: Arc<dyn Backend>,
    denylist: Arc<Denylist>,
    standing: Arc<Standing>,
    repairs: Arc<Repairs>,
    jitter: Jitter,
    applied: Option<Position>,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<State> {
    let (state, seen) = watch::channel(State { applied, ..State::default() });
    tasks.spawn(maintain(Arc::clone(&denylist)));
    tasks.spawn(purge(Arc::clone(&backend), Arc::clone(&denylist)));
    tasks.spawn(follow(backend, denylist, standing, repairs, jitter, state));
    seen
}

/// Follows the feed, and again after each failure, with growing pauses.
async fn follow(
    backend: Arc<dyn Backend>,
    denylist: Arc<Denylist>,
    standing: Arc<Standing>,
    repairs: Arc<Repairs>,
    mut jitter: Jitter,
    state: watch::Sender<State>,
) {
    let mut memberships = standing.memberships();
    let mut pause = FIRST_PAUSE;
    loop {
        // The node joins before it asks: only what is asked after that makes it fresh.
        let Ok(membership) = memberships.wait_for(|count| *count > 0).await.map(|count| *count) else { return };
        memberships.mark_unchanged();
        let from = state.borrow().applied.clone();
        let began = tokio::time::Instant::now();
        let error = tokio::select! {
            biased;
            error = follow_once(&*backend, &denylist, &standing, &repairs, &state, membership, from) => error,
            _ = memberships.changed() => continue,
        };
        #[cfg(feature = "tracing")]
        tracing::warn!(%error, "lost touch with the backend; trying again");
        state.send_modify(|state| state.last_error = Some(error.to_string()));
        // A feed that worked for a while starts over with a short pause.
        pause = if began.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(jitter.spread(pause)).await;
    }
}

/// Follows the feed until it fails; returns why.
async fn follow_once(
    backend: &dyn Backend,
    denylist: &Arc<Denylist>,
    standing: &Standing,
    repairs: &Repairs,
    state: &watch::Sender<State>,
    membership: u64,
    from: Option<Position>,
) -> BackendError {
    let clock = Arc::clone(denylist.clock());
    let mut unreadable = BTreeSet::new();
    let mut feed = backend.follow(from.clone(), &*clock);
    let mut applier = Applier::to(denylist);
    // What a store held that may be in another life now.
    let mut snapshot = None;
    loop {
        let event = match tokio::time::timeout(SILENCE, feed.next()).await {
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) => return error,
            Ok(None) => return BackendError::new(BackendErrorKind::Unavailable, "following the feed: it ended"),
            Err(_) => {
                return BackendError::new(
                    BackendErrorKind::Unavailable,
                    format!("following the feed: silent for {SILENCE:?}"),
                );
            }
        };
        match event {
            Event::Snapshot => snapshot = from.is_some().then(Snapshot::default),
            Event::Changes(changes) => {
                if let Some(snapshot) = &mut snapshot {
                    snapshot.note_for(denylist, &changes);
                }
                if let Err(error) = applier.apply(changes).await {
                    return error;
                }
            }
            Event::Unreadable { name, why } => {
                #[cfg(feature = "tracing")]
                tracing::error!(record = name, %why, "quarantined; this node is not in sync until it is dealt with");
                unreadable.insert(format!("{name}: {why}"));
                state.send_modify(|state| state.unreadable.clone_from(&unreadable));
            }
            Event::CaughtUp { position, as_of } => {
                if let Err(error) = applier.done().await {
                    return error;
                }
                // An unreadable record may be a revocation: a node that has one is never in step. It asks again
                // from where it last was, so that it goes on by itself once the record has been dealt with.
                if !unreadable.is_empty() {
                    return BackendError::new(
                        BackendErrorKind::Corrupt,
                        format!(
                            "following the feed: {} records cannot be read; repair or remove them",
                            unreadable.len()
                        ),
                    );
                }
                let known = from.as_ref().map(Position::incarnation);
                if let Some(snapshot) = snapshot.take()
                    && known.is_some_and(|known| known != position.incarnation())
                    && let Err(error) = repair::give_back(backend, denylist, snapshot, repairs).await
                {
                    return error;
                }
                standing.caught_up(membership, as_of);
                caught_up(denylist, state, position);
            }
        }
    }
}

fn caught_up(denylist: &Denylist, state: &watch::Sender<State>, position: Position) {
    // What the fleet has recorded is enforced whatever the budget says; but somebody must hear of it.
    let over_budget = denylist.records() > denylist.budget();
    state.send_if_modified(|state| {
        #[cfg(feature = "tracing")]
        if over_budget && !state.over_budget {
            let (records, budget) = (denylist.records(), denylist.budget());
            tracing::error!(records, budget, "the denylist is over its budget: new revocations are refused; raise it");
        }
        let changed =
            state.applied.as_ref() != Some(&position) || state.last_error.is_some() || state.over_budget != over_budget;
        if changed {
            *state = State { applied: Some(position), over_budget, ..State::default() };
        }
        changed
    });
}

/// Applies changes in their order, while the next ones are fetched. Many go to a blocking thread: moka works off its
/// backlog on the caller's.
pub(super) struct Applier<'a> {
    denylist: &'a Arc<Denylist>,
    running: Option<JoinHandle<()>>,
}

impl<'a> Applier<'a> {
    pub(super) const fn to(denylist: &'a Arc<Denylist>) -> Self {
        Self { denylist, running: None }
    }

    pub(super) async fn apply(&mut self, changes: Vec<Change>) -> Result<(), BackendError> {
        const FEW: usize = 64;
        self.done().await?;
        let few = changes.len() <= FEW;
        if few {
            spans::apply(changes.len(), || self.denylist.apply(&changes));
            if !self.denylist.wants_maintenance() {
                return Ok(());
            }
        }
        let list = Arc::clone(self.denylist);
        self.running = Some(tokio::task::spawn_blocking(move || {
            if !few {
                spans::apply(changes.len(), || list.apply(&changes));
            }
            if list.wants_maintenance() {
                list.maintain();
            }
        }));
        Ok(())
    }

    /// Waits until all of it is applied.
    pub(super) async fn done(&mut self) -> Result<(), BackendError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        running.await.map_err(|error| {
            // Only where the runtime is going down: nothing may count as applied then.
            BackendError::new(BackendErrorKind::Unavailable, "applying changes to the denylist").because(error)
        })
    }
}

async fn maintain(denylist: Arc<Denylist>) {
    let mut turns = tokio::time::interval(MAINTENANCE);
    loop {
        turns.tick().await;
        let list = Arc::clone(&denylist);
        // It fails only where the runtime is going down.
        let _ = tokio::task::spawn_blocking(move || list.maintain()).await;
    }
}

/// Deletes from the backend what every node may have forgotten long ago.
async fn purge(backend: Arc<dyn Backend>, denylist: Arc<Denylist>) {
    let mut turns = tokio::time::interval(PURGE);
    turns.tick().await;
    loop {
        turns.tick().await;
        let now = denylist.now();
        if !denylist.is_steady(now) {
            continue;
        }
        let before = now.unix().saturating_sub(PURGE_MARGIN.as_secs());
        if let Err(_error) = backend.purge(before).await {
            #[cfg(feature = "tracing")]
            tracing::warn!(error = %_error, "expired revocations stay in the backend for now");
        }
    }
}
