//! The list itself: many small numbers in few bytes (draft-ietf-oauth-status-list §4).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status as Zlib};

use super::token::Unreadable;
use crate::token::Status;

/// How many bits each status has: 1, 2, 4 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits(u8);

impl Bits {
    /// Enough for VALID and INVALID.
    pub const ONE: Self = Self(1);
    /// Enough for SUSPENDED and one status of the application's own too.
    pub const TWO: Self = Self(2);

    /// So many.
    ///
    /// # Errors
    ///
    /// `None` where it is none of 1, 2, 4 and 8.
    pub const fn new(bits: u64) -> Option<Self> {
        match bits {
            1 | 2 | 4 | 8 => Some(Self(bits as u8)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    const fn per_byte(self) -> u64 {
        8 / self.0 as u64
    }

    const fn largest(self) -> u8 {
        u8::MAX >> (8 - self.0)
    }
}

/// The statuses of many tokens, by their index: packed into bytes from the least significant bit on.
///
/// ```
/// use tower_revocation::status_list::{Bits, Status, StatusList};
///
/// let mut list = StatusList::all_valid(Bits::ONE, 16);
/// list.set(3, Status::INVALID).unwrap();
/// assert_eq!(list.get(3), Some(Status::INVALID));
/// assert_eq!(list.get(16), None);
/// assert_eq!(StatusList::decompress(Bits::ONE, &list.compress(), 1024).unwrap(), list);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct StatusList {
    bits: Bits,
    bytes: Box<[u8]>,
}

/// No list has this index, or its bits cannot hold the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoesNotFit;

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the status list has no such index, or too few bits for the status")
    }
}

impl std::error::Error for DoesNotFit {}

impl StatusList {
    /// A list of at least `entries` tokens, rounded up to whole bytes, each of them valid.
    pub fn all_valid(bits: Bits, entries: usize) -> Self {
        let bytes = entries.div_ceil(bits.per_byte() as usize);
        Self { bits, bytes: vec![0; bytes].into() }
    }

    /// A list of these bytes.
    pub fn from_bytes(bits: Bits, bytes: impl Into<Box<[u8]>>) -> Self {
        Self { bits, bytes: bytes.into() }
    }

    /// The list in `lst`: base64url without padding over zlib (RFC 1950), of at most `limit` bytes once it is
    /// decompressed. The work and the memory are bounded by `lst` and `limit`, whatever it says inside.
    ///
    /// # Errors
    ///
    /// Where it is something else, more than that, or has bytes left over.
    pub fn decompress(bits: Bits, lst: &str, limit: usize) -> Result<Self, Unreadable> {
        let packed = URL_SAFE_NO_PAD.decode(lst).map_err(|_| Unreadable::List)?;
        Ok(Self { bits, bytes: inflate(&packed, limit)?.into() })
    }

    /// As it stands in `lst`.
    pub fn compress(&self) -> String {
        URL_SAFE_NO_PAD.encode(deflate(&self.bytes))
    }

    /// The status at this index; `None` where the list ends before.
    #[inline]
    pub fn get(&self, idx: u64) -> Option<Status> {
        let (byte, shift) = self.place(idx);
        let byte = self.bytes.get(usize::try_from(byte).ok()?)?;
        Some(Status(byte >> shift & self.bits.largest()))
    }

    /// Sets the status at this index.
    ///
    /// # Errors
    ///
    /// Where the list ends before, or has too few bits.
    pub fn set(&mut self, idx: u64, status: Status) -> Result<(), DoesNotFit> {
        let (place, shift) = self.place(idx);
        let mask = self.bits.largest();
        if status.0 > mask {
            return Err(DoesNotFit);
        }
        let byte = usize::try_from(place).ok().and_then(|place| self.bytes.get_mut(place)).ok_or(DoesNotFit)?;
        *byte = *byte & !(mask << shift) | status.0 << shift;
        Ok(())
    }

    /// How many statuses there is room for.
    pub const fn len(&self) -> u64 {
        self.bytes.len() as u64 * self.bits.per_byte()
    }

    /// Whether there is room for none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bits each status has.
    pub const fn bits(&self) -> Bits {
        self.bits
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[inline]
    const fn place(&self, idx: u64) -> (u64, u8) {
        let per_byte = self.bits.per_byte();
        (idx / per_byte, (idx % per_byte) as u8 * self.bits.0)
    }
}

/// Every status in it would be too much.
impl fmt::Debug for StatusList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusList").field("bits", &self.bits.0).field("len", &self.len()).finish_non_exhaustive()
    }
}

fn inflate(packed: &[u8], limit: usize) -> Result<Vec<u8>, Unreadable> {
    const STEP: usize = 64 << 10;
    let (mut zlib, mut plain) = (Decompress::new(true), Vec::new());
    loop {
        let (read, had) = (zlib.total_in(), plain.len());
        plain.reserve(STEP.min(limit.saturating_sub(had) + 1));
        let rest = usize::try_from(read).ok().and_then(|read| packed.get(read..)).unwrap_or_default();
        let status = zlib.decompress_vec(rest, &mut plain, FlushDecompress::None).map_err(|_| Unreadable::List)?;
        if plain.len() > limit {
            return Err(Unreadable::TooLarge);
        }
        match status {
            Zlib::StreamEnd if zlib.total_in() == packed.len() as u64 => return Ok(plain),
            // Another reader could see more in what is left over.
            Zlib::StreamEnd => return Err(Unreadable::List),
            // It ends in the middle.
            _ if zlib.total_in() == read && plain.len() == had => return Err(Unreadable::List),
            _ => {}
        }
    }
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let (mut zlib, mut packed) = (Compress::new(Compression::best(), true), Vec::with_capacity(plain.len() / 8 + 64));
    loop {
        let rest = usize::try_from(zlib.total_in()).ok().and_then(|read| plain.get(read..)).unwrap_or_default();
        packed.reserve(4096);
        match zlib.compress_vec(rest, &mut packed, FlushCompress::Finish) {
            Ok(Zlib::StreamEnd) | Err(_) => return packed,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn statuses(bits: u64, lst: &str) -> Vec<u8> {
        let list = StatusList::decompress(Bits::new(bits).unwrap(), lst, 1 << 20).unwrap();
        (0..list.len()).map(|idx| list.get(idx).unwrap().0).collect()
    }

    /// draft-ietf-oauth-status-list §4.1, §4.2 and Janssen's samples.
    #[test]
    fn vectors() {
        assert_eq!(statuses(1, "eNrbuRgAAhcBXQ"), [1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1]);
        assert_eq!(statuses(2, "eNo76fITAAPfAgc"), [1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3]);
        let set = |lst: &str| -> Vec<(usize, u8)> {
            statuses(2, lst).into_iter().enumerate().filter(|(_, status)| *status != 0).collect()
        };
        assert_eq!(set("eNpjZRipgBEABeMABw"), [(0, 1), (1, 1), (1000, 1)]);
        assert_eq!(set("eNoLYGEYhIAFADIjAFk").len(), 4);
        assert_eq!(set("eNoLYGEYhIAFADIjAFk").iter().map(|(idx, _)| *idx).collect::<Vec<_>>(), [2, 3, 5, 601]);
        assert_eq!(statuses(2, "eNoDAAAAAAE"), [0; 0]);
        assert_eq!(StatusList::from_bytes(Bits::ONE, [0xb9, 0xa3]).get(16), None);
        assert_eq!(StatusList::from_bytes(Bits::ONE, [0xb9, 0xa3]).get(u64::MAX), None);
    }

    #[test]
    fn bombs_and_rubbish_are_refused() {
        let bomb = StatusList::all_valid(Bits::ONE, 8 << 20);
        let lst = bomb.compress();
        assert!(lst.len() < 4096, "{}", lst.len());
        assert_eq!(StatusList::decompress(Bits::ONE, &lst, (1 << 20) - 1), Err(Unreadable::TooLarge));
        assert_eq!(StatusList::decompress(Bits::ONE, &lst, 1 << 20).as_ref(), Ok(&bomb));
        let packed = URL_SAFE_NO_PAD.decode("eNrbuRgAAhcBXQ").unwrap();
        for end in 0..packed.len() {
            let cut = URL_SAFE_NO_PAD.encode(&packed[..end]);
            assert_eq!(StatusList::decompress(Bits::ONE, &cut, 1024), Err(Unreadable::List), "{end}");
        }
        let more = URL_SAFE_NO_PAD.encode([&packed[..], b"x"].concat());
        let mut wrong = packed.clone();
        *wrong.last_mut().unwrap() ^= 1;
        let wrong = URL_SAFE_NO_PAD.encode(wrong);
        for bad in ["", "eNrbuRgAAhcBXQ==", "eNrb uRgAAhcBXQ", "!", more.as_str(), wrong.as_str()] {
            assert_eq!(StatusList::decompress(Bits::ONE, bad, 1024), Err(Unreadable::List), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_set_is_read_back(bits in prop::sample::select(vec![1, 2, 4, 8]), set: Vec<(u16, u8)>) {
            let bits = Bits::new(bits).unwrap();
            let mut list = StatusList::all_valid(bits, 1 << 16);
            let mut expected = std::collections::HashMap::new();
            for (idx, status) in set {
                let status = Status(status & bits.largest());
                list.set(idx.into(), status).unwrap();
                expected.insert(u64::from(idx), status);
            }
            let list = StatusList::decompress(bits, &list.compress(), 1 << 16).unwrap();
            for idx in 0..1 << 16 {
                prop_assert_eq!(list.get(idx), Some(expected.get(&idx).copied().unwrap_or(Status::VALID)));
            }
        }
    }
}
