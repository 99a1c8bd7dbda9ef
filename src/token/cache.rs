//! Tokens that were verified before, so that the same one is not verified on each request.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Equivalent, Expiry, sync::Cache};
use siphasher::sip::SipHasher13;

use super::{
    Identity, ScopeKeys,
    first_level::{self, CacheId},
};
use crate::counts::{Counts, Step};

/// The size of the verified-token cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenCacheConfig {
    /// Bytes of tokens and identities kept. Default: 64 MiB. 0 turns the cache off.
    pub max_bytes: u64,
}

impl Default for TokenCacheConfig {
    fn default() -> Self {
        Self { max_bytes: 64 << 20 }
    }
}

impl TokenCacheConfig {
    /// Keeps up to this many bytes.
    pub const fn max_bytes(max_bytes: u64) -> Self {
        Self { max_bytes }
    }
}

/// One verified token.
#[derive(Clone)]
pub(crate) struct Verified {
    token: Box<[u8]>,
    pub(crate) identity: Identity,
    pub(crate) keys: ScopeKeys,
    /// Where its status is told, where status lists count.
    #[cfg(feature = "status-list")]
    pub(crate) listed: Option<crate::status_list::Listed>,
    /// Whether it has no `jti`, no `sid` or no `iat`.
    pub(crate) lacks_claims: bool,
    /// Of the verifier, read before it judged.
    epoch: u64,
}

impl Verified {
    pub(crate) fn new(token: &str, identity: Identity, keys: ScopeKeys, epoch: u64) -> Self {
        let lacks_claims = identity.jti().is_none() || identity.sid().is_none() || identity.iat().is_none();
        Self {
            token: token.as_bytes().into(),
            identity,
            keys,
            #[cfg(feature = "status-list")]
            listed: None,
            lacks_claims,
            epoch,
        }
    }

    #[inline]
    pub(super) fn token(&self) -> &[u8] {
        &self.token
    }
}

/// A bounded cache of verified tokens: found by a keyed hash, taken only where the whole token is the same.
///
/// It belongs to one verifier and may forget whatever it likes: a miss costs a verification, no more. What a thread
/// finds here a second time it keeps at hand (see [`first_level`]).
pub(crate) struct TokenCache(Option<(CacheId, Tokens)>);

type Tokens = Cache<Token<Box<[u8]>>, Arc<Verified>, TokenHash>;

impl TokenCache {
    pub(crate) fn new(config: TokenCacheConfig) -> Self {
        if config.max_bytes == 0 {
            return Self(None);
        }
        let cache = Cache::builder()
            .max_capacity(config.max_bytes)
            .weigher(|_, verified: &Arc<Verified>| {
                // The token twice, and about what the identity and moka's own book-keeping take.
                u32::try_from(verified.token.len() * 2 + 1024).unwrap_or(u32::MAX)
            })
            .expire_after(UntilExp)
            .build_with_hasher(TokenHash::random());
        Self(Some((CacheId::new(), cache)))
    }

    /// The token, where it was verified under this epoch; where it was found is counted.
    #[inline]
    pub(crate) fn get(&self, token: &[u8], epoch: u64, counts: &Counts) -> Option<Arc<Verified>> {
        let (id, tokens) = self.0.as_ref()?;
        if let Some(verified) = first_level::get(*id, token)
            && verified.epoch == epoch
        {
            counts.step(Step::InThread);
            return Some(verified);
        }
        let verified = Self::get_shared(*id, tokens, token, epoch)?;
        counts.step(Step::Shared);
        Some(verified)
    }

    fn get_shared(id: CacheId, tokens: &Tokens, token: &[u8], epoch: u64) -> Option<Arc<Verified>> {
        let verified = tokens.get(&Token(token)).filter(|verified| verified.epoch == epoch)?;
        Some(first_level::keep(id, &verified).unwrap_or(verified))
    }

    pub(crate) fn insert(&self, verified: Arc<Verified>) {
        if let Some((_, cache)) = &self.0 {
            cache.insert(Token(verified.token.clone()), verified);
        }
    }
}

/// A token as a key: equal only where every byte is, hashed by its end.
struct Token<T>(T);

/// The tail of a signature differs from token to token; hashing all of it would cost five times as much.
const TAIL: usize = 48;

impl<T: AsRef<[u8]>> std::hash::Hash for Token<T> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let token = self.0.as_ref();
        state.write(&token[token.len().saturating_sub(TAIL)..]);
        state.write_usize(token.len());
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

impl TokenHash {
    fn random() -> Self {
        Self(SipHasher13::new_with_key(&crate::random::bytes()))
    }
}

impl BuildHasher for TokenHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

/// Frees a token some time after its `exp`. Whether it is still valid is checked on every hit by our own clock.
struct UntilExp;

impl Expiry<Token<Box<[u8]>>, Arc<Verified>> for UntilExp {
    fn expire_after_create(&self, _: &Token<Box<[u8]>>, verified: &Arc<Verified>, _: Instant) -> Option<Duration> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = verified.identity.exp().unwrap_or(now).saturating_sub(now);
        Some(Duration::from_secs(left.min(24 * 60 * 60) + 60))
    }

    fn expire_after_update(
        &self,
        token: &Token<Box<[u8]>>,
        verified: &Arc<Verified>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(token, verified, now)
    }
}
