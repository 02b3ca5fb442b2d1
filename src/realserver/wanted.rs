//! What a real server needs for direct routing or a tunnel: settings, addresses, devices, and the commands that do the same.
//!
//! Owns the list of steps and their words. Never looks at the machine and never changes it: [`super::prepare`] does. Pure.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::model::Method;

/// The device of the kernel for IP in IP over IPv4, as [`super::decap`] names it too.
pub const IPIP: &str = "evenkeel-ipip";

/// What a real server is to be prepared for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The service addresses.
    pub vips: Vec<IpAddr>,
    /// How packets reach this server: direct routing or a tunnel.
    pub method: Method,
    /// The interface that gets the addresses.
    pub interface: String,
    /// Whether the tunnel's outer packets are IPv6.
    pub over_v6: bool,
    /// UDP port of GUE.
    pub gue_port: u16,
}

/// A tunnel device of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name.
    pub name: &'static str,
    /// Its kind, as of `ip link add ... type`.
    pub kind: &'static str,
    /// Number of the attribute that says `external`: it takes packets of any sender. `None`: the kernel makes the device by
    /// itself with its module, and it is only switched on.
    pub external: Option<u16>,
}

/// `IFLA_IPTUN_COLLECT_METADATA` and `IFLA_GRE_COLLECT_METADATA` of `linux/if_tunnel.h`.
const IPTUN_EXTERNAL: u16 = 19;
const GRE_EXTERNAL: u16 = 18;

/// One thing to do, in the order in which they are done: silence first, the addresses last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A setting of the kernel gets a value.
    Set {
        /// Below `/proc/sys`.
        path: String,
        /// The value.
        value: &'static str,
    },
    /// A port of GUE is opened.
    Gue {
        /// UDP port.
        port: u16,
        /// For outer packets of IPv6.
        v6: bool,
    },
    /// A tunnel device is made and switched on.
    Device(Tunnel),
    /// The reverse path filter of a tunnel device lets clients' packets in.
    AnySource(Tunnel),
    /// A service address is put on an interface.
    Address {
        /// The address.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
}

/// Bits of a host's prefix.
pub const fn host(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Where a setting is.
pub fn file_of(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}

/// A setting as `sysctl` takes it: with dots, unless an interface has one in its name.
pub fn key_of(path: &str) -> String {
    if path.contains('.') { path.to_owned() } else { path.replace('/', ".") }
}

/// Path of a setting of an interface, or of `all`, for IPv4.
pub fn conf(of: &str, key: &str) -> String {
    format!("net/ipv4/conf/{of}/{key}")
}

/// The label of an address in the kernel (IPv4), so that people see whose it is; `None` where the name has no room for it.
pub fn label(interface: &str) -> Option<String> {
    let label = format!("{interface}:evenkeel");
    (label.len() < 16).then_some(label)
}

impl Wanted {
    /// Everything that is to be done.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.vips.iter().any(IpAddr::is_ipv4) {
            for of in ["all", self.interface.as_str()] {
                steps.push(Step::Set { path: conf(of, "arp_ignore"), value: "1" });
                steps.push(Step::Set { path: conf(of, "arp_announce"), value: "2" });
            }
        }
        if self.method == Method::Gue {
            steps.push(Step::Gue { port: self.gue_port, v6: self.over_v6 });
        }
        for tunnel in self.tunnels() {
            steps.push(Step::Device(tunnel));
            if self.vips.iter().any(IpAddr::is_ipv4) {
                steps.push(Step::AnySource(tunnel));
            }
        }
        let address = |address: &IpAddr| Step::Address { address: *address, interface: self.interface.clone() };
        steps.extend(self.vips.iter().map(address));
        steps
    }

    /// The kernel's devices that take the inner packets out.
    pub fn tunnels(&self) -> Vec<Tunnel> {
        let device = |name, kind, external| Tunnel { name, kind, external };
        match (self.method, self.over_v6) {
            (Method::Ipip | Method::Gue, true) => vec![device("evenkeel-ip6", "ip6tnl", Some(IPTUN_EXTERNAL))],
            (Method::Ipip | Method::Gue, false) => {
                let v4 = self.vips.iter().any(IpAddr::is_ipv4).then(|| device(IPIP, "ipip", Some(IPTUN_EXTERNAL)));
                let v6 = self.vips.iter().any(IpAddr::is_ipv6).then(|| device("sit0", "sit", None));
                v4.into_iter().chain(v6).collect()
            }
            (Method::Gre, true) => vec![device("evenkeel-gre6", "ip6gre", Some(GRE_EXTERNAL))],
            (Method::Gre, false) => vec![device("evenkeel-gre", "gre", Some(GRE_EXTERNAL))],
            _ => Vec::new(),
        }
    }

    /// Bytes that the outer headers take.
    pub fn overhead(&self) -> u32 {
        self.method.outer_bytes(self.over_v6)
    }

    /// The options with which this is said to `prepare` and `verify`.
    pub fn options(&self) -> String {
        let mut words: Vec<String> = self.vips.iter().map(|vip| format!("--vip {vip}")).collect();
        words.push(format!("--method {}", self.method.name()));
        if self.interface != "lo" {
            words.push(format!("--interface {}", self.interface));
        }
        if self.over_v6 {
            words.push("--over-ipv6".to_owned());
        }
        if self.method == Method::Gue && self.gue_port != crate::model::GUE_PORT {
            words.push(format!("--gue-port {}", self.gue_port));
        }
        words.join(" ")
    }

    /// What does the work of tunnel devices where the kernel has none.
    pub fn decap_command(&self) -> String {
        let mut command = "evenkeel realserver decap".to_owned();
        for vip in &self.vips {
            command += &format!(" --address {vip}");
        }
        if self.method == Method::Gue && self.gue_port != crate::model::GUE_PORT {
            command += &format!(" --gue-port {}", self.gue_port);
        }
        command
    }

    /// What is to be known of larger packets, for tunnels.
    pub fn size_hint(&self, mtu: u32) -> Option<String> {
        let inner = mtu.checked_sub(self.overhead()).filter(|_| self.method.is_tunnel())?;
        let segment = inner.saturating_sub(if self.vips.iter().any(IpAddr::is_ipv6) { 60 } else { 40 });
        Some(format!(
            "the tunnel's headers take {} bytes: where the way to the appliance has an MTU of {mtu}, let this server announce \
             smaller segments (`ip route change default via ROUTER advmss {segment}`), or give the way {} bytes more",
            self.overhead(),
            self.overhead()
        ))
    }
}

impl fmt::Display for Step {
    /// The command that does the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Set { path, value } => write!(f, "sysctl -w {}={value}", key_of(path)),
            Step::Gue { port, v6 } => write!(f, "ip{} fou add port {port} gue", if *v6 { " -6" } else { "" }),
            Step::Device(Tunnel { name, kind, external: Some(_) }) => {
                write!(f, "ip link add {name} type {kind} external && ip link set {name} up")
            }
            Step::Device(Tunnel { name, kind, external: None }) => {
                write!(f, "modprobe {kind} && ip link set {name} up")
            }
            Step::AnySource(tunnel) => write!(f, "sysctl -w {}=0", key_of(&conf(tunnel.name, "rp_filter"))),
            Step::Address { address, interface } => {
                write!(f, "ip address add {address}/{} dev {interface}", host(*address))?;
                match label(interface).filter(|_| address.is_ipv4()) {
                    Some(label) => write!(f, " label {label}"),
                    None if address.is_ipv6() => f.write_str(" nodad"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(method: Method, vips: &[&str], over_v6: bool) -> Wanted {
        let vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        Wanted { vips, method, interface: "lo".into(), over_v6, gue_port: 6080 }
    }

    fn commands(wanted: &Wanted) -> Vec<String> {
        wanted.steps().iter().map(Step::to_string).collect()
    }

    #[test]
    fn direct_routing_is_silent_before_it_has_the_address() {
        let wanted = wanted(Method::Dr, &["192.0.2.10", "2001:db8::10"], false);
        let expected = [
            "sysctl -w net.ipv4.conf.all.arp_ignore=1",
            "sysctl -w net.ipv4.conf.all.arp_announce=2",
            "sysctl -w net.ipv4.conf.lo.arp_ignore=1",
            "sysctl -w net.ipv4.conf.lo.arp_announce=2",
            "ip address add 192.0.2.10/32 dev lo label lo:evenkeel",
            "ip address add 2001:db8::10/128 dev lo nodad",
        ];
        assert_eq!(commands(&wanted), expected);
        assert_eq!(wanted.size_hint(1500), None);
    }

    #[test]
    fn ipv6_needs_no_arp_settings() {
        let expected = ["ip address add 2001:db8::10/128 dev lo nodad"];
        assert_eq!(commands(&wanted(Method::Dr, &["2001:db8::10"], false)), expected);
    }

    #[test]
    fn each_tunnel_has_its_devices() {
        for (method, over_v6, vips, devices) in [
            (Method::Ipip, false, &["192.0.2.10"][..], &["evenkeel-ipip"][..]),
            (Method::Ipip, false, &["2001:db8::10"], &["sit0"]),
            (Method::Ipip, false, &["192.0.2.10", "2001:db8::10"], &["evenkeel-ipip", "sit0"]),
            (Method::Ipip, true, &["192.0.2.10", "2001:db8::10"], &["evenkeel-ip6"]),
            (Method::Gue, false, &["192.0.2.10"], &["evenkeel-ipip"]),
            (Method::Gre, false, &["192.0.2.10"], &["evenkeel-gre"]),
            (Method::Gre, true, &["192.0.2.10"], &["evenkeel-gre6"]),
            (Method::Dr, false, &["192.0.2.10"], &[]),
        ] {
            let wanted = wanted(method, vips, over_v6);
            let names: Vec<&str> = wanted.tunnels().iter().map(|tunnel| tunnel.name).collect();
            assert_eq!(names, devices, "{method:?} {over_v6} {vips:?}");
            let filters = wanted.steps().iter().filter(|step| matches!(step, Step::AnySource(_))).count();
            let v4 = vips.iter().any(|vip| vip.contains('.'));
            assert_eq!(filters, if v4 { devices.len() } else { 0 });
        }
        let gue = commands(&wanted(Method::Gue, &["192.0.2.10"], false));
        assert!(gue.contains(&"ip fou add port 6080 gue".to_owned()), "{gue:?}");
        assert!(gue.contains(&"sysctl -w net/ipv4/conf/evenkeel-ipip/rp_filter=0".replace('/', ".")), "{gue:?}");
    }

    #[test]
    fn sizes_are_those_of_the_operations_page() {
        let sizes = [(Method::Ipip, 20), (Method::Gue, 32), (Method::Gre, 24), (Method::Dr, 0)];
        for (method, bytes) in sizes {
            assert_eq!(method.outer_bytes(false), bytes);
            assert_eq!(method.outer_bytes(true), if bytes == 0 { 0 } else { bytes + 20 });
        }
        let hint = wanted(Method::Ipip, &["192.0.2.10"], false).size_hint(1500).unwrap();
        assert!(hint.contains("advmss 1440"), "{hint}");
    }

    #[test]
    fn a_name_with_a_dot_keeps_it() {
        assert_eq!(key_of(&conf("eth0.100", "rp_filter")), "net/ipv4/conf/eth0.100/rp_filter");
        assert_eq!(key_of(&conf("eth0", "rp_filter")), "net.ipv4.conf.eth0.rp_filter");
        assert_eq!(label("enp129s0f0"), None);
    }

    #[test]
    fn options_say_the_same_again() {
        let mut wanted = wanted(Method::Gue, &["192.0.2.10", "2001:db8::10"], true);
        (wanted.gue_port, wanted.interface) = (6081, "dummy0".into());
        assert_eq!(
            wanted.options(),
            "--vip 192.0.2.10 --vip 2001:db8::10 --method gue --interface dummy0 --over-ipv6 --gue-port 6081"
        );
        assert!(wanted.decap_command().ends_with("--address 2001:db8::10 --gue-port 6081"));
    }
}
