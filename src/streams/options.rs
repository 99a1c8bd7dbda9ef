use std::time::Duration;

use crate::revocation::ScopeKind;

/// What ends open streams, and when.
///
/// ```
/// use std::time::Duration;
/// use tower_revocation::{revocation::ScopeKind, streams::EndStreams};
///
/// let options = EndStreams::default()
///     .grace(Duration::from_secs(20))
///     .at_expiry(true)
///     .scopes([ScopeKind::Session, ScopeKind::Subject]);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct EndStreams {
    pub(super) on: bool,
    pub(super) grace: Duration,
    pub(super) at_expiry: bool,
    pub(super) on_refresh: bool,
    pub(super) when_stale: bool,
    pub(super) small: u64,
    /// A bit for each kind.
    pub(super) kinds: u32,
}

impl Default for EndStreams {
    fn default() -> Self {
        Self {
            on: true,
            grace: Duration::ZERO,
            at_expiry: false,
            on_refresh: false,
            when_stale: true,
            small: 64 * 1024,
            kinds: u32::MAX,
        }
    }
}

impl EndStreams {
    /// Nothing ends: for a setting that turns it off without another type of layer.
    pub fn off() -> Self {
        Self { on: false, ..Self::default() }
    }

    /// How long a stream goes on after the revocation, so that its client can authenticate anew: it ends then, unless the
    /// revocation was lifted or [`Open::renew`](super::Open::renew) was told of a better token. Default: not at all.
    ///
    /// It takes a tokio runtime; without one a stream ends at once.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Whether a stream ends once its token has expired, as later requests with it would be refused: at `exp` and the
    /// leeway ([`Lifetimes::leeway`](crate::revocation::Lifetimes::leeway)). Default: no.
    ///
    /// It takes a tokio runtime, and a timer for each open stream (about 130 bytes).
    pub const fn at_expiry(mut self, ends: bool) -> Self {
        self.at_expiry = ends;
        self
    }

    /// The kinds of scopes whose revocation ends streams. Default: all.
    pub fn scopes(mut self, kinds: impl IntoIterator<Item = ScopeKind>) -> Self {
        self.kinds = kinds.into_iter().fold(0, |kinds, kind| kinds | 1 << kind as u32);
        self
    }

    /// Whether a stream ends when its token is revoked for no other reason than that a refresh put another into its place,
    /// with a [recorder](crate::recorder) that is told to do so. Default: no, since the session goes on. Whatever else
    /// revokes the token, or its session, still ends it.
    pub const fn on_refresh(mut self, ends: bool) -> Self {
        self.on_refresh = ends;
        self
    }

    /// Whether streams end once this node refuses requests since its list is stale: by then their tokens may be revoked
    /// without its knowledge. Default: yes. It is noticed within a few seconds. Where stale requests are served, their
    /// streams go on.
    pub const fn when_stale(mut self, ends: bool) -> Self {
        self.when_stale = ends;
        self
    }

    /// Up to how many bytes an answer, or the body of a request, of known length is not looked after: it is over before
    /// anything could end it. Default: 64 KiB.
    pub const fn small(mut self, bytes: u64) -> Self {
        self.small = bytes;
        self
    }
}
