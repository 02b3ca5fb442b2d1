//! VRRP: who is master of which addresses.
//!
//! ```text
//! packet <- machine <- group, evidence <- election        (pure)
//! ```
//! - [`packet`]: adverts, bytes to values and back.
//! - [`machine`]: one virtual router: its state, its timers.
//! - [`group`]: routers that are master together or not at all.
//! - [`evidence`]: what is wrong on the segment, said once, and counted.
//! - [`election`]: all of this appliance's routers behind one face.
//! - [`status`]: what of it people see.
//! - [`track`]: what a router's right to be master hangs on: the rules, and the thread that finds out.
//! - [`notify`]: log lines, notify scripts and the FIFO, on a thread of their own.

mod command;
pub mod election;
pub mod evidence;
pub mod group;
pub mod machine;
pub mod notify;
pub mod packet;
pub mod status;
pub mod track;

pub use election::{Action, Condition, Election, Level, Source, Spec};
pub use machine::State;
