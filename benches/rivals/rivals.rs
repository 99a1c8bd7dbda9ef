//! What else is done about revoked tokens, beside this crate's layer in the same run: a store asked for each request,
//! a signature checked for each request, and other sets in memory.
//!
//! All take their turn in each round, and are compared within the round. Stores and servers are private ones on
//! loopback, on the same machine: a network would add its round trip to each question, and nothing to the layer.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../tests/common/server.rs"]
#[allow(dead_code, unreachable_pub)]
mod server;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use common::{Goal, Length, Results, Spread};
use fastbloom::BloomFilter;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use jwt_authorizer::{AuthError, IntoLayer, JwtAuthorizer, RegisteredClaims};
use moka::sync::Cache;
use serde::Deserialize;
use server::Server;
use tokio::{runtime::Runtime, task::LocalSet};
use tower::{Layer, Service};
use tower_oauth2_resource_server::{claims::DefaultClaims, server::OAuth2ResourceServer, tenant::TenantConfiguration};
use tower_revocation::{
    RevocationLayer,
    denylist::{Denylist, DenylistConfig, Staleness},
    response::Bare,
    revocation::{Change, Revocation, Scope},
    token::{Algorithm, Claims, FromExtension, Issuer, JwtVerifier, Keys, VerifiedClaims, Verify},
};

const ISSUER: &str = "https://issuer.example/";
const AUDIENCE: &str = "https://api.example/";
const KEY_ID: &str = "key-1";
const HOT_TOKENS: usize = 64;
const AT_ONCE: usize = 64;
const REVOKED: usize = 1_000_000;

fn main() {
    let length = Length::of_this_run();
    let mut results = Results::new("rivals", length);
    let issuer = IssuerKey::new();
    let tokens: Rc<Vec<String>> = Rc::new((0..HOT_TOKENS).map(|n| issuer.token(&jti(n))).collect());
    let runtime = Rc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
    let (redis, postgres) = (Server::redis_with(&[]), Server::postgres());

    let mut all = vec![bare(&tokens), hot(&issuer, &tokens), keys_made(&tokens)];
    all.extend(redis_get(&runtime, &redis));
    all.extend(postgres_select(&runtime, &postgres));
    all.extend(introspection(&runtime, &tokens));
    all.extend(on_the_default_runtime(&redis, &tokens));
    all.push(decode_each_time(&issuer, &tokens));
    all.push(jwt_authorizer(&runtime, &issuer, &tokens));
    all.push(resource_server(&runtime, &issuer, &tokens));
    all.extend(sets(&tokens));

    // Short ones: what else the machine does falls on some of them, and not on the median.
    let (rounds, time) = (length.pick(200, 2000), Duration::from_micros(300));
    let times: Vec<usize> = all.iter_mut().map(|one| one.calibrate(time)).collect();
    let measured: Vec<Vec<f64>> = (0..rounds)
        .map(|_| all.iter_mut().zip(&times).map(|(one, times)| one.run(*times) / *times as f64).collect())
        .collect();

    for (place, one) in all.iter().enumerate() {
        let over = |round: &Vec<f64>| round[place] - if one.is_service && place != 0 { round[0] } else { 0.0 };
        results.row("per request", one.name, "ns", Spread::of(measured.iter().map(over)), None);
    }
    for (place, one) in all.iter().enumerate().skip(2) {
        let cheaper = |round: &Vec<f64>| {
            let rival = round[place] - if one.is_service { round[0] } else { 0.0 };
            // Where noise makes the layer free, this is no smaller than a clock shows.
            rival / (round[1] - round[0]).max(1.0)
        };
        let goal = one.goal.map(Goal::AtLeast);
        results.row("as many times a hot token", one.name, "×", Spread::of(measured.iter().map(cheaper)), goal);
    }
    results.write();
}

struct Contender {
    name: &'static str,
    /// Whether the bare service is part of what it takes.
    is_service: bool,
    /// How many times a hot token it should at least cost.
    goal: Option<f64>,
    work: Box<dyn FnMut(usize)>,
}

impl Contender {
    fn new(name: &'static str, goal: Option<f64>, work: impl FnMut(usize) + 'static) -> Self {
        Self { name, is_service: false, goal, work: Box::new(work) }
    }

    fn service<S>(name: &'static str, mut service: S, requests: Vec<Request<()>>) -> Self
    where
        S: Service<Request<()>, Error = Infallible> + 'static,
        S::Response: Into<Back>,
    {
        let mut requests: Vec<Option<Request<()>>> = requests.into_iter().map(Some).collect();
        let mut turn = 0;
        let work = move |times| {
            let mut cx = Context::from_waker(Waker::noop());
            for _ in 0..times {
                turn = (turn + 1) % requests.len();
                let request = requests[turn].take().expect("it came back");
                black_box(service.poll_ready(&mut cx).is_ready());
                let mut answer = pin!(service.call(black_box(request)));
                let answer = loop {
                    if let Poll::Ready(Ok(answer)) = answer.as_mut().poll(&mut cx) {
                        break answer;
                    }
                };
                requests[turn] = answer.into().0;
            }
        };
        Self { name, is_service: true, goal: None, work: Box::new(work) }
    }

    /// Nanoseconds for all, once what the others did to the caches is mended.
    fn run(&mut self, times: usize) -> f64 {
        (self.work)(times / 8);
        let began = Instant::now();
        (self.work)(times);
        began.elapsed().as_nanos() as f64
    }

    /// How often it takes about that long; warm by then.
    fn calibrate(&mut self, time: Duration) -> usize {
        let all = (0..50).map(|_| self.run(AT_ONCE) / AT_ONCE as f64);
        let one = Spread::of(all).low;
        ((time.as_nanos() as f64 / one) as usize).max(AT_ONCE)
    }
}

fn bare(tokens: &[String]) -> Contender {
    Contender::service("bare service", Bounce, requests(tokens))
}

fn hot(issuer: &IssuerKey, tokens: &[String]) -> Contender {
    let keys = Keys::jwks(issuer.jwks());
    let configured = Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::RS256]).keys(keys);
    let verifier = JwtVerifier::builder().issuer(configured).build().unwrap();
    let layer = RevocationLayer::new(denylist(), Verify::new(verifier)).deny_with(Bare);
    Contender::service("tower-revocation, hot token", layer.layer(Bounce), requests(tokens))
}

/// What compares with the sets below, which are given the claims as well.
fn keys_made(tokens: &[String]) -> Contender {
    let mut requests = requests(tokens);
    let now = unix();
    for (n, request) in requests.iter_mut().enumerate() {
        request.extensions_mut().insert(OwnClaims { jti: jti(n), iat: now });
    }
    let layer = RevocationLayer::new(denylist(), FromExtension::<OwnClaims>::new()).deny_with(Bare);
    Contender::service("tower-revocation, claims in the extensions", layer.layer(Bounce), requests)
}

#[derive(Clone)]
struct OwnClaims {
    jti: String,
    iat: u64,
}

impl VerifiedClaims for OwnClaims {
    fn claims(&self) -> Claims<'_> {
        let claims = Claims::new(ISSUER).jti(&self.jti).sid("session-4711").sub("alice").client_id("app");
        claims.iat(self.iat).exp(self.iat + 3600)
    }
}

fn redis_get(runtime: &Rc<Runtime>, server: &Server) -> [Contender; 2] {
    let client = redis::Client::open(server.url()).unwrap();
    let connection = runtime.block_on(async {
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let fill = "for n = 1, 10000 do redis.call('SET', 'jti:' .. ARGV[1] .. n, '1') end";
        for page in 0..REVOKED / 10_000 {
            let command = redis::cmd("EVAL").arg(fill).arg(0).arg(format!("revoked-{page}-")).to_owned();
            let _: redis::Value = command.query_async(&mut connection).await.unwrap();
        }
        connection
    });
    let (one, many) = (connection.clone(), connection);
    let (first, second) = (Rc::clone(runtime), Rc::clone(runtime));
    [
        Contender::new("Redis GET, one at a time", Some(250.0), move |times| {
            let mut connection = one.clone();
            first.block_on(async {
                for turn in 0..times {
                    ask_redis(&mut connection, turn).await;
                }
            });
        }),
        Contender::new("Redis GET, 64 at once on one connection", Some(50.0), move |times| {
            second.block_on(at_once(times, || {
                let mut connection = many.clone();
                async move |turn| ask_redis(&mut connection, turn).await
            }));
        }),
    ]
}

async fn ask_redis(connection: &mut redis::aio::MultiplexedConnection, turn: usize) {
    let command = redis::cmd("GET").arg(format!("jti:{}", jti(turn % HOT_TOKENS))).to_owned();
    let revoked: Option<Vec<u8>> = command.query_async(connection).await.unwrap();
    assert!(revoked.is_none());
}

/// Asks from as many tasks as there are requests at once, as a server on one thread would.
async fn at_once<A: AsyncFnMut(usize) + 'static>(times: usize, make: impl Fn() -> A) {
    let set = LocalSet::new();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let mut ask = make();
            set.spawn_local(async move {
                for turn in 0..times / AT_ONCE + usize::from(task < times % AT_ONCE) {
                    ask(task + turn).await;
                }
            })
        })
        .collect();
    let all = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    set.run_until(all).await;
}

fn postgres_select(runtime: &Rc<Runtime>, server: &Server) -> [Contender; 2] {
    let (client, statement) = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let fill = format!(
            "CREATE TABLE revoked (jti text PRIMARY KEY);
             INSERT INTO revoked SELECT 'revoked-' || n FROM generate_series(1, {REVOKED}) AS n;
             ANALYZE revoked;"
        );
        client.batch_execute(&fill).await.unwrap();
        let statement = client.prepare("SELECT 1 FROM revoked WHERE jti = $1").await.unwrap();
        (Rc::new(client), statement)
    });
    let (one, many) = ((Rc::clone(&client), statement.clone()), (client, statement));
    let (first, second) = (Rc::clone(runtime), Rc::clone(runtime));
    [
        Contender::new("PostgreSQL SELECT, one at a time", None, move |times| {
            first.block_on(async {
                for turn in 0..times {
                    ask_postgres(&one.0, &one.1, turn).await;
                }
            });
        }),
        Contender::new("PostgreSQL SELECT, 64 at once on one connection", None, move |times| {
            second.block_on(at_once(times, || {
                let (client, statement) = many.clone();
                async move |turn| ask_postgres(&client, &statement, turn).await
            }));
        }),
    ]
}

async fn ask_postgres(client: &tokio_postgres::Client, statement: &tokio_postgres::Statement, turn: usize) {
    let rows = client.query(statement, &[&jti(turn % HOT_TOKENS)]).await.unwrap();
    assert!(rows.is_empty());
}

/// An authorization server that knows the tokens, on a thread of its own, asked over connections that stay open.
fn introspection(runtime: &Rc<Runtime>, tokens: &Rc<Vec<String>>) -> [Contender; 2] {
    let address = introspection_server(tokens);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let (one, many) = ((client.clone(), Rc::clone(tokens)), (client, Rc::clone(tokens)));
    let (first, second) = (Rc::clone(runtime), Rc::clone(runtime));
    [
        Contender::new("introspection (RFC 7662), one at a time", Some(400.0), move |times| {
            first.block_on(async {
                for turn in 0..times {
                    introspect(address, &one.0, &one.1, turn).await;
                }
            });
        }),
        Contender::new("introspection (RFC 7662), 64 at once", None, move |times| {
            second.block_on(at_once(times, || {
                let (client, tokens) = many.clone();
                async move |turn| introspect(address, &client, &tokens, turn).await
            }));
        }),
    ]
}

async fn introspect(address: SocketAddr, client: &Client<HttpConnector, Full<Bytes>>, tokens: &[String], turn: usize) {
    let request = Request::post(format!("http://{address}/introspect"))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::AUTHORIZATION, "Basic YXBpOnNlY3JldA==");
    let body = Full::from(format!("token={}", tokens[turn % tokens.len()]));
    let response = client.request(request.body(body).unwrap()).await.unwrap();
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Introspected = serde_json::from_slice(&answer).unwrap();
    assert!(answer.active);
}

#[derive(Deserialize)]
struct Introspected {
    active: bool,
}

/// The same on the runtime of `#[tokio::main]`, whose threads hand tasks and wake-ups to each other.
fn on_the_default_runtime(redis: &Server, tokens: &[String]) -> [Contender; 3] {
    let runtime = Rc::new(tokio::runtime::Runtime::new().unwrap());
    let client = redis::Client::open(redis.url()).unwrap();
    let connection = runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
    let (address, known) = (introspection_server(tokens), Arc::new(tokens.to_vec()));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let [first, second, third] = std::array::from_fn(|_| Rc::clone(&runtime));
    let gets = |connection: &redis::aio::MultiplexedConnection, times: usize| {
        let mut connection = connection.clone();
        tokio::spawn(async move {
            for turn in 0..times {
                ask_redis(&mut connection, turn).await;
            }
        })
    };
    let many = connection.clone();
    [
        Contender::new("Redis GET, one at a time, default runtime", Some(250.0), move |times| {
            first.block_on(async { gets(&connection, times).await.unwrap() });
        }),
        Contender::new("Redis GET, 64 at once, default runtime", Some(50.0), move |times| {
            second.block_on(async {
                let share = |task| times / AT_ONCE + usize::from(task < times % AT_ONCE);
                let tasks: Vec<_> = (0..AT_ONCE).map(|task| gets(&many, share(task))).collect();
                for task in tasks {
                    task.await.unwrap();
                }
            });
        }),
        Contender::new("introspection, one at a time, default runtime", Some(400.0), move |times| {
            let (client, tokens) = (client.clone(), Arc::clone(&known));
            let all = async move {
                for turn in 0..times {
                    introspect(address, &client, &tokens, turn).await;
                }
            };
            third.block_on(async { tokio::spawn(all).await.unwrap() });
        }),
    ]
}

fn introspection_server(tokens: &[String]) -> SocketAddr {
    let known: HashMap<String, String> = (tokens.iter().enumerate())
        .map(|(n, token)| {
            let answer = serde_json::json!({
                "active": true, "iss": ISSUER, "sub": "alice", "client_id": "app", "jti": jti(n), "exp": unix() + 3600,
            });
            (format!("token={token}"), answer.to_string())
        })
        .collect();
    let known = Arc::new(known);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let known = Arc::clone(&known);
                let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let known = Arc::clone(&known);
                    async move {
                        let form = request.into_body().collect().await?.to_bytes();
                        let answer = std::str::from_utf8(&form).ok().and_then(|form| known.get(form).cloned());
                        let answer = answer.unwrap_or_else(|| r#"{"active":false}"#.to_owned());
                        let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
                        Ok::<_, hyper::Error>(response.body(Full::<Bytes>::from(answer)).expect("a response"))
                    }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                let connection = builder.serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
    });
    address
}

fn decode_each_time(issuer: &IssuerKey, tokens: &Rc<Vec<String>>) -> Contender {
    let keys: JwkSet = serde_json::from_str(&issuer.jwks()).unwrap();
    let key = DecodingKey::from_jwk(&keys.keys[0]).unwrap();
    let mut validation = Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    let (tokens, mut turn) = (Rc::clone(tokens), 0);
    Contender::new("jsonwebtoken::decode each time, RS256", Some(200.0), move |times| {
        for _ in 0..times {
            turn = (turn + 1) % tokens.len();
            let decoded = jsonwebtoken::decode::<OwnedClaims>(black_box(&tokens[turn]), &key, &validation);
            black_box(decoded.expect("a good token"));
        }
    })
}

fn jwt_authorizer(runtime: &Runtime, issuer: &IssuerKey, tokens: &[String]) -> Contender {
    let layer = runtime.block_on(async {
        let validation = jwt_authorizer::Validation::new().iss(&[ISSUER]).aud(&[AUDIENCE]);
        let authorizer: JwtAuthorizer<RegisteredClaims> = JwtAuthorizer::from_jwks_text(&issuer.jwks());
        authorizer.validation(validation).build().await.unwrap().into_layer()
    });
    Contender::service("jwt-authorizer 0.15, layer, RS256", layer.layer(BounceInAnswer), requests(tokens))
}

fn resource_server(runtime: &Runtime, issuer: &IssuerKey, tokens: &[String]) -> Contender {
    let layer = runtime.block_on(async {
        let validation = tower_oauth2_resource_server::validation::ClaimsValidationSpec::recommended(
            ISSUER,
            &vec![AUDIENCE.to_owned()],
        )
        .nbf(false);
        let tenant = TenantConfiguration::static_builder(issuer.jwks()).claims_validation(validation).build().unwrap();
        OAuth2ResourceServer::<DefaultClaims>::builder().add_tenant(tenant).build().await.unwrap().into_layer()
    });
    Contender::service("tower-oauth2-resource-server 0.12, layer, RS256", layer.layer(Bounce), requests(tokens))
}

/// Sets in memory, asked for four claims: given the claims, and from the token itself.
fn sets(tokens: &Rc<Vec<String>>) -> [Contender; 3] {
    let mut bloom = BloomFilter::with_false_pos(1e-7).expected_items(REVOKED);
    let caches: [Cache<String, u64>; 4] = std::array::from_fn(|_| Cache::builder().build());
    for n in 0..REVOKED {
        bloom.insert(&("jti", format!("revoked-{n}").as_str()));
        caches[0].insert(format!("revoked-{n}"), 0);
    }
    for cache in &caches[1..] {
        (0..1000).for_each(|n| cache.insert(format!("revoked-{n}"), 0));
    }
    caches.iter().for_each(Cache::run_pending_tasks);
    let known: Vec<OwnedClaims> = tokens.iter().map(|token| OwnedClaims::unverified(token)).collect();
    let (known, tokens) = (Rc::new(known), Rc::clone(tokens));
    let (of_bloom, of_moka, decoding) = (Rc::clone(&known), known, caches.clone());
    let is_revoked = |caches: &[Cache<String, u64>; 4], claims: &OwnedClaims| {
        caches.iter().zip(claims.all()).any(|(cache, (_, value))| cache.get(value).is_some())
    };
    let (mut first, mut second, mut third) = (0, 0, 0);
    [
        Contender::new("Bloom filter of claims, 1e-7, claims given", None, move |times| {
            for _ in 0..times {
                first = (first + 1) % of_bloom.len();
                let claims = black_box(&of_bloom[first]);
                assert!(!claims.all().iter().any(|claim| bloom.contains(claim)));
            }
        }),
        Contender::new("moka get for each claim, claims given", None, move |times| {
            for _ in 0..times {
                second = (second + 1) % of_moka.len();
                assert!(!is_revoked(&caches, black_box(&of_moka[second])));
            }
        }),
        Contender::new("moka get for each claim, token decoded by serde, not verified", None, move |times| {
            for _ in 0..times {
                third = (third + 1) % tokens.len();
                let claims = OwnedClaims::unverified(black_box(&tokens[third]));
                assert!(!is_revoked(&decoding, &claims));
            }
        }),
    ]
}

#[derive(Deserialize)]
struct OwnedClaims {
    jti: String,
    sid: String,
    sub: String,
    client_id: String,
}

impl OwnedClaims {
    fn unverified(token: &str) -> Self {
        let payload = token.split('.').nth(1).expect("a payload");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("claims")
    }

    fn all(&self) -> [(&'static str, &str); 4] {
        [("jti", &self.jti), ("sid", &self.sid), ("sub", &self.sub), ("client_id", &self.client_id)]
    }
}

fn jti(number: usize) -> String {
    format!("7f2c-{number}")
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn requests(tokens: &[String]) -> Vec<Request<()>> {
    let request = |token| Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap();
    tokens.iter().map(request).collect()
}

fn denylist() -> Arc<Denylist> {
    let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(24 * 3600)));
    config.budget = REVOKED;
    let list = Denylist::new(config);
    let now = list.now();
    list.in_step_at(now);
    // As the sets have it: nearly all of them tokens, some of each other kind.
    let scope = |n: usize| match n % 1000 {
        997 => Scope::session(ISSUER, format!("revoked-{n}")),
        998 => Scope::subject(ISSUER, format!("revoked-{n}")),
        999 => Scope::client(ISSUER, format!("revoked-{n}")),
        _ => Scope::token(ISSUER, format!("revoked-{n}")),
    };
    let change = |n| Change::Revoke(Revocation::new(scope(n)).into_record(list.hasher(), list.lifetimes(), now.unix()));
    for page in 0..REVOKED / 1000 {
        list.apply(&(page * 1000..(page + 1) * 1000).map(change).collect::<Vec<_>>());
    }
    list.maintain();
    Arc::new(list)
}

/// Hands the request back in its response, so that it can come again.
#[derive(Clone)]
struct Bounce;

#[derive(Default)]
struct Back(Option<Request<()>>);

impl Service<Request<()>> for Bounce {
    type Response = Response<Back>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Back(Some(request)))))
    }
}

impl From<Response<Self>> for Back {
    fn from(response: Response<Self>) -> Self {
        assert!(response.status().is_success(), "refused: {}", response.status());
        response.into_body()
    }
}

/// The same with an answer that jwt-authorizer can make.
#[derive(Clone)]
struct BounceInAnswer;

struct Answer(Back);

impl Service<Request<()>> for BounceInAnswer {
    type Response = Answer;
    type Error = Infallible;
    type Future = Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(Answer(Back(Some(request)))))
    }
}

impl From<AuthError> for Answer {
    fn from(error: AuthError) -> Self {
        panic!("refused: {error}")
    }
}

impl From<Answer> for Back {
    fn from(Answer(back): Answer) -> Self {
        back
    }
}

struct IssuerKey(RsaKeyPair);

impl IssuerKey {
    fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn jwks(&self) -> String {
        let key = self.0.public_key();
        let (n, e) = (key.modulus(), key.exponent());
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) = (part(n.big_endian_without_leading_zero()), part(e.big_endian_without_leading_zero()));
        serde_json::json!({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": n, "e": e}]})
            .to_string()
    }

    /// A token of about 880 bytes with seven claims, as RS256 tokens are in practice.
    fn token(&self, jti: &str) -> String {
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "sid": "session-4711", "jti": jti,
            "iat": unix(), "exp": unix() + 3600, "scope": "x".repeat(100),
        });
        let head = serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": KEY_ID});
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(head), part(claims));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
