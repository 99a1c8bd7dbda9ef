//! Keys that sign what is issued here: status lists, logout tokens, answers and snapshots.

use std::{fmt, fs, io::Read as _, path::Path};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents},
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RsaEncoding,
    },
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    KeyError,
    algorithm::{Algorithm, Family},
};
use crate::token::strict::Members;

/// A private key that signs JWTs (RFC 7515): RSA of 2048 bits and more, P-256, P-384 or Ed25519.
///
/// It is wiped where this crate held it, and never printed. Whoever verifies needs [`SigningKey::public_jwk`].
pub struct SigningKey {
    kid: Box<str>,
    alg: Algorithm,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, Family),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A PEM block "PRIVATE KEY" (PKCS #8, RFC 5958), "RSA PRIVATE KEY" (RFC 8017) or "EC PRIVATE KEY" (RFC 5915), not
    /// encrypted. Its `kid` is its thumbprint (RFC 7638), and RSA signs with RS256.
    ///
    /// # Errors
    ///
    /// Where it is no such block, or a key of another kind.
    pub fn pem(pem: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let text = str::from_utf8(pem.as_ref()).map_err(|_| KeyError::Pem)?;
        let block = |label: &str| {
            let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
            let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
            let body = Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>());
            STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
        };
        let der = block("PRIVATE KEY").or_else(|| block("RSA PRIVATE KEY")).or_else(|| block("EC PRIVATE KEY"));
        Self::of(Pair::der(&der.ok_or(KeyError::NotPrivate)?)?)
    }

    /// A private JWK in JSON (RFC 7517 §4). Its `kid` and `alg` count where it has them.
    ///
    /// # Errors
    ///
    /// Where it is no private JWK, or a key of another kind.
    pub fn jwk(json: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let jwk = Members::parse(json.as_ref())?;
        let mut key = Self::of(Pair::jwk(&jwk)?)?;
        if let Some(kid) = jwk.string("kid")? {
            key.kid = kid.into();
        }
        match jwk.string("alg")? {
            Some(alg) => key.algorithm(alg.parse().map_err(|_| KeyError::Unsupported)?),
            None => Ok(key),
        }
    }

    /// A file with either of both.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, or holds something else.
    pub fn file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        const MOST: u64 = 64 << 10;
        let mut text = Zeroizing::new(Vec::new());
        fs::File::open(path)
            .and_then(|file| file.take(MOST).read_to_end(&mut text))
            .map_err(|error| KeyError::Unreadable(error.kind()))?;
        let is_json = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        if is_json { Self::jwk(&*text) } else { Self::pem(&*text) }
    }

    fn of(pair: Pair) -> Result<Self, KeyError> {
        let alg = match &pair {
            Pair::Rsa(_) => Algorithm::RS256,
            Pair::Ec(_, Family::P256) => Algorithm::ES256,
            Pair::Ec(..) => Algorithm::ES384,
            Pair::Ed25519(_) => Algorithm::EdDSA,
        };
        let kid = thumbprint(&pair.public()?).into();
        Ok(Self { kid, alg, pair })
    }

    /// Signs with this algorithm, where the key can: RSA has several.
    ///
    /// # Errors
    ///
    /// [`KeyError::Unsupported`] where it cannot.
    pub fn algorithm(mut self, alg: Algorithm) -> Result<Self, KeyError> {
        if alg.family() != self.alg.family() {
            return Err(KeyError::Unsupported);
        }
        self.alg = alg;
        Ok(self)
    }

    /// Names the key so, in the header of what it signs.
    #[must_use]
    pub fn with_kid(mut self, kid: impl Into<Box<str>>) -> Self {
        self.kid = kid.into();
        self
    }

    /// Its name in the header of what it signs.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it signs with.
    pub const fn alg(&self) -> Algorithm {
        self.alg
    }

    /// The public key as a JWK (RFC 7517 §4), for those who verify.
    pub fn public_jwk(&self) -> String {
        // It could be told when the key was made.
        let mut jwk = self.pair.public().unwrap_or_default();
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.alg.as_str());
        jwk["use"] = json!("sig");
        jwk.to_string()
    }

    /// A compact JWS (RFC 7515 §7.1) of this type (`typ`) over these claims in JSON.
    ///
    /// # Errors
    ///
    /// Where the library for cryptography refuses.
    pub fn sign(&self, typ: &str, payload: &[u8]) -> Result<String, SignError> {
        let header = json!({ "typ": typ, "alg": self.alg.as_str(), "kid": self.kid }).to_string();
        let mut jws = String::with_capacity((header.len() + payload.len()) * 4 / 3 + 700);
        URL_SAFE_NO_PAD.encode_string(header, &mut jws);
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut jws);
        let signature = self.signature(jws.as_bytes()).ok_or(SignError)?;
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jws);
        Ok(jws)
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let padding: &dyn RsaEncoding = match self.alg {
                    Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_SHA384,
                    Algorithm::PS512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).ok().map(|()| signature)
            }
            Pair::Ec(pair, _) => pair.sign(&random, message).ok().map(|signature| signature.as_ref().to_vec()),
            Pair::Ed25519(pair) => pair.try_sign(message).ok().map(|signature| signature.as_ref().to_vec()),
        }
    }
}

impl Pair {
    fn der(der: &[u8]) -> Result<Self, KeyError> {
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(pair));
        }
        for (family, scheme) in
            [(Family::P256, &ECDSA_P256_SHA256_FIXED_SIGNING), (Family::P384, &ECDSA_P384_SHA384_FIXED_SIGNING)]
        {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(scheme, der) {
                return Ok(Self::Ec(pair, family));
            }
        }
        let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
        pair.map(Self::Rsa).map_err(|_| KeyError::Unsupported)
    }

    /// A private JWK (RFC 7518 §6.2.2, §6.3.2, RFC 8037 §2).
    fn jwk(jwk: &Members<'_>) -> Result<Self, KeyError> {
        let bytes = |name| {
            let text = jwk.string(name)?.ok_or(KeyError::NotPrivate)?;
            URL_SAFE_NO_PAD.decode(&*text).map(Zeroizing::new).map_err(|_| KeyError::Unsupported)
        };
        let kty = jwk.string("kty")?.ok_or(KeyError::Jwks)?;
        let ec = |scheme, family, length: usize| {
            let (x, y, d) = (bytes("x")?, bytes("y")?, bytes("d")?);
            if x.len() != length || y.len() != length {
                return Err(KeyError::Unsupported);
            }
            let public = [&[4], x.as_slice(), y.as_slice()].concat();
            let pair = EcdsaKeyPair::from_private_key_and_public_key(scheme, &d, &public);
            pair.map(|pair| Self::Ec(pair, family)).map_err(|_| KeyError::Unsupported)
        };
        match (&*kty, jwk.string("crv")?.as_deref()) {
            ("EC", Some("P-256")) => ec(&ECDSA_P256_SHA256_FIXED_SIGNING, Family::P256, 32),
            ("EC", Some("P-384")) => ec(&ECDSA_P384_SHA384_FIXED_SIGNING, Family::P384, 48),
            ("OKP", Some("Ed25519")) => Ed25519KeyPair::from_seed_and_public_key(&bytes("d")?, &bytes("x")?)
                .map(Self::Ed25519)
                .map_err(|_| KeyError::Unsupported),
            ("RSA", _) => {
                let pair = RsaKeyPair::from_components(&KeyPairComponents {
                    public_key: PublicKeyComponents { n: bytes("n")?, e: bytes("e")? },
                    d: bytes("d")?,
                    p: bytes("p")?,
                    q: bytes("q")?,
                    dP: bytes("dp")?,
                    dQ: bytes("dq")?,
                    qInv: bytes("qi")?,
                });
                pair.map(Self::Rsa).map_err(|_| KeyError::Unsupported)
            }
            _ => Err(KeyError::Unsupported),
        }
    }

    /// The members of the public JWK that its thumbprint is made of (RFC 7638 §3.2).
    fn public(&self) -> Result<Value, KeyError> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let public = pair.public_key();
                if public.modulus_len() < 256 {
                    return Err(KeyError::Unsupported);
                }
                let (n, e) = (public.modulus(), public.exponent());
                let [n, e] = [n, e].map(|number| text(number.big_endian_without_leading_zero()));
                Ok(json!({ "e": e, "kty": "RSA", "n": n }))
            }
            Self::Ec(pair, family) => {
                let point = pair.public_key().as_ref();
                let (crv, length) = if *family == Family::P256 { ("P-256", 32) } else { ("P-384", 48) };
                let [4, coordinates @ ..] = point else { return Err(KeyError::Unsupported) };
                let (x, y) = coordinates.split_at_checked(length).ok_or(KeyError::Unsupported)?;
                Ok(json!({ "crv": crv, "kty": "EC", "x": text(x), "y": text(y) }))
            }
            Self::Ed25519(pair) => Ok(json!({ "crv": "Ed25519", "kty": "OKP", "x": text(pair.public_key().as_ref()) })),
        }
    }
}

/// RFC 7638: over the required members, in the order of their names, which is how they are kept and written here.
fn thumbprint(public: &Value) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(public.to_string()))
}

/// What the key is, never the key.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).field("alg", &self.alg).finish_non_exhaustive()
    }
}

/// The library for cryptography refused to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignError;

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signing key could not sign")
    }
}

impl std::error::Error for SignError {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::{encoding::AsDer, rsa::KeySize};

    use super::*;
    use crate::token::{Issuer, JwtVerifier, Keys, Verifier as _};

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn keys() -> Vec<SigningKey> {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa = pem("PRIVATE KEY", AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap().as_ref());
        let ec = |scheme| {
            let pair = EcdsaKeyPair::generate(scheme).unwrap();
            SigningKey::pem(pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref())).unwrap()
        };
        let ed = pem("PRIVATE KEY", Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap().as_ref());
        vec![
            SigningKey::pem(&rsa).unwrap(),
            SigningKey::pem(&rsa).unwrap().algorithm(Algorithm::PS256).unwrap(),
            ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            SigningKey::pem(ed).unwrap(),
        ]
    }

    #[test]
    fn what_is_signed_verifies_with_the_public_jwk() {
        for key in keys() {
            let issuer = Issuer::new("https://i").any_audience().algorithms([key.alg()]).require_typ("x+jwt");
            let verifier = JwtVerifier::builder().issuer(issuer.keys(Keys::jwks(key.public_jwk()))).build().unwrap();
            let claims = br#"{"iss":"https://i","jti":"a","iat":1700000000,"exp":1700000600}"#;
            let token = key.sign("x+jwt", claims).unwrap();
            assert!(verifier.verify(&token, 1_700_000_001).is_ok(), "{:?}", key.alg());
            assert!(verifier.verify(&key.sign("y+jwt", claims).unwrap(), 1_700_000_001).is_err());
        }
    }

    #[test]
    fn a_private_jwk_is_read() {
        // RFC 8037 §A.1 to §A.3, RFC 7517 §A.2.
        let ed = SigningKey::jwk(
            r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
                "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        )
        .unwrap();
        assert_eq!(ed.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let ec = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE","kid":"1"}"#;
        assert_eq!(SigningKey::jwk(ec).unwrap().kid(), "1");
        for bad in [
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            r#"{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}"#,
            "{}",
        ] {
            assert!(SigningKey::jwk(bad).is_err(), "{bad}");
        }
        assert!(SigningKey::pem("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----").is_err());
        assert!(!format!("{ed:?}").contains("nWGx"));
        assert!(!ed.public_jwk().contains("nWGx"));
    }
}
