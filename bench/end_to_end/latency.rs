//! Latency at a low rate: one UDP ping at a time, through the device and by the direct cable.
//!
//! One thread on the load's core owns both ends and spins on their sockets, so that no sleeping receiver has to be
//! woken: what differs between the two paths is the device and one more veth hop. Answers take the direct cable.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::Programs;
use crate::device::{Device, Kind, PING_PORT};
use crate::site::{DIRECT, GENERATOR, LOAD_CORE, Placement, SINK, Site, VIP, pin};

/// Time between pings: longer than an adaptive worker stays awake.
const PAUSE: Duration = Duration::from_micros(300);

/// Round trips in microseconds.
pub struct Latency {
    pub direct_median: f64,
    pub direct_p99: f64,
    pub median: f64,
    pub p99: f64,
    pub added_median: f64,
    pub added_p99: f64,
}

impl Latency {
    pub fn values(&self) -> [(&'static str, f64); 6] {
        [
            ("direct_median_us", self.direct_median),
            ("direct_p99_us", self.direct_p99),
            ("median_us", self.median),
            ("p99_us", self.p99),
            ("added_median_us", self.added_median),
            ("added_p99_us", self.added_p99),
        ]
    }
}

pub fn measure(programs: &Programs, kind: Kind, pings: usize) -> anyhow::Result<Latency> {
    crate::quiet::wait();
    let site = Site::new()?;
    let _device = Device::start(&site, programs, kind, Placement::Default)?;
    let bind = |node, address| -> anyhow::Result<UdpSocket> {
        let socket = site.lab.node(node)?.run(|| UdpSocket::bind(SocketAddr::new(address, PING_PORT)))??;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let connect = |near: Ipv4Addr, far: Ipv4Addr| -> anyhow::Result<UdpSocket> {
        let socket = site.lab.node(GENERATOR)?.run(|| UdpSocket::bind(SocketAddr::new(near.into(), 0)))??;
        socket.connect(SocketAddr::new(far.into(), PING_PORT))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let through = (connect(Ipv4Addr::new(10, 91, 0, 1), VIP)?, bind(SINK, VIP.into())?);
    let direct = (connect(Ipv4Addr::new(10, 93, 0, 1), DIRECT)?, bind(SINK, DIRECT.into())?);
    std::thread::scope(|scope| {
        let spinning = scope.spawn(|| -> anyhow::Result<Latency> {
            pin(0, LOAD_CORE)?;
            let mut times = [Vec::with_capacity(pings), Vec::with_capacity(pings)];
            let warm = pings / 20;
            for number in 0..pings + warm {
                // The two paths take turns, so that both see the same machine.
                for (n, path) in [&through, &direct].into_iter().enumerate() {
                    let took = ping(path, number as u32).with_context(|| format!("ping {number}"))?;
                    if number >= warm {
                        times[n].push(took);
                    }
                    let resume = Instant::now() + PAUSE;
                    while Instant::now() < resume {
                        std::hint::spin_loop();
                    }
                }
            }
            let [mut through, mut direct] = times;
            let (median, p99) = (percentile(&mut through, 0.5), percentile(&mut through, 0.99));
            let (direct_median, direct_p99) = (percentile(&mut direct, 0.5), percentile(&mut direct, 0.99));
            let (added_median, added_p99) = (median - direct_median, p99 - direct_p99);
            Ok(Latency { direct_median, direct_p99, median, p99, added_median, added_p99 })
        });
        spinning.join().unwrap_or_else(|_| bail!("the pinging thread died"))
    })
}

/// One round trip in microseconds.
fn ping((near, far): &(UdpSocket, UdpSocket), number: u32) -> anyhow::Result<f64> {
    let mut buffer = [0u8; 64];
    let start = Instant::now();
    near.send(&number.to_be_bytes())?;
    let from = loop {
        match far.recv_from(&mut buffer) {
            Ok((4, from)) if buffer[..4] == number.to_be_bytes() => break from,
            _ if start.elapsed() > Duration::from_secs(1) => bail!("lost on its way"),
            _ => {}
        }
    };
    far.send_to(&buffer[..4], from)?;
    loop {
        match near.recv(&mut buffer) {
            Ok(4) if buffer[..4] == number.to_be_bytes() => return Ok(start.elapsed().as_nanos() as f64 / 1000.0),
            _ if start.elapsed() > Duration::from_secs(1) => bail!("its answer was lost"),
            _ => {}
        }
    }
}

fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}
