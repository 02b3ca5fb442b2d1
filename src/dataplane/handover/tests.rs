//! Inboxes: nothing is lost, nothing is doubled, nobody sleeps through it.

use super::*;
use crate::dataplane::io::memory::MemoryIo;
use crate::dataplane::io::{BATCH, PacketIo};
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::dataplane::worker;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

const ROOM: u32 = 2048 - 256;

#[test]
fn a_frame_arrives_as_it_was_sent() {
    let inbox = Inbox::new(2, ROOM).expect("inbox");
    let mut io = MemoryIo::new(3, 4, 2048);
    let frame = Frame { addr: 99, len: 60, port: 2, hops: 0, hint: 0x1234_5678 };
    assert!(inbox.send(&frame, &[7; 60]) && inbox.send(&frame, &[8; 1792]));
    assert!(!inbox.send(&frame, &[9; 60]), "no parcel is empty");
    let mut out = [Frame::default(); 4];
    assert_eq!(inbox.take(io.memory(), &mut out), 2);
    assert_eq!((out[0].len, out[0].port, out[0].hops, out[0].hint), (60, 2, 1, 0x1234_5678));
    assert_eq!(io.memory().bytes(&out[0]), [7; 60]);
    assert_eq!(io.memory().bytes(&out[1]), [8; 1792]);
    assert_eq!(io.frames_accounted().held, 2);
    assert!(!inbox.send(&frame, &[9; 1793]), "larger than a parcel");
    assert!(inbox.send(&frame, &[9; 60]), "parcels are empty again");
}

#[test]
fn what_finds_no_free_frame_waits() {
    let inbox = Inbox::new(8, ROOM).expect("inbox");
    let mut io = MemoryIo::new(1, 2, 2048);
    for n in 0..3 {
        assert!(inbox.send(&Frame::default(), &[n; 60]));
    }
    let mut out = [Frame::default(); 8];
    assert_eq!(inbox.take(io.memory(), &mut out), 2);
    assert_eq!(inbox.take(io.memory(), &mut out[2..]), 0);
    assert!(!inbox.is_empty());
    io.release(out[0]);
    assert_eq!(inbox.take(io.memory(), &mut out), 1);
    assert_eq!(io.memory().bytes(&out[0]), [2; 60]);
}

/// The worker's part: a verdict `Hand` copies the frame and releases it; a full inbox, or none, is `peer-busy`.
#[test]
fn verdicts_hand_over_and_a_full_inbox_drops() {
    let inboxes = [Inbox::new(4, ROOM).expect("inbox"), Inbox::new(2, ROOM).expect("inbox")];
    let mut io = MemoryIo::new(1, 8, 2048);
    for n in 0..4 {
        assert!(io.inject(0, &[n; 60]));
    }
    let mut frames = [Frame::default(); 4];
    assert_eq!(io.receive(&mut frames), 4);
    let hand = |worker| Outcome::plain(Verdict::Hand(worker));
    let mut outcomes = [hand(1), hand(1), hand(1), hand(9)];
    worker::act(&mut io, &inboxes, &frames, &mut outcomes);
    let busy = Verdict::Drop(DropReason::PeerBusy);
    assert_eq!(outcomes.map(|o| o.verdict), [Verdict::Hand(1), Verdict::Hand(1), busy, busy]);
    assert_eq!((io.frames_accounted().held, io.frames_accounted().free), (0, 8));
    let mut other = MemoryIo::new(1, 8, 2048);
    assert_eq!(inboxes[1].take(other.memory(), &mut frames), 2);
    assert_eq!(other.memory().bytes(&frames[1]), [1; 60]);
    assert!(inboxes[0].is_empty());
}

/// Three threads send to one that sleeps whenever it finds nothing, with no timeout to save it.
#[test]
fn a_sleeper_is_woken_for_every_frame() {
    const EACH: u64 = 20_000;
    let inbox = Inbox::new(64, 64).expect("inbox");
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for sender in 0..3u8 {
            let (inbox, refused) = (&inbox, &refused);
            scope.spawn(move || {
                for n in 0..EACH {
                    let bytes = [&[sender][..], &n.to_be_bytes()].concat();
                    while !inbox.send(&Frame::default(), &bytes) {
                        refused.fetch_add(1, Relaxed);
                        std::thread::yield_now();
                    }
                    if n % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut io = MemoryIo::new(1, 128, 2048);
        let mut next = [0u64; 3];
        while next.iter().sum::<u64>() < 3 * EACH {
            let mut frames = [Frame::default(); BATCH];
            let count = inbox.take(io.memory(), &mut frames);
            for frame in &frames[..count] {
                let bytes = io.memory().bytes(frame);
                let expected = &mut next[usize::from(bytes[0])];
                assert_eq!(bytes[1..], expected.to_be_bytes(), "each sender's own order");
                *expected += 1;
                io.release(*frame);
            }
            if count == 0 {
                if let Some(bell) = inbox.lie_down() {
                    io.wait(Duration::from_secs(600), Some(bell));
                }
                inbox.get_up();
            }
        }
        assert_eq!(io.frames_accounted().free, 128);
    });
    assert!(inbox.is_empty());
}

/// What a frame costs that is handed over, without the cache misses of another core: `cargo test --release --lib
/// handover -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_frame() {
    for length in [60, 1514] {
        let inbox = Inbox::new(PARCELS, ROOM).expect("inbox");
        let mut io = MemoryIo::new(1, 256, 2048);
        let bytes = vec![7; length];
        let mut frames = [Frame::default(); BATCH];
        let rounds = 20_000u32;
        let began = std::time::Instant::now();
        for _ in 0..rounds {
            for _ in 0..BATCH {
                assert!(inbox.send(&Frame::default(), &bytes));
            }
            assert_eq!(inbox.take(io.memory(), &mut frames), BATCH);
            for frame in frames {
                io.release(frame);
            }
        }
        println!("{length} bytes: {:?} a frame", began.elapsed() / (rounds * BATCH as u32));
    }
}
