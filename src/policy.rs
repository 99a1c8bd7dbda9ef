//! What is done about tokens that leave something open.

use std::time::Duration;

use crate::rollout::{Percent, Rollout, Shadow};

/// A request without any token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoToken {
    /// It is not ours to judge: it passes, and the service behind decides.
    #[default]
    Pass,
    /// It is refused with 401; a CORS preflight passes, since it carries no credentials by design.
    Deny,
}

/// A token without a claim that revocation could go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingClaim {
    /// It passes where its other scopes are clear, and is counted.
    #[default]
    Allow,
    /// It is refused.
    Deny,
}

/// A token that does not say when it was issued.
///
/// How long such a token lives in all cannot be known: only the time that is left of it is held against
/// `max_lifetime`. Where an issuer leaves `iat` out *and* gives long lives, choose [`MissingIat::Deny`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingIat {
    /// It is refused where a cutoff exists for one of its scopes: it may be older.
    #[default]
    DenyIfCutoff,
    /// It is refused.
    Deny,
    /// It passes cutoffs; only what is revoked for ever refuses it.
    Allow,
}

/// A request with a token while the list is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaleRequests {
    /// As the list's [`Staleness`](crate::denylist::Staleness) has it.
    #[default]
    AsConfigured,
    /// It is served from what the node last knew, and counted. The node does not count as enforcing then, and
    /// `Revocations::everywhere` names it.
    Serve,
    /// It is refused.
    Refuse,
}

/// What the guard does about what a token or a request leaves open.
///
/// ```
/// use tower_revocation::policy::{MissingClaim, NoToken, Policy};
///
/// let policy = Policy::default().no_token(NoToken::Deny).missing_jti(MissingClaim::Deny);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Policy {
    pub(crate) no_token: NoToken,
    pub(crate) missing_jti: MissingClaim,
    pub(crate) missing_sid: MissingClaim,
    pub(crate) missing_iat: MissingIat,
    pub(crate) stale: StaleRequests,
    pub(crate) rollout: Rollout,
    /// What refuses nobody this time: only while a request is judged anew.
    pub(crate) forgiven: Shadow,
    pub(crate) retry_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            no_token: NoToken::default(),
            missing_jti: MissingClaim::default(),
            missing_sid: MissingClaim::default(),
            missing_iat: MissingIat::default(),
            stale: StaleRequests::default(),
            rollout: Rollout::COMPLETE,
            forgiven: Shadow::NOTHING,
            retry_after: Duration::from_secs(1),
        }
    }
}

impl Policy {
    /// Requests without a token.
    pub const fn no_token(mut self, no_token: NoToken) -> Self {
        self.no_token = no_token;
        self
    }

    /// Tokens without `jti`.
    pub const fn missing_jti(mut self, missing: MissingClaim) -> Self {
        self.missing_jti = missing;
        self
    }

    /// Tokens without `sid`.
    pub const fn missing_sid(mut self, missing: MissingClaim) -> Self {
        self.missing_sid = missing;
        self
    }

    /// Tokens without `iat`.
    pub const fn missing_iat(mut self, missing: MissingIat) -> Self {
        self.missing_iat = missing;
        self
    }

    /// Requests while the list is stale, where some routes are to differ from others: give each class of routes a layer of
    /// its own.
    pub const fn stale(mut self, stale: StaleRequests) -> Self {
        self.stale = stale;
        self
    }

    /// What refuses nobody, and is only counted, reported and logged: nothing by default. [`Shadow::ALL`] refuses nothing.
    pub const fn shadow(mut self, shadow: Shadow) -> Self {
        self.rollout.shadow = shadow;
        self
    }

    /// For how many of the users the rest is enforced: for everybody by default. The others are in shadow altogether.
    pub const fn percent(mut self, percent: Percent) -> Self {
        self.rollout.percent = percent;
        self
    }

    /// The `Retry-After` of a 503. Whole seconds.
    pub const fn retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = retry_after;
        self
    }
}
