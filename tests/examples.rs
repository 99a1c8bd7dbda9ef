//! The examples do what the lines that they print say, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{Answer, eventually, get, raw, unix};
use serde_json::Value;

const FORM: &str = "content-type: application/x-www-form-urlencoded";
const JSON: &str = "content-type: application/json";

/// A running example; killed when dropped.
struct Example {
    child: Child,
    address: SocketAddr,
}

fn binary(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join(name)
}

impl Example {
    fn start(name: &str) -> Self {
        // A port that was free a moment ago; the example has no way to say which one it took.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child =
            Command::new(binary(name)).env("PORT", port.to_string()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line == "ready");
        let example = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        assert!(ready, "{name} ended early");
        example
    }

    /// As this client, whose secret is its id and `-secret`.
    async fn post(&self, path: &str, client: &str, media: &str, body: &str) -> Answer {
        let basic = STANDARD.encode(format!("{client}:{client}-secret"));
        self.send(path, &format!("Basic {basic}"), media, body).await
    }

    async fn send(&self, path: &str, authorization: &str, media: &str, body: &str) -> Answer {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: {authorization}\r\n{media}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        raw(self.address, request).await
    }

    async fn tokens(&self, path: &str, client: &str, form: &str) -> (String, String) {
        let answer = self.post(path, client, FORM, form).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let token = |name: &str| body[name].as_str().unwrap().to_owned();
        (token("access_token"), token("refresh_token"))
    }

    async fn me(&self, token: &str) -> u16 {
        get(self.address, "/api/me", &[&format!("authorization: Bearer {token}")]).await.status
    }

    async fn document(&self, path: &str) -> Value {
        let answer = get(self.address, path, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        serde_json::from_str(&answer.body).unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn error(answer: &Answer) -> (u16, String) {
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    (answer.status, body["error"].as_str().unwrap().to_owned())
}

fn refresh(token: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={token}")
}

/// A cutoff covers the second that it is set in, by a clock that may be some milliseconds behind.
async fn next_second() {
    let began = Duration::from_secs(unix());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    eventually("the next second", || async { now() > began + Duration::from_millis(1020) }).await;
}

#[tokio::test]
async fn janssen_front() {
    const TOKEN: &str = "/jans-auth/restv1/token";
    const LOGIN: &str = "grant_type=password&username=alice";
    let example = Example::start("janssen_front");
    let url = format!("http://{}/jans-auth/restv1", example.address);

    let document = example.document("/jans-auth/.well-known/openid-configuration").await;
    assert_eq!(document["token_endpoint"], "https://janssen.example/jans-auth/restv1/token", "the server's own");
    assert_eq!(document["revocation_endpoint"], format!("{url}/revoke"));
    assert_eq!(document["session_revocation_endpoint"], format!("{url}/revoke_session"));
    assert_eq!(document["global_token_revocation_endpoint"], format!("{url}/global-token-revocation"));
    for name in ["revocation_endpoint", "global_token_revocation_endpoint"] {
        assert_eq!(document[format!("{name}_auth_methods_supported")][0], "client_secret_basic", "{name}");
    }

    // The server behind cannot; the layer in front can, and takes the refresh token along.
    let (access, refresh_token) = example.tokens(TOKEN, "web", LOGIN).await;
    let (bystander, _) = example.tokens(TOKEN, "web", "grant_type=password&username=bob").await;
    assert_eq!((example.me(&access).await, example.me(&bystander).await), (200, 200));
    let revoked = example.post("/jans-auth/restv1/revoke", "web", FORM, &format!("token={access}")).await;
    assert_eq!(error(&revoked), (400, "unsupported_token_type".to_owned()));
    assert_eq!(example.me(&access).await, 401);
    let refused = example.post(TOKEN, "web", FORM, &refresh(&refresh_token)).await;
    assert_eq!(error(&refused), (400, "invalid_grant".to_owned()));

    // An opaque refresh token is known by the recorder alone.
    let (access, refresh_token) = example.tokens(TOKEN, "web", LOGIN).await;
    let (access_2, refresh_2) = example.tokens(TOKEN, "web", &refresh(&refresh_token)).await;
    assert_eq!((example.me(&access).await, example.me(&access_2).await), (200, 200));
    let revoked = example.post("/jans-auth/restv1/revoke", "web", FORM, &format!("token={refresh_2}")).await;
    assert_eq!(revoked.status, 200);
    assert_eq!((example.me(&access).await, example.me(&access_2).await), (401, 401));

    for (path, media, body, status) in [
        ("/jans-auth/restv1/revoke_session", FORM, "user_criterion_key=uid&user_criterion_value=alice", 200),
        ("/jans-auth/restv1/global-token-revocation", JSON, r#"{"sub_id":{"format":"uid","id":"alice"}}"#, 204),
    ] {
        next_second().await;
        let (access, refresh_token) = example.tokens(TOKEN, "web", LOGIN).await;
        assert_eq!(example.me(&access).await, 200, "{path}");
        let forbidden = example.post(path, "web", media, body).await;
        assert_eq!(error(&forbidden), (401, "invalid_request".to_owned()), "{path}: without the scope");
        assert_eq!(example.me(&access).await, 200, "{path}");
        let done = example.post(path, "admin", media, body).await;
        assert_eq!((done.status, done.body.as_str()), (status, ""), "{path}");
        assert_eq!((example.me(&access).await, example.me(&bystander).await), (401, 200), "{path}");
        let refused = example.post(TOKEN, "web", FORM, &refresh(&refresh_token)).await;
        assert_eq!(error(&refused), (400, "invalid_grant".to_owned()), "{path}");
    }
    next_second().await;
    let (access, _) = example.tokens(TOKEN, "web", LOGIN).await;
    assert_eq!(example.me(&access).await, 200, "a login after that works");

    // As the documentation of Janssen shows it: an access token, whose own scope counts.
    let path = "/jans-auth/restv1/global-token-revocation";
    for (scope, status, lives) in [("openid", 401, 200), ("global_token_revocation", 204, 401)] {
        let form = format!("grant_type=client_credentials&scope={scope}");
        let answer = example.post(TOKEN, "admin", FORM, &form).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap());
        let answer = example.send(path, &bearer, JSON, r#"{"sub_id":{"format":"uid","id":"alice"}}"#).await;
        assert_eq!(answer.status, status, "{scope}: {}", answer.body);
        assert_eq!((example.me(&access).await, example.me(&bystander).await), (lives, 200), "{scope}");
    }
    next_second().await;
    let (access, _) = example.tokens(TOKEN, "web", LOGIN).await;
    let answer = example.post(TOKEN, "admin", FORM, "grant_type=client_credentials&scope=revoke_session").await;
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap());
    let alice = "user_criterion_key=uid&user_criterion_value=alice";
    assert_eq!(example.send("/jans-auth/restv1/revoke_session", &bearer, FORM, alice).await.status, 200);
    assert_eq!(example.me(&access).await, 401);
    // An access token for the API calls nothing here.
    let bearer = format!("Bearer {bystander}");
    let answer = example.send(path, &bearer, JSON, r#"{"sub_id":{"format":"uid","id":"alice"}}"#).await;
    assert_eq!(error(&answer), (401, "invalid_token".to_owned()));
}

#[tokio::test]
async fn token_authority() {
    const TOKEN: &str = "/oauth/token";
    const LOGIN: &str = "grant_type=password&username=alice";
    let example = Example::start("token_authority");

    let document = example.document("/.well-known/oauth-authorization-server").await;
    assert_eq!(document["revocation_endpoint"], format!("http://{}/oauth/revoke", example.address));
    for absent in ["session_revocation_endpoint", "global_token_revocation_endpoint"] {
        assert!(document.get(absent).is_none(), "{absent}");
    }

    let (bystander, _) = example.tokens(TOKEN, "app", LOGIN).await;
    for hint in ["", "&token_type_hint=access_token", "&token_type_hint=refresh_token", "&token_type_hint=foobar"] {
        for by_refresh in [false, true] {
            let (access, refresh_token) = example.tokens(TOKEN, "app", LOGIN).await;
            assert_eq!(example.me(&access).await, 200);
            assert_eq!(example.me(&refresh_token).await, 401, "a refresh token is no access token");
            let body = format!("token={}{hint}", if by_refresh { &refresh_token } else { &access });
            for _ in 0..2 {
                let revoked = example.post("/oauth/revoke", "app", FORM, &body).await;
                assert_eq!((revoked.status, revoked.body.as_str()), (200, ""), "{hint} {by_refresh}");
            }
            assert_eq!(example.me(&access).await, 401, "{hint} {by_refresh}");
            let refused = example.post(TOKEN, "app", FORM, &refresh(&refresh_token)).await;
            assert_eq!(error(&refused), (400, "invalid_grant".to_owned()), "{hint} {by_refresh}");
        }
    }
    let garbage = example.post("/oauth/revoke", "app", FORM, "token=garbage").await;
    assert_eq!((garbage.status, garbage.body.as_str()), (400, r#"{"error":"unsupported_token_type"}"#));

    // A refresh ends the access token before it; the same refresh again ends everything.
    let (access, refresh_token) = example.tokens(TOKEN, "app", LOGIN).await;
    let (access_2, refresh_2) = example.tokens(TOKEN, "app", &refresh(&refresh_token)).await;
    assert_eq!((example.me(&access).await, example.me(&access_2).await), (401, 200));
    let replayed = example.post(TOKEN, "app", FORM, &refresh(&refresh_token)).await;
    assert_eq!(error(&replayed), (400, "invalid_request".to_owned()));
    assert_eq!(example.me(&access_2).await, 401);
    let refused = example.post(TOKEN, "app", FORM, &refresh(&refresh_2)).await;
    assert_eq!(error(&refused), (400, "invalid_grant".to_owned()));
    assert_eq!(example.me(&bystander).await, 200);
}

#[test]
fn custom_backend() {
    let ran = Command::new(binary("custom_backend")).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("keeps every promise"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}
