//! The layer in front of a stand-in for a Janssen server: the three revocation routes of the Janssen profile, its
//! metadata, and the recorder.
//!
//! `cargo run --example janssen_front`, then copy the lines that it prints. `PORT` (3000) in the environment changes
//! the port. The server behind issues JWTs, cannot revoke them, and knows of no logout; all of that is done in front.

use std::{
    collections::HashMap,
    error::Error,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use axum::{
    Extension, Form, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Memory,
    denylist::Staleness,
    directory::FileDirectory,
    endpoint::{
        Clients, EndpointName, Endpoints, FrontLayer, GlobalEndpoint, Mode, Profile, RegisteredClient, SecretMethod,
        SessionEndpoint, TokenEndpoint, metadata::Metadata,
    },
    recorder::{MemoryStore, Recorder},
    sync::SyncConfig,
    token::{Algorithm, Identity, Issuer, JwtVerifier, Keys, OpaqueKeys, Verify},
};

const ISSUER: &str = "https://janssen.example";
const AUDIENCE: &str = "https://api.example";
/// What calls the revocation endpoints has a token for them alone.
const REVOCATION: &str = "https://janssen.example/revocation";
const LIFETIME: u64 = 600;
/// `admin:admin-secret`.
const ADMIN: &str = "Basic YWRtaW46YWRtaW4tc2VjcmV0";
/// Who there is: `uid` and `sub`.
const USERS: [(&str, &str); 2] = [("alice", "1001"), ("bob", "1002")];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let url = format!("http://127.0.0.1:{port}");
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref())?;

    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await?;
    let verifier = |audience| {
        let issuer = Issuer::new(ISSUER).audience([audience]).algorithms([Algorithm::ES256]);
        JwtVerifier::builder().issuer(issuer.keys(Keys::jwks(jwks(&key))).require_at_jwt()).build()
    };
    let (callers, verifier) = (verifier(REVOCATION)?, Arc::new(verifier(AUDIENCE)?));

    // `web` revokes its own tokens; `admin` logs people out.
    let basic = |id: &str| RegisteredClient::confidential(id, format!("{id}-secret"), SecretMethod::Basic);
    let clients = Clients::new()
        .client(basic("web").issuers([ISSUER]))?
        .client(basic("admin").issuers([ISSUER]).scopes(["revoke_session", "global_token_revocation"]))?
        // Or an access token, by its own scopes.
        .access_tokens(callers);

    let folder = tempfile::tempdir()?;
    let users = folder.path().join("users.toml");
    std::fs::write(&users, USERS.map(|(uid, sub)| user(uid, sub)).concat())?;
    let directory = Arc::new(FileDirectory::open(&users)?);
    folder.close()?;

    let endpoints = Endpoints::new(revocations.clone())
        .profile(Profile::Janssen)
        .token(TokenEndpoint::new(verifier.clone(), clients.clone()))
        .session(SessionEndpoint::new(directory.clone(), [ISSUER], clients.clone()))
        .global(GlobalEndpoint::new(directory, [ISSUER], clients));
    // Learns which refresh token belongs to which access token.
    let keys = OpaqueKeys::new("example", random_bytes())?;
    let recorder = Recorder::new(revocations.clone(), MemoryStore::new(), keys, ISSUER).verifier(verifier.clone());

    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier)).insert_identity(true);
    let front = FrontLayer::new(check, endpoints)?
        // The server behind refuses to revoke JWTs; the record stands all the same.
        .mode(EndpointName::Token, Mode::RecordThenForward)
        .metadata(Metadata::new(&url).auth_methods(["client_secret_basic"]))?
        .recorder(recorder, "/jans-auth/restv1/token")?;

    let app = Router::new()
        .route("/jans-auth/restv1/token", post(token))
        .route("/jans-auth/restv1/revoke", post(revoke))
        .route("/jans-auth/.well-known/openid-configuration", get(configuration))
        .with_state(Behind { key: Arc::new(key), sessions: Arc::default() })
        .route("/api/me", get(me))
        // Last, so that it covers every route.
        .layer(front);

    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    usage(&url)?;
    axum::serve(listener, app).await?;
    Ok(())
}

fn usage(url: &str) -> std::io::Result<()> {
    let base = format!("{url}/jans-auth");
    println!("A Janssen server (a stand-in) with tower-revocation in front, on {url}. Try:\n");
    println!("# The endpoints, added to the server's own document:");
    println!("curl -s {base}/.well-known/openid-configuration\n");
    println!("# Token revocation: the server behind says 400 unsupported_token_type, and the token is dead:");
    println!("ANSWER=$(curl -s -u web:web-secret -d grant_type=password -d username=alice {base}/restv1/token)");
    println!("TOKEN=$(echo $ANSWER | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')");
    println!("REFRESH=$(echo $ANSWER | sed 's/.*\"refresh_token\":\"\\([^\"]*\\)\".*/\\1/')");
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/me    # 200");
    println!("curl -i -u web:web-secret -d token=$TOKEN {base}/restv1/revoke    # 400");
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/me    # 401");
    println!("# Its refresh token went with it, before the server behind sees it:");
    println!(
        "curl -i -u web:web-secret -d grant_type=refresh_token -d refresh_token=$REFRESH {base}/restv1/token    \
         # 400 invalid_grant\n"
    );
    println!("# Session revocation: take a new TOKEN as above, then");
    println!(
        "curl -i -u admin:admin-secret -d user_criterion_key=uid -d user_criterion_value=alice \
         {base}/restv1/revoke_session    # 200"
    );
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/me    # 401\n");
    println!("# Global token revocation: take a new TOKEN, a second later, then");
    println!(
        "curl -i -u admin:admin-secret -H 'Content-Type: application/json' \
         -d '{{\"sub_id\":{{\"format\":\"uid\",\"id\":\"alice\"}}}}' {base}/restv1/global-token-revocation    # 204"
    );
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/me    # 401\n");
    println!("# The same with an access token in place of the secret:");
    println!(
        "ADMIN=$(curl -s -u admin:admin-secret -d grant_type=client_credentials -d scope=global_token_revocation \
         {base}/restv1/token | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')"
    );
    println!(
        "curl -i -H \"Authorization: Bearer $ADMIN\" -H 'Content-Type: application/json' \
         -d '{{\"sub_id\":{{\"format\":\"uid\",\"id\":\"alice\"}}}}' {base}/restv1/global-token-revocation    # 204\n"
    );
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
    key: Arc<EcdsaKeyPair>,
    /// The `sub` of each refresh token that was issued and not used yet.
    sessions: Arc<Mutex<HashMap<String, String>>>,
}

#[derive(serde::Deserialize)]
struct TokenRequest {
    grant_type: String,
    username: Option<String>,
    refresh_token: Option<String>,
    scope: Option<String>,
}

/// Whoever names a user is that user, at the client `web`; refresh tokens are opaque, and used once.
///
/// `admin` gets access tokens for itself.
async fn token(State(behind): State<Behind>, headers: HeaderMap, Form(form): Form<TokenRequest>) -> Response {
    if form.grant_type == "client_credentials" {
        if headers.get(header::AUTHORIZATION).is_none_or(|value| value != ADMIN) {
            return error("invalid_client");
        }
        let claims = json!({ "aud": REVOCATION, "sub": "admin", "client_id": "admin", "scope": form.scope });
        return behind.issue(claims, None);
    }
    let sub = match (form.grant_type.as_str(), form.username, form.refresh_token) {
        ("password", Some(username), _) => {
            USERS.iter().find(|(uid, _)| *uid == username).map(|(_, sub)| (*sub).to_owned())
        }
        ("refresh_token", _, Some(token)) => behind.sessions().remove(&token),
        _ => return error("invalid_request"),
    };
    let Some(sub) = sub else { return error("invalid_grant") };
    let refresh = random_id();
    behind.sessions().insert(refresh.clone(), sub.clone());
    behind.issue(json!({ "aud": AUDIENCE, "sub": sub, "client_id": "web" }), Some(refresh))
}

#[derive(serde::Deserialize)]
struct RevokeRequest {
    token: String,
}

/// It cannot revoke JWTs (RFC 7009 §2.2.1). The layer in front can.
async fn revoke(Form(form): Form<RevokeRequest>) -> Response {
    if form.token.contains('.') { error("unsupported_token_type") } else { StatusCode::OK.into_response() }
}

async fn configuration() -> Json<Value> {
    Json(json!({ "issuer": ISSUER, "token_endpoint": format!("{ISSUER}/jans-auth/restv1/token") }))
}

fn error(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "error": error }))).into_response()
}

impl Behind {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issue(&self, mut claims: Value, refresh: Option<String>) -> Response {
        let now = unix();
        claims["iss"] = ISSUER.into();
        claims["jti"] = random_id().into();
        (claims["iat"], claims["exp"]) = (now.into(), (now + LIFETIME).into());
        let Ok(access) = self.sign(&claims) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
        let mut tokens = json!({ "access_token": access, "token_type": "Bearer", "expires_in": LIFETIME });
        if let Some(refresh) = refresh {
            tokens["refresh_token"] = refresh.into();
        }
        ([(header::CACHE_CONTROL, "no-store")], Json(tokens)).into_response()
    }

    fn sign(&self, claims: &Value) -> Result<String, Box<dyn Error>> {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "example" });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes())?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A user as [`FileDirectory`] reads one.
fn user(uid: &str, sub: &str) -> String {
    format!("[[user]]\nissuer = \"{ISSUER}\"\nsub = \"{sub}\"\nattributes = {{ uid = \"{uid}\" }}\n")
}

/// The public half of the key as a JWK set (RFC 7517).
fn jwks(key: &EcdsaKeyPair) -> String {
    // An uncompressed point: 0x04, x, y.
    let point = key.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
    json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "example", "use": "sig", "alg": "ES256" }] })
        .to_string()
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
