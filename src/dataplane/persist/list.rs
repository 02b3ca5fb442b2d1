//! Templates as people see them: listed, cleared, and forgotten when their service changes.
//!
//! Owns what a slot says about its client. Workers go on meanwhile: a row may be a moment old.

use std::net::IpAddr;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::{Slot, Subject, TEXT, Templates, Word, halves};

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Number of its service or group.
    pub unit: u32,
    /// The client's network.
    pub network: IpAddr,
    /// Leading bits of the network that count.
    pub prefix: u8,
    /// Number of the real server within the unit.
    pub real: u32,
    /// Milliseconds until it ends, or is armed again.
    pub left_ms: u32,
    /// Flows under it.
    pub flows: u32,
    /// Whether one of them was proven.
    pub assured: bool,
    /// The Call-ID, cut to 88 bytes.
    pub call_id: Vec<u8>,
}

impl Slot {
    /// Writes down whose slot it is.
    pub(super) fn describe(&self, subject: &Subject<'_>) {
        let length = subject.call_id.len().min(TEXT);
        let family = u64::from(subject.network.is_ipv6());
        let about = u64::from(subject.unit) | u64::from(subject.prefix) << 32 | family << 40 | (length as u64) << 48;
        self.about.store(about, Relaxed);
        let [high, low] = halves(subject.network);
        self.network[0].store(high, Relaxed);
        self.network[1].store(low, Relaxed);
        for (word, piece) in self.text.iter().zip(subject.call_id.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..piece.len()].copy_from_slice(piece);
            word.store(u64::from_le_bytes(bytes), Relaxed);
        }
    }

    fn read(&self, word: Word, now: u32) -> Template {
        let about = self.about.load(Relaxed);
        let [high, low] = [0, 1].map(|half: usize| self.network[half].load(Relaxed));
        let bits = u128::from(high) << 64 | u128::from(low);
        let network = if about >> 40 & 1 == 0 {
            IpAddr::from((low as u32).to_be_bytes())
        } else {
            IpAddr::from(bits.to_be_bytes())
        };
        let mut call_id: Vec<u8> = self.text.iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        call_id.truncate((about >> 48) as usize & 0xff);
        let time = self.time();
        let time = if word.flows() > 0 { time.caught_up(now) } else { time };
        Template {
            unit: about as u32,
            network,
            prefix: (about >> 32) as u8,
            real: word.real(),
            left_ms: time.left_ms(now),
            flows: word.flows(),
            assured: word.is_assured(),
            call_id,
        }
    }
}

impl Templates {
    /// Slots in use, with their words.
    fn taken(&self) -> impl Iterator<Item = (usize, Word)> {
        let used = self.prints.iter().enumerate().filter(|(_, print)| print.load(SeqCst) != 0);
        used.map(|(at, _)| (at, self.slots[at].word())).filter(|(_, word)| !word.is_leaving())
    }

    /// Templates that hold now.
    pub fn list(&self, now: u32) -> impl Iterator<Item = Template> {
        let bound = self.taken().filter(|(_, word)| word.real() != 0);
        let all = bound.map(move |(at, word)| self.slots[at].read(word, now));
        all.filter(|template| template.flows > 0 || template.left_ms > 0)
    }

    /// Ends the templates that are `meant`, and returns how many. Flows go on; their clients' next ones are scheduled anew.
    pub fn clear(&self, now: u32, meant: impl Fn(&Template) -> bool) -> usize {
        let mut cleared = 0;
        for (at, mut word) in self.taken() {
            let slot = &self.slots[at];
            let template = slot.read(word, now);
            let holds = word.real() != 0 && (template.flows > 0 || template.left_ms > 0);
            if !holds || !meant(&template) {
                continue;
            }
            // With flows under it the slot stays theirs, without a server, so that their number stays right.
            while word.real() == template.real && !word.is_leaving() {
                let done = if word.flows() == 0 {
                    self.free(at, word)
                } else {
                    slot.swap(word, Word(word.next_turn().with_real(0).0 & !Word::ASSURED)).is_ok()
                };
                if done {
                    cleared += 1;
                    break;
                }
                word = slot.word();
            }
        }
        cleared
    }

    /// Forgets every template that is not to stay, whatever flows are under it: for units that are gone, or tell their
    /// clients apart in another way now.
    pub fn retain(&self, stays: impl Fn(&Template) -> bool) {
        for (at, word) in self.taken() {
            if !stays(&self.slots[at].read(word, 0)) {
                self.free(at, word);
            }
        }
    }
}
