//! The connection to a daemon.

use std::{error::Error as _, fs, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Daemon, exit::Failure, print::plain};
use crate::{admin, config};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: longer than the daemon waits for other nodes at most.
const ANSWER: Duration = Duration::from_secs(90);

/// The body of a request.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A daemon that can be asked.
pub(super) struct Connection {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    base: String,
    /// Or why there is none.
    token: Result<Zeroizing<String>, String>,
}

/// A JSON answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Connection {
    /// The daemon that the options tell.
    pub(super) fn new(daemon: Daemon) -> Result<Self, Failure> {
        let Daemon { config: file, admin, admin_token_file } = daemon;
        let (base, token_file) = match admin {
            Some(url) => (url, admin_token_file),
            None => {
                let config = config::load(&file).map_err(|error| {
                    Failure::usage(format!(
                        "{error}\nsay with --config which daemon to ask, or with --admin where it is"
                    ))
                })?;
                let Some(section) = &config.admin else {
                    return Err(Failure::usage(format!(
                        "{}: has no [admin], so the daemon cannot be asked",
                        file.display()
                    )));
                };
                let mut address = section.listen;
                if address.ip().is_unspecified() {
                    address.set_ip(if address.is_ipv4() {
                        [127, 0, 0, 1].into()
                    } else {
                        std::net::Ipv6Addr::LOCALHOST.into()
                    });
                }
                (
                    format!("http://{address}"),
                    Some(admin_token_file.unwrap_or_else(|| admin::token_path(&config, section))),
                )
            }
        };
        let base = base.trim_end_matches('/').to_owned();
        let url: Uri =
            base.parse().map_err(|_| Failure::usage("--admin: is no URL; write it like http://127.0.0.1:9090"))?;
        let https = match (url.scheme_str(), url.path(), url.host()) {
            (Some(scheme @ ("http" | "https")), "/", Some(_)) => scheme == "https",
            _ => return Err(Failure::usage("--admin: write it like http://127.0.0.1:9090, without a path")),
        };
        Ok(Self { client: client(https)?, base, token: read_token(token_file) })
    }

    /// Asks, and reads the answer as JSON.
    pub(super) async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let body = body.map(|body| ("application/json", whole(body.to_string())));
        let response = self.send(method, path, body).await?;
        read(response).await
    }

    /// The same, for an answer that is of use only if it is a success.
    pub(super) async fn success(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let answer = self.json(method, path, body).await?;
        if answer.status.is_success() { Ok(answer.body) } else { Err(self.refusal(&answer)) }
    }

    /// Asks; the body of the answer is still to be read.
    pub(super) async fn open(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let response = self.send(Method::GET, path, None).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(&read(response).await?)) }
    }

    /// Sends lines as they come.
    pub(super) async fn import(&self, body: Body) -> Result<Answer, Failure> {
        let request = self.request(Method::POST, "/api/v1/import", Some(("application/x-ndjson", body)))?;
        // However long it takes: the daemon ends what stands still.
        let response = self.client.request(request).await.map_err(|error| self.unreachable(&error))?;
        read(response).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Body)>,
    ) -> Result<Response<Incoming>, Failure> {
        let request = self.request(method, path, body)?;
        let answered = timeout(ANSWER, self.client.request(request)).await;
        let answered = answered.map_err(|_| Failure::failed(format!("{}: no answer within {ANSWER:?}", self.base)))?;
        answered.map_err(|error| self.unreachable(&error))
    }

    fn request(&self, method: Method, path: &str, body: Option<(&str, Body)>) -> Result<Request<Body>, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Ok(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        let body = match body {
            Some((media, body)) => {
                request = request.header(header::CONTENT_TYPE, media);
                body
            }
            None => whole(Bytes::new()),
        };
        request.body(body).map_err(|_| Failure::usage("the admin token, or what was asked, fits into no request"))
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> Failure {
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            why = error.to_string();
            cause = error.source();
        }
        Failure::failed(format!("{}: {why}; does the daemon run, with [admin]?", self.base))
    }

    /// What the daemon said in place of success.
    pub(super) fn refusal(&self, answer: &Answer) -> Failure {
        let said = answer.body["error_description"].as_str().unwrap_or_default();
        let mut what = format!("{}: {}: {}", self.base, answer.status, plain(said));
        if let (StatusCode::UNAUTHORIZED, Err(why)) = (answer.status, &self.token) {
            what = format!("{what}\n{why}");
        }
        Failure::failed(what)
    }
}

fn client(https: bool) -> Result<Client<HttpsConnector<HttpConnector>, Body>, Failure> {
    let mut roots = RootCertStore::empty();
    if https {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.enforce_http(false);
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn read_token(file: Option<PathBuf>) -> Result<Zeroizing<String>, String> {
    let file = file.ok_or("there is no admin token; say with --admin-token-file where it is")?;
    let read = fs::read_to_string(&file).map(Zeroizing::new);
    let token = read.map_err(|error| format!("the admin token cannot be read: {}: {error}", file.display()))?;
    match token.trim() {
        "" => Err(format!("the admin token cannot be read: {} is empty", file.display())),
        token => Ok(Zeroizing::new(token.to_owned())),
    }
}

/// The most that an answer in one piece may be.
const MOST: usize = 16 * 1024 * 1024;

async fn read(response: Response<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = response.into_parts();
    let read = timeout(ANSWER, http_body_util::Limited::new(body, MOST).collect()).await;
    let read = read.map_err(|_| Failure::failed("the daemon's answer took too long"))?;
    let bytes = read.map_err(|error| Failure::failed(format!("the daemon's answer broke off: {error}")))?.to_bytes();
    let body = serde_json::from_slice(&bytes).map_err(|_| {
        Failure::failed(format!("the answer ({}) is no JSON: this is no admin listener of revoked", head.status))
    })?;
    Ok(Answer { status: head.status, body })
}

pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body whose pieces come from a stream.
pub(super) fn streamed(pieces: impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    use futures_util::StreamExt as _;
    StreamBody::new(pieces.map(|piece| piece.map(http_body::Frame::data))).boxed_unsync()
}
