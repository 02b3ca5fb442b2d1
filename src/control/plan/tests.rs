//! Plans of known changes, and plans of any changes against what the snapshot does.

use std::collections::HashMap;
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::control::compile::Registry;
use crate::control::config::parse;
use crate::dataplane::snapshot::{NextHop, Port, Snapshot};
use crate::model::{Fates, MacAddr, Method, PersistBy, Persistence, PortRange, Protocol, Scheduler, Server, Timeouts};

const OLD: &str = r#"
[[interface]]
name = "eth0"

[[service]]
name = "web"
address = "192.0.2.10"
port = 80
scheduler = "wlc"
check = "none"

[[service.server]]
address = "10.0.0.11"

[[service.server]]
address = "10.0.0.12"
weight = 2

[[service]]
name = "dns"
address = "192.0.2.53"
protocol = "udp"
port = 53
persistence = 60
check = "none"

[[service.server]]
address = "10.0.0.53"
"#;

fn read(text: &str) -> Desired {
    let outcome = parse(text, 0);
    outcome.desired.unwrap_or_else(|| panic!("{:#?}", outcome.problems))
}

fn snapshot(registry: &mut Registry, desired: &Desired) -> Snapshot {
    let port = Port::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500, true);
    let hop = NextHop { port: 0, vlan: None, mac: MacAddr([2, 0, 0, 0, 0, 9]) };
    registry.compile(desired, vec![port], |_| Some(hop)).expect("compiles").snapshot
}

/// The plan from one text to another, with so many flows at each server.
fn plan_of(old: &str, new: &str, flows: usize) -> Plan {
    let (old, new) = (read(old), read(new));
    let snapshot = snapshot(&mut Registry::default(), &old);
    for member in snapshot.services.iter().flat_map(|service| &service.members) {
        (0..flows).for_each(|_| member.load.open(true));
    }
    plan(&old, &new, &Loads::of(&snapshot))
}

#[test]
fn the_same_configuration_changes_nothing() {
    let plan = plan_of(OLD, OLD, 3);
    assert!(plan.is_empty(), "{plan:#?}");
    assert_eq!(plan.flows, Flows { stay: 9, ..Flows::default() });
    assert_eq!(render(&plan), "nothing changes\n");
    // Words and comments are no settings.
    assert!(plan_of(OLD, &OLD.replace("port = 80", "port = 80 # the usual one"), 0).is_empty());
}

#[test]
fn a_change_is_told_as_a_diff() {
    let new = OLD
        .replace("scheduler = \"wlc\"", "scheduler = \"wrr\"")
        .replace("address = \"10.0.0.11\"", "address = \"10.0.0.13\"\nweight = 5")
        .replace("weight = 2", "weight = 3")
        .replace("persistence = 60", "persistence = \"off\"")
        .replace("name = \"eth0\"", "name = \"eth0\"\nqueues = [0]")
        + "\n[engine]\nflows = 5000\n[timeouts]\nudp = 30\n[control]\nreaders = \"*\"\n[access]\ndeny = \"203.0.113.0/24\"\n";
    let plan = plan_of(OLD, &new, 4);
    let expected = "\
~ [engine]: only a restart brings this
    flows: 1000000 -> 5000
~ [timeouts]
    udp: 300 -> 30
~ [access]
    deny: nothing -> 203.0.113.0/24
~ [control]
    readers: [] -> [\"*\"]
~ interface eth0: only a restart brings this
    queues: \"all\" -> [0]
~ service web
    scheduler: \"wlc\" -> \"wrr\"
    - server 10.0.0.11:80 (weight 1, dr): 4 flows end
    + server 10.0.0.13:80 (weight 5, dr)
    ~ server 10.0.0.12:80
        weight: 2 -> 3
~ service dns
    persistence: 60 -> \"off\"
    persistence_by: \"client\" -> nothing
    persistence_prefix_v4: 32 -> nothing
    persistence_drained: \"keep\" -> nothing
~ dns: persistent clients forgotten; open flows go on
1 added, 1 removed, 8 changed; of 12 flows 8 stay, 4 end
2 of these only with a restart
";
    assert_eq!(render(&plan), expected);
    let json = serde_json::to_value(&plan).expect("JSON");
    let back: Plan = serde_json::from_value(json).expect("back");
    assert_eq!(render(&back), expected, "a client says the same");
}

#[test]
fn services_and_fates_of_flows_are_told() {
    let gone = OLD.split("[[service]]\nname = \"dns\"").next().expect("the first part");
    let plan = plan_of(OLD, gone, 2);
    assert_eq!(
        render(&plan),
        "- service dns (udp 192.0.2.53:53, wlc, dr, server 10.0.0.53:53): 2 flows end\n\
         ~ dns: persistent clients forgotten; open flows go on\n\
         0 added, 1 removed, 0 changed; of 6 flows 4 stay, 2 end\n"
    );
    // Another method is another server for flows, and the same for people.
    for (word, fate) in [
        ("reset", "2 flows end\n"),
        ("reschedule", "2 flows move to other servers\n"),
        ("keep", "2 flows wait until it is back\n"),
    ] {
        let new = OLD
            .replace("weight = 2", "weight = 2\nmethod = \"ipip\"")
            .replace("port = 80\n", &format!("port = 80\nflows_of_removed = \"{word}\"\n"));
        let text = render(&plan_of(OLD, &new, 2));
        assert!(text.contains("    ~ server 10.0.0.12:80: "), "{text}");
        assert!(text.contains(fate), "{text}");
        assert!(text.contains("        method: \"dr\" -> \"ipip\"\n"), "{text}");
    }
    // The other order of the same.
    let (first, second) = OLD.split_once("\n[[service]]\nname = \"dns\"").expect("two");
    let (head, web) = first.split_once("\n[[service]]").expect("one");
    let turned = format!("{head}\n[[service]]\nname = \"dns\"{second}\n[[service]]{web}");
    let plan = plan_of(OLD, &turned, 1);
    assert_eq!(render(&plan).lines().next(), Some("~ services: in another order"));
    assert_eq!(plan.flows.stay, 3);
}

#[test]
fn secrets_are_not_shown() {
    let with = |password: &str| {
        let router = format!("vrid = 7\nname = \"a\"\ninterface = \"eth0\"\npassword = \"{password}\"");
        format!("{OLD}\n[[virtual_router]]\n{router}\naddress = \"192.0.2.99\"\n")
    };
    let plan = plan_of(&with("one"), &with("two"), 0);
    assert_eq!(plan.changes.len(), 1, "{plan:#?}");
    let text = render(&plan);
    assert!(text.contains("password: (not shown) -> (not shown)"), "{text}");
    assert!(!serde_json::to_string(&plan).expect("JSON").contains("two"));
}

#[test]
fn what_a_reload_takes_back_is_marked() {
    let file = read(OLD);
    let running = read(&OLD.replace("weight = 2", "weight = 7"));
    let wanted = read(&OLD.replace("scheduler = \"wlc\"", "scheduler = \"rr\""));
    let none = Loads::default();
    let mut back = plan(&running, &wanted, &none);
    back.mark_unsaved(&plan(&file, &running, &none));
    let marked: Vec<(&str, bool)> = back.changes.iter().map(|one| (one.name.as_str(), one.unsaved)).collect();
    assert_eq!(marked, [("web", false), ("10.0.0.12:80", true)]);
    let text = render(&back);
    assert!(text.contains("~ server 10.0.0.12:80: was changed by command and not saved\n"), "{text}");
    assert!(text.contains("\n1 take back what was changed by command"), "{text}");
}

/// Any of a few services with some of a few servers: two draws have much in common.
fn services() -> impl Strategy<Value = Vec<Service>> {
    let server = (0u8..4, proptest::option::of(select(vec![8080u16, 8081])), 0u16..3);
    let method = select(vec![Method::Dr, Method::Nat]);
    let fate = select(vec![Fate::Keep, Fate::Reschedule, Fate::Reset]);
    let persistent = (any::<bool>(), select(vec![24u8, 32]), any::<bool>());
    let one = (proptest::collection::vec((server, method), 0..5), fate, persistent, any::<bool>());
    (subsequence(vec![80u16, 81, 82, 83], 0..=4).prop_shuffle(), proptest::collection::vec(one, 4)).prop_map(
        |(ports, settings)| {
            type Settings = (Vec<((u8, Option<u16>, u16), Method)>, Fate, (bool, u8, bool), bool);
            let service = |(port, (servers, removed, (persists, bits, grouped), sorry)): (u16, Settings)| {
                let ports = PortRange::single(port);
                let key = ServiceKey { address: IpAddr::from([192, 0, 2, 1]), protocol: Protocol::Tcp, ports };
                let mut all: Vec<Server> = Vec::new();
                for ((last, port, weight), method) in servers {
                    let port = port.filter(|_| method == Method::Nat);
                    let server = Server::new(IpAddr::from([10, 0, 0, last]), port, weight, method);
                    if !all.iter().any(|known| (known.address, known.port) == (server.address, server.port)) {
                        all.push(server);
                    }
                }
                let mut service = Service::dr(&format!("s{port}"), key, Scheduler::RR, all);
                service.fates = Fates { removed, ..Fates::DEFAULT };
                service.persistence = persists.then_some(Persistence {
                    by: PersistBy::Client,
                    seconds: 60,
                    prefix_v4: bits,
                    prefix_v6: 128,
                    leave_drained: false,
                });
                service.group = (persists && grouped).then(|| format!("g{bits}"));
                if sorry {
                    // One that is no server.
                    let sorry = Server::new(IpAddr::from([10, 0, 0, 99]), None, 1, Method::Dr);
                    service.health.sorry = Some(Box::new(sorry));
                }
                service
            };
            ports.into_iter().zip(settings).map(service).collect()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What the plan says of flows is what the snapshots do, server by server.
    #[test]
    fn flows_are_counted_as_the_snapshot_treats_them(
        steps in proptest::collection::vec(services(), 3),
        flows in proptest::collection::vec(0usize..4, 64),
    ) {
        let mut registry = Registry::default();
        let first = Desired::of(steps[0].clone());
        let before = snapshot(&mut registry, &first);
        // Flows at all of them, then a change that leaves some with flows behind, then the change that is planned.
        let mut some = flows.iter().copied().cycle();
        let mut open = |snapshot: &Snapshot| {
            for member in snapshot.services.iter().flat_map(|service| &service.members) {
                (0..some.next().unwrap_or(0)).for_each(|_| member.load.open(true));
            }
        };
        open(&before);
        let old = Desired::of(steps[1].clone());
        let before = snapshot(&mut registry, &old);
        open(&before);
        let new = Desired::of(steps[2].clone());
        let told = plan(&old, &new, &Loads::of(&before));
        let after = snapshot(&mut registry, &new);

        let stays: HashMap<u32, Option<Fate>> = after.services.iter().flat_map(|service| {
            let ghosts = service.ghosts.iter().map(|ghost| (ghost.id, Some(service.config.fates.removed)));
            service.members.iter().map(|member| (member.id, None)).chain(ghosts)
        }).collect();
        let mut expected = Flows::default();
        for service in &before.services {
            for member in &service.members {
                let count = match stays.get(&member.id) {
                    Some(None) => &mut expected.stay,
                    Some(Some(Fate::Keep)) => &mut expected.wait,
                    Some(Some(Fate::Reschedule)) => &mut expected.move_on,
                    Some(Some(Fate::Reset)) | None => &mut expected.end,
                };
                *count += u64::from(member.load.total());
            }
            // Those of servers that were gone before: the plan is not what ends them, unless their service goes.
            for ghost in &service.ghosts {
                let count = if stays.contains_key(&ghost.id) { &mut expected.stay } else { &mut expected.end };
                *count += u64::from(ghost.load.total());
            }
        }
        prop_assert_eq!(told.flows, expected, "{:#?}", told.changes);
        // And line by line it says the same as in the sum.
        let lines: u64 = told.changes.iter().filter_map(|change| change.affected).map(|one| one.flows).sum();
        let sorry: u64 = before.services.iter().flat_map(|service| &service.members)
            .filter(|member| member.address == IpAddr::from([10, 0, 0, 99]))
            .filter(|member| after.services.iter().any(|service| service.ghosts.iter().any(|g| g.id == member.id)))
            .map(|member| u64::from(member.load.total())).sum();
        prop_assert_eq!(lines + sorry, expected.end + expected.move_on + expected.wait);
    }

    /// Who has clients that are forgotten follows the numbers of the snapshots.
    #[test]
    fn clients_are_forgotten_as_the_table_forgets_them(old in services(), new in services()) {
        let (old, new) = (Desired::of(old), Desired::of(new));
        let mut registry = Registry::default();
        let before = snapshot(&mut registry, &old);
        let units = crate::control::persistence::units(&before);
        let after = crate::control::persistence::units(&snapshot(&mut registry, &new));
        let lost = units.iter().filter(|(unit, way)| after.get(unit).is_none_or(|now| now.prefix_v4 != way.prefix_v4));
        prop_assert_eq!(super::flows::forgotten(&old, &new).len(), lost.count());
    }

    #[test]
    fn a_plan_is_empty_if_and_only_if_nothing_differs(old in services(), new in services(), udp in 1u32..3) {
        let old = Desired::of(old);
        let mut new = Desired::of(new);
        let timeouts = Timeouts { udp: 299 + udp, ..Timeouts::default() };
        new.timeouts = timeouts;
        new.services.iter_mut().for_each(|service| service.timeouts = timeouts);
        let none = Loads::default();
        prop_assert_eq!(plan(&old, &new, &none).is_empty(), old == new);
        prop_assert!(plan(&old, &old, &none).is_empty() && plan(&new, &new, &none).is_empty());
    }
}
