//! The conformance suite on NATS JetStream, with a private server for each check.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Mutex;

use common::{faults::Proxy, server::Server};
use tower_revocation::backend::{
    Nats, NatsOptions,
    conformance::{Harness, Network, Skipped},
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
        common::neighbour::settle(&theirs).await;
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
        self.connect(&self.url(), namespace).await
    }

    async fn connect(&self, url: &str, namespace: &str) -> Nats {
        NatsOptions::new().namespace(namespace).connect(url).await.unwrap()
    }
}

impl Harness for OnServer {
    type Backend = Nats;

    async fn open(&self) -> Nats {
        self.open_in("ours").await
    }

    async fn open_afar(&self) -> Result<(Nats, Box<dyn Network>), Skipped> {
        let port = self.0.lock().unwrap().port();
        let proxy = Proxy::to(port).await;
        let url = self.0.lock().unwrap().url_at(proxy.port());
        Ok((self.connect(&url, "ours").await, Box::new(proxy)))
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
