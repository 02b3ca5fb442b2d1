//! Networks of namespaces around the appliance, with real clients and real servers: for the demo, the tests and for users.
//!
//! Owns topologies, the programs inside them and the scenarios of `evenkeel lab`. Uses the program only from outside, as an
//! operator would: by its command line, its config file and its control socket.

pub mod client;
pub mod error;
pub mod holdings;
pub mod netlink;
pub mod netns;
pub mod process;
pub mod server;
pub mod site;
pub mod tagger;
pub mod topology;

use std::process::ExitCode;

/// Arguments of `evenkeel lab`.
#[derive(Debug, clap::Args)]
pub struct LabArgs {}

/// Runs `evenkeel lab`.
pub fn main(_args: LabArgs) -> ExitCode {
    ExitCode::SUCCESS
}
