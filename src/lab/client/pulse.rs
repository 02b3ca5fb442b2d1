//! A client that sends a datagram every millisecond and notes which are answered: how long an address was away.
//!
//! Owns the times of sending and of answers, and what is sent: numbers for an echo, or questions for a DNS server. A pause of the client itself is no loss: only what was sent and not answered is.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::{dns, udp};
use crate::lab::error::{Doing, LabError};
use crate::lab::netns::Namespace;

/// Time between two datagrams.
pub const PACE: Duration = Duration::from_millis(1);

/// Time between two questions.
pub const QUESTION_PACE: Duration = Duration::from_millis(5);

/// How long an answer may take.
const LATEST: Duration = Duration::from_millis(500);

/// How long the last answers are waited for.
const GRACE: Duration = Duration::from_millis(100);

/// One datagram.
#[derive(Clone, Copy, Debug)]
struct Beat {
    sent: Instant,
    /// Who answered, as a place in the list of names.
    answer: Option<(Instant, usize)>,
}

/// A running client; stopped when dropped.
pub struct Pulse {
    stop: Arc<AtomicBool>,
    beats: Arc<Mutex<Beats>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
struct Beats {
    all: Vec<Beat>,
    names: Vec<String>,
}

/// A time without answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// From the first datagram that was lost to the next one that was answered, or to the end.
    pub lasted: Duration,
    /// Datagrams that were lost in it.
    pub lost: u64,
    /// When it began.
    pub began: Instant,
}

/// What a pulse found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that were not answered.
    pub lost: u64,
    /// Times without answers, in their order.
    pub gaps: Vec<Gap>,
    /// Answers by who gave them.
    pub answers: BTreeMap<String, u64>,
}

impl Found {
    /// The longest time without answers; zero where every datagram was answered.
    pub fn longest(&self) -> Duration {
        self.gaps.iter().map(|gap| gap.lasted).max().unwrap_or_default()
    }
}

impl Pulse {
    /// Starts to ask a DNS server from `namespace`, every [`QUESTION_PACE`], each time from a new port, as resolvers do: each
    /// question is a conversation of its own ([`crate::lab::server::unbound`]).
    pub fn questions(namespace: &Namespace, target: SocketAddr) -> Result<Self, LabError> {
        let (stop, beats) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Beats>>::default());
        let mut asker = Asker::new(target).doing(|| "making a poll".into())?;
        let thread = {
            let (stop, beats) = (Arc::clone(&stop), Arc::clone(&beats));
            namespace.thread("pulse-questions", move || asker.run(&stop, &beats))?
        };
        Ok(Pulse { stop, beats, threads: vec![thread] })
    }

    /// Starts to send from `namespace` to `target`, where something echoes ([`crate::lab::server::udp`]).
    pub fn start(namespace: &Namespace, target: SocketAddr) -> Result<Self, LabError> {
        let socket = namespace.run(|| udp::socket(target, Duration::from_millis(20)))?;
        let socket = socket.doing(|| format!("opening a socket to {target}"))?;
        let second = socket.try_clone().doing(|| "copying a descriptor".into())?;
        let (stop, beats) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Beats>>::default());
        let sender = {
            let (stop, beats) = (Arc::clone(&stop), Arc::clone(&beats));
            namespace.thread("pulse-send", move || send(&socket, &stop, &beats))?
        };
        let receiver = {
            let (stop, beats) = (Arc::clone(&stop), Arc::clone(&beats));
            namespace.thread("pulse-receive", move || receive(&second, &stop, &beats))?
        };
        Ok(Pulse { stop, beats, threads: vec![sender, receiver] })
    }

    /// Waits until a run of datagrams has been answered without a loss, for `period`.
    pub fn await_steady(&self, period: Duration, within: Duration) -> Result<(), LabError> {
        let start = Instant::now();
        loop {
            thread::sleep(Duration::from_millis(5));
            let now = Instant::now();
            let beats = lock(&self.beats);
            // The very last ones may still be on their way.
            let late = beats.all.iter().rev().skip_while(|beat| now - beat.sent < Duration::from_millis(15));
            let run = late.clone().take_while(|beat| beat.answer.is_some()).last();
            if run.is_some_and(|beat| now - beat.sent >= period) {
                return Ok(());
            }
            if start.elapsed() > within {
                let detail = format!("; {:?}", judge(&beats, now).answers);
                return Err(LabError::Timeout { what: "steady answers".into(), after: within, detail });
            }
        }
    }

    /// What was found since `since`, so far.
    pub fn since(&self, since: Instant) -> Found {
        let mut beats = lock(&self.beats).clone();
        beats.all.retain(|beat| beat.sent >= since);
        judge(&beats, Instant::now() - Duration::from_millis(15))
    }

    /// Stops, waits for the last answers, and says what was found.
    pub fn stop(mut self) -> Found {
        let end = Instant::now();
        self.join();
        judge(&lock(&self.beats), end)
    }

    fn join(&mut self) {
        thread::sleep(GRACE);
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.join();
        }
    }
}

fn send(socket: &UdpSocket, stop: &AtomicBool, beats: &Mutex<Beats>) {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = begin(beats);
        // An ICMP error for an earlier datagram comes back here, or the address has no neighbour: this one is lost too.
        if socket.send(number.to_string().as_bytes()).is_err() {
            let _ = socket.send(number.to_string().as_bytes());
        }
        due += PACE;
        match due.checked_duration_since(Instant::now()) {
            Some(rest) => thread::sleep(rest),
            None => due = Instant::now(),
        }
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, beats: &Mutex<Beats>) {
    let mut buffer = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let at = Instant::now();
        let text = String::from_utf8_lossy(&buffer[..length]);
        let Some((name, number)) = text.rsplit_once(' ') else { continue };
        let Ok(number) = number.parse::<usize>() else { continue };
        end(beats, number, name, at);
    }
}

/// Notes a datagram that is sent now; its number.
fn begin(beats: &Mutex<Beats>) -> usize {
    let mut beats = lock(beats);
    beats.all.push(Beat { sent: Instant::now(), answer: None });
    beats.all.len() - 1
}

/// Notes who answered it.
fn end(beats: &Mutex<Beats>, number: usize, name: &str, at: Instant) {
    let mut beats = lock(beats);
    let place = match beats.names.iter().position(|known| known == name) {
        Some(place) => place,
        None => {
            beats.names.push(name.to_owned());
            beats.names.len() - 1
        }
    };
    if let Some(beat) = beats.all.get_mut(number) {
        beat.answer.get_or_insert((at, place));
    }
}

/// Asks a DNS server from a new port each time.
struct Asker {
    target: SocketAddr,
    poll: Poll,
    /// Sockets whose answers are waited for.
    open: BTreeMap<usize, (mio::net::UdpSocket, Instant)>,
}

impl Asker {
    fn new(target: SocketAddr) -> io::Result<Self> {
        Ok(Asker { target, poll: Poll::new()?, open: BTreeMap::new() })
    }

    fn run(&mut self, stop: &AtomicBool, beats: &Mutex<Beats>) {
        let mut events = Events::with_capacity(64);
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= due {
                due = (due + QUESTION_PACE).max(now);
                let number = begin(beats);
                // One that cannot be sent, since the address has no neighbour now, is lost.
                if let Ok(socket) = self.ask(number) {
                    self.open.insert(number, (socket, now));
                }
                self.open.retain(|_, (_, since)| now - *since < LATEST);
            }
            let wait = due.saturating_duration_since(Instant::now());
            if self.poll.poll(&mut events, Some(wait.max(Duration::from_millis(1)))).is_err() {
                continue;
            }
            let at = Instant::now();
            for event in &events {
                let mut buffer = [0; 512];
                let Some((socket, _)) = self.open.get(&event.token().0) else { continue };
                let Some(length) = socket.recv(&mut buffer).ok() else { continue };
                if let Some((name, number)) = dns::answer(&buffer[..length]) {
                    self.open.remove(&number);
                    end(beats, number, &name, at);
                }
            }
        }
    }

    fn ask(&self, number: usize) -> io::Result<mio::net::UdpSocket> {
        let any: IpAddr =
            if self.target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut socket = mio::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(self.target)?;
        self.poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
        let question = dns::question(number);
        socket.send(&question)?;
        Ok(socket)
    }
}

/// Judges the datagrams that were sent before `end`.
fn judge(beats: &Beats, end: Instant) -> Found {
    let mut found = Found::default();
    let mut gap: Option<Gap> = None;
    for beat in beats.all.iter().filter(|beat| beat.sent < end) {
        found.sent += 1;
        match (&beat.answer, &mut gap) {
            (Some((_, place)), open) => {
                if let Some(mut over) = open.take() {
                    over.lasted = beat.sent - over.began;
                    found.gaps.push(over);
                }
                *found.answers.entry(beats.names[*place].clone()).or_default() += 1;
            }
            (None, Some(open)) => open.lost += 1,
            (None, open) => *open = Some(Gap { lasted: Duration::ZERO, lost: 1, began: beat.sent }),
        }
        found.lost += u64::from(beat.answer.is_none());
    }
    if let Some(mut open) = gap {
        open.lasted = end - open.began;
        found.gaps.push(open);
    }
    found
}

fn lock(beats: &Mutex<Beats>) -> MutexGuard<'_, Beats> {
    beats.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_measured_from_the_first_loss_to_the_next_answer() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let beat = |millis, answered: bool| Beat { sent: at(millis), answer: answered.then_some((at(millis), 0)) };
        // The client itself sleeps from 3 to 40: no loss.
        let all = vec![
            beat(0, true),
            beat(1, false),
            beat(2, false),
            beat(3, true),
            beat(40, true),
            beat(41, false),
            beat(60, false),
        ];
        let found = judge(&Beats { all, names: vec!["a".into()] }, at(61));
        assert_eq!((found.sent, found.lost, found.answers["a"]), (7, 4, 3));
        let gap = |lasted, lost, began| Gap { lasted: Duration::from_millis(lasted), lost, began: at(began) };
        assert_eq!(found.gaps, [gap(2, 2, 1), gap(20, 2, 41)]);
        assert_eq!(found.longest(), Duration::from_millis(20));
        assert_eq!(judge(&Beats::default(), at(0)).longest(), Duration::ZERO);
    }
}
