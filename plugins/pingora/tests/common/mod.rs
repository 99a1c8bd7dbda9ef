//! A Pingora server with the guard and the routes, an upstream that records what reaches it, and a client that writes raw
//! bytes.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    missing_docs
)]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use pingora::{
    Result,
    apps::HttpServerOptions,
    http::RequestHeader,
    prelude::{HttpPeer, Server},
    proxy::{ProxyHttp, Session, http_proxy_service},
    server::{RunArgs, configuration::ServerConf},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tower_revocation::{
    Revocations,
    backend::Memory,
    denylist::{Denylist, Staleness},
    endpoint::{Clients, Endpoints, RegisteredClient, SecretMethod, TokenEndpoint},
    policy::Policy,
    response::DenyResponse,
    revocation::Revocation,
    sync::SyncConfig,
    token::{Algorithm, Identity, Issuer, JwtVerifier, Keys, Verifier, Verify},
};
use tower_revocation_pingora::{RevocationGuard, RevocationRoutes};

pub const ISSUER: &str = "https://issuer.example/";
const AUDIENCE: &str = "https://api.example/";
const SECRET: &[u8] = b"a secret of the tests, thirty-two bytes or more";
/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(20);

pub type Guard<D> = RevocationGuard<Verify<JwtVerifier>, D>;

/// A proxy, what is behind it, and the revocations that it enforces.
pub struct Site {
    pub address: SocketAddr,
    pub upstream: Upstream,
    pub revocations: Revocations,
}

impl Site {
    pub async fn new() -> Self {
        Self::with(Policy::default(), |guard| guard).await
    }

    pub async fn with<D: DenyResponse<Bytes> + Send + Sync + 'static>(
        policy: Policy,
        adjust: impl FnOnce(Guard<tower_revocation::response::Json>) -> Guard<D>,
    ) -> Self {
        let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
        let revocations = Revocations::start(Memory::new(), config).await.unwrap();
        let guard = adjust(guard(revocations.denylist().clone(), policy));
        let routes = RevocationRoutes::new(&guard, endpoints(&revocations)).unwrap();
        let upstream = Upstream::start().await;
        let address = serve(guard, Some(routes), upstream.address).await;
        Self { address, upstream, revocations }
    }

    pub async fn connect(&self) -> Connection {
        Connection::to(self.address).await
    }

    pub async fn revoke(&self, token: &str) {
        let identity = verifier().verify(token, unix()).unwrap();
        let _ = self.revocations.revoke(Revocation::token_of(&identity).unwrap()).await.unwrap();
    }

    /// A token that is revoked.
    pub async fn revoked(&self) -> String {
        let token = token(json!({"jti": "revoked"}));
        self.revoke(&token).await;
        token
    }
}

pub fn guard(denylist: Arc<Denylist>, policy: Policy) -> Guard<tower_revocation::response::Json> {
    RevocationGuard::with_policy(denylist, Verify::new(verifier()), policy)
}

pub fn endpoints(revocations: &Revocations) -> Endpoints {
    let client = RegisteredClient::confidential("app", "secret", SecretMethod::Basic).issuers([ISSUER]);
    let clients = Clients::new().client(client).unwrap();
    Endpoints::new(revocations.clone()).token(TokenEndpoint::new(Arc::new(verifier()), clients))
}

struct Gateway<D> {
    guard: Guard<D>,
    routes: Option<RevocationRoutes>,
    upstream: SocketAddr,
}

#[async_trait]
impl<D: DenyResponse<Bytes> + Send + Sync + 'static> ProxyHttp for Gateway<D> {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        if let Some(routes) = &self.routes
            && routes.answer(session).await?
        {
            return Ok(true);
        }
        self.guard.check(session).await
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    /// Shows the upstream, and so the test, the identity that the guard left.
    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(identity) = session.req_header().extensions.get::<Identity>() {
            request.insert_header("x-inserted", identity.sub().unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Starts a server on a free port. It ends with the test's process.
pub async fn serve<D: DenyResponse<Bytes> + Send + Sync + 'static>(
    guard: Guard<D>,
    routes: Option<RevocationRoutes>,
    upstream: SocketAddr,
) -> SocketAddr {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::thread::spawn(move || {
        let conf = ServerConf { threads: 1, grace_period_seconds: Some(0), ..ServerConf::default() };
        let mut server = Server::new_with_opt_and_conf(None, conf);
        server.bootstrap();
        let mut service = http_proxy_service(&server.configuration, Gateway { guard, routes, upstream });
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        service.app_logic_mut().unwrap().server_options = Some(options);
        service.add_tcp(&address.to_string());
        server.add_service(service);
        server.run(RunArgs::default());
    });
    let up = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, up).await.expect("the server is up");
    address
}

pub fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A JWT with these claims over the usual ones, signed with HS256.
pub fn token(claims: Value) -> String {
    let mut all = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "iat": unix(), "exp": unix() + 600,
    });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let input = format!("{}.{}", part(r#"{"alg":"HS256","typ":"at+jwt"}"#), part(&all.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub fn good() -> String {
    token(json!({"jti": "good"}))
}

pub fn verifier() -> JwtVerifier {
    let issuer = Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::HS256]).keys(Keys::secret(SECRET));
    JwtVerifier::builder().issuer(issuer).build().unwrap()
}

/// An HTTP/1.1 message as it came.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (header, value) = line.split_once(':')?;
            header.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// `None` at the end of the connection.
    async fn read(stream: &mut (impl AsyncBufReadExt + Unpin), bodyless: bool) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let mut message = Self { head, body: Vec::new() };
        if bodyless {
            return Some(message);
        }
        if message.header("transfer-encoding").is_some() {
            loop {
                let mut size = String::new();
                stream.read_line(&mut size).await.ok()?;
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                stream.read_exact(&mut chunk).await.ok()?;
                message.body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    return Some(message);
                }
            }
        }
        let length = message.header("content-length").map_or(0, |length| length.parse().unwrap());
        message.body.resize(length, 0);
        stream.read_exact(&mut message.body).await.ok()?;
        Some(message)
    }
}

/// A server that records what reaches it, and answers 200 `in`.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let record = Arc::clone(&record);
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = Message::read(&mut stream, false).await {
                        record.lock().unwrap().push(request);
                        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nin").await.unwrap();
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// What reached it since the last call.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// A client's connection over HTTP/1.1.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub async fn to(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have closed already.
        let _ = self.0.get_mut().write_all(bytes.as_ref()).await;
    }

    /// Whether the other side closes before it has got all of this.
    pub async fn cannot_send(&mut self, bytes: &str, times: usize) -> bool {
        for _ in 0..times {
            if self.0.get_mut().write_all(bytes.as_bytes()).await.is_err() {
                return true;
            }
        }
        false
    }

    pub async fn answer(&mut self) -> Message {
        self.read(false).await.expect("an answer")
    }

    pub async fn answer_to_head(&mut self) -> Message {
        self.read(true).await.expect("an answer")
    }

    async fn read(&mut self, bodyless: bool) -> Option<Message> {
        tokio::time::timeout(LIMIT, Message::read(&mut self.0, bodyless)).await.expect("an answer or the end in time")
    }

    /// Sends the lines of a head, and reads the answer.
    pub async fn ask(&mut self, request: &str, headers: &[&str]) -> Message {
        self.send(head(request, headers)).await;
        self.answer().await
    }

    pub async fn get(&mut self, token: &str) -> Message {
        self.ask("GET /", &[&bearer(token)]).await
    }

    /// Waits for the other side to close.
    pub async fn is_closed(&mut self) -> bool {
        is_at_end(&mut self.0).await
    }
}

async fn is_at_end(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut byte = [0];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut byte)).await.expect("the end in time");
    matches!(read, Ok(0) | Err(_))
}

pub fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

pub fn head(request: &str, headers: &[&str]) -> String {
    let mut head = format!("{request} HTTP/1.1\r\nhost: test\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head + "\r\n"
}
