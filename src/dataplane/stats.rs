//! Counters that one worker writes and anyone may read.
//!
//! Owns the memory of the counters. A worker adds with a plain load and store (it is the only writer), so counting
//! costs no locked instruction; readers see each counter whole and a little late.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::io::IoStats;
use super::verdict::DropReason;

/// Most real servers in one configuration: the number of slots.
pub const MAX_SERVERS: usize = 1 << 15;

/// A counter with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it.
    #[inline(always)]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets the value. Only the owning worker may call it.
    #[inline(always)]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What a worker counts for one real server.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServerCounters {
    /// Packets forwarded to it.
    pub packets: Counter,
    /// Bytes of those packets, from the IP header on, as IPVS counts them.
    pub bytes: Counter,
    /// Flows bound to it.
    pub connections: Counter,
    /// Packets that came from it, where they pass by (NAT).
    pub out_packets: Counter,
    /// Bytes of those packets, from the IP header on.
    pub out_bytes: Counter,
    /// TCP flows that it reset before they were established, that it left without an answer, or of which an ICMP error said
    /// that they do not reach it: of services by NAT that are checked passively. Each flow counts once.
    pub failed: Counter,
}

// Two servers' counters never share a line of the cache.
const _: () = assert!(size_of::<ServerCounters>() == 64);

/// Everything that one worker counts.
#[derive(Debug)]
pub struct WorkerStats {
    /// By slot of the server.
    pub servers: Box<[ServerCounters]>,
    /// By number of the [`DropReason`].
    pub drops: [Counter; DropReason::COUNT],
    /// Frames looked at.
    pub frames: Counter,
    /// Frames forwarded to a server.
    pub forwarded: Counter,
    /// Frames answered (ARP, ND, echo).
    pub replies: Counter,
    /// Frames left to the kernel.
    pub passed: Counter,
    /// Frames handed to the worker that has their flow.
    pub handed: Counter,
    /// Frames that other workers handed to this one.
    pub taken_over: Counter,
    /// Fragments that had to wait for their first one.
    pub kept: Counter,
    /// Packets from a server that answer no flow: the kernel's.
    pub unmatched: Counter,
    /// ICMP errors sent to clients and servers.
    pub icmp_errors: Counter,
    /// Flows that found no room in the directory: only this worker knows them.
    pub directory_full: Counter,
    /// Ports of local addresses in use.
    pub local_ports: Counter,
    /// Batches that held at least one frame.
    pub batches: Counter,
    /// Turns of the worker's loop.
    pub loops: Counter,
    /// Times that the worker slept.
    pub sleeps: Counter,
    /// Nanoseconds in loops that found frames.
    pub busy_ns: Counter,
    /// IPv4 flows in the table now.
    pub flows_v4: Counter,
    /// IPv6 flows in the table now.
    pub flows_v6: Counter,
    /// Flows of both tables that are not proven yet.
    pub unproven: Counter,
    /// Packets that were let in without state while a flood went on.
    pub stateless: Counter,
    /// Flows that were let in without a look at their client's limits: there was no room to count it.
    pub clients_full: Counter,
    /// TCP resets sent to clients whose server is gone, or whose service has none.
    pub resets: Counter,
    /// Packets whose sender was told that their service has no server, by a reset or an ICMP error. Who was not told is a
    /// drop, [`DropReason::NoServer`].
    pub refused: Counter,
    /// SYNs that were answered by a cookie.
    pub cookies_sent: Counter,
    /// Cookies that came back good.
    pub cookies_accepted: Counter,
    /// Packets that brought back none, or a bad one.
    pub cookies_refused: Counter,
    /// Flows in the table now that were opened by a cookie.
    pub cookie_flows: Counter,
    /// Flows that ended by their timeout.
    pub expired: Counter,
    /// Flows that gave way to newer ones in a full table.
    pub evicted: Counter,
    /// Generation of the snapshot in use.
    pub generation: Counter,
    /// Times that another host was seen to claim an owned address, and the last one's MAC (low 48 bits, first byte
    /// highest).
    pub conflicts: Counter,
    /// MAC of the last such host.
    pub conflict_mac: Counter,
    /// The I/O backend's counters, published a few times a second.
    pub io: IoCounters,
}

/// [`IoStats`] as counters that others may read.
#[derive(Debug, Default)]
pub struct IoCounters([Counter; 9]);

impl IoCounters {
    /// Publishes. Only the owning worker may call it.
    pub fn publish(&self, stats: &IoStats) {
        let values = [
            stats.rx_frames,
            stats.rx_bytes,
            stats.tx_frames,
            stats.tx_bytes,
            stats.tx_full,
            stats.passed,
            stats.tx_kicks,
            stats.rx_wakeups,
            stats.rx_ring_drops,
        ];
        self.0.iter().zip(values).for_each(|(counter, value)| counter.set(value));
    }

    /// The counters as they were last published.
    pub fn read(&self) -> IoStats {
        let [rx_frames, rx_bytes, tx_frames, tx_bytes, tx_full, passed, tx_kicks, rx_wakeups, rx_ring_drops] =
            [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|at: usize| self.0[at].get());
        IoStats { rx_frames, rx_bytes, tx_frames, tx_bytes, tx_full, passed, tx_kicks, rx_wakeups, rx_ring_drops }
    }
}

impl Default for WorkerStats {
    fn default() -> Self {
        WorkerStats {
            servers: (0..MAX_SERVERS).map(|_| ServerCounters::default()).collect(),
            drops: [const { Counter(AtomicU64::new(0)) }; DropReason::COUNT],
            frames: Counter::default(),
            forwarded: Counter::default(),
            replies: Counter::default(),
            passed: Counter::default(),
            handed: Counter::default(),
            taken_over: Counter::default(),
            kept: Counter::default(),
            unmatched: Counter::default(),
            icmp_errors: Counter::default(),
            directory_full: Counter::default(),
            local_ports: Counter::default(),
            batches: Counter::default(),
            loops: Counter::default(),
            sleeps: Counter::default(),
            busy_ns: Counter::default(),
            flows_v4: Counter::default(),
            flows_v6: Counter::default(),
            unproven: Counter::default(),
            stateless: Counter::default(),
            clients_full: Counter::default(),
            resets: Counter::default(),
            refused: Counter::default(),
            cookies_sent: Counter::default(),
            cookies_accepted: Counter::default(),
            cookies_refused: Counter::default(),
            cookie_flows: Counter::default(),
            expired: Counter::default(),
            evicted: Counter::default(),
            generation: Counter::default(),
            conflicts: Counter::default(),
            conflict_mac: Counter::default(),
            io: IoCounters::default(),
        }
    }
}

impl WorkerStats {
    /// Counts a drop.
    #[inline]
    pub fn count_drop(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }
}
