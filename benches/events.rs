//! What pushed security events cost: from the push to the refusal of a token on this node, and how many are taken in a
//! second, on one connection's service and on sixteen.
//!
//! The store is SQLite on this machine's disk, which syncs each write, and memory. `cargo bench --bench events`.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tower_revocation::{
    Guard, Revocations,
    backend::{Backend, Memory, Sqlite},
    denylist::{Staleness, Verdict},
    directory::ClaimsOnly,
    endpoint::{Endpoints, EventsEndpoint, Responder, Transmitter},
    policy::Policy,
    sync::SyncConfig,
    token::{Algorithm, Claims, Identity, Issuer, Keys, Peek, VerifierBehind},
};

const ISS: &str = "https://issuer.example/";
const EACH: usize = 4_000;
const AT_ONCE: usize = 16;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sets(key: &Ed25519KeyPair, prefix: &str) -> Vec<(String, String)> {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let one = |n: usize| {
        let sid = format!("{prefix}-{n}");
        let claims = json!({
            "iss": ISS, "aud": "rp", "iat": now(), "jti": sid,
            "sub_id": {"format": "complex", "session": {"format": "opaque", "id": sid}},
            "events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {"event_timestamp": now()}},
        });
        let header = r#"{"typ":"secevent+jwt","alg":"EdDSA","kid":"1"}"#.to_owned();
        let input = format!("{}.{}", part(header), part(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()));
        (sid, format!("{input}.{signature}"))
    };
    (0..EACH).map(one).collect()
}

async fn push(responder: &Responder, set: String) -> u16 {
    let request = Request::post("/events").header("content-type", "application/secevent+jwt");
    let request = request.body(Full::new(Bytes::from(set))).unwrap();
    responder.respond(request).await.unwrap().status().as_u16()
}

async fn measure(name: &str, backend: impl Backend) {
    let key = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "1", "x": x}).to_string();
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(60)));
    let revocations = Revocations::start(backend, config).await.unwrap();
    let issuer = Issuer::new(ISS).algorithms([Algorithm::EdDSA]).keys(Keys::jwks(jwk));
    let transmitter = Transmitter::new(issuer).rate(1_000_000.try_into().unwrap());
    let events = EventsEndpoint::new(["rp"], [transmitter], ClaimsOnly).unwrap();
    let source = Peek::new(VerifierBehind::i_promise()).issuer(ISS);
    let guard = Guard::new(revocations.denylist().clone(), source, Policy::default());
    let endpoints = Endpoints::new(revocations.clone()).events(events);
    let responder = Arc::new(Responder::new(&guard, endpoints).unwrap());

    let mut times = Vec::with_capacity(EACH);
    for (sid, set) in sets(&key, "one") {
        let token = Identity::from_verified(&Claims::new(ISS).sid(&sid).iat(now()).exp(now() + 60));
        let began = Instant::now();
        assert_eq!(push(&responder, set).await, 202);
        assert!(matches!(revocations.check(&token), Verdict::Deny(_)));
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let (half, most) = (times[EACH / 2], times[EACH * 99 / 100]);

    let all = sets(&key, "many");
    let began = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|n| {
            let mine: Vec<_> = all.iter().skip(n).step_by(AT_ONCE).map(|(_, set)| set.clone()).collect();
            let responder = Arc::clone(&responder);
            tokio::spawn(async move {
                for set in mine {
                    assert_eq!(push(&responder, set).await, 202);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = EACH as f64 / began.elapsed().as_secs_f64();
    println!("{name}: push to refused p50 {half:?}, p99 {most:?}; {rate:.0} events a second with {AT_ONCE} at once");
    revocations.shutdown().await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        measure("memory", Memory::new()).await;
        let folder = tempfile::tempdir().unwrap();
        measure("sqlite", Sqlite::open(folder.path().join("revocations.db")).await.unwrap()).await;
    });
}
