use std::fmt;

#[cfg(feature = "jwks-http")]
use super::FetchError;
use super::KeyError;

/// Why a [`JwtVerifier`](super::JwtVerifier) could not be built or reloaded. Says nothing of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JwtConfigError {
    /// No issuer: no token could ever be accepted.
    NoIssuer,
    /// An issuer whose name is empty.
    EmptyIssuer,
    /// Two issuers have this name.
    DuplicateIssuer {
        /// The name.
        iss: String,
    },
    /// Neither audiences nor [`Issuer::any_audience`](super::Issuer::any_audience).
    NoAudience {
        /// The issuer.
        iss: String,
    },
    /// No algorithms.
    NoAlgorithm {
        /// The issuer.
        iss: String,
    },
    /// HMAC and asymmetric algorithms together: a public key could be taken for a secret.
    MixedAlgorithms {
        /// The issuer.
        iss: String,
    },
    /// No keys.
    NoKeys {
        /// The issuer.
        iss: String,
    },
    /// Keys that cannot be used.
    Keys {
        /// The issuer.
        iss: String,
        /// Where they come from.
        origin: String,
        /// What is wrong with them.
        source: KeyError,
    },
    /// A key set that cannot be fetched.
    #[cfg(feature = "jwks-http")]
    Fetch {
        /// The issuer.
        iss: String,
        /// What is in the way.
        source: FetchError,
    },
    /// A key set to be fetched for an issuer with HMAC algorithms: secrets are not published.
    #[cfg(feature = "jwks-http")]
    SecretsByUrl {
        /// The issuer.
        iss: String,
    },
    /// A key set to be fetched, but no tokio runtime to do it on.
    #[cfg(feature = "jwks-http")]
    NoRuntime {
        /// The issuer.
        iss: String,
    },
}

impl fmt::Display for JwtConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIssuer => f.write_str("no issuer is configured: add one"),
            Self::EmptyIssuer => f.write_str("an issuer has an empty name: give the `iss` of its tokens"),
            Self::DuplicateIssuer { iss } => write!(f, "issuer {iss:?} is configured twice: put its keys together"),
            Self::NoAudience { iss } => {
                write!(f, "issuer {iss:?} has no audience: give those that tokens must be for, or allow any explicitly")
            }
            Self::NoAlgorithm { iss } => write!(f, "issuer {iss:?} has no algorithms: give those it signs with"),
            Self::MixedAlgorithms { iss } => {
                write!(f, "issuer {iss:?} has HMAC and asymmetric algorithms: a public key could pass for a secret")
            }
            Self::NoKeys { iss } => write!(f, "issuer {iss:?} has no keys: give a PEM key, a JWK set or a secret"),
            Self::Keys { iss, origin, source } => write!(f, "issuer {iss:?}: {origin} cannot be used: {source}"),
            #[cfg(feature = "jwks-http")]
            Self::Fetch { iss, source } => write!(f, "issuer {iss:?}: {source}"),
            #[cfg(feature = "jwks-http")]
            Self::SecretsByUrl { iss } => {
                write!(f, "issuer {iss:?} has HMAC algorithms and a key set URL: secrets are not published")
            }
            #[cfg(feature = "jwks-http")]
            Self::NoRuntime { iss } => {
                write!(f, "issuer {iss:?} has a key set URL: build the verifier inside a tokio runtime to fetch it")
            }
        }
    }
}

impl std::error::Error for JwtConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Keys { source, .. } => Some(source),
            #[cfg(feature = "jwks-http")]
            Self::Fetch { source, .. } => Some(source),
            _ => None,
        }
    }
}
