//! Frames that change their receive queue all the time, as a network card's hash may after a change of its table.
//!
//! Owns the transmit queue masks (XPS) of the switch ports that feed the appliance: the receive queue of one end of a veth
//! pair is the transmit queue that the other end chose. Never touches the appliance itself.

use std::process::Command;

use super::error::LabError;
use super::process::{Process, require};
use super::site::{APPLIANCE, Network, Shape, Site};

/// The processors of the engine's workers: two, where there are two.
pub fn cores() -> Vec<i64> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if count > 1 { vec![0, 1] } else { vec![0] }
}

/// Moves the frames for the appliance from queue to queue, every few milliseconds, until the lab ends.
pub fn shuffle(site: &Site) -> Result<Vec<Process>, LabError> {
    let shell = require("sh", "dash")?;
    let networks: &[Network] = match site.options.shape {
        Shape::OneArm => &[Network::Front],
        Shape::TwoArm => &[Network::Front, Network::Back],
    };
    let arms = networks.iter().zip(site.appliance_interfaces());
    arms.map(|(&network, interface)| {
        let segment = site.segment(network);
        let mut command = Command::new(&shell);
        command.arg("-c").arg(script(&format!("{APPLIANCE}-{interface}"), site.options.wire.queues));
        site.lab.start(segment, &format!("{segment}-queues"), &command)
    })
    .collect()
}

/// Each processor sends by one queue at a time; which one, changes in a sequence that visits all pairs.
fn script(port: &str, queues: u32) -> String {
    // The name of a port is cut to what an interface may have (15 bytes).
    let port = &port[..port.len().min(15)];
    format!(
        "cd /sys/class/net/{port}/queues || exit 1
step=0
while :; do
    first=$((step % {queues})) second=$((step / {queues} % {queues})) queue=0
    while [ $queue -lt {queues} ]; do
        mask=0
        [ $queue = $first ] && mask=$((mask + 1))
        [ $queue = $second ] && mask=$((mask + 2))
        echo $mask > tx-$queue/xps_cpus || exit 1
        queue=$((queue + 1))
    done
    step=$((step + 1))
    sleep 0.01
done
"
    )
}
