//! Single integers: ranges, choices, powers of two.
//!
//! Owns the wording of their mistakes. Knows nothing of other keys. Pure.

use toml::Spanned;
use toml::de::DeValue;

use super::super::problem::Collector;
use super::super::schema::Kind;
use super::{describe, expectation, shorten};

/// An integer that is not negative.
pub(super) fn single_integer(
    kind: &Kind,
    value: &Spanned<DeValue<'_>>,
    key: &str,
    out: &mut Collector<'_>,
) -> Option<u32> {
    checked_integer(kind, value, key, out).and_then(|n| u32::try_from(n).ok())
}

/// An integer of a kind.
pub(super) fn checked_integer(
    kind: &Kind,
    value: &Spanned<DeValue<'_>>,
    key: &str,
    out: &mut Collector<'_>,
) -> Option<i128> {
    let at = value.span().start;
    let DeValue::Integer(integer) = value.get_ref() else {
        out.error(at, key, format!("{} does not belong here", describe(value.get_ref()))).expected(expectation(kind));
        return None;
    };
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
    let fits = number.is_some_and(|n| match kind {
        Kind::Integer { min, max, power_of_two } => {
            (i128::from(*min)..=i128::from(*max)).contains(&n) && (!power_of_two || n.count_ones() == 1)
        }
        Kind::IntegerOr { min, max, .. } => (i128::from(*min)..=i128::from(*max)).contains(&n),
        Kind::OneOf(choices) => choices.iter().any(|choice| i128::from(*choice) == n),
        _ => false,
    });
    if fits {
        return number;
    }
    let shown = number.map_or_else(|| shorten(&integer.to_string()), |n| n.to_string());
    let problem = out.error(at, key, format!("{shown} is not permitted"));
    problem.expected(expectation(kind));
    match (kind, number) {
        (Kind::IntegerOr { word, .. }, Some(0)) => {
            problem.help(format!("write `\"{word}\"`, or remove the key"));
        }
        (Kind::Integer { min, max, .. } | Kind::IntegerOr { min, max, .. }, Some(n))
            if n < i128::from(*min) || n > i128::from(*max) =>
        {
            problem.help(format!("the {} is {}", if n < i128::from(*min) { "least" } else { "most" }, {
                if n < i128::from(*min) { min } else { max }
            }));
        }
        (Kind::Integer { power_of_two: true, .. }, Some(n)) if n > 0 => {
            let below = 1i128 << n.ilog2();
            problem.help(format!("the powers of two around it are {below} and {}", below * 2));
        }
        (Kind::OneOf(choices), Some(n)) => {
            if let Some(near) = choices.iter().min_by_key(|choice| (i128::from(**choice) - n).unsigned_abs()) {
                problem.help(format!("the nearest is {near}"));
            }
        }
        _ => {}
    }
    None
}
