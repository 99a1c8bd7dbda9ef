//! Signed messages that are no access tokens: whoever knows their kind reads their claims.
#![cfg_attr(not(feature = "signals"), allow(dead_code, reason = "only some features take such messages"))]

use super::{JwtVerifier, Times, VerifyError};
use crate::token::{Malformed, Members};

/// Whether a message must say when it ends (`exp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// It must: logout tokens.
    Required,
    /// It need not, and is refused once it has: security event tokens (RFC 8417 §2.2), status lists.
    Optional,
}

/// The claims of a message whose signature, type, audience and times were checked.
pub(crate) struct Payload {
    iss: Box<str>,
    json: Box<[u8]>,
}

impl Payload {
    /// Who signed it.
    pub(crate) fn iss(&self) -> &str {
        &self.iss
    }

    /// Its claims: no member twice, all others as they are.
    pub(crate) fn members(&self) -> Result<Members<'_>, Malformed> {
        Members::parse(&self.json)
    }
}

impl JwtVerifier {
    /// The claims of a message of at most `max` bytes, if it is acceptable at `now` (Unix seconds): by one of the
    /// issuers, with their keys and algorithms, of the type and for the audience that they have here.
    ///
    /// As for a revocation, a key that may be among those fetched next is [`VerifyError::KeyNotAvailable`]: the message
    /// should come again.
    pub(crate) fn verify_payload(
        &self,
        message: &str,
        max: usize,
        now: u64,
        expiry: Expiry,
    ) -> Result<Payload, VerifyError> {
        self.check_signed(message, max, now, Times::Message(expiry), |signed| {
            Ok(Payload { iss: signed.iss.into(), json: signed.jws.payload[..].into() })
        })
    }
}
