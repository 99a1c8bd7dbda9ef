use std::{fmt, time::Duration};

/// A time T: every token of a scope that was issued at or before T is dead.
///
/// Whole seconds: a token issued within the second of the cutoff is refused (`floor(iat) <= floor(T)`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cutoff(u64);

impl Cutoff {
    /// Refuses every token of the scope, whenever it was issued.
    pub const FOREVER: Self = Self(u64::MAX);

    /// Refuses tokens issued at or before `secs` (Unix seconds).
    pub const fn at(secs: u64) -> Self {
        Self(secs)
    }

    /// The time in Unix seconds; `None` for [`Cutoff::FOREVER`].
    pub const fn secs(self) -> Option<u64> {
        if self.0 == u64::MAX { None } else { Some(self.0) }
    }

    /// Whether a token issued at `iat` is dead.
    pub const fn covers(self, iat: u64) -> bool {
        iat <= self.0
    }

    /// The number as stored: Unix seconds, [`u64::MAX`] for ever.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Cutoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.secs() {
            Some(secs) => write!(f, "Cutoff({secs})"),
            None => f.write_str("Cutoff(FOREVER)"),
        }
    }
}

/// How long tokens live and how far clocks differ: from these follows how long a revocation is kept.
///
/// All nodes of a fleet must agree; a node that differs from what the backend holds refuses to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetimes {
    /// The largest leeway that any verifier behind this one grants after `exp`.
    pub leeway: Duration,
    /// How far the clocks of issuers and nodes may differ.
    pub skew: Duration,
    /// Tokens that live longer than this are refused.
    pub max_lifetime: Duration,
    /// How long refresh tokens may live; a [`Recorder`](crate::recorder::Recorder) forgets them, and then refuses them
    /// as unknown, after that. What revokes several tokens at once is kept for as long, since a refresh token may be
    /// among them. Never less than `max_lifetime`: a shorter time counts as that, which is the default.
    pub max_refresh_lifetime: Duration,
}

impl Lifetimes {
    /// Sixty seconds of leeway (jsonwebtoken's default), thirty seconds of skew, tokens of at most 24 hours, refresh
    /// tokens included.
    pub const DEFAULT: Self = Self {
        leeway: Duration::from_secs(60),
        skew: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(24 * 60 * 60),
        max_refresh_lifetime: Duration::ZERO,
    };

    /// Sets the leeway.
    #[must_use]
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Sets the skew.
    #[must_use]
    pub const fn skew(mut self, skew: Duration) -> Self {
        self.skew = skew;
        self
    }

    /// Sets the longest life of a token.
    #[must_use]
    pub const fn max_lifetime(mut self, max_lifetime: Duration) -> Self {
        self.max_lifetime = max_lifetime;
        self
    }

    /// Sets the longest life of a refresh token.
    #[must_use]
    pub const fn max_refresh_lifetime(mut self, max_refresh_lifetime: Duration) -> Self {
        self.max_refresh_lifetime = max_refresh_lifetime;
        self
    }

    pub(crate) const fn leeway_secs(&self) -> u64 {
        ceil_secs(self.leeway)
    }

    pub(crate) const fn skew_secs(&self) -> u64 {
        ceil_secs(self.skew)
    }

    pub(crate) const fn max_lifetime_secs(&self) -> u64 {
        ceil_secs(self.max_lifetime)
    }

    /// The longest life of any token.
    pub(crate) const fn max_refresh_lifetime_secs(&self) -> u64 {
        let (access, refresh) = (self.max_lifetime_secs(), ceil_secs(self.max_refresh_lifetime));
        if refresh > access { refresh } else { access }
    }

    /// Until when the record of one token that expires at `exp` must be kept.
    pub const fn retain_token(&self, exp: u64) -> u64 {
        exp.saturating_add(self.leeway_secs()).saturating_add(self.skew_secs())
    }

    /// Until when the record of a scope must be kept whose youngest token was issued at `last_iat`, refresh tokens
    /// included.
    pub const fn retain_scope(&self, last_iat: u64) -> u64 {
        // The token may carry an `iat` that the issuer's clock put up to one skew ahead.
        self.retain_token(last_iat.saturating_add(self.max_refresh_lifetime_secs()).saturating_add(self.skew_secs()))
    }

    /// Until when the record of one token must be kept that was issued at `iat` and does not say when it expires.
    pub const fn retain_token_issued(&self, iat: u64) -> u64 {
        self.retain_token(iat.saturating_add(self.max_lifetime_secs()).saturating_add(self.skew_secs()))
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Rounded up: a shorter time than asked for could forget too early.
const fn ceil_secs(duration: Duration) -> u64 {
    let secs = duration.as_secs();
    if duration.subsec_nanos() > 0 { secs.saturating_add(1) } else { secs }
}
