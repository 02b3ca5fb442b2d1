//! The web listener: metrics, the status page, the control socket's JSON over HTTP.
//!
//! A thread of its own has the listeners and the clients and never touches the engine: it asks the control loop, which answers
//! when it has time. Owns the loop's side and the words between both. [`thread`] serves, [`routes`] says what there is under which path.
//!
//! [`page`] is the status page.
//!
//! `page, routes <- thread <- mod <- run`

mod api;
mod auth;
mod guard;
mod limits;
mod page;
mod routes;
mod thread;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::status::Status;
use crate::model;
use crate::model::Role;

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
}

/// What the loop tells the thread.
#[derive(Debug)]
enum Told {
    /// From now on it is so; the listeners are open.
    Serve(Vec<TcpListener>, Arc<model::Web>),
    /// Nobody is served any more.
    Close,
}

/// The loop's side.
pub struct Web {
    wake: Wake,
    /// The thread, once there was something to serve.
    thread: Option<(mpsc::UnboundedSender<Told>, JoinHandle<()>)>,
    asks: Receiver<Asked>,
    asking: Sender<Asked>,
    /// What is served now.
    served: Option<model::Web>,
    /// When opening the listeners is tried again, and why it did not work.
    again: Option<(Instant, String)>,
    picture: Option<(Instant, Arc<Status>)>,
}

/// Most questions that wait for the loop.
const MOST_ASKS: usize = 1024;

/// How long after a failure the listeners are tried again.
const AGAIN: Duration = Duration::from_secs(5);

impl Web {
    /// Serves nothing yet.
    pub fn new(wake: Wake) -> Web {
        let (asking, asks) = bounded(MOST_ASKS);
        Web { wake, thread: None, asks, asking, served: None, again: None, picture: None }
    }

    /// Serves as the configuration says from now on. An address that cannot be had is no reason not to forward: it is said, and
    /// tried again.
    pub fn configure(&mut self, wanted: Option<&model::Web>, now: Instant) {
        if self.served.as_ref() == wanted && self.again.is_none() {
            return;
        }
        self.again = None;
        // The old listeners first: they may have the same addresses.
        if self.served.take().is_some() {
            self.tell(Told::Close);
        }
        let Some(wanted) = wanted else { return };
        match self.open(wanted) {
            Ok(()) => {
                self.served = Some(wanted.clone());
                info!("web: {}", address_line(wanted));
            }
            Err(why) => {
                warn!("web: {why}; tried again in {} s", AGAIN.as_secs());
                self.again = Some((now + AGAIN, why));
            }
        }
    }

    fn open(&mut self, wanted: &model::Web) -> Result<(), String> {
        let listeners = wanted.listen.iter().map(|address| {
            let address = SocketAddr::new(*address, wanted.port);
            listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))
        });
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        if self.thread.is_none() {
            let started = thread::start(self.asking.clone(), Arc::clone(&self.wake));
            self.thread = Some(started.map_err(|error| format!("cannot start the thread: {error}"))?);
        }
        self.tell(Told::Serve(listeners, Arc::new(wanted.clone())));
        Ok(())
    }

    fn tell(&self, told: Told) {
        if let Some((sender, _)) = &self.thread {
            // A thread that died is seen by `is_running`.
            let _ = sender.send(told);
        }
    }

    /// When [`Web::configure`] has something to do again.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.again.as_ref().map(|(at, _)| *at)
    }

    /// Why nothing listens that should, if so.
    pub fn trouble(&self) -> Option<&str> {
        self.again.as_ref().map(|(_, why)| why.as_str())
    }

    /// Whether the thread lives, or need not.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_none_or(|(_, handle)| !handle.is_finished())
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

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn address_line(web: &model::Web) -> String {
    let scheme = if web.tls.is_some() { "https" } else { "http" };
    let all = web.listen.iter().map(|address| format!("{scheme}://{}/", SocketAddr::new(*address, web.port)));
    format!("the status page is at {}", all.collect::<Vec<_>>().join(" and "))
}
