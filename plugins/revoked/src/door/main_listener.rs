//! The main listener: the revocation routes and metadata, and the reverse proxy in front of the server behind.

use std::{convert::Infallible, sync::Arc, task};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tower_layer::Layer as _;
use tower_revocation::{
    reject::Rejection,
    response::{DenyResponse as _, Json},
    streams::StreamBody,
    token::Identity,
};
use tower_service::Service;

use super::{form, proxy::Proxy};
use crate::{body::ProxyBody, config::Fault, denials::Door, engine::Engine};

/// Answers what is ours, checks the rest, and passes on what may pass.
#[derive(Clone, Debug)]
pub struct MainListener {
    behind: Behind,
}

/// What stands behind the layer.
#[derive(Clone, Debug)]
struct Behind {
    engine: Arc<Engine>,
    /// `None` where other doors alone are used.
    proxy: Option<Arc<Proxy>>,
    /// Whether an endpoint or the recorder judges the request, which is then passed on as they see fit.
    judged: bool,
}

impl MainListener {
    /// The listener in front of this engine.
    ///
    /// # Errors
    ///
    /// Where the server behind cannot be reached in the way that the configuration says.
    pub fn new(engine: Arc<Engine>) -> Result<Self, Fault> {
        let config = engine.config();
        let proxy = config.upstream.as_ref().map(|section| Proxy::new(&config, section)).transpose()?;
        Ok(Self { behind: Behind { engine, proxy: proxy.map(Arc::new), judged: false } })
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<StreamBody<ProxyBody>> {
        if let Some(list) = self.behind.engine.published_at(request.uri().path()) {
            let (head, _) = request.into_parts();
            return list.respond(&head).await.map(StreamBody::from);
        }
        let front = self.behind.engine.streaming_front();
        // Told once: what a reload changes meanwhile counts for the next request.
        let judged = front.get_ref().judges(request.uri().path());
        let request = if self.behind.engine.reads_forms() && !judged {
            match form::show(request).await {
                Ok(request) => request,
                Err(status) => return plain(status).map(StreamBody::new),
            }
        } else {
            request.map(ProxyBody::from)
        };
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = match front.layer(Behind { judged, ..self.behind.clone() }).call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if let Some(rejection) = response.extensions().get::<Rejection>() {
            self.behind.engine.denials().add(Door::Proxy, &method, uri.path(), *rejection);
        }
        response
    }
}

impl Service<Request<StreamBody<ProxyBody>>> for Behind {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<StreamBody<ProxyBody>>) -> Self::Future {
        let behind = self.clone();
        Box::pin(async move { Ok(behind.pass(request).await) })
    }
}

impl Behind {
    async fn pass(&self, mut request: Request<StreamBody<ProxyBody>>) -> Response<ProxyBody> {
        let engine = &self.engine;
        if engine.asks() && !self.judged {
            let identity = request.extensions().get::<Identity>();
            if let Err(rejection) = engine.known(identity, request.uri(), request.headers()).await {
                let mut response: Response<ProxyBody> = Json.deny(engine.denial(rejection, request.headers()));
                response.extensions_mut().insert(rejection);
                return response;
            }
        }
        form::hide(&mut request);
        match &self.proxy {
            Some(proxy) => proxy.forward(request).await,
            None => plain(StatusCode::NOT_FOUND),
        }
    }
}

/// An answer of our own that is none of the layer's.
pub(super) fn plain(status: StatusCode) -> Response<ProxyBody> {
    let error = status.canonical_reason().unwrap_or("error").to_ascii_lowercase().replace(' ', "_");
    let mut response = Response::new(ProxyBody::from(Bytes::from(format!("{{\"error\":\"{error}\"}}"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}
