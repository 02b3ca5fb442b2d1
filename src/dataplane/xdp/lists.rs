//! The access lists in the maps of one filter.
//!
//! Owns the maps and the order in which a change reaches them. Never decides what the lists say: it copies the parts of an
//! [`access::Table`] that differ from the one before.
//!
//! **A change judges each client by the old lists, then by the new ones, and by nothing else in between**, although the
//! program runs all the while and a change is many steps. A client that both allow is never refused, one that both deny
//! never let in. An IPv4 cell is written at once, with 31 others, and a block replaced at once. With IPv6 several prefixes
//! of different lengths have a say in one client: what is new or different is written from the longest to the shortest,
//! the cells being the shortest, then what is gone is removed from the shortest to the longest. So whichever of a client's
//! two prefixes is longer covers the change of the other. What only says where to look (the summary, [`CLOSER`]) has both
//! lists' bits as long as the change lasts: to look in vain does no harm.

mod batch;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key as LongKey, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use memmap2::{MmapOptions, MmapRaw};

use super::errno;
use crate::dataplane::access::{Block, CLOSER, Long, Table, WORDS};
use crate::model::Judgement;

/// In a cell's word: the bits [`CLOSER`] of all its cells.
const ALL_CLOSER: u64 = 0x5555_5555_5555_5555 * CLOSER;

/// The words of `access` in `filter.c`, in place.
struct Words {
    memory: MmapRaw,
    // Mapped as long as it is there.
    _map: MapData,
}

impl Words {
    const COUNT: usize = 3 * WORDS;

    fn new(map: MapData) -> std::io::Result<Words> {
        let memory = MmapOptions::new().len(Self::COUNT * 8).map_raw(map.fd().as_fd().as_raw_fd())?;
        Ok(Words { memory, _map: map })
    }

    fn part(&self, part: Part) -> &[AtomicU64] {
        // SAFETY: the mapping has `COUNT` words (the kernel refuses to map more than the map has), begins at a page, and
        // lives as long as `self`; the kernel side reads whole words, and nobody writes but through these atomics.
        let all = unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast::<AtomicU64>(), Self::COUNT) };
        &all[part as usize * WORDS..][..WORDS]
    }
}

/// Parts of the words, in their order in the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Cells4 = 0,
    Cells6 = 1,
    Summary = 2,
}

/// The lists of one filter.
pub(super) struct Lists {
    words: Words,
    blocks: HashMap<MapData, u32, Block>,
    prefixes: LpmTrie<MapData, [u8; 16], u32>,
    /// The last two once more, for many elements at once.
    whole: [OwnedFd; 2],
    table: Arc<Table>,
}

/// A map's name and what went wrong with it.
pub(super) type Failure = (&'static str, MapError);

fn word(words: &[u64], index: usize) -> u64 {
    words.get(index).copied().unwrap_or(0)
}

fn long_key((length, address, _): &Long) -> LongKey<[u8; 16]> {
    LongKey::new(u32::from(*length), address.to_be_bytes())
}

/// A descriptor of its own for a map.
fn fd_of(name: &'static str, map: &Map) -> Result<OwnedFd, Failure> {
    let (Map::HashMap(data) | Map::LpmTrie(data)) = map else {
        return Err((name, MapError::InvalidName { name: name.to_owned() }));
    };
    data.fd().as_fd().try_clone_to_owned().map_err(|error| (name, MapError::IoError(error)))
}

impl Lists {
    /// The maps of a loaded object: they say that everybody is admitted.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Lists, Failure> {
        let mut take = |name: &'static str| {
            ebpf.take_map(name).ok_or_else(|| (name, MapError::InvalidName { name: name.to_owned() }))
        };
        let Map::Array(words) = take("access")? else {
            return Err(("access", MapError::InvalidName { name: "access".to_owned() }));
        };
        let words = Words::new(words).map_err(|error| ("access", MapError::IoError(error)))?;
        let (blocks, prefixes) = (take("blocks")?, take("prefixes")?);
        let whole = [fd_of("blocks", &blocks)?, fd_of("prefixes", &prefixes)?];
        let blocks = HashMap::try_from(blocks).map_err(|error| ("blocks", error))?;
        let prefixes = LpmTrie::try_from(prefixes).map_err(|error| ("prefixes", error))?;
        Ok(Lists { words, blocks, prefixes, whole, table: Arc::default() })
    }

    /// What they say now.
    pub(super) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Makes the maps say what `new` says. A failure leaves them as they were.
    pub(super) fn set(&mut self, new: &Arc<Table>) -> Result<(), Failure> {
        if Arc::ptr_eq(&self.table, new) {
            return Ok(());
        }
        let old = Arc::clone(&self.table);
        if let Err(failure) = change(self, &old, new) {
            // Each key says what one of them says: the way back covers all that differ. It asks for less room.
            if let Err((map, error)) = change(self, new, &old) {
                tracing::error!("access lists: neither the new ones nor the old ones fit the filter: {map}: {error}");
            }
            return Err(failure);
        }
        self.table = Arc::clone(new);
        Ok(())
    }
}

/// Where a change goes, step by step.
trait Maps {
    fn load(&self, part: Part, index: usize) -> u64;
    fn store(&mut self, part: Part, index: usize, word: u64);
    fn put_blocks(&mut self, leading: &[u32], blocks: &[Block]) -> Result<(), Failure>;
    fn take_block(&mut self, leading: u32) -> Result<(), Failure>;
    /// In their order.
    fn put_longs(&mut self, long: &[Long]) -> Result<(), Failure>;
    fn take_long(&mut self, long: &Long) -> Result<(), Failure>;
}

impl Maps for Lists {
    fn load(&self, part: Part, index: usize) -> u64 {
        self.words.part(part)[index].load(Ordering::Relaxed)
    }

    fn store(&mut self, part: Part, index: usize, word: u64) {
        self.words.part(part)[index].store(word, Ordering::Release);
    }

    fn put_blocks(&mut self, leading: &[u32], blocks: &[Block]) -> Result<(), Failure> {
        batch::update(self.whole[0].as_fd(), leading, blocks).map_err(|error| ("blocks", MapError::IoError(error)))
    }

    fn take_block(&mut self, leading: u32) -> Result<(), Failure> {
        gone(self.blocks.remove(&leading)).map_err(|error| ("blocks", error))
    }

    fn put_longs(&mut self, long: &[Long]) -> Result<(), Failure> {
        let keys: Vec<LongKey<[u8; 16]>> = long.iter().map(long_key).collect();
        let says: Vec<u32> = long.iter().map(|long| u32::from(long.2 == Judgement::Deny)).collect();
        batch::update(self.whole[1].as_fd(), &keys, &says).map_err(|error| ("prefixes", MapError::IoError(error)))
    }

    fn take_long(&mut self, long: &Long) -> Result<(), Failure> {
        gone(self.prefixes.remove(&long_key(long))).map_err(|error| ("prefixes", error))
    }
}

/// Makes each word what `new` says from the one that it is. Words that stay are not touched.
fn write(maps: &mut impl Maps, part: Part, new: impl Fn(u64, usize) -> u64) {
    for index in 0..WORDS {
        let now = maps.load(part, index);
        let new = new(now, index);
        if new != now {
            maps.store(part, index, new);
        }
    }
}

/// Makes the maps say what `new` says, where they say what `old` says or some of what `new` says already.
fn change(maps: &mut impl Maps, old: &Table, new: &Table) -> Result<(), Failure> {
    // Where to look: more than enough. A block that no cell leads to yet says nothing.
    write(maps, Part::Summary, |now, index| now | word(new.summary(), index));
    write(maps, Part::Cells6, |now, index| now | word(new.cells6(), index) & ALL_CLOSER);
    let different = new.blocks().filter(|(leading, block)| old.block(*leading) != Some(*block));
    let (leading, blocks): (Vec<u32>, Vec<Block>) = different.map(|(leading, block)| (leading, *block)).unzip();
    maps.put_blocks(&leading, &blocks)?;
    let says = |table: &Table, long: &Long| table.long_says(long.0, long.1);
    let longest_first = new.long().iter().rev().filter(|long| says(old, long) != Some(long.2));
    maps.put_longs(&longest_first.copied().collect::<Vec<_>>())?;
    // The cells themselves.
    write(maps, Part::Cells4, |_, index| word(new.cells4(), index));
    write(maps, Part::Cells6, |now, index| word(new.cells6(), index) | now & ALL_CLOSER);
    // What nothing leads to any more.
    for (leading, _) in old.blocks().filter(|(leading, _)| new.block(*leading).is_none()) {
        maps.take_block(leading)?;
    }
    for long in old.long().iter().filter(|long| says(new, long).is_none()) {
        maps.take_long(long)?;
    }
    write(maps, Part::Cells6, |_, index| word(new.cells6(), index));
    write(maps, Part::Summary, |_, index| word(new.summary(), index));
    Ok(())
}

/// On the way back from a failure some of what goes was never there.
fn gone(done: Result<(), MapError>) -> Result<(), MapError> {
    match done {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
