use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{Ended, Grant, Member};
use crate::{backend::BackendError, revocation::Scope};

/// Where the recorder keeps what it has learnt. All nodes in front of one authorization server share it.
///
/// It holds digests and names of tokens, never tokens. Futures may be dropped at any time; a write that was begun may
/// then have happened or not. A write is there for every later read, on every node, once it has resolved.
pub trait RecorderStore: Send + Sync + 'static {
    /// Adds a grant and tokens of it durably, all or nothing.
    ///
    /// A grant that is there already keeps what it has and takes over only what it lacks. A token that is there
    /// already, by `token` or `alias`, stays as it is; one of another grant is a conflict. Of both, the later `expires`
    /// counts.
    fn record<'a>(&'a self, grant: &'a Grant, members: &'a [Member]) -> BoxFuture<'a, Result<Recorded, BackendError>>;

    /// The token that a scope names, by `token` or `alias`, and its grant.
    fn find<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<Option<(Grant, Member)>, BackendError>>;

    /// The grants that any of these scopes is about, each once: those of a session, subject, client or issuer, of a
    /// client's part of one of the first two, or that of a token, by `token` or `alias`. A grant answers to its `id` as
    /// to a session too.
    fn grants<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Grant>, BackendError>>;

    /// The tokens of a grant.
    fn members<'a>(&'a self, grant: &'a str) -> BoxFuture<'a, Result<Vec<Member>, BackendError>>;

    /// Marks the grants that any of these scopes is about as revoked, for good, all or none, and returns each of them
    /// once, also those that were marked before. What is recorded later finds the mark; what was recorded before is
    /// among the tokens that are returned.
    fn end<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Ended>, BackendError>>;

    /// Marks a token as spent; whether it was not yet. Of several calls at once, one alone is told so.
    fn spend<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<bool, BackendError>>;

    /// Forgets the tokens and grants that expired before `before` (Unix seconds).
    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>>;
}

impl<S: RecorderStore + ?Sized> RecorderStore for Arc<S> {
    fn record<'a>(&'a self, grant: &'a Grant, members: &'a [Member]) -> BoxFuture<'a, Result<Recorded, BackendError>> {
        (**self).record(grant, members)
    }

    fn find<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<Option<(Grant, Member)>, BackendError>> {
        (**self).find(token)
    }

    fn grants<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Grant>, BackendError>> {
        (**self).grants(scopes)
    }

    fn members<'a>(&'a self, grant: &'a str) -> BoxFuture<'a, Result<Vec<Member>, BackendError>> {
        (**self).members(grant)
    }

    fn end<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Ended>, BackendError>> {
        (**self).end(scopes)
    }

    fn spend<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<bool, BackendError>> {
        (**self).spend(token)
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        (**self).purge(before)
    }
}

/// What became of tokens that were to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
#[non_exhaustive]
pub enum Recorded {
    /// They are recorded.
    Done,
    /// Their grant was revoked meanwhile: nothing was recorded.
    Ended,
    /// One of them is known as a token of another grant: nothing was recorded.
    Conflict,
}

impl Grant {
    /// Takes over from a later answer what it lacks.
    pub(super) fn extend(&mut self, later: &Self) {
        self.sid = self.sid.take().or_else(|| later.sid.clone());
        self.sub = self.sub.take().or_else(|| later.sub.clone());
        self.client_id = self.client_id.take().or_else(|| later.client_id.clone());
        self.expires = self.expires.max(later.expires);
        self.offline |= later.offline;
    }
}
