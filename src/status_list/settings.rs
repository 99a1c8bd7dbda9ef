//! How lists are fetched, how long they count, and what is done without one.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    StatusLists,
    fetch::{ListFetch, Reach},
    token::Expected,
};
use crate::{
    policy::MissingClaim,
    time::{Clock, SystemClock},
    token::{Fetch, FetchErrorKind, JwtVerifier, Status},
};

/// What is done about a token whose list cannot be had, has run out, or is not one that its issuer signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// It is refused with 503.
    #[default]
    Refuse,
    /// The list that was last had counts on past its `ttl`, though never past its `exp`; without one it is refused.
    LastKnown,
    /// It passes as if it pointed to no list. A revoked token passes then whenever the list's server is away.
    Allow,
}

/// Settings of [`StatusLists`].
#[derive(Clone)]
#[must_use]
pub struct StatusListsBuilder {
    verifier: Arc<JwtVerifier>,
    fetch: Option<Arc<dyn Fetch>>,
    reach: Reach,
    accepted: BTreeSet<u8>,
    pub(super) missing: MissingClaim,
    pub(super) unavailable: Unavailable,
    pub(super) wait: Duration,
    pub(super) timeout: Duration,
    pub(super) default_ttl: Duration,
    pub(super) max_ttl: Duration,
    pub(super) idle: Duration,
    pub(super) leeway: Duration,
    pub(super) max_list_bytes: usize,
    pub(super) max_bytes: usize,
    pub(super) max_lists: usize,
    pub(super) clock: Arc<dyn Clock>,
}

/// Status lists that cannot be honoured as asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusListsError {
    /// They are fetched by tasks, and there is no tokio runtime here.
    NoRuntime,
    /// Nothing can be fetched.
    Fetch(FetchErrorKind),
}

impl fmt::Display for StatusListsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRuntime => f.write_str("status lists are fetched by tasks: build them inside a tokio runtime"),
            Self::Fetch(kind) => write!(f, "status lists cannot be fetched: {kind}"),
        }
    }
}

impl std::error::Error for StatusListsError {}

impl StatusListsBuilder {
    pub(super) fn new(verifier: Arc<JwtVerifier>) -> Self {
        Self {
            verifier,
            fetch: None,
            reach: Reach::default(),
            accepted: BTreeSet::new(),
            missing: MissingClaim::default(),
            unavailable: Unavailable::default(),
            wait: Duration::from_secs(2),
            timeout: Duration::from_secs(10),
            default_ttl: Duration::from_secs(5 * 60),
            max_ttl: Duration::from_secs(24 * 60 * 60),
            idle: Duration::from_secs(60 * 60),
            leeway: Duration::from_secs(60),
            max_list_bytes: 16 << 20,
            max_bytes: 256 << 20,
            max_lists: 1024,
            clock: Arc::new(SystemClock),
        }
    }

    /// Tokens that point to no list. Default: they pass, and are counted.
    pub const fn missing(mut self, missing: MissingClaim) -> Self {
        self.missing = missing;
        self
    }

    /// Tokens whose list cannot be had. Default: they are refused.
    pub const fn unavailable(mut self, unavailable: Unavailable) -> Self {
        self.unavailable = unavailable;
        self
    }

    /// Lets tokens of this status pass too. By default only VALID ones do. INVALID ones never do.
    pub fn accept(mut self, status: Status) -> Self {
        self.accepted.insert(status.0);
        self
    }

    /// How long a request waits for a list that is not here. Default: 2 s.
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long one fetch may take. Default: 10 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a list counts that has no `ttl`. Default: 5 minutes.
    pub const fn default_ttl(mut self, ttl: Duration) -> Self {
        self.default_ttl = ttl;
        self
    }

    /// How long a list counts at most, whatever its `ttl`. Default: 24 hours; at least a second.
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.max_ttl = ttl.max(Duration::from_secs(1));
        self
    }

    /// After how long without a token that points to it a list is forgotten. Default: an hour. Whole minutes.
    pub const fn idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// How far the clocks of issuers may run ahead. Default: 60 s.
    pub const fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// How many bytes one list may have, decompressed. Default: 16 MiB, which is 134 million tokens with a bit each.
    pub const fn max_list_bytes(mut self, bytes: usize) -> Self {
        self.max_list_bytes = bytes;
        self
    }

    /// How many bytes all lists together may have. Default: 256 MiB. A list that does not fit is not taken.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many lists there may be. Default: 1,024. Tokens that point to another are refused.
    pub const fn max_lists(mut self, lists: usize) -> Self {
        self.max_lists = lists;
        self
    }

    /// Fetches over plain `http` too, and then from this machine as well: for tests. Whoever can change what the network
    /// carries cannot make a list, but hold back a newer one until the older one's `exp`.
    pub const fn allow_http(mut self, allow: bool) -> Self {
        self.reach.http = allow;
        self
    }

    /// Fetches from private, loopback and link-local addresses too. Issuers can then have this node ask whatever is
    /// reachable inside.
    pub const fn allow_private(mut self, allow: bool) -> Self {
        self.reach.private = allow;
        self
    }

    /// How many redirects are followed, each held against the same rules. Default: none.
    pub const fn redirects(mut self, most: u8) -> Self {
        self.reach.redirects = most;
        self
    }

    /// Fetches in another way, which has to keep the rules of the above itself.
    pub fn fetch_with(mut self, fetch: impl Fetch) -> Self {
        self.fetch = Some(Arc::new(fetch));
        self
    }

    /// The clock, which must be the denylist's. Default: the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Makes them. Nothing is fetched yet.
    ///
    /// # Errors
    ///
    /// Outside a tokio runtime, or where TLS cannot be set up.
    pub fn build(mut self) -> Result<StatusLists, StatusListsError> {
        let runtime = Handle::try_current().map_err(|_| StatusListsError::NoRuntime)?;
        self.reach.max_body = Expected::longest(self.max_list_bytes);
        let fetch = match &self.fetch {
            Some(fetch) => Arc::clone(fetch),
            None => Arc::new(ListFetch::new(self.reach).map_err(StatusListsError::Fetch)?),
        };
        let verifier = Arc::clone(&self.verifier);
        Ok(StatusLists::new(self, verifier, fetch, runtime))
    }

    pub(super) fn accepts(&self, status: Status) -> bool {
        status != Status::INVALID && self.accepted.contains(&status.0)
    }
}

impl fmt::Debug for StatusListsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusListsBuilder")
            .field("reach", &self.reach)
            .field("accepted", &self.accepted)
            .field("missing", &self.missing)
            .field("unavailable", &self.unavailable)
            .finish_non_exhaustive()
    }
}
