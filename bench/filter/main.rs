//! What the access lists cost the XDP filter, in the kernel: a run of the program on a frame for a service, without lists, with
//! one prefix and with 500,000.
//!
//! `cargo bench --bench filter` prints a table; `-- --out FILE` writes JSON beside it; `-- --quick` fewer rounds. Needs root.
//!
//! The kernel runs the program a million times and says how long a run took (`BPF_PROG_TEST_RUN`). Variants take turns, round
//! by round; each ratio is against the run without lists in the same round, and the median over the rounds is shown. Each
//! frame is for a service with a port, which asks two hash tables as for most packets of a real engine. `stir.c` writes the next
//! client's address into the frame before each run; what that costs alone, and the kernel's loop, is taken off. **1 client**:
//! all in the first cache. **4096**: random ones from everywhere. **262144**: as many that nothing is in any cache near by, the
//! worst that a flood can do; a real filter would then wait for its frames as well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::Array;
use etherparse::PacketBuilder;
use evenkeel::dataplane::access::Table;
use evenkeel::dataplane::xdp::{Fate, Filter, FilterEntry, FilterTable};
use evenkeel::model::{Access, Judgement, PortRange, Prefix, PrefixError, Protocol};

const STIR: &[u8] = aya::include_bytes_aligned!("stir.o");
/// Clients of a `many` run: `CLIENTS` of `stir.c`.
const CLIENTS: usize = 1 << 18;
const PREFIXES: usize = 500_000;
const RUNS: u32 = 1 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Any address; of IPv6, in 2000::/3, where addresses are given out.
    fn address(&mut self, v6: bool) -> IpAddr {
        if v6 {
            let bits = u128::from(self.next()) << 64 | u128::from(self.next());
            IpAddr::V6(Ipv6Addr::from_bits(bits >> 3 | 1 << 125))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits((self.next() >> 32) as u32))
        }
    }

    /// A prefix of /16 to /32, or of /32 to /64.
    fn prefix(&mut self, v6: bool) -> Prefix {
        let length = (self.next() >> 32) % if v6 { 33 } else { 17 } + if v6 { 32 } else { 16 };
        match Prefix::new(self.address(v6), length as u8) {
            Ok(prefix) => prefix,
            Err(PrefixError::HostBits { network, .. }) => network,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Lists that deny so many random prefixes, or those given.
fn deny(prefixes: Vec<Prefix>) -> Arc<Table> {
    let lists = prefixes.into_iter().map(|prefix| (prefix, Judgement::Deny)).collect();
    Arc::new(Table::new(&Arc::new(Access::new(Judgement::Allow, lists))))
}

fn service(v6: bool) -> IpAddr {
    if v6 { "2001:db8::1" } else { "192.0.2.1" }.parse().expect("address")
}

fn frame(client: IpAddr) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut frame = Vec::new();
    let ip = match (client, service(client.is_ipv6())) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("the service has the client's family"),
    };
    ip.tcp(1234, 80, 1, 1000).write(&mut frame, &[]).expect("frame");
    frame
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A filter with its service, its lists and the clients of a run.
fn prepare(v6: bool, program: &'static str, lists: Option<&Arc<Table>>, clients: &[IpAddr]) -> Filter {
    let mut filter = Filter::detached_from(STIR, program).expect("the kernel loads the program (needs root)");
    let address = service(v6);
    let ports = PortRange::single(80);
    filter
        .widen(&FilterTable {
            entries: vec![FilterEntry { address, protocol: Protocol::Tcp, ports }],
            owned: vec![address],
            judged: if lists.is_some() { vec![address] } else { Vec::new() },
            ..FilterTable::default()
        })
        .expect("table");
    if let Some(lists) = lists {
        filter.set_access(lists).expect("lists");
    }
    fill(&mut filter, clients);
    filter
}

/// Gives the program its clients, in turn.
fn fill(filter: &mut Filter, clients: &[IpAddr]) {
    let map = filter.object().map_mut("clients").expect("clients");
    let mut map: Array<_, [u8; 16]> = Array::try_from(map).expect("an array");
    for (index, client) in (0..).zip(clients.iter().cycle().take(CLIENTS)) {
        let mut bytes = [0; 16];
        match client {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes = address.octets(),
        }
        map.set(index, bytes, 0).expect("client");
    }
}

/// What is measured: a name, the lists, the clients and what becomes of them.
struct Variant {
    name: &'static str,
    lists: Option<Arc<Table>>,
    clients: Vec<IpAddr>,
    expected: Fate,
}

/// Clients that a condition holds for.
fn pick(random: &mut Random, v6: bool, count: usize, wanted: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    std::iter::repeat_with(|| random.address(v6)).filter(|client| wanted(*client)).take(count).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let rounds = if args.iter().any(|a| a == "--quick") { 5 } else { 11 };
    let mut rows = Vec::new();
    for v6 in [false, true] {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let prefixes: Vec<Prefix> = std::iter::repeat_with(|| random.prefix(v6)).take(PREFIXES).collect();
        let hosts: Vec<IpAddr> = pick(&mut random, v6, PREFIXES, |_| true);
        let start = processor_time();
        let (one, all) = (deny(prefixes[..1].to_vec()), deny(prefixes.clone()));
        let built = processor_time() - start;
        let single = hosts.iter().map(|host| host.to_string().parse().expect("prefix")).collect();
        let single = deny(single);
        rows.push(load(v6, &all, built));
        rows.push(load(v6, &single, built));

        let admitted = pick(&mut random, v6, CLIENTS, |client| !all.denies(client) && !single.denies(client));
        let inside = |prefix: &Prefix, noise: u128| match prefix.address() {
            IpAddr::V4(first) => {
                IpAddr::V4((first.to_bits() | noise as u32 & !(u32::MAX << (32 - prefix.length() as u32))).into())
            }
            IpAddr::V6(first) => IpAddr::V6((first.to_bits() | noise & u128::MAX >> prefix.length()).into()),
        };
        let denied = prefixes.iter().filter(|prefix| prefix.length() > 0 && (v6 || prefix.length() < 32));
        let denied: Vec<IpAddr> =
            denied.take(CLIENTS).map(|prefix| inside(prefix, u128::from(random.next()))).collect();
        // Beside a denied host: the way through all that there is to look at.
        let beside = |host: &IpAddr| match host {
            IpAddr::V4(host) => IpAddr::V4((host.to_bits() ^ 1).into()),
            IpAddr::V6(host) => IpAddr::V6((host.to_bits() ^ 1).into()),
        };
        let near: Vec<IpAddr> =
            hosts.iter().map(beside).filter(|client| !single.denies(*client)).take(CLIENTS).collect();
        let variants = [
            Variant { name: "no lists", lists: None, clients: admitted.clone(), expected: Fate::Taken },
            Variant { name: "1 prefix", lists: Some(one), clients: admitted.clone(), expected: Fate::Taken },
            Variant {
                name: "500,000 prefixes",
                lists: Some(all.clone()),
                clients: admitted.clone(),
                expected: Fate::Taken,
            },
            Variant { name: "500,000 hosts", lists: Some(single.clone()), clients: admitted, expected: Fate::Taken },
            Variant {
                name: "500,000 hosts, client beside one",
                lists: Some(single),
                clients: near,
                expected: Fate::Taken,
            },
            Variant {
                name: "500,000 prefixes, denied client",
                lists: Some(all),
                clients: denied,
                expected: Fate::Denied,
            },
        ];
        rows.extend(measure(v6, &variants, rounds));
    }
    if let Some(file) = args.iter().position(|a| a == "--out").and_then(|at| args.get(at + 1)) {
        std::fs::write(file, serde_json::Value::Array(rows).to_string()).expect("the file of --out can be written");
    }
}

/// Time of a processor that this process has had, in the kernel too: others on the machine do not count.
fn processor_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("a clock").into()
}

/// What lists cost to take into a filter, and to change a little.
fn load(v6: bool, lists: &Arc<Table>, built: Duration) -> serde_json::Value {
    let mut filter = Filter::detached().expect("the kernel loads the program (needs root)");
    let start = processor_time();
    filter.set_access(lists).expect("lists");
    let loaded = processor_time() - start;
    let more = lists.lists().lists().iter().copied().chain([("192.0.2.1".parse().expect("prefix"), Judgement::Deny)]);
    let start = processor_time();
    let next = Arc::new(Table::new(&Arc::new(Access::new(Judgement::Allow, more.collect()))));
    filter.set_access(&next).expect("lists");
    let changed = processor_time() - start;
    let family = if v6 { "v6" } else { "v4" };
    let count = lists.lists().lists().len();
    println!(
        "load  {family} {count} prefixes  prepared in {:.0} ms of processor time, into a filter in {:.0} ms; one more, with both: {:.0} ms",
        built.as_secs_f64() * 1e3,
        loaded.as_secs_f64() * 1e3,
        changed.as_secs_f64() * 1e3
    );
    serde_json::json!({"case": "load", "family": family, "prefixes": count, "prepared_ms": built.as_secs_f64() * 1e3,
        "loaded_ms": loaded.as_secs_f64() * 1e3, "one_more_ms": changed.as_secs_f64() * 1e3})
}

/// How many different clients send.
const SPREADS: [usize; 3] = [1, 4096, CLIENTS];

fn measure(v6: bool, variants: &[Variant], rounds: usize) -> Vec<serde_json::Value> {
    let family = if v6 { "v6" } else { "v4" };
    let mut filters: Vec<Filter> =
        variants.iter().map(|variant| prepare(v6, "stirred", variant.lists.as_ref(), &variant.clients)).collect();
    let stir = prepare(v6, "stirred_only", None, &variants[0].clients);
    let mut rows = Vec::new();
    for spread in SPREADS {
        let (mut times, mut ratios) = (vec![Vec::new(); variants.len()], vec![Vec::new(); variants.len()]);
        for round in 0..=rounds {
            // Other clients in every round, as many.
            for (filter, variant) in filters.iter_mut().zip(variants) {
                let from = round * spread % variant.clients.len();
                let chosen: Vec<IpAddr> = variant.clients.iter().cycle().skip(from).take(spread).copied().collect();
                if spread < CLIENTS || round == 0 {
                    fill(filter, &chosen);
                }
            }
            let frame = frame(variants[0].clients[0]);
            let own = stir.time(&frame, RUNS).expect("run").as_nanos() as f64;
            let mut first = 0.0;
            for (at, filter) in filters.iter().enumerate() {
                let ns = filter.time(&frame, RUNS).expect("run").as_nanos() as f64 - own;
                if at == 0 {
                    first = ns;
                }
                // The first round warms up.
                if round > 0 {
                    times[at].push(ns);
                    ratios[at].push(ns / first);
                }
            }
        }
        for (at, variant) in variants.iter().enumerate() {
            let counters = filters[at].counters().expect("counters");
            let (taken, denied) = (counters.no_socket, counters.denied);
            let (hit, other) = if variant.expected == Fate::Denied { (denied, taken) } else { (taken, denied) };
            assert!(hit > 0 && other == 0 && counters.passed == 0, "{}: {counters:?}", variant.name);
            let (ns, ratio) = (median(&mut times[at]), median(&mut ratios[at]));
            println!(
                "cost  {family} {spread:6} clients  {:34} {ns:5.0} ns  {:+7.1} %",
                variant.name,
                (ratio - 1.0) * 100.0
            );
            rows.push(serde_json::json!({"case": variant.name, "family": family, "clients": spread, "ns": ns,
                "ratio": ratio, "rounds": rounds}));
        }
    }
    rows
}
