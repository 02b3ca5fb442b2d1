//! Appliances that hold elections over a simulated network: it loses, delays, duplicates and reorders messages, and comes
//! apart. Time is simulated too; a run is the same every time.

pub mod hostile;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::model::{MacAddr, Notify, RouterSlot, SyncGroup, VirtualAddress, VirtualRouter, VrrpVersion};
use evenkeel::vrrp::packet::{self, Envelope, GROUP_V4, GROUP_V6};
use evenkeel::vrrp::{Action, Condition, Election, Source, Spec, State};

pub const MS: Duration = Duration::from_millis(1);
/// How long a hand-over may take in every simulation.
pub const HANDOVER: Duration = Duration::from_secs(2);

/// A small generator of numbers: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }
}

/// 10.0.0.100, number 51, to the group, on `eth0`.
pub fn router(name: &str, version: VrrpVersion, v6: bool, interval: Duration, priority: u8) -> VirtualRouter {
    let address = if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100))
    };
    VirtualRouter {
        version,
        priority,
        starts_as_master: priority == 255,
        interval,
        password: (version == VrrpVersion::V2).then_some(*b"s3cret12"),
        ..VirtualRouter::new(name, "eth0", 51, vec![VirtualAddress::host(address)])
    }
}

/// What the network does to messages.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Lost ones in a hundred.
    pub loss: u64,
    /// Ones that come twice in a hundred.
    pub twice: u64,
    /// Least and most time on the way.
    pub delay: (Duration, Duration),
}

pub const FAIR: Weather = Weather { loss: 0, twice: 0, delay: (Duration::from_micros(50), Duration::from_micros(500)) };

/// An appliance: the same routers as the others have, one on each segment.
struct Node {
    routers: Vec<VirtualRouter>,
    election: Option<Election>,
    /// Which segments it serves.
    owns: Vec<bool>,
    states: Vec<State>,
    fault: bool,
    adjust: i32,
    /// For each segment, in which part of the network it is.
    part: Vec<u8>,
}

struct Packet {
    to: usize,
    segment: usize,
    envelope: Envelope,
    message: Vec<u8>,
}

pub struct Network {
    pub now: Duration,
    pub weather: Weather,
    nodes: Vec<Node>,
    random: Random,
    /// When, in the order of sending, and the index in `packets`.
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    packets: std::collections::HashMap<u64, Packet>,
    sent: u64,
    /// Everything that can be checked after each event.
    pub adverts: u64,
}

fn address(node: usize, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, node as u16 + 1))
    } else {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, node as u8 + 1))
    }
}

fn mac(node: usize) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, node as u8 + 1])
}

impl Network {
    /// Each node with its routers, one for each segment; more than one make a group. All are off.
    pub fn new(nodes: Vec<Vec<VirtualRouter>>, seed: u64) -> Network {
        let nodes = nodes.into_iter().map(|routers| Node {
            owns: vec![false; routers.len()],
            states: vec![State::Init; routers.len()],
            part: vec![0; routers.len()],
            routers,
            election: None,
            fault: false,
            adjust: 0,
        });
        Network {
            now: Duration::from_secs(1000),
            weather: FAIR,
            nodes: nodes.collect(),
            random: Random(seed),
            queue: BinaryHeap::new(),
            packets: Default::default(),
            sent: 0,
            adverts: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_on(&self, node: usize) -> bool {
        self.nodes[node].election.is_some()
    }

    /// Whether it could serve.
    pub fn is_fit(&self, node: usize) -> bool {
        self.is_on(node) && !self.nodes[node].fault
    }

    pub fn start(&mut self, node: usize) {
        if self.is_on(node) {
            return;
        }
        let it = &mut self.nodes[node];
        let specs: Vec<Spec> = (it.routers.iter().enumerate())
            .map(|(at, router)| Spec { router: Arc::new(router.clone()), slot: RouterSlot::new(at + 1).expect("slot") })
            .collect();
        let mut groups = Vec::new();
        if it.routers.len() > 1 {
            let routers = it.routers.iter().map(|router| router.name.clone()).collect();
            groups.push(SyncGroup { name: "G".into(), routers, tracks: Vec::new(), notify: Notify::default() });
        }
        let (mut election, mut out) = (Election::new(), Vec::new());
        election.configure(&specs, &groups, HANDOVER, self.now, &mut out);
        for router in &it.routers {
            let source = Source { address: address(node, router.is_v6()), mac: mac(node) };
            election.source(&router.name, Some(source), self.now, &mut out);
        }
        it.election = Some(election);
        self.obey(node, out);
        self.tell(node);
    }

    /// No farewell: as when its power goes.
    pub fn crash(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.election = None;
        it.owns.fill(false);
        it.states.fill(State::Init);
    }

    pub fn stop(&mut self, node: usize) {
        let now = self.now;
        self.with(node, |election, out| election.stop(now, out));
    }

    pub fn set_fault(&mut self, node: usize, fault: bool) {
        self.nodes[node].fault = fault;
        self.tell(node);
    }

    pub fn adjust(&mut self, node: usize, adjust: i32) {
        self.nodes[node].adjust = adjust;
        self.tell(node);
    }

    /// Puts a node's leg on a segment into a part of the network.
    pub fn part(&mut self, node: usize, segment: usize, part: u8) {
        self.nodes[node].part[segment] = part;
    }

    /// The whole network again.
    pub fn heal(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.part.fill(0));
        self.weather = FAIR;
    }

    fn tell(&mut self, node: usize) {
        let (fault, adjust) = (self.nodes[node].fault, self.nodes[node].adjust);
        let names: Vec<String> = self.nodes[node].routers.iter().map(|router| router.name.clone()).collect();
        let now = self.now;
        self.with(node, |election, out| {
            // A fault of the first router; the group takes the others along.
            for (at, name) in names.iter().enumerate() {
                let fault = (fault && at == 0).then(|| "told so".to_owned());
                election.condition(name, Condition { adjust, fault }, now, out);
            }
        });
    }

    fn with(&mut self, node: usize, act: impl FnOnce(&mut Election, &mut Vec<Action>)) {
        let mut out = Vec::new();
        if let Some(election) = &mut self.nodes[node].election {
            act(election, &mut out);
        }
        self.obey(node, out);
    }

    fn obey(&mut self, node: usize, actions: Vec<Action>) {
        for action in actions {
            let segment = |name: &str| self.nodes[node].routers.iter().position(|router| router.name == name);
            match action {
                Action::Advertise { router, advert } => {
                    let segment = segment(&router.name).expect("its own");
                    let v6 = router.is_v6();
                    let destination = if v6 { GROUP_V6.into() } else { GROUP_V4.into() };
                    let envelope = Envelope { source: address(node, v6), destination, ttl: 255, mac: mac(node) };
                    let message = packet::build(&advert, envelope.source, destination);
                    self.adverts += 1;
                    self.broadcast(node, segment, envelope, &message);
                }
                Action::Own { router, owned, .. } => {
                    let segment = segment(&router.name).expect("its own");
                    self.nodes[node].owns[segment] = owned;
                }
                Action::Changed { name, group: false, state, .. } => {
                    let segment = segment(&name).expect("its own");
                    self.nodes[node].states[segment] = state;
                }
                Action::Changed { .. } | Action::Announce { .. } | Action::Log { .. } => {}
            }
        }
        let it = &mut self.nodes[node];
        if it.election.as_ref().is_some_and(Election::is_stopped) {
            assert!(it.owns.iter().all(|owned| !owned), "stopped, and still serving");
            it.election = None;
        }
    }

    fn broadcast(&mut self, from: usize, segment: usize, envelope: Envelope, message: &[u8]) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            if self.nodes[to].part[segment] != self.nodes[from].part[segment] {
                continue;
            }
            let copies = 1 + u64::from(self.random.below(100) < self.weather.twice);
            for _ in 0..copies {
                if self.random.below(100) < self.weather.loss {
                    continue;
                }
                let (least, most) = self.weather.delay;
                let delay = least + Duration::from_micros(self.random.below((most - least).as_micros() as u64));
                self.sent += 1;
                self.queue.push(Reverse((self.now + delay, self.sent)));
                self.packets.insert(self.sent, Packet { to, segment, envelope, message: message.to_vec() });
            }
        }
    }

    /// Lets time pass, and has every moment at which something happened looked at.
    pub fn run(&mut self, time: Duration, mut look: impl FnMut(&Network)) {
        let end = self.now + time;
        loop {
            let timers = self.nodes.iter().filter_map(|node| node.election.as_ref()?.deadline());
            let arrival = self.queue.peek().map(|Reverse((at, _))| *at);
            let Some(next) = timers.chain(arrival).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            while let Some(Reverse((_, number))) = self.queue.peek().filter(|Reverse((at, _))| *at <= now).copied() {
                self.queue.pop();
                let packet = self.packets.remove(&number).expect("packet");
                let segment = packet.segment;
                self.with(packet.to, |election, out| {
                    // Each segment is an interface; all routers name theirs alike.
                    let interface = if segment == 0 { "eth0" } else { "eth1" };
                    election.receive(interface, &packet.envelope, &packet.message, now, out);
                });
            }
            for node in 0..self.nodes.len() {
                self.with(node, |election, out| election.tick(now, out));
            }
            look(self);
        }
        self.now = end;
    }

    /// The nodes that serve a segment.
    pub fn owners(&self, segment: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].owns[segment]).collect()
    }

    /// The nodes that are master of a segment.
    pub fn masters(&self, segment: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].states[segment] == State::Master).collect()
    }

    /// The priorities with which the fit ones run.
    pub fn priority(&self, node: usize) -> u8 {
        let configured = self.nodes[node].routers[0].priority;
        if configured == 255 {
            return 255;
        }
        (i32::from(configured) + self.nodes[node].adjust).clamp(1, 254) as u8
    }
}
