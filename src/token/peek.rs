use super::{
    Extractor, VerifyError,
    source::{Asked, Found, Head, Reported, Source, check_claims, check_revoked, check_times, count_missing},
    strict::{ClaimNames, EncodedJws, Malformed, Members, Part},
};
#[cfg(feature = "streams")]
use super::{Verified, source::Carried};
#[cfg(feature = "streams")]
use crate::denylist::Denylist;
use crate::{reject::Rejection, revocation::ScopeHasher, rollout::Place};

/// Says in so many words that a verifier runs behind this layer.
///
/// A peek reads tokens without checking their signatures. That is enough to refuse: who alters a token to
/// escape the denylist breaks the signature, and the verifier behind refuses it. Without that verifier
/// nobody would.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct VerifierBehind(());

impl VerifierBehind {
    /// The service behind this layer verifies every token, with the same issuers.
    pub const fn i_promise() -> Self {
        Self(())
    }
}

/// Reads tokens unverified, for denial only: it refuses the revoked and vouches for nobody.
///
/// What cannot be read strictly is refused, and so is a token of an issuer that is not named here: the
/// service behind could accept what this layer could not look up.
#[derive(Debug)]
#[must_use]
pub struct Peek {
    extractor: Extractor,
    issuers: Vec<(String, ClaimNames)>,
}

impl Peek {
    /// Reads tokens of no issuer yet: name them with [`Peek::issuer`]. Takes bearer tokens.
    pub fn new(_: VerifierBehind) -> Self {
        Self { extractor: Extractor::default(), issuers: Vec::new() }
    }

    /// Accepts tokens of this issuer, with the standards' claim names.
    pub fn issuer(self, iss: impl Into<String>) -> Self {
        self.issuer_with(iss, ClaimNames::default())
    }

    /// Accepts tokens of this issuer, with these claim names.
    pub fn issuer_with(mut self, iss: impl Into<String>, names: ClaimNames) -> Self {
        self.issuers.push((iss.into(), names));
        self
    }

    /// Where tokens are taken from.
    pub fn extractor(mut self, extractor: Extractor) -> Self {
        self.extractor = extractor;
        self
    }
}

#[expect(private_interfaces, reason = "sealed: only this crate calls it")]
impl Source for Peek {
    fn judge(&self, head: Head<'_>, asked: Asked<'_>) -> Result<Found, Rejection> {
        let Some(token) = self.extractor.token(head.headers, head.uri)? else { return Ok(Found::Nothing) };
        let context = asked.now();
        let malformed = |Malformed| VerifyError::Malformed;
        let jws = EncodedJws::split(token).map_err(malformed)?;
        let (mut payload, mut members) = (Part::new(), Members::default());
        jws.payload(&mut payload).map_err(malformed)?;
        members.read(&payload).map_err(malformed)?;
        let iss = members.string("iss").map_err(malformed)?.ok_or(VerifyError::UnknownIssuer)?;
        let (iss, names) = self.issuers.iter().find(|(name, _)| *name == iss).ok_or(VerifyError::UnknownIssuer)?;
        let claims = members.claims(names).map_err(malformed)?;
        check_times(claims.iat, claims.exp, context)?;
        let claims = claims.as_claims(iss, jws.signing_input);
        // Whose it says it is goes nowhere: nobody has verified it.
        count_missing(&claims, Reported::None, context);
        check_claims(&claims, context.policy)?;
        #[cfg(feature = "status-list")]
        if let Some(lists) = context.lists {
            lists.peek(iss, claims.status, context.now)?;
        }
        let keys = claims.keys_among(context.denylist.hasher(), context.denylist.kinds());
        check_revoked(&keys, context)?;
        // Unverified: there is no identity to hand on.
        Ok(Found::Clear(None))
    }

    fn challenges_dpop(&self) -> bool {
        self.extractor.challenges_dpop()
    }

    #[cfg(feature = "streams")]
    fn carried(&self, head: Head<'_>, denylist: &Denylist, _: Option<&Verified>) -> Option<Carried> {
        let jws = EncodedJws::split(self.extractor.token(head.headers, head.uri).ok()??).ok()?;
        let (mut payload, mut members) = (Part::new(), Members::default());
        jws.payload(&mut payload).ok()?;
        members.read(&payload).ok()?;
        let iss = members.string("iss").ok()??;
        let (iss, names) = self.issuers.iter().find(|(name, _)| *name == iss)?;
        let claims = members.claims(names).ok()?;
        Some(Carried::of(&claims.as_claims(iss, jws.signing_input), denylist))
    }

    /// By what the token says of itself: the verifier behind refuses who says something else.
    fn place(&self, head: Head<'_>, hasher: &ScopeHasher) -> Option<Place> {
        let jws = EncodedJws::split(self.extractor.token(head.headers, head.uri).ok()??).ok()?;
        let (mut payload, mut members) = (Part::new(), Members::default());
        jws.payload(&mut payload).ok()?;
        members.read(&payload).ok()?;
        let iss = members.string("iss").ok()??;
        let (iss, names) = self.issuers.iter().find(|(name, _)| *name == iss)?;
        let claims = members.claims(names).ok()?;
        claims.as_claims(iss, jws.signing_input).keys(hasher).place()
    }
}
