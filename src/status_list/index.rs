//! Which token has which index of a list that is published here.

use std::{collections::BTreeMap, fmt, sync::Mutex, sync::PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, ready};

use crate::token::Identity;

/// Remembers which token has which index, from before it is issued until it has expired.
///
/// Whoever issues tokens has an index assigned, and puts it into the token with the list's URI; or, where it assigns them
/// itself, has them recorded. Either has to be durable before the token is out: a token that is not known here stays VALID
/// in the list, whatever becomes of it.
pub trait StatusIndex: Send + Sync + 'static {
    /// An index that no other token has, for a token that is about to be issued. Resolves once a crash can no longer
    /// forget it. Indexes come in no order, so that they tell nothing of who else got one.
    ///
    /// # Errors
    ///
    /// Where all are taken, or it could not be stored.
    fn assign<'a>(&'a self, token: &'a Identity) -> BoxFuture<'a, Result<u64, IndexError>>;

    /// Remembers the index that somebody else gave to a token. Resolves as above.
    ///
    /// # Errors
    ///
    /// Where another token has it, it lies beyond the list, or it could not be stored.
    fn record<'a>(&'a self, idx: u64, token: &'a Identity) -> BoxFuture<'a, Result<(), IndexError>>;

    /// Every index that a token has which is still good at `now` (Unix seconds). Others may be forgotten.
    ///
    /// # Errors
    ///
    /// Where they could not be read.
    fn assigned(&self, now: u64) -> BoxFuture<'_, Result<Vec<(u64, Identity)>, IndexError>>;
}

/// An index that was not assigned or not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexError {
    /// Every index is taken by a token that may still be good.
    Full,
    /// Another token has this index.
    Taken,
    /// The list has no such index.
    OutOfRange,
    /// The token never expires, so that its index would never be free again.
    NoExpiry,
    /// The store could not be read or written.
    Store(String),
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("every index of the status list is taken; use a longer list, or another one"),
            Self::Taken => f.write_str("another token has this index of the status list"),
            Self::OutOfRange => f.write_str("the status list has no such index; make it longer"),
            Self::NoExpiry => f.write_str("a token without exp cannot have an index of a status list"),
            Self::Store(what) => write!(f, "the store of status list indexes failed: {what}"),
        }
    }
}

impl std::error::Error for IndexError {}

/// How long after its `exp` a token keeps its index: no verifier takes it any more then.
pub(super) const KEPT: u64 = 60 * 60;

/// How often a free index is looked for by chance. A list that is nine tenths full has one at the first 64 tries all but
/// once in a thousand times.
pub(super) const TRIES: u32 = 64;

/// Indexes in this process's memory: for tests, and for tokens that do not outlive the process either.
pub struct MemoryIndex {
    entries: u64,
    taken: Mutex<BTreeMap<u64, Identity>>,
}

impl MemoryIndex {
    /// Indexes below `entries`.
    pub const fn new(entries: u64) -> Self {
        Self { entries, taken: Mutex::new(BTreeMap::new()) }
    }

    fn put(&self, idx: u64, token: &Identity, now: u64) -> Result<(), IndexError> {
        if idx >= self.entries {
            return Err(IndexError::OutOfRange);
        }
        if token.exp().is_none() {
            return Err(IndexError::NoExpiry);
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get(&idx) {
            Some(other) if other != token && is_kept(other, now) => Err(IndexError::Taken),
            _ => {
                taken.insert(idx, token.clone());
                Ok(())
            }
        }
    }
}

pub(super) fn is_kept(token: &Identity, now: u64) -> bool {
    token.exp().is_none_or(|exp| exp.saturating_add(KEPT) > now)
}

/// An index below `entries`, by chance.
pub(super) fn any(entries: u64) -> u64 {
    ((u128::from(crate::random::u64()) * u128::from(entries)) >> 64) as u64
}

pub(super) fn unix() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl StatusIndex for MemoryIndex {
    fn assign<'a>(&'a self, token: &'a Identity) -> BoxFuture<'a, Result<u64, IndexError>> {
        let now = unix();
        let mut result = Err(IndexError::Full);
        for _ in 0..TRIES {
            let idx = any(self.entries);
            match self.put(idx, token, now) {
                // Its own index of before would do, but one token has one.
                Err(IndexError::Taken) => {}
                put => {
                    result = put.map(|()| idx);
                    break;
                }
            }
        }
        ready(result).boxed()
    }

    fn record<'a>(&'a self, idx: u64, token: &'a Identity) -> BoxFuture<'a, Result<(), IndexError>> {
        ready(self.put(idx, token, unix())).boxed()
    }

    fn assigned(&self, now: u64) -> BoxFuture<'_, Result<Vec<(u64, Identity)>, IndexError>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|_, token| is_kept(token, now));
        ready(Ok(taken.iter().map(|(idx, token)| (*idx, token.clone())).collect())).boxed()
    }
}

impl fmt::Debug for MemoryIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryIndex").field("entries", &self.entries).finish_non_exhaustive()
    }
}
