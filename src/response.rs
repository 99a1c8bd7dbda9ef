//! What a refused request is answered.
//!
//! [`Json`] is the default and [`Bare`] has no body; a closure builds whatever else a service answers with. Put the
//! [`Denial`]'s status and headers into it, or clients miss the challenge (RFC 6750 §3):
//!
//! ```
//! use http::Response;
//! use tower_revocation::response::{Denial, DenyResponse};
//!
//! let deny = |denial: Denial| {
//!     let mut response = Response::new(format!("{}, please log in again", denial.rejection.description()));
//!     *response.status_mut() = denial.status();
//!     *response.headers_mut() = denial.headers();
//!     response
//! };
//! # fn takes(_: impl DenyResponse<String>) {}
//! # takes(deny);
//! ```

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{self, HeaderMap, InvalidHeaderValue},
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
    /// What the challenge says besides.
    pub challenge: Arc<Challenge>,
    /// Seconds after which a 503 is worth another try.
    pub retry_after: u64,
}

impl Denial {
    pub(crate) fn new(
        rejection: Rejection,
        request: &HeaderMap,
        dpop: bool,
        challenge: Arc<Challenge>,
        retry_after: u64,
    ) -> Self {
        Self { rejection, grpc: grpc_content_type(request), dpop, challenge, retry_after }
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
                if let Ok(challenge) = self.challenge() {
                    headers.insert(header::WWW_AUTHENTICATE, challenge);
                }
            }
            _ => {}
        }
        headers
    }

    fn challenge(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        /// The most frequent one, put together beforehand.
        const REVOKED: HeaderValue = HeaderValue::from_static(
            "Bearer error=\"invalid_token\", error_description=\"The access token was revoked\"",
        );
        match self.rejection {
            Rejection::Revoked(_) if !self.dpop && *self.challenge == Challenge::new() => Ok(REVOKED),
            _ => HeaderValue::try_from(self.put_together()),
        }
    }

    fn put_together(&self) -> String {
        let scheme = if self.dpop { "DPoP" } else { "Bearer" };
        let mut challenge = String::with_capacity(256);
        challenge.push_str(scheme);
        match self.rejection.error() {
            Some(error) => {
                let description = self.rejection.description();
                challenge.extend([" error=\"", error, "\", error_description=\"", description, "\""]);
            }
            // RFC 6750 §3: at least one parameter, and no error where no credential was presented.
            None => challenge.push_str(" realm=\"api\""),
        }
        let Challenge { scope, resource_metadata } = &*self.challenge;
        for (name, value) in [("scope", scope), ("resource_metadata", resource_metadata)] {
            if let Some(value) = value {
                challenge.extend([", ", name, "=\"", value, "\""]);
            }
        }
        challenge
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

/// What challenges tell of the resource, besides why a request was refused.
///
/// ```
/// use tower_revocation::response::Challenge;
///
/// let challenge = Challenge::new()
///     .scope("read write")?
///     .resource_metadata("https://api.example/.well-known/oauth-protected-resource")?;
/// # let _ = challenge; Ok::<_, tower_revocation::response::ChallengeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    scope: Option<String>,
    resource_metadata: Option<String>,
}

/// A value that no challenge can carry: `scope` takes the characters of RFC 6749 §3.3, `resource_metadata` a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengeError {
    parameter: &'static str,
}

impl Challenge {
    /// Nothing besides.
    pub const fn new() -> Self {
        Self { scope: None, resource_metadata: None }
    }

    /// The scope that the resource asks for, separated by spaces (RFC 6750 §3).
    ///
    /// # Errors
    ///
    /// Where a character may not be in a scope.
    pub fn scope(mut self, scope: impl Into<String>) -> Result<Self, ChallengeError> {
        self.scope =
            Some(quotable("scope", scope.into(), |byte| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~'))?);
        Ok(self)
    }

    /// The URL of the resource's metadata (RFC 9728 §5.1).
    ///
    /// # Errors
    ///
    /// Where a character may not be in a URL.
    pub fn resource_metadata(mut self, url: impl Into<String>) -> Result<Self, ChallengeError> {
        self.resource_metadata =
            Some(quotable("resource_metadata", url.into(), |byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~'))?);
        Ok(self)
    }
}

/// `value` where it can stand between quotes as it is.
fn quotable(parameter: &'static str, value: String, allowed: fn(u8) -> bool) -> Result<String, ChallengeError> {
    if !value.is_empty() && value.bytes().all(allowed) { Ok(value) } else { Err(ChallengeError { parameter }) }
}

impl fmt::Display for ChallengeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the challenge's {} is empty or has a character that it may not have; leave it out or mend it",
            self.parameter
        )
    }
}

impl std::error::Error for ChallengeError {}

/// The request's content type where it is gRPC or gRPC-Web: the answer carries the same.
pub(crate) fn grpc_content_type(headers: &HeaderMap) -> Option<HeaderValue> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{denylist::Reason, revocation::ScopeKind};

    #[test]
    fn what_was_put_together_beforehand_says_the_same() {
        let mut denial = Denial::new(
            Rejection::Revoked(Reason::Revoked(ScopeKind::Token)),
            &HeaderMap::new(),
            false,
            Arc::new(Challenge::new()),
            1,
        );
        assert_eq!(denial.headers()[header::WWW_AUTHENTICATE], denial.put_together());
        denial.dpop = true;
        assert_eq!(denial.headers()[header::WWW_AUTHENTICATE], denial.put_together());
        assert!(denial.put_together().starts_with("DPoP "));
    }
}
