//! How clients authenticate themselves at an endpoint, over a real socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use aws_lc_rs::{
    encoding::AsDer,
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use axum::Router;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use common::{Answer, ISSUER, config, issuer, listen, log::Log, raw, token, unix, verifier};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::util::MapRequestLayer;
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{Backend, Memory, Sqlite},
    directory::ClaimsOnly,
    endpoint::{
        AuthMethod, Call, CertificateHeader, CertificateName, Client, ClientAuthenticator, ClientCertificate,
        ClientError, Clients, ClientsError, EndpointLayer, EndpointName, Endpoints, FailureLimit, FrontLayer,
        GlobalEndpoint, Mode, PeerAddress, Presented, Profile, RegisteredClient, Secret, SecretMethod, SessionEndpoint,
        SignedRequests, TokenEndpoint, metadata::Metadata,
    },
    revocation::{Revocation, Scope},
    time::ManualClock,
    token::{Algorithm, Issuer, JwtVerifier, Keys, Verifier, Verify},
};

const FORM: &str = "content-type: application/x-www-form-urlencoded";
const GLOBAL: &str = "/oauth/global-token-revocation";
const HERE: &str = "https://api.example/oauth/revoke";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ONE: &str = include_str!("common/client-one.pem");
const TWO: &str = include_str!("common/client-two.pem");
const PROXY: &str = "192.0.2.10:4000";
const STRANGER: &str = "198.51.100.7:4000";

static KEY: LazyLock<EcdsaKeyPair> = LazyLock::new(ec);
static OTHER_KEY: LazyLock<EcdsaKeyPair> = LazyLock::new(ec);

fn ec() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn jwk(key: &EcdsaKeyPair) -> String {
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}).to_string()
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    STANDARD.decode(body).unwrap()
}

fn sha256(der: &[u8]) -> [u8; 32] {
    Sha256::digest(der).into()
}

fn certificate(pem: &str) -> ClientCertificate {
    ClientCertificate::new(der(pem))
}

/// An assertion of `jwt`, with these claims over the usual ones.
fn claims(over: Value) -> String {
    let mut all = json!({"iss": "jwt", "sub": "jwt", "aud": HERE, "iat": unix(), "exp": unix() + 120});
    all["jti"] = json!(format!("{:?}", std::time::Instant::now()));
    for (name, value) in over.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all.to_string()
}

fn signed(key: &EcdsaKeyPair, header: &str, claims: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn assertion(over: Value) -> String {
    signed(&KEY, r#"{"alg":"ES256"}"#, &claims(over))
}

fn registered() -> Clients {
    let dn = CertificateName::SubjectDn("CN=client one,O=Example".to_owned());
    let clients = [
        RegisteredClient::confidential("basic", "hush basic", SecretMethod::Basic),
        RegisteredClient::confidential("post", "hush post", SecretMethod::Post),
        RegisteredClient::private_key_jwt("jwt", Keys::jwks(jwk(&KEY)), [Algorithm::ES256]).unwrap(),
        RegisteredClient::tls_client_auth("tls", dn),
        RegisteredClient::self_signed_tls_client_auth("self", [sha256(&der(ONE))]),
        RegisteredClient::public("app"),
    ];
    let none = Clients::new().audience([HERE, ISSUER]).access_tokens(verifier());
    clients.into_iter().fold(none, |all, client| all.client(client.issuers([ISSUER]).scopes(["registered"])).unwrap())
}

/// What the server in front of the layer says of a connection.
#[derive(Clone, Default)]
struct Connection {
    peer: Option<SocketAddr>,
    certificate: Option<ClientCertificate>,
}

struct Node {
    address: SocketAddr,
    revocations: Revocations,
    connection: Arc<Mutex<Connection>>,
    clock: Arc<ManualClock>,
}

impl Node {
    async fn start() -> Self {
        Self::with(registered()).await
    }

    async fn with(clients: Clients) -> Self {
        Self::on(Memory::new(), TokenEndpoint::new(verifier(), clients)).await
    }

    async fn on(backend: impl Backend, endpoint: TokenEndpoint) -> Self {
        Self::behind(backend, |endpoints| endpoints.token(endpoint)).await
    }

    /// With every endpoint.
    async fn full(profile: Profile, clients: Clients) -> Self {
        Self::behind(Memory::new(), |endpoints| {
            let token = TokenEndpoint::new(verifier(), clients.clone()).bearer_scope("revoke");
            let endpoints = endpoints.profile(profile).token(token);
            endpoints.session(SessionEndpoint::new(ClaimsOnly, [ISSUER], clients.clone())).global(GlobalEndpoint::new(
                ClaimsOnly,
                [ISSUER],
                clients,
            ))
        })
        .await
    }

    async fn behind(backend: impl Backend, add: impl FnOnce(Endpoints) -> Endpoints) -> Self {
        let clock = Arc::new(ManualClock::at(unix()));
        let mut config = config();
        config.denylist.clock = clock.clone();
        let revocations = Revocations::start(backend, config).await.unwrap();
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let layer = EndpointLayer::new(check, add(Endpoints::new(revocations.clone()))).unwrap();
        let connection = Arc::new(Mutex::new(Connection::default()));
        let router = Router::new().fallback(told).layer(layer);
        let address = serve(router, connection.clone()).await;
        Self { address, revocations, connection, clock }
    }

    /// A request of this kind to an endpoint, with these headers.
    async fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        headers.iter().for_each(|header| request += &format!("{header}\r\n"));
        raw(self.address, request + &format!("content-length: {}\r\n\r\n{body}", body.len())).await
    }

    /// Logs alice out everywhere.
    async fn log_out(&self, headers: &[&str]) -> Answer {
        self.post(GLOBAL, &[&["content-type: application/json"], headers].concat(), &alice()).await
    }

    fn peer(&self, peer: &str) -> &Self {
        self.connection.lock().unwrap().peer = Some(peer.parse().unwrap());
        self
    }

    fn shows(&self, certificate: Option<ClientCertificate>) -> &Self {
        self.connection.lock().unwrap().certificate = certificate;
        self
    }

    /// Revokes a fresh token of `client`, authenticated in this way.
    async fn revoke(&self, client: &str, headers: &[&str], fields: &[(&str, &str)]) -> Answer {
        let jti = format!("{client} {:?}", std::time::Instant::now());
        let token = token(json!({"client_id": client, "jti": jti}));
        let body = form(&[fields, &[("token", &token)]].concat());
        let mut request = format!("POST /oauth/revoke HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{FORM}\r\n");
        headers.iter().for_each(|header| request += &format!("{header}\r\n"));
        let answer = raw(self.address, request + &format!("content-length: {}\r\n\r\n{body}", body.len())).await;
        let identity = verifier().verify(&token, unix()).unwrap();
        let revoked = self.revocations.check(&identity) != tower_revocation::denylist::Verdict::Allow;
        assert_eq!(answer.status == 200, revoked, "200 means revoked: {} {}", answer.head, answer.body);
        answer
    }

    async fn asserts(&self, assertion: &str) -> Answer {
        self.revoke("jwt", &[], &asserting(assertion)).await
    }

    async fn says(&self, id: &str, headers: &[&str]) -> Answer {
        self.revoke(id, headers, &[("client_id", id)]).await
    }
}

/// Serves what a service answers, behind a server that tells it of the connection.
async fn serve(router: Router, connection: Arc<Mutex<Connection>>) -> SocketAddr {
    let tell = MapRequestLayer::new(move |mut request: Request<_>| {
        let Connection { peer, certificate } = connection.lock().unwrap().clone();
        peer.map(|peer| request.extensions_mut().insert(PeerAddress(peer)));
        certificate.map(|certificate| request.extensions_mut().insert(certificate));
        request
    });
    let router = router.layer(tell);
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// What the service behind was told: the names of the headers.
async fn told(headers: HeaderMap) -> String {
    headers.keys().map(HeaderName::as_str).collect::<Vec<_>>().join(" ")
}

fn alice() -> String {
    json!({"sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "alice"}}).to_string()
}

fn asserting(assertion: &str) -> [(&str, &str); 2] {
    [("client_assertion_type", JWT_BEARER), ("client_assertion", assertion)]
}

fn encode(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

fn basic(id: &str, secret: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}

#[track_caller]
fn is(answer: &Answer, status: u16, error: &str) {
    let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    assert_eq!((answer.status, json["error"].as_str().unwrap_or_default()), (status, error), "{}", answer.body);
}

#[track_caller]
fn refused(answer: &Answer) {
    is(answer, 401, "invalid_client");
    assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"revocation\""));
}

#[track_caller]
fn accepted(answer: &Answer) {
    is(answer, 200, "");
}

// Secrets.

#[tokio::test]
async fn each_client_uses_its_own_method_and_no_other() {
    let node = Node::start().await;
    let post = |id: &'static str, secret: &'static str| [("client_id", id), ("client_secret", secret)];
    accepted(&node.revoke("basic", &[&basic("basic", "hush basic")], &[]).await);
    accepted(&node.revoke("post", &[], &post("post", "hush post")).await);
    accepted(&node.says("app", &[]).await);
    accepted(&node.asserts(&assertion(json!({}))).await);
    refused(&node.revoke("post", &[&basic("post", "hush post")], &[]).await);
    refused(&node.revoke("basic", &[], &post("basic", "hush basic")).await);
    refused(&node.revoke("jwt", &[&basic("jwt", "")], &[]).await);
    for id in ["basic", "post", "jwt", "tls", "self", "nobody"] {
        refused(&node.says(id, &[]).await);
    }
    let of_basic = assertion(json!({"iss": "basic", "sub": "basic"}));
    refused(&node.revoke("basic", &[], &asserting(&of_basic)).await);
}

/// RFC 6749 §2.3.
#[tokio::test]
async fn two_mechanisms_are_one_too_many() {
    let node = Node::start().await;
    let (basic, bearer) = (basic("basic", "hush basic"), format!("authorization: Bearer {}", token(json!({}))));
    let assertion = assertion(json!({}));
    let secret = [("client_id", "post"), ("client_secret", "hush post")];
    let asserting = asserting(&assertion);
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 7] = [
        (&[&basic], &asserting),
        (&[&bearer], &asserting),
        (&[&basic], &secret),
        (&[&bearer], &secret),
        (&[], &[&secret[..], &asserting].concat()),
        (&[&basic, &bearer], &[]),
        (&[&basic], &asserting[..1]),
    ];
    for (headers, fields) in cases {
        is(&node.revoke("basic", headers, fields).await, 400, "invalid_request");
    }
    // The assertion was not used up.
    accepted(&node.asserts(&assertion).await);
}

#[tokio::test]
async fn an_unknown_client_is_answered_like_a_wrong_secret() {
    let node = Node::start().await;
    let bytes = |answer: Answer| {
        let lines: Vec<_> = answer.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date")).collect();
        format!("{} {}", lines.join("\n"), answer.body)
    };
    let wrong = bytes(node.revoke("basic", &[&basic("basic", "x")], &[]).await);
    assert_eq!(bytes(node.revoke("x", &[&basic("nobody", "x")], &[]).await), wrong);
    let forged = signed(&OTHER_KEY, r#"{"alg":"ES256"}"#, &claims(json!({})));
    let wrong = bytes(node.asserts(&forged).await);
    let unknown = assertion(json!({"iss": "nobody", "sub": "nobody"}));
    assert_eq!(bytes(node.asserts(&unknown).await), wrong);
    assert_eq!(bytes(node.asserts("garbage").await), wrong);
}

// Assertions.

#[tokio::test]
async fn assertions_that_are_good() {
    let node = Node::start().await;
    for good in [
        json!({"aud": ISSUER}),
        json!({"aud": [HERE]}),
        json!({"aud": [HERE, ISSUER]}),
        json!({"iat": null}),
        json!({"exp": unix() + 355}),
        json!({"nbf": unix()}),
    ] {
        accepted(&node.asserts(&assertion(good)).await);
    }
    for typ in ["JWT", "client-authentication+jwt"] {
        accepted(
            &node.asserts(&signed(&KEY, &json!({"alg": "ES256", "typ": typ}).to_string(), &claims(json!({})))).await,
        );
    }
    let good = assertion(json!({}));
    let with_id = [&asserting(&good)[..], &[("client_id", "jwt")]].concat();
    accepted(&node.revoke("jwt", &[], &with_id).await);
}

#[tokio::test]
async fn assertions_that_are_not() {
    let limit = FailureLimit::new(NonZeroU32::MAX, Duration::from_secs(1));
    let node = Node::with(registered().failure_limit(limit)).await;
    for bad in [
        json!({"iss": "other"}),
        json!({"sub": "other"}),
        json!({"sub": null}),
        json!({"iss": null}),
        json!({"iss": "basic", "sub": "basic"}),
        json!({"aud": null}),
        json!({"aud": []}),
        json!({"aud": "https://other.example/"}),
        json!({"aud": [HERE, "https://other.example/"]}),
        json!({"aud": 5}),
        json!({"exp": null}),
        json!({"exp": unix() - 61}),
        json!({"exp": unix() + 400}),
        json!({"exp": unix() + 86_400, "iat": unix() + 86_300}),
        json!({"iat": unix() + 120}),
        json!({"nbf": unix() + 120}),
        json!({"jti": null}),
        json!({"jti": ""}),
    ] {
        refused(&node.asserts(&assertion(bad.clone())).await);
    }
    let secret = hmac::Key::new(hmac::HMAC_SHA256, KEY.public_key().as_ref());
    let input =
        |header: &str| format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims(json!({}))));
    let hs256 = input(r#"{"alg":"HS256"}"#);
    let hs256 = format!("{hs256}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&secret, hs256.as_bytes())));
    for bad in [
        signed(&OTHER_KEY, r#"{"alg":"ES256"}"#, &claims(json!({}))),
        signed(&KEY, r#"{"alg":"ES256","typ":"at+jwt"}"#, &claims(json!({}))),
        signed(&KEY, r#"{"alg":"ES256","typ":"dpop+jwt"}"#, &claims(json!({}))),
        signed(&KEY, r#"{"alg":"ES256","crit":["exp"]}"#, &claims(json!({}))),
        format!("{}.", input(r#"{"alg":"none"}"#)),
        hs256,
    ] {
        refused(&node.asserts(&bad).await);
    }
    let good = assertion(json!({}));
    let other_id = [&asserting(&good)[..], &[("client_id", "post")]].concat();
    refused(&node.revoke("jwt", &[], &other_id).await);
    for other_type in [
        "",
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
        "URN:ietf:params:oauth:client-assertion-type:jwt-bearer",
    ] {
        let fields = [("client_assertion_type", other_type), ("client_assertion", &good)];
        refused(&node.revoke("jwt", &[], &fields).await);
    }
    refused(&node.revoke("app", &[], &[("client_id", "app"), ("client_assertion_type", JWT_BEARER)]).await);
    // None of that used it up.
    accepted(&node.asserts(&good).await);
}

#[tokio::test]
async fn an_assertion_counts_once_in_the_whole_fleet() {
    let backend = Memory::new();
    let here = Node::on(backend.clone(), TokenEndpoint::new(verifier(), registered())).await;
    let there = Node::on(backend, TokenEndpoint::new(verifier(), registered())).await;
    let once = assertion(json!({}));
    accepted(&here.asserts(&once).await);
    refused(&here.asserts(&once).await);
    refused(&there.asserts(&once).await);
    // Another signature over the same jti is the same message, and another request.
    let (first, again) = (assertion(json!({"jti": "one"})), assertion(json!({"jti": "one"})));
    accepted(&there.asserts(&first).await);
    refused(&here.asserts(&again).await);
    let racing = assertion(json!({}));
    let all = futures_util::future::join_all(
        (0..8).map(|n| if n % 2 == 0 { &here } else { &there }).map(|n| n.asserts(&racing)),
    );
    // The very same request may come again as long as nobody was answered.
    assert!(all.await.iter().any(|answer| answer.status == 200));
    refused(&there.asserts(&racing).await);
}

#[tokio::test]
async fn clients_with_keys_that_could_not_work_are_refused() {
    let id = || "c".to_owned();
    let secret =
        RegisteredClient::private_key_jwt("c", Keys::secret(*b"32 random bytes make a good key!"), [Algorithm::HS256]);
    assert_eq!(secret.unwrap_err(), ClientsError::SymmetricAlgorithm { id: id() });
    let broken = RegisteredClient::private_key_jwt("c", Keys::jwks("{}"), [Algorithm::ES256]);
    assert!(matches!(broken.unwrap_err(), ClientsError::Keys { .. }));
    let client = RegisteredClient::private_key_jwt("c", Keys::jwks(jwk(&KEY)), [Algorithm::ES256]).unwrap();
    assert_eq!(Clients::new().client(client.any_issuer()).unwrap_err(), ClientsError::NoAudience { id: id() });
    for name in [
        CertificateName::SubjectDn(String::new()),
        CertificateName::SubjectDn("client".to_owned()),
        CertificateName::Dns(String::new()),
    ] {
        let client = RegisteredClient::tls_client_auth("c", name).any_issuer();
        assert_eq!(Clients::new().client(client).unwrap_err(), ClientsError::Certificate { id: id() });
    }
    let client = RegisteredClient::self_signed_tls_client_auth("c", []).any_issuer();
    assert_eq!(Clients::new().client(client).unwrap_err(), ClientsError::Certificate { id: id() });
}

/// The key of a client may have to be fetched first.
#[tokio::test]
async fn a_key_that_is_not_there_yet_is_worth_another_try() {
    let (listener, address) = listen().await;
    let client =
        RegisteredClient::private_key_jwt("jwt", Keys::jwks_url(format!("https://{address}/")), [Algorithm::ES256]);
    let clients = Clients::new().audience([HERE]).client(client.unwrap().issuers([ISSUER])).unwrap();
    let node = Node::with(clients).await;
    let answer = node.asserts(&assertion(json!({}))).await;
    is(&answer, 503, "temporarily_unavailable");
    drop(listener);
}

/// Nobody knows whether it came before: it is not taken for good.
#[tokio::test]
async fn an_assertion_that_cannot_be_claimed_is_worth_another_try() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revocations.db");
    let backend = Sqlite::open(&path).await.unwrap();
    let node = Node::on(backend, TokenEndpoint::new(verifier(), registered())).await;
    accepted(&node.asserts(&assertion(json!({}))).await);
    std::fs::remove_file(&path).unwrap();
    is(&node.asserts(&assertion(json!({}))).await, 503, "temporarily_unavailable");
}

// Certificates.

#[tokio::test]
async fn certificates_of_the_connection() {
    let node = Node::start().await;
    node.shows(Some(certificate(ONE)));
    accepted(&node.says("self", &[]).await);
    // It has the right name, but nobody verified who gave it.
    refused(&node.says("tls", &[]).await);
    node.shows(Some(certificate(ONE).verified()));
    accepted(&node.says("tls", &[]).await);
    accepted(&node.says("self", &[]).await);
    for other in ["basic", "post", "jwt", "nobody"] {
        refused(&node.says(other, &[]).await);
    }
    node.shows(Some(certificate(TWO).verified()));
    refused(&node.says("tls", &[]).await);
    refused(&node.says("self", &[]).await);
    node.shows(Some(ClientCertificate::new(*b"no certificate").verified()));
    refused(&node.says("tls", &[]).await);
    // The certificate alone does not say which client it is.
    refused(&node.revoke("tls", &[], &[]).await);
    // For others it means nothing, in either direction.
    accepted(&node.says("app", &[]).await);
    accepted(&node.revoke("basic", &[&basic("basic", "hush basic")], &[]).await);
    accepted(&node.asserts(&assertion(json!({}))).await);
    node.shows(None);
    refused(&node.says("self", &[]).await);
}

#[tokio::test]
async fn names_in_certificates() {
    let uri = "https://one.client.example/id";
    let names = [
        (CertificateName::Dns("ONE.client.example".to_owned()), true),
        (CertificateName::Dns("client.example".to_owned()), false),
        (CertificateName::Uri(uri.to_owned()), true),
        (CertificateName::Uri(uri.to_uppercase()), false),
        (CertificateName::Ip("192.0.2.1".parse().unwrap()), true),
        (CertificateName::Ip("192.0.2.2".parse().unwrap()), false),
        (CertificateName::Ip("::ffff:192.0.2.1".parse().unwrap()), false),
        (CertificateName::Email("one@client.example".to_owned()), true),
        (CertificateName::Email("one.client.example".to_owned()), false),
        (CertificateName::SubjectDn("CN=client one, O=Example".replace(", ", ",")), true),
        (CertificateName::SubjectDn("cn=client one,o=Example".to_owned()), true),
        (CertificateName::SubjectDn("O=Example,CN=client one".to_owned()), false),
        (CertificateName::SubjectDn("CN=client one".to_owned()), false),
        (CertificateName::SubjectDn("CN=client ONE,O=Example".to_owned()), false),
    ];
    for (name, carried) in names {
        let client = RegisteredClient::tls_client_auth("tls", name.clone()).issuers([ISSUER]);
        let node = Node::with(Clients::new().client(client).unwrap()).await;
        node.shows(Some(certificate(ONE).verified()));
        assert_eq!(node.says("tls", &[]).await.status == 200, carried, "{name:?}");
    }
}

fn behind(header: CertificateHeader) -> Clients {
    let verify = (HeaderName::from_static("x-ssl-client-verify"), HeaderValue::from_static("SUCCESS"));
    registered().certificate_header(header.verified_where(verify.0, verify.1))
}

fn proxies() -> [IpAddr; 1] {
    [PROXY.parse::<SocketAddr>().unwrap().ip()]
}

/// Rule 23.
#[tokio::test]
async fn certificate_headers_count_from_listed_proxies_alone() {
    let node = Node::with(behind(CertificateHeader::client_cert(proxies()))).await;
    let one = format!("client-cert: :{}:", STANDARD.encode(der(ONE)));
    let verified = "x-ssl-client-verify: SUCCESS";
    // Nobody knows who sends it.
    refused(&node.says("self", &[&one]).await);
    node.peer(STRANGER);
    refused(&node.says("self", &[&one]).await);
    refused(&node.says("tls", &[&one, verified]).await);
    node.peer(PROXY);
    accepted(&node.says("self", &[&one]).await);
    accepted(&node.says("tls", &[&one, verified]).await);
    for not_verified in [
        "x: y",
        "x-ssl-client-verify: NONE",
        "x-ssl-client-verify: FAILED:SUCCESS",
        "x-ssl-client-verify: SUCCESS\r\nx-ssl-client-verify: SUCCESS",
    ] {
        refused(&node.says("tls", &[&one, not_verified]).await);
    }
    let base64 = STANDARD.encode(der(ONE));
    for ambiguous in [
        format!("{one}\r\n{one}"),
        format!("{one}, :{base64}:"),
        format!("client-cert: {base64}"),
        "client-cert: ::".to_owned(),
        format!("{one};a=1"),
    ] {
        is(&node.says("self", &[&ambiguous]).await, 400, "invalid_request");
    }
    // The header of another format is none.
    let xfcc = format!("x-forwarded-client-cert: Hash={}", hex(&sha256(&der(ONE))));
    refused(&node.says("self", &[&xfcc]).await);
    // On a proxy's connection, the certificate is the proxy's.
    node.shows(Some(certificate(ONE).verified()));
    refused(&node.says("self", &[]).await);
    refused(&node.says("tls", &[verified]).await);
    // On a stranger's it is the stranger's, whatever a header says.
    let two = format!("client-cert: :{}:", STANDARD.encode(der(TWO)));
    accepted(&node.peer(STRANGER).says("self", &[&two]).await);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn envoy_forwards_certificates() {
    let limit = FailureLimit::new(NonZeroU32::MAX, Duration::from_secs(1));
    let node = Node::with(behind(CertificateHeader::x_forwarded_client_cert(proxies())).failure_limit(limit)).await;
    let (one, two) = (hex(&sha256(&der(ONE))), hex(&sha256(&der(TWO))));
    let pem = encode(ONE);
    let subject = "CN=client one,O=Example";
    let verified = "x-ssl-client-verify: SUCCESS";
    let says = async |peer: &str, id: &'static str, element: &str| {
        let header = format!("x-forwarded-client-cert: {element}");
        node.peer(peer).says(id, &[&header, verified]).await.status
    };
    for (id, element, status) in [
        ("self", format!("Hash={one}"), 200),
        ("self", format!("By=spiffe://x/y;Hash={one};Subject=\"{subject}\";URI=a;URI=b"), 200),
        ("self", format!("hash={}", one.to_uppercase()), 200),
        ("self", format!("Cert=\"{pem}\""), 200),
        ("self", format!("Hash={one};Cert=\"{pem}\""), 200),
        ("self", format!("Hash={two};Cert=\"{pem}\""), 400),
        ("self", format!("Hash={two}"), 401),
        ("self", format!("Hash={one},Hash={one}"), 400),
        ("self", format!("Hash={two},Hash={one}"), 400),
        ("self", format!("Hash={two};Hash={one}"), 400),
        ("self", format!("Hash={one};"), 400),
        ("self", format!("Hash={one}00"), 400),
        ("self", format!("Subject=\"{subject}\""), 400),
        ("self", "Cert=\"garbage\"".to_owned(), 400),
        ("self", format!("Hash={one};Subject=\"{subject}"), 400),
        ("tls", format!("Hash={one};Subject=\"{subject}\""), 200),
        ("tls", format!("Hash={one};Cert=\"{pem}\""), 200),
        ("tls", format!("Hash={one}"), 401),
        ("tls", format!("Hash={one};Subject=\"CN=x\\\";Subject={subject}\""), 401),
        ("tls", format!("Hash={one};Subject=\"CN=client two,O=Example\""), 401),
        ("tls", format!("Cert=\"{}\";Subject=\"{subject}\"", encode(TWO)), 401),
    ] {
        assert_eq!(says(PROXY, id, &element).await, status, "{id} {element}");
        if id == "self" {
            assert_eq!(says(STRANGER, id, &element).await, 401, "{element}");
        }
    }
}

/// Rule 23: nobody behind believes what a stranger says of certificates.
#[tokio::test]
async fn rule_23_certificate_headers_of_strangers_are_removed() {
    let telling = ["client-cert", "client-cert-chain", "x-forwarded-client-cert", "x-ssl-client-verify"];
    // As gateways in the manner of CGI read them.
    let alike = ["Client_Cert", "client-cert_chain", "X_Forwarded_Client_Cert", "x_ssl_client_verify"];
    let lines: Vec<_> = telling.iter().chain(&alike).map(|name| format!("{name}: x\r\n{name}: y")).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).chain(["x-other: kept", "client-certs: kept"]).collect();
    let connection = Arc::new(Mutex::new(Connection::default()));
    let front = |clients: Clients, revocations: &Revocations| {
        let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let endpoints = Endpoints::new(revocations.clone()).token(TokenEndpoint::new(verifier(), clients));
        FrontLayer::new(check, endpoints)
            .unwrap()
            .mode(EndpointName::Token, Mode::RecordThenForward)
            .metadata(Metadata::new("https://as.example"))
            .unwrap()
    };
    let revocations = common::revocations().await;
    let clients = behind(CertificateHeader::client_cert(proxies()));
    let fronted = serve(Router::new().fallback(told).layer(front(clients.clone(), &revocations)), connection.clone());
    let unaware = serve(Router::new().fallback(told).layer(front(registered(), &revocations)), connection.clone());
    let node = Node::with(clients).await;
    let (fronted, unaware) = (fronted.await, unaware.await);
    let speak = |peer: Option<&str>| {
        let peer = peer.map(|peer| peer.parse().unwrap());
        connection.lock().unwrap().peer = peer;
        node.connection.lock().unwrap().peer = peer;
    };
    let oauth = "/.well-known/oauth-authorization-server";
    let heard = |answer: Answer, row: &str| {
        assert_eq!(answer.status, 200, "{row}: {}", answer.head);
        let names: Vec<String> = answer.body.split(' ').map(str::to_owned).collect();
        for name in ["x-other", "client-certs"] {
            assert!(names.iter().any(|heard| heard == name), "{row}: {names:?}");
        }
        let about = |name: &&String| telling.iter().chain(&alike).any(|told| told.eq_ignore_ascii_case(name));
        names.iter().filter(about).count()
    };
    for peer in [None, Some(STRANGER)] {
        speak(peer);
        assert_eq!(heard(common::get(node.address, "/", &lines).await, "passes"), 0);
        assert_eq!(heard(common::get(fronted, "/", &lines).await, "passes the front"), 0);
        assert_eq!(heard(common::get(fronted, oauth, &lines).await, "metadata"), 0);
        let body = "client_id=app&token=x";
        let mut request = format!("POST /oauth/revoke HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{FORM}\r\n");
        lines.iter().for_each(|line| request += &format!("{line}\r\n"));
        request += &format!("content-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(heard(raw(fronted, request).await, "forwarded"), 0);
        // Where nothing is configured, nothing is touched.
        assert_eq!(heard(common::get(unaware, "/", &lines).await, "not configured"), 8);
    }
    // Its header and its signal; the others may be the client's.
    speak(Some(PROXY));
    assert_eq!(heard(common::get(node.address, "/", &lines).await, "passes"), 2);
    assert_eq!(heard(common::get(fronted, "/", &lines).await, "passes the front"), 2);
}

/// The body of the global endpoint has no place for a client's id.
#[tokio::test]
async fn a_certificate_alone_tells_the_client_where_there_is_no_form() {
    let client = |client: RegisteredClient| client.issuers([ISSUER]).scopes(["global_token_revocation"]);
    let of_one = || client(RegisteredClient::self_signed_tls_client_auth("self", [sha256(&der(ONE))]));
    let dn = CertificateName::SubjectDn("CN=client one,O=Example".to_owned());
    let named = || client(RegisteredClient::tls_client_auth("tls", dn.clone()));
    let only = |clients: Vec<RegisteredClient>| {
        let secret = client(RegisteredClient::confidential("basic", "hush basic", SecretMethod::Basic));
        let public = RegisteredClient::public("app").issuers([ISSUER]);
        clients.into_iter().chain([secret, public]).fold(Clients::new(), |all, one| all.client(one).unwrap())
    };
    let node = Node::full(Profile::Standard, only(vec![of_one()])).await;
    refused(&node.log_out(&[]).await);
    node.shows(Some(certificate(ONE)));
    is(&node.log_out(&[]).await, 204, "");
    // Another credential says who calls, and is the one that counts.
    is(&node.log_out(&[&basic("basic", "hush basic")]).await, 204, "");
    refused(&node.log_out(&[&basic("basic", "x")]).await);
    // A form has a place for the id.
    refused(&node.post("/oauth/revoke", &[FORM], "token=x").await);
    refused(&node.post("/oauth/revoke_session", &[FORM], "user_criterion_key=sub&user_criterion_value=x").await);
    // Nor does the URI have one.
    is(
        &node.post(&format!("{GLOBAL}?client_id=self"), &["content-type: application/json"], "{}").await,
        400,
        "invalid_request",
    );
    node.shows(Some(certificate(TWO).verified()));
    refused(&node.log_out(&[]).await);

    let node = Node::full(Profile::Standard, only(vec![named()])).await;
    node.shows(Some(certificate(ONE)));
    refused(&node.log_out(&[]).await);
    node.shows(Some(certificate(ONE).verified()));
    is(&node.log_out(&[]).await, 204, "");

    // It could be either of two.
    let node = Node::full(Profile::Standard, only(vec![named(), of_one()])).await;
    node.shows(Some(certificate(ONE).verified()));
    refused(&node.log_out(&[]).await);
    node.shows(Some(certificate(ONE)));
    is(&node.log_out(&[]).await, 204, "");

    // A proxy tells it, in one header with one element.
    let header = CertificateHeader::client_cert(proxies());
    let node = Node::full(Profile::Standard, only(vec![of_one()]).certificate_header(header)).await;
    let one = format!("client-cert: :{}:", STANDARD.encode(der(ONE)));
    refused(&node.peer(STRANGER).log_out(&[&one]).await);
    is(&node.peer(PROXY).log_out(&[&one]).await, 204, "");
    for twice in [format!("{one}\r\n{one}"), format!("{one}, :{}:", STANDARD.encode(der(ONE)))] {
        is(&node.log_out(&[&twice]).await, 400, "invalid_request");
    }
}

// Access tokens.

async fn bearer_node() -> Node {
    let endpoint = TokenEndpoint::new(verifier(), registered()).bearer_scope("revoke");
    Node::on(Memory::new(), endpoint).await
}

fn bearer(claims: Value) -> String {
    format!("authorization: Bearer {}", token(claims))
}

#[tokio::test]
async fn access_tokens_authenticate_by_their_own_scope() {
    let node = bearer_node().await;
    for good in [
        json!({"scope": "revoke"}),
        json!({"scope": "openid revoke x"}),
        json!({"scp": ["openid", "revoke"]}),
        json!({"scp": "openid revoke"}),
    ] {
        accepted(&node.revoke("app", &[&bearer(good)], &[]).await);
    }
    // `registered` is what the client is registered for; `revoke` is not in these tokens.
    for bad in [
        json!({}),
        json!({"scope": "openid registered"}),
        json!({"scope": "revoked"}),
        json!({"scope": ""}),
        json!({"scope": ["revoke"]}),
        json!({"scope": "openid", "scp": ["revoke"]}),
        json!({"scope": 5}),
    ] {
        let answer = node.revoke("app", &[&bearer(bad)], &[]).await;
        is(&answer, 403, "insufficient_scope");
        assert!(answer.header("www-authenticate").unwrap().contains("error=\"insufficient_scope\""));
    }
    // By default, the endpoint takes none.
    is(
        &Node::start().await.revoke("app", &[&bearer(json!({"scope": "revoke"}))], &[]).await,
        403,
        "insufficient_scope",
    );
    // Only for the token's own client.
    is(&node.revoke("basic", &[&bearer(json!({"scope": "revoke"}))], &[]).await, 400, "invalid_request");
    let fields = [("client_id", "basic")];
    is(&node.revoke("app", &[&bearer(json!({"scope": "revoke"}))], &fields).await, 400, "invalid_request");
}

#[tokio::test]
async fn access_tokens_that_are_not_good() {
    let node = bearer_node().await;
    let revoked = token(json!({"scope": "revoke", "jti": "gone"}));
    let _ = node.revocations.revoke(Revocation::new(Scope::token(ISSUER, "gone"))).await.unwrap();
    let mut forged = token(json!({"scope": "revoke"}));
    forged.truncate(forged.len() - 4);
    for bad in [
        format!("authorization: Bearer {revoked}"),
        format!("authorization: Bearer {forged}AAAA"),
        bearer(json!({"scope": "revoke", "exp": unix() - 100})),
        bearer(json!({"scope": "revoke", "aud": "https://other.example/"})),
        bearer(json!({"scope": "revoke", "client_id": null})),
        "authorization: Bearer".to_owned(),
        "authorization: Bearer a b".to_owned(),
    ] {
        let answer = node.revoke("app", &[&bad], &[]).await;
        is(&answer, 401, "invalid_token");
        let challenge = answer.header("www-authenticate");
        assert!(answer.header("retry-after").is_none());
        assert_eq!(challenge, Some("Bearer realm=\"revocation\", error=\"invalid_token\""), "{bad}");
    }
}

#[tokio::test]
async fn a_caller_says_how_it_authenticated_and_what_it_may_do() {
    let node = Node::start().await;
    let clients = registered();
    let call = Call::new(&node.revocations);
    let token = Presented::Bearer { token: Secret::new(token(json!({"client_id": "basic", "scope": "a b"}))) };
    let caller = clients.authenticate(&token, call).await.unwrap();
    assert_eq!((caller.id(), caller.method(), caller.is_confidential()), ("basic", Some(AuthMethod::Bearer), true));
    assert!(caller.has_scope("a") && caller.has_scope("b") && !caller.has_scope("registered"));
    assert!(caller.has_issuer(ISSUER) && !caller.has_issuer("https://other.example/"));
    let secret = Presented::Basic { id: "basic".to_owned(), secret: Secret::new("hush basic") };
    let caller = clients.authenticate(&secret, call).await.unwrap();
    assert_eq!((caller.method(), caller.has_scope("registered")), (Some(AuthMethod::SecretBasic), true));
    let without = Clients::new();
    assert_eq!(without.authenticate(&token, call).await, Err(ClientError::Refused));
}

// Failures.

#[tokio::test]
async fn too_many_failures_have_to_wait() {
    let node = Node::start().await;
    let (right, wrong) = (basic("basic", "hush basic"), basic("basic", "x"));
    for _ in 0..12 {
        accepted(&node.revoke("basic", &[&right], &[]).await);
    }
    for _ in 0..10 {
        refused(&node.revoke("basic", &[&wrong], &[]).await);
    }
    for tried in [&wrong, &right] {
        let answer = node.revoke("basic", &[tried], &[]).await;
        is(&answer, 429, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    // Others go on, the public client too, whatever was tried in its name.
    accepted(&node.asserts(&assertion(json!({}))).await);
    for _ in 0..12 {
        refused(&node.revoke("app", &[&basic("app", "x")], &[]).await);
    }
    accepted(&node.says("app", &[]).await);
    node.clock.advance(Duration::from_secs(1));
    accepted(&node.revoke("basic", &[&right], &[]).await);
    refused(&node.revoke("basic", &[&wrong], &[]).await);
    is(&node.revoke("basic", &[&right], &[]).await, 429, "temporarily_unavailable");
}

#[tokio::test]
async fn an_address_that_fails_has_to_wait_and_does_not_lock_others_out() {
    let header = CertificateHeader::client_cert(proxies()).verified_always();
    let node = Node::with(registered().certificate_header(header)).await;
    let right = basic("basic", "hush basic");
    accepted(&node.peer("192.0.2.77:1").revoke("basic", &[&right], &[]).await);
    node.peer(STRANGER);
    for n in 0..10 {
        refused(&node.revoke("basic", &[&basic(if n % 2 == 0 { "basic" } else { "made up" }, "x")], &[]).await);
    }
    is(
        &node.revoke("post", &[], &[("client_id", "post"), ("client_secret", "hush post")]).await,
        429,
        "temporarily_unavailable",
    );
    is(&node.says("app", &[]).await, 429, "temporarily_unavailable");
    // Five more from elsewhere use up the client's own failures; where it is at home it goes on.
    node.peer("198.51.100.8:1");
    for _ in 0..5 {
        refused(&node.revoke("basic", &[&basic("basic", "x")], &[]).await);
    }
    is(&node.peer("198.51.100.9:1").revoke("basic", &[&right], &[]).await, 429, "temporarily_unavailable");
    accepted(&node.peer("192.0.2.77:2").revoke("basic", &[&right], &[]).await);
    // Everyone comes from a proxy's address: it is not counted.
    node.peer(PROXY);
    for n in 0..15 {
        refused(&node.revoke("x", &[&basic(&format!("made up {n}"), "x")], &[]).await);
    }
    accepted(&node.says("app", &[]).await);
}

/// Whatever is tried, an address has so many tries.
#[tokio::test]
async fn access_tokens_and_certificates_that_fail_count_too() {
    let few = || registered().failure_limit(FailureLimit::new(NonZeroU32::new(3).unwrap(), Duration::from_secs(60)));
    let node = Node::full(Profile::Standard, few()).await;
    node.peer(STRANGER);
    for n in 0..3 {
        is(&node.revoke("app", &[&format!("authorization: Bearer {n}")], &[]).await, 401, "invalid_token");
    }
    let answer = node.revoke("app", &[&bearer(json!({"scope": "revoke"}))], &[]).await;
    is(&answer, 429, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("60"));

    let node = Node::full(Profile::Standard, few()).await;
    node.peer(STRANGER).shows(Some(certificate(TWO)));
    refused(&node.says("self", &[]).await);
    refused(&node.says("tls", &[]).await);
    node.shows(Some(certificate(ONE)));
    accepted(&node.says("self", &[]).await);
    refused(&node.says("tls", &[]).await);
    is(&node.says("self", &[]).await, 429, "temporarily_unavailable");

    // Each endpoint with these clients knows of it, however often it is a certificate alone that fails.
    let node = Node::full(Profile::Standard, few()).await;
    node.peer(STRANGER).shows(Some(certificate(TWO)));
    for _ in 0..3 {
        refused(&node.log_out(&[]).await);
    }
    is(&node.log_out(&[]).await, 429, "temporarily_unavailable");
    is(&node.says("app", &[]).await, 429, "temporarily_unavailable");
}

const IDP: &str = "https://idp.example/";

/// A signed request of `c-idp`, with these claims over the usual ones.
fn signed_request(key: &EcdsaKeyPair, over: Value) -> String {
    let usual = json!({"iss": IDP, "sub": "c-idp", "aud": HERE});
    let mut all = usual.as_object().unwrap().clone();
    all.extend(over.as_object().unwrap().clone());
    let jwt = signed(key, r#"{"alg":"ES256","typ":"global-token-revocation+jwt"}"#, &claims(Value::Object(all)));
    format!("authorization: Bearer {jwt}")
}

async fn signed_node(clients: Clients) -> Node {
    let issuer = Issuer::new(IDP).any_audience().algorithms([Algorithm::ES256]).keys(Keys::jwks(jwk(&KEY)));
    let sender = Client::confidential("c-idp").issuers([ISSUER]).scopes(["global_token_revocation"]);
    let requests = SignedRequests::new(HERE, [issuer]).unwrap().sender(IDP, sender);
    let limit = FailureLimit::new(NonZeroU32::new(3).unwrap(), Duration::from_secs(60));
    let endpoint = GlobalEndpoint::new(ClaimsOnly, [ISSUER], clients).signed_jwt(requests).failure_limit(limit);
    Node::behind(Memory::new(), |endpoints| endpoints.global(endpoint)).await
}

/// §14: too many failed credentials are 429.
#[tokio::test]
async fn signed_requests_that_fail_have_to_wait() {
    let node = signed_node(registered()).await;
    let good = || signed_request(&KEY, json!({}));
    let bad = [
        signed_request(&OTHER_KEY, json!({})),
        signed_request(&KEY, json!({"exp": unix() - 100})),
        signed_request(&KEY, json!({"iss": "https://unknown.example/"})),
    ];
    node.peer(STRANGER);
    for bad in &bad {
        is(&node.log_out(&[bad]).await, 401, "invalid_token");
    }
    let answer = node.log_out(&[&good()]).await;
    is(&answer, 429, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), Some("60"));
    is(&node.log_out(&[&bad[0]]).await, 429, "temporarily_unavailable");
    // What others forge in its name does not keep the sender out.
    is(&node.peer("203.0.113.5:1").log_out(&[&good()]).await, 204, "");
    node.clock.advance(Duration::from_secs(60));
    is(&node.peer(STRANGER).log_out(&[&good()]).await, 204, "");
}

/// Its own failures do, from wherever, but not from where it has been heard before.
#[tokio::test]
async fn replays_count_for_the_sender() {
    let node = signed_node(registered()).await;
    let stolen = signed_request(&KEY, json!({"jti": "stolen"}));
    is(&node.peer("192.0.2.77:1").log_out(&[&stolen]).await, 204, "");
    for n in 1..=3 {
        is(&node.peer(&format!("198.51.100.{n}:1")).log_out(&[&stolen]).await, 401, "invalid_token");
    }
    let good = || signed_request(&KEY, json!({}));
    is(&node.peer("198.51.100.9:1").log_out(&[&good()]).await, 429, "temporarily_unavailable");
    is(&node.peer("192.0.2.77:2").log_out(&[&good()]).await, 204, "");
    // Everyone comes from a proxy's address: it is not counted.
    let node = signed_node(registered().certificate_header(CertificateHeader::client_cert(proxies()))).await;
    node.peer(PROXY);
    for _ in 0..5 {
        is(&node.log_out(&[&signed_request(&OTHER_KEY, json!({}))]).await, 401, "invalid_token");
    }
    is(&node.log_out(&[&good()]).await, 204, "");
}

// Challenges.

/// RFC 6749 §5.2, RFC 6750 §3: the challenge is of the scheme that was tried, in each profile.
#[tokio::test]
async fn the_challenge_is_of_the_scheme_that_was_tried() {
    let basic_of = |profile| match profile {
        Profile::Janssen => "Basic realm=\"jans-auth\"",
        _ => "Basic realm=\"revocation\"",
    };
    let (invalid, scope) = (
        "Bearer realm=\"revocation\", error=\"invalid_token\"",
        "Bearer realm=\"revocation\", error=\"insufficient_scope\"",
    );
    let open = || registered().failure_limit(FailureLimit::new(NonZeroU32::MAX, Duration::from_secs(1)));
    for profile in [Profile::Standard, Profile::Janssen] {
        let node = Node::full(profile, open()).await;
        let asks = basic_of(profile);
        let root = if profile == Profile::Janssen { "/jans-auth/restv1" } else { "/oauth" };
        for (path, json) in [("revoke", false), ("revoke_session", false), ("global-token-revocation", true)] {
            let path = format!("{root}/{path}");
            // Janssen's clients expect 401 from the two endpoints that need a scope.
            let no_scope = if profile == Profile::Janssen && !path.ends_with("/revoke") {
                (401, "invalid_request", scope)
            } else {
                (403, "insufficient_scope", scope)
            };
            let of_others = bearer(json!({"scope": "openid"}));
            let alice = alice();
            let form_secret = ("client_id=post&client_secret=x", FORM);
            let plain = if json { (&*alice, "content-type: application/json") } else { ("token=x", FORM) };
            for (row, authorization, (body, media), (status, error, challenge)) in [
                ("nothing", None, plain, (401, "invalid_client", asks)),
                ("bad Basic", Some(&*basic("basic", "x")), plain, (401, "invalid_client", asks)),
                ("no Basic at all", Some("authorization: Basic ?"), plain, (401, "invalid_client", asks)),
                ("bad Bearer", Some("authorization: Bearer x"), plain, (401, "invalid_token", invalid)),
                ("no Bearer at all", Some("authorization: Bearer ?"), plain, (401, "invalid_token", invalid)),
                ("Bearer without scope", Some(&*of_others), plain, no_scope),
                ("bad secret in a form", None, form_secret, (401, "invalid_client", asks)),
            ] {
                let headers: Vec<&str> = [media].into_iter().chain(authorization).collect();
                let answer = node.post(&path, &headers, body).await;
                let row = format!("{path}: {row}");
                assert_eq!((answer.status, answer.header("www-authenticate")), (status, Some(challenge)), "{row}");
                is(&answer, status, error);
            }
        }
    }
}

/// §1: Janssen's clients may write `AccessToken` for `Bearer`.
#[tokio::test]
async fn janssen_knows_another_name_for_bearer() {
    let node = Node::full(Profile::Janssen, registered()).await;
    let path = "/jans-auth/restv1/revoke";
    let token = |claims| bearer(claims).replace("Bearer", "AccessToken");
    let good = token(json!({"scope": "revoke"}));
    is(&node.post(path, &[FORM, &good], "token=x").await, 200, "");
    is(&node.post(path, &[FORM, &good.replace("AccessToken", "accesstoken")], "token=x").await, 200, "");
    for (bad, status, error) in [
        (token(json!({})), 403, "insufficient_scope"),
        ("authorization: AccessToken x".to_owned(), 401, "invalid_token"),
    ] {
        let answer = node.post(path, &[FORM, &bad], "token=x").await;
        is(&answer, status, error);
        assert_eq!(
            answer.header("www-authenticate"),
            Some(&*format!("Bearer realm=\"revocation\", error=\"{error}\""))
        );
    }
    let two = [FORM, &good, &basic("basic", "hush basic")];
    is(&node.post(path, &two, "token=x").await, 400, "invalid_request");
    is(&node.post(path, &[FORM, &good], "token=x&client_id=post&client_secret=y").await, 400, "invalid_request");
    // Nobody else knows it.
    let node = Node::full(Profile::Standard, registered()).await;
    refused(&node.post("/oauth/revoke", &[FORM, &good], "token=x").await);
}

#[tokio::test]
async fn nothing_secret_is_printed() {
    let pem = KEY.public_key().as_der().unwrap();
    let presented = [
        Presented::Assertion { id: Some("jwt".to_owned()), assertion: Secret::new("hush assertion") },
        Presented::Bearer { token: Secret::new("hush token") },
        Presented::Certificate { id: None, certificate: Box::new(ClientCertificate::new(*b"hush der")) },
    ];
    let jwt = RegisteredClient::private_key_jwt("jwt", Keys::jwks(jwk(&KEY)), [Algorithm::ES256]).unwrap();
    let printed = format!("{presented:?} {:?} {jwt:?} {:?}", registered(), JwtVerifier::builder().issuer(issuer()));
    for hidden in ["hush", &STANDARD.encode(pem.as_ref()), "104, 117, 115, 104"] {
        assert!(!printed.contains(hidden), "{printed}");
    }
}

/// L9: no credential in a log, whichever way it is sent.
#[tokio::test]
async fn l9_nothing_secret_is_logged() {
    let log = Log::start();

    let node = Node::with(behind(CertificateHeader::x_forwarded_client_cert(proxies()))).await;
    let good = assertion(json!({}));
    let forged = signed(&OTHER_KEY, r#"{"alg":"ES256"}"#, &claims(json!({"sub": "jwt", "name": "x-hush"})));
    let tokens = [bearer(json!({"scope": "x", "jti": "hush"})), "authorization: Bearer token-hush".to_owned()];
    let _ = node.asserts(&good).await;
    let _ = node.asserts(&forged).await;
    let _ = node.asserts(&assertion(json!({"iss": "iss-hush", "sub": "iss-hush"}))).await;
    for token in &tokens {
        let _ = node.revoke("app", &[token], &[]).await;
    }
    let _ = node.peer(PROXY).says("tls", &["x-forwarded-client-cert: Hash=hush-certificate"]).await;
    for _ in 0..11 {
        let _ = node.revoke("basic", &[&basic("basic", "secret-hush")], &[]).await;
    }
    let log = log.text();
    for expected in
        ["invalid_client", "insufficient_scope", "invalid_token", "malformed_certificate", "too_many_failures"]
    {
        assert!(log.contains(expected), "{expected} not in {log}");
    }
    let last = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in ["hush", &last(&good), &last(&forged), &last(&tokens[0])] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
