//! Who asked for which revocation, and what became of it.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use super::EndpointName;
use crate::revocation::{Revocation, ScopeKind};

/// One decision of an endpoint. It names neither tokens nor users, and holds nothing that a stranger chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditRecord {
    /// When, in Unix seconds.
    pub at: u64,
    /// Where.
    #[serde(serialize_with = "endpoint_name")]
    pub endpoint: EndpointName,
    /// Which client asked; none where none was authenticated.
    pub client: Option<String>,
    /// What became of it, in a word: `recorded`, `widened`, `covered`, or why nothing was done.
    pub outcome: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// The kinds of what was revoked, each once.
    #[serde(serialize_with = "scope_names")]
    pub scopes: Vec<ScopeKind>,
    /// How many users it was about, where the request was about users.
    pub users: usize,
    /// How many of their sessions were known.
    pub sessions: usize,
}

fn endpoint_name<S: serde::Serializer>(endpoint: &EndpointName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(endpoint.as_str())
}

fn scope_names<S: serde::Serializer>(scopes: &[ScopeKind], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(scopes.iter().map(|scope| scope.as_str()))
}

/// Takes a record of every decision, before it is answered.
///
/// Every `Fn(&AuditRecord)` is one. It runs on the async threads: a slow one should hand over to a queue.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes a record.
    fn record(&self, record: &AuditRecord);
}

impl<F: Fn(&AuditRecord) + Send + Sync + 'static> AuditSink for F {
    fn record(&self, record: &AuditRecord) {
        self(record);
    }
}

/// Appends one line of JSON for each record to a file.
#[derive(Debug)]
pub struct JsonLines(Mutex<File>);

impl JsonLines {
    /// Opens or creates the file.
    ///
    /// # Errors
    ///
    /// Where it cannot be written.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(|file| Self(Mutex::new(file)))
    }
}

impl AuditSink for JsonLines {
    /// Writes at once and in one piece. A line that cannot be written is lost, with an error event.
    fn record(&self, record: &AuditRecord) {
        let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
        });
        #[cfg(feature = "tracing")]
        if let Err(error) = written {
            tracing::error!(%error, "an audit record could not be written");
        }
        #[cfg(not(feature = "tracing"))]
        let _ = written;
    }
}

/// Called with what was revoked.
type Hook = Arc<dyn Fn(&[Revocation]) + Send + Sync>;

/// Who is told.
#[derive(Clone, Default)]
pub(super) struct Listeners {
    sinks: Vec<Arc<dyn AuditSink>>,
    hooks: Vec<Hook>,
}

impl Listeners {
    pub(super) fn add_sink(&mut self, sink: impl AuditSink) {
        self.sinks.push(Arc::new(sink));
    }

    pub(super) fn add_hook(&mut self, hook: impl Fn(&[Revocation]) + Send + Sync + 'static) {
        self.hooks.push(Arc::new(hook));
    }

    /// One event and one record for each decision.
    pub(super) fn decided(&self, record: &AuditRecord) {
        #[cfg(feature = "tracing")]
        tracing::info!(
            endpoint = record.endpoint.as_str(),
            client = record.client.as_deref(),
            outcome = record.outcome,
            status = record.status,
            scopes = ?record.scopes,
            users = record.users,
            sessions = record.sessions,
            "revocation request"
        );
        crate::spans::answered(record.status);
        #[cfg(feature = "metrics")]
        crate::metrics::ENDPOINT_ANSWERS.increment(&[record.endpoint.as_str(), status(record.status)]);
        for sink in &self.sinks {
            sink.record(record);
        }
    }

    pub(super) fn revoked(&self, revocations: &[Revocation]) {
        if !revocations.is_empty() {
            for hook in &self.hooks {
                hook(revocations);
            }
        }
    }
}

/// The status as a label. What no endpoint answers by itself is one.
#[cfg(feature = "metrics")]
const fn status(status: u16) -> &'static str {
    match status {
        200 => "200",
        202 => "202",
        204 => "204",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        406 => "406",
        413 => "413",
        415 => "415",
        422 => "422",
        429 => "429",
        500 => "500",
        501 => "501",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listeners({} sinks, {} hooks)", self.sinks.len(), self.hooks.len())
    }
}
