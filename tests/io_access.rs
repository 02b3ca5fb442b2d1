//! Access lists in the kernel: the XDP program against its twin in user space, over random lists and changes of them.

mod io_support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use etherparse::PacketBuilder;
use evenkeel::dataplane::access::Table;
use evenkeel::dataplane::xdp::{Fate, Filter, FilterEntry, FilterTable, Matcher};
use evenkeel::model::{Access, Judgement, PortRange, Prefix, PrefixError, Protocol};
use io_support::must_run;

const V4: [u8; 4] = [192, 0, 2, 1];
const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const SERVER4: [u8; 4] = [10, 0, 0, 11];
const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11];
/// A local address of full NAT: servers answer to it.
const LOCAL4: [u8; 4] = [10, 0, 0, 99];

fn filter(test: &str) -> Option<Filter> {
    match Filter::detached() {
        Ok(filter) => Some(filter),
        Err(error) => {
            assert!(!must_run(), "{test}: {error:?}");
            eprintln!("\n*** SKIP {test}: needs root: {error} ***\n");
            None
        }
    }
}

fn table() -> FilterTable {
    let entry = |address: IpAddr, protocol, port| FilterEntry { address, protocol, ports: PortRange::single(port) };
    let (v4, v6, local) = (IpAddr::from(V4), IpAddr::from(V6), IpAddr::from(LOCAL4));
    FilterTable {
        entries: vec![
            entry(v4, Protocol::Udp, 53),
            entry(v4, Protocol::Tcp, 80),
            entry(v6, Protocol::Udp, 53),
            FilterEntry { address: local, protocol: Protocol::Udp, ports: PortRange { first: 1024, last: 65_535 } },
        ],
        replies: vec![entry(SERVER4.into(), Protocol::Udp, 5353), entry(SERVER6.into(), Protocol::Udp, 5353)],
        owned: vec![v4, v6, local],
        judged: vec![v4, v6],
        ..FilterTable::default()
    }
}

fn udp(from: IpAddr, to: IpAddr, ports: (u16, u16)) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut frame = Vec::new();
    let ip = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families"),
    };
    ip.udp(ports.0, ports.1).write(&mut frame, &[1, 2, 3, 4]).expect("frame");
    frame
}

/// A packet of a client for the service of its family.
fn request(client: IpAddr) -> Vec<u8> {
    udp(client, if client.is_ipv4() { V4.into() } else { V6.into() }, (1234, 53))
}

fn lists(default: Judgement, entries: &[(&str, Judgement)]) -> Arc<Table> {
    let entries = entries.iter().map(|(text, judgement)| (text.parse().expect("prefix"), *judgement)).collect();
    Arc::new(Table::new(&Arc::new(Access::new(default, entries))))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// What the program and its twin both say.
fn fate(filter: &Filter, frame: &[u8], what: &str) -> Fate {
    let twin = Matcher::new(filter.table()).expect("table").with_access(filter.access());
    let fate = filter.fate(frame).expect("test run");
    assert_eq!(twin.fate(frame), fate, "{what}");
    fate
}

#[test]
fn clients_are_judged_and_nobody_else() {
    use Judgement::{Allow, Deny};
    let Some(mut filter) = filter("clients_are_judged_and_nobody_else") else { return };
    filter.widen(&table()).expect("table");
    let (client4, client6) = (address("198.51.100.7"), address("2001:db8:9::7"));
    for client in [client4, client6] {
        assert_eq!(fate(&filter, &request(client), "no lists"), Fate::Taken);
    }
    // Everybody is denied but one.
    filter.set_access(&lists(Deny, &[("198.51.100.8", Allow), ("2001:db8:9::8", Allow)])).expect("lists");
    for (client, expected) in [
        (client4, Fate::Denied),
        (address("198.51.100.8"), Fate::Taken),
        (client6, Fate::Denied),
        (address("2001:db8:9::8"), Fate::Taken),
    ] {
        assert_eq!(fate(&filter, &request(client), &client.to_string()), expected, "{client}");
    }
    assert_eq!(filter.counters().expect("counters").denied, 2);

    // Fragments, tags and extension headers hide nobody.
    let mut fragment = request(client4);
    fragment[20] = 0x20;
    assert_eq!(fate(&filter, &fragment, "first fragment"), Fate::Denied);
    fragment[21] = 9;
    assert_eq!(fate(&filter, &fragment, "later fragment"), Fate::Denied);
    for client in [client4, client6] {
        let mut tagged = request(client);
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(fate(&filter, &tagged, "tagged"), Fate::Denied);
    }
    let mut extended = request(client6);
    let next = std::mem::replace(&mut extended[20], 60);
    extended.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(fate(&filter, &extended, "destination options"), Fate::Denied);
    let mut piece = request(client6);
    let next = std::mem::replace(&mut piece[20], 44);
    piece.splice(54..54, [next, 0, 0, 0x49, 0, 0, 0, 7]);
    assert_eq!(fate(&filter, &piece, "later fragment of IPv6"), Fate::Denied);

    // What is not for a service is the kernel's, also from them.
    for client in [client4, client6] {
        let mut other = request(client);
        let port = if client.is_ipv4() { 36 } else { 56 };
        other[port..port + 2].copy_from_slice(&54u16.to_be_bytes());
        assert_eq!(fate(&filter, &other, "another port"), Fate::Passed);
    }
    // Servers' answers, and what is not of a service: taken, whatever the lists say.
    assert_eq!(fate(&filter, &udp(SERVER4.into(), client4, (5353, 9)), "answer of a NAT server"), Fate::Taken);
    assert_eq!(fate(&filter, &udp(SERVER6.into(), client6, (5353, 9)), "the same of IPv6"), Fate::Taken);
    assert_eq!(fate(&filter, &udp(SERVER4.into(), LOCAL4.into(), (9, 2000)), "answer by full NAT"), Fate::Taken);
    let mut echo = request(client4);
    (echo[23], echo[34]) = (1, 8);
    assert_eq!(fate(&filter, &echo, "echo"), Fate::Taken);
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 51, 100, 7, 0, 0, 0, 0, 0, 0]);
    arp.extend(V4);
    assert_eq!(fate(&filter, &arp, "ARP"), Fate::Taken);

    // Where the service's address is not marked, nobody is judged.
    filter.narrow(&FilterTable { judged: Vec::new(), ..table() }).expect("narrow");
    assert_eq!(fate(&filter, &request(client4), "not judged"), Fate::Taken);
    filter.narrow(&table()).expect("narrow");
    filter.set_access(&Arc::default()).expect("no lists");
    assert_eq!(fate(&filter, &request(client4), "lists gone"), Fate::Taken);
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 20) % limit
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// An address that often shares many bits with another.
    fn address(&mut self, v4: bool) -> IpAddr {
        if v4 {
            let keep = self.below(33) as u32;
            let noise = self.next() as u32 & u32::MAX.checked_shr(keep).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(0x0a01_02ff ^ noise))
        } else {
            let keep = self.below(129) as u32;
            let noise = self.wide() & u128::MAX.checked_shr(keep).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_0007_0001_0000_0000_0000_0001 ^ noise))
        }
    }

    fn prefix(&mut self) -> Prefix {
        let v4 = self.below(2) == 0;
        let length = self.below(if v4 { 33 } else { 129 }) as u8;
        match Prefix::new(self.address(v4), length) {
            Ok(prefix) => prefix,
            Err(PrefixError::HostBits { network, .. }) => network,
            Err(error) => panic!("{error}"),
        }
    }

    fn judgement(&mut self) -> Judgement {
        if self.below(2) == 0 { Judgement::Allow } else { Judgement::Deny }
    }
}

/// Clients at the ends of a prefix, inside and beside.
fn around(prefix: Prefix) -> Vec<IpAddr> {
    let length = u32::from(prefix.length());
    match prefix.address() {
        IpAddr::V4(first) => {
            let first = first.to_bits();
            let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|a| IpAddr::V4(a.into())).into()
        }
        IpAddr::V6(first) => {
            let first = first.to_bits();
            let last = first | u128::MAX.checked_shr(length).unwrap_or(0);
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(|a| IpAddr::V6(a.into())).into()
        }
    }
}

#[test]
fn the_program_and_its_twin_agree_through_changes() {
    let Some(mut filter) = filter("the_program_and_its_twin_agree_through_changes") else { return };
    filter.widen(&table()).expect("table");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut entries: Vec<(Prefix, Judgement)> = Vec::new();
    let (mut denied, mut taken) = (0, 0);
    for round in 0..60 {
        // Some go, some come, some change their mind.
        entries.retain(|_| random.below(3) > 0);
        for _ in 0..random.below(40) {
            entries.push((random.prefix(), random.judgement()));
        }
        let access = Arc::new(Access::new(random.judgement(), entries.clone()));
        let table = Arc::new(Table::new(&access));
        filter.set_access(&table).expect("lists");
        let twin = Matcher::new(filter.table()).expect("table").with_access(&table);
        let ends = access.lists().iter().flat_map(|(prefix, _)| around(*prefix));
        let mut clients: Vec<IpAddr> = ends.collect();
        clients.extend((0..100).map(|at| random.address(at % 2 == 0)));
        for client in clients {
            let frame = request(client);
            let fate = filter.fate(&frame).expect("test run");
            assert_eq!(twin.fate(&frame), fate, "round {round}: {client} with {access:?}");
            match fate {
                Fate::Denied => denied += 1,
                Fate::Taken => taken += 1,
                Fate::Passed => panic!("{client} is not a client"),
            }
        }
    }
    assert!(denied > 1000 && taken > 1000, "{denied} denied, {taken} taken");
}

/// A great list goes in, and out again, and leaves nothing behind.
#[test]
fn a_hundred_thousand_prefixes() {
    let Some(mut filter) = filter("a_hundred_thousand_prefixes") else { return };
    filter.widen(&table()).expect("table");
    let mut random = Random(1);
    let mut entries = Vec::new();
    for at in 0..100_000 {
        let (address, length) = if at % 2 == 0 {
            (IpAddr::V4((random.next() as u32).into()), 16 + random.below(17) as u8)
        } else {
            (IpAddr::V6((random.wide() >> 3 | 1 << 125).into()), 32 + random.below(97) as u8)
        };
        if let Ok(prefix) | Err(PrefixError::HostBits { network: prefix, .. }) = Prefix::new(address, length) {
            entries.push((prefix, Judgement::Deny));
        }
    }
    let access = Arc::new(Access::new(Judgement::Allow, entries));
    let table = Arc::new(Table::new(&access));
    filter.set_access(&table).expect("lists");
    for (prefix, _) in access.lists().iter().step_by(50) {
        assert_eq!(filter.fate(&request(prefix.address())).expect("run"), Fate::Denied, "{prefix}");
    }
    for at in 0..2000 {
        let client = if at % 2 == 0 {
            IpAddr::V4((random.next() as u32).into())
        } else {
            IpAddr::V6((random.wide() >> 3 | 1 << 125).into())
        };
        let expected = if table.denies(client) { Fate::Denied } else { Fate::Taken };
        assert_eq!(filter.fate(&request(client)).expect("run"), expected, "{client}");
    }
    filter.set_access(&Arc::default()).expect("no lists");
    for (prefix, _) in access.lists().iter().step_by(500) {
        assert_eq!(filter.fate(&request(prefix.address())).expect("run"), Fate::Taken, "{prefix}");
    }
}
