//! Everything that happens, for a page that shows it: changes, refusals, and how node and fleet stand, as server-sent
//! events.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Response;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tower_revocation::backend::Backend as _;

use super::{
    Inner,
    answer::{AdminBody, Problem},
    health,
    route::EVENTS,
    streams::{Sender, deliver, streamed, tell_all},
};

/// How often refusals are told: a storm of them is one piece, and no more than are kept.
const DENIALS: Duration = Duration::from_millis(250);
/// After how many of these it is told how node and fleet stand.
const STANDING: u32 = 4;
/// How long to wait before the store is followed again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) fn answer(inner: &Arc<Inner>) -> Result<Response<AdminBody>, Problem> {
    let watcher = inner.watcher()?;
    let inner = Arc::clone(inner);
    Ok(streamed(EVENTS, move |sender, waiting| async move {
        let _watcher = watcher;
        tokio::select! {
            () = inner.stop.cancelled() => {}
            () = sender.closed() => {}
            sent = send(&inner, &sender) => {
                if let Err(error) = sent {
                    waiting.break_off(&sender, error);
                }
            }
        }
    }))
}

async fn send(inner: &Inner, sender: &Sender) -> io::Result<()> {
    let changes = async {
        let revocations = inner.engine.revocations();
        let clock = Arc::clone(revocations.denylist().clock());
        let mut lost = false;
        loop {
            let mut feed = revocations.backend().follow(revocations.status().applied, &*clock);
            while let Some(Ok(event)) = feed.next().await {
                let mut told = tell_all(event);
                if std::mem::take(&mut lost) {
                    // Nobody knows what was missed; what this node has not applied yet is in no list, and follows.
                    told.insert(0, json!({ "event": "snapshot" }));
                }
                if !tell(sender, &told).await? {
                    return Ok(());
                }
            }
            // How the node stands is told all the same: it is then that people look.
            if !std::mem::replace(&mut lost, true) && !tell(sender, &[json!({ "event": "lost" })]).await? {
                return Ok(());
            }
            sleep(AGAIN).await;
        }
    };
    let rest = async {
        let mut ticks = interval(DENIALS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut tick, mut last) = (0_u32, 0);
        loop {
            ticks.tick().await;
            let mut told = Vec::new();
            if tick % STANDING == 0 {
                told.push(json!({ "event": "status", "status": health::status_document(inner) }));
                told.push(json!({ "event": "nodes", "nodes": health::nodes_document(inner)["nodes"] }));
            }
            tick = tick.wrapping_add(1);
            let denials = inner.engine.denials().since(last);
            last = denials.first().map_or(last, |denied| denied.number);
            told.extend(denials.into_iter().rev().map(|denied| json!({ "event": "denied", "denied": denied })));
            if !tell(sender, &told).await? {
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = changes => ended,
        ended = rest => ended,
    }
}

/// Sends events; `false`: the reader has gone.
async fn tell(sender: &Sender, told: &[Value]) -> io::Result<bool> {
    let mut text = String::new();
    for value in told {
        let name = value["event"].as_str().unwrap_or_default();
        // JSON in one line: line breaks within texts are escaped.
        text.extend(["event: ", name, "\ndata: ", &value.to_string(), "\n\n"]);
    }
    if text.is_empty() { Ok(true) } else { deliver(sender, Bytes::from(text)).await }
}
