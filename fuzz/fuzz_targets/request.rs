//! Any bytes as a line on the control socket: a command, or a sentence that says what is wrong; and what an edit does to a
//! configuration's text.

#![no_main]

use evenkeel::control::config::parse;
use evenkeel::control::edit::{Document, Question, apply};
use evenkeel::control::socket::{Command, parse_request, roles};
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = r#"
[[interface]]
name = "eth0"

# The shop.
[[service]]
name = "web"
address = "192.0.2.10" # the old one
port = 80
server = [{ address = "10.0.0.11" }, { address = "10.0.0.12", weight = 2 }]

[[service]]
address = "2001:db8::1"
protocol = "udp"
port = "1000-2000"

[[service.server]]
address = "2001:db8::11"
"#;

/// Longest sentence about a mistake.
const LONGEST: usize = 4000;

fuzz_target!(|line: &[u8]| {
    let request = match parse_request(line) {
        Ok(request) => request,
        Err(why) => {
            assert!(!why.is_empty() && why.len() < 1000, "{} bytes of explanation", why.len());
            return;
        }
    };
    let _ = roles::needed(&request);
    if request.command != Command::Edit {
        return;
    }
    match Question::read(&request.options) {
        Err(why) => assert!(!why.is_empty() && why.len() < 1000, "{} bytes of explanation", why.len()),
        Ok(question) => {
            let mut document = Document::read(CONFIG).expect("is sound");
            match apply(&mut document, &question.edits) {
                Err(why) => assert!(!why.text.is_empty() && why.text.len() < LONGEST, "{} bytes", why.text.len()),
                Ok(text) => {
                    let _ = parse(&text, 0);
                    Document::read(&text).expect("is sound again");
                }
            }
        }
    }
});
