//! A whole deployment of one profile, over a real socket: the layer in front of a stand-in for an authorization server
//! and an API, with clients of every kind, users, a recorder and metadata. What a revocation does is seen from outside:
//! the API refuses an access token, and the token endpoint a refresh token.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::{Form, Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures_util::future::{self, BoxFuture, FutureExt};
use http::{HeaderName, HeaderValue, Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::util::MapRequestLayer;
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{Backend, Memory},
    directory::{Directory, DirectoryError, RecordedDirectory, User},
    endpoint::{
        CertificateHeader, CertificateName, Clients, Endpoints, FailureLimit, FrontLayer, GlobalEndpoint, PeerAddress,
        Profile, RegisteredClient, SecretMethod, SessionEndpoint, Switches, TokenEndpoint, metadata::Metadata,
    },
    recorder::{MemoryStore, Recorder, Replay},
    token::{Algorithm, Issuer, JwtVerifier, Keys, OpaqueKeys, Verify},
};

use crate::common::{self, AUDIENCE, Answer, ISSUER, SECRET, get, listen, raw, token, unix};

pub const OTHER: &str = "https://other.example/";
/// Where clients see the endpoints.
pub const URL: &str = "https://as.example";
pub const MTLS_URL: &str = "https://mtls.as.example";
/// What access tokens are for that authenticate callers.
const REVOCATION: &str = "https://as.example/revocation";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const CERTIFICATE: &str = include_str!("../common/client-one.pem");
const SELF_SIGNED: &str = include_str!("../common/client-two.pem");

pub const SESSION_SCOPE: &str = "revoke_session";
pub const GLOBAL_SCOPE: &str = "global_token_revocation";
/// The scope of access tokens that may revoke tokens, which no profile names.
pub const TOKEN_SCOPE: &str = "revoke_token";

pub fn unique() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

// Keys.

pub struct Signer(Ed25519KeyPair);

impl Signer {
    pub fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    pub fn keys(&self) -> Keys {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        Keys::jwks(json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "1", "x": x}).to_string())
    }

    /// `over` the usual claims; `null` takes one out.
    pub fn sign(&self, header: &Value, usual: Value, over: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(header), part(&merged(usual, over)));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.0.sign(input.as_bytes())))
    }
}

pub fn merged(mut usual: Value, over: &Value) -> Value {
    for (name, value) in over.as_object().unwrap() {
        match value {
            Value::Null => drop(usual.as_object_mut().unwrap().remove(name)),
            value => usual[name] = value.clone(),
        }
    }
    usual
}

/// The key of the client `jwt`.
static CLIENT_KEY: LazyLock<Signer> = LazyLock::new(Signer::new);

/// An assertion of the client `jwt`, with these claims over the usual ones.
pub fn assertion(over: &Value) -> String {
    let jti = format!("assertion-{}", unique());
    let usual = json!({"iss": "jwt", "sub": "jwt", "aud": URL, "iat": unix(), "exp": unix() + 120, "jti": jti});
    CLIENT_KEY.sign(&json!({"alg": "EdDSA"}), usual, over)
}

/// An access token that a client got for itself, for the revocation endpoints.
pub fn caller(client: &str, scope: &str) -> String {
    let jti = format!("caller-{}", unique());
    token(json!({"aud": REVOCATION, "sub": client, "client_id": client, "scope": scope, "jti": jti}))
}

/// What a JWT claims.
pub fn claims(jwt: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn issuer_for(audience: &str, iss: &str) -> Issuer {
    Issuer::new(iss).audience([audience]).algorithms([Algorithm::HS256]).keys(Keys::secret(SECRET))
}

pub fn api_verifier() -> JwtVerifier {
    let builder = JwtVerifier::builder();
    builder.issuer(issuer_for(AUDIENCE, ISSUER)).issuer(issuer_for(AUDIENCE, OTHER)).build().unwrap()
}

fn caller_verifier() -> JwtVerifier {
    JwtVerifier::builder().issuer(issuer_for(REVOCATION, ISSUER)).build().unwrap()
}

fn opaque_keys() -> OpaqueKeys {
    OpaqueKeys::new("k1", [7; 32]).unwrap()
}

// Clients.

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    STANDARD.decode(body).unwrap()
}

/// Each proves itself in another way and may log people out, but for `app`, `other` and `public`. A secret is the
/// client's id and `-secret`.
pub fn clients() -> Clients {
    let secret = |id: &str, method| RegisteredClient::confidential(id, format!("{id}-secret"), method);
    let both = [SESSION_SCOPE, GLOBAL_SCOPE];
    let name = CertificateName::SubjectDn("CN=client one,O=Example".to_owned());
    let sha256: [u8; 32] = Sha256::digest(der(SELF_SIGNED)).into();
    let all = [
        secret("app", SecretMethod::Basic),
        secret("other", SecretMethod::Basic),
        secret("admin", SecretMethod::Basic).scopes(both),
        // Form-encoded, no byte of it stays as it is.
        secret("either", SecretMethod::Either),
        RegisteredClient::confidential("an id:1", "p+q %", SecretMethod::Basic).scopes(both),
        secret("post", SecretMethod::Post).scopes(both),
        RegisteredClient::private_key_jwt("jwt", CLIENT_KEY.keys(), [Algorithm::EdDSA]).unwrap().scopes(both),
        RegisteredClient::tls_client_auth("tls", name).scopes(both),
        RegisteredClient::self_signed_tls_client_auth("self", [sha256]).scopes(both),
        RegisteredClient::public("public").scopes(both),
    ];
    let root = secret("root", SecretMethod::Basic).any_issuer().scopes(both).scopes(["revoke_any_token"]);
    let elsewhere = secret("elsewhere", SecretMethod::Basic).issuers([OTHER]).scopes(both);
    let header = CertificateHeader::client_cert([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    let header =
        header.verified_where(HeaderName::from_static("x-ssl-client-verify"), HeaderValue::from_static("SUCCESS"));
    let none = Clients::new()
        .audience([URL])
        .access_tokens(caller_verifier())
        .certificate_header(header)
        .failure_limit(FailureLimit::new(NonZeroU32::MAX, Duration::from_secs(1)));
    let all = all.into_iter().map(|client| client.issuers([ISSUER])).chain([root, elsewhere]);
    all.fold(none, |clients, client| clients.client(client).unwrap())
}

// People.

/// Users by attribute; can be out of reach, and counts how often it is asked.
#[derive(Default)]
pub struct People {
    known: Mutex<Vec<(User, String, String)>>,
    pub down: AtomicBool,
    /// Names users of every issuer, whichever it was asked for.
    pub careless: AtomicBool,
    asked: AtomicUsize,
}

impl People {
    pub fn add(&self, iss: &str, sub: &str, attribute: &str, value: &str) {
        self.known.lock().unwrap().push((User::new(iss, sub), attribute.to_owned(), value.to_owned()));
    }

    fn answer<'a, T: Send + 'a>(&self, answer: T) -> BoxFuture<'a, Result<T, DirectoryError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let down = self.down.load(Ordering::Relaxed);
        future::ready(if down { Err(DirectoryError::new("it is down")) } else { Ok(answer) }).boxed()
    }
}

impl Directory for People {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        let known = self.known.lock().unwrap();
        let same = |held: &str| match attribute {
            "email" => held.eq_ignore_ascii_case(value),
            _ => held == value,
        };
        let any_issuer = self.careless.load(Ordering::Relaxed);
        let wanted = known.iter().filter(|(user, name, held)| {
            (any_issuer || issuers.contains(&user.iss))
                && (name == attribute && same(held) || attribute == "sub" && user.sub == value)
        });
        let mut found: Vec<User> = Vec::new();
        for (user, ..) in wanted {
            if !found.contains(user) {
                found.push(user.clone());
            }
        }
        self.answer(found)
    }

    fn sessions_of<'a>(&'a self, _: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        self.answer(Vec::new())
    }

    fn session_of_token<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        self.answer(None)
    }
}

// What stands in for the authorization server.

#[derive(Clone, Default)]
struct Behind {
    /// What each refresh token was issued for. It never forgets one: whoever refuses a refresh is not this server.
    issued: Arc<Mutex<HashMap<String, HashMap<String, String>>>>,
    /// As TokenAuthority does: refresh tokens are JWTs that name neither user nor client.
    jwt_refresh_tokens: bool,
}

/// A token endpoint that believes everything: the parameters of the form say what is issued.
async fn issue(State(behind): State<Behind>, Form(form): Form<HashMap<String, String>>) -> axum::response::Response {
    let mut asked = form.clone();
    if let Some(token) = form.get("refresh_token") {
        let Some(known) = behind.issued.lock().unwrap().get(token).cloned() else {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "unknown_to_the_stand_in"}))).into_response();
        };
        asked = known;
    }
    let n = unique();
    let text = |name: &str| asked.get(name).cloned();
    let access = if asked.contains_key("opaque") {
        format!("opaque-access-{n}")
    } else {
        token(json!({
            "sub": text("username"), "client_id": text("client_id"), "sid": text("sid"), "jti": format!("access-{n}"),
        }))
    };
    let refresh = if behind.jwt_refresh_tokens {
        token(json!({"sub": null, "client_id": null, "jti": format!("refresh-{n}")}))
    } else {
        format!("refresh-{n}")
    };
    behind.issued.lock().unwrap().insert(refresh.clone(), asked.clone());
    let mut answer = json!({
        "access_token": access, "token_type": "Bearer", "expires_in": 600, "refresh_token": refresh,
        "scope": asked.get("scope").cloned().unwrap_or_default(),
    });
    if asked.contains_key("opaque") {
        // Else nothing says whose it is.
        answer["id_token"] = token(json!({"sub": text("username"), "sid": text("sid")})).into();
    }
    Json(answer).into_response()
}

// The site.

pub struct Paths {
    pub token: &'static str,
    pub session: &'static str,
    pub global: &'static str,
    pub metadata: &'static str,
    issue: &'static str,
}

const OAUTH: Paths = Paths {
    token: "/oauth/revoke",
    session: "/oauth/revoke_session",
    global: "/oauth/global-token-revocation",
    metadata: "/.well-known/oauth-authorization-server",
    issue: "/oauth/token",
};
const JANSSEN: Paths = Paths {
    token: "/jans-auth/restv1/revoke",
    session: "/jans-auth/restv1/revoke_session",
    global: "/jans-auth/restv1/global-token-revocation",
    metadata: "/jans-auth/.well-known/openid-configuration",
    issue: "/jans-auth/restv1/token",
};

/// What differs from the profile's full set.
pub struct Plan {
    pub profile: Profile,
    pub token: Box<dyn FnOnce(TokenEndpoint) -> TokenEndpoint>,
    pub session: Box<dyn FnOnce(SessionEndpoint) -> SessionEndpoint>,
    pub global: Box<dyn FnOnce(GlobalEndpoint) -> GlobalEndpoint>,
    pub metadata: Box<dyn FnOnce(Metadata) -> Metadata>,
    /// The metadata of the server behind.
    pub document: Value,
}

impl Plan {
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            token: Box::new(|token| token),
            session: Box::new(|session| session),
            global: Box::new(|global| global),
            metadata: Box::new(|metadata| metadata),
            document: json!({"issuer": ISSUER, "token_endpoint": "https://as.example/oauth/token"}),
        }
    }

    pub fn token(self, set: impl FnOnce(TokenEndpoint) -> TokenEndpoint + 'static) -> Self {
        Self { token: Box::new(set), ..self }
    }

    pub fn session(self, set: impl FnOnce(SessionEndpoint) -> SessionEndpoint + 'static) -> Self {
        Self { session: Box::new(set), ..self }
    }

    pub fn global(self, set: impl FnOnce(GlobalEndpoint) -> GlobalEndpoint + 'static) -> Self {
        Self { global: Box::new(set), ..self }
    }

    pub fn metadata(self, set: impl FnOnce(Metadata) -> Metadata + 'static) -> Self {
        Self { metadata: Box::new(set), ..self }
    }

    pub fn document(self, document: Value) -> Self {
        Self { document, ..self }
    }

    pub async fn start(self) -> Site {
        self.start_on(Memory::new()).await
    }

    pub async fn start_on(self, backend: impl Backend) -> Site {
        let token_authority = self.profile == Profile::TokenAuthority;
        let paths = if self.profile == Profile::Janssen { JANSSEN } else { OAUTH };
        let revocations = Revocations::start(backend, common::config()).await.unwrap();
        let people = Arc::new(People::default());
        let recorder = Recorder::new(revocations.clone(), MemoryStore::new(), opaque_keys(), ISSUER);
        let recorder = match token_authority {
            true => recorder.verifier(api_verifier()).replay(Replay::TokenAuthority).refresh_ends_access(true),
            false => recorder.verifier(api_verifier()),
        };
        let directory = Arc::new(RecordedDirectory::new(people.clone(), recorder.clone()));
        let token = TokenEndpoint::new(api_verifier(), clients()).directory(directory.clone());
        // Nothing is opaque to TokenAuthority, where every token is a JWT.
        let token = match token_authority {
            true => token,
            false => token
                .opaque(opaque_keys(), Duration::from_secs(3600))
                .bearer_scope(TOKEN_SCOPE)
                .jtis(recorder.clone(), [ISSUER]),
        };
        let mut endpoints = Endpoints::new(revocations.clone()).profile(self.profile).token((self.token)(token));
        if !token_authority {
            let session = SessionEndpoint::new(directory.clone(), [ISSUER, OTHER], clients());
            let global = GlobalEndpoint::new(directory, [ISSUER, OTHER], clients());
            endpoints = endpoints.session((self.session)(session)).global((self.global)(global));
        }
        let switches = endpoints.switches().clone();
        let check =
            RevocationLayer::new(revocations.denylist().clone(), Verify::new(api_verifier()).opaque(opaque_keys()));
        let layer = FrontLayer::new(check, endpoints)
            .unwrap()
            .metadata((self.metadata)(Metadata::new(URL)))
            .unwrap()
            .recorder(recorder, paths.issue)
            .unwrap();
        let behind = Behind { jwt_refresh_tokens: token_authority, ..Behind::default() };
        let document = self.document;
        let document = move || future::ready(Json(document.clone()));
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 4000));
        let router = Router::new()
            .route("/api", routing::get(|| async { "in" }))
            .route(paths.issue, routing::post(issue))
            .route(paths.metadata, routing::get(document))
            .fallback(|| async { "inner" })
            .with_state(behind)
            .layer(layer)
            .layer(MapRequestLayer::new(move |mut request: Request<_>| {
                request.extensions_mut().insert(PeerAddress(peer));
                request
            }));
        let (listener, address) = listen().await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Site { address, paths, revocations, switches, people, remembers_use: token_authority }
    }
}

pub struct Site {
    pub address: SocketAddr,
    pub paths: Paths,
    pub revocations: Revocations,
    pub switches: Switches,
    pub people: Arc<People>,
    remembers_use: bool,
}

/// The tokens of one login.
pub struct Login {
    pub access: String,
    pub refresh: String,
    client: String,
}

impl Site {
    /// Waits until the layer's clock, which is a few milliseconds behind, shows this second: what was issued until now
    /// is not in its future.
    pub async fn in_step(&self) {
        let now = unix();
        common::eventually("the same second", || async { self.revocations.denylist().now().unix() >= now }).await;
    }

    /// Waits for the next second: what is issued then is later than every cutoff until now.
    pub async fn next_second(&self) {
        let began = unix();
        common::eventually("the next second", || async { self.revocations.denylist().now().unix() > began }).await;
    }

    /// A new user, who has every attribute.
    pub fn user(&self) -> String {
        let n = unique();
        let sub = format!("user-{n}");
        for (attribute, value) in [
            ("uid", format!("uid-{n}")),
            ("email", format!("user-{n}@example.com")),
            ("account", format!("acct:user-{n}@example.com")),
            ("opaque", format!("id-{n}")),
            ("phone_number", format!("+1206555{n:05}")),
            ("did", format!("did:example:{n}")),
            ("uri", format!("https://users.example/{n}")),
            ("idp_sub", format!("00u{n}")),
        ] {
            self.people.add(ISSUER, &sub, attribute, &value);
        }
        sub
    }

    /// The value of a user's attribute.
    pub fn attribute(&self, sub: &str, attribute: &str) -> String {
        let known = self.people.known.lock().unwrap();
        let found = known.iter().find(|(user, name, _)| user.sub == sub && name == attribute);
        found.unwrap().2.clone()
    }

    /// The user logs in at a client, in a session of its own.
    pub async fn login(&self, sub: &str, client: &str) -> Login {
        self.login_with(sub, client, "").await
    }

    /// With more parameters: `sid=…` (one of its own), `opaque=yes`, `scope=…`.
    pub async fn login_with(&self, sub: &str, client: &str, more: &str) -> Login {
        let sid = if more.contains("sid=") { String::new() } else { format!("&sid=session-{}", unique()) };
        let body = format!("grant_type=password&client_id={client}&username={sub}{sid}&{more}");
        let answer = self.send(&Ask::form(self.paths.issue, &body)).await;
        assert_eq!(answer.status, 200, "the login itself: {}", answer.body);
        Login::of(&answer, client)
    }

    pub async fn send(&self, ask: &Ask) -> Answer {
        raw(self.address, ask.bytes()).await
    }

    /// What the API says to an access token.
    pub async fn api(&self, token: &str) -> Answer {
        get(self.address, "/api", &[&format!("authorization: Bearer {token}")]).await
    }

    pub async fn refresh(&self, login: &Login) -> Answer {
        let Login { refresh, client, .. } = login;
        let body = format!("grant_type=refresh_token&client_id={client}&refresh_token={refresh}");
        self.send(&Ask::form(self.paths.issue, &body)).await
    }

    /// Whether a refresh uses the refresh token up, and ends the access token.
    pub fn uses_up_refresh_tokens(&self) -> bool {
        self.remembers_use
    }

    pub fn records(&self) -> usize {
        self.revocations.denylist().records()
    }

    pub fn asked(&self) -> usize {
        self.people.asked.load(Ordering::Relaxed)
    }

    // Requests.

    /// Token revocation of these tokens.
    pub fn revoke(&self, tokens: &[&str]) -> Ask {
        Ask::form(self.paths.token, &format!("token={}", tokens.join("%20")))
    }

    pub fn end_sessions(&self, key: &str, value: &str) -> Ask {
        Ask::form(self.paths.session, &format!("user_criterion_key={key}&user_criterion_value={value}"))
    }

    pub fn log_out(&self, subject: &Value) -> Ask {
        self.global(json!({"sub_id": subject}).to_string())
    }

    pub fn global(&self, body: impl AsRef<[u8]>) -> Ask {
        Ask::new("POST", self.paths.global).header("content-type: application/json").body(body)
    }
}

impl Login {
    pub fn of(answer: &Answer, client: &str) -> Self {
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token"), client: client.to_owned() }
    }

    /// Of an access token that was issued before the recorder came.
    pub fn unseen(access: String) -> Self {
        Self { access, refresh: String::new(), client: String::new() }
    }
}

// Requests.

/// A request, to the byte.
#[derive(Clone)]
pub struct Ask {
    method: &'static str,
    target: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Ask {
    pub fn new(method: &'static str, target: &str) -> Self {
        Self { method, target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn form(target: &str, body: &str) -> Self {
        Self::new("POST", target).header("content-type: application/x-www-form-urlencoded").body(body)
    }

    pub fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_owned();
        self
    }

    pub fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub fn at(self, target: &str) -> Self {
        Self { target: target.to_owned(), ..self }
    }

    pub fn query(mut self, query: &str) -> Self {
        self.target += &format!("?{query}");
        self
    }

    /// One more parameter of the form.
    pub fn field(mut self, name: &str, value: &str) -> Self {
        let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let and = if self.body.is_empty() { "" } else { "&" };
        self.body.extend(format!("{and}{name}={value}").into_bytes());
        self
    }

    pub fn basic(self, id: &str) -> Self {
        self.basic_with(id, &format!("{id}-secret"))
    }

    /// What goes in must be encoded.
    pub fn basic_with(self, id: &str, secret: &str) -> Self {
        self.header(&format!("authorization: Basic {}", STANDARD.encode(format!("{id}:{secret}"))))
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header(&format!("authorization: Bearer {token}"))
    }

    pub fn post(self, id: &str) -> Self {
        self.id(id).field("client_secret", &format!("{id}-secret"))
    }

    pub fn id(self, id: &str) -> Self {
        self.field("client_id", id)
    }

    pub fn assertion(self, assertion: &str) -> Self {
        self.field("client_assertion_type", JWT_BEARER).field("client_assertion", assertion)
    }

    /// As a proxy tells of a certificate that it has verified: that of the client `tls`.
    pub fn certificate(self) -> Self {
        self.with_certificate(CERTIFICATE)
    }

    /// That of the client `self`.
    pub fn self_signed(self) -> Self {
        self.with_certificate(SELF_SIGNED)
    }

    fn with_certificate(self, pem: &str) -> Self {
        self.header(&format!("client-cert: :{}:", STANDARD.encode(der(pem)))).header("x-ssl-client-verify: SUCCESS")
    }

    fn bytes(&self) -> Vec<u8> {
        let mut request = format!("{} {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n", self.method, self.target);
        for header in &self.headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n", self.body.len());
        [request.as_bytes(), &self.body].concat()
    }
}
