//! The conformance suite, run for Redis, with a server of its own for each check.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Mutex;

use common::{faults::Proxy, server::Server};
use tower_revocation::backend::{
    Redis,
    conformance::{Harness, Network, Skipped},
};

mod one_server {
    use super::*;

    async fn fresh() -> OnServer {
        OnServer { server: Mutex::new(Server::redis()), namespace: "default" }
    }

    tower_revocation::conformance_tests!(fresh);
}

/// Two fleets in one database do not see each other.
mod namespace {
    use super::*;

    async fn fresh() -> OnServer {
        let harness = OnServer { server: Mutex::new(Server::redis()), namespace: "ours" };
        let theirs = Redis::options(&harness.url()).unwrap().namespace("theirs").connect().await.unwrap();
        common::neighbour::settle(&theirs).await;
        harness
    }

    tower_revocation::conformance_tests!(fresh);
}

struct OnServer {
    server: Mutex<Server>,
    namespace: &'static str,
}

impl OnServer {
    fn url(&self) -> String {
        self.server.lock().unwrap().url()
    }

    async fn connect(&self, url: &str) -> Redis {
        Redis::options(url).unwrap().namespace(self.namespace).connect().await.unwrap()
    }
}

impl Harness for OnServer {
    type Backend = Redis;

    async fn open(&self) -> Redis {
        self.connect(&self.url()).await
    }

    async fn open_afar(&self) -> Result<(Redis, Box<dyn Network>), Skipped> {
        let port = self.server.lock().unwrap().port();
        let proxy = Proxy::to(port).await;
        let url = self.server.lock().unwrap().url_at(proxy.port());
        Ok((self.connect(&url).await, Box::new(proxy)))
    }

    async fn restart(&self) {
        self.server.lock().unwrap().crash();
    }

    async fn plant(&self, record: &[u8]) -> bool {
        let mut connection = redis::Client::open(self.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd("XADD");
        command.arg(format!("{{{}}}:log", self.namespace)).arg("*").arg("c").arg(record);
        command.exec_async(&mut connection).await.unwrap();
        true
    }
}
