//! Accounts that somebody else disables and enables, and tells of in any order.
//!
//! What one teller says of an account is versioned by when it happened. Disabled at a time T, the account has a ban whose
//! id names the teller and T; enabled at T, it has a cutoff at T under one id for each teller, which joins with later
//! ones, and the teller's bans until T are lifted. So a ban that is told late, after it ended, is known by that cutoff,
//! and leaves a cutoff only. Both sides write first and look then: of two nodes that are told at the same time, one sees
//! what the other has written. Bans of other tellers, and of operators, are nobody's to end this way.

use sha2::{Digest as _, Sha256};

use super::{Revocations, RevokeError};
use crate::{
    backend::digest,
    revocation::{Cutoff, Detail, Record, Revocation, RevocationId, Scope, ScopeKey, ScopeState},
};

/// How long it is remembered at least when an account was enabled, in seconds: a ban that is told later than that stands.
const REMEMBERED: u64 = 30 * 24 * 60 * 60;

/// What somebody tells of an account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Whose: a scope of many tokens.
    pub(crate) scope: Scope,
    /// Who tells it.
    pub(crate) by: String,
    /// What makes it one of several of the same second.
    pub(crate) message: String,
    /// Since when (Unix seconds).
    pub(crate) since: u64,
    pub(crate) is: Word,
    pub(crate) reason: &'static str,
}

/// What an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// All its tokens are refused, also those issued later.
    Disabled,
    /// Tokens issued later live.
    Enabled,
}

impl Revocations {
    /// Records what was told of these accounts: durable, and enforced here.
    pub(crate) async fn settle_accounts(&self, accounts: &[Account]) -> Result<(), RevokeError> {
        for account in accounts {
            let key = self.inner.denylist.hasher().key(&account.scope);
            match account.is {
                Word::Disabled => self.disable(account, key).await?,
                Word::Enabled => self.enable_since(account, key).await?,
            }
        }
        Ok(())
    }

    async fn disable(&self, account: &Account, key: ScopeKey) -> Result<(), RevokeError> {
        let ends_before = |state: &ScopeState| {
            state.cutoff_of(enabled_id(&account.by)).is_some_and(|at| at > Cutoff::at(account.since))
        };
        if ends_before(&self.held(key).await?) {
            let cutoff = Revocation::new(account.scope.clone()).cutoff(Cutoff::at(account.since));
            return self.revoke(cutoff.reason(account.reason).revoked_by(&account.by)).await.map(drop);
        }
        let id = ban_id(account);
        self.publish(vec![self.record_of(account, key, id, Cutoff::FOREVER, u64::MAX)]).await?;
        let state = self.held(key).await?;
        if ends_before(&state) {
            let changes = self.lifts(&account.scope, &[id], &account.by, &state);
            self.inner.publisher.publish(changes).await?;
        }
        Ok(())
    }

    async fn enable_since(&self, account: &Account, key: ScopeKey) -> Result<(), RevokeError> {
        let denylist = &self.inner.denylist;
        let now = denylist.exact_now().unix();
        let until = denylist.lifetimes().retain_scope(now.max(account.since)).max(now.saturating_add(REMEMBERED));
        let enabled = self.record_of(account, key, enabled_id(&account.by), Cutoff::at(account.since), until);
        // The cutoff first: at no moment is an old token good again.
        self.publish(vec![enabled]).await?;
        let state = self.held(key).await?;
        let ended: Vec<_> = state.ids().filter(|id| is_ban(*id, account)).collect();
        if !ended.is_empty() {
            self.inner.publisher.publish(self.lifts(&account.scope, &ended, &account.by, &state)).await?;
        }
        Ok(())
    }

    async fn held(&self, key: ScopeKey) -> Result<ScopeState, RevokeError> {
        Ok(self.held_by_backend(&[key]).await?.remove(&key).unwrap_or_default())
    }

    fn record_of(&self, account: &Account, key: ScopeKey, id: RevocationId, cutoff: Cutoff, until: u64) -> Record {
        let detail = Detail {
            scope: Some(account.scope.clone()),
            reason: Some(account.reason.to_owned()),
            revoked_by: Some(account.by.clone()),
            revoked_at: self.inner.denylist.exact_now().unix(),
        };
        Record::new(key, id, cutoff, until, &detail)
    }
}

/// What ids of this kind and teller begin with, in the upper 24 bits.
fn mark(kind: &str, by: &str) -> u64 {
    let [a, b, c, ..] = digest([kind, by].map(str::as_bytes));
    u64::from_be_bytes([a, b, c, 0, 0, 0, 0, 0])
}

fn enabled_id(by: &str) -> RevocationId {
    RevocationId::from_u64(mark("account-enabled", by))
}

/// The mark, then 32 bits of seconds, then 8 bits of the message: two of one second are two.
fn ban_id(account: &Account) -> RevocationId {
    let [message, ..]: [u8; 32] = Sha256::digest(&account.message).into();
    let since = u64::from(u32::try_from(account.since).unwrap_or(u32::MAX));
    RevocationId::from_u64(mark("account-disabled", &account.by) | since << 8 | u64::from(message))
}

/// Whether this is the id of a ban that had begun when the account was enabled.
fn is_ban(id: RevocationId, enabled: &Account) -> bool {
    let (id, mark) = (id.as_u64(), mark("account-disabled", &enabled.by));
    let since = id >> 8 & u64::from(u32::MAX);
    id >> 40 == mark >> 40 && since <= enabled.since
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{sync::Arc, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        backend::Memory,
        denylist::{Staleness, Verdict},
        sync::SyncConfig,
        token::{Claims, Identity},
    };

    const ISS: &str = "https://issuer.example/";

    async fn node(backend: &Arc<Memory>) -> Revocations {
        let config = SyncConfig::new(Staleness::refuse_after(Duration::from_secs(600)));
        Revocations::start(Arc::clone(backend), config).await.unwrap()
    }

    fn told(is: Word, since: u64) -> Account {
        Account {
            scope: Scope::subject(ISS, "alice"),
            by: "https://tx.example/".to_owned(),
            message: format!("{since}"),
            since,
            is,
            reason: "test",
        }
    }

    async fn refuses(node: &Revocations, iat: u64) -> bool {
        let claims = Claims::new(ISS).sub("alice").jti("x").iat(iat).exp(iat + 60);
        let key = node.inner.denylist.hasher().key(&Scope::subject(ISS, "alice"));
        let known = node.held(key).await.unwrap();
        let here = matches!(node.check(&Identity::from_verified(&claims)), Verdict::Deny(_));
        // What the backend says, since a node of the fleet may not have heard yet.
        known.cutoff().is_some_and(|cutoff| cutoff.covers(iat)) || here
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// L4: whatever the order, and however often each comes, the latest word counts.
        #[test]
        fn l4_the_latest_word_counts_in_any_order(
            words in proptest::collection::vec((0_u64..40, any::<bool>()), 1..8),
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 8..24),
        ) {
            let mut by_time: std::collections::BTreeMap<u64, bool> = std::collections::BTreeMap::new();
            for (at, disabled) in words {
                by_time.insert(at, disabled);
            }
            let words: Vec<_> = by_time.into_iter().collect();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let backend = Arc::new(Memory::new());
                let (a, b) = (node(&backend).await, node(&backend).await);
                let now = a.denylist().exact_now().unix() - 100;
                // In any order and again, then each at least once.
                let all = order.iter().map(|index| index.get(&words)).chain(&words);
                for (turn, (at, disabled)) in all.enumerate() {
                    let is = if *disabled { Word::Disabled } else { Word::Enabled };
                    [&a, &b][turn % 2].settle_accounts(&[told(is, now + at)]).await.unwrap();
                }
                let (last, disabled) = words[words.len() - 1];
                assert_eq!(refuses(&a, now + 90).await, disabled, "{words:?}");
                assert!(refuses(&a, now + last).await, "a cutoff stays");
            });
        }
    }

    /// Two nodes that are told at the same time come to the same end as one that is told in order.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn two_nodes_at_once_agree() {
        for _ in 0..50 {
            let backend = Arc::new(Memory::new());
            let (a, b) = (node(&backend).await, node(&backend).await);
            let now = a.denylist().exact_now().unix() - 100;
            let late = tokio::spawn({
                let b = b.clone();
                async move { b.settle_accounts(&[told(Word::Disabled, now)]).await }
            });
            a.settle_accounts(&[told(Word::Enabled, now + 10)]).await.unwrap();
            late.await.unwrap().unwrap();
            assert!(!refuses(&a, now + 90).await);
            assert!(refuses(&a, now + 10).await);
        }
    }

    #[tokio::test]
    async fn nobody_ends_the_ban_of_another() {
        let backend = Arc::new(Memory::new());
        let node = node(&backend).await;
        let now = node.denylist().exact_now().unix() - 100;
        let other = |is, since| Account { by: "https://other.example/".to_owned(), ..told(is, since) };
        node.settle_accounts(&[told(Word::Disabled, now)]).await.unwrap();
        node.settle_accounts(&[other(Word::Enabled, now + 10)]).await.unwrap();
        assert!(refuses(&node, now + 90).await);
        node.settle_accounts(&[told(Word::Enabled, now + 10)]).await.unwrap();
        assert!(!refuses(&node, now + 90).await);
        let _ = node.revoke(Revocation::ban(Scope::subject(ISS, "alice"))).await.unwrap();
        node.settle_accounts(&[told(Word::Enabled, now + 20)]).await.unwrap();
        assert!(refuses(&node, now + 90).await, "an operator's ban");
    }

    /// In one second too, what comes last counts, and a ban that ended does not come back by itself.
    #[tokio::test]
    async fn within_one_second_what_comes_last_counts() {
        let backend = Arc::new(Memory::new());
        let node = node(&backend).await;
        let now = node.denylist().exact_now().unix() - 100;
        let say = |is, message: &str| Account { message: message.to_owned(), ..told(is, now) };
        node.settle_accounts(&[say(Word::Disabled, "1")]).await.unwrap();
        assert!(refuses(&node, now + 90).await);
        node.settle_accounts(&[say(Word::Enabled, "2")]).await.unwrap();
        assert!(!refuses(&node, now + 90).await);
        node.settle_accounts(&[say(Word::Disabled, "1")]).await.unwrap();
        assert!(!refuses(&node, now + 90).await, "told again");
        node.settle_accounts(&[say(Word::Disabled, "3")]).await.unwrap();
        assert!(refuses(&node, now + 90).await);
    }
}
