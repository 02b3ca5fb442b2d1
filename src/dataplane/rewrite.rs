//! Rewriting for direct routing: Ethernet addresses, VLAN tag and TTL; the packet inside stays what it was.
//!
//! Changes frames in place. Never decides where a frame goes.

pub mod mss;
pub mod nat;
pub mod options;
pub mod plain;
pub mod tunnel;

use super::io::{Frame, FrameMemory};
use super::parse::{Kind, NO_VLAN, Parsed};
use super::snapshot::ServerEntry;
use super::verdict::DropReason;

/// TTL or hop limit of a parsed IP packet.
#[inline(always)]
pub fn ttl(bytes: &[u8], parsed: &Parsed) -> u8 {
    let at = usize::from(parsed.l3) + if parsed.kind == Kind::Flow4 || parsed.kind == Kind::Icmp4 { 8 } else { 7 };
    bytes.get(at).copied().unwrap_or(0)
}

/// Whether a packet on its way may be cut into fragments: IPv4 without DF (RFC 791; never IPv6, RFC 8200 section 5).
pub fn may_be_split(bytes: &[u8], parsed: &Parsed) -> bool {
    let v4 = matches!(parsed.kind, Kind::Flow4 | Kind::Icmp4);
    v4 && bytes.get(usize::from(parsed.l3) + 6).is_some_and(|flags| flags & 0x40 == 0)
}

/// Readies a frame for its server: TTL - 1 (the header checksum by RFC 1624), VLAN tag as the server's segment wants
/// it, MACs of the next hop and of the interface it leaves through.
///
/// # Errors
/// [`DropReason::TtlExpired`] and [`DropReason::BadVlan`]; the frame is unchanged then.
#[inline(always)]
pub fn direct<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    server: &ServerEntry,
) -> Result<(), DropReason> {
    if parsed.tags != 0 || server.vlan != NO_VLAN {
        return direct_tagged(memory, frame, parsed, server);
    }
    let bytes = memory.bytes_mut(frame);
    age(bytes, parsed)?;
    let head: &mut [u8; 12] = bytes.first_chunk_mut().ok_or(DropReason::Truncated)?;
    *head = server.macs;
    Ok(())
}

/// [`direct`] for a packet that [`super::parse::plain_v4`] took, towards a server whose segment is untagged.
#[inline(always)]
pub fn direct_plain_v4(bytes: &mut [u8], server: &ServerEntry) {
    if let Some(head) = bytes.first_chunk_mut::<34>() {
        if let Some(word) = head[22..].first_chunk_mut() {
            lower_ttl(word);
        }
        head[..12].copy_from_slice(&server.macs);
    }
}

/// [`direct`] for a packet that [`super::parse::plain_v6`] took, towards a server whose segment is untagged.
#[inline(always)]
pub fn direct_plain_v6(bytes: &mut [u8], server: &ServerEntry) {
    if let Some(head) = bytes.first_chunk_mut::<22>() {
        head[21] -= 1;
        head[..12].copy_from_slice(&server.macs);
    }
}

/// Takes one off an IPv4 TTL that is not 0; `word` holds TTL, protocol and header checksum.
#[inline(always)]
fn lower_ttl(word: &mut [u8; 4]) {
    word[0] -= 1;
    // The TTL is the high byte of its word: one less there is 0x0100 more in the checksum, with end-around carry.
    let sum = u32::from(u16::from_be_bytes([word[2], word[3]])) + 0x0100;
    let check = (sum + u32::from(sum >= 0xffff)) as u16;
    word[2..4].copy_from_slice(&check.to_be_bytes());
}

/// Decrements the TTL or hop limit.
#[inline(always)]
fn age(bytes: &mut [u8], parsed: &Parsed) -> Result<(), DropReason> {
    let l3 = usize::from(parsed.l3);
    if parsed.kind == Kind::Flow4 || parsed.kind == Kind::Icmp4 {
        let head: &mut [u8; 4] =
            bytes.get_mut(l3 + 8..l3 + 12).and_then(|b| b.first_chunk_mut()).ok_or(DropReason::Truncated)?;
        if head[0] < 2 {
            return Err(DropReason::TtlExpired);
        }
        lower_ttl(head);
    } else {
        let hop = bytes.get_mut(l3 + 7).ok_or(DropReason::Truncated)?;
        if *hop < 2 {
            return Err(DropReason::TtlExpired);
        }
        *hop -= 1;
    }
    Ok(())
}

#[cold]
fn direct_tagged<M: FrameMemory>(
    memory: &mut M,
    frame: &mut Frame,
    parsed: &Parsed,
    server: &ServerEntry,
) -> Result<(), DropReason> {
    let push = parsed.tags == 0 && server.vlan != NO_VLAN;
    let pop = parsed.tags > 0 && server.vlan == NO_VLAN;
    // A second tag belongs to somebody else's network.
    if parsed.tags > 1 || (push && memory.headroom(frame) < 4) {
        return Err(DropReason::BadVlan);
    }
    age(memory.bytes_mut(frame), parsed)?;
    if push {
        frame.addr -= 4;
        frame.len += 4;
    } else if pop {
        frame.addr += 4;
        frame.len -= 4;
    }
    let bytes = memory.bytes_mut(frame);
    let head: &mut [u8; 16] = bytes.first_chunk_mut().ok_or(DropReason::Truncated)?;
    head[..12].copy_from_slice(&server.macs);
    if server.vlan != NO_VLAN {
        // Priority bits of a tag that is there stay (IEEE 802.1Q, 9.6).
        let priority = if push { 0 } else { u16::from_be_bytes([head[14], head[15]]) & 0xf000 };
        head[12..14].copy_from_slice(&[0x81, 0x00]);
        head[14..16].copy_from_slice(&(priority | server.vlan).to_be_bytes());
    }
    Ok(())
}
