//! The connections of the web listener: how many there may be, and who makes room for whom.
//!
//! Owns the list. Pure: time is a parameter, and nothing is closed here but told to close.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Most connections of one address.
pub(super) const MOST_OF_ONE: usize = 128;

/// Stands for a connection whose request is being answered.
const AT_WORK: u64 = u64::MAX;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    address: IpAddr,
    /// Since when it waits for its client, milliseconds since the thread began.
    waits: AtomicU64,
    /// Tells it to end.
    pub end: Notify,
}

impl Connection {
    /// It waits for its client: for a request, or to take an answer.
    pub fn wait(&self, now: u64) {
        self.waits.store(now, Ordering::Relaxed);
    }

    /// Its client took or sent something.
    pub fn touch(&self, now: u64) {
        if self.waits.load(Ordering::Relaxed) != AT_WORK {
            self.wait(now);
        }
    }

    /// Its request is being answered.
    pub fn work(&self) {
        self.waits.store(AT_WORK, Ordering::Relaxed);
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    next: u64,
    all: BTreeMap<u64, Arc<Connection>>,
}

impl Connections {
    /// None yet, and never more than `most`.
    pub const fn new(most: usize) -> Connections {
        Connections { most, next: 0, all: BTreeMap::new() }
    }

    /// How many.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Lets one in; where there is no place, that which waited for its client longest makes room, first of the address that has
    /// most. `None`: all are at work. The flag says whether one made room.
    pub fn admit(&mut self, address: IpAddr, now: u64) -> Option<(u64, Arc<Connection>, bool)> {
        let own = self.all.values().filter(|one| one.address == address).count();
        let full = own >= MOST_OF_ONE || self.all.len() >= self.most;
        if full {
            let victim = self.victim((own >= MOST_OF_ONE).then_some(address))?;
            if let Some(gone) = self.all.remove(&victim) {
                gone.end.notify_one();
            }
        }
        let id = self.next;
        // Wraps after 2^64 connections.
        self.next += 1;
        let connection = Arc::new(Connection { address, waits: AtomicU64::new(now), end: Notify::new() });
        self.all.insert(id, Arc::clone(&connection));
        Some((id, connection, full))
    }

    fn victim(&self, of: Option<IpAddr>) -> Option<u64> {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        self.all.values().for_each(|one| *held.entry(one.address).or_default() += 1);
        let waiting = self.all.iter().filter(|(_, one)| of.is_none_or(|address| one.address == address));
        let waiting = waiting.map(|(id, one)| (id, one.address, one.waits.load(Ordering::Relaxed)));
        let waiting = waiting.filter(|(.., since)| *since != AT_WORK);
        let count = |address| held.get(&address).copied().unwrap_or_default();
        waiting.min_by_key(|(id, address, since)| (usize::MAX - count(*address), *since, **id)).map(|(id, ..)| *id)
    }

    /// One has ended.
    pub fn remove(&mut self, id: u64) {
        self.all.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn told(connection: &Connection) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(connection.end.notified()).poll(&mut context).is_ready()
    }

    #[test]
    fn who_waits_longest_makes_room() {
        let mut all = Connections::new(3);
        let mut admit = |last, now| all.admit(address(last), now);
        let (_, first, _) = admit(1, 10).expect("room");
        let (_, second, _) = admit(2, 11).expect("room");
        let (_, third, made) = admit(3, 12).expect("room");
        assert!(!made);
        first.work();
        third.touch(9);
        assert!(admit(4, 13).expect("room").2);
        assert!(told(&third) && !told(&second) && !told(&first));
        // At work it is not touched, and done it waits again.
        first.touch(1);
        second.work();
        let (_, fifth, _) = admit(5, 14).expect("room");
        assert!(!told(&first));
        fifth.work();
        assert!(admit(6, 15).is_none(), "all work");
        first.wait(20);
        assert!(admit(6, 21).is_some() && told(&first));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn who_has_many_gives_way_to_others() {
        let mut all = Connections::new(2 * MOST_OF_ONE);
        let (_, early, _) = all.admit(address(9), 0).expect("room");
        let greedy: Vec<_> = (0..300).map(|now| all.admit(address(1), now).expect("room").1).collect();
        assert_eq!(all.len(), MOST_OF_ONE + 1, "no more than its share, by its own");
        assert_eq!(greedy.iter().filter(|one| told(one)).count(), 300 - MOST_OF_ONE);
        for last in 0..=MOST_OF_ONE as u8 {
            all.admit(address(100 + last % 100), 1000).expect("room");
        }
        assert_eq!(all.len(), 2 * MOST_OF_ONE);
        assert!(!told(&early));
    }

    #[test]
    fn ends_are_noted() {
        let mut all = Connections::new(2);
        let (id, ..) = all.admit(address(1), 0).expect("room");
        all.remove(id);
        all.remove(id);
        assert_eq!(all.len(), 0);
    }
}
