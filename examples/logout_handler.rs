//! Logging the current user out in one line, behind an application that verifies its tokens itself.
//!
//! `cargo run --example logout_handler`, then copy the lines that it prints.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::Memory,
    denylist::Staleness,
    sync::SyncConfig,
    token::{Claims, FromExtension, VerifiedClaims},
};

/// What this application knows of a session, put into the request's extensions by its own middleware.
#[derive(Clone)]
struct Session {
    user: &'static str,
    id: &'static str,
    since: u64,
}

impl VerifiedClaims for Session {
    fn claims(&self) -> Claims<'_> {
        Claims::new("https://app.example/").sub(self.user).sid(self.id).iat(self.since).exp(self.since + 3600)
    }
}

#[derive(Clone)]
struct App {
    sessions: Arc<HashMap<&'static str, Session>>,
    revocations: Revocations,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    let revocations = Revocations::start(Memory::new(), config).await?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let sessions = HashMap::from([
        ("laptop", Session { user: "alice", id: "s1", since }),
        ("phone", Session { user: "alice", id: "s2", since }),
    ]);
    let layer = RevocationLayer::new(revocations.denylist().clone(), FromExtension::<Session>::new());
    let app = App { sessions: Arc::new(sessions), revocations };

    let router = Router::new()
        .route("/me", get(|Extension(session): Extension<Session>| async move { session.user }))
        .route("/logout", post(logout))
        .route("/logout-everywhere", post(logout_everywhere))
        // Inside of the authentication: it reads what that has verified.
        .layer(layer)
        .layer(middleware::from_fn_with_state(app.clone(), authenticate))
        .with_state(app);

    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    for line in ["-H 'Authorization: Bearer laptop'", "-H 'Authorization: Bearer phone'"] {
        println!("curl -i {line} http://127.0.0.1:{port}/me");
        println!("curl -i -X POST {line} http://127.0.0.1:{port}/logout");
    }
    axum::serve(listener, router).await?;
    Ok(())
}

async fn logout(State(app): State<App>, Extension(session): Extension<Session>) -> StatusCode {
    // The one line: this session is over, whatever token it shows next.
    let outcome = app.revocations.log_out(&session).await;
    if outcome.is_ok() { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn logout_everywhere(State(app): State<App>, Extension(session): Extension<Session>) -> StatusCode {
    let outcome = app.revocations.log_out_everywhere(&session).await;
    if outcome.is_ok() { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn authenticate(State(app): State<App>, mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer "));
    let session = token.and_then(|token| app.sessions.get(token)).ok_or(StatusCode::UNAUTHORIZED)?.clone();
    request.extensions_mut().insert(session);
    Ok(next.run(request).await)
}
