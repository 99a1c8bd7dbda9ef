use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{self, HeaderMap},
};

/// What an endpoint answers, whatever the framework. No cache may keep any of it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// 200 without a body: the one answer of RFC 7009 §2.2, to whatever was or was not revoked.
    pub(super) fn ok() -> Self {
        Self::new(StatusCode::OK, Bytes::new())
    }

    /// 204: what the global endpoint answers (draft-parecki-oauth-global-token-revocation §3.1).
    pub(super) fn no_content() -> Self {
        Self::new(StatusCode::NO_CONTENT, Bytes::new())
    }

    /// An error in the format of RFC 6749 §5.2; the description may be left out. Both texts are fixed and hold no
    /// character that JSON would escape.
    pub(super) fn error(status: StatusCode, error: &'static str, description: &'static str) -> Self {
        let json = if description.is_empty() {
            format!("{{\"error\":\"{error}\"}}")
        } else {
            format!("{{\"error\":\"{error}\",\"error_description\":\"{description}\"}}")
        };
        Self::new(status, json.into()).with(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    /// 202: a security event token was taken (RFC 8935 §2.2).
    #[cfg(feature = "signals")]
    pub(super) fn accepted() -> Self {
        Self::new(StatusCode::ACCEPTED, Bytes::new())
    }

    /// An error in the format of RFC 8935 §2.3. Both texts are fixed and hold no character that JSON would escape.
    pub(super) fn set_error(status: StatusCode, err: &'static str, description: &'static str) -> Self {
        let json = format!("{{\"err\":\"{err}\",\"description\":\"{description}\"}}");
        Self::new(status, json.into())
            .with(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .with(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"))
    }

    pub(super) fn new(status: StatusCode, body: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        Self { status, headers, body }
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(feature = "signals")]
    pub(super) const fn body(&self) -> &Bytes {
        &self.body
    }

    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn into_response<B: From<Bytes>>(self) -> Response<B> {
        let mut response = Response::new(B::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
