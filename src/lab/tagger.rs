//! 802.1Q tags for nodes whose kernel has no VLAN interfaces.
//!
//! Owns two threads between a node's cable and a segment: one adds the tag to what the node sends, one takes it off what
//! the node is to receive. A frame with another tag, or none, is dropped, as a VLAN interface would.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::client::frames::Frames;
use super::error::LabError;
use super::topology::Lab;

/// Bytes of the two Ethernet addresses.
const ADDRESSES: usize = 12;

/// Joins `plain` and `tagged`, two interfaces of `node`: frames have a tag only on the latter.
pub fn start(lab: &mut Lab, node: &str, plain: &str, tagged: &str, id: u16) -> Result<(), LabError> {
    let namespace = lab.node(node)?;
    let (inside, outside) = (Frames::open(namespace, plain)?, Frames::open(namespace, tagged)?);
    let (to_inside, to_outside) = (inside.second()?, outside.second()?);
    let tag = tag(id);
    lab.thread(node, &format!("tag-{plain}"), move |stop| {
        carry(inside, &to_outside, &stop, |mut frame| {
            (frame.len() > ADDRESSES).then(|| {
                frame.splice(ADDRESSES..ADDRESSES, tag);
                frame
            })
        });
    })?;
    lab.thread(node, &format!("untag-{plain}"), move |stop| {
        carry(outside, &to_inside, &stop, |mut frame| {
            (frame.get(ADDRESSES..ADDRESSES + 4)? == tag).then(|| {
                frame.drain(ADDRESSES..ADDRESSES + 4);
                frame
            })
        });
    })
}

/// The four bytes of an 802.1Q tag with priority 0.
pub fn tag(id: u16) -> [u8; 4] {
    let [high, low] = (id & 0x0fff).to_be_bytes();
    [0x81, 0x00, high, low]
}

fn carry(mut from: Frames, to: &Frames, stop: &Arc<AtomicBool>, change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) {
    while !stop.load(Ordering::Relaxed) {
        if let Some(frame) = from.poll().and_then(&change) {
            // A full queue loses the frame, as a cable would.
            let _ = to.send(&frame);
        }
    }
}
