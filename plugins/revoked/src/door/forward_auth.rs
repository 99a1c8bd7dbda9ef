//! The door for gateways that ask over HTTP whether a request may pass: nginx `auth_request`, Caddy `forward_auth`,
//! Traefik ForwardAuth, Envoy's `ext_authz` over HTTP, HAProxy by Lua.
//!
//! The headers that tell of the original request are the client's unless the gateway sets them, so the listener must be
//! reachable for the gateway alone.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;

use crate::{config::Fault, denials::Door, engine::Engine, identity::IdentityHeaders};

/// Answers checks on `/check` and `/check/*`, and nothing else.
#[derive(Clone, Debug)]
pub struct ForwardAuth {
    engine: Arc<Engine>,
    identity_headers: Arc<IdentityHeaders>,
}

/// Where gateways say what the method of the request was, the first one that is there.
const METHOD: [&str; 2] = ["x-forwarded-method", "x-original-method"];
/// The same for its target.
const TARGET: [&str; 3] = ["x-forwarded-uri", "x-original-uri", "x-original-url"];

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const INVALID_REQUEST: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_request\"");

impl ForwardAuth {
    /// The door in front of this engine.
    ///
    /// # Errors
    ///
    /// Where an identity header cannot be used.
    pub fn new(engine: Arc<Engine>, identity_headers: &[String]) -> Result<Self, Fault> {
        let identity_headers = IdentityHeaders::new(identity_headers, "forward_auth.identity_headers")?;
        Ok(Self { engine, identity_headers: Arc::new(identity_headers) })
    }

    /// Answers a check. Its body is not looked at.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        let (head, _) = request.into_parts();
        let Some(rest) = rest_of(head.uri.path()) else {
            return refusal(StatusCode::NOT_FOUND, "not_found", "Only /check and /check/* are answered here");
        };
        let (Ok(told), Ok(target)) = (method(&head.headers), target(&head.uri, rest, &head.headers)) else {
            let what = "The original request cannot be told for certain";
            return refusal(StatusCode::UNAUTHORIZED, "invalid_request", what);
        };
        // Whoever asks has not sent it to the listener that answers it: the service behind would, and it might say 200.
        let harmless = matches!(told, Some(Method::GET | Method::HEAD | Method::OPTIONS));
        if !harmless && self.engine.endpoint_at(target.path()).is_some() {
            tracing::warn!(
                path = target.path(),
                "a gateway asks whether a revocation request may pass to the service behind; route the path to revoked"
            );
            let what = "This path is a revocation endpoint; the gateway has to route it to revoked";
            return refusal(StatusCode::FORBIDDEN, "misrouted", what);
        }
        let method = told.unwrap_or(head.method);
        match self.engine.judge(&method, &target, &head.headers, &head.extensions).await {
            Ok(passed) => {
                let mut response = Response::new(Full::default());
                self.identity_headers.write(passed.identity(), response.headers_mut());
                response
            }
            Err(mut denial) => {
                self.engine.denials().add(Door::ForwardAuth, &method, target.path(), denial.rejection);
                // The gateway asks over plain HTTP, whatever its client speaks.
                denial.grpc = None;
                let (rejection, headers) = (denial.rejection, denial.headers());
                let mut response = Response::new(Full::new(denial.json()));
                *response.status_mut() = rejection.status();
                *response.headers_mut() = headers;
                // nginx turns what is neither 401 nor 403 into 500.
                if rejection.status() == StatusCode::BAD_REQUEST {
                    *response.status_mut() = StatusCode::UNAUTHORIZED;
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, INVALID_REQUEST);
                }
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                self.identity_headers.write(None, response.headers_mut());
                response
            }
        }
    }
}

/// What follows `/check`.
fn rest_of(path: &str) -> Option<&str> {
    path.strip_prefix("/check").filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The one value of the first of these headers that is there.
fn one<'a>(names: &[&str], headers: &'a HeaderMap) -> Result<Option<&'a str>, Unclear> {
    for name in names {
        let mut values = headers.get_all(*name).iter();
        match (values.next(), values.next()) {
            (None, _) => {}
            (Some(value), None) => return value.to_str().map(Some).map_err(|_| Unclear),
            // One is the gateway's, and one somebody else's.
            (Some(_), Some(_)) => return Err(Unclear),
        }
    }
    Ok(None)
}

/// The original request cannot be told for certain.
struct Unclear;

/// The method of the original request; `None` where nobody says: gateways ask by GET.
fn method(headers: &HeaderMap) -> Result<Option<Method>, Unclear> {
    one(&METHOD, headers)?.map(|method| method.parse().map_err(|_| Unclear)).transpose()
}

fn target(own: &Uri, rest: &str, headers: &HeaderMap) -> Result<Uri, Unclear> {
    if let Some(target) = one(&TARGET, headers)? {
        return target.parse().map_err(|_| Unclear);
    }
    let query = own.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = if rest.is_empty() { "/" } else { rest };
    format!("{path}{query}").parse().map_err(|_| Unclear)
}

fn refusal(status: StatusCode, error: &str, description: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "error": error, "error_description": description });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, INVALID_REQUEST);
    }
    response
}
