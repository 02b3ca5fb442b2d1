//! A line that shows how far long work is, for who waits at a terminal.
//!
//! Owns where and how it is drawn: on standard error, never where that is no terminal, and not before the work lasts. Never
//! does the work.

use std::io::{IsTerminal as _, stdout};

use indicatif::{ProgressBar, ProgressStyle};

/// Of work that counts up to nobody knows where: `12,345 flows in 3s`. `quiet`: nothing else is written meanwhile; else the line
/// is there only when standard output goes elsewhere.
pub fn counting(what: &str, quiet: bool) -> ProgressBar {
    drawn(ProgressBar::no_length(), quiet, &format!("{{human_pos}} {what} in {{elapsed}}"))
}

/// Of work whose end is known: `40 % of 1,000,000 frames, 2s left`.
pub fn towards(length: usize, what: &str, quiet: bool) -> ProgressBar {
    drawn(ProgressBar::new(length as u64), quiet, &format!("{{percent}} % of {{human_len}} {what}, {{eta}} left"))
}

fn drawn(bar: ProgressBar, quiet: bool, template: &str) -> ProgressBar {
    if !quiet && stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => ProgressBar::hidden(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_the_numbers() {
        for bar in [counting("flows", true), towards(1000, "frames", true)] {
            // Tests have no terminal, so nothing is drawn; the template was understood all the same.
            bar.inc(400);
            assert_eq!(bar.position(), 400);
            bar.finish_and_clear();
        }
        assert_eq!(towards(1000, "frames", true).length(), Some(1000));
    }
}
