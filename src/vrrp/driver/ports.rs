//! The interfaces that routers need: their sockets, as interfaces come, go and change.
//!
//! Owns a port for each interface. Opens none itself: [`super::super::kernel`]'s thread does, and hands it over.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::model::{MacAddr, VirtualRouter};
use crate::vrrp::kernel::Job;
use crate::vrrp::link::Links;
use crate::vrrp::socket::{Port, SocketError};

/// Time until sockets that could not be opened are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What an interface is needed for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Adverts over IPv4 and IPv6.
    pub families: (bool, bool),
    /// Addresses whose claims are heard.
    pub addresses: Vec<IpAddr>,
}

/// An interface that is there.
#[derive(Debug)]
pub struct Entry {
    /// Its index.
    pub index: u32,
    /// Its Ethernet address; zeroes where it has none.
    pub mac: MacAddr,
    /// Its sockets, once they are open.
    pub port: Option<Port>,
    /// Whether the kernel forwards IPv6 packets there.
    pub forwards: bool,
    /// Whether the last attempt to open the sockets failed.
    pub failed: bool,
    need: Need,
    token: Token,
    /// What was asked for and has not come yet.
    asked: Option<Need>,
    retry: Option<Duration>,
}

/// All of them, by name.
#[derive(Debug, Default)]
pub struct Ports {
    entries: BTreeMap<String, Entry>,
    tokens: usize,
}

impl Ports {
    /// The interface of that name, if it is there and needed.
    pub fn get(&self, interface: &str) -> Option<&Entry> {
        self.entries.get(interface)
    }

    /// The name of the interface with that token.
    pub fn name_of(&self, token: Token) -> Option<&str> {
        self.entries.iter().find(|(_, entry)| entry.token == token).map(|(name, _)| name.as_str())
    }

    /// The token of that interface.
    pub fn token_of(&self, interface: &str) -> Option<Token> {
        self.entries.get(interface).map(|entry| entry.token)
    }

    /// Brings the ports in line with what is needed and what is there. Returns what has to be done for it.
    pub fn settle(&mut self, needs: &BTreeMap<String, Need>, links: &Links, now: Duration) -> Vec<Job> {
        self.entries.retain(|name, _| needs.contains_key(name) && links.named(name).is_some());
        let mut jobs = Vec::new();
        for (name, need) in needs {
            let Some(link) = links.named(name) else { continue };
            // Made anew, it is another interface: the old sockets hear nothing any more.
            if self.entries.get(name).is_none_or(|entry| entry.index != link.index) {
                self.tokens += 1;
                let entry = Entry {
                    index: link.index,
                    mac: MacAddr::default(),
                    port: None,
                    forwards: false,
                    failed: false,
                    need: need.clone(),
                    token: Token(super::turn::FIRST_PORT + self.tokens),
                    asked: None,
                    retry: None,
                };
                self.entries.insert(name.clone(), entry);
            }
            let Some(entry) = self.entries.get_mut(name) else { continue };
            entry.mac = link.mac.unwrap_or_default();
            let due = entry.retry.is_none_or(|at| at <= now);
            let lacks = entry.port.is_none() || entry.need.families != need.families;
            if let (false, Some(port)) = (entry.need.addresses == need.addresses, &entry.port) {
                // The old program stays where the new one is refused: fewer claims are heard.
                let _ = port.listen_for(&need.addresses);
            }
            entry.need = need.clone();
            if !lacks {
                entry.retry = None;
            }
            if lacks && due && entry.asked.is_none() {
                entry.asked = Some(need.clone());
                entry.retry = None;
                let (interface, index) = (name.clone(), link.index);
                jobs.push(Job::Open { interface, index, families: need.families, addresses: need.addresses.clone() });
            }
        }
        jobs
    }

    /// Takes sockets that were opened. Returns what went wrong, unless it went wrong before.
    pub fn opened(
        &mut self,
        (interface, index, forwards): (&str, u32, bool),
        port: Result<Port, SocketError>,
        registry: &Registry,
        now: Duration,
    ) -> Option<SocketError> {
        let entry = self.entries.get_mut(interface).filter(|entry| entry.index == index)?;
        let asked = entry.asked.take()?;
        entry.forwards = forwards;
        let port = match port {
            Ok(port) => port,
            Err(error) => {
                entry.retry = Some(now + RETRY);
                return (!std::mem::replace(&mut entry.failed, true)).then_some(error);
            }
        };
        entry.failed = false;
        if asked.addresses != entry.need.addresses {
            let _ = port.listen_for(&entry.need.addresses);
        }
        // The old one's descriptor leaves the poll when it is closed.
        entry.port = None;
        let registered = registry.register(&mut SourceFd(&port.as_raw_fd()), entry.token, Interest::READABLE);
        if registered.is_err() {
            entry.failed = true;
            entry.retry = Some(now + RETRY);
            return None;
        }
        // Where more is needed by now, it is asked for again.
        entry.retry = (asked.families != entry.need.families).then_some(now);
        entry.port = Some(port);
        None
    }

    /// When the next attempt is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.entries.values().filter(|entry| entry.asked.is_none()).filter_map(|entry| entry.retry).min()
    }
}

/// What interfaces are needed for by routers: those that they speak on, and those that have addresses of theirs.
pub fn needs<'a>(routers: impl Iterator<Item = &'a VirtualRouter>) -> BTreeMap<String, Need> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    for router in routers {
        let need = needs.entry(router.interface.clone()).or_default();
        match router.is_v6() {
            false => need.families.0 = true,
            true => need.families.1 = true,
        }
        for address in router.all_addresses() {
            let interface = address.device.as_ref().unwrap_or(&router.interface);
            needs.entry(interface.clone()).or_default().addresses.push(address.address);
        }
    }
    needs
}
