//! The door for HAProxy: frames made by hand, and HAProxy itself where it is installed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod rpc;

use std::{
    collections::HashMap,
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;

use self::rpc::{Daemon, Echo, field, free_port, gateway, http, program, revocation, token, until};

const DOOR: &str = "[spoe]\nlisten = \"127.0.0.1:0\"\n";

const HELLO: u8 = 1;
const DISCONNECT: u8 = 2;
const NOTIFY: u8 = 3;
const AGENT_HELLO: u8 = 101;
const AGENT_DISCONNECT: u8 = 102;
const ACK: u8 = 103;

/// A connection as HAProxy makes it.
struct Haproxy {
    stream: TcpStream,
}

/// A frame that the agent sent.
#[derive(Debug)]
struct Frame {
    kind: u8,
    stream: u64,
    frame: u64,
    payload: Vec<u8>,
}

impl Haproxy {
    fn connect(daemon: &Daemon) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", daemon.port("SPOE"))).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream }
    }

    fn new(daemon: &Daemon) -> Self {
        let mut haproxy = Self::connect(daemon);
        haproxy.send(&hello(16_380, &[]));
        assert_eq!(haproxy.next().kind, AGENT_HELLO);
        haproxy
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn next(&mut self) -> Frame {
        self.try_next().unwrap()
    }

    /// `None`: the agent has closed the connection.
    fn try_next(&mut self) -> Option<Frame> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("{error}"),
            read => read.ok()?,
        }
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        let (kind, flags) = (frame[0], &frame[1..5]);
        assert_eq!(flags, [0, 0, 0, 1], "the last fragment");
        let mut rest = &frame[5..];
        let (stream, id) = (varint(&mut rest), varint(&mut rest));
        Some(Frame { kind, stream, frame: id, payload: rest.to_vec() })
    }

    /// The variables after a question.
    fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> HashMap<String, String> {
        self.send(&frame(NOTIFY, 7, 3, &check_request(method, path, headers)));
        let ack = self.next();
        assert_eq!((ack.kind, ack.stream, ack.frame), (ACK, 7, 3));
        ack.variables()
    }

    fn verdict(&mut self, authorization: &str) -> (String, String) {
        let variables = self.ask("GET", "/", &[("authorization", authorization)]);
        (variables["verdict"].clone(), variables.get("status").cloned().unwrap_or_default())
    }

    /// Whether the agent says farewell with this status and closes the connection.
    fn is_left(&mut self, status: u64) {
        let farewell = self.next();
        assert_eq!(farewell.kind, AGENT_DISCONNECT);
        assert_eq!(farewell.items()["status-code"], status.to_string());
        assert!(self.try_next().is_none());
    }
}

impl Frame {
    fn variables(&self) -> HashMap<String, String> {
        let (mut rest, mut variables) = (self.payload.as_slice(), HashMap::new());
        while !rest.is_empty() {
            assert_eq!(rest[..3], [1, 3, 2], "set-var with three arguments in the scope txn");
            rest = &rest[3..];
            let name = text(&mut rest);
            variables.insert(name, typed(&mut rest));
        }
        variables
    }

    fn items(&self) -> HashMap<String, String> {
        let (mut rest, mut items) = (self.payload.as_slice(), HashMap::new());
        while !rest.is_empty() {
            let name = text(&mut rest);
            items.insert(name, typed(&mut rest));
        }
        items
    }
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut next = || {
        let byte = rest[0];
        *rest = &rest[1..];
        u64::from(byte)
    };
    let mut value = next();
    if value < 240 {
        return value;
    }
    for shift in (4..).step_by(7) {
        let byte = next();
        value += byte << shift;
        if byte < 128 {
            break;
        }
    }
    value
}

fn text(rest: &mut &[u8]) -> String {
    let length = varint(rest) as usize;
    let text = String::from_utf8(rest[..length].to_vec()).unwrap();
    *rest = &rest[length..];
    text
}

fn typed(rest: &mut &[u8]) -> String {
    let kind = rest[0];
    *rest = &rest[1..];
    match kind {
        3 => varint(rest).to_string(),
        8 => text(rest),
        other => panic!("type {other}"),
    }
}

fn put_varint(mut value: u64, into: &mut Vec<u8>) {
    if value < 240 {
        return into.push(value as u8);
    }
    into.push(value as u8 | 240);
    value = (value - 240) >> 4;
    while value >= 128 {
        into.push(value as u8 | 128);
        value = (value - 128) >> 7;
    }
    into.push(value as u8);
}

fn put(bytes: &[u8], into: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

fn frame(kind: u8, stream: u64, id: u64, payload: &[u8]) -> Vec<u8> {
    frame_with(kind, 1, stream, id, payload)
}

fn frame_with(kind: u8, flags: u32, stream: u64, id: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(flags.to_be_bytes());
    put_varint(stream, &mut frame);
    put_varint(id, &mut frame);
    frame.extend_from_slice(payload);
    [&(frame.len() as u32).to_be_bytes(), frame.as_slice()].concat()
}

fn item(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut item = Vec::new();
    put(name.as_bytes(), &mut item);
    item.push(kind);
    item.extend_from_slice(value);
    item
}

fn string(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(value.as_bytes(), &mut bytes);
    item(name, 8, &bytes)
}

fn binary(name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(value, &mut bytes);
    item(name, 9, &bytes)
}

fn hello(max_frame_size: u64, more: &[u8]) -> Vec<u8> {
    hello_of("2.0", max_frame_size, more)
}

fn hello_of(versions: &str, max_frame_size: u64, more: &[u8]) -> Vec<u8> {
    let mut size = Vec::new();
    put_varint(max_frame_size, &mut size);
    let items = [
        string("supported-versions", versions),
        item("max-frame-size", 3, &size),
        string("capabilities", "pipelining,async"),
        more.to_vec(),
    ];
    frame(HELLO, 0, 0, &items.concat())
}

fn message(name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut message = Vec::new();
    put(name.as_bytes(), &mut message);
    message.push(arguments.len() as u8);
    message.extend(arguments.concat());
    message
}

fn headers_bin(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers.iter().chain(&[("", "")]) {
        put(name.as_bytes(), &mut bytes);
        put(value.as_bytes(), &mut bytes);
    }
    bytes
}

fn check_request(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = binary("hdrs", &headers_bin(headers));
    message("check-request", &[string("method", method), string("path", path), headers])
}

fn bearer(jti: &str) -> String {
    format!("Bearer {}", token(&json!({ "jti": jti })))
}

fn verdict(verdict: &str, status: &str) -> (String, String) {
    (verdict.to_owned(), status.to_owned())
}

#[test]
fn a_token_passes_until_it_is_revoked() {
    let daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    let (good, revoked) = (bearer("a"), token(&json!({ "jti": "b" })));
    let variables = haproxy.ask("GET", "/?a=b", &[("host", "a"), ("authorization", &format!("Bearer {revoked}"))]);
    assert_eq!((variables["verdict"].as_str(), variables["sub"].as_str()), ("allow", "alice"), "{variables:?}");
    assert_eq!((variables["jti"].as_str(), variables["iss"].as_str()), ("b", rpc::ISSUER), "{variables:?}");

    daemon.revoke(&revoked);
    let variables = haproxy.ask("GET", "/told?a=b", &[("authorization", &format!("Bearer {revoked}"))]);
    assert_eq!((variables["verdict"].as_str(), variables["status"].as_str()), ("deny", "401"), "{variables:?}");
    assert!(variables["challenge"].starts_with("Bearer error=\"invalid_token\""), "{variables:?}");
    assert!(variables["body"].contains("revoked"), "{variables:?}");

    assert_eq!(daemon.denials(), [["spoe", "revoked", "/told"]]);

    for authorization in ["bearer ", "BEARER ", "Bearer  ", "Bearer\t", "Bearer \t "] {
        assert_eq!(haproxy.verdict(&format!("{authorization}{revoked}")), verdict("deny", "401"), "{authorization:?}");
    }
    assert_eq!(haproxy.verdict(&good).0, "allow");
    // Nobody is nobody: a header made from these takes the place of what the client wrote.
    let variables = haproxy.ask("GET", "/", &[("x-auth-subject", "root")]);
    assert_eq!((variables["verdict"].as_str(), variables["sub"].as_str()), ("allow", ""), "{variables:?}");
}

#[test]
fn a_claim_that_no_header_can_carry_is_as_good_as_unknown() {
    let daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    // HAProxy would write the first into a header as two.
    for sub in ["eve\r\nx-auth-subject: root", "eve\n", "eve\0", " root", "root\t"] {
        let token = token(&json!({ "jti": "a", "sub": sub, "sid": "späť" }));
        let variables = haproxy.ask("GET", "/", &[("authorization", &format!("Bearer {token}"))]);
        assert_eq!((variables["verdict"].as_str(), variables["sub"].as_str()), ("allow", ""), "{sub:?}");
        assert_eq!(variables["sid"], "späť", "{variables:?}");
    }
}

#[test]
fn two_credentials_are_refused_joined_or_not() {
    let daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    let (a, b) = (bearer("a"), bearer("b"));
    assert_eq!(haproxy.verdict(&format!("{a}, {b}")), verdict("deny", "400"));
    let variables = haproxy.ask("GET", "/", &[("authorization", &a), ("authorization", &b)]);
    assert_eq!((variables["verdict"].as_str(), variables["status"].as_str()), ("deny", "400"), "{variables:?}");
    let variables = haproxy.ask("GET", "/", &[("authorization", "Basic eA=="), ("authorization", &b)]);
    assert_eq!(variables["verdict"], "deny");
    let variables = haproxy.ask("GET", "/?access_token=x", &[("authorization", &a)]);
    assert_eq!((variables["verdict"].as_str(), variables["status"].as_str()), ("deny", "400"), "{variables:?}");
}

#[test]
fn grpc_clients_are_answered_over_http() {
    let daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    let headers = [("content-type", "application/grpc"), ("authorization", "Bearer e30.e30.e30")];
    let variables = haproxy.ask("POST", "/service/method", &headers);
    assert_eq!((variables["verdict"].as_str(), variables["status"].as_str()), ("deny", "401"), "{variables:?}");
}

#[test]
fn misrouted_revocation_requests_are_refused() {
    let daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    for path in ["/oauth/revoke", "https://as.example/oauth/revoke", "/oauth//revoke?a=b"] {
        let variables = haproxy.ask("POST", path, &[]);
        assert_eq!((variables["verdict"].as_str(), variables["status"].as_str()), ("deny", "403"), "{path}");
        assert!(variables["body"].contains("misrouted"), "{variables:?}");
    }
    assert_eq!(haproxy.ask("GET", "/oauth/revoke", &[])["verdict"], "allow");
}

#[test]
fn what_is_not_asked_as_it_has_to_be_is_denied() {
    let daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    let (method, path, headers) = (string("method", "GET"), string("path", "/"), binary("hdrs", &headers_bin(&[])));
    let usual = [method.clone(), path.clone(), headers.clone()];
    let whole = message("check-request", &usual);
    let headers_of = |bytes: &[u8]| message("check-request", &[method.clone(), path.clone(), binary("hdrs", bytes)]);
    let bad = [
        message("other", &usual),
        [whole.clone(), whole.clone()].concat(),
        [whole.clone(), message("other", &[])].concat(),
        Vec::new(),
        message("check-request", &[]),
        message("check-request", &usual[..2]),
        message("check-request", &usual[1..]),
        message("check-request", &[method.clone(), path.clone(), item("hdrs", 0, &[])]),
        message("check-request", &[method.clone(), path.clone(), string("hdrs", "a: b\r\n\r\n")]),
        message("check-request", &[method.clone(), path.clone(), headers.clone(), headers.clone()]),
        message("check-request", &[string("method", "G T"), path.clone(), headers.clone()]),
        message("check-request", &[method.clone(), string("path", ""), headers.clone()]),
        message("check-request", &[method.clone(), binary("path", b"/"), headers.clone()]),
        headers_of(b""),
        headers_of(b"\x01a\x01b"),
        headers_of(b"\x01a\x01b\x00"),
        headers_of(b"\x00\x00\x01"),
        headers_of(b"\x00\x01b\x00\x00"),
        headers_of(b"\x03a b\x01b\x00\x00"),
        headers_of(b"\x01a\x02\r\n\x00\x00"),
        headers_of(b"\x01a\xf0\xff\xff\xff\xff\xff\xff\xff\xff\x7fb\x00\x00"),
        headers_of(b"\x01a\x50b"),
    ];
    for bad in bad {
        haproxy.send(&frame(NOTIFY, 1, 1, &bad));
        let ack = haproxy.next();
        assert_eq!(ack.kind, ACK, "{bad:?}");
        let variables = ack.variables();
        assert_eq!((variables["verdict"].as_str(), variables["status"].as_str()), ("deny", "400"), "{bad:?}");
    }
    haproxy.send(&frame(NOTIFY, 1, 2, &whole));
    assert_eq!(haproxy.next().variables()["verdict"], "allow");
}

#[test]
fn broken_frames_end_their_connection_only() {
    let daemon = Daemon::start(DOOR);
    let mut other = Haproxy::new(&daemon);
    let question = check_request("GET", "/", &[]);
    let nowhere = [&(20_000_u32.to_be_bytes()) as &[u8], &[NOTIFY, 0, 0, 0, 1]].concat();
    let truncated = frame(NOTIFY, 1, 1, &question[..question.len() - 3]);
    let broken = [
        frame_with(NOTIFY, 0, 1, 1, &question),
        frame_with(NOTIFY, 3, 1, 1, &question),
        frame_with(NOTIFY, 5, 1, 1, &question),
        frame(NOTIFY, 1, 1, b"\xff\xff"),
        frame(99, 1, 1, &question),
        frame(ACK, 1, 1, b""),
        hello(16_380, &[]),
        b"\x00\x00\x00\x00".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        nowhere,
        truncated,
    ];
    for broken in broken {
        let mut haproxy = Haproxy::new(&daemon);
        // What was asked before is still answered.
        haproxy.send(&[frame(NOTIFY, 5, 5, &question), broken].concat());
        assert_eq!(haproxy.next().variables()["verdict"], "allow");
        haproxy.is_left(4);
    }
    assert_eq!(other.ask("GET", "/", &[])["verdict"], "allow");
}

#[test]
fn greetings() {
    let daemon = Daemon::start(DOOR);
    let greeted = |hello: &[u8]| {
        let mut haproxy = Haproxy::connect(&daemon);
        haproxy.send(hello);
        let answer = haproxy.next();
        (haproxy, answer)
    };
    let (mut haproxy, answer) = greeted(&hello(16_380, &[]));
    let items = answer.items();
    assert_eq!((answer.kind, answer.stream, answer.frame), (AGENT_HELLO, 0, 0));
    assert_eq!((items["version"].as_str(), items["max-frame-size"].as_str()), ("2.0", "16380"), "{items:?}");
    assert_eq!(items["capabilities"], "pipelining");
    haproxy.send(&frame(DISCONNECT, 0, 0, &[item("status-code", 3, &[0]), string("message", "bye")].concat()));
    haproxy.is_left(0);

    let (_, answer) = greeted(&hello(10_000_000, &[]));
    assert_eq!(answer.items()["max-frame-size"], "131072");
    // A health check is over with the greeting.
    let (mut haproxy, answer) = greeted(&hello(16_380, &item("healthcheck", 0x11, &[])));
    assert_eq!(answer.kind, AGENT_HELLO);
    assert!(haproxy.try_next().is_none());

    for (hello, status) in [
        (hello_of("1.0", 16_380, &[]), 8),
        (hello(100, &[]), 9),
        (frame(HELLO, 0, 0, &string("supported-versions", "2.0")), 4),
        (frame(NOTIFY, 1, 1, &check_request("GET", "/", &[])), 4),
        (hello(16_380, &string("engine-id", &"x".repeat(5000))), 4),
    ] {
        Haproxy::connect(&daemon).send(b"");
        let mut haproxy = Haproxy::connect(&daemon);
        haproxy.send(&hello);
        haproxy.is_left(status);
    }
}

#[test]
fn of_an_answer_that_does_not_fit_the_verdict_is_left() {
    let url = format!("https://api.example/{}", "x".repeat(200));
    let daemon = Daemon::start(&format!("{DOOR}[tokens]\nresource_metadata = \"{url}\"\n"));
    for (size, variables) in [(16_380, 5), (256, 1)] {
        let mut haproxy = Haproxy::connect(&daemon);
        haproxy.send(&hello(size, &[]));
        assert_eq!(haproxy.next().kind, AGENT_HELLO);
        let answer = haproxy.ask("GET", "/", &[("authorization", "Bearer e30.e30.e30")]);
        assert_eq!((answer["verdict"].as_str(), answer.len()), ("deny", variables), "{answer:?}");
    }
}

#[test]
fn many_questions_at_once_are_answered_each() {
    let daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    let (good, bad) = (bearer("a"), "Bearer e30.e30.e30".to_owned());
    let questions = (0..100).map(|id| {
        let authorization = if id % 2 == 0 { &good } else { &bad };
        frame(NOTIFY, id, 3000 + id, &check_request("GET", "/", &[("authorization", authorization)]))
    });
    let questions = questions.collect::<Vec<_>>().concat();
    // In pieces that end within frames.
    for piece in questions.chunks(999) {
        haproxy.send(piece);
    }
    let mut answers: Vec<_> = (0..100).map(|_| haproxy.next()).collect();
    answers.sort_by_key(|answer| answer.stream);
    for (id, answer) in (0..).zip(answers) {
        assert_eq!((answer.kind, answer.stream, answer.frame), (ACK, id, 3000 + id));
        assert_eq!(answer.variables()["verdict"], if id % 2 == 0 { "allow" } else { "deny" });
    }
}

#[test]
fn what_a_store_is_asked_for_is_answered_too() {
    let daemon = Daemon::start(&format!(
        "{DOOR}[tokens]\nunknown_session = \"deny\"\n[recorder]\ntoken_endpoint = \"/token\"\n"
    ));
    let mut haproxy = Haproxy::new(&daemon);
    let question = |id| frame(NOTIFY, id, 1, &check_request("GET", "/", &[("authorization", &bearer("a"))]));
    haproxy.send(&(0..300).map(question).collect::<Vec<_>>().concat());
    let mut streams: Vec<_> = (0..300)
        .map(|_| {
            let answer = haproxy.next();
            assert_eq!(answer.variables()["verdict"], "deny");
            answer.stream
        })
        .collect();
    streams.sort_unstable();
    assert_eq!(streams, (0..300).collect::<Vec<_>>());
    // HAProxy leaves: what it has asked before is still answered.
    let bye = frame(DISCONNECT, 0, 0, &[item("status-code", 3, &[0]), string("message", "bye")].concat());
    haproxy.send(&[question(1), bye].concat());
    assert_eq!(haproxy.next().kind, ACK);
    haproxy.is_left(0);
}

/// L7: the store has become unreadable.
#[test]
fn a_stale_list_is_503() {
    let daemon = Daemon::start_on("sqlite://revoked.db", "1s", DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    let bearer = bearer("a");
    assert_eq!(haproxy.verdict(&bearer).0, "allow");
    rpc::ruin(&daemon.folder.path().join("revoked.db"));
    until("a refusal", || haproxy.verdict(&bearer) == verdict("deny", "503"));
    let variables = haproxy.ask("GET", "/", &[("authorization", &bearer)]);
    assert_ne!(variables["retry_after"], "", "{variables:?}");
}

#[test]
fn it_ends_in_an_orderly_way() {
    let mut daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    assert_eq!(haproxy.verdict(&bearer("a")).0, "allow");
    let _silent = Haproxy::connect(&daemon);
    assert!(daemon.program.end().success(), "{}", daemon.log());
    haproxy.is_left(0);
    assert!(!daemon.log().contains("connections were still open"), "{}", daemon.log());
}

#[test]
fn l9_no_token_is_logged() {
    let daemon = Daemon::start(DOOR);
    let mut haproxy = Haproxy::new(&daemon);
    let token = token(&json!({ "jti": "a" }));
    daemon.revoke(&token);
    for authorization in [format!("Bearer {token}"), format!("Bearer {token},Bearer {token}"), format!("Other {token}")]
    {
        assert_eq!(haproxy.verdict(&authorization).0, "deny");
    }
    let headers = binary("hdrs", token.as_bytes());
    haproxy.send(&frame(
        NOTIFY,
        1,
        1,
        &message("check-request", &[string("method", "GET"), string("path", "/"), headers]),
    ));
    assert_eq!(haproxy.next().variables()["verdict"], "deny");
    until("the log", || daemon.log().contains("check-request"));
    assert!(!daemon.log().contains(&token), "{}", daemon.log());
}

/// HAProxy in front of a service, asking the daemon.
#[test]
fn haproxy_asks() {
    let mut daemon = Daemon::start(DOOR);
    let Some(haproxy) = program("haproxy", "HAPROXY") else { return };
    let (folder, echo, port) = (tempfile::tempdir().unwrap(), Echo::start(), free_port());
    let config = include_str!("rpc/haproxy.cfg")
        .replace("LISTEN", &port.to_string())
        .replace("SERVICE", &echo.port.to_string())
        .replace("REVOKED", &daemon.port("SPOE").to_string());
    fs::write(folder.path().join("haproxy.cfg"), config).unwrap();
    fs::write(folder.path().join("spoe.cfg"), include_str!("rpc/spoe.cfg")).unwrap();
    let haproxy = gateway(&haproxy, &["-db", "-f", "haproxy.cfg"], folder.path(), port);
    let get = |headers: &str| http(port, &format!("GET /app?a=b HTTP/1.1\r\nHost: a\r\n{headers}"), "");

    let (good, revoked) = (bearer("a"), token(&json!({ "jti": "b" })));
    until("the agent", || get("").status == 200);
    daemon.revoke(&revoked);
    let answer = get(&format!("X-Auth-Subject: root\r\nX-Auth-Session: x\r\nAuthorization: {good}\r\n"));
    let seen: Vec<_> = answer.body.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-auth-")).collect();
    assert_eq!((answer.status, seen.len()), (200, 2), "{answer:?}");
    assert_eq!(field(&answer.body, "x-auth-subject"), Some("alice"), "{answer:?}");
    let answer = get("X-Auth-Subject: root\r\n");
    assert_eq!((answer.status, field(&answer.body, "x-auth-subject")), (200, Some("")), "{answer:?}");

    let answer = get(&format!("Authorization: Bearer {revoked}\r\n"));
    assert_eq!((answer.status, answer.header("cache-control")), (401, Some("no-store")), "{answer:?}");
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"), "{answer:?}");
    assert!(answer.body.contains("invalid_token"), "{answer:?}");

    let passed = echo.count();
    for (headers, status) in [
        (format!("Authorization: bearer {revoked}\r\n"), 401),
        (format!("Authorization: Bearer  {revoked}\r\n"), 401),
        (format!("Authorization: Bearer\t{revoked}\r\n"), 401),
        (format!("Authorization: {good}\r\nAuthorization: Bearer {revoked}\r\n"), 400),
        (format!("Authorization: Bearer {revoked}\r\nAuthorization: {good}\r\n"), 400),
        (format!("Authorization: {good}, Bearer {revoked}\r\n"), 400),
        (format!("Authorization: Basic eA==\r\nAuthorization: Bearer {revoked}\r\n"), 400),
    ] {
        assert_eq!(get(&headers).status, status, "{headers}");
    }
    let answer = http(port, &revocation("/oauth/revoke"), "token=x");
    assert_eq!(answer.status, 403, "{answer:?}");
    // More than HAProxy can tell in a frame.
    let long = format!(
        "Authorization: {good}\r\n{}",
        (0..150).map(|n| format!("x-{n}: {}\r\n", "y".repeat(100))).collect::<String>()
    );
    assert_ne!(get(&long).status, 200);
    assert_eq!(echo.count(), passed);

    // Nobody answers: nothing passes.
    assert!(daemon.program.end().success());
    assert_eq!(get(&format!("Authorization: {good}\r\n")).status, 503);
    assert_eq!((get("").status, echo.count()), (503, passed));
    drop(haproxy);
}
