//! The server id in a QUIC packet's destination connection id (draft-ietf-quic-load-balancers, plaintext algorithm). Pure.
//!
//! Owns where it lies: behind the first octet of the connection id, whose three highest bits are the config rotation. Headers
//! are those of RFC 8999: a long one tells its connection id's length, behind a short one the server alone knows it.

/// What a datagram tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed<'d> {
    /// The bytes where the server id lies. They may be another's doing: no server need have this id.
    pub server_id: &'d [u8],
    /// Whether the connection id may be one that the client made up: in its first packets.
    pub may_begin: bool,
}

/// Fewest bytes behind the server id, the nonce: a shorter connection id was not made by a server of this configuration.
const NONCE: usize = 4;

/// QUIC version 1 (RFC 9000), whose long packets have their types in this order: Initial, 0-RTT, Handshake, Retry.
const VERSION_1: u32 = 1;
/// QUIC version 2 (RFC 9369): Retry, Initial, 0-RTT, Handshake.
const VERSION_2: u32 = 0x6b33_43cf;

/// The server id of the first packet in a datagram, where its connection id is of this rotation and can hold one of `length`
/// bytes.
pub fn server_id(datagram: &[u8], rotation: u8, length: u8) -> Option<Routed<'_>> {
    let first = *datagram.first()?;
    let length = usize::from(length);
    let (connection_id, may_begin) = if first & 0x80 == 0 {
        (datagram.get(1..2 + length + NONCE)?, false)
    } else {
        let version = u32::from_be_bytes(*datagram.get(1..)?.first_chunk()?);
        let size = usize::from(*datagram.get(5)?);
        let kind = first >> 4 & 3;
        let may_begin = match version {
            VERSION_1 => kind < 2,
            VERSION_2 => matches!(kind, 1 | 2),
            // Version negotiation has version 0 and goes the other way; of other versions nobody knows the types.
            _ => true,
        };
        (datagram.get(6..6 + size)?, may_begin)
    };
    if connection_id.len() < 1 + length + NONCE || connection_id[0] >> 5 != rotation {
        return None;
    }
    Some(Routed { server_id: &connection_id[1..=length], may_begin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long(kind: u8, version: u32, id: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xc0 | kind << 4];
        packet.extend(version.to_be_bytes());
        packet.push(id.len() as u8);
        packet.extend(id);
        packet.extend([0, 0, 0]);
        packet
    }

    const ID: [u8; 8] = [0b0100_0111, 0x0a, 0x1b, 1, 2, 3, 4, 5];

    #[test]
    fn server_ids_lie_behind_the_first_octet() {
        let mut short = vec![0x40];
        short.extend(ID);
        short.extend([9; 20]);
        let found = |packet: &[u8]| server_id(packet, 2, 2).map(|routed| (routed.server_id.to_vec(), routed.may_begin));
        let id = vec![0x0a, 0x1b];
        assert_eq!(found(&short), Some((id.clone(), false)));
        for (kind, version, may_begin) in [
            (0, 1, true),
            (1, 1, true),
            (2, 1, false),
            (3, 1, false),
            (0, VERSION_2, false),
            (1, VERSION_2, true),
            (2, VERSION_2, true),
            (3, VERSION_2, false),
            (2, 0xff00_001d, true),
        ] {
            assert_eq!(found(&long(kind, version, &ID)), Some((id.clone(), may_begin)), "{kind} of {version:#x}");
        }
        // Another rotation, a connection id without room for a nonce, packets that end early.
        assert_eq!(server_id(&short, 3, 2), None);
        assert_eq!(server_id(&long(2, 1, &ID[..6]), 2, 2), None);
        assert!(server_id(&long(2, 1, &ID[..7]), 2, 2).is_some());
        assert!((0..8).all(|end| server_id(&short[..end], 2, 2).is_none()));
        assert!(server_id(&short[..8], 2, 2).is_some());
        let long = long(2, 1, &ID);
        assert!((0..14).all(|end| server_id(&long[..end], 2, 2).is_none()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), rotation in 0u8..8, length in 1u8..16) {
            if let Some(routed) = server_id(&bytes, rotation, length) {
                prop_assert_eq!(routed.server_id.len(), usize::from(length));
            }
        }
    }
}
