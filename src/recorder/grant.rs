use serde::{Deserialize, Serialize};

use crate::revocation::Scope;

/// What one authorization grant is known by: the family of all tokens that came of it, however often refreshed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Grant {
    /// Its name here: random, and never that of a session elsewhere.
    pub id: String,
    /// Who issued its tokens.
    pub iss: String,
    /// The login session, where a token names it.
    pub sid: Option<String>,
    /// The user, where a token names one.
    pub sub: Option<String>,
    /// The client.
    pub client_id: Option<String>,
    /// When it began, or its user authenticated, whichever was earlier (Unix seconds).
    pub began: u64,
    /// When the last of its tokens expires (Unix seconds).
    pub expires: u64,
    /// Whether it outlives its session: the scope `offline_access` (OpenID Connect Core 1.0 §11).
    pub offline: bool,
    /// Whether it was revoked. It stays so.
    pub ended: bool,
}

/// A token of a grant. Never the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// What revokes it.
    pub token: Scope,
    /// The digest of the whole token, where `token` is something else: what a client presents is compared with this,
    /// since nobody vouches for its claims.
    pub alias: Option<Scope>,
    /// What it is for.
    pub kind: MemberKind,
    /// When it expires (Unix seconds).
    pub expires: u64,
    /// Whether another refresh token has taken its place.
    pub spent: bool,
    /// What it says of itself.
    #[serde(default)]
    pub says: Said,
}

/// What a token says of itself, as far as revocations of several tokens go by it. An opaque token says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Said {
    /// Its session.
    pub sid: Option<String>,
    /// Its user.
    pub sub: Option<String>,
    /// Its client.
    pub client_id: Option<String>,
    /// When it was issued (Unix seconds).
    pub iat: Option<u64>,
}

/// A grant that was revoked, and its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// The grant.
    pub grant: Grant,
    /// All its tokens that are known.
    pub members: Vec<Member>,
}

impl Ended {
    /// A grant and its tokens.
    pub const fn new(grant: Grant, members: Vec<Member>) -> Self {
        Self { grant, members }
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MemberKind {
    /// Getting at resources.
    Access,
    /// Getting new tokens.
    Refresh,
}
