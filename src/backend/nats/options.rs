use std::{error::Error as _, fmt, io, path::PathBuf, time::Duration};

use async_nats::{
    ConnectOptions, RequestErrorKind, ServerAddr,
    jetstream::{self, Context, ErrorCode, context::ContextBuilder},
};
use bytes::Bytes;

use super::{
    Nats,
    streams::{self, Stream},
    unusable,
};
use crate::backend::{BackendError, BackendErrorKind};

/// How to reach NATS, and under which name the fleet's data lies there.
#[derive(Clone)]
pub struct NatsOptions {
    namespace: String,
    replicas: Option<usize>,
    credentials: Option<PathBuf>,
    token: Option<String>,
    authorities: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

/// The oldest server that can do what this needs.
const OLDEST: (i64, i64, i64) = (2, 9, 0);
/// A connection that answers no ping for about three times this is replaced.
const PING: Duration = Duration::from_secs(1);
const CONNECTING: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const UNTRUSTED: &str = "TLS fails; check the CA file, the server's name and our certificate";
/// How many writes may wait for their acknowledgement.
const IN_FLIGHT: usize = 4096;

impl NatsOptions {
    /// Without credentials, in the namespace `default`.
    pub fn new() -> Self {
        Self {
            namespace: "default".into(),
            replicas: None,
            credentials: None,
            token: None,
            authorities: None,
            certificate: None,
        }
    }

    /// Keeps this fleet apart from others: 1 to 64 letters, digits, `-` and `_`. Default: `default`.
    #[must_use]
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// On how many servers of the cluster each message lies (1 to 5). Streams are made so; those that are there and
    /// have fewer are an error. Default: new streams get 1, and any number is accepted.
    #[must_use]
    pub const fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = Some(replicas);
        self
    }

    /// Logs in with this credentials file (`.creds`: a user's JWT and its seed).
    #[must_use]
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials = Some(path.into());
        self
    }

    /// Logs in with this token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Trusts the authorities in this PEM file, instead of the system's.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities = Some(path.into());
        self
    }

    /// Shows this certificate to servers: PEM files with the chain and its key.
    #[must_use]
    pub fn client_certificate(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some((chain.into(), key.into()));
        self
    }

    /// Connects, makes the streams that are missing, and checks those that are there.
    ///
    /// The URL is `nats://` or `tls://`, then user and password if any, host and port; several servers of one cluster
    /// are several URLs with commas between.
    ///
    /// # Errors
    ///
    /// Where the URL is not understood, no server answers, it refuses the login, is older than 2.9, has no JetStream, or
    /// a stream is set up in a way that could lose revocations. The error names the setting, and no secret.
    pub async fn connect(self, url: &str) -> Result<Nats, BackendError> {
        check_namespace(&self.namespace)?;
        let servers = Servers::parse(url)?;
        let mut options = self.login(&servers).await?.require_tls(servers.tls);
        if let Some(file) = &self.authorities {
            options = options.add_root_certificates(file.clone());
        }
        if let Some((chain, key)) = &self.certificate {
            options = options.add_client_certificate(chain.clone(), key.clone());
        }
        let client = options
            .name("tower-revocation")
            .ping_interval(PING)
            .connection_timeout(CONNECTING)
            .request_timeout(Some(2 * streams::PATIENCE))
            .reconnect_delay_callback(|attempt| {
                (Duration::from_millis(50) * u32::try_from(attempt).unwrap_or(u32::MAX).min(20)).min(LONGEST_PAUSE)
            })
            .connect(servers.addresses.as_slice())
            .await
            .map_err(|error| refused(&servers, &error))?;
        let (major, minor, patch) = OLDEST;
        if !client.is_server_compatible(major, minor, patch) {
            let version = client.server_info().version;
            return Err(unusable(format!("NATS at {servers} is version {version}; it must be 2.9 or later")));
        }
        let context = ContextBuilder::new()
            // Each call has its own limit, which comes first.
            .timeout(2 * streams::PATIENCE)
            .max_ack_inflight(IN_FLIGHT)
            .backpressure_on_inflight(true)
            .build(client);
        offers_jetstream(&context, &servers).await?;
        let open = |name, kinds| Stream::open(&context, &self.namespace, name, kinds, self.replicas);
        let log = open("TREV", ["c", "b", "h"].as_slice()).await?;
        let state = open("TREV-STATE", ["s"].as_slice()).await?;
        let claims = open("TREV-ONCE", ["o"].as_slice()).await?;
        Ok(Nats::new(log, state, claims))
    }

    async fn login(&self, servers: &Servers) -> Result<ConnectOptions, BackendError> {
        let ways = [self.credentials.is_some(), self.token.is_some(), servers.login.is_some()];
        if ways.into_iter().filter(|given| *given).count() > 1 {
            return Err(unusable(
                "connecting to NATS: of a credentials file, a token, and a user in the URL, only one can be given",
            ));
        }
        let options = ConnectOptions::new();
        Ok(match (&self.credentials, &self.token, &servers.login) {
            (Some(path), ..) => options.credentials_file(path).await.map_err(|error| {
                unusable(format!("reading the NATS credentials file {}", path.display())).because(error)
            })?,
            (_, Some(token), _) => options.token(token.clone()),
            (_, _, Some((user, password))) => options.user_and_password(user.clone(), password.clone()),
            _ => options,
        })
    }
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsOptions")
            .field("namespace", &self.namespace)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

/// What a URL says, taken apart so that no secret is in what may be printed.
struct Servers {
    addresses: Vec<ServerAddr>,
    login: Option<(String, String)>,
    tls: bool,
}

impl Servers {
    fn parse(url: &str) -> Result<Self, BackendError> {
        let mut servers = Self { addresses: Vec::new(), login: None, tls: false };
        for one in url.split(',') {
            servers.add(one).ok_or_else(not_understood)?;
        }
        Ok(servers)
    }

    fn add(&mut self, url: &str) -> Option<()> {
        let (scheme, rest) = url.split_once("://")?;
        self.tls |= match scheme {
            "nats" => false,
            "tls" => true,
            _ => return None,
        };
        let (login, place) = rest.rsplit_once('@').map_or((None, rest), |(login, place)| (Some(login), place));
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.is_empty() || place.contains(['/', '?', '#']) {
            return None;
        }
        if let Some(login) = login {
            let (user, password) = login.split_once(':')?;
            let login = (unescaped(user)?, unescaped(password)?);
            if self.login.get_or_insert_with(|| login.clone()) != &login {
                return None;
            }
        }
        self.addresses.push(format!("{scheme}://{place}").parse().ok()?);
        Some(())
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, address) in self.addresses.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            write!(f, "{comma}{}:{}", address.host(), address.port())?;
        }
        Ok(())
    }
}

/// The URL itself is not repeated: it may hold a password.
fn not_understood() -> BackendError {
    unusable(
        "reading the URL of NATS; it must be nats:// or tls://, then user:password@ if any, host and port, without \
         parameters, as in nats://127.0.0.1:4222; several have commas between, and one login",
    )
}

/// Checks that the account may use JetStream.
async fn offers_jetstream(context: &Context, servers: &Servers) -> Result<(), BackendError> {
    let none =
        || unusable(format!("NATS at {servers} offers no JetStream to this account; enable it (`jetstream {{}}`)"));
    // A cluster whose servers have not found each other, or are too few.
    let not_now = || {
        let what = format!("asking NATS at {servers} for JetStream; check that most servers of the cluster run");
        BackendError::new(BackendErrorKind::Unavailable, what)
    };
    let answer = context.client().request("$JS.API.INFO", Bytes::new()).await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => none().because(error),
        _ => not_now().because(error),
    })?;
    let answer: Answer = serde_json::from_slice(&answer.payload).map_err(|error| none().because(error))?;
    let Some(error) = answer.error else { return Ok(()) };
    Err(match error.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => none(),
        _ => not_now(),
    }
    .because(error))
}

/// What of JetStream's answers counts here.
#[derive(serde::Deserialize)]
struct Answer {
    error: Option<jetstream::Error>,
}

fn check_namespace(name: &str) -> Result<(), BackendError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if matches!(name.len(), 1..=64) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(unusable(format!("the namespace {name:?} cannot be part of a stream's name; use 1 to 64 of A-Z a-z 0-9 - _")))
}

/// Undoes percent-encoding (RFC 3986 §2.1).
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

fn refused(servers: &Servers, error: &async_nats::ConnectError) -> BackendError {
    use async_nats::ConnectErrorKind::{Authentication, AuthorizationViolation, Tls};
    // Of the cause only its kind, which holds no secret.
    let (kind, advice) = match error.kind() {
        Authentication | AuthorizationViolation => {
            (BackendErrorKind::Settings, "it refuses the login; check user, password, token or credentials file")
        }
        Tls => (BackendErrorKind::Settings, UNTRUSTED),
        _ if is_about_tls(error) => (BackendErrorKind::Settings, UNTRUSTED),
        _ => (BackendErrorKind::Unavailable, "check that a server listens there"),
    };
    BackendError::new(kind, format!("connecting to NATS at {servers}: {}; {advice}", error.kind()))
}

/// A certificate that one side refuses comes as data that is invalid.
fn is_about_tls(error: &async_nats::ConnectError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}
