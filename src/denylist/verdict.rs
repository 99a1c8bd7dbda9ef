use std::fmt;

use super::OutOfBounds;
use crate::revocation::ScopeKind;

/// What the denylist says of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Nothing that this node knows revokes it.
    Allow,
    /// It is revoked.
    Deny(Reason),
    /// This node cannot tell; what follows is policy.
    Unknown(Why),
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A revocation of a scope of this kind covers it.
    Revoked(ScopeKind),
    /// A cutoff exists for one of its scopes and it does not say when it was issued.
    NoIssueTime(ScopeKind),
    /// Its own times put it out of reach of revocation.
    OutOfBounds(OutOfBounds),
}

impl Reason {
    /// The name used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked(_) => "revoked",
            Self::NoIssueTime(_) => "no_issue_time",
            Self::OutOfBounds(OutOfBounds::Expired) => "expired",
            Self::OutOfBounds(OutOfBounds::LivesTooLong) => "lives_too_long",
            Self::OutOfBounds(_) => "times",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked(kind) => write!(f, "revoked by {kind}"),
            Self::NoIssueTime(kind) => write!(f, "no iat, and a cutoff exists for its {kind}"),
            Self::OutOfBounds(OutOfBounds::Expired) => f.write_str("expired"),
            Self::OutOfBounds(OutOfBounds::LivesTooLong) => f.write_str("lives longer than revocations are kept"),
            Self::OutOfBounds(_) => f.write_str("times out of range"),
        }
    }
}

/// Why a node cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The first snapshot is not in yet.
    NotReady,
    /// The node was last known to be in step with the backend too long ago.
    Stale,
    /// A store that had to be asked for this request did not answer in time.
    NoAnswer,
    /// Only the backend can tell, and it was not asked: by a door that cannot wait, for a token that nobody has verified,
    /// or since this user has asked too often.
    NotAsked,
    /// The status list that the token points to cannot be had, or cannot be trusted.
    NoStatusList,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "the denylist is not loaded yet",
            Self::Stale => "the denylist is stale",
            Self::NoAnswer => "a store that had to be asked did not answer",
            Self::NotAsked => "a store would have to be asked, and was not",
            Self::NoStatusList => "the token's status list is not to be had",
        })
    }
}
