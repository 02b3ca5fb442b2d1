//! What the real ipvsadm said to each of some hundred command lines is said here, too.

use std::net::Ipv4Addr;

use super::*;

fn lookup() -> Lookup<'static> {
    Lookup {
        host: &|name| (name == "localhost").then_some(Ipv4Addr::LOCALHOST),
        port: &|name, protocol| match (name, protocol) {
            ("http", Protocol::Tcp) => Some(80),
            ("domain", _) => Some(53),
            _ => None,
        },
    }
}

fn read(line: &str) -> Result<Asked, Stop> {
    let args = line.split_whitespace().map(|word| word.trim_matches('"').to_owned());
    Asked::read(&args.collect::<Vec<String>>(), &lookup())
}

/// A call of the real one: its arguments, exit code, and what it wrote to standard error.
struct Call<'t> {
    line: &'t str,
    code: u8,
    error: String,
    has_input: bool,
}

fn calls(text: &str) -> Vec<Call<'_>> {
    let mut all: Vec<Call<'_>> = Vec::new();
    for line in text.lines() {
        let rest = line.get(1..).unwrap_or_default().trim_start_matches(' ');
        match (line.chars().next(), all.last_mut()) {
            (Some('$'), _) => all.push(Call { line: rest, code: 0, error: String::new(), has_input: false }),
            (Some('>'), Some(call)) => call.has_input = true,
            (Some('='), Some(call)) => call.code = rest.parse().expect("a code"),
            (Some('!'), Some(call)) => {
                call.error.push_str(rest);
                call.error.push('\n');
            }
            _ => panic!("{line}"),
        }
    }
    all
}

/// What the kernel, not the program, says no to: here the engine does.
const OF_THE_KERNEL: [&str; 9] = [
    "Scheduler or persistence engine not found",
    "Service already exists",
    "No such service",
    "Service not defined",
    "Destination already exists",
    "No such destination",
    "Numerical result out of range",
    "No daemon is running",
    "Invalid operation.  Possibly wrong module version, address not unicast, ...",
];

#[test]
fn the_real_one_says_the_same_to_every_line() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ipvsadm/explored.txt");
    let text = std::fs::read_to_string(path).expect("reads");
    let (mut refused, mut taken) = (0, 0);
    for call in calls(&text) {
        if call.has_input || call.line.is_empty() {
            continue;
        }
        let error = call.error.trim_end_matches('\n');
        let read = read(call.line);
        // Weights have 16 bits here, and flags that mean nothing to a scheduler are refused.
        if ["-a -t 192.0.2.11:80 -r 10.0.0.7 -w 65536", "-A -t 192.0.2.37:80 -s rr -b flag-1"].contains(&call.line) {
            assert_eq!(read.map_err(|stop| stop.code).err(), Some(2), "{}", call.line);
            continue;
        }
        if call.code == 0 || OF_THE_KERNEL.contains(&error) {
            assert!(read.is_ok(), "{}: {read:?}", call.line);
            taken += 1;
        } else {
            let stop = read.expect_err(call.line);
            assert_eq!((stop.code, stop.text.trim_end_matches('\n')), (call.code, error), "{}", call.line);
            refused += 1;
        }
    }
    assert!(refused > 100 && taken > 100, "{refused} refused, {taken} taken");
}

#[test]
fn what_was_asked_is_understood() {
    let asked = read("-A -u 192.0.2.3:80 -p -s sh -b sh-port -o -M 255.255.0.0").expect("is read");
    assert_eq!(asked.command, Command::Add);
    assert_eq!(asked.service, Some(Target::Address(Protocol::Udp, IpAddr::from([192, 0, 2, 3]), 80)));
    assert_eq!((asked.persistent, asked.one_packet), (Some(PERSISTENT), true));
    assert_eq!(asked.mask, Some(Mask::V4(Ipv4Addr::new(255, 255, 0, 0))));
    assert_eq!((asked.scheduler.as_str(), asked.flags), ("sh", vec!["sh-port"]));
    // Only NAT has a port of its own.
    for (line, port) in [("-g", 80), ("-i", 80), ("-m", 8080)] {
        let asked = read(&format!("-a -t 192.0.2.3:80 -r 10.0.0.1:8080 {line}")).expect("is read");
        assert_eq!(asked.server, Some((IpAddr::from([10, 0, 0, 1]), port)), "{line}");
    }
    let asked = read("-a -t 192.0.2.3:80 -r 10.0.0.1 -m").expect("is read");
    assert_eq!((asked.server.map(|server| server.1), asked.weight), (Some(80), 1));
    // A mask before an IPv6 address was read as one of IPv4, and is forgotten.
    let v6 = |line: &str| read(line).expect("is read").mask;
    assert_eq!(v6("-A -t [2001:db8::6]:443 -M 64 -p"), Some(Mask::V6(64)));
    assert_eq!(v6("-A -M 64 -t [2001:db8::7]:443 -p"), None);
    assert_eq!(read("--set 0 7 0").expect("is read").timeouts, [0, 7, 0]);
    let asked = read("-Ln --stats --exact").expect("is read");
    assert!(asked.has(Tag::Numeric) && asked.has(Tag::Stats) && asked.has(Tag::Exact) && !asked.has(Tag::Rate));
}
