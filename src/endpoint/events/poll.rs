//! Events that are fetched from a transmitter (RFC 8936).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};
use zeroize::Zeroizing;

use super::receiver::{EventReceiver, Taken};
use crate::{
    endpoint::post::{Post, SendError},
    token::Members,
};

/// The longest answer of a transmitter, in bytes.
const MOST: usize = 4 << 20;
/// How long an answer may take: transmitters hold it back until there is something to tell.
const LONGEST: Duration = Duration::from_secs(120);
/// The longest time between two tries.
const BACK_OFF: Duration = Duration::from_secs(60);
/// How often those that do not hold an answer back are asked.
const PAUSE: Duration = Duration::from_secs(1);

/// Fetches events from a transmitter (RFC 8936), and acknowledges each only once it is durable and enforced here.
///
/// What is refused is told to the transmitter (`setErrs`); what could not be recorded now is left with it, and comes
/// again. Several nodes may poll one stream: events may come to any of them, and again to another, which changes nothing.
#[must_use]
pub struct Poll {
    iss: String,
    url: String,
    secret: Option<Zeroizing<String>>,
    allow_http: bool,
    max_events: usize,
}

/// A transmitter that is being polled, until this is dropped.
#[derive(Debug)]
pub struct Polling {
    task: AbortHandle,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    failures: AtomicU64,
}

impl Poll {
    /// Polls the transmitter whose events have this `iss` at this URL, where it takes no other's events.
    pub fn new(iss: impl Into<String>, url: impl Into<String>) -> Self {
        Self { iss: iss.into(), url: url.into(), secret: None, allow_http: false, max_events: 100 }
    }

    /// What to show there: `Authorization: Bearer …`.
    pub fn bearer(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(Zeroizing::new(secret.into()));
        self
    }

    /// Allows plain http: where nobody else can listen.
    pub const fn allow_http(mut self) -> Self {
        self.allow_http = true;
        self
    }

    /// How many events to take at once, from 1 to 200. Default: 100.
    pub fn max_events(mut self, most: usize) -> Self {
        self.max_events = most.clamp(1, 200);
        self
    }

    /// Begins, on the present tokio runtime. `receiver` is asked for each answer, so that a service that is put together
    /// anew goes on; as long as there is none, nothing is fetched.
    ///
    /// # Errors
    ///
    /// Where nothing may be sent to that URL, or the secret fits no header.
    pub fn start(
        self,
        receiver: impl Fn() -> Option<EventReceiver> + Send + Sync + 'static,
    ) -> Result<Polling, SendError> {
        let post = Post::new(self.allow_http)?;
        let url = post.check(&self.url)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(secret) = &self.secret {
            let value = HeaderValue::from_str(&format!("Bearer {}", &**secret));
            let mut value = value.map_err(|_| SendError::Url { url: "the secret of a poll".to_owned() })?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| SendError::NoRuntime)?;
        let counts = Arc::<Counts>::default();
        let poller = Poller { iss: self.iss, url, post, headers, most: self.max_events, counts: Arc::clone(&counts) };
        Ok(Polling { task: runtime.spawn(poller.run(receiver)).abort_handle(), counts })
    }
}

impl Polling {
    /// How many events were acknowledged, refused, and how many tries failed, since it began.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { acknowledged, refused, failures } = &*self.counts;
        [("acknowledged", load(acknowledged)), ("refused", load(refused)), ("failures", load(failures))]
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Poller {
    iss: String,
    url: Uri,
    post: Post,
    headers: HeaderMap,
    most: usize,
    counts: Arc<Counts>,
}

/// What the transmitter has still to be told.
#[derive(Default)]
struct Told {
    acknowledged: Vec<String>,
    refused: BTreeMap<String, Value>,
}

impl Poller {
    async fn run(self, receiver: impl Fn() -> Option<EventReceiver> + Send + Sync) {
        let mut told = Told::default();
        let mut wait = PAUSE;
        loop {
            let Some(receiver) = receiver() else {
                sleep(PAUSE).await;
                continue;
            };
            let began = Instant::now();
            match self.fetch(&told).await {
                Some((sets, more)) => {
                    // It has been told.
                    self.counts.acknowledged.fetch_add(told.acknowledged.len() as u64, Ordering::Relaxed);
                    self.counts.refused.fetch_add(told.refused.len() as u64, Ordering::Relaxed);
                    told = Told::default();
                    let later = self.take(&receiver, sets, &mut told).await;
                    let nothing = told.acknowledged.is_empty() && told.refused.is_empty() && !more;
                    if later {
                        sleep(wait).await;
                        wait = (wait * 2).min(BACK_OFF);
                        continue;
                    }
                    wait = PAUSE;
                    if nothing && began.elapsed() < PAUSE {
                        sleep(PAUSE).await;
                    }
                }
                None => {
                    self.counts.failures.fetch_add(1, Ordering::Relaxed);
                    #[cfg(feature = "tracing")]
                    tracing::warn!(transmitter = %self.iss, ?wait, "a transmitter could not be polled; trying again");
                    sleep(wait).await;
                    wait = (wait * 2).min(BACK_OFF);
                }
            }
        }
    }

    /// Takes each event; whether any of them has to come again.
    async fn take(&self, receiver: &EventReceiver, sets: Vec<(String, String)>, told: &mut Told) -> bool {
        let mut later = false;
        for (jti, set) in sets {
            match receiver.take(&self.iss, &set).await {
                Taken::Accepted => told.acknowledged.push(jti),
                Taken::Refused(err, description) => {
                    told.refused.insert(jti, json!({ "err": err, "description": description }));
                }
                Taken::Later => later = true,
            }
        }
        later
    }

    /// Tells what became of the last events, and fetches the next; whether there are more.
    async fn fetch(&self, told: &Told) -> Option<(Vec<(String, String)>, bool)> {
        let mut asked = json!({ "maxEvents": self.most, "returnImmediately": false });
        if !told.acknowledged.is_empty() {
            asked["ack"] = json!(told.acknowledged);
        }
        if !told.refused.is_empty() {
            asked["setErrs"] = json!(told.refused);
        }
        let (status, body) = self.post.send(&self.url, self.headers.clone(), asked.to_string(), MOST, LONGEST).await?;
        if status != StatusCode::OK {
            return None;
        }
        read(&body)
    }
}

/// The answer of RFC 8936 §2.3.
fn read(body: &[u8]) -> Option<(Vec<(String, String)>, bool)> {
    let answer = Members::parse(body).ok()?;
    let more = answer.get::<bool>("moreAvailable").ok()?.unwrap_or(false);
    let Some(sets) = answer.raw("sets") else { return Some((Vec::new(), more)) };
    let sets = Members::parse(sets.get().as_bytes()).ok()?;
    let each = sets.iter().map(|(jti, set)| Some((jti.to_owned(), serde_json::from_str::<String>(set.get()).ok()?)));
    Some((each.collect::<Option<_>>()?, more))
}

impl fmt::Debug for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll").field("iss", &self.iss).field("max_events", &self.max_events).finish_non_exhaustive()
    }
}
