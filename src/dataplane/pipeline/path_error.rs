//! ICMP errors about what the engine itself wrapped: a router on the way to a tunnel's server tells that the outer packet is
//! too large (RFC 1191, RFC 8201; IPVS: `ip_vs_in_icmp`, the part for tunnels).
//!
//! Owns which of them are believed. Never answers anybody: the next packet that is too large gets the answer.

use super::Context;
use crate::dataplane::answer;
use crate::dataplane::icmp;
use crate::dataplane::io::Frame;
use crate::dataplane::parse::{self, Kind, Parsed, be16};
use crate::dataplane::path_mtu;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};

impl Context<'_> {
    /// Learns from an error about a tunnel's packet, which is at `inner`. The kernel gets it afterwards, for its own cache.
    /// `None`: it is about something else.
    pub(super) fn path_error(&self, bytes: &[u8], frame: &Frame, parsed: &Parsed, inner: usize) -> Option<Outcome> {
        let l4 = usize::from(parsed.l4);
        let end = l4 + usize::from(parsed.l4_len);
        let (message, quoted) = (bytes.get(l4..end)?, bytes.get(inner..end)?);
        let head: &[u8; 8] = message.first_chunk()?;
        let v6 = parsed.kind == Kind::Icmp6;
        let mtu = match (v6, head[0], head[1]) {
            (false, 3, 4) => u32::from(u16::from_be_bytes([head[6], head[7]])),
            (true, 2, _) => u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
            _ => return None,
        };
        let (source, server, _) = icmp::ends(quoted, 0)?;
        let mut tunnels = self.snapshot.tunnels_to(server).filter(|(_, tunnel)| tunnel.has_made(quoted));
        let (entry, tunnel) = tunnels.next()?;
        // For the appliance, back to where the packet came from, and whole. If not, nobody is to learn from it.
        let back = parse::destination(bytes) == Some(source) && self.foreign(bytes, frame).is_none();
        if !back || !answer::icmp_sum_is_right(bytes, parsed) {
            return None;
        }
        let length = if v6 { 40 + u32::from(be16(quoted, 4)?) } else { u32::from(be16(quoted, 2)?) };
        if !path_mtu::is_plausible(mtu, length, v6) {
            return Some(Outcome { verdict: Verdict::Drop(DropReason::BadIcmp), ..entry.outcome });
        }
        if mtu + 14 < u32::from(entry.max_frame) {
            tunnel.path().learn(mtu, self.now);
        }
        Some(Outcome { verdict: Verdict::Pass, ..entry.outcome })
    }
}
