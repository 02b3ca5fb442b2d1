//! Numbers for persistence: of what shares its clients, and of the real servers within that.
//!
//! Owns which numbers stay from one snapshot to the next. A number is never given twice, so that a template that is left
//! over names no other server than the one that it was made for. A server that was removed keeps its number for a while: its
//! clients are its again when it comes back in time, as in IPVS. Pure.

use std::net::IpAddr;
use std::time::Duration;

use super::{Map, Set};
use crate::model::{Desired, Server, Service, ServiceKey};

/// How long a removed server keeps its number at least.
const MEMORY: Duration = Duration::from_secs(3600);

/// What shares persistent clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    Group(String),
    Service(ServiceKey),
}

impl Name {
    fn of(service: &Service) -> Name {
        service.group.clone().map_or(Name::Service(service.key), Name::Group)
    }
}

/// A real server within a unit. In a group it is one by its address: its ports are the services'.
type RealName = (IpAddr, Option<u16>);

fn real_name(service: &Service, server: &Server) -> RealName {
    (server.address, server.port.filter(|_| service.group.is_none()))
}

/// A real server's number, and when it was last configured.
#[derive(Clone, Copy, Debug)]
struct Real {
    number: u32,
    seen: Duration,
}

#[derive(Debug, Default)]
struct Unit {
    number: u32,
    reals: Map<RealName, Real>,
}

/// All units of a configuration.
#[derive(Debug, Default)]
pub(super) struct Units {
    last_unit: u32,
    last_real: u32,
    known: Map<Name, Unit>,
}

impl Units {
    /// Takes over a configuration. `now` is any clock that never goes back.
    pub fn assign(&mut self, desired: &Desired, now: Duration) {
        let wanted: Set<Name> = desired.services.iter().map(Name::of).collect();
        self.known.retain(|name, _| wanted.contains(name));
        for service in &desired.services {
            let unit = self.known.entry(Name::of(service)).or_default();
            if unit.number == 0 {
                self.last_unit += 1;
                unit.number = self.last_unit;
            }
            let seconds = service.persistence.as_ref().map_or(0, |persistence| persistence.seconds);
            let memory = MEMORY.max(Duration::from_secs(u64::from(seconds)));
            unit.reals.retain(|_, real| now.saturating_sub(real.seen) <= memory);
            for server in service.all_servers() {
                let real = unit.reals.entry(real_name(service, server)).or_insert_with(|| {
                    self.last_real += 1;
                    Real { number: self.last_real, seen: now }
                });
                real.seen = now;
            }
        }
    }

    /// The number of a service's unit.
    pub fn unit(&self, service: &Service) -> u32 {
        self.known.get(&Name::of(service)).map_or(0, |unit| unit.number)
    }

    /// The number of a server of a service.
    pub fn real(&self, service: &Service, server: &Server) -> u32 {
        let unit = self.known.get(&Name::of(service));
        unit.and_then(|unit| unit.reals.get(&real_name(service, server))).map_or(0, |real| real.number)
    }
}
