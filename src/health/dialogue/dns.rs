//! A DNS query and its answer, over UDP and TCP (RFC 1035; keepalived's `DNS_CHECK`, check_dns.c). Pure.
//!
//! Owns what belongs to the question and what is a good answer. Records are counted, never understood, and no compressed
//! name of theirs is followed: the work is bounded by the message's length.

use std::str::FromStr;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};

use super::{Dialogue, Exchange, Progress, line};
use crate::health::{Outcome, Reason};
use crate::model::DnsCheck;

/// Names of response codes, by number (RFC 1035, 2136); those above come with EDNS only, which is not spoken here.
pub const CODES: [&str; 11] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
    "NOTZONE",
];

/// Why a name or type cannot be asked for; `None` when it can. What `dialogue` and `exchange` then say is not of the server.
pub fn dns_problem(name: &str, kind: &str) -> Option<String> {
    query(name, kind, 0).err()
}

/// The conversation of a `dns` check over TCP. `id` is that of the query.
pub fn dns_tcp(check: &DnsCheck, id: u16) -> Box<dyn Dialogue> {
    Box::new(Tcp { question: Question::new(check, id), buffer: Vec::new() })
}

/// The exchange of a `dns` check over UDP. `id` is that of the query.
pub fn dns_udp(check: &DnsCheck, id: u16) -> Box<dyn Exchange> {
    Box::new(Udp(Question::new(check, id)))
}

/// The query as it is sent, and what it asks.
fn query(name: &str, kind: &str, id: u16) -> Result<(Query, Vec<u8>), String> {
    let mut asked = Name::from_ascii(name).map_err(|error| format!("`{name}` is no DNS name: {error}"))?;
    asked.set_fqdn(true);
    let kind = RecordType::from_str(kind).map_err(|_| format!("`{kind}` is no type of DNS records"))?;
    let query = Query::query(asked, kind);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut bytes = Vec::with_capacity(64);
    message.emit(&mut BinEncoder::new(&mut bytes)).map_err(|error| format!("no query for `{name}`: {error}"))?;
    Ok((query, bytes))
}

struct Question {
    check: DnsCheck,
    id: u16,
    query: Result<(Query, Vec<u8>), String>,
}

/// Whose answer a message is.
#[derive(Debug)]
enum Verdict {
    /// Of another question, or no answer at all.
    Foreign,
    Ours(Outcome),
}

impl Question {
    fn new(check: &DnsCheck, id: u16) -> Question {
        Question { check: check.clone(), id, query: query(&check.name, &check.kind, id) }
    }

    fn judge(&self, message: &[u8]) -> Verdict {
        let malformed =
            |why: &str| Verdict::Ours(Outcome::bad(Reason::Malformed, format!("answer not understood: {why}")));
        if !message.starts_with(&self.id.to_be_bytes()) {
            return Verdict::Foreign;
        }
        let mut decoder = BinDecoder::new(message);
        let Ok(header) = Header::read(&mut decoder) else { return malformed("shorter than a header") };
        if header.metadata.message_type != MessageType::Response {
            return Verdict::Foreign;
        }
        let code = header.metadata.response_code;
        match header.counts.queries {
            // A server that refuses, or understood nothing, may leave the question out.
            0 if code != ResponseCode::NoError => {}
            1 => match Query::read(&mut decoder) {
                Err(error) => return malformed(&line(&error.to_string())),
                Ok(asked) => {
                    if self.query.as_ref().is_ok_and(|(query, _)| *query != asked) {
                        return Verdict::Foreign;
                    }
                }
            },
            other => return malformed(&format!("{other} questions in it")),
        }
        let counts = header.counts;
        let total = u32::from(counts.answers) + u32::from(counts.authorities) + u32::from(counts.additionals);
        let records = records(message, decoder.index(), total);
        // One that was cut to the size of a datagram may end anywhere.
        if let Err(why) = records.1
            && !header.metadata.truncation
        {
            return malformed(why);
        }
        let answers = &records.0[..records.0.len().min(usize::from(counts.answers))];
        Verdict::Ours(self.decide(code, answers, header.metadata.truncation))
    }

    fn decide(&self, code: ResponseCode, answers: &[u16], truncated: bool) -> Outcome {
        let code = code_name(code);
        if !self.check.codes.is_empty() && !self.check.codes.contains(&code) {
            return Outcome::bad(Reason::Answer, format!("code {code}, wanted {}", self.check.codes.join(" or ")));
        }
        let asked = self.query.as_ref().map_or(RecordType::ANY, |(query, _)| query.query_type());
        let found = answers.iter().filter(|kind| asked == RecordType::ANY || **kind == u16::from(asked)).count();
        if self.check.answer && found == 0 && !truncated {
            return Outcome::bad(Reason::Content, format!("no {} record in the answer, code {code}", self.check.kind));
        }
        match answers.len() {
            _ if truncated => Outcome::good(format!("code {code}, truncated")),
            1 => Outcome::good(format!("code {code}, 1 record")),
            count => Outcome::good(format!("code {code}, {count} records")),
        }
    }
}

fn code_name(code: ResponseCode) -> String {
    let number = u16::from(code);
    CODES.get(usize::from(number)).map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

/// The types of the records from `at` on, and what is wrong with them.
fn records(message: &[u8], mut at: usize, total: u32) -> (Vec<u16>, Result<(), &'static str>) {
    let mut kinds = Vec::new();
    for _ in 0..total {
        at = match name_end(message, at) {
            Ok(end) => end,
            Err(why) => return (kinds, Err(why)),
        };
        // Type, class, time to live, length of the data (RFC 1035, 3.2.1).
        let Some(fixed) = message.get(at..at + 10) else { return (kinds, Err("it ends within a record")) };
        at += 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        if at > message.len() {
            return (kinds, Err("it ends within a record"));
        }
        kinds.push(u16::from_be_bytes([fixed[0], fixed[1]]));
    }
    (kinds, Ok(()))
}

/// Where a name ends that begins at `start`. A pointer must lead back, behind the header (RFC 1035, 4.1.4).
fn name_end(message: &[u8], start: usize) -> Result<usize, &'static str> {
    let mut at = start;
    loop {
        let length = *message.get(at).ok_or("it ends within a name")?;
        match length {
            0 => return Ok(at + 1),
            1..64 => at += 1 + usize::from(length),
            0xc0.. => {
                let low = *message.get(at + 1).ok_or("it ends within a name")?;
                let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                return if target < start && target >= 12 {
                    Ok(at + 2)
                } else {
                    Err("a compressed name leads nowhere")
                };
            }
            _ => return Err("a label of no known kind"),
        }
        if at - start > 255 {
            return Err("a name of more than 255 bytes");
        }
    }
}

struct Udp(Question);

impl Exchange for Udp {
    /// Nothing for a name that no configuration has: [`dns_problem`] refuses it before.
    fn question(&mut self) -> Vec<u8> {
        self.0.query.as_ref().map_or_else(|_| Vec::new(), |(_, bytes)| bytes.clone())
    }

    fn received(&mut self, datagram: &[u8]) -> Progress {
        match self.0.judge(datagram) {
            Verdict::Foreign => Progress::Wait,
            Verdict::Ours(outcome) => Progress::Done(outcome),
        }
    }
}

struct Tcp {
    question: Question,
    /// The answer as far as it is there, with its length before it.
    buffer: Vec<u8>,
}

impl Dialogue for Tcp {
    fn begin(&mut self, out: &mut Vec<u8>) -> Progress {
        let bytes = match &self.question.query {
            Ok((_, bytes)) => bytes,
            Err(why) => return Progress::Done(Outcome::Unable(why.clone())),
        };
        out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        out.extend_from_slice(bytes);
        Progress::Wait
    }

    fn received(&mut self, bytes: &[u8], _: &mut Vec<u8>) -> Progress {
        // No more than the longest message and its length are kept (RFC 1035, 4.2.2).
        let room = 2 + usize::from(u16::MAX) - self.buffer.len();
        self.buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let Some((length, message)) = self.buffer.split_first_chunk::<2>() else { return Progress::Wait };
        let Some(message) = message.get(..usize::from(u16::from_be_bytes(*length))) else { return Progress::Wait };
        match self.question.judge(message) {
            Verdict::Foreign => Progress::bad(Reason::Malformed, "answer not understood: it is of another question"),
            Verdict::Ours(outcome) => Progress::Done(outcome),
        }
    }

    fn ended(&mut self) -> Progress {
        let words = if self.buffer.is_empty() { "closed without an answer" } else { "closed within the answer" };
        Progress::bad(Reason::Closed, words)
    }
}

#[cfg(test)]
mod tests;
