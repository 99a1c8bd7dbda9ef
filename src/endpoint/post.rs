//! Posts to others: to transmitters that are polled, and to clients that are told of logouts.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, uri::Scheme};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

/// A client that follows no redirect, reads no more than it must, and speaks plain http only where that was allowed.
#[derive(Clone)]
pub(super) struct Post {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    allow_http: bool,
}

/// Messages cannot be sent, or not to there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// Not a URL with a host and without credentials, or with a fragment.
    Url {
        /// The URL, without its query.
        url: String,
    },
    /// Not `https`, and `http` was not allowed.
    NotHttps {
        /// The URL, without its query.
        url: String,
    },
    /// The system trusts no certificate authority, so that nobody could be told apart.
    NoRoots,
    /// No tokio runtime is running.
    NoRuntime,
}

impl Post {
    pub(super) fn new(allow_http: bool) -> Result<Self, SendError> {
        let provider = aws_lc_rs::default_provider();
        let connector = match HttpsConnectorBuilder::new().with_provider_and_native_roots(provider.clone()) {
            Ok(connector) => connector,
            // Plain http needs none; https fails then.
            Err(_) if allow_http => HttpsConnectorBuilder::new().with_tls_config(
                ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions()
                    .map_err(|_| SendError::NoRoots)?
                    .with_root_certificates(RootCertStore::empty())
                    .with_no_client_auth(),
            ),
            Err(_) => return Err(SendError::NoRoots),
        };
        let connector = if allow_http { connector.https_or_http() } else { connector.https_only() };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(4)
            .build(connector.enable_http1().build());
        Ok(Self { client, allow_http })
    }

    /// Whether anything may be sent there.
    pub(super) fn check(&self, url: &str) -> Result<Uri, SendError> {
        let shown =
            || url.split(['?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default().to_owned();
        let uri: Uri = url.parse().map_err(|_| SendError::Url { url: shown() })?;
        let plain = uri.authority().is_some_and(|host| !host.as_str().contains('@') && !host.host().is_empty());
        if !plain || url.contains('#') {
            return Err(SendError::Url { url: shown() });
        }
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Ok(uri),
            Some(scheme) if *scheme == Scheme::HTTP && self.allow_http => Ok(uri),
            _ => Err(SendError::NotHttps { url: shown() }),
        }
    }

    /// Status and body of the answer, of no more than `most` bytes and within `time`; `None` where there was none.
    pub(super) async fn send(
        &self,
        url: &Uri,
        headers: HeaderMap,
        body: impl Into<Bytes>,
        most: usize,
        time: Duration,
    ) -> Option<(StatusCode, Bytes)> {
        let mut request = Request::post(url.clone()).body(Full::new(body.into())).ok()?;
        *request.headers_mut() = headers;
        let exchange = async {
            let response = self.client.request(request).await.ok()?;
            let status = response.status();
            let body = Limited::new(response.into_body(), most).collect().await.ok()?;
            Some((status, body.to_bytes()))
        };
        tokio::time::timeout(time, exchange).await.ok().flatten()
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url } => {
                write!(f, "{url:?} is no URL to send to; it needs a host, and no credentials or fragment")
            }
            Self::NotHttps { url } => {
                write!(f, "{url:?} is not https; allow http explicitly if the network can be trusted")
            }
            Self::NoRoots => f.write_str("no certificate authorities were found; install them or set SSL_CERT_FILE"),
            Self::NoRuntime => f.write_str("there is no tokio runtime to send from; call it inside of one"),
        }
    }
}

impl std::error::Error for SendError {}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("allow_http", &self.allow_http).finish_non_exhaustive()
    }
}
