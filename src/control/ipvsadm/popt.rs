//! Arguments as popt cuts them up: ipvsadm's command line is read by that library, and scripts lean on its habits.
//!
//! Owns the cutting: clusters of short options, glued values, `=`, `--`, optional values. Never knows what an option means. Pure.

/// Whether an option has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It has none.
    Nothing,
    /// It has one: glued, or the next argument whatever that looks like.
    Value,
    /// It has one where the next argument does not begin with `-`.
    MaybeValue,
}

/// One option as it may be written. `short`: its letter, or a zero.
#[derive(Clone, Copy, Debug)]
pub struct Spelling<T> {
    /// Without the dashes.
    pub long: &'static str,
    /// Its letter; `\0` where it has none.
    pub short: char,
    /// Its value.
    pub takes: Takes,
    /// What it is.
    pub tag: T,
}

/// An argument that is no option, in popt's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The argument.
    pub argument: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Options one by one.
#[derive(Debug)]
pub struct Options<'a, T> {
    table: &'a [Spelling<T>],
    args: &'a [String],
    next: usize,
    /// What is left of a cluster of short options.
    cluster: &'a str,
    /// Nothing more is an option.
    rest: bool,
    /// Arguments that are no options, so far.
    pub leftover: Vec<&'a str>,
}

impl<'a, T: Copy> Options<'a, T> {
    /// Options of these arguments, the program's name not among them.
    pub const fn new(table: &'a [Spelling<T>], args: &'a [String]) -> Options<'a, T> {
        Options { table, args, next: 0, cluster: "", rest: false, leftover: Vec::new() }
    }

    /// The argument that was read last.
    pub fn last(&self) -> &'a str {
        self.next.checked_sub(1).and_then(|last| self.args.get(last)).map_or("", String::as_str)
    }

    /// The next option and its value; `None` at the end.
    ///
    /// # Errors
    /// [`Bad`]; what comes behind it was not read.
    pub fn next(&mut self) -> Option<Result<(T, Option<&'a str>), Bad>> {
        while self.cluster.is_empty() {
            let arg = self.args.get(self.next)?;
            self.next += 1;
            if self.rest || !arg.starts_with('-') || arg == "-" {
                self.leftover.push(arg);
            } else if arg == "--" {
                self.rest = true;
            } else if let Some(long) = arg.strip_prefix("--") {
                let (name, glued) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                let found = self.table.iter().find(|known| known.long == name).copied();
                return Some(self.finish(found, glued));
            } else {
                self.cluster = &arg[1..];
            }
        }
        let letter = self.cluster.chars().next()?;
        let found = self.table.iter().find(|known| known.short == letter && letter != '\0').copied();
        let after = &self.cluster[letter.len_utf8()..];
        let has_value = found.is_some_and(|known| known.takes != Takes::Nothing);
        let glued = match after.strip_prefix('=') {
            Some(value) => Some(value),
            None => Some(after).filter(|after| has_value && !after.is_empty()),
        };
        self.cluster = if glued.is_some() || found.is_none() { "" } else { after };
        Some(self.finish(found, glued))
    }

    fn finish(&mut self, found: Option<Spelling<T>>, glued: Option<&'a str>) -> Result<(T, Option<&'a str>), Bad> {
        let bad = |why| Bad { argument: self.last().to_owned(), why };
        let Some(known) = found else { return Err(bad("unknown option")) };
        match (known.takes, glued) {
            (Takes::Nothing, None) => Ok((known.tag, None)),
            (Takes::Nothing, Some(_)) => Err(bad("option does not take an argument")),
            (_, Some(value)) => Ok((known.tag, Some(value))),
            (takes, None) => {
                let here = self.args.get(self.next).map(String::as_str);
                let value = here.filter(|value| takes == Takes::Value || !value.starts_with('-'));
                if value.is_none() && takes == Takes::Value {
                    return Err(bad("missing argument"));
                }
                self.next += usize::from(value.is_some());
                Ok((known.tag, value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [Spelling<char>; 4] = [
        Spelling { long: "list", short: 'L', takes: Takes::Nothing, tag: 'L' },
        Spelling { long: "numeric", short: 'n', takes: Takes::Nothing, tag: 'n' },
        Spelling { long: "scheduler", short: 's', takes: Takes::Value, tag: 's' },
        Spelling { long: "persistent", short: 'p', takes: Takes::MaybeValue, tag: 'p' },
    ];

    fn read(line: &str) -> Result<(String, Vec<String>), Bad> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut options = Options::new(&TABLE, &args);
        let mut seen = String::new();
        while let Some(option) = options.next() {
            let (tag, value) = option?;
            seen.push(tag);
            seen.extend(value.map(|value| format!("({value})")));
        }
        Ok((seen, options.leftover.iter().map(|&arg| arg.to_owned()).collect()))
    }

    #[test]
    fn options_are_cut_as_popt_cuts_them() {
        for (line, seen, leftover) in [
            ("-Ln", "Ln", &[][..]),
            ("-L -n", "Ln", &[]),
            ("--list --numeric", "Ln", &[]),
            ("-srr", "s(rr)", &[]),
            ("-s=rr -n", "s(rr)n", &[]),
            ("-s rr", "s(rr)", &[]),
            ("-s -n", "s(-n)", &[]),
            ("--scheduler=rr", "s(rr)", &[]),
            ("--scheduler rr x", "s(rr)", &["x"]),
            ("-Lsrr", "Ls(rr)", &[]),
            ("-p", "p", &[]),
            ("-p 300", "p(300)", &[]),
            ("-p -n", "pn", &[]),
            ("--persistent --numeric", "pn", &[]),
            ("-p=5 -p6", "p(5)p(6)", &[]),
            ("x -L - y", "L", &["x", "-", "y"]),
            ("-L -- -n", "L", &["-n"]),
        ] {
            let leftover: Vec<String> = leftover.iter().map(|&arg: &&str| arg.to_owned()).collect();
            assert_eq!(read(line), Ok((seen.to_owned(), leftover)), "{line}");
        }
        for (line, argument, why) in [
            ("-L -q", "-q", "unknown option"),
            ("-Lq", "-Lq", "unknown option"),
            ("--lis", "--lis", "unknown option"),
            ("--frob=1", "--frob=1", "unknown option"),
            ("-s", "-s", "missing argument"),
            ("-L --scheduler", "--scheduler", "missing argument"),
        ] {
            assert_eq!(read(line), Err(Bad { argument: argument.to_owned(), why }), "{line}");
        }
    }
}
