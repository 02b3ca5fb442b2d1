//! What the status page gets: trouble first, pages, filters, and an answer that stays small.

use serde_json::{Value, json};

use super::super::query::USUAL_SERVICES;
use super::*;
use crate::control::show::services::tests::{server, service};
use crate::control::status::{QuorumStatus, Unreachable, WorkerStatus};

/// A thousand services of twenty servers; in two of them servers are down.
fn large() -> Status {
    let one = |number: usize| {
        let servers = (0..20).map(|at| {
            let down = number == 700 && at == 19 || number == 800;
            let address = format!("10.{}.{}.{at}", number / 250, number % 250);
            server(&address, if down { "down" } else { "up" }, if down { 0 } else { 2 })
        });
        service(&format!("s{number:04}"), servers.collect())
    };
    Status { services: (0..1000).map(one).collect(), ..Status::default() }
}

fn shown(status: &Status, query: &str) -> Value {
    let query = Query::read(query).expect("a good query");
    serde_json::to_value(view(status, &query, 1000)).expect("JSON")
}

fn names(answer: &Value) -> Vec<&str> {
    let list = answer["services"]["list"].as_array().expect("a list");
    list.iter().map(|service| service["name"].as_str().expect("a name")).collect()
}

fn ends(service: &Value) -> Vec<&str> {
    let list = service["servers"].as_array().expect("a list");
    list.iter().map(|server| server["end"].as_str().expect("an end")).collect()
}

#[test]
fn trouble_comes_first_and_pages_follow() {
    let status = large();
    let first = shown(&status, "");
    assert_eq!(names(&first)[..4], ["s0800", "s0700", "s0000", "s0001"], "nobody serves, one is down, the rest");
    assert_eq!(names(&first).len(), USUAL_SERVICES);
    let totals = &first["totals"];
    assert_eq!((&totals["services"], &totals["servers"]), (&json!(1000), &json!(20_000)));
    assert_eq!((&totals["services_trouble"], &totals["servers_trouble"]), (&json!(2), &json!(21)));
    assert_eq!(totals["servers_serving"], 20_000 - 21);
    assert_eq!(totals["active"], 20_000 * 12);
    let [none, one] = [&first["services"]["list"][0], &first["services"]["list"][1]];
    assert_eq!((&none["tone"], &none["word"]), (&json!("bad"), &json!("NO SERVER")));
    assert_eq!((&one["tone"], &one["word"], &one["serving"]), (&json!("warn"), &json!("UP"), &json!(19)));
    // Where somebody must look, servers are there without being asked for; not all of them.
    assert_eq!(ends(one), ["10.2.200.19:8080"]);
    assert_eq!((ends(none).len(), &none["servers_of"]), (MOST_SHOWN, &json!(20)));
    assert_eq!(ends(&first["services"]["list"][2]), [""; 0]);

    let third = shown(&status, "sort=order&size=100&page=3");
    assert_eq!((names(&third)[0], names(&third).len()), ("s0300", 100));
    assert_eq!((&third["services"]["matched"], &third["services"]["pages"]), (&json!(1000), &json!(10)));
    let beyond = shown(&status, "size=100&page=999");
    assert_eq!((&beyond["services"]["page"], names(&beyond).len()), (&json!(9), 100));
    let trouble = shown(&status, "trouble=1");
    assert_eq!(names(&trouble), ["s0800", "s0700"]);
    assert_eq!(trouble["totals"]["services"], 1000, "sums are over all");
}

#[test]
fn open_services_have_their_servers_page_by_page() {
    let mut status = large();
    let servers = (0..120).map(|at| server(&format!("10.9.0.{at}"), if at == 77 { "down" } else { "up" }, 1));
    status.services.push(service("many & more", servers.collect()));
    let many = |query: &str| {
        let answer = shown(&status, query);
        answer["services"]["list"].as_array().unwrap().iter().find(|one| one["name"] == "many & more").unwrap().clone()
    };
    let first = many("open=many+%26+more");
    assert_eq!((ends(&first).len(), &first["servers_of"], &first["open"]), (MOST_SERVERS, &json!(120), &json!(true)));
    assert_eq!(ends(&first)[..2], ["10.9.0.77:8080", "10.9.0.0:8080"], "trouble first");
    let last = many("open=many+%26+more&from=100");
    assert_eq!((ends(&last).len(), *ends(&last).last().unwrap()), (20, "10.9.0.119:8080"));
    let beyond = many("open=many+%26+more&from=5000");
    assert_eq!((&beyond["servers_from"], ends(&beyond).len()), (&json!(100), 20));
    // One that is open and not on this page costs nothing.
    assert!(names(&shown(&status, "open=s0999")).iter().all(|name| *name != "s0999"));
}

#[test]
fn a_filter_finds_services_and_servers() {
    let mut status = large();
    status.services[3].servers[7].health.as_mut().unwrap().reason = "Connection <script>".to_owned();
    assert_eq!(names(&shown(&status, "filter=S0012")), ["s0012"]);
    let found = shown(&status, "filter=10.2.3.7:");
    assert_eq!(names(&found), ["s0503"]);
    assert_eq!(ends(&found["services"]["list"][0]), ["10.2.3.7:8080"], "the server that was meant, though it is well");
    let reason = shown(&status, "filter=%3Cscript");
    assert_eq!((names(&reason), ends(&reason["services"]["list"][0])), (vec!["s0003"], vec!["10.0.3.7:8080"]));
    let open = shown(&status, "filter=10.2.3.7:&open=s0503");
    assert_eq!(ends(&open["services"]["list"][0]), ["10.2.3.7:8080"]);
    assert_eq!(names(&shown(&status, "filter=down")), ["s0800", "s0700"]);
    let nothing = shown(&status, "filter=nobody&page=7");
    assert_eq!((names(&nothing).len(), &nothing["services"]["pages"]), (0, &json!(1)));
}

#[test]
fn the_largest_answer_is_bounded() {
    let mut status = large();
    status.services.iter_mut().flat_map(|one| &mut one.servers).for_each(|one| {
        let health = one.health.as_mut().unwrap();
        (health.state, health.reason, one.weight) = ("down".to_owned(), "status 500: <b>no</b>".repeat(10), 0);
    });
    status.warnings = (0..20_000).map(|at| format!("server {at} is UNREACHABLE")).collect();
    let open: String = (0..20).map(|at| format!("&open=s{at:04}")).collect();
    let answer = shown(&status, &format!("size=100{open}"));
    let rows: usize = answer["services"]["list"].as_array().unwrap().iter().map(|one| ends(one).len()).sum();
    assert_eq!(rows, 20 * 20 + 80 * MOST_SHOWN);
    assert_eq!((answer["warnings"].as_array().unwrap().len(), &answer["warnings_more"]), (50, &json!(19_950)));
    let bytes = answer.to_string().len();
    assert!(bytes < 1_000_000, "{bytes} bytes");
    let usual = shown(&large(), "").to_string().len();
    assert!(usual < 60_000, "{usual} bytes");
}

#[test]
fn tones_say_who_must_look() {
    let tone_of = |state: &str, weight: u16| tone(&server("10.0.0.1", state, weight));
    let states = ["up", "starting", "down", "ejected", "held", "draining", "maintenance", "standby", "serving"];
    use Tone::{Bad, Good, Off, Warn};
    assert_eq!(states.map(|state| tone_of(state, 1)), [Good, Warn, Bad, Bad, Warn, Off, Off, Off, Warn]);
    assert_eq!(tone_of("up", 0), Off, "its weight was set to 0");
    let mut lost = server("10.0.0.1", "up", 1);
    lost.unreachable = Some(Unreachable { reason: "no-route".to_owned(), detail: "no route".to_owned() });
    assert_eq!(tone(&lost), Bad);
    let full = ServerStatus { overloaded: true, ..server("10.0.0.1", "up", 1) };
    assert_eq!(tone(&full), Warn);

    // Maintenance is no trouble while others serve; a service that nobody serves is.
    let resting = || server("10.0.0.2", "maintenance", 0);
    let mut status = Status {
        services: vec![service("web", vec![server("10.0.0.1", "up", 2), resting()]), service("mail", vec![resting()])],
        ..Status::default()
    };
    let answer = shown(&status, "sort=name");
    let tones = |answer: &Value| [0, 1].map(|at: usize| answer["services"]["list"][at]["tone"].clone());
    assert_eq!(tones(&answer), ["bad", "good"]);
    status.services[0].quorum = Some(QuorumStatus { up: false, weight: 2, least: 3, hysteresis: 0 });
    assert_eq!(tones(&shown(&status, "sort=name")), ["bad", "bad"]);
}

#[test]
fn a_server_is_named_as_commands_take_it() {
    let mut own = service("web", vec![server("fd00::1", "up", 2), server("10.0.0.2", "up", 2)]);
    own.servers[1].port = None;
    let status = Status { services: vec![own], workers: vec![WorkerStatus::default()], ..Status::default() };
    let answer = shown(&status, "open=web");
    let servers = &answer["services"]["list"][0]["servers"];
    assert_eq!((&servers[0]["name"], &servers[0]["end"]), (&json!("[fd00::1]:8080"), &json!("[fd00::1]:8080")));
    assert_eq!((&servers[1]["name"], &servers[1]["end"]), (&json!("10.0.0.2"), &json!("10.0.0.2:80")));
    assert_eq!((&answer["now"], &answer["workers"][0]["running"]), (&json!(1000), &json!(false)));
}
