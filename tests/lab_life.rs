//! The life of a flow end to end: servers removed and drained under real connections, thresholds and limits, ports that are
//! used again at once.

mod lab_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::lab::client::stream::{Speech, Streams};
use evenkeel::lab::client::udp;
use evenkeel::lab::engine::{EngineConfig, find_server};
use evenkeel::lab::queues;
use evenkeel::lab::site::Family;
use evenkeel::model::Method;
use lab_support::rig::{ECHO, PATIENCE, Rig, WEB, Wish, eventually};
use lab_support::{heavy, lab_is_possible};
use socket2::{Domain, SockRef, Socket, Type};

const METHODS: [Method; 3] = [Method::Dr, Method::Nat, Method::FullNat];

/// The configuration without the last server of each service.
fn without_last(rig: &Rig) -> EngineConfig {
    let mut config = rig.config.clone();
    for service in ["web", "bulk", "echo"] {
        config.remove_server(service, rig.site.servers[1].address(rig.wish.family));
    }
    config
}

/// Connections to both servers, three each.
fn streams(rig: &Rig) -> Streams {
    let streams = Streams::open(rig.client(), rig.target(WEB), Speech::Http, 6, Duration::from_millis(10)).unwrap();
    assert!(streams.settled(PATIENCE), "{:?}\n{}", streams.broken(), rig.story());
    assert_eq!(streams.by_server().values().copied().collect::<Vec<_>>(), [3, 3]);
    streams
}

/// Exchanges of the connections to one server, and how many of these broke.
fn of(streams: &Streams, server: &str) -> (u64, usize) {
    let states = streams.states();
    let mine = || states.iter().filter(|state| state.server.as_deref() == Some(server));
    (mine().map(|state| state.exchanges).sum(), mine().filter(|state| state.broken.is_some()).count())
}

/// The connections of the first server go on, and none broke.
fn others_go_on(streams: &Streams, rig: &Rig) {
    let before = of(streams, "server1").0;
    eventually("the other connections go on", || of(streams, "server1").0 > before + 10);
    assert_eq!(of(streams, "server1").1, 0, "{:?}\n{}", streams.broken(), rig.story());
}

#[test]
fn clients_of_a_removed_server_are_reset() {
    if !lab_is_possible() {
        return;
    }
    for (method, family) in METHODS.into_iter().flat_map(|m| [Family::V4, Family::V6].map(|f| (m, f))) {
        let rig = Wish::new(method, family).build().start();
        let streams = streams(&rig);
        let target = rig.target(ECHO);
        let sockets: Vec<_> =
            (0..2).map(|_| rig.client().run(|| udp::socket(target, PATIENCE)).unwrap().unwrap()).collect();
        let names: Vec<String> = sockets.iter().map(|socket| udp::ask(socket, "x").unwrap()).collect();
        let start = Instant::now();
        rig.engine.reload(&without_last(&rig)).unwrap();
        eventually("its connections are reset", || of(&streams, "server2").1 == 3);
        println!("{method:?} {family:?}: reset {:?} after the reload began", start.elapsed());
        let broken = streams.broken();
        assert!(broken.iter().all(|why| why.contains("reset")), "{broken:?}\n{}", rig.story());
        others_go_on(&streams, &rig);
        for (socket, name) in sockets.iter().zip(&names) {
            let asked = udp::ask(socket, "y");
            match name.as_str() {
                // ICMP port unreachable; the next datagram has a new flow.
                "server2" => {
                    assert_eq!(asked.expect_err("an answer").kind(), ErrorKind::ConnectionRefused);
                    assert_eq!(udp::ask(socket, "z").unwrap(), "server1");
                }
                _ => assert_eq!(&asked.unwrap(), name),
            }
        }
        let status = rig.engine.status().unwrap();
        let resets: u64 = status["workers"].as_array().unwrap().iter().filter_map(|w| w["resets"].as_u64()).sum();
        assert_eq!(resets, 3, "{status}");
        assert_eq!(rig.get().1.server, "server1");
        // It is forgotten once its flows have ended.
        rig.await_status("no flow of it is left", |status| {
            let services = status["services"].as_array().unwrap();
            services.iter().all(|service| service.get("removed").is_none())
        });
    }
}

#[test]
fn clients_of_a_removed_server_wait_for_it() {
    if !lab_is_possible() {
        return;
    }
    for method in METHODS {
        let mut stand = Wish::new(method, Family::V4).build();
        stand.config.change_service("web", "flows_of_removed", "keep");
        let rig = stand.start();
        let streams = streams(&rig);
        rig.engine.reload(&without_last(&rig)).unwrap();
        others_go_on(&streams, &rig);
        let (stands, drops) = (of(&streams, "server2").0, rig.drops("server-gone"));
        others_go_on(&streams, &rig);
        assert_eq!(of(&streams, "server2"), (stands, 0), "{}", rig.story());
        eventually("their packets are dropped", || rig.drops("server-gone") > drops.max(2));
        let people = rig.engine.status_for_people().unwrap();
        assert!(people.contains("removed: 3 flows left, dropped until it is back"), "{people}");
        rig.engine.reload(&rig.config).unwrap();
        eventually("they go on", || of(&streams, "server2").0 > stands + 10);
        assert_eq!(streams.broken(), Vec::<String>::new(), "{}", rig.story());
        assert_eq!(streams.by_server().values().copied().collect::<Vec<_>>(), [3, 3]);
    }
}

#[test]
fn clients_of_a_removed_server_are_rescheduled() {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(Method::Dr, Family::V4).build();
    for service in ["web", "echo"] {
        stand.config.change_service(service, "flows_of_removed", "reschedule");
    }
    let rig = stand.start();
    let streams = streams(&rig);
    let target = rig.target(ECHO);
    let sockets: Vec<_> =
        (0..2).map(|_| rig.client().run(|| udp::socket(target, PATIENCE)).unwrap().unwrap()).collect();
    sockets.iter().for_each(|socket| drop(udp::ask(socket, "x").unwrap()));
    rig.engine.reload(&without_last(&rig)).unwrap();
    // Datagrams just go elsewhere; a stream that another server does not know is reset by it.
    for socket in &sockets {
        assert_eq!(udp::ask(socket, "y").unwrap(), "server1", "{}", rig.story());
    }
    eventually("the other server resets them", || of(&streams, "server2").1 == 3);
    others_go_on(&streams, &rig);
}

#[test]
fn a_drain_shows_its_progress_and_ends_at_its_deadline() {
    if !lab_is_possible() {
        return;
    }
    for method in METHODS {
        let rig = Wish::new(method, Family::V4).build().start();
        let streams = streams(&rig);
        let second = rig.site.servers[1].v4;
        let mut config = rig.config.clone();
        config.change_service("web", "drain_deadline", 4).change_server("web", second, "drain", true);
        rig.engine.reload(&config).unwrap();
        let start = Instant::now();
        let status = rig.engine.server_status("web", second).unwrap();
        let drain = &status["drain"];
        assert_eq!(
            (&drain["flows"], &drain["of"], &drain["fate"]),
            (&3.into(), &3.into(), &"reset".into()),
            "{status}"
        );
        assert!((3..=4).contains(&drain["seconds_left"].as_u64().unwrap()), "{status}");
        let people = rig.engine.status_for_people().unwrap();
        assert!(people.contains("draining: 3 of 3 flows left, "), "{people}");
        // New ones go elsewhere, those that are there go on, also over a reload.
        (0..4).for_each(|_| assert_eq!(rig.get().1.server, "server1"));
        let before = of(&streams, "server2").0;
        rig.engine.reload(&config).unwrap();
        eventually("its connections go on", || of(&streams, "server2").0 > before + 10);
        assert_eq!(streams.broken(), Vec::<String>::new(), "{}", rig.story());
        assert!(start.elapsed() < Duration::from_secs(3), "the machine is too slow for this test");
        eventually("its connections are reset", || of(&streams, "server2").1 == 3);
        assert!(start.elapsed() >= Duration::from_millis(3900), "{:?} after the drain began", start.elapsed());
        println!("{method:?}: reset {:?} after the drain began", start.elapsed());
        others_go_on(&streams, &rig);
        let told = rig.await_status("it has drained", |status| {
            find_server(status, "web", second).is_some_and(|server| server["drain"]["flows"] == 0)
        });
        assert_eq!(find_server(&told, "web", second).unwrap()["drain"]["of"], 3);
        // And back: it takes new ones again.
        rig.engine.reload(&rig.config).unwrap();
        let served: Vec<String> = (0..4).map(|_| rig.get().1.server).collect();
        assert!(served.contains(&"server2".to_owned()), "{served:?}");
    }
}

/// `count` connections at the same time, from as many threads; those that were made.
fn connect_at_once(rig: &Rig, count: usize) -> Vec<TcpStream> {
    let target = rig.target(WEB);
    let (made, connections) = std::sync::mpsc::channel();
    let gate = std::sync::Arc::new(std::sync::Barrier::new(count));
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let (made, gate) = (made.clone(), gate.clone());
            let work = move || {
                gate.wait();
                // A SYN that was refused is repeated after a second: too late.
                if let Ok(connection) = TcpStream::connect_timeout(&target, Duration::from_millis(800)) {
                    let _ = made.send(connection);
                }
            };
            rig.client().thread(&format!("connect-{number}"), work).unwrap()
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(made);
    connections.into_iter().collect()
}

/// Four queues on both arms and a worker on each of two processors, where there are two.
fn two_workers(method: Method, change: impl FnOnce(&mut EngineConfig)) -> Rig {
    let mut wish = Wish::new(method, Family::V4);
    wish.site.wire.queues = 4;
    let mut stand = wish.build();
    stand.config.set("engine", "cores", queues::cores());
    change(&mut stand.config);
    stand.start()
}

#[test]
fn an_upper_threshold_is_exact_over_two_workers() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    for method in METHODS {
        let rig = two_workers(method, |config| {
            config.change_servers("web", "upper_threshold", 20);
        });
        let connections = connect_at_once(&rig, 70);
        assert_eq!(connections.len(), 40, "{}", rig.story());
        for server in &rig.site.servers {
            let status = rig.engine.server_status("web", server.v4).unwrap();
            let flows = status["active"].as_u64().unwrap() + status["inactive"].as_u64().unwrap();
            assert_eq!((flows, &status["overloaded"]), (20, &true.into()), "{status}");
        }
        assert!(rig.drops("no-server") >= 30);
        let people = rig.engine.status_for_people().unwrap();
        assert!(people.contains(", 20 of 20 flows, OVERLOADED"), "{people}");
    }
}

#[test]
fn limits_of_service_and_client_are_exact_over_two_workers() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    for (method, key, reason) in [
        (Method::Dr, "client_max_connections", "client-connections"),
        (Method::FullNat, "client_max_connections", "client-connections"),
        (Method::Nat, "max_connections", "service-connections"),
    ] {
        let rig = two_workers(method, |config| {
            config.set("timeouts", "tcp_fin_wait", 1).set("timeouts", "tcp_time_wait", 1);
            config.set("timeouts", "tcp_close_wait", 1).set("timeouts", "tcp_close", 1);
            config.change_service("web", key, 12);
        });
        let connections = connect_at_once(&rig, 40);
        assert_eq!(connections.len(), 12, "{method:?}\n{}", rig.story());
        assert!(rig.drops(reason) >= 28);
        let people = rig.engine.status_for_people().unwrap();
        assert!(people.contains(" refused)"), "{people}");
        // What has ended makes room, for as many again.
        drop(connections);
        // A second in their states, and up to four until the sweep comes by.
        let ended = rig.engine.await_status(3 * PATIENCE, "their flows have ended", |status| {
            let services = status["services"].as_array().unwrap();
            let web = services.iter().find(|service| service["name"] == "web").unwrap();
            let servers = web["servers"].as_array().unwrap();
            servers.iter().all(|server| server["active"] == 0 && server["inactive"] == 0)
        });
        ended.unwrap_or_else(|error| panic!("{error}\n{}", rig.story()));
        assert_eq!(connect_at_once(&rig, 40).len(), 12, "{method:?}\n{}", rig.story());
    }
}

#[test]
fn a_clients_rate_is_limited() {
    if !lab_is_possible() {
        return;
    }
    let mut stand = Wish::new(Method::Dr, Family::V4).build();
    stand.config.change_service("web", "client_max_rate", 1).change_service("web", "client_max_rate_burst", 5);
    let rig = stand.start();
    let made = connect_at_once(&rig, 30).len();
    assert!((5..=6).contains(&made), "{made} connections\n{}", rig.story());
    assert!(rig.drops("client-rate") >= 24);
}

/// One request from a port, and how long it took to connect. `reset`: the client ends the connection by a reset, else the
/// server closes first, so that the client's port is free at once.
fn ask_from(target: SocketAddr, own: SocketAddr, reset: bool) -> std::io::Result<(u16, Duration)> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&own.into())?;
    let start = Instant::now();
    socket.connect_timeout(&target.into(), PATIENCE)?;
    let took = start.elapsed();
    let mut stream = TcpStream::from(socket);
    let port = stream.local_addr()?.port();
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = if reset { "keep-alive" } else { "close" };
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n")?;
    if reset {
        let mut some = [0; 16];
        stream.read_exact(&mut some)?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    } else {
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok((port, took))
}

/// No SYN on a closing flow goes into a black hole: it would be repeated after a second at the earliest.
#[test]
fn a_port_that_is_used_again_gets_through_at_once() {
    if !lab_is_possible() {
        return;
    }
    for method in METHODS {
        let rig = Wish::new(method, Family::V4).build().start();
        let (target, client) = (rig.target(WEB), rig.site.client_address(Family::V4));
        for reset in [false, true] {
            let ask = |port: u16| loop {
                let asked = rig.client().run(|| ask_from(target, SocketAddr::new(client, port), reset)).unwrap();
                match asked {
                    Ok(answered) => return answered,
                    // The client's own kernel still waits for the ACK of its FIN.
                    Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => panic!("{method:?}, reset {reset}: {error}\n{}", rig.story()),
                }
            };
            let (port, _) = ask(0);
            let slowest = (0..12).map(|_| ask(port).1).max().unwrap();
            println!("{method:?}, reset {reset}: slowest of 12 connections from one port: {slowest:?}");
            assert!(slowest < Duration::from_millis(900), "{slowest:?}\n{}", rig.story());
            // Not to be taken for the next round's.
            thread::sleep(Duration::from_millis(50));
        }
    }
}
