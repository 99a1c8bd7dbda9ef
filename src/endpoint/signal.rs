//! What is wrong with a signal: a logout token, or a security event token (SET).
#![cfg_attr(not(feature = "signals"), allow(dead_code, reason = "none are taken"))]

use super::refusal::Refusal;
#[cfg(feature = "jwt")]
use crate::token::{Malformed, VerifyError};

/// Why a signal is not acted on. Nothing of one that is not verified is ever recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// There is none.
    Missing,
    /// It can be read in no way, or in two.
    Malformed,
    /// Another kind of JWT.
    Type,
    /// Signed with a key or an algorithm that is not the sender's.
    Key,
    /// By nobody who may send any.
    Issuer,
    /// For somebody else.
    Audience,
    /// Its time is over, or has not come.
    Time,
    /// It lives, or claims to have been made, longer than is borne.
    Lifetime,
    /// A claim that must be there is not.
    Claim,
    /// A claim that must not be there is.
    Prohibited,
    /// It does not tell the one event.
    Events,
    /// It was used before.
    Replayed,
    /// The subject can be read in no way, or in two.
    Subject,
    /// The subject is of a kind that no scope here stands for.
    SubjectKind,
    /// The subject belongs to somebody for whom the sender does not speak.
    Foreign,
    /// The sender did not show who it is.
    Unauthenticated,
}

impl Fault {
    /// The code of RFC 8935 §2.4.
    pub(super) const fn err(self) -> &'static str {
        match self {
            Self::Key => "invalid_key",
            Self::Issuer => "invalid_issuer",
            Self::Audience => "invalid_audience",
            Self::Unauthenticated => "authentication_failed",
            Self::Foreign => "access_denied",
            _ => "invalid_request",
        }
    }

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Missing => "There is no token",
            Self::Malformed => "The token is malformed",
            Self::Type => "The token is of another type",
            Self::Key => "The token was not signed with a key of its issuer",
            Self::Issuer => "The issuer is not known here",
            Self::Audience => "The token is for somebody else",
            Self::Time => "The token is not for the present time",
            Self::Lifetime => "The token lives too long",
            Self::Claim => "A claim is missing",
            Self::Prohibited => "The token has a claim that it must not have",
            Self::Events => "The member events is malformed, or does not have the one event",
            Self::Replayed => "The token was used before",
            Self::Subject => "The subject is missing or malformed",
            Self::SubjectKind => "Subjects of this kind are not supported",
            Self::Foreign => "The sender may not speak for this subject",
            Self::Unauthenticated => "The transmitter is not authenticated",
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "no_token",
            Self::Malformed => "malformed_token",
            Self::Type => "token_type",
            Self::Key => "token_key",
            Self::Issuer => "unknown_issuer",
            Self::Audience => "audience",
            Self::Time => "token_time",
            Self::Lifetime => "token_lifetime",
            Self::Claim => "missing_claim",
            Self::Prohibited => "prohibited_claim",
            Self::Events => "events",
            Self::Replayed => "replayed",
            Self::Subject => "malformed_subject",
            Self::SubjectKind => "unsupported_subject",
            Self::Foreign => "foreign_subject",
            Self::Unauthenticated => "unauthenticated_transmitter",
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Signal(fault)
    }
}

#[cfg(feature = "jwt")]
impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What a signal comes to that was not accepted.
#[cfg(feature = "jwt")]
pub(super) const fn not_accepted(error: VerifyError) -> Refusal {
    Refusal::Signal(match error {
        // It should come again.
        VerifyError::KeyNotAvailable => return Refusal::KeyNotAvailable,
        VerifyError::Malformed => Fault::Malformed,
        VerifyError::UnknownIssuer => Fault::Issuer,
        VerifyError::Algorithm | VerifyError::Signature => Fault::Key,
        VerifyError::Audience => Fault::Audience,
        VerifyError::Type => Fault::Type,
        VerifyError::Expired | VerifyError::NotYetValid => Fault::Time,
        // No issuer is asked about a signal.
        VerifyError::LivesTooLong | VerifyError::Inactive => Fault::Claim,
    })
}
