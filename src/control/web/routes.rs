//! What there is under which path.
//!
//! Owns paths and the form of answers. Never opens a socket.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::Sender;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::api::{self, Asking};
use super::auth::{Door, Refusal, lock};
use super::guard;
use super::limits::{Attempts, Noise, Tally};
use super::metrics::{self, Format, Wanted};
use super::{Asked, Wake, page};
use crate::control::socket::{Answer, Code};
use crate::control::status::Status;
use crate::control::status::parts::{self, Part, Question};
use crate::model;

/// How long the control loop may take to answer a question about itself: it turns every second, and much more often with clients.
const LOOP: Duration = Duration::from_secs(5);

/// Requests that the control loop is asked at once.
const ASKERS: usize = 64;

/// The same for those that wait for events.
const FOLLOWERS: usize = 32;

/// Places among those that ask.
pub(super) struct Rooms {
    /// Who is answered soon.
    pub askers: Arc<Semaphore>,
    /// Who waits for events.
    pub followers: Arc<Semaphore>,
}

impl Default for Rooms {
    fn default() -> Rooms {
        Rooms { askers: Arc::new(Semaphore::new(ASKERS)), followers: Arc::new(Semaphore::new(FOLLOWERS)) }
    }
}

/// What stays as it is when the configuration changes.
#[derive(Default)]
pub(super) struct Memory {
    /// Counters.
    pub tally: Tally,
    /// Places among those that ask.
    pub rooms: Rooms,
    /// Passwords that may be tried.
    pub attempts: Mutex<Attempts>,
    /// What was said of them.
    pub noise: Mutex<Noise>,
    /// Why nothing listens where it should, if so.
    pub trouble: Mutex<Option<String>>,
}

/// The members of a picture as JSON.
type Members = Vec<(Part, Bytes)>;

/// What all answers need.
pub(super) struct Site {
    /// The control loop.
    pub asks: Sender<Asked>,
    /// Wakes it.
    pub wake: Wake,
    /// Who gets in.
    pub door: Door,
    /// This machine's name.
    pub machine: String,
    /// Counters and what is remembered of clients.
    pub memory: Arc<Memory>,
    /// The last picture that was put into words.
    pub drawn: Mutex<Option<(Arc<Status>, Arc<Members>)>>,
}

impl Site {
    /// For a configuration.
    pub fn new(web: &model::Web, asks: Sender<Asked>, wake: Wake, memory: Arc<Memory>) -> Site {
        let door = Door::new(web.users.clone());
        let machine = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        Site { asks, wake, door, machine, memory, drawn: Mutex::default() }
    }

    /// Puts something to the control loop.
    ///
    /// # Errors
    /// It ends, or does not answer any more.
    pub fn ask(&self, asked: Asked) -> Result<(), String> {
        use crossbeam::channel::TrySendError;
        let sent = self.asks.try_send(asked).map_err(|error| match error {
            TrySendError::Full(_) => "the control loop does not answer: too much waits for it already".to_owned(),
            TrySendError::Disconnected(_) => "the engine ends".to_owned(),
        });
        (self.wake)();
        sent
    }

    /// The engine as it is now, or was a moment ago; `None`: it ends, or its control loop does not answer within 5 s.
    pub async fn picture(&self) -> Option<Arc<Status>> {
        let (to, answer) = oneshot::channel();
        self.ask(Asked::Picture(to)).ok()?;
        timeout(LOOP, answer).await.ok()?.ok()
    }

    /// The answer to a question about the status, where a picture has it: then it costs the control loop next to nothing, however
    /// many ask.
    pub async fn pictured(&self, asked: &Question) -> Option<Response<Body>> {
        let rare = |part: &Part| matches!(part, Part::Neighbors | Part::DropsByWorker);
        if asked.is_narrow() || asked.parts.as_ref().is_some_and(|parts| parts.iter().any(rare)) {
            return None;
        }
        let Some(picture) = self.picture().await else {
            return Some(api::busy("the control loop does not answer"));
        };
        let members = self.members(&picture)?;
        let kept = |part: Part| members.iter().find(|(of, _)| *of == part).map(|(_, bytes)| bytes);
        let text = parts::object(
            |part| asked.wants(part) && kept(part).is_some(),
            |part, out| {
                out.extend_from_slice(kept(part).map_or(&[], |bytes| bytes));
                Ok(())
            },
        );
        Some(of_type(StatusCode::OK, "application/json", Answer::Written(text.ok()?).line().into()))
    }

    fn members(&self, picture: &Arc<Status>) -> Option<Arc<Members>> {
        let mut drawn = lock(&self.drawn);
        if let Some((of, members)) = &*drawn
            && Arc::ptr_eq(of, picture)
        {
            return Some(Arc::clone(members));
        }
        let mut members = Members::new();
        for part in Part::ALL.iter().copied().filter(|part| picture.has(*part)) {
            let mut bytes = Vec::new();
            picture.write_part(part, &mut bytes).ok()?;
            members.push((part, bytes.into()));
        }
        let members = Arc::new(members);
        *drawn = Some((Arc::clone(picture), Arc::clone(&members)));
        Some(members)
    }
}

/// An answer's body: there as a whole, or on its way from the control loop.
pub(super) type Body = Either<Full<Bytes>, Asking>;

/// Answers a request of a client at an address.
pub(super) async fn answer(site: &Arc<Site>, from: IpAddr, request: Request<Incoming>) -> Response<Body> {
    site.memory.tally.requests.add();
    let mut response = judge(site, from, request).await;
    if response.status() == StatusCode::BAD_REQUEST {
        site.memory.tally.bad_requests.add();
    }
    guard::complete(response.headers_mut());
    response
}

/// Who may not be answered is told so.
async fn judge(site: &Arc<Site>, from: IpAddr, request: Request<Incoming>) -> Response<Body> {
    let whole = request.uri().path().to_owned();
    let path = whole.trim_end_matches('/');
    let is_api = path == "/api" || path.starts_with("/api/");
    let refused = |status, code, why: &str| match is_api {
        true => api::refused_as(status, code, why),
        false => text(status, format!("{why}\n")),
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if *request.method() == Method::OPTIONS || !(reads || is_api && *request.method() == Method::POST) {
        let allowed = if path == "/api" { "GET, HEAD, OPTIONS, POST" } else { "GET, HEAD, OPTIONS" };
        let mut response = match *request.method() {
            Method::OPTIONS => text(StatusCode::NO_CONTENT, ""),
            _ => refused(StatusCode::METHOD_NOT_ALLOWED, Code::Invalid, "there is nothing here for this method"),
        };
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
    // Says nothing that is worth a secret.
    if path == "/healthz" {
        return healthz(site).await;
    }
    if !site.door.asks()
        && let Some(why) = guard::foreign_host(request.headers(), &site.machine)
    {
        return refused(StatusCode::FORBIDDEN, Code::Denied, &why);
    }
    if !reads && let Some(why) = guard::foreign_page(request.headers()) {
        return refused(StatusCode::FORBIDDEN, Code::Denied, why);
    }
    let memory = &site.memory;
    let visitor = site.door.enter(request.headers(), from, &memory.attempts, &memory.noise, &memory.tally).await;
    let visitor = match visitor {
        Ok(visitor) => visitor,
        Err(Refusal::Later(seconds)) => {
            let why = format!("too many wrong passwords; try again in {seconds} s");
            let mut response = refused(StatusCode::TOO_MANY_REQUESTS, Code::Denied, &why);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            return response;
        }
        Err(refusal) => {
            let why = match refusal {
                Refusal::None => "name and password are asked for",
                _ => "name or password is wrong",
            };
            let mut response = refused(StatusCode::UNAUTHORIZED, Code::Denied, why);
            let realm = HeaderValue::from_static("Basic realm=\"Evenkeel\", charset=\"UTF-8\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, realm);
            return response;
        }
    };
    match path {
        "/api/page" if reads => page::picture(site, request.uri().query().unwrap_or_default()).await,
        _ if is_api => {
            let rest = path.get("/api/".len()..).unwrap_or_default();
            api::answer(site, &visitor, rest, request).await
        }
        "/metrics" => metrics(site, &request).await,
        _ => page::asset(&whole, request.headers())
            .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "there is no such page\n")),
    }
}

/// Whether the process works: its control loop and its workers. Never whether it is master.
async fn healthz(site: &Site) -> Response<Body> {
    let (to, answer) = oneshot::channel();
    let why = match site.ask(Asked::Alive(to)) {
        Err(why) => why,
        Ok(()) => match timeout(LOOP, answer).await {
            Ok(Ok(Ok(()))) => return text(StatusCode::OK, "ok\n"),
            Ok(Ok(Err(why))) => why,
            Ok(Err(_)) => "the engine ends".to_owned(),
            Err(_) => format!("the control loop has not answered for {} s", LOOP.as_secs()),
        },
    };
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

/// What Prometheus reads.
async fn metrics(site: &Site, request: &Request<Incoming>) -> Response<Body> {
    let wanted = match Wanted::read(request.uri().query().unwrap_or("")) {
        Ok(wanted) => wanted,
        Err(why) => return text(StatusCode::BAD_REQUEST, why + "\n"),
    };
    let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::wanted(&accept.collect::<Vec<_>>().join(","));
    match site.picture().await {
        Some(status) => {
            let body = metrics::body(&status, &site.memory.tally, &wanted, format);
            of_type(StatusCode::OK, format.content_type(), body.into())
        }
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the engine ends\n"),
    }
}

/// A plain text.
pub(super) fn text(status: StatusCode, words: impl Into<Bytes>) -> Response<Body> {
    of_type(status, "text/plain; charset=utf-8", words.into())
}

/// An answer of some type.
pub(super) fn of_type(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(bytes)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
