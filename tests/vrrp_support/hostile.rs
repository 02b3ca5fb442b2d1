//! Routers of every kind on one interface, messages made to mislead them, and a judge of its own that says which message a
//! router may take.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::model::{MacAddr, RouterSlot, Unicast, VirtualRouter, VrrpChecksum, VrrpVersion};
use evenkeel::vrrp::packet::{self, Advert, Envelope, GROUP_V4, GROUP_V6};
use evenkeel::vrrp::{Action, Condition, Election, Source, Spec};

use super::{MS, Random, router};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

/// Version 2 without and with a password, version 3, the same between single peers, and IPv6: numbers 1 to 5.
pub fn routers() -> Vec<VirtualRouter> {
    let second = Duration::from_secs(1);
    let plain = VirtualRouter { password: None, ..router("V2", VrrpVersion::V2, false, second, 100) };
    let unicast = Some(Unicast { peers: vec![PEER], ttl: Some((250, 255)) });
    let mut all = vec![
        plain,
        router("V2_PASS", VrrpVersion::V2, false, second, 100),
        router("V3", VrrpVersion::V3, false, 100 * MS, 100),
        VirtualRouter { unicast, ..router("V3_UNICAST", VrrpVersion::V3, false, 100 * MS, 100) },
        router("V6", VrrpVersion::V3, true, 100 * MS, 100),
    ];
    for (at, router) in all.iter_mut().enumerate() {
        router.vrid = at as u8 + 1;
    }
    all
}

/// The appliance at 10.0.0.1 that is to be misled.
pub struct Victim {
    pub election: Election,
    pub routers: Vec<VirtualRouter>,
    pub now: Duration,
    /// Messages that were taken and that were not.
    pub counts: (u64, u64),
    out: Vec<Action>,
}

impl Victim {
    /// All its routers are backup.
    pub fn new() -> Victim {
        let routers = routers();
        let specs: Vec<Spec> = (routers.iter().enumerate())
            .map(|(at, router)| Spec { router: Arc::new(router.clone()), slot: RouterSlot::new(at + 1).expect("slot") })
            .collect();
        let now = Duration::from_secs(100);
        let (mut election, mut out) = (Election::new(), Vec::new());
        election.configure(&specs, &[], Duration::from_secs(2), now, &mut out);
        for router in &routers {
            let source = Source { address: if router.is_v6() { V6 } else { V4 }, mac: MAC };
            election.source(&router.name, Some(source), now, &mut out);
            election.condition(&router.name, Condition::default(), now, &mut out);
        }
        Victim { election, routers, now, counts: (0, 0), out: Vec::new() }
    }

    /// Lets time pass, in which it may become master.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.election.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.out.clear();
            self.election.tick(self.now, &mut self.out);
        }
        self.now = end;
    }

    /// Gives it a message, and checks all that it may not do. A master that gave way is said: `true`.
    pub fn receive(&mut self, envelope: &Envelope, message: &[u8]) -> bool {
        let due = self.election.deadline();
        let before = self.election.totals();
        self.out.clear();
        self.election.receive("eth0", envelope, message, self.now, &mut self.out);
        let after = self.election.totals();
        let may = self.routers.iter().any(|router| may_take(router, envelope, message));
        assert_eq!(after.0, before.0 + u64::from(may), "{envelope:?} {message:02x?}");
        let promoted = self.out.iter().any(|action| matches!(action, Action::Own { owned: true, .. }));
        assert!(!promoted && after.1 == before.1, "promoted by {envelope:?} {message:02x?}");
        if !may {
            let quiet = self.out.iter().all(|action| matches!(action, Action::Log { .. }));
            assert!(quiet && self.election.deadline() == due, "{:?} by {envelope:?} {message:02x?}", self.out);
        }
        self.counts.0 += u64::from(may);
        self.counts.1 += u64::from(!may);
        self.out.iter().any(|action| matches!(action, Action::Own { .. }))
    }

    /// A bounded amount is remembered, whoever sent what.
    pub fn is_bounded(&self) -> bool {
        self.election.status(self.now).iter().all(|router| router.peers.len() <= 32 && router.evidence.len() <= 65)
    }
}

/// Whether a router may take a message: the rules of both RFCs once more, from the bytes.
fn may_take(router: &VirtualRouter, envelope: &Envelope, message: &[u8]) -> bool {
    let v6 = router.is_v6();
    let ours = if v6 { V6 } else { V4 };
    if message.len() < 8 || envelope.source.is_ipv6() != v6 || envelope.source == ours {
        return false;
    }
    let to_the_group = match &router.unicast {
        None => envelope.destination.is_multicast() && envelope.ttl == 255,
        Some(unicast) => {
            !envelope.destination.is_multicast()
                && unicast.peers.contains(&envelope.source)
                && unicast.ttl.is_none_or(|(least, most)| envelope.ttl >= least && envelope.ttl <= most)
        }
    };
    let v2 = router.version == VrrpVersion::V2;
    let first = if v2 { 0x21 } else { 0x31 };
    let addresses = usize::from(message[3]) * if v6 { 16 } else { 4 };
    let length = 8 + addresses + if v2 { 8 } else { 0 };
    if !to_the_group || message[0] != first || message[1] != router.vrid || addresses == 0 || message.len() != length {
        return false;
    }
    let timing = if v2 {
        let kind = if router.password.is_some() { 1 } else { 0 };
        message[4] == kind && u64::from(message[5]) == router.interval.as_secs()
    } else {
        (message[4] & 0x0f, message[5]) != (0, 0)
    };
    let password = router.password.is_none_or(|password| message.ends_with(&password));
    timing && password && (adds_up(message, &[]) && !v6 || !v2 && adds_up(message, &pseudo(envelope, message.len())))
}

fn pseudo(envelope: &Envelope, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [envelope.source, envelope.destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend([0, 112]);
    bytes.extend((length as u16).to_be_bytes());
    bytes
}

/// Whether the ones' complement sum is all ones (RFC 1071), added up with the carry brought round each time.
fn adds_up(message: &[u8], pseudo: &[u8]) -> bool {
    let mut sum = 0u16;
    for pair in message.chunks(2).chain(pseudo.chunks(2)) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (added, carry) = sum.overflowing_add(word);
        sum = added + u16::from(carry);
    }
    sum == 0xffff
}

/// Something between an advert that is right and noise.
pub fn message(random: &mut Random, routers: &[VirtualRouter]) -> (Envelope, Vec<u8>) {
    let router = &routers[random.below(routers.len() as u64) as usize];
    let v6 = router.is_v6();
    let source = match (random.below(16), v6) {
        (0, false) => V4,
        (0, true) => V6,
        (1, _) => IpAddr::V4(Ipv4Addr::from(random.next() as u32)),
        (2, _) => IpAddr::V6(Ipv6Addr::from(u128::from(random.next()) << 64 | u128::from(random.next()))),
        (3..6, false) => IpAddr::V4(Ipv4Addr::new(10, 0, 0, random.next() as u8)),
        (_, false) => PEER,
        (_, true) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2 + random.below(9) as u16)),
    };
    let group: IpAddr = if source.is_ipv6() { GROUP_V6.into() } else { GROUP_V4.into() };
    let single = if source.is_ipv6() { V6 } else { V4 };
    let to_one = router.unicast.is_some() ^ (random.below(10) == 0);
    let envelope = Envelope {
        source,
        destination: if to_one { single } else { group },
        ttl: if random.below(8) == 0 { random.next() as u8 } else { 255 },
        mac: MacAddr([2, 0, 0, 0, 0, 1 + random.below(3) as u8]),
    };
    let advert = Advert {
        version: if random.below(12) == 0 { VrrpVersion::V2 } else { router.version },
        vrid: if random.below(12) == 0 { random.next() as u8 } else { router.vrid },
        priority: [0, 1, 50, 99, 100, 101, 200, 254, 255, random.next() as u8][random.below(10) as usize],
        interval: if random.below(8) == 0 { random.below(50_000) as u32 * MS } else { router.interval },
        password: if random.below(8) == 0 { Some(random.next().to_be_bytes()) } else { router.password },
        auth_type: if random.below(12) == 0 { random.next() as u8 } else { u8::from(router.password.is_some()) },
        checksum: if random.below(2) == 0 { VrrpChecksum::Message } else { VrrpChecksum::PseudoHeader },
        addresses: (0..1 + random.below(3)).map(|_| router.addresses[0].address).collect(),
    };
    let mut message = packet::build(&advert, source, envelope.destination);
    let length = message.len() as u64;
    match random.below(12) {
        0 => message = (0..random.below(64)).map(|_| random.next() as u8).collect(),
        1 => message.truncate(random.below(length) as usize),
        2 => message.extend((0..1 + random.below(20)).map(|_| random.next() as u8)),
        3 | 4 => {
            for _ in 0..1 + random.below(4) {
                let at = random.below(length) as usize;
                message[at] = random.next() as u8;
            }
        }
        // Changed, with a checksum that is right again.
        5 | 6 => {
            let at = random.below(6) as usize;
            message[at] = random.next() as u8;
            repair(&envelope, &mut message);
        }
        _ => {}
    }
    (envelope, message)
}

/// Makes the checksum right.
pub fn repair(envelope: &Envelope, message: &mut [u8]) {
    if message.len() < 8 {
        return;
    }
    message[6..8].fill(0);
    let mut pseudo = if message[0] >> 4 == 2 { Vec::new() } else { pseudo(envelope, message.len()) };
    pseudo.extend([0; 2]);
    // The one value of 65536 for which it adds up is found by adding up once.
    let mut sum = 0u16;
    for pair in message.chunks(2).chain(pseudo.chunks(2)) {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (added, carry) = sum.overflowing_add(word);
        sum = added + u16::from(carry);
    }
    message[6..8].copy_from_slice(&(!sum).to_be_bytes());
}
