//! The door for HAProxy's stream processing offload engine (SPOE, protocol SPOP 2.0, HAProxy 2.6 and later).
//!
//! Whoever can reach the listener tells of requests what it likes, so it must be reachable for the gateway alone.
//!
//! HAProxy sends one message for each request, `check-request`, with these arguments:
//!
//! | argument | sample | |
//! | --- | --- | --- |
//! | `method` | `method` | |
//! | `path` | `pathq` or `url` | with the query |
//! | `hdrs` | `req.hdrs_bin` | every header with all of its values |
//!
//! ```text
//! spoe-message check-request
//!     args method=method path=pathq hdrs=req.hdrs_bin
//!     event on-frontend-http-request
//! ```
//!
//! and gets variables of the scope `txn`:
//!
//! | variable | |
//! | --- | --- |
//! | `verdict` | `allow` or `deny` |
//! | `status`, `body`, `challenge`, `retry_after` | with `deny`: the answer's status, JSON body, `WWW-Authenticate` and `Retry-After`; empty where there is none |
//! | `iss`, `sub`, `sid`, `jti`, `client_id`, `scope` | with `allow`: who sent the request; empty where that is not known |
//!
//! A message of another name, or with arguments missing, or of another type, gets `deny`. Tokens in forms are not seen here,
//! whatever `tokens.sources` says. HAProxy has to deny whatever got no `allow`, for an agent that is away or late answers
//! nothing:
//!
//! ```text
//! filter spoe engine revocation config spoe.cfg
//! http-request deny deny_status 503 unless { var(txn.rv.verdict) -m found }
//! http-request deny deny_status 401 unless { var(txn.rv.verdict) -m str allow }
//! ```

mod connection;
mod message;
mod verdict;

use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::Instrument as _;

use self::{connection::Connection, message::Checked, verdict::Verdict};
use super::refusal::{Refusal, is_misrouted};
use crate::{
    denials::Door,
    engine::Engine,
    listen::{self, Shared},
};

/// The agent that HAProxy asks.
#[derive(Clone, Debug)]
pub struct Spoe {
    engine: Arc<Engine>,
}

impl Spoe {
    /// The door in front of this engine.
    pub const fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Answers until it is time to stop, and then ends what is open in an orderly way.
    pub async fn serve(self, listener: TcpListener, shared: Shared) {
        while let Some((stream, peer, slot)) = listen::accept(&listener, &shared).await {
            let connection = Connection::new(stream, self.clone());
            let stop = shared.stop.clone();
            shared.tasks.spawn(async move {
                let _slot = slot;
                if let Err(error) = connection.run(&stop).await {
                    tracing::debug!(%error, %peer, "a connection of HAProxy ended early");
                }
            });
        }
    }

    /// Whether answers may have to wait for a store.
    fn asks(&self) -> bool {
        self.engine.waits()
    }

    /// Judges what was asked; `None`: it was not asked as it has to be.
    async fn judge(&self, request: Option<Checked>) -> Verdict {
        match request {
            Some(request) => self.check(&request).await,
            None => {
                tracing::warn!("HAProxy sends something else than one check-request with method, path and hdrs");
                Verdict::Deny(Refusal::unclear())
            }
        }
    }

    async fn check(&self, request: &Checked) -> Verdict {
        let Checked { method, uri, headers, extensions } = request;
        if is_misrouted(&self.engine, method, uri) {
            return Verdict::Deny(Refusal::misrouted(uri.path()));
        }
        let door = tracing::debug_span!("request", revocation.door = "spoe");
        match self.engine.judge(method, uri, headers, extensions).instrument(door).await {
            Ok(passed) => Verdict::Allow(passed),
            Err(mut denial) => {
                self.engine.denials().add(Door::Spoe, method, uri.path(), denial.rejection);
                // HAProxy answers over plain HTTP, whatever its client speaks.
                denial.grpc = None;
                Verdict::Deny(Refusal::from(denial))
            }
        }
    }
}
