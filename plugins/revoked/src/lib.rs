//! `revoked`: token revocation for gateways. Every door asks the same engine, the library `tower-revocation`.
//!
//! This library is what the binary is made of, and for its tests; it promises no stability.

// The OpenAPI document is one large value.
#![recursion_limit = "256"]

pub mod admin;
mod body;
pub mod cli;
pub mod config;
pub mod denials;
pub mod door;
pub mod engine;
pub mod identity;
pub mod listen;
mod opening;
mod parts;
pub mod serve;
pub mod tls;
