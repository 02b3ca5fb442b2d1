//! Rewriting for NAT: addresses and ports, with every checksum that covers them (RFC 1624, RFC 3022).
//!
//! Changes packets in place. Never decides what becomes of them, and never touches Ethernet headers or the TTL.

use std::net::IpAddr;

use crate::dataplane::parse::Parsed;
use crate::dataplane::snapshot::Endpoint;
use crate::dataplane::verdict::DropReason;

/// Gives a TCP, UDP or SCTP packet, or any fragment of one, another source, destination or both (of its own family).
/// Checksums are updated, not recomputed, so that a wrong one stays wrong; a UDP checksum of zero stays zero (RFC 768);
/// SCTP's CRC32c is computed anew where a port changes.
///
/// # Errors
/// [`DropReason::Fragment`] for a fragment of SCTP whose port would change, [`DropReason::Truncated`] for headers that do
/// not fit the frame. The packet is unchanged then.
pub fn translate(
    bytes: &mut [u8],
    parsed: &Parsed,
    source: Option<Endpoint>,
    destination: Option<Endpoint>,
) -> Result<(), DropReason> {
    let _ = (bytes, parsed, source, destination);
    Err(DropReason::Truncated)
}

/// Gives an ICMP or ICMPv6 error another source, destination or both, and the packet inside it (at the offset `inner`,
/// with its transport header at `inner_l4`) likewise. Inner headers may be cut off behind the first eight bytes of the
/// transport header; what is there is translated, inner checksums included, and the ICMP checksum is updated.
///
/// # Errors
/// [`DropReason::BadIcmp`] for inner headers that do not fit. The packet is unchanged then.
#[allow(clippy::too_many_arguments)]
pub fn translate_icmp_error(
    bytes: &mut [u8],
    parsed: &Parsed,
    inner: usize,
    inner_l4: usize,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    inner_source: Option<Endpoint>,
    inner_destination: Option<Endpoint>,
) -> Result<(), DropReason> {
    let _ = (bytes, parsed, inner, inner_l4, source, destination, inner_source, inner_destination);
    Err(DropReason::BadIcmp)
}
