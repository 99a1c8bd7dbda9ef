use sha2::{Digest, Sha256};

/// A message that counts once, such as a client's assertion (RFC 7523 §3, its `jti`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OneTime<'a> {
    /// What kind of message it is: the same id in another namespace is another message.
    pub namespace: &'a str,
    /// Who made it.
    pub iss: &'a str,
    /// Its id, unique for its maker.
    pub id: &'a str,
    /// Until when the claim must be remembered (Unix seconds): as long as the message could count at all.
    pub until: u64,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
#[non_exhaustive]
pub enum Claim {
    /// Nobody had claimed it.
    First,
    /// It was claimed before.
    Repeated,
}

impl<'a> OneTime<'a> {
    /// A message with this id, of this maker.
    pub const fn new(namespace: &'a str, iss: &'a str, id: &'a str, until: u64) -> Self {
        Self { namespace, iss, id, until }
    }

    /// The SHA-256 of everything but the time, unambiguously joined: what a store keeps.
    pub fn digest(&self) -> [u8; 32] {
        let parts = [self.namespace, self.iss, self.id];
        let joined = parts
            .into_iter()
            .fold(Sha256::new(), |hash, part| hash.chain_update((part.len() as u64).to_be_bytes()).chain_update(part));
        joined.finalize().into()
    }
}
