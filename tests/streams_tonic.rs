//! Streaming calls of a tonic server end when their token is revoked, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use common::{ISSUER, eventually, listen, token, verifier};
use futures_util::{Stream, StreamExt as _, future::BoxFuture};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
    server::{ClientStreamingService, Grpc, NamedService, StreamingService},
    transport::{Channel, Server},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower_revocation::{
    RevocationLayer, Revocations,
    response::Bare,
    revocation::{Revocation, Scope},
    streams::EndStreams,
    token::Verify,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Messages are bytes.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// `/test.Echo/Both` sends each message back, from a task of its own; `/test.Echo/Sum` answers once all have come.
#[derive(Clone)]
struct Echo {
    /// How many tasks read.
    readers: Arc<AtomicUsize>,
}

struct Reading(Arc<AtomicUsize>);

impl Reading {
    fn new(readers: &Arc<AtomicUsize>) -> Self {
        readers.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(readers))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;
    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (sender, receiver) = mpsc::channel(1);
        let (mut messages, reading) = (request.into_inner(), Reading::new(&self.readers));
        // As most servers do it: what reads goes on whatever becomes of the answer.
        tokio::spawn(async move {
            let _reading = reading;
            while let Ok(Some(message)) = messages.message().await {
                let _ = sender.send(Ok(message)).await;
            }
        });
        ready(Ok(Response::new(Box::pin(ReceiverStream::new(receiver)))))
    }
}

impl ClientStreamingService<Bytes> for Echo {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;
    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let reading = Reading::new(&self.readers);
        Box::pin(async move {
            let _reading = reading;
            let count = request.into_inner().count().await;
            Ok(Response::new(Bytes::from(count.to_string())))
        })
    }
}

impl<B> tower::Service<http::Request<B>> for Echo
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/test.Echo/Both" => grpc.streaming(echo, request).await,
                _ => grpc.client_streaming(echo, request).await,
            })
        })
    }
}

struct Site {
    address: SocketAddr,
    revocations: Revocations,
    readers: Arc<AtomicUsize>,
}

async fn serve() -> Site {
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let layer = layer.deny_with(Bare).end_streams(EndStreams::default());
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let readers = Arc::new(AtomicUsize::new(0));
    let echo = Echo { readers: Arc::clone(&readers) };
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let server = Server::builder().layer(layer).add_service(health).add_service(echo);
        server.serve_with_incoming(TcpListenerStream::new(listener)).await
    });
    Site { address, revocations, readers }
}

impl Site {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    fn request<T>(message: T, sub: &str) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", token(json!({"jti": sub, "sub": sub})));
        request.metadata_mut().insert("authorization", MetadataValue::try_from(bearer).unwrap());
        request
    }

    async fn client(&self) -> tonic::client::Grpc<Channel> {
        let mut client = tonic::client::Grpc::new(self.channel().await);
        client.ready().await.unwrap();
        client
    }

    async fn revoke(&self, sub: &str) {
        let _ = self.revocations.revoke(Revocation::new(Scope::subject(ISSUER, sub))).await.unwrap();
    }

    async fn eventually_open(&self, count: usize) {
        let denylist = self.revocations.denylist();
        eventually(&format!("{count} are open"), || async { denylist.open_streams() == count }).await;
    }

    async fn eventually_reads(&self, count: usize) {
        let reads = || async { self.readers.load(Ordering::SeqCst) == count };
        eventually(&format!("{count} read"), reads).await;
    }
}

fn assert_revoked(status: &Status) {
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "The access token was revoked"));
}

#[tokio::test]
async fn a_server_stream_ends_with_unauthenticated() {
    let site = serve().await;
    let mut client = HealthClient::new(site.channel().await);
    let watch = |sub| Site::request(HealthCheckRequest::default(), sub);
    let mut ended = client.watch(watch("alice")).await.unwrap().into_inner();
    let mut other = client.watch(watch("bob")).await.unwrap().into_inner();
    for stream in [&mut ended, &mut other] {
        assert!(timeout(PATIENCE, stream.message()).await.unwrap().unwrap().is_some());
    }
    site.eventually_open(2).await;
    site.revoke("alice").await;
    assert_revoked(&timeout(PATIENCE, ended.message()).await.unwrap().unwrap_err());
    site.eventually_open(1).await;
    assert!(timeout(Duration::from_millis(50), other.message()).await.is_err(), "the other call goes on");
}

/// The client does not stop sending: what reads from it on the server ends all the same.
#[tokio::test]
async fn a_bidirectional_call_ends_on_both_sides() {
    let site = serve().await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let request = Site::request(ReceiverStream::new(receiver), "alice");
    let mut client = site.client().await;
    let answer = client.streaming(request, "/test.Echo/Both".parse().unwrap(), Raw);
    let mut answer = timeout(PATIENCE, answer).await.unwrap().unwrap().into_inner();
    sender.send(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(timeout(PATIENCE, answer.message()).await.unwrap().unwrap().unwrap(), "hello");
    // The answer, and what the client sends.
    site.eventually_open(2).await;
    site.eventually_reads(1).await;
    site.revoke("alice").await;
    assert_revoked(&timeout(PATIENCE, answer.message()).await.unwrap().unwrap_err());
    site.eventually_open(0).await;
    site.eventually_reads(0).await;
}

#[tokio::test]
async fn a_client_stream_ends_though_nothing_was_answered() {
    let site = serve().await;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let mut client = site.client().await;
    let call = tokio::spawn(async move {
        let request = Site::request(ReceiverStream::new(receiver), "alice");
        client.client_streaming::<_, _, Bytes, _>(request, "/test.Echo/Sum".parse().unwrap(), Raw).await
    });
    sender.send(Bytes::from_static(b"hello")).await.unwrap();
    site.eventually_reads(1).await;
    site.eventually_open(2).await;
    site.revoke("alice").await;
    assert_revoked(&timeout(PATIENCE, call).await.unwrap().unwrap().unwrap_err());
    site.eventually_open(0).await;
    site.eventually_reads(0).await;
}
