//! Questions about flows, and their answers: how another thread lists, counts or ends flows of a worker that it never stops.
//!
//! Owns the desk of a worker: a queue of questions in, a queue of answers out, both lock-free and of fixed size. Whoever asks
//! holds nothing that the worker waits for: where nobody takes answers away, the worker leaves the question lying. A
//! listing is no picture of one moment: flows come and go while it is made. A flow that is there all the time is in it, at
//! least once (twice where it was proven meanwhile).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;

use super::flow::state::State;
use crate::model::PortRange;

/// Most questions that a worker has at a time.
pub const QUESTIONS: usize = 8;

/// Answers that wait to be taken away, at most.
pub const ANSWERS: usize = 4096;

/// A range of addresses: those that agree in their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

/// An address as a number, the first byte highest, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(a) => (u128::from(u32::from(a)), 32),
        IpAddr::V6(a) => (u128::from(a), 128),
    }
}

impl Prefix {
    /// `None`: the family has not that many bits.
    pub fn new(network: IpAddr, length: u8) -> Option<Prefix> {
        (u32::from(length) <= bits(network).1).then_some(Prefix { network, length })
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((network, size), (address, other)) = (bits(self.network), bits(address));
        let rest = size - u32::from(self.length);
        size == other && (rest == 128 || (network ^ address) >> rest == 0)
    }

    /// Whether its addresses are IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }
}

/// Which flows are meant: those for which all of it is true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What the client asked for: a service's address, protocol number and ports.
    pub service: Option<(IpAddr, u8, PortRange)>,
    /// The real server: its address, and its port (host order) where that is named.
    pub server: Option<(IpAddr, Option<u16>)>,
    /// The client's network.
    pub client: Option<Prefix>,
    /// Protocol number.
    pub protocol: Option<u8>,
    /// A bit for each state that is wanted, by its number; 0: any.
    pub states: u32,
    /// Whether the flow is proven.
    pub proven: Option<bool>,
}

impl Filter {
    /// Whether flows of a family can be meant.
    pub fn wants_family(&self, ipv6: bool) -> bool {
        self.service.is_none_or(|(address, ..)| address.is_ipv6() == ipv6)
            && self.client.is_none_or(|client| client.is_ipv6() == ipv6)
    }

    /// Whether flows in this state are meant.
    pub fn wants_state(&self, state: State) -> bool {
        self.states == 0 || self.states >> (state.0 & 31) & 1 == 1
    }
}

/// What is wanted of the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A record of each.
    List,
    /// How many there are.
    Count,
    /// Their end; how many they were.
    Clear,
}

/// A question to one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Number of the question, never 0, and never used before.
    pub number: u64,
    /// Its place among the open ones, below [`QUESTIONS`].
    pub slot: u8,
    /// What is wanted.
    pub wish: Wish,
    /// Of which flows.
    pub filter: Filter,
    /// Where the walk begins: 0, or where an earlier one ended.
    pub from: u64,
}

/// An address and a port, host order.
pub type End = (IpAddr, u16);

/// A flow, as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the walk stood: an earlier one that goes on from here begins with this flow.
    pub at: u64,
    /// The client.
    pub client: End,
    /// What it asked for.
    pub service: End,
    /// The real server; `None` where it is in the configuration no more.
    pub server: Option<End>,
    /// Full NAT: the local address and port as the server sees them.
    pub local: Option<End>,
    /// Stable id of the server.
    pub server_id: u32,
    /// Protocol number.
    pub protocol: u8,
    /// State.
    pub state: State,
    /// Bits of [`super::flow::flag`], of the client's entry.
    pub flags: u8,
    /// Whether its client has confirmed it.
    pub proven: bool,
    /// Milliseconds since its last packet, exact to [`super::flow::STAMP_MS`].
    pub idle_ms: u32,
    /// Milliseconds until it ends if none comes.
    pub left_ms: u32,
}

/// What a worker says to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One of the flows.
    Flow {
        /// The question.
        number: u64,
        /// The flow.
        record: Record,
    },
    /// The end of the walk; every question gets exactly one.
    End {
        /// The question.
        number: u64,
        /// Where another walk can go on; `None`: it saw everything.
        next: Option<u64>,
        /// Flows that the filter named.
        matched: u64,
    },
}

/// A worker's desk. One thread asks; the worker answers between its batches.
#[derive(Debug)]
pub struct Desk {
    questions: ArrayQueue<Question>,
    answers: ArrayQueue<Answer>,
    /// The number of the question in each slot; what another number has shall end.
    live: [AtomicU64; QUESTIONS],
}

impl Default for Desk {
    fn default() -> Self {
        Desk {
            questions: ArrayQueue::new(QUESTIONS),
            answers: ArrayQueue::new(ANSWERS),
            live: [const { AtomicU64::new(0) }; QUESTIONS],
        }
    }
}

impl Desk {
    /// Asks. The slot must be free: the last question there has had its [`Answer::End`]. `false`: it is not.
    pub fn ask(&self, question: Question) -> bool {
        let Some(live) = self.live.get(usize::from(question.slot)) else { return false };
        live.store(question.number, Relaxed);
        // The queue carries the question itself; a worker that sees the slot's number late ends it early, which is why the
        // number goes first.
        self.questions.push(question).is_ok()
    }

    /// Ends a question early; its [`Answer::End`] comes all the same.
    pub fn stop(&self, slot: u8) {
        if let Some(live) = self.live.get(usize::from(slot)) {
            live.store(0, Relaxed);
        }
    }

    /// The next answer.
    pub fn take(&self) -> Option<Answer> {
        self.answers.pop()
    }

    /// Whether there is no new question.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.questions.is_empty()
    }

    /// For the worker: the next question.
    pub fn next(&self) -> Option<Question> {
        self.questions.pop()
    }

    /// For the worker: whether an answer is still wanted.
    pub fn is_live(&self, question: &Question) -> bool {
        self.live.get(usize::from(question.slot)).is_some_and(|live| live.load(Relaxed) == question.number)
    }

    /// For the worker: whether there is no room for another answer.
    pub fn is_full(&self) -> bool {
        self.answers.is_full()
    }

    /// For the worker: answers. `false`: there is no room; the worker says it again later.
    pub fn answer(&self, answer: Answer) -> bool {
        self.answers.push(answer).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes_hold_their_own_family_only() {
        let prefix = |text: &str, length| Prefix::new(text.parse().expect("address"), length);
        let holds =
            |prefix: Option<Prefix>, address: &str| prefix.expect("fits").contains(address.parse().expect("address"));
        assert_eq!((prefix("10.0.0.0", 33), prefix("::", 129)), (None, None));
        assert!(holds(prefix("0.0.0.0", 0), "203.0.113.9") && !holds(prefix("0.0.0.0", 0), "::1"));
        assert!(holds(prefix("::", 0), "ffff::1") && !holds(prefix("::", 0), "10.0.0.1"));
        assert!(
            holds(prefix("198.51.100.7", 32), "198.51.100.7") && !holds(prefix("198.51.100.7", 32), "198.51.100.6")
        );
    }

    proptest! {
        #[test]
        fn a_prefix_compares_so_many_bits(a: u32, b: u32, length in 0u8..=32) {
            let prefix = Prefix::new(IpAddr::from(a.to_be_bytes()), length).expect("fits");
            let same = (0..u32::from(length)).all(|bit| (a ^ b) & (1 << (31 - bit)) == 0);
            prop_assert_eq!(prefix.contains(IpAddr::from(b.to_be_bytes())), same);
        }
    }

    #[test]
    fn a_full_desk_keeps_what_it_has() {
        let desk = Desk::default();
        let end = |number| Answer::End { number, next: None, matched: 0 };
        for number in 0..ANSWERS as u64 {
            assert!(!desk.is_full() && desk.answer(end(number)));
        }
        assert!(desk.is_full() && !desk.answer(end(7)));
        assert_eq!(desk.take(), Some(end(0)));
        let question = Question { number: 5, slot: 3, wish: Wish::Count, filter: Filter::default(), from: 0 };
        assert!(desk.ask(question) && desk.is_live(&question));
        assert!(!desk.ask(Question { slot: QUESTIONS as u8, ..question }));
        desk.stop(3);
        assert_eq!((desk.next(), desk.is_live(&question)), (Some(question), false));
    }
}
