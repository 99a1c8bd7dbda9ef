//! Keys, and what they are read from.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    constant_time,
    error::KeyRejected,
    hmac,
    io::Positive,
    rsa,
    signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    Epoch,
    algorithm::{Algorithm, Family},
};
use crate::token::strict::{Malformed, Members};

/// A key, or a set of keys, that cannot be used. Says nothing of the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// The file could not be read.
    Unreadable(std::io::ErrorKind),
    /// Larger than 1 MiB.
    TooLarge,
    /// Not one PEM block with a public key.
    Pem,
    /// A private key: whoever only verifies should not hold it.
    PrivateKey,
    /// Not a private key: neither PEM nor JWK.
    NotPrivate,
    /// Not a JWK or a JWK set (RFC 7517 §4, §5).
    Jwks,
    /// A public key of a kind, curve or size that is not supported.
    Unsupported,
    /// A secret of fewer than 16 bytes.
    SecretTooShort,
    /// HMAC secrets and public keys, or a secret with asymmetric algorithms, or the other way round.
    Mixed,
    /// No key that verifies signatures with an allowed algorithm.
    NoUsableKey,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreadable(kind) => {
                return write!(f, "the file could not be read ({kind}); check path and permissions");
            }
            Self::TooLarge => "it is larger than 1 MiB; it should hold public keys only",
            Self::Pem => {
                "it is not one PEM block \"PUBLIC KEY\" or \"RSA PUBLIC KEY\"; convert it with openssl -pubout"
            }
            Self::PrivateKey => "it holds a private key; give only the public one (openssl pkey -pubout)",
            Self::NotPrivate => "it holds no private key, neither as PEM (PKCS #8) nor as JWK (RFC 7517)",
            Self::Jwks => "it is not a JWK or JWK set (RFC 7517), or has a member twice",
            Self::Unsupported => "the key is none of RSA with 2048 to 8192 bits, P-256, P-384, Ed25519",
            Self::SecretTooShort => "the secret has fewer than 16 bytes; use as many random bytes as the hash has (32)",
            Self::Mixed => {
                "secrets and public keys do not go together; split them and their algorithms over two issuers"
            }
            Self::NoUsableKey => "no key in it fits an allowed algorithm; check kty, crv, alg, use and key_ops",
        })
    }
}

impl std::error::Error for KeyError {}

impl From<Malformed> for KeyError {
    fn from(_: Malformed) -> Self {
        Self::Jwks
    }
}

/// A key that verifies signatures.
pub(super) struct Key {
    kid: Option<Box<str>>,
    /// The only algorithm that it may be used with, where its JWK says so.
    alg: Option<Algorithm>,
    family: Family,
    key: Ready,
}

/// Parsed once: that alone costs a tenth of a verification.
enum Ready {
    Secret {
        secret: Zeroizing<Box<[u8]>>,
        keys: Box<[(Algorithm, hmac::Key)]>,
    },
    /// RSA keys are bound to hash and padding, so that there is one for each.
    Public(Box<[(Algorithm, ParsedPublicKey)]>),
}

impl Key {
    fn new(family: Family, key: Ready) -> Self {
        Self { kid: None, alg: None, family, key }
    }

    /// An HMAC secret.
    pub(super) fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        const SHORTEST: usize = 16;
        if secret.len() < SHORTEST {
            return Err(KeyError::SecretTooShort);
        }
        let keys = [
            (Algorithm::HS256, hmac::HMAC_SHA256),
            (Algorithm::HS384, hmac::HMAC_SHA384),
            (Algorithm::HS512, hmac::HMAC_SHA512),
        ];
        let keys = keys.map(|(alg, hash)| (alg, hmac::Key::new(hash, secret))).into();
        Ok(Self::new(Family::Hmac, Ready::Secret { secret: Zeroizing::new(secret.into()), keys }))
    }

    /// A public key in PEM: SubjectPublicKeyInfo, or RSAPublicKey.
    pub(super) fn pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = str::from_utf8(pem).map_err(|_| KeyError::Pem)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::PrivateKey);
        }
        if text.matches("-----BEGIN ").count() != 1 {
            return Err(KeyError::Pem);
        }
        let block = |label: &str| {
            let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
            rest.split_once(&format!("-----END {label}-----")).map(|(body, _)| body)
        };
        let mut body = block("PUBLIC KEY").or_else(|| block("RSA PUBLIC KEY")).ok_or(KeyError::Pem)?.to_owned();
        body.retain(|c| !c.is_ascii_whitespace());
        Self::der(&STANDARD.decode(body).map_err(|_| KeyError::Pem)?)
    }

    fn der(der: &[u8]) -> Result<Self, KeyError> {
        // What precedes the key in a SubjectPublicKeyInfo is fixed for each curve.
        const P256: &[u8] =
            b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
        const P384: &[u8] =
            b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00";
        const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
        if let Some(key) = der.strip_prefix(ED25519) {
            return Self::ed25519(key);
        }
        for (prefix, family, length) in [(P256, Family::P256, 32), (P384, Family::P384, 48)] {
            if let Some([4, point @ ..]) = der.strip_prefix(prefix)
                && point.len() == 2 * length
            {
                let (x, y) = point.split_at(length);
                return Self::ec(family, x, y);
            }
        }
        let key = rsa::PublicKey::from_der(der).map_err(|_| KeyError::Unsupported)?;
        let bytes = |number: Positive<'_>| number.big_endian_without_leading_zero().to_vec();
        Self::rsa(&bytes(key.modulus()), &bytes(key.exponent()))
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        fn trimmed(number: &[u8]) -> &[u8] {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            &number[zeros..]
        }
        let (n, e) = (trimmed(n), trimmed(e));
        let bits = n.first().map_or(0, |first| 8 * n.len() - first.leading_zeros() as usize);
        let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        if !(2048..=8192).contains(&bits) || !odd(n) || !odd(e) || e == [1] || e.len() > 4 {
            return Err(KeyError::Unsupported);
        }
        const ALGORITHMS: [(Algorithm, &RsaParameters); 6] = [
            (Algorithm::RS256, &signature::RSA_PKCS1_2048_8192_SHA256),
            (Algorithm::RS384, &signature::RSA_PKCS1_2048_8192_SHA384),
            (Algorithm::RS512, &signature::RSA_PKCS1_2048_8192_SHA512),
            (Algorithm::PS256, &signature::RSA_PSS_2048_8192_SHA256),
            (Algorithm::PS384, &signature::RSA_PSS_2048_8192_SHA384),
            (Algorithm::PS512, &signature::RSA_PSS_2048_8192_SHA512),
        ];
        let parse = |(alg, parameters)| Ok((alg, RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters)?));
        let keys: Result<_, KeyRejected> = ALGORITHMS.into_iter().map(parse).collect();
        Ok(Self::new(Family::Rsa, Ready::Public(keys.map_err(|_| KeyError::Unsupported)?)))
    }

    fn ec(family: Family, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let (alg, parameters, length): (_, &'static dyn VerificationAlgorithm, _) = match family {
            Family::P256 => (Algorithm::ES256, &signature::ECDSA_P256_SHA256_FIXED, 32),
            _ => (Algorithm::ES384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        };
        if x.len() != length || y.len() != length {
            return Err(KeyError::Unsupported);
        }
        Self::public(family, alg, parameters, &[&[4], x, y].concat())
    }

    fn ed25519(key: &[u8]) -> Result<Self, KeyError> {
        if key.len() != 32 {
            return Err(KeyError::Unsupported);
        }
        Self::public(Family::Ed25519, Algorithm::EdDSA, &signature::ED25519, key)
    }

    fn public(
        family: Family,
        alg: Algorithm,
        parameters: &'static dyn VerificationAlgorithm,
        key: &[u8],
    ) -> Result<Self, KeyError> {
        let key = ParsedPublicKey::new(parameters, key).map_err(|_| KeyError::Unsupported)?;
        Ok(Self::new(family, Ready::Public([(alg, key)].into())))
    }

    /// A JWK (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2), if it may be used to verify signatures.
    fn jwk(jwk: &Members<'_>) -> Result<Self, KeyError> {
        if jwk.string("use")?.is_some_and(|used| used != "sig") {
            return Err(KeyError::Unsupported);
        }
        if jwk.get::<Vec<String>>("key_ops")?.is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err(KeyError::Unsupported);
        }
        let bytes = |name| {
            let text = jwk.string(name)?.ok_or(KeyError::Unsupported)?;
            URL_SAFE_NO_PAD.decode(&*text).map(Zeroizing::new).map_err(|_| KeyError::Unsupported)
        };
        let kty = jwk.string("kty")?.ok_or(KeyError::Jwks)?;
        let mut key = match (&*kty, jwk.string("crv")?.as_deref()) {
            ("RSA", _) => Self::rsa(&bytes("n")?, &bytes("e")?),
            ("EC", Some("P-256")) => Self::ec(Family::P256, &bytes("x")?, &bytes("y")?),
            ("EC", Some("P-384")) => Self::ec(Family::P384, &bytes("x")?, &bytes("y")?),
            ("OKP", Some("Ed25519")) => Self::ed25519(&bytes("x")?),
            ("oct", _) => Self::secret(&bytes("k")?),
            _ => Err(KeyError::Unsupported),
        }?;
        key.kid = jwk.string("kid")?.map(|kid| kid.into());
        key.alg = jwk.string("alg")?.map(|alg| alg.parse()).transpose().map_err(|_| KeyError::Unsupported)?;
        match key.alg {
            Some(alg) if alg.family() != key.family => Err(KeyError::Unsupported),
            _ => Ok(key),
        }
    }

    fn fits(&self, alg: Algorithm) -> bool {
        self.family == alg.family() && self.alg.is_none_or(|only| only == alg)
    }

    /// Whether it made this signature.
    pub(super) fn verifies(&self, alg: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.fits(alg)
            && match &self.key {
                Ready::Secret { keys, .. } => {
                    keys.iter().any(|(of, key)| *of == alg && hmac::verify(key, message, signature).is_ok())
                }
                Ready::Public(keys) => {
                    keys.iter().any(|(of, key)| *of == alg && key.verify_sig(message, signature).is_ok())
                }
            }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let public = |keys: &[(Algorithm, ParsedPublicKey)]| keys.first().map(|(_, key)| key.as_ref().to_vec());
        let same = match (&self.key, &other.key) {
            (Ready::Secret { secret, .. }, Ready::Secret { secret: others, .. }) => {
                constant_time::verify_slices_are_equal(secret, others).is_ok()
            }
            (Ready::Public(keys), Ready::Public(others)) => public(keys) == public(others),
            _ => false,
        };
        same && self.kid == other.kid && self.alg == other.alg && self.family == other.family
    }
}

/// The keys from one source, at one time. Equal whatever the order.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// A document that is larger is not read.
    pub(super) const MAX_BYTES: usize = 1 << 20;

    /// A JWK set (RFC 7517 §5), without the keys that are not for verifying or not supported; or a single JWK.
    pub(super) fn jwks(json: &[u8]) -> Result<Self, KeyError> {
        let document = Members::parse(json)?;
        let Some(jwks) = document.get::<Vec<&RawValue>>("keys")? else {
            return Key::jwk(&document).map(|key| Self(vec![key]));
        };
        let usable = |jwk: &RawValue| Members::parse(jwk.get().as_bytes()).ok().and_then(|jwk| Key::jwk(&jwk).ok());
        Ok(Self(jwks.into_iter().filter_map(usable).collect()))
    }

    /// The set, if an issuer with these algorithms can use it.
    pub(super) fn checked(self, algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        let hmac = algorithms.iter().any(|alg| alg.is_hmac());
        if self.0.iter().any(|key| (key.family == Family::Hmac) != hmac) {
            return Err(KeyError::Mixed);
        }
        if !self.0.iter().any(|key| algorithms.iter().any(|alg| key.fits(*alg))) {
            return Err(KeyError::NoUsableKey);
        }
        Ok(self)
    }

    /// The set without secrets: what everybody can fetch is none.
    #[cfg(feature = "jwks-http")]
    pub(super) fn public(mut self) -> Self {
        self.0.retain(|key| key.family != Family::Hmac);
        self
    }

    /// The keys that may have signed: those of this `kid` and those without, or all if the token names none.
    pub(super) fn candidates(&self, alg: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| {
            let named = match (kid, key.kid.as_deref()) {
                (Some(kid), Some(of_key)) => kid == of_key,
                _ => true,
            };
            named && key.fits(alg)
        })
    }

    /// Whether a key has this id.
    pub(super) fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref() == Some(kid))
    }
}

impl From<Key> for KeySet {
    fn from(key: Key) -> Self {
        Self(vec![key])
    }
}

impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        let within = |a: &Self, b: &Self| a.0.iter().all(|key| b.0.contains(key));
        self.0.len() == other.0.len() && within(self, other) && within(other, self)
    }
}

/// The present keys of one source.
#[derive(Clone, Default)]
pub(super) struct LiveKeys(Arc<ArcSwap<KeySet>>);

impl LiveKeys {
    pub(super) fn new(keys: KeySet) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(keys)))
    }

    pub(super) fn load(&self) -> arc_swap::Guard<Arc<KeySet>> {
        self.0.load()
    }

    /// The same keys now, but apart from what becomes of these.
    #[cfg(feature = "jwks-http")]
    pub(super) fn fork(&self) -> Self {
        Self(Arc::new(ArcSwap::new(self.0.load_full())))
    }

    /// Puts other keys in their place. The epoch rises once they can be seen, and only if they are others.
    pub(super) fn replace(&self, keys: KeySet, epoch: &Epoch) {
        if **self.0.load() != keys {
            self.0.store(Arc::new(keys));
            epoch.bump();
        }
    }
}
