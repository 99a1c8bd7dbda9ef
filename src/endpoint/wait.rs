use std::time::Duration;

use http::{HeaderValue, StatusCode, header};

use super::{Answer, Client, refusal::RETRY_AFTER};
use crate::sync::{Everywhere, Unconfirmed};

/// How far a revocation has come when it is answered with success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// It is durable, and this node enforces it. The others follow, within the staleness bound at most.
    #[default]
    Local,
    /// Every node of the fleet that enforces does: see
    /// [`Revocations::everywhere`](crate::Revocations::everywhere). Requests without effect are answered as late as others,
    /// so that time tells nothing.
    Everywhere {
        /// How long to wait for it.
        limit: Duration,
        /// What to answer after that. The revocation stands.
        otherwise: Incomplete,
    },
}

/// The answer where nodes have not confirmed in time. It names them to confidential clients, in the JSON member
/// `unconfirmed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Incomplete {
    /// 202: it is recorded, and spreads. Where the service behind answers, its answer goes out as it is.
    Accepted,
    /// 503 with `Retry-After`: the client has to ask again.
    Unavailable,
}

impl Incomplete {
    pub(super) fn answer(self, everywhere: Option<&Everywhere>, client: &Client) -> Answer {
        let nodes: Vec<String> = match everywhere.filter(|_| client.is_confidential()) {
            Some(everywhere) => everywhere.unconfirmed.iter().map(Unconfirmed::to_string).collect(),
            None => Vec::new(),
        };
        let (status, mut body) = match self {
            Self::Accepted => (StatusCode::ACCEPTED, serde_json::json!({})),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                serde_json::json!({
                    "error": "temporarily_unavailable",
                    "error_description": "Recorded, but not every node has confirmed; try again",
                }),
            ),
        };
        if !nodes.is_empty() {
            body["unconfirmed"] = nodes.into();
        }
        let answer = Answer::new(status, body.to_string().into())
            .with(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::Accepted => answer,
            Self::Unavailable => answer.with(header::RETRY_AFTER, RETRY_AFTER),
        }
    }
}
