//! A denylist that keeps a complete filter, and of the entries only those that were used last.
//!
//! An entry at hand is either *complete*: it tells all that was ever applied for its scope, so that its verdict is
//! exact, "not revoked" included; or it is partial, since what came before had been dropped when something was added:
//! then it says nothing until the backend was asked, and adds to the answer what the backend may not know any more.
//!
//! A look-up is announced before the backend is asked. What is applied to its scopes meanwhile is joined with the
//! answer, so that no answer is older than the moment at which it arrives. It stays true for as long as it is at hand,
//! since whatever is applied later is merged into it.
//!
//! What was applied last is kept whole for some minutes beside it, and joined with every answer: a store that was taken
//! over by a server which lacks the last of what was acknowledged cannot deny it, and gets it back.

mod filters;
mod list;
mod recent;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use moka::{policy::EvictionPolicy, sync::Cache};

use self::{
    filters::{Expired, Filters, Shelves},
    recent::Recent,
};
use super::{
    Why,
    entries::{Entry, KeyHash},
    mode,
};
use crate::{
    revocation::{Change, Lifetimes, ScopeKey, ScopeState},
    time::Moment,
};

/// What the backend answered, by scope.
pub(crate) type Answers = HashMap<u128, Entry>;

pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answers, Why>> + Send + 'a>>;

/// Who asks the backend. It is put in by who knows one.
pub(crate) trait LookUp: Send + Sync {
    /// Looks scopes up. `source`: for whom, where it is for a request.
    fn look_up(&self, keys: Vec<ScopeKey>, source: Option<ScopeKey>) -> Answering<'_>;
}

pub(super) struct Tiered {
    #[cfg_attr(not(feature = "sync"), expect(dead_code, reason = "only the handle asks"))]
    pub(super) config: mode::Tiered,
    filters: Filters,
    at_hand: Cache<u128, AtHand, KeyHash>,
    writer: Mutex<Writer>,
    look_up: OnceLock<Arc<dyn LookUp>>,
}

struct Writer {
    shelves: Shelves,
    /// What was applied since a look-up of these scopes began.
    awaited: HashMap<u128, ScopeState>,
    recent: Recent,
}

#[derive(Clone)]
struct AtHand {
    entry: Entry,
    complete: bool,
}

impl Tiered {
    pub(super) fn new(config: mode::Tiered, lifetimes: &Lifetimes, budget: usize) -> Self {
        // The last used stay: a policy by frequency may keep out what is new, and that is what is asked for next.
        let at_hand = Cache::builder().max_capacity(config.entries).eviction_policy(EvictionPolicy::lru());
        Self {
            config,
            filters: Filters::new(),
            at_hand: at_hand.build_with_hasher(KeyHash),
            writer: Mutex::new(Writer {
                shelves: Shelves::new(lifetimes.retain_scope(0), budget),
                awaited: HashMap::new(),
                recent: Recent::new(config.entries),
            }),
            look_up: OnceLock::new(),
        }
    }

    #[cfg(feature = "sync")]
    pub(super) fn ask_with(&self, look_up: Arc<dyn LookUp>) {
        // Set once, where the list is made.
        let _ = self.look_up.set(look_up);
    }

    pub(super) fn asking(&self) -> Option<&Arc<dyn LookUp>> {
        self.look_up.get()
    }

    /// A bit for each key, by its place, that may be held.
    pub(super) fn may_hold(&self, keys: impl Iterator<Item = (u32, u128)>) -> u32 {
        self.filters.may_hold(keys)
    }

    /// All that was ever applied for a scope, where it is at hand.
    pub(super) fn find(&self, key: u128) -> Option<Entry> {
        self.at_hand.get(&key).filter(|held| held.complete).map(|held| held.entry)
    }

    /// The same, where a look-up has answered; with what was applied after it, however little of a scope is at hand.
    pub(super) fn find_or(&self, key: u128, answers: &Answers) -> Option<Entry> {
        match (self.at_hand.get(&key), answers.get(&key)) {
            (Some(AtHand { entry, complete: true }), _) => Some(entry),
            (Some(AtHand { entry, .. }), Some(answer)) => {
                let mut state = answer.state();
                state.join(&entry.state());
                Some(Entry::from_state(state))
            }
            (None, answer) => answer.cloned(),
            (Some(_), None) => None,
        }
    }

    /// Whether anything of a scope is at hand.
    #[cfg(feature = "sync")]
    pub(super) fn is_at_hand(&self, key: u128) -> bool {
        self.at_hand.contains_key(&key) || self.lock().recent.find(key).is_some()
    }

    /// Merges a change in; whether the filter did not have its scope for so long. The caller announces it. `new`: it did
    /// not come from a look-up, which tells what has been there for long as well.
    pub(super) fn apply(&self, change: &Change, new: bool, now: Moment) -> bool {
        let (key, mut writer) = (change.key(), self.lock());
        let number = key.as_u128();
        if new {
            writer.recent.add(change, now);
        }
        if let Some(state) = writer.awaited.get_mut(&number) {
            state.apply(change);
        }
        let (mut state, complete) = match self.at_hand.get(&number) {
            Some(AtHand { entry, complete }) => (entry.state(), complete),
            // Of what the filter does not have, nothing was ever applied.
            None => {
                let recent = writer.recent.find(number).map(Entry::state);
                (recent.unwrap_or_default(), !self.filters.may_contain(number))
            }
        };
        state.apply(change);
        // First the entry, so that no check finds the filter's "maybe" alone.
        self.at_hand.insert(number, AtHand { entry: Entry::from_state(state), complete });
        writer.shelves.insert(number, key.kind(), change.retain_until(), now.unix(), &self.filters)
    }

    /// Whether applying it would add nothing, as far as can be told.
    #[cfg(feature = "sync")]
    pub(super) fn holds(&self, change: &Change, now: u64) -> bool {
        let number = change.key().as_u128();
        self.lock().shelves.hold(number, change.retain_until(), now)
            && self.at_hand.get(&number).is_none_or(|held| Entry::merged(Some(&held.entry), change).is_none())
    }

    /// A look-up of these scopes begins.
    #[cfg(feature = "sync")]
    pub(super) fn expect(&self, keys: &[ScopeKey]) {
        let mut writer = self.lock();
        writer.awaited.extend(keys.iter().map(|key| (key.as_u128(), ScopeState::default())));
    }

    /// It ended without an answer.
    #[cfg(feature = "sync")]
    pub(super) fn give_up(&self, keys: &[ScopeKey]) {
        let mut writer = self.lock();
        keys.iter().for_each(|key| drop(writer.awaited.remove(&key.as_u128())));
    }

    /// It ended with all changes that the backend holds of these scopes.
    #[cfg(feature = "sync")]
    pub(super) fn answer(&self, keys: &[ScopeKey], changes: &[Change]) -> Answers {
        let mut said: HashMap<u128, ScopeState> = HashMap::new();
        for change in changes {
            said.entry(change.key().as_u128()).or_default().apply(change);
        }
        let mut writer = self.lock();
        let answers = keys.iter().map(|key| {
            let number = key.as_u128();
            let mut state = said.remove(&number).unwrap_or_default();
            if let Some(meanwhile) = writer.awaited.remove(&number) {
                state.join(&meanwhile);
            }
            if let Some(held) = self.at_hand.get(&number) {
                state.join(&held.entry.state());
            }
            // The store may have lost it since.
            if let Some(recent) = writer.recent.find(number) {
                state.join(&recent.state());
            }
            let entry = Entry::from_state(state);
            self.at_hand.insert(number, AtHand { entry: entry.clone(), complete: true });
            (number, entry)
        });
        answers.collect()
    }

    /// All that is at hand, partial entries included. Complete only while nobody writes.
    #[cfg(feature = "sync")]
    pub(super) fn all(&self) -> HashMap<u128, Entry> {
        let mut all: HashMap<_, _> = self.lock().recent.iter().map(|(key, entry)| (key, entry.clone())).collect();
        // An entry tells all that is recent of its scope.
        all.extend(self.at_hand.iter().map(|(key, held)| (*key, held.entry)));
        all
    }

    /// Drops the filters of what left before `before` (Unix seconds).
    pub(super) fn expire(&self, before: u64) -> Expired {
        self.lock().shelves.expire(before, &self.filters)
    }

    /// Drops what is too much.
    pub(super) fn tidy(&self, now: Moment) {
        self.lock().recent.forget(now);
        self.at_hand.run_pending_tasks();
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // Every step leaves it fit to check against.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
