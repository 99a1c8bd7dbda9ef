//! Answers: JSON, text, streams, and what is wrong.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use serde::Serialize;
use serde_json::json;
use tower_revocation::{backend::BackendError, recorder::RecorderError, sync::RevokeError};

/// The body of an answer.
pub type AdminBody = UnsyncBoxBody<Bytes, io::Error>;

/// JSON with this status.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<AdminBody> {
    match serde_json::to_vec(body) {
        Ok(bytes) => whole(status, "application/json", bytes),
        Err(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer cannot be written").response()
        }
    }
}

/// What is at hand.
pub(super) fn whole(status: StatusCode, media: &'static str, bytes: impl Into<Bytes>) -> Response<AdminBody> {
    let body = Full::new(bytes.into()).map_err(|never| match never {});
    respond(status, media, UnsyncBoxBody::new(body))
}

/// An answer of these parts.
pub(super) fn respond(status: StatusCode, media: &'static str, body: AdminBody) -> Response<AdminBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Why a request is not answered with success.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    error: &'static str,
    what: String,
    /// The methods that there are in place of the one of the request.
    allow: Option<HeaderValue>,
    /// What else the answer says.
    more: serde_json::Map<String, serde_json::Value>,
}

/// Seconds after which to try again.
const RETRY_AFTER: u64 = 1;

impl Problem {
    pub(super) fn new(status: StatusCode, error: &'static str, what: impl Into<String>) -> Self {
        Self { status, error, what: what.into(), allow: None, more: serde_json::Map::new() }
    }

    /// The request can be read, and makes no sense.
    pub(super) fn unprocessable(what: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", what)
    }

    /// The path takes other methods (RFC 9110 §15.5.6).
    pub(super) fn not_allowed(methods: &str) -> Self {
        let what = format!("this path takes {methods}");
        let allow = HeaderValue::from_str(methods).ok();
        Self { allow, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", what) }
    }

    /// Another try may work.
    pub(super) fn unavailable(what: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", what)
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn response(self) -> Response<AdminBody> {
        let mut body = json!({ "error": self.error, "error_description": self.what });
        if let Some(body) = body.as_object_mut() {
            body.extend(self.more);
        }
        let mut response = whole(self.status, "application/json", body.to_string());
        let headers = response.headers_mut();
        headers.extend(self.allow.map(|methods| (header::ALLOW, methods)));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"revoked\""));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(super::auth::WINDOW.as_secs()));
            }
            _ => {}
        }
        response
    }
}

impl From<RevokeError> for Problem {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::NothingToRevoke => Self::unprocessable(error.to_string()),
            RevokeError::Full { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "full", error.to_string()),
            _ => Self::unavailable(error.to_string()),
        }
    }
}

impl From<BackendError> for Problem {
    fn from(error: BackendError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<RecorderError> for Problem {
    fn from(error: RecorderError) -> Self {
        Self::unavailable(error.to_string())
    }
}
