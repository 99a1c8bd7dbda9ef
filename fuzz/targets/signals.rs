//! Logout tokens and security event tokens: the input is the claims of both, which are signed here, so that what is behind
//! the signature is reached.

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::Full;
use tower_revocation::{
    Guard, Revocations,
    backend::Memory,
    denylist::Staleness,
    directory::ClaimsOnly,
    endpoint::{BackchannelLogoutEndpoint, Endpoints, EventsEndpoint, Responder, Transmitter},
    policy::Policy,
    sync::SyncConfig,
    token::{Algorithm, Issuer, Keys, Peek, VerifierBehind},
};

const ISS: &str = "https://issuer.example/";
const SECRET: &[u8] = b"a secret of the fuzzer, thirty-two bytes or more";

struct Site {
    runtime: tokio::runtime::Runtime,
    responder: Responder,
    revocations: Revocations,
}

static SITE: LazyLock<Option<Site>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let (responder, revocations) = runtime.block_on(async {
        let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(600)));
        config.denylist.budget = 1_000_000;
        let revocations = Revocations::start(Memory::new(), config).await.ok()?;
        let issuer = || Issuer::new(ISS).algorithms([Algorithm::HS256]).keys(Keys::secret(SECRET));
        let logout = BackchannelLogoutEndpoint::new(["rp"], [issuer()]).ok()?.max_lifetime(Duration::MAX);
        let events = EventsEndpoint::new(["rp"], [Transmitter::new(issuer())], ClaimsOnly).ok()?;
        let endpoints = Endpoints::new(revocations.clone()).backchannel_logout(logout).events(events);
        let source = Peek::new(VerifierBehind::i_promise()).issuer(ISS);
        let guard = Guard::new(revocations.denylist().clone(), source, Policy::default());
        Some((Responder::new(&guard, endpoints).ok()?, revocations))
    })?;
    Some(Site { runtime, responder, revocations })
});

fn signed(typ: &str, claims: &[u8]) -> String {
    let header = format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#);
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The status of the answer, and whether anything was recorded for it.
fn post(path: &str, media: &str, body: String) -> Option<(u16, bool)> {
    let site = SITE.as_ref()?;
    site.runtime.block_on(async {
        let request =
            http::Request::post(path).header("content-type", media).body(Full::new(Bytes::from(body))).ok()?;
        let before = site.revocations.denylist().records();
        let answer = site.responder.respond(request).await?;
        Some((answer.status().as_u16(), site.revocations.denylist().records() > before))
    })
}

/// Whether the claims name the one event of a logout token, as another reader sees it.
pub fn logout_token(claims: &[u8]) {
    let body = format!("logout_token={}", signed("logout+jwt", claims));
    let Some((status, recorded)) = post("/backchannel_logout", "application/x-www-form-urlencoded", body) else {
        return;
    };
    assert!([200, 400, 413, 503].contains(&status), "{status}");
    assert!(!recorded || status == 200, "{status}");
    if status == 200 {
        let json: serde_json::Value = serde_json::from_slice(claims).unwrap_or_default();
        assert!(json["nonce"].is_null() && json["events"].is_object() && json["iss"] == ISS);
        assert!(json["sid"].is_string() || json["sub"].is_string());
    }
}

/// The same for a security event token.
pub fn security_event(claims: &[u8]) {
    let Some((status, recorded)) = post("/events", "application/secevent+jwt", signed("secevent+jwt", claims)) else {
        return;
    };
    assert!([202, 400, 413, 429, 503].contains(&status), "{status}");
    assert!(!recorded || status == 202, "{status}");
    if status == 202 {
        let json: serde_json::Value = serde_json::from_slice(claims).unwrap_or_default();
        assert!(json.get("sub").is_none() && json.get("exp").is_none() && json["iss"] == ISS);
        assert_eq!(json["events"].as_object().map(|events| events.len()), Some(1));
    }
}
