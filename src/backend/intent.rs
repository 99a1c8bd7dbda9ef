use crate::revocation::{Change, Unreadable};

/// What a node is about to record, kept durably while something else is waited for: the answer of the service behind,
/// in `Mode::ForwardThenRecord`.
///
/// To a store it is an id and some bytes. Every node's [`Revocations`](crate::Revocations) looks for intents that were
/// announced a minute ago and are still there, since their node went down or could not write, and records them: what is
/// not known is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Intent {
    /// Names it; random.
    pub id: u64,
    /// What [`Intent::read`] reads; it may be kept as it is.
    pub record: Vec<u8>,
}

/// The current version of [`Intent::record`].
const VERSION: u8 = 1;

impl Intent {
    /// The intent to record these changes, announced at `since` (Unix seconds).
    ///
    /// Big-endian: version (1 byte, now 1), `since` (8), then each change: its length (4), and [`Change::encode`].
    pub fn new<'a>(since: u64, changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut record = vec![VERSION];
        record.extend_from_slice(&since.to_be_bytes());
        for change in changes {
            let change = change.encode();
            // A change is a few hundred bytes, and what does not fit is not readable.
            record.extend_from_slice(&u32::try_from(change.len()).unwrap_or(u32::MAX).to_be_bytes());
            record.extend_from_slice(&change);
        }
        Self { id: crate::random::u64(), record }
    }

    /// The intent that a store holds.
    pub const fn stored(id: u64, record: Vec<u8>) -> Self {
        Self { id, record }
    }

    /// Since when (Unix seconds) it is intended to record what.
    ///
    /// # Errors
    ///
    /// Where this version cannot read all of it.
    pub fn read(&self) -> Result<(u64, Vec<Change>), Unreadable> {
        let cut_short = Unreadable("an intent that is cut short");
        let (version, rest) = self.record.split_first().ok_or(cut_short)?;
        if *version != VERSION {
            return Err(Unreadable("an intent of another version"));
        }
        let (since, mut rest) = rest.split_first_chunk().ok_or(cut_short)?;
        let mut changes = Vec::new();
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk().ok_or(cut_short)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut_short)?;
            let (change, tail) = tail.split_at_checked(length).ok_or(cut_short)?;
            changes.push(Change::decode(change)?);
            rest = tail;
        }
        Ok((u64::from_be_bytes(*since), changes))
    }
}
