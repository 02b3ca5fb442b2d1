//! `ipvsadm` as people know it, against a running engine.
//!
//! Owns its command line, its output and its words. Never knows how the engine does what it is asked.

mod change;
mod help;
mod layout;
mod names;
mod options;
mod popt;
mod restore;
mod session;
mod values;
mod view;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use super::socket::client::DEFAULT_SOCKET;
use names::Names;
use options::{Asked, Command, Stop};
use session::Session;
use values::Lookup;

/// Environment variable with the path of the engine's socket: scripts that were written for ipvsadm cannot name it otherwise.
pub const SOCKET_VARIABLE: &str = "EVENKEEL_SOCKET";

/// Runs with the arguments after the program's name.
pub fn main(args: &[OsString]) -> ExitCode {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let socket = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
    let socket = socket.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from);
    let mut session = Session::new(socket);
    let names = Names::of_machine();
    match run(&args, &names, &mut session, false) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            say(&stop);
            ExitCode::from(stop.code)
        }
    }
}

/// Writes why something was not done.
fn say(stop: &Stop) {
    if !stop.text.is_empty() {
        eprintln!("{}", stop.text);
    }
}

/// Does what one command line asks. `restoring`: it is a line of `-R`.
fn run(args: &[String], names: &Names, session: &mut Session, restoring: bool) -> Result<(), Stop> {
    if args.is_empty() {
        return session.list(None, names);
    }
    let lookup = Lookup { host: &names::host, port: &|name, protocol| names.port(name, protocol) };
    let asked = Asked::read(args, &lookup)?;
    match asked.command {
        Command::Help => super::print(&help::usage()),
        Command::Version => super::print(&help::version()),
        // A restore within a restore would never end.
        Command::Restore if restoring => return Err(Stop::help()),
        Command::Restore => return restore::run(names, session),
        Command::List => return session.list(Some(&asked), names),
        Command::Save => return session.save(&asked, names),
        _ => return session.change(&asked),
    }
    Ok(())
}
