//! What a guard counts.
//!
//! Refusals are counted together by all threads. What passes must not be: a number that two cores write to costs each of
//! them more than the rest of the check. So each thread has a place of its own (see [`per_thread`](crate::per_thread)),
//! and only where the feature `metrics` asks for it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

#[cfg(feature = "metrics")]
use crate::per_thread::PerThread;
use crate::{denylist::Reason, reject::Rejection, report::Reporter, revocation::ScopeKind};

/// What a guard has counted since it was made.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) refused: ByReason,
    pub(crate) shadowed: ByReason,
    pub(crate) missing: MissingClaims,
    pub(crate) served_stale: AtomicU64,
    #[cfg(feature = "metrics")]
    passing: PerThread,
}

/// How many tokens left out a claim that revocation could go by.
#[derive(Debug, Default)]
pub(crate) struct MissingClaims {
    pub(crate) jti: AtomicU64,
    pub(crate) sid: AtomicU64,
    pub(crate) iat: AtomicU64,
    /// Whose they are goes there.
    pub(crate) report: Option<Arc<Reporter>>,
}

/// What happens on the way of a request that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A token may pass.
    Clear,
    /// There is no token, and none is needed.
    NoToken,
    /// A token was found among the thread's own.
    InThread,
    /// It was found in the cache of all threads.
    Shared,
    /// It was found in neither.
    NotCached,
}

impl Counts {
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, clippy::unused_self, reason = "nobody asks"))]
    #[inline]
    pub(crate) fn step(&self, step: Step) {
        #[cfg(feature = "metrics")]
        self.passing.add(step as usize);
    }

    /// How often each of [`Step`] has happened, in their order.
    #[cfg(feature = "metrics")]
    pub(crate) fn steps(&self) -> [u64; 5] {
        [Step::Clear, Step::NoToken, Step::InThread, Step::Shared, Step::NotCached]
            .map(|step| self.passing.sum(step as usize))
    }

    /// How many tokens had no `jti`, no `sid` and no `iat`.
    pub(crate) fn missing_claims(&self) -> [(&'static str, u64); 3] {
        let MissingClaims { jti, sid, iat, .. } = &self.missing;
        [("jti", jti), ("sid", sid), ("iat", iat)].map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

const KINDS: usize = ScopeKind::ALL.len();

/// Why else than for being revoked requests are refused: the names of [`Rejection::as_str`]. What is not listed counts as
/// the last.
pub(crate) const REASONS: [&str; 33] = [
    "no_issue_time",
    "times",
    "not_ready",
    "stale",
    "no_answer",
    "not_asked",
    "no_status_list",
    "several_credentials",
    "malformed_credential",
    "token_too_long",
    "unknown_scheme",
    "token_in_unread_place",
    "malformed_token",
    "unknown_issuer",
    "algorithm",
    "signature",
    "audience",
    "type",
    "expired",
    "not_yet_valid",
    "lives_too_long",
    "key_not_available",
    "missing_jti",
    "missing_sid",
    "missing_iat",
    "status_invalid",
    "status_suspended",
    "status_other",
    "status_out_of_range",
    "missing_status",
    "not_verified",
    "no_token",
    "other",
];

/// Requests by the reason for which they were, or would have been, refused.
#[derive(Debug)]
pub(crate) struct ByReason([AtomicU64; KINDS + REASONS.len()]);

impl Default for ByReason {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; KINDS + REASONS.len()])
    }
}

impl ByReason {
    pub(crate) fn add(&self, rejection: Rejection) {
        let place = match rejection {
            Rejection::Revoked(Reason::Revoked(kind)) => kind as usize,
            other => {
                let known = REASONS.iter().position(|name| *name == other.as_str());
                KINDS + known.unwrap_or(REASONS.len() - 1)
            }
        };
        self.0[place].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Those whose token is revoked, by the kind of the scope that covers it, in the order of [`ScopeKind::ALL`].
    #[cfg(feature = "metrics")]
    pub(crate) fn revoked(&self) -> [u64; KINDS] {
        std::array::from_fn(|place| self.0[place].load(Ordering::Relaxed))
    }

    /// The others, in the order of [`REASONS`].
    #[cfg(feature = "metrics")]
    pub(crate) fn others(&self) -> [u64; REASONS.len()] {
        std::array::from_fn(|place| self.0[KINDS + place].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        denylist::{OutOfBounds, Why},
        token::{ExtractError, Status, VerifyError},
    };

    #[test]
    fn every_rejection_has_a_place_of_its_own() {
        let kind = ScopeKind::Subject;
        let all = [
            Rejection::Revoked(Reason::NoIssueTime(kind)),
            Rejection::Revoked(Reason::OutOfBounds(OutOfBounds::Absurd)),
            Rejection::Unknown(Why::NotReady),
            Rejection::Unknown(Why::Stale),
            Rejection::Unknown(Why::NoAnswer),
            Rejection::Unknown(Why::NotAsked),
            Rejection::Unknown(Why::NoStatusList),
            Rejection::Credential(ExtractError::Several),
            Rejection::Credential(ExtractError::Malformed),
            Rejection::Credential(ExtractError::TooLong),
            Rejection::Credential(ExtractError::UnknownScheme),
            Rejection::Credential(ExtractError::UnreadPlace),
            Rejection::Token(VerifyError::Malformed),
            Rejection::Token(VerifyError::UnknownIssuer),
            Rejection::Token(VerifyError::Algorithm),
            Rejection::Token(VerifyError::Signature),
            Rejection::Token(VerifyError::Audience),
            Rejection::Token(VerifyError::Type),
            Rejection::Token(VerifyError::Expired),
            Rejection::Token(VerifyError::NotYetValid),
            Rejection::Token(VerifyError::LivesTooLong),
            Rejection::Token(VerifyError::KeyNotAvailable),
            Rejection::MissingJti,
            Rejection::MissingSid,
            Rejection::MissingIat,
            Rejection::Status(Status::INVALID),
            Rejection::Status(Status::SUSPENDED),
            Rejection::Status(Status(3)),
            Rejection::NotInStatusList,
            Rejection::MissingStatus,
            Rejection::NotVerified,
            Rejection::NoToken,
        ];
        let counts = ByReason::default();
        for rejection in all {
            assert!(
                REASONS[..REASONS.len() - 1].contains(&rejection.as_str()),
                "{rejection:?} has no name in the list"
            );
            counts.add(rejection);
        }
        for kind in ScopeKind::ALL {
            counts.add(Rejection::Revoked(Reason::Revoked(kind)));
        }
        let each: Vec<_> = counts.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        // All but "other".
        assert_eq!(each[..each.len() - 1], vec![1; all.len() + KINDS]);
        assert_eq!(counts.sum(), (all.len() + KINDS) as u64);
    }
}
