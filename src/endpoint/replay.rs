//! Messages that count once, in the whole fleet.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use http::{header, request::Parts};

use crate::{
    Revocations,
    backend::{self, BackendError, Claim, OneTime},
};

/// The one-time messages of a request that was let in by them. They are finished with it; until then the same request
/// may come again, on any node, as after an answer that got lost.
#[derive(Default)]
pub(super) struct Claimed(Mutex<Vec<Held>>);

struct Held {
    namespace: String,
    iss: String,
    id: String,
    message: [u8; 32],
    until: u64,
}

/// The SHA-256 of a request: where it goes, who sends it, and its body.
pub(super) fn digest(head: &Parts, body: &[u8]) -> [u8; 32] {
    let authorization = head.headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    backend::digest([head.uri.path().as_bytes(), authorization, body])
}

impl Claimed {
    /// Claims a message for this request. Whether the request may go on.
    pub(super) async fn claim(&self, revocations: &Revocations, message: OneTime<'_>) -> Result<bool, BackendError> {
        match revocations.backend().claim_once(&message).await? {
            Claim::First | Claim::Again => {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Held::from(message));
                Ok(true)
            }
            // Another request's: it is not this one's to finish.
            Claim::Repeated => Ok(false),
        }
    }

    /// Finishes all of them: they may not come again.
    pub(super) async fn finish(self, revocations: &Revocations) -> Result<(), BackendError> {
        for held in self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            revocations.backend().finish_once(&held.message()).await?;
        }
        Ok(())
    }
}

impl Held {
    fn message(&self) -> OneTime<'_> {
        OneTime::new(&self.namespace, &self.iss, &self.id, self.message, self.until)
    }
}

impl From<OneTime<'_>> for Held {
    fn from(claim: OneTime<'_>) -> Self {
        let OneTime { namespace, iss, id, message, until } = claim;
        Self { namespace: namespace.to_owned(), iss: iss.to_owned(), id: id.to_owned(), message, until }
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claimed(..)")
    }
}
