//! A server that is the appliance itself (IPVS "Local"): its packets are the kernel's.

mod lab_support;

use evenkeel::lab::server::{transfer, udp as udp_server};
use evenkeel::lab::site::{APPLIANCE, Family};
use evenkeel::model::Method;
use lab_support::lab_is_possible;
use lab_support::rig::{BULK, ECHO, Wish, ip_option};

/// Connections go to a real server and to the appliance's own program in turn, and all arrive whole.
#[test]
fn the_appliance_serves_its_share_itself() {
    if !lab_is_possible() {
        return;
    }
    for family in [Family::V4, Family::V6] {
        let mut stand = Wish::new(Method::Dr, family).one_arm().build();
        let (vip, own) = (stand.site.vip(family), stand.site.appliance_address(family));
        let first = stand.site.servers[0].address(family);
        for service in ["bulk", "echo"] {
            stand.config.servers(service, &[(first, 1), (own, 1)]);
        }
        // What the operator does for a local server: the kernel has the address, too.
        let (prefix, at_once) = if vip.is_ipv4() { (32, "") } else { (128, "nodad") };
        stand.ip(APPLIANCE, &format!("{} address add {vip}/{prefix} dev lo {at_once}", ip_option(family)));
        transfer::start(&mut stand.site, APPLIANCE, vip, BULK).unwrap();
        udp_server::start(&mut stand.site, APPLIANCE, vip, ECHO).unwrap();
        let rig = stand.start();
        rig.transfer(4, 2);
        rig.echo(&[100; 10]);
        for service in ["bulk", "echo"] {
            let server = rig.engine.server_status(service, own).unwrap();
            assert_eq!(server["method"], "local", "{server}");
            assert!(server["connections"].as_u64() >= Some(2), "{server}\n{}", rig.story());
            let other = rig.engine.server_status(service, first).unwrap();
            assert!(other["connections"].as_u64() >= Some(2), "{other}\n{}", rig.story());
        }
    }
}
