use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

use super::Presented;

/// Tells which client sends a request.
///
/// [`Clients`](super::Clients) keeps them in memory; implement it for a store of your own. Take care to do the same
/// work for a client that does not exist as for a wrong secret, and to compare in constant time.
pub trait ClientAuthenticator: Send + Sync + 'static {
    /// The client behind what was presented.
    fn authenticate<'a>(&'a self, presented: &'a Presented) -> BoxFuture<'a, Result<Client, ClientError>>;

    /// Whether any client may use `client_secret_basic`, so that a refusal may ask for it.
    fn accepts_basic(&self) -> bool {
        true
    }
}

impl<A: ClientAuthenticator + ?Sized> ClientAuthenticator for Arc<A> {
    fn authenticate<'a>(&'a self, presented: &'a Presented) -> BoxFuture<'a, Result<Client, ClientError>> {
        (**self).authenticate(presented)
    }

    fn accepts_basic(&self) -> bool {
        (**self).accepts_basic()
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
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "client authentication failed",
            Self::Unavailable => "the client cannot be looked up now",
        })
    }
}

impl std::error::Error for ClientError {}

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
}

impl Client {
    /// A client that proved who it is (RFC 6749 §2.1).
    pub fn confidential(id: impl Into<String>) -> Self {
        Self { id: id.into(), confidential: true, issuers: Some(Vec::new()), scopes: Vec::new() }
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

    /// Whether it was granted this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|known| known == scope)
    }

    /// Whether it was given issuers, or all of them.
    pub(super) fn is_limited_to_nothing(&self) -> bool {
        self.issuers.as_ref().is_some_and(Vec::is_empty)
    }
}
