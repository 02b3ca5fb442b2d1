//! Any bytes as a frame: nothing read past the end, and the short way of the parser agrees with the long one.

#![no_main]

use evenkeel::dataplane::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let parsed = parse::parse(frame);
    if let Some(plain) = parse::parse_plain_v4(frame) {
        assert_eq!(parsed, Ok(plain));
    }
    let _ = parse::destination(frame);
    if let Ok(parsed) = parsed {
        assert!(usize::from(parsed.l4) + usize::from(parsed.l4_len) <= frame.len(), "{parsed:?}");
        let _ = parse::verify_transport(frame, &parsed);
    }
});
