//! The decision on one request, the same for every door.

mod enforcement;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use http::{Extensions, HeaderMap, Method, Uri, header, request::Parts};

pub(crate) use self::enforcement::Enforcement;
#[cfg(feature = "status-list")]
use crate::status_list::StatusLists;
#[cfg(feature = "streams")]
use crate::token::Carried;
use crate::{
    counts::{Counts, Step},
    denylist::{Denylist, Found as Listed, Why},
    policy::{NoToken, Policy},
    reject::Rejection,
    report::{Report, Reporter},
    response::{Challenge, Denial},
    rollout::{Place, Rollout, Rule, Shadow},
    token::{
        Asked, Claims, Found, Head, Identity, IdentitySource, Known, Question, Verified, VerifiedClaims, check_fresh,
    },
};
#[cfg(feature = "tracing")]
use crate::{revocation::ScopeKind, spans};

/// Decides whether a request may pass: finds its token, and asks the denylist.
///
/// Every door calls it: the tower layer, and proxies that speak their own types.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use http::Request;
/// use tower_revocation::{
///     Guard,
///     denylist::{Denylist, DenylistConfig, Staleness},
///     policy::Policy,
///     token::{Peek, VerifierBehind},
/// };
///
/// let denylist = Arc::new(Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(10)))));
/// let peek = Peek::new(VerifierBehind::i_promise()).issuer("https://issuer.example/");
/// let guard = Guard::new(denylist, peek, Policy::default());
/// let (request, ()) = Request::new(()).into_parts();
/// assert!(guard.check_parts(&request).is_ok());
/// ```
pub struct Guard<I> {
    denylist: Arc<Denylist>,
    source: I,
    policy: Policy,
    enforcement: Arc<Enforcement>,
    challenge: Arc<Challenge>,
    counts: Counts,
    reporter: Arc<Reporter>,
    #[cfg(feature = "status-list")]
    lists: Option<StatusLists>,
}

/// Why a request does not pass at once.
pub(crate) enum Held {
    Refused(Rejection),
    /// Somebody has to be asked: see [`Guard::ask`].
    Unclear(Box<Question>),
}

/// What the log says of a request.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only the log names it"))]
pub(crate) struct Line<'a> {
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
}

/// A request that may pass.
#[derive(Clone, Default)]
#[must_use]
pub struct Passed {
    verified: Option<Arc<Verified>>,
}

impl Passed {
    /// Who sent it, where the guard itself verified the token.
    pub fn identity(&self) -> Option<&Identity> {
        self.verified.as_deref().map(|verified| &verified.identity)
    }
}

impl fmt::Debug for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passed").field("identity", &self.identity()).finish()
    }
}

impl<I: IdentitySource> Guard<I> {
    /// Judges requests by this list, this source of identities and this policy.
    pub fn new(denylist: Arc<Denylist>, source: I, policy: Policy) -> Self {
        let enforcement = Arc::new(Enforcement::new(Arc::clone(&denylist), &policy));
        let reporter = Arc::new(Reporter::new(denylist.now().unix()));
        let mut counts = Counts::default();
        counts.missing.report = Some(Arc::clone(&reporter));
        Self {
            denylist,
            source,
            policy,
            enforcement,
            challenge: Arc::default(),
            counts,
            reporter,
            #[cfg(feature = "status-list")]
            lists: None,
        }
    }

    /// Holds tokens that point to a Token Status List against it too.
    ///
    /// A list that is not here yet has to be fetched, for which only doors that can ask wait
    /// ([`Guard::check_or_ask`]); the others answer 503, and have it fetched for the next time.
    #[cfg(feature = "status-list")]
    #[must_use]
    pub fn status_lists(mut self, lists: StatusLists) -> Self {
        self.lists = Some(lists);
        self
    }

    /// Says more in challenges.
    #[must_use]
    pub fn challenge(mut self, challenge: Challenge) -> Self {
        self.challenge = Arc::new(challenge);
        self
    }

    /// Judges a request by its head.
    ///
    /// Where the denylist is in [tiered mode](crate::denylist::Mode::Tiered), or the source of identities was told to ask
    /// others, it cannot always tell by itself: then the request is refused here, and [`Guard::check_parts_or_ask`] is the
    /// one to use.
    ///
    /// # Errors
    ///
    /// Where the request is to be refused. What is in shadow is not, and is counted.
    pub fn check_parts(&self, parts: &Parts) -> Result<Passed, Rejection> {
        self.check(&parts.method, &parts.uri, &parts.headers, &parts.extensions)
    }

    /// The same, from the pieces.
    ///
    /// # Errors
    ///
    /// Where the request is to be refused.
    #[inline]
    pub fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Passed, Rejection> {
        match self.judge(method, uri, headers, extensions) {
            Ok(passed) => Ok(passed),
            Err(Held::Refused(rejection)) => Err(rejection),
            Err(Held::Unclear(question)) => {
                let line = Line { method, uri };
                self.end(Rejection::Unknown(Why::NotAsked), question.place(), question.into_verified(), line)
            }
        }
    }

    /// Judges a request by its head; waits where somebody else has to tell, for no longer than was set there: for the
    /// backend in [tiered mode](crate::denylist::Mode::Tiered), or for whom the source of identities was told to ask.
    ///
    /// # Errors
    ///
    /// Where the request is to be refused. What is in shadow is not, and is counted.
    pub async fn check_parts_or_ask(&self, parts: &Parts) -> Result<Passed, Rejection> {
        self.check_or_ask(&parts.method, &parts.uri, &parts.headers, &parts.extensions).await
    }

    /// The same, from the pieces.
    ///
    /// # Errors
    ///
    /// Where the request is to be refused.
    pub async fn check_or_ask(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Passed, Rejection> {
        match self.judge(method, uri, headers, extensions) {
            Ok(passed) => Ok(passed),
            Err(Held::Refused(rejection)) => Err(rejection),
            Err(Held::Unclear(question)) => self.ask(*question, Line { method, uri }).await,
        }
    }

    /// Asks whoever can tell, and judges the request by what is known then.
    pub(crate) async fn ask(&self, question: Question, line: Line<'_>) -> Result<Passed, Rejection> {
        let known = match question {
            Question::Backend(known) => known,
            Question::Elsewhere { told, verified } => match told.await {
                Ok(known) => known,
                Err(rejection) => {
                    let place = verified.as_ref().and_then(|verified| verified.keys.place());
                    let shadow = self.enforcement.rollout().shadow_of(place);
                    if let (true, Some(verified)) = (shadow.covers(rejection), &verified) {
                        let known = Known::of(Arc::clone(verified));
                        if let Err(enforced) = self.check_known(&known, &self.policy.without(shadow)).await
                            && !shadow.covers(enforced)
                        {
                            return Err(self.count(enforced, false, Some(verified), None, line));
                        }
                    }
                    return self.end(rejection, place, verified, line);
                }
            },
        };
        let Err(rejection) = self.check_known(&known, &self.policy).await else {
            self.counts.step(Step::Clear);
            return Ok(Passed { verified: known.into_verified() });
        };
        let shadow = self.enforcement.rollout().shadow_of(known.place());
        if shadow.covers(rejection)
            && let Err(enforced) = self.check_known(&known, &self.policy.without(shadow)).await
            && !shadow.covers(enforced)
        {
            return Err(self.count(enforced, false, known.into_verified().as_deref(), None, line));
        }
        self.end(rejection, known.place(), known.into_verified(), line)
    }

    /// As a source judges a token that it knows, but for waiting where only the backend can tell.
    async fn check_known(&self, known: &Known, policy: &Policy) -> Result<(), Rejection> {
        let missing_iat = policy.missing_iat;
        for keys in known.keys() {
            let keys = &keys.without(policy.forgiven.scopes());
            let listed = match self.denylist.revoked(keys, missing_iat) {
                Some(Listed::Unclear) => match self.denylist.ask(keys, missing_iat).await {
                    Err(_) if policy.forgiven.has_rule(Rule::Unknown) => None,
                    answer => answer.map_err(Rejection::Unknown)?,
                },
                Some(Listed::Revoked(reason)) => Some(reason),
                None => None,
            };
            if let Some(reason) = listed {
                return Err(Rejection::Revoked(reason));
            }
        }
        // Time has passed meanwhile.
        let context = Asked { policy, ..self.asked() }.now();
        known.check_times(context)?;
        known.check_claims(context)?;
        check_fresh(context)
    }

    #[inline]
    fn asked(&self) -> Asked<'_> {
        Asked {
            denylist: &self.denylist,
            policy: &self.policy,
            counts: &self.counts,
            #[cfg(feature = "status-list")]
            lists: self.lists.as_ref(),
        }
    }

    /// Judges a request by what is at hand.
    #[inline]
    pub(crate) fn judge(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Passed, Held> {
        let (head, line) = (Head { uri, headers, extensions }, Line { method, uri });
        match self.source.judge(head, self.asked()) {
            Ok(Found::Clear(verified)) => {
                self.counts.step(Step::Clear);
                Ok(Passed { verified })
            }
            Ok(Found::Nothing) if self.policy.no_token == NoToken::Pass || is_preflight(method, headers) => {
                self.counts.step(Step::NoToken);
                Ok(Passed::default())
            }
            Ok(Found::Nothing) => self.hold(Rejection::NoToken, None, head, line),
            Ok(Found::Refused(rejection, verified)) => self.hold(rejection, Some(verified), head, line),
            Ok(Found::Unclear(question)) => Err(Held::Unclear(question)),
            Err(rejection) => self.hold(rejection, None, head, line),
        }
    }

    #[cfg(feature = "streams")]
    pub(crate) fn carried(&self, head: Head<'_>, passed: &Passed) -> Option<Carried> {
        self.source.carried(head, &self.denylist, passed.verified.as_deref())
    }

    #[cfg(feature = "streams")]
    pub(crate) const fn enforcement(&self) -> &Arc<Enforcement> {
        &self.enforcement
    }

    /// What challenges say, and whether they name the DPoP scheme.
    #[cfg(feature = "streams")]
    pub(crate) fn challenges(&self) -> (Arc<Challenge>, bool) {
        (Arc::clone(&self.challenge), self.source.challenges_dpop())
    }

    /// What becomes of a request that the whole policy refuses.
    #[cold]
    fn hold(
        &self,
        rejection: Rejection,
        verified: Option<Arc<Verified>>,
        head: Head<'_>,
        line: Line<'_>,
    ) -> Result<Passed, Held> {
        let rollout = self.enforcement.rollout();
        // What is looked for anew costs time, and is the same for everybody else.
        let place = match &verified {
            _ if !rollout.is_partial() => None,
            Some(verified) => verified.keys.place(),
            None => self.source.place(head, self.denylist.hasher()),
        };
        let shadow = rollout.shadow_of(place);
        if !shadow.covers(rejection) {
            return Err(Held::Refused(self.count(rejection, false, verified.as_deref(), Some(head), line)));
        }
        let passed = match shadow {
            Shadow::ALL => Ok(Passed { verified }),
            some => self.judge_without(some, verified, head, line),
        };
        let count = |verified: Option<&Verified>| self.count(rejection, true, verified, Some(head), line);
        match &passed {
            Err(Held::Refused(_)) => {}
            Ok(Passed { verified }) => {
                count(verified.as_deref());
            }
            // What is answered may refuse it yet; by what is known it passes.
            Err(Held::Unclear(_)) => {
                count(None);
            }
        }
        passed
    }

    /// Judges a request once more, by what is not in shadow.
    fn judge_without(
        &self,
        shadow: Shadow,
        verified: Option<Arc<Verified>>,
        head: Head<'_>,
        line: Line<'_>,
    ) -> Result<Passed, Held> {
        let policy = self.policy.without(shadow);
        #[cfg_attr(not(feature = "status-list"), expect(unused_mut, reason = "no list that could be left out"))]
        let mut asked = Asked { policy: &policy, ..self.asked() };
        #[cfg(feature = "status-list")]
        if shadow.has_rule(Rule::StatusList) {
            asked.lists = None;
        }
        let (rejection, verified) = match self.source.judge(head, asked) {
            Ok(Found::Clear(verified)) => return Ok(Passed { verified }),
            Ok(Found::Unclear(question)) => return Err(Held::Unclear(question)),
            Ok(Found::Nothing) => return Ok(Passed { verified }),
            Ok(Found::Refused(rejection, verified)) => (rejection, Some(verified)),
            Err(rejection) => (rejection, verified),
        };
        if shadow.covers(rejection) {
            return Ok(Passed { verified });
        }
        Err(Held::Refused(self.count(rejection, false, verified.as_deref(), Some(head), line)))
    }

    /// What becomes of a request that is refused for this and passes otherwise.
    fn end(
        &self,
        rejection: Rejection,
        place: Option<Place>,
        verified: Option<Arc<Verified>>,
        line: Line<'_>,
    ) -> Result<Passed, Rejection> {
        let shadow = self.enforcement.spares(rejection, place);
        let rejection = self.count(rejection, shadow, verified.as_deref(), None, line);
        // In shadow the service behind must see no difference, not even in who is calling.
        if shadow { Ok(Passed { verified }) } else { Err(rejection) }
    }

    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "only the log names it"))]
    fn count(
        &self,
        rejection: Rejection,
        shadow: bool,
        verified: Option<&Verified>,
        head: Option<Head<'_>>,
        line: Line<'_>,
    ) -> Rejection {
        let claims = match verified {
            Some(verified) => Some(verified.identity.claims()),
            None => head.and_then(|head| self.source.vouched(head)),
        };
        self.tell(rejection, shadow, claims.as_ref());
        #[cfg(feature = "tracing")]
        tracing::debug!(
            http.request.method = %line.method,
            url.path = %spans::Path(line.uri.path()),
            http.response.status_code = rejection.status().as_u16(),
            error.type = rejection.as_str(),
            revocation.scope = rejection.scope().map(ScopeKind::as_str),
            // Only what was verified is named.
            revocation.issuer = claims.as_ref().map(|claims| claims.iss),
            detail = %rejection,
            shadow,
            "request refused"
        );
        rejection
    }

    /// `claims`: of a token that was verified.
    fn tell(&self, rejection: Rejection, shadow: bool, claims: Option<&Claims<'_>>) {
        let count = if shadow { &self.counts.shadowed } else { &self.counts.refused };
        count.add(rejection);
        self.reporter.refused(rejection, shadow, claims, self.denylist.now().unix());
    }

    /// What becomes of a request that this guard lets pass and that a door refuses for a reason of its own: that counts
    /// as one of the guard's, and may be in shadow. `identity`: whose token was verified.
    ///
    /// # Errors
    ///
    /// Where the request is to be refused.
    pub fn reject(&self, rejection: Rejection, identity: Option<&Identity>) -> Result<(), Rejection> {
        let claims = identity.map(VerifiedClaims::claims);
        let place = claims.as_ref().and_then(|claims| claims.keys(self.denylist.hasher()).place());
        let shadow = self.enforcement.spares(rejection, place);
        self.tell(rejection, shadow, claims.as_ref());
        if shadow { Ok(()) } else { Err(rejection) }
    }

    /// The answer to a request with these headers that is refused for `rejection`.
    pub fn denial(&self, rejection: Rejection, request: &HeaderMap) -> Denial {
        let retry_after = self.policy.retry_after.as_secs().max(1);
        Denial::new(rejection, request, self.source.challenges_dpop(), Arc::clone(&self.challenge), retry_after)
    }

    /// What it has counted.
    #[cfg(feature = "metrics")]
    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The denylist that it asks.
    pub const fn denylist(&self) -> &Arc<Denylist> {
        &self.denylist
    }

    /// Its policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What of the policy is enforced now.
    pub fn rollout(&self) -> Rollout {
        self.enforcement.rollout()
    }

    /// Enforces more of the policy, or less, from the next request on.
    ///
    /// What a node no longer enforces it announces within a second. A publisher that waits for every node at just that
    /// time may still take it for one that does.
    ///
    /// ```
    /// # use std::{sync::Arc, time::Duration};
    /// # use tower_revocation::{Guard, denylist::{Denylist, DenylistConfig, Staleness}, policy::Policy};
    /// # use tower_revocation::{rollout::{Percent, Rollout, Shadow}, token::{FromExtension, Identity}};
    /// # let denylist = Arc::new(Denylist::new(DenylistConfig::new(Staleness::refuse_after(Duration::from_secs(10)))));
    /// let policy = Policy::default().shadow(Shadow::ALL);
    /// let guard = Guard::new(denylist, FromExtension::<Identity>::new(), policy);
    /// // Once the report looks right: for a tenth of the users.
    /// guard.roll_out(Rollout { percent: Percent::whole(10), ..Rollout::COMPLETE });
    /// assert_eq!(guard.rollout().percent, Percent::whole(10));
    /// ```
    pub fn roll_out(&self, rollout: Rollout) {
        self.enforcement.change(rollout);
    }

    /// Who sends what is refused, or would be, since the guard was made.
    pub fn report(&self) -> Report {
        self.reporter.report()
    }

    /// How many requests were refused since the start.
    pub fn refused(&self) -> u64 {
        self.counts.refused.sum()
    }

    /// How many requests passed since the start that would have been refused, but for what is in shadow.
    pub fn would_refuse(&self) -> u64 {
        self.counts.shadowed.sum()
    }

    /// How many requests were served while the list was stale, since the start.
    pub fn served_stale(&self) -> u64 {
        self.counts.served_stale.load(Ordering::Relaxed)
    }

    /// How many tokens had no `jti`, no `sid` and no `iat` since the start. A token that is found in the cache of
    /// verified ones was counted when it was verified.
    pub fn missing_claims(&self) -> [(&'static str, u64); 3] {
        self.counts.missing_claims()
    }
}

/// A browser's question before a cross-origin request; it carries no credentials, so this is asked only then.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && headers.contains_key(header::ORIGIN)
        && !headers.contains_key(header::AUTHORIZATION)
}

impl<I: fmt::Debug> fmt::Debug for Guard<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("denylist", &self.denylist)
            .field("source", &self.source)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
