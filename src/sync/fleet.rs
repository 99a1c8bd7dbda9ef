//! The other nodes, as far as this one knows, and when all of them refuse what was revoked.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{Lag, Unconfirmed};
use crate::{
    backend::{NodeStatus, Position},
    time::Moment,
};

/// A run of a node of the fleet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Node {
    /// What it said last.
    pub status: NodeStatus,
    /// For how long nothing new was heard of it, as far as this node can tell: it may be longer.
    pub silent_for: Duration,
}

/// How much longer than its lease a node is waited for: clocks may differ in rate by a sixty-fourth.
fn with_drift(lease: Duration) -> Duration {
    // The coarse clocks add their own grain.
    lease + lease / 64 + Duration::from_millis(20)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// After how many leases without a sign a node is taken off the list.
const FORGOTTEN: u32 = 20;

/// What the runs of nodes have announced, by [`NodeStatus::key`], and when this node first saw that.
#[derive(Default)]
pub(super) struct Fleet(Mutex<HashMap<String, Seen>>);

struct Seen {
    status: NodeStatus,
    /// When this node first saw this run of it.
    first: u64,
    /// Milliseconds of this node's monotonic clock: a wall clock that jumps must not end a lease early.
    since: u64,
}

impl Fleet {
    /// Takes in what the store lists at `now` or later.
    pub(super) fn heard(&self, list: &[NodeStatus], now: Moment) {
        let mut nodes = self.lock();
        // What a store has lost says nothing of the node: it may serve until its lease has run out.
        let may_serve = |seen: &Seen| now.monotonic.saturating_sub(seen.since) <= millis(with_drift(seen.status.lease));
        let listed: HashSet<_> = list.iter().map(NodeStatus::key).collect();
        nodes.retain(|key, seen| listed.contains(key) || may_serve(seen));
        for status in list {
            let new = || Seen { status: status.clone(), first: now.monotonic, since: now.monotonic };
            let seen = nodes.entry(status.key()).or_insert_with(new);
            if seen.status.beat != status.beat {
                *seen = Seen { first: seen.first, ..new() };
            }
        }
    }

    /// How many other runs go by this name and live. One that was followed by this one says nothing new any more.
    pub(super) fn namesakes(&self, ours: &NodeStatus, now: Moment) -> usize {
        let nodes = self.lock();
        let Some(first) = nodes.get(&ours.key()).map(|seen| seen.first) else { return 0 };
        let lives = |seen: &&Seen| {
            let silent_for = now.monotonic.saturating_sub(seen.since);
            seen.since > seen.first.max(first) && silent_for <= millis(with_drift(seen.status.lease))
        };
        let others = nodes.values().filter(|seen| seen.status.node == ours.node && seen.status.session != ours.session);
        others.filter(lives).count()
    }

    /// The runs of nodes, by name.
    pub(super) fn nodes(&self, now: Moment) -> Vec<Node> {
        let silent_for = |seen: &Seen| Duration::from_millis(now.monotonic.saturating_sub(seen.since));
        let nodes = self.lock();
        let mut nodes: Vec<_> =
            nodes.values().map(|seen| Node { status: seen.status.clone(), silent_for: silent_for(seen) }).collect();
        nodes.sort_by(|a, b| (&a.status.node, a.status.session).cmp(&(&b.status.node, b.status.session)));
        nodes
    }

    /// Those that have been gone for so long that nobody needs to hear of them.
    pub(super) fn forgotten(&self, now: Moment) -> Vec<NodeStatus> {
        let gone = |node: &Node| node.silent_for > with_drift(node.status.lease) * FORGOTTEN;
        self.nodes(now).into_iter().filter(gone).map(|node| node.status).collect()
    }

    /// The nodes of which it is not known that they refuse what was stored at `position`, which was `ago`, and is about
    /// scopes of these kinds, a bit for each.
    pub(super) fn unconfirmed(&self, position: &Position, kinds: u32, ago: Duration, now: Moment) -> Vec<Unconfirmed> {
        let lag = |node: &Node| {
            let status = &node.status;
            if status.serves_when_stale || !status.enforces && status.shadows == 0 {
                return Some(Lag::ServesStale);
            }
            if status.shadows & kinds != 0 {
                return Some(Lag::Shadows);
            }
            let applied = status.applied.as_ref().is_some_and(|applied| applied >= position);
            // What it serves by is younger than its lease: by then it has heard, or refuses.
            let over = with_drift(status.lease);
            (!applied && node.silent_for <= over && ago <= over).then_some(Lag::Behind)
        };
        let nodes = self.nodes(now);
        let unconfirmed = |node: &Node| {
            let NodeStatus { node: name, session, .. } = &node.status;
            Some(Unconfirmed { node: name.clone(), session: *session, why: lag(node)? })
        };
        nodes.iter().filter_map(unconfirmed).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
