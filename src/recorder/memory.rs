use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{self, BoxFuture, FutureExt};

use super::{
    Ended, Grant, Member, Recorded, RecorderStore,
    reach::{name, names_of},
};
use crate::{backend::BackendError, revocation::Scope};

/// What a recorder has learnt, in this process's memory: it forgets with the process, and other processes see nothing
/// of it. Clones share one store.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    grants: HashMap<String, Grant>,
    /// Tokens and the ids of their grants.
    members: HashMap<Scope, (String, Member)>,
    aliases: HashMap<Scope, Scope>,
}

impl State {
    fn find(&self, token: &Scope) -> Option<&(String, Member)> {
        self.members.get(self.aliases.get(token).unwrap_or(token))
    }

    /// The grants that any of these scopes is about, in one pass.
    fn grants<'a>(&'a self, scopes: &'a [Scope]) -> impl Iterator<Item = &'a Grant> {
        let names = scopes.iter().filter_map(name).collect::<HashSet<_>>();
        let tokens = scopes.iter().filter_map(|scope| self.find(scope));
        let owners = tokens.map(|(id, _)| id.as_str()).collect::<HashSet<_>>();
        let wanted =
            move |grant: &&Grant| owners.contains(&*grant.id) || names_of(grant).any(|name| names.contains(&name));
        self.grants.values().filter(wanted)
    }

    fn end(&mut self, scopes: &[Scope]) -> Vec<Ended> {
        let ids = self.grants(scopes).map(|grant| grant.id.clone()).collect::<Vec<_>>();
        let mut ended = HashMap::new();
        for id in ids {
            if let Some(grant) = self.grants.get_mut(&id) {
                grant.ended = true;
                ended.insert(id, Ended::new(grant.clone(), Vec::new()));
            }
        }
        for (id, member) in self.members.values() {
            if let Some(ended) = ended.get_mut(id) {
                ended.members.push(member.clone());
            }
        }
        ended.into_values().collect()
    }

    /// The name under which a token is known already.
    fn name(&self, member: &Member) -> Option<Scope> {
        let names = std::iter::once(&member.token).chain(&member.alias);
        let mut names = names.map(|name| self.aliases.get(name).unwrap_or(name));
        names.find(|name| self.members.contains_key(name)).cloned()
    }

    fn record(&mut self, grant: &Grant, members: &[Member]) -> Recorded {
        if self.grants.get(&grant.id).is_some_and(|known| known.ended) {
            return Recorded::Ended;
        }
        let owner = |member: &Member| self.members.get(&self.name(member)?).map(|(owner, _)| owner);
        if members.iter().filter_map(owner).any(|owner| *owner != grant.id) {
            return Recorded::Conflict;
        }
        self.grants.entry(grant.id.clone()).or_insert_with(|| grant.clone()).extend(grant);
        for member in members {
            if let Some((_, known)) = self.name(member).and_then(|name| self.members.get_mut(&name)) {
                known.expires = known.expires.max(member.expires);
                continue;
            }
            self.aliases.extend(member.alias.clone().map(|alias| (alias, member.token.clone())));
            self.members.insert(member.token.clone(), (grant.id.clone(), member.clone()));
        }
        Recorded::Done
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, Result<T, BackendError>> {
    future::ready(Ok(value)).boxed()
}

impl RecorderStore for MemoryStore {
    fn record<'a>(&'a self, grant: &'a Grant, members: &'a [Member]) -> BoxFuture<'a, Result<Recorded, BackendError>> {
        async move { Ok(self.state().record(grant, members)) }.boxed()
    }

    fn find<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<Option<(Grant, Member)>, BackendError>> {
        let state = self.state();
        let found = state.find(token).and_then(|(id, member)| Some((state.grants.get(id)?.clone(), member.clone())));
        ready(found)
    }

    fn grants<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Grant>, BackendError>> {
        ready(self.state().grants(scopes).cloned().collect())
    }

    fn members<'a>(&'a self, grant: &'a str) -> BoxFuture<'a, Result<Vec<Member>, BackendError>> {
        let state = self.state();
        ready(state.members.values().filter(|(id, _)| id == grant).map(|(_, member)| member.clone()).collect())
    }

    fn end<'a>(&'a self, scopes: &'a [Scope]) -> BoxFuture<'a, Result<Vec<Ended>, BackendError>> {
        async move { Ok(self.state().end(scopes)) }.boxed()
    }

    fn spend<'a>(&'a self, token: &'a Scope) -> BoxFuture<'a, Result<bool, BackendError>> {
        let mut state = self.state();
        let token = state.aliases.get(token).cloned().unwrap_or_else(|| token.clone());
        let first =
            state.members.get_mut(&token).is_some_and(|(_, member)| !std::mem::replace(&mut member.spent, true));
        ready(first)
    }

    fn purge(&self, before: u64) -> BoxFuture<'_, Result<u64, BackendError>> {
        let mut guard = self.state();
        let State { grants, members, aliases } = &mut *guard;
        let held = members.len();
        grants.retain(|_, grant| grant.expires >= before);
        members.retain(|_, (id, member)| member.expires >= before && grants.contains_key(id));
        aliases.retain(|_, token| members.contains_key(token));
        ready((held - members.len()) as u64)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("tokens", &self.state().members.len()).finish_non_exhaustive()
    }
}
