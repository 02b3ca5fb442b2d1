//! The words for schedulers, their flags and their table sizes, taken from the data plane's list of schedulers. Pure.

use super::{Word, word};
use crate::dataplane::schedule::SCHEDULERS;

/// Names of schedulers.
pub(super) const NAMES: &[Word] = &names();

/// Flags of any scheduler.
pub(super) const FLAGS: &[Word] = &flags();

/// Table sizes of any scheduler, in rising order.
pub(super) const TABLE_SIZES: &[u32] = &sizes();

const fn names() -> [Word; SCHEDULERS.len()] {
    let mut words = [const { word("", "", &[]) }; SCHEDULERS.len()];
    let mut at = 0;
    while at < words.len() {
        words[at] = word(SCHEDULERS[at].name, SCHEDULERS[at].doc, SCHEDULERS[at].also);
        at += 1;
    }
    words
}

const fn count_flags() -> usize {
    let (mut at, mut count) = (0, 0);
    while at < SCHEDULERS.len() {
        count += SCHEDULERS[at].flags.len();
        at += 1;
    }
    count
}

const fn flags() -> [Word; count_flags()] {
    let mut words = [const { word("", "", &[]) }; count_flags()];
    let (mut at, mut next) = (0, 0);
    while at < SCHEDULERS.len() {
        let flags = SCHEDULERS[at].flags;
        let mut flag = 0;
        while flag < flags.len() {
            words[next] = word(flags[flag].name, flags[flag].doc, &[]);
            next += 1;
            flag += 1;
        }
        at += 1;
    }
    words
}

/// The smallest size that a scheduler permits above `than`; 0 if there is none.
const fn next_size(than: u32) -> u32 {
    let (mut at, mut next) = (0, 0);
    while at < SCHEDULERS.len() {
        if let Some(table) = SCHEDULERS[at].table {
            let mut size = 0;
            while size < table.sizes.len() {
                if table.sizes[size] > than && (next == 0 || table.sizes[size] < next) {
                    next = table.sizes[size];
                }
                size += 1;
            }
        }
        at += 1;
    }
    next
}

const fn count_sizes() -> usize {
    let (mut size, mut count) = (next_size(0), 0);
    while size != 0 {
        count += 1;
        size = next_size(size);
    }
    count
}

const fn sizes() -> [u32; count_sizes()] {
    let mut sizes = [0; count_sizes()];
    let (mut at, mut size) = (0, next_size(0));
    while at < sizes.len() {
        sizes[at] = size;
        size = next_size(size);
        at += 1;
    }
    sizes
}
