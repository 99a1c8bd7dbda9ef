//! The reverse-proxy door, over real sockets: what reaches the service behind, and what does not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod site;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use site::{
    Daemon, Site, Upstream, bearer,
    certificates::Certificates,
    eventually, get, send, soon,
    token::{token, token_with},
    upstream::{BIG, big_byte},
    wire::{Wire, head, post_form},
};
use tokio::{net::TcpStream, sync::mpsc};

const FORM: &str = "[tokens]\nsources = [\"bearer\", \"form\"]\n";

#[tokio::test]
async fn a_good_token_passes_and_a_revoked_one_does_not() {
    let site = Site::new("").await;
    let (good, bad) = (token("good"), token("bad"));
    let before = site.daemon.with_token(&bad).await;
    assert_eq!((before.status, before.text().as_str()), (200, "from the service behind"));
    site.daemon.revoke(&bad).await;
    let asked = site.upstream.requests().len();

    let denied = site.daemon.with_token(&bad).await;
    assert_eq!(denied.status, 401);
    assert!(denied.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""));
    assert_eq!(denied.header("cache-control"), Some("no-store"));
    assert_eq!(site.upstream.requests().len(), asked, "the service behind saw a request with a revoked token");
    assert_eq!(site.daemon.with_token(&good).await.status, 200);
    assert_eq!(site.upstream.last().all("authorization"), [format!("Bearer {good}")]);
}

#[tokio::test]
async fn tokens_that_are_not_good_never_reach_the_service_behind() {
    let site = Site::new("").await;
    let forged = format!("{}x", token("forged"));
    let expired = token_with(json!({"jti": "old", "iat": 1, "exp": 2}));
    let stranger = token_with(json!({"jti": "who", "iss": "https://other.example/"}));
    for bad in [forged, expired, stranger, "garbage".to_owned()] {
        assert_eq!(site.daemon.with_token(&bad).await.status, 401);
    }
    assert_eq!(site.upstream.requests().len(), 0);
}

#[tokio::test]
async fn every_way_of_presenting_a_revoked_token_is_refused() {
    let site = Site::new("").await;
    let (good, bad) = (token("good"), token("bad"));
    site.daemon.revoke(&bad).await;
    let rows: &[(&str, &[String], &str, u16)] = &[
        ("two headers, the revoked one second", &[bearer(&good), bearer(&bad)], "/", 400),
        ("two headers, the revoked one first", &[bearer(&bad), bearer(&good)], "/", 400),
        ("another scheme first", &["authorization: Basic eDp5".into(), bearer(&bad)], "/", 401),
        ("joined by a comma", &[format!("authorization: Bearer {bad},Bearer {good}")], "/", 400),
        ("joined by a comma and a space", &[format!("authorization: Bearer {good}, Bearer {bad}")], "/", 400),
        ("lower-case scheme", &[format!("authorization: bearer {bad}")], "/", 401),
        ("upper-case scheme and name", &[format!("AUTHORIZATION: BEARER {bad}")], "/", 401),
        ("a tab", &[format!("authorization: Bearer\t{bad}")], "/", 401),
        ("two spaces", &[format!("authorization: Bearer  {bad}")], "/", 401),
        ("space around", &[format!("authorization: \t Bearer {bad} \t")], "/", 401),
        ("in the query", &[], &format!("/?access_token={bad}"), 400),
        ("in the query, escaped", &[], &format!("/?access%5Ftoken={bad}"), 400),
        ("in the protocols of a WebSocket", &[format!("sec-websocket-protocol: bearer, {bad}")], "/", 400),
        ("another scheme", &[format!("authorization: Token {bad}")], "/", 401),
        ("no token", &["authorization: Bearer".into()], "/", 400),
    ];
    for (name, lines, target, status) in rows {
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let answer = get(site.daemon.main, target, &lines).await;
        assert_eq!(answer.status, *status, "{name}");
        assert_eq!(site.upstream.requests().len(), 0, "{name}: reached the service behind");
    }
    // The same spellings with a good token pass: it is the token that is refused.
    for line in [format!("authorization: bearer {good}"), format!("authorization: Bearer\t{good}")] {
        assert_eq!(get(site.daemon.main, "/", &[&line]).await.status, 200, "{line:?}");
    }
}

#[tokio::test]
async fn no_token_passes_or_not_as_configured() {
    let site = Site::new("").await;
    assert_eq!(get(site.daemon.main, "/", &[]).await.status, 200);
    let site = Site::new("\n[tokens]\nno_token = \"deny\"\n").await;
    let answer = get(site.daemon.main, "/", &[]).await;
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer realm=\"api\"")));
    assert_eq!(site.upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_body_reaches_the_service_behind_as_it_came() {
    let site = Site::new("").await;
    let body: Vec<u8> = (0..3 * 1024 * 1024).map(big_byte).collect();
    let length = format!("content-length: {}", body.len());
    let mut wire = Wire::to(site.daemon.main).await;
    wire.write(head("POST", "/form?x=%2e&y", &[&length, "content-type: image/png", &bearer(&token("t"))])).await;
    wire.write(&body).await;
    assert_eq!(wire.answer().await.status, 200);
    let seen = site.upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/form?x=%2e&y"));
    assert_eq!(seen.all("content-length"), [body.len().to_string()]);
    assert!(seen.body == body, "the body changed on its way");

    // Chunked, with extensions of chunks.
    let request = head("PUT", "/", &["transfer-encoding: chunked"]) + "5;x=1\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
    assert_eq!(send(site.daemon.main, request).await.status, 200);
    assert_eq!(site.upstream.last().body, "hello!");
}

#[tokio::test]
async fn a_large_answer_reaches_the_client_as_it_came() {
    let site = Site::new("").await;
    let mut wire = Wire::to(site.daemon.main).await;
    wire.write(head("GET", "/big", &[])).await;
    let answer = wire.head().await;
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, Some("chunked")));
    let mut place = 0;
    while let Some(chunk) = wire.chunk().await {
        assert!(chunk.iter().enumerate().all(|(at, byte)| *byte == big_byte(place + at)), "differs behind {place}");
        place += chunk.len();
    }
    assert_eq!(place, BIG);
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let site = Site::new("").await;
    let events = site.upstream.events();
    let mut wire = Wire::to(site.daemon.main).await;
    wire.write(head("GET", "/sse", &[&bearer(&token("t"))])).await;
    let answer = wire.head().await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    for event in ["data: one\n\n", "data: two\n\n"] {
        // The next is sent only when this one was read.
        events.send(Bytes::from(event)).unwrap();
        assert_eq!(wire.chunk().await.unwrap(), event.as_bytes());
    }
    drop(events);
    assert_eq!(wire.chunk().await, None);
}

#[tokio::test]
async fn an_upload_reaches_the_service_behind_part_by_part() {
    let site = Site::new("").await;
    let mut wire = Wire::to(site.daemon.main).await;
    wire.write(head("POST", "/upload", &["transfer-encoding: chunked"])).await;
    wire.write("3\r\none\r\n").await;
    eventually("the first part is there before the second is sent", async || site.upstream.uploaded() == b"one").await;
    wire.write("3\r\ntwo\r\n0\r\n\r\n").await;
    assert_eq!(wire.answer().await.text(), "uploaded");
    assert_eq!(site.upstream.uploaded(), b"onetwo");
}

#[tokio::test]
async fn what_concerns_one_connection_stays_there() {
    let site = Site::new("").await;
    let lines = [
        "connection: x-mine, keep-alive",
        "x-mine: 1",
        "keep-alive: timeout=5",
        "proxy-connection: keep-alive",
        "proxy-authorization: Basic eDp5",
        "te: trailers, gzip",
        "upgrade: foo",
        "x-other: kept",
    ];
    assert_eq!(get(site.daemon.main, "/", &lines).await.status, 200);
    let seen = site.upstream.last();
    for gone in ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "te", "upgrade", "connection"] {
        assert_eq!(seen.all(gone), [""; 0], "{gone}");
    }
    assert_eq!(seen.all("x-other"), ["kept"]);

    let answer = get(site.daemon.main, "/hop", &[]).await;
    assert_eq!((answer.header("x-hop"), answer.header("keep-alive"), answer.header("x-kept")), (None, None, Some("1")));
    assert_eq!(answer.headers("connection"), ["close"], "the client's own wish, not the server's");
}

#[tokio::test]
async fn options_of_the_connection_do_not_change_what_was_checked() {
    let site = Site::new("").await;
    let good = token("good");
    for name in
        ["authorization", "Authorization", "cookie", "host", "x-forwarded-for", "content-type", "x-forwarded-host"]
    {
        let lines = [
            &format!("connection: close, {name}"),
            &bearer(&good),
            "cookie: a=1",
            "content-type: text/plain",
            "x-forwarded-for: 192.0.2.1",
        ];
        assert_eq!(get(site.daemon.main, "/", &lines).await.status, 200, "{name}");
        let seen = site.upstream.last();
        assert_eq!(seen.all("authorization"), [format!("Bearer {good}")], "{name}");
        assert_eq!((seen.all("cookie"), seen.all("content-type")), (vec!["a=1"], vec!["text/plain"]), "{name}");
        assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.1, 127.0.0.1"], "{name}");
        assert_eq!((seen.all("host"), seen.all("x-forwarded-host")), (vec!["api.example"], vec!["api.example"]));
    }
}

#[tokio::test]
async fn the_service_behind_learns_whose_request_it_is() {
    let site = Site::new("").await;
    let lines = ["x-forwarded-for: 192.0.2.1", "x-forwarded-host: evil.example", "x-forwarded-proto: https"];
    get(site.daemon.main, "/", &lines).await;
    let seen = site.upstream.last();
    assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.1, 127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-host"), ["api.example"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("host"), ["api.example"]);
}

#[tokio::test]
async fn the_host_of_an_absolute_target_counts() {
    // RFC 9112 §3.2.2: a proxy goes by the target, and drops what `Host` says.
    let site = Site::new("").await;
    assert_eq!(get(site.daemon.main, "http://real.example/a?b", &[]).await.status, 200);
    let seen = site.upstream.last();
    assert_eq!((seen.target.as_str(), seen.all("host")), ("/a?b", vec!["real.example"]));
    assert_eq!(seen.all("x-forwarded-host"), ["real.example"]);
    assert_eq!(get(site.daemon.main, "/", &["host: second.example"]).await.status, 400, "two hosts");
}

#[tokio::test]
async fn a_websocket_goes_through_and_a_revoked_token_gets_none() {
    let site = Site::new("").await;
    let (good, bad) = (token("good"), token("bad"));
    site.daemon.revoke(&bad).await;
    let ask = |token: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nhost: api.example\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n\r\n",
            bearer(token)
        )
    };
    let asked = site.upstream.requests().len();
    assert_eq!(send(site.daemon.main, ask(&bad)).await.status, 401);
    assert_eq!(site.upstream.requests().len(), asked);

    let mut wire = Wire::to(site.daemon.main).await;
    wire.write(ask(&good)).await;
    let answer = wire.head().await;
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    for text in ["hello", "again"] {
        wire.write(text).await;
        assert_eq!(wire.exactly(text.len()).await, text.as_bytes());
    }
    assert_eq!(site.upstream.last().all("sec-websocket-version"), ["13"]);
    wire.finish().await;
    assert_eq!(wire.rest().await, b"", "the end goes through as well");
}

#[tokio::test]
async fn upgraded_connections_count_against_the_limit() {
    let site = Site::new("max_connections = 2\n").await;
    let upgrade = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::to(site.daemon.main).await;
        wire.write(upgrade).await;
        assert_eq!(wire.head().await.status, 101);
        open.push(wire);
    }
    let mut third = Wire::to(site.daemon.main).await;
    third.write(head("GET", "/third", &[])).await;
    // The two still carry bytes, and nobody has taken the third.
    for wire in &mut open {
        wire.write("x").await;
        wire.exactly(1).await;
    }
    assert!(site.upstream.requests().iter().all(|request| request.target != "/third"));
    open.pop();
    assert_eq!(third.answer().await.status, 200);
}

#[tokio::test]
async fn http2_without_tls_is_never_upgraded_to() {
    // Requests on such a connection would be checked by nobody.
    let site = Site::new("").await;
    for protocol in ["h2c", "H2C", "websocket, h2c"] {
        let upgrade = format!("upgrade: {protocol}");
        let lines = ["connection: upgrade, http2-settings", &upgrade, "http2-settings: AAMAAABkAAQAAP__"];
        assert_eq!(get(site.daemon.main, "/", &lines).await.status, 200, "{protocol}");
        assert_eq!(site.upstream.last().all("upgrade"), [""; 0], "{protocol}");
    }
    // Also where the list is not all text, and for other ways to requests that nobody sees.
    for protocol in [&b"h2c, \xe9"[..], b"\xe9,H2C", b"HTTP/2.0", b"TLS/1.2, HTTP/1.1", b"\xe9, tls/1.0"] {
        let start = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: ";
        let request = [&start[..], protocol, b"\r\n\r\n"].concat();
        assert_eq!(send(site.daemon.main, request).await.status, 200, "{}", protocol.escape_ascii());
        assert!(!site.upstream.last().headers.contains_key("upgrade"), "{}", protocol.escape_ascii());
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_through_with_every_method() {
    let site = Site::new("").await;
    for method in ["GET", "POST", "DELETE"] {
        let request = head(method, "/", &["transfer-encoding: chunked"]) + "4\r\nbody\r\n0\r\n\r\n";
        assert_eq!(send(site.daemon.main, request).await.status, 200, "{method}");
        assert_eq!(site.upstream.last().body, "body", "{method}");
    }
    assert_eq!(get(site.daemon.main, "/", &[]).await.status, 200);
    assert_eq!(site.upstream.last().all("transfer-encoding"), [""; 0], "no body, no framing");
}

/// A path of metadata may have anything in front, and what follows a script's name is often the script's to read.
const UNDER_METADATA: [&str; 2] =
    ["/index.php/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/index.php"];

#[tokio::test]
async fn a_path_of_metadata_is_no_way_past_the_check() {
    let site = Site::new(&format!("\n{FORM}\n[recorder]\ntoken_endpoint = \"/oauth/token\"\n")).await;
    let bad = token("bad");
    site.daemon.revoke(&bad).await;
    let asked = site.upstream.requests().len();
    for path in UNDER_METADATA {
        assert_eq!(post_form(site.daemon.main, path, &[], &format!("access_token={bad}")).await.status, 401, "{path}");
        let opaque = post_form(site.daemon.main, path, &[&bearer("opaque-and-unknown")], "a=b").await;
        assert_eq!(opaque.status, 401, "{path}");
        assert_eq!(get(site.daemon.main, path, &[&bearer("opaque-and-unknown")]).await.status, 401, "{path}");
    }
    assert_eq!(site.upstream.requests().len(), asked);
}

#[tokio::test]
async fn a_form_that_does_not_come_is_not_waited_for() {
    let site = Site::new(&format!("\n{FORM}")).await;
    let lines = ["content-type: application/x-www-form-urlencoded", "content-length: 9"];
    let mut wire = Wire::to(site.daemon.main).await;
    wire.write(head("POST", "/", &lines) + "a=").await;
    assert_eq!(wire.answer().await.status, 408);
}

#[tokio::test]
async fn rule_19_an_opaque_token_is_good_for_no_longer_than_it_was_said_to_be() {
    let settings = "\n[tokens]\nleeway = \"0s\"\nskew = \"0s\"\n\n[recorder]\ntoken_endpoint = \"/oauth/token\"\n";
    let site = Site::new(settings).await;
    let tokens = json!({"access_token": "short", "token_type": "Bearer", "expires_in": 6, "refresh_token": "renews"});
    issue_these(&site, tokens).await;
    assert_eq!(site.daemon.with_token("short").await.status, 200);
    assert_eq!(site.daemon.with_token("renews").await.status, 401, "a refresh token gets at nothing");
    eventually("its time is over", async || site.daemon.with_token("short").await.status == 401).await;
    assert_eq!(get(site.daemon.check, "/check", &[&bearer("short")]).await.status, 401);
}

#[tokio::test]
async fn l1_what_another_node_revoked_ends_opaque_tokens_that_it_never_saw() {
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("digest.key"), [7; 32]).unwrap();
    let node = async |name: &str| {
        let folder = shared.path().display();
        let settings = format!(
            "\n[backend]\nurl = \"sqlite://{folder}/shared.db\"\nnode = \"{name}\"\n\n[recorder]\n\
             token_endpoint = \"/oauth/token\"\ndigest_key_file = \"{folder}/digest.key\"\n\n[directory]\n\
             kind = \"file\"\npath = \"users.toml\"\n\n[[client]]\nid = \"app\"\nsecret = \"s3cret\"\n\
             scopes = [\"global_token_revocation\", \"revoke_session\"]\n"
        );
        let own = tempfile::tempdir().unwrap();
        let users = format!(
            "[[user]]\nissuer = \"{}\"\nsub = \"alice\"\n[user.attributes]\nuid = \"alice\"\n",
            site::token::ISSUER
        );
        std::fs::write(own.path().join("users.toml"), users).unwrap();
        let upstream = Upstream::start().await;
        let daemon = Daemon::start_in(own, &upstream.url(), &settings).await;
        Site { daemon, upstream }
    };
    let (here, there) = (node("here").await, node("there").await);
    issue_these(
        &here,
        json!({"access_token": "of-alice", "token_type": "Bearer", "expires_in": 600, "id_token": token("i")}),
    )
    .await;
    assert_eq!(here.daemon.with_token("of-alice").await.status, 200);
    let basic = format!("authorization: Basic {}", STANDARD.encode("app:s3cret"));
    let answer = post_form(
        there.daemon.main,
        "/oauth/revoke_session",
        &[&basic],
        "user_criterion_key=uid&user_criterion_value=alice",
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually("it is refused here too", async || here.daemon.with_token("of-alice").await.status == 401).await;
}

#[tokio::test]
async fn two_readings_of_one_message_are_refused() {
    let site = Site::new("").await;
    let good = bearer(&token("good"));
    // What is hidden in the body must not come out as a request of its own.
    let hidden = format!("GET /hidden HTTP/1.1\r\nhost: x\r\n{}\r\n\r\n", bearer("garbage"));
    let host = "host: api.example\r\n";
    let rows = [
        (
            "both framings",
            format!(
                "POST / HTTP/1.1\r\n{host}{good}\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "both framings, the other way",
            format!(
                "POST / HTTP/1.1\r\n{host}transfer-encoding: chunked\r\ncontent-length: {}\r\n\r\n0\r\n\r\n{hidden}",
                5 + hidden.len()
            ),
        ),
        (
            "two lengths",
            format!("POST / HTTP/1.1\r\n{host}content-length: 0\r\ncontent-length: {}\r\n\r\n{hidden}", hidden.len()),
        ),
        ("a list of lengths", format!("POST / HTTP/1.1\r\n{host}content-length: 0, {}\r\n\r\n{hidden}", hidden.len())),
        ("a length with a sign", format!("POST / HTTP/1.1\r\n{host}content-length: +{}\r\n\r\n{hidden}", hidden.len())),
        (
            "chunked, and not last",
            format!("POST / HTTP/1.1\r\n{host}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("a folded line", format!("GET / HTTP/1.1\r\n{host}x: a\r\n {good}\r\n\r\n")),
        ("space before the colon", format!("GET / HTTP/1.1\r\n{host}content-length : 5\r\n\r\n{hidden}")),
        ("a line feed in a value", format!("GET / HTTP/1.1\r\n{host}x: a\rb\r\n\r\n")),
        (
            "a length of chunks too large",
            format!("POST / HTTP/1.1\r\n{host}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"),
        ),
    ];
    for (name, request) in rows {
        let mut wire = Wire::to(site.daemon.main).await;
        wire.write(request).await;
        wire.finish().await;
        let answers = String::from_utf8_lossy(&wire.rest().await).into_owned();
        let first = answers.get(9..12).unwrap_or_default().to_owned();
        let hidden = site.upstream.requests().iter().any(|request| request.target == "/hidden");
        assert!(!hidden, "{name}: what was hidden came out:\n{answers}");
        // 401 is the hidden request's own answer where it was read as a second request, which needs one reading for all.
        assert!(["", "400", "200"].contains(&first.as_str()), "{name}:\n{answers}");
        if let (true, Some(seen)) = (first == "200", site.upstream.requests().last()) {
            let framed = (seen.all("content-length").len(), seen.all("transfer-encoding").len());
            assert!(framed.0 + framed.1 <= 1, "{name}: passed on with two framings: {:?}", seen.headers);
        }
    }
    assert_eq!(get(site.daemon.main, "/", &[&good]).await.status, 200);
}

#[tokio::test]
async fn a_bare_line_feed_has_one_reading() {
    // RFC 9112 §2.2 lets a server take it for a line's end: then the token behind it counts.
    let site = Site::new("").await;
    let bad = token("bad");
    site.daemon.revoke(&bad).await;
    let answer =
        send(site.daemon.main, format!("GET / HTTP/1.1\nhost: x\nx: 1\n{}\nconnection: close\n\n", bearer(&bad))).await;
    assert!([400, 401].contains(&answer.status), "{}", answer.status);
    assert_eq!(site.upstream.requests().len(), 0);
}

#[tokio::test]
async fn garbage_neither_passes_nor_ends_the_daemon() {
    let site = Site::new("").await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for length in (0..64).map(|round| round * 37 % 2048 + 1) {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        for address in [site.daemon.main, site.daemon.check] {
            for start in
                [&b""[..], b"GET / HTTP/1.1\r\nhost: x\r\nauthorization: ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
            {
                let mut wire = Wire::to(address).await;
                wire.write([start, &bytes].concat()).await;
                wire.finish().await;
                wire.rest().await;
            }
        }
    }
    assert_eq!(site.upstream.requests().len(), 0);
    assert_eq!(site.daemon.with_token(&token("good")).await.status, 200);
}

#[tokio::test]
async fn heads_are_limited() {
    let site = Site::new("").await;
    for (length, status) in [(40, 200), (100, 431), (1000, 431)] {
        let mut wire = Wire::to(site.daemon.main).await;
        wire.write(head("GET", "/", &[&format!("x: {}", "a".repeat(length * 1024))])).await;
        assert_eq!(wire.head().await.status, status, "{length} KiB");
    }
    let asked = site.upstream.requests().len();
    let many: Vec<_> = (0..1000).map(|number| format!("x-{number}: 1")).collect();
    let answer = get(site.daemon.main, "/", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(answer.status, 431);
    let answer = get(site.daemon.main, "/", &[&bearer(&"a".repeat(17 * 1024))]).await;
    assert_eq!(answer.status, 400, "a token longer than any is refused as such");
    assert_eq!(site.upstream.requests().len(), asked);
}

#[tokio::test]
async fn connect_is_refused() {
    let site = Site::new("").await;
    let request = "CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22\r\n\r\n";
    let answer = send(site.daemon.main, request).await;
    assert_eq!(answer.status, 405);
    assert_eq!(site.upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_service_that_is_down_or_slow_shows() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let daemon = Daemon::start(&format!("http://{free}"), "").await;
    assert_eq!(get(daemon.main, "/", &[]).await.status, 502);

    let upstream = Upstream::start().await;
    let url = upstream.url();
    let settings = format!("\n[upstream]\nurl = \"{url}\"\nresponse_timeout = \"200ms\"\n");
    let daemon = Daemon::start(&url, &settings).await;
    assert_eq!(get(daemon.main, "/slow", &[]).await.status, 504);
    assert_eq!(get(daemon.main, "/", &[]).await.status, 200);
    upstream.answers("/broken", 500, "text/plain", "no");
    assert_eq!(get(daemon.main, "/broken", &[]).await.status, 500, "the service's own answer");
}

#[tokio::test]
async fn without_a_service_behind_there_are_the_routes_alone() {
    let site = Site::new("\n[upstream]\nnone = true\n").await;
    let bad = token("bad");
    assert_eq!(site.daemon.with_token(&bad).await.status, 404);
    site.daemon.revoke(&bad).await;
    assert_eq!(site.daemon.with_token(&bad).await.status, 401);
    assert_eq!(get(site.daemon.check, "/check", &[&bearer(&bad)]).await.status, 401);
}

#[tokio::test]
async fn a_token_in_a_form_counts() {
    let site = Site::new(&format!("\n{FORM}")).await;
    let (good, bad) = (token("good"), token("bad"));
    site.daemon.revoke(&bad).await;
    let main = site.daemon.main;
    let form = |token: &str| format!("a=1&access_token={token}&b=%20+");
    assert_eq!(post_form(main, "/", &[], &form(&bad)).await.status, 401);
    assert_eq!(post_form(main, "/", &[&bearer(&good)], &form(&bad)).await.status, 400, "form and header");
    assert_eq!(post_form(main, "/", &[], &format!("access_token={good}&access_token={bad}")).await.status, 400, "two");
    assert_eq!(post_form(main, "/", &[], &format!("access%5ftoken={bad}")).await.status, 401, "an escaped name");
    assert_eq!(post_form(main, "/", &["content-encoding: gzip"], &form(&good)).await.status, 415);
    assert_eq!(site.upstream.requests().len(), 0);

    assert_eq!(post_form(main, "/", &[], &form(&good)).await.status, 200);
    let seen = site.upstream.last();
    assert_eq!(seen.body, form(&good), "the body as it came");
    assert_eq!(seen.all("authorization"), [""; 0], "as it came: without the header");

    assert_eq!(post_form(main, "/", &[&bearer(&good)], "a=1").await.status, 200);
    assert_eq!(site.upstream.last().all("authorization"), [format!("Bearer {good}")]);
    let long = format!("a={}", "x".repeat(1024 * 1024));
    assert_eq!(post_form(main, "/", &[], &long).await.status, 413);
}

#[tokio::test]
async fn sessions_that_nobody_knows_are_refused_where_that_is_asked_for() {
    let settings = "\n[tokens]\nunknown_session = \"deny\"\n\n[recorder]\ntoken_endpoint = \"/oauth/token\"\n";
    let site = Site::new(settings).await;
    let (known, unknown) = (token_with(json!({"jti": "known", "sid": "s1"})), token("unknown"));
    issue(&site, &known).await;
    assert_eq!(site.daemon.with_token(&known).await.status, 200);
    assert_eq!(site.daemon.with_token(&unknown).await.status, 401);
    assert_eq!(get(site.daemon.check, "/check", &[&bearer(&unknown)]).await.status, 401);
}

#[tokio::test]
async fn opaque_tokens_pass_where_they_were_seen_issued() {
    let site = Site::new("\n[recorder]\ntoken_endpoint = \"/oauth/token\"\n").await;
    issue(&site, "opaque-and-known").await;
    assert_eq!(site.daemon.with_token("opaque-and-known").await.status, 200);
    assert_eq!(site.daemon.with_token("opaque-and-unknown").await.status, 401);
    site.daemon.revoke("opaque-and-known").await;
    assert_eq!(site.daemon.with_token("opaque-and-known").await.status, 401);
}

/// Has the server behind issue this token to the client `app`.
async fn issue(site: &Site, token: &str) {
    issue_these(site, json!({"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": "read"})).await;
}

/// The same with this answer of the token endpoint.
async fn issue_these(site: &Site, tokens: serde_json::Value) {
    let body = tokens.to_string();
    site.upstream.answers("/oauth/token", 200, "application/json", body.clone());
    let basic = format!("authorization: Basic {}", STANDARD.encode("app:s3cret"));
    let form = "grant_type=authorization_code&code=c&redirect_uri=https%3A%2F%2Fapp.example%2Fcb";
    let answer = post_form(site.daemon.main, "/oauth/token", &[&basic], form).await;
    assert_eq!((answer.status, answer.text()), (200, body));
}

#[tokio::test]
async fn an_endpoint_that_is_off_is_refused_in_the_janssen_profile() {
    let settings = "profile = \"janssen\"\n\n[endpoints.session]\nenabled = false\n";
    let site = Site::new(settings).await;
    let access = bearer(&token_with(json!({"jti": "admin", "scope": "revoke_session"})));
    let form = "user_criterion_key=uid&user_criterion_value=a";
    let answer = post_form(site.daemon.main, "/jans-auth/restv1/revoke_session", &[&access], form).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(site.upstream.requests().len(), 0);
}

#[tokio::test]
async fn modes_say_who_answers() {
    for (mode, upstream_says, status, revoked) in [
        ("record_then_forward", 200, 200, true),
        ("record_then_forward", 500, 500, true),
        ("forward_then_record", 200, 200, true),
        ("forward_then_record", 400, 400, false),
    ] {
        let site = Site::new(&format!("\n[endpoints.token]\nmode = \"{mode}\"\n")).await;
        site.upstream.answers("/oauth/revoke", upstream_says, "application/json", "{}");
        let token = token("t");
        let answer = Daemon::revoke_at(site.daemon.main, &token).await;
        assert_eq!(answer.status, status, "{mode} {upstream_says}: {}", answer.text());
        assert_eq!(site.upstream.last().body, format!("token={token}"), "{mode}: the server behind gets the request");
        let after = site.daemon.with_token(&token).await.status;
        assert_eq!(after == 401, revoked, "{mode} {upstream_says}: {after}");
    }
}

#[tokio::test]
async fn a_shutdown_lets_an_answer_under_way_end() {
    let Site { mut daemon, upstream } = Site::new("").await;
    let mut wire = Wire::to(daemon.main).await;
    wire.write("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    eventually("the request is under way", async || upstream.requests().len() == 1).await;
    daemon.signal("TERM");
    eventually("new connections are refused", async || TcpStream::connect(daemon.main).await.is_err()).await;
    upstream.release();
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "at last"));
    assert!(daemon.ended().await.success());
}

#[tokio::test]
async fn a_hangup_reads_the_configuration_anew() {
    let site = Site::new("").await;
    let (first, second) = (token("first"), token("second"));
    site.daemon.revoke(&first).await;
    let settings = "\n[[client]]\nid = \"app\"\nsecret = \"another\"\n";
    site.daemon.reload(&site.upstream.url(), settings).await;
    assert_eq!(Daemon::revoke_at(site.daemon.main, &second).await.status, 401, "the secret has changed");
    assert_eq!(site.daemon.with_token(&first).await.status, 401, "what was revoked stays so");
    assert_eq!(site.daemon.with_token(&second).await.status, 200);
    site.daemon.reload(&site.upstream.url(), "\n[[client]]\nid = 5\n").await;
    assert_eq!(site.daemon.with_token(&second).await.status, 200, "a broken file changes nothing");
}

#[tokio::test]
async fn connections_are_limited() {
    let site = Site::new("max_connections = 2\n").await;
    let mut open = [Wire::to(site.daemon.main).await, Wire::to(site.daemon.main).await];
    for wire in &mut open {
        wire.write("GET /open HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(wire.answer().await.status, 200);
    }
    let mut third = Wire::to(site.daemon.main).await;
    third.write(head("GET", "/third", &[])).await;
    open[0].write("GET /open HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(open[0].answer().await.status, 200);
    assert_eq!(site.upstream.last().target, "/open", "the third has to wait");
    assert_eq!(get(site.daemon.check, "/check", &[]).await.status, 200, "the other listeners answer");
    drop(open);
    assert_eq!(third.answer().await.status, 200);
}

#[tokio::test]
async fn tls_serves_both_versions_and_says_so() {
    let certificates = Certificates::new();
    let upstream = Upstream::start().await;
    let daemon = Daemon::start(&upstream.url(), &certificates.settings("")).await;
    for (protocol, expected) in [("http/1.1", "https"), ("h2", "https")] {
        let stream = certificates.connect(daemon.main, protocol, None).await;
        if protocol == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://named.example/").body(Empty::<Bytes>::new()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        } else {
            let mut wire = Wire::over(stream);
            wire.write(head("GET", "/", &["x-forwarded-proto: http"])).await;
            assert_eq!(wire.answer().await.status, 200);
        }
        assert_eq!(upstream.last().all("x-forwarded-proto"), [expected], "{protocol}");
    }
    // Plain HTTP there gets no answer of the service behind.
    assert_eq!(get(daemon.main, "/", &[]).await.status, 0);
}

#[tokio::test]
async fn clients_revoke_with_a_certificate() {
    let certificates = Certificates::new();
    let upstream = Upstream::start().await;
    let clients = "\n[[client]]\nid = \"app\"\nauth_method = \"tls_client_auth\"\ntls_client_auth_subject_dn = \"CN=by-authority\"\n\
                   \n[[client]]\nid = \"own\"\nauth_method = \"self_signed_tls_client_auth\"\n\
                   certificate_files = [\"OWN\"]\n";
    let clients = clients.replace("OWN", &certificates.path("own.pem").display().to_string());
    let daemon = Daemon::start(&upstream.url(), &certificates.settings(&clients)).await;
    let revoke = async |client: &str, certificate: Option<&str>, token: &str| {
        let mut wire = Wire::over(certificates.connect(daemon.main, "http/1.1", certificate).await);
        let form = format!("token={token}&client_id={client}");
        let length = format!("content-length: {}", form.len());
        let lines = ["content-type: application/x-www-form-urlencoded", &length];
        wire.write(head("POST", "/oauth/revoke", &lines) + &form).await;
        wire.answer().await.status
    };
    let check = async |token: &str| get(daemon.check, "/check", &[&bearer(token)]).await.status;
    let rows = [
        ("app", Some("by-authority"), 200),
        ("own", Some("own"), 200),
        ("app", None, 401),
        ("own", None, 401),
        // Neither another client's certificate counts, nor one of the right name that nobody vouches for.
        ("app", Some("own"), 401),
        ("own", Some("by-authority"), 401),
        ("app", Some("by-authority-forged"), 401),
    ];
    for (number, (client, certificate, status)) in rows.into_iter().enumerate() {
        let token = token_with(json!({"jti": format!("t{number}"), "client_id": client}));
        assert_eq!(revoke(client, certificate, &token).await, status, "{client} with {certificate:?}");
        assert_eq!(check(&token).await, if status == 200 { 401 } else { 200 }, "{client} with {certificate:?}");
    }
}

type Http2<B> = hyper::client::conn::http2::SendRequest<B>;

async fn http2<B>(address: std::net::SocketAddr) -> Http2<B>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn grpc_goes_through_both_ways_with_its_trailers() {
    let site = Site::new("").await;
    let (parts, receiver) = mpsc::unbounded_channel::<Bytes>();
    let body = StreamBody::new(stream::unfold(receiver, |mut parts| async move {
        parts.recv().await.map(|part| (Ok::<_, std::convert::Infallible>(Frame::data(part)), parts))
    }));
    let request = Request::post(format!("http://{}/pkg.Service/Method", site.daemon.main))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", token("t")))
        .body(Box::pin(body))
        .unwrap();
    let response = soon("the head", http2(site.daemon.main).await.send_request(request)).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].as_bytes()),
        (200, &b"application/grpc"[..])
    );
    let mut body = response.into_body();
    for message in ["one", "two"] {
        parts.send(Bytes::from(message)).unwrap();
        let frame = soon("the echo", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(parts);
    let trailers: HeaderMap = soon("trailers", body.frame()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!((trailers["grpc-status"].as_bytes(), trailers["x-trailer"].as_bytes()), (&b"0"[..], &b"kept"[..]));
    let seen = site.upstream.last();
    assert_eq!((seen.version, seen.all("te")), (Version::HTTP_2, vec!["trailers"]));
}

#[tokio::test]
async fn grpc_with_a_revoked_token_gets_a_status_of_grpc() {
    let site = Site::new("").await;
    let bad = token("bad");
    site.daemon.revoke(&bad).await;
    let request = Request::post(format!("http://{}/pkg.Service/Method", site.daemon.main))
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {bad}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = http2(site.daemon.main).await.send_request(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers().get("grpc-status")),
        (200, Some(&HeaderValue::from_static("16")))
    );
    assert_eq!(site.upstream.requests().len(), 0);
}

#[tokio::test]
async fn http2_requests_reach_a_service_of_http1() {
    let site = Site::new("").await;
    let request = Request::post("http://named.example/h2")
        .version(Version::HTTP_2)
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("authorization", format!("Bearer {}", token("t")))
        .body(Full::new(Bytes::from("body")))
        .unwrap();
    let mut sender = http2(site.daemon.main).await;
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = site.upstream.last();
    assert_eq!(
        (seen.version, seen.all("host"), seen.body.as_ref()),
        (Version::HTTP_11, vec!["named.example"], &b"body"[..])
    );
    // RFC 9113 §8.2.3: what HTTP/2 may split is one line again.
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);

    let request = Request::get("http://named.example/").header("host", "other.example").body(Full::default()).unwrap();
    sender.send_request(request).await.unwrap();
    assert_eq!(site.upstream.last().all("host"), ["named.example"], "one name for check and service");
    let collected = sender.send_request(Request::get("http://x/big").body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(collected.into_body().collect().await.unwrap().to_bytes().len(), BIG);
}

/// A key pair of a client, in a JWK set.
fn key_pair() -> (aws_lc_rs::signature::Ed25519KeyPair, String) {
    use aws_lc_rs::signature::KeyPair as _;
    let key = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(key.public_key());
    let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "alg": "EdDSA", "use": "sig", "x": x}]});
    (key, jwks.to_string())
}

#[tokio::test]
async fn signed_requests_are_verified_by_the_keys_of_their_own_sender_alone() {
    let ((own, jwks), (other, others)) = (key_pair(), key_pair());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.json"), jwks).unwrap();
    std::fs::write(folder.path().join("b.json"), others).unwrap();
    let client = |id: &str, keys: &str| {
        format!(
            "\n[[client]]\nid = \"{id}\"\nauth_method = \"private_key_jwt\"\nalgorithms = [\"EdDSA\"]\n{keys}\n\
             scopes = [\"global_token_revocation\"]\n"
        )
    };
    let away = "jwks_url = \"http://127.0.0.1:9/keys\"";
    let settings = [
        client("a", "jwks_file = \"a.json\""),
        client("b", "jwks_file = \"b.json\""),
        client("away", away),
        "\n[endpoints.global]\nunknown_user = 404\n".to_owned(),
    ]
    .concat();
    let upstream = Upstream::start().await;
    let daemon = Daemon::start_in(folder, &upstream.url(), &settings).await;
    let path = "/oauth/global-token-revocation";
    let ask = async |sub: &str, key: &aws_lc_rs::signature::Ed25519KeyPair, jti: &str| {
        let now = site::token::unix();
        let header = json!({"alg": "EdDSA", "typ": "global-token-revocation+jwt", "kid": "k"}).to_string();
        let claims = json!({
            "iss": site::token::ISSUER, "sub": sub, "aud": format!("https://api.example{path}"), "iat": now,
            "exp": now + 60, "jti": jti,
        });
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signed = format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes())));
        let body = json!({"sub_id": {"format": "iss_sub", "iss": site::token::ISSUER, "sub": "alice"}}).to_string();
        let lines = ["content-type: application/json", &format!("content-length: {}", body.len()), &bearer(&signed)];
        send(daemon.main, head("POST", path, &lines) + &body).await.status
    };
    assert_eq!(ask("a", &own, "1").await, 204);
    assert_eq!(ask("b", &other, "2").await, 204);
    assert_eq!(ask("a", &other, "3").await, 401, "b is not a");
    assert_eq!(ask("b", &own, "4").await, 401, "a is not b");
    assert_eq!(ask("nobody", &own, "5").await, 401);
    assert_eq!(ask("away", &own, "6").await, 422, "its keys cannot be had");
}
