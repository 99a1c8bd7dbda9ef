//! What must hold while the network between a backend and its store fails.

use std::{
    collections::HashSet,
    future::Future,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::{Backend, BackendError, Follower, Harness, ISSUER, LIMIT, Maker, Skipped, done};
use crate::{
    backend::{BackendErrorKind, Intent, NodeStatus, OneTime, Position},
    revocation::Change,
};

/// The network between one opened backend and its store, which fails on demand.
pub trait Network: Send + Sync {
    /// From now on this happens to all that goes over it, either way, on open connections and on new ones.
    fn set(&self, way: Way);
}

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    #[default]
    Open,
    /// Connections are closed, new ones as well: the server is gone.
    Cut,
    /// Connections stay open, and nothing arrives: the peer is gone, and nobody said so.
    Silent,
    /// They pass this much later.
    Slow(Duration),
}

/// While the server is gone, calls fail and the feed ends, each in time. Once it is back, all goes on without a gap.
pub async fn goes_on_after_a_cut<H: Harness>(harness: &H) -> Result<(), Skipped> {
    goes_on_after(harness, Way::Cut).await
}

/// The same where connections are half open: nobody says that the peer is gone.
pub async fn goes_on_after_silence<H: Harness>(harness: &H) -> Result<(), Skipped> {
    goes_on_after(harness, Way::Silent).await
}

/// However slow the network is, every call ends in time, and what was acknowledged is there.
pub async fn bears_a_slow_network<H: Harness>(harness: &H) -> Result<(), Skipped> {
    let (far, network) = harness.open_afar().await?;
    let near = harness.open().await;
    let make = Maker::new();
    let mut acknowledged = Vec::new();
    for (round, delay) in [50, 500, 4000].into_iter().enumerate() {
        network.set(Way::Slow(Duration::from_millis(delay)));
        let changes = make.tokens(round as u64 * 10..round as u64 * 10 + 5);
        let publishing = join_all(changes.iter().map(|change| {
            let change = std::slice::from_ref(change);
            async { ended("publish", far.publish(change)).await.is_ok() }
        }));
        let (published, _) = tokio::join!(publishing, all_others(&far, round as u64));
        acknowledged.extend(changes.into_iter().zip(published).filter_map(|(change, stored)| stored.then_some(change)));
    }
    network.set(Way::Open);
    let last = make.token(1_000_000);
    acknowledged.push(last.clone());
    let position = again("publish", async || far.publish(std::slice::from_ref(&last)).await).await;
    let mut follower = Follower::new(&near, None);
    follower.until("what was published last", |seen| seen.reached(&position)).await;
    let lost: Vec<_> = acknowledged.iter().filter(|change| !follower.seen.contains(change)).collect();
    assert!(lost.is_empty(), "acknowledged over a slow network, and lost: {lost:?}");
    Ok(())
}

async fn goes_on_after<H: Harness>(harness: &H, way: Way) -> Result<(), Skipped> {
    let (far, network) = harness.open_afar().await?;
    let near = harness.open().await;
    let make = Maker::new();
    done("publish", near.publish(&make.tokens(0..10))).await;
    let mut follower = Follower::new(&far, None);
    let mut from = follower.catch_up().await;
    let mut acknowledged = Vec::new();
    // The second time shows whether the first one left something behind.
    for round in 1..=2 {
        network.set(way);
        let unacknowledged = [make.token(round * 1000)];
        let elsewhere = make.tokens(round * 1000 + 1..round * 1000 + 100);
        let (publish, others, (), placed) = tokio::join!(
            ended("publish", far.publish(&unacknowledged)),
            all_others(&far, round),
            breaks(follower, way),
            done("publish by another way", near.publish(&elsewhere)),
        );
        assert!(publish.is_err(), "{way:?}: a publish succeeded that cannot have reached the store");
        assert!(!others, "{way:?}: a call succeeded that cannot have reached the store");
        network.set(Way::Open);
        let after = make.token(round * 1000 + 500);
        let last = again("publish", async || far.publish(std::slice::from_ref(&after)).await).await;
        assert!(last >= placed, "{way:?}: what is published after it has a place after it");
        acknowledged.extend(elsewhere);
        acknowledged.push(after);
        follower = follow_again(&far, &from, &last, &acknowledged, way).await;
        from = follower.catch_up().await;
        acknowledged.clear();
    }
    Ok(())
}

/// A feed from there that delivers all of these, in their order; also where it takes several tries.
async fn follow_again<'a>(
    far: &'a impl Backend,
    from: &Position,
    last: &Position,
    expected: &[Change],
    way: Way,
) -> Follower<'a> {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LIMIT, "{way:?}: the feed does not go on within {LIMIT:?}");
        let mut follower = Follower::new(far, Some(from.clone()));
        let reached = loop {
            match follower.try_step("the feed to go on").await {
                Ok(true) if follower.reached(last) => break true,
                Ok(_) => {}
                Err(_) => break false,
            }
        };
        if reached {
            let wanted: HashSet<_> = expected.iter().map(Change::key).collect();
            let mut delivered = follower.distinct();
            delivered.retain(|change| wanted.contains(&change.key()));
            assert!(delivered == expected, "{way:?}: the feed goes on from {from} without a gap, in order");
            return follower;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

const PAUSE: Duration = Duration::from_millis(50);

/// Waits until the feed says that it has lost touch.
async fn breaks(mut follower: Follower<'_>, way: Way) {
    let begun = Instant::now();
    while follower.try_step("the feed to notice").await.is_ok() {
        assert!(begun.elapsed() < LIMIT, "{way:?}: the feed does not notice within {LIMIT:?}");
    }
}

/// What a call that may fail comes to: success, or that the store is out of reach, in time.
async fn ended<T>(what: &str, call: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
    let outcome = tokio::time::timeout(LIMIT, call).await;
    let outcome = outcome.unwrap_or_else(|_| panic!("{what} did not end within {LIMIT:?}"));
    if let Err(error) = &outcome {
        assert_eq!(
            error.kind(),
            BackendErrorKind::Unavailable,
            "{what}: another try may work, and so it says: {error}"
        );
    }
    outcome
}

/// Makes the other calls that ask the store, at once; whether any succeeded.
async fn all_others(store: &impl Backend, round: u64) -> bool {
    let keys = [Maker::new().token(round).key()];
    let node = NodeStatus::new("far", true, Duration::from_secs(60));
    let id = round.to_string();
    let message = OneTime::new("conformance", ISSUER, &id, [1; 32], u64::MAX);
    let intent = Intent::new(round, &[]);
    let (lookup, heartbeat, claim, intend, intents) = tokio::join!(
        ended("lookup", store.lookup(&keys)),
        ended("heartbeat", store.heartbeat(&node)),
        ended("claim_once", store.claim_once(&message)),
        ended("intend", store.intend(&intent)),
        ended("intents", store.intents()),
    );
    lookup.is_ok() || heartbeat.is_ok() || claim.is_ok() || intend.is_ok() || intents.is_ok()
}

/// Tries until it works, in time.
async fn again<T>(what: &str, call: impl AsyncFn() -> Result<T, BackendError>) -> T {
    let begun = Instant::now();
    loop {
        match ended(what, call()).await {
            Ok(value) => return value,
            Err(error) => assert!(begun.elapsed() < LIMIT, "{what} does not work again within {LIMIT:?}: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
