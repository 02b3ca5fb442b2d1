//! The command line: arguments as typed, and the call that each subcommand makes.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// A userspace L4 load balancer on AF_XDP.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    about,
    after_help = "`evenkeel help COMMAND` has its options and examples; EVENKEEL_SOCKET names the engine's socket for all that have \
                  --socket."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy frames of the running engine to a pcapng file, by what became of them.
    Capture(crate::control::capture::client::CaptureArgs),
    /// Check a configuration file: every error at once, exit 0 or 1.
    Check(crate::control::check::CheckArgs),
    /// Show the health checks, those that fail first.
    Checks(crate::control::show::ChecksArgs),
    /// Print a script with which a shell completes commands and options.
    Completion(crate::control::manual::CompletionArgs),
    /// Check a machine and a configuration before going live: what is wrong, and what mends it.
    Doctor(crate::control::doctor::DoctorArgs),
    /// Show dropped packets by reason, and what each reason means.
    Drops(crate::control::show::DropsArgs),
    /// Show what happened to servers and services.
    Events(crate::control::health::client::EventsArgs),
    /// Say what would become of a client's packet, and why.
    Explain(crate::control::explain::client::ExplainArgs),
    /// List, count or end the flows of the running engine.
    Flows(crate::control::flows::client::FlowsArgs),
    /// Make a configuration file from those of keepalived or ipvsadm.
    Import(crate::control::import::ImportArgs),
    /// Take the options of ipvsadm, and do to the running engine what it does to the kernel.
    #[command(disable_help_flag = true)]
    Ipvsadm {
        /// As ipvsadm takes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        args: Vec<OsString>,
    },
    /// Networks of namespaces with real clients and servers around the appliance.
    Lab(crate::lab::LabArgs),
    /// Show or change what the running engine logs.
    Log(crate::control::log::client::LogArgs),
    /// Print this program's manual page, or write one for each command.
    Man(crate::control::manual::ManArgs),
    /// Show how each server is reached: router, interface, Ethernet address; or why it is not.
    Neighbors(crate::control::show::NeighborsArgs),
    /// Show or clear persistent clients of the running engine.
    Persistence(crate::control::socket::client::PersistenceArgs),
    /// Generate packets at high rates into an interface.
    Pktgen(crate::pktgen::PktgenArgs),
    /// Make the running engine read its configuration file again; a bad file changes nothing.
    Reload(crate::control::socket::client::ReloadArgs),
    /// Prepare and check a real server; take packets out of tunnels.
    Realserver(crate::realserver::RealserverArgs),
    /// Run the engine's pipeline over a capture, without privileges.
    Replay(crate::control::replay::ReplayArgs),
    /// Run the engine in the foreground.
    Run(crate::control::run::RunArgs),
    /// Write what was changed by command to the configuration file; its comments stay.
    Save(crate::control::edit::client::SaveArgs),
    /// List servers, drain them, put them in maintenance, let them serve again; add, change or remove them.
    Server(crate::control::edit::client::ServerArgs),
    /// Add, change or remove services of the running engine.
    Service(crate::control::edit::client::ServiceArgs),
    /// Show servers: how each is, what it has, and where its frames go.
    Servers(crate::control::show::ServersArgs),
    /// Show services, a line each.
    Services(crate::control::show::ServicesArgs),
    /// Show the state of the running engine.
    Status(crate::control::socket::client::StatusArgs),
    /// Watch services, servers, workers, drops and virtual routers on the whole screen.
    Top(crate::control::top::TopArgs),
    /// Show virtual routers: who is master, why, and who else was heard.
    Vrrp(crate::control::show::VrrpArgs),
    /// Show workers: load, rings, flows.
    Workers(crate::control::show::WorkersArgs),
}

/// The whole command line, as help, completion and manual pages show it.
pub(super) fn command() -> clap::Command {
    crate::control::manual::complete(Cli::command())
}

/// Parses the arguments, runs the command, and returns its exit code (0 done, 1 failed, 2 bad usage).
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // Installed under its name, or a link to this program: scripts that call ipvsadm find it.
    if args.next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == "ipvsadm")) {
        return crate::control::ipvsadm::main(&args.collect::<Vec<_>>());
    }
    let cli = match command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(said) => said.exit(),
    };
    match cli.command {
        Command::Capture(args) => crate::control::capture::client::main(args),
        Command::Check(args) => crate::control::check::main(args),
        Command::Checks(args) => crate::control::show::checks(args),
        Command::Completion(args) => crate::control::manual::completion(&args),
        Command::Doctor(args) => crate::control::doctor::main(args),
        Command::Drops(args) => crate::control::show::drops(args),
        Command::Events(args) => crate::control::health::client::events(args),
        Command::Explain(args) => crate::control::explain::client::main(args),
        Command::Flows(args) => crate::control::flows::client::main(args),
        Command::Import(args) => crate::control::import::main(args),
        Command::Ipvsadm { args } => crate::control::ipvsadm::main(&args),
        Command::Lab(args) => crate::lab::main(args),
        Command::Log(args) => crate::control::log::client::main(args),
        Command::Man(args) => crate::control::manual::man(&args),
        Command::Neighbors(args) => crate::control::show::neighbors(args),
        Command::Persistence(args) => crate::control::socket::client::persistence(args),
        Command::Pktgen(args) => crate::pktgen::main(args),
        Command::Realserver(args) => crate::realserver::main(args),
        Command::Reload(args) => crate::control::socket::client::reload(args),
        Command::Replay(args) => crate::control::replay::main(args),
        Command::Run(args) => crate::control::run::main(args),
        Command::Save(args) => crate::control::edit::client::save(args),
        Command::Server(args) => crate::control::edit::client::server(args),
        Command::Service(args) => crate::control::edit::client::service(args),
        Command::Servers(args) => crate::control::show::servers(args),
        Command::Services(args) => crate::control::show::services(args),
        Command::Status(args) => crate::control::socket::client::status(args),
        Command::Top(args) => crate::control::top::main(args),
        Command::Vrrp(args) => crate::control::show::vrrp(args),
        Command::Workers(args) => crate::control::show::workers(args),
    }
}
