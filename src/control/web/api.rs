//! `/api`: the control socket's protocol over HTTP.
//!
//! Owns the way from a request to a line of the socket's protocol, and from its answer to a status code. What a command means is
//! the control loop's affair: it gets one end of a pair of sockets and serves it as it serves its other clients.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWrite as _, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tracing::info;

use super::Asked;
use super::auth::Visitor;
use super::routes::{Body, Site, of_type};
use crate::control::socket::{self, Answer, Code, Command, MAX_ADMIN_LINE, MAX_LINE, VERSION, roles};
use crate::control::status::parts::Question;
use crate::model::Role;

/// How long the control loop may take to begin an answer: one that waits for events takes 20 s.
const ANSWER: Duration = Duration::from_secs(60);

/// How long a client may take to send a request's body.
const BODY: Duration = Duration::from_secs(20);

/// Longest answer that is looked at whole for its code: refusals are short.
const LONGEST_REFUSAL: usize = 16 << 20;

/// Bytes that are taken from the control loop at once.
const PIECE: usize = 16 << 10;

/// Options that are texts, whatever they look like: a service may be named `80`.
const TEXTS: [&str; 9] = ["service", "server", "client", "to", "protocol", "state", "action", "group", "capture"];

/// Answers a request for `/api` or something below; `rest` is the path behind it, without slashes at its ends.
pub(super) async fn answer(
    site: &Arc<Site>,
    visitor: &Visitor,
    rest: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let line = match (request.method(), rest) {
        (&Method::GET | &Method::HEAD, "me") => return me(visitor),
        (&Method::GET | &Method::HEAD, "") => {
            return refused(
                Code::Invalid,
                "GET /api/COMMAND asks what changes nothing, such as /api/status; POST /api takes one request of the \
                 control socket as JSON",
            );
        }
        (&Method::GET | &Method::HEAD, command) => match line_of(command, request.uri().query().unwrap_or_default()) {
            Ok(line) => line,
            Err(why) => return refused(Code::Invalid, &why),
        },
        (&Method::POST, "") => match posted(request.headers().clone(), request.into_body(), visitor.role).await {
            Ok(line) => return ask(site, visitor, &line, false).await,
            Err(answer) => return answer,
        },
        _ => {
            return refused_as(StatusCode::METHOD_NOT_ALLOWED, Code::Invalid, "POST goes to /api, and all else is GET");
        }
    };
    ask(site, visitor, &line, *request.method() == Method::GET).await
}

/// Who asks.
fn me(visitor: &Visitor) -> Response<Body> {
    let role = match visitor.role {
        Role::Reader => "reader",
        Role::Admin => "admin",
    };
    let bytes = json!({ "name": visitor.name, "role": role }).to_string();
    of_type(StatusCode::OK, "application/json", bytes.into())
}

/// The request's line of `/api/COMMAND?option=value`.
pub(super) fn line_of(command: &str, query: &str) -> Result<Vec<u8>, String> {
    let mut options = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let value = match name.as_ref() {
            "parts" if !value.starts_with('[') => {
                value.split(',').filter(|part| !part.is_empty()).map(Value::from).collect()
            }
            // `?follow` is `?follow=true`.
            _ if value.is_empty() => Value::Bool(true),
            text if TEXTS.contains(&text) && !value.starts_with('"') => Value::from(value.as_ref()),
            _ => serde_json::from_str(&value).unwrap_or_else(|_| Value::from(value.as_ref())),
        };
        if options.insert(name.to_string(), value).is_some() {
            return Err(format!("the option `{}` is there twice", crate::control::naming::cut(&name)));
        }
    }
    Ok(json!({ "version": VERSION, "command": command, "options": options }).to_string().into_bytes())
}

/// The body of a POST.
async fn posted(headers: HeaderMap, body: Incoming, role: Role) -> Result<Vec<u8>, Response<Body>> {
    // A form of another site cannot send this type without asking first, and asking is not answered here.
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(refused(Code::Invalid, "a POST needs the header `Content-Type: application/json`"));
    }
    let most = if role == Role::Admin { MAX_ADMIN_LINE } else { MAX_LINE };
    let too_long = || {
        let why = format!("a request is at most {most} bytes");
        refused_as(StatusCode::PAYLOAD_TOO_LARGE, Code::Invalid, &why)
    };
    if body.size_hint().lower() > most as u64 {
        return Err(too_long());
    }
    match timeout(BODY, Limited::new(body, most).collect()).await {
        Err(_) => {
            let why = format!("the body of the request did not come within {} s", BODY.as_secs());
            Err(refused_as(StatusCode::REQUEST_TIMEOUT, Code::Invalid, &why))
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
        Ok(Err(error)) => Err(refused(Code::Invalid, &format!("the body of the request cannot be read: {error}"))),
        Ok(Ok(whole)) => Ok(whole.to_bytes().to_vec()),
    }
}

/// Puts a request to the control loop. `stream`: one that follows events is answered line by line until its client goes.
async fn ask(site: &Arc<Site>, visitor: &Visitor, line: &[u8], stream: bool) -> Response<Body> {
    let request = match socket::parse_request(line) {
        Ok(request) => request,
        Err(why) => return refused(Code::Invalid, &why),
    };
    let needed = roles::needed(&request);
    let name = request.command.name();
    if visitor.role < needed {
        return refused(Code::Denied, &denial(visitor, name));
    }
    if needed == Role::Admin {
        info!("web: `{name}` asked for by {visitor}");
    }
    if request.command == Command::Status {
        match Question::read(&request.options) {
            Err(why) => return refused(Code::Invalid, &why),
            Ok(asked) => {
                if let Some(answer) = site.pictured(&asked).await {
                    return answer;
                }
            }
        }
    }
    let follows = request.options.get("follow") == Some(&Value::Bool(true));
    let room = if follows { &site.memory.rooms.followers } else { &site.memory.rooms.askers };
    let Ok(place) = Arc::clone(room).try_acquire_owned() else {
        return busy("too many requests wait for the control loop already; try again");
    };
    let mut compact = json!({ "version": VERSION, "command": name, "options": request.options }).to_string();
    compact.push('\n');
    let mut asking = match Asking::open(site, visitor.role, compact.as_bytes(), place).await {
        Ok(asking) => asking,
        Err(why) => return busy(&why),
    };
    asking.again = (stream && follows && request.command == Command::Events).then_some(request.options);
    match timeout(ANSWER, asking.first()).await {
        Err(_) => busy("the control loop does not answer"),
        Ok(Err(error)) => busy(&format!("the control loop does not answer: {error}")),
        Ok(Ok(status)) => {
            let kind = if asking.again.is_some() { "application/x-ndjson" } else { "application/json" };
            let mut response = Response::new(Body::Right(asking));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            response
        }
    }
}

fn denial(visitor: &Visitor, command: &str) -> String {
    match &visitor.name {
        Some(name) => format!(
            "{name} may ask, and not change anything: this `{command}` is for admins; `admins` in `[web]` says who is one"
        ),
        None => format!(
            "this `{command}` is for admins, and nobody is one here: `users` and `admins` in `[web]` let somebody in by password"
        ),
    }
}

/// What became of a request, as a status code.
pub(super) const fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Invalid => StatusCode::BAD_REQUEST,
        Code::Denied => StatusCode::FORBIDDEN,
        Code::NoService | Code::NoServer => StatusCode::NOT_FOUND,
        Code::ServiceExists | Code::ServerExists => StatusCode::CONFLICT,
        Code::Failed => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A refusal in the form of the control socket's.
pub(super) fn refused(code: Code, why: &str) -> Response<Body> {
    refused_as(status_of(code), code, why)
}

/// The same with a status code of its own.
pub(super) fn refused_as(status: StatusCode, code: Code, why: &str) -> Response<Body> {
    of_type(status, "application/json", Answer::refused_as(code, why).line().into())
}

/// What the control loop is too busy for, or does not answer.
pub(super) fn busy(why: &str) -> Response<Body> {
    let mut response = refused(Code::Failed, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The status code of the first bytes of an answer's line, where they are enough to tell.
fn begins(line: &[u8]) -> Option<StatusCode> {
    line.starts_with(br#"{"answer":"#).then_some(StatusCode::OK)
}

/// The status code of a whole line.
fn judged(line: &[u8]) -> StatusCode {
    #[derive(serde::Deserialize)]
    struct Said {
        ok: bool,
        #[serde(default)]
        code: Code,
    }
    match serde_json::from_slice::<Said>(line) {
        Ok(Said { ok: true, .. }) => StatusCode::OK,
        Ok(said) => status_of(said.code),
        Err(_) => StatusCode::BAD_GATEWAY,
    }
}

/// A client of the control loop whose answer goes on to a client of the web listener, piece by piece.
#[derive(Debug)]
pub(super) struct Asking {
    stream: UnixStream,
    /// What was read and not passed on.
    piece: BytesMut,
    /// The line's end was read.
    ended: bool,
    /// Options of a request for events that is made again and again.
    again: Option<Map<String, Value>>,
    /// The last line as far as it came, to know which events are next.
    line: Vec<u8>,
    /// The next request, and how much of it is written.
    asked: Option<(Vec<u8>, usize)>,
    /// Its place among those that ask.
    _place: OwnedSemaphorePermit,
}

impl Asking {
    async fn open(site: &Site, role: Role, line: &[u8], place: OwnedSemaphorePermit) -> Result<Asking, String> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|error| format!("no sockets: {error}"))?;
        ours.set_nonblocking(true).map_err(|error| format!("no sockets: {error}"))?;
        let mut stream = UnixStream::from_std(ours).map_err(|error| format!("no sockets: {error}"))?;
        site.ask(Asked::Client(theirs, role))?;
        match timeout(ANSWER, stream.write_all(line)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("the control loop does not take the request: {error}")),
            Err(_) => return Err("the control loop does not take the request".to_owned()),
        }
        let (piece, line) = (BytesMut::new(), Vec::new());
        Ok(Asking { stream, piece, ended: false, again: None, line, asked: None, _place: place })
    }

    /// Reads as much as tells the status code.
    async fn first(&mut self) -> io::Result<StatusCode> {
        loop {
            self.piece.reserve(PIECE);
            if self.stream.read_buf(&mut self.piece).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let whole = self.piece.ends_with(b"\n");
            self.ended = whole;
            if let Some(status) = begins(&self.piece) {
                return Ok(status);
            }
            if whole || self.piece.len() > LONGEST_REFUSAL {
                // A refusal is not followed.
                self.again = None;
                return Ok(judged(&self.piece));
            }
        }
    }

    /// Notes what is passed on, and asks for the next events where the line has ended.
    fn passed(&mut self, piece: &[u8]) {
        let Some(options) = &mut self.again else { return };
        self.line.extend_from_slice(piece);
        if !self.ended {
            return;
        }
        let next = serde_json::from_slice::<Value>(&self.line).ok().and_then(|said| said["answer"]["next"].as_u64());
        self.line = Vec::new();
        let Some(next) = next else {
            self.again = None;
            return;
        };
        options.insert("since".to_owned(), next.into());
        let command = Command::Events.name();
        let mut line = json!({ "version": VERSION, "command": command, "options": options }).to_string();
        line.push('\n');
        self.asked = Some((line.into_bytes(), 0));
        self.ended = false;
    }
}

impl hyper::body::Body for Asking {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.piece.is_empty() {
            if this.ended {
                return Poll::Ready(None);
            }
            while let Some((line, written)) = &mut this.asked {
                let left = line.get(*written..).unwrap_or_default();
                if left.is_empty() {
                    this.asked = None;
                    break;
                }
                *written += ready!(Pin::new(&mut this.stream).poll_write(context, left))?;
            }
            this.piece.reserve(PIECE);
            let mut read = std::pin::pin!(this.stream.read_buf(&mut this.piece));
            if ready!(Future::poll(read.as_mut(), context))? == 0 {
                // In the middle of an answer: the client must not take it for whole.
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            }
            this.ended = this.piece.ends_with(b"\n");
        }
        let piece = this.piece.split().freeze();
        this.passed(&piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.piece.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended && self.again.is_none() {
            SizeHint::with_exact(self.piece.len() as u64)
        } else {
            SizeHint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(command: &str, query: &str) -> Value {
        serde_json::from_slice(&line_of(command, query).expect("is read")).expect("JSON")
    }

    #[test]
    fn a_query_becomes_a_request() {
        for (command, query, options) in [
            ("status", "", json!({})),
            ("status", "parts=services,drops&service=web", json!({ "parts": ["services", "drops"], "service": "web" })),
            ("status", "parts=%5B%22drops%22%5D", json!({ "parts": ["drops"] })),
            ("status", "parts=", json!({ "parts": [] })),
            ("status", "service=80", json!({ "service": "80" })),
            ("status", "service=tcp+192.0.2.10%3A80", json!({ "service": "tcp 192.0.2.10:80" })),
            ("status", "service=%22a%22", json!({ "service": "a" })),
            ("flows", "limit=7&count", json!({ "limit": 7, "count": true })),
            ("flows", "client=10.0.0.0/8", json!({ "client": "10.0.0.0/8" })),
            ("reload", "dry_run=true", json!({ "dry_run": true })),
            ("events", "since=18446744073709551615&follow=false", json!({ "since": u64::MAX, "follow": false })),
            ("events", "since=%FF%00%0A", json!({ "since": "\u{fffd}\0\n" })),
        ] {
            assert_eq!(parsed(command, query), json!({ "version": 1, "command": command, "options": options }));
        }
        assert!(line_of("status", "service=a&service=b").unwrap_err().contains("`service` is there twice"));
        let long = line_of("status", &format!("{0}&{0}", "x".repeat(9000))).unwrap_err();
        assert!(long.len() < 300, "{}", long.len());
        assert!(!line_of("a\nb", "x=%0A").unwrap().contains(&b'\n'));
    }

    #[test]
    fn the_beginning_of_an_answer_tells_its_status() {
        let done = Answer::Done(json!({ "x": "y".repeat(100_000) })).line();
        assert_eq!((begins(&done[..20]), judged(&done)), (Some(StatusCode::OK), StatusCode::OK));
        for (code, status) in [
            (Code::Invalid, 400),
            (Code::Denied, 403),
            (Code::NoService, 404),
            (Code::NoServer, 404),
            (Code::ServiceExists, 409),
            (Code::ServerExists, 409),
            (Code::Failed, 503),
        ] {
            let line = Answer::refused_as(code, "no").line();
            assert_eq!((begins(&line), judged(&line).as_u16()), (None, status));
        }
        assert_eq!(judged(b"{\"ok\":"), StatusCode::BAD_GATEWAY);
    }
}
