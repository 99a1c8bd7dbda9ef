use crate::{revocation::Lifetimes, time::Moment};

/// Why a token's own times put it out of reach of revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutOfBounds {
    /// Its time is over: the record that refuses it may have left.
    Expired,
    /// It has no `exp`, or lives longer than records are kept.
    LivesTooLong,
    /// It claims to be issued in the future: it would beat every cutoff.
    Future,
    /// A time that readers of JSON cannot agree on.
    Absurd,
}

/// Holds a token's times against what revocation can reach. Whatever verified the token may have let these pass.
///
/// Its whole life counts, not what is left of it: a revocation of its session is kept for `max_lifetime` from then
/// on, and a token that lives longer would come back once the record has gone.
#[inline]
pub(crate) fn check(iat: Option<u64>, exp: Option<u64>, lifetimes: &Lifetimes, now: Moment) -> Result<(), OutOfBounds> {
    const END: u64 = 1 << 53;
    let now = now.unix();
    let exp = exp.ok_or(OutOfBounds::LivesTooLong)?;
    if exp >= END || iat.is_some_and(|iat| iat >= END) {
        return Err(OutOfBounds::Absurd);
    }
    if exp.saturating_add(lifetimes.leeway_secs()) <= now {
        return Err(OutOfBounds::Expired);
    }
    // A token issued at the edge of the skew may live that much longer by our clock.
    let most = lifetimes.max_lifetime_secs().saturating_add(lifetimes.skew_secs());
    if exp > now.saturating_add(most) || iat.is_some_and(|iat| exp.saturating_sub(iat) > most) {
        return Err(OutOfBounds::LivesTooLong);
    }
    if iat.is_some_and(|iat| iat > now.saturating_add(lifetimes.leeway_secs())) {
        return Err(OutOfBounds::Future);
    }
    Ok(())
}
