//! What the layer adds to a request, against a service that does nothing.
//!
//! Services are polled directly, so that no runtime is measured; requests are made and dropped outside of the
//! measurement. At the end the differences to the bare service are printed.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair as KeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use criterion::{BatchSize, Criterion};
use http::{Request, Response, header};
use tower::{Layer, Service};
use tower_revocation::{
    RevocationLayer,
    denylist::{Denylist, DenylistConfig, Staleness},
    response::Bare,
    revocation::{Change, Revocation, Scope},
    token::{
        Algorithm, Claims, FromExtension, Identity, IdentitySource, Issuer, JwtVerifier, Keys, TokenCacheConfig,
        VerifiedClaims, Verify,
    },
};

const ISS: &str = "https://issuer.example/";
const GROUP: &str = "overhead";
const HOT_TOKENS: usize = 64;
const SIZES: [(usize, &str); 3] = [(0, "0"), (10_000, "10k"), (1_000_000, "1M")];

type Body = Option<Request<()>>;

/// Hands the request back in its response, so that dropping it is not measured.
#[derive(Clone)]
struct Bounce;

impl Service<Request<()>> for Bounce {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Some(request))))
    }
}

#[derive(Clone)]
struct MyClaims {
    jti: String,
    iat: u64,
}

impl VerifiedClaims for MyClaims {
    fn claims(&self) -> Claims<'_> {
        let claims = Claims::new(ISS).jti(&self.jti).sid("session-4711").sub("alice").client_id("app");
        claims.iat(self.iat).exp(self.iat + 3600)
    }
}

/// An issuer that signs with RS256 and one that signs with ES256, as their tokens and their verifiers.
struct Issuers {
    rsa: KeyPair,
    ec: EcdsaKeyPair,
    iat: u64,
}

#[derive(Clone, Copy)]
enum Alg {
    Rs256,
    Es256,
}

impl Issuers {
    fn new(iat: u64) -> Self {
        let rsa = KeyPair::generate(KeySize::Rsa2048).expect("an RSA key");
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("an EC key");
        Self { rsa, ec, iat }
    }

    /// A token of about 880 bytes with seven claims, as RS256 tokens are in practice.
    fn token(&self, alg: Alg, jti: &str) -> String {
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let name = match alg {
            Alg::Rs256 => "RS256",
            Alg::Es256 => "ES256",
        };
        let claims = serde_json::json!({
            "iss": ISS, "aud": "https://api.example/", "sub": "alice", "client_id": "app", "sid": "session-4711",
            "jti": jti, "iat": self.iat, "exp": self.iat + 3600, "scope": "x".repeat(100),
        });
        let input = format!("{}.{}", part(serde_json::json!({"alg": name, "typ": "at+jwt"})), part(claims));
        let signature = match alg {
            Alg::Rs256 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let random = SystemRandom::new();
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, input.as_bytes(), &mut signature).expect("a signature");
                signature
            }
            Alg::Es256 => self.ec.sign(&SystemRandom::new(), input.as_bytes()).expect("a signature").as_ref().to_vec(),
        };
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn verifier(&self, alg: Alg) -> JwtVerifier {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (algorithm, jwk) = match alg {
            Alg::Rs256 => {
                let key = self.rsa.public_key();
                let (n, e) = (key.modulus(), key.exponent());
                let n = n.big_endian_without_leading_zero();
                (
                    Algorithm::RS256,
                    serde_json::json!({
                        "kty": "RSA", "n": part(n), "e": part(e.big_endian_without_leading_zero()),
                    }),
                )
            }
            Alg::Es256 => {
                let point = self.ec.public_key().as_ref();
                (
                    Algorithm::ES256,
                    serde_json::json!({
                        "kty": "EC", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..]),
                    }),
                )
            }
        };
        let keys = Keys::jwks(serde_json::json!({"keys": [jwk]}).to_string());
        let issuer = Issuer::new(ISS).audience(["https://api.example/"]).algorithms([algorithm]).keys(keys);
        JwtVerifier::builder().issuer(issuer).build().expect("a verifier")
    }
}

fn jti(number: usize) -> String {
    format!("7f2c-{number}")
}

/// A list of this many entries: the tokens from `HOT_TOKENS` on, a hundredth of them sessions, subjects and clients.
fn denylist(entries: usize) -> Arc<Denylist> {
    let list = Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(24 * 3600))));
    let now = list.now();
    list.in_step_at(now);
    let changes: Vec<_> = (HOT_TOKENS..HOT_TOKENS + entries)
        .map(|n| match n % 300 {
            100 => Scope::session(ISS, jti(n)),
            200 => Scope::subject(ISS, jti(n)),
            299 => Scope::client(ISS, jti(n)),
            _ => Scope::token(ISS, jti(n)),
        })
        .map(|scope| Change::Revoke(Revocation::new(scope).into_record(list.hasher(), list.lifetimes(), now.unix())))
        .collect();
    list.apply(&changes);
    list.maintain();
    Arc::new(list)
}

/// Some requests, by the numbers of their tokens.
fn requests(
    numbers: impl Iterator<Item = usize>,
    token: impl Fn(&str) -> String,
    extend: impl Fn(&mut Request<()>, String),
) -> Vec<Request<()>> {
    numbers
        .map(|n| {
            let bearer = format!("Bearer {}", token(&jti(n)));
            let mut request = Request::builder().header(header::AUTHORIZATION, bearer).body(()).expect("a request");
            extend(&mut request, jti(n));
            request
        })
        .collect()
}

struct Bench {
    criterion: Criterion,
    names: Vec<String>,
    started: SystemTime,
}

impl Bench {
    fn service(
        &mut self,
        name: String,
        mut service: impl Service<Request<()>, Response = Response<Body>, Error = Infallible>,
        requests: &[Request<()>],
    ) {
        let mut turn = requests.iter().cycle();
        let mut cx = Context::from_waker(Waker::noop());
        self.criterion.bench_function(&format!("{GROUP}/{name}"), |bencher| {
            bencher.iter_batched(
                || turn.next().cloned(),
                |request| {
                    black_box(service.poll_ready(&mut cx).is_ready());
                    match pin!(service.call(black_box(request?))).poll(&mut cx) {
                        Poll::Ready(Ok(response)) => Some(response),
                        Poll::Pending => None,
                    }
                },
                BatchSize::SmallInput,
            );
        });
        self.names.push(name);
    }

    fn layer(&mut self, name: String, list: &Arc<Denylist>, source: impl IdentitySource, requests: &[Request<()>]) {
        let layer = RevocationLayer::new(Arc::clone(list), source).deny_with(Bare);
        self.service(name, layer.layer(Bounce), requests);
    }

    /// Criterion's medians in nanoseconds, and what each is more than the first. Criterion writes `/` as `_`.
    fn print_differences(&self, output: &Path) {
        let median = |name: &String| -> Option<f64> {
            let file = output.join(format!("{GROUP}_{name}")).join("new/estimates.json");
            // With a filter, what an earlier run left is none of ours.
            if std::fs::metadata(&file).ok()?.modified().ok()? < self.started {
                return None;
            }
            let estimates: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
            estimates["median"]["point_estimate"].as_f64()
        };
        let bare = self.names.first().and_then(median).unwrap_or_default();
        println!("\n{:<44} {:>10} {:>12}", "", "median ns", "over bare ns");
        for name in &self.names {
            if let Some(median) = median(name) {
                println!("{name:<44} {median:>10.1} {:>12.1}", median - bare);
            }
        }
    }
}

fn main() {
    let output = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/criterion");
    let criterion = Criterion::default()
        .output_directory(&output)
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    let mut bench = Bench { criterion, names: Vec::new(), started: SystemTime::now() };

    let issuers = Issuers::new(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs());
    let (rs256, es256) = (|jti: &str| issuers.token(Alg::Rs256, jti), |jti: &str| issuers.token(Alg::Es256, jti));
    bench.service("bare".to_owned(), Bounce, &requests(0..HOT_TOKENS, rs256, |_, _| {}));
    for (entries, size) in SIZES {
        let list = denylist(entries);
        let iat = list.now().unix();
        let own_claims = |request: &mut Request<()>, jti| {
            request.extensions_mut().insert(MyClaims { jti, iat });
        };
        let identity = |request: &mut Request<()>, jti| {
            let claims = MyClaims { jti, iat };
            request.extensions_mut().insert(Identity::with_keys(&claims.claims(), list.hasher()));
        };
        let nothing = |_: &mut Request<()>, _| {};
        let mut both = |verdict: &str, numbers: &[usize]| {
            let numbers = || numbers.iter().copied();
            let name = |source| format!("{size} entries, {verdict}, {source}");
            let (claims, ready) = (FromExtension::<MyClaims>::new(), FromExtension::<Identity>::new());
            bench.layer(name("own claims"), &list, claims, &requests(numbers(), rs256, own_claims));
            bench.layer(name("identity with keys"), &list, ready, &requests(numbers(), rs256, identity));
            let hot = Verify::new(issuers.verifier(Alg::Rs256));
            bench.layer(name("hot token"), &list, hot, &requests(numbers(), rs256, nothing));
            let each_time = |alg| Verify::new(issuers.verifier(alg)).cache(TokenCacheConfig::max_bytes(0));
            bench.layer(name("RS256 each time"), &list, each_time(Alg::Rs256), &requests(numbers(), rs256, nothing));
            bench.layer(name("ES256 each time"), &list, each_time(Alg::Es256), &requests(numbers(), es256, nothing));
        };
        both("allow", &(0..HOT_TOKENS).collect::<Vec<_>>());
        if entries > 0 {
            // Spread over the list, and all of them tokens.
            both(
                "deny",
                &(0..HOT_TOKENS).map(|n| HOT_TOKENS + n * (entries / HOT_TOKENS) / 300 * 300).collect::<Vec<_>>(),
            );
        }
    }
    bench.criterion.final_summary();
    bench.print_differences(&output);
}
