//! What a metric is, and what one is about: the rows of the tables in the files beside this one.
//!
//! Owns the form of the tables. The same rows make the answer and docs/metrics.md. Pure.

use super::text::{Kind, Samples, Text};

/// One family, about something of the type `T`.
pub struct Metric<T: ?Sized + 'static> {
    /// Its name.
    pub name: &'static str,
    /// What sort of number.
    pub kind: Kind,
    /// A sentence.
    pub help: &'static str,
    /// Labels beyond those that say which `T` is meant.
    pub labels: &'static [&'static str],
    /// Its samples.
    pub samples: fn(&T, &mut Samples<'_>),
}

/// A row of a table: a counter or gauge by name and sentence, and how its value is read.
macro_rules! metric {
    ($kind:ident $name:literal, $help:literal, |$of:pat_param| $value:expr) => {
        $crate::control::web::metrics::table::Metric {
            name: $name,
            kind: $crate::control::web::metrics::text::Kind::$kind,
            help: $help,
            labels: &[],
            samples: |$of, out| out.put($value),
        }
    };
    ($kind:ident $name:literal [$($label:literal),*], $help:literal, |$of:pat_param, $out:pat_param| $body:expr) => {
        $crate::control::web::metrics::table::Metric {
            name: $name,
            kind: $crate::control::web::metrics::text::Kind::$kind,
            help: $help,
            labels: &[$($label),*],
            samples: |$of, $out| $body,
        }
    };
}
pub(super) use metric;

/// Writes all families of a table, each for all things with their labels.
pub fn write<T: ?Sized>(text: &mut Text, table: &[Metric<T>], things: &[(String, &T)]) {
    if things.is_empty() {
        return;
    }
    for metric in table {
        text.family(metric.name, metric.kind, metric.help);
        for (labels, thing) in things {
            (metric.samples)(thing, &mut text.of(metric.name, labels));
        }
    }
}

/// One family for the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// What sort of number.
    pub kind: Kind,
    /// A sentence.
    pub help: &'static str,
    /// All labels.
    pub labels: Vec<&'static str>,
}

/// A table's rows for the reference; `labels` are those that say which thing is meant.
pub fn describe<T: ?Sized>(table: &[Metric<T>], labels: &[&'static str]) -> Vec<Described> {
    let one = |metric: &Metric<T>| Described {
        name: metric.name,
        kind: metric.kind,
        help: metric.help,
        labels: labels.iter().chain(metric.labels).copied().collect(),
    };
    table.iter().map(one).collect()
}
