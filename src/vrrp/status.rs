//! What `evenkeel status` shows of virtual routers.
//!
//! Owns plain values, filled by [`super::election::Election::status`]. Never decides. Pure.

use std::collections::BTreeMap;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evidence::{Evidence, millis};
use super::machine::{Machine, State};

/// All of VRRP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VrrpStatus {
    /// Virtual routers, in the order of the configuration.
    pub routers: Vec<RouterStatus>,
    /// Their groups.
    pub groups: Vec<GroupStatus>,
    /// What is tracked, in words, and how it is.
    pub tracked: Vec<TrackedStatus>,
    /// Adverts that were refused before a router of ours was known, by [`super::packet::Refusal::name`].
    pub refused: BTreeMap<String, u64>,
    /// Whether the thread has its real-time priority, in words.
    pub realtime: String,
}

/// A virtual router.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// Its number.
    pub vrid: u8,
    /// Its group, where it is in one.
    pub group: Option<String>,
    /// `INIT`, `BACKUP`, `MASTER`, `FAULT` or `STOP`.
    pub state: String,
    /// Why it is in that state, in words.
    pub why: String,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// Changes to master since it was configured.
    pub promotions: u64,
    /// Priority as configured.
    pub base_priority: u8,
    /// Priority with what is tracked.
    pub priority: u8,
    /// Our own source address.
    pub source: Option<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Who is master, as far as adverts say; this appliance itself while it is.
    pub master: Option<MasterStatus>,
    /// Other routers that were heard, by address.
    pub peers: Vec<PeerStatus>,
    /// What was wrong within the last hour, the newest first.
    pub evidence: Vec<EvidenceStatus>,
    /// Adverts.
    pub adverts: AdvertCounts,
}

/// A master.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MasterStatus {
    /// Whether it is this appliance.
    pub ours: bool,
    /// Source of its adverts.
    pub address: String,
    /// Ethernet address that its adverts come from.
    pub mac: Option<String>,
    /// Its priority.
    pub priority: u8,
    /// Time between its adverts in milliseconds.
    pub interval_ms: u64,
    /// For how long it has been known as master, in milliseconds.
    pub for_ms: u64,
    /// Time since its last advert in milliseconds.
    pub heard_ms: u64,
}

/// Another router of the same number, as its last advert shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Source of its adverts.
    pub address: String,
    /// Ethernet address that they come from.
    pub mac: String,
    /// Its priority; 0: it left.
    pub priority: u8,
    /// Time between its adverts in milliseconds.
    pub interval_ms: u64,
    /// What its checksums cover: `pseudo-header` or `message`.
    pub checksum: String,
    /// Its adverts.
    pub adverts: u64,
    /// Time since the last one in milliseconds.
    pub heard_ms: u64,
}

/// Something wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// Its short name, such as `two-masters` or `wrong-password`.
    pub kind: String,
    /// Who it is about, where the problem is and what it is.
    pub text: String,
    /// How often it was seen.
    pub count: u64,
    /// Time since it was seen first, in milliseconds.
    pub for_ms: u64,
    /// Time since it was seen last, in milliseconds.
    pub seen_ms: u64,
}

/// Counts of adverts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AdvertCounts {
    /// Sent, those with priority 0 among them.
    pub sent: u64,
    /// Sent with priority 0.
    pub sent_zero: u64,
    /// Taken, those with priority 0 among them.
    pub received: u64,
    /// Taken with priority 0.
    pub received_zero: u64,
    /// Refused, by [`super::packet::Refusal::name`].
    pub refused: BTreeMap<String, u64>,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Its state, in the words of a router's.
    pub state: String,
    /// Its routers.
    pub routers: Vec<String>,
}

/// Something that is tracked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrackedStatus {
    /// Its kind and name, such as `script chk_haproxy`.
    pub what: String,
    /// How it is, in words.
    pub state: String,
    /// Whether it holds; absent while that is not known, and of a file, which has a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<bool>,
    /// The number in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i64>,
}

impl RouterStatus {
    /// How a router is.
    pub fn of(machine: &Machine, evidence: &Evidence, group: Option<String>, now: Duration) -> RouterStatus {
        let router = machine.router();
        let (since, why) = machine.last_change();
        let (promotions, sent, sent_zero) = machine.counts();
        let (received, received_zero) = evidence.received();
        let refused = evidence.refusals().iter().map(|(refusal, count)| (refusal.name().to_owned(), *count)).collect();
        RouterStatus {
            name: router.name.clone(),
            interface: router.interface.clone(),
            vrid: router.vrid,
            group,
            state: machine.state().name().to_owned(),
            why: why.to_owned(),
            for_ms: millis(now, since),
            promotions,
            base_priority: router.priority,
            priority: machine.priority(),
            source: machine.source().map(|source| source.address.to_string()),
            addresses: router.all_addresses().map(|one| one.address.to_string()).collect(),
            master: master(machine, now),
            peers: evidence.peers(now),
            evidence: evidence.notes().status(now),
            adverts: AdvertCounts { sent, sent_zero, received, received_zero, refused },
        }
    }
}

fn master(machine: &Machine, now: Duration) -> Option<MasterStatus> {
    if machine.state() == State::Master {
        let source = machine.source();
        return Some(MasterStatus {
            ours: true,
            address: source.map(|source| source.address.to_string()).unwrap_or_default(),
            mac: source.map(|source| source.mac.to_string()),
            priority: machine.priority(),
            interval_ms: machine.router().interval.as_millis() as u64,
            for_ms: millis(now, machine.last_change().0),
            heard_ms: 0,
        });
    }
    machine.other_master().map(|other| MasterStatus {
        ours: false,
        address: other.address.to_string(),
        mac: Some(other.mac.to_string()),
        priority: other.priority,
        interval_ms: other.interval.as_millis() as u64,
        for_ms: millis(now, other.since),
        heard_ms: millis(now, other.heard),
    })
}
