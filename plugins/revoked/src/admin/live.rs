//! The live revocations, as the store holds them.

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::timeout;
use tower_revocation::{
    Revocations,
    backend::{Backend as _, BackendError, BackendErrorKind, Event},
    denylist::Denylist,
    revocation::{Change, Record, ScopeKey},
};

/// How long the store may be silent.
const SILENCE: Duration = Duration::from_secs(5);

/// A piece of what the store holds.
pub(super) enum Piece {
    /// Live revocations, in no order.
    Records(Vec<Record>),
    /// There is a record that nobody can read.
    Unreadable(String),
}

/// Everything live, in pieces: never more than one is in memory.
pub(super) fn live(revocations: &Revocations) -> impl Stream<Item = Result<Piece, BackendError>> + Send + '_ {
    let denylist = revocations.denylist();
    let feed = revocations.backend().follow(None, &**denylist.clock());
    stream::try_unfold(Some(feed), move |feed| async move {
        let Some(mut feed) = feed else { return Ok(None) };
        loop {
            let lost = |what| BackendError::new(BackendErrorKind::Unavailable, format!("reading what is live: {what}"));
            let event = timeout(SILENCE, feed.next()).await.map_err(|_| lost("the store is silent"))?;
            match event.ok_or_else(|| lost("the store ended it"))?? {
                Event::Changes(changes) => {
                    let records = changes.into_iter().filter_map(|change| live_record(denylist, change)).collect();
                    return Ok(Some((Piece::Records(records), Some(feed))));
                }
                Event::Unreadable { name, .. } => return Ok(Some((Piece::Unreadable(name), Some(feed)))),
                Event::CaughtUp { .. } => return Ok(None),
                _ => {}
            }
        }
    })
}

/// The changes of these keys that the store holds.
pub(super) async fn lookup(revocations: &Revocations, keys: &[ScopeKey]) -> Result<Vec<Change>, BackendError> {
    timeout(SILENCE, revocations.backend().lookup(keys)).await.unwrap_or_else(|_| {
        let what = format!("looking {} scopes up: no answer within {SILENCE:?}", keys.len());
        Err(BackendError::new(BackendErrorKind::Unavailable, what))
    })
}

/// The record of a change that is a revocation and neither lifted nor over.
pub(super) fn live_record(denylist: &Denylist, change: Change) -> Option<Record> {
    match change {
        Change::Revoke(record)
            if record.retain_until() >= denylist.now().unix()
                && denylist.revocations(record.key()).contains(&record.id()) =>
        {
            Some(record)
        }
        _ => None,
    }
}
