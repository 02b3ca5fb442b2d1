//! A worker's answers to questions about its flows, a bounded piece between two batches.
//!
//! Owns which questions are open and how far each walk has come. Pure: questions and answers lie on a desk
//! ([`crate::dataplane::query`]); nothing here waits for anybody.

use super::Pipeline;
use super::family::Family;
use super::kit::Kit;
use crate::dataplane::flow::{Entry, FlowTable, Lifetimes, STAMP_MS, Step, is_expired};
use crate::dataplane::query::{Answer, Desk, End, Filter, QUESTIONS, Question, Record, Wish};
use crate::dataplane::snapshot::Snapshot;

/// The tables in the order of a walk. The unproven come first: a flow that moves on meanwhile is seen at least once.
const PARTS: u64 = 4;

/// Bits of a walk's place that number an entry of one table.
const ENTRY_BITS: u32 = 48;

/// What a turn may spend on questions.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Buckets to look at.
    pub buckets: usize,
    /// Flows to put down or to end.
    pub flows: usize,
}

/// A question that is being answered.
#[derive(Clone, Copy, Debug)]
struct Open {
    question: Question,
    /// Where the walk goes on; `None`: it is through.
    at: Option<u64>,
    matched: u64,
}

/// The open questions.
#[derive(Debug, Default)]
pub(super) struct Clerk {
    open: [Option<Open>; QUESTIONS],
    count: usize,
    turn: usize,
}

impl Clerk {
    /// Takes the questions that have come.
    fn take(&mut self, desk: &Desk) {
        while self.count < QUESTIONS
            && let Some(question) = desk.next()
        {
            if let Some(free) = self.open.iter_mut().find(|open| open.is_none()) {
                *free = Some(Open { question, at: Some(question.from), matched: 0 });
                self.count += 1;
            }
        }
    }

    /// The number of the next open question, in turns.
    fn choose(&mut self) -> Option<usize> {
        for _ in 0..QUESTIONS {
            self.turn = (self.turn + 1) % QUESTIONS;
            if self.open[self.turn].is_some() {
                return Some(self.turn);
            }
        }
        None
    }
}

impl Pipeline {
    /// Whether a question is open, so that there is something to do without packets.
    #[inline]
    pub fn has_questions(&self) -> bool {
        self.clerk.count > 0
    }

    /// Works on one question, within `effort`.
    #[inline]
    pub fn answer(&mut self, desk: &Desk, snapshot: &Snapshot, effort: Effort, now: u32) {
        if self.clerk.count > 0 || !desk.is_quiet() {
            self.answer_one(desk, snapshot, effort, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn answer_one(&mut self, desk: &Desk, snapshot: &Snapshot, mut effort: Effort, now: u32) {
        self.clerk.take(desk);
        let Some(number) = self.clerk.choose() else { return };
        let Some(mut open) = self.clerk.open[number] else { return };
        while let Some(at) = open.at
            && effort.buckets > 0
            && effort.flows > 0
            && !desk.is_full()
            && desk.is_live(&open.question)
        {
            let (part, entry) = (at >> ENTRY_BITS, (at & ((1 << ENTRY_BITS) - 1)) as usize);
            let walk = Walk { desk, snapshot, part, now };
            let filter = open.question.filter;
            let skip = !filter.wants_family(part & 1 == 1) || filter.proven.is_some_and(|proven| proven != (part > 1));
            let kit = &mut self.kit;
            let next = match part {
                _ if skip => None,
                0 => walk.go(&mut self.v4.unproven, kit, &mut open, entry, &mut effort),
                1 => walk.go(&mut self.v6.unproven, kit, &mut open, entry, &mut effort),
                2 => walk.go(&mut self.v4.proven, kit, &mut open, entry, &mut effort),
                _ => walk.go(&mut self.v6.proven, kit, &mut open, entry, &mut effort),
            };
            open.at = match next {
                Some(entry) => Some(part << ENTRY_BITS | entry as u64),
                None if part + 1 < PARTS => Some((part + 1) << ENTRY_BITS),
                None => None,
            };
        }
        let over = open.at.is_none() || !desk.is_live(&open.question);
        let end = Answer::End { number: open.question.number, next: open.at, matched: open.matched };
        if over && desk.answer(end) {
            self.clerk.open[number] = None;
            self.clerk.count -= 1;
        } else {
            self.clerk.open[number] = Some(open);
        }
    }
}

/// A piece of a walk over one table.
struct Walk<'a> {
    desk: &'a Desk,
    snapshot: &'a Snapshot,
    part: u64,
    now: u32,
}

impl Walk<'_> {
    /// Goes on from an entry; the entry to go on from afterwards, `None` at the end of the table.
    fn go<E: Family>(
        &self,
        table: &mut FlowTable<E>,
        kit: &mut Kit,
        open: &mut Open,
        from: usize,
        effort: &mut Effort,
    ) -> Option<usize> {
        let Question { number, wish, filter, .. } = open.question;
        let Effort { buckets, flows } = effort;
        let look = |at: usize, entry: &E, other: Option<&E>| {
            // Another entry, a record, an end: each is an access to memory that is in no cache.
            if wish != Wish::Count || other.is_some() {
                if *flows == 0 || wish == Wish::List && self.desk.is_full() {
                    return Step::Stop;
                }
                *flows -= 1;
            }
            let Some(record) = self.record(self.part << ENTRY_BITS | at as u64, entry, other) else {
                return Step::Next;
            };
            open.matched += 1;
            match wish {
                Wish::Count => Step::Next,
                Wish::Clear => Step::End,
                Wish::List => {
                    // There is room: nobody else fills the queue.
                    self.desk.answer(Answer::Flow { number, record });
                    Step::Next
                }
            }
        };
        let wanted = |entry: &E| self.is_named(&filter, entry);
        table.visit(from, buckets, wanted, look, |gone| kit.close(self.snapshot, &gone, self.now))
    }

    /// Whether the filter names a flow. `entry` is the client's.
    fn is_named<E: Family>(&self, filter: &Filter, entry: &E) -> bool {
        if *filter == Filter::default() {
            return true;
        }
        if !filter.wants_state(entry.state()) {
            return false;
        }
        let key = entry.key();
        let (protocol, (_, port)) = (E::protocol(&key), E::ports(&key));
        filter.protocol.is_none_or(|wanted| wanted == protocol)
            && filter.client.is_none_or(|client| client.contains(E::source(&key)))
            && filter.service.is_none_or(|(address, wanted, ports)| {
                wanted == protocol && ports.contains(port) && address == E::destination(&key)
            })
            && filter.server.is_none_or(|(address, wanted)| {
                self.server(entry.server(), port)
                    .is_some_and(|end| end.0 == address && wanted.is_none_or(|p| p == end.1))
            })
    }

    /// A server's address, and the port where it gets packets for `port` of its service.
    fn server(&self, id: u32, port: u16) -> Option<End> {
        let member = self.snapshot.member(id)?;
        Some((member.address, if member.port == 0 { port } else { member.port }))
    }

    /// A flow as it is listed; `None` for one that is over and only waits to be swept.
    fn record<E: Family>(&self, at: u64, entry: &E, other: Option<&E>) -> Option<Record> {
        let seen =
            |entry: &E| (!is_expired(entry, self.now, self.snapshot)).then(|| self.now.wrapping_sub(entry.stamp()));
        // A stamp can lie a little after now: another worker's clock, or a capture's.
        let idle = |entry: &E| seen(entry).map(|idle| if idle > u32::MAX / 2 { 0 } else { idle });
        let idle_ms = [Some(entry), other].into_iter().flatten().filter_map(idle).min()?;
        let limit = self.snapshot.limit_ms(entry.server(), entry.state()).saturating_add(STAMP_MS);
        let key = entry.key();
        let (from, port) = E::ports(&key);
        let client = (E::source(&key), from);
        let reverse = other.map(Entry::key);
        let source = |key: &E::Key| (E::source(key), E::ports(key).0);
        let target = |key: &E::Key| (E::destination(key), E::ports(key).1);
        Some(Record {
            at,
            client,
            service: target(&key),
            server: reverse.as_ref().map(source).or_else(|| self.server(entry.server(), port)),
            local: reverse.as_ref().map(target).filter(|end| *end != client),
            server_id: entry.server(),
            protocol: E::protocol(&key),
            state: entry.state(),
            flags: entry.flags(),
            proven: self.part > 1,
            idle_ms,
            left_ms: limit.saturating_sub(idle_ms),
        })
    }
}
