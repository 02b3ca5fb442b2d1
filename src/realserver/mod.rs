//! `evenkeel realserver`: the real server's side of a tunnel, for machines that run no engine.
//!
//! Owns the command's arguments and how its parts are joined. Names nothing but the [model](crate::model): a real server
//! needs no data plane.
//!
//! - [`decap`]: the loop: sockets in, TUN device out, counters.
//! - [`outer`]: what is inside a tunnelled packet (pure).
//! - [`link`]: interfaces by netlink, the kernel's own tunnel device, the reverse path filter.

pub mod decap;
pub mod link;
pub mod outer;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// The real server's side of a tunnel.
#[derive(Debug, Args)]
pub struct RealserverArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take packets out of IPIP, GUE and GRE tunnels and hand them to this machine's kernel.
    #[command(long_about = "Take packets out of IPIP (over IPv4 and IPv6), GUE and GRE tunnels and hand them to this \
        machine's kernel, through a TUN device, until SIGTERM or SIGINT. SIGUSR1 prints the counters. The service \
        addresses belong on `lo`, as for direct routing.\n\nA kernel that has tunnel devices does the same faster: `ip \
        link add NAME type ipip external` (modules ipip, sit, ip6_tunnel, ip_gre, fou). With --prefer-kernel and neither \
        --address nor --from, which such devices do not know, IPIP over IPv4 is left to one.")]
    Decap(decap::DecapArgs),
}

/// Runs the command, and returns its exit code (0 done, 1 failed).
pub fn main(args: RealserverArgs) -> ExitCode {
    match args.command {
        Command::Decap(args) => decap::main(args),
    }
}
