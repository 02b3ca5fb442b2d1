//! The file that remembers what people decided about servers (`state` in `[control]`): one JSON object.
//!
//! Owns its form. Never decides anything.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Book, Decision};
use crate::control::health::Admin;
use crate::control::whole_file::{self, with_suffix};
use crate::model::{PortRange, Protocol, ServerKey, ServiceKey};

/// Version of the form.
const VERSION: u64 = 1;

/// Largest file that is read: far more than there can be servers.
const MOST: u64 = 64 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The system refuses.
    #[error("cannot {doing} {}: {source}", path.display())]
    System {
        /// What.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its text makes no sense.
    #[error("{} is no file of this program's: {why}", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Form {
    version: u64,
    servers: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    /// Name of the service, for people.
    service: String,
    protocol: Protocol,
    /// The service's.
    address: IpAddr,
    /// The service's port, range, or `any`.
    port: String,
    server: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    server_port: Option<u16>,
    admin: Admin,
    since: u64,
}

fn ports(text: &str) -> Option<PortRange> {
    if text == "any" {
        return Some(PortRange::ANY);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: first.parse().ok()?, last: last.parse().ok()? };
    (range.first <= range.last).then_some(range)
}

/// Reads it; a file that is not there says nothing.
pub(super) fn read(path: &Path) -> Result<Book, FileError> {
    let failed = |source| FileError::System { doing: "read", path: path.to_owned(), source };
    let foreign = |why: String| FileError::Foreign { path: path.to_owned(), why };
    let mut file = match File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::new()),
        Err(error) => return Err(failed(error)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(foreign("it is not a regular file".to_owned()));
    }
    let mut text = Vec::new();
    Read::by_ref(&mut file).take(MOST + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MOST {
        return Err(foreign(format!("it is larger than {} MiB", MOST >> 20)));
    }
    let form: Form = serde_json::from_slice(&text).map_err(|error| foreign(error.to_string()))?;
    if form.version != VERSION {
        return Err(foreign(format!("its version is {}, and this program knows {VERSION}", form.version)));
    }
    let mut book = Book::new();
    for entry in form.servers {
        let Some(ports) = ports(&entry.port) else {
            return Err(foreign(format!("{:?} is no port, no range and not `any`", entry.port)));
        };
        let service = ServiceKey { address: entry.address, protocol: entry.protocol, ports };
        let key = ServerKey { service, address: entry.server, port: entry.server_port };
        if entry.admin != Admin::Ready {
            book.insert(key, Decision { admin: entry.admin, since: entry.since, name: entry.service });
        }
    }
    Ok(book)
}

/// Moves a file that cannot be used out of the way. Where to.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = with_suffix(path, ".broken");
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Writes it; when this returns, it is on the disk.
pub(super) fn write(path: &Path, book: &Book) -> Result<(), FileError> {
    let servers = book.iter().map(|(key, decision)| Entry {
        service: decision.name.clone(),
        protocol: key.service.protocol,
        address: key.service.address,
        port: key.service.ports.to_string(),
        server: key.address,
        server_port: key.port,
        admin: decision.admin,
        since: decision.since,
    });
    let form = Form { version: VERSION, servers: servers.collect() };
    let failed = |doing| move |source| FileError::System { doing, path: path.to_owned(), source };
    let mut text = serde_json::to_vec_pretty(&form).map_err(|error| failed("write")(error.into()))?;
    text.push(b'\n');
    fs::create_dir_all(whole_file::folder(path)).map_err(failed("make the folder of"))?;
    whole_file::replace(path, &text, None).map_err(failed("write"))
}
