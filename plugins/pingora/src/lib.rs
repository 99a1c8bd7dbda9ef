//! [`tower-revocation`](tower_revocation) for Pingora: a guard and the revocation routes, for a proxy's `request_filter`.
//!
//! ```
//! use async_trait::async_trait;
//! use pingora::{Result, prelude::HttpPeer, proxy::{ProxyHttp, Session}};
//! use tower_revocation::token::{JwtVerifier, Verify};
//! use tower_revocation_pingora::{RevocationGuard, RevocationRoutes};
//!
//! struct Gateway {
//!     guard: RevocationGuard<Verify<JwtVerifier>>,
//!     routes: RevocationRoutes,
//! }
//!
//! #[async_trait]
//! impl ProxyHttp for Gateway {
//!     type CTX = ();
//!     fn new_ctx(&self) {}
//!
//!     async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
//!         // Routes first: what clients send there to authenticate themselves is no token to be checked.
//!         Ok(self.routes.answer(session).await? || self.guard.check(session).await?)
//!     }
//!
//!     async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
//!         Ok(Box::new(HttpPeer::new(("127.0.0.1", 3000), false, String::new())))
//!     }
//! }
//! ```
//!
//! The denylist's replica runs on a tokio runtime of your own that outlives the server: start
//! `tower_revocation::Revocations` there before `Server::run_forever`, as `examples/proxy.rs` does.
//!
//! # Connections
//!
//! An answered request leaves its connection open. What is left of its body is read first, 64 KiB and five seconds of it
//! at most; where there is more, or where the client waits for `100 Continue`, the connection closes after the answer.
//!
//! # Why there is no `HttpModule`
//!
//! A module could be installed in one line, but can only end a request with an error, and Pingora answers errors without
//! the module: with an empty body, no `WWW-Authenticate`, and a closed connection. That is no answer that RFC 6750 allows.
//!
//! # Caches and subrequests
//!
//! `request_filter` runs before Pingora's cache, so that what is cached is not given to a revoked token either. Whatever
//! moves the client's token or changes the request's target belongs before the guard: it must see what the upstream sees.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
#[cfg(feature = "endpoint")]
mod body;
mod guard;
mod identity_headers;
#[cfg(feature = "endpoint")]
mod routes;
mod target;

pub use self::guard::RevocationGuard;
#[cfg(feature = "endpoint")]
pub use self::routes::RevocationRoutes;
