//! The README's first command as a user runs it: the printed lines, `kill -9`, and a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{Answer, raw};

/// A running quickstart; killed with SIGKILL when dropped, as nothing nicer would prove anything.
struct Quickstart {
    child: Child,
    address: SocketAddr,
}

impl Quickstart {
    fn start(database: &Path) -> Self {
        // A port that was free a moment ago; the example has no way to say which one it took.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(binary())
            .env("PORT", port.to_string())
            .env("DATABASE", database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.starts_with("Kill it with"));
        assert!(ready, "the quickstart ended early");
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    async fn post(&self, path: &str, authorization: &str, form: &str) -> Answer {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{authorization}\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        );
        raw(self.address, request).await
    }

    async fn tokens(&self, form: &str) -> (u16, String, String) {
        let answer = self.post("/token", "", form).await;
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let token = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        (answer.status, token("access_token"), token("refresh_token"))
    }

    async fn me(&self, token: &str) -> u16 {
        common::get(self.address, "/api/me", &[&format!("authorization: Bearer {token}")]).await.status
    }

    /// As client `demo` with the secret `demo`.
    async fn revoke(&self, token: &str) -> u16 {
        self.post("/oauth/revoke", "authorization: Basic ZGVtbzpkZW1v\r\n", &format!("token={token}")).await.status
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn binary() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join("quickstart")
}

#[tokio::test]
async fn f3_a_revocation_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("quickstart.db");
    let first = Quickstart::start(&database);
    let (status, access, refresh) = first.tokens("user=alice").await;
    assert_eq!(status, 200);
    let (_, other, _) = first.tokens("user=alice").await;
    assert_eq!((first.me(&access).await, first.me(&other).await), (200, 200));
    assert_eq!(first.me(&refresh).await, 401, "a refresh token is no access token");
    let (status, refreshed, _) = first.tokens(&format!("grant_type=refresh_token&refresh_token={refresh}")).await;
    assert_eq!((status, first.me(&refreshed).await), (200, 200));

    assert_eq!(first.revoke(&access).await, 200);
    // The session ends with it: what was refreshed from it, and its refresh token.
    assert_eq!((first.me(&access).await, first.me(&refreshed).await, first.me(&other).await), (401, 401, 200));
    assert_eq!(first.tokens(&format!("grant_type=refresh_token&refresh_token={refresh}")).await.0, 400);
    drop(first);

    let second = Quickstart::start(&database);
    assert_eq!((second.me(&access).await, second.me(&refreshed).await, second.me(&other).await), (401, 401, 200));
    assert_eq!(second.tokens(&format!("grant_type=refresh_token&refresh_token={refresh}")).await.0, 400);
    assert_eq!(second.revoke(&access).await, 200, "already revoked is the same answer");
}
