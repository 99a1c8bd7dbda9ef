use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{OpaqueDigest, StatusClaim, StatusKept, StatusRef};
use crate::{
    revocation::{Scope, ScopeHasher, ScopeKey, ScopeKind},
    rollout::Place,
};

/// What revocation needs to know of one token, borrowed from wherever its verified claims are.
///
/// ```
/// use tower_revocation::token::Claims;
///
/// let claims = Claims::new("https://issuer.example/").jti("7f2c").sub("alice").iat(1_700_000_000).exp(1_700_000_600);
/// assert_eq!(claims.sub, Some("alice"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claims<'a> {
    /// Issuer, compared byte for byte.
    pub iss: &'a str,
    /// Token id, unique for its issuer (RFC 7519 §4.1.7).
    pub jti: Option<&'a str>,
    /// SHA-256 of the JWT's signing input, for one without `jti`.
    pub signing_input: Option<[u8; 32]>,
    /// Keyed digest of an opaque token.
    pub opaque: Option<&'a OpaqueDigest>,
    /// Session id (OpenID Connect Back-Channel Logout §2.1).
    pub sid: Option<&'a str>,
    /// Subject.
    pub sub: Option<&'a str>,
    /// Client (RFC 9068 §2.2).
    pub client_id: Option<&'a str>,
    /// What the token was granted, separated by spaces (RFC 9068 §2.2.3, RFC 8693 §4.2).
    pub scope: Option<&'a str>,
    /// When it was issued (Unix seconds).
    pub iat: Option<u64>,
    /// When the user last authenticated (Unix seconds).
    pub auth_time: Option<u64>,
    /// When it expires (Unix seconds).
    pub exp: Option<u64>,
    /// Where its status is told (draft-ietf-oauth-status-list §6).
    pub status: StatusClaim<'a>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {$(
        $(#[$doc])*
        #[must_use]
        pub const fn $name(mut self, $name: $type) -> Self {
            self.$name = Some($name);
            self
        }
    )*};
}

impl<'a> Claims<'a> {
    /// The claims of a token of this issuer.
    pub const fn new(iss: &'a str) -> Self {
        Self {
            iss,
            jti: None,
            signing_input: None,
            opaque: None,
            sid: None,
            sub: None,
            client_id: None,
            scope: None,
            iat: None,
            auth_time: None,
            exp: None,
            status: StatusClaim::Missing,
        }
    }

    /// Says that its status is at this index of the status list with this URI.
    #[must_use]
    pub const fn status_list(mut self, uri: &'a str, idx: u64) -> Self {
        self.status = StatusClaim::List(StatusRef { uri, idx });
        self
    }

    setters! {
        /// Sets `jti`.
        jti: &'a str,
        /// Sets the SHA-256 of the signing input.
        signing_input: [u8; 32],
        /// Sets the digest of an opaque token.
        opaque: &'a OpaqueDigest,
        /// Sets `sid`.
        sid: &'a str,
        /// Sets `sub`.
        sub: &'a str,
        /// Sets `client_id`.
        client_id: &'a str,
        /// Sets `scope`.
        scope: &'a str,
        /// Sets `iat` (Unix seconds).
        iat: u64,
        /// Sets `auth_time` (Unix seconds).
        auth_time: u64,
        /// Sets `exp` (Unix seconds).
        exp: u64,
    }

    /// The scope of this one token: by `jti`, else by its signing input, else by its digest.
    pub fn token_scope(&self) -> Option<Scope> {
        match (self.jti, self.signing_input, self.opaque) {
            (Some(jti), ..) => Some(Scope::token(self.iss, jti)),
            (None, Some(sha256), _) => Some(Scope::signing_input(self.iss, sha256)),
            (None, None, Some(digest)) => Some(Scope::opaque_token(digest.clone())),
            (None, None, None) => None,
        }
    }

    /// The keys of every scope that the token is in.
    pub fn keys(&self, hasher: &ScopeHasher) -> ScopeKeys {
        self.keys_among(hasher, u32::MAX)
    }

    /// The keys of those scopes whose kind has its bit in `kinds`: no other can be held, and each costs a hash.
    pub(crate) fn keys_among(&self, hasher: &ScopeHasher, kinds: u32) -> ScopeKeys {
        let wanted = |kind: ScopeKind| kinds & (1 << kind as u32) != 0;
        let issuer = hasher.issuer_of(self.iss);
        let mut keys = ScopeKeys {
            keys: [0; ScopeKeys::PLACES],
            count: 0,
            kinds: 0,
            clear: AtomicU64::new(0),
            iat: self.iat.unwrap_or(ScopeKeys::NONE),
            since: match (self.iat, self.auth_time) {
                (Some(iat), Some(auth_time)) => iat.min(auth_time),
                (iat, auth_time) => iat.or(auth_time).unwrap_or(ScopeKeys::NONE),
            },
        };
        match (self.jti, &self.signing_input, self.opaque) {
            (Some(jti), ..) if wanted(ScopeKind::Token) => keys.put(issuer.key(ScopeKind::Token, &[jti.as_bytes()])),
            (None, Some(sha256), _) if wanted(ScopeKind::SigningInput) => {
                keys.put(issuer.key(ScopeKind::SigningInput, &[sha256]));
            }
            (None, None, Some(digest)) if wanted(ScopeKind::OpaqueToken) => keys.put(hasher.opaque(digest)),
            _ => {}
        }
        let pairs = [
            (ScopeKind::Session, ScopeKind::ClientSession, self.sid),
            (ScopeKind::Subject, ScopeKind::SubjectClient, self.sub),
        ];
        for (kind, with_client, value) in pairs {
            let Some(value) = value else { continue };
            if wanted(kind) {
                keys.put(issuer.key(kind, &[value.as_bytes()]));
            }
            if let (true, Some(client_id)) = (wanted(with_client), self.client_id) {
                keys.put(issuer.key(with_client, &[value.as_bytes(), client_id.as_bytes()]));
            }
        }
        if let (true, Some(client_id)) = (wanted(ScopeKind::Client), self.client_id) {
            keys.put(issuer.key(ScopeKind::Client, &[client_id.as_bytes()]));
        }
        if wanted(ScopeKind::Issuer) {
            keys.put(issuer.key(ScopeKind::Issuer, &[]));
        }
        keys
    }
}

/// The keys under which one token can be revoked, made once and looked up on every request.
///
/// They remember under which generation of a denylist nothing covered them: until something changes there, a check is
/// one comparison.
pub struct ScopeKeys {
    keys: [u128; Self::PLACES],
    /// The last generation under which they were found clear; 0: never looked. No two denylists share one.
    clear: AtomicU64,
    /// How many places hold a key.
    count: u32,
    /// A bit for each kind among them.
    kinds: u32,
    iat: u64,
    since: u64,
}

impl ScopeKeys {
    /// One token key, two session keys, two subject keys, client, issuer.
    ///
    /// And what an issuer says of an opaque token, which has two digests while their key is changed.
    const PLACES: usize = if cfg!(feature = "introspection") { 9 } else { 7 };
    /// No time is known.
    const NONE: u64 = u64::MAX;

    fn put(&mut self, key: ScopeKey) {
        self.keys[self.count as usize] = key.as_u128();
        self.count += 1;
        self.kinds |= 1 << key.kind() as u32;
    }

    /// A bit for each kind of scope that the token is in.
    #[inline]
    pub(crate) const fn kinds(&self) -> u32 {
        self.kinds
    }

    /// The keys whose kind has its bit in `kinds`, and their places.
    #[inline]
    pub(crate) fn among(&self, kinds: u32) -> impl Iterator<Item = (u32, u128)> + Clone + '_ {
        (0..self.count)
            .zip(&self.keys)
            .map(|(place, key)| (place, *key))
            .filter(move |(_, key)| kinds & ScopeKey::kind_bit(*key) != 0)
    }

    /// Whether nothing covered them under this generation.
    #[inline]
    pub(crate) fn are_clear(&self, generation: u64) -> bool {
        self.clear.load(Ordering::Relaxed) == generation
    }

    /// Remembers that nothing did; the generation was read before looking.
    #[inline]
    pub(crate) fn set_clear(&self, generation: u64) {
        self.clear.store(generation, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) const fn at(&self, place: u32) -> u128 {
        self.keys[place as usize]
    }

    /// The same keys, as far as their kind has its bit in `kinds`.
    #[cfg(feature = "streams")]
    pub(crate) fn only(&self, kinds: u32) -> Self {
        let clear = AtomicU64::new(0);
        let mut keys = Self { keys: [0; Self::PLACES], clear, count: 0, kinds: 0, iat: self.iat, since: self.since };
        self.among(kinds).for_each(|(_, key)| keys.put(ScopeKey::from_u128(key)));
        keys
    }

    /// Takes in the keys of another name of the same token, as far as there is room.
    #[cfg(feature = "streams")]
    pub(crate) fn join(&mut self, other: &Self) {
        self.clear = AtomicU64::new(0);
        for (_, key) in other.among(u32::MAX) {
            if (self.count as usize) < Self::PLACES && !self.keys.contains(&key) {
                self.put(ScopeKey::from_u128(key));
            }
        }
    }

    /// Where its user stands in a roll-out; without one its session, without that the token. All of its keys must be here.
    pub(crate) fn place(&self) -> Option<Place> {
        let keys = || self.keys[..self.count as usize].iter();
        let of = |kind| keys().find(|key| ScopeKey::from_u128(**key).kind() == kind);
        let kinds =
            [ScopeKind::Subject, ScopeKind::Session, ScopeKind::Token, ScopeKind::SigningInput, ScopeKind::OpaqueToken];
        kinds.into_iter().find_map(of).map(|key| Place::of(*key))
    }

    /// The same but for the keys whose kind has its bit in `kinds`.
    pub(crate) fn without(&self, kinds: u32) -> Self {
        let (iat, since) = (self.iat, self.since);
        // Whether these are clear says nothing of all of them.
        let mut rest = Self { keys: [0; Self::PLACES], clear: AtomicU64::new(0), count: 0, kinds: 0, iat, since };
        self.among(!kinds).for_each(|(_, key)| rest.put(ScopeKey::from_u128(key)));
        rest
    }

    /// Whom the token is for: its user, or its client where it names none.
    pub(crate) fn source(&self) -> Option<ScopeKey> {
        let keys = || self.keys[..self.count as usize].iter().map(|key| ScopeKey::from_u128(*key));
        let of = |kind| keys().find(|key| key.kind() == kind);
        of(ScopeKind::Subject).or_else(|| of(ScopeKind::Client)).or_else(|| keys().next())
    }

    /// Whether they say when the token was issued.
    #[inline]
    pub(crate) const fn have_times(&self) -> bool {
        self.iat != Self::NONE
    }

    /// The time to hold against a cutoff of this kind: `iat`, or the earlier `auth_time` where a refresh must not help.
    #[inline]
    pub(crate) const fn issued(&self, kind: ScopeKind) -> Option<u64> {
        let time = if kind.compares_auth_time() { self.since } else { self.iat };
        if time == Self::NONE { None } else { Some(time) }
    }
}

impl Clone for ScopeKeys {
    fn clone(&self) -> Self {
        let Self { keys, clear, count, kinds, iat, since } = self;
        let clear = AtomicU64::new(clear.load(Ordering::Relaxed));
        Self { keys: *keys, clear, count: *count, kinds: *kinds, iat: *iat, since: *since }
    }
}

impl fmt::Debug for ScopeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopeKeys").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Verified claims of any type, as the layer reads them from a request's extensions.
///
/// Implement it for the claims type that your verification layer inserts. What it returns must come from
/// a *verified* token.
///
/// ```
/// use tower_revocation::token::{Claims, VerifiedClaims};
///
/// #[derive(Clone)]
/// struct MyClaims { iss: String, jti: String, sub: String, iat: u64, exp: u64 }
///
/// impl VerifiedClaims for MyClaims {
///     fn claims(&self) -> Claims<'_> {
///         Claims::new(&self.iss).jti(&self.jti).sub(&self.sub).iat(self.iat).exp(self.exp)
///     }
/// }
/// ```
pub trait VerifiedClaims: Send + Sync + 'static {
    /// The claims.
    fn claims(&self) -> Claims<'_>;

    /// The keys, where they were made before with this hasher; else they are made for each request.
    fn keys(&self, hasher: &ScopeHasher) -> Option<&ScopeKeys> {
        let _ = hasher;
        None
    }
}

impl<T: VerifiedClaims> VerifiedClaims for Arc<T> {
    fn claims(&self) -> Claims<'_> {
        (**self).claims()
    }

    fn keys(&self, hasher: &ScopeHasher) -> Option<&ScopeKeys> {
        (**self).keys(hasher)
    }
}

/// What revocation needs to know of one verified token.
///
/// Made by a verifier, or from claims that something else has verified. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    iss: Box<str>,
    jti: Option<Box<str>>,
    signing_input: Option<[u8; 32]>,
    opaque: Option<OpaqueDigest>,
    sid: Option<Box<str>>,
    sub: Option<Box<str>>,
    client_id: Option<Box<str>>,
    scope: Option<Box<str>>,
    iat: Option<u64>,
    auth_time: Option<u64>,
    exp: Option<u64>,
    status: StatusKept,
    keys: Option<(ScopeHasher, ScopeKeys)>,
}

impl Identity {
    /// Takes over claims that have been verified.
    pub fn from_verified(claims: &Claims<'_>) -> Self {
        Self::build(claims, None)
    }

    /// The same, with its keys made ahead for the denylist of this hasher ([`Denylist::hasher`]).
    ///
    /// [`Denylist::hasher`]: crate::denylist::Denylist::hasher
    pub fn with_keys(claims: &Claims<'_>, hasher: &ScopeHasher) -> Self {
        Self::build(claims, Some((hasher.clone(), claims.keys(hasher))))
    }

    fn build(claims: &Claims<'_>, keys: Option<(ScopeHasher, ScopeKeys)>) -> Self {
        Self(Arc::new(Inner {
            iss: claims.iss.into(),
            jti: claims.jti.map(Into::into),
            signing_input: claims.signing_input,
            opaque: claims.opaque.cloned(),
            sid: claims.sid.map(Into::into),
            sub: claims.sub.map(Into::into),
            client_id: claims.client_id.map(Into::into),
            scope: claims.scope.map(Into::into),
            iat: claims.iat,
            auth_time: claims.auth_time,
            exp: claims.exp,
            status: claims.status.into(),
            keys,
        }))
    }

    /// The issuer; empty for an opaque token.
    pub fn iss(&self) -> &str {
        &self.0.iss
    }

    /// The token's id.
    pub fn jti(&self) -> Option<&str> {
        self.0.jti.as_deref()
    }

    /// The session's id.
    pub fn sid(&self) -> Option<&str> {
        self.0.sid.as_deref()
    }

    /// The subject.
    pub fn sub(&self) -> Option<&str> {
        self.0.sub.as_deref()
    }

    /// The client.
    pub fn client_id(&self) -> Option<&str> {
        self.0.client_id.as_deref()
    }

    /// What it was granted, separated by spaces.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope.as_deref()
    }

    /// When it was issued (Unix seconds).
    pub fn iat(&self) -> Option<u64> {
        self.0.iat
    }

    /// When the user last authenticated (Unix seconds).
    pub fn auth_time(&self) -> Option<u64> {
        self.0.auth_time
    }

    /// When it expires (Unix seconds).
    pub fn exp(&self) -> Option<u64> {
        self.0.exp
    }

    /// Where its status is told.
    pub fn status(&self) -> StatusClaim<'_> {
        self.0.status.as_claim()
    }
}

impl VerifiedClaims for Identity {
    fn claims(&self) -> Claims<'_> {
        Claims {
            iss: &self.0.iss,
            jti: self.jti(),
            signing_input: self.0.signing_input,
            opaque: self.0.opaque.as_ref(),
            sid: self.sid(),
            sub: self.sub(),
            client_id: self.client_id(),
            scope: self.scope(),
            iat: self.0.iat,
            auth_time: self.0.auth_time,
            exp: self.0.exp,
            status: self.status(),
        }
    }

    #[inline]
    fn keys(&self, hasher: &ScopeHasher) -> Option<&ScopeKeys> {
        self.0.keys.as_ref().filter(|(made_with, _)| made_with == hasher).map(|(_, keys)| keys)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.claims(), f)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.claims() == other.claims()
    }
}

impl Eq for Identity {}
