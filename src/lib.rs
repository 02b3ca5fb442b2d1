//! Evenkeel: a userspace L4 load balancer on AF_XDP.
//!
//! # Layers
//! ```text
//! {model, programs, priority, tun} <- {dataplane, vrrp, health} <- control <- main
//!                       lab, pktgen (beside main: they use the program from outside)
//! {model, tun} <- realserver <- main (for machines that run no engine)
//! ```
//! - [`model`]: the nouns that every layer shares.
//! - [`programs`]: programs that are run: found, started, ended with all that they started.
//! - [`priority`]: how urgently the kernel runs a thread.
//! - [`tun`]: a TUN device.
//! - [`dataplane`]: the path of a packet: rings, parsing, flows, schedulers, rewriting.
//! - [`vrrp`]: who is master of which addresses: adverts, election, announcements, tracking.
//! - [`health`]: checks of the servers: what is asked, when, and what the answers say; never what that means.
//! - [`control`]: the path of a change: config, netlink, snapshots, the control socket, the commands.
//! - [`lab`]: networks of namespaces with real clients and servers, for the demo, the tests and for users.
//! - [`pktgen`]: the packet generator.
//! - [`realserver`]: the real server's side of a tunnel.
//!
//! Files that describe themselves as *pure* hold no socket, file, thread, lock or clock: time is a parameter.

pub mod control;
pub mod dataplane;
pub mod health;
pub mod lab;
pub mod model;
pub mod pktgen;
mod priority;
mod programs;
pub mod realserver;
pub mod tun;
pub mod vrrp;
