//! The sync and lease logic in simulated time: nodes whose clocks run at different rates, a store that is slow, cut off
//! and forgetful of answers, and a check of everything that clients were told.
//!
//! A few hundred seeds are part of the tests. `SIMULATION_SEEDS=10000 cargo test --release --test simulation` runs more;
//! `SIMULATION_SEED=n` one alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs)]

#[path = "history/laws.rs"]
#[allow(unreachable_pub)]
mod laws;

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http::{Request, header};
use laws::{Answer, Event, History, Item, Random, Success, What};
use tokio::time::{Instant, sleep, timeout};
use tower_revocation::{
    Guard, Revocations,
    backend::{
        Backend, BackendError, BackendErrorKind, Claim, Durability, Event as Said, FleetSettings, Intent, Memory,
        NodeStatus, OneTime, Position,
    },
    denylist::{Mode, Staleness, Tiered},
    policy::Policy,
    reject::Rejection,
    revocation::{Change, Revocation, Scope, ScopeKey},
    sync::SyncConfig,
    time::{Clock, Moment},
    token::{Claims, Identity, Verifier, Verify, VerifyError},
};

const ISSUER: &str = "https://issuer.example/";
const NODES: usize = 3;
const REFUSE_AFTER: Duration = Duration::from_secs(2);
const LENGTH: Duration = Duration::from_secs(30);
/// What all clocks show at first, but for their offsets.
const EPOCH: u64 = 1_800_000_000_000;

/// A clock of simulated time that is off, and fast or slow.
#[derive(Debug)]
struct Skewed {
    began: Instant,
    offset: i64,
    /// In millionths.
    rate: i64,
}

impl Clock for Skewed {
    fn now(&self) -> Moment {
        let real = self.began.elapsed().as_millis() as i64;
        let monotonic = (real + real * self.rate / 1_000_000) as u64;
        Moment::new((EPOCH + monotonic).saturating_add_signed(self.offset), monotonic)
    }
}

/// What the way between a node and the store is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Good,
    /// Nothing arrives.
    Cut,
    /// What is asked happens, and no answer arrives.
    Deaf,
    /// Everything takes this many milliseconds more, each way.
    Slow(u64),
    /// The same, and announcements do not arrive at all.
    Mute(u64),
}

/// A node's way to the store that all share.
#[derive(Clone)]
struct Link {
    store: Memory,
    way: Arc<Mutex<Way>>,
    /// Whether the process that uses it has not crashed. Nothing that a crashed one still does arrives anywhere.
    alive: Arc<AtomicBool>,
    random: Arc<Mutex<Random>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Link {
    fn way(&self) -> Way {
        *self.way.lock().unwrap()
    }

    /// One way; whether it arrives.
    async fn travel(&self, answer: bool) -> bool {
        let usual = self.random.lock().unwrap().millis(0, 5);
        sleep(usual).await;
        if !self.alive.load(Ordering::SeqCst) {
            return false;
        }
        match self.way() {
            Way::Good => true,
            Way::Slow(more) | Way::Mute(more) => {
                sleep(Duration::from_millis(more)).await;
                true
            }
            Way::Cut => false,
            Way::Deaf => !answer,
        }
    }

    /// What does not arrive hangs, as on a half-open connection, and fails later.
    async fn lost<T>(&self) -> Result<T, BackendError> {
        let patience = self.random.lock().unwrap().millis(100, 4000);
        sleep(patience).await;
        Err(BackendError::new(BackendErrorKind::Unavailable, "reaching the simulated store"))
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
        if !self.travel(false).await {
            return self.lost().await;
        }
        let answer = call.await;
        if self.travel(true).await { answer } else { self.lost().await }
    }
}

impl Backend for Link {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        self.call(self.store.agree(ours)).boxed()
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        self.call(self.store.publish(batch)).boxed()
    }

    fn follow<'a>(&'a self, from: Option<Position>, clock: &'a dyn Clock) -> BoxStream<'a, Result<Said, BackendError>> {
        // The store's own feed says when it was asked; here that is when the question left.
        let steps = stream::unfold((from, clock), move |(from, clock)| async move {
            let pause = self.random.lock().unwrap().millis(1, 300);
            sleep(pause).await;
            let asked = clock.now();
            let (mut events, mut reached) = (Vec::new(), from.clone());
            let read = async {
                let mut feed = self.store.follow(from.clone(), clock);
                while let Some(event) = feed.next().await {
                    match event? {
                        Said::CaughtUp { position, .. } => {
                            reached = Some(position.clone());
                            events.push(Ok(Said::CaughtUp { position, as_of: asked }));
                            return Ok(());
                        }
                        event => events.push(Ok(event)),
                    }
                }
                Ok(())
            };
            match self.call(read).await {
                Ok(()) => Some((events, (reached, clock))),
                Err(error) => Some((vec![Err(error)], (from, clock))),
            }
        });
        steps.flat_map(stream::iter).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        self.call(self.store.lookup(keys)).boxed()
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        async move {
            match self.way() {
                Way::Mute(_) => self.lost().await,
                _ => self.call(self.store.heartbeat(node)).await,
            }
        }
        .boxed()
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        self.call(self.store.retire(node)).boxed()
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        self.call(self.store.claim_once(claim)).boxed()
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        self.call(self.store.finish_once(claim)).boxed()
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        self.call(self.store.intend(intent)).boxed()
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        self.call(self.store.settle(id)).boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        self.call(self.store.intents()).boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.call(self.store.purge(before)).boxed()
    }

    fn durability(&self) -> Durability {
        Durability::Process
    }
}

/// Believes every token that it can read.
struct Credulous;

impl Verifier for Credulous {
    fn verify(&self, token: &str, _: u64) -> Result<Identity, VerifyError> {
        let item = token.split('.').nth(1).and_then(|item| item.parse().ok()).ok_or(VerifyError::Malformed)?;
        Ok(identity(item))
    }

    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.verify(token, now)
    }

    fn epoch(&self) -> u64 {
        0
    }
}

/// What a node does: it keeps in step, and guards requests, with a cache of verified tokens.
#[derive(Clone)]
struct Running {
    revocations: Revocations,
    guard: Arc<Guard<Verify<Credulous>>>,
    alive: Arc<AtomicBool>,
}

impl Running {
    async fn check(&self, item: Item) -> Answer {
        let request = Request::builder().header(header::AUTHORIZATION, format!("Bearer toy.{item}.x"));
        let (request, ()) = request.body(()).unwrap().into_parts();
        // What is too much is dropped now, not when there is time.
        self.revocations.denylist().maintain();
        match self.guard.check_parts_or_ask(&request).await {
            Ok(_) => Answer::Allow,
            Err(Rejection::Revoked(_)) => Answer::Deny,
            Err(Rejection::Unknown(_)) => Answer::Unknown,
            Err(other) => panic!("{item}: {other}"),
        }
    }
}

/// A node, which may be down.
struct Node {
    name: String,
    link: Link,
    clock: Arc<Skewed>,
    mode: Mode,
    running: Mutex<Option<Running>>,
}

impl Node {
    fn running(&self) -> Option<Running> {
        self.running.lock().unwrap().clone()
    }

    async fn start(&self) {
        loop {
            let mut config = SyncConfig::new(Staleness::refuse_after(REFUSE_AFTER));
            config.node.clone_from(&self.name);
            config.denylist.clock = self.clock.clone();
            config.publish_timeout = Duration::from_secs(1);
            config.compare_every = Duration::from_secs(7);
            config.denylist.mode = self.mode;
            let alive = Arc::new(AtomicBool::new(true));
            let link = Link { alive: alive.clone(), ..self.link.clone() };
            if let Ok(revocations) = Revocations::start_unloaded(link, config).await {
                let guard = Guard::new(revocations.denylist().clone(), Verify::new(Credulous), Policy::default());
                let new = Running { revocations, guard: Arc::new(guard), alive };
                // One that another start has made meanwhile ends once nobody uses it any more.
                *self.running.lock().unwrap() = Some(new);
                return;
            }
        }
    }
}

struct World {
    nodes: Vec<Node>,
    history: Mutex<History>,
    next: Mutex<Item>,
    began: Instant,
}

fn identity(item: Item) -> Identity {
    let now = EPOCH / 1000;
    let item = item.to_string();
    Identity::from_verified(&Claims::new(ISSUER).jti(&item).sub(&item).iat(now - 2000).exp(now + 4000))
}

fn scope(item: Item) -> Scope {
    if item.is_multiple_of(2) {
        Scope::token(ISSUER, item.to_string())
    } else {
        Scope::subject(ISSUER, item.to_string())
    }
}

impl World {
    fn note(&self, item: Item, node: usize, start: Duration, what: What) {
        let end = self.began.elapsed();
        self.history.lock().unwrap().events.push(Event { item, node, start, end, what });
    }

    async fn revoke(&self, node: usize, item: Item, everywhere: bool) {
        let Some(Running { revocations, alive, .. }) = self.nodes[node].running() else { return };
        let start = self.began.elapsed();
        let what = match revocations.revoke(Revocation::new(scope(item))).await {
            Err(_) => What::NotRevoked,
            Ok(_) if !everywhere => What::Revoked(Success::Local),
            Ok(_) => match revocations.everywhere(Duration::from_secs(4)).await {
                Ok(everywhere) if everywhere.is_complete() => What::Revoked(Success::Everywhere),
                _ => What::Revoked(Success::Local),
            },
        };
        // What a crashed node would have answered nobody has heard.
        if alive.load(Ordering::SeqCst) {
            self.note(item, node, start, what);
        }
    }

    async fn check(&self, node: usize, item: Item) {
        let start = self.began.elapsed();
        let Some(running) = self.nodes[node].running() else { return };
        let answer = running.check(item).await;
        // What a crashed node would have answered nobody has heard.
        if !running.alive.load(Ordering::SeqCst) {
            return;
        }
        self.note(item, node, start, What::Checked(answer));
    }

    async fn client(&self, mut random: Random) {
        while self.began.elapsed() < LENGTH {
            let node = random.below(NODES as u64) as usize;
            if random.below(6) == 0 {
                let item = {
                    let mut next = self.next.lock().unwrap();
                    *next += 1;
                    *next
                };
                self.revoke(node, item, random.below(2) == 0).await;
                // Right after, where a mistake shows first.
                for pause in [0, 5, 10, 20, 40, 80] {
                    sleep(Duration::from_millis(pause)).await;
                    futures_util::future::join_all((0..NODES).map(|node| self.check(node, item))).await;
                }
            } else {
                let newest = *self.next.lock().unwrap();
                self.check(node, newest.saturating_sub(random.below(8) as Item).max(1)).await;
            }
            sleep(random.millis(1, 120)).await;
        }
    }

    async fn faults(&self, mut random: Random) {
        while self.began.elapsed() < LENGTH {
            sleep(random.millis(10, 1500)).await;
            let node = &self.nodes[random.below(NODES as u64) as usize];
            let long = random.millis(10, 6000);
            match random.below(9) {
                0 => {
                    if let Some(running) = node.running.lock().unwrap().take() {
                        running.alive.store(false, Ordering::SeqCst);
                    }
                    sleep(long / 4).await;
                    let _ = timeout(LENGTH, node.start()).await;
                }
                kind => {
                    *node.link.way.lock().unwrap() = match kind {
                        1 | 2 => Way::Cut,
                        3 => Way::Deaf,
                        4..=6 => Way::Mute(random.below(900)),
                        _ => Way::Slow(random.below(900)),
                    };
                    sleep(long).await;
                    *node.link.way.lock().unwrap() = Way::Good;
                }
            }
        }
        for node in &self.nodes {
            *node.link.way.lock().unwrap() = Way::Good;
            if node.running().is_none() {
                node.start().await;
            }
        }
    }

    /// Once all is well, every node knows everything that succeeded.
    async fn settle(&self) {
        let revoked = self.history.lock().unwrap().revoked();
        for (number, node) in self.nodes.iter().enumerate() {
            for item in &revoked {
                let dead = async {
                    while node.running().unwrap().check(*item).await != Answer::Deny {
                        sleep(Duration::from_millis(100)).await;
                    }
                };
                timeout(Duration::from_secs(60), dead).await.unwrap_or_else(|_| {
                    panic!("node {number} never hears of {item}: {:?}", node.running().unwrap().revocations.status())
                });
            }
        }
    }
}

async fn run(seed: u64) -> [usize; 3] {
    let mut random = Random::new(seed);
    let (store, began) = (Memory::new(), Instant::now());
    let nodes = (0..NODES).map(|number| Node {
        // In every other run some have one name.
        name: format!("node-{}-{seed}", if seed.is_multiple_of(2) { number } else { number % 2 }),
        link: Link {
            store: store.clone(),
            way: Arc::default(),
            alive: Arc::new(AtomicBool::new(true)),
            random: Arc::new(Mutex::new(Random::new(random.next()))),
        },
        clock: Arc::new(Skewed {
            began,
            offset: random.below(600_000) as i64 - 300_000,
            // Rates that differ by less than a sixty-fourth between any two.
            rate: random.below(15_000) as i64 - 7_500,
        }),
        // In half of all runs, whatever their names are, one node or two have little at hand.
        mode: if seed % 4 >= 2 && number as u64 <= seed % 3 {
            Mode::Tiered(Tiered::default().entries(2).look_ups_per_source(u32::MAX))
        } else {
            Mode::Exact
        },
        running: Mutex::new(None),
    });
    let world = World { nodes: nodes.collect(), history: Mutex::default(), next: Mutex::new(1), began };
    for node in &world.nodes {
        node.start().await;
    }
    let clients = [0; 4].map(|_| world.client(Random::new(random.next())));
    let faults = [0; 2].map(|_| world.faults(Random::new(random.next())));
    tokio::join!(futures_util::future::join_all(clients), futures_util::future::join_all(faults));
    world.settle().await;
    let history = world.history.into_inner().unwrap();
    let violations = history.violations(REFUSE_AFTER);
    assert!(
        violations.is_empty(),
        "{} violations; again: SIMULATION_SEED={seed} cargo test --test simulation\n{}",
        violations.len(),
        violations.into_iter().take(5).collect::<Vec<_>>().join("\n"),
    );
    [
        history.count(|what| matches!(what, What::Revoked(Success::Local))),
        history.count(|what| matches!(what, What::Revoked(Success::Everywhere))),
        history.count(|what| matches!(what, What::Checked(_))),
    ]
}

#[test]
fn the_promises_hold_in_simulated_time() {
    laws::selftest();
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds = match (number("SIMULATION_SEED"), number("SIMULATION_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(seeds)) => 1..seeds + 1,
        (None, None) => 1..51,
    };
    let total = Mutex::new([0; 3]);
    let next = Mutex::new(seeds.clone());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(seed) = next.lock().unwrap().next() else { return };
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .start_paused(true)
                        .max_blocking_threads(1)
                        .build()
                        .unwrap();
                    let counts = runtime.block_on(run(seed));
                    total.lock().unwrap().iter_mut().zip(counts).for_each(|(total, count)| *total += count);
                }
            });
        }
    });
    let [local, everywhere, checks] = *total.lock().unwrap();
    println!(
        "{} seeds: local {local}, everywhere {everywhere}, checks {checks}, violations 0",
        seeds.end - seeds.start
    );
    assert!(local > 0 && everywhere > 0 && checks > 100, "nothing much happened");
}
