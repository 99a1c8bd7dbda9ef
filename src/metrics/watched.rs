//! Counts what a backend fails at.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};

use crate::{
    backend::{
        Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
        Position,
    },
    revocation::{Change, ScopeKey},
    time::Clock,
};

/// What a backend has failed at since the start.
#[derive(Debug, Default)]
pub(crate) struct Failures([[AtomicU64; KINDS.len()]; OPERATIONS.len()]);

const OPERATIONS: [&str; 5] = ["publish", "follow", "lookup", "heartbeat", "other"];
const KINDS: [&str; 5] = ["unavailable", "settings", "corrupt", "unanswered", "read_only"];

#[derive(Clone, Copy)]
enum Operation {
    Publish,
    Follow,
    Lookup,
    Heartbeat,
    Other,
}

impl Failures {
    /// Operation, kind and count of each.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        OPERATIONS.into_iter().zip(&self.0).flat_map(|(operation, kinds)| {
            let count =
                move |(kind, count): (&'static str, &AtomicU64)| (operation, kind, count.load(Ordering::Relaxed));
            KINDS.into_iter().zip(kinds).map(count)
        })
    }

    fn failed(&self, operation: Operation, error: &BackendError) {
        self.add(
            operation,
            match error.kind() {
                BackendErrorKind::Unavailable => 0,
                BackendErrorKind::Settings => 1,
                BackendErrorKind::Corrupt => 2,
                BackendErrorKind::ReadOnly => 4,
            },
        );
    }

    fn unanswered(&self, operation: Operation) {
        self.add(operation, 3);
    }

    fn add(&self, operation: Operation, kind: usize) {
        self.0[operation as usize][kind].fetch_add(1, Ordering::Relaxed);
    }
}

/// A backend whose failures are counted.
pub(crate) struct Watched {
    backend: Arc<dyn Backend>,
    failures: Arc<Failures>,
}

impl Watched {
    pub(crate) const fn new(backend: Arc<dyn Backend>, failures: Arc<Failures>) -> Self {
        Self { backend, failures }
    }

    fn watch<'a, T: 'a>(
        &'a self,
        operation: Operation,
        answer: BoxFuture<'a, Result<T, BackendError>>,
    ) -> BoxFuture<'a, Result<T, BackendError>> {
        async move {
            let waiting = Waiting { failures: Some(&self.failures), operation };
            let answer = answer.await;
            waiting.over();
            answer.inspect_err(|error| self.failures.failed(operation, error))
        }
        .boxed()
    }
}

/// While an answer is awaited. Dropped before it is there: whoever asked has stopped waiting.
struct Waiting<'a> {
    failures: Option<&'a Failures>,
    operation: Operation,
}

impl Waiting<'_> {
    fn over(mut self) {
        self.failures = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(failures) = self.failures {
            failures.unanswered(self.operation);
        }
    }
}

impl Backend for Watched {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        self.watch(Operation::Other, self.backend.agree(ours))
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        self.watch(Operation::Publish, self.backend.publish(batch))
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let failed = |event: &Result<Event, BackendError>| {
            if let Err(error) = event {
                self.failures.failed(Operation::Follow, error);
            }
        };
        self.backend.follow(from, clock).inspect(failed).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        self.watch(Operation::Lookup, self.backend.lookup(keys))
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        self.watch(Operation::Heartbeat, self.backend.heartbeat(node))
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        self.watch(Operation::Other, self.backend.retire(node))
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        self.watch(Operation::Other, self.backend.claim_once(claim))
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        self.watch(Operation::Other, self.backend.finish_once(claim))
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        self.watch(Operation::Other, self.backend.intend(intent))
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        self.watch(Operation::Other, self.backend.settle(id))
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        self.watch(Operation::Other, self.backend.intents())
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.watch(Operation::Other, self.backend.purge(before))
    }

    fn durability(&self) -> Durability {
        self.backend.durability()
    }
}
