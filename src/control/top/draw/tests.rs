//! Frames as they are on a screen of 80 columns and 24 lines, and on others.

use std::time::Duration;

use super::super::sample::tests::status;
use super::super::sample::{Sample, take};
use super::*;
use crate::vrrp::status::{RouterStatus, VrrpStatus};

fn sample() -> Sample {
    let mut now = status(3605);
    now.config.file = "lb.toml".to_owned();
    now.config.generation = 3;
    now.warnings = vec!["server 10.0.0.13 is UNREACHABLE: no route to it".to_owned(), "a \u{1b}[2Jtrick".to_owned()];
    let router = RouterStatus { name: "VI_1".to_owned(), state: "MASTER".to_owned(), ..RouterStatus::default() };
    now.vrrp = Some(VrrpStatus { routers: vec![router], ..VrrpStatus::default() });
    take(Some((&status(3604), Duration::from_secs(1))), &now)
}

fn around() -> Around {
    Around { every: 1.0, trouble: None }
}

fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<Line> {
    frame(screen, &sample(), &around(), width, height)
}

fn text_of(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
}

#[test]
fn a_serial_console_shows_it_all() {
    let lines = drawn(&mut Screen::default(), 80, 24);
    let expected = "\
evenkeel 0.1.0, up 1 h 0 min, generation 3, every 1 s  lb.toml
load   0:25%
flows  403 of 1000000, IPv6 0 of 0, 7 unproven, 10 new/s
in     1003 packets/s, 512k bit/s   out 500 packets/s, 0 bit/s   drops 4/s
vrrp   VI_1 MASTER
warning (5 shows 1 more): server 10.0.0.13 is UNREACHABLE: no route to it
service / server          state        weight active  inact  new/s   in/s  out/s
web  tcp 192.0.2.10:80    up              1/2     24      6     10   1003    500
  10.0.0.11:8080          UP                2     12      3     10   1000    500
  10.0.0.12:8080          DOWN              0     12      3      0      3      0
mail  tcp 192.0.2.10:80   NO SERVER       0/1     12      3      0      0      0
  10.0.0.13:8080          DOWN              0     12      3      0      0      0











services: 5  order: file   q quit  Tab list  s order  / filter  ? help
";
    let text = text_of(&lines);
    assert!(text == expected, "{text}");
    assert_eq!(lines.len(), 24);
    assert!(lines.iter().all(|line| line.text.chars().count() <= 80 && line.text.is_ascii()));
    let looks: Vec<Look> = lines[6..12].iter().map(|line| line.look).collect();
    assert_eq!(looks, [Look::Bar, Look::Strong, Look::Plain, Look::Bad, Look::Bad, Look::Bad]);
    assert!(lines[7].chosen && lines.iter().filter(|line| line.chosen).count() == 1);
}

#[test]
fn every_size_is_filled_and_not_overrun() {
    for (width, height) in [(40, 8), (79, 9), (100, 30), (200, 12), (500, 100)] {
        for view in View::ALL {
            for help in [false, true] {
                let lines = drawn(&mut Screen { view, help, line: 3, ..Screen::default() }, width, height);
                assert_eq!(lines.len(), usize::from(height), "{width}x{height} {view:?}");
                let widest = lines.iter().map(|line| line.text.chars().count()).max();
                assert!(widest <= Some(usize::from(width)), "{width}x{height} {view:?}: {widest:?}");
            }
        }
    }
    for (width, height) in [(0, 0), (1, 1), (39, 24), (80, 7)] {
        let lines = drawn(&mut Screen::default(), width, height);
        assert!(lines.len() == 1 && lines[0].text.chars().count() <= usize::from(width), "{width}x{height}");
    }
}

#[test]
fn a_wide_screen_has_bits_and_names() {
    let text = text_of(&drawn(&mut Screen::default(), 120, 24));
    assert!(text.contains("web  tcp 192.0.2.10:80  wlc ") && text.contains("in bit/s"), "{text}");
    assert!(text.contains("     512k         0\n"), "{text}");
}

#[test]
fn the_chosen_line_stays_on_a_small_screen() {
    let mut screen = Screen { line: 4, ..Screen::default() };
    let lines = drawn(&mut screen, 80, 10);
    assert_eq!((screen.line, screen.top), (4, 3));
    let chosen: Vec<&str> = lines.iter().filter(|line| line.chosen).map(|line| line.text.trim()).collect();
    assert!(chosen.len() == 1 && chosen[0].starts_with("10.0.0.13:8080"), "{chosen:?}");
}

#[test]
fn every_list_and_no_trick_of_a_terminal() {
    let shows = |view, part: &str| {
        let text = text_of(&drawn(&mut Screen { view, ..Screen::default() }, 100, 24));
        assert!(text.contains(part), "{view:?}: {text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    };
    shows(View::Workers, "\n     0    0   25%        2000       0         1003       0         0    403      0\n");
    shows(View::Drops, "\nloop                        4        14421  The frame was sent by the appliance itself");
    shows(View::Routers, "VI_1");
    shows(View::Warnings, "\na  [2Jtrick\n");
}

#[test]
fn trouble_filter_and_pause_are_said() {
    let mut screen = Screen { typing: true, filter: "web".to_owned(), ..Screen::default() };
    let around = Around { every: 0.5, trouble: Some("no engine is running".to_owned()) };
    let text = text_of(&frame(&mut screen, &sample(), &around, 80, 24));
    assert!(text.contains("\nno answer: no engine is running\n"), "{text}");
    assert!(text.ends_with("filter: web_   Enter takes it, Esc leaves it\n"), "{text}");
    screen = Screen { paused: true, ..screen };
    screen.typing = false;
    let text = text_of(&frame(&mut screen, &sample(), &around, 80, 24));
    assert!(text.contains("every 0.5 s, PAUSED") && text.contains("services: 3  order: file  only `web`"), "{text}");
}

#[test]
fn once_has_every_list() {
    let text = text(&sample(), &around(), 80);
    for part in ["\nservice / server ", "\nworker core ", "\ndropped ", "\nrouter ", "\nwarnings\n"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert!(super::text(&Sample::default(), &around(), 80).starts_with("evenkeel , up 0 s"));
}

#[test]
fn numbers_are_short() {
    for (number, expected) in [
        (0.0, "0"),
        (0.4, "0.4"),
        (9.94, "9.9"),
        (12.0, "12"),
        (9999.0, "9999"),
        (10_000.0, "10.0k"),
        (99_940.0, "99.9k"),
        (123_456.0, "123k"),
        (999_400.0, "999k"),
        (999_600.0, "1.0M"),
        (12_345_678_901.0, "12.3G"),
        (1e20, "100000P"),
    ] {
        assert_eq!(short(number), expected);
    }
}
