//! The command line.

use std::process::ExitCode;

use clap::Parser as _;
use revoked::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
