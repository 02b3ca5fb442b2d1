//! A table: one thing is wrong, and the finding that must name it, with its command.

use super::*;
use crate::model::Method;

fn wanted(method: Method) -> Wanted {
    let vips = vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
    Wanted { vips, method, interface: "lo".into(), over_v6: false, gue_port: 6080 }
}

fn held(address: &str, interface: &str) -> Held {
    Held { address: address.parse().unwrap(), interface: interface.into() }
}

/// A sound server of direct routing and of tunnels.
fn sound() -> Seen {
    Seen {
        arp_ignore: vec![("eth0".into(), 1), ("eth1".into(), 2)],
        arp_announce: vec![("eth0".into(), 2), ("eth1".into(), 2)],
        held: vec![held("192.0.2.10", "lo"), held("2001:db8::10", "lo"), held("10.0.0.11", "eth0")],
        up: ["evenkeel-ipip", "sit0", "evenkeel-gre"].map(str::to_owned).to_vec(),
        ports: vec![(true, 80), (false, 53)],
        listeners: vec![
            Listener { tcp: true, address: "::".parse().unwrap(), port: 80 },
            Listener { tcp: false, address: "192.0.2.10".parse().unwrap(), port: 53 },
            Listener { tcp: false, address: "2001:db8::10".parse().unwrap(), port: 53 },
        ],
        routed: [true, true],
        ..Seen::default()
    }
}

fn mistakes(method: Method, seen: &Seen) -> Vec<Finding> {
    judge(&wanted(method), seen).into_iter().filter(|finding| finding.wrong).collect()
}

#[test]
fn a_sound_server_has_no_mistakes() {
    for method in [Method::Dr, Method::Ipip, Method::Gre] {
        assert_eq!(mistakes(method, &sound()), []);
    }
    assert!(judge(&wanted(Method::Dr), &sound()).len() >= 9);
    let without = Seen { up: Vec::new(), decap: true, ..sound() };
    assert_eq!(mistakes(Method::Gue, &without), []);
}

#[test]
fn each_mistake_has_its_finding_and_its_command() {
    type Change = fn(&mut Seen);
    let rows: [(&str, &str, Method, Change); 11] = [
        ("arp-ignore", "sysctl -w net.ipv4.conf.all.arp_ignore=1", Method::Dr, |s| s.arp_ignore[0].1 = 0),
        ("arp-ignore", "sysctl -w net.ipv4.conf.eth1.arp_ignore=1", Method::Dr, |s| s.arp_ignore[1].1 = 8),
        ("arp-announce", "sysctl -w net.ipv4.conf.all.arp_announce=2", Method::Dr, |s| s.arp_announce[1].1 = 1),
        ("address", "ip address add 192.0.2.10/32 dev lo label lo:evenkeel", Method::Dr, |s| drop(s.held.remove(0))),
        ("address", "ip address add 2001:db8::10/128 dev lo nodad", Method::Dr, |s| drop(s.held.remove(1))),
        ("address-elsewhere", "ip address del 192.0.2.10/32 dev eth0", Method::Dr, |s| {
            s.held.push(held("192.0.2.10", "eth0"));
        }),
        ("tunnel", "evenkeel realserver decap", Method::Ipip, |s| s.up.retain(|name| name != "sit0")),
        ("tunnel", "evenkeel realserver prepare", Method::Gre, |s| s.up.clear()),
        ("rp-filter", "net.ipv4.conf.sit0.rp_filter=0", Method::Ipip, |s| s.filtered.push("sit0".into())),
        ("listens", "start the program", Method::Dr, |s| s.listeners.truncate(2)),
        ("way-back", "ip route add default", Method::Dr, |s| s.client = Some(([198, 51, 100, 7].into(), false))),
    ];
    for (id, command, method, change) in rows {
        let mut seen = sound();
        change(&mut seen);
        let found = mistakes(method, &seen);
        assert_eq!(found.iter().map(|f| f.id).collect::<Vec<_>>(), [id], "{found:?}");
        assert!(found[0].command.as_deref().is_some_and(|text| text.contains(command)), "{found:?}");
        assert!(!found[0].why.is_empty() && found[0].to_string().contains("WRONG"));
    }
}

#[test]
fn a_socket_of_ipv4_for_any_address_does_not_serve_ipv6() {
    let mut seen = sound();
    seen.listeners[0].address = "0.0.0.0".parse().unwrap();
    let found = mistakes(Method::Dr, &seen);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].found.contains("2001:db8::10"));
}

#[test]
fn tables_of_sockets_are_read_as_the_kernel_writes_them() {
    let tcp = "  sl  local_address rem_address   st\n   \
               0: 0A0200C0:0050 00000000:0000 0A 00000000:00000000 00:00000000\n   \
               1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000\n";
    let expected = Listener { tcp: true, address: "192.0.2.10".parse().unwrap(), port: 80 };
    if cfg!(target_endian = "little") {
        assert_eq!(Listener::parse(tcp, true), [expected]);
        let v6 = "head\n 0: B80D0120000000000000000010000000:0035 0:0 07 x\n";
        assert_eq!(Listener::parse(v6, false)[0].address, "2001:db8::10".parse::<IpAddr>().unwrap());
    }
    for garbage in ["", "\n", "head\nx", "head\n0: zz:zz 0:0 0A", "head\n0: 0A0200:0050 0:0 0A"] {
        assert_eq!(Listener::parse(garbage, true), []);
    }
}
