//! What is recorded once something else has happened, and not forgotten in between.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use super::publisher::Publisher;
#[cfg(feature = "endpoint")]
use super::{Revocations, RevokeError};
#[cfg(feature = "endpoint")]
use crate::revocation::{Record, Revocation, ScopeState};
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, Intent},
    denylist::Denylist,
    revocation::Change,
    time::Moment,
};

/// An intent as old as this was left behind: the node that announced it went down, or could not record it. Longer than
/// anyone waits before recording, by more than clocks differ.
const LEFT_BEHIND: Duration = Duration::from_secs(60);
/// How often to look for intents that were left behind.
const TURN: Duration = Duration::from_secs(2);

/// What is durably announced, to be recorded or dropped.
#[cfg(feature = "endpoint")]
#[derive(Debug)]
#[must_use]
pub(crate) struct Intended {
    /// `None`: there is nothing to record, and nothing was announced.
    id: Option<u64>,
    records: Vec<Record>,
}

#[cfg(feature = "endpoint")]
impl Revocations {
    /// Announces durably what is about to be recorded. If this node goes down before it is recorded or dropped, another
    /// one records it.
    pub(crate) async fn intend(
        &self,
        revocations: impl IntoIterator<Item = Revocation>,
    ) -> Result<Intended, RevokeError> {
        if !self.inner.publisher.runs() {
            return Err(RevokeError::Stopped);
        }
        let records = self.prepare_all(revocations).await?;
        if records.is_empty() {
            return Ok(Intended { id: None, records });
        }
        let changes: Vec<_> = records.iter().cloned().map(Change::Revoke).collect();
        let intent = Intent::new(self.inner.denylist.now().unix(), &changes);
        let announced = self.inner.backend.intend(&intent);
        within(self.inner.publish_timeout, announced).await.map_err(RevokeError::Backend)?;
        Ok(Intended { id: Some(intent.id), records })
    }

    /// Records these, among them what was announced, in one write: durable, and enforced here. Whether there was anything
    /// to record.
    ///
    /// Cutoffs are made now: what was issued since the announcement is cut off too. Where that fails, what was announced
    /// is recorded later.
    pub(crate) async fn record_intended(
        &self,
        intended: Intended,
        revocations: impl IntoIterator<Item = Revocation>,
    ) -> Result<bool, RevokeError> {
        let Intended { id, records: announced } = intended;
        let ids: HashMap<_, _> = announced.iter().map(|record| (record.key(), record.id())).collect();
        let mut said: HashMap<_, ScopeState> = HashMap::new();
        let mut records = Vec::new();
        for record in self.prepare_all(revocations).await? {
            // Under one id they are one, also where the announcement is found later and recorded once more.
            let id = ids.get(&record.key()).copied().unwrap_or(record.id());
            let record = record.named(id);
            said.entry(record.key()).or_default().apply(&Change::Revoke(record.clone()));
            records.push(record);
        }
        records.extend(announced.into_iter().filter(|old| !said.get(&old.key()).is_some_and(|said| said.covers(old))));
        if records.is_empty() {
            return Ok(false);
        }
        self.publish(records).await?;
        if let Some(id) = id {
            self.settle(id).await;
        }
        Ok(true)
    }

    /// Forgets what was announced. Where that fails, it is recorded later: more is revoked than need be, never less.
    pub(crate) async fn drop_intended(&self, intended: Intended) {
        if let Some(id) = intended.id {
            self.settle(id).await;
        }
    }

    async fn settle(&self, id: u64) {
        settled(&*self.inner.backend, self.inner.publish_timeout, id).await;
    }
}

/// Records what other nodes, or this one in an earlier life, announced and left behind.
pub(super) async fn recover(
    backend: Arc<dyn Backend>,
    denylist: Arc<Denylist>,
    publisher: Publisher,
    timeout: Duration,
) {
    let mut turns = tokio::time::interval(TURN);
    let mut pending = Pending::default();
    loop {
        turns.tick().await;
        match within(timeout, backend.intents()).await {
            Ok(intents) => {
                for (id, changes) in pending.left_behind(&intents, denylist.now()) {
                    // Else it stays, and is tried again: the publisher has said why.
                    if publisher.publish(changes).await.is_ok() {
                        settled(&*backend, timeout, id).await;
                    }
                }
            }
            Err(_error) => {
                #[cfg(feature = "tracing")]
                tracing::warn!(error = %_error, "cannot see what other nodes left to be recorded; trying again");
            }
        }
    }
}

/// The intents that are there, and since when they have been seen (in milliseconds of the monotonic clock).
#[derive(Default)]
struct Pending(HashMap<u64, u64>);

impl Pending {
    /// Those that are old, by what they say or by how long they have been here: whoever announced one may have had a
    /// clock that was ahead. What cannot be read stays, and somebody must hear of it, once.
    fn left_behind(&mut self, intents: &[Intent], now: Moment) -> Vec<(u64, Vec<Change>)> {
        let before = now.unix().saturating_sub(LEFT_BEHIND.as_secs());
        let mut left = Vec::new();
        let mut here = HashMap::new();
        for intent in intents {
            let known = self.0.get(&intent.id).copied();
            let seen = known.unwrap_or(now.monotonic);
            here.insert(intent.id, seen);
            let waited = u128::from(now.monotonic.saturating_sub(seen)) >= LEFT_BEHIND.as_millis();
            match intent.read() {
                Ok((since, changes)) if since <= before || waited => left.push((intent.id, changes)),
                Ok(_) => {}
                #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]
                Err(why) if known.is_none() => {
                    #[cfg(feature = "tracing")]
                    tracing::error!(
                        intent = format_args!("{:016x}", intent.id), %why,
                        "an intent to revoke cannot be read and stays; revoke what it was about, or upgrade this node"
                    );
                }
                Err(_) => {}
            }
        }
        self.0 = here;
        left
    }
}

async fn settled(backend: &dyn Backend, timeout: Duration, id: u64) {
    if let Err(_error) = within(timeout, backend.settle(id)).await {
        #[cfg(feature = "tracing")]
        tracing::warn!(error = %_error, "an intent could not be settled; it will be recorded, perhaps again");
    }
}

async fn within<T>(timeout: Duration, call: impl Future<Output = Result<T, BackendError>>) -> Result<T, BackendError> {
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
        let what = format!("reaching the backend for an intent: no answer within {timeout:?}");
        Err(BackendError::new(BackendErrorKind::Unavailable, what))
    })
}
