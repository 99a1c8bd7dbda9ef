use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Cutoff, RevocationId, Scope, ScopeKey};

/// A recorded revocation: what nodes exchange and backends store.
///
/// Enforcement needs the key, the cutoff and the retention alone; [`Record::detail`] is for people.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    key: ScopeKey,
    id: RevocationId,
    cutoff: Cutoff,
    retain_until: u64,
    owners: Box<[ScopeKey]>,
    detail: Box<[u8]>,
}

/// A recorded lift: it takes back the revocations that it names, and no others.
#[derive(Clone, PartialEq, Eq)]
pub struct Lift {
    key: ScopeKey,
    ids: Vec<RevocationId>,
    retain_until: u64,
    detail: Box<[u8]>,
}

/// One entry of a backend's feed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Something was revoked.
    Revoke(Record),
    /// Revocations were lifted.
    Lift(Lift),
}

/// The readable part of a record: who revoked what, when and why. Never a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Detail {
    /// What was revoked; `None` where only the key is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asked for it.
    #[serde(default, alias = "by", skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// When it was recorded (Unix seconds).
    #[serde(default, alias = "at")]
    pub revoked_at: u64,
}

/// The [`Detail::reason`] of a record that ends a token since a refresh put another one into its place. Its streams go on,
/// unless they are to end then too.
pub const REFRESHED: &str = "refreshed";

/// The current version of the envelope.
const VERSION: u8 = 1;
const REVOKE: u8 = 0;
const LIFT: u8 = 1;
/// version, operation, key, retain_until, cutoff, number of ids, number of owners.
const HEAD: usize = 1 + 1 + 16 + 8 + 8 + 2 + 1;

impl Record {
    /// A record of these parts.
    pub fn new(key: ScopeKey, id: RevocationId, cutoff: Cutoff, retain_until: u64, detail: &Detail) -> Self {
        Self { key, id, cutoff, retain_until, owners: Box::default(), detail: detail.encode() }
    }

    /// Counts the record against the quotas of these scopes (at most 255).
    #[cfg(any(feature = "sync", test))]
    #[must_use]
    pub(crate) fn owned_by(mut self, owners: impl IntoIterator<Item = ScopeKey>) -> Self {
        self.owners = owners.into_iter().take(usize::from(u8::MAX)).collect();
        self
    }

    /// Gives it this id, so that it is one with the record of its scope that has it.
    #[cfg(feature = "endpoint")]
    #[must_use]
    pub(crate) const fn named(mut self, id: RevocationId) -> Self {
        self.id = id;
        self
    }

    /// The scopes whose quotas it counts against.
    pub(crate) fn owners(&self) -> &[ScopeKey] {
        &self.owners
    }

    /// The key of its scope.
    pub const fn key(&self) -> ScopeKey {
        self.key
    }

    /// Its id.
    pub const fn id(&self) -> RevocationId {
        self.id
    }

    /// Tokens issued at or before it are dead.
    pub const fn cutoff(&self) -> Cutoff {
        self.cutoff
    }

    /// Until when it must be kept (Unix seconds); [`u64::MAX`]: until it is lifted.
    pub const fn retain_until(&self) -> u64 {
        self.retain_until
    }

    /// Who, what, when and why.
    pub fn detail(&self) -> Detail {
        Detail::decode(&self.detail)
    }

    /// Whether it ends one token for no other reason than that a refresh put another one into its place.
    #[cfg(feature = "streams")]
    pub(crate) fn is_of_refresh(&self) -> bool {
        self.key.kind().is_one_token() && self.detail().reason.as_deref() == Some(REFRESHED)
    }
}

impl Lift {
    /// A lift of the revocations `ids` of the scope behind `key`, remembered until `retain_until` (Unix seconds).
    pub fn new(key: ScopeKey, ids: Vec<RevocationId>, retain_until: u64, detail: &Detail) -> Self {
        Self { key, ids, retain_until, detail: detail.encode() }
    }

    /// The key of the scope.
    pub const fn key(&self) -> ScopeKey {
        self.key
    }

    /// The revocations that it takes back.
    pub fn ids(&self) -> &[RevocationId] {
        &self.ids
    }

    /// Until when it must be remembered (Unix seconds).
    pub const fn retain_until(&self) -> u64 {
        self.retain_until
    }

    /// Who, what, when and why.
    pub fn detail(&self) -> Detail {
        Detail::decode(&self.detail)
    }
}

impl Change {
    /// The key of the scope that it is about.
    pub const fn key(&self) -> ScopeKey {
        match self {
            Self::Revoke(record) => record.key,
            Self::Lift(lift) => lift.key,
        }
    }

    /// Until when it must be kept (Unix seconds).
    pub const fn retain_until(&self) -> u64 {
        match self {
            Self::Revoke(record) => record.retain_until,
            Self::Lift(lift) => lift.retain_until,
        }
    }

    /// The change as bytes: a fixed head that every version can read, then JSON.
    ///
    /// Big-endian: version (1 byte, now 1), operation (1: 0 revoke, 1 lift), scope key (16), `retain_until` (8),
    /// cutoff (8; 0 for a lift), number of ids (2), the ids (8 each), number of owners (1), their keys (16 each),
    /// then the detail to the end.
    pub fn encode(&self) -> Vec<u8> {
        let (operation, cutoff, ids, owners, detail) = match self {
            Self::Revoke(r) => (REVOKE, r.cutoff.as_u64(), std::slice::from_ref(&r.id), &*r.owners, &r.detail),
            Self::Lift(l) => (LIFT, 0, l.ids.as_slice(), [].as_slice(), &l.detail),
        };
        let mut bytes = Vec::with_capacity(HEAD + ids.len() * 8 + owners.len() * 16 + detail.len());
        bytes.push(VERSION);
        bytes.push(operation);
        bytes.extend_from_slice(&self.key().to_bytes());
        bytes.extend_from_slice(&self.retain_until().to_be_bytes());
        bytes.extend_from_slice(&cutoff.to_be_bytes());
        // A lift that names more is split by its maker; `Revocations::lift` does.
        bytes.extend_from_slice(&u16::try_from(ids.len()).unwrap_or(u16::MAX).to_be_bytes());
        for id in ids.iter().take(usize::from(u16::MAX)) {
            bytes.extend_from_slice(&id.as_u64().to_be_bytes());
        }
        // `Record::owned_by` keeps them below 256.
        bytes.push(owners.len() as u8);
        for owner in owners {
            bytes.extend_from_slice(&owner.to_bytes());
        }
        bytes.extend_from_slice(detail);
        bytes
    }

    /// Reads a change.
    ///
    /// # Errors
    ///
    /// Where the head is cut short or names an operation or a kind of scope that this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut rest = bytes;
        let [version, operation] = take(&mut rest)?;
        if version == 0 {
            return Err(Unreadable("version 0"));
        }
        let key = ScopeKey::from_bytes(take(&mut rest)?).ok_or(Unreadable("unknown kind of scope"))?;
        let retain_until = u64::from_be_bytes(take(&mut rest)?);
        let cutoff = Cutoff::at(u64::from_be_bytes(take(&mut rest)?));
        let count = u16::from_be_bytes(take(&mut rest)?);
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(RevocationId::from_u64(u64::from_be_bytes(take(&mut rest)?)));
        }
        let [owner_count] = take(&mut rest)?;
        let owners = (0..owner_count)
            .map(|_| ScopeKey::from_bytes(take(&mut rest)?).ok_or(Unreadable("unknown kind of owner")))
            .collect::<Result<_, _>>()?;
        let detail = rest.into();
        match (operation, ids.as_slice()) {
            (REVOKE, [id]) => Ok(Self::Revoke(Record { key, id: *id, cutoff, retain_until, owners, detail })),
            (REVOKE, _) => Err(Unreadable("a revocation without exactly one id")),
            (LIFT, _) => Ok(Self::Lift(Lift { key, ids, retain_until, detail })),
            _ => Err(Unreadable("unknown operation")),
        }
    }
}

impl Detail {
    fn encode(&self) -> Box<[u8]> {
        // Strings, numbers and arrays only: nothing here can fail to serialise.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Detail that cannot be read is left out: it is for people, and enforcement does not need it.
    fn decode(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("key", &self.key)
            .field("id", &self.id)
            .field("cutoff", &self.cutoff)
            .field("retain_until", &self.retain_until)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Lift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lift").field("key", &self.key).field("ids", &self.ids).finish_non_exhaustive()
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Unreadable> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(Unreadable("cut short"))?;
    *rest = tail;
    Ok(*head)
}

/// Bytes that are not a change this version can read. Never skipped: a node that meets one is not in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(pub(crate) &'static str);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unreadable revocation record: {}", self.0)
    }
}

impl std::error::Error for Unreadable {}
