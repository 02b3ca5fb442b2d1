//! The deployment `dns-dsr`: two directors and two DNS caches on one segment, direct routing, UDP and TCP. What was done to it
//! with keepalived and LVS is done here, and both results are shown.
//!
//! Owns the rows of its table. The servers are real ones, and so are the clients that only ask now and then; a client that
//! asks every 5 ms finds out how long nobody answered.

use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use toml::{Table, Value};

use super::ipvsadm::Ipvsadm;
use super::pairs::{Pair, SLACK};
use super::report::{Report, Row, millis};
use super::{RunOptions, START, imported};
use crate::lab::client::dns::dig;
use crate::lab::client::load::Tally;
use crate::lab::client::pulse::{Found, Pulse};
use crate::lab::engine::{Engine, EngineConfig, find_server};
use crate::lab::error::LabError;
use crate::lab::process;
use crate::lab::router::VrrpPlan;
use crate::lab::server::unbound::{NAMES, PORT, Unbound};
use crate::lab::site::{CLIENT, Family, Plan, Reach, Site, SiteOptions, USUAL, appliance};
use crate::model::Protocol;

/// Its network: the addresses of the site's own configuration, inside the lab's namespaces.
pub const SITE: SiteOptions = SiteOptions {
    servers: 2,
    reach: Reach::Direct,
    appliances: 2,
    plan: Plan { front: [192, 168, 0], vip: 141, client: 50, appliance: 138, first_server: 142, ..USUAL },
    ..SiteOptions::USUAL
};

const FAMILY: Family = Family::V4;
const ROUTER: &str = "VRRP_1";
const STEADY: Duration = Duration::from_millis(300);
/// Questions of `dig` by each protocol.
const QUESTIONS: u64 = 20;

/// How fast the scenario's own clocks go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Time between adverts.
    pub advert: Duration,
    /// Time between checks, and how long one may take.
    pub check: Duration,
    /// Attempts besides the first one before a check has failed.
    pub retries: u16,
    /// Time between attempts.
    pub retry_delay: Duration,
}

impl Pace {
    /// That of the site: 3 s adverts, `delay_loop 5`, `connect_timeout 5`, `retry 3`; keepalived's own 5 s between attempts of
    /// a DNS check.
    pub const SITE: Pace = Pace {
        advert: Duration::from_secs(3),
        check: Duration::from_secs(5),
        retries: 3,
        retry_delay: Duration::from_secs(5),
    };
    /// What an operator would choose who wants to lose little.
    pub const FAST: Pace = Pace {
        advert: Duration::from_millis(100),
        check: Duration::from_millis(500),
        retries: 1,
        retry_delay: Duration::from_millis(100),
    };

    /// How long a dead server may be asked at worst (one that refuses at once).
    fn notice(self) -> Duration {
        self.check * 2 + (self.retry_delay + self.check) * u32::from(self.retries)
    }
}

/// Two directors with their servers.
pub struct Stage {
    pair: Pair,
    caches: Vec<Unbound>,
    ipvsadm: Ipvsadm,
    /// Names of the services over UDP and TCP.
    services: [String; 2],
    imported: EngineConfig,
    routers: VrrpPlan,
    pace: Pace,
}

/// Something that was done, and what came of it.
struct Step {
    what: &'static str,
    there: &'static str,
    here: String,
    good: bool,
}

impl Stage {
    /// Builds the network and starts everything.
    pub fn set(options: &RunOptions, pace: Pace) -> Result<Self, LabError> {
        let site = Pair::site(SITE)?;
        let caches =
            site.servers.iter().map(|server| Unbound::start(&site, server, FAMILY)).collect::<Result<Vec<_>, _>>()?;
        let imported = configuration(&site, options)?;
        let vip = site.vip(FAMILY);
        let services = [
            imported::service(&imported, vip, Protocol::Udp, PORT)?,
            imported::service(&imported, vip, Protocol::Tcp, PORT)?,
        ];
        let mut config = paced(&imported, pace);
        let plan = imported::routers(&mut config)?;
        let plans = [part(&plan, 0, pace), part(&plan, 1, pace)];
        let mut pair = Pair::new(site, &options.program, &config, plans)?;
        pair.start()?;
        pair.await_master(0, ROUTER, START + pace.advert * 4)?;
        let Some(engine) = pair.speakers[0].engine() else {
            return Err(LabError::Unexpected("the first director does not run".into()));
        };
        let ipvsadm = Ipvsadm::new(&pair.site, engine)?;
        let stage = Stage { pair, caches, ipvsadm, services, imported, routers: plan, pace };
        for number in [0, 1] {
            stage.await_weights(number, [1, 1], START + pace.notice())?;
        }
        Ok(stage)
    }

    /// Its network.
    pub fn network(&self) -> &Site {
        &self.pair.site
    }

    /// The appliances' last words.
    pub fn last_words(&self) -> String {
        self.pair.speakers.iter().map(|speaker| speaker.last_words(20)).collect::<Vec<_>>().join("\n")
    }

    /// Does what was done to the site, and reports.
    pub fn run(&mut self) -> Result<Report, LabError> {
        let divided = self.divided()?;
        let steps = vec![
            divided,
            self.cut()?,
            self.network_returns()?,
            self.shut_down()?,
            self.program_stops()?,
            self.server_stops()?,
            self.server_starts()?,
            self.both_stop()?,
            self.by_ipvsadm()?,
            self.by_hand()?,
        ];
        let mut report = Report::new("dns-dsr", &Tally::default());
        for step in steps {
            report.check(step.what, step.good, &step.here);
            report.rows.push(Row { what: step.what, there: step.there, here: step.here });
        }
        Ok(report)
    }

    fn pulse(&self) -> Result<Pulse, LabError> {
        let target = self.pair.site.vip_port(FAMILY, PORT);
        let pulse = Pulse::questions(self.pair.site.lab.node(CLIENT)?, target)?;
        pulse.await_steady(STEADY, START)?;
        Ok(pulse)
    }

    /// `dig` over UDP and TCP: both servers answer alike, and the active director alone has counted that.
    fn divided(&mut self) -> Result<Step, LabError> {
        let before = [self.counts(0)?, self.counts(1)?];
        let target = self.pair.site.vip_port(FAMILY, PORT);
        let mut right = 0;
        for _ in 0..QUESTIONS {
            for tcp in [false, true] {
                right += u64::from(dig(&self.pair.site, target, tcp)?.trim() == NAMES.1);
            }
        }
        let after = [self.counts(0)?, self.counts(1)?];
        let counted = [0, 1].map(|number: usize| {
            let pairs = after[number].iter().zip(&before[number]);
            pairs.map(|(after, before)| after - before).collect::<Vec<_>>()
        });
        let half = QUESTIONS / 2;
        let good = right == 2 * QUESTIONS && counted[0] == [half; 4] && counted[1] == [0; 4];
        let [active, backup] = &counted;
        let here = format!(
            "{right} of {} right; active director: UDP {}+{}, TCP {}+{}; the other one: {}",
            2 * QUESTIONS,
            active[0],
            active[1],
            active[2],
            active[3],
            backup.iter().sum::<u64>()
        );
        Ok(Step { what: "queries divide evenly, only the active director counts them", there: "yes", here, good })
    }

    /// With the site's adverts; and, the other way round, with faster ones.
    fn cut(&mut self) -> Result<Step, LabError> {
        let mut here = self.moving(1, |stage| stage.pair.site.plug(appliance(0), "eth0", false))?;
        if self.pace.advert > Pace::FAST.advert {
            self.pair.site.plug(appliance(0), "eth0", true)?;
            self.set_adverts(Pace::FAST.advert)?;
            self.moving(0, |stage| stage.pair.site.plug(appliance(1), "eth0", false))?;
            self.pair.site.plug(appliance(1), "eth0", true)?;
            let fast = self.moving(1, |stage| stage.pair.site.plug(appliance(0), "eth0", false))?;
            self.set_adverts(self.pace.advert)?;
            // Another version of VRRP is another router: it begins as backup.
            thread::sleep(self.pair.speakers[1].plan().routers[0].master_down());
            self.pair.await_master(1, ROUTER, START)?;
            here = format!("{here}; {fast} with an advert every 0.1 s");
        }
        Ok(Step {
            what: "director loses its network: address moves",
            there: "about 5 s of lost pings",
            here,
            good: true,
        })
    }

    fn network_returns(&mut self) -> Result<Step, LabError> {
        let pulse = self.pulse()?;
        self.pair.site.plug(appliance(0), "eth0", true)?;
        let down = self.pair.speakers[0].plan().routers[0].master_down();
        thread::sleep(down + Duration::from_millis(500));
        let found = pulse.stop();
        let owners = self.pair.owners(self.pair.site.vip(FAMILY))?;
        let good = owners == [1].into() && found.lost == 0;
        let stays = if owners == [1].into() { "no fail-back" } else { "it came back" };
        let here = format!("{stays}, {} of {} queries lost", found.lost, found.sent);
        Ok(Step { what: "that network returns: no fail-back, nothing lost", there: "0", here, good })
    }

    /// The whole box: its program ends in order, then its network is gone.
    fn shut_down(&mut self) -> Result<Step, LabError> {
        let here = self.moving(0, |stage| {
            stage.pair.speakers[1].ask_to_end()?;
            stage.pair.speakers[1].await_end()?;
            stage.pair.site.plug(appliance(1), "eth0", false)
        })?;
        self.pair.site.plug(appliance(1), "eth0", true)?;
        self.pair.start_one(1)?;
        self.await_weights(1, [1, 1], START + self.pace.notice())?;
        Ok(Step { what: "director shut down cleanly: address moves", there: "1-2 s", here, good: true })
    }

    fn program_stops(&mut self) -> Result<Step, LabError> {
        let here = self.moving(1, |stage| {
            stage.pair.speakers[0].ask_to_end()?;
            stage.pair.speakers[0].await_end()
        })?;
        self.pair.start_one(0)?;
        self.await_weights(0, [1, 1], START + self.pace.notice())?;
        let what = "the program (there: keepalived) stopped: address moves";
        Ok(Step { what, there: "about 2 s", here, good: true })
    }

    /// Both directors notice by themselves.
    fn server_stops(&mut self) -> Result<Step, LabError> {
        let slow = self.stops()?;
        self.starts()?;
        let mut fast = self.fast(|stage| stage.stops())?;
        fast.1.push_str(" with a check every 0.5 s");
        let here = format!("{}; {}", slow.1, fast.1);
        let good = slow.0 && fast.0;
        Ok(Step { what: "a DNS server stops: its weight becomes 0", there: "more than 10 s", here, good })
    }

    fn server_starts(&mut self) -> Result<Step, LabError> {
        let mut fast = self.fast(|stage| stage.starts())?;
        fast.1.push_str(" with a check every 0.5 s");
        self.stops()?;
        let slow = self.starts()?;
        let here = format!("{}; {}", slow.1, fast.1);
        Ok(Step { what: "it starts again: weight back", there: "about 3 s", here, good: slow.0 && fast.0 })
    }

    /// Stops the first server and waits until both directors know; in words.
    fn stops(&mut self) -> Result<(bool, String), LabError> {
        let pulse = self.pulse()?;
        let start = Instant::now();
        self.caches[0].stop();
        let out = self.await_both([0, 1], start)?;
        // Questions that are on their way are the last ones that it gets.
        let settled = Instant::now() + Duration::from_millis(100);
        thread::sleep(Duration::from_millis(600));
        let later = pulse.since(settled);
        let good = few(&later);
        let (lost, late) = (pulse.stop().lost, later.lost);
        let note = if late == 0 { String::new() } else { format!(", {late} of {} after that", later.sent) };
        Ok((good, format!("after {} ({lost} queries lost until then{note})", seconds(out))))
    }

    /// Starts the first server and waits until both directors know; in words.
    fn starts(&mut self) -> Result<(bool, String), LabError> {
        let pulse = self.pulse()?;
        self.caches[0].start_again(&self.pair.site, FAMILY)?;
        let start = Instant::now();
        let back = self.await_both([1, 1], start)?;
        let found = pulse.stop();
        Ok((few(&found), format!("after {} ({} of {} queries lost)", seconds(back), found.lost, found.sent)))
    }

    /// Does something while checks go fast.
    fn fast<T>(&mut self, work: impl FnOnce(&mut Stage) -> Result<T, LabError>) -> Result<T, LabError> {
        let usual = self.pace;
        self.set_pace(Pace { advert: usual.advert, ..Pace::FAST })?;
        let done = work(self);
        self.set_pace(usual)?;
        done
    }

    /// Gives both directors adverts at that interval; the second one, which is master, stays it.
    fn set_adverts(&mut self, interval: Duration) -> Result<(), LabError> {
        // The master first: the other one must not miss adverts that do not come yet.
        for (number, speaker) in (0..2).zip(&mut self.pair.speakers).rev() {
            speaker.tell(part(&self.routers, number, Pace { advert: interval, ..self.pace }))?;
        }
        Ok(())
    }

    fn set_pace(&mut self, pace: Pace) -> Result<(), LabError> {
        self.pace = pace;
        let mut config = paced(&self.imported, pace);
        config.take("virtual_router");
        for speaker in &mut self.pair.speakers {
            speaker.change(|current| current.clone_from(&config))?;
        }
        Ok(())
    }

    fn both_stop(&mut self) -> Result<Step, LabError> {
        let target = self.pair.site.vip_port(FAMILY, PORT);
        self.caches.iter().for_each(Unbound::stop);
        self.await_both([0, 0], Instant::now())?;
        let answer = |stage: &Stage, tcp| dig(&stage.pair.site, target, tcp).unwrap_or_default().trim() == NAMES.1;
        let asked = Instant::now();
        let fails = !answer(self, false) && !answer(self, true);
        let took = asked.elapsed() / 2;
        self.caches[1].start_again(&self.pair.site, FAMILY)?;
        let start = Instant::now();
        self.await_both([0, 1], start)?;
        let back = start.elapsed();
        let works = answer(self, false) && answer(self, true);
        self.caches[0].start_again(&self.pair.site, FAMILY)?;
        self.await_both([1, 1], Instant::now())?;
        let here = format!(
            "{}, told after {}; {} {} after one started",
            if fails { "no names" } else { "names are still found" },
            millis(took),
            if works { "back" } else { "not back" },
            seconds(back)
        );
        let what = "both stopped: name resolution fails; back when one returns";
        Ok(Step { what, there: "yes", here, good: fails && works })
    }

    /// `ipvsadm -d` and `-a` at the active director; the other one knows nothing of it.
    fn by_ipvsadm(&mut self) -> Result<Step, LabError> {
        let active = self.active()?;
        let server = self.pair.site.servers[0].clone();
        let (vip, address) = (self.pair.site.vip_port(FAMILY, PORT), server.address(FAMILY));
        let each = |words: &str, rest: &str| {
            let one = |protocol| format!("ipvsadm {words} -{protocol} {vip} -r {address}:{PORT}{rest}");
            format!("{} && {}", one('u'), one('t'))
        };
        let pulse = self.pulse()?;
        let start = Instant::now();
        self.shell(active, &each("-d", ""))?;
        let out = start.elapsed();
        let gone = [self.has(active, address)?, self.has(1 - active, address)?] == [0, 2];
        // Answers that were on their way are the last ones.
        thread::sleep(Duration::from_millis(100));
        let from = Instant::now();
        thread::sleep(Duration::from_millis(500));
        let without = pulse.since(from);
        let silent = !without.answers.contains_key(&server.name) && without.answers.values().sum::<u64>() > 0;
        let start = Instant::now();
        self.shell(active, &each("-a", " -g -w 1"))?;
        let back = start.elapsed();
        let there = [self.has(active, address)?, self.has(1 - active, address)?] == [2, 2];
        self.await_weights(active, [1, 1], START)?;
        // Its answers show that it is back in service, not in the table alone.
        let from = Instant::now();
        let answers = loop {
            let answers = pulse.since(from).answers.get(&server.name).copied().unwrap_or(0);
            if answers > 0 || from.elapsed() > START {
                break answers;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let found = pulse.stop();
        // The file has its check still.
        for speaker in &mut self.pair.speakers {
            speaker.change(|_| ())?;
        }
        self.await_both([1, 1], Instant::now())?;
        let good = gone && silent && there && answers > 0 && few(&found);
        let here = format!(
            "{} after {}, {} after {}, {} of {} queries lost",
            if gone && silent { "out" } else { "not out" },
            millis(out),
            if there && answers > 0 { "back" } else { "not back" },
            millis(back),
            found.lost,
            found.sent
        );
        let what = "`ipvsadm -d` takes a server out by hand, `-a` puts it back, on one director";
        Ok(Step { what, there: "yes", here, good })
    }

    /// The director that answers for the address.
    fn active(&self) -> Result<u8, LabError> {
        let owners = self.pair.owners(self.pair.site.vip(FAMILY))?;
        match owners.iter().copied().collect::<Vec<_>>()[..] {
            [one] => Ok(one),
            _ => Err(LabError::Unexpected(format!("one director should be active, but {owners:?} answer"))),
        }
    }

    /// Runs a line of a shell at a director, with the engine's program as `ipvsadm`.
    fn shell(&self, number: u8, line: &str) -> Result<String, LabError> {
        let engine = self.engines()?[usize::from(number)];
        self.ipvsadm.shell(&self.pair.site, appliance(number), engine, line)
    }

    /// How many services of a director have a server.
    fn has(&self, number: u8, server: IpAddr) -> Result<usize, LabError> {
        let status = self.engines()?[usize::from(number)].status()?;
        Ok(self.services.iter().filter(|service| find_server(&status, service, server).is_some()).count())
    }

    /// One command takes a server out at both directors, one puts it back.
    fn by_hand(&mut self) -> Result<Step, LabError> {
        let server = self.pair.site.servers[0].clone();
        let (name, address) = (server.name.clone(), server.address(FAMILY));
        let pulse = self.pulse()?;
        let start = Instant::now();
        self.server_command("drain", &address.to_string())?;
        let out = start.elapsed();
        self.await_both([0, 1], start)?;
        // Answers that were on their way are the last ones.
        thread::sleep(Duration::from_millis(100));
        let from = Instant::now();
        thread::sleep(Duration::from_millis(500));
        let found = pulse.since(from);
        // But for ports that the client used again.
        let (all, own) = (found.answers.values().sum::<u64>(), found.answers.get(&name).copied().unwrap_or(0));
        let drained = own * 10 < all;
        let start = Instant::now();
        self.server_command("ready", &address.to_string())?;
        let back = start.elapsed();
        self.await_both([1, 1], start)?;
        let lost = pulse.stop().lost;
        let good = drained && lost == 0;
        let here = format!(
            "out at both after {}, back after {}, one command each, {lost} queries lost",
            millis(out),
            millis(back)
        );
        let what = "and on both, from one command each";
        Ok(Step { what, there: "no: on one director", here, good })
    }

    fn server_command(&self, action: &str, server: &str) -> Result<(), LabError> {
        let engines = self.engines()?;
        let mut command = Command::new(engines[0].program());
        command.args(["server", action, server]);
        for engine in engines {
            command.arg("--socket").arg(engine.socket());
        }
        process::output(self.pair.site.lab.node(CLIENT)?, &command).map(drop)
    }

    fn engines(&self) -> Result<[&Engine; 2], LabError> {
        match [self.pair.speakers[0].engine(), self.pair.speakers[1].engine()] {
            [Some(first), Some(second)] => Ok([first, second]),
            _ => Err(LabError::Unexpected("both directors should run".into())),
        }
    }

    /// Flows since start at a director: UDP of each server, then TCP of each.
    fn counts(&self, number: usize) -> Result<Vec<u64>, LabError> {
        let status = self.engines()?[number].status()?;
        let count = |service: &str, server: &crate::lab::site::SiteServer| {
            find_server(&status, service, server.address(FAMILY)).and_then(|found| found["connections"].as_u64())
        };
        let all = self.services.iter().flat_map(|name| self.pair.site.servers.iter().map(|server| count(name, server)));
        Ok(all.map(Option::unwrap_or_default).collect())
    }

    /// Waits until both directors give the servers these weights, in both services; how long that was from `start` on.
    fn await_both(&self, weights: [u64; 2], start: Instant) -> Result<Duration, LabError> {
        let mut last = Duration::ZERO;
        for number in [1, 0] {
            self.await_weights(number, weights, self.pace.notice() * 2 + START)?;
            last = last.max(start.elapsed());
        }
        Ok(last)
    }

    fn await_weights(&self, number: u8, weights: [u64; 2], within: Duration) -> Result<(), LabError> {
        let Some(engine) = self.pair.speakers[usize::from(number)].engine() else {
            return Err(LabError::Unexpected(format!("{} does not run", appliance(number))));
        };
        let servers = &self.pair.site.servers;
        let has = |status: &Json| {
            self.services.iter().all(|service| {
                servers.iter().zip(weights).all(|(server, weight)| {
                    let found = find_server(status, service, server.address(FAMILY));
                    found.is_some_and(|found| found["weight"].as_u64() == Some(weight))
                })
            })
        };
        engine.await_status(within, &format!("weights {weights:?} at {}", appliance(number)), has).map(drop)
    }

    /// Moves the address to a director by `work`; in words.
    fn moving(&mut self, to: u8, work: impl FnOnce(&mut Stage) -> Result<(), LabError>) -> Result<String, LabError> {
        let pulse = self.pulse()?;
        let start = Instant::now();
        work(self)?;
        let down = self.pair.speakers[usize::from(to)].plan().routers[0].master_down();
        self.pair.await_master(to, ROUTER, down * 2 + SLACK)?;
        let moved = start.elapsed();
        pulse.await_steady(STEADY, START)?;
        let found = pulse.stop();
        let owners = self.pair.owners(self.pair.site.vip(FAMILY))?;
        if owners != [to].into() {
            let what = format!("the address should be at {} alone, but {owners:?} answer", appliance(to));
            return Err(LabError::Unexpected(what));
        }
        Ok(format!("after {}, {} without answers", seconds(moved), millis(found.longest())))
    }
}

/// Builds the scenario, runs it and reports; for tests and the command line.
pub fn run(options: &RunOptions, pace: Pace) -> Result<Report, LabError> {
    Stage::set(options, pace)?.run()
}

/// Whether no more was lost than by ports that the client used again: a conversation stays with its server, also with one of weight 0, as
/// in IPVS.
fn few(found: &Found) -> bool {
    found.sent > 0 && found.lost * 10 <= found.sent
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// The site's own configuration. One client stands for many: it uses its ports again sooner than they would.
fn configuration(site: &Site, options: &RunOptions) -> Result<EngineConfig, LabError> {
    let mut config = imported::keepalived(site, &options.program, "dns-dsr")?;
    if let Some(mode) = options.mode {
        config.set("engine", "mode", vec![mode.name()]);
    }
    config.each("service", |service| {
        let timeouts = service.entry("timeouts").or_insert_with(|| Table::new().into());
        if let Some(timeouts) = timeouts.as_table_mut() {
            timeouts.insert("udp".into(), 5.into());
        }
    });
    Ok(config)
}

/// The imported configuration with checks at another pace than the site's.
fn paced(imported: &EngineConfig, pace: Pace) -> EngineConfig {
    let mut config = imported.clone();
    if pace.check != Pace::SITE.check {
        config.each("service", |service| {
            imported::each_check(service, |check| {
                let mut set = |key: &str, value: Value| drop(check.insert(key.into(), value));
                set("interval", pace.check.as_secs_f64().into());
                set("timeout", pace.check.as_secs_f64().into());
                set("retries", i64::from(pace.retries).into());
                set("retry_delay", pace.retry_delay.as_secs_f64().into());
                set("warmup", pace.retry_delay.as_secs_f64().into());
            });
        });
    }
    config
}

/// A director's part of the imported routers, which are the first one's.
fn part(imported: &VrrpPlan, number: u8, pace: Pace) -> VrrpPlan {
    let mut plan = imported.clone();
    for router in &mut plan.routers {
        if pace.advert != Pace::SITE.advert {
            *router = router.clone().fast(pace.advert);
        }
        if number == 1 {
            router.priority = 50;
        }
    }
    plan
}
