//! Answers that go on: changes as they happen, and everything that is live.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;
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
const ALIVE: Duration = Duration::from_secs(10);

type Sender = mpsc::Sender<io::Result<Bytes>>;

pub(super) async fn export(inner: &Inner) -> Result<Response<AdminBody>, Problem> {
    let turn = Arc::clone(&inner.scans).acquire_owned().await;
    let turn = turn.map_err(|_| Problem::unavailable("shutting down"))?;
    let revocations = inner.engine.revocations().clone();
    Ok(streamed(move |sender| async move {
        let _turn = turn;
        // A connection that breaks off says that something is missing.
        if let Err(error) = send_all(&revocations, &sender).await {
            tracing::warn!(%error, "an export broke off");
            let _ = sender.send(Err(error)).await;
        }
    }))
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
                if sender.send(Ok(lines.into())).await.is_err() {
                    return Ok(());
                }
            }
            Piece::Unreadable(name) => return Err(io::Error::other(format!("the record {name} cannot be read"))),
        }
    }
    Ok(())
}

pub(super) fn watch(inner: &Inner) -> Result<Response<AdminBody>, Problem> {
    let watcher = Arc::clone(&inner.watchers).try_acquire_owned();
    let watcher = watcher.map_err(|_| Problem::unavailable("too many are watching already"))?;
    let (revocations, stop) = (inner.engine.revocations().clone(), inner.stop.clone());
    Ok(streamed(move |sender| async move {
        let _watcher = watcher;
        tokio::select! {
            () = stop.cancelled() => {}
            () = sender.closed() => {}
            sent = send_changes(&revocations, &sender) => {
                if let Err(error) = sent {
                    // The reader asks again, and knows by the end that it has missed something.
                    let _ = sender.send(Err(error)).await;
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
        if !lines.is_empty() && sender.send(Ok(lines.into())).await.is_err() {
            return Ok(());
        }
        let event = tokio::select! {
            event = feed.next() => event.ok_or_else(|| io::Error::other("the store ended the feed"))?,
            _ = alive.tick() => {
                told = Vec::new();
                if sender.send(Ok(Bytes::from_static(b"\n"))).await.is_err() {
                    return Ok(());
                }
                continue;
            }
        };
        told = match event.map_err(io::Error::other)? {
            Event::Snapshot => vec![json!({ "event": "snapshot" })],
            Event::Unreadable { name, .. } => vec![json!({ "event": "unreadable", "record": name })],
            Event::Changes(changes) => changes.iter().map(tell).collect(),
            // It comes every second.
            _ => Vec::new(),
        };
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

/// An answer whose body a task of its own fills, as fast as it is read.
fn streamed<F: Future<Output = ()> + Send + 'static>(fill: impl FnOnce(Sender) -> F) -> Response<AdminBody> {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    tokio::spawn(fill(sender));
    let frames =
        stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(|piece: io::Result<Bytes>| piece.map(Frame::data));
    answer::respond(StatusCode::OK, LINES, StreamBody::new(frames).boxed_unsync())
}
