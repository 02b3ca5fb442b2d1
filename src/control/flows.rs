//! `evenkeel flows`: lists, counts and ends flows of the running engine.
//!
//! Owns the options of the command.

/// The options of the command on the control socket.
pub const OPTIONS: &[&str] =
    &["service", "server", "client", "protocol", "state", "proven", "limit", "count", "clear", "from"];
