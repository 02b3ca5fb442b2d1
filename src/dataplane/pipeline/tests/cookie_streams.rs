//! Two TCP ends with a director between them that answers by cookies, over a network that loses, repeats and reorders: both
//! streams arrive, byte for byte, and neither end is told anything of a stream that it does not have.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::cookies::{Line, frame};
use super::translation::SERVER_MAC;
use super::*;
use crate::dataplane::icmp;
use crate::dataplane::proxy::tests::Segment;

/// One end: a sender of a stream and a receiver of another.
#[derive(Debug)]
struct End {
    /// Own stream: where it begins, what it is, how far it was sent and acknowledged (bytes, the FIN included).
    isn: u32,
    data: Vec<u8>,
    sent: usize,
    acked: usize,
    /// The peer's stream; `None` until its SYN came.
    peer: Option<u32>,
    bytes: Vec<Option<u8>>,
    end: Option<usize>,
    /// Whether the handshake is over.
    open: bool,
    /// Offered: window in bytes (constant), its shift, selective acknowledgements.
    window: u32,
    scale: Option<u8>,
    sack: bool,
    /// Agreed: the peer's shift (own is used if there is one), selective acknowledgements.
    peer_scale: Option<u8>,
    peer_sack: bool,
    /// How far the peer lets it send, in bytes of the own stream.
    limit: usize,
    /// Bytes that the peer may send beyond the window: those of a PROXY header, which it does not know of.
    excess: usize,
}

/// Maximum segment sizes of both ends, bytes.
const MSS: usize = 536;

impl End {
    fn new(isn: u32, data: &[u8], window: u32, scale: Option<u8>, sack: bool) -> End {
        End {
            isn,
            data: data.to_vec(),
            sent: 0,
            acked: 0,
            peer: None,
            bytes: vec![],
            end: None,
            open: false,
            window,
            scale,
            sack,
            peer_scale: None,
            peer_sack: false,
            limit: 0,
            excess: 0,
        }
    }

    fn in_order(&self) -> usize {
        self.bytes.iter().take_while(|byte| byte.is_some()).count()
    }

    /// The next number that it expects.
    fn ack(&self) -> u32 {
        let in_order = self.in_order();
        let fin = usize::from(self.end == Some(in_order));
        self.peer.map_or(0, |peer| peer.wrapping_add(1 + (in_order + fin) as u32))
    }

    fn number(&self, at: usize) -> u32 {
        self.isn.wrapping_add(1 + at as u32)
    }

    fn offered_window(&self) -> u16 {
        let shift = if self.peer_scale.is_some() { self.scale.unwrap_or(0) } else { 0 };
        u16::try_from(self.window >> shift).unwrap_or(u16::MAX)
    }

    /// What came early, as a SACK option.
    fn selective(&self) -> Vec<u8> {
        let start = (self.in_order()..self.bytes.len()).find(|at| self.bytes[*at].is_some());
        let (Some(start), Some(peer), true) = (start, self.peer, self.sack && self.peer_sack) else { return vec![] };
        let end = (start..self.bytes.len()).find(|at| self.bytes[*at].is_none()).unwrap_or(self.bytes.len());
        let edge = |at: usize| peer.wrapping_add(1 + at as u32).to_be_bytes();
        [&[1, 1, 5, 10][..], &edge(start), &edge(end)].concat()
    }

    fn segment(&self, at: usize, flags: u8, payload: Vec<u8>) -> Segment {
        Segment {
            number: self.number(at),
            ack: self.ack(),
            flags,
            window: self.offered_window(),
            urgent: 0,
            options: self.selective(),
            payload,
        }
    }

    fn syn(&self, flags: u8) -> Segment {
        let mut options = vec![2, 4, (MSS >> 8) as u8, MSS as u8];
        if self.sack {
            options.extend([1, 1, 4, 2]);
        }
        // A SYN-ACK has a scale only where the SYN had one.
        if let Some(scale) = self.scale.filter(|_| flags & A == 0 || self.peer_scale.is_some()) {
            options.extend([1, 3, 3, scale]);
        }
        let window = u16::try_from(self.window).unwrap_or(u16::MAX);
        Segment { number: self.isn, ack: self.ack(), flags, window, options, ..Segment::default() }
    }

    /// Up to `len` bytes from `at` on, as far as it may send them; the FIN with or behind the last.
    fn send(&mut self, at: usize, len: usize) -> Segment {
        let most = self.data.len().min(self.limit.max(self.sent.min(self.data.len())));
        let to = (at + len.min(MSS)).min(most).max(at.min(self.data.len()));
        let from = at.min(self.data.len());
        let fin = to == self.data.len() && at <= self.data.len();
        self.sent = self.sent.max(to + usize::from(fin));
        self.segment(at, if fin { A | F } else { A }, self.data[from..to].to_vec())
    }

    /// What a Linux client sends into a closed window: nothing, one number back.
    fn probe(&self) -> Segment {
        Segment { number: self.number(self.acked).wrapping_sub(1), ..self.segment(0, A, vec![]) }
    }

    /// A SYN or SYN-ACK of the peer.
    fn learn(&mut self, segment: &Segment) {
        let mut options = &segment.options[..];
        self.peer = Some(segment.number);
        while let [kind, rest @ ..] = options {
            match (kind, rest) {
                (1, _) => options = rest,
                (2, _) => options = &options[4..],
                (3, [_, scale, ..]) => {
                    self.peer_scale = self.scale.map(|_| *scale);
                    options = &options[3..];
                }
                (4, _) => {
                    self.peer_sack = true;
                    options = &options[2..];
                }
                _ => panic!("an option {kind} that nobody agreed to"),
            }
        }
    }

    /// A segment of the open connection.
    fn take(&mut self, segment: &Segment) -> Result<(), TestCaseError> {
        let first = self.peer.expect("open").wrapping_add(1);
        let at = segment.number.wrapping_sub(first).cast_signed();
        prop_assert!((-1..1 << 20).contains(&at), "{} is far from {first}: {segment:?}", segment.number);
        prop_assert!(at >= 0 || segment.payload.is_empty());
        let at = at.max(0) as usize;
        let edge = self.in_order() + self.window as usize + self.excess + 1;
        prop_assert!(at + segment.payload.len() <= edge, "beyond the window of {}", self.window);
        for (index, byte) in segment.payload.iter().enumerate() {
            if self.bytes.len() <= at + index {
                self.bytes.resize(at + index + 1, None);
            }
            let place = &mut self.bytes[at + index];
            prop_assert!(place.is_none_or(|there| there == *byte), "the stream says two things at {}", at + index);
            *place = Some(*byte);
        }
        if segment.flags & F != 0 {
            let end = at + segment.payload.len();
            prop_assert!(self.end.is_none_or(|there| there == end));
            self.end = Some(end);
        }
        let acked = segment.ack.wrapping_sub(self.isn.wrapping_add(1)).cast_signed();
        // An old acknowledgement may come out lower by a PROXY header's length.
        prop_assert!(acked >= -52 && acked <= self.sent as i32, "told of {acked}, sent {}", self.sent);
        for edge in segment.options.get(4..).unwrap_or_default().chunks(4) {
            prop_assert!(segment.options[2] == 1 || self.sack && self.peer_sack, "nobody asked for SACK");
            if segment.options[2] == 1 {
                break;
            }
            let edge = u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]]);
            let ahead = edge.wrapping_sub(self.isn.wrapping_add(1)) as usize;
            prop_assert!(ahead <= self.sent, "told of {ahead}, sent {}", self.sent);
        }
        let acked = acked.max(0) as usize;
        if acked >= self.acked {
            self.acked = acked;
            let window = usize::from(segment.window) << self.peer_scale.unwrap_or(0);
            self.limit = self.limit.max(acked + window);
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.acked > self.data.len()
    }

    fn stream(&self) -> Vec<u8> {
        self.bytes.iter().map(|byte| byte.expect("no hole")).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// An end sends new data, or again what was not acknowledged.
    Send {
        server: bool,
        len: usize,
        again: bool,
    },
    /// An end says where it is, or (the client) probes.
    Ack {
        server: bool,
        probe: bool,
    },
    /// The client asks again.
    Syn,
    /// The oldest or newest waiting segment arrives, perhaps twice.
    Deliver {
        to_server: bool,
        newest: bool,
        twice: bool,
    },
    Lose {
        to_server: bool,
    },
    Wait {
        ms: u32,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (any::<bool>(), 0usize..600, any::<bool>()).prop_map(|(server, len, again)| Event::Send { server, len, again }),
        2 => any::<[bool; 2]>().prop_map(|[server, probe]| Event::Ack { server, probe }),
        1 => Just(Event::Syn),
        8 => any::<[bool; 3]>().prop_map(|[to_server, newest, twice]| Event::Deliver { to_server, newest, twice }),
        1 => any::<bool>().prop_map(|to_server| Event::Lose { to_server }),
        1 => (1u32..400).prop_map(|ms| Event::Wait { ms }),
    ];
    proptest::collection::vec(event, 0..150)
}

/// Both ends and the network. Segments wait on their way into the director, in a queue for each direction.
struct Net {
    line: Line,
    client: End,
    server: End,
    /// Ahead of the client's stream.
    header: usize,
    to_server: VecDeque<Vec<u8>>,
    to_client: VecDeque<Vec<u8>>,
}

impl Net {
    fn client_sends(&mut self, segment: &Segment) {
        self.to_server.push_back(frame(CLIENT_MAC, self.line.client, self.line.vip, segment));
    }

    fn server_sends(&mut self, segment: &Segment) {
        self.to_client.push_back(frame(SERVER_MAC, self.line.server, self.line.asker, segment));
    }

    /// A segment passes the director; what comes out arrives.
    fn deliver(&mut self, frame: Vec<u8>) -> Result<(), TestCaseError> {
        self.line.rig.one(frame);
        for sent in self.line.rig.io.sent(0) {
            let parsed = parse::parse(&sent).expect("sound");
            let (from, to, _) = icmp::ends(&sent, usize::from(parsed.l3)).expect("addresses");
            let port = |at: u16| parse::be16(&sent, usize::from(parsed.l4 + at)).expect("ports");
            let (from, to) = (SocketAddr::new(from, port(0)), SocketAddr::new(to, port(2)));
            let segment = Segment::read(&sent);
            if sent[..6] == CLIENT_MAC {
                prop_assert_eq!((from, to), (self.line.vip, self.line.client));
                self.at_client(&segment)?;
            } else {
                prop_assert_eq!(to, self.line.server);
                self.line.asker = from;
                self.at_server(&segment)?;
            }
        }
        Ok(())
    }

    fn at_client(&mut self, segment: &Segment) -> Result<(), TestCaseError> {
        if segment.flags & S == 0 {
            prop_assert!(self.client.open && segment.flags & R == 0, "{segment:?}");
            let before = self.client.ack();
            self.client.take(segment)?;
            if !segment.payload.is_empty() || self.client.ack() != before {
                let ack = self.client.segment(self.client.sent.min(self.client.data.len() + 1), A, vec![]);
                self.client_sends(&ack);
            }
            return Ok(());
        }
        prop_assert_eq!((segment.flags, segment.ack, segment.window), (S | A, self.client.number(0), 0));
        if !self.client.open {
            self.client.learn(segment);
            self.client.open = true;
            let ack = self.client.segment(0, A, vec![]);
            self.client_sends(&ack);
        }
        Ok(())
    }

    fn at_server(&mut self, segment: &Segment) -> Result<(), TestCaseError> {
        prop_assert!(segment.flags & R == 0, "{segment:?}");
        if segment.flags & S != 0 {
            prop_assert_eq!((segment.flags, segment.ack, segment.number), (S, 0, self.client.isn));
            if self.server.peer.is_none() {
                self.server.learn(segment);
            }
            if !self.server.open {
                let answer = self.server.syn(S | A);
                self.server_sends(&answer);
            }
            return Ok(());
        }
        prop_assert!(self.server.peer.is_some(), "{segment:?}");
        self.server.open = true;
        let before = self.server.ack();
        self.server.take(segment)?;
        if !segment.payload.is_empty() || self.server.ack() != before {
            let ack = self.server.segment(self.server.sent.min(self.server.data.len() + 1), A, vec![]);
            self.server_sends(&ack);
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Send { server, len, again } => {
                let end = if server { &mut self.server } else { &mut self.client };
                if !end.open {
                    return Ok(());
                }
                let at = if again { end.acked } else { end.sent };
                // A client that may not send yet sends nothing.
                if at <= end.data.len() && (end.limit > 0 || server) {
                    let segment = end.send(at, len);
                    if server { self.server_sends(&segment) } else { self.client_sends(&segment) }
                }
            }
            Event::Ack { server, probe } => {
                let end = if server { &self.server } else { &self.client };
                if !end.open {
                    return Ok(());
                }
                let at = end.sent.min(end.data.len() + 1);
                let segment = if probe { end.probe() } else { end.segment(at, A, vec![]) };
                if server { self.server_sends(&segment) } else { self.client_sends(&segment) }
            }
            Event::Syn => {
                let syn = self.client.syn(S);
                if !self.client.open {
                    self.client_sends(&syn);
                }
            }
            Event::Deliver { to_server, newest, twice } => {
                let queue = if to_server { &mut self.to_server } else { &mut self.to_client };
                let frame = if newest { queue.pop_back() } else { queue.pop_front() };
                if let Some(frame) = frame {
                    if twice {
                        self.deliver(frame.clone())?;
                    }
                    self.deliver(frame)?;
                }
            }
            Event::Lose { to_server } => {
                let queue = if to_server { &mut self.to_server } else { &mut self.to_client };
                queue.pop_front();
            }
            Event::Wait { ms } => self.line.rig.now += ms,
        }
        Ok(())
    }

    /// Retransmission until everything has arrived, with the old segments arriving in between.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        for round in 0..300 {
            if self.client.is_done() && self.server.is_done() {
                return Ok(());
            }
            self.line.rig.now += 250;
            if !self.client.open {
                self.step(Event::Syn)?;
            } else if self.client.limit == 0 {
                self.step(Event::Ack { server: false, probe: round % 2 == 0 })?;
            } else {
                self.step(Event::Send { server: false, len: 1 + round % 50 * 20, again: true })?;
            }
            if self.server.peer.is_some() && !self.server.open {
                let answer = self.server.syn(S | A);
                self.server_sends(&answer);
            }
            self.step(Event::Send { server: true, len: 1 + round % 50 * 20, again: true })?;
            for _ in 0..200 {
                let Some(frame) = self.to_server.pop_back().or_else(|| self.to_client.pop_back()) else { break };
                self.deliver(frame)?;
            }
        }
        prop_assert!(false, "no end: {:?} {:?}", self.client, self.server);
        Ok(())
    }
}

fn isn() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0u32..900).prop_map(|n| u32::MAX - n)]
}

fn scale() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![1 => Just(None), 3 => (0u8..15).prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]
    #[test]
    fn both_streams_arrive_byte_for_byte(
        (v6, full, proxy) in any::<(bool, bool, bool)>(),
        (client_isn, server_isn) in (isn(), isn()),
        (client_scale, server_scale) in (scale(), scale()),
        // The server's window is more than what the client's scale rounds down to nothing.
        (client_window, server_window) in (1u32..200_000, 128u32..200_000),
        (client_sack, server_sack) in any::<(bool, bool)>(),
        up in proptest::collection::vec(any::<u8>(), 0..900),
        down in proptest::collection::vec(any::<u8>(), 0..900),
        events in events(),
    ) {
        let method = if full { Method::FullNat } else { Method::Nat };
        let line = Line::new(v6, method, proxy && full);
        let header = if proxy && full { crate::dataplane::proxy::length(v6) as usize } else { 0 };
        // A window that the own scale cannot express is rounded before it is meant.
        let rounded = |window: u32, scale: Option<u8>| (window >> scale.unwrap_or(0)).max(1) << scale.unwrap_or(0);
        let client_window = rounded(client_window, client_scale);
        let server_window = rounded(server_window, server_scale);
        let mut net = Net {
            line,
            client: End::new(client_isn, &up, client_window, client_scale, client_sack),
            server: End::new(server_isn, &down, server_window, server_scale, server_sack),
            header,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
        };
        net.server.excess = header;
        for event in events {
            net.step(event)?;
        }
        net.finish()?;
        let seen = net.server.stream();
        prop_assert_eq!(&seen[net.header..], &up[..]);
        prop_assert_eq!(net.server.end, Some(up.len() + header));
        if header > 0 {
            prop_assert_eq!(&seen[..12], b"\r\n\r\n\0\r\nQUIT\n");
        }
        prop_assert_eq!(net.client.stream(), down);
        prop_assert_eq!(net.line.rig.pipeline.stats().cookies_accepted.get(), 1);
        net.line.rig.now += 2_000_000;
        net.line.rig.pipeline.sweep(&net.line.rig.snapshot, usize::MAX / 2, net.line.rig.now);
        prop_assert_eq!(net.line.rig.pipeline.holdings(), Holdings::default());
    }
}
