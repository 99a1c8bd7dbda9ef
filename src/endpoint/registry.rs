use std::{collections::HashMap, fmt};

use futures_util::future::{self, BoxFuture, FutureExt};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Client, ClientAuthenticator, ClientError, Presented};

/// Clients that are known by heart.
///
/// Holds SHA-256 digests of secrets, never the secrets: they must be random, since a digest of a guessable one can
/// be searched.
///
/// ```
/// use tower_revocation::endpoint::{Clients, RegisteredClient, SecretMethod};
///
/// let clients = Clients::new()
///     .client(RegisteredClient::confidential("web", "q7Fz…", SecretMethod::Basic).issuers(["https://as.example/"]))?
///     .client(RegisteredClient::public("app").issuers(["https://as.example/"]))?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Clients {
    clients: HashMap<String, RegisteredClient>,
    /// Compared where there is nothing to compare with.
    decoy: [u8; 32],
}

/// A client and how it authenticates.
#[derive(Clone)]
#[must_use]
pub struct RegisteredClient {
    client: Client,
    credential: Credential,
}

#[derive(Clone)]
enum Credential {
    /// The SHA-256 of its secret.
    Secret { sha256: [u8; 32], method: SecretMethod },
    /// A public client has none.
    None,
}

/// How a client sends its secret (RFC 6749 §2.3.1). Each is registered for one way and may use no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecretMethod {
    /// `client_secret_basic`: in the `Authorization` header.
    Basic,
    /// `client_secret_post`: in the form.
    Post,
}

impl RegisteredClient {
    /// A client with a secret.
    pub fn confidential(id: impl Into<String>, secret: impl AsRef<[u8]>, method: SecretMethod) -> Self {
        Self::confidential_sha256(id, Sha256::digest(secret).into(), method)
    }

    /// A client with a secret of which only the SHA-256 is at hand.
    pub fn confidential_sha256(id: impl Into<String>, sha256: [u8; 32], method: SecretMethod) -> Self {
        Self { client: Client::confidential(id), credential: Credential::Secret { sha256, method } }
    }

    /// A client that cannot keep a secret.
    pub fn public(id: impl Into<String>) -> Self {
        Self { client: Client::public(id), credential: Credential::None }
    }

    /// See [`Client::issuers`].
    pub fn issuers<S: Into<String>>(mut self, issuers: impl IntoIterator<Item = S>) -> Self {
        self.client = self.client.issuers(issuers);
        self
    }

    /// See [`Client::any_issuer`].
    pub fn any_issuer(mut self) -> Self {
        self.client = self.client.any_issuer();
        self
    }

    /// See [`Client::scopes`].
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.client = self.client.scopes(scopes);
        self
    }
}

impl Clients {
    /// No client yet.
    pub fn new() -> Self {
        Self { clients: HashMap::new(), decoy: crate::random::bytes() }
    }

    /// Adds a client.
    ///
    /// # Errors
    ///
    /// Where its id is empty or taken, its secret is empty, or it was given no issuer.
    pub fn client(mut self, client: RegisteredClient) -> Result<Self, ClientsError> {
        let id = client.client.id().to_owned();
        if id.is_empty() {
            return Err(ClientsError::EmptyId);
        }
        if client.has_empty_secret() {
            return Err(ClientsError::EmptySecret { id });
        }
        if client.client.is_limited_to_nothing() {
            return Err(ClientsError::NoIssuer { id });
        }
        if self.clients.contains_key(&id) {
            return Err(ClientsError::DuplicateId { id });
        }
        self.clients.insert(id, client);
        Ok(self)
    }

    fn judge(&self, presented: &Presented) -> Result<Client, ClientError> {
        let known = self.clients.get(presented.id());
        let (secret, used) = match presented {
            Presented::Basic { secret, .. } => (secret, SecretMethod::Basic),
            Presented::Post { secret, .. } => (secret, SecretMethod::Post),
            Presented::None { .. } => {
                let public = known.filter(|known| matches!(known.credential, Credential::None));
                return public.map(|known| known.client.clone()).ok_or(ClientError::Refused);
            }
        };
        // The same work for every client, known or not; only the outcome tells them apart.
        let (sha256, allowed) = match known.map(|known| &known.credential) {
            Some(Credential::Secret { sha256, method }) => (sha256, *method == used),
            Some(Credential::None) | None => (&self.decoy, false),
        };
        let same = bool::from(Sha256::digest(secret.expose()).as_slice().ct_eq(sha256));
        known.filter(|_| same & allowed).map(|known| known.client.clone()).ok_or(ClientError::Refused)
    }
}

impl RegisteredClient {
    fn has_empty_secret(&self) -> bool {
        matches!(self.credential, Credential::Secret { sha256, .. } if sha256 == <[u8; 32]>::from(Sha256::digest(b"")))
    }
}

impl Default for Clients {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientAuthenticator for Clients {
    fn authenticate<'a>(&'a self, presented: &'a Presented) -> BoxFuture<'a, Result<Client, ClientError>> {
        future::ready(self.judge(presented)).boxed()
    }

    fn accepts_basic(&self) -> bool {
        let basic = |client: &RegisteredClient| {
            matches!(client.credential, Credential::Secret { method: SecretMethod::Basic, .. })
        };
        self.clients.values().any(basic)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.clients.keys()).finish()
    }
}

impl fmt::Debug for RegisteredClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegisteredClient").field(&self.client).finish()
    }
}

/// A client that cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientsError {
    /// It has no id.
    EmptyId,
    /// Another client has its id.
    DuplicateId {
        /// The id.
        id: String,
    },
    /// Its secret is empty.
    EmptySecret {
        /// The client's id.
        id: String,
    },
    /// It was given no issuer, so that it could revoke nothing.
    NoIssuer {
        /// The client's id.
        id: String,
    },
}

impl fmt::Display for ClientsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyId => f.write_str("a client has an empty id"),
            Self::DuplicateId { id } => write!(f, "two clients have the id {id:?}; give each its own"),
            Self::EmptySecret { id } => {
                write!(f, "the client {id:?} has an empty secret; give it a random one, or register it as public")
            }
            Self::NoIssuer { id } => {
                write!(f, "the client {id:?} has no issuer; name those of its tokens, or allow any")
            }
        }
    }
}

impl std::error::Error for ClientsError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clients_that_could_not_work_are_refused() {
        let ok = || RegisteredClient::public("a").any_issuer();
        let id = || "a".to_owned();
        let error = |client: RegisteredClient| Clients::new().client(client).unwrap_err();
        assert_eq!(error(RegisteredClient::public("").any_issuer()), ClientsError::EmptyId);
        assert_eq!(error(RegisteredClient::public("a")), ClientsError::NoIssuer { id: id() });
        let empty = RegisteredClient::confidential("a", "", SecretMethod::Basic).any_issuer();
        assert_eq!(error(empty), ClientsError::EmptySecret { id: id() });
        let twice = Clients::new().client(ok()).unwrap().client(ok()).unwrap_err();
        assert_eq!(twice, ClientsError::DuplicateId { id: id() });
    }
}
