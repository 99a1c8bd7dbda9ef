use sha2::{Digest, Sha256};

/// A message that counts once, such as a client's assertion (RFC 7523 §3, its `jti`), and the whole of what it came in.
///
/// Once claimed it may come again, on any node, byte for byte the same, until it is finished: what it asks for is
/// idempotent, and whoever sent it may not have got the answer. Under the same id, nothing else may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OneTime<'a> {
    /// What kind of message it is: the same id in another namespace is another message.
    pub namespace: &'a str,
    /// Who made it.
    pub iss: &'a str,
    /// Its id, unique for its maker.
    pub id: &'a str,
    /// The SHA-256 of all that it came in: message and request.
    pub message: [u8; 32],
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
    /// The very same was claimed before, and is not finished: it may go on.
    Again,
    /// It was finished, or something else was claimed under its id.
    Repeated,
}

impl<'a> OneTime<'a> {
    /// A message with this id, of this maker, in a request with this SHA-256.
    pub const fn new(namespace: &'a str, iss: &'a str, id: &'a str, message: [u8; 32], until: u64) -> Self {
        Self { namespace, iss, id, message, until }
    }

    /// The SHA-256 of namespace, maker and id, unambiguously joined: the key that a store keeps.
    pub fn digest(&self) -> [u8; 32] {
        digest([self.namespace, self.iss, self.id].map(str::as_bytes))
    }

    /// What became of claiming this where a store holds the claim of `message`.
    pub fn against(&self, message: &[u8], finished: bool) -> Claim {
        if !finished && message == self.message { Claim::Again } else { Claim::Repeated }
    }
}

/// The SHA-256 of these parts, each with its length in front.
pub(crate) fn digest<'p>(parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let joined = parts
        .into_iter()
        .fold(Sha256::new(), |hash, part| hash.chain_update((part.len() as u64).to_be_bytes()).chain_update(part));
    joined.finalize().into()
}
