//! Signed JWTs (RFC 7519, RFC 7515), verified strictly.

mod algorithm;
mod error;
#[cfg(feature = "jwks-http")]
mod http;
mod issuer;
mod key;
#[cfg(feature = "endpoint")]
mod payload;
#[cfg(feature = "jwks-http")]
mod refresh;
mod signing;
#[cfg(test)]
mod tests;

#[cfg(feature = "introspection")]
pub(super) use self::http::connector;
#[cfg(feature = "endpoint")]
pub(crate) use self::payload::{Expiry, Payload};
pub use self::{
    algorithm::{Algorithm, UnknownAlgorithm},
    error::JwtConfigError,
    issuer::{Issuer, Keys},
    key::KeyError,
    signing::{SignError, SigningKey},
};
#[cfg(feature = "jwks-http")]
pub use self::{
    http::HttpFetch,
    refresh::{Fetch, FetchError, FetchErrorKind, JwksUrl},
};

use std::{
    collections::HashMap,
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use self::{
    issuer::{Audience, Kind, Origin},
    key::{Key, KeySet, LiveKeys},
};
use super::{
    ClaimNames, Identity, Verifier, VerifyError,
    extract::MAX_TOKEN,
    strict::{CompactJws, Malformed, Members},
};

/// How many keys are tried for one token: bounds the work that a stranger can cause.
const MAX_TRIES: usize = 16;

/// Verifies JWTs of one or several issuers.
///
/// The issuer is picked by the exact `iss`; only its own keys, algorithms and audiences count then. Tokens with a
/// `crit` header are refused (RFC 7515 §4.1.11), and so are those with a member twice or a claim of a wrong type.
///
/// ```
/// use tower_revocation::token::{Algorithm, Issuer, JwtVerifier, Keys, Verifier, VerifyError};
///
/// let verifier = JwtVerifier::builder()
///     .issuer(
///         Issuer::new("https://issuer.example/")
///             .audience(["https://api.example/"])
///             .algorithms([Algorithm::HS256])
///             .keys(Keys::secret(*b"32 random bytes make a good key!")),
///     )
///     .build()?;
///
/// let forged = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLyJ9.";
/// assert_eq!(verifier.verify(forged, 1_700_000_000), Err(VerifyError::Algorithm));
/// # Ok::<(), tower_revocation::token::JwtConfigError>(())
/// ```
pub struct JwtVerifier {
    config: ArcSwap<Config>,
    epoch: Epoch,
    /// Held while files are read and their keys put in place, so that what was read last counts.
    writer: Mutex<()>,
}

/// Counts what could make a verdict different.
#[derive(Clone, Default)]
struct Epoch(Arc<AtomicU64>);

impl Epoch {
    /// Call it once the change can be seen.
    fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

struct Config {
    issuers: HashMap<Box<str>, Trusted>,
    leeway: u64,
}

/// An issuer whose settings have been checked.
struct Trusted {
    audience: Audience,
    algorithms: Box<[Algorithm]>,
    kind: Kind,
    claim_names: ClaimNames,
    sources: Box<[Source]>,
}

struct Source {
    keys: LiveKeys,
    renewal: Renewal,
}

/// How the keys of a source change.
enum Renewal {
    Never,
    File(PathBuf),
    #[cfg(feature = "jwks-http")]
    Url(refresh::Refresher),
}

/// Settings of a [`JwtVerifier`].
#[derive(Clone, Debug)]
#[must_use]
pub struct JwtVerifierBuilder {
    issuers: Vec<Issuer>,
    leeway: Duration,
}

impl JwtVerifierBuilder {
    /// Adds an issuer.
    pub fn issuer(mut self, issuer: Issuer) -> Self {
        self.issuers.push(issuer);
        self
    }

    /// How far clocks may differ, in whole seconds. Default: 60 s. Revocations are kept that long after `exp`, so the
    /// denylist's [`Lifetimes`](crate::revocation::Lifetimes) must allow at least as much.
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Reads the keys and makes the verifier. Key sets with a URL are fetched from now on by tasks on the present tokio
    /// runtime, until the verifier is dropped.
    ///
    /// # Errors
    ///
    /// Where something is missing, contradictory or not readable.
    pub fn build(self) -> Result<JwtVerifier, JwtConfigError> {
        let epoch = Epoch::default();
        let config = Config::new(self, &epoch, None)?;
        Ok(JwtVerifier { config: ArcSwap::from_pointee(config), epoch, writer: Mutex::new(()) })
    }
}

impl JwtVerifier {
    /// Settings to make one from.
    pub fn builder() -> JwtVerifierBuilder {
        JwtVerifierBuilder { issuers: Vec::new(), leeway: Duration::from_secs(60) }
    }

    /// Takes other settings from now on. Whatever was verified under the old ones is verified again.
    ///
    /// Key sets of a URL that the issuer keeps are kept until they are fetched anew. It reads files: call it off
    /// the async threads, but inside the runtime where there are URLs.
    ///
    /// # Errors
    ///
    /// Where the settings cannot be used. The old ones stay then.
    pub fn replace(&self, builder: JwtVerifierBuilder) -> Result<(), JwtConfigError> {
        let _writer = self.lock();
        let config = Config::new(builder, &self.epoch, Some(&self.config.load()))?;
        self.config.store(Arc::new(config));
        self.epoch.bump();
        Ok(())
    }

    /// Reads the JWK set files again. It blocks: call it off the async threads.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used. Its old keys stay; other files count as they are now.
    pub fn reload_files(&self) -> Result<(), JwtConfigError> {
        let _writer = self.lock();
        let mut result = Ok(());
        for (iss, issuer) in &self.config.load().issuers {
            for source in &issuer.sources {
                let Renewal::File(path) = &source.renewal else { continue };
                match read_file(path).and_then(|keys| keys.checked(&issuer.algorithms)) {
                    Ok(keys) => source.keys.replace(keys, &self.epoch),
                    Err(error) => result = result.and(Err(key_error(iss, &Keys::jwks_file(path), error))),
                }
            }
        }
        result
    }

    /// Waits until every key set with a URL has been fetched once.
    ///
    /// # Errors
    ///
    /// Where that has not happened within `timeout`: the last failure. Fetching goes on.
    #[cfg(feature = "jwks-http")]
    pub async fn ready(&self, timeout: Duration) -> Result<(), FetchError> {
        let config = self.config.load_full();
        let deadline = tokio::time::Instant::now() + timeout;
        for source in config.issuers.values().flat_map(|issuer| &issuer.sources) {
            if let Renewal::Url(refresher) = &source.renewal {
                refresher.ready(deadline).await?;
            }
        }
        Ok(())
    }

    /// Whether `iss` signed this as a JWT of this type. Nothing else of it is looked at.
    #[cfg(feature = "status-list")]
    pub(crate) fn check_signed_by(
        &self,
        iss: &str,
        typ: &'static str,
        jws: &CompactJws<'_>,
    ) -> Result<(), VerifyError> {
        let header = Members::parse(&jws.header)?;
        let config = self.config.load();
        let issuer = config.issuers.get(iss).ok_or(VerifyError::UnknownIssuer)?;
        issuer.authenticate_as(Kind::Exactly(typ), &header, jws, Times::Checked)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, token: &str, now: u64, times: Times) -> Result<Identity, VerifyError> {
        self.check_signed(token, MAX_TOKEN, now, times, |signed| {
            let claims = signed.payload.claims(&signed.issuer.claim_names)?;
            Ok(Identity::from_verified(&claims.as_claims(signed.iss, signed.jws.signing_input)))
        })
    }

    /// Checks a token of at most `max` bytes, and has `then` read it.
    #[inline]
    fn check_signed<T>(
        &self,
        token: &str,
        max: usize,
        now: u64,
        times: Times,
        then: impl FnOnce(&Signed<'_, '_, '_>) -> Result<T, VerifyError>,
    ) -> Result<T, VerifyError> {
        if token.len() > max {
            return Err(VerifyError::Malformed);
        }
        let jws = CompactJws::parse(token)?;
        let header = Members::parse(&jws.header)?;
        let payload = Members::parse(&jws.payload)?;
        let iss = payload.string("iss")?.ok_or(VerifyError::UnknownIssuer)?;
        let config = self.config.load();
        let issuer = config.issuers.get(&*iss).ok_or(VerifyError::UnknownIssuer)?;
        issuer.authenticate(&header, &jws, times)?;
        issuer.check_audience(&payload)?;
        let (exp, nbf, iat) = (payload.time("exp")?, payload.time("nbf")?, payload.time("iat")?);
        let now_and_leeway = now.saturating_add(config.leeway);
        if times.count() {
            match exp {
                None if times.must_end() => return Err(VerifyError::LivesTooLong),
                Some(exp) if exp.saturating_add(config.leeway) <= now => return Err(VerifyError::Expired),
                _ => {}
            }
            // Issued in the future, it would be later than any cutoff. Whoever revokes it need not wait for its time.
            if nbf.is_some_and(|nbf| nbf > now_and_leeway) || iat.is_some_and(|iat| iat > now_and_leeway) {
                return Err(VerifyError::NotYetValid);
            }
        }
        then(&Signed { iss: &iss, payload: &payload, jws: &jws, issuer })
    }
}

/// A token whose signature, audience and times have been checked.
struct Signed<'a, 'm, 'j> {
    iss: &'a str,
    payload: &'a Members<'m>,
    jws: &'a CompactJws<'j>,
    issuer: &'a Trusted,
}

/// Whether `exp`, `nbf` and `iat` count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Checked,
    /// The same for a message: it counts once, and is told to come again while its key is fetched.
    #[cfg(feature = "endpoint")]
    #[cfg_attr(not(feature = "signals"), allow(dead_code, reason = "only some features take such messages"))]
    Message(Expiry),
    Ignored,
}

impl Times {
    const fn count(self) -> bool {
        !matches!(self, Self::Ignored)
    }

    const fn must_end(self) -> bool {
        match self {
            Self::Checked => true,
            #[cfg(feature = "endpoint")]
            Self::Message(expiry) => matches!(expiry, Expiry::Required),
            Self::Ignored => false,
        }
    }
}

impl Verifier for JwtVerifier {
    fn verify(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.check(token, now, Times::Checked)
    }

    fn verify_expired(&self, token: &str, now: u64) -> Result<Identity, VerifyError> {
        self.check(token, now, Times::Ignored)
    }

    fn epoch(&self) -> u64 {
        self.epoch.get()
    }
}

impl From<Malformed> for VerifyError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config.load();
        let issuers: Vec<_> = config.issuers.keys().collect();
        f.debug_struct("JwtVerifier").field("issuers", &issuers).field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl Config {
    /// Checks the settings and gets the keys; URLs that `before` had keep theirs.
    fn new(builder: JwtVerifierBuilder, epoch: &Epoch, before: Option<&Self>) -> Result<Self, JwtConfigError> {
        if builder.issuers.is_empty() {
            return Err(JwtConfigError::NoIssuer);
        }
        let mut issuers = HashMap::with_capacity(builder.issuers.len());
        for issuer in builder.issuers {
            let iss = issuer.iss.clone();
            let before = before.and_then(|config| config.issuers.get(iss.as_str()));
            if issuers.insert(iss.as_str().into(), Trusted::new(issuer, epoch, before)?).is_some() {
                return Err(JwtConfigError::DuplicateIssuer { iss });
            }
        }
        Ok(Self { issuers, leeway: builder.leeway.as_secs() })
    }
}

impl Trusted {
    fn new(issuer: Issuer, epoch: &Epoch, before: Option<&Self>) -> Result<Self, JwtConfigError> {
        let Issuer { iss, audience, algorithms, keys, kind, claim_names } = issuer;
        if iss.is_empty() {
            return Err(JwtConfigError::EmptyIssuer);
        }
        if matches!(&audience, Audience::OneOf(audience) if audience.is_empty()) {
            return Err(JwtConfigError::NoAudience { iss });
        }
        let Some(first) = algorithms.first() else { return Err(JwtConfigError::NoAlgorithm { iss }) };
        if algorithms.iter().any(|alg| alg.is_hmac() != first.is_hmac()) {
            return Err(JwtConfigError::MixedAlgorithms { iss });
        }
        if keys.is_empty() {
            return Err(JwtConfigError::NoKeys { iss });
        }
        let sources: Result<_, _> =
            keys.iter().map(|keys| Source::new(&iss, keys, &algorithms, epoch, before)).collect();
        Ok(Self { audience, algorithms: algorithms.into(), kind, claim_names, sources: sources? })
    }

    /// Whether the issuer signed this, as a token of a kind that is accepted.
    fn authenticate(&self, header: &Members<'_>, jws: &CompactJws<'_>, times: Times) -> Result<(), VerifyError> {
        self.authenticate_as(self.kind, header, jws, times)
    }

    fn authenticate_as(
        &self,
        kind: Kind,
        header: &Members<'_>,
        jws: &CompactJws<'_>,
        times: Times,
    ) -> Result<(), VerifyError> {
        // No critical extension is understood here (RFC 7515 §4.1.11).
        if header.raw("crit").is_some() {
            return Err(VerifyError::Type);
        }
        kind.check(header.string("typ")?.as_deref())?;
        let alg = header.string("alg")?.ok_or(VerifyError::Malformed)?;
        let alg = alg.parse().ok().filter(|alg| self.algorithms.contains(alg)).ok_or(VerifyError::Algorithm)?;
        let kid = header.string("kid")?;
        let signature = URL_SAFE_NO_PAD.decode(jws.signature).map_err(|_| VerifyError::Malformed)?;
        self.check_signature(alg, kid.as_deref(), jws.signing_input, &signature, times)
    }

    fn check_signature(
        &self,
        alg: Algorithm,
        kid: Option<&str>,
        signing_input: &[u8],
        signature: &[u8],
        times: Times,
    ) -> Result<(), VerifyError> {
        let mut tries = MAX_TRIES;
        for source in &self.sources {
            for key in source.keys.load().candidates(alg, kid) {
                if tries == 0 {
                    return Err(VerifyError::Signature);
                }
                tries -= 1;
                if key.verifies(alg, signing_input, signature) {
                    return Ok(());
                }
            }
        }
        let known = kid.is_some_and(|kid| self.sources.iter().any(|source| source.keys.load().has(kid)));
        // Else the key may be one that was published since: every source is asked.
        let asked = !known && self.sources.iter().filter(|source| source.may_get_more()).count() > 0;
        // To a revocation, "not ours" would be a success without effect: it is told to come again until the next
        // fetch has shown that the key is really unknown.
        let coming =
            asked || (!known && times != Times::Checked && self.sources.iter().any(Source::was_fetched_just_now));
        Err(if coming { VerifyError::KeyNotAvailable } else { VerifyError::Signature })
    }

    fn check_audience(&self, payload: &Members<'_>) -> Result<(), VerifyError> {
        let aud = match payload.raw("aud") {
            None => Vec::new(),
            Some(list) if list.get().starts_with('[') => payload.get::<Vec<String>>("aud")?.unwrap_or_default(),
            Some(_) => payload.string("aud")?.map(Into::into).into_iter().collect(),
        };
        match &self.audience {
            Audience::OneOf(ours) if !aud.iter().any(|aud| ours.contains(aud)) => Err(VerifyError::Audience),
            _ => Ok(()),
        }
    }
}

impl Kind {
    /// Whether a JWT of this type is of this kind.
    fn check(self, typ: Option<&str>) -> Result<(), VerifyError> {
        /// What else issuers sign with the same keys (RFC 8725 §3.11).
        const FOREIGN: [&str; 10] = [
            "logout+jwt",
            "secevent+jwt",
            "statuslist+jwt",
            "global-token-revocation+jwt",
            "dpop+jwt",
            "oauth-authz-req+jwt",
            "token-introspection+jwt",
            "client-authentication+jwt",
            "entity-statement+jwt",
            "kb+jwt",
        ];
        let typ = typ.map(str::to_ascii_lowercase);
        let typ = typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
        let accepted = match self {
            Self::Open => !typ.is_some_and(|typ| FOREIGN.contains(&typ)),
            Self::Exactly(required) => typ == Some(required),
            Self::Usually(usual) => typ.is_none_or(|typ| typ == "jwt" || typ == usual),
        };
        if accepted { Ok(()) } else { Err(VerifyError::Type) }
    }
}

impl Source {
    #[cfg_attr(not(feature = "jwks-http"), expect(unused_variables, reason = "only fetched keys change on their own"))]
    fn new(
        iss: &str,
        keys: &Keys,
        algorithms: &[Algorithm],
        epoch: &Epoch,
        before: Option<&Trusted>,
    ) -> Result<Self, JwtConfigError> {
        let (set, renewal) = match &keys.0 {
            Origin::Pem(pem) => (Key::pem(pem).map(Into::into), Renewal::Never),
            Origin::Secret(secret) => (Key::secret(secret).map(Into::into), Renewal::Never),
            Origin::Jwks(json) => (KeySet::jwks(json), Renewal::Never),
            Origin::File(path) => (read_file(path), Renewal::File(path.clone())),
            #[cfg(feature = "jwks-http")]
            Origin::Url(url) => return Self::fetched(iss, url, algorithms, epoch, before),
        };
        let set = set.and_then(|set| set.checked(algorithms)).map_err(|error| key_error(iss, keys, error))?;
        Ok(Self { keys: LiveKeys::new(set), renewal })
    }

    #[cfg(feature = "jwks-http")]
    fn fetched(
        iss: &str,
        url: &JwksUrl,
        algorithms: &[Algorithm],
        epoch: &Epoch,
        before: Option<&Trusted>,
    ) -> Result<Self, JwtConfigError> {
        if algorithms.iter().any(|alg| alg.is_hmac()) {
            return Err(JwtConfigError::SecretsByUrl { iss: iss.to_owned() });
        }
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|_| JwtConfigError::NoRuntime { iss: iss.to_owned() })?;
        let before = before.into_iter().flat_map(|issuer| &issuer.sources).find_map(|source| match &source.renewal {
            Renewal::Url(refresher) if refresher.is_for(url) => Some((source.keys.fork(), refresher)),
            _ => None,
        });
        let (keys, before) = before.map_or_else(Default::default, |(keys, refresher)| (keys, Some(refresher)));
        let refresher = refresh::Refresher::start(&runtime, url, keys.clone(), epoch.clone(), before)
            .map_err(|source| JwtConfigError::Fetch { iss: iss.to_owned(), source })?;
        Ok(Self { keys, renewal: Renewal::Url(refresher) })
    }

    /// Whether the keys are those of a URL that may not be asked again yet.
    fn was_fetched_just_now(&self) -> bool {
        match &self.renewal {
            Renewal::Never | Renewal::File(_) => false,
            #[cfg(feature = "jwks-http")]
            Renewal::Url(refresher) => refresher.fetched_just_now(),
        }
    }

    /// Whether other keys may be had than those that are here: they are being fetched then.
    fn may_get_more(&self) -> bool {
        match &self.renewal {
            Renewal::Never | Renewal::File(_) => false,
            #[cfg(feature = "jwks-http")]
            Renewal::Url(refresher) => refresher.want(),
        }
    }
}

fn read_file(path: &Path) -> Result<KeySet, KeyError> {
    let mut json = zeroize::Zeroizing::new(Vec::new());
    fs::File::open(path)
        .and_then(|file| file.take(KeySet::MAX_BYTES as u64 + 1).read_to_end(&mut json))
        .map_err(|error| KeyError::Unreadable(error.kind()))?;
    if json.len() > KeySet::MAX_BYTES {
        return Err(KeyError::TooLarge);
    }
    KeySet::jwks(&json)
}

fn key_error(iss: &str, keys: &Keys, source: KeyError) -> JwtConfigError {
    JwtConfigError::Keys { iss: iss.to_owned(), origin: keys.to_string(), source }
}
