//! The layer in axum, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    routing::{get, options},
};
use common::{AUDIENCE, ISSUER, SECRET, eventually, listen, token, unix, verifier};
use serde_json::json;
use tower_revocation::{
    Guard, RevocationLayer, Revocations,
    policy::{MissingClaim, MissingIat, NoToken, Policy},
    response::Challenge,
    revocation::{Cutoff, Revocation, Scope},
    rollout::Shadow,
    token::{
        Algorithm, Claims, FromExtension, Identity, Issuer, JwtVerifier, Keys, OpaqueKeys, Peek, VerifiedClaims,
        Verifier, VerifierBehind, Verify,
    },
};

async fn serve(router: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "in" }))
        .route(
            "/who",
            get(|identity: Option<Extension<Identity>>| async move {
                identity.and_then(|Extension(identity)| identity.sub().map(str::to_owned)).unwrap_or_default()
            }),
        )
        .route("/options", options(|| async { "in" }))
}

async fn with_policy(policy: Policy) -> (SocketAddr, Revocations) {
    let revocations = common::revocations().await;
    let layer = RevocationLayer::with_policy(revocations.denylist().clone(), Verify::new(verifier()), policy);
    (serve(app().layer(layer)).await, revocations)
}

async fn status(address: SocketAddr, token: &str) -> u16 {
    common::get(address, "/", &[&format!("authorization: Bearer {token}")]).await.status
}

fn identity(token: &str) -> Identity {
    verifier().verify(token, unix()).unwrap()
}

/// L1: the very next request with a revoked token is refused, by whichever scope.
#[tokio::test]
async fn l1_the_next_request_is_refused() {
    let (address, revocations) = with_policy(Policy::default()).await;
    let one = token(json!({"jti": "1", "sid": "s1", "sub": "alice", "client_id": "app"}));
    let other = token(json!({"jti": "2", "sid": "s2", "sub": "bob", "client_id": "other"}));
    for (n, scope) in [
        Scope::token(ISSUER, "1"),
        Scope::session(ISSUER, "s1"),
        Scope::client_session(ISSUER, "s1", "app"),
        Scope::subject(ISSUER, "alice"),
        Scope::subject_client(ISSUER, "alice", "app"),
        Scope::client(ISSUER, "app"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!((status(address, &one).await, status(address, &other).await), (200, 200), "{n}");
        let _ = revocations.revoke(Revocation::new(scope.clone())).await.unwrap();
        assert_eq!((status(address, &one).await, status(address, &other).await), (401, 200), "{scope:?}");
        let ids = revocations.revocations_of(&scope);
        revocations.lift(&scope, &ids, "the test").await.unwrap();
    }
    let _ = revocations.revoke(Revocation::new(Scope::issuer(ISSUER))).await.unwrap();
    assert_eq!((status(address, &one).await, status(address, &other).await), (401, 401));
}

/// The answer of RFC 6750 §3, and nothing that a cache could keep.
#[tokio::test]
async fn a_denial_is_rfc_6750() {
    let (address, revocations) = with_policy(Policy::default()).await;
    let token = token(json!({"jti": "1"}));
    let _ = revocations.revoke(Revocation::token_of(&identity(&token)).unwrap()).await.unwrap();
    let answer = common::get(address, "/", &[&format!("authorization: Bearer {token}")]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(
        answer.header("www-authenticate"),
        Some(r#"Bearer error="invalid_token", error_description="The access token was revoked""#)
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["error"], "invalid_token");
    assert!(!answer.head.contains(&token) && !answer.body.contains(&token));
}

/// F42, F43 over a socket: no spelling of a revoked token gets in.
#[tokio::test]
async fn f42_f43_no_spelling_gets_in() {
    let (address, revocations) = with_policy(Policy::default()).await;
    let (bad, good) = (token(json!({"jti": "bad"})), token(json!({"jti": "good"})));
    let _ = revocations.revoke(Revocation::token_of(&identity(&bad)).unwrap()).await.unwrap();
    let one = |value: String| vec![format!("authorization: {value}")];
    let table: Vec<(Vec<String>, u16)> = vec![
        (one(format!("Bearer {good}")), 200),
        (one(format!("Bearer {bad}")), 401),
        (one(format!("bearer {good}")), 200),
        (one(format!("bearer {bad}")), 401),
        (one(format!("BEARER  {bad}")), 401),
        (one(format!("Bearer\t{bad}")), 401),
        (one(format!("Bearer {good},Bearer {bad}")), 400),
        (one(format!("Bearer {bad}, Bearer {good}")), 400),
        ([one(format!("Bearer {good}")), one(format!("Bearer {bad}"))].concat(), 400),
        ([one("Basic eDp5".to_owned()), one(format!("Bearer {bad}"))].concat(), 401),
        (one(format!("Token {bad}")), 401),
        (one(format!("Bearer {bad}=")), 401),
        (one(format!("Bearer \"{bad}\"")), 400),
        (one(format!("Bearer {}", "a".repeat(17_000))), 400),
        (one("Bearer garbage".to_owned()), 401),
        (one("Bearer \u{e9}".to_owned()), 400),
        (vec![], 200),
    ];
    for (headers, expected) in table {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        assert_eq!(common::get(address, "/", &headers).await.status, expected, "{headers:?}");
    }
    assert_eq!(common::get(address, &format!("/?access_token={bad}"), &[]).await.status, 400);
    assert_eq!(common::get(address, "/", &[&format!("sec-websocket-protocol: bearer, {bad}")]).await.status, 400);
}

/// Bad tokens get a clear 401, and nothing is recorded.
#[tokio::test]
async fn bad_tokens() {
    let (address, revocations) = with_policy(Policy::default()).await;
    let good = token(json!({"jti": "1"}));
    let (head, signature) = good.rsplit_once('.').unwrap();
    let none = common::signed(r#"{"alg":"none"}"#, "{}");
    let bad = [
        head.to_owned(),
        format!("{head}."),
        format!("{head}.{}", &signature[1..]),
        good[1..].to_owned(),
        none,
        common::signed(r#"{"alg":"HS256"}"#, r#"{"iss":"#),
        common::signed(r#"{"alg":"HS256","alg":"HS256"}"#, "{}"),
        common::signed(r#"{"alg":"HS256","crit":["x"],"x":1}"#, &claims_of(&good)),
        token(json!({"exp": "soon"})),
        token(json!({"exp": null})),
        token(json!({"exp": unix() - 61})),
        token(json!({"exp": unix() + 2 * 24 * 60 * 60})),
        // What is left of it is short, its whole life is not: revocations of its session are not kept that long.
        token(json!({"iat": unix() - 90 * 24 * 60 * 60, "exp": unix() + 600})),
        token(json!({"jti": 7})),
        token(json!({"iat": unix() + 600})),
        token(json!({"iat": -1})),
        token(json!({"nbf": unix() + 600})),
        token(json!({"aud": "https://other.example/"})),
        token(json!({"iss": "https://other.example/"})),
    ];
    for token in &bad {
        assert_eq!(status(address, token).await, 401, "{token}");
    }
    assert_eq!(status(address, &good).await, 200);
    assert_eq!(revocations.denylist().records(), 0);
}

fn claims_of(token: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    String::from_utf8(URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// F20, F21, F28: a subject cutoff kills what was issued until its second, and nothing issued later.
#[tokio::test]
async fn f21_f28_cutoffs() {
    let (address, revocations) = with_policy(Policy::default()).await;
    let issued = |iat: u64| token(json!({"jti": iat.to_string(), "iat": iat}));
    let cutoff = unix() - 100;
    let revocation = Revocation::new(Scope::subject(ISSUER, "alice")).cutoff(Cutoff::at(cutoff));
    let _ = revocations.revoke(revocation).await.unwrap();
    assert_eq!(status(address, &issued(cutoff - 1)).await, 401);
    assert_eq!(status(address, &issued(cutoff)).await, 401);
    assert_eq!(status(address, &issued(cutoff + 1)).await, 200);
    // Rule 10: a refresh of an old login does not mint its way past.
    let refreshed = token(json!({"jti": "r", "iat": unix(), "auth_time": cutoff - 1}));
    assert_eq!(status(address, &refreshed).await, 401);
}

/// F22, F23: what is missing follows a named policy.
#[tokio::test]
async fn f22_f23_missing_claims() {
    let no_iat = token(json!({"jti": "1", "iat": null}));
    let no_jti = token(json!({"sid": "s"}));
    let no_sid = token(json!({"jti": "1"}));
    let all = |policy: Policy| async move {
        let (address, revocations) = with_policy(policy).await;
        let before = status(address, &token(json!({"jti": "1", "iat": null}))).await;
        let _ = revocations.revoke(Revocation::new(Scope::subject(ISSUER, "alice"))).await.unwrap();
        let after = status(address, &token(json!({"jti": "1", "iat": null}))).await;
        (before, after)
    };
    assert_eq!(all(Policy::default()).await, (200, 401));
    assert_eq!(all(Policy::default().missing_iat(MissingIat::Deny)).await, (401, 401));
    assert_eq!(all(Policy::default().missing_iat(MissingIat::Allow)).await, (200, 200));

    let (lax, _revocations) = with_policy(Policy::default()).await;
    for token in [&no_iat, &no_jti, &no_sid] {
        assert_eq!(status(lax, token).await, 200);
    }
    let strict = Policy::default().missing_jti(MissingClaim::Deny).missing_sid(MissingClaim::Deny);
    let (strict, _revocations) = with_policy(strict).await;
    for token in [&no_jti, &no_sid] {
        assert_eq!(status(strict, token).await, 401);
    }
    assert_eq!(status(strict, &token(json!({"jti": "1", "sid": "s"}))).await, 200);
}

/// Rule 16: a JWT without `jti` can be revoked alone, by its signing input.
#[tokio::test]
async fn rule16_a_jwt_without_jti() {
    let (address, revocations) = with_policy(Policy::default()).await;
    let (one, two) = (token(json!({"n": 1})), token(json!({"n": 2})));
    let _ = revocations.revoke(Revocation::token_of(&identity(&one)).unwrap()).await.unwrap();
    assert_eq!((status(address, &one).await, status(address, &two).await), (401, 200));
}

#[tokio::test]
async fn shadow_mode_counts_and_refuses_nothing() {
    let revocations = common::revocations().await;
    let policy = Policy::default().shadow(Shadow::ALL).no_token(NoToken::Deny);
    let layer = RevocationLayer::with_policy(revocations.denylist().clone(), Verify::new(verifier()), policy);
    let guard = layer.guard().clone();
    let address = serve(app().layer(layer)).await;
    let token = token(json!({"jti": "1"}));
    let _ = revocations.revoke(Revocation::token_of(&identity(&token)).unwrap()).await.unwrap();
    assert_eq!(status(address, &token).await, 200);
    assert_eq!(common::get(address, "/", &[]).await.status, 200);
    assert_eq!((guard.would_refuse(), guard.refused()), (2, 0));
}

/// A CORS preflight passes where a token is required; nothing else without one does.
#[tokio::test]
async fn only_a_preflight_passes_without_a_token() {
    let (address, _revocations) = with_policy(Policy::default().no_token(NoToken::Deny)).await;
    let options = |headers: &'static str| async move {
        let request = format!("OPTIONS /options HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n");
        common::raw(address, request).await
    };
    let preflight = "origin: https://app.example\r\naccess-control-request-method: GET\r\n";
    assert_eq!(options(preflight).await.status, 200);
    assert_eq!(options("").await.status, 401);
    assert_eq!(options("origin: https://app.example\r\n").await.status, 401);
    let missing = common::get(address, "/", &[]).await;
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("Bearer realm=\"api\"")));
    let with_token = "origin: a\r\naccess-control-request-method: GET\r\nauthorization: Bearer garbage\r\n";
    assert_eq!(options(with_token).await.status, 401);
}

#[derive(Clone)]
struct MyClaims(Identity);

impl VerifiedClaims for MyClaims {
    fn claims(&self) -> Claims<'_> {
        self.0.claims()
    }
}

/// Identity from an outer layer's extension; a token that nothing outside verified does not pass.
#[tokio::test]
async fn identity_from_extensions() {
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), FromExtension::<MyClaims>::new());
    let verifying = axum::middleware::from_fn(|mut request: axum::extract::Request, next: axum::middleware::Next| {
        let bearer = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        if let Some(Ok(identity)) = token.map(|token| verifier().verify(&token, unix())) {
            request.extensions_mut().insert(MyClaims(identity));
        }
        next.run(request)
    });
    let address = serve(app().layer(layer).layer(verifying)).await;
    let token = token(json!({"jti": "1", "sid": "s"}));
    assert_eq!(status(address, &token).await, 200);
    assert_eq!(status(address, "garbage").await, 401);
    let _ = revocations.revoke(Revocation::session_of(&identity(&token)).unwrap()).await.unwrap();
    assert_eq!(status(address, &token).await, 401);
}

/// A peek refuses the revoked and what it cannot read for certain; signatures are another's work (rule 20).
#[tokio::test]
async fn peek_denies_only() {
    let revocations = common::revocations().await;
    let peek = Peek::new(VerifierBehind::i_promise()).issuer(ISSUER);
    let layer = RevocationLayer::new(revocations.denylist().clone(), peek).insert_identity(true);
    let address = serve(app().layer(layer)).await;
    let good = token(json!({"jti": "1"}));
    let (head, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.AAAA");
    assert_eq!(status(address, &good).await, 200);
    assert_eq!(status(address, &forged).await, 200);
    let who = common::get(address, "/who", &[&format!("authorization: Bearer {good}")]).await;
    assert_eq!((who.status, who.body.as_str()), (200, ""), "an unverified identity must not be handed on");
    for bad in [token(json!({"iss": "https://other.example/"})), token(json!({"iss": null})), "opaque".to_owned()] {
        assert_eq!(status(address, &bad).await, 401);
    }
    let _ = revocations.revoke(Revocation::token_of(&identity(&good)).unwrap()).await.unwrap();
    assert_eq!((status(address, &good).await, status(address, &forged).await), (401, 401));
}

#[tokio::test]
async fn the_identity_is_inserted_on_request() {
    let revocations = common::revocations().await;
    for (insert, expected) in [(true, "alice"), (false, "")] {
        let source = Verify::new(verifier());
        let layer = RevocationLayer::new(revocations.denylist().clone(), source).insert_identity(insert);
        let address = serve(app().layer(layer)).await;
        let token = token(json!({"jti": "1"}));
        let answer = common::get(address, "/who", &[&format!("authorization: Bearer {token}")]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, expected));
    }
}

#[tokio::test]
async fn opaque_tokens_by_digest() {
    let revocations = common::revocations().await;
    let keys = OpaqueKeys::new("k2", vec![2; 32]).unwrap().previous("k1", vec![1; 32]).unwrap();
    let source = Verify::new(verifier()).opaque(keys.clone());
    let address = serve(app().layer(RevocationLayer::new(revocations.denylist().clone(), source))).await;
    assert_eq!(status(address, "opaque-1").await, 200);
    for (token, key) in [("opaque-1", 0), ("opaque-2", 1)] {
        let digest = keys.digests(token.as_bytes()).nth(key).unwrap();
        let revocation = Revocation::new(Scope::opaque_token(digest)).token_expires(unix() + 600);
        let _ = revocations.revoke(revocation).await.unwrap();
        assert_eq!(status(address, token).await, 401, "{token}");
    }
    assert_eq!(status(address, "opaque-3").await, 200);
}

/// F12, L7: nothing with a token passes before the first snapshot is in, and nothing once the list is stale.
#[tokio::test]
async fn l7_not_ready_and_stale() {
    use tower_revocation::{
        denylist::{Denylist, DenylistConfig, Staleness},
        time::ManualClock,
    };
    let clock = std::sync::Arc::new(ManualClock::at(unix()));
    for (staleness, when_stale) in [
        (Staleness::refuse_after(Duration::from_secs(10)), 503),
        (Staleness::serve_after(Duration::from_secs(10)), 200),
    ] {
        let mut config = DenylistConfig::new(staleness);
        config.clock = clock.clone();
        let denylist = std::sync::Arc::new(Denylist::new(config));
        let layer = RevocationLayer::new(denylist.clone(), Verify::new(verifier()));
        let address = serve(app().layer(layer)).await;
        let token = token(json!({"jti": "1"}));
        let answer = common::get(address, "/", &[&format!("authorization: Bearer {token}")]).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
        denylist.in_step_at(denylist.now());
        assert_eq!(status(address, &token).await, 200);
        clock.advance(Duration::from_secs(11));
        assert_eq!(status(address, &token).await, when_stale);
        assert!(denylist.not_ready().is_some());
        denylist.in_step_at(denylist.now());
        assert_eq!(status(address, &token).await, 200);
    }
}

/// `route_layer` covers matched routes, `layer` the whole router with its 404.
#[tokio::test]
async fn layer_and_route_layer() {
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let routes = serve(app().route_layer(layer.clone())).await;
    let whole = serve(app().layer(layer)).await;
    let bad = ["authorization: Bearer garbage"];
    assert_eq!(common::get(routes, "/", &bad).await.status, 401);
    assert_eq!(common::get(routes, "/nowhere", &bad).await.status, 404);
    assert_eq!(common::get(whole, "/nowhere", &bad).await.status, 401);
}

/// F10: a token that is in the verified-token cache is refused as soon as it is revoked, and as it expires.
#[tokio::test]
async fn f10_the_cache_does_not_hide_a_revocation() {
    let (address, revocations) = with_policy(Policy::default()).await;
    let short = token(json!({"jti": "short", "exp": unix() - 58}));
    assert_eq!(status(address, &short).await, 200, "within the leeway");
    let token = token(json!({"jti": "1"}));
    for _ in 0..3 {
        assert_eq!(status(address, &token).await, 200);
    }
    let _ = revocations.revoke(Revocation::token_of(&identity(&token)).unwrap()).await.unwrap();
    assert_eq!(status(address, &token).await, 401);
    eventually("the short token expires", || async { status(address, &short).await == 401 }).await;
}

/// Rule 12: a token that is in the verified-token cache is refused as soon as its verifier would refuse it.
#[tokio::test]
async fn rule_12_the_cache_does_not_outlive_keys_and_audience() {
    let verifier = Arc::new(verifier());
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier.clone()));
    let address = serve(app().layer(layer)).await;
    let token = token(json!({"jti": "1"}));
    let issuer = |secret: &[u8], audience, algorithm| {
        Issuer::new(ISSUER).audience([audience]).algorithms([algorithm]).keys(Keys::secret(secret))
    };
    let issuers = [
        issuer(&[7; 64], AUDIENCE, Algorithm::HS256),
        issuer(SECRET, "https://elsewhere.example/", Algorithm::HS256),
        issuer(&[SECRET, SECRET].concat(), AUDIENCE, Algorithm::HS512),
    ];
    for issuer in issuers {
        assert_eq!(status(address, &token).await, 200);
        verifier.replace(JwtVerifier::builder().issuer(issuer)).unwrap();
        assert_eq!(status(address, &token).await, 401);
        verifier.replace(JwtVerifier::builder().issuer(common::issuer())).unwrap();
    }
}

/// L6: what tokens leave out is counted, whatever the policy is. Shadow mode changes nothing for the service behind.
#[tokio::test]
async fn l6_missing_claims_are_counted_and_shadow_keeps_the_identity() {
    let revocations = common::revocations().await;
    let policy = Policy::default().shadow(Shadow::ALL);
    let source = Verify::new(verifier());
    let layer = RevocationLayer::with_policy(revocations.denylist().clone(), source, policy).insert_identity(true);
    let guard = layer.guard().clone();
    let address = serve(app().layer(layer)).await;
    let (full, bare) = (token(json!({"jti": "1", "sid": "s"})), token(json!({"iat": null})));
    let _ = revocations.revoke(Revocation::token_of(&identity(&full)).unwrap()).await.unwrap();
    for token in [&full, &bare, &bare] {
        let who = common::get(address, "/who", &[&format!("authorization: Bearer {token}")]).await;
        assert_eq!((who.status, who.body.as_str()), (200, "alice"));
    }
    assert_eq!(guard.missing_claims(), [("jti", 1), ("sid", 1), ("iat", 1)], "verified once, counted once");
    assert_eq!(guard.would_refuse(), 1);
}

/// RFC 6750 §3, RFC 9728 §5.1: what a challenge tells of the resource, whether or not a token came along.
#[tokio::test]
async fn challenges_tell_of_the_resource() {
    let revocations = common::revocations().await;
    let challenge = Challenge::new().scope("read write").unwrap();
    let challenge = challenge.resource_metadata("https://api.example/.well-known/oauth-protected-resource").unwrap();
    let guard =
        Guard::new(revocations.denylist().clone(), Verify::new(verifier()), Policy::default().no_token(NoToken::Deny));
    let layer = RevocationLayer::from(Arc::new(guard.challenge(challenge)));
    let address = serve(app().layer(layer)).await;
    let rest = "scope=\"read write\", resource_metadata=\"https://api.example/.well-known/oauth-protected-resource\"";
    let nothing = common::get(address, "/", &[]).await;
    assert_eq!(nothing.header("www-authenticate"), Some(format!("Bearer realm=\"api\", {rest}").as_str()));
    let wrong = common::get(address, "/", &["authorization: Bearer a.b.c"]).await;
    let said = wrong.header("www-authenticate").unwrap();
    assert!(said.starts_with("Bearer error=\"invalid_token\", ") && said.ends_with(rest), "{said}");

    for injected in ["", "a\"b", "a\\b", "a\r\nset-cookie: x", "ä"] {
        assert!(Challenge::new().scope(injected).is_err(), "{injected:?}");
        assert!(Challenge::new().resource_metadata(injected).is_err(), "{injected:?}");
    }
    assert!(Challenge::new().resource_metadata("https://api.example/a b").is_err());
}
