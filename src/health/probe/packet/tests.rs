//! Packets as they are built, read back, quoted in ICMP errors, cut and spoilt.

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, TcpHeader};
use proptest::prelude::*;

use super::*;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const OURS_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const SERVER_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);

fn ip_v4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let header = Ipv4Header::new(body.len() as u16, 64, IpNumber(protocol), from.octets(), to.octets()).expect("short");
    [&header.to_bytes()[..], body].concat()
}

fn ip_v6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: body.len() as u16,
        next_header: IpNumber(protocol),
        hop_limit: 64,
        source: from.octets(),
        destination: to.octets(),
        ..Ipv6Header::default()
    };
    [&header.to_bytes()[..], body].concat()
}

fn segment(port: u16, to: u16, ack: u32, set: impl Fn(&mut TcpHeader)) -> Vec<u8> {
    let mut header = TcpHeader::new(port, to, 99, 1000);
    header.acknowledgment_number = ack;
    set(&mut header);
    header.to_bytes().to_vec()
}

#[test]
fn the_echo_is_recognized_by_everything_that_was_in_the_request() {
    let mut reply = echo_request(true, 7, 9, 0x0123_4567_89ab_cdef);
    assert_eq!(reply.len(), 64);
    reply[0] = 0;
    let asked = Asked::Echo { host: SERVER.into(), id: 7, sequence: 9 };
    let packet = ip_v4(SERVER, OURS, 1, &reply);
    assert_eq!(read_v4(&packet), Some((asked, Heard::Echoed(0x0123_4567_89ab_cdef))));
    let mut reply = echo_request(false, 7, 9, 5);
    reply[0] = 129;
    let asked = Asked::Echo { host: SERVER_6.into(), id: 7, sequence: 9 };
    assert_eq!(read_icmp_v6(SERVER_6, &reply), Some((asked, Heard::Echoed(5))));
    assert_eq!(Heard::Echoed(5).outcome(5), Some(Outcome::good("echo reply")));
    assert_eq!(Heard::Echoed(5).outcome(6), None);
    // Another's request is no answer.
    assert_eq!(read_v4(&ip_v4(SERVER, OURS, 1, &echo_request(true, 7, 9, 5))), None);
    assert_eq!(read_icmp_v6(SERVER_6, &echo_request(false, 7, 9, 5)), None);
}

#[test]
fn checksums_are_right() {
    let echo = echo_request(true, 7, 9, 5);
    let sum = echo.chunks(2).fold(0u32, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    for (from, to) in [(IpAddr::V4(OURS), IpAddr::V4(SERVER)), (OURS_6.into(), SERVER_6.into())] {
        let packet = syn((from, 1234), (to, 80), 77).expect("one family");
        let (header, rest) = TcpHeader::from_slice(&packet).expect("a segment");
        let expected = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => header.calc_checksum_ipv4_raw(from.octets(), to.octets(), &[]),
            (IpAddr::V6(from), IpAddr::V6(to)) => header.calc_checksum_ipv6_raw(from.octets(), to.octets(), &[]),
            _ => panic!("one family"),
        };
        assert_eq!(Ok(header.checksum), expected);
        assert!(header.syn && !header.ack && rest.is_empty());
    }
    assert_eq!(syn((OURS.into(), 1), (SERVER_6.into(), 2), 3), None);
}

#[test]
fn answers_to_a_syn() {
    let asked = |sequence| Asked::Syn { host: SERVER.into(), port: 80, from: 1234, sequence };
    for (set, ack, expected) in [
        ((|h| (h.syn, h.ack) = (true, true)) as fn(&mut TcpHeader), 78, Some((asked(77), Heard::Accepted))),
        (|h| (h.rst, h.ack) = (true, true), 78, Some((asked(77), Heard::Reset))),
        (|h| (h.syn, h.ack) = (true, true), 0, Some((asked(u32::MAX), Heard::Accepted))),
        // A reset that acknowledges nothing, a SYN, an ACK and data say nothing.
        (|h| h.rst = true, 78, None),
        (|h| h.syn = true, 78, None),
        (|h| h.ack = true, 78, None),
        (|h| (h.ack, h.psh) = (true, true), 78, None),
    ] {
        let packet = ip_v4(SERVER, OURS, 6, &segment(80, 1234, ack, set));
        assert_eq!(read_v4(&packet), expected);
        let asked = read_tcp(SERVER_6.into(), &segment(80, 1234, ack, set)).map(|(asked, _)| asked);
        let here = |asked| match asked {
            Asked::Syn { port, from, sequence, .. } => Asked::Syn { host: SERVER_6.into(), port, from, sequence },
            other => other,
        };
        assert_eq!(asked, expected.map(|(asked, _)| here(asked)));
    }
}

#[test]
fn errors_name_what_they_are_about() {
    let syn_4 = syn((OURS.into(), 1234), (SERVER.into(), 80), 77).expect("one family");
    let asked_syn = Asked::Syn { host: SERVER.into(), port: 80, from: 1234, sequence: 77 };
    let asked_echo = Asked::Echo { host: SERVER.into(), id: 7, sequence: 9 };
    let router = Ipv4Addr::new(10, 9, 9, 9);
    for (kind, code, reason) in [
        (3u8, 0u8, Some(Reason::Unreachable)),
        (3, 1, Some(Reason::Unreachable)),
        (3, 3, Some(Reason::Refused)),
        (3, 4, None),
        (3, 13, Some(Reason::Unreachable)),
        (11, 0, Some(Reason::Unreachable)),
        (5, 0, None),
        (8, 0, None),
    ] {
        for (protocol, body, asked) in [(6, &syn_4, asked_syn), (1, &echo_request(true, 7, 9, 5), asked_echo)] {
            // No more than RFC 792 asks for.
            let quoted = ip_v4(OURS, SERVER, protocol, &body[..8]);
            let error = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
            let heard = read_v4(&ip_v4(router, OURS, 1, &error));
            let heard = heard.map(|(asked, heard)| match heard {
                Heard::Failed(reason, _) => (asked, reason),
                other => panic!("{other:?}"),
            });
            assert_eq!(heard, reason.map(|reason| (asked, reason)), "type {kind} code {code}");
        }
    }
    let asked_syn = Asked::Syn { host: SERVER_6.into(), port: 80, from: 1234, sequence: 77 };
    let syn_6 = syn((OURS_6.into(), 1234), (SERVER_6.into(), 80), 77).expect("one family");
    for (kind, code, reason) in [
        (1u8, 0u8, Some(Reason::Unreachable)),
        (1, 3, Some(Reason::Unreachable)),
        (1, 4, Some(Reason::Refused)),
        (3, 0, Some(Reason::Unreachable)),
        (2, 0, None),
        (135, 0, None),
    ] {
        let error = [&[kind, code, 0, 0, 0, 0, 0, 0][..], &ip_v6(OURS_6, SERVER_6, 6, &syn_6[..8])].concat();
        let heard = read_icmp_v6(OURS_6, &error).map(|(asked, heard)| match heard {
            Heard::Failed(reason, _) => (asked, reason),
            other => panic!("{other:?}"),
        });
        assert_eq!(heard, reason.map(|reason| (asked_syn, reason)), "type {kind} code {code}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..5, head in 0u8..16) {
        let mut packet = bytes;
        if let Some(first) = packet.first_mut() {
            *first = 0x40 | head;
        }
        if let Some(protocol) = packet.get_mut(9) {
            *protocol = [1, 6, 58, 17, 0][usize::from(kind)];
        }
        let _ = read_v4(&packet);
        let _ = read_icmp_v6(SERVER_6, &packet);
        let _ = read_tcp(SERVER.into(), &packet);
    }

    #[test]
    fn cut_answers_are_no_answers_or_the_same(cut in 0usize..100) {
        let mut reply = echo_request(true, 7, 9, 5);
        reply[0] = 0;
        let packet = ip_v4(SERVER, OURS, 1, &reply);
        let whole = read_v4(&packet);
        let part = read_v4(&packet[..cut.min(packet.len())]);
        prop_assert!(part.is_none() || part == whole);
    }
}
