//! An SMTP server's greeting, `HELO` and `QUIT` (RFC 5321; keepalived's `SMTP_CHECK`, check_smtp.c). Pure.
//!
//! Owns which codes are wanted and how much a server may say. Never sends mail.

use super::{Dialogue, Progress, line, shown};
use crate::health::{Outcome, Reason};
use crate::model::SmtpCheck;

/// Longest line of a reply with its end, in bytes (RFC 5321, 4.5.3.1.5).
const LONGEST_LINE: usize = 512;
/// Most lines of one reply.
const MOST_LINES: usize = 100;

/// The conversation of an `smtp` check.
pub fn smtp(check: &SmtpCheck) -> Box<dyn Dialogue> {
    Box::new(Smtp { helo: check.helo.clone(), step: Step::Greeting, line: Vec::new(), lines: 0, code: None })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Greeting,
    Helo,
    /// The server is good already: it is only left in good order.
    Quit,
}

struct Smtp {
    helo: String,
    step: Step,
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// Lines of the reply that is not whole yet.
    lines: usize,
    /// The code of its lines.
    code: Option<u16>,
}

impl Smtp {
    /// What is wanted: whose reply, and its code.
    fn wanted(&self) -> (&'static str, u16) {
        match self.step {
            Step::Greeting => ("greeting", 220),
            Step::Helo => ("HELO answered", 250),
            Step::Quit => ("QUIT answered", 221),
        }
    }

    fn good(&self) -> Progress {
        Progress::Done(Outcome::good("220, HELO 250"))
    }

    fn bad(&self, reason: Reason, words: String) -> Progress {
        // Once HELO was accepted nothing of how it says goodbye is held against it, as keepalived has it.
        if self.step == Step::Quit { self.good() } else { Progress::bad(reason, words) }
    }

    /// One line, without its end.
    fn whole_line(&mut self, text: &[u8], out: &mut Vec<u8>) -> Progress {
        let (name, wanted) = self.wanted();
        let digits = text.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let code = digits.map(|digits| digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')));
        let (Some(code), last) = (code, text.get(3) != Some(&b'-')) else {
            return self.bad(Reason::Malformed, format!("not SMTP: {}", shown(text)));
        };
        if !matches!(text.get(3), None | Some(b' ' | b'-')) {
            return self.bad(Reason::Malformed, format!("not SMTP: {}", shown(text)));
        }
        if let Some(first) = self.code
            && first != code
        {
            return self.bad(Reason::Malformed, format!("codes {first} and {code} in the lines of one reply"));
        }
        self.code = Some(code);
        self.lines += 1;
        if !last {
            return if self.lines < MOST_LINES {
                Progress::Wait
            } else {
                self.bad(Reason::TooLarge, format!("a reply of more than {MOST_LINES} lines"))
            };
        }
        if code != wanted {
            let said = line(&String::from_utf8_lossy(text));
            return self.bad(Reason::Answer, format!("{name} {said}, wanted {wanted}"));
        }
        self.code = None;
        self.lines = 0;
        match self.step {
            Step::Greeting => {
                self.step = Step::Helo;
                out.extend_from_slice(format!("HELO {}\r\n", self.helo).as_bytes());
                Progress::Wait
            }
            Step::Helo => {
                self.step = Step::Quit;
                out.extend_from_slice(b"QUIT\r\n");
                Progress::Wait
            }
            Step::Quit => self.good(),
        }
    }
}

impl Dialogue for Smtp {
    fn begin(&mut self, _: &mut Vec<u8>) -> Progress {
        Progress::Wait
    }

    fn received(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Progress {
        while !bytes.is_empty() {
            let room = LONGEST_LINE - self.line.len();
            let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
            let (taken, rest) = bytes.split_at(end.map_or(room.min(bytes.len()), |end| end + 1));
            self.line.extend_from_slice(taken);
            bytes = rest;
            if end.is_none() {
                if self.line.len() == LONGEST_LINE {
                    return self.bad(Reason::TooLarge, format!("a line of more than {LONGEST_LINE} bytes"));
                }
                continue;
            }
            let text = std::mem::take(&mut self.line);
            match self.whole_line(text.trim_ascii_end(), out) {
                Progress::Wait => {}
                done => return done,
            }
        }
        Progress::Wait
    }

    fn ended(&mut self) -> Progress {
        let words = match self.step {
            Step::Greeting if self.line.is_empty() && self.lines == 0 => "closed without a greeting",
            Step::Greeting => "closed within the greeting",
            Step::Helo => "closed after HELO",
            Step::Quit => return self.good(),
        };
        self.bad(Reason::Closed, words.to_owned())
    }

    fn awaited(&self) -> &'static str {
        match self.step {
            Step::Greeting => "greeting",
            Step::Helo => "reply to HELO",
            Step::Quit => "reply to QUIT",
        }
    }
}

#[cfg(test)]
mod tests;
