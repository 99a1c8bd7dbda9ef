//! Endpoints on and off while they run.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Names an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EndpointName {
    /// Token revocation (RFC 7009).
    Token,
    /// Session revocation.
    Session,
    /// Global token revocation (draft-parecki-oauth-global-token-revocation).
    Global,
    /// The receiver of logout tokens (OpenID Connect Back-Channel Logout 1.0).
    BackchannelLogout,
    /// The receiver of security events (RFC 8935).
    Events,
    /// Introspection (RFC 7662).
    Introspection,
}

impl EndpointName {
    /// Every endpoint.
    pub const ALL: [Self; 6] =
        [Self::Token, Self::Session, Self::Global, Self::BackchannelLogout, Self::Events, Self::Introspection];

    /// The name used in configuration, logs and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::Global => "global",
            Self::BackchannelLogout => "backchannel_logout",
            Self::Events => "events",
            Self::Introspection => "introspection",
        }
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Switches endpoints off and on, at any time, for requests that arrive from then on. Clones turn the same switches.
///
/// An endpoint that is off is not advertised. Its path belongs to the service behind, or answers 403 in the Janssen
/// [`Profile`](super::Profile); it never pretends success.
#[derive(Clone)]
pub struct Switches(Arc<[AtomicBool; EndpointName::ALL.len()]>);

impl Switches {
    /// Everything on.
    pub fn new() -> Self {
        Self(Arc::new(EndpointName::ALL.map(|_| AtomicBool::new(true))))
    }

    /// Turns an endpoint on or off.
    pub fn set(&self, endpoint: EndpointName, on: bool) {
        self.0[endpoint as usize].store(on, Ordering::Relaxed);
    }

    /// Whether an endpoint is on.
    pub fn is_on(&self, endpoint: EndpointName) -> bool {
        self.0[endpoint as usize].load(Ordering::Relaxed)
    }
}

impl Default for Switches {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Switches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(EndpointName::ALL.map(|endpoint| (endpoint, self.is_on(endpoint)))).finish()
    }
}
