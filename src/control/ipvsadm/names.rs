//! Names of hosts and ports: those that the machine's files have, and for hosts that are asked for, the system's resolver.
//!
//! Owns the look-ups. A listing never asks a name server: ipvsadm does, and so hangs where none answers.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

use crate::model::Protocol;

/// The files of names, read once.
#[derive(Clone, Debug, Default)]
pub struct Names {
    hosts: HashMap<IpAddr, String>,
    ports: HashMap<(u16, Protocol), String>,
    services: HashMap<(String, Protocol), u16>,
}

/// A line without its comment, in words.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split('#').next().unwrap_or_default().split_whitespace()
}

impl Names {
    /// Reads `/etc/hosts` and `/etc/services`; what cannot be read has no names.
    pub fn of_machine() -> Names {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Names::read(&read("/etc/hosts"), &read("/etc/services"))
    }

    /// From the text of both files. The first name of an address or port counts.
    fn read(hosts: &str, services: &str) -> Names {
        let mut names = Names::default();
        for line in hosts.lines() {
            let mut words = words(line);
            if let (Some(Ok(address)), Some(name)) = (words.next().map(str::parse), words.next()) {
                names.hosts.entry(address).or_insert_with(|| name.to_owned());
            }
        }
        for line in services.lines() {
            let mut words = words(line);
            let (Some(name), Some((port, protocol))) = (words.next(), words.next().and_then(|w| w.split_once('/')))
            else {
                continue;
            };
            let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol);
            if let (Ok(port), Some(protocol)) = (port.parse(), protocol) {
                names.ports.entry((port, protocol)).or_insert_with(|| name.to_owned());
                for name in std::iter::once(name).chain(words) {
                    names.services.entry((name.to_owned(), protocol)).or_insert(port);
                }
            }
        }
        names
    }

    /// An address and port, by their names where they have any. Ports of SCTP stay numbers, as in ipvsadm.
    pub fn end(&self, address: IpAddr, port: u16, protocol: Protocol) -> String {
        let host = self.hosts.get(&address).cloned().unwrap_or_else(|| address.to_string());
        let named = self.ports.get(&(port, protocol)).filter(|_| protocol != Protocol::Sctp);
        let port = named.cloned().unwrap_or_else(|| port.to_string());
        if address.is_ipv4() { format!("{host}:{port}") } else { format!("[{host}]:{port}") }
    }

    /// The port of a name.
    pub fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.services.get(&(name.to_owned(), protocol)).copied()
    }
}

/// The IPv4 address of a host, by the system's resolver.
pub fn host(name: &str) -> Option<Ipv4Addr> {
    let all = (name, 0).to_socket_addrs().ok()?;
    all.map(|end| end.ip()).find_map(|address| match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_files() {
        let hosts = "127.0.0.1 localhost # me\n192.0.2.10\tweb.example www\n192.0.2.10 other\n2001:db8::1 six\n";
        let services = "# name port\nhttp 80/tcp www # web\nhttp 80/sctp\ndomain\t53/udp\nbroken\nodd x/tcp\n";
        let names = Names::read(hosts, services);
        for (address, port, protocol, expected) in [
            ("192.0.2.10", 80, Protocol::Tcp, "web.example:http"),
            ("192.0.2.10", 80, Protocol::Udp, "web.example:80"),
            ("192.0.2.11", 80, Protocol::Sctp, "192.0.2.11:80"),
            ("2001:db8::1", 53, Protocol::Udp, "[six]:domain"),
            ("2001:db8::2", 0, Protocol::Tcp, "[2001:db8::2]:0"),
        ] {
            assert_eq!(names.end(address.parse().expect("an address"), port, protocol), expected);
        }
        assert_eq!(names.port("www", Protocol::Tcp), Some(80));
        assert_eq!(names.port("www", Protocol::Udp), None);
        assert_eq!(names.port("domain", Protocol::Udp), Some(53));
    }
}
