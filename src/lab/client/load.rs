//! Many short requests, each on its own connection, at a steady rate.
//!
//! Owns the tally: who answered, latencies, and every failure with its text. A request that fails is never repeated.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http;
use crate::lab::error::LabError;
use crate::lab::netns::Namespace;

/// What load to make.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Where to.
    pub target: SocketAddr,
    /// What to ask for.
    pub path: String,
    /// Clients that ask at the same time.
    pub clients: u32,
    /// Requests in a second, all clients together.
    pub rate: u32,
    /// How long a request may wait for anything.
    pub timeout: Duration,
}

impl LoadPlan {
    /// A moderate load on `/`: 4 clients, 200 requests a second, 5 s of patience (TCP repeats a lost SYN after 1 s).
    pub fn new(target: SocketAddr) -> Self {
        LoadPlan { target, path: "/".into(), clients: 4, rate: 200, timeout: Duration::from_secs(5) }
    }
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers by server.
    pub answers: BTreeMap<String, u64>,
    /// Failed requests.
    pub failures: u64,
    /// The first few failures, in words.
    pub reasons: Vec<String>,
    /// Microseconds from connecting to the whole answer, one entry an answer.
    pub latencies: Vec<u32>,
}

impl Tally {
    /// All answers.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Answers of one server.
    pub fn of(&self, server: &str) -> u64 {
        self.answers.get(server).copied().unwrap_or(0)
    }

    /// The latency below which `share` (0 to 1) of the answers were.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
        Duration::from_micros(sorted.get(rank).copied().unwrap_or(0).into())
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Tally) {
        for (name, count) in &other.answers {
            *self.answers.entry(name.clone()).or_default() += count;
        }
        self.failures += other.failures;
        self.reasons.extend(other.reasons.iter().cloned());
        self.latencies.extend(&other.latencies);
    }

    /// What was added since `earlier`, a tally of the same load.
    pub fn since(&self, earlier: &Tally) -> Tally {
        Tally {
            answers: self.answers.iter().map(|(name, count)| (name.clone(), count - earlier.of(name))).collect(),
            failures: self.failures - earlier.failures,
            reasons: self.reasons.iter().skip(earlier.reasons.len()).cloned().collect(),
            latencies: self.latencies[earlier.latencies.len().min(self.latencies.len())..].to_vec(),
        }
    }

    /// Notes the outcome of a request, a server's name or an error, and returns the name.
    pub fn note(&mut self, took: Duration, outcome: io::Result<String>) -> Option<String> {
        match outcome {
            Ok(server) => {
                *self.answers.entry(server.clone()).or_default() += 1;
                self.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
                Some(server)
            }
            Err(error) => {
                self.fail(format!("after {} ms: {error}", took.as_millis()));
                None
            }
        }
    }

    fn fail(&mut self, reason: String) {
        self.failures += 1;
        if self.reasons.len() < 10 {
            self.reasons.push(reason);
        }
    }
}

/// A running load; stopped when dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients inside `namespace`.
    pub fn start(namespace: &Namespace, plan: &LoadPlan) -> Result<Self, LabError> {
        let mut load = Load { stop: Arc::default(), tally: Arc::default(), clients: Vec::new() };
        let pause = Duration::from_secs(1) * plan.clients.max(1) / plan.rate.max(1);
        for number in 0..plan.clients {
            let (stop, tally, plan) = (Arc::clone(&load.stop), Arc::clone(&load.tally), plan.clone());
            let offset = pause * number / plan.clients.max(1);
            let client = namespace.thread(&format!("load-{number}"), move || {
                thread::sleep(offset);
                let mut due = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    request(&plan, &tally);
                    due += pause;
                    match due.checked_duration_since(Instant::now()) {
                        Some(rest) => thread::sleep(rest),
                        None => due = Instant::now(),
                    }
                }
            })?;
            load.clients.push(client);
        }
        Ok(load)
    }

    /// What happened so far.
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Lets running requests end and returns the whole tally.
    pub fn stop(mut self) -> Tally {
        self.join();
        self.tally()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

fn request(plan: &LoadPlan, tally: &Mutex<Tally>) {
    let start = Instant::now();
    let outcome = http::get(plan.target, &plan.path, plan.timeout).and_then(|response| match response.status {
        200 => Ok(response.server),
        status => Err(io::Error::other(format!("{} answered {status}", response.server))),
    });
    lock(tally).note(start.elapsed(), outcome);
}

/// Runs `count` requests one after the other inside `namespace`.
pub fn requests(namespace: &Namespace, plan: &LoadPlan, count: u32) -> Result<Tally, LabError> {
    let tally = Mutex::new(Tally::default());
    namespace.run(|| (0..count).for_each(|_| request(plan, &tally)))?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_subtracts_an_earlier_one_of_itself() {
        let mut earlier = Tally::default();
        earlier.answers.insert("a".into(), 2);
        earlier.latencies = vec![10, 20];
        let mut later = earlier.clone();
        later.answers.insert("a".into(), 5);
        later.answers.insert("b".into(), 1);
        later.latencies.extend([30, 40, 50, 60]);
        later.fail("x".into());
        let between = later.since(&earlier);
        let mut whole = earlier.clone();
        whole.add(&between);
        assert_eq!((whole.answers, whole.failures), (later.answers.clone(), later.failures));
        assert_eq!((between.of("a"), between.of("b"), between.failures), (3, 1, 1));
        assert_eq!(between.latencies.len(), 4);
        assert_eq!(later.percentile(0.0), Duration::from_micros(10));
        assert_eq!(later.percentile(1.0), Duration::from_micros(60));
        assert_eq!(Tally::default().percentile(0.5), Duration::ZERO);
    }
}
