//! What somebody else tells of a token lets nothing pass that the denylist, the clock or the replica's age would refuse.
#![allow(clippy::unwrap_used)]

use std::{future::ready, time::Duration};

use super::*;
use crate::{
    denylist::{DenylistConfig, Reason, Staleness},
    revocation::{Change, Revocation, Scope, ScopeKind},
    time::ManualClock,
    token::{Claims, VerifiedClaims, VerifyError, source::Source},
};

const ISS: &str = "https://issuer.example/";
const NOW: u64 = 1_700_000_000;
const AGE: Duration = Duration::from_secs(10);

/// Knows nothing of a token before it is told.
struct Hearsay<F>(F);

impl<F: Fn(&Denylist) -> Result<Known, Rejection> + Send + Sync + 'static> Source for Hearsay<F> {
    fn judge(&self, _: Head<'_>, asked: Asked<'_>) -> Result<Found, Rejection> {
        let told = Box::pin(ready((self.0)(asked.denylist)));
        Ok(Found::Unclear(Box::new(Question::Elsewhere { told, verified: None })))
    }

    fn challenges_dpop(&self) -> bool {
        false
    }

    #[cfg(feature = "streams")]
    fn carried(&self, _: Head<'_>, _: &Denylist, _: Option<&Verified>) -> Option<crate::token::Carried> {
        None
    }
}

struct Site<F> {
    clock: Arc<ManualClock>,
    guard: Guard<Hearsay<F>>,
}

impl<F: Fn(&Denylist) -> Result<Known, Rejection> + Send + Sync + 'static> Site<F> {
    fn new(policy: Policy, tell: F) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let mut config = DenylistConfig::new(Staleness::refuse_after(AGE));
        config.clock = clock.clone();
        let denylist = Arc::new(Denylist::new(config));
        denylist.in_step_at(denylist.now());
        Self { clock, guard: Guard::new(denylist, Hearsay(tell), policy) }
    }

    fn revoke(&self, scope: Scope) {
        let denylist = self.guard.denylist();
        let record = Revocation::new(scope).into_record(denylist.hasher(), denylist.lifetimes(), NOW);
        denylist.apply(&[Change::Revoke(record)]);
    }

    /// Judges a request, and lets time pass before it is told.
    async fn ask_for(&self, takes: Duration) -> Result<Passed, Rejection> {
        match self.guard.judge(&Method::GET, &Uri::default(), &HeaderMap::new(), &Extensions::new()) {
            Err(Held::Unclear(question)) => {
                self.clock.advance(takes);
                self.guard.ask(*question, Line { method: &Method::GET, uri: &Uri::default() }).await
            }
            Err(Held::Refused(rejection)) => Err(rejection),
            Ok(passed) => Ok(passed),
        }
    }

    async fn ask(&self) -> Result<Passed, Rejection> {
        self.ask_for(Duration::ZERO).await
    }
}

fn alice(denylist: &Denylist) -> Result<Known, Rejection> {
    let identity = Identity::from_verified(&Claims::new(ISS).jti("j").sub("alice").iat(NOW - 1).exp(NOW + 5));
    let keys = identity.claims().keys(denylist.hasher());
    Ok(Known::of(Arc::new(Verified::new("token", identity, keys, 0))))
}

#[tokio::test]
async fn what_was_told_is_held_against_the_denylist() {
    let site = Site::new(Policy::default(), alice);
    assert_eq!(site.ask().await.unwrap().identity().unwrap().sub(), Some("alice"));
    site.revoke(Scope::subject(ISS, "bob"));
    assert!(site.ask().await.is_ok());
    site.revoke(Scope::subject(ISS, "alice"));
    let refused = Rejection::Revoked(Reason::Revoked(ScopeKind::Subject));
    assert_eq!(site.ask().await.unwrap_err(), refused);
    assert_eq!(site.guard.refused(), 1);
}

#[tokio::test]
async fn what_took_too_long_to_tell_is_stale_or_over() {
    let site = Site::new(Policy::default(), alice);
    assert_eq!(site.ask_for(AGE * 2).await.unwrap_err(), Rejection::Unknown(Why::Stale));
    let leeway = site.guard.denylist().lifetimes().leeway_secs();
    let over = site.ask_for(Duration::from_secs(5 + leeway)).await.unwrap_err();
    assert_eq!(over, Rejection::Token(VerifyError::Expired));
}

#[tokio::test]
async fn what_is_told_to_be_refused_is_refused() {
    let inactive = Rejection::Token(VerifyError::Signature);
    let site = Site::new(Policy::default(), move |_| Err(inactive));
    assert_eq!(site.ask().await.unwrap_err(), inactive);
}

#[tokio::test]
async fn a_door_that_cannot_wait_refuses() {
    let site = Site::new(Policy::default(), alice);
    let refused = site.guard.check(&Method::GET, &Uri::default(), &HeaderMap::new(), &Extensions::new());
    assert_eq!(refused.unwrap_err(), Rejection::Unknown(Why::NotAsked));
}

#[tokio::test]
async fn shadow_mode_counts_what_it_was_told() {
    let site = Site::new(Policy::default().shadow(Shadow::ALL), alice);
    site.revoke(Scope::subject(ISS, "alice"));
    assert_eq!(site.ask().await.unwrap().identity().unwrap().sub(), Some("alice"));
    assert_eq!((site.guard.refused(), site.guard.would_refuse()), (0, 1));
}
