//! One appliance of a pair that speaks VRRP: Evenkeel, or the real keepalived, behind one face.
//!
//! Owns its process and its plan. It is started, told a new plan, asked to end and killed as an operator would do it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::engine::{Engine, EngineConfig};
use super::error::LabError;
use super::keepalived::Keepalived;
use super::process::Process;
use super::router::VrrpPlan;
use super::site::{Site, appliance};

/// How long either program may take to end when asked: keepalived needs a second for its farewell.
const END: Duration = Duration::from_secs(8);

/// A program that speaks VRRP.
#[derive(Clone, Debug)]
pub enum Make {
    /// Evenkeel: the program, and its configuration without virtual routers.
    Evenkeel(PathBuf, EngineConfig),
    /// The real keepalived.
    Keepalived,
}

impl Make {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Make::Evenkeel(..) => "evenkeel",
            Make::Keepalived => "keepalived",
        }
    }
}

enum Running {
    Evenkeel(Engine),
    Keepalived(Keepalived),
}

/// An appliance that speaks VRRP.
pub struct Speaker {
    /// Number of the appliance (0, 1).
    pub number: u8,
    make: Make,
    plan: VrrpPlan,
    running: Option<Running>,
    /// What earlier runs of it said.
    said: String,
}

impl Speaker {
    /// Appliance number `number`; nothing runs yet.
    pub fn new(number: u8, make: Make, plan: VrrpPlan) -> Self {
        Speaker { number, make, plan, running: None, said: String::new() }
    }

    /// What it runs.
    pub fn make(&self) -> &Make {
        &self.make
    }

    /// What it was told.
    pub fn plan(&self) -> &VrrpPlan {
        &self.plan
    }

    /// Its node.
    pub fn node(&self) -> &'static str {
        appliance(self.number)
    }

    /// Starts it. Does not wait for anything.
    pub fn start(&mut self, site: &Site) -> Result<(), LabError> {
        self.keep_words();
        self.running = Some(match &self.make {
            Make::Evenkeel(program, config) => {
                Running::Evenkeel(Engine::start(&site.lab, self.node(), program, &self.whole(config))?)
            }
            Make::Keepalived => {
                Running::Keepalived(Keepalived::start(&site.lab, self.node(), &self.plan.keepalived())?)
            }
        });
        Ok(())
    }

    /// Gives it a new plan: written to its file, then read again.
    pub fn tell(&mut self, plan: VrrpPlan) -> Result<(), LabError> {
        self.plan = plan;
        match (&self.running, &self.make) {
            (Some(Running::Evenkeel(engine)), Make::Evenkeel(_, config)) => {
                engine.reload(&self.whole(config)).map(drop)
            }
            (Some(Running::Keepalived(keepalived)), _) => keepalived.reload(&self.plan.keepalived()),
            _ => Ok(()),
        }
    }

    /// Changes the rest of Evenkeel's configuration, which reads it again. Nothing for keepalived.
    pub fn change(&mut self, change: impl FnOnce(&mut EngineConfig)) -> Result<(), LabError> {
        if let Make::Evenkeel(_, config) = &mut self.make {
            change(config);
        }
        self.tell(self.plan.clone())
    }

    /// Asks it to end, and does not wait: see [`Speaker::await_end`].
    pub fn ask_to_end(&self) -> Result<(), LabError> {
        self.process().map_or(Ok(()), |process| process.signal(Signal::SIGTERM))
    }

    /// Waits for its end after [`Speaker::ask_to_end`].
    pub fn await_end(&mut self) -> Result<(), LabError> {
        if let Some(process) = self.process() {
            process.wait(END)?;
        }
        self.keep_words();
        self.running = None;
        Ok(())
    }

    /// Ends it without a word (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(process) = self.process() {
            process.kill();
        }
        self.keep_words();
        self.running = None;
    }

    /// The engine, where it is Evenkeel and runs.
    pub fn engine(&self) -> Option<&Engine> {
        match &self.running {
            Some(Running::Evenkeel(engine)) => Some(engine),
            _ => None,
        }
    }

    /// Everything it printed, in all its runs.
    pub fn log(&self) -> String {
        format!("{}{}", self.said, self.process().map(Process::output).unwrap_or_default())
    }

    /// The last `lines` lines of it.
    pub fn last_words(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        format!(
            "{} ({}):\n    {}",
            self.node(),
            self.make.name(),
            all[all.len().saturating_sub(lines)..].join("\n    ")
        )
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<&Process> {
        match self.running.as_ref()? {
            Running::Evenkeel(engine) => Some(engine.process()),
            Running::Keepalived(keepalived) => Some(keepalived.process()),
        }
    }

    fn whole(&self, config: &EngineConfig) -> EngineConfig {
        let mut config = config.clone();
        self.plan.evenkeel(&mut config);
        config
    }

    fn keep_words(&mut self) {
        let words = self.process().map(Process::output).unwrap_or_default();
        self.said.push_str(&words);
    }
}

/// A `Make` for each appliance: Evenkeel with the same base configuration on both.
pub fn evenkeel(program: &Path, config: &EngineConfig) -> Make {
    Make::Evenkeel(program.to_owned(), config.clone())
}
