//! The page of operators, in a real browser and with the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod admin_common;
#[path = "browser/driver.rs"]
mod driver;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
};

use admin_common::{Daemon, ISSUER, TOKEN, eventually, free_port, http, jwt, unix};
use driver::{Browser, DOWN, ENTER, ESCAPE, TAB};
use serde_json::{Value, json};

const READY: (&str, &str) = ("#ready", "Ready");

fn url(daemon: &Daemon) -> String {
    format!("http://{}/", daemon.admin)
}

/// The page of a daemon, once it shows how that stands.
fn opened(daemon: &Daemon) -> Option<Browser> {
    let browser = Browser::start()?;
    browser.open(&url(daemon));
    browser.sees(READY.0, READY.1);
    browser.until("the list is read", "return document.querySelector('#list-said').textContent !== ''");
    browser.until("the endpoints are there", "return document.querySelectorAll('#endpoints li').length > 0");
    Some(browser)
}

fn show_token(browser: &Browser) {
    browser.click("#token");
    browser.fill("#token-value", TOKEN);
    browser.click("#token-form [type=submit]");
    browser.sees("#token", "Forget");
}

#[test]
fn what_is_revoked_on_the_page_is_refused_from_then_on_and_a_lift_lets_it_pass_again() {
    let daemon = Daemon::start();
    let Some(browser) = opened(&daemon) else { return };
    let token = jwt(json!({}));
    assert_eq!(daemon.through(&token), 200);
    browser.sees("#list-said", "Nothing is revoked.");

    browser.fill("#sub", "alice");
    browser.fill("#reason", "stolen laptop");
    browser.fill("#by", "carol");
    browser.click("#revoke-form [type=submit]");
    browser.sees("#ask-head", "Revoke this?");
    let preview = browser.text("#ask-body");
    for part in ["user", "sub alice", "issued until", "Kept until", "nothing of it", "this node refuses"] {
        assert!(preview.contains(part), "{part}: {preview}");
    }
    assert_eq!(daemon.through(&token), 200, "a preview records nothing");
    browser.click("#ask-no");
    assert_eq!(daemon.get("/api/v1/revocations").json()["revocations"], json!([]), "nor does a cancelled one");
    browser.click("#revoke-form [type=submit]");
    browser.click("#ask-yes");
    // Changes need the token, on this machine too: a wrong one is not taken.
    browser.sees("#token-why", "needs the admin token");
    browser.fill("#token-value", "wrong");
    browser.click("#token-form [type=submit]");
    browser.sees("#token-error", "the token is wrong");
    assert_eq!(daemon.through(&token), 200);
    browser.fill("#token-value", TOKEN);
    browser.click("#token-form [type=submit]");
    browser.sees("#said", "Revoked.");
    assert_eq!(daemon.through(&token), 401);

    browser.sees("#list", "stolen laptop");
    browser.sees("#list", "admin:carol");
    browser.sees("#denials", "revoked: user");
    browser.sees("#scopes", "user 1");
    let kept = daemon.get("/api/v1/denials").json()["denials"][0].clone();
    assert_eq!((&kept["door"], &kept["reason"], &kept["path"]), (&json!("proxy"), &json!("revoked"), &json!("/")));
    browser.fill("#checked", &token);
    browser.click("#check-form [type=submit]");
    browser.sees("#verdict", "deny");

    // What others do is seen too.
    daemon.revoke(json!({ "kind": "session", "sid": "elsewhere" }));
    browser.sees("#list", "sid elsewhere");

    browser.fill("#q", "stolen");
    browser.press(&[ENTER]);
    browser.until("one is found", "return document.querySelectorAll('#list > li').length === 1");
    browser.click("#list button");
    browser.sees("#ask-head", "Lift this revocation?");
    browser.click("#ask-yes");
    browser.sees("#said", "lifted");
    assert_eq!(daemon.through(&token), 200);
    browser.sees("#list-said", "Nothing that is revoked matches.");

    browser.click("#turn-token");
    browser.sees("#ask-head", "Turn the token endpoint off?");
    browser.click("#ask-yes");
    browser.sees("#said", "endpoint is off");
    assert_eq!(daemon.get("/api/v1/endpoints").json()["endpoints"]["token"]["enabled"], false);
    browser.until("the switch says so", "return document.querySelector('#turn-token').ariaChecked === 'false'");
    assert_eq!(browser.complaints(&[401]), [""; 0]);
}

#[test]
fn a_ban_one_token_and_a_time_are_what_they_say() {
    let daemon = Daemon::start();
    let Some(browser) = opened(&daemon) else { return };
    show_token(&browser);
    let revoke = |title: &str| {
        browser.click("#revoke-form [type=submit]");
        browser.sees("#ask-head", title);
        browser.click("#ask-yes");
        browser.sees("#said", "Revoked");
        browser.run("document.querySelector('#said').replaceChildren()");
    };
    let later = jwt(json!({ "iat": unix() + 20, "jti": "t2" }));
    browser.fill("#sub", "alice");
    browser.click("input[value=ban]");
    revoke("Ban this?");
    assert_eq!(daemon.through(&later), 401);
    browser.sees("#list", "ban: user");
    browser.click("#list button");
    browser.sees("#ask-head", "End this ban?");
    browser.click("#ask-yes");
    browser.sees("#said", "The ban has ended.");
    assert_eq!((daemon.through(&later), daemon.through(&jwt(json!({})))), (200, 401));

    let bob = jwt(json!({ "sub": "bob", "sid": "s2", "jti": "t3" }));
    assert_eq!(daemon.through(&bob), 200);
    browser.choose("#kind", "pasted");
    browser.fill("#pasted", &bob);
    revoke("Revoke this?");
    assert_eq!(daemon.through(&bob), 401);
    browser.until("the token is gone", "return document.querySelector('#pasted').value === ''");

    // A user at one client, up to a time: what was issued after it passes.
    let dan = |iat: u64, jti: &str| jwt(json!({ "sub": "dan", "sid": "s3", "jti": jti, "iat": iat }));
    let (old, new) = (dan(unix() - 3600, "t4"), dan(unix() - 60, "t5"));
    browser.choose("#kind", "subject_client");
    browser.fill("#sub", "dan");
    browser.click("#revoke-form [type=submit]");
    browser.sees("#revoke-error", "Say the client.");
    assert_eq!(browser.focus(), "client_id");
    browser.fill("#client_id", "app");
    browser.click("input[value=time]");
    browser.run(
        "const at = new Date(Date.now() - 1800e3 - new Date().getTimezoneOffset() * 60e3);
         document.querySelector('#at').value = at.toISOString().slice(0, 19)",
    );
    revoke("Revoke this?");
    assert_eq!((daemon.through(&old), daemon.through(&new)), (401, 200));
    assert_eq!(browser.complaints(&[]), [""; 0]);
}

#[test]
fn what_others_wrote_is_shown_as_text_and_all_of_it() {
    let daemon = Daemon::prepared("sqlite://revoked.db\"\nnode = \"<b>node</b>", true, "").running();
    let hostile = [
        "<img src=x onerror=\"document.title='taken over'\">",
        "</script><script>document.title='taken over'</script>",
        "</bdi></li><li data-id=x>fake row",
        "invoice\u{202e}fdp.exe",
        "a\u{2066}b\u{200b}c\u{0}d\u{1b}[31m",
        "{{7*7}} ${7*7} &lt;b&gt;",
    ];
    let long = "<u>ä</u>".repeat(120);
    for text in hostile.into_iter().chain([long.as_str()]) {
        let asked = json!({ "scope": { "kind": "subject", "iss": ISSUER, "sub": text }, "reason": text, "by": text });
        let answer = daemon.call("POST", "/api/v1/revocations", asked);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let victim = jwt(json!({ "sub": hostile[0] }));
    let header = format!("authorization: Bearer {victim}");
    for path in ["/%3Cimg/onerror=1?token=secret", &format!("/reset/{victim}/'\"&lt")] {
        assert_eq!(http(daemon.listen, "GET", path, &["host: app", &header], b"").status, 401);
    }

    let Some(browser) = opened(&daemon) else { return };
    browser.until("all are listed", "return document.querySelectorAll('#list > li').length === 7");
    browser.until("both are told", "return document.querySelectorAll('#denials > li').length === 2");
    let list = browser.run("return document.querySelector('#list').textContent");
    let list = list.as_str().unwrap();
    for text in [hostile[0], hostile[1], hostile[2], hostile[5], &long] {
        // As user, as reason, and as author.
        assert!(list.matches(text).count() >= 3, "{text}");
    }
    for marked in ["invoiceU+202Efdp.exe", "aU+2066bU+200BcU+0000dU+001B[31m"] {
        assert_eq!(list.matches(marked).count(), 3, "{marked}");
    }
    let raw = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{0}', '\u{1b}'];
    assert!(!list.contains(raw), "what cannot be seen is in the page");
    let denials = browser.text("#denials");
    assert!(denials.contains("/%3Cimg/…") && denials.contains("/reset/…/'\"&lt"), "{denials}");
    assert!(!denials.contains("secret") && !denials.contains("eyJ"), "{denials}");
    browser.sees("#node", "<b>node</b>");

    // The same where it is asked for, and in dialogs.
    browser.fill("#sub", hostile[0]);
    browser.click("#revoke-form [type=submit]");
    browser.sees("#ask-body", hostile[0]);
    browser.click("#ask-no");
    browser.fill("#q", "onerror");
    browser.press(&[ENTER]);
    browser.until("one is found", "return document.querySelectorAll('#list > li').length === 1");
    browser.click("#list button");
    browser.sees("#ask-body", hostile[0]);
    browser.click("#ask-no");
    let strange = "return document.querySelectorAll('main img, main script, main b, main u, dialog img, [onerror], [data-id=x]').length";
    assert_eq!(browser.run(strange), 0);
    let title = browser.run("return document.title");
    assert_eq!(title, "revoked: <b>node</b>");
    assert_eq!(browser.complaints(&[]), [""; 0]);
}

#[test]
fn nothing_runs_but_the_files_of_the_page() {
    let daemon = Daemon::start();
    let Some(browser) = opened(&daemon) else { return };
    assert_eq!(browser.complaints(&[]), [""; 0]);
    // Whatever could get into the page would meet its policy.
    let tries = [
        "const script = document.createElement('script'); script.append('window.ran = true'); document.body.append(script)",
        "document.body.setAttribute('onclick', 'window.ran = true')",
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = true\">')",
        "document.body.setAttribute('style', 'color: red')",
    ];
    for script in tries {
        browser.run(&format!("try {{ {script} }} catch {{}}; document.body.click()"));
        let said = browser.complaints(&[]).join("\n");
        assert!(said.contains("Content Security Policy") || said.contains("requires 'Trusted"), "{script}: {said:?}");
    }
    assert_eq!(browser.run("return window.ran ?? null"), Value::Null);
    let asked = browser.run("return fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')");
    assert_eq!(asked, "refused");
    assert!(browser.complaints(&[]).iter().any(|said| said.contains("connect-src")));
}

#[test]
fn everything_works_by_keyboard_alone() {
    let daemon = Daemon::start();
    daemon.revoke(json!({ "kind": "session", "sid": "before" }));
    let Some(browser) = opened(&daemon) else { return };
    browser.sees("#list", "before");
    let token = jwt(json!({}));

    // The order is that of the page, and each place says what it is.
    let mut order = Vec::new();
    for _ in 0..30 {
        browser.press(&[TAB]);
        let at = browser.run(
            "const at = document.activeElement;
             if (at === document.body) return null;
             const ring = getComputedStyle(at);
             return { id: at.id || at.textContent, top: at.getBoundingClientRect().top + scrollY, ring: ring.outlineStyle + ring.outlineWidth }",
        );
        if at.is_null() {
            break;
        }
        assert_eq!(at["ring"], "solid3px", "{at}: the focus is seen");
        order.push(at["id"].as_str().unwrap().to_owned());
    }
    let expected = [
        "Skip to revoking",
        "pause",
        "token",
        "kind",
        "sub",
        "",
        "reason",
        "by",
        "wait",
        "Preview…",
        "checked",
        "Check",
        "turn-global",
        "turn-session",
        "turn-token",
        "q",
        "scope",
        "Search",
        "Lift…",
    ];
    assert_eq!(order, expected);

    // Skip to the form, fill it, look, go back, and do it.
    browser.open(&url(&daemon));
    browser.sees(READY.0, READY.1);
    browser.press(&[TAB, ENTER]);
    assert_eq!(browser.focus(), "revoke");
    browser.press(&[TAB]);
    assert_eq!(browser.focus(), "kind");
    browser.press(&[DOWN, TAB]);
    assert_eq!(browser.focus(), "sid");
    browser.press(&["s1", ENTER]);
    browser.sees("#ask-head", "Revoke this?");
    assert_eq!(browser.focus(), "ask-no", "a key too many does no harm");
    browser.press(&[ESCAPE]);
    browser.until("it is closed", "return !document.querySelector('#ask').open");
    assert_eq!(browser.run("return document.activeElement.textContent"), "Preview…");
    assert_eq!(daemon.through(&token), 200);
    browser.press(&[ENTER]);
    browser.until("it is open", "return document.querySelector('#ask').open");
    browser.press(&[TAB]);
    assert_eq!(browser.focus(), "ask-yes");
    browser.press(&[ENTER]);
    browser.until("the token is asked for", "return document.querySelector('#token-ask').open");
    assert_eq!(browser.focus(), "token-value");
    browser.press(&[TOKEN, ENTER]);
    browser.sees("#said", "Revoked.");
    assert_eq!(daemon.through(&token), 401);
    assert_eq!(browser.run("return document.activeElement.textContent"), "Preview…");

    // Lift the newest; the focus goes on to the next.
    browser.sees("#list", "sid s1");
    browser.run("document.querySelector('#list button').focus()");
    browser.press(&[ENTER]);
    browser.until("it is open", "return document.querySelector('#ask').open");
    browser.press(&[TAB, ENTER]);
    browser.sees("#said", "lifted");
    assert_eq!(daemon.through(&token), 200);
    assert_eq!(browser.run("return document.activeElement.closest('#list') !== null"), true);
}

/// Every text that is seen, and how far it stands out from what is behind it; and every control, with its border.
const CONTRAST: &str = r"
const colour = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
const over = (top, under) => ({ r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a), b: top.b * top.a + under.b * (1 - top.a), a: 1 });
const light = ({ r, g, b }) => { const [x, y, z] = [r, g, b].map((c) => (c / 255) <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
const ratio = (one, two) => { const [high, low] = [light(one), light(two)].sort((a, b) => b - a); return (high + 0.05) / (low + 0.05); };
const ground = (at) => { const layers = []; for (; at; at = at.parentElement) layers.push(colour(getComputedStyle(at).backgroundColor)); return layers.reverse().reduce((under, top) => over(top, under), colour('rgb(255, 255, 255)')); };
const found = []; let count = 0;
for (const at of document.querySelectorAll('body *')) {
  const own = Array.from(at.childNodes).some((node) => node.nodeType === 3 && node.textContent.trim() !== '') || at.matches('input, textarea, select');
  if (!own || !at.checkVisibility()) continue;
  const box = at.getBoundingClientRect();
  if (box.width < 2 || box.bottom < -scrollY) continue;
  count += 1;
  const style = getComputedStyle(at);
  const is = ratio(over(colour(style.color), ground(at)), ground(at));
  if (is < 4.5) found.push(`${at.tagName} ${at.id} ${at.className} ${at.textContent.slice(0, 20)}: ${is.toFixed(2)}`);
  if (at.matches('button, input, select, textarea') && at.type !== 'radio' && at.type !== 'checkbox') {
    const edge = Math.max(ratio(colour(style.borderTopColor), ground(at.parentElement)), ratio(ground(at), ground(at.parentElement)));
    if (edge < 3) found.push(`the edge of ${at.tagName} ${at.id}: ${edge.toFixed(2)}`);
  }
}
return { found, count };
";

#[test]
fn it_can_be_read_in_the_dark_on_a_phone_and_aloud() {
    let daemon = Daemon::start();
    let long = "a-very-long-user-name-without-any-place-to-break-".repeat(3);
    let ban =
        json!({ "scope": { "kind": "subject", "iss": ISSUER, "sub": long }, "ban": true, "reason": "r\u{202e}x" });
    assert_eq!(daemon.call("POST", "/api/v1/revocations", ban).status, 200);
    daemon.revoke(json!({ "kind": "client_session", "sid": "s1", "client_id": "app" }));
    assert_eq!(daemon.through(&jwt(json!({}))), 401);
    assert_eq!(daemon.through("nonsense"), 401);
    let Some(browser) = opened(&daemon) else { return };
    browser.until("both are told", "return document.querySelectorAll('#denials > li').length === 2");
    // What went wrong is to be read as well.
    browser.click("#revoke-form [type=submit]");
    browser.sees("#revoke-error", "Say the user.");

    let readable = |what: &str| {
        let seen = browser.run(CONTRAST);
        assert_eq!(seen["found"], json!([]), "{what}");
        assert!(seen["count"].as_u64().unwrap() > 10, "{what}: {seen}");
    };
    let dialogs = |what: &str| {
        browser.fill("#sub", &long);
        browser.click("#revoke-form [type=submit]");
        browser.until("it is open", "return document.querySelector('#ask').open");
        readable(&format!("{what}, asked"));
        let wide = browser.run("const { left, right } = document.querySelector('#ask').getBoundingClientRect(); return left >= 0 && right <= innerWidth");
        assert_eq!(wide, true, "{what}");
        browser.click("#ask-no");
        browser.click("#token");
        readable(&format!("{what}, asked for the token"));
        browser.click("#token-no");
    };
    for scheme in ["light", "dark"] {
        browser.prefers(&[("prefers-color-scheme", scheme)]);
        readable(scheme);
        dialogs(scheme);
    }
    let ground = |scheme| {
        browser.prefers(&[("prefers-color-scheme", scheme)]);
        browser.run("return getComputedStyle(document.documentElement).backgroundColor")
    };
    assert_ne!(ground("dark"), ground("light"), "there are two schemes");

    for (width, height) in [(360, 740), (320, 640), (800, 1000)] {
        browser.screen(width, height, width < 500);
        let wide = browser.run(
            "const wide = Array.from(document.querySelectorAll('body *')).filter((at) => at.checkVisibility() && at.getBoundingClientRect().right > innerWidth + 0.5);
             return { page: document.scrollingElement.scrollWidth, wide: wide.map((at) => at.id || at.className || at.tagName) }",
        );
        assert_eq!(wide, json!({ "page": width, "wide": [] }));
        dialogs(&format!("{width} px"));
        let small = browser.run(
            "return Array.from(document.querySelectorAll('button')).filter((at) => at.checkVisibility() && at.getBoundingClientRect().height < 24).map((at) => at.id)",
        );
        assert_eq!(small, json!([]), "a finger hits it");
    }

    browser.prefers(&[("prefers-reduced-motion", "reduce")]);
    browser.click("#token");
    assert_eq!(browser.run("return document.getAnimations().length + getComputedStyle(document.querySelector('#token-ask')).animationName"), "0none");
    browser.click("#token-no");

    for (control, name) in [
        ("#kind", "What"),
        ("#sub", "User (sub)"),
        ("#reason", "Reason (for the audit trail)"),
        ("#q", "Search revocations"),
        ("#scope", "Kind of scope"),
        ("#turn-token", "token /oauth/revoke"),
        ("#checked", "Token"),
        ("#list li:has(.ban) button", "End ban…"),
    ] {
        assert_eq!(browser.spoken(control), name);
    }
    // What changes by itself is not read aloud; what somebody waits for is.
    let aloud = browser
        .run("return Array.from(document.querySelectorAll('[role=status], [role=alert], [aria-live]'), (at) => at.id)");
    assert_eq!(aloud, json!(["said", "failed", "revoke-error", "verdict", "list-said", "token-error"]));
    assert_eq!(browser.run("return document.documentElement.lang + document.querySelectorAll('h1').length"), "en1");
}

#[test]
fn lists_stand_still_when_asked_to_and_a_daemon_that_was_away_is_followed_again() {
    let mut daemon = Daemon::start();
    let Some(browser) = opened(&daemon) else { return };
    browser.click("#pause");
    daemon.revoke(json!({ "kind": "session", "sid": "s1" }));
    assert_eq!(daemon.through(&jwt(json!({}))), 401);
    browser.sees("#newer", "1 newer");
    browser.sees("#refused", "1");
    assert_eq!(browser.text("#list") + &browser.text("#denials"), "");
    browser.click("#pause");
    browser.sees("#list", "sid s1");
    browser.sees("#denials", "revoked: session");
    assert_eq!(browser.complaints(&[]), [""; 0]);

    daemon.signal("-TERM");
    daemon.ended();
    browser.sees("#trouble", "does not answer");
    let daemon = daemon.running();
    daemon.revoke(json!({ "kind": "session", "sid": "s2" }));
    browser.sees(READY.0, READY.1);
    browser.sees("#list", "sid s2");
    assert_eq!(browser.text("#trouble"), "");
}

#[test]
fn a_store_that_is_away_is_told_and_what_happened_meanwhile_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let store = || {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--dir"]).arg(folder.path()).stdout(Stdio::null());
        let running = Running(command.spawn().unwrap());
        eventually("the store answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        running
    };
    let first = store();
    let node = || Daemon::prepared(&format!("redis://127.0.0.1:{port}"), true, "").running();
    let (daemon, other) = (node(), node());
    let Some(browser) = opened(&daemon) else { return };
    browser.run(
        "window.said = []; const note = () => window.said.push(document.querySelector('#ready').textContent);
         new MutationObserver(note).observe(document.querySelector('#ready'), { childList: true, characterData: true, subtree: true })",
    );
    drop(first);
    browser.sees("#ready", "Not ready");
    browser.sees("#trouble", "Not ready: ");
    // The daemon is there, and goes on telling: it refuses now.
    assert_eq!(daemon.through(&jwt(json!({}))), 503);
    browser.sees("#denials", "stale");

    let _second = store();
    let asked = json!({ "scope": { "kind": "session", "sid": "meanwhile" } });
    eventually("it can be recorded again", || other.call("POST", "/api/v1/revocations", asked.clone()).status == 200);
    browser.sees("#list", "sid meanwhile");
    browser.sees(READY.0, READY.1);
    let said = browser.run("return window.said");
    assert!(!said.as_array().unwrap().contains(&json!("No connection")), "{said}");
    assert_eq!(browser.complaints(&[503]), [""; 0]);
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn elsewhere_nothing_is_read_without_the_token_and_nothing_keeps_it() {
    let daemon = Daemon::prepared("sqlite://revoked.db", true, "");
    let text = fs::read_to_string(daemon.config()).unwrap();
    let open = text.replace(
        &format!("[admin]\nlisten = \"{}\"", daemon.admin),
        &format!("[admin]\nlisten = \"0.0.0.0:{}\"", daemon.admin.port()),
    );
    assert_ne!(open, text);
    daemon.write_config(&open);
    let daemon = daemon.running();
    daemon.revoke(json!({ "kind": "session", "sid": "hidden" }));
    let Some(browser) = Browser::start() else { return };
    browser.open(&url(&daemon));
    browser.sees("#locked", "needs the admin token");
    assert_eq!(browser.run("return document.querySelector('main').checkVisibility()"), false);
    browser.click("#unlock");
    browser.fill("#token-value", TOKEN);
    browser.press(&[ENTER]);
    browser.sees("#list", "sid hidden");
    let kept = browser.run("return document.cookie + location.href + JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.documentElement.outerHTML + JSON.stringify(performance.getEntriesByType('resource').map((one) => one.name))");
    assert!(!kept.as_str().unwrap().contains(TOKEN));
    browser.click("#token");
    browser.sees("#locked", "needs the admin token");
    browser.open(&url(&daemon));
    browser.sees("#locked", "needs the admin token");
    assert_eq!(browser.complaints(&[401]), [""; 0]);
}

#[test]
fn other_pages_neither_change_nor_read_anything() {
    let daemon = Daemon::start();
    let Some(browser) = opened(&daemon) else { return };
    // With the page open beside it, and the token in there.
    show_token(&browser);
    let foreign = foreign_page(&daemon);
    browser.open(&foreign);
    browser.until("it has tried everything", "return window.done === true");
    assert_eq!(browser.run("return window.read"), json!([]), "a foreign page has read something");
    assert_eq!(browser.run("try { return frames.framed.document.body.innerHTML } catch { return '' }"), "");
    let said = browser.complaints(&[]).join("\n");
    assert!(said.contains("frame-ancestors"), "{said}");
    assert_eq!(daemon.get("/api/v1/revocations").json()["revocations"], json!([]));
    assert_eq!(daemon.get("/api/v1/endpoints").json()["endpoints"]["token"]["enabled"], true);
}

/// A page of another origin on this machine, which tries what it can.
fn foreign_page(daemon: &Daemon) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let page = r#"<!doctype html><title>foreign</title><iframe src="ADMIN/" name="framed"></iframe>
<form method="post" enctype="text/plain" action="ADMIN/api/v1/revocations" target="none"><input name='{"scope":{"kind":"subject","sub":"alice"},"x":"' value='"}'></form><iframe name="none"></iframe>
<script>
window.read = []; window.done = false;
const body = JSON.stringify({ scope: { kind: 'subject', sub: 'alice' } });
const tries = [
  ['/api/v1/revocations', { method: 'POST', mode: 'no-cors', headers: { 'content-type': 'text/plain' }, body }],
  ['/api/v1/revocations', { method: 'POST', headers: { 'content-type': 'application/json', authorization: 'Bearer TOKEN' }, body }],
  ['/api/v1/endpoints', { method: 'PUT', headers: { 'content-type': 'application/json', authorization: 'Bearer TOKEN' }, body: '{"token":false}' }],
  ['/api/v1/revocations', {}], ['/api/v1/feed', {}], ['/api/v1/status', { credentials: 'include' }], ['/', {}], ['/page.js', {}],
];
(async () => {
  for (const [path, how] of tries) {
    try {
      const answer = await fetch('ADMIN' + path, how);
      if (answer.type !== 'opaque') window.read.push([path, answer.status]);
    } catch {}
  }
  document.querySelector('[name=none]').addEventListener('load', () => { window.done = true; });
  document.forms[0].submit();
})();
</script>"#;
    let page = page.replace("ADMIN", &format!("http://{}", daemon.admin)).replace("TOKEN", TOKEN);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                page.len()
            );
            let _ = stream.write_all((head + &page).as_bytes());
        }
    });
    format!("http://{address}/")
}

#[test]
fn its_files_are_the_listeners_own_and_hold_nothing() {
    let daemon = Daemon::start();
    let page = daemon.get("/");
    let files: Vec<String> = page
        .body
        .split('"')
        .filter(|part| part.starts_with('/'))
        .map(str::to_owned)
        .chain(["/".into(), "/api.js".into(), "/text.js".into(), "/revoke.js".into(), "/revocations.js".into()])
        .collect();
    assert!(files.len() >= 8, "{files:?}");
    for file in &files {
        // The page itself is no secret; what it shows is.
        let answer = daemon.get(file);
        assert_eq!(answer.status, 200, "{file}");
        let policy = answer.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(part), "{file}: {part}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(
            !answer.body.contains("innerHTML") && !answer.body.contains("http://") || file == "/icon.svg",
            "{file}"
        );
        for (header, status) in
            [("origin: http://rebound.example", 403), ("origin: null", 403), ("x-forwarded-for: 192.0.2.1", 200)]
        {
            assert_eq!(daemon.ask("GET", file, &[header], "").status, status, "{file}, {header}");
        }
        assert_eq!(http(daemon.admin, "GET", file, &["host: rebound.example"], b"").status, 403, "{file}");
        let posted = daemon.ask("POST", file, &["content-type: application/json"], "{}");
        assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")), "{file}");
        assert_eq!(daemon.ask("HEAD", file, &[], "").body, "");
    }
    eventually("nothing is logged of it", || !daemon.log().contains("page.js"));
}

/// Makes the pictures of the documentation anew:
/// `cargo test -p revoked --test browser -- --ignored pictures`.
#[test]
#[ignore = "writes docs/pictures"]
fn pictures() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}/fleet.db", folder.path().display());
    let node = |name: &str| Daemon::prepared(&format!("{store}\"\nnode = \"{name}"), true, "").running();
    let (daemon, _other) = (node("gateway-1"), node("gateway-2"));
    let revoke = |scope: Value, more: Value| {
        let mut asked = json!({ "scope": scope, "by": "carol" });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(daemon.call("POST", "/api/v1/revocations", asked).status, 200);
    };
    let subject = |sub: &str| json!({ "kind": "subject", "iss": ISSUER, "sub": sub });
    revoke(subject("mallory"), json!({ "ban": true, "reason": "account taken over", "by": "night-desk" }));
    revoke(subject("dave"), json!({ "reason": "left the company", "by": "hr-sync" }));
    revoke(json!({ "kind": "session", "sid": "kiosk-17" }), json!({ "reason": "kiosk was left open" }));
    revoke(subject("alice"), json!({ "reason": "stolen laptop, ticket 4711" }));
    let Some(browser) = opened(&daemon) else { return };
    for (sub, path) in
        [("alice", "/orders/17"), ("mallory", "/admin/users"), ("alice", "/profile"), ("dave", "/orders?page=2")]
    {
        let header = format!("authorization: Bearer {}", jwt(json!({ "sub": sub, "jti": sub, "sid": sub })));
        assert_eq!(http(daemon.listen, "GET", path, &["host: app", &header], b"").status, 401);
    }
    assert_eq!(daemon.through("nonsense"), 401);
    browser.until("all are told", "return document.querySelectorAll('#denials > li').length === 5");
    browser.sees("#nodes-live", "2 live");
    show_token(&browser);
    let pictures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures");
    fs::create_dir_all(&pictures).unwrap();
    let take = |name: &str| {
        browser.run("document.activeElement.blur()");
        let picture = browser.screenshot();
        assert!(picture.len() < 200 * 1024, "{name}: {} bytes", picture.len());
        fs::write(pictures.join(name), picture).unwrap();
    };
    browser.screen(1200, 1060, false);
    browser.prefers(&[("prefers-color-scheme", "light")]);
    take("operators-light.png");
    browser.fill("#sub", "bob");
    browser.fill("#reason", "phone lost");
    browser.click("#revoke-form [type=submit]");
    browser.sees("#ask-head", "Revoke this?");
    browser.prefers(&[("prefers-color-scheme", "dark"), ("prefers-reduced-motion", "reduce")]);
    take("operators-dark.png");
    browser.click("#ask-no");
    browser.prefers(&[("prefers-color-scheme", "light")]);
    browser.screen(390, 1100, true);
    take("operators-phone.png");
    browser.run("document.querySelector('#list-head').scrollIntoView()");
    take("operators-phone-list.png");
}
