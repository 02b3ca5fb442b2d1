//! Networks of namespaces around the appliance.

use std::process::ExitCode;

/// Arguments of `evenkeel lab`.
#[derive(Debug, clap::Args)]
pub struct LabArgs {}

/// Runs `evenkeel lab`.
pub fn main(_args: LabArgs) -> ExitCode {
    ExitCode::SUCCESS
}
