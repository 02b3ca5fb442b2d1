//! Which packets the kernel hands to the raw sockets of checks: programs of the classic packet filter. Pure.
//!
//! Owns the programs. They keep a busy machine's other traffic from waking the thread; what passes is read with care again.

use socket2::SockFilter;

const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// Loads relative to the index.
const LOAD_HALF_AT: u16 = 0x48;
const LOAD_BYTE_AT: u16 = 0x50;
/// The index becomes the length of the IPv4 header at an offset.
const INDEX_HEADER: u16 = 0xb1;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

const fn plain(code: u16, value: u32) -> SockFilter {
    SockFilter::new(code, 0, 0, value)
}

const fn when(value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(EQUAL, then, otherwise, value)
}

const DROP: SockFilter = plain(RETURN, 0);
const ACCEPT: SockFilter = plain(RETURN, u32::MAX);

/// Echo replies with our identifier, and errors. An IPv4 socket gets the IP header, too; one for IPv6 does not.
pub fn icmp(v4: bool, id: u16) -> Vec<SockFilter> {
    let (kind, field, [reply, unreachable, exceeded]) = match v4 {
        true => (plain(LOAD_BYTE_AT, 0), plain(LOAD_HALF_AT, 4), [0, 3, 11]),
        false => (plain(LOAD_BYTE, 0), plain(LOAD_HALF, 4), [129, 1, 3]),
    };
    let head = v4.then(|| plain(INDEX_HEADER, 0));
    head.into_iter()
        .chain([
            kind,
            when(unreachable, 5, 0),
            when(exceeded, 4, 0),
            when(reply, 0, 2),
            field,
            when(id.into(), 1, 0),
            DROP,
            ACCEPT,
        ])
        .collect()
}

/// Segments to that port of ours.
pub fn tcp(v4: bool, port: u16) -> Vec<SockFilter> {
    match v4 {
        true => vec![plain(INDEX_HEADER, 0), plain(LOAD_HALF_AT, 2), when(port.into(), 1, 0), DROP, ACCEPT],
        false => vec![plain(LOAD_HALF, 2), when(port.into(), 1, 0), DROP, ACCEPT],
    }
}
