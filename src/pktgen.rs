//! The packet generator.

use std::process::ExitCode;

/// Arguments of `evenkeel pktgen`.
#[derive(Debug, clap::Args)]
pub struct PktgenArgs {}

/// Runs `evenkeel pktgen`.
pub fn main(_args: PktgenArgs) -> ExitCode {
    ExitCode::SUCCESS
}
