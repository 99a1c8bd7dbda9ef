use std::{collections::VecDeque, sync::Arc};

use tokio::{
    task::{JoinError, JoinSet},
    time::{Duration, Instant},
};

use redis::{RedisResult, Value};

use super::{
    super::{BackendError, BackendErrorKind, Event, Position},
    Redis,
    link::{Link, failed, read, read_head, unexpected},
    place::Place,
    script,
};
use crate::{
    revocation::{Change, Unreadable},
    time::{Clock, Moment},
};

/// One run of [`Backend::follow`](super::super::Backend::follow), on a connection of its own.
///
/// The log holds all that is live, in order: a snapshot is a feed that begins before everything.
pub(super) struct Feed<'a> {
    store: &'a Redis,
    clock: &'a dyn Clock,
    from: Option<Position>,
    link: Option<Arc<Link>>,
    /// The next page, read while this one is being applied, and when that began.
    ahead: Option<(Moment, JoinSet<RedisResult<Entries>>)>,
    reached: Place,
    /// What has been read and not yet been said.
    ready: VecDeque<Event>,
    /// When to look at the store as a whole again.
    look_at: Instant,
}

/// Entries of the log, with their records where they have one.
type Entries = Vec<(Place, Option<Vec<u8>>)>;

/// How many entries are read at once.
const PAGE: usize = 2048;
const HEARTBEAT: Duration = Duration::from_millis(500);
/// The name of a record's field in an entry.
const FIELD: &[u8] = b"c";

impl<'a> Feed<'a> {
    pub(super) fn new(store: &'a Redis, from: Option<Position>, clock: &'a dyn Clock) -> Self {
        let (link, reached, ready) = (None, Place::default(), VecDeque::new());
        Self { store, clock, from, link, ahead: None, reached, ready, look_at: Instant::now() }
    }

    pub(super) async fn next(&mut self) -> Result<Event, BackendError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            match self.link.take() {
                None => self.link = Some(Arc::new(self.begin().await?)),
                Some(link) => {
                    self.advance(&link).await?;
                    self.link = Some(link);
                }
            }
        }
    }

    /// Connects, and finds out where to go on.
    async fn begin(&mut self) -> Result<Link, BackendError> {
        let link = self.store.connect_again().await?;
        let place = self.from.take().filter(|from| from.incarnation() == link.incarnation).map(|from| Place::of(&from));
        match place {
            Some(place) if place <= link.head => self.reached = place,
            _ => self.ready.push_back(Event::Snapshot),
        }
        Ok(link)
    }

    /// Reads what comes next.
    async fn advance(&mut self, link: &Arc<Link>) -> Result<(), BackendError> {
        let failed = |error| failed(&self.store.shared.options, "following the feed of", error);
        let begun = self.ahead.take();
        let as_of = begun.as_ref().map_or_else(|| self.clock.now(), |(as_of, _)| *as_of);
        let left = self.look_at.saturating_duration_since(Instant::now());
        let (entries, head) = match begun {
            Some((_, mut page)) => (joined(page.join_next().await).map_err(failed)?, None),
            None if left.is_zero() => {
                let (head, entries) = self.look(link).await?;
                (entries, Some(head))
            }
            None => (read_page(link, self.reached, left).await.map_err(failed)?, None),
        };
        let (count, last) = (entries.len(), entries.last().map(|(place, _)| *place));
        self.reached = self.reached.max(last.unwrap_or_default());
        self.deliver(link, entries);
        if count == PAGE {
            self.read_ahead(link);
            return Ok(());
        }
        if head.is_none() && last.is_none() {
            // Nothing came. What was purged meanwhile has its place, too: only a look at the whole store tells.
            self.look_at = Instant::now();
            return Ok(());
        }
        self.reached = self.reached.max(head.unwrap_or_default());
        let position = self.reached.in_life(&link.incarnation);
        self.ready.push_back(Event::CaughtUp { position, as_of });
        Ok(())
    }

    fn read_ahead(&mut self, link: &Arc<Link>) {
        let (link, place) = (Arc::clone(link), self.reached);
        let as_of = self.clock.now();
        let mut page = JoinSet::new();
        page.spawn(async move { read_page(&link, place, Duration::ZERO).await });
        self.ahead = Some((as_of, page));
    }

    /// Entries and the place of the last one ever, at one moment. Ends the feed where the store is not what it was.
    async fn look(&mut self, link: &Link) -> Result<(Place, Entries), BackendError> {
        let options = &self.store.shared.options;
        let failed = |error| failed(options, "following the feed of", error);
        let arguments = [self.reached.to_string(), PAGE.to_string()];
        let answer = link.run(script::LOOK, &arguments.each_ref().map(String::as_bytes)).await.map_err(failed)?;
        let (life, place, entries): (Value, Value, Value) = read(answer).map_err(failed)?;
        let (incarnation, head) = read_head(&link.store, Value::Array(vec![life, place])).map_err(failed)?;
        if incarnation != link.incarnation {
            let what =
                format!("following the feed of {}: its server is another one now; starting over", options.address);
            return Err(BackendError::new(BackendErrorKind::Unavailable, what));
        }
        self.look_at = Instant::now() + HEARTBEAT;
        Ok((head, read_entries(entries).map_err(failed)?))
    }

    fn deliver(&mut self, link: &Link, entries: Entries) {
        let mut changes = Vec::with_capacity(entries.len());
        for (place, record) in entries {
            let change = record.ok_or(Unreadable("no record in it")).and_then(|record| Change::decode(&record));
            match change {
                Ok(change) => changes.push(change),
                Err(why) => {
                    let before = std::mem::take(&mut changes);
                    self.ready.extend((!before.is_empty()).then_some(Event::Changes(before)));
                    self.ready.push_back(Event::Unreadable { name: self.store.record(link.log(), place), why });
                }
            }
        }
        self.ready.extend((!changes.is_empty()).then_some(Event::Changes(changes)));
    }
}

/// The next entries after `place`; waits for so long where there are none.
async fn read_page(link: &Link, place: Place, limit: Duration) -> RedisResult<Entries> {
    read_entries(link.wait(place, limit, PAGE).await?)
}

/// A task fails only where the runtime is going down.
fn joined<T>(outcome: Option<Result<RedisResult<T>, JoinError>>) -> RedisResult<T> {
    outcome.and_then(Result::ok).unwrap_or_else(|| Err(unexpected("reading ahead was cut off")))
}

/// The entries in an answer to `XREAD` for one stream.
fn read_entries(answer: Value) -> RedisResult<Entries> {
    let Value::Array(streams) = answer else { return read::<Option<()>>(answer).map(|_| Vec::new()) };
    let mut all = Vec::new();
    for stream in streams {
        let (_, entries): (Value, Vec<Value>) = read(stream)?;
        all.reserve(entries.len());
        for entry in entries {
            all.push(read_entry(entry)?);
        }
    }
    Ok(all)
}

fn read_entry(entry: Value) -> RedisResult<(Place, Option<Vec<u8>>)> {
    let wrong = || unexpected("an entry of a stream that is none");
    let Value::Array(parts) = entry else { return Err(wrong()) };
    let Ok([Value::BulkString(id), Value::Array(fields)]) = <[Value; 2]>::try_from(parts) else { return Err(wrong()) };
    let place = std::str::from_utf8(&id).ok().and_then(|id| id.parse().ok()).ok_or_else(wrong)?;
    let record = match <[Value; 2]>::try_from(fields) {
        Ok([Value::BulkString(field), Value::BulkString(record)]) if field == FIELD => Some(record),
        _ => None,
    };
    Ok((place, record))
}
