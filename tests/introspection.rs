//! Introspection (RFC 7662, RFC 9701), over real sockets: asking an issuer, being asked, and standing in front of one that
//! is asked. Tests and rows name the part of `wire-spec.md`, the rule of `design.md` or the lesson that they hold it to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    collections::HashMap,
    io::Write as _,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use common::{AUDIENCE, Answer, ISSUER, eventually, raw, token, unix, verifier};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower_revocation::{
    RevocationLayer, Revocations,
    endpoint::{
        Clients, EndpointError, EndpointLayer, EndpointName, Endpoints, FrontLayer, IntrospectionEndpoint,
        IntrospectionOverlay, Profile, RegisteredClient, SecretMethod, TokenEndpoint, metadata::Metadata,
    },
    policy::{MissingClaim, Policy},
    recorder::{MemoryStore, Recorder},
    revocation::{Revocation, Scope},
    token::{
        Algorithm, Introspect, Introspection, IntrospectionCounts, IntrospectionCredentials, IntrospectionError,
        Issuer, JwtVerifier, Keys, OpaqueKeys, SigningKey, Verify,
    },
};

const FORM: &str = "content-type: application/x-www-form-urlencoded";
const OTHER: &str = "https://other.example/";

fn digests() -> OpaqueKeys {
    OpaqueKeys::new("k2", [8; 32]).unwrap().previous("k1", [7; 32]).unwrap()
}

/// An introspection endpoint that says what it is told to.
#[derive(Clone)]
struct As {
    address: SocketAddr,
    #[allow(clippy::type_complexity, reason = "a table")]
    answers: Arc<Mutex<HashMap<String, (u16, &'static str, Vec<u8>)>>>,
    /// Of each answer, and of the one for all other tokens.
    headers: Arc<Mutex<Vec<(&'static str, String)>>>,
    asked: Arc<AtomicUsize>,
    seen: Arc<Mutex<(HeaderMap, String)>>,
    /// Answers wait for one each.
    turns: Arc<Semaphore>,
}

impl As {
    async fn start() -> Self {
        let (listener, address) = common::listen().await;
        let server = Self {
            address,
            answers: Arc::default(),
            headers: Arc::default(),
            asked: Arc::default(),
            seen: Arc::default(),
            turns: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        let answering = server.clone();
        let router = Router::new().fallback(move |request: Request| answering.clone().answer(request));
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    async fn answer(self, request: Request) -> Response {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (head, body) = request.into_parts();
        let form = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        *self.seen.lock().unwrap() = (head.headers, form.clone());
        self.turns.acquire().await.unwrap().forget();
        let token = form.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default().to_owned();
        let known = self.answers.lock().unwrap().get(&token).cloned();
        let (status, media, body) = known.unwrap_or((200, "application/json", br#"{"active":false}"#.to_vec()));
        let mut response = Response::builder().status(status).header("content-type", media);
        for (name, value) in &*self.headers.lock().unwrap() {
            response = response.header(*name, value);
        }
        response.body(Body::from(body)).unwrap()
    }

    /// Of this token from now on.
    fn says(&self, token: &str, status: u16, media: &'static str, body: impl Into<Vec<u8>>) {
        self.answers.lock().unwrap().insert(token.to_owned(), (status, media, body.into()));
    }

    /// Active, with these claims over the usual ones.
    fn active(&self, token: &str, claims: Value) {
        let mut all =
            json!({"active": true, "sub": "alice", "client_id": "app", "iat": unix() - 5, "exp": unix() + 600});
        for (name, value) in claims.as_object().unwrap() {
            if value.is_null() {
                all.as_object_mut().unwrap().remove(name);
            } else {
                all[name] = value.clone();
            }
        }
        self.says(token, 200, "application/json", all.to_string());
    }

    fn url(&self) -> String {
        format!("http://{}/introspect", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn introspection(&self) -> Introspection {
        let credentials = IntrospectionCredentials::basic("api", "s3cr:et");
        Introspection::allowing_http(self.url(), ISSUER, credentials, digests()).unwrap()
    }
}

/// A service that asks an issuer about all tokens that are no JWTs.
struct Site {
    address: SocketAddr,
    revocations: Revocations,
    counts: IntrospectionCounts,
}

impl Site {
    async fn of(introspection: Introspection, policy: Policy) -> Self {
        let revocations = common::revocations().await;
        let counts = introspection.counts();
        let source = Verify::new(verifier()).introspect(introspection);
        let layer = RevocationLayer::with_policy(revocations.denylist().clone(), source, policy).asking();
        Self {
            address: serve(Router::new().route("/", get(|| async { "in" })).layer(layer)).await,
            revocations,
            counts,
        }
    }

    async fn new(server: &As) -> Self {
        Self::of(server.introspection(), Policy::default()).await
    }

    async fn status(&self, token: &str) -> u16 {
        status(self.address, token).await
    }

    async fn revoke(&self, scope: Scope) {
        let _ = self.revocations.revoke(Revocation::new(scope)).await.unwrap();
    }
}

async fn serve(router: Router) -> SocketAddr {
    let (listener, address) = common::listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn status(address: SocketAddr, token: &str) -> u16 {
    common::get(address, "/", &[&format!("authorization: Bearer {token}")]).await.status
}

// The source.

#[tokio::test]
async fn s19_the_issuer_is_asked_once_and_believed_for_a_while() {
    let server = As::start().await;
    let site = Site::new(&server).await;
    server.active("good", json!({"iss": ISSUER, "aud": AUDIENCE}));
    for _ in 0..5 {
        assert_eq!(site.status("good").await, 200);
        assert_eq!(site.status("bad").await, 401);
    }
    assert_eq!((server.asked(), site.counts.asked(), site.counts.failed()), (2, 2, 0));
    let (headers, form) = server.seen.lock().unwrap().clone();
    assert_eq!(headers["authorization"], format!("Basic {}", STANDARD.encode("api:s3cr%3Aet")));
    assert_eq!(form, "token=bad&token_type_hint=access_token");
    // JWTs are verified here.
    assert_eq!(site.status(&token(json!({"jti": "j"}))).await, 200);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn f9_answers_are_kept_by_issuer_and_whole_token() {
    let (one, other) = (As::start().await, As::start().await);
    let (sites, long) = ((Site::new(&one).await, Site::new(&other).await), "a".repeat(200));
    one.active("same", json!({}));
    one.active(&format!("x{long}"), json!({}));
    assert_eq!((sites.0.status("same").await, sites.1.status("same").await), (200, 401));
    assert_eq!((sites.0.status("same").await, sites.1.status("same").await), (200, 401));
    assert_eq!(sites.0.status(&format!("x{long}")).await, 200);
    for near in [format!("y{long}"), format!("x{long}b"), format!("X{long}"), format!("x{}", &long[1..])] {
        assert_eq!(sites.0.status(&near).await, 401, "{near}");
    }
}

#[tokio::test]
async fn l1_what_is_revoked_here_is_refused_at_once_whatever_the_issuer_says() {
    let server = As::start().await;
    let site = Site::new(&server).await;
    let claims = json!({"jti": "j", "sid": "s"});
    for name in ["a", "b", "c", "d", "e"] {
        server.active(name, claims.clone());
        assert_eq!(site.status(name).await, 200);
    }
    let asked = server.asked();
    let digest = digests().digests(b"a").next().unwrap();
    site.revoke(Scope::opaque_token(digest)).await;
    assert_eq!(site.status("a").await, 401, "by its digest");
    let previous = digests().digests(b"b").nth(1).unwrap();
    site.revoke(Scope::opaque_token(previous)).await;
    assert_eq!(site.status("b").await, 401, "by that of the previous key");
    assert_eq!(site.status("c").await, 200);
    site.revoke(Scope::session(ISSUER, "s")).await;
    assert_eq!(site.status("c").await, 401, "by its session");
    assert_eq!(server.asked(), asked, "none of it was asked about again");
    // One that was never seen is not even asked about.
    let unseen = digests().digests(b"unseen").next().unwrap();
    site.revoke(Scope::opaque_token(unseen)).await;
    server.active("unseen", json!({}));
    assert_eq!(site.status("unseen").await, 401);
    assert_eq!(server.asked(), asked);
    // And one that is asked about while it is revoked.
    server.active("f", json!({"sub": "bob"}));
    site.revoke(Scope::subject(ISSUER, "bob")).await;
    assert_eq!(site.status("f").await, 401);
    assert_eq!(server.asked(), asked + 1);
}

#[tokio::test]
async fn never_believed_past_its_end_or_the_set_time() {
    let server = As::start().await;
    let site =
        Site::of(server.introspection().keep(Duration::ZERO).keep_inactive(Duration::ZERO), Policy::default()).await;
    server.active("good", json!({}));
    for n in 1..=3 {
        assert_eq!(site.status("good").await, 200);
        assert_eq!(server.asked(), n);
    }
    server.says("good", 200, "application/json", r#"{"active":false}"#);
    assert_eq!(site.status("good").await, 401);
    // Within the leeway it passes, and is asked about each time: nothing past `exp` is believed.
    let site = Site::new(&server).await;
    server.active("over", json!({"exp": unix() - 10}));
    let before = server.asked();
    assert_eq!((site.status("over").await, site.status("over").await), (200, 200));
    assert_eq!(server.asked(), before + 2);
    for (name, claims) in [
        ("long-over", json!({"exp": unix() - 100})),
        ("endless", json!({"exp": null})),
        ("lives-too-long", json!({"exp": unix() + 40 * 24 * 3600})),
        ("from-the-future", json!({"iat": unix() + 1000})),
        ("not-yet", json!({"nbf": unix() + 1000})),
    ] {
        server.active(name, claims);
        assert_eq!(site.status(name).await, 401, "{name}");
    }
    let site = Site::of(server.introspection().missing_exp(MissingClaim::Allow), Policy::default()).await;
    assert_eq!(site.status("endless").await, 200);
    server.active("endless-and-old", json!({"exp": null, "iat": unix() - 40 * 24 * 3600}));
    assert_eq!(site.status("endless-and-old").await, 401, "its revocation may be forgotten");
}

#[tokio::test]
async fn f9_all_who_wait_for_one_token_wait_for_one_question() {
    let server = As::start().await;
    let site = Arc::new(Site::new(&server).await);
    server.active("good", json!({}));
    server.turns.forget_permits(Semaphore::MAX_PERMITS);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let site = Arc::clone(&site);
            tokio::spawn(async move { site.status("good").await })
        })
        .collect();
    eventually("the question is there", || async { server.asked() == 1 }).await;
    // Whoever asked first need not stay.
    waiting[0].abort();
    server.turns.add_permits(1);
    for waiting in waiting.into_iter().skip(1) {
        assert_eq!(waiting.await.unwrap(), 200);
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn f1_no_answer_is_no_yes_and_questions_are_bounded() {
    let server = As::start().await;
    let introspection = server.introspection().time_limit(Duration::from_millis(300)).at_once(NonZeroUsize::MIN);
    let site = Arc::new(Site::of(introspection, Policy::default()).await);
    server.turns.forget_permits(Semaphore::MAX_PERMITS);
    assert_eq!(site.status("slow").await, 503);
    assert_eq!(site.counts.failed(), 1);
    let waiting: Vec<_> = (0..100)
        .map(|n| {
            let site = Arc::clone(&site);
            tokio::spawn(async move { site.status(&format!("token-{n}")).await })
        })
        .collect();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 503);
    }
    assert!(site.counts.turned_away() > 0, "{:?}", site.counts);
    server.turns.add_permits(Semaphore::MAX_PERMITS >> 4);
    server.active("good", json!({}));
    assert_eq!(site.status("good").await, 200, "it goes on");
    // Nobody listens there.
    let (listener, address) = common::listen().await;
    drop(listener);
    let gone = Introspection::allowing_http(
        format!("http://{address}/"),
        ISSUER,
        IntrospectionCredentials::bearer("t"),
        digests(),
    );
    assert_eq!(Site::of(gone.unwrap(), Policy::default()).await.status("any").await, 503);
}

#[tokio::test]
async fn l6_what_is_no_answer_of_rfc_7662_is_not_believed() {
    let server = As::start().await;
    let site = Site::new(&server).await;
    let (json, active) = ("application/json", r#"{"active":true,"sub":"alice"}"#);
    let exp = unix() + 600;
    let full = |rest: &str| format!(r#"{{"active":true,"exp":{exp}{rest}}}"#);
    for (name, code, media, body, expected) in [
        ("html", 200, "text/html", "<html>active: true</html>".to_owned(), 503),
        ("html-called-json", 200, json, "<html>active: true</html>".to_owned(), 503),
        ("json-called-text", 200, "text/plain", full(""), 503),
        ("word", 200, json, format!(r#"{{"active":"true","exp":{exp}}}"#), 503),
        ("number", 200, json, format!(r#"{{"active":1,"exp":{exp}}}"#), 503),
        ("twice", 200, json, full(r#","active":false"#), 503),
        ("two-subjects", 200, json, full(r#","sub":"a","sub":"b""#), 503),
        ("subject-number", 200, json, full(r#","sub":7"#), 503),
        ("empty", 200, json, String::new(), 503),
        ("no-active", 200, json, r#"{"sub":"alice"}"#.to_owned(), 503),
        ("array", 200, json, format!("[{active}]"), 503),
        ("created", 201, json, full(""), 503),
        ("unauthorized", 401, json, full(""), 503),
        ("error", 500, json, full(""), 503),
        ("redirect", 307, json, full(""), 503),
        ("huge", 200, json, full(&format!(r#","x":"{}""#, "x".repeat(1 << 20))), 503),
        ("other-issuer", 200, json, full(&format!(r#","sub":"alice","iss":"{OTHER}""#)), 401),
        ("near-issuer", 200, json, full(r#","iss":"https://issuer.example""#), 401),
        ("ours", 200, json, full(&format!(r#","iss":"{ISSUER}""#)), 200),
        ("charset", 200, "application/json; charset=utf-8", full(""), 200),
    ] {
        server.says(name, code, media, body);
        assert_eq!(site.status(name).await, expected, "{name}");
    }
    *server.headers.lock().unwrap() = vec![("location", format!("http://{}/elsewhere", server.address))];
    let before = server.asked();
    server.says("redirect-2", 302, json, full(""));
    assert_eq!(site.status("redirect-2").await, 503);
    assert_eq!(server.asked(), before + 1, "a redirect is not followed");
    *server.headers.lock().unwrap() = vec![("content-encoding", "gzip".to_owned())];
    server.says("coded", 200, json, full(""));
    assert_eq!(site.status("coded").await, 503);
    // What failed is asked again.
    server.headers.lock().unwrap().clear();
    assert_eq!(site.status("coded").await, 200);
}

#[tokio::test]
async fn audiences_and_policies_hold() {
    let server = As::start().await;
    let site = Site::of(server.introspection().audience([AUDIENCE]), Policy::default()).await;
    server.active("ours", json!({"aud": ["x", AUDIENCE]}));
    server.active("theirs", json!({"aud": "x"}));
    server.active("nobodys", json!({}));
    assert_eq!(site.status("ours").await, 200);
    assert_eq!((site.status("theirs").await, site.status("nobodys").await), (401, 401));
    let strict = Policy::default().missing_jti(MissingClaim::Deny);
    let site = Site::of(server.introspection(), strict).await;
    server.active("named", json!({"jti": "j"}));
    for _ in 0..3 {
        assert_eq!((site.status("named").await, site.status("nobodys").await), (200, 401));
    }
    // A cutoff, and nothing says when the token was issued.
    let site = Site::new(&server).await;
    server.active("timeless", json!({"iat": null}));
    assert_eq!(site.status("timeless").await, 200);
    site.revoke(Scope::subject(ISSUER, "alice")).await;
    assert_eq!(site.status("timeless").await, 401);
}

#[tokio::test]
async fn every_token_can_be_one_to_ask_about() {
    let server = As::start().await;
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Introspect::new(server.introspection()));
    let (waits, does_not) = (layer.clone().asking(), layer);
    let site = |layer| Router::new().route("/", get(|| async { "in" })).layer(layer);
    let address = serve(site(waits)).await;
    let jwt = token(json!({"jti": "of the token"}));
    server.active(&jwt, json!({}));
    for _ in 0..2 {
        assert_eq!(status(address, &jwt).await, 200);
    }
    assert_eq!(server.asked(), 1);
    // What others know of it by its own `jti` counts, though the issuer does not say it.
    let _ = revocations.revoke(Revocation::new(Scope::token(ISSUER, "of the token"))).await.unwrap();
    assert_eq!(status(address, &jwt).await, 401);
    server.active("opaque", json!({}));
    let without = serve(Router::new().route("/", get(|| async { "in" })).layer(does_not)).await;
    assert_eq!(status(without, "unseen").await, 503, "a door that cannot wait");
    assert_eq!(status(address, "opaque").await, 200);
    assert_eq!(status(without, "opaque").await, 200, "at hand by now");
    for (lines, expected) in [
        (vec!["authorization: Bearer opaque", "authorization: Bearer opaque"], 400),
        (vec!["authorization: Bearer opaque,Bearer other"], 400),
        (vec!["authorization: bearer   opaque"], 200),
        (vec!["authorization: Bearer opa\u{20}que"], 400),
        (vec![], 200),
    ] {
        assert_eq!(common::get(address, "/", &lines).await.status, expected, "{lines:?}");
    }
    let long = "a".repeat(20_000);
    let before = server.asked();
    assert_eq!(status(address, &long).await, 400);
    assert_eq!(server.asked(), before);
}

#[tokio::test]
async fn bad_settings_are_refused() {
    let make = |url: &str, issuer: &str| {
        Introspection::new(url, issuer, IntrospectionCredentials::basic("a", "b"), digests()).err()
    };
    assert_eq!(make("http://as.example/introspect", ISSUER), Some(IntrospectionError::NotHttps));
    for url in ["", "as.example", "https://", "https://u:p@as.example/", "ftp://as.example/", "https://as.example/#x"] {
        assert_eq!(make(url, ISSUER), Some(IntrospectionError::Url), "{url}");
    }
    assert_eq!(make("https://as.example/introspect", ""), Some(IntrospectionError::NoIssuer));
    let bad = IntrospectionCredentials::bearer("a\nb");
    let made = Introspection::new("https://as.example/introspect", ISSUER, bad, digests());
    assert_eq!(made.err(), Some(IntrospectionError::Credentials));
}

// The endpoint.

const PATH: &str = "/oauth/introspect";

fn clients() -> Clients {
    let confidential = |id: &str| RegisteredClient::confidential(id, format!("{id}-secret"), SecretMethod::Basic);
    [
        confidential("api").issuers([ISSUER]).scopes(["introspect"]),
        confidential("elsewhere").issuers([OTHER]).scopes(["introspect"]),
        confidential("plain").issuers([ISSUER]),
        RegisteredClient::public("spa").issuers([ISSUER]).scopes(["introspect"]),
    ]
    .into_iter()
    .fold(Clients::new().access_tokens(verifier()), |clients, client| clients.client(client).unwrap())
}

fn basic(id: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(format!("{id}:{id}-secret")))
}

async fn post(address: SocketAddr, path: &str, headers: &[&str], body: &str) -> Answer {
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{body}", body.len());
    raw(address, request).await
}

struct Asked {
    address: SocketAddr,
    revocations: Revocations,
}

impl Asked {
    async fn with(set: impl FnOnce(IntrospectionEndpoint) -> IntrospectionEndpoint, profile: Profile) -> Self {
        let revocations = common::revocations().await;
        let recorder = Recorder::new(revocations.clone(), MemoryStore::new(), digests(), ISSUER).verifier(verifier());
        let endpoint = set(IntrospectionEndpoint::new(verifier(), clients()).recorder(recorder.clone()));
        let token = TokenEndpoint::new(verifier(), clients());
        let endpoints = Endpoints::new(revocations.clone()).profile(profile).token(token).introspection(endpoint);
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let layer = FrontLayer::new(check, endpoints).unwrap().recorder(recorder, "/oauth/token").unwrap();
        let metadata =
            Metadata::new("https://as.example").auth_methods(["client_secret_basic", "private_key_jwt", "none"]);
        let layer = layer.metadata(metadata.signing_algs(["ES256"]).alone(true)).unwrap();
        let issued = || async {
            let body = r#"{"access_token":"opaque","token_type":"Bearer","expires_in":600,"refresh_token":"r"}"#;
            Response::builder().header("content-type", "application/json").body(Body::from(body)).unwrap()
        };
        let router = Router::new().route("/oauth/token", axum::routing::post(issued)).fallback(|| async { "inner" });
        Self { address: serve(router.layer(layer)).await, revocations }
    }

    async fn new() -> Self {
        Self::with(|endpoint| endpoint, Profile::Standard).await
    }

    async fn ask(&self, client: &str, token: &str) -> Answer {
        post(self.address, PATH, &[FORM, &basic(client)], &format!("token={token}")).await
    }
}

#[track_caller]
fn assert_inactive(answer: &Answer, row: &str) {
    assert_eq!((answer.status, &*answer.body), (200, r#"{"active":false}"#), "{row}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{row}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{row}");
}

#[tokio::test]
async fn s19_active_tokens_are_told_and_all_others_answered_alike() {
    let site = Asked::new().await;
    let (iat, exp) = (unix() - 5, unix() + 600);
    let claims = json!({"jti": "j", "sid": "s", "scope": "read", "iat": iat, "exp": exp, "active": false, "x": [1, {"y": null}]});
    let good = token(claims);
    let answer = site.ask("api", &good).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    let expected = json!({
        "active": true, "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "scope": "read",
        "jti": "j", "sid": "s", "iat": iat, "exp": exp, "x": [1, {"y": null}],
    });
    assert_eq!(told, expected);
    assert_eq!(answer.body.matches("\"active\"").count(), 1);

    let other =
        |iss: &str| common::signed(r#"{"alg":"HS256"}"#, &json!({"iss": iss, "aud": AUDIENCE, "exp": exp}).to_string());
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let rows = [
        ("unknown", "no-such-token".to_owned()),
        ("malformed", "a.b.c".to_owned()),
        ("long", "a".repeat(20_000)),
        ("badly signed", format!("{}x", &good[..good.len() - 1])),
        ("alg none", format!("{head}.{}.", good.split('.').nth(1).unwrap())),
        ("expired", token(json!({"exp": unix() - 100}))),
        ("not yet", token(json!({"nbf": unix() + 1000}))),
        ("endless", token(json!({"exp": null}))),
        ("other audience", token(json!({"aud": "x"}))),
        ("other issuer", other(OTHER)),
        ("claim of a wrong type", token(json!({"sub": 7}))),
    ];
    for (row, token) in &rows {
        assert_inactive(&site.ask("api", token).await, row);
        let body = format!("token={token}&token_type_hint=refresh_token");
        assert_inactive(&post(site.address, PATH, &[FORM, &basic("api")], &body).await, row);
    }
    assert_inactive(&site.ask("elsewhere", &good).await, "rule 14: a caller with no say over the issuer");
    let hinted = post(site.address, PATH, &[FORM, &basic("api")], &format!("token={good}&token_type_hint=x")).await;
    assert!(hinted.body.contains("true"), "a wrong hint hides nothing");
    let _ = site.revocations.revoke(Revocation::new(Scope::session(ISSUER, "s"))).await.unwrap();
    assert_inactive(&site.ask("api", &good).await, "revoked");
    assert_inactive(&site.ask("elsewhere", &good).await, "revoked, and foreign");
}

#[tokio::test]
async fn s19_callers_must_be_authenticated_and_allowed() {
    let site = Asked::with(|endpoint| endpoint.scope("introspect"), Profile::Standard).await;
    let good = token(json!({"jti": "j"}));
    let bearer = |scope: &str| {
        format!("authorization: Bearer {}", token(json!({"jti": "c", "client_id": "rs", "scope": scope})))
    };
    let (granted, not) = (bearer("read introspect"), bearer("read"));
    let wrong = format!("authorization: Basic {}", STANDARD.encode("api:wrong"));
    for (row, headers, status, error) in [
        ("nobody", vec![FORM], 401, "invalid_client"),
        ("a wrong secret", vec![FORM, &wrong], 401, "invalid_client"),
        ("a client without the scope", vec![FORM, &basic("plain")], 403, "insufficient_scope"),
        ("a token without the scope", vec![FORM, &not], 403, "insufficient_scope"),
        ("no token at all", vec![FORM, "authorization: Bearer x"], 401, "invalid_token"),
        ("two at once", vec![FORM, &basic("api"), &granted], 400, "invalid_request"),
        ("no form", vec!["content-type: application/json", &basic("api")], 415, "invalid_request"),
    ] {
        let answer = post(site.address, PATH, &headers, &format!("token={good}")).await;
        assert_eq!(answer.status, status, "{row}: {}", answer.body);
        assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap()["error"], error, "{row}");
        assert_eq!(
            answer.header("www-authenticate").is_some(),
            status == 401 || row.contains("token without"),
            "{row}"
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{row}");
    }
    for headers in [[FORM, &*basic("api")], [FORM, &*granted]] {
        assert!(post(site.address, PATH, &headers, &format!("token={good}")).await.body.contains("\"active\":true"));
    }
    let public = post(site.address, PATH, &[FORM], &format!("client_id=spa&token={good}")).await;
    assert_eq!((public.status, public.body.contains("unauthorized_client")), (400, true));
    assert_eq!(site.ask("api", "").await.status, 400, "no token");
    let twice = post(site.address, PATH, &[FORM, &basic("api")], &format!("token={good}&token=x")).await;
    assert_eq!(twice.status, 400);
    let get = common::get(site.address, &format!("{PATH}?token={good}"), &[&basic("api")]).await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    let mega = post(site.address, PATH, &[FORM, &basic("api")], &format!("token={}", "a".repeat(100_000))).await;
    assert_eq!(mega.status, 413);
    // Without a scope, no access token will do.
    let site = Asked::new().await;
    assert_eq!(post(site.address, PATH, &[FORM, &granted], &format!("token={good}")).await.status, 403);
}

#[tokio::test]
async fn opaque_tokens_are_told_as_far_as_the_recorder_knows_them() {
    let site = Asked::new().await;
    assert_inactive(&site.ask("api", "opaque").await, "not issued yet");
    let body = "grant_type=authorization_code&code=c&client_id=app";
    assert_eq!(post(site.address, "/oauth/token", &[FORM], body).await.status, 200);
    let answer = site.ask("api", "opaque").await;
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((&told["active"], &told["iss"], &told["client_id"]), (&json!(true), &json!(ISSUER), &json!("app")));
    assert!(told["exp"].as_u64().unwrap() > unix());
    assert_inactive(&site.ask("elsewhere", "opaque").await, "foreign");
    assert_inactive(&site.ask("api", "r").await, "a refresh token is no access token");
    let _ = site.revocations.revoke(Revocation::new(Scope::client(ISSUER, "app"))).await.unwrap();
    assert_inactive(&site.ask("api", "opaque").await, "revoked");
}

fn signing_key() -> SigningKey {
    let pair =
        aws_lc_rs::signature::EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der = pair.to_pkcs8v1().unwrap();
    SigningKey::pem(format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----",
        STANDARD.encode(der.as_ref())
    ))
    .unwrap()
}

/// RFC 9701.
#[tokio::test]
async fn answers_can_be_signed() {
    const AS: &str = "https://as.example";
    let key = signing_key();
    let issuer = Issuer::new(AS).algorithms([Algorithm::ES256]).keys(Keys::jwks(key.public_jwk()));
    let issuer = issuer.audience(["api"]).require_typ("token-introspection+jwt");
    let caller = JwtVerifier::builder().issuer(issuer).build().unwrap();
    let site = Asked::with(|endpoint| endpoint.signed(AS, key), Profile::Standard).await;
    let good = token(json!({"jti": "j"}));
    let accept = "accept: application/json;q=0.5, Application/Token-Introspection+JWT";
    for (asked, active) in [(good.as_str(), true), ("unknown", false)] {
        let answer = post(site.address, PATH, &[FORM, &basic("api"), accept], &format!("token={asked}")).await;
        assert_eq!(answer.header("content-type"), Some("application/token-introspection+jwt"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let parts: Vec<&str> = answer.body.split('.').collect();
        let part = |n: usize| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(parts[n]).unwrap()).unwrap();
        assert_eq!(part(0)["typ"], "token-introspection+jwt");
        let claims = part(1);
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(AS), &json!("api")));
        assert!(claims["iat"].as_u64().unwrap().abs_diff(unix()) < 60);
        assert!(claims.get("exp").is_none() && claims.get("sub").is_none(), "it must not pass for an access token");
        assert_eq!(claims["token_introspection"]["active"], active);
        assert_eq!(claims["token_introspection"].as_object().unwrap().len() == 1, !active);
        // An answer has no `exp`; everything else about it is as it must be, the signature too.
        use tower_revocation::token::{Verifier as _, VerifyError};
        assert_eq!(caller.verify(&answer.body, unix()), Err(VerifyError::LivesTooLong));
        assert!(caller.verify_expired(&answer.body, unix()).is_ok());
    }
    for accept in ["accept: */*", "accept: application/json", "accept: application/token-introspection+jwt;q=0"] {
        let answer = post(site.address, PATH, &[FORM, &basic("api"), accept], "token=unknown").await;
        assert_inactive(&answer, accept);
    }
    let metadata = common::get(site.address, "/.well-known/oauth-authorization-server", &[]).await;
    let metadata: Value = serde_json::from_str(&metadata.body).unwrap();
    assert_eq!(metadata["introspection_signing_alg_values_supported"], json!(["ES256"]));
}

/// RFC 8414 §2.
#[tokio::test]
async fn metadata_names_the_endpoint() {
    for (profile, path) in [(Profile::Standard, PATH), (Profile::Janssen, "/jans-auth/restv1/introspection")] {
        let site = Asked::with(|endpoint| endpoint, profile).await;
        let metadata = common::get(site.address, "/.well-known/oauth-authorization-server", &[]).await;
        let metadata: Value = serde_json::from_str(&metadata.body).unwrap();
        assert_eq!(metadata["introspection_endpoint"], format!("https://as.example{path}"));
        let methods = json!(["client_secret_basic", "private_key_jwt"]);
        assert_eq!(metadata["introspection_endpoint_auth_methods_supported"], methods, "none will not do");
        assert_eq!(metadata["introspection_endpoint_auth_signing_alg_values_supported"], json!(["ES256"]));
        assert_eq!(metadata.get("introspection_signing_alg_values_supported"), None);
        assert_eq!(post(site.address, &format!("{path}/"), &[FORM], "token=x").await.status, 400, "ambiguous");
    }
    let revocations = common::revocations().await;
    let endpoints =
        Endpoints::new(revocations.clone()).introspection(IntrospectionEndpoint::new(verifier(), clients()));
    endpoints.switches().set(EndpointName::Introspection, false);
    assert!(endpoints.advertised().is_empty());
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let error = EndpointLayer::new(check, endpoints.profile(Profile::TokenAuthority)).unwrap_err();
    assert_eq!(error, EndpointError::NoPath { endpoint: EndpointName::Introspection });
}

// The overlay.

struct Front {
    address: SocketAddr,
    revocations: Revocations,
    behind: As,
}

impl Front {
    async fn start() -> Self {
        let behind = As::start().await;
        let revocations = common::revocations().await;
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let overlay = IntrospectionOverlay::new("/introspect", ISSUER).unwrap().opaque(digests());
        let layer = FrontLayer::new(check, Endpoints::new(revocations.clone())).unwrap();
        let layer = layer.introspection(overlay).unwrap();
        let answering = behind.clone();
        let router = Router::new().fallback(move |request: Request| answering.clone().answer(request)).layer(layer);
        Self { address: serve(router).await, revocations, behind }
    }

    async fn ask(&self, token: &str) -> Answer {
        post(self.address, "/introspect", &[FORM, &basic("api")], &format!("token={token}")).await
    }

    async fn revoke(&self, scope: Scope) {
        let _ = self.revocations.revoke(Revocation::new(scope)).await.unwrap();
    }
}

#[tokio::test]
async fn s19_an_active_answer_turns_inactive_when_the_denylist_says_so() {
    let front = Front::start().await;
    for name in ["by-digest", "by-previous", "by-jti", "by-subject"] {
        front.behind.active(name, json!({"jti": name, "sub": name, "x": 1.50}));
        let answer = front.ask(name).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(r#""active":true"#) && answer.body.contains("1.5"), "{}", answer.body);
    }
    front.revoke(Scope::opaque_token(digests().digests(b"by-digest").next().unwrap())).await;
    front.revoke(Scope::opaque_token(digests().digests(b"by-previous").nth(1).unwrap())).await;
    front.revoke(Scope::token(ISSUER, "by-jti")).await;
    front.revoke(Scope::subject(ISSUER, "by-subject")).await;
    for name in ["by-digest", "by-previous", "by-jti", "by-subject"] {
        assert_inactive(&front.ask(name).await, name);
    }
    // A JWT counts by what it says itself too.
    let jwt = token(json!({"jti": "inside", "iat": unix() - 5}));
    front.behind.says(&jwt, 200, "application/json", r#"{"active":true}"#);
    assert_eq!(front.ask(&jwt).await.body, r#"{"active":true}"#);
    front.revoke(Scope::token(ISSUER, "inside")).await;
    assert_inactive(&front.ask(&jwt).await, "by its own jti");
    // What is not active, and errors, pass as they are.
    assert_eq!(front.ask("unknown").await.body, r#"{"active":false}"#);
    front.behind.says("error", 401, "text/plain", "no");
    let error = front.ask("error").await;
    assert_eq!((error.status, &*error.body), (401, "no"));
}

#[tokio::test]
async fn the_overlay_reads_answers_in_one_way_only() {
    let front = Front::start().await;
    for (row, media, body) in [
        ("html", "text/html", "<html></html>"),
        ("a word", "application/json", r#"{"active":"true"}"#),
        ("twice", "application/json", r#"{"active":false,"active":true}"#),
        ("two subjects", "application/json", r#"{"active":true,"sub":"a","sub":"b"}"#),
        ("a wrong type", "application/json", r#"{"active":true,"jti":7}"#),
        ("nothing", "application/json", ""),
        ("signed, but not", "application/token-introspection+jwt", r#"{"active":true}"#),
    ] {
        front.behind.says("t", 200, media, body);
        let answer = front.ask("t").await;
        assert_eq!((answer.status, answer.body.contains("server_error")), (502, true), "{row}");
    }
    let huge = format!(r#"{{"active":true,"x":"{}"}}"#, "x".repeat(2 << 20));
    front.behind.says("t", 200, "application/json", huge);
    assert_eq!(front.ask("t").await.status, 502);
    // Compressed.
    let (iat, exp) = (unix() - 5, unix() + 600);
    let zip = |sub: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(format!(r#"{{"active":true,"sub":"{sub}","exp":{exp},"iat":{iat}}}"#).as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    *front.behind.headers.lock().unwrap() = vec![("content-encoding", "gzip".to_owned())];
    front.behind.says("zip", 200, "application/json", zip("alice"));
    assert_eq!(front.ask("zip").await.status, 200);
    front.revoke(Scope::subject(ISSUER, "alice")).await;
    assert_inactive(&front.ask("zip").await, "compressed");
    front.behind.says("bomb", 200, "application/json", {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b' '; 8 << 20]).unwrap();
        encoder.finish().unwrap()
    });
    assert_eq!(front.ask("bomb").await.status, 502);
    *front.behind.headers.lock().unwrap() = vec![];
    // Signed (RFC 9701): there is no key to sign another answer with.
    let jwt = |sub: &str| {
        let told = json!({"active": true, "sub": sub, "exp": exp, "iat": iat});
        let claims = json!({"iss": ISSUER, "aud": "api", "iat": unix(), "token_introspection": told}).to_string();
        common::signed(r#"{"alg":"HS256","typ":"token-introspection+jwt"}"#, &claims)
    };
    for (sub, passes) in [("bob", true), ("alice", false)] {
        front.behind.says("signed", 200, "application/token-introspection+jwt", jwt(sub));
        let answer = front.ask("signed").await;
        if passes {
            assert_eq!(answer.header("content-type"), Some("application/token-introspection+jwt"));
        } else {
            assert_inactive(&answer, "signed");
        }
    }
}

#[tokio::test]
async fn the_overlay_asks_for_one_token_and_is_nobodys_other_path() {
    let front = Front::start().await;
    for (row, headers, body, status) in [
        ("two tokens", vec![FORM], "token=a&token=b", 400),
        ("none", vec![FORM], "x=a", 400),
        ("json", vec!["content-type: application/json"], "{}", 415),
        ("coded", vec![FORM, "content-encoding: gzip"], "token=a", 415),
    ] {
        assert_eq!(post(front.address, "/introspect", &headers, body).await.status, status, "{row}");
    }
    assert_eq!(common::get(front.address, "/introspect?token=a", &[]).await.status, 405);
    for path in ["/introspect/", "/Introspect", "//introspect", "/%69ntrospect", "/introspect.json"] {
        assert_eq!(post(front.address, path, &[FORM], "token=a").await.status, 400, "{path}");
    }
    assert_eq!(front.behind.asked(), 0);
    // The caller's own access token is checked as everywhere.
    let revoked = token(json!({"jti": "caller", "iat": unix() - 5}));
    front.revoke(Scope::token(ISSUER, "caller")).await;
    let bearer = format!("authorization: Bearer {revoked}");
    assert_eq!(post(front.address, "/introspect", &[FORM, &bearer], "token=a").await.status, 401);
    let revocations = common::revocations().await;
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let endpoints = Endpoints::new(revocations).introspection(IntrospectionEndpoint::new(verifier(), clients()));
    let overlay = IntrospectionOverlay::new(PATH, ISSUER).unwrap();
    let error = FrontLayer::new(check, endpoints).unwrap().introspection(overlay).err();
    assert_eq!(error, Some(EndpointError::SamePath { path: PATH.to_owned() }));
}
