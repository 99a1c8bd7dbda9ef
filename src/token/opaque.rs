use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The keyed digest of an opaque token: HMAC-SHA-256 under a configured key, and the id of that key.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpaqueDigest {
    key_id: Box<str>,
    bytes: [u8; 32],
}

impl OpaqueDigest {
    /// Which key made it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The digest.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Debug for OpaqueDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpaqueDigest({} {:02x}{:02x}..)", self.key_id, self.bytes[0], self.bytes[1])
    }
}

/// The keys that turn opaque tokens into digests.
///
/// New entries are made with the first key; tokens are looked up under all of them, so that a key can be
/// rotated: keep the previous one for as long as tokens live (`max_lifetime`; with a recorder, `max_refresh_lifetime`).
#[derive(Clone)]
pub struct OpaqueKeys {
    keys: Vec<(Box<str>, Zeroizing<Vec<u8>>)>,
}

/// A digest key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpaqueKeyError {
    /// Fewer than 16 bytes: digests of guessable tokens could be searched.
    TooShort {
        /// The id of the key.
        key_id: String,
    },
    /// Two keys have this id.
    DuplicateId {
        /// The id.
        key_id: String,
    },
}

impl fmt::Display for OpaqueKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { key_id } => {
                write!(f, "the digest key {key_id:?} is shorter than 16 bytes; use 32 random bytes")
            }
            Self::DuplicateId { key_id } => {
                write!(f, "two digest keys have the id {key_id:?}; give each its own")
            }
        }
    }
}

impl std::error::Error for OpaqueKeyError {}

impl OpaqueKeys {
    /// Digests are made with this key.
    ///
    /// # Errors
    ///
    /// Where the key has fewer than 16 bytes.
    pub fn new(key_id: impl Into<String>, key: impl Into<Vec<u8>>) -> Result<Self, OpaqueKeyError> {
        Self { keys: Vec::new() }.add(key_id.into(), key.into())
    }

    /// Tokens are looked up under this key too.
    ///
    /// # Errors
    ///
    /// Where the key has fewer than 16 bytes, or its id is taken.
    pub fn previous(self, key_id: impl Into<String>, key: impl Into<Vec<u8>>) -> Result<Self, OpaqueKeyError> {
        self.add(key_id.into(), key.into())
    }

    fn add(mut self, key_id: String, key: Vec<u8>) -> Result<Self, OpaqueKeyError> {
        let key = Zeroizing::new(key);
        if key.len() < 16 {
            return Err(OpaqueKeyError::TooShort { key_id });
        }
        if self.keys.iter().any(|(id, _)| **id == *key_id) {
            return Err(OpaqueKeyError::DuplicateId { key_id });
        }
        self.keys.push((key_id.into(), key));
        Ok(self)
    }

    /// The digests of a token, the current key's first.
    pub fn digests(&self, token: &[u8]) -> impl Iterator<Item = OpaqueDigest> {
        self.keys.iter().filter_map(move |(key_id, key)| {
            // HMAC takes keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
            mac.update(token);
            Some(OpaqueDigest { key_id: key_id.clone(), bytes: mac.finalize().into_bytes().into() })
        })
    }

    /// The id of the key that new digests are made with.
    pub fn current_id(&self) -> &str {
        self.keys.first().map_or("", |(id, _)| id)
    }
}

impl fmt::Debug for OpaqueKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}
