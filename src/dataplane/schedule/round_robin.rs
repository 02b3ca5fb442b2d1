//! rr and wrr, with the very sequences of `ip_vs_rr.c` and `ip_vs_wrr.c`.
//!
//! The list is walked from its head, behind the server chosen last; all workers share the cursor.

use super::{Cursor, Member};

/// Round robin over servers whose weight is not 0.
pub fn rr(members: &[Member], cursor: &Cursor) -> Option<usize> {
    loop {
        let old = cursor.load();
        let start = after(members, old.0);
        let found =
            (0..members.len()).map(|step| (start + step) % members.len()).find(|&at| members[at].is_available())?;
        if cursor.swap(old, (members[found].id, old.1)) {
            return Some(found);
        }
    }
}

/// Index behind the server with this id; the head if it is not in the list.
fn after(members: &[Member], id: u32) -> usize {
    match members.iter().position(|m| m.id == id) {
        Some(at) if id != 0 => at + 1,
        _ => 0,
    }
}

/// What wrr derives from the weights: their step (greatest common divisor) and the highest pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    step: u32,
    max: u32,
}

impl Weights {
    /// From the weights of all servers.
    pub fn new(weights: impl Iterator<Item = u32>) -> Self {
        let (mut divisor, mut highest) = (0, 0);
        for weight in weights {
            divisor = gcd(weight, divisor);
            highest = highest.max(weight);
        }
        let step = divisor.max(1);
        Weights { step, max: highest.saturating_sub(step - 1) }
    }

    /// The current weight after the list changed (`ip_vs_wrr_dest_changed`).
    pub fn adjust(self, current: u32) -> u32 {
        if current > self.max || current == 0 {
            self.max
        } else if self.step > 1 {
            current / self.step * self.step + 1
        } else {
            current
        }
    }
}

/// Greatest common divisor; `gcd(n, 0) == n`.
pub(super) fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Weighted round robin: passes over the list with a falling weight limit.
pub fn wrr(members: &[Member], weights: Weights, cursor: &Cursor) -> Option<usize> {
    if weights.max == 0 || !members.iter().any(Member::is_available) {
        return None;
    }
    loop {
        let old = cursor.load();
        let mut at = after(members, old.0);
        let mut limit = if old.1 == 0 { weights.max } else { old.1.min(weights.max) };
        // Every limit from `max` down to 1 comes up once within this many passes, and an available server has at
        // least weight 1.
        let passes = weights.max / weights.step + 3;
        let mut found = None;
        'passes: for _ in 0..passes {
            while at < members.len() {
                if members[at].is_available() && members[at].weight >= limit {
                    found = Some(at);
                    break 'passes;
                }
                at += 1;
            }
            at = 0;
            limit = if limit > weights.step { limit - weights.step } else { weights.max };
        }
        let found = found?;
        if cursor.swap(old, (members[found].id, limit)) {
            return Some(found);
        }
    }
}
