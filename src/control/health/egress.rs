//! The way of checks with `path = "service"`: packets of marked sockets, to the service's address on one certain server.
//!
//! Owns the device that takes them from the kernel, and the frames in which they leave. Never looks into a check, and never
//! receives: the server answers to this machine's own address, by the usual way. Why so: docs/adr/0024.
//!
//! ```text
//! a check's socket --mark--> rule, table --> TUN device --> this file --> frame to the server's Ethernet address
//!        ^                                                      |          (in a tunnel, where clients' packets are)
//!        +------------ the server's answer, by its interface <--+
//! ```

mod device;
mod frame;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};
use tracing::warn;

use self::device::Device;
use crate::control::netlink::Netlink;
use crate::control::nexthop::Path;
use crate::control::nexthop::tracker::Tracker;
use crate::health::driver::Egress;
use crate::model::{Desired, MacAddr, Method, Server, Through};

/// How a server is reached, and from which address of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The interface that frames leave by.
    pub interface: String,
    /// Its Ethernet address.
    pub own: MacAddr,
    /// 802.1Q tag.
    pub vlan: Option<u16>,
    /// Whom frames are for: the server, or the router on the way.
    pub mac: MacAddr,
    /// The source address of the kernel's route to the server.
    pub source: Option<IpAddr>,
    /// The interface that the kernel sees the server's packets on: that of its VLAN, where there is a tag.
    pub back: String,
}

type Hops = HashMap<(IpAddr, Path), Hop>;

/// The ways to the servers that are checked so, as they are now: written by the control thread, read by the checks'.
#[derive(Clone, Debug, Default)]
pub struct Ways(Arc<ArcSwap<Hops>>);

impl Ways {
    /// Takes the ways as the tracker knows them. Servers without a next hop have none.
    pub fn learn(&self, tracker: &Tracker, desired: &Desired) {
        let asked = |server: &&Server| server.health.checks.iter().any(|check| check.target.through.is_some());
        let servers = desired.services.iter().flat_map(|service| &service.servers).filter(asked);
        let hops: Hops = servers
            .filter_map(|server| {
                let path = Path::of(server.method);
                Some(((server.address, path), hop(tracker, desired, server.address, path)?))
            })
            .collect();
        if **self.0.load() != hops {
            self.0.store(Arc::new(hops));
        }
    }
}

fn hop(tracker: &Tracker, desired: &Desired, server: IpAddr, path: Path) -> Option<Hop> {
    let next = tracker.hop(server, path)?.as_ref().ok()?;
    let interface = &desired.interfaces.get(usize::from(next.port))?.name;
    let facts = tracker.facts();
    let own = facts.links.values().find(|link| link.name == *interface)?.mac?;
    let route = facts.route(server);
    let back = route.and_then(|route| facts.links.get(&route.link)).map_or(interface, |link| &link.name);
    Some(Hop {
        interface: interface.clone(),
        own,
        vlan: next.vlan,
        mac: next.mac,
        source: route.and_then(|route| route.source),
        back: back.clone(),
    })
}

/// The checks' way.
pub struct ServicePath {
    ways: Ways,
    device: Option<Device>,
    /// Whose packets are from which protocol and port. A port stays its last server's until it is another's: when a check is
    /// over, its connection's reset is still to come.
    bound: HashMap<(u8, u16), Arc<Through>>,
    known: HashSet<Arc<Through>>,
    /// Sockets by the interface that they send on.
    wires: HashMap<String, OwnedFd>,
    /// Servers and service addresses that were looked at for what the kernel makes of answers.
    looked: HashSet<(IpAddr, IpAddr)>,
    buffer: Vec<u8>,
}

impl ServicePath {
    /// Over these ways. Nothing is made before a check needs it.
    pub fn new(ways: Ways) -> ServicePath {
        ServicePath {
            ways,
            device: None,
            bound: HashMap::new(),
            known: HashSet::new(),
            wires: HashMap::new(),
            looked: HashSet::new(),
            buffer: vec![0; 65_536],
        }
    }

    /// Sends on a packet of a check, if it is known whose it is and how its server is reached.
    fn forward(&mut self, packet: &[u8]) {
        let Some(head) = frame::Head::of(packet) else { return };
        let Some(through) = self.bound.get(&(head.protocol, head.port)).cloned() else { return };
        let hops = self.ways.0.load();
        let Some(hop) = hops.get(&(through.server, Path::of(through.method))) else { return };
        if self.looked.insert((through.server, head.destination))
            && let Some(words) = answers_are_dropped(head.destination, through.server, &hop.back)
        {
            warn!("{words}");
        }
        let frame = match through.method {
            Method::Dr => Some(frame::direct(packet, hop)),
            _ => {
                let source = through.tunnel.source_towards(through.server).or(hop.source);
                source.and_then(|source| frame::tunnelled(packet, &head, hop, &through, source))
            }
        };
        if let Some(frame) = frame {
            // What cannot be sent is lost, as on the wire: the check asks again, or fails by its own time.
            let _ = self.send(&hop.interface, &frame);
        }
    }

    fn send(&mut self, interface: &str, frame: &[u8]) -> io::Result<()> {
        if !self.wires.contains_key(interface) {
            self.wires.insert(interface.to_owned(), open(interface)?);
        }
        let Some(wire) = self.wires.get(interface) else { return Ok(()) };
        match send(wire.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(()),
            Err(errno) => {
                // An interface that was made anew has another index.
                if matches!(errno, Errno::ENXIO | Errno::ENODEV) {
                    self.wires.remove(interface);
                }
                Err(errno.into())
            }
        }
    }
}

impl Egress for ServicePath {
    fn open(&mut self) -> Result<u32, String> {
        let device = match self.device.take() {
            Some(device) => device,
            None => Device::make().map_err(|error| error.to_string())?,
        };
        let mark = device.mark();
        self.device = Some(device);
        Ok(mark)
    }

    fn source(&self, through: &Through) -> Option<IpAddr> {
        self.ways.0.load().get(&(through.server, Path::of(through.method)))?.source
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.device.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn bind(&mut self, protocol: u8, port: u16, through: Option<&Through>) {
        let Some(through) = through else { return };
        let known = self.known.get(through).cloned().unwrap_or_else(|| {
            let known = Arc::new(through.clone());
            self.known.insert(Arc::clone(&known));
            known
        });
        self.bound.insert((protocol, port), known);
    }

    fn turn(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(Ok(length)) = self.device.as_ref().map(|device| device.read(&mut buffer)) {
            self.forward(buffer.get(..length).unwrap_or_default());
        }
        self.buffer = buffer;
    }
}

/// A socket that sends frames on an interface, and receives none.
fn open(interface: &str) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let mut all = getifaddrs()?.filter(|found| found.interface_name == interface);
    let address = all.find_map(|found| found.address?.as_link_addr().copied());
    bind(fd.as_raw_fd(), &address.ok_or(Errno::ENODEV)?)?;
    Ok(fd)
}

/// Why the kernel would drop a server's answers: its reverse path filter wants them from where it would send to the service's
/// address itself (RFC 3704).
fn answers_are_dropped(service: IpAddr, server: IpAddr, back: &str) -> Option<String> {
    if service.is_ipv6() {
        return None;
    }
    let setting = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).ok()?;
        text.trim().parse::<u8>().ok()
    };
    // The kernel takes the larger one.
    let filter = setting("all").into_iter().chain(setting(back)).max()?;
    let route = Netlink::open().ok()?.route(service).ok()?;
    let name = |link: u32| nix::net::if_::if_indextoname(link).ok().and_then(|name| name.into_string().ok());
    let by = route.and_then(|route| name(route.link));
    let why = match (filter, by) {
        (1, by) if by.as_deref() != Some(back) => "is strict (1), and its own way to that address is another",
        (2, None) => "is loose (2), and it has no way to that address at all",
        _ => return None,
    };
    Some(format!(
        "the kernel drops what {server} answers from {service}: net.ipv4.conf.{back}.rp_filter {why}; set it to 0, and \
         net.ipv4.conf.all.rp_filter too, or give the kernel a route to {service} by {back}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TunnelSettings;

    #[test]
    fn a_port_stays_its_servers_until_it_is_anothers() {
        let mut path = ServicePath::new(Ways::default());
        let through = |last| Through {
            server: IpAddr::from([10, 0, 0, last]),
            method: Method::Dr,
            tunnel: TunnelSettings::default(),
        };
        path.bind(6, 4000, Some(&through(1)));
        path.bind(6, 4001, Some(&through(1)));
        path.bind(17, 4000, Some(&through(2)));
        path.bind(6, 4000, None);
        let server =
            |path: &ServicePath, protocol, port| path.bound.get(&(protocol, port)).map(|through| through.server);
        assert_eq!(server(&path, 6, 4000), Some(IpAddr::from([10, 0, 0, 1])), "its reset is still to come");
        assert_eq!(server(&path, 17, 4000), Some(IpAddr::from([10, 0, 0, 2])));
        path.bind(6, 4000, Some(&through(2)));
        assert_eq!(server(&path, 6, 4000), Some(IpAddr::from([10, 0, 0, 2])));
        assert_eq!(path.known.len(), 2, "each server once, whatever the number of ports");
        assert!(path.source(&through(1)).is_none() && path.descriptor().is_none());
        // Without a device and without ways: nothing happens.
        path.turn();
    }
}
