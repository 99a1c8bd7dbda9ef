//! How much of the policy is enforced already, and for whom: what is in shadow is counted, reported and let through.
//!
//! Two things can be said of a guard, and changed while it runs ([`Guard::roll_out`](crate::Guard::roll_out)):
//!
//! - what is in **shadow** ([`Shadow`]): revocations by the kind of their scope, and each other reason to refuse a request;
//! - for how many of the users the rest is enforced ([`Percent`]). The others are in shadow altogether.
//!
//! A request is judged by the whole policy first. Where that refuses it for something in shadow, it is judged once more
//! without, so that what is not in shadow still refuses it. Requests that pass at once pay nothing for any of this.
//!
//! ```
//! use tower_revocation::{
//!     policy::{MissingClaim, Policy},
//!     revocation::ScopeKind,
//!     rollout::{Percent, Rule, Shadow},
//! };
//!
//! // Revoked tokens are refused for a tenth of the users; nobody is for a token without `jti`, nor for a revoked client.
//! let policy = Policy::default()
//!     .missing_jti(MissingClaim::Deny)
//!     .shadow(Shadow::NOTHING.rule(Rule::MissingJti).scope(ScopeKind::Client))
//!     .percent(Percent::whole(10));
//! # let _ = policy;
//! ```

use std::{fmt, str::FromStr};

use crate::{
    denylist::{OutOfBounds, Reason},
    policy::{MissingClaim, MissingIat, NoToken, Policy},
    reject::Rejection,
    revocation::ScopeKind,
    token::VerifyError,
};

/// A reason to refuse a request other than a revocation of one of its token's scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum Rule {
    /// The token has no `jti`, and the policy asks for one.
    MissingJti = 0,
    /// The token has no `sid`, and the policy asks for one.
    MissingSid = 1,
    /// The token has no `iat`, and the policy asks for one.
    MissingIat = 2,
    /// A cutoff exists for one of the token's scopes, and it has no `iat`.
    NoIssueTime = 3,
    /// There is no token, and the policy asks for one.
    NoToken = 4,
    /// The token lives longer than revocations are kept, or has no `exp`.
    LivesTooLong = 5,
    /// The token is not acceptable otherwise: signature, audience, expiry, form.
    InvalidToken = 6,
    /// No single credential could be read.
    Credential = 7,
    /// Nobody vouches for the token: nothing has verified it, or its session or grant is not known.
    NotVerified = 8,
    /// This node cannot tell: not loaded yet, stale, or somebody who had to be asked did not answer.
    Unknown = 9,
    /// The Token Status List that the token points to says no, or the policy asks for one and it points to none.
    StatusList = 10,
}

impl Rule {
    /// Every rule, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::MissingJti,
        Self::MissingSid,
        Self::MissingIat,
        Self::NoIssueTime,
        Self::NoToken,
        Self::LivesTooLong,
        Self::InvalidToken,
        Self::Credential,
        Self::NotVerified,
        Self::Unknown,
        Self::StatusList,
    ];

    /// The name used in configurations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingJti => "missing_jti",
            Self::MissingSid => "missing_sid",
            Self::MissingIat => "missing_iat",
            Self::NoIssueTime => "no_issue_time",
            Self::NoToken => "no_token",
            Self::LivesTooLong => "lives_too_long",
            Self::InvalidToken => "invalid_token",
            Self::Credential => "credential",
            Self::NotVerified => "not_verified",
            Self::Unknown => "unknown",
            Self::StatusList => "status_list",
        }
    }

    /// Whether a revoked token could pass where this is in shadow.
    const fn lets_revoked_pass(self) -> bool {
        !matches!(self, Self::MissingJti | Self::MissingSid | Self::MissingIat | Self::NoToken)
    }

    /// The rule that such a request breaks; none where it is a revocation alone that refuses it.
    const fn of(rejection: Rejection) -> Option<Self> {
        Some(match rejection {
            Rejection::Revoked(Reason::Revoked(_)) => return None,
            Rejection::Revoked(Reason::NoIssueTime(_)) => Self::NoIssueTime,
            Rejection::Revoked(Reason::OutOfBounds(OutOfBounds::LivesTooLong))
            | Rejection::Token(VerifyError::LivesTooLong) => Self::LivesTooLong,
            Rejection::Revoked(Reason::OutOfBounds(_)) | Rejection::Token(_) => Self::InvalidToken,
            Rejection::Unknown(_) => Self::Unknown,
            Rejection::Credential(_) => Self::Credential,
            Rejection::Status(_) | Rejection::NotInStatusList | Rejection::MissingStatus => Self::StatusList,
            Rejection::MissingJti => Self::MissingJti,
            Rejection::MissingSid => Self::MissingSid,
            Rejection::MissingIat => Self::MissingIat,
            Rejection::NotVerified => Self::NotVerified,
            Rejection::NoToken => Self::NoToken,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of what refuses nobody: kinds of scopes, and rules. What would have been refused is counted and reported.
///
/// A node does not count as enforcing a kind of scope that is in shadow in one of its guards, and
/// `Revocations::everywhere` names it. So it does for every kind where a rule is in shadow without which a revoked token
/// could pass: all but the missing claims and [`Rule::NoToken`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Shadow(u32);

/// The bit of the first rule; below it are those of the scopes.
const RULES: u32 = 16;
/// Every kind of scope.
const SCOPES: u32 = (1 << ScopeKind::ALL.len() as u32) - 1;

impl Shadow {
    /// Nothing: all is enforced.
    pub const NOTHING: Self = Self(0);

    /// Everything: nobody is refused for anything.
    pub const ALL: Self = Self(SCOPES | ((1 << Rule::ALL.len() as u32) - 1) << RULES);

    /// Also revocations of scopes of this kind.
    pub const fn scope(self, kind: ScopeKind) -> Self {
        Self(self.0 | 1 << kind as u32)
    }

    /// Also this rule.
    pub const fn rule(self, rule: Rule) -> Self {
        Self(self.0 | 1 << (RULES + rule as u32))
    }

    /// What is in one of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is in shadow.
    pub const fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// Whether revocations of scopes of this kind are in shadow.
    pub const fn has_scope(self, kind: ScopeKind) -> bool {
        self.0 & 1 << kind as u32 != 0
    }

    /// Whether this rule is.
    pub const fn has_rule(self, rule: Rule) -> bool {
        self.0 & 1 << (RULES + rule as u32) != 0
    }

    /// Whether a request that is refused for this would pass, as far as this goes.
    pub const fn covers(self, rejection: Rejection) -> bool {
        let by_rule = match Rule::of(rejection) {
            Some(rule) => self.has_rule(rule),
            None => false,
        };
        by_rule
            || match rejection {
                Rejection::Revoked(Reason::Revoked(kind) | Reason::NoIssueTime(kind)) => self.has_scope(kind),
                _ => false,
            }
    }

    /// The names of what is in it; `["all"]` of everything.
    pub fn names(self) -> Vec<&'static str> {
        if self == Self::ALL {
            return vec!["all"];
        }
        let scopes = ScopeKind::ALL.into_iter().filter(|kind| self.has_scope(*kind)).map(ScopeKind::as_str);
        scopes.chain(Rule::ALL.into_iter().filter(|rule| self.has_rule(*rule)).map(Rule::as_str)).collect()
    }

    /// A bit for each kind of scope in it.
    pub(crate) const fn scopes(self) -> u32 {
        self.0 & SCOPES
    }

    /// A bit for each kind of scope of which a revoked token may pass.
    const fn not_enforced(self) -> u32 {
        let mut n = 0;
        while n < Rule::ALL.len() {
            if Rule::ALL[n].lets_revoked_pass() && self.has_rule(Rule::ALL[n]) {
                return SCOPES;
            }
            n += 1;
        }
        self.scopes()
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shadow({})", self.names().join(", "))
    }
}

/// One thing by its name: `all`, a kind of scope (`token`, `subject`, …) or a rule (`missing_jti`, …).
impl FromStr for Shadow {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        if name == "all" {
            return Ok(Self::ALL);
        }
        let scope = ScopeKind::ALL.into_iter().find(|kind| kind.as_str() == name).map(|kind| Self::NOTHING.scope(kind));
        let rule = || Rule::ALL.into_iter().find(|rule| rule.as_str() == name).map(|rule| Self::NOTHING.rule(rule));
        scope.or_else(rule).ok_or_else(|| UnknownName(name.to_owned()))
    }
}

/// A name that is none of a kind of scope and none of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownName(String);

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} cannot be in shadow; what can is: all", self.0)?;
        ScopeKind::ALL.iter().try_for_each(|kind| write!(f, ", {kind}"))?;
        Rule::ALL.iter().try_for_each(|rule| write!(f, ", {rule}"))
    }
}

impl std::error::Error for UnknownName {}

/// A share of the users, in hundredths of a percent.
///
/// Whether a token is in it depends on its user (`iss`, `sub`) and on the secret that the nodes of a fleet share
/// ([`ScopeHasher`](crate::revocation::ScopeHasher)): all nodes say the same, always, and who is in a share is in every
/// larger one. A token without `sub` goes by its session (`iss`, `sid`), one without that by itself (`jti`, else its signing
/// input, an opaque one its digest). A request with nothing of that (no token, or one that nobody can read) is in the share
/// of 100 percent only.
///
/// ```
/// use tower_revocation::rollout::Percent;
///
/// assert_eq!(Percent::whole(25), Percent::hundredths(2_500).unwrap());
/// assert_eq!(Percent::hundredths(50).unwrap().to_string(), "0.5%");
/// assert_eq!(Percent::hundredths(10_001), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[must_use]
pub struct Percent(u16);

impl Percent {
    /// Nobody.
    pub const NOBODY: Self = Self(0);

    /// Everybody.
    pub const EVERYBODY: Self = Self(10_000);

    /// So many percent; more than 100 are 100.
    pub const fn whole(percent: u8) -> Self {
        if percent > 100 { Self::EVERYBODY } else { Self(percent as u16 * 100) }
    }

    /// So many hundredths of a percent: 10,000 are everybody. `None` where it is more.
    pub const fn hundredths(hundredths: u16) -> Option<Self> {
        if hundredths > Self::EVERYBODY.0 { None } else { Some(Self(hundredths)) }
    }

    /// The number of hundredths of a percent.
    pub const fn as_hundredths(self) -> u16 {
        self.0
    }

    /// Whether the users of this place are in it.
    const fn includes(self, place: Option<Place>) -> bool {
        match place {
            Some(Place(place)) => place < self.0,
            None => self.0 == Self::EVERYBODY.0,
        }
    }
}

impl Default for Percent {
    fn default() -> Self {
        Self::EVERYBODY
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 100.0)
    }
}

/// Where a user stands among all, below 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u16);

impl Place {
    /// By 124 bits of a keyed hash.
    pub(crate) const fn of(hash: u128) -> Self {
        Self(((hash >> 4) % Percent::EVERYBODY.0 as u128) as u16)
    }
}

/// What of the policy is enforced, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Rollout {
    /// What is in shadow for everybody.
    pub shadow: Shadow,
    /// For how many users the rest is enforced.
    pub percent: Percent,
}

impl Rollout {
    /// All of it, for everybody.
    pub const COMPLETE: Self = Self { shadow: Shadow::NOTHING, percent: Percent::EVERYBODY };

    /// What is in shadow for the users of this place.
    pub(crate) const fn shadow_of(self, place: Option<Place>) -> Shadow {
        if self.percent.includes(place) { self.shadow } else { Shadow::ALL }
    }

    /// Whether some users are in shadow altogether and others are not.
    pub(crate) const fn is_partial(self) -> bool {
        0 < self.percent.0 && self.percent.0 < Percent::EVERYBODY.0
    }

    /// A bit for each kind of scope of which a revoked token may pass.
    pub(crate) const fn not_enforced(self) -> u32 {
        if self.percent.0 < Percent::EVERYBODY.0 { SCOPES } else { self.shadow.not_enforced() }
    }

    /// As one number, to be stored in one write.
    pub(crate) const fn to_bits(self) -> u64 {
        (self.percent.0 as u64) << 32 | self.shadow.0 as u64
    }

    /// The same back.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self { shadow: Shadow(bits as u32 & Shadow::ALL.0), percent: Percent((bits >> 32) as u16) }
    }
}

impl Policy {
    /// The policy without what is in shadow.
    pub(crate) const fn without(mut self, shadow: Shadow) -> Self {
        if shadow.has_rule(Rule::MissingJti) {
            self.missing_jti = MissingClaim::Allow;
        }
        if shadow.has_rule(Rule::MissingSid) {
            self.missing_sid = MissingClaim::Allow;
        }
        if shadow.has_rule(Rule::MissingIat) && matches!(self.missing_iat, MissingIat::Deny) {
            self.missing_iat = MissingIat::DenyIfCutoff;
        }
        if shadow.has_rule(Rule::NoIssueTime) && matches!(self.missing_iat, MissingIat::DenyIfCutoff) {
            self.missing_iat = MissingIat::Allow;
        }
        if shadow.has_rule(Rule::NoToken) {
            self.no_token = NoToken::Pass;
        }
        self.forgiven = shadow;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_what_it_names() {
        let all = ScopeKind::ALL.into_iter().map(|kind| Shadow::NOTHING.scope(kind));
        let all: Vec<_> = all.chain(Rule::ALL.into_iter().map(|rule| Shadow::NOTHING.rule(rule))).collect();
        for one in &all {
            let names = one.names();
            assert_eq!((names.len(), names[0].parse()), (1, Ok(*one)), "{one:?}");
        }
        let together = all.iter().fold(Shadow::NOTHING, |sum, one| sum.and(*one));
        assert_eq!((together, together.names()), (Shadow::ALL, vec!["all"]));
        assert!("Subject".parse::<Shadow>().unwrap_err().to_string().contains("subject"));
    }

    #[test]
    fn a_rollout_survives_its_bits() {
        for percent in [Percent::NOBODY, Percent::whole(1), Percent::EVERYBODY, Percent::whole(200)] {
            for shadow in [Shadow::NOTHING, Shadow::ALL, Shadow::NOTHING.rule(Rule::Unknown).scope(ScopeKind::Issuer)] {
                let rollout = Rollout { shadow, percent };
                assert_eq!(Rollout::from_bits(rollout.to_bits()), rollout);
            }
        }
    }

    /// A node counts as enforcing only what no revoked token can get past.
    #[test]
    fn what_lets_revoked_tokens_pass_is_not_enforced() {
        let complete = |shadow| Rollout { shadow, ..Rollout::COMPLETE }.not_enforced();
        assert_eq!(complete(Shadow::NOTHING), 0);
        assert_eq!(complete(Shadow::NOTHING.rule(Rule::MissingJti).rule(Rule::NoToken)), 0);
        assert_eq!(complete(Shadow::NOTHING.scope(ScopeKind::Subject)), 1 << ScopeKind::Subject as u32);
        for rule in [Rule::Credential, Rule::InvalidToken, Rule::LivesTooLong, Rule::Unknown, Rule::NoIssueTime] {
            assert_eq!(complete(Shadow::NOTHING.rule(rule)), SCOPES, "{rule}");
        }
        assert_eq!(Rollout { percent: Percent::whole(99), ..Rollout::COMPLETE }.not_enforced(), SCOPES);
    }
}
