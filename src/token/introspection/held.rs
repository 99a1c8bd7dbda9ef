//! What was told, for as long as it is believed.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Equivalent, Expiry, sync};
use siphasher::sip::SipHasher13;

use crate::{
    time::Moment,
    token::{ScopeKeys, Verified, VerifyError},
};

/// What is known of a token.
pub(super) struct Held {
    pub(super) outcome: Outcome,
    asked: Moment,
    keep: Duration,
}

pub(super) enum Outcome {
    /// It is not acceptable.
    Inactive(VerifyError),
    Active {
        verified: Arc<Verified>,
        /// The keys of its digests.
        digests: Box<[ScopeKeys]>,
    },
}

impl Held {
    /// Believed for this long from the moment of the question.
    pub(super) const fn new(outcome: Outcome, asked: Moment, keep: Duration) -> Self {
        Self { outcome, asked, keep }
    }

    #[inline]
    fn is_believed(&self, now: Moment) -> bool {
        now.since(self.asked) < self.keep
    }
}

/// A bounded cache: found by a keyed hash of the whole token, since strangers choose them all, and taken only where the
/// whole token is the same. It belongs to one guard and one issuer, and may forget whatever it likes.
pub(super) struct Cache(sync::Cache<Token<Box<[u8]>>, Arc<Held>, TokenHash>);

impl Cache {
    pub(super) fn new(max_bytes: u64) -> Self {
        let cache = sync::Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|token: &Token<Box<[u8]>>, held: &Arc<Held>| {
                // About what the identity and moka's own book-keeping take.
                let rest = if matches!(held.outcome, Outcome::Active { .. }) { 1280 } else { 256 };
                u32::try_from(token.0.len() * 2 + rest).unwrap_or(u32::MAX)
            })
            .expire_after(Later);
        Self(cache.build_with_hasher(TokenHash(SipHasher13::new_with_key(&crate::random::bytes()))))
    }

    #[inline]
    pub(super) fn get(&self, token: &[u8], now: Moment) -> Option<Arc<Held>> {
        self.0.get(&Token(token)).filter(|held| held.is_believed(now))
    }

    pub(super) fn insert(&self, token: &str, held: Arc<Held>) {
        if !held.keep.is_zero() {
            self.0.insert(Token(token.as_bytes().into()), held);
        }
    }

    /// Another hand at the same cache, for the task that asks.
    pub(super) fn share(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Token<T>(T);

impl<T: AsRef<[u8]>> Hash for Token<T> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.as_ref());
    }
}

impl PartialEq for Token<Box<[u8]>> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Token<Box<[u8]>> {}

impl Equivalent<Token<Box<[u8]>>> for Token<&[u8]> {
    #[inline]
    fn equivalent(&self, key: &Token<Box<[u8]>>) -> bool {
        *self.0 == *key.0
    }
}

/// Keyed, since tokens are chosen by strangers.
#[derive(Clone)]
struct TokenHash(SipHasher13);

impl BuildHasher for TokenHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

/// Frees an answer some time after it is believed no more, which our own clock says on every hit.
struct Later;

impl Expiry<Token<Box<[u8]>>, Arc<Held>> for Later {
    fn expire_after_create(&self, _: &Token<Box<[u8]>>, held: &Arc<Held>, _: Instant) -> Option<Duration> {
        Some(held.keep.min(Duration::from_secs(24 * 60 * 60)) + Duration::from_secs(60))
    }

    fn expire_after_update(
        &self,
        token: &Token<Box<[u8]>>,
        held: &Arc<Held>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(token, held, now)
    }
}
