//! SYN cookies through the pipeline: each packet of the handshake, what is refused, what is given back.

use std::net::SocketAddr;

use super::translation::{SERVER_MAC, at, ends, icmp_error};
use super::*;
use crate::dataplane::proxy::tests::Segment;
use crate::dataplane::rewrite::nat::tests::Build;

const ISN: u32 = u32::MAX - 1;
const SERVER_ISN: u32 = 0x8000_0000;
/// MSS 1460, SACK, timestamps, scale 7: what Linux sends.
const LINUX: [u8; 20] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

/// A segment between two ends.
pub(super) fn frame(mac: [u8; 6], from: SocketAddr, to: SocketAddr, segment: &Segment) -> Vec<u8> {
    let mut body = [segment.number.to_be_bytes(), segment.ack.to_be_bytes()].concat();
    body.extend([0x50 + (segment.options.len() as u8 / 4 * 16), segment.flags]);
    body.extend(segment.window.to_be_bytes());
    body.extend([0, 0]);
    body.extend(segment.urgent.to_be_bytes());
    body.extend([&segment.options[..], &segment.payload].concat());
    let (source, destination) = ((from.ip(), from.port()), (to.ip(), to.port()));
    let build = Build { protocol: 6, source, destination, tags: 0, extra: 0, ttl: 64, body, unchecked: false };
    let mut frame = build.frame();
    frame[..12].copy_from_slice(&[OWN.0, mac].concat());
    frame
}

/// One connection by NAT or full NAT under cookies.
pub(super) struct Line {
    pub rig: Rig,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub server: SocketAddr,
    /// Who the server is asked by; only once it was.
    pub asker: SocketAddr,
    pub cookie: u32,
}

pub(super) fn service(v6: bool, method: Method, proxy: bool) -> Service {
    let (vip, server, local) =
        if v6 { ("[2001:db8::10]:80", "fd00::1", "fd00::50") } else { ("192.0.2.10:80", "10.0.0.1", "10.0.0.50") };
    let vip = at(vip);
    let key = ServiceKey { address: vip.ip(), protocol: Protocol::Tcp, ports: PortRange::single(80) };
    let server = Server::new(server.parse().expect("address"), Some(8080), 1, method);
    Service {
        method,
        local_addresses: if method == Method::FullNat { vec![local.parse().expect("address")] } else { vec![] },
        proxy_protocol: proxy,
        ..Service::dr("cookies", key, Scheduler::RR, vec![server])
    }
}

pub(super) fn settings(cookies: SynCookies) -> EngineSettings {
    let ports = PortRange { first: 2000, last: 2009 };
    EngineSettings {
        flows: 1000,
        flows_ipv6: 1000,
        unproven: 256,
        unproven_ipv6: 256,
        cookie_flows: 4,
        syn_cookies: cookies,
        local_ports: ports,
        ..EngineSettings::default()
    }
}

impl Line {
    pub fn new(v6: bool, method: Method, proxy: bool) -> Line {
        let (client, server) =
            if v6 { ("[2001:db8:1::7]:40000", "[fd00::1]:8080") } else { ("198.51.100.7:40000", "10.0.0.1:8080") };
        let service = service(v6, method, proxy);
        let vip = SocketAddr::new(service.key.address, 80);
        let rig = Rig::with(settings(SynCookies::Always), vec![service]);
        let client = at(client);
        Line { rig, client, vip, server: at(server), asker: client, cookie: 0 }
    }

    pub fn all() -> Vec<Line> {
        let all = [(Method::Nat, false), (Method::FullNat, false), (Method::FullNat, true)];
        all.into_iter().flat_map(|(method, proxy)| [false, true].map(|v6| Line::new(v6, method, proxy))).collect()
    }

    pub fn says(&mut self, segment: &Segment) -> Outcome {
        self.rig.one(frame(CLIENT_MAC, self.client, self.vip, segment))
    }

    pub fn server_says(&mut self, segment: &Segment) -> Outcome {
        self.rig.one(frame(SERVER_MAC, self.server, self.asker, segment))
    }

    /// What was sent, by receiver: to the client, to the server.
    pub fn sent(&mut self) -> (Vec<Segment>, Vec<Segment>) {
        let (mut to_client, mut to_server) = (vec![], vec![]);
        for sent in self.rig.io.sent(0) {
            let parsed = parse::parse(&sent).expect("sound");
            let read = Segment::read(&sent);
            if sent[..6] == CLIENT_MAC {
                to_client.push(read);
                continue;
            }
            assert_eq!((&sent[..6], &sent[6..12]), (&SERVER_MAC[..], &OWN.0[..]), "{parsed:?}");
            to_server.push(read);
        }
        (to_client, to_server)
    }

    pub fn syn(&self) -> Segment {
        Segment { number: ISN, flags: S, window: 64_240, options: LINUX.to_vec(), ..Segment::default() }
    }

    pub fn ack(&self) -> Segment {
        let (number, ack) = (ISN.wrapping_add(1), self.cookie.wrapping_add(1));
        Segment { number, ack, flags: A, window: 502, ..Segment::default() }
    }

    pub fn syn_ack(&self) -> Segment {
        Segment {
            number: SERVER_ISN,
            ack: ISN.wrapping_add(1),
            flags: S | A,
            window: 65_160,
            options: vec![2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 9],
            ..Segment::default()
        }
    }

    /// The client asks and is answered.
    pub fn ask(&mut self) {
        let syn = self.syn();
        assert_eq!(self.says(&syn).verdict, Verdict::Reply(0));
        let sent = self.rig.sent();
        self.cookie = Segment::read(&sent).number;
    }

    /// The client comes back; its server has the SYN.
    pub fn come_back(&mut self) {
        self.ask();
        let ack = self.ack();
        let outcome = self.says(&ack);
        assert!(outcome.new_flow && outcome.verdict == Verdict::Tx(0), "{outcome:?}");
        let sent = self.rig.sent();
        self.asker = ends(&sent).0;
    }

    fn open(&mut self) {
        self.come_back();
        let answer = self.syn_ack();
        assert_eq!(self.server_says(&answer).verdict, Verdict::Tx(0));
        let (to_client, to_server) = self.sent();
        assert_eq!((to_client.len(), to_server.len()), (1, 1));
    }

    fn is_proxy(&self) -> bool {
        self.rig.snapshot.services[0].config.proxy_protocol
    }

    fn flows(&self) -> usize {
        self.rig.pipeline.v4.len() + self.rig.pipeline.v6.len()
    }

    pub fn nothing_is_left(&mut self) {
        self.rig.now += 2_000_000;
        self.rig.pipeline.sweep(&self.rig.snapshot, usize::MAX / 2, self.rig.now);
        assert_eq!((self.rig.pipeline.holdings(), self.flows()), (Holdings::default(), 0));
        assert_eq!(self.rig.counts(0), [(0, 0)]);
    }
}

#[test]
fn a_handshake_packet_by_packet() {
    for mut line in Line::all() {
        let proxy = line.is_proxy();
        let v6 = line.client.is_ipv6();
        let header = if proxy { crate::dataplane::proxy::length(v6) as usize } else { 0 };
        let syn = line.syn();
        // Twice the same question, twice the same answer, and nothing remembered.
        for _ in 0..2 {
            let outcome = line.says(&syn);
            assert_eq!((outcome.verdict, outcome.new_flow, outcome.service), (Verdict::Reply(0), false, 0));
            let sent = line.rig.sent();
            let answer = Segment::read(&sent);
            assert!(sent[..6] == CLIENT_MAC && sent[6..12] == OWN.0);
            let [high, low] = ((if v6 { 1440 } else { 1460 }) - header as u16).to_be_bytes();
            let options = vec![2, 4, high, low, 1, 1, 4, 2, 1, 3, 3, 7];
            assert!(line.cookie == 0 || line.cookie == answer.number);
            line.cookie = answer.number;
            let expected =
                Segment { number: line.cookie, ack: ISN.wrapping_add(1), flags: S | A, options, ..Segment::default() };
            assert_eq!(answer, expected);
        }
        assert_eq!((line.rig.pipeline.holdings(), line.flows()), (Holdings::default(), 0));
        // The client's ACK becomes its SYN, with what the cookie remembers.
        let ack = Segment { payload: b"early".to_vec(), ..line.ack() };
        assert!(line.says(&ack).new_flow);
        let sent = line.rig.sent();
        let (from, to) = ends(&sent);
        assert_eq!(
            (to, from == line.client),
            (line.server, line.rig.snapshot.services[0].config.method == Method::Nat)
        );
        line.asker = from;
        let expected = Segment {
            number: ISN,
            flags: S,
            window: 64_256,
            options: vec![2, 4, 5, 180, 1, 1, 4, 2, 1, 3, 3, 7],
            ..Segment::default()
        };
        assert_eq!(Segment::read(&sent), expected);
        assert_eq!((line.rig.pipeline.holdings().spliced, line.flows()), (1, 2));
        assert_eq!(line.rig.pipeline.v4.unproven.len() + line.rig.pipeline.v6.unproven.len(), 0, "it is proven");
        assert_eq!(line.rig.counts(0), [(0, 1)]);
        // Until the server answers, nothing of the client gets through.
        let bare = line.ack();
        assert_eq!(line.rig.drops(frame(CLIENT_MAC, line.client, line.vip, &bare)), Some(DropReason::HandshakePending));
        // The server's answer: its ACK, and the client's window. A second one the same.
        for _ in 0..2 {
            let answer = line.syn_ack();
            let outcome = line.server_says(&answer);
            assert_eq!(outcome.verdict, Verdict::Tx(0));
            let (to_client, to_server) = line.sent();
            let update = Segment {
                number: line.cookie.wrapping_add(1),
                ack: ISN.wrapping_add(1),
                flags: A,
                // Scale 9, of which the last bits are lost, at scale 7.
                window: (65_160 >> 9) << 2,
                ..Segment::default()
            };
            assert_eq!(to_client, [update]);
            let [ack] = &to_server[..] else { panic!("{to_server:?}") };
            assert_eq!((ack.number, ack.ack, ack.flags, ack.window), (ISN.wrapping_add(1), SERVER_ISN + 1, A, 502));
            assert_eq!(ack.payload.len(), header, "the header goes ahead at once");
            assert_eq!(line.rig.counts(0), [(1, 0)]);
        }
        // From then on, numbers and windows.
        let hello = Segment { payload: b"hello".to_vec(), ..line.ack() };
        line.says(&hello);
        let (_, to_server) = line.sent();
        let [seen] = &to_server[..] else { panic!("{to_server:?}") };
        assert_eq!((seen.ack, seen.window, seen.payload.len()), (SERVER_ISN + 1, 502, 5 + header));
        let data = Segment {
            number: SERVER_ISN + 1,
            ack: ISN.wrapping_add(6 + header as u32),
            flags: A,
            window: 100,
            payload: b"220".to_vec(),
            ..Segment::default()
        };
        line.server_says(&data);
        let (to_client, _) = line.sent();
        let expected = Segment { number: line.cookie.wrapping_add(1), ack: ISN.wrapping_add(6), window: 400, ..data };
        assert_eq!(to_client, [expected]);
        assert_eq!(line.rig.pipeline.stats().cookies_sent.get(), 2);
        assert_eq!(line.rig.pipeline.stats().cookies_accepted.get(), 1);
        assert_eq!(line.rig.pipeline.stats().cookies_refused.get(), 0);
        line.nothing_is_left();
    }
}

#[test]
fn what_brings_no_good_cookie_is_refused() {
    for mut line in Line::all() {
        line.ask();
        let good = line.ack();
        for bad in [
            Segment { ack: good.ack.wrapping_add(0x100), ..good.clone() },
            Segment { number: good.number.wrapping_add(1), ..good.clone() },
            Segment { flags: F | A, ack: 5, ..good.clone() },
            Segment { flags: S | A, ..good.clone() },
            Segment { flags: F, ..good.clone() },
        ] {
            let bad = frame(CLIENT_MAC, line.client, line.vip, &bad);
            assert_eq!(line.rig.drops(bad), Some(DropReason::BadCookie));
        }
        let reset = frame(CLIENT_MAC, line.client, line.vip, &Segment { flags: R, ..good.clone() });
        assert_eq!(line.rig.drops(reset), Some(DropReason::NoFlow));
        assert_eq!(line.rig.pipeline.stats().cookies_refused.get(), 5);
        // One that is too old.
        line.rig.now += 131_072;
        let late = frame(CLIENT_MAC, line.client, line.vip, &good);
        assert_eq!(line.rig.drops(late), Some(DropReason::BadCookie));
        // A SYN whose answer would go to everybody; one without a whole header.
        let syn = line.syn();
        let group = frame([3, 0, 0, 0, 0, 1], line.client, line.vip, &syn);
        assert_eq!(line.rig.drops(group), Some(DropReason::MartianSource));
        assert_eq!(line.rig.io.sent(0), Vec::<Vec<u8>>::new());
        line.nothing_is_left();
    }
}

#[test]
fn the_syn_goes_out_again_when_the_client_asks_again() {
    for mut line in Line::all() {
        line.come_back();
        let pending = |line: &mut Line, segment: &Segment| {
            let frame = frame(CLIENT_MAC, line.client, line.vip, segment);
            assert_eq!(line.rig.drops(frame), Some(DropReason::HandshakePending));
        };
        line.rig.now += 199;
        let (ack, syn) = (line.ack(), line.syn());
        pending(&mut line, &ack);
        line.rig.now += 1;
        pending(&mut line, &syn);
        // A probe of the closed window: empty, one before the first byte.
        let probe = Segment { number: ISN, window: 1, ..ack.clone() };
        assert_eq!(line.says(&probe).verdict, Verdict::Tx(0));
        let (_, to_server) = line.sent();
        assert_eq!((to_server[0].number, to_server[0].flags, to_server[0].window), (ISN, S, 128));
        pending(&mut line, &ack);
        line.rig.now += 200;
        assert_eq!(line.says(&ack).verdict, Verdict::Tx(0));
        line.sent();
        assert_eq!((line.flows(), line.rig.counts(0)), (2, vec![(0, 1)]));
        // Another connection of the same ends begins with a question.
        let other = Segment { number: 7, ..syn };
        assert_eq!(line.says(&other).verdict, Verdict::Reply(0));
        line.sent();
        assert_eq!(
            (line.rig.pipeline.holdings(), line.flows()),
            (Holdings { local_ports: 0, ..Holdings::default() }, 0)
        );
        line.nothing_is_left();
    }
}

#[test]
fn an_end_that_gives_up_ends_the_flow_for_both() {
    for mut line in Line::all() {
        line.come_back();
        let refused = Segment { number: 0, ack: ISN.wrapping_add(1), flags: R | A, ..Segment::default() };
        let elsewhere = Segment { ack: 5, ..refused.clone() };
        assert_eq!(line.server_says(&elsewhere).verdict, Verdict::Drop(DropReason::HandshakePending));
        assert_eq!(line.server_says(&refused).verdict, Verdict::Tx(0));
        let (to_client, to_server) = line.sent();
        assert_eq!(to_client, [Segment { number: line.cookie.wrapping_add(1), ..refused }]);
        assert_eq!((to_server.len(), line.rig.pipeline.holdings(), line.flows()), (0, Holdings::default(), 0));

        line.come_back();
        let reset = Segment { number: ISN.wrapping_add(1), flags: R, ..Segment::default() };
        let elsewhere = Segment { number: 5, ..reset.clone() };
        assert_eq!(line.says(&elsewhere).verdict, Verdict::Drop(DropReason::HandshakePending));
        assert_eq!(line.says(&Segment { flags: R | A, ack: 99, ..reset.clone() }).verdict, Verdict::Tx(0));
        let (to_client, to_server) = line.sent();
        assert_eq!((to_client.len(), to_server), (0, vec![reset]));
        assert_eq!((line.rig.pipeline.holdings(), line.flows()), (Holdings::default(), 0));
        assert_eq!(line.rig.counts(0), [(0, 0)]);
    }
}

#[test]
fn what_the_server_has_left_of_an_older_connection_is_reset() {
    for mut line in Line::all() {
        line.come_back();
        for round in 0..5 {
            let older = Segment { number: 1000, ack: 2000 + round, flags: A, ..Segment::default() };
            assert_eq!(line.server_says(&older).verdict, Verdict::Reply(0));
            let (_, to_server) = line.sent();
            let reset = Segment { number: 2000 + round, flags: R, ..Segment::default() };
            assert_eq!(to_server[0], reset);
            // Then the SYN, but not for ever.
            let again: Vec<_> = to_server[1..].iter().map(|segment| (segment.number, segment.flags)).collect();
            assert_eq!(again, if round < 3 { vec![(ISN, S)] } else { vec![] });
        }
        // An answer to another SYN is older, too; one that acknowledges nothing says nothing.
        let wrong = Segment { ack: 5, ..line.syn_ack() };
        assert_eq!(line.server_says(&wrong).verdict, Verdict::Reply(0));
        line.sent();
        let nothing = Segment { flags: S, ..wrong };
        assert_eq!(line.server_says(&nothing).verdict, Verdict::Drop(DropReason::HandshakePending));
        let answer = line.syn_ack();
        assert_eq!(line.server_says(&answer).verdict, Verdict::Tx(0));
        assert_eq!(line.sent().0.len(), 1);
        line.nothing_is_left();
    }
}

/// A client that lost its connection begins another one on the same ends, and the server takes it: nobody's numbers differ.
#[test]
fn a_connection_that_the_ends_make_themselves_is_left_to_them() {
    for mut line in Line::all() {
        line.open();
        let syn = Segment { number: 500, ..line.syn() };
        assert_eq!(line.says(&syn).verdict, Verdict::Tx(0));
        let (_, to_server) = line.sent();
        assert_eq!((to_server[0].number, to_server[0].flags, to_server[0].window), (500, S, syn.window));
        // While the server has the old one it says so, in the client's numbers.
        let challenge = Segment { number: SERVER_ISN + 1, ack: ISN.wrapping_add(1), flags: A, ..Segment::default() };
        line.server_says(&challenge);
        assert_eq!(line.sent().0[0].number, line.cookie.wrapping_add(1));
        let answer = Segment { number: 77, ack: 501, ..line.syn_ack() };
        assert_eq!(line.server_says(&answer).verdict, Verdict::Tx(0));
        let (to_client, to_server) = line.sent();
        assert_eq!((to_client[0].number, to_client[0].window, to_server.len()), (77, answer.window, 0));
        assert_eq!(line.rig.pipeline.holdings().spliced, 0);
        let ack = Segment { number: 501, ack: 78, window: 9, ..line.ack() };
        line.says(&ack);
        let (_, to_server) = line.sent();
        assert_eq!((to_server[0].ack, to_server[0].window), (78, 9));
        if line.is_proxy() {
            assert!(to_server[0].payload.len() > 20, "the header of the new stream");
        }
        line.nothing_is_left();
    }
}

#[test]
fn icmp_errors_name_numbers_that_their_reader_knows() {
    for mut line in Line::all() {
        if line.is_proxy() {
            continue;
        }
        line.open();
        let header = if line.client.is_ipv6() { 40 } else { 20 };
        let kind = if line.client.is_ipv6() { 1 } else { 3 };
        let inner = |frame: &[u8]| {
            let tcp = 14 + header + 8 + header;
            let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
            (word(tcp + 4), word(tcp + 8))
        };
        // The client has no route for what the server sent.
        let data = Segment {
            number: SERVER_ISN + 1,
            ack: ISN.wrapping_add(1),
            flags: A,
            window: 1,
            payload: vec![1; 9],
            ..Segment::default()
        };
        line.server_says(&data);
        let sent = line.rig.sent();
        let error = icmp_error(CLIENT_MAC, line.client.ip(), line.vip.ip(), kind, &sent, 60);
        line.rig.one(error);
        assert_eq!(inner(&line.rig.sent()), (SERVER_ISN + 1, ISN.wrapping_add(1)));
        // The server has none for what the client sent.
        let ack = line.ack();
        line.says(&ack);
        let sent = line.rig.sent();
        let error = icmp_error(SERVER_MAC, line.server.ip(), line.asker.ip(), kind, &sent, 60);
        line.rig.one(error);
        assert_eq!(inner(&line.rig.sent()), (ISN.wrapping_add(1), line.cookie.wrapping_add(1)));
        line.nothing_is_left();
    }
}

#[test]
fn a_segment_too_large_is_reported_with_the_numbers_of_its_sender() {
    let mut line = Line::new(false, Method::Nat, false);
    line.open();
    let large = Segment { number: SERVER_ISN + 1, ack: 5, flags: A, payload: vec![1; 1500], ..Segment::default() };
    assert_eq!(line.server_says(&large).verdict, Verdict::Reply(0));
    let sent = line.rig.sent();
    assert_eq!((sent[34], sent[35], &sent[66..70]), (3, 4, &(SERVER_ISN + 1).to_be_bytes()[..]));
}

#[test]
fn more_flows_than_there_is_room_for_are_refused() {
    let mut line = Line::new(false, Method::FullNat, false);
    for port in 1..=5 {
        line.client.set_port(port);
        line.ask();
        let ack = line.ack();
        let outcome = line.says(&ack);
        line.rig.io.sent(0);
        let expected = if port == 5 { Verdict::Drop(DropReason::CookieTableFull) } else { Verdict::Tx(0) };
        assert_eq!(outcome.verdict, expected);
    }
    assert_eq!((line.rig.pipeline.holdings().spliced, line.flows()), (4, 8));
    line.rig.pipeline.sweep(&line.rig.snapshot, 0, line.rig.now);
    assert_eq!(line.rig.pipeline.stats().cookie_flows.get(), 4);
    line.nothing_is_left();
    line.ask();
    let ack = line.ack();
    assert_eq!(line.says(&ack).verdict, Verdict::Tx(0));
}

#[test]
fn what_is_refused_leaves_nothing_of_the_cookie() {
    // No local port is left; the tuple is another service's; no frame for the ACK to the server.
    let mut line = Line::new(false, Method::FullNat, false);
    let mut own = settings(SynCookies::Always);
    own.local_ports = PortRange::single(2000);
    line.rig = Rig::with(own, vec![service(false, Method::FullNat, false)]);
    line.come_back();
    line.client.set_port(2);
    line.ask();
    let ack = line.ack();
    assert_eq!(line.says(&ack).verdict, Verdict::Drop(DropReason::NoLocalPort));
    assert_eq!(
        line.rig.pipeline.holdings(),
        Holdings { last_hops: 1, local_ports: 1, spliced: 1, ..Holdings::default() }
    );
    line.nothing_is_left();

    let mut line = Line::new(false, Method::Nat, false);
    line.rig.io = MemoryIo::new(2, 1, 4096);
    line.come_back();
    let answer = line.syn_ack();
    assert_eq!(line.server_says(&answer).verdict, Verdict::Tx(0));
    let (to_client, to_server) = line.sent();
    assert_eq!((to_client.len(), to_server.len()), (1, 0));
    let drops = &line.rig.pipeline.stats().drops;
    assert_eq!(drops[DropReason::NoFrame as usize].get(), 1);
    // The server asks again.
    line.rig.io = MemoryIo::new(2, 2, 4096);
    line.server_says(&answer);
    assert_eq!(line.sent().1.len(), 1);
    line.nothing_is_left();
}

/// The ACK, and the server's answer, come to other workers than the SYN.
#[test]
fn a_cookie_is_good_at_every_worker() {
    let mut line = Line::new(false, Method::FullNat, false);
    line.ask();
    let mut other = Line::new(false, Method::FullNat, false);
    other.cookie = line.cookie;
    let ack = other.ack();
    assert!(other.says(&ack).new_flow);
}
