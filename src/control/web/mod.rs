//! The web listener: metrics, the status page, the control socket's JSON over HTTP.
//!
//! A thread of its own has the listeners and the clients and never touches the engine: it asks the control loop, which answers
//! when it has time. Owns the loop's side and the words between both. [`thread`] lets clients in, [`routes`] says what there is
//! under which path.
//!
//! `auth, guard, api, page <- routes <- thread <- mod <- run`

mod api;
mod auth;
mod connections;
pub mod disk;
mod guard;
mod limits;
pub mod metrics;
mod page;
mod routes;
mod stream;
mod thread;
pub mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::status::{Status, WebStatus};
use crate::model;
use crate::model::Role;
use auth::lock;
use routes::Memory;
use thread::Wanted;
pub use thread::speak;

/// Wakes the control loop.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A picture of the engine is given to everybody who asks within this time: however many look, it costs the loop two a second.
pub const FRESH: Duration = Duration::from_millis(500);

/// What the thread wants of the control loop.
#[derive(Debug)]
pub enum Asked {
    /// The whole status, of now or a moment ago.
    Picture(oneshot::Sender<Arc<Status>>),
    /// A client of the control socket: this end of a pair is the loop's, the other one speaks the protocol of the socket.
    Client(std::os::unix::net::UnixStream, Role),
    /// Whether the process does its work; `Err`: why not.
    Alive(oneshot::Sender<Result<(), String>>),
}

/// The loop's side.
pub struct Web {
    wake: Wake,
    /// The thread, once there was something to serve.
    thread: Option<(mpsc::UnboundedSender<Wanted>, JoinHandle<()>)>,
    asks: Receiver<Asked>,
    asking: Sender<Asked>,
    /// What the thread was told to serve.
    served: Option<Arc<model::Web>>,
    /// When the thread is started again, where that failed.
    again: Option<Instant>,
    picture: Option<(Instant, Arc<Status>)>,
    memory: Arc<Memory>,
}

/// Most questions that wait for the loop.
const MOST_ASKS: usize = 1024;

/// How long after a failure the thread is started again.
const AGAIN: Duration = Duration::from_secs(5);

impl Web {
    /// Serves nothing yet.
    pub fn new(wake: Wake) -> Web {
        let (asking, asks) = bounded(MOST_ASKS);
        let memory = Arc::default();
        Web { wake, thread: None, asks, asking, served: None, again: None, picture: None, memory }
    }

    /// Serves as the configuration says from now on. An address that cannot be had is no reason not to forward: the thread says
    /// so, and tries again.
    pub fn configure(&mut self, wanted: Option<&Arc<model::Web>>, now: Instant) {
        if self.thread.as_ref().is_some_and(|(_, handle)| handle.is_finished()) {
            error!("web: the thread died; it is started again");
            (self.thread, self.served) = (None, None);
        }
        if self.again.is_some_and(|again| now < again) {
            return;
        }
        // Arcs compare what they point to only where they are not the same: once after a reload, not with each turn.
        if self.served.as_ref() == wanted {
            self.served = wanted.cloned();
            return;
        }
        self.again = None;
        if self.thread.is_none() && wanted.is_some() {
            match thread::start(self.asking.clone(), Arc::clone(&self.wake), Arc::clone(&self.memory)) {
                Ok(started) => self.thread = Some(started),
                Err(error) => {
                    let why = format!("cannot start the thread: {error}");
                    warn!("web: {why}; tried again in {} s", AGAIN.as_secs());
                    *lock(&self.memory.trouble) = Some(why);
                    self.again = Some(now + AGAIN);
                    return;
                }
            }
        }
        if let Some((sender, _)) = &self.thread {
            // One that just died is seen with the next turn.
            let _ = sender.send(wanted.cloned());
        }
        self.served = wanted.cloned();
    }

    /// When [`Web::configure`] has something to do again.
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.again
    }

    /// What someone should look at. `now`: Unix time.
    pub fn warnings(&self, now: u64) -> Vec<String> {
        let trouble = lock(&self.memory.trouble).clone();
        let tls = self.served.as_ref().and_then(|web| web.tls.as_ref());
        let doubt = tls.and_then(|tls| tls::doubt(&tls.chain, i64::try_from(now).unwrap_or(i64::MAX)));
        let place = tls.map(|tls| tls.certificate.display().to_string()).unwrap_or_default();
        let doubt = doubt.map(|doubt| format!("{doubt}: {place}; renew it and reload"));
        trouble.into_iter().chain(doubt).map(|why| format!("web listener: {why}")).collect()
    }

    /// What it says of itself; `None`: there is no listener.
    pub fn status(&self) -> Option<WebStatus> {
        let (web, tally) = (self.served.as_ref()?, &self.memory.tally);
        let address = |address: &std::net::IpAddr| SocketAddr::new(*address, web.port).to_string();
        Some(WebStatus {
            addresses: web.listen.iter().map(address).collect(),
            tls: web.tls.is_some(),
            users: web.users.as_ref().map(|users| users.list.len()),
            trouble: lock(&self.memory.trouble).clone(),
            connections: tally.connections.load(Ordering::Relaxed),
            accepted: tally.accepted.get(),
            refused_busy: tally.refused_busy.get(),
            gave_way: tally.gave_way.get(),
            requests: tally.requests.get(),
            bad_requests: tally.bad_requests.get(),
            wrong_passwords: tally.wrong_passwords.get(),
            limited: tally.limited.get(),
            timeouts: tally.timeouts.get(),
            failed_handshakes: tally.failed_handshakes.get(),
        })
    }

    /// What the thread asks next.
    pub fn next(&self) -> Option<Asked> {
        self.asks.try_recv().ok()
    }

    /// The engine as it was a moment ago, if that is still good enough.
    pub fn picture(&self, now: Instant) -> Option<Arc<Status>> {
        let fresh = self.picture.as_ref().filter(|(at, _)| now < *at + FRESH);
        fresh.map(|(_, picture)| Arc::clone(picture))
    }

    /// Remembers a picture.
    pub fn keep(&mut self, picture: &Arc<Status>, now: Instant) {
        self.picture = Some((now, Arc::clone(picture)));
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some((sender, handle)) = self.thread.take() {
            drop(sender);
            let _ = handle.join();
        }
    }
}

fn address_line(web: &model::Web) -> String {
    let scheme = if web.tls.is_some() { "https" } else { "http" };
    let all = web.listen.iter().map(|address| format!("{scheme}://{}/", SocketAddr::new(*address, web.port)));
    format!("the status page is at {}", all.collect::<Vec<_>>().join(" and "))
}

#[cfg(test)]
mod tests;
