use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::{Answer, profile::Ways, signal::Fault};

/// Why an endpoint does not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The path is an endpoint's only once it is normalised: the service behind may see another one than we.
    AmbiguousPath,
    /// Another method than `POST` (RFC 7009 §2.1).
    Method,
    /// Parameters in the URI: credentials must not be there (RFC 6749 §2.3.1), and two parsers could disagree.
    Query,
    /// Not a form in UTF-8, or not JSON.
    MediaType {
        /// Whether JSON was asked for.
        json: bool,
    },
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
    /// The body is not a JSON object that can be read in one way only, or has members that nobody asked for.
    Json,
    /// The client is not who it says it is, says nothing, or in a way that is not accepted.
    Client {
        /// Whether to name Basic in a challenge.
        challenge: bool,
    },
    /// The client lacks the endpoint's scope.
    NoScope {
        /// Whether it authenticated itself with an access token.
        bearer: bool,
    },
    /// The endpoint is switched off.
    Off,
    /// A signed request that is not authentic, not for this endpoint, or not for the first time.
    Assertion,
    /// A signed request whose keys cannot be fetched.
    AssertionKeys,
    /// A signed request of someone who may not send any.
    UnknownCaller,
    /// Public clients, which anyone can claim to be, may not do this.
    PublicClient,
    /// The parameter `token` is missing.
    NoToken,
    /// The token is longer than any that is looked at.
    LongToken,
    /// More tokens than are looked at.
    TooManyTokens,
    /// What was sent is no token of a known issuer (TokenAuthority).
    Undecodable,
    /// The token is another client's, or of an issuer that is not the client's (RFC 7009 §2.1).
    Foreign,
    /// The token does not say whose it is.
    Unowned,
    /// Nothing in the token identifies it, or a session.
    Nameless,
    /// A parameter that names the user is missing.
    NoCriterion,
    /// Nobody is named.
    NoSubject,
    /// Not a subject identifier that is understood (RFC 9493).
    Subject,
    /// Two people are named.
    TwoSubjects,
    /// The user is one of an issuer that is neither known nor mapped to one that is.
    UnmappedIssuer,
    /// Nobody is known by this name, as far as the caller's issuers go.
    UnknownUser,
    /// More than one user is known by this name.
    SeveralUsers,
    /// The users cannot be looked up now.
    DirectoryUnavailable,
    /// The user cannot be logged out now: the draft's word for the same.
    NotLoggedOut,
    /// The token's key is being fetched.
    KeyNotAvailable,
    /// The clients cannot be looked up now.
    ClientsUnavailable,
    /// The revocation was not recorded: nothing is pretended.
    NotRecorded,
    /// Whether the token is revoked cannot be told now.
    CannotTell,
    /// The service behind did not answer in time: what it did is not known.
    NoAnswer,
    /// The certificate that a proxy tells of can be read in no way, or in two.
    #[cfg_attr(not(feature = "mtls"), expect(dead_code, reason = "certificates are not looked at"))]
    Certificate,
    /// The access token that is to authenticate the caller is not good (RFC 6750 §3.1).
    AccessToken,
    /// The access token is good but does not allow this (RFC 6750 §3.1).
    Scope,
    /// A logout token or a security event token that is not acted on.
    #[cfg_attr(not(feature = "signals"), allow(dead_code, reason = "none are taken"))]
    Signal(Fault),
    /// More events than are taken at once.
    #[cfg_attr(not(feature = "signals"), allow(dead_code, reason = "none are taken"))]
    TooFast,
    /// Too many authentications failed of late.
    TooManyFailures {
        /// In seconds.
        retry_after: u32,
    },
}

/// Seconds after which a 503 is worth another try.
pub(super) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

const INVALID_TOKEN: HeaderValue = HeaderValue::from_static("Bearer realm=\"revocation\", error=\"invalid_token\"");
const INSUFFICIENT_SCOPE: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"revocation\", error=\"insufficient_scope\"");

impl Refusal {
    pub(super) fn too_many_failures(retry_after: Duration) -> Self {
        let seconds = retry_after.as_millis().div_ceil(1000);
        Self::TooManyFailures { retry_after: u32::try_from(seconds).unwrap_or(u32::MAX) }
    }

    pub(super) fn answer(self, ways: &Ways) -> Answer {
        let status = self.status(ways);
        let answer = Answer::error(status, self.error(ways), self.description());
        match self {
            Self::Method => answer.with(header::ALLOW, HeaderValue::from_static("POST")),
            Self::Client { challenge } if challenge || ways.always_challenges => {
                answer.with(header::WWW_AUTHENTICATE, ways.basic_challenge.clone())
            }
            // RFC 6750 §3.1.
            Self::Assertion | Self::AccessToken => answer.with(header::WWW_AUTHENTICATE, INVALID_TOKEN),
            Self::Scope | Self::NoScope { bearer: true } => answer.with(header::WWW_AUTHENTICATE, INSUFFICIENT_SCOPE),
            // RFC 9110 §15.5.2.
            Self::NoScope { bearer: false } if status == StatusCode::UNAUTHORIZED => {
                answer.with(header::WWW_AUTHENTICATE, ways.basic_challenge.clone())
            }
            Self::TooManyFailures { retry_after } => answer.with(header::RETRY_AFTER, retry_after.into()),
            Self::TooFast => answer.with(header::RETRY_AFTER, RETRY_AFTER),
            _ if self.is_passing() => answer.with(header::RETRY_AFTER, RETRY_AFTER),
            _ => answer,
        }
    }

    /// As OpenID Connect Back-Channel Logout 1.0 §2.8 has it: what is wrong with a request is 400.
    pub(super) fn answer_to_logout(self, ways: &Ways) -> Answer {
        match self.status(ways) {
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::PAYLOAD_TOO_LARGE => self.answer(ways),
            status if status.is_client_error() => {
                Answer::error(StatusCode::BAD_REQUEST, "invalid_request", self.description())
            }
            _ => self.answer(ways),
        }
    }

    /// As RFC 8935 §2.3 has it: what is wrong with a SET, or its sender, is 400 with a code of its own.
    pub(super) fn answer_to_set(self, ways: &Ways) -> Answer {
        let err = match self {
            Self::Signal(fault) => fault.err(),
            _ => "invalid_request",
        };
        let description = match self {
            Self::MediaType { .. } => "The body must be application/secevent+jwt",
            _ => self.description(),
        };
        let answer = Answer::set_error(self.status(ways), err, description);
        match self {
            Self::Method => answer.with(header::ALLOW, HeaderValue::from_static("POST")),
            Self::TooFast => answer.with(header::RETRY_AFTER, RETRY_AFTER),
            _ if self.is_passing() => answer.with(header::RETRY_AFTER, RETRY_AFTER),
            _ => answer,
        }
    }

    /// Whether the same request may succeed later, with nothing changed but us.
    pub(super) const fn is_passing(self) -> bool {
        matches!(
            self,
            Self::KeyNotAvailable
                | Self::ClientsUnavailable
                | Self::DirectoryUnavailable
                | Self::NotLoggedOut
                | Self::AssertionKeys
                | Self::NotRecorded
                | Self::CannotTell
                | Self::NoAnswer
        )
    }

    const fn status(self, ways: &Ways) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::MediaType { .. } | Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Client { .. } | Self::AccessToken | Self::Assertion => StatusCode::UNAUTHORIZED,
            Self::TooManyFailures { .. } | Self::TooFast => StatusCode::TOO_MANY_REQUESTS,
            Self::NoScope { .. } => ways.no_scope.0,
            Self::Off | Self::UnknownCaller | Self::Scope => StatusCode::FORBIDDEN,
            Self::UnknownUser => StatusCode::NOT_FOUND,
            Self::NotLoggedOut | Self::AssertionKeys => StatusCode::UNPROCESSABLE_ENTITY,
            Self::KeyNotAvailable
            | Self::ClientsUnavailable
            | Self::DirectoryUnavailable
            | Self::NotRecorded
            | Self::CannotTell
            | Self::NoAnswer => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The code of RFC 6749 §5.2, RFC 6750 §3.1 or RFC 7009 §2.2.1; the draft has none for an unknown user.
    const fn error(self, ways: &Ways) -> &'static str {
        match self {
            Self::Client { .. } => "invalid_client",
            Self::NoScope { .. } => ways.no_scope.1,
            Self::Off | Self::UnknownCaller => "access_denied",
            Self::Assertion | Self::AccessToken => "invalid_token",
            Self::Scope => "insufficient_scope",
            Self::PublicClient => "unauthorized_client",
            Self::Nameless | Self::Undecodable => "unsupported_token_type",
            Self::UnknownUser => "not_found",
            Self::TooManyFailures { .. } | Self::TooFast => "temporarily_unavailable",
            _ if self.is_passing() => "temporarily_unavailable",
            _ => "invalid_request",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::AmbiguousPath => "The path is ambiguous",
            Self::Method => "Only POST is accepted",
            Self::Query => "Parameters belong into the body",
            Self::MediaType { json: false } => "The body must be application/x-www-form-urlencoded in UTF-8",
            Self::MediaType { json: true } => "The body must be application/json in UTF-8",
            Self::Encoding => "The body must not be encoded",
            Self::TooLarge => "The body is too large",
            Self::TooSlow => "The body took too long",
            Self::Body => "The body is incomplete",
            Self::Form => "The body is malformed",
            Self::Json => "The body must be a JSON object with the member sub_id and no other",
            Self::Duplicate => "A parameter is repeated",
            Self::SeveralClients => "The request carries more than one client authentication",
            Self::Client { .. } => "Client authentication failed",
            Self::NoScope { .. } => "The client lacks the scope of this endpoint",
            // As Janssen says it.
            Self::Off => "access_denied",
            Self::Assertion => "The signed request is invalid",
            Self::UnknownCaller => "The sender may not use this endpoint",
            Self::PublicClient => "Public clients may not do this",
            Self::NoToken => "The parameter token is required",
            Self::LongToken => "The token is too long",
            Self::TooManyTokens => "The request carries too many tokens",
            // As TokenAuthority says it.
            Self::Undecodable => "",
            // One text: whose the token is concerns nobody else.
            Self::Foreign | Self::Unowned => "The token was not issued to this client",
            Self::Nameless => "Tokens of this type cannot be revoked",
            Self::Certificate => "The client certificate header is malformed",
            Self::AccessToken => "The access token is invalid",
            Self::Scope => "The access token lacks the scope for this",
            Self::TooManyFailures { .. } => "Too many authentications failed; try again later",
            Self::Signal(fault) => fault.description(),
            Self::TooFast => "Too many events at once; try again",
            Self::NoCriterion => "The parameters user_criterion_key and user_criterion_value are required",
            Self::NoSubject => "The member sub_id is required",
            Self::Subject => "The subject identifier is malformed or of a format that is not supported",
            Self::TwoSubjects => "The members sub_id and subject differ",
            Self::UnmappedIssuer => "The issuer of the subject is not known here",
            Self::UnknownUser => "The user is not known here",
            Self::SeveralUsers => "Several users match, and nothing was revoked",
            Self::NotLoggedOut => "The user could not be logged out; try again",
            Self::CannotTell => "Whether the token is revoked cannot be told now; try again",
            Self::NoAnswer => "The server did not answer in time; try again",
            Self::KeyNotAvailable
            | Self::ClientsUnavailable
            | Self::DirectoryUnavailable
            | Self::AssertionKeys
            | Self::NotRecorded => "Nothing was revoked; try again",
        }
    }

    /// The name used in logs and records.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::AmbiguousPath => "ambiguous_path",
            Self::Method => "method",
            Self::Query => "query",
            Self::MediaType { .. } => "media_type",
            Self::Encoding => "content_encoding",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Body => "incomplete_body",
            Self::Form => "malformed_form",
            Self::Duplicate => "duplicate_parameter",
            Self::SeveralClients => "several_client_authentications",
            Self::Client { .. } => "invalid_client",
            Self::Json => "malformed_json",
            Self::NoScope { .. } => "insufficient_scope",
            Self::Off => "switched_off",
            Self::Assertion => "invalid_signed_request",
            Self::AssertionKeys => "signing_keys_not_available",
            Self::UnknownCaller => "unknown_sender",
            Self::PublicClient => "public_client",
            Self::NoToken => "no_token",
            Self::LongToken => "token_too_long",
            Self::TooManyTokens => "too_many_tokens",
            Self::Undecodable => "undecodable_token",
            Self::Foreign => "foreign_token",
            Self::Unowned => "unowned_token",
            Self::Nameless => "nameless_token",
            Self::NoCriterion => "no_user_criterion",
            Self::NoSubject => "no_subject",
            Self::Subject => "malformed_subject",
            Self::TwoSubjects => "two_subjects",
            Self::UnmappedIssuer => "unmapped_issuer",
            Self::UnknownUser => "unknown_user",
            Self::SeveralUsers => "several_users",
            Self::DirectoryUnavailable | Self::NotLoggedOut => "directory_unavailable",
            Self::KeyNotAvailable => "key_not_available",
            Self::ClientsUnavailable => "clients_unavailable",
            Self::NotRecorded => "not_recorded",
            Self::CannotTell => "cannot_tell",
            Self::NoAnswer => "no_answer",
            Self::Certificate => "malformed_certificate",
            Self::AccessToken => "invalid_token",
            Self::Scope => "insufficient_scope",
            Self::TooManyFailures { .. } => "too_many_failures",
            Self::Signal(fault) => fault.as_str(),
            Self::TooFast => "too_many_events",
        }
    }
}
