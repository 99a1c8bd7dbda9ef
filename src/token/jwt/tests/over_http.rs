//! Key sets over HTTP: from a server of the test's own, or, where time matters, from a fetcher under a paused clock.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, AtomicUsize},
};

use ::http::{Request, Response, StatusCode, header::LOCATION};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, time::Instant};

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// What the server says.
#[derive(Clone)]
enum Answer {
    Keys(Vec<Value>),
    Document(String),
    Status(StatusCode),
    /// To `/elsewhere`, which has keys.
    Redirect,
    /// More than anybody should read, and no length.
    Endless,
    Silence,
}

struct Server {
    url: String,
    answer: Mutex<Answer>,
    requests: AtomicUsize,
    elsewhere: AtomicUsize,
    /// Connections are closed at once.
    down: AtomicBool,
}

impl Server {
    async fn start(answer: Answer) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            url: format!("http://{}/jwks", listener.local_addr().unwrap()),
            answer: Mutex::new(answer),
            requests: AtomicUsize::new(0),
            elsewhere: AtomicUsize::new(0),
            down: AtomicBool::new(false),
        });
        let this = Arc::clone(&server);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if this.down.load(Ordering::SeqCst) {
                    this.requests.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let this = Arc::clone(&this);
                let service = service_fn(move |request| {
                    let this = Arc::clone(&this);
                    async move { this.serve(&request).await }
                });
                let http1 = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http1.serve_connection(TokioIo::new(stream), service));
            }
        });
        server
    }

    async fn serve(
        &self,
        request: &Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
        let full = |text: String| Full::from(text).boxed_unsync();
        if request.uri().path() != "/jwks" {
            self.elsewhere.fetch_add(1, Ordering::SeqCst);
            return Ok(Response::new(full(jwks(&[RSA.jwk()]))));
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        let mut response = Response::new(full(String::new()));
        match answer {
            Answer::Keys(keys) => *response.body_mut() = full(jwks(&keys)),
            Answer::Document(text) => *response.body_mut() = full(text),
            Answer::Status(status) => *response.status_mut() = status,
            Answer::Redirect => {
                *response.status_mut() = StatusCode::FOUND;
                response.headers_mut().insert(LOCATION, "/elsewhere".parse().unwrap());
            }
            Answer::Endless => {
                let chunks = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b' '; 65536]))));
                *response.body_mut() = StreamBody::new(chunks).boxed_unsync();
            }
            Answer::Silence => std::future::pending().await,
        }
        Ok(response)
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Keys from here, fetched again as soon as a token names one that is unknown.
    fn jwks_url(&self) -> JwksUrl {
        JwksUrl::new(&self.url).allow_http().min_interval(Duration::ZERO)
    }
}

fn rsa(kid: &str) -> Value {
    RSA.jwk_with(json!({ "kid": kid }))
}

fn token(kid: &str) -> String {
    RSA.header(json!({ "kid": kid }))
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !met() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The failure that `ready` reports once there is one.
async fn failure(verifier: &JwtVerifier) -> FetchErrorKind {
    let deadline = Instant::now() + LIMIT;
    loop {
        let error = verifier.ready(Duration::from_millis(20)).await.unwrap_err();
        if *error.kind() != FetchErrorKind::Timeout {
            return error.kind().clone();
        }
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn rotation_is_picked_up() {
    let server = Server::start(Answer::Keys(vec![rsa("1")])).await;
    let verifier = build(issuer().keys(server.jwks_url())).unwrap();
    verifier.ready(LIMIT).await.unwrap();
    assert_eq!(judge(&verifier, &token("1")), Ok(()));
    // A bad signature under a known kid is no cause to fetch.
    let (before, epoch) = (server.requests(), verifier.epoch());
    let forged = RSA2.header(json!({"kid": "1"}));
    assert_eq!(judge(&verifier, &forged), Err(VerifyError::Signature));
    assert_eq!(server.requests(), before);

    server.set(Answer::Keys(vec![RSA2.jwk_with(json!({"kid": "2"}))]));
    let second = RSA2.header(json!({"kid": "2"}));
    assert_eq!(judge(&verifier, &second), Err(VerifyError::KeyNotAvailable));
    until("the second key", || judge(&verifier, &second) == Ok(())).await;
    assert!(verifier.epoch() > epoch);
    // The first has been withdrawn.
    assert_ne!(judge(&verifier, &token("1")), Ok(()));
}

/// A key that comes from neither is looked for in both.
#[tokio::test]
async fn two_urls() {
    let (first, second) =
        (Server::start(Answer::Keys(vec![rsa("1")])).await, Server::start(Answer::Keys(vec![])).await);
    let verifier = build(issuer().keys(first.jwks_url()).keys(second.jwks_url())).unwrap();
    verifier.ready(LIMIT).await.unwrap();
    second.set(Answer::Keys(vec![rsa("2")]));
    assert_eq!(judge(&verifier, &token("2")), Err(VerifyError::KeyNotAvailable));
    until("the key of the second", || judge(&verifier, &token("2")) == Ok(())).await;
    // What the first has is not looked for in the second.
    assert_eq!(judge(&verifier, &RSA2.header(json!({"kid": "1"}))), Err(VerifyError::Signature));
}

#[tokio::test]
async fn an_empty_set_withdraws_all_keys() {
    let server = Server::start(Answer::Keys(vec![rsa("1")])).await;
    let verifier = build(issuer().keys(server.jwks_url())).unwrap();
    verifier.ready(LIMIT).await.unwrap();
    server.set(Answer::Keys(Vec::new()));
    assert_eq!(judge(&verifier, &token("x")), Err(VerifyError::KeyNotAvailable));
    until("no keys", || judge(&verifier, &token("1")) != Ok(())).await;
}

/// Nobody can make a secret ours by publishing it.
#[tokio::test]
async fn published_secrets_are_no_keys() {
    let both = [Signer::Hmac(vec![1; 32]).jwk(), rsa("1")];
    assert!(
        KeySet::jwks(jwks(&both).as_bytes()).unwrap().public()
            == KeySet::jwks(rsa("1").to_string().as_bytes()).unwrap()
    );
    let server = Server::start(Answer::Keys(both.to_vec())).await;
    let verifier = build(issuer().keys(server.jwks_url())).unwrap();
    verifier.ready(LIMIT).await.unwrap();
    assert_eq!(judge(&verifier, &token("1")), Ok(()));
    let error = build(issuer().algorithms([Algorithm::HS256]).keys(server.jwks_url())).unwrap_err();
    assert_eq!(error, JwtConfigError::SecretsByUrl { iss: ISS.into() });
}

#[tokio::test]
async fn old_keys_stay_while_the_server_fails() {
    let server = Server::start(Answer::Keys(vec![rsa("1")])).await;
    let verifier = build(issuer().keys(server.jwks_url())).unwrap();
    verifier.ready(LIMIT).await.unwrap();
    let epoch = verifier.epoch();
    for answer in [
        Answer::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Answer::Document("{".into()),
        Answer::Document(r#"{"keys":[],"keys":[]}"#.into()),
        Answer::Redirect,
        Answer::Endless,
    ] {
        server.set(answer);
        let before = server.requests();
        until("another fetch", || {
            assert_eq!(judge(&verifier, &token("unknown")), Err(VerifyError::KeyNotAvailable));
            server.requests() > before
        })
        .await;
        assert_eq!((judge(&verifier, &token("1")), verifier.epoch()), (Ok(()), epoch));
    }
    assert_eq!(server.elsewhere.load(Ordering::SeqCst), 0);
    server.down.store(true, Ordering::SeqCst);
    let before = server.requests();
    until("another fetch", || {
        let _ = judge(&verifier, &token("unknown"));
        server.requests() > before
    })
    .await;
    assert_eq!((judge(&verifier, &token("1")), verifier.epoch()), (Ok(()), epoch));
    // And it recovers.
    server.down.store(false, Ordering::SeqCst);
    server.set(Answer::Keys(vec![rsa("2")]));
    until("the next key", || judge(&verifier, &token("2")) == Ok(())).await;
}

#[tokio::test]
async fn refused_documents() {
    let content = FetchErrorKind::Content(KeyError::Jwks);
    let cases = [
        (Answer::Redirect, FetchErrorKind::Status(302)),
        (Answer::Status(StatusCode::NOT_FOUND), FetchErrorKind::Status(404)),
        (Answer::Status(StatusCode::NO_CONTENT), FetchErrorKind::Status(204)),
        (Answer::Endless, FetchErrorKind::TooLarge),
        (Answer::Document(" ".repeat(2 << 20)), FetchErrorKind::TooLarge),
        (Answer::Document("<html>".into()), content.clone()),
        (Answer::Document("[]".into()), content),
    ];
    for (answer, kind) in cases {
        let server = Server::start(answer).await;
        let verifier = build(issuer().keys(server.jwks_url())).unwrap();
        assert_eq!(judge(&verifier, &token("1")), Err(VerifyError::KeyNotAvailable));
        assert_eq!(failure(&verifier).await, kind);
        assert_eq!(judge(&verifier, &token("1")), Err(VerifyError::KeyNotAvailable));
        assert_eq!(server.elsewhere.load(Ordering::SeqCst), 0);
    }
    let server = Server::start(Answer::Silence).await;
    let verifier = build(issuer().keys(server.jwks_url().timeout(Duration::from_millis(50)))).unwrap();
    let error = verifier.ready(Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((error.kind(), error.url()), (&FetchErrorKind::Timeout, server.url.as_str()));
    server.down.store(true, Ordering::SeqCst);
    let verifier = build(issuer().keys(server.jwks_url())).unwrap();
    assert!(matches!(failure(&verifier).await, FetchErrorKind::Connection(_)));
}

#[tokio::test]
async fn urls() {
    let kind = |url: JwksUrl| match build(issuer().keys(url)).unwrap_err() {
        JwtConfigError::Fetch { source, .. } => source,
        error => panic!("{error}"),
    };
    let error = kind(JwksUrl::new("http://issuer.example/jwks?key=s3cret"));
    assert_eq!(error.kind(), &FetchErrorKind::NotHttps);
    assert!(!error.to_string().contains("s3cret"));
    let error = kind(JwksUrl::new("https://user:s3cret@issuer.example/jwks"));
    assert_eq!(error.kind(), &FetchErrorKind::Url);
    assert!(!error.to_string().contains("s3cret"));
    assert_eq!(kind(JwksUrl::new("ftp://issuer.example/").allow_http()).kind(), &FetchErrorKind::NotHttps);
    for url in ["", "/jwks", "https://", "https:///jwks", "no url"] {
        assert_eq!(kind(JwksUrl::new(url)).kind(), &FetchErrorKind::Url, "{url}");
    }
    let server = Server::start(Answer::Keys(vec![rsa("1")])).await;
    if let Ok(fetch) = HttpFetch::new() {
        let error = fetch.get(&server.url).await.unwrap_err();
        assert_eq!((error.kind(), server.requests()), (&FetchErrorKind::NotHttps, 0));
    }
    let printed = format!("{:?}", issuer().keys(Keys::jwks_url("https://a:s3cret@b/c?d=s3cret#s3cret")));
    assert!(printed.contains("https://b/c") && !printed.contains("s3cret"), "{printed}");
}

#[test]
fn a_url_needs_a_runtime() {
    let error = build(issuer().keys(Keys::jwks_url("https://issuer.example/"))).unwrap_err();
    assert_eq!(error, JwtConfigError::NoRuntime { iss: ISS.into() });
}

#[tokio::test]
async fn replacing_keeps_what_was_fetched() {
    let server = Server::start(Answer::Keys(vec![rsa("1")])).await;
    let verifier = build(issuer().keys(server.jwks_url())).unwrap();
    verifier.ready(LIMIT).await.unwrap();
    server.set(Answer::Silence);
    verifier.replace(JwtVerifier::builder().issuer(issuer().keys(server.jwks_url()))).unwrap();
    assert_eq!(judge(&verifier, &token("1")), Ok(()));
    // But another issuer has no share in it.
    let other = Issuer::new("https://other/").any_audience().algorithms([Algorithm::RS256]).keys(server.jwks_url());
    verifier.replace(JwtVerifier::builder().issuer(other)).unwrap();
    assert_eq!(judge(&verifier, &token("1")), Err(VerifyError::UnknownIssuer));
    let of_other =
        RSA.token(Algorithm::RS256, json!({"kid": "1"}), with(claims_ok(), json!({"iss": "https://other/"})));
    assert_eq!(judge(&verifier, &of_other), Err(VerifyError::KeyNotAvailable));
}

/// Answers from memory and counts.
#[derive(Clone, Default)]
struct Memory {
    fetches: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
    keys: Arc<Mutex<Vec<Value>>>,
}

impl Memory {
    fn with(keys: Vec<Value>) -> Self {
        Self { keys: Arc::new(Mutex::new(keys)), ..Self::default() }
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn jwks_url(&self) -> JwksUrl {
        JwksUrl::new("https://issuer.example/jwks").fetch_with(self.clone())
    }
}

impl Fetch for Memory {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.fails.load(Ordering::SeqCst) {
                return Err(FetchError::new(url, FetchErrorKind::Status(500)));
            }
            Ok(jwks(&self.keys.lock().unwrap()).into())
        })
    }
}

/// However many tokens name keys that do not exist, fetches stay 10 seconds apart.
#[tokio::test(start_paused = true)]
async fn garbage_kids_cause_few_fetches() {
    let memory = Memory::with(vec![rsa("1")]);
    let verifier = build(issuer().keys(memory.jwks_url().refresh_every(Duration::from_secs(3600)))).unwrap();
    assert_eq!(judge(&verifier, &token("1")), Err(VerifyError::KeyNotAvailable));
    verifier.ready(LIMIT).await.unwrap();
    assert_eq!(memory.fetches(), 1);
    let input = token("1");
    let (_, rest) = input.split_once('.').unwrap();
    let garbage = |n: u32| {
        let header = json!({"alg": "RS256", "kid": format!("garbage-{n}")}).to_string();
        format!("{}.{rest}", b64(header.as_bytes()))
    };
    let (began, mut verdicts) = (Instant::now(), [0, 0]);
    for n in 0..4000 {
        match judge(&verifier, &garbage(n)).unwrap_err() {
            VerifyError::KeyNotAvailable => verdicts[0] += 1,
            VerifyError::Signature => verdicts[1] += 1,
            error => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
        assert_eq!(judge(&verifier, &token("1")), Ok(()));
    }
    let most = 1 + began.elapsed().as_secs() as usize / 10;
    assert!((9..=most).contains(&memory.fetches()), "{} of {most}", memory.fetches());
    // One that is refused is told so: fetching again would be too soon.
    assert!(verdicts[1] > 50 * verdicts[0], "{verdicts:?}");
    assert_eq!(verifier.epoch(), 1);
}

/// Nor do they make a server that is in trouble be asked more often.
#[tokio::test(start_paused = true)]
async fn garbage_kids_cause_few_fetches_while_they_fail() {
    let memory = Memory::default();
    memory.fails.store(true, Ordering::SeqCst);
    let verifier = build(issuer().keys(memory.jwks_url())).unwrap();
    let token = token("1");
    for _ in 0..4000 {
        assert_eq!(judge(&verifier, &token), Err(VerifyError::KeyNotAvailable));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    // In 100 seconds: at 0, 1, 3, 7, 15 and then every 10.
    assert!((8..=15).contains(&memory.fetches()), "{}", memory.fetches());
}

#[tokio::test(start_paused = true)]
async fn refreshes_without_cause_and_backs_off() {
    let memory = Memory::with(vec![rsa("1")]);
    let verifier = build(issuer().keys(memory.jwks_url())).unwrap();
    // Asked for while it is being fetched, a key is no cause to fetch once more.
    assert_eq!(judge(&verifier, &token("1")), Err(VerifyError::KeyNotAvailable));
    verifier.ready(LIMIT).await.unwrap();
    tokio::time::sleep(Duration::from_secs(250)).await;
    assert_eq!(memory.fetches(), 1);
    *memory.keys.lock().unwrap() = vec![rsa("2")];
    tokio::time::sleep(Duration::from_secs(51)).await;
    assert_eq!((memory.fetches(), judge(&verifier, &token("2"))), (2, Ok(())));

    memory.fails.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let before = memory.fetches();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    // At most 60 seconds apart by then, and not much closer.
    assert!((55..=70).contains(&(memory.fetches() - before)), "{}", memory.fetches() - before);
    assert_eq!(judge(&verifier, &token("2")), Ok(()));
    memory.fails.store(false, Ordering::SeqCst);
    *memory.keys.lock().unwrap() = vec![rsa("3")];
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(judge(&verifier, &token("3")), Ok(()));

    // Nobody fetches for a verifier that is gone.
    drop(verifier);
    let before = memory.fetches();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(memory.fetches(), before);
    assert_eq!(Arc::strong_count(&memory.fetches), 1, "the task holds the fetcher");
}

#[test]
fn back_off_grows() {
    let (second, most) = (Duration::from_secs(1), Duration::from_secs(60));
    for failures in 1..100 {
        let pause = refresh::back_off(failures);
        let least = (second * 2_u32.pow((failures - 1).min(6))).min(most);
        assert!((least..=most).contains(&pause) && pause <= least * 3 / 2, "{failures}: {pause:?}");
    }
}

/// Everything above has run without; nothing here may have installed one.
#[test]
fn the_process_wide_provider_is_left_alone() {
    let verifier = rsa_verifier();
    assert_eq!(judge(&verifier, &RSA.header(json!({}))), Ok(()));
    HttpFetch::allowing_http().unwrap();
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}
