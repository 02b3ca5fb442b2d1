//! `evenkeel realserver`: what real servers need, for machines that run no engine: preparing, looking, and tunnels' ends.
//!
//! Owns the command's arguments and how its parts are joined. Names nothing but the [model](crate::model): a real server
//! needs no data plane.
//!
//! - [`decap`]: the loop: sockets in, TUN device out, counters.
//! - [`outer`]: what is inside a tunnelled packet (pure).
//! - [`link`]: interfaces and addresses by netlink, the kernel's own tunnel devices, the reverse path filter.
//! - [`wanted`]: what a server needs for a method, and the commands that do the same (pure).
//! - [`prepare`], [`undo`], [`verify`]: the commands; [`state`] remembers what was changed, [`persist`] makes it last.
//! - [`judge`]: what is wrong with a server (pure).

pub mod decap;
pub mod judge;
pub mod link;
pub mod outer;
pub mod persist;
pub mod prepare;
pub mod state;
pub mod undo;
pub mod verify;
pub mod wanted;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Prepare and check a real server; take packets out of tunnels.
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
    /// Make this machine a real server: silent ARP settings, service addresses, tunnel devices.
    #[command(
        long_about = "Make this machine a real server for direct routing or a tunnel: ARP settings that keep it silent about \
            the service addresses, those addresses on `lo`, and for tunnels the kernel's device that takes packets out. What was \
            before is remembered, and `undo` puts it back. Called again, it does only what is missing.",
        after_help = "Examples:\n  evenkeel realserver prepare --vip 192.0.2.10 --vip 2001:db8::10\n      direct routing, both \
            families\n  evenkeel realserver prepare --vip 192.0.2.10 --method ipip --persist\n      behind a tunnel, also after a \
            restart of the machine\n  evenkeel realserver prepare --vip 192.0.2.10 --dry-run\n      the commands that do the same"
    )]
    Prepare(prepare::PrepareArgs),
    /// Look whether this machine is a sound real server: exit 0, or 1 with what to do.
    #[command(
        after_help = "Examples:\n  evenkeel realserver verify --port 80 --port udp/53\n      what was prepared, and whether it \
            is served\n  evenkeel realserver verify --vip 192.0.2.10 --client 198.51.100.7\n      a server that others prepared, \
            and its way back to a client"
    )]
    Verify(verify::VerifyArgs),
    /// Put back what `prepare` changed.
    Undo(undo::UndoArgs),
}

/// Runs the command, and returns its exit code (0 done, 1 failed).
pub fn main(args: RealserverArgs) -> ExitCode {
    match args.command {
        Command::Decap(args) => decap::main(args),
        Command::Prepare(args) => prepare::main(&args),
        Command::Verify(args) => verify::main(&args),
        Command::Undo(args) => undo::main(&args),
    }
}
