//! The guard and the routes over HTTP/2, in clear text with prior knowledge.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use common::{LIMIT, Site, good};
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response, request::Builder};
use tokio::net::TcpStream;

async fn connect(site: &Site) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

struct Answer {
    head: Response<()>,
    /// Whether the head ended the stream.
    head_only: bool,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// A POST with a body.
async fn post(client: &SendRequest<Bytes>, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    ask(client, Request::post(format!("http://test{path}")), headers, body.into()).await
}

async fn ask(client: &SendRequest<Bytes>, request: Builder, headers: &[(&str, &str)], body: Bytes) -> Answer {
    tokio::time::timeout(LIMIT, exchange(client, request, headers, body)).await.expect("an answer in time")
}

async fn exchange(client: &SendRequest<Bytes>, mut request: Builder, headers: &[(&str, &str)], body: Bytes) -> Answer {
    let mut client = client.clone().ready().await.unwrap();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (response, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
    stream.send_data(body, true).unwrap();
    let (head, mut incoming) = response.await.unwrap().into_parts();
    let head_only = incoming.is_end_stream();
    let mut body = Vec::new();
    while let Some(chunk) = incoming.data().await {
        let chunk = chunk.unwrap();
        body.extend_from_slice(&chunk);
        incoming.flow_control().release_capacity(chunk.len()).unwrap();
    }
    let trailers = incoming.trailers().await.unwrap();
    Answer { head: Response::from_parts(head, ()), head_only, body, trailers }
}

#[tokio::test]
async fn allow_deny_and_revoke_on_one_connection() {
    let site = Site::new().await;
    let client = connect(&site).await;
    let token = good();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", &*bearer)];
    let answer = post(&client, "/", &headers, "some body").await;
    assert_eq!((answer.head.status().as_u16(), &*answer.body), (200, &b"in"[..]));
    assert_eq!(site.upstream.take()[0].text(), "some body");

    let basic = format!("Basic {}", STANDARD.encode("app:secret"));
    let form = [("authorization", &*basic), ("content-type", "application/x-www-form-urlencoded")];
    let answer = post(&client, "/oauth/revoke", &form, format!("token={token}")).await;
    assert_eq!((answer.head.status().as_u16(), answer.head_only), (200, true));

    for _ in 0..2 {
        let answer = post(&client, "/", &headers, "some body").await;
        assert_eq!(answer.head.status(), 401);
        assert!(answer.head.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
        assert!(String::from_utf8_lossy(&answer.body).contains("invalid_token"));
    }
    let answer = ask(&client, Request::head("http://test/"), &headers, Bytes::new()).await;
    assert_eq!((answer.head.status().as_u16(), answer.head_only), (401, true));
    assert!(site.upstream.take().is_empty());
}

/// Trailers-only: the status in a head that ends the stream.
#[tokio::test]
async fn grpc_is_refused_with_trailers_only() {
    let site = Site::new().await;
    let bearer = format!("Bearer {}", site.revoked().await);
    let client = connect(&site).await;
    let headers = [("authorization", &*bearer), ("content-type", "application/grpc"), ("te", "trailers")];
    let answer = post(&client, "/grpc.health.v1.Health/Check", &headers, Bytes::from_static(&[0; 5])).await;
    assert_eq!(answer.head.status(), 200);
    assert_eq!(answer.head.headers()["grpc-status"], "16");
    assert_eq!(answer.head.headers()["content-type"], "application/grpc");
    assert!(answer.head_only && answer.body.is_empty() && answer.trailers.is_none());
    assert!(site.upstream.take().is_empty());
}
