//! Every file of `configs/` on a machine that has what it names: the engine starts, says that it is ready, and opens its page.

mod lab_support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel::lab::client::http;
use evenkeel::lab::engine::{Engine, EngineConfig};
use evenkeel::lab::netlink::{Cidr, Wire};
use evenkeel::lab::topology::Lab;
use lab_support::{lab_is_possible, program};
use toml::Value;

const NODE: &str = "lb";
const PATIENCE: Duration = Duration::from_secs(20);

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    files.sort();
    assert!(files.len() > 10, "only {files:?}");
    files
}

/// A machine with two interfaces, an address in each network that the examples speak of, and a router for the rest.
fn machine() -> Lab {
    let mut lab = Lab::new().unwrap();
    lab.add_node(NODE).unwrap();
    for (interface, addresses) in [
        ("eth0", &["10.0.0.1/24", "192.0.2.1/24", "192.0.2.251/24", "198.51.100.1/24", "2001:db8:0:2::1/64"][..]),
        ("eth1", &["10.0.1.1/24", "10.9.0.1/24"][..]),
    ] {
        let segment = format!("{interface}-net");
        lab.add_segment(&segment, 1500).unwrap();
        lab.attach(NODE, interface, &segment, Wire { queues: 2, mtu: 1500 }).unwrap();
        for address in addresses {
            lab.address(NODE, interface, address.parse::<Cidr>().unwrap()).unwrap();
        }
    }
    lab
}

/// What is this machine's and not the example's: its cores, the size of its tables.
fn fitted(text: &str) -> (EngineConfig, toml::Table) {
    let written: toml::Table = text.parse().unwrap();
    let mut config = EngineConfig::parse(text).unwrap();
    let cores =
        written.get("engine").and_then(|engine| engine.get("cores")).and_then(Value::as_array).map_or(1, Vec::len);
    let present = std::thread::available_parallelism().map_or(1, usize::from);
    let cores: Vec<Value> = (0..cores.min(present)).map(|core| Value::from(core as i64)).collect();
    config.set("engine", "cores", cores).set("engine", "flows", 65_536).set("engine", "flows_ipv6", 65_536);
    (config, written)
}

#[test]
fn every_example_starts() {
    if !lab_is_possible() {
        return;
    }
    for path in examples() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let (config, written) = fitted(&std::fs::read_to_string(&path).unwrap());
        let lab = machine();
        let engine = Engine::start(&lab, NODE, &program(), &config).unwrap();
        let count = |list: &str| written.get(list).and_then(Value::as_array).map_or(0, Vec::len);
        let shown = |list: &serde_json::Value| list.as_array().map_or(0, Vec::len);
        let whole = |status: &serde_json::Value| {
            shown(&status["services"]) == count("service")
                && shown(&status["interfaces"]) == count("interface")
                && shown(&status["vrrp"]["routers"]) == count("virtual_router")
        };
        engine.await_status(PATIENCE, &format!("{name}: all of it in the status"), whole).unwrap();
        if written.contains_key("web") {
            let target = "127.0.0.1:9112".parse().unwrap();
            let start = Instant::now();
            // The listener opens with the control loop's first turns.
            let found = loop {
                let found = lab.node(NODE).unwrap().run(|| http::get(target, "/healthz", PATIENCE)).unwrap();
                if found.is_ok() || start.elapsed() > PATIENCE {
                    break found;
                }
                std::thread::sleep(Duration::from_millis(50));
            };
            let words = || format!("{name}: {}", engine.process().last_words(20));
            assert_eq!(found.unwrap_or_else(|error| panic!("{error}: {}", words())).status, 200, "{}", words());
        }
        let log = engine.process().output();
        let (ready, next) = (log.find("ready: "), log.find("next: `evenkeel status"));
        assert!(ready.is_some() && ready < next, "{name}: {log}");
    }
}
