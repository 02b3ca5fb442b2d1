//! Local ports of full NAT, for one worker: which are in use, which rest, and which is next.
//!
//! Owns this worker's share of each local address's ports. Pure: time comes in, nothing is allocated after the start.
//! Never knows what a port is used for, so who gives one back must be the flow that took it.
//!
//! Memory: 8 1/8 bytes for each port of the share (two queues of `u16`, a `u32` for the end of its rest, a bit). 16 local
//! addresses with ports 1024 to 65535 are 1 032 192 ports and 8.4 MB over all workers, which the test
//! `a_million_ports_at_once` counts.

use crate::model::PortRange;

/// How long a port rests whose flow was cut off rather than closed, in milliseconds: the server's side may be in
/// TIME-WAIT, which is a minute where it matters (RFC 9293 asks for two segment lifetimes; Linux has 60 s).
pub const REST_MS: u32 = 60_000;

/// Most resting ports that one [`PortPool::take`] looks at. Each call takes one port, and each of those comes to rest
/// once at most, so that more than one is enough to keep up.
const WAKE: u32 = 4;

/// The ports of one local address. Both queues are rings of `capacity` places.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    free_head: u32,
    free_len: u32,
    rest_head: u32,
    rest_len: u32,
}

/// The ports of every local address that are one worker's.
#[derive(Debug)]
pub struct PortPool {
    range: PortRange,
    worker: u32,
    workers: u32,
    /// Ports of one slot.
    capacity: u32,
    slots: Vec<Slot>,
    /// Ports that can be given, longest unused first; `capacity` places for each slot.
    free: Vec<u16>,
    /// Ports that rest, first to wake first.
    rest: Vec<u16>,
    /// Since when they rest, in milliseconds.
    since: Vec<u32>,
    /// A bit for each port in use; whole words for each slot.
    used: Vec<u64>,
    /// Ports in use, over all slots.
    taken: u32,
}

impl PortPool {
    /// The ports `first`, `first + 1`, ... of `range` that are worker number `worker`'s out of `workers`, for `slots` local
    /// addresses. All are free. `workers` is not 0 and `worker` below it.
    pub fn new(slots: usize, range: PortRange, worker: u8, workers: u8) -> PortPool {
        debug_assert!(worker < workers, "worker {worker} of {workers}");
        let (worker, workers) = (u32::from(worker), u32::from(workers).max(1));
        let ports = u32::from(range.last).saturating_sub(u32::from(range.first)) + 1;
        let capacity = ports.saturating_sub(worker).div_ceil(workers);
        let places = slots * capacity as usize;
        let mut pool = PortPool {
            range,
            worker,
            workers,
            capacity,
            slots: vec![Slot::default(); slots],
            free: vec![0; places],
            rest: vec![0; places],
            since: vec![0; places],
            used: vec![0; slots * capacity.div_ceil(64) as usize],
            taken: 0,
        };
        for slot in 0..slots.min(usize::from(u16::MAX)) {
            pool.reset(slot as u16);
        }
        pool
    }

    /// Whether a port is this worker's.
    #[inline]
    pub fn share(&self, port: u16) -> bool {
        self.range.contains(port) && (u32::from(port) - u32::from(self.range.first)) % self.workers == self.worker
    }

    /// Ports of one slot, whatever becomes of them; 0 for a slot that does not exist.
    pub fn capacity(&self, slot: u16) -> u32 {
        if usize::from(slot) < self.slots.len() { self.capacity } else { 0 }
    }

    /// Ports of a slot that are in use; resting ones are not.
    pub fn in_use(&self, slot: u16) -> u32 {
        self.slots.get(usize::from(slot)).map_or(0, |slot| self.capacity - slot.free_len - slot.rest_len)
    }

    /// Ports in use over all slots.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Frees every port of a slot that gets another address. Flows of the old one must be gone: what they gave back
    /// later would be taken for what new ones took.
    pub fn reset(&mut self, slot: u16) {
        let index = usize::from(slot);
        let Some(entry) = self.slots.get_mut(index) else { return };
        *entry = Slot { free_len: self.capacity, ..Slot::default() };
        let (capacity, words) = (self.capacity as usize, self.capacity.div_ceil(64) as usize);
        let used = &mut self.used[index * words..][..words];
        self.taken -= used.iter().map(|word| word.count_ones()).sum::<u32>();
        used.fill(0);
        let first = u32::from(self.range.first) + self.worker;
        for (place, port) in (first..).step_by(self.workers as usize).take(capacity).enumerate() {
            self.free[index * capacity + place] = port as u16;
        }
    }

    /// Takes the port of a slot that was unused for longest. `now` is in milliseconds and may wrap. `None`: all are in
    /// use or rest, or there is no such slot.
    #[inline]
    pub fn take(&mut self, slot: u16, now: u32) -> Option<u16> {
        let index = usize::from(slot);
        self.wake(index, now);
        let entry = self.slots.get_mut(index)?;
        if entry.free_len == 0 {
            return None;
        }
        let base = index * self.capacity as usize;
        let port = self.free[base + entry.free_head as usize];
        entry.free_head = next(entry.free_head, self.capacity);
        entry.free_len -= 1;
        let (word, bit) = self.bit(index, port);
        self.used[word] |= bit;
        self.taken += 1;
        Some(port)
    }

    /// Gives a port back. `rest`: its flow was cut off rather than closed, and it must not be taken for [`REST_MS`];
    /// else it can be at once, but those that are free already come first. A port that is not in use stays as it is.
    #[inline]
    pub fn give(&mut self, slot: u16, port: u16, now: u32, rest: bool) {
        let index = usize::from(slot);
        if index >= self.slots.len() || !self.share(port) {
            debug_assert!(false, "port {port} of slot {slot} is not this worker's");
            return;
        }
        let (word, bit) = self.bit(index, port);
        if self.used[word] & bit == 0 {
            debug_assert!(false, "port {port} of slot {slot} was given back twice");
            return;
        }
        self.used[word] &= !bit;
        self.taken -= 1;
        let (base, capacity) = (index * self.capacity as usize, self.capacity);
        let entry = &mut self.slots[index];
        if rest {
            let at = base + place(entry.rest_head, entry.rest_len, capacity);
            self.rest[at] = port;
            self.since[at] = now;
            entry.rest_len += 1;
        } else {
            self.free[base + place(entry.free_head, entry.free_len, capacity)] = port;
            entry.free_len += 1;
        }
    }

    /// Moves ports whose rest is over to the free ones. A clock that wrapped meanwhile (49 days without a call) can
    /// only make them rest again.
    #[inline]
    fn wake(&mut self, index: usize, now: u32) {
        let Some(entry) = self.slots.get_mut(index) else { return };
        let (base, capacity) = (index * self.capacity as usize, self.capacity);
        for _ in 0..WAKE.min(entry.rest_len) {
            let at = base + entry.rest_head as usize;
            if now.wrapping_sub(self.since[at]) < REST_MS {
                return;
            }
            self.free[base + place(entry.free_head, entry.free_len, capacity)] = self.rest[at];
            entry.free_len += 1;
            entry.rest_head = next(entry.rest_head, capacity);
            entry.rest_len -= 1;
        }
    }

    /// The word and the bit of a port that is this worker's.
    #[inline]
    fn bit(&self, index: usize, port: u16) -> (usize, u64) {
        let number = (u32::from(port) - u32::from(self.range.first)) / self.workers;
        (index * self.capacity.div_ceil(64) as usize + (number / 64) as usize, 1 << (number % 64))
    }
}

/// The place behind one in a ring.
#[inline]
const fn next(at: u32, capacity: u32) -> u32 {
    if at + 1 == capacity { 0 } else { at + 1 }
}

/// The place behind a ring's last entry. A ring has as many places as there are ports, so there is one.
#[inline]
const fn place(head: u32, len: u32, capacity: u32) -> usize {
    let at = head + len;
    (if at >= capacity { at - capacity } else { at }) as usize
}

#[cfg(test)]
mod tests;
