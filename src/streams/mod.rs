//! Ends what is open when its token is revoked: answers that stream, request bodies, and connections that were upgraded.
//!
//! [`RevocationLayer::end_streams`](crate::RevocationLayer::end_streams), and its like of the other layers, makes a layer
//! that looks after bodies by itself:
//!
//! ```
//! # use std::sync::Arc;
//! # use tower_revocation::{RevocationLayer, denylist::Denylist, token::{Peek, VerifierBehind}};
//! use tower_revocation::streams::EndStreams;
//!
//! # fn layer(denylist: Arc<Denylist>) {
//! # let source = Peek::new(VerifierBehind::i_promise()).issuer("https://issuer.example/");
//! let layer = RevocationLayer::new(denylist, source).end_streams(EndStreams::default());
//! # let _ = layer; }
//! ```
//!
//! How the end looks depends on what is open:
//!
//! | open | its end |
//! | --- | --- |
//! | gRPC | trailers with `UNAUTHENTICATED` (16); for gRPC-Web the same as a last message |
//! | any other answer (SSE, chunked, HTTP/2) | an abort: the connection, or the HTTP/2 stream, is reset |
//! | the body of a request | an error for who reads it; a request that was not answered yet is answered 401 |
//! | a WebSocket in a [`GuardedSocket`] | a close frame with code 1008 |
//! | any other upgraded connection, in a [`GuardedIo`] | it is closed |
//!
//! An answer is looked after from the first moment at which it waits, or after some frames: what is over at once is never
//! registered, and neither is a [small](EndStreams::small) one of known length. A connection that is upgraded belongs to
//! whoever upgrades it: take the [`Opening`] from the request's extensions, and guard the connection with it.
//!
//! What the stream is held against is what a request would be: the keys of its token, and the times at which it was issued
//! and its user authenticated. What does not cover the token ends nothing.

mod body;
mod future;
mod io;
mod layer;
mod open;
mod opening;
mod options;
mod socket;

pub use self::{
    body::{Ended, StreamBody},
    future::EndStreamsFuture,
    io::GuardedIo,
    layer::{EndStreamsLayer, EndStreamsService},
    open::Open,
    opening::{Opening, Streams},
    options::EndStreams,
    socket::{GuardedSocket, SocketError},
};
