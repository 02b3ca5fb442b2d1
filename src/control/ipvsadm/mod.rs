//! `ipvsadm` as people know it, against a running engine.
//!
//! Owns its command line, its output and its words. Never knows how the engine does what it is asked.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs with the arguments after the program's name.
pub fn main(_args: &[OsString]) -> ExitCode {
    ExitCode::FAILURE
}
