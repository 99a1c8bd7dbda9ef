//! The guard in a Pingora server, over HTTP/1.1.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{Connection, Site, Upstream, bearer, good, guard, head, serve, token, unix};
use http::{HeaderName, Response, StatusCode};
use serde_json::json;
use tower_revocation::{
    denylist::{Denylist, DenylistConfig, Staleness},
    policy::{NoToken, Policy},
    response::Denial,
    time::ManualClock,
    token::Identity,
};

#[tokio::test]
async fn what_passes_passes_whole() {
    let site = Site::new().await;
    let mut connection = site.connect().await;
    let body = "x".repeat(100_000);
    let bearer = bearer(&good());
    let length = format!("content-length: {}", body.len());
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (framing, sent) in [(&*length, &body), ("transfer-encoding: chunked", &chunked)] {
        connection.send(head("POST /a?b=c", &[&bearer, framing])).await;
        connection.send(sent).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status(), answer.text()), (200, "in"));
        let [seen] = &site.upstream.take()[..] else { panic!("one request") };
        assert!(seen.head.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.header("authorization"), bearer.strip_prefix("authorization: "));
        assert_eq!(seen.text(), body);
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_the_connection_goes_on() {
    let site = Site::new().await;
    let revoked = site.revoked().await;
    let mut connection = site.connect().await;
    for _ in 0..2 {
        let answer = connection.get(&revoked).await;
        assert_eq!(answer.status(), 401);
        assert_eq!(
            answer.header("www-authenticate"),
            Some(r#"Bearer error="invalid_token", error_description="The access token was revoked""#)
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("connection"), Some("keep-alive"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"], "invalid_token");
        assert!(site.upstream.take().is_empty());
        assert_eq!(connection.get(&good()).await.status(), 200);
        assert_eq!(site.upstream.take().len(), 1);
    }
}

#[tokio::test]
async fn a_refused_body_is_read_past() {
    let site = Site::new().await;
    let revoked = bearer(&site.revoked().await);
    let mut connection = site.connect().await;
    // A body that would be a request if it were taken for one.
    let smuggled = head("GET /smuggled", &[&bearer(&good())]);
    let length = format!("content-length: {}", smuggled.len());
    let chunked = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    for (framing, sent) in [(&*length, &smuggled), ("transfer-encoding: chunked", &chunked)] {
        connection.send(head("POST /", &[&revoked, framing])).await;
        // The answer does not wait for the body.
        let answer = connection.answer().await;
        assert_eq!((answer.status(), answer.header("connection")), (401, Some("keep-alive")));
        connection.send(sent).await;
        assert_eq!(connection.get(&good()).await.status(), 200);
        let [seen] = &site.upstream.take()[..] else { panic!("one request") };
        assert!(seen.head.starts_with("GET / "), "{}", seen.head);
    }
}

#[tokio::test]
async fn a_body_that_is_not_worth_reading_closes_the_connection() {
    let site = Site::new().await;
    let revoked = bearer(&site.revoked().await);
    let mebibyte = "x".repeat(1 << 20);

    let mut connection = site.connect().await;
    connection.send(head("POST /", &[&revoked, "content-length: 1048576"])).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status(), answer.header("connection")), (401, Some("close")));
    connection.send(&mebibyte).await;
    assert!(connection.is_closed().await);

    // Nobody knows how long it is before it has come.
    let mut connection = site.connect().await;
    connection.send(head("POST /", &[&revoked, "transfer-encoding: chunked"])).await;
    assert_eq!(connection.answer().await.status(), 401);
    let chunk = format!("100000\r\n{mebibyte}\r\n");
    assert!(connection.cannot_send(&chunk, 100).await);

    // Nobody waits for it for ever.
    let mut connection = site.connect().await;
    connection.send(head("POST /", &[&revoked, "content-length: 5"])).await;
    assert_eq!(connection.answer().await.status(), 401);
    assert!(connection.is_closed().await);

    // Nobody knows where it ends.
    let mut connection = site.connect().await;
    connection.send(head("POST /", &[&revoked, "transfer-encoding: chunked"])).await;
    assert_eq!(connection.answer().await.status(), 401);
    connection.send(head("x\r\nGET /smuggled", &[&bearer(&good())])).await;
    assert!(connection.is_closed().await);

    // Nobody has asked for it.
    let mut connection = site.connect().await;
    connection.send(head("POST /", &[&revoked, "content-length: 5", "expect: 100-continue"])).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status(), answer.header("connection")), (401, Some("close")));
    assert!(connection.is_closed().await);
    assert!(site.upstream.take().is_empty());
}

#[tokio::test]
async fn answers_without_a_body() {
    let none = |_: Denial| {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    };
    let site = Site::new().await;
    let mut connection = site.connect().await;
    connection.send(head("HEAD /", &[&bearer(&site.revoked().await)])).await;
    let answer = connection.answer_to_head().await;
    assert_eq!(answer.status(), 401);
    assert_ne!(answer.header("content-length"), Some("0"));
    assert_eq!(connection.get(&good()).await.text(), "in");

    let site = Site::with(Policy::default(), |guard| guard.deny_with(none)).await;
    let mut connection = site.connect().await;
    let answer = connection.get(&site.revoked().await).await;
    assert_eq!((answer.status(), answer.header("content-length")), (204, None));
    assert_eq!(connection.get(&good()).await.text(), "in");

    let upgrade = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"];
    let revoked = bearer(&site.revoked().await);
    let answer = connection.ask("GET /", &[&[&*revoked], &upgrade[..]].concat()).await;
    assert_eq!(answer.status(), 204);
    assert_eq!(connection.get(&good()).await.text(), "in");
}

/// One credential, wherever it stands and however it is written.
#[tokio::test]
async fn no_spelling_gets_a_revoked_token_through() {
    let site = Site::new().await;
    let (good, revoked) = (good(), site.revoked().await);
    for (status, lines) in [
        (400, vec![bearer(&good), bearer(&revoked)]),
        (400, vec![bearer(&revoked), bearer(&good)]),
        (400, vec![bearer(&good), bearer(&good)]),
        (400, vec![format!("authorization: Bearer {revoked}, Bearer {good}")]),
        (400, vec![format!("authorization: Bearer {good},Bearer {revoked}")]),
        (401, vec![format!("authorization: bearer {revoked}")]),
        (401, vec![format!("AUTHORIZATION: BEARER {revoked}")]),
        (401, vec![format!("authorization: Bearer  {revoked}")]),
        (401, vec![format!("authorization: Bearer\t{revoked}")]),
        (401, vec![format!("authorization:Bearer {revoked}\t ")]),
        (200, vec![format!("authorization: bearer \t {good}")]),
    ] {
        let mut connection = site.connect().await;
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        assert_eq!(connection.ask("GET /", &lines).await.status(), status, "{lines:?}");
        assert_eq!(site.upstream.take().is_empty(), status != 200, "{lines:?}");
        // Whatever it was, the connection goes on.
        assert_eq!(connection.get(&good).await.status(), 200);
        site.upstream.take();
    }
    // Targets of which Pingora shows only `/`.
    for target in ["foo:bar?access_token=x", "foo:bar://test/oauth/revoke", "oauth/revoke", "*?access_token=x"] {
        let mut connection = site.connect().await;
        assert_eq!(connection.ask(&format!("GET {target}"), &[]).await.status(), 400, "{target}");
        assert!(site.upstream.take().is_empty(), "{target}");
        assert_eq!(connection.ask("GET http://test/a", &[]).await.status(), 200);
        assert_eq!(connection.ask("OPTIONS *", &[]).await.status(), 200);
        site.upstream.take();
    }
    for target in ["/?access_token=", "http://test/?access_token=", "http://test?access_token="] {
        let answer = site.connect().await.ask(&format!("GET {target}{revoked}"), &[]).await;
        assert_eq!(answer.status(), 400, "{target}");
        assert!(site.upstream.take().is_empty(), "{target}");
    }
}

#[tokio::test]
async fn requests_without_a_token() {
    for (no_token, status) in [(NoToken::Pass, 200), (NoToken::Deny, 401)] {
        let site = Site::with(Policy::default().no_token(no_token), |guard| guard).await;
        let mut connection = site.connect().await;
        for _ in 0..2 {
            let answer = connection.ask("GET /", &[]).await;
            assert_eq!(answer.status(), status);
            let challenge = (status == 401).then_some(r#"Bearer realm="api""#);
            assert_eq!(answer.header("www-authenticate"), challenge);
        }
        assert_eq!(site.upstream.take().is_empty(), status == 401);
    }
}

#[tokio::test]
async fn a_stale_list_refuses() {
    let clock = Arc::new(ManualClock::at(unix()));
    let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    config.clock = clock.clone();
    let denylist = Arc::new(Denylist::new(config));
    let upstream = Upstream::start().await;
    let address = serve(guard(denylist.clone(), Policy::default()), None, upstream.address).await;
    let mut connection = Connection::to(address).await;
    for when in ["not ready", "stale"] {
        let answer = connection.get(&good()).await;
        assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")), "{when}");
        assert!(answer.text().contains("temporarily_unavailable"));
        assert!(upstream.take().is_empty());
        denylist.in_step_at(denylist.now());
        assert_eq!(connection.get(&good()).await.status(), 200);
        assert_eq!(upstream.take().len(), 1);
        clock.advance(Duration::from_secs(11));
    }
}

#[tokio::test]
async fn the_upstream_is_told_who_calls_by_the_guard_alone() {
    let name = HeaderName::from_static("x-auth-subject");
    let site = Site::with(Policy::default(), |guard| guard.identity_header(name, Identity::sub)).await;
    let mut connection = site.connect().await;
    let spoofed = ["x-auth-subject: root", "X-Auth-Subject: root", "x_auth_subject: root", "X-AUTH_SUBJECT: root"];
    let bob = |sub: &str| bearer(&token(json!({"jti": "1", "sub": sub})));
    for (credential, told) in [
        (bob("bob"), Some("bob")),
        ("x-nothing: at all".to_owned(), None),
        (bob(" root"), None),
        (bob("r\u{f6}\u{f6}t"), None),
        (bob("a\r\nx-b: c"), None),
    ] {
        let lines = [&[&*credential], &spoofed[..]].concat();
        assert_eq!(connection.ask("GET /", &lines).await.status(), 200);
        let [seen] = &site.upstream.take()[..] else { panic!("one request") };
        assert_eq!(seen.header("x-auth-subject"), told);
        assert!(!seen.head.contains("root"), "{}", seen.head);
        assert_eq!(seen.header("x-inserted"), None);
    }
}

#[tokio::test]
async fn later_filters_find_the_identity() {
    let site = Site::with(Policy::default(), |guard| guard.insert_identity(true)).await;
    let mut connection = site.connect().await;
    assert_eq!(connection.get(&good()).await.status(), 200);
    assert_eq!(connection.ask("GET /", &[]).await.status(), 200);
    let seen = site.upstream.take();
    let found: Vec<_> = seen.iter().map(|request| request.header("x-inserted")).collect();
    assert_eq!(found, [Some("alice"), None]);
}

#[tokio::test]
async fn grpc_web_gets_its_status_in_the_head() {
    let site = Site::new().await;
    let revoked = bearer(&site.revoked().await);
    let mut connection = site.connect().await;
    let answer = connection.ask("POST /", &[&revoked, "content-type: application/grpc-web+proto"]).await;
    assert_eq!((answer.status(), answer.header("grpc-status"), answer.text()), (200, Some("16"), ""));
    assert_eq!(connection.get(&good()).await.status(), 200);
}
