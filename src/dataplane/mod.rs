//! The path of a packet.

pub mod checksum;
pub mod flow;
pub mod io;
pub mod parse;
pub mod schedule;
pub mod stats;
pub mod sys;
pub mod verdict;
pub mod xdp;
