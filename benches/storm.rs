//! Checks while 100,000 revocations a second come in: how long they take at the worst, and whether one is lost.
//!
//! First on the engine alone, `Denylist::apply`; then from `Revocations::revoke_all` through a store, where the store is
//! the limit. One thread applies, one checks; the storm lies between two idle stretches of the same run.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;
#[path = "../tests/common/server.rs"]
#[allow(dead_code, unreachable_pub)]
mod server;

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{Goal, Histogram, Length, Results, Spread, until};
use http::{Request, Response};
use server::Server;
use tower::{Layer, Service};
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{Memory, Redis, Sqlite},
    denylist::{Denylist, DenylistConfig, Mode, Staleness, Tiered, Verdict, Why},
    response::Bare,
    revocation::{Change, Revocation, Scope},
    sync::SyncConfig,
    token::{Algorithm, Claims, Identity, Issuer, JwtVerifier, Keys, Verify},
};

const ISSUER: &str = "https://issuer.example/";
const AUDIENCE: &str = "https://api.example/";
const SECRET: &[u8] = b"a secret of the bench, thirty-two bytes or more";
const RATE: usize = 100_000;
/// How often a batch comes in.
const TURN: Duration = Duration::from_millis(1);
const PRELOADED: usize = 1_000_000;
const IDENTITIES: usize = 64;

fn main() {
    let length = Length::of_this_run();
    let mut results = Results::new("storm", length);
    engine(Mode::Exact, &mut results, length);
    engine(Mode::Tiered(Tiered::default()), &mut results, length);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for store in ["memory", "sqlite", "redis"] {
        runtime.block_on(through(store, Mode::Exact, &mut results, length));
    }
    runtime.block_on(through("redis", Mode::Tiered(Tiered::default()), &mut results, length));
    results.write();
}

const fn named(mode: Mode) -> &'static str {
    match mode {
        Mode::Tiered(_) => ", tiered",
        _ => "",
    }
}

fn engine(mode: Mode, results: &mut Results, length: Length) {
    let whole = mode == Mode::Exact;
    let seconds = length.pick(if whole { 5 } else { 2 }, 10);
    let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(24 * 3600)));
    config.budget = PRELOADED + seconds * RATE + IDENTITIES;
    config.mode = mode;
    let list = Arc::new(Denylist::new(config));
    list.in_step_at(list.now());
    let change = |list: &Denylist, jti: &str| {
        let revocation = Revocation::new(Scope::token(ISSUER, jti));
        Change::Revoke(revocation.into_record(list.hasher(), list.lifetimes(), list.now().unix()))
    };
    for page in 0..PRELOADED / 1000 {
        let page: Vec<_> = (page * 1000..(page + 1) * 1000).map(|n| change(&list, &format!("before-{n}"))).collect();
        list.apply(&page);
        if list.wants_maintenance() {
            list.maintain();
        }
    }
    list.maintain();

    // Their sources' work, not the engine's.
    let storm: Vec<_> = (0..seconds * RATE).map(|n| change(&list, &format!("storm-{n}"))).collect();
    let idle = Readers::start(&list).run_for(Duration::from_secs(2));
    let readers = Readers::start(&list);
    let maintenance = Maintenance::start(&list);
    let began = Instant::now();
    let (mut late, mut applying) = (Duration::ZERO, Histogram::new());
    let batch = RATE / (Duration::from_secs(1).as_nanos() / TURN.as_nanos()) as usize;
    for (turn, changes) in storm.chunks(batch).enumerate() {
        let due = began + TURN * turn as u32;
        until(due);
        let called = Instant::now();
        list.apply(changes);
        applying.add(called.elapsed());
        late = late.max(due.elapsed());
    }
    let took = began.elapsed().as_secs_f64();
    let stormy = readers.stop();
    maintenance.stop();
    let after = Readers::start(&list).run_for(Duration::from_secs(2));

    let group = &format!("engine, 1 M held{}", named(mode));
    results.row(
        group,
        "revocations applied",
        "1/s",
        Spread::once(storm.len() as f64 / took),
        Some(Goal::AtLeast(0.99 * RATE as f64)),
    );
    let each = applying.quantile(0.5) / 1e3 / batch as f64;
    results.row(group, "apply one, of the median batch", "µs", Spread::once(each), None);
    results.row(group, "latest batch, from when it was due to when it is enforced", "ms", ms(late), None);
    for (place, door) in Readers::DOORS.into_iter().enumerate() {
        for (share, called) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
            let [idle, stormy, after] = [&idle, &stormy, &after].map(|seen| seen.taken[place].quantile(share));
            let goal = (share == 0.999).then_some(Goal::AtMost(10.0));
            results.row(group, &format!("{door}, {called}, idle before"), "µs", Spread::once(idle / 1e3), None);
            results.row(group, &format!("{door}, {called}, in the storm"), "µs", Spread::once(stormy / 1e3), goal);
            results.row(group, &format!("{door}, {called}, idle after"), "µs", Spread::once(after / 1e3), None);
            if share == 0.999 {
                let goal = Some(Goal::AtMost(2.0));
                let ratio = Spread::of([stormy / idle, stormy / after]);
                results.row(group, &format!("{door}, {called}, storm : idle"), "×", ratio, goal);
            }
        }
    }
    if !whole {
        let asked = stormy.asked as f64 / stormy.taken[0].count() as f64 * 100.0;
        results.row(group, "checks that would ask the backend", "%", Spread::once(asked), None);
    }
    let checks = stormy.taken.iter().map(Histogram::count).sum::<u64>();
    results.row(group, "checks in the storm", "", Spread::once(checks as f64), None);
    results.row(
        group,
        "tokens refused that are not revoked",
        "",
        Spread::once(stormy.wrong as f64),
        Some(Goal::AtMost(0.0)),
    );
    // Where an entry is not at hand, nobody passes before the backend was asked.
    let refused =
        |verdict| matches!(verdict, Verdict::Deny(_)) || (!whole && verdict == Verdict::Unknown(Why::NotAsked));
    let lost = (0..storm.len()).filter(|n| !refused(list.check(&token(&format!("storm-{n}")))));
    results.row(group, "lost", "", Spread::once(lost.count() as f64), Some(Goal::AtMost(0.0)));
    if whole {
        let missing = (PRELOADED + storm.len()).abs_diff(list.records());
        results.row(group, "records missing from the count", "", Spread::once(missing as f64), Some(Goal::AtMost(0.0)));
    }
}

/// The same from decisions made here, durable before they count.
async fn through(store: &str, mode: Mode, results: &mut Results, length: Length) {
    let seconds = length.pick(3, 10);
    let (server, folder) = ((store == "redis").then(Server::redis), tempfile::tempdir().unwrap());
    let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    config.denylist.budget = PRELOADED + seconds * RATE;
    config.denylist.mode = mode;
    let node = match &server {
        Some(server) => Revocations::start(Redis::connect(&server.url()).await.unwrap(), config).await,
        None if store == "memory" => Revocations::start(Memory::new(), config).await,
        None => Revocations::start(Sqlite::open(folder.path().join("revocations.db")).await.unwrap(), config).await,
    };
    let node = node.unwrap();
    let readers = Readers::start(node.denylist());
    let over = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(worst_staleness(node.clone(), Arc::clone(&over)));
    // Four callers, each with a batch of a thousand when it is due, or as soon as the one before is acknowledged.
    const CALLERS: usize = 4;
    const BATCH: usize = 1000;
    let began = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let node = node.clone();
        tokio::spawn(async move {
            let (mut done, mut refused, mut slowest) = (Vec::new(), 0, Duration::ZERO);
            let each = Duration::from_secs(1) * (CALLERS * BATCH) as u32 / RATE as u32;
            for turn in 0_u32.. {
                let due = began + each * turn;
                if began.elapsed().as_secs() >= seconds as u64 || each * turn >= Duration::from_secs(seconds as u64) {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                let jti = |n: usize| format!("{caller}-{turn}-{n}");
                let called = Instant::now();
                let batch = (0..BATCH).map(|n| Revocation::new(Scope::token(ISSUER, jti(n))));
                match node.revoke_all(batch).await {
                    Ok(_) => done.extend((0..BATCH).map(jti)),
                    Err(_) => refused += BATCH,
                }
                slowest = slowest.max(called.elapsed());
            }
            (done, refused, slowest)
        })
    });
    let (mut done, mut refused, mut slowest) = (Vec::new(), 0, Duration::ZERO);
    for caller in callers.collect::<Vec<_>>() {
        let (its_done, its_refused, its_slowest) = caller.await.unwrap();
        done.extend(its_done);
        refused += its_refused;
        slowest = slowest.max(its_slowest);
    }
    let took = began.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    let staleness = watch.await.unwrap();
    let seen = readers.stop();
    assert_eq!(seen.wrong, 0, "tokens that are not revoked pass");
    // What is asked for takes its time: some of it.
    let some = done.iter().step_by(if mode == Mode::Exact { 1 } else { 10 });
    let mut lost = 0;
    for jti in some {
        lost += usize::from(!matches!(node.check_or_ask(&token(jti)).await, Verdict::Deny(_)));
    }
    node.shutdown().await;

    let group = format!("through {store}, 100,000/s offered{}", named(mode));
    let mut row = |name: &str, unit, value, goal| results.row(&group, name, unit, Spread::once(value), goal);
    row("durable and enforced", "1/s", done.len() as f64 / took, None);
    row("writes refused", "", refused as f64, Some(Goal::AtMost(0.0)));
    row("lost of what was acknowledged", "", lost as f64, Some(Goal::AtMost(0.0)));
    row("staleness at the worst", "ms", staleness.as_secs_f64() * 1e3, None);
    row("slowest call of a thousand", "ms", slowest.as_secs_f64() * 1e3, None);
    row("check, p99.9", "µs", seen.taken[0].quantile(0.999) / 1e3, None);
}

async fn worst_staleness(node: Revocations, over: Arc<AtomicBool>) -> Duration {
    let mut worst = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        worst = worst.max(node.status().staleness.unwrap_or(Duration::MAX));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worst
}

fn ms(duration: Duration) -> Spread {
    Spread::once(duration.as_secs_f64() * 1e3)
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token(jti: &str) -> Identity {
    Identity::from_verified(&Claims::new(ISSUER).jti(jti).iat(unix()).exp(unix() + 600))
}

fn bearer(jti: &str) -> Request<()> {
    let now = unix();
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "sid": "session-4711", "jti": jti,
        "iat": now, "exp": now + 3600, "scope": "x".repeat(100),
    });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let input = format!("{}.{}", part(r#"{"alg":"HS256","typ":"at+jwt"}"#), part(&claims.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), input.as_bytes());
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
    Request::builder().header("authorization", format!("Bearer {token}")).body(()).unwrap()
}

/// What filters and entries that grow need, as often as the replica gives it to them.
struct Maintenance {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Maintenance {
    fn start(list: &Arc<Denylist>) -> Self {
        let (list, over) = (Arc::clone(list), Arc::new(AtomicBool::new(false)));
        let until = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut last = Instant::now();
            while !until.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(50));
                if list.wants_maintenance() || last.elapsed() > Duration::from_secs(5) {
                    list.maintain();
                    last = Instant::now();
                }
            }
        });
        Self { over, thread }
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// A thread that checks tokens that are not revoked, one after another, by both doors in turn.
struct Readers {
    over: Arc<AtomicBool>,
    thread: thread::JoinHandle<Seen>,
}

struct Seen {
    taken: [Histogram; 2],
    wrong: u64,
    /// Which only the backend could have told.
    asked: u64,
}

impl Readers {
    const DOORS: [&str; 2] = ["check of an identity with keys", "layer, hot token"];

    fn start(list: &Arc<Denylist>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (list, until) = (Arc::clone(list), Arc::clone(&over));
        Self { over, thread: thread::spawn(move || check(&list, &until)) }
    }

    fn run_for(self, time: Duration) -> Seen {
        thread::sleep(time);
        self.stop()
    }

    fn stop(self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn check(list: &Arc<Denylist>, over: &AtomicBool) -> Seen {
    let jti = |n: usize| format!("good-{n}");
    let identities: Vec<_> = (0..IDENTITIES)
        .map(|n| {
            let (jti, now) = (jti(n), unix());
            let claims = Claims::new(ISSUER).jti(&jti).sub("alice").client_id("app").sid("session-4711");
            Identity::with_keys(&claims.iat(now).exp(now + 3600), list.hasher())
        })
        .collect();
    let issuer = Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::HS256]).keys(Keys::secret(SECRET));
    let verifier = JwtVerifier::builder().issuer(issuer).build().unwrap();
    let layer = RevocationLayer::new(Arc::clone(list), Verify::new(verifier)).deny_with(Bare);
    let mut service = layer.layer(Bounce);
    let mut requests: Vec<_> = (0..IDENTITIES).map(|n| bearer(&jti(n))).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let mut seen = Seen { taken: [Histogram::new(), Histogram::new()], wrong: 0, asked: 0 };
    let mut warm = IDENTITIES;
    while !over.load(Ordering::Relaxed) {
        for (n, (identity, request)) in identities.iter().zip(&mut requests).enumerate() {
            let began = Instant::now();
            let verdict = black_box(list.check(black_box(identity)));
            let taken = began.elapsed();
            let passing = std::mem::replace(request, Request::new(()));
            let began = Instant::now();
            let answer = pin!(service.call(black_box(passing))).poll(&mut cx);
            let hot = began.elapsed();
            let Poll::Ready(Ok(answer)) = answer else { panic!("the service is ready at once") };
            match answer.into_body() {
                Some(same) if verdict == Verdict::Allow => *request = same,
                _ => {
                    *request = bearer(&jti(n));
                    let unclear = |verdict| verdict == Verdict::Unknown(Why::NotAsked);
                    let asked = unclear(verdict) || unclear(list.check(identity));
                    *if asked { &mut seen.asked } else { &mut seen.wrong } += 1;
                    continue;
                }
            }
            // The first time round the tokens are verified.
            if warm > 0 {
                warm -= 1;
                continue;
            }
            seen.taken[0].add(taken);
            seen.taken[1].add(hot);
        }
    }
    seen
}

/// Hands the request back in its response, so that it can come again.
#[derive(Clone)]
struct Bounce;

impl Service<Request<()>> for Bounce {
    type Response = Response<Option<Request<()>>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Some(request))))
    }
}
