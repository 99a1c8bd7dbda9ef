//! The layer in a tonic server, called by a real tonic client.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use common::{listen, token, unix, verifier};
use serde_json::json;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Code, Request,
    metadata::MetadataValue,
    transport::{Channel, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_revocation::{
    RevocationLayer, Revocations,
    policy::{NoToken, Policy},
    response::Bare,
    revocation::Revocation,
    token::{Verifier, Verify},
};

async fn serve() -> (std::net::SocketAddr, Revocations) {
    let revocations = common::revocations().await;
    let policy = Policy::default().no_token(NoToken::Deny);
    let layer = RevocationLayer::with_policy(revocations.denylist().clone(), Verify::new(verifier()), policy);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        Server::builder()
            .accept_http1(true)
            .layer(layer.deny_with(Bare))
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
    });
    (address, revocations)
}

async fn client(address: std::net::SocketAddr) -> HealthClient<Channel> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    HealthClient::new(channel)
}

fn request(token: Option<&str>) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

#[tokio::test]
async fn unary_and_streaming_calls() {
    let (address, revocations) = serve().await;
    let mut client = client(address).await;
    let token = token(json!({"jti": "1"}));
    client.check(request(Some(&token))).await.unwrap();
    client.watch(request(Some(&token))).await.unwrap().into_inner().message().await.unwrap().unwrap();

    let missing = client.check(request(None)).await.unwrap_err();
    assert_eq!((missing.code(), missing.message()), (Code::Unauthenticated, "An access token is required"));
    let mut twice = request(Some(&token));
    twice.metadata_mut().append("authorization", MetadataValue::from_static("Bearer other"));
    assert_eq!(client.check(twice).await.unwrap_err().code(), Code::InvalidArgument);

    let identity = verifier().verify(&token, unix()).unwrap();
    let _ = revocations.revoke(Revocation::token_of(&identity).unwrap()).await.unwrap();
    let denied = client.check(request(Some(&token))).await.unwrap_err();
    assert_eq!((denied.code(), denied.message()), (Code::Unauthenticated, "The access token was revoked"));
    assert_eq!(client.watch(request(Some(&token))).await.unwrap_err().code(), Code::Unauthenticated);
}

/// gRPC-Web clients read the same trailers-only answer.
#[tokio::test]
async fn grpc_web() {
    let (address, _revocations) = serve().await;
    for content_type in ["application/grpc-web", "application/grpc-web-text+proto", "application/grpc+proto"] {
        let answer = common::raw(
            address,
            format!(
                "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
                 content-type: {content_type}\r\nauthorization: Bearer garbage\r\ncontent-length: 0\r\n\r\n"
            ),
        )
        .await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("16")), "{content_type}");
        assert_eq!(answer.header("content-type"), Some(content_type));
    }
    let other = common::get(address, "/", &["authorization: Bearer garbage", "content-type: application/grpcx"]).await;
    assert_eq!(other.status, 401);
}
