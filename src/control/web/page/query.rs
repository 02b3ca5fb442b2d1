//! What the status page asks for: which services, in which order, which of them are open.
//!
//! Owns the words of `/api/page` and their bounds. Pure.

use crate::control::config::problem::nearest;
use crate::control::naming::cut;

/// Most services in one answer.
pub const MOST_SERVICES: usize = 100;

/// Services in one answer, where nobody says how many.
pub const USUAL_SERVICES: usize = 25;

/// Most services that are open at once.
pub const MOST_OPEN: usize = 20;

/// Servers of an open service in one answer.
pub const MOST_SERVERS: usize = 50;

/// Longest filter, in characters.
pub const LONGEST_FILTER: usize = 100;

/// Longest query, in bytes: as many open services as there may be, with long names.
pub const LONGEST_QUERY: usize = 16 * 1024;

/// The order of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Those with trouble first, then as configured.
    #[default]
    Trouble,
    /// As configured.
    Order,
    /// By name.
    Name,
    /// Most flows first.
    Flows,
    /// Most packets a second first.
    Packets,
}

impl Sort {
    const ALL: [(&'static str, Sort); 5] = [
        ("trouble", Sort::Trouble),
        ("order", Sort::Order),
        ("name", Sort::Name),
        ("flows", Sort::Flows),
        ("packets", Sort::Packets),
    ];
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Only what has this text somewhere; lower case.
    pub filter: String,
    /// Only services with trouble.
    pub trouble: bool,
    /// The order.
    pub sort: Sort,
    /// Which page of services, from 0.
    pub page: usize,
    /// Services in a page.
    pub size: usize,
    /// Names of services whose servers are wanted, and the number of the first one.
    pub open: Vec<(String, usize)>,
}

impl Default for Query {
    fn default() -> Query {
        Query {
            filter: String::new(),
            trouble: false,
            sort: Sort::Trouble,
            page: 0,
            size: USUAL_SERVICES,
            open: Vec::new(),
        }
    }
}

const KEYS: [&str; 7] = ["filter", "trouble", "sort", "page", "size", "open", "from"];

impl Query {
    /// Reads what stands behind the `?`.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn read(text: &str) -> Result<Query, String> {
        if text.len() > LONGEST_QUERY {
            return Err(format!("a query of {} bytes; at most {LONGEST_QUERY} are read", text.len()));
        }
        let mut query = Query::default();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*key {
                "filter" => {
                    if value.chars().count() > LONGEST_FILTER {
                        return Err(format!("`filter` has more than {LONGEST_FILTER} characters"));
                    }
                    query.filter = value.trim().to_lowercase();
                }
                "trouble" => {
                    query.trouble = match &*value {
                        "1" | "true" => true,
                        "0" | "false" | "" => false,
                        other => return Err(format!("`trouble` is {:?}; expected 1 or 0", cut(other))),
                    }
                }
                "sort" => query.sort = sort(&value)?,
                "page" => query.page = number("page", &value, 0, 1_000_000)?,
                "size" => query.size = number("size", &value, 1, MOST_SERVICES)?,
                "open" => {
                    if query.open.len() == MOST_OPEN {
                        return Err(format!("more than {MOST_OPEN} services are `open`"));
                    }
                    query.open.push((value.into_owned(), 0));
                }
                "from" => {
                    let from = number("from", &value, 0, 1_000_000)?;
                    let last = query.open.last_mut();
                    last.ok_or("`from` stands before any `open`; it belongs to the one before it")?.1 = from;
                }
                other => {
                    let near = nearest(other, KEYS).map(|word| format!("did you mean `{word}`? "));
                    let (shown, near) = (cut(other), near.unwrap_or_default());
                    return Err(format!("unknown key {shown:?}; {near}there are {}", KEYS.join(", ")));
                }
            }
        }
        Ok(query)
    }
}

fn sort(value: &str) -> Result<Sort, String> {
    let found = Sort::ALL.into_iter().find(|(name, _)| *name == value);
    found.map(|(_, sort)| sort).ok_or_else(|| {
        let all = Sort::ALL.map(|(name, _)| name).join(", ");
        format!("`sort` is {:?}; it is one of {all}", cut(value))
    })
}

fn number(key: &str, value: &str, least: usize, most: usize) -> Result<usize, String> {
    let read = value.parse::<usize>().ok().filter(|number| (least..=most).contains(number));
    read.ok_or_else(|| format!("`{key}` is {:?}; expected a number from {least} to {most}", cut(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_or_explained() {
        assert_eq!(Query::read(""), Ok(Query::default()));
        let text = "filter=Web+%C3%84&trouble=1&sort=flows&page=3&size=100&open=a%26b&from=50&open=tcp+%5B::1%5D:80";
        let wanted = Query {
            filter: "web ä".to_owned(),
            trouble: true,
            sort: Sort::Flows,
            page: 3,
            size: 100,
            open: vec![("a&b".to_owned(), 50), ("tcp [::1]:80".to_owned(), 0)],
        };
        assert_eq!(Query::read(text), Ok(wanted));
        let long = format!("filter={}", "x".repeat(LONGEST_FILTER + 1));
        let longer = format!("filter={}", "x".repeat(LONGEST_QUERY));
        let many = "open=a&".repeat(MOST_OPEN + 1);
        for (text, part) in [
            ("page=-1", "`page` is \"-1\"; expected a number from 0"),
            ("page=99999999999999999999", "expected a number"),
            ("size=0", "from 1 to 100"),
            ("size=101", "from 1 to 100"),
            ("size=", "from 1 to 100"),
            ("sort=up", "one of trouble, order, name"),
            ("trouble=perhaps", "expected 1 or 0"),
            ("from=1", "before any `open`"),
            ("open=a&from=x", "`from` is \"x\""),
            ("fliter=x", "did you mean `filter`?"),
            ("%ff%00=1", "unknown key"),
            (&long, "more than 100 characters"),
            (&longer, "at most 16384 are read"),
            (&many, "more than 20 services"),
        ] {
            let error = Query::read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
            assert!(error.len() < 300, "{} bytes", error.len());
        }
    }
}
