//! Networks of namespaces around the appliance, with real clients and real servers: for the demo, the tests and for users.
//!
//! Owns topologies, the programs inside them and the scenarios of `evenkeel lab`. Uses the program only from outside, as an
//! operator would: by its command line, its config file and its control socket.

pub mod adverts;
pub mod bytes;
mod cli;
pub mod client;
pub mod engine;
pub mod error;
pub mod holdings;
pub mod keepalived;
pub mod kept;
pub mod netlink;
pub mod netns;
pub mod process;
pub mod queues;
pub mod router;
pub mod scenario;
pub mod server;
pub mod shuffler;
pub mod site;
pub mod speaker;
pub mod tagger;
pub mod topology;
pub mod watch;

pub use cli::{LabArgs, main};
