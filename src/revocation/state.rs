use super::{Change, Cutoff, Record, RevocationId};
#[cfg(feature = "sync")]
use super::{Detail, Lift, ScopeKey};

/// One live revocation of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Live {
    id: RevocationId,
    cutoff: Cutoff,
    retain_until: u64,
}

/// Everything known about one scope: the revocations by id, and the ids that were lifted.
///
/// [`ScopeState::join`] is commutative, associative and idempotent, so changes may arrive in any order
/// and any number of times. A lift removes the ids that it names and no others, for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeState {
    /// Sorted by id.
    live: Vec<Live>,
    /// Lifted ids and until when they are remembered, sorted by id.
    lifted: Vec<(RevocationId, u64)>,
}

impl ScopeState {
    /// Merges one change in.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Revoke(record) => self.revoke(record.id(), record.cutoff(), record.retain_until()),
            Change::Lift(lift) => {
                for id in lift.ids() {
                    self.lift(*id, lift.retain_until());
                }
            }
        }
    }

    /// Merges another state of the same scope in.
    pub fn join(&mut self, other: &Self) {
        for (id, until) in &other.lifted {
            self.lift(*id, *until);
        }
        for live in &other.live {
            self.revoke(live.id, live.cutoff, live.retain_until);
        }
    }

    pub(crate) fn revoke(&mut self, id: RevocationId, cutoff: Cutoff, retain_until: u64) {
        if let Ok(at) = self.lifted.binary_search_by_key(&id, |(id, _)| *id) {
            // The tombstone must outlast what it lifts, else a redelivered revocation would come back.
            self.lifted[at].1 = self.lifted[at].1.max(retain_until);
            return;
        }
        match self.live.binary_search_by_key(&id, |live| live.id) {
            Ok(at) => {
                let live = &mut self.live[at];
                live.cutoff = live.cutoff.max(cutoff);
                live.retain_until = live.retain_until.max(retain_until);
            }
            Err(at) => self.live.insert(at, Live { id, cutoff, retain_until }),
        }
    }

    fn lift(&mut self, id: RevocationId, until: u64) {
        let until = match self.live.binary_search_by_key(&id, |live| live.id) {
            Ok(at) => self.live.remove(at).retain_until.max(until),
            Err(_) => until,
        };
        match self.lifted.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.lifted[at].1 = self.lifted[at].1.max(until),
            Err(at) => self.lifted.insert(at, (id, until)),
        }
    }

    /// The cutoff that holds: the latest of all live revocations; `None` where none is live.
    pub fn cutoff(&self) -> Option<Cutoff> {
        self.live.iter().map(|live| live.cutoff).max()
    }

    /// Until when the cutoff holds: the latest of all live revocations (Unix seconds).
    pub fn retain_until(&self) -> Option<u64> {
        self.live.iter().map(|live| live.retain_until).max()
    }

    /// Whether what is live says all that `record` says. A ban covers bans only: it will be lifted one day, and what was
    /// revoked beside it must still stand then.
    pub(crate) fn covers(&self, record: &Record) -> bool {
        let ban = |until: u64| until == u64::MAX;
        let retained = |until: u64| until >= record.retain_until() && ban(until) == ban(record.retain_until());
        self.cutoff().is_some_and(|cutoff| cutoff >= record.cutoff()) && self.retain_until().is_some_and(retained)
    }

    /// Until when anything here, tombstones included, must be remembered (Unix seconds).
    pub fn remember_until(&self) -> u64 {
        let lifted = self.lifted.iter().map(|(_, until)| *until);
        self.live.iter().map(|live| live.retain_until).chain(lifted).max().unwrap_or(0)
    }

    /// The ids of the live revocations, which a lift names.
    pub fn ids(&self) -> impl Iterator<Item = RevocationId> + '_ {
        self.live.iter().map(|live| live.id)
    }

    /// The cutoff of the live revocation with this id.
    #[cfg(feature = "signals")]
    pub(crate) fn cutoff_of(&self, id: RevocationId) -> Option<Cutoff> {
        self.live.binary_search_by_key(&id, |live| live.id).ok().map(|at| self.live[at].cutoff)
    }

    /// The changes that lead to this state, each of one id, as far as they must be remembered at `now` (Unix seconds).
    #[cfg(feature = "sync")]
    pub(crate) fn changes(&self, key: ScopeKey, now: u64, detail: &Detail) -> Vec<Change> {
        let live = self.live.iter().filter(|live| live.retain_until >= now);
        let lifted = self.lifted.iter().filter(|(_, until)| *until >= now);
        let revoke = |live: &Live| Change::Revoke(Record::new(key, live.id, live.cutoff, live.retain_until, detail));
        let lift = |(id, until): &(RevocationId, u64)| Change::Lift(Lift::new(key, vec![*id], *until, detail));
        live.map(revoke).chain(lifted.map(lift)).collect()
    }

    /// How many records it takes.
    pub fn len(&self) -> usize {
        self.live.len() + self.lifted.len()
    }

    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.lifted.is_empty()
    }

    /// Drops tombstones that nothing needs any more. Live revocations stay until the whole scope goes,
    /// since the latest retention of any of them holds for their joined cutoff.
    pub(crate) fn forget_lifted(&mut self, before: u64) {
        self.lifted.retain(|(_, until)| *until > before);
    }

    pub(crate) fn only(&self) -> Option<(RevocationId, Cutoff, u64)> {
        match (self.live.as_slice(), self.lifted.is_empty()) {
            ([live], true) => Some((live.id, live.cutoff, live.retain_until)),
            _ => None,
        }
    }
}
