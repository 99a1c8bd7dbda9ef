//! What a request to an endpoint comes to, before anything has happened.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{Answer, Client, refusal::Refusal, replay::Claimed};
use crate::{
    Revocations,
    revocation::{Revocation, Scope, ScopeKind},
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
    /// The one-time message that asks for it.
    pub(super) claimed: Option<Claimed>,
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
    /// Nothing, and the answer does not say so; why is for the logs.
    Nothing(&'static str),
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

    /// Says why nothing was done, unless something was.
    fn nothing(&mut self, why: &'static str) {
        if self.revocations.is_empty() {
            self.outcome = why;
        }
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
    pub(super) fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Revoke(revocations) => revocations.iter().map(|revocation| revocation.scope().clone()).collect(),
            Self::Nothing(_) => Vec::new(),
        }
    }

    /// Does it: durable and enforced here, or refused. What was done before a refusal stays done.
    pub(super) async fn commit(self, revocations: &Revocations) -> (Done, Result<(), Refusal>) {
        let mut done = Done::default();
        let result = match self {
            Self::Nothing(why) => {
                done.nothing(why);
                Ok(())
            }
            Self::Revoke(all) => match revocations.revoke_all(all.iter().cloned()).await {
                Ok(ids) if ids.is_empty() => {
                    done.nothing("covered");
                    Ok(())
                }
                Ok(_) => {
                    done = Done { revocations: all, outcome: "recorded" };
                    Ok(())
                }
                Err(_) => Err(Refusal::NotRecorded),
            },
        };
        (done, result)
    }
}
