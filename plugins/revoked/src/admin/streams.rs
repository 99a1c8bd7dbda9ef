//! Answers that go on: changes as they happen, and everything that is live, as lines.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use tower_revocation::{
    Revocations,
    backend::{Backend as _, Event},
    revocation::Change,
};

use super::{
    Inner,
    answer::{self, AdminBody, Problem},
    live::{Piece, live},
    route::LINES,
    scope::{Listed, ScopeText},
};

/// How many pieces may wait for a slow reader.
const WAITING: usize = 16;
/// How often a reader hears that the connection is alive.
pub(super) const ALIVE: Duration = Duration::from_secs(10);

/// How long a reader may stand still: it holds what others wait for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) type Sender = mpsc::Sender<io::Result<Bytes>>;

pub(super) async fn export(inner: &Inner) -> Result<Response<AdminBody>, Problem> {
    let turn = inner.turn().await?;
    let revocations = inner.engine.revocations().clone();
    Ok(streamed(LINES, move |sender, waiting| async move {
        let _turn = turn;
        // A connection that breaks off says that something is missing.
        if let Err(error) = send_all(&revocations, &sender).await {
            tracing::warn!(%error, "an export broke off");
            waiting.break_off(&sender, error);
        }
    }))
}

/// Hands a piece to the reader. `false`: it has gone.
///
/// # Errors
///
/// Where it takes nothing for too long.
pub(super) async fn deliver(sender: &Sender, piece: Bytes) -> io::Result<bool> {
    match timeout(PATIENCE, sender.send(Ok(piece))).await {
        Ok(sent) => Ok(sent.is_ok()),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the reader stands still")),
    }
}

async fn send_all(revocations: &Revocations, sender: &Sender) -> io::Result<()> {
    let mut pieces = std::pin::pin!(live(revocations));
    while let Some(piece) = pieces.next().await {
        match piece.map_err(io::Error::other)? {
            Piece::Records(records) => {
                let mut lines = Vec::new();
                for record in &records {
                    serde_json::to_writer(&mut lines, &Listed::from(record))?;
                    lines.push(b'\n');
                }
                if !deliver(sender, lines.into()).await? {
                    return Ok(());
                }
            }
            Piece::Unreadable(name) => return Err(io::Error::other(format!("the record {name} cannot be read"))),
        }
    }
    Ok(())
}

pub(super) fn watch(inner: &Inner) -> Result<Response<AdminBody>, Problem> {
    let watcher = inner.watcher()?;
    let (revocations, stop) = (inner.engine.revocations().clone(), inner.stop.clone());
    Ok(streamed(LINES, move |sender, waiting| async move {
        let _watcher = watcher;
        tokio::select! {
            () = stop.cancelled() => {}
            () = sender.closed() => {}
            sent = send_changes(&revocations, &sender) => {
                if let Err(error) = sent {
                    // The reader asks again, and knows by the end that it has missed something.
                    waiting.break_off(&sender, error);
                }
            }
        }
    }))
}

async fn send_changes(revocations: &Revocations, sender: &Sender) -> io::Result<()> {
    let clock = Arc::clone(revocations.denylist().clock());
    let from = revocations.status().applied;
    let begin = json!({ "event": "watching", "position": from.as_ref().map(ToString::to_string) });
    let mut feed = revocations.backend().follow(from, &*clock);
    let mut alive = tokio::time::interval(ALIVE);
    let mut told = vec![begin];
    loop {
        let mut lines = Vec::new();
        for value in &told {
            serde_json::to_writer(&mut lines, value)?;
            lines.push(b'\n');
        }
        if !lines.is_empty() && !deliver(sender, lines.into()).await? {
            return Ok(());
        }
        let event = tokio::select! {
            event = feed.next() => event.ok_or_else(|| io::Error::other("the store ended the feed"))?,
            _ = alive.tick() => {
                told = Vec::new();
                if !deliver(sender, Bytes::from_static(b"\n")).await? {
                    return Ok(());
                }
                continue;
            }
        };
        told = tell_all(event.map_err(io::Error::other)?);
    }
}

/// What an event of the store's feed tells.
pub(super) fn tell_all(event: Event) -> Vec<Value> {
    match event {
        Event::Snapshot => vec![json!({ "event": "snapshot" })],
        Event::Unreadable { name, .. } => vec![json!({ "event": "unreadable", "record": name })],
        Event::Changes(changes) => changes.iter().map(tell).collect(),
        // It comes every second.
        _ => Vec::new(),
    }
}

fn tell(change: &Change) -> Value {
    match change {
        Change::Revoke(record) => json!({ "event": "revoked", "revocation": Listed::from(record) }),
        Change::Lift(lift) => {
            let detail = lift.detail();
            json!({
                "event": "lifted",
                "ids": lift.ids().iter().map(ToString::to_string).collect::<Vec<_>>(),
                "scope": detail.scope.as_ref().map(ScopeText::from),
                "lifted_by": detail.revoked_by,
                "lifted_at": detail.revoked_at,
            })
        }
        _ => json!({ "event": "unknown" }),
    }
}

/// The pieces that wait for a reader.
#[derive(Clone)]
pub(super) struct Waiting(Arc<Mutex<mpsc::Receiver<io::Result<Bytes>>>>);

impl Waiting {
    /// Lets the answer end with an error. What waits makes room for it: else a reader that stands still would hold all
    /// that, or take a part for the whole.
    pub(super) fn break_off(&self, sender: &Sender, error: io::Error) {
        let mut receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while receiver.try_recv().is_ok() {}
        drop(receiver);
        let _ = sender.try_send(Err(error));
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(cx)
    }
}

/// An answer whose body a task of its own fills, as fast as it is read.
pub(super) fn streamed<F: Future<Output = ()> + Send + 'static>(
    media: &'static str,
    fill: impl FnOnce(Sender, Waiting) -> F,
) -> Response<AdminBody> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let waiting = Waiting(Arc::new(Mutex::new(receiver)));
    // Once the answer is dropped there is no reader.
    let reader = Reader(waiting.clone());
    tokio::spawn(fill(sender, waiting));
    let frames = stream::poll_fn(move |cx| reader.0.poll(cx)).map(|piece: io::Result<Bytes>| piece.map(Frame::data));
    answer::respond(StatusCode::OK, media, StreamBody::new(frames).boxed_unsync())
}

/// The reader's end.
struct Reader(Waiting);

impl Drop for Reader {
    fn drop(&mut self) {
        let mut receiver = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.close();
        while receiver.try_recv().is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_holds_nothing_for_good() {
        let (done, ended) = tokio::sync::oneshot::channel();
        let response = streamed(LINES, move |sender, waiting| async move {
            let failed = loop {
                match deliver(&sender, Bytes::from_static(b"a line\n")).await {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(error) => break Some(error),
                }
            };
            let kind = failed.as_ref().map(io::Error::kind);
            if let Some(error) = failed {
                waiting.break_off(&sender, error);
            }
            let _ = done.send(kind);
        });
        let ended = timeout(PATIENCE * 2, ended).await.ok().and_then(Result::ok);
        assert_eq!(ended, Some(Some(io::ErrorKind::TimedOut)));
        // Whoever reads on after all hears that something is missing.
        assert!(response.into_body().collect().await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_goes_ends_it() {
        let (done, ended) = tokio::sync::oneshot::channel();
        let response = streamed(LINES, move |sender, _| async move {
            sender.closed().await;
            let _ = done.send(());
        });
        drop(response);
        assert!(timeout(PATIENCE, ended).await.is_ok_and(|ended| ended.is_ok()));
    }
}
