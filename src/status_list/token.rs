//! Status List Tokens: signed lists (draft-ietf-oauth-status-list §5.1).

use std::fmt;

use super::{Bits, StatusList};
use crate::token::{CompactJws, JwtVerifier, Malformed, Members, VerifyError};

/// The type of the JWT (`typ`), and, after `application/`, its media type.
pub(super) const TYP: &str = "statuslist+jwt";

/// A status list that was not taken. Says nothing of the tokens in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreadable {
    /// It is no JWT, or a claim is of a wrong type, missing or there twice.
    Malformed,
    /// Its issuer did not sign it as a status list.
    Unverified(VerifyError),
    /// It names another issuer than the tokens that point to it.
    Issuer,
    /// Its `sub` is not the URI that it was fetched from.
    Subject,
    /// Its time is over.
    Expired,
    /// It claims to be issued in the future.
    Future,
    /// It is older than the one that is held: going back would make revoked tokens valid.
    Older,
    /// `bits` is none of 1, 2, 4 and 8.
    Bits,
    /// `lst` is no zlib stream in base64url.
    List,
    /// It is larger than allowed, as it came or once decompressed.
    TooLarge,
    /// There is no room for another list.
    NoRoom,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is no well-formed status list token",
            Self::Unverified(error) => return write!(f, "it is not signed as one by the tokens' issuer ({error})"),
            Self::Issuer => "its iss is not the tokens' issuer",
            Self::Subject => "its sub is not the URI that it came from",
            Self::Expired => "it has expired",
            Self::Future => "its iat lies in the future",
            Self::Older => "it is older than the one that is held",
            Self::Bits => "its bits are none of 1, 2, 4 and 8",
            Self::List => "its lst cannot be decompressed",
            Self::TooLarge => "it is larger than allowed; raise the limit for a list if it is in order",
            Self::NoRoom => "there is no room for it; raise the limit for all lists",
        })
    }
}

impl std::error::Error for Unreadable {}

impl From<Malformed> for Unreadable {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A list that its issuer signed.
#[derive(Debug)]
pub(crate) struct StatusListToken {
    pub(crate) list: StatusList,
    /// When it was issued (Unix seconds).
    pub(crate) iat: u64,
    /// When it ends (Unix seconds).
    pub(crate) exp: Option<u64>,
    /// After how many seconds a newer one should be fetched.
    pub(crate) ttl: Option<u64>,
}

/// What a list has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    /// The issuer of the tokens that point to it.
    pub(crate) iss: &'a str,
    /// Where they say that it is.
    pub(crate) uri: &'a str,
    /// The most bytes that it may have once decompressed.
    pub(crate) max_bytes: usize,
    /// Now, in Unix seconds.
    pub(crate) now: u64,
    /// How far clocks may differ, in seconds.
    pub(crate) leeway: u64,
}

impl Expected<'_> {
    /// What a list of `max_bytes` can need as a token: encoded in base64 twice, and hardly compressed.
    pub(crate) const fn longest(max_bytes: usize) -> usize {
        max_bytes.saturating_mul(16) / 9 + (64 << 10)
    }

    /// Reads a status list token, whose signature counts before anything that it says.
    pub(crate) fn read(&self, token: &str, verifier: &JwtVerifier) -> Result<StatusListToken, Unreadable> {
        if token.len() > Self::longest(self.max_bytes) {
            return Err(Unreadable::TooLarge);
        }
        let jws = CompactJws::parse(token)?;
        verifier.check_signed_by(self.iss, TYP, &jws).map_err(Unreadable::Unverified)?;
        let payload = Members::parse(&jws.payload)?;
        // Later drafts leave it out: whose keys count is settled by who points here.
        if payload.string("iss")?.is_some_and(|iss| iss != self.iss) {
            return Err(Unreadable::Issuer);
        }
        if payload.string("sub")?.ok_or(Unreadable::Malformed)? != self.uri {
            return Err(Unreadable::Subject);
        }
        let iat = payload.time("iat")?.ok_or(Unreadable::Malformed)?;
        let (exp, nbf) = (payload.time("exp")?, payload.time("nbf")?);
        if iat.max(nbf.unwrap_or(0)) > self.now.saturating_add(self.leeway) {
            return Err(Unreadable::Future);
        }
        if exp.is_some_and(|exp| exp <= self.now) {
            return Err(Unreadable::Expired);
        }
        let ttl = payload.time("ttl")?;
        if ttl == Some(0) {
            return Err(Unreadable::Malformed);
        }
        let list = payload.raw("status_list").ok_or(Unreadable::Malformed)?;
        let list = Members::parse(list.get().as_bytes())?;
        let bits = list.get::<u64>("bits")?.ok_or(Unreadable::Malformed)?;
        let bits = Bits::new(bits).ok_or(Unreadable::Bits)?;
        // An empty `lst` is no zlib stream.
        let lst = list.string("lst")?.ok_or(Unreadable::Malformed)?;
        Ok(StatusListToken { list: StatusList::decompress(bits, &lst, self.max_bytes)?, iat, exp, ttl })
    }
}
