//! Tokens that a thread keeps at hand: whatever else changes, keeping them changes no verdict.
#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Request, header};
use tower_revocation::{
    Guard,
    denylist::{Denylist, DenylistConfig, Reason, Staleness},
    policy::Policy,
    reject::Rejection,
    revocation::{Change, Revocation, Scope, ScopeKind},
    time::ManualClock,
    token::{
        Algorithm, Claims, Identity, IdentitySource, Issuer, JwtVerifier, JwtVerifierBuilder, Keys, TokenCacheConfig,
        Verifier, Verify, VerifyError,
    },
};

const ISS: &str = "https://issuer.example/";
const NOW: u64 = 1_800_000_000;

/// Takes what stands before the first dot for the `jti`, until told to refuse; counts how often it is asked.
#[derive(Default)]
struct Toy {
    refuses: AtomicBool,
    epoch: AtomicU64,
    asked: AtomicU64,
    sub: &'static str,
}

impl Verifier for Toy {
    fn verify(&self, token: &str, _: u64) -> Result<Identity, VerifyError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.refuses.load(Ordering::Relaxed) {
            return Err(VerifyError::Signature);
        }
        let (jti, _) = token.split_once('.').ok_or(VerifyError::Malformed)?;
        Ok(Identity::from_verified(&Claims::new(ISS).jti(jti).sub(self.sub).iat(NOW).exp(NOW + 600)))
    }

    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.verify(token, now)
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }
}

struct Site<I> {
    clock: Arc<ManualClock>,
    guard: Guard<I>,
}

fn site<I: IdentitySource>(source: I) -> Site<I> {
    let clock = Arc::new(ManualClock::at(NOW));
    let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(3600)));
    config.clock = Arc::clone(&clock) as _;
    let list = Denylist::new(config);
    list.in_step_at(list.now());
    Site { clock, guard: Guard::new(Arc::new(list), source, Policy::default()) }
}

impl<I: IdentitySource> Site<I> {
    /// Who sent the token, or why it is refused.
    fn ask(&self, token: &str) -> Result<(String, String), Rejection> {
        let request = Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap();
        let passed = self.guard.check_parts(&request.into_parts().0)?;
        let identity = passed.identity().expect("it verifies itself");
        Ok((identity.jti().unwrap().to_owned(), identity.sub().unwrap().to_owned()))
    }

    /// Sends the token until this thread has it at hand.
    fn warm(&self, token: &str) {
        for _ in 0..3 {
            self.ask(token).expect("it may pass");
        }
    }

    fn revoke(&self, scope: Scope) {
        let list = self.guard.denylist();
        let record = Revocation::new(scope).into_record(list.hasher(), list.lifetimes(), list.now().unix());
        list.apply(&[Change::Revoke(record)]);
    }
}

fn toy(sub: &'static str) -> Arc<Toy> {
    Arc::new(Toy { sub, ..Toy::default() })
}

fn token(jti: &str) -> String {
    format!("{jti}.payload.a-signature-of-some-length")
}

#[test]
fn a_kept_token_is_not_verified_again() {
    let toy = toy("alice");
    let site = site(Verify::new(Arc::clone(&toy)));
    let token = token("t1");
    (0..100).for_each(|_| assert_eq!(site.ask(&token), Ok(("t1".to_owned(), "alice".to_owned()))));
    assert_eq!(toy.asked.load(Ordering::Relaxed), 1);
}

#[test]
fn l1_a_token_revoked_while_it_is_kept_is_refused() {
    let site = site(Verify::new(toy("alice")));
    let (one, other) = (token("t1"), token("t2"));
    site.warm(&one);
    site.warm(&other);
    site.revoke(Scope::token(ISS, "t1"));
    let revoked = |kind| Err(Rejection::Revoked(Reason::Revoked(kind)));
    for _ in 0..3 {
        assert_eq!(site.ask(&one), revoked(ScopeKind::Token));
        assert!(site.ask(&other).is_ok());
    }
    site.revoke(Scope::subject(ISS, "alice"));
    assert_eq!(site.ask(&other), revoked(ScopeKind::Subject));
}

#[test]
fn a_token_whose_time_passes_while_it_is_kept_is_refused() {
    let site = site(Verify::new(toy("alice")));
    let token = token("t1");
    site.warm(&token);
    let list = site.guard.denylist();
    site.clock.advance(Duration::from_secs(659));
    list.in_step_at(list.now());
    assert!(site.ask(&token).is_ok(), "a minute of leeway");
    site.clock.advance(Duration::from_secs(1));
    assert_eq!(site.ask(&token), Err(Rejection::Token(VerifyError::Expired)));
}

#[test]
fn l7_a_list_that_grows_stale_refuses_what_is_kept() {
    let site = site(Verify::new(toy("alice")));
    let token = token("t1");
    site.warm(&token);
    // A quarter of an hour by the clock that cannot be stepped; the other one is put back all the while.
    site.guard.denylist().in_step_at(site.guard.denylist().now());
    site.clock.advance(Duration::from_secs(3601));
    site.clock.step_wall(NOW);
    assert!(matches!(site.ask(&token), Err(Rejection::Unknown(_))));
}

/// A key, an issuer, an audience or an algorithm that is taken away takes its kept tokens along.
#[test]
fn other_keys_issuers_audiences_and_algorithms() {
    const SECRET: &[u8; 32] = b"32 random bytes make a good key!";
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = serde_json::json!({
        "iss": ISS, "aud": "api", "jti": "t1", "sub": "alice", "iat": NOW, "exp": NOW + 600,
    });
    let input = format!("{}.{}", part(serde_json::json!({"alg": "HS256"})), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), input.as_bytes());
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));

    let issuer = |iss: &str, aud: &str, alg, secret: &[u8; 32]| -> JwtVerifierBuilder {
        JwtVerifier::builder()
            .issuer(Issuer::new(iss).audience([aud]).algorithms([alg]).keys(Keys::secret(secret.to_vec())))
    };
    let right = || issuer(ISS, "api", Algorithm::HS256, SECRET);
    let wrong = [
        (issuer(ISS, "api", Algorithm::HS256, b"another key, of 32 random bytes!"), VerifyError::Signature),
        (issuer(ISS, "other", Algorithm::HS256, SECRET), VerifyError::Audience),
        (issuer(ISS, "api", Algorithm::HS384, SECRET), VerifyError::Algorithm),
        (issuer("https://other/", "api", Algorithm::HS256, SECRET), VerifyError::UnknownIssuer),
    ];
    let verifier = Arc::new(right().build().unwrap());
    let site = site(Verify::new(Arc::clone(&verifier)));
    for (wrong, error) in wrong {
        verifier.replace(right()).unwrap();
        site.warm(&token);
        verifier.replace(wrong).unwrap();
        assert_eq!(site.ask(&token), Err(Rejection::Token(error)));
    }
}

#[test]
fn a_token_kept_under_an_earlier_epoch_is_replaced() {
    let toy = toy("alice");
    let site = site(Verify::new(Arc::clone(&toy)));
    let token = token("t1");
    for epoch in 0..5 {
        toy.epoch.store(epoch, Ordering::Relaxed);
        site.warm(&token);
        site.warm(&token);
        assert_eq!(toy.asked.load(Ordering::Relaxed), epoch + 1);
    }
}

/// Two verifiers that serve one thread, and one that comes where another was.
#[test]
fn verifiers_do_not_share() {
    let (alice, bob) = (site(Verify::new(toy("alice"))), site(Verify::new(toy("bob"))));
    let token = token("t1");
    for _ in 0..5 {
        assert_eq!(alice.ask(&token).unwrap().1, "alice");
        assert_eq!(bob.ask(&token).unwrap().1, "bob");
    }
    let strict = toy("carol");
    strict.refuses.store(true, Ordering::Relaxed);
    assert_eq!(site(Verify::new(strict)).ask(&token), Err(Rejection::Token(VerifyError::Signature)));
    for _ in 0..50 {
        let lenient = site(Verify::new(toy("alice")));
        lenient.warm(&token);
        drop(lenient);
        let strict = toy("bob");
        strict.refuses.store(true, Ordering::Relaxed);
        assert_eq!(site(Verify::new(strict)).ask(&token), Err(Rejection::Token(VerifyError::Signature)));
    }
}

/// Tokens that are the same in all but their beginning fall together, and are told apart.
#[test]
fn the_whole_token_counts() {
    let site = site(Verify::new(toy("alice")));
    let all: Vec<_> = (0..100).map(|n| (format!("t{n:04}"), token(&format!("t{n:04}")))).collect();
    for _ in 0..3 {
        for (jti, token) in &all {
            // Once and again at once, so that each is at hand for a moment.
            (0..3).for_each(|_| assert_eq!(site.ask(token).unwrap().0, *jti));
        }
    }
}

#[test]
fn more_tokens_than_a_thread_keeps() {
    let toy = toy("alice");
    let site = site(Verify::new(Arc::clone(&toy)));
    let all: Vec<_> = (0..2000_u32).map(|n| (format!("t{n}"), format!("t{n}.payload.{n:032}"))).collect();
    site.revoke(Scope::token(ISS, "t1234"));
    for _ in 0..3 {
        for (jti, token) in &all {
            let asked = site.ask(token).map(|(jti, _)| jti);
            let refused = Err(Rejection::Revoked(Reason::Revoked(ScopeKind::Token)));
            assert_eq!(asked, if jti == "t1234" { refused } else { Ok(jti.clone()) });
        }
    }
    assert_eq!(toy.asked.load(Ordering::Relaxed), 2000, "the shared cache has them all");
}

#[test]
fn a_cache_that_is_off_keeps_nothing_at_hand() {
    let toy = toy("alice");
    let site = site(Verify::new(Arc::clone(&toy)).cache(TokenCacheConfig::max_bytes(0)));
    let token = token("t1");
    (0..5).for_each(|_| assert!(site.ask(&token).is_ok()));
    assert_eq!(toy.asked.load(Ordering::Relaxed), 5);
}

/// Each thread has its own, and every one of them sees a revocation.
#[test]
fn every_thread_refuses() {
    let site = site(Verify::new(toy("alice")));
    let token = token("t1");
    let (warm, revoked) = (std::sync::Barrier::new(5), std::sync::Barrier::new(5));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                site.warm(&token);
                warm.wait();
                revoked.wait();
                assert_eq!(site.ask(&token), Err(Rejection::Revoked(Reason::Revoked(ScopeKind::Token))));
            });
        }
        warm.wait();
        site.revoke(Scope::token(ISS, "t1"));
        revoked.wait();
    });
}

/// No bit of a filter is lost when a larger one takes its place, whatever was kept before.
#[test]
fn l1_a_new_filter_has_what_the_old_one_had() {
    let site = site(Verify::new(toy("alice")));
    let (one, other) = (token("t1"), token("t2"));
    site.warm(&one);
    site.warm(&other);
    site.revoke(Scope::token(ISS, "t1"));
    let list = site.guard.denylist();
    let changes: Vec<_> = (0..70_000)
        .map(|n| Revocation::new(Scope::token(ISS, format!("other-{n}"))))
        .map(|revocation| Change::Revoke(revocation.into_record(list.hasher(), list.lifetimes(), NOW)))
        .collect();
    list.apply(&changes);
    assert!(list.wants_maintenance(), "the filter is past its size");
    list.maintain();
    assert!(!list.wants_maintenance());
    assert_eq!(site.ask(&one), Err(Rejection::Revoked(Reason::Revoked(ScopeKind::Token))));
    assert!(site.ask(&other).is_ok());
}
