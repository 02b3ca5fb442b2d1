//! Schedulers against the real IPVS: `tests/golden/sched/` holds what it chose for each new connection, while servers came,
//! went and changed their weights, connections closed, and thresholds were reached. The same input gives the same choices
//! here, through the compiler of snapshots and the state that outlives them. `tests/golden/README.md` says how these were
//! recorded.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use evenkeel::control::compile::Registry;
use evenkeel::dataplane::schedule::{Load, Request, SCHEDULERS, description, fold_address};
use evenkeel::dataplane::snapshot::{NextHop, Port, Snapshot};
use evenkeel::model::{Desired, MacAddr, PortRange, Protocol, Scheduler, Server, Service, ServiceKey};

/// A director that does what `ipvsadm` says.
struct Director {
    desired: Desired,
    registry: Registry,
    snapshot: Snapshot,
    now: u32,
    flows: Vec<Option<Flow>>,
}

struct Flow {
    load: Arc<Load>,
    upper: u32,
    lower: u32,
    active: bool,
    /// When it was closed or used last, in milliseconds.
    used: u32,
    closed: bool,
}

/// Milliseconds that a closed connection or a UDP flow lives in the recordings in which time passes.
const TIMEOUT: u32 = 3000;

/// The word after an option.
fn option<'a>(words: &[&'a str], option: &str) -> Option<&'a str> {
    words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied()
}

fn end(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

impl Director {
    fn new() -> Director {
        let desired = Desired::of(Vec::new());
        let mut registry = Registry::default();
        let snapshot = compile(&mut registry, &desired);
        Director { desired, registry, snapshot, now: 1000, flows: Vec::new() }
    }

    /// One line of `ipvsadm`'s save format.
    fn change(&mut self, words: &[&str]) {
        let service = end(option(words, "-t").or(option(words, "-u")).expect("a service"));
        let number = |name: &str| option(words, name).and_then(|word| word.parse::<u32>().ok());
        if words[0] == "-A" {
            let known = description(option(words, "-s").expect("a scheduler")).expect("a known scheduler");
            let mut scheduler = Scheduler::named(known.name);
            for flag in option(words, "-b").into_iter().flat_map(|flags| flags.split(',')) {
                known.flags.iter().find(|known| known.name == flag).expect("a known flag").set(&mut scheduler);
            }
            let protocol = if words.contains(&"-t") { Protocol::Tcp } else { Protocol::Udp };
            let key = ServiceKey { address: service.ip(), protocol, ports: PortRange::single(service.port()) };
            let mut service = Service::dr("golden", key, scheduler, Vec::new());
            service.one_packet = words.contains(&"-o");
            self.desired.services = vec![service];
        } else {
            let address = end(option(words, "-r").expect("a server")).ip();
            let servers = &mut self.desired.services[0].servers;
            let known = servers.iter().position(|server| server.address == address);
            match (words[0], known) {
                ("-a", None) => {
                    let mut server = Server::dr(address, number("-w").unwrap_or(1) as u16);
                    (server.upper, server.lower) = (number("-x"), number("-y"));
                    servers.push(server);
                }
                ("-e", Some(at)) => servers[at].weight = number("-w").unwrap_or(1) as u16,
                ("-d", Some(at)) => drop(servers.remove(at)),
                other => panic!("{other:?}"),
            }
        }
        self.snapshot = compile(&mut self.registry, &self.desired);
    }

    /// A new connection: the last figure of its server's address less twenty, or `-`.
    fn open(&mut self, from: SocketAddr) -> char {
        let (chosen, flow) = self.choose(from);
        self.flows.push(flow);
        chosen
    }

    /// A packet more from a client: of its flow if it has one (`None`), else of a new one.
    fn again(&mut self, number: usize, from: SocketAddr) -> Option<char> {
        if let Some(flow) = &mut self.flows[number] {
            flow.used = self.now;
            return None;
        }
        let (chosen, flow) = self.choose(from);
        self.flows[number] = flow;
        Some(chosen)
    }

    fn choose(&mut self, from: SocketAddr) -> (char, Option<Flow>) {
        let service = &self.snapshot.services[0];
        let request = Request {
            client: fold_address(from.ip()),
            port: from.port(),
            destination: fold_address(service.key().address),
            destination_port: service.key().ports.first,
            now: self.now,
            random: self.flows.len() as u32 * 7 + 1,
        };
        let Some(at) = service.selector.select(&service.members, &service.state.cursor, &request) else {
            return ('-', None);
        };
        let member = &service.members[at];
        let active = service.key().protocol == Protocol::Tcp;
        let flow = (!service.config.one_packet).then(|| {
            assert!(member.load.try_open(active, member.upper), "chosen above its threshold");
            let (load, upper, lower) = (member.load.clone(), member.upper, member.lower);
            Flow { load, upper, lower, active, used: self.now, closed: !active }
        });
        let IpAddr::V4(address) = member.address else { panic!("IPv4") };
        (char::from_digit(u32::from(address.octets()[3]) - 20, 10).expect("a figure"), flow)
    }

    /// The client closes: seen from one side, the connection is in FIN_WAIT, which is inactive.
    fn close(&mut self, number: usize) {
        if let Some(flow) = &mut self.flows[number] {
            if std::mem::take(&mut flow.active) {
                flow.load.shift(false);
            }
            (flow.closed, flow.used) = (true, self.now);
        }
    }

    /// Time passes, and what has no established connection expires.
    fn sleep(&mut self, milliseconds: u32) {
        self.now += milliseconds;
        for flow in &mut self.flows {
            if let Some(ended) = flow.take_if(|flow| flow.closed && self.now - flow.used > TIMEOUT) {
                ended.load.close(ended.active);
                ended.load.relieve(ended.upper, ended.lower);
            }
        }
    }
}

fn compile(registry: &mut Registry, desired: &Desired) -> Snapshot {
    let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
    registry.compile(desired, vec![port], |_| Some(hop)).expect("compiles").snapshot
}

/// Ours and theirs for one case.
fn play(case: &str) -> (String, String) {
    let (name, lines) = case.split_once('\n').expect("a name");
    // The kernel's set of lblcr shrinks after a day: for the recording after four seconds. Six hours for a second here.
    let second = if name.starts_with("expiry") { 6 * 3600 * 1000 } else { 1000 };
    let mut director = Director::new();
    let (mut ours, mut theirs) = (String::new(), String::new());
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["close", number] => director.close(number.parse().expect("a number")),
            ["again", number, from, server] => {
                if let Some(chosen) = director.again(number.parse().expect("a number"), end(from)) {
                    ours.push(chosen);
                    theirs.push_str(server);
                }
            }
            ["sleep", seconds] => director.sleep(second * seconds.parse::<u32>().expect("seconds")),
            [from, server] => {
                ours.push(director.open(end(from)));
                theirs.push_str(server);
            }
            _ => director.change(&words),
        }
    }
    (ours, theirs)
}

#[test]
fn choices_are_those_of_the_real_ipvs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sched");
    let mut different = Vec::new();
    let (mut cases, mut choices) = (0, 0);
    let mut names = BTreeSet::new();
    for file in fs::read_dir(folder).expect("a folder") {
        let path = file.expect("a file").path();
        names.insert(path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned());
        let text = fs::read_to_string(&path).expect("text");
        for case in text.split("case ").filter(|case| !case.is_empty()) {
            let (ours, theirs) = play(case);
            cases += 1;
            choices += theirs.len();
            if ours != theirs {
                different.push(format!("{}\n  ours   {ours}\n  theirs {theirs}", case.lines().next().unwrap_or("")));
            }
        }
    }
    assert!(different.is_empty(), "{} of {cases} cases:\n{}", different.len(), different.join("\n"));
    println!("{cases} cases, {choices} choices");
    assert!(cases >= 116 && choices >= 8800, "{cases} cases, {choices} choices");
    // twos draws at random, so there is nothing to record; p2c and maglev are not of IPVS.
    let listed: BTreeSet<String> = SCHEDULERS.iter().map(|known| known.name.to_owned()).collect();
    names.extend(["twos", "p2c", "maglev"].map(str::to_owned));
    assert_eq!(listed, names, "each scheduler has its recordings, and each recording its scheduler");
}
