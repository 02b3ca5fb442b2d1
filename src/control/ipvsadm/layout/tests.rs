//! Every sample of the real ipvsadm comes out of its own values again, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Folders of samples: one for each method and moment.
fn samples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvsadm/modes");
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a folder of samples");
        let mut all: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        all.sort();
        all
    };
    list(&root).iter().flat_map(|mode| list(mode)).collect()
}

fn text(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{}: {error}", folder.join(file).display()))
}

fn end(text: &str) -> (IpAddr, u16) {
    let (address, port) = text.rsplit_once(':').expect("an end");
    let address = address.trim_start_matches('[').trim_end_matches(']');
    (address.parse().expect("an address"), port.parse().expect("a port"))
}

fn protocol(text: &str) -> Protocol {
    Protocol::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(text)).expect("a protocol")
}

fn numbers<const N: usize>(words: &[&str]) -> [u64; N] {
    let all: Vec<u64> = words.iter().map(|word| word.parse().expect("a number")).collect();
    all.try_into().expect("so many numbers")
}

/// Services of a listing, read word by word: what a column holds comes from `view`.
fn read(listing: &str, view: View) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for line in listing.lines().skip(3) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "->" {
            let (address, port) = end(words[1]);
            let mut server = Server {
                address,
                port,
                way: Way::Route,
                weight: 0,
                upper: 0,
                lower: 0,
                active: 0,
                inactive: 0,
                persistent: 0,
                stats: [0; 5],
                rates: [0; 5],
            };
            let small = |at: usize| words[at].parse().expect("a number");
            match view {
                View::Stats => server.stats = numbers(&words[2..]),
                View::Rates => server.rates = numbers(&words[2..]),
                View::Plain => {
                    server.way = match words[2] {
                        "Masq" => Way::Masq,
                        "Tunnel" => Way::Ipip,
                        "Route" => Way::Route,
                        other => panic!("{other}"),
                    };
                    (server.weight, server.active, server.inactive) = (small(3), small(4), small(5));
                }
                View::Thresholds => {
                    (server.upper, server.lower, server.active, server.inactive) =
                        (small(2), small(3), small(4), small(5));
                }
                View::PersistentConn => {
                    (server.weight, server.persistent, server.active, server.inactive) =
                        (small(2), small(3), small(4), small(5));
                }
                View::Rules | View::TunnelInfo => unreachable!("not among the samples"),
            }
            services.last_mut().expect("a service").servers.push(server);
        } else {
            let (address, port) = end(words[1]);
            let counted = matches!(view, View::Stats | View::Rates);
            let counts = if counted { numbers(&words[2..]) } else { [0; 5] };
            let after = |word: &str| words.iter().position(|known| *known == word).map(|at| words[at + 1]);
            services.push(Service {
                protocol: protocol(words[0]),
                address,
                port,
                scheduler: if counted { String::new() } else { words[2].to_owned() },
                flags: Vec::new(),
                persistent: after("persistent").map(|seconds| seconds.parse().expect("seconds")),
                mask: after("mask").map(str::to_owned),
                engine: None,
                one_packet: words.contains(&"ops"),
                stats: counts,
                rates: counts,
                servers: Vec::new(),
            });
        }
    }
    services
}

fn plain(view: View) -> Format<'static> {
    Format { view, exact: false, unsorted: false, end: &numeric }
}

#[test]
fn every_sample_of_a_table_comes_out_again() {
    let mut compared = 0;
    for folder in samples() {
        for (file, view, exact, unsorted) in [
            ("Ln.txt", View::Plain, false, false),
            ("Ln_sort.txt", View::Plain, false, true),
            ("stats.txt", View::Stats, false, false),
            ("stats_exact.txt", View::Stats, true, false),
            ("rate.txt", View::Rates, false, false),
            ("rate_exact.txt", View::Rates, true, false),
            ("thresholds.txt", View::Thresholds, false, false),
            ("persistent-conn.txt", View::PersistentConn, false, false),
        ] {
            let sample = text(&folder, file);
            let format = Format { exact, unsorted, ..plain(view) };
            let mut values = read(&sample, view);
            if !unsorted {
                // The order is the layout's work.
                values.reverse();
                values.iter_mut().for_each(|service| service.servers.reverse());
            }
            let made = format!("{}{}{}", version(4096), title(view), services(values, format));
            assert_eq!(made, sample, "{}/{file}", folder.display());
            compared += 1;
        }
    }
    assert_eq!(compared, 12 * 8);
}

#[test]
fn every_sample_of_connections_comes_out_again() {
    let mut rows = 0;
    for folder in samples() {
        for file in ["Lnc.txt", "Lncport.txt"] {
            let sample = text(&folder, file);
            let mut made = connections_title(false);
            for line in sample.lines().skip(2) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (minutes, seconds) = words[1].split_once(':').expect("a time");
                let number = |text: &str| text.parse::<u32>().expect("a number");
                let row = Connection {
                    protocol: words[0].to_owned(),
                    expires: number(minutes) * 60 + number(seconds),
                    state: words[2].to_owned(),
                    ends: [end(words[3]), end(words[4]), end(words[5])],
                    engine: None,
                };
                connection(&mut made, &row, false, &numeric);
                rows += 1;
            }
            assert_eq!(made, sample, "{}/{file}", folder.display());
        }
    }
    assert!(rows > 200, "{rows} connections in the samples");
}

#[test]
fn every_sample_of_rules_and_timeouts_comes_out_again() {
    for folder in samples() {
        let (sample, listing) = (text(&folder, "S_n.txt"), text(&folder, "Ln.txt"));
        assert_eq!(services(read(&listing, View::Plain), plain(View::Rules)), sample, "{}", folder.display());
        assert_eq!(timeouts([900, 120, 300]), text(&folder, "timeout.txt"));
        assert_eq!(text(&folder, "daemon.txt"), "");
    }
}

fn service(text: &str) -> Service {
    let (address, port) = end(text);
    Service {
        protocol: Protocol::Tcp,
        address,
        port,
        scheduler: "sh".to_owned(),
        flags: vec!["sh-fallback".to_owned(), "sh-port".to_owned()],
        persistent: Some(60),
        mask: Some("255.255.0.0".to_owned()),
        engine: None,
        one_packet: false,
        stats: [0; 5],
        rates: [0; 5],
        servers: Vec::new(),
    }
}

fn server(text: &str, way: Way) -> Server {
    let (address, port) = end(text);
    Server {
        address,
        port,
        way,
        weight: 1,
        upper: 0,
        lower: 0,
        active: 0,
        inactive: 0,
        persistent: 0,
        stats: [0; 5],
        rates: [0; 5],
    }
}

/// Lines that the real one printed, for what the samples have not: tests/golden/ipvsadm/explored.txt has them.
#[test]
fn tunnels_flags_masks_and_families() {
    let mut all = service("192.0.2.3:80");
    all.protocol = Protocol::Udp;
    all.one_packet = true;
    all.servers = vec![
        server("[2001:db8::99]:80", Way::Ipip),
        server("127.0.0.1:80", Way::Route),
        server("10.0.0.20:80", Way::Gue(6080)),
        server("10.0.0.23:80", Way::Gre),
    ];
    let rules = "\
-A -u 192.0.2.3:80 -s sh -p 60 -M 255.255.0.0 -o -b sh-fallback,sh-port
-a -u 192.0.2.3:80 -r 10.0.0.20:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
-a -u 192.0.2.3:80 -r 10.0.0.23:80 -i -w 1 --tun-type gre --tun-nocsum
-a -u 192.0.2.3:80 -r [2001:db8::99]:80 -i -w 1 --tun-type ipip
-a -u 192.0.2.3:80 -r 127.0.0.1:80 -g -w 1
";
    assert_eq!(services(vec![all.clone()], plain(View::Rules)), rules);
    let tunnels = "\
UDP  192.0.2.3:80 sh (sh-fallback,sh-port) persistent 60 mask 255.255.0.0 ops
  -> 10.0.0.20:80                 Tunnel  gue:6080:-c   1      0          0         
  -> 10.0.0.23:80                 Tunnel  gre:-c        1      0          0         
  -> [2001:db8::99]:80            Tunnel  ipip          1      0          0         
  -> 127.0.0.1:80                 Route   n/a           1      0          0         
";
    assert_eq!(services(vec![all], plain(View::TunnelInfo)), tunnels);
    let title_of_tunnels = "\
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
";
    assert_eq!(title(View::TunnelInfo), title_of_tunnels);
    // By family, protocol, address and port, numbers as numbers.
    let mut order: Vec<Service> =
        ["[2001:db8::1]:80", "192.0.2.10:80", "192.0.2.9:443", "192.0.2.9:80"].map(service).into();
    order[2].protocol = Protocol::Sctp;
    let made = services(order, plain(View::Rules));
    let ends: Vec<&str> = made.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(ends, ["192.0.2.9:80", "192.0.2.10:80", "192.0.2.9:443", "[2001:db8::1]:80"]);
}

#[test]
fn large_numbers_keep_their_columns() {
    let cell = |number, exact| {
        let mut out = String::new();
        large(&mut out, number, exact);
        out
    };
    for (number, expected) in [
        (0, "        0"),
        (99_999_999, " 99999999"),
        (100_000_000, "  100000K"),
        (999_999_999, "  999999K"),
        (1_000_000_000, "    1000M"),
        (99_999_999_999, "   99999M"),
        (100_000_000_000, "     100G"),
        (100_000_000_000_000, "     100T"),
    ] {
        assert_eq!(cell(number, false), expected);
    }
    assert_eq!(cell(99_999_999, true), " 99999999");
    assert_eq!(cell(100_000_000, true), " 100000000");
    assert_eq!(cell(u64::MAX, true), format!(" {}", u64::MAX));
}

#[test]
fn engines_of_persistence_have_their_columns() {
    let expected = "IPVS connection entries
pro expire state       source             virtual            destination        pe name          pe_data
UDP 05:00  ASSURED     10.1.0.10:0        10.1.0.100:5060    10.0.0.22:5060   sip                a@b
";
    let row = Connection {
        protocol: "UDP".to_owned(),
        expires: 300,
        state: "ASSURED".to_owned(),
        ends: [end("10.1.0.10:0"), end("10.1.0.100:5060"), end("10.0.0.22:5060")],
        engine: Some(("sip".to_owned(), "a@b".to_owned())),
    };
    let mut made = connections_title(true);
    connection(&mut made, &row, true, &numeric);
    assert_eq!(made, expected);
}
