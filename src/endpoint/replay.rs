//! Messages that count once, in the whole fleet.

use std::{fmt, sync::Arc, time::Duration};

use moka::sync::Cache;

use super::refusal::Refusal;
use crate::{
    Revocations,
    backend::{Claim, OneTime},
};

/// Which one-time messages came in at this node and had no effect: they may come again, here.
#[derive(Clone)]
pub(super) struct Replay(Cache<Arc<(String, String)>, ()>);

/// Longer than any message is good for: five minutes, and a leeway of a minute at both ends.
const KEPT: Duration = Duration::from_secs(10 * 60);
const NAMESPACE: &str = "global-token-revocation";

impl Replay {
    pub(super) fn new() -> Self {
        Self(Cache::builder().time_to_live(KEPT).build())
    }

    /// Takes a message for the first time.
    pub(super) async fn claim(&self, revocations: &Revocations, iss: &str, jti: &str) -> Result<Claimed, Refusal> {
        let key = Arc::new((iss.to_owned(), jti.to_owned()));
        // Only one of several gets what was given back.
        if self.0.remove(&key).is_none() {
            let until = revocations.denylist().now().unix().saturating_add(KEPT.as_secs());
            match revocations.backend().claim_once(&OneTime::new(NAMESPACE, iss, jti, until)).await {
                Ok(Claim::First) => {}
                Ok(Claim::Repeated) => return Err(Refusal::Assertion),
                Err(_) => return Err(Refusal::NotLoggedOut),
            }
        }
        Ok(Claimed { replay: self.clone(), key, spent: false })
    }
}

/// A message that was taken. Dropped, it is given back, since it had no effect; it may come again then.
pub(super) struct Claimed {
    replay: Replay,
    key: Arc<(String, String)>,
    spent: bool,
}

impl Claimed {
    /// It had its effect, or never will: it may not come again.
    pub(super) fn spend(mut self) {
        self.spent = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if !self.spent {
            self.replay.0.insert(Arc::clone(&self.key), ());
        }
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claimed(..)")
    }
}
