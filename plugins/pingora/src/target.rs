//! Request targets that are read in two ways.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use pingora::http::RequestHeader;

/// Whether the target has a form of RFC 9112 §3.2. Of any other Pingora shows `/` and sends the upstream what came: a path
/// and a query that nobody here has seen.
pub(crate) fn is_readable(head: &RequestHeader) -> bool {
    let target = head.raw_path();
    matches!(target, [b'/', ..] | b"*") || head.method == Method::CONNECT || is_absolute(target)
}

fn is_absolute(target: &[u8]) -> bool {
    let scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let end = target.iter().position(|byte| !scheme(byte));
    end.is_some_and(|end| end > 0 && target[end..].starts_with(b"://"))
}

/// The answer to a request whose target is not readable.
pub(crate) fn unreadable() -> Response<Bytes> {
    let body = br#"{"error":"invalid_request","error_description":"The request target is malformed"}"#;
    let mut response = Response::new(Bytes::from_static(body));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
