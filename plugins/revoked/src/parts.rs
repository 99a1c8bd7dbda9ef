//! From keys of the configuration to parts of the library. Each says which key is wrong.

use std::{fs, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use tower_revocation::{
    backend::{self, Redis},
    denylist::{Denylist, Mode, Staleness, Tiered},
    directory::{ClaimsOnly, Directory, FileDirectory, SqlDirectory, SqlStatements},
    endpoint::{
        BackchannelLogoutEndpoint, CertificateHeader, CertificateName, Client, Clients, EventsEndpoint, LogoutSender,
        OfflineAccess, Poll, RegisteredClient, SecretMethod, Transmitter,
    },
    policy::{MissingClaim, MissingIat, NoToken, Policy},
    recorder::{MemoryStore, Recorder, RecorderStore, SqliteStore},
    response::Challenge,
    revocation::{Lifetimes, ScopeKind},
    rollout::{Rollout, Shadow},
    status_list::{
        MemoryIndex, SqliteIndex, Status, StatusIndex, StatusListPublisher, StatusLists, StatusListsBuilder,
        StatusPlace, Unavailable,
    },
    streams::EndStreams,
    sync::SyncConfig,
    token::{
        Algorithm, ClaimNames, Extractor, Identity, Introspection, IntrospectionCredentials, Issuer, JwksUrl,
        JwtVerifier, JwtVerifierBuilder, Keys, OpaqueKeys, Place, SigningKey, Verifier, VerifyError,
    },
};
use zeroize::Zeroizing;

use crate::{
    config::{self, Config, Fault},
    engine::Run,
};

/// The file that holds the digest key where the configuration names none.
const DIGEST_KEY: &str = "revoked-digest.key";
/// The file that the recorder learns into where the configuration names none.
const RECORDER: &str = "revoked-recorder.db";

/// The file with the indexes of a published status list where the configuration names none.
const STATUS_INDEX: &str = "revoked-status-index.db";

/// The settings of the replica.
pub(crate) fn sync(config: &Config, digest_key: Option<String>) -> SyncConfig {
    let after = config.staleness.after.0;
    let staleness = match config.staleness.then {
        config::Then::Refuse => Staleness::refuse_after(after),
        config::Then::Serve => Staleness::serve_after(after),
    };
    let mut sync = SyncConfig::new(staleness);
    sync.denylist.lifetimes = lifetimes(config);
    if let Some(budget) = config.backend.budget {
        sync.denylist.budget = budget;
    }
    if let Some(entries) = config.backend.entries_in_memory {
        sync.denylist.mode = Mode::Tiered(Tiered::default().entries(entries));
    }
    if let Some(node) = &config.backend.node {
        sync.node.clone_from(node);
    }
    sync.digest_key = digest_key;
    sync.keep_copy = config.backend.keep_copy.as_ref().map(|path| config.path(path));
    sync
}

/// Whether the URL of the store can be one; nothing is opened.
pub(crate) async fn check_backend(config: &Config) -> Result<(), Fault> {
    let url = config.backend.url.expose();
    let checked = match url.split_once(':').map_or("", |(scheme, _)| scheme).to_ascii_lowercase().as_str() {
        "sqlite" | "postgres" | "postgresql" | "nats" | "tls" => Ok(()),
        scheme if scheme.starts_with("redis") => Redis::options(url).map(drop),
        // Memory, or what is refused by its name.
        _ => backend::connect(url).await.map(drop),
    };
    checked.map_err(|error| Fault::new("backend.url", error))
}

fn lifetimes(config: &Config) -> Lifetimes {
    let tokens = &config.tokens;
    let lifetimes = Lifetimes::DEFAULT.leeway(tokens.leeway.0).skew(tokens.skew.0).max_lifetime(tokens.max_lifetime.0);
    match tokens.max_refresh_lifetime {
        Some(most) => lifetimes.max_refresh_lifetime(most.0),
        None => lifetimes,
    }
}

/// What of the policy is enforced, and for whom.
pub(crate) fn rollout(config: &Config) -> Result<Rollout, Fault> {
    let mut shadow = Shadow::NOTHING;
    for name in &config.rollout.shadow {
        shadow = shadow.and(name.parse().map_err(|error| Fault::new("rollout.shadow", error))?);
    }
    Ok(Rollout { shadow, percent: config.rollout.percent.0 })
}

/// What is done about what requests leave open.
pub(crate) fn policy(config: &Config) -> Policy {
    let tokens = &config.tokens;
    let no_token = match tokens.no_token {
        config::NoToken::Pass => NoToken::Pass,
        config::NoToken::Deny => NoToken::Deny,
    };
    let missing = |missing| match missing {
        config::Missing::Allow => MissingClaim::Allow,
        config::Missing::Deny => MissingClaim::Deny,
    };
    let missing_iat = match tokens.missing_iat {
        config::MissingIat::DenyIfCutoff => MissingIat::DenyIfCutoff,
        config::MissingIat::Deny => MissingIat::Deny,
        config::MissingIat::Allow => MissingIat::Allow,
    };
    Policy::default()
        .no_token(no_token)
        .missing_jti(missing(tokens.missing_jti))
        .missing_sid(missing(tokens.missing_sid))
        .missing_iat(missing_iat)
}

/// What ends what is open.
pub(crate) fn end_streams(config: &Config) -> Result<EndStreams, Fault> {
    let section = &config.streams;
    let kind = |name: &String| {
        let found = ScopeKind::ALL.into_iter().find(|kind| kind.as_str() == name);
        let all = || ScopeKind::ALL.map(ScopeKind::as_str).join(", ");
        found.ok_or_else(|| Fault::new("streams.scopes", format!("{name:?} is none of {}", all())))
    };
    let kinds = section.scopes.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
    if section.end == config::OnOff::Off {
        return Ok(EndStreams::off());
    }
    let options = EndStreams::default()
        .grace(section.grace.0)
        .at_expiry(section.at_expiry)
        .on_refresh(section.on_refresh)
        .when_stale(section.when_stale);
    Ok(if kinds.is_empty() { options } else { options.scopes(kinds) })
}

/// Where tokens are taken from; the second: also from forms.
pub(crate) fn extractor(config: &Config) -> Result<(Extractor, bool), Fault> {
    let (mut places, mut form) = (Vec::new(), false);
    for source in &config.tokens.sources {
        let fault = || {
            let what = format!("{source:?} is none of bearer, dpop, form, cookie:NAME and header:NAME");
            Fault::new("tokens.sources", what)
        };
        match source.split_once(':') {
            None if source == "bearer" => places.push(Place::Bearer),
            None if source == "dpop" => places.push(Place::Dpop),
            None if source == "form" => form = true,
            Some(("cookie", name)) if !name.is_empty() => places.push(Place::Cookie(name.to_owned())),
            Some(("header", name)) => places.push(Place::Header(name.parse().map_err(|_| fault())?)),
            _ => return Err(fault()),
        }
    }
    // What a form carries is shown to the guard as a bearer token.
    if form && !places.contains(&Place::Bearer) {
        return Err(Fault::new("tokens.sources", "\"form\" needs \"bearer\" beside it"));
    }
    if places.is_empty() {
        return Err(Fault::new("tokens.sources", "names no place; without one no token is ever found"));
    }
    let mut extractor = Extractor::new(places);
    for unused in &config.tokens.unused {
        extractor = match unused.split_once(':') {
            None if unused == "query" => extractor.unused_query(),
            None if unused == "websocket-protocol" => extractor.unused_websocket_protocol(),
            Some(("scheme", name)) if !name.is_empty() => extractor.unused_scheme(name),
            _ => {
                let what = format!("{unused:?} is none of query, websocket-protocol and scheme:NAME");
                return Err(Fault::new("tokens.unused", what));
            }
        };
    }
    Ok((extractor, form))
}

/// What challenges say.
pub(crate) fn challenge(config: &Config) -> Result<Challenge, Fault> {
    let mut challenge = Challenge::new();
    if let Some(scope) = &config.tokens.challenge_scope {
        challenge = challenge.scope(scope).map_err(|error| Fault::new("tokens.challenge_scope", error))?;
    }
    if let Some(url) = &config.tokens.resource_metadata {
        challenge = challenge.resource_metadata(url).map_err(|error| Fault::new("tokens.resource_metadata", error))?;
    }
    Ok(challenge)
}

/// The issuers; `access`: as guards need them, for access tokens only where that was asked for.
pub(crate) fn issuers(config: &Config, access: bool) -> Result<JwtVerifierBuilder, Fault> {
    if config.issuer.is_empty() {
        return Err(Fault::new("issuer", "at least one [[issuer]] is needed: without one no token can be verified"));
    }
    let mut builder = JwtVerifier::builder().leeway(config.tokens.leeway.0);
    for (index, section) in config.issuer.iter().enumerate() {
        let at = |key: &str| format!("issuer[{index}]{key}");
        if config.issuer[..index].iter().any(|other| other.issuer == section.issuer) {
            return Err(Fault::new(at(".issuer"), "another [[issuer]] has the same; join them"));
        }
        let mut issuer = Issuer::new(&section.issuer)
            .algorithms(algorithms(&section.algorithms, &at(".algorithms"))?)
            .claim_names(claim_names(&section.claims, config.profile));
        issuer = match (section.audience.is_empty(), section.any_audience) {
            (false, false) => issuer.audience(&section.audience),
            (true, true) => issuer.any_audience(),
            (true, false) => {
                let what = "is needed: whom tokens must be for; or say any_audience = true";
                return Err(Fault::new(at(".audience"), what));
            }
            (false, true) => return Err(Fault::new(at(".any_audience"), "contradicts audience")),
        };
        for keys in keys_of_issuer(config, section, index)? {
            issuer = issuer.keys(keys);
        }
        if access && section.require_at_jwt {
            issuer = issuer.require_at_jwt();
        }
        builder = builder.issuer(issuer);
    }
    Ok(builder)
}

/// The receiver of logout tokens; they are signed with the keys of the issuers.
pub(crate) fn backchannel_logout(config: &Config) -> Result<BackchannelLogoutEndpoint, Fault> {
    let section = &config.endpoints.backchannel_logout;
    let at = |key: &str| format!("endpoints.backchannel_logout.{key}");
    if section.audience.is_empty() {
        return Err(Fault::new(at("audience"), "is needed: the client_ids that are registered with the issuers"));
    }
    let mut issuers = Vec::new();
    for (index, section) in config.issuer.iter().enumerate() {
        let algorithms = algorithms(&section.algorithms, &format!("issuer[{index}].algorithms"))?;
        let issuer = Issuer::new(&section.issuer).algorithms(algorithms);
        issuers.push(keys_of_issuer(config, section, index)?.into_iter().fold(issuer, Issuer::keys));
    }
    let mut endpoint =
        BackchannelLogoutEndpoint::new(&section.audience, issuers).map_err(|error| Fault::new("issuer", error))?;
    if let Some(path) = &section.path {
        endpoint = endpoint.path(path).map_err(|error| Fault::new(at("path"), error))?;
    }
    if let Some(most) = section.max_lifetime {
        endpoint = endpoint.max_lifetime(most.0);
    }
    Ok(endpoint.offline_access(match section.offline_access {
        config::Offline::Stays => OfflineAccess::Stays,
        config::Offline::Ends => OfflineAccess::Ends,
    }))
}

/// The receiver of events, of these users.
pub(crate) fn events(config: &Config, directory: Arc<dyn Directory>) -> Result<EventsEndpoint, Fault> {
    let section = &config.endpoints.events;
    if section.audience.is_empty() {
        return Err(Fault::new("endpoints.events.audience", "is needed: whom events must be for"));
    }
    if config.transmitter.is_empty() {
        return Err(Fault::new("endpoints.events", "needs a [[transmitter]]: nobody could send any"));
    }
    let mut transmitters = Vec::new();
    for (index, section) in config.transmitter.iter().enumerate() {
        let at = |key: &str| format!("transmitter[{index}]{key}");
        if config.transmitter[..index].iter().any(|other| other.issuer == section.issuer) {
            return Err(Fault::new(at(".issuer"), "another [[transmitter]] has the same"));
        }
        let keys = match (&section.jwks_file, &section.jwks_url) {
            (Some(path), None) => Keys::jwks_file(config.path(path)),
            (None, Some(url)) => jwks_url(url),
            _ => return Err(Fault::new(at(""), "needs exactly one of jwks_file and jwks_url")),
        };
        let issuer = Issuer::new(&section.issuer).algorithms(algorithms(&section.algorithms, &at(".algorithms"))?);
        let mut transmitter = Transmitter::new(issuer.keys(keys));
        match (&section.push_secret, &section.push_secret_file) {
            (Some(secret), None) => transmitter = transmitter.push_secret(secret.expose()),
            (None, Some(path)) => {
                transmitter = transmitter.push_secret(&*secret_in(config, path, &at(".push_secret_file"))?);
            }
            (None, None) => {}
            (Some(_), Some(_)) => return Err(Fault::new(at(".push_secret_file"), "contradicts push_secret")),
        }
        if let Some(iss) = &section.subject_issuer {
            transmitter = transmitter.subject_issuer(iss);
        }
        if let Some(rate) = section.rate {
            transmitter = transmitter.rate(rate);
        }
        transmitters.push(transmitter);
    }
    let mut endpoint = EventsEndpoint::new(&section.audience, transmitters, directory)
        .map_err(|error| Fault::new("transmitter", error))?;
    if let Some(path) = &section.path {
        endpoint = endpoint.path(path).map_err(|error| Fault::new("endpoints.events.path", error))?;
    }
    Ok(endpoint)
}

/// The transmitters that are polled, each with the key of its URL.
pub(crate) fn polls(config: &Config) -> Result<Vec<(String, Poll)>, Fault> {
    let mut polls = Vec::new();
    for (index, section) in config.transmitter.iter().enumerate() {
        let at = |key: &str| format!("transmitter[{index}].{key}");
        let Some(url) = &section.poll_url else {
            if section.poll_secret_file.is_some() {
                return Err(Fault::new(at("poll_secret_file"), "needs poll_url"));
            }
            continue;
        };
        if !config.endpoints.events.enabled {
            return Err(Fault::new(at("poll_url"), "needs endpoints.events, which takes what is fetched"));
        }
        let mut poll = Poll::new(&section.issuer, url);
        if let Some(path) = &section.poll_secret_file {
            let secret = secret_in(config, path, &at("poll_secret_file"))?;
            let secret = std::str::from_utf8(&secret).map_err(|_| Fault::new(at("poll_secret_file"), "is no text"))?;
            poll = poll.bearer(secret);
        }
        polls.push((at("poll_url"), if is_loopback(url) { poll.allow_http() } else { poll }));
    }
    Ok(polls)
}

/// Who tells clients of logouts, if anybody does.
pub(crate) fn logout_sender(config: &Config, recorder: Option<Recorder>) -> Result<Option<LogoutSender>, Fault> {
    let told = config.client.iter().enumerate();
    let mut told = told.filter_map(|(index, client)| Some((index, client, client.backchannel_logout_uri.as_ref()?)));
    let Some(section) = &config.logout_sender else {
        return match told.next() {
            Some((index, ..)) => {
                Err(Fault::new(format!("client[{index}].backchannel_logout_uri"), "needs [logout_sender]"))
            }
            None => Ok(None),
        };
    };
    if !config.issuer.iter().any(|issuer| issuer.issuer == section.issuer) {
        return Err(Fault::new("logout_sender.issuer", "is no [[issuer]]"));
    }
    let path = config.path(&section.key_file);
    let key = SigningKey::file(&path)
        .map_err(|error| Fault::new("logout_sender.key_file", format!("{}: {error}", path.display())))?;
    let mut sender = LogoutSender::new(&section.issuer, key);
    for (_, client, uri) in told {
        sender = sender.client(&client.id, uri, client.backchannel_logout_session_required);
    }
    if let Some(recorder) = recorder {
        sender = sender.recorder(recorder);
    }
    if let Some(queue) = section.queue {
        sender = sender.queue(queue);
    }
    if let Some(attempts) = section.attempts {
        sender = sender.attempts(attempts);
    }
    Ok(Some(if section.allow_http { sender.allow_http() } else { sender }))
}

fn keys_of_issuer(config: &Config, section: &config::Issuer, index: usize) -> Result<Vec<Keys>, Fault> {
    let mut keys = Vec::new();
    if let Some(path) = &section.jwks_file {
        keys.push(Keys::jwks_file(config.path(path)));
    }
    if let Some(url) = &section.jwks_url {
        keys.push(jwks_url(url));
    }
    if let Some(path) = &section.pem_file {
        keys.push(Keys::pem(read(config, path, &format!("issuer[{index}].pem_file"))?.to_vec()));
    }
    if let Some(path) = &section.secret_file {
        keys.push(Keys::secret(secret_in(config, path, &format!("issuer[{index}].secret_file"))?.to_vec()));
    }
    if keys.is_empty() {
        let what = "has no keys; give jwks_file, jwks_url, pem_file or secret_file";
        return Err(Fault::new(format!("issuer[{index}]"), what));
    }
    Ok(keys)
}

fn is_loopback(url: &str) -> bool {
    url.parse::<http::Uri>().ok().is_some_and(|url| {
        let host = url.host().unwrap_or_default();
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Over plain http only from this machine.
fn jwks_url(url: &str) -> Keys {
    let loopback = is_loopback(url);
    let url = JwksUrl::new(url);
    if loopback { url.allow_http().into() } else { url.into() }
}

fn algorithms(names: &[String], key: &str) -> Result<Vec<Algorithm>, Fault> {
    names.iter().map(|name| name.parse().map_err(|error| Fault::new(key, error))).collect()
}

/// The status lists that tokens point to, where they count.
pub(crate) fn status_lists(config: &Config, verifier: &Arc<JwtVerifier>) -> Result<Option<StatusLists>, Fault> {
    let section = &config.status_list;
    let mut accepted = Vec::new();
    for name in &section.accept {
        let status = match name.as_str() {
            "suspended" => Ok(Status::SUSPENDED),
            number => number.parse().map(Status),
        };
        match status {
            Ok(Status::VALID | Status::INVALID) | Err(_) => {
                let what = format!("{name:?} is neither \"suspended\" nor a number from 2 to 255");
                return Err(Fault::new("status_list.accept", what));
            }
            Ok(status) => accepted.push(status),
        }
    }
    if !section.enabled {
        return Ok(None);
    }
    let lists = StatusLists::builder(Arc::clone(verifier))
        .allow_http(section.allow_http)
        .allow_private(section.allow_private)
        .redirects(section.redirects)
        .missing(match section.missing {
            config::Missing::Allow => MissingClaim::Allow,
            config::Missing::Deny => MissingClaim::Deny,
        })
        .unavailable(match section.unavailable {
            config::Unavailable::Refuse => Unavailable::Refuse,
            config::Unavailable::LastKnown => Unavailable::LastKnown,
            config::Unavailable::Allow => Unavailable::Allow,
        })
        .wait(section.wait.0)
        .timeout(section.timeout.0)
        .default_ttl(section.default_ttl.0)
        .max_ttl(section.max_ttl.0)
        .leeway(config.tokens.leeway.0)
        .max_list_bytes(section.max_list_bytes)
        .max_bytes(section.max_bytes)
        .max_lists(section.max_lists);
    let lists = accepted.into_iter().fold(lists, StatusListsBuilder::accept);
    lists.build().map(Some).map_err(|error| Fault::new("status_list", error))
}

/// The list that is published, where one is.
pub(crate) async fn published_list(
    config: &Config,
    denylist: &Arc<Denylist>,
    run: Run,
) -> Result<Option<Arc<StatusListPublisher>>, Fault> {
    let Some(section) = &config.status_list.publish else { return Ok(None) };
    let fault = |key: &str, what: &dyn std::fmt::Display| Fault::new(format!("status_list.publish.{key}"), what);
    if config.recorder.is_none() {
        let what = "needs [recorder]: the indexes are learnt from the tokens that the server behind issues";
        return Err(Fault::new("status_list.publish", what));
    }
    if !section.path.starts_with('/') || section.path.contains(['?', '#', '%']) || section.path.contains("//") {
        return Err(fault("path", &"is no plain path; write it like \"/statuslists/1\""));
    }
    let issuer = section.issuer.clone().unwrap_or_else(|| config.issuer[0].issuer.clone());
    if !config.issuer.iter().any(|known| known.issuer == issuer) {
        return Err(fault("issuer", &"is no [[issuer]]"));
    }
    if section.entries == 0 || section.entries > 1 << 27 {
        return Err(fault("entries", &"has to be between 1 and 134217728"));
    }
    let path = config.path(&section.key_file);
    let key = SigningKey::file(&path).map_err(|error| fault("key_file", &format!("{}: {error}", path.display())))?;
    let entries = section.entries as u64;
    let in_memory = section.index.is_none() && config.backend.url.expose() == "memory:";
    let index: Arc<dyn StatusIndex> = if run == Run::Dry || in_memory {
        Arc::new(MemoryIndex::new(entries))
    } else {
        let path = config.path(section.index.as_deref().unwrap_or(Path::new(STATUS_INDEX)));
        Arc::new(SqliteIndex::open(path, entries).await.map_err(|error| fault("index", &error))?)
    };
    let external_url = config.external_url();
    let uri = section.uri.clone().unwrap_or_else(|| format!("{}{}", external_url.trim_end_matches('/'), section.path));
    let list = StatusListPublisher::new(Arc::clone(denylist), index, key, issuer, uri, section.entries);
    Ok(Some(Arc::new(list.lasting(section.ttl.0, section.lifetime.0))))
}

pub(crate) fn claim_names(names: &config::ClaimNames, profile: config::Profile) -> ClaimNames {
    let config::ClaimNames { jti, sid, sub, client_id } = names;
    let mut all = ClaimNames::default();
    if profile == config::Profile::Janssen {
        all = all.status_list(StatusPlace::TopLevel);
    }
    if let Some(name) = jti {
        all = all.jti(name);
    }
    if let Some(name) = sid {
        all = all.sid(name);
    }
    if let Some(name) = sub {
        all = all.sub(name);
    }
    if let Some(name) = client_id {
        all = all.client_id(name);
    }
    all
}

/// Every algorithm that a client can sign with and whose key is public.
const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Who may call, `audience`: what their assertions may be for.
pub(crate) fn clients(
    config: &Config,
    audience: impl IntoIterator<Item = String>,
    access_tokens: Arc<JwtVerifier>,
) -> Result<Clients, Fault> {
    let mut clients = Clients::new().audience(audience).access_tokens(access_tokens);
    if let Some(section) = &config.certificate_header {
        clients = clients.certificate_header(certificate_header(section)?);
    }
    for (index, section) in config.client.iter().enumerate() {
        let at = format!("client[{index}]");
        let client = registered(config, section, &at)?.scopes(&section.scopes);
        for iss in &section.issuers {
            if !config.issuer.iter().any(|issuer| issuer.issuer == *iss) {
                return Err(Fault::new(format!("{at}.issuers"), format!("{iss:?} is no [[issuer]]")));
            }
        }
        clients =
            clients.client(client.issuers(issuers_of(config, section))).map_err(|error| Fault::new(&at, error))?;
    }
    Ok(clients)
}

/// The issuers that a client has a say over.
fn issuers_of<'a>(config: &'a Config, client: &'a config::Client) -> Vec<&'a str> {
    if client.issuers.is_empty() {
        config.issuer.iter().map(|issuer| issuer.issuer.as_str()).collect()
    } else {
        client.issuers.iter().map(String::as_str).collect()
    }
}

fn registered(config: &Config, section: &config::Client, at: &str) -> Result<RegisteredClient, Fault> {
    use config::AuthMethod;
    let id = section.id.as_str();
    let unused = |keys: &[(&str, bool)]| match keys.iter().find(|(_, set)| *set) {
        Some((key, _)) => {
            let what = "does not go with this auth_method; a client authenticates in one way";
            Err(Fault::new(format!("{at}.{key}"), what))
        }
        None => Ok(()),
    };
    let has_secret = [
        ("secret", section.secret.is_some()),
        ("secret_file", section.secret_file.is_some()),
        ("secret_sha256", section.secret_sha256.is_some()),
    ];
    let has_keys = [("jwks_file", section.jwks_file.is_some()), ("jwks_url", section.jwks_url.is_some())];
    let names = certificate_names(section);
    let has_names = [("tls_client_auth_*", !names.is_empty())];
    let has_certificates = [("certificate_files", !section.certificate_files.is_empty())];
    let method = match section.auth_method {
        AuthMethod::ClientSecretBasic => Some(SecretMethod::Basic),
        AuthMethod::ClientSecretPost => Some(SecretMethod::Post),
        _ => None,
    };
    match section.auth_method {
        AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost => {
            unused(&[has_keys.as_slice(), &has_names, &has_certificates].concat())?;
            let method = method.unwrap_or(SecretMethod::Basic);
            match (&section.secret, &section.secret_file, &section.secret_sha256) {
                (Some(secret), None, None) => Ok(RegisteredClient::confidential(id, secret.expose(), method)),
                (None, Some(path), None) => {
                    let secret = secret_in(config, path, &format!("{at}.secret_file"))?;
                    Ok(RegisteredClient::confidential(id, secret.as_slice(), method))
                }
                (None, None, Some(hex)) => {
                    let sha256 = sha256_from(hex).ok_or_else(|| {
                        Fault::new(format!("{at}.secret_sha256"), "is no SHA-256; write 64 hexadecimal digits")
                    })?;
                    Ok(RegisteredClient::confidential_sha256(id, sha256, method))
                }
                _ => Err(Fault::new(at, "needs exactly one of secret, secret_file and secret_sha256")),
            }
        }
        AuthMethod::PrivateKeyJwt => {
            unused(&[has_secret.as_slice(), &has_names, &has_certificates].concat())?;
            let algorithms = client_algorithms(section, at)?;
            RegisteredClient::private_key_jwt(id, keys_of_client(config, section, at)?, algorithms)
                .map_err(|error| Fault::new(at, error))
        }
        AuthMethod::TlsClientAuth => {
            unused(&[has_secret.as_slice(), &has_keys, &has_certificates].concat())?;
            match <[CertificateName; 1]>::try_from(names) {
                Ok([name]) => Ok(RegisteredClient::tls_client_auth(id, name)),
                Err(_) => Err(Fault::new(at, "needs exactly one of the tls_client_auth_* keys (RFC 8705 §2.1.2)")),
            }
        }
        AuthMethod::SelfSignedTlsClientAuth => {
            unused(&[has_secret.as_slice(), &has_keys, &has_names].concat())?;
            let mut sha256 = Vec::new();
            for path in &section.certificate_files {
                let key = format!("{at}.certificate_files");
                sha256.extend(
                    certificates(&config.path(path), &key)?.iter().map(|der| <[u8; 32]>::from(Sha256::digest(der))),
                );
            }
            Ok(RegisteredClient::self_signed_tls_client_auth(id, sha256))
        }
        AuthMethod::None => {
            unused(&[has_secret.as_slice(), &has_keys, &has_names, &has_certificates].concat())?;
            Ok(RegisteredClient::public(id))
        }
    }
}

fn client_algorithms(section: &config::Client, at: &str) -> Result<Vec<Algorithm>, Fault> {
    if section.algorithms.is_empty() {
        return Ok(ASYMMETRIC.to_vec());
    }
    algorithms(&section.algorithms, &format!("{at}.algorithms"))
}

/// The algorithms of clients' assertions, where any client makes some.
pub(crate) fn signing_algorithms(config: &Config) -> Vec<String> {
    let signs = |client: &&config::Client| client.auth_method == config::AuthMethod::PrivateKeyJwt;
    let mut names: Vec<String> = Vec::new();
    for client in config.client.iter().filter(signs) {
        let all = ASYMMETRIC.iter().map(|algorithm| algorithm.as_str().to_owned());
        let used: Vec<String> = if client.algorithms.is_empty() { all.collect() } else { client.algorithms.clone() };
        names.extend(used.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    names
}

fn keys_of_client(config: &Config, section: &config::Client, at: &str) -> Result<Keys, Fault> {
    match (&section.jwks_file, &section.jwks_url) {
        (Some(path), None) => Ok(Keys::jwks_file(config.path(path))),
        (None, Some(url)) => Ok(jwks_url(url)),
        _ => Err(Fault::new(at, "needs exactly one of jwks_file and jwks_url")),
    }
}

fn certificate_names(section: &config::Client) -> Vec<CertificateName> {
    let text = [
        (&section.tls_client_auth_subject_dn, CertificateName::SubjectDn as fn(String) -> CertificateName),
        (&section.tls_client_auth_san_dns, CertificateName::Dns),
        (&section.tls_client_auth_san_uri, CertificateName::Uri),
        (&section.tls_client_auth_san_email, CertificateName::Email),
    ];
    let names = text.into_iter().filter_map(|(value, name)| value.clone().map(name));
    names.chain(section.tls_client_auth_san_ip.map(CertificateName::Ip)).collect()
}

fn certificate_header(section: &config::CertificateHeader) -> Result<CertificateHeader, Fault> {
    let at = |key: &str| format!("certificate_header.{key}");
    if section.proxies.is_empty() {
        return Err(Fault::new(at("proxies"), "names nobody, so the header would never count"));
    }
    let proxies = section.proxies.iter().copied();
    let header = match section.format {
        config::CertificateFormat::ClientCert => CertificateHeader::client_cert(proxies),
        config::CertificateFormat::XForwardedClientCert => CertificateHeader::x_forwarded_client_cert(proxies),
    };
    match (&section.verified_header, &section.verified_value, section.verified_always) {
        (None, None, false) => Ok(header),
        (None, None, true) => Ok(header.verified_always()),
        (Some(name), Some(value), false) => {
            let name: HeaderName = name.parse().map_err(|_| Fault::new(at("verified_header"), "is no header name"))?;
            let value = HeaderValue::from_str(value).map_err(|_| Fault::new(at("verified_value"), "fits no header"))?;
            Ok(header.verified_where(name, value))
        }
        _ => {
            let what = "give verified_header with verified_value, or verified_always, or neither";
            Err(Fault::new("certificate_header", what))
        }
    }
}

/// Verifies the signed requests of the global endpoint: those of a client by that client's own keys, in the name of any
/// issuer that it has a say over.
pub(crate) struct Senders {
    by_id: Vec<(String, JwtVerifier)>,
}

/// What the type (`typ`) of signed requests is.
const SIGNED_REQUEST: &str = "global-token-revocation+jwt";

impl Senders {
    /// The senders with keys, for the endpoint at `url`; and each with the `iss` that it may use.
    pub(crate) fn new(config: &Config, url: &str) -> Result<(Self, Vec<(String, Client)>), Fault> {
        let (mut by_id, mut senders) = (Vec::new(), Vec::new());
        for (index, section) in config.client.iter().enumerate() {
            if section.auth_method != config::AuthMethod::PrivateKeyJwt {
                continue;
            }
            let at = format!("client[{index}]");
            let mut verifier = JwtVerifier::builder().leeway(config.tokens.leeway.0);
            for iss in issuers_of(config, section) {
                let issuer = Issuer::new(iss).algorithms(client_algorithms(section, &at)?).audience([url]);
                verifier =
                    verifier.issuer(issuer.keys(keys_of_client(config, section, &at)?).require_typ(SIGNED_REQUEST));
                let client = Client::confidential(&section.id).issuers(issuers_of(config, section));
                senders.push((iss.to_owned(), client.scopes(&section.scopes)));
            }
            by_id.push((section.id.clone(), verifier.build().map_err(|error| Fault::new(&at, error))?));
        }
        Ok((Self { by_id }, senders))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// By the keys of the client that the token names as its `sub`, and no others: whoever has no such key is not that
    /// client, and what becomes of another client's keys makes no difference.
    fn verified_by_its_own(
        &self,
        token: &str,
        verify: impl Fn(&JwtVerifier) -> Result<Identity, VerifyError>,
    ) -> Result<Identity, VerifyError> {
        let named = named_in(token).ok_or(VerifyError::Malformed)?;
        let known = self.by_id.iter().find(|(id, _)| *id == named);
        let (id, verifier) = known.ok_or(VerifyError::Signature)?;
        let identity = verify(verifier)?;
        if identity.sub() == Some(id) { Ok(identity) } else { Err(VerifyError::Signature) }
    }
}

/// The `sub` of a token that nobody has verified yet.
fn named_in(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

impl Verifier for Senders {
    fn verify(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.verified_by_its_own(token, |verifier| verifier.verify(token, now))
    }

    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.verified_by_its_own(token, |verifier| verifier.verify_expired(token, now))
    }

    fn epoch(&self) -> u64 {
        self.by_id.iter().map(|(_, verifier)| verifier.epoch()).sum()
    }
}

/// Who users are.
pub(crate) async fn directory(config: &Config) -> Result<Arc<dyn Directory>, Fault> {
    let section = &config.directory;
    let needed = |key: &str| Fault::new(format!("directory.{key}"), "is needed for this kind of directory");
    match section.kind {
        config::DirectoryKind::Claims => Ok(Arc::new(ClaimsOnly)),
        config::DirectoryKind::File => {
            let path = config.path(section.path.as_ref().ok_or_else(|| needed("path"))?);
            Ok(Arc::new(FileDirectory::open(path).map_err(|error| Fault::new("directory.path", error))?))
        }
        config::DirectoryKind::Sql => {
            let url = config.url(section.url.as_ref().ok_or_else(|| needed("url"))?.expose());
            // PostgreSQL writes parameters as $1.
            let postgres = !url.starts_with("sqlite:");
            let statement = |sql: &Option<String>| {
                sql.as_ref().map(|sql| if postgres { sql.replace("?1", "$1").replace("?2", "$2") } else { sql.clone() })
            };
            let mut statements = SqlStatements::default();
            statements.find_users = statement(&section.find_users);
            statements.sessions_of_subject = statement(&section.sessions_of_subject);
            statements.session_of_token = statement(&section.session_of_token);
            let directory = SqlDirectory::connect(&url, statements).await;
            Ok(Arc::new(directory.map_err(|error| Fault::new("directory.url", error))?))
        }
    }
}

/// The key that opaque tokens are digested with, and its id.
pub(crate) fn digest_key(config: &Config, run: Run) -> Result<Option<OpaqueKeys>, Fault> {
    match (&config.recorder, &config.introspection) {
        (Some(_), Some(_)) => {
            let what =
                "does not go with [recorder]: opaque tokens are asked about, or known by having been seen issued";
            Err(Fault::new("introspection", what))
        }
        (Some(recorder), None) => {
            digest_key_in(config, recorder.digest_key_file.as_deref(), "recorder.digest_key_file", run).map(Some)
        }
        (None, Some(asked)) => {
            digest_key_in(config, asked.digest_key_file.as_deref(), "introspection.digest_key_file", run).map(Some)
        }
        (None, None) => Ok(None),
    }
}

fn digest_key_in(config: &Config, named: Option<&Path>, at: &str, run: Run) -> Result<OpaqueKeys, Fault> {
    let path = config.path(named.unwrap_or(Path::new(DIGEST_KEY)));
    let own = ["memory:", "sqlite:"].iter().any(|kind| config.backend.url.expose().starts_with(kind));
    if named.is_none() && !own {
        let what = format!(
            "is needed where nodes share a store: a file with 32 random bytes, the same on every node (\
             `head -c 32 /dev/urandom > {DIGEST_KEY}`)"
        );
        return Err(Fault::new(at, what));
    }
    let fault = |error: std::io::Error| Fault::new(at, format!("{}: {error}", path.display()));
    let missing = named.is_none() && !path.exists();
    let key = match run {
        Run::Dry if missing => new_key().map_err(fault)?,
        Run::Real if missing => write_new_key(&path).map_err(fault)?,
        _ => Zeroizing::new(fs::read(&path).map_err(fault)?),
    };
    if key.len() < 32 {
        let what = format!("{} has fewer than 32 bytes", path.display());
        return Err(Fault::new(at, what));
    }
    // The nodes of a fleet compare the id, so it has to tell keys apart, and must not tell the key.
    let digest = Sha256::digest([b"revoked digest key id".as_slice(), &key].concat());
    let id: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    OpaqueKeys::new(id, key.to_vec()).map_err(|error| Fault::new(at, error))
}

/// Whom to ask about opaque tokens.
pub(crate) fn introspection(
    config: &Config,
    section: &config::Introspection,
    digests: OpaqueKeys,
) -> Result<Introspection, Fault> {
    let at = |key: &str| format!("introspection.{key}");
    let issuer = section.issuer.as_ref().or(config.issuer.first().map(|issuer| &issuer.issuer));
    let issuer = issuer.ok_or_else(|| Fault::new("issuer", "at least one [[issuer]] is needed"))?;
    let Some(known) = config.issuer.iter().find(|known| known.issuer == *issuer) else {
        return Err(Fault::new(at("issuer"), format!("{issuer:?} is no [[issuer]]")));
    };
    let credentials = introspection_credentials(config, section)?;
    let (url, issuer) = (section.url.as_str(), issuer.as_str());
    let introspection = if section.allow_http {
        Introspection::allowing_http(url, issuer, credentials, digests)
    } else {
        Introspection::new(url, issuer, credentials, digests)
    };
    let introspection = introspection.map_err(|error| Fault::new(at("url"), error))?;
    let missing_exp = match section.missing_exp {
        config::Missing::Allow => MissingClaim::Allow,
        config::Missing::Deny => MissingClaim::Deny,
    };
    Ok(introspection
        .keep(section.keep.0)
        .keep_inactive(section.keep_inactive.0)
        .time_limit(section.time_limit.0)
        .at_once(section.at_once)
        .audience(&section.audience)
        .missing_exp(missing_exp)
        .claim_names(claim_names(&known.claims, config.profile)))
}

fn introspection_credentials(
    config: &Config,
    section: &config::Introspection,
) -> Result<IntrospectionCredentials, Fault> {
    use config::IntrospectionAuth;
    let text = |path: &Path, key: &str| {
        let secret = secret_in(config, path, key)?;
        String::from_utf8(secret.to_vec()).map(Zeroizing::new).map_err(|_| Fault::new(key, "does not hold UTF-8"))
    };
    let (id, secret, file, token) =
        (&section.client_id, &section.client_secret, &section.client_secret_file, &section.token_file);
    if section.auth_method == IntrospectionAuth::Bearer {
        return match (id, secret, file, token) {
            (None, None, None, Some(path)) => {
                Ok(IntrospectionCredentials::bearer(&text(path, "introspection.token_file")?))
            }
            _ => Err(Fault::new("introspection", "auth_method = \"bearer\" needs token_file, and no client")),
        };
    }
    let secret = match (secret, file, token) {
        (Some(secret), None, None) => Zeroizing::new(secret.expose().to_owned()),
        (None, Some(path), None) => text(path, "introspection.client_secret_file")?,
        _ => return Err(Fault::new("introspection", "needs exactly one of client_secret and client_secret_file")),
    };
    let id = id.as_ref().ok_or_else(|| Fault::new("introspection.client_id", "is needed"))?;
    Ok(match section.auth_method {
        IntrospectionAuth::ClientSecretPost => IntrospectionCredentials::post(id, secret.as_str()),
        _ => IntrospectionCredentials::basic(id, &secret),
    })
}

/// A private key that signs what is issued here.
pub(crate) fn signing_key(config: &Config, path: &Path, key: &str) -> Result<SigningKey, Fault> {
    let path = config.path(path);
    SigningKey::file(&path).map_err(|error| Fault::new(key, format!("{}: {error}", path.display())))
}

/// 32 random bytes.
pub(crate) fn new_key() -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut key = Zeroizing::new(vec![0; 32]);
    getrandom::fill(&mut key).map_err(std::io::Error::other)?;
    Ok(key)
}

fn write_new_key(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let key = new_key()?;
    write_new_secret(path, &key)?;
    Ok(key)
}

/// Makes a file that only its owner can read; one that is there stays as it is.
pub(crate) fn write_new_secret(path: &Path, secret: &[u8]) -> std::io::Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(secret)?;
    file.sync_all()
}

/// Where the recorder learns into.
pub(crate) async fn recorder_store(
    config: &Config,
    section: &config::Recorder,
    run: Run,
) -> Result<Arc<dyn RecorderStore>, Fault> {
    if run == Run::Dry || (section.store.is_none() && config.backend.url.expose() == "memory:") {
        return Ok(Arc::new(MemoryStore::new()));
    }
    let path = config.path(section.store.as_deref().unwrap_or(Path::new(RECORDER)));
    Ok(Arc::new(SqliteStore::open(path).await.map_err(|error| Fault::new("recorder.store", error))?))
}

/// The certificates in a PEM file, DER.
pub(crate) fn certificates(path: &Path, key: &str) -> Result<Vec<rustls_pki_types::CertificateDer<'static>>, Fault> {
    use rustls_pki_types::pem::PemObject as _;
    let fault = |error: rustls_pki_types::pem::Error| Fault::new(key, format!("{}: {error}", path.display()));
    let found: Vec<_> = rustls_pki_types::CertificateDer::pem_file_iter(path)
        .map_err(fault)?
        .collect::<Result<_, _>>()
        .map_err(fault)?;
    if found.is_empty() {
        return Err(Fault::new(key, format!("{}: holds no certificate (PEM)", path.display())));
    }
    Ok(found)
}

fn read(config: &Config, path: &Path, key: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let path = config.path(path);
    fs::read(&path).map(Zeroizing::new).map_err(|error| Fault::new(key, format!("{}: {error}", path.display())))
}

/// The raw secret in a file; one newline at its end is an editor's.
pub(crate) fn secret_in(config: &Config, path: &Path, key: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let mut secret = read(config, path, key)?;
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
    if secret.is_empty() {
        return Err(Fault::new(key, format!("{} is empty", config.path(path).display())));
    }
    Ok(secret)
}

fn sha256_from(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}
