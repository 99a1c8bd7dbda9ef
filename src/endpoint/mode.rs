/// Who answers an endpoint's requests: this layer, or the service behind with this layer's knowledge.
///
/// In every mode the request is read, its client authenticated, the token verified and its ownership checked here
/// first; what stands against it is answered here and never reaches the service behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// This layer answers, and the service behind is not asked.
    #[default]
    Terminate,
    /// The revocation is recorded, then the request goes on as it came, and the answer of the service behind is
    /// given untouched: even where it is an error, the record stands. Where nothing can be recorded the answer is 503
    /// and nothing goes on.
    ///
    /// For authorization servers that refuse to revoke JWTs (`unsupported_token_type`, RFC 7009 §2.2.1).
    RecordThenForward,
    /// The request goes on as it came; a 2xx answer is released once the revocation is recorded here, else it is 503.
    /// Any other answer is given untouched, and nothing is recorded. Cutoffs are made when they are recorded, so that they
    /// cover what was issued until then.
    ///
    /// What is about to be recorded is announced durably first ([`Backend::intend`]); where that fails, the answer is 503
    /// and nothing goes on. Both steps run to their end where the client stops waiting. What a crash of this process
    /// leaves between them is recorded a minute later, by any node of the fleet: the client was authenticated, owned the
    /// token and asked for it. The same goes for a service behind that has not answered within 30 s (503), and, though
    /// it need not be, for an announcement that could not be withdrawn after a refusal.
    ///
    /// [`Backend::intend`]: crate::backend::Backend::intend
    ForwardThenRecord,
}
