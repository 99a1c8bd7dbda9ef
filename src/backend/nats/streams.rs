//! One stream of ours: its settings, and reading and writing in it within time limits.

use std::{fmt, future::Future, time::Duration};

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::{
    self, Context,
    context::{GetStreamErrorKind, PublishAckFuture, PublishErrorKind},
    message::PublishMessage,
    stream::{Config, DiscardPolicy, Info, LastRawMessageErrorKind, PersistenceMode, RetentionPolicy, StorageType},
};
use futures_util::StreamExt;

use super::unusable;
use crate::backend::{BackendError, BackendErrorKind};

/// How long to wait for an answer. Then the connection is replaced.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// How long deleting and listing may take; the connection stays as it is.
const LONG: Duration = Duration::from_secs(60);
/// JetStream's code for a stream that is not there.
const NOT_FOUND: u16 = 404;

#[derive(Clone)]
pub(super) struct Stream {
    context: Context,
    handle: jetstream::stream::Stream,
    /// For what takes the server a while.
    patient: jetstream::stream::Stream<()>,
    name: String,
    /// What all subjects begin with: `trev.<namespace>.`
    prefix: String,
    /// Which life of the stream it is: whatever was made anew, or restored under another description, is another.
    incarnation: String,
    wanted: Wanted,
}

/// What the settings of a stream are compared with.
#[derive(Clone)]
struct Wanted {
    subjects: Vec<String>,
    replicas: usize,
}

impl Stream {
    /// Opens the stream `<kind>_<namespace>` with these kinds of subjects; makes it where it is missing.
    pub(super) async fn open(
        context: &Context,
        namespace: &str,
        kind: &str,
        subjects: &[&str],
        replicas: Option<usize>,
    ) -> Result<Self, BackendError> {
        let (name, prefix) = (format!("{kind}_{namespace}"), format!("trev.{namespace}."));
        let subjects: Vec<_> = subjects.iter().map(|kind| format!("{prefix}{kind}.>")).collect();
        let failed = |error: String| {
            BackendError::new(BackendErrorKind::Unavailable, format!("opening the NATS stream {name}")).because(error)
        };
        let wanted = Wanted { subjects, replicas: replicas.unwrap_or(1) };
        let handle = match context.get_stream(&name).await {
            Ok(handle) => handle,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(answer) if answer.code() == usize::from(NOT_FOUND) => {
                    // Another node may make it at the same time, under another description.
                    let made = context.create_stream(wanted.config(&name)).await;
                    match made {
                        Ok(handle) => handle,
                        Err(cause) => context.get_stream(&name).await.map_err(|_| failed(cause.to_string()))?,
                    }
                }
                _ => return Err(failed(error.to_string())),
            },
        };
        let info = handle.cached_info();
        wanted.check(&name, &info.config)?;
        let incarnation = incarnation(info);
        let mut patient = context.clone();
        patient.set_timeout(LONG);
        let patient = patient.get_stream_no_info(&name).await.map_err(|error| failed(error.to_string()))?;
        Ok(Self { context: context.clone(), handle, patient, name, prefix, incarnation, wanted })
    }

    pub(super) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    pub(super) fn handle(&self) -> &jetstream::stream::Stream {
        &self.handle
    }

    /// The whole subject for what comes after the prefix.
    pub(super) fn subject(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// What comes after the prefix.
    pub(super) fn rest<'s>(&self, subject: &'s str) -> Option<&'s str> {
        subject.strip_prefix(&self.prefix)
    }

    /// What names a message to an operator.
    pub(super) fn place(&self, sequence: u64) -> String {
        format!("message {sequence} of the NATS stream {}", self.name)
    }

    /// The sequence of the last message ever, once it is sure that the stream is the one that was opened, and as safe.
    pub(super) async fn last(&self) -> Result<u64, BackendError> {
        let info = self.within("asking for the state of", self.handle.get_info()).await?;
        let info = info.map_err(|error| self.failed("asking for the state of", &error))?;
        if incarnation(&info) != self.incarnation {
            return Err(unusable(format!(
                "the NATS stream {} was made anew or restored; this process must connect again",
                self.name
            )));
        }
        self.wanted.check(&self.name, &info.config)?;
        Ok(info.state.last_sequence)
    }

    /// Sends a message, in the order of the calls.
    pub(super) async fn send(&self, subject: &str, message: PublishMessage) -> Result<PublishAckFuture, BackendError> {
        // So that a message never counts as stored because another stream took it.
        let message = message.expected_stream(&self.name);
        let sending = self.context.send_publish(self.subject(subject), message);
        self.within("writing to", sending).await?.map_err(|error| self.failed("writing to", &error))
    }

    /// The sequence that a message got; `None` where it was to be written after another than the last one.
    pub(super) async fn acknowledged(&self, sent: PublishAckFuture) -> Result<Option<u64>, BackendError> {
        match self.within("writing to", sent.into_future()).await? {
            Ok(stored) => Ok(Some(stored.sequence)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(None),
            Err(error) => Err(self.failed("writing to", &error)),
        }
    }

    /// Writes a value, if the last one of its subject has this sequence (0: there is none). Its sequence then.
    pub(super) async fn put(
        &self,
        subject: &str,
        value: Vec<u8>,
        after: Option<u64>,
    ) -> Result<Option<u64>, BackendError> {
        let message = PublishMessage::build().payload(value.into());
        let message = match after {
            Some(sequence) => message.expected_last_subject_sequence(sequence),
            None => message,
        };
        let sent = self.send(subject, message).await?;
        self.acknowledged(sent).await
    }

    /// The last message of a subject, from the stream's leader.
    pub(super) async fn get(&self, subject: &str) -> Result<Option<StreamMessage>, BackendError> {
        let asking = self.handle.raw_message_builder().last_by_subject(self.subject(subject));
        self.found(asking.send()).await
    }

    /// The first message at or after `sequence` whose subject matches, from the stream's leader.
    pub(super) async fn next(&self, filter: &str, sequence: u64) -> Result<Option<StreamMessage>, BackendError> {
        let asking = self.handle.raw_message_builder().sequence(sequence).next_by_subject(self.subject(filter));
        self.found(asking.send()).await
    }

    /// The message with this sequence, from the stream's leader.
    pub(super) async fn at(&self, sequence: u64) -> Result<Option<StreamMessage>, BackendError> {
        self.found(self.handle.raw_message_builder().sequence(sequence).send()).await
    }

    async fn found(
        &self,
        asking: impl Future<Output = Result<StreamMessage, jetstream::stream::RawMessageError>>,
    ) -> Result<Option<StreamMessage>, BackendError> {
        match self.within("reading from", asking).await? {
            Ok(message) => Ok(Some(message)),
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(self.failed("reading from", &error)),
        }
    }

    /// All messages whose subjects match, by a request each: for few.
    pub(super) async fn all(&self, filter: &str) -> Result<Vec<StreamMessage>, BackendError> {
        let (mut found, mut from) = (Vec::new(), 1);
        while let Some(message) = self.next(filter, from).await? {
            from = message.sequence + 1;
            found.push(message);
        }
        Ok(found)
    }

    /// The subjects that match, at most `most` of them, without the prefix.
    pub(super) async fn subjects(&self, filter: &str, most: usize) -> Result<Vec<String>, BackendError> {
        const DOING: &str = "listing subjects of";
        let listing = self.patient.info_with_subjects(self.subject(filter));
        let mut listed = listing.await.map_err(|error| self.failed(DOING, &error))?;
        let mut subjects = Vec::new();
        while subjects.len() < most
            && let Some(subject) = listed.next().await
        {
            let (subject, _) = subject.map_err(|error| self.failed(DOING, &error))?;
            subjects.extend(self.rest(&subject).map(str::to_owned));
        }
        Ok(subjects)
    }

    /// Deletes all messages whose subjects match. How many.
    pub(super) async fn delete(&self, filter: &str) -> Result<u64, BackendError> {
        let deleted = self.patient.purge().filter(self.subject(filter)).await;
        deleted.map(|answer| answer.purged).map_err(|error| self.failed("deleting from", &error))
    }

    /// Deletes the message of a subject, unless it came after `last`.
    pub(super) async fn remove(&self, subject: &str, last: Option<u64>) -> Result<(), BackendError> {
        const DOING: &str = "deleting from";
        let purge = self.handle.purge().filter(self.subject(subject));
        let removed = match last {
            Some(last) => self.within(DOING, purge.sequence(last + 1).into_future()).await?,
            None => self.within(DOING, purge.into_future()).await?,
        };
        removed.map(drop).map_err(|error| self.failed(DOING, &error))
    }

    /// Waits for an answer. Where none comes, the connection may be half open: the next call gets another.
    pub(super) async fn within<T>(&self, doing: &str, answer: impl Future<Output = T>) -> Result<T, BackendError> {
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                let reconnecting = self.context.client();
                // It waits only where much else waits to be sent; it fails only where the client is gone.
                let _ = tokio::time::timeout(PATIENCE, reconnecting.force_reconnect()).await;
                let what = format!("{doing} the NATS stream {}: no answer within {PATIENCE:?}", self.name);
                Err(BackendError::new(BackendErrorKind::Unavailable, what))
            }
        }
    }

    pub(super) fn failed(&self, doing: &str, error: &dyn fmt::Display) -> BackendError {
        let what = format!("{doing} the NATS stream {}; check the server's log", self.name);
        BackendError::new(BackendErrorKind::Unavailable, what).because(error.to_string())
    }
}

impl Wanted {
    fn config(&self, name: &str) -> Config {
        Config {
            name: name.into(),
            // Tells this life of the stream from another under the same name.
            description: Some(format!("tower-revocation {:016x}", crate::random::u64())),
            subjects: self.subjects.clone(),
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            max_messages_per_subject: 1,
            max_messages: -1,
            max_bytes: -1,
            max_message_size: -1,
            num_replicas: self.replicas,
            ..Config::default()
        }
    }

    /// Refuses what would lose an acknowledged write, or not take one.
    fn check(&self, name: &str, config: &Config) -> Result<(), BackendError> {
        let mut subjects = config.subjects.clone();
        subjects.sort();
        let mut ours = self.subjects.clone();
        ours.sort();
        let conditions = [
            (config.storage == StorageType::File, "storage: it must be file"),
            (config.retention == RetentionPolicy::Limits, "retention: it must be limits"),
            (config.discard == DiscardPolicy::New, "discard: it must be new"),
            (config.max_age.is_zero(), "max_age: it must be 0, unlimited"),
            (config.max_bytes <= 0, "max_bytes: it must be -1, unlimited"),
            (config.max_messages <= 0, "max_msgs: it must be -1, unlimited"),
            (config.max_message_size <= 0, "max_msg_size: it must be -1, unlimited"),
            (config.max_messages_per_subject == 1, "max_msgs_per_subject: it must be 1"),
            (!config.discard_new_per_subject, "discard_new_per_subject: it must be off"),
            (!config.no_ack, "no_ack: it must be off"),
            (!config.sealed, "sealed: it must be off"),
            (!config.deny_delete, "deny_delete: it must be off"),
            (!config.deny_purge, "deny_purge: it must be off"),
            (config.mirror.is_none(), "mirror: it must be a stream of its own"),
            (config.sources.as_ref().is_none_or(Vec::is_empty), "sources: it must have none"),
            (config.persist_mode != Some(PersistenceMode::Async), "persist_mode: it must not be async"),
            (subjects == ours, "subjects: they must be those of tower-revocation"),
            (config.num_replicas >= self.replicas, "num_replicas: it must not be below what `replicas` asks for"),
        ];
        match conditions.into_iter().find(|(met, _)| !met) {
            Some((_, setting)) => Err(unusable(format!(
                "the NATS stream {name} is set up in a way that breaks revocation: {setting}; see `nats stream edit`"
            ))),
            None => Ok(()),
        }
    }
}

fn incarnation(info: &Info) -> String {
    let description = info.config.description.as_deref().unwrap_or_default();
    let id = description.rsplit(' ').next().unwrap_or_default();
    format!("{:x}-{id}", info.created.unix_timestamp_nanos())
}
