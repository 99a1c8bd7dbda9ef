//! What `benches/gateways.sh` compares the daemon with: the same HTTP library, and nothing decided.
//!
//! ```text
//! bare_proxy pass 127.0.0.1:8080 127.0.0.1:3000     passes every request on
//! bare_proxy answer 127.0.0.1:9000                  answers every request with 200 and no body: gateways keep no
//!                                                   connection whose body they leave unread
//! ```

use std::{convert::Infallible, env, io, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, uri::PathAndQuery};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::TcpListener;

type Body = BoxBody<Bytes, hyper::Error>;

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().map_err(io::Error::other);
    match *arguments {
        ["pass", listen, upstream] => serve(address(listen)?, Some(address(upstream)?)).await,
        ["answer", listen] => serve(address(listen)?, None).await,
        _ => Err(io::Error::other("say: pass LISTEN UPSTREAM, or: answer LISTEN")),
    }
}

async fn serve(listen: SocketAddr, upstream: Option<SocketAddr>) -> io::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let client = client.clone();
                async move {
                    Ok::<_, Infallible>(match upstream {
                        Some(upstream) => pass(&client, upstream, request).await,
                        None => Response::new(whole("")),
                    })
                }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                eprintln!("a connection ended early: {error}");
            }
        });
    }
}

async fn pass(
    client: &Client<HttpConnector, Incoming>,
    upstream: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = Uri::builder().scheme("http").authority(upstream.to_string()).path_and_query(path).build();
    let answered = match uri {
        Ok(uri) => {
            *request.uri_mut() = uri;
            client.request(request).await.ok()
        }
        Err(_) => None,
    };
    answered.map(|response| response.map(BodyExt::boxed)).unwrap_or_else(|| {
        let mut response = Response::new(whole("the server behind did not answer"));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}

fn whole(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed()
}
