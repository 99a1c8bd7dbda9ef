//! What a request costs over loopback: hello-world servers without the layer, with it and hot tokens, and with each
//! token verified anew, under `wrk` (axum, hyper) and `h2load` (tonic).
//!
//! Each server is a process of its own on one thread, and the kernel says how much CPU it took. All are measured in each
//! round, the first in turn, and compared within the round; a second server without the layer shows how much of a
//! difference is noise.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use std::{
    convert::Infallible,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use common::{Goal, Length, Results, Spread};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tower::{Layer as _, service_fn};
use tower_revocation::{
    RevocationLayer,
    denylist::{Denylist, DenylistConfig, Staleness},
    response::Bare,
    revocation::{Change, Revocation, Scope},
    token::{Algorithm, Issuer, JwtVerifier, Keys, TokenCacheConfig, Verify},
};

const ISSUER: &str = "https://issuer.example/";
const AUDIENCE: &str = "https://api.example/";
const REVOKED: &str = "revoked";
const HOT_TOKENS: usize = 64;
const CONNECTIONS: usize = 32;
/// The `jwks` of the issuer, for the servers.
const JWKS: &str = "END_TO_END_JWKS";
const GRPC_METHOD: &str = "/grpc.health.v1.Health/Check";

/// Tells `wrk` which requests to send, and how to say what it saw.
const SCRIPT: &str = r#"
local requests, turn = {}, 0
function init(args)
  for token in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", "/", {["Authorization"] = "Bearer " .. token})
  end
end
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9), e.status + e.connect + e.read + e.write + e.timeout))
end
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framework {
    Axum,
    Hyper,
    Tonic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Bare,
    BareAgain,
    Hot,
    EachTime,
}

impl Framework {
    const ALL: [Self; 3] = [Self::Axum, Self::Hyper, Self::Tonic];
}

impl Variant {
    const ALL: [Self; 4] = [Self::Bare, Self::BareAgain, Self::Hot, Self::EachTime];

    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareAgain => "bare again (noise)",
            Self::Hot => "layer, hot token",
            Self::EachTime => "layer, RS256 each time",
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, framework, variant, revocations, ..] = arguments.as_slice()
        && role == "serve"
    {
        let framework = Framework::ALL.into_iter().find(|known| format!("{known:?}") == *framework).unwrap();
        let variant = Variant::ALL.into_iter().find(|known| format!("{known:?}") == *variant).unwrap();
        return serve(framework, variant, revocations.parse().unwrap());
    }
    let length = Length::of_this_run();
    let mut results = Results::new("end_to_end", length);
    let folder = tempfile::tempdir().unwrap();
    let issuer = IssuerKey::new();
    let tokens: Vec<_> = (0..HOT_TOKENS).map(|n| issuer.token(&format!("good-{n}"))).collect();
    fs::write(folder.path().join("tokens"), tokens.join("\n") + "\n").unwrap();
    fs::write(folder.path().join("script.lua"), SCRIPT).unwrap();
    // A frame of an empty message.
    fs::write(folder.path().join("frame"), [0; 5]).unwrap();
    for framework in Framework::ALL {
        let program = if framework == Framework::Tonic { "h2load" } else { "wrk" };
        if Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            panic!("{program} is missing: install the Debian packages wrk and nghttp2-client");
        }
        measure(framework, &issuer, &tokens[0], folder.path(), length, &mut results);
    }
    results.write();
}

/// What one load on one server showed.
struct Seen {
    /// A second.
    requests: f64,
    /// Microseconds: p50, p99, p99.9.
    latency: [f64; 3],
    /// Microseconds a request.
    cpu: f64,
}

fn measure(
    framework: Framework,
    issuer: &IssuerKey,
    token: &str,
    folder: &Path,
    length: Length,
    results: &mut Results,
) {
    let revocations = length.pick(100_000, 1_000_000);
    let servers = Variant::ALL.map(|variant| Server::start(framework, variant, revocations, issuer));
    for server in &servers {
        let layered = !matches!(server.variant, Variant::Bare | Variant::BareAgain);
        assert!(server.lets_pass(token), "{framework:?}, {:?}: a good token passes", server.variant);
        let passes = server.lets_pass(&issuer.token(REVOKED));
        assert_eq!(passes, !layered, "{framework:?}, {:?}: the layer refuses a revoked token", server.variant);
        server.load(Duration::from_millis(300), token, folder);
    }
    let (rounds, time) = length.pick((4, Duration::from_secs(1)), (9, Duration::from_secs(2)));
    let rounds: Vec<[Seen; 4]> = (0..rounds)
        .map(|round| {
            let mut seen = [const { None }; 4];
            for turn in 0..seen.len() {
                let place = (round + turn) % seen.len();
                seen[place] = Some(servers[place].load(time, token, folder));
            }
            seen.map(|seen| seen.expect("all had their turn"))
        })
        .collect();

    let group = format!("{framework:?}").to_lowercase();
    for (place, variant) in Variant::ALL.into_iter().enumerate() {
        let spread = |pick: &dyn Fn(&Seen) -> f64| Spread::of(rounds.iter().map(|seen| pick(&seen[place])));
        let against = |pick: &dyn Fn(&Seen, &Seen) -> f64| {
            Spread::of(rounds.iter().map(|seen| pick(&seen[place], &seen[Variant::Bare as usize])))
        };
        let mut row = |what: &str, unit, spread, goal| {
            results.row(&group, &format!("{}, {what}", variant.name()), unit, spread, goal);
        };
        row("requests", "1/s", spread(&|seen| seen.requests), None);
        row("CPU per request", "µs", spread(&|seen| seen.cpu), None);
        for (share, called) in ["p50", "p99", "p99.9"].into_iter().enumerate() {
            row(called, "µs", spread(&|seen| seen.latency[share]), None);
        }
        if variant != Variant::Bare {
            let goal = (variant == Variant::Hot).then_some(Goal::AtMost(0.3));
            row("CPU per request over bare", "µs", against(&|one, bare| one.cpu - bare.cpu), goal);
            row("requests : bare", "×", against(&|one, bare| one.requests / bare.requests), None);
            row("CPU : bare", "×", against(&|one, bare| one.cpu / bare.cpu), None);
            for (share, called) in ["p50 : bare", "p99 : bare", "p99.9 : bare"].into_iter().enumerate() {
                row(called, "×", against(&|one, bare| one.latency[share] / bare.latency[share]), None);
            }
        }
    }
}

/// A server that ends with us.
struct Server {
    framework: Framework,
    variant: Variant,
    port: u16,
    child: Child,
}

impl Server {
    fn start(framework: Framework, variant: Variant, revocations: usize, issuer: &IssuerKey) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["serve", &format!("{framework:?}"), &format!("{variant:?}"), &revocations.to_string()]);
        command.env(JWKS, issuer.jwks()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the server's port");
        Self { framework, variant, port, child }
    }

    fn lets_pass(&self, token: &str) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        if self.framework == Framework::Tonic {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            return runtime.block_on(passes_grpc(address, token));
        }
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        match answer.split(' ').nth(1) {
            Some("200") => true,
            Some("401") => false,
            _ => panic!("neither 200 nor 401: {answer}"),
        }
    }

    fn load(&self, time: Duration, token: &str, folder: &Path) -> Seen {
        let before = self.cpu_time();
        let (requests, seconds, latency) = match self.framework {
            Framework::Tonic => self.h2load(time, token, folder),
            Framework::Axum | Framework::Hyper => self.wrk(time, folder),
        };
        let cpu = (self.cpu_time() - before).as_secs_f64() * 1e6 / requests;
        Seen { requests: requests / seconds, latency, cpu }
    }

    fn wrk(&self, time: Duration, folder: &Path) -> (f64, f64, [f64; 3]) {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &format!("-d{}s", time.as_secs().max(1)), "-s"]);
        wrk.arg(folder.join("script.lua")).arg(format!("http://127.0.0.1:{}/", self.port));
        wrk.arg("--").arg(folder.join("tokens"));
        let output = wrk.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
        let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [requests, duration, p50, p99, p999, errors] = numbers[..] else { panic!("six numbers, not {line}") };
        assert_eq!(errors, 0.0, "requests failed: {text}");
        (requests, duration / 1e6, [p50, p99, p999])
    }

    fn h2load(&self, time: Duration, token: &str, folder: &Path) -> (f64, f64, [f64; 3]) {
        let log = folder.join("requests.log");
        let _ = fs::remove_file(&log);
        let requests = (time.as_millis() as usize * 20).max(2000);
        let mut h2load = Command::new("h2load");
        h2load.args(["-t1", "-c8", "-m4", &format!("-n{requests}"), "-H", "content-type: application/grpc"]);
        h2load.args(["-H", "te: trailers", "-H", &format!("authorization: Bearer {token}")]);
        h2load.arg("--data").arg(folder.join("frame")).arg("--log-file").arg(&log);
        h2load.arg(format!("http://127.0.0.1:{}{GRPC_METHOD}", self.port));
        let output = h2load.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("{requests} succeeded, 0 failed, 0 errored")), "{text}");
        // When it began, in microseconds since the epoch; the status; how long it took in microseconds.
        let lines = fs::read_to_string(&log).unwrap();
        let lines: Vec<Vec<f64>> = lines
            .lines()
            .map(|line| line.split('\t').take(3).map(|number| number.parse().unwrap()).collect())
            .collect();
        assert_eq!(lines.len(), requests, "a line for each request");
        let mut taken: Vec<f64> = lines.iter().map(|line| line[2]).collect();
        taken.sort_by(f64::total_cmp);
        let began = lines.iter().map(|line| line[0]).fold(f64::INFINITY, f64::min);
        let ended = lines.iter().map(|line| line[0] + line[2]).fold(0.0, f64::max);
        let at = |share: f64| taken[((taken.len() - 1) as f64 * share) as usize];
        (requests as f64, (ended - began) / 1e6, [at(0.5), at(0.99), at(0.999)])
    }

    /// On a processor, all its threads together.
    fn cpu_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanoseconds = |task: fs::DirEntry| -> u64 {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        Duration::from_nanos(tasks.map(|task| nanoseconds(task.unwrap())).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// tonic's answer to a refused request is 200 with a status in its head; to a good one the status comes last.
async fn passes_grpc(address: SocketAddr, token: &str) -> bool {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://{address}{GRPC_METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"));
    let response = sender.send_request(request.body(Full::new(Bytes::from_static(&[0; 5]))).unwrap()).await.unwrap();
    connection.abort();
    match response.headers().get("grpc-status").map(|status| status.as_bytes()) {
        None => true,
        Some(b"16") => false,
        Some(other) => panic!("neither passed nor UNAUTHENTICATED: {}", String::from_utf8_lossy(other)),
    }
}

fn serve(framework: Framework, variant: Variant, revocations: usize) {
    // Ends with its parent.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let layer = match variant {
        Variant::Bare | Variant::BareAgain => None,
        Variant::Hot => Some(Verify::new(verifier())),
        Variant::EachTime => Some(Verify::new(verifier()).cache(TokenCacheConfig::max_bytes(0))),
    };
    let layer = layer.map(|source| RevocationLayer::new(denylist(revocations), source).deny_with(Bare));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        match framework {
            Framework::Axum => {
                let router = axum::Router::new().route("/", axum::routing::get(async || "hello\n"));
                let router = match layer {
                    None => router,
                    Some(layer) => router.layer(layer),
                };
                axum::serve(listener, router).await.unwrap();
            }
            Framework::Hyper => match layer {
                None => serve_hyper(listener, service_fn(hello)).await,
                Some(layer) => serve_hyper(listener, layer.layer(service_fn(hello))).await,
            },
            Framework::Tonic => {
                let (reporter, health) = tonic_health::server::health_reporter();
                reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
                let incoming = TcpListenerStream::new(listener);
                let server = tonic::transport::Server::builder();
                let served = match layer {
                    None => {
                        server
                            .layer(tower::layer::util::Identity::new())
                            .add_service(health)
                            .serve_with_incoming(incoming)
                            .await
                    }
                    Some(layer) => server.layer(layer).add_service(health).serve_with_incoming(incoming).await,
                };
                served.unwrap();
            }
        }
    });
}

async fn serve_hyper<S>(listener: TcpListener, service: S)
where
    S: tower::Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let service = TowerToHyperService::new(service);
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello\n")))
}

fn denylist(revocations: usize) -> Arc<Denylist> {
    let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(24 * 3600)));
    config.budget = revocations + 1;
    let list = Denylist::new(config);
    let now = list.now();
    list.in_step_at(now);
    let change = |jti: String| {
        let record =
            Revocation::new(Scope::token(ISSUER, jti)).into_record(list.hasher(), list.lifetimes(), now.unix());
        Change::Revoke(record)
    };
    list.apply(&[change(REVOKED.to_owned())]);
    for page in 0..revocations / 1000 {
        let page: Vec<_> = (page * 1000..(page + 1) * 1000).map(|n| change(format!("other-{n}"))).collect();
        list.apply(&page);
    }
    list.maintain();
    Arc::new(list)
}

fn verifier() -> JwtVerifier {
    let keys = Keys::jwks(std::env::var(JWKS).unwrap());
    let issuer = Issuer::new(ISSUER).audience([AUDIENCE]).algorithms([Algorithm::RS256]).keys(keys);
    JwtVerifier::builder().issuer(issuer).build().unwrap()
}

struct IssuerKey(RsaKeyPair);

impl IssuerKey {
    fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn jwks(&self) -> String {
        let key = self.0.public_key();
        let (n, e) = (key.modulus(), key.exponent());
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        serde_json::json!({"keys": [{
            "kty": "RSA", "n": part(n.big_endian_without_leading_zero()), "e": part(e.big_endian_without_leading_zero()),
        }]})
        .to_string()
    }

    /// A token of about 880 bytes with seven claims, as RS256 tokens are in practice.
    fn token(&self, jti: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "app", "sid": "session-4711", "jti": jti,
            "iat": now, "exp": now + 3600, "scope": "x".repeat(100),
        });
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let input = format!("{}.{}", part(r#"{"alg":"RS256","typ":"at+jwt"}"#), part(&claims.to_string()));
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
