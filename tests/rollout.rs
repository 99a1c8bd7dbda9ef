//! Roll-out: what is in shadow refuses nobody and is reported, what is not refuses; and a share of users never flaps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use common::{AUDIENCE, ISSUER, eventually, listen, token, unix, verifier};
use http::{HeaderValue, Request, header, request::Parts};
use serde_json::json;
use tower_revocation::{
    Guard, RevocationLayer, Revocations,
    backend::Memory,
    denylist::{Denylist, DenylistConfig, Reason, Staleness},
    policy::{MissingClaim, MissingIat, NoToken, Policy, StaleRequests},
    reject::Rejection,
    report::{Refused, Sender},
    revocation::{Change, Revocation, Scope, ScopeHasher, ScopeKind},
    rollout::{Percent, Rollout, Rule, Shadow},
    sync::{Lag, SyncConfig},
    time::ManualClock,
    token::{Claims, FromExtension, Identity, IdentitySource, OpaqueKeys, Peek, VerifierBehind, Verify, VerifyError},
};

const NOW: u64 = 1_800_000_000;

fn list(secret: [u8; 16], clock: &Arc<ManualClock>) -> Arc<Denylist> {
    let mut config = DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    config.hasher = ScopeHasher::new(secret);
    config.clock = clock.clone();
    let list = Denylist::new(config);
    list.in_step_at(list.now());
    Arc::new(list)
}

fn fresh() -> Arc<Denylist> {
    list([7; 16], &Arc::new(ManualClock::at(NOW)))
}

fn revoke(list: &Denylist, scope: Scope) {
    let record = Revocation::new(scope).into_record(list.hasher(), list.lifetimes(), list.now().unix());
    list.apply(&[Change::Revoke(record)]);
}

fn guard(list: &Arc<Denylist>, policy: Policy) -> Guard<FromExtension<Identity>> {
    Guard::new(Arc::clone(list), FromExtension::new(), policy)
}

fn claims(sub: &str) -> Claims<'_> {
    Claims::new(ISSUER).jti("j").sid("s").sub(sub).client_id("app").iat(NOW - 10).exp(NOW + 600)
}

fn without<'a>(mut claims: Claims<'a>, change: impl Fn(&mut Claims<'a>)) -> Claims<'a> {
    change(&mut claims);
    claims
}

/// A request whose token somebody outside has verified.
fn vouched(claims: &Claims<'_>) -> Parts {
    Request::builder().extension(Identity::from_verified(claims)).body(()).unwrap().into_parts().0
}

fn bearing(token: &str) -> Parts {
    let request = Request::builder().header(header::AUTHORIZATION, format!("Bearer {token}"));
    request.body(()).unwrap().into_parts().0
}

fn row<I: IdentitySource>(guard: &Guard<I>, reason: &str) -> Option<Refused> {
    guard.report().refused.into_iter().find(|row| row.reason == reason)
}

fn client(client_id: &str) -> Sender {
    let list = fresh();
    let guard = guard(&list, Policy::default().missing_jti(MissingClaim::Deny));
    // The variants of the report are not made by hand.
    let _ = guard.check_parts(&vouched(&Claims::new(ISSUER).client_id(client_id).iat(NOW).exp(NOW + 1)));
    guard.report().missing[0].sender.clone()
}

const SUBJECT: Rejection = Rejection::Revoked(Reason::Revoked(ScopeKind::Subject));
const TOKEN: Rejection = Rejection::Revoked(Reason::Revoked(ScopeKind::Token));

/// A scope in shadow lets through what it alone refuses, and nothing that another scope refuses too: whichever of both is
/// found first.
#[test]
fn a_scope_in_shadow_hides_no_other() {
    for (shadowed, enforced, rejection) in [
        (ScopeKind::Subject, Scope::token(ISSUER, "j"), TOKEN),
        (ScopeKind::Token, Scope::subject(ISSUER, "alice"), SUBJECT),
    ] {
        let list = fresh();
        let guard = guard(&list, Policy::default().shadow(Shadow::NOTHING.scope(shadowed)));
        let request = vouched(&claims("alice"));
        revoke(
            &list,
            if shadowed == ScopeKind::Subject { Scope::subject(ISSUER, "alice") } else { Scope::token(ISSUER, "j") },
        );
        assert!(guard.check_parts(&request).is_ok());
        assert_eq!((guard.would_refuse(), guard.refused()), (1, 0));
        revoke(&list, enforced);
        assert_eq!(guard.check_parts(&request).unwrap_err(), rejection);
        assert_eq!((guard.would_refuse(), guard.refused()), (1, 1));
        let seen = row(&guard, "revoked").unwrap();
        assert_eq!((seen.sender, seen.last_seen), (client("app"), NOW));
    }
}

/// A rule in shadow hides nothing that is looked at after it.
#[test]
fn a_rule_in_shadow_hides_no_other() {
    let policy = Policy::default()
        .missing_jti(MissingClaim::Deny)
        .missing_sid(MissingClaim::Deny)
        .missing_iat(MissingIat::Deny)
        .shadow(Shadow::NOTHING.rule(Rule::MissingJti).rule(Rule::LivesTooLong).rule(Rule::MissingIat));
    let list = fresh();
    let guard = guard(&list, policy);
    let good = without(claims("alice"), |claims| claims.jti = None);
    assert!(guard.check_parts(&vouched(&good)).is_ok());
    let long = good.exp(NOW + 10_000_000);
    assert!(guard.check_parts(&vouched(&long)).is_ok());
    assert!(guard.check_parts(&vouched(&without(good, |claims| claims.exp = None))).is_ok(), "no expiry");
    let refused = |claims: Claims<'_>| guard.check_parts(&vouched(&claims)).unwrap_err();
    assert_eq!(refused(without(good, |claims| claims.sid = None)), Rejection::MissingSid);
    assert_eq!(refused(without(long, |claims| claims.sid = None)), Rejection::MissingSid);
    assert_eq!(refused(long.iat(NOW + 500)), Rejection::Token(VerifyError::NotYetValid), "it would beat every cutoff");
    assert_eq!(refused(good.exp(NOW - 100)), Rejection::Token(VerifyError::Expired));
    revoke(&list, Scope::subject(ISSUER, "alice"));
    assert_eq!(refused(good), SUBJECT);
    assert_eq!(refused(long), SUBJECT);
    assert_eq!(
        refused(without(good, |claims| claims.iat = None)),
        Rejection::Revoked(Reason::NoIssueTime(ScopeKind::Subject)),
        "asking for iat is in shadow, cutoffs are not"
    );
    let two = row(&guard, "missing_jti").unwrap();
    assert_eq!((two.would_refuse, two.refused), (1, 0));
    assert_eq!(guard.would_refuse(), 3);
    assert_eq!(guard.refused(), 7);
}

/// Staleness in shadow is not the end of revocations.
#[test]
fn a_stale_list_in_shadow_still_refuses_what_it_knows() {
    let clock = Arc::new(ManualClock::at(NOW));
    let list = list([1; 16], &clock);
    let guard = guard(&list, Policy::default().shadow(Shadow::NOTHING.rule(Rule::Unknown)));
    revoke(&list, Scope::subject(ISSUER, "mallory"));
    clock.advance(Duration::from_secs(11));
    assert!(guard.check_parts(&vouched(&claims("alice"))).is_ok());
    assert_eq!(guard.check_parts(&vouched(&claims("mallory"))).unwrap_err(), SUBJECT);
    assert_eq!(row(&guard, "stale").unwrap().would_refuse, 1);
}

/// Two credentials, a token that nobody can read, none at all.
#[test]
fn requests_without_an_identity_pass_only_by_their_own_rule() {
    let list = fresh();
    let mut two = bearing("a.b.c");
    two.headers.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer d"));
    let requests = [two, bearing("a.b.c"), Request::new(()).into_parts().0];
    let rules = [Rule::Credential, Rule::InvalidToken, Rule::NoToken];
    for (place, rule) in rules.into_iter().enumerate() {
        let policy = Policy::default().no_token(NoToken::Deny).shadow(Shadow::NOTHING.rule(rule));
        let guard = Guard::new(Arc::clone(&list), Verify::new(verifier()), policy);
        for (other, request) in requests.iter().enumerate() {
            assert_eq!(guard.check_parts(request).is_ok(), place == other, "{rule} {other}");
        }
        assert!(guard.report().refused.iter().all(|row| row.sender == Sender::Unknown));
        assert_eq!((guard.would_refuse(), guard.refused()), (1, 2));
    }
}

/// Over a real socket, with tokens that are verified and remembered: what is put into force while the node runs counts for
/// the next request, with a token that has passed before.
#[tokio::test]
async fn what_is_rolled_out_counts_at_once() {
    let revocations = common::revocations().await;
    let policy = Policy::default().missing_jti(MissingClaim::Deny).shadow(Shadow::ALL);
    let layer = RevocationLayer::with_policy(revocations.denylist().clone(), Verify::new(verifier()), policy);
    let guard = layer.guard().clone();
    let (listener, address) = listen().await;
    let app = Router::new().route("/", get(|| async {})).layer(layer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let (good, bare) = (token(json!({"jti": "1"})), token(json!({"sub": "bob"})));
    let revoked = token(json!({"jti": "2", "sub": "carol"}));
    let _ = revocations.revoke(Revocation::new(Scope::subject(ISSUER, "carol"))).await.unwrap();
    for _ in 0..3 {
        assert_eq!(statuses(address, [&good, &bare, &revoked]).await, [200, 200, 200]);
    }
    assert_eq!((guard.would_refuse(), guard.refused()), (6, 0));
    assert_eq!(row(&guard, "missing_jti").unwrap().would_refuse, 3);

    let shadow = Shadow::NOTHING.rule(Rule::MissingJti);
    guard.roll_out(Rollout { shadow, ..Rollout::COMPLETE });
    assert_eq!(statuses(address, [&good, &bare, &revoked]).await, [200, 200, 401]);
    guard.roll_out(Rollout::COMPLETE);
    assert_eq!(statuses(address, [&good, &bare, &revoked]).await, [200, 401, 401]);
    guard.roll_out(Rollout { shadow: Shadow::ALL, ..Rollout::COMPLETE });
    assert_eq!(statuses(address, [&good, &bare, &revoked]).await, [200, 200, 200]);

    // Verified once, reported once.
    let report = guard.report();
    let missing: Vec<_> = report.missing.iter().map(|row| (&row.sender, row.jti, row.sid, row.iat)).collect();
    assert_eq!(missing, [(&client("app"), 1, 3, 0)]);
    assert_eq!(report.left_out, 0);
}

async fn statuses<const N: usize>(address: SocketAddr, tokens: [&str; N]) -> [u16; N] {
    let mut all = [0; N];
    for (status, token) in all.iter_mut().zip(tokens) {
        *status = common::get(address, "/", &[&format!("authorization: Bearer {token}")]).await.status;
    }
    all
}

/// Which of a thousand users are refused.
fn refused<I: IdentitySource>(guard: &Guard<I>, request: impl Fn(usize) -> Parts) -> HashSet<usize> {
    (0..1000).filter(|n| guard.check_parts(&request(*n)).is_err()).collect()
}

fn share(percent: u8) -> Policy {
    Policy::default().percent(Percent::whole(percent))
}

/// A larger share only adds; every node of a fleet says the same; and the shares are as large as they are said to be.
#[test]
fn shares_grow_are_the_same_everywhere_and_are_of_their_size() {
    let clock = Arc::new(ManualClock::at(NOW));
    let nodes = [list([9; 16], &clock), list([9; 16], &clock)];
    let other_fleet = list([8; 16], &clock);
    let user = |n: usize| vouched(&claims(&format!("user-{n}")));
    let all = |list: &Arc<Denylist>| {
        revoke(list, Scope::issuer(ISSUER));
        [0, 1, 10, 50, 90, 99, 100].map(|percent| refused(&guard(list, share(percent)), user))
    };
    let [ours, same] = nodes.each_ref().map(all);
    assert_eq!(ours, same);
    for pair in ours.windows(2) {
        assert!(pair[0].is_subset(&pair[1]));
    }
    assert_eq!((ours[0].len(), ours[6].len()), (0, 1000));
    // Five standard deviations, and a fixed secret: it does not depend on luck.
    for (users, percent) in ours[1..6].iter().zip([1.0, 10.0, 50.0, 90.0, 99.0_f64]) {
        let spread = (1000.0 * percent / 100.0 * (1.0 - percent / 100.0)).sqrt();
        assert!((users.len() as f64 - percent * 10.0).abs() < 5.0 * spread, "{percent}%: {}", users.len());
    }
    assert_ne!(ours[3], all(&other_fleet)[3], "who is first is nobody's choice");
}

/// All tokens of a user are treated alike; without a user those of a session, without that each by itself.
#[test]
fn a_user_is_in_or_out_with_all_tokens() {
    let list = fresh();
    revoke(&list, Scope::issuer(ISSUER));
    let guard = guard(&list, share(50));
    let by = |make: &dyn Fn(usize, usize) -> Parts| [0, 1, 2].map(|token| refused(&guard, |n| make(n, token)));
    let token = |n: usize, token: usize, sub: bool, sid: bool| {
        let (user, session, id) = (format!("u{n}"), format!("s{n}"), format!("t{n}-{token}"));
        let mut claims = Claims::new(ISSUER).jti(&id).client_id("app").iat(NOW - token as u64).exp(NOW + 600);
        claims.sub = sub.then_some(user.as_str());
        // A user has many sessions.
        let own = format!("{id}-own");
        claims.sid = Some(if sub { own.as_str() } else { session.as_str() }).filter(|_| sid);
        vouched(&claims)
    };
    let [a, b, c] = by(&|n, t| token(n, t, true, true));
    assert!(a == b && b == c && (400..600).contains(&a.len()), "{}", a.len());
    let [a, b, c] = by(&|n, t| token(n, t, false, true));
    assert!(a == b && b == c && (400..600).contains(&a.len()), "{}", a.len());
    let [a, b, _] = by(&|n, t| token(n, t, false, false));
    assert!(a != b && (400..600).contains(&a.len()));
    assert_eq!(by(&|n, _| token(n, 0, false, false))[1], a, "one token never flaps");
}

/// Whatever says who the user is, the share is the same: verified here or outside, or only looked at. What tells nobody
/// apart is refused last.
#[test]
fn every_source_puts_a_user_into_the_same_share() {
    let now = unix();
    let list = list([3; 16], &Arc::new(ManualClock::at(now)));
    revoke(&list, Scope::issuer(ISSUER));
    let outside = guard(&list, share(30));
    let verify = Guard::new(Arc::clone(&list), Verify::new(verifier()), share(30));
    let peek = Guard::new(Arc::clone(&list), Peek::new(VerifierBehind::i_promise()).issuer(ISSUER), share(30));
    let jwt = |n: usize| token(json!({"sub": format!("u{n}"), "jti": format!("{n}"), "aud": AUDIENCE, "iat": now}));
    let by_outside = refused(&outside, |n| vouched(&Claims::new(ISSUER).sub(&format!("u{n}")).iat(now).exp(now + 600)));
    assert!((200..400).contains(&by_outside.len()));
    assert_eq!(refused(&verify, |n| bearing(&jwt(n))), by_outside);
    assert_eq!(refused(&peek, |n| bearing(&jwt(n))), by_outside);
    // Rule 20: what a token merely says of itself is no name in a report.
    assert!(peek.report().refused.iter().all(|row| row.sender == Sender::Unknown));
    assert!(peek.report().missing.is_empty());
    assert_eq!(verify.report().refused[0].sender, client("app"));

    assert!(verify.check_parts(&bearing("no.jwt.atall")).is_ok());
    verify.roll_out(Rollout::COMPLETE);
    assert!(verify.check_parts(&bearing("no.jwt.atall")).is_err());
}

/// An opaque token by its digest.
#[test]
fn an_opaque_token_never_flaps() {
    let list = fresh();
    let keys = OpaqueKeys::new("k1", *b"a key of thirty-two bytes, for us").unwrap();
    for n in 0..1000 {
        for digest in keys.digests(format!("opaque-{n}").as_bytes()) {
            revoke(&list, Scope::opaque_token(digest));
        }
    }
    let guard = |percent| Guard::new(Arc::clone(&list), Verify::new(verifier()).opaque(keys.clone()), share(percent));
    let request = |n: usize| bearing(&format!("opaque-{n}"));
    let (some, more) = (refused(&guard(30), request), refused(&guard(60), request));
    assert!((200..400).contains(&some.len()) && some.is_subset(&more) && more.len() > 500);
    assert_eq!(refused(&guard(30), request), some);
    assert_eq!(refused(&guard(100), request).len(), 1000);
}

/// A door's own reasons go the same way.
#[test]
fn what_a_door_says_goes_the_same_way() {
    let list = fresh();
    let alice = Identity::from_verified(&claims("alice"));
    let guard = guard(&list, Policy::default().shadow(Shadow::NOTHING.rule(Rule::NotVerified)));
    assert_eq!(guard.reject(Rejection::NotVerified, Some(&alice)), Ok(()));
    assert_eq!(guard.reject(Rejection::MissingJti, Some(&alice)), Err(Rejection::MissingJti));
    assert_eq!((guard.would_refuse(), guard.refused()), (1, 1));
    assert_eq!(row(&guard, "not_verified").unwrap().sender, client("app"));
}

fn node_config(name: &str, clock: &Arc<ManualClock>) -> SyncConfig {
    let mut config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)));
    config.node = name.to_owned();
    config.denylist.clock = clock.clone();
    config
}

/// Law 3, "everywhere": a node that has something in shadow does not count for it, counts for the rest, and counts again
/// once it enforces, or once the guard is gone.
#[tokio::test]
async fn a_node_in_shadow_does_not_count_for_what_it_shadows() {
    let (store, clock) = (Memory::new(), Arc::new(ManualClock::at(NOW)));
    let publisher = Revocations::start(store.clone(), node_config("publisher", &clock)).await.unwrap();
    let node = Revocations::start(store.clone(), node_config("half", &clock)).await.unwrap();
    let subjects = Shadow::NOTHING.scope(ScopeKind::Subject);
    let guard = guard(node.denylist(), Policy::default().shadow(subjects));
    let limit = Duration::from_secs(5);
    let unconfirmed = async |kinds: &[ScopeKind]| {
        let everywhere = publisher.everywhere_of(kinds, limit).await.unwrap();
        everywhere.unconfirmed.iter().map(|node| (node.node.clone(), node.why)).collect::<Vec<_>>()
    };
    let half = vec![("half".to_owned(), Lag::Shadows)];
    let _ = publisher.revoke(Revocation::new(Scope::subject(ISSUER, "alice"))).await.unwrap();
    eventually("it is named", async || unconfirmed(&[ScopeKind::Subject]).await == half).await;
    assert_eq!(unconfirmed(&[ScopeKind::Token, ScopeKind::Session]).await, []);
    assert_eq!(unconfirmed(&ScopeKind::ALL).await, half);
    assert_eq!(publisher.everywhere(limit).await.unwrap().unconfirmed[0].to_string(), "half (in shadow)");
    let status = publisher.nodes().into_iter().find(|node| node.status.node == "half").unwrap().status;
    assert_eq!((status.enforces, status.serves_when_stale), (false, false));
    assert_eq!(status.shadowed_scopes().collect::<Vec<_>>(), [ScopeKind::Subject]);

    guard.roll_out(Rollout { percent: Percent::whole(99), ..Rollout::COMPLETE });
    eventually("not for anything", async || unconfirmed(&[ScopeKind::Token]).await == half).await;
    guard.roll_out(Rollout::COMPLETE);
    eventually("it enforces", async || unconfirmed(&ScopeKind::ALL).await.is_empty()).await;
    guard.roll_out(Rollout { shadow: Shadow::NOTHING.rule(Rule::Credential), ..Rollout::COMPLETE });
    eventually("two credentials pass", async || unconfirmed(&[ScopeKind::Token]).await == half).await;
    drop(guard);
    eventually("it is gone", async || unconfirmed(&ScopeKind::ALL).await.is_empty()).await;

    let stale = Guard::new(
        node.denylist().clone(),
        FromExtension::<Identity>::new(),
        Policy::default().stale(StaleRequests::Serve),
    );
    eventually("serves", async || unconfirmed(&[ScopeKind::Token]).await == [("half".to_owned(), Lag::ServesStale)])
        .await;
    drop(stale);
}

/// What nodes of an earlier version announce, and read.
#[test]
fn announcements_of_other_versions_are_understood() {
    use tower_revocation::backend::NodeStatus;
    let text = json!({"node": "old", "session": 1, "beat": 1, "applied": null, "enforces": true,
                      "lease": {"secs": 10, "nanos": 0}});
    let old: NodeStatus = serde_json::from_value(text.clone()).unwrap();
    assert_eq!((old.shadows, old.serves_when_stale), (0, false));
    assert_eq!(serde_json::to_value(&old).unwrap(), text);
}

/// Many threads at once: nobody waits, and all that was refused is either in a row or said to be left out.
#[test]
fn nothing_is_lost_where_many_are_refused_at_once() {
    let list = fresh();
    revoke(&list, Scope::issuer(ISSUER));
    let guard = guard(&list, Policy::default());
    std::thread::scope(|scope| {
        for n in 0..4 {
            let guard = &guard;
            scope.spawn(move || {
                let client = format!("client-{n}");
                let request = vouched(&claims("alice").client_id(&client));
                (0..2_000).for_each(|_| assert!(guard.check_parts(&request).is_err()));
            });
        }
    });
    let report = guard.report();
    let in_rows: u64 = report.refused.iter().map(|row| row.refused).sum();
    assert_eq!((guard.refused(), in_rows + report.left_out), (8_000, 8_000));
}

/// L9: neither a token nor a header of it.
#[test]
fn l9_reports_hold_no_token() {
    let list = fresh();
    let guard = Guard::new(Arc::clone(&list), Verify::new(verifier()), Policy::default());
    let token = token(json!({"aud": "somebody else"}));
    assert!(guard.check_parts(&bearing(&token)).is_err());
    let said = format!("{:?}", guard.report());
    assert!(said.contains("audience") && token.split('.').all(|part| !said.contains(part)), "{said}");
}
