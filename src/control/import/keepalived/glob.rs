//! File names with `*`, `?`, `[...]` and `{a,b}`, as `include` takes them.
//!
//! Owns what such a pattern matches. Folders are listed by the caller. Pure.

use std::path::{Path, PathBuf};

/// Most patterns that braces may come to, and most files that a pattern may match.
pub const MOST: usize = 1000;

/// The names in a folder.
pub type List<'d> = &'d dyn Fn(&Path) -> Result<Vec<String>, String>;

/// Whether a text is more than a name.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// The files that a pattern matches, sorted for each of its alternatives. `folder`: of the file that includes it.
pub fn matches(pattern: &str, folder: &Path, list: List<'_>) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for one in alternatives(pattern)? {
        let start = if one.starts_with('/') { PathBuf::from("/") } else { folder.to_owned() };
        let mut paths = vec![start];
        let parts: Vec<&str> = one.split('/').filter(|part| !part.is_empty()).collect();
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let mut next = Vec::new();
            for path in paths {
                if !is_pattern(part) && !last {
                    next.push(path.join(part));
                    continue;
                }
                // A folder that cannot be listed has nothing that matches, as for glob(3).
                let mut names = list(&path).unwrap_or_default();
                names.sort();
                let hidden = part.starts_with('.');
                let fits = |name: &&String| (hidden || !name.starts_with('.')) && fits(part, name);
                next.extend(names.iter().filter(fits).map(|name| path.join(name)));
                if next.len() > MOST {
                    return Err(format!("more than {MOST} files match"));
                }
            }
            paths = next;
        }
        found.extend(paths);
        if found.len() > MOST {
            return Err(format!("more than {MOST} files match"));
        }
    }
    Ok(found)
}

/// The patterns that braces stand for.
fn alternatives(pattern: &str) -> Result<Vec<String>, String> {
    let mut waiting = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(text) = waiting.pop() {
        let Some((open, close, commas)) = braces(&text) else {
            done.push(text);
            continue;
        };
        let (before, after) = (&text[..open], &text[close + 1..]);
        let mut starts = vec![open + 1];
        starts.extend(commas.iter().map(|comma| comma + 1));
        let ends = commas.iter().copied().chain([close]);
        let parts: Vec<String> =
            starts.into_iter().zip(ends).map(|(start, end)| [before, &text[start..end], after].concat()).collect();
        waiting.extend(parts.into_iter().rev());
        if waiting.len() + done.len() > MOST {
            return Err(format!("more than {MOST} names are meant"));
        }
    }
    Ok(done)
}

/// The first pair of braces, and the commas between them.
fn braces(text: &str) -> Option<(usize, usize, Vec<usize>)> {
    let open = text.find('{')?;
    let mut depth = 0;
    let mut commas = Vec::new();
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at < open) {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some((open, at, commas)),
            '}' => depth -= 1,
            ',' if depth == 1 => commas.push(at),
            _ => {}
        }
    }
    None
}

/// Whether a name fits a pattern without slashes. Takes time in proportion to the product of their lengths at most.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut to) = (0, 0);
    // Where the last star stands, and what it has taken: only that one is ever tried again.
    let mut star: Option<(usize, usize)> = None;
    while to < name.len() {
        let (ok, next) = match pattern.get(at) {
            Some('*') => {
                star = Some((at, to));
                at += 1;
                continue;
            }
            Some('?') => (true, at + 1),
            Some('[') => class(&pattern, at, name[to]),
            Some(c) => (*c == name[to], at + 1),
            None => (false, at),
        };
        if ok {
            (at, to) = (next, to + 1);
        } else if let Some((back, taken)) = star {
            star = Some((back, taken + 1));
            (at, to) = (back + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// Whether a character is in the class that begins here, and where the pattern goes on.
fn class(pattern: &[char], at: usize, c: char) -> (bool, usize) {
    let negated = matches!(pattern.get(at + 1), Some('!' | '^'));
    let first = if negated { at + 2 } else { at + 1 };
    let Some(end) = (first + 1..pattern.len()).find(|end| pattern[*end] == ']') else {
        return (c == '[', at + 1);
    };
    let mut inside = false;
    let mut place = first;
    while place < end {
        if pattern.get(place + 1) == Some(&'-') && place + 2 < end {
            inside |= (pattern[place]..=pattern[place + 2]).contains(&c);
            place += 3;
        } else {
            inside |= pattern[place] == c;
            place += 1;
        }
    }
    (inside != negated, end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("??", "ab", true),
            ("??", "a", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("ü?", "üx", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        // A pattern that takes exponential time where every star is tried again.
        assert!(!fits(&format!("{}c", "a*".repeat(50)), &"ab".repeat(400)));
    }

    #[test]
    fn braces_stand_for_alternatives_in_their_order() {
        let of = |text: &str| alternatives(text).expect("few");
        assert_eq!(of("a{b,c{d,e},}f"), ["abf", "acdf", "acef", "af"]);
        assert_eq!(of("a{b"), ["a{b"]);
        assert!(alternatives(&"{a,b}".repeat(40)).is_err());
    }

    #[test]
    fn folders_are_patterns_too() {
        let list = |folder: &Path| match folder.to_str() {
            Some("/etc/k") => Ok(vec!["b.d".into(), "a.d".into(), ".c.d".into()]),
            Some("/etc/k/a.d") => Ok(vec!["2.conf".into(), "1.conf".into()]),
            Some("/etc/k/b.d") => Ok(vec!["3.conf".into(), "x".into()]),
            _ => Err("no such folder".to_owned()),
        };
        let found = matches("*.d/*.conf", Path::new("/etc/k"), &list).expect("few");
        let names: Vec<&str> = found.iter().filter_map(|path| path.to_str()).collect();
        assert_eq!(names, ["/etc/k/a.d/1.conf", "/etc/k/a.d/2.conf", "/etc/k/b.d/3.conf"]);
        assert!(matches("/nowhere/*", Path::new("/etc/k"), &list).expect("none").is_empty());
    }
}
