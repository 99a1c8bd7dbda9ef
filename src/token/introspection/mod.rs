//! Tokens that their issuer is asked about (RFC 7662).

mod answer;
mod ask;
mod credentials;
mod held;

#[doc(hidden)]
pub use self::answer::read_introspection_answer;
pub use self::{
    ask::{IntrospectionCounts, IntrospectionError},
    credentials::IntrospectionCredentials,
};

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use http::Uri;

use self::{
    ask::{Asking, Server},
    held::{Cache, Held, Outcome},
};
#[cfg(feature = "streams")]
use super::source::{Carried, joined_with_digests};
use super::{
    ClaimNames, Claims, Extractor, OpaqueKeys,
    extract::Glance,
    question::{Known, Question},
    source::{Asked, Context, Found, Head, check_claims, check_fresh, check_times, look_up, sealed},
};
#[cfg(feature = "streams")]
use crate::{denylist::Denylist, token::Verified};
use crate::{denylist::Found as Listed, policy::MissingClaim, reject::Rejection, token::VerifiedClaims as _};

/// Asks an issuer's introspection endpoint (RFC 7662) who is behind a token that only the issuer understands.
///
/// It is the source of identities of [`Introspect`], and of the opaque tokens of
/// [`Verify::introspect`](super::Verify::introspect).
///
/// - The first request with a token waits for the issuer, at a door that can wait
///   ([`RevocationLayer::asking`](crate::RevocationLayer::asking), [`Guard::check_or_ask`](crate::Guard::check_or_ask));
///   other doors answer 503. All who wait for one token wait for one question, for at most
///   [`Introspection::time_limit`], and no more than [`Introspection::at_once`] questions are asked at a time.
/// - "Active" is believed for [`Introspection::keep`] from the moment of the question, and never past the token's `exp`;
///   "not active" for [`Introspection::keep_inactive`]. What the issuer revokes without this layer's knowing is refused
///   that much later. What is revoked here is refused at once: the denylist is asked on every request, by what the issuer
///   said of the token and by the token's digest.
/// - An issuer that does not answer, or answers something else than RFC 7662 §2.2, has the request refused with 503; so
///   has one that says that the token is another issuer's with 401. Redirects are not followed.
/// - Answers are kept by the whole token, in memory that belongs to one guard and one issuer.
///
/// ```no_run
/// use tower_revocation::token::{Introspect, Introspection, IntrospectionCredentials, OpaqueKeys};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let digests = OpaqueKeys::new("1", *b"32 random bytes, kept by nodes..")?;
/// let credentials = IntrospectionCredentials::basic("api", "s3cret");
/// let issuer = "https://issuer.example/";
/// let introspection = Introspection::new("https://issuer.example/introspect", issuer, credentials, digests)?;
/// let source = Introspect::new(introspection);
/// # let _ = source; Ok(()) }
/// ```
#[must_use]
pub struct Introspection {
    server: Arc<Server>,
    digests: OpaqueKeys,
    keep: Duration,
    keep_inactive: Duration,
    missing_exp: MissingClaim,
    asking: Asking,
    cache: Cache,
}

impl Introspection {
    /// Asks at `url` about tokens of `issuer`. `digests`: what token revocation keeps opaque tokens by (see
    /// `TokenEndpoint::opaque`), so that one that was revoked here is not asked about, and is refused though the issuer
    /// calls it active.
    ///
    /// It asks from tasks on the present tokio runtime.
    ///
    /// # Errors
    ///
    /// Where the URL is not `https`, or no URL that can be asked at; where there is no tokio runtime, or the system trusts
    /// no certificate authority.
    pub fn new(
        url: impl Into<String>,
        issuer: impl Into<String>,
        credentials: IntrospectionCredentials,
        digests: OpaqueKeys,
    ) -> Result<Self, IntrospectionError> {
        Self::over(&url.into(), issuer.into(), credentials, digests, false)
    }

    /// The same over plain `http` too. Whoever can change what the network carries can then make tokens, and reads
    /// credentials and tokens.
    ///
    /// # Errors
    ///
    /// As [`Introspection::new`], but for the scheme.
    pub fn allowing_http(
        url: impl Into<String>,
        issuer: impl Into<String>,
        credentials: IntrospectionCredentials,
        digests: OpaqueKeys,
    ) -> Result<Self, IntrospectionError> {
        Self::over(&url.into(), issuer.into(), credentials, digests, true)
    }

    fn over(
        url: &str,
        issuer: String,
        credentials: IntrospectionCredentials,
        digests: OpaqueKeys,
        http: bool,
    ) -> Result<Self, IntrospectionError> {
        let server = Arc::new(Server::new(url, issuer, credentials, http)?);
        Ok(Self {
            server,
            digests,
            keep: Duration::from_secs(60),
            keep_inactive: Duration::from_secs(5),
            missing_exp: MissingClaim::Deny,
            asking: Asking::new(Duration::from_secs(2), 64)?,
            cache: Cache::new(64 << 20),
        })
    }

    /// How long "active" is believed, at most. Default: 60 s; zero asks for each request anew.
    pub const fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// How long "not active" is believed. Default: 5 s.
    pub const fn keep_inactive(mut self, keep: Duration) -> Self {
        self.keep_inactive = keep;
        self
    }

    /// How long an answer may take, waiting for its turn included. Default: 2 s.
    pub const fn time_limit(mut self, limit: Duration) -> Self {
        self.asking.limit = limit;
        self
    }

    /// How many questions are asked at a time. Sixteen times as many may wait for their turn; the requests of others are
    /// refused with 503. Default: 64.
    pub fn at_once(mut self, most: NonZeroUsize) -> Self {
        self.asking.at_once(most.get());
        self
    }

    /// How many bytes of tokens and answers are kept. Default: 64 MiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.cache = Cache::new(bytes);
        self
    }

    /// Whom tokens must be for: the answer's `aud` must name one of these. Default: not looked at, since the issuer knows
    /// who asks, and answers "not active" for what is not meant for it (RFC 7662 §2.2).
    pub fn audience<A: Into<String>>(mut self, audience: impl IntoIterator<Item = A>) -> Self {
        Arc::make_mut(&mut self.server).reading.audience = audience.into_iter().map(Into::into).collect();
        self
    }

    /// Under which names the answer has what revocation needs. Default: those of the standards.
    pub fn claim_names(mut self, names: ClaimNames) -> Self {
        Arc::make_mut(&mut self.server).reading.names = names;
        self
    }

    /// Answers without `exp`, which RFC 7662 lets an issuer leave out. Default: refused, since nothing says for how long
    /// revocations would have to be kept. Allowed, they count until the issuer is asked next, as long as the token's `iat`
    /// is not further back than tokens may live here.
    pub const fn missing_exp(mut self, missing: MissingClaim) -> Self {
        self.missing_exp = missing;
        self
    }

    /// What it has done, for metrics; they go on being counted.
    pub fn counts(&self) -> IntrospectionCounts {
        self.asking.counts()
    }

    /// What tokens are digested with.
    pub(super) const fn digests(&self) -> &OpaqueKeys {
        &self.digests
    }

    /// Judges a token.
    pub(super) fn judge(&self, token: &str, context: Context<'_>) -> Result<Found, Rejection> {
        if let Some(held) = self.cache.get(token.as_bytes(), context.now) {
            return Self::judge_held(&held, context);
        }
        for digest in self.digests.digests(token.as_bytes()) {
            let keys = Claims::default().opaque(&digest).keys(context.denylist.hasher());
            // Where only the backend can tell, it is asked after the issuer.
            if let Some(Listed::Revoked(reason)) = look_up(&keys, context) {
                return Err(Rejection::Revoked(reason));
            }
        }
        // A node that refuses anyway asks nobody.
        check_fresh(context)?;
        Ok(Found::Unclear(Box::new(Question::Elsewhere { told: self.ask(token, context), verified: None })))
    }

    /// The same of one that a glance found: `None` where it is not at hand.
    #[inline]
    fn judge_at_hand(&self, token: &[u8], asked: Asked<'_>) -> Option<Result<Found, Rejection>> {
        let context = asked.now();
        let held = self.cache.get(token, context.now)?;
        Some(Self::judge_held(&held, context))
    }

    #[inline]
    fn judge_held(held: &Held, context: Context<'_>) -> Result<Found, Rejection> {
        let (verified, digests) = match &held.outcome {
            Outcome::Inactive(error) => return Err(Rejection::Token(*error)),
            Outcome::Active { verified, digests } => (verified, digests),
        };
        // Time changes no generation: it is compared on every request.
        let times = check_times(verified.identity.iat(), verified.identity.exp(), context).map_err(Rejection::Token);
        if let Err(rejection) = times.and_then(|()| check_claims(&verified.identity.claims(), context.policy)) {
            return Ok(Found::Refused(rejection, Arc::clone(verified)));
        }
        let mut unclear = false;
        for keys in digests.iter().chain([&verified.keys]) {
            match look_up(keys, context) {
                None => {}
                Some(Listed::Unclear) => unclear = true,
                Some(Listed::Revoked(reason)) => {
                    return Ok(Found::Refused(Rejection::Revoked(reason), Arc::clone(verified)));
                }
            }
        }
        if let Err(doubt) = check_fresh(context) {
            return Ok(Found::Refused(doubt, Arc::clone(verified)));
        }
        if unclear {
            let known = Known::with_digests(Arc::clone(verified), digests.clone());
            return Ok(Found::Unclear(Box::new(Question::Backend(known))));
        }
        Ok(Found::Clear(Some(Arc::clone(verified))))
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection")
            .field("server", &self.server)
            .field("digests", &self.digests)
            .field("keep", &self.keep)
            .field("keep_inactive", &self.keep_inactive)
            .finish_non_exhaustive()
    }
}

/// Every token is one that its issuer is asked about: see [`Introspection`].
#[must_use]
pub struct Introspect {
    introspection: Introspection,
    extractor: Extractor,
}

impl Introspect {
    /// Asks `introspection`. Takes bearer tokens.
    pub fn new(introspection: Introspection) -> Self {
        Self { introspection, extractor: Extractor::default() }
    }

    /// Where tokens are taken from.
    pub fn extractor(mut self, extractor: Extractor) -> Self {
        self.extractor = extractor;
        self
    }
}

#[expect(private_interfaces, reason = "sealed: only this crate calls it")]
impl sealed::Source for Introspect {
    #[inline]
    fn judge(&self, head: Head<'_>, asked: Asked<'_>) -> Result<Found, Rejection> {
        match self.extractor.glance(head.headers, head.uri) {
            Glance::Nothing => return Ok(Found::Nothing),
            // Equal to one that was asked about, byte for byte, it was checked for its spelling too.
            Glance::Bearer(token) => {
                if let Some(judged) = self.introspection.judge_at_hand(token, asked) {
                    return judged;
                }
            }
            Glance::Unclear => {}
        }
        let Some(credential) = self.extractor.find(head.headers, head.uri)? else { return Ok(Found::Nothing) };
        self.introspection.judge(credential.token(), asked.now())
    }

    fn challenges_dpop(&self) -> bool {
        self.extractor.challenges_dpop()
    }

    #[cfg(feature = "streams")]
    fn carried(&self, head: Head<'_>, denylist: &Denylist, verified: Option<&Verified>) -> Option<Carried> {
        let known = verified.map(|of| Carried { keys: of.keys.clone(), exp: of.identity.exp() });
        let Some(credential) = self.extractor.find(head.headers, head.uri).ok()? else { return known };
        joined_with_digests(known, &self.introspection.digests, credential.token(), denylist)
    }
}

impl fmt::Debug for Introspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspect")
            .field("introspection", &self.introspection)
            .field("extractor", &self.extractor)
            .finish()
    }
}

/// Whether a string can be the URL of an introspection endpoint.
fn checked(url: &str, http: bool) -> Result<Uri, IntrospectionError> {
    let parsed: Uri = url.parse().map_err(|_| IntrospectionError::Url)?;
    let plain = parsed.authority().is_some_and(|at| !at.host().is_empty() && !at.as_str().contains('@'));
    match parsed.scheme_str() {
        _ if !plain || url.contains('#') => Err(IntrospectionError::Url),
        Some("https") => Ok(parsed),
        Some("http") if http => Ok(parsed),
        Some("http") => Err(IntrospectionError::NotHttps),
        _ => Err(IntrospectionError::Url),
    }
}
