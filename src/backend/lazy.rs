use std::{
    error::Error,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, FutureExt, Shared},
    stream::{self, BoxStream, StreamExt},
};
use tokio::time::Instant;

use super::{
    Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
    Position,
};
use crate::{
    revocation::{Change, ScopeKey},
    time::Clock,
};

/// A backend that need not be there yet: it is connected to when it is used, and tried again after growing pauses.
/// Every call fails until then, with what stood in the way.
///
/// For nodes that can start from a copy ([`SyncConfig::keep_copy`](crate::sync::SyncConfig::keep_copy)).
/// [`connect_lazily`](super::connect_lazily) is the same by a URL alone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[cfg(feature = "redis")] {
/// use tower_revocation::backend::{Lazy, Redis};
///
/// let options = Redis::options("redis://127.0.0.1:1/0")?.namespace("shop");
/// let store = Lazy::connect(move || options.clone().connect()).await?; // nobody listens there yet
/// # drop(store); }
/// # Ok(()) }
/// ```
pub struct Lazy {
    connect: Box<dyn Fn() -> BoxFuture<'static, Connected> + Send + Sync>,
    store: OnceLock<Arc<dyn Backend>>,
    tries: Mutex<Tries>,
}

type Connected = Result<Arc<dyn Backend>, Arc<BackendError>>;

#[derive(Default)]
struct Tries {
    /// The one under way. All callers wait for it, and where they stop waiting, later ones go on with it.
    running: Option<Shared<BoxFuture<'static, Connected>>>,
    failed: Option<Failed>,
}

struct Failed {
    error: Arc<BackendError>,
    pause: Duration,
    until: Instant,
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A try that takes longer has met somebody who is silent, and would be waited for by everyone, for ever.
const LONGEST_TRY: Duration = Duration::from_secs(30);

impl Lazy {
    /// Tries once, and goes on later where the store is [away](BackendErrorKind::Unavailable).
    ///
    /// # Errors
    ///
    /// What `connect` says, unless the store is only away: a URL that is not understood, or a setting of the store that
    /// would break a promise. Where that is found later, calls fail with it, and go on trying.
    pub async fn connect<B, F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Result<Self, BackendError>
    where
        B: Backend,
        F: Future<Output = Result<B, BackendError>> + Send + 'static,
    {
        let this = Self::untried(move || connect().map(|store| store.map(|store| Arc::new(store) as Arc<dyn Backend>)));
        match this.store().await {
            Err(error) if error.kind() != BackendErrorKind::Unavailable => Err(error),
            _ => Ok(this),
        }
    }

    /// One that has not been tried.
    pub(crate) fn untried<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Arc<dyn Backend>, BackendError>> + Send + 'static,
    {
        let connect = move || {
            let connected = tokio::time::timeout(LONGEST_TRY, connect());
            let connected = connected.map(|store| store.unwrap_or_else(|_| Err(silent())));
            connected.map(|store| store.map_err(Arc::new)).boxed()
        };
        Self { connect: Box::new(connect), store: OnceLock::new(), tries: Mutex::default() }
    }

    /// The store, once it is there.
    async fn store(&self) -> Result<&dyn Backend, BackendError> {
        if let Some(store) = self.store.get() {
            return Ok(&**store);
        }
        let attempt = self.attempt()?;
        match attempt.clone().await {
            Ok(store) => Ok(&**self.store.get_or_init(|| store)),
            Err(error) => Err(self.failed(&attempt, &error)),
        }
    }

    /// The attempt under way, or a new one unless the last one was a moment ago.
    fn attempt(&self) -> Result<Shared<BoxFuture<'static, Connected>>, BackendError> {
        let mut tries = self.tries();
        match (&tries.running, &tries.failed) {
            (Some(running), _) => return Ok(running.clone()),
            (None, Some(last)) if Instant::now() < last.until => return Err(again(&last.error)),
            _ => {}
        }
        let attempt = (self.connect)().shared();
        tries.running = Some(attempt.clone());
        Ok(attempt)
    }

    fn failed(&self, attempt: &Shared<BoxFuture<'static, Connected>>, error: &Arc<BackendError>) -> BackendError {
        let mut tries = self.tries();
        // Of all who waited for it, the first takes note.
        if tries.running.take_if(|running| running.ptr_eq(attempt)).is_some() {
            let pause = tries.failed.as_ref().map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
            tries.failed = Some(Failed { error: Arc::clone(error), pause, until: Instant::now() + pause });
        }
        again(error)
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn silent() -> BackendError {
    let what = format!("connecting to the backend: no answer within {LONGEST_TRY:?}");
    BackendError::new(BackendErrorKind::Unavailable, what)
}

/// One failure answers many callers.
fn again(error: &Arc<BackendError>) -> BackendError {
    let again = BackendError::new(error.kind(), error.what.clone());
    if error.source.is_some() { again.because(Because(Arc::clone(error))) } else { again }
}

/// What an error that is shared was caused by.
#[derive(Debug)]
struct Because(Arc<BackendError>);

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.source.as_ref().map_or(Ok(()), |source| source.fmt(f))
    }
}

impl Error for Because {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_ref().and_then(|source| source.source())
    }
}

impl Backend for Lazy {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        async move { self.store().await?.agree(ours).await }.boxed()
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        async move { self.store().await?.publish(batch).await }.boxed()
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let feed = async move {
            match self.store().await {
                Ok(store) => store.follow(from, clock),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        feed.flatten_stream().boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        async move { self.store().await?.lookup(keys).await }.boxed()
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        async move { self.store().await?.heartbeat(node).await }.boxed()
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        async move { self.store().await?.retire(node).await }.boxed()
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        async move { self.store().await?.claim_once(claim).await }.boxed()
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        async move { self.store().await?.finish_once(claim).await }.boxed()
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        async move { self.store().await?.intend(intent).await }.boxed()
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        async move { self.store().await?.settle(id).await }.boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        async move { self.store().await?.intents().await }.boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        async move { self.store().await?.purge(before).await }.boxed()
    }

    /// [`Durability::None`] until the store was reached: nothing is acknowledged before.
    fn durability(&self) -> Durability {
        self.store.get().map_or(Durability::None, |store| store.durability())
    }
}

impl fmt::Debug for Lazy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // How to connect may hold a password.
        f.debug_struct("Lazy").field("connected", &self.store.get().is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::backend::Memory;

    fn away() -> BackendError {
        BackendError::new(BackendErrorKind::Unavailable, "knocking").because("nobody there")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_away_is_tried_again_after_a_pause_and_then_used() {
        let tries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tries);
        let lazy = Lazy::connect(move || {
            let try_number = count.fetch_add(1, Ordering::SeqCst);
            async move { if try_number < 2 { Err(away()) } else { Ok(Memory::new()) } }
        });
        let lazy = lazy.await.unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), 1, "tried at once");
        for _ in 0..10 {
            let error = lazy.publish(&[]).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (BackendErrorKind::Unavailable, "knocking: nobody there")
            );
        }
        assert_eq!(tries.load(Ordering::SeqCst), 1, "not at every call");
        assert_eq!(lazy.durability(), Durability::None);
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(lazy.intents().await.is_err(), "the second try");
        tokio::time::advance(FIRST_PAUSE).await;
        assert!(lazy.intents().await.is_err());
        assert_eq!(tries.load(Ordering::SeqCst), 2, "the pause has grown");
        tokio::time::advance(FIRST_PAUSE).await;
        lazy.publish(&[]).await.unwrap();
        lazy.publish(&[]).await.unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), 3, "one connection");
    }

    #[tokio::test]
    async fn what_another_try_would_not_mend_is_an_error_at_once() {
        let unfit = || async { Err::<Memory, _>(BackendError::new(BackendErrorKind::Settings, "unfit")) };
        let error = Lazy::connect(unfit).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Settings);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_outlives_the_caller_that_began_it() {
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(Arc::new(Memory::new()) as Arc<dyn Backend>)
        };
        let lazy = Lazy::untried(slow);
        assert!(tokio::time::timeout(Duration::from_secs(2), lazy.publish(&[])).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(2), lazy.publish(&[])).await.is_ok());
    }

    /// A store that takes the connection and says nothing would else be waited for by everyone, also once it is well.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_ends() {
        let tries = AtomicUsize::new(0);
        let lazy = Lazy::untried(move || {
            let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first {
                    std::future::pending::<()>().await;
                }
                Ok(Arc::new(Memory::new()) as Arc<dyn Backend>)
            }
        });
        let first = tokio::time::timeout(2 * LONGEST_TRY, lazy.publish(&[])).await.unwrap();
        assert_eq!(first.unwrap_err().kind(), BackendErrorKind::Unavailable);
        tokio::time::advance(FIRST_PAUSE).await;
        lazy.publish(&[]).await.unwrap();
    }
}
