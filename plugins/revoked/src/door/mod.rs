//! The ways in for requests. Each translates for the engine, and decides nothing.

mod form;
pub mod forward_auth;
pub mod main_listener;
mod proxy;

pub use self::{forward_auth::ForwardAuth, main_listener::MainListener};
