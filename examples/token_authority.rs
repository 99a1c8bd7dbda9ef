//! The TokenAuthority profile in front of a stand-in for its server: token revocation, and the replay rule.
//!
//! `cargo run --example token_authority`, then copy the lines that it prints. `PORT` (3000) in the environment changes
//! the port. As TokenAuthority does, the server signs with HS256, and its refresh tokens are JWTs that name neither a
//! user nor a client. It keeps no state; the recorder in front knows which tokens belong together.

use std::{
    error::Error,
    io::Write,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use axum::{
    Extension, Form, Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Memory,
    denylist::Staleness,
    endpoint::{
        Clients, Endpoints, FrontLayer, Profile, RegisteredClient, SecretMethod, TokenEndpoint, metadata::Metadata,
    },
    recorder::{MemoryStore, Recorder, Replay},
    sync::SyncConfig,
    token::{Algorithm, Identity, Issuer, JwtVerifier, Keys, OpaqueKeys, Verifier, Verify},
};

const ISSUER: &str = "https://token-authority.example/";
const AUDIENCE: &str = "https://api.example/";
const ACCESS_LIFETIME: u64 = 600;
const REFRESH_LIFETIME: u64 = 12 * 60 * 60;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let url = format!("http://127.0.0.1:{port}");
    let secret = random_bytes();

    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await?;
    // The API takes access tokens only; the revocation endpoint takes refresh tokens as well.
    let issuer = || Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::HS256]).keys(Keys::secret(secret));
    let access_tokens = Arc::new(JwtVerifier::builder().issuer(issuer().require_at_jwt()).build()?);
    let any_token = Arc::new(JwtVerifier::builder().issuer(issuer()).build()?);

    let client = RegisteredClient::confidential("app", "app-secret", SecretMethod::Basic).issuers([ISSUER]);
    let clients = Clients::new().client(client)?;
    let endpoints = Endpoints::new(revocations.clone())
        .profile(Profile::TokenAuthority)
        .token(TokenEndpoint::new(any_token.clone(), clients));
    let keys = OpaqueKeys::new("example", random_bytes())?;
    let recorder = Recorder::new(revocations.clone(), MemoryStore::new(), keys, ISSUER)
        .verifier(access_tokens.clone())
        // A refresh token that is used twice ends the session, and a refresh ends the access tokens before it.
        .replay(Replay::TokenAuthority)
        .refresh_ends_access(true);

    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(access_tokens)).insert_identity(true);
    let front = FrontLayer::new(check, endpoints)?.metadata(Metadata::new(&url))?.recorder(recorder, "/oauth/token")?;

    let app = Router::new()
        .route("/oauth/token", post(token))
        .with_state(Behind { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)), any_token })
        .route("/api/me", get(me))
        // Last, so that it covers every route: answers `/oauth/revoke`, and checks all else.
        .layer(front);

    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    usage(&url)?;
    axum::serve(listener, app).await?;
    Ok(())
}

fn usage(url: &str) -> std::io::Result<()> {
    println!("A TokenAuthority server (a stand-in) with tower-revocation in front, on {url}. Try:\n");
    println!("curl -s {url}/.well-known/oauth-authorization-server\n");
    println!("# Either token ends both:");
    println!("ANSWER=$(curl -s -u app:app-secret -d grant_type=password -d username=alice {url}/oauth/token)");
    println!("TOKEN=$(echo $ANSWER | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')");
    println!("REFRESH=$(echo $ANSWER | sed 's/.*\"refresh_token\":\"\\([^\"]*\\)\".*/\\1/')");
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/me    # 200");
    println!(
        "curl -i -u app:app-secret -d token=$REFRESH -d token_type_hint=refresh_token {url}/oauth/revoke    \
         # 200, again too"
    );
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/me    # 401");
    println!(
        "curl -i -u app:app-secret -d grant_type=refresh_token -d refresh_token=$REFRESH {url}/oauth/token    \
         # 400 invalid_grant\n"
    );
    println!("# What is no JWT of this server:");
    println!("curl -i -u app:app-secret -d token=garbage {url}/oauth/revoke    # 400 unsupported_token_type\n");
    println!("# Replay: take a new TOKEN and REFRESH as above, then refresh twice with the same token:");
    println!(
        "curl -i -u app:app-secret -d grant_type=refresh_token -d refresh_token=$REFRESH {url}/oauth/token    \
         # 200, and TOKEN is dead"
    );
    println!(
        "curl -i -u app:app-secret -d grant_type=refresh_token -d refresh_token=$REFRESH {url}/oauth/token    \
         # 400 invalid_request"
    );
    println!("# The tokens of the first refresh are dead now, too.\n");
    println!("ready");
    std::io::stdout().flush()
}

/// The layer has verified the token and put the identity here; without a token there is none.
async fn me(identity: Option<Extension<Identity>>) -> Result<Json<Value>, StatusCode> {
    let Extension(identity) = identity.ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(json!({ "sub": identity.sub(), "client_id": identity.client_id() })))
}

// What stands in for the server.

#[derive(Clone)]
struct Behind {
    key: Arc<hmac::Key>,
    any_token: Arc<JwtVerifier>,
}

#[derive(serde::Deserialize)]
struct TokenRequest {
    grant_type: String,
    username: Option<String>,
    refresh_token: Option<String>,
}

/// Whoever names a user is that user, at the client `app`. Any refresh token that it signed is good to it: what was
/// revoked or used before does not come through.
async fn token(State(behind): State<Behind>, Form(form): Form<TokenRequest>) -> Response {
    let issued = match (form.grant_type.as_str(), form.username, form.refresh_token) {
        ("password", Some(username), _) if !username.is_empty() => behind.issue(&username),
        ("refresh_token", _, Some(token)) => match behind.user_of(&token) {
            Some(username) => behind.issue(&username),
            None => return error("invalid_grant"),
        },
        _ => return error("invalid_request"),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(issued)).into_response()
}

fn error(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "error": error }))).into_response()
}

impl Behind {
    /// The `jti` of a refresh token says whose it is, in place of a database.
    fn user_of(&self, refresh_token: &str) -> Option<String> {
        let identity = self.any_token.verify(refresh_token, unix()).ok()?;
        let (username, _) = identity.jti()?.strip_prefix("refresh-")?.rsplit_once('.')?;
        Some(username.to_owned())
    }

    fn issue(&self, username: &str) -> Value {
        let now = unix();
        let access = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": username, "client_id": "app", "jti": random_id(), "iat": now,
            "exp": now + ACCESS_LIFETIME,
        });
        let refresh = json!({
            "iss": ISSUER, "aud": AUDIENCE, "jti": format!("refresh-{username}.{}", random_id()), "iat": now,
            "exp": now + REFRESH_LIFETIME,
        });
        json!({
            "access_token": self.sign("at+jwt", &access),
            "token_type": "Bearer",
            "expires_in": ACCESS_LIFETIME,
            "refresh_token": self.sign("JWT", &refresh),
        })
    }

    fn sign(&self, typ: &str, claims: &Value) -> String {
        let header = json!({ "alg": "HS256", "typ": typ });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(&header), part(claims));
        let signature = hmac::sign(&self.key, input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_or_else(|_| std::process::abort(), |()| bytes)
}

fn random_id() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes())
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
