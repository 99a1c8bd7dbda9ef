//! Tokens in forms (RFC 6750 §2.2): shown to the guard as one more bearer token, so that it counts credentials as ever.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::body::ProxyBody;

/// The longest form that is searched.
const MOST: usize = 1024 * 1024;
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Marks a request whose last `Authorization` value was put there by [`show`].
#[derive(Clone, Copy, Debug)]
struct Shown;

/// The request with the token of its form shown, or the status that refuses it.
pub(super) async fn show(request: Request<Incoming>) -> Result<Request<ProxyBody>, StatusCode> {
    if !is_form(request.headers()) {
        return Ok(request.map(ProxyBody::from));
    }
    // Whoever reads it behind might decode it first.
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let (mut head, body) = request.into_parts();
    let body = timeout(LIMIT, Limited::new(body, MOST).collect()).await.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
    let body = body.map_err(|error| {
        let long = error.is::<http_body_util::LengthLimitError>();
        if long { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST }
    })?;
    let body = body.to_bytes();
    let mut tokens = form_urlencoded::parse(&body).filter(|(name, _)| name == "access_token").map(|(_, token)| token);
    match (tokens.next(), tokens.next()) {
        (None, _) => {}
        (Some(token), None) => {
            let value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| StatusCode::BAD_REQUEST)?;
            head.headers.append(header::AUTHORIZATION, value);
            head.extensions.insert(Shown);
        }
        (Some(_), Some(_)) => return Err(StatusCode::BAD_REQUEST),
    }
    Ok(Request::from_parts(head, Bytes::into(body)))
}

/// Takes back what [`show`] has put there: the service behind gets the request as it came.
pub(super) fn hide<B>(request: &mut Request<B>) {
    if request.extensions_mut().remove::<Shown>().is_none() {
        return;
    }
    let mut values: Vec<_> = request.headers().get_all(header::AUTHORIZATION).iter().cloned().collect();
    values.pop();
    request.headers_mut().remove(header::AUTHORIZATION);
    for value in values {
        request.headers_mut().append(header::AUTHORIZATION, value);
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    // Any value counts: which one the service behind goes by is not known here.
    headers.get_all(header::CONTENT_TYPE).iter().any(|value| {
        let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    })
}
