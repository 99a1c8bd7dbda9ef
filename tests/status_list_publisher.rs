//! The denylist as a Token Status List, over real sockets.
#![cfg(feature = "status-list")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{io::Read as _, sync::Arc, time::Duration};

use axum::{Router, http::HeaderMap};
use bytes::Bytes;
use common::{AUDIENCE, ISSUER, eventually, revocations, unix};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tower_revocation::{
    Guard, Revocations,
    policy::Policy,
    reject::Rejection,
    revocation::{Revocation, Scope},
    status_list::{IndexError, MemoryIndex, Status, StatusIndex, StatusListPublisher, StatusLists},
    token::{Algorithm, Claims, Identity, Issuer, JwtVerifier, Keys, SigningKey, Verify},
};

fn key() -> SigningKey {
    let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let der = STANDARD.encode(pair.to_pkcs8().unwrap());
    SigningKey::pem(format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")).unwrap()
}

fn identity(jti: &str, sub: &str) -> Identity {
    Identity::from_verified(&Claims::new(ISSUER).jti(jti).sub(sub).sid("s1").iat(unix()).exp(unix() + 600))
}

struct Site {
    revocations: Revocations,
    publisher: Arc<StatusListPublisher>,
    index: Arc<dyn StatusIndex>,
    jwk: String,
    uri: String,
}

impl Site {
    async fn new() -> Self {
        Self::with(Arc::new(MemoryIndex::new(1024))).await
    }

    async fn with(index: Arc<dyn StatusIndex>) -> Self {
        let revocations = revocations().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/statuslists/1", listener.local_addr().unwrap());
        let key = key();
        let jwk = key.public_jwk();
        let denylist = Arc::clone(revocations.denylist());
        let publisher = StatusListPublisher::new(denylist, Arc::clone(&index), key, ISSUER, &uri, 1024)
            .lasting(Duration::from_secs(4), Duration::from_secs(60));
        let publisher = Arc::new(publisher);
        let app = Router::new().route_service("/statuslists/1", publisher.service());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { revocations, publisher, index, jwk, uri }
    }

    async fn ask(&self, method: Method, query: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Bytes) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let mut request = Request::builder().method(method).uri(format!("{}{query}", self.uri));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.unwrap().to_bytes())
    }

    fn verifier(&self) -> Arc<JwtVerifier> {
        let issuer = Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::EdDSA]);
        Arc::new(JwtVerifier::builder().issuer(issuer.keys(Keys::jwks(self.jwk.clone()))).build().unwrap())
    }
}

fn claims(token: &[u8]) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = |at: usize| {
        let token = std::str::from_utf8(token).unwrap();
        serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
    };
    assert_eq!(part(0)["typ"], "statuslist+jwt");
    part(1)
}

#[tokio::test]
async fn what_is_revoked_here_is_invalid_for_a_resource_server_elsewhere() {
    let site = Site::new().await;
    let tokens = [identity("a", "alice"), identity("b", "alice"), identity("c", "carol")];
    let mut indexes = Vec::new();
    for token in &tokens {
        indexes.push(site.index.assign(token).await.unwrap());
    }
    // Another crate's issuer key, another denylist: all that is shared is the list.
    let elsewhere = StatusLists::builder(site.verifier()).allow_http(true).build().unwrap();
    let there = |at: usize| {
        let claims = Claims::new(ISSUER).iat(unix()).exp(unix() + 60).status_list(&site.uri, indexes[at]);
        let (identity, elsewhere) = (Identity::from_verified(&claims), elsewhere.clone());
        async move { elsewhere.check(&identity).await }
    };
    for at in 0..3 {
        assert_eq!(there(at).await, Ok(()), "{at}");
    }
    let _ = site.revocations.revoke(Revocation::new(Scope::token(ISSUER, "a"))).await.unwrap();
    let _ = site.revocations.revoke(Revocation::new(Scope::subject(ISSUER, "carol"))).await.unwrap();
    let invalid = Err(Rejection::Status(Status::INVALID));
    eventually("they are refused there", || async { there(0).await == invalid && there(2).await == invalid }).await;
    assert_eq!(there(1).await, Ok(()));
}

#[tokio::test]
async fn a_token_with_an_index_is_refused_by_a_guard_elsewhere() {
    let site = Site::new().await;
    let token = identity("a", "alice");
    let idx = site.index.assign(&token).await.unwrap();
    let verifier = Arc::new(common::verifier());
    // The tokens' issuer signs with another key here, so that its list is not one of theirs.
    let lists = StatusLists::builder(Arc::clone(&verifier)).allow_http(true).build().unwrap();
    let revocations = revocations().await;
    let guard = Guard::new(Arc::clone(revocations.denylist()), Verify::new(verifier), Policy::default());
    let guard = guard.status_lists(lists);
    let jwt = common::token(json!({"jti": "a", "status": {"status_list": {"uri": site.uri, "idx": idx}}}));
    let request = Request::get("/").header("authorization", format!("Bearer {jwt}")).body(()).unwrap();
    let judged = guard.check_parts_or_ask(&request.into_parts().0).await;
    assert!(matches!(judged, Err(Rejection::Unknown(_))), "{judged:?}");
}

#[tokio::test]
async fn the_list_is_served_as_the_draft_says() {
    let site = Site::new().await;
    let (status, headers, body) = site.ask(Method::GET, "", &[]).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/statuslist+jwt"));
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert!(headers["cache-control"].to_str().unwrap().starts_with("max-age="));
    let list = claims(&body);
    assert_eq!((list["sub"].as_str().unwrap(), list["iss"].as_str().unwrap()), (site.uri.as_str(), ISSUER));
    assert_eq!((list["ttl"].as_u64(), list["status_list"]["bits"].as_u64()), (Some(4), Some(1)));
    assert_eq!(list["exp"].as_u64().unwrap() - list["iat"].as_u64().unwrap(), 60);

    let (_, compressed, coded) = site.ask(Method::GET, "", &[("accept-encoding", "br, gzip;q=0.5")]).await;
    assert_eq!(
        (&compressed["content-encoding"], &compressed["vary"]),
        (&"gzip".parse().unwrap(), &"accept-encoding".parse().unwrap())
    );
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*coded).read_to_end(&mut plain).unwrap();
    assert_eq!(claims(&plain)["sub"], list["sub"]);
    let (_, plain, _) = site.ask(Method::GET, "", &[("accept-encoding", "gzip;q=0")]).await;
    assert!(!plain.contains_key("content-encoding"));

    let (_, headers, _) = site.ask(Method::GET, "", &[]).await;
    let etag = headers["etag"].to_str().unwrap().to_owned();
    let (status, headers, body) = site.ask(Method::GET, "", &[("if-none-match", &etag)]).await;
    // It may have been made anew in between.
    assert!(status == StatusCode::NOT_MODIFIED && body.is_empty() || headers["etag"] != *etag, "{status}");
    let (status, ..) = site.ask(Method::GET, "", &[("if-none-match", "\"other\"")]).await;
    assert_eq!(status, StatusCode::OK);

    let (status, headers, body) = site.ask(Method::HEAD, "", &[]).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert!(headers["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 100);
    for (method, query, accept, expected) in [
        (Method::POST, "", "*/*", 405),
        (Method::GET, "?time=1700000000", "*/*", 501),
        (Method::GET, "?x=1&time=", "*/*", 501),
        (Method::GET, "?x=time", "*/*", 200),
        (Method::GET, "", "application/statuslist+cwt", 406),
        (Method::GET, "", "text/html, application/statuslist+jwt", 200),
        (Method::GET, "", "application/*", 200),
    ] {
        let (status, ..) = site.ask(method.clone(), query, &[("accept", accept)]).await;
        assert_eq!(status, expected, "{method} {query} {accept}");
    }
}

#[tokio::test]
async fn a_change_makes_it_anew_and_an_unchanged_one_is_kept() {
    let site = Site::new().await;
    let idx = site.index.assign(&identity("a", "alice")).await.unwrap();
    let lst = || async { claims(site.publisher.token().await.unwrap().as_bytes())["status_list"]["lst"].clone() };
    let before = lst().await;
    let _ = site.revocations.revoke(Revocation::new(Scope::session(ISSUER, "s1"))).await.unwrap();
    eventually("the list is another", || async { lst().await != before }).await;
    let list = tower_revocation::status_list::StatusList::decompress(
        tower_revocation::status_list::Bits::ONE,
        lst().await.as_str().unwrap(),
        1 << 20,
    )
    .unwrap();
    assert_eq!(list.get(idx), Some(Status::INVALID));
    assert_eq!((0..1024).filter(|idx| list.get(*idx) == Some(Status::INVALID)).count(), 1);
}

#[tokio::test]
async fn a_node_that_does_not_know_publishes_nothing() {
    let site = Site::new().await;
    assert_eq!(site.ask(Method::GET, "", &[]).await.0, StatusCode::OK);
    site.revocations.shutdown().await;
    eventually("it answers 503", || async {
        let (status, headers, _) = site.ask(Method::GET, "", &[]).await;
        status == StatusCode::SERVICE_UNAVAILABLE && headers.contains_key("retry-after")
    })
    .await;
}

async fn an_index_that_holds(index: &dyn StatusIndex, entries: u64) {
    let (a, b) = (identity("a", "alice"), identity("b", "alice"));
    index.record(3, &a).await.unwrap();
    index.record(3, &a).await.unwrap();
    assert_eq!(index.record(3, &b).await, Err(IndexError::Taken));
    assert_eq!(index.record(entries, &b).await, Err(IndexError::OutOfRange));
    let endless = Identity::from_verified(&Claims::new(ISSUER).jti("x"));
    assert_eq!(index.record(4, &endless).await, Err(IndexError::NoExpiry));
    let idx = index.assign(&b).await.unwrap();
    assert!(idx < entries && idx != 3);
    let mut assigned = index.assigned(unix()).await.unwrap();
    assigned.sort_by_key(|(idx, _)| *idx);
    let mut expected = vec![(3, a.clone()), (idx, b)];
    expected.sort_by_key(|(idx, _)| *idx);
    assert_eq!(assigned, expected);
    assert_eq!(index.assigned(unix() + 24 * 60 * 60).await.unwrap(), []);
}

#[tokio::test]
async fn an_index_holds_one_token_until_it_has_expired() {
    an_index_that_holds(&MemoryIndex::new(64), 64).await;
    let full = MemoryIndex::new(1);
    full.assign(&identity("a", "alice")).await.unwrap();
    assert_eq!(full.assign(&identity("b", "alice")).await, Err(IndexError::Full));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_index_on_disk_is_there_again_after_a_restart() {
    use tower_revocation::status_list::SqliteIndex;
    let folder = tempfile::tempdir().unwrap();
    let open = || SqliteIndex::open(folder.path().join("index.db"), 64);
    an_index_that_holds(&open().await.unwrap(), 64).await;
    let index = open().await.unwrap();
    let claims = Claims::new(ISSUER).signing_input([7; 32]).sid("s").sub("a").client_id("c");
    let token = Identity::from_verified(&claims.iat(unix()).auth_time(unix() - 9).exp(unix() + 600));
    let idx = index.assign(&token).await.unwrap();
    drop(index);
    assert_eq!(open().await.unwrap().assigned(unix()).await.unwrap(), [(idx, token)]);
    let full = SqliteIndex::open(folder.path().join("full.db"), 1).await.unwrap();
    full.assign(&identity("a", "alice")).await.unwrap();
    assert_eq!(full.assign(&identity("b", "alice")).await, Err(IndexError::Full));
    assert!(SqliteIndex::open(folder.path().join("no/such/index.db"), 1).await.is_err());
}
