//! Network settings, and what else runs in this network namespace.
//!
//! Owns reading. Never judges.

use std::fs;
use std::process::Command;

use super::super::facts::{Facts, Network};
use super::{number, text};

/// Reads all of it.
pub fn look(facts: &mut Facts) {
    let settings = "/proc/sys/net";
    let ports = text(format!("{settings}/ipv4/ip_local_port_range")).and_then(|range| {
        let mut words = range.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    });
    let filter = format!("{settings}/netfilter");
    let tracked = number(format!("{filter}/nf_conntrack_count")).zip(number(format!("{filter}/nf_conntrack_max")));
    facts.network = Network {
        forward_v4: number::<u8>(format!("{settings}/ipv4/ip_forward")).map(|on| on != 0),
        forward_v6: number::<u8>(format!("{settings}/ipv6/conf/all/forwarding")).map(|on| on != 0),
        ports,
        ipvs: text("/proc/self/net/ip_vs").map(|table| ipvs_services(&table)),
        keepalived: running("keepalived"),
        dropping_chains: chains(),
        conntrack: tracked,
    };
}

/// Services in IPVS's table: lines that begin with a protocol or a mark.
pub fn ipvs_services(table: &str) -> usize {
    table.lines().filter(|line| ["TCP", "UDP", "SCTP", "FWM"].iter().any(|word| line.starts_with(word))).count()
}

/// Processes of a name in this network namespace.
fn running(name: &str) -> Vec<u32> {
    let here = fs::read_link("/proc/self/ns/net").ok();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let one = |entry: fs::DirEntry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        let named = text(entry.path().join("comm")).as_deref() == Some(name);
        (named && fs::read_link(entry.path().join("ns/net")).ok() == here).then_some(process)
    };
    let mut all: Vec<u32> = processes.flatten().filter_map(one).collect();
    all.sort_unstable();
    all
}

fn chains() -> Option<Vec<String>> {
    let output = Command::new("nft").args(["list", "ruleset"]).output().ok()?;
    output.status.success().then(|| dropping(&String::from_utf8_lossy(&output.stdout)))
}

/// Chains for incoming packets that drop what no rule accepts, as `table chain`.
pub fn dropping(ruleset: &str) -> Vec<String> {
    let (mut table, mut chain, mut all) = ("", "", Vec::new());
    for line in ruleset.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        } else if line.contains("hook input") && line.contains("policy drop") {
            all.push(format!("{table} {chain}"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rulesets_and_the_table_of_ipvs_are_read() {
        let rules = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
                     \tchain output {\n\t\ttype filter hook output priority filter; policy drop;\n\t}\n}\n";
        assert_eq!(dropping(rules), ["inet filter input"]);
        let table = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress\n\
                     TCP  C000020A:0050 wlc\n  -> 0A00000B:0050 Route 1 0 0\nFWM  00000001 rr\n";
        assert_eq!(ipvs_services(table), 2);
    }
}
