//! HTTP checks: one request after the other, each answered as wanted. Pure.
//!
//! Owns the order of requests and what a whole answer means (keepalived's `HTTP_GET` and `SSL_GET`, check_http.c). How a
//! request is written stands in `request`, how an answer is read in `response`, what a body must have in `content`.

mod content;
mod request;
mod response;

use crate::health::dialogue::{Dialogue, Progress};
use crate::health::{Outcome, Reason};
use crate::model::{CheckTarget, HttpCheck, HttpRequest};

use content::Content;
use response::{Read, Response};

pub use content::regex_problem;

/// The conversation of an `http` or `https` check.
pub fn http(check: &HttpCheck, target: &CheckTarget) -> Box<dyn Dialogue> {
    Box::new(Http {
        check: check.clone(),
        target: target.clone(),
        current: 0,
        response: Response::new("GET"),
        content: Content::nothing(),
        reused: false,
        statuses: Vec::new(),
    })
}

struct Http {
    check: HttpCheck,
    target: CheckTarget,
    /// The request that is under way.
    current: usize,
    /// Its answer.
    response: Response,
    /// The body of it.
    content: Content,
    /// Whether its connection has carried another one before.
    reused: bool,
    /// What the requests before were answered.
    statuses: Vec<u16>,
}

impl Http {
    /// Writes the request that is next.
    fn ask(&mut self, out: &mut Vec<u8>) -> Progress {
        let Some(request) = self.check.requests.get(self.current) else {
            return Progress::Done(Outcome::Unable("an HTTP check without a request".to_owned()));
        };
        self.content = match Content::new(request) {
            Ok(content) => content,
            Err(why) => return Progress::Done(Outcome::Unable(why)),
        };
        self.response = Response::new(&request.method);
        let last = self.current + 1 == self.check.requests.len();
        request::write(request, &self.check, &self.target, last, out);
        Progress::Wait
    }

    fn bad(&self, reason: Reason, words: &str) -> Progress {
        match self.check.requests.get(self.current) {
            Some(HttpRequest { method, path, .. }) if self.check.requests.len() > 1 => {
                Progress::bad(reason, format!("{method} {path}: {words}"))
            }
            _ => Progress::bad(reason, words),
        }
    }

    /// The head of the answer is there: what it says of the status.
    fn judge_status(&self) -> Option<Progress> {
        let status = self.response.status();
        let wanted = &self.check.requests[self.current].status;
        let good = wanted.iter().any(|(first, last)| (*first..=*last).contains(&status));
        (!good).then(|| self.bad(Reason::Answer, &format!("status {status}, wanted {}", ranges(wanted))))
    }

    /// As much of the answer as is wanted is there. The connection can go on when `reusable`.
    fn whole(&mut self, reusable: bool, out: &mut Vec<u8>) -> Progress {
        if let Err((reason, words)) = self.content.judge() {
            return self.bad(reason, &words);
        }
        self.statuses.push(self.response.status());
        self.current += 1;
        if self.current == self.check.requests.len() {
            return Progress::Done(Outcome::good(self.praise()));
        }
        self.reused = reusable;
        if reusable { self.ask(out) } else { Progress::Reconnect }
    }

    fn praise(&self) -> String {
        let mut said: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        said.dedup();
        match self.statuses.len() {
            1 => format!("status {}", said[0]),
            count => format!("status {} to {count} requests", said.join(", ")),
        }
    }
}

/// `200-299 or 301`.
fn ranges(wanted: &[(u16, u16)]) -> String {
    let one = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    wanted.iter().map(one).collect::<Vec<_>>().join(" or ")
}

impl Dialogue for Http {
    fn begin(&mut self, out: &mut Vec<u8>) -> Progress {
        self.reused = false;
        self.ask(out)
    }

    fn received(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Progress {
        loop {
            let progress = match self.response.read(&mut bytes) {
                Read::More => return Progress::Wait,
                Read::Bad(reason, words) => return self.bad(reason, &words),
                Read::Head => self.judge_status().unwrap_or(Progress::Wait),
                Read::Body(part) if self.content.take(part) => self.whole(false, out),
                Read::Body(_) => Progress::Wait,
                Read::End => self.whole(self.response.is_reusable(), out),
            };
            if progress != Progress::Wait {
                return progress;
            }
        }
    }

    fn ended(&mut self) -> Progress {
        // An idle connection may be closed at any time (RFC 9112, 9.5): once more on a new one, which happens once.
        if self.reused && self.response.is_untouched() {
            return Progress::Reconnect;
        }
        match self.response.end() {
            Ok(()) => self.whole(false, &mut Vec::new()),
            Err((reason, words)) => self.bad(reason, &words),
        }
    }

    fn awaited(&self) -> &'static str {
        if self.response.is_untouched() { "reply" } else { "end of the reply" }
    }
}

#[cfg(test)]
mod tests;
