//! The door for Envoy: checks over gRPC, and Envoy itself where it is installed.
#![expect(clippy::unwrap_used, reason = "tests")]

mod rpc;

use std::{
    collections::HashMap,
    fs,
    io::Read as _,
    process::{Command, Stdio},
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, HeaderMap, HeaderValue, HeaderValueOption, Metadata, SocketAddress, address,
            header_value_option::HeaderAppendAction, socket_address::PortSpecifier,
        },
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            attribute_context::{HttpRequest, Peer, Request},
            authorization_client::AuthorizationClient,
            check_response::HttpResponse,
        },
    },
    google::protobuf::{ListValue, Struct, Value, value::Kind},
};
use serde_json::json;
use tonic::transport::Channel;

use self::rpc::{
    Daemon, Echo, Program, claims, field, free_port, gateway, http, now, program, revocation, token, try_http, until,
};

const DOOR: &str =
    "[ext_authz]\nlisten = \"127.0.0.1:0\"\nidentity_headers = [\"x-auth-subject\", \"x-auth-session\"]\n";
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";

/// Like Envoy: one connection.
struct Client {
    client: AuthorizationClient<Channel>,
}

impl Client {
    async fn new(daemon: &Daemon) -> Self {
        let url = format!("http://127.0.0.1:{}", daemon.port("ext_authz"));
        let channel = Channel::from_shared(url).unwrap().timeout(Duration::from_secs(20)).connect().await.unwrap();
        Self { client: AuthorizationClient::new(channel) }
    }

    async fn check(&self, check: CheckRequest) -> Reply {
        Reply::new(self.client.clone().check(check).await.unwrap().into_inner())
    }

    /// Whether a request with this header passes: 200, or the status of the refusal.
    async fn status(&self, authorization: &str) -> i32 {
        self.check(check("GET", "/", &[("authorization", authorization)])).await.status()
    }
}

/// What Envoy is told.
#[derive(Debug)]
enum Reply {
    Pass(OkHttpResponse),
    Refusal(i32, DeniedHttpResponse),
}

impl Reply {
    fn new(reply: CheckResponse) -> Self {
        let code = reply.status.unwrap().code;
        match reply.http_response.unwrap() {
            HttpResponse::OkResponse(pass) if code == 0 => Self::Pass(pass),
            HttpResponse::DeniedResponse(refusal) if code != 0 => Self::Refusal(code, refusal),
            other => panic!("{code} with {other:?}"),
        }
    }

    fn status(&self) -> i32 {
        match self {
            Self::Pass(_) => 200,
            Self::Refusal(_, refusal) => refusal.status.unwrap().code,
        }
    }

    fn body(&self) -> &str {
        match self {
            Self::Pass(_) => "",
            Self::Refusal(_, refusal) => &refusal.body,
        }
    }

    fn fields(&self) -> &[HeaderValueOption] {
        match self {
            Self::Pass(pass) => &pass.headers,
            Self::Refusal(_, refusal) => &refusal.headers,
        }
    }

    /// The value that takes the place of whatever the header had.
    fn header(&self, name: &str) -> Option<&str> {
        let field = self.fields().iter().find(|field| field.header.as_ref().unwrap().key == name)?;
        assert_eq!(field.append_action(), HeaderAppendAction::OverwriteIfExistsOrAdd);
        Some(&field.header.as_ref().unwrap().value)
    }
}

fn check(method: &str, path: &str, headers: &[(&str, &str)]) -> CheckRequest {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    request(HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: [(":path".to_owned(), path.to_owned())].into_iter().chain(headers).collect(),
        ..Default::default()
    })
}

fn request(http: HttpRequest) -> CheckRequest {
    let socket = SocketAddress {
        address: "192.0.2.7".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(4711)),
        ..Default::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer { address: Some(address), ..Default::default() }),
            request: Some(Request { http: Some(http), ..Default::default() }),
            ..Default::default()
        }),
    }
}

fn with_metadata(mut check: CheckRequest, namespace: &str, claims: &serde_json::Value) -> CheckRequest {
    let Some(Kind::StructValue(claims)) = value(claims).kind else { panic!("{claims}") };
    let filter_metadata = HashMap::from([(namespace.to_owned(), claims)]);
    check.attributes.as_mut().unwrap().metadata_context = Some(Metadata { filter_metadata, ..Default::default() });
    check
}

fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(value).collect() }),
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members.iter().map(|(name, member)| (name.clone(), value(member))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[tokio::test]
async fn a_token_passes_until_it_is_revoked() {
    let daemon = Daemon::start(DOOR);
    let client = Client::new(&daemon).await;
    let (good, revoked) = (token(&json!({ "jti": "a" })), token(&json!({ "jti": "b" })));
    let reply = client.check(check("GET", "/?a=b", &[("authorization", &format!("Bearer {revoked}"))])).await;
    assert_eq!((reply.status(), reply.header("x-auth-subject")), (200, Some("alice")), "{reply:?}");

    daemon.revoke(&revoked);
    let reply = client.check(check("GET", "/told?a=b", &[("authorization", &format!("Bearer {revoked}"))])).await;
    let Reply::Refusal(code, _) = &reply else { panic!("{reply:?}") };
    assert_eq!((*code, reply.status()), (16, 401));
    assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer error=\"invalid_token\""), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.body().contains("revoked"), "{reply:?}");
    assert_eq!(daemon.denials(), [["ext_authz", "revoked", "/told"]]);

    assert_eq!(client.status(&format!("Bearer {good}")).await, 200);
    for authorization in ["bearer ", "BEARER ", "Bearer  ", "Bearer\t", "Bearer \t "] {
        assert_eq!(client.status(&format!("{authorization}{revoked}")).await, 401, "{authorization:?}");
        assert_eq!(client.status(&format!("{authorization}{good}")).await, 200, "{authorization:?}");
    }
}

#[tokio::test]
async fn two_credentials_are_refused_joined_or_not() {
    let daemon = Daemon::start(DOOR);
    let client = Client::new(&daemon).await;
    let (a, b) = (token(&json!({ "jti": "a" })), token(&json!({ "jti": "b" })));
    for joined in
        [format!("Bearer {a},Bearer {b}"), format!("Bearer {a}, bearer {b}"), format!("Basic eA==,Bearer {a}")]
    {
        let status = client.status(&joined).await;
        assert!(status == 400 || status == 401, "{joined}: {status}");
    }
    let raw = |values: &[&str]| {
        let field = |value: &&str| HeaderValue {
            key: "authorization".to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..Default::default()
        };
        let header_map = Some(HeaderMap { headers: values.iter().map(field).collect() });
        request(HttpRequest { method: "GET".into(), path: "/".into(), header_map, ..Default::default() })
    };
    let (a, b) = (format!("Bearer {a}"), format!("Bearer {b}"));
    assert_eq!(client.check(raw(&[&a])).await.status(), 200);
    assert_eq!(client.check(raw(&[&a, &b])).await.status(), 400);
    assert_eq!(client.check(raw(&[&a, &a])).await.status(), 400);
    let query = check("GET", "/?access_token=x", &[("authorization", &a)]);
    assert_eq!(client.check(query).await.status(), 400);
}

#[tokio::test]
async fn no_cookie_hides_behind_another() {
    let daemon = Daemon::start(&format!("{DOOR}[tokens]\nsources = [\"cookie:session\"]\n"));
    let client = Client::new(&daemon).await;
    let revoked = token(&json!({ "jti": "a" }));
    daemon.revoke(&revoked);
    for cookies in
        [format!("session={revoked}"), format!("a=1,session={revoked}"), format!("a=1; session={revoked},b=2")]
    {
        let reply = client.check(check("GET", "/", &[("cookie", &cookies)])).await;
        assert_eq!(reply.status(), 401, "{cookies}");
    }
    let cookies = format!("session={revoked},session={}", token(&json!({ "jti": "b" })));
    assert_eq!(client.check(check("GET", "/", &[("cookie", &cookies)])).await.status(), 400);
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_overwritten() {
    let daemon = Daemon::start(DOOR);
    let client = Client::new(&daemon).await;
    let reply = client.check(check("GET", "/", &[("x-auth-subject", "root")])).await;
    assert_eq!((reply.header("x-auth-subject"), reply.header("x-auth-session")), (Some(""), Some("")), "{reply:?}");
    assert!(reply.fields().iter().all(|field| field.keep_empty_value));
}

#[tokio::test]
async fn what_cannot_be_told_for_certain_is_refused() {
    let daemon = Daemon::start(DOOR);
    let client = Client::new(&daemon).await;
    let none = CheckRequest { attributes: None };
    let no_http = CheckRequest { attributes: Some(AttributeContext::default()) };
    let checks = [
        none,
        no_http,
        check("", "/", &[]),
        check("GET", "", &[]),
        check("GET", "/ /", &[]),
        check("GET", "/", &[("a b", "c")]),
        check("GET", "/", &[("a", "b\nc")]),
    ];
    for check in checks {
        assert_eq!(client.check(check.clone()).await.status(), 400, "{check:?}");
    }
    let many = (0..40_000).map(|_| HeaderValue { key: "a".into(), value: "b".into(), ..Default::default() });
    let many = HttpRequest {
        method: "GET".into(),
        path: "/".into(),
        header_map: Some(HeaderMap { headers: many.collect() }),
        ..Default::default()
    };
    assert_eq!(client.check(request(many)).await.status(), 400);
    // More than is read at all.
    let long = HttpRequest { method: "GET".into(), path: "/".into(), body: "x".repeat(2 << 20), ..Default::default() };
    assert!(client.client.clone().check(request(long)).await.is_err());
    // None of it ends the door.
    assert_eq!(client.status(&format!("Bearer {}", token(&json!({ "jti": "a" })))).await, 200);
}

#[tokio::test]
async fn grpc_clients_get_a_grpc_status() {
    let daemon = Daemon::start(DOOR);
    let client = Client::new(&daemon).await;
    for (content_type, status) in
        [("application/grpc", 401), ("application/grpc+proto", 401), ("application/grpc-web", 200)]
    {
        let headers = [("authorization", "Bearer e30.e30.e30"), ("content-type", content_type)];
        let reply = client.check(check("POST", "/service/method", &headers)).await;
        assert_eq!((reply.status(), reply.header("grpc-status"), reply.body()), (status, Some("16"), ""), "{reply:?}");
        assert_eq!(reply.header("content-type"), Some(content_type));
    }
}

#[tokio::test]
async fn only_metadata_that_is_trusted_counts() {
    let daemon = Daemon::start(&format!("{DOOR}trusted_metadata = [\"{JWT_AUTHN}\"]\n"));
    let client = Client::new(&daemon).await;
    let (good, revoked) = (claims(&json!({ "jti": "a" })), claims(&json!({ "jti": "b" })));
    daemon.revoke(&token(&json!({ "jti": "b" })));
    let bare = || check("GET", "/", &[]);
    let nested = |claims: &serde_json::Value| json!({ "payload": claims, "header": { "alg": "HS256" } });

    for (claims, status) in [(&good, 200), (&revoked, 401)] {
        for claims in [claims.clone(), nested(claims)] {
            let reply = client.check(with_metadata(bare(), JWT_AUTHN, &claims)).await;
            assert_eq!(reply.status(), status, "{claims}");
            if status == 200 {
                assert_eq!(reply.header("x-auth-subject"), Some("alice"));
            }
        }
        // Somebody else's word counts for nothing: there is no token at all then.
        let reply = client.check(with_metadata(bare(), "envoy.filters.http.lua", claims)).await;
        assert_eq!((reply.status(), reply.header("x-auth-subject")), (200, Some("")));
    }
    // Both were refused by the word of the filter.
    assert_eq!(daemon.denials(), [["ext_authz", "revoked", "/"], ["ext_authz", "revoked", "/"]]);
    // The metadata of a token that failed: it is verified here.
    let failed = json!({ "failed_status": { "code": 3, "message": "Jwt verification fails" } });
    for (authorization, status) in [("Bearer e30.e30.e30".to_owned(), 401), (bearer("a"), 200), (bearer("b"), 401)] {
        let check = check("GET", "/", &[("authorization", &authorization)]);
        assert_eq!(client.check(with_metadata(check, JWT_AUTHN, &failed)).await.status(), status, "{authorization}");
    }
}

fn bearer(jti: &str) -> String {
    format!("Bearer {}", token(&json!({ "jti": jti })))
}

#[tokio::test]
async fn no_metadata_counts_unless_that_is_asked_for() {
    let daemon = Daemon::start(&format!("{DOOR}[tokens]\nno_token = \"deny\"\n"));
    let client = Client::new(&daemon).await;
    let reply = client.check(with_metadata(check("GET", "/", &[]), JWT_AUTHN, &claims(&json!({ "jti": "a" })))).await;
    assert_eq!(reply.status(), 401);
}

#[tokio::test]
async fn l6_claims_of_a_wrong_type_are_refused() {
    let daemon = Daemon::start(&format!("{DOOR}trusted_metadata = [\"{JWT_AUTHN}\", \"other\"]\n"));
    let client = Client::new(&daemon).await;
    let good = claims(&json!({ "jti": "a" }));
    let mut bad: Vec<_> = [
        json!({ "jti": 7 }),
        json!({ "jti": "" }),
        json!({ "jti": null }),
        json!({ "sid": ["s"] }),
        json!({ "sub": true }),
        json!({ "iss": 1 }),
        json!({ "iss": "https://other.example/" }),
        json!({ "exp": "soon" }),
        json!({ "exp": 9_007_199_254_740_992_u64 }),
        json!({ "exp": now() - 600 }),
        json!({ "iat": -1 }),
        json!({ "iat": now() + 6000 }),
        json!({ "auth_time": null }),
    ]
    .iter()
    .map(|these| {
        claims(&json!({ "jti": "a" }))
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .chain(these.as_object().unwrap().clone())
            .collect()
    })
    .collect();
    for name in ["iss", "exp", "jti"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        bad.push(claims);
    }
    bad.push(json!({ "one": good, "two": good }));
    assert_eq!(client.check(with_metadata(check("GET", "/", &[]), JWT_AUTHN, &good)).await.status(), 200);
    for claims in bad {
        let status = client.check(with_metadata(check("GET", "/", &[]), JWT_AUTHN, &claims)).await.status();
        assert!(status == 401 || status == 400, "{status} for {claims}");
    }
    let mut two = with_metadata(check("GET", "/", &[]), JWT_AUTHN, &good);
    let metadata = two.attributes.as_mut().unwrap().metadata_context.as_mut().unwrap();
    let again = metadata.filter_metadata[JWT_AUTHN].clone();
    metadata.filter_metadata.insert("other".to_owned(), again);
    assert_eq!(client.check(two).await.status(), 400);
}

#[tokio::test]
async fn vouched_claims_are_those_of_the_token_that_is_shown() {
    let daemon = Daemon::start(&format!("{DOOR}trusted_metadata = [\"{JWT_AUTHN}\"]\n"));
    let client = Client::new(&daemon).await;
    let status = async |authorization: &str, path: &str, claims: &serde_json::Value| {
        let check = check("GET", path, &[("authorization", authorization)]);
        client.check(with_metadata(check, JWT_AUTHN, claims)).await.status()
    };
    let good = claims(&json!({ "jti": "a" }));
    // The filter in front has verified it: here it is not.
    let (token_a, _) =
        bearer("a").rsplit_once('.').map(|(token, signature)| (token.to_owned(), signature.len())).unwrap();
    assert_eq!(status(&format!("{token_a}.eA"), "/", &good).await, 200);
    assert_eq!(status(&bearer("b"), "/", &good).await, 400);
    assert_eq!(status("Bearer opaque", "/", &good).await, 400);
    assert_eq!(status(&format!("{}, {}", bearer("a"), bearer("a")), "/", &good).await, 400);
    assert_eq!(status(&bearer("a"), "/?access_token=x", &good).await, 400);

    // A token without an id can be told by the token alone.
    let nameless = claims(&json!({}));
    let shown = token(&json!({}));
    assert_eq!(status(&format!("Bearer {shown}"), "/", &nameless).await, 200);
    let another = claims(&json!({ "sub": "bob" }));
    assert_eq!(status(&format!("Bearer {shown}"), "/", &another).await, 401);
    assert_eq!(status(&bearer("a"), "/", &nameless).await, 401);
    daemon.revoke(&shown);
    assert_eq!(status(&format!("Bearer {shown}"), "/", &nameless).await, 401);
}

/// A revocation request as Envoy sends it with `with_request_body`.
fn revoking(body: &str, headers: &[(&str, &str)], pack_as_bytes: bool) -> CheckRequest {
    let length = body.len().to_string();
    let usual = [
        ("authorization", "Basic Yzo0"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", length.as_str()),
        ("x-envoy-auth-partial-body", "false"),
    ];
    let all: Vec<_> = usual.into_iter().filter(|(name, _)| headers.iter().all(|(other, _)| other != name)).collect();
    let mut check = check("POST", "/oauth/revoke", &[&all, headers].concat());
    let http = check.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    if pack_as_bytes {
        http.raw_body = body.as_bytes().to_vec();
    } else {
        http.body = body.to_owned();
    }
    check
}

#[tokio::test]
async fn revocation_requests_are_answered_within_the_check() {
    let daemon = Daemon::start(&format!("{DOOR}answer_endpoints = true\n"));
    let client = Client::new(&daemon).await;
    for (jti, pack_as_bytes) in [("a", false), ("b", true)] {
        let token = token(&json!({ "jti": jti }));
        assert_eq!(client.status(&format!("Bearer {token}")).await, 200);
        let form = format!("token={token}");
        let partial = ("x-envoy-auth-partial-body", "true");
        assert_eq!(client.check(revoking(&form, &[partial], pack_as_bytes)).await.status(), 413);
        let longer = ("content-length", "9999");
        assert_eq!(client.check(revoking(&form, &[longer], pack_as_bytes)).await.status(), 413);
        let stranger = ("authorization", "Basic Yzo1");
        let reply = client.check(revoking(&form, &[stranger], pack_as_bytes)).await;
        assert_eq!((reply.status(), reply.header("www-authenticate").is_some()), (401, true), "{reply:?}");
        assert_eq!(client.status(&format!("Bearer {token}")).await, 200);

        // It never is an Ok: the service behind would get the request.
        let reply = client.check(revoking(&form, &[], pack_as_bytes)).await;
        assert!(matches!(reply, Reply::Refusal(..)), "{reply:?}");
        assert_eq!((reply.status(), reply.header("cache-control")), (200, Some("no-store")), "{reply:?}");
        assert_eq!(client.status(&format!("Bearer {token}")).await, 401);
    }
}

#[tokio::test]
async fn who_guesses_at_secrets_is_told_by_the_address_that_envoy_sees() {
    let daemon = Daemon::start(&format!("{DOOR}answer_endpoints = true\n"));
    let client = Client::new(&daemon).await;
    let guess = async |address: &str, client_id: &str| {
        let form = format!("token=x&client_id={client_id}&client_secret=wrong");
        let mut check = revoking(&form, &[], false);
        let attributes = check.attributes.as_mut().unwrap();
        attributes.request.as_mut().unwrap().http.as_mut().unwrap().headers.remove("authorization");
        let source = attributes.source.as_mut().unwrap().address.as_mut().unwrap();
        let Some(address::Address::SocketAddress(socket)) = &mut source.address else { panic!("{source:?}") };
        socket.address = address.to_owned();
        client.check(check).await.status()
    };
    let mut statuses = Vec::new();
    for number in 0..20 {
        statuses.push(guess("192.0.2.7", &format!("client-{number}")).await);
    }
    assert_eq!((statuses[0], statuses[19]), (401, 429), "{statuses:?}");
    assert_eq!(guess("192.0.2.8", "client-20").await, 401);
    assert_eq!(guess("2001:db8::1", "client-21").await, 401);
}

#[tokio::test]
async fn misrouted_revocation_requests_are_refused() {
    let daemon = Daemon::start(DOOR);
    let client = Client::new(&daemon).await;
    let token = token(&json!({ "jti": "a" }));
    let reply = client.check(revoking(&format!("token={token}"), &[], false)).await;
    assert_eq!(reply.status(), 403);
    assert!(reply.body().contains("misrouted"), "{reply:?}");
    for path in ["/oauth/revoke?a=b", "/oauth//revoke", "/oauth/%72evoke"] {
        assert_eq!(client.check(check("PUT", path, &[])).await.status(), 403, "{path}");
    }
    assert_eq!(client.check(check("GET", "/oauth/revoke", &[])).await.status(), 200);
    assert_eq!(client.status(&format!("Bearer {token}")).await, 200);
}

#[test]
fn forwarding_does_not_go_with_answering() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("revoked.toml");
    let config = format!(
        "listen = \"127.0.0.1:0\"\n[backend]\nurl = \"memory:\"\n[staleness]\nafter = \"10s\"\nthen = \"refuse\"\n\
         [upstream]\nurl = \"http://127.0.0.1:1\"\n{DOOR}answer_endpoints = true\n\
         [endpoints.token]\nmode = \"record_then_forward\"\n\
         [[issuer]]\nissuer = \"https://i.example\"\nany_audience = true\nalgorithms = [\"HS256\"]\nsecret_file = \"s\"\n"
    );
    fs::write(&file, config).unwrap();
    fs::write(folder.path().join("s"), rpc::SECRET).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_revoked"));
    let mut run = Program(command.args(["serve", "--config"]).arg(&file).stderr(Stdio::piped()).spawn().unwrap());
    until("a refusal", || run.0.try_wait().unwrap().is_some_and(|status| !status.success()));
    let mut said = String::new();
    run.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("ext_authz.answer_endpoints: needs mode = \"terminate\""), "{said}");
}

/// L7: the store has become unreadable.
#[tokio::test]
async fn a_stale_list_is_503() {
    let daemon = Daemon::start_on("sqlite://revoked.db", "1s", DOOR);
    let client = Client::new(&daemon).await;
    let bearer = bearer("a");
    assert_eq!(client.status(&bearer).await, 200);
    rpc::ruin(&daemon.folder.path().join("revoked.db"));
    let mut reply = client.check(check("GET", "/", &[("authorization", &bearer)])).await;
    let began = std::time::Instant::now();
    while reply.status() == 200 && began.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        reply = client.check(check("GET", "/", &[("authorization", &bearer)])).await;
    }
    let Reply::Refusal(code, _) = &reply else { panic!("{reply:?}") };
    assert_eq!((*code, reply.status(), reply.header("retry-after").is_some()), (7, 503, true), "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_in_an_orderly_way() {
    let mut daemon = Daemon::start(DOOR);
    let client = Client::new(&daemon).await;
    assert_eq!(client.status(&bearer("a")).await, 200);
    assert!(daemon.program.end().success(), "{}", daemon.log());
    assert!(!daemon.log().contains("connections were still open"), "{}", daemon.log());
    assert!(client.client.clone().check(check("GET", "/", &[])).await.is_err());
}

#[tokio::test]
async fn l9_no_token_is_logged() {
    let daemon = Daemon::start(DOOR);
    let client = Client::new(&daemon).await;
    let token = token(&json!({ "jti": "a" }));
    daemon.revoke(&token);
    for authorization in [format!("Bearer {token}"), format!("Bearer {token},Bearer {token}"), format!("Other {token}")]
    {
        assert_ne!(client.status(&authorization).await, 200);
    }
    assert!(daemon.log().contains("request refused") || daemon.log().contains("ext_authz"), "{}", daemon.log());
    assert!(!daemon.log().contains(&token), "{}", daemon.log());
}

/// Envoy in front of a service, asking the daemon.
struct Site {
    _envoy: Program,
    _folder: tempfile::TempDir,
    echo: Echo,
    port: u16,
}

impl Site {
    /// `None` where there is no Envoy.
    fn start(daemon: &Daemon, more: &str, before: &str) -> Option<Self> {
        let envoy = program("envoy", "ENVOY")?;
        let (folder, echo, port) = (tempfile::tempdir().unwrap(), Echo::start(), free_port());
        let config = include_str!("rpc/envoy.yaml")
            .replace("LISTEN", &port.to_string())
            .replace("SERVICE", &echo.port.to_string())
            .replace("REVOKED", &daemon.port("ext_authz").to_string())
            .replace("# MORE", more)
            .replace("# BEFORE", before);
        fs::write(folder.path().join("envoy.yaml"), config).unwrap();
        let arguments = ["-c", "envoy.yaml", "--disable-hot-restart", "--concurrency", "1", "-l", "warn"];
        let envoy = gateway(&envoy, &arguments, folder.path(), port);
        Some(Self { _envoy: envoy, _folder: folder, echo, port })
    }

    fn get(&self, headers: &str) -> rpc::Answer {
        http(self.port, &format!("GET /app HTTP/1.1\r\nHost: a\r\n{headers}"), "")
    }
}

#[test]
fn envoy_asks() {
    let mut daemon = Daemon::start(DOOR);
    let Some(site) = Site::start(&daemon, "", "") else { return };
    let (good, revoked) = (bearer("a"), token(&json!({ "jti": "b" })));
    daemon.revoke(&revoked);
    let answer = site.get(&format!("X-Auth-Subject: root\r\nX-Auth-Session: x\r\nAuthorization: {good}\r\n"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen: Vec<_> = answer.body.lines().filter(|line| line.to_ascii_lowercase().starts_with("x-auth-")).collect();
    assert_eq!((seen.len(), field(&answer.body, "x-auth-subject")), (2, Some("alice")), "{answer:?}");
    // Nobody is nobody, whoever a client says it is.
    let answer = site.get("X-Auth-Subject: root\r\n");
    assert_eq!((answer.status, field(&answer.body, "x-auth-subject")), (200, Some("")), "{answer:?}");

    let answer = site.get(&format!("Authorization: Bearer {revoked}\r\n"));
    assert_eq!((answer.status, answer.header("cache-control")), (401, Some("no-store")), "{answer:?}");
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"), "{answer:?}");
    assert!(answer.body.contains("invalid_token"), "{answer:?}");

    let passed = site.echo.count();
    for headers in [
        format!("Authorization: bearer {revoked}\r\n"),
        format!("Authorization: Bearer  {revoked}\r\n"),
        format!("Authorization: Bearer\t{revoked}\r\n"),
        format!("Authorization: {good}\r\nAuthorization: Bearer {revoked}\r\n"),
        format!("Authorization: Bearer {revoked}\r\nAuthorization: {good}\r\n"),
        format!("Authorization: {good}, Bearer {revoked}\r\n"),
        format!("Authorization: Basic eA==\r\nAuthorization: Bearer {revoked}\r\n"),
    ] {
        let status = site.get(&headers).status;
        assert!(status == 400 || status == 401, "{status} for {headers}");
    }
    let answer = http(site.port, &revocation("/oauth/revoke"), "token=x");
    assert_eq!(answer.status, 403, "{answer:?}");

    let grpc = |authorization: &str| {
        let head = format!(
            "POST /s/m HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nAuthorization: {authorization}\r\n"
        );
        http(site.port, &head, "x")
    };
    for (authorization, status) in [(format!("Bearer {revoked}"), "16"), (format!("{good}, {good}"), "3")] {
        let answer = grpc(&authorization);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/grpc")), "{answer:?}");
        assert_eq!(answer.header("grpc-status"), Some(status), "{answer:?}");
    }
    assert_eq!(site.echo.count(), passed);

    // Nobody answers: nothing passes.
    assert!(daemon.program.end().success());
    until("a refusal", || site.get(&format!("Authorization: {good}\r\n")).status == 503);
    let passed = site.echo.count();
    assert_eq!((site.get("").status, site.echo.count()), (503, passed));
}

#[test]
fn envoy_has_revocation_requests_answered() {
    let daemon = Daemon::start(&format!("{DOOR}answer_endpoints = true\n"));
    let body = "with_request_body: { max_request_bytes: 65536, allow_partial_message: true, pack_as_bytes: true }";
    let Some(site) = Site::start(&daemon, body, "") else { return };
    let token = token(&json!({ "jti": "a" }));
    let headers = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(site.get(&headers).status, 200);
    let long = format!("token={token}&more={}", "x".repeat(70_000));
    assert_eq!(http(site.port, &revocation("/oauth/revoke"), &long).status, 413);
    assert_eq!(site.get(&headers).status, 200);
    let passed = site.echo.count();
    let answer = http(site.port, &revocation("/oauth/revoke"), &format!("token={token}"));
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    assert_eq!((site.get(&headers).status, site.echo.count()), (401, passed));
}

#[test]
fn envoy_tells_the_claims_that_it_verified() {
    let daemon = Daemon::start(&format!("{DOOR}trusted_metadata = [\"{JWT_AUTHN}\"]\n"));
    let Some(site) = Site::start(&daemon, "metadata_context_namespaces: [envoy.filters.http.jwt_authn]", JWT_FILTER)
    else {
        return;
    };
    let token = token(&json!({ "jti": "a" }));
    let headers = format!("Authorization: Bearer {token}\r\n");
    let answer = site.get(&headers);
    // Envoy keeps the token to itself, so that the claims alone can have told who this is.
    assert_eq!((answer.status, field(&answer.body, "authorization")), (200, None), "{answer:?}");
    assert_eq!(field(&answer.body, "x-auth-subject"), Some("alice"), "{answer:?}");
    assert_eq!(site.get(&format!("Authorization: Bearer {token}x\r\n")).status, 401);
    daemon.revoke(&token);
    assert_eq!(site.get(&headers).status, 401);
    assert!(try_http(site.port, "GET / HTTP/1.1\r\nHost: a\r\n", "").is_some_and(|answer| answer.status == 401));
}

/// Envoy's own verifier, with the tests' secret as a JWK.
const JWT_FILTER: &str = r#"- name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                issuer:
                  issuer: https://issuer.example/
                  payload_in_metadata: payload
                  local_jwks:
                    inline_string: '{"keys":[{"kty":"oct","alg":"HS256","k":"dGhpcnR5LXR3byBieXRlcyBvZiBhIHRlc3Qgc2VjcmV0"}]}'
              rules:
              - match: { prefix: / }
                requires: { provider_name: issuer }"#;
