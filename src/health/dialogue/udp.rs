//! A datagram and its reply. Pure.
//!
//! Owns what a reply must begin with (keepalived's `UDP_CHECK`, check_udp.c). Never decides how long to wait.

use super::{Exchange, Progress, shown};
use crate::health::{Outcome, Reason};
use crate::model::UdpCheck;

/// The exchange of a `udp` check.
pub fn udp(check: &UdpCheck) -> Box<dyn Exchange> {
    Box::new(Udp(check.clone()))
}

struct Udp(UdpCheck);

impl Exchange for Udp {
    fn question(&mut self) -> Vec<u8> {
        self.0.payload.clone()
    }

    fn received(&mut self, datagram: &[u8]) -> Progress {
        match &self.0.reply {
            Some(wanted) if !datagram.starts_with(wanted) => {
                let words = format!("reply {}, wanted {} at its beginning", shown(datagram), shown(wanted));
                Progress::bad(Reason::Content, words)
            }
            _ => Progress::Done(Outcome::good(format!("reply of {} bytes", datagram.len()))),
        }
    }

    fn silence_is_good(&self) -> bool {
        !self.0.require_reply
    }
}

#[cfg(test)]
mod tests;
