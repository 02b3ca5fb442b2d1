//! Addresses of virtual routers on the kernel's interfaces.
//!
//! Owns which of them this program put there, in memory and in a file that outlives it: what is in the file when it starts
//! was left by a crash, and is taken off. Never touches an address that somebody else put there. Waits for the kernel's
//! network lock, so it belongs to [`super::kernel`]'s thread.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::link::Links;
use super::rtnl::{OnLink, Rtnl};
use crate::model::VirtualRouter;

/// An address that this program put on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    /// Name of the virtual router.
    router: String,
    /// Name of the interface.
    interface: String,
    address: IpAddr,
    prefix: u8,
}

/// Which addresses are where, and the socket to change it.
#[derive(Debug)]
pub struct Addresses {
    rtnl: Rtnl,
    kept: PathBuf,
    held: Vec<Held>,
    /// Addresses that were there before, by router: they stay when ours go.
    found: BTreeMap<IpAddr, String>,
}

impl Addresses {
    /// Opens the socket, in the network namespace of the calling thread, and takes off what a crash left. What went wrong
    /// on the way is put into `notes`, in words.
    pub fn open(kept: PathBuf, notes: &mut Vec<String>) -> io::Result<Addresses> {
        let mut addresses = Addresses { rtnl: Rtnl::open()?, kept, held: Vec::new(), found: BTreeMap::new() };
        match fs::read(&addresses.kept) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(held) => addresses.held = held,
                Err(error) => notes.push(format!(
                    "{}: cannot read which addresses were left behind ({error}): look for them with `ip address`",
                    addresses.kept.display()
                )),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => notes.push(format!("{}: cannot be read: {error}", addresses.kept.display())),
        }
        for left in &addresses.held {
            notes.push(format!("({}) {} was left on {}: taken off", left.router, left.address, left.interface));
        }
        addresses.take_where(|_| true, notes);
        Ok(addresses)
    }

    /// The kernel's interfaces with their addresses.
    pub fn links(&mut self) -> io::Result<Links> {
        self.rtnl.links()
    }

    /// Puts all addresses of a router on their interfaces. Those that are there stay; those that are its no more go.
    pub fn put(&mut self, router: &VirtualRouter, notes: &mut Vec<String>) {
        let still = |held: &Held| {
            router.all_addresses().any(|known| {
                let interface = known.device.as_deref().unwrap_or(&router.interface);
                (known.address, known.prefix, interface) == (held.address, held.prefix, held.interface.as_str())
            })
        };
        self.take_where(|held| held.router == router.name && !still(held), notes);
        let links = match self.rtnl.links() {
            Ok(links) => links,
            Err(error) => {
                notes.push(format!("({}) cannot put addresses on: no answer about interfaces: {error}", router.name));
                return;
            }
        };
        // Written before the first one goes on: a crash in between leaves nothing that nobody knows.
        let mut wanted = Vec::new();
        for address in router.all_addresses() {
            let interface = address.device.as_deref().unwrap_or(&router.interface);
            let Some(link) = links.named(interface) else {
                notes.push(format!(
                    "({}) cannot put {} on {interface}: no such interface",
                    router.name, address.address
                ));
                continue;
            };
            let held = Held {
                router: router.name.clone(),
                interface: interface.to_owned(),
                address: address.address,
                prefix: address.prefix,
            };
            let there = link.addresses.contains(&address.address);
            let ours = self.held.contains(&held);
            if there && !ours {
                notes.push(format!(
                    "({}) {} is on {interface} already, and not by this program: it stays there when this appliance is no \
                     longer master",
                    router.name, address.address
                ));
                self.found.insert(address.address, router.name.clone());
            } else if !there {
                wanted.push((link.index, address, held));
            }
        }
        let before = self.held.len();
        for (.., held) in &wanted {
            if !self.held.contains(held) {
                self.held.push(held.clone());
            }
        }
        if self.held.len() > before {
            self.write(notes);
        }
        let mut refused = false;
        for (index, address, held) in wanted {
            let on =
                OnLink { index, address: address.address, prefix: address.prefix, label: address.label.as_deref() };
            match self.rtnl.add(&on) {
                Ok(true) => {}
                // It came in between, and is not ours; or it is on, with another prefix.
                Ok(false) => {
                    self.held.retain(|known| *known != held);
                    refused = true;
                }
                Err(error) => {
                    notes.push(format!(
                        "({}) cannot put {}/{} on {}: {error}",
                        router.name, address.address, address.prefix, held.interface
                    ));
                    self.held.retain(|known| *known != held);
                    refused = true;
                }
            }
        }
        if refused {
            self.write(notes);
        }
    }

    /// Takes a router's addresses off again, the ones that are ours.
    pub fn take(&mut self, router: &str, notes: &mut Vec<String>) {
        self.found.retain(|_, name| name != router);
        self.take_where(|held| held.router == router, notes);
    }

    /// Takes all off.
    pub fn take_all(&mut self, notes: &mut Vec<String>) {
        self.take_where(|_| true, notes);
    }

    fn take_where(&mut self, which: impl Fn(&Held) -> bool, notes: &mut Vec<String>) {
        if !self.held.iter().any(&which) {
            return;
        }
        let links = match self.rtnl.links() {
            Ok(links) => links,
            Err(error) => {
                notes.push(format!("cannot take addresses off: no answer about interfaces: {error}"));
                return;
            }
        };
        let (go, stay): (Vec<Held>, Vec<Held>) = self.held.drain(..).partition(which);
        self.held = stay;
        for held in go {
            // Without the interface the address is gone too.
            let Some(link) = links.named(&held.interface) else { continue };
            let off = OnLink { index: link.index, address: held.address, prefix: held.prefix, label: None };
            let removed = match off.address.is_ipv4() {
                true => promoting(&held.interface, || self.rtnl.remove(&off)),
                false => self.rtnl.remove(&off),
            };
            if let Err(error) = removed {
                let Held { router, interface, address, .. } = &held;
                notes.push(format!("({router}) cannot take {address} off {interface}: {error}"));
                self.held.push(held);
            }
        }
        self.write(notes);
    }

    /// Writes the file anew, at once or not at all.
    fn write(&self, notes: &mut Vec<String>) {
        let write = || -> io::Result<()> {
            if self.held.is_empty() {
                return match fs::remove_file(&self.kept) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            }
            if let Some(directory) = self.kept.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut new = self.kept.clone().into_os_string();
            new.push(".new");
            fs::write(&new, serde_json::to_vec(&self.held)?)?;
            fs::rename(&new, &self.kept)
        };
        if let Err(error) = write() {
            notes.push(format!(
                "{}: cannot be written: {error}; after a crash, addresses would stay on their interfaces",
                self.kept.display()
            ));
        }
    }
}

/// Removes an IPv4 address without the others of its network: where ours is the first one of them, the kernel takes all along
/// unless it is told to promote the next one. Machines of systemd have that on; here it is, for that moment.
fn promoting<R>(interface: &str, remove: impl FnOnce() -> R) -> R {
    let setting = format!("/proc/sys/net/ipv4/conf/{interface}/promote_secondaries");
    let off = fs::read_to_string(&setting).is_ok_and(|value| value.trim() == "0");
    // Where it cannot be set, that is how such machines have always been.
    let set = off && fs::write(&setting, "1").is_ok();
    let done = remove();
    if set {
        let _ = fs::write(&setting, "0");
    }
    done
}
