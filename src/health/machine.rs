//! One check's results, and what they make of it: up or down, and which weight it asks for. Pure.
//!
//! Owns the counting of results in a row. Never knows when a run is due, nor how many attempts it took.

use super::Outcome;
use crate::model::{Pace, Weigh};

/// What a result has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that anybody must hear of.
    Same,
    /// The weight of a good check.
    Weight,
    /// It is good, or failing, from now on: its first result, or enough of them in a row.
    Turned(bool),
}

/// One check's state.
#[derive(Clone, Debug)]
pub struct Machine {
    rise: u32,
    fall: u32,
    up: Option<bool>,
    /// Kind of the last results, and how many there were in a row.
    streak: Option<(bool, u32)>,
    weigh: Option<Weigh>,
}

impl Machine {
    /// Before its first result. A rise or fall of 0 is taken for 1.
    pub fn new(pace: &Pace) -> Machine {
        let (rise, fall) = (u32::from(pace.rise.max(1)), u32::from(pace.fall.max(1)));
        Machine { rise, fall, up: None, streak: None, weigh: None }
    }

    /// Takes the result of one run, all its attempts over. One that could not ask changes nothing.
    pub fn take(&mut self, outcome: &Outcome) -> Verdict {
        let (good, weigh) = match outcome {
            Outcome::Good { weigh, .. } => (true, *weigh),
            // What it said while it was good stays until it says something else.
            Outcome::Bad(_) => (false, self.weigh),
            Outcome::Unable(_) => return Verdict::Same,
        };
        let row = match self.streak {
            Some((kind, row)) if kind == good => row.saturating_add(1),
            _ => 1,
        };
        self.streak = Some((good, row));
        let weight_changed = self.weigh != weigh;
        self.weigh = weigh;
        let turned = match self.up {
            None => true,
            Some(true) => !good && row >= self.fall,
            Some(false) => good && row >= self.rise,
        };
        if turned {
            self.up = Some(good);
            return Verdict::Turned(good);
        }
        if weight_changed && self.up == Some(true) { Verdict::Weight } else { Verdict::Same }
    }

    /// Whether it is good; `None` before the first result.
    pub fn up(&self) -> Option<bool> {
        self.up
    }

    /// Results of the same kind in a row.
    pub fn streak(&self) -> u32 {
        self.streak.map_or(0, |(_, row)| row)
    }

    /// What it says about the weight.
    pub fn weigh(&self) -> Option<Weigh> {
        self.weigh
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Reason;

    /// `+` good, `-` bad, `?` unable, a digit: good, with that weight.
    fn outcome(letter: char) -> Outcome {
        match letter {
            '+' => Outcome::good("yes"),
            '-' => Outcome::bad(Reason::Refused, "connection refused"),
            '?' => Outcome::Unable("no socket".into()),
            digit => Outcome::Good {
                said: String::new(),
                weigh: Some(Weigh::Set(digit.to_digit(10).expect("a digit") as u16)),
                warning: None,
            },
        }
    }

    /// `U` up, `D` down, `w` weight, `.` nothing.
    fn told(verdict: Verdict) -> char {
        match verdict {
            Verdict::Same => '.',
            Verdict::Weight => 'w',
            Verdict::Turned(true) => 'U',
            Verdict::Turned(false) => 'D',
        }
    }

    #[test]
    fn sequences_of_results() {
        for (rise, fall, results, expected) in [
            // The first result alone decides.
            (2, 3, "+", "U"),
            (2, 3, "-", "D"),
            (5, 5, "-++++", "D...."),
            (5, 5, "-+++++", "D....U"),
            // Fall.
            (2, 3, "+--", "U.."),
            (2, 3, "+---", "U..D"),
            (2, 3, "+--+--+---", "U........D"),
            (1, 1, "+-+-", "UDUD"),
            // Rise.
            (2, 3, "-++", "D.U"),
            (2, 3, "-+-+-++", "D.....U"),
            (1, 3, "-+", "DU"),
            // More of the same says nothing new.
            (2, 3, "+++++", "U...."),
            (2, 3, "-----", "D...."),
            // What could not be asked neither breaks a row nor makes one.
            (2, 3, "???", "..."),
            (2, 3, "?-", ".D"),
            (2, 3, "+-?-?-", "U....D"),
            (2, 3, "+?????", "U....."),
            (2, 3, "-+?+", "D..U"),
            // 0 is taken for 1.
            (0, 0, "+-+", "UDU"),
            // Weights: the first comes with the first result, then each change is told, and none of a failing check.
            (2, 3, "555", "U.."),
            (2, 3, "5577", "U.w."),
            (2, 3, "5+5", "Uww"),
            (2, 3, "5-5", "U.."),
            (2, 1, "5-7", "UD."),
            (2, 1, "5-77", "UD.U"),
        ] {
            let pace = Pace { rise, fall, ..Pace::default() };
            let mut machine = Machine::new(&pace);
            let seen: String = results.chars().map(|letter| told(machine.take(&outcome(letter)))).collect();
            assert_eq!(seen, expected, "rise {rise} fall {fall}: {results}");
        }
    }

    #[test]
    fn what_it_knows() {
        let mut machine = Machine::new(&Pace::default());
        assert_eq!((machine.up(), machine.streak(), machine.weigh()), (None, 0, None));
        for (letter, up, streak, weigh) in [
            ('?', None, 0, None),
            ('5', Some(true), 1, Some(Weigh::Set(5))),
            ('5', Some(true), 2, Some(Weigh::Set(5))),
            ('-', Some(true), 1, Some(Weigh::Set(5))),
            ('?', Some(true), 1, Some(Weigh::Set(5))),
            ('+', Some(true), 1, None),
        ] {
            machine.take(&outcome(letter));
            assert_eq!((machine.up(), machine.streak(), machine.weigh()), (up, streak, weigh), "{letter}");
        }
    }
}
