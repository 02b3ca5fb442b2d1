//! Real clients: HTTP, load, long-lived connections, UDP, and a look at single frames.
//!
//! Owns what a client measures: who answered, how fast, and everything that went wrong. Never decides what is good enough.

pub mod dns;
pub mod flood;
pub mod frames;
pub mod http;
pub mod load;
pub mod ping;
pub mod probe;
pub mod pulse;
pub mod stream;
pub mod transfer;
pub mod udp;
