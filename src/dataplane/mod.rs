//! The path of a packet.

pub mod io;
pub mod xdp;
