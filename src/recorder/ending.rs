//! What ends grants: one write for all of it, together with the decisions that it follows from.
//!
//! First the grants are marked in the store, which refuses refreshes and new tokens from then on and says which tokens
//! there are. Then everything is published at once. Last comes another look at the store for grants that were recorded
//! in between: those recorded later still find the decisions in the backend ([`Recorder::learn`]).
//!
//! A crash after the mark leaves grants that cannot be refreshed and nobody was told about; trying again publishes all
//! that belongs to them, since the store returns what was marked before as well.

use super::{Ended, Grant, Member, MemberKind, Reach, Recorder, RecorderError, claims, named_by_id};
use crate::{
    backend::BackendError,
    denylist::Verdict,
    policy::MissingIat,
    revocation::{Owner, Revocation, Scope},
};

/// Grants that are to end.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What is published anyway; the grants that it is about end.
    decisions: Vec<Revocation>,
    /// Other grants that end.
    scopes: Vec<Scope>,
    reason: String,
    by: String,
    /// Whether it was asked for by a client that answers for its own tokens only: quotas count then.
    of_client: bool,
    /// When it began (Unix seconds).
    at: u64,
}

impl Ending {
    /// Ends what these decisions are about.
    pub(crate) fn decisions(mut self, decisions: &[Revocation]) -> Self {
        self.decisions = decisions.to_vec();
        self
    }

    /// Ends what this scope is about.
    pub(super) fn scope(mut self, scope: Scope) -> Self {
        self.scopes.push(scope);
        self
    }

    /// Ends this grant.
    pub(crate) fn grant(self, grant: &Grant) -> Self {
        self.scope(by_id(grant))
    }

    /// Counts what is stored against the quotas of the user and the client that it belongs to.
    pub(crate) const fn of_client(mut self) -> Self {
        self.of_client = true;
        self
    }

    /// Everything whose grants end.
    fn all_scopes(&self) -> Vec<Scope> {
        self.decisions.iter().map(|decision| decision.scope().clone()).chain(self.scopes.iter().cloned()).collect()
    }

    /// What has to be published besides the decisions, so that nothing of these grants lives on: an entry for each
    /// grant that they do not reach, and one for each access token. Refresh tokens come back here, where the grant is
    /// looked at.
    fn besides(&self, ended: &[Ended], recorder: &Recorder) -> Vec<Revocation> {
        let lifetimes = recorder.revocations.denylist().lifetimes();
        // A full quota may widen a decision, and what takes its place does not reach everything that it would have.
        let widened: Vec<_> =
            self.decisions.iter().map(|decision| decision.widened().unwrap_or_else(|| decision.clone())).collect();
        let both = [&self.decisions, &widened].map(|decisions| Reach::of(decisions, lifetimes, self.at));
        let mut besides = Vec::new();
        for Ended { grant, members } in ended {
            if !both.iter().all(|reach| reach.reaches_grant(grant)) {
                besides.push(self.of_grant(grant));
            }
            let alive = |member: &&Member| member.kind == MemberKind::Access && !recorder.is_over(member);
            let members =
                members.iter().filter(alive).filter(|member| !both.iter().all(|reach| reach.reaches_token(member)));
            besides.extend(members.map(|member| self.of_token(grant, member)));
        }
        // A quota is for those first that nothing wider could reach.
        besides.sort_by_key(|revocation| revocation.owner().is_some_and(|owner| owner.names_client));
        besides
    }

    fn of_grant(&self, grant: &Grant) -> Revocation {
        // Where a grant is looked at, it counts as claiming all that is known of it.
        self.owned(Revocation::new(by_id(grant)), grant, grant.client_id.is_some())
    }

    /// The revocation of one token of a grant.
    pub(super) fn of_token(&self, grant: &Grant, member: &Member) -> Revocation {
        let says = &member.says;
        let named = says.iat.is_some()
            && (&says.sub, &says.client_id) == (&grant.sub, &grant.client_id)
            && member.token.iss() == Some(&grant.iss);
        let revocation = Revocation::new(member.token.clone()).token_expires(member.expires).token_issued(says.iat);
        self.owned(revocation.implied(), grant, named)
    }

    fn owned(&self, revocation: Revocation, grant: &Grant, names_client: bool) -> Revocation {
        let revocation = revocation.reason(&self.reason).revoked_by(&self.by);
        if !self.of_client {
            return revocation;
        }
        let Grant { iss, sub, client_id, .. } = grant.clone();
        revocation.owner_is(Owner { iss, sub, client_id, names_client })
    }
}

impl Recorder {
    /// Grants that are to end, for this reason, as this one asks; none yet.
    pub(crate) fn ending(&self, reason: &str, by: &str) -> Ending {
        Ending {
            decisions: Vec::new(),
            scopes: Vec::new(),
            reason: reason.to_owned(),
            by: by.to_owned(),
            of_client: false,
            at: self.revocations.denylist().exact_now().unix(),
        }
    }

    /// Marks the grants as ended, and says what has to be published together with the decisions.
    pub(crate) async fn mark(&self, ending: &Ending) -> Result<Vec<Revocation>, BackendError> {
        Ok(ending.besides(&self.store.end(&ending.all_scopes()).await?, self))
    }

    /// What [`Recorder::mark`] would say by now. Nothing is marked.
    pub(crate) async fn foresee(&self, ending: &Ending) -> Result<Vec<Revocation>, BackendError> {
        let mut known = Vec::new();
        for grant in self.store.grants(&ending.all_scopes()).await? {
            let members = self.store.members(&grant.id).await?;
            known.push(Ended { grant, members });
        }
        Ok(ending.besides(&known, self))
    }

    /// Ends what was recorded between the mark and the publication of the decisions. Call it once they are published.
    pub(crate) async fn end_late(&self, ending: &Ending) -> Result<(), RecorderError> {
        let mut late = self.store.grants(&ending.all_scopes()).await?;
        late.retain(|grant| !grant.ended && self.is_dead(grant));
        if !late.is_empty() {
            let ended = self.store.end(&late.iter().map(by_id).collect::<Vec<_>>()).await?;
            self.revocations.revoke_all(ending.besides(&ended, self)).await?;
        }
        Ok(())
    }

    /// The whole of it, where there are no decisions. Returns how many grants.
    pub(super) async fn end_all(&self, ending: &Ending) -> Result<usize, RecorderError> {
        let ended = self.store.end(&ending.all_scopes()).await?;
        self.revocations.revoke_all(ending.besides(&ended, self)).await?;
        Ok(ended.len())
    }

    /// Whether a revocation of several tokens covers the grant. One that began after a cutoff goes on.
    fn is_dead(&self, grant: &Grant) -> bool {
        let denylist = self.revocations.denylist();
        [claims(grant), named_by_id(grant)].into_iter().any(|claims| {
            let verdict =
                denylist.check_keys(&claims.keys(denylist.hasher()), MissingIat::DenyIfCutoff, denylist.now());
            matches!(verdict, Verdict::Deny(_))
        })
    }
}

/// A grant alone, as a session by its own id.
fn by_id(grant: &Grant) -> Scope {
    Scope::session(&grant.iss, &grant.id)
}
