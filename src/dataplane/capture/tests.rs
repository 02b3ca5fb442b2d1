//! Captures by themselves: which frames are wanted, and that nothing goes beyond its bounds.

use super::*;

fn about(decision: Decision) -> About {
    About { decision, reason: None, service: None, server: None, new_flow: false }
}

fn key(port: u16) -> ServiceKey {
    use crate::model::{PortRange, Protocol};
    ServiceKey { address: [192, 0, 2, 10].into(), protocol: Protocol::Tcp, ports: PortRange::single(port) }
}

fn ends(source: [u8; 4], destination: [u8; 4], ports: Option<(u16, u16)>) -> Ends {
    Ends { source: Some(source.into()), destination: Some(destination.into()), protocol: Some(6), ports }
}

#[test]
fn a_frame_is_wanted_when_all_of_the_filter_is_true() {
    let came = ends([198, 51, 100, 7], [192, 0, 2, 10], Some((4000, 80)));
    let leaves = ends([10, 0, 0, 1], [10, 0, 0, 11], Some((5000, 8080)));
    let server = ([10, 0, 0, 11].into(), 8080);
    let sent = About { service: Some(key(80)), server: Some(server), ..about(Decision::Tx) };
    let dropped = About { reason: Some(DropReason::BadTcpFlags), ..about(Decision::Drop) };
    let all = Wanted::default();
    let network = |a, length| Prefix::new(IpAddr::from(a), length);
    let rows = [
        (all, true, true),
        (Wanted { decision: Some(Decision::Tx), ..all }, true, false),
        (Wanted { decision: Some(Decision::Drop), ..all }, false, true),
        (Wanted { reason: Some(DropReason::BadTcpFlags), ..all }, false, true),
        (Wanted { reason: Some(DropReason::Denied), ..all }, false, false),
        (Wanted { service: Some(key(80)), ..all }, true, false),
        (Wanted { service: Some(key(81)), ..all }, false, false),
        (Wanted { server: Some(([10, 0, 0, 11].into(), None)), ..all }, true, false),
        (Wanted { server: Some(([10, 0, 0, 11].into(), Some(80))), ..all }, false, false),
        (Wanted { client: network([198, 51, 100, 0], 24), ..all }, true, true),
        // By NAT the client of an answer is seen as the frame leaves.
        (Wanted { client: network([10, 0, 0, 11], 32), ..all }, true, false),
        (Wanted { client: network([203, 0, 113, 0], 24), ..all }, false, false),
        (Wanted { client: network([198, 51, 100, 0], 24), decision: Some(Decision::Drop), ..all }, false, true),
    ];
    for (wanted, first, second) in rows {
        let none = Ends::default();
        assert_eq!(wanted.wants(&sent, &came, &leaves), first, "{wanted:?}");
        assert_eq!(wanted.wants(&dropped, &came, &none), second, "{wanted:?}");
    }
    // So broken that it has no ports: its destination tells the service.
    let broken = ends([198, 51, 100, 7], [192, 0, 2, 10], None);
    assert!(Wanted { service: Some(key(80)), ..all }.wants(&dropped, &broken, &Ends::default()));
}

#[test]
fn no_more_is_kept_than_was_asked_for_and_what_finds_no_room_is_counted() {
    let capture = Capture::new(Wanted::default(), 1000, 64, false, 1);
    let mut slots = 0;
    while let Some(room) = capture.room(0) {
        assert!(room.bytes.capacity() >= 64);
        capture.push(0, room);
        slots += 1;
        if slots == 1000 {
            break;
        }
    }
    assert!(capture.is_full() && slots == 1000 && capture.missed() == 0);
    assert!(capture.room(0).is_none() && capture.missed() == 0, "what is not wanted is not missed");

    let small = Capture::new(Wanted::default(), u64::MAX, MOST_SNAPLEN, false, 64);
    let mut kept = 0;
    while let Some(room) = small.room(63) {
        small.push(63, room);
        kept += 1;
    }
    assert_eq!((kept, small.missed()), (*SLOTS.start(), 1));
    assert!(small.more_room(63).is_none() && small.missed() == 2);
    // What is taken away makes room again, and of another worker there is still all.
    let caught = small.take(63).expect("was kept");
    small.give_back(63, caught);
    assert!(small.room(63).is_some() && small.room(0).is_some() && small.take(0).is_none());
}

#[test]
fn taps_are_on_while_there_is_a_capture() {
    let taps = Taps::new(2);
    assert!(!taps.is_on() && taps.begin(0).is_none());
    let capture = Arc::new(Capture::new(Wanted::default(), 1, 64, false, 2));
    let captures = Arc::new(Captures::new(vec![capture]));
    let before = taps.set(captures.clone());
    assert!(taps.is_on() && before.list.is_empty());
    let (scratch, guard) = taps.begin(1).expect("is on");
    assert!(taps.begin(1).is_none(), "one scratch a worker");
    let after = taps.set(Arc::default());
    assert!(!taps.is_on() && Arc::ptr_eq(&captures, &after));
    // A batch that began before goes on with what it has.
    assert_eq!(guard.list.len(), 1);
    drop(after);
    assert!(Arc::strong_count(&captures) > 1, "the batch has it still");
    drop(guard);
    taps.end(1, scratch);
    assert_eq!(Arc::strong_count(&captures), 1);
    taps.set(captures);
    assert!(taps.begin(1).is_some() && taps.begin(0).is_some());
}
