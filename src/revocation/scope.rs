use std::fmt;

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;
use zeroize::Zeroize;

/// The kinds of [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum ScopeKind {
    /// One token, by (`iss`, `jti`).
    Token = 0,
    /// One JWT without `jti`, by (`iss`, SHA-256 of its signing input).
    SigningInput = 1,
    /// One opaque token, by a keyed digest.
    OpaqueToken = 2,
    /// One login session, by (`iss`, `sid`).
    Session = 3,
    /// One client's part of a login session, by (`iss`, `sid`, `client_id`).
    ClientSession = 4,
    /// One user, by (`iss`, `sub`).
    Subject = 5,
    /// One user's tokens at one client, by (`iss`, `sub`, `client_id`).
    SubjectClient = 6,
    /// One client, by (`iss`, `client_id`).
    Client = 7,
    /// One issuer.
    Issuer = 8,
}

impl ScopeKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Token,
        Self::SigningInput,
        Self::OpaqueToken,
        Self::Session,
        Self::ClientSession,
        Self::Subject,
        Self::SubjectClient,
        Self::Client,
        Self::Issuer,
    ];

    /// The kind with this number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }

    /// The name used in logs, metrics and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::SigningInput => "signing_input",
            Self::OpaqueToken => "opaque_token",
            Self::Session => "session",
            Self::ClientSession => "client_session",
            Self::Subject => "subject",
            Self::SubjectClient => "subject_client",
            Self::Client => "client",
            Self::Issuer => "issuer",
        }
    }

    /// A single token, whatever names it.
    pub const fn is_one_token(self) -> bool {
        matches!(self, Self::Token | Self::SigningInput | Self::OpaqueToken)
    }

    /// Tokens and sessions cannot come back; the others go on after their cutoff.
    pub const fn dies_for_ever(self) -> bool {
        self.is_one_token() || matches!(self, Self::Session | Self::ClientSession)
    }

    /// Whether a token's `auth_time` counts too: a refresh must not mint its way past the cutoff.
    pub const fn compares_auth_time(self) -> bool {
        matches!(self, Self::Session | Self::ClientSession | Self::Subject | Self::SubjectClient)
    }
}

impl fmt::Display for ScopeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a revocation is about.
///
/// Values are those of verified claims, byte for byte: nothing is trimmed, folded or normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scope {
    /// One token.
    #[non_exhaustive]
    Token {
        /// Who issued it.
        iss: String,
        /// Its `jti`, unique for that issuer.
        jti: String,
    },
    /// One JWT that carries no `jti`.
    #[non_exhaustive]
    SigningInput {
        /// Who issued it.
        iss: String,
        /// SHA-256 of `header "." payload`; the signature is left out, since it can be malleable.
        sha256: [u8; 32],
    },
    /// One opaque token.
    #[non_exhaustive]
    OpaqueToken {
        /// Its keyed digest.
        digest: crate::token::OpaqueDigest,
    },
    /// One login session with all its clients.
    #[non_exhaustive]
    Session {
        /// Who issued its tokens.
        iss: String,
        /// Its `sid`.
        sid: String,
    },
    /// One client's part of a login session.
    #[non_exhaustive]
    ClientSession {
        /// Who issued its tokens.
        iss: String,
        /// The session's `sid`.
        sid: String,
        /// The client.
        client_id: String,
    },
    /// One user.
    #[non_exhaustive]
    Subject {
        /// Who issued the tokens.
        iss: String,
        /// The user's `sub`.
        sub: String,
    },
    /// One user's tokens at one client.
    #[non_exhaustive]
    SubjectClient {
        /// Who issued the tokens.
        iss: String,
        /// The user's `sub`.
        sub: String,
        /// The client.
        client_id: String,
    },
    /// Every token of one client.
    #[non_exhaustive]
    Client {
        /// Who issued the tokens.
        iss: String,
        /// The client.
        client_id: String,
    },
    /// Every token of one issuer.
    #[non_exhaustive]
    Issuer {
        /// The issuer.
        iss: String,
    },
}

impl Scope {
    /// One token.
    pub fn token(iss: impl Into<String>, jti: impl Into<String>) -> Self {
        Self::Token { iss: iss.into(), jti: jti.into() }
    }

    /// One JWT without `jti`, by the SHA-256 of its signing input.
    pub fn signing_input(iss: impl Into<String>, sha256: [u8; 32]) -> Self {
        Self::SigningInput { iss: iss.into(), sha256 }
    }

    /// One opaque token.
    pub const fn opaque_token(digest: crate::token::OpaqueDigest) -> Self {
        Self::OpaqueToken { digest }
    }

    /// One login session.
    pub fn session(iss: impl Into<String>, sid: impl Into<String>) -> Self {
        Self::Session { iss: iss.into(), sid: sid.into() }
    }

    /// One client's part of a login session.
    pub fn client_session(iss: impl Into<String>, sid: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self::ClientSession { iss: iss.into(), sid: sid.into(), client_id: client_id.into() }
    }

    /// One user.
    pub fn subject(iss: impl Into<String>, sub: impl Into<String>) -> Self {
        Self::Subject { iss: iss.into(), sub: sub.into() }
    }

    /// One user's tokens at one client.
    pub fn subject_client(iss: impl Into<String>, sub: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self::SubjectClient { iss: iss.into(), sub: sub.into(), client_id: client_id.into() }
    }

    /// One client.
    pub fn client(iss: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self::Client { iss: iss.into(), client_id: client_id.into() }
    }

    /// One issuer.
    pub fn issuer(iss: impl Into<String>) -> Self {
        Self::Issuer { iss: iss.into() }
    }

    /// Its kind.
    pub const fn kind(&self) -> ScopeKind {
        match self {
            Self::Token { .. } => ScopeKind::Token,
            Self::SigningInput { .. } => ScopeKind::SigningInput,
            Self::OpaqueToken { .. } => ScopeKind::OpaqueToken,
            Self::Session { .. } => ScopeKind::Session,
            Self::ClientSession { .. } => ScopeKind::ClientSession,
            Self::Subject { .. } => ScopeKind::Subject,
            Self::SubjectClient { .. } => ScopeKind::SubjectClient,
            Self::Client { .. } => ScopeKind::Client,
            Self::Issuer { .. } => ScopeKind::Issuer,
        }
    }

    /// The issuer that it is about; an opaque token has none.
    pub fn iss(&self) -> Option<&str> {
        match self {
            Self::OpaqueToken { .. } => None,
            Self::Token { iss, .. }
            | Self::SigningInput { iss, .. }
            | Self::Session { iss, .. }
            | Self::ClientSession { iss, .. }
            | Self::Subject { iss, .. }
            | Self::SubjectClient { iss, .. }
            | Self::Client { iss, .. }
            | Self::Issuer { iss } => Some(iss),
        }
    }
}

/// The key under which a scope is stored and looked up: 124 bits of keyed hash and the kind.
///
/// Made by a [`ScopeHasher`] from verified values only; there is no way to make one from a raw token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeKey(u128);

const KIND_BITS: u128 = 0xF;

impl ScopeKey {
    pub(crate) const fn new(kind: ScopeKind, hash: u128) -> Self {
        Self((hash & !KIND_BITS) | kind as u128)
    }

    /// The kind of scope.
    pub const fn kind(self) -> ScopeKind {
        match ScopeKind::from_u8((self.0 & KIND_BITS) as u8) {
            Some(kind) => kind,
            // No constructor lets another number in.
            None => ScopeKind::Issuer,
        }
    }

    /// The bytes to store.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The key with these bytes; `None` where they name a kind that this version does not know.
    pub const fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let number = u128::from_be_bytes(bytes);
        match ScopeKind::from_u8((number & KIND_BITS) as u8) {
            Some(_) => Some(Self(number)),
            None => None,
        }
    }

    pub(crate) const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    pub(crate) const fn as_u128(self) -> u128 {
        self.0
    }

    /// One bit for the kind of the key with this number.
    #[inline]
    pub(crate) const fn kind_bit(number: u128) -> u32 {
        1 << (number & KIND_BITS) as u32
    }
}

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopeKey({} {:032x})", self.kind(), self.0)
    }
}

/// Turns scopes into [`ScopeKey`]s: SipHash-1-3 with 128 bits under a secret that the whole fleet shares.
///
/// The secret keeps anyone who chooses a `jti` or a `sub` from choosing its hash. It lives in the backend
/// and is not a credential: who reads it can at most refuse tokens that they could have revoked anyway.
#[derive(Clone, PartialEq, Eq)]
pub struct ScopeHasher {
    secret: [u8; 16],
}

impl ScopeHasher {
    /// The hasher of a fleet with this secret.
    pub const fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// A hasher of its own, for one process.
    pub fn random() -> Self {
        Self::new(crate::random::bytes())
    }

    #[cfg(feature = "sync")]
    pub(crate) const fn secret(&self) -> &[u8; 16] {
        &self.secret
    }

    /// The key of `scope`.
    pub fn key(&self, scope: &Scope) -> ScopeKey {
        match scope {
            Scope::Token { iss, jti } => self.issuer_of(iss).key(ScopeKind::Token, &[jti.as_bytes()]),
            Scope::SigningInput { iss, sha256 } => self.issuer_of(iss).key(ScopeKind::SigningInput, &[sha256]),
            Scope::OpaqueToken { digest } => self.opaque(digest),
            Scope::Session { iss, sid } => self.issuer_of(iss).key(ScopeKind::Session, &[sid.as_bytes()]),
            Scope::ClientSession { iss, sid, client_id } => {
                self.issuer_of(iss).key(ScopeKind::ClientSession, &[sid.as_bytes(), client_id.as_bytes()])
            }
            Scope::Subject { iss, sub } => self.issuer_of(iss).key(ScopeKind::Subject, &[sub.as_bytes()]),
            Scope::SubjectClient { iss, sub, client_id } => {
                self.issuer_of(iss).key(ScopeKind::SubjectClient, &[sub.as_bytes(), client_id.as_bytes()])
            }
            Scope::Client { iss, client_id } => self.issuer_of(iss).key(ScopeKind::Client, &[client_id.as_bytes()]),
            Scope::Issuer { iss } => self.issuer_of(iss).key(ScopeKind::Issuer, &[]),
        }
    }

    pub(crate) fn opaque(&self, digest: &crate::token::OpaqueDigest) -> ScopeKey {
        self.issuer_of("").key(ScopeKind::OpaqueToken, &[digest.key_id().as_bytes(), digest.bytes()])
    }

    /// The part that all keys of one issuer share, hashed once.
    #[inline]
    pub(crate) fn issuer_of(&self, iss: &str) -> IssuerHasher {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        write_value(&mut hasher, iss.as_bytes());
        IssuerHasher(hasher)
    }
}

impl fmt::Debug for ScopeHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeHasher(..)")
    }
}

impl Drop for ScopeHasher {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

pub(crate) struct IssuerHasher(SipHasher13);

impl IssuerHasher {
    #[inline(always)]
    pub(crate) fn key(&self, kind: ScopeKind, values: &[&[u8]]) -> ScopeKey {
        let mut hasher = self.0;
        // Kind first, then every value with its length: no two scopes share an encoding.
        hasher.write_u64(kind as u64);
        for value in values {
            write_value(&mut hasher, value);
        }
        ScopeKey::new(kind, hasher.finish128().as_u128())
    }
}

#[inline(always)]
fn write_value(hasher: &mut SipHasher13, value: &[u8]) {
    hasher.write_u64(value.len() as u64);
    // In whole words, the last one filled up with zeroes, which the length makes unambiguous: the hasher is several
    // times faster on words than on bytes that do not line up.
    let (words, rest) = value.as_chunks::<8>();
    for word in words {
        hasher.write_u64(u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hasher.write_u64(u64::from_le_bytes(word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F26, F27: no value can slide from one field, or from one kind, into another.
    #[test]
    fn f26_keys_of_different_scopes_differ() {
        let hasher = ScopeHasher::new([7; 16]);
        let scopes = [
            Scope::token("i", "x"),
            Scope::session("i", "x"),
            Scope::subject("i", "x"),
            Scope::client("i", "x"),
            Scope::issuer("i"),
            Scope::issuer("ix"),
            Scope::token("ix", ""),
            Scope::token("", "ix"),
            Scope::subject_client("i", "xy", "z"),
            Scope::subject_client("i", "x", "yz"),
            Scope::client_session("i", "xy", "z"),
            Scope::client_session("i", "x", "yz"),
        ];
        for (n, a) in scopes.iter().enumerate() {
            for b in &scopes[n + 1..] {
                assert_ne!(hasher.key(a), hasher.key(b), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn keys_survive_their_bytes_and_unknown_kinds_do_not() {
        let key = ScopeHasher::random().key(&Scope::token("i", "x"));
        assert_eq!(ScopeKey::from_bytes(key.to_bytes()), Some(key));
        assert_eq!(key.kind(), ScopeKind::Token);
        let mut unknown = key.to_bytes();
        unknown[15] |= 0xF;
        assert_eq!(ScopeKey::from_bytes(unknown), None);
    }

    #[test]
    fn keys_depend_on_the_secret() {
        let scope = Scope::token("i", "x");
        assert_ne!(ScopeHasher::new([1; 16]).key(&scope), ScopeHasher::new([2; 16]).key(&scope));
    }
}
