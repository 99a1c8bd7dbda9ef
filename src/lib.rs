//! Token revocation as a tower layer.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod future;
mod guard;
mod layer;
mod random;
mod service;

#[cfg(feature = "sync")]
pub mod backend;
pub mod denylist;
pub mod policy;
pub mod reject;
pub mod response;
pub mod revocation;
#[cfg(feature = "sync")]
pub mod sync;
pub mod time;
pub mod token;

#[cfg(feature = "sync")]
pub use self::sync::Revocations;
pub use self::{
    future::ResponseFuture,
    guard::{Guard, Passed},
    layer::RevocationLayer,
    service::RevocationService,
};
