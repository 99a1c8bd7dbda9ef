//! The ways in for requests. Each translates for the engine, and decides nothing.

pub mod ext_authz;
mod form;
pub mod forward_auth;
pub mod main_listener;
mod proxy;
mod refusal;
pub mod spoe;

pub use self::{ext_authz::ExtAuthz, forward_auth::ForwardAuth, main_listener::MainListener, spoe::Spoe};
