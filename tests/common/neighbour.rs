//! Another fleet in the same store.

use std::time::Duration;

use tower_revocation::{
    backend::{Backend, FleetSettings, NodeStatus},
    revocation::{Change, Lifetimes, Revocation, Scope, ScopeHasher},
};

/// Settles there: with settings, more than a page of revocations, and a node.
pub async fn settle(theirs: &impl Backend) {
    let hasher = ScopeHasher::random();
    let scope = |n: u32| Scope::token("https://issuer.example/", n.to_string());
    let record = |n| Revocation::new(scope(n)).into_record(&hasher, &Lifetimes::DEFAULT, 1000);
    let batch: Vec<_> = (0..5000).map(|n| Change::Revoke(record(n))).collect();
    theirs.agree(&FleetSettings::new(1, &Lifetimes::DEFAULT, None)).await.unwrap();
    theirs.publish(&batch).await.unwrap();
    theirs.heartbeat(&NodeStatus::new("theirs", true, Duration::from_secs(600))).await.unwrap();
}
