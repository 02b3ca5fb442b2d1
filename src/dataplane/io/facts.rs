//! What start-up must know about an interface, and what it should warn of.
//!
//! Owns the questions and the words. Never changes an interface and never opens a frame socket. Everything is asked in
//! the network namespace of the calling thread.

use std::io;

use crate::dataplane::io::xsk::HEADROOM;
use crate::dataplane::io::xsk::ioctl::{Control, Getter};
use crate::dataplane::xdp::XdpAttach;
use crate::model::MacAddr;

/// Offloads that decide whether frames arrive as they were on the wire. `None`: the driver does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Offloads {
    /// Transmit checksums are left to the device (or, on veth, to nobody).
    pub tx_checksum: Option<bool>,
    /// TCP segmentation offload.
    pub tso: Option<bool>,
    /// Generic receive offload: joins segments before generic XDP sees them.
    pub gro: Option<bool>,
    /// Large receive offload: the device joins segments.
    pub lro: Option<bool>,
    /// The device takes VLAN tags off and reports them beside the frame, where XDP does not see them.
    pub rx_vlan: Option<bool>,
}

/// Facts of one interface at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Kernel name.
    pub name: String,
    /// Kernel index.
    pub ifindex: u32,
    /// Ethernet address.
    pub mac: MacAddr,
    /// Frames have Ethernet headers. Tunnels and point-to-point links have none.
    pub ethernet: bool,
    /// Bytes of the largest packet, without the Ethernet header.
    pub mtu: u32,
    /// Driver name as of ethtool; empty where there is none.
    pub driver: String,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier.
    pub running: bool,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// Offloads.
    pub offloads: Offloads,
}

/// An interface that cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("interface `{name}`: {question}")]
pub struct FactsError {
    /// Interface name.
    pub name: String,
    /// What was asked.
    pub question: &'static str,
    /// Cause.
    #[source]
    pub source: io::Error,
}

impl InterfaceFacts {
    /// Asks the kernel.
    ///
    /// # Errors
    /// [`FactsError`], above all when there is no such interface. What only some drivers answer is not an error.
    pub fn of(name: &str) -> Result<InterfaceFacts, FactsError> {
        let error = |question| move |source| FactsError { name: name.to_owned(), question, source };
        let control = Control::new(name).map_err(error("not a name that an interface can have"))?;
        let ifindex = nix::net::if_::if_nametoindex(name)
            .map_err(|errno| error("there is no such interface")(io::Error::from(errno)))?;
        let (hardware, mac) = control.hardware().map_err(error("its Ethernet address cannot be read"))?;
        let mtu = control.mtu().map_err(error("its MTU cannot be read"))?;
        let flags = control.flags().map_err(error("its flags cannot be read"))?;
        let bit = |flag: libc::c_int| flags & flag.cast_unsigned() != 0;
        let (rx_queues, tx_queues) = queues(&control, name, ifindex);
        let get = |getter| control.get(getter).ok();
        let legacy_flags = get(Getter::Flags);
        Ok(InterfaceFacts {
            name: name.to_owned(),
            ifindex,
            mac: MacAddr(mac),
            ethernet: hardware == libc::ARPHRD_ETHER || hardware == libc::ARPHRD_LOOPBACK,
            mtu,
            driver: control.driver().unwrap_or_default(),
            up: bit(libc::IFF_UP),
            // The flag follows the carrier late; ethtool knows it at once.
            running: get(Getter::Link).map_or(bit(libc::IFF_RUNNING), |link| link != 0),
            rx_queues,
            tx_queues,
            offloads: Offloads {
                tx_checksum: get(Getter::TxChecksum).map(|value| value != 0),
                tso: get(Getter::Tso).map(|value| value != 0),
                gro: get(Getter::Gro).map(|value| value != 0),
                lro: legacy_flags.map(|value| value & 1 << 15 != 0),
                rx_vlan: legacy_flags.map(|value| value & 1 << 8 != 0),
            },
        })
    }

    /// Bytes of the largest frame that the interface can deliver: MTU, Ethernet header and two VLAN tags.
    pub fn largest_frame(&self) -> u32 {
        self.mtu + 14 + 2 * 4
    }

    /// Whether frames of this interface fit UMEM frames of `frame_size` bytes.
    pub fn fits(&self, frame_size: u32) -> bool {
        self.largest_frame() <= frame_size.saturating_sub(HEADROOM as u32)
    }

    /// What an operator should know before traffic flows, in plain words. `attach` is where the XDP program runs, or
    /// `None` without one (AF_PACKET).
    pub fn warnings(&self, attach: Option<XdpAttach>) -> Vec<String> {
        let mut warnings = Vec::new();
        let name = &self.name;
        if !self.up {
            warnings.push(format!("{name} is down: `ip link set {name} up`"));
        } else if !self.running {
            warnings.push(format!("{name} has no carrier"));
        }
        if self.offloads.lro == Some(true) {
            warnings.push(format!("{name} joins received segments (LRO): `ethtool -K {name} lro off`"));
        }
        if attach != Some(XdpAttach::Native) && self.offloads.gro == Some(true) {
            warnings.push(format!(
                "{name} joins received segments (GRO) before they are seen here; joined ones are too large and lost: \
                 `ethtool -K {name} gro off`"
            ));
        }
        if attach.is_some() && self.offloads.rx_vlan == Some(true) {
            warnings.push(format!(
                "{name} takes VLAN tags off received frames, so tagged packets would look untagged: `ethtool -K {name} \
                 rxvlan off` if there are any"
            ));
        }
        if self.driver == "veth" {
            warnings.push(format!(
                "{name} is a veth: its peer leaves transport checksums incomplete unless `ethtool -K PEER tx off` was \
                 done there; packets with such checksums are dropped and counted"
            ));
        }
        warnings
    }
}

/// Receive and transmit queues in use: ethtool's channels, else the directories in sysfs, else one each.
fn queues(control: &Control, name: &str, ifindex: u32) -> (u32, u32) {
    if let Ok(channels) = control.channels() {
        let (rx, tx) = (channels.combined + channels.rx, channels.combined + channels.tx);
        if rx > 0 && tx > 0 {
            return (rx, tx);
        }
    }
    // sysfs shows the namespace in which it was mounted, which need not be ours.
    let base = format!("/sys/class/net/{name}");
    let same = std::fs::read_to_string(format!("{base}/ifindex")).is_ok_and(|text| text.trim() == ifindex.to_string());
    let count = |prefix: &str| {
        let entries = std::fs::read_dir(format!("{base}/queues")).ok().filter(|_| same)?;
        let names = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        u32::try_from(names.count()).ok().filter(|&count| count > 0)
    };
    (count("rx-").unwrap_or(1), count("tx-").unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_facts() {
        let facts = InterfaceFacts::of("lo").expect("lo");
        assert!(facts.ifindex > 0 && facts.mac.is_zero() && facts.rx_queues == 1 && facts.tx_queues == 1, "{facts:?}");
        assert!(!facts.fits(4096));
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(InterfaceFacts::of("no-such-if").is_err());
        assert!(InterfaceFacts::of("a-name-that-is-much-too-long").is_err());
        assert!(InterfaceFacts::of("").is_err());
    }
}
