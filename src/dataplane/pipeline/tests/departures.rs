//! Flows of persistent clients whose service goes, comes back, leaves its group, or tells its clients apart in another way.

use super::persistence::{datagram, end_flows, persistence, rig, templates, web};
use super::*;

/// Flows under each template.
fn flows(rig: &Rig) -> Vec<u32> {
    let mut flows: Vec<u32> = templates(rig).iter().map(|template| template.flows).collect();
    flows.sort_unstable();
    flows
}

fn udp(vip: &str, group: Option<&str>, prefix_v4: u8) -> Service {
    let keeps = Persistence { prefix_v4, ..persistence(300) };
    Service { group: group.map(str::to_owned), ..web(vip, Protocol::Udp, &[1, 2], Some(keeps)) }
}

/// The worker sees the new configuration, and time passes.
fn follow(rig: &mut Rig, services: Vec<Service>, seconds: u32) {
    rig.swap(services);
    rig.now += seconds * 1000;
    end_flows(rig);
}

#[test]
fn a_service_that_leaves_its_group_leaves_no_flows_behind() {
    let both = || vec![udp("192.0.2.10:80", Some("shop"), 32), udp("192.0.2.10:81", Some("shop"), 32)];
    let alone = || vec![both().remove(0), udp("192.0.2.10:81", None, 32)];
    let gone = || vec![both().remove(0)];
    for after in [gone(), alone()] {
        let mut rig = rig(both());
        datagram(&mut rig, "198.51.100.1:1000", "192.0.2.10:80", b"?");
        datagram(&mut rig, "198.51.100.1:1000", "192.0.2.10:81", b"?");
        assert_eq!(flows(&rig), [2]);
        follow(&mut rig, after, 1);
        assert_eq!(flows(&rig), [1], "the client's flow of the other service goes on");
        follow(&mut rig, gone(), 400);
        assert!(rig.pipeline.director().templates.is_empty(), "it would be there for ever");
    }
}

#[test]
fn flows_of_a_service_that_was_there_before_are_not_those_of_its_successor() {
    let service = |prefix| vec![udp("192.0.2.10:80", None, prefix)];
    for between in [Some(Vec::new()), None] {
        let mut rig = rig(service(32));
        datagram(&mut rig, "198.51.100.1:1000", "192.0.2.10:80", b"?");
        for services in between.iter().cloned() {
            rig.swap(services);
        }
        // Removed and added again, or with other masks.
        follow(&mut rig, service(if between.is_some() { 32 } else { 24 }), 200);
        datagram(&mut rig, "198.51.100.1:2000", "192.0.2.10:80", b"?");
        assert_eq!(templates(&rig).iter().filter(|template| template.flows > 0).count(), 1);
        follow(&mut rig, service(if between.is_some() { 32 } else { 24 }), 150);
        assert_eq!(rig.pipeline.tables().0.len(), 1, "the older one has ended");
        assert_eq!(templates(&rig).iter().map(|template| template.flows).max(), Some(1), "the newer one has not");
    }
}
