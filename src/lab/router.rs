//! Virtual routers as a site wants them, written down for either program: keepalived.conf, or Evenkeel's tables.
//!
//! Owns the words of both files. Never starts anything.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use toml::{Table, Value};

use super::engine::EngineConfig;
use super::netlink::Cidr;
use crate::model::Place;

/// An address of a virtual router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The address, and its network.
    pub cidr: Cidr,
    /// The kernel's label for it.
    pub label: Option<String>,
}

/// A virtual router.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterPlan {
    /// Its name.
    pub name: String,
    /// Interface of the adverts.
    pub interface: String,
    /// Its number.
    pub vrid: u8,
    /// 2 or 3.
    pub version: u8,
    /// 1 to 255.
    pub priority: u8,
    /// Time between adverts.
    pub interval: Duration,
    /// Its addresses.
    pub addresses: Vec<Owned>,
    /// Version 2: the password.
    pub password: Option<String>,
    /// Source of the adverts, where it is not to be found out.
    pub source: Option<IpAddr>,
    /// Single peers; none: multicast.
    pub peers: Vec<IpAddr>,
    /// Whether it takes over from a lower priority.
    pub preempt: bool,
    /// Whether it begins as master.
    pub starts_as_master: bool,
    /// Where Evenkeel has the addresses; keepalived always has them on the interface.
    pub place: Place,
    /// Interfaces that must be up.
    pub track_interfaces: Vec<String>,
    /// Scripts that must succeed.
    pub track_scripts: Vec<String>,
    /// A program that is told of every change.
    pub notify: Option<String>,
    /// Keys of Evenkeel's file besides: what keepalived lacks, or has elsewhere.
    pub more: Table,
}

impl RouterPlan {
    /// Version 2, 1 s adverts by multicast, priority 100, in the engine.
    pub fn new(name: &str, interface: &str, vrid: u8, addresses: &[Cidr]) -> Self {
        RouterPlan {
            name: name.into(),
            interface: interface.into(),
            vrid,
            version: 2,
            priority: 100,
            interval: Duration::from_secs(1),
            addresses: addresses.iter().map(|&cidr| Owned { cidr, label: None }).collect(),
            password: None,
            source: None,
            peers: Vec::new(),
            preempt: true,
            starts_as_master: false,
            place: Place::Engine,
            track_interfaces: Vec::new(),
            track_scripts: Vec::new(),
            notify: None,
            more: Table::new(),
        }
    }

    /// Version 3 with adverts every `interval`.
    pub fn fast(self, interval: Duration) -> Self {
        RouterPlan { version: 3, interval, ..self }
    }

    /// How much later than its master's last advert it takes over: three intervals and its skew (RFC 9568, section 6.1).
    pub fn master_down(&self) -> Duration {
        self.interval * 3 + self.skew()
    }

    /// How long it waits after a farewell.
    pub fn skew(&self) -> Duration {
        let unit = if self.version == 2 { Duration::from_secs(1) } else { self.interval };
        unit * (256 - u32::from(self.priority)) / 256
    }

    fn keepalived(&self) -> String {
        let mut lines = vec![
            format!("state {}", if self.starts_as_master { "MASTER" } else { "BACKUP" }),
            format!("interface {}", self.interface),
            format!("virtual_router_id {}", self.vrid),
            format!("version {}", self.version),
            format!("priority {}", self.priority),
            format!("advert_int {}", self.interval.as_secs_f64()),
        ];
        if let Some(password) = &self.password {
            lines.push(format!("authentication {{\n        auth_type PASS\n        auth_pass {password}\n    }}"));
        }
        let list =
            |name: &str, entries: Vec<String>| format!("{name} {{\n        {}\n    }}", entries.join("\n        "));
        if let Some(source) = self.source {
            let word = if self.peers.is_empty() { "mcast_src_ip" } else { "unicast_src_ip" };
            lines.push(format!("{word} {source}"));
        }
        if !self.peers.is_empty() {
            lines.push(list("unicast_peer", self.peers.iter().map(IpAddr::to_string).collect()));
        }
        if !self.preempt {
            lines.push("nopreempt".into());
        }
        let owned = |owned: &Owned| match &owned.label {
            Some(label) => format!("{} dev {} label {label}", owned.cidr, self.interface),
            None => owned.cidr.to_string(),
        };
        lines.push(list("virtual_ipaddress", self.addresses.iter().map(owned).collect()));
        if !self.track_interfaces.is_empty() {
            lines.push(list("track_interface", self.track_interfaces.clone()));
        }
        if !self.track_scripts.is_empty() {
            lines.push(list("track_script", self.track_scripts.clone()));
        }
        if let Some(notify) = &self.notify {
            lines.push(format!("notify \"{notify}\""));
        }
        format!("vrrp_instance {} {{\n    {}\n}}\n", self.name, lines.join("\n    "))
    }

    fn evenkeel(&self) -> Table {
        let mut table = Table::new();
        let mut set = |key: &str, value: Value| drop(table.insert(key.into(), value));
        let words = |list: &[String]| Value::from(list.to_vec());
        set("name", self.name.clone().into());
        set("interface", self.interface.clone().into());
        set("vrid", i64::from(self.vrid).into());
        set("version", i64::from(self.version).into());
        set("priority", i64::from(self.priority).into());
        set("interval", self.interval.as_secs_f64().into());
        set("state", if self.starts_as_master { "master" } else { "backup" }.into());
        set("place", if self.place == Place::Engine { "engine" } else { "kernel" }.into());
        let owned = |owned: &Owned| match &owned.label {
            Some(label) => {
                let mut entry = Table::new();
                entry.insert("address".into(), owned.cidr.to_string().into());
                entry.insert("label".into(), label.clone().into());
                Value::from(entry)
            }
            None => Value::from(owned.cidr.to_string()),
        };
        if !self.addresses.is_empty() {
            set("address", self.addresses.iter().map(owned).collect::<Vec<_>>().into());
        }
        if let Some(password) = &self.password {
            set("password", password.clone().into());
        }
        if let Some(source) = self.source {
            set("source", source.to_string().into());
        }
        if !self.peers.is_empty() {
            set("peers", words(&self.peers.iter().map(IpAddr::to_string).collect::<Vec<_>>()));
        }
        if !self.preempt {
            set("preempt", false.into());
        }
        if !self.track_interfaces.is_empty() {
            set("track_interface", words(&self.track_interfaces));
        }
        if !self.track_scripts.is_empty() {
            set("track_script", words(&self.track_scripts));
        }
        if let Some(notify) = &self.notify {
            set("notify", notify.clone().into());
        }
        table.extend(self.more.clone());
        table
    }
}

/// A script whose success is tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptPlan {
    /// Its name.
    pub name: String,
    /// The program and its arguments, with blanks between.
    pub command: String,
    /// Time between two runs.
    pub interval: Duration,
    /// Time that a run may take.
    pub timeout: Duration,
    /// Successes in a row that make it good.
    pub rise: u8,
    /// Failures in a row that make it bad.
    pub fall: u8,
}

/// All of VRRP that one appliance is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VrrpPlan {
    /// Its routers.
    pub routers: Vec<RouterPlan>,
    /// Routers that are master together: the group's name and theirs.
    pub groups: Vec<(String, Vec<String>)>,
    /// Scripts.
    pub scripts: Vec<ScriptPlan>,
}

impl VrrpPlan {
    /// One router and nothing else.
    pub fn one(router: RouterPlan) -> Self {
        VrrpPlan { routers: vec![router], ..VrrpPlan::default() }
    }

    /// The text of a keepalived.conf. Its VRRP process goes before others, but not with real-time priority: a reload
    /// that takes longer than its own limit (10 ms) would end it.
    pub fn keepalived(&self) -> String {
        let mut text = String::from(
            "global_defs {\n    router_id lab\n    vrrp_priority -20\n    script_user root\n    enable_script_security\n}\n",
        );
        for script in &self.scripts {
            let ScriptPlan { name, command, rise, fall, .. } = script;
            let (interval, timeout) = (script.interval.as_secs_f64(), script.timeout.as_secs_f64());
            let _ = writeln!(
                text,
                "vrrp_script {name} {{\n    script \"{command}\"\n    interval {interval}\n    timeout {timeout}\n    \
                 rise {rise}\n    fall {fall}\n}}"
            );
        }
        for (name, routers) in &self.groups {
            let list = routers.join("\n        ");
            let _ = writeln!(text, "vrrp_sync_group {name} {{\n    group {{\n        {list}\n    }}\n}}");
        }
        self.routers.iter().for_each(|router| text.push_str(&router.keepalived()));
        text
    }

    /// Adds it to a configuration of Evenkeel.
    pub fn evenkeel(&self, config: &mut EngineConfig) {
        for script in &self.scripts {
            let mut table = Table::new();
            table.insert("name".into(), script.name.clone().into());
            table.insert("script".into(), script.command.clone().into());
            table.insert("interval".into(), script.interval.as_secs_f64().into());
            table.insert("timeout".into(), script.timeout.as_secs_f64().into());
            table.insert("rise".into(), i64::from(script.rise).into());
            table.insert("fall".into(), i64::from(script.fall).into());
            config.push("track_script", table);
        }
        for (name, routers) in &self.groups {
            let mut table = Table::new();
            table.insert("name".into(), name.clone().into());
            table.insert("routers".into(), routers.clone().into());
            config.push("sync_group", table);
        }
        for router in &self.routers {
            config.push("virtual_router", router.evenkeel());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_protocol() {
        let router = RouterPlan::new("VI_1", "eth0", 51, &["10.0.0.100/24".parse().unwrap()]);
        assert_eq!(router.master_down().as_micros(), 3_609_375);
        assert_eq!(RouterPlan { priority: 200, ..router.clone() }.master_down().as_micros(), 3_218_750);
        assert_eq!(router.clone().fast(Duration::from_millis(100)).master_down().as_micros(), 360_937);
        assert_eq!(router.fast(Duration::from_millis(10)).skew().as_micros(), 6093);
    }

    #[test]
    fn both_programs_are_told_the_same() {
        let mut router = RouterPlan::new("VI_1", "eth0", 51, &["10.0.0.100/24".parse().unwrap()]);
        router.password = Some("s3cret12".into());
        router.addresses[0].label = Some("eth0:1".into());
        router.track_interfaces = vec!["eth1".into()];
        router.preempt = false;
        let plan = VrrpPlan::one(router);
        let text = plan.keepalived();
        for line in ["advert_int 1", "auth_pass s3cret12", "10.0.0.100/24 dev eth0 label eth0:1", "nopreempt", "eth1"] {
            assert!(text.contains(&format!("{line}\n")), "{line}: {text}");
        }
        let mut config = EngineConfig::new();
        plan.evenkeel(&mut config);
        let text = config.to_toml();
        for line in ["password = \"s3cret12\"", "vrid = 51", "interval = 1.0", "preempt = false", "label = \"eth0:1\""]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
