//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use revoked::{config, engine::Engine, serve::Daemon};

/// Token revocation for gateways: refuses revoked tokens, and answers the revocation routes.
#[derive(Debug, Parser)]
#[command(name = "revoked", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon.
    Serve {
        /// The configuration file.
        #[arg(long, short, default_value = "revoked.toml")]
        config: PathBuf,
        /// Only says whether the configuration can be used.
        #[arg(long)]
        check: bool,
    },
    /// Looks at configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Says what is wrong with a file, and where.
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// The configuration cannot be used.
const BAD_CONFIG: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve { config, check: false } => serve(config).await,
        Command::Serve { config: file, check: true } | Command::Config(ConfigCommand::Check { file }) => {
            check(file).await
        }
    }
}

async fn serve(file: PathBuf) -> ExitCode {
    log();
    let outcome = match Daemon::start(file).await {
        Ok(daemon) => daemon.run().await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("revoked: {error}");
            ExitCode::from(if matches!(error, revoked::serve::ServeError::Config(_)) { BAD_CONFIG } else { 1 })
        }
    }
}

async fn check(file: PathBuf) -> ExitCode {
    let checked = match config::load(&file) {
        Ok(config) => Engine::check(config).await.map_err(|error| match error {
            revoked::engine::EngineError::Config(fault) => config::at(&file, fault).to_string(),
            error => error.to_string(),
        }),
        Err(error) => Err(error.to_string()),
    };
    match checked {
        Ok(()) => {
            println!("{}: can be used", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(BAD_CONFIG)
        }
    }
}

/// To standard error: text, or JSON where `REVOKED_LOG_FORMAT=json`; `RUST_LOG` chooses what.
fn log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var("REVOKED_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
}
