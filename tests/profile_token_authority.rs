//! The TokenAuthority profile, row by row of the wire specification (`s9`: its §9): what TokenAuthority documents,
//! unless it breaks a law of the design or RFC 7009.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;
mod profile;

use common::{ISSUER, get, signed, token, unix};
use profile::{
    rows,
    site::{Ask, Login, Plan, Site, URL, assertion, claims, unique},
    table::{
        Effect::{Alive, Dead, Nothing},
        Expect, OK, Table, error,
    },
};
use serde_json::{Value, json};
use tower_revocation::endpoint::{EndpointName, Profile};

const BASIC: &str = "Basic realm=\"revocation\"";
const UNSUPPORTED: Expect<'_> = Expect::exactly(400, r#"{"error":"unsupported_token_type"}"#);

async fn start() -> Site {
    Plan::new(Profile::TokenAuthority).start().await
}

#[tokio::test]
async fn s9_routes_and_revocation() {
    let site = start().await;
    let mut t = Table::new();
    let bystander = site.login(&site.user(), "app").await;
    let bad = error(400, "invalid_request");
    // The action is chosen by the hint, the session found whatever it says.
    for (kind, by_refresh) in [("access", false), ("refresh", true)] {
        for hint in ["access_token", "refresh_token", "foobar", "", "none at all"] {
            let login = site.login(&site.user(), "app").await;
            let ask = site.revoke(&[if by_refresh { &login.refresh } else { &login.access }]).basic("app");
            let ask = if hint == "none at all" { ask } else { ask.field("token_type_hint", hint) };
            let name = format!("s9: session found by its {kind} token, hint {hint:?}: both tokens die");
            let effects = [Dead(&login), Alive(&bystander)];
            t.row(&site, &name, ask.clone(), OK, &effects).await;
            t.row(&site, &format!("{name}: already revoked"), ask, OK, &effects).await;
        }
        let login = site.login(&site.user(), "app").await;
        let renewed = Login::of(&site.refresh(&login).await, "app");
        let old = Login::unseen(login.access.clone());
        let ask = site.revoke(&[if by_refresh { &login.refresh } else { &login.access }]).basic("app");
        let name = format!("s9: by the {kind} token of an earlier session of the grant: the newest one dies too");
        t.row(&site, &name, ask, OK, &[Dead(&renewed), Dead(&old), Alive(&bystander)]).await;
    }
    let login = site.login(&site.user(), "app").await;
    let expired = token(json!({
        "jti": claims(&login.access)["jti"], "client_id": "app", "iat": unix() - 900, "exp": unix() - 300,
    }));
    let ask = site.revoke(&[&expired]).basic("app");
    t.row(&site, "s9: an expired token finds its session", ask, OK, &[Dead(&login), Alive(&bystander)]).await;
    let unknown = token(json!({"jti": format!("unknown-{}", unique()), "client_id": "app"}));
    t.row(&site, "s9: unknown jti", site.revoke(&[&unknown]).basic("app"), OK, &[Alive(&bystander)]).await;
    let unowned = token(json!({"jti": format!("unknown-{}", unique()), "client_id": null, "sub": null}));
    t.row(&site, "s9: unknown jti, names no client", site.revoke(&[&unowned]).basic("app"), OK, &[Alive(&bystander)])
        .await;

    let payload = json!({"iss": ISSUER, "jti": "x", "client_id": "app", "iat": unix(), "exp": unix() + 60}).to_string();
    for (name, garbage) in [
        ("s9: no JWT", "garbage".to_owned()),
        ("s9: shaped like a JWT", "a.b.c".to_owned()),
        ("s9: bad signature", format!("{}A", login.access)),
        ("s9: alg none", signed(r#"{"alg":"none"}"#, &payload)),
        ("s9: another alg", signed(r#"{"alg":"HS512"}"#, &payload)),
        ("s9: a list of tokens is no JWT", format!("{}%20{}", bystander.access, bystander.access)),
        ("s9: all is no JWT", "all".to_owned()),
    ] {
        let ask = site.revoke(&[&garbage]).basic("app");
        t.row(&site, name, ask, UNSUPPORTED, &[Nothing, Alive(&bystander)]).await;
    }
    let path = site.paths.token;
    let hint = Ask::form(path, "token_type_hint=access_token");
    for (name, ask, expect) in [
        ("s9: token missing: 400, not 500", hint.basic("app"), bad),
        ("s9: another client's token: refused", site.revoke(&[&bystander.access]).basic("other"), bad),
        ("s9: another client's refresh token: refused", site.revoke(&[&bystander.refresh]).basic("other"), bad),
        ("s9: another client's token, public client", site.revoke(&[&bystander.access]).id("public"), bad),
        ("s9: only POST", site.revoke(&[&bystander.access]).basic("app").method("PUT"), error(405, "invalid_request")),
    ] {
        t.row(&site, name, ask, expect, &[Nothing, Alive(&bystander)]).await;
    }
    rows::foreign_paths(
        &mut t,
        &site,
        &["/oauth/revoke_session", "/oauth/global-token-revocation", "/jans-auth/restv1/revoke"],
    )
    .await;
    t.end();
}

#[tokio::test]
async fn s9_client_authentication() {
    let site = start().await;
    let mut t = Table::new();
    for (name, client, with) in [
        ("s9: public client", "public", &(|ask: Ask| ask.id("public")) as &dyn Fn(Ask) -> Ask),
        ("s9: Basic, no client_id", "app", &|ask| ask.basic("app")),
        ("s9: Basic, the same client_id", "app", &|ask| ask.id("app").basic("app")),
        ("s9: post", "post", &|ask| ask.post("post")),
        ("s9: private_key_jwt", "jwt", &|ask| ask.assertion(&assertion(&json!({})))),
        ("s9: mTLS", "tls", &|ask| ask.id("tls").certificate()),
    ] {
        let login = site.login(&site.user(), client).await;
        t.row(&site, name, with(site.revoke(&[&login.access])), OK, &[Dead(&login)]).await;
    }
    let login = site.login(&site.user(), "app").await;
    let refused = error(401, "invalid_client").challenge(BASIC);
    for (name, with, expect) in [
        (
            "s9: Basic, another client_id",
            &(|ask: Ask| ask.id("other").basic("app")) as &dyn Fn(Ask) -> Ask,
            error(400, "invalid_request"),
        ),
        ("s9: Basic, unknown id", &|ask| ask.basic("nobody"), refused),
        ("s9: Basic, wrong secret", &|ask| ask.basic_with("app", "x"), refused),
        ("s9: no credentials", &|ask| ask, refused),
        ("s9: wrong secret in the body", &|ask| ask.id("post").field("client_secret", "x"), refused),
        ("s9: a confidential client's name alone", &|ask| ask.id("app"), refused),
        (
            "s9: public client in the query: rule 17",
            &|ask| ask.query("client_id=public"),
            error(400, "invalid_request"),
        ),
        (
            "s9: an access token is no client",
            &|ask| ask.bearer("x"),
            error(401, "invalid_token").challenge(rows::BAD_TOKEN),
        ),
    ] {
        t.row(&site, name, with(site.revoke(&[&login.access])), expect, &[Nothing, Alive(&login)]).await;
    }
    t.end();
}

/// Where it is registered so: `SecretMethod::Either`.
#[tokio::test]
async fn s9_post_of_a_client_registered_for_basic() {
    let site = start().await;
    let mut t = Table::new();
    let login = site.login(&site.user(), "either").await;
    let ask = site.revoke(&[&login.access]).post("either");
    t.row(&site, "s9: post, also of a client registered for Basic", ask, OK, &[Dead(&login)]).await;
    let login = site.login(&site.user(), "either").await;
    let ask = site.revoke(&[&login.access]).basic("either");
    t.row(&site, "s9: Basic of the same client", ask, OK, &[Dead(&login)]).await;
    t.end();
}

#[tokio::test]
async fn s10_sessions() {
    let site = start().await;
    let mut t = Table::new();
    let login = site.login(&site.user(), "app").await;
    let renewed = Login::of(&site.refresh(&login).await, "app");
    let old = site.api(&login.access).await.status;
    t.check("s10: a refresh ends the access token", old == 401, &old.to_string());
    let live = site.api(&renewed.access).await.status;
    t.check("s10: the new one lives", live == 200, &live.to_string());
    let replayed = site.refresh(&login).await;
    let refused = replayed.status == 400 && replayed.body.contains("\"invalid_request\"");
    t.check("s10: replay", refused, &replayed.body);
    let live = site.api(&renewed.access).await.status;
    t.check("s10: a replay ends the newest session", live == 401, &live.to_string());
    t.end();
}

#[tokio::test]
async fn s7_metadata() {
    let site = start().await;
    let mut t = Table::new();
    let document = async || {
        let answer = get(site.address, site.paths.metadata, &[]).await;
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    let on = document().await;
    t.check("s10: revocation_endpoint", on["revocation_endpoint"] == format!("{URL}/oauth/revoke"), &on.to_string());
    for member in [
        "revocation_endpoint_auth_methods_supported",
        "session_revocation_endpoint",
        "global_token_revocation_endpoint",
        "introspection_endpoint",
    ] {
        t.check(&format!("s10: no {member}"), on.get(member).is_none(), &on.to_string());
    }
    site.switches.set(EndpointName::Token, false);
    let off = document().await;
    t.check("s7: switched off", off.get("revocation_endpoint").is_none(), &off.to_string());
    t.end();
}

#[tokio::test]
async fn s12_rfc7009_token_revocation() {
    let site = start().await;
    let mut t = Table::new();
    rows::rfc_7009(&mut t, &site).await;
    t.end();
}
