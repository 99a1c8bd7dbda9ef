//! A backend that fails where it is told to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future, future::BoxFuture, stream::BoxStream};
use tower_revocation::{
    backend::{
        Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
        Position,
    },
    revocation::{Change, ScopeKey},
    time::Clock,
};

#[derive(Clone)]
pub struct Faulty<B> {
    pub inner: B,
    pub faults: Arc<Faults>,
}

/// What fails.
#[derive(Default)]
pub struct Faults {
    pub agree: AtomicBool,
    pub publish: AtomicBool,
    pub finish: AtomicBool,
    pub intend: AtomicBool,
    pub settle: AtomicBool,
    pub heartbeat: AtomicBool,
    /// Its feeds lose changes and say nothing of it.
    pub deaf: AtomicBool,
    /// Its feeds hold everything back.
    pub halt: AtomicBool,
    /// Its feeds keep the thread that asks them, until told otherwise.
    pub stuck: AtomicBool,
    /// One of them does so now.
    pub sticks: AtomicBool,
    pub lookup: AtomicBool,
    /// Its answers to look-ups are held back.
    pub late: AtomicBool,
    /// How many look-ups there were.
    pub looked_up: AtomicUsize,
    /// How many calls failed.
    pub failed: AtomicUsize,
}

impl<B> Faulty<B> {
    pub fn new(inner: B) -> Self {
        Self { inner, faults: Arc::default() }
    }
}

fn unless<'a, T: Send + 'a>(
    faults: &Faults,
    fault: &AtomicBool,
    call: impl FnOnce() -> BoxFuture<'a, Result<T, BackendError>>,
) -> BoxFuture<'a, Result<T, BackendError>> {
    if fault.load(Ordering::SeqCst) {
        faults.failed.fetch_add(1, Ordering::SeqCst);
        return future::ready(Err(BackendError::new(BackendErrorKind::Unavailable, "told to fail"))).boxed();
    }
    call()
}

impl<B: Backend> Backend for Faulty<B> {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        unless(&self.faults, &self.faults.agree, || self.inner.agree(ours))
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        unless(&self.faults, &self.faults.publish, || self.inner.publish(batch))
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let faults = &*self.faults;
        let heard = self.inner.follow(from, clock);
        let deaf = move |event: &Result<Event, BackendError>| {
            matches!(event, Ok(Event::Changes(_))) && faults.deaf.load(Ordering::SeqCst)
        };
        let heard = heard.filter(move |event| future::ready(!deaf(event)));
        let held_back = async move |event| {
            while faults.halt.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            while faults.stuck.load(Ordering::SeqCst) {
                faults.sticks.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
            event
        };
        heard.then(held_back).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        self.faults.looked_up.fetch_add(1, Ordering::SeqCst);
        unless(&self.faults, &self.faults.lookup, || {
            let answering = self.inner.lookup(keys);
            let held_back = async {
                let answer = answering.await;
                while self.faults.late.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                answer
            };
            held_back.boxed()
        })
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        unless(&self.faults, &self.faults.heartbeat, || self.inner.heartbeat(node))
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.retire(node)
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        self.inner.claim_once(claim)
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        unless(&self.faults, &self.faults.finish, || self.inner.finish_once(claim))
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        unless(&self.faults, &self.faults.intend, || self.inner.intend(intent))
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        unless(&self.faults, &self.faults.settle, || self.inner.settle(id))
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        self.inner.intents()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.inner.purge(before)
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }
}
