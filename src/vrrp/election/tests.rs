//! The election as a whole: the transition table, and what takes more than one router or more than one advert.

use super::*;
use crate::model::{Announcements, Notify, Place, Unicast, VirtualAddress, VrrpChecksum};

mod evidence;
mod groups;
mod refusals;
mod reload;
mod table;
mod timing;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How long a hand-over may take.
const HANDOVER: Duration = Duration::from_secs(2);

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn virtual_address(text: &str) -> VirtualAddress {
    VirtualAddress::host(ip(text))
}

/// Priority 100, number 51, 1 s, version 3 with 10.0.0.100 on `eth0`.
fn router(name: &str) -> VirtualRouter {
    VirtualRouter {
        version: VrrpVersion::V3,
        ..VirtualRouter::new(name, "eth0", 51, vec![virtual_address("10.0.0.100")])
    }
}

/// One appliance at 10.0.0.2 with a clock.
struct Rig {
    election: Election,
    routers: Vec<VirtualRouter>,
    groups: Vec<SyncGroup>,
    now: Duration,
    out: Vec<Action>,
}

impl Rig {
    /// Configured, and nothing known yet.
    fn new(routers: Vec<VirtualRouter>) -> Rig {
        let mut rig =
            Rig { election: Election::new(), routers, groups: Vec::new(), now: 1000 * SECOND, out: Vec::new() };
        rig.configure();
        rig
    }

    /// All routers are backup.
    fn backup(routers: Vec<VirtualRouter>) -> Rig {
        let mut rig = Rig::new(routers);
        rig.ready();
        rig.out.clear();
        rig
    }

    /// All routers are master, and said all that a new master says.
    fn master(routers: Vec<VirtualRouter>) -> Rig {
        let mut rig = Rig::backup(routers);
        rig.run(60 * SECOND);
        assert!(rig.states().iter().all(|state| state == "MASTER"), "{:?}", rig.states());
        rig.out.clear();
        rig
    }

    fn configure(&mut self) {
        let specs: Vec<Spec> = (self.routers.iter().enumerate())
            .map(|(at, router)| Spec { router: Arc::new(router.clone()), slot: RouterSlot::new(at + 1).expect("slot") })
            .collect();
        self.election.configure(&specs, &self.groups, HANDOVER, self.now, &mut self.out);
    }

    fn ready(&mut self) {
        for router in self.routers.clone() {
            let address = if router.is_v6() { ip("fe80::2") } else { ip("10.0.0.2") };
            self.source(&router.name, Some(address));
            self.condition(&router.name, 0, None);
        }
    }

    fn source(&mut self, router: &str, address: Option<IpAddr>) {
        let source = address.map(|address| Source { address, mac: MAC });
        self.election.source(router, source, self.now, &mut self.out);
    }

    fn condition(&mut self, router: &str, adjust: i32, fault: Option<&str>) {
        let condition = Condition { adjust, fault: fault.map(str::to_owned) };
        self.election.condition(router, condition, self.now, &mut self.out);
    }

    /// Lets time pass, with every deadline exactly when it is due.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.election.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.election.tick(self.now, &mut self.out);
        }
        self.now = end;
    }

    /// An advert of another appliance for the first router.
    fn hear(&mut self, source: &str, priority: u8) {
        let router = self.routers[0].clone();
        self.hear_for(&router, source, priority, |_, _| {});
    }

    fn hear_for(
        &mut self,
        router: &VirtualRouter,
        source: &str,
        priority: u8,
        change: impl FnOnce(&mut Envelope, &mut Advert),
    ) {
        let (mut envelope, mut advert) = heard(router, source, priority);
        change(&mut envelope, &mut advert);
        let message = packet::build(&advert, envelope.source, envelope.destination);
        self.receive(&envelope, &message);
    }

    fn receive(&mut self, envelope: &Envelope, message: &[u8]) {
        self.election.receive("eth0", envelope, message, self.now, &mut self.out);
    }

    fn states(&self) -> Vec<String> {
        self.election.status(self.now).into_iter().map(|router| router.state).collect()
    }

    fn status(&self) -> RouterStatus {
        self.election.status(self.now).remove(0)
    }

    /// What was to be done since the last call, but for log lines.
    fn done(&mut self) -> String {
        let words: Vec<String> = self.out.iter().filter_map(words).collect();
        self.out.clear();
        words.join(", ")
    }

    /// The log lines since the last call.
    fn lines(&mut self) -> Vec<String> {
        let lines = self.out.drain(..).filter_map(|action| match action {
            Action::Log { text, .. } => Some(text),
            _ => None,
        });
        lines.collect()
    }
}

fn heard(router: &VirtualRouter, source: &str, priority: u8) -> (Envelope, Advert) {
    let destination = match (&router.unicast, router.is_v6()) {
        (Some(_), _) => ip("10.0.0.2"),
        (None, false) => packet::GROUP_V4.into(),
        (None, true) => packet::GROUP_V6.into(),
    };
    let envelope = Envelope { source: ip(source), destination, ttl: 255, mac: OTHER_MAC };
    let advert = Advert {
        version: router.version,
        vrid: router.vrid,
        priority,
        interval: router.interval,
        password: router.password,
        auth_type: u8::from(router.password.is_some()),
        checksum: router.checksum,
        addresses: router.addresses.iter().map(|one| one.address).collect(),
    };
    (envelope, advert)
}

fn words(action: &Action) -> Option<String> {
    Some(match action {
        Action::Advertise { advert, .. } => format!("advert {}", advert.priority),
        Action::Own { owned: true, .. } => "own".to_owned(),
        Action::Own { owned: false, .. } => "disown".to_owned(),
        Action::Announce { repeat, .. } => format!("announce {repeat}"),
        Action::Changed { name, state, .. } => format!("{name} {}", state.name()),
        Action::Log { .. } => return None,
    })
}
