//! What the messages in the log are called, and what holds a batch together.
//!
//! After the prefix of the namespace:
//!
//! - `c.<scope key>.<bucket>.<retain until>.<name>`: a change, alone or, with the header [`PART_OF`], part of a batch;
//! - `b.<bucket>.<batch>`: the batch is complete; the payload says where its parts are;
//! - `h.<bucket>`: the bucket is in use.

use crate::revocation::{Change, ScopeKey};

/// The header of a part: the subject of what completes its batch.
pub(super) const PART_OF: &str = "Trev-Batch";
/// How many seconds go into a bucket, whose changes are deleted at once.
const BUCKET: u64 = 3600;
/// The current version of [`Parts::encode`].
const VERSION: u8 = 1;

/// The hour in which something expires; what never does has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Bucket(Option<u64>);

impl Bucket {
    pub(super) fn of(retain_until: u64) -> Self {
        Self((retain_until != u64::MAX).then_some(retain_until / BUCKET))
    }

    /// The later one.
    pub(super) fn latest(buckets: impl Iterator<Item = Self>) -> Self {
        let mut latest = Self(Some(0));
        for bucket in buckets {
            let later = |at: u64| bucket.0.map(|other| other.max(at));
            latest = Self(latest.0.and_then(later));
        }
        latest
    }

    /// Whether all that can be in it has expired `before`.
    pub(super) fn is_over(self, before: u64) -> bool {
        self.0.is_some_and(|hour| u128::from(before) >= (u128::from(hour) + 1) * u128::from(BUCKET))
    }

    /// Whether anything in it can have expired `before`.
    pub(super) fn has_begun(self, before: u64) -> bool {
        self.0.is_some_and(|hour| hour.saturating_mul(BUCKET) < before)
    }

    pub(super) fn is_endless(self) -> bool {
        self.0.is_none()
    }

    /// The token of a subject.
    pub(super) fn token(self) -> String {
        self.0.map_or_else(|| "max".into(), |hour| hour.to_string())
    }

    /// The bucket of a marker's subject.
    pub(super) fn of_marker(subject: &str) -> Option<Self> {
        let hour = subject.strip_prefix("h.")?.parse().ok()?;
        Some(Self(Some(hour)))
    }

    pub(super) fn marker(self) -> String {
        format!("h.{}", self.token())
    }

    /// All changes in it.
    pub(super) fn changes(self) -> String {
        format!("c.*.{}.*.*", self.token())
    }

    /// All batches that are complete, and expire in it.
    pub(super) fn batches(self) -> String {
        format!("b.{}.*", self.token())
    }
}

/// The subject of a change.
pub(super) fn change(change: &Change, name: &str) -> String {
    let retain_until = change.retain_until();
    let bucket = Bucket::of(retain_until).token();
    format!("c.{}.{bucket}.{retain_until}.{name}", hex(&change.key().to_bytes()))
}

/// All changes of a scope.
pub(super) fn changes_of(key: ScopeKey) -> String {
    format!("c.{}.>", hex(&key.to_bytes()))
}

/// Until when the change with this subject must be kept.
pub(super) fn retain_until(subject: &str) -> Option<u64> {
    subject.split('.').nth(3)?.parse().ok()
}

/// The subject of what completes a batch.
pub(super) fn batch(bucket: Bucket, id: &str) -> String {
    format!("b.{}.{id}", bucket.token())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Where the parts of a batch are, in their order: runs of consecutive sequences.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(Vec<(u64, u32)>);

impl Parts {
    pub(super) fn push(&mut self, sequence: u64) {
        match self.0.last_mut() {
            Some((first, count)) if *first + u64::from(*count) == sequence && *count < u32::MAX => *count += 1,
            _ => self.0.push((sequence, 1)),
        }
    }

    /// Big-endian: version (1 byte, now 1), then each run: its first sequence (8) and how many (4).
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for (first, count) in &self.0 {
            bytes.extend_from_slice(&first.to_be_bytes());
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        bytes
    }

    /// The parts of the batch that message `own` completes. They come before it, or the bytes are none of ours.
    pub(super) fn decode(bytes: &[u8], own: u64) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let mut parts = Self::default();
        while !rest.is_empty() {
            let (first, tail) = rest.split_first_chunk()?;
            let (count, tail) = tail.split_first_chunk()?;
            let (first, count) = (u64::from_be_bytes(*first), u32::from_be_bytes(*count));
            if first.checked_add(u64::from(count))? > own {
                return None;
            }
            parts.0.push((first, count));
            rest = tail;
        }
        Some(parts)
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(first, count)| *first..*first + u64::from(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_were_written() {
        let mut parts = Parts::default();
        let sequences = [5, 6, 7, 9, 20, 21, 8];
        sequences.into_iter().for_each(|sequence| parts.push(sequence));
        let read = Parts::decode(&parts.encode(), 22);
        assert_eq!(read.as_ref().map(|parts| parts.sequences().collect()), Some(sequences.to_vec()));
        assert_eq!(Parts::decode(&parts.encode(), 21), None, "a part cannot come after what completes its batch");
        let bytes = parts.encode();
        (0..bytes.len()).filter(|length| length % 12 != 1).for_each(|length| {
            assert_eq!(Parts::decode(&bytes[..length], 22), None, "cut at {length}");
        });
    }

    #[test]
    fn nothing_is_over_before_its_time() {
        for retain_until in [0, 3599, 3600, 7200, u64::MAX - 1] {
            let bucket = Bucket::of(retain_until);
            assert!(!bucket.is_over(retain_until), "{retain_until}");
            assert!(bucket.has_begun(retain_until + 1), "{retain_until}");
        }
        assert!(!Bucket::of(u64::MAX).is_over(u64::MAX) && !Bucket::of(u64::MAX).has_begun(u64::MAX));
        assert!(Bucket::of(3599).is_over(3600));
        let endless = Bucket::of(u64::MAX);
        assert_eq!(Bucket::latest([Bucket::of(7200), endless, Bucket::of(1)].into_iter()), endless);
        assert_eq!(Bucket::latest([Bucket::of(7200), Bucket::of(1)].into_iter()), Bucket::of(7200));
    }
}
