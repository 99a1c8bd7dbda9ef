//! What is said to gateways that do not speak plain HTTP to us: an HTTP answer in pieces, which they give to the client.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use tower_revocation::response::Denial;

use crate::engine::Engine;

/// The answer to a request that must not pass.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Refusal {
    /// An answer of our own that is none of the guard's.
    pub(super) fn new(status: StatusCode, error: &str, description: &str) -> Self {
        let body = serde_json::json!({ "error": error, "error_description": description });
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_TYPE, JSON);
        Self { status, headers, body: Bytes::from(body.to_string()) }
    }

    /// To what the gateway tells of a request where that cannot be understood for certain.
    pub(super) fn unclear() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", "The request cannot be told for certain")
    }

    /// To a revocation request that the service behind would get.
    pub(super) fn misrouted(path: &str) -> Self {
        tracing::warn!(
            path,
            "a gateway asks whether a revocation request may pass to the service behind; route the path to revoked"
        );
        let what = "This path is a revocation endpoint; the gateway has to route it to revoked";
        Self::new(StatusCode::FORBIDDEN, "misrouted", what)
    }
}

impl From<Denial> for Refusal {
    /// For gRPC the trailers are in the head, and the body is empty.
    fn from(denial: Denial) -> Self {
        let mut headers = denial.headers();
        if denial.grpc.is_none() {
            headers.insert(header::CONTENT_TYPE, JSON);
        }
        Self { status: denial.status(), headers, body: denial.json() }
    }
}

/// Whether a request is for a revocation endpoint, which the service behind would get if it passed, and might answer 200.
pub(super) fn is_misrouted(engine: &Engine, method: &Method, uri: &Uri) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) && engine.endpoint_at(uri.path()).is_some()
}
