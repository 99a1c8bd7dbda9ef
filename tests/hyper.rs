//! The layer around a plain hyper service, over HTTP/1.1 and HTTP/2.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::convert::Infallible;

use bytes::Bytes;
use common::{listen, token, unix, verifier};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use serde_json::json;
use tower::{Layer, service_fn};
use tower_revocation::{
    RevocationLayer, Revocations,
    revocation::Revocation,
    token::{Verifier, Verify},
};

async fn serve() -> (std::net::SocketAddr, Revocations) {
    let revocations = common::revocations().await;
    let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
    let inner = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"in"))))
    });
    let service = TowerToHyperService::new(layer.layer(inner));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    (address, revocations)
}

#[tokio::test]
async fn http1_and_http2() {
    let (address, revocations) = serve().await;
    let token = token(json!({"jti": "1"}));
    let http1 = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let http2 = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    for (expected, body) in [(200, "in"), (401, "invalid_token")] {
        for client in [&http1, &http2] {
            let request = Request::get(format!("http://{address}/"))
                .header("authorization", format!("Bearer {token}"))
                .body(Full::<Bytes>::default())
                .unwrap();
            let answer = client.request(request).await.unwrap();
            assert_eq!(answer.status(), expected);
            let bytes = answer.into_body().collect().await.unwrap().to_bytes();
            assert!(String::from_utf8_lossy(&bytes).contains(body));
        }
        let identity = verifier().verify(&token, unix()).unwrap();
        let _ = revocations.revoke(Revocation::token_of(&identity).unwrap()).await.unwrap();
    }
}
