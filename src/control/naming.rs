//! How people and programs name services and servers, and how what they sent is quoted back to them.
//!
//! Owns the forms that every command takes. Never looks anything up. Pure.

use std::net::{IpAddr, SocketAddr};

use super::resolve::default_name;
use crate::model::ServiceKey;

/// What a client sent, cut to what a sentence can hold.
pub fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

/// What is wrong with the options of a command.
pub fn misread(command: &str, error: &serde_json::Error) -> String {
    let why: String = error.to_string().chars().take(300).collect();
    format!("`options` of the command `{command}`: {why}")
}

/// An address, and a port where one is written: `10.0.0.11`, `10.0.0.11:80`, `[fd00::11]:80`, `fd00::11`, `[fd00::11]`.
pub fn end(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(end) = text.parse::<SocketAddr>() {
        return Some((end.ip(), Some(end.port())));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().map(|address| (address, None))
}

/// Whether a service is named by what it matches: `tcp 192.0.2.10:80`, or `192.0.2.10:80/tcp` as those without a name are
/// called.
pub fn is_key(key: &ServiceKey, wanted: &str) -> bool {
    wanted.eq_ignore_ascii_case(&key.to_string()) || wanted == default_name(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PortRange, Protocol};

    #[test]
    fn services_and_servers_are_named() {
        let key = |address: &str| ServiceKey {
            address: address.parse().expect("an address"),
            protocol: Protocol::Tcp,
            ports: PortRange::single(80),
        };
        for wanted in ["tcp 192.0.2.10:80", "TCP 192.0.2.10:80", "192.0.2.10:80/tcp"] {
            assert!(is_key(&key("192.0.2.10"), wanted), "{wanted}");
        }
        assert!(is_key(&key("2001:db8::10"), "tcp [2001:db8::10]:80"));
        for wanted in ["udp 192.0.2.10:80", "192.0.2.10:80", "tcp 192.0.2.10:8", ""] {
            assert!(!is_key(&key("192.0.2.10"), wanted), "{wanted}");
        }
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (text, expected) in [
            ("10.0.0.11", Some((address("10.0.0.11"), None))),
            ("10.0.0.11:80", Some((address("10.0.0.11"), Some(80)))),
            ("[fd00::11]:80", Some((address("fd00::11"), Some(80)))),
            ("fd00::11", Some((address("fd00::11"), None))),
            ("[fd00::11]", Some((address("fd00::11"), None))),
            ("web", None),
            ("", None),
        ] {
            assert_eq!(end(text), expected, "{text:?}");
        }
        assert_eq!(cut(&"x".repeat(99)).len(), 60);
    }
}
