//! What open streams cost: bytes each, what a revocation among many of them takes, and what short answers pay.
//!
//! The streams are bodies in this process that the layer has wrapped, each of another user with another token; memory is
//! what the kernel says is resident, in a process that holds nothing else.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    pin::Pin,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{Goal, Length, Results, Spread};
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{Empty, Full};
use tower::{Layer as _, Service, service_fn};
use tower_revocation::{
    RevocationLayer,
    denylist::{Denylist, DenylistConfig, Staleness},
    response::Denial,
    revocation::{Change, Revocation, Scope},
    streams::{EndStreams, StreamBody},
    token::{Claims, FromExtension, Identity},
};

const ISSUER: &str = "https://issuer.example/";

/// An answer that never says anything.
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Counts who is woken.
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, streams, ..] = arguments.as_slice()
        && role == "child"
    {
        return child(streams.parse().expect("a number"));
    }
    let length = Length::of_this_run();
    let mut results = Results::new("streams", length);
    for streams in [10_000, 100_000] {
        let all: Vec<_> = (0..length.pick(2, 7)).map(|_| measure(streams)).collect();
        let spread = |place: usize| Spread::of(all.iter().map(|one: &[f64; 6]| one[place]));
        let group = format!("{streams} open");
        results.row(&group, "each, above the stream itself", "B", spread(0), Some(Goal::AtMost(200.0)));
        results.row(&group, "begin one and register it", "ns", spread(1), None);
        results.row(&group, "revoke one user of them", "ns", spread(2), None);
        results.row(&group, "revoke a user who has none", "ns", spread(3), None);
        results.row(&group, "woken by the revocation of one user", "streams", spread(4), Some(Goal::AtMost(1.0)));
        results.row(&group, "left once all are dropped", "B each", spread(5), None);
    }
    short(length, &mut results);
    results.write();
}

fn measure(streams: usize) -> [f64; 6] {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let output = child.args(["child", &streams.to_string()]).stderr(Stdio::inherit()).output().expect("a child");
    assert!(output.status.success(), "the child failed");
    let text = String::from_utf8(output.stdout).expect("text");
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    numbers.try_into().expect("six numbers")
}

fn denylist() -> Arc<Denylist> {
    let denylist = Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(3600))));
    denylist.in_step_at(denylist.now());
    Arc::new(denylist)
}

fn request(denylist: &Denylist, number: usize) -> Request<Empty<Bytes>> {
    let now = denylist.now().unix();
    let [jti, sid, sub] = ["t", "s", "u"].map(|kind| format!("{kind}{number}"));
    let claims = Claims::new(ISSUER).jti(&jti).sid(&sid).sub(&sub).client_id("app").iat(now).exp(now + 600);
    let mut request = Request::new(Empty::new());
    request.extensions_mut().insert(Identity::with_keys(&claims, denylist.hasher()));
    request
}

fn revoke(denylist: &Denylist, number: usize) -> Change {
    let revocation = Revocation::new(Scope::subject(ISSUER, format!("u{number}")));
    Change::Revoke(revocation.into_record(denylist.hasher(), denylist.lifetimes(), denylist.now().unix()))
}

fn child(count: usize) {
    let denylist = denylist();
    let layer = RevocationLayer::new(Arc::clone(&denylist), FromExtension::<Identity>::new());
    let layer = layer.deny_with(refused);
    let mut service = layer.end_streams(EndStreams::default()).layer(service_fn(silent));
    let woken = Arc::new(Woken(AtomicU64::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    // Paged in before: the bodies themselves are the streams.
    let mut bodies: Vec<StreamBody<Silent>> = Vec::with_capacity(count);
    for _ in 0..count {
        bodies.push(StreamBody::new(Silent));
    }
    bodies.clear();
    let before = resident();
    let mut spent = Duration::ZERO;
    for number in 0..count {
        let request = request(&denylist, number);
        let began = Instant::now();
        let response = service.call(request).now_or_never().expect("at once").unwrap_or_else(|never| match never {});
        let mut body = response.into_body();
        assert!(Pin::new(&mut body).poll_frame(&mut context).is_pending());
        spent += began.elapsed();
        bodies.push(body);
    }
    assert_eq!(denylist.open_streams(), count);
    let more = size_of::<StreamBody<Silent>>() - size_of::<Silent>();
    let each = (resident() - before) as f64 / count as f64 + more as f64;

    let (rounds, mut ended, mut nobody) = (1000, Vec::new(), Vec::new());
    for round in 0..rounds {
        for (numbers, times) in [(round * (count / rounds), &mut ended), (count + round, &mut nobody)] {
            let change = revoke(&denylist, numbers);
            let began = Instant::now();
            denylist.apply(&[change]);
            times.push(began.elapsed().as_nanos() as f64);
        }
    }
    let wakes = woken.0.load(Ordering::Relaxed) as f64 / rounds as f64;
    let mut over = 0;
    for body in &mut bodies {
        over += usize::from(Pin::new(body).poll_frame(&mut context).is_ready());
    }
    assert_eq!(over, rounds, "those that were revoked have ended, and no others");
    bodies.clear();
    assert_eq!(denylist.open_streams(), 0);
    let left = resident().saturating_sub(before) as f64 / count as f64;
    let register = spent.as_nanos() as f64 / count as f64;
    let (ended, nobody) = (Spread::of(ended).median, Spread::of(nobody).median);
    println!("{each} {register} {ended} {nobody} {wakes} {left}");
}

#[expect(clippy::needless_pass_by_value, reason = "as it is called")]
fn refused(denial: Denial) -> Response<StreamBody<Silent>> {
    panic!("refused: {}", denial.rejection)
}

fn silent<B>(_: Request<B>) -> Ready<Result<Response<Silent>, Infallible>> {
    ready(Ok(Response::new(Silent)))
}

fn small<B>(_: Request<B>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    ready(Ok(Response::new(Full::new(Bytes::from_static(b"in")))))
}

/// The same short answer with the check alone, and with what ends streams besides.
fn short(length: Length, results: &mut Results) {
    let denylist = denylist();
    let layer = RevocationLayer::new(Arc::clone(&denylist), FromExtension::<Identity>::new());
    let mut alone = layer.clone().layer(service_fn(small));
    let mut besides = layer.end_streams(EndStreams::default()).layer(service_fn(small));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..length.pick(50, 500) {
        without.push(time(&mut alone, &denylist));
        with.push(time(&mut besides, &denylist));
    }
    assert_eq!(denylist.open_streams(), 0, "short answers are not registered");
    let more = with.iter().zip(&without).map(|(with, without)| with - without);
    results.row("short answer", "request and answer, check alone", "ns", Spread::of(without.iter().copied()), None);
    results.row("short answer", "more for being ready to end streams", "ns", Spread::of(more), None);
}

fn time<S, B>(service: &mut S, denylist: &Denylist) -> f64
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: Body + Unpin,
{
    const REQUESTS: usize = 1000;
    let requests: Vec<_> = (0..REQUESTS).map(|_| request(denylist, 1)).collect();
    let mut context = Context::from_waker(Waker::noop());
    let began = Instant::now();
    for request in requests {
        let response = service.call(request).now_or_never().expect("at once").unwrap_or_else(|never| match never {});
        let mut body = response.into_body();
        let frame = Pin::new(&mut body).poll_frame(&mut context);
        black_box(frame.is_ready());
    }
    began.elapsed().as_nanos() as f64 / REQUESTS as f64
}

/// What is resident, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}
