use http::{HeaderValue, StatusCode, header};

use super::Answer;

/// Why an endpoint does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The path is an endpoint's only once it is normalised: the service behind may see another one than we.
    AmbiguousPath,
    /// Another method than `POST` (RFC 7009 §2.1).
    Method,
    /// Parameters in the URI: credentials must not be there (RFC 6749 §2.3.1), and two parsers could disagree.
    Query,
    /// Not a form in UTF-8.
    MediaType,
    /// A coded body.
    Encoding,
    /// The body is too large.
    TooLarge,
    /// The body took too long.
    TooSlow,
    /// The body broke off.
    Body,
    /// The form can be read in no way, or in two.
    Form,
    /// A parameter came twice (RFC 6749 §3.2).
    Duplicate,
    /// More than one client authentication (RFC 6749 §2.3), or two that contradict each other.
    SeveralClients,
    /// The client is not who it says it is, says nothing, or in a way that is not accepted.
    Client {
        /// Whether to name Basic in a challenge.
        challenge: bool,
    },
    /// The parameter `token` is missing.
    NoToken,
    /// The token is longer than any that is looked at.
    LongToken,
    /// The token is another client's, or of an issuer that is not the client's (RFC 7009 §2.1).
    Foreign,
    /// The token does not say whose it is.
    Unowned,
    /// Nothing in the token identifies it, or a session.
    Nameless,
    /// The token's key is being fetched.
    KeyNotAvailable,
    /// The clients cannot be looked up now.
    ClientsUnavailable,
    /// The revocation was not recorded: nothing is pretended.
    NotRecorded,
    /// The certificate that a proxy tells of can be read in no way, or in two.
    #[cfg_attr(not(feature = "mtls"), expect(dead_code, reason = "certificates are not looked at"))]
    Certificate,
    /// The access token that is to authenticate the caller is not good (RFC 6750 §3.1).
    AccessToken,
    /// The access token is good but does not allow this (RFC 6750 §3.1).
    Scope,
    /// Too many authentications failed of late.
    TooManyFailures {
        /// In seconds.
        retry_after: u32,
    },
}

/// Seconds after which a 503 is worth another try.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

const INVALID_TOKEN: HeaderValue = HeaderValue::from_static("Bearer realm=\"revocation\", error=\"invalid_token\"");
const INSUFFICIENT_SCOPE: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"revocation\", error=\"insufficient_scope\"");

impl Refusal {
    pub(super) fn answer(self) -> Answer {
        let answer = Answer::error(self.status(), self.error(), self.description());
        match self {
            Self::Method => answer.with(header::ALLOW, HeaderValue::from_static("POST")),
            Self::Client { challenge: true } => {
                answer.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"revocation\""))
            }
            Self::AccessToken => answer.with(header::WWW_AUTHENTICATE, INVALID_TOKEN),
            Self::Scope => answer.with(header::WWW_AUTHENTICATE, INSUFFICIENT_SCOPE),
            Self::TooManyFailures { retry_after } => answer.with(header::RETRY_AFTER, retry_after.into()),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => answer.with(header::RETRY_AFTER, RETRY_AFTER),
            _ => answer,
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::MediaType | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Client { .. } | Self::AccessToken => StatusCode::UNAUTHORIZED,
            Self::Scope => StatusCode::FORBIDDEN,
            Self::TooManyFailures { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::KeyNotAvailable | Self::ClientsUnavailable | Self::NotRecorded => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The code of RFC 6749 §5.2 or RFC 7009 §2.2.1.
    const fn error(self) -> &'static str {
        match self {
            Self::Client { .. } => "invalid_client",
            Self::Nameless => "unsupported_token_type",
            Self::KeyNotAvailable | Self::ClientsUnavailable | Self::NotRecorded | Self::TooManyFailures { .. } => {
                "temporarily_unavailable"
            }
            Self::AccessToken => "invalid_token",
            Self::Scope => "insufficient_scope",
            _ => "invalid_request",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::AmbiguousPath => "The path is ambiguous",
            Self::Method => "Only POST is accepted",
            Self::Query => "Parameters belong into the body",
            Self::MediaType => "The body must be application/x-www-form-urlencoded in UTF-8",
            Self::Encoding => "The body must not be encoded",
            Self::TooLarge => "The body is too large",
            Self::TooSlow => "The body took too long",
            Self::Body => "The body is incomplete",
            Self::Form => "The body is malformed",
            Self::Duplicate => "A parameter is repeated",
            Self::SeveralClients => "The request carries more than one client authentication",
            Self::Client { .. } => "Client authentication failed",
            Self::NoToken => "The parameter token is required",
            Self::LongToken => "The token is too long",
            // One text: whose the token is concerns nobody else.
            Self::Foreign | Self::Unowned => "The token was not issued to this client",
            Self::Nameless => "Tokens of this type cannot be revoked",
            Self::KeyNotAvailable | Self::ClientsUnavailable | Self::NotRecorded => "Nothing was revoked; try again",
            Self::Certificate => "The client certificate header is malformed",
            Self::AccessToken => "The access token is invalid",
            Self::Scope => "The access token lacks the scope for this",
            Self::TooManyFailures { .. } => "Too many authentications failed; try again later",
        }
    }

    /// The name used in logs.
    #[cfg(feature = "tracing")]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::AmbiguousPath => "ambiguous_path",
            Self::Method => "method",
            Self::Query => "query",
            Self::MediaType => "media_type",
            Self::Encoding => "content_encoding",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Body => "incomplete_body",
            Self::Form => "malformed_form",
            Self::Duplicate => "duplicate_parameter",
            Self::SeveralClients => "several_client_authentications",
            Self::Client { .. } => "invalid_client",
            Self::NoToken => "no_token",
            Self::LongToken => "token_too_long",
            Self::Foreign => "foreign_token",
            Self::Unowned => "unowned_token",
            Self::Nameless => "nameless_token",
            Self::KeyNotAvailable => "key_not_available",
            Self::ClientsUnavailable => "clients_unavailable",
            Self::NotRecorded => "not_recorded",
            Self::Certificate => "malformed_certificate",
            Self::AccessToken => "invalid_token",
            Self::Scope => "insufficient_scope",
            Self::TooManyFailures { .. } => "too_many_failures",
        }
    }
}
