//! What the body of an HTTP answer must have. Pure.
//!
//! Owns how much of it is read: to its end, but for no longer than is needed to tell. A text or an expression is looked for
//! in its first part only; a digest is of all of it, and so no larger body can have one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;

use md5::{Digest, Md5};
use regex::bytes::{Regex, RegexBuilder};

use crate::health::Reason;
use crate::health::dialogue::{line, shown};
use crate::model::{BodyMatch, HttpRequest};

/// Bytes of a body in which a text or an expression is looked for. Without a digest no more is read.
pub const MATCH_LIMIT: u64 = 256 << 10;
/// Bytes of the largest body that can have a digest.
pub const DIGEST_LIMIT: u64 = 8 << 20;
/// Bytes that a compiled expression may take, and as many for what it remembers while it searches.
const EXPRESSION_LIMIT: usize = 1 << 20;
/// Compiled expressions that a thread keeps: checks run again and again, and to compile takes longer than to search.
const MOST_EXPRESSIONS: usize = 512;

thread_local! {
    static EXPRESSIONS: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// Why a regular expression cannot be used; `None` when it can.
pub fn regex_problem(text: &str) -> Option<String> {
    compile(text).err()
}

fn compile(text: &str) -> Result<Regex, String> {
    EXPRESSIONS.with_borrow_mut(|known| {
        if let Some(regex) = known.get(text) {
            return Ok(regex.clone());
        }
        let regex = RegexBuilder::new(text)
            .size_limit(EXPRESSION_LIMIT)
            .dfa_size_limit(EXPRESSION_LIMIT)
            .build()
            .map_err(|error| reason(text, &error))?;
        if known.len() == MOST_EXPRESSIONS {
            known.clear();
        }
        known.insert(text.to_owned(), regex.clone());
        Ok(regex)
    })
}

/// What is wrong, in one line: the crate draws the place in several, and says what it is in the last.
fn reason(text: &str, error: &regex::Error) -> String {
    let words = match error {
        regex::Error::CompiledTooBig(_) => format!("it takes more than {} KiB", EXPRESSION_LIMIT >> 10),
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    format!("`{}` is no usable regular expression: {}", line(text), line(&words))
}

/// The body of one answer.
pub struct Content {
    wanted: Option<(BodyMatch, Regex)>,
    digest: Option<(Md5, [u8; 16])>,
    /// What is searched: the first [`MATCH_LIMIT`] bytes, where something is looked for.
    kept: Vec<u8>,
    /// Bytes that have come.
    length: u64,
}

impl Content {
    /// A body that may be what it likes.
    pub fn nothing() -> Content {
        Content { wanted: None, digest: None, kept: Vec::new(), length: 0 }
    }

    /// The body that answers a request.
    pub fn new(request: &HttpRequest) -> Result<Content, String> {
        let compiled = request.body.as_ref().map(|body| match body {
            BodyMatch::Text(text) => compile(&regex::escape(text)),
            BodyMatch::Regex(text) | BodyMatch::NotRegex(text) => compile(text),
        });
        let wanted = request.body.clone().zip(compiled.transpose()?);
        Ok(Content { wanted, digest: request.digest.map(|digest| (Md5::new(), digest)), ..Content::nothing() })
    }

    /// Takes the next part. True when no more is needed.
    pub fn take(&mut self, part: &[u8]) -> bool {
        self.length += part.len() as u64;
        if self.wanted.is_some() {
            let room = (MATCH_LIMIT as usize).saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&part[..part.len().min(room)]);
        }
        match &mut self.digest {
            None => self.length > MATCH_LIMIT,
            Some((digest, _)) => {
                digest.update(part);
                self.length > DIGEST_LIMIT
            }
        }
    }

    /// Whether what has come is what is wanted, or why not.
    pub fn judge(&mut self) -> Result<(), (Reason, String)> {
        if let Some((wanted, regex)) = &self.wanted {
            self::look(wanted, regex, &self.kept, self.length > MATCH_LIMIT)
                .map_err(|words| (Reason::Content, words))?;
        }
        let Some((digest, wanted)) = &mut self.digest else { return Ok(()) };
        if self.length > DIGEST_LIMIT {
            let words = format!("the body has more than {} MiB, too many for a digest", DIGEST_LIMIT >> 20);
            return Err((Reason::TooLarge, words));
        }
        let found = digest.finalize_reset();
        if found[..] != wanted[..] {
            return Err((Reason::Content, format!("digest {}, wanted {}", hex(&found), hex(wanted))));
        }
        Ok(())
    }
}

fn look(wanted: &BodyMatch, regex: &Regex, body: &[u8], cut: bool) -> Result<(), String> {
    let kib = MATCH_LIMIT >> 10;
    let found = regex.find(body);
    match (wanted, found) {
        (BodyMatch::Text(_) | BodyMatch::Regex(_), Some(_)) | (BodyMatch::NotRegex(_), None) => Ok(()),
        (BodyMatch::Text(text), None) if cut => {
            Err(format!("the first {kib} KiB of the body have no `{}`", line(text)))
        }
        (BodyMatch::Text(text), None) => Err(format!("the body has no `{}`", line(text))),
        (BodyMatch::Regex(text), None) if cut => {
            Err(format!("the first {kib} KiB of the body have no match of `{}`", line(text)))
        }
        (BodyMatch::Regex(text), None) => Err(format!("the body has no match of `{}`", line(text))),
        (BodyMatch::NotRegex(text), Some(found)) if found.is_empty() => {
            Err(format!("the body matches `{}`", line(text)))
        }
        (BodyMatch::NotRegex(text), Some(found)) => {
            Err(format!("the body has {}, which matches `{}`", shown(found.as_bytes()), line(text)))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
