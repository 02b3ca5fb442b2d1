//! Who has an address: asked by ARP or neighbour solicitation, with everybody's answers.
//!
//! Owns one question and all of its answers. The kernel's own neighbour table is not touched: two answers are two answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;

use super::frames::Frames;
use crate::lab::error::LabError;
use crate::model::MacAddr;

const REPLY: [u8; 2] = [0, 2];
const ADVERTISEMENT: u8 = 136;

/// Asks from `own` for `target`, twice, and returns the Ethernet addresses of all who answer within `within`.
pub fn who_has(
    frames: &mut Frames,
    own: (MacAddr, IpAddr),
    target: IpAddr,
    within: Duration,
) -> Result<BTreeSet<MacAddr>, LabError> {
    let question = match (own.1, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => arp(own.0, source, target),
        (IpAddr::V6(source), IpAddr::V6(target)) => solicitation(own.0, source, target)?,
        _ => return Err(LabError::Unexpected(format!("{} cannot ask for {target}: another family", own.1))),
    };
    let mut answers = BTreeSet::new();
    for _ in 0..2 {
        frames.send(&question)?;
        let start = Instant::now();
        while start.elapsed() < within / 2 {
            answers.extend(frames.poll().and_then(|frame| answer(&frame, target)));
        }
    }
    Ok(answers)
}

fn arp(mac: MacAddr, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac.0);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame.resize(60, 0);
    frame
}

fn solicitation(mac: MacAddr, source: Ipv6Addr, target: Ipv6Addr) -> Result<Vec<u8>, LabError> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut body = target.octets().to_vec();
    body.extend([1, 1]);
    body.extend(mac.0);
    let builder = PacketBuilder::ethernet2(mac.0, [0x33, 0x33, 0xff, a, b, c])
        .ipv6(source.octets(), group.octets(), 255)
        .icmpv6_raw(135, 0, [0; 4]);
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    let wrong = |error| LabError::Unexpected(format!("building a solicitation: {error}"));
    builder.write(&mut frame, &body).map_err(wrong)?;
    Ok(frame)
}

/// The Ethernet address in an answer for `target`.
fn answer(frame: &[u8], target: IpAddr) -> Option<MacAddr> {
    let body = frame.get(14..)?;
    let mac = |at: usize| body.get(at..at + 6)?.try_into().ok().map(MacAddr);
    match (frame.get(12..14)?, target) {
        ([0x08, 0x06], IpAddr::V4(target)) => {
            let is_answer = body.get(6..8)? == REPLY && body.get(14..18)? == target.octets();
            is_answer.then(|| mac(8)).flatten()
        }
        ([0x86, 0xdd], IpAddr::V6(target)) => {
            let is_answer =
                *body.get(6)? == 58 && *body.get(40)? == ADVERTISEMENT && body.get(48..64)? == target.octets();
            // The option with the target's Ethernet address; without one it is the sender's.
            is_answer.then(|| mac(66).or_else(|| frame.get(6..12)?.try_into().ok().map(MacAddr))).flatten()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_no_answer_and_an_answer_names_its_mac() {
        let mac = MacAddr([2, 0, 0, 0, 0, 7]);
        let (source, target) = (Ipv4Addr::new(192, 0, 2, 100), Ipv4Addr::new(192, 0, 2, 10));
        let mut frame = arp(mac, source, target);
        assert_eq!(answer(&frame, target.into()), None);
        frame[21] = 2;
        assert_eq!(answer(&frame, source.into()), Some(mac));
        assert_eq!(answer(&frame, target.into()), None);
        let six = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let mut frame = solicitation(mac, six("fe80::1"), six("2001:db8::10")).unwrap();
        assert_eq!(answer(&frame, six("2001:db8::10").into()), None);
        frame[54] = ADVERTISEMENT;
        assert_eq!(answer(&frame, six("2001:db8::10").into()), Some(mac));
    }
}
