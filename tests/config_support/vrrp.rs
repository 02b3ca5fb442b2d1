//! Any sound VRRP of a configuration, for the property tests.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use evenkeel::model::{
    Announcements, Interface, Notify, Place, SyncGroup, Track, TrackFile, TrackProcess, TrackScript, Tracked, Unicast,
    VirtualAddress, VirtualRouter, Vrrp, VrrpChecksum, VrrpSettings, VrrpVersion,
};
use proptest::option::of;
use proptest::prelude::*;

fn millis(most: u64) -> impl Strategy<Value = Duration> {
    (0..=most).prop_map(Duration::from_millis)
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._:/@+-]{1,20}"
}

/// A program and arguments of any characters but zero.
fn command() -> impl Strategy<Value = Vec<String>> {
    ("/[!-~]{0,20}[!-.0-~é]", proptest::collection::vec("[^\0]{0,9}", 0..4))
        .prop_map(|(program, arguments)| [program].into_iter().chain(arguments).collect())
}

fn notify() -> impl Strategy<Value = Notify> {
    (of(command()), of(command()), of(command()), of(command()), of(command()))
        .prop_map(|(master, backup, fault, stop, any)| Notify { master, backup, fault, stop, any })
}

fn weights() -> impl Strategy<Value = Vec<Option<i16>>> {
    proptest::collection::vec(of(-253i16..=253), 12)
}

/// What can be tracked, in the order of the file.
fn trackable(vrrp: &Vrrp, services: &[String]) -> Vec<Tracked> {
    let interfaces = ["eth7", "bond0.12"].map(|name| Tracked::Interface(name.to_owned()));
    let scripts = vrrp.scripts.iter().map(|script| Tracked::Script(script.name.clone()));
    let files = vrrp.files.iter().map(|file| Tracked::File(file.name.clone()));
    let processes = vrrp.processes.iter().map(|process| Tracked::Process(process.name.clone()));
    let services = services.iter().map(|name| Tracked::Service(name.clone()));
    interfaces.into_iter().chain(scripts).chain(files).chain(processes).chain(services).collect()
}

fn tracks(all: &[Tracked], weights: &[Option<i16>], engine: bool) -> Vec<Track> {
    let pairs = all.iter().cloned().zip(weights);
    let chosen = pairs.filter_map(|(what, weight)| Some(Track { what, weight: (*weight)? }));
    chosen.chain(engine.then_some(Track { what: Tracked::Engine, weight: 0 })).collect()
}

/// Distinct addresses that nothing else of the configuration has.
fn address(v6: bool, router: usize, number: usize) -> IpAddr {
    let number = u32::try_from(router * 100 + number).unwrap();
    match (v6, number % 100) {
        (true, 0) => IpAddr::V6(Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(number + 1))),
        (true, _) => IpAddr::V6(Ipv6Addr::from(0x2001_0db8_ffff_u128 << 80 | u128::from(number + 1))),
        (false, _) => IpAddr::V4((0xac10_0001 + number).into()),
    }
}

fn with_prefix(address: IpAddr, prefix: u8) -> u8 {
    let IpAddr::V4(v4) = address else { return prefix % 128 + 1 };
    let prefix = prefix % 32 + 1;
    let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    let host = u32::from(v4) & hosts;
    if prefix < 31 && (host == 0 || host == hosts) { 32 } else { prefix }
}

/// What is drawn for a router, to be made sound.
#[derive(Clone, Debug)]
struct Draw {
    v6: bool,
    v3: bool,
    kernel: bool,
    master: bool,
    preempt: bool,
    accept: bool,
    virtual_mac: bool,
    message: bool,
    engine: bool,
}

fn draw() -> impl Strategy<Value = Draw> {
    any::<[bool; 9]>().prop_map(|[v6, v3, kernel, master, preempt, accept, virtual_mac, message, engine]| Draw {
        v6,
        v3: v3 || v6,
        kernel,
        master,
        preempt,
        accept,
        virtual_mac,
        message,
        engine,
    })
}

/// A router with the number of its place in the list, tracking nothing yet.
fn router(index: usize, interfaces: Vec<Interface>) -> impl Strategy<Value = (VirtualRouter, Vec<Option<i16>>, bool)> {
    let numbers = (1u8.., 1u64..=4095, 1u8..=100, millis(1_000_000), any::<prop::sample::Index>());
    let lists = (
        proptest::collection::vec((any::<u8>(), any::<bool>()), 1..4),
        proptest::collection::vec((any::<u8>(), any::<bool>()), 0..3),
    );
    let announcements = ((1u8..=100, 1u8..=100), (millis(86_400_000), millis(86_400_000)));
    let unicast = of((1usize..4, of((any::<u8>(), any::<u8>()))));
    // Never `lo`.
    let texts = (of("[ -~é]{1,6}"), name(), "[a-km-z][a-z0-9]{0,9}");
    let rest = (any::<bool>(), unicast, notify(), weights());
    (draw(), numbers, lists, announcements, texts, rest).prop_map(
        move |(draw, numbers, lists, ((repeat, refresh_repeat), (delay, refresh)), texts, rest)| {
            let ((priority, interval, down_adverts, delayed, at), (password, name, device)) = (numbers, texts);
            let (sourced, unicast, notify, weights) = rest;
            let kernel = draw.kernel || interfaces.is_empty();
            let owner = priority == 255;
            let interface = if kernel { device } else { at.get(&interfaces).name.clone() };
            let place = |(list, numbers): (Vec<(u8, bool)>, usize), excluded: bool| -> Vec<VirtualAddress> {
                let one = |(number, (prefix, placed)): (usize, (u8, bool))| {
                    let address = address(draw.v6 ^ (excluded && placed), index, numbers + number);
                    let device = (kernel && placed).then(|| "eth9".to_owned());
                    let labelled = address.is_ipv4() && device.is_some();
                    let label = labelled.then(|| format!("eth9:{number}"));
                    VirtualAddress { address, prefix: with_prefix(address, prefix), device, label }
                };
                list.into_iter().enumerate().map(one).collect()
            };
            let router = VirtualRouter {
                name: format!("{name}-{index}"),
                interface,
                vrid: u8::try_from(index + 1).unwrap(),
                version: if draw.v3 { VrrpVersion::V3 } else { VrrpVersion::V2 },
                priority,
                starts_as_master: draw.master,
                interval: match draw.v3 {
                    true => Duration::from_millis(interval * 10),
                    false => Duration::from_secs(interval % 255 + 1),
                },
                addresses: place((lists.0, 0), false),
                excluded: place((lists.1, 50), true),
                place: if kernel { Place::Kernel } else { Place::Engine },
                password: password.filter(|_| !draw.v3).map(|text| {
                    let mut padded = [0; 8];
                    padded.iter_mut().zip(text.bytes().take(8)).for_each(|(to, from)| *to = from);
                    // A cut character is no text.
                    if std::str::from_utf8(&padded).is_ok() { padded } else { *b"pass\0\0\0\0" }
                }),
                checksum: match draw.message && draw.v3 && !draw.v6 {
                    true => VrrpChecksum::Message,
                    false => VrrpChecksum::PseudoHeader,
                },
                source: sourced.then(|| address(draw.v6, index, 70)),
                unicast: unicast.map(|(peers, ttl)| Unicast {
                    peers: (0..peers).map(|peer| address(draw.v6, index, 80 + peer)).collect(),
                    ttl: ttl.map(|(a, b)| (a.min(b), a.max(b))),
                }),
                preempt: draw.preempt || draw.master || owner,
                preempt_delay: if draw.preempt && !draw.master && !owner { delayed } else { Duration::ZERO },
                down_adverts,
                accept: draw.accept || kernel,
                virtual_mac: draw.virtual_mac && !kernel,
                announcements: Announcements { repeat, delay, refresh, refresh_repeat },
                tracks: Vec::new(),
                notify,
            };
            (router, weights, draw.engine && !interfaces.is_empty())
        },
    )
}

fn settings() -> impl Strategy<Value = VrrpSettings> {
    (of("/[a-z]{1,9}"), 0u8..=99, millis(3_600_000), millis(60_000), of(name())).prop_map(
        |(fifo, realtime, stall, handover, notify_user)| VrrpSettings {
            fifo: fifo.map(Into::into),
            realtime,
            stall,
            handover,
            notify_user,
        },
    )
}

/// What is tracked, with nothing that tracks it.
fn tracked() -> impl Strategy<Value = Vrrp> {
    let script = (command(), (100u64..=86_400_000, 100u64..=86_400_000), (1u16.., 1u16..), of(name()), any::<bool>());
    let process = ("[ -~]{1,15}", 1u16.., millis(3_600_000));
    let lists = (
        proptest::collection::vec(script, 0..3),
        proptest::collection::vec("/[a-z]{1,9}", 0..3),
        proptest::collection::vec(process, 0..3),
    );
    (settings(), lists).prop_map(|(settings, (scripts, files, processes))| {
        let script = |(index, (command, (interval, timeout), (rise, fall), user, starts_good))| TrackScript {
            name: format!("s{index}"),
            command,
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
            rise,
            fall,
            user,
            starts_good,
        };
        let file = |(index, path): (usize, String)| TrackFile { name: format!("f{index}"), path: path.into() };
        let process =
            |(index, (process, quorum, delay))| TrackProcess { name: format!("p{index}"), process, quorum, delay };
        Vrrp {
            settings,
            scripts: scripts.into_iter().enumerate().map(script).collect(),
            files: files.into_iter().enumerate().map(file).collect(),
            processes: processes.into_iter().enumerate().map(process).collect(),
            ..Vrrp::default()
        }
    })
}

/// Any sound VRRP beside an engine's interfaces and services.
pub fn vrrp(interfaces: Vec<Interface>, services: Vec<String>) -> impl Strategy<Value = Vrrp> {
    let routers = (0usize..5)
        .prop_flat_map(move |count| (0..count).map(|index| router(index, interfaces.clone())).collect::<Vec<_>>());
    let group = of((notify(), weights(), any::<bool>()));
    (tracked(), routers, group).prop_map(move |(mut vrrp, routers, group)| {
        let all = trackable(&vrrp, &services);
        let engines = routers.iter().any(|(_, _, engine)| *engine);
        for (mut router, weights, engine) in routers {
            router.tracks = tracks(&all, &weights, engine);
            vrrp.routers.push(router);
        }
        if let Some((notify, weights, engine)) = group.filter(|_| vrrp.routers.len() > 1) {
            let routers = vrrp.routers.iter().map(|router| router.name.clone()).collect();
            let tracks = tracks(&all, &weights, engine && engines);
            vrrp.groups.push(SyncGroup { name: "both".to_owned(), routers, tracks, notify });
        }
        vrrp
    })
}
