//! The text formats of Prometheus: 0.0.4, and OpenMetrics 1.0.0.
//!
//! Owns the writing of families, samples and their escapes. Never decides what is measured. Pure.

use std::fmt::Write as _;

/// What sort of number a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and begins again at zero with the process. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    /// Its name in both formats.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// Which format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text format 0.0.4, which every scraper reads.
    Plain,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a client wants by its `Accept`. OpenMetrics only where it is named, and not refused by `q=0`.
    pub fn wanted(accept: &str) -> Format {
        let is_wanted = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
            named && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        if accept.split(',').any(is_wanted) { Format::OpenMetrics } else { Format::Plain }
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// Anything else.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<u32> for Number {
    fn from(value: u32) -> Number {
        Number::Whole(value.into())
    }
}

impl From<u16> for Number {
    fn from(value: u16) -> Number {
        Number::Whole(value.into())
    }
}

impl From<u8> for Number {
    fn from(value: u8) -> Number {
        Number::Whole(value.into())
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Number {
        Number::Whole(value as u64)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Number {
        Number::Whole(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Real(value)
    }
}

/// Appends a label's value as it stands between its quotes.
pub fn escape(out: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// Labels without their braces: `service="web",server="10.0.0.11:80"`.
pub fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
    for (name, value) in pairs {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(name);
        out.push_str("=\"");
        escape(&mut out, value);
        out.push('"');
    }
    out
}

/// A body that is written.
#[derive(Debug)]
pub struct Text {
    out: String,
    format: Format,
}

impl Text {
    /// An empty one, with room for about so many bytes.
    pub fn new(format: Format, room: usize) -> Text {
        Text { out: String::with_capacity(room), format }
    }

    /// Begins a family. Its samples must follow, and those of no other may come between.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        // OpenMetrics names a counter without the ending of its samples.
        let named = match self.format {
            Format::OpenMetrics if kind == Kind::Counter => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let _ = write!(self.out, "# HELP {named} ");
        for letter in help.chars() {
            match letter {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '"' if self.format == Format::OpenMetrics => self.out.push_str("\\\""),
                other => self.out.push(other),
            }
        }
        let _ = writeln!(self.out, "\n# TYPE {named} {}", kind.name());
    }

    /// The samples of something in the family that was begun last.
    pub fn of<'t>(&'t mut self, name: &'t str, labels: &'t str) -> Samples<'t> {
        Samples { out: &mut self.out, name, labels }
    }

    /// The body.
    pub fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// Where the samples of one thing go.
#[derive(Debug)]
pub struct Samples<'t> {
    out: &'t mut String,
    name: &'t str,
    labels: &'t str,
}

impl Samples<'_> {
    /// A sample without further labels.
    pub fn put(&mut self, value: impl Into<Number>) {
        self.out.push_str(self.name);
        if !self.labels.is_empty() {
            self.out.push('{');
            self.out.push_str(self.labels);
            self.out.push('}');
        }
        self.number(value.into());
    }

    /// A sample with further labels.
    pub fn with(&mut self, further: &[(&str, &str)], value: impl Into<Number>) {
        self.out.push_str(self.name);
        self.out.push('{');
        self.out.push_str(self.labels);
        let mut comma = !self.labels.is_empty();
        for (name, text) in further {
            if comma {
                self.out.push(',');
            }
            comma = true;
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(self.out, text);
            self.out.push('"');
        }
        self.out.push('}');
        self.number(value.into());
    }

    fn number(&mut self, value: Number) {
        let _ = match value {
            Number::Whole(value) => writeln!(self.out, " {value}"),
            Number::Real(value) if value.is_nan() => writeln!(self.out, " NaN"),
            Number::Real(value) if value.is_infinite() => {
                writeln!(self.out, " {}Inf", if value > 0.0 { '+' } else { '-' })
            }
            Number::Real(value) => writeln!(self.out, " {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_by_their_letters() {
        let body = |format| {
            let mut text = Text::new(format, 0);
            text.family("a_total", Kind::Counter, "What \"it\" is\\was.\nMore.");
            text.of("a_total", &labels(&[("n", "a\\b\"c\nd{}é")])).put(u64::MAX);
            text.of("a_total", "").with(&[("r", "x")], 1_u8);
            text.family("b", Kind::Gauge, "Share.");
            text.of("b", "").put(0.25);
            text.of("b", "k=\"v\"").with(&[("x", "1"), ("y", "2")], f64::NAN);
            text.of("b", "k=\"w\"").put(f64::NEG_INFINITY);
            text.end()
        };
        let samples = "a_total{n=\"a\\\\b\\\"c\\nd{}é\"} 18446744073709551615\na_total{r=\"x\"} 1\n";
        let gauge = "# HELP b Share.\n# TYPE b gauge\nb 0.25\nb{k=\"v\",x=\"1\",y=\"2\"} NaN\nb{k=\"w\"} -Inf\n";
        assert_eq!(
            body(Format::Plain),
            format!("# HELP a_total What \"it\" is\\\\was.\\nMore.\n# TYPE a_total counter\n{samples}{gauge}")
        );
        assert_eq!(
            body(Format::OpenMetrics),
            format!("# HELP a What \\\"it\\\" is\\\\was.\\nMore.\n# TYPE a counter\n{samples}{gauge}# EOF\n")
        );
    }

    #[test]
    fn openmetrics_only_for_those_who_ask() {
        for (accept, wanted) in [
            ("", Format::Plain),
            ("*/*", Format::Plain),
            ("text/plain;version=0.0.4", Format::Plain),
            ("application/openmetrics-text; version=1.0.0", Format::OpenMetrics),
            ("text/plain;q=0.5, Application/OpenMetrics-Text;version=1.0.0;q=0.6,*/*;q=0.1", Format::OpenMetrics),
            ("application/openmetrics-text;q=0, text/plain", Format::Plain),
            ("application/openmetrics-textual", Format::Plain),
        ] {
            assert_eq!(Format::wanted(accept), wanted, "{accept}");
        }
    }
}
