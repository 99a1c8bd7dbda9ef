//! The decision on one request, the same for every door.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use http::{Extensions, HeaderMap, Method, Uri, header, request::Parts};

#[cfg(feature = "status-list")]
use crate::status_list::StatusLists;
#[cfg(feature = "streams")]
use crate::token::Carried;
use crate::{
    counts::{Counts, Step},
    denylist::{Denylist, Found as Listed, Why},
    policy::{NoToken, Policy, StaleRequests},
    reject::Rejection,
    response::{Challenge, Denial},
    token::{Asked, Found, Head, Identity, IdentitySource, Known, Question, Verified, check_fresh},
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
    challenge: Arc<Challenge>,
    counts: Counts,
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
        if policy.stale == StaleRequests::Serve || policy.shadow {
            denylist.serves_somewhere();
        }
        Self {
            denylist,
            source,
            policy,
            challenge: Arc::default(),
            counts: Counts::default(),
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
    /// Where the request is to be refused. In shadow mode nothing is, and what would be is counted.
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
                self.refuse(Rejection::Unknown(Why::NotAsked), question.into_verified(), Line { method, uri })
            }
        }
    }

    /// Judges a request by its head; waits where somebody else has to tell, for no longer than was set there: for the
    /// backend in [tiered mode](crate::denylist::Mode::Tiered), or for whom the source of identities was told to ask.
    ///
    /// # Errors
    ///
    /// Where the request is to be refused. In shadow mode nothing is, and what would be is counted.
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
                Err(rejection) => return self.refuse(rejection, verified, line),
            },
        };
        match self.check_known(&known).await {
            Ok(()) => {
                self.counts.step(Step::Clear);
                Ok(Passed { verified: known.into_verified() })
            }
            Err(rejection) => self.refuse(rejection, known.into_verified(), line),
        }
    }

    /// As a source judges a token that it knows, but for waiting where only the backend can tell.
    async fn check_known(&self, known: &Known) -> Result<(), Rejection> {
        let missing_iat = self.policy.missing_iat;
        for keys in known.keys() {
            let listed = match self.denylist.revoked(keys, missing_iat) {
                Some(Listed::Unclear) => self.denylist.ask(keys, missing_iat).await.map_err(Rejection::Unknown)?,
                Some(Listed::Revoked(reason)) => Some(reason),
                None => None,
            };
            if let Some(reason) = listed {
                return Err(Rejection::Revoked(reason));
            }
        }
        // Time has passed meanwhile.
        let context = self.asked().now();
        known.check_times(context)?;
        known.check_claims(context)?;
        check_fresh(context)
    }

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
        let refused = |refused: Result<Passed, Rejection>| refused.map_err(Held::Refused);
        let line = Line { method, uri };
        match self.source.judge(Head { uri, headers, extensions }, self.asked()) {
            Ok(Found::Clear(verified)) => {
                self.counts.step(Step::Clear);
                Ok(Passed { verified })
            }
            Ok(Found::Nothing) if self.policy.no_token == NoToken::Pass || is_preflight(method, headers) => {
                self.counts.step(Step::NoToken);
                Ok(Passed::default())
            }
            Ok(Found::Nothing) => refused(self.refuse(Rejection::NoToken, None, line)),
            Ok(Found::Refused(rejection, verified)) => refused(self.refuse(rejection, Some(verified), line)),
            Ok(Found::Unclear(question)) => Err(Held::Unclear(question)),
            Err(rejection) => refused(self.refuse(rejection, None, line)),
        }
    }

    #[cfg(feature = "streams")]
    pub(crate) fn carried(&self, head: Head<'_>, passed: &Passed) -> Option<Carried> {
        self.source.carried(head, &self.denylist, passed.verified.as_deref())
    }

    /// What challenges say, and whether they name the DPoP scheme.
    #[cfg(feature = "streams")]
    pub(crate) fn challenges(&self) -> (Arc<Challenge>, bool) {
        (Arc::clone(&self.challenge), self.source.challenges_dpop())
    }

    #[cold]
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "only the log names it"))]
    fn refuse(
        &self,
        rejection: Rejection,
        verified: Option<Arc<Verified>>,
        line: Line<'_>,
    ) -> Result<Passed, Rejection> {
        let shadow = self.policy.shadow;
        let count = if shadow { &self.counts.shadowed } else { &self.counts.refused };
        count.add(rejection);
        #[cfg(feature = "tracing")]
        tracing::debug!(
            http.request.method = %line.method,
            url.path = %spans::Path(line.uri.path()),
            http.response.status_code = rejection.status().as_u16(),
            error.type = rejection.as_str(),
            revocation.scope = rejection.scope().map(ScopeKind::as_str),
            // Only what was verified is named.
            revocation.issuer = verified.as_deref().map(|verified| verified.identity.iss()),
            detail = %rejection,
            shadow,
            "request refused"
        );
        // In shadow the service behind must see no difference, not even in who is calling.
        if shadow { Ok(Passed { verified }) } else { Err(rejection) }
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

    /// How many requests were refused since the start.
    pub fn refused(&self) -> u64 {
        self.counts.refused.sum()
    }

    /// How many requests shadow mode would have refused since the start.
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
