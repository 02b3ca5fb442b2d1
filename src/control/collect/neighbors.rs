//! What the status says of next hops.
//!
//! Owns nothing but the gathering.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use crate::control::netlink::Certainty;
use crate::control::nexthop::tracker::{Row, Tracker};
use crate::control::nexthop::{Path, Reason};
use crate::control::status::parts::Question;
use crate::control::status::{NeighborStatus, Unreachable};
use crate::model::{Desired, Neighbor};

/// The ways to the servers that are asked for; and the fixed neighbours that no server needs, unless some are named.
pub fn all(desired: &Desired, tracker: &Tracker, asked: &Question, now: Instant) -> Vec<NeighborStatus> {
    let mut services: BTreeMap<(IpAddr, Path), Vec<String>> = BTreeMap::new();
    for service in desired.services.iter().filter(|service| asked.names(service)) {
        for server in service.all_servers().filter(|server| asked.names_server(service, server)) {
            let names = services.entry((server.address, Path::of(server.method))).or_default();
            if names.last() != Some(&service.name) {
                names.push(service.name.clone());
            }
        }
    }
    let mut used: HashSet<IpAddr> = HashSet::new();
    let mut all = Vec::new();
    for row in tracker.rows() {
        used.extend(row.fixed.map(|fixed| fixed.address));
        if let Some(services) = services.remove(&(row.address, row.path)) {
            all.push(one(desired, &row, services, now));
        }
    }
    if !asked.is_narrow() {
        all.extend(desired.neighbors.iter().filter(|fixed| !used.contains(&fixed.address)).map(unused));
    }
    all
}

fn one(desired: &Desired, row: &Row<'_>, services: Vec<String>, now: Instant) -> NeighborStatus {
    let interface = |port: u8| desired.interfaces.get(usize::from(port)).map(|interface| interface.name.clone());
    let hop = row.reach.as_ref().ok();
    let state = match row.reach {
        Ok(_) if row.fixed.is_some() => "fixed",
        Ok(_) if row.held => "held",
        Ok(_) => "reachable",
        Err(Reason::Local) => "local",
        Err(_) => "unreachable",
    };
    let why = row.reach.as_ref().err().filter(|why| **why != Reason::Local);
    NeighborStatus {
        address: row.address.to_string(),
        services,
        path: match row.path {
            Path::OnLink => "on-link",
            Path::Routed => "routed",
        }
        .to_owned(),
        via: row.via.map(|via| via.to_string()),
        state: state.to_owned(),
        mac: hop.map(|hop| hop.mac.to_string()),
        interface: hop.and_then(|hop| interface(hop.port)),
        vlan: hop.and_then(|hop| hop.vlan),
        kernel: row.certainty.map(|certainty| word(certainty).to_owned()),
        for_s: now.saturating_duration_since(row.since).as_secs(),
        unreachable: why.map(|why| Unreachable { reason: why.word().to_owned(), detail: why.to_string() }),
    }
}

const fn word(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::Sure => "sure",
        Certainty::Stale => "stale",
        Certainty::Pending => "pending",
        Certainty::Failed => "failed",
    }
}

/// An entry of `[[neighbor]]` that no server needs.
fn unused(fixed: &Neighbor) -> NeighborStatus {
    NeighborStatus {
        address: fixed.address.to_string(),
        state: "fixed".to_owned(),
        mac: Some(fixed.mac.to_string()),
        interface: fixed.interface.clone(),
        vlan: fixed.vlan,
        ..NeighborStatus::default()
    }
}
