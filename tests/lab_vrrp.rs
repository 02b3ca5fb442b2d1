//! Evenkeel and Debian's keepalived as one pair: each as master and as backup, in every form of the protocol.
//!
//! One story for each form: start, adverts compared field by field, priority change, graceful stop, kill -9, link down and
//! back, partition and heal. Times are held to the protocol's own; who is master, to exactly one.

mod lab_support;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use evenkeel::lab::adverts::{Advert, Sum};
use evenkeel::lab::netlink::Cidr;
use evenkeel::lab::router::{RouterPlan, VrrpPlan};
use evenkeel::lab::site::{Family, Site, appliance};
use evenkeel::lab::speaker::Make;
use evenkeel::model::MacAddr;
use lab_support::lab_is_possible;
use lab_support::vrrp::{PAIR, Pair, SLACK, START, VRID, Who, keepalived_is_there, link_local};

const HIGH: u8 = 150;
const LOW: u8 = 100;

/// A form of the protocol.
#[derive(Clone, Copy, Debug)]
struct Form {
    version: u8,
    interval: Duration,
    password: Option<&'static str>,
    unicast: bool,
    family: Family,
}

const PLAIN: Form =
    Form { version: 2, interval: Duration::from_secs(1), password: None, unicast: false, family: Family::V4 };
const PASS: Form = Form { password: Some("s3cret12"), ..PLAIN };
const THREE: Form = Form { version: 3, interval: Duration::from_millis(100), ..PLAIN };
const UNICAST: Form = Form { unicast: true, ..THREE };
const SIX: Form = Form { family: Family::V6, ..THREE };
const TEN: Form = Form { interval: Duration::from_millis(10), ..THREE };

impl Form {
    fn addresses(self, site: &Site) -> Vec<Cidr> {
        match self.family {
            Family::V4 => vec![Cidr::new(site.vip(Family::V4), 24)],
            Family::V6 => vec!["fe80::10/64".parse().unwrap(), Cidr::new(site.vip(Family::V6), 64)],
        }
    }

    fn plan(self, site: &Site, number: u8) -> VrrpPlan {
        let mut router = RouterPlan::new("VI_1", "eth0", VRID, &self.addresses(site));
        (router.version, router.interval) = (self.version, self.interval);
        router.priority = if number == 0 { HIGH } else { LOW };
        router.password = self.password.map(str::to_owned);
        if self.unicast {
            router.source = Some(site.address_of(number, self.family));
            router.peers = vec![site.address_of(1 - number, self.family)];
        }
        VrrpPlan::one(router)
    }

    /// What every advert of an appliance must be.
    fn expected(self, site: &Site, number: u8, priority: u8) -> Advert {
        let mac = |number| site.lab.mac(appliance(number), "eth0").unwrap();
        let own = mac(number);
        let source = match self.family {
            Family::V4 => site.address_of(number, Family::V4),
            Family::V6 => link_local(own).into(),
        };
        let (destination, to): (IpAddr, _) = match (self.unicast, self.family) {
            (true, family) => (site.address_of(1 - number, family), mac(1 - number)),
            (false, Family::V4) => ("224.0.0.18".parse().unwrap(), MacAddr([1, 0, 0x5e, 0, 0, 0x12])),
            (false, Family::V6) => ("ff02::12".parse().unwrap(), MacAddr([0x33, 0x33, 0, 0, 0, 0x12])),
        };
        let mut auth = [0; 8];
        let password = self.password.unwrap_or_default();
        auth[..password.len()].copy_from_slice(password.as_bytes());
        Advert {
            macs: (own, to),
            source,
            destination,
            ttl: 255,
            tos: if self.family == Family::V4 { 0xc0 } else { 0 },
            version: self.version,
            vrid: VRID,
            priority,
            interval: self.interval,
            auth_type: u8::from(self.password.is_some()),
            auth,
            addresses: self.addresses(site).iter().map(|cidr| cidr.address).collect(),
            sum: if self.version == 2 { Sum::Message } else { Sum::PseudoHeader },
        }
    }
}

/// Every advert of both sides is what its plan says, and tcpdump reads all of them without a complaint.
fn adverts_are_right(form: Form, pair: &Pair, story: &str) {
    let all = pair.watch.adverts(VRID, SystemTime::UNIX_EPOCH);
    let broken = pair.watch.broken();
    assert!(broken.is_empty(), "{story}: {broken:?}");
    let mut counts = [0, 0];
    for heard in &all {
        let advert = heard.advert().unwrap();
        let priority = match advert.priority {
            allowed @ (0 | LOW | HIGH | 200) => allowed,
            other => panic!("{story}: priority {other}"),
        };
        let mut expected = form.expected(&pair.site, heard.from, priority);
        if form.family == Family::V6 {
            // No rule says which class adverts over IPv6 have: keepalived's is that of its kernel's socket.
            expected.tos = advert.tos;
        }
        assert_eq!(*advert, expected, "{story}: an advert of {}", appliance(heard.from));
        counts[usize::from(heard.from)] += 1;
    }
    assert!(counts.iter().all(|&count| count > 2), "{story}: {counts:?} adverts");
    let fewest = pair.watch.adverts(VRID, SystemTime::UNIX_EPOCH).len();
    let said = pair.watch.tcpdump(&pair.site, "vrrp.pcap").unwrap_or_else(|error| panic!("{story}: {error}"));
    let vrrp = said.matches(&format!("VRRPv{}, Advertisement, vrid {VRID}", form.version)).count();
    // tcpdump does not print what it cannot read. More adverts come in while it does.
    let most = pair.watch.adverts(VRID, SystemTime::UNIX_EPOCH).len();
    assert!((fewest..=most).contains(&vrrp), "{story}: tcpdump reads {vrrp} adverts of {fewest} to {most}\n{said}");
    for complaint in ["[|", "bad vrrp cksum", "bad cksum", "(invalid", "truncated"] {
        assert!(!said.contains(complaint), "{story}: tcpdump says `{complaint}`\n{said}");
    }
}

/// A time of the protocol: not earlier, and late by no more than a busy machine explains.
fn in_time(pair: &Pair, what: &str, seen: Duration, due: Duration) {
    let early = due.saturating_sub(Duration::from_millis(3));
    println!("    {what:<52} {:>9.1} ms, {:.1} ms by the protocol", millis(seen), millis(due));
    if seen < early || seen > due + SLACK {
        pair.fail(&format!("{what}: {seen:?} in the place of {due:?}"));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn between(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

fn story(name: &str, form: Form, who: [Who; 2]) {
    if !lab_is_possible() || !keepalived_is_there() {
        return;
    }
    let mut pair = Pair::build(PAIR, who, |_, _| (), |site, number| form.plan(site, number));
    let title = format!("{name}: {:?} before {:?}", who[0], who[1]);
    println!("{title}");
    let vip = pair.site.vip(form.family);
    let down = [pair.router(0).master_down(), pair.router(1).master_down()];
    let skew = pair.router(1).skew();
    for number in [0, 1] {
        pair.start(number);
        pair.await_words(number, "(VI_1) Entering BACKUP STATE (init)", START);
    }
    pair.await_master(0, START + down[0]);
    pair.must_own(0, vip);

    // The backup gets a higher priority, and a lower one again.
    let change = |pair: &mut Pair, priority: u8| {
        let mut plan = pair.speakers[1].plan().clone();
        plan.routers[0].priority = priority;
        let told = pair.speakers[1].tell(plan);
        pair.must(told);
    };
    change(&mut pair, 200);
    pair.await_master(1, down[1] * 2 + SLACK);
    pair.must_own(1, vip);
    change(&mut pair, LOW);
    pair.await_master(0, down[0] * 2 + SLACK);

    // A graceful stop: a farewell, and the backup's skew.
    pair.must(pair.speakers[0].ask_to_end());
    let taken = pair.await_master(1, skew + form.interval * 4 + SLACK);
    let farewell = pair.last_advert(0, true);
    in_time(&pair, "graceful stop: farewell to the other's advert", between(farewell, taken), skew);
    pair.must_own(1, vip);
    let ended = pair.speakers[0].await_end();
    pair.must(ended);
    pair.start(0);
    pair.await_master(0, START + down[0]);
    pair.must_own(0, vip);

    // Killed: nobody says goodbye.
    pair.speakers[0].kill();
    let last = pair.last_advert(0, false);
    let taken = pair.await_master(1, down[1] * 2 + SLACK);
    in_time(&pair, "kill -9: last advert to the other's first", between(last, taken), down[1]);
    // The kernel of a killed keepalived keeps the address.
    if matches!(pair.speakers[0].make(), Make::Evenkeel(..)) {
        pair.must_own(1, vip);
    }
    pair.start(0);
    pair.await_master(0, START + down[0]);

    // The cable is pulled, and put back.
    pair.must(pair.site.plug(appliance(0), "eth0", false));
    let last = pair.last_advert(0, false);
    let taken = pair.await_master(1, down[1] * 2 + SLACK);
    in_time(&pair, "link down: last advert to the other's first", between(last, taken), down[1]);
    pair.must_own(1, vip);
    pair.await_words(0, "(VI_1) Entering FAULT STATE", SLACK);
    pair.must(pair.site.plug(appliance(0), "eth0", true));
    pair.await_master(0, down[0] * 2 + SLACK);
    pair.must_own(0, vip);

    // Parted: both are master, as nobody could know better; joined: exactly one again.
    pair.must(pair.site.part(true));
    let last = SystemTime::now();
    pair.first_advert(1, last, down[1] * 2 + SLACK);
    pair.must(pair.site.part(false));
    pair.await_master(0, form.interval * 4 + SLACK * 2);
    pair.must_own(0, vip);
    pair.await_words(1, "(VI_1) Master received advert from", SLACK);

    adverts_are_right(form, &pair, &title);
}

macro_rules! stories {
    ($($name:ident: $form:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn evenkeel_is_master() {
                story(stringify!($name), $form, [Who::Evenkeel, Who::Keepalived]);
            }

            #[test]
            fn keepalived_is_master() {
                story(stringify!($name), $form, [Who::Keepalived, Who::Evenkeel]);
            }
        }
    )*};
}

stories! {
    version_2: PLAIN;
    version_2_with_password: PASS;
    version_3_multicast: THREE;
    version_3_unicast: UNICAST;
    version_3_over_ipv6: SIX;
    version_3_every_10_ms: TEN;
}

#[test]
fn two_evenkeels() {
    story("version 3", THREE, [Who::Evenkeel, Who::Evenkeel]);
}
