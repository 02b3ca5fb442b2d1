//! Segments and quotes one by one; that there and back is the same.

use proptest::prelude::*;

use super::*;
use crate::dataplane::checksum;
use crate::dataplane::parse::{ICMP, ICMPV6, NO_VLAN, parse, verify_transport};
use crate::dataplane::proxy::tests::{Segment, ends};
use crate::dataplane::rewrite::nat::tests::Build;
use crate::dataplane::syn_cookie::{Offer, Proof};

const ACK: u8 = tcp_flag::ACK;

/// A flow whose client's stream begins at 99, whose server counts 1000 further than the client.
fn splice(client: Option<u8>, server: Option<u8>) -> Splice {
    let offer = Offer::from_bits(6 | 8 | client.unwrap_or(15) << 4);
    let mut splice = Splice::new(&Proof { isn: 99, cookie: u32::MAX - 500, offer }, 0x200, 0);
    splice.open(499, Offer::from_bits(8 | server.unwrap_or(15) << 4));
    assert_eq!((splice.delta, splice.server_isn()), (1000, 499));
    splice
}

fn to_server(splice: &Splice, segment: &Segment) -> Segment {
    let mut frame = segment.frame(false, 1);
    let parsed = parse(&frame).expect("parses");
    assert_eq!(splice.client_segment(&mut frame, &parsed), Ok(()));
    Segment::read(&frame)
}

fn to_client(splice: &Splice, segment: &Segment) -> Segment {
    let mut frame = segment.frame(true, 0);
    let parsed = parse(&frame).expect("parses");
    assert_eq!(splice.server_segment(&mut frame, &parsed), Ok(()));
    Segment::read(&frame)
}

#[test]
fn numbers_of_the_servers_stream_are_shifted() {
    let flow = splice(Some(7), Some(7));
    let mut options = vec![1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 5, 18];
    for edge in [u32::MAX, 3, 5, 9] {
        options.extend(edge.to_be_bytes());
    }
    options.extend([0, 0, 0]);
    let segment =
        Segment { number: 100, ack: u32::MAX - 400, flags: ACK, window: 9, options, payload: vec![3; 5], urgent: 0 };
    let seen = to_server(&flow, &segment);
    let edges: Vec<u32> =
        seen.options[13..29].chunks(4).map(|e| u32::from_be_bytes([e[0], e[1], e[2], e[3]])).collect();
    assert_eq!((seen.number, seen.ack, seen.window, edges), (100, 599, 9, vec![999, 1003, 1005, 1009]));
    assert_eq!((&seen.options[..13], &seen.payload), (&segment.options[..13], &segment.payload));
    // A server that takes none gets none.
    let mut without = flow;
    without.open(499, Offer::from_bits(7 << 4));
    let seen = to_server(&without, &segment);
    assert_eq!((&seen.options[..11], &seen.options[11..29]), (&segment.options[..11], &[1; 18][..]));
    // The other way, what the server acknowledges is the client's own stream, selectively too.
    let seen = to_client(&flow, &Segment { number: 600, ..segment.clone() });
    let number = 600u32.wrapping_sub(1000);
    assert_eq!(seen, Segment { number, ..segment.clone() });
    // A reset without an acknowledgement has nothing to shift from the client, its number from the server.
    let reset = Segment { number: 700, ack: 5, flags: tcp_flag::RST, ..Segment::default() };
    assert_eq!(to_server(&flow, &reset), reset);
    assert_eq!(to_client(&flow, &reset), Segment { number: 700u32.wrapping_sub(1000), ..reset });
    // A client's SYN begins another connection, which is not this one's to shift.
    let syn = Segment { number: 1, ack: 5, flags: tcp_flag::SYN, window: 77, ..Segment::default() };
    assert_eq!(to_server(&splice(Some(7), None), &syn), syn);
}

#[test]
fn windows_are_converted() {
    let window = |flow: &Splice, to_server_: bool, window| {
        let segment = Segment { flags: ACK, window, ..Segment::default() };
        if to_server_ { to_server(flow, &segment).window } else { to_client(flow, &segment).window }
    };
    for (client, server, offered, expected) in [
        (Some(7), Some(7), 500, 500),
        (Some(0), Some(7), 500, 500),
        (Some(7), Some(9), 500, 2000),
        (Some(7), Some(14), 512, 0xffff),
        (Some(7), Some(4), 500, 62),
        (Some(7), Some(0), 0xffff, 511),
        (Some(7), None, 0xffff, 511),
        (Some(7), None, 127, 0),
        (None, None, 500, 500),
        // A scale that nobody asked for means nothing.
        (None, Some(3), 500, 500),
    ] {
        assert_eq!(window(&splice(client, server), false, offered), expected, "{client:?} {server:?} {offered}");
    }
    for (client, server, offered, expected) in [
        (Some(7), Some(3), 500, 500),
        (Some(7), None, 500, 64_000),
        (Some(7), None, 600, 0xffff),
        (Some(14), None, 0xffff, 0xffff),
        (None, None, 0xffff, 0xffff),
        (None, Some(3), 500, 500),
    ] {
        assert_eq!(window(&splice(client, server), true, offered), expected, "{client:?} {server:?} {offered}");
    }
    assert_eq!(splice(Some(7), None).window_of_syn(), 0xffff);
    assert_eq!(splice(Some(3), None).window_of_syn(), 0x1000);
    assert_eq!(splice(None, None).window_of_syn(), 0x200);
    assert_eq!(splice(None, None).first_window(0xfeff), 0xfeff);
    assert_eq!(splice(Some(2), Some(9)).first_window(0xfeff), 0xfeff >> 9);
    assert_eq!(splice(Some(2), None).first_window(0xfeff), 0xfeff);
}

/// An ICMP error from a router about `quoted`.
fn error(v6: bool, quoted: &[u8]) -> Vec<u8> {
    let (from, to) = ends(v6);
    Build {
        protocol: if v6 { ICMPV6 } else { ICMP },
        source: (from, 0),
        destination: (to, 0),
        tags: 0,
        extra: 0,
        ttl: 64,
        body: [&[if v6 { 2 } else { 11 }, 0, 0, 0, 0, 0, 0, 0][..], quoted].concat(),
        unchecked: false,
    }
    .frame()
}

#[test]
fn errors_quote_what_their_reader_sent() {
    let flow = splice(Some(7), Some(7));
    for v6 in [false, true] {
        let header = if v6 { 40 } else { 20 };
        for (to_server, kept) in [(true, 8), (true, 20), (true, 40), (false, 20), (false, 40), (false, 8), (false, 12)]
        {
            let segment = Segment { number: 7, ack: 9, flags: ACK, payload: vec![1; 20], ..Segment::default() };
            let packet = &segment.frame(v6, 0)[14..];
            let mut frame = error(v6, &packet[..header + kept]);
            let parsed = parse(&frame).expect("parses");
            let inner = usize::from(parsed.l4) + 8;
            let before = frame.clone();
            flow.quoted(&mut frame, &parsed, inner + header, to_server);
            let tcp = inner + header;
            let number = options::field(&frame, tcp, 4);
            assert_eq!(number, if to_server { 1007 } else { 7 });
            if kept >= 12 {
                assert_eq!(options::field(&frame, tcp, 8), if to_server { 9 } else { 9u32.wrapping_sub(1000) });
            } else if !to_server {
                assert_eq!(frame, before);
            }
            // Both checksums are right.
            let message = &frame[usize::from(parsed.l4)..];
            let pseudo = if v6 {
                checksum::pseudo_header(&frame[22..38], &frame[38..54], ICMPV6, message.len() as u32)
            } else {
                0
            };
            assert_eq!(checksum::fold(checksum::sum(message, pseudo)), 0xffff);
            if kept == 40 {
                let inside = [&frame[..14], &frame[inner..]].concat();
                let parsed = parse(&inside).expect("parses");
                assert_eq!(verify_transport(&inside, &parsed), Ok(()));
            }
        }
    }
}

proptest! {
    #[test]
    fn there_and_back_is_the_same(number: u32, ack: u32, isn: u32, cookie: u32, server: u32, window: u16) {
        let proof = Proof { isn, cookie, offer: Offer::from_bits(6 | 15 << 4) };
        let mut flow = Splice::new(&proof, 1, 0);
        flow.open(server, Offer::from_bits(15 << 4));
        let segment = Segment { number, ack, flags: ACK, window, ..Segment::default() };
        let seen = to_server(&flow, &segment);
        // What the server has sent up to there, the client has got.
        prop_assert_eq!(seen.ack.wrapping_sub(server), ack.wrapping_sub(cookie));
        let mirrored = Segment { number: seen.ack, ack: seen.number, ..seen };
        let back = to_client(&flow, &mirrored);
        prop_assert_eq!((back.number, back.ack, back.window), (ack, number, window));
    }

    #[test]
    fn garbage_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 1..200),
        kind in 0usize..5,
        part in 0usize..3,
        (l3, l4, l4_len, inner) in (0u16..60, 0u16..120, 0u16..220, 0usize..260),
        offset in 5u8..16,
        to_server: bool,
    ) {
        let parsed = Parsed {
            kind: [Kind::Flow4, Kind::Flow6, Kind::Icmp4, Kind::Icmp6, Kind::Other][kind],
            protocol: 6,
            tcp_flags: ACK,
            part: [Part::Whole, Part::First, Part::Later][part],
            tags: 0,
            vlan: NO_VLAN,
            l3,
            l4,
            l4_len,
        };
        let mut bytes = bytes;
        if let Some(byte) = bytes.get_mut(usize::from(l4) + 12) {
            *byte = offset << 4;
        }
        let flow = splice(Some(3), None);
        let _ = flow.client_segment(&mut bytes, &parsed);
        let _ = flow.server_segment(&mut bytes, &parsed);
        flow.quoted(&mut bytes, &parsed, inner, to_server);
    }
}
