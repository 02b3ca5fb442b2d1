//! Virtual routers: what VRRP is to do for which addresses, and what decides whether this appliance may be their master.
//!
//! Owns plain values. Never holds a state: who is master is [`super::Mastery`]'s.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VrrpVersion {
    /// RFC 3768, with the password of RFC 2338 where one is configured. IPv4 only.
    V2,
    /// RFC 5798 and RFC 9568.
    V3,
}

/// What the checksum of a version 3 advert over IPv4 covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VrrpChecksum {
    /// A pseudo-header too (RFC 5798; keepalived's default).
    #[default]
    PseudoHeader,
    /// The message only (RFC 9568; keepalived's `v3_checksum_as_v2`).
    Message,
}

/// Where the addresses of a virtual router are while this appliance is its master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In the engine: it answers ARP, neighbour discovery and echo. The kernel must not have them.
    #[default]
    Engine,
    /// On an interface of the kernel, for programs on the same machine.
    Kernel,
}

/// An address of a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix in bits, for [`Place::Kernel`]; a host's where none was written.
    pub prefix: u8,
    /// Interface of the kernel to put it on; `None`: the router's own.
    pub device: Option<String>,
    /// The kernel's label for it (IPv4), such as `eth0:1`.
    pub label: Option<String>,
}

impl VirtualAddress {
    /// An address alone: a host's prefix, the router's interface, no label.
    pub fn host(address: IpAddr) -> VirtualAddress {
        VirtualAddress { address, prefix: if address.is_ipv4() { 32 } else { 128 }, device: None, label: None }
    }
}

/// How often a new master tells its segment where the addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcements {
    /// Gratuitous ARPs or unsolicited NAs for each address in one round (`garp_master_repeat`).
    pub repeat: u8,
    /// Time until a second round after the one at once; zero: none (`garp_master_delay`).
    pub delay: Duration,
    /// Time between later rounds; zero: none (`garp_master_refresh`).
    pub refresh: Duration,
    /// Announcements for each address in one of those (`garp_master_refresh_repeat`).
    pub refresh_repeat: u8,
}

impl Default for Announcements {
    /// keepalived's.
    fn default() -> Self {
        Announcements { repeat: 5, delay: Duration::from_secs(5), refresh: Duration::ZERO, refresh_repeat: 1 }
    }
}

/// What a virtual router's right to be master hangs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tracked {
    /// An interface of the kernel is up and has a carrier.
    Interface(String),
    /// A [`TrackScript`] of that name succeeds.
    Script(String),
    /// The number in a [`TrackFile`] of that name, times the weight.
    File(String),
    /// A [`TrackProcess`] of that name runs.
    Process(String),
    /// A service of that name has its quorum of usable servers.
    Service(String),
    /// Every worker of the engine turns.
    Engine,
}

impl Tracked {
    /// What it is called in logs and status: its kind and its name.
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Tracked::Interface(name) => ("interface", name),
            Tracked::Script(name) => ("script", name),
            Tracked::File(name) => ("file", name),
            Tracked::Process(name) => ("process", name),
            Tracked::Service(name) => ("service", name),
            Tracked::Engine => ("engine", "workers"),
        }
    }
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = self.words();
        write!(f, "{kind} {name}")
    }
}

/// One thing that a router or a group tracks, and what it does to the priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// What.
    pub what: Tracked,
    /// 0: where it fails, the router is in fault. Above 0: added to the priority while it holds. Below 0: added while it
    /// fails. -253 to 253, as keepalived's.
    pub weight: i16,
}

/// Programs that are told of changes, each as its arguments. As in keepalived only [`Notify::any`] gets
/// `INSTANCE|GROUP NAME STATE PRIORITY` after its own; the others are called as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// Of a change to master.
    pub master: Option<Vec<String>>,
    /// Of a change to backup.
    pub backup: Option<Vec<String>>,
    /// Of a change to fault.
    pub fault: Option<Vec<String>>,
    /// Of the end of the program.
    pub stop: Option<Vec<String>>,
    /// Of any of those.
    pub any: Option<Vec<String>>,
}

/// Adverts to single peers in the place of the group address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unicast {
    /// The other routers. Adverts from anybody else are refused.
    pub peers: Vec<IpAddr>,
    /// Least and most TTL of an adverts that is taken, where it is checked (`unicast_ttl`); `None`: any.
    pub ttl: Option<(u8, u8)>,
}

/// A virtual router: addresses of which one appliance of several is master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRouter {
    /// Its name in logs, status and for notify scripts; unique.
    pub name: String,
    /// Interface of the kernel for adverts and announcements.
    pub interface: String,
    /// Number of the router on its segment, 1 to 255.
    pub vrid: u8,
    /// Version of the protocol.
    pub version: VrrpVersion,
    /// 1 to 254; 255: the addresses' owner.
    pub priority: u8,
    /// It is meant to be the master: as with keepalived it listens first all the same, unless it is the owner.
    pub starts_as_master: bool,
    /// Time between adverts: whole seconds in version 2, hundredths in version 3 (10 ms to 40.95 s).
    pub interval: Duration,
    /// Addresses in the adverts, in their order; the first is a link-local one for IPv6. All of one family.
    pub addresses: Vec<VirtualAddress>,
    /// Addresses that go with them without being in the adverts, of any family (`virtual_ipaddress_excluded`).
    pub excluded: Vec<VirtualAddress>,
    /// Where all of them are.
    pub place: Place,
    /// Version 2: the password, padded with zeroes.
    pub password: Option<[u8; 8]>,
    /// Version 3 over IPv4.
    pub checksum: VrrpChecksum,
    /// Source of the adverts; `None`: the interface's first address (IPv6: its link-local one).
    pub source: Option<IpAddr>,
    /// Single peers; `None`: the group address.
    pub unicast: Option<Unicast>,
    /// Whether a backup takes over from a master with a lower priority.
    pub preempt: bool,
    /// How long after its start, or after a fault, it lets such a master be.
    pub preempt_delay: Duration,
    /// Intervals without an advert after which a master is taken to be gone (`down_timer_adverts`).
    pub down_adverts: u8,
    /// Whether the addresses answer echo and may be spoken to by programs. ARP and neighbour discovery are answered anyway.
    pub accept: bool,
    /// The addresses are behind the virtual MAC of the RFCs in the place of the interface's own. Needs [`Place::Engine`].
    pub virtual_mac: bool,
    /// How a new master tells its segment.
    pub announcements: Announcements,
    /// What its right to be master hangs on. [`VirtualRouter::interface`] is always tracked and not listed here.
    pub tracks: Vec<Track>,
    /// Who is told of changes.
    pub notify: Notify,
}

impl VirtualRouter {
    /// A router with these addresses and keepalived's defaults for everything else.
    pub fn new(name: &str, interface: &str, vrid: u8, addresses: Vec<VirtualAddress>) -> VirtualRouter {
        VirtualRouter {
            name: name.to_owned(),
            interface: interface.to_owned(),
            vrid,
            version: VrrpVersion::V2,
            priority: 100,
            starts_as_master: false,
            interval: Duration::from_secs(1),
            addresses,
            excluded: Vec::new(),
            place: Place::Engine,
            password: None,
            checksum: VrrpChecksum::PseudoHeader,
            source: None,
            unicast: None,
            preempt: true,
            preempt_delay: Duration::ZERO,
            down_adverts: 3,
            accept: true,
            virtual_mac: false,
            announcements: Announcements::default(),
            tracks: Vec::new(),
            notify: Notify::default(),
        }
    }

    /// Whether its adverts go over IPv6.
    pub fn is_v6(&self) -> bool {
        self.addresses.first().is_some_and(|first| first.address.is_ipv6())
    }

    /// Its virtual MAC (RFC 9568, section 7.3).
    pub fn mac(&self) -> super::MacAddr {
        super::MacAddr([0, 0, 0x5e, 0, if self.is_v6() { 2 } else { 1 }, self.vrid])
    }

    /// All its addresses, those outside the adverts last.
    pub fn all_addresses(&self) -> impl Iterator<Item = &VirtualAddress> {
        self.addresses.iter().chain(&self.excluded)
    }
}

/// Routers that are master together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroup {
    /// Its name; unique.
    pub name: String,
    /// Names of its routers: two or more, each in no other group.
    pub routers: Vec<String>,
    /// What each of its routers tracks besides its own.
    pub tracks: Vec<Track>,
    /// Who is told of changes of the group.
    pub notify: Notify,
}

/// A program whose success is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackScript {
    /// Its name; unique among scripts.
    pub name: String,
    /// The program and its arguments. Exit code 0 is success.
    pub command: Vec<String>,
    /// Time from one start to the next.
    pub interval: Duration,
    /// Time after which it is killed with its children, and has failed.
    pub timeout: Duration,
    /// Successes in a row that make it good.
    pub rise: u16,
    /// Failures in a row that make it bad.
    pub fall: u16,
    /// User to run it as; `None`: this program's own.
    pub user: Option<String>,
    /// Whether it counts as good until it has run; else the router waits in fault.
    pub starts_good: bool,
}

/// A file with a number in it that is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackFile {
    /// Its name; unique among files.
    pub name: String,
    /// Its path. No file, or no number in it: 0.
    pub path: PathBuf,
}

/// A process whose presence is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackProcess {
    /// Its name; unique among processes.
    pub name: String,
    /// The name of the program, as in `/proc/PID/comm`.
    pub process: String,
    /// Least number of them.
    pub quorum: u16,
    /// How long a change must last.
    pub delay: Duration,
}

/// What all virtual routers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpSettings {
    /// A FIFO that gets a line for each change; made where it is not there.
    pub fifo: Option<PathBuf>,
    /// Real-time priority (SCHED_FIFO) of the thread, 1 to 99; 0: none.
    pub realtime: u8,
    /// Time without a turn after which a worker counts as stalled; zero: never.
    pub stall: Duration,
    /// How long a master that is told to stop goes on to forward while no successor has spoken up, at most.
    pub handover: Duration,
    /// User of notify scripts; `None`: this program's own.
    pub notify_user: Option<String>,
}

impl Default for VrrpSettings {
    fn default() -> Self {
        VrrpSettings {
            fifo: None,
            realtime: 50,
            stall: Duration::from_secs(1),
            handover: Duration::from_secs(2),
            notify_user: None,
        }
    }
}

/// All of VRRP in a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vrrp {
    /// What all share.
    pub settings: VrrpSettings,
    /// Virtual routers, in the order of the file.
    pub routers: Vec<VirtualRouter>,
    /// Their groups.
    pub groups: Vec<SyncGroup>,
    /// Scripts that can be tracked.
    pub scripts: Vec<TrackScript>,
    /// Files that can be tracked.
    pub files: Vec<TrackFile>,
    /// Processes that can be tracked.
    pub processes: Vec<TrackProcess>,
}

impl Vrrp {
    /// The router that has an address, and its place in the list.
    pub fn router_of(&self, address: IpAddr) -> Option<(usize, &VirtualRouter)> {
        let has = |router: &VirtualRouter| router.all_addresses().any(|known| known.address == address);
        self.routers.iter().enumerate().find(|(_, router)| has(router))
    }
}
