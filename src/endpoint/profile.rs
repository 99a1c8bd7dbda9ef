//! Whose ways the endpoints follow.

use http::{HeaderValue, StatusCode};

use super::{EndpointName, SeveralUsers, UnknownUser, Unowned};

/// Whose paths and answers the endpoints have.
///
/// | | [`Standard`](Self::Standard) | [`Janssen`](Self::Janssen) | [`TokenAuthority`](Self::TokenAuthority) |
/// | --- | --- | --- | --- |
/// | token revocation | `/oauth/revoke` | `/jans-auth/restv1/revoke` | `/oauth/revoke` |
/// | session revocation | `/oauth/revoke_session` | `/jans-auth/restv1/revoke_session` | no path of its own |
/// | global token revocation | `/oauth/global-token-revocation` | `/jans-auth/restv1/global-token-revocation` | no path of its own |
/// | logout tokens | `/backchannel_logout` | the same | the same |
/// | security events | `/events` | the same | the same |
/// | introspection | `/oauth/introspect` | `/jans-auth/restv1/introspection` | no path of its own |
/// | scope missing | 403 `insufficient_scope` | 401 `invalid_request` | as the standard |
/// | unknown user, global | 404 | 204 | 404 |
/// | no token at all to revoke | 200 | 200 | 400 `unsupported_token_type` |
/// | `token` of several, by spaces | – | each | – |
/// | `Authorization: AccessToken` | – | as `Bearer` | – |
/// | hint `jti` | ignored | `token` is a `jti` | ignored |
/// | token that names no client | refused | refused | whoever holds it may end it |
/// | endpoint switched off | the service behind is asked | 403 `access_denied` | the service behind is asked |
///
/// The standards are RFC 7009, RFC 6749 §5.2, RFC 6750 and draft-parecki-oauth-global-token-revocation. Where a peer
/// breaks them without its documentation saying so, it is not followed: a 401 for a missing scope has a challenge
/// (RFC 9110 §15.5.2), tokens of other clients are refused (RFC 7009 §2.1), and a wrong hint hides no token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// As the standards say.
    #[default]
    Standard,
    /// As Janssen Server documents.
    Janssen,
    /// As TokenAuthority documents: token revocation only.
    TokenAuthority,
}

/// What a profile says, all in one place.
pub(super) struct Ways {
    pub(super) token_path: &'static str,
    pub(super) session_path: Option<&'static str>,
    pub(super) global_path: Option<&'static str>,
    pub(super) introspection_path: Option<&'static str>,
    pub(super) basic_challenge: HeaderValue,
    /// Whoever is refused is asked for Basic, whatever they tried.
    pub(super) always_challenges: bool,
    pub(super) no_scope: (StatusCode, &'static str),
    /// The global endpoint's answer to users that nobody knows.
    pub(super) unknown_user: UnknownUser,
    /// What is no token of a known issuer is refused, not answered like one.
    pub(super) refuses_undecodable: bool,
    /// The hint `jti` says that `token` holds no token but its `jti`.
    pub(super) takes_jtis: bool,
    /// `Authorization: AccessToken` is another way to write `Bearer`.
    pub(super) takes_access_token_scheme: bool,
    /// `token` may hold several, separated by spaces.
    pub(super) takes_lists: bool,
    /// `sub_id` may name an attribute: `{"format": <attribute>, "id": <value>}`.
    pub(super) takes_attributes: bool,
    /// A session that the directory knows is one client's own, so that it ends as a whole.
    pub(super) sessions_are_of_one_client: bool,
    pub(super) unowned: Unowned,
    /// An endpoint that is switched off answers 403 instead of leaving its path to the service behind.
    pub(super) refuses_when_off: bool,
    pub(super) several_users_global: SeveralUsers,
    pub(super) several_users_session: SeveralUsers,
}

static STANDARD: Ways = Ways {
    token_path: "/oauth/revoke",
    session_path: Some("/oauth/revoke_session"),
    global_path: Some("/oauth/global-token-revocation"),
    introspection_path: Some("/oauth/introspect"),
    basic_challenge: HeaderValue::from_static("Basic realm=\"revocation\""),
    always_challenges: false,
    no_scope: (StatusCode::FORBIDDEN, "insufficient_scope"),
    unknown_user: UnknownUser::NotFound,
    refuses_undecodable: false,
    takes_jtis: false,
    takes_access_token_scheme: false,
    takes_lists: false,
    takes_attributes: false,
    sessions_are_of_one_client: false,
    unowned: Unowned::Refuse,
    refuses_when_off: false,
    several_users_global: SeveralUsers::First,
    several_users_session: SeveralUsers::All,
};

static JANSSEN: Ways = Ways {
    token_path: "/jans-auth/restv1/revoke",
    session_path: Some("/jans-auth/restv1/revoke_session"),
    global_path: Some("/jans-auth/restv1/global-token-revocation"),
    introspection_path: Some("/jans-auth/restv1/introspection"),
    basic_challenge: HeaderValue::from_static("Basic realm=\"jans-auth\""),
    always_challenges: true,
    no_scope: (StatusCode::UNAUTHORIZED, "invalid_request"),
    unknown_user: UnknownUser::NoContent,
    refuses_undecodable: false,
    takes_jtis: true,
    takes_access_token_scheme: true,
    takes_lists: true,
    takes_attributes: true,
    sessions_are_of_one_client: false,
    unowned: Unowned::Refuse,
    refuses_when_off: true,
    several_users_global: SeveralUsers::First,
    several_users_session: SeveralUsers::All,
};

static TOKEN_AUTHORITY: Ways = Ways {
    token_path: "/oauth/revoke",
    session_path: None,
    global_path: None,
    introspection_path: None,
    basic_challenge: HeaderValue::from_static("Basic realm=\"revocation\""),
    always_challenges: false,
    no_scope: (StatusCode::FORBIDDEN, "insufficient_scope"),
    unknown_user: UnknownUser::NotFound,
    refuses_undecodable: true,
    takes_jtis: false,
    takes_access_token_scheme: false,
    takes_lists: false,
    takes_attributes: false,
    sessions_are_of_one_client: true,
    unowned: Unowned::Allow,
    refuses_when_off: false,
    several_users_global: SeveralUsers::First,
    several_users_session: SeveralUsers::All,
};

impl Profile {
    /// The path that it gives an endpoint; `None`: it has no such endpoint.
    pub fn path(self, endpoint: EndpointName) -> Option<&'static str> {
        self.ways().path(endpoint)
    }

    pub(super) fn ways(self) -> &'static Ways {
        match self {
            Self::Standard => &STANDARD,
            Self::Janssen => &JANSSEN,
            Self::TokenAuthority => &TOKEN_AUTHORITY,
        }
    }
}

impl Ways {
    pub(super) fn path(&self, endpoint: EndpointName) -> Option<&'static str> {
        match endpoint {
            EndpointName::Token => Some(self.token_path),
            EndpointName::Session => self.session_path,
            EndpointName::Global => self.global_path,
            EndpointName::BackchannelLogout => Some("/backchannel_logout"),
            EndpointName::Events => Some("/events"),
            EndpointName::Introspection => self.introspection_path,
        }
    }
}
