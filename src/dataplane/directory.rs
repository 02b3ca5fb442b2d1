//! The directory: which worker has a flow, for packets that arrive at another one.
//!
//! Owns one word for each entry of every worker's flow table: 56 bits of the key's hash and the worker's number. Read only
//! after a miss in a worker's own table, written when a flow begins and ends. Lock-free, of fixed size; never holds a
//! flow, so a wrong answer (two keys of one hash, once in 2^56) sends a frame to a worker that treats it as its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Words in a bucket: one cache line.
const WAYS: usize = 8;

/// Most workers that a directory can name.
pub const MAX_WORKERS: usize = 255;

#[derive(Debug)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// The directory of all workers.
#[derive(Debug)]
pub struct Directory {
    buckets: Box<[Bucket]>,
}

/// Why a flow is not in the directory after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another worker has it.
    Taken(u8),
    /// Both of its buckets are full.
    Full,
}

const fn word(hash: u64, worker: u8) -> u64 {
    // Workers count from 1, so that no word in use is 0.
    hash & !0xff | (worker as u64 + 1)
}

const fn owner(word: u64) -> u8 {
    (word & 0xff) as u8 - 1
}

impl Directory {
    /// A directory with room for `entries` entries, at 60 % load: fuller ones refuse some for want of room in both buckets.
    pub fn new(entries: usize) -> Directory {
        let buckets = (entries * 5).div_ceil(WAYS * 3).max(1);
        let empty = || Bucket([const { AtomicU64::new(0) }; WAYS]);
        Directory { buckets: (0..buckets).map(|_| empty()).collect() }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Whether no flow is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries in it. Looks at every word.
    pub fn len(&self) -> usize {
        self.buckets.iter().flat_map(|bucket| &bucket.0).filter(|entry| entry.load(Relaxed) != 0).count()
    }

    /// The two buckets in which a hash can lie.
    fn places(&self, hash: u64) -> [&Bucket; 2] {
        let count = self.buckets.len() as u64;
        let at = |hash: u64| &self.buckets[(((hash >> 32) * count) >> 32) as usize];
        [at(hash), at(hash << 24)]
    }

    /// The worker that has the flow of this hash.
    pub fn find(&self, hash: u64) -> Option<u8> {
        for bucket in self.places(hash) {
            for entry in &bucket.0 {
                let found = entry.load(Relaxed);
                if found != 0 && (found ^ hash) >> 8 == 0 {
                    return Some(owner(found));
                }
            }
        }
        None
    }

    /// Enters a flow of `worker`. A flow that this worker has entered already stays as it is.
    ///
    /// # Errors
    /// [`Refused`]. Two workers that enter one flow at the same moment may both succeed; then each has its own.
    pub fn insert(&self, hash: u64, worker: u8) -> Result<(), Refused> {
        match self.find(hash) {
            Some(found) if found != worker => return Err(Refused::Taken(found)),
            Some(_) => return Ok(()),
            None => {}
        }
        let places = self.places(hash);
        let room = |bucket: &Bucket| bucket.0.iter().filter(|entry| entry.load(Relaxed) == 0).count();
        let second = room(places[1]) > room(places[0]);
        for bucket in if second { [places[1], places[0]] } else { places } {
            for entry in &bucket.0 {
                if entry.compare_exchange(0, word(hash, worker), Relaxed, Relaxed).is_ok() {
                    return Ok(());
                }
            }
        }
        Err(Refused::Full)
    }

    /// Takes out a flow of `worker`; one that another worker entered stays.
    pub fn remove(&self, hash: u64, worker: u8) {
        let wanted = word(hash, worker);
        for bucket in self.places(hash) {
            for entry in &bucket.0 {
                if entry.load(Relaxed) == wanted && entry.compare_exchange(wanted, 0, Relaxed, Relaxed).is_ok() {
                    return;
                }
            }
        }
    }
}

/// A worker's place among the others.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Its own number.
    pub me: u8,
    /// How many workers there are.
    pub count: u8,
    /// The directory of all.
    pub directory: Arc<Directory>,
}

impl Peers {
    /// The other worker that has the flow of this hash, if one has.
    pub fn other(&self, hash: u64) -> Option<u8> {
        self.directory.find(hash).filter(|worker| *worker != self.me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_full_neighbourhood_is_refused_and_heals() {
        let directory = Directory::new(4);
        let hashes: Vec<u64> = (1..100u64).map(|n| n << 8).collect();
        let stored = hashes.iter().filter(|hash| directory.insert(**hash, 0).is_ok()).count();
        assert_eq!(stored, WAYS);
        assert_eq!(directory.insert(1 << 20, 1), Err(Refused::Full));
        directory.remove(hashes[0], 0);
        assert_eq!(directory.insert(1 << 20, 1), Ok(()));
    }

    #[test]
    fn it_takes_what_it_was_made_for() {
        let directory = Directory::new(100_000);
        let seeds = crate::dataplane::flow::Seeds::fixed();
        let hash = |n: u64| crate::dataplane::flow::Ident::new(n, 80, 6).hash(&seeds);
        let full = (0..100_000u64).filter(|n| directory.insert(hash(*n), (n % 7) as u8).is_err()).count();
        assert_eq!(full, 0);
        assert!((0..100_000u64).all(|n| directory.find(hash(n)) == Some((n % 7) as u8)));
        assert!(directory.bytes() <= 100_000 * 14 + 64);
    }

    #[test]
    fn workers_at_once() {
        let directory = Arc::new(Directory::new(10_000));
        std::thread::scope(|scope| {
            for worker in 0..4u8 {
                let directory = directory.clone();
                scope.spawn(move || {
                    for round in 0..20u64 {
                        for n in 0..500u64 {
                            let hash =
                                (u64::from(worker) << 40 | (n + 1) << 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) & !0xff;
                            assert_eq!(directory.insert(hash, worker), Ok(()), "{round}");
                            assert_eq!(directory.find(hash), Some(worker));
                            directory.remove(hash, worker);
                            assert_eq!(directory.find(hash), None);
                        }
                    }
                });
            }
        });
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(operations in proptest::collection::vec((0u64..40, 0u8..3, any::<bool>()), 1..300)) {
            let directory = Directory::new(200);
            let mut model: HashMap<u64, u8> = HashMap::new();
            for (key, worker, insert) in operations {
                let hash = (key + 1).wrapping_mul(0xd1b5_4a32_d192_ed03) & !0xff;
                if insert {
                    let expected = match model.get(&key) {
                        Some(other) if *other != worker => Err(Refused::Taken(*other)),
                        _ => Ok(()),
                    };
                    prop_assert_eq!(directory.insert(hash, worker), expected);
                    model.entry(key).or_insert(worker);
                } else {
                    directory.remove(hash, worker);
                    if model.get(&key) == Some(&worker) {
                        model.remove(&key);
                    }
                }
                prop_assert_eq!(directory.find(hash), model.get(&key).copied());
            }
        }
    }
}
