//! The whole job in one file: an axum service behind the layer, a durable denylist, a demo issuer and the
//! revocation endpoint (RFC 7009).
//!
//! `cargo run --release --example quickstart`, then copy the lines that it prints. `PORT` (3000) and `DATABASE`
//! (`quickstart.db`) in the environment change the two defaults. The issuer's key is kept beside the database,
//! so that a token issued before a restart is still good after it, unless it was revoked.

use std::{
    error::Error,
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
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
    backend::Sqlite,
    denylist::{Staleness, Verdict},
    endpoint::{Clients, EndpointLayer, Endpoints, RegisteredClient, SecretMethod, TokenEndpoint},
    sync::SyncConfig,
    token::{Algorithm, Identity, Issuer, JwtVerifier, Keys, Verifier, Verify},
};

const ISSUER: &str = "https://demo-issuer.example/";
const AUDIENCE: &str = "https://demo-api.example/";
const CLIENT: &str = "demo";
const ACCESS_LIFETIME: u64 = 600;
const REFRESH_LIFETIME: u64 = 12 * 60 * 60;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let database = std::env::var("DATABASE").unwrap_or_else(|_| "quickstart.db".to_owned());
    let key = load_key(Path::new(&format!("{database}.key")))?;

    // The denylist: durable in SQLite, in memory here. Requests are refused if the two lose touch for ten seconds.
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Sqlite::open(&database).await?, config).await?;

    // The API takes access tokens only; the revocation endpoint takes refresh tokens as well.
    let issuer = || {
        let keys = Keys::jwks(jwks(&key));
        Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::ES256]).keys(keys)
    };
    let access_tokens = JwtVerifier::builder().issuer(issuer().require_at_jwt()).build()?;
    let any_token = Arc::new(JwtVerifier::builder().issuer(issuer()).build()?);

    let client = RegisteredClient::confidential(CLIENT, "demo", SecretMethod::Basic).issuers([ISSUER]);
    let clients = Clients::new().client(client)?;
    let endpoints = Endpoints::new(revocations.clone()).token(TokenEndpoint::new(any_token.clone(), clients));
    let check = RevocationLayer::new(revocations.denylist().clone(), Verify::new(access_tokens)).insert_identity(true);

    let app = Router::new()
        .route("/api/me", get(me))
        .route("/token", post(token))
        .with_state(Demo { key: Arc::new(key), verifier: any_token, revocations })
        // Last, so that it covers every route: answers `/oauth/revoke`, and checks all else.
        .layer(EndpointLayer::new(check, endpoints)?);

    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let url = format!("http://127.0.0.1:{port}");
    println!("A demo issuer, an API and a revocation endpoint on {url}, revocations in {database}. Try:\n");
    println!("TOKEN=$(curl -s -d user=alice {url}/token | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')");
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/me       # 200");
    println!("curl -i -u demo:demo -d token=$TOKEN {url}/oauth/revoke        # 200");
    println!("curl -i -H \"Authorization: Bearer $TOKEN\" {url}/api/me       # 401\n");
    println!("Kill it with `kill -9`, start it again, and repeat the last line: still 401.");
    std::io::stdout().flush()?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// The layer has verified the token and put the identity here; without a token there is none.
async fn me(identity: Option<Extension<Identity>>) -> Result<Json<Value>, StatusCode> {
    let Extension(identity) = identity.ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(json!({ "sub": identity.sub(), "client_id": identity.client_id() })))
}

#[derive(Clone)]
struct Demo {
    key: Arc<EcdsaKeyPair>,
    verifier: Arc<JwtVerifier>,
    revocations: Revocations,
}

#[derive(serde::Deserialize)]
struct TokenRequest {
    user: Option<String>,
    grant_type: Option<String>,
    refresh_token: Option<String>,
}

/// Stands in for an authorization server: whoever names a user is that user. Answers as RFC 6749 §5.
async fn token(State(demo): State<Demo>, Form(form): Form<TokenRequest>) -> Response {
    let (sub, sid) = match (form.user, form.grant_type.as_deref(), form.refresh_token) {
        (Some(user), None | Some("password"), None) if !user.is_empty() => (user, random_id()),
        (None, Some("refresh_token"), Some(refresh_token)) => match demo.refresh(&refresh_token) {
            Some(session) => session,
            None => return error("invalid_grant"),
        },
        _ => return error("invalid_request"),
    };
    match demo.issue(&sub, &sid) {
        Ok(tokens) => ([(header::CACHE_CONTROL, "no-store")], Json(tokens)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn error(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, [(header::CACHE_CONTROL, "no-store")], Json(json!({ "error": error }))).into_response()
}

impl Demo {
    /// The session that a refresh token continues, unless it was revoked.
    fn refresh(&self, token: &str) -> Option<(String, String)> {
        let identity = self.verifier.verify(token, unix()).ok()?;
        let good = identity.jti().is_some_and(|jti| jti.starts_with("refresh-"))
            && self.revocations.check(&identity) == Verdict::Allow;
        good.then(|| Some((identity.sub()?.to_owned(), identity.sid()?.to_owned()))).flatten()
    }

    fn issue(&self, sub: &str, sid: &str) -> Result<Value, Box<dyn Error>> {
        let now = unix();
        let claims = |jti: String, lifetime: u64| {
            json!({
                "iss": ISSUER, "aud": AUDIENCE, "sub": sub, "client_id": CLIENT, "sid": sid, "jti": jti,
                "iat": now, "exp": now + lifetime,
            })
        };
        Ok(json!({
            "access_token": self.sign("at+jwt", &claims(random_id(), ACCESS_LIFETIME))?,
            "token_type": "Bearer",
            "expires_in": ACCESS_LIFETIME,
            "refresh_token": self.sign("JWT", &claims(format!("refresh-{}", random_id()), REFRESH_LIFETIME))?,
        }))
    }

    fn sign(&self, typ: &str, claims: &Value) -> Result<String, Box<dyn Error>> {
        let header = json!({ "alg": "ES256", "typ": typ, "kid": "demo" });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes())?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The issuer's key: read from `path`, or made and kept there for the owner's eyes only.
fn load_key(path: &Path) -> Result<EcdsaKeyPair, Box<dyn Error>> {
    let pkcs8 = if path.exists() {
        std::fs::read(path)?
    } else {
        let fresh = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)?.write_all(fresh.as_ref())?;
        fresh.as_ref().to_vec()
    };
    Ok(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)?)
}

/// The public half as a JWK set (RFC 7517).
fn jwks(key: &EcdsaKeyPair) -> String {
    // An uncompressed point: 0x04, x, y.
    let point = key.public_key().as_ref();
    let (x, y) = (&point[1..33], &point[33..65]);
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "x": part(x), "y": part(y), "kid": "demo", "use": "sig", "alg": "ES256",
    }] })
    .to_string()
}

fn random_id() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_or_else(|_| std::process::abort(), |()| URL_SAFE_NO_PAD.encode(bytes))
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
