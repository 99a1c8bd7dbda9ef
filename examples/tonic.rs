//! The layer in a tonic server, and a tonic client whose token is revoked between two calls.
//!
//! `cargo run --example tonic`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request,
    transport::{Channel, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Memory,
    denylist::Staleness,
    policy::{NoToken, Policy},
    response::Bare,
    revocation::{Revocation, Scope},
    sync::SyncConfig,
    token::{Algorithm, Issuer, JwtVerifier, Keys, Verify},
};

const ISSUER: &str = "https://issuer.example/";
const AUDIENCE: &str = "https://api.example/";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret: [u8; 32] = aws_lc_rs::rand::generate(&aws_lc_rs::rand::SystemRandom::new())?.expose();
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await?;

    let issuer = Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::HS256]).keys(Keys::secret(secret));
    let source = Verify::new(JwtVerifier::builder().issuer(issuer).build()?);
    let policy = Policy::default().no_token(NoToken::Deny);
    let layer = RevocationLayer::with_policy(revocations.denylist().clone(), source, policy)
        // tonic's bodies can only be empty; a refusal is a trailers-only answer anyway.
        .deny_with(Bare);

    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(
        Server::builder().layer(layer).add_service(health).serve_with_incoming(TcpListenerStream::new(listener)),
    );

    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    let mut client = HealthClient::new(channel);
    let bearer = format!("Bearer {}", token(&secret));
    let call = || -> Result<_, Box<dyn std::error::Error>> {
        let mut request = Request::new(HealthCheckRequest::default());
        request.metadata_mut().insert("authorization", bearer.parse()?);
        Ok(request)
    };
    println!("before: {:?}", client.check(call()?).await?.into_inner());
    let _ = revocations.revoke(Revocation::new(Scope::subject(ISSUER, "alice"))).await?;
    match client.check(call()?).await {
        Ok(_) => println!("after: still served"),
        Err(status) => println!("after: {:?}: {}", status.code(), status.message()),
    }
    Ok(())
}

fn token(secret: &[u8]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "jti": "1", "iat": now, "exp": now + 600,
    });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let input = format!("{}.{}", part(r#"{"alg":"HS256","typ":"at+jwt"}"#), part(&claims.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}
