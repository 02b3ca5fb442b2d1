//! What there is under which path.
//!
//! Owns paths and the form of answers. Never opens a socket.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam::channel::Sender;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::oneshot;

use super::metrics::{self, Format, Wanted};
use super::{Asked, Wake};
use crate::control::status::Status;
use crate::model;

/// What all answers need.
pub(super) struct Site {
    /// The configuration.
    #[expect(dead_code, reason = "users and TLS come with it")]
    pub web: Arc<model::Web>,
    /// The control loop.
    pub asks: Sender<Asked>,
    /// Wakes it.
    pub wake: Wake,
}

impl Site {
    /// The engine as it is now, or was a moment ago; `None`: it ends.
    pub async fn picture(&self) -> Option<Arc<Status>> {
        let (to, answer) = oneshot::channel();
        self.asks.send(Asked::Picture(to)).ok()?;
        (self.wake)();
        answer.await.ok()
    }
}

/// An answer's body.
pub(super) type Body = Full<Bytes>;

/// Answers a request.
pub(super) async fn answer(site: &Site, request: Request<Incoming>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/metrics") => metrics(site, &request).await,
        (&Method::GET, "/api/status") => match site.picture().await {
            Some(status) => json(&*status),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the engine ends\n"),
        },
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, "there is no such page\n"),
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n"),
    }
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
        Some(status) => of_type(StatusCode::OK, format.content_type(), metrics::body(&status, &wanted, format).into()),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the engine ends\n"),
    }
}

/// A plain text.
pub(super) fn text(status: StatusCode, words: impl Into<Bytes>) -> Response<Body> {
    of_type(status, "text/plain; charset=utf-8", words.into())
}

/// Something as JSON.
pub(super) fn json(what: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(what) {
        Ok(bytes) => of_type(StatusCode::OK, "application/json", bytes.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// An answer of some type.
pub(super) fn of_type(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
