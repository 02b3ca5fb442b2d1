//! A cable that changes the order of frames, for kernels without `netem`.
//!
//! Owns a thread for each direction between two interfaces of a node: what arrives in one burst leaves in another order.
//! Never loses, doubles or changes a frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::bytes::Bytes;
use super::client::frames::Frames;
use super::error::LabError;
use super::topology::Lab;

/// Frames that are held at most: more than the fragments of the largest datagram (45 of 1500 bytes).
const WINDOW: usize = 64;
/// How long the first of them waits at most.
const PATIENCE: Duration = Duration::from_millis(2);

/// Joins two interfaces of `node`.
pub fn start(lab: &mut Lab, node: &str, inside: &str, outside: &str) -> Result<(), LabError> {
    let namespace = lab.node(node)?;
    let (a, b) = (Frames::open(namespace, inside)?, Frames::open(namespace, outside)?);
    let (to_a, to_b) = (a.second()?, b.second()?);
    lab.thread(node, "shuffle-out", move |stop| shuffle(a, &to_b, &stop, 1))?;
    lab.thread(node, "shuffle-in", move |stop| shuffle(b, &to_a, &stop, 2))
}

fn shuffle(mut from: Frames, to: &Frames, stop: &Arc<AtomicBool>, seed: u64) {
    let mut order = Bytes::new(seed);
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(WINDOW);
    while !stop.load(Ordering::Relaxed) {
        held.extend(from.poll());
        let first = Instant::now();
        while !held.is_empty() && held.len() < WINDOW && first.elapsed() < PATIENCE {
            held.extend(from.poll_at_once());
        }
        while !held.is_empty() {
            let index = order.next_word() as usize % held.len();
            // A full queue loses the frame, as a cable would.
            let _ = to.send(&held.swap_remove(index));
        }
    }
}
