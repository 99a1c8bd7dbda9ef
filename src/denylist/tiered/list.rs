//! What [`Denylist`] does differently where its entries are not all in memory.

#[cfg(feature = "sync")]
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[cfg(feature = "sync")]
use super::LookUp;
use super::{Answers, Tiered};
use crate::{
    denylist::{Denylist, Found, Reason, Why, Writer, places},
    policy::MissingIat,
    revocation::{Change, ScopeKey, ScopeKind},
    time::Moment,
    token::ScopeKeys,
};

/// A look-up that ended leaves nothing open, unless entries are dropped as fast as they come.
const ROUNDS: usize = 3;

impl Denylist {
    /// The verdict by what is at hand and what was answered.
    pub(in crate::denylist) fn tiered_verdict(
        &self,
        tiered: &Tiered,
        keys: &ScopeKeys,
        missing_iat: MissingIat,
        answers: &Answers,
    ) -> Option<Found> {
        let mut unclear = false;
        for place in places(tiered.may_hold(keys.among(self.kinds()))) {
            let key = keys.at(place);
            // What is at hand is never older than an answer.
            let Some(entry) = tiered.find_or(key, answers) else {
                unclear = true;
                continue;
            };
            if let Some(reason) = Self::covers_token(&entry, keys, key, missing_iat) {
                return Some(Found::Revoked(reason));
            }
        }
        unclear.then_some(Found::Unclear)
    }

    /// Asks the backend about a token that is unclear, and judges it then. The caller looks after freshness.
    pub(crate) async fn ask(&self, keys: &ScopeKeys, missing_iat: MissingIat) -> Result<Option<Reason>, Why> {
        let tiered = self.tiered.as_deref().ok_or(Why::NotAsked)?;
        let asking = tiered.asking().ok_or(Why::NotAsked)?;
        let mut answers = Answers::new();
        for _ in 0..ROUNDS {
            match self.tiered_verdict(tiered, keys, missing_iat, &answers) {
                None => return Ok(None),
                Some(Found::Revoked(reason)) => return Ok(Some(reason)),
                Some(Found::Unclear) => {}
            }
            let open = places(tiered.may_hold(keys.among(self.kinds()))).map(|place| keys.at(place));
            let open = open.filter(|key| !answers.contains_key(key) && tiered.find(*key).is_none());
            let open = open.map(ScopeKey::from_u128).collect();
            answers.extend(asking.look_up(open, keys.source()).await?);
        }
        Err(Why::NoAnswer)
    }

    pub(in crate::denylist) fn apply_tiered(&self, tiered: &Tiered, writer: &mut Writer, change: &Change, new: bool) {
        let kind = change.key().kind();
        self.visible.raise_kinds(1 << kind as u32);
        if !tiered.apply(change, new, self.now()) {
            return;
        }
        self.records.fetch_add(1, Ordering::Relaxed);
        self.scopes[kind as usize].fetch_add(1, Ordering::Relaxed);
        if let Change::Revoke(record) = change {
            let long = self.stays_long(record);
            record.owners().iter().for_each(|owner| writer.quota_of(long).add(owner.as_u128()));
        }
    }

    pub(in crate::denylist) fn maintain_tiered(&self, tiered: &Tiered, steady: bool, now: Moment) {
        if steady {
            // No kind may be cleared that a writer has just raised.
            let _writer = self.lock();
            let expired = tiered.expire(now.unix().saturating_sub(self.lifetimes.skew_secs()));
            for (kind, count) in ScopeKind::ALL.into_iter().zip(expired.dropped) {
                self.records.fetch_sub(count, Ordering::Relaxed);
                self.scopes[kind as usize].fetch_sub(count, Ordering::Relaxed);
            }
            self.visible.clear_kinds(self.kinds() & !expired.kinds);
        }
        tiered.tidy(now);
    }

    /// How this list asks, where it does.
    #[cfg(feature = "sync")]
    pub(crate) fn asks(&self) -> Option<(crate::denylist::Tiered, Option<&Arc<dyn LookUp>>)> {
        self.tiered.as_deref().map(|tiered| (tiered.config, tiered.asking()))
    }

    /// Whom it asks from now on.
    #[cfg(feature = "sync")]
    pub(crate) fn ask_with(&self, look_up: Arc<dyn LookUp>) {
        if let Some(tiered) = &self.tiered {
            tiered.ask_with(look_up);
        }
    }

    /// Whether this node could give it back to a backend that has lost it.
    #[cfg(feature = "sync")]
    pub(crate) fn is_at_hand(&self, key: ScopeKey) -> bool {
        self.tiered.as_deref().is_none_or(|tiered| tiered.is_at_hand(key.as_u128()))
    }

    /// A look-up of these scopes begins: what is applied to them from now on is part of its answer.
    #[cfg(feature = "sync")]
    pub(crate) fn expect_answer(&self, keys: &[ScopeKey]) {
        if let Some(tiered) = &self.tiered {
            tiered.expect(keys);
        }
    }

    /// It ended: with all changes of these scopes, or without an answer.
    #[cfg(feature = "sync")]
    pub(crate) fn answered(&self, keys: &[ScopeKey], changes: Option<&[Change]>) -> Answers {
        match (&self.tiered, changes) {
            (Some(tiered), Some(changes)) => {
                // What was learnt counts as applied: the feed may deliver it later, and no check may know less meanwhile.
                let now = self.now().unix();
                let live: Vec<_> = changes.iter().filter(|change| change.retain_until() >= now).cloned().collect();
                self.merge(&live, false);
                let answers = tiered.answer(keys, changes);
                let nothing = answers.values().filter(|entry| entry.records() == 0).count();
                self.false_positives.fetch_add(nothing as u64, Ordering::Relaxed);
                answers
            }
            (Some(tiered), None) => {
                tiered.give_up(keys);
                Answers::new()
            }
            (None, _) => Answers::new(),
        }
    }
}
