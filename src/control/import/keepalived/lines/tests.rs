//! Reading of lines: what keepalived.conf(5) says of each device, and what hostile files are answered with.

use super::*;

/// Reads files that are not there but here; the first is the one to import.
fn read_all(files: &[(&str, &str)], id: &str) -> Result<Vec<String>, String> {
    let bytes = |path: &Path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| "no such file".to_owned())
    };
    let list = |folder: &Path| {
        let names = files.iter().map(|(name, _)| Path::new(name)).filter(|path| path.parent() == Some(folder));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    };
    let lines =
        read(Path::new(files[0].0), id, Disk { read: &bytes, list: &list }).map_err(|error| error.to_string())?;
    Ok(lines.lines.into_iter().map(|line| format!("{} {}", line.at, line.text)).collect())
}

fn texts(text: &str) -> Vec<String> {
    let lines = read_all(&[("a", text)], "main").expect("sound");
    lines.into_iter().map(|line| line.split_once(' ').expect("a place").1.to_owned()).collect()
}

fn broken(text: &str) -> String {
    read_all(&[("a", text)], "main").expect_err("broken")
}

#[test]
fn comments_begin_anywhere_but_in_double_quotes() {
    assert_eq!(texts("! a\n # b\n  c d ! e\nf # g\n\n"), ["c d", "f"]);
    assert_eq!(texts("a \"b # c ! d\" # e\n"), ["a \"b # c ! d\""]);
    assert_eq!(texts("a\\#b \\!c\r\n"), ["a#b !c"]);
    assert!(broken("a\nb \"c\n").starts_with("a:2: a `\"` has no second one"), "{}", broken("b \"c"));
}

#[test]
fn a_line_goes_on_after_a_backslash() {
    assert_eq!(texts("a \\\n  b \\\nc\nd\n"), ["a b c", "d"]);
    assert_eq!(texts("a \\"), ["a"]);
}

#[test]
fn conditions_choose_the_lines_of_one_machine() {
    let text = "@main a\n@backup b\n@^main c\n@^backup d\n@main @^x e\n";
    assert_eq!(texts(text), ["a", "d", "e"]);
    let files = [("a", text)];
    assert_eq!(read_all(&files, "backup").expect("sound"), ["a:2 b", "a:3 c"]);
}

#[test]
fn definitions_are_put_in_where_they_are_used() {
    // The example of the manual.
    let text = "$ADDRESS_BASE=10.2.${ADDRESS_BASE_SUB}\n$ADDRESS_BASE_SUB=0\n${ADDRESS_BASE}.100/32\n\
                $ADDRESS_BASE_SUB=10\n${ADDRESS_BASE}.100/32\n";
    assert_eq!(texts(text), ["10.2.0.100/32", "10.2.10.100/32"]);
    assert_eq!(texts("$X=1\n$X\na $X b$X\n$Y c\n"), ["1", "a 1 b1", "$Y c"]);
    assert_eq!(texts("$IF=@main\n$IF a\n$IF=@x\n$IF b\n"), ["a"]);
    assert_eq!(texts("@main $P=240\n@x $P=200\npriority $P\n"), ["priority 240"]);
    assert_eq!(texts("${_INSTANCE} ${_HASH}\n"), ["main #"]);
}

#[test]
fn definitions_of_several_lines() {
    let text = "$I= \\\nvrrp_instance V${N} { \\\n  priority ${N} # one \\\n}\n$N=1\n$I\n$N=2\n$I\n";
    let one = |n: u32| [format!("vrrp_instance V{n} {{"), format!("priority {n}"), "}".to_owned()];
    assert_eq!(texts(text), [one(1), one(2)].concat());
    // One in the other, with definitions within.
    let text = "$RS=\\\nreal ${V}.${R}\n$VS=\\\nvirtual ${V} \\\n$R=1 \\\n$RS \\\n$R=2 \\\n$RS\n$V=7\n$VS\n";
    assert_eq!(texts(text), ["virtual 7", "real 7.1", "real 7.2"]);
}

#[test]
fn sequences_and_lists_repeat_their_line() {
    assert_eq!(texts("~SEQ(S, 0, 3) 10.0.${S}.1\n"), ["10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.3.1"]);
    assert_eq!(texts("~SEQx(S, 0x90, 0x10, 0xb0) x${S}\n"), ["x90", "xa0", "xb0"]);
    assert_eq!(texts("~SEQ(S, 3, -1, 1) ${S}\n"), ["3", "2", "1"]);
    let text = "~LST({A, B}, {10,1},{20,4}) ~SEQ(C,168,2,170) 192.${C}.${A}.${B}\n";
    assert_eq!(texts(text), ["192.168.10.1", "192.170.10.1", "192.168.20.4", "192.170.20.4"]);
    for bad in [
        "~SEQ(A, 1, 0, 5) x",
        "~SEQ(A, 5, 1, 1) x",
        "~SEQ(A",
        "~LST(A) x",
        "~LST({A,B},{1}) x",
        "~SEQ(A,1,9999999999) x",
    ] {
        assert!(broken(bad).starts_with("a:1: "), "{bad}");
    }
}

#[test]
fn included_files_are_looked_for_beside_the_one_that_includes_them() {
    let files = [
        ("/e/k.conf", "a\ninclude d/*.conf\nb\nincluder one\n"),
        ("/e/d/2.conf", "two\n"),
        ("/e/d/1.conf", "one\ninclude more/x\n"),
        ("/e/d/more/x", "x\n"),
        ("/e/one", "${_PWD}\n"),
    ];
    let lines = read_all(&files, "main").expect("sound");
    let expected =
        ["/e/k.conf:1 a", "/e/d/1.conf:1 one", "/e/d/more/x:1 x", "/e/d/2.conf:1 two", "/e/k.conf:3 b", "/e/one:1 /e"];
    assert_eq!(lines, expected);
}

#[test]
fn what_cannot_be_included_is_said_where_it_is_asked_for() {
    let loops = [("/a", "x\ninclude b\n"), ("/b", "\n\ninclude ./../a\n")];
    assert!(read_all(&loops, "m").expect_err("loop").starts_with("/b:3: `/a` includes itself"));
    assert!(broken("x\ninclude none\n").starts_with("a:2: `none` cannot be read: no such file"));
    assert!(broken("includea *.none\n").starts_with("a:1: no file matches"));
    assert_eq!(texts("include *.none\nb\n"), ["b"]);
}

#[test]
fn hostile_files_are_refused_with_their_line() {
    assert!(broken("a\n\0\n").starts_with("a:2: this is no text"));
    assert!(broken(&format!("a\n{}\n", "x".repeat(MOST_LINE + 1))).starts_with("a:2: the line has 65537 bytes"));
    assert!(broken(&"abcdefg \\\n".repeat(20_000)).starts_with("a:1: the line goes on"));
    assert!(broken(&"x\n".repeat(MOST_LINES + 1)).contains("more than 200000 lines"));
    assert!(broken("$A=$A\n$A\n").starts_with("a:2: definitions"));
    assert!(broken("$A=${A}${A}\n$A\n").starts_with("a:2: definitions"));
    assert!(broken("$A=\\\n$A \\\n$A\n$A\n").starts_with("a:4: definitions"));
    assert!(broken("~SEQ(A,1,9999) ~SEQ(B,1,9999) ${A}${B}\n").starts_with("a:1: "));
    assert!(broken(&"y\n".repeat(9 << 20)).contains("more than 16 MiB"));
}
