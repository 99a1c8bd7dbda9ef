//! Introspection (RFC 7662) and lists in files, through the daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod site;

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use site::{
    Answer, Daemon, Upstream, bearer, eventually, get,
    token::{ISSUER, token, token_with, unix},
    wire::post_form,
};

fn basic(client: &str) -> String {
    format!("authorization: Basic {}", STANDARD.encode(client))
}

async fn ask(daemon: &Daemon, path: &str, token: &str) -> Answer {
    post_form(daemon.main, path, &[&basic("app:s3cret")], &format!("token={token}")).await
}

/// Asks the server behind about opaque tokens.
fn settings(upstream: &Upstream) -> String {
    format!(
        "[introspection]\nurl = \"{}/introspect\"\nallow_http = true\nclient_id = \"gateway\"\nclient_secret = \"s3cret\"\n",
        upstream.url()
    )
}

fn active(claims: &Value) -> String {
    let mut all = json!({"active": true, "iss": ISSUER, "sub": "alice", "client_id": "app", "iat": unix() - 5, "exp": unix() + 600});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.to_string()
}

#[tokio::test]
async fn every_door_asks_the_issuer_about_opaque_tokens() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::start(&upstream.url(), &settings(&upstream)).await;
    upstream.answers("/introspect", 200, "application/json", active(&json!({"sid": "s"})));
    assert_eq!(daemon.with_token("opaque-1").await.status, 200);
    assert_eq!(get(daemon.check, "/check", &[&bearer("opaque-2")]).await.status, 200);
    let asked = || upstream.requests().iter().filter(|request| request.target == "/introspect").count();
    assert_eq!(asked(), 2);
    assert_eq!(daemon.with_token("opaque-2").await.status, 200, "one answer for all doors");
    assert_eq!(asked(), 2);
    // Revoked by its client, and refused from the next request on.
    daemon.revoke("opaque-1").await;
    assert_eq!(daemon.with_token("opaque-1").await.status, 401);
    assert_eq!(daemon.with_token("opaque-2").await.status, 200);
    assert_eq!(asked(), 2);
    upstream.answers("/introspect", 200, "application/json", "{\"active\":false}");
    assert_eq!(daemon.with_token("opaque-3").await.status, 401);
    upstream.answers("/introspect", 200, "text/html", "<html>true</html>");
    assert_eq!(get(daemon.check, "/check", &[&bearer("opaque-4")]).await.status, 503);
    assert!(daemon.says("introspection failed"));
    assert!(!daemon.says("opaque-4"), "a token is in the log");
}

#[tokio::test]
async fn it_is_asked_itself() {
    let upstream = Upstream::start().await;
    let daemon = Daemon::start(&upstream.url(), "[endpoints.introspection]\nenabled = true\n").await;
    let good = token_with(json!({"jti": "good", "scope": "read"}));
    let told: Value = serde_json::from_str(&ask(&daemon, "/oauth/introspect", &good).await.text()).unwrap();
    assert_eq!((&told["active"], &told["jti"], &told["scope"]), (&json!(true), &json!("good"), &json!("read")));
    assert_eq!(ask(&daemon, "/oauth/introspect", "unknown").await.text(), "{\"active\":false}");
    assert_eq!(post_form(daemon.main, "/oauth/introspect", &[], "token=x").await.status, 401);
    daemon.revoke(&good).await;
    let answer = ask(&daemon, "/oauth/introspect", &good).await;
    assert_eq!((answer.status, answer.text()), (200, "{\"active\":false}".to_owned()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let document = "/.well-known/oauth-authorization-server";
    upstream.answers(document, 200, "application/json", format!("{{\"issuer\":\"{ISSUER}\"}}"));
    let metadata = get(daemon.main, document, &[]).await;
    assert!(metadata.text().contains("/oauth/introspect\""), "{}", metadata.text());
    assert!(upstream.requests().iter().all(|request| request.target != "/oauth/introspect"));
}

#[tokio::test]
async fn it_stands_in_front_of_one_that_is_asked() {
    let upstream = Upstream::start().await;
    let overlay = "[endpoints.introspection]\nenabled = true\nmode = \"overlay\"\npath = \"/theirs\"\n";
    let daemon = Daemon::start(&upstream.url(), overlay).await;
    let good = token("good");
    upstream.answers("/theirs", 200, "application/json", active(&json!({"jti": "good"})));
    assert!(ask(&daemon, "/theirs", &good).await.text().contains("\"active\":true"));
    daemon.revoke(&good).await;
    assert_eq!(ask(&daemon, "/theirs", &good).await.text(), "{\"active\":false}");
}

#[tokio::test]
async fn a_list_in_a_file_is_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("banned.txt");
    fs::write(&list, "mallory\n").unwrap();
    let upstream = Upstream::start().await;
    let backend = format!("[backend]\nurl = \"file://{}?subjects={ISSUER}\"\n", list.display());
    let daemon = Daemon::start(&upstream.url(), &backend).await;
    let of = |sub: &str| token_with(json!({"jti": sub, "sub": sub, "iat": unix() - 5}));
    assert_eq!(daemon.with_token(&of("mallory")).await.status, 401);
    assert_eq!(daemon.with_token(&of("alice")).await.status, 200);
    let next = folder.path().join("next");
    fs::write(&next, "mallory\nalice\n").unwrap();
    fs::rename(&next, &list).unwrap();
    eventually("alice is banned", async || daemon.with_token(&of("alice")).await.status == 401).await;
    let answer = Daemon::revoke_at(daemon.main, &of("bob")).await;
    assert_eq!(answer.status, 503, "nothing can be recorded: {}", answer.text());
    assert_eq!(daemon.with_token(&of("bob")).await.status, 200);
}

#[test]
fn what_contradicts_itself_is_named() {
    let check = |settings: &str| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("issuer.secret"), site::token::SECRET).unwrap();
        let file = folder.path().join("revoked.toml");
        let whole = format!(
            "{settings}\n[staleness]\nafter = \"10s\"\nthen = \"refuse\"\n\n[[issuer]]\nissuer = \"{ISSUER}\"\n\
             any_audience = true\nalgorithms = [\"HS256\"]\nsecret_file = \"issuer.secret\"\n"
        );
        fs::write(&file, whole).unwrap();
        let out =
            std::process::Command::new(env!("CARGO_BIN_EXE_revoked")).args(["config", "check"]).arg(&file).output();
        let out = out.unwrap();
        (
            out.status.success(),
            String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout),
        )
    };
    let asked = "[introspection]\nurl = \"https://as.example/introspect\"\nclient_id = \"a\"\nclient_secret = \"b\"\n";
    for (settings, key) in [
        (asked.replace("https", "http"), "introspection.url"),
        (asked.replace("client_id = \"a\"\n", ""), "introspection.client_id"),
        (asked.replace("client_secret = \"b\"\n", ""), "introspection"),
        (format!("{asked}auth_method = \"bearer\"\n"), "introspection"),
        (format!("{asked}issuer = \"https://other.example/\"\n"), "introspection.issuer"),
        (format!("{asked}\n[recorder]\ntoken_endpoint = \"/token\"\n"), "introspection"),
        ("[endpoints.introspection]\nenabled = true\nmode = \"overlay\"\n".to_owned(), "endpoints.introspection.mode"),
        (
            "[endpoints.introspection]\nenabled = true\nsigning_key_file = \"none.pem\"\n".to_owned(),
            "endpoints.introspection.signing_key_file",
        ),
        (
            "profile = \"token-authority\"\n[endpoints.introspection]\nenabled = true\n".to_owned(),
            "endpoints.introspection.path",
        ),
        ("[backend]\nurl = \"file:///nowhere/list\"\n".to_owned(), "backend.url"),
    ] {
        let (good, said) = check(&settings);
        assert!(!good && said.contains(key), "{settings}: {said}");
        assert!(!said.contains("\"b\""), "{said}");
    }
    assert!(check(asked).0, "{}", check(asked).1);
}
