//! VRRP: who is master of which addresses.

pub mod notify;
pub mod track;
