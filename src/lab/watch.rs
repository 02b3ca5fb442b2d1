//! A listener at the switch ports of a site's appliances: who says what, and when.
//!
//! Owns what each appliance sends about its addresses, with the kernel's time of each frame, and the same frames as a
//! capture file for tcpdump. Sees unicast as well as multicast. Never sends.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

use super::adverts::{self, Advert, Said};
use super::client::frames::Frames;
use super::error::{Doing, LabError};
use super::process::{output, require};
use super::site::{Site, appliance};

/// Something that an appliance said.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When the switch got it.
    pub at: SystemTime,
    /// Number of the appliance (0, 1).
    pub from: u8,
    /// What.
    pub said: Said,
    frame: Vec<u8>,
}

impl Heard {
    /// The advert, if it is one.
    pub fn advert(&self) -> Option<&Advert> {
        match &self.said {
            Said::Advert(advert) => Some(advert),
            _ => None,
        }
    }
}

/// A running listener; stopped when dropped.
pub struct Watch {
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Listens at the ports of `interface` of every appliance.
    pub fn start(site: &Site, interface: &str) -> Result<Self, LabError> {
        let mut watch = Watch { heard: Arc::default(), stop: Arc::default(), threads: Vec::new() };
        for number in 0..site.options.appliances {
            let (segment, port) = site.port_of(appliance(number), interface);
            let segment = site.lab.node(segment)?;
            let mut frames = Frames::open(segment, &port)?;
            frames.stamp()?;
            let (heard, stop) = (Arc::clone(&watch.heard), Arc::clone(&watch.stop));
            let listen = move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some((at, frame)) = frames.poll_stamped() else { continue };
                    if let Some(said) = adverts::read(&frame) {
                        lock(&heard).push(Heard { at, from: number, said, frame });
                    }
                }
            };
            let thread = thread::Builder::new().name(format!("watch-{port}")).spawn(listen);
            watch.threads.push(thread.doing(|| "starting a thread".into())?);
        }
        Ok(watch)
    }

    /// Everything heard so far, in the order of time.
    pub fn heard(&self) -> Vec<Heard> {
        let mut all = lock(&self.heard).clone();
        all.sort_by_key(|heard| heard.at);
        all
    }

    /// All adverts of a virtual router since `since`, in the order of time.
    pub fn adverts(&self, vrid: u8, since: SystemTime) -> Vec<Heard> {
        let mut all = self.heard();
        all.retain(|heard| heard.at >= since && heard.advert().is_some_and(|advert| advert.vrid == vrid));
        all
    }

    /// Who sent adverts of a router, other than farewells, in the last `period`: by number.
    pub fn masters(&self, vrid: u8, period: Duration) -> Vec<u8> {
        let since = SystemTime::now() - period;
        let mut masters: Vec<u8> = lock(&self.heard)
            .iter()
            .rev()
            .take_while(|heard| heard.at + period > since)
            .filter(|heard| heard.at >= since)
            .filter(|heard| heard.advert().is_some_and(|advert| advert.vrid == vrid && advert.priority > 0))
            .map(|heard| heard.from)
            .collect();
        masters.sort_unstable();
        masters.dedup();
        masters
    }

    /// Waits until one appliance alone has sent a router's adverts, for two intervals and a little. Returns the time of the
    /// first advert that it sent after the last of somebody else's.
    pub fn await_only(
        &self,
        number: u8,
        vrid: u8,
        interval: Duration,
        within: Duration,
    ) -> Result<SystemTime, LabError> {
        let start = Instant::now();
        let period = interval * 2 + Duration::from_millis(60);
        while self.masters(vrid, period) != [number] {
            if start.elapsed() > within {
                return Err(LabError::Timeout {
                    what: format!("{} being the only master of router {vrid}", appliance(number)),
                    after: within,
                    detail: format!("; masters lately: {:?}\n    {}", self.masters(vrid, period), self.tail(vrid, 12)),
                });
            }
            thread::sleep(Duration::from_millis(3));
        }
        let all = self.adverts(vrid, SystemTime::UNIX_EPOCH);
        let own = all.iter().rev().take_while(|heard| heard.from == number);
        Ok(own.last().map_or(SystemTime::UNIX_EPOCH, |heard| heard.at))
    }

    /// When an appliance announced an address since `since`.
    pub fn announced(&self, number: u8, wanted: IpAddr, since: SystemTime) -> Vec<SystemTime> {
        let here = |heard: &Heard| matches!(heard.said, Said::Here { address, .. } if address == wanted);
        let all = self.heard().into_iter().filter(|heard| heard.from == number && heard.at >= since && here(heard));
        all.map(|heard| heard.at).collect()
    }

    /// Messages that could not be read.
    pub fn broken(&self) -> Vec<String> {
        let why = |heard: &Heard| match &heard.said {
            Said::Broken(why) => Some(why.clone()),
            _ => None,
        };
        lock(&self.heard).iter().filter_map(why).collect()
    }

    /// The last adverts of a router, for an error message.
    pub fn tail(&self, vrid: u8, count: usize) -> String {
        let all = self.adverts(vrid, SystemTime::UNIX_EPOCH);
        let now = SystemTime::now();
        let line = |heard: &Heard| {
            let ago = now.duration_since(heard.at).unwrap_or_default().as_secs_f64();
            let priority = heard.advert().map_or(0, |advert| advert.priority);
            format!("{ago:.3} s ago: {} priority {priority}", appliance(heard.from))
        };
        let lines: Vec<String> = all[all.len().saturating_sub(count)..].iter().map(line).collect();
        lines.join("\n    ")
    }

    /// Writes what was heard into a capture file of the lab.
    pub fn capture(&self, site: &Site, name: &str) -> Result<PathBuf, LabError> {
        let path = site.lab.path(name);
        let wrong = |error: pcap_file::PcapError| LabError::Unexpected(format!("writing {}: {error}", path.display()));
        let file = File::create(&path).doing(|| format!("creating {}", path.display()))?;
        let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(file, header).map_err(wrong)?;
        for heard in self.heard() {
            let at = heard.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let length = heard.frame.len() as u32;
            writer.write_packet(&PcapPacket::new(at, length, &heard.frame)).map_err(wrong)?;
        }
        Ok(path)
    }

    /// What tcpdump says about all of it (`-vvv`).
    pub fn tcpdump(&self, site: &Site, name: &str) -> Result<String, LabError> {
        let file = self.capture(site, name)?;
        let mut command = Command::new(require("tcpdump", "tcpdump")?);
        command.args(["-nn", "-vvv", "-e", "-r"]).arg(file);
        output(site.lab.node(site.segment(super::site::Network::Front))?, &command)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(heard: &Mutex<Vec<Heard>>) -> MutexGuard<'_, Vec<Heard>> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
