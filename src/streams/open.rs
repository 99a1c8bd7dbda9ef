use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, Sleep, sleep_until},
};

use super::{GuardedIo, Streams};
use crate::{
    denylist::{
        Reason, Why,
        streams::{Registered, Told},
    },
    reject::Rejection,
    rollout::Place,
    token::{Carried, ScopeKeys, VerifiedClaims, VerifyError},
};

/// A stream that is open, and hears of it when its token is revoked. Dropping it ends the registration.
///
/// Where a stream is neither a body nor bytes, ask it beside whatever else is awaited:
///
/// ```
/// # use tower_revocation::streams::Opening;
/// # async fn next() -> Option<String> { None }
/// async fn serve(opening: Opening) {
///     let mut open = opening.open();
///     loop {
///         tokio::select! {
///             rejection = open.ended() => return println!("over: {rejection}"),
///             Some(message) = next() => println!("{message}"),
///             else => return,
///         }
///     }
/// }
/// # let _ = serve;
/// ```
#[must_use = "dropping it ends the registration"]
pub struct Open {
    streams: Streams,
    registered: Option<Registered>,
    /// [`NEVER`]: it has none.
    exp: u64,
    waiting: Option<Box<Waiting>>,
    phase: Phase,
    /// Where its user stands in a roll-out.
    place: Option<Place>,
}

/// What it waits for besides the denylist.
enum Waiting {
    Timer(Pin<Box<Sleep>>),
    Backend(Asking),
}

type Asking = Pin<Box<dyn Future<Output = Result<Option<Reason>, Why>> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is revoked.
    Good,
    /// It was revoked, and ends when the timer does.
    Grace,
    /// Shadow mode has counted it.
    Shadowed,
    Over(Rejection),
}

const NEVER: u64 = u64::MAX;
/// The longest time between two looks at a wall clock that may be stepped.
const LOOK: Duration = Duration::from_secs(60 * 60);

impl Open {
    pub(super) fn new(streams: Streams, keys: &ScopeKeys, place: Option<Place>, exp: Option<u64>) -> Self {
        let shared = &streams.0;
        let registered = shared.denylist.register(keys, shared.terms);
        let waiting = registered.as_ref().filter(|registered| registered.unclear).map(|_| {
            let (denylist, keys, missing_iat) = (Arc::clone(&shared.denylist), keys.clone(), shared.terms.missing_iat);
            let asking = async move { denylist.ask(&keys, missing_iat).await };
            Box::new(Waiting::Backend(Box::pin(asking)))
        });
        Self { streams, registered, exp: exp.unwrap_or(NEVER), waiting, phase: Phase::Good, place }
    }

    /// Waits until it is to end, and says why. Cheap to call again and again.
    pub async fn ended(&mut self) -> Rejection {
        poll_fn(|context| self.poll_ended(context)).await
    }

    /// The same as a poll. One task at a time hears of it: the one that asked last.
    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Rejection> {
        if let Phase::Over(rejection) = self.phase {
            return Poll::Ready(rejection);
        }
        let Some(registered) = &self.registered else {
            // No place is left for it: what cannot be ended is not begun.
            return self.over(Rejection::Unknown(Why::NotAsked));
        };
        let shared = &self.streams.0;
        let told = shared.denylist.poll_stream(&registered.ticket, shared.terms.ends_when_stale, context.waker());
        match (told, self.phase) {
            (Told::Revoked(kind), _) => return self.revoked(Reason::Revoked(kind), context),
            (Told::Stale(why), _) if !self.is_spared(Rejection::Unknown(why)) => {
                return self.over(Rejection::Unknown(why));
            }
            (Told::Nothing, Phase::Grace) => {
                // The revocation was lifted.
                (self.phase, self.waiting) = (Phase::Good, None);
            }
            _ => {}
        }
        if let Some(Waiting::Backend(asking)) = self.waiting.as_deref_mut() {
            let Poll::Ready(answer) = asking.as_mut().poll(context) else { return Poll::Pending };
            self.waiting = None;
            match answer {
                Ok(None) => {}
                Ok(Some(reason)) => return self.revoked(reason, context),
                Err(why) if self.is_spared(Rejection::Unknown(why)) => return self.shadowed(Rejection::Unknown(why)),
                Err(why) => return self.over(Rejection::Unknown(why)),
            }
        }
        self.poll_expiry(context)
    }

    /// Goes on under another token of the same user, which its client has sent meanwhile: from now on the stream ends with
    /// that. The caller has verified it, and that it is the same user's.
    pub fn renew(&mut self, claims: &impl VerifiedClaims) {
        let streams = self.streams.clone();
        let carried = Carried::of(&claims.claims(), &streams.0.denylist);
        let (keys, place) = streams.watched(&carried.keys);
        // What is over stays over.
        if !matches!(self.phase, Phase::Over(_)) {
            *self = Self::new(streams, &keys, place, carried.exp);
        }
    }

    /// Watches over a connection: once it is to end, reads and writes fail and the connection is closed.
    pub fn guard_io<T>(self, io: T) -> GuardedIo<T> {
        GuardedIo::new(self, io)
    }

    fn revoked(&mut self, reason: Reason, context: &mut Context<'_>) -> Poll<Rejection> {
        let (rejection, shared) = (Rejection::Revoked(reason), &self.streams.0);
        if self.is_spared(rejection) {
            return self.shadowed(rejection);
        }
        let grace = shared.options.grace;
        if self.phase != Phase::Grace {
            self.phase = Phase::Grace;
            self.waiting = timer(grace).map(|timer| Box::new(Waiting::Timer(timer)));
        }
        if self.poll_timer(context) == Some(Poll::Pending) { Poll::Pending } else { self.over(rejection) }
    }

    fn poll_expiry(&mut self, context: &mut Context<'_>) -> Poll<Rejection> {
        let shared = &self.streams.0;
        if !shared.options.at_expiry || self.exp == NEVER || self.phase == Phase::Shadowed {
            return Poll::Pending;
        }
        let end = self.exp.saturating_add(shared.denylist.lifetimes().leeway_secs());
        loop {
            let left = end.saturating_mul(1000).saturating_sub(self.streams.0.denylist.exact_now().wall);
            let rejection = Rejection::Token(VerifyError::Expired);
            if left == 0 {
                return if self.is_spared(rejection) { self.shadowed(rejection) } else { self.over(rejection) };
            }
            if self.waiting.is_none() {
                // Wall clocks are stepped, and timers know nothing of that.
                self.waiting =
                    timer(Duration::from_millis(left).min(LOOK)).map(|timer| Box::new(Waiting::Timer(timer)));
            }
            match self.poll_timer(context) {
                Some(Poll::Pending) => return Poll::Pending,
                Some(Poll::Ready(())) => self.waiting = None,
                // Nothing would tell when it has expired.
                None => return self.over(rejection),
            }
        }
    }

    fn is_spared(&self, rejection: Rejection) -> bool {
        self.streams.0.enforcement.spares(rejection, self.place)
    }

    fn poll_timer(&mut self, context: &mut Context<'_>) -> Option<Poll<()>> {
        match self.waiting.as_deref_mut() {
            Some(Waiting::Timer(timer)) => Some(timer.as_mut().poll(context)),
            _ => None,
        }
    }

    fn shadowed(&mut self, rejection: Rejection) -> Poll<Rejection> {
        if self.phase != Phase::Shadowed {
            (self.phase, self.waiting) = (Phase::Shadowed, None);
            self.streams.0.denylist.count_ended(true);
            log(rejection, true);
        }
        Poll::Pending
    }

    fn over(&mut self, rejection: Rejection) -> Poll<Rejection> {
        self.release();
        (self.phase, self.waiting) = (Phase::Over(rejection), None);
        self.streams.0.denylist.count_ended(false);
        log(rejection, false);
        Poll::Ready(rejection)
    }

    fn release(&mut self) {
        if let Some(registered) = self.registered.take() {
            self.streams.0.denylist.release(&registered.ticket);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// A timer; `None` where there is nothing to wait for, or nothing to wait with.
fn timer(after: Duration) -> Option<Pin<Box<Sleep>>> {
    if after.is_zero() || Handle::try_current().is_err() {
        return None;
    }
    Some(Box::pin(sleep_until(Instant::now().checked_add(after)?)))
}

#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
fn log(rejection: Rejection, shadow: bool) {
    #[cfg(feature = "tracing")]
    tracing::debug!(reason = rejection.as_str(), detail = %rejection, shadow, "stream ended");
}
