//! A request that passes costs no allocation. One test, since it counts those of the whole process.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

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
    denylist::{Denylist, DenylistConfig, Staleness},
    response::Bare,
    revocation::{Change, Revocation, Scope},
    token::{
        Claims, FromExtension, Identity, IdentitySource, Peek, VerifiedClaims, Verifier, VerifierBehind, Verify,
        VerifyError,
    },
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const ISS: &str = "https://issuer.example/";
const HOT_TOKENS: usize = 64;

#[derive(Clone)]
struct MyClaims {
    jti: String,
    iat: u64,
}

impl VerifiedClaims for MyClaims {
    fn claims(&self) -> Claims<'_> {
        let claims = Claims::new(ISS).jti(&self.jti).sid("session").sub("alice").client_id("app");
        claims.iat(self.iat).exp(self.iat + 600)
    }
}

/// Takes a token for its own `jti`.
struct Toy {
    iat: u64,
}

impl Verifier for Toy {
    fn verify(&self, token: &str, _: u64) -> Result<Identity, VerifyError> {
        Ok(Identity::from_verified(&MyClaims { jti: token.to_owned(), iat: self.iat }.claims()))
    }

    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.verify(token, now)
    }

    fn epoch(&self) -> u64 {
        1
    }
}

#[derive(Clone)]
struct Pass;

impl Service<Request<()>> for Pass {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

/// A list with 10,000 revocations, among them scopes of each kind that the tokens have.
fn denylist() -> Arc<Denylist> {
    let list = Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(3600))));
    let now = list.now();
    list.in_step_at(now);
    let changes: Vec<_> = (0..10_000)
        .map(|n| match n % 4 {
            0 => Scope::token(ISS, format!("revoked-{n}")),
            1 => Scope::session(ISS, format!("revoked-{n}")),
            2 => Scope::subject(ISS, format!("revoked-{n}")),
            _ => Scope::client(ISS, format!("revoked-{n}")),
        })
        .map(|scope| Change::Revoke(Revocation::new(scope).into_record(list.hasher(), list.lifetimes(), now.unix())))
        .collect();
    list.apply(&changes);
    list.maintain();
    Arc::new(list)
}

/// How many allocations `count` requests cost that the layer lets through.
fn allocations(
    service: &mut impl Service<Request<()>, Response = Response<()>, Error = Infallible>,
    request: impl Fn(usize) -> Request<()>,
    count: usize,
) -> u64 {
    let requests: Vec<_> = (0..count).map(|n| request(n % HOT_TOKENS)).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let before = dhat::HeapStats::get().total_blocks;
    for request in requests {
        assert!(service.poll_ready(&mut cx).is_ready());
        match pin!(service.call(request)).poll(&mut cx) {
            Poll::Ready(Ok(response)) => assert_eq!(response.status(), 200),
            Poll::Pending => panic!("nothing here waits"),
        }
    }
    dhat::HeapStats::get().total_blocks - before
}

/// Asserts that a layer in front of nothing allocates at most this often in 5,000 requests.
fn assert_at_most(
    most: u64,
    name: &str,
    list: &Arc<Denylist>,
    source: impl IdentitySource,
    request: impl Fn(usize) -> Request<()> + Copy,
) {
    let mut service = RevocationLayer::new(Arc::clone(list), source).deny_with(Bare).layer(Pass);
    allocations(&mut service, request, 5_000);
    let counted = allocations(&mut service, request, 5_000);
    assert!(counted <= most, "{name}: {counted} allocations in 5,000 requests");
}

fn bearer(token: usize) -> Request<()> {
    Request::builder().header(header::AUTHORIZATION, format!("Bearer token-{token:032}")).body(()).expect("a request")
}

#[test]
fn requests_that_pass_cost_no_allocation() {
    let list = denylist();
    let iat = list.now().unix();
    let _profiler = dhat::Profiler::builder().testing().build();

    let with_claims = |n: usize| {
        let mut request = bearer(n);
        request.extensions_mut().insert(MyClaims { jti: format!("token-{n}"), iat });
        request
    };
    assert_at_most(0, "claims of one's own", &list, FromExtension::<MyClaims>::new(), with_claims);

    let with_identity = |n: usize| {
        let mut request = bearer(n);
        let claims = MyClaims { jti: format!("token-{n}"), iat };
        request.extensions_mut().insert(Identity::with_keys(&claims.claims(), list.hasher()));
        request
    };
    assert_at_most(0, "an identity with its keys", &list, FromExtension::<Identity>::new(), with_identity);

    // The request itself makes none; moka's own book-keeping, once for some hundred reads, does. Only those few that
    // fall together in what the thread keeps at hand get that far.
    assert_at_most(20, "a verified token at hand", &list, Verify::new(Toy { iat }), bearer);

    let with_jwt = |n: usize| {
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let claims = format!(
            r#"{{"iss":"{ISS}","aud":"https://api.example/","jti":"token-{n}","sid":"session","sub":"alice",
                "client_id":"app","scope":"read write","iat":{iat},"exp":{}}}"#,
            iat + 600
        );
        let token = format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#.to_owned()), part(claims), "A".repeat(342));
        Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}")).body(()).expect("a request")
    };
    assert_at_most(0, "a peek", &list, Peek::new(VerifierBehind::i_promise()).issuer(ISS), with_jwt);
}
