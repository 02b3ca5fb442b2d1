//! Access lists as the data plane asks them: whether a client's address is denied, by the longest prefix that has it.
//!
//! Pure. Owns the image that the XDP filter's maps hold too ([`super::xdp`] writes it there, and `filter.c` reads it in
//! the same way), so that an address costs the same few loads in both:
//!
//! - A **cell** of two bits for every /24 of IPv4, and for the leading 24 bits of IPv6: what prefixes up to /24 and the
//!   default say, and whether there are longer ones inside ([`CLOSER`]). Most packets end here.
//! - IPv4: a **block** for each /24 with longer prefixes: one bit for each of its addresses.
//! - IPv6: a **summary**, a Bloom filter that says where there are no longer prefixes, so that most clients never come to
//!   the tree of prefixes. In user space that tree is a sorted list of the places where the answer changes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Access, Judgement};

/// In a cell: denied, as far as prefixes up to /24 and the default say.
pub const DENIED: u64 = 1;
/// In a cell: there are longer prefixes inside.
pub const CLOSER: u64 = 2;
/// Words of 64 bits with the cells of one family, and of the summary.
pub const WORDS: usize = 1 << 19;
/// Most /24 networks of IPv4 with longer prefixes inside (`blocks` in `filter.c`).
pub const MAX_BLOCKS: usize = 1 << 19;
/// Most IPv6 prefixes longer than /24 (`prefixes` in `filter.c`).
pub const MAX_LONG: usize = 1 << 20;
/// Most prefixes of all lists together.
pub const MAX_PREFIXES: usize = 1 << 20;

const CELL_BITS: u8 = 24;
const DENIED_CELLS: u64 = 0x5555_5555_5555_5555;

/// The addresses of a /24, one bit each: 1 is denied. Address 0 is the lowest bit of the first word.
pub type Block = [u64; 4];

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// An IPv6 prefix longer than /24: its length, its first address, what it says.
pub type Long = (u8, u128, Judgement);

/// Access lists, ready to be asked. Without cells nobody is denied.
#[derive(Debug, Default)]
pub struct Table {
    lists: Arc<Access>,
    cells4: Vec<u64>,
    blocks: Map<u32, Block>,
    cells6: Vec<u64>,
    summary: Vec<u64>,
    long: Vec<Long>,
    /// IPv6: where the answer changes, in order, with the answer from there on. Begins with 0 if there is anything.
    turns: Vec<(u128, bool)>,
}

/// The cell of the leading 24 bits of an address.
#[inline(always)]
fn cell(cells: &[u64], leading: u32) -> u64 {
    cells.get((leading >> 5) as usize).map_or(0, |word| word >> ((leading & 31) * 2) & 3)
}

fn set_cell(cells: &mut [u64], leading: u32, value: u64) {
    let shift = (leading & 31) * 2;
    let word = &mut cells[(leading >> 5) as usize];
    *word = *word & !(3 << shift) | value << shift;
}

/// Writes what a prefix of up to 24 bits says into the cells that it covers; nothing looks closer yet.
fn paint(cells: &mut [u64], leading: u32, length: u8, judgement: Judgement) {
    let denied = judgement == Judgement::Deny;
    let count = 1usize << (CELL_BITS - length);
    if count >= 32 {
        let first = (leading >> 5) as usize;
        cells[first..first + count / 32].fill(if denied { DENIED_CELLS } else { 0 });
    } else {
        for at in leading..leading + count as u32 {
            set_cell(cells, at, u64::from(denied));
        }
    }
}

/// Where the summary has its two bits for a value: `summary_word` of `filter.c`.
fn probes(value: u64) -> [u32; 2] {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = value.wrapping_mul(ODD);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(ODD);
    [(hash >> 39) as u32, (hash >> 14) as u32 & 0x1ff_ffff]
}

/// In the summary, the leading 32 bits of prefixes shorter than /48; told from the leading 48 bits of the others.
const SHORT: u64 = 1 << 63;

fn summarise(summary: &mut [u64], value: u64) {
    for probe in probes(value) {
        summary[(probe >> 6) as usize] |= 1 << (probe & 63);
    }
}

fn in_summary(summary: &[u64], value: u64) -> bool {
    probes(value)
        .into_iter()
        .all(|probe| summary.get((probe >> 6) as usize).is_some_and(|word| word >> (probe & 63) & 1 != 0))
}

impl Table {
    /// Prepares lists: some 10 ms and 12 MiB, and more for many long prefixes. Beyond [`MAX_BLOCKS`] and [`MAX_LONG`] only
    /// the filter's maps are too small.
    pub fn new(lists: &Arc<Access>) -> Table {
        let mut table = Table { lists: Arc::clone(lists), ..Table::default() };
        if lists.denies_any() {
            table.add_v4();
            table.add_v6();
        }
        table
    }

    fn add_v4(&mut self) {
        let mut found: Vec<(u8, u32, Judgement)> = Vec::new();
        for (prefix, judgement) in self.lists.lists() {
            if let IpAddr::V4(address) = prefix.address() {
                found.push((prefix.length(), address.to_bits(), *judgement));
            }
        }
        if self.lists.default == Judgement::Allow
            && found.iter().all(|(_, _, judgement)| *judgement == Judgement::Allow)
        {
            return;
        }
        found.sort_unstable();
        self.cells4 = vec![0; WORDS];
        paint(&mut self.cells4, 0, 0, self.lists.default);
        for (length, address, judgement) in found {
            let leading = address >> 8;
            if length <= CELL_BITS {
                paint(&mut self.cells4, leading, length, judgement);
                continue;
            }
            // Shorter prefixes came before: the cell is final, and the block holds what longer ones up to here say.
            let around = cell(&self.cells4, leading) & DENIED != 0;
            let block = self.blocks.entry(leading).or_insert(if around { [u64::MAX; 4] } else { [0; 4] });
            let first = address & 0xff;
            for at in first..first + (1 << (32 - length)) {
                let bit = 1 << (at & 63);
                match judgement {
                    Judgement::Deny => block[at as usize >> 6] |= bit,
                    Judgement::Allow => block[at as usize >> 6] &= !bit,
                }
            }
        }
        let cells = &mut self.cells4;
        self.blocks.retain(|leading, block| {
            let uniform = [[0; 4], [u64::MAX; 4]].contains(block);
            let value = if uniform { block[0] & DENIED } else { cell(cells, *leading) | CLOSER };
            set_cell(cells, *leading, value);
            !uniform
        });
    }

    fn add_v6(&mut self) {
        let mut found: Vec<Long> = Vec::new();
        for (prefix, judgement) in self.lists.lists() {
            if let IpAddr::V6(address) = prefix.address() {
                found.push((prefix.length(), address.to_bits(), *judgement));
            }
        }
        if self.lists.default == Judgement::Allow
            && found.iter().all(|(_, _, judgement)| *judgement == Judgement::Allow)
        {
            return;
        }
        self.turns = turns(self.lists.default, &found);
        found.sort_unstable();
        self.cells6 = vec![0; WORDS];
        self.summary = vec![0; WORDS];
        paint(&mut self.cells6, 0, 0, self.lists.default);
        for (length, address, judgement) in found {
            let leading = (address >> 104) as u32;
            if length <= CELL_BITS {
                paint(&mut self.cells6, leading, length, judgement);
                continue;
            }
            let value = cell(&self.cells6, leading) | CLOSER;
            set_cell(&mut self.cells6, leading, value);
            if length < 48 {
                let first = (address >> 96) as u64;
                for at in first..first + (1 << 32u8.saturating_sub(length)) {
                    summarise(&mut self.summary, at | SHORT);
                }
            } else {
                summarise(&mut self.summary, (address >> 80) as u64);
            }
            self.long.push((length, address, judgement));
        }
    }

    /// What it was made from.
    pub fn lists(&self) -> &Arc<Access> {
        &self.lists
    }

    /// Whether there can be clients of a family that are denied.
    pub fn judges(&self, v4: bool) -> bool {
        !if v4 { &self.cells4 } else { &self.cells6 }.is_empty()
    }

    /// Whether a client is denied.
    #[inline]
    pub fn denies(&self, client: IpAddr) -> bool {
        match client {
            IpAddr::V4(address) => {
                let (address, leading) = (address.to_bits(), address.to_bits() >> 8);
                let cell = cell(&self.cells4, leading);
                if cell & CLOSER != 0
                    && let Some(block) = self.blocks.get(&leading)
                {
                    return block[(address >> 6 & 3) as usize] >> (address & 63) & 1 != 0;
                }
                cell & DENIED != 0
            }
            IpAddr::V6(address) => {
                let address = address.to_bits();
                let cell = cell(&self.cells6, (address >> 104) as u32);
                if cell & CLOSER == 0
                    || !(in_summary(&self.summary, (address >> 96) as u64 | SHORT)
                        || in_summary(&self.summary, (address >> 80) as u64))
                {
                    return cell & DENIED != 0;
                }
                let after = self.turns.partition_point(|(from, _)| *from <= address);
                after.checked_sub(1).and_then(|at| self.turns.get(at)).is_some_and(|(_, denied)| *denied)
            }
        }
    }

    /// Cells of IPv4; none where nobody is denied.
    pub(super) fn cells4(&self) -> &[u64] {
        &self.cells4
    }

    /// Blocks by the leading 24 bits of their addresses.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u32, &Block)> {
        self.blocks.iter().map(|(leading, block)| (*leading, block))
    }

    /// The block of these leading 24 bits.
    pub(super) fn block(&self, leading: u32) -> Option<&Block> {
        self.blocks.get(&leading)
    }

    /// Cells of IPv6; none where nobody is denied.
    pub(super) fn cells6(&self) -> &[u64] {
        &self.cells6
    }

    /// The summary of IPv6; none where nobody is denied.
    pub(super) fn summary(&self) -> &[u64] {
        &self.summary
    }

    /// Prefixes of IPv6 longer than /24, the shortest first.
    pub(super) fn long(&self) -> &[Long] {
        &self.long
    }

    /// What this very prefix says.
    pub(super) fn long_says(&self, length: u8, address: u128) -> Option<Judgement> {
        let at = self.long.binary_search_by(|known| (known.0, known.1).cmp(&(length, address))).ok()?;
        self.long.get(at).map(|(_, _, judgement)| *judgement)
    }
}

/// Where the answer changes. `prefixes` are in the order of their addresses, those that hold others before them.
fn turns(default: Judgement, prefixes: &[Long]) -> Vec<(u128, bool)> {
    let mut all: Vec<(u128, bool)> = Vec::new();
    let mut turn = |from: u128, judgement: Judgement| {
        // A prefix that begins where another one begins or ends has the last word.
        while all.last().is_some_and(|(known, _)| *known == from) {
            all.pop();
        }
        let denied = judgement == Judgement::Deny;
        if all.last().is_none_or(|(_, before)| *before != denied) {
            all.push((from, denied));
        }
    };
    turn(0, default);
    let mut open: Vec<(u128, Judgement)> = vec![(u128::MAX, default)];
    let close_before =
        |open: &mut Vec<(u128, Judgement)>, limit: Option<u128>, turn: &mut dyn FnMut(u128, Judgement)| {
            while let Some((last, _)) = open.last().copied()
                && limit.is_none_or(|limit| last < limit)
            {
                open.pop();
                if let (Some(from), Some((_, outer))) = (last.checked_add(1), open.last()) {
                    turn(from, *outer);
                }
            }
        };
    for (length, first, judgement) in prefixes {
        close_before(&mut open, Some(*first), &mut turn);
        turn(*first, *judgement);
        open.push((first | u128::MAX.checked_shr(u32::from(*length)).unwrap_or(0), *judgement));
    }
    close_before(&mut open, None, &mut turn);
    all
}

#[cfg(test)]
pub(crate) mod tests;
