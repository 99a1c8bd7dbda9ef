//! What the benches send: requests, the lists they are held against, and a service that does nothing.
#![allow(dead_code, reason = "each bench uses a part")]

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, Response, header};
use tower::{Layer, Service};
use tower_revocation::{
    RevocationLayer,
    denylist::{Denylist, DenylistConfig, Mode, Staleness},
    response::Bare,
    revocation::{Change, Revocation, Scope, ScopeHasher},
    token::{Claims, Identity, IdentitySource, VerifiedClaims, Verifier, VerifyError},
};

pub(crate) const ISS: &str = "https://issuer.example/";
pub(crate) const AUD: &str = "https://api.example/";
pub(crate) const HOT_TOKENS: usize = 64;

/// One request through a service, from its call to its answer.
pub(crate) type Send = Box<dyn FnMut(Request<()>) -> Response<()>>;

/// Drops the request, as whoever serves it would.
#[derive(Clone)]
pub(crate) struct Answer;

impl Service<Request<()>> for Answer {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        drop(request);
        ready(Ok(Response::new(())))
    }
}

/// Polls a service directly, so that no runtime is measured.
pub(crate) fn service<E: std::fmt::Debug>(
    mut service: impl Service<Request<()>, Response = Response<()>, Error = E> + 'static,
) -> Send {
    Box::new(move |request| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        match pin!(service.call(request)).poll(&mut cx) {
            Poll::Ready(response) => response.expect("an answer"),
            Poll::Pending => unreachable!("nothing here waits"),
        }
    })
}

pub(crate) fn layer(list: &Arc<Denylist>, source: impl IdentitySource) -> Send {
    service(RevocationLayer::new(Arc::clone(list), source).deny_with(Bare).layer(Answer))
}

#[derive(Clone)]
pub(crate) struct MyClaims {
    pub(crate) jti: String,
    pub(crate) iat: u64,
}

impl VerifiedClaims for MyClaims {
    fn claims(&self) -> Claims<'_> {
        let claims = Claims::new(ISS).jti(&self.jti).sid("session-4711").sub("alice").client_id("app");
        claims.iat(self.iat).exp(self.iat + 3600)
    }
}

/// Reads a token's `jti` and looks at no signature: for counting what there is besides verifying.
pub(crate) struct Believing {
    pub(crate) iat: u64,
}

impl Verifier for Believing {
    fn verify(&self, token: &str, _: u64) -> Result<Identity, VerifyError> {
        let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let payload: serde_json::Value =
            payload.and_then(|json| serde_json::from_slice(&json).ok()).ok_or(VerifyError::Malformed)?;
        let jti = payload["jti"].as_str().ok_or(VerifyError::Malformed)?.to_owned();
        Ok(Identity::from_verified(&MyClaims { jti, iat: self.iat }.claims()))
    }

    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.verify(token, now)
    }

    fn epoch(&self) -> u64 {
        1
    }
}

pub(crate) fn jti(number: usize) -> String {
    format!("7f2c-{number:08}")
}

/// Header and payload of a token: seven claims of the usual size.
pub(crate) fn signing_input(alg: &str, jti: &str, iat: u64) -> String {
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = serde_json::json!({
        "iss": ISS, "aud": AUD, "sub": "alice", "client_id": "app", "sid": "session-4711",
        "jti": jti, "iat": iat, "exp": iat + 3600, "scope": "x".repeat(100),
    });
    format!("{}.{}", part(serde_json::json!({"alg": alg, "typ": "at+jwt"})), part(claims))
}

/// A token of about 800 bytes whose signature is none.
pub(crate) fn unsigned(jti: &str, iat: u64) -> String {
    let input = signing_input("RS256", jti, iat);
    let mut state = input.bytes().fold(7_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let signature: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(256)
    .collect();
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A list of this many entries: the tokens from `HOT_TOKENS` on, a hundredth of them sessions, subjects and clients.
pub(crate) fn denylist(entries: usize) -> Arc<Denylist> {
    denylist_in(Mode::Exact, entries)
}

pub(crate) fn denylist_in(mode: Mode, entries: usize) -> Arc<Denylist> {
    let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(24 * 3600)));
    // The same keys in every run.
    config.hasher = ScopeHasher::new([7; 16]);
    config.budget = entries + 1_000_000;
    config.mode = mode;
    let list = Denylist::new(config);
    let now = list.now();
    list.in_step_at(now);
    let scope = |n: usize| match n % 300 {
        100 => Scope::session(ISS, jti(n)),
        200 => Scope::subject(ISS, jti(n)),
        299 => Scope::client(ISS, jti(n)),
        _ => Scope::token(ISS, jti(n)),
    };
    let change =
        |scope: Scope| Change::Revoke(Revocation::new(scope).into_record(list.hasher(), list.lifetimes(), now.unix()));
    let mut numbers = HOT_TOKENS..HOT_TOKENS + entries;
    loop {
        // A part at a time: ten million changes would not fit.
        let part: Vec<_> = numbers.by_ref().take(100_000).map(|n| change(scope(n))).collect();
        if part.is_empty() {
            break;
        }
        list.apply(&part);
    }
    list.maintain();
    Arc::new(list)
}

/// Numbers of revoked tokens, spread over a list of this many entries.
pub(crate) fn revoked(entries: usize) -> Vec<usize> {
    (0..HOT_TOKENS).map(|n| HOT_TOKENS + n * (entries / HOT_TOKENS) / 300 * 300).collect()
}

/// A request with the headers that most have, and with this token.
pub(crate) fn request(token: Option<&str>) -> Request<()> {
    let mut request = Request::builder()
        .uri("/orders/4711")
        .header(header::HOST, "api.example")
        .header(header::USER_AGENT, "bench/1.0")
        .header(header::ACCEPT, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(()).expect("a request")
}

pub(crate) fn with_own_claims(mut request: Request<()>, n: usize, iat: u64) -> Request<()> {
    request.extensions_mut().insert(MyClaims { jti: jti(n), iat });
    request
}

pub(crate) fn with_keys(mut request: Request<()>, n: usize, list: &Denylist, iat: u64) -> Request<()> {
    request.extensions_mut().insert(Identity::with_keys(&MyClaims { jti: jti(n), iat }.claims(), list.hasher()));
    request
}
