//! The service behind: it remembers each request, and answers by path.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Notify, mpsc},
    task::AbortHandle,
};

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: Method,
    pub target: String,
    pub authority: Option<String>,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Recorded {
    /// All values of a header, as text.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

/// The service. `/sse` sends what the test pushes; `/upload` tells of each part as it comes; `/echo` sends the body back
/// as it comes; `/big` is a large body; `/slow` waits for [`Upstream::release`]; `/ws` echoes over an upgraded connection;
/// `/hop` has headers of the connection; gRPC is echoed. Everything else is 200 unless [`Upstream::answers`] says so.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
    server: Arc<Server>,
}

struct Server(AbortHandle);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Default)]
struct State {
    requests: Mutex<Vec<Recorded>>,
    answers: Mutex<HashMap<String, (u16, &'static str, String)>>,
    events: Mutex<Option<mpsc::UnboundedReceiver<Bytes>>>,
    parts: Mutex<Vec<Bytes>>,
    released: Notify,
}

/// The length of `/big`.
pub const BIG: usize = 100 * 1024 * 1024;

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                stream.set_nodelay(true).unwrap();
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        async move { Ok::<_, hyper::Error>(answer(&state, request).await) }
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    // Clients may go away whenever a test is through.
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, state, server: Arc::new(Server(server.abort_handle())) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.requests.lock().unwrap().clone()
    }

    pub fn last(&self) -> Recorded {
        self.requests().last().expect("the service behind was asked").clone()
    }

    /// Answers this path so.
    pub fn answers(&self, path: &str, status: u16, content_type: &'static str, body: impl Into<String>) {
        self.state.answers.lock().unwrap().insert(path.to_owned(), (status, content_type, body.into()));
    }

    /// What is sent here comes out of the next `/sse`, part by part.
    pub fn events(&self) -> mpsc::UnboundedSender<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.state.events.lock().unwrap() = Some(receiver);
        sender
    }

    /// What came in at `/upload`, joined.
    pub fn uploaded(&self) -> Vec<u8> {
        self.state.parts.lock().unwrap().concat()
    }

    /// Lets one `/slow` be answered.
    pub fn release(&self) {
        self.state.released.notify_one();
    }
}

async fn answer(state: &State, mut request: Request<Incoming>) -> Response<Body> {
    let recorded = Recorded {
        method: request.method().clone(),
        target: request.uri().path_and_query().map_or_else(|| request.uri().to_string(), ToString::to_string),
        authority: request.uri().authority().map(ToString::to_string),
        version: request.version(),
        headers: request.headers().clone(),
        body: Bytes::new(),
    };
    let path = request.uri().path().to_owned();
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let remember = |recorded: Recorded| state.requests.lock().unwrap().push(recorded);
    if grpc {
        remember(recorded);
        return grpc_echo(request);
    }
    match path.as_str() {
        "/ws" => {
            remember(recorded);
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    stream.write_all(&buffer[..read]).await.unwrap();
                }
            });
            let mut response = Response::new(whole(""));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            // To the key that every test sends, the example of RFC 6455 §1.3.
            let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            response
        }
        "/echo" => {
            remember(recorded);
            Response::new(request.into_body().boxed_unsync())
        }
        "/upload" => {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data() {
                    state.parts.lock().unwrap().push(data);
                }
            }
            remember(recorded);
            Response::new(whole("uploaded"))
        }
        "/sse" => {
            remember(recorded);
            let events = state.events.lock().unwrap().take().expect("Upstream::events was called before");
            let stream = stream::unfold(events, |mut events| async move {
                events.recv().await.map(|event| (Ok(Frame::data(event)), events))
            });
            let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response
        }
        "/big" => {
            remember(recorded);
            Response::new(big())
        }
        "/slow" => {
            remember(recorded);
            state.released.notified().await;
            Response::new(whole("at last"))
        }
        "/hop" => {
            remember(recorded);
            let mut response = Response::new(whole("hop"));
            for (name, value) in [("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5"), ("x-kept", "1")]
            {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        }
        _ => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            remember(Recorded { body, ..recorded });
            let fixed = state.answers.lock().unwrap().get(&path).cloned();
            let (status, content_type, body) =
                fixed.unwrap_or((200, "text/plain", "from the service behind".to_owned()));
            let mut response = Response::new(whole(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            response
        }
    }
}

/// Each message goes back as it comes, and trailers end it.
fn grpc_echo(request: Request<Incoming>) -> Response<Body> {
    let trailers = HeaderMap::from_iter([
        (http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0")),
        (http::HeaderName::from_static("x-trailer"), HeaderValue::from_static("kept")),
    ]);
    let stream = stream::unfold((request.into_body(), Some(trailers)), |(mut body, mut trailers)| async move {
        let frame = match body.frame().await {
            Some(frame) => frame,
            None => Ok(Frame::trailers(trailers.take()?)),
        };
        Some((frame, (body, trailers)))
    });
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A body that differs from place to place.
fn big() -> Body {
    const PART: usize = 64 * 1024;
    let stream = stream::unfold(0, |sent| async move {
        let part = (sent..(sent + PART).min(BIG)).map(big_byte).collect::<Vec<u8>>();
        (sent < BIG).then(|| (Ok(Frame::data(Bytes::from(part))), sent + PART))
    });
    StreamBody::new(stream).boxed_unsync()
}

/// What stands at this place of `/big`.
pub const fn big_byte(place: usize) -> u8 {
    (place % 251) as u8
}

fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}
