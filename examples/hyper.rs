//! The layer around a plain hyper service that only looks at tokens: a verifier runs behind.
//!
//! `cargo run --example hyper`, then copy the lines that it prints.

use std::{convert::Infallible, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tower::{Layer, service_fn};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Memory,
    denylist::Staleness,
    revocation::{Revocation, Scope},
    sync::SyncConfig,
    token::{Peek, VerifierBehind},
};

const ISSUER: &str = "https://issuer.example/";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await?;
    let _ = revocations.revoke(Revocation::new(Scope::subject(ISSUER, "mallory")).reason("left the company")).await?;

    // This demo has no verifier behind; yours must.
    let source = Peek::new(VerifierBehind::i_promise()).issuer(ISSUER);
    let layer = RevocationLayer::new(revocations.denylist().clone(), source);
    let service = TowerToHyperService::new(layer.layer(service_fn(hello)));

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    for sub in ["alice", "mallory"] {
        println!("curl -i -H 'Authorization: Bearer {}' http://127.0.0.1:{port}/", token(sub));
    }
    loop {
        let (stream, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            let connection =
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = connection {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello\n")))
}

fn token(sub: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = serde_json::json!({ "iss": ISSUER, "sub": sub, "jti": "1", "iat": now, "exp": now + 600 });
    format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()))
}
