//! The admin listener, over real sockets and with the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod admin_common;

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use admin_common::{Daemon, ISSUER, Redis, TOKEN, check_config, eventually, free_port, http, jwt, revoked};
use serde_json::{Value, json};

fn subject(sub: &str) -> Value {
    json!({ "kind": "subject", "iss": ISSUER, "sub": sub })
}

#[test]
fn what_is_revoked_is_refused_from_then_on_and_a_lift_takes_back_its_ids_only() {
    let daemon = Daemon::start();
    let token = jwt(json!({}));
    assert_eq!(daemon.through(&token), 200);
    let first = daemon.revoke(json!({ "kind": "session", "sid": "s1" }));
    assert_eq!((&first["outcome"], &first["scope"]["iss"]), (&json!("recorded"), &json!(ISSUER)));
    let second = daemon.revoke(json!({ "kind": "token", "iss": ISSUER, "jti": "t1" }));
    assert_eq!(daemon.through(&token), 401);

    let lift = daemon.call("POST", "/api/v1/revocations/lift", json!({ "ids": [first["id"]] }));
    assert_eq!(lift.json()["lifted"], json!([first["id"]]));
    assert_eq!(daemon.through(&token), 401, "the other one stands");
    let by_scope = json!({ "scope": second["scope"], "ids": [second["id"]] });
    assert_eq!(daemon.call("POST", "/api/v1/revocations/lift", by_scope).status, 200);
    assert_eq!(daemon.through(&token), 200);

    let gone = daemon.call("POST", "/api/v1/revocations/lift", json!({ "ids": [first["id"]] }));
    assert_eq!((gone.status, &gone.json()["missing"]), (404, &json!([first["id"]])));
}

#[test]
fn a_ban_ends_by_enabling_and_leaves_a_cutoff() {
    let daemon = Daemon::start();
    let ban = daemon.call("POST", "/api/v1/revocations", json!({ "scope": subject("alice"), "ban": true }));
    assert_eq!(ban.status, 200, "{}", ban.body);
    let (old, new) = (jwt(json!({})), jwt(json!({ "iat": admin_common::unix() + 20, "jti": "t2", "sid": "s2" })));
    assert_eq!((daemon.through(&old), daemon.through(&new)), (401, 401));
    let enable = daemon.call("POST", "/api/v1/revocations/lift", json!({ "scope": subject("alice"), "enable": true }));
    assert_eq!(enable.status, 200, "{}", enable.body);
    assert_eq!((daemon.through(&old), daemon.through(&new)), (401, 200));
}

#[test]
fn rule_24_changes_need_the_token_even_on_loopback() {
    let daemon = Daemon::start();
    let json = "content-type: application/json";
    let body = json!({ "scope": subject("alice") }).to_string();
    let changes = [
        ("POST", "/api/v1/revocations", json, body.as_str()),
        ("POST", "/api/v1/revocations/lift", json, "{\"ids\":[\"1\"]}"),
        ("PUT", "/api/v1/endpoints", json, "{\"token\":false}"),
        ("POST", "/api/v1/import", "content-type: application/x-ndjson", ""),
    ];
    for (method, path, media, body) in changes {
        let answer = daemon.ask(method, path, &[media], body);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"revoked\""));
        let answer = daemon.ask(method, path, &[media, "authorization: Bearer wrong"], body);
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("invalid_token")), "{path}");
        let two = [media, "authorization: Bearer wrong", &format!("authorization: Bearer {TOKEN}")];
        assert_eq!(daemon.ask(method, path, &two, body).status, 400, "{path}");
    }
    assert_eq!(daemon.get("/api/v1/revocations").json()["revocations"], json!([]));
    for path in ["/metrics", "/api/v1/status", "/api/v1/nodes", "/api/v1/endpoints", "/api/v1/export"] {
        let answer = daemon.get(path);
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{path}");
        assert!(answer.header("access-control-allow-origin").is_none());
    }
    assert_eq!(daemon.ask("GET", "/api/v1/status", &["authorization: Bearer wrong"], "").status, 401);
    // A proxy on this machine speaks for others.
    assert_eq!(daemon.ask("GET", "/api/v1/status", &["x-forwarded-for: 192.0.2.1"], "").status, 401);
}

#[test]
fn rule_24_host_and_origin_are_the_listeners_own() {
    let daemon = Daemon::start();
    let token = format!("authorization: Bearer {TOKEN}");
    let ask = |headers: &[&str]| {
        let headers: Vec<_> = headers.iter().copied().chain([token.as_str()]).collect();
        http(daemon.admin, "GET", "/api/v1/status", &headers, b"").status
    };
    let port = daemon.admin.port();
    let own = format!("host: localhost:{port}");
    assert_eq!(ask(&[&own]), 200);
    assert_eq!(ask(&[&own, &format!("origin: http://localhost:{port}")]), 200);
    for host in ["rebound.example", &format!("rebound.example:{port}"), "localhost:1", "localhost", ""] {
        assert_eq!(ask(&[&format!("host: {host}")]), 403, "{host}");
    }
    for origin in ["http://rebound.example", "null", "http://localhost:1", &format!("http://127.0.0.1:{port}"), ""] {
        assert_eq!(ask(&[&own, &format!("origin: {origin}")]), 403, "{origin}");
    }
    // Probes come under any name.
    assert_eq!(http(daemon.admin, "GET", "/livez", &["host: 10.0.0.7"], b"").status, 200);
    assert_eq!(http(daemon.admin, "GET", "/readyz", &["host: 10.0.0.7"], b"").status, 200);
}

#[test]
fn wrong_tokens_are_limited() {
    let daemon = Daemon::start();
    let ask = |token: &str| daemon.ask("GET", "/api/v1/status", &[&format!("authorization: Bearer {token}")], "");
    for attempt in 0..10 {
        assert_eq!(ask(&format!("wrong-{attempt}")).status, 401);
    }
    let limited = ask("wrong-11");
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("60")));
    assert_eq!(ask(TOKEN).status, 429, "a guess that is right must not be told from others");
    assert_eq!(daemon.get("/readyz").status, 200);
    assert!(daemon.get("/metrics").body.contains("revoked_admin_wrong_tokens_total 10\n"));
    assert!(!daemon.log().contains("wrong-3"), "{}", daemon.log());
}

#[test]
fn a_token_is_made_where_none_is_named() {
    let daemon = Daemon::prepared("sqlite://revoked.db", false, "").running();
    let file = daemon.path("admin.token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = fs::read_to_string(&file).unwrap();
    assert_eq!(token.trim().len(), 64);
    assert!(daemon.log().contains("admin.token") && !daemon.log().contains(token.trim()));
    let body = json!({ "scope": subject("alice") }).to_string();
    let right = format!("authorization: Bearer {}", token.trim());
    let json = "content-type: application/json";
    assert_eq!(daemon.ask("POST", "/api/v1/revocations", &[json], &body).status, 401);
    assert_eq!(daemon.ask("POST", "/api/v1/revocations", &[json, &right], &body).status, 200);
    daemon.cli(&["revoke", "--subject", "bob"]).succeeded();
}

#[test]
fn others_may_not_reach_it_without_a_token_file() {
    let daemon = Daemon::prepared("sqlite://revoked.db", false, "");
    let text = fs::read_to_string(daemon.config()).unwrap();
    let open =
        text.replace(&format!("listen = \"{}\"\n\n[backend]", daemon.admin), "listen = \"0.0.0.0:0\"\n\n[backend]");
    assert_ne!(open, text);
    daemon.write_config(&open);
    let checked = check_config(&daemon.config());
    assert_eq!(checked.code, 2);
    assert!(checked.err.contains("revoked.toml:6: admin.listen: can be reached from elsewhere"), "{}", checked.err);
}

#[test]
fn elsewhere_reading_needs_the_token_too() {
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "");
    let text = fs::read_to_string(daemon.config()).unwrap();
    let port = daemon.admin.port();
    daemon.write_config(&text.replace(&daemon.admin.to_string(), &format!("0.0.0.0:{port}")));
    let daemon = daemon.running();
    for path in ["/metrics", "/api/v1/status", "/api/v1/revocations"] {
        assert_eq!(daemon.get(path).status, 401, "{path}");
        assert_eq!(daemon.ask("GET", path, &[&format!("authorization: Bearer {TOKEN}")], "").status, 200, "{path}");
    }
    assert_eq!(daemon.get("/livez").status, 200);
}

#[test]
fn bodies_are_json_and_bounded() {
    let daemon = Daemon::start();
    let token = format!("authorization: Bearer {TOKEN}");
    let ask = |media: &str, body: &str| daemon.ask("POST", "/api/v1/revocations", &[&token, media], body).status;
    let body = json!({ "scope": subject("alice") }).to_string();
    assert_eq!(ask("content-type: text/plain", &body), 415);
    assert_eq!(ask("content-type: application/x-www-form-urlencoded", "scope=x"), 415);
    assert_eq!(ask("x-nothing: here", &body), 415);
    assert_eq!(ask("content-type: application/json", "{"), 400);
    assert_eq!(ask("content-type: application/json", &format!("{{\"reason\":\"{}\"}}", "x".repeat(70_000))), 413);
    for (body, what) in [
        (json!({}), "either"),
        (json!({ "scope": { "kind": "subject", "sub": "" } }), "none of them empty"),
        (json!({ "scope": { "kind": "subject", "sub": "a", "sid": "b" } }), "none of them empty"),
        (json!({ "scope": { "kind": "subject", "iss": "https://other.example/", "sub": "a" } }), "no such issuer"),
        (json!({ "scope": subject("a"), "ban": true, "cutoff": "now" }), "no cutoff"),
        (json!({ "scope": subject("a"), "cutoff": "soon" }), "RFC 3339"),
        (json!({ "scope": subject("a"), "unknown": 1 }), "unknown field"),
        (json!({ "token": "x.y.z" }), "none of a known issuer's"),
    ] {
        let answer = daemon.call("POST", "/api/v1/revocations", body.clone());
        assert_eq!(answer.status, 422, "{body}");
        assert!(answer.body.contains(what), "{body}: {}", answer.body);
    }
    assert_eq!(daemon.get("/api/v1/revocations").json()["revocations"], json!([]));
    assert_eq!(daemon.ask("DELETE", "/api/v1/revocations", &[&token], "").status, 405);
    assert_eq!(daemon.get("/api/v2").status, 404);
    assert_eq!(daemon.get("/api/v1/revocations?nothing=1").status, 400);
}

#[test]
fn the_list_goes_in_pages_and_can_be_searched() {
    let daemon = Daemon::start();
    for number in 0..25 {
        daemon.revoke(subject(&format!("user-{number}")));
    }
    daemon.revoke(json!({ "kind": "session", "sid": "Findable" }));
    let (mut found, mut pages, mut after) = (BTreeSet::new(), 0, String::new());
    loop {
        let page = daemon.get(&format!("/api/v1/revocations?scope=subject&limit=10{after}")).json();
        for listed in page["revocations"].as_array().unwrap() {
            assert!(found.insert(listed["scope"]["sub"].as_str().unwrap().to_owned()), "twice: {listed}");
            assert_eq!(listed["revoked_by"], "admin");
        }
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((found.len(), pages), (25, 3));
    let count = |query: &str| {
        daemon.get(&format!("/api/v1/revocations?{query}")).json()["revocations"].as_array().unwrap().len()
    };
    assert_eq!((count("q=fINDABLE"), count("sub=user-7"), count("limit=1000"), count("q=nobody")), (1, 1, 26, 0));
    // In full: without a look at all the others.
    assert_eq!(count(&format!("scope=subject&iss={ISSUER}&sub=user-7")), 1);
    assert_eq!(count(&format!("scope=subject&iss={ISSUER}&sub=user-77")), 0);
    for wrong in ["limit=0", "limit=1001", "after=x", "scope=user"] {
        assert_eq!(daemon.get(&format!("/api/v1/revocations?{wrong}")).status, 422, "{wrong}");
    }
    assert_eq!(daemon.get("/api/v1/revocations?q=a&q=b").status, 400);
    // What is lifted is not live.
    let id = daemon.get("/api/v1/revocations?q=findable").json()["revocations"][0]["id"].clone();
    assert_eq!(daemon.call("POST", "/api/v1/revocations/lift", json!({ "ids": [id] })).status, 200);
    assert_eq!(count("q=findable"), 0);
}

#[test]
fn a_check_tells_the_verdict_and_why() {
    let daemon = Daemon::start();
    let check = |token: &str| {
        daemon
            .ask("POST", "/api/v1/check", &["content-type: application/json"], &json!({ "token": token }).to_string())
            .json()
    };
    let token = jwt(json!({}));
    let clear = check(&token);
    assert_eq!(
        (&clear["verdict"], &clear["identity"]["sub"], &clear["revocations"]),
        (&json!("allow"), &json!("alice"), &json!([]))
    );
    let id = daemon.revoke(subject("alice"))["id"].clone();
    let revoked = check(&token);
    assert_eq!((&revoked["verdict"], &revoked["reason"]), (&json!("deny"), &json!("revoked")));
    assert_eq!(revoked["revocations"][0]["id"], id);
    let old = check(&jwt(json!({ "sub": "bob", "sid": "s2", "iat": 1000, "exp": 2000 })));
    assert_eq!(
        (&old["verdict"], &old["reason"], &old["identity"]["sub"]),
        (&json!("deny"), &json!("expired"), &json!("bob"))
    );
    let forged = check(&format!("{}x", jwt(json!({ "sub": "bob" }))));
    assert_eq!((&forged["verdict"], &forged["identity"]), (&json!("deny"), &Value::Null));
    assert_eq!(check("two tokens")["verdict"], "deny");
    // An operator's question is no request.
    let metrics = daemon.get("/metrics").body;
    let refused: Vec<_> = metrics.lines().filter(|line| line.starts_with("revoked_requests_refused_total{")).collect();
    assert!(refused.len() > 20 && refused.iter().all(|line| line.ends_with(" 0")), "{refused:?}");
    assert!(!daemon.log().contains(&token));
}

#[test]
fn a_preview_tells_what_is_there() {
    let daemon =
        Daemon::prepared("sqlite://revoked.db", true, "[recorder]\ntoken_endpoint = \"/oauth/token\"\n").running();
    let preview = || {
        let answer = daemon.ask(
            "POST",
            "/api/v1/revocations/preview",
            &["content-type: application/json"],
            &json!({ "scope": subject("alice") }).to_string(),
        );
        answer.json()
    };
    let before = preview();
    assert_eq!(
        (&before["revocations"], &before["cutoff"], &before["sessions"], &before["grants"]),
        (&json!(0), &Value::Null, &json!(0), &json!(0))
    );
    daemon.revoke(subject("alice"));
    let after = preview();
    assert_eq!(after["revocations"], 1);
    assert!(after["cutoff"].as_u64().is_some(), "{after}");
    assert_eq!(
        daemon.get("/api/v1/revocations").json()["revocations"].as_array().unwrap().len(),
        1,
        "a preview is no revocation"
    );
}

#[test]
fn endpoints_are_turned_while_it_runs() {
    let daemon = Daemon::start();
    // The service behind answers 200 to everything; the endpoint wants to know who asks.
    let status = || {
        http(
            daemon.listen,
            "POST",
            "/oauth/revoke",
            &["host: app", "content-type: application/x-www-form-urlencoded"],
            b"token=x",
        )
        .status
    };
    assert_eq!(status(), 401);
    let off = daemon.call("PUT", "/api/v1/endpoints", json!({ "token": false }));
    assert_eq!((off.status, &off.json()["endpoints"]["token"]["enabled"]), (200, &json!(false)));
    assert_eq!(status(), 200);
    assert!(daemon.get("/metrics").body.contains("revoked_endpoint_enabled{endpoint=\"token\"} 0\n"));
    assert_eq!(daemon.call("PUT", "/api/v1/endpoints", json!({ "token": true })).status, 200);
    assert_eq!(status(), 401);
    assert_eq!(daemon.call("PUT", "/api/v1/endpoints", json!({ "tokens": true })).status, 422);
    assert_eq!(daemon.call("PUT", "/api/v1/endpoints", json!({})).status, 422);
}

#[test]
fn readiness_follows_the_store() {
    let redis = Redis::start();
    let daemon = Daemon::prepared(&redis.url(), true, "").running();
    assert_eq!(daemon.get("/readyz").json(), json!({ "ready": true, "why": [] }));
    let metrics = daemon.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.body.contains("revoked_ready 1\n"), "{}", metrics.body);
    drop(redis);
    eventually("it is not ready", || daemon.get("/readyz").status == 503);
    let why = daemon.get("/readyz").json()["why"].clone();
    assert!(why[0].as_str().unwrap().contains("stale"), "{why}");
    assert_eq!(daemon.get("/livez").status, 200);
    assert!(daemon.get("/metrics").body.contains("revoked_ready 0\n"));
    assert_eq!(daemon.through(&jwt(json!({}))), 503);
    let revoke = daemon.call("POST", "/api/v1/revocations", json!({ "scope": subject("alice") }));
    assert_eq!((revoke.status, revoke.header("retry-after")), (503, Some("1")));
    assert_eq!(daemon.cli(&["status"]).code, 5);
    assert_eq!(daemon.cli(&["check", &jwt(json!({}))]).code, 5);
}

#[test]
fn a_preview_tells_what_would_be_recorded_and_records_nothing() {
    let daemon = Daemon::start();
    let preview = |asked: Value| {
        let answer = daemon.call("POST", "/api/v1/revocations/preview", asked);
        (answer.status, answer.json()["would"].clone())
    };
    let now = admin_common::unix();
    let (_, usual) = preview(json!({ "scope": subject("alice") }));
    let cutoff = usual["cutoff"].as_u64().unwrap();
    assert!((now..now + 60).contains(&cutoff), "{usual}");
    let (_, ban) = preview(json!({ "scope": subject("alice"), "ban": true }));
    assert_eq!(ban, json!({ "cutoff": "forever", "retain_until": "lifted" }));
    let (_, past) = preview(json!({ "scope": subject("alice"), "cutoff": now - 1000 }));
    assert_eq!(past["cutoff"], now - 1000);
    // A token's record leaves with the token, which has ten minutes left, and what clocks and leeways add.
    let (_, token) = preview(json!({ "token": jwt(json!({})) }));
    assert_eq!(token["cutoff"], "forever");
    let kept = token["retain_until"].as_u64().unwrap();
    assert!((now + 590..now + 900).contains(&kept) && kept < usual["retain_until"].as_u64().unwrap(), "{token}");
    // What could not be revoked so, cannot be previewed so.
    assert_eq!(preview(json!({ "scope": subject("alice"), "cutoff": now + 1000 })).0, 422);
    assert_eq!(preview(json!({ "scope": subject("alice"), "ban": true, "cutoff": now })).0, 422);
    assert_eq!(daemon.get("/api/v1/revocations").json()["revocations"], json!([]));

    // It is what is recorded then.
    let asked = json!({ "scope": subject("alice"), "cutoff": now - 1000 });
    assert_eq!(daemon.call("POST", "/api/v1/revocations", asked).status, 200);
    let recorded = daemon.get("/api/v1/revocations").json()["revocations"][0].clone();
    assert_eq!(recorded["cutoff"], past["cutoff"]);
    let apart = recorded["retain_until"].as_u64().unwrap().abs_diff(past["retain_until"].as_u64().unwrap());
    assert!(apart < 60, "{recorded} {past}");
    let said = daemon.cli(&["preview", "--subject", "alice", "--ban"]).succeeded();
    assert!(said.out.contains("would refuse  forever") && said.out.contains("kept until    lifted"), "{}", said.out);
}

#[test]
fn refused_requests_are_told_without_their_tokens() {
    let check_port = free_port();
    let section = format!("[forward_auth]\nlisten = \"127.0.0.1:{check_port}\"\n");
    let daemon = Daemon::prepared("sqlite://revoked.db", true, &section).running();
    assert_eq!(daemon.get("/api/v1/denials").json(), json!({ "denials": [] }));
    daemon.revoke(subject("alice"));
    let token = jwt(json!({}));
    let header = format!("authorization: Bearer {token}");
    let refused = |method: &str, path: &str, header: &str| {
        assert_eq!(http(daemon.listen, method, path, &["host: app", header], b"").status, 401);
    };
    refused("GET", "/orders/1?access=hidden", &header);
    refused("DELETE", &format!("/{token}/x"), &header);
    refused("GET", "/", "authorization: Bearer eyJhbGciOiJub25lIn0.e30.");
    assert_eq!(daemon.through(&jwt(json!({ "sub": "bob", "sid": "s2", "jti": "t2" }))), 200);
    // What an operator asks is no request.
    let check = daemon.call("POST", "/api/v1/check", json!({ "token": token }));
    assert_eq!(check.json()["verdict"], "deny");

    let answer = daemon.get("/api/v1/denials");
    let told = answer.json()["denials"].as_array().unwrap().clone();
    let told = |index: usize| {
        let denied: &Value = &told[index];
        ["number", "door", "reason", "scope", "method", "path"].map(|name| denied[name].clone())
    };
    let revoked = |number: u64, method: &str, path: &str| {
        [json!(number), json!("proxy"), json!("revoked"), json!("subject"), json!(method), json!(path)]
    };
    assert_eq!(told(2), revoked(1, "GET", "/orders/1"));
    assert_eq!(told(1), revoked(2, "DELETE", "/…/x"));
    assert_eq!(told(0)[..2], [json!(3), json!("proxy")]);
    assert!(told(0)[3].is_null());
    for secret in ["hidden", "eyJ", "alice"] {
        assert!(!answer.body.contains(secret), "{secret}: {}", answer.body);
    }
    let check = ["host: check", &header, "x-forwarded-method: PUT", "x-forwarded-uri: /asked?secret=1"];
    assert_eq!(http(([127, 0, 0, 1], check_port).into(), "GET", "/check", &check, b"").status, 401);
    let asked = daemon.get("/api/v1/denials").json()["denials"][0].clone();
    let asked = ["door", "reason", "method", "path"].map(|name| asked[name].as_str().unwrap().to_owned());
    assert_eq!(asked, ["forward_auth", "revoked", "PUT", "/asked"]);
    let said = daemon.cli(&["denials"]).succeeded();
    assert!(said.out.contains("revoked") && said.out.contains("/orders/1"), "{}", said.out);

    // The feed begins with those that are kept, and with how the node stands.
    let feed = first_of_feed(&daemon, "event: denied");
    for part in ["event: status\ndata: {", "event: nodes\ndata: {", "\"path\":\"/orders/1\"", "\"refused\":4"] {
        assert!(feed.contains(part), "{part}: {feed}");
    }
}

/// The feed until it has said this.
fn first_of_feed(daemon: &Daemon, until: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(daemon.admin).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    write!(stream, "GET /api/v1/feed HTTP/1.1\r\nhost: {}\r\n\r\n", daemon.admin).unwrap();
    let mut text = String::new();
    while !text.contains(until) {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "the feed ended: {text}");
        text += &String::from_utf8_lossy(&bytes[..read]);
    }
    assert!(text.to_ascii_lowercase().contains("content-type: text/event-stream"), "{text}");
    text
}

#[test]
fn the_openapi_document_is_what_the_listener_does() {
    let daemon = Daemon::start();
    let document = daemon.get("/api/v1/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let token = format!("authorization: Bearer {TOKEN}");
    let mut routes = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete", "patch"] {
            let name = format!("{} {path}", method.to_uppercase());
            let Some(operation) = operations.get(method) else {
                let answer = daemon.ask(&method.to_uppercase(), path, &[&token], "");
                assert_eq!(answer.status, 405, "{name} is there, and the document does not have it");
                continue;
            };
            routes.insert(name.clone());
            references(&document, operation);
            let documented = |status: u16| operation["responses"].get(status.to_string()).is_some();
            // Feeds never end.
            let feed = ["/api/v1/watch", "/api/v1/feed"].contains(&path.as_str());
            let mut seen = vec![];
            if !feed {
                let media = operation["requestBody"]["content"]
                    .as_object()
                    .map(|content| content.keys().next().unwrap().clone());
                let media = format!("content-type: {}", media.unwrap_or_default());
                for body in ["", "{", "{}", "{\"ids\":[\"1\"]}", "{\"token\":\"x\"}", &"x".repeat(70_000)] {
                    let body = if method == "get" { "" } else { body };
                    seen.push(daemon.ask(&method.to_uppercase(), path, &[&token, &media], body));
                }
            }
            seen.push(daemon.ask(&method.to_uppercase(), path, &[&token, &token, "content-type: text/css"], ""));
            if !feed {
                seen.push(daemon.ask(&method.to_uppercase(), path, &[&token, "content-type: text/css"], "x"));
                seen.push(http(daemon.admin, &method.to_uppercase(), path, &["host: rebound.example", &token], b""));
            }
            if operation["security"] == json!([{ "token": [] }]) {
                seen.push(daemon.ask(&method.to_uppercase(), path, &[], ""));
                assert_eq!(seen.last().unwrap().status, 401, "{name}");
            }
            for answer in seen {
                assert!(
                    ![404, 405].contains(&answer.status) || documented(answer.status),
                    "{name} is not there: {answer:?}"
                );
                assert!(
                    documented(answer.status),
                    "{name} answers {}, which the document does not have",
                    answer.status
                );
                let media = answer.header("content-type").unwrap();
                assert!(
                    operation["responses"][answer.status.to_string()]["content"].get(media).is_some(),
                    "{name}: {media}"
                );
            }
        }
    }
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/revoked.md")).unwrap();
    let listed =
        docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(route, _)| route.to_owned());
    let listed: BTreeSet<_> = listed.filter(|route| route.contains(" /")).collect();
    assert_eq!(routes, listed, "the document and docs/revoked.md");
}

/// Every reference in `value` leads somewhere.
fn references(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let target = document.pointer(reference.trim_start_matches('#'));
                references(document, target.unwrap_or_else(|| panic!("{reference} leads nowhere")));
            }
            members.values().for_each(|value| references(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| references(document, value)),
        _ => {}
    }
}

#[test]
fn sighup_reads_the_file_anew_and_refuses_a_bad_one() {
    let daemon = Daemon::start();
    let text = fs::read_to_string(daemon.config()).unwrap();
    let endpoint = |client: &str| {
        let credentials = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, client);
        let authorization = format!("authorization: Basic {credentials}");
        let headers = ["host: app", "content-type: application/x-www-form-urlencoded", &authorization];
        http(daemon.listen, "POST", "/oauth/revoke", &headers, b"token=x").status
    };
    assert_eq!((endpoint("app:s3cret"), endpoint("new:n3w-secret")), (200, 401));
    let client = "[[client]]\nid = \"new\"\nsecret = \"n3w-secret\"\n";
    daemon.write_config(&format!("{text}{client}[endpoints.session]\nenabled = false\n"));
    daemon.reload("the configuration was read anew");
    assert_eq!(endpoint("new:n3w-secret"), 200);
    assert_eq!(daemon.get("/api/v1/endpoints").json()["endpoints"]["session"]["enabled"], false);

    daemon.write_config(&format!("{text}[endpoints.token]\nenabld = false\n"));
    daemon.reload("the configuration was refused");
    assert!(daemon.log().contains("endpoints.token.enabld: unknown key"), "{}", daemon.log());
    assert_eq!(endpoint("new:n3w-secret"), 200, "the running one stays");
    assert_eq!(daemon.get("/api/v1/endpoints").json()["endpoints"]["session"]["enabled"], false);
}

#[test]
fn sighup_refuses_what_no_daemon_could_start_with() {
    let daemon = Daemon::start();
    let text = fs::read_to_string(daemon.config()).unwrap();
    for (faulty, expected) in [
        (format!("{text}[tls]\ncert_file = \"nowhere\"\nkey_file = \"nowhere\"\n"), "tls.cert_file: "),
        (text.replace("token_file = \"token\"", "token_file = \"nowhere\""), "admin.token_file: "),
    ] {
        daemon.write_config(&faulty);
        daemon.reload("the configuration was refused");
        assert!(daemon.log().contains(expected), "{}", daemon.log());
    }
    daemon.write_config(&text);
    daemon.reload("the configuration was read anew");
}

#[test]
fn signals_count_from_the_first_moment_on() {
    let store = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", store.local_addr().unwrap());
    let daemon = Daemon::prepared(&url, true, "");
    let mut child = revoked().args(["serve", "--config"]).arg(daemon.config()).spawn().unwrap();
    // It asks a store that does not answer.
    let _asks = store.accept().unwrap();
    let tell = |signal: &str| std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(tell("-HUP").unwrap().success() && tell("-TERM").unwrap().success());
    eventually("the daemon has ended", || child.try_wait().unwrap().is_some());
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn an_endpoint_is_turned_one_way_only() {
    let daemon = Daemon::start();
    let headers = [&format!("authorization: Bearer {TOKEN}"), "content-type: application/json"];
    let answer = daemon.ask("PUT", "/api/v1/endpoints", &headers, r#"{"token":true,"token":false}"#);
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(daemon.get("/api/v1/endpoints").json()["endpoints"]["token"]["enabled"], true);
}

#[test]
fn a_path_says_which_methods_it_takes() {
    let daemon = Daemon::start();
    for (method, path, allow) in [
        ("OPTIONS", "/api/v1/revocations", "GET, POST, HEAD"),
        ("DELETE", "/livez", "GET, HEAD"),
        ("GET", "/api/v1/import", "POST"),
    ] {
        let answer = daemon.ask(method, path, &[], "");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
}

#[test]
fn the_environment_overrides_the_file() {
    let port = free_port();
    let mut daemon =
        Daemon::prepared("sqlite://revoked.db", true, "").env("REVOKED__ADMIN__LISTEN", &format!("127.0.0.1:{port}"));
    daemon.admin = ([127, 0, 0, 1], port).into();
    let daemon = daemon.env("REVOKED__BACKEND__NODE", "named-by-the-environment").running();
    assert_eq!(daemon.get("/api/v1/status").json()["node"], "named-by-the-environment");
}

#[test]
fn opaque_tokens_end_where_there_is_a_recorder() {
    let daemon =
        Daemon::prepared("sqlite://revoked.db", true, "[recorder]\ntoken_endpoint = \"/oauth/token\"\n").running();
    let revoke = |token: &str| daemon.call("POST", "/api/v1/revocations", json!({ "token": token }));
    let opaque = revoke("an-opaque-token");
    assert_eq!((opaque.status, &opaque.json()["scope"]["kind"]), (200, &json!("opaque_token")), "{}", opaque.body);
    assert!(!opaque.body.contains("an-opaque-token"));
    // Claims decide about what looks like a JWT: its digest would revoke nothing.
    assert_eq!(revoke(&format!("{}x", jwt(json!({})))).status, 422);
    let check = daemon.cli(&["check", "--json", "an-opaque-token"]);
    assert_eq!((check.code, &check.json()["reason"]), (3, &json!("revoked")));
    let exported = daemon.cli(&["export", "-"]).succeeded().out;
    let imported = daemon.cli_with(&["import", "-"], &exported).succeeded();
    assert_eq!(imported.err, "0 recorded, 1 known already or over\n");
}

#[test]
fn a_watcher_does_not_hold_a_shutdown_up() {
    let mut daemon = Daemon::start();
    let watching = daemon.follow(&["watch"]);
    watching.line("watching");
    daemon.signal("-TERM");
    daemon.ended();
    assert!(daemon.log().contains("shutting down") && !daemon.log().contains("still open"), "{}", daemon.log());
}
