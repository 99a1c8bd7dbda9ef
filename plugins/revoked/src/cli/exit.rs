use std::{fmt, process::ExitCode};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; allowed; ready.
    Done = 0,
    /// The daemon cannot be reached, or refused.
    Failed = 1,
    /// The command line or the configuration cannot be used.
    Usage = 2,
    /// The token is refused.
    Denied = 3,
    /// Recorded, but not every node has confirmed.
    NotEverywhere = 4,
    /// Nobody can tell.
    Unknown = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not end well.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    what: String,
}

impl Failure {
    /// The daemon cannot be reached, or refused.
    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, what: what.into() }
    }

    /// The command line or the configuration cannot be used.
    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, what: what.into() }
    }

    pub(super) const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
