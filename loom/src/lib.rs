//! Model checks of the real `visible.rs`, `open.rs` and `filter.rs` under loom: every interleaving, every permitted reordering,
//! up to three preemptions. moka cannot be looked into; a map that promises less than moka stands in its place.
//!
//! `cargo test --manifest-path loom/Cargo.toml --release`
#![cfg(test)]

mod atomic;
#[allow(dead_code, reason = "only the engine asks for the capacity")]
#[path = "../../src/denylist/filter.rs"]
mod filter;
#[allow(dead_code, reason = "only the engine counts and wakes all")]
#[path = "../../src/denylist/open.rs"]
mod open;
#[allow(dead_code, reason = "only the engine asks for the capacity")]
#[path = "../../src/denylist/visible.rs"]
mod visible;

mod models;
