//! Makes "log this person out, now" true: a tower [`Layer`](tower_layer::Layer) that answers the revocation
//! routes and refuses every request that carries a revoked token, in-process, with no network call on the path.
//!
//! # A tour
//!
//! A **revocation** ([`revocation`]) is a scope (one token, a session, a user, a client, an issuer) and a
//! cutoff: every token of the scope issued until then is dead. It is recorded through the handle
#![cfg_attr(feature = "sync", doc = "[`Revocations`], which makes it durable in a [`backend`] that all nodes share")]
#![cfg_attr(
    not(feature = "sync"),
    doc = "`Revocations` (feature `sync`), which makes it durable in a backend that all nodes share"
)]
//! and then visible in this node's **denylist** ([`denylist`]): a filter in front of a cache that never evicts.
//!
//! A request's **identity** ([`token`]) comes from a source that the user chooses: verified by the layer itself
//! ([`token::Verify`]), verified by a layer outside ([`token::FromExtension`]), or only looked at
//! ([`token::Peek`]) where a verifier runs behind. The [`RevocationLayer`] asks the denylist and passes the
//! request on, or refuses it with 401 (RFC 6750 §3) or gRPC `UNAUTHENTICATED`. What a request leaves open is
//! decided by a [`policy`], why one is refused is a [`reject::Rejection`], and what the client reads of it is
//! built by a [`response::DenyResponse`]. The decision without tower is a [`Guard`], for doors of other kinds.
//!
//!
//! Where each part is, from the first line to a fleet:
//!
//! | to | look at |
//! | --- | --- |
//! | put it in front of a service | [`RevocationLayer`]; [`RevocationLayer::asking`] where the list is larger than memory |
//! | say whose tokens are accepted | [`token::Issuer`] and `token::JwtVerifier`; [`token::VerifiedClaims`] for claims of your own |
//! | record and lift what is revoked | `Revocations::revoke`, `log_out`, `log_out_everywhere`, `lift`, `enable`; [`revocation::Revocation`] |
//! | share it among nodes | `backend::connect`, `backend::Backend` for a store of your own; `Revocations::everywhere` |
//! | choose what a node does that has lost touch | [`denylist::Staleness`]; [`policy::StaleRequests`] for some routes |
//! | answer the revocation routes (RFC 7009 and others) | `endpoint::Endpoints`, `endpoint::FrontLayer` |
//! | find users and their sessions | `directory`, `recorder` |
//! | begin without refusing anybody | [`rollout`], [`report`], [`Guard::roll_out`] |
//! | turn the clock in tests | [`time::ManualClock`] |
//!
//! The pages in `docs/` of the repository say more: what each route answers, what is promised across nodes, what each
//! store survives, what it costs, and how to roll it out.
//!
//! # Start here
//!
//! ```
//! # #[cfg(feature = "sync")] #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use tower_revocation::{
//!     RevocationLayer, Revocations,
//!     backend::Memory,
//!     denylist::Staleness,
//!     revocation::{Revocation, Scope},
//!     sync::SyncConfig,
//!     token::{Peek, VerifierBehind},
//! };
//!
//! // What happens once this node has lost touch with the backend is your choice; there is no default.
//! let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
//! let revocations = Revocations::start(Memory::new(), config).await?;
//!
//! // The service behind verifies every token, so a look is enough to refuse the revoked ones.
//! let source = Peek::new(VerifierBehind::i_promise()).issuer("https://issuer.example/");
//! let layer = RevocationLayer::new(revocations.denylist().clone(), source);
//! # let _ = layer;
//!
//! // Anywhere in your code:
//! let outcome = revocations.revoke(Revocation::new(Scope::subject("https://issuer.example/", "alice"))).await?;
//! # let _ = outcome; Ok(()) }
//! # #[cfg(not(feature = "sync"))] fn main() {}
//! ```
//!
//! # Features
//!
//! | feature | brings | default |
//! | --- | --- | --- |
//! | `jwt` | `token::JwtVerifier`: signed JWTs, with aws-lc | yes |
//! | `endpoint` | the revocation routes, directories and the recorder (brings `sync`) | yes |
//! | `signals` | Back-Channel Logout in and out, and security events (SSF, CAEP, RISC), pushed or polled | |
//! | `introspection` | opaque tokens that their issuer is asked about (RFC 7662) | |
//! | `sync` | backends, the replica task, `Revocations` (needs tokio); the backend in memory | with `endpoint` |
//! | `sqlite` | the embedded durable backend; with `endpoint` users and the recorder's store in SQLite | |
//! | `postgres` | the backend in PostgreSQL; with `endpoint` users from an application's own database | |
//! | `redis` | the backend in Redis: one server, Sentinel or Cluster | |
//! | `nats` | the backend in NATS JetStream | |
//! | `jwks-http` | key sets fetched and refreshed over HTTP(S) | |
//! | `mtls` | client authentication by certificate (RFC 8705) | |
//! | `directory-file` | users from a TOML file, for the session and global routes | |
//! | `status-list` | Token Status Lists: honoured, and published | |
//! | `streams` | `streams`: ends what is open when its token is revoked | |
//! | `tracing` | events and spans through the `tracing` facade, never a token among them | |
//! | `metrics` | numbers and times through the `metrics` facade | |
//! | `full` | all of it | |
//!
//! # What it does not do
//!
//! It does not authenticate users or authorize requests: what passes is *not revoked*, and with
//! [`token::Verify`] also properly signed, in time and for this audience. Everything else is up to the service behind.
//! `SECURITY.md` has the threat model: who can do what with which credential, and the test that shows it.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod asking;
mod counts;
mod future;
mod guard;
mod layer;
#[cfg(feature = "metrics")]
mod per_thread;
mod random;
mod service;
#[cfg(any(feature = "sync", feature = "tracing"))]
mod spans;

#[cfg(feature = "sync")]
pub mod backend;
pub mod denylist;
#[cfg(feature = "endpoint")]
pub mod directory;
#[cfg(feature = "endpoint")]
pub mod endpoint;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod policy;
#[cfg(feature = "endpoint")]
pub mod recorder;
pub mod reject;
pub mod report;
pub mod response;
pub mod revocation;
pub mod rollout;
#[cfg(feature = "status-list")]
pub mod status_list;
#[cfg(feature = "streams")]
pub mod streams;
#[cfg(feature = "sync")]
pub mod sync;
pub mod time;
pub mod token;

#[cfg(feature = "sync")]
pub use self::sync::Revocations;
pub use self::{
    asking::{AskingFuture, AskingLayer, AskingService},
    future::ResponseFuture,
    guard::{Guard, Passed},
    layer::RevocationLayer,
    service::RevocationService,
};
