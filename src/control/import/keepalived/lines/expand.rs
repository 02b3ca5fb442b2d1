//! `$NAME=value`, `$NAME`, `${NAME}`, `~SEQ(...)` and `~LST(...)` within one line.
//!
//! Owns how they are written. Never keeps a definition. Pure.

/// Most values of one sequence.
const MOST_VALUES: u64 = 100_000;

/// Why a sequence cannot be read, and what to do.
type Refusal = (String, String);

/// What a sequence sets for each of its rounds.
type Sets = Vec<Vec<(String, String)>>;

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The name and the value of a line that defines one.
pub fn definition(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.strip_prefix('$')?.split_once('=')?;
    is_name(name).then(|| (name, value.trim()))
}

/// Each `$NAME` before a blank or the end, and each `${NAME}`: where it begins and ends, and its name.
pub fn references(text: &str) -> impl Iterator<Item = (usize, usize, &str)> {
    text.match_indices('$').filter_map(|(at, _)| {
        let rest = &text[at + 1..];
        if let Some(inner) = rest.strip_prefix('{') {
            let end = inner.find('}')?;
            let name = &inner[..end];
            let first = name.split_whitespace().next().unwrap_or_default();
            return is_name(first).then_some((at, at + end + 3, name));
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        is_name(&rest[..end]).then_some((at, at + 1 + end, &rest[..end]))
    })
}

/// The rounds of a sequence, and the rest of its line.
pub fn sequence(text: &str) -> Result<(Sets, &str), Refusal> {
    let hexadecimal = text.starts_with("~SEQx(");
    let is_list = text.starts_with("~LST(");
    let wrong = |message: &str| {
        let help = "write it as `~SEQ(NAME, first, step, last)` or `~LST(NAME, value, ...)`".to_owned();
        (message.to_owned(), help)
    };
    if !is_list && !hexadecimal && !text.starts_with("~SEQ(") {
        return Err(wrong("this is no sequence of keepalived"));
    }
    let open = text.find('(').unwrap_or(0);
    let end = text.find(')').ok_or_else(|| wrong("the sequence has no `)`"))?;
    let (inner, rest) = (&text[open + 1..end], text[end + 1..].trim_start());
    let sets = if is_list { list(inner) } else { numbers(inner, hexadecimal) };
    sets.map(|sets| (sets, rest)).map_err(|message| wrong(&message))
}

fn numbers(inner: &str, hexadecimal: bool) -> Result<Sets, String> {
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    let (name, numbers) = parts.split_first().ok_or("the sequence is empty")?;
    if !is_name(name) {
        return Err(format!("`{name}` is no name"));
    }
    let number = |text: &&str| {
        let (digits, minus) = text.strip_prefix('-').map_or((*text, false), |digits| (digits, true));
        let value = match digits.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16),
            None => digits.parse::<i64>(),
        };
        // Far from the ends of the type, so that no step leaves it.
        let value = value.ok().filter(|value| (0..1 << 60).contains(value));
        value.map(|value| if minus { -value } else { value }).ok_or_else(|| format!("`{text}` is no number"))
    };
    let numbers: Vec<i64> = numbers.iter().map(number).collect::<Result<_, _>>()?;
    let (first, step, last) = match numbers.as_slice() {
        [last] => (if *last > 0 { 1 } else { -1 }, None, *last),
        [first, last] => (*first, None, *last),
        [first, step, last] => (*first, Some(*step), *last),
        _ => return Err("the sequence has the wrong number of values".to_owned()),
    };
    let step = step.unwrap_or(if last < first { -1 } else { 1 });
    if step == 0 || (step > 0) != (last >= first) && last != first {
        return Err("the sequence never comes to its end".to_owned());
    }
    let rounds = last.abs_diff(first) / step.unsigned_abs();
    if rounds >= MOST_VALUES {
        return Err(format!("the sequence has more than {MOST_VALUES} values"));
    }
    let mut sets = Vec::new();
    let mut value = first;
    for _ in 0..=rounds {
        let text = if hexadecimal { format!("{value:x}") } else { value.to_string() };
        sets.push(vec![((*name).to_owned(), text)]);
        value += step;
    }
    Ok(sets)
}

fn list(inner: &str) -> Result<Sets, String> {
    let mut parts = grouped(inner)?.into_iter();
    let names = parts.next().unwrap_or_default();
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        return Err(format!("`{bad}` is no name"));
    }
    let sets: Sets = parts
        .map(|values| {
            if values.len() == names.len() {
                Ok(names.iter().cloned().zip(values).collect())
            } else {
                Err(format!("{} names have {} values", names.len(), values.len()))
            }
        })
        .collect::<Result<_, _>>()?;
    if names.is_empty() || sets.is_empty() { Err("the list has no values".to_owned()) } else { Ok(sets) }
}

/// The parts of a list between commas; those in braces have parts of their own.
fn grouped(inner: &str) -> Result<Vec<Vec<String>>, String> {
    let mut out = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let (part, after) = match rest.strip_prefix('{') {
            Some(open) => {
                let (part, after) = open.split_once('}').ok_or("a `{` of the list is not closed")?;
                (part.split(',').map(|one| one.trim().to_owned()).collect(), after.trim_start())
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (vec![rest[..end].trim().to_owned()], &rest[end..])
            }
        };
        out.push(part);
        rest = match after.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if after.is_empty() => after,
            None => return Err(format!("a comma is missing before `{after}`")),
        };
    }
    Ok(out)
}
