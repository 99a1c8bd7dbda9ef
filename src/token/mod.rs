//! Where a token sits in a request, what it says, and who vouches for that.

mod cache;
mod extract;
mod first_level;
mod identity;
#[cfg(feature = "introspection")]
mod introspection;
mod json;
#[cfg(feature = "jwt")]
mod jwt;
#[cfg(feature = "status-list")]
mod listed;
mod opaque;
mod peek;
mod question;
pub(crate) mod source;
mod status;
mod strict;
mod verifier;

#[cfg(feature = "introspection")]
#[doc(hidden)]
pub use self::introspection::read_introspection_answer;
#[cfg(feature = "introspection")]
pub use self::introspection::{
    Introspect, Introspection, IntrospectionCounts, IntrospectionCredentials, IntrospectionError,
};
#[cfg(feature = "jwt")]
pub use self::jwt::{
    Algorithm, Issuer, JwtConfigError, JwtVerifier, JwtVerifierBuilder, KeyError, Keys, SignError, SigningKey,
    UnknownAlgorithm,
};
#[cfg(all(feature = "jwt", feature = "endpoint"))]
#[cfg_attr(not(feature = "signals"), allow(unused_imports, reason = "only some features take such messages"))]
pub(crate) use self::jwt::{Expiry, Payload};
#[cfg(feature = "jwks-http")]
pub use self::jwt::{Fetch, FetchError, FetchErrorKind, HttpFetch, JwksUrl};
pub use self::{
    cache::TokenCacheConfig,
    extract::{Credential, ExtractError, Extractor, Place},
    identity::{Claims, Identity, ScopeKeys, VerifiedClaims},
    opaque::{OpaqueDigest, OpaqueKeyError, OpaqueKeys},
    peek::{Peek, VerifierBehind},
    source::{FromExtension, IdentitySource, Verify},
    status::{Status, StatusClaim, StatusPlace, StatusRef},
    strict::ClaimNames,
    verifier::{Verifier, VerifyError},
};

#[cfg(feature = "streams")]
pub(crate) use self::source::Carried;
#[cfg(any(feature = "endpoint", feature = "status-list"))]
pub(crate) use self::strict::CompactJws;
#[cfg(feature = "sync")]
pub(crate) use self::strict::{Malformed, Members};
pub(crate) use self::{
    cache::Verified,
    question::{Known, Question},
    source::{Asked, Found, Head, check_fresh},
    status::StatusKept,
};
#[cfg(feature = "endpoint")]
pub(crate) use self::{extract::MAX_TOKEN, json::Raw};
