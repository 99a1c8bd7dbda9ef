//! The revocation routes in a Pingora server.
#![cfg(feature = "endpoint")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{Message, Site, bearer, endpoints, good, guard, head};
use tower_revocation::{endpoint::EndpointError, policy::Policy};
use tower_revocation_pingora::RevocationRoutes;

fn basic(id: &str, secret: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// The head of a form's request.
fn form(path: &str, authorization: &str, framing: &str) -> String {
    head(&format!("POST {path}"), &[authorization, framing, "content-type: application/x-www-form-urlencoded"])
}

async fn revoke(site: &Site, path: &str, authorization: &str, body: &str) -> Message {
    let mut connection = site.connect().await;
    connection.send(form(path, authorization, &format!("content-length: {}", body.len())) + body).await;
    connection.answer().await
}

#[tokio::test]
async fn what_the_route_revokes_the_guard_refuses() {
    let site = Site::new().await;
    let token = good();
    let mut connection = site.connect().await;
    assert_eq!(connection.get(&token).await.status(), 200);
    let body = format!("token={token}");
    let request = form("/oauth/revoke", &basic("app", "secret"), &format!("content-length: {}", body.len()));
    connection.send(request + &body).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status(), answer.header("cache-control")), (200, Some("no-store")));
    assert_eq!(answer.text(), "");
    // On the same connection.
    assert_eq!(connection.get(&token).await.status(), 401);
    assert_eq!(site.upstream.take().len(), 1);
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_or_on_demand() {
    let site = Site::new().await;
    let token = good();
    let body = format!("token={token}");
    let (left, right) = body.split_at(20);
    let mut connection = site.connect().await;
    connection.send(form("/oauth/revoke", &basic("app", "secret"), "transfer-encoding: chunked")).await;
    connection.send(format!("{:x}\r\n{left}\r\n", left.len())).await;
    connection.send(format!("{:x}\r\n{right}\r\n0\r\n\r\n", right.len())).await;
    assert_eq!(connection.answer().await.status(), 200);
    assert_eq!(connection.get(&token).await.status(), 401);

    let token = common::token(serde_json::json!({"jti": "2"}));
    let body = format!("token={token}");
    let framing = format!("content-length: {}\r\nexpect: 100-continue", body.len());
    connection.send(form("/oauth/revoke", &basic("app", "secret"), &framing)).await;
    assert_eq!(connection.answer_to_head().await.status(), 100);
    connection.send(body).await;
    assert_eq!(connection.answer().await.status(), 200);
    assert_eq!(connection.get(&token).await.status(), 401);
    assert!(site.upstream.take().is_empty());
}

#[tokio::test]
async fn a_body_without_an_end_closes_the_connection() {
    let site = Site::new().await;
    let mut connection = site.connect().await;
    connection.send(form("/oauth/revoke", &basic("app", "secret"), "transfer-encoding: chunked")).await;
    connection.send(head("x\r\nGET /smuggled", &[&bearer(&good())])).await;
    let answer = connection.answer().await;
    assert_eq!((answer.status(), answer.header("connection")), (400, Some("close")));
    assert!(connection.is_closed().await);
    assert!(site.upstream.take().is_empty());
}

#[tokio::test]
async fn nothing_of_a_route_reaches_the_upstream() {
    let site = Site::new().await;
    let body = format!("token={}", good());
    let app = basic("app", "secret");
    for (path, authorization, status) in [
        ("/oauth/revoke", &*basic("app", "wrong"), 401),
        ("/oauth/revoke", &*bearer(&good()), 401),
        ("http://test/oauth/revoke", &*app, 200),
        ("/oauth//revoke", &*app, 400),
        ("/oauth/%72evoke", &*app, 400),
        ("http://test/oauth/revoke/", &*app, 400),
    ] {
        assert_eq!(revoke(&site, path, authorization, &body).await.status(), status, "{path} {authorization}");
    }
    let too_much = "token=".to_owned() + &"x".repeat(1 << 20);
    assert_eq!(revoke(&site, "/oauth/revoke", &app, &too_much).await.status(), 413);
    assert_eq!(site.connect().await.ask("GET /oauth/revoke", &[]).await.status(), 405);
    assert!(site.upstream.take().is_empty());
    assert_eq!(site.connect().await.ask("GET /oauth/revoked", &[]).await.status(), 200);
    assert_eq!(site.upstream.take().len(), 1);
}

/// Whoever guesses is known by the address, whatever the client that is guessed at.
#[tokio::test]
async fn failures_count_by_peer() {
    let site = Site::new().await;
    let mut last = 401;
    for guess in 0..20 {
        last = revoke(&site, "/oauth/revoke", &basic(&format!("app-{guess}"), "guess"), "token=x").await.status();
        if last != 401 {
            break;
        }
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn routes_that_write_to_another_list_are_none() {
    let (ours, theirs) = (Site::new().await, Site::new().await);
    let guard = guard(ours.revocations.denylist().clone(), Policy::default());
    assert!(RevocationRoutes::new(&guard, endpoints(&ours.revocations)).is_ok());
    let error = RevocationRoutes::new(&guard, endpoints(&theirs.revocations)).unwrap_err();
    assert_eq!(error, EndpointError::OtherDenylist);
}
