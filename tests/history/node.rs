//! A node as a process of its own: commands on its standard input, answers on its standard output, a line of JSON each.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower_revocation::{
    Revocations, backend,
    denylist::{Mode, Staleness, Tiered, Verdict},
    revocation::{Revocation, Scope},
    sync::SyncConfig,
    time::{Clock, Moment, SystemClock},
    token::{Claims, Identity},
};

use super::laws::{Answer, Item};

const ISSUER: &str = "https://issuer.example/";
/// Longer than anything that may be waited for.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a revocation waits for all nodes.
const LIMIT: Duration = Duration::from_secs(3);

/// A node that is run as a process, and what waits for its answers.
pub struct Process {
    config: Value,
    running: Mutex<Option<Running>>,
    asked: AtomicU64,
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    waiting: Waiting,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

impl Process {
    /// `at_hand`: how many entries it keeps in memory, where that is not all.
    pub fn start_new(url: &str, name: &str, offset: i64, refuse_after: Duration, at_hand: Option<u64>) -> Self {
        let config = json!({"url": url, "name": name, "offset": offset, "refuse_after": refuse_after.as_millis() as u64, "at_hand": at_hand});
        let this = Self { config, running: Mutex::new(None), asked: AtomicU64::new(0) };
        this.start();
        this
    }

    pub fn start(&self) {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["node_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env("HISTORY_NODE", self.config.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let waiting = Waiting::default();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let told = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in answers.lines().map_while(Result::ok) {
                // The first one shares its line with the test's name.
                let json = line.find('{').map_or("", |start| &line[start..]);
                let Ok(answer) = serde_json::from_str::<Value>(json) else { continue };
                let Some(id) = answer["id"].as_u64() else { continue };
                if let Some(waiting) = told.lock().unwrap().remove(&id) {
                    let _ = waiting.send(answer);
                }
            }
            // Nobody answers any more.
            told.lock().unwrap().clear();
        });
        let stdin = child.stdin.take().unwrap();
        *self.running.lock().unwrap() = Some(Running { child, stdin, waiting });
    }

    /// As a crash does.
    pub fn kill(&self) {
        if let Some(mut running) = self.running.lock().unwrap().take() {
            running.child.kill().unwrap();
            running.child.wait().unwrap();
        }
    }

    pub fn signal(&self, signal: &str) {
        if let Some(running) = &*self.running.lock().unwrap() {
            Command::new("kill").args([signal, &running.child.id().to_string()]).status().unwrap();
        }
    }

    /// `None`: no answer.
    async fn ask(&self, mut command: Value) -> Option<Value> {
        let id = self.asked.fetch_add(1, Ordering::SeqCst);
        command["id"] = id.into();
        let (answer, answered) = oneshot::channel();
        {
            let mut running = self.running.lock().unwrap();
            let running = running.as_mut()?;
            running.waiting.lock().unwrap().insert(id, answer);
            writeln!(running.stdin, "{command}").ok()?;
        }
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
    }

    /// Whether it holds as far as asked; `None` where it may not have happened.
    pub async fn revoke(&self, item: Item, everywhere: bool) -> Option<bool> {
        let answer = self.ask(json!({"do": "revoke", "item": item, "everywhere": everywhere})).await?;
        answer["holds"].as_bool()
    }

    pub async fn check(&self, item: Item) -> Option<Answer> {
        match self.ask(json!({"do": "check", "item": item})).await?["answer"].as_str()? {
            "allow" => Some(Answer::Allow),
            "deny" => Some(Answer::Deny),
            _ => Some(Answer::Unknown),
        }
    }

    pub async fn step_clock(&self, offset: i64) {
        self.ask(json!({"do": "step", "offset": offset})).await;
    }

    pub async fn status(&self) -> String {
        self.ask(json!({"do": "status"})).await.map_or_else(|| "no answer".to_owned(), |answer| answer.to_string())
    }

    /// Waits until it serves.
    pub async fn ready(&self) {
        for _ in 0..400 {
            if self.check(0).await == Some(Answer::Allow) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not come up: {}", self.status().await);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A clock that is off, and can be stepped.
#[derive(Debug)]
struct Off(AtomicI64);

impl Clock for Off {
    fn now(&self) -> Moment {
        let now = SystemClock.now();
        Moment::new(now.wall.saturating_add_signed(self.0.load(Ordering::SeqCst) * 1000), now.monotonic)
    }
}

/// The item's token: every other item is about a user.
fn scope(item: u64) -> Scope {
    if item.is_multiple_of(2) {
        Scope::token(ISSUER, item.to_string())
    } else {
        Scope::subject(ISSUER, item.to_string())
    }
}

fn token(item: u64, now: u64) -> Identity {
    let item = item.to_string();
    Identity::from_verified(&Claims::new(ISSUER).jti(&item).sub(&item).iat(now - 2000).exp(now + 2000))
}

/// Runs the node that the environment describes.
pub fn main() {
    let Ok(config) = std::env::var("HISTORY_NODE") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(serde_json::from_str(&config).unwrap()));
}

async fn serve(config: Value) {
    let clock = Arc::new(Off(AtomicI64::new(config["offset"].as_i64().unwrap())));
    let (lines, mut commands) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = lines.send(line);
        }
    });
    let node = tokio::sync::OnceCell::new();
    let node: Arc<tokio::sync::OnceCell<Revocations>> = Arc::new(node);
    let starting = Arc::clone(&node);
    let clocks = Arc::clone(&clock);
    tokio::spawn(async move {
        loop {
            let refuse_after = Duration::from_millis(config["refuse_after"].as_u64().unwrap());
            let mut settings = SyncConfig::new(Staleness::refuse_after(refuse_after));
            settings.node = config["name"].as_str().unwrap().to_owned();
            settings.denylist.clock = clocks.clone();
            settings.compare_every = Duration::from_secs(3);
            settings.publish_timeout = Duration::from_secs(2);
            if let Some(at_hand) = config["at_hand"].as_u64() {
                let tiered = Tiered::default().entries(at_hand).look_ups_per_source(u32::MAX);
                settings.denylist.mode = Mode::Tiered(tiered.look_up_limit(Duration::from_secs(2)));
            }
            if let Ok(backend) = backend::connect(config["url"].as_str().unwrap()).await
                && let Ok(revocations) = Revocations::start_unloaded(backend, settings).await
            {
                let _ = starting.set(revocations);
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    // The real time, for what tokens say: issuers have clocks of their own.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    while let Some(line) = commands.recv().await {
        let Ok(command) = serde_json::from_str::<Value>(&line) else { continue };
        let (node, clock) = (Arc::clone(&node), Arc::clone(&clock));
        tokio::spawn(async move {
            let mut answer = carry_out(&command, node.get(), &clock, now).await;
            answer["id"] = command["id"].clone();
            println!("{answer}");
        });
    }
}

async fn carry_out(command: &Value, node: Option<&Revocations>, clock: &Off, now: u64) -> Value {
    let item = command["item"].as_u64().unwrap_or(0);
    match (command["do"].as_str(), node) {
        (Some("step"), _) => {
            clock.0.store(command["offset"].as_i64().unwrap_or(0), Ordering::SeqCst);
            json!({})
        }
        (Some("check"), Some(node)) => {
            // Moka drops what is too much when it is told to, or has the time.
            node.denylist().maintain();
            let answer = match node.check_or_ask(&token(item, now)).await {
                Verdict::Allow => "allow",
                Verdict::Deny(_) => "deny",
                Verdict::Unknown(_) => "unknown",
            };
            json!({ "answer": answer })
        }
        (Some("check"), None) => json!({"answer": "unknown"}),
        (Some("revoke"), Some(node)) => {
            let everywhere = command["everywhere"] == true;
            match node.revoke(Revocation::new(scope(item))).await {
                Ok(_) if !everywhere => json!({"holds": true}),
                Ok(_) => match node.everywhere(LIMIT).await {
                    Ok(everywhere) => json!({"holds": everywhere.is_complete()}),
                    Err(_) => json!({"holds": false}),
                },
                Err(error) => json!({"error": error.to_string()}),
            }
        }
        (Some("status"), Some(node)) => json!({"status": format!("{:?} {:?}", node.status(), node.nodes())}),
        _ => json!({"error": "not started"}),
    }
}
