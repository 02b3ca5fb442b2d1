//! The thread that waits for the kernel in the place of the one that speaks VRRP.
//!
//! Owns the thread `vrrp-kernel`: it opens sockets, joins groups, reads the tables of interfaces and changes addresses, in
//! the order in which it is asked to. Never decides what is to be done: the driver does.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::addresses::Addresses;
use super::election::Level;
use super::link::Links;
use super::notify::Report;
use super::realtime;
use super::socket::{Adopted, Port, SocketError, Speaker};
use crate::model::{MacAddr, VirtualRouter};

/// One thing to do.
#[derive(Debug)]
pub enum Job {
    /// Read all interfaces.
    Links,
    /// Open the sockets of an interface.
    Open {
        /// Its name.
        interface: String,
        /// Its index.
        index: u32,
        /// Whether adverts over IPv4 and IPv6 are wanted.
        families: (bool, bool),
        /// Whose claims are heard.
        addresses: Vec<IpAddr>,
    },
    /// Open the sockets for single peers over IPv4 and IPv6.
    Speak(bool, bool),
    /// Put a router's addresses on their interfaces.
    Put(Arc<VirtualRouter>),
    /// Take them off.
    Take(String),
    /// Let the interface with that index take frames for a router's virtual MAC.
    Adopt(String, u32, MacAddr),
    /// Undo that.
    Disown(String),
}

/// What came of a job.
#[derive(Debug)]
pub enum Outcome {
    /// All interfaces.
    Links(io::Result<Links>),
    /// The sockets of an interface.
    Port {
        /// Its name.
        interface: String,
        /// Its index.
        index: u32,
        /// Whether the kernel forwards IPv6 packets there: its neighbour advertisements say so.
        forwards: bool,
        /// The sockets.
        port: Result<Port, SocketError>,
    },
    /// The sockets for single peers.
    Speaker(Result<Speaker, SocketError>),
    /// The addresses of a router are on, as far as they can be.
    Put(String),
}

/// The thread. Dropped, it does what it was asked to do, takes all addresses off and ends.
#[derive(Debug)]
pub struct Kernel {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Starts the thread, in the network namespace of the calling one, once what an earlier run left is taken off. What
    /// comes of jobs goes to the receiver, and `wake` is called.
    pub fn start(
        kept: PathBuf,
        reports: Sender<Report>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<(Kernel, Receiver<Outcome>)> {
        let mut notes = Vec::new();
        let addresses = Addresses::open(kept, &mut notes)?;
        let (jobs, inbox) = unbounded();
        let (outcomes, receiver) = unbounded();
        let mut worker = Worker { addresses, adopted: BTreeMap::new(), notes, reports };
        worker.tell();
        let thread = std::thread::Builder::new().name("vrrp-kernel".into()).spawn(move || {
            // A proxy cannot serve before its address is on.
            realtime::hurry();
            for job in inbox {
                if let Some(outcome) = worker.run(job) {
                    let _ = outcomes.send(outcome);
                    wake();
                }
                worker.tell();
            }
            worker.addresses.take_all(&mut worker.notes);
            worker.tell();
        })?;
        Ok((Kernel { jobs: Some(jobs), thread: Some(thread) }, receiver))
    }

    /// Asks for something. Never waits.
    pub fn ask(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A thread that panicked is seen at the end; adverts go on without it.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    addresses: Addresses,
    adopted: BTreeMap<String, Adopted>,
    notes: Vec<String>,
    reports: Sender<Report>,
}

impl Worker {
    fn run(&mut self, job: Job) -> Option<Outcome> {
        match job {
            Job::Links => Some(Outcome::Links(self.addresses.links())),
            Job::Open { interface, index, families: (v4, v6), addresses } => {
                let port = Port::open(&interface, index, v4, v6, &addresses);
                let forwarding = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/forwarding"));
                let forwards = forwarding.is_ok_and(|text| text.trim() != "0");
                Some(Outcome::Port { interface, index, forwards, port })
            }
            Job::Speak(v4, v6) => Some(Outcome::Speaker(Speaker::open(v4, v6))),
            Job::Put(router) => {
                self.addresses.put(&router, &mut self.notes);
                Some(Outcome::Put(router.name.clone()))
            }
            Job::Take(router) => {
                self.addresses.take(&router, &mut self.notes);
                None
            }
            Job::Adopt(router, index, mac) => {
                match Adopted::new(index, mac) {
                    Ok(adopted) => drop(self.adopted.insert(router, adopted)),
                    Err(error) => self
                        .notes
                        .push(format!("({router}) cannot make its interface take frames for its virtual MAC: {error}")),
                }
                None
            }
            Job::Disown(router) => {
                self.adopted.remove(&router);
                None
            }
        }
    }

    fn tell(&mut self) {
        for text in self.notes.drain(..) {
            let _ = self.reports.send(Report::Log { level: Level::Warn, text });
        }
    }
}
