//! A server of status lists for tests: it answers what it is told to, and counts.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::needless_pass_by_value,
    missing_docs
)]

use std::{
    collections::HashMap,
    io::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Response, header},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, task::AbortHandle};
use tower_revocation::status_list::{Bits, Status, StatusList};

use crate::common::{ISSUER, signed, unix};

/// The server.
#[derive(Clone)]
pub struct Lists {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _server: Arc<Server>,
}

struct Server(AbortHandle);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    asked: Mutex<Vec<(String, axum::http::HeaderMap)>>,
    release: Notify,
}

/// What a path answers.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Waits until it is let go.
    pub stalls: bool,
}

impl Answer {
    pub fn token(token: impl Into<Vec<u8>>) -> Self {
        let content_type = "application/statuslist+jwt";
        Self { status: 200, content_type, headers: Vec::new(), body: token.into(), stalls: false }
    }
}

impl Lists {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }).abort_handle();
        Self { address, shared, _server: Arc::new(Server(server)) }
    }

    pub fn uri(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub fn answers(&self, path: &str, answer: Answer) {
        self.shared.answers.lock().unwrap().insert(format!("/{path}"), answer);
    }

    /// A good list at this path, with these statuses.
    pub fn list(&self, path: &str, statuses: &[(u64, u8)]) {
        self.list_with(path, statuses, json!({}));
    }

    /// The same with claims over the usual ones; null takes one away.
    pub fn list_with(&self, path: &str, statuses: &[(u64, u8)], claims: Value) {
        self.answers(path, Answer::token(list_token(&self.uri(path), statuses, claims)));
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.shared.asked.lock().unwrap().iter().filter(|(asked, _)| *asked == format!("/{path}")).count()
    }

    /// The headers of the last request.
    pub fn last(&self) -> axum::http::HeaderMap {
        self.shared.asked.lock().unwrap().last().unwrap().1.clone()
    }

    pub fn release(&self) {
        self.shared.release.notify_waiters();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    shared.asked.lock().unwrap().push((path.clone(), request.headers().clone()));
    let answer = shared.answers.lock().unwrap().get(&path).cloned();
    let Some(answer) = answer else { return Response::builder().status(404).body(Body::empty()).unwrap() };
    if answer.stalls {
        shared.release.notified().await;
    }
    let mut response = Response::builder().status(answer.status).header(header::CONTENT_TYPE, answer.content_type);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(answer.body)).unwrap()
}

/// A list of 64 tokens with two bits each.
pub fn packed(statuses: &[(u64, u8)]) -> StatusList {
    let mut list = StatusList::all_valid(Bits::TWO, 64);
    statuses.iter().for_each(|(idx, status)| list.set(*idx, Status(*status)).unwrap());
    list
}

/// A status list token, signed as the tests' issuer signs.
pub fn list_token(uri: &str, statuses: &[(u64, u8)], claims: Value) -> String {
    let mut all = json!({
        "iss": ISSUER, "sub": uri, "iat": unix(), "exp": unix() + 600, "ttl": 300,
        "status_list": {"bits": 2, "lst": packed(statuses).compress()},
    });
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    signed(r#"{"alg":"HS256","typ":"statuslist+jwt"}"#, &all.to_string())
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}
