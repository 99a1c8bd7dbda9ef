use std::fmt;

use super::Identity;

/// Vouches for tokens: checks the signature and whatever else makes a token acceptable here.
pub trait Verifier: Send + Sync + 'static {
    /// The identity behind a token, if it is acceptable at `now` (Unix seconds).
    ///
    /// It must not block: a key that has to be fetched first is [`VerifyError::KeyNotAvailable`].
    ///
    /// # Errors
    ///
    /// Where the token is not acceptable, or cannot be judged now.
    fn verify(&self, token: &str, now: u64) -> Result<Identity, VerifyError>;

    /// The identity behind a token whose time may be over: for revoking it. Everything but `exp` and `nbf` is checked.
    ///
    /// # Errors
    ///
    /// Where the token is not acceptable, or cannot be judged now.
    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError>;

    /// Changes whenever the same token could be judged differently: another key, issuer, audience, algorithm.
    ///
    /// Tokens remembered under an earlier epoch are verified again.
    fn epoch(&self) -> u64;
}

impl<V: Verifier + ?Sized> Verifier for std::sync::Arc<V> {
    fn verify(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        (**self).verify(token, now)
    }

    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        (**self).verify_expired(token, now)
    }

    fn epoch(&self) -> u64 {
        (**self).epoch()
    }
}

/// Why a token was not accepted. Says nothing of the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifyError {
    /// Not a token of a kind that is understood, or a claim of a wrong type.
    Malformed,
    /// From an issuer that is not configured.
    UnknownIssuer,
    /// Signed with an algorithm that the issuer is not allowed.
    Algorithm,
    /// The signature does not fit, or no key of the issuer made it.
    Signature,
    /// For another audience.
    Audience,
    /// Of another type (RFC 9068 §4), or with critical extensions that are not understood (RFC 7515 §4.1.11).
    Type,
    /// Its time is over.
    Expired,
    /// Its time has not come, or it claims to be issued in the future.
    NotYetValid,
    /// It has no `exp`, or one further away than the longest lifetime allowed.
    LivesTooLong,
    /// Its issuer says that it is not active (RFC 7662 §2.2).
    Inactive,
    /// The key may exist but is not here yet: it is being fetched.
    KeyNotAvailable,
}

impl VerifyError {
    /// The name used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_token",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Audience => "audience",
            Self::Type => "type",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::LivesTooLong => "lives_too_long",
            Self::Inactive => "inactive",
            Self::KeyNotAvailable => "key_not_available",
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::UnknownIssuer => "the token's issuer is not configured",
            Self::Algorithm => "the token's algorithm is not allowed for its issuer",
            Self::Signature => "the token's signature does not verify",
            Self::Audience => "the token is for another audience",
            Self::Type => "the token's type is not accepted",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::LivesTooLong => "the token has no expiry, or one too far away",
            Self::Inactive => "the token's issuer says that it is not active",
            Self::KeyNotAvailable => "the token's key is being fetched",
        })
    }
}

impl std::error::Error for VerifyError {}
