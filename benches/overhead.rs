//! What the layer adds to a request, against a service that does nothing.
//!
//! ```text
//! cargo bench --bench overhead            all paths against up to 1,000,000 revocations, in under three minutes
//! cargo bench --bench overhead -- --full  more rounds, and 10,000,000 revocations (about 5 GB of memory)
//! ```
//!
//! Services are polled directly, so that no runtime is measured; requests are made before, and dropped by the service
//! inside, as a server would. All paths take turns, round by round, each right after the bare service with the same
//! requests: what disturbs a round disturbs both. Reported are the median of the differences and the tenth and the
//! ninetieth percentile, and written to `target/bench-results/overhead.json`.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

mod common;
mod paths;

use std::{
    hint::black_box,
    sync::{Arc, Barrier},
    time::Instant,
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{Goal, Length, Results, Spread};
use http::Request;
use paths::{AUD, Answer, HOT_TOKENS, ISS, MyClaims, Send};
use tower::Layer as _;
use tower_http::validate_request::ValidateRequestHeaderLayer;
use tower_revocation::{
    RevocationLayer,
    denylist::{Denylist, Mode, Tiered, Verdict},
    policy::{NoToken, Policy},
    response::Bare,
    revocation::{Change, Revocation, Scope},
    token::{
        Algorithm, FromExtension, Identity, Issuer, JwtVerifier, Keys, Peek, TokenCacheConfig, VerifiedClaims as _,
        VerifierBehind, Verify,
    },
};

const BATCH: usize = 64;
const COLD_TOKENS: usize = 100_000;
const SECRET: &[u8; 32] = b"32 random bytes make a good key!";

/// An issuer with one key of each kind: its tokens and its verifiers.
struct Keyring {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    hmac: hmac::Key,
    iat: u64,
}

impl Keyring {
    fn new(iat: u64) -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key"),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("an EC key"),
            ed: Ed25519KeyPair::generate().expect("an Ed25519 key"),
            hmac: hmac::Key::new(hmac::HMAC_SHA256, SECRET),
            iat,
        }
    }

    fn token(&self, alg: Algorithm, jti: &str) -> String {
        let input = paths::signing_input(alg.as_str(), jti, self.iat);
        let (message, random) = (input.as_bytes(), SystemRandom::new());
        let signature = match alg {
            Algorithm::RS256 => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("a signature");
                signature
            }
            Algorithm::ES256 => self.ec.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Algorithm::EdDSA => self.ed.sign(message).as_ref().to_vec(),
            _ => hmac::sign(&self.hmac, message).as_ref().to_vec(),
        };
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn modulus_and_exponent(&self) -> (&[u8], &[u8]) {
        let key = self.rsa.public_key();
        (key.modulus().big_endian_without_leading_zero(), key.exponent().big_endian_without_leading_zero())
    }

    fn verifier(&self, alg: Algorithm) -> JwtVerifier {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = match alg {
            Algorithm::RS256 => {
                let (n, e) = self.modulus_and_exponent();
                serde_json::json!({"kty": "RSA", "n": part(n), "e": part(e)})
            }
            Algorithm::ES256 => {
                let point = self.ec.public_key().as_ref();
                serde_json::json!({"kty": "EC", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..])})
            }
            Algorithm::EdDSA => {
                serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": part(self.ed.public_key().as_ref())})
            }
            _ => serde_json::json!({"kty": "oct", "k": part(SECRET)}),
        };
        let keys = Keys::jwks(serde_json::json!({"keys": [jwk]}).to_string());
        let issuer = Issuer::new(ISS).audience([AUD]).algorithms([alg]).keys(keys);
        JwtVerifier::builder().issuer(issuer).build().expect("a verifier")
    }

    /// Nothing but the signature of an RS256 token, with a key that is parsed: what no verifier can do without.
    fn signature_alone(&self) -> Send {
        let (n, e) = self.modulus_and_exponent();
        let key: ParsedPublicKey =
            RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).expect("a key");
        let mut answer = paths::service(Answer);
        Box::new(move |request| {
            let token = request.headers()[http::header::AUTHORIZATION].to_str().expect("ASCII");
            let (input, signature) = token["Bearer ".len()..].rsplit_once('.').expect("a signature");
            let mut bytes = [0; 256];
            let length = URL_SAFE_NO_PAD.decode_slice_unchecked(signature, &mut bytes).expect("base64url");
            key.verify_sig(input.as_bytes(), &bytes[..length]).expect("it fits");
            answer(request)
        })
    }
}

struct Lane {
    name: String,
    requests: Vec<Request<()>>,
    next: usize,
    batch: usize,
    /// Whether the requests come once before they are timed, so that nothing of them has left the CPU's caches.
    hot: bool,
    before_each: Option<Box<dyn FnMut()>>,
    send: Send,
    /// What it took longer than the bare service, a request, in nanoseconds.
    differences: Vec<f64>,
}

#[derive(Default)]
struct Bench {
    paths: Vec<Lane>,
    bare: Vec<f64>,
}

impl Bench {
    fn add(&mut self, name: impl Into<String>, requests: Vec<Request<()>>, send: Send) -> &mut Lane {
        let (name, differences) = (name.into(), Vec::new());
        self.paths.push(Lane {
            name,
            requests,
            next: 0,
            batch: BATCH,
            hot: true,
            before_each: None,
            send,
            differences,
        });
        self.paths.last_mut().expect("just pushed")
    }

    fn run(&mut self, rounds: usize) {
        let mut bare = paths::service(Answer);
        for round in 0..rounds {
            for path in &mut self.paths {
                let batch: Vec<_> =
                    (0..path.batch).map(|n| path.requests[(path.next + n) % path.requests.len()].clone()).collect();
                path.next += path.batch;
                if path.hot {
                    time(&mut path.send, batch.clone(), &mut path.before_each);
                }
                let floor = time(&mut bare, batch.clone(), &mut path.before_each);
                let took = time(&mut path.send, batch, &mut path.before_each);
                // The first rounds fill caches.
                if round >= rounds / 10 {
                    self.bare.push(floor);
                    path.differences.push(took - floor);
                }
            }
        }
    }
}

/// Nanoseconds a request. Where something is to happen before each, only the requests are timed.
fn time(send: &mut Send, batch: Vec<Request<()>>, before_each: &mut Option<Box<dyn FnMut()>>) -> f64 {
    let requests = batch.len() as f64;
    let Some(before) = before_each else {
        let began = Instant::now();
        for request in batch {
            black_box(send(black_box(request)));
        }
        return began.elapsed().as_nanos() as f64 / requests;
    };
    let mut took = 0;
    for request in batch {
        before();
        let began = Instant::now();
        black_box(send(black_box(request)));
        took += began.elapsed().as_nanos();
    }
    took as f64 / requests
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

fn main() {
    let length = Length::of_this_run();
    let full = length == Length::Full;
    let mut bench = Bench::default();
    let list = paths::denylist(1_000_000);
    let iat = list.now().unix();
    let keyring = Keyring::new(iat);
    let (allowed, denied) = ((0..HOT_TOKENS).collect::<Vec<_>>(), paths::revoked(1_000_000));
    let bearer = |alg, n: usize| paths::request(Some(&keyring.token(alg, &paths::jti(n))));
    let bearers = |alg, numbers: &[usize]| -> Vec<_> { numbers.iter().map(|n| bearer(alg, *n)).collect() };
    let hot = |list: &Arc<Denylist>| paths::layer(list, Verify::new(keyring.verifier(Algorithm::RS256)));
    let each_time = |alg| paths::layer(&list, Verify::new(keyring.verifier(alg)).cache(TokenCacheConfig::max_bytes(0)));
    let peek = || Peek::new(VerifierBehind::i_promise()).issuer(ISS);

    bench.add("no token", vec![paths::request(None)], hot(&list));
    let policy = Policy::default().no_token(NoToken::Deny);
    let refusing =
        RevocationLayer::with_policy(Arc::clone(&list), Verify::new(keyring.verifier(Algorithm::RS256)), policy);
    bench.add("no token, denied", vec![paths::request(None)], paths::service(refusing.deny_with(Bare).layer(Answer)));
    for (verdict, numbers) in [("allow", &allowed), ("deny", &denied)] {
        let name = |path: &str| format!("1M, {verdict}, {path}");
        let rs256 = bearers(Algorithm::RS256, numbers);
        let with = |extend: &dyn Fn(Request<()>, usize) -> Request<()>| -> Vec<_> {
            rs256.iter().zip(numbers).map(|(request, n)| extend(request.clone(), *n)).collect()
        };
        let ready = with(&|request, n| paths::with_keys(request, n, &list, iat));
        bench.add(name("identity with keys"), ready, paths::layer(&list, FromExtension::<Identity>::new()));
        let own = with(&|request, n| paths::with_own_claims(request, n, iat));
        bench.add(name("own claims"), own, paths::layer(&list, FromExtension::<MyClaims>::new()));
        bench.add(name("peek"), rs256.clone(), paths::layer(&list, peek()));
        bench.add(name("hot token"), rs256.clone(), hot(&list));
        bench.add(name("RS256 each time"), rs256, each_time(Algorithm::RS256)).batch = 8;
    }
    bench.add("RS256 signature alone", bearers(Algorithm::RS256, &allowed), keyring.signature_alone()).batch = 8;
    for alg in [Algorithm::ES256, Algorithm::EdDSA, Algorithm::HS256] {
        let name = format!("1M, allow, {alg} each time");
        bench.add(name, bearers(alg, &allowed), each_time(alg)).batch = 8;
    }
    let cold: Vec<_> = (2_000_000..2_000_000 + COLD_TOKENS).collect();
    let cold: Vec<_> = bearers(Algorithm::HS256, &cold);
    let cache = TokenCacheConfig::max_bytes(1 << 30);
    let mut cached = paths::layer(&list, Verify::new(keyring.verifier(Algorithm::HS256)).cache(cache));
    cold.iter().for_each(|request| drop(cached(request.clone())));
    bench.add("1M, allow, 100,000 tokens in turn, cached", cold.clone(), cached).hot = false;
    bench.add("1M, allow, 100,000 tokens in turn, peek", cold, paths::layer(&list, peek())).hot = false;
    let (storm, mut number) = (Arc::clone(&list), 0_u64);
    let storming =
        bench.add("1M, allow, hot token, a change before each", bearers(Algorithm::RS256, &allowed), hot(&list));
    storming.before_each = Some(Box::new(move || {
        number += 1;
        let revocation = Revocation::new(Scope::token(ISS, format!("storm-{number}")));
        storm.apply(&[Change::Revoke(revocation.into_record(storm.hasher(), storm.lifetimes(), iat))]);
    }));
    // Whoever is a false maybe would be refused here, where nobody can be asked: without them, and another list where that
    // is everybody.
    let clear = |list: &Arc<Denylist>| -> Vec<usize> {
        let passes = |n: &usize| {
            let claims = MyClaims { jti: paths::jti(*n), iat };
            list.check(&Identity::with_keys(&claims.claims(), list.hasher())) == Verdict::Allow
        };
        (0..HOT_TOKENS).chain(20_000_000..20_001_000).filter(passes).take(HOT_TOKENS).collect()
    };
    let lists = (0..5).map(|_| paths::denylist_in(Mode::Tiered(Tiered::default()), 1_000_000));
    let tiered = lists.into_iter().find(|list| clear(list).len() == HOT_TOKENS).expect("a list that lets some pass");
    let empty = paths::denylist(0);
    let small = paths::denylist(10_000);
    let large = full.then(|| paths::denylist(10_000_000));
    let others = [("0", &empty), ("10k", &small), ("1M tiered", &tiered)];
    for (size, list) in others.into_iter().chain(large.iter().map(|list| ("10M", list))) {
        let allowed = clear(list);
        let ready = allowed.iter().map(|n| paths::with_keys(bearer(Algorithm::HS256, *n), *n, list, iat)).collect();
        let source = FromExtension::<Identity>::new();
        bench.add(format!("{size}, allow, identity with keys"), ready, paths::layer(list, source));
        bench.add(format!("{size}, allow, hot token"), bearers(Algorithm::RS256, &allowed), hot(list));
    }
    let accept = ValidateRequestHeaderLayer::accept("application/json");
    bench.add(
        "tower-http, validating one header",
        bearers(Algorithm::RS256, &allowed),
        paths::service(accept.layer(Answer)),
    );

    bench.run(if full { 10_000 } else { 1500 });
    let one = bench
        .paths
        .iter_mut()
        .find(|path| path.name == "1M, allow, hot token")
        .map(|path| percentile(&mut path.differences, 50));
    let threads = two_threads(&list, keyring.verifier(Algorithm::RS256), &bearers(Algorithm::RS256, &allowed));
    report(bench, one.unwrap_or(f64::NAN), threads, length);
}

/// The hot path on two threads that share one layer: nanoseconds a request on each, the bare service's taken off.
fn two_threads(list: &Arc<Denylist>, verifier: JwtVerifier, requests: &[Request<()>]) -> f64 {
    let layer = RevocationLayer::new(Arc::clone(list), Verify::new(verifier)).deny_with(Bare);
    let start = Barrier::new(2);
    let run = || {
        let (mut send, mut bare) = (paths::service(layer.layer(Answer)), paths::service(Answer));
        let mut differences = Vec::new();
        for _ in 0..500 {
            start.wait();
            let floor = time(&mut bare, requests.to_vec(), &mut None);
            start.wait();
            differences.push(time(&mut send, requests.to_vec(), &mut None) - floor);
        }
        percentile(&mut differences, 50)
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.map(|thread| thread.join().expect("no panic")).iter().sum::<f64>() / 2.0
    })
}

fn report(mut bench: Bench, one_thread: f64, two_threads: f64, length: Length) {
    let mut results = Results::new("overhead", length);
    let group = "over the bare service";
    results.row(group, "the bare service itself", "ns", Spread::of(std::mem::take(&mut bench.bare)), None);
    for Lane { name, differences, .. } in &bench.paths {
        results.row(group, name, "ns", Spread::of(differences.iter().copied()), goal(name));
    }
    let spread = |name: &str| {
        let lane = bench.paths.iter().find(|lane| lane.name == name)?;
        Some(Spread::of(lane.differences.iter().copied()))
    };
    let mut ratio = |name: &str, of: Option<Spread>, to: Option<Spread>, most| {
        if let (Some(of), Some(to)) = (of, to) {
            // As far apart as both can be.
            let (low, median, high) = (of.low / to.high, of.median / to.median, of.high / to.low);
            let spread = Spread { median, low, high, samples: of.samples.min(to.samples) };
            results.row("ratios", name, "×", spread, Some(Goal::AtMost(most)));
        }
    };
    let (each_time, alone) = (spread("1M, allow, RS256 each time"), spread("RS256 signature alone"));
    ratio("RS256 each time : signature alone", each_time, alone, 1.1);
    ratio("hot token: 10M : 10k", spread("10M, allow, hot token"), spread("10k, allow, hot token"), 1.5);
    results.row("ratios", "hot token: two threads : one", "×", Spread::once(two_threads / one_thread), None);
    results.write();
}

fn goal(name: &str) -> Option<Goal> {
    let most = match name {
        "no token" => 10.0,
        "1M, allow, hot token" => 80.0,
        "1M, allow, identity with keys" => 40.0,
        "1M, allow, own claims" => 110.0,
        "1M, allow, peek" => 450.0,
        "1M, deny, identity with keys" | "1M, deny, own claims" | "1M, deny, peek" | "1M, deny, hot token" => 400.0,
        _ => return None,
    };
    Some(Goal::AtMost(most))
}
