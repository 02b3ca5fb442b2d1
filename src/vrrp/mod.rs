//! VRRP: who is master of which addresses.
//!
//! ```text
//! packet <- machine <- group, evidence <- election        (pure)
//! packet <- frame <- announce; filter                     (pure)
//! link <- rtnl <- addresses; socket <- kernel             (waits for the kernel)
//! everything <- driver                                    (the thread of the adverts)
//! ```
//! - [`packet`]: adverts, bytes to values and back.
//! - [`machine`]: one virtual router: its state, its timers.
//! - [`group`]: routers that are master together or not at all.
//! - [`evidence`]: what is wrong on the segment, said once, and counted.
//! - [`election`]: all of this appliance's routers behind one face.
//! - [`status`]: what of it people see.
//! - [`frame`], [`announce`], [`filter`]: what lies around an advert, announcements of addresses, what the kernel lets pass.
//! - [`link`], [`rtnl`], [`addresses`], [`kernel`]: interfaces, and addresses on them.
//! - [`socket`], [`realtime`], [`driver`]: adverts in and out, at their time.
//! - [`track`]: what a router's right to be master hangs on: the rules, and the thread that finds out.
//! - [`notify`]: log lines, notify scripts and the FIFO, on a thread of their own.

pub mod addresses;
pub mod announce;

pub mod driver;
pub mod election;
pub mod evidence;
pub mod filter;
pub mod frame;
pub mod group;
pub mod kernel;
pub mod link;
pub mod machine;
pub mod notify;
pub mod packet;
pub mod realtime;
pub mod rtnl;
pub mod socket;
pub mod status;
pub mod track;

pub use driver::{Driver, DriverError, Plan, Wiring};
pub use election::{Action, Condition, Election, Level, Source, Spec};
pub use machine::State;
