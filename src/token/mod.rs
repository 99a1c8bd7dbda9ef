//! Where a token sits in a request, what it says, and who vouches for that.

mod cache;
mod extract;
mod identity;
#[cfg(feature = "jwt")]
mod jwt;
mod opaque;
mod peek;
mod source;
mod strict;
mod verifier;

pub use self::{
    cache::TokenCacheConfig,
    extract::{Credential, ExtractError, Extractor, Place},
    identity::{Claims, Identity, ScopeKeys, VerifiedClaims},
    opaque::{OpaqueDigest, OpaqueKeyError, OpaqueKeys},
    peek::{Peek, VerifierBehind},
    source::{FromExtension, IdentitySource, Verify},
    strict::ClaimNames,
    verifier::{Verifier, VerifyError},
};

pub(crate) use self::{
    cache::Verified,
    source::{Context, Found, Head},
};
