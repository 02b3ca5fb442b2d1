//! `grpc.health.v1.Health/Check` over HTTP/2 (the gRPC health checking protocol; RFC 9113). Pure.
//!
//! Owns the call and what its answer means. HTTP/2 is the crate h2's, which speaks to a pipe in memory: whoever carries the
//! bytes needs no runtime, and nothing here waits. It is fed one whole frame after the other.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use ::http::{HeaderMap, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, client};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use super::{Dialogue, Progress, line, shown};
use crate::health::{Outcome, Reason};
use crate::model::{CheckTarget, GrpcCheck};

/// Bytes that a whole conversation may have: whatever frames it is made of, no more is kept or answered.
pub const MOST_BYTES: usize = 256 << 10;
/// Bytes of the longest frame, without its header: the least that one must take (RFC 9113, 4.2).
const LONGEST_FRAME: usize = 16 << 10;
/// Bytes before each frame.
const FRAME_HEADER: usize = 9;
/// Bytes of all header fields of an answer, or of its trailers.
const MOST_HEADER_BYTES: u32 = 16 << 10;
/// Bytes of the answer: one number, and what later versions may add.
const MOST_MESSAGE: usize = 4 << 10;
/// Bytes that the pipe to h2 holds.
const PIPE: usize = 4 << 10;
const PATH: &str = "/grpc.health.v1.Health/Check";

/// The conversation of a `grpc` check.
pub fn grpc(check: &GrpcCheck, target: &CheckTarget) -> Box<dyn Dialogue> {
    Box::new(Grpc { check: check.clone(), target: target.clone(), call: None, frame: Vec::new(), received: 0 })
}

struct Grpc {
    check: GrpcCheck,
    target: CheckTarget,
    /// The call, once the connection is there.
    call: Option<Call>,
    /// The frame that is not whole.
    frame: Vec<u8>,
    /// Bytes that came.
    received: usize,
}

/// The call, and h2 that carries it.
struct Call {
    pipe: DuplexStream,
    connection: Connection<DuplexStream, Bytes>,
    /// Without it h2 would say goodbye.
    _requests: SendRequest<Bytes>,
    /// How h2 has ended.
    ended: Option<Result<(), h2::Error>>,
    step: Step,
}

enum Step {
    Head(ResponseFuture),
    Body(RecvStream, Vec<u8>),
}

fn nothing_waits() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Grpc {
    fn request(&self) -> Result<Request<()>, ::http::Error> {
        let address = std::net::SocketAddr::new(self.target.address, self.target.port).to_string();
        let uri = Uri::builder()
            .scheme(if self.check.tls.is_some() { "https" } else { "http" })
            .authority(self.check.authority.as_deref().unwrap_or(&address))
            .path_and_query(PATH)
            .build()?;
        Request::post(uri)
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("user-agent", "evenkeel")
            .body(())
    }

    /// One whole frame, or none, is given to h2; then the answer is looked for.
    fn step(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Progress {
        let Some(call) = &mut self.call else { return Progress::Wait };
        call.carry(frame, out);
        match call.look() {
            Some(outcome) => Progress::Done(outcome),
            None => Progress::Wait,
        }
    }
}

impl Dialogue for Grpc {
    fn begin(&mut self, out: &mut Vec<u8>) -> Progress {
        self.frame.clear();
        let call = match self.request() {
            Ok(request) => Call::begin(request, message(&self.check.service)),
            Err(error) => Err(format!("no gRPC request can be made: {error}")),
        };
        match call {
            Ok(call) => self.call = Some(call),
            Err(why) => return Progress::Done(Outcome::Unable(why)),
        }
        self.step(&[], out)
    }

    fn received(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Progress {
        while !bytes.is_empty() {
            let first = self.received == self.frame.len();
            let wanted = match self.frame.get(..3) {
                Some(length) if self.frame.len() >= FRAME_HEADER => {
                    FRAME_HEADER + length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
                }
                _ => FRAME_HEADER,
            };
            let (part, rest) = bytes.split_at((wanted - self.frame.len()).min(bytes.len()));
            bytes = rest;
            self.frame.extend_from_slice(part);
            self.received += part.len();
            if self.received > MOST_BYTES {
                let words = format!("more than {} KiB without an answer", MOST_BYTES >> 10);
                return Progress::bad(Reason::TooLarge, words);
            }
            if self.frame.len() < wanted {
                return Progress::Wait;
            }
            if wanted == FRAME_HEADER {
                let length = self.frame[..3].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                if length > LONGEST_FRAME {
                    return if first {
                        Progress::bad(Reason::Malformed, format!("not HTTP/2: {}", shown(&self.frame)))
                    } else {
                        Progress::bad(Reason::TooLarge, format!("a frame of {length} bytes"))
                    };
                }
                if length > 0 {
                    continue;
                }
            }
            let frame = std::mem::take(&mut self.frame);
            match self.step(&frame, out) {
                Progress::Wait => {}
                other => return other,
            }
        }
        Progress::Wait
    }

    fn ended(&mut self) -> Progress {
        if let Some(call) = &mut self.call {
            let _ = Pin::new(&mut call.pipe).poll_shutdown(&mut nothing_waits());
        }
        match self.step(&[], &mut Vec::new()) {
            Progress::Wait => Progress::bad(Reason::Closed, "closed without an answer"),
            other => other,
        }
    }

    fn alpn(&self) -> &'static [&'static [u8]] {
        &[b"h2"]
    }
}

impl Call {
    /// Connects h2 to a pipe and makes the request.
    fn begin(request: Request<()>, message: Bytes) -> Result<Call, String> {
        let (pipe, theirs) = duplex(PIPE);
        let mut builder = client::Builder::new();
        builder.enable_push(false).max_frame_size(LONGEST_FRAME as u32).max_header_list_size(MOST_HEADER_BYTES);
        let failed = |error: h2::Error| format!("no HTTP/2 request can be made: {error}");
        // The pipe has room for all that is written here.
        let Poll::Ready(made) = pin!(builder.handshake::<_, Bytes>(theirs)).poll(&mut nothing_waits()) else {
            return Err("HTTP/2 does not begin".to_owned());
        };
        let (mut requests, connection) = made.map_err(failed)?;
        let (head, mut body) = requests.send_request(request, false).map_err(failed)?;
        body.send_data(message, true).map_err(failed)?;
        Ok(Call { pipe, connection, _requests: requests, ended: None, step: Step::Head(head) })
    }

    /// Gives h2 what came and takes what it sends, until neither has more to do.
    fn carry(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let context = &mut nothing_waits();
        loop {
            let mut moved = false;
            if let (false, Poll::Ready(Ok(count))) =
                (bytes.is_empty(), Pin::new(&mut self.pipe).poll_write(context, bytes))
            {
                bytes = &bytes[count..];
                moved = count > 0;
            }
            if self.ended.is_none()
                && let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(context)
            {
                self.ended = Some(ended);
            }
            let mut space = [0; PIPE];
            let mut read = ReadBuf::new(&mut space);
            if Pin::new(&mut self.pipe).poll_read(context, &mut read).is_ready() && !read.filled().is_empty() {
                out.extend_from_slice(read.filled());
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// The outcome, as soon as there is one.
    fn look(&mut self) -> Option<Outcome> {
        let context = &mut nothing_waits();
        loop {
            match &mut self.step {
                Step::Head(head) => match Pin::new(head).poll(context) {
                    Poll::Pending => break,
                    Poll::Ready(Err(error)) => return Some(failed(&error)),
                    Poll::Ready(Ok(response)) => match judge_head(&response) {
                        Some(outcome) => return Some(outcome),
                        None => self.step = Step::Body(response.into_body(), Vec::new()),
                    },
                },
                Step::Body(stream, message) => match stream.poll_data(context) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Err(error))) => return Some(failed(&error)),
                    Poll::Ready(Some(Ok(part))) => {
                        message.extend_from_slice(&part);
                        if message.len() > MOST_MESSAGE {
                            let words = format!("an answer of more than {MOST_MESSAGE} bytes");
                            return Some(Outcome::bad(Reason::TooLarge, words));
                        }
                        let _ = stream.flow_control().release_capacity(part.len());
                    }
                    Poll::Ready(None) => match stream.poll_trailers(context) {
                        Poll::Pending => break,
                        Poll::Ready(Err(error)) => return Some(failed(&error)),
                        Poll::Ready(Ok(trailers)) => return Some(judge(trailers.as_ref(), message)),
                    },
                },
            }
        }
        match self.ended.take()? {
            Ok(()) => Some(Outcome::bad(Reason::Closed, "closed without an answer")),
            Err(error) => Some(failed(&error)),
        }
    }
}

/// What h2 makes of it, in words.
fn failed(error: &h2::Error) -> Outcome {
    match error.reason() {
        Some(reason) if error.is_remote() && error.is_reset() => {
            Outcome::bad(Reason::Closed, format!("the server reset the call: {reason}"))
        }
        Some(reason) if error.is_remote() => {
            Outcome::bad(Reason::Closed, format!("the server ended the connection: {reason}"))
        }
        Some(reason) => Outcome::bad(Reason::Malformed, format!("not HTTP/2: {reason}")),
        None if error.is_io() => Outcome::bad(Reason::Closed, "closed without an answer"),
        None => Outcome::bad(Reason::Malformed, format!("not HTTP/2: {}", line(&error.to_string()))),
    }
}

/// What the head alone says: `None` where the body and the trailers must be waited for.
fn judge_head(response: &Response<RecvStream>) -> Option<Outcome> {
    let (status, headers) = (response.status(), response.headers());
    if let Some(outcome) = judge_status(headers) {
        return Some(outcome);
    }
    if status != StatusCode::OK {
        return Some(Outcome::bad(Reason::Answer, format!("HTTP status {}, wanted 200", status.as_u16())));
    }
    let kind = headers.get("content-type").map_or(&b""[..], |kind| kind.as_bytes());
    if !kind.starts_with(b"application/grpc") {
        return Some(Outcome::bad(Reason::Malformed, format!("not gRPC: content type {}", shown(kind))));
    }
    None
}

/// The status of the call, where it is there and no success.
fn judge_status(headers: &HeaderMap) -> Option<Outcome> {
    let status = headers.get("grpc-status")?.as_bytes();
    if status == b"0" {
        return None;
    }
    let number = std::str::from_utf8(status).ok().and_then(|text| text.parse::<u16>().ok());
    let Some(number) = number else {
        return Some(Outcome::bad(Reason::Malformed, format!("not gRPC: status {}", shown(status))));
    };
    let name = STATUSES.get(usize::from(number)).map_or(String::new(), |name| format!(" ({name})"));
    let words = match headers.get("grpc-message").map(|text| line(&decoded(text.as_bytes()))) {
        Some(text) if !text.is_empty() => format!("grpc status {number}{name}: {text}"),
        _ => format!("grpc status {number}{name}"),
    };
    Some(Outcome::bad(Reason::Answer, words))
}

/// The names of the statuses, by number.
const STATUSES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid argument",
    "deadline exceeded",
    "not found",
    "already exists",
    "permission denied",
    "resource exhausted",
    "failed precondition",
    "aborted",
    "out of range",
    "unimplemented",
    "internal",
    "unavailable",
    "data loss",
    "unauthenticated",
];

/// Text without its percent signs.
fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|hex| byte == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The whole answer.
fn judge(trailers: Option<&HeaderMap>, message: &[u8]) -> Outcome {
    if let Some(outcome) = trailers.and_then(judge_status) {
        return outcome;
    }
    if trailers.is_none_or(|trailers| !trailers.contains_key("grpc-status")) {
        return Outcome::bad(Reason::Malformed, "not gRPC: no status behind the answer");
    }
    match serving(message) {
        Err(why) => Outcome::bad(Reason::Malformed, format!("answer not understood: {why}")),
        Ok(1) => Outcome::good("SERVING"),
        Ok(0) => Outcome::bad(Reason::Answer, "UNKNOWN"),
        Ok(2) => Outcome::bad(Reason::Answer, "NOT_SERVING"),
        Ok(3) => Outcome::bad(Reason::Answer, "SERVICE_UNKNOWN"),
        Ok(other) => Outcome::bad(Reason::Answer, format!("serving status {other}")),
    }
}

/// `HealthCheckRequest` with the five bytes that gRPC puts before each message.
fn message(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// The status in a `HealthCheckResponse`; what is not said is 0.
fn serving(framed: &[u8]) -> Result<u64, &'static str> {
    let Some((head, mut message)) = framed.split_first_chunk::<5>() else { return Err("no whole message") };
    if head[0] != 0 {
        return Err("it is compressed");
    }
    if u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize != message.len() {
        return Err("it is not as long as it says");
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let skipped = match (key >> 3, key & 7) {
            (1, 0) => {
                status = varint(&mut message)?;
                0
            }
            (_, 0) => varint(&mut message).map(|_| 0)?,
            (_, 1) => 8,
            (_, 2) => varint(&mut message)?,
            (_, 5) => 4,
            _ => return Err("a field of no known kind"),
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        message = message.get(skipped..).ok_or("it ends within a field")?;
    }
    Ok(status)
}

fn varint(message: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0;
    for shift in 0..10 {
        let Some((&byte, rest)) = message.split_first() else { break };
        *message = rest;
        value |= u64::from(byte & 0x7f) << (shift * 7);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number that does not end")
}

#[cfg(test)]
mod tests;
