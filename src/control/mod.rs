//! The path of a change: the only place where the layers are wired together.

pub mod cli;
pub mod compile;
