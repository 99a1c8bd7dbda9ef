//! What a status list that is here adds to a request, in nanoseconds: with and without it in turns, so that both meet the
//! same machine.
//!
//! `cargo bench --bench status_list`
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use http::{Extensions, HeaderMap, Method, Uri, header};
use tower_revocation::{
    Guard, Revocations,
    backend::Memory,
    denylist::Staleness,
    policy::Policy,
    status_list::{Bits, Status, StatusList, StatusLists},
    sync::SyncConfig,
    token::{
        Algorithm, Claims, Fetch, FetchError, FromExtension, Identity, IdentitySource, Issuer, JwtVerifier, Keys,
        SigningKey, Verify,
    },
};

const ISS: &str = "https://issuer.example/";
const URI: &str = "https://issuer.example/statuslists/1";
const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
const ROUNDS: usize = 201;
const REQUESTS: u32 = 20_000;

/// Answers with a list of a million tokens, one in a thousand of them revoked.
struct AtHand(String);

impl Fetch for AtHand {
    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        ready(Ok(Bytes::from(self.0.clone()))).boxed()
    }
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let key = SigningKey::jwk(KEY).unwrap();
        let issuer = Issuer::new(ISS).any_audience().algorithms([Algorithm::EdDSA]).keys(Keys::jwks(key.public_jwk()));
        let verifier = Arc::new(JwtVerifier::builder().issuer(issuer).build().unwrap());
        let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(3600)));
        let revocations = Revocations::start(Memory::new(), config).await.unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();

        let mut list = StatusList::all_valid(Bits::ONE, 1 << 20);
        (0..1 << 20).step_by(1000).for_each(|idx| list.set(idx, Status::INVALID).unwrap());
        let claims = serde_json::json!({
            "iss": ISS, "sub": URI, "iat": now, "exp": now + 3600, "ttl": 3600,
            "status_list": {"bits": 1, "lst": list.compress()},
        });
        let fetch = AtHand(key.sign("statuslist+jwt", claims.to_string().as_bytes()).unwrap());
        let lists = StatusLists::builder(Arc::clone(&verifier)).fetch_with(fetch).build().unwrap();
        let pointing = Claims::new(ISS).jti("7f2c").sub("alice").sid("s").client_id("app");
        let pointing = Identity::with_keys(
            &pointing.iat(now).exp(now + 600).status_list(URI, 4711),
            revocations.denylist().hasher(),
        );
        lists.check(&pointing).await.expect("the list is here");

        let token = serde_json::json!({
            "iss": ISS, "aud": "x", "jti": "7f2c", "sub": "alice", "sid": "s", "client_id": "app", "iat": now, "exp": now + 600,
            "status": {"status_list": {"uri": URI, "idx": 4711}},
        });
        let token = key.sign("at+jwt", token.to_string().as_bytes()).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        let mut extensions = Extensions::new();
        extensions.insert(pointing);

        let denylist = revocations.denylist();
        let guard = |with: bool| {
            let guard = Guard::new(Arc::clone(denylist), Verify::new(Arc::clone(&verifier)), Policy::default());
            if with { guard.status_lists(lists.clone()) } else { guard }
        };
        report("hot token", &guard(false), &guard(true), &headers, &Extensions::new());
        let guard = |with: bool| {
            let guard = Guard::new(Arc::clone(denylist), FromExtension::<Identity>::new(), Policy::default());
            if with { guard.status_lists(lists.clone()) } else { guard }
        };
        report("identity with keys", &guard(false), &guard(true), &HeaderMap::new(), &extensions);
    });
}

fn report<I: IdentitySource>(
    name: &str,
    bare: &Guard<I>,
    with: &Guard<I>,
    headers: &HeaderMap,
    extensions: &Extensions,
) {
    let uri = Uri::from_static("/");
    let time = |guard: &Guard<I>| {
        let began = Instant::now();
        for _ in 0..REQUESTS {
            let _ = black_box(guard.check(&Method::GET, &uri, black_box(headers), extensions)).expect("it passes");
        }
        began.elapsed().as_nanos() as f64 / f64::from(REQUESTS)
    };
    let mut pairs: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (time(bare), time(with))).collect();
    let median = |of: &dyn Fn(&(f64, f64)) -> f64, pairs: &mut Vec<(f64, f64)>| {
        pairs.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&pairs[pairs.len() / 2])
    };
    let (without, with) = (median(&|pair| pair.0, &mut pairs), median(&|pair| pair.1, &mut pairs));
    let more = median(&|pair| pair.1 - pair.0, &mut pairs);
    println!("{name}: {without:.1} ns without, {with:.1} ns with a status list; {more:+.1} ns");
}
