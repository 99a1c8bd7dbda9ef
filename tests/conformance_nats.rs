//! The conformance suite on NATS JetStream, with a private server for each check.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{sync::Mutex, time::Duration};

use common::server::Server;
use tower_revocation::{
    backend::{Backend, FleetSettings, Nats, NatsOptions, NodeStatus, conformance::Harness},
    revocation::{Change, Lifetimes, Revocation, Scope, ScopeHasher},
};

mod alone {
    use super::*;

    async fn fresh() -> OnServer {
        OnServer::new()
    }

    tower_revocation::conformance_tests!(fresh);
}

/// Two fleets on one server do not see each other.
mod namespace {
    use super::*;

    async fn fresh() -> OnServer {
        let harness = OnServer::new();
        let theirs = harness.open_in("ours-2").await;
        let scope = |n: u32| Scope::token("https://issuer.example/", n.to_string());
        let hasher = ScopeHasher::random();
        let record = |n| Revocation::new(scope(n)).into_record(&hasher, &Lifetimes::DEFAULT, 1000);
        let batch: Vec<_> = (0..5000).map(|n| Change::Revoke(record(n))).collect();
        theirs.agree(&FleetSettings::new(1, &Lifetimes::DEFAULT, None)).await.unwrap();
        theirs.publish(&batch).await.unwrap();
        theirs.heartbeat(&NodeStatus::new("theirs", true, Duration::from_secs(600))).await.unwrap();
        harness
    }

    tower_revocation::conformance_tests!(fresh);
}

struct OnServer(Mutex<Server>);

impl OnServer {
    fn new() -> Self {
        Self(Mutex::new(Server::nats()))
    }

    fn url(&self) -> String {
        self.0.lock().unwrap().url()
    }

    async fn open_in(&self, namespace: &str) -> Nats {
        NatsOptions::new().namespace(namespace).connect(&self.url()).await.unwrap()
    }
}

impl Harness for OnServer {
    type Backend = Nats;

    async fn open(&self) -> Nats {
        self.open_in("ours").await
    }

    async fn restart(&self) {
        self.0.lock().unwrap().crash();
    }

    async fn plant(&self, record: &[u8]) -> bool {
        let client = async_nats::connect(self.url()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let subject = "trev.ours.c.00.0.9.planted";
        context.publish(subject, record.to_vec().into()).await.unwrap().await.unwrap();
        true
    }
}
