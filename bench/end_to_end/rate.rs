//! Packet rates: what passes a device under overload, and what it passes without loss.
//!
//! Overload is an offered rate that none of them can take, rather than a generator that sends flat out: the generator's
//! core also receives for the device (see [`Placement`]), and one that spends it on packets that the ring refuses would
//! measure the generator.

use std::thread;
use std::time::{Duration, Instant};

use crate::Programs;
use crate::device::{Device, Kind, number, on_load_core};
use crate::quiet;
use crate::site::{BULK_PORT, GENERATOR, Placement, Site, VIP};

/// Loss that still counts as none.
const LOSS: f64 = 0.001;
/// Offered under overload, packets a second.
const OFFERED: u64 = 1_300_000;
/// Times that a disturbed sample is taken again.
const TRIES: usize = 2;
/// A new table's flows, the generator's start.
const WARM_UP: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_millis(800);

/// What was measured.
pub struct Overload {
    /// Packets a second that arrived.
    pub rate: f64,
    /// User and system time a packet, where the device is a process.
    pub cpu_ns: Option<[f64; 2]>,
    /// Nobody else computed meanwhile.
    pub undisturbed: bool,
}

/// The rate of arrivals under overload, taken again while others disturb it.
pub fn overload(programs: &Programs, kind: Kind, placement: Placement, flows: u32) -> anyhow::Result<Overload> {
    let mut measured = once(programs, kind, placement, flows)?;
    for _ in 1..TRIES {
        if measured.undisturbed {
            break;
        }
        measured = once(programs, kind, placement, flows)?;
    }
    Ok(measured)
}

fn once(programs: &Programs, kind: Kind, placement: Placement, flows: u32) -> anyhow::Result<Overload> {
    quiet::wait();
    let site = Site::new()?;
    let device = Device::start(&site, programs, kind, placement)?;
    let mut command = generator(&site, programs, flows)?;
    command.args(["--duration", "3", "--rate", &OFFERED.to_string()]);
    let generator = site.lab.start(GENERATOR, "pktgen", &command)?;
    thread::sleep(WARM_UP);
    let user = quiet::user_ns();
    let before = (site.arrived()?, device.cpu_ns(), Instant::now());
    thread::sleep(WINDOW);
    let after = (site.arrived()?, device.cpu_ns(), Instant::now());
    if let Some(status) = generator.ended() {
        anyhow::bail!("the generator ended too early ({status}): {}", generator.last_words(5));
    }
    let _ = generator.stop();
    let own = before.1.zip(after.1).map_or(0.0, |(before, after)| after[0] - before[0]);
    let undisturbed = quiet::undisturbed(user, own, WINDOW);
    let packets = (after.0 - before.0) as f64;
    let cpu_ns = before.1.zip(after.1).map(|(before, after)| {
        let each = |n: usize| (after[n] - before[n]).max(0.0) / packets.max(1.0);
        [each(0), each(1)]
    });
    Ok(Overload { rate: packets / (after.2 - before.2).as_secs_f64(), cpu_ns, undisturbed })
}

/// The highest rate at which less than one packet in a thousand is lost: a binary search. A step that loses is tried
/// once more, because on a shared machine one pause of a millisecond is enough to fill a ring.
pub fn loss_free(programs: &Programs, kind: Kind, placement: Placement, flows: u32, steps: u32) -> anyhow::Result<f64> {
    let site = Site::new()?;
    let _device = Device::start(&site, programs, kind, placement)?;
    let (mut low, mut high) = (20_000.0, 1_600_000.0);
    // The flows exist before the first step.
    step(&site, programs, flows, 50_000.0)?;
    quiet::wait();
    let mut best = 0.0;
    for _ in 0..steps {
        let rate = (low + high) / 2.0;
        let mut passed = step(&site, programs, flows, rate)?;
        if passed.is_none() {
            quiet::wait();
            passed = step(&site, programs, flows, rate)?;
        }
        match passed {
            Some(arrived) => {
                best = arrived;
                low = rate;
            }
            None => high = rate,
        }
    }
    Ok(best)
}

/// One step: the rate that arrived, or `None` when packets were lost or the generator could not keep up.
fn step(site: &Site, programs: &Programs, flows: u32, rate: f64) -> anyhow::Result<Option<f64>> {
    let before = site.arrived()?;
    let mut command = generator(site, programs, flows)?;
    command.args(["--duration", "0.6", "--rate", &format!("{rate:.0}"), "--json"]);
    let text = site.lab.output(GENERATOR, &command)?;
    thread::sleep(Duration::from_millis(60));
    let arrived = (site.arrived()? - before) as f64;
    let sent = number(&text, "packets")?;
    let seconds = number(&text, "seconds")?;
    let kept_up = sent / seconds > rate * 0.97;
    Ok((kept_up && arrived >= sent * (1.0 - LOSS)).then(|| arrived / seconds))
}

fn generator(site: &Site, programs: &Programs, flows: u32) -> anyhow::Result<std::process::Command> {
    let mut command = on_load_core(&programs.evenkeel);
    command.args(["pktgen", "--interface", "g0", "--dst", &format!("{VIP}:{BULK_PORT}")]);
    command.args(["--dst-mac", &site.mac(crate::site::DEVICE, "l0")?.to_string()]);
    command.args(["--src", "10.91.128.0/20", "--size", "60", "--flows", &flows.to_string()]);
    Ok(command)
}
