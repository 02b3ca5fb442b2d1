//! Values of ipvsadm's options as its C library reads them: numbers, addresses, ends, masks, flags.
//!
//! Owns the reading; what cannot be a number or an address is looked up by who calls. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Protocol;

/// How names are looked up.
pub struct Lookup<'a> {
    /// The IPv4 address of a host.
    pub host: &'a dyn Fn(&str) -> Option<Ipv4Addr>,
    /// The port of a service by TCP or UDP.
    pub port: &'a dyn Fn(&str, Protocol) -> Option<u16>,
}

/// An address, and a port where one was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The port, host order.
    pub port: Option<u16>,
}

/// A decimal number as `strtol` reads it: white space and a sign may stand before it, and nothing behind.
pub fn number(text: &str, least: i64, most: i64) -> Option<i64> {
    let value: i64 = text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']).parse().ok()?;
    (least..=most).contains(&value).then_some(value)
}

/// An IPv4 address as `inet_aton` reads it: one to four parts, each decimal, octal or hexadecimal, the last one as wide as what
/// is left.
pub fn dotted(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, before) = parts.split_last()?;
    if before.len() > 3 {
        return None;
    }
    let mut value: u32 = 0;
    for (place, part) in before.iter().enumerate() {
        value |= part_of(part, 0xff)? << (24 - 8 * place);
    }
    Some(Ipv4Addr::from(value | part_of(last, u32::MAX >> (8 * before.len()))?))
}

fn part_of(text: &str, most: u32) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok().filter(|value| *value <= most)
}

/// `HOST[:PORT]`, `V6` or `[V6]:PORT`. `protocol`: by which a port's name is looked up.
pub fn end(text: &str, protocol: Option<Protocol>, lookup: &Lookup<'_>) -> Option<End> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (host, bracketed) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, port) = inner.split_once(']')?;
            (host, Some(port.strip_prefix(':')?))
        }
        None => (text, None),
    };
    let (address, port) = match host.parse::<Ipv6Addr>() {
        Ok(v6) => (IpAddr::V6(v6), bracketed),
        // As ipvsadm does: what stands behind the brackets of an IPv4 address is not looked at.
        Err(_) => {
            let (host, port) = host.rsplit_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
            (IpAddr::V4(dotted(host).or_else(|| (lookup.host)(host))?), port)
        }
    };
    let port = match port {
        None => None,
        Some(text) => {
            let written = number(text, 0, 65_535).and_then(|port| u16::try_from(port).ok());
            let named = || (lookup.port)(text, protocol.filter(|protocol| *protocol != Protocol::Sctp)?);
            Some(written.or_else(named)?)
        }
    };
    Some(End { address, port })
}

/// Scheduler flags by their names in Evenkeel's configuration, each once and in the order of their bits.
///
/// # Errors
/// What is wrong, in ipvsadm's words where it refuses, too.
pub fn scheduler_flags(scheduler: &str, text: &str) -> Result<Vec<&'static str>, String> {
    let names = match scheduler {
        "sh" => ["sh-fallback", "sh-port"],
        "mh" => ["mh-fallback", "mh-port"],
        _ => ["", ""],
    };
    let mut set = [false; 2];
    for flag in text.split(',').filter(|flag| !flag.is_empty()) {
        let place = match flag {
            "flag-1" | "sh-fallback" | "mh-fallback" => 0,
            "flag-2" | "sh-port" | "mh-port" => 1,
            // A third flag has no meaning for any scheduler that takes flags.
            "flag-3" if !names[0].is_empty() => continue,
            "flag-3" => 0,
            _ => return Err(format!("invalid scheduler flag `{flag}'")),
        };
        if !flag.starts_with("flag-") && names[place] != flag {
            return Err(format!("incompatible scheduler flag `{flag}'"));
        }
        if names[place].is_empty() {
            return Err(format!("incompatible scheduler flag `{flag}': the scheduler `{scheduler}' has no flags"));
        }
        set[place] = true;
    }
    Ok(names.into_iter().zip(set).filter_map(|(name, set)| set.then_some(name)).collect())
}

/// The leading bits of a mask; `None` where its ones are not together.
pub fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then_some(bits.leading_ones() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<String> {
        let lookup = Lookup {
            host: &|name| (name == "web").then_some(Ipv4Addr::new(192, 0, 2, 9)),
            port: &|name, protocol| (name == "http" && protocol == Protocol::Tcp).then_some(80),
        };
        let end = end(text, Some(Protocol::Tcp), &lookup)?;
        Some(format!("{} {}", end.address, end.port.map_or("-".to_owned(), |port| port.to_string())))
    }

    #[test]
    fn ends_are_read_as_ipvsadm_reads_them() {
        for (text, expected) in [
            ("192.0.2.10:80", Some("192.0.2.10 80")),
            ("192.0.2.10", Some("192.0.2.10 -")),
            ("192.0.2:80", Some("192.0.0.2 80")),
            ("0x7f000001:1", Some("127.0.0.1 1")),
            ("010.0.0.1:1", Some("8.0.0.1 1")),
            ("192.0.2.10:http", Some("192.0.2.10 80")),
            ("192.0.2.10:080", Some("192.0.2.10 80")),
            ("web:http", Some("192.0.2.9 80")),
            ("2001:db8::2", Some("2001:db8::2 -")),
            ("[2001:db8::2]:443", Some("2001:db8::2 443")),
            ("[192.0.2.1]:80", Some("192.0.2.1 -")),
            ("[2001:db8::2]", None),
            ("[2001:db8::2", None),
            ("80", None),
            ("", None),
            (":80", None),
            ("192.0.2.10:", None),
            ("192.0.2.10:65536", None),
            ("192.0.2.10:-1", None),
            ("192.0.2.10:0x50", None),
            ("192.0.2.300:80", None),
            ("1.2.3.4.5:80", None),
            ("1..2:80", None),
            ("nowhere:80", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_masks_and_flags() {
        assert_eq!(number(" +7", 0, 9), Some(7));
        for text in ["", "-", "7 ", "0x7", "99999999999999999999", "-1"] {
            assert_eq!(number(text, 0, 9), None, "{text}");
        }
        assert_eq!(prefix(Ipv4Addr::new(255, 255, 255, 0)), Some(24));
        assert_eq!(prefix(Ipv4Addr::UNSPECIFIED), Some(0));
        assert_eq!(prefix(Ipv4Addr::BROADCAST), Some(32));
        assert_eq!(prefix(Ipv4Addr::new(255, 0, 255, 0)), None);
        assert_eq!(prefix(Ipv4Addr::new(0, 0, 0, 24)), None);
        assert_eq!(scheduler_flags("sh", "sh-port,sh-fallback"), Ok(vec!["sh-fallback", "sh-port"]));
        assert_eq!(scheduler_flags("mh", "flag-2,,flag-3"), Ok(vec!["mh-port"]));
        assert_eq!(scheduler_flags("rr", ""), Ok(vec![]));
        for (scheduler, text, error) in [
            ("mh", "sh-port", "incompatible scheduler flag `sh-port'"),
            ("wlc", "sh-port", "incompatible scheduler flag `sh-port'"),
            ("rr", "bogus", "invalid scheduler flag `bogus'"),
            ("rr", "flag-1", "incompatible scheduler flag `flag-1': the scheduler `rr' has no flags"),
        ] {
            assert_eq!(scheduler_flags(scheduler, text), Err(error.to_owned()));
        }
    }
}
