//! The filter's decision in user space, for where no XDP program can run.
//!
//! Pure: bytes in, "ours or not" out. Follows `filter.c` branch by branch; a test runs both on the same frames. Owns no
//! table of its own: it reads the same image of maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::table::{
    ALSO_REPLIES, ALSO_TUNNELS, ANY_PORT, FilterTable, Image, JUDGED, Key, OWNED, RANGES, REPLY_SHIFT, SERVICE,
    SERVICE_MASK, TUNNEL, TableError, key, reply_key,
};
use crate::dataplane::access::Table;

const MAX_VLANS: usize = 2;
const MAX_EXTENSIONS: usize = 8;
const MAX_OFFSET: usize = 1024;

/// Which port of a transport header is asked for, and under which keys it is found.
struct Side {
    at: usize,
    key_of: fn(IpAddr, u8, u16) -> Key,
}

const TO: Side = Side { at: 2, key_of: key };
const FROM: Side = Side { at: 0, key_of: reply_key };

/// What an address's bits say of fragments with this next header.
fn fragment_bits(next: u8) -> u32 {
    match protocol_index(next) {
        Some(index) => SERVICE << index,
        None if is_extension(next) => SERVICE_MASK,
        None => 0,
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel gets it.
    Passed,
    /// The engine gets it.
    Taken,
    /// It is dropped: the access lists deny its sender the service that it is for.
    Denied,
}

/// What a [`FilterTable`] takes, ready to be asked.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    image: Image,
    access: Arc<Table>,
}

/// `length` bytes at `offset`, with the same bounds as the program's.
fn at(frame: &[u8], offset: usize, length: usize) -> Option<&[u8]> {
    if offset > MAX_OFFSET { None } else { frame.get(offset..offset + length) }
}

/// What is not judged: taken or passed.
fn ours(taken: bool) -> Fate {
    if taken { Fate::Taken } else { Fate::Passed }
}

fn half(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

fn protocol_index(protocol: u8) -> Option<u32> {
    match protocol {
        6 => Some(0),
        17 => Some(1),
        132 => Some(2),
        _ => None,
    }
}

fn is_extension(next: u8) -> bool {
    matches!(next, 0 | 43 | 44 | 51 | 60)
}

fn address4(bytes: &[u8]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
}

fn address6(bytes: &[u8]) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[..16]);
    IpAddr::V6(Ipv6Addr::from(octets))
}

impl Matcher {
    /// # Errors
    /// The same tables are refused as by the XDP filter, so that a config does not depend on the mode.
    pub fn new(table: &FilterTable) -> Result<Matcher, TableError> {
        Ok(Matcher { image: Image::of(table)?, access: Arc::default() })
    }

    /// The same with access lists, for the clients of [`FilterTable::judged`].
    #[must_use]
    pub fn with_access(self, access: &Arc<Table>) -> Matcher {
        Matcher { access: Arc::clone(access), ..self }
    }

    /// The lists.
    pub fn access(&self) -> &Arc<Table> {
        &self.access
    }

    /// What becomes of a frame. Frames that are cut or odd, and not clearly ours, are the kernel's.
    pub fn fate(&self, frame: &[u8]) -> Fate {
        self.take(frame).unwrap_or(Fate::Passed)
    }

    /// Whether a frame is ours.
    pub fn takes(&self, frame: &[u8]) -> bool {
        self.fate(frame) == Fate::Taken
    }

    /// What becomes of a packet for a service, by the bits of the service's address.
    fn judge(&self, bits: u32, source: IpAddr) -> Fate {
        if bits & JUDGED != 0 && self.access.denies(source) { Fate::Denied } else { Fate::Taken }
    }

    fn bits(&self, address: IpAddr) -> u32 {
        self.image.addresses.get(&key(address, 0, 0)).copied().unwrap_or(0)
    }

    /// `None` is "the frame ends too early", as in the program's `return 0`.
    fn take(&self, frame: &[u8]) -> Option<Fate> {
        let mut kind = half(at(frame, 0, 14)?, 12);
        let mut offset = 14;
        for _ in 0..MAX_VLANS {
            if kind != 0x8100 && kind != 0x88a8 {
                break;
            }
            kind = half(at(frame, offset, 4)?, 2);
            offset += 4;
        }
        match kind {
            0x0800 => self.take_ipv4(frame, offset),
            0x86dd => self.take_ipv6(frame, offset),
            0x0806 => {
                let arp = at(frame, offset, 28)?;
                let ethernet = arp[..6] == [0, 1, 8, 0, 6, 4];
                Some(ours(ethernet && self.bits(address4(&arp[24..])) & OWNED != 0))
            }
            _ => Some(Fate::Passed),
        }
    }

    /// What is taken from an address, if anything is taken from any.
    fn reply_bits(&self, address: IpAddr) -> u32 {
        if self.image.also & ALSO_REPLIES != 0 { self.bits(address) >> REPLY_SHIFT } else { 0 }
    }

    /// Whether an address is that of a server behind a tunnel.
    fn is_tunnel(&self, address: IpAddr) -> bool {
        self.image.also & ALSO_TUNNELS != 0 && self.bits(address) & TUNNEL != 0
    }

    #[allow(clippy::too_many_arguments)]
    fn is_port(
        &self,
        frame: &[u8],
        address: IpAddr,
        bits: u32,
        protocol: u8,
        index: u32,
        offset: usize,
        side: &Side,
    ) -> bool {
        if bits & SERVICE << index == 0 {
            return false;
        }
        if bits & ANY_PORT << index != 0 {
            return true;
        }
        let Some(transport) = at(frame, offset, 4) else { return false };
        let port = half(transport, side.at);
        if self.image.ports.contains(&(side.key_of)(address, protocol, port)) {
            return true;
        }
        if bits & RANGES << index == 0 {
            return false;
        }
        let Some(list) = self.image.ranges.get(&(side.key_of)(address, protocol, 0)) else { return false };
        let port = u32::from(port);
        list[1..].iter().take(list[0] as usize).any(|range| range >> 16 <= port && port <= range & 0xffff)
    }

    fn take_ipv4(&self, frame: &[u8], offset: usize) -> Option<Fate> {
        let ip = at(frame, offset, 20)?;
        let length = usize::from(ip[0] & 0xf) * 4;
        if ip[0] >> 4 != 4 || length < 20 {
            return Some(Fate::Passed);
        }
        let protocol = ip[9];
        let (source, address) = (address4(&ip[12..]), address4(&ip[16..]));
        let bits = self.bits(address);
        let offset = offset + length;
        if let Some(index) = protocol_index(protocol) {
            let replies = self.reply_bits(source);
            let service = SERVICE << index;
            if half(ip, 6) & 0x3fff != 0 {
                let fate = if bits & service != 0 { self.judge(bits, source) } else { ours(replies & service != 0) };
                return Some(fate);
            }
            if self.is_port(frame, address, bits, protocol, index, offset, &TO) {
                return Some(self.judge(bits, source));
            }
            return Some(ours(self.is_port(frame, source, replies, protocol, index, offset, &FROM)));
        }
        if protocol != 1 || half(ip, 6) & 0x1fff != 0 || (bits & OWNED == 0 && self.image.also == 0) {
            return Some(Fate::Passed);
        }
        let icmp = at(frame, offset, 8)?;
        let kind = icmp[0];
        let error = matches!(kind, 3 | 4 | 11 | 12);
        if bits & OWNED != 0 {
            return Some(ours(kind == 8 || error));
        }
        if !error {
            return Some(Fate::Passed);
        }
        let ip = at(frame, offset + 8, 20)?;
        let wanted = protocol_index(ip[9]).map_or(0, |index| SERVICE << index);
        let to = address4(&ip[16..]);
        let too_big = icmp[..2] == [3, 4];
        Some(ours(ip[0] >> 4 == 4 && (self.reply_bits(to) & wanted != 0 || too_big && self.is_tunnel(to))))
    }

    fn take_ipv6(&self, frame: &[u8], mut offset: usize) -> Option<Fate> {
        let ip = at(frame, offset, 40)?;
        if ip[0] >> 4 != 6 {
            return Some(Fate::Passed);
        }
        let mut next = ip[6];
        let (source, address) = (address6(&ip[8..]), address6(&ip[24..]));
        let bits = self.bits(address);
        if bits == 0 && ip[24] != 0xff && self.image.also == 0 {
            return Some(Fate::Passed);
        }
        let replies = self.reply_bits(source);
        offset += 40;
        for _ in 0..MAX_EXTENSIONS {
            if !is_extension(next) {
                break;
            }
            let header = at(frame, offset, 8)?;
            if next == 44 && half(header, 2) & 0xfff9 != 0 {
                let wanted = fragment_bits(header[0]);
                let fate = if bits & wanted != 0 { self.judge(bits, source) } else { ours(replies & wanted != 0) };
                return Some(fate);
            }
            offset += match next {
                44 => 8,
                51 => (usize::from(header[1]) + 2) * 4,
                _ => (usize::from(header[1]) + 1) * 8,
            };
            next = header[0];
        }
        if next == 58 {
            return self.take_icmpv6(frame, bits, offset);
        }
        let index = protocol_index(next)?;
        if self.is_port(frame, address, bits, next, index, offset, &TO) {
            return Some(self.judge(bits, source));
        }
        Some(ours(self.is_port(frame, source, replies, next, index, offset, &FROM)))
    }

    fn take_icmpv6(&self, frame: &[u8], bits: u32, offset: usize) -> Option<Fate> {
        let kind = at(frame, offset, 8)?[0];
        if kind == 135 || kind == 136 {
            let icmp = at(frame, offset, 24)?;
            return Some(ours(self.bits(address6(&icmp[8..])) & OWNED != 0));
        }
        let error = matches!(kind, 1..=4);
        if bits & OWNED != 0 {
            return Some(ours(kind == 128 || error));
        }
        if !error {
            return Some(Fate::Passed);
        }
        let ip = at(frame, offset + 8, 40)?;
        let to = address6(&ip[24..]);
        let reply = self.reply_bits(to) & fragment_bits(ip[6]) != 0;
        Some(ours(ip[0] >> 4 == 6 && (reply || kind == 2 && self.is_tunnel(to))))
    }
}
