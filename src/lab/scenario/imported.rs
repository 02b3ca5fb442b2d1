//! A site's own configuration, brought over by `evenkeel import` as its people would do it.
//!
//! Owns the sites' files and the way from one of them to what an engine is started with. The lab changes what is a lab's:
//! paths of programs, the second box's part of a pair; each scenario says what and why.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use toml::{Table, Value};

use crate::lab::engine::EngineConfig;
use crate::lab::error::{Doing, LabError};
use crate::lab::process;
use crate::lab::router::{RouterPlan, VrrpPlan};
use crate::lab::site::{APPLIANCE, Site};
use crate::model::Protocol;

/// The sites' files, with those that they include.
const FILES: [(&str, &str); 6] = [
    ("web-nat.keepalived.conf", include_str!("../../../tests/golden/import/web-nat.keepalived.conf")),
    ("proxy-pair.keepalived.conf", include_str!("../../../tests/golden/import/proxy-pair.keepalived.conf")),
    ("haproxy-pair.keepalived.conf", include_str!("../../../tests/golden/import/haproxy-pair.keepalived.conf")),
    ("dns-dsr.keepalived.conf", include_str!("../../../tests/golden/import/dns-dsr.keepalived.conf")),
    ("virtualservers/dns-tcp.conf", include_str!("../../../tests/golden/import/virtualservers/dns-tcp.conf")),
    ("virtualservers/dns-udp.conf", include_str!("../../../tests/golden/import/virtualservers/dns-udp.conf")),
];

/// Writes the site's files into the lab's directory and runs `PROGRAM import keepalived` on that of the scenario.
pub fn keepalived(site: &Site, program: &Path, scenario: &str) -> Result<EngineConfig, LabError> {
    let directory = site.lab.path("site");
    for (name, text) in FILES {
        let file = directory.join(name);
        let parent = file.parent().unwrap_or(&directory);
        fs::create_dir_all(parent).doing(|| format!("creating {}", parent.display()))?;
        fs::write(&file, text).doing(|| format!("writing {}", file.display()))?;
    }
    let mut command = Command::new(program);
    command.args(["import", "keepalived"]).arg(directory.join(format!("{scenario}.keepalived.conf")));
    let text = process::output(site.lab.node(APPLIANCE)?, &command)?;
    let mut config = EngineConfig::parse(&text)?;
    // All labs of a machine share its cores: one worker, which sleeps when there is nothing to do.
    config.set("engine", "cores", vec![0]).set("engine", "polling", "adaptive");
    Ok(config)
}

/// Takes the virtual routers out of a configuration. What a scenario does not ask for stays among the keys of each
/// ([`RouterPlan::more`]), as it was imported.
pub fn routers(config: &mut EngineConfig) -> Result<VrrpPlan, LabError> {
    let routers = config.take("virtual_router").into_iter().map(router).collect::<Result<Vec<_>, _>>()?;
    Ok(VrrpPlan { routers, ..VrrpPlan::default() })
}

fn router(mut table: Table) -> Result<RouterPlan, LabError> {
    let wrong = |key: &str| LabError::Unexpected(format!("the imported virtual router has no usable `{key}`"));
    let word = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    let name = word(&table, "name").ok_or_else(|| wrong("name"))?;
    let interface = word(&table, "interface").ok_or_else(|| wrong("interface"))?;
    let number = |key: &str, default: i64| table.get(key).map_or(Some(default), Value::as_integer);
    let byte = |key: &str, default: i64| {
        number(key, default).and_then(|number| u8::try_from(number).ok()).ok_or_else(|| wrong(key))
    };
    let mut plan = RouterPlan::new(&name, &interface, byte("vrid", 0)?, &[]);
    plan.version = byte("version", 2)?;
    plan.priority = byte("priority", 100)?;
    let interval = table.get("interval").map_or(Some(1.0), seconds).ok_or_else(|| wrong("interval"))?;
    plan.interval = Duration::from_secs_f64(interval);
    plan.starts_as_master = word(&table, "state").is_some_and(|state| state == "master");
    plan.preempt = table.get("preempt").and_then(Value::as_bool).unwrap_or(true);
    for key in ["name", "interface", "vrid", "version", "priority", "interval", "state", "preempt"] {
        table.remove(key);
    }
    plan.more = table;
    Ok(plan)
}

/// A number with or without a point.
fn seconds(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
}

/// The name of the service with that address, protocol and port.
pub fn service(config: &EngineConfig, address: IpAddr, protocol: Protocol, port: u16) -> Result<String, LabError> {
    let is = |table: &&Table| {
        let word = |key: &str| table.get(key).and_then(Value::as_str);
        word("address") == Some(&address.to_string())
            && word("protocol").unwrap_or("tcp") == protocol.name()
            && table.get("port").and_then(Value::as_integer) == Some(port.into())
    };
    let found = config.tables("service").find(is).and_then(|table| table.get("name")?.as_str());
    let missing = || LabError::Unexpected(format!("the import has no service {protocol} {address}:{port}"));
    found.map(str::to_owned).ok_or_else(missing)
}

/// Changes every check of a service and of its servers.
pub fn each_check(service: &mut Table, mut change: impl FnMut(&mut Table)) {
    let mut in_one = |table: &mut Table| {
        let checks = table.get_mut("check").and_then(Value::as_array_mut);
        checks.into_iter().flatten().filter_map(Value::as_table_mut).for_each(&mut change);
    };
    in_one(service);
    let servers = service.get_mut("server").and_then(Value::as_array_mut);
    servers.into_iter().flatten().filter_map(Value::as_table_mut).for_each(in_one);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[[virtual_router]]\nname = \"VI_1\"\ninterface = \"eth0\"\nvrid = 51\npriority = 200\ninterval = 3\n\
                        state = \"master\"\npassword = \"7388\"\naddress = [\"192.0.2.1/23\"]\n[[service]]\nname = \"web\"\n\
                        address = \"192.0.2.1\"\nprotocol = \"udp\"\nport = 53\n";

    #[test]
    fn routers_keep_every_key() {
        let mut config = EngineConfig::parse(TEXT).unwrap();
        let plan = routers(&mut config).unwrap();
        let router = &plan.routers[0];
        assert_eq!((router.vrid, router.priority, router.interval), (51, 200, Duration::from_secs(3)));
        assert!(router.starts_as_master && router.preempt && router.more.contains_key("password"));
        assert_eq!(config.tables("virtual_router").count(), 0);
        plan.evenkeel(&mut config);
        let back = config.tables("virtual_router").next().unwrap();
        for (key, value) in EngineConfig::parse(TEXT).unwrap().tables("virtual_router").next().unwrap() {
            let same = back.get(key) == Some(value) || back.get(key).and_then(seconds) == seconds(value);
            assert!(same, "{key}: {:?} was {value:?}", back.get(key));
        }
    }

    #[test]
    fn services_are_found_by_what_they_serve() {
        let config = EngineConfig::parse(TEXT).unwrap();
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!(service(&config, address, Protocol::Udp, 53).unwrap(), "web");
        assert!(service(&config, address, Protocol::Tcp, 53).is_err());
    }

    #[test]
    fn every_file_that_is_included_is_there() {
        for (name, text) in FILES {
            assert!(!text.is_empty(), "{name}");
        }
    }
}
