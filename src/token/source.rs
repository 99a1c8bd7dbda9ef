use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Extensions, HeaderMap, Uri};

#[cfg(feature = "introspection")]
use super::Introspection;
#[cfg(feature = "status-list")]
use super::listed;
use super::{
    Claims, ExtractError, Extractor, OpaqueKeys, ScopeKeys, TokenCacheConfig, VerifiedClaims, Verifier, VerifyError,
    cache::{TokenCache, Verified},
    extract::Glance,
    question::{Known, Question, times},
    strict::CompactJws,
};
#[cfg(feature = "streams")]
use crate::revocation::ScopeKind;
#[cfg(feature = "status-list")]
use crate::status_list::StatusLists;
use crate::{
    counts::{Counts, Step},
    denylist::{Denylist, Found as Held, OutOfBounds, Why, bounds},
    policy::{MissingClaim, MissingIat, Policy, StaleRequests},
    reject::Rejection,
    report::Claim,
    revocation::ScopeHasher,
    rollout::{Place, Rule},
    time::Moment,
};

/// The head of a request, as every door sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) extensions: &'a Extensions,
}

/// What a source works with.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) denylist: &'a Denylist,
    pub(crate) policy: &'a Policy,
    pub(crate) counts: &'a Counts,
    #[cfg(feature = "status-list")]
    pub(crate) lists: Option<&'a StatusLists>,
}

impl<'a> Asked<'a> {
    /// Reads the clock, once there is a token to judge.
    #[inline]
    pub(crate) fn now(self) -> Context<'a> {
        Context {
            denylist: self.denylist,
            policy: self.policy,
            counts: self.counts,
            #[cfg(feature = "status-list")]
            lists: self.lists,
            now: self.denylist.now(),
        }
    }
}

/// The same, at a moment.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) denylist: &'a Denylist,
    pub(crate) policy: &'a Policy,
    counts: &'a Counts,
    #[cfg(feature = "status-list")]
    pub(crate) lists: Option<&'a StatusLists>,
    pub(crate) now: Moment,
}

/// What a source found.
pub(crate) enum Found {
    /// No token.
    Nothing,
    /// A token that may pass, and what is known of it where this source verified it.
    Clear(Option<Arc<Verified>>),
    /// A token that was verified and must not pass.
    Refused(Rejection, Arc<Verified>),
    /// A token of which what is at hand does not tell whether it may pass.
    Unclear(Box<Question>),
}

/// The token that a request carries, as far as its streams have to know.
#[cfg(feature = "streams")]
#[derive(Clone)]
pub(crate) struct Carried {
    pub(crate) keys: ScopeKeys,
    pub(crate) exp: Option<u64>,
}

#[cfg(feature = "streams")]
impl Carried {
    pub(crate) fn of(claims: &Claims<'_>, denylist: &Denylist) -> Self {
        Self { keys: claims.keys(denylist.hasher()), exp: claims.exp }
    }
}

pub(super) mod sealed {
    /// Says which token a request carries and whether it may pass.
    pub trait Source: Send + Sync + 'static {
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
        fn judge(&self, head: super::Head<'_>, asked: super::Asked<'_>) -> Result<super::Found, super::Rejection>;

        /// Whether challenges name the DPoP scheme.
        #[doc(hidden)]
        fn challenges_dpop(&self) -> bool;

        /// What the token of a request that passed can be revoked under. Asked only where streams are to end.
        #[cfg(feature = "streams")]
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
        fn carried(
            &self,
            head: super::Head<'_>,
            denylist: &super::Denylist,
            verified: Option<&super::Verified>,
        ) -> Option<super::Carried>;

        /// The claims behind a request that was verified outside.
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
        fn vouched<'a>(&self, head: super::Head<'a>) -> Option<super::Claims<'a>> {
            let _ = head;
            None
        }

        /// Where the user stands in a roll-out, of a token that [`judge`](Self::judge) refused without saying whose it is.
        #[doc(hidden)]
        #[expect(private_interfaces, reason = "sealed: only this crate calls it")]
        fn place(&self, head: super::Head<'_>, hasher: &super::ScopeHasher) -> Option<super::Place> {
            self.vouched(head)?.keys(hasher).place()
        }
    }
}

pub(crate) use sealed::Source;

/// Where the identity of a request comes from: [`FromExtension`], [`Verify`] or [`Peek`](super::Peek).
///
/// Sealed: implement [`VerifiedClaims`] or [`Verifier`] to bring your own.
pub trait IdentitySource: sealed::Source {}

impl<T: sealed::Source> IdentitySource for T {}

/// Refuses what no revocation could ever reach.
#[inline]
pub(super) fn check_times(iat: Option<u64>, exp: Option<u64>, context: Context<'_>) -> Result<(), VerifyError> {
    bounds::check(iat, exp, context.denylist.lifetimes(), context.now).or_else(|out| out_of_bounds(out, iat, context))
}

#[cold]
fn out_of_bounds(out: OutOfBounds, iat: Option<u64>, context: Context<'_>) -> Result<(), VerifyError> {
    let error = match out {
        OutOfBounds::Expired => VerifyError::Expired,
        OutOfBounds::LivesTooLong => VerifyError::LivesTooLong,
        OutOfBounds::Future => VerifyError::NotYetValid,
        OutOfBounds::Absurd => VerifyError::Malformed,
    };
    if !context.policy.forgiven.covers(Rejection::Token(error)) {
        return Err(error);
    }
    if out != OutOfBounds::LivesTooLong {
        return Ok(());
    }
    // What is looked at after that counts as before: whether it claims to be issued in the future.
    let now = context.now.unix();
    check_times(iat.map(|iat| iat.max(now)), Some(now.saturating_add(1)), context)
}

/// Whose missing claims are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reported {
    /// Nobody's: the token is not verified.
    None,
    /// Each token's.
    Each,
    /// Each of the first, then some: requests that pass are counted here.
    Some,
}

/// Counts the claims that are left out, whatever the policy is: the number says what a stricter one would do.
#[inline]
pub(super) fn count_missing(claims: &Claims<'_>, reported: Reported, context: Context<'_>) {
    let missing = &context.counts.missing;
    let count = |there: bool, count: &AtomicU64, claim| {
        // What is judged anew was counted already.
        if !there && context.policy.forgiven.is_nothing() {
            let before = count.fetch_add(1, Ordering::Relaxed);
            report_missing(claim, before, claims, reported, context);
        }
    };
    count(claims.jti.is_some(), &missing.jti, Claim::Jti);
    count(claims.sid.is_some(), &missing.sid, Claim::Sid);
    count(claims.iat.is_some(), &missing.iat, Claim::Iat);
}

/// How many are reported each, before one in so many stands for the others.
const REPORTED_EACH: u64 = 4096;
const REPORTED_THEN: u64 = 64;

#[inline]
fn report_missing(claim: Claim, before: u64, claims: &Claims<'_>, reported: Reported, context: Context<'_>) {
    let stands_for = match reported {
        Reported::None => return,
        Reported::Some if before >= REPORTED_EACH => {
            if !before.is_multiple_of(REPORTED_THEN) {
                return;
            }
            REPORTED_THEN
        }
        Reported::Each | Reported::Some => 1,
    };
    if let Some(report) = &context.counts.missing.report {
        report.missing(claim, claims, stands_for, context.now.unix());
    }
}

/// The policies for claims that are left out.
#[inline]
pub(super) fn check_claims(claims: &Claims<'_>, policy: &Policy) -> Result<(), Rejection> {
    let check = |there: bool, deny: bool, rejection| if there || !deny { Ok(()) } else { Err(rejection) };
    check(claims.jti.is_some(), policy.missing_jti == MissingClaim::Deny, Rejection::MissingJti)?;
    check(claims.sid.is_some(), policy.missing_sid == MissingClaim::Deny, Rejection::MissingSid)?;
    check(claims.iat.is_some(), policy.missing_iat == MissingIat::Deny, Rejection::MissingIat)
}

/// What the denylist says, without what is forgiven.
#[inline]
pub(super) fn look_up(keys: &ScopeKeys, context: Context<'_>) -> Option<Held> {
    let held = context.denylist.revoked(keys, context.policy.missing_iat)?;
    if context.policy.forgiven.is_nothing() { Some(held) } else { look_up_without(keys, context) }
}

#[cold]
fn look_up_without(keys: &ScopeKeys, context: Context<'_>) -> Option<Held> {
    context.denylist.revoked(&keys.without(context.policy.forgiven.scopes()), context.policy.missing_iat)
}

/// The verdict of the denylist as a result. What is unclear is refused: nobody asks for a token that is not verified.
#[inline]
pub(super) fn check_revoked(keys: &ScopeKeys, context: Context<'_>) -> Result<(), Rejection> {
    match look_up(keys, context) {
        None => check_fresh(context),
        Some(Held::Revoked(reason)) => Err(Rejection::Revoked(reason)),
        Some(Held::Unclear) => check_fresh(context).and(Err(Rejection::Unknown(Why::NotAsked))),
    }
}

/// Whether "not revoked" can be trusted, or the policy is to do without.
#[inline]
pub(crate) fn check_fresh(context: Context<'_>) -> Result<(), Rejection> {
    match context.denylist.freshness(context.now) {
        None => Ok(()),
        Some(doubt) => serve_stale(doubt, context),
    }
}

#[cold]
fn not_clear(held: Held, verified: Arc<Verified>, context: Context<'_>) -> Found {
    match (held, check_fresh(context)) {
        (Held::Revoked(reason), _) => Found::Refused(Rejection::Revoked(reason), verified),
        // A node that refuses anyway asks nobody.
        (Held::Unclear, Err(doubt)) => Found::Refused(doubt, verified),
        (Held::Unclear, Ok(())) => Found::Unclear(Box::new(Question::Backend(Known::of(verified)))),
    }
}

#[cold]
fn serve_stale(doubt: Why, context: Context<'_>) -> Result<(), Rejection> {
    let serves = match context.policy.stale {
        StaleRequests::AsConfigured => context.denylist.staleness_policy().serves(),
        StaleRequests::Serve => true,
        StaleRequests::Refuse => false,
    };
    if context.policy.forgiven.has_rule(Rule::Unknown) {
        return Ok(());
    }
    // Serving on was chosen for a backend that is away, not for a list that nobody keeps.
    if doubt != Why::Stale || !serves || context.denylist.is_abandoned() {
        return Err(Rejection::Unknown(doubt));
    }
    // What is judged anew was counted already.
    if context.policy.forgiven.is_nothing() {
        context.counts.served_stale.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The identity is in the request's extensions already, put there by a layer outside that verified the token.
///
/// A request that presents a token but has no such extension is refused: the verifying layer did not run, or
/// runs inside, and passing the request on would skip the check. Say where tokens are presented with
/// [`FromExtension::extractor`] where that is not the `Authorization` header (a session cookie, say), or ask for an
/// identity on every request ([`NoToken::Deny`](crate::policy::NoToken::Deny)): else a layer in the wrong order checks
/// nothing.
#[must_use]
pub struct FromExtension<T> {
    extractor: Extractor,
    claims: PhantomData<fn() -> T>,
}

impl<T: VerifiedClaims> FromExtension<T> {
    /// Reads the claims `T`.
    pub fn new() -> Self {
        Self { extractor: Extractor::default(), claims: PhantomData }
    }

    /// Where the outside layer takes tokens from; decides what counts as presenting one. Default: bearer.
    pub fn extractor(mut self, extractor: Extractor) -> Self {
        self.extractor = extractor;
        self
    }
}

impl<T: VerifiedClaims> Default for FromExtension<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(private_interfaces, reason = "sealed: only this crate calls it")]
impl<T: VerifiedClaims> sealed::Source for FromExtension<T> {
    #[inline]
    fn judge(&self, head: Head<'_>, asked: Asked<'_>) -> Result<Found, Rejection> {
        // Two credentials are refused whatever the layer outside made of them.
        let presents_token = self.extractor.presents(head.headers, head.uri)?;
        let Some(claims) = head.extensions.get::<T>() else {
            return if presents_token { Err(Rejection::NotVerified) } else { Ok(Found::Nothing) };
        };
        let context = asked.now();
        let (verified, denylist) = (claims.claims(), context.denylist);
        if let Some((iat, exp)) = times(&verified) {
            check_times(iat, exp, context)?;
        }
        count_missing(&verified, Reported::Some, context);
        check_claims(&verified, context.policy)?;
        #[cfg(feature = "status-list")]
        if let Some(unclear) = listed::by_claims(&verified, context)? {
            return Ok(unclear);
        }
        let checked = match claims.keys(denylist.hasher()) {
            Some(keys) => check_revoked(keys, context),
            None => check_revoked(&verified.keys_among(denylist.hasher(), denylist.kinds()), context),
        };
        match checked {
            Ok(()) => Ok(Found::Clear(None)),
            Err(Rejection::Unknown(Why::NotAsked)) => {
                let keys = verified.keys(denylist.hasher());
                Ok(Found::Unclear(Box::new(Question::Backend(Known::of_claims(&verified, keys)))))
            }
            Err(rejection) => Err(rejection),
        }
    }

    fn challenges_dpop(&self) -> bool {
        self.extractor.challenges_dpop()
    }

    #[cfg(feature = "streams")]
    fn carried(&self, head: Head<'_>, denylist: &Denylist, _: Option<&Verified>) -> Option<Carried> {
        let claims = head.extensions.get::<T>()?;
        let exp = claims.claims().exp;
        match claims.keys(denylist.hasher()) {
            Some(keys) => Some(Carried { keys: keys.clone(), exp }),
            None => Some(Carried::of(&claims.claims(), denylist)),
        }
    }

    fn vouched<'a>(&self, head: Head<'a>) -> Option<Claims<'a>> {
        head.extensions.get::<T>().map(VerifiedClaims::claims)
    }
}

impl<T> fmt::Debug for FromExtension<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromExtension").field("extractor", &self.extractor).finish()
    }
}

/// The layer verifies tokens itself, and remembers those that it has verified.
#[must_use]
pub struct Verify<V> {
    verifier: V,
    extractor: Extractor,
    cache: TokenCache,
    opaque: Option<Opaque>,
}

/// What becomes of opaque tokens.
#[derive(Debug)]
enum Opaque {
    /// They pass unless their digest is revoked.
    Passed(OpaqueKeys),
    /// Their issuer is asked.
    #[cfg(feature = "introspection")]
    Introspected(Box<Introspection>),
}

impl Opaque {
    /// What opaque tokens are digested with.
    const fn keys(&self) -> &OpaqueKeys {
        match self {
            Self::Passed(keys) => keys,
            #[cfg(feature = "introspection")]
            Self::Introspected(introspection) => introspection.digests(),
        }
    }
}

impl<V: Verifier> Verify<V> {
    /// Verifies with `verifier`. Takes bearer tokens.
    pub fn new(verifier: V) -> Self {
        Self {
            verifier,
            extractor: Extractor::default(),
            cache: TokenCache::new(TokenCacheConfig::default()),
            opaque: None,
        }
    }

    /// Where tokens are taken from.
    pub fn extractor(mut self, extractor: Extractor) -> Self {
        self.extractor = extractor;
        self
    }

    /// The size of the verified-token cache.
    pub fn cache(mut self, config: TokenCacheConfig) -> Self {
        self.cache = TokenCache::new(config);
        self
    }

    /// Lets opaque tokens (whatever is not shaped like a JWT) through unless their digest is revoked.
    ///
    /// Nothing here can verify them: the service behind must. Without this they are refused.
    pub fn opaque(mut self, keys: OpaqueKeys) -> Self {
        self.opaque = Some(Opaque::Passed(keys));
        self
    }

    /// Asks their issuer about opaque tokens (whatever is not shaped like a JWT). Without this, and without
    /// [`Verify::opaque`], they are refused.
    #[cfg(feature = "introspection")]
    pub fn introspect(mut self, introspection: Introspection) -> Self {
        self.opaque = Some(Opaque::Introspected(Box::new(introspection)));
        self
    }

    #[cold]
    fn verify(&self, token: &str, epoch: u64, context: Context<'_>) -> Result<Arc<Verified>, Rejection> {
        context.counts.step(Step::NotCached);
        let identity = self.verifier.verify(token, context.now.unix())?;
        count_missing(&identity.claims(), Reported::Each, context);
        let keys = identity.claims().keys(context.denylist.hasher());
        let verified = Verified::new(token, identity, keys, epoch);
        #[cfg(feature = "status-list")]
        let verified = listed::located(verified, context)?;
        let verified = Arc::new(verified);
        // What was left out of a second look must not be left out of the next first one.
        if context.policy.forgiven.is_nothing() {
            self.cache.insert(Arc::clone(&verified));
        }
        Ok(verified)
    }

    fn judge_opaque(opaque: &Opaque, token: &str, context: Context<'_>) -> Result<Found, Rejection> {
        #[allow(clippy::infallible_destructuring_match, reason = "without introspection there is one kind")]
        let keys = match opaque {
            Opaque::Passed(keys) => keys,
            #[cfg(feature = "introspection")]
            Opaque::Introspected(introspection) => return introspection.judge(token, context),
        };
        for digest in keys.digests(token.as_bytes()) {
            check_revoked(&Claims::default().opaque(&digest).keys(context.denylist.hasher()), context)?;
        }
        Ok(Found::Clear(None))
    }
}

#[expect(private_interfaces, reason = "sealed: only this crate calls it")]
impl<V: Verifier> sealed::Source for Verify<V> {
    #[inline]
    fn judge(&self, head: Head<'_>, asked: Asked<'_>) -> Result<Found, Rejection> {
        let glance = self.extractor.glance(head.headers, head.uri);
        if glance == Glance::Nothing {
            return Ok(Found::Nothing);
        }
        // Before anything is looked at: what changes meanwhile makes the next request look again.
        let epoch = self.verifier.epoch();
        // A token that is equal to a verified one, byte for byte, was checked for its spelling too.
        let known = if let Glance::Bearer(token) = glance { self.cache.get(token, epoch, asked.counts) } else { None };
        let (verified, context) = match known {
            Some(verified) => (verified, asked.now()),
            None => {
                let Some(credential) = self.extractor.find(head.headers, head.uri)? else { return Ok(Found::Nothing) };
                let (token, context) = (credential.token(), asked.now());
                let looked_up = glance == Glance::Bearer(token.as_bytes());
                let known = if looked_up { None } else { self.cache.get(token.as_bytes(), epoch, asked.counts) };
                match (known, &self.opaque) {
                    (Some(verified), _) => (verified, context),
                    (None, Some(opaque)) if !CompactJws::looks_like(token) => {
                        return Self::judge_opaque(opaque, token, context);
                    }
                    (None, _) => (self.verify(token, epoch, context)?, context),
                }
            }
        };
        // Time changes no generation: it is compared on every request.
        if let Err(error) = check_times(verified.identity.iat(), verified.identity.exp(), context) {
            return Ok(Found::Refused(error.into(), verified));
        }
        if verified.lacks_claims
            && let Err(rejection) = check_claims(&verified.identity.claims(), context.policy)
        {
            return Ok(Found::Refused(rejection, verified));
        }
        #[cfg(feature = "status-list")]
        if let Some(held) = listed::by_verified(&verified, context) {
            return Ok(held);
        }
        if let Some(held) = look_up(&verified.keys, context) {
            return Ok(not_clear(held, verified, context));
        }
        if let Err(doubt) = check_fresh(context) {
            return Ok(Found::Refused(doubt, verified));
        }
        Ok(Found::Clear(Some(verified)))
    }

    fn challenges_dpop(&self) -> bool {
        self.extractor.challenges_dpop()
    }

    #[cfg(feature = "streams")]
    fn carried(&self, head: Head<'_>, denylist: &Denylist, verified: Option<&Verified>) -> Option<Carried> {
        let known = verified.map(|of| Carried { keys: of.keys.clone(), exp: of.identity.exp() });
        let (Some(opaque), Some(credential)) = (&self.opaque, self.extractor.find(head.headers, head.uri).ok()?) else {
            return known;
        };
        let token = credential.token();
        if CompactJws::looks_like(token) {
            return known;
        }
        joined_with_digests(known, opaque.keys(), token, denylist)
    }

    fn place(&self, head: Head<'_>, hasher: &ScopeHasher) -> Option<Place> {
        let credential = self.extractor.find(head.headers, head.uri).ok().flatten()?;
        let opaque = self.opaque.as_ref().filter(|_| !CompactJws::looks_like(credential.token()))?;
        let digest = opaque.keys().digests(credential.token().as_bytes()).next()?;
        Claims::default().opaque(&digest).keys(hasher).place()
    }
}

/// With the keys of the digests of an opaque token: it may be revoked under any of them.
#[cfg(feature = "streams")]
pub(super) fn joined_with_digests(
    known: Option<Carried>,
    keys: &OpaqueKeys,
    token: &str,
    denylist: &Denylist,
) -> Option<Carried> {
    let digests = keys.digests(token.as_bytes());
    let digests = digests.map(|digest| {
        let Carried { keys, exp } = Carried::of(&Claims::default().opaque(&digest), denylist);
        // The digest alone: the rest is of no issuer.
        Carried { keys: keys.only(1 << ScopeKind::OpaqueToken as u32), exp }
    });
    known.into_iter().chain(digests).reduce(|mut all, more| {
        all.keys.join(&more.keys);
        all
    })
}

impl<V> fmt::Debug for Verify<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify")
            .field("extractor", &self.extractor)
            .field("opaque", &self.opaque)
            .finish_non_exhaustive()
    }
}

impl From<ExtractError> for Rejection {
    fn from(error: ExtractError) -> Self {
        Self::Credential(error)
    }
}

impl From<VerifyError> for Rejection {
    fn from(error: VerifyError) -> Self {
        Self::Token(error)
    }
}
