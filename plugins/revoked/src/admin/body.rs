//! Bodies of requests: of the right type, bounded, and in time.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{answer::Problem, route::Route};

/// The most that a call may say, and a line of an import.
pub(super) const MOST: usize = 64 * 1024;
/// How long a body, or a piece of a long one, may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the body is of the type that a route takes: a form that some page sends is not.
pub(super) fn fits(route: &Route, headers: &HeaderMap) -> Result<(), Problem> {
    let Some((takes, _)) = route.takes else { return Ok(()) };
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let media = match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(value)), None) => value.split(';').next().unwrap_or_default().trim(),
        _ => "",
    };
    if media.eq_ignore_ascii_case(takes) && !headers.contains_key(header::CONTENT_ENCODING) {
        return Ok(());
    }
    let what = format!("send it as it is, with \"Content-Type: {takes}\"");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", what))
}

/// The body as JSON.
pub(super) async fn json<T: DeserializeOwned>(body: Incoming) -> Result<T, Problem> {
    let read = timeout(PATIENCE, Limited::new(body, MOST).collect()).await.map_err(|_| late())?;
    let bytes = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let what = format!("the body is larger than {MOST} bytes");
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", what);
        }
        Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "the body broke off")
    })?;
    // It may hold a token.
    let bytes = Zeroizing::new(bytes.to_bytes().to_vec());
    read_json(&bytes)
}

/// Reads JSON; what is wrong is told without quoting it.
pub(super) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::unprocessable(unquoted(&error)),
        _ => {
            let what = format!("the body is no JSON: line {}, column {}", error.line(), error.column());
            Problem::new(StatusCode::BAD_REQUEST, "invalid_request", what)
        }
    })
}

/// What serde says, unless it quotes a value that may be secret.
fn unquoted(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let about_names = ["unknown field", "missing field", "duplicate field", "unknown variant"];
    if about_names.iter().any(|start| said.starts_with(start)) {
        return said;
    }
    format!("a value is of the wrong type at line {}, column {}", error.line(), error.column())
}

pub(super) fn late() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body took too long")
}
