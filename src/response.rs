//! What a refused request is answered.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{self, HeaderMap},
};

use crate::reject::Rejection;

/// A refusal, with what an answer needs to know of the request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Denial {
    /// Why.
    pub rejection: Rejection,
    /// Whether the request is gRPC or gRPC-Web, whose answer is a trailers-only response.
    pub grpc: Option<HeaderValue>,
    /// Whether the challenge names the `DPoP` scheme instead of `Bearer`.
    pub dpop: bool,
    /// Seconds after which a 503 is worth another try.
    pub retry_after: u64,
}

impl Denial {
    pub(crate) fn new(rejection: Rejection, request: &HeaderMap, dpop: bool, retry_after: u64) -> Self {
        Self { rejection, grpc: grpc_content_type(request), dpop, retry_after }
    }

    /// The answer's status.
    pub const fn status(&self) -> StatusCode {
        if self.grpc.is_some() { StatusCode::OK } else { self.rejection.status() }
    }

    /// The answer's headers: challenge (RFC 6750 §3), `Cache-Control: no-store`, `Retry-After` with a 503;
    /// for gRPC the status as trailers in the head.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(content_type) = &self.grpc {
            headers.insert(header::CONTENT_TYPE, content_type.clone());
            headers.insert("grpc-status", HeaderValue::from(u16::from(self.rejection.grpc_status())));
            headers.insert("grpc-message", HeaderValue::from_static(self.rejection.description()));
            return headers;
        }
        match self.rejection.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after));
            }
            StatusCode::UNAUTHORIZED => {
                if let Ok(challenge) = HeaderValue::from_str(&self.challenge()) {
                    headers.insert(header::WWW_AUTHENTICATE, challenge);
                }
            }
            _ => {}
        }
        headers
    }

    fn challenge(&self) -> Cow<'static, str> {
        let scheme = if self.dpop { "DPoP" } else { "Bearer" };
        match self.rejection.error() {
            Some(error) => {
                format!("{scheme} error=\"{error}\", error_description=\"{}\"", self.rejection.description()).into()
            }
            // RFC 6750 §3: at least one parameter, and no error where no credential was presented.
            None => format!("{scheme} realm=\"api\"").into(),
        }
    }

    /// The answer's JSON body; empty for gRPC.
    pub fn json(&self) -> Bytes {
        if self.grpc.is_some() {
            return Bytes::new();
        }
        let error = self.rejection.error().unwrap_or("invalid_request");
        // Fixed texts without a character that JSON would escape.
        Bytes::from(format!("{{\"error\":\"{error}\",\"error_description\":\"{}\"}}", self.rejection.description()))
    }

    /// The answer with this body.
    pub fn into_response<B>(self, body: B) -> Response<B> {
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers();
        response
    }
}

/// The request's content type where it is gRPC or gRPC-Web: the answer carries the same.
fn grpc_content_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let text = value.as_bytes();
    let rest = text.get(..16).filter(|head| head.eq_ignore_ascii_case(b"application/grpc")).map(|_| &text[16..])?;
    // "application/grpc", "+proto", "-web", "-web-text+proto", "; charset", and not "application/grpcx".
    matches!(rest.first(), None | Some(b'+' | b'-' | b';' | b' ')).then(|| value.clone())
}

/// Builds the answer to a refused request.
///
/// [`Json`] and [`Bare`] are ready; a closure `Fn(Denial) -> Response<B>` does for anything else.
pub trait DenyResponse<B> {
    /// The answer.
    fn deny(&self, denial: Denial) -> Response<B>;
}

/// A small JSON body (RFC 6750 has no format for it; this is that of RFC 6749 §5.2). The default.
///
/// For bodies that can be made from bytes, such as axum's and `http_body_util::Full<Bytes>`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<B: From<Bytes>> DenyResponse<B> for Json {
    fn deny(&self, denial: Denial) -> Response<B> {
        let body = denial.json();
        let json = denial.grpc.is_none();
        let mut response = denial.into_response(B::from(body));
        if json {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        response
    }
}

/// No body: for bodies that can only be empty, such as tonic's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bare;

impl<B: Default> DenyResponse<B> for Bare {
    fn deny(&self, denial: Denial) -> Response<B> {
        denial.into_response(B::default())
    }
}

impl<F, B> DenyResponse<B> for F
where
    F: Fn(Denial) -> Response<B>,
{
    fn deny(&self, denial: Denial) -> Response<B> {
        self(denial)
    }
}
