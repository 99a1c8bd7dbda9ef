//! What every door asks: the replica, the guard, and the routes in front of the server behind.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri, header};
use tokio::time::timeout;
use tower_revocation::{
    Guard, Passed, RevocationLayer, Revocations, backend,
    denylist::Why,
    directory::{Directory, RecordedDirectory},
    endpoint::{
        Clients, EndpointName, Endpoints, EventReceiver, FrontLayer, GlobalEndpoint, Incomplete, IntrospectionEndpoint,
        IntrospectionOverlay, LogoutNotices, Mode, Polling, Profile, SessionEndpoint, SeveralUsers, SignedRequests,
        Switches, TokenEndpoint, UnknownUser, Wait, metadata::Metadata,
    },
    metrics::Metrics,
    recorder::{Recorder, Replay},
    reject::Rejection,
    report::Report,
    response::Denial,
    rollout::Rollout,
    status_list::{StatusListPublisher, StatusLists},
    streams::EndStreamsLayer,
    sync::StartError,
    token::{ExtractError, Extractor, FromExtension, Identity, JwtVerifier, OpaqueKeys, Verify},
};

use crate::{
    config::{self, Config, Fault},
    denials::Denials,
    parts,
};

/// Where identities come from: tokens that are verified here.
pub type Source = Verify<Arc<JwtVerifier>>;

/// How long a request may wait for a store that has to be asked.
const ASK_LIMIT: Duration = Duration::from_millis(100);

/// Everything that decides; the doors only translate.
pub struct Engine {
    revocations: Revocations,
    guard: Arc<Guard<Source>>,
    /// For claims that somebody in front has verified.
    vouched: Arc<Guard<FromExtension<Identity>>>,
    /// The same as `guard`, for operators who ask about a token: nothing is counted that no client sent.
    probe: Guard<Source>,
    /// The same, by the whole policy.
    strict_probe: Guard<Source>,
    lists: Option<StatusLists>,
    published: Option<Arc<StatusListPublisher>>,
    extractor: Extractor,
    reads_forms: bool,
    verifiers: Verifiers,
    learns: Option<Learns>,
    routes: Arc<ArcSwap<Routes>>,
    /// Ended with it.
    polls: Vec<(String, Polling)>,
    notices: Option<LogoutNotices>,
    /// What opaque tokens are digested with, where there can be any.
    opaque: Option<OpaqueKeys>,
    config: ArcSwap<Config>,
    denials: Denials,
}

/// The routes, as the configuration has them now.
struct Routes {
    front: FrontLayer<Source>,
    /// The same, and it ends what is open.
    streaming: EndStreamsLayer<FrontLayer<Source>>,
    switches: Vec<Switch>,
    turns: Switches,
    directory: Arc<dyn Directory>,
}

/// An endpoint that there is, and whether it is on.
#[derive(Clone, Debug)]
pub struct Switch {
    /// Which one.
    pub name: EndpointName,
    /// Where it answers.
    pub path: String,
    /// Whether it does.
    pub enabled: bool,
}

/// What the doors have counted since the start.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that passed, and would have been refused but for what is in shadow.
    pub would_refuse: u64,
    /// Requests that were served while the list was stale.
    pub served_stale: u64,
    /// Tokens without a claim, by its name.
    pub missing_claims: [(&'static str, u64); 3],
    /// Streams that are registered as open, now.
    pub open_streams: usize,
    /// Streams that were ended.
    pub ended_streams: u64,
    /// Streams that shadow mode would have ended.
    pub would_end_streams: u64,
}

/// A recorder.
struct Learns {
    recorder: Recorder,
}

struct Verifiers {
    /// For guards.
    access: Arc<JwtVerifier>,
    /// For endpoints, which end refresh tokens too; the same one unless access tokens have to have a type of their own.
    any: Arc<JwtVerifier>,
}

/// What an engine is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// To decide.
    Real,
    /// To see whether it could: nothing is made on disk.
    Dry,
}

/// Why the engine did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// A key of the configuration cannot be used.
    Config(Fault),
    /// The replica could not be started.
    Start(StartError),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(Fault { key, what }) => write!(f, "{key}: {what}"),
            Self::Start(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EngineError {}

impl From<Fault> for EngineError {
    fn from(fault: Fault) -> Self {
        Self::Config(fault)
    }
}

impl Engine {
    /// Connects to the store and begins to load what it holds; until that is in, nothing with a token passes.
    ///
    /// # Errors
    ///
    /// Where a key cannot be used, or the store refuses or cannot be reached.
    pub async fn start(config: Config) -> Result<Arc<Self>, EngineError> {
        let url = config.url(config.backend.url.expose());
        let backend = match config.backend.keep_copy {
            Some(_) => backend::connect_lazily(&url).await,
            None => backend::connect(&url).await,
        };
        let backend = backend.map_err(|error| EngineError::Start(error.into()))?;
        Self::start_on(backend, config, Run::Real).await
    }

    /// The same, in this process's memory and without making any file: to see whether a configuration can be used.
    ///
    /// # Errors
    ///
    /// Where a key cannot be used.
    pub async fn dry(mut config: Config) -> Result<Arc<Self>, EngineError> {
        parts::check_backend(&config).await?;
        config.backend.keep_copy = None;
        Self::start_on(backend::Memory::new(), config, Run::Dry).await
    }

    async fn start_on(backend: impl backend::Backend, config: Config, run: Run) -> Result<Arc<Self>, EngineError> {
        let verifiers = Verifiers::new(&config)?;
        let keys = parts::digest_key(&config, run)?;
        let digest_key = keys.as_ref().map(|keys| keys.current_id().to_owned());
        let sync = parts::sync(&config, digest_key);
        let revocations = Revocations::start_unloaded(backend, sync).await.map_err(EngineError::Start)?;
        let made = Self::around(revocations.clone(), config, run, verifiers, keys).await;
        if made.is_err() {
            // An orderly end, though it has hardly begun.
            revocations.shutdown().await;
        }
        made.map(Arc::new)
    }

    async fn around(
        revocations: Revocations,
        config: Config,
        run: Run,
        verifiers: Verifiers,
        keys: Option<OpaqueKeys>,
    ) -> Result<Self, EngineError> {
        let (extractor, reads_forms) = parts::extractor(&config)?;
        let challenge = parts::challenge(&config)?;
        let denylist = revocations.denylist();

        let mut source = Verify::new(Arc::clone(&verifiers.access)).extractor(extractor.clone());
        let mut probe = Verify::new(Arc::clone(&verifiers.access));
        let mut strict_probe = Verify::new(Arc::clone(&verifiers.access));
        let mut learns = None;
        if let (Some(section), Some(keys)) = (&config.introspection, &keys) {
            let asked = || parts::introspection(&config, section, keys.clone());
            source = source.introspect(asked()?);
            probe = probe.introspect(asked()?);
            strict_probe = strict_probe.introspect(asked()?);
        }
        let opaque = keys.clone();
        let published = parts::published_list(&config, denylist, run).await?;
        if let (Some(section), Some(keys)) = (&config.recorder, keys) {
            source = source.opaque(keys.clone());
            probe = probe.opaque(keys.clone());
            strict_probe = strict_probe.opaque(keys.clone());
            let issuer = section.issuer.clone().unwrap_or_else(|| config.issuer[0].issuer.clone());
            let store = parts::recorder_store(&config, section, run).await?;
            let mut recorder = Recorder::new(revocations.clone(), store, keys.clone(), issuer)
                .verifier(Arc::clone(&verifiers.access))
                .adopt_unknown(section.adopt_unknown);
            if config.profile == config::Profile::TokenAuthority {
                recorder = recorder.replay(Replay::TokenAuthority).refresh_ends_access(true);
            }
            if let Some(published) = &published {
                recorder = recorder.status_list(published);
            }
            learns = Some(Learns { recorder });
        }
        let rollout = parts::rollout(&config)?;
        let policy = parts::policy(&config).shadow(rollout.shadow).percent(rollout.percent);
        let mut guard = Guard::new(Arc::clone(denylist), source, policy).challenge(challenge.clone());
        let vouched = FromExtension::new().extractor(extractor.clone());
        let mut vouched = Guard::new(Arc::clone(denylist), vouched, policy).challenge(challenge);
        let mut probe = Guard::new(Arc::clone(denylist), probe, policy);
        let mut strict_probe = Guard::new(Arc::clone(denylist), strict_probe, parts::policy(&config));
        let lists = parts::status_lists(&config, &verifiers.access)?;
        if let Some(lists) = &lists {
            guard = guard.status_lists(lists.clone());
            vouched = vouched.status_lists(lists.clone());
            probe = probe.status_lists(lists.clone());
            strict_probe = strict_probe.status_lists(lists.clone());
        }
        let vouched = Arc::new(vouched);
        let guard = Arc::new(guard);
        let sender = parts::logout_sender(&config, learns.as_ref().map(|learns| learns.recorder.clone()))?;
        let notices = sender.map(|sender| sender.start().map_err(|error| Fault::new("logout_sender", error)));
        let notices = notices.transpose()?;
        let routes =
            Routes::new(&config, &revocations, &guard, &verifiers, learns.as_ref(), notices.as_ref(), opaque.as_ref())
                .await?;
        let routes = Arc::new(ArcSwap::from_pointee(routes));
        let mut polls = Vec::new();
        for ((key, poll), section) in parts::polls(&config)?
            .into_iter()
            .zip(config.transmitter.iter().filter(|section| section.poll_url.is_some()))
        {
            if run == Run::Real {
                let receiver = receiver_of(&routes);
                let polling = poll.start(receiver).map_err(|error| Fault::new(key, error))?;
                polls.push((section.issuer.clone(), polling));
            }
        }
        Ok(Self {
            opaque,
            guard,
            vouched,
            probe,
            strict_probe,
            lists,
            published,
            extractor,
            reads_forms,
            verifiers,
            learns,
            routes,
            polls,
            notices,
            config: ArcSwap::from_pointee(config),
            denials: Denials::default(),
            revocations,
        })
    }

    /// Takes over endpoints, clients, issuers and the directory of another configuration. Everything else stays as it is
    /// until a restart; the names of what differs there are returned.
    ///
    /// # Errors
    ///
    /// Where a key cannot be used. All stays as it is then.
    pub async fn reload(&self, config: Config) -> Result<Vec<&'static str>, EngineError> {
        let running = self.config.load_full();
        let stays = unlike(&running, &config);
        // What needs a restart goes on as it was, in what is made anew too.
        let config = Config {
            endpoints: config.endpoints,
            client: config.client,
            certificate_header: config.certificate_header,
            issuer: config.issuer,
            rollout: config.rollout,
            directory: config.directory,
            transmitter: with_polls_of(config.transmitter, &running.transmitter),
            ..(*running).clone()
        };
        let rollout = parts::rollout(&config)?;
        let verifiers = Verifiers::new(&config)?;
        if !Arc::ptr_eq(&verifiers.access, &verifiers.any) && Arc::ptr_eq(&self.verifiers.access, &self.verifiers.any) {
            let what = "was off for every issuer at the start; turning it on needs a restart";
            return Err(Fault::new("issuer.require_at_jwt", what).into());
        }
        let routes = Routes::new(
            &config,
            &self.revocations,
            &self.guard,
            &self.verifiers,
            self.learns.as_ref(),
            self.notices.as_ref(),
            self.opaque.as_ref(),
        )
        .await?;
        self.verifiers.replace(&config)?;
        self.routes.store(Arc::new(routes));
        self.guard.roll_out(rollout);
        self.vouched.roll_out(rollout);
        self.probe.roll_out(rollout);
        self.config.store(Arc::new(config));
        Ok(stays)
    }

    /// Judges a request by its head, as every door does. Only where the configuration needs it, a store is asked.
    ///
    /// # Errors
    ///
    /// Where the request is to be refused: the answer.
    pub async fn judge(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Passed, Denial> {
        let judged = match self.guard.check_or_ask(method, uri, headers, extensions).await {
            Ok(passed) if self.asks() => self.known(passed.identity(), uri, headers).await.map(|()| passed),
            judged => judged,
        };
        judged.map_err(|rejection| self.guard.denial(rejection, headers))
    }

    /// The same for a request whose token somebody in front has verified: `identity` is in its extensions.
    ///
    /// # Errors
    ///
    /// Where the request is to be refused: the answer.
    pub async fn judge_vouched(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        identity: Identity,
    ) -> Result<Identity, Denial> {
        let mut extensions = Extensions::new();
        extensions.insert(identity.clone());
        let judged = match self.vouched.check_or_ask(method, uri, headers, &extensions).await {
            Ok(_) if self.asks() => self.known(Some(&identity), uri, headers).await,
            judged => judged.map(|_| ()),
        };
        judged.map(|()| identity).map_err(|rejection| self.vouched.denial(rejection, headers))
    }

    /// Whether requests that the guard lets pass have to be held against a store.
    pub fn asks(&self) -> bool {
        self.learns.is_some() || self.config.load().tokens.unknown_session == config::Missing::Deny
    }

    /// Whether a request may wait for somebody else's answer.
    pub fn waits(&self) -> bool {
        self.asks() || self.config.load().introspection.is_some()
    }

    /// Holds a request that the guard let pass against what recorder and directory know: an opaque token has to be one
    /// that was seen issued, and, if that is asked for, a token's session has to be known.
    ///
    /// # Errors
    ///
    /// Where it is not known, or the store does not answer in time, and that is not in shadow.
    pub async fn known(&self, identity: Option<&Identity>, uri: &Uri, headers: &HeaderMap) -> Result<(), Rejection> {
        // What stands there otherwise, the guard has judged.
        let credential = self.extractor.find(headers, uri).ok().flatten();
        let known = self.known_token(identity, credential.map(|credential| credential.token())).await;
        known.or_else(|rejection| self.guard.reject(rejection, identity))
    }

    async fn known_token(&self, identity: Option<&Identity>, token: Option<&str>) -> Result<(), Rejection> {
        let asked = async {
            match (identity, &self.learns) {
                (Some(identity), _) if self.config.load().tokens.unknown_session == config::Missing::Deny => {
                    let Some(jti) = identity.jti() else { return Ok(false) };
                    let directory = Arc::clone(&self.routes.load().directory);
                    let session = directory.session_of_token(identity.iss(), jti).await;
                    session.map(|session| session.is_some()).map_err(|error| error.to_string())
                }
                (None, Some(Learns { recorder, .. })) => match token {
                    Some(token) => recorder.is_usable(token).await.map_err(|error| error.to_string()),
                    None => Ok(true),
                },
                _ => Ok(true),
            }
        };
        match timeout(ASK_LIMIT, asked).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Rejection::NotVerified),
            Ok(Err(error)) => {
                tracing::warn!(error, "a request is refused, since nobody could say whether its session is known");
                Err(Rejection::Unknown(Why::NoAnswer))
            }
            Err(_) => Err(Rejection::Unknown(Why::NoAnswer)),
        }
    }

    /// What the doors would say of a request with this token, without counting it as one; the second: what they would
    /// refuse it for, but for the roll-out.
    pub async fn probe(&self, token: &str) -> (Result<Passed, Rejection>, Option<Rejection>) {
        let strictly = self.probe_with(&self.strict_probe, token).await;
        if self.guard.rollout() == Rollout::COMPLETE {
            return (strictly, None);
        }
        let judged = self.probe_with(&self.probe, token).await;
        let shadowed = if judged.is_ok() { strictly.err() } else { None };
        (judged, shadowed)
    }

    async fn probe_with(&self, guard: &Guard<Source>, token: &str) -> Result<Passed, Rejection> {
        let mut headers = HeaderMap::new();
        let malformed = Rejection::Credential(ExtractError::Malformed);
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| malformed)?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
        let (uri, none) = (Uri::from_static("/"), Extensions::new());
        let passed = guard.check_or_ask(&Method::GET, &uri, &headers, &none).await?;
        if self.asks()
            && let Err(rejection) = self.known_token(passed.identity(), Some(token)).await
        {
            guard.reject(rejection, passed.identity())?;
        }
        Ok(passed)
    }

    /// The answer to a request with these headers that is refused for `rejection`.
    pub fn denial(&self, rejection: Rejection, headers: &HeaderMap) -> Denial {
        self.guard.denial(rejection, headers)
    }

    /// The layer with the routes, as they are now.
    pub fn front(&self) -> FrontLayer<Source> {
        self.routes.load().front.clone()
    }

    /// The same, for a door that holds what requests open, and ends it.
    pub fn streaming_front(&self) -> EndStreamsLayer<FrontLayer<Source>> {
        self.routes.load().streaming.clone()
    }

    /// The revocation endpoint that a request with this path is for.
    pub fn endpoint_at(&self, path: &str) -> Option<EndpointName> {
        self.routes.load().front.endpoint_at(path)
    }

    /// The requests that were refused last: each door puts its own there.
    pub const fn denials(&self) -> &Denials {
        &self.denials
    }

    /// Whether forms are searched for tokens.
    pub const fn reads_forms(&self) -> bool {
        self.reads_forms
    }

    /// The handle to the replica.
    pub const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The guard of all doors.
    pub const fn guard(&self) -> &Arc<Guard<Source>> {
        &self.guard
    }

    /// The status lists that tokens point to, where they count.
    pub const fn status_lists(&self) -> Option<&StatusLists> {
        self.lists.as_ref()
    }

    /// The status list that is published at this path.
    pub fn published_at(&self, path: &str) -> Option<&Arc<StatusListPublisher>> {
        let config = self.config.load();
        let at = config.status_list.publish.as_ref().is_some_and(|section| section.path == path);
        self.published.as_ref().filter(|_| at)
    }

    /// Verifies any token of the issuers, refresh tokens too.
    pub const fn verifier(&self) -> &Arc<JwtVerifier> {
        &self.verifiers.any
    }

    /// The recorder, where there is one.
    pub fn recorder(&self) -> Option<&Recorder> {
        self.learns.as_ref().map(|learns| &learns.recorder)
    }

    /// The keys that opaque tokens are digested with, where they are known by a recorder or asked about.
    pub const fn opaque_keys(&self) -> Option<&OpaqueKeys> {
        self.opaque.as_ref()
    }

    /// The endpoints that there are, as they are switched now.
    pub fn switches(&self) -> Vec<Switch> {
        let routes = self.routes.load();
        let now = |switch: &Switch| Switch { enabled: routes.turns.is_on(switch.name), ..switch.clone() };
        routes.switches.iter().map(now).collect()
    }

    /// Turns an endpoint on or off, until the configuration is read anew.
    pub fn switch(&self, name: EndpointName, on: bool) {
        self.routes.load().turns.set(name, on);
    }

    /// What the polls of transmitters have come to, by their `iss`.
    pub fn polls(&self) -> impl Iterator<Item = (&str, [(&'static str, u64); 3])> {
        self.polls.iter().map(|(iss, polling)| (iss.as_str(), polling.counts()))
    }

    /// What clients were told of logouts, where they are.
    pub fn logout_notices(&self) -> Option<&LogoutNotices> {
        self.notices.as_ref()
    }

    /// Tells clients of what an operator revoked.
    pub fn notify(&self, revoked: &tower_revocation::revocation::Revocation) {
        if let Some(notices) = &self.notices {
            notices.notify(std::slice::from_ref(revoked));
        }
    }

    /// What all doors together have counted.
    pub fn counts(&self) -> Counts {
        let (guard, vouched) = (&self.guard, &self.vouched);
        let mut missing_claims = guard.missing_claims();
        for ((_, count), (_, more)) in missing_claims.iter_mut().zip(vouched.missing_claims()) {
            *count += more;
        }
        Counts {
            refused: guard.refused() + vouched.refused(),
            would_refuse: guard.would_refuse() + vouched.would_refuse(),
            served_stale: guard.served_stale() + vouched.served_stale(),
            missing_claims,
            open_streams: guard.denylist().open_streams(),
            ended_streams: guard.denylist().ended_streams(),
            would_end_streams: guard.denylist().would_end_streams(),
        }
    }

    /// What is measured: of the doors, the replica and its store.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.revocations).guard(Arc::clone(&self.guard)).guard(Arc::clone(&self.vouched))
    }

    /// Who sends what is refused at a door, or would be.
    pub fn report(&self) -> Report {
        self.guard.report().joined(self.vouched.report())
    }

    /// Who users are, as the configuration has it now.
    pub fn directory(&self) -> Arc<dyn Directory> {
        Arc::clone(&self.routes.load().directory)
    }

    /// The configuration that is in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("revocations", &self.revocations).finish_non_exhaustive()
    }
}

impl Verifiers {
    fn new(config: &Config) -> Result<Self, Fault> {
        let access = Arc::new(parts::issuers(config, true)?.build().map_err(|error| Fault::new("issuer", error))?);
        let any = if config.issuer.iter().any(|issuer| issuer.require_at_jwt) {
            Arc::new(parts::issuers(config, false)?.build().map_err(|error| Fault::new("issuer", error))?)
        } else {
            Arc::clone(&access)
        };
        Ok(Self { access, any })
    }

    fn replace(&self, config: &Config) -> Result<(), Fault> {
        if !Arc::ptr_eq(&self.access, &self.any) {
            self.any.replace(parts::issuers(config, false)?).map_err(|error| Fault::new("issuer", error))?;
        }
        self.access.replace(parts::issuers(config, true)?).map_err(|error| Fault::new("issuer", error))
    }
}

impl Routes {
    async fn new(
        config: &Config,
        revocations: &Revocations,
        guard: &Arc<Guard<Source>>,
        verifiers: &Verifiers,
        learns: Option<&Learns>,
        notices: Option<&LogoutNotices>,
        opaque: Option<&OpaqueKeys>,
    ) -> Result<Self, EngineError> {
        let users = parts::directory(config).await?;
        let directory: Arc<dyn Directory> = match learns {
            Some(learns) => Arc::new(RecordedDirectory::new(users, learns.recorder.clone())),
            None => users,
        };
        let way = Ways::new(config);
        let clients = parts::clients(config, way.audience(config), Arc::clone(&verifiers.any))?;
        let issuers: Vec<_> = config.issuer.iter().map(|issuer| issuer.issuer.clone()).collect();
        let mut endpoints = Endpoints::new(revocations.clone()).profile(way.profile);
        let sections = &config.endpoints;

        if let Some(path) = way.path(EndpointName::Token, &sections.token) {
            let mut token = TokenEndpoint::new(Arc::clone(&verifiers.any), clients.clone())
                .directory(Arc::clone(&directory))
                .allow_other_clients(sections.token.allow_other_clients);
            token = token.path(&path).map_err(|error| Fault::new("endpoints.token.path", error))?;
            if sections.token.allow_all {
                token = token.allow_all(&issuers);
            }
            // Nothing is opaque to TokenAuthority, where every token is a JWT.
            if let Some(keys) = opaque.filter(|_| config.profile != config::Profile::TokenAuthority) {
                let lifetime = config.tokens.max_refresh_lifetime.unwrap_or(config.tokens.max_lifetime).0;
                token = token.opaque(keys.clone(), lifetime);
                if let Some(Learns { recorder }) = learns {
                    token = token.jtis(recorder.clone(), &issuers);
                }
            }
            endpoints = endpoints.token(token);
        }
        if let Some(path) = way.path(EndpointName::Session, &sections.session) {
            let mut session = SessionEndpoint::new(Arc::clone(&directory), &issuers, clients.clone());
            session = session.path(&path).map_err(|error| Fault::new("endpoints.session.path", error))?;
            if let Some(several) = sections.session.several_users {
                session = session.several_users(several_users(several));
            }
            endpoints = endpoints.session(session);
        }
        if let Some(path) = way.path(EndpointName::Global, &sections.global) {
            let mut global = GlobalEndpoint::new(Arc::clone(&directory), &issuers, clients.clone());
            global = global.path(&path).map_err(|error| Fault::new("endpoints.global.path", error))?;
            if let Some(several) = sections.global.several_users {
                global = global.several_users(several_users(several));
            }
            global = match sections.global.unknown_user {
                None => global,
                Some(404) => global.unknown_user(UnknownUser::NotFound),
                Some(204) => global.unknown_user(UnknownUser::NoContent),
                Some(other) => {
                    let what = format!("{other} is neither 404 nor 204");
                    return Err(Fault::new("endpoints.global.unknown_user", what).into());
                }
            };
            let (senders, known) = parts::Senders::new(config, &format!("{}{path}", way.external_url))?;
            if !senders.is_empty() {
                let signed = SignedRequests::verified_by(senders);
                let signed = known.into_iter().fold(signed, |signed, (iss, client)| signed.sender(iss, client));
                global = global.signed_jwt(signed);
            }
            endpoints = endpoints.global(global);
        }

        if sections.backchannel_logout.enabled {
            endpoints = endpoints.backchannel_logout(parts::backchannel_logout(config)?);
        }
        if sections.events.enabled {
            endpoints = endpoints.events(parts::events(config, Arc::clone(&directory))?);
        }
        if let Some(notices) = notices.cloned() {
            endpoints = endpoints.after_revocation(move |revoked| notices.notify(revoked));
        }

        let asked = &sections.introspection;
        let answers = asked.enabled && asked.mode == config::IntrospectionMode::Terminate;
        if answers {
            endpoints = endpoints.introspection(introspection(config, &way, clients, verifiers, learns)?);
        }
        for (name, section) in way.sections(config) {
            endpoints.switches().set(name, section.enabled);
            if section.wait == config::Wait::All {
                let limit = section.wait_limit.0;
                endpoints = endpoints.wait(name, Wait::Everywhere { limit, otherwise: Incomplete::Unavailable });
            }
        }
        let turns = endpoints.switches().clone();
        let switch = |(name, section): (EndpointName, &config::Endpoint)| {
            Some(Switch { name, path: way.path(name, section)?, enabled: section.enabled })
        };
        let mut switches: Vec<_> = way.sections(config).filter_map(switch).collect();
        let signals = [EndpointName::BackchannelLogout, EndpointName::Events];
        let more = endpoints.advertised().into_iter().filter(|(name, _)| signals.contains(name));
        switches.extend(more.map(|(name, path)| Switch { name, path: path.to_owned(), enabled: true }));
        if answers && let Some(path) = way.introspection_path(config) {
            switches.push(Switch { name: EndpointName::Introspection, path, enabled: true });
        }
        let mut front = FrontLayer::new(RevocationLayer::from(Arc::clone(guard)).insert_identity(true), endpoints)
            .map_err(|error| Fault::new("endpoints", error))?;
        for (name, section) in way.sections(config) {
            let mode = match section.mode {
                config::Mode::Terminate => Mode::Terminate,
                config::Mode::RecordThenForward => Mode::RecordThenForward,
                config::Mode::ForwardThenRecord => Mode::ForwardThenRecord,
            };
            if mode != Mode::Terminate && config.upstream.is_none() {
                let what = "needs [upstream]: there is nobody to forward to";
                return Err(Fault::new(format!("endpoints.{name}.mode"), what).into());
            }
            front = front.mode(name, mode);
        }
        if asked.enabled && asked.mode == config::IntrospectionMode::Overlay {
            front = overlaid(config, &way, front, opaque)?;
        }
        if sections.metadata.enabled {
            front = front.metadata(way.metadata(config)).map_err(|error| Fault::new("external_url", error))?;
        }
        if let (Some(section), Some(learns)) = (&config.recorder, learns) {
            front = front
                .recorder(learns.recorder.clone(), &section.token_endpoint)
                .map_err(|error| Fault::new("recorder.token_endpoint", error))?;
        }
        let streaming = front.clone().end_streams(parts::end_streams(config)?);
        Ok(Self { front, streaming, switches, turns, directory })
    }
}

/// The introspection endpoint.
fn introspection(
    config: &Config,
    way: &Ways,
    clients: Clients,
    verifiers: &Verifiers,
    learns: Option<&Learns>,
) -> Result<IntrospectionEndpoint, Fault> {
    let section = &config.endpoints.introspection;
    let mut endpoint = IntrospectionEndpoint::new(Arc::clone(&verifiers.any), clients);
    let path = way.introspection_path(config);
    let path = path.ok_or_else(|| Fault::new("endpoints.introspection.path", "is needed in this profile"))?;
    endpoint = endpoint.path(&path).map_err(|error| Fault::new("endpoints.introspection.path", error))?;
    if let Some(scope) = &section.scope {
        endpoint = endpoint.scope(scope);
    }
    if let Some(Learns { recorder }) = learns {
        endpoint = endpoint.recorder(recorder.clone());
    }
    if let Some(path) = &section.signing_key_file {
        let key = parts::signing_key(config, path, "endpoints.introspection.signing_key_file")?;
        endpoint = endpoint.signed(config.external_url(), key);
    }
    Ok(endpoint)
}

/// The introspection endpoint of the server behind, with the denylist heard.
fn overlaid(
    config: &Config,
    way: &Ways,
    front: FrontLayer<Source>,
    opaque: Option<&OpaqueKeys>,
) -> Result<FrontLayer<Source>, Fault> {
    let section = &config.endpoints.introspection;
    let at = |key: &str| format!("endpoints.introspection.{key}");
    if config.upstream.is_none() {
        return Err(Fault::new(at("mode"), "needs [upstream]: there is nobody to forward to"));
    }
    if section.scope.is_some() || section.signing_key_file.is_some() {
        let what = "is another's endpoint: leave scope and signing_key_file out";
        return Err(Fault::new(at("mode"), what));
    }
    let path = way.introspection_path(config);
    let path = path.ok_or_else(|| Fault::new(at("path"), "is needed in this profile"))?;
    let issuer = &config.issuer[0];
    let overlay = IntrospectionOverlay::new(&path, &issuer.issuer).map_err(|error| Fault::new(at("path"), error))?;
    let mut overlay = overlay.claim_names(parts::claim_names(&issuer.claims, config.profile));
    if let Some(keys) = opaque {
        overlay = overlay.opaque(keys.clone());
    }
    front.introspection(overlay).map_err(|error| Fault::new(at("path"), error))
}

/// What profile and external URL say.
struct Ways {
    profile: Profile,
    external_url: String,
}

impl Ways {
    fn new(config: &Config) -> Self {
        let profile = match config.profile {
            config::Profile::Standard => Profile::Standard,
            config::Profile::Janssen => Profile::Janssen,
            config::Profile::TokenAuthority => Profile::TokenAuthority,
        };
        Self { profile, external_url: config.external_url().trim_end_matches('/').to_owned() }
    }

    /// The path of an endpoint; `None` where there is no such endpoint.
    fn path(&self, name: EndpointName, section: &config::Endpoint) -> Option<String> {
        section.path.clone().or_else(|| self.profile.path(name).map(str::to_owned))
    }

    fn introspection_path(&self, config: &Config) -> Option<String> {
        let path = config.endpoints.introspection.path.clone();
        path.or_else(|| self.profile.path(EndpointName::Introspection).map(str::to_owned))
    }

    /// The endpoints that there are.
    fn sections<'a>(&self, config: &'a Config) -> impl Iterator<Item = (EndpointName, &'a config::Endpoint)> {
        let config::Endpoints { token, session, global, .. } = &config.endpoints;
        [(EndpointName::Token, token), (EndpointName::Session, session), (EndpointName::Global, global)]
            .into_iter()
            .filter(|(name, section)| self.path(*name, section).is_some())
    }

    /// Whom clients' assertions may be for: the server as a whole, its token endpoint, or the endpoint that is called.
    fn audience(&self, config: &Config) -> Vec<String> {
        let url = &self.external_url;
        let endpoints = self.sections(config).filter_map(|(name, section)| self.path(name, section));
        let token_endpoint = config.recorder.iter().map(|section| section.token_endpoint.clone());
        let introspection = self.introspection_path(config).filter(|_| config.endpoints.introspection.enabled);
        let mut audience: Vec<_> =
            endpoints.chain(token_endpoint).chain(introspection).map(|path| format!("{url}{path}")).collect();
        audience.extend([url.clone(), format!("{url}/")]);
        audience
    }

    fn metadata(&self, config: &Config) -> Metadata {
        use config::AuthMethod::{
            ClientSecretBasic, ClientSecretPost, None, PrivateKeyJwt, SelfSignedTlsClientAuth, TlsClientAuth,
        };
        let names = [
            (ClientSecretBasic, "client_secret_basic"),
            (ClientSecretPost, "client_secret_post"),
            (PrivateKeyJwt, "private_key_jwt"),
            (TlsClientAuth, "tls_client_auth"),
            (SelfSignedTlsClientAuth, "self_signed_tls_client_auth"),
            (None, "none"),
        ];
        let used: HashSet<_> = config.client.iter().map(|client| client.auth_method as usize).collect();
        let methods = names.into_iter().filter(|(method, _)| used.contains(&(*method as usize))).map(|(_, name)| name);
        let mut metadata = Metadata::new(config.external_url())
            .auth_methods(methods)
            .signing_algs(parts::signing_algorithms(config))
            .alone(config.upstream.is_none());
        if let Some(url) = &config.endpoints.metadata.mtls_external_url {
            metadata = metadata.mtls_external_url(url);
        }
        metadata
    }
}

const fn several_users(several: config::SeveralUsers) -> SeveralUsers {
    match several {
        config::SeveralUsers::All => SeveralUsers::All,
        config::SeveralUsers::First => SeveralUsers::First,
        config::SeveralUsers::Refuse => SeveralUsers::Refuse,
    }
}

/// What takes events that are fetched, as the routes are now.
fn receiver_of(routes: &Arc<ArcSwap<Routes>>) -> impl Fn() -> Option<EventReceiver> + Send + Sync + use<> {
    let routes = Arc::downgrade(routes);
    move || routes.upgrade()?.load().front.event_receiver()
}

/// The transmitters, polled as they were.
fn with_polls_of(mut new: Vec<config::Transmitter>, running: &[config::Transmitter]) -> Vec<config::Transmitter> {
    for section in &mut new {
        let before = running.iter().find(|before| before.issuer == section.issuer);
        section.poll_url = before.and_then(|before| before.poll_url.clone());
        section.poll_secret_file = before.and_then(|before| before.poll_secret_file.clone());
    }
    new
}

/// The sections that differ and that a reload does not take over.
fn unlike(running: &Config, new: &Config) -> Vec<&'static str> {
    let mut sections = Vec::new();
    let mut compare = |name, same: bool| {
        if !same {
            sections.push(name);
        }
    };
    compare("listen", running.listen == new.listen);
    compare("profile", running.profile == new.profile);
    compare("external_url", running.external_url == new.external_url);
    compare("max_connections", running.max_connections == new.max_connections);
    compare("shutdown_timeout", running.shutdown_timeout == new.shutdown_timeout);
    compare("tls", running.tls == new.tls);
    compare("upstream", running.upstream == new.upstream);
    compare("forward_auth", running.forward_auth == new.forward_auth);
    compare("ext_authz", running.ext_authz == new.ext_authz);
    compare("spoe", running.spoe == new.spoe);
    compare("admin", running.admin == new.admin);
    compare("backend", running.backend == new.backend);
    compare("staleness", running.staleness == new.staleness);
    compare("streams", running.streams == new.streams);
    compare("tokens", running.tokens == new.tokens);
    compare("recorder", running.recorder == new.recorder);
    compare("logout_sender", running.logout_sender == new.logout_sender);
    let polls = |config: &Config| {
        let polled = config.transmitter.iter().filter(|section| section.poll_url.is_some());
        polled.map(|section| (section.issuer.clone(), section.poll_url.clone())).collect::<Vec<_>>()
    };
    compare("transmitter.poll_url", polls(running) == polls(new));
    let told = |config: &Config| {
        let client = |client: &config::Client| {
            let uri = client.backchannel_logout_uri.clone();
            uri.map(|uri| (client.id.clone(), uri, client.backchannel_logout_session_required))
        };
        config.client.iter().filter_map(client).collect::<Vec<_>>()
    };
    compare("client.backchannel_logout_uri", told(running) == told(new));
    compare("introspection", running.introspection == new.introspection);
    compare("status_list", running.status_list == new.status_list);
    sections
}
