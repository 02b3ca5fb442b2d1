//! Configurations for the tests of this folder.

use std::net::IpAddr;

use crate::model::*;

/// A service `web` of servers 10.0.0.n with weight 1 and no checks.
pub fn desired(servers: &[u8]) -> Desired {
    let key =
        ServiceKey { address: IpAddr::from([192, 0, 2, 10]), protocol: Protocol::Tcp, ports: PortRange::single(80) };
    let servers = servers.iter().map(|n| Server::dr(IpAddr::from([10, 0, 0, *n]), 1)).collect();
    Desired::of(vec![Service::dr("web", key, Scheduler::WLC, servers)])
}

/// A TCP check.
pub fn tcp(address: IpAddr, port: u16) -> Check {
    let target = CheckTarget { address, port, source: None, through: None };
    Check { kind: CheckKind::Tcp, target, pace: Pace::default() }
}
