//! What the control socket is answered about captures; frames come in tests of the worker and of a lab.

use super::*;
use crate::dataplane::capture::{Decision, Wanted};
use crate::dataplane::query::Prefix;
use crate::dataplane::verdict::DropReason;
use crate::model::{PortRange, Protocol, Scheduler, Service};

fn desired() -> Desired {
    let key = ServiceKey { address: [192, 0, 2, 10].into(), protocol: Protocol::Tcp, ports: PortRange::single(80) };
    Desired::of(vec![Service::dr("web", key, Scheduler::RR, Vec::new())])
}

fn shared() -> Shared {
    let snapshot = crate::control::compile::Registry::default().compile(&desired(), Vec::new(), |_| None);
    Shared::new(snapshot.expect("compiles").snapshot, 2, 1792).expect("shared")
}

fn options(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

#[test]
fn what_is_asked_is_understood() {
    let wish = |value| match Asked::parse(&options(value), &desired()) {
        Ok(Asked::Start(wish)) => wish,
        other => panic!("{other:?}"),
    };
    let usual = wish(json!({}));
    assert_eq!((usual.wanted, usual.both), (Wanted::default(), false));
    assert_eq!((usual.count, usual.bytes, usual.lasts.as_secs(), usual.snaplen), (10_000, 64 << 20, 60, 4096));
    let all = json!({
        "action": "start", "verdict": "drop", "reason": "denied", "service": "TCP 192.0.2.10:80",
        "client": "198.51.100.0/24", "server": "10.0.0.11:8080", "count": 7, "seconds": 2, "bytes": 1000,
        "snaplen": 96, "both": true,
    });
    let wish = wish(all);
    let wanted = Wanted {
        decision: Some(Decision::Drop),
        reason: Some(DropReason::Denied),
        service: Some(desired().services[0].key),
        client: Prefix::new([198, 51, 100, 0].into(), 24),
        server: Some(([10, 0, 0, 11].into(), Some(8080))),
    };
    assert_eq!(wish.wanted, wanted);
    assert_eq!((wish.count, wish.bytes, wish.lasts.as_secs(), wish.snaplen, wish.both), (7, 1000, 2, 96, true));
    let next = Asked::parse(&options(json!({ "action": "next", "capture": 3 })), &desired());
    assert_eq!(next, Ok(Asked::Next(3)));
}

#[test]
fn what_is_wrong_is_said() {
    for (value, part) in [
        (json!({ "action": "begin" }), "expected start, next or stop"),
        (json!({ "action": 7 }), "`action` is 7"),
        (json!({ "action": "next" }), "`next` wants `capture`"),
        (json!({ "action": "next", "capture": "x" }), "`next` wants `capture`"),
        (json!({ "action": "stop", "capture": 1, "count": 2 }), "`count` is for `start`"),
        (json!({ "capture": 1 }), "`capture` is for `next` and `stop`"),
        (json!({ "verdict": "droped" }), "did you mean drop?"),
        (json!({ "reason": "deneid" }), "did you mean denied?"),
        (json!({ "reason": "denied", "verdict": "tx" }), "leave `verdict` out"),
        (json!({ "service": "wbe" }), "did you mean `web`?"),
        (json!({ "client": "198.51.100.0/33" }), "`client` is"),
        (json!({ "server": "web" }), "`server` is"),
        (json!({ "count": 0 }), "from 1 to 10000000"),
        (json!({ "seconds": 86_401 }), "from 1 to 86400"),
        (json!({ "bytes": -1 }), "`bytes` is -1"),
        (json!({ "snaplen": 13 }), "from 14 to 4096"),
        (json!({ "both": 1 }), "expected true or false"),
    ] {
        let error = Asked::parse(&options(value.clone()), &desired()).unwrap_err();
        assert!(error.contains(part), "{value}: {error}");
    }
}

/// A client's request, and what it is answered at once.
fn ask(catching: &mut Catching, shared: &Shared, now: Instant, value: Value) -> Reply {
    catching.begin(ClientId(1), &options(value), shared, &desired(), now)
}

fn done(reply: Reply) -> Value {
    match reply {
        Reply::Now(Answer::Done(value)) => value,
        other => panic!("{other:?}"),
    }
}

fn turn(catching: &mut Catching, shared: &Shared, now: Instant, waits: bool) -> Vec<Page> {
    let mut pages = Vec::new();
    let answer = |_, answer| match answer {
        Answer::Done(value) => pages.push(serde_json::from_value(value).expect("a page")),
        refused => panic!("{refused:?}"),
    };
    catching.turn(shared, &desired(), now, |_| waits, answer);
    pages
}

#[test]
fn captures_end_by_time_by_hand_and_when_nobody_asks() {
    let (shared, begin) = (shared(), Instant::now());
    let after = |ms| begin + Duration::from_millis(ms);
    let mut catching = Catching::default();
    assert_eq!(catching.next_deadline(begin), None);
    for number in 1..=MOST_CAPTURES as u64 {
        let answer = done(ask(&mut catching, &shared, begin, json!({ "seconds": 2 })));
        assert_eq!(answer["capture"], number);
        assert!(shared.taps().is_on());
    }
    let refused = ask(&mut catching, &shared, begin, json!({}));
    assert!(matches!(refused, Reply::Now(Answer::Refused { error, .. }) if error.contains("4 captures")));
    let next = |number: u64| json!({ "action": "next", "capture": number });
    // One waits for a page: empty, as there is no frame.
    assert_eq!(ask(&mut catching, &shared, begin, next(1)), Reply::Later);
    let twice = ask(&mut catching, &shared, begin, next(1));
    assert!(matches!(twice, Reply::Now(Answer::Refused { error, .. }) if error.contains("somebody else waits")));
    assert_eq!(turn(&mut catching, &shared, after(100), true), []);
    let empty = Page { frames: Vec::new(), missed: 0, ended: None };
    assert_eq!(turn(&mut catching, &shared, after(600), true), std::slice::from_ref(&empty));
    // Its time is over, and it says so once.
    assert_eq!(ask(&mut catching, &shared, after(1900), next(1)), Reply::Later);
    assert_eq!(turn(&mut catching, &shared, after(2000), true), []);
    assert!(!shared.taps().is_on(), "all of them are over");
    let last = Page { ended: Some("seconds".to_owned()), ..empty.clone() };
    assert_eq!(turn(&mut catching, &shared, after(2100), true), [last]);
    let gone = ask(&mut catching, &shared, after(2100), next(1));
    assert!(matches!(gone, Reply::Now(Answer::Refused { error, .. }) if error.contains("no capture 1")));
    // One is stopped by hand.
    done(ask(&mut catching, &shared, after(2200), json!({ "action": "stop", "capture": 2 })));
    // The client of one hangs up while it waits.
    assert_eq!(ask(&mut catching, &shared, after(2300), next(3)), Reply::Later);
    assert_eq!(turn(&mut catching, &shared, after(2310), false), []);
    assert_eq!(catching.open.iter().map(|open| open.number).collect::<Vec<_>>(), [2, 4]);
    // Nobody asks for the others.
    turn(&mut catching, &shared, after(12_990), true);
    turn(&mut catching, &shared, after(13_000), true);
    assert!(catching.open.is_empty() && catching.next_deadline(after(13_000)).is_none());
    // With a capture that is new taps are on again, and off when its client goes away.
    done(ask(&mut catching, &shared, after(13_000), json!({ "seconds": 600 })));
    assert!(shared.taps().is_on() && catching.next_deadline(after(13_000)).is_some());
    turn(&mut catching, &shared, after(13_000) + LEASE, true);
    assert!(!shared.taps().is_on());
    turn(&mut catching, &shared, after(24_000), true);
    assert!(catching.let_go.is_empty(), "no worker has any of it");
}
