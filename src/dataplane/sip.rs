//! The Call-ID of a SIP message over UDP, as IPVS's persistence engine `sip` finds it. Pure.
//!
//! Owns the rules of `ip_vs_pe_sip.c` and of `ct_sip_get_header` in `nf_conntrack_sip.c`, which it asks: any first line, then
//! header lines that end with CR, LF or both; the names `Call-ID` and `i` in any case; blanks and continuation lines around the
//! colon. Looks at a payload once, from its start to the header.

/// Longest Call-ID (`IP_VS_PEDATA_MAXLEN`).
pub const LONGEST: usize = 255;

/// The Call-ID of a message; `None` where it has none that could be told.
pub fn call_id(message: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    while let Some(end) = message.get(at..)?.iter().position(|byte| is_line_end(*byte)) {
        at = after_line_end(message, at + end);
        let line = message.get(at..)?;
        let Some(name) = header_name(line) else { continue };
        at = skip_blanks(message, at + name)?;
        if message.get(at) != Some(&b':') {
            return None;
        }
        at = skip_blanks(message, at + 1)?;
        let value = message.get(at..)?;
        let length = value_length(value);
        // One that cannot be read is passed over, and the next one looked for.
        if length == 0 {
            continue;
        }
        let ends = value.get(length).copied().is_some_and(is_line_end);
        return value.get(..length).filter(|_| ends && length <= LONGEST);
    }
    None
}

const fn is_line_end(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

/// Where the line after the line end at `at` begins.
fn after_line_end(message: &[u8], at: usize) -> usize {
    let pair = message.get(at..at + 2) == Some(b"\r\n");
    at + if pair { 2 } else { 1 }
}

/// Length of the header's name, where a line begins with it. A line that begins with a blank goes on with the one before.
fn header_name(line: &[u8]) -> Option<usize> {
    const LONG: &[u8] = b"call-id";
    if line.get(..LONG.len()).is_some_and(|name| name.eq_ignore_ascii_case(LONG)) {
        return Some(LONG.len());
    }
    // The short name must not be the beginning of another one.
    match line {
        [b'i' | b'I', next, ..] if !next.is_ascii_alphabetic() => Some(1),
        _ => None,
    }
}

/// Skips blanks and line ends that a blank follows; `None` at the end of the header or of the message.
fn skip_blanks(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            b' ' => at += 1,
            byte if is_line_end(byte) => {
                at = after_line_end(message, at);
                if !matches!(message.get(at)?, b' ' | b'\t') {
                    return None;
                }
                while matches!(message.get(at)?, b' ' | b'\t') {
                    at += 1;
                }
            }
            _ => return Some(at),
        }
    }
}

/// Length of `word` or `word@word`; 0 where there is neither.
fn value_length(value: &[u8]) -> usize {
    let word = |bytes: &[u8]| bytes.iter().position(|byte| !is_word(*byte)).unwrap_or(bytes.len());
    let first = word(value);
    if first == 0 || value.get(first) != Some(&b'@') {
        return first;
    }
    match word(value.get(first + 1..).unwrap_or_default()) {
        0 => 0,
        second => first + 1 + second,
    }
}

/// The characters of a word (RFC 3261, section 25.1; `iswordc`).
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'(' ..= b'/' | b'[' ..= b']')
        || matches!(byte, b'!' | b'"' | b'%' | b':' | b'<' | b'>' | b'?' | b'_' | b'`' | b'{' | b'}' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invite(header: &str) -> Vec<u8> {
        format!("INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z\r\nMax-Forwards: 70\r\n{header}\r\nCSeq: 1 INVITE\r\n\r\n")
            .into_bytes()
    }

    #[test]
    fn call_ids_are_found_as_ipvs_finds_them() {
        let rows: &[(&str, Option<&str>)] = &[
            ("Call-ID: a84b4c76e66710@pc33.example.com", Some("a84b4c76e66710@pc33.example.com")),
            ("call-id:x", Some("x")),
            ("CALL-ID :  x@y", Some("x@y")),
            ("i: short", Some("short")),
            ("I:short", Some("short")),
            ("i : short", Some("short")),
            ("Call-ID:\r\n  folded@host", Some("folded@host")),
            ("Call-ID\r\n\t: folded", Some("folded")),
            ("Call-ID: !\"%()*+,-./:<>?[\\]_`{}~", Some("!\"%()*+,-./:<>?[\\]_`{}~")),
            // Another header, or none.
            ("Info: x", None),
            ("X-Call-ID: x", None),
            (" Call-ID: x", None),
            ("Call-ID x", None),
            // Something that is not a word behind it, nothing before or behind the `@`.
            ("Call-ID: a b", None),
            ("Call-ID: a@b@c", None),
            ("Call-ID: a;b", None),
            ("Call-ID: a@", None),
            ("Call-ID: @b", None),
            ("Call-ID: ", None),
            // One that cannot be read is passed over.
            ("Call-ID: @b\r\nCall-ID: c", Some("c")),
        ];
        for (header, expected) in rows {
            assert_eq!(call_id(&invite(header)), expected.map(str::as_bytes), "{header:?}");
        }
    }

    #[test]
    fn lines_may_end_with_any_of_the_three() {
        for end in ["\r\n", "\n", "\r"] {
            let message = ["SIP/2.0 200 OK", "Call-ID: abc@d", ""].join(end);
            assert_eq!(call_id(message.as_bytes()), Some(&b"abc@d"[..]), "{end:?}");
        }
        // A header is behind a first line, and before another line.
        assert_eq!(call_id(b"Call-ID: abc\r\n"), None);
        assert_eq!(call_id(b"SIP/2.0 200 OK\r\nCall-ID: abc"), None);
        assert_eq!(call_id(b"SIP/2.0 200 OK\r\nCall-ID"), None);
        assert_eq!(call_id(b""), None);
        assert_eq!(call_id(b"\r\n\r\n"), None);
    }

    #[test]
    fn what_is_too_long_is_none() {
        assert_eq!(call_id(&invite(&format!("i: {}", "x".repeat(LONGEST)))).map(<[u8]>::len), Some(LONGEST));
        assert_eq!(call_id(&invite(&format!("i: {}", "x".repeat(LONGEST + 1)))), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'i'), Just(b':'), Just(b'@')], 0..300)) {
            if let Some(found) = call_id(&bytes) {
                prop_assert!(!found.is_empty() && found.len() <= LONGEST);
                prop_assert!(found.iter().all(|byte| is_word(*byte) || *byte == b'@'));
            }
        }

        #[test]
        fn a_call_id_is_found_between_any_headers(
            id in "[a-zA-Z0-9.-]{1,40}(@[a-z0-9.]{1,30})?",
            before in "([A-HJ-Z][a-z]{1,9}: [ -~]{0,30}\r\n){0,8}",
            name in "[cC][aA][lL][lL]-[iI][dD]|[iI]",
        ) {
            let message = format!("BYE sip:x SIP/2.0\r\n{before}{name}: {id}\r\nTo: y\r\n\r\n");
            prop_assert_eq!(call_id(message.as_bytes()), Some(id.as_bytes()));
        }
    }
}
