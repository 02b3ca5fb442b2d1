//! Records in the order of their age: a doubly linked list by index, in the records themselves.
//!
//! Pure. Owns the links and nothing else of a record.

use super::Record;

/// "No index".
pub(super) const NONE: u32 = u32::MAX;

/// A record's neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    older: u32,
    younger: u32,
}

#[cfg(test)]
impl Links {
    /// The next younger record.
    pub(super) fn younger(self) -> Option<u32> {
        (self.younger != NONE).then_some(self.younger)
    }
}

impl Default for Links {
    fn default() -> Links {
        Links { older: NONE, younger: NONE }
    }
}

/// Where the list begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    oldest: u32,
    youngest: u32,
}

impl Default for Order {
    fn default() -> Order {
        Order { oldest: NONE, youngest: NONE }
    }
}

impl Order {
    /// The oldest record.
    pub(super) fn first(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Adds a record that is in no list, as the youngest.
    pub(super) fn push(&mut self, records: &mut [Record], at: u32) {
        records[at as usize].links = Links { older: self.youngest, younger: NONE };
        match records.get_mut(self.youngest as usize) {
            Some(before) => before.links.younger = at,
            None => self.oldest = at,
        }
        self.youngest = at;
    }

    /// Takes out a record that is in this list.
    pub(super) fn unlink(&mut self, records: &mut [Record], at: u32) {
        let Links { older, younger } = records[at as usize].links;
        match records.get_mut(older as usize) {
            Some(before) => before.links.younger = younger,
            None => self.oldest = younger,
        }
        match records.get_mut(younger as usize) {
            Some(behind) => behind.links.older = older,
            None => self.youngest = older,
        }
    }
}
