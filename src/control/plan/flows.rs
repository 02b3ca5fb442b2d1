//! What becomes of flows and of persistent clients when a configuration takes the place of another one.
//!
//! Owns the count. It follows what the snapshot does: a server stays while address, port and method do, and its flows with it;
//! the flows of one that is removed meet the service's fate for them, and those of a removed service end. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::control::compile::identity;
use crate::dataplane::schedule::Member;
use crate::dataplane::snapshot::Snapshot;
use crate::model::{Desired, Fate, PersistBy, Server, Service, ServiceKey};

/// The flows that there are, by server.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    /// By the server's address and port, the service's port where it has none of its own, 0 where that is a range.
    servers: HashMap<(ServiceKey, IpAddr, u16), u64>,
    /// All of a service.
    services: HashMap<ServiceKey, u64>,
    /// Of servers that were removed before, by service.
    removed: HashMap<ServiceKey, u64>,
}

impl Loads {
    /// Those of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Loads {
        let mut loads = Loads::default();
        for service in &snapshot.services {
            for member in &service.members {
                let flows = u64::from(member.load.total());
                if flows > 0 {
                    loads.servers.insert((*service.key(), member.address, member.port), flows);
                }
            }
            let flows = |members: &[Member]| members.iter().map(|member| u64::from(member.load.total())).sum();
            let (there, removed): (u64, u64) = (flows(&service.members), flows(&service.ghosts));
            if there + removed > 0 {
                loads.services.insert(*service.key(), there + removed);
                loads.removed.insert(*service.key(), removed);
            }
        }
        loads
    }

    /// The flows of a server.
    pub fn of_server(&self, service: &Service, server: &Server) -> u64 {
        let port = server.port.or(service.key.ports.as_single()).unwrap_or(0);
        self.servers.get(&(service.key, server.address, port)).copied().unwrap_or(0)
    }

    /// All flows of a service.
    pub fn of_service(&self, key: &ServiceKey) -> u64 {
        self.services.get(key).copied().unwrap_or(0)
    }
}

/// What becomes of the flows that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// They go on at their servers; those of servers that were removed before are among them.
    pub stay: u64,
    /// They move to another server with their next packet.
    pub move_on: u64,
    /// They end.
    pub end: u64,
    /// Their packets are dropped until their server is back.
    pub wait: u64,
}

impl Flows {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.stay + self.move_on + self.end + self.wait
    }

    pub(super) fn of(old: &Desired, new: &Desired, loads: &Loads) -> Flows {
        let mut all = Flows::default();
        let after: HashMap<ServiceKey, &Service> = new.services.iter().map(|service| (service.key, service)).collect();
        for before in &old.services {
            let Some(after) = after.get(&before.key) else { continue };
            let configured: HashSet<_> = after.all_servers().map(identity).collect();
            for server in before.all_servers() {
                let flows = loads.of_server(before, server);
                let count = match after.fates.removed {
                    _ if configured.contains(&identity(server)) => &mut all.stay,
                    Fate::Reset => &mut all.end,
                    Fate::Reschedule => &mut all.move_on,
                    Fate::Keep => &mut all.wait,
                };
                *count += flows;
            }
        }
        for (service, flows) in &loads.services {
            if after.contains_key(service) {
                all.stay += loads.removed.get(service).copied().unwrap_or(0);
            } else {
                all.end += flows;
            }
        }
        all
    }
}

/// Persistent clients that are forgotten: their next flows are scheduled anew, open ones go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The group, or the service where it is in none.
    pub of: String,
    /// A service of it, to ask for their number.
    #[serde(skip)]
    pub service: Option<ServiceKey>,
    /// How many there are, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
}

/// What shares clients, and what tells them apart.
#[derive(PartialEq, Eq, Hash)]
enum Unit<'s> {
    Group(&'s str),
    Service(ServiceKey),
}

type Way = (bool, u8);

fn units(desired: &Desired) -> HashMap<Unit<'_>, (Way, &Service)> {
    let mut all = HashMap::new();
    for service in &desired.services {
        let Some(persistence) = service.persistence.as_ref().filter(|persistence| persistence.seconds > 0) else {
            continue;
        };
        let unit = service.group.as_deref().map_or(Unit::Service(service.key), Unit::Group);
        let bits = if service.key.address.is_ipv4() { persistence.prefix_v4 } else { persistence.prefix_v6 };
        all.entry(unit).or_insert(((persistence.by == PersistBy::SipCallId, bits), service));
    }
    all
}

/// Whose clients are forgotten, by name.
pub(super) fn forgotten(old: &Desired, new: &Desired) -> Vec<Forgotten> {
    let after = units(new);
    let lost = units(old).into_iter().filter(|(unit, (way, _))| after.get(unit).is_none_or(|(after, _)| after != way));
    let mut all: Vec<Forgotten> = lost
        .map(|(_, (_, service))| Forgotten {
            of: service.group.clone().unwrap_or_else(|| service.name.clone()),
            service: Some(service.key),
            clients: None,
        })
        .collect();
    all.sort_by(|a, b| a.of.cmp(&b.of));
    all
}
