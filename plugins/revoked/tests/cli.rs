//! The command line, with the real binary and real daemons.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod admin_common;

use std::{fs, path::Path};

use admin_common::{Daemon, ISSUER, TOKEN, check_config, eventually, free_port, http, jwt, revoked, run, unix};
use serde_json::{Value, json};

#[test]
fn revoke_refuses_and_lift_admits_again() {
    let daemon = Daemon::start();
    let token = jwt(json!({}));
    assert_eq!(daemon.cli(&["check", &token]).succeeded().out.lines().next(), Some("verdict  allow"));
    daemon.cli(&["revoke", "--session", "s1", "--reason", "stolen", "--by", "alice"]).succeeded();
    assert_eq!(daemon.through(&token), 401);
    let checked = daemon.cli(&["check", &token]);
    assert_eq!(checked.code, 3);
    assert!(checked.out.contains("revoked by session"), "{checked:?}");

    let listed = daemon.cli(&["list", "--json", "stolen"]).succeeded().json();
    assert_eq!((&listed["revoked_by"], &listed["reason"]), (&json!("admin:alice"), &json!("stolen")));
    let table = daemon.cli(&["list"]).succeeded().out;
    assert!(table.starts_with("ID  ") && table.contains("sid=s1 iss=https://issuer.example/"), "{table}");
    let id = listed["id"].as_str().unwrap();
    assert_eq!(daemon.cli(&["lift", id]).succeeded().out, format!("lifted  {id}\n"));
    assert_eq!(daemon.through(&token), 200);
    assert_eq!(daemon.cli(&["lift", id]).code, 1);
}

#[test]
fn every_scope_can_be_named() {
    let daemon = Daemon::start();
    for (number, arguments) in [
        vec!["--jti", "t"],
        vec!["--session", "s"],
        vec!["--session", "s", "--client", "app"],
        vec!["--subject", "u"],
        vec!["--subject", "u", "--client", "app", "--issuer", ISSUER],
        vec!["--client", "app"],
        vec!["--issuer", ISSUER],
    ]
    .into_iter()
    .enumerate()
    {
        let replaced = |name: &str| name.len() == 1;
        let own: Vec<String> = arguments
            .iter()
            .map(|argument| if replaced(argument) { format!("{argument}{number}") } else { (*argument).to_owned() })
            .collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        // A user, client or issuer as such would cover what the others do.
        let claims = json!({ "jti": format!("t{number}"), "sid": format!("s{number}"), "sub": format!("u{number}"), "iat": unix() });
        let token = jwt(claims);
        assert_eq!(daemon.through(&token), 200, "{own:?}");
        let done = daemon.cli(&[&["revoke", "--json"], own.as_slice()].concat()).succeeded().json();
        assert_eq!(daemon.through(&token), 401, "{own:?}");
        assert_eq!(done["outcome"], "recorded");
        let lifted = daemon.cli(&[&["lift"], own.as_slice()].concat()).succeeded();
        assert!(lifted.out.contains(done["id"].as_str().unwrap()), "{lifted:?}");
        assert_eq!(daemon.through(&token), 200, "{own:?}");
    }
    // A script's variable that is not set must not widen anything.
    for arguments in [vec![], vec!["--subject", ""], vec!["--issuer", ""], vec!["--subject", "", "--issuer", ISSUER]] {
        assert_eq!(daemon.cli(&[&["revoke"], arguments.as_slice()].concat()).code, 2, "{arguments:?}");
    }
    assert_eq!(daemon.cli(&["list"]).succeeded().out.lines().count(), 1);
}

#[test]
fn tokens_come_from_files_and_standard_input_and_go_nowhere() {
    let daemon = Daemon::start();
    let token = jwt(json!({}));
    let file = daemon.path("stolen");
    fs::write(&file, format!("{token}\n")).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(daemon.cli_with(&["check", "-"], &format!("{token}\n")).code, 0);
    assert_eq!(daemon.cli(&["check", "--file", file]).code, 0);
    let runs = [
        daemon.cli_with(&["revoke", "--token", "-"], &token),
        daemon.cli(&["check", "--file", file]),
        daemon.cli(&["revoke", "--token-file", file]),
        daemon.cli(&["revoke", "--token", &format!("{token}x")]),
        daemon.cli(&["list"]),
        daemon.cli(&["lift", "--token-file", file]),
    ];
    assert_eq!(runs.each_ref().map(|run| run.code), [0, 3, 0, 1, 0, 0], "{runs:?}");
    let signature = token.rsplit('.').next().unwrap();
    for said in runs.iter().flat_map(|run| [&run.out, &run.err]).chain([&daemon.log()]) {
        assert!(!said.contains(signature) && !said.contains(TOKEN), "{said}");
    }
    assert_eq!(daemon.cli(&["check", &token]).code, 0, "it is lifted");
}

#[test]
fn a_cutoff_spares_what_was_issued_later() {
    let daemon = Daemon::start();
    let (old, new) = (jwt(json!({ "iat": unix() - 100, "jti": "a" })), jwt(json!({ "iat": unix() - 10, "jti": "b" })));
    let cutoff = humantime::format_rfc3339_seconds(std::time::SystemTime::now() - std::time::Duration::from_secs(50))
        .to_string();
    daemon.cli(&["revoke", "--subject", "alice", "--cutoff", &cutoff]).succeeded();
    assert_eq!((daemon.through(&old), daemon.through(&new)), (401, 200));
    daemon.cli(&["revoke", "--subject", "alice", "--cutoff", &(unix() - 5).to_string()]).succeeded();
    assert_eq!(daemon.through(&new), 401);
    assert_eq!(daemon.cli(&["revoke", "--subject", "alice", "--cutoff", "tomorrow"]).code, 1);
}

#[test]
fn a_ban_holds_until_it_is_enabled() {
    let daemon = Daemon::start();
    let later = jwt(json!({ "iat": unix() + 20 }));
    daemon.cli(&["revoke", "--subject", "alice", "--ban"]).succeeded();
    assert_eq!(daemon.through(&later), 401);
    assert!(daemon.cli(&["list"]).succeeded().out.contains("  forever  lifted  "), "{}", daemon.cli(&["list"]).out);
    daemon.cli(&["lift", "--subject", "alice", "--enable"]).succeeded();
    assert_eq!(daemon.through(&later), 200);
    assert_eq!(daemon.through(&jwt(json!({}))), 401);
}

#[test]
fn success_with_wait_all_means_every_node() {
    let one = Daemon::start();
    let url = format!("sqlite://{}", one.path("revoked.db").display());
    let two = Daemon::prepared(&url, true, "").running();
    let token = jwt(json!({}));
    eventually("both nodes are known", || one.get("/api/v1/nodes").json()["nodes"].as_array().unwrap().len() == 2);
    let done = one.cli(&["revoke", "--json", "--subject", "alice", "--wait", "all"]).succeeded().json();
    assert_eq!(done["everywhere"], true);
    assert_eq!((one.through(&token), two.through(&token)), (401, 401));
    assert!(one.cli(&["nodes"]).succeeded().out.lines().all(|line| line.contains("live") || line.starts_with("NODE")));

    // A node that serves while it is stale never counts.
    let serving = Daemon::prepared(&url, true, "");
    let text = fs::read_to_string(serving.config()).unwrap();
    serving.write_config(
        &text
            .replace("then = \"refuse\"", "then = \"serve\"")
            .replace(&format!("{url}\""), &format!("{url}\"\nnode = \"careless\"")),
    );
    let serving = serving.running();
    eventually("it is known", || one.cli(&["nodes"]).out.contains("careless"));
    let run = one.cli(&["revoke", "--subject", "bob", "--wait", "all", "--wait-limit", "2"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.err.contains("careless (serves while stale)"), "{run:?}");
    assert_eq!(one.through(&jwt(json!({ "sub": "bob", "jti": "b", "sid": "b" }))), 401, "it is recorded all the same");
    drop(serving);
}

#[test]
fn an_export_can_be_imported_elsewhere() {
    let one = Daemon::start();
    let token = jwt(json!({}));
    one.cli(&["revoke", "--subject", "alice", "--reason", "left"]).succeeded();
    one.cli(&["revoke", "--client", "banned", "--ban"]).succeeded();
    one.cli(&["revoke", "--token", &jwt(json!({ "jti": "t9", "sub": "carol", "sid": "s9" }))]).succeeded();
    let lifted = one.cli(&["revoke", "--json", "--subject", "dora"]).succeeded().json();
    one.cli(&["lift", lifted["id"].as_str().unwrap()]).succeeded();
    let file = one.path("export.jsonl");
    let file = file.to_str().unwrap();
    let exported = one.cli(&["export", file]).succeeded();
    assert_eq!(exported.err, "3 revocations exported\n");
    assert_eq!(one.cli(&["export", "-"]).succeeded().out, fs::read_to_string(file).unwrap());

    let two = Daemon::start();
    assert_eq!(two.through(&token), 200);
    assert_eq!(two.cli(&["import", file]).succeeded().err, "3 recorded, 0 known already or over\n");
    assert_eq!(two.through(&token), 401);
    assert_eq!(two.through(&jwt(json!({ "jti": "t9", "sub": "carol", "sid": "s9" }))), 401);
    assert_eq!(two.through(&jwt(json!({ "sub": "dora", "sid": "s8", "jti": "t8" }))), 200, "that one was lifted");
    let again = two.cli_with(&["import", "-"], &fs::read_to_string(file).unwrap()).succeeded();
    assert_eq!(again.err, "0 recorded, 3 known already or over\n");

    let essence = |daemon: &Daemon| {
        let lines = daemon.cli(&["list", "--json"]).succeeded().out;
        let mut all: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for listed in &mut all {
            let listed = listed.as_object_mut().unwrap();
            // Kept at least as long; when and under which id it was recorded is its own.
            listed.retain(|name, _| ["scope", "cutoff", "reason", "revoked_by"].contains(&name.as_str()));
        }
        all.sort_by_key(Value::to_string);
        all
    };
    assert_eq!(essence(&one), essence(&two));
}

#[test]
fn lines_that_cannot_be_used_are_named_and_the_others_are_recorded() {
    let daemon = Daemon::start();
    let good = |sub: &str| {
        json!({ "scope": { "kind": "subject", "iss": ISSUER, "sub": sub }, "cutoff": unix(), "retain_until": unix() + 600 }).to_string()
    };
    let lines =
        format!("{}\nnonsense\n\n{{\"scope\":null,\"cutoff\":1,\"retain_until\":2}}\n{}", good("alice"), good("bob"));
    let run = daemon.cli_with(&["import", "-"], &lines);
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("2 recorded") && run.err.contains("-:2: ") && run.err.contains("-:4: only the key"),
        "{run:?}"
    );
    assert_eq!(
        (daemon.through(&jwt(json!({}))), daemon.through(&jwt(json!({ "sub": "bob", "jti": "b", "sid": "b" })))),
        (401, 401)
    );
    let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(daemon.cli_with(&["import", "-"], &long).code, 1);
}

#[test]
fn a_long_import_is_complete() {
    let daemon = Daemon::start();
    let line = |number: u32| json!({ "scope": { "kind": "session", "iss": ISSUER, "sid": format!("session-{number}") }, "cutoff": "forever", "retain_until": unix() + 600 });
    let lines: String = (0..1234).map(|number| format!("{}\n", line(number))).collect();
    assert!(daemon.cli_with(&["import", "-"], &lines).succeeded().err.starts_with("1234 recorded"));
    // More than one page of the API's.
    assert_eq!(daemon.cli(&["list", "--json", "--scope", "session"]).succeeded().out.lines().count(), 1234);
    assert_eq!(daemon.cli(&["list", "--json", "--limit", "7"]).succeeded().out.lines().count(), 7);
    assert!(daemon.cli(&["export", "-"]).succeeded().err.starts_with("1234 "));
}

#[test]
fn watching_shows_what_happens() {
    let daemon = Daemon::start();
    daemon.cli(&["revoke", "--subject", "before"]).succeeded();
    let watching = daemon.follow(&["watch", "--json"]);
    watching.line("watching");
    let done = daemon.cli(&["revoke", "--json", "--subject", "alice"]).succeeded().json();
    let seen: Value = serde_json::from_str(&watching.line("revoked")).unwrap();
    assert_eq!((&seen["revocation"]["id"], &seen["revocation"]["scope"]["sub"]), (&done["id"], &json!("alice")));
    daemon.cli(&["lift", done["id"].as_str().unwrap(), "--by", "bob"]).succeeded();
    let seen: Value = serde_json::from_str(&watching.line("lifted")).unwrap();
    assert_eq!((&seen["ids"][0], &seen["lifted_by"]), (&done["id"], &json!("admin:bob")));
}

#[test]
fn endpoints_are_turned_from_the_command_line() {
    let daemon = Daemon::start();
    assert!(daemon.cli(&["endpoints"]).succeeded().out.contains("token     on     /oauth/revoke"));
    assert!(daemon.cli(&["endpoints", "token", "off"]).succeeded().out.contains("token     off"));
    assert_eq!(daemon.cli(&["endpoints", "tokens", "off"]).code, 1);
}

#[test]
fn what_somebody_else_wrote_does_not_steer_the_terminal() {
    let daemon = Daemon::start();
    daemon.cli(&["revoke", "--subject", "\u{1b}[2Jevil\u{202e}", "--reason", "a\nb"]).succeeded();
    let listed = daemon.cli(&["list"]).succeeded().out;
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("\\u{1b}[2Jevil\\u{202e}") && !listed.contains('\u{1b}'), "{listed}");
}

#[test]
fn the_daemon_can_be_named_in_other_ways() {
    let daemon = Daemon::start();
    let ask = |arguments: &[&str]| {
        let mut command = revoked();
        command.args(arguments).current_dir(daemon.folder.path().parent().unwrap());
        run(command, "")
    };
    let (url, token) = (format!("http://{}", daemon.admin), daemon.path("token"));
    let (token, config) = (token.to_str().unwrap(), daemon.config());
    assert_eq!(ask(&["status", "--admin", &url]).code, 0);
    assert_eq!(ask(&["--config", config.to_str().unwrap(), "status"]).code, 0);
    assert_eq!(ask(&["revoke", "--subject", "a", "--admin", &url, "--admin-token-file", token]).code, 0);
    let without = ask(&["revoke", "--subject", "a", "--admin", &url]);
    assert_eq!(without.code, 1);
    assert!(without.err.contains("401") && without.err.contains("--admin-token-file"), "{without:?}");
    assert_eq!(ask(&["status"]).code, 2, "no configuration");
    assert_eq!(ask(&["status", "--admin", "not a url"]).code, 2);
    assert_eq!(ask(&["status", "--admin", &format!("http://127.0.0.1:{}", free_port())]).code, 1);
    assert_eq!(ask(&["nonsense"]).code, 2);
}

#[test]
fn configuration_mistakes_are_named_with_line_and_key() {
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "");
    assert_eq!(check_config(&daemon.config()).succeeded().out, format!("{}: can be used\n", daemon.config().display()));
    assert!(!daemon.path("revoked.db").exists() && !daemon.path("admin.token").exists(), "a look changes nothing");
    let text = fs::read_to_string(daemon.config()).unwrap();
    for (from, to, expected) in [
        ("token_file = \"token\"", "token_file = \"nowhere\"", ":7: admin.token_file: "),
        ("token_file = \"token\"", "tokenfile = \"token\"", ":7: admin.tokenfile: unknown key"),
        ("after = \"3s\"", "after = \"soon\"", ":13: staleness.after: \"soon\" is no duration"),
        ("[\"HS256\"]", "[\"HS257\"]", ":19: issuer[0].algorithms: "),
    ] {
        assert!(text.contains(from));
        daemon.write_config(&text.replace(from, to));
        let run = check_config(&daemon.config());
        assert_eq!(run.code, 2, "{to}");
        assert!(run.err.contains(&format!("{}{expected}", daemon.config().display())), "{to}: {}", run.err);
        let mut serve = revoked();
        serve.args(["serve", "--config"]).arg(daemon.config());
        let run = run_bounded(serve);
        assert_eq!(run.code, 2, "{to}");
        assert!(run.err.contains(expected), "{to}: {}", run.err);
    }
    assert_eq!(check_config(Path::new("/nowhere/revoked.toml")).code, 2);
}

fn run_bounded(command: std::process::Command) -> admin_common::Run {
    run(command, "")
}

#[test]
fn completions_and_the_manual_page_know_every_command() {
    let ask = |arguments: &[&str]| {
        let mut command = revoked();
        command.args(arguments);
        run(command, "").succeeded().out
    };
    let help = ask(&["--help"]);
    assert!(help.contains("Exit codes:"), "{help}");
    let names = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> = names.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.len() > 12, "{names:?}");
    let (manual, docs) =
        (ask(&["man"]), fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/revoked.md")).unwrap());
    for shell in ["bash", "zsh", "fish"] {
        let script = ask(&["completions", shell]);
        assert!(names.iter().all(|name| script.contains(name)), "{shell}");
    }
    for name in names {
        assert!(manual.contains(&format!("revoked\\-{name}")), "{name}");
        assert!(name == "help" || docs.contains(&format!("`revoked {name}")), "docs/revoked.md lacks {name}");
    }
}

#[test]
fn the_example_can_be_used_as_it_is() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    check_config(&example.join("revoked.toml")).succeeded();
    // A copy, with ports and a store of its own.
    let daemon = Daemon::prepared("memory:", true, "");
    fs::create_dir(daemon.path("revoked")).unwrap();
    for file in fs::read_dir(example.join("revoked")).unwrap() {
        let file = file.unwrap();
        if file.path().extension().is_none_or(|extension| extension != "db") {
            fs::copy(file.path(), daemon.path("revoked").join(file.file_name())).unwrap();
        }
    }
    fs::copy(example.join("revoked.toml"), daemon.config()).unwrap();
    let (listen, admin) = (daemon.listen.to_string(), daemon.admin.to_string());
    let daemon = daemon.env("REVOKED__LISTEN", &listen).env("REVOKED__ADMIN__LISTEN", &admin);
    let daemon = daemon.env("REVOKED__FORWARD_AUTH__LISTEN", &format!("127.0.0.1:{}", free_port()));
    let daemon = daemon.running();
    let basic = "authorization: Basic ZGVtby1jbGllbnQ6ZGVtby1zZWNyZXQ=";
    let form = "content-type: application/x-www-form-urlencoded";
    assert_eq!(http(daemon.listen, "POST", "/oauth/revoke", &["host: app", form, basic], b"token=unknown").status, 200);
    assert_eq!(http(daemon.listen, "POST", "/oauth/revoke", &["host: app", form], b"token=unknown").status, 401);
    assert_eq!(daemon.through("no.real.token"), 401);
    let mut ask = revoked();
    ask.args(["revoke", "--subject", "alice", "--admin", &format!("http://{admin}"), "--admin-token-file"])
        .arg(daemon.path("admin.token"));
    run(ask, "").succeeded();
}

#[test]
fn what_others_put_into_the_environment_does_no_harm() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "");
    let check = |name: &str| {
        let mut command = revoked();
        command.args(["config", "check"]).arg(daemon.config()).env(name, OsStr::from_bytes(b"\xff"));
        run(command, "")
    };
    check("LS_COLORS").succeeded();
    let ours = check("REVOKED__BACKEND__NODE");
    assert_eq!(ours.code, 2);
    assert!(ours.err.contains("REVOKED__BACKEND__NODE: is no UTF-8"), "{ours:?}");
}

#[test]
fn a_check_covers_everything_that_the_daemon_opens() {
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "");
    let text = fs::read_to_string(daemon.config()).unwrap();
    let with = |more: &str| format!("{text}{more}");
    for (faulty, expected) in [
        (with("[tls]\ncert_file = \"nowhere\"\nkey_file = \"nowhere\"\n"), "tls.cert_file: "),
        (with("[forward_auth]\nidentity_headers = [\"no header\"]\n"), "forward_auth.identity_headers"),
        (with("[ext_authz]\nidentity_headers = [\"no header\"]\n"), "ext_authz.identity_headers"),
        (text.replace("http://127.0.0.1", "ftp://127.0.0.1"), "upstream.url: "),
        (text.replace("sqlite://revoked.db", "reddis://u:hunter2@h"), "backend.url: "),
        (text.replace("sqlite://revoked.db", "redis://u:hunter2@h:port"), "backend.url: "),
    ] {
        daemon.write_config(&faulty);
        let checked = check_config(&daemon.config());
        assert_eq!(checked.code, 2, "{faulty}");
        assert!(checked.err.contains(expected) && !checked.err.contains("hunter2"), "{expected} {checked:?}");
    }
    assert!(!daemon.path("revoked.db").exists(), "a look changes nothing");
}

#[test]
fn every_token_that_can_be_revoked_can_be_lifted() {
    let daemon =
        Daemon::prepared("sqlite://revoked.db", true, "[recorder]\ntoken_endpoint = \"/oauth/token\"\n").running();
    daemon.cli_with(&["revoke", "--token", "-"], "an-opaque-token").succeeded();
    let id = daemon.cli(&["list", "--json"]).succeeded().json()["id"].clone();
    let lifted = daemon.cli_with(&["lift", "--json", "--token", "-"], "an-opaque-token").succeeded();
    assert_eq!(lifted.json()["lifted"], json!([id]));

    // As tokens without `jti` are.
    let scope = |byte: &str| json!({ "kind": "signing_input", "iss": ISSUER, "sha256": byte.repeat(32) });
    let id = daemon.revoke(scope("aa"))["id"].clone();
    daemon.revoke(scope("bb"));
    for more in ["", &format!("&scope=signing_input&iss={ISSUER}")] {
        let found = daemon.get(&format!("/api/v1/revocations?sha256={}{more}", "aa".repeat(32))).json();
        let ids: Vec<_> = found["revocations"].as_array().unwrap().iter().map(|found| &found["id"]).collect();
        assert_eq!(ids, [&id], "{found}");
    }
}

#[test]
fn without_a_reader_nothing_looks_like_success() {
    let daemon = Daemon::start();
    let token = jwt(json!({}));
    for arguments in [&["check", token.as_str()][..], &["list"], &["status", "--json"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = revoked();
        command.args(arguments).env("REVOKED_CONFIG", daemon.config()).stdout(writer);
        let ended = command.stderr(std::process::Stdio::piped()).output().unwrap();
        assert_eq!((ended.status.code(), ended.stderr), (Some(1), Vec::new()), "{arguments:?}");
    }
}

#[test]
fn a_cutoff_that_would_not_hold_is_refused() {
    let daemon = Daemon::start();
    for cutoff in ["2099-01-01T00:00:00Z", &(unix() + 3600).to_string()] {
        let refused = daemon.cli(&["revoke", "--subject", "alice", "--cutoff", cutoff]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("in the future"), "{refused:?}");
    }
    let later = unix() + 3600;
    let line = json!({ "scope": { "kind": "subject", "iss": ISSUER, "sub": "alice" }, "cutoff": later, "retain_until": later });
    let imported = daemon.cli_with(&["import", "-"], &line.to_string());
    assert_eq!(imported.code, 1);
    assert!(imported.err.contains("-:1: its cutoff is in the future"), "{imported:?}");
    assert_eq!(daemon.cli(&["list", "--json"]).succeeded().out, "");
    daemon.cli(&["revoke", "--subject", "alice", "--cutoff", &(unix() + 5).to_string()]).succeeded();
    assert_eq!(daemon.cli(&["revoke", "--subject", "bob", "--reason", ""]).code, 2);
}

#[test]
fn an_export_replaces_files_only() {
    use std::os::unix::fs::FileTypeExt as _;
    let daemon = Daemon::start();
    daemon.revoke(json!({ "kind": "subject", "iss": ISSUER, "sub": "alice" }));
    let pipe = daemon.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (sender, read) = std::sync::mpsc::channel();
    let reads = pipe.clone();
    std::thread::spawn(move || sender.send(fs::read_to_string(reads).unwrap()));
    daemon.cli(&["export", pipe.to_str().unwrap()]).succeeded();
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    let read = read.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert!(read.contains("alice"), "{read}");

    let file = daemon.path("export");
    fs::write(&file, "old").unwrap();
    daemon.cli(&["export", file.to_str().unwrap()]).succeeded();
    assert_eq!(fs::read_to_string(&file).unwrap(), read);
    let names = fs::read_dir(daemon.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".part")));
}

#[test]
fn a_part_of_a_long_token_is_not_taken_for_it() {
    let daemon =
        Daemon::prepared("sqlite://revoked.db", true, "[recorder]\ntoken_endpoint = \"/oauth/token\"\n").running();
    for arguments in [["check", "-"], ["revoke", "--token=-"]] {
        let run = daemon.cli_with(&arguments, &"x".repeat(20_000));
        assert_eq!(run.code, 2, "{run:?}");
        assert!(run.err.contains("longer than 16384 bytes"), "{run:?}");
    }
    assert_eq!(daemon.cli(&["list", "--json"]).succeeded().out, "");
}
