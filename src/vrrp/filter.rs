//! Which frames the kernel hands to VRRP: programs of the classic packet filter. Pure.
//!
//! Owns the programs. On a busy segment they keep everything but adverts, and claims of the addresses in question, from
//! waking the thread. Never judges an advert: every one passes, the worst too, to be counted.

use std::net::IpAddr;

use super::packet::PROTOCOL;

/// One instruction, as `struct sock_filter` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do (`linux/bpf_common.h`).
    pub code: u16,
    /// Instructions to skip where a comparison holds.
    pub then: u8,
    /// Instructions to skip where it does not.
    pub otherwise: u8,
    /// The operand.
    pub value: u32,
}

/// Most addresses whose claims are picked out one by one; with more, every claim passes.
const MOST_ADDRESSES: usize = 1500;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF`: above it lie facts beside the frame.
const BESIDE: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = BESIDE + 4;
const VLAN_TAG: u32 = BESIDE + 44;
const VLAN_TAG_PRESENT: u32 = BESIDE + 48;
/// `PACKET_OTHERHOST`.
const FOR_SOMEBODY_ELSE: u32 = 3;

const fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, then: 0, otherwise: 0, value }
}

const fn unless(value: u32, skip: u8) -> Instruction {
    Instruction { code: EQUAL, then: 0, otherwise: skip, value }
}

const fn when(value: u32, skip: u8) -> Instruction {
    Instruction { code: EQUAL, then: skip, otherwise: 0, value }
}

const DROP: Instruction = plain(RETURN, 0);
const ACCEPT: Instruction = plain(RETURN, u32::MAX);

/// A program that lets nothing pass.
pub const NOTHING: [Instruction; 1] = [DROP];

/// The program for a packet socket on an interface: VRRP of both families, and ARP and neighbour advertisements of
/// somebody who says that one of `addresses` is his. What belongs to a VLAN above the interface, or is addressed to another
/// machine, is left out.
pub fn adverts_and_claims(addresses: &[IpAddr]) -> Vec<Instruction> {
    let v4 = |address: &IpAddr| if let IpAddr::V4(v4) = address { Some(u32::from(*v4)) } else { None };
    // The last four bytes tell well enough: the claim is read again above.
    let v6 = |address: &IpAddr| if let IpAddr::V6(v6) = address { Some(u128::from(*v6) as u32) } else { None };
    let all = addresses.len() > MOST_ADDRESSES;
    let among = |words: Vec<u32>| -> Vec<Instruction> {
        match all {
            true => vec![ACCEPT],
            false => words.into_iter().flat_map(|word| [unless(word, 1), ACCEPT]).chain([DROP]).collect(),
        }
    };
    let mut program = vec![
        plain(LOAD_WORD, VLAN_TAG_PRESENT),
        unless(1, 4),
        plain(LOAD_WORD, VLAN_TAG),
        plain(AND, 0xfff),
        // Tag 0 is no VLAN but a priority (802.1Q, section 6.9).
        when(0, 1),
        DROP,
        plain(LOAD_WORD, PACKET_TYPE),
        unless(FOR_SOMEBODY_ELSE, 1),
        DROP,
        plain(LOAD_HALF, 12),
        unless(0x0800, 4),
        plain(LOAD_BYTE, 23),
        unless(PROTOCOL as u32, 1),
        ACCEPT,
        DROP,
    ];
    let mut claims = vec![plain(LOAD_WORD, 28)];
    claims.extend(among(addresses.iter().filter_map(v4).collect()));
    // A conditional jump reaches 255 instructions, an unconditional one any.
    program.extend([when(0x0806, 1), plain(JUMP, claims.len() as u32)]);
    program.extend(claims);
    program.extend([
        unless(0x86dd, 7),
        plain(LOAD_BYTE, 20),
        unless(PROTOCOL as u32, 1),
        ACCEPT,
        unless(58, 3),
        plain(LOAD_BYTE, 54),
        unless(136, 1),
        plain(JUMP, 1),
        DROP,
        plain(LOAD_WORD, 74),
    ]);
    program.extend(among(addresses.iter().filter_map(v6).collect()));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MacAddr;
    use crate::vrrp::announce::announcement;
    use crate::vrrp::frame::multicast;

    /// What the kernel knows beside a frame.
    #[derive(Clone, Copy, Default)]
    struct Beside {
        packet_type: u32,
        tag: Option<u16>,
    }

    /// Runs a program as the kernel does; a load beyond the frame drops it.
    fn passes(program: &[Instruction], frame: &[u8], beside: Beside) -> bool {
        let mut at = 0;
        let mut a = 0u32;
        loop {
            let Instruction { code, then, otherwise, value } = program[at];
            at += 1;
            let load = |length: usize| {
                let bytes = frame.get(value as usize..value as usize + length)?;
                Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
            };
            let loaded = match (code, value) {
                (LOAD_WORD, PACKET_TYPE) => Some(beside.packet_type),
                (LOAD_WORD, VLAN_TAG) => Some(beside.tag.unwrap_or(77).into()),
                (LOAD_WORD, VLAN_TAG_PRESENT) => Some(beside.tag.is_some().into()),
                (LOAD_WORD, _) => load(4),
                (LOAD_HALF, _) => load(2),
                (LOAD_BYTE, _) => load(1),
                (AND, _) => Some(a & value),
                (JUMP, _) => {
                    at += value as usize;
                    Some(a)
                }
                (EQUAL, _) => {
                    at += usize::from(if a == value { then } else { otherwise });
                    Some(a)
                }
                (RETURN, _) => return value != 0,
                _ => panic!("{code:#x}"),
            };
            let Some(loaded) = loaded else { return false };
            a = loaded;
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn check(program: &[Instruction], frame: &[u8], expected: bool, what: &str) {
        for (beside, mine) in [
            (Beside::default(), true),
            (Beside { packet_type: 1, tag: None }, true),
            (Beside { packet_type: 2, tag: Some(0xe000) }, true),
            (Beside { packet_type: 3, tag: None }, false),
            (Beside { packet_type: 2, tag: Some(100) }, false),
        ] {
            let (kind, tag) = (beside.packet_type, beside.tag);
            assert_eq!(passes(program, frame, beside), expected && mine, "{what}, type {kind}, tag {tag:?}");
        }
    }

    #[test]
    fn adverts_pass_and_claims_of_our_addresses_and_nothing_else() {
        let ours: Vec<IpAddr> = ["10.0.0.100", "10.0.0.101", "2001:db8::64"].map(ip).to_vec();
        let many: Vec<IpAddr> = (0..1000).map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8])).collect();
        let program = adverts_and_claims(&ours);
        check(&program, &multicast(&[0; 12], ip("10.0.0.1"), ip("224.0.0.18"), MAC, 1), true, "v4");
        check(&program, &multicast(&[], ip("fe80::1"), ip("ff02::12"), MAC, 1), true, "v6");
        for (address, expected) in [
            ("10.0.0.100", true),
            ("10.0.0.101", true),
            ("10.0.0.102", false),
            ("2001:db8::64", true),
            ("2001:db8::65", false),
        ] {
            check(&program, &announcement(ip(address), MAC, false), expected, address);
        }
        let long = adverts_and_claims(&many);
        check(&long, &announcement(ip("10.0.3.231"), MAC, false), true, "the last of many");
        check(&long, &announcement(ip("10.0.3.232"), MAC, false), false, "one more than many");
        check(&long, &multicast(&[], ip("fe80::1"), ip("ff02::12"), MAC, 1), true, "v6 behind many");
        check(
            &adverts_and_claims(&[ip("::1"); MOST_ADDRESSES + 1]),
            &announcement(ip("10.9.9.9"), MAC, false),
            true,
            "all",
        );
        let mut other = multicast(&[0; 12], ip("10.0.0.1"), ip("224.0.0.18"), MAC, 1);
        other[23] = 17;
        check(&program, &other, false, "UDP");
        let mut other = announcement(ip("2001:db8::64"), MAC, false);
        other[54] = 135;
        check(&program, &other, false, "a neighbour solicitation");
        check(&program, &[0; 60], false, "no ethertype");
        check(&program, &[0; 13], false, "no header");
        check(&NOTHING, &multicast(&[0; 12], ip("10.0.0.1"), ip("224.0.0.18"), MAC, 1), false, "nothing");
    }

    #[test]
    fn programs_are_no_longer_than_the_kernel_takes() {
        let most: Vec<IpAddr> = (0..MOST_ADDRESSES as u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        assert!(adverts_and_claims(&most).len() <= 4096);
    }
}
