//! What bounds the clients of the web listener: how many passwords they may try, how often one is complained of, and counters.
//!
//! Owns numbers and tables of a fixed size. Never reads a clock: time is a parameter.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Wrong passwords that an address may try at once.
const BURST: f64 = 8.0;

/// How long until it may try another one, seconds.
const EACH: f64 = 4.0;

/// The same for all addresses together.
const BURST_OF_ALL: f64 = 30.0;

/// Attempts a second, of all.
const RATE_OF_ALL: f64 = 5.0;

/// Addresses that are known at once.
const MOST_ADDRESSES: usize = 4096;

/// How long nothing more is said of an address.
const QUIET: Duration = Duration::from_secs(60);

/// A counter.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What happened at the listener since it was first opened.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Connections that were let in.
    pub accepted: Count,
    /// Connections for which there was no place.
    pub refused_busy: Count,
    /// Idle connections that gave way to newer ones.
    pub gave_way: Count,
    /// Requests that were answered.
    pub requests: Count,
    /// What was no request, or not one that may be.
    pub bad_requests: Count,
    /// Wrong names or passwords.
    pub wrong_passwords: Count,
    /// Passwords that were not looked at, as too many were wrong before.
    pub limited: Count,
    /// Clients that took too long to ask or to read.
    pub timeouts: Count,
    /// TLS handshakes that failed.
    pub failed_handshakes: Count,
    /// Connections now.
    pub connections: AtomicU64,
}

/// The network that is counted as one client: an IPv6 network has as many addresses as anybody wants.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, most: f64, rate: f64, now: Instant) {
        self.tokens = (self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * rate).min(most);
        self.at = now;
    }
}

/// Passwords that may be tried.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    known: HashMap<IpAddr, Bucket>,
    all: Option<Bucket>,
}

impl Attempts {
    /// Takes one for an address; `Err`: not now, but after so many seconds.
    pub fn take(&mut self, address: IpAddr, now: Instant) -> Result<(), u64> {
        let all = self.all.get_or_insert(Bucket { tokens: BURST_OF_ALL, at: now });
        all.fill(BURST_OF_ALL, RATE_OF_ALL, now);
        let network = network(address);
        if self.known.len() >= MOST_ADDRESSES && !self.known.contains_key(&network) {
            // Who tried nothing for long is as good as unknown; if all are busy, all wait.
            self.known.retain(|_, bucket| now.saturating_duration_since(bucket.at).as_secs_f64() < BURST * EACH);
            if self.known.len() >= MOST_ADDRESSES {
                return Err(EACH as u64);
            }
        }
        let own = self.known.entry(network).or_insert(Bucket { tokens: BURST, at: now });
        own.fill(BURST, 1.0 / EACH, now);
        if own.tokens < 1.0 {
            return Err(((1.0 - own.tokens) * EACH).ceil().max(1.0) as u64);
        }
        if all.tokens < 1.0 {
            return Err(1);
        }
        own.tokens -= 1.0;
        all.tokens -= 1.0;
        Ok(())
    }

    /// The password was right.
    pub fn give_back(&mut self, address: IpAddr) {
        if let Some(own) = self.known.get_mut(&network(address)) {
            own.tokens = (own.tokens + 1.0).min(BURST);
        }
        if let Some(all) = &mut self.all {
            all.tokens = (all.tokens + 1.0).min(BURST_OF_ALL);
        }
    }
}

/// What was said of whom, so that nobody fills the log.
#[derive(Debug, Default)]
pub(super) struct Noise {
    said: HashMap<IpAddr, (Instant, u64)>,
}

impl Noise {
    /// Whether something is said of an address now, and of how many others since then nothing was.
    pub fn say(&mut self, address: IpAddr, now: Instant) -> Option<u64> {
        let network = network(address);
        if let Some((at, more)) = self.said.get_mut(&network) {
            if now < *at + QUIET {
                *more += 1;
                return None;
            }
            let silent = std::mem::take(more);
            *at = now;
            return Some(silent);
        }
        if self.said.len() >= MOST_ADDRESSES {
            self.said.retain(|_, (at, _)| now < *at + QUIET);
            if self.said.len() >= MOST_ADDRESSES {
                return None;
            }
        }
        self.said.insert(network, (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + last).to_be_bytes())
    }

    #[test]
    fn attempts_run_out_and_come_back() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let taken = (0..100).take_while(|_| attempts.take(address(1), start).is_ok()).count();
        assert_eq!(taken, 8);
        assert_eq!(attempts.take(address(1), start), Err(4));
        assert_eq!(attempts.take(address(1), start + Duration::from_secs(3)), Err(1));
        assert_eq!(attempts.take(address(1), start + Duration::from_secs(4)), Ok(()));
        assert_eq!(attempts.take(address(1), start + Duration::from_secs(4)), Err(4));
        // An hour brings no more than a full bucket, and a right one gives its own back.
        let later = start + Duration::from_secs(3600);
        for _ in 0..100 {
            assert_eq!(attempts.take(address(1), later), Ok(()));
            attempts.give_back(address(1));
        }
        assert_eq!((0..100).take_while(|_| attempts.take(address(1), later).is_ok()).count(), 8);
        // A clock that stands still or goes back is no gift.
        assert_eq!(attempts.take(address(1), start), Err(4));
    }

    #[test]
    fn many_addresses_have_a_bound_together() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let taken = (0..100_000).filter(|last| attempts.take(address(*last), start).is_ok()).count();
        assert_eq!(taken, 30);
        assert!(attempts.known.len() <= MOST_ADDRESSES);
        let later = start + Duration::from_secs(60);
        assert_eq!((200_000..300_000).filter(|last| attempts.take(address(*last), later).is_ok()).count(), 30);
        assert!(attempts.known.len() <= MOST_ADDRESSES);
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 1, 2, 3, last]);
        let much_later = later + Duration::from_secs(3600);
        assert_eq!((0..1000).filter(|last| attempts.take(v6(*last), much_later).is_ok()).count(), 8);
    }

    #[test]
    fn an_address_is_complained_of_once_a_minute() {
        let (mut noise, start) = (Noise::default(), Instant::now());
        assert_eq!(noise.say(address(1), start), Some(0));
        for _ in 0..5 {
            assert_eq!(noise.say(address(1), start + Duration::from_secs(59)), None);
        }
        assert_eq!(noise.say(address(2), start), Some(0));
        assert_eq!(noise.say(address(1), start + Duration::from_secs(60)), Some(5));
        let said = (0..100_000).filter(|last| noise.say(address(*last), start).is_some()).count();
        assert!(said <= MOST_ADDRESSES && noise.said.len() <= MOST_ADDRESSES);
    }
}
