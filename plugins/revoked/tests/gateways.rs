//! Real gateways in front of the daemon, with the kits of `plugins/gateways`. Each must refuse what the daemon refuses, in
//! whatever way it is presented, and refuse everything with a token when the daemon cannot be asked.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod site;

use bytes::Bytes;
use serde_json::json;
use site::{
    Answer, Daemon, Site, Upstream, bearer, eventually,
    gateway::{Gateway, Kind},
    get, send,
    store::Store,
    token::{token, token_with},
    upstream::big_byte,
    wire::{Wire, head},
};

/// Tests of each gateway. Another one is another line where they are called.
macro_rules! gateways {
    ($($name:ident: $kind:expr, $settings:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test]
            async fn refuses_what_the_daemon_refuses() {
                for_each_kit($kind, $settings, crate::refuses_what_the_daemon_refuses).await;
            }

            #[tokio::test]
            async fn passes_on_what_came() {
                for_each_kit($kind, $settings, crate::passes_on_what_came).await;
            }

            #[tokio::test]
            async fn revocations_go_to_the_daemon_or_fail_visibly() {
                let settings = format!("{}\n[endpoints.global]\npath = \"/unrouted/revoke\"\n", $settings);
                for_each_kit($kind, &settings, crate::revocations_go_to_the_daemon_or_fail_visibly).await;
            }

            #[tokio::test]
            async fn fails_closed_while_the_daemon_does_not_answer() {
                crate::fails_closed_while_the_daemon_does_not_answer($kind, $settings).await;
            }

            #[tokio::test]
            async fn fails_closed_once_the_list_is_stale() {
                crate::fails_closed_once_the_list_is_stale($kind, $settings).await;
            }
        }
    )*};
}

// Name, gateway, and what its door adds to the daemon's settings.
gateways! {
    nginx: Kind::Nginx, "";
    caddy: Kind::Caddy, "";
    traefik: Kind::Traefik, "";
    envoy: Kind::Envoy, "";
    envoy_grpc: Kind::EnvoyGrpc, "\n[ext_authz]\nlisten = \"127.0.0.1:0\"\nidentity_headers = [\"x-auth-subject\", \"x-auth-session\"]\n";
    haproxy: Kind::Haproxy, "\n[spoe]\nlisten = \"127.0.0.1:0\"\n";
}

/// A site with a gateway in front.
struct Front {
    kind: Kind,
    kit: &'static str,
    gateway: Gateway,
    daemon: Daemon,
    upstream: Upstream,
}

impl Front {
    async fn get(&self, target: &str, lines: &[&str]) -> Answer {
        get(self.gateway.address, target, lines).await
    }

    /// Whether the service behind is reached so, whatever the gateway answers.
    async fn reaches(&self, target: &str, lines: &[&str]) -> bool {
        let before = self.upstream.requests().len();
        let answer = self.get(target, lines).await;
        let reached = self.upstream.requests().len() > before;
        assert_eq!(reached, answer.status == 200, "{self}: {target} {lines:?}: {}", answer.status);
        reached
    }

    async fn revoke(&self, token: &str) {
        let answer = Daemon::revoke_at(self.gateway.address, token).await;
        assert_eq!((answer.status, self.revocation_reached_the_service()), (200, false), "{self}: {}", answer.text());
    }

    fn revocation_reached_the_service(&self) -> bool {
        self.upstream.requests().iter().any(|request| request.target.contains("revoke"))
    }
}

impl std::fmt::Display for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with {}", self.kind, self.kit)
    }
}

async fn for_each_kit(kind: Kind, settings: &str, test: impl AsyncFn(Front)) {
    if kind.installed() {
        for kit in kind.kits() {
            let Site { daemon, upstream } = Site::new(&format!("\n{settings}")).await;
            let gateway = Gateway::start(kind, kit, &daemon, &upstream).await;
            test(Front { kind, kit, gateway, daemon, upstream }).await;
        }
    }
}

async fn refuses_what_the_daemon_refuses(front: Front) {
    let (good, bad) = (token("good"), token("bad"));
    assert!(front.reaches("/", &[]).await, "{front}: no token");
    assert!(front.reaches("/", &[&bearer(&good)]).await, "{front}: a good token");
    assert!(front.reaches("/", &[&bearer(&bad)]).await, "{front}: before it is revoked");
    front.revoke(&bad).await;

    let denied = front.get("/", &[&bearer(&bad)]).await;
    assert_eq!(denied.status, 401, "{front}");
    assert!(denied.header("www-authenticate").unwrap().contains("invalid_token"), "{front}: {}", denied.head);
    assert_eq!(denied.headers("www-authenticate").len(), 1, "{front}: {}", denied.head);

    let both = format!("authorization: Bearer {good},Bearer {bad}");
    let rows: [(&str, &str, &[&str]); 17] = [
        ("two headers, the revoked one second", "/", &[&bearer(&good), &bearer(&bad)]),
        ("two headers, the revoked one first", "/", &[&bearer(&bad), &bearer(&good)]),
        ("another scheme first", "/", &["authorization: Basic eDp5", &bearer(&bad)]),
        ("joined by a comma", "/", &[&both]),
        ("joined by a comma, the revoked one first", "/", &[&format!("authorization: Bearer {bad},Bearer {good}")]),
        ("lower-case scheme", "/", &[&format!("authorization: bearer {bad}")]),
        ("a tab", "/", &[&format!("authorization: Bearer\t{bad}")]),
        ("two spaces", "/", &[&format!("authorization: Bearer  {bad}")]),
        ("a name in capitals", "/", &[&format!("AUTHORIZATION: BEARER {bad}")]),
        ("in the query", &format!("/?access_token={bad}"), &[]),
        ("in the query, and a good one", &format!("/?a=1&access_token={bad}"), &[&bearer(&good)]),
        (
            "in the query, behind forged headers",
            &format!("/?access_token={bad}"),
            &["x-forwarded-uri: /", "x-original-uri: /", "x-original-url: /"],
        ),
        ("in the protocols of a WebSocket", "/", &[&format!("sec-websocket-protocol: bearer, {bad}")]),
        (
            "headers of gateways, forged",
            "/",
            &[&bearer(&bad), "x-forwarded-uri: /oauth/revoke", "x-forwarded-method: GET", "x-original-url: /open"],
        ),
        ("a path beside a revocation route", "/oauth/revoke/../../private", &[&bearer(&bad)]),
        ("the same, escaped", "/oauth/revoke/%2e%2e/%2e%2e/private", &[&bearer(&bad)]),
        ("the path of checks", "/check", &[&bearer(&bad)]),
    ];
    for (name, target, lines) in rows {
        assert!(!front.reaches(target, lines).await, "{front}: {name}: a revoked token got through");
    }
    // Who takes such an option at its word takes the token away for everybody.
    for option in ["authorization", "Authorization, x-forwarded-uri", "x-forwarded-method, authorization"] {
        front.get("/optional", &[&format!("connection: close, {option}"), &bearer(&bad)]).await;
        let seen = front.upstream.requests().into_iter().filter(|request| request.target == "/optional");
        assert!(seen.flat_map(|seen| seen.headers.get("authorization").cloned()).count() == 0, "{front}: {option}");
    }
    for line in [format!("authorization: bearer {good}"), format!("authorization: Bearer  {good}")] {
        assert!(front.reaches("/", &[&line]).await, "{front}: {line:?}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = send(front.gateway.address, head(method, "/", &[&bearer(&bad), "content-length: 0"])).await;
        assert_eq!(answer.status, 401, "{front}: {method}");
    }
    let reached = front.upstream.requests().len();
    let answer = send(front.gateway.address, websocket(&bad)).await;
    assert_eq!((answer.status, front.upstream.requests().len()), (401, reached), "{front}: a WebSocket");
}

async fn passes_on_what_came(front: Front) {
    let user = token_with(json!({"jti": "u", "sub": "alice", "sid": "session-1"}));
    let spoofed = ["x-auth-subject: mallory", "X-Auth-Subject: mallory", "x-auth-session: stolen"];

    // Who sent it says the daemon, and nobody else.
    assert!(front.reaches("/who", &[&spoofed[..], &[&bearer(&user)]].concat()).await);
    let seen = front.upstream.last();
    assert_eq!((seen.all("x-auth-subject"), seen.all("x-auth-session")), (vec!["alice"], vec!["session-1"]), "{front}");
    assert_eq!(seen.all("authorization"), [bearer(&user).replace("authorization: ", "")], "{front}");
    assert!(front.reaches("/nobody", &spoofed).await);
    let seen = front.upstream.last();
    for name in ["x-auth-subject", "x-auth-session"] {
        assert!(seen.all(name).concat().is_empty(), "{front}: {name} without a token: {:?}", seen.all(name));
    }

    // Also to services that take `_` for `-`.
    for alias in ["x_auth_subject", "X_Auth_Session", "x-auth_subject", "x_auth-session"] {
        let lines = [format!("{alias}: mallory"), bearer(&user)];
        send(front.gateway.address, head("GET", "/alias", &lines.each_ref().map(String::as_str))).await;
        let seen = front.upstream.requests();
        let mut names = seen.iter().filter(|seen| seen.target == "/alias").flat_map(|seen| seen.headers.keys());
        assert!(!names.any(|name| name.as_str().eq_ignore_ascii_case(alias)), "{front}: {alias} came through");
    }

    // The body, and what was asked for.
    let body: Vec<u8> = (0..600_000).map(big_byte).collect();
    let mut wire = Wire::to(front.gateway.address).await;
    let length = format!("content-length: {}", body.len());
    wire.write(head("POST", "/body?a=%2e&b", &[&length, "content-type: image/png", &bearer(&user)])).await;
    wire.write(&body).await;
    assert_eq!(wire.answer().await.status, 200, "{front}");
    let seen = front.upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/body?a=%2e&b"), "{front}");
    assert!(seen.body == body, "{front}: the body changed on its way");

    // Nobody would check what comes over a connection of HTTP/2 inside.
    for protocol in ["h2c", "websocket, h2c", "H2C"] {
        let lines =
            ["connection: upgrade, http2-settings", &format!("upgrade: {protocol}"), "http2-settings: AAMAAABk"];
        let answer =
            send(front.gateway.address, head("GET", "/h2c", &lines).replace("connection: close\r\n", "")).await;
        assert_ne!(answer.status, 101, "{front}");
        let seen = front.upstream.requests();
        let upgraded = seen.iter().filter(|seen| seen.target == "/h2c").any(|seen| !seen.all("upgrade").is_empty());
        assert!(!upgraded, "{front}: {protocol} was asked for on the client's behalf");
    }

    // Events one by one: the next is sent only when the one before has been read.
    let events = front.upstream.events();
    let mut wire = Wire::to(front.gateway.address).await;
    wire.write(head("GET", "/sse", &[&bearer(&user), "accept: text/event-stream"])).await;
    assert_eq!(wire.head().await.status, 200, "{front}");
    for event in ["data: one\n\n", "data: two\n\n"] {
        events.send(Bytes::from(event)).unwrap();
        assert_eq!(wire.chunk().await.unwrap(), event.as_bytes(), "{front}");
    }
    drop(events);

    let mut wire = Wire::to(front.gateway.address).await;
    wire.write(websocket(&user)).await;
    let answer = wire.head().await;
    assert_eq!(answer.status, 101, "{front}: {}", answer.head);
    for text in ["hello", "again"] {
        wire.write(text).await;
        assert_eq!(wire.exactly(text.len()).await, text.as_bytes(), "{front}");
    }
}

/// A WebSocket with this token.
fn websocket(token: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nhost: api.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n\r\n",
        bearer(token)
    )
}

async fn revocations_go_to_the_daemon_or_fail_visibly(front: Front) {
    // However the path is written: a success is a revocation, and the service behind never answers it.
    let spellings = [
        "/oauth/revoke",
        "/oauth/revoke?a=b",
        "/oauth//revoke",
        "/oauth/./revoke",
        "/x/../oauth/revoke",
        "/oauth/%72evoke",
        "/oauth/revoke/",
        "/oauth%2frevoke",
    ];
    for (number, target) in spellings.into_iter().enumerate() {
        let token = token(&format!("t{number}"));
        let form = format!("token={token}");
        let length = format!("content-length: {}", form.len());
        let lines =
            ["authorization: Basic YXBwOnMzY3JldA==", "content-type: application/x-www-form-urlencoded", &length];
        let answer = send(front.gateway.address, head("POST", target, &lines) + &form).await;
        assert!(!front.revocation_reached_the_service(), "{front}: {target} went to the service behind");
        let revoked = front.daemon.with_token(&token).await.status == 401;
        assert_eq!(revoked, answer.status == 200, "{front}: {target}: {}", answer.status);
        assert!(revoked || number > 0, "{front}: {target} does not revoke");
    }

    // A route that no rule of the gateway knows: the application would say 200, and nothing would be revoked.
    for forged in ["x-other: 1", "x-forwarded-method: GET", "x-forwarded-uri: /open", "x-original-method: GET"] {
        let admin = bearer(&token("admin"));
        let lines = [&admin, "content-type: application/json", "content-length: 2", forged];
        let answer = send(front.gateway.address, head("POST", "/unrouted/revoke", &lines) + "{}").await;
        assert_eq!((answer.status, front.revocation_reached_the_service()), (403, false), "{front}: {}", answer.text());
    }
    eventually("the log says so too", async || front.daemon.says("route the path to revoked")).await;
}

async fn fails_closed_while_the_daemon_does_not_answer(kind: Kind, settings: &str) {
    if !kind.installed() {
        return;
    }
    let kit = kind.kits().last().unwrap();
    let Site { mut daemon, upstream } = Site::new(&format!("\n{settings}")).await;
    let gateway = Gateway::start(kind, kit, &daemon, &upstream).await;
    let (good, bad) = (bearer(&token("good")), token("bad"));
    daemon.revoke(&bad).await;
    assert_eq!(get(gateway.address, "/", &[&good]).await.status, 200);
    let asked = upstream.requests().len();

    // It is there and says nothing.
    daemon.pause().await;
    if kind.bounds_the_check() {
        for line in [&good, &bearer(&bad)] {
            let answer = get(gateway.address, "/", &[line]).await;
            assert!((500..600).contains(&answer.status), "{kind:?}, slow: {}", answer.status);
        }
        daemon.signal("CONT");
    } else {
        // It waits for as long as its client does: then the answer is the daemon's after all.
        let mut wire = Wire::to(gateway.address).await;
        wire.write(head("GET", "/", &[&bearer(&bad)])).await;
        eventually("the gateway asks", async || waiting(&daemon)).await;
        assert_eq!(upstream.requests().len(), asked, "{kind:?}, slow");
        daemon.signal("CONT");
        assert_eq!(wire.answer().await.status, 401, "{kind:?}, slow");
    }
    assert_eq!(upstream.requests().len(), asked, "{kind:?}, slow: got through");
    eventually("it works again", async || get(gateway.address, "/", &[&good]).await.status == 200).await;
    let asked = upstream.requests().len();

    // It is gone.
    daemon.crash().await;
    for line in [&good, &bearer(&bad)] {
        let answer = get(gateway.address, "/", &[line]).await;
        assert!((500..600).contains(&answer.status), "{kind:?}, down: {}", answer.status);
    }
    assert_eq!(upstream.requests().len(), asked, "{kind:?}, down: got through");
    let answer = Daemon::revoke_at(gateway.address, &bad).await;
    assert!((500..600).contains(&answer.status), "{kind:?}: a revocation that nobody took: {}", answer.status);
}

/// Whether bytes for the daemon's checks wait to be read.
fn waiting(daemon: &Daemon) -> bool {
    let port = format!(":{:04X}", daemon.check.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&port) && fields[3] == "01" && !fields[4].ends_with(":00000000")
    })
}

async fn fails_closed_once_the_list_is_stale(kind: Kind, settings: &str) {
    if !kind.installed() {
        return;
    }
    let mut store = Store::start().await;
    let Site { daemon, upstream } = Site::new(&format!("\n{settings}\n{}", store.settings("one", "refuse"))).await;
    let gateway = Gateway::start(kind, kind.kits()[0], &daemon, &upstream).await;
    let good = bearer(&token("good"));
    assert_eq!(get(gateway.address, "/", &[&good]).await.status, 200);
    store.lose().await;
    eventually("the list is stale", async || get(daemon.check, "/check", &[&good]).await.status == 503).await;
    let asked = upstream.requests().len();
    let answer = get(gateway.address, "/", &[&good]).await;
    assert!((500..600).contains(&answer.status), "{kind:?}: {}", answer.status);
    assert_eq!(upstream.requests().len(), asked, "{kind:?}: got through");
    assert_eq!(get(gateway.address, "/", &[]).await.status, 200, "{kind:?}: nothing to check");
}
