//! Who else answers for a service address: real servers that have it on a wrong interface, and strangers.
//!
//! With direct routing every server has the service address, and must keep silent when it is asked for (`arp_ignore`,
//! `arp_announce`). One that does not takes clients away from the engine, which sees nothing of them. So the engine asks the
//! servers' segments now and then, as a host asks that is about to take an address (RFC 5227, section 2.1.1): nobody keeps
//! anything of such a question. Owns what is asked, what answers mean and for how long, and the sentences. Never asks:
//! [`ears`] does. IPv4 alone: a Linux server does not answer neighbour discovery for an address on another interface. Pure.

pub mod ears;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::dataplane::io::PortIndex;
use crate::model::MacAddr;

/// Time from one round of questions to the next.
pub const PERIOD: Duration = Duration::from_secs(5);
/// Most questions in one second: with many addresses a round takes longer.
pub const MOST_A_TURN: usize = 200;
/// How long a claim stands after it was last made where questions are asked: two rounds without an answer end it.
const HOLD: Duration = Duration::from_secs(12);
/// The same for a claim that the data plane saw, which nobody asked for.
const HOLD_UNASKED: Duration = Duration::from_secs(60);
/// Most claims that are kept.
const MOST: usize = 256;

/// What is asked where: an address, and the segment of some of its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Question {
    /// The service address.
    pub address: Ipv4Addr,
    /// The engine's interface.
    pub port: PortIndex,
    /// The VLAN on it.
    pub vlan: Option<u16>,
}

/// A server that a claim's Ethernet address belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Culprit {
    /// Its address.
    pub server: IpAddr,
    /// The name of a service that has it.
    pub service: String,
}

/// Servers by the Ethernet address of their next hop.
pub type Servers = BTreeMap<MacAddr, BTreeSet<Culprit>>;

/// A claim. What is claimed is unknown where the data plane saw it.
type Key = (Option<Ipv4Addr>, MacAddr);

#[derive(Clone, Copy, Debug)]
struct Claim {
    /// The round of questions that it was first seen in.
    round: u64,
    /// Whether it was seen in a later one.
    again: bool,
    last: Duration,
    said: bool,
}

/// All claims over time.
#[derive(Debug, Default)]
pub struct Claims {
    claims: BTreeMap<Key, Claim>,
    /// What is still to be asked in this round.
    due: Vec<Question>,
    round: u64,
    begun: Option<Duration>,
}

/// What the log is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Somebody claims an address.
    Claimed(String),
    /// Nobody does any more.
    Gone(String),
}

impl Claims {
    /// Whether a round of questions is to begin.
    pub fn is_due(&self, now: Duration) -> bool {
        self.due.is_empty() && self.begun.is_none_or(|begun| now >= begun + PERIOD)
    }

    /// Begins a round.
    pub fn begin(&mut self, questions: BTreeSet<Question>, now: Duration) {
        self.begun = Some(now);
        self.round += 1;
        self.due = questions.into_iter().rev().collect();
    }

    /// The next questions of the round.
    pub fn take(&mut self) -> Vec<Question> {
        let rest = self.due.len().saturating_sub(MOST_A_TURN);
        self.due.drain(rest..).rev().collect()
    }

    /// Notes a claim; `address` is `None` where it is not known which.
    pub fn note(&mut self, address: Option<Ipv4Addr>, mac: MacAddr, now: Duration) {
        let round = self.round;
        if let Some(claim) = self.claims.get_mut(&(address, mac)) {
            claim.again |= claim.round != round;
            claim.last = now;
        } else if self.claims.len() < MOST {
            self.claims.insert((address, mac), Claim { round, again: false, last: now, said: false });
        }
    }

    /// Forgets what is over, and gives what is new for the log.
    pub fn turn(&mut self, servers: &Servers, now: Duration) -> Vec<News> {
        let mut news = Vec::new();
        self.claims.retain(|key, claim| {
            let hold = if key.0.is_some() { HOLD } else { HOLD_UNASKED };
            let stays = now.saturating_sub(claim.last) < hold;
            if !stays && claim.said {
                news.push(News::Gone(gone(key, servers)));
            }
            stays
        });
        for (key, claim) in &mut self.claims {
            if !claim.said && is_sure(key, claim, servers) {
                claim.said = true;
                news.push(News::Claimed(sentence(key, servers)));
            }
        }
        news
    }

    /// What someone should look at now.
    pub fn warnings(&self, servers: &Servers) -> Vec<String> {
        let sure = self.claims.iter().filter(|(key, claim)| claim.said || is_sure(key, claim, servers));
        sure.map(|(key, _)| sentence(key, servers)).collect()
    }

    /// Whether there is anything to name a server for.
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }
}

/// A server that answers is wrong at once. A stranger may be the appliance that has just handed the address over: it must
/// have answered in two rounds.
fn is_sure(key: &Key, claim: &Claim, servers: &Servers) -> bool {
    key.0.is_none() || claim.again || servers.contains_key(&key.1)
}

fn what(address: &Option<Ipv4Addr>) -> String {
    address.map_or_else(|| "a service address".to_owned(), |address| format!("the service address {address}"))
}

/// The servers behind an Ethernet address, in words; `None` for a stranger's.
fn who(mac: MacAddr, servers: &Servers) -> Option<String> {
    let all = servers.get(&mac)?;
    let addresses: BTreeSet<String> = all.iter().map(|culprit| culprit.server.to_string()).collect();
    let services: BTreeSet<&str> = all.iter().map(|culprit| culprit.service.as_str()).collect();
    let services = services.into_iter().collect::<Vec<_>>().join(", ");
    let servers = addresses.into_iter().collect::<Vec<_>>().join(", ");
    Some(format!("server {servers} (of {services}; {mac})"))
}

fn sentence((address, mac): &Key, servers: &Servers) -> String {
    let what = what(address);
    match who(*mac, servers) {
        Some(who) => format!(
            "{who} answers ARP for {what}: clients may reach it past the engine; on that server set \
             net.ipv4.conf.all.arp_ignore=1 and net.ipv4.conf.all.arp_announce=2, and have the address on `lo` only"
        ),
        None => format!(
            "another host answers ARP for {what}, with the Ethernet address {mac}, which is none of the servers': clients \
             may reach it instead of the engine; take the address away from it, or, if it is a real server, have it on `lo` \
             only, with arp_ignore=1 and arp_announce=2"
        ),
    }
}

fn gone((address, mac): &Key, servers: &Servers) -> String {
    let who = who(*mac, servers).unwrap_or_else(|| format!("the host {mac}"));
    format!("{who} answers ARP for {} no longer", what(address))
}

/// The frame that asks who has `address`, from nobody's address: broadcast, padded to Ethernet's least length.
pub fn probe(address: Ipv4Addr, mac: MacAddr, vlan: Option<u16>) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac.0);
    if let Some(id) = vlan {
        frame.extend([0x81, 0x00]);
        frame.extend((id & 0xfff).to_be_bytes());
    }
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend([0; 4]);
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame.resize(if vlan.is_some() { 64 } else { 60 }, 0);
    frame
}

/// The address and the Ethernet address in an answer to such a question. Whoever asked in his own name gets other answers.
pub fn answer(frame: &[u8]) -> Option<(Ipv4Addr, MacAddr)> {
    let arp: &[u8; 28] = frame.get(14..42)?.first_chunk()?;
    let is_answer = frame[12..14] == [8, 6] && arp[..8] == [0, 1, 8, 0, 6, 4, 0, 2] && arp[24..28] == [0; 4];
    let mac = MacAddr([arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]]);
    let address = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
    (is_answer && !mac.is_multicast() && !mac.is_zero()).then_some((address, mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const SERVER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn servers() -> Servers {
        let culprit = Culprit { server: "192.0.2.11".parse().unwrap(), service: "web".into() };
        Servers::from([(SERVER, BTreeSet::from([culprit]))])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn question(last: u8) -> Question {
        Question { address: Ipv4Addr::new(192, 0, 2, last), port: 0, vlan: None }
    }

    #[test]
    fn a_server_is_named_at_once_and_once_and_is_gone_when_it_is_silent() {
        let (mut claims, servers) = (Claims::default(), servers());
        claims.begin(BTreeSet::from([question(10)]), at(0));
        claims.note(Some(SERVICE), SERVER, at(1));
        let said = claims.turn(&servers, at(1));
        let [News::Claimed(text)] = &said[..] else { panic!("{said:?}") };
        for part in ["server 192.0.2.11", "web", "192.0.2.10", "02:00:00:00:00:01", "arp_ignore=1"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(claims.warnings(&servers), std::slice::from_ref(text));
        claims.note(Some(SERVICE), SERVER, at(6));
        assert_eq!(claims.turn(&servers, at(6)), []);
        assert_eq!(claims.turn(&servers, at(17)), []);
        let said = claims.turn(&servers, at(18));
        assert!(matches!(&said[..], [News::Gone(text)] if text.contains("192.0.2.11")), "{said:?}");
        assert!(claims.is_empty() && claims.warnings(&servers).is_empty());
    }

    #[test]
    fn a_stranger_is_told_of_in_the_second_round() {
        let (mut claims, servers) = (Claims::default(), servers());
        claims.begin(BTreeSet::from([question(10)]), at(0));
        claims.note(Some(SERVICE), STRANGER, at(0));
        claims.note(Some(SERVICE), STRANGER, at(1));
        assert_eq!(claims.turn(&servers, at(1)), []);
        assert!(claims.warnings(&servers).is_empty());
        claims.begin(BTreeSet::from([question(10)]), at(5));
        claims.note(Some(SERVICE), STRANGER, at(6));
        let said = claims.turn(&servers, at(6));
        assert!(matches!(&said[..], [News::Claimed(text)] if text.contains("02:00:00:00:00:09")), "{said:?}");
        // What the data plane saw by itself was said to all: it stands at once, and longer.
        claims.note(None, STRANGER, at(7));
        assert!(
            matches!(&claims.turn(&servers, at(7))[..], [News::Claimed(text)] if text.contains("a service address"))
        );
        assert_eq!(claims.turn(&servers, at(60)).len(), 1);
        assert_eq!(claims.turn(&servers, at(67)).len(), 1);
        assert!(claims.is_empty());
    }

    #[test]
    fn a_round_is_asked_in_parts_and_the_next_waits_for_its_time() {
        let mut claims = Claims::default();
        assert!(claims.is_due(at(0)));
        let all: BTreeSet<Question> = (0..=250).map(question).collect();
        claims.begin(all.clone(), at(0));
        let mut asked = claims.take();
        assert_eq!(asked.len(), MOST_A_TURN);
        assert!(!claims.is_due(at(9)), "the round is not over");
        asked.extend(claims.take());
        assert_eq!(asked, all.into_iter().collect::<Vec<_>>());
        assert!(claims.take().is_empty());
        assert!(!claims.is_due(at(4)) && claims.is_due(at(5)));
    }

    #[test]
    fn claims_have_their_room() {
        let mut claims = Claims::default();
        for number in 0..1000u16 {
            let [a, b] = number.to_be_bytes();
            claims.note(Some(SERVICE), MacAddr([2, 0, 0, 0, a, b]), at(0));
        }
        assert_eq!(claims.claims.len(), MOST);
    }

    #[test]
    fn a_probe_is_no_answer_and_only_answers_to_probes_are_taken() {
        let mut frame = probe(SERVICE, STRANGER, None);
        assert_eq!((frame.len(), answer(&frame)), (60, None));
        // What Linux makes of it (`arp_process`, `arp_send_dst`): to nobody's address.
        frame[21] = 2;
        frame[22..28].copy_from_slice(&SERVER.0);
        frame[28..32].copy_from_slice(&SERVICE.octets());
        frame[38..42].fill(0);
        assert_eq!(answer(&frame), Some((SERVICE, SERVER)));
        frame[41] = 1;
        assert_eq!(answer(&frame), None, "it answers somebody's question");
        frame[41] = 0;
        frame[22] = 0xff;
        assert_eq!(answer(&frame), None, "a group has no address");
        for length in 0..42 {
            assert_eq!(answer(&frame[..length]), None);
        }
        let tagged = probe(SERVICE, STRANGER, Some(100));
        assert_eq!(tagged[12..18], [0x81, 0, 0, 100, 8, 6]);
        assert_eq!(tagged.len(), 64);
    }
}
