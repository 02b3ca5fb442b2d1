//! An HTTP/1 answer, read piece by piece (RFC 9112). Pure.
//!
//! Owns where its head, its body and each chunk end, and how much of everything but the body there may be. Bytes are
//! consumed up to a boundary and no further, so that it makes no difference how they were split.

use crate::health::Reason;
use crate::health::dialogue::{line, shown};

/// Most header lines of an answer.
pub const MOST_HEADERS: usize = 64;
/// Most bytes of an answer before its body; of the trailers behind a chunked one, too.
pub const MOST_HEAD_BYTES: usize = 16 << 10;
/// Most interim answers (1xx) before the one that counts.
const MOST_INTERIM: usize = 8;
/// Longest line with the size of a chunk, in bytes.
const LONGEST_CHUNK_LINE: usize = 256;
/// Bytes after which something that began otherwise is no HTTP, line end or not.
const LONGEST_NONSENSE: usize = 256;
const BEGINNING: &[u8] = b"HTTP/1.";

/// What was found. Only after [`Read::More`] further bytes are needed.
pub enum Read<'a> {
    /// Nothing whole: all bytes are consumed.
    More,
    /// The head is there: [`Response::status`] tells.
    Head,
    /// A part of the body.
    Body(&'a [u8]),
    /// The body was whole before.
    End,
    /// It is no answer of HTTP, or too large.
    Bad(Reason, String),
}

/// One answer.
pub struct Response {
    /// Whether the request was `HEAD`: the answer has no body, whatever it says.
    headless: bool,
    part: Part,
    /// Bytes of the head, up to the line that is not whole.
    head: Vec<u8>,
    /// Whether the line that is not whole has anything yet.
    line_empty: bool,
    /// Whether the first line was seen to be one of HTTP.
    begun: bool,
    interim: usize,
    status: u16,
    keeps: bool,
}

enum Part {
    Head,
    /// Bytes left, of how many.
    Length(u64, u64),
    Chunked(Chunk),
    /// Up to the end of the connection.
    Open,
    End,
}

enum Chunk {
    /// The line with the next size.
    Size(Vec<u8>),
    /// Bytes left of this one.
    Data(u64),
    /// The line end behind it; whether its CR was there.
    After(bool),
    /// Bytes of trailers so far; whether the line that is not whole has nothing yet.
    Trailers(usize, bool),
}

fn malformed<'a>(words: impl Into<String>) -> Read<'a> {
    Read::Bad(Reason::Malformed, words.into())
}

impl Response {
    /// Nothing read yet of the answer to a request with this method.
    pub fn new(method: &str) -> Response {
        Response {
            headless: method == "HEAD",
            part: Part::Head,
            head: Vec::new(),
            line_empty: true,
            begun: false,
            interim: 0,
            status: 0,
            keeps: false,
        }
    }

    /// Reads up to the next boundary.
    pub fn read<'a>(&mut self, bytes: &mut &'a [u8]) -> Read<'a> {
        match &mut self.part {
            Part::Head => self.read_head(bytes),
            Part::Length(0, _) => {
                self.part = Part::End;
                Read::End
            }
            _ if bytes.is_empty() => Read::More,
            Part::Length(left, _) => {
                let part = take(bytes, *left);
                *left -= part.len() as u64;
                Read::Body(part)
            }
            Part::Chunked(chunk) => {
                let read = chunk.read(bytes);
                if matches!(read, Read::End) {
                    self.part = Part::End;
                }
                read
            }
            Part::Open => Read::Body(std::mem::take(bytes)),
            Part::End => {
                *bytes = &[];
                Read::More
            }
        }
    }

    fn read_head<'a>(&mut self, bytes: &mut &'a [u8]) -> Read<'a> {
        while let Some((&byte, rest)) = bytes.split_first() {
            *bytes = rest;
            self.head.push(byte);
            let line_ends = byte == b'\n';
            if !self.begun && (line_ends && !self.line_empty || self.head.len() == LONGEST_NONSENSE) {
                self.begun = true;
                if !self.head.trim_ascii_start().starts_with(BEGINNING) {
                    return malformed(format!("not HTTP: {}", shown(self.head.trim_ascii_start())));
                }
            }
            if line_ends && self.line_empty && self.begun {
                match self.parse() {
                    Ok(true) => return Read::Head,
                    Ok(false) => {}
                    Err((reason, words)) => return Read::Bad(reason, words),
                }
                continue;
            }
            match byte {
                b'\n' => self.line_empty = true,
                b'\r' => {}
                _ => self.line_empty = false,
            }
            if self.head.len() == MOST_HEAD_BYTES {
                return Read::Bad(Reason::TooLarge, format!("more than {} KiB of header", MOST_HEAD_BYTES >> 10));
            }
        }
        Read::More
    }

    /// The head is whole. False when it was of an interim answer.
    fn parse(&mut self) -> Result<bool, (Reason, String)> {
        let head = std::mem::take(&mut self.head);
        (self.line_empty, self.begun) = (true, false);
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        match parsed.parse(&head) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Ok(_) => return Err((Reason::Malformed, "not HTTP: a header that does not end".to_owned())),
            Err(httparse::Error::TooManyHeaders) => {
                return Err((Reason::TooLarge, format!("more than {MOST_HEADERS} header lines")));
            }
            Err(error) => return Err((Reason::Malformed, format!("not HTTP: {error}"))),
        }
        self.status = parsed.code.unwrap_or(0);
        // After 101 another protocol is spoken: nothing of HTTP follows.
        if (100..200).contains(&self.status) && self.status != 101 {
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Err((Reason::TooLarge, format!("more than {MOST_INTERIM} interim answers")));
            }
            return Ok(false);
        }
        let fields = Fields::of(parsed.headers)?;
        let keeps = parsed.version == Some(1) && !fields.close && self.status != 101;
        self.part = if self.headless || matches!(self.status, 101 | 204 | 304) {
            Part::Length(0, 0)
        } else if fields.chunked {
            Part::Chunked(Chunk::Size(Vec::new()))
        } else if let (false, Some(length)) = (fields.encoded, fields.length) {
            Part::Length(length, length)
        } else {
            Part::Open
        };
        self.keeps = keeps && !matches!(self.part, Part::Open);
        Ok(true)
    }

    /// The status code, once the head was there.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the connection can carry another request when the body is whole.
    pub fn is_reusable(&self) -> bool {
        self.keeps
    }

    /// Whether not a byte of it has come.
    pub fn is_untouched(&self) -> bool {
        matches!(self.part, Part::Head) && self.head.is_empty() && self.interim == 0
    }

    /// The connection has ended: whether the answer is whole by that.
    pub fn end(&self) -> Result<(), (Reason, String)> {
        let words = match &self.part {
            Part::Head if self.is_untouched() => "closed without a reply".to_owned(),
            Part::Head if !self.begun && !could_begin(self.head.trim_ascii_start()) => {
                let words = format!("not HTTP: {}", shown(self.head.trim_ascii_start()));
                return Err((Reason::Malformed, words));
            }
            Part::Head => "closed within the header".to_owned(),
            Part::Length(left, length) => format!("closed after {} of {length} bytes of the body", length - left),
            Part::Chunked(_) => "closed before the body's last chunk".to_owned(),
            Part::Open | Part::End => return Ok(()),
        };
        Err((Reason::Closed, words))
    }
}

/// Whether an answer can begin so.
fn could_begin(text: &[u8]) -> bool {
    let known = text.len().min(BEGINNING.len());
    text[..known] == BEGINNING[..known]
}

/// The header fields that say how long the body is, and what becomes of the connection.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    encoded: bool,
    chunked: bool,
    close: bool,
}

impl Fields {
    fn of(headers: &[httparse::Header<'_>]) -> Result<Fields, (Reason, String)> {
        let mut fields = Fields::default();
        for header in headers {
            let value = String::from_utf8_lossy(header.value);
            let mut tokens = value.split(',').map(str::trim).filter(|token| !token.is_empty());
            if header.name.eq_ignore_ascii_case("content-length") {
                // The same number twice is taken, others are an error (RFC 9112, 6.3).
                for token in value.split(',').map(str::trim) {
                    let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
                    let number = token.parse::<u64>().ok().filter(|_| digits);
                    if number.is_none() || fields.length.is_some_and(|before| Some(before) != number) {
                        let words = format!("not HTTP: Content-Length `{}`", line(&value));
                        return Err((Reason::Malformed, words));
                    }
                    fields.length = number;
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                fields.encoded = true;
                fields.chunked = tokens.next_back().is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
            } else if header.name.eq_ignore_ascii_case("connection") {
                fields.close |= tokens.any(|token| token.eq_ignore_ascii_case("close"));
            }
        }
        Ok(fields)
    }
}

/// The first bytes, `most` of them at most.
fn take<'a>(bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
    let (part, rest) = bytes.split_at(usize::try_from(most).unwrap_or(usize::MAX).min(bytes.len()));
    *bytes = rest;
    part
}

impl Chunk {
    fn read<'a>(&mut self, bytes: &mut &'a [u8]) -> Read<'a> {
        loop {
            if let Chunk::Data(left) = self {
                let part = take(bytes, *left);
                *left -= part.len() as u64;
                if *left == 0 {
                    *self = Chunk::After(false);
                }
                return if part.is_empty() { Read::More } else { Read::Body(part) };
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Read::More };
            *bytes = rest;
            match self {
                Chunk::Size(text) if byte == b'\n' => match size(text) {
                    Some(0) => *self = Chunk::Trailers(0, true),
                    Some(size) => *self = Chunk::Data(size),
                    None => return malformed(format!("not HTTP: chunk size {}", shown(text))),
                },
                Chunk::Size(text) if text.len() == LONGEST_CHUNK_LINE => {
                    return Read::Bad(
                        Reason::TooLarge,
                        format!("a chunk line of more than {LONGEST_CHUNK_LINE} bytes"),
                    );
                }
                Chunk::Size(text) => text.push(byte),
                Chunk::After(false) if byte == b'\r' => *self = Chunk::After(true),
                Chunk::After(_) if byte == b'\n' => *self = Chunk::Size(Vec::new()),
                Chunk::After(_) | Chunk::Data(_) => return malformed("not HTTP: a chunk longer than it says"),
                Chunk::Trailers(_, true) if byte == b'\n' => return Read::End,
                Chunk::Trailers(length, _) if *length == MOST_HEAD_BYTES => {
                    return Read::Bad(Reason::TooLarge, format!("more than {} KiB of trailers", MOST_HEAD_BYTES >> 10));
                }
                Chunk::Trailers(length, empty) => {
                    *length += 1;
                    *empty = byte == b'\n' || *empty && byte == b'\r';
                }
            }
        }
    }
}

/// The number before the extensions (RFC 9112, 7.1).
fn size(text: &[u8]) -> Option<u64> {
    let digits = text.split(|byte| *byte == b';').next()?.trim_ascii();
    let hex = !digits.is_empty() && digits.len() <= 16 && digits.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| hex)?, 16).ok()
}
