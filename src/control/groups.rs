//! Ethernet groups of the owned IPv6 addresses: neighbour solicitations are sent to them (RFC 4861, section 7.2.1).
//!
//! Owns the memberships on every interface of the engine. They end with the process. Never answers a solicitation.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::dataplane::io::facts::InterfaceFacts;
use crate::dataplane::io::xsk::packet::{MulticastGuard, solicited_node_group};
use crate::dataplane::xdp::FilterTable;
use crate::model::MacAddr;

/// The groups that the interfaces are members of.
#[derive(Debug, Default)]
pub struct Groups {
    guards: Vec<(String, MulticastGuard)>,
    joined: BTreeSet<MacAddr>,
}

impl Groups {
    /// Of no group yet. An interface whose socket cannot be had is named in the log: its card may not deliver
    /// solicitations.
    pub fn new(interfaces: &[InterfaceFacts]) -> Groups {
        let guard = |facts: &InterfaceFacts| match MulticastGuard::new(facts.ifindex) {
            Ok(guard) => Some((facts.name.clone(), guard)),
            Err(error) => {
                tracing::warn!("{}: no socket for multicast groups: {error}", facts.name);
                None
            }
        };
        Groups { guards: interfaces.iter().filter_map(guard).collect(), joined: BTreeSet::new() }
    }

    /// Joins the groups of the owned addresses of a table.
    pub fn widen(&mut self, table: &FilterTable) {
        for group in groups(table) {
            if self.joined.insert(group) {
                self.each(|guard| guard.join(group), group);
            }
        }
    }

    /// Leaves the groups that a table does not need.
    pub fn narrow(&mut self, table: &FilterTable) {
        let needed: BTreeSet<MacAddr> = groups(table).collect();
        for group in std::mem::take(&mut self.joined) {
            if needed.contains(&group) {
                self.joined.insert(group);
            } else {
                self.each(|guard| guard.leave(group), group);
            }
        }
    }

    fn each(&self, act: impl Fn(&MulticastGuard) -> std::io::Result<()>, group: MacAddr) {
        for (name, guard) in &self.guards {
            if let Err(error) = act(guard) {
                // The interface is gone, or its table is full and it lets all groups in.
                tracing::warn!("{name}: the membership of {group} cannot be changed: {error}");
            }
        }
    }
}

fn groups(table: &FilterTable) -> impl Iterator<Item = MacAddr> {
    table.owned.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(solicited_node_group(*address)),
        IpAddr::V4(_) => None,
    })
}
