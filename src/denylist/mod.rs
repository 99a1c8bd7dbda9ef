//! This node's replica of all live revocations, and the check against it.
//!
//! A compact filter answers "surely not revoked" for nearly every request; behind it a moka cache holds
//! the exact entries. Nothing live is ever evicted: a full list refuses writes. In [tiered mode](Mode::Tiered) only the
//! filter is complete, and the backend is asked for what is not at hand.

mod atomic;
pub(crate) mod bounds;
mod entries;
mod expiry;
mod filter;
mod freshness;
mod lenience;
mod mode;
#[cfg(feature = "streams")]
mod open;
mod quota;
#[cfg(feature = "streams")]
pub(crate) mod streams;
mod tiered;
mod verdict;
mod visible;

pub(crate) use self::lenience::Lenience;
pub(crate) use self::quota::Batch;
pub(crate) use self::tiered::Answers;
#[cfg(feature = "sync")]
pub(crate) use self::tiered::{Answering, LookUp};
pub use self::{
    bounds::OutOfBounds,
    freshness::Staleness,
    mode::{Mode, Tiered},
    verdict::{Reason, Verdict, Why},
};

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use smallvec::SmallVec;

use self::{
    entries::{Entries, Entry},
    expiry::Expiry,
    filter::Filter,
    quota::Quota,
    visible::Visible,
};
use crate::{
    policy::MissingIat,
    revocation::{Change, Cutoff, Lifetimes, Record, RevocationId, ScopeHasher, ScopeKey, ScopeKind},
    time::{Clock, Moment, SystemClock},
    token::{Identity, ScopeKeys, VerifiedClaims},
};
#[cfg(feature = "sync")]
use crate::{
    revocation::{Detail, ScopeState},
    sync::Snapshot,
};

/// Settings of a [`Denylist`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DenylistConfig {
    /// How many revocations may be held, each about 400 bytes, in tiered mode 3. Default: 1,000,000.
    pub budget: usize,
    /// How many entries revoked by clients themselves one user may add within [`Lifetimes::max_lifetime`], or two of it,
    /// before they widen to that user's tokens at that client. Entries that stay longer, such as those of sessions, are
    /// counted apart, within [`Lifetimes::max_refresh_lifetime`]. Default: 1,000.
    pub subject_quota: u32,
    /// The same for one client. A client that serves everybody needs room for everybody who logs out in that time.
    /// Default: 500,000.
    pub client_quota: u32,
    /// How long tokens live and how far clocks differ.
    pub lifetimes: Lifetimes,
    /// What happens when the list is stale.
    pub staleness: Staleness,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Turns scopes into keys; all nodes of a fleet share its secret.
    pub hasher: ScopeHasher,
    /// How much of the list is kept in memory. Default: all of it.
    pub mode: Mode,
}

impl DenylistConfig {
    /// Settings for a list of its own, with a hasher of its own.
    pub fn new(staleness: Staleness) -> Self {
        Self {
            budget: 1_000_000,
            subject_quota: 1_000,
            client_quota: 500_000,
            lifetimes: Lifetimes::DEFAULT,
            staleness,
            clock: Arc::new(SystemClock),
            hasher: ScopeHasher::random(),
            mode: Mode::Exact,
        }
    }
}

/// The replica of all live revocations that every request is checked against.
///
/// ```
/// use std::time::Duration;
/// use tower_revocation::{
///     denylist::{Denylist, DenylistConfig, Reason, Staleness, Verdict},
///     revocation::{Change, Revocation, Scope, ScopeKind},
///     token::{Claims, Identity},
/// };
///
/// let denylist = Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(10))));
/// let now = denylist.now();
/// denylist.in_step_at(now); // what the replica task says once everything is loaded
///
/// let token = Identity::from_verified(
///     &Claims::new("https://issuer.example/").jti("7f2c").sub("alice").iat(now.unix()).exp(now.unix() + 600),
/// );
/// assert_eq!(denylist.check(&token), Verdict::Allow);
///
/// let record = Revocation::new(Scope::subject("https://issuer.example/", "alice"))
///     .into_record(denylist.hasher(), denylist.lifetimes(), now.unix());
/// denylist.apply(&[Change::Revoke(record)]);
/// assert_eq!(denylist.check(&token), Verdict::Deny(Reason::Revoked(ScopeKind::Subject)));
/// ```
pub struct Denylist {
    /// In tiered mode its filter says "maybe" of every key, and it holds no entries.
    visible: Visible<Entries>,
    tiered: Option<Box<tiered::Tiered>>,
    writer: Mutex<Writer>,
    freshness: freshness::Freshness,
    clock: Arc<dyn Clock>,
    hasher: ScopeHasher,
    lifetimes: Lifetimes,
    budget: usize,
    subject_quota: u32,
    client_quota: u32,
    /// Kept beside the writer's own, for who must not wait for its lock.
    scopes: [AtomicU64; ScopeKind::ALL.len()],
    records: AtomicU64,
    /// Records that are being published.
    reserved: AtomicU64,
    /// Keys of which the filter said "maybe", and nothing was held.
    false_positives: AtomicU64,
    /// What guards let through.
    lenience: Lenience,
    #[cfg(feature = "streams")]
    streams: streams::Streams,
}

struct Writer {
    expiry: Expiry,
    /// A new filter that is being filled; every change goes into it as well.
    building: Option<Arc<Filter>>,
    /// How many keys went into the present filter.
    in_filter: usize,
    quota: Quota,
    /// Of the entries that stay longer than those of tokens.
    long_quota: Quota,
    steadiness: Steadiness,
}

impl Writer {
    const fn quota_of(&mut self, long: bool) -> &mut Quota {
        if long { &mut self.long_quota } else { &mut self.quota }
    }
}

/// What a check found that does not let a token pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is revoked.
    Revoked(Reason),
    /// It may be: only the backend can tell.
    Unclear,
}

/// What would become of a record if it were published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It adds something, and there is room.
    Room,
    /// What is held already covers it.
    Covered,
    /// Whatever it could match has expired.
    Expired,
    /// The token's subject or client holds too many entries.
    OverQuota,
    /// The budget is used up.
    Full,
}

/// Room taken for records that are being published.
#[cfg(feature = "sync")]
pub(crate) struct Reservation<'a> {
    denylist: &'a Denylist,
    records: usize,
}

#[cfg(feature = "sync")]
impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.denylist.reserved.fetch_sub(self.records as u64, Ordering::Relaxed);
    }
}

/// What an entry takes with all of moka's book-keeping, and in the list by expiry: see `docs/performance.md`.
const BYTES_OF_ENTRY: usize = 398;
const BYTES_IN_FILTER: usize = 3;
/// How many records of one scope that say the same are kept side by side.
const MOST_ALIKE: usize = 16;
const MIN_FILTER: usize = 1 << 16;
/// The bits of a generation that count: room for four trillion changes of each of four million lists.
const GENERATIONS: u32 = 42;
/// How many entries are moved under one hold of the lock.
const STRIDE: usize = 4096;

/// Where the generations of a new list begin: no two lists of a process come to the same one, so that what was clear in
/// one says nothing to another. None begins at 0.
fn first_generation() -> u64 {
    static LISTS: AtomicU64 = AtomicU64::new(0);
    (LISTS.fetch_add(1, Ordering::Relaxed) << GENERATIONS) + 1
}

impl Denylist {
    /// An empty list. It is not ready: checks answer [`Verdict::Unknown`] until [`Denylist::in_step_at`].
    pub fn new(config: DenylistConfig) -> Self {
        let DenylistConfig { budget, subject_quota, client_quota, lifetimes, staleness, clock, hasher, mode } = config;
        let now = clock.now();
        let keep = lifetimes.retain_scope(0);
        // moka's deadlines are its own clock's; ours come first by a day and a token's whole life.
        let slack = Duration::from_secs(keep.saturating_add(24 * 60 * 60));
        let tiered = match mode {
            Mode::Exact => None,
            Mode::Tiered(config) => Some(Box::new(tiered::Tiered::new(config, &lifetimes, budget))),
        };
        let filter = Arc::new(match tiered {
            None => Filter::for_entries(MIN_FILTER, crate::random::u64()),
            Some(_) => Filter::of_everything(),
        });
        Self {
            tiered,
            visible: Visible::new(Entries::new(Arc::clone(&clock), slack), filter, first_generation()),
            writer: Mutex::new(Writer {
                expiry: Expiry::default(),
                building: None,
                in_filter: 0,
                quota: Quota::new(lifetimes.retain_token_issued(0), now.unix()),
                long_quota: Quota::new(keep, now.unix()),
                steadiness: Steadiness::new(now),
            }),
            freshness: freshness::Freshness::new(staleness),
            clock,
            hasher,
            lifetimes,
            budget,
            subject_quota,
            client_quota,
            scopes: Default::default(),
            records: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            false_positives: AtomicU64::new(0),
            lenience: Lenience::default(),
            #[cfg(feature = "streams")]
            streams: streams::Streams::default(),
        }
    }

    /// Whether the token may pass, as far as this node knows. Synchronous; allocates nothing.
    ///
    /// A token without `iat` is refused where a cutoff exists for one of its scopes; one that lives longer than
    /// [`Lifetimes::max_lifetime`] is refused, since revocations are not kept that long. An opaque token has no times.
    ///
    /// In [tiered mode](Mode::Tiered) it cannot always tell: see [`Denylist::check_or_ask`].
    pub fn check(&self, identity: &Identity) -> Verdict {
        self.check_at(identity, self.now())
    }

    /// The same; in [tiered mode](Mode::Tiered) the backend is asked where only that can tell.
    pub async fn check_or_ask(&self, identity: &Identity) -> Verdict {
        let verdict = self.check_at(identity, self.now());
        if verdict != Verdict::Unknown(Why::NotAsked) {
            return verdict;
        }
        match self.ask(&identity.claims().keys(&self.hasher), MissingIat::DenyIfCutoff).await {
            Ok(Some(reason)) => Verdict::Deny(reason),
            Err(why) => Verdict::Unknown(why),
            // It may have become stale meanwhile.
            Ok(None) => self.freshness.refuses(self.now()).map_or(Verdict::Allow, Verdict::Unknown),
        }
    }

    fn check_at(&self, identity: &Identity, now: Moment) -> Verdict {
        let claims = identity.claims();
        let timeless = claims.opaque.is_some() && claims.exp.is_none();
        if let (false, Err(out)) = (timeless, bounds::check(claims.iat, claims.exp, &self.lifetimes, now)) {
            return Verdict::Deny(Reason::OutOfBounds(out));
        }
        let check = |keys: &ScopeKeys| self.check_keys(keys, MissingIat::DenyIfCutoff, now);
        match identity.keys(&self.hasher) {
            Some(keys) => check(keys),
            None => check(&claims.keys_among(&self.hasher, self.kinds())),
        }
    }

    #[inline]
    pub(crate) fn check_keys(&self, keys: &ScopeKeys, missing_iat: MissingIat, now: Moment) -> Verdict {
        match self.revoked(keys, missing_iat) {
            Some(Found::Revoked(reason)) => Verdict::Deny(reason),
            // A node that refuses anyway asks nobody.
            Some(Found::Unclear) => Verdict::Unknown(self.freshness.refuses(now).unwrap_or(Why::NotAsked)),
            None => self.freshness.refuses(now).map_or(Verdict::Allow, Verdict::Unknown),
        }
    }

    /// What stands in the way of trusting "not revoked", if anything, whatever the policy is.
    #[inline]
    pub(crate) fn freshness(&self, now: Moment) -> Option<Why> {
        self.freshness.doubt(now)
    }

    /// Whether nothing keeps the list in step any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.freshness.is_abandoned()
    }

    /// The revocation that covers a token. Whatever the clock says, what is held denies.
    #[inline]
    pub(crate) fn revoked(&self, keys: &ScopeKeys, missing_iat: MissingIat) -> Option<Found> {
        // What one policy lets pass for want of a time, another may refuse.
        let lasts = missing_iat != MissingIat::Allow || keys.have_times();
        let remember = |generation| {
            if lasts {
                keys.set_clear(generation);
            }
        };
        self.visible.unless_clear(|now| keys.are_clear(now), || self.look(keys, missing_iat), remember)
    }

    fn look(&self, keys: &ScopeKeys, missing_iat: MissingIat) -> Option<Found> {
        let held = self.visible.kinds();
        if keys.kinds() & held == 0 {
            return None;
        }
        // All probes at once: each may wait for memory, and together they wait once.
        let hits = self.visible.may_hold(keys.among(held));
        if hits == 0 { None } else { self.exactly(keys, hits, missing_iat) }
    }

    /// After a "maybe" for the keys at these places.
    #[cold]
    fn exactly(&self, keys: &ScopeKeys, hits: u32, missing_iat: MissingIat) -> Option<Found> {
        if let Some(tiered) = &self.tiered {
            return self.tiered_verdict(tiered, keys, missing_iat, &Answers::new());
        }
        let find = |key| match self.visible.look_up(key) {
            Some(entry) => Self::covers_token(&entry, keys, key, missing_iat),
            None => {
                self.false_positives.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        places(hits).find_map(|place| find(keys.at(place))).map(Found::Revoked)
    }

    /// Whether what is held for `key` covers the token.
    fn covers_token(entry: &Entry, keys: &ScopeKeys, key: u128, missing_iat: MissingIat) -> Option<Reason> {
        let kind = ScopeKey::from_u128(key).kind();
        Self::entry_covers(entry, kind, keys.issued(kind), missing_iat)
    }

    /// Whether it covers a token of its scope that was issued then.
    fn entry_covers(entry: &Entry, kind: ScopeKind, issued: Option<u64>, missing_iat: MissingIat) -> Option<Reason> {
        Self::cutoff_covers(entry.cutoff()?, kind, issued, missing_iat)
    }

    fn cutoff_covers(cutoff: Cutoff, kind: ScopeKind, issued: Option<u64>, missing_iat: MissingIat) -> Option<Reason> {
        match issued {
            _ if cutoff == Cutoff::FOREVER => Some(Reason::Revoked(kind)),
            Some(issued) => cutoff.covers(issued).then_some(Reason::Revoked(kind)),
            None => (missing_iat != MissingIat::Allow).then_some(Reason::NoIssueTime(kind)),
        }
    }

    /// Moves with every change. Read before a look, it tells later whether another look could find something else.
    #[cfg(feature = "status-list")]
    pub(crate) fn generation(&self) -> u64 {
        self.visible.generation()
    }

    /// A bit for each kind of scope that is held at all.
    #[inline]
    pub(crate) fn kinds(&self) -> u32 {
        self.visible.kinds()
    }

    /// Merges changes in. When it returns, every check that starts later sees them, and the streams that they end have
    /// been told.
    ///
    /// Order and duplicates do not matter. The budget does not stop it: what the backend holds is enforced.
    pub fn apply(&self, changes: &[Change]) {
        for changes in changes.chunks(STRIDE) {
            let mut writer = self.lock();
            let mut changed = SmallVec::<[&Change; 8]>::new();
            changed.extend(changes.iter().filter(|change| self.apply_one(&mut writer, change)));
            self.visible.announce();
            drop(writer);
            #[cfg(feature = "streams")]
            self.tell_streams(&changed);
        }
    }

    /// Whether that changed anything.
    fn apply_one(&self, writer: &mut Writer, change: &Change) -> bool {
        let key = change.key();
        let number = key.as_u128();
        if let Some(tiered) = &self.tiered {
            self.apply_tiered(tiered, writer, change);
            return true;
        }
        let before = self.visible.find(number);
        let Some(after) = Entry::merged(before.as_ref(), change) else { return false };
        let kind = key.kind();
        let (held, until) = before.as_ref().map_or((0, None), |entry| (entry.records(), Some(entry.remember_until())));

        // Counters rise before the entry can be seen.
        self.records.fetch_add(after.records().saturating_sub(held) as u64, Ordering::Relaxed);
        if before.is_none() {
            self.scopes[kind as usize].fetch_add(1, Ordering::Relaxed);
            writer.in_filter += 1;
        }
        if until.is_none_or(|until| Expiry::minute(until) < Expiry::minute(after.remember_until())) {
            writer.expiry.add(number, after.remember_until());
        }
        if let Change::Revoke(record) = change {
            let long = self.stays_long(record);
            record.owners().iter().for_each(|owner| writer.quota_of(long).add(owner.as_u128()));
        }
        self.visible.put(number, 1 << kind as u32, after, writer.building.as_deref());
        true
    }

    /// Whether it stays longer than the record of a token.
    fn stays_long(&self, record: &Record) -> bool {
        record.retain_until() > self.lifetimes.retain_token_issued(self.now().unix())
    }

    /// Counts a record that is admitted in with those of its batch.
    #[cfg(feature = "sync")]
    pub(crate) fn add(&self, record: &Record, batch: &mut Batch) {
        batch.add(record, self.stays_long(record));
    }

    /// Whether what is held says all that `record` says.
    #[cfg(feature = "sync")]
    pub(crate) fn covers(&self, record: &Record) -> bool {
        self.find(record.key()).is_some_and(|entry| entry.state().covers(record))
    }

    /// What would become of `record` if it were published now, together with `batch`. `quota` says whether its owners'
    /// quotas count.
    #[cfg_attr(not(feature = "sync"), expect(dead_code, reason = "only the handle publishes"))]
    pub(crate) fn admit(&self, record: &Record, quota: bool, batch: &Batch) -> Admission {
        let now = self.now();
        let self_service = !record.owners().is_empty();
        let room = self.room(self_service);
        {
            let mut writer = self.lock();
            // A clock that has just jumped is no reason to store nothing.
            if record.retain_until() < now.unix() && writer.steadiness.check(now, &self.lifetimes) {
                return Admission::Expired;
            }
            // Who answers for others has every decision stored, so that a lift takes back the ones that it names and
            // no others; up to a number, so that repeating one does not fill the list.
            let entry = self.find(record.key());
            if entry
                .is_some_and(|entry| (self_service || entry.records() >= MOST_ALIKE) && entry.state().covers(record))
            {
                return Admission::Covered;
            }
            let long = self.stays_long(record);
            let over = |owner: &ScopeKey| {
                let most = if owner.kind() == ScopeKind::Client { self.client_quota } else { self.subject_quota };
                let held = writer.quota_of(long).count(owner.as_u128());
                held.saturating_add(batch.count(*owner, long)) >= most
            };
            if quota && record.owners().iter().any(over) {
                return Admission::OverQuota;
            }
        }
        if self.records() + self.reserved.load(Ordering::Relaxed) as usize + batch.records() >= room {
            Admission::Full
        } else {
            Admission::Room
        }
    }

    /// How many records there may be; the last fifth is kept for those who answer for more than their own tokens.
    const fn room(&self, self_service: bool) -> usize {
        if self_service { self.budget - self.budget / 5 } else { self.budget }
    }

    /// Counts records as held that are on their way, for as long as the reservation lives. `self_service`: every one
    /// of them has an owner.
    #[cfg(feature = "sync")]
    pub(crate) fn reserve(&self, records: usize, self_service: bool) -> Option<Reservation<'_>> {
        let reserved = self.reserved.fetch_add(records as u64, Ordering::Relaxed) as usize + records;
        let reservation = Reservation { denylist: self, records };
        (self.records() + reserved <= self.room(self_service)).then_some(reservation)
    }

    /// The revocations of a scope that this node holds, by id: what a lift names. In [tiered mode](Mode::Tiered) only
    /// where they are at hand.
    pub fn revocations(&self, key: ScopeKey) -> Vec<RevocationId> {
        self.find(key).map(|entry| entry.state().ids().collect()).unwrap_or_default()
    }

    /// Everything that the backend held at `moment` has been applied: the node is in step as of then.
    pub fn in_step_at(&self, moment: Moment) {
        self.freshness.in_step_at(moment);
    }

    /// What is applied now comes from a copy: until the backend is heard, nothing of it is let go.
    #[cfg(feature = "sync")]
    pub(crate) fn begins_from_copy(&self) {
        self.freshness.begins_from_copy();
    }

    /// The same of a moment that lies so far back.
    #[cfg(feature = "sync")]
    pub(crate) fn in_step_before(&self, now: Moment, age: Duration) {
        self.freshness.in_step_before(now, age);
    }

    /// Whether nothing was ever applied, and it was never in step.
    #[cfg(feature = "sync")]
    pub(crate) fn is_untouched(&self) -> bool {
        self.records() == 0 && self.visible.generation() & !(u64::MAX << GENERATIONS) == 1 && self.staleness().is_none()
    }

    /// Changes with every change and every moment at which the node was in step.
    #[cfg(feature = "sync")]
    pub(crate) fn mark(&self) -> (u64, (u64, u64)) {
        (self.visible.generation(), self.freshness.mark())
    }

    /// How long ago the node was last known to be in step with the backend; `None`: never yet.
    pub fn staleness(&self) -> Option<Duration> {
        self.freshness.age(self.now())
    }

    /// What keeps the node from being ready: not loaded yet, or stale, whatever the policy for requests is.
    pub fn not_ready(&self) -> Option<Why> {
        self.freshness.doubt(self.now())
    }

    /// Whether this node goes on serving once it is stale, on some route.
    #[cfg_attr(not(feature = "sync"), expect(dead_code, reason = "only the handle announces"))]
    pub(crate) fn serves_when_stale(&self) -> bool {
        self.freshness.staleness().serves() || self.lenience.serves_when_stale()
    }

    /// What its guards let through.
    pub(crate) const fn lenience(&self) -> &Lenience {
        &self.lenience
    }

    /// The limit of staleness and what follows.
    pub fn staleness_policy(&self) -> Staleness {
        self.freshness.staleness()
    }

    /// The present moment, by the list's clock.
    #[inline]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// The same, not a few milliseconds behind (see [`Clock::exact`]).
    pub fn exact_now(&self) -> Moment {
        self.clock.exact()
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Makes the keys of this list.
    pub const fn hasher(&self) -> &ScopeHasher {
        &self.hasher
    }

    /// How long tokens live and how far clocks differ.
    pub const fn lifetimes(&self) -> &Lifetimes {
        &self.lifetimes
    }

    /// Whether applying this would change nothing, or it no longer counts.
    #[cfg(feature = "sync")]
    pub(crate) fn holds(&self, change: &Change) -> bool {
        let now = self.now().unix();
        if let Some(tiered) = &self.tiered {
            return change.retain_until() < now || tiered.holds(change, now);
        }
        change.retain_until() < now
            || Entry::merged(self.visible.find(change.key().as_u128()).as_ref(), change).is_none()
    }

    /// What is held and `snapshot` does not have, without the readable part, which is not kept here. Holds writers up for
    /// as long as it takes to look at every entry: call it off the async threads.
    #[cfg(feature = "sync")]
    pub(crate) fn held_beyond(&self, snapshot: &Snapshot) -> Vec<Change> {
        let now = self.now().unix();
        let detail = Detail { reason: Some("written_back".to_owned()), revoked_at: now, ..Detail::default() };
        let _writer = self.lock();
        let changes = |(key, entry): (u128, Entry)| entry.state().changes(ScopeKey::from_u128(key), now, &detail);
        match &self.tiered {
            None => self.visible.map().iter().flat_map(changes).filter(|change| !snapshot.holds(change)).collect(),
            Some(tiered) => tiered.iter().flat_map(changes).filter(|change| !snapshot.holds(change)).collect(),
        }
    }

    /// Hands over everything that is held, as changes without their readable part, in any order and some perhaps twice.
    /// Of what changes meanwhile, the old or the new. Keeps writers waiting for moments only.
    #[cfg(feature = "sync")]
    pub(crate) fn each_held<E>(&self, mut take: impl FnMut(&Change) -> Result<(), E>) -> Result<(), E> {
        let detail = Detail::default();
        let minutes = self.lock().expiry.minutes();
        for minute in &minutes {
            let mut from = 0;
            loop {
                let keys = self.lock().expiry.part(*minute, from, STRIDE).to_vec();
                for key in &keys {
                    let Some(entry) = self.visible.find(*key) else { continue };
                    // What was extended comes with its latest minute, unless that is so new that it does not come at all.
                    let latest = Expiry::minute(entry.remember_until());
                    if latest > *minute && minutes.binary_search(&latest).is_ok() {
                        continue;
                    }
                    // Nothing is left out by a clock that may be wrong.
                    entry.state().changes(ScopeKey::from_u128(*key), 0, &detail).iter().try_for_each(&mut take)?;
                }
                from += keys.len();
                if keys.len() < STRIDE {
                    break;
                }
            }
        }
        Ok(())
    }

    /// How many records may be held.
    pub const fn budget(&self) -> usize {
        self.budget
    }

    /// How many records are held, tombstones included.
    pub fn records(&self) -> usize {
        self.records.load(Ordering::Relaxed) as usize
    }

    /// How many scopes of each kind are held.
    pub fn scopes(&self) -> impl Iterator<Item = (ScopeKind, usize)> + '_ {
        ScopeKind::ALL.into_iter().zip(&self.scopes).map(|(kind, count)| (kind, count.load(Ordering::Relaxed) as usize))
    }

    /// About how many bytes what is held of each kind takes, its part of the filter included. In
    /// [tiered mode](Mode::Tiered) that is the filter alone; what is at hand besides is bounded by its settings.
    pub fn bytes(&self) -> impl Iterator<Item = (ScopeKind, usize)> + '_ {
        let each = if self.tiered.is_some() { BYTES_IN_FILTER } else { BYTES_OF_ENTRY + BYTES_IN_FILTER };
        self.scopes().map(move |(kind, scopes)| (kind, scopes * each))
    }

    /// How often the filter said "maybe" of a key of which nothing was held, since the start: the check took the longer
    /// way for nothing.
    pub fn false_positives(&self) -> u64 {
        self.false_positives.load(Ordering::Relaxed)
    }

    /// Whether [`Denylist::maintain`] should run before its next turn, since the filter is past its size.
    pub fn wants_maintenance(&self) -> bool {
        self.tiered.is_none() && self.lock().in_filter > self.visible.filter_capacity()
    }

    /// Whether the wall clock has kept step with the monotonic one up to `now`. While it has not, nothing is forgotten.
    pub fn is_steady(&self, now: Moment) -> bool {
        self.lock().steadiness.check(now, &self.lifetimes)
    }

    /// Nothing keeps the list in step any more: from now on it counts as stale, whatever the policy is.
    #[cfg(feature = "sync")]
    pub(crate) fn abandon(&self) {
        self.freshness.abandon();
        #[cfg(feature = "streams")]
        self.tell_streams_of_staleness(self.now());
    }

    /// Whether a scope holds so many records that the next cutoff had better reach a little ahead.
    #[cfg(feature = "sync")]
    pub(crate) fn is_crowded(&self, key: ScopeKey) -> bool {
        self.find(key).is_some_and(|entry| entry.records() >= MOST_ALIKE)
    }

    /// Lets expired entries go and renews the filter. Takes up to seconds where millions of entries are held;
    /// checks never wait for it, writers for milliseconds. Call it every few seconds, off the async threads.
    pub fn maintain(&self) {
        let now = self.now();
        #[cfg(feature = "streams")]
        self.tell_streams_of_staleness(now);
        let steady = {
            let mut writer = self.lock();
            writer.quota.turn(now.unix());
            writer.long_quota.turn(now.unix());
            writer.steadiness.check(now, &self.lifetimes)
        };
        if let Some(tiered) = &self.tiered {
            return self.maintain_tiered(tiered, steady, now);
        }
        // A copy is not sent again: what a clock that was wrong at the start had let go would be missed for good.
        if steady && !self.freshness.is_from_copy() {
            while self.expire(now) {}
        }
        self.renew_filter();
        self.visible.map().tidy();
    }

    /// Removes one stride of entries whose time is over; whether there may be more.
    fn expire(&self, now: Moment) -> bool {
        let margin = self.lifetimes.skew_secs();
        let before = now.unix().saturating_sub(margin);
        let mut writer = self.lock();
        let due = writer.expiry.due(before, STRIDE);
        for key in &due {
            let Some(entry) = self.visible.find(*key) else { continue };
            let kind = ScopeKey::from_u128(*key).kind();
            if entry.remember_until() < before {
                self.visible.remove(*key);
                self.records.fetch_sub(entry.records() as u64, Ordering::Relaxed);
                if self.scopes[kind as usize].fetch_sub(1, Ordering::Relaxed) == 1 {
                    self.visible.clear_kinds(1 << kind as u32);
                }
            } else if let Entry::Several { state, .. } = &entry {
                // Extended since, and due again later; only its old tombstones may go now.
                let mut state = (**state).clone();
                state.forget_lifted(before);
                let dropped = entry.records() - state.len();
                self.visible.put(*key, 1 << kind as u32, Entry::from_state(state), writer.building.as_deref());
                self.records.fetch_sub(dropped as u64, Ordering::Relaxed);
            }
        }
        !due.is_empty()
    }

    /// Builds a new filter where the present one is too small, too large or full of bits of what has left.
    fn renew_filter(&self) {
        let held = |writer: &Writer| -> usize {
            debug_assert!(writer.in_filter >= self.scopes().map(|(_, count)| count).sum());
            self.scopes().map(|(_, count)| count).sum()
        };
        let (filter, minutes) = {
            let mut writer = self.lock();
            let (capacity, held) = (self.visible.filter_capacity(), held(&writer));
            let too_large = capacity > MIN_FILTER && held < capacity / 8;
            if writer.building.is_some() || (writer.in_filter <= capacity && !too_large) {
                return;
            }
            // From here on every change also goes into the new filter: what the walk below has passed cannot be missed.
            let filter = Arc::new(Filter::for_entries((held + held / 2).max(MIN_FILTER), crate::random::u64()));
            writer.building = Some(Arc::clone(&filter));
            (filter, writer.expiry.minutes())
        };
        for minute in minutes {
            let mut from = 0;
            loop {
                let writer = self.lock();
                let part = writer.expiry.part(minute, from, STRIDE);
                part.iter().for_each(|key| filter.insert(*key));
                from += part.len();
                if part.len() < STRIDE {
                    break;
                }
            }
        }
        let mut writer = self.lock();
        writer.in_filter = held(&writer);
        writer.building = None;
        self.visible.replace_filter(filter);
    }

    /// All that is known of a scope, where that is at hand.
    #[cfg(feature = "sync")]
    pub(crate) fn state(&self, key: ScopeKey) -> Option<ScopeState> {
        self.find(key).map(|entry| entry.state())
    }

    fn find(&self, key: ScopeKey) -> Option<Entry> {
        match &self.tiered {
            None => self.visible.find(key.as_u128()),
            Some(tiered) => tiered.find(key.as_u128()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // Every step leaves the list fit to check against, so a panic elsewhere does not stop revocation.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Denylist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denylist")
            .field("records", &self.records())
            .field("budget", &self.budget)
            .field("staleness", &self.staleness())
            .finish_non_exhaustive()
    }
}

/// Watches whether the wall clock runs in step with the monotonic one: nothing is forgotten by a clock that jumped.
struct Steadiness {
    anchor: Moment,
    hold_until: u64,
}

impl Steadiness {
    const fn new(now: Moment) -> Self {
        Self { anchor: now, hold_until: 0 }
    }

    /// Whether entries may be removed by the wall clock now.
    fn check(&mut self, now: Moment, lifetimes: &Lifetimes) -> bool {
        let wall = i128::from(now.wall) - i128::from(self.anchor.wall);
        let monotonic = i128::from(now.monotonic) - i128::from(self.anchor.monotonic);
        if (wall - monotonic).unsigned_abs() > u128::from(lifetimes.skew_secs()) * 1000 {
            // Whichever clock is wrong: by then every token that a held entry can match has expired.
            self.anchor = now;
            self.hold_until = now.monotonic.saturating_add(lifetimes.retain_scope(0).saturating_mul(1000));
        }
        now.monotonic >= self.hold_until
    }
}

/// The places that have a bit.
fn places(mut hits: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let place = hits.trailing_zeros();
        hits &= hits.checked_sub(1)?;
        Some(place)
    })
}

#[cfg(test)]
mod tests;
