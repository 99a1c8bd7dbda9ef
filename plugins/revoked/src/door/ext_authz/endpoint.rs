//! Revocation requests that are answered within the check.

use std::{convert::Infallible, future::Ready, net::SocketAddr, task};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tower_layer::Layer as _;
use tower_revocation::endpoint::PeerAddress;
use tower_service::Service;

use super::request::Head;
use crate::{body::ProxyBody, door::refusal::Refusal, engine::Engine};

/// Envoy says with it whether it cut the body short.
const PARTIAL: &str = "x-envoy-auth-partial-body";

/// The endpoint's answer, also where that is success: the service behind gets nothing of the request.
pub(super) async fn answer(engine: &Engine, head: Head, body: Bytes, peer: Option<SocketAddr>) -> Refusal {
    if !is_whole(&head.headers, &body) {
        tracing::warn!(
            path = head.uri.path(),
            "Envoy sends a revocation request without its whole body; set with_request_body on this route"
        );
        let what = "The gateway did not pass on the whole body";
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", what);
    }
    let mut request = Request::new(ProxyBody::from(body));
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.headers_mut() = head.headers;
    if let Some(peer) = peer {
        request.extensions_mut().insert(PeerAddress(peer));
    }
    let (head, body) = match engine.front().layer(Nobody).call(request).await {
        Ok(response) => response.into_parts(),
        Err(never) => match never {},
    };
    match body.collect().await {
        Ok(body) => Refusal { status: head.status, headers: head.headers, body: body.to_bytes() },
        Err(_) => Refusal::new(StatusCode::BAD_GATEWAY, "server_error", "The endpoint's answer broke off"),
    }
}

/// Whether the body is all that the client sent, as far as can be told.
fn is_whole(headers: &HeaderMap, body: &Bytes) -> bool {
    let partial = headers.get_all(PARTIAL).iter().any(|value| value != "false");
    let length = headers.get(header::CONTENT_LENGTH).map(|length| length.to_str().ok()?.parse().ok());
    !partial && length.is_none_or(|length: Option<usize>| length == Some(body.len()))
}

/// What stands behind the endpoints: nobody, for Envoy has the service.
#[derive(Clone, Copy, Debug)]
struct Nobody;

impl Service<Request<ProxyBody>> for Nobody {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ProxyBody>) -> Self::Future {
        let Refusal { status, headers, body } = Refusal::misrouted(request.uri().path());
        let mut response = Response::new(ProxyBody::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        std::future::ready(Ok(response))
    }
}
