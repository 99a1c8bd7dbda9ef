//! Listeners: connections in, requests to a service, and an orderly end.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_revocation::endpoint::{ClientCertificate, PeerAddress};

use crate::{opening::Opening, tls::Acceptor};

/// How long a client may take for a request's head, and for the handshake of TLS.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// The most streams that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 256;
/// How long nothing is accepted after an error that is not the connection's own, such as no file being free.
const PAUSE: Duration = Duration::from_millis(50);

/// What listeners have in common, and how many connections each may have.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Tells of the shutdown.
    pub stop: CancellationToken,
    /// The connections.
    pub tasks: TaskTracker,
    /// As many connections as may be open.
    slots: Arc<Semaphore>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { stop: CancellationToken::new(), tasks: TaskTracker::new(), slots: Arc::new(Semaphore::new(0)) }
    }
}

impl Shared {
    /// For a listener with as many connections as this: a flood on one must not keep the others from answering.
    #[must_use]
    pub fn with(&self, connections: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))), ..self.clone() }
    }
}

/// Binds a listener; the error names `key`, which asked for it.
///
/// # Errors
///
/// Where the address cannot be used.
pub async fn bind(address: SocketAddr, key: &str) -> io::Result<TcpListener> {
    let because = |error: io::Error| io::Error::new(error.kind(), format!("{key}: listening on {address}: {error}"));
    TcpListener::bind(address).await.map_err(because)
}

/// The next connection, with the right to it; `None` once it is time to stop.
pub async fn accept(listener: &TcpListener, shared: &Shared) -> Option<(TcpStream, SocketAddr, Slot)> {
    loop {
        let accepted = async {
            let slot = Arc::clone(&shared.slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            accepted = accepted => accepted,
            () = shared.stop.cancelled() => return None,
        };
        match (accepted, slot) {
            (Ok((stream, peer)), Ok(slot)) => {
                // Answers are small, and each is waited for.
                if stream.set_nodelay(true).is_ok() {
                    return Some((stream, peer, Slot(slot)));
                }
            }
            (Err(error), _) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
            (_, Err(_)) => return None,
        }
    }
}

/// Marks requests that came over TLS.
#[derive(Clone, Copy, Debug)]
pub struct OverTls;

/// The right to a connection.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held")] tokio::sync::OwnedSemaphorePermit);

/// Serves HTTP/1.1 and HTTP/2 until it is time to stop, and then ends what is open in an orderly way.
///
/// Requests carry their [`PeerAddress`], and with TLS the client's certificate.
pub async fn serve<S, F, B>(listener: TcpListener, tls: Option<Acceptor>, shared: Shared, service: S)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let graceful = Arc::new(GracefulShutdown::new());
    while let Some((stream, peer, slot)) = accept(&listener, &shared).await {
        let (tls, service, watcher) = (tls.clone(), service.clone(), graceful.watcher());
        shared.tasks.spawn(async move {
            let client = Client { peer, tls: None, certificate: None, slot: Arc::new(slot) };
            match tls {
                None => serve_connection(stream, client, watcher, service).await,
                Some(tls) => {
                    let Ok(Ok((stream, certificate))) = timeout(HEAD_LIMIT, tls.accept(stream)).await else { return };
                    let client = Client { tls: Some(OverTls), certificate, ..client };
                    serve_connection(stream, client, watcher, service).await;
                }
            }
        });
    }
    drop(listener);
    if let Some(graceful) = Arc::into_inner(graceful) {
        graceful.shutdown().await;
    }
}

/// Who is at the other end of a connection.
struct Client {
    peer: SocketAddr,
    tls: Option<OverTls>,
    certificate: Option<ClientCertificate>,
    slot: Arc<Slot>,
}

async fn serve_connection<T, S, F, B>(
    stream: T,
    client: Client,
    watcher: hyper_util::server::graceful::Watcher,
    service: S,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let peer = client.peer;
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddress(peer));
        // What becomes of the connection by an upgrade goes on holding it.
        request.extensions_mut().insert(Arc::clone(&client.slot));
        if let Some(tls) = client.tls {
            request.extensions_mut().insert(tls);
        }
        if let Some(certificate) = &client.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        // Boxed, so that a connection without a request does not hold the room for one.
        let answer = Box::pin(service(request));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .keep_alive_interval(HEAD_LIMIT)
        .keep_alive_timeout(HEAD_LIMIT);
    let stream = Opening::new(stream, HEAD_LIMIT);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error, %peer, "a connection ended early");
    }
}
