//! Rows that hold in several profiles.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{
    site::{Ask, GLOBAL_SCOPE, Login, OTHER, SESSION_SCOPE, Site, TOKEN_SCOPE, assertion, caller, unique},
    table::{
        BEHIND, DONE,
        Effect::{Alive, Dead, Nothing, Unasked},
        Expect, OK, Table, error,
    },
};
use crate::common::{ISSUER, token, unix};

pub const BAD_TOKEN: &str = "Bearer realm=\"revocation\", error=\"invalid_token\"";
pub const NO_SCOPE: &str = "Bearer realm=\"revocation\", error=\"insufficient_scope\"";

pub fn form(site: &Site, user: &str) -> Ask {
    site.end_sessions("uid", &site.attribute(user, "uid"))
}

pub fn iss_sub(iss: &str, sub: &str) -> Value {
    json!({"format": "iss_sub", "iss": iss, "sub": sub})
}

/// §1 at the session endpoint: who may, how, and who not.
pub async fn clients_of_the_session_endpoint(
    t: &mut Table,
    site: &Site,
    basic: &str,
    client: Expect<'_>,
    by_token: Expect<'_>,
) {
    let unknown = error(401, "invalid_client").challenge(basic);
    for (name, with) in [
        ("s1: row 2, tls_client_auth", &(|ask: Ask| ask.id("tls").certificate()) as &dyn Fn(Ask) -> Ask),
        ("s1: row 2, self_signed_tls_client_auth", &|ask| ask.id("self").self_signed()),
        ("s1: row 4, Bearer", &|ask| ask.bearer(&caller("app", SESSION_SCOPE))),
        ("s1: row 4, Bearer of several scopes", &|ask| ask.bearer(&caller("app", "openid revoke_session"))),
        ("s1: row 5, JWT assertion", &|ask| ask.assertion(&assertion(&json!({})))),
        ("s1: row 5, JWT assertion and its client_id", &|ask| ask.id("jwt").assertion(&assertion(&json!({})))),
        ("s1: row 6, Basic", &|ask| ask.basic("admin")),
        ("s1: row 6, Basic and its client_id", &|ask| ask.id("admin").basic("admin")),
        ("s1: row 6, Basic, both parts decoded after base64", &|ask| ask.basic_with("an+id%3A1", "p%2Bq+%25")),
        ("s1: row 7, post", &|ask| ask.post("post")),
    ] {
        let user = site.user();
        let login = site.login(&user, "app").await;
        t.row(site, &format!("{name}: session"), with(form(site, &user)), OK, &[Dead(&login)]).await;
    }
    let user = site.user();
    let login = site.login(&user, "app").await;
    for (name, with, expect) in [
        ("s1: no credentials", &(|ask: Ask| ask) as &dyn Fn(Ask) -> Ask, unknown),
        ("s1: row 2, another certificate", &|ask| ask.id("tls").self_signed(), unknown),
        ("s1: row 2, no certificate", &|ask| ask.id("tls"), unknown),
        ("s1: row 2, not verified", &|ask| ask.id("tls").certificate().header("x-ssl-client-verify: FAILED"), unknown),
        ("s1: row 3, public clients are for /revoke alone", &|ask| ask.id("public"), unknown),
        ("s1: row 4, no access token", &|ask| ask.bearer("x"), error(401, "invalid_token").challenge(BAD_TOKEN)),
        (
            "s1: row 4, a user's token for the API",
            &|ask| ask.bearer(&token(json!({"scope": SESSION_SCOPE}))),
            error(401, "invalid_token").challenge(BAD_TOKEN),
        ),
        (
            "s1: the token's scopes count, not those of its client",
            &|ask| ask.bearer(&caller("admin", "openid")),
            by_token,
        ),
        ("s1: row 5, forged assertion", &|ask| ask.assertion(&format!("{}A", assertion(&json!({})))), unknown),
        (
            "s1: row 5, assertion for another server",
            &|ask| ask.assertion(&assertion(&json!({"aud": "https://x.example"}))),
            unknown,
        ),
        ("s1: row 5, assertion of another client", &|ask| ask.assertion(&assertion(&json!({"iss": "admin"}))), unknown),
        ("s1: row 6, wrong secret", &|ask| ask.basic_with("admin", "x"), unknown),
        ("s1: row 6, unknown client", &|ask| ask.basic("nobody"), unknown),
        ("s1: row 6, registered for post", &|ask| ask.basic("post"), unknown),
        ("s1: row 6, no base64", &|ask| ask.header("authorization: Basic !"), unknown),
        ("s1: row 7, wrong secret", &|ask| ask.id("post").field("client_secret", "x"), unknown),
        ("s1: row 7, registered for Basic", &|ask| ask.post("admin"), unknown),
        ("s1: another scheme", &|ask| ask.header("authorization: Digest username=\"admin\""), unknown),
        ("s12: two methods", &|ask| ask.basic("admin").post("post"), error(400, "invalid_request")),
        (
            "s12: two Authorization headers",
            &|ask| ask.basic("admin").bearer(&caller("app", SESSION_SCOPE)),
            error(400, "invalid_request"),
        ),
        ("s1: two clients", &|ask| ask.basic("admin").id("root"), error(400, "invalid_request")),
        ("s4: client without the scope", &|ask| ask.basic("app"), client),
        ("s1: row 1, OPTIONS", &|ask| ask.method("OPTIONS"), error(405, "invalid_request")),
    ] {
        let ask = with(form(site, &user));
        t.row(site, &format!("{name}: session"), ask, expect, &[Nothing, Unasked, Alive(&login)]).await;
    }
}

/// §1 at the global endpoint. Its body is JSON, so that what goes into a form has no place there.
pub async fn clients_of_the_global_endpoint(
    t: &mut Table,
    site: &Site,
    basic: &str,
    client: Expect<'_>,
    by_token: Expect<'_>,
) {
    let unknown = error(401, "invalid_client").challenge(basic);
    for (name, with) in [
        ("s1: row 4, Bearer", &(|ask: Ask| ask.bearer(&caller("app", GLOBAL_SCOPE))) as &dyn Fn(Ask) -> Ask),
        ("s1: row 6, Basic", &|ask| ask.basic("admin")),
        ("s1: row 6, Basic, both parts decoded after base64", &|ask| ask.basic_with("an+id%3A1", "p%2Bq+%25")),
    ] {
        let user = site.user();
        let login = site.login(&user, "app").await;
        let ask = with(site.log_out(&iss_sub(ISSUER, &user)));
        t.row(site, &format!("{name}: global"), ask, DONE, &[Dead(&login)]).await;
    }
    let user = site.user();
    let login = site.login(&user, "app").await;
    let query = format!("client_id=jwt&client_assertion={}", assertion(&json!({})));
    for (name, with, expect) in [
        ("s1: no credentials", &(|ask: Ask| ask) as &dyn Fn(Ask) -> Ask, unknown),
        (
            "s1: row 7, post in the query: rule 17",
            &|ask| ask.query("client_id=post&client_secret=post-secret"),
            error(400, "invalid_request"),
        ),
        ("s1: row 5, assertion in the query: rule 17", &|ask| ask.query(&query), error(400, "invalid_request")),
        ("s1: row 3, public client in the query", &|ask| ask.query("client_id=public"), error(400, "invalid_request")),
        ("s1: row 4, no access token", &|ask| ask.bearer("x"), error(401, "invalid_token").challenge(BAD_TOKEN)),
        ("s1: the token's scopes count, not those of its client", &|ask| ask.bearer(&caller("admin", "x")), by_token),
        ("s1: row 6, wrong secret", &|ask| ask.basic_with("admin", "x"), unknown),
        ("s1: row 6, unknown client", &|ask| ask.basic("nobody"), unknown),
        ("s1: row 6, registered for post", &|ask| ask.basic("post"), unknown),
        ("s12: two Authorization headers", &|ask| ask.basic("admin").basic("app"), error(400, "invalid_request")),
        ("s5: client without the scope", &|ask| ask.basic("app"), client),
        ("s5: GET", &|ask| ask.method("GET"), error(405, "invalid_request")),
        ("s1: row 1, OPTIONS", &|ask| ask.method("OPTIONS"), error(405, "invalid_request")),
    ] {
        let ask = with(site.log_out(&iss_sub(ISSUER, &user)));
        t.row(site, &format!("{name}: global"), ask, expect, &[Nothing, Unasked, Alive(&login)]).await;
    }
}

/// §1, row 2, at the global endpoint: its body has no place for a `client_id`, so that the certificate says it all.
pub async fn certificates_at_the_global_endpoint(t: &mut Table, site: &Site, basic: &str) {
    let user = site.user();
    let login = site.login(&user, "app").await;
    let log_out = || site.log_out(&iss_sub(ISSUER, &user));
    let unknown = error(401, "invalid_client").challenge(basic);
    let not_verified = log_out().certificate().header("x-ssl-client-verify: FAILED");
    let effects = [Nothing, Unasked, Alive(&login)];
    t.row(site, "s1: row 2, not verified: global", not_verified, unknown, &effects).await;
    t.row(site, "s1: row 2, tls_client_auth: global", log_out().certificate(), DONE, &[Dead(&login)]).await;
    let user = site.user();
    let login = site.login(&user, "app").await;
    let ask = site.log_out(&iss_sub(ISSUER, &user)).self_signed();
    t.row(site, "s1: row 2, self_signed_tls_client_auth: global", ask, DONE, &[Dead(&login)]).await;
}

/// §1 at the token endpoint.
pub async fn clients_of_the_token_endpoint(t: &mut Table, site: &Site, basic: &str) {
    let unknown = error(401, "invalid_client").challenge(basic);
    for (name, client, with) in [
        ("s1: row 2, tls_client_auth", "tls", &(|ask: Ask| ask.id("tls").certificate()) as &dyn Fn(Ask) -> Ask),
        ("s1: row 2, self_signed_tls_client_auth", "self", &|ask| ask.id("self").self_signed()),
        ("s1: row 3, public client", "public", &|ask| ask.id("public")),
        ("s1: row 4, Bearer", "app", &|ask| ask.bearer(&caller("app", TOKEN_SCOPE))),
        ("s1: row 5, JWT assertion", "jwt", &|ask| ask.assertion(&assertion(&json!({})))),
        ("s1: row 6, Basic", "app", &|ask| ask.basic("app")),
        ("s1: row 7, post", "post", &|ask| ask.post("post")),
    ] {
        let login = site.login(&site.user(), client).await;
        let ask = with(site.revoke(&[&login.access]));
        t.row(site, &format!("{name}: token"), ask, OK, &[Dead(&login)]).await;
    }
    let login = site.login(&site.user(), "app").await;
    let bearer = |scope| caller("app", scope);
    for (name, with, expect) in [
        ("s1: no credentials", &(|ask: Ask| ask) as &dyn Fn(Ask) -> Ask, unknown),
        ("s6: bad client credentials", &|ask| ask.basic_with("app", "x"), unknown),
        ("s6: unauthenticated, confidential client", &|ask| ask.id("app"), unknown),
        ("s6: unauthenticated, unknown client", &|ask| ask.id("nobody"), unknown),
        ("s1: row 4, no access token", &|ask| ask.bearer("x"), error(401, "invalid_token").challenge(BAD_TOKEN)),
        (
            "s1: row 4, Bearer without the scope",
            &|ask| ask.bearer(&bearer("openid")),
            error(403, "insufficient_scope").challenge(NO_SCOPE),
        ),
        (
            "s1: row 4, Bearer of another client",
            &|ask| ask.bearer(&caller("other", TOKEN_SCOPE)),
            error(400, "invalid_request"),
        ),
        ("s12: two methods", &|ask| ask.basic("app").post("post"), error(400, "invalid_request")),
        ("s12: two clients", &|ask| ask.basic("app").id("other"), error(400, "invalid_request")),
        ("s1: row 1, OPTIONS", &|ask| ask.method("OPTIONS"), error(405, "invalid_request")),
        ("s12: only POST", &|ask| ask.method("GET"), error(405, "invalid_request")),
    ] {
        let ask = with(site.revoke(&[&login.access]));
        t.row(site, &format!("{name}: token"), ask, expect, &[Nothing, Alive(&login)]).await;
    }
}

/// §4, but for who may.
pub async fn session_revocation(t: &mut Table, site: &Site) {
    let [user, bystander] = [site.user(), site.user()];
    let one = site.login(&user, "app").await;
    let two = site.login(&user, "other").await;
    let opaque = site.login_with(&user, "public", "opaque=yes").await;
    let unseen = Login::unseen(token(json!({"sub": user, "sid": "unseen", "jti": format!("unseen-{}", unique())})));
    let theirs = site.login(&bystander, "app").await;
    let effects = [Dead(&one), Dead(&two), Dead(&opaque), Dead(&unseen), Alive(&theirs)];
    t.row(site, "s4: sessions found", form(site, &user).basic("admin"), OK, &effects).await;
    t.row(site, "s4: again", form(site, &user).basic("admin"), OK, &[Dead(&one), Alive(&theirs)]).await;
    site.next_second().await;
    let back = site.login(&user, "app").await;
    let check = site.api(&back.access).await.status == 200 && site.refresh(&back).await.status == 200;
    t.check("s4: the user signs in again", check, "refused");

    let idle = site.user();
    t.row(site, "s4: user without sessions", form(site, &idle).basic("admin"), OK, &[Alive(&theirs)]).await;
    let nobody = site.end_sessions("uid", "nobody").basic("admin");
    t.row(site, "s4: unknown user", nobody, OK, &[Nothing, Alive(&theirs)]).await;
    let nothing = site.end_sessions("no-such-attribute", "x").basic("admin");
    t.row(site, "s4: unknown attribute", nothing, OK, &[Nothing, Alive(&theirs)]).await;

    let [first, second] = [site.user(), site.user()];
    for user in [&first, &second] {
        site.people.add(ISSUER, user, "team", "red");
    }
    let (a, b) = (site.login(&first, "app").await, site.login(&second, "app").await);
    let team = site.end_sessions("team", "red").basic("admin");
    t.row(site, "s4: several users: one or more", team, OK, &[Dead(&a), Dead(&b), Alive(&theirs)]).await;
    site.people.add(OTHER, "foreigner", "team", "blue");
    let foreigner = Login::unseen(token(json!({"iss": OTHER, "sub": "foreigner", "jti": "foreigner-1"})));
    let team = site.end_sessions("team", "blue").basic("admin");
    for careless in [false, true] {
        site.people.careless.store(careless, Ordering::Relaxed);
        let name = format!("rule 14: a user of another issuer, careless directory: {careless}");
        t.row(site, &name, team.clone(), OK, &[Nothing, Alive(&foreigner)]).await;
    }
    site.people.careless.store(false, Ordering::Relaxed);

    let bad = error(400, "invalid_request");
    for (name, body) in [
        ("s4: no value: never nothing to do", "user_criterion_key=uid"),
        ("s4: no key", "user_criterion_value=x"),
        ("s4: empty value", "user_criterion_key=uid&user_criterion_value="),
        ("s4: empty key", "user_criterion_key=&user_criterion_value=x"),
        ("s4: nothing", ""),
        ("s12: repeated parameter", "user_criterion_key=uid&user_criterion_key=uid&user_criterion_value=x"),
    ] {
        let ask = Ask::form(site.paths.session, body).basic("admin");
        t.row(site, name, ask, bad, &[Nothing, Unasked, Alive(&theirs)]).await;
    }
    let unknown = form(site, &site.user()).field("state", "x").basic("admin");
    t.row(site, "s12: unknown parameter", unknown, OK, &[Alive(&theirs)]).await;
    let json = Ask::new("POST", site.paths.session).header("content-type: application/json").body("{}").basic("admin");
    t.row(site, "s4: not a form", json, error(415, "invalid_request"), &[Nothing, Unasked]).await;
}

/// §15: every format, and what is none.
pub async fn subject_identifiers(t: &mut Table, site: &Site) {
    let bystander = site.login(&site.user(), "app").await;
    for (format, member) in [
        ("account", "uri"),
        ("email", "email"),
        ("opaque", "id"),
        ("phone_number", "phone_number"),
        ("did", "url"),
        ("uri", "uri"),
    ] {
        let user = site.user();
        let login = site.login(&user, "app").await;
        let subject = json!({"format": format, member: site.attribute(&user, format)});
        let ask = site.log_out(&subject).basic("admin");
        t.row(site, &format!("s15: {format}"), ask, DONE, &[Dead(&login), Alive(&bystander)]).await;
        for (what, value) in [
            ("extra member", json!({"format": format, member: site.attribute(&user, format), "x": "y"})),
            ("missing member", json!({"format": format})),
            ("null", json!({"format": format, member: null})),
            ("empty", json!({"format": format, member: ""})),
            ("a number", json!({"format": format, member: 1})),
            ("an array", json!({"format": format, member: [site.attribute(&user, format)]})),
        ] {
            let ask = site.log_out(&value).basic("admin");
            t.row(site, &format!("s15: {format}, {what}"), ask, error(400, "invalid_request"), &[Nothing, Unasked])
                .await;
        }
    }
    let user = site.user();
    let login = site.login(&user, "app").await;
    let ask = site.log_out(&iss_sub(ISSUER, &user)).basic("admin");
    t.row(site, "s15: iss_sub", ask, DONE, &[Dead(&login), Alive(&bystander)]).await;
    let user = site.user();
    let login = site.login(&user, "app").await;
    let subject = json!({"format": "aliases", "identifiers": [
        {"format": "email", "email": "nobody@example.com"}, {"format": "uri", "uri": site.attribute(&user, "uri")},
    ]});
    let ask = site.log_out(&subject).basic("admin");
    t.row(site, "s15: aliases", ask, DONE, &[Dead(&login), Alive(&bystander)]).await;

    let email = json!({"format": "email", "email": "a@example.com"});
    for (name, subject) in [
        ("s15: no format", json!({"email": "a@example.com"})),
        ("s15: format null", json!({"format": null, "email": "a@example.com"})),
        ("s15: empty object", json!({})),
        ("s15: null", json!(null)),
        ("s15: a string", json!("a@example.com")),
        ("s15: an array", json!([email])),
        ("s15: iss_sub without sub", json!({"format": "iss_sub", "iss": ISSUER})),
        ("s15: iss_sub without iss", json!({"format": "iss_sub", "sub": "x"})),
        ("s15: iss_sub, empty sub", iss_sub(ISSUER, "")),
        ("s15: iss_sub, extra member", json!({"format": "iss_sub", "iss": ISSUER, "sub": "x", "id": "x"})),
        (
            "s15: aliases in aliases",
            json!({"format": "aliases", "identifiers": [
            {"format": "aliases", "identifiers": [email]}]}),
        ),
        ("s15: aliases, none", json!({"format": "aliases", "identifiers": []})),
        ("s15: aliases, one of them broken", json!({"format": "aliases", "identifiers": [email, {"format": "email"}]})),
        ("s15: aliases, extra member", json!({"format": "aliases", "identifiers": [email], "x": 1})),
        ("s15: no E.164 number", json!({"format": "phone_number", "phone_number": "2065550100"})),
        ("s15: no acct URI", json!({"format": "account", "uri": "mailto:a@example.com"})),
        ("s15: no DID", json!({"format": "did", "url": "https://example.com"})),
        ("s15: unknown format", json!({"format": "ip-addresses", "ip-addresses": ["192.0.2.1"]})),
        ("s15: Google's old subject_type", json!({"subject_type": "email", "email": "a@example.com"})),
    ] {
        let ask = site.log_out(&subject).basic("admin");
        t.row(site, name, ask, error(400, "invalid_request"), &[Nothing, Unasked, Alive(&bystander)]).await;
    }
}

/// §5 and §13: bodies of the global endpoint that name nobody.
pub async fn bodies_that_name_nobody(t: &mut Table, site: &Site) {
    let user = site.user();
    let login = site.login(&user, "app").await;
    let good = format!(r#""sub_id":{}"#, iss_sub(ISSUER, &user));
    for (name, body) in [
        ("s5: {}: 400, not 500", "{}".to_owned()),
        ("s5: null: 400, not 500", "null".to_owned()),
        ("s5: sub_id null: 400, not 500", r#"{"sub_id":null}"#.to_owned()),
        ("s5: empty body", String::new()),
        ("s5: not JSON", "sub_id=alice".to_owned()),
        ("s5: wrong types", r#"{"sub_id":["alice"]}"#.to_owned()),
        ("s5: array", "[]".to_owned()),
        ("s5: unknown member", format!(r#"{{{good},"more":1}}"#)),
        ("s5: id without format", r#"{"sub_id":{"id":"breakfast"}}"#.to_owned()),
        ("s5: format without id", r#"{"sub_id":{"format":"uid"}}"#.to_owned()),
        ("L6: a member twice", format!("{{{good},{good}}}")),
        ("s26: sub_id and subject, different", format!(r#"{{{good},"subject":{{"format":"opaque","id":"1"}}}}"#)),
        ("s13: two documents", format!("{{{good}}}{{}}")),
    ] {
        let ask = site.global(body).basic("admin");
        t.row(site, name, ask, error(400, "invalid_request"), &[Nothing, Unasked, Alive(&login)]).await;
    }
    let good = format!("{{{good}}}");
    let typed = |line: &str| Ask::new("POST", site.paths.global).header(line).body(&good).basic("admin");
    for (name, ask) in [
        ("s13: not application/json", typed("content-type: text/plain")),
        ("s13: a form", typed("content-type: application/x-www-form-urlencoded")),
        ("s13: no type", Ask::new("POST", site.paths.global).body(&good).basic("admin")),
        ("rule 17: coded", typed("content-type: application/json").header("content-encoding: gzip")),
    ] {
        t.row(site, name, ask, error(415, "invalid_request"), &[Nothing, Unasked, Alive(&login)]).await;
    }
    let query = site.global(&good).query("x=1").basic("admin");
    t.row(site, "rule 17: a query", query, error(400, "invalid_request"), &[Nothing, Unasked, Alive(&login)]).await;
}

/// §5 and §13: what it does.
pub async fn global_effects(t: &mut Table, site: &Site) {
    let [user, bystander] = [site.user(), site.user()];
    let theirs = site.login(&bystander, "app").await;
    let jwt = site.login(&user, "app").await;
    let others = site.login(&user, "other").await;
    let opaque = site.login_with(&user, "public", "opaque=yes").await;
    let offline = site.login_with(&user, "post", "scope=openid%20offline_access").await;
    let unseen = Login::unseen(token(json!({"sub": user, "jti": format!("unseen-{}", unique())})));
    let clients_own =
        Login::unseen(token(json!({"sub": "app", "client_id": "app", "jti": format!("own-{}", unique())})));
    let effects =
        [Dead(&jwt), Dead(&others), Dead(&opaque), Dead(&offline), Dead(&unseen), Alive(&theirs), Alive(&clients_own)];
    let ask = site.log_out(&iss_sub(ISSUER, &user)).basic("admin");
    t.row(site, "s13: access and refresh tokens of every client, offline_access too", ask.clone(), DONE, &effects)
        .await;
    t.row(site, "s13: again: a user who holds nothing any more", ask, DONE, &[Dead(&jwt), Alive(&theirs)]).await;
    site.next_second().await;
    let back = site.login(&user, "app").await;
    let check = site.api(&back.access).await.status == 200 && site.refresh(&back).await.status == 200;
    t.check("s13, rule 8: the user signs in again in the next second", check, "refused");
    let refused = site.refresh(&offline).await;
    let check = refused.status == 400 && refused.body.contains("invalid_grant");
    t.check("s13: without a new login the old refresh token stays dead", check, &refused.body);
    let idle = site.log_out(&iss_sub(ISSUER, &site.user())).basic("admin");
    t.row(site, "s14: a user who never held anything", idle, DONE, &[Alive(&theirs)]).await;
}

/// §12: what RFC 7009 asks of every server.
pub async fn rfc_7009(t: &mut Table, site: &Site) {
    let bystander = site.login(&site.user(), "app").await;
    for by_refresh in [false, true] {
        let login = site.login(&site.user(), "app").await;
        let token = if by_refresh { &login.refresh } else { &login.access };
        let kind = if by_refresh { "refresh" } else { "access" };
        let ask = site.revoke(&[token]).basic("app");
        let name = format!("s12: {kind} token revoked: access and refresh token are dead");
        t.row(site, &name, ask.clone(), OK, &[Dead(&login), Alive(&bystander)]).await;
        t.row(site, &format!("s12: {kind} token already revoked"), ask, OK, &[Dead(&login), Alive(&bystander)]).await;
        for hint in ["access_token", "refresh_token", "foobar", ""] {
            let login = site.login(&site.user(), "app").await;
            let token = if by_refresh { &login.refresh } else { &login.access };
            let ask = site.revoke(&[token]).field("token_type_hint", hint).basic("app");
            let name = format!("s12: {kind} token with the hint {hint:?}: found all the same");
            t.row(site, &name, ask, OK, &[Dead(&login), Alive(&bystander)]).await;
        }
    }
    let login = site.login(&site.user(), "app").await;
    let earlier = Login::unseen(login.access.clone());
    let renewed = Login::of(&site.refresh(&login).await, "app");
    let ask = site.revoke(&[&renewed.refresh]).basic("app");
    let effects = [Dead(&renewed), Dead(&earlier), Alive(&bystander)];
    t.row(site, "s12: refresh token revoked: all access tokens of its grant are dead", ask, OK, &effects).await;
    let login = site.login(&site.user(), "app").await;
    let ask = site.revoke(&[&login.access]).field("unheard_of", "x").basic("app");
    t.row(site, "s12: unknown parameter ignored", ask, OK, &[Dead(&login)]).await;

    let login = site.login(&site.user(), "app").await;
    let (access, revoke) = (&login.access, site.paths.token);
    let expired = token(json!({"client_id": "app", "jti": "expired", "iat": unix() - 900, "exp": unix() - 300}));
    t.row(site, "s12: expired token", site.revoke(&[&expired]).basic("app"), OK, &[Alive(&login)]).await;
    for (name, ask, expect) in [
        ("s12: a token of another client", site.revoke(&[access]).basic("other"), error(400, "invalid_request")),
        (
            "s12: its refresh token by another",
            site.revoke(&[&login.refresh]).basic("other"),
            error(400, "invalid_request"),
        ),
        ("s12: by another, public client", site.revoke(&[access]).id("public"), error(400, "invalid_request")),
        ("s12: no token", Ask::form(revoke, "x=y").basic("app"), error(400, "invalid_request")),
        (
            "s12: a parameter without value is absent",
            Ask::form(revoke, "token=").basic("app"),
            error(400, "invalid_request"),
        ),
        (
            "s12: repeated token",
            site.revoke(&[access]).field("token", access).basic("app"),
            error(400, "invalid_request"),
        ),
        (
            "s12: repeated hint",
            site.revoke(&[access]).field("token_type_hint", "a").field("token_type_hint", "a").basic("app"),
            error(400, "invalid_request"),
        ),
        (
            "rule 17: the token in the query",
            Ask::form(revoke, "x=y").query(&format!("token={access}")).basic("app"),
            error(400, "invalid_request"),
        ),
        (
            "s12: not a form",
            Ask::new("POST", revoke).header("content-type: application/json").body("{}").basic("app"),
            error(415, "invalid_request"),
        ),
    ] {
        t.row(site, name, ask, expect, &[Nothing, Alive(&login)]).await;
    }
    // Rule 16.
    let nameless = Login::unseen(token(json!({"client_id": "app", "sub": site.user()})));
    t.row(site, "rule 16: a token without jti", site.revoke(&[&nameless.access]).basic("app"), OK, &[Dead(&nameless)])
        .await;
    // Rule 13.
    let user = site.user();
    let ours = site.login_with(&user, "app", "sid=shared").await;
    let shared = site.login_with(&user, "other", "sid=shared").await;
    let elsewhere = site.login_with(&user, "app", "sid=another").await;
    let ask = site.revoke(&[&ours.access]).basic("app");
    t.row(site, "rule 13: the session at its client only", ask, OK, &[Dead(&ours), Alive(&shared), Alive(&elsewhere)])
        .await;
    // Rule 14.
    let namesake = Login::unseen(token(json!({"iss": OTHER, "client_id": "app", "jti": format!("n-{}", unique())})));
    let ask = site.revoke(&[&namesake.access]).basic("app");
    t.row(
        site,
        "rule 14: a namesake's token of another issuer",
        ask,
        error(400, "invalid_request"),
        &[Nothing, Alive(&namesake)],
    )
    .await;
}

/// The paths of other profiles are the service's behind.
pub async fn foreign_paths(t: &mut Table, site: &Site, paths: &[&str]) {
    for path in paths {
        let ask = Ask::form(path, "token=x");
        t.row(site, &format!("design 6: {path} is no endpoint here"), ask, BEHIND, &[Nothing]).await;
    }
}
