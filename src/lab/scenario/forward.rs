//! What a site's servers need in the engine's configuration: the methods that fit where they stand.
//!
//! Owns the keys of a service that a forwarding method asks for. Never starts anything.

use crate::lab::engine::EngineConfig;
use crate::lab::site::{Family, Reach, Site};
use crate::model::Method;

/// Local addresses of full NAT.
const LOCALS: u8 = 2;

/// Gives a service a forwarding method, with the local addresses of full NAT.
pub fn by(config: &mut EngineConfig, site: &Site, family: Family, service: &str, method: Method) {
    config.change_service(service, "method", method.name());
    if method == Method::FullNat {
        let locals: Vec<_> = (0..LOCALS).map(|index| site.local_address(family, index).to_string()).collect();
        config.change_service(service, "local_addresses", locals);
    }
    if site.options.reach == Reach::Mixed {
        for server in &site.servers {
            let own = match server.reach {
                Reach::Direct => Method::Dr,
                Reach::Nat => Method::Nat,
                Reach::FullNat => Method::FullNat,
                Reach::Tunnel | Reach::Mixed => Method::Ipip,
            };
            config.change_server(service, server.address(family), "method", own.name());
        }
    }
}

/// Gives the engine the servers' gateway, where they have one.
pub fn gateways(config: &mut EngineConfig, site: &Site) {
    if site.servers.iter().any(|server| server.reach == Reach::Nat) {
        config.owned(site.gateway(Family::V4)).owned(site.gateway(Family::V6));
    }
}
