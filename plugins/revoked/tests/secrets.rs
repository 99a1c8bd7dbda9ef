//! Whatever is logged, at every level: no token and no secret is in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod admin_common;

use admin_common::{Daemon, SECRET, TOKEN, eventually, http, jwt};
use serde_json::json;

/// The opaque tokens and secrets that are sent.
const OPAQUE: &str = "opaque-5f0d2c9be1a84f6c9a7d";
const WRONG_SECRET: &str = "wr0ng-client-s3cret";
const WRONG_ADMIN: &str = "a-wrong-admin-token-of-these-tests";

#[test]
fn nothing_secret_is_logged_at_any_level() {
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "").env("RUST_LOG", "trace").running();
    let form = "content-type: application/x-www-form-urlencoded";
    let mut tokens = Vec::new();
    let mut fresh = |name: &str| {
        let number = tokens.len();
        tokens.push(jwt(
            json!({ "sub": format!("{name}-{number}"), "jti": format!("jti-{number}"), "sid": number.to_string() }),
        ));
        tokens[number].clone()
    };
    for _ in 0..20 {
        let token = fresh("good");
        assert_eq!(daemon.through(&token), 200);
        // In every place where one may stand, and in many where none may.
        for request in [
            format!("authorization: bearer   {}", fresh("spaces")),
            format!("authorization: DPoP {}", fresh("dpop")),
            format!("authorization: Token {}", fresh("scheme")),
            format!("authorization: Bearer {}, Bearer {}", fresh("two"), fresh("two")),
            format!("authorization: Bearer {}x", fresh("forged")),
            format!("cookie: session={}", fresh("cookie")),
            format!("sec-websocket-protocol: bearer, {}", fresh("socket")),
            format!("authorization: Bearer {OPAQUE}"),
        ] {
            http(daemon.listen, "GET", "/orders/4711", &["host: app", &request], b"");
        }
        http(daemon.listen, "GET", &format!("/orders?access_token={}", fresh("query")), &["host: app"], b"");
        let path = format!("/orders/{}", fresh("path"));
        http(daemon.listen, "GET", &path, &["host: app", "authorization: Bearer x"], b"");
        let basic = "authorization: Basic YXBwOnMzY3JldA==";
        let body = format!("token={token}");
        assert_eq!(
            http(daemon.listen, "POST", "/oauth/revoke", &["host: app", form, basic], body.as_bytes()).status,
            200
        );
        assert_eq!(daemon.through(&token), 401);
        assert_eq!(daemon.call("POST", "/api/v1/check", json!({ "token": fresh("check") })).status, 200);
    }
    // Who shows these more than a few times is turned away unread.
    let wrong = format!("authorization: Bearer {WRONG_ADMIN}");
    assert_eq!(daemon.ask("GET", "/api/v1/status", &[&wrong], "").status, 401);
    let body = format!("token={}&client_id=app&client_secret={WRONG_SECRET}", fresh("body"));
    assert_eq!(http(daemon.listen, "POST", "/oauth/revoke", &["host: app", form], body.as_bytes()).status, 401);
    eventually("refusals are logged", || daemon.log().matches("request refused").count() > 100);
    let log = daemon.log();
    assert!(log.contains("TRACE") && log.contains("DEBUG"), "everything is logged");
    for token in &tokens {
        let signature = token.rsplit('.').next().unwrap();
        let payload = token.split('.').nth(1).unwrap();
        for part in [token.as_str(), signature, payload] {
            let line = log.lines().find(|line| line.contains(part));
            assert!(line.is_none(), "a token is in the log: {}", line.unwrap());
        }
    }
    let secret = String::from_utf8(SECRET.to_vec()).unwrap();
    for secret in [secret.as_str(), TOKEN, OPAQUE, "s3cret", "YXBwOnMzY3JldA", WRONG_SECRET, WRONG_ADMIN] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "a secret is in the log: {}", line.unwrap());
    }
    // What a line says of a refused request.
    let refused = log.lines().find(|line| line.contains("request refused") && line.contains("error.type=\"revoked\""));
    let refused = refused.expect("a line for a revoked token");
    for part in [
        "DEBUG",
        "revocation.door=\"proxy\"",
        "http.request.method=GET",
        "url.path=/",
        "http.response.status_code=401",
        "revocation.issuer=\"https://issuer.example/\"",
        "revocation.scope=",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let forged = log.lines().find(|line| line.contains("request refused") && line.contains("error.type=\"signature\""));
    assert!(!forged.expect("a line for a forged token").contains("revocation.issuer"), "{forged:?}");
    assert!(log.contains("revocation.endpoint"), "what an endpoint logs says that it is one");
}
