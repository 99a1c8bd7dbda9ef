//! The command line: runs the daemon, and talks to a running one.

mod ask;
mod connection;
mod exit;
mod lines;
mod print;
mod select;
mod work;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use self::exit::Exit;
use self::{connection::Connection, select::Selection};

/// What the exit codes mean; the end of `--help`.
const CODES: &str = "\
Exit codes:
  0  done; `check`: the token may pass; `status`: the node is ready
  1  failed: the daemon cannot be reached, or refused
  2  the command line or the configuration cannot be used
  3  `check`: the token is refused
  4  `revoke --wait all`: recorded, but not every node has confirmed
  5  nobody can tell: `check` at a node that is stale; `status`: the node is not ready";

/// Token revocation for gateways: refuses revoked tokens, and answers the revocation routes.
#[derive(Debug, Parser)]
#[command(name = "revoked", version, about, after_help = CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    daemon: Daemon,
}

/// Which daemon to talk to.
#[derive(Debug, Args)]
struct Daemon {
    /// The configuration file of the daemon.
    #[arg(long, short, global = true, env = "REVOKED_CONFIG", value_name = "FILE", default_value = "revoked.toml")]
    config: PathBuf,
    /// The daemon's admin listener, such as http://127.0.0.1:9090; default: the configuration's.
    #[arg(long, global = true, env = "REVOKED_ADMIN", value_name = "URL")]
    admin: Option<String>,
    /// The file with the admin token; default: the configuration's.
    #[arg(long, global = true, env = "REVOKED_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon.
    Serve {
        /// Only says whether the configuration can be used.
        #[arg(long)]
        check: bool,
    },
    /// Looks at configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Says whether a token would pass, and why.
    Check {
        /// The token; `-`: the first line of standard input, which leaves no trace in the shell's history.
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        token: Option<String>,
        /// A file with the token.
        #[arg(long)]
        file: Option<PathBuf>,
        #[command(flatten)]
        form: Form,
    },
    /// Revokes a token, a session, a user, a client, or all that an issuer has issued.
    Revoke {
        #[command(flatten)]
        what: Selection,
        #[command(flatten)]
        how: work::How,
        #[command(flatten)]
        form: Form,
    },
    /// Takes revocations back: those with these ids, or all of a scope that are there now.
    Lift {
        /// The ids, as `list` shows them.
        #[arg(value_name = "ID", required_unless_present_any = select::NAMES, conflicts_with_all = select::NAMES)]
        ids: Vec<String>,
        #[command(flatten)]
        what: Selection,
        /// Ends a ban too, and leaves a cutoff at this moment: what was issued before stays refused.
        #[arg(long, conflicts_with = "ids")]
        enable: bool,
        /// Who asks, for the audit trail.
        #[arg(long, value_name = "NAME", env = "USER")]
        by: Option<String>,
        #[command(flatten)]
        form: Form,
    },
    /// Says what a revocation would record and end, as far as that is known.
    Preview {
        #[command(flatten)]
        what: Selection,
        #[command(flatten)]
        reach: work::Reach,
        #[command(flatten)]
        form: Form,
    },
    /// Lists the live revocations, newest first.
    List {
        #[command(flatten)]
        what: work::Wanted,
        #[command(flatten)]
        form: Form,
    },
    /// Shows changes as they happen, until it is ended.
    Watch {
        #[command(flatten)]
        form: Form,
    },
    /// Lists the requests that the node refused last.
    Denials {
        #[command(flatten)]
        form: Form,
    },
    /// Says how the node stands.
    Status {
        #[command(flatten)]
        form: Form,
    },
    /// Lists the nodes of the fleet.
    Nodes {
        #[command(flatten)]
        form: Form,
    },
    /// Says who sends what is refused, or would be but for the roll-out, and tokens without `jti`, `sid` or `iat`.
    Report {
        #[command(flatten)]
        form: Form,
    },
    /// Lists the revocation endpoints, or turns one on or off until the configuration is read anew.
    Endpoints {
        /// Which one: token, session, global.
        #[arg(requires = "to")]
        name: Option<String>,
        /// On or off.
        to: Option<OnOff>,
        #[command(flatten)]
        form: Form,
    },
    /// Records revocations from an export, one JSON value a line.
    Import {
        /// The file; `-`: standard input.
        file: PathBuf,
    },
    /// Writes all live revocations, one JSON value a line.
    Export {
        /// The file, which is replaced once all is written; `-`: standard output.
        file: PathBuf,
    },
    /// Prints a script that completes commands.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Prints the manual page.
    Man,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Says what is wrong with a file, and where.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// How to tell.
#[derive(Clone, Copy, Debug, Args)]
struct Form {
    /// Prints what the daemon answered, as JSON, for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

impl Cli {
    /// Does what the command line says.
    pub async fn run(self) -> ExitCode {
        let Self { command, daemon } = self;
        match ask::run(command, daemon).await {
            Ok(exit) => exit.into(),
            Err(failure) => {
                eprintln!("revoked: {failure}");
                failure.exit().into()
            }
        }
    }
}
