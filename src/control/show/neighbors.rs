//! Next hops for people.
//!
//! Owns the layout. Pure.

use crate::control::status::table::Table;
use crate::control::status::{NeighborStatus, span};

/// The next hops, those that are missing first.
pub fn render(neighbors: &[NeighborStatus]) -> String {
    if neighbors.is_empty() {
        return "no servers, and no fixed neighbors\n".to_owned();
    }
    let mut table =
        Table::new(&["<Server", "<Via", "<State", ">Since", "<Ethernet address", "<Interface", "<Kernel", "<Services"]);
    let mut rows: Vec<&NeighborStatus> = neighbors.iter().collect();
    rows.sort_by_key(|row| row.state != "unreachable");
    for row in rows {
        let via = match (&row.via, row.path.as_str()) {
            (Some(via), _) if *via == row.address => "direct".to_owned(),
            (Some(via), _) => via.clone(),
            (None, _) => "-".to_owned(),
        };
        let state = match (&row.unreachable, row.state.as_str()) {
            (Some(why), _) => format!("UNREACHABLE: {}", why.detail),
            (None, state) => state.to_owned(),
        };
        let vlan = row.vlan.map(|id| format!(" vlan {id}")).unwrap_or_default();
        table.row([
            row.address.clone(),
            via,
            state,
            // An entry that nobody needs is not watched.
            if row.services.is_empty() { "-".to_owned() } else { span(row.for_s) },
            row.mac.clone().unwrap_or_else(|| "-".to_owned()),
            row.interface.as_ref().map_or_else(|| "-".to_owned(), |name| format!("{name}{vlan}")),
            row.kernel.clone().unwrap_or_else(|| "-".to_owned()),
            if row.services.is_empty() { "none".to_owned() } else { row.services.join(" ") },
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::Unreachable;

    #[test]
    fn what_is_missing_comes_first() {
        let row = |address: &str, via: Option<&str>, state: &str| NeighborStatus {
            address: address.to_owned(),
            services: vec!["web".to_owned()],
            path: "routed".to_owned(),
            via: via.map(str::to_owned),
            state: state.to_owned(),
            for_s: 65,
            ..NeighborStatus::default()
        };
        let reached = NeighborStatus {
            mac: Some("02:00:00:00:00:11".to_owned()),
            interface: Some("eth0".to_owned()),
            vlan: Some(100),
            kernel: Some("stale".to_owned()),
            ..row("10.0.0.11", Some("10.0.0.11"), "reachable")
        };
        let lost = NeighborStatus {
            unreachable: Some(Unreachable { reason: "no-route".to_owned(), detail: "no route to it".to_owned() }),
            ..row("10.9.0.12", None, "unreachable")
        };
        let routed = NeighborStatus { services: Vec::new(), ..row("10.9.0.13", Some("10.0.0.1"), "fixed") };
        let expected = "\
Server     Via       State                            Since  Ethernet address   Interface      Kernel  Services
10.9.0.12  -         UNREACHABLE: no route to it  1 min 5 s  -                  -              -       web
10.0.0.11  direct    reachable                    1 min 5 s  02:00:00:00:00:11  eth0 vlan 100  stale   web
10.9.0.13  10.0.0.1  fixed                                -  -                  -              -       none
";
        let text = render(&[reached, lost, routed]);
        assert!(text == expected, "{text}");
        assert_eq!(render(&[]), "no servers, and no fixed neighbors\n");
    }
}
