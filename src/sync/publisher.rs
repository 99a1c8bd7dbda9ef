//! Writes to the backend: those that come together go as one, and none is left half done.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::RevokeError;
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, Position},
    denylist::Denylist,
    revocation::Change,
    spans,
};

#[derive(Clone)]
pub(super) struct Publisher {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    changes: Vec<Change>,
    /// The caller; the end of [`Publisher::close`] sends no changes and waits for its turn only.
    done: oneshot::Sender<Result<Position, Arc<BackendError>>>,
    waiting: spans::Waiting,
    #[cfg(feature = "metrics")]
    began: std::time::Instant,
}

impl Job {
    fn new(changes: Vec<Change>, done: oneshot::Sender<Result<Position, Arc<BackendError>>>) -> Self {
        Self {
            changes,
            done,
            waiting: spans::Waiting::here(),
            #[cfg(feature = "metrics")]
            began: std::time::Instant::now(),
        }
    }
}

/// How many callers' writes go into one batch, and how many may wait for their turn.
const BATCH: usize = 1024;
const WAITING: usize = 16 * BATCH;

impl Publisher {
    pub(super) fn spawn(
        backend: Arc<dyn Backend>,
        denylist: Arc<Denylist>,
        timeout: Duration,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(WAITING);
        tasks.spawn(run(backend, denylist, timeout, queue));
        Self { jobs }
    }

    /// Makes changes durable and applies them here. Happens to the end even where the caller stops waiting.
    pub(super) async fn publish(&self, changes: Vec<Change>) -> Result<Position, RevokeError> {
        let (done, outcome) = oneshot::channel();
        self.jobs.send(Job::new(changes, done)).await.map_err(|_| RevokeError::Stopped)?;
        let outcome = outcome.await.map_err(|_| RevokeError::Stopped)?;
        outcome.map_err(|error| {
            let kind = error.kind();
            // One failure may answer many callers.
            RevokeError::Backend(BackendError::new(kind, error.to_string()))
        })
    }

    /// Whether writes are still taken.
    pub(super) fn runs(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Waits until everything sent before is written.
    pub(super) async fn close(&self) {
        let (done, outcome) = oneshot::channel();
        if self.jobs.send(Job::new(Vec::new(), done)).await.is_ok() {
            // An error here belongs to the callers of that batch, who have it.
            let _ = outcome.await;
        }
    }
}

async fn run(backend: Arc<dyn Backend>, denylist: Arc<Denylist>, timeout: Duration, mut queue: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while queue.recv_many(&mut jobs, BATCH).await > 0 {
        #[cfg(feature = "metrics")]
        let began: Vec<_> = jobs.iter().filter(|job| !job.changes.is_empty()).map(|job| job.began).collect();
        let batch: Vec<Change> = jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.changes)).collect();
        if batch.is_empty() {
            // Only waiting for their turn, which this is.
            jobs.clear();
            continue;
        }
        // A backend that panics must not end revocation for good.
        let publish = AssertUnwindSafe(async { backend.publish(&batch).await }).catch_unwind();
        let publish = spans::publish(batch.len(), jobs.iter().map(|job| &job.waiting), publish);
        let outcome = match tokio::time::timeout(timeout, publish).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(BackendError::new(
                BackendErrorKind::Unavailable,
                format!("writing {} changes: the backend panicked", batch.len()),
            )),
            Err(_) => Err(BackendError::new(
                BackendErrorKind::Unavailable,
                format!("writing {} changes: no answer within {timeout:?}", batch.len()),
            )),
        };
        match outcome {
            Ok(position) => {
                // Durable first, then visible here, and only then "done".
                #[cfg(feature = "metrics")]
                began.iter().for_each(|began| crate::metrics::REVOKE_DURABLE.observe(began.elapsed()));
                spans::apply(batch.len(), || denylist.apply(&batch));
                #[cfg(feature = "metrics")]
                began.iter().for_each(|began| crate::metrics::REVOKE_APPLIED.observe(began.elapsed()));
                for job in jobs.drain(..) {
                    // A caller that has gone needs no answer.
                    let _ = job.done.send(Ok(position.clone()));
                }
            }
            Err(error) => {
                #[cfg(feature = "tracing")]
                tracing::error!(%error, changes = batch.len(), "revocations were not recorded");
                let error = Arc::new(error);
                for job in jobs.drain(..) {
                    let _ = job.done.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}
