//! A site of the tests: the real daemon, a service behind it that remembers what it was asked, and clients that send
//! exactly the bytes that a test says.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    missing_docs
)]

pub mod certificates;
pub mod daemon;
pub mod gateway;
pub mod store;
pub mod token;
pub mod upstream;
pub mod wire;

use std::{future::Future, time::Duration};

pub use self::{
    daemon::Daemon,
    upstream::Upstream,
    wire::{Answer, get, send},
};

/// How long anything may take; nothing is expected to take this long.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "still not so after {LIMIT:?}: {what}");
}

/// What `future` yields, within the limit.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// A daemon and the service behind it.
pub struct Site {
    pub daemon: Daemon,
    pub upstream: Upstream,
}

impl Site {
    /// With these settings over the usual ones.
    pub async fn new(settings: &str) -> Self {
        let upstream = Upstream::start().await;
        let daemon = Daemon::start(&upstream.url(), settings).await;
        Self { daemon, upstream }
    }
}

/// The header line that carries a token.
pub fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}
