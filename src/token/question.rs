use std::{fmt, future::Future, iter, pin::Pin, sync::Arc};

use super::{
    Claims, ScopeKeys, VerifiedClaims as _,
    cache::Verified,
    source::{Context, Reported, check_claims, check_times, count_missing},
};
use crate::{reject::Rejection, rollout::Place};

/// A token that cannot be judged by what is at hand: its request waits at a door that can wait, and is refused elsewhere.
#[allow(clippy::large_enum_variant, reason = "it is boxed as a whole")]
pub(crate) enum Question {
    /// Only the backend can tell whether it is revoked.
    Backend(Known),
    #[allow(dead_code, reason = "which features are on decides who asks anybody")]
    /// Somebody else has to be heard first. What is known of the token then is judged as that of every token is.
    Elsewhere {
        /// What they say.
        told: Told,
        /// What is known of it already.
        verified: Option<Arc<Verified>>,
    },
}

/// Resolves to what is known of a token, or to why it is refused whatever the denylist says.
///
/// It ends within a time limit of its own: the guard knows no runtime, and so no timer. What it costs to ask is shared
/// by all who wait for the same, and bounded.
pub(crate) type Told = Pin<Box<dyn Future<Output = Result<Known, Rejection>> + Send>>;

/// What a token is judged by.
pub(crate) struct Known {
    keys: ScopeKeys,
    /// Further keys of an opaque token: one for each of its digests.
    digests: Box<[ScopeKeys]>,
    /// `iat` and `exp`; none of an opaque token without times of its own.
    times: Option<(Option<u64>, Option<u64>)>,
    verified: Option<Arc<Verified>>,
    /// Whether its claims are heard of for the first time.
    is_new: bool,
}

impl Question {
    /// Where its user stands in a roll-out.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Self::Backend(known) => known.place(),
            Self::Elsewhere { verified, .. } => verified.as_ref().and_then(|verified| verified.keys.place()),
        }
    }

    /// What is known of the token without an answer.
    pub(crate) fn into_verified(self) -> Option<Arc<Verified>> {
        match self {
            Self::Backend(known) => known.verified,
            Self::Elsewhere { verified, .. } => verified,
        }
    }
}

impl Known {
    /// By claims that were verified outside.
    pub(crate) fn of_claims(claims: &Claims<'_>, keys: ScopeKeys) -> Self {
        Self { keys, digests: Box::default(), times: times(claims), verified: None, is_new: false }
    }

    /// By what the source has verified.
    pub(crate) fn of(verified: Arc<Verified>) -> Self {
        let times = Some((verified.identity.iat(), verified.identity.exp()));
        Self { keys: verified.keys.clone(), digests: Box::default(), times, verified: Some(verified), is_new: false }
    }

    /// The same of an opaque token, with further keys.
    #[cfg(feature = "introspection")]
    pub(super) fn with_digests(verified: Arc<Verified>, digests: Box<[ScopeKeys]>) -> Self {
        Self { digests, ..Self::of(verified) }
    }

    /// By what its issuer has just told.
    #[cfg(feature = "introspection")]
    pub(super) fn told(verified: Arc<Verified>, digests: Box<[ScopeKeys]>) -> Self {
        Self { is_new: true, ..Self::with_digests(verified, digests) }
    }

    /// All keys that may be revoked.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &ScopeKeys> {
        iter::once(&self.keys).chain(&self.digests)
    }

    /// The policies for claims that are left out, where nobody has looked yet.
    pub(crate) fn check_claims(&self, context: Context<'_>) -> Result<(), Rejection> {
        match &self.verified {
            Some(verified) if self.is_new => {
                let claims = verified.identity.claims();
                count_missing(&claims, Reported::Each, context);
                check_claims(&claims, context.policy)
            }
            _ => Ok(()),
        }
    }

    /// Where its user stands in a roll-out.
    pub(crate) fn place(&self) -> Option<Place> {
        self.keys.place()
    }

    /// Its times, as the doors hold them against the clock on every request.
    pub(crate) fn check_times(&self, context: Context<'_>) -> Result<(), Rejection> {
        match self.times {
            Some((iat, exp)) => Ok(check_times(iat, exp, context)?),
            None => Ok(()),
        }
    }

    pub(crate) fn into_verified(self) -> Option<Arc<Verified>> {
        self.verified
    }
}

/// `iat` and `exp`: opaque tokens have no times of their own.
#[inline]
pub(super) fn times(claims: &Claims<'_>) -> Option<(Option<u64>, Option<u64>)> {
    (claims.opaque.is_none() || claims.exp.is_some()).then_some((claims.iat, claims.exp))
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backend(_) => "Question(backend)",
            Self::Elsewhere { .. } => "Question(elsewhere)",
        })
    }
}
