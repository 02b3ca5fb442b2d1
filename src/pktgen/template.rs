//! The packets of a generator: one template and what differs from flow to flow.
//!
//! Pure. Owns the headers, the checksums and the numbering of flows; `pktgen.c` does the same arithmetic. Flow `i` has
//! source address `base + i % addresses` and source port `FIRST_PORT + i / addresses`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::MacAddr;

/// Lowest source port.
pub const FIRST_PORT: u16 = 1024;
/// Source ports that one address has.
pub const PORTS: u64 = 65536 - FIRST_PORT as u64;
/// Bytes of the longest header: Ethernet, IPv6, TCP.
pub const MAX_HEADER: usize = 80;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// UDP datagrams.
    Udp,
    /// TCP segments with only SYN set.
    TcpSyn,
}

/// Source addresses: a base and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Lowest address.
    pub base: IpAddr,
    /// Addresses from there on.
    pub addresses: u32,
}

/// What all packets have in common.
#[derive(Clone, Copy, Debug)]
pub struct Parameters {
    /// Source and destination on the link.
    pub source_mac: MacAddr,
    /// Never a group.
    pub destination_mac: MacAddr,
    /// Sources.
    pub sources: Sources,
    /// Destination address, of the sources' family.
    pub destination: IpAddr,
    /// Destination port, host order.
    pub port: u16,
    /// Protocol.
    pub kind: Kind,
    /// Bytes of a frame, without FCS.
    pub size: usize,
    /// Flows.
    pub flows: u32,
}

/// A template that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Mixed families.
    #[error("source {0} and destination {1} are of different families")]
    Family(IpAddr, IpAddr),
    /// No room for the headers, or no frame.
    #[error("frames of {size} bytes: they must have {least} to 3400")]
    Size {
        /// Asked for.
        size: usize,
        /// The headers.
        least: usize,
    },
    /// Too many flows.
    #[error("{flows} flows need {} source addresses, and `--src` has {addresses}: give a shorter prefix", (u64::from(*.flows)).div_ceil(PORTS))]
    Flows {
        /// Asked for.
        flows: u32,
        /// There are.
        addresses: u32,
    },
    /// A group address.
    #[error("destination MAC {0} is a group: a generator at full rate would flood the network")]
    Group(MacAddr),
}

/// A packet with source address, source port and checksums zero, and the sums that finish them.
#[derive(Clone, Debug)]
pub struct Template {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Bytes of all headers.
    pub header: usize,
    /// Parameters it was made of.
    pub parameters: Parameters,
    /// Ones' complement sum over the IPv4 header, of words as they lie in memory.
    pub ip_sum: u32,
    /// The same over pseudo-header and segment.
    pub transport_sum: u32,
}

/// Ones' complement sum of words as they lie in memory: byte order does not matter (RFC 1071 section 2 (B)).
fn sum(bytes: &[u8]) -> u32 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    // Folded once, so that later additions cannot overflow.
    (sum & 0xffff) + (sum >> 16)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Template {
    /// # Errors
    /// [`TemplateError`].
    pub fn new(parameters: Parameters) -> Result<Template, TemplateError> {
        let Parameters { sources, destination, port, kind, size, flows, .. } = parameters;
        if sources.base.is_ipv4() != destination.is_ipv4() {
            return Err(TemplateError::Family(sources.base, destination));
        }
        if parameters.destination_mac.is_multicast() {
            return Err(TemplateError::Group(parameters.destination_mac));
        }
        let transport = if destination.is_ipv4() { 34 } else { 54 };
        let header = transport + if kind == Kind::Udp { 8 } else { 20 };
        if size < header || size > 3400 {
            return Err(TemplateError::Size { size, least: header });
        }
        if u64::from(flows) > u64::from(sources.addresses) * PORTS {
            return Err(TemplateError::Flows { flows, addresses: sources.addresses });
        }

        let mut bytes = vec![0u8; size];
        bytes[..6].copy_from_slice(&parameters.destination_mac.0);
        bytes[6..12].copy_from_slice(&parameters.source_mac.0);
        let protocol = if kind == Kind::Udp { 17 } else { 6 };
        let mut pseudo = Vec::new();
        let mut ip_sum = 0;
        let segment = (size - transport) as u16;
        match (sources.base, destination) {
            (IpAddr::V4(_), IpAddr::V4(destination)) => {
                bytes[12..14].copy_from_slice(&[8, 0]);
                bytes[14] = 0x45;
                bytes[16..18].copy_from_slice(&((size - 14) as u16).to_be_bytes());
                bytes[20] = 0x40; // do not fragment
                bytes[22] = 64;
                bytes[23] = protocol;
                bytes[30..34].copy_from_slice(&destination.octets());
                ip_sum = sum(&bytes[14..34]);
                pseudo.extend(destination.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
                bytes[14] = 0x60;
                bytes[18..20].copy_from_slice(&segment.to_be_bytes());
                bytes[20] = protocol;
                bytes[21] = 64;
                bytes[22..34].copy_from_slice(&source.octets()[..12]);
                bytes[38..54].copy_from_slice(&destination.octets());
                pseudo.extend(&source.octets()[..12]);
                pseudo.extend(destination.octets());
            }
            _ => return Err(TemplateError::Family(sources.base, destination)),
        }
        pseudo.extend([0, protocol]);
        pseudo.extend(segment.to_be_bytes());
        bytes[transport + 2..transport + 4].copy_from_slice(&port.to_be_bytes());
        match kind {
            Kind::Udp => bytes[transport + 4..transport + 6].copy_from_slice(&segment.to_be_bytes()),
            Kind::TcpSyn => {
                bytes[transport + 4..transport + 8].copy_from_slice(&0x1000_0000u32.to_be_bytes());
                bytes[transport + 12] = 5 << 4;
                bytes[transport + 13] = 2;
                bytes[transport + 14..transport + 16].copy_from_slice(&0xfaf0u16.to_be_bytes());
            }
        }
        for (byte, value) in bytes[header..].iter_mut().zip(0u8..=255) {
            *byte = value;
        }
        let transport_sum = sum(&pseudo) + sum(&bytes[transport..]);
        Ok(Template { bytes, header, parameters, ip_sum, transport_sum })
    }

    /// The lowest source address in host order; of an IPv6 address the last four bytes.
    pub fn source(&self) -> u32 {
        match self.parameters.sources.base {
            IpAddr::V4(address) => address.to_bits(),
            IpAddr::V6(address) => address.to_bits() as u32,
        }
    }

    /// Writes the packet of a flow over `frame`, which is as long as the template.
    pub fn write(&self, flow: u32, frame: &mut [u8]) {
        frame.copy_from_slice(&self.bytes);
        let addresses = self.parameters.sources.addresses.max(1);
        let address = self.source().wrapping_add(flow % addresses).to_be_bytes();
        let port = FIRST_PORT.wrapping_add((flow / addresses) as u16).to_be_bytes();
        let (place, transport) = if self.parameters.destination.is_ipv4() { (26, 34) } else { (34, 54) };
        frame[place..place + 4].copy_from_slice(&address);
        frame[transport..transport + 2].copy_from_slice(&port);
        if self.parameters.destination.is_ipv4() {
            frame[24..26].copy_from_slice(&fold(self.ip_sum + sum(&address)).to_ne_bytes());
        }
        let checksum = fold(self.transport_sum + sum(&address) + sum(&port));
        let (at, checksum) = match self.parameters.kind {
            Kind::Udp => (transport + 6, if checksum == 0 { 0xffff } else { checksum }),
            Kind::TcpSyn => (transport + 16, checksum),
        };
        frame[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
    }
}

/// Reads `address` or `address/prefix`.
///
/// # Errors
/// In words.
pub fn parse_sources(text: &str) -> Result<Sources, String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => {
            (address, Some(prefix.parse::<u32>().map_err(|_| format!("`{prefix}` is not a prefix length"))?))
        }
        None => (text, None),
    };
    let base: IpAddr = address.parse().map_err(|_| format!("`{address}` is not an IP address"))?;
    let bits = if base.is_ipv4() { 32 } else { 128 };
    let host = bits - prefix.unwrap_or(bits).min(bits);
    // At most 2^24 addresses, which is plenty, and in IPv6 keeps to the last four bytes.
    let addresses = 1u32 << host.min(24);
    let base = match base {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & !(addresses - 1))),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(addresses - 1))),
    };
    Ok(Sources { base, addresses })
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    fn parameters(source: &str, destination: &str, kind: Kind, size: usize) -> Parameters {
        Parameters {
            source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            sources: parse_sources(source).expect("sources"),
            destination: destination.parse().expect("address"),
            port: 53,
            kind,
            size,
            flows: 100_000,
        }
    }

    /// etherparse finds every header and recomputes every checksum.
    #[test]
    fn every_flow_is_a_correct_packet() {
        for (source, destination) in [("10.9.0.0/16", "192.0.2.1"), ("2001:db8:9::/112", "2001:db8::1")] {
            for kind in [Kind::Udp, Kind::TcpSyn] {
                for size in [74, 75, 128, 1514] {
                    let template = Template::new(parameters(source, destination, kind, size)).expect("template");
                    let mut frame = vec![0xff; size];
                    for flow in [0, 1, 255, 65535, 65536, 99_999] {
                        template.write(flow, &mut frame);
                        let sliced = SlicedPacket::from_ethernet(&frame).expect("packet");
                        let ip = sliced.net.expect("ip");
                        if let Some(ip) = ip.ipv4_ref() {
                            let header = ip.header().to_header();
                            assert_eq!(header.header_checksum, header.calc_header_checksum());
                        }
                        let (checksum, calculated, port) = match (sliced.transport.expect("transport"), &ip) {
                            (TransportSlice::Udp(udp), etherparse::NetSlice::Ipv4(ip)) => {
                                let (h, p) = (udp.to_header(), udp.payload());
                                let c = h.calc_checksum_ipv4(&ip.header().to_header(), p).expect("sum");
                                (h.checksum, c, h.source_port)
                            }
                            (TransportSlice::Udp(udp), etherparse::NetSlice::Ipv6(ip)) => {
                                let (h, p) = (udp.to_header(), udp.payload());
                                let c = h.calc_checksum_ipv6(&ip.header().to_header(), p).expect("sum");
                                (h.checksum, c, h.source_port)
                            }
                            (TransportSlice::Tcp(tcp), etherparse::NetSlice::Ipv4(ip)) => {
                                let (h, p) = (tcp.to_header(), tcp.payload());
                                let c = h.calc_checksum_ipv4(&ip.header().to_header(), p).expect("sum");
                                (h.checksum, c, h.source_port)
                            }
                            (TransportSlice::Tcp(tcp), etherparse::NetSlice::Ipv6(ip)) => {
                                let (h, p) = (tcp.to_header(), tcp.payload());
                                let c = h.calc_checksum_ipv6(&ip.header().to_header(), p).expect("sum");
                                (h.checksum, c, h.source_port)
                            }
                            other => panic!("{other:?}"),
                        };
                        assert_eq!(checksum, calculated, "{source} {kind:?} {size} {flow}");
                        assert_eq!(u32::from(port), 1024 + flow / 65536);
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = parameters("10.0.0.1", "192.0.2.1", Kind::Udp, 60);
        assert!(matches!(Template::new(good), Err(TemplateError::Flows { addresses: 1, .. })));
        let few = Parameters { flows: 64512, ..good };
        assert!(Template::new(few).is_ok());
        assert!(matches!(Template::new(Parameters { size: 41, ..few }), Err(TemplateError::Size { least: 42, .. })));
        let six = Parameters { destination: "::1".parse().expect("address"), ..few };
        assert!(matches!(Template::new(six), Err(TemplateError::Family(..))));
        let group = Parameters { destination_mac: MacAddr([255; 6]), ..few };
        assert!(matches!(Template::new(group), Err(TemplateError::Group(_))));
        assert!(parse_sources("10.0.0.0/x").is_err() && parse_sources("ten").is_err());
        assert_eq!(parse_sources("10.1.2.3/8").expect("sources").base, "10.0.0.0".parse::<IpAddr>().expect("address"));
    }
}
