//! Roll-out of the daemon: `[rollout]`, the report, and every command of `docs/rollout.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod admin_common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use admin_common::{Daemon, ISSUER, check_config, eventually, jwt, unix};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The configuration with this at its end, in place of what was there.
fn roll_out(daemon: &Daemon, section: &str) {
    let text = fs::read_to_string(daemon.config()).unwrap();
    let rest = text.split("\n[rollout]\n").next().unwrap();
    daemon.write_config(&format!("{rest}\n{section}"));
}

fn rolled_out(daemon: &Daemon, section: &str) {
    roll_out(daemon, section);
    daemon.reload("was read anew");
}

#[test]
fn shadow_is_per_scope_and_per_rule_and_changes_at_a_reload() {
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "\n[rollout]\nshadow = [\"all\"]\n");
    let text = fs::read_to_string(daemon.config()).unwrap();
    daemon.write_config(
        &text.replace("[[issuer]]", "[tokens]\nmissing_jti = \"deny\"\nmissing_sid = \"deny\"\n\n[[issuer]]"),
    );
    let daemon = daemon.running();
    let (alice, no_jti, no_sid) =
        (jwt(json!({})), jwt(json!({ "sub": "bob", "jti": null })), jwt(json!({ "sub": "carol", "sid": null })));
    daemon.cli(&["revoke", "--subject", "alice"]).succeeded();
    let through = || [&alice, &no_jti, &no_sid].map(|token| daemon.through(token));
    assert_eq!(through(), [200, 200, 200]);
    let checked = daemon.cli(&["check", "--json", &alice]).succeeded().json();
    assert_eq!(
        (&checked["verdict"], &checked["shadow"], &checked["reason"]),
        (&json!("allow"), &json!(true), &json!("revoked"))
    );

    rolled_out(&daemon, "[rollout]\nshadow = [\"missing_jti\", \"session\"]\n");
    assert_eq!(through(), [401, 200, 401]);
    let checked = daemon.cli(&["check", "--json", &alice]);
    assert_eq!((checked.code, &checked.json()["shadow"]), (3, &json!(false)));
    daemon.cli(&["lift", "--subject", "alice"]).succeeded();
    daemon.cli(&["revoke", "--session", "s1"]).succeeded();
    assert_eq!(through(), [200, 200, 401]);

    // The store is asked who enforces what: this node alone, and it does not enforce sessions.
    assert_eq!(daemon.cli(&["revoke", "--subject", "dora", "--wait", "all"]).code, 0);
    let run = daemon.cli(&["revoke", "--session", "s9", "--wait", "all", "--wait-limit", "1"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.err.contains("(in shadow)"), "{run:?}");
    let nodes = daemon.get("/api/v1/nodes").json();
    assert_eq!(
        (&nodes["nodes"][0]["shadows"], &nodes["nodes"][0]["state"]),
        (&json!(["session"]), &json!("in_shadow"))
    );

    rolled_out(&daemon, "[rollout]\npercent = 100\n");
    assert_eq!(through(), [401, 401, 401]);
    eventually("it is known to enforce", || daemon.get("/api/v1/nodes").json()["nodes"][0]["enforces"] == true);
    assert_eq!(daemon.cli(&["revoke", "--session", "s8", "--wait", "all"]).code, 0);

    // A file that cannot be used changes nothing.
    roll_out(&daemon, "[rollout]\nshadow = [\"everything\"]\n");
    daemon.reload("the configuration was refused");
    assert_eq!(through(), [401, 401, 401]);
}

#[test]
fn a_share_of_the_users_never_flaps_and_only_grows() {
    let nobody = Daemon::prepared("sqlite://revoked.db", true, "\n[rollout]\npercent = 0\n").running();
    nobody.cli(&["revoke", "--issuer", ISSUER]).succeeded();
    let tokens: Vec<_> = (0..60).map(|n| jwt(json!({ "sub": format!("user-{n}"), "jti": format!("{n}") }))).collect();
    let refused = |daemon: &Daemon| -> Vec<bool> { tokens.iter().map(|token| daemon.through(token) == 401).collect() };
    let count = |refused: &[bool]| refused.iter().filter(|refused| **refused).count();
    let mut before = refused(&nobody);
    assert_eq!(count(&before), 0);
    for percent in ["20.5", "50", "100"] {
        rolled_out(&nobody, &format!("[rollout]\npercent = {percent}\n"));
        let now = refused(&nobody);
        assert!(before.iter().zip(&now).all(|(before, now)| !before || *now), "{percent}: somebody was let out again");
        before = now;
        if percent == "50" {
            // Another node on the same store says the same; six standard deviations for the size.
            assert!((7..53).contains(&count(&before)), "{}", count(&before));
            let url = format!("sqlite://{}", nobody.path("revoked.db").display());
            let other = Daemon::prepared(&url, true, "\n[rollout]\npercent = 50\n").running();
            assert_eq!(refused(&other), before);
        }
    }
    assert_eq!(count(&before), 60);
}

#[test]
fn a_roll_out_that_cannot_be_one_is_refused_with_its_place() {
    for (section, expected) in [
        ("shadow = [\"sub\"]", "cannot be in shadow"),
        ("percent = 101", "is no share"),
        ("percent = -1", "is no share"),
        ("percent = 0.001", "is no share"),
        ("percent = nan", "is no share"),
        ("percent = \"5\"", "percent"),
        ("shadw = []", "unknown key"),
    ] {
        let daemon = Daemon::prepared("memory:", true, &format!("\n[rollout]\n{section}\n"));
        let run = check_config(&daemon.config());
        assert_eq!(run.code, 2, "{section}: {run:?}");
        assert!(run.err.contains(expected) && run.err.contains("revoked.toml:"), "{section}: {run:?}");
    }
}

#[test]
fn the_report_names_clients_and_no_token() {
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "\n[rollout]\nshadow = [\"all\"]\n").running();
    let evil = jwt(json!({ "client_id": "\u{1b}[2J<b>evil", "jti": null, "exp": unix() + 10_000_000 }));
    daemon.cli(&["revoke", "--session", "s1"]).succeeded();
    for token in [&jwt(json!({})), &evil, "nonsense"] {
        assert_eq!(daemon.through(token), 200);
    }
    let report = daemon.cli(&["report", "--json"]).succeeded().json();
    let rows = report["refused"].as_array().unwrap();
    let row =
        |reason: &str| rows.iter().find(|row| row["reason"] == reason).unwrap_or_else(|| panic!("{reason}: {report}"));
    assert_eq!(
        (
            &row("revoked")["client_id"],
            &row("revoked")["iss"],
            &row("revoked")["scope"],
            &row("revoked")["would_refuse"]
        ),
        (&json!("app"), &json!(ISSUER), &json!("session"), &json!(1))
    );
    assert_eq!(row("lives_too_long")["client_id"], "\u{1b}[2J<b>evil");
    assert_eq!(row("malformed_token")["sender"], "unknown");
    assert_eq!((&report["would_refuse_in_all"], &report["refused_in_all"]), (&json!(3), &json!(0)));
    assert_eq!(report["missing"][0]["jti"], 1, "{report}");
    let shown = daemon.cli(&["report"]).succeeded().out;
    assert!(
        shown.contains("WOULD REFUSE") && shown.contains("\\u{1b}[2J<b>evil") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    // L9
    assert!(evil.split('.').all(|part| !report.to_string().contains(part)));
    assert_eq!(daemon.ask("POST", "/api/v1/report", &[], "").status, 405);
}

/// An issuer's key, and tokens that it signs.
struct Key(Ed25519KeyPair, &'static str);

impl Key {
    fn new(kid: &'static str) -> Self {
        Self(Ed25519KeyPair::generate().unwrap(), kid)
    }

    fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key().as_ref());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": self.1, "x": x }] }).to_string()
    }

    fn token(&self, sub: &str, jti: &str, iat: u64) -> String {
        let claims = json!({ "iss": ISSUER, "aud": "api", "sub": sub, "sid": format!("session-{jti}"), "jti": jti,
                             "client_id": "app", "iat": iat, "exp": iat + 600 });
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.1 });
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let signature = self.0.sign(format!("{header}.{claims}").as_bytes());
        format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The code blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (None, Some((_, text))) => text.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    blocks
}

/// The lines of a block as a script that ends where one fails or prints something else than it is said to.
fn script(block: &str) -> (String, usize) {
    let mut script = "set -eu\n".to_owned();
    let mut held = 0;
    for line in block.lines() {
        match line.split_once("# prints: ") {
            None => script.extend([line, "\n"]),
            Some((command, expected)) => {
                held += 1;
                let quoted = expected.trim().replace('\'', "'\\''");
                script.push_str(&format!(
                    "said=$({})\n[ \"$said\" = '{quoted}' ] || {{ echo \"it printed: $said; not: \"'{quoted}' >&2; exit 1; }}\n",
                    command.trim()
                ));
            }
        }
    }
    (script, held)
}

/// Every command of the page, in its order, does what the page says.
#[test]
fn the_playbook_can_be_played() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rollout.md")).unwrap();
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "");
    let (old, new) = (Key::new("old"), Key::new("new"));
    fs::write(daemon.path("issuer.jwks.json"), old.jwks()).unwrap();
    fs::write(daemon.path("new.jwks.json"), new.jwks()).unwrap();
    fs::copy(daemon.path("token"), daemon.path("admin.token")).unwrap();
    let text = fs::read_to_string(daemon.config()).unwrap();
    let text = text
        .replace(
            "algorithms = [\"HS256\"]\nsecret_file = \"issuer.key\"",
            "algorithms = [\"EdDSA\"]\njwks_file = \"issuer.jwks.json\"",
        )
        .replace("token_file = \"token\"", "token_file = \"admin.token\"")
        .replace("after = \"3s\"", "after = \"30s\"");
    daemon.write_config(&format!(
        "{text}\n[[client]]\nid = \"idp\"\nsecret = \"idp-secret\"\nscopes = [\"global_token_revocation\"]\n"
    ));
    assert!(text.contains("EdDSA") && text.contains("admin.token"));
    let daemon = daemon.running();

    // `systemctl reload` is a SIGHUP; this one waits until it has been obeyed.
    let bin = daemon.path("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_revoked"), bin.join("revoked")).unwrap();
    let reload = format!(
        "#!/bin/bash\n[ \"$*\" = 'reload revoked' ] || exit 2\nbefore=$(grep -c 'was read anew' log || true)\nkill -HUP {}\n\
         for _ in $(seq 400); do [ \"$(grep -c 'was read anew' log || true)\" -gt \"$before\" ] && exit 0; sleep 0.05; done\n\
         echo 'the configuration was not read' >&2; exit 1\n",
        daemon.pid()
    );
    fs::write(bin.join("systemctl"), reload).unwrap();
    fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();

    let began = unix() - 30;
    let alice = old.token("alice", "a", began);
    let (bob, stolen) = (old.token("bob", "b", began), old.token("alice", "stolen", began));
    let (mut run, mut held) = (0, 0);
    for (language, block) in blocks(&page) {
        if language == "toml" {
            roll_out(&daemon, &block);
            assert_eq!(check_config(&daemon.config()).code, 0, "{block}");
            continue;
        }
        assert_eq!(language, "sh", "{block}");
        let block = block
            .replace("127.0.0.1:8080", &daemon.listen.to_string())
            .replace("127.0.0.1:9090", &daemon.admin.to_string());
        let (script, expected) = script(&block);
        // As far in the future as clocks may be off: a cutoff of this moment does not reach them.
        let later = unix() + 50;
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(daemon.folder.path())
            .env_clear()
            .envs([("PATH", path.as_str()), ("HOME", "/nonexistent"), ("USER", "operator"), ("ALICE", &alice)])
            .envs([("BOB", bob.as_str()), ("STOLEN", &stolen), ("ALICE_SESSION", "session-a")])
            .env("STOLEN_SESSION", "session-stolen")
            .env("ALICE_LATER", old.token("alice", "later", later))
            .env("BOB_LATER", old.token("bob", "later", later))
            .env("FORGED", old.token("root", "forged", later))
            .env("NEW_KEY", new.token("bob", "new", later))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{block}\n{}\n{}\n{}",
            said(&output.stdout),
            said(&output.stderr),
            daemon.log()
        );
        run += 1;
        held += expected;
    }
    assert!(run >= 17 && held >= 23, "{run} blocks, {held} answers: the page lost its commands");
    let listed: Vec<Value> = fs::read_to_string(daemon.path("after-the-incident.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(listed.iter().any(|one| one["reason"] == "laptop stolen"), "{listed:?}");
}
