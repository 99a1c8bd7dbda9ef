//! The configuration file: its keys, their defaults, and where a mistake in it is.
//!
//! `docs/revoked.md` lists the keys. What a key means is settled by the part of the daemon that reads it.

mod duration;
mod percent;
mod read;
mod secret;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use self::{
    duration::Span,
    percent::Percent,
    read::{ConfigError, Fault, at, load, parse},
    secret::Secret,
};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Config {
    /// The main listener: reverse proxy, revocation routes, metadata.
    #[serde(default = "loopback::<8080>")]
    pub listen: SocketAddr,
    /// Whose ways the endpoints follow.
    #[serde(default)]
    pub profile: Profile,
    /// Where clients reach the main listener; default: `http://` and the address that it listens on.
    pub external_url: Option<String>,
    /// Connections at once, for each listener but the admin's.
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    /// How long requests under way have to end at a shutdown.
    #[serde(default = "shutdown_timeout")]
    pub shutdown_timeout: Span,
    /// TLS on the main listener.
    pub tls: Option<Tls>,
    /// The server behind.
    pub upstream: Option<Upstream>,
    /// The door for gateways that ask over HTTP.
    pub forward_auth: Option<ForwardAuth>,
    /// The door for Envoy over gRPC.
    pub ext_authz: Option<ExtAuthz>,
    /// The door for HAProxy.
    pub spoe: Option<Spoe>,
    /// Health, metrics and the API of operators.
    pub admin: Option<Admin>,
    /// The store.
    #[serde(default)]
    pub backend: Backend,
    /// What happens once this node has lost touch with the store.
    pub staleness: Staleness,
    /// What ends what is open when its token is revoked.
    #[serde(default)]
    pub streams: Streams,
    /// Where tokens sit, and what they must be like.
    #[serde(default)]
    pub tokens: Tokens,
    /// What is enforced already, and for whom.
    #[serde(default)]
    pub rollout: Rollout,
    /// Whose tokens are accepted.
    #[serde(default)]
    pub issuer: Vec<Issuer>,
    /// Who may call the revocation routes.
    #[serde(default)]
    pub client: Vec<Client>,
    /// The proxy in front that tells clients' certificates.
    pub certificate_header: Option<CertificateHeader>,
    /// Who users are.
    #[serde(default)]
    pub directory: Directory,
    /// Learns which tokens belong together.
    pub recorder: Option<Recorder>,
    /// Asks the issuer about opaque tokens.
    pub introspection: Option<Introspection>,
    /// The revocation routes.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// Who may send events.
    #[serde(default)]
    pub transmitter: Vec<Transmitter>,
    /// Tells clients of logouts.
    pub logout_sender: Option<LogoutSenderSection>,
    /// Token Status Lists that tokens point to.
    #[serde(default)]
    pub status_list: StatusList,
    /// The folder of the file: relative paths start there.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// See `profile`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// As the standards have it.
    #[default]
    Standard,
    /// As Janssen has it.
    Janssen,
    /// As TokenAuthority has it.
    TokenAuthority,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Tls {
    /// The server's certificate and its chain, PEM.
    pub cert_file: PathBuf,
    /// Its key, PEM.
    pub key_file: PathBuf,
    /// Certification authorities whose client certificates count for `tls_client_auth`, PEM.
    pub client_ca_file: Option<PathBuf>,
}

/// `[upstream]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Upstream {
    /// Scheme, authority, and a path to put in front.
    pub url: String,
    /// How long a connection may take.
    #[serde(default = "five_seconds")]
    pub connect_timeout: Span,
    /// How long the head of an answer may take.
    #[serde(default = "one_minute")]
    pub response_timeout: Span,
    /// HTTP/2 without TLS for every request, not for gRPC alone.
    #[serde(default)]
    pub http2: bool,
    /// Certification authorities of the server behind, PEM; default: the system's.
    pub ca_file: Option<PathBuf>,
}

/// `[forward_auth]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ForwardAuth {
    /// Where it listens.
    #[serde(default = "loopback::<9000>")]
    pub listen: SocketAddr,
    /// The headers that tell the gateway who sent the request.
    #[serde(default)]
    pub identity_headers: Vec<String>,
}

/// `[ext_authz]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ExtAuthz {
    /// Where it listens.
    #[serde(default = "loopback::<9001>")]
    pub listen: SocketAddr,
    /// The headers that tell the service behind who sent the request.
    #[serde(default)]
    pub identity_headers: Vec<String>,
    /// The metadata namespaces of filters whose verified claims count, such as `envoy.filters.http.jwt_authn`.
    #[serde(default)]
    pub trusted_metadata: Vec<String>,
    /// Whether requests to the revocation routes are answered inside the check.
    #[serde(default)]
    pub answer_endpoints: bool,
}

/// `[spoe]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Spoe {
    /// Where it listens.
    #[serde(default = "loopback::<9002>")]
    pub listen: SocketAddr,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Admin {
    /// Where it listens; loopback unless there is a token.
    #[serde(default = "loopback::<9090>")]
    pub listen: SocketAddr,
    /// The file with the bearer token.
    pub token_file: Option<PathBuf>,
}

/// `[backend]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Backend {
    /// `memory:`, `file://`, `sqlite://`, `redis://`, `rediss://`, `postgres://`, `nats://` or `tls://`.
    #[serde(default = "backend_url")]
    pub url: Secret,
    /// This node's name; default: the host's with a random suffix.
    pub node: Option<String>,
    /// How many revocations may be held.
    pub budget: Option<usize>,
    /// How many entries are kept in memory, where not all of them are to be (tiered mode): the backend is asked for others.
    pub entries_in_memory: Option<u64>,
    /// A file in which this node keeps a copy of what it holds, to start from while the store is away.
    pub keep_copy: Option<PathBuf>,
}

impl Default for Backend {
    fn default() -> Self {
        Self { url: backend_url(), node: None, budget: None, entries_in_memory: None, keep_copy: None }
    }
}

/// `[staleness]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Staleness {
    /// When the list counts as stale.
    pub after: Span,
    /// What happens then.
    pub then: Then,
}

/// See `staleness.then`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Requests with tokens are answered 503.
    Refuse,
    /// They are served from what the node last knew.
    Serve,
}

/// `[streams]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Streams {
    /// Whether the main listener ends what is open when its token is revoked.
    pub end: OnOff,
    /// How long it goes on after the revocation.
    pub grace: Span,
    /// Whether it ends when its token has expired, too.
    pub at_expiry: bool,
    /// The kinds of scopes whose revocation ends it; default: all.
    pub scopes: Vec<String>,
    /// Whether it ends when a refresh put another token into the place of its own.
    pub on_refresh: bool,
    /// Whether it ends once requests are refused since the list is stale.
    pub when_stale: bool,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            end: OnOff::On,
            grace: Span::secs(0),
            at_expiry: false,
            scopes: Vec::new(),
            on_refresh: false,
            when_stale: true,
        }
    }
}

/// See `streams.end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOff {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// `[tokens]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// `bearer`, `dpop`, `form`, `cookie:NAME`, `header:NAME`.
    pub sources: Vec<String>,
    /// Places that the service behind takes no tokens from: `query`, `websocket-protocol`, `scheme:NAME`.
    pub unused: Vec<String>,
    /// Requests without a token.
    pub no_token: NoToken,
    /// Tokens without `jti`.
    pub missing_jti: Missing,
    /// Tokens without `sid`.
    pub missing_sid: Missing,
    /// Tokens without `iat`.
    pub missing_iat: MissingIat,
    /// Tokens whose session nobody knows.
    pub unknown_session: Missing,
    /// How far expiry is stretched.
    pub leeway: Span,
    /// How far issuers' clocks may be off.
    pub skew: Span,
    /// Tokens that live longer are refused.
    pub max_lifetime: Span,
    /// The same for refresh tokens; default: `max_lifetime`.
    pub max_refresh_lifetime: Option<Span>,
    /// For the challenge (RFC 9728).
    pub resource_metadata: Option<String>,
    /// For the challenge (RFC 6750).
    pub challenge_scope: Option<String>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            sources: vec!["bearer".to_owned()],
            unused: Vec::new(),
            no_token: NoToken::Pass,
            missing_jti: Missing::Allow,
            missing_sid: Missing::Allow,
            missing_iat: MissingIat::DenyIfCutoff,
            unknown_session: Missing::Allow,
            leeway: Span::secs(60),
            skew: Span::secs(30),
            max_lifetime: Span::secs(24 * 60 * 60),
            max_refresh_lifetime: None,
            resource_metadata: None,
            challenge_scope: None,
        }
    }
}

/// `[rollout]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Rollout {
    /// What refuses nobody and is only reported: `all`, kinds of scopes, rules.
    pub shadow: Vec<String>,
    /// For how many of the users the rest is enforced.
    pub percent: Percent,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { shadow: Vec::new(), percent: Percent(tower_revocation::rollout::Percent::EVERYBODY) }
    }
}

/// See `tokens.no_token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoToken {
    /// They pass.
    Pass,
    /// They are answered 401.
    Deny,
}

/// See `tokens.missing_jti`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missing {
    /// Other scopes still apply.
    Allow,
    /// Refused.
    Deny,
}

/// See `tokens.missing_iat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingIat {
    /// Refused where a cutoff exists for one of its scopes.
    DenyIfCutoff,
    /// Refused.
    Deny,
    /// Passes cutoffs.
    Allow,
}

/// `[[issuer]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Issuer {
    /// `iss`, byte for byte.
    pub issuer: String,
    /// `aud`: one of these.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Tokens may be for anybody.
    #[serde(default)]
    pub any_audience: bool,
    /// The algorithms of its tokens.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// A file with its JWK set.
    pub jwks_file: Option<PathBuf>,
    /// Where its JWK set is fetched.
    pub jwks_url: Option<String>,
    /// A file with its public key, PEM.
    pub pem_file: Option<PathBuf>,
    /// A file with the raw secret (HMAC).
    pub secret_file: Option<PathBuf>,
    /// Tokens must be of the type `at+jwt` (RFC 9068).
    #[serde(default)]
    pub require_at_jwt: bool,
    /// Names of claims where they are not the usual ones.
    #[serde(default)]
    pub claims: ClaimNames,
}

/// `[issuer.claims]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ClaimNames {
    /// Instead of `jti`.
    pub jti: Option<String>,
    /// Instead of `sid`.
    pub sid: Option<String>,
    /// Instead of `sub`.
    pub sub: Option<String>,
    /// Instead of `client_id`.
    pub client_id: Option<String>,
}

/// `[status_list]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StatusList {
    /// Whether they count.
    pub enabled: bool,
    /// Lists over plain http too, and then from this machine: for tests.
    pub allow_http: bool,
    /// Lists from private, loopback and link-local addresses too.
    pub allow_private: bool,
    /// How many redirects are followed.
    pub redirects: u8,
    /// Statuses that pass besides VALID: `suspended`, or a number.
    pub accept: Vec<String>,
    /// Tokens that point to no list.
    pub missing: Missing,
    /// Tokens whose list cannot be had.
    pub unavailable: Unavailable,
    /// How long a request waits for a list that is not here yet.
    pub wait: Span,
    /// How long one fetch may take.
    pub timeout: Span,
    /// How long a list counts that does not say so.
    pub default_ttl: Span,
    /// How long a list counts at most.
    pub max_ttl: Span,
    /// How many bytes one list may have, decompressed.
    pub max_list_bytes: usize,
    /// How many bytes all lists may have together.
    pub max_bytes: usize,
    /// How many lists there may be.
    pub max_lists: usize,
    /// The list that is published here.
    pub publish: Option<PublishedList>,
}

/// `[status_list.publish]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PublishedList {
    /// Where it is on the main listener.
    pub path: String,
    /// What tokens call it; default: `external_url` and `path`.
    pub uri: Option<String>,
    /// The private key that it is signed with, PEM or JWK.
    pub key_file: PathBuf,
    /// The issuer of its tokens; default: the first.
    pub issuer: Option<String>,
    /// How many tokens it has room for.
    #[serde(default = "list_entries")]
    pub entries: usize,
    /// After how long it should be fetched anew.
    #[serde(default = "one_minute")]
    pub ttl: Span,
    /// How long it counts at most.
    #[serde(default = "one_hour")]
    pub lifetime: Span,
    /// The SQLite file with the indexes of tokens; default: `revoked-status-index.db`, or memory where the backend is
    /// `memory:`.
    pub index: Option<PathBuf>,
}

impl Default for StatusList {
    fn default() -> Self {
        Self {
            enabled: false,
            allow_http: false,
            allow_private: false,
            redirects: 0,
            accept: Vec::new(),
            missing: Missing::Allow,
            unavailable: Unavailable::Refuse,
            wait: Span::secs(2),
            timeout: Span::secs(10),
            default_ttl: Span::secs(5 * 60),
            max_ttl: Span::secs(24 * 60 * 60),
            max_list_bytes: 16 << 20,
            max_bytes: 256 << 20,
            max_lists: 1024,
            publish: None,
        }
    }
}

/// See `status_list.unavailable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unavailable {
    /// They are refused.
    Refuse,
    /// The list that was last had counts until its `exp`.
    LastKnown,
    /// They pass.
    Allow,
}

/// `[[client]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// Its secret.
    pub secret: Option<Secret>,
    /// A file with the raw secret.
    pub secret_file: Option<PathBuf>,
    /// The SHA-256 of its secret, in hex.
    pub secret_sha256: Option<String>,
    /// How it authenticates.
    #[serde(default)]
    pub auth_method: AuthMethod,
    /// What it may do besides revoking its own tokens.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The issuers that it has a say over; default: all.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// A file with its JWK set (`private_key_jwt`).
    pub jwks_file: Option<PathBuf>,
    /// Where its JWK set is fetched (`private_key_jwt`).
    pub jwks_url: Option<String>,
    /// The algorithms of its assertions; default: every asymmetric one.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// The name in its certificate (`tls_client_auth`, RFC 8705 §2.1.2): exactly one of these five.
    pub tls_client_auth_subject_dn: Option<String>,
    /// See there.
    pub tls_client_auth_san_dns: Option<String>,
    /// See there.
    pub tls_client_auth_san_uri: Option<String>,
    /// See there.
    pub tls_client_auth_san_ip: Option<IpAddr>,
    /// See there.
    pub tls_client_auth_san_email: Option<String>,
    /// Files with its certificates, PEM (`self_signed_tls_client_auth`).
    #[serde(default)]
    pub certificate_files: Vec<PathBuf>,
    /// Where it is told of logouts (Back-Channel Logout 1.0 §2.2).
    pub backchannel_logout_uri: Option<String>,
    /// It is told of sessions only, by their `sid`.
    #[serde(default)]
    pub backchannel_logout_session_required: bool,
}

/// See `client.auth_method`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// The secret in the `Authorization` header.
    #[default]
    ClientSecretBasic,
    /// The secret in the form.
    ClientSecretPost,
    /// A signed assertion.
    PrivateKeyJwt,
    /// A certificate of a certification authority.
    TlsClientAuth,
    /// A certificate of its own.
    SelfSignedTlsClientAuth,
    /// A public client.
    None,
}

/// `[certificate_header]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CertificateHeader {
    /// Which header.
    pub format: CertificateFormat,
    /// The addresses of the proxies that it counts from.
    pub proxies: Vec<IpAddr>,
    /// The header in which the proxy says that it verified the chain, such as `x-ssl-client-verify`.
    pub verified_header: Option<String>,
    /// Its value then, such as `SUCCESS`.
    pub verified_value: Option<String>,
    /// The proxy lets no connection through whose chain it has not verified.
    #[serde(default)]
    pub verified_always: bool,
}

/// See `certificate_header.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateFormat {
    /// RFC 9440.
    ClientCert,
    /// Envoy's.
    XForwardedClientCert,
}

/// `[directory]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Directory {
    /// Which one.
    pub kind: DirectoryKind,
    /// `file`: the file.
    pub path: Option<PathBuf>,
    /// `sql`: the database.
    pub url: Option<Secret>,
    /// `sql`: attribute and value to `issuer`, `sub`.
    pub find_users: Option<String>,
    /// `sql`: `issuer`, `sub` to `sid`.
    pub sessions_of_subject: Option<String>,
    /// `sql`: `issuer`, `jti` to `sid`.
    pub session_of_token: Option<String>,
}

/// See `directory.kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DirectoryKind {
    /// What tokens say of themselves.
    #[default]
    Claims,
    /// A TOML file.
    File,
    /// A database.
    Sql,
}

/// `[recorder]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Recorder {
    /// The path of the inner server's token endpoint.
    pub token_endpoint: String,
    /// The issuer of opaque tokens; default: the first.
    pub issuer: Option<String>,
    /// The key that opaque tokens are digested with, at least 32 bytes, the same on every node; default:
    /// `revoked-digest.key`, made where it is missing and the store is this machine's own.
    pub digest_key_file: Option<PathBuf>,
    /// The SQLite file that it learns into; default: `revoked-recorder.db`, or memory where the backend is `memory:`.
    pub store: Option<PathBuf>,
    /// Lets refresh tokens through that were issued before it came.
    #[serde(default)]
    pub adopt_unknown: bool,
}

/// `[endpoints]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    /// Token revocation (RFC 7009).
    pub token: Endpoint,
    /// Session revocation.
    pub session: Endpoint,
    /// Global token revocation.
    pub global: Endpoint,
    /// Metadata (RFC 8414).
    pub metadata: Metadata,
    /// Back-Channel Logout.
    pub backchannel_logout: BackchannelLogout,
    /// Security events.
    pub events: Events,
    /// Introspection (RFC 7662).
    pub introspection: IntrospectionEndpoint,
}

/// `[endpoints.token]`, `[endpoints.session]`, `[endpoints.global]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Whether it is on.
    pub enabled: bool,
    /// Default: the profile's.
    pub path: Option<String>,
    /// Who answers.
    pub mode: Mode,
    /// How far success reaches.
    pub wait: Wait,
    /// `wait = "all"`: for how long; then the answer is 503, and the revocation stands.
    pub wait_limit: Span,
    /// Session, global: what to do where several users match; default: the profile's.
    pub several_users: Option<SeveralUsers>,
    /// Global: what to answer where nobody matches, 404 or 204; default: the profile's.
    pub unknown_user: Option<u16>,
    /// Token: clients with the scope `revoke_any_token` may end tokens of others.
    pub allow_other_clients: bool,
    /// Token: `token=all` ends all of the client's tokens.
    pub allow_all: bool,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            enabled: true,
            path: None,
            mode: Mode::Terminate,
            wait: Wait::Local,
            wait_limit: Span::secs(5),
            several_users: None,
            unknown_user: None,
            allow_other_clients: false,
            allow_all: false,
        }
    }
}

/// `[endpoints.introspection]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IntrospectionEndpoint {
    /// Whether it is on.
    pub enabled: bool,
    /// Default: the profile's.
    pub path: Option<String>,
    /// Who answers.
    pub mode: IntrospectionMode,
    /// The scope that callers need; without one, no access token authenticates a caller.
    pub scope: Option<String>,
    /// A file with the private key that signs answers for those who ask for that (RFC 9701): JWK or PEM.
    pub signing_key_file: Option<PathBuf>,
}

/// See `endpoints.introspection.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntrospectionMode {
    /// The endpoint.
    #[default]
    Terminate,
    /// The server behind; what is revoked here is turned inactive.
    Overlay,
}

/// `[introspection]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Introspection {
    /// The issuer's introspection endpoint.
    pub url: String,
    /// The issuer of opaque tokens; default: the first.
    pub issuer: Option<String>,
    /// How this daemon authenticates itself there.
    #[serde(default)]
    pub auth_method: IntrospectionAuth,
    /// Its `client_id`.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<Secret>,
    /// A file with the raw secret.
    pub client_secret_file: Option<PathBuf>,
    /// A file with an access token.
    pub token_file: Option<PathBuf>,
    /// How long "active" is believed, at most.
    #[serde(default = "one_minute")]
    pub keep: Span,
    /// How long "not active" is believed.
    #[serde(default = "five_seconds")]
    pub keep_inactive: Span,
    /// How long an answer may take.
    #[serde(default = "two_seconds")]
    pub time_limit: Span,
    /// How many questions are asked at a time.
    #[serde(default = "at_once")]
    pub at_once: NonZeroUsize,
    /// Whom tokens must be for; default: not looked at.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Answers without `exp`.
    #[serde(default = "deny")]
    pub missing_exp: Missing,
    /// Asks over plain http too.
    #[serde(default)]
    pub allow_http: bool,
    /// The key that opaque tokens are digested with, as `recorder.digest_key_file`.
    pub digest_key_file: Option<PathBuf>,
}

/// See `introspection.auth_method`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntrospectionAuth {
    /// The secret in the `Authorization` header.
    #[default]
    ClientSecretBasic,
    /// The secret in the form.
    ClientSecretPost,
    /// An access token in the `Authorization` header.
    Bearer,
}

/// See `endpoints.*.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The endpoint.
    Terminate,
    /// The server behind, after the record.
    RecordThenForward,
    /// The server behind, and the record only if it answered with success.
    ForwardThenRecord,
}

/// See `endpoints.*.wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// This node enforces it.
    Local,
    /// Every node does.
    All,
}

/// See `endpoints.*.several_users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeveralUsers {
    /// Each of them.
    All,
    /// The first.
    First,
    /// None: 400.
    Refuse,
}

/// `[endpoints.metadata]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Whether it is on.
    pub enabled: bool,
    /// Gives `mtls_endpoint_aliases`.
    pub mtls_external_url: Option<String>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { enabled: true, mtls_external_url: None }
    }
}

/// `[endpoints.backchannel_logout]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackchannelLogout {
    /// Whether it is on.
    pub enabled: bool,
    /// Default: `/backchannel_logout`.
    pub path: Option<String>,
    /// `aud` of logout tokens: one of these.
    pub audience: Vec<String>,
    /// The longest time from `iat` to `exp`.
    pub max_lifetime: Option<Span>,
    /// What becomes of tokens with the scope `offline_access`.
    pub offline_access: Offline,
}

/// See `endpoints.backchannel_logout.offline_access`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offline {
    /// They stay, where the recorder knows which they are.
    #[default]
    Stays,
    /// They end too.
    Ends,
}

/// `[endpoints.events]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Events {
    /// Whether it is on.
    pub enabled: bool,
    /// Default: `/events`.
    pub path: Option<String>,
    /// `aud` of events: one of these.
    pub audience: Vec<String>,
}

/// `[[transmitter]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Transmitter {
    /// `iss` of its events, byte for byte.
    pub issuer: String,
    /// The algorithms of its events.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// A file with its JWK set.
    pub jwks_file: Option<PathBuf>,
    /// Where its JWK set is fetched.
    pub jwks_url: Option<String>,
    /// The bearer secret that it shows with each push.
    pub push_secret: Option<Secret>,
    /// A file with it.
    pub push_secret_file: Option<PathBuf>,
    /// Whose subjects it may speak of; default: its own.
    pub subject_issuer: Option<String>,
    /// How many events it may push, a second.
    pub rate: Option<std::num::NonZeroU32>,
    /// Where it is polled (RFC 8936).
    pub poll_url: Option<String>,
    /// A file with the bearer secret that is shown there.
    pub poll_secret_file: Option<PathBuf>,
}

/// `[logout_sender]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LogoutSenderSection {
    /// `iss` of its logout tokens, one of the issuers.
    pub issuer: String,
    /// A file with the private key that signs them: PEM or JWK.
    pub key_file: PathBuf,
    /// How many revocations may wait until their clients are told.
    pub queue: Option<usize>,
    /// How often to try each client.
    pub attempts: Option<u32>,
    /// Clients at plain http, for tests.
    #[serde(default)]
    pub allow_http: bool,
}

impl Config {
    /// Where a path in the file points to.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Where clients reach the main listener.
    pub fn external_url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        self.external_url.clone().unwrap_or_else(|| format!("{scheme}://{}", self.listen))
    }

    /// A URL of the file; that of a SQLite file is relative to the configuration's folder.
    pub fn url(&self, url: &str) -> String {
        match url.strip_prefix("sqlite://") {
            Some(path) if !path.starts_with('/') => format!("sqlite://{}", self.folder.join(path).display()),
            _ => url.to_owned(),
        }
    }
}

const fn loopback<const PORT: u16>() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), PORT)
}

const fn max_connections() -> usize {
    20_000
}

const fn shutdown_timeout() -> Span {
    Span::secs(10)
}

const fn five_seconds() -> Span {
    Span::secs(5)
}

const fn two_seconds() -> Span {
    Span::secs(2)
}

const fn at_once() -> NonZeroUsize {
    NonZeroUsize::MIN.saturating_add(63)
}

const fn deny() -> Missing {
    Missing::Deny
}

const fn one_minute() -> Span {
    Span::secs(60)
}

const fn one_hour() -> Span {
    Span::secs(60 * 60)
}

const fn list_entries() -> usize {
    1 << 20
}

fn backend_url() -> Secret {
    Secret::from("sqlite://revoked.db")
}
