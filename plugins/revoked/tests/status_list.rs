//! Token Status Lists through the daemon: tokens that point to one, and the one that it publishes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod site;

use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use site::{
    Daemon, Site, Upstream, bearer, eventually, get,
    token::{ISSUER, SECRET, token, token_with, unix},
    wire::post_form,
};
use tower_revocation::status_list::{Bits, Status, StatusList};

const ON: &str = "\n[status_list]\nenabled = true\nallow_http = true\n";

/// Serves a list with these statuses at this path.
fn serve(lists: &Upstream, path: &str, statuses: &[(u64, u8)], ttl: u64) -> String {
    let uri = format!("{}{path}", lists.url());
    let mut list = StatusList::all_valid(Bits::TWO, 64);
    statuses.iter().for_each(|(idx, status)| list.set(*idx, Status(*status)).unwrap());
    let claims = json!({
        "iss": ISSUER, "sub": uri, "iat": unix(), "exp": unix() + 600, "ttl": ttl,
        "status_list": {"bits": 2, "lst": list.compress()},
    });
    let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
    let input = format!("{}.{}", encode(r#"{"alg":"HS256","typ":"statuslist+jwt"}"#), encode(&claims.to_string()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), input.as_bytes());
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
    lists.answers(path, 200, "application/statuslist+jwt", token);
    uri
}

fn listed(uri: &str, idx: u64) -> String {
    token_with(json!({"jti": format!("{idx}"), "status": {"status_list": {"uri": uri, "idx": idx}}}))
}

#[tokio::test]
async fn every_door_over_http_holds_tokens_against_their_list() {
    let (lists, site) = (Upstream::start().await, Site::new(ON).await);
    let uri = serve(&lists, "/lists/1", &[(1, 1), (2, 2), (3, 3)], 300);
    for (idx, status) in [(0, 200), (1, 401), (2, 401), (3, 401), (63, 200), (64, 401)] {
        let token = listed(&uri, idx);
        assert_eq!(site.daemon.with_token(&token).await.status, status, "{idx}: the proxy");
        let check = get(site.daemon.check, "/check", &[&bearer(&token)]).await;
        assert_eq!(check.status, status, "{idx}: forward-auth");
    }
    assert_eq!(lists.requests().len(), 1);
    assert_eq!(lists.last().all("accept"), ["application/statuslist+jwt"]);
    assert_eq!(site.daemon.with_token(&listed(&format!("{}/none", lists.url()), 0)).await.status, 503);
    assert_eq!(site.daemon.with_token(&listed("https://127.0.0.1:1/list", 0)).await.status, 503);
    assert_eq!(site.daemon.with_token(&token("none")).await.status, 200);
    let malformed = token_with(json!({"status": {"status_list": {"uri": uri, "idx": "0"}}}));
    assert_eq!(site.daemon.with_token(&malformed).await.status, 401);
}

#[tokio::test]
async fn a_token_is_refused_once_the_refreshed_list_says_so() {
    let (lists, site) = (Upstream::start().await, Site::new(ON).await);
    let uri = serve(&lists, "/lists/1", &[], 1);
    let token = listed(&uri, 5);
    assert_eq!(site.daemon.with_token(&token).await.status, 200);
    serve(&lists, "/lists/1", &[(5, 1)], 1);
    eventually("it is refused", async || site.daemon.with_token(&token).await.status == 401).await;
}

#[tokio::test]
async fn the_settings_say_what_counts() {
    let lists = Upstream::start().await;
    let uri = serve(&lists, "/lists/1", &[(1, 1), (2, 2)], 300);
    let off = Site::new("").await;
    assert_eq!(off.daemon.with_token(&listed(&uri, 1)).await.status, 200);
    let no_http = Site::new("\n[status_list]\nenabled = true\n").await;
    assert_eq!(no_http.daemon.with_token(&listed(&uri, 0)).await.status, 503);
    eventually("the log says why", async || no_http.daemon.says("it is not https")).await;
    let settings = "missing = \"deny\"\naccept = [\"suspended\"]\nunavailable = \"allow\"\ntimeout = \"1s\"\n";
    let strict = Site::new(&format!("{ON}{settings}")).await;
    for (token, status) in [
        (listed(&uri, 0), 200),
        (listed(&uri, 1), 401),
        (listed(&uri, 2), 200),
        (token("none"), 401),
        (listed(&format!("{}/none", lists.url()), 0), 200),
    ] {
        // A list whose server answers with an error counts as none: it is no status list.
        assert_eq!(strict.daemon.with_token(&token).await.status, status);
    }
}

#[tokio::test]
async fn janssens_tokens_have_it_beside_the_other_claims() {
    let lists = Upstream::start().await;
    let uri = serve(&lists, "/jans-auth/restv1/status_list", &[(1, 1)], 300);
    let token = |idx: u64| token_with(json!({"status_list": {"uri": uri, "idx": idx}}));
    let janssen = Site::new(&format!("profile = \"janssen\"\n{ON}")).await;
    assert_eq!(janssen.daemon.with_token(&token(0)).await.status, 200);
    assert_eq!(janssen.daemon.with_token(&token(1)).await.status, 401);
    let standard = Site::new(ON).await;
    assert_eq!(standard.daemon.with_token(&token(1)).await.status, 200);
}

const PUBLISH: &str = "\n[recorder]\ntoken_endpoint = \"/oauth/token\"\n\n[status_list.publish]\npath = \"/statuslists/1\"\n\
                       key_file = \"list.pem\"\nttl = \"2s\"\nentries = 128\n";

async fn publishing(folder: tempfile::TempDir, upstream: &Upstream) -> Daemon {
    let path = folder.path().join("list.pem");
    if !path.exists() {
        let der = STANDARD.encode(Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap());
        std::fs::write(path, format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")).unwrap();
    }
    Daemon::start_in(folder, &upstream.url(), PUBLISH).await
}

async fn published(daemon: &Daemon) -> (Value, StatusList) {
    let answer = get(daemon.main, "/statuslists/1", &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/statuslist+jwt")));
    let text = answer.text();
    let payload = URL_SAFE_NO_PAD.decode(text.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    let lst = claims["status_list"]["lst"].as_str().unwrap();
    let list = StatusList::decompress(Bits::ONE, lst, 1 << 20).unwrap();
    (claims, list)
}

#[tokio::test]
async fn the_denylist_is_published_for_tokens_that_the_server_behind_issues() {
    let upstream = Upstream::start().await;
    let daemon = publishing(tempfile::tempdir().unwrap(), &upstream).await;
    let (claims, list) = published(&daemon).await;
    assert_eq!(claims["sub"], "https://api.example/statuslists/1");
    assert_eq!((claims["iss"].as_str(), list.len()), (Some(ISSUER), 128));

    let issue = async |token: &str| {
        let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": 600}).to_string();
        upstream.answers("/oauth/token", 200, "application/json", body);
        let basic = format!("authorization: Basic {}", STANDARD.encode("app:s3cret"));
        post_form(daemon.main, "/oauth/token", &[&basic], "grant_type=client_credentials").await
    };
    let uri = "https://api.example/statuslists/1";
    let (one, two) = (listed(uri, 41), listed(uri, 42));
    for token in [&one, &two] {
        let answer = issue(token).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(published(&daemon).await.1.get(41), Some(Status::VALID));
    daemon.revoke(&one).await;
    eventually("it is invalid in the list", async || published(&daemon).await.1.get(41) == Some(Status::INVALID)).await;
    assert_eq!(published(&daemon).await.1.get(42), Some(Status::VALID));
    // An index that the list does not have, and one that another token has: neither token is released.
    assert_eq!(issue(&listed(uri, 128)).await.status, 503);
    let other = token_with(json!({"jti": "other", "status": {"status_list": {"uri": uri, "idx": 42}}}));
    assert_eq!(issue(&other).await.status, 503);
    assert_eq!(get(daemon.main, "/statuslists/1?time=5", &[]).await.status, 501);
}
