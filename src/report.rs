//! Who sends what a guard refuses, or would refuse: what to look at before anything is enforced.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use tower_revocation::{Guard, denylist::{Denylist, DenylistConfig, Staleness}, policy::Policy};
//! # use tower_revocation::token::{FromExtension, Identity};
//! # let denylist = Arc::new(Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(10)))));
//! # let guard = Guard::new(denylist, FromExtension::<Identity>::new(), Policy::default());
//! for row in guard.report().missing {
//!     println!("{:?}: {} without jti, {} without sid, {} without iat", row.sender, row.jti, row.sid, row.iat);
//! }
//! ```

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::{BuildHasher, Hash},
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{denylist::Reason, reject::Rejection, revocation::ScopeKind, token::Claims};

/// How many clients have rows of their own; the same again for refusals.
///
/// Clients beyond that share a row ([`Sender::Others`]): the one that was seen least, and of those the one that was not
/// seen for longest, makes room for a new one. So who invents clients drives out none that is seen often.
pub const MOST_ROWS: usize = 256;

/// How much of a name is kept, in bytes.
const MOST_NAME: usize = 128;

/// Who sent a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Sender {
    /// A client, by the claims of a verified token. Names are cut after 128 bytes.
    #[non_exhaustive]
    Client {
        /// The issuer.
        iss: String,
        /// The client, where the token names one.
        client_id: Option<String>,
    },
    /// Clients that there was no room for.
    Others,
    /// Nobody knows: the token was not verified, or there was none.
    Unknown,
}

/// The tokens of one client that leave out claims that revocation could go by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// Who sends them.
    pub sender: Sender,
    /// Tokens without `jti`.
    pub jti: u64,
    /// Tokens without `sid`.
    pub sid: u64,
    /// Tokens without `iat`.
    pub iat: u64,
    /// When the last one was seen (Unix seconds).
    pub last_seen: u64,
}

/// Requests of one client that are refused for one reason, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// Who sends them.
    pub sender: Sender,
    /// Why, as [`Rejection::as_str`] names it.
    pub reason: &'static str,
    /// The kind of scope that is revoked, where that is why.
    pub scope: Option<ScopeKind>,
    /// How many were refused.
    pub refused: u64,
    /// How many passed, and would have been refused but for the [roll-out](crate::rollout).
    pub would_refuse: u64,
    /// When the last one was seen (Unix seconds).
    pub last_seen: u64,
}

/// What a guard has seen since it was made.
///
/// Requests that pass and whose tokens lack nothing are not in it. A token that a guard verifies is looked at for missing
/// claims once, when it is verified; where identities come from elsewhere each request is, and of these, once there are
/// more than 4,096, each 64th stands for 64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Since when (Unix seconds).
    pub since: u64,
    /// Who leaves out claims, most first. Only of verified tokens.
    pub missing: Vec<Missing>,
    /// Who is refused or would be, and why, most first.
    pub refused: Vec<Refused>,
    /// What is in no row, since another thread was writing at that moment: nobody waits for a report.
    pub left_out: u64,
}

impl Report {
    /// Takes in what another guard has seen.
    #[must_use]
    pub fn joined(mut self, other: Self) -> Self {
        let since = if self.since == 0 { other.since } else { self.since.min(other.since.max(1)) };
        for row in other.missing {
            match self.missing.iter_mut().find(|mine| mine.sender == row.sender) {
                None => self.missing.push(row),
                Some(mine) => {
                    (mine.jti, mine.sid, mine.iat) = (mine.jti + row.jti, mine.sid + row.sid, mine.iat + row.iat);
                    mine.last_seen = mine.last_seen.max(row.last_seen);
                }
            }
        }
        for row in other.refused {
            let same =
                |mine: &&mut Refused| (&mine.sender, mine.reason, mine.scope) == (&row.sender, row.reason, row.scope);
            match self.refused.iter_mut().find(same) {
                None => self.refused.push(row),
                Some(mine) => {
                    mine.refused += row.refused;
                    mine.would_refuse += row.would_refuse;
                    mine.last_seen = mine.last_seen.max(row.last_seen);
                }
            }
        }
        Self { since, left_out: self.left_out + other.left_out, ..self }.sorted()
    }

    fn sorted(mut self) -> Self {
        let most = |row: &Missing| std::cmp::Reverse(row.jti + row.sid + row.iat);
        self.missing.sort_by(|a, b| most(a).cmp(&most(b)).then_with(|| a.sender.cmp(&b.sender)));
        let most = |row: &Refused| std::cmp::Reverse(row.refused + row.would_refuse);
        self.refused.sort_by(|a, b| {
            most(a).cmp(&most(b)).then_with(|| (&a.sender, a.reason, a.scope).cmp(&(&b.sender, b.reason, b.scope)))
        });
        self
    }
}

/// Which claim a token lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Jti,
    Sid,
    Iat,
}

/// What goes into the report.
#[derive(Debug)]
pub(crate) struct Reporter {
    since: u64,
    missing: Mutex<Rows<(), [u64; 3]>>,
    refused: Mutex<Rows<Why, [u64; 2]>>,
    left_out: AtomicU64,
}

/// Reason and scope.
type Why = (&'static str, Option<ScopeKind>);

impl Reporter {
    /// `now`: Unix seconds.
    pub(crate) fn new(now: u64) -> Self {
        Self { since: now, missing: Mutex::default(), refused: Mutex::default(), left_out: AtomicU64::new(0) }
    }

    /// So many verified tokens lack a claim.
    #[cold]
    pub(crate) fn missing(&self, claim: Claim, claims: &Claims<'_>, tokens: u64, now: u64) {
        if let Some(mut rows) = self.lock(&self.missing, tokens) {
            rows.counts(Some(claims), (), now)[claim as usize] += tokens;
        }
    }

    /// A request was refused, or would have been; `claims`: those of its verified token.
    #[cold]
    pub(crate) fn refused(&self, rejection: Rejection, shadow: bool, claims: Option<&Claims<'_>>, now: u64) {
        let scope = match rejection {
            Rejection::Revoked(Reason::Revoked(kind) | Reason::NoIssueTime(kind)) => Some(kind),
            _ => None,
        };
        if let Some(mut rows) = self.lock(&self.refused, 1) {
            rows.counts(claims, (rejection.as_str(), scope), now)[usize::from(shadow)] += 1;
        }
    }

    /// Nobody waits to be counted.
    fn lock<'a, T>(&self, rows: &'a Mutex<T>, count: u64) -> Option<MutexGuard<'a, T>> {
        match rows.try_lock() {
            Ok(rows) => Some(rows),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                self.left_out.fetch_add(count, Ordering::Relaxed);
                None
            }
        }
    }

    pub(crate) fn report(&self) -> Report {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner).all();
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).all();
        let missing = missing.into_iter().map(|(sender, (), [jti, sid, iat], last_seen)| Missing {
            sender,
            jti,
            sid,
            iat,
            last_seen,
        });
        let refused = refused.into_iter().map(|(sender, (reason, scope), [refused, would_refuse], last_seen)| {
            Refused { sender, reason, scope, refused, would_refuse, last_seen }
        });
        Report {
            since: self.since,
            missing: missing.collect(),
            refused: refused.collect(),
            left_out: self.left_out.load(Ordering::Relaxed),
        }
        .sorted()
    }
}

/// A bounded number of rows for clients, and one for each tag beside them.
struct Rows<T, C> {
    /// By a keyed hash of sender and tag: no two of a few hundred share one of 64 bits.
    clients: HashMap<u64, Row<T, C>>,
    others: HashMap<T, (C, u64)>,
    unknown: HashMap<T, (C, u64)>,
    hash: RandomState,
    /// Grows with each that is counted.
    turn: u64,
}

struct Row<T, C> {
    iss: Box<str>,
    client_id: Option<Box<str>>,
    tag: T,
    counts: C,
    last_seen: u64,
    turn: u64,
}

impl<T, C> Default for Rows<T, C> {
    fn default() -> Self {
        let hash = RandomState::new();
        Self { clients: HashMap::new(), others: HashMap::new(), unknown: HashMap::new(), hash, turn: 0 }
    }
}

impl<T: Copy + Eq + Hash, const N: usize> Rows<T, [u64; N]> {
    /// The counts of a row, which is made where there is none.
    fn counts(&mut self, claims: Option<&Claims<'_>>, tag: T, now: u64) -> &mut [u64; N] {
        let Some(claims) = claims else {
            let (counts, last_seen) = self.unknown.entry(tag).or_insert(([0; N], 0));
            *last_seen = now;
            return counts;
        };
        self.turn += 1;
        let (iss, client_id) = (cut(claims.iss), claims.client_id.map(cut));
        let key = self.hash.hash_one((iss, client_id, tag));
        if self.clients.len() >= MOST_ROWS && !self.clients.contains_key(&key) {
            self.make_room();
        }
        let turn = self.turn;
        let row = self.clients.entry(key).or_insert_with(|| Row {
            iss: iss.into(),
            client_id: client_id.map(Into::into),
            tag,
            counts: [0; N],
            last_seen: now,
            turn,
        });
        (row.last_seen, row.turn) = (now, turn);
        &mut row.counts
    }

    /// Adds the row that was seen least to those of the others.
    fn make_room(&mut self) {
        let least = self.clients.iter().min_by_key(|(_, row)| (row.counts.iter().sum::<u64>(), row.turn));
        let Some(row) = least.map(|(key, _)| *key).and_then(|key| self.clients.remove(&key)) else { return };
        let (counts, last_seen) = self.others.entry(row.tag).or_insert(([0; N], 0));
        counts.iter_mut().zip(row.counts).for_each(|(sum, count)| *sum += count);
        *last_seen = (*last_seen).max(row.last_seen);
    }

    fn all(&self) -> Vec<(Sender, T, [u64; N], u64)> {
        let clients = self.clients.values().map(|row| {
            let sender =
                Sender::Client { iss: row.iss.to_string(), client_id: row.client_id.as_deref().map(Into::into) };
            (sender, row.tag, row.counts, row.last_seen)
        });
        let others = self.others.iter().map(|(tag, (counts, seen))| (Sender::Others, *tag, *counts, *seen));
        let unknown = self.unknown.iter().map(|(tag, (counts, seen))| (Sender::Unknown, *tag, *counts, *seen));
        clients.chain(others).chain(unknown).collect()
    }
}

impl<T, C> fmt::Debug for Rows<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}

/// The beginning of a name, as far as it is kept.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(MOST_NAME)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::ExtractError;

    const NOW: u64 = 1_800_000_000;
    const REVOKED: Rejection = Rejection::Revoked(Reason::Revoked(ScopeKind::Subject));

    /// Made-up clients, each seen once, cannot push out one that is seen again and again, nor use memory without end;
    /// and nothing that was counted is lost.
    #[test]
    fn invented_clients_share_a_row() {
        let reporter = Reporter::new(NOW);
        let count = |client: &str| reporter.refused(REVOKED, true, Some(&Claims::new("i").client_id(client)), NOW);
        for n in 0..20 * MOST_ROWS as u64 {
            count(&format!("invented-{n}-{}", "ü".repeat(500)));
            if n % 100 == 0 {
                count("real");
            }
        }
        let report = reporter.report();
        assert!(report.refused.len() <= MOST_ROWS + 1, "{}", report.refused.len());
        let of = |sender: &Sender| report.refused.iter().find(|row| row.sender == *sender).unwrap().would_refuse;
        assert_eq!(of(&Sender::Client { iss: "i".to_owned(), client_id: Some("real".to_owned()) }), 52);
        assert!(of(&Sender::Others) > 4_000);
        assert_eq!(report.refused.iter().map(|row| row.would_refuse).sum::<u64>(), 20 * 256 + 52);
        for row in &report.refused {
            if let Sender::Client { client_id: Some(client_id), .. } = &row.sender {
                assert!(client_id.len() <= MOST_NAME, "{client_id}");
            }
        }
    }

    #[test]
    fn two_reports_join() {
        let (one, two) = (Reporter::new(NOW), Reporter::new(NOW + 5));
        let claims = Claims::new("i").client_id("c");
        one.refused(REVOKED, true, Some(&claims), NOW);
        two.refused(REVOKED, false, Some(&claims), NOW + 7);
        two.refused(Rejection::Credential(ExtractError::Several), false, None, NOW + 6);
        one.missing(Claim::Jti, &claims, 3, NOW);
        two.missing(Claim::Iat, &claims, 1, NOW);
        let joined = one.report().joined(two.report());
        assert_eq!((joined.since, joined.refused.len(), joined.missing.len()), (NOW, 2, 1));
        let row = &joined.refused[0];
        assert_eq!((row.refused, row.would_refuse, row.last_seen), (1, 1, NOW + 7));
        assert_eq!(joined.refused[1].sender, Sender::Unknown);
        assert_eq!((joined.missing[0].jti, joined.missing[0].sid, joined.missing[0].iat), (3, 0, 1));
        assert_eq!(Report::default().joined(one.report()).since, NOW);
    }
}
