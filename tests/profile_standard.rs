//! The standard profile, row by row of the wire specification (`s12`: its §12): RFC 7009, the draft on global token
//! revocation, what Okta and Auth0 send, and RFC 9493.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;
mod profile;

use std::sync::atomic::Ordering;

use common::{ISSUER, get, listen, token, unix};
use profile::{
    rows::{self, iss_sub},
    site::{Ask, Login, MTLS_URL, OTHER, Plan, SESSION_SCOPE, Signer, Site, URL, caller, merged, unique},
    table::{
        BEHIND, DONE,
        Effect::{Alive, Dead, Nothing, Unasked, Valid},
        Expect, OK, Table, error,
    },
};
use serde_json::{Value, json};
use tower_revocation::{
    backend::{Memory, Sqlite},
    endpoint::{Client, EndpointName, Profile, SeveralUsers, SignedRequests, UnknownUser},
    token::{Algorithm, Issuer, Keys},
};

const BASIC: &str = "Basic realm=\"revocation\"";
const NO_SCOPE: Expect<'_> = error(403, "insufficient_scope");

fn plan() -> Plan {
    Plan::new(Profile::Standard)
}

#[tokio::test]
async fn s1_client_authentication() {
    let site = plan().start().await;
    let mut t = Table::new();
    let by_token = NO_SCOPE.challenge(rows::NO_SCOPE);
    rows::clients_of_the_session_endpoint(&mut t, &site, BASIC, NO_SCOPE, by_token).await;
    rows::clients_of_the_global_endpoint(&mut t, &site, BASIC, NO_SCOPE, by_token).await;
    rows::clients_of_the_token_endpoint(&mut t, &site, BASIC).await;
    t.end();
}

#[tokio::test]
async fn s1_certificates_at_the_global_endpoint() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::certificates_at_the_global_endpoint(&mut t, &site, BASIC).await;
    t.end();
}

#[tokio::test]
async fn s4_session() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::session_revocation(&mut t, &site).await;
    t.end();
}

#[tokio::test]
async fn s4_several_users() {
    let mut t = Table::new();
    for (several, expect, lives) in [
        (SeveralUsers::All, OK, [false, false]),
        (SeveralUsers::First, OK, [false, true]),
        (SeveralUsers::Refuse, error(400, "invalid_request"), [true, true]),
    ] {
        let site = plan().session(move |session| session.several_users(several)).start().await;
        let users = [site.user(), site.user()];
        for user in &users {
            site.people.add(ISSUER, user, "team", "red");
        }
        let [a, b] = [site.login(&users[0], "app").await, site.login(&users[1], "app").await];
        let state = |login, lives| if lives { Alive(login) } else { Dead(login) };
        let ask = site.end_sessions("team", "red").basic("admin");
        t.row(
            &site,
            &format!("s4: several users, {several:?}"),
            ask,
            expect,
            &[state(&a, lives[0]), state(&b, lives[1])],
        )
        .await;
    }
    t.end();
}

async fn document(site: &Site) -> Value {
    let answer = get(site.address, site.paths.metadata, &[]).await;
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn s7_metadata() {
    let members = [
        (EndpointName::Token, "revocation_endpoint", "/oauth/revoke"),
        (EndpointName::Global, "global_token_revocation_endpoint", "/oauth/global-token-revocation"),
    ];
    let site = plan()
        .metadata(|metadata| {
            metadata
                .auth_methods(["private_key_jwt", "client_secret_basic"])
                .signing_algs(["EdDSA"])
                .mtls_external_url(MTLS_URL)
        })
        .start()
        .await;
    let mut t = Table::new();
    let on = document(&site).await;
    let whole = on.to_string();
    t.check(
        "s7: no name is registered for the session endpoint",
        on.get("session_revocation_endpoint").is_none(),
        &whole,
    );
    let methods = on["revocation_endpoint_auth_methods_supported"] == json!(["private_key_jwt", "client_secret_basic"]);
    t.check("s21: revocation_endpoint_auth_methods_supported", methods, &whole);
    let algorithms = on["revocation_endpoint_auth_signing_alg_values_supported"] == json!(["EdDSA"]);
    t.check("s21: revocation_endpoint_auth_signing_alg_values_supported", algorithms, &whole);
    for (endpoint, member, path) in members {
        t.check(&format!("s7: {member}"), on[member] == format!("{URL}{path}"), &whole);
        let alias = on["mtls_endpoint_aliases"][member] == format!("{MTLS_URL}{path}");
        t.check(&format!("s7: mtls_endpoint_aliases.{member}"), alias, &whole);
        site.switches.set(endpoint, false);
        let off = document(&site).await;
        let gone = off.as_object().unwrap().keys().all(|key| !key.starts_with(member));
        t.check(&format!("s7: {member} switched off"), gone, &off.to_string());
        site.switches.set(endpoint, true);
    }
    t.end();
}

#[tokio::test]
async fn s12_rfc7009_token_revocation() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::rfc_7009(&mut t, &site).await;
    let bystander = site.login(&site.user(), "app").await;
    let forged = format!("{}A", bystander.access);
    for garbage in ["garbage", "a.b.c", "%F0%9F%98%80", &forged] {
        let ask = site.revoke(&[garbage]).basic("app");
        t.row(&site, &format!("s12: invalid token {garbage}"), ask, OK, &[Alive(&bystander)]).await;
    }
    t.row(&site, "s6: token=all is Janssen's alone", site.revoke(&["all"]).basic("app"), OK, &[Alive(&bystander)])
        .await;
    let janssens =
        ["/jans-auth/restv1/revoke", "/jans-auth/restv1/revoke_session", "/jans-auth/restv1/global-token-revocation"];
    rows::foreign_paths(&mut t, &site, &janssens).await;
    t.end();
}

/// A string with a space in it is one token that nobody knows (RFC 7009 §2.2).
#[tokio::test]
async fn s6_a_list_is_janssens_alone() {
    let site = plan().start().await;
    let mut t = Table::new();
    let login = site.login(&site.user(), "app").await;
    let ask = site.revoke(&[&login.access, &login.refresh]).basic("app");
    t.row(&site, "s6: a list is Janssen's alone", ask, OK, &[Alive(&login)]).await;
    t.end();
}

/// Rule 8: a token that was issued before the logout is dead after it, however short the time between them, also
/// where a second has just begun.
#[tokio::test]
async fn rule_8_what_was_issued_before_is_dead() {
    let site = plan().start().await;
    let mut t = Table::new();
    for attempt in 0..3 {
        let (user, began) = (site.user(), unix());
        while unix() == began {
            std::hint::spin_loop();
        }
        let jwt = token(json!({"sub": user, "jti": format!("first-{}", unique())}));
        let answer = site.send(&site.log_out(&iss_sub(ISSUER, &user)).basic("admin")).await.status;
        let lives = site.api(&jwt).await.status;
        t.check(&format!("rule 8: attempt {attempt}"), (answer, lives) == (204, 401), &format!("{answer} {lives}"));
    }
    t.end();
}

#[tokio::test]
async fn s13_global_draft() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::bodies_that_name_nobody(&mut t, &site).await;
    rows::global_effects(&mut t, &site).await;
    let user = site.user();
    let login = site.login(&user, "app").await;
    let quiet = [Nothing, Unasked, Alive(&login)];
    let alice = || site.log_out(&iss_sub(ISSUER, &user));
    let nobody = site.log_out(&json!({"format": "email", "email": "nobody@example.com"}));
    let bad = error(400, "invalid_request");
    t.row(&site, "s13: 404, user not found", nobody.clone().basic("admin"), error(404, "not_found"), &[Nothing]).await;
    t.row(&site, "s13: 403, before anyone is looked up", nobody.clone().basic("app"), NO_SCOPE, &quiet).await;
    t.row(
        &site,
        "s13: 403, the scope of another endpoint",
        alice().bearer(&caller("app", SESSION_SCOPE)),
        NO_SCOPE.challenge(rows::NO_SCOPE),
        &quiet,
    )
    .await;
    t.row(
        &site,
        "s13: 401, before the body is read",
        site.global("[").basic("nobody"),
        error(401, "invalid_client").challenge(BASIC),
        &quiet,
    )
    .await;
    let attribute = json!({"format": "uid", "id": site.attribute(&user, "uid")});
    t.row(&site, "s5: attribute and value are Janssen's alone", site.log_out(&attribute).basic("admin"), bad, &quiet)
        .await;
    let unmapped = site.log_out(&iss_sub("https://unmapped.example/", &user)).basic("admin");
    t.row(&site, "rule 15: an issuer that nobody mapped", unmapped, bad, &quiet).await;
    site.people.add(OTHER, "theirs", "email", "theirs@example.com");
    let theirs = Login::unseen(token(json!({"iss": OTHER, "sub": "theirs", "jti": format!("t-{}", unique())})));
    let foreign = site.log_out(&iss_sub(OTHER, "theirs"));
    t.row(
        &site,
        "rule 14: another issuer's user",
        foreign.clone().basic("admin"),
        error(404, "not_found"),
        &[Nothing, Alive(&theirs)],
    )
    .await;
    t.row(
        &site,
        "s13: per-tenant credentials",
        alice().basic("elsewhere"),
        error(404, "not_found"),
        &[Nothing, Alive(&login)],
    )
    .await;
    site.people.careless.store(true, Ordering::Relaxed);
    let named = site.log_out(&json!({"format": "email", "email": "theirs@example.com"})).basic("admin");
    let name = "rule 14: another issuer's user, careless directory";
    t.row(&site, name, named, error(404, "not_found"), &[Nothing, Alive(&theirs)]).await;
    site.people.careless.store(false, Ordering::Relaxed);
    t.row(&site, "s13: the client of that tenant", foreign.basic("elsewhere"), DONE, &[Dead(&theirs)]).await;
    site.people.down.store(true, Ordering::Relaxed);
    let unable = error(422, "temporarily_unavailable");
    t.row(&site, "s13: 422, unable to log the user out", alice().basic("admin"), unable, &[Nothing]).await;
    site.people.down.store(false, Ordering::Relaxed);
    let subject = site.global(json!({"subject": iss_sub(ISSUER, &user)}).to_string()).basic("admin");
    t.row(&site, "s13: subject, as drafts before 03 said", subject, DONE, &[Dead(&login)]).await;
    let site = plan().global(|global| global.unknown_user(UnknownUser::NoContent)).start().await;
    t.row(&site, "s26.1: 204 for an unknown user, where that was chosen", nobody.basic("admin"), DONE, &[Nothing])
        .await;
    t.end();
}

// Signed requests.

const IDP: &str = "https://idp.example/";
const AS_URL: &str = "https://as.example/oauth/global-token-revocation";
const AUTH0_PATH: &str = "/oauth/global-token-revocation/connection/okta-1";

/// A provider, and the headers and claims that it sends.
struct Idp {
    key: Signer,
    url: String,
}

impl Idp {
    fn new(url: &str) -> Self {
        Self { key: Signer::new(), url: url.to_owned() }
    }

    fn issuer(&self, iss: &str) -> Issuer {
        Issuer::new(iss).any_audience().algorithms([Algorithm::EdDSA]).keys(self.key.keys())
    }

    fn requests(&self) -> SignedRequests {
        let sender = |id: &str| Client::confidential(id).issuers([ISSUER]);
        let issuers = [self.issuer(IDP), self.issuer("https://idp2.example/")];
        SignedRequests::new(&self.url, issuers)
            .unwrap()
            .sender(IDP, sender("c-okta").scopes(["global_token_revocation"]))
            .sender(IDP, sender("not-opted-in"))
    }

    fn sign(&self, header: Value, claims: Value) -> String {
        self.signed_by(&self.key, header, claims)
    }

    fn signed_by(&self, key: &Signer, header: Value, claims: Value) -> String {
        let usual = json!({
            "iss": IDP, "sub": "c-okta", "aud": self.url, "jti": format!("idp-{}", unique()), "iat": unix(),
            "nbf": unix() - 300, "exp": unix() + 300,
        });
        let usual_header = json!({"alg": "EdDSA", "typ": "global-token-revocation+jwt", "kid": "1"});
        key.sign(&merged(usual_header, &header), usual, &claims)
    }

    async fn site(&self) -> Site {
        let requests = self.requests();
        plan().global(|global| global.signed_jwt(requests).federated(IDP, ISSUER, "idp_sub")).start().await
    }
}

fn unsigned(jwt: &str) -> String {
    format!("{}.", jwt.rsplit_once('.').unwrap().0)
}

/// Each on a site of its own: what fails too often is answered in another way.
#[tokio::test]
async fn s14_okta_auth0_signed_requests_refused() {
    let idp = Idp::new(AS_URL);
    let with = |claims: Value| idp.sign(json!({}), claims);
    let typ = |typ: Value| idp.sign(json!({"typ": typ}), json!({}));
    let invalid = error(401, "invalid_token").challenge(rows::BAD_TOKEN);
    let denied = error(403, "access_denied");
    let hmac = json!({"iss": IDP, "sub": "c-okta", "aud": AS_URL, "jti": "h", "iat": unix(), "exp": unix() + 60});
    let hmac = common::signed(r#"{"alg":"HS256","typ":"global-token-revocation+jwt"}"#, &hmac.to_string());
    let mut t = Table::new();
    for (name, jwt, expect) in [
        ("s14: unsigned", unsigned(&idp.sign(json!({"alg": "none"}), json!({}))), invalid),
        ("s14: signature taken off", unsigned(&with(json!({}))), invalid),
        ("s14: HMAC", hmac, invalid),
        ("s14: HMAC by its name alone", idp.sign(json!({"alg": "HS256"}), json!({})), invalid),
        ("s14: unknown key", idp.signed_by(&Signer::new(), json!({}), json!({})), invalid),
        ("s14: wrong aud", with(json!({"aud": "https://as.example/oauth/revoke"})), invalid),
        ("s14: the issuer's URL as aud", with(json!({"aud": "https://as.example/"})), invalid),
        ("s14: aud with query", with(json!({"aud": format!("{AS_URL}?x=y")})), invalid),
        ("s14: no aud", with(json!({"aud": null})), invalid),
        ("s14: expired", with(json!({"iat": unix() - 400, "exp": unix() - 100})), invalid),
        ("s14: not yet valid", with(json!({"nbf": unix() + 200})), invalid),
        ("s14: lifetime over five minutes", with(json!({"exp": unix() + 330})), invalid),
        ("s14: no exp", with(json!({"exp": null})), invalid),
        ("s14: no jti", with(json!({"jti": null})), invalid),
        ("s14: no sub", with(json!({"sub": null})), invalid),
        ("s14: typ at+jwt", typ(json!("at+jwt")), invalid),
        ("s14: typ logout+jwt", typ(json!("logout+jwt")), invalid),
        ("s14: typ secevent+jwt", typ(json!("secevent+jwt")), invalid),
        ("s14: typ JWT", typ(json!("JWT")), invalid),
        ("s14: no typ", typ(Value::Null), invalid),
        ("s14: a crit header", idp.sign(json!({"crit": ["x"], "x": 1}), json!({})), invalid),
        ("s14: provider of another tenant", with(json!({"iss": "https://idp9.example/"})), invalid),
        ("s14: provider disabled", with(json!({"sub": "disabled"})), denied),
        ("s14: provider not opted in", with(json!({"sub": "not-opted-in"})), denied),
        ("s14: another provider's sender", with(json!({"iss": "https://idp2.example/"})), denied),
    ] {
        let site = idp.site().await;
        let user = site.user();
        let login = site.login(&user, "app").await;
        let subject = iss_sub(IDP, &site.attribute(&user, "idp_sub"));
        let ask = site.log_out(&subject).bearer(&jwt);
        t.row(&site, name, ask, expect, &[Nothing, Unasked, Alive(&login)]).await;
        let ask = site.log_out(&subject).bearer(&with(json!({})));
        t.row(&site, &format!("{name}: a good one counts"), ask, DONE, &[Dead(&login)]).await;
    }
    let site = idp.site().await;
    let login = site.login(&site.user(), "app").await;
    let none = error(401, "invalid_client").challenge(BASIC);
    t.row(&site, "s14: no credential", site.log_out(&iss_sub(IDP, "x")), none, &[Nothing, Unasked]).await;
    let good = with(json!({}));
    let twice = site.log_out(&iss_sub(IDP, "x")).bearer(&good).bearer(&good);
    t.row(&site, "s14: two credentials", twice, error(400, "invalid_request"), &[Nothing, Unasked, Alive(&login)])
        .await;
    t.end();
}

#[tokio::test]
async fn s14_okta_auth0_signed_requests() {
    let idp = Idp::new(AS_URL);
    let site = idp.site().await;
    let mut t = Table::new();
    let signed = |ask: Ask| ask.bearer(&idp.sign(json!({}), json!({})));
    let bystander = site.login(&site.user(), "app").await;
    for (name, attribute) in [("s14: email", "email"), ("s14: iss_sub of the provider", "idp_sub")] {
        let user = site.user();
        let one = site.login(&user, "app").await;
        let offline = site.login_with(&user, "other", "scope=offline_access").await;
        let value = site.attribute(&user, attribute);
        let subject = if attribute == "email" {
            json!({"format": "email", "email": value.to_uppercase()})
        } else {
            iss_sub(IDP, &value)
        };
        let effects = [Dead(&one), Dead(&offline), Alive(&bystander)];
        t.row(&site, name, signed(site.log_out(&subject)), DONE, &effects).await;
        site.next_second().await;
        let back = site.login(&user, "app").await;
        let check = site.api(&back.access).await.status == 200 && site.refresh(&back).await.status == 200;
        t.check(&format!("{name}: the user signs in again"), check, "refused");
    }
    let idle = site.user();
    let holds_nothing = signed(site.log_out(&iss_sub(IDP, &site.attribute(&idle, "idp_sub"))));
    t.row(&site, "s14: a user who holds nothing", holds_nothing, DONE, &[Alive(&bystander)]).await;
    let unknown = error(404, "not_found");
    let nobody = signed(site.log_out(&iss_sub(IDP, "nobody")));
    t.row(&site, "s14: unknown user", nobody, unknown, &[Nothing]).await;
    site.people.add(OTHER, "theirs", "email", "theirs@example.com");
    let theirs = signed(site.log_out(&json!({"format": "email", "email": "theirs@example.com"})));
    t.row(&site, "s14: other provider's user", theirs, unknown, &[Nothing]).await;
    let unmapped = signed(site.log_out(&iss_sub("https://x.example/", "1")));
    t.row(&site, "s14: an issuer that nobody mapped", unmapped, error(400, "invalid_request"), &[Nothing, Unasked])
        .await;
    let extra = signed(site.log_out(&json!({"format": "email", "email": "a@example.com", "x": 1})));
    t.row(&site, "s14: extra member inside sub_id", extra, error(400, "invalid_request"), &[Nothing, Unasked]).await;

    let user = site.user();
    let login = site.login(&user, "app").await;
    let once = idp.sign(json!({}), json!({}));
    let subject = iss_sub(IDP, &site.attribute(&user, "idp_sub"));
    t.row(&site, "s14: a jti for the first time", site.log_out(&subject).bearer(&once), DONE, &[Dead(&login)]).await;
    let victim = site.user();
    let login = site.login(&victim, "app").await;
    let replayed = site.log_out(&iss_sub(IDP, &site.attribute(&victim, "idp_sub"))).bearer(&once);
    let invalid = error(401, "invalid_token").challenge(rows::BAD_TOKEN);
    t.row(&site, "s14: a jti replayed", replayed, invalid, &[Nothing, Unasked, Alive(&login)]).await;
    let again = idp.sign(json!({}), json!({"jti": common_jti(&once)}));
    let resigned = site.log_out(&iss_sub(IDP, &site.attribute(&victim, "idp_sub"))).bearer(&again);
    t.row(&site, "s14: a jti replayed in another JWT", resigned, invalid, &[Nothing, Unasked, Alive(&login)]).await;

    let user = site.user();
    let mut sessions = Vec::new();
    for _ in 0..50 {
        sessions.push(site.login(&user, "app").await);
    }
    let ask = signed(site.log_out(&iss_sub(IDP, &site.attribute(&user, "idp_sub"))));
    let effects: Vec<_> = sessions.iter().map(Dead).chain([Alive(&bystander)]).collect();
    t.row(&site, "s14: 50 sessions", ask, DONE, &effects).await;

    site.switches.set(EndpointName::Global, false);
    let off = site.log_out(&iss_sub(IDP, "x"));
    t.row(&site, "s14: switched off: the service behind is asked", off, BEHIND, &[Nothing, Unasked]).await;
    let document = document(&site).await;
    let absent = document.get("global_token_revocation_endpoint").is_none();
    t.check("s14: switched off: not in the metadata", absent, &document.to_string());
    t.end();
}

fn common_jti(jwt: &str) -> Value {
    profile::site::claims(jwt)["jti"].clone()
}

/// Rule 18: once in the whole fleet.
#[tokio::test]
async fn s14_a_jti_counts_once_on_all_nodes() {
    let idp = Idp::new(AS_URL);
    let backend = Memory::new();
    let node = async || {
        let requests = idp.requests();
        plan().global(|global| global.signed_jwt(requests)).start_on(backend.clone()).await
    };
    let (here, there) = (node().await, node().await);
    let mut t = Table::new();
    let once = idp.sign(json!({}), json!({}));
    let ask = |site: &Site| site.log_out(&iss_sub(ISSUER, &site.user())).bearer(&once);
    t.row(&here, "s14: a jti for the first time", ask(&here), DONE, &[]).await;
    let invalid = error(401, "invalid_token").challenge(rows::BAD_TOKEN);
    t.row(&there, "s14: a jti replayed at another node", ask(&there), invalid, &[Unasked]).await;
    t.end();
}

/// The body of older drafts, and a path of its own for each connection.
#[tokio::test]
async fn s14_auth0_path_and_member() {
    let idp = Idp::new(&format!("{URL}{AUTH0_PATH}"));
    let requests = idp.requests();
    let site = plan()
        .global(|global| global.path(AUTH0_PATH).unwrap().signed_jwt(requests).federated(IDP, ISSUER, "idp_sub"))
        .start()
        .await;
    let mut t = Table::new();
    let user = site.user();
    let login = site.login(&user, "app").await;
    let body = json!({"subject": iss_sub(IDP, &site.attribute(&user, "idp_sub"))}).to_string();
    let at = |path: &str| site.global(&body).at(path);
    let ask = at(AUTH0_PATH).bearer(&idp.sign(json!({}), json!({})));
    t.row(&site, "s14: Auth0's path and member", ask, DONE, &[Dead(&login)]).await;
    let other = at("/oauth/global-token-revocation/connection/okta-2");
    t.row(&site, "s14: another connection", other, BEHIND, &[Nothing]).await;
    let user = site.user();
    let login = site.login(&user, "app").await;
    let wrong = idp.sign(json!({}), json!({"aud": AS_URL}));
    let invalid = error(401, "invalid_token").challenge(rows::BAD_TOKEN);
    t.row(
        &site,
        "s14: for another connection's URL",
        at(AUTH0_PATH).bearer(&wrong),
        invalid,
        &[Nothing, Unasked, Alive(&login)],
    )
    .await;
    t.end();
}

#[tokio::test]
async fn s14_keys_that_cannot_be_fetched() {
    let (listener, address) = listen().await;
    let keys = Keys::jwks_url(format!("https://{address}/"));
    let issuer = Issuer::new(IDP).any_audience().algorithms([Algorithm::EdDSA]).keys(keys);
    let sender = Client::confidential("c-okta").issuers([ISSUER]).scopes(["global_token_revocation"]);
    let requests = SignedRequests::new(AS_URL, [issuer]).unwrap().sender(IDP, sender);
    let site = plan().global(|global| global.signed_jwt(requests)).start().await;
    let mut t = Table::new();
    let user = site.user();
    let login = site.login(&user, "app").await;
    let ask = site.log_out(&iss_sub(ISSUER, &user)).bearer(&Idp::new(AS_URL).sign(json!({}), json!({})));
    let unable = error(422, "temporarily_unavailable");
    t.row(&site, "s14: keys not fetchable", ask, unable, &[Nothing, Unasked, Alive(&login)]).await;
    drop(listener);
    t.end();
}

#[tokio::test]
async fn s14_too_many_failed_signed_requests() {
    let idp = Idp::new(AS_URL);
    let site = idp.site().await;
    let mut t = Table::new();
    let login = site.login(&site.user(), "app").await;
    // By their sender: the proxy that everyone comes through is no address to count.
    let used = idp.sign(json!({}), json!({}));
    let forged = || site.log_out(&iss_sub(IDP, "x")).bearer(&used);
    let mut last = 0;
    for _ in 0..100 {
        last = site.send(&forged()).await.status;
    }
    t.check("s14: too many failed credentials", last == 429, &last.to_string());
    t.row(
        &site,
        "s14: too many failed credentials",
        forged(),
        error(429, "temporarily_unavailable"),
        &[Nothing, Alive(&login)],
    )
    .await;
    t.end();
}

// What goes wrong behind it.

/// A store whose writes can be made to fail, from outside.
struct Store {
    folder: tempfile::TempDir,
    pool: sqlx::SqlitePool,
}

impl Store {
    async fn open() -> (Self, Sqlite) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.db");
        let backend = Sqlite::open(&path).await.unwrap();
        let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.display())).await.unwrap();
        (Self { folder, pool }, backend)
    }

    async fn fails(&self, fails: bool) {
        let statement = match fails {
            true => "CREATE TRIGGER failing BEFORE INSERT ON changes BEGIN SELECT RAISE(ABORT, 'told to fail'); END",
            false => "DROP TRIGGER failing",
        };
        sqlx::query(statement).execute(&self.pool).await.unwrap();
    }
}

/// L3: nothing is pretended, and a retry completes it.
#[tokio::test]
async fn s12_s13_s14_a_store_that_fails() {
    let (store, backend) = Store::open().await;
    let idp = Idp::new(AS_URL);
    let requests = idp.requests();
    let site =
        plan().global(|global| global.signed_jwt(requests).federated(IDP, ISSUER, "idp_sub")).start_on(backend).await;
    let mut t = Table::new();
    let later = error(503, "temporarily_unavailable");
    let jwt = idp.sign(json!({}), json!({}));
    let users = [site.user(), site.user(), site.user()];
    let lone = site.login(&site.user(), "app").await;
    let mut logins = Vec::new();
    for user in &users {
        logins.push(site.login(user, "app").await);
    }
    let subject = iss_sub(IDP, &site.attribute(&users[2], "idp_sub"));
    let rows = [
        ("s12: token revocation", site.revoke(&[&lone.access]).basic("app"), OK, &lone),
        ("s4: session revocation", rows::form(&site, &users[0]).basic("admin"), OK, &logins[0]),
        ("s13: global", site.log_out(&iss_sub(ISSUER, &users[1])).basic("admin"), DONE, &logins[1]),
        ("s14: signed", site.log_out(&subject).bearer(&jwt), DONE, &logins[2]),
    ];
    store.fails(true).await;
    for (name, ask, _, login) in &rows {
        t.row(
            &site,
            &format!("{name}: 503 and Retry-After where the store fails"),
            ask.clone(),
            later,
            &[Nothing, Valid(login)],
        )
        .await;
    }
    store.fails(false).await;
    for (name, ask, expect, login) in rows {
        t.row(&site, &format!("{name}: the very same request again"), ask, expect, &[Dead(login)]).await;
    }
    drop(store.folder);
    t.end();
}

#[tokio::test]
async fn s15_subject_identifiers() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::subject_identifiers(&mut t, &site).await;
    t.end();
}
