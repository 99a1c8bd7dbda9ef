//! What HAProxy is answered.

use http::header;
use spop::{SpopFrame, VarScope, frames::Ack};
use tower_revocation::{Passed, token::Identity};

use crate::{door::refusal::Refusal, identity::in_header};

/// Whether a request may pass.
#[derive(Debug)]
pub(super) enum Verdict {
    Allow(Passed),
    Deny(Refusal),
}

/// What ties an answer to its question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    stream: u64,
    frame: u64,
}

impl Ids {
    pub(super) fn of(frame: &dyn SpopFrame) -> Self {
        let metadata = frame.metadata();
        Self { stream: metadata.stream_id, frame: metadata.frame_id }
    }
}

impl Verdict {
    /// The answer to a question.
    pub(super) fn frame(&self, Ids { stream, frame }: Ids) -> Box<dyn SpopFrame> {
        let set = |ack: Ack, name: &str, value: &str| ack.set_var(VarScope::Transaction, name, value);
        let ack = Ack::new(stream, frame);
        Box::new(match self {
            Self::Allow(passed) => {
                let identity = passed.identity();
                // HAProxy writes into headers what it gets, line breaks too.
                let claim = |claim: fn(&Identity) -> Option<&str>| in_header(identity.and_then(claim));
                let ack = set(ack, "verdict", "allow");
                // Set also where nothing is known: a header made from it takes the place of what the client wrote.
                [
                    ("iss", claim(|identity| Some(identity.iss()))),
                    ("sub", claim(Identity::sub)),
                    ("sid", claim(Identity::sid)),
                    ("jti", claim(Identity::jti)),
                    ("client_id", claim(Identity::client_id)),
                    ("scope", claim(Identity::scope)),
                ]
                .into_iter()
                .fold(ack, |ack, (name, value)| set(ack, name, &String::from_utf8_lossy(value.as_bytes())))
            }
            Self::Deny(Refusal { status, headers, body }) => {
                let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
                let ack = set(ack, "verdict", "deny");
                let ack = ack.set_var(VarScope::Transaction, "status", u32::from(status.as_u16()));
                let ack = set(ack, "challenge", header(header::WWW_AUTHENTICATE));
                let ack = set(ack, "retry_after", header(header::RETRY_AFTER));
                set(ack, "body", &String::from_utf8_lossy(body))
            }
        })
    }

    /// The same without anything but the verdict, for a peer that takes small frames only.
    pub(super) fn denied(Ids { stream, frame }: Ids) -> Box<dyn SpopFrame> {
        Box::new(Ack::new(stream, frame).set_var(VarScope::Transaction, "verdict", "deny"))
    }
}
