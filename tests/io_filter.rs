//! What the XDP filter takes and what it leaves, by running the program in the kernel on single frames, and what is
//! left of it when its process is killed.

mod io_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{PacketBuilder, VlanId};
use evenkeel::dataplane::io::open::open;
use evenkeel::dataplane::xdp::{Filter, FilterEntry, FilterError, FilterTable, Matcher, XdpAttach};
use evenkeel::model::{EngineSettings, Interface, PortRange, Protocol};
use io_support::frames::{
    CLIENT6, about, advertisement, arp, ethernet, fragment6, from4, from6, hop_by_hop, icmp, ipv4, ipv6, reply,
    solicitation, udp,
};
use io_support::{Net, ifindex, must_run, run, udp4};

const V4: [u8; 4] = [192, 0, 2, 1];
const OTHER4: [u8; 4] = [192, 0, 2, 99];
const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const OTHER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
/// NAT servers.
const SERVER4: [u8; 4] = [10, 0, 0, 11];
const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11];
/// Servers behind tunnels.
const TUNNEL4: [u8; 4] = [10, 0, 9, 1];
const TUNNEL6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const CLIENT4: [u8; 4] = [198, 51, 100, 7];

fn table() -> FilterTable {
    let entry = |address: IpAddr, protocol, ports| FilterEntry { address, protocol, ports };
    let (v4, v6) = (IpAddr::V4(V4.into()), IpAddr::V6(V6.into()));
    FilterTable {
        entries: vec![
            entry(v4, Protocol::Udp, PortRange::single(53)),
            entry(v4, Protocol::Tcp, PortRange { first: 8000, last: 8010 }),
            entry(v6, Protocol::Udp, PortRange::single(53)),
            entry(v6, Protocol::Sctp, PortRange::ANY),
        ],
        owned: vec![v4, v6],
        ..FilterTable::default()
    }
}

/// The same with NAT servers, one of them on a service address.
fn nat_table() -> FilterTable {
    let entry = |address: IpAddr, protocol, ports| FilterEntry { address, protocol, ports };
    let (s4, s6) = (IpAddr::V4(SERVER4.into()), IpAddr::V6(SERVER6.into()));
    let replies = vec![
        entry(s4, Protocol::Udp, PortRange::single(5353)),
        entry(s4, Protocol::Tcp, PortRange { first: 9000, last: 9010 }),
        entry(s6, Protocol::Udp, PortRange::single(5353)),
        entry(s6, Protocol::Sctp, PortRange::ANY),
        entry(IpAddr::V4(V4.into()), Protocol::Tcp, PortRange::single(80)),
    ];
    FilterTable { replies, ..table() }
}

/// The same with servers behind tunnels, one of them a NAT server as well.
fn tunnel_table(table: FilterTable) -> FilterTable {
    let tunnels = vec![IpAddr::V4(TUNNEL4.into()), IpAddr::V6(TUNNEL6.into()), IpAddr::V4(SERVER4.into())];
    FilterTable { tunnels, ..table }
}

fn filter(test: &str) -> Option<Filter> {
    filter_of(test, &table())
}

fn filter_of(test: &str, table: &FilterTable) -> Option<Filter> {
    match Filter::detached() {
        Ok(mut filter) => {
            filter.widen(table).expect("table");
            Some(filter)
        }
        Err(error) => {
            assert!(!must_run(), "{test}: {error:?}");
            eprintln!("\n*** SKIP {test}: needs root: {error} ***\n");
            None
        }
    }
}

/// Name, whether it is ours, frame.
fn cases() -> Vec<(&'static str, bool, Vec<u8>)> {
    let v4 = |packet: Vec<u8>| ethernet(&[], 0x0800, &packet);
    let v6 = |packet: Vec<u8>| ethernet(&[], 0x86dd, &packet);
    let mut solicited = [0u8; 16];
    solicited[..13].copy_from_slice(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff]);
    solicited[15] = 1;
    let destination_options = (60, vec![0, 1, 4, 0, 0, 0, 0]);
    let authentication = (51, [vec![4, 0, 0], vec![0; 20]].concat());
    let routing = (43, [vec![2, 4, 0, 0, 0, 0, 0], vec![0; 16]].concat());
    let all = vec![
        hop_by_hop(0),
        destination_options.clone(),
        routing.clone(),
        fragment6(0, 0),
        authentication.clone(),
        destination_options.clone(),
    ];
    let many: Vec<_> = (0..9).map(|_| destination_options.clone()).collect();

    vec![
        ("udp to the service", true, udp4(V4, 53, 1)),
        ("udp to another port", false, udp4(V4, 54, 1)),
        ("udp to another address", false, udp4(OTHER4, 53, 1)),
        ("tcp to the udp port", false, v4(ipv4(V4, 6, 0, 0, &udp(53)))),
        ("tcp, first of the range", true, v4(ipv4(V4, 6, 0, 0, &udp(8000)))),
        ("tcp, last of the range", true, v4(ipv4(V4, 6, 0, 0, &udp(8010)))),
        ("tcp, below the range", false, v4(ipv4(V4, 6, 0, 0, &udp(7999)))),
        ("tcp, above the range", false, v4(ipv4(V4, 6, 0, 0, &udp(8011)))),
        ("one tag", true, ethernet(&[0x8100], 0x0800, &ipv4(V4, 17, 0, 0, &udp(53)))),
        ("two tags", true, ethernet(&[0x88a8, 0x8100], 0x0800, &ipv4(V4, 17, 0, 0, &udp(53)))),
        ("three tags", false, ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &ipv4(V4, 17, 0, 0, &udp(53)))),
        ("one tag, another port", false, ethernet(&[0x8100], 0x0800, &ipv4(V4, 17, 0, 0, &udp(54)))),
        ("options", true, v4(ipv4(V4, 17, 3, 0, &udp(53)))),
        ("all options", true, v4(ipv4(V4, 17, 10, 0, &udp(53)))),
        ("options that hide another port", false, v4(ipv4(V4, 17, 3, 0, &udp(54)))),
        ("first fragment", true, v4(ipv4(V4, 17, 0, 0x2000, &udp(53)))),
        ("first fragment, another port", true, v4(ipv4(V4, 17, 0, 0x2000, &udp(54)))),
        ("first fragment, no such service", false, v4(ipv4(V4, 132, 0, 0x2000, &udp(53)))),
        ("first fragment without ports", true, v4(ipv4(V4, 17, 0, 0x2000, &[]))),
        ("do not fragment, another port", false, v4(ipv4(V4, 17, 0, 0x4000, &udp(54)))),
        ("first fragment of an echo", true, v4(ipv4(V4, 1, 0, 0x2000, &icmp(8)))),
        ("later fragment of an echo", false, v4(ipv4(V4, 1, 0, 0x2064, &icmp(8)))),
        ("later fragment", true, v4(ipv4(V4, 17, 0, 0x2064, &[0; 32]))),
        ("later fragment, no such service", false, v4(ipv4(V4, 132, 0, 0x2064, &[0; 32]))),
        ("header length below five", false, {
            let mut frame = udp4(V4, 53, 1);
            frame[14] = 0x44;
            frame
        }),
        ("version six in an IPv4 frame", false, {
            let mut frame = udp4(V4, 53, 1);
            frame[14] = 0x65;
            frame
        }),
        ("no ports", false, v4(ipv4(V4, 17, 0, 0, &[0, 1, 0]))),
        ("ethernet only", false, ethernet(&[], 0x0800, &[])),
        ("half an IPv4 header", false, udp4(V4, 53, 1)[..30].to_vec()),
        ("echo request", true, v4(ipv4(V4, 1, 0, 0, &icmp(8)))),
        ("echo reply", false, v4(ipv4(V4, 1, 0, 0, &icmp(0)))),
        ("unreachable", true, v4(ipv4(V4, 1, 0, 0, &icmp(3)))),
        ("time exceeded", true, v4(ipv4(V4, 1, 2, 0, &icmp(11)))),
        ("redirect", false, v4(ipv4(V4, 1, 0, 0, &icmp(5)))),
        ("echo to another", false, v4(ipv4(OTHER4, 1, 0, 0, &icmp(8)))),
        ("another protocol", false, v4(ipv4(V4, 47, 0, 0, &icmp(8)))),
        ("vrrp", false, v4(ipv4([224, 0, 0, 18], 112, 0, 0, &icmp(8)))),
        ("arp request", true, ethernet(&[], 0x0806, &arp(1, [198, 51, 100, 7], V4))),
        ("arp request in a tag", true, ethernet(&[0x8100], 0x0806, &arp(1, [198, 51, 100, 7], V4))),
        ("arp probe", true, ethernet(&[], 0x0806, &arp(1, [0; 4], V4))),
        ("arp for another", false, ethernet(&[], 0x0806, &arp(1, [198, 51, 100, 7], OTHER4))),
        ("arp reply from ours", false, ethernet(&[], 0x0806, &arp(2, V4, [198, 51, 100, 7]))),
        ("short arp", false, ethernet(&[], 0x0806, &arp(1, [0; 4], V4)[..26])),
        ("udp6", true, v6(ipv6(V6, &[], 17, &udp(53)))),
        ("udp6 to another port", false, v6(ipv6(V6, &[], 17, &udp(54)))),
        ("udp6 to another address", false, v6(ipv6(OTHER6, &[], 17, &udp(53)))),
        ("tcp6 where there is none", false, v6(ipv6(V6, &[], 6, &udp(53)))),
        ("any port", true, v6(ipv6(V6, &[], 132, &udp(4711)))),
        ("any port, no ports", true, v6(ipv6(V6, &[], 132, &[1]))),
        ("hop by hop", true, v6(ipv6(V6, &[hop_by_hop(0)], 17, &udp(53)))),
        ("long hop by hop", true, v6(ipv6(V6, &[hop_by_hop(12)], 17, &udp(53)))),
        ("all extension headers", true, v6(ipv6(V6, &all, 17, &udp(53)))),
        ("all, another port", false, v6(ipv6(V6, &all, 17, &udp(54)))),
        ("authentication", true, v6(ipv6(V6, &[authentication], 17, &udp(53)))),
        ("routing", true, v6(ipv6(V6, &[routing], 17, &udp(53)))),
        ("too many extension headers", false, v6(ipv6(V6, &many, 17, &udp(53)))),
        ("cut in an extension header", false, v6(ipv6(V6, &[hop_by_hop(12)], 17, &udp(53)))[..80].to_vec()),
        ("first fragment6", true, v6(ipv6(V6, &[fragment6(0, 1)], 17, &udp(53)))),
        ("first fragment6, another port", true, v6(ipv6(V6, &[fragment6(0, 1)], 17, &udp(54)))),
        ("first fragment6, no such service", false, v6(ipv6(V6, &[fragment6(0, 1)], 6, &udp(53)))),
        ("only fragment6, another port", false, v6(ipv6(V6, &[fragment6(0, 0)], 17, &udp(54)))),
        ("fragment6 of something else", false, v6(ipv6(V6, &[fragment6(0, 1)], 47, &udp(54)))),
        ("later fragment6", true, v6(ipv6(V6, &[fragment6(9, 0)], 17, &[0; 32]))),
        ("later fragment6, no such service", false, v6(ipv6(V6, &[fragment6(9, 0)], 6, &[0; 32]))),
        ("later fragment6 of options", true, v6(ipv6(V6, &[fragment6(9, 0)], 60, &[0; 32]))),
        ("echo6", true, v6(ipv6(V6, &[], 58, &icmp(128)))),
        ("echo6 behind options", true, v6(ipv6(V6, &[hop_by_hop(0)], 58, &icmp(128)))),
        ("echo6 to another", false, v6(ipv6(OTHER6, &[], 58, &icmp(128)))),
        ("packet too big", true, v6(ipv6(V6, &[], 58, &icmp(2)))),
        ("echo reply6", false, v6(ipv6(V6, &[], 58, &icmp(129)))),
        ("solicitation", true, v6(ipv6(solicited, &[], 58, &solicitation(V6)))),
        ("solicitation in a tag", true, { ethernet(&[0x8100], 0x86dd, &ipv6(solicited, &[], 58, &solicitation(V6))) }),
        ("advertisement of ours by another", true, v6(ipv6(solicited, &[], 58, &advertisement(V6)))),
        ("advertisement of another's", false, v6(ipv6(solicited, &[], 58, &advertisement(OTHER6)))),
        ("unicast solicitation", true, v6(ipv6(V6, &[], 58, &solicitation(V6)))),
        ("solicitation for another", false, v6(ipv6(solicited, &[], 58, &solicitation(OTHER6)))),
        ("short solicitation", false, v6(ipv6(solicited, &[], 58, &solicitation(V6)[..20]))),
        ("router advertisement", false, v6(ipv6(solicited, &[], 58, &icmp(134)))),
        ("multicast udp", false, v6(ipv6(solicited, &[], 17, &udp(53)))),
        ("lldp", false, ethernet(&[], 0x88cc, &[0; 46])),
    ]
}

/// What NAT servers change: name, whether it is taken where there are some, frame. None is taken where there are none.
fn nat_cases() -> Vec<(&'static str, bool, Vec<u8>)> {
    let v4 = |source, packet: Vec<u8>| ethernet(&[], 0x0800, &from4(source, packet));
    let v6 = |source, packet: Vec<u8>| ethernet(&[], 0x86dd, &from6(source, packet));
    let to4 = |destination, protocol, payload: &[u8]| ipv4(destination, protocol, 0, 0, payload);
    let to6 = |destination, protocol, payload: &[u8]| ipv6(destination, &[], protocol, payload);
    let error4 = |kind, inner: &[u8]| ethernet(&[], 0x0800, &to4(CLIENT4, 1, &about(kind, inner)));
    let error6 = |kind, inner: &[u8]| ethernet(&[], 0x86dd, &to6(CLIENT6, 58, &about(kind, inner)));
    let piece = |offset, more, next| ipv6(CLIENT6, &[fragment6(offset, more)], next, &[0; 32]);
    vec![
        ("reply", true, v4(SERVER4, to4(CLIENT4, 17, &reply(5353)))),
        ("reply in a tag", true, ethernet(&[0x8100], 0x0800, &from4(SERVER4, to4(CLIENT4, 17, &reply(5353))))),
        ("reply with options", true, v4(SERVER4, ipv4(CLIENT4, 17, 3, 0, &reply(5353)))),
        ("from another port", false, v4(SERVER4, to4(CLIENT4, 17, &reply(5354)))),
        ("to the server's port", false, v4(CLIENT4, to4(SERVER4, 17, &udp(5353)))),
        ("from another server", false, v4(OTHER4, to4(CLIENT4, 17, &reply(5353)))),
        ("of another protocol", false, v4(SERVER4, to4(CLIENT4, 132, &reply(5353)))),
        ("reply from a range", true, v4(SERVER4, to4(CLIENT4, 6, &reply(9005)))),
        ("reply from above a range", false, v4(SERVER4, to4(CLIENT4, 6, &reply(9011)))),
        ("reply without ports", false, v4(SERVER4, to4(CLIENT4, 6, &[1, 2]))),
        ("reply from a service address", true, v4(V4, to4(CLIENT4, 6, &reply(80)))),
        ("from a service port", false, v4(V4, to4(CLIENT4, 17, &reply(53)))),
        ("to a reply port of a service address", false, v4(CLIENT4, to4(V4, 6, &udp(80)))),
        ("reply to a service address", true, v4(SERVER4, to4(V4, 17, &reply(5353)))),
        ("first fragment of a reply", true, v4(SERVER4, ipv4(CLIENT4, 17, 0, 0x2000, &reply(1)))),
        ("later fragment of a reply", true, v4(SERVER4, ipv4(CLIENT4, 17, 0, 0x0064, &[0; 32]))),
        ("fragment, no such server", false, v4(SERVER4, ipv4(CLIENT4, 132, 0, 0x2064, &[0; 32]))),
        ("fragment of a client", false, v4(CLIENT4, ipv4(SERVER4, 17, 0, 0x2064, &[0; 32]))),
        ("server's echo", false, v4(SERVER4, to4(CLIENT4, 1, &icmp(8)))),
        ("error about a packet to a server", true, error4(3, &to4(SERVER4, 17, &udp(5353)))),
        ("time exceeded", true, error4(11, &to4(SERVER4, 6, &udp(1)))),
        ("an echo with a packet in it", false, error4(8, &to4(SERVER4, 17, &udp(5353)))),
        ("redirect", false, error4(5, &to4(SERVER4, 17, &udp(5353)))),
        ("error about another protocol", false, error4(3, &to4(SERVER4, 132, &udp(5353)))),
        ("error about a server's packet", false, error4(3, &from4(SERVER4, to4(CLIENT4, 17, &reply(5353))))),
        ("error about IPv6 in IPv4", false, error4(3, &to6(SERVER6, 17, &udp(5353)))),
        ("error that is cut", false, error4(3, &to4(SERVER4, 17, &[])[..19])),
        ("error in a later fragment", false, {
            v4(OTHER4, ipv4(CLIENT4, 1, 0, 0x64, &about(3, &to4(SERVER4, 17, &udp(5353)))))
        }),
        ("reply6", true, v6(SERVER6, to6(CLIENT6, 17, &reply(5353)))),
        ("reply6 behind options", true, v6(SERVER6, ipv6(CLIENT6, &[hop_by_hop(1)], 17, &reply(5353)))),
        ("reply6 from another port", false, v6(SERVER6, to6(CLIENT6, 17, &reply(5354)))),
        ("reply6 from another", false, v6(OTHER6, to6(CLIENT6, 17, &reply(5353)))),
        ("reply6 from any port", true, v6(SERVER6, to6(CLIENT6, 132, &reply(7)))),
        ("reply6 of another protocol", false, v6(SERVER6, to6(CLIENT6, 6, &reply(5353)))),
        ("reply6 to a service address", true, v6(SERVER6, to6(V6, 17, &reply(5353)))),
        ("first fragment6 of a reply", true, v6(SERVER6, piece(0, 1, 17))),
        ("later fragment6 of a reply", true, v6(SERVER6, piece(9, 0, 17))),
        ("fragment6, no such server", false, v6(SERVER6, piece(9, 0, 6))),
        ("fragment6 of options of a reply", true, v6(SERVER6, piece(9, 0, 60))),
        ("fragment6 from another", false, v6(OTHER6, piece(9, 0, 17))),
        ("error6 about a packet to a server", true, error6(2, &to6(SERVER6, 17, &udp(5353)))),
        ("error6 about a fragment", true, error6(3, &ipv6(SERVER6, &[fragment6(9, 0)], 17, &[0; 8]))),
        ("error6 about another protocol", false, error6(1, &to6(SERVER6, 6, &udp(5353)))),
        ("error6 about another", false, error6(1, &to6(OTHER6, 17, &udp(5353)))),
        ("error6 that is cut", false, error6(1, &to6(SERVER6, 17, &[])[..39])),
        ("echo6 with a packet in it", false, error6(128, &to6(SERVER6, 17, &udp(5353)))),
        ("solicitation by a server", false, v6(SERVER6, to6(CLIENT6, 58, &solicitation(OTHER6)))),
        ("forged return", false, [&[0; 12][..], &[0x88, 0xb5, 0, 0], &udp4(OTHER4, 53, 1)].concat()),
        ("short forged return", false, [&[0; 12][..], &[0x88, 0xb5]].concat()),
    ]
}

/// What servers behind tunnels change, as [`nat_cases`].
fn tunnel_cases() -> Vec<(&'static str, bool, Vec<u8>)> {
    let to4 = |to| ipv4(to, 4, 0, 0x4000, &ipv4(V4, 17, 0, 0, &udp(53)));
    let to6 = |to| ipv6(to, &[], 41, &ipv6(V6, &[], 17, &udp(53)));
    // Type and code.
    let about = |kind: u8, code: u8, packet: &[u8]| [&[kind, code, 0, 0, 0, 0, 5, 120], packet].concat();
    let error4 = |kind, code, packet: &[u8]| ethernet(&[], 0x0800, &ipv4(CLIENT4, 1, 0, 0, &about(kind, code, packet)));
    let error6 = |kind, packet: &[u8]| ethernet(&[], 0x86dd, &ipv6(CLIENT6, &[], 58, &about(kind, 0, packet)));
    vec![
        ("fragmentation needed in a tunnel", true, error4(3, 4, &to4(TUNNEL4))),
        ("unreachable in a tunnel", false, error4(3, 1, &to4(TUNNEL4))),
        ("time exceeded in a tunnel", false, error4(11, 4, &to4(TUNNEL4))),
        ("fragmentation needed, another", false, error4(3, 4, &to4(OTHER4))),
        ("fragmentation needed, from the server", false, error4(3, 4, &from4(TUNNEL4, to4(CLIENT4)))),
        ("fragmentation needed, IPv6 in IPv4", false, error4(3, 4, &to6(TUNNEL6))),
        ("fragmentation needed, cut", false, error4(3, 4, &to4(TUNNEL4)[..19])),
        ("fragmentation needed in a tag", true, {
            ethernet(&[0x8100], 0x0800, &ipv4(CLIENT4, 1, 3, 0, &about(3, 4, &to4(TUNNEL4))))
        }),
        ("fragmentation needed, NAT server of another protocol", true, error4(3, 4, &to4(SERVER4))),
        ("too big in a tunnel", true, error6(2, &to6(TUNNEL6))),
        ("too big about a fragment", true, error6(2, &ipv6(TUNNEL6, &[fragment6(0, 1)], 41, &[0; 32]))),
        ("unreachable6 in a tunnel", false, error6(1, &to6(TUNNEL6))),
        ("too big, another", false, error6(2, &to6(OTHER6))),
        ("too big, cut", false, error6(2, &to6(TUNNEL6)[..39])),
        (
            "a packet from a tunnel's end",
            false,
            ethernet(&[], 0x0800, &from4(TUNNEL4, ipv4(CLIENT4, 17, 0, 0, &reply(5353)))),
        ),
        ("a packet to a tunnel's end", false, ethernet(&[], 0x0800, &to4(TUNNEL4))),
        ("a packet to a tunnel's end, IPv6", false, ethernet(&[], 0x86dd, &to6(TUNNEL6))),
    ]
}

/// Only what is too large for a tunnel, only where there are tunnels, and with NAT beside them or without.
#[test]
fn tunnels_errors_are_taken() {
    let test = "tunnels_errors_are_taken";
    for (without, other, others) in [(table(), nat_table(), false), (nat_table(), table(), true)] {
        let Some(mut filter) = filter_of(test, &without) else { return };
        let with = tunnel_table(without.clone());
        let cases = cases().into_iter().chain(nat_cases().into_iter().map(|(name, ours, f)| (name, ours && others, f)));
        let cases: Vec<_> = cases.chain(tunnel_cases()).collect();
        let takes = |filter: &Filter, frame: &[u8]| filter.takes(frame).expect("test run");
        assert!(tunnel_cases().iter().all(|(_, _, frame)| !takes(&filter, frame)));
        filter.widen(&with).expect("wider");
        let matcher = Matcher::new(&with).expect("table");
        for (name, ours, frame) in &cases {
            assert_eq!((takes(&filter, frame), matcher.takes(frame)), (*ours, *ours), "{name}");
        }
        filter.widen(&other).expect("wider");
        filter.narrow(&without).expect("narrower");
        assert!(tunnel_cases().iter().all(|(_, _, frame)| !takes(&filter, frame)));
    }
}

/// Frames that are ours already stay so where there are NAT servers; the rest is only taken then.
#[test]
fn nat_servers_replies_are_taken() {
    let test = "nat_servers_replies_are_taken";
    let (Some(plain), Some(mut nat)) = (filter(test), filter_of(test, &nat_table())) else { return };
    let matcher = Matcher::new(&nat_table()).expect("table");
    let mut wrong = Vec::new();
    for (name, ours, frame) in cases().iter().chain(&nat_cases()) {
        if nat.takes(frame).expect("test run") != *ours {
            wrong.push(format!("{name}: should be {}", if *ours { "taken" } else { "passed" }));
        }
        if matcher.takes(frame) != *ours {
            wrong.push(format!("{name}: the matcher differs"));
        }
    }
    for (name, _, frame) in &nat_cases() {
        if plain.takes(frame).expect("test run") {
            wrong.push(format!("{name}: taken without any NAT server"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    nat.narrow(&table()).expect("narrower");
    assert!(nat_cases().iter().all(|(_, _, frame)| !nat.takes(frame).expect("test run")));
    nat.widen(&nat_table()).expect("wider");
    for (name, ours, frame) in &nat_cases() {
        assert_eq!(nat.takes(frame).expect("test run"), *ours, "{name}");
    }
}

#[test]
fn the_filter_takes_what_is_ours_and_nothing_else() {
    let Some(filter) = filter("the_filter_takes_what_is_ours_and_nothing_else") else { return };
    let matcher = Matcher::new(&table()).expect("table");
    let cases = cases();
    let mut wrong = Vec::new();
    for (name, ours, frame) in &cases {
        if filter.takes(frame).expect("test run") != *ours {
            wrong.push(format!("{name}: should be {}", if *ours { "taken" } else { "passed" }));
        }
        if matcher.takes(frame) != *ours {
            wrong.push(format!("{name}: the matcher differs"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let counters = filter.counters().expect("counters");
    assert_eq!(counters.passed + counters.no_socket, cases.len() as u64);

    // The builder's own frames agree with the hand-made ones.
    let mut tagged = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .single_vlan(VlanId::try_new(7).expect("id"))
        .ipv6(CLIENT6, V6, 9)
        .udp(1, 53)
        .write(&mut tagged, &[1, 2, 3])
        .expect("frame");
    assert!(filter.takes(&tagged).expect("test run"));
}

/// Mutations of the cases above: the program in the kernel and the matcher in user space agree on all of them.
#[test]
fn the_matcher_decides_like_the_program() {
    let test = "the_matcher_decides_like_the_program";
    let tables = [table(), nat_table(), tunnel_table(table()), tunnel_table(nat_table())];
    let filters: Option<Vec<Filter>> = tables.iter().map(|table| filter_of(test, table)).collect();
    let Some(filters) = filters else { return };
    let matchers = tables.map(|table| Matcher::new(&table).expect("table"));
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let interesting = [0u8, 1, 2, 4, 6, 8, 17, 41, 43, 44, 51, 58, 59, 60, 132, 135, 255, 0x45, 0x4f, 0x60, 0x81];
    let cases: Vec<_> = cases().into_iter().chain(nat_cases()).chain(tunnel_cases()).collect();
    let mut taken = 0;
    for round in 0..60_000 {
        let mut frame = cases[round % cases.len()].2.clone();
        for _ in 0..random(4) {
            let at = 12 + random(frame.len() - 12);
            frame[at] = if random(2) == 0 { interesting[random(interesting.len())] } else { random(256) as u8 };
        }
        if random(8) == 0 {
            frame.truncate(14 + random(frame.len() - 13));
        }
        for (filter, matcher) in filters.iter().zip(&matchers) {
            let program = filter.takes(&frame).expect("test run");
            taken += usize::from(program);
            assert_eq!(matcher.takes(&frame), program, "{frame:02x?}");
        }
    }
    assert!(taken > 20_000, "the mutations are too wild: {taken}");
}

#[test]
fn tables_widen_and_narrow() {
    let Some(mut filter) = filter("tables_widen_and_narrow") else { return };
    let tcp = |port: u16| ethernet(&[], 0x0800, &ipv4(V4, 6, 0, 0, &udp(port)));
    let address = IpAddr::V4(Ipv4Addr::from(V4));
    let next = FilterTable {
        entries: vec![FilterEntry { address, protocol: Protocol::Tcp, ports: PortRange { first: 8005, last: 8020 } }],
        ..FilterTable::default()
    };
    filter.widen(&next).expect("wider");
    for (port, ours) in [(7999, false), (8000, true), (8015, true), (8021, false)] {
        assert_eq!(filter.takes(&tcp(port)).expect("run"), ours, "{port}");
    }
    assert!(filter.takes(&udp4(V4, 53, 1)).expect("run"));
    filter.narrow(&next).expect("narrower");
    for (port, ours) in [(8000, false), (8004, false), (8005, true), (8020, true), (8021, false)] {
        assert_eq!(filter.takes(&tcp(port)).expect("run"), ours, "{port}");
    }
    assert!(!filter.takes(&udp4(V4, 53, 1)).expect("run"));
    assert!(!filter.takes(&ethernet(&[], 0x0806, &arp(1, [0; 4], V4))).expect("run"));

    // Twenty ranges: four of them become single ports.
    let entries = (0..20u16).map(|i| FilterEntry {
        address,
        protocol: Protocol::Tcp,
        ports: PortRange { first: 1000 + i * 100, last: 1000 + i * 100 + 10 + i },
    });
    filter.narrow(&FilterTable { entries: entries.collect(), ..FilterTable::default() }).expect("twenty ranges");
    for i in 0..20u16 {
        let first = 1000 + i * 100;
        for (port, ours) in [(first - 1, false), (first, true), (first + 10 + i, true), (first + 11 + i, false)] {
            assert_eq!(filter.takes(&tcp(port)).expect("run"), ours, "{port}");
        }
    }
    filter.narrow(&FilterTable::default()).expect("empty");
    assert!(!filter.takes(&tcp(1005)).expect("run"));
    let any = FilterEntry { address: IpAddr::V6(Ipv6Addr::from(V6)), protocol: Protocol::Tcp, ports: PortRange::ANY };
    filter.narrow(&FilterTable { entries: vec![any], ..FilterTable::default() }).expect("any");
    assert!(filter.takes(&ethernet(&[], 0x86dd, &ipv6(V6, &[], 6, &udp(1)))).expect("run"));
}

#[test]
fn another_program_is_not_pushed_aside() {
    let Some(net) = Net::new("another_program_is_not_pushed_aside", 1) else { return };
    Net::enter(&net.inner);
    for (first, second) in [
        (XdpAttach::Native, XdpAttach::Native),
        (XdpAttach::Generic, XdpAttach::Native),
        (XdpAttach::Native, XdpAttach::Generic),
    ] {
        let held = Filter::attach("a0", ifindex("a0"), first).expect("first");
        let error = Filter::attach("a0", ifindex("a0"), second).err().expect("refused");
        assert!(matches!(error, FilterError::Occupied { .. }), "{error:?}");
        drop(held);
        assert!(Net::loses_xdp(&net.inner, "a0"));
    }
    let error = Filter::attach("lo", ifindex("lo"), XdpAttach::Native).err().expect("refused");
    assert!(matches!(error, FilterError::Refused { .. }), "{error:?}");
}

/// Kernels before 5.18 get the program without multi-buffer support: the verifier takes it too.
#[test]
fn the_plain_program_loads() {
    if filter("the_plain_program_loads").is_none() {
        return;
    }
    let object = aya::include_bytes_aligned!("../src/dataplane/xdp/filter.o");
    let mut ebpf = aya::Ebpf::load(object).expect("object");
    let program: &mut aya::programs::Xdp =
        ebpf.program_mut("evenkeel").expect("program").try_into().expect("XDP program");
    program.load().expect("verifier");
}

/// A start waits for the verifier once for each interface: what it walks is bounded, so that no path to a common part is walked
/// over and over.
#[test]
fn the_verifier_has_little_to_walk() {
    let Some(filter) = filter("the_verifier_has_little_to_walk") else { return };
    let Some(walked) = filter.verified() else { return };
    assert!(walked < 20_000, "{walked} instructions");
}

/// Runs as a child of the next test, in a namespace of its own: holds filter and sockets until it is killed.
#[test]
fn holds_a_filter_when_asked() {
    let Ok(namespace) = std::env::var("EVENKEEL_TEST_HOLD") else { return };
    Net::enter(&namespace);
    let interface = Interface { name: "a0".to_owned(), queues: None };
    let mut opened = open(&[interface], &EngineSettings::default()).expect("open");
    opened.gates[0].widen(&table()).expect("table");
    println!("holding");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_no_program() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let Some(net) = Net::new("a_killed_process_leaves_no_program", 1) else { return };
    run(&["ip", "-n", &net.inner, "addr", "add", "10.99.0.1/24", "dev", "a0"]);
    run(&["ip", "-n", &net.outer, "addr", "add", "10.99.0.2/24", "dev", "c0"]);
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["holds_a_filter_when_asked", "--exact", "--nocapture"])
        .env("EVENKEEL_TEST_HOLD", &net.inner)
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let lines = BufReader::new(child.stdout.take().expect("output")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("holding")));
    assert!(Net::has_xdp(&net.inner, "a0"));
    run(&["ip", "netns", "exec", &net.outer, "ping", "-c1", "-W2", "10.99.0.1"]);
    child.kill().expect("SIGKILL");
    child.wait().expect("gone");
    assert!(Net::loses_xdp(&net.inner, "a0"));
    run(&["ip", "netns", "exec", &net.outer, "ping", "-c1", "-W2", "10.99.0.1"]);
}
