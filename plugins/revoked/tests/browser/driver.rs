//! A headless Chromium, driven by WebDriver (W3C): chromedriver takes JSON over HTTP.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    missing_docs
)]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a browser may take for one thing, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// The member that names an element (WebDriver §11).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const DOWN: &str = "\u{e015}";

pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    /// The user data directory: a new one, so that nothing of another run counts.
    _profile: TempDir,
}

impl Browser {
    /// `None` where there is no chromedriver, and the tests may do without.
    pub fn start() -> Option<Self> {
        let Some(driver) = find("chromedriver") else {
            let required = std::env::var("REVOCATION_TESTS_BROWSER").is_ok_and(|value| value == "required");
            assert!(!required, "there is no chromedriver: install the Debian package chromium-driver");
            eprintln!("skipped: there is no chromedriver");
            return None;
        };
        let mut driver =
            Command::new(driver).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse::<u16>().ok());
        // Nobody else reads what it says.
        thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver says its port")));
        let mut browser = Self { driver, address, session: String::new(), _profile: profile };
        let data = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--lang=en-GB",
            "--window-size=1280,900",
            &data,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.send("POST", "/session", &wanted);
        session["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        Some(browser)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        self.try_send(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn try_send(&self, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        let mut line = String::new();
        while answer.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut bytes = vec![0; length];
        answer.read_exact(&mut bytes).unwrap();
        let mut said: Value = serde_json::from_slice(&bytes).unwrap();
        let value = said["value"].take();
        if value["error"].is_string() { Err(value) } else { Ok(value) }
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        self.send("POST", &format!("/session/{}{path}", self.session), body)
    }

    fn get(&self, path: &str) -> Value {
        self.send("GET", &format!("/session/{}{path}", self.session), &Value::Null)
    }

    pub fn open(&self, url: &str) {
        self.call("/url", &json!({ "url": url }));
    }

    /// What a function body returns in the page.
    pub fn run(&self, script: &str) -> Value {
        self.run_with(script, json!([]))
    }

    pub fn run_with(&self, script: &str, arguments: Value) -> Value {
        self.call("/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Tells the browser itself (Chrome DevTools protocol).
    pub fn tell(&self, command: &str, parameters: Value) -> Value {
        self.call("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    fn find(&self, selector: &str) -> String {
        let mut last = Value::Null;
        let found = wait_for(|| {
            let body = json!({ "using": "css selector", "value": selector });
            match self.try_send("POST", &format!("/session/{}/element", self.session), &body) {
                Ok(element) => element[ELEMENT].as_str().map(str::to_owned),
                Err(error) => {
                    last = error;
                    None
                }
            }
        });
        found.unwrap_or_else(|| panic!("no {selector}: {last}"))
    }

    /// Clicks as a user does: where something else lies on top, it fails.
    pub fn click(&self, selector: &str) {
        let mut last = Value::Null;
        // What moves, or is drawn anew, cannot be hit at once.
        let clicked = wait_for(|| {
            let path = format!("/session/{}/element/{}/click", self.session, self.find(selector));
            self.try_send("POST", &path, &json!({})).map_err(|error| last = error).ok()
        });
        assert!(clicked.is_some(), "{selector} cannot be clicked: {last}");
    }

    /// Types into a field, in place of what is there.
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.call(&format!("/element/{element}/clear"), &json!({}));
        self.call(&format!("/element/{element}/value"), &json!({ "text": text }));
    }

    pub fn choose(&self, selector: &str, value: &str) {
        self.click(&format!("{selector} option[value=\"{value}\"]"));
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub fn press(&self, keys: &[&str]) {
        let press = |key: &&str| {
            key.chars()
                .flat_map(|key| {
                    let key = key.to_string();
                    [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
                })
                .collect::<Vec<_>>()
        };
        let actions: Vec<Value> = keys.iter().flat_map(press).collect();
        self.call("/actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }));
    }

    /// The id of what has the focus, or its tag.
    pub fn focus(&self) -> String {
        let at = self.run("const at = document.activeElement; return at.id || at.tagName.toLowerCase()");
        at.as_str().unwrap().to_owned()
    }

    pub fn text(&self, selector: &str) -> String {
        let text = self.run_with("return document.querySelector(arguments[0])?.innerText ?? ''", json!([selector]));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the text of what is selected holds this.
    pub fn sees(&self, selector: &str, text: &str) {
        let seen = wait_for(|| self.text(selector).contains(text).then_some(()));
        assert!(seen.is_some(), "{selector} does not say {text:?}, but {:?}", self.text(selector));
    }

    /// Waits until a script returns true.
    pub fn until(&self, what: &str, script: &str) {
        assert!(wait_for(|| (self.run(script) == true).then_some(())).is_some(), "still not so: {what}");
    }

    /// The name that a screen reader says of an element.
    pub fn spoken(&self, selector: &str) -> String {
        let element = self.find(selector);
        self.get(&format!("/element/{element}/computedlabel")).as_str().unwrap().to_owned()
    }

    /// What the console has said since this was asked last, but for answers with these statuses that were provoked.
    pub fn complaints(&self, provoked: &[u16]) -> Vec<String> {
        let said = self.call("/se/log", &json!({ "type": "browser" }));
        let said = said.as_array().unwrap().iter().map(|entry| format!("{}: {}", entry["level"], entry["message"]));
        let is_provoked = |said: &String| {
            provoked.iter().any(|status| said.contains(&format!("responded with a status of {status} ")))
        };
        said.filter(|said| !is_provoked(said)).collect()
    }

    /// Shows pages as on a screen of this size.
    pub fn screen(&self, width: u32, height: u32, phone: bool) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone });
        self.tell("Emulation.setDeviceMetricsOverride", screen);
    }

    pub fn prefers(&self, features: &[(&str, &str)]) {
        let features: Vec<_> = features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.tell("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    pub fn screenshot(&self) -> Vec<u8> {
        STANDARD.decode(self.get("/screenshot").as_str().unwrap()).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let _ = self.try_send("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        match condition() {
            None if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(50)),
            found => return found,
        }
    }
}
