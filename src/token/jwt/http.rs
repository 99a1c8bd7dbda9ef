use std::{error::Error, fmt};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, Uri, header::ACCEPT, uri::Scheme};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use super::{
    key::KeySet,
    refresh::{Fetch, FetchError, FetchErrorKind},
};

/// Fetches over HTTPS, trusting the certificate authorities of the system (or of `SSL_CERT_FILE`).
///
/// Redirects are not followed, no more than 1 MiB is read, and rustls' process-wide provider is neither read nor set.
#[derive(Clone)]
pub struct HttpFetch {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    allow_http: bool,
}

impl HttpFetch {
    /// For `https` only.
    ///
    /// # Errors
    ///
    /// [`FetchErrorKind::NoRoots`], where the system trusts no certificate authority.
    pub fn new() -> Result<Self, FetchErrorKind> {
        Ok(Self::with(connector(false)?, false))
    }

    /// For `http` too; then `https` fails where the system trusts no certificate authority.
    ///
    /// # Errors
    ///
    /// [`FetchErrorKind::NoRoots`], where TLS cannot be set up at all.
    pub fn allowing_http() -> Result<Self, FetchErrorKind> {
        Ok(Self::with(connector(true)?, true))
    }

    fn with(connector: HttpsConnector<HttpConnector>, allow_http: bool) -> Self {
        // Fetches are minutes apart: no connection is worth keeping.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { client, allow_http }
    }

    async fn document(&self, url: &str) -> Result<Bytes, FetchErrorKind> {
        let url: Uri = url.parse().map_err(|_| FetchErrorKind::Url)?;
        if !self.allow_http && url.scheme() != Some(&Scheme::HTTPS) {
            return Err(FetchErrorKind::NotHttps);
        }
        let request = Request::get(url)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::new())
            .map_err(|_| FetchErrorKind::Url)?;
        let response = self.client.request(request).await.map_err(|error| connection(&error))?;
        if response.status() != StatusCode::OK {
            return Err(FetchErrorKind::Status(response.status().as_u16()));
        }
        match Limited::new(response.into_body(), KeySet::MAX_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchErrorKind::TooLarge),
            Err(error) => Err(connection(&*error)),
        }
    }
}

/// Connects over TLS, and in the clear where that is allowed: then without roots to trust, too, as long as it must not.
pub(in crate::token) fn connector(allow_http: bool) -> Result<HttpsConnector<HttpConnector>, FetchErrorKind> {
    let provider = aws_lc_rs::default_provider();
    let with_roots = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider.clone());
    if !allow_http {
        return Ok(with_roots.map_err(|_| FetchErrorKind::NoRoots)?.https_only().enable_http1().build());
    }
    let connector = match with_roots {
        Ok(connector) => connector,
        Err(_) => HttpsConnectorBuilder::new().with_tls_config(
            ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(|_| FetchErrorKind::NoRoots)?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth(),
        ),
    };
    Ok(connector.https_or_http().enable_http1().build())
}

/// The cause at the bottom: those above only say that there was one.
fn connection(mut error: &(dyn Error + 'static)) -> FetchErrorKind {
    while let Some(source) = error.source() {
        error = source;
    }
    FetchErrorKind::Connection(error.to_string())
}

impl Fetch for HttpFetch {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        Box::pin(async move { self.document(url).await.map_err(|kind| FetchError::new(url, kind)) })
    }
}

impl fmt::Debug for HttpFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFetch").field("allow_http", &self.allow_http).finish_non_exhaustive()
    }
}
