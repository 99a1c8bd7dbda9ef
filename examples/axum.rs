//! The layer in axum: tokens are verified by the layer, and a handler revokes.
//!
//! `cargo run --example axum`, then copy the lines that it prints.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use axum::{
    Extension, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Memory,
    denylist::Staleness,
    revocation::{Revocation, Scope},
    sync::SyncConfig,
    token::{Algorithm, Identity, Issuer, JwtVerifier, Keys, Verify},
};

const ISSUER: &str = "https://issuer.example/";
const AUDIENCE: &str = "https://api.example/";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret: [u8; 32] = aws_lc_rs::rand::generate(&aws_lc_rs::rand::SystemRandom::new())?.expose();

    // One process without a store: `Memory` forgets at restart. `Sqlite` does not.
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await?;

    let issuer = Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::HS256]).keys(Keys::secret(secret));
    let verifier = JwtVerifier::builder().issuer(issuer).build()?;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier)).insert_identity(true);

    let app = Router::new()
        .route("/me", get(me))
        .route("/admin/log-out-alice", post(log_out_alice))
        .with_state(revocations)
        // Last, so that it covers every route.
        .layer(layer);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let token = token(&secret);
    println!("curl -i -H 'Authorization: Bearer {token}' http://127.0.0.1:{port}/me");
    println!("curl -i -X POST http://127.0.0.1:{port}/admin/log-out-alice");
    axum::serve(listener, app).await?;
    Ok(())
}

async fn me(identity: Option<Extension<Identity>>) -> Result<String, StatusCode> {
    let Extension(identity) = identity.ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(format!("hello, {}\n", identity.sub().unwrap_or("nobody")))
}

/// A real one asks who is calling.
async fn log_out_alice(State(revocations): State<Revocations>) -> Result<&'static str, StatusCode> {
    let alice = Revocation::new(Scope::subject(ISSUER, "alice")).reason("asked for").revoked_by("admin");
    match revocations.revoke(alice).await {
        Ok(_) => Ok("alice is logged out everywhere\n"),
        Err(_) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
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
