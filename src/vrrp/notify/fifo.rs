//! The FIFO that gets a line for each change, as keepalived's `vrrp_notify_fifo`.
//!
//! Owns making, opening and writing it. Never waits for its reader: what finds no room is lost and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::Change;

/// Why a line was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FifoError {
    /// Something else is there.
    #[error("{0} is not a FIFO: remove it, or name another path")]
    Other(PathBuf),
    /// It cannot be made or opened.
    #[error("FIFO {path} cannot be opened: {source}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody reads, and it is full.
    #[error("nobody reads the FIFO {0}: it is full, and lines are lost")]
    Full(PathBuf),
    /// Another error of writing.
    #[error("FIFO {path} cannot be written: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The FIFO.
pub(super) struct Fifo {
    path: PathBuf,
    file: Option<File>,
    made: bool,
}

impl Fifo {
    pub fn new(path: &Path) -> Fifo {
        Fifo { path: path.to_owned(), file: None, made: false }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it with mode 0600 where it is not there, and opens it. For both directions, so that neither waits for a reader nor
    /// fails without one, and lines wait in it for one that comes later: 64 KiB.
    pub fn open(&mut self) -> Result<&mut File, FifoError> {
        let found = fs::symlink_metadata(&self.path).and_then(|_| fs::metadata(&self.path)).ok();
        let same = match (&self.file, &found) {
            (Some(file), Some(found)) => {
                file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (found.dev(), found.ino()))
            }
            _ => false,
        };
        if !same {
            self.file = None;
            match found {
                Some(found) if !found.file_type().is_fifo() => return Err(FifoError::Other(self.path.clone())),
                Some(_) => {}
                None => {
                    let made = mkfifo(&self.path, Mode::S_IRUSR | Mode::S_IWUSR);
                    made.map_err(|source| FifoError::Open { path: self.path.clone(), source: source.into() })?;
                    self.made = true;
                }
            }
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open_anew()?,
        };
        Ok(self.file.insert(file))
    }

    fn open_anew(&self) -> Result<File, FifoError> {
        let failed = |source| FifoError::Open { path: self.path.clone(), source };
        let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&self.path);
        let file = opened.map_err(failed)?;
        // What was looked at may not be what was opened.
        let is_fifo = file.metadata().map_err(failed)?.file_type().is_fifo();
        if is_fifo { Ok(file) } else { Err(FifoError::Other(self.path.clone())) }
    }

    /// Writes a line, whole or not at all (POSIX: up to `PIPE_BUF`, 4096 bytes).
    pub fn write(&mut self, line: &str) -> Result<(), FifoError> {
        let path = self.path.clone();
        match self.open()?.write(line.as_bytes()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(FifoError::Full(path)),
            Err(source) => Err(FifoError::Write { path, source }),
        }
    }
}

impl Drop for Fifo {
    /// What was made is removed, as keepalived does.
    fn drop(&mut self) {
        if self.made {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// keepalived's line: `INSTANCE "VI_1" MASTER 100`.
pub(super) fn line(kind: &str, name: &str, change: Change, priority: u8) -> String {
    format!("{kind} \"{name}\" {} {priority}\n", change.word())
}
