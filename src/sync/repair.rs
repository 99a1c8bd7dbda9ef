//! What this node and the store do not have in common: found, counted and mended, in both directions. Nothing leaves
//! either of them for it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{sync::watch, time::Instant};

use super::{
    jitter::Jitter,
    replica::{Applier, SILENCE, State},
};
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, Event},
    denylist::Denylist,
    revocation::Change,
};

/// How much was mended since the start.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Changes that the store had and this node had missed.
    pub(super) here: AtomicU64,
    /// Changes that this node had and the store had lost.
    pub(super) there: AtomicU64,
    /// How often the two were compared.
    pub(super) compared: AtomicU64,
}

/// Which changes a snapshot held.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(HashSet<(u128, u64, bool)>);

impl Snapshot {
    /// Notes what this node could give back otherwise: in tiered mode that is little, and the whole may not fit.
    pub(super) fn note_for(&mut self, denylist: &Denylist, changes: &[Change]) {
        self.note(changes.iter().filter(|change| denylist.is_at_hand(change.key())));
    }

    pub(super) fn note<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) {
        for change in changes {
            let key = change.key().as_u128();
            match change {
                Change::Revoke(record) => {
                    self.0.insert((key, record.id().as_u64(), false));
                }
                Change::Lift(lift) => self.0.extend(lift.ids().iter().map(|id| (key, id.as_u64(), true))),
            }
        }
    }

    /// Whether it held all of this.
    pub(crate) fn holds(&self, change: &Change) -> bool {
        let key = change.key().as_u128();
        match change {
            Change::Revoke(record) => self.0.contains(&(key, record.id().as_u64(), false)),
            Change::Lift(lift) => lift.ids().iter().all(|id| self.0.contains(&(key, id.as_u64(), true))),
        }
    }
}

/// How many changes are written at once.
const PAGE: usize = 1024;
/// How long the feed may take to get to where the snapshot was.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often to look whether the wall clock has jumped.
const LOOK: Duration = Duration::from_secs(1);

/// Compares now and then; and once the wall clock has jumped, since one that was wrong from the start may have let go what
/// still counts.
pub(super) async fn compare_every(
    every: Duration,
    mut jitter: Jitter,
    backend: Arc<dyn Backend>,
    denylist: Arc<Denylist>,
    repairs: Arc<Repairs>,
    mut state: watch::Receiver<State>,
) {
    let mut steady = true;
    loop {
        // Not all nodes of a fleet at once.
        let turn = Instant::now() + jitter.spread(every);
        let mut jumped = false;
        while !jumped && Instant::now() < turn {
            tokio::time::sleep_until(turn.min(Instant::now() + LOOK)).await;
            let was_steady = std::mem::replace(&mut steady, denylist.is_steady(denylist.now()));
            jumped = was_steady && !steady;
        }
        if let Err(_error) = compare(&*backend, &denylist, &repairs, &mut state).await {
            #[cfg(feature = "tracing")]
            tracing::warn!(error = %_error, "this node could not be compared with the backend; trying again later");
            // A jump does not wait for the next turn.
            steady |= jumped;
        }
    }
}

/// Reads everything that the store holds, and mends what differs.
async fn compare(
    backend: &dyn Backend,
    denylist: &Arc<Denylist>,
    repairs: &Repairs,
    state: &mut watch::Receiver<State>,
) -> Result<(), BackendError> {
    let late =
        |what: &str| BackendError::new(BackendErrorKind::Unavailable, format!("comparing with the backend: {what}"));
    let clock = Arc::clone(denylist.clock());
    let (mut snapshot, mut missing) = (Snapshot::default(), Vec::new());
    let mut feed = backend.follow(None, &*clock);
    let position = loop {
        let event = tokio::time::timeout(SILENCE, feed.next()).await.map_err(|_| late("the feed is silent"))?;
        match event.ok_or_else(|| late("the feed ended"))?? {
            Event::Snapshot => {}
            Event::Changes(changes) => {
                snapshot.note_for(denylist, &changes);
                missing.extend(changes.into_iter().filter(|change| !denylist.holds(change)));
            }
            Event::Unreadable { .. } => return Err(late("a record cannot be read")),
            Event::CaughtUp { position, .. } => break position,
        }
    };
    drop(feed);
    // What is newer than this node is no difference.
    let reached = state.wait_for(|state| state.applied.as_ref().is_some_and(|applied| *applied >= position));
    tokio::time::timeout(PATIENCE, reached)
        .await
        .map_err(|_| late("this node is behind"))?
        .map_err(|_| late("shutting down"))?;
    missing.retain(|change| !denylist.holds(change));
    if !missing.is_empty() {
        let count = missing.len() as u64;
        let mut applier = Applier::to(denylist);
        applier.apply(missing).await?;
        applier.done().await?;
        repairs.here.fetch_add(count, Ordering::Relaxed);
        #[cfg(feature = "tracing")]
        tracing::error!(count, "this node had missed revocations that the backend holds; it holds them now");
    }
    give_back(backend, denylist, snapshot, repairs).await?;
    repairs.compared.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Writes what this node holds and the store does not.
pub(super) async fn give_back(
    backend: &dyn Backend,
    denylist: &Arc<Denylist>,
    snapshot: Snapshot,
    repairs: &Repairs,
) -> Result<(), BackendError> {
    let list = Arc::clone(denylist);
    let lost = tokio::task::spawn_blocking(move || list.held_beyond(&snapshot)).await.map_err(|error| {
        BackendError::new(BackendErrorKind::Unavailable, "looking through the denylist").because(error)
    })?;
    for page in lost.chunks(PAGE) {
        // Some may have been written after the snapshot was taken.
        let keys: Vec<_> = page.iter().map(Change::key).collect();
        let mut there = Snapshot::default();
        there.note(&backend.lookup(&keys).await?);
        let lost: Vec<_> = page.iter().filter(|change| !there.holds(change)).cloned().collect();
        if lost.is_empty() {
            continue;
        }
        backend.publish(&lost).await?;
        repairs.there.fetch_add(lost.len() as u64, Ordering::Relaxed);
        #[cfg(feature = "tracing")]
        tracing::error!(
            count = lost.len(),
            "the backend had lost revocations that this node holds; they are written back"
        );
    }
    Ok(())
}
