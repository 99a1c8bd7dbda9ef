//! What a request with an opaque token costs whose issuer was asked before: `cargo bench --bench introspection`.
//!
//! Medians of 15 rounds of 200,000 checks each, through [`Guard::check`] on one thread: one token again and again, and
//! 10,000 tokens in turn; each beside a request without a token.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, num::NonZeroUsize, sync::Arc, time::Instant};

use axum::{Router, routing::post};
use http::{Extensions, HeaderMap, HeaderValue, Method, Uri, header};
use tower_revocation::{
    Guard,
    denylist::{Denylist, DenylistConfig, Staleness},
    policy::Policy,
    revocation::{Change, Revocation, Scope},
    token::{Introspect, Introspection, IntrospectionCredentials, OpaqueKeys},
};

const ISSUER: &str = "https://issuer.example/";
const ROUNDS: usize = 15;
const CHECKS: usize = 200_000;
const TOKENS: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let guard = runtime.block_on(guard());
    let headers: Vec<HeaderMap> = (0..TOKENS).map(|n| bearer(&token(n))).collect();
    runtime.block_on(async {
        for headers in &headers {
            let asked = guard.check_or_ask(&Method::GET, &Uri::default(), headers, &Extensions::new()).await;
            assert!(asked.is_ok(), "{asked:?}");
        }
    });
    let none = [HeaderMap::new()];
    for (name, headers) in
        [("no token", &none[..]), ("one opaque token", &headers[..1]), ("10,000 opaque tokens", &headers)]
    {
        println!("{name}: {} ns", median(&guard, headers));
    }
}

fn token(n: usize) -> String {
    format!("{n:08}-mF_9.B5f-4.1JqM-SlAV32hkKG")
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).expect("a header"));
    headers
}

async fn guard() -> Guard<Introspect> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let mut config = DenylistConfig::new(Staleness::serve_after(std::time::Duration::from_secs(3600)));
    config.budget = 100_000;
    let denylist = Arc::new(Denylist::new(config));
    let now = denylist.exact_now();
    let answer = format!(
        "{{\"active\":true,\"sub\":\"alice\",\"sid\":\"s\",\"client_id\":\"app\",\"iat\":{},\"exp\":{}}}",
        now.unix(),
        now.unix() + 3600
    );
    let answer = move || async move { ([(header::CONTENT_TYPE, "application/json")], answer) };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(post(answer))).await });
    // 10,000 revocations that are none of these tokens'.
    let revoke = |n: usize| {
        let revocation = Revocation::new(Scope::session(ISSUER, format!("other-{n}")));
        Change::Revoke(revocation.into_record(denylist.hasher(), denylist.lifetimes(), now.unix()))
    };
    denylist.apply(&(0..10_000).map(revoke).collect::<Vec<_>>());
    denylist.in_step_at(now);
    let credentials = IntrospectionCredentials::basic("api", "secret");
    let digests = OpaqueKeys::new("1", [7; 32]).expect("a key");
    let asked = Introspection::allowing_http(url, ISSUER, credentials, digests).expect("settings");
    let asked =
        asked.keep(std::time::Duration::from_secs(3600)).at_once(NonZeroUsize::new(64).expect("more than none"));
    Guard::new(denylist, Introspect::new(asked), Policy::default())
}

fn median(guard: &Guard<Introspect>, headers: &[HeaderMap]) -> u128 {
    let (method, uri, none) = (Method::GET, Uri::default(), Extensions::new());
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            for headers in headers.iter().cycle().take(CHECKS) {
                assert!(black_box(guard.check(&method, &uri, headers, &none)).is_ok());
            }
            begin.elapsed().as_nanos() / CHECKS as u128
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}
