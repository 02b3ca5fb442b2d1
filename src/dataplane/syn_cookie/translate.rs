//! The segments of a flow that a cookie opened, after its handshake: each end counts the server's stream from another
//! number, and was told another window scale.
//!
//! Owns what is shifted: sequence numbers of the server, acknowledgements and selective ones of the client (RFC 2018),
//! windows, and the numbers that an ICMP error quotes; checksums take up what changed. Pure: changes packets in place.
//! The client's own stream is not touched here (that is for `proxy`).
//!
//! A server's window is rounded down to the client's scale: one below 128 bytes is none for the client, which then probes.
//! A window above what 16 bits can say at the other end's scale is that.

use super::SCALE;
use super::slab::Splice;
use crate::dataplane::checksum::{adjust, gain};
use crate::dataplane::parse::{Kind, Parsed, Part, tcp_flag};
use crate::dataplane::rewrite::{nat, options};
use crate::dataplane::verdict::DropReason;

/// TCP option: selective acknowledgements.
const OPTION_SACK: u8 = 5;

/// A window in bytes, at a scale.
fn scaled(bytes: u32, scale: u8) -> u16 {
    u16::try_from(bytes >> scale).unwrap_or(u16::MAX)
}

/// Puts `new` over the window of a TCP header, with the checksum.
fn put_window(bytes: &mut [u8], l4: usize, new: u16) {
    let Some(field) = bytes.get_mut(l4 + 14..l4 + 16) else { return };
    let new = new.to_be_bytes();
    if *field == new {
        return;
    }
    let change = gain(field, &new);
    field.copy_from_slice(&new);
    options::mend(bytes, l4, change);
}

fn window(bytes: &[u8], l4: usize) -> u32 {
    bytes.get(l4 + 14..l4 + 16).map_or(0, |b| u32::from(u16::from_be_bytes([b[0], b[1]])))
}

impl Splice {
    /// A window that the server put into any segment but a SYN, as the client is to read it.
    fn window_to_client(&self, window: u32) -> u16 {
        match self.offer().scale() {
            Some(_) => scaled(window << self.server_scale().unwrap_or(0), SCALE),
            // The client offered no scale, so the server has none.
            None => scaled(window, 0),
        }
    }

    /// The window of the server's SYN-ACK, in which it is not scaled (RFC 7323, section 2.2), as the server would have put it
    /// into a later segment; rounded down.
    pub fn first_window(&self, window: u16) -> u16 {
        window >> self.server_scale().unwrap_or(0)
    }

    /// A window that the client put into any segment but a SYN, as the server is to read it.
    fn window_to_server(&self, window: u32) -> u16 {
        match (self.offer().scale(), self.server_scale()) {
            // The server did not agree to scale; the client thinks that it did.
            (Some(scale), None) => scaled(window << scale, 0),
            _ => scaled(window, 0),
        }
    }

    /// The window of the client's ACK, for the SYN that it becomes.
    pub fn window_of_syn(&self) -> u16 {
        scaled(u32::from(self.window) << self.offer().scale().unwrap_or(0), 0)
    }

    /// Readies a segment from the client for its server.
    ///
    /// # Errors
    /// [`DropReason::BadTransportHeader`] for what is no TCP segment with a whole header.
    pub fn client_segment(&self, bytes: &mut [u8], parsed: &Parsed) -> Result<(), DropReason> {
        if parsed.part == Part::Later {
            return Ok(());
        }
        options::header_end(bytes, parsed).ok_or(DropReason::BadTransportHeader)?;
        let l4 = usize::from(parsed.l4);
        let flags = bytes[l4 + 13];
        if flags & tcp_flag::SYN != 0 {
            return Ok(());
        }
        put_window(bytes, l4, self.window_to_server(window(bytes, l4)));
        if flags & tcp_flag::ACK == 0 {
            return Ok(());
        }
        let ack = options::field(bytes, l4, 8);
        options::put_field(bytes, l4, 8, ack.wrapping_add(self.delta));
        options::edit(bytes, parsed, |option| {
            if option[0] != OPTION_SACK {
                return;
            }
            if !self.server_sack() {
                // The client was told that they are welcome before anybody knew.
                option.fill(options::NOP);
            } else {
                for edge in option[2..].chunks_exact_mut(4) {
                    let number = u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]]);
                    edge.copy_from_slice(&number.wrapping_add(self.delta).to_be_bytes());
                }
            }
        });
        Ok(())
    }

    /// Readies a segment from the server for its client.
    ///
    /// # Errors
    /// [`DropReason::BadTransportHeader`] for what is no TCP segment with a whole header.
    pub fn server_segment(&self, bytes: &mut [u8], parsed: &Parsed) -> Result<(), DropReason> {
        if parsed.part == Part::Later {
            return Ok(());
        }
        options::header_end(bytes, parsed).ok_or(DropReason::BadTransportHeader)?;
        let l4 = usize::from(parsed.l4);
        let number = options::field(bytes, l4, 4);
        options::put_field(bytes, l4, 4, number.wrapping_sub(self.delta));
        if bytes[l4 + 13] & tcp_flag::SYN == 0 {
            put_window(bytes, l4, self.window_to_client(window(bytes, l4)));
        }
        Ok(())
    }

    /// Shifts the numbers in what an ICMP error quotes, whose TCP header lies at `inner_l4`. `to_server`: the error goes
    /// to the server, so the quoted segment is the server's, as the client got it. Its sequence number is always there
    /// (RFC 792); what it acknowledges may be cut off.
    pub fn quoted(&self, bytes: &mut [u8], parsed: &Parsed, inner_l4: usize, to_server: bool) {
        let l4 = usize::from(parsed.l4);
        let v6 = parsed.kind == Kind::Icmp6;
        let Some(message) = bytes.get(l4..l4 + usize::from(parsed.l4_len)) else { return };
        let end = l4 + nat::quote_end(message, v6);
        let (at, by) = if to_server { (4, self.delta) } else { (8, self.delta.wrapping_neg()) };
        if inner_l4 < l4 + 8 || inner_l4 + at + 4 > end || !(l4 | inner_l4).is_multiple_of(2) {
            return;
        }
        let field = inner_l4 + at..inner_l4 + at + 4;
        let new = options::field(bytes, inner_l4, at).wrapping_add(by).to_be_bytes();
        let mut change = gain(&bytes[field.clone()], &new);
        bytes[field].copy_from_slice(&new);
        if inner_l4 + 18 <= end {
            change += mend(bytes, inner_l4 + 16, change);
        }
        mend(bytes, l4 + 2, change);
    }
}

/// Gives the checksum at `at`, which is there, what it covers gained; what the sum over itself gains.
fn mend(bytes: &mut [u8], at: usize, change: u64) -> u64 {
    let old = [bytes[at], bytes[at + 1]];
    let new = adjust(u16::from_ne_bytes(old), change).to_ne_bytes();
    bytes[at..at + 2].copy_from_slice(&new);
    gain(&old, &new)
}

#[cfg(test)]
mod tests;
