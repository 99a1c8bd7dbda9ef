//! Why a request is refused, and what the answer says of it.
//!
//! Each refusal has its [`Rejection`] in the extensions of the answer, also where a closure of yours built it:
//!
//! ```
//! use http::{Response, StatusCode};
//! use tower_revocation::reject::Rejection;
//!
//! /// Outside the layer: what to count.
//! fn reason<B>(response: &Response<B>) -> Option<&'static str> {
//!     Some(response.extensions().get::<Rejection>()?.as_str())
//! }
//!
//! let mut refused = Response::new(());
//! refused.extensions_mut().insert(Rejection::MissingJti);
//! assert_eq!(reason(&refused), Some("missing_jti"));
//! assert_eq!((Rejection::MissingJti.status(), Rejection::MissingJti.grpc_status()), (StatusCode::UNAUTHORIZED, 16));
//! ```

use std::fmt;

use http::StatusCode;

use crate::{
    denylist::{Reason, Why},
    revocation::ScopeKind,
    token::{ExtractError, Status, VerifyError},
};

/// Why a request is refused. Put into the extensions of every refusal, so that outer layers can count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rejection {
    /// The token is revoked.
    Revoked(Reason),
    /// This node cannot tell whether it is.
    Unknown(Why),
    /// No single credential could be read.
    Credential(ExtractError),
    /// The token is not acceptable.
    Token(VerifyError),
    /// The token has no `jti`, and the policy asks for one.
    MissingJti,
    /// The token has no `sid`, and the policy asks for one.
    MissingSid,
    /// The token has no `iat`, and the policy asks for one.
    MissingIat,
    /// The status list that the token points to gives it this status.
    Status(Status),
    /// The status list that the token points to ends before its index.
    NotInStatusList,
    /// The token points to no status list, and the policy asks for one.
    MissingStatus,
    /// A token was presented that nothing has verified.
    NotVerified,
    /// There is no token, and the policy asks for one.
    NoToken,
}

impl Rejection {
    /// The HTTP status (RFC 6750 §3.1): 400, 401, or 503 where this node cannot tell.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Unknown(_) | Self::Token(VerifyError::KeyNotAvailable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Credential(ExtractError::UnknownScheme) => StatusCode::UNAUTHORIZED,
            Self::Credential(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The gRPC status code: 16 `UNAUTHENTICATED`, 3 `INVALID_ARGUMENT` or 14 `UNAVAILABLE`.
    pub const fn grpc_status(self) -> u8 {
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => 14,
            StatusCode::BAD_REQUEST => 3,
            _ => 16,
        }
    }

    /// The error code (RFC 6750 §3.1); none where no credential was presented.
    pub const fn error(self) -> Option<&'static str> {
        match self {
            Self::NoToken | Self::Credential(ExtractError::UnknownScheme) => None,
            Self::Unknown(_) | Self::Token(VerifyError::KeyNotAvailable) => Some("temporarily_unavailable"),
            Self::Credential(_) => Some("invalid_request"),
            _ => Some("invalid_token"),
        }
    }

    /// A sentence for the answer. Reveals nothing of the token, and not which scope was revoked.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Revoked(_) | Self::Status(Status::INVALID) => "The access token was revoked",
            Self::Unknown(_) => "Revocation cannot be checked at the moment",
            Self::Credential(ExtractError::Several) => "The request carries more than one credential",
            Self::Credential(ExtractError::TooLong) => "The access token is too long",
            Self::Credential(ExtractError::UnreadPlace) => "The access token was sent in a place that is not accepted",
            Self::Credential(ExtractError::UnknownScheme) | Self::NoToken => "An access token is required",
            Self::Credential(_) => "The credential is malformed",
            Self::Token(VerifyError::Expired) => "The access token has expired",
            Self::Token(VerifyError::KeyNotAvailable) => "The key of the access token is being fetched",
            Self::Token(_)
            | Self::MissingJti
            | Self::MissingSid
            | Self::MissingIat
            | Self::Status(_)
            | Self::NotInStatusList
            | Self::MissingStatus
            | Self::NotVerified => "The access token is invalid",
        }
    }

    /// The kind of scope whose revocation, or cutoff, stands in the way, where one does.
    pub const fn scope(self) -> Option<ScopeKind> {
        match self {
            Self::Revoked(Reason::Revoked(kind) | Reason::NoIssueTime(kind)) => Some(kind),
            _ => None,
        }
    }

    /// The name used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked(reason) => reason.as_str(),
            Self::Unknown(Why::NotReady) => "not_ready",
            Self::Unknown(Why::Stale) => "stale",
            Self::Unknown(Why::NoAnswer) => "no_answer",
            Self::Unknown(Why::NotAsked) => "not_asked",
            Self::Unknown(Why::NoStatusList) => "no_status_list",
            Self::Credential(error) => error.as_str(),
            Self::Token(error) => error.as_str(),
            Self::MissingJti => "missing_jti",
            Self::MissingSid => "missing_sid",
            Self::MissingIat => "missing_iat",
            Self::Status(Status::INVALID) => "status_invalid",
            Self::Status(Status::SUSPENDED) => "status_suspended",
            Self::Status(_) => "status_other",
            Self::NotInStatusList => "status_out_of_range",
            Self::MissingStatus => "missing_status",
            Self::NotVerified => "not_verified",
            Self::NoToken => "no_token",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked(reason) => reason.fmt(f),
            Self::Unknown(why) => why.fmt(f),
            Self::Credential(error) => error.fmt(f),
            Self::Token(error) => error.fmt(f),
            Self::MissingJti => f.write_str("the token has no jti"),
            Self::MissingSid => f.write_str("the token has no sid"),
            Self::MissingIat => f.write_str("the token has no iat"),
            Self::Status(status) => write!(f, "the token's status is {status}"),
            Self::NotInStatusList => f.write_str("the token's index lies beyond its status list"),
            Self::MissingStatus => f.write_str("the token points to no status list"),
            Self::NotVerified => f.write_str("a token was presented, but nothing outside this layer verified it"),
            Self::NoToken => f.write_str("no token"),
        }
    }
}

impl std::error::Error for Rejection {}
