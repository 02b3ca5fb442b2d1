//! What a replay prints: a line of JSON for each frame, or a summary for people.
//!
//! Only counts and formats.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::reason_name;
use crate::dataplane::snapshot::{Snapshot, slot_of};
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::{DropReason, NONE, Outcome, Verdict};
use crate::model::Desired;

/// Which frame an outcome is of.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Number of the input frame, from 1, or of the one that brought this one forth; `None`: the time did.
    pub number: Option<usize>,
    /// Whether the engine made the frame or had kept it.
    pub extra: bool,
    /// Its stamp.
    pub time: Duration,
}

/// The report of one replay.
pub struct Report<'a> {
    snapshot: &'a Snapshot,
    interfaces: Vec<&'a str>,
    json: bool,
    tx: u64,
    reply: u64,
    pass: u64,
    kept: u64,
    frames: u64,
    servers: BTreeMap<(u16, u16), (u64, u64)>,
}

impl<'a> Report<'a> {
    /// A report with nothing in it.
    pub fn new(desired: &'a Desired, snapshot: &'a Snapshot, json: bool) -> Self {
        Report {
            snapshot,
            interfaces: desired.interfaces.iter().map(|i| i.name.as_str()).collect(),
            json,
            tx: 0,
            reply: 0,
            pass: 0,
            kept: 0,
            frames: 0,
            servers: BTreeMap::new(),
        }
    }

    fn server_address(&self, service: u16, server: u16) -> Option<String> {
        let service = self.snapshot.services.get(usize::from(service))?;
        let member = service.members.iter().find(|m| slot_of(m.id) == usize::from(server))?;
        Some(member.address.to_string())
    }

    /// Counts a frame and, with `--json`, prints its line.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn frame(&mut self, out: &mut impl Write, of: &Line, outcome: &Outcome) -> io::Result<()> {
        self.frames += u64::from(!of.extra);
        let (verdict, port) = match outcome.verdict {
            Verdict::Tx(port) => {
                self.tx += 1;
                let row = self.servers.entry((outcome.service, outcome.server)).or_default();
                row.0 += 1;
                row.1 += u64::from(outcome.new_flow);
                ("tx", Some(port))
            }
            Verdict::Reply(port) => {
                self.reply += 1;
                ("reply", Some(port))
            }
            Verdict::Pass => {
                self.pass += 1;
                ("pass", None)
            }
            // One pipeline has no peers to hand to.
            Verdict::Kept | Verdict::Hand(_) => {
                self.kept += 1;
                ("kept", None)
            }
            Verdict::Drop(_) => ("drop", None),
        };
        if !self.json {
            return Ok(());
        }
        let mut line = Map::new();
        let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
        put("frame", json!(of.number));
        if of.extra {
            put("extra", json!(true));
        }
        put("time", json!(of.time.as_secs_f64()));
        put("verdict", json!(verdict));
        put("reason", json!(reason_name(outcome.verdict)));
        let service = self.snapshot.services.get(usize::from(outcome.service)).filter(|_| outcome.service != NONE);
        put("service", json!(service.map(|s| &s.config.name)));
        put("server", json!(self.server_address(outcome.service, outcome.server)));
        put("new", json!(outcome.new_flow));
        put("interface", json!(port.and_then(|p| self.interfaces.get(usize::from(p)))));
        writeln!(out, "{}", Value::Object(line))
    }

    /// Prints the summary, unless lines of JSON were asked for. `stats` knows of drops without a frame, too: of fragments
    /// that waited in vain.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn end(&self, out: &mut impl Write, stats: &WorkerStats, file: Option<String>) -> io::Result<()> {
        if self.json {
            return out.flush();
        }
        let drops = DropReason::ALL.iter().map(|reason| (reason.name(), stats.drops[*reason as usize].get()));
        let drops: Vec<(&str, u64)> = drops.filter(|(_, count)| *count > 0).collect();
        let dropped: u64 = drops.iter().map(|(_, count)| count).sum();
        writeln!(out, "{} frames", self.frames)?;
        let into = file.map(|f| format!("  (in {f})")).unwrap_or_default();
        writeln!(out, "  {:>8} tx     forwarded{into}", self.tx)?;
        writeln!(out, "  {:>8} reply  answered by the appliance", self.reply)?;
        writeln!(out, "  {:>8} pass   the kernel's", self.pass)?;
        if self.kept > 0 {
            writeln!(out, "  {:>8} kept   fragments that had to wait, and are counted again", self.kept)?;
        }
        writeln!(out, "  {dropped:>8} drop")?;
        for (reason, count) in &drops {
            writeln!(out, "  {count:>8}   {reason}")?;
        }
        let mut last = NONE;
        for ((service, server), (packets, flows)) in &self.servers {
            if *service != last {
                last = *service;
                let entry = &self.snapshot.services[usize::from(*service)];
                writeln!(out, "{} ({}, {})", entry.config.name, entry.key(), entry.config.scheduler.name)?;
            }
            let name = self.server_address(*service, *server).unwrap_or_default();
            writeln!(out, "  -> {name:<40} {packets:>9} packets {flows:>9} flows")?;
        }
        out.flush()
    }
}
