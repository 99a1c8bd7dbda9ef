//! The forward-auth door, line by line of what gateways send and understand (`docs/gateways/README.md`), in raw bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod site;

use serde_json::json;
use site::{
    Daemon, Site, bearer, eventually, get, send,
    store::Store,
    token::{token, token_with},
    wire::{Answer, Wire, head, post_form},
};

async fn check(site: &Site, method: &str, target: &str, lines: &[&str]) -> Answer {
    send(site.daemon.check, head(method, target, lines)).await
}

#[tokio::test]
async fn any_method_and_path_under_check_is_a_check() {
    let site = Site::new("").await;
    let (good, bad) = (token("good"), token("bad"));
    site.daemon.revoke(&bad).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"] {
        for target in ["/check", "/check/", "/check/echo", "/check/a/b?c=%2e", "/check?a=1"] {
            let passed = send(site.daemon.check, head(method, target, &[&bearer(&good)])).await;
            // The answer to HEAD has no body, and its head is the same.
            assert_eq!(passed.status, 200, "{method} {target}");
            let mut wire = Wire::to(site.daemon.check).await;
            wire.write(head(method, target, &[&bearer(&bad)])).await;
            assert_eq!(wire.head().await.status, 401, "{method} {target}");
        }
    }
}

#[tokio::test]
async fn nothing_but_checks_is_answered_there() {
    let site = Site::new("").await;
    let bad = token("bad");
    for target in ["/", "/checks", "/chec", "//check", "/x/check", "/oauth/revoke", "/metrics", "/%63heck", "/livez"] {
        assert_eq!(get(site.daemon.check, target, &[]).await.status, 404, "{target}");
    }
    // A revocation is no check, wherever it is sent.
    assert_eq!(Daemon::revoke_at(site.daemon.check, &bad).await.status, 404);
    let answer = post_form(site.daemon.check, "/check/oauth/revoke", &[], &format!("token={bad}")).await;
    assert_ne!(answer.status, 401, "judged, and revokes nothing: {}", answer.text());
    assert_eq!(get(site.daemon.check, "/check", &[&bearer(&bad)]).await.status, 200);
    assert_eq!(site.upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_revocation_that_a_gateway_would_pass_on_is_refused_by_name() {
    let site = Site::new("").await;
    for lines in [
        ["x-forwarded-method: POST", "x-forwarded-uri: /oauth/revoke"],
        ["x-original-method: POST", "x-original-uri: /oauth/revoke?a=b"],
        ["x-original-method: POST", "x-original-url: /oauth/./revoke"],
        ["x-forwarded-method: POST", "x-forwarded-uri: /oauth//revoke"],
    ] {
        let answer = get(site.daemon.check, "/check", &lines).await;
        assert_eq!((answer.status, answer.text().contains("misrouted")), (403, true), "{lines:?}: {}", answer.text());
    }
    eventually("the log says so too", async || site.daemon.says("route the path to revoked")).await;
}

#[tokio::test]
async fn the_original_request_is_told_by_headers_in_order() {
    // A token in the query counts, so that it shows which of the headers was read.
    let site = Site::new("").await;
    let good = bearer(&token("good"));
    let with = "?access_token=x";
    let rows: [(&[String], &str, u16); 7] = [
        (&[format!("x-forwarded-uri: /{with}")], "/check", 401),
        (&[format!("x-original-uri: /{with}")], "/check", 401),
        (&[format!("x-original-url: /{with}")], "/check", 401),
        (&["x-forwarded-uri: /".to_owned(), format!("x-original-uri: /{with}")], "/check", 200),
        (&["x-original-uri: /".to_owned(), format!("x-original-url: /{with}")], "/check", 200),
        (&["x-forwarded-uri: /".to_owned()], "/check/?access_token=x", 200),
        (&[], "/check/?access_token=x", 401),
    ];
    for (lines, target, status) in rows {
        let lines: Vec<_> = lines.iter().map(String::as_str).chain([good.as_str()]).collect();
        assert_eq!(get(site.daemon.check, target, &lines).await.status, status, "{lines:?} {target}");
    }
}

#[tokio::test]
async fn what_cannot_be_told_for_certain_is_refused() {
    let site = Site::new("").await;
    let good = bearer(&token("good"));
    for lines in [
        vec!["x-forwarded-uri: /a", "x-forwarded-uri: /b"],
        vec!["x-forwarded-method: GET", "x-forwarded-method: POST"],
        vec!["x-forwarded-uri: not a target"],
        vec!["x-forwarded-method: G E T"],
        vec!["x-forwarded-uri: /\u{e9}"],
    ] {
        let answer = get(site.daemon.check, "/check", &[&lines[..], &[&good]].concat()).await;
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some("Bearer error=\"invalid_request\"")),
            "{lines:?}"
        );
    }
}

#[tokio::test]
async fn a_pass_is_200_without_a_body_and_with_every_identity_header() {
    let site = Site::new("").await;
    let session = token_with(json!({"jti": "s", "sub": "alice", "sid": "session-1"}));
    let answer = get(site.daemon.check, "/check", &[&bearer(&session), "x-auth-subject: mallory"]).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(
        (answer.headers("x-auth-subject"), answer.headers("x-auth-session")),
        (vec!["alice"], vec!["session-1"])
    );

    // Also where there is nothing to say: Caddy 2.6 puts its own placeholder there, and Envoy leaves the client's.
    let answer = get(site.daemon.check, "/check", &["x-auth-subject: mallory"]).await;
    assert_eq!(
        (answer.status, answer.headers("x-auth-subject"), answer.headers("x-auth-session")),
        (200, vec![""], vec![""])
    );
}

#[tokio::test]
async fn a_refusal_is_401_with_a_challenge_and_never_another_code() {
    let site = Site::new("").await;
    let (good, bad) = (token("good"), token("bad"));
    site.daemon.revoke(&bad).await;
    let rows: [(&str, Vec<String>, &str); 11] = [
        ("revoked", vec![bearer(&bad)], "invalid_token"),
        ("forged", vec![bearer(&format!("{good}x"))], "invalid_token"),
        ("two headers, revoked second", vec![bearer(&good), bearer(&bad)], "invalid_request"),
        ("two headers, revoked first", vec![bearer(&bad), bearer(&good)], "invalid_request"),
        ("joined by a comma", vec![format!("authorization: Bearer {bad},Bearer {good}")], "invalid_request"),
        (
            "joined by a comma and a space",
            vec![format!("authorization: Bearer {good}, Bearer {bad}")],
            "invalid_request",
        ),
        ("lower-case", vec![format!("authorization: bearer {bad}")], "invalid_token"),
        ("two spaces", vec![format!("authorization: Bearer  {bad}")], "invalid_token"),
        ("a tab", vec![format!("authorization: Bearer\t{bad}")], "invalid_token"),
        ("garbage", vec!["authorization: ,,,".into()], "invalid_request"),
        ("in the query", vec![format!("x-forwarded-uri: /?access_token={bad}")], "invalid_request"),
    ];
    for (name, lines, error) in rows {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let answer = get(site.daemon.check, "/check", &lines).await;
        assert_eq!(answer.status, 401, "{name}");
        let challenges = answer.headers("www-authenticate");
        assert_eq!(challenges.len(), 1, "{name}: {challenges:?}");
        assert!(challenges[0].starts_with(&format!("Bearer error=\"{error}\"")), "{name}: {challenges:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["error"], error, "{name}");
        // A gateway that copies them from any answer must not keep the client's.
        assert_eq!(answer.headers("x-auth-subject"), [""], "{name}");
        assert!(
            answer.head.lines().skip(1).all(|line| !line.contains(char::is_uppercase) || line.contains(": ")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_request_of_grpc_is_refused_in_http() {
    let site = Site::new("").await;
    let bad = token("bad");
    site.daemon.revoke(&bad).await;
    let answer = get(site.daemon.check, "/check", &[&bearer(&bad), "content-type: application/grpc"]).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (401, None));
}

#[tokio::test]
async fn bodies_and_their_headers_do_not_matter() {
    let site = Site::new("\n[tokens]\nsources = [\"bearer\", \"form\"]\n").await;
    let good = bearer(&token("good"));
    let form = "content-type: application/x-www-form-urlencoded";
    assert_eq!(check(&site, "POST", "/check/x", &[&good, form, "content-length: 0"]).await.status, 200);
    assert_eq!(post_form(site.daemon.check, "/check", &[&good], "access_token=not-looked-at").await.status, 200);
    // nginx keeps the content type of the original request, and sends no body.
    assert_eq!(
        check(&site, "GET", "/check", &[&good, "content-type: multipart/form-data; boundary=x"]).await.status,
        200
    );
}

#[tokio::test]
async fn connections_are_kept_also_after_a_refusal() {
    let site = Site::new("").await;
    let mut wire = Wire::to(site.daemon.check).await;
    for (token, status) in [("bad", 401), ("worse", 401)] {
        wire.write(format!("GET /check HTTP/1.1\r\nhost: x\r\n{}\r\n\r\n", bearer(token))).await;
        assert_eq!(wire.answer().await.status, status);
    }
    wire.write(format!("GET /check HTTP/1.1\r\nhost: x\r\n{}\r\n\r\n", bearer(&token("good")))).await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn a_stale_list_refuses_with_503_or_serves_as_configured() {
    let mut store = Store::start().await;
    let refuses = Daemon::start("http://127.0.0.1:9", &store.settings("one", "refuse")).await;
    let serves = Daemon::start("http://127.0.0.1:9", &store.settings("two", "serve")).await;
    let (good, bad) = (bearer(&token("good")), token("bad"));
    refuses.revoke(&bad).await;
    let bad = bearer(&bad);
    eventually("the other node has heard", async || get(serves.check, "/check", &[&bad]).await.status == 401).await;
    assert_eq!(get(refuses.check, "/check", &[&good]).await.status, 200);

    store.lose().await;
    eventually("the list is stale", async || get(refuses.check, "/check", &[&good]).await.status == 503).await;
    assert!(get(refuses.check, "/check", &[&good]).await.header("retry-after").is_some());
    assert_eq!(get(refuses.check, "/check", &[]).await.status, 200, "nothing to check");
    eventually("the other has lost touch too", async || serves.says("lost touch")).await;
    assert_eq!(get(serves.check, "/check", &[&good]).await.status, 200);
    assert_eq!(get(serves.check, "/check", &[&bad]).await.status, 401, "what was known stays known");
}
