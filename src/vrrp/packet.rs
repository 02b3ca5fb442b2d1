//! VRRP's message: bytes to an advert and back, for version 2 (RFC 3768, with the password of RFC 2338) and version 3
//! (RFC 5798, RFC 9568).
//!
//! Owns the format and every reason for which an advert is refused. Never compares an advert with a configured router
//! ([`super::election`] does), and never reads past the message. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::model::{MacAddr, VrrpChecksum, VrrpVersion};

/// IP protocol number (RFC 9568, section 5.1.1.4).
pub const PROTOCOL: u8 = 112;
/// Where adverts over IPv4 go.
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where adverts over IPv6 go.
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// TTL or hop limit of every advert; a smaller one has passed a router.
pub const TTL: u8 = 255;
/// Priority of the addresses' owner.
pub const OWNER: u8 = 255;
/// Priority of a master that leaves.
pub const LEAVING: u8 = 0;
/// Longest interval of version 3 in hundredths of a second (12 bits).
pub const MOST_CENTISECONDS: u16 = 4095;
/// Authentication type of version 2: none.
pub const NO_AUTH: u8 = 0;
/// Authentication type of version 2: a password in the clear (RFC 2338).
pub const PASSWORD: u8 = 1;

const HEADER: usize = 8;
const TRAILER: usize = 8;
const ADVERTISEMENT: u8 = 1;

/// What came around a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Source of the IP packet.
    pub source: IpAddr,
    /// Destination of the IP packet: the group's address, or one of ours.
    pub destination: IpAddr,
    /// TTL or hop limit as it came in.
    pub ttl: u8,
    /// Source of the Ethernet frame.
    pub mac: MacAddr,
}

impl Envelope {
    /// Whether the message was for the group.
    pub fn is_multicast(&self) -> bool {
        self.destination.is_multicast()
    }
}

/// An advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Version.
    pub version: VrrpVersion,
    /// Number of the virtual router.
    pub vrid: u8,
    /// Priority of its sender; [`LEAVING`] and [`OWNER`] are special.
    pub priority: u8,
    /// Time between its sender's adverts: whole seconds in version 2, hundredths in version 3.
    pub interval: Duration,
    /// Version 2: the password, padded with zeroes.
    pub password: Option<[u8; 8]>,
    /// Version 2: [`NO_AUTH`] or [`PASSWORD`].
    pub auth_type: u8,
    /// What the checksum covers. Over IPv6 always a pseudo-header, in version 2 always the message.
    pub checksum: VrrpChecksum,
    /// The virtual addresses, of one family.
    pub addresses: Vec<IpAddr>,
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why an advert was refused. The name is the counter's, in status and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Refusal {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Refusal {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Refusal] = &[$(Refusal::$variant,)+];

            /// Its short name.
            pub const fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name,)+ }
            }

            /// What it means, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Refusal::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

refusals! {
    /// The message ends before its header, its addresses or its authentication data.
    Short = "short",
    /// The message goes on after what its header announces.
    Long = "long",
    /// Neither version 2 nor 3, version 2 over IPv6, or not the version of the router.
    Version = "version",
    /// Not an advertisement.
    Type = "type",
    /// The checksum fits neither the message nor the message with its pseudo-header.
    Checksum = "bad-checksum",
    /// TTL or hop limit is not 255, so it has passed a router; between single peers: outside of what was configured.
    Ttl = "ttl",
    /// It names no address.
    NoAddress = "no-address",
    /// Its interval is zero.
    ZeroInterval = "zero-interval",
    /// The interval of version 2 is not ours (RFC 3768, section 7.1, has it dropped).
    Interval = "interval",
    /// Version 2: its kind of authentication is unknown or not ours.
    AuthType = "auth-type",
    /// Version 2: its password is not ours.
    Password = "wrong-password",
    /// No virtual router of that number is configured on the interface.
    UnknownVrid = "unknown-vrid",
    /// That number is configured on the interface, for the other family of addresses only.
    Family = "other-family",
    /// Sent to the group while the router speaks to single peers, or the other way round.
    Destination = "destination",
    /// Sent by somebody who is not among the router's peers.
    NotAPeer = "not-a-peer",
    /// It has our own source address and Ethernet address: the network brought it back.
    OwnSource = "own-source",
    /// It has our own source address, and another Ethernet address: somebody else uses it.
    SameSource = "same-source",
}

/// Reads a message: the payload of the IP packet, cut to the length that the IP header gives.
pub fn parse(envelope: &Envelope, message: &[u8]) -> Result<Advert, Refusal> {
    if envelope.is_multicast() && envelope.ttl != TTL {
        return Err(Refusal::Ttl);
    }
    let Some((header, rest)) = message.split_first_chunk::<HEADER>() else { return Err(Refusal::Short) };
    let v6 = envelope.source.is_ipv6();
    let version = match (header[0] >> 4, v6) {
        (2, false) => VrrpVersion::V2,
        (3, _) => VrrpVersion::V3,
        _ => return Err(Refusal::Version),
    };
    if header[0] & 0x0f != ADVERTISEMENT {
        return Err(Refusal::Type);
    }
    let size = if v6 { 16 } else { 4 };
    let trailer = if version == VrrpVersion::V2 { TRAILER } else { 0 };
    let addresses = usize::from(header[3]) * size;
    if rest.len() < addresses + trailer {
        return Err(Refusal::Short);
    }
    if rest.len() > addresses + trailer {
        return Err(Refusal::Long);
    }
    let checksum = checksum_form(version, envelope, message).ok_or(Refusal::Checksum)?;
    if addresses == 0 {
        return Err(Refusal::NoAddress);
    }
    let (auth_type, interval) = match version {
        VrrpVersion::V2 => (header[4], Duration::from_secs(u64::from(header[5]))),
        VrrpVersion::V3 => {
            let hundredths = u16::from_be_bytes([header[4], header[5]]) & MOST_CENTISECONDS;
            (NO_AUTH, Duration::from_millis(u64::from(hundredths) * 10))
        }
    };
    if auth_type > PASSWORD {
        return Err(Refusal::AuthType);
    }
    if interval.is_zero() {
        return Err(Refusal::ZeroInterval);
    }
    let (addresses, trailer) = rest.split_at(addresses);
    Ok(Advert {
        version,
        vrid: header[1],
        priority: header[2],
        interval,
        password: if auth_type == PASSWORD { trailer.try_into().ok() } else { None },
        auth_type,
        checksum,
        addresses: addresses.chunks_exact(size).map(address).collect(),
    })
}

/// Writes a message, with its checksum. Addresses that are not of the source's family are left out; an interval is rounded
/// to what the version can say, 1 at least.
pub fn build(advert: &Advert, source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let addresses = || advert.addresses.iter().filter(|address| address.is_ipv6() == source.is_ipv6()).take(255);
    let (version, timing) = match advert.version {
        VrrpVersion::V2 => (2, [advert.auth_type, seconds(advert.interval)]),
        VrrpVersion::V3 => (3, centiseconds(advert.interval).to_be_bytes()),
    };
    let mut message = vec![version << 4 | ADVERTISEMENT, advert.vrid, advert.priority, addresses().count() as u8];
    message.extend(timing);
    message.extend([0, 0]);
    for address in addresses() {
        match address {
            IpAddr::V4(address) => message.extend(address.octets()),
            IpAddr::V6(address) => message.extend(address.octets()),
        }
    }
    if advert.version == VrrpVersion::V2 {
        message.extend(advert.password.unwrap_or_default());
    }
    let pseudo = match (advert.version, source.is_ipv6()) {
        (VrrpVersion::V2, _) => 0,
        (VrrpVersion::V3, false) if advert.checksum == VrrpChecksum::Message => 0,
        _ => pseudo_header(source, destination, message.len()),
    };
    let sum = !fold(pseudo + sum(&message));
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

/// What the checksum covers, where it is right. A message whose checksum is right both ways (it can be) counts as the RFC
/// 5798 form, which most senders use.
fn checksum_form(version: VrrpVersion, envelope: &Envelope, message: &[u8]) -> Option<VrrpChecksum> {
    let plain = sum(message);
    let right = |pseudo: u64| fold(plain + pseudo) == 0xffff;
    match (version, envelope.source.is_ipv6()) {
        (VrrpVersion::V2, _) => right(0).then_some(VrrpChecksum::Message),
        (VrrpVersion::V3, v6) => {
            if right(pseudo_header(envelope.source, envelope.destination, message.len())) {
                Some(VrrpChecksum::PseudoHeader)
            } else {
                (!v6 && right(0)).then_some(VrrpChecksum::Message)
            }
        }
    }
}

fn seconds(interval: Duration) -> u8 {
    ((interval.as_millis() + 500) / 1000).clamp(1, 255) as u8
}

fn centiseconds(interval: Duration) -> u16 {
    ((interval.as_millis() + 5) / 10).clamp(1, u128::from(MOST_CENTISECONDS)) as u16
}

fn address(bytes: &[u8]) -> IpAddr {
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => {
            let mut short = [0; 4];
            short.copy_from_slice(bytes);
            IpAddr::from(short)
        }
    }
}

/// Sum of the 16-bit words in network byte order, an odd byte padded with zero.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let pairs: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    pairs + odd.first().map_or(0, |byte| u64::from(*byte) << 8)
}

/// Sum of the pseudo-header: both addresses, the protocol and the length (RFC 8200, section 8.1; RFC 5798, section 5.2.8).
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> u64 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    address(source) + address(destination) + u64::from(PROTOCOL) + length as u64
}

pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests;
