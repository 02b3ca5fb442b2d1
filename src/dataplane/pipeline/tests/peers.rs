//! Several workers: whatever worker a packet arrives at, the one that has its flow gets it.

use super::translation::{SERVER_MAC, at, ends, icmp_error, packet};
use super::*;
use crate::dataplane::directory::{Directory, Peers};

/// Workers that share a directory and a configuration.
struct Team {
    workers: Vec<Rig>,
    directory: Arc<Directory>,
}

impl Team {
    fn new(count: u8, services: &[Service]) -> Team {
        let settings = EngineSettings { flows: 2000, flows_ipv6: 2000, ..EngineSettings::default() };
        let directory = Arc::new(Directory::new(10_000));
        let workers = (0..count)
            .map(|me| {
                let mut rig = Rig::with(settings.clone(), services.to_vec());
                rig.pipeline.join(Peers { me, count, directory: directory.clone() });
                rig
            })
            .collect();
        Team { workers, directory }
    }

    /// A frame arrives at a worker and is handed on until one keeps it: that worker, and what became of it.
    fn arrives(&mut self, worker: usize, frame: Vec<u8>) -> (usize, Outcome) {
        let mut worker = worker;
        for hops in 0..3 {
            let rig = &mut self.workers[worker];
            assert!(rig.io.inject(0, &frame));
            let mut batch = [Frame::default(); 1];
            assert_eq!(rig.io.receive(&mut batch), 1);
            batch[0].hops = hops;
            let mut outcomes = [Outcome::plain(Verdict::Pass)];
            rig.pipeline.process(&rig.snapshot, rig.io.memory(), &mut batch, &mut outcomes, rig.now);
            let Verdict::Hand(next) = outcomes[0].verdict else {
                worker::act(&mut rig.io, &[], &batch, &mut outcomes);
                rig.pipeline.settle(&outcomes);
                return (worker, outcomes[0]);
            };
            assert_eq!(rig.io.memory().bytes(&batch[0]), frame, "a frame that is handed on is as it came");
            worker::act(&mut rig.io, &[], &batch, &mut outcomes);
            assert_ne!(usize::from(next), worker);
            worker = usize::from(next);
        }
        panic!("handed on without end");
    }

    fn sent(&mut self, worker: usize) -> Vec<u8> {
        self.workers[worker].sent()
    }
}

fn services(method: Method) -> Vec<Service> {
    let mut services = Vec::new();
    for (vip, servers) in [("192.0.2.10:80", ["10.0.0.1", "10.0.0.2"]), ("[2001:db8::10]:80", ["fd00::1", "fd00::2"])] {
        let vip = at(vip);
        let key = ServiceKey { address: vip.ip(), protocol: Protocol::Tcp, ports: PortRange::single(vip.port()) };
        let server = |address: &str| Server { method, ..Server::dr(address.parse().expect("address"), 1) };
        let name = format!("web{}", services.len());
        let service = Service::dr(&name, key, Scheduler::RR, servers.map(server).to_vec());
        services.push(Service { method, ..service });
    }
    services
}

const CLIENTS: [(&str, &str, [&str; 2]); 2] = [
    ("198.51.100.7", "192.0.2.10:80", ["10.0.0.1:80", "10.0.0.2:80"]),
    ("2001:db8:1::7", "[2001:db8::10]:80", ["[fd00::1]:80", "[fd00::2]:80"]),
];

#[test]
fn packets_reach_the_worker_of_their_flow_from_anywhere() {
    for (client, vip, _) in CLIENTS {
        let mut team = Team::new(3, &services(Method::Dr));
        let vip = at(vip);
        for port in 0..60u16 {
            let client = std::net::SocketAddr::new(client.parse().expect("address"), 1000 + port);
            let frame = |flags| packet(CLIENT_MAC, client, vip, Protocol::Tcp, flags, b"");
            let (home, first) = team.arrives(usize::from(port % 3), frame(S));
            assert!(first.new_flow);
            let mac = mac_of(&team.sent(home));
            for worker in 0..3 {
                let (at, outcome) = team.arrives(worker, frame(A));
                assert_eq!((at, outcome.new_flow, outcome.server), (home, false, first.server));
                assert_eq!(mac_of(&team.sent(home)), mac);
            }
        }
        // When the flows end, the directory forgets them, and any worker may have the next one.
        for rig in &mut team.workers {
            rig.now += 2_000_000;
            rig.pipeline.sweep(&rig.snapshot, usize::MAX / 2, rig.now);
        }
        assert!(team.directory.is_empty());
    }
}

#[test]
fn answers_and_errors_find_the_worker_of_their_flow() {
    for (client, vip, servers) in CLIENTS {
        let mut team = Team::new(2, &services(Method::Nat));
        let vip = at(vip);
        for port in 0..40u16 {
            let client = std::net::SocketAddr::new(client.parse().expect("address"), 1000 + port);
            let home = usize::from(port % 2);
            let (_, first) = team.arrives(home, packet(CLIENT_MAC, client, vip, Protocol::Tcp, S, b""));
            assert_eq!(first.verdict, Verdict::Tx(0));
            let asked = team.sent(home);
            let server = ends(&asked).1;
            assert!(servers.iter().any(|s| at(s) == server));
            let answer = packet(SERVER_MAC, server, client, Protocol::Tcp, S | A, b"");
            let (at, outcome) = team.arrives(1 - home, answer);
            assert_eq!((at, outcome.verdict), (home, Verdict::Tx(0)));
            assert_eq!(ends(&team.sent(home)), (vip, client));
            let kind = if vip.is_ipv4() { 3 } else { 1 };
            let error = icmp_error(SERVER_MAC, server.ip(), client.ip(), kind, &asked, 60);
            let (at, outcome) = team.arrives(1 - home, error);
            assert_eq!((at, outcome.verdict), (home, Verdict::Tx(0)));
            team.sent(home);
        }
    }
}

#[test]
fn a_frame_is_not_handed_round_in_circles() {
    let mut team = Team::new(2, &services(Method::Dr));
    // Both believe that the other has it.
    let frame = packet(CLIENT_MAC, at("198.51.100.7:1"), at("192.0.2.10:80"), Protocol::Tcp, S, b"");
    let parsed = parse::parse(&frame).expect("sound");
    let key = <FlowV4 as Family>::key_of(&frame, &parsed, 0).expect("a key");
    let hash = team.workers[0].pipeline.tables().0.hash(&key);
    team.directory.insert(hash, 1).expect("room");
    let (at, outcome) = team.arrives(0, frame);
    assert_eq!((at, outcome.verdict, outcome.new_flow), (1, Verdict::Tx(0), true));
}
