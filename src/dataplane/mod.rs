//! The path of a packet.

pub mod answer;
pub mod checksum;
pub mod directory;
pub mod flow;
pub mod fragment;
pub mod handover;
pub mod icmp;
pub mod io;
pub mod last_hop;
pub mod parse;
pub mod path_mtu;
pub mod pipeline;
pub mod ports;
pub mod proxy;
pub mod rewrite;
pub mod schedule;
pub mod snapshot;
pub mod split;
pub mod stats;
pub mod syn_cookie;
pub mod sys;
pub mod verdict;
pub mod worker;
pub mod xdp;
