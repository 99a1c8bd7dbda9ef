use std::{
    collections::HashMap,
    fmt,
    fs::{File as Opened, Metadata},
    io::Read as _,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{
    future::{self, BoxFuture, FutureExt},
    stream::{self, BoxStream, StreamExt},
};
use tokio::time::{Instant, sleep_until};

use super::{
    Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, Memory, NodeStatus,
    OneTime, Position,
    list::{self, Format, Listed},
};
use crate::{
    revocation::{Change, Detail, Lift, Record, RevocationId, ScopeKey},
    time::Clock,
};

/// A list of revocations in a file that somebody else writes: read-only, and watched.
///
/// The file is read anew within a second of its change; it may be replaced, also by way of a symbolic link, or rewritten in
/// place. The new list takes effect as a whole, or not at all: a file that is cut short, too large, not readable, or wrong
/// in one line leaves the old list in force, is said to be broken, and counts as a backend that is out of touch: the node
/// becomes stale, and does what it was told to do then ([`Staleness`](crate::denylist::Staleness)).
///
/// The formats, one entry a line, each line ended by a line feed:
///
/// - **JSON lines**, as `revoked export` writes them: `{"scope":{"kind":"subject","iss":"…","sub":"…"},"cutoff":1700000000}`.
///   `cutoff` is in Unix seconds or `"forever"`, which tokens and sessions have by themselves; `retain_until` in Unix
///   seconds or `"lifted"`, which it is where it is left out: the entry counts for as long as it is listed. `id`, `reason`,
///   `revoked_by` and `revoked_at` may be there. `{"lift":["id",…],"scope":{…}}` takes back what has these ids. The last
///   line may be `{"end":N}`, where N counts the lines before it: then no lost line goes unnoticed.
/// - **Subjects** (`?subjects=ISSUER`): a `sub` a line, all of whose tokens are refused while it is listed. Empty lines and
///   lines that begin with `#` count for nothing.
///
/// What has been in force stays so on running nodes when its line disappears: a line may be lost in more ways than it is
/// taken out. Take JSON entries back with `lift`, or say with `?removed=lift` that a line that is gone is taken back.
///
/// Nothing can be recorded here: [`Backend::publish`] and whatever else would write fails with
/// [`BackendErrorKind::ReadOnly`], so that revocation routes answer 503. Each node reads the file by itself.
pub struct File {
    source: Source,
    /// What was read, as changes.
    memory: Memory,
    loaded: Mutex<Loaded>,
    /// One reads at a time.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Source {
    path: PathBuf,
    format: Format,
    lifts_removed: bool,
}

#[derive(Default)]
struct Loaded {
    settings: Option<FleetSettings>,
    /// The state of the file that was read last.
    stamp: Option<Stamp>,
    /// Why it cannot be used, where that is so.
    broken: Option<String>,
    /// What is in force, by the digest of its line.
    lines: HashMap<[u8; 32], (ScopeKey, RevocationId, u64)>,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Device, inode, seconds and nanoseconds of the last change.
    #[cfg(unix)]
    place: (u64, u64, i64, i64),
}

/// A list, and the state of the file that it was read from.
type Read = (Stamp, Vec<Listed>);

/// The largest file that is read.
const MAX_BYTES: u64 = 256 << 20;
/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);

impl File {
    /// Opens what a URL names: `file:///etc/revoked/list.jsonl`, or `file:///etc/revoked/banned.txt?subjects=ISSUER`;
    /// `removed=lift` may be added. Values are percent-decoded.
    ///
    /// # Errors
    ///
    /// Where the URL is none of these, or the file cannot be used as it is now.
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        let source = Source::of(url)?;
        let file =
            Self { source, memory: Memory::new(), loaded: Mutex::default(), reading: tokio::sync::Mutex::new(()) };
        file.read(None).await?;
        Ok(file)
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's list, unless it is as `seen`.
    async fn read(&self, seen: Option<Stamp>) -> Result<Option<Read>, BackendError> {
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read(seen)).await;
        read.unwrap_or_else(|error| Err((None, error.to_string()))).map_err(|(stamp, why)| {
            let mut loaded = self.loaded();
            let new = loaded.broken.as_ref() != Some(&why);
            loaded.broken = Some(why.clone());
            // Where it could not be read at all, it is to be read again even if it has not changed.
            loaded.stamp = stamp;
            if new {
                #[cfg(feature = "tracing")]
                tracing::error!(file = %self.source.path.display(), error = why, "the list cannot be used; the old one stays");
            }
            self.source.broken(&why)
        })
    }

    /// Takes in what has changed in the file.
    async fn refresh(&self, now: u64) -> Result<(), BackendError> {
        let _one = self.reading.lock().await;
        let (seen, broken) = {
            let loaded = self.loaded();
            (loaded.stamp, loaded.broken.clone())
        };
        let Some((stamp, listed)) = self.read(seen).await? else {
            // As it was: broken too.
            return broken.map_or(Ok(()), |why| Err(self.source.broken(&why)));
        };
        let changes = self.changes(stamp, listed, now)?;
        if !changes.is_empty() {
            self.memory.publish(&changes).await?;
        }
        Ok(())
    }

    /// What the new list changes.
    fn changes(&self, stamp: Stamp, listed: Vec<Listed>, now: u64) -> Result<Vec<Change>, BackendError> {
        let mut loaded = self.loaded();
        let Some(settings) = loaded.settings.clone() else {
            let what = "reading a list before the node has its settings";
            return Err(BackendError::new(BackendErrorKind::Settings, what));
        };
        let hasher = settings.hasher();
        let latest = now.saturating_add(settings.skew.max(settings.leeway));
        let future = listed.iter().find(|line| line.cutoff().is_some_and(|at| at > latest));
        if let Some(line) = future {
            let why =
                format!("line {}: its cutoff is in the future, and would lock the scope out for good", line.number());
            loaded.stamp = Some(stamp);
            loaded.broken = Some(why.clone());
            return Err(self.source.broken(&why));
        }
        let mut before = std::mem::take(&mut loaded.lines);
        let (mut changes, mut lifts) = (Vec::new(), Vec::new());
        for line in listed {
            match line {
                Listed::Revoke { digest, id, scope, cutoff, retain_until, reason, revoked_by, revoked_at, .. } => {
                    let held = before.remove(&digest);
                    let key = hasher.key(&scope);
                    let id = held.map(|(_, id, _)| id).or(id).unwrap_or_else(RevocationId::random);
                    if loaded.lines.insert(digest, (key, id, retain_until)).is_some()
                        || held.is_some()
                        || retain_until < now
                    {
                        continue;
                    }
                    let detail = Detail { scope: Some(scope), reason, revoked_by, revoked_at };
                    changes.push(Change::Revoke(Record::new(key, id, cutoff, retain_until, &detail)));
                }
                Listed::Lift { digest, ids, scope, .. } => {
                    let (key, held) = (hasher.key(&scope), before.remove(&digest).is_some());
                    if loaded.lines.insert(digest, (key, RevocationId::from_u64(0), 0)).is_none() && !held {
                        let detail = Detail { scope: Some(scope), revoked_at: now, ..Detail::default() };
                        lifts.push(Change::Lift(Lift::new(key, ids, u64::MAX, &detail)));
                    }
                }
            }
        }
        if self.source.lifts_removed {
            lifts.extend(before.values().filter(|(_, _, retain_until)| *retain_until >= now).map(
                |(key, id, retain_until)| {
                    let detail = Detail { revoked_at: now, ..Detail::default() };
                    Change::Lift(Lift::new(*key, vec![*id], *retain_until, &detail))
                },
            ));
        } else if !before.is_empty() {
            #[cfg(feature = "tracing")]
            tracing::warn!(
                file = %self.source.path.display(), lines = before.len(),
                "lines are gone from the list; what they revoked stays so on this node until it is started anew"
            );
            // So that they are nothing new when they come back.
            loaded.lines.extend(before);
        }
        // What is revoked anew must not wait for what is lifted.
        changes.extend(lifts);
        (loaded.stamp, loaded.broken) = (Some(stamp), None);
        Ok(changes)
    }

    fn read_only<T>(&self, what: &str) -> Result<T, BackendError> {
        let path = self.source.path.display();
        let what = format!("{what}: the list in {path} is read-only; record with another backend");
        Err(BackendError::new(BackendErrorKind::ReadOnly, what))
    }
}

impl Source {
    fn of(url: &str) -> Result<Self, BackendError> {
        let wrong = |what: &str| {
            let what =
                format!("opening a list by its URL: {what}; write file:///path, ?subjects=ISSUER and &removed=lift");
            BackendError::new(BackendErrorKind::Settings, what)
        };
        let rest = url.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("file://")).map(|_| &url[7..]);
        let rest = rest.filter(|rest| rest.starts_with('/')).ok_or_else(|| wrong("it names no absolute path"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let decode = |text: &str| decoded(text).ok_or_else(|| wrong("an escape in it is broken"));
        let (mut format, mut lifts_removed) = (Format::Json, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("subjects", issuer)) if !issuer.is_empty() => format = Format::Subjects(decode(issuer)?.into()),
                Some(("removed", "lift")) => lifts_removed = true,
                Some(("removed", "keep")) => lifts_removed = false,
                _ => return Err(wrong("a parameter of it is not known")),
            }
        }
        Ok(Self { path: decode(path)?.into(), format, lifts_removed })
    }

    /// The list, unless the file is as `seen`; else why not, and of which state of the file that is true.
    fn read(&self, seen: Option<Stamp>) -> Result<Option<Read>, (Option<Stamp>, String)> {
        let unreadable = |error: std::io::Error| (None, format!("it cannot be read: {error}"));
        // The file that is there now, by way of whatever links; what replaces it later is another one.
        let mut file = Opened::open(&self.path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err((None, "it is no file".to_owned()));
        }
        let stamp = Stamp::of(&metadata);
        if seen == Some(stamp) {
            return Ok(None);
        }
        if stamp.length > MAX_BYTES {
            return Err((Some(stamp), format!("it has more than {MAX_BYTES} bytes")));
        }
        let mut text = Vec::with_capacity(usize::try_from(stamp.length).unwrap_or(0));
        (&mut file).take(MAX_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
        if Stamp::of(&file.metadata().map_err(unreadable)?) != stamp || text.len() as u64 != stamp.length {
            return Err((None, "it is being written".to_owned()));
        }
        let listed = list::parse(&text, &self.format).map_err(|error| (Some(stamp), error.to_string()))?;
        Ok(Some((stamp, listed)))
    }

    fn broken(&self, why: &str) -> BackendError {
        let what = format!("reading the list in {}: {why}; what was in force stays so", self.path.display());
        BackendError::new(BackendErrorKind::Corrupt, what)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        Self {
            length: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            place: (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let hex = |digit: Option<u8>| char::from(digit?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { hex(rest.next())? << 4 | hex(rest.next())? } else { byte });
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

impl Backend for File {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        async move {
            let settings = self.memory.agree(ours).await?;
            let mut loaded = self.loaded();
            loaded.settings = Some(settings.clone());
            Ok(settings)
        }
        .boxed()
    }

    fn publish<'a>(&'a self, _: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        future::ready(self.read_only("recording revocations")).boxed()
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let resume = from.filter(|from| self.memory.holds(from)).map(|from| from.offset());
        let start = stream::iter(resume.is_none().then_some(Ok(Event::Snapshot)));
        let changes = stream::unfold(Some((resume.unwrap_or(0), Instant::now())), move |place| async move {
            let (offset, due) = place?;
            loop {
                let page = self.memory.after(offset);
                if let Some((reached, _)) = page.last() {
                    let reached = *reached;
                    let changes = page.into_iter().map(|(_, change)| change).collect();
                    return Some((Ok(Event::Changes(changes)), Some((reached, due))));
                }
                sleep_until(due).await;
                // Of when the file was looked at; what is broken is nothing that a node could be in step with.
                let as_of = clock.now();
                if let Err(error) = self.refresh(as_of.unix()).await {
                    return Some((Err(error), None));
                }
                if self.memory.after(offset).is_empty() {
                    let position = self.memory.position(offset);
                    return Some((Ok(Event::CaughtUp { position, as_of }), Some((offset, Instant::now() + EVERY))));
                }
            }
        });
        start.chain(changes).boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        self.memory.lookup(keys)
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        self.memory.heartbeat(node)
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        self.memory.retire(node)
    }

    fn claim_once<'a>(&'a self, _: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        future::ready(self.read_only("claiming a message that counts once")).boxed()
    }

    fn finish_once<'a>(&'a self, _: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        future::ready(self.read_only("finishing a message that counts once")).boxed()
    }

    fn intend<'a>(&'a self, _: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        future::ready(self.read_only("announcing revocations")).boxed()
    }

    fn settle(&self, _: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        future::ready(self.read_only("settling announced revocations")).boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        future::ready(Ok(Vec::new())).boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.memory.purge(before)
    }

    /// Nothing is ever acknowledged; what is listed is on disk.
    fn durability(&self) -> Durability {
        Durability::Machine
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.source.path).field("memory", &self.memory).finish_non_exhaustive()
    }
}
