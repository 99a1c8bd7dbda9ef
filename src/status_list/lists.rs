//! The lists that tokens point to: fetched when first needed, kept fresh in the background.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
    time::{sleep, timeout},
};

use super::{
    StatusListsBuilder, Unavailable,
    held::{Held, Place, Room, Told},
    token::{Expected, Unreadable},
};
use crate::{
    denylist::Why,
    policy::MissingClaim,
    reject::Rejection,
    time::Moment,
    token::{Fetch, FetchError, FetchErrorKind, Identity, JwtVerifier, Status, StatusClaim, StatusRef, VerifyError},
};

/// How long a URI may be: it is kept, and asked for, as long as tokens name it.
const MAX_URI: usize = 2048;
/// How many lists are fetched at once.
const AT_ONCE: usize = 4;

/// Honours Token Status Lists: tokens that point to one are held against it.
///
/// A list is fetched when a token first points to it; such a request waits, where its door can
/// ([`RevocationLayer::asking`](crate::RevocationLayer::asking)), and is answered 503 where it cannot. From then on it is
/// fetched anew in the background before its `ttl` or `exp` is over, for as long as tokens point to it. Each list counts
/// for one issuer only: a list is what the *issuer of the token* signed as one, with the keys that its tokens are verified
/// with.
///
/// ```no_run
/// use std::sync::Arc;
/// use tower_revocation::{Guard, denylist::Denylist, policy::Policy, status_list::StatusLists, token::{JwtVerifier, Verify}};
///
/// # async fn example(verifier: Arc<JwtVerifier>, denylist: Arc<Denylist>) -> Result<(), Box<dyn std::error::Error>> {
/// let lists = StatusLists::builder(Arc::clone(&verifier)).build()?;
/// let guard = Guard::new(denylist, Verify::new(verifier), Policy::default()).status_lists(lists);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct StatusLists(Arc<Shared>);

/// What lists have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusListCounts {
    /// Lists that tokens pointed to and that are remembered.
    pub lists: u64,
    /// Bytes that they take, decompressed.
    pub bytes: u64,
    /// Lists fetched and accepted since the start.
    pub fetched: u64,
    /// Fetches that failed, or brought what was not accepted, since the start.
    pub failed: u64,
    /// Tokens that pointed to no list, since the start. One that is found in the cache of verified ones was counted when
    /// it was verified.
    pub missing: u64,
}

/// Where a token's status is.
#[derive(Clone)]
pub(crate) struct Listed {
    place: Arc<Watched>,
    idx: u64,
}

/// What is known of a token's status.
pub(crate) enum Standing {
    Clear,
    Refused(Rejection),
    /// The list has to be fetched first.
    Ask,
}

struct Shared {
    settings: StatusListsBuilder,
    verifier: Arc<JwtVerifier>,
    fetch: Arc<dyn Fetch>,
    runtime: Handle,
    /// By issuer and URI. Read on every request of some doors, so that nobody waits for a writer.
    places: ArcSwap<Places>,
    writer: Mutex<()>,
    used: Arc<AtomicU64>,
    fetching: Semaphore,
    fetched: AtomicU64,
    failed: AtomicU64,
    missing: AtomicU64,
    /// Ends the tasks when it is dropped.
    alive: watch::Sender<()>,
}

type Places = HashMap<Box<str>, HashMap<Box<str>, Arc<Watched>>>;

/// A list and the task that keeps it.
struct Watched {
    place: Place,
    state: watch::Sender<State>,
    /// Has the task fetch it now.
    wanted: Notify,
    pinned: bool,
}

impl Watched {
    /// Whether the task has no list, and is not about to have one.
    fn has_failed(&self) -> bool {
        let state = self.state.borrow();
        state.failed && !state.fetching
    }
}

#[derive(Clone, Copy, Default)]
struct State {
    /// A task keeps the list.
    kept: bool,
    /// It is being fetched now.
    fetching: bool,
    /// That failed the last time; the task tries again by itself.
    failed: bool,
}

/// Why a list was not taken.
#[derive(Debug)]
enum Failure {
    Fetch(FetchError),
    Unreadable(Unreadable),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(error) => error.fmt(f),
            Self::Unreadable(error) => error.fmt(f),
        }
    }
}

impl StatusLists {
    /// Settings to make them from. Lists are verified with the keys of `verifier`.
    pub fn builder(verifier: Arc<JwtVerifier>) -> StatusListsBuilder {
        StatusListsBuilder::new(verifier)
    }

    pub(super) fn new(
        settings: StatusListsBuilder,
        verifier: Arc<JwtVerifier>,
        fetch: Arc<dyn Fetch>,
        runtime: Handle,
    ) -> Self {
        Self(Arc::new(Shared {
            settings,
            verifier,
            fetch,
            runtime,
            places: ArcSwap::default(),
            writer: Mutex::new(()),
            used: Arc::default(),
            fetching: Semaphore::new(AT_ONCE),
            fetched: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            alive: watch::Sender::new(()),
        }))
    }

    /// Fetches this list of this issuer now and keeps it whether or not tokens point to it: for lists that are known
    /// beforehand, and for [`Peek`](crate::token::Peek), which has none fetched by itself, since nobody has verified the
    /// URI in the tokens that it sees.
    pub fn watch(&self, iss: &str, uri: &str) {
        if let Some(watched) = self.0.place(iss, uri, true) {
            self.0.keep(&watched);
        }
    }

    /// Whether an identity's status lets it pass; waits for its list where that is not here yet.
    ///
    /// # Errors
    ///
    /// Where it does not, or cannot be told.
    pub async fn check(&self, identity: &Identity) -> Result<(), Rejection> {
        match self.listed(identity.iss(), identity.status())? {
            None => Ok(()),
            Some(listed) => self.ask(&listed).await,
        }
    }

    /// What they have cost so far.
    pub fn counts(&self) -> StatusListCounts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Shared { fetched, failed, missing, used, places, .. } = &*self.0;
        let lists = places.load().values().map(|of_issuer| of_issuer.len() as u64).sum();
        StatusListCounts {
            lists,
            bytes: count(used),
            fetched: count(fetched),
            failed: count(failed),
            missing: count(missing),
        }
    }

    /// Where the status of a verified token is; `None` where it passes without one.
    pub(crate) fn listed(&self, iss: &str, status: StatusClaim<'_>) -> Result<Option<Listed>, Rejection> {
        let Some(StatusRef { uri, idx }) = self.reference(status)? else { return Ok(None) };
        match self.0.place(iss, uri, false) {
            Some(place) => Ok(Some(Listed { place, idx })),
            None => self.unavailable().map(|()| None),
        }
    }

    fn reference<'a>(&self, status: StatusClaim<'a>) -> Result<Option<StatusRef<'a>>, Rejection> {
        match status {
            StatusClaim::List(reference) if reference.uri.len() <= MAX_URI => Ok(Some(reference)),
            StatusClaim::List(_) | StatusClaim::Malformed => Err(VerifyError::Malformed.into()),
            StatusClaim::Missing => {
                self.0.missing.fetch_add(1, Ordering::Relaxed);
                match self.0.settings.missing {
                    MissingClaim::Allow => Ok(None),
                    MissingClaim::Deny => Err(Rejection::MissingStatus),
                }
            }
        }
    }

    /// Whether the token may pass, as far as that can be told at once.
    #[inline]
    pub(crate) fn standing(&self, listed: &Listed, now: Moment) -> Standing {
        let settings = &self.0.settings;
        match listed.place.place.tell(listed.idx, now, settings.unavailable == Unavailable::LastKnown) {
            Told::Status(Status::VALID) => Standing::Clear,
            told => self.not_valid(listed, told),
        }
    }

    #[cold]
    fn not_valid(&self, listed: &Listed, told: Told) -> Standing {
        match told {
            Told::Status(status) if self.0.settings.accepts(status) => Standing::Clear,
            Told::Status(status) => Standing::Refused(Rejection::Status(status)),
            Told::OutOfRange => Standing::Refused(Rejection::NotInStatusList),
            // What was tried just now and failed is not waited for again.
            Told::Nothing if self.0.settings.unavailable == Unavailable::Allow && listed.place.has_failed() => {
                Standing::Clear
            }
            Told::Nothing => Standing::Ask,
        }
    }

    /// Has the list fetched, without waiting for it.
    pub(crate) fn want(&self, listed: &Listed) {
        self.0.keep(&listed.place);
    }

    /// Whether the token may pass, once its list is here: for as long as was set.
    pub(crate) async fn ask(&self, listed: &Listed) -> Result<(), Rejection> {
        let place = &listed.place;
        let mut state = place.state.subscribe();
        let fetched = async {
            // A fetch that was under way may bring what has run out already: the next one does not.
            for _ in 0..2 {
                self.0.keep(place);
                let _ = state.wait_for(|state| !state.fetching).await;
                // After a failure there is nothing to wait for until the task tries again.
                if place.has_failed() || !matches!(self.standing(listed, self.0.settings.clock.now()), Standing::Ask) {
                    break;
                }
            }
        };
        let _ = timeout(self.0.settings.wait, fetched).await;
        match self.standing(listed, self.0.settings.clock.now()) {
            Standing::Clear => Ok(()),
            Standing::Refused(rejection) => Err(rejection),
            Standing::Ask => self.unavailable(),
        }
    }

    /// The same for a token that nobody has verified: no list is fetched for it.
    pub(crate) fn peek(&self, iss: &str, status: StatusClaim<'_>, now: Moment) -> Result<(), Rejection> {
        let Some(StatusRef { uri, idx }) = self.reference(status)? else { return Ok(()) };
        let Some(place) = self.0.find(iss, uri) else { return self.unavailable() };
        match self.standing(&Listed { place, idx }, now) {
            Standing::Clear => Ok(()),
            Standing::Refused(rejection) => Err(rejection),
            Standing::Ask => self.unavailable(),
        }
    }

    fn unavailable(&self) -> Result<(), Rejection> {
        match self.0.settings.unavailable {
            Unavailable::Allow => Ok(()),
            Unavailable::Refuse | Unavailable::LastKnown => Err(Rejection::Unknown(Why::NoStatusList)),
        }
    }
}

impl Shared {
    fn find(&self, iss: &str, uri: &str) -> Option<Arc<Watched>> {
        self.places.load().get(iss)?.get(uri).map(Arc::clone)
    }

    /// The list, remembered from now on; `None` where too many are.
    fn place(&self, iss: &str, uri: &str, pinned: bool) -> Option<Arc<Watched>> {
        if let Some(found) = self.find(iss, uri)
            && (found.pinned || !pinned)
        {
            return Some(found);
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut places = Places::clone(&self.places.load());
        if let Some(found) = places.get(iss).and_then(|of_issuer| of_issuer.get(uri))
            && (found.pinned || !pinned)
        {
            return Some(Arc::clone(found));
        }
        let count = |places: &Places| places.values().map(HashMap::len).sum::<usize>();
        if count(&places) >= self.settings.max_lists {
            // Those that no task keeps have not been of use for long.
            places.values_mut().for_each(|of_issuer| of_issuer.retain(|_, watched| watched.state.borrow().kept));
            places.retain(|_, of_issuer| !of_issuer.is_empty());
        }
        if count(&places) >= self.settings.max_lists {
            #[cfg(feature = "tracing")]
            tracing::error!(most = self.settings.max_lists, "tokens point to more status lists than are kept");
            return None;
        }
        let (place, state, wanted) = (Place::new(iss, uri), watch::Sender::default(), Notify::new());
        let watched = Arc::new(Watched { place, state, wanted, pinned });
        places.entry(iss.into()).or_default().insert(uri.into(), Arc::clone(&watched));
        self.places.store(Arc::new(places));
        Some(watched)
    }
}

impl Shared {
    /// Sees to it that a task keeps the list, and fetches it now unless that has just failed.
    fn keep(self: &Arc<Self>, watched: &Arc<Watched>) {
        let mut begins = false;
        watched.state.send_if_modified(|state| {
            begins = !state.kept;
            let fetches = begins || !(state.fetching || state.failed);
            if fetches {
                *state = State { kept: true, fetching: true, failed: false };
                // It sleeps on where the machine slept, or the clock was set.
                watched.wanted.notify_one();
            }
            fetches
        });
        if begins {
            let (shared, mut alive) = (Arc::downgrade(self), self.alive.subscribe());
            let task = Keeper { shared, watched: Arc::clone(watched) };
            self.runtime.spawn(async move {
                tokio::select! {
                    () = task.run() => {}
                    _ = alive.changed() => {}
                }
            });
        }
    }
}

/// The task that keeps one list.
struct Keeper {
    shared: Weak<Shared>,
    watched: Arc<Watched>,
}

impl Keeper {
    async fn run(self) {
        let mut failures = 0;
        loop {
            let Some(shared) = self.shared.upgrade() else { return };
            self.watched.state.send_modify(|state| state.fetching = true);
            // What was asked for until now is answered by this.
            let _ = self.watched.wanted.notified().now_or_never();
            let pause = match self.refresh(&shared).await {
                Ok(pause) => {
                    failures = 0;
                    shared.fetched.fetch_add(1, Ordering::Relaxed);
                    pause
                }
                Err(_failure) => {
                    failures += 1;
                    shared.failed.fetch_add(1, Ordering::Relaxed);
                    #[cfg(feature = "tracing")]
                    tracing::warn!(error = %_failure, iss = &*self.watched.place.iss, failures, "status list not taken");
                    back_off(failures)
                }
            };
            self.watched.state.send_modify(|state| {
                *state = State { fetching: false, failed: failures > 0, ..*state };
            });
            drop(shared);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.watched.wanted.notified() => {}
            }
            let Some(shared) = self.shared.upgrade() else { return };
            let idle = self.watched.place.idle_minutes(shared.settings.clock.now());
            if !self.watched.pinned && idle > shared.settings.idle.as_secs() / 60 {
                // Under the lock of those who would have it kept.
                self.watched.state.send_modify(|state| {
                    self.watched.place.held.store(None);
                    *state = State::default();
                });
                return;
            }
        }
    }

    /// Fetches the list and puts it in place; after how long it should be done again.
    async fn refresh(&self, shared: &Arc<Shared>) -> Result<Duration, Failure> {
        let uri = &self.watched.place.uri;
        let late = || Failure::Fetch(FetchError::new(uri, FetchErrorKind::Timeout));
        let _permit = shared.fetching.acquire().await.map_err(|_| late())?;
        let fetched = timeout(shared.settings.timeout, shared.fetch.get(uri)).await;
        let token = fetched.map_err(|_| late())?.map_err(Failure::Fetch)?;
        // A signature over megabytes, and their decompression, are not for the threads that serve.
        let (of, watched) = (Arc::clone(shared), Arc::clone(&self.watched));
        let taken = tokio::task::spawn_blocking(move || of.take(&watched, &token)).await;
        taken.unwrap_or(Err(Unreadable::Malformed)).map_err(Failure::Unreadable)
    }
}

impl Shared {
    fn take(&self, watched: &Watched, token: &[u8]) -> Result<Duration, Unreadable> {
        let (settings, place) = (&self.settings, &watched.place);
        let now = settings.clock.now();
        let token = str::from_utf8(token).map_err(|_| Unreadable::Malformed)?;
        let expected = Expected {
            iss: &place.iss,
            uri: &place.uri,
            max_bytes: settings.max_list_bytes,
            now: now.unix(),
            leeway: settings.leeway.as_secs(),
        };
        let read = expected.read(token, &self.verifier)?;
        let before = place.held.load_full();
        if before.is_some_and(|held| read.iat < held.iat) {
            return Err(Unreadable::Older);
        }
        let ttl = read.ttl.map_or(settings.default_ttl, Duration::from_secs).clamp(SHORTEST, settings.max_ttl);
        let bytes = read.list.as_bytes().len() as u64;
        let room = Room::take(&self.used, bytes, settings.max_bytes as u64).ok_or(Unreadable::NoRoom)?;
        let held = Held::new(read.list, read.iat, read.exp, ttl.as_millis() as u64, now, room);
        let lasts = Duration::from_millis(held.lasts_millis());
        place.held.store(Some(Arc::new(held)));
        // Early enough for another try, and not by a whole fleet at once.
        Ok(between(lasts.mul_f64(0.7), lasts.mul_f64(0.85)).max(SHORTEST / 2))
    }
}

const SHORTEST: Duration = Duration::from_secs(1);

/// 1 s after the first failure, doubled with each, up to 60 s; spread.
fn back_off(failures: u32) -> Duration {
    let least = Duration::from_secs(1 << failures.saturating_sub(1).min(5));
    between(least, least * 3 / 2)
}

fn between(least: Duration, most: Duration) -> Duration {
    let fraction = crate::random::u64() as f64 / u64::MAX as f64;
    least + most.saturating_sub(least).mul_f64(fraction)
}

impl fmt::Debug for StatusLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusLists").field("settings", &self.0.settings).field("counts", &self.counts()).finish()
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed").field("idx", &self.idx).finish_non_exhaustive()
    }
}
