//! What all dialogues have in common: how foreign bytes are shown.

use super::*;

#[test]
fn foreign_bytes_are_shown_in_one_short_line() {
    assert_eq!(shown(b"hello\r\n"), "`hello`");
    assert_eq!(shown(b""), "nothing");
    assert_eq!(shown(b"\0\x01"), "hex 00 01");
    assert_eq!(shown(b"\r\n"), "hex 0d 0a");
    assert_eq!(shown(&[b'x'; 100]), format!("`{}...`", "x".repeat(60)));
    assert_eq!(shown(&[0; 100]), format!("hex{}...", " 00".repeat(20)));
    assert_eq!(line("a\r\nb\u{1b}[31m"), "a  b [31m");
    assert_eq!(line(&"y".repeat(61)), format!("{}...", "y".repeat(60)));
}
