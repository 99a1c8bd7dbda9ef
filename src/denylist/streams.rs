//! What [`Denylist`] tells the streams that are open.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::Waker,
};

use super::{
    Denylist, Found, Why,
    open::{OpenStreams, PLACES, Prints, Ticket},
};
use crate::{
    policy::MissingIat,
    revocation::{Change, ScopeKey, ScopeKind},
    time::Moment,
    token::ScopeKeys,
};

/// How many shards there are at first, so that threads seldom wait for each other.
const SHARDS: u16 = 16;
/// Room for sixteen million streams.
const MOST_SHARDS: u16 = 256;

/// What is open on this node, and what became of it.
pub(super) struct Streams {
    open: OpenStreams<Stream>,
    ended: AtomicU64,
    would_end: AtomicU64,
    stale: AtomicBool,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: OpenStreams::new(SHARDS, MOST_SHARDS),
            ended: AtomicU64::new(0),
            would_end: AtomicU64::new(0),
            stale: AtomicBool::new(false),
        }
    }
}

/// How a stream is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) missing_iat: MissingIat,
    /// Whether it ends by a revocation that only makes room for the token of a refresh.
    pub(crate) ends_on_refresh: bool,
    /// Whether it ends once the node refuses requests since its list is stale.
    pub(crate) ends_when_stale: bool,
}

/// What an open stream is held against changes by.
struct Stream {
    iat: Option<NotMax>,
    since: Option<NotMax>,
    terms: Terms,
}

/// A time, so that an `Option` of it takes no more room.
#[derive(Clone, Copy)]
struct NotMax(std::num::NonZeroU64);

impl NotMax {
    const fn new(time: u64) -> Option<Self> {
        match std::num::NonZeroU64::new(!time) {
            Some(inverse) => Some(Self(inverse)),
            None => None,
        }
    }

    const fn get(self) -> u64 {
        !self.0.get()
    }
}

impl Stream {
    fn issued(&self, kind: ScopeKind) -> Option<u64> {
        let time = if kind.compares_auth_time() { self.since } else { self.iat };
        time.map(NotMax::get)
    }
}

/// A stream among the open ones.
pub(crate) struct Registered {
    pub(crate) ticket: Ticket,
    /// Only the backend can tell whether it was revoked before.
    pub(crate) unclear: bool,
}

/// What the denylist has told a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    Revoked(ScopeKind),
    Stale(Why),
}

impl Denylist {
    /// How many streams are registered as open.
    pub fn open_streams(&self) -> usize {
        self.streams.open.count()
    }

    /// How many streams were ended since the start, for whatever reason.
    pub fn ended_streams(&self) -> u64 {
        self.streams.ended.load(Ordering::Relaxed)
    }

    /// How many streams shadow mode would have ended since the start.
    pub fn would_end_streams(&self) -> u64 {
        self.streams.would_end.load(Ordering::Relaxed)
    }

    /// A stream was ended, or would have been.
    pub(crate) fn count_ended(&self, shadow: bool) {
        let count = if shadow { &self.streams.would_end } else { &self.streams.ended };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Registers a stream that a token with these keys opened; then looks whether that was revoked meanwhile. `None` where
    /// there is no room for another stream.
    pub(crate) fn register(&self, keys: &ScopeKeys, terms: Terms) -> Option<Registered> {
        let (mut prints, mut numbers): (Prints, _) = (Prints::default(), [0; PLACES]);
        // Digests take what is left by the others, which have one place each.
        let digest = 1 << ScopeKind::OpaqueToken as u32;
        for (_, number) in keys.among(!digest).chain(keys.among(digest)) {
            let mut places = places(ScopeKey::from_u128(number).kind());
            if let Some(place) = places.find(|place| prints[*place].is_none()) {
                (prints[place], numbers[place]) = (Some(print(number)), number);
            }
        }
        let time = |kind| keys.issued(kind).and_then(NotMax::new);
        let stream = Stream { iat: time(ScopeKind::Token), since: time(ScopeKind::Session), terms };
        let ticket = self.streams.open.register(&prints, stream)?;
        // Only now: what is applied from here on is told to the stream, what was applied before is found.
        let unclear = match self.revoked(keys, terms.missing_iat) {
            None => false,
            Some(Found::Unclear) => true,
            Some(Found::Revoked(_)) => {
                let covered = self.streams.open.judge(&ticket, |place, stream| {
                    let key = ScopeKey::from_u128(numbers[place]);
                    let entry = self.find(key)?;
                    Some(Self::entry_covers(&entry, key.kind(), stream.issued(key.kind()), terms.missing_iat).is_some())
                });
                // What was at hand a moment ago may have left.
                covered == 0 && self.tiered.is_some()
            }
        };
        Some(Registered { ticket, unclear })
    }

    pub(crate) fn release(&self, ticket: &Ticket) {
        self.streams.open.release(ticket);
    }

    /// What became of a stream. `waker` is told of the next change of that.
    pub(crate) fn poll_stream(&self, ticket: &Ticket, ends_when_stale: bool, waker: &Waker) -> Told {
        let covered = self.streams.open.poll(ticket, waker);
        if covered != 0 {
            let kind = self.streams.open.print(ticket, covered).map_or(ScopeKind::Issuer, kind_of);
            return Told::Revoked(kind);
        }
        // Set before the streams were woken; asked again, since it may be over.
        if ends_when_stale && self.streams.stale.load(Ordering::Acquire) {
            return self.freshness.doubt(self.now()).map_or(Told::Nothing, Told::Stale);
        }
        Told::Nothing
    }

    /// Tells the streams of these scopes that something changed. Call it once that is visible.
    pub(super) fn tell_streams(&self, changes: &[&Change]) {
        self.streams.open.notify(
            changes,
            |change| (places(change.key().kind()), print(change.key().as_u128())),
            |change, stream| self.judge_stream(change, stream),
        );
    }

    /// Whether a stream is revoked by the scope of this change; `None`: as before.
    fn judge_stream(&self, change: &Change, stream: &Stream) -> Option<bool> {
        let Terms { missing_iat, ends_on_refresh, .. } = stream.terms;
        if let (Change::Revoke(record), false) = (change, ends_on_refresh)
            && record.is_of_refresh()
        {
            return None;
        }
        let key = change.key();
        let issued = stream.issued(key.kind());
        // What is there now, not what the change says: another may have come after it.
        if let Some(entry) = self.find(key) {
            return Some(Self::entry_covers(&entry, key.kind(), issued, missing_iat).is_some());
        }
        match change {
            // In tiered mode not all of the scope may be at hand. Then it ends by what it was told: whoever was revoked and
            // lifted before can come back.
            Change::Revoke(record) => {
                Self::cutoff_covers(record.cutoff(), key.kind(), issued, missing_iat).map(|_| true)
            }
            Change::Lift(_) => None,
        }
    }

    /// Tells streams once the node begins to refuse what it cannot tell, and notes when that is over.
    pub(super) fn tell_streams_of_staleness(&self, now: Moment) {
        let stale = self.freshness.doubt(now) == Some(Why::Stale);
        if self.streams.stale.swap(stale, Ordering::AcqRel) != stale && stale {
            self.streams.open.wake(|stream| stream.terms.ends_when_stale);
        }
    }
}

/// Where a key of this kind may be. A token that nobody can read has no other names, and one for each digest key.
const fn places(kind: ScopeKind) -> Range<usize> {
    match kind {
        ScopeKind::Token | ScopeKind::SigningInput => 0..1,
        ScopeKind::OpaqueToken => 0..PLACES - 1,
        kind => {
            let place = kind as usize - 2;
            place..place + 1
        }
    }
}

/// The part of a key that tells its kind, and 60 bits of its hash.
const fn print(key: u128) -> u64 {
    key as u64
}

fn kind_of(print: u64) -> ScopeKind {
    ScopeKey::from_u128(u128::from(print)).kind()
}
