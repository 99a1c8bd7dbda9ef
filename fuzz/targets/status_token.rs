//! What a verified token says of its status, and what a signed status list says: the input is the claims of both, which
//! are signed here, so that what is behind the signature is reached.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tower_revocation::{
    status_list::{StatusClaim, StatusLists},
    token::{Algorithm, Claims, Fetch, FetchError, Identity, Issuer, JwtVerifier, Keys, Verifier as _},
};

const ISS: &str = "https://issuer.example/";
const URI: &str = "https://issuer.example/statuslists/1";
const SECRET: &[u8] = b"a secret of the fuzzer, thirty-two bytes or more";
/// The moment that the seeds are of.
const NOW: u64 = 1_700_000_000;

static VERIFIER: LazyLock<Option<Arc<JwtVerifier>>> = LazyLock::new(|| {
    let issuer = Issuer::new(ISS).any_audience().algorithms([Algorithm::HS256]).keys(Keys::secret(SECRET));
    JwtVerifier::builder().issuer(issuer).build().ok().map(Arc::new)
});

static RUNTIME: LazyLock<Option<tokio::runtime::Runtime>> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().ok());

struct Answer(Bytes);

impl Fetch for Answer {
    fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        ready(Ok(self.0.clone())).boxed()
    }
}

fn signed(typ: &str, claims: &[u8]) -> String {
    let header = format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#);
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub fn run(data: &[u8]) {
    let (Some(verifier), Some(runtime)) = (&*VERIFIER, &*RUNTIME) else { return };
    if let Ok(identity) = verifier.verify(&signed("at+jwt", data), NOW)
        && let StatusClaim::List(reference) = identity.status()
    {
        assert!(!reference.uri.is_empty());
    }
    runtime.block_on(async {
        let answer = Answer(signed("statuslist+jwt", data).into());
        let lists = StatusLists::builder(Arc::clone(verifier)).max_list_bytes(64 << 10).fetch_with(answer).build();
        let Ok(lists) = lists else { return };
        let claims = Claims::new(ISS).iat(NOW).exp(NOW + 600);
        let passes = lists.check(&Identity::from_verified(&claims.status_list(URI, 0))).await.is_ok();
        let json: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
        // Only a list that names itself so makes a token pass.
        assert!(!passes || json["sub"] == URI);
        assert!(lists.counts().bytes <= 64 << 10);
    });
}
