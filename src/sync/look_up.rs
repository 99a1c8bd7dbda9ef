//! Asks the backend for what a tiered denylist does not have at hand: once for all who wait for the same scope, a few at
//! a time, within a time limit, and so often for one user.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    backend::{Backend, BackendError, BackendErrorKind},
    denylist::{Answering, Answers, Denylist, LookUp, Tiered, Why},
    revocation::{Change, ScopeKey},
};

pub(super) struct LookUps {
    shared: Arc<Shared>,
    runtime: Handle,
    limit: Limit,
}

struct Shared {
    backend: Arc<dyn Backend>,
    denylist: Weak<Denylist>,
    config: Tiered,
    turns: Semaphore,
    /// The look-ups that are under way, by the scopes that they are about.
    flights: Mutex<HashMap<u128, watch::Receiver<Outcome>>>,
}

/// `None` while it is under way.
type Outcome = Option<Result<Arc<Answers>, Why>>;

impl LookUps {
    /// Lets a denylist ask a backend, if it is one that asks.
    pub(super) fn serve(denylist: &Arc<Denylist>, backend: &Arc<dyn Backend>) {
        let Some((config, _)) = denylist.asks() else { return };
        let shared = Shared {
            backend: Arc::clone(backend),
            denylist: Arc::downgrade(denylist),
            config,
            turns: Semaphore::new(config.look_ups_at_once.clamp(1, Semaphore::MAX_PERMITS)),
            flights: Mutex::default(),
        };
        let limit = Limit::new(config.look_ups_per_source);
        denylist.ask_with(Arc::new(Self { shared: Arc::new(shared), runtime: Handle::current(), limit }));
    }

    /// Joins the look-ups of these scopes that are under way, and begins one for the others.
    fn join(&self, keys: Vec<ScopeKey>, source: Option<ScopeKey>) -> Result<Vec<watch::Receiver<Outcome>>, Why> {
        let denylist = self.shared.denylist.upgrade().ok_or(Why::NotAsked)?;
        let mut flights = self.shared.flights();
        let mut joined: Vec<_> = keys.iter().filter_map(|key| flights.get(&key.as_u128()).cloned()).collect();
        let new: Vec<_> = keys.into_iter().filter(|key| !flights.contains_key(&key.as_u128())).collect();
        if new.is_empty() {
            return Ok(joined);
        }
        if source.is_some_and(|source| !self.limit.allows(source, denylist.now().monotonic / 1000)) {
            return Err(Why::NotAsked);
        }
        let (outcome, awaited) = watch::channel(None);
        flights.extend(new.iter().map(|key| (key.as_u128(), awaited.clone())));
        joined.push(awaited);
        // Before the backend is asked: what is applied from now on is joined with its answer.
        denylist.expect_answer(&new);
        let flight = Flight { shared: Arc::clone(&self.shared), keys: new, outcome, landed: false };
        // A runtime that has gone down drops it at once, and it lands then.
        drop(flights);
        // It goes on where the one who asked first stops waiting, for the others and for the next.
        self.runtime.spawn(flight.run());
        Ok(joined)
    }
}

impl LookUp for LookUps {
    fn look_up(&self, keys: Vec<ScopeKey>, source: Option<ScopeKey>) -> Answering<'_> {
        Box::pin(async move {
            let mut answers = Answers::new();
            for mut flight in self.join(keys, source)? {
                // It never ends without an outcome, but with its runtime.
                let outcome = flight.wait_for(Option::is_some).await.map_err(|_| Why::NoAnswer)?.clone();
                let outcome = outcome.ok_or(Why::NoAnswer)??;
                answers.extend(outcome.iter().map(|(key, entry)| (*key, entry.clone())));
            }
            Ok(answers)
        })
    }
}

impl Shared {
    fn flights(&self) -> MutexGuard<'_, HashMap<u128, watch::Receiver<Outcome>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look-up under way.
struct Flight {
    shared: Arc<Shared>,
    keys: Vec<ScopeKey>,
    outcome: watch::Sender<Outcome>,
    landed: bool,
}

impl Flight {
    async fn run(mut self) {
        let Shared { backend, config, turns, .. } = &*self.shared;
        let asked = async {
            let _turn = turns.acquire().await;
            // A backend that panics must not leave anybody waiting.
            let found = AssertUnwindSafe(async { backend.lookup(&self.keys).await }).catch_unwind().await;
            let panicked = |_| BackendError::new(BackendErrorKind::Unavailable, "looking revocations up: it panicked");
            found.map_err(panicked).flatten()
        };
        let found = match timeout(config.look_up_limit, asked).await {
            Ok(Ok(changes)) => Some(changes),
            Ok(Err(_error)) => {
                #[cfg(feature = "tracing")]
                tracing::warn!(error = %_error, "a request is refused, since the backend could not be asked");
                None
            }
            Err(_) => {
                #[cfg(feature = "tracing")]
                tracing::warn!(limit = ?config.look_up_limit, "a request is refused, since the backend did not answer");
                None
            }
        };
        let outcome = self.land(found.as_deref());
        self.outcome.send_replace(Some(outcome));
    }

    /// From the moment of its answer on nobody joins it: what is applied after that is not in the answer.
    fn land(&mut self, found: Option<&[Change]>) -> Result<Arc<Answers>, Why> {
        self.landed = true;
        let mut flights = self.shared.flights();
        self.keys.iter().for_each(|key| drop(flights.remove(&key.as_u128())));
        let denylist = self.shared.denylist.upgrade().ok_or(Why::NoAnswer)?;
        let answers = denylist.answered(&self.keys, found);
        found.map(|_| Arc::new(answers)).ok_or(Why::NoAnswer)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.landed {
            // Its runtime is going down.
            let _ = self.land(None);
        }
    }
}

/// How often each source may begin a look-up within a second, in a fixed amount of memory.
struct Limit {
    most: u32,
    /// The second and the count, of the sources that fall into one place.
    places: Box<[AtomicU64]>,
}

const PLACES: usize = 1 << 14;

impl Limit {
    fn new(most: u32) -> Self {
        Self { most, places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    fn allows(&self, source: ScopeKey, second: u64) -> bool {
        // Keys are keyed hashes already.
        let place = &self.places[(source.as_u128() >> 64) as usize % PLACES];
        let second = second << 32;
        let counted = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let count = if held >> 32 == second >> 32 { held & u64::from(u32::MAX) } else { 0 };
            (count < u64::from(self.most)).then_some(second | (count + 1))
        });
        counted.is_ok()
    }
}
