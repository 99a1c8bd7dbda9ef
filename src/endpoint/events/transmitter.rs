//! Who sends events, and for whom it may speak.

use std::{fmt, num::NonZeroU32};

use governor::{
    Quota, RateLimiter,
    clock::MonotonicClock,
    state::{InMemoryState, NotKeyed},
};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::token::{ClaimNames, Issuer};

/// A transmitter of security events (SSF 1.0 §2): who signs them, how it shows itself, and whose subjects it may speak of.
#[must_use]
pub struct Transmitter {
    pub(super) issuer: Issuer,
    iss: String,
    subject_issuers: Vec<String>,
    secrets: Vec<[u8; 32]>,
    rate: NonZeroU32,
}

/// What is asked of a transmitter with each event.
pub(super) struct Known {
    /// The first is that of subjects which do not say theirs.
    pub(super) subject_issuers: Vec<String>,
    secrets: Vec<[u8; 32]>,
    limit: RateLimiter<NotKeyed, InMemoryState, MonotonicClock>,
}

impl Transmitter {
    /// The transmitter whose events have this `iss`, with its keys and algorithms. Its audience and claim names do not
    /// count here. It speaks for subjects of its own `iss` until [`Transmitter::subject_issuer`] says otherwise.
    pub fn new(issuer: Issuer) -> Self {
        let iss = issuer.iss().to_owned();
        let rate = const { NonZeroU32::new(5_000).unwrap() };
        Self {
            issuer: issuer.claim_names(ClaimNames::default()),
            iss,
            subject_issuers: Vec::new(),
            secrets: Vec::new(),
            rate,
        }
    }

    /// It speaks for subjects of this issuer; there can be several. The first is that of subjects and sessions that are
    /// given without one. It never speaks for others: not for its own `iss` either, once this was said.
    pub fn subject_issuer(mut self, iss: impl Into<String>) -> Self {
        self.subject_issuers.push(iss.into());
        self
    }

    /// It shows this secret with each push: `Authorization: Bearer …` (RFC 8935 §3). There can be several, for a change of
    /// secrets. Without any, the signature alone vouches, and a stranger can make us verify.
    pub fn push_secret(mut self, secret: impl AsRef<[u8]>) -> Self {
        self.secrets.push(Sha256::digest(secret).into());
        self
    }

    /// How many events a second it may push; more are answered 429, and nobody else has to wait for them. Default: 5,000.
    pub const fn rate(mut self, per_second: NonZeroU32) -> Self {
        self.rate = per_second;
        self
    }

    pub(super) fn known(self) -> (Issuer, String, Known) {
        let Self { issuer, iss, mut subject_issuers, secrets, rate } = self;
        if subject_issuers.is_empty() {
            subject_issuers.push(iss.clone());
        }
        let limit = RateLimiter::direct_with_clock(Quota::per_second(rate), MonotonicClock);
        (issuer, iss, Known { subject_issuers, secrets, limit })
    }
}

impl Known {
    /// Whether this is what it shows.
    pub(super) fn shows(&self, presented: Option<&[u8; 32]>) -> bool {
        if self.secrets.is_empty() {
            return true;
        }
        let Some(presented) = presented else { return false };
        let equal = self.secrets.iter().fold(Choice::from(0), |equal, secret| equal | secret.ct_eq(presented));
        equal.into()
    }

    /// Whether another event may come now.
    pub(super) fn has_room(&self) -> bool {
        self.limit.check().is_ok()
    }

    /// Whether it speaks for subjects of this issuer.
    pub(super) fn speaks_for(&self, iss: &str) -> bool {
        self.subject_issuers.iter().any(|known| known == iss)
    }
}

impl fmt::Debug for Transmitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transmitter")
            .field("issuer", &self.issuer)
            .field("subject_issuers", &self.subject_issuers)
            .field("secrets", &self.secrets.len())
            .field("rate", &self.rate)
            .finish()
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("subject_issuers", &self.subject_issuers).finish_non_exhaustive()
    }
}
