//! The pipeline over in-memory I/O, and everything that must hold after each batch.

use std::collections::HashMap;

use evenkeel::dataplane::checksum;
use evenkeel::dataplane::flow::Entry;
use evenkeel::dataplane::io::memory::MemoryIo;
use evenkeel::dataplane::io::{BATCH, Frame, PacketIo};
use evenkeel::dataplane::pipeline::Pipeline;
use evenkeel::dataplane::snapshot::{Snapshot, slot_of};
use evenkeel::dataplane::verdict::{DropReason, NONE, Outcome, Verdict};
use evenkeel::dataplane::worker;

use super::{MTU, OWN, Random, Site};

/// A worker without its thread.
pub struct Rig {
    pub io: MemoryIo,
    pub pipeline: Pipeline,
    pub site: Site,
    pub snapshot: Snapshot,
    pub now: u32,
    pub frames: u64,
    /// Frames that batches brought forth besides their own.
    pub extra: u64,
    /// Fragments that waited in vain.
    pub lost: u64,
    pub tally: HashMap<&'static str, u64>,
    pub digest: u64,
}

impl Rig {
    pub fn new() -> Rig {
        let mut site = Site::default();
        let snapshot = site.compile(2);
        let pipeline = site.pipeline();
        let (io, tally) = (MemoryIo::new(2, 80, 4096), HashMap::new());
        // Close to the wrap of the clock: it happens early in the test.
        Rig { io, pipeline, site, snapshot, now: u32::MAX - 60_000, frames: 0, extra: 0, lost: 0, tally, digest: 0 }
    }

    /// Runs one batch through, and checks all that must hold after it.
    pub fn batch(&mut self, frames: &[(u8, Vec<u8>)]) {
        for (port, frame) in frames {
            assert!(self.io.inject(*port, frame), "a frame of {} bytes did not fit", frame.len());
        }
        let mut batch = [Frame::default(); BATCH];
        let count = self.io.receive(&mut batch);
        assert_eq!(count, frames.len());
        let drops_before = self.drops();
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        let outcomes = &mut outcomes[..count];
        self.pipeline.process(&self.snapshot, self.io.memory(), &mut batch[..count], outcomes, self.now);
        worker::act(&mut self.io, &[], &batch[..count], outcomes);
        self.pipeline.settle(outcomes);
        self.frames += count as u64;
        let mut outcomes = outcomes.to_vec();
        outcomes.extend(self.take_extra());
        self.judge(&outcomes, drops_before);
    }

    /// Acts on what the pipeline brought forth besides the frames that it was given.
    fn take_extra(&mut self) -> Vec<Outcome> {
        let mut frames = [Frame::default(); BATCH];
        let mut outcomes = [Outcome::plain(Verdict::Pass); BATCH];
        let mut all = Vec::new();
        loop {
            let count = self.pipeline.take_extra(&mut frames, &mut outcomes);
            if count == 0 {
                return all;
            }
            worker::act(&mut self.io, &[], &frames[..count], &mut outcomes[..count]);
            self.pipeline.settle(&outcomes[..count]);
            self.extra += count as u64;
            all.extend_from_slice(&outcomes[..count]);
        }
    }

    /// What must hold after frames were acted upon.
    fn judge(&mut self, outcomes: &[Outcome], drops_before: u64) {
        self.io.service();
        let account = self.io.frames_accounted();
        assert!(account.balanced(), "{account:?}");
        assert_eq!((account.held, account.rx, account.tx), (0, 0, 0), "a frame stayed behind");

        let mut sent = [0usize; 2];
        let (mut passed, mut dropped) = (0, 0);
        for outcome in outcomes {
            let name = match outcome.verdict {
                Verdict::Tx(port) => {
                    assert!(outcome.service != NONE && outcome.server != NONE, "{outcome:?}");
                    sent[usize::from(port)] += 1;
                    "tx"
                }
                Verdict::Reply(port) => {
                    sent[usize::from(port)] += 1;
                    "reply"
                }
                Verdict::Pass => {
                    passed += 1;
                    "pass"
                }
                Verdict::Kept => "kept",
                Verdict::Hand(worker) => panic!("handed to worker {worker} where there is one"),
                Verdict::Drop(reason) => {
                    // What a full ring refuses has its flow: the client sends it again, to the same server.
                    let had_its_way = reason == DropReason::TxFull;
                    assert!(had_its_way || !outcome.new_flow, "a dropped packet made a flow: {outcome:?}");
                    dropped += 1;
                    reason.name()
                }
            };
            *self.tally.entry(name).or_default() += 1;
            self.digest = (self.digest ^ u64::from(name.as_bytes()[0]) ^ u64::from(outcome.server) << 8)
                .wrapping_mul(0x0000_0100_0000_01b3);
        }
        for port in [0, 1] {
            let frames = self.io.sent(port);
            assert_eq!(frames.len(), sent[usize::from(port)], "frames sent on port {port}");
            frames.iter().for_each(|frame| sound(frame, port));
        }
        assert_eq!(self.io.passed().len(), passed);
        // Fragments that waited in vain were frames once: each is counted again, as one that was dropped.
        let stats = self.pipeline.stats();
        let lost = stats.frames.get() - self.frames - self.extra - self.lost;
        self.lost += lost;
        assert_eq!(self.drops() - drops_before, dropped + lost, "each drop is counted once");
        let sum = [&stats.forwarded, &stats.replies, &stats.passed, &stats.handed, &stats.kept];
        let sum: u64 = sum.iter().map(|counter| counter.get()).sum();
        assert_eq!(sum + self.drops(), stats.frames.get(), "each frame has one outcome");
    }

    /// Lets time pass, and looks at `budget` buckets for flows that outlived it.
    pub fn pass_time(&mut self, milliseconds: u32, budget: usize) {
        self.now = self.now.wrapping_add(milliseconds);
        self.pipeline.sweep(&self.snapshot, budget, self.now);
        let drops_before = self.drops();
        self.pipeline.expire_fragments(&self.snapshot, self.io.memory(), self.now);
        let outcomes = self.take_extra();
        self.judge(&outcomes, drops_before);
    }

    /// Swaps the snapshot for one in which something is different.
    pub fn swap(&mut self, random: &mut Random) {
        self.site.change(random);
        // Now and then an interface is gone from the configuration while its frames still come.
        let ports = if random.one_in(10) { 1 } else { 2 };
        self.snapshot = self.site.compile(ports);
        self.compare_loads();
    }

    fn drops(&self) -> u64 {
        self.pipeline.stats().drops.iter().map(|drop| drop.get()).sum()
    }

    /// Active and inactive flows of each server as the tables have them, and as the schedulers are told.
    pub fn compare_loads(&self) {
        let mut found: HashMap<u32, (u32, u32)> = HashMap::new();
        let mut live = 0;
        let mut count = |server: u32, active: bool| {
            live += 1;
            let row = found.entry(server).or_default();
            if active { row.0 += 1 } else { row.1 += 1 }
        };
        let (v4, v6) = self.pipeline.tables();
        v4.for_each(|flow| count(flow.server(), flow.state().is_active()));
        v6.for_each(|flow| count(flow.server(), flow.state().is_active()));
        assert_eq!(live, v4.len() + v6.len(), "the tables miscount themselves");
        assert!(v4.len() <= v4.capacity() && v6.len() <= v6.capacity());
        for service in &self.snapshot.services {
            for member in &service.members {
                let loads = (member.load.active(), member.load.inactive());
                let flows = found.get(&member.id).copied().unwrap_or_default();
                assert_eq!(loads, flows, "server {} in slot {}", member.address, slot_of(member.id));
            }
        }
    }
}

/// What goes out: from this interface, to one station, no longer than the MTU, with a right IPv4 header.
fn sound(frame: &[u8], port: u8) {
    assert_eq!(frame[6..12], OWN[usize::from(port)].0, "source MAC");
    let mut l3 = 14;
    while frame[l3 - 2..l3] == [0x81, 0] || frame[l3 - 2..l3] == [0x88, 0xa8] {
        l3 += 4;
    }
    let protocol = match frame[l3 - 2..l3] {
        [0x08, 0x00] => frame[l3 + 9],
        [0x86, 0xdd] => frame[l3 + 6],
        _ => 0,
    };
    // An answer is as long as its question; what is forwarded fits the server's network.
    let forwarded = [6, 17, 132].contains(&protocol);
    assert!(!forwarded || frame.len() <= l3 + MTU as usize, "{} bytes", frame.len());
    let group = frame[0] & 1 == 1;
    match frame[l3 - 2..l3] {
        [0x08, 0x00] => {
            let header = usize::from(frame[l3] & 15) * 4;
            assert_eq!(checksum::checksum(&frame[l3..l3 + header]), 0, "IPv4 header checksum");
            assert!(frame[l3 + 8] > 0 && !group);
        }
        // An advertisement to all nodes answers a duplicate address probe.
        [0x86, 0xdd] => assert!(frame[l3 + 7] > 0 && (!group || frame[l3 + 6] == 58)),
        [0x08, 0x06] => assert!(!group),
        _ => panic!("a frame of another ethertype was sent: {frame:x?}"),
    }
}
