//! Reads the log from a place on, and says when all of it has been read.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use bytes::Bytes;
use futures_util::{
    future::{BoxFuture, FutureExt},
    stream::{self, StreamExt, TryStreamExt},
};
use tokio::time::Instant;

use super::{
    Place,
    layout::{PART_OF, Parts},
    streams::Stream,
};
use crate::{
    backend::{BackendError, BackendErrorKind, Event},
    revocation::{Change, Unreadable},
    time::{Clock, Moment},
};

/// How many changes one event carries, about.
const PAGE: usize = 4096;
/// How often to ask where the log ends.
const ASKING: Duration = Duration::from_millis(500);
/// How long a message that exists may take to arrive before the feed has lost touch.
const OVERDUE: Duration = Duration::from_secs(2);
/// How long to wait before looking whether the end of the log was deleted.
const DELETED: Duration = Duration::from_millis(100);
/// How many bytes of batches that are not complete are kept. What is not kept is read again.
const KEPT: usize = 32 << 20;
/// How many parts are read again at once.
const AGAIN: usize = 64;
/// The server forgets a reader that does not ask for so long.
const FORGOTTEN: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(1);
const EXPIRES: Duration = Duration::from_secs(10);

pub(super) struct Feed<'a> {
    log: Stream,
    clock: &'a dyn Clock,
    messages: pull::Stream,
    /// How many messages the server has sent to this reader: it numbers them, so that a lost one shows.
    count: u64,
    reached: Place,
    /// Parts of batches that are not complete.
    parts: Kept,
    changes: Vec<Change>,
    ready: VecDeque<Event>,
    asking: Option<Asking>,
    /// Where the log ended when it was asked.
    end: Option<End>,
    ask_at: Instant,
    /// When the last message came.
    heard: Instant,
}

/// Where does the log end?
struct Asking {
    as_of: Moment,
    /// What had been read by then.
    reached: u64,
    answer: BoxFuture<'static, Result<u64, BackendError>>,
}

#[derive(Clone, Copy)]
struct End {
    sequence: u64,
    as_of: Moment,
    /// When the answer came.
    told: Instant,
}

impl<'a> Feed<'a> {
    /// After `from`, where the log still has that place, else from the beginning.
    pub(super) async fn open(log: Stream, from: Option<Place>, clock: &'a dyn Clock) -> Result<Self, BackendError> {
        let from = match from {
            Some(place) if place.is_in(&log).await? => Some(place),
            _ => None,
        };
        let messages = read(&log, from.map_or(0, |place| place.sequence)).await?;
        let now = Instant::now();
        Ok(Self {
            log,
            clock,
            messages,
            count: 0,
            reached: from.unwrap_or_default(),
            parts: Kept::default(),
            changes: Vec::new(),
            ready: from.is_none().then_some(Event::Snapshot).into_iter().collect(),
            asking: None,
            end: None,
            ask_at: now,
            heard: now,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Event, BackendError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.step().await?;
            self.arrived();
        }
    }

    /// Waits for a message, for the answer where the log ends, or for the time to ask.
    async fn step(&mut self) -> Result<(), BackendError> {
        if self.asking.is_none() && self.end.is_none() && self.ask_at <= Instant::now() {
            let (as_of, log) = (self.clock.now(), self.log.clone());
            let answer = async move { log.last().await }.boxed();
            self.asking = Some(Asking { as_of, reached: self.reached.sequence, answer });
            self.ask_at = Instant::now() + ASKING;
        }
        let look_at = match self.end {
            Some(end) => self.heard.max(end.told) + DELETED,
            None => self.ask_at,
        };
        let answer = async {
            match &mut self.asking {
                Some(asking) => (asking.as_of, asking.reached, (&mut asking.answer).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            (as_of, reached, last) = answer => {
                self.asking = None;
                let sequence = last?;
                if sequence < reached {
                    return Err(lost("the log ends before what was read already"));
                }
                self.end = Some(End { sequence, as_of, told: Instant::now() });
                Ok(())
            }
            message = self.messages.next() => self.receive(message).await,
            () = tokio::time::sleep_until(look_at) => self.look().await,
        }
    }

    /// Takes a message, and those that have come behind it.
    async fn receive(&mut self, first: Option<Received>) -> Result<(), BackendError> {
        let mut next = first;
        let mut taken = 0;
        loop {
            let message = next.ok_or_else(|| lost("the server has ended it"))?;
            let message = message.map_err(|error| self.log.failed("following", &error))?;
            self.take(&message).await?;
            taken += 1;
            if taken >= PAGE || self.changes.len() >= PAGE {
                break;
            }
            match self.messages.next().now_or_never() {
                Some(received) => next = received,
                None => break,
            }
        }
        self.heard = Instant::now();
        // What has just come may be what somebody waits for.
        self.ask_at = self.heard;
        self.flush();
        Ok(())
    }

    async fn take(&mut self, message: &jetstream::Message) -> Result<(), BackendError> {
        let info = message.info().map_err(|error| self.log.failed("following", &error))?;
        if info.consumer_sequence != self.count + 1 || info.stream_sequence <= self.reached.sequence {
            return Err(lost("a message was lost on the way"));
        }
        self.count += 1;
        let sequence = info.stream_sequence;
        let place = Place::new(sequence, info.published.unix_timestamp_nanos());
        let part = message.headers.as_ref().is_some_and(|headers| headers.get(PART_OF).is_some());
        let rest = self.log.rest(&message.subject).unwrap_or_default();
        match rest.split('.').next() {
            Some("c") if part => self.parts.keep(sequence, message.payload.clone()),
            Some("c") => self.decode(sequence, &message.payload),
            Some("b") => match Parts::decode(&message.payload, sequence) {
                Some(parts) => self.complete(&parts).await?,
                None => self.unreadable(sequence, Unreadable("a batch whose parts are not named")),
            },
            Some("h") => {}
            _ => self.unreadable(sequence, Unreadable("a message of an unknown kind")),
        }
        self.reached = place;
        Ok(())
    }

    /// Delivers the parts of a batch that is complete. What was not kept is read again; what has been deleted since had
    /// expired.
    async fn complete(&mut self, parts: &Parts) -> Result<(), BackendError> {
        let log = self.log.clone();
        let found = parts.sequences().map(|sequence| {
            let (kept, log) = (self.parts.take(sequence), log.clone());
            async move {
                match kept {
                    Some(record) => Ok((sequence, Some(record))),
                    None => log.at(sequence).await.map(|found| (sequence, found.map(|message| message.payload))),
                }
            }
        });
        let found: Vec<_> = stream::iter(found.collect::<Vec<_>>()).buffered(AGAIN).try_collect().await?;
        for (sequence, record) in found {
            if let Some(record) = record {
                self.decode(sequence, &record);
            }
        }
        Ok(())
    }

    fn decode(&mut self, sequence: u64, record: &[u8]) {
        match Change::decode(record) {
            Ok(change) => self.changes.push(change),
            Err(why) => self.unreadable(sequence, why),
        }
    }

    fn unreadable(&mut self, sequence: u64, why: Unreadable) {
        self.flush();
        self.ready.push_back(Event::Unreadable { name: self.log.place(sequence), why });
    }

    fn flush(&mut self) {
        if !self.changes.is_empty() {
            self.ready.push_back(Event::Changes(std::mem::take(&mut self.changes)));
        }
    }

    /// Says so where the end that was asked for has been reached.
    fn arrived(&mut self) {
        if let Some(end) = self.end.take_if(|end| end.sequence <= self.reached.sequence) {
            let position = self.reached.position(&self.log);
            self.ready.push_back(Event::CaughtUp { position, as_of: end.as_of });
        }
    }

    /// The end does not come: it was deleted, or it was lost on the way.
    async fn look(&mut self) -> Result<(), BackendError> {
        let Some(end) = self.end else { return Ok(()) };
        if self.log.next(">", self.reached.sequence + 1).await?.is_none() {
            self.reached = Place::unmarked(end.sequence);
            return Ok(());
        }
        if self.heard.max(end.told).elapsed() > OVERDUE {
            return Err(lost("a message does not arrive"));
        }
        Ok(())
    }
}

type Received = Result<jetstream::Message, async_nats::error::Error<pull::MessagesErrorKind>>;

/// Reads the log after `sequence`.
async fn read(log: &Stream, sequence: u64) -> Result<pull::Stream, BackendError> {
    let failed = |error: &dyn std::fmt::Display| log.failed("following", error);
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 },
        ack_policy: AckPolicy::None,
        inactive_threshold: FORGOTTEN,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = log.within("following", log.handle().create_consumer(config)).await?;
    let consumer = consumer.map_err(|error| failed(&error))?;
    let messages = consumer.stream().max_messages_per_batch(PAGE).heartbeat(HEARTBEAT).expires(EXPIRES).messages();
    log.within("following", messages).await?.map_err(|error| failed(&error))
}

fn lost(why: &str) -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, format!("following the NATS stream: {why}"))
}

/// Records by their sequences; of too many, the oldest are dropped.
#[derive(Default)]
struct Kept {
    records: BTreeMap<u64, Bytes>,
    bytes: usize,
}

impl Kept {
    fn keep(&mut self, sequence: u64, record: Bytes) {
        self.bytes += record.len();
        self.records.insert(sequence, record);
        while self.bytes > KEPT
            && let Some((_, dropped)) = self.records.pop_first()
        {
            self.bytes -= dropped.len();
        }
    }

    fn take(&mut self, sequence: u64) -> Option<Bytes> {
        let record = self.records.remove(&sequence)?;
        self.bytes -= record.len();
        Some(record)
    }
}
