//! `evenkeel realserver undo`: puts back what `prepare` changed.
//!
//! Owns the command. What somebody else changed since is left, and said: an address goes only where it was put, a setting only
//! where it still has the value that it was given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::link;
use super::prepare::{STATE, fou, read};
use super::state::{Remembered, StateError};
use super::wanted::{file_of, host, key_of};

/// Arguments of `evenkeel realserver undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// File that remembers what was changed.
    #[arg(long, value_name = "FILE", default_value = STATE)]
    state: PathBuf,
}

/// Why not all is put back.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// Not root.
    #[error("this changes settings of the kernel and needs root: run it with `sudo`")]
    NotRoot,
    /// The file of what was changed.
    #[error(transparent)]
    State(#[from] StateError),
    /// Some of it.
    #[error("{0} could not be put back; the rest is, and what is left is still remembered")]
    Left(String),
}

/// Runs the command, and returns its exit code.
pub fn main(args: &UndoArgs) -> ExitCode {
    match run(&args.state, &mut |line| println!("{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}

/// Puts back all that the file remembers: the addresses first, so that this machine is never asked for them while it would
/// answer. `say` is told each thing.
///
/// # Errors
/// [`UndoError`]; what is not put back stays in the file.
pub fn run(file: &Path, say: &mut dyn FnMut(String)) -> Result<(), UndoError> {
    let Some(mut state) = Remembered::load(file)? else {
        say(format!("nothing to undo: there is no {}", file.display()));
        return Ok(());
    };
    if !nix::unistd::geteuid().is_root() {
        return Err(UndoError::NotRoot);
    }
    let mut failed: Vec<String> = Vec::new();
    let mut keep = |what: String, result: io::Result<String>| match result {
        Ok(line) => {
            say(line);
            false
        }
        Err(error) => {
            failed.push(format!("{what} ({error})"));
            true
        }
    };
    state.files.reverse();
    state.files.retain(|path| {
        let done = match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(format!("removed  {}", path.display())),
        };
        keep(path.display().to_string(), done)
    });
    state.addresses.retain(|put| {
        let name = format!("{}/{} on {}", put.address, host(put.address), put.interface);
        let done = link::delete_address(put.address, &put.interface)
            .map(|there| if there { format!("removed  {name}") } else { format!("is gone  {name}") });
        keep(name, done)
    });
    // Before the devices: the settings of one that was only switched on are there as long as it is.
    state.settings.retain(|changed| keep(key_of(&changed.path), put_back(changed)));
    state.devices.retain(|device| {
        let done = match (link::exists(&device.name), device.made) {
            (false, _) => Ok(format!("is gone  the device {}", device.name)),
            (true, true) => link::delete(&device.name).map(|()| format!("removed  the device {}", device.name)),
            (true, false) => link::switch(&device.name, false).map(|()| format!("down     {}", device.name)),
        };
        keep(device.name.clone(), done)
    });
    state.gue.retain(|gue| {
        let done = fou("del", *gue).map(|()| format!("closed   UDP port {} of GUE", gue.port));
        keep(format!("UDP port {}", gue.port), done)
    });
    if !failed.is_empty() {
        state.save(file)?;
        return Err(UndoError::Left(failed.join(", ")));
    }
    fs::remove_file(file).map_err(|source| StateError::Write { file: file.to_owned(), source })?;
    Ok(())
}

fn put_back(changed: &super::state::Changed) -> io::Result<String> {
    let key = key_of(&changed.path);
    match read(&changed.path) {
        Ok(now) if now == changed.before => Ok(format!("is so    {key}={now}")),
        Ok(now) if now == changed.after => {
            fs::write(file_of(&changed.path), &changed.before)?;
            Ok(format!("set      {key}={} (it was {now})", changed.before))
        }
        Ok(now) => Ok(format!(
            "left     {key}={now}: somebody changed it since it was set to {}; before that it was {}",
            changed.after, changed.before
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(format!("is gone  {key}")),
        Err(error) => Err(error),
    }
}
