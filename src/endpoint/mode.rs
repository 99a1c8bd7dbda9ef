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
    /// Any other answer is given untouched, and nothing is recorded.
    ///
    /// Both steps run to their end where the client stops waiting. A crash of this process between them leaves a
    /// revocation that the service behind knows alone; the client has no answer then, and must try again, as after a
    /// 503 (RFC 7009 §2.2.1). [`Mode::RecordThenForward`] has no such moment.
    ForwardThenRecord,
}
