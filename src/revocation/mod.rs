//! What a revocation is: the scope it is about, the cutoff it sets, and how two of them merge.
//!
//! ```
//! use tower_revocation::revocation::{Cutoff, Revocation, Scope, ScopeKind};
//!
//! // One session, for ever; and what a user was issued until a moment (Unix seconds), whatever comes later.
//! let session = Revocation::new(Scope::session("https://issuer.example/", "s-1")).reason("laptop stolen");
//! let user = Revocation::new(Scope::subject("https://issuer.example/", "alice")).cutoff(Cutoff::at(1_800_000_000));
//! assert_eq!((session.scope().kind(), user.scope().kind()), (ScopeKind::Session, ScopeKind::Subject));
//! // A login within that second is refused, one second later it is not.
//! let cutoff = Cutoff::at(1_800_000_000);
//! assert_eq!((cutoff.covers(1_800_000_000), cutoff.covers(1_800_000_001)), (true, false));
//! ```

mod change;
mod cutoff;
mod scope;
mod state;

pub use self::{
    change::{Change, Detail, Lift, REFRESHED, Record, Unreadable},
    cutoff::{Cutoff, Lifetimes},
    scope::{Scope, ScopeHasher, ScopeKey, ScopeKind},
    state::ScopeState,
};

use std::fmt;

#[cfg(feature = "endpoint")]
use crate::token::Identity;
use crate::token::{Claims, VerifiedClaims};

/// Names one revocation, so that a lift can say exactly what it lifts.
///
/// Random, 64 bits, unique within its scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevocationId(u64);

impl RevocationId {
    /// A fresh random id.
    pub fn random() -> Self {
        Self(crate::random::u64())
    }

    /// The id with this number, for backends that store it.
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    /// The number behind the id.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for RevocationId {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(s, 16).map(Self)
    }
}

/// A decision to refuse every token of a [`Scope`] that was issued up to a [`Cutoff`].
///
/// What is left open (`cutoff`, `retain_until`, the id and the time) is filled in when it is recorded:
/// tokens and sessions die for ever, subjects, clients and issuers up to now, and the record is kept
/// until the last token that it can match has expired everywhere.
///
/// ```
/// use tower_revocation::revocation::{Revocation, Scope};
///
/// let stolen = Revocation::new(Scope::subject("https://issuer.example/", "alice"))
///     .reason("stolen laptop")
///     .revoked_by("helpdesk");
/// assert_eq!(stolen.scope(), &Scope::subject("https://issuer.example/", "alice"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    scope: Scope,
    cutoff: Option<Cutoff>,
    token_exp: Option<u64>,
    token_iat: Option<u64>,
    owner: Option<Owner>,
    reason: Option<String>,
    revoked_by: Option<String>,
    ban: bool,
    implied: bool,
    /// `None`: a random one.
    id: Option<RevocationId>,
}

/// Whose token a self-service revocation is about; its entries count against these two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) iss: String,
    pub(crate) sub: Option<String>,
    pub(crate) client_id: Option<String>,
    /// Whether the token itself names the client, so that a cutoff of the pair reaches it.
    pub(crate) names_client: bool,
}

impl Revocation {
    /// Revokes `scope`.
    pub const fn new(scope: Scope) -> Self {
        Self {
            scope,
            cutoff: None,
            token_exp: None,
            token_iat: None,
            owner: None,
            reason: None,
            revoked_by: None,
            ban: false,
            implied: false,
            id: None,
        }
    }

    /// Logs out the session of `identity`: the session where the token names one (`sid`), else that token alone.
    ///
    /// `None` where the identity names neither, so that nothing would be revoked.
    pub fn session_of(identity: &impl VerifiedClaims) -> Option<Self> {
        let claims = identity.claims();
        match claims.sid {
            Some(sid) => Some(Self::new(Scope::session(claims.iss, sid)).with_times_of(&claims)),
            None => Self::token_of(identity),
        }
    }

    /// Revokes the one token of `identity`; `None` where nothing identifies it.
    pub fn token_of(identity: &impl VerifiedClaims) -> Option<Self> {
        let claims = identity.claims();
        Some(Self::new(claims.token_scope()?).with_times_of(&claims))
    }

    /// Logs the user of `identity` out everywhere: every token of (`iss`, `sub`) issued until now.
    ///
    /// `None` where the identity has no `sub`.
    pub fn subject_of(identity: &impl VerifiedClaims) -> Option<Self> {
        let claims = identity.claims();
        Some(Self::new(Scope::subject(claims.iss, claims.sub?)).with_times_of(&claims))
    }

    /// Makes sure that the token with these claims is covered and that the record outlives it: the issuer's clock may
    /// be ahead of ours.
    pub(crate) const fn with_times_of(mut self, claims: &Claims<'_>) -> Self {
        self.token_exp = claims.exp;
        self.token_iat = claims.iat;
        self
    }

    /// A ban: refuses every token of `scope`, also those issued later, until it is lifted.
    pub const fn ban(scope: Scope) -> Self {
        let mut revocation = Self::new(scope);
        revocation.ban = true;
        revocation
    }

    /// Refuses tokens issued at or before `cutoff` instead of the scope's usual cutoff.
    #[must_use]
    pub const fn cutoff(mut self, cutoff: Cutoff) -> Self {
        self.cutoff = Some(cutoff);
        self
    }

    /// Says when the token expires (`exp`, Unix seconds), so that its record can leave then.
    #[must_use]
    pub const fn token_expires(mut self, exp: u64) -> Self {
        self.token_exp = Some(exp);
        self
    }

    /// Says why, for the audit trail.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says who asked for it, for the audit trail.
    #[must_use]
    pub fn revoked_by(mut self, who: impl Into<String>) -> Self {
        self.revoked_by = Some(who.into());
        self
    }

    /// Counts the entry against the quotas of the token's own subject and client.
    #[cfg(feature = "endpoint")]
    pub(crate) fn owned_by(mut self, identity: &Identity, client_id: &str) -> Self {
        self.owner = Some(Owner {
            iss: identity.iss().to_owned(),
            sub: identity.sub().map(str::to_owned),
            client_id: Some(identity.client_id().unwrap_or(client_id).to_owned()),
            names_client: identity.client_id().is_some(),
        });
        self
    }

    /// Counts the entry of a token that names nobody against the quota of the client that revokes it.
    #[cfg(feature = "endpoint")]
    pub(crate) fn owned_by_client(mut self, client_id: &str) -> Self {
        self.owner =
            Some(Owner { iss: String::new(), sub: None, client_id: Some(client_id.to_owned()), names_client: false });
        self
    }

    /// Counts the entry against the quotas of this owner.
    #[cfg(feature = "endpoint")]
    pub(crate) fn owner_is(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Says when the token was issued (`iat`, Unix seconds), as far as that is known.
    #[cfg(feature = "endpoint")]
    pub(crate) const fn token_issued(mut self, iat: Option<u64>) -> Self {
        self.token_iat = iat;
        self
    }

    /// Says that it only follows from another decision: what is covered already is not stored again.
    #[cfg(feature = "endpoint")]
    pub(crate) const fn implied(mut self) -> Self {
        self.implied = true;
        self
    }

    /// Gives it this id, so that the same decision again is no other record of its scope.
    #[cfg(feature = "signals")]
    pub(crate) const fn named(mut self, id: RevocationId) -> Self {
        self.id = Some(id);
        self
    }

    #[cfg_attr(not(feature = "sync"), expect(dead_code, reason = "only the handle records"))]
    pub(crate) const fn is_implied(&self) -> bool {
        self.implied
    }

    /// When its token expires (Unix seconds), where that was said.
    #[cfg(feature = "endpoint")]
    pub(crate) const fn token_exp(&self) -> Option<u64> {
        self.token_exp
    }

    /// What it is about.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    #[cfg_attr(not(feature = "sync"), expect(dead_code, reason = "only the handle records"))]
    pub(crate) const fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// What a full quota turns the decision into: all tokens of its owner at that client, up to now. It takes a token that
    /// names both, else the cutoff would not reach it.
    #[cfg_attr(not(feature = "sync"), expect(dead_code, reason = "only the handle records"))]
    pub(crate) fn widened(&self) -> Option<Self> {
        let owner = self.owner.as_ref().filter(|owner| owner.names_client)?;
        let scope = Scope::subject_client(&owner.iss, owner.sub.as_ref()?, owner.client_id.as_ref()?);
        Some(Self { scope, cutoff: None, ..self.clone() })
    }

    /// Turns the decision into the record that is stored, filling in what was left open.
    ///
    /// `now` is in Unix seconds. A finite cutoff is capped at `now` plus the skew or the leeway, whichever is more: a
    /// later one would lock the scope out for good, and no token that is accepted was issued after it.
    pub fn into_record(self, hasher: &ScopeHasher, lifetimes: &Lifetimes, now: u64) -> Record {
        let kind = self.scope.kind();
        let cutoff = self.cutoff_at(lifetimes, now);
        let retain_until = match self.token_exp {
            _ if self.ban => u64::MAX,
            // A token's record may leave with the token; every other scope can match a token issued a moment ago.
            Some(exp) if kind.is_one_token() => {
                // A second longer than what a refresh leaves behind: that does not end streams, so that it must not count
                // as saying what a revocation says, which would not be stored then.
                lifetimes.retain_token(exp).saturating_add(u64::from(self.reason.as_deref() != Some(REFRESHED)))
            }
            None if kind.is_one_token() => lifetimes.retain_token_issued(now),
            exp => {
                let scope = lifetimes.retain_scope(cutoff.secs().filter(|at| *at > now).unwrap_or(now));
                exp.map_or(scope, |exp| scope.max(lifetimes.retain_token(exp)))
            }
        };
        Record::new(
            hasher.key(&self.scope),
            self.id.unwrap_or_else(RevocationId::random),
            cutoff,
            retain_until,
            &Detail { scope: Some(self.scope), reason: self.reason, revoked_by: self.revoked_by, revoked_at: now },
        )
    }

    /// The cutoff that it has when it is recorded at `now` (Unix seconds).
    pub(crate) fn cutoff_at(&self, lifetimes: &Lifetimes, now: u64) -> Cutoff {
        let latest = now.saturating_add(lifetimes.skew_secs().max(lifetimes.leeway_secs()));
        match self.cutoff {
            _ if self.ban => Cutoff::FOREVER,
            Some(Cutoff::FOREVER) => Cutoff::FOREVER,
            Some(asked) => asked.min(Cutoff::at(latest)),
            None if self.scope.kind().dies_for_ever() => Cutoff::FOREVER,
            None => Cutoff::at(self.token_iat.unwrap_or(now).clamp(now, latest)),
        }
    }
}
