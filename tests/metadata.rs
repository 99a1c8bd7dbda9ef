//! The endpoints in an authorization server's metadata, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, extract::Request, response::Response};
use common::{Answer, ISSUER, get, raw, verifier};
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tower_revocation::{
    RevocationLayer,
    directory::ClaimsOnly,
    endpoint::{
        Clients, EndpointError, EndpointName, Endpoints, FrontLayer, GlobalEndpoint, Profile, RegisteredClient,
        SecretMethod, SessionEndpoint, TokenEndpoint, metadata::Metadata,
    },
    token::Verify,
};

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";
/// With what a careless reader would spoil: an order, a long number, spaces, an escape.
const THEIRS: &str = r#"{"issuer": "https://as.example", "z":1,
  "revocation_endpoint":"https://as.example/theirs", "n":1.00000000000000000000001, "a":["\u00e9", 12345678901234567890123],
  "mtls_endpoint_aliases": {"token_endpoint":"https://mtls.as.example/token","revocation_endpoint":"x"}, "last":null}"#;

type Seen = Arc<Mutex<Vec<(Method, String, HeaderMap)>>>;

struct Server {
    address: SocketAddr,
    seen: Seen,
}

fn document(headers: &[(&str, &str)], body: &'static str) -> impl Fn() -> Response + Clone + Send + Sync + 'static {
    let headers: Vec<(String, String)> = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    move || {
        let mut response = Response::builder();
        for (name, value) in &headers {
            response = response.header(name, value);
        }
        response.body(Body::from(body)).unwrap()
    }
}

async fn server(
    metadata: Metadata,
    token: bool,
    behind: impl Fn() -> Response + Clone + Send + Sync + 'static,
) -> Server {
    server_with(metadata, behind, |endpoints, clients| {
        if token { endpoints.token(TokenEndpoint::new(verifier(), clients)) } else { endpoints }
    })
    .await
}

async fn server_with(
    metadata: Metadata,
    behind: impl Fn() -> Response + Clone + Send + Sync + 'static,
    add: impl FnOnce(Endpoints, Clients) -> Endpoints,
) -> Server {
    let revocations = common::revocations().await;
    let client = RegisteredClient::confidential("app", "secret", SecretMethod::Basic).issuers([ISSUER]);
    let clients = Clients::new().client(client).unwrap();
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let endpoints = add(Endpoints::new(revocations), clients);
    let layer = FrontLayer::new(check, endpoints).unwrap().metadata(metadata).unwrap();
    let seen = Seen::default();
    let record = seen.clone();
    let inner = move |request: Request| {
        let (head, _) = request.into_parts();
        record.lock().unwrap().push((head.method, head.uri.to_string(), head.headers));
        let answer = behind();
        async move { answer }
    };
    // From outside, so that what HEAD is answered is ours and not the router's.
    let service = tower::Layer::layer(&layer, Router::new().fallback(inner));
    let (listener, address) = common::listen().await;
    let make = axum::ServiceExt::<Request>::into_make_service(service);
    tokio::spawn(async move { axum::serve(listener, make).await });
    Server { address, seen }
}

fn metadata() -> Metadata {
    Metadata::new("https://as.example/")
}

fn json_type() -> [(&'static str, &'static str); 1] {
    [("content-type", "application/json; charset=utf-8")]
}

async fn theirs() -> Server {
    server(metadata(), true, document(&json_type(), THEIRS)).await
}

fn parsed(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()));
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn members_are_added_and_the_others_stay() {
    let metadata = metadata()
        .auth_methods(["client_secret_basic", "private_key_jwt"])
        .signing_algs(["RS256", "none"])
        .mtls_external_url("https://mtls.as.example/");
    let server = server(metadata, true, document(&json_type(), THEIRS)).await;
    let answer = get(server.address, OPENID, &[]).await;
    let expected = r#"{"issuer":"https://as.example","z":1,"revocation_endpoint":"https://as.example/oauth/revoke","n":1.00000000000000000000001,"a":["\u00e9", 12345678901234567890123],"mtls_endpoint_aliases":{"token_endpoint":"https://mtls.as.example/token","revocation_endpoint":"https://mtls.as.example/oauth/revoke"},"last":null,"revocation_endpoint_auth_methods_supported":["client_secret_basic","private_key_jwt"],"revocation_endpoint_auth_signing_alg_values_supported":["RS256"]}"#;
    assert_eq!(answer.body, expected);
    parsed(&answer);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
}

#[tokio::test]
async fn algorithms_only_where_a_method_signs() {
    let metadata = metadata().auth_methods(["client_secret_basic"]).signing_algs(["RS256"]);
    let server = server(metadata, true, document(&json_type(), "{}")).await;
    let json = parsed(&get(server.address, OAUTH, &[]).await);
    assert_eq!(
        json,
        json!({
            "revocation_endpoint": "https://as.example/oauth/revoke",
            "revocation_endpoint_auth_methods_supported": ["client_secret_basic"],
        })
    );
}

#[tokio::test]
async fn every_place_of_a_document() {
    let server = theirs().await;
    for path in [
        OAUTH,
        OPENID,
        "/.well-known/oauth-authorization-server/tenant1",
        "/.well-known/openid-configuration/tenant1/x",
        "/jans-auth/.well-known/openid-configuration",
    ] {
        let json = parsed(&get(server.address, path, &[]).await);
        assert_eq!(json["revocation_endpoint"], "https://as.example/oauth/revoke", "{path}");
    }
    for path in ["/.well-known/oauth-authorization-serverx", "/.well-known/other", "/"] {
        assert_eq!(get(server.address, path, &[]).await.body, THEIRS, "{path}");
    }
}

/// In no profile, whoever would answer; endpoints that this layer does not have are none of its business.
#[tokio::test]
async fn switched_off_is_not_advertised() {
    let theirs = document(
        &json_type(),
        r#"{"issuer":"i","revocation_endpoint":"a","revocation_endpoint_auth_methods_supported":["none"],
            "revocation_endpoint_auth_signing_alg_values_supported":["RS256"],"session_revocation_endpoint":"b",
            "global_token_revocation_endpoint":"c","global_token_revocation_endpoint_auth_methods_supported":["x"],
            "mtls_endpoint_aliases":{"token_endpoint":"t","revocation_endpoint":"a"}}"#,
    );
    let none = server(metadata(), false, theirs.clone()).await;
    let json = parsed(&get(none.address, OAUTH, &[]).await);
    assert_eq!(
        (&json["revocation_endpoint"], &json["mtls_endpoint_aliases"]["revocation_endpoint"]),
        (&json!("a"), &json!("a"))
    );

    for profile in [Profile::Standard, Profile::Janssen] {
        let everything = |endpoints: Endpoints, clients: Clients| {
            let endpoints = endpoints.profile(profile).token(TokenEndpoint::new(verifier(), clients.clone()));
            let endpoints = endpoints
                .session(SessionEndpoint::new(ClaimsOnly, [ISSUER], clients.clone()))
                .global(GlobalEndpoint::new(ClaimsOnly, [ISSUER], clients));
            EndpointName::ALL.into_iter().for_each(|endpoint| endpoints.switches().set(endpoint, false));
            endpoints
        };
        let metadata = || metadata().mtls_external_url("https://mtls.as.example").auth_methods(["client_secret_basic"]);
        let off = server_with(metadata(), theirs.clone(), everything).await;
        let json = parsed(&get(off.address, OAUTH, &[]).await);
        assert_eq!(json, json!({"issuer": "i", "mtls_endpoint_aliases": {"token_endpoint": "t"}}), "{profile:?}");
        // Nor does an empty object stay.
        let only = document(&json_type(), r#"{"mtls_endpoint_aliases":{"revocation_endpoint":"a"}}"#);
        let off = server_with(metadata(), only, everything).await;
        assert_eq!(parsed(&get(off.address, OAUTH, &[]).await), json!({}), "{profile:?}");
        let alone = server_with(metadata().alone(true), theirs.clone(), everything).await;
        assert_eq!(parsed(&get(alone.address, OAUTH, &[]).await), json!({"issuer": "https://as.example/"}));
    }
}

/// The global endpoint's body is JSON, and it takes no public client.
#[tokio::test]
async fn methods_are_advertised_where_they_work() {
    let methods = ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "none"];
    let metadata = metadata().auth_methods(methods).signing_algs(["ES256"]);
    let global = |endpoints: Endpoints, clients: Clients| {
        let endpoints = endpoints.token(TokenEndpoint::new(verifier(), clients.clone()));
        endpoints.global(GlobalEndpoint::new(ClaimsOnly, [ISSUER], clients))
    };
    let server = server_with(metadata, document(&json_type(), "{}"), global).await;
    let json = parsed(&get(server.address, OAUTH, &[]).await);
    assert_eq!(json["revocation_endpoint_auth_methods_supported"], json!(methods));
    let works = json!(["client_secret_basic", "tls_client_auth"]);
    assert_eq!(json["global_token_revocation_endpoint_auth_methods_supported"], works);
}

/// RFC 7009 §2: an http URI must not be published.
#[tokio::test]
async fn plain_http_is_not_published() {
    let revocations = common::revocations().await;
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let layer = FrontLayer::new(check, Endpoints::new(revocations)).unwrap();
    let built = |metadata: Metadata| layer.clone().metadata(metadata).err();
    let mtls = |url: &str| metadata().mtls_external_url(url);
    for url in ["http://as.example", "HTTP://as.example:8080/", "http://127.0.0.1.example", "http://localhost.example"]
    {
        let refused = EndpointError::PlainHttp { url: url.trim_end_matches('/').to_owned() };
        assert_eq!(built(Metadata::new(url)), Some(refused.clone()), "{url}");
        assert_eq!(built(mtls(url)), Some(refused), "{url}");
        assert_eq!(built(Metadata::new(url).allow_plain_http()), None, "{url}");
    }
    for url in [
        "https://as.example",
        "https://as.example/base/",
        "http://127.0.0.1:3000",
        "http://127.8.9.1",
        "http://[::1]:80",
        "http://LOCALHOST:3000",
    ] {
        assert_eq!((built(Metadata::new(url)), built(mtls(url))), (None, None), "{url}");
    }
    for url in [
        "",
        "as.example",
        "/oauth",
        "//as.example",
        "ftp://as.example",
        "https://",
        "https:///x",
        "https://as.example?a=b",
        "https://as.example#a",
        "https://user:pass@as.example",
        "https://as example",
    ] {
        let refused = EndpointError::Url { url: url.trim_end_matches('/').to_owned() };
        assert_eq!(built(Metadata::new(url).allow_plain_http()), Some(refused), "{url}");
    }
}

#[tokio::test]
async fn behind_is_asked_for_a_whole_and_readable_document() {
    let server = theirs().await;
    let headers = [
        "accept-encoding: gzip",
        "if-none-match: \"x\"",
        "if-modified-since: Fri, 20 Nov 2026 20:00:00 GMT",
        "range: bytes=0-3",
        "if-range: \"x\"",
        "cookie: a=b",
    ];
    parsed(&get(server.address, OAUTH, &headers).await);
    let seen = server.seen.lock().unwrap();
    let (_, _, headers) = &seen[0];
    assert_eq!(headers["accept-encoding"], "identity");
    for gone in ["if-none-match", "if-modified-since", "range", "if-range"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert_eq!(headers["cookie"], "a=b");
}

#[tokio::test]
async fn the_entity_tag_is_that_of_the_document() {
    let headers = [
        ("content-type", "application/json"),
        ("etag", "\"theirs\""),
        ("last-modified", "Fri, 20 Nov 2026 20:00:00 GMT"),
        ("cache-control", "max-age=60"),
    ];
    let server = server(metadata(), true, document(&headers, THEIRS)).await;
    let answer = get(server.address, OAUTH, &[]).await;
    let tag = answer.header("etag").unwrap().to_owned();
    assert_ne!(tag, "\"theirs\"");
    assert_eq!((answer.header("last-modified"), answer.header("cache-control")), (None, Some("max-age=60")));
    for known in [tag.clone(), format!("W/{tag}"), format!("\"a\", {tag}"), "*".to_owned()] {
        let answer = get(server.address, OAUTH, &[&format!("if-none-match: {known}")]).await;
        assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{known}");
        assert_eq!((answer.header("etag"), answer.header("cache-control")), (Some(&*tag), Some("max-age=60")));
    }
    for other in ["\"theirs\"", "\"\""] {
        assert_eq!(get(server.address, OAUTH, &[&format!("if-none-match: {other}")]).await.status, 200);
    }
}

#[tokio::test]
async fn head_tells_the_length() {
    let server = theirs().await;
    let full = get(server.address, OAUTH, &[]).await;
    let request = format!("HEAD {OAUTH} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let answer = raw(server.address, request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    for name in ["content-length", "etag", "content-type"] {
        assert_eq!(answer.header(name), full.header(name), "{name}");
    }
}

#[tokio::test]
async fn other_methods_pass() {
    let server = theirs().await;
    let request = format!("POST {OAUTH} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(raw(server.address, request).await.body, THEIRS);
}

#[tokio::test]
async fn a_document_of_our_own_where_there_is_none() {
    let absent = || Response::builder().status(404).body(Body::from("none")).unwrap();
    let issuer = metadata().issuer("https://as.example/tenant");
    let server = server(issuer.clone(), true, absent).await;
    let expected =
        json!({"issuer": "https://as.example/tenant", "revocation_endpoint": "https://as.example/oauth/revoke"});
    assert_eq!(parsed(&get(server.address, OAUTH, &[]).await), expected);
    assert_eq!(parsed(&get(server.address, OPENID, &[]).await), expected);
    // Nothing is known of other issuers.
    assert_eq!(get(server.address, "/.well-known/oauth-authorization-server/x", &[]).await.status, 404);

    let alone = self::server(issuer.alone(true), true, document(&json_type(), THEIRS)).await;
    assert_eq!(parsed(&get(alone.address, OAUTH, &[]).await), expected);
    assert!(alone.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_readable_document_passes_untouched() {
    for (headers, body) in [
        (&[("content-type", "text/html")][..], "<html>"),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], "{}"),
        (&json_type(), "[1]"),
        (&json_type(), r#"{"a":1,"a":2}"#),
        (&json_type(), "{"),
    ] {
        let server = server(metadata(), true, document(headers, body)).await;
        let answer = get(server.address, OAUTH, &[]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{headers:?}");
    }
    let failing =
        || Response::builder().status(500).header("content-type", "application/json").body("{}".into()).unwrap();
    let server = server(metadata(), true, failing).await;
    assert_eq!(
        (get(server.address, OAUTH, &[]).await.status, &*get(server.address, OAUTH, &[]).await.body),
        (500, "{}")
    );
}

#[tokio::test]
async fn an_endless_document_is_not_kept() {
    let endless = || {
        let chunks =
            futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1 << 16])));
        Response::builder().header("content-type", "application/json").body(Body::from_stream(chunks)).unwrap()
    };
    let server = server(metadata(), true, endless).await;
    assert_eq!(get(server.address, OAUTH, &[]).await.status, 502);
}
