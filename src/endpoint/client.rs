use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

#[cfg(feature = "mtls")]
use super::CertificateHeader;
use super::{Presented, replay::Claimed};
use crate::{Revocations, backend::OneTime};

/// Tells which client sends a request.
///
/// [`Clients`](super::Clients) keeps them in memory; implement it for a store of your own. Take care to do the same
/// work for a client that does not exist as for a wrong secret, and to compare in constant time.
pub trait ClientAuthenticator: Send + Sync + 'static {
    /// The client behind what was presented.
    fn authenticate<'a>(
        &'a self,
        presented: &'a Presented,
        call: Call<'a>,
    ) -> BoxFuture<'a, Result<Client, ClientError>>;

    /// Whether any client may use `client_secret_basic`, so that a refusal may ask for it.
    fn accepts_basic(&self) -> bool {
        true
    }

    /// The header in which proxies tell a client's certificate, where there are such proxies. It is asked for at every
    /// request, and once when the endpoint is added to [`Endpoints`](super::Endpoints): where there is one then, such
    /// headers are removed from the requests of everyone else.
    #[cfg(feature = "mtls")]
    fn certificate_header(&self) -> Option<&CertificateHeader> {
        None
    }
}

/// What surrounds an authentication.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Call<'a> {
    /// The handle of the endpoint: its clock, its denylist, and its backend for what counts once.
    pub revocations: &'a Revocations,
    /// From where the caller connects, where that is known ([`PeerAddress`](super::PeerAddress)) and its own.
    pub peer: Option<IpAddr>,
    /// What the request claims, and the digest of all of it, where that is known.
    request: Option<(&'a Claimed, [u8; 32])>,
}

impl<'a> Call<'a> {
    /// A call from an unknown address.
    pub const fn new(revocations: &'a Revocations) -> Self {
        Self { revocations, peer: None, request: None }
    }

    /// From this address.
    #[must_use]
    pub const fn from(mut self, peer: IpAddr) -> Self {
        self.peer = Some(peer);
        self
    }

    /// In a request with this digest, which is finished with what is claimed for it.
    pub(super) const fn within(mut self, claimed: &'a Claimed, message: [u8; 32]) -> Self {
        self.request = Some((claimed, message));
        self
    }

    /// Takes a credential that counts once in the whole fleet, such as an assertion by its `jti`: `namespace` is its
    /// kind, `iss` its maker, and `until` (Unix seconds) is how long it could count at all.
    ///
    /// The very same request may come again until it is done, or finally refused: its answer may have been a 503, or
    /// lost. Where the request is not known as a whole (at the global endpoint, whose clients are asked before the body
    /// is read, and for a call that is none of an endpoint's) it may not.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] where it counts no more, [`ClientError::Unavailable`] where the backend cannot say.
    pub async fn claim_once(&self, namespace: &str, iss: &str, id: &str, until: u64) -> Result<(), ClientError> {
        // Unknown, it is like no other.
        let (nowhere, message) = (Claimed::default(), crate::random::bytes());
        let (claimed, message) = self.request.unwrap_or((&nowhere, message));
        match claimed.claim(self.revocations, OneTime::new(namespace, iss, id, message, until)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ClientError::Refused),
            Err(_) => Err(ClientError::Unavailable),
        }
    }
}

impl<A: ClientAuthenticator + ?Sized> ClientAuthenticator for Arc<A> {
    fn authenticate<'a>(
        &'a self,
        presented: &'a Presented,
        call: Call<'a>,
    ) -> BoxFuture<'a, Result<Client, ClientError>> {
        (**self).authenticate(presented, call)
    }

    fn accepts_basic(&self) -> bool {
        (**self).accepts_basic()
    }

    #[cfg(feature = "mtls")]
    fn certificate_header(&self) -> Option<&CertificateHeader> {
        (**self).certificate_header()
    }
}

/// Why a client was not authenticated. Unknown, wrong secret and wrong method are one: nobody learns which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientError {
    /// It is not who it says it is.
    Refused,
    /// It cannot be looked up now.
    Unavailable,
    /// Too many failed of late; nothing was looked at.
    TooManyFailures {
        /// When another try is worth it.
        retry_after: Duration,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "client authentication failed",
            Self::Unavailable => "the client cannot be looked up now",
            Self::TooManyFailures { .. } => "too many authentications failed of late",
        })
    }
}

impl std::error::Error for ClientError {}

/// How a client authenticated itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthMethod {
    /// Its secret, in the `Authorization` header (RFC 6749 §2.3.1).
    SecretBasic,
    /// Its secret, in the form (RFC 6749 §2.3.1).
    SecretPost,
    /// An assertion signed with its key (RFC 7523 §2.2).
    PrivateKeyJwt,
    /// A certificate of a certification authority (RFC 8705 §2.1).
    TlsClientAuth,
    /// A registered certificate (RFC 8705 §2.2).
    SelfSignedTlsClientAuth,
    /// An access token issued to it (RFC 6750). The scopes are the token's.
    Bearer,
    /// Not at all: a public client (RFC 7591 §2).
    None,
}

impl AuthMethod {
    /// Its registered name (RFC 7591 §2, RFC 8705 §2); an access token has none.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SecretBasic => "client_secret_basic",
            Self::SecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
            Self::Bearer => "bearer",
            Self::None => "none",
        }
    }
}

/// A client that was authenticated, and what it may do.
///
/// It has a say over tokens of the issuers that are named, and over none until one is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Client {
    id: String,
    confidential: bool,
    /// `None`: any.
    issuers: Option<Vec<String>>,
    scopes: Vec<String>,
    method: Option<AuthMethod>,
}

impl Client {
    /// A client that proved who it is (RFC 6749 §2.1).
    pub fn confidential(id: impl Into<String>) -> Self {
        Self { id: id.into(), confidential: true, issuers: Some(Vec::new()), scopes: Vec::new(), method: None }
    }

    /// A client that only says who it is: it cannot keep a secret (RFC 6749 §2.1).
    pub fn public(id: impl Into<String>) -> Self {
        Self { confidential: false, ..Self::confidential(id) }
    }

    /// Its tokens come from these issuers too, compared byte for byte.
    pub fn issuers<S: Into<String>>(mut self, issuers: impl IntoIterator<Item = S>) -> Self {
        self.issuers.get_or_insert_default().extend(issuers.into_iter().map(Into::into));
        self
    }

    /// Its tokens come from any issuer that the verifier accepts. Right where there is only one: with several, a
    /// client of one could act for its namesake at another.
    pub fn any_issuer(mut self) -> Self {
        self.issuers = None;
        self
    }

    /// It was granted these scopes (RFC 6749 §3.3) too.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes.extend(scopes.into_iter().map(Into::into));
        self
    }

    /// It authenticated itself in this way.
    pub const fn authenticated_by(mut self, method: AuthMethod) -> Self {
        self.method = Some(method);
        self
    }

    /// How it authenticated itself, where its [`ClientAuthenticator`] says so.
    pub const fn method(&self) -> Option<AuthMethod> {
        self.method
    }

    /// Its `client_id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it proved who it is.
    pub const fn is_confidential(&self) -> bool {
        self.confidential
    }

    /// Whether it has a say over tokens of this issuer.
    pub fn has_issuer(&self, iss: &str) -> bool {
        self.issuers.as_ref().is_none_or(|issuers| issuers.iter().any(|known| known == iss))
    }

    /// Whether it was granted this scope: by its registration, or, where an access token authenticates it, by that token.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|known| known == scope)
    }

    /// Whether it was given issuers, or all of them.
    pub(super) fn is_limited_to_nothing(&self) -> bool {
        self.issuers.as_ref().is_some_and(Vec::is_empty)
    }
}
