//! What is configured of an issuer.

use std::{fmt, path::PathBuf};

use zeroize::Zeroizing;

use super::Algorithm;
#[cfg(feature = "jwks-http")]
use super::JwksUrl;
use crate::token::ClaimNames;

/// An issuer whose tokens are accepted, and what they must be like.
///
/// It needs keys, algorithms, and an audience or [`Issuer::any_audience`].
///
/// ```
/// use tower_revocation::token::{Algorithm, Issuer, Keys};
///
/// let issuer = Issuer::new("https://issuer.example/")
///     .audience(["https://api.example/"])
///     .algorithms([Algorithm::RS256, Algorithm::ES256])
///     .keys(Keys::jwks_file("issuer.jwks.json"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Issuer {
    pub(super) iss: String,
    pub(super) audience: Audience,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) keys: Vec<Keys>,
    pub(super) kind: Kind,
    pub(super) claim_names: ClaimNames,
}

/// Which types (`typ`) tokens may have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Kind {
    /// Any, but for those that are known to be no access tokens.
    #[default]
    Open,
    /// This one, such as `at+jwt` (RFC 9068 §2.1).
    Exactly(&'static str),
    /// None, `JWT`, or this one, for kinds that were given a type only later.
    #[cfg_attr(not(feature = "endpoint"), expect(dead_code, reason = "only endpoints take such"))]
    Usually(&'static str),
}

/// Whom tokens must be for.
#[derive(Clone, Debug)]
pub(super) enum Audience {
    /// One of these; none: not said.
    OneOf(Vec<String>),
    Any,
}

impl Issuer {
    /// The issuer of tokens whose `iss` is this, byte for byte.
    pub fn new(iss: impl Into<String>) -> Self {
        Self {
            iss: iss.into(),
            audience: Audience::OneOf(Vec::new()),
            algorithms: Vec::new(),
            keys: Vec::new(),
            kind: Kind::default(),
            claim_names: ClaimNames::default(),
        }
    }

    #[cfg(feature = "endpoint")]
    #[allow(dead_code, reason = "only signals need it")]
    pub(crate) fn iss(&self) -> &str {
        &self.iss
    }

    /// Tokens must be for one of these (`aud`, RFC 7519 §4.1.3).
    pub fn audience<A: Into<String>>(mut self, audience: impl IntoIterator<Item = A>) -> Self {
        self.audience = Audience::OneOf(audience.into_iter().map(Into::into).collect());
        self
    }

    /// Tokens may be for anybody. Right only where every token of the issuer may be used here.
    pub fn any_audience(mut self) -> Self {
        self.audience = Audience::Any;
        self
    }

    /// The algorithms that tokens may be signed with. HMAC and asymmetric ones do not go together.
    pub fn algorithms(mut self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.algorithms = algorithms.into_iter().collect();
        self
    }

    /// Adds keys.
    pub fn keys(mut self, keys: impl Into<Keys>) -> Self {
        self.keys.push(keys.into());
        self
    }

    /// Tokens must be of the type `at+jwt` (RFC 9068 §2.1).
    ///
    /// Even without this, the types of other JWTs that an issuer signs with the same keys are refused: logout
    /// tokens, security event tokens, status lists, DPoP proofs and the like.
    pub fn require_at_jwt(self) -> Self {
        self.require_typ("at+jwt")
    }

    /// Tokens must be of this type, in lower case and without `application/` (RFC 7515 §4.1.9).
    pub const fn require_typ(mut self, typ: &'static str) -> Self {
        self.kind = Kind::Exactly(typ);
        self
    }

    /// Tokens are a client's assertions about itself (RFC 7523 §2.2, draft-ietf-oauth-rfc7523bis), of which it is the
    /// issuer.
    #[cfg(feature = "endpoint")]
    pub(crate) const fn client_assertions(self) -> Self {
        self.usual_typ("client-authentication+jwt")
    }

    /// Tokens must be of this type, or not say theirs: it is left out, or just `JWT`.
    #[cfg(feature = "endpoint")]
    pub(crate) const fn usual_typ(mut self, typ: &'static str) -> Self {
        self.kind = Kind::Usually(typ);
        self
    }

    /// The same issuer without HMAC: whoever holds such a secret can sign in its name.
    #[cfg(feature = "endpoint")]
    pub(crate) fn asymmetric(mut self) -> Self {
        self.algorithms.retain(|alg| !alg.is_hmac());
        self
    }

    /// The names of the claims that revocation needs, where the issuer has its own.
    pub fn claim_names(mut self, names: ClaimNames) -> Self {
        self.claim_names = names;
        self
    }
}

/// Where the keys of an issuer come from.
#[derive(Clone)]
#[must_use]
pub struct Keys(pub(super) Origin);

#[derive(Clone)]
pub(super) enum Origin {
    Pem(Vec<u8>),
    Jwks(Zeroizing<Vec<u8>>),
    Secret(Zeroizing<Vec<u8>>),
    File(PathBuf),
    #[cfg(feature = "jwks-http")]
    Url(JwksUrl),
}

impl Keys {
    /// A public key in PEM: "PUBLIC KEY" (RFC 5280, RFC 7468 §13) or "RSA PUBLIC KEY" (RFC 8017). It has no `kid`
    /// and is tried whatever `kid` a token names.
    pub fn pem(pem: impl Into<Vec<u8>>) -> Self {
        Self(Origin::Pem(pem.into()))
    }

    /// A JWK or JWK set in JSON (RFC 7517 §4, §5). Keys in a set that cannot be used here are passed over.
    pub fn jwks(json: impl Into<Vec<u8>>) -> Self {
        Self(Origin::Jwks(Zeroizing::new(json.into())))
    }

    /// An HMAC secret: at least 16 bytes, and it should have as many as the hash (RFC 7518 §3.2). Whoever holds it can
    /// make tokens.
    pub fn secret(secret: impl Into<Vec<u8>>) -> Self {
        Self(Origin::Secret(Zeroizing::new(secret.into())))
    }

    /// A file with a JWK or JWK set; read again by [`JwtVerifier::reload_files`](super::JwtVerifier::reload_files).
    pub fn jwks_file(path: impl Into<PathBuf>) -> Self {
        Self(Origin::File(path.into()))
    }

    /// A JWK set to fetch and keep fresh, with the settings of [`JwksUrl::new`].
    #[cfg(feature = "jwks-http")]
    pub fn jwks_url(url: impl Into<String>) -> Self {
        JwksUrl::new(url).into()
    }
}

#[cfg(feature = "jwks-http")]
impl From<JwksUrl> for Keys {
    fn from(url: JwksUrl) -> Self {
        Self(Origin::Url(url))
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Pem(_) => f.write_str("the PEM key"),
            Origin::Jwks(_) => f.write_str("the JWK set"),
            Origin::Secret(_) => f.write_str("the HMAC secret"),
            Origin::File(path) => write!(f, "the JWK set file {}", path.display()),
            #[cfg(feature = "jwks-http")]
            Origin::Url(url) => write!(f, "the JWK set at {}", url.redacted()),
        }
    }
}

/// Where the keys come from, never what they are.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({self})")
    }
}
