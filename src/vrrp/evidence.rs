//! What is wrong on the segment: said once per change, counted for each time, remembered for `status`.
//!
//! Owns the other routers that were heard, the refused adverts and the notes about them. Its size is bounded, whoever sends
//! what. Never decides who is master. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::election::{Action, Level};
use super::machine::{Heard, Machine};
use super::packet::{Advert, Envelope, LEAVING, PASSWORD, Refusal};
use super::status::{EvidenceStatus, PeerStatus};
use crate::model::{MacAddr, VirtualRouter, VrrpChecksum};

/// Time without a sign after which the same thing is worth another line.
const QUIET: Duration = Duration::from_secs(60);
/// Least time between two lines about one thing that changes.
const BETWEEN_LINES: Duration = Duration::from_secs(1);
/// Time after which a note is no longer shown.
const KEPT: Duration = Duration::from_secs(3600);
/// Most notes of one router.
const MOST_NOTES: usize = 64;
/// Most other routers that are remembered for one of ours.
const MOST_PEERS: usize = 32;

/// Two routers with one number that both say that they are master.
pub const TWO_MASTERS: &str = "two-masters";
/// An advert of a lower priority than ours.
pub const LOWER: &str = "lower-priority";
/// Other addresses than ours in an advert.
pub const ADDRESS_LIST: &str = "address-list";
/// Another interval than ours in an advert of version 3.
pub const OTHER_INTERVAL: &str = "other-interval";
/// A frame that says that an address of ours is somebody else's.
pub const CLAIMED: &str = "claimed";

/// One thing that was seen, perhaps often.
#[derive(Clone, Debug)]
struct Note {
    /// What makes it another thing worth a line.
    detail: (MacAddr, u64),
    text: String,
    first: Duration,
    last: Duration,
    said: Duration,
    count: u64,
}

/// Things that were seen, by kind and by who did them.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    known: BTreeMap<(&'static str, IpAddr), Note>,
    /// Things for which there was no room.
    left_out: u64,
}

impl Notes {
    /// Counts one more. The text comes back where it is news: seen for the first time, changed, or after a minute's silence.
    pub fn see(
        &mut self,
        kind: &'static str,
        who: IpAddr,
        detail: (MacAddr, u64),
        text: impl FnOnce() -> String,
        now: Duration,
    ) -> Option<String> {
        if let Some(note) = self.known.get_mut(&(kind, who)) {
            note.count += 1;
            let quiet = now.saturating_sub(note.last) >= QUIET;
            note.last = now;
            let changed = note.detail != detail && now.saturating_sub(note.said) >= BETWEEN_LINES;
            if !quiet && !changed {
                return None;
            }
            if quiet {
                note.first = now;
            }
            note.detail = detail;
            note.said = now;
            note.text = text();
            return Some(note.text.clone());
        }
        if self.known.len() >= MOST_NOTES {
            let oldest = self.known.iter().min_by_key(|(_, note)| note.last).map(|(key, note)| (*key, note.last));
            match oldest {
                Some((key, last)) if now.saturating_sub(last) >= QUIET => self.known.remove(&key),
                _ => {
                    self.left_out += 1;
                    return None;
                }
            };
        }
        let text = text();
        let note = Note { detail, text: text.clone(), first: now, last: now, said: now, count: 1 };
        self.known.insert((kind, who), note);
        Some(text)
    }

    /// How often a kind was seen, by anybody, as far as is remembered.
    pub fn count(&self, kind: &str) -> u64 {
        self.known.iter().filter(|((known, _), _)| *known == kind).map(|(_, note)| note.count).sum()
    }

    /// What is worth showing, the newest first.
    pub fn status(&self, now: Duration) -> Vec<EvidenceStatus> {
        let mut notes: Vec<_> = self.known.iter().filter(|(_, note)| now.saturating_sub(note.last) < KEPT).collect();
        notes.sort_by_key(|(_, note)| std::cmp::Reverse(note.last));
        let mut all: Vec<EvidenceStatus> = notes
            .into_iter()
            .map(|((kind, _), note)| EvidenceStatus {
                kind: (*kind).to_owned(),
                text: note.text.clone(),
                count: note.count,
                for_ms: millis(now, note.first),
                seen_ms: millis(now, note.last),
            })
            .collect();
        if self.left_out > 0 {
            let text = format!("{} more things, from more senders than are remembered", self.left_out);
            all.push(EvidenceStatus { kind: "more".into(), text, count: self.left_out, for_ms: 0, seen_ms: 0 });
        }
        all
    }
}

/// Another router of the same number.
#[derive(Clone, Debug)]
struct Peer {
    mac: MacAddr,
    priority: u8,
    interval: Duration,
    checksum: VrrpChecksum,
    adverts: u64,
    heard: Duration,
    /// Since when it says that it is master while we are.
    beside_us: Option<Duration>,
}

/// What is known of one router's segment.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    notes: Notes,
    peers: BTreeMap<IpAddr, Peer>,
    refused: BTreeMap<Refusal, u64>,
    received: u64,
    received_zero: u64,
}

impl Evidence {
    /// Notes an advert that was taken, and what it was to the machine.
    pub fn heard(
        &mut self,
        machine: &Machine,
        from: &Envelope,
        advert: &Advert,
        heard: Heard,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        self.received += 1;
        self.received_zero += u64::from(advert.priority == LEAVING);
        let router = machine.router();
        let beside_us = self.remember(router, from, advert, heard, now);
        let detail = (from.mac, u64::from(advert.priority));
        let (source, mac, theirs, ours) = (from.source, from.mac, advert.priority, machine.priority());
        if heard == Heard::Beaten {
            let text = || {
                format!("Received advert from {source} with lower priority {theirs}, ours {ours}, forcing new election")
            };
            self.note(router, Level::Info, LOWER, from, detail, text, now, out);
        }
        if heard == Heard::Discarded {
            let text = || format!("received lower priority ({theirs}) advert from {source} - discarding");
            self.note(router, Level::Info, LOWER, from, detail, text, now, out);
        }
        if beside_us.is_some_and(|since| now.saturating_sub(since) > 2 * router.interval.max(advert.interval)) {
            let text = || {
                format!(
                    "two masters: {source} ({mac}) with priority {theirs} says that it is master, and so do we with {ours}; \
                     does it hear our adverts?"
                )
            };
            self.note(router, Level::Warn, TWO_MASTERS, from, detail, text, now, out);
        }
        if advert.priority != LEAVING && advert.interval != router.interval {
            let (theirs, ours) = (advert.interval.as_millis(), router.interval.as_millis());
            let text =
                || format!("advertisement interval mismatch mine={ours} ms rcv'd={theirs} ms from {source} ({mac})");
            self.note(router, Level::Warn, OTHER_INTERVAL, from, (mac, theirs as u64), text, now, out);
        }
        self.compare_addresses(router, from, advert, now, out);
    }

    fn compare_addresses(
        &mut self,
        router: &VirtualRouter,
        from: &Envelope,
        advert: &Advert,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let ours: Vec<IpAddr> = router.addresses.iter().map(|one| one.address).collect();
        let words = |list: &[IpAddr], other: &[IpAddr]| {
            let lone: Vec<String> = list.iter().filter(|one| !other.contains(one)).map(ToString::to_string).collect();
            if lone.is_empty() { "none".to_owned() } else { lone.join(", ") }
        };
        let differs = |list: &[IpAddr], other: &[IpAddr]| list.iter().any(|one| !other.contains(one));
        if !differs(&ours, &advert.addresses) && !differs(&advert.addresses, &ours) {
            return;
        }
        let (missing, more) = (words(&ours, &advert.addresses), words(&advert.addresses, &ours));
        let none = if ours.iter().any(|one| advert.addresses.contains(one)) {
            ""
        } else {
            "; no address is in both: is the number used twice on this segment?"
        };
        let vrid = router.vrid;
        let text = || {
            format!(
                "ip address associated with VRID {vrid} not present in MASTER advert: {missing}; in it and not ours: \
                 {more}; from {} ({}){none}",
                from.source, from.mac
            )
        };
        // Another list is another thing to say: an order-free sum of its bytes tells lists apart well enough for that.
        let mut sum = advert.addresses.len() as u64;
        for address in &advert.addresses {
            let bits = match address {
                IpAddr::V4(address) => u128::from(u32::from(*address)),
                IpAddr::V6(address) => u128::from(*address),
            };
            sum = sum.wrapping_add((bits as u64 ^ (bits >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        self.note(router, Level::Warn, ADDRESS_LIST, from, (from.mac, sum), text, now, out);
    }

    /// Notes an advert for this router that was refused.
    pub fn refused(
        &mut self,
        machine: &Machine,
        from: &Envelope,
        refusal: Refusal,
        advert: Option<&Advert>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        *self.refused.entry(refusal).or_default() += 1;
        let router = machine.router();
        let number = advert.map_or(u64::from(from.ttl), |advert| advert.interval.as_millis() as u64);
        let text = || format!("{}, from {} ({})", words(refusal, router, from, advert), from.source, from.mac);
        self.note(router, Level::Warn, refusal.name(), from, (from.mac, number), text, now, out);
    }

    /// Notes that somebody else's frame claimed an address that this router serves.
    pub fn claimed(&mut self, machine: &Machine, who: IpAddr, mac: MacAddr, now: Duration, out: &mut Vec<Action>) {
        let text = || {
            format!(
                "{who} is claimed by {mac} while we are master: a real server or a stranger answers for it; on a real server \
                 set arp_ignore=1 and arp_announce=2, or put the address on lo"
            )
        };
        if let Some(text) = self.notes.see(CLAIMED, who, (mac, 0), text, now) {
            out.push(Action::Log { level: Level::Warn, text: format!("({}) {text}", machine.router().name) });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one place where a note becomes a line")]
    fn note(
        &mut self,
        router: &VirtualRouter,
        level: Level,
        kind: &'static str,
        from: &Envelope,
        detail: (MacAddr, u64),
        text: impl FnOnce() -> String,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        if let Some(text) = self.notes.see(kind, from.source, detail, text, now) {
            out.push(Action::Log { level, text: format!("({}) {text}", router.name) });
        }
    }

    /// Remembers who sent an advert. Since when it has been master beside us, where it is.
    fn remember(
        &mut self,
        router: &VirtualRouter,
        from: &Envelope,
        advert: &Advert,
        heard: Heard,
        now: Duration,
    ) -> Option<Duration> {
        if !self.peers.contains_key(&from.source) && self.peers.len() >= MOST_PEERS {
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.heard).map(|(address, _)| *address);
            oldest.map(|address| self.peers.remove(&address));
        }
        let peer = self.peers.entry(from.source).or_insert(Peer {
            mac: from.mac,
            priority: 0,
            interval: advert.interval,
            checksum: advert.checksum,
            adverts: 0,
            heard: now,
            beside_us: None,
        });
        let pause = 3 * router.interval.max(advert.interval);
        let since = peer.beside_us.filter(|_| now.saturating_sub(peer.heard) <= pause).unwrap_or(now);
        peer.beside_us = (heard == Heard::Beaten).then_some(since);
        peer.mac = from.mac;
        peer.priority = advert.priority;
        peer.interval = advert.interval;
        peer.checksum = advert.checksum;
        peer.adverts += 1;
        peer.heard = now;
        peer.beside_us
    }

    /// Adverts that were taken; those with priority 0 among them.
    pub fn received(&self) -> (u64, u64) {
        (self.received, self.received_zero)
    }

    /// Adverts that were refused, by reason.
    pub fn refusals(&self) -> &BTreeMap<Refusal, u64> {
        &self.refused
    }

    /// Notes for `status`.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The other routers for `status`.
    pub fn peers(&self, now: Duration) -> Vec<PeerStatus> {
        let words = |checksum| match checksum {
            VrrpChecksum::PseudoHeader => "pseudo-header",
            VrrpChecksum::Message => "message",
        };
        let peers = self.peers.iter().map(|(address, peer)| PeerStatus {
            address: address.to_string(),
            mac: peer.mac.to_string(),
            priority: peer.priority,
            interval_ms: peer.interval.as_millis() as u64,
            checksum: words(peer.checksum).to_owned(),
            adverts: peer.adverts,
            heard_ms: millis(now, peer.heard),
        });
        peers.collect()
    }
}

/// Milliseconds from then to now.
pub fn millis(now: Duration, then: Duration) -> u64 {
    now.saturating_sub(then).as_millis() as u64
}

/// What a refusal is in keepalived's words, or in ours where it has none.
fn words(refusal: Refusal, router: &VirtualRouter, from: &Envelope, advert: Option<&Advert>) -> String {
    let cast = |multicast: bool| if multicast { "multicast" } else { "unicast" };
    match (refusal, advert) {
        (Refusal::Ttl, _) => match router.unicast.as_ref().and_then(|unicast| unicast.ttl) {
            Some((least, most)) => format!("invalid TTL/HL. Received {} and expect {least} to {most}", from.ttl),
            None => format!("invalid TTL/HL. Received {} and expect 255", from.ttl),
        },
        (Refusal::Password, _) => "received an invalid passwd!".to_owned(),
        (Refusal::AuthType, Some(advert)) => {
            let ours = if router.password.is_some() { PASSWORD } else { 0 };
            format!("received a {} auth, expecting {ours}!", advert.auth_type)
        }
        (Refusal::Interval, Some(advert)) => format!(
            "advertisement interval mismatch mine={} sec rcv'd={} sec",
            router.interval.as_secs(),
            advert.interval.as_secs()
        ),
        (Refusal::Destination, _) => {
            let theirs = from.is_multicast();
            format!("Expected {} packet but received {} packet", cast(!theirs), cast(theirs))
        }
        (Refusal::NotAPeer, _) => format!("unicast source address {} not a unicast peer", from.source),
        (Refusal::SameSource, _) => {
            "WARNING - advert received from remote host with our IP address: two appliances have it, or one VRID twice"
                .to_owned()
        }
        _ => format!("refused an advert ({}): {}", refusal.name(), refusal.meaning().trim()),
    }
}
