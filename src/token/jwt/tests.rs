#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests are to be read")]

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents},
};
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::token::VerifiedClaims as _;

const ISS: &str = "https://issuer.example/";
const AUD: &str = "https://api.example/";
const NOW: u64 = 1_700_000_000;

/// A private key that tests sign with.
enum Signer {
    Hmac(Vec<u8>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair, Algorithm),
    Ed(Ed25519KeyPair),
}

static RSA: LazyLock<Signer> = LazyLock::new(Signer::rsa);
static RSA2: LazyLock<Signer> = LazyLock::new(Signer::rsa);

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn ec(alg: Algorithm) -> Self {
        let scheme = match alg {
            Algorithm::ES384 => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        };
        Self::Ec(EcdsaKeyPair::generate(scheme).unwrap(), alg)
    }

    fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn sign(&self, alg: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(secret) => {
                let scheme = match alg {
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    Algorithm::HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(scheme, secret), message).as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match alg {
                    Algorithm::RS384 => &signature::RSA_PKCS1_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_SHA384,
                    Algorithm::PS512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair, _) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    fn jwk(&self) -> Value {
        match self {
            Self::Hmac(secret) => json!({"kty": "oct", "k": b64(secret)}),
            Self::Rsa(pair) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": b64(&n), "e": b64(&e)})
            }
            Self::Ec(pair, alg) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let crv = if *alg == Algorithm::ES384 { "P-384" } else { "P-256" };
                json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y)})
            }
            Self::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())}),
        }
    }

    fn jwk_with(&self, more: Value) -> Value {
        with(self.jwk(), more)
    }

    fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Hmac(_) => unreachable!("a secret has no public key"),
            Self::Rsa(pair) => pair.public_key().as_der().unwrap(),
            Self::Ec(pair, _) => pair.public_key().as_der().unwrap(),
            Self::Ed(pair) => pair.public_key().as_der().unwrap(),
        };
        pem("PUBLIC KEY", der.as_ref())
    }

    /// A token with these raw parts.
    fn raw(&self, alg: Algorithm, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
        let signature = self.sign(alg, input.as_bytes());
        format!("{input}.{}", b64(&signature))
    }

    fn token(&self, alg: Algorithm, header: Value, payload: Value) -> String {
        let header = with(json!({"alg": alg.as_str()}), header);
        self.raw(alg, &header.to_string(), &payload.to_string())
    }

    /// An RS256 token with these claims instead of the usual ones.
    fn claims(&self, claims: Value) -> String {
        self.token(Algorithm::RS256, json!({}), with(claims_ok(), claims))
    }

    /// An RS256 token with these header parameters besides `alg`.
    fn header(&self, header: Value) -> String {
        self.token(Algorithm::RS256, header, claims_ok())
    }
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn claims_ok() -> Value {
    json!({"iss": ISS, "aud": AUD, "jti": "7f2c", "sub": "alice", "iat": NOW - 10, "exp": NOW + 600})
}

/// Sets members; null removes.
fn with(mut base: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(name)),
            _ => base[name] = value.clone(),
        }
    }
    base
}

fn issuer() -> Issuer {
    Issuer::new(ISS).audience([AUD]).algorithms([Algorithm::RS256])
}

fn build(issuer: Issuer) -> Result<JwtVerifier, JwtConfigError> {
    JwtVerifier::builder().issuer(issuer).build()
}

fn rsa_verifier() -> JwtVerifier {
    build(issuer().keys(Keys::pem(RSA.pem()))).unwrap()
}

fn judge(verifier: &JwtVerifier, token: &str) -> Result<(), VerifyError> {
    verifier.verify(token, NOW).map(drop)
}

#[test]
fn every_algorithm() {
    let secret = || Signer::Hmac(vec![7; 64]);
    type Make<'a> = &'a dyn Fn() -> Signer;
    let cases: [(Algorithm, Make<'_>); 6] = [
        (Algorithm::HS256, &secret),
        (Algorithm::HS384, &secret),
        (Algorithm::HS512, &secret),
        (Algorithm::ES256, &|| Signer::ec(Algorithm::ES256)),
        (Algorithm::ES384, &|| Signer::ec(Algorithm::ES384)),
        (Algorithm::EdDSA, &Signer::ed),
    ];
    let check = |alg: Algorithm, signer: &Signer, other: &Signer| {
        let mut keys = vec![Keys::jwks(jwks(&[signer.jwk()])), Keys::jwks(signer.jwk().to_string())];
        keys.push(match signer {
            Signer::Hmac(secret) => Keys::secret(secret.clone()),
            _ => Keys::pem(signer.pem()),
        });
        for keys in keys {
            let verifier = build(issuer().algorithms([alg]).keys(keys.clone())).unwrap();
            let good = signer.token(alg, json!({}), claims_ok());
            let identity = verifier.verify(&good, NOW).unwrap_or_else(|error| panic!("{alg} {keys:?} {error}"));
            assert_eq!((identity.iss(), identity.jti(), identity.sub()), (ISS, Some("7f2c"), Some("alice")));
            assert_eq!((identity.iat(), identity.exp()), (Some(NOW - 10), Some(NOW + 600)));
            let forged = other.token(alg, json!({}), claims_ok());
            assert_eq!(judge(&verifier, &forged), Err(VerifyError::Signature), "{alg}");
            let (input, _) = good.rsplit_once('.').unwrap();
            assert_eq!(judge(&verifier, &format!("{input}.")), Err(VerifyError::Signature), "{alg}");
            // The signature of one payload does not carry another.
            let (_, signature) = good.rsplit_once('.').unwrap();
            let other = signer.token(alg, json!({}), with(claims_ok(), json!({"sub": "bob"})));
            let spliced = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
            assert_eq!(judge(&verifier, &spliced), Err(VerifyError::Signature), "{alg}");
        }
    };
    for (alg, signer) in cases {
        let other = if alg.is_hmac() { Signer::Hmac(vec![8; 64]) } else { signer() };
        check(alg, &signer(), &other);
    }
    for alg in Algorithm::ALL.into_iter().filter(|alg| alg.family() == algorithm::Family::Rsa) {
        check(alg, &RSA, &RSA2);
    }
}

#[test]
fn names_of_algorithms() {
    for alg in Algorithm::ALL {
        assert_eq!(alg.as_str().parse(), Ok(alg));
    }
    for bad in ["none", "None", "NONE", "hs256", "", "RSA-OAEP", "ES512"] {
        assert!(bad.parse::<Algorithm>().is_err(), "{bad}");
    }
}

#[test]
fn alg_none_and_foreign_algorithms() {
    let verifier = rsa_verifier();
    for alg in ["none", "None", "nOnE", "RS384", "PS256", "HS256", "ES256", "XX"] {
        let header = json!({ "alg": alg }).to_string();
        let token = RSA.raw(Algorithm::RS256, &header, &claims_ok().to_string());
        assert_eq!(judge(&verifier, &token), Err(VerifyError::Algorithm), "{alg}");
        let unsigned = format!("{}.{}.", b64(header.as_bytes()), b64(claims_ok().to_string().as_bytes()));
        assert_eq!(judge(&verifier, &unsigned), Err(VerifyError::Algorithm), "{alg}");
    }
    for header in [json!({"alg": null}), json!({"alg": 5}), json!({"alg": ["RS256"]}), json!({"alg": ""})] {
        assert_eq!(judge(&verifier, &RSA.header(header.clone())), Err(VerifyError::Malformed), "{header}");
    }
}

/// The public key, as everybody has it, taken for an HMAC secret.
#[test]
fn algorithm_confusion() {
    let pem = RSA.pem();
    let forge = |secret: &[u8]| Signer::Hmac(secret.to_vec()).token(Algorithm::HS256, json!({}), claims_ok());
    let verifier = rsa_verifier();
    assert_eq!(judge(&verifier, &forge(pem.as_bytes())), Err(VerifyError::Algorithm));
    assert_eq!(judge(&verifier, &forge(pem.trim().as_bytes())), Err(VerifyError::Algorithm));
    // Not even an issuer with HMAC could take it: such a pair cannot be configured.
    let mixed = build(issuer().algorithms([Algorithm::RS256, Algorithm::HS256]).keys(Keys::pem(pem.clone())));
    assert_eq!(mixed.unwrap_err(), JwtConfigError::MixedAlgorithms { iss: ISS.into() });
    for (alg, keys) in [(Algorithm::HS256, Keys::pem(pem.clone())), (Algorithm::RS256, Keys::secret([1; 32]))] {
        let error = build(issuer().algorithms([alg]).keys(keys)).unwrap_err();
        assert!(matches!(error, JwtConfigError::Keys { source: KeyError::Mixed, .. }), "{error}");
    }
    let both = jwks(&[RSA.jwk(), Signer::Hmac(vec![1; 32]).jwk()]);
    let error = build(issuer().keys(Keys::jwks(both))).unwrap_err();
    assert!(matches!(error, JwtConfigError::Keys { source: KeyError::Mixed, .. }), "{error}");
    // And the key itself knows what it is for, whatever the allow-list says.
    let key = Key::pem(pem.as_bytes()).unwrap();
    let input = "e30.e30";
    assert!(!key.verifies(
        Algorithm::HS256,
        input.as_bytes(),
        &Signer::Hmac(pem.into_bytes()).sign(Algorithm::HS256, b"e30.e30")
    ));
    assert!(key.verifies(Algorithm::RS256, input.as_bytes(), &RSA.sign(Algorithm::RS256, b"e30.e30")));
}

#[test]
fn configuration() {
    let secret = || Keys::secret([1; 32]);
    let hs = || issuer().algorithms([Algorithm::HS256]);
    let iss = || ISS.to_owned();
    assert_eq!(JwtVerifier::builder().build().unwrap_err(), JwtConfigError::NoIssuer);
    let unnamed = Issuer::new("").any_audience().algorithms([Algorithm::HS256]).keys(secret());
    assert_eq!(build(unnamed).unwrap_err(), JwtConfigError::EmptyIssuer);
    let twice = JwtVerifier::builder().issuer(hs().keys(secret())).issuer(hs().keys(secret())).build();
    assert_eq!(twice.unwrap_err(), JwtConfigError::DuplicateIssuer { iss: iss() });
    let no_audience = Issuer::new(ISS).algorithms([Algorithm::HS256]).keys(secret());
    assert_eq!(build(no_audience).unwrap_err(), JwtConfigError::NoAudience { iss: iss() });
    assert_eq!(build(hs().algorithms([]).keys(secret())).unwrap_err(), JwtConfigError::NoAlgorithm { iss: iss() });
    assert_eq!(build(hs()).unwrap_err(), JwtConfigError::NoKeys { iss: iss() });

    let refused = |keys: Keys, issuer: Issuer| match build(issuer.keys(keys)).unwrap_err() {
        JwtConfigError::Keys { source, .. } => source,
        error => panic!("{error}"),
    };
    assert_eq!(refused(Keys::secret([1; 15]), hs()), KeyError::SecretTooShort);
    assert!(build(hs().keys(Keys::secret([1; 16]))).is_ok());
    assert_eq!(refused(Keys::jwks("{"), issuer()), KeyError::Jwks);
    assert_eq!(refused(Keys::jwks("[]"), issuer()), KeyError::Jwks);
    assert_eq!(refused(Keys::jwks(r#"{"keys":{}}"#), issuer()), KeyError::Jwks);
    assert_eq!(refused(Keys::jwks(r#"{"keys":[],"keys":[]}"#), issuer()), KeyError::Jwks);
    assert_eq!(refused(Keys::jwks(jwks(&[])), issuer()), KeyError::NoUsableKey);
    let missing = refused(Keys::jwks_file("/nowhere/keys.json"), issuer());
    assert_eq!(missing, KeyError::Unreadable(std::io::ErrorKind::NotFound));
    assert_eq!(refused(Keys::pem(Signer::ed().pem()), issuer()), KeyError::NoUsableKey);
    assert_eq!(refused(Keys::pem("no key"), issuer()), KeyError::Pem);
    assert_eq!(refused(Keys::pem([RSA.pem(), RSA2.pem()].concat()), issuer()), KeyError::Pem);
    assert_eq!(refused(Keys::pem(pem("CERTIFICATE", b"x")), issuer()), KeyError::Pem);
    assert_eq!(refused(Keys::pem(pem("PUBLIC KEY", b"x")), issuer()), KeyError::Unsupported);
    assert_eq!(refused(Keys::pem(pem("RSA PRIVATE KEY", b"x")), issuer()), KeyError::PrivateKey);
    let Signer::Rsa(pair) = &*RSA else { unreachable!() };
    assert!(build(issuer().keys(Keys::pem(pem("RSA PUBLIC KEY", pair.public_key().as_ref())))).is_ok());
}

/// What a JWK says of its use is honoured, and what cannot be used is passed over.
#[test]
fn jwk_members() {
    let usable =
        |jwk: Value| build(issuer().algorithms([Algorithm::RS256, Algorithm::ES256]).keys(Keys::jwks(jwks(&[jwk]))));
    let rsa = |more| RSA.jwk_with(more);
    let ec = Signer::ec(Algorithm::ES256);
    for good in [
        rsa(json!({})),
        rsa(json!({"use": "sig", "key_ops": ["verify"], "alg": "RS256", "kid": "1", "x5t": "abc"})),
        rsa(json!({"key_ops": ["sign", "verify"]})),
        ec.jwk(),
        ec.jwk_with(json!({"alg": "ES256"})),
    ] {
        assert!(usable(good.clone()).is_ok(), "{good}");
    }
    for bad in [
        rsa(json!({"use": "enc"})),
        rsa(json!({"use": 5})),
        rsa(json!({"key_ops": ["encrypt"]})),
        rsa(json!({"key_ops": []})),
        rsa(json!({"key_ops": "verify"})),
        rsa(json!({"alg": "RSA-OAEP"})),
        rsa(json!({"alg": "ES256"})),
        rsa(json!({"alg": "HS256"})),
        rsa(json!({"alg": "RS512"})), // usable, but not for an allowed algorithm
        rsa(json!({"kty": "EC"})),
        rsa(json!({"kid": 7})),
        rsa(json!({"n": null})),
        rsa(json!({"n": b64(&[0xff; 128])})), // 1024 bits
        rsa(json!({"e": b64(&[1])})),
        rsa(json!({"e": b64(&[2])})),
        ec.jwk_with(json!({"crv": "P-384"})),
        ec.jwk_with(json!({"crv": "secp256k1"})),
        ec.jwk_with(json!({"crv": "P-521"})),
        ec.jwk_with(json!({"x": b64(&[1; 31])})),
        json!({"kty": "OKP", "crv": "Ed448", "x": b64(&[1; 57])}),
        json!({"kty": "AKP", "alg": "ML-DSA-65"}),
        json!("no object"),
    ] {
        let error = usable(bad.clone()).unwrap_err();
        assert!(matches!(error, JwtConfigError::Keys { source: KeyError::NoUsableKey, .. }), "{bad}");
    }
    // An odd key does not spoil the set, and does not become usable by it.
    let set = jwks(&[json!("odd"), RSA2.jwk_with(json!({"use": "enc"})), RSA.jwk_with(json!({"kid": "1"}))]);
    let verifier = build(issuer().keys(Keys::jwks(set))).unwrap();
    assert_eq!(judge(&verifier, &RSA.header(json!({}))), Ok(()));
    assert_eq!(judge(&verifier, &RSA2.header(json!({}))), Err(VerifyError::Signature));
    // A key's `alg` binds tokens too.
    let set = jwks(&[RSA.jwk_with(json!({"alg": "RS256"})), RSA2.jwk_with(json!({"alg": "PS256"}))]);
    let verifier = build(issuer().algorithms([Algorithm::RS256, Algorithm::PS256]).keys(Keys::jwks(set))).unwrap();
    let judge_alg = |signer: &Signer, alg| judge(&verifier, &signer.token(alg, json!({}), claims_ok()));
    assert_eq!(judge_alg(&RSA, Algorithm::RS256), Ok(()));
    assert_eq!(judge_alg(&RSA, Algorithm::PS256), Err(VerifyError::Signature));
    assert_eq!(judge_alg(&RSA2, Algorithm::PS256), Ok(()));
    assert_eq!(judge_alg(&RSA2, Algorithm::RS256), Err(VerifyError::Signature));
}

#[test]
fn kid() {
    let set = jwks(&[RSA.jwk_with(json!({"kid": "1"})), RSA2.jwk_with(json!({"kid": "2"}))]);
    let verifier = build(issuer().keys(Keys::jwks(set))).unwrap();
    let judge_kid = |signer: &Signer, kid: Value| judge(&verifier, &signer.header(json!({ "kid": kid })));
    assert_eq!(judge_kid(&RSA, json!("1")), Ok(()));
    assert_eq!(judge_kid(&RSA2, json!("2")), Ok(()));
    assert_eq!(judge_kid(&RSA, json!("2")), Err(VerifyError::Signature));
    assert_eq!(judge_kid(&RSA, json!("3")), Err(VerifyError::Signature));
    assert_eq!(judge_kid(&RSA, json!(1)), Err(VerifyError::Malformed));
    // None named: every key is tried.
    assert_eq!(judge_kid(&RSA2, Value::Null), Ok(()));
    // A key without one goes with any.
    let set = jwks(&[RSA.jwk_with(json!({"kid": "1"})), RSA2.jwk()]);
    let verifier = build(issuer().keys(Keys::jwks(set))).unwrap();
    assert_eq!(judge(&verifier, &RSA2.header(json!({"kid": "9"}))), Ok(()));
    assert_eq!(judge(&verifier, &RSA.header(json!({"kid": "9"}))), Err(VerifyError::Signature));
    // No more than 16 are tried.
    let many = |before: usize| {
        let mut keys: Vec<_> = std::iter::repeat_with(|| RSA2.jwk()).take(before).collect();
        keys.push(RSA.jwk());
        judge(&build(issuer().keys(Keys::jwks(jwks(&keys)))).unwrap(), &RSA.header(json!({})))
    };
    assert_eq!(many(15), Ok(()));
    assert_eq!(many(16), Err(VerifyError::Signature));
}

/// A signature counts only under the algorithm that the header names, whatever else the key could do.
#[test]
fn the_algorithm_that_is_named_made_the_signature() {
    let claims = claims_ok().to_string();
    let hmac = Signer::Hmac(vec![7; 32]);
    let families = [
        (&*RSA, [Algorithm::RS256, Algorithm::RS384, Algorithm::PS256, Algorithm::PS512].as_slice()),
        (&hmac, [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512].as_slice()),
    ];
    for (signer, algorithms) in families {
        let keys = Keys::jwks(signer.jwk().to_string());
        let verifier = build(issuer().algorithms(algorithms.iter().copied()).keys(keys)).unwrap();
        for named in algorithms {
            for used in algorithms {
                let token = signer.raw(*used, &json!({"alg": named.as_str()}).to_string(), &claims);
                let verdict = if named == used { Ok(()) } else { Err(VerifyError::Signature) };
                assert_eq!(judge(&verifier, &token), verdict, "{named}, signed with {used}");
            }
        }
    }
}

#[test]
fn crit_is_refused() {
    let verifier = rsa_verifier();
    for header in [
        json!({"crit": ["unknown-ext"], "unknown-ext": 1}),
        json!({"crit": ["b64"], "b64": false}),
        json!({"crit": []}),
        json!({"crit": "exp"}),
    ] {
        assert_eq!(judge(&verifier, &RSA.header(header.clone())), Err(VerifyError::Type), "{header}");
    }
    let null = RSA.raw(Algorithm::RS256, r#"{"alg":"RS256","crit":null}"#, &claims_ok().to_string());
    assert_eq!(judge(&verifier, &null), Err(VerifyError::Type));
}

#[test]
fn duplicate_members_are_refused() {
    let verifier = rsa_verifier();
    let claims = claims_ok().to_string();
    let header = r#"{"alg":"RS256"}"#;
    let judge_raw = |header: &str, claims: &str| judge(&verifier, &RSA.raw(Algorithm::RS256, header, claims));
    assert_eq!(judge_raw(header, &claims), Ok(()));
    assert_eq!(judge_raw(r#"{"alg":"none","alg":"RS256"}"#, &claims), Err(VerifyError::Malformed));
    assert_eq!(judge_raw(r#"{"alg":"RS256","\u0061lg":"RS256"}"#, &claims), Err(VerifyError::Malformed));
    let open = claims.strip_suffix('}').unwrap();
    for twice in [r#""jti":"other""#, r#""iss":"https://other/""#, r#""\u0065xp":1"#, r#""x":1,"x":1"#] {
        assert_eq!(judge_raw(header, &format!("{open},{twice}}}")), Err(VerifyError::Malformed), "{twice}");
    }
    assert_eq!(judge_raw(header, "[]"), Err(VerifyError::Malformed));
    assert_eq!(judge_raw("[]", &claims), Err(VerifyError::Malformed));
    assert_eq!(judge_raw(header, ""), Err(VerifyError::Malformed));
}

#[test]
fn claims_of_a_wrong_type() {
    let verifier = rsa_verifier();
    for claims in [
        json!({"exp": "soon"}),
        json!({"exp": NOW.to_string()}),
        json!({"exp": -1}),
        json!({"exp": 1_u64 << 53}),
        json!({"nbf": "now"}),
        json!({"iat": [NOW]}),
        json!({"iat": 1_u64 << 53}),
        json!({"jti": 7}),
        json!({"jti": ""}),
        json!({"sub": true}),
        json!({"sid": {}}),
        json!({"auth_time": "then"}),
        json!({"client_id": 3}),
        json!({"aud": 5}),
        json!({"aud": {}}),
        json!({"aud": [AUD, 5]}),
        json!({"iss": 5}),
        json!({"iss": [ISS]}),
    ] {
        assert_eq!(judge(&verifier, &RSA.claims(claims.clone())), Err(VerifyError::Malformed), "{claims}");
        let expired = verifier.verify_expired(&RSA.claims(claims.clone()), NOW).map(drop);
        assert_eq!(expired, Err(VerifyError::Malformed), "{claims}");
    }
}

#[test]
fn times() {
    let verifier = rsa_verifier();
    let both = |claims: Value| {
        let token = RSA.claims(claims);
        (judge(&verifier, &token), verifier.verify_expired(&token, NOW).map(drop))
    };
    assert_eq!(both(json!({"exp": NOW - 59})), (Ok(()), Ok(())));
    assert_eq!(both(json!({"exp": NOW - 60})), (Err(VerifyError::Expired), Ok(())));
    assert_eq!(both(json!({"exp": 0})), (Err(VerifyError::Expired), Ok(())));
    assert_eq!(both(json!({"exp": null})), (Err(VerifyError::LivesTooLong), Ok(())));
    assert_eq!(both(json!({"exp": NOW as f64 + 0.5})), (Ok(()), Ok(())));
    assert_eq!(both(json!({"nbf": NOW + 60})), (Ok(()), Ok(())));
    assert_eq!(both(json!({"nbf": NOW + 61})), (Err(VerifyError::NotYetValid), Ok(())));
    assert_eq!(both(json!({"iat": NOW + 60})), (Ok(()), Ok(())));
    let not_yet = Err(VerifyError::NotYetValid);
    // Whoever revokes it need not wait for its time.
    assert_eq!(both(json!({"iat": NOW + 61})), (not_yet, Ok(())));
    assert_eq!(both(json!({"iat": null})), (Ok(()), Ok(())));
    let strict = JwtVerifier::builder().leeway(Duration::ZERO).issuer(issuer().keys(Keys::pem(RSA.pem())));
    assert_eq!(judge(&strict.build().unwrap(), &RSA.claims(json!({"exp": NOW}))), Err(VerifyError::Expired));
    let endless = JwtVerifier::builder().leeway(Duration::MAX).issuer(issuer().keys(Keys::pem(RSA.pem())));
    assert_eq!(judge(&endless.build().unwrap(), &RSA.claims(json!({"exp": NOW}))), Ok(()));
}

#[test]
fn expired_tokens_are_checked_for_everything_else() {
    let verifier = build(issuer().require_at_jwt().keys(Keys::pem(RSA.pem()))).unwrap();
    let judge = |signer: &Signer, header: Value, claims: Value| {
        let claims = with(with(claims_ok(), json!({"exp": NOW - 1000})), claims);
        verifier.verify_expired(&signer.token(Algorithm::RS256, header, claims), NOW).map(drop)
    };
    let typ = || json!({"typ": "at+jwt"});
    assert_eq!(judge(&RSA, typ(), json!({})), Ok(()));
    assert_eq!(judge(&RSA2, typ(), json!({})), Err(VerifyError::Signature));
    assert_eq!(judge(&RSA, json!({}), json!({})), Err(VerifyError::Type));
    assert_eq!(judge(&RSA, with(typ(), json!({"alg": "PS256"})), json!({})), Err(VerifyError::Algorithm));
    assert_eq!(judge(&RSA, typ(), json!({"aud": "other"})), Err(VerifyError::Audience));
    assert_eq!(judge(&RSA, typ(), json!({"iss": "https://other/"})), Err(VerifyError::UnknownIssuer));
}

#[test]
fn audience_and_issuer() {
    let verifier = rsa_verifier();
    let judge_claims = |claims| judge(&verifier, &RSA.claims(claims));
    assert_eq!(judge_claims(json!({"aud": ["x", AUD]})), Ok(()));
    for aud in [json!("other"), json!([]), json!(["other"]), json!(AUD.to_uppercase()), Value::Null] {
        assert_eq!(judge_claims(json!({ "aud": aud })), Err(VerifyError::Audience), "{aud}");
    }
    let any = build(Issuer::new(ISS).any_audience().algorithms([Algorithm::RS256]).keys(Keys::pem(RSA.pem()))).unwrap();
    for aud in [json!("other"), json!([]), Value::Null] {
        assert_eq!(judge(&any, &RSA.claims(json!({ "aud": aud }))), Ok(()), "{aud}");
    }
    assert_eq!(judge(&any, &RSA.claims(json!({"aud": 5}))), Err(VerifyError::Malformed));
    for iss in [json!("https://issuer.example"), json!("https://ISSUER.example/"), Value::Null] {
        assert_eq!(judge_claims(json!({ "iss": iss })), Err(VerifyError::UnknownIssuer), "{iss}");
    }
}

/// Each issuer has only its own keys, algorithms and audiences.
#[test]
fn issuers_are_apart() {
    let ec = Signer::ec(Algorithm::ES256);
    let other =
        Issuer::new("https://other/").audience(["other"]).algorithms([Algorithm::ES256]).keys(Keys::pem(ec.pem()));
    let verifier = JwtVerifier::builder().issuer(issuer().keys(Keys::pem(RSA.pem()))).issuer(other).build().unwrap();
    let of_other = json!({"iss": "https://other/", "aud": "other"});
    let token = |signer: &Signer, alg, claims| signer.token(alg, json!({}), with(claims_ok(), claims));
    assert_eq!(judge(&verifier, &token(&RSA, Algorithm::RS256, json!({}))), Ok(()));
    assert_eq!(judge(&verifier, &token(&ec, Algorithm::ES256, of_other.clone())), Ok(()));
    assert_eq!(judge(&verifier, &token(&RSA, Algorithm::RS256, of_other)), Err(VerifyError::Algorithm));
    assert_eq!(judge(&verifier, &token(&ec, Algorithm::ES256, json!({}))), Err(VerifyError::Algorithm));
    let crossed = json!({"iss": "https://other/"});
    assert_eq!(judge(&verifier, &token(&ec, Algorithm::ES256, crossed)), Err(VerifyError::Audience));
}

#[test]
fn types() {
    let open = rsa_verifier();
    let strict = build(issuer().require_at_jwt().keys(Keys::pem(RSA.pem()))).unwrap();
    let both = |typ: Value| {
        let token = RSA.header(json!({ "typ": typ }));
        (judge(&open, &token), judge(&strict, &token))
    };
    let refused = Err(VerifyError::Type);
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        assert_eq!(both(json!(typ)), (Ok(()), Ok(())), "{typ}");
    }
    for typ in [json!("JWT"), json!("jwt"), Value::Null] {
        assert_eq!(both(typ.clone()), (Ok(()), refused), "{typ}");
    }
    for typ in ["logout+jwt", "secevent+jwt", "statuslist+jwt", "global-token-revocation+jwt", "dpop+jwt"] {
        assert_eq!(both(json!(typ)), (refused, refused), "{typ}");
        assert_eq!(both(json!(format!("application/{typ}"))), (refused, refused));
        assert_eq!(both(json!(typ.to_uppercase())), (refused, refused), "{typ}");
    }
    assert_eq!(both(json!(5)), (Err(VerifyError::Malformed), Err(VerifyError::Malformed)));
}

#[test]
fn broken_tokens() {
    let verifier = rsa_verifier();
    let token = RSA.header(json!({}));
    for length in 0..token.len() {
        assert!(judge(&verifier, &token[..length]).is_err(), "{length}");
    }
    assert_eq!(judge(&verifier, &format!("{token}.{token}")), Err(VerifyError::Malformed));
    assert_eq!(judge(&verifier, &format!("{token}=")), Err(VerifyError::Malformed));
    let fits = RSA.claims(json!({"x": "x".repeat(11_000)}));
    assert!(fits.len() < MAX_TOKEN);
    assert_eq!(judge(&verifier, &fits), Ok(()));
    let oversized = RSA.claims(json!({"x": "x".repeat(12_000)}));
    assert!(oversized.len() > MAX_TOKEN);
    assert_eq!(judge(&verifier, &oversized), Err(VerifyError::Malformed));
}

#[test]
fn identity_has_what_the_issuer_calls_it() {
    let names = ClaimNames::default().jti("uti").client_id("azp");
    let verifier = build(issuer().claim_names(names).keys(Keys::pem(RSA.pem()))).unwrap();
    let token = RSA.claims(json!({"uti": "u1", "azp": "c1", "client_id": "c2", "sid": "s1", "auth_time": NOW - 99}));
    let identity = verifier.verify(&token, NOW).unwrap();
    assert_eq!((identity.jti(), identity.client_id(), identity.sid()), (Some("u1"), Some("c1"), Some("s1")));
    assert_eq!(identity.auth_time(), Some(NOW - 99));
    // Without a token id, the signing input stands for it.
    let token = RSA.claims(json!({"jti": null}));
    let identity = rsa_verifier().verify(&token, NOW).unwrap();
    let (input, _) = token.rsplit_once('.').unwrap();
    let sha256: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(input.as_bytes()).into();
    assert_eq!(identity.claims().token_scope(), Some(crate::revocation::Scope::signing_input(ISS, sha256)));
}

#[test]
fn reloading_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    let one = RSA.jwk_with(json!({"kid": "1"}));
    let two = RSA2.jwk_with(json!({"kid": "2"}));
    fs::write(&path, jwks(&[one.clone(), two.clone()])).unwrap();
    let verifier = build(issuer().keys(Keys::jwks_file(&path))).unwrap();
    let (first, second) = (RSA.header(json!({"kid": "1"})), RSA2.header(json!({"kid": "2"})));
    assert_eq!((judge(&verifier, &first), judge(&verifier, &second)), (Ok(()), Ok(())));

    // The same keys in another order are no change.
    let epoch = verifier.epoch();
    fs::write(&path, jwks(&[two.clone(), one])).unwrap();
    verifier.reload_files().unwrap();
    assert_eq!(verifier.epoch(), epoch);

    // A key is withdrawn.
    fs::write(&path, jwks(std::slice::from_ref(&two))).unwrap();
    verifier.reload_files().unwrap();
    assert!(verifier.epoch() > epoch);
    assert_eq!((judge(&verifier, &first), judge(&verifier, &second)), (Err(VerifyError::Signature), Ok(())));

    // What cannot be used changes nothing and is said.
    let epoch = verifier.epoch();
    for bad in ["{", &jwks(&[]), &jwks(&[Signer::Hmac(vec![1; 32]).jwk()]), &" ".repeat(2 << 20)] {
        fs::write(&path, bad).unwrap();
        let error = verifier.reload_files().unwrap_err();
        assert!(error.to_string().contains("keys.json"), "{error}");
        assert_eq!((verifier.epoch(), judge(&verifier, &second)), (epoch, Ok(())));
    }
    fs::remove_file(&path).unwrap();
    assert!(verifier.reload_files().is_err());
    assert_eq!((verifier.epoch(), judge(&verifier, &second)), (epoch, Ok(())));
}

#[test]
fn a_file_that_fails_does_not_keep_the_others_back() {
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (directory.path().join("good.json"), directory.path().join("bad.json"));
    fs::write(&bad, jwks(&[RSA.jwk()])).unwrap();
    fs::write(&good, jwks(&[RSA2.jwk()])).unwrap();
    let verifier = build(issuer().keys(Keys::jwks_file(&bad)).keys(Keys::jwks_file(&good))).unwrap();
    let third = Signer::rsa();
    fs::write(&bad, "{").unwrap();
    fs::write(&good, jwks(&[third.jwk()])).unwrap();
    let error = verifier.reload_files().unwrap_err();
    assert!(error.to_string().contains("bad.json") && error.to_string().contains(ISS), "{error}");
    let verdicts = [&*RSA, &*RSA2, &third].map(|signer| judge(&verifier, &signer.header(json!({}))));
    assert_eq!(verdicts, [Ok(()), Err(VerifyError::Signature), Ok(())]);
}

#[test]
fn replacing_the_configuration() {
    let verifier = rsa_verifier();
    let token = RSA.header(json!({}));
    let mut epoch = verifier.epoch();
    let mut replaced = |issuer: Issuer| {
        verifier.replace(JwtVerifier::builder().issuer(issuer)).unwrap();
        assert!(verifier.epoch() > epoch);
        epoch = verifier.epoch();
        judge(&verifier, &token)
    };
    let keys = || Keys::pem(RSA.pem());
    assert_eq!(replaced(issuer().audience(["other"]).keys(keys())), Err(VerifyError::Audience));
    assert_eq!(replaced(issuer().algorithms([Algorithm::PS256]).keys(keys())), Err(VerifyError::Algorithm));
    assert_eq!(replaced(issuer().keys(Keys::pem(RSA2.pem()))), Err(VerifyError::Signature));
    let other = Issuer::new("https://other/").any_audience().algorithms([Algorithm::RS256]).keys(keys());
    assert_eq!(replaced(other), Err(VerifyError::UnknownIssuer));
    assert_eq!(replaced(issuer().keys(keys())), Ok(()));
    let (before, bad) = (verifier.epoch(), JwtVerifier::builder().issuer(issuer()));
    assert_eq!(verifier.replace(bad), Err(JwtConfigError::NoKeys { iss: ISS.into() }));
    assert_eq!((verifier.epoch(), judge(&verifier, &token)), (before, Ok(())));
}

#[test]
fn nothing_secret_is_printed() {
    let secret = b"a secret that is never printed!!".to_vec();
    let text = String::from_utf8(secret.clone()).unwrap();
    let keys = [Keys::secret(secret.clone()), Keys::jwks(Signer::Hmac(secret.clone()).jwk().to_string())];
    for keys in keys {
        let builder = JwtVerifier::builder().issuer(issuer().algorithms([Algorithm::HS256]).keys(keys));
        let printed = format!("{builder:?} {:?}", builder.clone().build().unwrap());
        for hidden in [text.as_str(), &b64(&secret), &format!("{secret:?}")] {
            assert!(!printed.contains(hidden), "{printed}");
        }
    }
}

#[cfg(feature = "jwks-http")]
mod over_http;
