//! An issuer that publishes its denylist as a Token Status List, and a resource server elsewhere that goes by it.
//!
//! `cargo run --example status_list`

use std::{sync::Arc, time::Duration};

use axum::Router;
use tower_revocation::{
    Revocations,
    backend::Memory,
    denylist::Staleness,
    revocation::{Revocation, Scope},
    status_list::{MemoryIndex, StatusIndex, StatusListPublisher, StatusLists},
    sync::SyncConfig,
    token::{Algorithm, Claims, Identity, Issuer, JwtVerifier, Keys, SigningKey},
};

const ISSUER: &str = "https://issuer.example/";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The issuer: its denylist, and the list that it publishes. RFC 8037's key; make your own.
    let key = SigningKey::jwk(
        r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
    )?;
    let public = key.public_jwk();
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let uri = format!("http://{}/statuslists/1", listener.local_addr()?);
    let index = Arc::new(MemoryIndex::new(1024));
    let denylist = Arc::clone(revocations.denylist());
    let publisher =
        StatusListPublisher::new(denylist, Arc::clone(&index) as Arc<dyn StatusIndex>, key, ISSUER, &uri, 1024)
            .lasting(Duration::from_secs(2), Duration::from_secs(60));
    let app = Router::new().route_service("/statuslists/1", Arc::new(publisher).service());
    tokio::spawn(async move { axum::serve(listener, app).await });

    // A token that is about to be issued gets an index, which goes into its claim `status`.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let claims = Claims::new(ISSUER).jti("7f2c").sub("alice").iat(now).exp(now + 600);
    let idx = index.assign(&Identity::from_verified(&claims)).await?;

    // The resource server: it has the issuer's public key and the token, and nothing else.
    let issuer = Issuer::new(ISSUER).any_audience().algorithms([Algorithm::EdDSA]).keys(Keys::jwks(public));
    let verifier = Arc::new(JwtVerifier::builder().issuer(issuer).build()?);
    // Plain http from this machine is for examples.
    let lists = StatusLists::builder(verifier).allow_http(true).build()?;
    let presented = Identity::from_verified(&claims.status_list(&uri, idx));
    println!("before: {:?}", lists.check(&presented).await);

    let _ = revocations.revoke(Revocation::new(Scope::subject(ISSUER, "alice"))).await?;
    while lists.check(&presented).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("after: {:?}", lists.check(&presented).await);
    Ok(())
}
