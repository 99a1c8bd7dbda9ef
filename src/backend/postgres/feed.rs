use std::collections::VecDeque;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::Instant;

use super::{
    HEARTBEAT, Postgres,
    session::{Bound, PATIENCE, rows},
};
use crate::{
    backend::{BackendError, BackendErrorKind, Event, Position},
    revocation::Change,
    time::Clock,
};

/// How many changes are read at once.
const PAGE: i64 = 4096;

/// Where the store is, and a page of what comes after a place, as of one moment.
const LOOK: &str = "SELECT life.incarnation, head.seq, page.seq, page.record FROM {s}.life CROSS JOIN \
    (SELECT coalesce(max(seq), 0) AS seq FROM {s}.changes WHERE namespace = $1) AS head LEFT JOIN \
    (SELECT seq, record FROM {s}.changes WHERE namespace = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS page ON true";

/// Of [`LOOK`]. Without anything new there is one row, without a change.
type Row = (String, i64, Option<i64>, Option<Vec<u8>>);

/// One run of [`Backend::follow`](crate::backend::Backend::follow), on a connection of its own: it listens and reads on the
/// same, so that one that is lost cannot seem alive.
pub(super) struct Feed<'a> {
    store: &'a Postgres,
    clock: &'a dyn Clock,
    session: Option<PgListener>,
    reached: Head,
    /// What has been read and not yet been said.
    ready: VecDeque<Event>,
    /// Whether the last look reached the end.
    at_end: bool,
    /// When it was last said that all is delivered.
    in_step: Option<Instant>,
}

/// The number of the last change of a namespace, in one life of the store.
pub(super) struct Head {
    incarnation: String,
    seq: i64,
}

impl Head {
    pub(super) const fn new(incarnation: String, seq: i64) -> Self {
        Self { incarnation, seq }
    }

    pub(super) fn position(&self) -> Position {
        Position::new(self.incarnation.clone(), u128::from(self.seq.unsigned_abs()))
    }
}

impl<'a> Feed<'a> {
    pub(super) fn new(store: &'a Postgres, from: Option<Position>, clock: &'a dyn Clock) -> Self {
        // No store has the incarnation "": without a place to resume from, the feed starts over.
        let reached = from.map_or(Head::new(String::new(), 0), |from| {
            Head::new(from.incarnation().to_owned(), i64::try_from(from.offset()).unwrap_or(i64::MAX))
        });
        Self { store, clock, session: None, reached, ready: VecDeque::new(), at_end: false, in_step: None }
    }

    pub(super) async fn next(&mut self) -> Result<Event, BackendError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            let store = self.store;
            let mut session = match self.session.take() {
                Some(session) => session,
                None => store.listen().await?,
            };
            if self.at_end {
                self.wait(&mut session).await?;
            }
            self.look(&mut session).await?;
            // After a failure it is gone, and the feed with it.
            self.session = Some(session);
        }
    }

    /// Waits for a nudge. Nothing depends on one: without, it looks all the same.
    async fn wait(&self, session: &mut PgListener) -> Result<(), BackendError> {
        let left = self.in_step.map_or(HEARTBEAT, |said| HEARTBEAT.saturating_sub(said.elapsed()));
        match tokio::time::timeout(left, session.try_recv()).await {
            Err(_) => Ok(()),
            Ok(Ok(Some(_))) => {
                // The look that follows answers all of them.
                while session.next_buffered().is_some() {}
                Ok(())
            }
            // It would connect again by itself, but to a session that has not been prepared.
            Ok(Ok(None)) => {
                let what = format!("following {}: the connection was lost", self.store.server.place());
                Err(BackendError::new(BackendErrorKind::Unavailable, what))
            }
            Ok(Err(error)) => Err(self.store.server.failed("following", error)),
        }
    }

    /// Reads what is new, up to a page.
    async fn look(&mut self, session: &mut PgListener) -> Result<(), BackendError> {
        let (store, server) = (self.store, &self.store.server);
        let as_of = self.clock.now();
        let bound = Bound::new().and(&*store.namespace).and(self.reached.seq).and(PAGE);
        let sql = store.schema.sql(LOOK);
        let asked = async { rows(session, &sql, &bound).await.map_err(|error| server.failed("following", error)) };
        let page: Vec<Row> = server.in_time("following", asked).await?;
        let Some((incarnation, head, ..)) = page.first() else { return Err(store.without_incarnation()) };
        let (incarnation, head) = (incarnation.clone(), *head);
        if self.reached.incarnation == incarnation && self.reached.seq > head {
            // What we had read is gone: the server was restored from a copy of its disk.
            return store.begin_another_life(&self.reached).await;
        }
        if self.reached.incarnation != incarnation {
            self.reached = Head::new(incarnation, 0);
            self.in_step = None;
            self.at_end = false;
            self.ready.push_back(Event::Snapshot);
            return Ok(());
        }
        let mut changes: Vec<_> = page.into_iter().filter_map(|(_, _, seq, record)| Some((seq?, record?))).collect();
        // They come in order, though nothing promises that of a join; sorting them here costs the server nothing.
        changes.sort_unstable_by_key(|(seq, _)| *seq);
        // What is not there was purged, or is another namespace's.
        let full = changes.len() as i64 == PAGE;
        let end = changes.last().filter(|_| full).map_or(head, |(seq, _)| *seq);
        self.deliver(changes);
        let moved = self.reached.seq < end;
        self.reached.seq = end;
        self.at_end = end == head;
        if self.at_end && (moved || self.in_step.is_none_or(|said| said.elapsed() >= HEARTBEAT)) {
            self.ready.push_back(Event::CaughtUp { position: self.reached.position(), as_of });
            self.in_step = Some(Instant::now());
        }
        Ok(())
    }

    fn deliver(&mut self, rows: Vec<(i64, Vec<u8>)>) {
        let mut changes = Vec::with_capacity(rows.len());
        for (seq, record) in rows {
            match Change::decode(&record) {
                Ok(change) => changes.push(change),
                Err(why) => self.ready.push_back(Event::Unreadable { name: self.store.record(seq), why }),
            }
        }
        if !changes.is_empty() {
            self.ready.push_back(Event::Changes(changes));
        }
    }
}

impl Postgres {
    /// A session that hears of what is published from now on.
    async fn listen(&self) -> Result<PgListener, BackendError> {
        let failed = |error| self.server.failed("listening at", error);
        // First on another connection: where there is no way to the server, this one says why.
        let channel = self.server.ask("listening at", &self.schema.sql("SELECT {s}.channel($1)"), self.fleet()).await?;
        let [(channel,)]: [(String,); 1] = channel.try_into().map_err(|_| self.without_incarnation())?;
        let listening = async {
            // Of its own: it is not for others, and nothing comes back to it.
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(PATIENCE)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(self.server.options.clone());
            let mut session = PgListener::connect_with(&pool).await.map_err(failed)?;
            session.eager_reconnect(false);
            session.ignore_pool_close_event(true);
            self.server.prepare(&mut session).await?;
            session.listen(&channel).await.map_err(failed)?;
            Ok(session)
        };
        self.server.in_time("listening at", listening).await
    }

    /// Gives the store, restored from a copy, an incarnation of its own, so that every node starts over.
    async fn begin_another_life(&self, known: &Head) -> Result<(), BackendError> {
        let sql = self.schema.sql(
            "UPDATE {s}.meta SET value = decode(replace(gen_random_uuid()::text, '-', ''), 'hex') \
             WHERE namespace = '' AND key = 'incarnation' AND EXISTS (SELECT FROM {s}.life WHERE incarnation = $2) \
             AND $3 > (SELECT coalesce(max(seq), 0) FROM {s}.changes WHERE namespace = $1) RETURNING namespace",
        );
        let bound = self.fleet().and(&*known.incarnation).and(known.seq);
        self.server.ask::<(String,)>("starting over after a restore of", &sql, bound).await.map(drop)
    }
}
