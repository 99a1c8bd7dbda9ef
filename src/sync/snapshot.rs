//! What is live, signed: to be carried over channels that nobody trusts.

use std::{collections::HashSet, fmt};

use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Revocations, RevokeError};
use crate::{
    backend::{
        BackendError, BackendErrorKind, Event,
        list::{self, Line, Listed},
    },
    revocation::{Change, Cutoff, Detail, Record, Revocation, RevocationId, Scope},
    token::{Expiry, Issuer, JwtConfigError, JwtVerifier, SignError, SigningKey, VerifyError},
};

/// The type (`typ`) of signed snapshots.
const TYP: &str = "revocation-list+jwt";
/// The longest snapshot that is read, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// How many are recorded in one write.
const BATCH: usize = 500;
/// What remembers the newest snapshot of a publisher: to the denylist it is a user of theirs.
const NEWEST: &str = "urn:revocation-list:newest";

/// A signed snapshot, and what it holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SignedSnapshot {
    /// A compact JWS (RFC 7515) of the type `revocation-list+jwt`, with `iss`, `iat` and `revocations`, sorted.
    pub jws: String,
    /// How many revocations are in it.
    pub revocations: usize,
    /// How many are not, since only the keys of their scopes are known here, which count in their own store alone.
    pub left_out: usize,
}

/// What an import came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// When the snapshot was made (Unix seconds).
    pub iat: u64,
    /// How many revocations were in it.
    pub read: usize,
    /// How many of them were new here.
    pub recorded: usize,
}

/// Who may publish snapshots, and about whom.
///
/// ```
/// use tower_revocation::{sync::SnapshotVerifier, token::{Algorithm, Issuer, Keys, SigningKey}};
///
/// # let ed25519 = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
/// #     "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
/// let key = SigningKey::jwk(ed25519)?;
/// let publisher = Issuer::new("https://site-a.example/").algorithms([Algorithm::EdDSA]).keys(Keys::jwks(key.public_jwk()));
/// let verifier = SnapshotVerifier::new(publisher, ["https://issuer.example/"])?;
/// # let _ = verifier; Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SnapshotVerifier {
    verifier: JwtVerifier,
    about: Vec<String>,
}

impl SnapshotVerifier {
    /// Takes snapshots of `publisher` (its keys and algorithms count; the audience does not), about tokens of these
    /// issuers and about opaque tokens.
    ///
    /// # Errors
    ///
    /// Where the settings cannot be used.
    pub fn new<S: Into<String>>(publisher: Issuer, about: impl IntoIterator<Item = S>) -> Result<Self, JwtConfigError> {
        let verifier = JwtVerifier::builder().issuer(publisher.any_audience().require_typ(TYP)).build()?;
        Ok(Self { verifier, about: about.into_iter().map(Into::into).collect() })
    }
}

/// Why there is no snapshot, or none was taken in.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It is longer than 64 MiB.
    TooLarge,
    /// It is not authentic.
    Verify(VerifyError),
    /// It cannot be read; nothing of it was taken in.
    Malformed {
        /// Which entry, counted from 0, or nothing where it is the whole.
        entry: Option<usize>,
    },
    /// It is about tokens of an issuer that the publisher has no say over; nothing of it was taken in.
    Foreign,
    /// A newer one of this publisher was taken in before.
    RolledBack {
        /// When this one was made (Unix seconds).
        iat: u64,
    },
    /// It is older than tokens live here.
    TooOld {
        /// When it was made (Unix seconds).
        iat: u64,
    },
    /// It could not be signed.
    Sign(SignError),
    /// The store could not be read.
    Backend(BackendError),
    /// Not all of it was recorded. The same snapshot can be imported again.
    Record(RevokeError),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => write!(f, "the signed snapshot is longer than {MAX_BYTES} bytes"),
            Self::Verify(error) => write!(f, "the signed snapshot is not authentic: {error}"),
            Self::Malformed { entry: None } => f.write_str("the signed snapshot has no iat, or no list of revocations"),
            Self::Malformed { entry: Some(entry) } => {
                write!(f, "entry {entry} of the signed snapshot cannot be used; nothing of it was taken in")
            }
            Self::Foreign => f.write_str(
                "the signed snapshot is about an issuer that its publisher has no say over; nothing was taken in",
            ),
            Self::RolledBack { iat } => {
                write!(f, "the signed snapshot of {iat} is older than one of its publisher that was taken in before")
            }
            Self::TooOld { iat } => write!(f, "the signed snapshot of {iat} is older than tokens live; get a new one"),
            Self::Sign(error) => error.fmt(f),
            Self::Backend(error) => error.fmt(f),
            Self::Record(error) => write!(f, "the signed snapshot was not taken in as a whole: {error}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

impl Revocations {
    /// Signs all that is live, in the name of `publisher`.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read as a whole, the key cannot sign, or the snapshot would be longer than is read.
    pub async fn export_signed(&self, publisher: &str, key: &SigningKey) -> Result<SignedSnapshot, SnapshotError> {
        let iat = self.denylist().exact_now().unix();
        let (mut entries, mut left_out) = (Vec::new(), 0);
        for record in self.live_records(iat).await? {
            match list::write(&record) {
                Some(entry) => entries.push(entry),
                None => left_out += 1,
            }
        }
        entries.sort_unstable();
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            iat: u64,
            revocations: Vec<Box<RawValue>>,
        }
        let revocations = entries.len();
        let raw = entries.into_iter().filter_map(|entry| RawValue::from_string(entry).ok()).collect();
        let claims = serde_json::to_vec(&Claims { iss: publisher, iat, revocations: raw });
        let claims = claims.map_err(|_| SnapshotError::Malformed { entry: None })?;
        let jws = key.sign(TYP, &claims).map_err(SnapshotError::Sign)?;
        if jws.len() > MAX_BYTES {
            return Err(SnapshotError::TooLarge);
        }
        Ok(SignedSnapshot { jws, revocations, left_out })
    }

    /// Takes in a signed snapshot: what it holds is added, and nothing leaves, whatever it lacks. Revocations keep their
    /// ids, so that what was lifted here stays lifted.
    ///
    /// The newest `iat` of each publisher wins: an older snapshot is refused, on every node, and so is one that is older
    /// than tokens live.
    ///
    /// # Errors
    ///
    /// Where it is not authentic, not whole, not the newest, about others' tokens, or cannot be recorded. But for the last,
    /// nothing has changed then.
    pub async fn import_signed(&self, jws: &str, verifier: &SnapshotVerifier) -> Result<Imported, SnapshotError> {
        if jws.len() > MAX_BYTES {
            return Err(SnapshotError::TooLarge);
        }
        let (denylist, now) = (self.denylist(), self.denylist().exact_now().unix());
        let payload = verifier.verifier.verify_payload(jws, MAX_BYTES, now, Expiry::Optional);
        let payload = payload.map_err(SnapshotError::Verify)?;
        let whole = |_| SnapshotError::Malformed { entry: None };
        let members = payload.members().map_err(whole)?;
        let iat = members.time("iat").map_err(whole)?.ok_or(SnapshotError::Malformed { entry: None })?;
        let entries: Vec<&RawValue> =
            members.get("revocations").map_err(whole)?.ok_or(SnapshotError::Malformed { entry: None })?;

        if iat.saturating_add(denylist.lifetimes().max_lifetime_secs()) < now {
            return Err(SnapshotError::TooOld { iat });
        }
        let newest = Scope::subject(payload.iss(), NEWEST);
        let known = self.state_of(&newest).await.map_err(SnapshotError::Record)?;
        if known.cutoff().is_some_and(|cutoff| cutoff.covers(iat)) {
            return Err(SnapshotError::RolledBack { iat });
        }
        let records = self.read_entries(&entries, verifier, now)?;
        let read = records.len();
        let mut recorded = 0;
        for batch in records.chunks(BATCH) {
            recorded += self.merge(batch).await?;
        }
        // Once all of it is in: messages of this publisher from before it are dead.
        let before = Cutoff::at(iat.saturating_sub(1));
        if known.cutoff().is_none_or(|known| known < before) {
            let newest = Revocation::new(newest).cutoff(before).reason("signed snapshot");
            // As it is: not a little ahead of it, where there are many.
            self.publish(vec![self.record(&newest)]).await.map_err(SnapshotError::Record)?;
        }
        Ok(Imported { iat, read, recorded })
    }

    fn read_entries(
        &self,
        entries: &[&RawValue],
        verifier: &SnapshotVerifier,
        now: u64,
    ) -> Result<Vec<Record>, SnapshotError> {
        let denylist = self.denylist();
        let latest = now.saturating_add(denylist.lifetimes().skew_secs().max(denylist.lifetimes().leeway_secs()));
        let mut records = Vec::with_capacity(entries.len());
        for (number, entry) in entries.iter().enumerate() {
            let malformed = SnapshotError::Malformed { entry: Some(number) };
            let Ok(Line::Entry(entry)) = list::entry(entry.get().as_bytes(), number) else { return Err(malformed) };
            let Listed::Revoke { id: Some(id), scope, cutoff, retain_until, reason, revoked_by, revoked_at, .. } =
                *entry
            else {
                return Err(malformed);
            };
            if cutoff.secs().is_some_and(|at| at > latest) {
                return Err(malformed);
            }
            if scope.iss().is_some_and(|iss| !verifier.about.iter().any(|known| known == iss)) {
                return Err(SnapshotError::Foreign);
            }
            if retain_until < now {
                continue;
            }
            let key = denylist.hasher().key(&scope);
            let detail = Detail { scope: Some(scope), reason, revoked_by, revoked_at };
            records.push(Record::new(key, id, cutoff, retain_until, &detail));
        }
        Ok(records)
    }

    /// Records what the store does not know by its id, lifted or not. How many.
    async fn merge(&self, records: &[Record]) -> Result<usize, SnapshotError> {
        let keys: Vec<_> = records.iter().map(Record::key).collect();
        let mut known: HashSet<(u128, RevocationId)> = HashSet::new();
        for change in self.backend().lookup(&keys).await.map_err(SnapshotError::Backend)? {
            match &change {
                Change::Revoke(record) => drop(known.insert((record.key().as_u128(), record.id()))),
                Change::Lift(lift) => known.extend(lift.ids().iter().map(|id| (lift.key().as_u128(), *id))),
            }
        }
        let new = records.iter().filter(|record| !known.contains(&(record.key().as_u128(), record.id())));
        let new: Vec<_> = new.cloned().collect();
        let count = new.len();
        if count > 0 {
            self.publish(new).await.map_err(SnapshotError::Record)?;
        }
        Ok(count)
    }

    /// All records of the store that are neither lifted nor over.
    async fn live_records(&self, now: u64) -> Result<Vec<Record>, SnapshotError> {
        let clock = std::sync::Arc::clone(self.denylist().clock());
        let mut feed = self.backend().follow(None, &*clock);
        let (mut records, mut lifted) = (Vec::new(), HashSet::new());
        while let Some(event) = feed.next().await {
            match event.map_err(SnapshotError::Backend)? {
                Event::Snapshot => {}
                Event::Changes(changes) => {
                    for change in changes {
                        match change {
                            Change::Revoke(record) => records.push(record),
                            Change::Lift(lift) => {
                                lifted.extend(lift.ids().iter().map(|id| (lift.key().as_u128(), *id)));
                            }
                        }
                    }
                }
                Event::CaughtUp { .. } => {
                    let mut seen = HashSet::new();
                    records.retain(|record: &Record| {
                        let name = (record.key().as_u128(), record.id());
                        record.retain_until() >= now && !lifted.contains(&name) && seen.insert(name)
                    });
                    return Ok(records);
                }
                Event::Unreadable { name, why } => {
                    let what = format!("signing all that is live: the record {name} cannot be read");
                    return Err(SnapshotError::Backend(
                        BackendError::new(BackendErrorKind::Corrupt, what).because(why),
                    ));
                }
            }
        }
        let what = "signing all that is live: the store ended its feed before all was there";
        Err(SnapshotError::Backend(BackendError::new(BackendErrorKind::Unavailable, what)))
    }
}
