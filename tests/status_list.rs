//! Token Status Lists over real sockets: which tokens pass, and what bad lists get.
#![cfg(feature = "status-list")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;
mod status;

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router, http::Request, routing::get};
use common::{ISSUER, eventually, revocations, signed, token, unix, verifier};
use serde_json::{Value, json};
use status::{Answer, Lists, gzip, list_token};
use tower::{Layer as _, ServiceExt as _};
use tower_revocation::{
    Guard, RevocationLayer, Revocations,
    denylist::Why,
    policy::{MissingClaim, Policy},
    reject::Rejection,
    revocation::{Revocation, Scope},
    status_list::{Bits, Status, StatusClaim, StatusList, StatusLists, StatusListsBuilder, Unavailable},
    time::ManualClock,
    token::{
        ClaimNames, Claims, FromExtension, Identity, IdentitySource, JwtVerifier, Peek, StatusPlace, VerifiedClaims,
        VerifierBehind, Verify,
    },
};

/// A token that points to this place.
fn listed(uri: &str, idx: u64) -> String {
    token(json!({"jti": format!("{uri}#{idx}"), "status": {"status_list": {"uri": uri, "idx": idx}}}))
}

struct Site {
    revocations: Revocations,
    lists: StatusLists,
    guard: Arc<Guard<Verify<Arc<JwtVerifier>>>>,
}

async fn site(settings: impl FnOnce(StatusListsBuilder) -> StatusListsBuilder) -> Site {
    site_of(Arc::new(verifier()), settings).await
}

async fn site_of(verifier: Arc<JwtVerifier>, settings: impl FnOnce(StatusListsBuilder) -> StatusListsBuilder) -> Site {
    let revocations = revocations().await;
    let lists = settings(StatusLists::builder(Arc::clone(&verifier)).allow_http(true)).build().unwrap();
    let guard = Guard::new(Arc::clone(revocations.denylist()), Verify::new(verifier), Policy::default());
    Site { revocations, guard: Arc::new(guard.status_lists(lists.clone())), lists }
}

impl Site {
    /// What an axum service behind the asking layer answers to this token.
    async fn status(&self, token: &str) -> u16 {
        status_at(&self.guard, token).await
    }

    async fn judged(&self, token: &str) -> Result<(), Rejection> {
        let (parts, ()) = request(token).into_parts();
        self.guard.check_parts_or_ask(&parts).await.map(drop)
    }

    fn at_once(&self, token: &str) -> Result<(), Rejection> {
        self.guard.check_parts(&request(token).into_parts().0).map(drop)
    }
}

fn request(token: &str) -> Request<()> {
    Request::get("/").header("authorization", format!("Bearer {token}")).body(()).unwrap()
}

async fn status_at<I: IdentitySource>(guard: &Arc<Guard<I>>, token: &str) -> u16 {
    let app = Router::new().route("/", get(|| async { "in" }));
    let app = RevocationLayer::from(Arc::clone(guard)).asking().layer(app);
    app.oneshot(request(token).map(|()| axum::body::Body::empty())).await.unwrap().status().as_u16()
}

const NO_LIST: Result<(), Rejection> = Err(Rejection::Unknown(Why::NoStatusList));

#[tokio::test]
async fn tokens_are_held_against_the_list_that_they_point_to() {
    let (lists, site) = (Lists::start().await, site(|lists| lists).await);
    lists.list("1", &[(3, 1), (5, 2), (7, 3)]);
    let uri = lists.uri("1");
    for (idx, status) in [(0, 200), (3, 401), (5, 401), (7, 401), (63, 200), (64, 401), (u64::MAX, 401)] {
        assert_eq!(site.status(&listed(&uri, idx)).await, status, "{idx}");
    }
    assert_eq!(site.judged(&listed(&uri, 3)).await, Err(Rejection::Status(Status::INVALID)));
    assert_eq!(site.judged(&listed(&uri, 5)).await, Err(Rejection::Status(Status::SUSPENDED)));
    assert_eq!(site.judged(&listed(&uri, 7)).await, Err(Rejection::Status(Status(3))));
    assert_eq!(site.judged(&listed(&uri, 64)).await, Err(Rejection::NotInStatusList));
    assert_eq!(lists.asked("1"), 1);
    assert_eq!(lists.last()["accept"], "application/statuslist+jwt");
    assert_eq!(site.status(&token(json!({"jti": "none"}))).await, 200);
    assert_eq!(site.lists.counts().missing, 1);
    assert_eq!((site.lists.counts().lists, site.lists.counts().bytes, site.lists.counts().fetched), (1, 16, 1));
}

#[tokio::test]
async fn every_width_of_status_is_read() {
    let (lists, site) = (Lists::start().await, site(|lists| lists).await);
    for (bits, bytes, bad, good) in [
        // draft-ietf-oauth-status-list §4.1 and §4.2.
        (1, vec![0xb9, 0xa3], [0, 3, 4], [1, 2, 6]),
        (2, vec![0xc9, 0x44, 0xf9], [0, 1, 3], [2, 4, 6]),
        (4, vec![0x10, 0x0f], [1, 2, 1], [0, 3, 0]),
        (8, vec![0, 1, 2, 0, 255], [1, 2, 4], [0, 3, 0]),
    ] {
        let list = StatusList::from_bytes(Bits::new(bits).unwrap(), bytes);
        let path = bits.to_string();
        lists.list_with(&path, &[], json!({"status_list": {"bits": bits, "lst": list.compress()}}));
        for idx in bad {
            assert_eq!(site.status(&listed(&lists.uri(&path), idx)).await, 401, "{bits} bits, {idx}");
        }
        for idx in good {
            assert_eq!(site.status(&listed(&lists.uri(&path), idx)).await, 200, "{bits} bits, {idx}");
        }
    }
}

#[tokio::test]
async fn claims_that_are_malformed_are_refused_and_missing_ones_by_policy() {
    let lists = Lists::start().await;
    lists.list("1", &[]);
    let uri = lists.uri("1");
    let lax = site(|lists| lists).await;
    let strict = site(|lists| lists.missing(MissingClaim::Deny)).await;
    for bad in [
        json!("active"),
        json!([]),
        json!({"status_list": null}),
        json!({"status_list": {"idx": 0}}),
        json!({"status_list": {"uri": uri}}),
        json!({"status_list": {"idx": -1, "uri": uri}}),
        json!({"status_list": {"idx": 0.5, "uri": uri}}),
        json!({"status_list": {"idx": "0", "uri": uri}}),
        json!({"status_list": {"idx": 0, "uri": ""}}),
        json!({"status_list": {"idx": 0, "uri": format!("{uri}?{}", "a".repeat(3000))}}),
    ] {
        assert_eq!(lax.status(&token(json!({"status": bad}))).await, 401, "{bad}");
    }
    for missing in [json!(null), json!({}), json!({"other": {}})] {
        let token = token(json!({"status": missing}));
        assert_eq!((lax.status(&token).await, strict.status(&token).await), (200, 401), "{missing}");
    }
    assert_eq!(strict.judged(&token(json!({}))).await, Err(Rejection::MissingStatus));
    assert_eq!(strict.status(&listed(&uri, 0)).await, 200);
    // Where no status lists count, `status` may mean anything.
    let plain =
        Arc::new(Guard::new(Arc::clone(lax.revocations.denylist()), Verify::new(verifier()), Policy::default()));
    assert_eq!(status_at(&plain, &token(json!({"status": "active"}))).await, 200);
}

#[tokio::test]
async fn a_list_that_is_not_one_of_the_issuer_is_refused() {
    let (lists, site) = (Lists::start().await, site(|lists| lists.timeout(Duration::from_secs(1))).await);
    let uri = |path: &str| lists.uri(path);
    let payload = |path: &str, typ: &str, claims: Value| {
        let good = list_token(&uri(path), &[], claims);
        let payload = good.split('.').nth(1).unwrap().to_owned();
        let payload = String::from_utf8(base64_of(&payload)).unwrap();
        signed(&format!(r#"{{"alg":"HS256"{typ}}}"#), &payload)
    };
    let with = |path: &str, claims| Answer::token(list_token(&uri(path), &[], claims));
    let good = |path: &str| with(path, json!({}));
    let bomb = StatusList::all_valid(Bits::ONE, (16 << 23) + 8).compress();
    let rows: Vec<(&str, Answer)> = vec![
        ("no-typ", Answer::token(payload("no-typ", "", json!({})))),
        ("wrong-typ", Answer::token(payload("wrong-typ", r#","typ":"at+jwt""#, json!({})))),
        ("crit", Answer::token(payload("crit", r#","typ":"statuslist+jwt","crit":["x"]"#, json!({})))),
        ("forged", {
            let mut forged = list_token(&uri("forged"), &[], json!({}));
            forged.truncate(forged.len() - 4);
            Answer::token(forged + "AAAA")
        }),
        ("alg-none", {
            let token = list_token(&uri("alg-none"), &[], json!({}));
            let payload = token.split('.').nth(1).unwrap();
            Answer::token(format!("eyJhbGciOiJub25lIiwidHlwIjoic3RhdHVzbGlzdCtqd3QifQ.{payload}."))
        }),
        ("other-issuer", with("other-issuer", json!({"iss": "https://other.example/"}))),
        ("other-sub", with("other-sub", json!({"sub": uri("else")}))),
        ("no-sub", with("no-sub", json!({"sub": null}))),
        ("no-iat", with("no-iat", json!({"iat": null}))),
        ("future", with("future", json!({"iat": unix() + 3600}))),
        ("not-yet", with("not-yet", json!({"nbf": unix() + 3600}))),
        ("expired", with("expired", json!({"exp": unix() - 1}))),
        ("exp-string", with("exp-string", json!({"exp": "never"}))),
        ("ttl-zero", with("ttl-zero", json!({"ttl": 0}))),
        ("ttl-negative", with("ttl-negative", json!({"ttl": -5}))),
        ("no-list", with("no-list", json!({"status_list": null}))),
        ("bits", with("bits", json!({"status_list": {"bits": 3, "lst": "eNrbuRgAAhcBXQ"}}))),
        ("bits-string", with("bits-string", json!({"status_list": {"bits": "1", "lst": "eNrbuRgAAhcBXQ"}}))),
        ("no-lst", with("no-lst", json!({"status_list": {"bits": 1}}))),
        ("truncated", with("truncated", json!({"status_list": {"bits": 1, "lst": "eNrbuRgAAhcB"}}))),
        ("not-zlib", with("not-zlib", json!({"status_list": {"bits": 1, "lst": "AAAA"}}))),
        ("bomb", with("bomb", json!({"status_list": {"bits": 1, "lst": bomb}}))),
        (
            "gzip-bomb",
            Answer {
                headers: vec![("content-encoding", "gzip".to_owned())],
                ..Answer::token(gzip(&vec![b'a'; 40 << 20]))
            },
        ),
        ("huge", Answer::token(vec![b'a'; 40 << 20])),
        (
            "twice",
            Answer {
                headers: vec![("content-encoding", "gzip".to_owned()), ("content-encoding", "gzip".to_owned())],
                ..good("twice")
            },
        ),
        ("brotli", Answer { headers: vec![("content-encoding", "br".to_owned())], ..good("brotli") }),
        ("json", Answer { content_type: "application/json", ..good("json") }),
        ("html", Answer { content_type: "text/html", ..good("html") }),
        ("error", Answer { status: 500, ..good("error") }),
        ("not-found", Answer { status: 404, ..good("not-found") }),
        ("redirect", Answer { status: 302, headers: vec![("location", uri("good"))], ..good("redirect") }),
        ("empty", Answer::token("")),
        ("rubbish", Answer::token("not.a.jwt")),
        ("slow", Answer { stalls: true, ..good("slow") }),
    ];
    lists.list("good", &[]);
    assert_eq!(site.status(&listed(&uri("good"), 0)).await, 200);
    for (path, answer) in rows {
        lists.answers(path, answer);
        assert_eq!(site.judged(&listed(&uri(path), 0)).await, NO_LIST, "{path}");
        assert_eq!(lists.asked(path), 1, "{path}");
    }
    assert_eq!(site.status(&listed(&uri("expired"), 0)).await, 503);
    assert_eq!(site.lists.counts().bytes, 16);
    // Whose `iss` is left out, as later drafts have it, is the tokens' issuer's.
    lists.list_with("no-iss", &[(1, 1)], json!({"iss": null}));
    assert_eq!(site.status(&listed(&uri("no-iss"), 0)).await, 200);
    assert_eq!(site.status(&listed(&uri("no-iss"), 1)).await, 401);
    lists.answers(
        "gzip",
        Answer {
            headers: vec![("content-encoding", "gzip".to_owned())],
            ..Answer::token(gzip(list_token(&uri("gzip"), &[(1, 1)], json!({})).as_bytes()))
        },
    );
    assert_eq!(site.status(&listed(&uri("gzip"), 0)).await, 200);
    assert_eq!(site.status(&listed(&uri("gzip"), 1)).await, 401);
}

fn base64_of(text: &str) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

#[tokio::test]
async fn a_hot_token_is_refused_once_the_list_says_so() {
    let (lists, site) = (Lists::start().await, site(|lists| lists).await);
    lists.list_with("1", &[], json!({"ttl": 1, "iat": unix() - 1}));
    let token = listed(&lists.uri("1"), 9);
    assert_eq!(site.status(&token).await, 200);
    assert_eq!(site.at_once(&token), Ok(()));
    lists.list_with("1", &[(9, 1)], json!({"ttl": 1}));
    eventually("the refreshed list refuses it", || async {
        matches!(site.at_once(&token), Err(Rejection::Status(Status::INVALID)))
    })
    .await;
    // It goes on in the background, without a request that waits.
    let asked = lists.asked("1");
    eventually("it is fetched again", || async { lists.asked("1") > asked }).await;
}

#[tokio::test]
async fn an_older_list_does_not_come_back_and_a_shorter_one_refuses() {
    let (lists, site) = (Lists::start().await, site(|lists| lists).await);
    lists.list_with("1", &[(9, 1)], json!({"ttl": 1}));
    let (revoked, good) = (listed(&lists.uri("1"), 9), listed(&lists.uri("1"), 20));
    assert_eq!((site.status(&revoked).await, site.status(&good).await), (401, 200));
    lists.list_with("1", &[], json!({"ttl": 1, "iat": unix() - 100}));
    eventually("the older one was fetched, and not taken", || async { site.lists.counts().failed > 0 }).await;
    assert_ne!(site.judged(&revoked).await, Ok(()));
    let short = StatusList::all_valid(Bits::ONE, 8).compress();
    lists.list_with("1", &[], json!({"ttl": 100, "iat": unix(), "status_list": {"bits": 1, "lst": short}}));
    eventually("the shorter one counts", || async { site.judged(&good).await == Err(Rejection::NotInStatusList) })
        .await;
}

#[tokio::test]
async fn many_requests_for_a_new_list_fetch_it_once_and_doors_that_cannot_wait_answer_503() {
    let (lists, site) = (Lists::start().await, site(|lists| lists.wait(Duration::from_secs(20))).await);
    let stalled = Answer { stalls: true, ..Answer::token(list_token(&lists.uri("1"), &[(1, 1)], json!({}))) };
    lists.answers("1", stalled);
    let tokens: Vec<_> = (0..32).map(|idx| listed(&lists.uri("1"), idx)).collect();
    assert_eq!(site.at_once(&tokens[0]), Err(Rejection::Unknown(Why::NotAsked)));
    let waiting = tokens.iter().map(|token| site.judged(token));
    let (judged, ()) = tokio::join!(futures_util::future::join_all(waiting), async {
        eventually("it is asked for", || async { lists.asked("1") == 1 }).await;
        lists.release();
    });
    for (idx, judged) in judged.into_iter().enumerate() {
        assert_eq!(judged.is_ok(), idx != 1, "{idx}: {judged:?}");
    }
    assert_eq!(lists.asked("1"), 1);
    assert_eq!(site.at_once(&tokens[0]), Ok(()));
    assert_eq!(site.at_once(&tokens[1]), Err(Rejection::Status(Status::INVALID)));
}

#[tokio::test]
async fn what_is_revoked_here_stays_revoked_whatever_the_list_says() {
    let (lists, site) = (Lists::start().await, site(|lists| lists).await);
    lists.list("1", &[]);
    let (one, two) = (listed(&lists.uri("1"), 1), listed(&lists.uri("1"), 2));
    let _ =
        site.revocations.revoke(Revocation::new(Scope::token(ISSUER, format!("{}#1", lists.uri("1"))))).await.unwrap();
    // The list is not here yet: it is fetched, and the denylist asked all the same.
    assert!(matches!(site.judged(&one).await, Err(Rejection::Revoked(_))));
    assert_eq!(site.judged(&two).await, Ok(()));
    assert!(matches!(site.judged(&one).await, Err(Rejection::Revoked(_))));
}

#[tokio::test]
async fn what_happens_without_a_list_is_a_policy() {
    let lists = Lists::start().await;
    let quick = |lists: StatusListsBuilder| lists.timeout(Duration::from_secs(1));
    let refuse = site(quick).await;
    let allow = site(|lists| quick(lists).unavailable(Unavailable::Allow)).await;
    let last = site(|lists| quick(lists).unavailable(Unavailable::LastKnown)).await;
    let away = listed(&lists.uri("away"), 0);
    assert_eq!(refuse.judged(&away).await, NO_LIST);
    assert_eq!(allow.judged(&away).await, Ok(()));
    assert_eq!(allow.at_once(&away), Ok(()), "a door that cannot wait");
    assert_eq!(last.judged(&away).await, NO_LIST);

    // A list that runs out while its server is away.
    lists.list_with("1", &[(1, 1)], json!({"ttl": 1, "exp": unix() + 5}));
    let (good, bad) = (listed(&lists.uri("1"), 0), listed(&lists.uri("1"), 1));
    for site in [&refuse, &allow, &last] {
        assert_eq!((site.judged(&good).await.is_ok(), site.judged(&bad).await.is_ok()), (true, false));
    }
    lists.answers("1", Answer { status: 500, ..Answer::token("") });
    eventually("its ttl is over", || async { refuse.judged(&good).await == NO_LIST }).await;
    assert_eq!(last.judged(&good).await, Ok(()));
    assert_eq!(last.judged(&bad).await, Err(Rejection::Status(Status::INVALID)));
    eventually("its exp is over", || async { last.judged(&good).await == NO_LIST }).await;
    assert_eq!(allow.judged(&bad).await, Ok(()), "as was chosen, in words");
}

#[tokio::test]
async fn statuses_pass_where_they_are_accepted_in_words() {
    let lists = Lists::start().await;
    lists.list("1", &[(1, 1), (2, 2), (3, 3)]);
    let site = site(|lists| lists.accept(Status::SUSPENDED).accept(Status(3)).accept(Status::INVALID)).await;
    for (idx, status) in [(0, 200), (1, 401), (2, 200), (3, 200)] {
        assert_eq!(site.status(&listed(&lists.uri("1"), idx)).await, status, "{idx}");
    }
}

#[tokio::test]
async fn addresses_that_an_issuer_has_no_business_with_are_not_asked() {
    let lists = Lists::start().await;
    lists.list("1", &[]);
    let port = lists.address.port();
    let verifier = Arc::new(verifier());
    let only_https = site_of(Arc::clone(&verifier), |lists| lists.allow_http(false)).await;
    let inside = site_of(Arc::clone(&verifier), |lists| lists.allow_http(false).allow_private(true)).await;
    let http = site_of(Arc::clone(&verifier), |lists| lists.timeout(Duration::from_secs(2))).await;
    for (site, uri) in [
        (&only_https, lists.uri("1")),
        (&only_https, format!("https://127.0.0.1:{port}/1")),
        (&only_https, format!("https://localhost:{port}/1")),
        (&only_https, format!("https://127.1:{port}/1")),
        (&only_https, format!("https://[::ffff:127.0.0.1]:{port}/1")),
        (&inside, lists.uri("1")),
        (&http, format!("https://127.0.0.1:{port}/1")),
        (&http, format!("http://user@127.0.0.1:{port}/1")),
        (&http, format!("http://0.0.0.0:{port}/1")),
        (&http, "http://169.254.169.254/1".to_owned()),
        (&http, "http://10.255.255.1/1".to_owned()),
        (&http, "file:///etc/passwd".to_owned()),
        (&http, "/1".to_owned()),
        (&http, "1".to_owned()),
        (&http, "http://".to_owned()),
    ] {
        assert_eq!(site.judged(&listed(&uri, 0)).await, NO_LIST, "{uri}");
    }
    assert_eq!(lists.asked("1"), 0);
    assert_eq!(http.judged(&listed(&format!("http://localhost:{port}/2"), 0)).await, NO_LIST);
    assert_eq!(lists.asked("2"), 1, "plain http from this machine is what allow_http is for");
}

#[tokio::test]
async fn redirects_are_followed_only_where_allowed_and_only_to_what_may_be_asked() {
    let lists = Lists::start().await;
    let site = site(|lists| lists.redirects(2)).await;
    lists.list("good", &[]);
    let to = |location: String| Answer { status: 302, headers: vec![("location", location)], ..Answer::token("") };
    // The list has to name itself as the token does, wherever it is fetched from.
    let named = |path: &str| Answer::token(list_token(&lists.uri(path), &[], json!({})));
    lists.answers("one", to("/two".to_owned()));
    lists.answers("two", named("one"));
    assert_eq!(site.judged(&listed(&lists.uri("one"), 0)).await, Ok(()));
    for (path, location) in [
        ("elsewhere", lists.uri("good")),
        ("metadata", "http://169.254.169.254/latest".to_owned()),
        ("inside", "https://127.0.0.1/".to_owned()),
        ("file", "file:///etc/passwd".to_owned()),
        ("scheme-relative", "//169.254.169.254/".to_owned()),
        ("circle", lists.uri("circle")),
    ] {
        lists.answers(path, to(location));
        assert_eq!(site.judged(&listed(&lists.uri(path), 0)).await, NO_LIST, "{path}");
    }
    assert_eq!(lists.asked("circle"), 3);
}

#[tokio::test]
async fn lists_are_bounded_in_number_and_size() {
    let lists = Lists::start().await;
    let site = site(|lists| lists.max_lists(2).max_list_bytes(32).max_bytes(40)).await;
    for path in ["1", "2", "3", "4"] {
        lists.list(path, &[]);
    }
    assert_eq!(site.judged(&listed(&lists.uri("1"), 0)).await, Ok(()));
    assert_eq!(site.judged(&listed(&lists.uri("2"), 0)).await, Ok(()));
    assert_eq!(site.judged(&listed(&lists.uri("3"), 0)).await, NO_LIST, "one too many");
    assert_eq!(lists.asked("3"), 0);
    let small = site_of(Arc::new(verifier()), |lists| lists.max_list_bytes(15)).await;
    assert_eq!(small.judged(&listed(&lists.uri("1"), 0)).await, NO_LIST, "too large");
    let full = site_of(Arc::new(verifier()), |lists| lists.max_bytes(31)).await;
    assert_eq!(full.judged(&listed(&lists.uri("1"), 0)).await, Ok(()));
    assert_eq!(full.judged(&listed(&lists.uri("2"), 0)).await, NO_LIST, "both do not fit");
    assert_eq!(full.lists.counts().bytes, 16);
}

#[tokio::test]
async fn a_list_of_a_hundred_million_tokens() {
    let lists = Lists::start().await;
    let site = site(|lists| lists).await;
    let mut many = StatusList::all_valid(Bits::ONE, 100_000_000);
    (0..100_000).for_each(|n| many.set(n * 997, Status::INVALID).unwrap());
    lists.list_with("1", &[], json!({"status_list": {"bits": 1, "lst": many.compress()}}));
    let uri = lists.uri("1");
    eventually("it is fetched", || async { site.judged(&listed(&uri, 1)).await == Ok(()) }).await;
    assert_eq!(site.judged(&listed(&uri, 997)).await, Err(Rejection::Status(Status::INVALID)));
    assert_eq!(site.judged(&listed(&uri, 99_999_999)).await, Ok(()));
    assert_eq!(site.lists.counts().bytes, 12_500_000);
}

#[derive(Clone)]
struct Outside {
    uri: String,
    idx: u64,
}

impl VerifiedClaims for Outside {
    fn claims(&self) -> Claims<'_> {
        Claims::new(ISSUER).jti("x").sub("alice").iat(unix()).exp(unix() + 60).status_list(&self.uri, self.idx)
    }
}

#[tokio::test]
async fn claims_that_were_verified_outside_are_held_against_it_too() {
    let lists = Lists::start().await;
    lists.list("1", &[(1, 1)]);
    let site = site(|lists| lists).await;
    let guard = Guard::new(Arc::clone(site.revocations.denylist()), FromExtension::<Outside>::new(), Policy::default());
    let guard = Arc::new(guard.status_lists(site.lists.clone()));
    for (idx, status) in [(0, 200), (1, 401), (64, 401)] {
        let app = Router::new().route("/", get(|| async { "in" }));
        let app = app.layer(RevocationLayer::from(Arc::clone(&guard)).asking());
        let app = app.layer(Extension(Outside { uri: lists.uri("1"), idx }));
        let response = app.oneshot(request("x").map(|()| axum::body::Body::empty())).await.unwrap();
        assert_eq!(response.status(), status, "{idx}");
    }
    let identity = Identity::from_verified(&Outside { uri: lists.uri("1"), idx: 1 }.claims());
    assert!(matches!(identity.status(), StatusClaim::List(_)));
    assert_eq!(site.lists.check(&identity).await, Err(Rejection::Status(Status::INVALID)));
}

#[tokio::test]
async fn a_peek_goes_by_the_lists_that_are_here_and_has_none_fetched() {
    let lists = Lists::start().await;
    lists.list("1", &[(1, 1)]);
    let site = site(|lists| lists).await;
    let peek = Peek::new(VerifierBehind::i_promise()).issuer(ISSUER);
    let guard = Guard::new(Arc::clone(site.revocations.denylist()), peek, Policy::default());
    let guard = Arc::new(guard.status_lists(site.lists.clone()));
    let (good, bad) = (listed(&lists.uri("1"), 0), listed(&lists.uri("1"), 1));
    assert_eq!(status_at(&guard, &good).await, 503);
    assert_eq!(lists.asked("1"), 0, "nobody has verified the URI");
    site.lists.watch(ISSUER, &lists.uri("1"));
    eventually("it is fetched", || async { status_at(&guard, &good).await == 200 }).await;
    assert_eq!(status_at(&guard, &bad).await, 401);
}

#[tokio::test]
async fn janssen_has_it_beside_the_other_claims() {
    let lists = Lists::start().await;
    lists.list("1", &[(1, 1)]);
    let names = ClaimNames::default().status_list(StatusPlace::TopLevel);
    let verifier = JwtVerifier::builder().issuer(common::issuer().claim_names(names)).build().unwrap();
    let site = site_of(Arc::new(verifier), |lists| lists).await;
    let beside = |idx: u64| token(json!({"status_list": {"uri": lists.uri("1"), "idx": idx}}));
    assert_eq!((site.status(&beside(0)).await, site.status(&beside(1)).await), (200, 401));
    assert_eq!(site.status(&listed(&lists.uri("1"), 1)).await, 401);
    assert_eq!(site.status(&token(json!({"status_list": {"uri": lists.uri("1")}}))).await, 401);
}

#[tokio::test]
async fn another_issuers_list_is_another_list() {
    let lists = Lists::start().await;
    lists.list("1", &[]);
    let other = tower_revocation::token::Issuer::new("https://other.example/")
        .audience([common::AUDIENCE])
        .algorithms([tower_revocation::token::Algorithm::HS256])
        .keys(tower_revocation::token::Keys::secret(*b"another secret, of thirty-two by"));
    let verifier = JwtVerifier::builder().issuer(common::issuer()).issuer(other).build().unwrap();
    let site = site_of(Arc::new(verifier), |lists| lists).await;
    assert_eq!(site.status(&listed(&lists.uri("1"), 0)).await, 200);
    let claims = Claims::new("https://other.example/").iat(unix()).exp(unix() + 60);
    let claims = claims.status_list("http://127.0.0.1:1/", 0);
    let uri = lists.uri("1");
    let identity = Identity::from_verified(&claims.status_list(&uri, 0));
    // Signed by the first issuer, it says nothing of the other one's tokens.
    assert_eq!(site.lists.check(&identity).await, NO_LIST);
}

#[tokio::test]
async fn time_is_the_clocks_of_the_denylist() {
    let lists = Lists::start().await;
    let now = unix();
    let clock = Arc::new(ManualClock::at(now));
    let mut config = common::config();
    config.denylist.clock = clock.clone();
    let revocations = Revocations::start(tower_revocation::backend::Memory::new(), config).await.unwrap();
    let verifier = Arc::new(verifier());
    let built = StatusLists::builder(Arc::clone(&verifier)).allow_http(true).clock(clock.clone()).build().unwrap();
    let policy = Policy::default().stale(tower_revocation::policy::StaleRequests::Serve);
    let guard = Guard::new(Arc::clone(revocations.denylist()), Verify::new(verifier), policy).status_lists(built);
    lists.list_with("1", &[], json!({"ttl": 300, "exp": now + 250}));
    let pointing = json!({"status_list": {"uri": lists.uri("1"), "idx": 0}});
    let token = token(json!({"exp": now + 9000, "status": pointing}));
    let judged = async || guard.check_parts_or_ask(&request(&token).into_parts().0).await.map(drop);
    assert_eq!(judged().await, Ok(()));
    lists.answers("1", Answer { status: 500, ..Answer::token("") });
    clock.advance(Duration::from_secs(249));
    assert_eq!(judged().await, Ok(()));
    clock.advance(Duration::from_secs(1));
    assert_eq!(judged().await, NO_LIST, "exp is compared on each request");
    // The task sleeps on real time; whoever needs the list wakes it, once it does not wait after a failure.
    lists.list_with("1", &[], json!({"ttl": 300, "iat": now, "exp": now + 9000}));
    eventually("it is fetched anew", || async { judged().await == Ok(()) }).await;
    clock.advance(Duration::from_secs(1000));
    assert_eq!(judged().await, Ok(()), "fetched while the request waited");
    revocations.shutdown().await;
}
