//! A reverse proxy in front of an upstream: refuses revoked tokens, and answers the revocation route.
//!
//! `cargo run --example proxy`, then copy the lines that it prints. `PORT` (6188) and `UPSTREAM_PORT` in the environment
//! change where it listens and where it forwards to, both on 127.0.0.1. Without `UPSTREAM_PORT` it starts an upstream of
//! its own that shows who the proxy says is calling. Revocations are kept in memory; choose a durable backend for more
//! than a demo.

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderName;
use pingora::{
    Result,
    prelude::{HttpPeer, Server},
    proxy::{ProxyHttp, Session, http_proxy_service},
};
use tower_revocation::{
    Revocations,
    backend::Memory,
    denylist::Staleness,
    endpoint::{Clients, Endpoints, RegisteredClient, SecretMethod, TokenEndpoint},
    policy::{NoToken, Policy},
    sync::SyncConfig,
    token::{Algorithm, Identity, Issuer, JwtVerifier, Keys, Verify},
};
use tower_revocation_pingora::{RevocationGuard, RevocationRoutes};

const ISSUER: &str = "https://demo-issuer.example/";
const AUDIENCE: &str = "https://demo-api.example/";
const SECRET: &[u8] = b"the demo's secret, thirty-two bytes or more";

struct Gateway {
    guard: RevocationGuard<Verify<JwtVerifier>>,
    routes: RevocationRoutes,
    upstream: u16,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        // Routes first: what clients send there to authenticate themselves is no token to be checked.
        Ok(self.routes.answer(session).await? || self.guard.check(session).await?)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(("127.0.0.1", self.upstream), false, String::new())))
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "6188".to_owned());
    let upstream = match std::env::var("UPSTREAM_PORT") {
        Ok(port) => port.parse()?,
        Err(_) => start_upstream()?,
    };

    // The replica's tasks run here, beside Pingora's own runtimes.
    let runtime = tokio::runtime::Runtime::new()?;
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = runtime.block_on(Revocations::start(Memory::new(), config))?;

    let issuer = || Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::HS256]).keys(Keys::secret(SECRET));
    let access_tokens = JwtVerifier::builder().issuer(issuer().require_at_jwt()).build()?;
    let any_token = Arc::new(JwtVerifier::builder().issuer(issuer()).build()?);

    let denylist = revocations.denylist().clone();
    let policy = Policy::default().no_token(NoToken::Deny);
    let guard = RevocationGuard::with_policy(denylist, Verify::new(access_tokens), policy)
        .identity_header(HeaderName::from_static("x-auth-subject"), Identity::sub);
    let client = RegisteredClient::confidential("demo", "demo", SecretMethod::Basic).issuers([ISSUER]);
    let clients = Clients::new().client(client)?;
    let endpoints = Endpoints::new(revocations).token(TokenEndpoint::new(any_token, clients));
    let routes = RevocationRoutes::new(&guard, endpoints)?;

    let mut server = Server::new(None)?;
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Gateway { guard, routes, upstream });
    service.add_tcp(&format!("127.0.0.1:{port}"));
    server.add_service(service);

    let url = format!("http://127.0.0.1:{port}");
    println!("A proxy on {url} in front of port {upstream}. Try:\n");
    println!("TOKEN={}", token("alice"));
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/             # 200, x-auth-subject: alice");
    println!("curl -i -u demo:demo -d token=$TOKEN {url}/oauth/revoke        # 200");
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/             # 401");
    println!("curl -i -H 'x-auth-subject: alice' {url}/                    # 401");
    std::io::stdout().flush()?;
    server.run_forever()
}

/// An access token, as an authorization server would issue it.
fn token(sub: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": sub, "client_id": "demo", "jti": format!("{sub}-{now}"),
        "iat": now, "exp": now + 600,
    });
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    let input = format!("{}.{}", part(r#"{"alg":"HS256","typ":"at+jwt"}"#.to_owned()), part(claims.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An upstream that answers with the headers it got, the token left out.
fn start_upstream() -> std::io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || show(stream));
        }
    });
    Ok(port)
}

fn show(mut stream: TcpStream) -> std::io::Result<()> {
    let mut seen = String::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if !line.to_ascii_lowercase().starts_with("authorization:") {
            seen.push_str(&line);
            seen.push('\n');
        }
    }
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{seen}", seen.len())
}
