use std::fmt;

use redis::{ClientTlsConfig, TlsCertificates};
use zeroize::Zeroizing;

use super::{
    super::{BackendError, BackendErrorKind},
    Redis,
    address::{Address, Credentials},
};

/// Settings of [`Redis`].
///
/// ```no_run
/// # async fn example(authority: Vec<u8>) -> Result<(), Box<dyn std::error::Error>> {
/// use tower_revocation::backend::Redis;
///
/// let store = Redis::options("rediss://revocations:s3cret@redis.internal:6379/0")?
///     .namespace("shop")
///     .authority(authority)
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisOptions {
    pub(super) address: Address,
    pub(super) namespace: String,
    pub(super) replicas: usize,
    pub(super) without_persistence: bool,
    pub(super) sentinel: Credentials,
    authority: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

impl RedisOptions {
    pub(super) fn new(url: &str) -> Result<Self, BackendError> {
        Ok(Self {
            address: Address::parse(url)?,
            namespace: "default".into(),
            replicas: 0,
            without_persistence: false,
            sentinel: Credentials::default(),
            authority: None,
            identity: None,
        })
    }

    /// Keeps this fleet apart from others in the same database. Default: `default`. Must not be empty, nor hold a brace.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// A write is acknowledged once this many replicas have it too (`WAIT`). Default: 0.
    ///
    /// It narrows what a fail-over can lose, and does not close it: a replica that lacks the write may be promoted.
    /// Announcements of nodes are writes, too: a master that is cut off from its replicas keeps no node fresh.
    #[must_use]
    pub const fn replicas(mut self, count: usize) -> Self {
        self.replicas = count;
        self
    }

    /// Takes a server without an append-only file too: revocations do not survive it, and
    /// [`Durability`](crate::backend::Durability) says so.
    #[must_use]
    pub const fn allow_without_persistence(mut self) -> Self {
        self.without_persistence = true;
        self
    }

    /// The certificates (PEM) of those who may have signed the servers', instead of those that the system trusts.
    #[must_use]
    pub fn authority(mut self, certificates: impl Into<Vec<u8>>) -> Self {
        self.authority = Some(certificates.into());
        self
    }

    /// The certificate chain and the key (PEM) that this node shows to the servers.
    #[must_use]
    pub fn client_certificate(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((chain.into(), Zeroizing::new(key.into())));
        self
    }

    /// User and password for the Sentinels; those in the URL are for the servers that they watch. An empty user is the
    /// default one.
    #[must_use]
    pub fn sentinel_credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let user = Some(user.into()).filter(|user| !user.is_empty());
        self.sentinel = Credentials { user, password: Some(Zeroizing::new(password.into())) };
        self
    }

    /// Connects, and checks that the server is set up so that it keeps what it acknowledges.
    ///
    /// # Errors
    ///
    /// Where no server answers within 4 s, refuses user or password, or is set up in a way that would break a promise:
    /// the error names the setting.
    pub async fn connect(self) -> Result<Redis, BackendError> {
        let unfit = |what: &str| {
            let what = format!("connecting to {}: {what}", self.address);
            BackendError::new(BackendErrorKind::Settings, what)
        };
        if self.namespace.is_empty() || self.namespace.contains(['{', '}']) {
            return Err(unfit("the namespace must not be empty, nor hold a brace"));
        }
        if !self.address.tls && (self.authority.is_some() || self.identity.is_some()) {
            return Err(unfit("certificates are given, but the URL asks for no TLS; write rediss"));
        }
        Redis::open(self).await
    }

    pub(super) fn certificates(&self) -> TlsCertificates {
        let client_tls = self
            .identity
            .as_ref()
            .map(|(chain, key)| ClientTlsConfig { client_cert: chain.clone(), client_key: key.to_vec() });
        TlsCertificates { client_tls, root_cert: self.authority.clone() }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("address", &format_args!("{}", self.address))
            .field("namespace", &self.namespace)
            .field("replicas", &self.replicas)
            .field("without_persistence", &self.without_persistence)
            .finish_non_exhaustive()
    }
}
