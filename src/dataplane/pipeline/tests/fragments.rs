//! Fragments through the pipeline: all of one packet reach one server, in whatever order they come, or none does and each
//! has its reason.

use super::*;
use crate::dataplane::directory::Directory;
use crate::dataplane::fragment::FOLLOWED_MS;

/// Cuts a frame without IPv4 options or IPv6 extension headers into fragments of at most `size` bytes, a multiple of 8.
fn cut(frame: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let v6 = frame[12] == 0x86;
    let l4 = if v6 { 54 } else { 34 };
    let body = &frame[l4..];
    let count = body.len().div_ceil(size);
    let pieces = body.chunks(size).enumerate();
    pieces
        .map(|(at, data)| {
            let more = at + 1 < count;
            let mut piece = frame[..l4].to_vec();
            if v6 {
                let word = (at * size) as u16 | u16::from(more);
                let next = std::mem::replace(&mut piece[20], 44);
                piece[18..20].copy_from_slice(&(data.len() as u16 + 8).to_be_bytes());
                piece.extend_from_slice(&[next, 0]);
                piece.extend_from_slice(&word.to_be_bytes());
                piece.extend_from_slice(&[7, 7]);
                piece.extend_from_slice(&id.to_be_bytes());
            } else {
                let word = (at * size / 8) as u16 | if more { 0x2000 } else { 0 };
                piece[16..18].copy_from_slice(&(20 + data.len() as u16).to_be_bytes());
                piece[18..20].copy_from_slice(&id.to_be_bytes());
                piece[20..22].copy_from_slice(&word.to_be_bytes());
                piece[24..26].fill(0);
                let check = checksum::checksum(&piece[14..34]);
                piece[24..26].copy_from_slice(&check.to_ne_bytes());
            }
            piece.extend_from_slice(data);
            piece
        })
        .collect()
}

fn udp4(source: [u8; 4], port: u16, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
    let mut out = Vec::new();
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, OWN.0).ipv4(source, VIP, 64).udp(4444, port);
    builder.write(&mut out, &payload).expect("builds");
    out
}

fn udp6(source_port: u16, len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
    let mut out = Vec::new();
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, OWN.0).ipv6(CLIENT6, VIP6, 64).udp(source_port, 53);
    builder.write(&mut out, &payload).expect("builds");
    out
}

/// Two servers each, so that fragments could go astray.
fn rig() -> Rig {
    let (v4, v6) = (IpAddr::from(VIP), IpAddr::from(VIP6));
    let two = [(1, 1), (2, 1)];
    let mut services = vec![
        service(v4, Protocol::Udp, PortRange::ANY, &two),
        service(v4, Protocol::Tcp, PortRange::single(80), &two),
        service(v6, Protocol::Udp, PortRange::ANY, &two),
        service(v4, Protocol::Sctp, PortRange::ANY, &[]),
    ];
    services[0].scheduler = Scheduler::RR;
    Rig::with(EngineSettings { flows: 1000, flows_ipv6: 1000, ..EngineSettings::default() }, services)
}

/// What became of each frame; nobody is there to take those that are handed over.
fn verdicts<'a>(decided: &'a [Outcome], done: &'a [Outcome]) -> impl Iterator<Item = Verdict> + 'a {
    decided.iter().zip(done).map(|(decided, done)| match decided.verdict {
        Verdict::Hand(worker) => Verdict::Hand(worker),
        _ => done.verdict,
    })
}

impl Rig {
    /// Takes what the last batch brought forth besides its own.
    fn extra(&mut self) -> Vec<Verdict> {
        let mut frames = [Frame::default(); BATCH];
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        let mut all = Vec::new();
        loop {
            let count = self.pipeline.take_extra(&mut frames, &mut outcomes);
            if count == 0 {
                return all;
            }
            let decided = outcomes;
            worker::act(&mut self.io, &[], &frames[..count], &mut outcomes[..count]);
            self.pipeline.settle(&outcomes[..count]);
            all.extend(verdicts(&decided[..count], &outcomes[..count]));
        }
    }

    /// Each frame in a batch of its own.
    fn each(&mut self, frames: &[Vec<u8>]) -> Vec<Verdict> {
        frames.iter().flat_map(|frame| self.run_with_extra(std::slice::from_ref(frame))).collect()
    }

    fn run_with_extra(&mut self, frames: &[Vec<u8>]) -> Vec<Verdict> {
        for frame in frames {
            assert!(self.io.inject(0, frame), "the frame fits a chunk");
        }
        let mut batch = [Frame::default(); BATCH];
        let count = self.io.receive(&mut batch);
        let mut outcomes = vec![Outcome::plain(Verdict::Pass); count];
        self.pipeline.process(&self.snapshot, self.io.memory(), &mut batch[..count], &mut outcomes, self.now);
        let decided = outcomes.clone();
        worker::act(&mut self.io, &[], &batch[..count], &mut outcomes);
        self.pipeline.settle(&outcomes);
        let mut all: Vec<Verdict> = verdicts(&decided, &outcomes).collect();
        all.extend(self.extra());
        self.sound();
        all
    }

    /// Every frame is accounted for, and each that was looked at has one outcome.
    fn sound(&self) {
        assert!(self.io.frames_accounted().balanced());
        assert_eq!(self.io.frames_accounted().held, 0, "the worker kept a frame");
        let stats = self.pipeline.stats();
        let drops: u64 = stats.drops.iter().map(|d| d.get()).sum();
        let outcomes = stats.forwarded.get()
            + stats.replies.get()
            + stats.passed.get()
            + stats.handed.get()
            + stats.kept.get()
            + drops;
        assert_eq!(outcomes, stats.frames.get());
    }

    fn expire(&mut self) -> Vec<Verdict> {
        while self.pipeline.fragments_are_due(self.now) {
            let waiting = self.pipeline.kit.fragments.waiting();
            let followed = self.pipeline.kit.fragments.len();
            self.pipeline.expire_fragments(&self.snapshot, self.io.memory(), self.now);
            assert!((self.pipeline.kit.fragments.waiting(), self.pipeline.kit.fragments.len()) != (waiting, followed));
        }
        let all = self.extra();
        self.sound();
        all
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.pipeline.stats().drops[reason as usize].get()
    }
}

/// Puts what was sent together again: the MACs that the pieces had, and the packet's body in the order of arrival.
fn reassembled(mut sent: Vec<Vec<u8>>) -> (Vec<u8>, Vec<u8>) {
    let mut macs: Vec<u8> = sent.iter().map(|frame| mac_of(frame)).collect();
    macs.sort_unstable();
    macs.dedup();
    let start = |frame: &Vec<u8>| {
        let fragment = parse::fragment_of(frame, &parse::parse(frame).expect("parses")).expect("a fragment");
        (fragment.start, fragment.end - fragment.start)
    };
    sent.sort_by_key(|frame| start(frame).0);
    let body = sent.iter().flat_map(|frame| frame[frame.len() - usize::from(start(frame).1)..].to_vec()).collect();
    (macs, body)
}

/// All orders of four.
fn orders() -> Vec<Vec<usize>> {
    let mut all = vec![vec![]];
    for n in 0..4 {
        all = all
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..=order.len()).map(move |at| {
                    let mut next = order.clone();
                    next.insert(at, n);
                    next
                })
            })
            .collect();
    }
    assert_eq!(all.len(), 24);
    all
}

#[test]
fn four_fragments_in_any_order_reach_one_server() {
    for (at, order) in orders().into_iter().enumerate() {
        for together in [false, true] {
            let mut rig = rig();
            for (number, frame) in
                [udp4(CLIENT, 5000, 117), udp6(4000, 117), udp4([198, 51, 100, 9], 53, 117)].into_iter().enumerate()
            {
                let (l4, v6) = (if frame[12] == 0x86 { 54 } else { 34 }, frame[12] == 0x86);
                let pieces = cut(&frame, number as u16 + at as u16, 32);
                assert_eq!(pieces.len(), 4);
                let mixed: Vec<Vec<u8>> = order.iter().map(|n| pieces[*n].clone()).collect();
                let verdicts = if together { rig.run_with_extra(&mixed) } else { rig.each(&mixed) };
                let sent = verdicts.iter().filter(|v| matches!(v, Verdict::Tx(0))).count();
                let kept = order.iter().position(|n| *n == 0).expect("the first");
                assert_eq!((sent, verdicts.len()), (4, 4 + kept), "{order:?}: {verdicts:?}");
                let sent = rig.io.sent(0);
                for frame in &sent {
                    assert!(frame[if v6 { 21 } else { 22 }] == 63 && frame[6..12] == OWN.0);
                    assert!(v6 || checksum::checksum(&frame[14..34]) == 0);
                }
                let (macs, body) = reassembled(sent);
                assert_eq!((macs.len(), body), (1, frame[l4..].to_vec()), "{order:?}");
                assert!(rig.pipeline.kit.fragments.is_empty(), "a packet that is whole is forgotten");
            }
            assert_eq!((rig.pipeline.tables().0.len(), rig.pipeline.tables().1.len()), (2, 1));
        }
    }
}

#[test]
fn the_flow_is_that_of_the_packets_that_are_whole() {
    let mut rig = rig();
    for n in 0..6 {
        let whole = rig.one(udp4([198, 51, 100, n], 5000, 10));
        let before = mac_of(&rig.sent());
        let pieces = cut(&udp4([198, 51, 100, n], 5000, 1000), 1, 256);
        assert_eq!(rig.each(&pieces), [whole.verdict; 4]);
        assert!(rig.io.sent(0).iter().all(|frame| mac_of(frame) == before));
    }
    assert_eq!(rig.pipeline.tables().0.len(), 6);
    // A later fragment changes no TCP state, whatever lies where the flags would be.
    rig.one(tcp(9, 80, S, b""));
    rig.one(tcp(9, 80, A, b""));
    rig.io.sent(0);
    let active = |rig: &Rig| rig.counts(1).iter().map(|(active, _)| active).sum::<u32>();
    assert_eq!(active(&rig), 1);
    let pieces = cut(&tcp(9, 80, A, &[0xff; 100]), 2, 40);
    assert_eq!(rig.each(&pieces), [Verdict::Tx(0); 3]);
    assert_eq!(active(&rig), 1);
    let pieces = cut(&tcp(9, 80, F | A, &[0; 100]), 3, 40);
    assert_eq!(rig.each(&pieces), [Verdict::Tx(0); 3]);
    assert_eq!(active(&rig), 0, "the first one does");
}

#[test]
fn what_becomes_of_the_first_becomes_of_all() {
    use DropReason::{BadTcpFlags, MartianSource, NoServer, OwnSource, TtlExpired};
    let low_ttl = |mut frame: Vec<u8>| {
        frame[22] = 1;
        frame
    };
    let mut with_sctp = udp4(CLIENT, 1, 76);
    with_sctp[23] = 132;
    let rows = [
        (cut(&udp4([127, 0, 0, 1], 5000, 90), 1, 32), MartianSource),
        (cut(&udp4(VIP, 5000, 90), 1, 32), OwnSource),
        (cut(&low_ttl(udp4(CLIENT, 5000, 90)), 1, 32), TtlExpired),
        (cut(&tcp(1, 80, S | F, &[0; 80]), 1, 32), BadTcpFlags),
        (cut(&with_sctp, 1, 32), NoServer),
    ];
    for (pieces, reason) in rows {
        for reverse in [false, true] {
            let mut rig = rig();
            let mut pieces = pieces.clone();
            if reverse {
                pieces.reverse();
            }
            let verdicts = rig.each(&pieces);
            let expected = |v: &Verdict| *v == Verdict::Drop(reason) || (reverse && *v == Verdict::Kept);
            assert!(verdicts.iter().all(expected), "{reason:?}: {verdicts:?}");
            assert_eq!(rig.dropped(reason), pieces.len() as u64, "{reason:?}");
            assert!(rig.pipeline.tables().0.is_empty() && rig.pipeline.kit.fragments.is_empty());
        }
    }
    // The kernel's: another port of the address.
    for reverse in [false, true] {
        let mut rig = rig();
        let mut pieces = cut(&tcp(1, 22, S, &[3; 80]), 1, 32);
        if reverse {
            pieces.reverse();
        }
        rig.each(&pieces);
        let mut passed = rig.io.passed();
        passed.sort();
        pieces.sort();
        assert_eq!(passed, pieces, "as they came");
        assert!(rig.pipeline.kit.fragments.is_empty());
    }
}

#[test]
fn each_bad_fragment_has_its_reason() {
    use DropReason::{Fragment, FragmentOverlap, FragmentTiny, Loop, WrongMac};
    let pieces = cut(&udp4(CLIENT, 5000, 120), 1, 32);
    let mut overlapping = cut(&udp4(CLIENT, 5000, 120), 1, 24)[1].clone();
    overlapping[54] ^= 1;
    let change = |mut frame: Vec<u8>, at: usize, with: &[u8]| {
        frame[at..at + with.len()].copy_from_slice(with);
        frame[24..26].fill(0);
        let check = checksum::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
        frame
    };
    let (first, later) = (pieces[0].clone(), pieces[1].clone());
    let rows: Vec<(Vec<Vec<u8>>, DropReason)> = vec![
        (vec![cut(&tcp(1, 80, S, b""), 1, 16)[0].clone()], FragmentTiny),
        (vec![cut(&tcp(1, 80, S, b""), 1, 8)[1].clone()], FragmentTiny),
        (vec![change(first.clone(), 23, &[1])], Fragment),
        (vec![change(later.clone(), 23, &[1])], Fragment),
        (vec![change(later.clone(), 23, &[47])], Fragment),
        (vec![first.clone(), later.clone(), later.clone()], FragmentOverlap),
        (vec![first.clone(), first.clone()], FragmentOverlap),
        (vec![first.clone(), later.clone(), overlapping.clone()], FragmentOverlap),
        (vec![first.clone(), later.clone(), overlapping.clone(), pieces[3].clone()], FragmentOverlap),
        (vec![change(later.clone(), 5, &[9])], WrongMac),
        (vec![change(later.clone(), 6, &OWN.0)], Loop),
    ];
    for (frames, reason) in rows {
        let mut rig = rig();
        assert_eq!(rig.each(&frames).last(), Some(&Verdict::Drop(reason)));
    }
    // A duplicate does no harm, an overlap does, to what waits too.
    let mut rig = rig();
    rig.each(&[later.clone(), later.clone(), first.clone(), pieces[2].clone(), pieces[3].clone()]);
    assert_eq!((rig.io.sent(0).len(), rig.dropped(FragmentOverlap)), (4, 1));
    rig.each(&[later, overlapping, first, pieces[2].clone()]);
    assert_eq!((rig.io.sent(0).len(), rig.dropped(FragmentOverlap)), (0, 1 + 4));
}

#[test]
fn waiting_ends_in_time_for_the_owned_and_for_the_others() {
    let mut rig = rig();
    let pieces = cut(&udp4(CLIENT, 5000, 120), 1, 32);
    let mut others = cut(&udp4(CLIENT, 5000, 120), 1, 32);
    for frame in &mut others {
        frame[30..34].copy_from_slice(&[203, 0, 113, 5]);
        frame[24..26].fill(0);
        let check = checksum::checksum(&frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
    }
    assert_eq!(rig.each(&[pieces[1].clone(), pieces[3].clone(), others[1].clone()]), [Verdict::Kept; 3]);
    rig.now += 999;
    assert!(rig.expire().is_empty());
    rig.now += 1;
    assert_eq!(rig.expire(), [Verdict::Pass]);
    assert_eq!(rig.io.passed(), [others[1].clone()]);
    assert_eq!(rig.dropped(DropReason::FragmentTimeout), 2);
    // What comes of the other's packet later is the kernel's at once; so is its first fragment.
    assert_eq!(rig.each(&[others[2].clone(), others[0].clone()]), [Verdict::Pass; 2]);
    rig.now += FOLLOWED_MS;
    rig.expire();
    assert!(rig.pipeline.kit.fragments.is_empty());
}

#[test]
fn rooms_that_are_full() {
    let settings = EngineSettings { fragments: 2, fragments_waiting: 8, flows: 100, ..EngineSettings::default() };
    let services = rig().snapshot.services.iter().map(|s| (*s.config).clone()).collect();
    let mut rig = Rig::with(settings, services);
    let packet = |n: u8| cut(&udp4([198, 51, 100, n], 5000, 1000), 1, 64);
    // Nine that wait are too many of one packet: all of it is dropped, and its room is free again.
    let verdicts = rig.each(&packet(1)[1..11]);
    assert_eq!(verdicts[..8], [Verdict::Kept; 8]);
    assert_eq!(verdicts[8..], [Verdict::Drop(DropReason::FragmentLimit); 2]);
    assert_eq!(rig.dropped(DropReason::FragmentLimit), 10);
    assert_eq!(rig.each(&packet(2)[1..5]), [Verdict::Kept; 4]);
    // The table is full; after a second the oldest gives way.
    assert_eq!(rig.each(&packet(3)[..1]), [Verdict::Drop(DropReason::FragmentLimit)]);
    rig.now += 1001;
    assert_eq!(rig.each(&packet(3)[..2]), [Verdict::Tx(0); 2]);
    // Without a free frame there is none to release into.
    let mut rig = self::rig();
    rig.io = MemoryIo::new(2, 1, 4096);
    let pieces = cut(&udp4(CLIENT, 5000, 120), 1, 32);
    assert_eq!(rig.each(&pieces[1..]), [Verdict::Kept; 3]);
    assert_eq!(rig.each(&pieces[..1]), [Verdict::Tx(0)]);
    assert_eq!(rig.dropped(DropReason::NoFrame), 3);
}

#[test]
fn the_fragments_of_a_removed_server_go_nowhere() {
    let mut rig = rig();
    let pieces = cut(&udp4(CLIENT, 5000, 120), 1, 32);
    assert_eq!(rig.each(&pieces[..2]), [Verdict::Tx(0); 2]);
    let gone = mac_of(&rig.io.sent(0)[0]);
    let mut services: Vec<Service> = rig.snapshot.services.iter().map(|s| (*s.config).clone()).collect();
    services[0].servers.retain(|s| s.address != IpAddr::from([10, 0, 0, gone]));
    rig.swap(services);
    assert_eq!(rig.each(&pieces[2..]), [Verdict::Drop(DropReason::ServerGone); 2]);
    // The next packet's first one is answered, and the flow ends.
    let next = cut(&udp4(CLIENT, 5000, 120), 2, 32);
    assert_eq!(rig.each(&next[..1]), [Verdict::Reply(0)]);
    assert_eq!(rig.each(&next[1..]), [Verdict::Drop(DropReason::Fragment); 3]);
    assert!(rig.pipeline.tables().0.is_empty());
}

#[test]
fn options_behind_the_fragment_header_are_the_first_ones_alone() {
    let whole = udp6(4000, 72);
    let body = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &whole[54..]].concat();
    let mut frame = whole[..54].to_vec();
    frame[20] = 60;
    frame.extend_from_slice(&body);
    let pieces = cut(&frame, 9, 32);
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut rig = rig();
        rig.each(&order.map(|n: usize| pieces[n].clone()));
        let (macs, sent) = reassembled(rig.io.sent(0));
        assert_eq!((macs.len(), sent), (1, body.clone()));
    }
}

#[test]
fn one_worker_follows_all_fragments_of_a_packet() {
    let directory = Arc::new(Directory::new(1000));
    let mut rigs = [rig(), rig(), rig()];
    for (me, rig) in rigs.iter_mut().enumerate() {
        rig.pipeline.join(Peers { me: me as u8, count: 3, directory: directory.clone() });
    }
    let mut seen = [0; 3];
    for id in 0..60 {
        // A client each: no flow is another worker's.
        let pieces = cut(&udp4([198, 51, 100, id as u8], 5000, 120), id, 32);
        let mut owners: Vec<u8> = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            let me = (usize::from(id) + at) % 3;
            match rigs[me].run_with_extra(std::slice::from_ref(piece))[0] {
                Verdict::Hand(owner) => {
                    assert_ne!(usize::from(owner), me);
                    owners.push(owner);
                }
                _ => owners.push(me as u8),
            }
        }
        assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
        seen[usize::from(owners[0])] += 1;
    }
    assert!(seen.iter().all(|count| *count > 8), "{seen:?}");
    // A frame that another worker sent is not sent on; one with its ports known belongs to a flow of this worker.
    let rig = &mut rigs[0];
    rig.now += FOLLOWED_MS;
    rig.expire();
    let pieces = cut(&udp4(CLIENT, 5000, 120), 999, 32);
    for (hint, kept) in [(0, true), (u32::from_ne_bytes([0x11, 0x5c, 0x13, 0x88]), false)] {
        assert!(rig.io.inject(0, &pieces[1]));
        let mut batch = [Frame::default(); 1];
        rig.io.receive(&mut batch);
        (batch[0].hops, batch[0].hint) = (1, hint);
        let mut outcomes = [Outcome::plain(Verdict::Pass)];
        rig.pipeline.process(&rig.snapshot, rig.io.memory(), &mut batch, &mut outcomes, rig.now);
        assert_eq!(outcomes[0].verdict == Verdict::Kept, kept, "{outcomes:?}");
        worker::act(&mut rig.io, &[], &batch, &mut outcomes);
        rig.pipeline.settle(&outcomes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Packets of several clients, cut at random and mixed: each arrives whole, at one server.
    #[test]
    fn cut_and_mixed_packets_arrive_whole(
        packets in proptest::collection::vec((8usize..1400, 1usize..40, any::<bool>()), 1..6),
        order in proptest::collection::vec(any::<u32>(), 600),
        batch in 1usize..BATCH,
    ) {
        let mut rig = rig();
        rig.io = MemoryIo::new(2, 512, 4096);
        let mut all = Vec::new();
        let mut bodies = Vec::new();
        for (n, (len, units, v6)) in packets.into_iter().enumerate() {
            let size = (units * 8).max(len.div_ceil(40).next_multiple_of(8));
            let frame = if v6 { udp6(4000, len) } else { udp4([198, 51, 100, 1], 5000, len) };
            let body = frame[if v6 { 54 } else { 34 }..].to_vec();
            if body.len() > size {
                all.extend(cut(&frame, n as u16, size));
                bodies.push((n as u16, body));
            }
        }
        let mut keys = order.into_iter().cycle();
        let mut mixed: Vec<(u32, Vec<u8>)> = all.into_iter().map(|f| (keys.next().expect("endless"), f)).collect();
        mixed.sort();
        let mixed: Vec<Vec<u8>> = mixed.into_iter().map(|(_, frame)| frame).collect();
        for frames in mixed.chunks(batch) {
            rig.run_with_extra(frames);
        }
        let sent = rig.io.sent(0);
        for (n, body) in bodies {
            let id = |frame: &Vec<u8>| parse::fragment_of(frame, &parse::parse(frame).expect("parses")).map(|f| f.id.id & 0xffff);
            let mine: Vec<Vec<u8>> = sent.iter().filter(|frame| id(frame) == Some(u32::from(n))).cloned().collect();
            let (macs, found) = reassembled(mine);
            prop_assert_eq!((macs.len(), found), (1, body));
        }
        prop_assert!(rig.pipeline.kit.fragments.is_empty() && rig.pipeline.kit.fragments.waiting() == 0);
    }
}
