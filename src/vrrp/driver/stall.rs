//! Whether the workers of the engine turn. Pure.
//!
//! Owns how long each has stood still. Never reads their counters: the driver does.

use std::time::Duration;

/// Time between two looks.
pub const LOOK: Duration = Duration::from_millis(50);

/// Most that one look counts for: a machine that stood still for a second says nothing about its workers.
const MOST: Duration = Duration::from_millis(100);

/// The workers as they were at the last look.
#[derive(Clone, Debug, Default)]
pub struct Stall {
    looked: Option<Duration>,
    /// Turns, and time for which they have not grown.
    workers: Vec<(u64, Duration)>,
}

impl Stall {
    /// Takes the turns of each worker. Returns the workers that have stood still for `limit` or longer, with the seconds; a
    /// limit of zero never finds one.
    pub fn look(&mut self, turns: &[u64], limit: Duration, now: Duration) -> Vec<(usize, f64)> {
        let passed = self.looked.map_or(Duration::ZERO, |last| now.saturating_sub(last).min(MOST));
        self.looked = Some(now);
        // Other workers: a new engine.
        if self.workers.len() != turns.len() {
            self.workers = turns.iter().map(|turns| (*turns, Duration::ZERO)).collect();
        }
        for ((known, stood), turns) in self.workers.iter_mut().zip(turns) {
            *stood = if known == turns { *stood + passed } else { Duration::ZERO };
            *known = *turns;
        }
        let stalled = |(_, stood): &&(u64, Duration)| !limit.is_zero() && *stood >= limit;
        let numbered = self.workers.iter().enumerate();
        numbered
            .filter(|(_, worker)| stalled(worker))
            .map(|(number, (_, stood))| (number, stood.as_secs_f64()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    #[test]
    fn a_worker_that_stands_still_is_found_and_forgiven() {
        let mut stall = Stall::default();
        let mut now = Duration::ZERO;
        let mut look = |turns: [u64; 2]| {
            now += LOOK;
            stall.look(&turns, LIMIT, now).into_iter().map(|(worker, _)| worker).collect::<Vec<_>>()
        };
        for turn in 0..4 {
            assert_eq!(look([turn, 7]), [] as [usize; 0], "turn {turn}");
        }
        assert_eq!(look([4, 7]), [1]);
        assert_eq!(look([4, 8]), [] as [usize; 0]);
        assert_eq!(stall.look(&[4, 8, 0], LIMIT, now), [], "another engine");
        assert_eq!(stall.look(&[], LIMIT, now), [], "no engine");
    }

    #[test]
    fn a_pause_of_the_whole_machine_stalls_nobody() {
        let mut stall = Stall::default();
        assert_eq!(stall.look(&[1], LIMIT, Duration::from_secs(1)), []);
        assert_eq!(stall.look(&[1], LIMIT, Duration::from_secs(60)), []);
        assert_eq!(stall.look(&[1], Duration::ZERO, Duration::from_secs(61)), [], "zero: never");
    }
}
