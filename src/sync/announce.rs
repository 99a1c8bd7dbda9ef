//! Tells the fleet what this node has applied, and hears what the others have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use super::{fleet::Fleet, replica::State, standing::Standing};
use crate::{
    backend::{Backend, NodeStatus},
    denylist::Denylist,
};

/// What this node announces and hears.
pub(super) struct Announcements {
    fleet: Fleet,
    /// How many other processes go by this node's name, too.
    namesakes: AtomicUsize,
    /// Somebody waits for the next one.
    asked: Notify,
    /// When the last one that was answered was sent.
    answered: watch::Sender<Option<Instant>>,
}

/// How often to announce, at least four times in a lease.
const PERIOD: Duration = Duration::from_secs(1);
/// Between two announcements, unless somebody waits for one.
const GAP: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(2);

impl Announcements {
    pub(super) fn spawn(
        backend: Arc<dyn Backend>,
        denylist: Arc<Denylist>,
        standing: Arc<Standing>,
        node: String,
        state: watch::Receiver<State>,
        tasks: &mut JoinSet<()>,
    ) -> Arc<Self> {
        let this = Arc::new(Self {
            fleet: Fleet::default(),
            namesakes: AtomicUsize::new(0),
            asked: Notify::new(),
            answered: watch::Sender::new(None),
        });
        tasks.spawn(Arc::clone(&this).run(backend, denylist, standing, node, state));
        this
    }

    pub(super) const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// How many other processes go by this node's name, too.
    pub(super) fn namesakes(&self) -> usize {
        self.namesakes.load(Ordering::Relaxed)
    }

    /// Waits until the list of nodes was read anew.
    pub(super) async fn renewed(&self) {
        let now = Instant::now();
        let mut answered = self.answered.subscribe();
        self.asked.notify_one();
        // The sender lives as long as `self`.
        let _ = answered.wait_for(|sent| sent.is_some_and(|sent| sent >= now)).await;
    }

    async fn run(
        self: Arc<Self>,
        backend: Arc<dyn Backend>,
        denylist: Arc<Denylist>,
        standing: Arc<Standing>,
        node: String,
        mut state: watch::Receiver<State>,
    ) {
        let lease = denylist.staleness_policy().after();
        let period = PERIOD.min(lease / 4);
        let mut status = NodeStatus::new(node, false, lease);
        loop {
            status.beat += 1;
            // Applied first: what a node is heard to have applied, it was heard to enforce or not after that.
            status.applied = state.borrow_and_update().applied.clone();
            status.serves_when_stale = denylist.serves_when_stale();
            status.shadows = denylist.lenience().shadowed();
            status.enforces = !status.serves_when_stale && status.shadows == 0;
            let (sent, began) = (denylist.now(), Instant::now());
            match tokio::time::timeout(PATIENCE, backend.heartbeat(&status)).await {
                Ok(Ok(list)) => {
                    let now = denylist.now();
                    standing.renewed(sent, now);
                    self.fleet.heard(&list, now);
                    self.count_namesakes(self.fleet.namesakes(&status, now), &status);
                    self.answered.send_replace(Some(began));
                    for gone in self.fleet.forgotten(now) {
                        // Tried again the next time.
                        let _ = tokio::time::timeout(PATIENCE, backend.retire(&gone)).await;
                    }
                }
                #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
                Ok(Err(error)) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!(%error, "this node could not announce itself; without that it refuses before long");
                }
                Err(_) => {
                    #[cfg(feature = "tracing")]
                    tracing::warn!("no answer to this node's announcement within {PATIENCE:?}");
                }
            }
            let next = began + period;
            tokio::select! {
                biased;
                () = self.asked.notified() => {}
                // At once where something was applied, else now and then.
                _ = tokio::time::timeout_at(next, state.changed()) => {
                    tokio::select! {
                        biased;
                        () = self.asked.notified() => {}
                        () = tokio::time::sleep_until(began + GAP) => {}
                    }
                }
            }
        }
    }

    /// Nothing is unsafe about them, each is waited for. But whoever reads the name cannot tell which is meant.
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
    fn count_namesakes(&self, namesakes: usize, status: &NodeStatus) {
        let before = self.namesakes.swap(namesakes, Ordering::Relaxed);
        #[cfg(feature = "tracing")]
        if namesakes > before {
            tracing::error!(
                node = status.node,
                namesakes,
                "other processes announce themselves under this node's name; give each node a name of its own"
            );
        }
    }
}
