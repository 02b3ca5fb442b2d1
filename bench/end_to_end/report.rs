//! Samples, their medians and spreads, and ratios to a device of the same round.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// One figure of one device in one round.
pub struct Sample {
    case: String,
    device: &'static str,
    round: usize,
    what: &'static str,
    value: f64,
    /// Others computed meanwhile.
    disturbed: bool,
}

impl Sample {
    pub fn new(case: &str, device: &'static str, round: usize, what: &'static str, value: f64) -> Sample {
        Sample { case: case.to_owned(), device, round, what, value, disturbed: false }
    }

    pub fn disturbed(self, disturbed: bool) -> Sample {
        Sample { disturbed, ..self }
    }
}

/// All samples.
#[derive(Default)]
pub struct Report {
    samples: Vec<Sample>,
}

/// Median, least and greatest.
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { median, least, greatest })
    }
}

/// What ratios refer to.
const REFERENCE: &str = "bare-forwarder";
/// Undisturbed samples that make the disturbed ones superfluous.
const ENOUGH: usize = 3;

impl Report {
    pub fn add(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Keys of all figures, in the order of their first sample.
    fn keys(&self) -> Vec<(&str, &'static str, &'static str)> {
        let mut keys = Vec::new();
        for sample in &self.samples {
            let key = (sample.case.as_str(), sample.device, sample.what);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// By round; disturbed ones only where fewer than three others are there.
    fn rounds(&self, case: &str, device: &str, what: &str) -> BTreeMap<usize, f64> {
        let wanted = |s: &&Sample| s.case == case && s.device == device && s.what == what;
        let all: Vec<&Sample> = self.samples.iter().filter(wanted).collect();
        let clean = all.iter().filter(|sample| !sample.disturbed).count();
        let taken = all.iter().filter(|sample| clean < ENOUGH || !sample.disturbed);
        taken.map(|sample| (sample.round, sample.value)).collect()
    }

    fn count_disturbed(&self, case: &str, device: &str, what: &str) -> usize {
        let wanted = |s: &&Sample| s.case == case && s.device == device && s.what == what && s.disturbed;
        self.samples.iter().filter(wanted).count()
    }

    fn spread(&self, case: &str, device: &str, what: &str) -> Option<Spread> {
        Spread::of(self.rounds(case, device, what).into_values().collect())
    }

    /// Ratios to the reference in the same round.
    fn ratio(&self, case: &str, device: &str, what: &str) -> Option<Spread> {
        let reference = self.rounds(case, REFERENCE, what);
        let own = self.rounds(case, device, what);
        Spread::of(own.iter().filter_map(|(round, value)| Some(value / reference.get(round)?)).collect())
    }

    pub fn tables(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for (case, device, what) in self.keys() {
            if case != last {
                let _ = writeln!(text, "\n{case}");
                last = case;
            }
            let Some(spread) = self.spread(case, device, what) else { continue };
            let Spread { median, least, greatest } = spread;
            let _ = write!(text, "  {device:<24} {what:<18} {median:>12.1}  ({least:.1} to {greatest:.1})");
            if let Some(ratio) = self.ratio(case, device, what).filter(|_| what.ends_with("per_s")) {
                let _ = write!(text, "  ratio {:.3} ({:.3} to {:.3})", ratio.median, ratio.least, ratio.greatest);
            }
            let disturbed = self.count_disturbed(case, device, what);
            if disturbed > 0 {
                let _ = write!(text, "  [{disturbed} of the rounds disturbed]");
            }
            text.push('\n');
        }
        text
    }

    pub fn json(&self) -> Value {
        let figures: Vec<Value> = self
            .keys()
            .into_iter()
            .filter_map(|(case, device, what)| {
                let spread = self.spread(case, device, what)?;
                let ratio = self
                    .ratio(case, device, what)
                    .map(|ratio| json!({"median": ratio.median, "least": ratio.least, "greatest": ratio.greatest}));
                let samples: Vec<f64> = self.rounds(case, device, what).into_values().collect();
                Some(json!({"case": case, "device": device, "what": what, "median": spread.median,
                    "least": spread.least, "greatest": spread.greatest, "samples": samples,
                    "disturbed": self.count_disturbed(case, device, what),
                    "ratio_to_bare_forwarder": ratio}))
            })
            .collect();
        Value::Array(figures)
    }
}
