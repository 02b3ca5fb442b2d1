//! Real HTTP through the engine: every shape of network, both protocols, tags, queues and I/O modes.

mod lab_support;

use std::time::Duration;

use evenkeel::lab::netlink::Wire;
use evenkeel::lab::scenario::{Scenario, Stage, Traffic, find};
use evenkeel::lab::site::{Family, Shape, SiteOptions};
use evenkeel::model::{IoMode, Method};
use lab_support::{heavy, lab_is_possible, must_pass, options, set};

const LOAD: Duration = Duration::from_secs(2);

/// Four queues and two arms over IPv6, for two workers.
static QUEUES: Scenario = Scenario {
    name: "four queues",
    summary: "",
    site: SiteOptions { shape: Shape::TwoArm, wire: Wire { queues: 4, mtu: 1500 }, ..SiteOptions::USUAL },
    family: Family::V6,
    method: Method::Dr,
    traffic: Traffic::Web,
};

fn scenario_passes(name: &str) {
    if lab_is_possible() {
        must_pass(&set(find(name).unwrap()), LOAD);
    }
}

#[test]
fn one_arm_ipv4() {
    scenario_passes("web-dr-one-arm");
}

#[test]
fn one_arm_ipv6() {
    scenario_passes("web-dr-ipv6");
}

#[test]
fn two_arms_ipv4() {
    scenario_passes("web-dr-two-arm");
}

#[test]
fn tagged_frames() {
    scenario_passes("vlan-dr");
}

#[test]
fn udp_conversations() {
    scenario_passes("udp-dr");
}

/// Requests of one client spread over the queues, and so over the workers; the two arms of a flow are on any of them.
#[test]
fn two_workers_share_four_queues_and_two_arms() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores: Vec<i64> = if cores > 1 { vec![0, 1] } else { vec![0] };
    let stage = Stage::set_with(&QUEUES, &options(), |_, config| {
        config.set("engine", "cores", cores);
    });
    let stage = stage.unwrap_or_else(|error| panic!("{error}"));
    must_pass(&stage, LOAD);
    let status = stage.engine.status().unwrap();
    for worker in status["workers"].as_array().unwrap() {
        assert!(
            worker["forwarded"].as_u64().unwrap() > 50,
            "a worker had next to nothing to do: {}",
            status["workers"]
        );
    }
}

fn mode_passes(mode: IoMode, name: &str) {
    if !lab_is_possible() {
        return;
    }
    let mut options = options();
    options.mode = Some(mode);
    let stage = Stage::set(find(name).unwrap(), &options).unwrap_or_else(|error| panic!("{mode}: {error}"));
    must_pass(&stage, LOAD);
}

#[test]
fn copy_mode() {
    mode_passes(IoMode::Copy, "web-dr-one-arm");
}

#[test]
fn generic_mode() {
    mode_passes(IoMode::Generic, "web-dr-one-arm");
}

#[test]
fn generic_mode_with_tags() {
    mode_passes(IoMode::Generic, "vlan-dr");
}

#[test]
fn af_packet_mode() {
    mode_passes(IoMode::AfPacket, "web-dr-one-arm");
}

#[test]
fn af_packet_mode_with_two_arms_and_ipv6() {
    if !lab_is_possible() {
        return;
    }
    let mut options = options();
    options.mode = Some(IoMode::AfPacket);
    must_pass(&Stage::set(&QUEUES, &options).unwrap_or_else(|error| panic!("{error}")), LOAD);
}

/// veth has no zero-copy: asking for nothing else must be refused in words, not run in another mode.
#[test]
fn zero_copy_alone_is_refused_on_veth() {
    if !lab_is_possible() {
        return;
    }
    let mut options = options();
    options.mode = Some(IoMode::ZeroCopy);
    match Stage::set(find("web-dr-one-arm").unwrap(), &options) {
        Ok(_) => panic!("it started"),
        Err(error) => assert!(error.to_string().contains("zero-copy"), "{error}"),
    }
}
