use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use futures_util::future::{BoxFuture, FutureExt};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

#[cfg(feature = "jwt")]
use super::assertion;
use super::{
    AuthMethod, Call, Client, ClientAuthenticator, ClientError, FailureLimit, Presented, Secret, bearer,
    limit::{Failures, Who},
};
#[cfg(feature = "mtls")]
use super::{CertificateHeader, CertificateName, ClientCertificate};
use crate::token::Verifier;
#[cfg(feature = "jwt")]
use crate::token::{Algorithm, JwtConfigError, JwtVerifier, Keys};

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
    /// Whom assertions must be for.
    audience: Vec<String>,
    access_tokens: Option<Arc<dyn Verifier>>,
    #[cfg(feature = "mtls")]
    certificate_header: Option<CertificateHeader>,
    failures: Failures,
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
    #[cfg(feature = "jwt")]
    Keys(Arc<JwtVerifier>),
    /// The name in a certificate that a certification authority vouches for.
    #[cfg(feature = "mtls")]
    CertificateName(CertificateName),
    /// The SHA-256 of each certificate.
    #[cfg(feature = "mtls")]
    Certificates(Vec<[u8; 32]>),
    /// A public client has none.
    None,
}

/// How a client sends its secret (RFC 6749 §2.3.1). It may use no other way than it is registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecretMethod {
    /// `client_secret_basic`: in the `Authorization` header.
    Basic,
    /// `client_secret_post`: in the form.
    Post,
    /// Either of them, one at a time, as TokenAuthority has it.
    Either,
}

impl SecretMethod {
    fn allows(self, used: AuthMethod) -> bool {
        match self {
            Self::Basic => used == AuthMethod::SecretBasic,
            Self::Post => used == AuthMethod::SecretPost,
            Self::Either => matches!(used, AuthMethod::SecretBasic | AuthMethod::SecretPost),
        }
    }
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

    /// A client that signs assertions with its own key (`private_key_jwt`, RFC 7523 §2.2). [`Clients::audience`] says
    /// whom they must be for.
    ///
    /// An assertion has the client's id as `iss` and `sub`, names nobody else in `aud`, expires within five minutes
    /// (and a minute for clocks that differ), and has a `jti`: it counts once, in the whole fleet. The request that it
    /// came with may come again as it is where it was answered 503.
    ///
    /// # Errors
    ///
    /// Where a key cannot be used, or an algorithm works with shared secrets (`client_secret_jwt` is not supported).
    #[cfg(feature = "jwt")]
    pub fn private_key_jwt(
        id: impl Into<String>,
        keys: Keys,
        algorithms: impl IntoIterator<Item = Algorithm>,
    ) -> Result<Self, ClientsError> {
        let id = id.into();
        let verifier = assertion::verifier(&id, keys, algorithms)?;
        Ok(Self { client: Client::confidential(id), credential: Credential::Keys(verifier) })
    }

    /// A client whose certificate carries this name and comes from a certification authority (`tls_client_auth`,
    /// RFC 8705 §2.1). The server says which certificate was shown: [`ClientCertificate`], or a proxy by
    /// [`Clients::certificate_header`]; it counts only where it was verified.
    #[cfg(feature = "mtls")]
    pub fn tls_client_auth(id: impl Into<String>, name: CertificateName) -> Self {
        Self { client: Client::confidential(id), credential: Credential::CertificateName(name) }
    }

    /// A client with certificates of its own, by the SHA-256 of their DER form (`self_signed_tls_client_auth`,
    /// RFC 8705 §2.2). Neither their issuer nor their dates count: what was registered does, until it is removed.
    #[cfg(feature = "mtls")]
    pub fn self_signed_tls_client_auth(id: impl Into<String>, sha256: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let certificates = sha256.into_iter().collect();
        Self { client: Client::confidential(id), credential: Credential::Certificates(certificates) }
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
        Self {
            clients: HashMap::new(),
            decoy: crate::random::bytes(),
            audience: Vec::new(),
            access_tokens: None,
            #[cfg(feature = "mtls")]
            certificate_header: None,
            failures: Failures::new(FailureLimit::default()),
        }
    }

    /// Clients' assertions must be for one of these, and for nobody else: the issuer's URL, the token endpoint's, or
    /// this endpoint's (RFC 7523 §3). Needed before a client with keys is added.
    pub fn audience<A: Into<String>>(mut self, audience: impl IntoIterator<Item = A>) -> Self {
        self.audience.extend(audience.into_iter().map(Into::into));
        self
    }

    /// Access tokens that `verifier` vouches for authenticate the client that they were issued to (RFC 6750), unless
    /// they are revoked. Such a caller has the token's own scopes and issuer: what the client is registered for does
    /// not count, since it may not have made the call. It need not be registered.
    ///
    /// Give an audience of its own to what may call here, so that tokens for other servers are worth nothing.
    pub fn access_tokens(mut self, verifier: impl Verifier) -> Self {
        self.access_tokens = Some(Arc::new(verifier));
        self
    }

    /// Takes certificates from proxies that terminate TLS.
    #[cfg(feature = "mtls")]
    pub fn certificate_header(mut self, header: CertificateHeader) -> Self {
        self.certificate_header = Some(header);
        self
    }

    /// How many failed authentications are borne. Default: [`FailureLimit::default`].
    pub fn failure_limit(mut self, limit: FailureLimit) -> Self {
        self.failures = Failures::new(limit);
        self
    }

    /// Adds a client.
    ///
    /// # Errors
    ///
    /// Where its id is empty or taken, it could not authenticate itself or anyone could as it, or it was given no
    /// issuer.
    pub fn client(mut self, client: RegisteredClient) -> Result<Self, ClientsError> {
        let id = client.client.id().to_owned();
        if id.is_empty() {
            return Err(ClientsError::EmptyId);
        }
        if client.has_empty_secret() {
            return Err(ClientsError::EmptySecret { id });
        }
        #[cfg(feature = "jwt")]
        if matches!(client.credential, Credential::Keys(_)) && self.audience.is_empty() {
            return Err(ClientsError::NoAudience { id });
        }
        #[cfg(feature = "mtls")]
        if client.has_unusable_certificate() {
            return Err(ClientsError::Certificate { id });
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

    async fn judge(&self, presented: &Presented, id: Option<&str>, call: Call<'_>) -> Result<Client, ClientError> {
        let known = id.and_then(|id| self.clients.get(id));
        match presented {
            Presented::Basic { secret, .. } => Self::or_refused(self.by_secret(known, secret, AuthMethod::SecretBasic)),
            Presented::Post { secret, .. } => Self::or_refused(self.by_secret(known, secret, AuthMethod::SecretPost)),
            Presented::None { .. } => Self::or_refused(Self::by_name(known)),
            #[cfg(feature = "mtls")]
            Presented::Certificate { id: None, certificate } => {
                Self::or_refused(self.by_certificate_alone(certificate))
            }
            #[cfg(feature = "mtls")]
            Presented::Certificate { certificate, .. } => {
                Self::or_refused(Self::by_certificate(known, certificate).or_else(|| Self::by_name(known)))
            }
            Presented::Assertion { assertion, .. } => self.by_assertion(known, assertion, call).await,
            Presented::Bearer { token } => {
                let verifier = self.access_tokens.as_deref().ok_or(ClientError::Refused)?;
                bearer::authenticate(token.expose(), verifier, call)
            }
        }
    }

    fn or_refused(client: Option<Client>) -> Result<Client, ClientError> {
        client.ok_or(ClientError::Refused)
    }

    fn by_name(known: Option<&RegisteredClient>) -> Option<Client> {
        known.filter(|known| known.is_public()).map(|known| known.authenticated(AuthMethod::None))
    }

    fn by_secret(&self, known: Option<&RegisteredClient>, secret: &Secret, used: AuthMethod) -> Option<Client> {
        // The same work for every client, known or not; only the outcome tells them apart.
        let (sha256, allowed) = match known.map(|known| &known.credential) {
            Some(Credential::Secret { sha256, method }) => (sha256, method.allows(used)),
            _ => (&self.decoy, false),
        };
        let same = bool::from(Sha256::digest(secret.expose()).as_slice().ct_eq(sha256));
        known.filter(|_| same & allowed).map(|known| known.authenticated(used))
    }

    #[cfg(feature = "mtls")]
    fn by_certificate(known: Option<&RegisteredClient>, certificate: &ClientCertificate) -> Option<Client> {
        let known = known?;
        match &known.credential {
            Credential::CertificateName(name) if certificate.is_verified_as(name) => {
                Some(known.authenticated(AuthMethod::TlsClientAuth))
            }
            Credential::Certificates(sha256) if sha256.contains(certificate.sha256()) => {
                Some(known.authenticated(AuthMethod::SelfSignedTlsClientAuth))
            }
            _ => None,
        }
    }

    /// The one client whose certificate it is; none where it could be that of several.
    #[cfg(feature = "mtls")]
    fn by_certificate_alone(&self, certificate: &ClientCertificate) -> Option<Client> {
        let mut matching = self.clients.values().filter_map(|client| Self::by_certificate(Some(client), certificate));
        matching.next().filter(|_| matching.next().is_none())
    }

    #[cfg_attr(not(feature = "jwt"), expect(clippy::unused_async, unused_variables, reason = "no client has keys"))]
    async fn by_assertion(
        &self,
        known: Option<&RegisteredClient>,
        assertion: &Secret,
        call: Call<'_>,
    ) -> Result<Client, ClientError> {
        #[cfg(feature = "jwt")]
        if let Some((known, Credential::Keys(verifier))) = known.map(|known| (known, &known.credential)) {
            assertion::check(assertion.expose(), verifier, &self.audience, call).await?;
            return Ok(known.authenticated(AuthMethod::PrivateKeyJwt));
        }
        Err(ClientError::Refused)
    }
}

/// Who the client says it is: where the form and an assertion both say it, they must agree.
fn claimed_id(presented: &Presented) -> Result<Option<Cow<'_, str>>, ClientError> {
    let id = presented.id().map(Cow::Borrowed);
    #[cfg(feature = "jwt")]
    if let Presented::Assertion { assertion, .. } = presented {
        let claimed = assertion::claimed_id(assertion.expose()).ok_or(ClientError::Refused)?;
        return if id.is_none_or(|id| id == claimed) { Ok(Some(claimed.into())) } else { Err(ClientError::Refused) };
    }
    Ok(id)
}

impl RegisteredClient {
    fn authenticated(&self, method: AuthMethod) -> Client {
        self.client.clone().authenticated_by(method)
    }

    const fn has_secret(&self) -> bool {
        matches!(self.credential, Credential::Secret { .. })
    }

    const fn is_public(&self) -> bool {
        matches!(self.credential, Credential::None)
    }

    #[cfg(feature = "mtls")]
    fn has_unusable_certificate(&self) -> bool {
        match &self.credential {
            Credential::CertificateName(name) => !name.is_usable(),
            Credential::Certificates(sha256) => sha256.is_empty(),
            _ => false,
        }
    }

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
    fn authenticate<'a>(
        &'a self,
        presented: &'a Presented,
        call: Call<'a>,
    ) -> BoxFuture<'a, Result<Client, ClientError>> {
        async move {
            let claimed = claimed_id(presented);
            let id = claimed.as_ref().ok().and_then(Option::as_deref).or(presented.id());
            let known = id.and_then(|id| self.clients.get(id));
            // Only a secret can be guessed: else a stranger could lock a client out by its name alone.
            let secret = matches!(presented, Presented::Basic { .. } | Presented::Post { .. });
            let guessed = id.filter(|_| secret && known.is_none_or(RegisteredClient::has_secret));
            let who = Who { id: guessed, known: known.is_some(), peer: call.peer };
            let now = call.revocations.denylist().now().monotonic;
            if let Some(retry_after) = self.failures.wait(who, now) {
                return Err(ClientError::TooManyFailures { retry_after });
            }
            let outcome = match claimed {
                Ok(_) => self.judge(presented, id, call).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(_) => self.failures.succeeded(who),
                Err(ClientError::Refused) => self.failures.failed(who, now),
                Err(_) => {}
            }
            outcome
        }
        .boxed()
    }

    #[cfg(feature = "mtls")]
    fn certificate_header(&self) -> Option<&CertificateHeader> {
        self.certificate_header.as_ref()
    }

    fn accepts_basic(&self) -> bool {
        let basic = |client: &RegisteredClient| matches!(client.credential, Credential::Secret { method, .. } if method.allows(AuthMethod::SecretBasic));
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
    /// It signs assertions, and nothing says whom they must be for.
    NoAudience {
        /// The client's id.
        id: String,
    },
    /// It was given an algorithm that works with shared secrets.
    SymmetricAlgorithm {
        /// The client's id.
        id: String,
    },
    /// Its keys cannot be used.
    #[cfg(feature = "jwt")]
    Keys {
        /// The client's id.
        id: String,
        /// Why; the issuer that it names is the client.
        source: JwtConfigError,
    },
    /// It is to show a certificate, and none could ever match.
    Certificate {
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
            Self::NoAudience { id } => {
                write!(f, "the client {id:?} signs assertions; first say whom they must be for (`Clients::audience`)")
            }
            Self::SymmetricAlgorithm { id } => write!(
                f,
                "the client {id:?} has an algorithm that works with a shared secret; use one with a public key, such as ES256"
            ),
            #[cfg(feature = "jwt")]
            Self::Keys { id, source } => write!(f, "the keys of the client {id:?} cannot be used: {source}"),
            Self::Certificate { id } => write!(
                f,
                "no certificate could be that of the client {id:?}; give it a name (a subject as in RFC 4514), or the \
                 SHA-256 of a certificate"
            ),
        }
    }
}

impl std::error::Error for ClientsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            #[cfg(feature = "jwt")]
            Self::Keys { source, .. } => Some(source),
            _ => None,
        }
    }
}

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
