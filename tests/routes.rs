//! The session, global and token revocation routes of every profile, over real sockets.
//!
//! Tests and rows name the part of `wire-spec.md`, the rule of `design.md` (`rule_14`) or the lesson (`F32`) that they
//! hold the routes to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::{Router, routing::get};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use common::{AUDIENCE, Answer, ISSUER, SECRET, raw, token, unix};
use futures_util::future::{self, BoxFuture, FutureExt};
use serde_json::{Value, json};
use tower_revocation::{
    RevocationLayer, Revocations,
    directory::{ClaimsOnly, Directory, DirectoryError, FileDirectory, SqlDirectory, SqlStatements, User},
    endpoint::{
        AuditRecord, Client, Clients, CutoffChoice, EndpointError, EndpointLayer, EndpointName, Endpoints, FrontLayer,
        GlobalEndpoint, JsonLines, Profile, RegisteredClient, SecretMethod, SessionEndpoint, SeveralUsers,
        SignedRequests, Switches, TokenEndpoint, UnknownUser,
    },
    recorder::{MemoryStore, Recorder},
    revocation::{Revocation, Scope},
    token::{Algorithm, Extractor, Issuer, JwtConfigError, JwtVerifier, Keys, OpaqueKeys, Place, Verify},
};

const OTHER: &str = "https://other.example/";
const FORM: &str = "content-type: application/x-www-form-urlencoded";
const JSON: &str = "content-type: application/json";
const SKEW: u64 = 30;

const STANDARD_PATHS: [&str; 3] = ["/oauth/revoke", "/oauth/revoke_session", "/oauth/global-token-revocation"];
const JANSSEN_PATHS: [&str; 3] =
    ["/jans-auth/restv1/revoke", "/jans-auth/restv1/revoke_session", "/jans-auth/restv1/global-token-revocation"];

// People.

/// A directory that counts how often it is asked, and can be down.
#[derive(Default)]
struct People {
    down: AtomicBool,
    asked: AtomicUsize,
}

impl People {
    fn answer<'a, T: Send + 'a>(&self, answer: T) -> BoxFuture<'a, Result<T, DirectoryError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let down = self.down.load(Ordering::Relaxed);
        future::ready(if down { Err(DirectoryError::new("it is down")) } else { Ok(answer) }).boxed()
    }
}

/// Issuer, `sub`, attribute, value.
const PEOPLE: [(&str, &str, &str, &str); 12] = [
    (OTHER, "theirs", "uid", "breakfast"),
    (ISSUER, "alice", "uid", "breakfast"),
    (ISSUER, "alice", "email", "alice@example.com"),
    (ISSUER, "alice", "account", "acct:alice@example.com"),
    (ISSUER, "alice", "opaque", "11112222333344445555"),
    (ISSUER, "alice", "phone_number", "+12065550100"),
    (ISSUER, "alice", "did", "did:example:123456"),
    (ISSUER, "alice", "uri", "https://user.example.com/"),
    (ISSUER, "alice", "idp_sub", "00u1"),
    (ISSUER, "alice", "team", "red"),
    (ISSUER, "bob", "team", "red"),
    (OTHER, "theirs", "team", "blue"),
];

impl Directory for People {
    fn find_users<'a>(
        &'a self,
        attribute: &'a str,
        value: &'a str,
        issuers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<User>, DirectoryError>> {
        let wanted = |(iss, sub, name, held): &(&str, &str, &str, &str)| {
            let matches = (*name == attribute && *held == value) || (attribute == "sub" && *sub == value);
            (matches && issuers.iter().any(|known| known == iss)).then(|| User::new(*iss, *sub))
        };
        self.answer(PEOPLE.iter().filter_map(wanted).collect())
    }

    fn sessions_of<'a>(&'a self, user: &'a User) -> BoxFuture<'a, Result<Vec<String>, DirectoryError>> {
        let known = if user.sub == "alice" { vec!["alice-1".to_owned(), "alice-2".to_owned()] } else { Vec::new() };
        self.answer(known)
    }

    fn session_of_token<'a>(
        &'a self,
        iss: &'a str,
        jti: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, DirectoryError>> {
        let known = iss == ISSUER && jti.starts_with("family-");
        self.answer(known.then(|| "family".to_owned()))
    }
}

// The server.

fn basic(id: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(format!("{id}:{id}-secret")))
}

fn clients() -> Clients {
    let confidential = |id: &str| RegisteredClient::confidential(id, format!("{id}-secret"), SecretMethod::Basic);
    let scopes = ["revoke_session", "global_token_revocation"];
    [
        confidential("admin").issuers([ISSUER]).scopes(scopes),
        confidential("root").any_issuer().scopes(scopes).scopes(["revoke_any_token"]),
        confidential("elsewhere").issuers(["https://nowhere.example/"]).scopes(scopes),
        confidential("app").issuers([ISSUER]),
        RegisteredClient::public("spa").issuers([ISSUER]).scopes(scopes),
    ]
    .into_iter()
    .fold(Clients::new(), |clients, client| clients.client(client).unwrap())
}

fn verifier() -> JwtVerifier {
    let issuer =
        |iss: &str| Issuer::new(iss).audience([AUDIENCE]).algorithms([Algorithm::HS256]).keys(Keys::secret(SECRET));
    JwtVerifier::builder().issuer(issuer(ISSUER)).issuer(issuer(OTHER)).build().unwrap()
}

struct Setup {
    profile: Profile,
    token: TokenEndpoint,
    session: Option<SessionEndpoint>,
    global: Option<GlobalEndpoint>,
    people: Arc<People>,
}

impl Setup {
    fn new(profile: Profile) -> Self {
        let people = Arc::new(People::default());
        let has_users = profile != Profile::TokenAuthority;
        let issuers = [ISSUER, OTHER];
        Self {
            profile,
            token: TokenEndpoint::new(verifier(), clients()).directory(people.clone()),
            session: has_users.then(|| SessionEndpoint::new(people.clone(), issuers, clients())),
            global: has_users.then(|| GlobalEndpoint::new(people.clone(), issuers, clients())),
            people,
        }
    }

    fn token(mut self, set: impl FnOnce(TokenEndpoint) -> TokenEndpoint) -> Self {
        self.token = set(self.token);
        self
    }

    fn session(mut self, set: impl FnOnce(SessionEndpoint) -> SessionEndpoint) -> Self {
        self.session = self.session.map(set);
        self
    }

    fn global(mut self, set: impl FnOnce(GlobalEndpoint) -> GlobalEndpoint) -> Self {
        self.global = self.global.map(set);
        self
    }

    async fn start(self) -> Server {
        self.start_with(|endpoints| endpoints).await
    }

    async fn start_with(self, set: impl FnOnce(Endpoints) -> Endpoints) -> Server {
        let revocations = common::revocations().await;
        // Where the service behind has clients of its own, Basic is no token.
        let verify = Verify::new(verifier()).extractor(Extractor::new([Place::Bearer]).unused_scheme("Basic"));
        let check = RevocationLayer::new(revocations.denylist().clone(), verify);
        let mut endpoints = Endpoints::new(revocations.clone()).token(self.token);
        if let Some(session) = self.session {
            endpoints = endpoints.session(session);
        }
        if let Some(global) = self.global {
            endpoints = endpoints.global(global);
        }
        let endpoints = set(endpoints.profile(self.profile));
        let switches = endpoints.switches().clone();
        let layer = EndpointLayer::new(check, endpoints).unwrap();
        let router = Router::new().route("/", get(|| async { "in" })).fallback(|| async { "inner" }).layer(layer);
        let (listener, address) = common::listen().await;
        tokio::spawn(async move { axum::serve(listener, router).await });
        let paths = if self.profile == Profile::Janssen { JANSSEN_PATHS } else { STANDARD_PATHS };
        Server { address, paths, revocations, switches, people: self.people }
    }
}

struct Server {
    address: SocketAddr,
    paths: [&'static str; 3],
    revocations: Revocations,
    switches: Switches,
    people: Arc<People>,
}

impl Server {
    async fn send(&self, method: &str, target: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let mut request = format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n", body.len());
        raw(self.address, [request.as_bytes(), body].concat()).await
    }

    async fn revoke(&self, client: &str, token: &str) -> Answer {
        let body = format!("token={}", token.replace(' ', "%20"));
        self.send("POST", self.paths[0], &[FORM, &basic(client)], body).await
    }

    async fn session(&self, client: &str, body: &str) -> Answer {
        self.send("POST", self.paths[1], &[FORM, &basic(client)], body).await
    }

    async fn global(&self, client: &str, body: impl AsRef<[u8]>) -> Answer {
        self.send("POST", self.paths[2], &[JSON, &basic(client)], body).await
    }

    /// What the service behind says to a request with this token.
    async fn status(&self, token: &str) -> u16 {
        common::get(self.address, "/", &[&format!("authorization: Bearer {token}")]).await.status
    }

    async fn assert_alive(&self, tokens: &[&str]) {
        for token in tokens {
            assert_eq!(self.status(token).await, 200);
        }
    }

    async fn assert_dead(&self, tokens: &[&str]) {
        for token in tokens {
            assert_eq!(self.status(token).await, 401);
        }
    }

    fn asked(&self) -> usize {
        self.people.asked.load(Ordering::Relaxed)
    }

    fn records(&self) -> usize {
        self.revocations.denylist().records()
    }
}

#[track_caller]
fn assert_answer(answer: &Answer, status: u16, error: &str, row: &str) {
    assert_eq!(answer.status, status, "{row}: {}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{row}");
    if error.is_empty() {
        assert_eq!(answer.body, "", "{row}");
    } else {
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(json["error"], error, "{row}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{row}");
    }
    // RFC 9110 §15.5.2: a 401 has a challenge.
    assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{row}");
    assert_eq!(answer.header("retry-after").is_some(), matches!(status, 503 | 422), "{row}");
}

fn jti() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A token of a login at the client `app`.
fn login(sub: &str, sid: &str) -> String {
    token(json!({"sub": sub, "sid": sid, "jti": jti(), "iat": unix() - 5}))
}

// Paths and switches.

#[tokio::test]
async fn paths_follow_the_profile_and_can_be_set() {
    for (profile, ours, theirs) in [
        (Profile::Standard, &STANDARD_PATHS[..], &JANSSEN_PATHS[..]),
        (Profile::Janssen, &JANSSEN_PATHS[..], &STANDARD_PATHS[..]),
        (Profile::TokenAuthority, &STANDARD_PATHS[..1], &STANDARD_PATHS[1..]),
    ] {
        let server = Setup::new(profile).start().await;
        for path in ours {
            assert_eq!(server.send("GET", path, &[], "").await.status, 405, "{path}");
            assert_eq!(server.send("POST", &format!("{path}/"), &[], "").await.status, 400, "{path}/");
            let doubled = path.replacen('/', "//", 1);
            assert_eq!(server.send("POST", &doubled, &[], "").await.status, 400, "{doubled}");
        }
        for path in theirs.iter().chain(&["/oauth/revoke2", "/oauth/", "/"]) {
            assert_eq!(server.send("GET", path, &[], "").await.status, 200, "{path}");
        }
    }
    let server = Setup::new(Profile::Standard).session(|session| session.path("/end").unwrap()).start().await;
    assert_eq!(server.send("GET", "/end", &[], "").await.status, 405);
    assert_eq!(server.send("GET", STANDARD_PATHS[1], &[], "").await.body, "inner");
}

#[tokio::test]
async fn endpoints_without_a_path_to_themselves_are_refused() {
    let revocations = common::revocations().await;
    let build = |endpoints: Endpoints| {
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        EndpointLayer::new(check, endpoints).unwrap_err()
    };
    let session = || SessionEndpoint::new(ClaimsOnly, [ISSUER], clients());
    let endpoints = || Endpoints::new(revocations.clone()).profile(Profile::TokenAuthority);
    let error = build(endpoints().session(session()));
    assert_eq!(error, EndpointError::NoPath { endpoint: EndpointName::Session });
    let same = session().path("/oauth/revoke").unwrap();
    let error = build(endpoints().token(TokenEndpoint::new(verifier(), clients())).session(same));
    assert_eq!(error, EndpointError::SamePath { path: "/oauth/revoke".to_owned() });
}

/// §3, §26.6: an endpoint that is off is the inner server's, or 403 after authentication; it is never a silent 200.
#[tokio::test]
async fn s3_endpoints_can_be_switched_off_while_they_run() {
    let alice = login("alice", "s");
    let bodies = [
        format!("token={alice}"),
        "user_criterion_key=uid&user_criterion_value=breakfast".to_owned(),
        json!({"sub_id": {"format": "opaque", "id": "11112222333344445555"}}).to_string(),
    ];
    for profile in [Profile::Standard, Profile::Janssen] {
        let server = Setup::new(profile).start().await;
        for (endpoint, (path, body)) in EndpointName::ALL.into_iter().zip(server.paths.into_iter().zip(&bodies)) {
            let media = if endpoint == EndpointName::Global { JSON } else { FORM };
            server.switches.set(endpoint, false);
            let answer = server.send("POST", path, &[media, &basic("root")], body).await;
            let stranger = server.send("POST", path, &[media], body).await;
            if profile == Profile::Janssen {
                assert_answer(&answer, 403, "access_denied", path);
                assert!(answer.body.contains("\"error_description\":\"access_denied\""));
                assert_answer(&stranger, 401, "invalid_client", path);
                assert_eq!(stranger.header("www-authenticate"), Some("Basic realm=\"jans-auth\""));
            } else {
                assert_eq!((answer.body.as_str(), stranger.body.as_str()), ("inner", "inner"), "{path}");
                assert_eq!(server.send("POST", &format!("{path}/"), &[], "").await.body, "inner");
            }
            assert_eq!((server.records(), server.asked()), (0, 0));
            server.switches.set(endpoint, true);
            assert_eq!(server.send("GET", path, &[], "").await.status, 405, "{path}");
        }
        server.assert_alive(&[&alice]).await;
    }
}

#[tokio::test]
async fn s7_what_is_off_is_not_advertised() {
    let endpoints = Endpoints::new(common::revocations().await)
        .token(TokenEndpoint::new(verifier(), clients()))
        .session(SessionEndpoint::new(ClaimsOnly, [ISSUER], clients()))
        .profile(Profile::Janssen);
    let [token, session, _] = JANSSEN_PATHS;
    assert_eq!(endpoints.advertised(), [(EndpointName::Token, token), (EndpointName::Session, session)]);
    endpoints.switches().set(EndpointName::Token, false);
    assert_eq!(endpoints.advertised(), [(EndpointName::Session, session)]);
}

// Session revocation.

#[tokio::test]
async fn s4_session_revocation_answers() {
    let user = "user_criterion_key=uid&user_criterion_value=breakfast";
    for (profile, no_scope) in
        [(Profile::Standard, (403, "insufficient_scope")), (Profile::Janssen, (401, "invalid_request"))]
    {
        let server = Setup::new(profile).start().await;
        for (row, client, body, status, error) in [
            ("wrong client", "nobody", user, 401, "invalid_client"),
            ("§1: never a public client", "spa", user, 401, "invalid_client"),
            ("no scope", "app", user, no_scope.0, no_scope.1),
            ("no scope, unknown user", "app", "user_criterion_key=uid&user_criterion_value=x", no_scope.0, no_scope.1),
            ("no issuer of ours", "elsewhere", user, no_scope.0, no_scope.1),
            ("F32: no value", "admin", "user_criterion_key=uid", 400, "invalid_request"),
            ("F32: empty value", "admin", "user_criterion_key=uid&user_criterion_value=", 400, "invalid_request"),
            ("F32: empty key", "admin", "user_criterion_key=&user_criterion_value=x", 400, "invalid_request"),
            ("F32: nothing", "admin", "", 400, "invalid_request"),
            ("rule 17: twice", "admin", &format!("{user}&user_criterion_key=uid"), 400, "invalid_request"),
            ("rule 17: not UTF-8", "admin", "user_criterion_key=uid&user_criterion_value=%FF", 400, "invalid_request"),
        ] {
            let answer = if client == "spa" {
                server.send("POST", server.paths[1], &[FORM], format!("client_id=spa&{body}")).await
            } else {
                server.session(client, body).await
            };
            assert_answer(&answer, status, error, row);
        }
        let query = server.send("POST", &format!("{}?{user}", server.paths[1]), &[FORM, &basic("admin")], user).await;
        assert_answer(&query, 400, "invalid_request", "rule 17: parameters in query and body");
        let json = server.send("POST", server.paths[1], &[JSON, &basic("admin")], "{}").await;
        assert_answer(&json, 415, "invalid_request", "JSON");
        assert_eq!((server.records(), server.asked()), (0, 0), "nobody without the scope makes the directory be asked");
        let unknown = server.session("admin", "user_criterion_key=uid&user_criterion_value=nobody").await;
        assert_answer(&unknown, 200, "", "unknown user");
        assert_eq!(server.records(), 0);
        let known = server.session("admin", user).await;
        assert_answer(&known, 200, "", "known user");
        let plain = |answer: &Answer| answer.head.replace(answer.header("date").unwrap_or_default(), "");
        assert_eq!(plain(&known), plain(&unknown), "§4: the answer does not disclose");
    }
}

/// §4, F32: known sessions and unknown ones, tokens without `iat` where the session is known; a login after that works.
#[tokio::test]
async fn s4_session_revocation_ends_every_session_of_the_user() {
    let server = Setup::new(Profile::Standard).start().await;
    let dead = [login("alice", "alice-1"), login("alice", "never-seen"), token(json!({"sub": "alice", "jti": jti()}))];
    let timeless = token(json!({"sub": "alice", "sid": "alice-2", "iat": unix() + 40, "jti": jti()}));
    let alive = [
        login("bob", "bob-1"),
        token(json!({"iss": OTHER, "sub": "theirs", "sid": "alice-1"})),
        token(json!({"sub": "app", "client_id": "app"})),
        token(json!({"sub": "alice", "sid": "after", "iat": unix() + 5})),
    ];
    server.assert_alive(&dead.each_ref().map(String::as_str)).await;
    assert_eq!(server.session("admin", "user_criterion_key=uid&user_criterion_value=breakfast").await.status, 200);
    server.assert_dead(&dead.each_ref().map(String::as_str)).await;
    server.assert_dead(&[&timeless]).await;
    server.assert_alive(&alive.each_ref().map(String::as_str)).await;
    assert_eq!(server.records(), 3);
}

#[tokio::test]
async fn f39_several_users() {
    let team = "user_criterion_key=team&user_criterion_value=red";
    let [alice, bob] = [login("alice", "a"), login("bob", "b")];
    for (several, status, alice_lives, bob_lives) in [
        (None, 200, 401, 401),
        (Some(SeveralUsers::All), 200, 401, 401),
        (Some(SeveralUsers::First), 200, 401, 200),
        (Some(SeveralUsers::Refuse), 400, 200, 200),
    ] {
        let server = Setup::new(Profile::Janssen)
            .session(|session| several.into_iter().fold(session, SessionEndpoint::several_users))
            .start()
            .await;
        assert_eq!(server.session("admin", team).await.status, status, "{several:?}");
        assert_eq!((server.status(&alice).await, server.status(&bob).await), (alice_lives, bob_lives), "{several:?}");
    }
    let team = json!({"sub_id": {"format": "team", "id": "red"}}).to_string();
    for (several, status, alice_lives, bob_lives) in
        [(None, 204, 401, 200), (Some(SeveralUsers::All), 204, 401, 401), (Some(SeveralUsers::Refuse), 400, 200, 200)]
    {
        let server = Setup::new(Profile::Janssen)
            .global(|global| several.into_iter().fold(global, GlobalEndpoint::several_users))
            .start()
            .await;
        assert_eq!(server.global("admin", &team).await.status, status, "{several:?}");
        assert_eq!((server.status(&alice).await, server.status(&bob).await), (alice_lives, bob_lives), "{several:?}");
    }
}

/// The first user of the directory is another issuer's: it does not count, and does not stand in the way.
#[tokio::test]
async fn rule_14_issuers_are_limited_before_the_first_is_taken() {
    for several in [SeveralUsers::First, SeveralUsers::Refuse, SeveralUsers::All] {
        let server = Setup::new(Profile::Janssen)
            .session(|session| session.several_users(several))
            .global(|global| global.several_users(several))
            .start()
            .await;
        let [alice, theirs] = [login("alice", "a"), token(json!({"iss": OTHER, "sub": "theirs"}))];
        let form = "user_criterion_key=uid&user_criterion_value=breakfast";
        assert_eq!(server.session("admin", form).await.status, 200, "{several:?}");
        server.assert_dead(&[&alice]).await;
        let body = json!({"sub_id": {"format": "uid", "id": "breakfast"}}).to_string();
        assert_eq!(server.global("admin", body).await.status, 204, "{several:?}");
        server.assert_alive(&[&theirs]).await;
    }
}

// Global token revocation.

fn iss_sub(iss: &str, sub: &str) -> String {
    json!({"sub_id": {"format": "iss_sub", "iss": iss, "sub": sub}}).to_string()
}

#[tokio::test]
async fn s15_every_subject_identifier_logs_the_user_out() {
    let aliases = json!({"format": "aliases", "identifiers": [
        {"format": "email", "email": "nobody@example.com"},
        {"format": "iss_sub", "iss": "https://unmapped.example/", "sub": "1"},
        {"format": "email", "email": "alice@example.com"},
    ]});
    for subject in [
        json!({"format": "account", "uri": "acct:alice@example.com"}),
        json!({"format": "email", "email": "alice@example.com"}),
        json!({"format": "iss_sub", "iss": ISSUER, "sub": "alice"}),
        json!({"format": "iss_sub", "iss": "https://idp.example/", "sub": "00u1"}),
        json!({"format": "opaque", "id": "11112222333344445555"}),
        json!({"format": "phone_number", "phone_number": "+12065550100"}),
        json!({"format": "did", "url": "did:example:123456"}),
        json!({"format": "uri", "uri": "https://user.example.com/"}),
        aliases,
    ] {
        for profile in [Profile::Standard, Profile::Janssen] {
            for body in [
                json!({"sub_id": subject}),
                json!({"subject": subject}),
                json!({"sub_id": subject, "subject": subject}),
            ] {
                let server = Setup::new(profile)
                    .global(|global| global.federated("https://idp.example/", ISSUER, "idp_sub"))
                    .start()
                    .await;
                let answer = server.global("admin", body.to_string()).await;
                assert_answer(&answer, 204, "", &body.to_string());
                server
                    .assert_dead(&[
                        &login("alice", "a"),
                        &token(json!({"sub": "alice", "client_id": "spa", "iat": unix() - 5})),
                    ])
                    .await;
                server.assert_alive(&[&login("bob", "b"), &token(json!({"sub": "app"}))]).await;
                // §13: a user who holds nothing, or nothing any more, is 204 too.
                assert_answer(&server.global("admin", body.to_string()).await, 204, "", "again");
            }
        }
    }
}

#[tokio::test]
async fn s5_s13_global_answers() {
    let alice = iss_sub(ISSUER, "alice");
    let nobody = json!({"sub_id": {"format": "email", "email": "nobody@example.com"}}).to_string();
    let attribute = json!({"sub_id": {"format": "uid", "id": "nobody"}}).to_string();
    for (profile, no_scope, unknown, attributes) in [
        (Profile::Standard, (403, "insufficient_scope"), (404, "not_found"), (400, "invalid_request")),
        (Profile::Janssen, (401, "invalid_request"), (204, ""), (204, "")),
    ] {
        let server = Setup::new(profile).start().await;
        for (row, client, body, status, error) in [
            ("wrong client", "nobody", &alice, 401, "invalid_client"),
            ("no scope", "app", &alice, no_scope.0, no_scope.1),
            ("no scope, unknown user", "app", &nobody, no_scope.0, no_scope.1),
            ("§14: authentication first", "app", &"[]".to_owned(), no_scope.0, no_scope.1),
            ("no issuer of ours", "elsewhere", &alice, no_scope.0, no_scope.1),
        ] {
            assert_answer(&server.global(client, body).await, status, error, row);
        }
        assert_eq!(server.asked(), 0, "nobody without the scope makes the directory be asked");
        let public = server.send("POST", server.paths[2], &[JSON], &alice).await;
        assert_answer(&public, 401, "invalid_client", "no client");
        assert_answer(&server.global("admin", &nobody).await, unknown.0, unknown.1, "unknown user");
        assert_answer(&server.global("admin", &attribute).await, attributes.0, attributes.1, "attribute form");
        let unmapped = server.global("admin", iss_sub("https://unmapped.example/", "alice")).await;
        assert_answer(&unmapped, 400, "invalid_request", "rule 15: never a silent 204");
        let foreign = server.global("admin", iss_sub(OTHER, "theirs")).await;
        assert_answer(&foreign, 404, "not_found", "rule 14: never a silent 204");
        assert_eq!(server.records(), 0);
        assert_answer(&server.global("root", iss_sub(OTHER, "theirs")).await, 204, "", "reaches all issuers");
        server.assert_dead(&[&token(json!({"iss": OTHER, "sub": "theirs", "iat": unix() - 5}))]).await;
    }
    for (profile, choice, status) in
        [(Profile::Standard, UnknownUser::NoContent, 204), (Profile::Janssen, UnknownUser::NotFound, 404)]
    {
        let server = Setup::new(profile).global(|global| global.unknown_user(choice)).start().await;
        assert_eq!(server.global("admin", &nobody).await.status, status);
    }
}

/// §5 says 500 and 204 to some of these; §13, §15 and F32 say 400.
#[tokio::test]
async fn s13_s15_bad_bodies_revoke_nothing() {
    let nested = format!(r#"{{"sub_id":{}1{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    let objects = format!(r#"{{"sub_id":{}1{}}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    let good = r#""sub_id":{"format":"iss_sub","iss":"https://issuer.example/","sub":"alice"}"#;
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".into()),
        ("{}", b"{}".into()),
        ("null", b"null".into()),
        ("array", b"[]".into()),
        ("string", b"\"sub_id\"".into()),
        ("sub_id null", br#"{"sub_id":null}"#.into()),
        ("sub_id array", br#"{"sub_id":[]}"#.into()),
        ("sub_id string", br#"{"sub_id":"alice"}"#.into()),
        ("sub_id empty", br#"{"sub_id":{}}"#.into()),
        ("one null", format!(r#"{{{good},"subject":null}}"#).into()),
        ("both, different", format!(r#"{{{good},"subject":{{"format":"opaque","id":"1"}}}}"#).into()),
        ("extra member", format!(r#"{{{good},"extra":1}}"#).into()),
        ("twice", format!("{{{good},{good}}}").into()),
        ("twice, escaped", format!(r#"{{{good},"sub\u005fid":{{"format":"opaque","id":"1"}}}}"#).into()),
        (
            "twice inside",
            br#"{"sub_id":{"format":"iss_sub","iss":"https://issuer.example/","sub":"bob","sub":"alice"}}"#.into(),
        ),
        (
            "extra inside",
            br#"{"sub_id":{"format":"iss_sub","iss":"https://issuer.example/","sub":"alice","x":1}}"#.into(),
        ),
        ("missing inside", br#"{"sub_id":{"format":"iss_sub","iss":"https://issuer.example/"}}"#.into()),
        ("no format", br#"{"sub_id":{"iss":"https://issuer.example/","sub":"alice"}}"#.into()),
        (
            "array for a string",
            br#"{"sub_id":{"format":"iss_sub","iss":"https://issuer.example/","sub":["alice"]}}"#.into(),
        ),
        ("number for a string", br#"{"sub_id":{"format":"iss_sub","iss":"https://issuer.example/","sub":1}}"#.into()),
        ("empty string", br#"{"sub_id":{"format":"iss_sub","iss":"https://issuer.example/","sub":""}}"#.into()),
        ("null inside", br#"{"sub_id":{"format":"iss_sub","iss":"https://issuer.example/","sub":null}}"#.into()),
        ("half an attribute", br#"{"sub_id":{"format":"uid"}}"#.into()),
        ("unknown format", br#"{"sub_id":{"format":"ip","ip":"1"}}"#.into()),
        ("not UTF-8", b"{\"sub_id\":{\"format\":\"opaque\",\"id\":\"\xFF\"}}".into()),
        ("half a surrogate", br#"{"sub_id":{"format":"opaque","id":"\ud800"}}"#.into()),
        ("byte order mark", format!("\u{feff}{{{good}}}").into()),
        ("more after it", format!("{{{good}}}{{}}").into()),
        ("nested arrays", nested.into()),
        ("nested objects", objects.into()),
        ("form", b"sub_id=alice".into()),
    ];
    for profile in [Profile::Standard, Profile::Janssen] {
        let server = Setup::new(profile).start().await;
        for (row, body) in &bodies {
            assert_answer(&server.global("admin", body).await, 400, "invalid_request", row);
        }
        let good = format!("{{{good}}}");
        let path = server.paths[2];
        let admin = basic("admin");
        for (row, target, media, more, status) in [
            ("query too", format!("{path}?sub_id=x"), JSON, "a: b", 400),
            ("form type", path.to_owned(), FORM, "a: b", 415),
            ("other charset", path.to_owned(), "content-type: application/json; charset=utf-16", "a: b", 415),
            ("legacy charset", path.to_owned(), "content-type: application/json; charset=iso-8859-1", "a: b", 415),
            (
                "two charsets",
                path.to_owned(),
                "content-type: application/json;charset=utf-8;charset=utf-7",
                "a: b",
                415,
            ),
            ("other parameter", path.to_owned(), "content-type: application/json; profile=x", "a: b", 415),
            ("coded", path.to_owned(), JSON, "content-encoding: gzip", 415),
            ("two types", path.to_owned(), JSON, FORM, 415),
            ("slash", format!("{path}/"), JSON, "a: b", 400),
        ] {
            let answer = server.send("POST", &target, &[media, more, &admin], &good).await;
            assert_answer(&answer, status, "invalid_request", row);
        }
        assert_answer(&server.send("PUT", path, &[JSON, &admin], &good).await, 405, "invalid_request", "PUT");
        let head = format!("POST {path} HTTP/1.1\r\nhost: t\r\n{JSON}\r\n{admin}\r\ncontent-length: 1000000\r\n\r\n");
        assert_answer(&raw(server.address, head).await, 413, "invalid_request", "1 MB");
        assert_eq!((server.records(), server.asked()), (0, 0));
        for utf8 in ["application/json; charset=utf-8", "Application/JSON;Charset=\"UTF-8\""] {
            let utf8 = format!("content-type: {utf8}");
            assert_eq!(server.send("POST", path, &[&utf8, &admin], &good).await.status, 204);
        }
    }
}

/// Rule 8: a login in the second after works; `Strict` says from when.
#[tokio::test]
async fn rule_8_cutoffs() {
    let server = Setup::new(Profile::Standard).start().await;
    let before = unix();
    let answer = server.global("admin", iss_sub(ISSUER, "alice")).await;
    let after = unix();
    assert_eq!(answer.header("revocation-effective-until"), None);
    server.assert_dead(&[&token(json!({"sub": "alice", "iat": before}))]).await;
    server.assert_alive(&[&token(json!({"sub": "alice", "iat": after + 1}))]).await;

    let server = Setup::new(Profile::Standard).global(|global| global.cutoff(CutoffChoice::Lax)).start().await;
    let before = unix();
    let answer = server.global("admin", iss_sub(ISSUER, "alice")).await;
    let after = unix();
    assert_eq!((answer.status, answer.header("revocation-effective-until")), (204, None));
    server.assert_dead(&[&token(json!({"sub": "alice", "iat": before - 1}))]).await;
    server.assert_alive(&[&token(json!({"sub": "alice", "iat": after}))]).await;

    let strict = |global: GlobalEndpoint| global.cutoff(CutoffChoice::Strict).unknown_user(UnknownUser::NoContent);
    let server = Setup::new(Profile::Standard).global(strict).start().await;
    let before = unix();
    let answer = server.global("admin", iss_sub(ISSUER, "alice")).await;
    let until: u64 = answer.header("revocation-effective-until").unwrap().parse().unwrap();
    assert!((before + SKEW..=unix() + SKEW).contains(&until));
    server.assert_dead(&[&token(json!({"sub": "alice", "iat": until}))]).await;
    server.assert_alive(&[&token(json!({"sub": "alice", "iat": until + 1}))]).await;
    let unknown = json!({"sub_id": {"format": "email", "email": "nobody@example.com"}}).to_string();
    let answer = server.global("admin", unknown).await;
    assert!(answer.header("revocation-effective-until").is_some(), "it does not tell who exists");
}

/// F33: nothing is pretended, and a retry completes it.
#[tokio::test]
async fn f33_what_cannot_be_done_now() {
    let alice = login("alice", "a");
    let form = "user_criterion_key=uid&user_criterion_value=breakfast";
    let server = Setup::new(Profile::Standard).start().await;
    server.people.down.store(true, Ordering::Relaxed);
    assert_answer(&server.session("admin", form).await, 503, "temporarily_unavailable", "session");
    let answer = server.global("admin", iss_sub(ISSUER, "alice")).await;
    assert_answer(&answer, 422, "temporarily_unavailable", "§13: unable to log the user out");
    let lone = token(json!({"jti": jti()}));
    assert_answer(&server.revoke("app", &lone).await, 503, "temporarily_unavailable", "token");
    server.assert_alive(&[&alice, &lone]).await;
    server.people.down.store(false, Ordering::Relaxed);
    assert_eq!(server.global("admin", iss_sub(ISSUER, "alice")).await.status, 204);
    server.assert_dead(&[&alice]).await;
    server.revocations.shutdown().await;
    assert_answer(
        &server.session("admin", "user_criterion_key=team&user_criterion_value=red").await,
        503,
        "temporarily_unavailable",
        "store",
    );
    assert_answer(&server.global("admin", iss_sub(ISSUER, "bob")).await, 503, "temporarily_unavailable", "store");
}

// The signed profile.

const IDP: &str = "https://idp.example/";
const URL: &str = "https://as.example.com/oauth/global-token-revocation";

struct Idp(Ed25519KeyPair);

impl Idp {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn issuer(&self, iss: &str) -> Issuer {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "1", "x": x});
        Issuer::new(iss).any_audience().algorithms([Algorithm::EdDSA]).keys(Keys::jwks(jwk.to_string()))
    }

    fn sign(&self, header: Value, claims: Value) -> String {
        let mut all = json!({
            "iss": IDP, "sub": "c-okta", "aud": URL, "jti": jti(), "iat": unix(), "nbf": unix(), "exp": unix() + 300,
        });
        for (name, value) in claims.as_object().unwrap() {
            match value {
                Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
                value => all[name] = value.clone(),
            }
        }
        let mut head = json!({"alg": "EdDSA", "typ": "global-token-revocation+jwt", "kid": "1"});
        for (name, value) in header.as_object().unwrap() {
            head[name] = value.clone();
        }
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(&head), part(&all));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }
}

async fn signed_server(idp: &Idp) -> Server {
    let sender = |id: &str| Client::confidential(id).issuers([ISSUER]).scopes(["global_token_revocation"]);
    let signed = SignedRequests::new(URL, [idp.issuer(IDP), idp.issuer("https://idp2.example/")])
        .unwrap()
        .sender(IDP, sender("c-okta"))
        .sender(IDP, Client::confidential("no-scope").issuers([ISSUER]));
    Setup::new(Profile::Standard)
        .global(|global| global.signed_jwt(signed).federated(IDP, ISSUER, "idp_sub"))
        .start()
        .await
}

async fn send_signed(server: &Server, jwt: &str, body: &str) -> Answer {
    let authorization = format!("authorization: Bearer {jwt}");
    server.send("POST", server.paths[2], &[JSON, &authorization], body).await
}

#[tokio::test]
async fn s14_signed_requests_log_the_user_out() {
    let idp = Idp::new();
    for body in [
        iss_sub(ISSUER, "alice"),
        iss_sub(IDP, "00u1"),
        json!({"sub_id": {"format": "email", "email": "alice@example.com"}}).to_string(),
    ] {
        let server = signed_server(&idp).await;
        let answer = send_signed(&server, &idp.sign(json!({}), json!({})), &body).await;
        assert_answer(&answer, 204, "", &body);
        server.assert_dead(&[&login("alice", "a")]).await;
    }
}

#[tokio::test]
async fn s14_signed_requests_that_are_refused() {
    let (idp, stranger) = (Idp::new(), Idp::new());
    let server = signed_server(&idp).await;
    let alice = iss_sub(ISSUER, "alice");
    let with = |claims: Value| idp.sign(json!({}), claims);
    let typ = |typ: &str| idp.sign(json!({"typ": typ}), json!({}));
    let unsigned = {
        let jwt = idp.sign(json!({"alg": "none"}), json!({}));
        format!("{}.", jwt.rsplit_once('.').unwrap().0)
    };
    let hmac = common::signed(
        r#"{"alg":"HS256","typ":"global-token-revocation+jwt"}"#,
        &json!({"iss": IDP, "sub": "c-okta", "aud": URL, "jti": "h", "iat": unix(), "exp": unix() + 60}).to_string(),
    );
    for (row, jwt, status, error) in [
        ("unsigned", unsigned, 401, "invalid_token"),
        ("HMAC", hmac, 401, "invalid_token"),
        ("unknown key", stranger.sign(json!({}), json!({})), 401, "invalid_token"),
        ("other audience", with(json!({"aud": "https://as.example.com/oauth/revoke"})), 401, "invalid_token"),
        ("audience with query", with(json!({"aud": format!("{URL}?a=b")})), 401, "invalid_token"),
        ("no audience", with(json!({"aud": null})), 401, "invalid_token"),
        ("expired", with(json!({"iat": unix() - 400, "exp": unix() - 100})), 401, "invalid_token"),
        ("not yet valid", with(json!({"nbf": unix() + 100})), 401, "invalid_token"),
        ("lives too long", with(json!({"exp": unix() + 301 + 10})), 401, "invalid_token"),
        ("lives too long, no iat", with(json!({"iat": null, "exp": unix() + 400})), 401, "invalid_token"),
        ("no exp", with(json!({"exp": null})), 401, "invalid_token"),
        ("no jti", with(json!({"jti": null})), 401, "invalid_token"),
        ("no sub", with(json!({"sub": null})), 401, "invalid_token"),
        ("unknown issuer", with(json!({"iss": "https://x.example/"})), 401, "invalid_token"),
        ("typ at+jwt", typ("at+jwt"), 401, "invalid_token"),
        ("typ logout+jwt", typ("logout+jwt"), 401, "invalid_token"),
        ("typ secevent+jwt", typ("secevent+jwt"), 401, "invalid_token"),
        ("unknown sender", with(json!({"sub": "nobody"})), 403, "access_denied"),
        ("another issuer's sender", with(json!({"iss": "https://idp2.example/"})), 403, "access_denied"),
        ("no scope", with(json!({"sub": "no-scope"})), 403, "access_denied"),
    ] {
        assert_answer(&send_signed(&server, &jwt, &alice).await, status, error, row);
    }
    assert_eq!((server.records(), server.asked()), (0, 0));
    let answer = send_signed(&server, &with(json!({})), &iss_sub(OTHER, "theirs")).await;
    assert_answer(&answer, 404, "not_found", "another issuer's user");
    let answer = send_signed(&server, &with(json!({})), &iss_sub("https://x.example/", "1")).await;
    assert_answer(&answer, 400, "invalid_request", "unmapped issuer");
    assert_eq!(server.records(), 0);
}

/// Whoever shares an HMAC secret could send them: such issuers cannot.
#[test]
fn s14_signed_requests_are_never_signed_with_hmac() {
    let error = SignedRequests::new(URL, [common::issuer()]).unwrap_err();
    assert_eq!(error, JwtConfigError::NoAlgorithm { iss: ISSUER.to_owned() });
}

/// Rule 18: once, but again where it came to nothing.
#[tokio::test]
async fn rule_18_signed_requests_count_once() {
    let idp = Idp::new();
    let server = signed_server(&idp).await;
    let jwt = idp.sign(json!({}), json!({}));
    server.people.down.store(true, Ordering::Relaxed);
    assert_eq!(send_signed(&server, &jwt, &iss_sub(ISSUER, "alice")).await.status, 422);
    server.people.down.store(false, Ordering::Relaxed);
    assert_eq!(send_signed(&server, &jwt, &iss_sub(ISSUER, "alice")).await.status, 204);
    let replayed = send_signed(&server, &jwt, &iss_sub(ISSUER, "bob")).await;
    assert_answer(&replayed, 401, "invalid_token", "replayed");
    server.assert_alive(&[&login("bob", "b")]).await;
    // Whoever has a stolen one cannot ask who exists.
    let jwt = idp.sign(json!({}), json!({}));
    let nobody = json!({"sub_id": {"format": "email", "email": "nobody@example.com"}}).to_string();
    assert_eq!(send_signed(&server, &jwt, &nobody).await.status, 404);
    assert_eq!(send_signed(&server, &jwt, &nobody).await.status, 401);
    server.revocations.shutdown().await;
    let jwt = idp.sign(json!({}), json!({}));
    for _ in 0..2 {
        assert_eq!(send_signed(&server, &jwt, &iss_sub(ISSUER, "bob")).await.status, 503);
    }
}

// Token revocation.

/// §6: each of them, unless one is another's; then none.
#[tokio::test]
async fn s6_janssen_takes_lists_of_tokens() {
    let server = Setup::new(Profile::Janssen).start().await;
    let [one, two, other] = [
        token(json!({"client_id": "app", "jti": jti()})),
        token(json!({"client_id": "app", "jti": jti()})),
        token(json!({"client_id": "other", "jti": jti()})),
    ];
    let mixed = server.revoke("app", &format!("{one} {other} {two}")).await;
    assert_answer(&mixed, 400, "invalid_request", "a foreign token in the middle");
    assert_eq!(server.records(), 0);
    let many = vec!["x"; 65].join(" ");
    assert_answer(&server.revoke("app", &many).await, 400, "invalid_request", "too many");
    assert_answer(&server.revoke("app", " ").await, 400, "invalid_request", "blank");
    assert_answer(&server.revoke("app", &format!("{one}  garbage {two}")).await, 200, "", "each of them");
    server.assert_dead(&[&one, &two]).await;
    server.assert_alive(&[&other]).await;
    let standard = Setup::new(Profile::Standard).start().await;
    assert_answer(&standard.revoke("app", &format!("{one} {two}")).await, 200, "", "no token in the standard");
    standard.assert_alive(&[&one, &two]).await;
}

#[tokio::test]
async fn s6_token_all_is_off_unless_allowed() {
    let app = token(json!({"client_id": "app", "jti": jti()}));
    let server = Setup::new(Profile::Janssen).start().await;
    assert_answer(&server.revoke("app", "all").await, 200, "", "off: a token that nobody knows");
    server.assert_alive(&[&app]).await;

    let server = Setup::new(Profile::Janssen).token(|token| token.allow_all([ISSUER, OTHER])).start().await;
    assert_answer(&server.revoke("elsewhere", "all").await, 400, "invalid_request", "no issuer of its own");
    let public = server.send("POST", server.paths[0], &[FORM], "client_id=spa&token=all").await;
    assert_answer(&public, 400, "unauthorized_client", "anyone could be a public client");
    server.assert_alive(&[&app, &token(json!({"client_id": "spa"}))]).await;
    assert_answer(&server.revoke("app", "ALL").await, 200, "", "in any case of letters");
    server.assert_dead(&[&app]).await;
    server
        .assert_alive(&[
            &token(json!({"client_id": "spa"})),
            &token(json!({"client_id": "app", "iss": OTHER})),
            &token(json!({"client_id": "app", "iat": unix() + 5})),
        ])
        .await;
}

/// §6: a cutoff of the client knows no kinds of tokens: more ends than was asked for, never less.
#[tokio::test]
async fn s6_token_all_ends_every_kind_of_token() {
    for hint in ["", "&token_type_hint=access_token", "&token_type_hint=refresh_token", "&token_type_hint=x"] {
        let server = Setup::new(Profile::Janssen).token(|token| token.allow_all([ISSUER])).start().await;
        let access = token(json!({"client_id": "app", "jti": jti()}));
        let refresh = common::signed(
            r#"{"alg":"HS256","typ":"JWT"}"#,
            &json!({"iss": ISSUER, "aud": AUDIENCE, "client_id": "app", "iat": unix(), "exp": unix() + 600})
                .to_string(),
        );
        server.assert_alive(&[&access, &refresh]).await;
        let body = format!("token=all{hint}");
        let answer = server.send("POST", server.paths[0], &[FORM, &basic("app")], body).await;
        assert_answer(&answer, 200, "", hint);
        server.assert_dead(&[&access, &refresh]).await;
    }
}

/// A front of the Janssen profile whose token endpoint answers with these tokens in turn, and the tokens' recorder.
async fn issuing(tokens: Vec<Value>, by_jti: bool) -> Server {
    let revocations = common::revocations().await;
    let keys = OpaqueKeys::new("k1", [7; 32]).unwrap();
    let recorder = Recorder::new(revocations.clone(), MemoryStore::new(), keys, ISSUER).verifier(verifier());
    let endpoint = TokenEndpoint::new(verifier(), clients());
    let endpoint = if by_jti { endpoint.jtis(recorder.clone(), [ISSUER]) } else { endpoint };
    let endpoints = Endpoints::new(revocations.clone()).profile(Profile::Janssen).token(endpoint);
    let switches = endpoints.switches().clone();
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let layer = FrontLayer::new(check, endpoints).unwrap().recorder(recorder, "/token").unwrap();
    let tokens = Arc::new(Mutex::new(tokens));
    let issue = move || {
        let next = tokens.lock().unwrap().remove(0);
        async move { axum::Json(next) }
    };
    let router =
        Router::new().route("/", get(|| async { "in" })).route("/token", axum::routing::post(issue)).layer(layer);
    let (listener, address) = common::listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Server { address, paths: JANSSEN_PATHS, revocations, switches, people: Arc::default() }
}

/// §6: the token is named by its `jti` alone. Ownership comes from the recorder, and from nothing that is sent.
#[tokio::test]
async fn s6_the_hint_jti_ends_the_clients_own_token() {
    let named = |client: &str, jti: &str| token(json!({"client_id": client, "jti": jti}));
    let issued = || {
        let answer = |access: String| json!({"access_token": access, "token_type": "Bearer", "expires_in": 600});
        let mut first = answer(named("app", "one"));
        first["refresh_token"] = json!("r1");
        let two = answer(named("app", "two"));
        vec![
            first,
            two,
            answer(named("admin", "theirs")),
            answer(named("elsewhere", "far")),
            answer(named("spa", "public")),
        ]
    };
    let [one, two, theirs, far, public] = [
        named("app", "one"),
        named("app", "two"),
        named("admin", "theirs"),
        named("elsewhere", "far"),
        named("spa", "public"),
    ];
    for by_jti in [true, false] {
        let server = issuing(issued(), by_jti).await;
        for client in ["app", "app", "admin", "elsewhere"] {
            let answer = server.send("POST", "/token", &[FORM, &basic(client)], "grant_type=x").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        let answer = server.send("POST", "/token", &[FORM], "grant_type=x&client_id=spa").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let hinted = async |credential: &str, body: &str| {
            let body = format!("{body}&token_type_hint=jti");
            let headers: Vec<&str> = [FORM, credential].into_iter().filter(|header| !header.is_empty()).collect();
            assert_answer(&server.send("POST", server.paths[0], &headers, &body).await, 200, "", &body);
        };
        // Another's, nobody's, a public client's own, and one without the hint: as if they did not exist.
        for token in ["theirs", "public", "unknown"] {
            hinted(&basic("app"), &format!("token={token}")).await;
        }
        hinted("", "token=public&client_id=spa").await;
        hinted(&basic("elsewhere"), "token=one").await;
        // It has no say over this issuer.
        hinted(&basic("elsewhere"), "token=far").await;
        assert_answer(&server.revoke("app", "one").await, 200, "", "no hint");
        server.assert_alive(&[&one, &two, &theirs, &far, &public]).await;
        assert_eq!(server.records(), 0);
        hinted(&basic("app"), "token=one%20theirs").await;
        if !by_jti {
            server.assert_alive(&[&one]).await;
            continue;
        }
        server.assert_dead(&[&one]).await;
        server.assert_alive(&[&two, &theirs, &public]).await;
        // Its grant went with it.
        let refresh = "grant_type=refresh_token&refresh_token=r1";
        let answer = server.send("POST", "/token", &[FORM, &basic("app")], refresh).await;
        assert_answer(&answer, 400, "invalid_grant", "refresh");
        // A wrong hint hides no token.
        hinted(&basic("app"), &format!("token={two}")).await;
        server.assert_dead(&[&two]).await;
    }
}

/// §6: whatever a hint calls it, a JWT is found by what it says.
#[tokio::test]
async fn s6_a_logout_status_jwt_is_a_jwt() {
    let server = Setup::new(Profile::Janssen).start().await;
    let jwt = common::signed(
        r#"{"alg":"HS256"}"#,
        &json!({
            "iss": ISSUER, "aud": AUDIENCE, "client_id": "app", "jti": jti(), "iat": unix(), "nbf": unix(),
            "exp": unix() + 600, "status_list": {"idx": 1, "uri": "https://as.example/status_list"},
        })
        .to_string(),
    );
    server.assert_alive(&[&jwt]).await;
    let body = format!("token={jwt}&token_type_hint=logout_status_jwt");
    let answer = server.send("POST", server.paths[0], &[FORM, &basic("admin")], &body).await;
    assert_answer(&answer, 400, "invalid_request", "another's");
    let answer = server.send("POST", server.paths[0], &[FORM, &basic("app")], &body).await;
    assert_answer(&answer, 200, "", "its own");
    server.assert_dead(&[&jwt]).await;
}

/// §6, F34: another client's token is refused, unless it is allowed and the client has the scope.
#[tokio::test]
async fn s6_tokens_of_other_clients() {
    let foreign = token(json!({"client_id": "other", "sid": "s", "jti": jti()}));
    let shared = token(json!({"client_id": "third", "sid": "s", "jti": jti()}));
    let theirs = token(json!({"client_id": "other", "iss": "https://x.example/", "jti": jti()}));
    for (allowed, client, status, lives) in
        [(false, "root", 400, 200), (true, "app", 400, 200), (true, "root", 200, 401)]
    {
        let server = Setup::new(Profile::Janssen).token(|token| token.allow_other_clients(allowed)).start().await;
        assert_eq!(server.revoke(client, &foreign).await.status, status, "{allowed} {client}");
        assert_eq!(server.status(&foreign).await, lives, "{allowed} {client}");
        server.assert_alive(&[&shared]).await;
        assert_eq!(server.revoke(client, &theirs).await.status, 200, "an unknown issuer's is no token");
    }
}

/// §9: what is no token of a known issuer is told apart, and nothing else is.
#[tokio::test]
async fn s9_s11_garbage() {
    let forged = format!("{}x", login("alice", "s"));
    let expired = token(json!({"client_id": "app", "exp": unix() - 1000, "iat": unix() - 2000}));
    for (profile, status) in [(Profile::Standard, 200), (Profile::Janssen, 200), (Profile::TokenAuthority, 400)] {
        let server = Setup::new(profile).start().await;
        for garbage in ["garbage", "a.b.c", &forged] {
            let answer = server.revoke("app", garbage).await;
            assert_eq!(answer.status, status, "{profile:?} {garbage}");
            if status == 400 {
                assert_eq!(answer.body, r#"{"error":"unsupported_token_type"}"#);
            }
        }
        assert_eq!(server.records(), 0);
        for hint in ["access_token", "refresh_token", "foobar", ""] {
            let token = token(json!({"client_id": "app", "jti": jti()}));
            let body = format!("token={token}&token_type_hint={hint}");
            let answer = server.send("POST", server.paths[0], &[FORM, &basic("app")], body).await;
            assert_answer(&answer, 200, "", "§12: a hint hides no token");
            server.assert_dead(&[&token]).await;
        }
        assert_answer(&server.revoke("app", &expired).await, 200, "", "§9: expired");
        let other = server.revoke("app", &token(json!({"client_id": "other"}))).await;
        assert_answer(&other, 400, "invalid_request", "§11: another client's");
        assert_answer(&server.revoke("app", "").await, 400, "invalid_request", "§11: no token");
    }
}

/// §9: by the access token or the refresh token, both of the session's tokens are dead.
#[tokio::test]
async fn s9_a_session_is_found_by_either_token() {
    for by in ["family-access", "family-refresh"] {
        let server = Setup::new(Profile::TokenAuthority).start().await;
        // The refresh token of the seed's example names no client, and no session.
        let refresh = token(json!({"jti": by, "sub": null, "client_id": null}));
        let sibling = token(json!({"jti": "sibling", "sid": "family", "client_id": "app"}));
        let public = server.send("POST", server.paths[0], &[FORM], format!("client_id=spa&token={refresh}")).await;
        assert_answer(&public, 200, "", by);
        server.assert_dead(&[&refresh, &sibling]).await;
        server.assert_alive(&[&login("alice", "other")]).await;
        assert_answer(&server.revoke("app", &refresh).await, 200, "", "again");
    }
    let server = Setup::new(Profile::TokenAuthority).start().await;
    let unknown = token(json!({"jti": "unknown", "client_id": "app"}));
    assert_answer(&server.revoke("app", &unknown).await, 200, "", "no session is known");
    // Rule 13: elsewhere a session is shared, and ends at this client only.
    let server = Setup::new(Profile::Standard).start().await;
    let [own, other] =
        ["app", "other"].map(|client| token(json!({"jti": jti(), "sid": "family", "client_id": client})));
    let found = token(json!({"jti": "family-access", "client_id": "app"}));
    assert_answer(&server.revoke("app", &found).await, 200, "", "standard");
    server.assert_dead(&[&found, &own]).await;
    server.assert_alive(&[&other]).await;
    let nobodys = token(json!({"jti": "family-x", "client_id": null}));
    assert_answer(&server.revoke("app", &nobodys).await, 400, "invalid_request", "names no client");
}

// Records.

#[tokio::test]
async fn one_record_for_each_decision_and_no_secrets_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let records: Arc<Mutex<Vec<AuditRecord>>> = Arc::default();
    let done: Arc<Mutex<Vec<Revocation>>> = Arc::default();
    let (recorded, hooked) = (Arc::clone(&records), Arc::clone(&done));
    let server = Setup::new(Profile::Standard)
        .start_with(|endpoints| {
            endpoints
                .audit(JsonLines::open(&path).unwrap())
                .audit(move |record: &AuditRecord| recorded.lock().unwrap().push(record.clone()))
                .after_revocation(move |revocations| hooked.lock().unwrap().extend_from_slice(revocations))
        })
        .await;
    let form = "user_criterion_key=uid&user_criterion_value=breakfast";
    server.session("admin", form).await;
    server.session("app", form).await;
    server.session("admin", "user_criterion_key=uid&user_criterion_value=%0A%22evil").await;
    server.global("nobody", "{}").await;
    server.global("admin", iss_sub(ISSUER, "bob")).await;
    let token = token(json!({"jti": jti(), "client_id": "app"}));
    server.revoke("app", &token).await;
    server.revoke("app", &token).await;
    server.send("POST", "/oauth//revoke", &[FORM], "").await;

    let records = records.lock().unwrap().clone();
    let rows: Vec<_> = records
        .iter()
        .map(|record| {
            let scopes: Vec<_> = record.scopes.iter().map(|kind| kind.as_str()).collect();
            let client = record.client.as_deref().unwrap_or("-");
            (
                record.endpoint.as_str(),
                client,
                record.outcome,
                record.status,
                scopes.join(","),
                record.users,
                record.sessions,
            )
        })
        .collect();
    let row = |endpoint, client, outcome, status, scopes: &str, users, sessions| {
        (endpoint, client, outcome, status, scopes.to_owned(), users, sessions)
    };
    assert_eq!(
        rows,
        [
            row("session", "admin", "recorded", 200, "session,subject", 1, 2),
            row("session", "app", "insufficient_scope", 403, "", 0, 0),
            row("session", "admin", "unknown_user", 200, "", 0, 0),
            row("global", "-", "invalid_client", 401, "", 0, 0),
            row("global", "admin", "recorded", 204, "subject", 1, 0),
            row("token", "app", "recorded", 200, "token", 0, 0),
            row("token", "app", "covered", 200, "", 0, 0),
            row("token", "-", "ambiguous_path", 400, "", 0, 0),
        ]
    );
    let scopes: Vec<_> = done.lock().unwrap().iter().map(|revocation| revocation.scope().clone()).collect();
    assert_eq!(
        scopes[..3],
        [Scope::subject(ISSUER, "alice"), Scope::session(ISSUER, "alice-1"), Scope::session(ISSUER, "alice-2"),]
    );
    assert_eq!(scopes[3], Scope::subject(ISSUER, "bob"));
    assert_eq!(scopes.len(), 5);

    let file = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(lines[0]["scopes"], json!(["session", "subject"]));
    assert_eq!(lines[0]["endpoint"], "session");
    for hidden in [token.as_str(), "breakfast", "evil", "secret"] {
        assert!(!file.contains(hidden), "{hidden}");
    }
}

// Directories.

#[tokio::test]
async fn a_directory_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.toml");
    let user = |sub: &str, attributes: &str| {
        format!("[[user]]\nissuer = \"{ISSUER}\"\nsub = \"{sub}\"\nattributes = {{ {attributes} }}\n")
    };
    std::fs::write(&path, user("1", "uid = \"alice\", mail = \"Alice@Example.com\"")).unwrap();
    let directory = FileDirectory::open(&path).unwrap();
    let issuers = [ISSUER.to_owned()];
    let find = async |attribute, value| directory.find_users(attribute, value, &issuers).await.unwrap();
    let alice = [User::new(ISSUER, "1")];
    assert_eq!(find("uid", "alice").await, alice);
    assert_eq!(find("email", "alice@example.COM").await, alice);
    assert_eq!(find("sub", "1").await, alice);
    assert_eq!(find("uid", "ALICE").await, []);
    assert_eq!(directory.find_users("uid", "alice", &[OTHER.to_owned()]).await.unwrap(), []);
    std::fs::write(&path, user("1", "uid = \"bob\"") + &user("2", "uid = \"bob\"")).unwrap();
    directory.reload().unwrap();
    assert_eq!(find("uid", "bob").await, [User::new(ISSUER, "1"), User::new(ISSUER, "2")]);
    std::fs::write(&path, "[[user]]\nissuer = 1").unwrap();
    assert!(directory.reload().unwrap_err().to_string().contains("users.toml"));
    assert_eq!(find("uid", "bob").await.len(), 2, "the users known before stay");
}

#[tokio::test]
async fn a_directory_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("directory.db");
    let url = format!("sqlite://{}", path.display());
    let pool = sqlx::SqlitePool::connect(&format!("{url}?mode=rwc")).await.unwrap();
    for statement in [
        "CREATE TABLE users (issuer, sub, attribute, value, position)",
        "CREATE TABLE sessions (issuer, sub, sid)",
        "CREATE TABLE tokens (issuer, jti, sid)",
        "INSERT INTO users VALUES ('https://other.example/', 'x', 'uid', 'a''b', 1)",
        "INSERT INTO users VALUES ('https://issuer.example/', '2', 'uid', 'a''b', 3)",
        "INSERT INTO users VALUES ('https://issuer.example/', '1', 'uid', 'a''b', 2)",
        "INSERT INTO sessions VALUES ('https://issuer.example/', '1', 's1'), ('https://issuer.example/', '1', 's2')",
        "INSERT INTO tokens VALUES ('https://issuer.example/', 'j', 's1')",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let mut statements = SqlStatements::default();
    statements.find_users =
        Some("SELECT issuer, sub FROM users WHERE attribute = ?1 AND value = ?2 ORDER BY position".to_owned());
    statements.sessions_of_subject = Some("SELECT sid FROM sessions WHERE issuer = ?1 AND sub = ?2".to_owned());
    statements.session_of_token = Some("SELECT sid FROM tokens WHERE issuer = ?1 AND jti = ?2".to_owned());
    let directory = SqlDirectory::connect(&url, statements.clone()).await.unwrap();
    let issuers = [ISSUER.to_owned()];
    let found = directory.find_users("uid", "a'b", &issuers).await.unwrap();
    assert_eq!(found, [User::new(ISSUER, "1"), User::new(ISSUER, "2")]);
    assert_eq!(directory.find_users("uid", "' OR 1=1 --", &issuers).await.unwrap(), []);
    assert_eq!(directory.sessions_of(&found[0]).await.unwrap(), ["s1", "s2"]);
    assert_eq!(directory.session_of_token(ISSUER, "j").await.unwrap().as_deref(), Some("s1"));
    assert_eq!(directory.session_of_token(ISSUER, "k").await.unwrap(), None);
    statements.find_users = Some("SELECT issuer, sub FROM missing".to_owned());
    let error = SqlDirectory::connect(&url, statements).await.unwrap_err().to_string();
    assert!(error.contains("find_users") && error.contains("missing"), "{error}");
}
