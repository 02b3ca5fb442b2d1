//! VRRP: who is master of which addresses.

mod command;
pub mod notify;
pub mod track;
