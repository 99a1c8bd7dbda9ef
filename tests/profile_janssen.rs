//! The Janssen profile, row by row of the wire specification (`s4`: its §4): what Janssen Server documents, unless it
//! breaks a law of the design.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;
mod profile;

use common::{ISSUER, get, token};
use profile::{
    rows,
    site::{
        Ask, GLOBAL_SCOPE, Login, MTLS_URL, OTHER, Plan, SESSION_SCOPE, Site, TOKEN_SCOPE, URL, caller, claims, unique,
    },
    table::{
        DONE,
        Effect::{Alive, Dead, Nothing, Unasked},
        Expect, OK, Table, error,
    },
};
use serde_json::{Value, json};
use tower_revocation::endpoint::{EndpointName, Profile};

const BASIC: &str = "Basic realm=\"jans-auth\"";
/// §4, §5: 401 where others say 403; with a challenge, since RFC 9110 §15.5.2 wants one.
const NO_SCOPE: Expect<'_> = error(401, "invalid_request").challenge(BASIC);

fn plan() -> Plan {
    Plan::new(Profile::Janssen)
}

#[tokio::test]
async fn s1_client_authentication() {
    let site = plan().start().await;
    let mut t = Table::new();
    // The challenge is of the scheme that was tried (section 26.8).
    let by_token = NO_SCOPE.challenge(rows::NO_SCOPE);
    rows::clients_of_the_session_endpoint(&mut t, &site, BASIC, NO_SCOPE, by_token).await;
    rows::clients_of_the_global_endpoint(&mut t, &site, BASIC, NO_SCOPE, by_token).await;
    rows::clients_of_the_token_endpoint(&mut t, &site, BASIC).await;
    t.end();
}

#[tokio::test]
async fn s1_the_scheme_access_token() {
    let site = plan().start().await;
    let mut t = Table::new();
    let scheme = |ask: Ask, token: &str| ask.header(&format!("authorization: AccessToken {token}"));
    let user = site.user();
    let login = site.login(&user, "app").await;
    let ask = scheme(rows::form(&site, &user), &caller("app", SESSION_SCOPE));
    t.row(&site, "s1: row 4, AccessToken: session", ask, OK, &[Dead(&login)]).await;
    let user = site.user();
    let login = site.login(&user, "app").await;
    let ask = scheme(site.log_out(&rows::iss_sub(ISSUER, &user)), &caller("app", GLOBAL_SCOPE));
    t.row(&site, "s1: row 4, AccessToken: global", ask, DONE, &[Dead(&login)]).await;
    let login = site.login(&site.user(), "app").await;
    let ask = scheme(site.revoke(&[&login.access]), &caller("app", TOKEN_SCOPE));
    t.row(&site, "s1: row 4, AccessToken: token", ask, OK, &[Dead(&login)]).await;
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
async fn s3_feature_flags() {
    let site = plan().start().await;
    let mut t = Table::new();
    let user = site.user();
    let login = site.login(&user, "app").await;
    let off = Expect::exactly(403, r#"{"error":"access_denied","error_description":"access_denied"}"#);
    let stranger = error(401, "invalid_client").challenge(BASIC);
    let (token, session, global) =
        (site.revoke(&[&login.access]), rows::form(&site, &user), site.log_out(&rows::iss_sub(ISSUER, &user)));
    for (flag, endpoint, ask, client) in [
        ("revoke_token", EndpointName::Token, &token, "app"),
        ("revoke_session", EndpointName::Session, &session, "admin"),
        ("global_token_revocation", EndpointName::Global, &global, "admin"),
    ] {
        site.switches.set(endpoint, false);
        let effects = [Nothing, Unasked, Alive(&login)];
        t.row(&site, &format!("s3: {flag} off"), ask.clone().basic(client), off, &effects).await;
        let name = format!("s3: {flag} off: authentication comes first");
        t.row(&site, &name, ask.clone().basic_with(client, "x"), stranger, &effects).await;
        t.row(&site, &format!("s3: {flag} off: no credentials"), ask.clone(), stranger, &effects).await;
        site.switches.set(endpoint, true);
    }
    t.row(&site, "s3: on again", token.basic("app"), OK, &[Dead(&login)]).await;
    t.end();
}

#[tokio::test]
async fn s4_session() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::session_revocation(&mut t, &site).await;
    let user = site.user();
    let login = site.login(&user, "app").await;
    let elsewhere = rows::form(&site, &user).basic("elsewhere");
    t.row(&site, "rule 14: a client of another issuer", elsewhere, OK, &[Nothing, Alive(&login)]).await;
    t.row(
        &site,
        "s4: a client without any scope",
        rows::form(&site, &user).basic("other"),
        NO_SCOPE,
        &[Nothing, Unasked],
    )
    .await;
    let other_scope = rows::form(&site, &user).bearer(&caller("app", GLOBAL_SCOPE));
    t.row(
        &site,
        "s4: the scope of the other endpoint",
        other_scope,
        NO_SCOPE.challenge(rows::NO_SCOPE),
        &[Nothing, Unasked],
    )
    .await;
    t.end();
}

#[tokio::test]
async fn s5_global() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::bodies_that_name_nobody(&mut t, &site).await;
    rows::global_effects(&mut t, &site).await;

    let bystander = site.login(&site.user(), "app").await;
    let user = site.user();
    let login = site.login(&user, "app").await;
    let uid = json!({"format": "uid", "id": site.attribute(&user, "uid")});
    let ask = site.log_out(&uid).basic("admin");
    t.row(&site, "s5: sub_id as attribute and value", ask, DONE, &[Dead(&login), Alive(&bystander)]).await;
    let user = site.user();
    let login = site.login(&user, "app").await;
    let uid = json!({"format": "uid", "id": site.attribute(&user, "uid")});
    let ask = site.log_out(&uid).bearer(&caller("app", GLOBAL_SCOPE));
    t.row(&site, "s5: the sample, with Bearer", ask, DONE, &[Dead(&login), Alive(&bystander)]).await;
    let other_scope = site.log_out(&uid).bearer(&caller("app", SESSION_SCOPE));
    t.row(
        &site,
        "s5: the scope of the other endpoint",
        other_scope,
        NO_SCOPE.challenge(rows::NO_SCOPE),
        &[Nothing, Unasked],
    )
    .await;

    let user = site.user();
    let login = site.login(&user, "app").await;
    let opaque = json!({"format": "opaque", "id": site.attribute(&user, "opaque")});
    let ask = site.log_out(&opaque).basic("admin");
    t.row(&site, "s26.5: format opaque is RFC 9493's", ask, DONE, &[Dead(&login), Alive(&bystander)]).await;
    let nobody = json!({"format": "uid", "id": "nobody"});
    t.row(&site, "s5: user not found", site.log_out(&nobody).basic("admin"), DONE, &[Nothing, Alive(&bystander)]).await;
    let nobody = json!({"format": "email", "email": "nobody@example.com"});
    t.row(&site, "s5: user not found, RFC 9493", site.log_out(&nobody).basic("admin"), DONE, &[Nothing]).await;
    let attribute = json!({"format": "no-such-attribute", "id": "x"});
    t.row(&site, "s5: unknown attribute", site.log_out(&attribute).basic("admin"), DONE, &[Nothing]).await;
    let bad = error(400, "invalid_request");
    for (name, subject) in [
        ("s5: attribute and value, extra member", json!({"format": "uid", "id": "x", "more": "y"})),
        ("s5: attribute, empty value", json!({"format": "uid", "id": ""})),
        ("s5: attribute, value null", json!({"format": "uid", "id": null})),
        ("s5: attribute, value an array", json!({"format": "uid", "id": ["x"]})),
        ("s5: empty attribute", json!({"format": "", "id": "x"})),
    ] {
        t.row(&site, name, site.log_out(&subject).basic("admin"), bad, &[Nothing, Unasked]).await;
    }

    let [first, second] = [site.user(), site.user()];
    site.people.add(OTHER, "theirs", "team", "red");
    for user in [&first, &second] {
        site.people.add(ISSUER, user, "team", "red");
    }
    let (a, b) = (site.login(&first, "app").await, site.login(&second, "app").await);
    let theirs = Login::unseen(token(json!({"iss": OTHER, "sub": "theirs", "jti": format!("t-{}", unique())})));
    let ask = site.log_out(&json!({"format": "team", "id": "red"})).basic("admin");
    t.row(&site, "s5: several users: the first found", ask, DONE, &[Dead(&a), Alive(&b), Alive(&theirs)]).await;
    let unmapped = site.log_out(&rows::iss_sub("https://unmapped.example/", "x")).basic("admin");
    t.row(&site, "rule 15: never a silent 204", unmapped, bad, &[Nothing]).await;
    let subject = site.user();
    let login = site.login(&subject, "app").await;
    let body = json!({"subject": rows::iss_sub(ISSUER, &subject)}).to_string();
    t.row(&site, "s26.4: the member subject", site.global(body).basic("admin"), DONE, &[Dead(&login)]).await;
    t.end();
}

/// §5: the caller's own token is a token of the user too.
#[tokio::test]
async fn s5_the_callers_own_token() {
    let site = plan().start().await;
    let mut t = Table::new();
    let user = site.user();
    let own = token(json!({
        "aud": "https://as.example/revocation", "sub": user, "client_id": "app", "scope": GLOBAL_SCOPE, "jti": "own",
    }));
    let ask = site.log_out(&rows::iss_sub(ISSUER, &user)).bearer(&own);
    t.row(&site, "s5: with a token of the user", ask.clone(), DONE, &[]).await;
    let refused = error(401, "invalid_token").challenge(rows::BAD_TOKEN);
    t.row(&site, "s5: the same token again", ask, refused, &[Nothing, Unasked]).await;
    t.end();
}

#[tokio::test]
async fn s6_token() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::rfc_7009(&mut t, &site).await;
    let bystander = site.login(&site.user(), "app").await;
    let bad = error(400, "invalid_request");

    for garbage in ["a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        let ask = site.revoke(&[garbage]).basic("app");
        t.row(&site, &format!("s6: invalid token {garbage}"), ask, OK, &[Nothing, Alive(&bystander)]).await;
    }
    t.row(&site, "s6: unknown token", site.revoke(&["opaque"]).basic("app"), OK, &[Alive(&bystander)]).await;
    let unknown = site.revoke(&["opaque-too"]).id("public");
    t.row(&site, "s6: unknown token, public client", unknown, OK, &[Nothing, Alive(&bystander)]).await;
    t.row(&site, "s6: blank token", site.revoke(&[" "]).basic("app"), bad, &[Nothing, Alive(&bystander)]).await;

    for by_refresh in [false, true] {
        let login = site.login_with(&site.user(), "app", "opaque=yes").await;
        let token = if by_refresh { &login.refresh } else { &login.access };
        let kind = if by_refresh { "refresh" } else { "access" };
        let ask = site.revoke(&[token]).basic("app");
        let name = format!("s6: all tokens of the grant, by an opaque {kind} token");
        t.row(&site, &name, ask, OK, &[Dead(&login), Alive(&bystander)]).await;
        let login = site.login(&site.user(), "public").await;
        let token = if by_refresh { &login.refresh } else { &login.access };
        let ask = site.revoke(&[token]).id("public");
        t.row(&site, &format!("s6: public client, by its {kind} token"), ask, OK, &[Dead(&login)]).await;
    }

    let [one, two, foreign] = [
        site.login(&site.user(), "app").await,
        site.login(&site.user(), "app").await,
        site.login(&site.user(), "other").await,
    ];
    let ask = site.revoke(&[&one.access, &foreign.access, &two.refresh]).basic("app");
    let alive = [Nothing, Alive(&one), Alive(&two), Alive(&foreign)];
    t.row(&site, "s6: a list with a foreign token in the middle revokes nothing", ask, bad, &alive).await;
    let ask = site.revoke(&[&one.access, &foreign.refresh]).basic("app");
    t.row(&site, "s6: a list with a foreign refresh token revokes nothing", ask, bad, &alive).await;
    let commas = Ask::form(site.paths.token, &format!("token={},{}", one.access, two.access)).basic("app");
    t.row(&site, "s6: not separated by commas", commas, OK, &[Alive(&one), Alive(&two)]).await;
    let ask = site.revoke(&[&one.access, "a.b.c", &two.refresh]).basic("app");
    t.row(&site, "s6: a list", ask, OK, &[Dead(&one), Dead(&two), Alive(&foreign)]).await;
    let unseen = |client: &str| {
        Login::unseen(token(json!({"client_id": client, "sub": site.user(), "jti": format!("j-{}", unique())})))
    };
    let [one, two, foreign] = [unseen("app"), unseen("app"), unseen("other")];
    let ask = site.revoke(&[&one.access, &foreign.access, &two.access]).basic("app");
    let alive = [Nothing, Alive(&one), Alive(&two), Alive(&foreign)];
    t.row(&site, "s6: a list that the recorder does not know, one of them foreign", ask, bad, &alive).await;
    let ask = site.revoke(&[&one.access, &two.access]).basic("app");
    t.row(&site, "s6: a list that the recorder does not know", ask, OK, &[Dead(&one), Dead(&two)]).await;
    let many = site.revoke(&["x"; 65]).basic("app");
    t.row(&site, "s6: a list of more than 64", many, bad, &[Nothing]).await;
    t.row(
        &site,
        "s6: allowAllValueForRevokeEndpoint off",
        site.revoke(&["all"]).basic("app"),
        OK,
        &[Alive(&bystander)],
    )
    .await;
    let foreign = site.revoke(&[&bystander.access]);
    t.row(&site, "s6: allowRevokeForOtherClients off", foreign.basic("root"), bad, &[Nothing, Alive(&bystander)]).await;
    t.end();
}

#[tokio::test]
async fn s6_the_hint_jti() {
    let site = plan().start().await;
    let mut t = Table::new();
    let jti_of = |login: &Login| claims(&login.access)["jti"].as_str().unwrap().to_owned();
    let login = site.login(&site.user(), "app").await;
    let by_jti = |login: &Login| Ask::form(site.paths.token, "token_type_hint=jti").field("token", &jti_of(login));
    // Whose it is shows in no answer: a jti is no secret to whoever guesses it.
    t.row(&site, "s6: jti of another client", by_jti(&login).basic("other"), OK, &[Alive(&login)]).await;
    t.row(&site, "s6: hint jti", by_jti(&login).basic("app"), OK, &[Dead(&login)]).await;
    t.end();
}

#[tokio::test]
async fn s6_tokens_of_other_clients() {
    let site = plan().token(|token| token.allow_other_clients(true)).start().await;
    let mut t = Table::new();
    let bad = error(400, "invalid_request");
    let unseen = |client: &str| {
        Login::unseen(token(json!({"client_id": client, "sub": site.user(), "jti": format!("j-{}", unique())})))
    };
    let login = unseen("app");
    let ask = site.revoke(&[&login.access]).basic("other");
    t.row(&site, "s6: allowed, without the scope revoke_any_token", ask, bad, &[Nothing, Alive(&login)]).await;
    let ask = site.revoke(&[&login.access]).id("public");
    t.row(&site, "s6: allowed, public client", ask, bad, &[Nothing, Alive(&login)]).await;
    let ask = site.revoke(&[&login.access]).basic("root");
    t.row(&site, "s6: allowed, with the scope", ask, OK, &[Dead(&login)]).await;
    t.end();
}

#[tokio::test]
async fn s6_all_tokens_of_the_client() {
    let mut t = Table::new();
    for (spelling, hint) in [("all", ""), ("ALL", "access_token"), ("All", "refresh_token")] {
        let site = plan().token(|token| token.allow_all([ISSUER])).start().await;
        let mine = [site.login(&site.user(), "app").await, site.login(&site.user(), "app").await];
        let opaque = site.login_with(&site.user(), "app", "opaque=yes").await;
        let theirs = site.login(&site.user(), "other").await;
        let public = site.login(&site.user(), "public").await;
        let refused = site.revoke(&[spelling]).id("public");
        let anyone = error(400, "unauthorized_client");
        t.row(&site, "s6: token=all of a public client", refused, anyone, &[Nothing, Alive(&public)]).await;
        let ask = site.revoke(&[spelling]).field("token_type_hint", hint).basic("app");
        let effects = [Dead(&mine[0]), Dead(&mine[1]), Dead(&opaque), Alive(&theirs), Alive(&public)];
        t.row(&site, &format!("s6: token={spelling}, hint {hint:?}"), ask, OK, &effects).await;
    }
    t.end();
}

async fn configuration(site: &Site) -> Value {
    let answer = get(site.address, site.paths.metadata, &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn s7_discovery() {
    let members = [
        (EndpointName::Token, "revocation_endpoint", "/jans-auth/restv1/revoke"),
        (EndpointName::Session, "session_revocation_endpoint", "/jans-auth/restv1/revoke_session"),
        (EndpointName::Global, "global_token_revocation_endpoint", "/jans-auth/restv1/global-token-revocation"),
    ];
    let mut t = Table::new();
    let plain = plan().start().await;
    let mtls = plan().metadata(|metadata| metadata.mtls_external_url(MTLS_URL)).start().await;
    let (document, aliased) = (configuration(&plain).await, configuration(&mtls).await);
    t.check("s7: the server's own members stay", document["issuer"] == ISSUER, &document.to_string());
    t.check("s7: no aliases without a URL", document.get("mtls_endpoint_aliases").is_none(), &document.to_string());
    for (endpoint, member, path) in members {
        t.check(&format!("s7: {member}"), document[member] == format!("{URL}{path}"), &document.to_string());
        let alias = aliased["mtls_endpoint_aliases"][member] == format!("{MTLS_URL}{path}");
        t.check(&format!("s7: mtls_endpoint_aliases.{member}"), alias, &aliased.to_string());
        let methods = format!("{member}_auth_methods_supported");
        t.check(&format!("s7: {methods} is never published"), document.get(&methods).is_none(), &document.to_string());
        mtls.switches.set(endpoint, false);
        let without = configuration(&mtls).await;
        let gone = without.get(member).is_none() && without["mtls_endpoint_aliases"].get(member).is_none();
        t.check(&format!("s7: the flag of {member} off"), gone, &without.to_string());
        let others = members.iter().filter(|other| other.1 != member);
        let stay = others.clone().all(|other| without[other.1] == format!("{URL}{}", other.2));
        t.check(&format!("s7: the flag of {member} off, the others stay"), stay, &without.to_string());
        mtls.switches.set(endpoint, true);
    }
    for (endpoint, ..) in members {
        mtls.switches.set(endpoint, false);
    }
    let nothing = configuration(&mtls).await;
    t.check("s7: aliases only if there is one", nothing.get("mtls_endpoint_aliases").is_none(), &nothing.to_string());
    let mine = plan().token(|token| token.path("/mine/revoke").unwrap()).start().await;
    let document = configuration(&mine).await;
    let at = document["revocation_endpoint"] == format!("{URL}/mine/revoke");
    t.check("s7: tokenRevocationEndpoint", at, &document.to_string());
    t.end();
}

/// Where the server behind names an endpoint of its own: nobody can reach it while ours is off.
#[tokio::test]
async fn s7_a_flag_off_removes_the_servers_own_member() {
    let members = [
        (EndpointName::Token, "revocation_endpoint"),
        (EndpointName::Session, "session_revocation_endpoint"),
        (EndpointName::Global, "global_token_revocation_endpoint"),
    ];
    let theirs = json!({
        "issuer": ISSUER, "revocation_endpoint": "https://behind.example/1",
        "session_revocation_endpoint": "https://behind.example/2",
        "global_token_revocation_endpoint": "https://behind.example/3",
    });
    let site = plan().document(theirs).start().await;
    let mut t = Table::new();
    for (endpoint, member) in members {
        site.switches.set(endpoint, false);
        let off = configuration(&site).await;
        t.check(&format!("s7: the flag of {member} off"), off.get(member).is_none(), &off.to_string());
        site.switches.set(endpoint, true);
    }
    t.end();
}

#[tokio::test]
async fn s15_subject_identifiers() {
    let site = plan().start().await;
    let mut t = Table::new();
    rows::subject_identifiers(&mut t, &site).await;
    rows::foreign_paths(&mut t, &site, &["/oauth/revoke", "/oauth/revoke_session", "/oauth/global-token-revocation"])
        .await;
    t.end();
}
