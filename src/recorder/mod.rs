//! Remembers which tokens belong together, learnt from the answers of an authorization server's token endpoint.
//!
//! Opaque tokens say nothing, and many JWTs name no session. The recorder sees every token as it is issued and every
//! refresh, so that revoking one token ends its whole grant, and a refresh with a revoked token is refused before the
//! server sees it. Put one into a [`FrontLayer`](crate::endpoint::FrontLayer).
//!
//! What it learns links tokens and nothing more: it never authenticates anybody.

mod ending;
mod grant;
mod issued;
mod memory;
mod reach;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;

use std::{
    collections::HashSet,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) use self::ending::Ending;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
pub use self::{
    grant::{Ended, Grant, Member, MemberKind, Said},
    memory::MemoryStore,
    store::{Recorded, RecorderStore},
};
use self::{issued::Issued, reach::Reach};
#[cfg(feature = "status-list")]
use crate::status_list::StatusListPublisher;
use crate::{
    Revocations,
    backend::BackendError,
    denylist::Verdict,
    policy::MissingIat,
    revocation::{REFRESHED, Scope, ScopeKey},
    sync::RevokeError,
    token::{ClaimNames, Claims, CompactJws, OpaqueKeys, VerifiedClaims as _, Verifier},
};

/// What happens when a refresh token is used again after another has taken its place (RFC 9700 §4.14.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replay {
    /// The authorization server decides.
    #[default]
    PassOn,
    /// Its grant ends; the answer is `invalid_grant`.
    EndsGrant,
    /// As TokenAuthority does: a token that another client presents ends the grant too, and the answer is
    /// `invalid_request`.
    TokenAuthority,
}

/// Learns which tokens belong together, ends them together, and refuses refreshes of what has ended.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::time::Duration;
/// # use tower_revocation::{Revocations, backend::Memory, denylist::Staleness, sync::SyncConfig};
/// use tower_revocation::{recorder::{MemoryStore, Recorder, Replay}, token::OpaqueKeys};
///
/// # let revocations = Revocations::start(Memory::new(), SyncConfig::new(Staleness::refuse_after(Duration::from_secs(10)))).await?;
/// let keys = OpaqueKeys::new("2026", [7; 32])?;
/// let recorder = Recorder::new(revocations, MemoryStore::new(), keys, "https://as.example").replay(Replay::EndsGrant);
/// # let _ = recorder; Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Recorder {
    revocations: Revocations,
    store: Arc<dyn RecorderStore>,
    keys: OpaqueKeys,
    issuer: Arc<str>,
    names: ClaimNames,
    verifier: Option<Arc<dyn Verifier>>,
    replay: Replay,
    adopt_unknown: bool,
    refresh_ends_access: bool,
    /// `None`: as long as there can be refresh tokens.
    refresh_lifetime: Option<Duration>,
    purged: Arc<AtomicU64>,
    #[cfg(feature = "status-list")]
    published: Option<Arc<StatusListPublisher>>,
}

/// Why a token request or its answer goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The refresh token, its grant or its user was revoked, or it was never seen.
    InvalidGrant,
    /// The refresh token was used before, which ended its grant.
    Replayed,
    /// The same, in TokenAuthority's words.
    ReplayedInvalidRequest,
    /// The answer can be read in no way, or in two.
    Unreadable,
    /// What was issued is not recorded, or was revoked meanwhile: it is not released.
    NotRecorded,
}

/// The recorder could not do what was asked; another try may work.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecorderError {
    /// Its store failed.
    Store(BackendError),
    /// The revocation was not recorded.
    Revoke(RevokeError),
}

impl fmt::Display for RecorderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Revoke(error) => error.fmt(f),
        }
    }
}

impl Error for RecorderError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Revoke(error) => Some(error),
        }
    }
}

impl From<BackendError> for RecorderError {
    fn from(error: BackendError) -> Self {
        Self::Store(error)
    }
}

impl From<RevokeError> for RecorderError {
    fn from(error: RevokeError) -> Self {
        Self::Revoke(error)
    }
}

impl From<RecorderError> for Denied {
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
    fn from(error: RecorderError) -> Self {
        #[cfg(feature = "tracing")]
        tracing::error!(%error, "the recorder failed; the request is answered 503");
        Self::NotRecorded
    }
}

impl From<BackendError> for Denied {
    fn from(error: BackendError) -> Self {
        RecorderError::Store(error).into()
    }
}

/// Seconds between two purges of the store.
const PURGE_EVERY: u64 = 60;

impl Recorder {
    /// A recorder for the tokens of `issuer`, which opaque tokens do not name. Give
    /// [`Verify::opaque`](crate::token::Verify::opaque) the same keys, so that opaque access tokens are refused once
    /// their grant has ended.
    pub fn new(
        revocations: Revocations,
        store: impl RecorderStore,
        keys: OpaqueKeys,
        issuer: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            revocations,
            store: Arc::new(store),
            keys,
            issuer: issuer.into(),
            names: ClaimNames::default(),
            verifier: None,
            replay: Replay::default(),
            adopt_unknown: false,
            refresh_ends_access: false,
            refresh_lifetime: None,
            purged: Arc::default(),
            #[cfg(feature = "status-list")]
            published: None,
        }
    }

    /// Verifies access tokens that are JWTs; those that fail are not learnt. Without it their claims are read as
    /// they are: they come from the authorization server itself, over this process's own connection.
    ///
    /// Refresh and ID tokens, which are not for us, are always read so.
    pub fn verifier(mut self, verifier: impl Verifier) -> Self {
        self.verifier = Some(Arc::new(verifier));
        self
    }

    /// Learns the indexes of access tokens that point to this list. They are durable before the token is out, or it is not
    /// released.
    #[cfg(feature = "status-list")]
    pub fn status_list(mut self, published: &Arc<StatusListPublisher>) -> Self {
        self.published = Some(Arc::clone(published));
        self
    }

    /// The names of the issuer's claims.
    pub fn claim_names(mut self, names: ClaimNames) -> Self {
        self.names = names;
        self
    }

    /// Refresh tokens that are used twice.
    pub const fn replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    /// Lets refresh tokens through that were issued before the recorder came, and learns them; those that it has
    /// forgotten are among them. Default: off, since nothing tells whether their user was logged out since.
    pub const fn adopt_unknown(mut self, adopt: bool) -> Self {
        self.adopt_unknown = adopt;
        self
    }

    /// Whether a refresh ends the grant's earlier access tokens, as TokenAuthority does. Default: off.
    pub const fn refresh_ends_access(mut self, ends: bool) -> Self {
        self.refresh_ends_access = ends;
        self
    }

    /// How long refresh tokens are remembered from their last use that do not say when they expire. What has been
    /// forgotten is refused as unknown. Default, and the most that counts: the denylist's
    /// [`Lifetimes::max_refresh_lifetime`], 24 hours unless it is set. Tokens that say that they live longer are
    /// forgotten after that too, since what revokes them is kept for no longer.
    ///
    /// [`Lifetimes::max_refresh_lifetime`]: crate::revocation::Lifetimes::max_refresh_lifetime
    pub const fn refresh_lifetime(mut self, lifetime: Duration) -> Self {
        self.refresh_lifetime = Some(lifetime);
        self
    }

    /// The grant of a token.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub async fn grant_of(&self, token: &Scope) -> Result<Option<Grant>, BackendError> {
        if !token.kind().is_one_token() {
            return Ok(None);
        }
        Ok(self.store.find(token).await?.map(|(grant, _)| grant))
    }

    /// The grant of a token that a client presents, opaque or not.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub async fn family_of(&self, token: &str) -> Result<Option<Grant>, BackendError> {
        Ok(self.find(token).await?.map(|(grant, _)| grant))
    }

    /// Whether an access token that a client presents, opaque or not, was seen issued and may still be used: its time is
    /// not over, and neither it nor its grant was revoked. Whatever names the grant counts, also what another node
    /// revoked that knows nothing of this token.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub async fn is_usable(&self, token: &str) -> Result<bool, BackendError> {
        Ok(self.usable(token).await?.is_some())
    }

    /// The same, and what is known of it.
    pub(crate) async fn usable(&self, token: &str) -> Result<Option<(Grant, Member)>, BackendError> {
        let Some((grant, member)) = self.find(token).await? else { return Ok(None) };
        let denylist = self.revocations.denylist();
        let over = member.expires.saturating_add(denylist.lifetimes().leeway_secs()) <= denylist.now().unix();
        // What a stale list is good for, the guard decides.
        let revoked = || matches!(self.check(&grant, &member), Err(Denied::InvalidGrant));
        let usable = member.kind == MemberKind::Access && !over && !grant.ended && !revoked();
        Ok(usable.then_some((grant, member)))
    }

    /// The grants that a scope is about, those included that have ended.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub async fn grants_of(&self, scope: &Scope) -> Result<Vec<Grant>, BackendError> {
        self.store.grants(std::slice::from_ref(scope)).await
    }

    /// The session of a token (`iss`, `jti`); where it names none, its grant's id stands for it.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub async fn session_of_token(&self, iss: &str, jti: &str) -> Result<Option<String>, BackendError> {
        let grant = self.grant_of(&Scope::token(iss, jti)).await?;
        Ok(grant.map(|grant| grant.sid.unwrap_or(grant.id)))
    }

    /// The sessions of a user, in the order of their beginning; a grant's id stands for one without a name.
    ///
    /// # Errors
    ///
    /// Where the store cannot be read.
    pub async fn sessions_of_subject(&self, iss: &str, sub: &str) -> Result<Vec<String>, BackendError> {
        let mut grants = self.store.grants(&[Scope::subject(iss, sub)]).await?;
        grants.sort_by(|a, b| (a.began, &a.id).cmp(&(b.began, &b.id)));
        let mut seen = HashSet::new();
        let sessions = grants.into_iter().map(|grant| grant.sid.unwrap_or(grant.id));
        Ok(sessions.filter(|session| seen.insert(session.clone())).collect())
    }

    /// Ends every grant that a scope is about, with all its tokens: that of one token, or those of a session, user,
    /// client or issuer. When it returns `Ok`, none of them can be used or refreshed. Returns how many grants, those
    /// included that had ended before.
    ///
    /// It is one write to the backend. Tokens that were never recorded are not reached:
    /// [revoke](Revocations::revoke) the scope for those.
    ///
    /// # Errors
    ///
    /// Where something was not recorded; the grants may be refused refreshes all the same. Call it again.
    pub async fn end(&self, scope: &Scope, by: &str) -> Result<usize, RecorderError> {
        self.end_all(&self.ending("grant_ended", by).scope(scope.clone())).await
    }

    /// Ends a grant with all its tokens, in one write to the backend.
    ///
    /// # Errors
    ///
    /// Where something was not recorded; the grant may be refused refreshes all the same. Call it again.
    pub async fn end_grant(&self, grant: &Grant, by: &str) -> Result<(), RecorderError> {
        self.end_all(&self.ending("grant_ended", by).grant(grant)).await.map(drop)
    }

    /// Whether it is built on this handle.
    pub(crate) fn writes_to(&self, revocations: &Revocations) -> bool {
        Arc::ptr_eq(self.revocations.denylist(), revocations.denylist())
    }

    async fn find(&self, token: &str) -> Result<Option<(Grant, Member)>, BackendError> {
        for digest in self.keys.digests(token.as_bytes()) {
            if let Some(found) = self.store.find(&Scope::opaque_token(digest)).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Refuses a token that is known to be dead, of whatever kind: its grant has ended, or a revocation covers it.
    pub(crate) async fn refuse_dead(&self, token: &str) -> Result<(), Denied> {
        if let Some((grant, member)) = self.find(token).await? {
            self.check(&grant, &member)?;
            if grant.ended {
                return Err(Denied::InvalidGrant);
            }
        }
        for digest in self.keys.digests(token.as_bytes()) {
            self.verdict(&Claims::new(&self.issuer).opaque(&digest))?;
        }
        if let (Some(verifier), true) = (&self.verifier, CompactJws::looks_like(token)) {
            let now = self.revocations.denylist().now().unix();
            // What is not ours to verify is the authorization server's to refuse.
            if let Ok(identity) = verifier.verify_expired(token, now) {
                self.verdict(&identity.claims())?;
            }
        }
        Ok(())
    }

    /// Whether a refresh token may go on to the authorization server, and what is known of it.
    pub(crate) async fn admit(
        &self,
        refresh_token: &str,
        client: Option<&str>,
    ) -> Result<Option<(Grant, Member)>, Denied> {
        let Some((grant, member)) = self.find(refresh_token).await? else {
            let unknown = self
                .keys
                .digests(refresh_token.as_bytes())
                .map(|digest| self.verdict(&Claims::new(&self.issuer).opaque(&digest)));
            return match unknown.collect::<Result<Vec<()>, Denied>>() {
                Ok(_) if self.adopt_unknown => Ok(None),
                Ok(_) => Err(Denied::InvalidGrant),
                Err(denied) => Err(denied),
            };
        };
        if grant.ended || member.kind != MemberKind::Refresh || self.is_over(&member) {
            return Err(Denied::InvalidGrant);
        }
        self.check(&grant, &member)?;
        if self.is_replay(&grant, &member, client) {
            return Err(self.replayed(&grant).await?);
        }
        Ok(Some((grant, member)))
    }

    /// Whether a token's time is over, so that it is about to be forgotten: what revoked it may have left by now.
    fn is_over(&self, member: &Member) -> bool {
        member.expires < self.forgotten_before(self.revocations.denylist().now().unix())
    }

    fn forgotten_before(&self, now: u64) -> u64 {
        let lifetimes = self.revocations.denylist().lifetimes();
        now.saturating_sub(lifetimes.leeway_secs()).saturating_sub(lifetimes.skew_secs())
    }

    /// The most that a refresh token is remembered, in seconds.
    fn refresh_bound(&self) -> u64 {
        self.revocations.denylist().lifetimes().max_refresh_lifetime_secs()
    }

    /// How long a refresh token is remembered that does not say when it expires, in seconds.
    fn refresh_lives(&self) -> u64 {
        let bound = self.refresh_bound();
        self.refresh_lifetime.map_or(bound, |lifetime| lifetime.as_secs().min(bound))
    }

    fn is_replay(&self, grant: &Grant, member: &Member, client: Option<&str>) -> bool {
        let foreign = matches!((&grant.client_id, client), (Some(owner), Some(client)) if owner != client);
        match self.replay {
            Replay::PassOn => false,
            Replay::EndsGrant => member.spent,
            Replay::TokenAuthority => member.spent || foreign,
        }
    }

    async fn replayed(&self, grant: &Grant) -> Result<Denied, Denied> {
        #[cfg(feature = "tracing")]
        tracing::warn!(client = grant.client_id, "a refresh token was used again; its grant ends");
        // Whoever has a refresh token can do this at will, so it counts as a revocation by the client itself.
        self.end_all(&self.ending("refresh_token_replay", "recorder").grant(grant).of_client()).await?;
        Ok(match self.replay {
            Replay::TokenAuthority => Denied::ReplayedInvalidRequest,
            Replay::EndsGrant | Replay::PassOn => Denied::Replayed,
        })
    }

    /// Learns of what other nodes have revoked and what has not arrived here yet.
    async fn catch_up(&self, grant: &Grant) -> Result<(), Denied> {
        let denylist = self.revocations.denylist();
        let mut keys = Vec::new();
        for claims in [claims(grant), named_by_id(grant)] {
            keys.extend(claims.keys(denylist.hasher()).among(u32::MAX).map(|(_, key)| ScopeKey::from_u128(key)));
        }
        keys.sort_unstable();
        keys.dedup();
        denylist.apply(&self.revocations.backend().lookup(&keys).await?);
        Ok(())
    }

    /// Whether a grant and one of its tokens are clear of every revocation that this node knows.
    fn check(&self, grant: &Grant, member: &Member) -> Result<(), Denied> {
        self.verdict(&named_by_id(grant))?;
        for scope in std::iter::once(&member.token).chain(&member.alias) {
            let mut claims = claims(grant);
            match scope {
                Scope::Token { jti, .. } => claims.jti = Some(jti),
                Scope::SigningInput { sha256, .. } => claims.signing_input = Some(*sha256),
                Scope::OpaqueToken { digest } => claims.opaque = Some(digest),
                _ => {}
            }
            self.verdict(&claims)?;
        }
        Ok(())
    }

    /// Without the bounds on a token's times: a grant may live longer than one, and the store remembers its end.
    fn verdict(&self, claims: &Claims<'_>) -> Result<(), Denied> {
        let denylist = self.revocations.denylist();
        match denylist.check_keys(&claims.keys(denylist.hasher()), MissingIat::DenyIfCutoff, denylist.now()) {
            Verdict::Allow => Ok(()),
            Verdict::Deny(_) => Err(Denied::InvalidGrant),
            Verdict::Unknown(_) => Err(Denied::NotRecorded),
        }
    }

    /// The present moment (Unix seconds).
    pub(crate) fn now(&self) -> u64 {
        self.revocations.denylist().exact_now().unix()
    }

    /// Learns from the 2xx answer to a token request: `presented` is the refresh token that it came with. It was sent on
    /// at `since` (Unix seconds): what it brings may have been issued then, and only the answer took so long.
    pub(crate) async fn learn(
        &self,
        presented: Option<(Grant, Member)>,
        client: Option<&str>,
        body: &[u8],
        since: u64,
    ) -> Result<(), Denied> {
        let now = self.now();
        let Some(issued) = Issued::read(body, self, now)? else { return Ok(()) };
        #[cfg(feature = "status-list")]
        self.learn_index(&issued).await?;
        let mut members = issued.members();
        let mut grant = issued.grant(client, since.min(now));
        if let Some((_, used)) = &presented {
            members.extend(self.still_in_use(used, &members, now));
        }
        grant.expires = members.iter().fold(grant.expires, |latest, member| latest.max(member.expires));
        if let Some(known) = self.grant_to_join(presented.as_ref(), &members, &grant).await? {
            let later = std::mem::replace(&mut grant, known);
            grant.extend(&later);
        }
        match self.store.record(&grant, &members).await? {
            Recorded::Done => {}
            Recorded::Ended => return Err(Denied::NotRecorded),
            Recorded::Conflict => {
                #[cfg(feature = "tracing")]
                tracing::error!(
                    client = grant.client_id,
                    "the authorization server issued a token that is known as one of another grant; not released"
                );
                return Err(Denied::NotRecorded);
            }
        }
        // From here on a revocation finds these tokens; one that came before is found here.
        self.catch_up(&grant).await?;
        if members.iter().try_for_each(|member| self.check(&grant, member)).is_err() {
            // Who asks again and again could fill the list with it.
            self.end_all(&self.ending("revoked_meanwhile", "recorder").grant(&grant).of_client()).await?;
            return Err(Denied::NotRecorded);
        }
        if let Some((_, old)) = &presented {
            self.rotate(&grant, old, &members).await?;
        }
        self.purge_now_and_then(now);
        Ok(())
    }

    #[cfg(feature = "status-list")]
    async fn learn_index(&self, issued: &Issued) -> Result<(), Denied> {
        let (Some(list), Some(token)) = (&self.published, issued.access_token()) else { return Ok(()) };
        match list.learn(token).await {
            Ok(()) => Ok(()),
            Err(_error) => {
                #[cfg(feature = "tracing")]
                tracing::error!(error = %_error, "a token's index of the published status list was not recorded; not released");
                Err(Denied::NotRecorded)
            }
        }
    }

    /// The grant that new tokens belong to: that of the refresh token, or one that has them already.
    async fn grant_to_join(
        &self,
        presented: Option<&(Grant, Member)>,
        members: &[Member],
        new: &Grant,
    ) -> Result<Option<Grant>, Denied> {
        if let Some((grant, _)) = presented {
            return Ok(Some(grant.clone()));
        }
        // A server may answer again with a token that still lives.
        let Some(first) = members.first() else { return Ok(None) };
        let known = self.grant_of(&first.token).await?;
        Ok(known.filter(|known| known.client_id == new.client_id && known.sub == new.sub))
    }

    /// A refresh token that is not rotated lives on by its use, unless it says itself when it ends.
    fn still_in_use(&self, used: &Member, new: &[Member], now: u64) -> Option<Member> {
        let rotated = new.iter().any(|member| member.kind == MemberKind::Refresh);
        let expires = now.saturating_add(self.refresh_lives());
        (!rotated && used.alias.is_none()).then(|| Member { expires, ..used.clone() })
    }

    async fn rotate(&self, grant: &Grant, old: &Member, new: &[Member]) -> Result<(), Denied> {
        let rotated = new.iter().any(|member| member.kind == MemberKind::Refresh && member.token != old.token);
        if rotated && !self.store.spend(&old.token).await? && self.replay != Replay::PassOn {
            return Err(self.replayed(grant).await?);
        }
        if self.refresh_ends_access {
            let mut earlier = self.store.members(&grant.id).await?;
            earlier.retain(|member| {
                member.kind == MemberKind::Access && new.iter().all(|kept| kept.token != member.token)
            });
            let ending = self.ending(REFRESHED, "recorder");
            self.revocations
                .revoke_all(earlier.iter().map(|member| ending.of_token(grant, member)))
                .await
                .map_err(RecorderError::from)?;
        }
        Ok(())
    }

    fn purge_now_and_then(&self, now: u64) {
        let last = self.purged.load(Ordering::Relaxed);
        if now < last.saturating_add(PURGE_EVERY)
            || self.purged.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let before = self.forgotten_before(now);
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
            if let Err(error) = store.purge(before).await {
                #[cfg(feature = "tracing")]
                tracing::warn!(%error, "the recorder could not forget what has expired; it tries again");
            }
        });
    }
}

/// A grant as a token would claim it.
fn claims(grant: &Grant) -> Claims<'_> {
    let mut claims = Claims::new(&grant.iss).iat(grant.began).sid(grant.sid.as_deref().unwrap_or(&grant.id));
    (claims.sub, claims.client_id) = (grant.sub.as_deref(), grant.client_id.as_deref());
    claims
}

/// The same, with its id for a session: what ends this grant alone is keyed by that.
fn named_by_id(grant: &Grant) -> Claims<'_> {
    claims(grant).sid(&grant.id)
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("issuer", &self.issuer)
            .field("keys", &self.keys)
            .field("replay", &self.replay)
            .field("adopt_unknown", &self.adopt_unknown)
            .field("refresh_ends_access", &self.refresh_ends_access)
            .finish_non_exhaustive()
    }
}
