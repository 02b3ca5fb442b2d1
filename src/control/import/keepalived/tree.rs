//! keepalived's lines as statements: words, and blocks in braces.
//!
//! Follows `read_line` and `alloc_strvec_quoted_escaped` of keepalived's lib/parser.c: a brace ends a line wherever it stands
//! outside of double quotes. Owns what is a word and what is a block, and what became of each statement. Pure.

use std::cell::Cell;

use super::lines::Line;
use crate::control::import::report::{Broken, Place};

/// Most blocks one in the other. keepalived's own language has four.
const DEEPEST: usize = 20;

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody has looked at it.
    Unseen,
    /// The new file says it.
    Taken,
    /// The report says why the new file does not.
    Reported,
}

/// A keyword with its words, and its block.
#[derive(Debug)]
pub struct Statement {
    /// The words, the keyword first.
    pub words: Vec<String>,
    /// Where it is.
    pub at: Place,
    /// What is in its braces, where it has some.
    pub block: Option<Vec<Statement>>,
    fate: Cell<Fate>,
}

impl Statement {
    fn new(words: Vec<String>, at: &Place) -> Statement {
        Statement { words, at: at.clone(), block: None, fate: Cell::new(Fate::Unseen) }
    }

    /// Its keyword.
    pub fn keyword(&self) -> &str {
        self.word(0)
    }

    /// A word; empty where there is none.
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// The words behind the keyword.
    pub fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The statements of its block.
    pub fn inner(&self) -> &[Statement] {
        self.block.as_deref().unwrap_or_default()
    }

    /// What became of it.
    pub fn fate(&self) -> Fate {
        self.fate.get()
    }

    /// The new file says it.
    pub fn taken(&self) {
        if self.fate.get() == Fate::Unseen {
            self.fate.set(Fate::Taken);
        }
    }

    /// The report says why the new file does not say it, nor what is in its block.
    pub fn reported(&self) {
        self.fate.set(Fate::Reported);
        self.inner().iter().filter(|inner| inner.fate() == Fate::Unseen).for_each(Statement::reported);
    }

    /// It as it is written, on one line.
    pub fn written(&self) -> String {
        self.words.join(" ")
    }

    /// It and all statements in its block.
    pub fn each(&self, look: &mut dyn FnMut(&Statement)) {
        look(self);
        self.inner().iter().for_each(|inner| inner.each(look));
    }
}

/// Makes statements of lines.
pub fn parse(lines: &[Line]) -> Result<Vec<Statement>, Broken> {
    let mut open: Vec<Vec<Statement>> = vec![Vec::new()];
    for line in lines {
        for token in tokens(&line.text) {
            match token {
                "{" => {
                    if open.len() > DEEPEST {
                        let text = format!("more than {DEEPEST} blocks are one in the other");
                        return Err(Broken::new(
                            &line.at,
                            text,
                            "keepalived has no such block: look for a missing `}`",
                        ));
                    }
                    let owner = open.last().and_then(|list| list.last());
                    if owner.is_none_or(|owner| owner.block.is_some()) {
                        let help = "write the keyword of the block before it";
                        return Err(Broken::new(&line.at, "there is a `{` without a keyword", help));
                    }
                    open.push(Vec::new());
                }
                "}" => {
                    let block = open.pop().unwrap_or_default();
                    let Some(owner) = open.last_mut().and_then(|list| list.last_mut()) else {
                        let help = "remove it, or look for a missing `{` above";
                        return Err(Broken::new(&line.at, "there is a `}` without a `{`", help));
                    };
                    owner.block = Some(block);
                }
                text => {
                    let words = words(text).map_err(|message| Broken::new(&line.at, message, "close the quotes"))?;
                    if let (Some(list), false) = (open.last_mut(), words.is_empty()) {
                        list.push(Statement::new(words, &line.at));
                    }
                }
            }
        }
    }
    let whole = open.len() == 1;
    // The outermost one that is not closed: what is in it may be sound.
    let unclosed = open.first().and_then(|list| list.last()).filter(|_| !whole);
    if let Some(unclosed) = unclosed {
        let text = format!("the block of `{}` has no `}}`", unclosed.written());
        return Err(Broken::new(&unclosed.at, text, "close it; the missing `}` may be that of a block within it"));
    }
    Ok(open.pop().unwrap_or_default())
}

/// The parts of a line: each brace, and what is between them.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '{' | '}' if !quoted => {
                found.extend([&text[start..at], &text[at..=at]]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found.retain(|part| !part.trim().is_empty());
    found.iter_mut().for_each(|part| *part = part.trim());
    found
}

/// The words of a text: quotes hold blanks together and go, and a backslash takes what follows as it is, or as a shell does.
pub fn words(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(found);
        }
        let mut word = String::new();
        let mut quote: Option<char> = None;
        while let Some(c) = chars.next_if(|c| quote.is_some() || !c.is_whitespace()) {
            match c {
                '\\' => {
                    if let Some(escaped) = chars.next() {
                        escape(escaped, &mut chars, &mut word);
                    }
                }
                c if quote == Some(c) => quote = None,
                '"' | '\'' if quote.is_none() => quote = Some(c),
                c => word.push(c),
            }
        }
        if let Some(quote) = quote {
            return Err(format!("a `{quote}` has no second one on its line"));
        }
        found.push(word);
    }
}

fn escape(c: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>, word: &mut String) {
    let mut digits = |most: usize, radix: u32, first: Option<char>| {
        let mut text: String = first.into_iter().collect();
        while text.len() < most
            && let Some(digit) = rest.next_if(|c| c.is_digit(radix))
        {
            text.push(digit);
        }
        u32::from_str_radix(&text, radix).ok().map(|code| char::from((code & 0xff) as u8))
    };
    match c {
        'a' => word.push('\u{7}'),
        'b' => word.push('\u{8}'),
        'E' => word.push('\u{1b}'),
        'f' => word.push('\u{c}'),
        'n' => word.push('\n'),
        'r' => word.push('\r'),
        't' => word.push('\t'),
        'v' => word.push('\u{b}'),
        'x' => word.extend(digits(8, 16, None)),
        '0'..='7' => word.extend(digits(3, 8, Some(c))),
        c => word.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(statements: &[Statement]) -> String {
        let one = |statement: &Statement| match &statement.block {
            Some(block) => format!("{}@{}[{}]", statement.written(), statement.at.line, shown(block)),
            None => format!("{}@{}", statement.written(), statement.at.line),
        };
        statements.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn tree(text: &str) -> Result<String, String> {
        let line = |(index, text): (usize, &str)| Line { text: text.to_owned(), at: Place::new("a", index + 1) };
        let lines: Vec<Line> = text.lines().enumerate().map(line).collect();
        parse(&lines).map(|found| shown(&found)).map_err(|error| error.to_string())
    }

    #[test]
    fn braces_may_stand_anywhere() {
        for text in ["a b {\nc {\nd\n}\n}", "a b\n{\nc\n{\nd\n}\n}"] {
            let found = tree(text).expect("sound").replace(|c: char| c == '@' || c.is_ascii_digit(), "");
            assert_eq!(found, "a b[c[d]]", "{text}");
        }
        assert_eq!(tree("a{b{c d}}e"), Ok("a@1[b@1[c d@1[]]] e@1".replace("[]", "")));
        assert_eq!(tree("a {\n}\nb \"{\" c"), Ok("a@1[] b { c@3".to_owned()));
    }

    #[test]
    fn words_are_quoted_as_in_keepalived() {
        let of = |text: &str| words(text).expect("sound");
        assert_eq!(of("abcd\" efg h jkl \"mnop"), ["abcd efg h jkl mnop"]);
        assert_eq!(of("abcd \"efg h jkl\" mnop"), ["abcd", "efg h jkl", "mnop"]);
        assert_eq!(of("'a \"b' \"c 'd\" \"\""), ["a \"b", "c 'd", ""]);
        assert_eq!(of(r#"a\ b \"c \x41\102\n"#), ["a b", "\"c", "AB\n"]);
        assert_eq!(of("a\\"), ["a"]);
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn wrong_braces_have_their_line() {
        assert!(tree("a {\nb {\n}\n").expect_err("open").starts_with("a:1: the block of `a` has no `}`"));
        assert!(tree("a {\n}\n}\n").expect_err("closed").starts_with("a:3: there is a `}` without"));
        assert!(tree("{\n}\n").expect_err("alone").starts_with("a:1: there is a `{` without"));
        assert!(tree("a {\n} {\n").expect_err("twice").starts_with("a:2: there is a `{` without"));
        assert!(tree(&"a {\n".repeat(100_000)).expect_err("deep").starts_with("a:21: more than 20 blocks"));
    }
}
