//! Any bytes as a line on the control socket: a command, or a sentence that says what is wrong.

#![no_main]

use evenkeel::control::socket::parse_request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    if let Err(why) = parse_request(line) {
        assert!(!why.is_empty() && why.len() < 1000, "{} bytes of explanation", why.len());
    }
});
