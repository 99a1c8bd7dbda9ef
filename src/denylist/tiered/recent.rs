//! What reached this node last, whole, whatever else is dropped: a store whose server was replaced by another one may not
//! have it, though it had acknowledged it.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{
    denylist::entries::{Entry, KeyHash},
    revocation::Change,
    time::Moment,
};

/// The changes of the last minutes, by scope; the oldest of them go where there are too many.
pub(super) struct Recent {
    scopes: HashMap<u128, Scope, KeyHash>,
    /// When each change came (monotonic milliseconds), and of which scope it was.
    order: VecDeque<(u64, u128)>,
    most: usize,
}

struct Scope {
    entry: Entry,
    /// When the last change of it came.
    last: u64,
}

/// How far a server may have been behind the one that it replaces.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// How many changes are kept at least, where so many come.
const LEAST: usize = 1 << 16;

impl Recent {
    pub(super) fn new(entries: u64) -> Self {
        let most = usize::try_from(entries).unwrap_or(usize::MAX).max(LEAST);
        Self { scopes: HashMap::with_hasher(KeyHash), order: VecDeque::new(), most }
    }

    pub(super) fn add(&mut self, change: &Change, now: Moment) {
        self.forget(now);
        let key = change.key().as_u128();
        let before = self.scopes.get(&key).map(|scope| &scope.entry);
        let entry = Entry::merged(before, change).or_else(|| before.cloned());
        if let Some(entry) = entry {
            self.scopes.insert(key, Scope { entry, last: now.monotonic });
            self.order.push_back((now.monotonic, key));
        }
    }

    pub(super) fn find(&self, key: u128) -> Option<&Entry> {
        self.scopes.get(&key).map(|scope| &scope.entry)
    }

    #[cfg(feature = "sync")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, &Entry)> {
        self.scopes.iter().map(|(key, scope)| (*key, &scope.entry))
    }

    /// Drops what is no longer recent, and makes room for one.
    pub(super) fn forget(&mut self, now: Moment) {
        let before = now.monotonic.saturating_sub(KEPT.as_millis() as u64);
        while let Some((came, key)) = self.order.front().copied() {
            if came >= before && self.order.len() < self.most {
                return;
            }
            self.order.pop_front();
            if self.scopes.get(&key).is_some_and(|scope| scope.last <= came) {
                self.scopes.remove(&key);
            }
        }
        // A flood has passed.
        self.scopes.shrink_to(LEAST / 16);
        self.order.shrink_to(LEAST / 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::{Lifetimes, Revocation, Scope as Of, ScopeHasher};

    #[test]
    fn keeps_the_last_minutes_and_so_many() {
        let hasher = ScopeHasher::random();
        let change = |n: usize| {
            let scope = Of::token("https://issuer.example/", n.to_string());
            Change::Revoke(Revocation::new(scope).into_record(&hasher, &Lifetimes::DEFAULT, 1_700_000_000))
        };
        let at = |monotonic| Moment::new(1_700_000_000_000, monotonic);
        let (kept, mut recent) = (KEPT.as_millis() as u64, Recent::new(0));
        let holds = |recent: &Recent, n| recent.find(change(n).key().as_u128()).map(Entry::records);
        recent.add(&change(0), at(1));
        recent.add(&change(1), at(2));
        // The same scope again, another revocation: it is recent anew.
        recent.add(&change(0), at(kept));
        assert_eq!((holds(&recent, 0), holds(&recent, 1)), (Some(2), Some(1)));
        recent.forget(at(kept + 2));
        assert_eq!((holds(&recent, 0), holds(&recent, 1)), (Some(2), Some(1)));
        recent.forget(at(kept + 3));
        assert_eq!((holds(&recent, 0), holds(&recent, 1)), (Some(2), None));
        recent.forget(at(2 * kept + 1));
        assert_eq!((holds(&recent, 0), recent.order.len()), (None, 0));

        (0..LEAST + 10).for_each(|n| recent.add(&change(n), at(3 * kept)));
        assert_eq!((recent.scopes.len(), recent.order.len()), (LEAST, LEAST), "the oldest went");
        assert_eq!((holds(&recent, 9), holds(&recent, LEAST + 9)), (None, Some(1)));
    }
}
