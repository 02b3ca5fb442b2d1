//! The deployment `web-dr`: one director, two web servers by direct routing, driven by `ipvsadm` and by nothing else. What was
//! done to it with the real one is done here, and both results are shown.
//!
//! Owns the rows of its table. Its commands go through a shell with the engine's program in `PATH` under the name `ipvsadm`,
//! as a site's scripts have it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::ipvsadm::Ipvsadm;
use super::report::{Report, Row, millis};
use super::{HTTP, START, Stage};
use crate::lab::client::http::HttpConnection;
use crate::lab::client::load::{Load, LoadPlan, Tally, requests};
use crate::lab::error::{Doing, LabError};
use crate::lab::site::{APPLIANCE, CLIENT, Family, Plan, SiteOptions, USUAL};

/// Its network: the addresses of the site's own rules, inside the lab's namespaces.
pub const SITE: SiteOptions = SiteOptions {
    servers: 2,
    plan: Plan { front: [123, 234, 1], vip: 101, client: 200, first_server: 111, ..USUAL },
    ..SiteOptions::USUAL
};

/// The site's own file, in the form of `ipvsadm -S -n`.
const RULES: &str = include_str!("../../../tests/golden/import/web-dr.ipvsadm.rules");
const SERVICE: &str = "123.234.1.101:80";
const SERVERS: [&str; 2] = ["123.234.1.111:80", "123.234.1.112:80"];
/// Connections that are held open while the table is looked at.
const HELD: u64 = 6;
/// More than a handshake takes, also on a busy machine.
const HANDSHAKE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a server may answer ARP before it is named, and be silent before that is over: rounds of questions are 5 s apart.
const NOTICE: Duration = Duration::from_secs(40);

/// A row of `ipvsadm -Ln`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    server: String,
    forward: String,
    weight: u64,
    active: u64,
    inactive: u64,
}

/// The commands at the director.
struct Director<'a> {
    stage: &'a Stage,
    ipvsadm: Ipvsadm,
}

impl Director<'_> {
    /// Runs a line of a shell; what it prints.
    fn shell(&self, line: &str) -> Result<String, LabError> {
        self.ipvsadm.shell(&self.stage.site, APPLIANCE, &self.stage.engine, line)
    }

    /// The servers of `ipvsadm -Ln`.
    fn table(&self) -> Result<Vec<Listed>, LabError> {
        let text = self.shell("ipvsadm -Ln")?;
        if !text.lines().any(|line| line.starts_with(&format!("TCP  {SERVICE} "))) {
            return Err(LabError::Unexpected(format!("`ipvsadm -Ln` has no {SERVICE}:\n{text}")));
        }
        Ok(text.lines().filter_map(row).collect())
    }

    /// Waits until the table is as `wanted` has it.
    fn await_table(&self, what: &str, wanted: impl Fn(&[Listed]) -> bool) -> Result<Vec<Listed>, LabError> {
        let start = Instant::now();
        loop {
            let table = self.table()?;
            if wanted(&table) {
                return Ok(table);
            }
            if start.elapsed() > START {
                let detail = format!("; `ipvsadm -Ln` says {table:?}");
                return Err(LabError::Timeout { what: what.into(), after: START, detail });
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A server's row; `None` for other lines.
fn row(line: &str) -> Option<Listed> {
    let mut words = line.strip_prefix("  -> ")?.split_whitespace();
    let (server, forward) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut number = || words.next()?.parse().ok();
    Some(Listed { server, forward, weight: number()?, active: number()?, inactive: number()? })
}

/// Drives the site and reports.
pub fn run(stage: &Stage) -> Result<Report, LabError> {
    let director = Director { stage, ipvsadm: Ipvsadm::new(&stage.site, &stage.engine)? };
    let mut report = Report::new(stage.scenario.name, &Tally::default());
    let mut rows = vec![rules(&director, &mut report)?];
    stage.engine.await_ready(START)?;
    let client = stage.site.lab.node(CLIENT)?;
    let plan = LoadPlan::new(stage.site.vip_port(Family::V4, HTTP));

    let tally = requests(client, &plan, 40)?;
    let even = tally.failures == 0 && tally.of("server1") == 20 && tally.of("server2") == 20;
    let here = format!("server1 {}, server2 {}", tally.of("server1"), tally.of("server2"));
    report.check("40 requests are divided 1:1", even, format!("{here} {:?}", tally.reasons));
    let balanced = Report::new(stage.scenario.name, &tally);
    (report.answers, report.failures) = (balanced.answers, balanced.failures);
    (report.latency_p50_us, report.latency_p99_us, report.latency_max_us) =
        (balanced.latency_p50_us, balanced.latency_p99_us, balanced.latency_max_us);
    rows.push(Row { what: "traffic is balanced 1:1 (40 requests)", there: "yes", here });

    rows.push(counts(&director, &mut report)?);
    rows.extend(by_hand(&director, &mut report, &plan)?);
    rows.push(one_by_one(&director, &mut report, &plan)?);
    rows.extend(arp(stage, &mut report)?);
    report.rows = rows;
    Ok(report)
}

/// `ipvsadm -R`, and the same rules back.
fn rules(director: &Director<'_>, report: &mut Report) -> Result<Row, LabError> {
    let file = director.stage.site.lab.path("web-dr.ipvsadm.rules");
    fs::write(&file, RULES).doing(|| format!("writing {}", file.display()))?;
    let start = Instant::now();
    director.shell(&format!("ipvsadm -R < {}", file.display()))?;
    let took = start.elapsed();
    let back = director.shell("ipvsadm -S -n")?;
    let same = sorted(&back) == sorted(RULES);
    report.check("`ipvsadm -S -n` gives back what `ipvsadm -R` took", same, back.trim().replace('\n', "; "));
    let here = format!("yes, the file is in force after {}", millis(took));
    Ok(Row { what: "the site's rules go in by `ipvsadm -R`", there: "yes", here })
}

/// IPVS gives the servers in another order than they came.
fn sorted(rules: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = rules.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines
}

/// `ipvsadm -Ln` while connections are open, and when they were closed.
fn counts(director: &Director<'_>, report: &mut Report) -> Result<Row, LabError> {
    let target = director.stage.site.vip_port(Family::V4, HTTP);
    let sum = |table: &[Listed], of: fn(&Listed) -> u64| table.iter().map(of).sum::<u64>();
    let before = director.await_table("no active connection", |table| sum(table, |row| row.active) == 0)?;
    let resting = sum(&before, |row| row.inactive);
    let held = director.stage.site.lab.node(CLIENT)?.run(|| -> std::io::Result<Vec<HttpConnection>> {
        let mut held = Vec::new();
        for _ in 0..HELD {
            let mut connection = HttpConnection::open(target, PATIENCE)?;
            connection.get("/", false)?;
            held.push(connection);
        }
        Ok(held)
    })?;
    let held = held.doing(|| format!("holding {HELD} connections open"))?;
    let open = director.await_table("open connections are active", |table| sum(table, |row| row.active) == HELD)?;
    let even = open.iter().all(|row| row.active == HELD / 2);
    drop(held);
    let closed = director.await_table("closed connections are inactive", |table| {
        sum(table, |row| row.active) == 0 && sum(table, |row| row.inactive) >= HELD
    })?;
    let pair = |table: &[Listed]| {
        table.iter().map(|row| format!("{}/{}", row.active, row.inactive)).collect::<Vec<_>>().join(" and ")
    };
    let here = format!("{} before ({resting} inactive), {} open, {} after", pair(&before), pair(&open), pair(&closed));
    report.check("ActiveConn and InActConn move with connections, alike at both servers", even, &here);
    Ok(Row { what: "`ipvsadm -Ln`: ActiveConn/InActConn move", there: "yes", here })
}

/// A server is taken out and put back while requests come; nobody notices.
fn by_hand(director: &Director<'_>, report: &mut Report, plan: &LoadPlan) -> Result<Vec<Row>, LabError> {
    let client = director.stage.site.lab.node(CLIENT)?;
    let server = SERVERS[1];
    let load = Load::start(client, plan)?;
    await_answers(&load, &Tally::default(), &["server1", "server2"])?;
    // Connections that a server still has when it is taken out are reset, as those of no other are: it is emptied first.
    let start = Instant::now();
    director.shell(&format!("ipvsadm -e -t {SERVICE} -r {server} -g -w 0"))?;
    // A handshake that is under way is none of the active connections.
    thread::sleep(HANDSHAKE);
    director.await_table("the server of weight 0 has no active connection", |table| {
        table.iter().any(|row| row.server == server && row.weight == 0 && row.active == 0)
    })?;
    director.shell(&format!("ipvsadm -d -t {SERVICE} -r {server}"))?;
    let out = start.elapsed();
    let gone = director.table()?.iter().all(|row| row.server != server);
    // What was on its way has come.
    thread::sleep(Duration::from_millis(100));
    let before = load.tally();
    await_answers(&load, &before, &["server1"])?;
    thread::sleep(Duration::from_millis(500));
    let without = load.tally().since(&before);
    let start = Instant::now();
    director.shell(&format!("ipvsadm -a -t {SERVICE} -r {server} -g -w 1"))?;
    let back = start.elapsed();
    let before = load.tally();
    await_answers(&load, &before, &["server1", "server2"])?;
    let tally = load.stop();
    let taken = gone && without.of("server2") == 0 && without.answered() > 0;
    let seen = format!("{} requests meanwhile, {} of them at server2", without.answered(), without.of("server2"));
    report.check("`ipvsadm -d`: a server that is taken out gets no request", taken, &seen);
    let seen = format!("{} answers, {} failed {}", tally.answered(), tally.failures, tally.reasons.join("; "));
    report.check("a server goes and comes back, and no request fails", tally.failures == 0, &seen);
    Ok(vec![
        Row {
            what: "`ipvsadm -e -w 0`, `-d`: a server is taken out by hand",
            there: "yes",
            here: format!("{}, {seen}", millis(out)),
        },
        Row { what: "`ipvsadm -a` puts it back", there: "yes", here: format!("after {}, none failed", millis(back)) },
    ])
}

/// Waits until each of the servers has answered a few more requests than at `since`.
fn await_answers(load: &Load, since: &Tally, servers: &[&str]) -> Result<(), LabError> {
    let start = Instant::now();
    loop {
        let tally = load.tally().since(since);
        if servers.iter().all(|server| tally.of(server) >= 5) {
            return Ok(());
        }
        if start.elapsed() > START {
            let detail = format!("; {:?}, {} failed: {:?}", tally.answers, tally.failures, tally.reasons);
            return Err(LabError::Timeout { what: format!("answers of {servers:?}"), after: START, detail });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The table is cleared and built anew, command by command; then weights 1 and 3.
fn one_by_one(director: &Director<'_>, report: &mut Report, plan: &LoadPlan) -> Result<Row, LabError> {
    let commands = [
        "ipvsadm -C".to_owned(),
        format!("ipvsadm -A -t {SERVICE} -s rr"),
        format!("ipvsadm -a -t {SERVICE} -r {} -g -w 1", SERVERS[0]),
        format!("ipvsadm -a -t {SERVICE} -r {} -g -w 1", SERVERS[1]),
    ];
    let start = Instant::now();
    for command in &commands {
        director.shell(command)?;
    }
    let took = start.elapsed();
    let same = sorted(&director.shell("ipvsadm -S -n")?) == sorted(RULES);
    director.stage.engine.await_ready(START)?;
    for command in
        [format!("ipvsadm -E -t {SERVICE} -s wrr"), format!("ipvsadm -e -t {SERVICE} -r {} -g -w 3", SERVERS[1])]
    {
        director.shell(&command)?;
    }
    let forwards = director.table()?.iter().all(|row| row.forward == "Route");
    let tally = requests(director.stage.site.lab.node(CLIENT)?, plan, 40)?;
    let heavy = tally.failures == 0 && tally.of("server2") == 30;
    let here = format!(
        "four commands in {}; then `-E -s wrr`, `-e -w 3`: {} and {} of 40 requests",
        millis(took),
        tally.of("server1"),
        tally.of("server2")
    );
    let good = same && forwards && heavy;
    report.check("`-C`, `-A`, `-a`, `-E`, `-e` do what they do to IPVS", good, format!("{here} {:?}", tally.reasons));
    Ok(Row { what: "the same commands, one after the other", there: "yes", here })
}

/// A server forgets its `arp_ignore`: it is named; it is told to be silent again: that is over.
fn arp(stage: &Stage, report: &mut Report) -> Result<Vec<Row>, LabError> {
    let server = &stage.site.servers[1];
    let (vip, name) = (stage.site.vip(Family::V4).to_string(), format!("server {} ", server.v4));
    let quiet =
        |key: &str, value: &str| stage.site.lab.setting(&server.name, &format!("net/ipv4/conf/all/{key}"), value);
    let warned = |status: &serde_json::Value| {
        let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
        let texts: Vec<String> = warnings.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
        texts.into_iter().filter(|text| text.contains("answers ARP") && text.contains(&vip)).collect::<Vec<_>>()
    };
    let before = warned(&stage.engine.status()?);
    report.check("as long as all servers are silent nobody is named", before.is_empty(), before.join("; "));
    quiet("arp_ignore", "0")?;
    let start = Instant::now();
    let status =
        stage.engine.await_status(NOTICE, "the server that answers ARP", |status| !warned(status).is_empty())?;
    let found = start.elapsed();
    let said = warned(&status);
    let named = said.len() == 1 && said[0].starts_with(&name);
    report.check("a server that answers ARP for the service address is named", named, said.join("; "));
    quiet("arp_ignore", "1")?;
    let start = Instant::now();
    stage.engine.await_status(NOTICE, "that it is silent again", |status| warned(status).is_empty())?;
    let over = start.elapsed();
    let log = stage.engine.process().output();
    let lines = log.lines().filter(|line| line.contains(&name) && line.contains("answers ARP for the service")).count();
    let once = lines == 2 && log.contains("no longer");
    report.check("it is logged once that it answers, and once that it does no longer", once, format!("{lines} lines"));
    Ok(vec![
        Row {
            what: "a server that answers ARP for the service address",
            there: "found by hand",
            here: format!("named after {:.1} s: {}", found.as_secs_f64(), name.trim()),
        },
        Row { what: "it is set right", there: "", here: format!("over after {:.1} s", over.as_secs_f64()) },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table_are_read() {
        let listed = row("  -> 123.234.1.111:80             Route   1      2          3         ").unwrap();
        let wanted = Listed { server: SERVERS[0].into(), forward: "Route".into(), weight: 1, active: 2, inactive: 3 };
        assert_eq!(listed, wanted);
        assert_eq!(row("  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"), None);
        assert_eq!(row("TCP  123.234.1.101:80 rr"), None);
    }

    #[test]
    fn the_rules_name_the_addresses_of_the_site() {
        assert!(sorted(RULES).len() == 3 && RULES.contains(SERVICE));
        assert!(SERVERS.iter().all(|server| RULES.contains(server)));
    }
}
