//! What a number of decisions reaches by itself: tokens that claim what a cutoff is keyed by, and grants.

use std::collections::HashMap;

use super::{Grant, Member, Said};
use crate::revocation::{Cutoff, Lifetimes, Revocation, Scope, ScopeKind};

/// A scope of several tokens, taken apart: its kind, its issuer, and up to two values.
pub(super) type Name<'a> = (ScopeKind, [&'a str; 3]);

/// The decisions, by what they are about.
pub(super) struct Reach<'a> {
    cutoffs: HashMap<Name<'a>, Cutoff>,
    /// Single tokens, and when they are said to expire.
    tokens: HashMap<&'a Scope, Option<u64>>,
}

impl<'a> Reach<'a> {
    /// What `decisions` reach that are recorded at `now` (Unix seconds) or later.
    pub(super) fn of(decisions: &'a [Revocation], lifetimes: &Lifetimes, now: u64) -> Self {
        let mut this = Self { cutoffs: HashMap::new(), tokens: HashMap::new() };
        for decision in decisions {
            match name(decision.scope()) {
                Some(name) => {
                    let cutoff = decision.cutoff_at(lifetimes, now);
                    let latest = this.cutoffs.entry(name).or_insert(cutoff);
                    *latest = (*latest).max(cutoff);
                }
                None => {
                    this.tokens.insert(decision.scope(), decision.token_exp());
                }
            }
        }
        this
    }

    /// Whether a refresh of the grant is refused by the decisions alone.
    pub(super) fn reaches_grant(&self, grant: &Grant) -> bool {
        self.reaches(names_of(grant), Some(grant.began))
    }

    /// Whether whoever checks the token refuses it by the decisions alone, for as long as it lives.
    pub(super) fn reaches_token(&self, token: &Member) -> bool {
        let Member { token: scope, expires, says: Said { sid, sub, client_id, iat }, .. } = token;
        let itself = self.tokens.get(scope).is_some_and(|known| known.is_some_and(|known| known >= *expires));
        let claimed = || {
            let iss = scope.iss()?;
            Some(self.reaches(names(iss, [sid.as_deref(), None], sub.as_deref(), client_id.as_deref()), *iat))
        };
        itself || claimed().unwrap_or(false)
    }

    fn reaches<'b>(&self, names: impl Iterator<Item = Name<'b>>, issued: Option<u64>) -> bool {
        // Both live for the shorter of their lifetimes.
        let cutoffs: &HashMap<Name<'_>, Cutoff> = &self.cutoffs;
        let mut reaching = names.filter_map(|name| cutoffs.get(&name));
        reaching.any(|cutoff| match issued {
            // What does not say when it was issued may be let through.
            None => *cutoff == Cutoff::FOREVER,
            Some(issued) => cutoff.covers(issued),
        })
    }
}

/// A scope of several tokens as a name; `None` for a single token.
pub(super) fn name(scope: &Scope) -> Option<Name<'_>> {
    let values: [&str; 3] = match scope {
        Scope::Session { iss, sid } => [iss, sid, ""],
        Scope::ClientSession { iss, sid, client_id } => [iss, sid, client_id],
        Scope::Subject { iss, sub } => [iss, sub, ""],
        Scope::SubjectClient { iss, sub, client_id } => [iss, sub, client_id],
        Scope::Client { iss, client_id } => [iss, client_id, ""],
        Scope::Issuer { iss } => [iss, "", ""],
        Scope::Token { .. } | Scope::SigningInput { .. } | Scope::OpaqueToken { .. } => return None,
    };
    Some((scope.kind(), values))
}

/// Every name that a grant answers to. Its id stands for a session too.
pub(super) fn names_of(grant: &Grant) -> impl Iterator<Item = Name<'_>> {
    let sessions = [grant.sid.as_deref(), Some(grant.id.as_str())];
    names(&grant.iss, sessions, grant.sub.as_deref(), grant.client_id.as_deref())
}

fn names<'a>(
    iss: &'a str,
    sessions: [Option<&'a str>; 2],
    sub: Option<&'a str>,
    client_id: Option<&'a str>,
) -> impl Iterator<Item = Name<'a>> {
    let of = move |kind, with_client, value: &'a str| {
        let both = client_id.map(|client_id| (with_client, [iss, value, client_id]));
        std::iter::once((kind, [iss, value, ""])).chain(both)
    };
    let sessions = sessions.into_iter().flatten();
    let client = client_id.map(|client_id| (ScopeKind::Client, [iss, client_id, ""]));
    sessions
        .flat_map(move |sid| of(ScopeKind::Session, ScopeKind::ClientSession, sid))
        .chain(sub.into_iter().flat_map(move |sub| of(ScopeKind::Subject, ScopeKind::SubjectClient, sub)))
        .chain(client)
        .chain([(ScopeKind::Issuer, [iss, "", ""])])
}
