//! Signed snapshots: an untrusted channel can neither add to them, nor bring a token back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use common::{ISSUER, unix};
use serde_json::{Value, json};
use tower_revocation::{
    Revocations,
    denylist::Verdict,
    revocation::{Cutoff, Revocation, Scope},
    sync::{Imported, SnapshotError, SnapshotVerifier},
    token::{Algorithm, Claims, Identity, Issuer, Keys, SigningKey, VerifyError},
};

const SITE: &str = "https://site-a.example/";
const OTHER: &str = "https://other.example/";

/// RFC 8037 §A.1.
fn key() -> SigningKey {
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    SigningKey::jwk(jwk).unwrap()
}

fn verifier() -> SnapshotVerifier {
    let publisher = Issuer::new(SITE).algorithms([Algorithm::EdDSA]).keys(Keys::jwks(key().public_jwk()));
    SnapshotVerifier::new(publisher, [ISSUER]).unwrap()
}

fn refused(node: &Revocations, sub: &str, jti: &str) -> bool {
    let claims = Claims::new(ISSUER).sub(sub).jti(jti).iat(unix() - 60).exp(unix() + 600);
    matches!(node.denylist().check(&Identity::from_verified(&claims)), Verdict::Deny(_))
}

/// A snapshot of `count` revocations that says it was made at `iat`.
fn signed(iat: u64, entries: Value) -> String {
    key()
        .sign("revocation-list+jwt", json!({"iss": SITE, "iat": iat, "revocations": entries}).to_string().as_bytes())
        .unwrap()
}

fn entry(sub: &str) -> Value {
    json!({
        "id": format!("{:016x}", sub.len()), "cutoff": unix() - 5, "retain_until": unix() + 600,
        "scope": {"kind": "subject", "iss": ISSUER, "sub": sub},
    })
}

#[tokio::test]
async fn what_is_exported_is_enforced_where_it_is_imported() {
    let (ours, theirs) = (common::revocations().await, common::revocations().await);
    let all = [
        Revocation::new(Scope::subject(ISSUER, "alice")).reason("stolen").revoked_by("helpdesk"),
        Revocation::ban(Scope::subject(ISSUER, "mallory")),
        Revocation::new(Scope::token(ISSUER, "t")).token_expires(unix() + 600),
        Revocation::new(Scope::session(ISSUER, "s")),
        Revocation::new(Scope::client_session(ISSUER, "s", "c")),
        Revocation::new(Scope::subject_client(ISSUER, "bob", "c")),
        Revocation::new(Scope::client(ISSUER, "c")),
        Revocation::new(Scope::signing_input(ISSUER, [7; 32])),
    ];
    let ids = ours.revoke_all(all).await.unwrap();
    ours.lift(&Scope::session(ISSUER, "s"), &[ids[3]], "helpdesk").await.unwrap();
    let snapshot = ours.export_signed(SITE, &key()).await.unwrap();
    assert_eq!((snapshot.revocations, snapshot.left_out), (7, 0));
    let again = ours.export_signed(SITE, &key()).await.unwrap();
    let list = |jws: &str| {
        let payload = URL_SAFE_NO_PAD.decode(jws.split('.').nth(1).unwrap()).unwrap();
        serde_json::from_slice::<Value>(&payload).unwrap()["revocations"].clone()
    };
    assert_eq!(list(&snapshot.jws), list(&again.jws), "sorted");

    let imported = theirs.import_signed(&snapshot.jws, &verifier()).await.unwrap();
    assert_eq!((imported.read, imported.recorded), (7, 7));
    assert!(refused(&theirs, "alice", "x") && refused(&theirs, "mallory", "x") && refused(&theirs, "x", "t"));
    assert!(!refused(&theirs, "carol", "x"));
    // Once more adds nothing.
    let Imported { read, recorded, .. } = theirs.import_signed(&snapshot.jws, &verifier()).await.unwrap();
    assert_eq!((read, recorded), (7, 0));
    // What was lifted there since stays lifted.
    theirs.lift(&Scope::subject(ISSUER, "alice"), &[ids[0]], "helpdesk").await.unwrap();
    assert!(!refused(&theirs, "alice", "x"));
    theirs.import_signed(&snapshot.jws, &verifier()).await.unwrap();
    assert!(!refused(&theirs, "alice", "x"));
}

#[tokio::test]
async fn rule_25_an_import_adds_and_the_newest_wins() {
    let node = common::revocations().await;
    let now = unix();
    node.import_signed(&signed(now - 10, json!([entry("alice")])), &verifier()).await.unwrap();
    assert!(refused(&node, "alice", "x"));
    // A newer one that lacks it brings nobody back.
    node.import_signed(&signed(now - 5, json!([entry("bobby!")])), &verifier()).await.unwrap();
    assert!(refused(&node, "alice", "x") && refused(&node, "bobby!", "x"));
    // An older one is refused, and adds nothing.
    for iat in [now - 10, now - 6] {
        let old = node.import_signed(&signed(iat, json!([entry("carol-ann")])), &verifier()).await;
        assert!(matches!(old, Err(SnapshotError::RolledBack { iat: of }) if of == iat), "{old:?}");
        assert!(!refused(&node, "carol-ann", "x"));
    }
    // By a backend that all nodes share: the newest is known to whoever starts later.
    let neighbour = Revocations::start(node.backend().clone(), common::config()).await.unwrap();
    let old = neighbour.import_signed(&signed(now - 7, json!([])), &verifier()).await;
    assert!(matches!(old, Err(SnapshotError::RolledBack { .. })), "{old:?}");
    let ancient = node.import_signed(&signed(now - 40 * 24 * 3600, json!([])), &verifier()).await;
    assert!(matches!(ancient, Err(SnapshotError::TooOld { .. })), "{ancient:?}");
    let future = node.import_signed(&signed(now + 1000, json!([])), &verifier()).await;
    assert!(matches!(future, Err(SnapshotError::Verify(VerifyError::NotYetValid))), "{future:?}");
}

#[tokio::test]
async fn what_is_not_authentic_or_not_whole_changes_nothing() {
    let node = common::revocations().await;
    let now = unix();
    let good = signed(now, json!([entry("alice")]));
    let mut flipped = good.clone().into_bytes();
    let middle = good.find('.').unwrap() + 30;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let other_type =
        key().sign("at+jwt", json!({"iss": SITE, "iat": now, "revocations": []}).to_string().as_bytes()).unwrap();
    let none = {
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"revocation-list+jwt"}"#);
        format!("{head}.{}.", good.split('.').nth(1).unwrap())
    };
    let hmac = {
        let head = r#"{"alg":"HS256","typ":"revocation-list+jwt"}"#;
        common::signed(head, &json!({"iss": SITE, "iat": now, "revocations": [entry("alice")]}).to_string())
    };
    let stranger =
        key().sign("revocation-list+jwt", json!({"iss": OTHER, "iat": now, "revocations": []}).to_string().as_bytes());
    for (row, bad) in [
        ("flipped", String::from_utf8(flipped).unwrap()),
        ("another type", other_type),
        ("alg none", none),
        ("alg HS256", hmac),
        ("a stranger", stranger.unwrap()),
        ("cut short", good[..good.len() - 10].to_owned()),
        ("nothing", String::new()),
    ] {
        let refusal = node.import_signed(&bad, &verifier()).await;
        assert!(matches!(refusal, Err(SnapshotError::Verify(_))), "{row}: {refusal:?}");
    }
    let with = |change: &dyn Fn(&mut Value)| {
        let mut bad = entry("alice");
        change(&mut bad);
        signed(now, json!([entry("bob"), bad]))
    };
    for (row, bad) in [
        ("no id", with(&|entry| drop(entry.as_object_mut().unwrap().remove("id")))),
        ("a member of another version", with(&|entry| entry["why"] = json!(1))),
        ("a wrong type", with(&|entry| entry["cutoff"] = json!("soon"))),
        ("the future", with(&|entry| entry["cutoff"] = json!(unix() + 10_000))),
        ("no scope", with(&|entry| entry["scope"] = json!(null))),
        ("a lift", with(&|entry| *entry = json!({"lift": ["00000000000000aa"], "scope": entry["scope"]}))),
    ] {
        let refusal = node.import_signed(&bad, &verifier()).await;
        assert!(matches!(refusal, Err(SnapshotError::Malformed { entry: Some(1) })), "{row}: {refusal:?}");
    }
    for bad in [
        json!({"iss": SITE, "revocations": []}),
        json!({"iss": SITE, "iat": now}),
        json!({"iss": SITE, "iat": now, "revocations": {}}),
    ] {
        let bad = key().sign("revocation-list+jwt", bad.to_string().as_bytes()).unwrap();
        assert!(matches!(node.import_signed(&bad, &verifier()).await, Err(SnapshotError::Malformed { entry: None })));
    }
    let foreign = with(&|entry| entry["scope"]["iss"] = json!(OTHER));
    assert!(matches!(node.import_signed(&foreign, &verifier()).await, Err(SnapshotError::Foreign)), "rule 14");
    let long = format!("{good}{}", "a".repeat(64 << 20));
    assert!(matches!(node.import_signed(&long, &verifier()).await, Err(SnapshotError::TooLarge)));
    assert_eq!(node.denylist().records(), 0);
    assert!(!refused(&node, "bob", "x"));
    let _ = node.revoke(Revocation::new(Scope::subject(ISSUER, "bob")).cutoff(Cutoff::at(now - 1))).await.unwrap();
    assert!(node.import_signed(&good, &verifier()).await.is_ok());
    assert!(refused(&node, "alice", "x"));
}
