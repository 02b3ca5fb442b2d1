//! What `prepare` changed and what was before: a file, so that `undo` puts back exactly that.
//!
//! Owns the file's format, and that it is whole at any time. Never changes anything else.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::wanted::Wanted;
use crate::model::{GUE_PORT, Method};

/// Version of the format.
const VERSION: u32 = 1;

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Below `/proc/sys`.
    pub path: String,
    /// Its value before.
    pub before: String,
    /// The value that it was given.
    pub after: String,
}

/// An address that was put on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The address, with a host's prefix.
    pub address: IpAddr,
    /// Its interface.
    pub interface: String,
}

/// A tunnel device that was made, or only switched on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Whether it was made here; else it was down before.
    pub made: bool,
}

/// A port of GUE that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gue {
    /// UDP port.
    pub port: u16,
    /// For outer packets of IPv6.
    pub v6: bool,
}

/// All that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    version: u32,
    /// The service addresses, all that `prepare` was told of.
    pub vips: Vec<IpAddr>,
    /// The method that it was told of last.
    pub method: Method,
    /// The interface of the addresses.
    pub interface: String,
    /// Whether outer packets are IPv6.
    pub over_v6: bool,
    /// UDP port of GUE.
    pub gue_port: u16,
    /// Settings.
    pub settings: Vec<Changed>,
    /// Addresses.
    pub addresses: Vec<Put>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Ports of GUE.
    pub gue: Vec<Gue>,
    /// Files that make it last.
    pub files: Vec<PathBuf>,
}

impl Default for Remembered {
    fn default() -> Self {
        Remembered {
            version: VERSION,
            vips: Vec::new(),
            method: Method::Dr,
            interface: "lo".to_owned(),
            over_v6: false,
            gue_port: GUE_PORT,
            settings: Vec::new(),
            addresses: Vec::new(),
            devices: Vec::new(),
            gue: Vec::new(),
            files: Vec::new(),
        }
    }
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read {file}, which remembers what was changed")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It does not have the format.
    #[error("{file} is not what `evenkeel realserver prepare` writes; put it aside to begin anew")]
    Format {
        /// The file.
        file: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A later program wrote it.
    #[error("{file} has version {found}, and this program knows version 1: use the program that wrote it")]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It cannot be written.
    #[error("cannot write {file}, which remembers what is changed; nothing is changed without it")]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Remembered {
    /// What the file has; `None` where there is no file.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(file: &Path) -> Result<Option<Remembered>, StateError> {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Read { file: file.to_owned(), source }),
        };
        let found: Remembered =
            serde_json::from_str(&text).map_err(|source| StateError::Format { file: file.to_owned(), source })?;
        if found.version != VERSION {
            return Err(StateError::Version { file: file.to_owned(), found: found.version });
        }
        Ok(Some(found))
    }

    /// Writes it: the old file is there until the new one is whole.
    ///
    /// # Errors
    /// [`StateError::Write`].
    pub fn save(&self, file: &Path) -> Result<(), StateError> {
        let write = || -> io::Result<()> {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
            let new = file.with_extension("json.new");
            let mut out = fs::File::create(&new)?;
            out.write_all(&serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
            out.sync_all()?;
            fs::rename(&new, file)
        };
        write().map_err(|source| StateError::Write { file: file.to_owned(), source })
    }

    /// Takes over what a call of `prepare` asks for.
    pub fn ask(&mut self, wanted: &Wanted) {
        for vip in &wanted.vips {
            if !self.vips.contains(vip) {
                self.vips.push(*vip);
            }
        }
        self.method = wanted.method;
        self.interface.clone_from(&wanted.interface);
        (self.over_v6, self.gue_port) = (wanted.over_v6, wanted.gue_port);
    }

    /// What was asked for.
    pub fn wanted(&self) -> Wanted {
        Wanted {
            vips: self.vips.clone(),
            method: self.method,
            interface: self.interface.clone(),
            over_v6: self.over_v6,
            gue_port: self.gue_port,
        }
    }

    /// Notes a setting that is about to change. What was before the first change counts.
    pub fn changes(&mut self, path: &str, before: &str, after: &str) {
        match self.settings.iter_mut().find(|known| known.path == path) {
            Some(known) => after.clone_into(&mut known.after),
            None => self.settings.push(Changed {
                path: path.to_owned(),
                before: before.to_owned(),
                after: after.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_before_is_kept_and_the_file_says_the_same() {
        let mut state = Remembered::default();
        state.changes("net/ipv4/conf/all/arp_ignore", "0", "1");
        state.changes("net/ipv4/conf/all/arp_ignore", "8", "1");
        assert_eq!(state.settings[0].before, "0");
        assert_eq!(state.settings.len(), 1);
        let folder = std::env::temp_dir().join(format!("evenkeel-state-{}", std::process::id()));
        let file = folder.join("realserver.json");
        assert_eq!(Remembered::load(&file).unwrap(), None);
        state.save(&file).unwrap();
        assert_eq!(Remembered::load(&file).unwrap(), Some(state));
        for (text, word) in [("{", "is not what"), ("{\"version\":2}", "is not what")] {
            fs::write(&file, text).unwrap();
            assert!(Remembered::load(&file).unwrap_err().to_string().contains(word));
        }
        let later = Remembered { version: 2, ..Remembered::default() };
        later.save(&file).unwrap();
        assert!(Remembered::load(&file).unwrap_err().to_string().contains("version 2"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
