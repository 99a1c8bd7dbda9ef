//! Lists of revocations in files: read as a whole or not at all, watched, and never a way to bring a token back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::needless_pass_by_value, missing_docs)]

mod common;

use std::{fs, io::Write as _, net::SocketAddr, os::unix::fs::symlink, path::PathBuf, time::Duration};

use axum::{Router, routing::get};
use common::{ISSUER, eventually, token, unix, verifier};
use serde_json::json;
use tower_revocation::{
    RevocationLayer, Revocations,
    backend::{Backend as _, BackendErrorKind, File, Intent, OneTime, connect},
    denylist::{Staleness, Verdict, Why},
    revocation::{Revocation, Scope},
    sync::SyncConfig,
    token::{Claims, Identity, Verify},
};

struct Site {
    folder: tempfile::TempDir,
    revocations: Revocations,
    address: SocketAddr,
}

/// How long a list that is out of touch is believed.
const AFTER: Duration = Duration::from_secs(2);

impl Site {
    async fn start(name: &str, query: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let backend = connect(&format!("file://{}{query}", path.display())).await.unwrap();
        let revocations = Revocations::start(backend, SyncConfig::new(Staleness::refuse_after(AFTER))).await.unwrap();
        let layer = RevocationLayer::new(revocations.denylist().clone(), Verify::new(verifier()));
        let (listener, address) = common::listen().await;
        let router = Router::new().route("/", get(|| async { "in" })).layer(layer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { folder, revocations, address }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another list in place, as a whole.
    fn replace(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    async fn status(&self, sub: &str) -> u16 {
        let token = token(json!({"sub": sub, "jti": sub, "iat": unix() - 60}));
        common::get(self.address, "/", &[&format!("authorization: Bearer {token}")]).await.status
    }

    async fn becomes(&self, sub: &str, status: u16) {
        eventually(&format!("{sub} {status}"), || async { self.status(sub).await == status }).await;
    }
}

fn subject(sub: &str) -> String {
    subject_at(sub, unix() - 1)
}

fn subject_at(sub: &str, cutoff: u64) -> String {
    json!({"scope": {"kind": "subject", "iss": ISSUER, "sub": sub}, "cutoff": cutoff}).to_string() + "\n"
}

#[tokio::test]
async fn json_lines_are_enforced_and_watched() {
    let token = json!({"scope": {"kind": "token", "iss": ISSUER, "jti": "bob"}}).to_string();
    let site = Site::start("list.jsonl", "", &format!("{}{token}\n", subject("alice"))).await;
    assert_eq!((site.status("alice").await, site.status("bob").await, site.status("carol").await), (401, 401, 200));
    site.replace("list.jsonl", &format!("{}{token}\n{}{{\"end\":3}}\n", subject("alice"), subject("carol")));
    site.becomes("carol", 401).await;
    assert_eq!((site.status("alice").await, site.status("bob").await, site.status("dave").await), (401, 401, 200));
    // Appended in place.
    let mut file = fs::OpenOptions::new().append(true).open(site.path("list.jsonl")).unwrap();
    file.write_all(subject("dave").as_bytes()).unwrap();
    drop(file);
    // It comes after the end that the file says: it is not believed, and nothing else is after a while.
    site.becomes("erin", 503).await;
    assert_eq!(site.status("alice").await, 401);
    site.replace("list.jsonl", &(subject("alice") + &subject("dave")));
    site.becomes("dave", 401).await;
    site.becomes("erin", 200).await;
}

#[tokio::test]
async fn rule_25_a_broken_list_leaves_the_old_one_and_becomes_stale() {
    let good = subject("alice") + &subject("bob");
    let site = Site::start("list.jsonl", "", &good).await;
    for (row, bad) in [
        ("half a line", good[..good.len() - 20].to_owned()),
        ("no line feed", good.trim_end().to_owned()),
        ("a duplicate member", good.replacen("\"sub\":", "\"sub\":\"x\",\"sub\":", 1)),
        ("a line too few", format!("{}{{\"end\":2}}\n", subject("alice"))),
        ("html", "<html></html>\n".to_owned()),
        ("zeros", "\0\0\0\n".to_owned()),
        ("a cutoff in the future", subject_at("carol", unix() + 10_000)),
        ("a kind of another version", subject("carol").replace("subject", "planet")),
    ] {
        site.replace("list.jsonl", &bad);
        site.becomes("carol", 503).await;
        assert_eq!((site.status("alice").await, site.status("bob").await), (401, 401), "{row}");
        site.replace("list.jsonl", &good);
        site.becomes("carol", 200).await;
    }
    fs::remove_file(site.path("list.jsonl")).unwrap();
    site.becomes("carol", 503).await;
    assert_eq!(site.status("alice").await, 401);
    fs::create_dir(site.path("list.jsonl")).unwrap();
    site.becomes("carol", 503).await;
}

#[tokio::test]
async fn a_line_that_is_gone_is_kept_unless_it_is_to_be_lifted() {
    let site = Site::start("list.jsonl", "", &(subject("alice") + &subject("bob"))).await;
    site.replace("list.jsonl", &(subject("carol") + &subject("bob")));
    site.becomes("carol", 401).await;
    assert_eq!((site.status("alice").await, site.status("bob").await), (401, 401));
    // An id is lifted by name.
    let named = |id: &str| {
        json!({"id": id, "scope": {"kind": "subject", "iss": ISSUER, "sub": "dave"}, "cutoff": "forever"}).to_string()
            + "\n"
    };
    site.replace("list.jsonl", &(subject("bob") + &named("00000000000000aa")));
    site.becomes("dave", 401).await;
    let lift =
        json!({"lift": ["00000000000000aa"], "scope": {"kind": "subject", "iss": ISSUER, "sub": "dave"}}).to_string();
    site.replace("list.jsonl", &format!("{}{}{lift}\n", subject("bob"), named("00000000000000aa")));
    site.becomes("dave", 200).await;
    site.replace("list.jsonl", &format!("{}{lift}\n{}", named("00000000000000aa"), named("00000000000000ab")));
    site.becomes("dave", 401).await;

    let query = format!("?subjects={ISSUER}&removed=lift");
    let site = Site::start("banned.txt", &query, "# banned\n\nalice\nbob\n").await;
    assert_eq!((site.status("alice").await, site.status("bob").await, site.status("carol").await), (401, 401, 200));
    for _ in 0..2 {
        site.replace("banned.txt", "bob\n");
        site.becomes("alice", 200).await;
        assert_eq!(site.status("bob").await, 401);
        site.replace("banned.txt", "bob\nalice\n");
        site.becomes("alice", 401).await;
    }
    site.replace("banned.txt", "");
    site.becomes("alice", 200).await;
    // A ban counts for what is issued later too.
    let later = token(json!({"sub": "bob", "jti": "later", "iat": unix()}));
    site.replace("banned.txt", "bob\n");
    site.becomes("bob", 401).await;
    assert_eq!(common::get(site.address, "/", &[&format!("authorization: Bearer {later}")]).await.status, 401);
}

/// As Kubernetes swaps its volumes.
#[tokio::test]
async fn links_may_be_swapped() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, sub) in [("1", "alice"), ("2", "bob")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("list"), subject("always") + &subject(sub)).unwrap();
    }
    symlink("1", at("data")).unwrap();
    symlink("data/list", at("list")).unwrap();
    let backend = File::connect(&format!("file://{}", at("list").display())).await.unwrap();
    let revocations = Revocations::start(backend, SyncConfig::new(Staleness::refuse_after(AFTER))).await.unwrap();
    let check = |sub: &str| {
        let claims = Claims::new(ISSUER).sub(sub).iat(unix() - 60).exp(unix() + 600);
        revocations.denylist().check(&Identity::from_verified(&claims))
    };
    let held = |sub: &str| matches!(check(sub), Verdict::Deny(_));
    assert_eq!((held("alice"), held("bob")), (true, false));
    symlink("2", at("next")).unwrap();
    fs::rename(at("next"), at("data")).unwrap();
    eventually("the other list", || async { held("bob") }).await;
    // A link to nowhere is no empty list.
    symlink("3", at("next")).unwrap();
    fs::rename(at("next"), at("data")).unwrap();
    eventually("the feed is lost", || async { check("carol") == Verdict::Unknown(Why::Stale) }).await;
    assert_eq!((held("alice"), held("bob")), (true, true));
}

#[tokio::test]
async fn nothing_can_be_recorded_in_a_list() {
    let site = Site::start("list.jsonl", "", &subject("alice")).await;
    let refused = site.revocations.revoke(Revocation::new(Scope::subject(ISSUER, "bob"))).await.unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");
    assert_eq!(site.status("bob").await, 200, "nothing is pretended, and nothing half done");
    let backend = site.revocations.backend();
    let one = OneTime::new("n", "iss", "id", [0; 32], unix() + 60);
    let kinds = [
        backend.publish(&[]).await.err().map(|error| error.kind()),
        backend.claim_once(&one).await.err().map(|error| error.kind()),
        backend.finish_once(&one).await.err().map(|error| error.kind()),
        backend.intend(&Intent::new(unix(), [])).await.err().map(|error| error.kind()),
    ];
    assert_eq!(kinds, [Some(BackendErrorKind::ReadOnly); 4]);
    assert!(backend.intents().await.unwrap().is_empty());
}

#[tokio::test]
async fn f11_what_is_no_list_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a list");
    let url = |query: &str| format!("file://{}{query}", path.display().to_string().replace(' ', "%20"));
    let kind = |url: String| async move { File::connect(&url).await.err().map(|error| error.kind()) };
    assert_eq!(kind(url("")).await, Some(BackendErrorKind::Corrupt), "there is none");
    fs::write(&path, "not a list\n").unwrap();
    assert_eq!(kind(url("")).await, Some(BackendErrorKind::Corrupt));
    fs::write(&path, "alice\n").unwrap();
    assert_eq!(kind(url("?subjects=https%3A%2F%2Fissuer.example%2F")).await, None);
    for bad in ["?subjects=", "?subject=x", "?removed=all", "?subjects=%zz", "?x"] {
        assert_eq!(kind(url(bad)).await, Some(BackendErrorKind::Settings), "{bad}");
    }
    for bad in ["file:", "file://", "file://relative", "file://host/path"] {
        let error = kind(bad.to_owned()).await;
        assert!(error.is_some(), "{bad}");
    }
    // Larger than any list that is read; it takes no room on disk.
    fs::File::create(&path).unwrap().set_len((256 << 20) + 1).unwrap();
    assert_eq!(kind(url("")).await, Some(BackendErrorKind::Corrupt));
}
