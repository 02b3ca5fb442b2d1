//! The status for people, as a whole, and its way through JSON.

use super::*;
use crate::model::Fate;

fn example() -> Status {
    let server = |address: &str, reach: bool| ServerStatus {
        address: address.to_owned(),
        port: (!reach).then_some(8080),
        method: if reach { "dr" } else { "nat" }.to_owned(),
        configured_method: if reach { "dr" } else { "nat" }.to_owned(),
        weight: 1,
        health: None,
        next_hop: reach.then(|| NextHopStatus {
            mac: "02:00:00:00:00:11".to_owned(),
            interface: "eth0".to_owned(),
            vlan: Some(100),
        }),
        unreachable: (!reach)
            .then(|| Unreachable { reason: "no-route".to_owned(), detail: "no route to it".to_owned() }),
        active: 12,
        inactive: 3,
        connections: 40,
        upper_threshold: None,
        lower_threshold: None,
        overloaded: false,
        drain: None,
        packets: 1000,
        bytes: 64_000,
        out_packets: 0,
        out_bytes: 0,
        rates: RatesStatus::default(),
        path_mtu: reach.then_some(1400),
    };
    Status {
        engine: EngineStatus { version: "0.1.0".to_owned(), pid: 42, uptime_s: 3725 },
        config: ConfigStatus {
            file: "lb.toml".to_owned(),
            generation: 3,
            taken_by_all: 3,
            loaded_at: 1000,
            last_error: Some("lb.toml: refused: 2 errors".to_owned()),
            unsaved: 2,
        },
        interfaces: vec![InterfaceStatus {
            name: "eth0".to_owned(),
            driver: "veth".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            mtu: 1500,
            up: true,
            queues: vec![QueueStatus { queue: 0, worker: 0, mode: IoMode::Copy }],
            refused: vec![RefusedMode { mode: IoMode::ZeroCopy, reason: "the driver has none".to_owned() }],
            filter_passed: 7,
            filter_taken: 1000,
            filter_no_socket: 0,
            filter_denied: 12,
        }],
        workers: vec![WorkerStatus {
            worker: 0,
            core: 1,
            running: true,
            load: 0.25,
            rx_frames: 1000,
            batches: 100,
            flow_capacity: 1_000_000,
            ..WorkerStatus::default()
        }],
        services: vec![ServiceStatus {
            name: "web".to_owned(),
            address: "192.0.2.10".to_owned(),
            protocol: Protocol::Tcp,
            port: "80".to_owned(),
            scheduler: "mh".to_owned(),
            flags: vec!["mh-port".to_owned()],
            method: Method::Dr,
            packets: 2000,
            bytes: 128_000,
            out_packets: 0,
            out_bytes: 0,
            connections: 80,
            rates: RatesStatus::default(),
            settings: SettingsStatus::default(),
            limits: None,
            quorum: None,
            sorry: None,
            removed: Vec::new(),
            servers: vec![server("10.0.0.11", true), server("10.0.0.12", false)],
        }],
        timeouts: TimeoutsStatus::default(),
        checks: Vec::new(),
        local_ports: LocalPortsStatus::default(),
        web: None,
        limited_clients: LimitedClientsStatus::default(),
        persistence: PersistenceStatus::default(),
        drops: [("no-next-hop".to_owned(), 4), ("truncated".to_owned(), 9)].into(),
        vrrp: None,
        neighbors: None,
        drops_by_worker: None,
        warnings: vec!["server 10.0.0.12 of web: no route to it".to_owned()],
    }
}

#[test]
fn json_gives_the_same_back() {
    let text = serde_json::to_string(&example()).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), example());
    assert!(text.contains(r#""protocol":"tcp""#) && text.contains(r#""mode":"copy""#), "{text}");
}

#[test]
fn persistent_clients_are_counted_in_a_line() {
    let persistence = PersistenceStatus { clients: 12, capacity: 65_536, gave_way: 3, refused: 0 };
    let text = render(&Status { persistence, ..example() }, 1090);
    assert!(text.contains("\n12 of 65536 persistent clients, 3 gave way early\n\n"), "{text}");
    assert!(!render(&example(), 1090).contains("persistent"));
}

#[test]
fn people_get_aligned_columns() {
    let expected = "\
evenkeel 0.1.0, pid 42, up 1 h 2 min
lb.toml, loaded 1 min 30 s ago, generation 3
warning: server 10.0.0.12 of web: no route to it
warning: the last reload was refused: lb.toml: refused: 2 errors
changes by command that the file does not have: 2 (`evenkeel save` writes them)

Interface  Driver  State   MTU  Queue:worker  Mode  Taken  Passed
eth0       veth    up     1500  0:0           copy   1000       7
eth0: no zero-copy: the driver has none
eth0: 12 frames of clients that the access lists deny were dropped

Worker  Core  Load  Received  Sent  Forwarded  A batch  Late  Flows       of  IPv6 flows  of
     0     1  25 %      1000     0          0     10.0     0      0  1000000           0   0

Prot  LocalAddress:Port  Scheduler Flags  Weight  ActiveConn  InActConn  Conns  InPkts  OutPkts  InBytes  OutBytes  Name / next hop
TCP   192.0.2.10:80      mh mh-port                       24          6     80    2000        0   128000         0  web
  ->  10.0.0.11:80       Route                 1          12          3     40    1000        0    64000         0  02:00:00:00:00:11 eth0 vlan 100, path MTU 1400
  ->  10.0.0.12:8080     Masq                  1          12          3     40    1000        0    64000         0  UNREACHABLE: no route to it

Dropped      Packets
truncated          9
no-next-hop        4
";
    let text = render(&example(), 1090);
    assert!(text == expected, "{text}");
    assert!(!render(&Status::default(), 0).is_empty());
}

#[test]
fn what_workers_share_is_shown_when_there_is_any() {
    let mut status = example();
    status.workers[0].handed = 5;
    status.workers[0].local_ports = 7;
    status.workers[0].local_port_capacity = 64_512;
    status.services[0].servers[0] = ServerStatus {
        method: "local".to_owned(),
        next_hop: None,
        unreachable: None,
        ..status.services[0].servers[0].clone()
    };
    let text = render(&status, 1090);
    let expected = "\
Worker  Unproven  Stateless  Handed  Taken over  Waited  Unmatched  ICMP errors  Resets  Refusals  Local ports     of
     0         0          0       5           0       0          0            0       0         0            7  64512
";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("Local                 1") && text.contains("this machine"), "{text}");
}

#[test]
fn limits_thresholds_and_drains_are_told() {
    let mut status = example();
    let drain = |flows, seconds_left| DrainStatus { flows, of: 40, seconds_left, fate: Fate::Reset };
    let service = &mut status.services[0];
    service.limits = Some(LimitsStatus {
        connections: Some(15),
        max_connections: Some(100),
        client_max_rate: Some(5),
        refused: 7,
        ..LimitsStatus::default()
    });
    let removed = |fate| RemovedStatus { address: "10.0.0.13".to_owned(), port: None, flows: 3, fate };
    service.removed = vec![removed(Fate::Keep), removed(Fate::Reset)];
    let (upper_threshold, overloaded) = (Some(15), true);
    service.servers[0] = ServerStatus { upper_threshold, overloaded, path_mtu: None, ..service.servers[0].clone() };
    service.servers[1].drain = Some(drain(12, Some(25)));
    let text = render(&status, 1090);
    for words in [
        " web (at most 15 of 100 connections, 5 new a second a client; 7 refused)\n",
        " eth0 vlan 100, 15 of 15 flows, OVERLOADED\n",
        ", draining: 12 of 40 flows left, 25 s to the deadline\n",
        "10.0.0.13:80 ",
        " removed: 3 flows left, dropped until it is back\n",
        " removed: 3 flows left, reset with their next packet\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    for (drain, words) in [
        (drain(12, None), ", draining: 12 of 40 flows left\n"),
        (drain(3, Some(0)), ", drained: 3 of 40 flows left, reset with their next packet\n"),
        (drain(0, Some(9)), ", drained: no flows left\n"),
    ] {
        status.services[0].servers[1].drain = Some(drain);
        let text = render(&status, 1090);
        assert!(text.contains(words), "{words}: {text}");
    }
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["services"][0]["limits"]["max_connections"], 100);
    assert_eq!(json["services"][0]["removed"][0]["fate"], "keep");
}

#[test]
fn how_servers_are_is_told_before_their_next_hop() {
    let mut status = example();
    let health = |state: &str, words: &str, weight, percent| {
        let (state, reason, weight_percent) = (state.to_owned(), words.to_owned(), percent);
        let health = ServerHealthStatus { state, reason, for_s: 7260, weight_percent, ..Default::default() };
        Some(ServerHealthStatus { configured_weight: weight, ..health })
    };
    let service = &mut status.services[0];
    service.quorum = Some(QuorumStatus { up: false, weight: 1, least: 2, hysteresis: 1 });
    service.servers[0].health = health("up", "", 1, 100);
    service.servers[1].health = health("down", "no route to it", 7, 100);
    let sorry = ServerStatus { health: health("serving", "", 1, 100), port: None, ..service.servers[0].clone() };
    service.sorry = Some(Box::new(ServerStatus { address: "10.0.0.99".to_owned(), ..sorry }));
    let text = render(&status, 1090);
    for words in [
        " web, NO QUORUM: weight 1 of 3\n",
        " UP 2h1m, 02:00:00:00:00:11 eth0 vlan 100, path MTU 1400\n",
        " DOWN 2h1m, UNREACHABLE: no route to it\n",
        " 1 of 7 ",
        "10.0.0.99:80 ",
        " SORRY, serving, 02:00:00:00:00:11 ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    for (state, words, percent, wanted) in [
        ("down", "connection refused", 100, " DOWN 2h1m (connection refused), 02:"),
        ("up", "", 30, " UP 2h1m, 30 % of its weight, 02:"),
        ("draining", "by hand", 100, " DRAIN 2h1m (by hand), 02:"),
        ("maintenance", "by hand", 100, " MAINT 2h1m (by hand), 02:"),
        ("standby", "", 100, " SORRY, standby, 02:"),
    ] {
        status.services[0].servers[0].health = health(state, words, 1, percent);
        let text = render(&status, 1090);
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
}
