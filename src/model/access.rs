//! Access lists: which clients the services are for, by prefix.
//!
//! Owns prefixes, their text form, and the order of a list. Never asks about an address: that is
//! `dataplane::access::Table`, which is made from these.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address whose bits beyond the length are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A text that is not a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// No address before the length.
    #[error("this is neither a prefix nor an IP address")]
    Address,
    /// No number behind the slash.
    #[error("the length behind the `/` is not a number")]
    Length {
        /// The length of a network mask that stands there.
        mask: Option<u8>,
    },
    /// A length beyond the family's.
    #[error("the length {length} does not fit an address of {most} bits")]
    TooLong {
        /// As written.
        length: u32,
        /// The family's bits.
        most: u8,
    },
    /// Bits beyond the length.
    #[error("the address has bits beyond its length of {}", network.length())]
    HostBits {
        /// The network that it lies in.
        network: Prefix,
        /// The address.
        host: IpAddr,
    },
}

impl PrefixError {
    /// What to write instead, where that can be told.
    pub fn help(&self) -> Option<String> {
        match self {
            PrefixError::Address => None,
            PrefixError::Length { mask } => mask.map(|length| format!("a length instead of a mask: `/{length}`")),
            PrefixError::TooLong { most, .. } => {
                Some(format!("one host is a prefix of {most} bits, or no length at all"))
            }
            PrefixError::HostBits { network, host } => {
                Some(format!("the network is `{network}`; the host alone is `{host}`"))
            }
        }
    }
}

impl Prefix {
    /// # Errors
    /// [`PrefixError::TooLong`] and [`PrefixError::HostBits`].
    pub fn new(address: IpAddr, length: u8) -> Result<Prefix, PrefixError> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most {
            return Err(PrefixError::TooLong { length: length.into(), most });
        }
        let network = Prefix { address: first(address, length), length };
        if network.address == address { Ok(network) } else { Err(PrefixError::HostBits { network, host: address }) }
    }

    /// The network's first address.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Bits that an address must share with it.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && first(address, self.length) == self.address
    }
}

/// An address without its bits beyond a length.
fn first(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let Some((address, length)) = text.split_once('/') else {
            let address: IpAddr = text.parse().map_err(|_| PrefixError::Address)?;
            return Prefix::new(address, if address.is_ipv4() { 32 } else { 128 });
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        if length.is_empty() || length.len() > 9 || !length.bytes().all(|b| b.is_ascii_digit()) {
            let mask = length.parse::<Ipv4Addr>().ok().map(Ipv4Addr::to_bits);
            let mask = mask.filter(|bits| address.is_ipv4() && bits.leading_ones() + bits.trailing_zeros() == 32);
            return Err(PrefixError::Length { mask: mask.map(|bits| bits.leading_ones() as u8) });
        }
        let written: u32 = length.parse().map_err(|_| PrefixError::Length { mask: None })?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = u8::try_from(written).map_err(|_| PrefixError::TooLong { length: written, most })?;
        Prefix::new(address, length)
    }
}

/// What a list says of the clients in a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Judgement {
    /// They may use the services.
    #[default]
    Allow,
    /// Their packets are dropped.
    Deny,
}

impl Judgement {
    /// Name as in configs.
    pub const fn name(self) -> &'static str {
        match self {
            Judgement::Allow => "allow",
            Judgement::Deny => "deny",
        }
    }
}

/// Which clients may use the services: the longest prefix that has a client's address decides, else the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// For clients in no prefix.
    pub default: Judgement,
    lists: Vec<(Prefix, Judgement)>,
}

impl Access {
    /// Lists in any order. Where a prefix comes with both judgements, the denial counts; a configuration is refused before.
    pub fn new(default: Judgement, mut lists: Vec<(Prefix, Judgement)>) -> Access {
        lists.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        lists.dedup_by_key(|entry| entry.0);
        Access { default, lists }
    }

    /// The prefixes in the order of their first address, each once; one that holds others comes before them.
    pub fn lists(&self) -> &[(Prefix, Judgement)] {
        &self.lists
    }

    /// Whether there can be a client that is denied.
    pub fn denies_any(&self) -> bool {
        self.default == Judgement::Deny || self.lists.iter().any(|(_, judgement)| *judgement == Judgement::Deny)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_what_does_not_fit_is_named() {
        let read = |text: &str| text.parse::<Prefix>().map(|prefix| prefix.to_string());
        let said = |text: &str| {
            let error = read(text).expect_err(text);
            format!("{error}; {}", error.help().unwrap_or_default())
        };
        assert_eq!(read("192.0.2.0/24"), Ok("192.0.2.0/24".to_owned()));
        assert_eq!(read("192.0.2.7"), Ok("192.0.2.7/32".to_owned()));
        assert_eq!(read("0.0.0.0/0"), Ok("0.0.0.0/0".to_owned()));
        assert_eq!(read("2001:db8::/32"), Ok("2001:db8::/32".to_owned()));
        assert_eq!(read("::1"), Ok("::1/128".to_owned()));
        assert!(said("192.0.2.7/24").contains("the network is `192.0.2.0/24`; the host alone is `192.0.2.7`"));
        assert!(said("2001:db8::1/32").contains("`2001:db8::/32`"));
        assert!(said("10.0.0.0/33").contains("the length 33 does not fit an address of 32 bits"));
        assert!(said("10.0.0.0/999").contains("the length 999"));
        assert!(said("::/129").contains("128 bits"));
        assert!(said("10.0.0.0/255.255.0.0").contains("`/16`"));
        assert!(!said("10.0.0.0/255.0.255.0").contains("mask:"));
        for text in
            ["", "/", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/99999999999", "a/8", "10/8", "fe80::%1"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_come_in_order_and_each_prefix_once() {
        let prefix = |text: &str| text.parse::<Prefix>().expect("prefix");
        let all = ["10.1.0.0/16", "10.0.0.0/8", "10.1.0.0/16", "::/0"].map(|text| (prefix(text), Judgement::Deny));
        let access = Access::new(Judgement::Allow, all.into());
        let order: Vec<String> = access.lists().iter().map(|(prefix, _)| prefix.to_string()).collect();
        assert_eq!(order, ["10.0.0.0/8", "10.1.0.0/16", "::/0"]);
        let both = [(prefix("10.0.0.0/8"), Judgement::Allow), (prefix("10.0.0.0/8"), Judgement::Deny)];
        assert_eq!(Access::new(Judgement::Allow, both.into()).lists(), &both[1..]);
        assert!(access.denies_any() && !Access::default().denies_any());
        assert!(!Access::new(Judgement::Allow, both[..1].into()).denies_any());
        assert!(Access::new(Judgement::Deny, Vec::new()).denies_any());
    }
}
