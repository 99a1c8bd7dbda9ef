//! The conformance suite, run for Redis, with a server of its own for each check.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{sync::Mutex, time::Duration};

use common::server::Server;
use tower_revocation::{
    backend::{Backend, FleetSettings, NodeStatus, Redis, conformance::Harness},
    revocation::{Change, Lifetimes, Revocation, Scope, ScopeHasher},
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
        let hasher = ScopeHasher::random();
        let scope = |n: u32| Scope::token("https://issuer.example/", n.to_string());
        let record = |n| Revocation::new(scope(n)).into_record(&hasher, &Lifetimes::DEFAULT, 1000);
        let batch: Vec<_> = (0..5000).map(|n| Change::Revoke(record(n))).collect();
        theirs.agree(&FleetSettings::new(1, &Lifetimes::DEFAULT, None)).await.unwrap();
        theirs.publish(&batch).await.unwrap();
        theirs.heartbeat(&NodeStatus::new("theirs", true, Duration::from_secs(600))).await.unwrap();
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
}

impl Harness for OnServer {
    type Backend = Redis;

    async fn open(&self) -> Redis {
        Redis::options(&self.url()).unwrap().namespace(self.namespace).connect().await.unwrap()
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
