//! The PROXY header against a model of two TCP ends, and byte by byte.

use std::collections::VecDeque;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::dataplane::io::memory::HeapMemory;
use crate::dataplane::parse::{NO_VLAN, UDP, parse, verify_transport};
use crate::dataplane::rewrite::nat::tests::Build;

const ACK: u8 = tcp_flag::ACK;
const SYN: u8 = tcp_flag::SYN;
const FIN: u8 = tcp_flag::FIN;
const RST: u8 = tcp_flag::RST;

/// A TCP segment as the model's ends see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub number: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

pub fn ends(v6: bool) -> (IpAddr, IpAddr) {
    if v6 { ([1; 16].into(), [2; 16].into()) } else { ([192, 0, 2, 1].into(), [198, 51, 100, 2].into()) }
}

impl Segment {
    pub fn frame(&self, v6: bool, tags: u8) -> Vec<u8> {
        let mut body = [self.number.to_be_bytes(), self.ack.to_be_bytes()].concat();
        body.extend([0x50 + (self.options.len() as u8 / 4 * 16), self.flags]);
        body.extend(self.window.to_be_bytes());
        body.extend([0, 0]);
        body.extend(self.urgent.to_be_bytes());
        body.extend(&self.options);
        body.extend(&self.payload);
        let (from, to) = ends(v6);
        Build {
            protocol: 6,
            source: (from, 1000),
            destination: (to, 80),
            tags,
            extra: tags,
            ttl: 64,
            body,
            unchecked: false,
        }
        .frame()
    }

    /// What a frame carries; every checksum in it must be right.
    pub fn read(frame: &[u8]) -> Segment {
        let parsed = parse(frame).expect("parses");
        assert_eq!(verify_transport(frame, &parsed), Ok(()));
        let l4 = usize::from(parsed.l4);
        let end = options::header_end(frame, &parsed).expect("a header");
        Segment {
            number: field(frame, l4, 4),
            ack: field(frame, l4, 8),
            flags: frame[l4 + 13],
            window: u16::from_be_bytes([frame[l4 + 14], frame[l4 + 15]]),
            urgent: u16::from_be_bytes([frame[l4 + 18], frame[l4 + 19]]),
            options: frame[l4 + 20..end].to_vec(),
            payload: frame[end..l4 + usize::from(parsed.l4_len)].to_vec(),
        }
    }
}

/// What the server must see first.
fn head(v6: bool) -> Vec<u8> {
    let (from, to) = ends(v6);
    let mut out = [0; 52];
    let len = header(&mut out, (from, 1000).into(), (to, 80).into()).expect("one family");
    out[..len].to_vec()
}

/// The director between the two ends.
#[derive(Debug)]
struct Director {
    memory: HeapMemory,
    v6: bool,
    tags: u8,
    isn: u32,
    progress: Progress,
}

impl Director {
    fn new(v6: bool, tags: u8, isn: u32) -> Director {
        Director { memory: HeapMemory::new(1, 4096), v6, tags, isn, progress: Progress::Unsent }
    }

    fn forward(&mut self, segment: &Segment) -> (Segment, Step) {
        let bytes = segment.frame(self.v6, self.tags);
        let mut frame = self.memory.allocate(0, bytes.len() as u32).expect("a frame");
        self.memory.bytes_mut(&frame).copy_from_slice(&bytes);
        let mut parsed = parse(&bytes).expect("parses");
        let step = client_segment(self.memory.bytes_mut(&frame), &mut parsed, self.isn, length(self.v6), self.progress);
        if step == Ok(Step::Insert) {
            let (from, to) = ends(self.v6);
            insert(&mut self.memory, &mut frame, &parsed, (from, 1000).into(), (to, 80).into()).expect("room");
            self.progress = self.progress.max(Progress::Sent);
        }
        let seen = Segment::read(self.memory.bytes(&frame));
        self.memory = HeapMemory::new(1, 4096);
        (seen, step.expect("TCP"))
    }

    fn back(&mut self, segment: &Segment) -> (Segment, Step) {
        let mut frame = segment.frame(self.v6, self.tags);
        let parsed = parse(&frame).expect("parses");
        let step = server_segment(&mut frame, &parsed, self.isn, length(self.v6), self.progress).expect("TCP");
        if step == Step::Acknowledged {
            self.progress = Progress::Acknowledged;
        }
        (Segment::read(&frame), step)
    }
}

#[test]
fn the_header_is_haproxys() {
    let mut out = [0; 52];
    let len = header(&mut out, "192.0.2.1:56324".parse().expect("v4"), "198.51.100.2:443".parse().expect("v4"));
    let text = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb";
    assert_eq!((len, &out[..28]), (Some(28), &text[..]));
    let len = header(&mut out, "[2001:db8::1]:1".parse().expect("v6"), "[2001:db8::2]:258".parse().expect("v6"));
    assert_eq!((len, &out[12..18], &out[48..]), (Some(52), &[0x21, 0x21, 0, 36, 0x20, 1][..], &[0, 1, 1, 2][..]));
    assert_eq!(header(&mut out, "1.2.3.4:1".parse().expect("v4"), "[::1]:1".parse().expect("v6")), None);
    assert_eq!((length(false), length(true)), (28, 52));
}

#[test]
fn segments_one_by_one() {
    for (v6, tags, isn) in [(false, 0, 99u32), (true, 1, u32::MAX), (false, 2, u32::MAX - 30), (true, 0, 0x7fff_ffff)] {
        let len = length(v6);
        let at = |ahead: u32| isn.wrapping_add(1).wrapping_add(ahead);
        let segment = |number, flags, payload: &[u8]| Segment {
            number,
            ack: 5,
            flags,
            payload: payload.to_vec(),
            ..Segment::default()
        };
        let mut director = Director::new(v6, tags, isn);
        let with_head = |payload: &[u8]| [head(v6), payload.to_vec()].concat();
        for (flags, number) in [(SYN, Some(isn)), (SYN | ACK, None), (SYN | RST, None), (ACK, None)] {
            let frame = segment(isn, flags, b"").frame(v6, tags);
            assert_eq!(opens(&frame, &parse(&frame).expect("parses")), number);
        }
        // A SYN keeps its number, loses Fast Open (both kinds) and its data.
        let mut syn = segment(isn, SYN, b"early data");
        syn.options = vec![2, 4, 5, 180, 34, 2, 1, 254, 4, 0xf9, 0x89, 1, 254, 4, 1, 2];
        let (seen, step) = director.forward(&syn);
        let options = vec![2, 4, 5, 180, 1, 1, 1, 1, 1, 1, 1, 1, 254, 4, 1, 2];
        assert_eq!((seen, step), (Segment { options, payload: vec![], ..syn }, Step::Untouched));
        // A reset before any header went ahead is where the server expects it.
        assert_eq!(director.forward(&segment(at(0), RST, b"")).0.number, at(0));
        // The server's answer.
        let synack =
            Segment { number: 7, ack: at(0), flags: SYN | ACK, options: vec![2, 4, 5, 180], ..Segment::default() };
        let (seen, step) = director.back(&synack);
        let mss = (1460 - len as u16).to_be_bytes();
        assert_eq!((seen.ack, &seen.options[2..], step), (at(0), &mss[..], Step::Shifted));
        // Bare ACK, data, data with FIN, FIN: each at ISN + 1.
        for (flags, payload) in [(ACK, &b""[..]), (ACK, b"hello"), (ACK | FIN, b"odd"), (ACK | FIN, b"")] {
            let (seen, step) = director.forward(&segment(at(0), flags, payload));
            assert_eq!((seen.number, seen.flags, step), (at(0), flags, Step::Insert));
            assert_eq!(seen.payload, with_head(payload));
        }
        // What is urgent stays where it was in the stream.
        let urgent = Segment { urgent: 3, ..segment(at(0), ACK | URG, b"abc") };
        assert_eq!(director.forward(&urgent).0.urgent, 3 + len as u16);
        assert_eq!(director.forward(&Segment { number: at(1), ..urgent }).0.urgent, 3);
        // Beyond, before (a keep-alive), and resets.
        assert_eq!(director.forward(&segment(at(5), ACK, b"x")).0.number, at(5 + len));
        let probe = segment(isn, ACK, b"");
        assert_eq!(director.forward(&probe), (probe.clone(), Step::Untouched));
        assert_eq!(director.forward(&segment(at(0), RST, b"")).0.number, at(len));
        assert_eq!(director.forward(&segment(at(9), RST | ACK, b"")).0.number, at(9 + len));
        // Acknowledgements on the way back: never more than the client sent.
        let back = |director: &mut Director, ack| {
            let (seen, step) = director.back(&segment(7, ACK, b"from the server").acking(ack));
            (seen.ack, step)
        };
        assert_eq!(back(&mut director, at(0)), (at(0), Step::Untouched));
        assert_eq!(back(&mut director, at(len - 1)), (at(0), Step::Shifted));
        assert_eq!(director.progress, Progress::Sent);
        assert_eq!(back(&mut director, at(len)), (at(0), Step::Acknowledged));
        assert_eq!(back(&mut director, at(len + 5)), (at(5), Step::Acknowledged));
        // From here on every number is shifted, 4 GiB later as well.
        for (number, payload) in [(at(0), &b""[..]), (isn, b""), (at(0), b"again"), (at(0x9000_0000), b"later")] {
            let (seen, step) = director.forward(&segment(number, ACK, payload));
            assert_eq!((seen.number, &seen.payload[..], step), (number.wrapping_add(len), payload, Step::Shifted));
        }
        assert_eq!(back(&mut director, at(0xa000_0000)).0, at(0xa000_0000 - len));
        assert_eq!(director.forward(&segment(at(0), RST, b"")).0.number, at(len));
        assert_eq!(director.forward(&segment(isn, SYN, b"")).0.number, isn);
        assert_eq!(director.back(&synack).0.ack, at(0));
        let reset = Segment { number: 7, ack: 0, flags: RST, ..Segment::default() };
        assert_eq!(director.back(&reset), (reset.clone(), Step::Untouched));
    }
}

impl Segment {
    fn acking(self, ack: u32) -> Segment {
        Segment { ack, ..self }
    }
}

#[test]
fn selective_acknowledgements_are_shifted_at_odd_offsets_too() {
    for (progress, expected) in [(Progress::Sent, [100, 110, 100, 120]), (Progress::Acknowledged, [100, 110, 92, 120])]
    {
        let mut director = Director::new(false, 0, 99);
        director.progress = progress;
        let mut options = vec![1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 5, 18];
        for edge in [128u32, 138, 120, 148] {
            options.extend(edge.to_be_bytes());
        }
        options.extend([0, 0, 0]);
        let (seen, _) =
            director.back(&Segment { ack: 128, flags: ACK, options: options.clone(), ..Segment::default() });
        let edges: Vec<u32> =
            seen.options[13..29].chunks(4).map(|e| u32::from_be_bytes([e[0], e[1], e[2], e[3]])).collect();
        assert_eq!((edges, &seen.options[..13]), (expected.to_vec(), &options[..13]));
        assert_eq!(seen.ack, 100);
    }
}

#[test]
fn what_has_no_room_is_left() {
    let (from, to) = ends(false);
    let (from, to): (SocketAddr, SocketAddr) = ((from, 1000).into(), (to, 80).into());
    let bytes = Segment { flags: ACK, payload: vec![7; 100], ..Segment::default() }.frame(false, 0);
    let mut memory = HeapMemory::new(1, 2048);
    let whole = memory.allocate(0, bytes.len() as u32).expect("a frame");
    memory.bytes_mut(&whole).copy_from_slice(&bytes);
    let good = parse(&bytes).expect("parses");
    let v6: SocketAddr = ([1; 16], 1).into();
    for (parsed, from, back, reason) in [
        (good, from, 0, None),
        (good, from, 228, None),
        (good, from, 229, Some(DropReason::NoHeadroom)),
        (good, v6, 0, Some(DropReason::BadTransportHeader)),
        (Parsed { part: Part::First, ..good }, from, 0, Some(DropReason::Fragment)),
        (Parsed { protocol: UDP, ..good }, from, 0, Some(DropReason::BadTransportHeader)),
        (Parsed { l4_len: 65520, ..good }, from, 0, Some(DropReason::TooBig)),
        (Parsed { l4: 33, ..good }, from, 0, Some(DropReason::BadTransportHeader)),
        (Parsed { kind: Kind::Other, ..good }, from, 0, Some(DropReason::BadTransportHeader)),
    ] {
        let mut frame = Frame { addr: whole.addr - back, ..whole };
        memory.bytes_mut(&frame).copy_from_slice(&bytes);
        let before = frame;
        let result = insert(&mut memory, &mut frame, &parsed, from, to);
        assert_eq!(result.err(), reason, "{parsed:?} {back}");
        if reason.is_some() {
            assert_eq!((frame, memory.bytes(&frame)), (before, &bytes[..]));
        } else {
            assert_eq!(Segment::read(memory.bytes(&frame)).payload.len(), 128);
            assert_eq!(frame.addr, before.addr - 28);
        }
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 1..200),
        kind in 0usize..3,
        part in 0usize..3,
        (l3, l4, l4_len) in (0u16..60, 0u16..120, 0u16..220),
        offset in 5u8..16,
        isn: u32,
        progress in 0usize..3,
    ) {
        let mut parsed = Parsed {
            kind: [Kind::Flow4, Kind::Flow6, Kind::Other][kind],
            protocol: 6,
            tcp_flags: SYN,
            part: [Part::Whole, Part::First, Part::Later][part],
            tags: 0,
            vlan: NO_VLAN,
            l3,
            l4,
            l4_len,
        };
        let progress = [Progress::Unsent, Progress::Sent, Progress::Acknowledged][progress];
        let mut memory = HeapMemory::new(1, 1024);
        let mut frame = memory.allocate(0, bytes.len() as u32).expect("a frame");
        let copy = memory.bytes_mut(&frame);
        copy.copy_from_slice(&bytes);
        if let Some(byte) = copy.get_mut(usize::from(l4) + 12) {
            *byte = offset << 4;
        }
        let _ = opens(copy, &parsed);
        let _ = client_segment(copy, &mut parsed, isn, 28, progress);
        let _ = server_segment(copy, &parsed, isn, 52, progress);
        let (from, to) = ends(kind == 1);
        let _ = insert(&mut memory, &mut frame, &parsed, (from, 1).into(), (to, 2).into());
    }
}

/// One end that receives a stream: in-order bytes, and what came early.
#[derive(Debug)]
struct Receiver {
    /// Sequence number of the stream's first byte.
    first: u32,
    bytes: Vec<Option<u8>>,
    /// Where the stream ends, once a FIN said so.
    end: Option<usize>,
}

impl Receiver {
    fn new(isn: u32) -> Receiver {
        Receiver { first: isn.wrapping_add(1), bytes: Vec::new(), end: None }
    }

    fn in_order(&self) -> usize {
        self.bytes.iter().take_while(|b| b.is_some()).count()
    }

    /// Takes a segment; a byte that came before must be the same again.
    fn take(&mut self, segment: &Segment) -> Result<(), TestCaseError> {
        let at = segment.number.wrapping_sub(self.first) as usize;
        prop_assert!(at < 1 << 20, "{} is far from {}", segment.number, self.first);
        for (index, byte) in segment.payload.iter().enumerate() {
            if self.bytes.len() <= at + index {
                self.bytes.resize(at + index + 1, None);
            }
            let place = &mut self.bytes[at + index];
            prop_assert!(place.is_none_or(|there| there == *byte), "the stream says two things at {}", at + index);
            *place = Some(*byte);
        }
        if segment.flags & FIN != 0 {
            let end = at + segment.payload.len();
            prop_assert!(self.end.is_none_or(|there| there == end));
            self.end = Some(end);
        }
        Ok(())
    }

    /// The next number that it expects, the FIN's included.
    fn ack(&self) -> u32 {
        let in_order = self.in_order();
        let fin = usize::from(self.end == Some(in_order));
        self.first.wrapping_add((in_order + fin) as u32)
    }

    /// What came early, as the edges of a SACK option.
    fn sack(&self) -> Vec<u8> {
        let start = (self.in_order()..self.bytes.len()).find(|at| self.bytes[*at].is_some());
        let Some(start) = start else { return vec![] };
        let end = (start..self.bytes.len()).find(|at| self.bytes[*at].is_none()).unwrap_or(self.bytes.len());
        let edge = |at: usize| self.first.wrapping_add(at as u32).to_be_bytes();
        [&[1, 1, 5, 10][..], &edge(start), &edge(end)].concat()
    }
}

/// What the network does next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The client sends up to so many bytes from its unacknowledged data on, or from what it never sent.
    Send {
        len: usize,
        again: bool,
    },
    /// A bare ACK of the client.
    Ack,
    /// The server says something.
    Speak,
    /// The oldest or newest waiting segment towards the server or client arrives, is lost or comes twice.
    Deliver {
        to_server: bool,
        newest: bool,
        twice: bool,
    },
    Lose {
        to_server: bool,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0usize..40, any::<bool>()).prop_map(|(len, again)| Event::Send { len, again }),
        2 => Just(Event::Ack),
        1 => Just(Event::Speak),
        6 => any::<[bool; 3]>().prop_map(|[to_server, newest, twice]| Event::Deliver { to_server, newest, twice }),
        1 => any::<bool>().prop_map(|to_server| Event::Lose { to_server }),
    ];
    proptest::collection::vec(event, 0..120)
}

/// Both ends, the director between them, and what is on the wire on its near and far side.
struct Model {
    director: Director,
    data: Vec<u8>,
    isn: u32,
    /// Bytes (and the FIN) that the client has sent, and that were acknowledged to it.
    sent: usize,
    acked: usize,
    server: Receiver,
    to_server: VecDeque<Segment>,
    to_client: VecDeque<Segment>,
    fin_alone: bool,
}

impl Model {
    fn send(&mut self, from: usize, len: usize) {
        let to = (from + len).min(self.data.len());
        let payload = self.data[from.min(to)..to].to_vec();
        // The FIN goes with the last data, or behind all of it.
        let fin = to == self.data.len() && (!self.fin_alone || payload.is_empty());
        let number = self.isn.wrapping_add(1).wrapping_add(from.min(self.data.len() + 1) as u32);
        let past = from > self.data.len();
        let segment = Segment {
            number,
            ack: 5001,
            flags: if fin && !past { ACK | FIN } else { ACK },
            payload,
            ..Segment::default()
        };
        self.sent = self.sent.max(to + usize::from(fin));
        self.to_server.push_back(segment);
    }

    fn answer(&mut self, payload: &[u8]) {
        let segment = Segment {
            number: 5001,
            ack: self.server.ack(),
            flags: ACK,
            window: 0,
            urgent: 0,
            options: self.server.sack(),
            payload: payload.to_vec(),
        };
        self.to_client.push_back(segment);
    }

    /// A segment passes the director and arrives at the server, or at the client.
    fn deliver(&mut self, to_server: bool, segment: &Segment) -> Result<(), TestCaseError> {
        if to_server {
            let (seen, _) = self.director.forward(segment);
            self.server.take(&seen)?;
            self.answer(b"");
            return Ok(());
        }
        let (seen, _) = self.director.back(segment);
        let edges = seen.options.get(4..).unwrap_or_default().chunks(4);
        let edges = edges.map(|e| u32::from_be_bytes([e[0], e[1], e[2], e[3]]));
        for number in edges {
            let ahead = number.wrapping_sub(self.isn.wrapping_add(1)) as usize;
            prop_assert!(ahead <= self.sent, "the client is told of {ahead} bytes, it sent {}", self.sent);
        }
        let ahead = seen.ack.wrapping_sub(self.isn.wrapping_add(1)).cast_signed();
        // An old acknowledgement may come out lower by the header's length, which a client takes for older still.
        prop_assert!(ahead >= -length(self.director.v6).cast_signed());
        let ahead = ahead.max(0) as usize;
        prop_assert!(ahead <= self.sent, "the client is told of {ahead} bytes, it sent {}", self.sent);
        let got = self.server.in_order().saturating_sub(length(self.director.v6) as usize);
        prop_assert!(ahead <= got + 1);
        self.acked = self.acked.max(ahead);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_server_reads_the_header_once_and_then_the_client(
        v6: bool,
        tags in 0u8..3,
        isn in prop_oneof![any::<u32>(), (0u32..200).prop_map(|n| u32::MAX - n)],
        data in proptest::collection::vec(any::<u8>(), 0..200),
        fin_alone: bool,
        server_first: bool,
        events in events(),
    ) {
        let mut model = Model {
            director: Director::new(v6, tags, isn),
            data,
            isn,
            sent: 0,
            acked: 0,
            server: Receiver::new(isn),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            fin_alone,
        };
        let bare = Segment { number: isn.wrapping_add(1), ack: 5001, flags: ACK, ..Segment::default() };
        if server_first {
            // The client only ends the handshake; the server has the header from that.
            model.deliver(true, &bare)?;
            prop_assert_eq!(model.server.in_order(), length(v6) as usize);
            model.answer(b"220 ready");
        }
        for event in events {
            match event {
                Event::Send { len, again } => {
                    let from = if again { model.acked } else { model.sent };
                    model.send(from, len);
                }
                Event::Ack => {
                    let number = isn.wrapping_add(1).wrapping_add(model.sent as u32);
                    model.to_server.push_back(Segment { number, ..bare.clone() });
                }
                Event::Speak => model.answer(b"220 ready"),
                Event::Deliver { to_server, newest, twice } => {
                    let queue = if to_server { &mut model.to_server } else { &mut model.to_client };
                    let segment = if newest { queue.pop_back() } else { queue.pop_front() };
                    let Some(segment) = segment else { continue };
                    model.deliver(to_server, &segment)?;
                    if twice {
                        model.deliver(to_server, &segment)?;
                    }
                }
                Event::Lose { to_server } => {
                    let queue = if to_server { &mut model.to_server } else { &mut model.to_client };
                    queue.pop_front();
                }
            }
        }
        // Retransmission until all is acknowledged, with the old segments arriving in between.
        let mut rounds = 0;
        while model.acked < model.data.len() + 1 {
            rounds += 1;
            prop_assert!(rounds < 400, "no end");
            model.send(model.acked, 1 + rounds % 50);
            for to_server in [true, false] {
                while let Some(segment) = if to_server { model.to_server.pop_back() } else { model.to_client.pop_back() } {
                    model.deliver(to_server, &segment)?;
                }
            }
        }
        let seen: Vec<u8> = model.server.bytes.iter().map(|b| b.expect("no hole")).collect();
        prop_assert_eq!(seen, [head(v6), model.data.clone()].concat());
        prop_assert_eq!(model.server.end, Some(model.data.len() + length(v6) as usize));
        prop_assert_eq!(model.director.progress, Progress::Acknowledged);
    }
}
