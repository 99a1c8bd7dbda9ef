//! What a request to an endpoint comes to, before anything has happened.

use zeroize::Zeroizing;

use super::{Answer, Client, refusal::Refusal};
use crate::{
    Revocations,
    revocation::{Revocation, ScopeKind},
    sync::Revoked,
};

/// A request that was read, authenticated and understood. Nothing is recorded yet, so that a mode may ask the
/// service behind first.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) client: Client,
    pub(super) intent: Intent,
    /// The body as it came, for the service behind.
    #[expect(dead_code, reason = "the forwarding modes read it")]
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Intent {
    /// Revoke this.
    Revoke(Box<Revocation>),
    /// Nothing, and the answer does not say so; why is for the logs.
    Nothing(&'static str),
}

/// What was done.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only logs tell them apart"))]
pub(super) enum Effect {
    /// Something was revoked.
    Revoked(ScopeKind, &'static str),
    /// Nothing was, and the answer does not say so.
    Nothing(&'static str),
}

impl Plan {
    /// Does it: durable and enforced here, or refused.
    pub(super) async fn commit(self, revocations: &Revocations) -> Answer {
        let outcome = self.intent.commit(revocations).await;
        log(Some(&self.client), outcome);
        outcome.map_or_else(Refusal::answer, |_| Answer::ok())
    }
}

impl Intent {
    async fn commit(self, revocations: &Revocations) -> Result<Effect, Refusal> {
        let revocation = match self {
            Self::Revoke(revocation) => *revocation,
            Self::Nothing(why) => return Ok(Effect::Nothing(why)),
        };
        let kind = revocation.scope().kind();
        match revocations.revoke(revocation).await {
            Ok(Revoked::Recorded { .. }) => Ok(Effect::Revoked(kind, "recorded")),
            Ok(Revoked::Widened { scope, .. }) => Ok(Effect::Revoked(scope.kind(), "widened")),
            Ok(Revoked::Covered) => Ok(Effect::Nothing("covered")),
            Ok(Revoked::Expired) => Ok(Effect::Nothing("expired")),
            Err(_) => Err(Refusal::NotRecorded),
        }
    }
}

/// One event for each decision. Says nothing of the token, and nothing that a stranger chose.
#[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "logs nothing"))]
pub(super) fn log(client: Option<&Client>, outcome: Result<Effect, Refusal>) {
    #[cfg(feature = "tracing")]
    {
        let (scope, outcome) = match outcome {
            Ok(Effect::Revoked(kind, how)) => (Some(kind.as_str()), how),
            Ok(Effect::Nothing(why)) => (None, why),
            Err(refusal) => (None, refusal.as_str()),
        };
        tracing::info!(client = client.map(Client::id), scope, outcome, "token revocation");
    }
}
