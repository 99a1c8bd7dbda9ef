//! Token revocation as a tower layer.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod future;
mod guard;
mod layer;
mod random;
mod service;

pub mod denylist;
pub mod policy;
pub mod reject;
pub mod response;
pub mod revocation;
pub mod time;
pub mod token;

pub use self::{
    future::ResponseFuture,
    guard::{Guard, Passed},
    layer::RevocationLayer,
    service::RevocationService,
};
