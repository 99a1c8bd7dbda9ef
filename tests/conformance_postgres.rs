//! The conformance suite, run for PostgreSQL.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/faults.rs"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod faults;
#[path = "common/neighbour.rs"]
#[allow(unreachable_pub, missing_docs)]
mod neighbour;
#[path = "common/server.rs"]
#[allow(dead_code, unreachable_pub, clippy::expect_used, clippy::panic, missing_docs)]
mod server;

use std::sync::{Mutex, MutexGuard};

use sqlx::{Connection, PgConnection};
use tower_revocation::backend::{
    Postgres,
    conformance::{Harness, Network, Skipped},
};

use self::{faults::Proxy, server::Server};

mod postgres {
    use super::*;

    async fn fresh() -> OnServer {
        OnServer::new("default")
    }

    tower_revocation::conformance_tests!(fresh);
}

/// Two fleets in one schema do not see each other.
mod postgres_namespace {
    use super::*;

    async fn fresh() -> OnServer {
        let harness = OnServer::new("ours");
        let theirs = harness.open().await.namespace("theirs");
        neighbour::settle(&theirs).await;
        harness
    }

    tower_revocation::conformance_tests!(fresh);
}

struct OnServer {
    server: Mutex<Server>,
    namespace: &'static str,
}

impl OnServer {
    fn new(namespace: &'static str) -> Self {
        Self { server: Mutex::new(Server::postgres()), namespace }
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap()
    }

    async fn connect(&self, url: &str) -> Postgres {
        Postgres::connect(url).await.unwrap().namespace(self.namespace)
    }
}

impl Harness for OnServer {
    type Backend = Postgres;

    async fn open(&self) -> Postgres {
        let url = self.server().url();
        self.connect(&url).await
    }

    async fn open_afar(&self) -> Result<(Postgres, Box<dyn Network>), Skipped> {
        let port = self.server().port();
        let proxy = Proxy::to(port).await;
        let url = self.server().url_at(proxy.port());
        Ok((self.connect(&url).await, Box::new(proxy)))
    }

    async fn restart(&self) {
        self.server().crash();
    }

    async fn plant(&self, record: &[u8]) -> bool {
        let url = self.server().url();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::query(
            "INSERT INTO tower_revocation.changes (namespace, key, retain_until, record) VALUES ($1, '', 9, $2)",
        )
        .bind(self.namespace)
        .bind(record)
        .execute(&mut connection)
        .await
        .unwrap();
        true
    }
}
