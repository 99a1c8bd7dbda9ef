//! What a request to an endpoint comes to, before anything has happened.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Answer, Client, refusal::Refusal};
#[cfg(feature = "signals")]
use crate::sync::Account;
use crate::{
    Revocations,
    revocation::{Revocation, ScopeKind},
    sync::Intended,
};

/// A request that was read, authenticated and understood. Nothing is recorded yet, so that a mode may ask the
/// service behind first.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) client: Client,
    pub(super) intent: Intent,
    /// The answer once it is done.
    pub(super) success: Answer,
    pub(super) reach: Reach,
    /// The body as it came, for the service behind.
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// How many people something is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) users: usize,
    pub(super) sessions: usize,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Intent {
    /// Revoke these in one write: all of them or none.
    Revoke(Vec<Revocation>),
    /// Revoke these as [`Intent::Revoke`] does, and disable or enable accounts besides.
    #[cfg(feature = "signals")]
    Accounts(Vec<Account>, Vec<Revocation>),
    /// Nothing, and the answer does not say so; why is for the logs.
    Nothing(&'static str),
    /// Nothing, since something was asked: that is told.
    Told,
}

/// A request that was refused, and whose it was as far as that is known.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) client: Option<Client>,
    pub(super) refusal: Refusal,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { client: None, refusal }
    }
}

impl Refused {
    pub(super) const fn of(client: Client, refusal: Refusal) -> Self {
        Self { client: Some(client), refusal }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) revocations: Vec<Revocation>,
    /// In a word.
    pub(super) outcome: &'static str,
}

impl Done {
    /// The kinds of scopes, each once.
    pub(super) fn scopes(&self) -> Vec<ScopeKind> {
        let mut scopes: Vec<_> = self.revocations.iter().map(|revocation| revocation.scope().kind()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    }
}

impl Plan {
    /// The body for the service behind; wiped once that has dropped it.
    pub(super) fn take_body(&mut self) -> Bytes {
        Bytes::from_owner(std::mem::take(&mut self.body))
    }
}

impl Intent {
    /// What is to be revoked.
    pub(super) fn revocations(&self) -> &[Revocation] {
        match self {
            Self::Revoke(revocations) => revocations,
            #[cfg(feature = "signals")]
            Self::Accounts(_, revocations) => revocations,
            Self::Nothing(_) | Self::Told => &[],
        }
    }

    /// Disables and enables accounts, as far as it is about such.
    async fn settle_accounts(&self, revocations: &Revocations) -> Result<bool, Refusal> {
        #[cfg(feature = "signals")]
        if let Self::Accounts(accounts, _) = self {
            revocations.settle_accounts(accounts).await.map_err(|_| Refusal::NotRecorded)?;
            return Ok(true);
        }
        #[cfg(not(feature = "signals"))]
        let _ = revocations;
        Ok(false)
    }

    /// Makes it durable that this, and what comes with it, is about to be done.
    pub(super) async fn announce(
        &self,
        revocations: &Revocations,
        foreseen: Vec<Revocation>,
    ) -> Result<Intended, Refusal> {
        let all = self.revocations().iter().cloned().chain(foreseen);
        revocations.intend(all).await.map_err(|_| Refusal::NotRecorded)
    }

    /// Does it in one write with what comes `besides`, and with what was announced: durable and enforced here, or
    /// refused.
    pub(super) async fn commit(
        self,
        revocations: &Revocations,
        announced: Option<Intended>,
        besides: Vec<Revocation>,
    ) -> (Done, Result<(), Refusal>) {
        let settled = match self.settle_accounts(revocations).await {
            Ok(settled) => settled,
            Err(refusal) => return (Done::default(), Err(refusal)),
        };
        let (mut all, nothing) = match self {
            Self::Revoke(all) => (all, "covered"),
            #[cfg(feature = "signals")]
            Self::Accounts(_, all) => (all, "covered"),
            Self::Nothing(why) => (Vec::new(), why),
            Self::Told => return (Done { outcome: "told", ..Done::default() }, Ok(())),
        };
        let both = all.iter().chain(&besides).cloned();
        let recorded = match announced {
            Some(intended) => revocations.record_intended(intended, both).await,
            None => revocations.revoke_all(both).await.map(|ids| !ids.is_empty()),
        };
        match recorded {
            Ok(true) => {
                all.extend(besides.into_iter().filter(|revocation| !revocation.is_implied()));
                (Done { revocations: all, outcome: "recorded" }, Ok(()))
            }
            Ok(false) if settled => (Done { outcome: "recorded", ..Done::default() }, Ok(())),
            Ok(false) => (Done { outcome: nothing, ..Done::default() }, Ok(())),
            Err(_) => (Done::default(), Err(Refusal::NotRecorded)),
        }
    }
}
