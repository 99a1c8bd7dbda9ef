mod feed;
mod layout;
mod options;
mod streams;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, pull},
    context::PublishAckFuture,
    message::PublishMessage,
};
use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{self, BoxStream, StreamExt, TryStreamExt},
};
use sha2::{Digest, Sha256};

pub use self::options::NatsOptions;
use self::{
    feed::Feed,
    layout::{Bucket, PART_OF, Parts},
    streams::Stream,
};
use super::{
    Backend, BackendError, BackendErrorKind, Claim, Durability, Event, FleetSettings, Intent, NodeStatus, OneTime,
    Position,
};
use crate::{
    revocation::{Change, ScopeKey},
    time::{Clock, SystemClock},
};

/// A backend in NATS JetStream: three streams for each namespace, which it makes itself.
///
/// Every write waits for JetStream's acknowledgement. It survives `kill -9` of the server; the server writes to the disk
/// every two minutes only (`sync_interval`), so that with one replica a loss of power can take the last writes along. Several
/// replicas ([`NatsOptions::replicas`]) acknowledge once most of them have it.
///
/// Needs NATS 2.9 or later, with JetStream. Clones share their connection, which is replaced where it is lost or silent.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower_revocation::backend::{Nats, NatsOptions};
///
/// let alone = Nats::connect("nats://127.0.0.1:4222").await?;
/// let fleet = NatsOptions::new().namespace("shop").replicas(3).credentials_file("/etc/shop/nats.creds");
/// let shared = fleet.connect("tls://nats1.example:4222,tls://nats2.example:4222").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Nats {
    log: Stream,
    state: Stream,
    claims: Stream,
    marked: Arc<Mutex<HashMap<Bucket, Instant>>>,
}

/// How many messages of one batch wait for their acknowledgement at once.
const IN_FLIGHT: usize = 1024;
/// How many requests wait for their answers at once.
const AT_ONCE: usize = 32;
/// For how long a bucket that was marked as in use counts as marked.
const MARKED: Duration = Duration::from_secs(60);
/// How many changes one call deletes one by one, in the hour that is not over; the others go with their hour.
const ONE_BY_ONE: usize = 5000;
/// How many subjects are listed for that.
const LISTED: usize = 200_000;
/// How often a claim is tried again when others write it at the same time.
const ATTEMPTS: usize = 16;

impl Nats {
    /// Connects without further options, in the namespace `default`; see [`NatsOptions`].
    ///
    /// # Errors
    ///
    /// As [`NatsOptions::connect`].
    pub async fn connect(url: &str) -> Result<Self, BackendError> {
        NatsOptions::new().connect(url).await
    }

    fn new(log: Stream, state: Stream, claims: Stream) -> Self {
        Self { log, state, claims, marked: Arc::default() }
    }

    /// Writes that these buckets are in use, so that a purge finds them, unless that was written lately.
    async fn mark(&self, buckets: impl Iterator<Item = Bucket>) -> Result<(), BackendError> {
        let now = SystemClock.now().unix();
        let due: BTreeSet<_> = {
            let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
            marked.retain(|_, at| at.elapsed() < MARKED);
            // A purge may delete the mark of an hour that is over at any time.
            buckets
                .filter(|bucket| !bucket.is_endless() && (bucket.is_over(now) || !marked.contains_key(bucket)))
                .collect()
        };
        let marks = due.iter().map(|bucket| (bucket.marker(), PublishMessage::build()));
        self.write(marks).await?;
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        marked.extend(due.into_iter().map(|bucket| (bucket, Instant::now())));
        Ok(())
    }

    /// Writes messages to the log, in order, and waits until all are acknowledged. Their sequences.
    async fn write(&self, messages: impl Iterator<Item = (String, PublishMessage)>) -> Result<Vec<u64>, BackendError> {
        let mut sequences = Vec::new();
        let mut sent = VecDeque::new();
        for (subject, message) in messages {
            if sent.len() == IN_FLIGHT {
                self.acknowledged(sent.pop_front(), &mut sequences).await?;
            }
            sent.push_back(self.log.send(&subject, message).await?);
        }
        while !sent.is_empty() {
            self.acknowledged(sent.pop_front(), &mut sequences).await?;
        }
        Ok(sequences)
    }

    async fn acknowledged(&self, sent: Option<PublishAckFuture>, sequences: &mut Vec<u64>) -> Result<(), BackendError> {
        if let Some(sent) = sent {
            let sequence = self.log.acknowledged(sent).await?;
            sequences.push(sequence.ok_or_else(|| self.log.failed("writing to", &"an unexpected refusal"))?);
        }
        Ok(())
    }

    /// Stores one change, in place of the very same one.
    async fn publish_one(&self, change: &Change) -> Result<u64, BackendError> {
        let record = change.encode();
        let name = layout::hex(&Sha256::digest(&record)[..16]);
        let subject = layout::change(change, &name);
        let written = self.write([(subject, PublishMessage::build().payload(record.into()))].into_iter()).await?;
        Ok(written.last().copied().unwrap_or_default())
    }

    /// Stores the parts, which count for nothing until what completes the batch is stored. They never take the place of
    /// another message: that one may count.
    async fn publish_many(&self, batch: &[Change]) -> Result<u64, BackendError> {
        let id = format!("{:016x}{:016x}", crate::random::u64(), crate::random::u64());
        let bucket = Bucket::latest(batch.iter().map(|change| Bucket::of(change.retain_until())));
        let whole = layout::batch(bucket, &id);
        let messages = batch.iter().enumerate().map(|(n, change)| {
            let part = PublishMessage::build().payload(change.encode().into()).header(PART_OF, whole.as_str());
            (layout::change(change, &format!("{id}-{n}")), part)
        });
        let mut parts = Parts::default();
        self.write(messages).await?.into_iter().for_each(|sequence| parts.push(sequence));
        let end = PublishMessage::build().payload(parts.encode().into());
        let written = self.write([(whole, end)].into_iter()).await?;
        Ok(written.last().copied().unwrap_or_default())
    }

    /// The changes of a scope, with what completes their batches where they are parts.
    async fn changes_of(&self, key: ScopeKey) -> Result<Vec<(Change, Option<String>)>, BackendError> {
        let mut changes = Vec::new();
        for message in self.log.all(&layout::changes_of(key)).await? {
            let change = Change::decode(&message.payload).map_err(|why| {
                let what = format!("looking up {}; repair or remove it", self.log.place(message.sequence));
                BackendError::new(BackendErrorKind::Corrupt, what).because(why)
            })?;
            changes.push((change, message.headers.get(PART_OF).map(|whole| whole.as_str().to_owned())));
        }
        Ok(changes)
    }

    /// Which of these batches are complete.
    async fn complete(&self, batches: BTreeSet<String>) -> Result<BTreeSet<String>, BackendError> {
        let asking = batches.into_iter().map(async |whole| Ok((self.log.get(&whole).await?.is_some(), whole)));
        let found: Vec<_> = stream::iter(asking).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().filter_map(|(complete, whole)| complete.then_some(whole)).collect())
    }

    /// Deletes what has expired in a bucket.
    async fn purge_bucket(&self, bucket: Bucket, before: u64) -> Result<u64, BackendError> {
        if !bucket.is_over(before) {
            return self.purge_begun(bucket, before).await;
        }
        let mark = self.log.get(&bucket.marker()).await?;
        let deleted = self.log.delete(&bucket.changes()).await?;
        self.log.delete(&bucket.batches()).await?;
        if let Some(mark) = mark {
            // Not one that was written since: what it stands for may have come later.
            self.log.remove(&bucket.marker(), Some(mark.sequence)).await?;
        }
        Ok(deleted)
    }

    async fn purge_begun(&self, bucket: Bucket, before: u64) -> Result<u64, BackendError> {
        let subjects = self.log.subjects(&bucket.changes(), LISTED).await?;
        let expired = |subject: &String| layout::retain_until(subject).is_some_and(|until| until < before);
        let expired = subjects.into_iter().filter(expired).take(ONE_BY_ONE);
        let deleting = expired.map(async |subject: String| self.log.delete(&subject).await);
        stream::iter(deleting).buffer_unordered(AT_ONCE).try_fold(0, async |sum, deleted| Ok(sum + deleted)).await
    }

    /// Deletes claims that are over. Reads them all.
    async fn purge_claims(&self, before: u64) -> Result<(), BackendError> {
        const DOING: &str = "reading claims from";
        let failed = |error: &dyn fmt::Display| self.claims.failed(DOING, error);
        let config = pull::Config {
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        if self.claims.next(">", 1).await?.is_none() {
            return Ok(());
        }
        let creating = self.claims.handle().create_consumer(config);
        let consumer = self.claims.within(DOING, creating).await?.map_err(|error| failed(&error))?;
        let messages = self.claims.within(DOING, consumer.messages()).await?;
        let mut messages = messages.map_err(|error| failed(&error))?;
        let mut over = Vec::new();
        while let Some(message) = self.claims.within(DOING, messages.next()).await? {
            let message = message.map_err(|error| failed(&error))?;
            let info = message.info().map_err(|error| failed(&error))?;
            if Claimed::decode(&message.payload).is_some_and(|claimed| claimed.until < before) {
                over.extend(
                    self.claims.rest(&message.subject).map(|subject| (subject.to_owned(), info.stream_sequence)),
                );
            }
            if info.pending == 0 {
                break;
            }
        }
        let deleting = over.into_iter().map(async |(subject, last)| self.claims.remove(&subject, Some(last)).await);
        stream::iter(deleting).buffer_unordered(AT_ONCE).try_for_each(async |()| Ok(())).await
    }

    /// The claim that is held under this subject, and its sequence; 0 where there is none.
    async fn claimed(&self, subject: &str) -> Result<(Option<Claimed>, u64), BackendError> {
        let Some(message) = self.claims.get(subject).await? else { return Ok((None, 0)) };
        let claimed = Claimed::decode(&message.payload).ok_or_else(|| {
            let what = format!("reading {}: it is no claim; remove it", self.claims.place(message.sequence));
            BackendError::new(BackendErrorKind::Corrupt, what)
        })?;
        Ok((Some(claimed), message.sequence))
    }

    fn contended(&self) -> BackendError {
        self.claims.failed("claiming a message in", &"others write it all the time")
    }
}

impl Backend for Nats {
    fn agree<'a>(&'a self, ours: &'a FleetSettings) -> BoxFuture<'a, Result<FleetSettings, BackendError>> {
        async move {
            // Whether it was the first or not: the one that is there counts.
            self.state.put("s.settings", ours.encode(), Some(0)).await?;
            let held = self.state.get("s.settings").await?;
            let held = held.ok_or_else(|| self.state.failed("reading", &"the fleet's settings were deleted"))?;
            FleetSettings::decode(&held.payload)
        }
        .boxed()
    }

    fn publish<'a>(&'a self, batch: &'a [Change]) -> BoxFuture<'a, Result<Position, BackendError>> {
        async move {
            self.mark(batch.iter().map(|change| Bucket::of(change.retain_until()))).await?;
            let sequence = match batch {
                [] => self.log.last().await?,
                [one] => self.publish_one(one).await?,
                many => self.publish_many(many).await?,
            };
            Ok(Place::unmarked(sequence).position(&self.log))
        }
        .boxed()
    }

    fn follow<'a>(
        &'a self,
        from: Option<Position>,
        clock: &'a dyn Clock,
    ) -> BoxStream<'a, Result<Event, BackendError>> {
        let from = from.filter(|from| from.incarnation() == self.log.incarnation());
        let opening = Feed::open(self.log.clone(), from.map(|from| Place::of(&from)), clock);
        let events =
            |feed| stream::try_unfold(feed, |mut feed: Feed<'a>| async { Ok(Some((feed.next().await?, feed))) });
        stream::once(opening).map_ok(events).try_flatten().boxed()
    }

    fn lookup<'a>(&'a self, keys: &'a [ScopeKey]) -> BoxFuture<'a, Result<Vec<Change>, BackendError>> {
        async move {
            let reading = keys.iter().copied().map(|key| self.changes_of(key));
            let found: Vec<_> = stream::iter(reading).buffered(AT_ONCE).try_collect().await?;
            let found: Vec<_> = found.into_iter().flatten().collect();
            let complete = self.complete(found.iter().filter_map(|(_, whole)| whole.clone()).collect()).await?;
            let counts = |whole: &Option<String>| whole.as_ref().is_none_or(|whole| complete.contains(whole));
            Ok(found.into_iter().filter_map(|(change, whole)| counts(&whole).then_some(change)).collect())
        }
        .boxed()
    }

    fn heartbeat<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<Vec<NodeStatus>, BackendError>> {
        async move {
            let unreadable = |error| {
                BackendError::new(BackendErrorKind::Corrupt, "reading what nodes announced in NATS").because(error)
            };
            let status = serde_json::to_vec(node).map_err(unreadable)?;
            self.state.put(&announcement(node), status, None).await?;
            // One that is announced again meanwhile is found twice.
            let mut nodes = HashMap::new();
            for message in self.state.all("s.node.*").await? {
                let status: NodeStatus = serde_json::from_slice(&message.payload).map_err(unreadable)?;
                nodes.insert(status.key(), status);
            }
            Ok(nodes.into_values().collect())
        }
        .boxed()
    }

    fn retire<'a>(&'a self, node: &'a NodeStatus) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let subject = announcement(node);
            let Some(held) = self.state.get(&subject).await? else { return Ok(()) };
            if serde_json::from_slice(&held.payload).is_ok_and(|held: NodeStatus| held == *node) {
                // Nothing that was announced since.
                self.state.remove(&subject, Some(held.sequence)).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn claim_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<Claim, BackendError>> {
        async move {
            let subject = format!("o.{}", layout::hex(&claim.digest()));
            for _ in 0..ATTEMPTS {
                // The server takes one first claim, whoever asks at the same time.
                let ours = Claimed::by(claim).encode();
                if self.claims.put(&subject, ours, Some(0)).await?.is_some() {
                    return Ok(Claim::First);
                }
                if let (Some(held), _) = self.claimed(&subject).await? {
                    return Ok(claim.against(&held.message, held.finished));
                }
                // A purge came between.
            }
            Err(self.contended())
        }
        .boxed()
    }

    fn finish_once<'a>(&'a self, claim: &'a OneTime<'a>) -> BoxFuture<'a, Result<(), BackendError>> {
        async move {
            let subject = format!("o.{}", layout::hex(&claim.digest()));
            for _ in 0..ATTEMPTS {
                let (held, sequence) = self.claimed(&subject).await?;
                let mut held = held.unwrap_or_else(|| Claimed::by(claim));
                if held.finished {
                    return Ok(());
                }
                held.finished = true;
                if self.claims.put(&subject, held.encode(), Some(sequence)).await?.is_some() {
                    return Ok(());
                }
            }
            Err(self.contended())
        }
        .boxed()
    }

    fn intend<'a>(&'a self, intent: &'a Intent) -> BoxFuture<'a, Result<(), BackendError>> {
        async move { self.state.put(&intention(intent.id), intent.record.clone(), None).await.map(drop) }.boxed()
    }

    fn settle(&self, id: u64) -> BoxFuture<'_, Result<(), BackendError>> {
        async move { self.state.remove(&intention(id), None).await }.boxed()
    }

    fn intents(&self) -> BoxFuture<'_, Result<Vec<Intent>, BackendError>> {
        async move {
            let found = self.state.all("s.intent.*").await?;
            let intent = |message: &async_nats::jetstream::message::StreamMessage| {
                let id = message.subject.rsplit('.').next()?;
                Some(Intent::stored(u64::from_str_radix(id, 16).ok()?, message.payload.to_vec()))
            };
            let read = found.iter().map(|message| {
                intent(message).ok_or_else(|| {
                    let what = format!("reading {}: it is no intent; remove it", self.state.place(message.sequence));
                    BackendError::new(BackendErrorKind::Corrupt, what)
                })
            });
            read.collect()
        }
        .boxed()
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        async move {
            self.purge_claims(before).await?;
            let marks = self.log.subjects("h.*", usize::MAX).await?;
            let mut deleted = 0;
            for bucket in marks.iter().filter_map(|mark| Bucket::of_marker(mark)) {
                if bucket.has_begun(before) {
                    deleted += self.purge_bucket(bucket, before).await?;
                }
            }
            Ok(deleted)
        }
        .boxed()
    }

    fn durability(&self) -> Durability {
        Durability::Process
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("incarnation", &self.log.incarnation()).finish_non_exhaustive()
    }
}

/// A place in the log: a sequence, and a mark of the message there, which tells it from one that took its sequence after
/// a crash or a restore lost it.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    sequence: u64,
    /// Below [`Place::MARKS`]; 0 where it is not known.
    mark: u32,
}

impl Place {
    const MARKS: u32 = 1 << 19;

    /// The place of a message that was stored then (nanoseconds).
    fn new(sequence: u64, stored: i128) -> Self {
        let mark = stored.rem_euclid(i128::from(Self::MARKS - 1));
        // Less than `MARKS`: it fits.
        Self { sequence, mark: mark as u32 + 1 }
    }

    const fn unmarked(sequence: u64) -> Self {
        Self { sequence, mark: 0 }
    }

    fn of(position: &Position) -> Self {
        let sequence = position.offset() / u128::from(Self::MARKS);
        let mark = position.offset() % u128::from(Self::MARKS);
        Self { sequence: u64::try_from(sequence).unwrap_or(u64::MAX), mark: mark as u32 }
    }

    fn position(self, log: &Stream) -> Position {
        let offset = u128::from(self.sequence) * u128::from(Self::MARKS) + u128::from(self.mark);
        Position::new(log.incarnation(), offset)
    }

    /// Whether reading on from here leaves no gap: the message that was read last is still there, as it was.
    async fn is_in(self, log: &Stream) -> Result<bool, BackendError> {
        let last = log.last().await?;
        if self.sequence == 0 || self.sequence > last {
            return Ok(false);
        }
        let held = log.at(self.sequence).await?;
        Ok(held.is_some_and(|held| Self::new(self.sequence, held.time.unix_timestamp_nanos()).mark == self.mark))
    }
}

/// What the store holds of a message that counts once: its SHA-256 (32 bytes), until when (8, big-endian), and whether it
/// is finished (1).
struct Claimed {
    message: [u8; 32],
    until: u64,
    finished: bool,
}

impl Claimed {
    const fn by(claim: &OneTime<'_>) -> Self {
        Self { message: claim.message, until: claim.until, finished: false }
    }

    fn encode(&self) -> Vec<u8> {
        [&self.message[..], &self.until.to_be_bytes(), &[u8::from(self.finished)]].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (message, rest) = bytes.split_first_chunk()?;
        let (until, rest) = rest.split_first_chunk()?;
        let [finished @ (0 | 1)] = rest else { return None };
        Some(Self { message: *message, until: u64::from_be_bytes(*until), finished: *finished == 1 })
    }
}

fn announcement(node: &NodeStatus) -> String {
    format!("s.node.{}", layout::hex(&Sha256::digest(node.key())[..16]))
}

fn intention(id: u64) -> String {
    format!("s.intent.{id:016x}")
}

fn unusable(what: impl Into<String>) -> BackendError {
    BackendError::new(BackendErrorKind::Settings, what)
}
