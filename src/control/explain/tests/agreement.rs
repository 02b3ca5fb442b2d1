//! What is explained is what happens: explanation and pipeline, packet by packet, over schedulers, servers, loads, limits and
//! persistent clients.

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::dataplane::io::memory::MemoryIo;
use crate::dataplane::io::{BATCH, Frame, PacketIo};
use crate::dataplane::pipeline::Pipeline;
use crate::dataplane::schedule::Member;
use crate::dataplane::verdict::{DropReason, Outcome, Verdict};
use crate::dataplane::worker;

/// Servers of a service: its weight, whether it can be reached, its upper threshold.
type Row = (u16, bool, Option<u32>);

/// A client's step: which client, whether its handshake goes on, milliseconds until the next.
type Move = (u8, bool, u32);

struct Rig {
    desired: Desired,
    snapshot: Snapshot,
    pipeline: Pipeline,
    io: MemoryIo,
    now: u32,
}

fn service(scheduler: Scheduler, rows: &[Row], method: Method) -> Service {
    let mut servers = Vec::new();
    for (n, (weight, reached, upper)) in (1u8..).zip(rows) {
        let mut server = Server::dr(at(if *reached { n } else { n + 100 }), *weight);
        (server.upper, server.method) = (*upper, method);
        servers.push(server);
    }
    Service { method, ..Service::dr("web", key(80), scheduler, servers) }
}

impl Rig {
    fn new(service: Service) -> Rig {
        let desired = Desired::of(vec![service]);
        let site = Site::of(desired.clone());
        let settings =
            EngineSettings { flows: 1024, flows_ipv6: 1024, persistent_clients: 1024, ..EngineSettings::default() };
        let pipeline = Pipeline::new(&settings, Seeds::fixed(), Arc::default()).expect("memory");
        Rig { desired, snapshot: site.snapshot, pipeline, io: MemoryIo::new(1, 64, 2048), now: 1000 }
    }

    fn run(&mut self, client: u8, port: u16, syn: bool) -> Outcome {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], OWN.0);
        let builder = builder.ipv4([198, 51, 100, client], [192, 0, 2, 10], 64).tcp(port, 80, 1, 9000);
        let mut frame = Vec::new();
        let done = if syn { builder.syn().write(&mut frame, b"") } else { builder.ack(7).write(&mut frame, b"") };
        done.expect("builds");
        assert!(self.io.inject(0, &frame));
        let mut frames = [Frame::default(); BATCH];
        let mut outcomes = [Outcome::plain(Verdict::Pass)];
        assert_eq!(self.io.receive(&mut frames), 1);
        self.pipeline.process(&self.snapshot, self.io.memory(), &mut frames[..1], &mut outcomes, self.now);
        worker::act(&mut self.io, &[], &frames[..1], &mut outcomes);
        self.pipeline.settle(&outcomes);
        self.io.sent(0);
        outcomes[0]
    }

    fn explain(&self, client: u8, port: u16) -> Explanation {
        let question = Question {
            client: [198, 51, 100, client].into(),
            port: Some(port),
            to: SocketAddr::new(key(80).address, 80),
            protocol: Protocol::Tcp,
        };
        let known = Known {
            snapshot: &self.snapshot,
            director: self.pipeline.director(),
            now: self.now,
            interfaces: &["lan0".to_owned()],
            flows: &[],
            is_complete: true,
            router: &|_| None,
            health: &|_, _| String::new(),
        };
        explain(&question, &known)
    }

    /// Explains a new flow, opens it, and compares.
    fn agrees(&mut self, client: u8, port: u16) -> Result<(), TestCaseError> {
        let told = self.explain(client, port);
        // A lot may fall to a server that persistent clients have filled beyond its threshold.
        let is_full = |member: &Member| member.upper != 0 && member.load.total() >= member.upper;
        let may_fail = self.snapshot.services[0].members.iter().any(|m| m.is_available() && is_full(m));
        let outcome = self.run(client, port, true);
        let name = self.desired.services[0].scheduler.name;
        match outcome.verdict {
            Verdict::Tx(_) => {
                let member = self.snapshot.member_at(outcome.server).expect("a server");
                let server = with_port(member.address, member.port);
                prop_assert_eq!(told.fortune, Fortune::Forwarded, "{}: {:?}", name, told);
                let row = told.servers.iter().find(|row| row.server == server).expect("is listed");
                match told.by {
                    Some(By::Lot) => prop_assert!(row.available, "{}: {} {:?}", name, server, told),
                    _ => prop_assert_eq!(told.server.as_ref(), Some(&server), "{}: {:?}", name, told),
                }
                prop_assert!(told.by == Some(By::Lot) || row.taken);
            }
            Verdict::Drop(DropReason::NoServer) if told.by == Some(By::Lot) && may_fail => {}
            Verdict::Drop(reason) => {
                prop_assert_eq!(told.reason.as_deref(), Some(reason.name()), "{}: {:?}", name, told);
            }
            Verdict::Reply(_) => prop_assert_eq!(told.fortune, Fortune::Answered, "{}: {:?}", name, told),
            other => prop_assert!(false, "{}: {:?} {:?}", name, other, told),
        }
        Ok(())
    }
}

fn schedulers() -> impl Strategy<Value = Scheduler> {
    (0..SCHEDULERS.len(), any::<bool>(), any::<bool>()).prop_map(|(at, port, fallback)| {
        let known = &SCHEDULERS[at];
        let flags = !known.flags.is_empty();
        Scheduler { port: port && flags, fallback: fallback && flags, ..Scheduler::named(known.name) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn what_is_explained_is_what_happens(
        scheduler in schedulers(),
        rows in proptest::collection::vec((0u16..4, proptest::bool::weighted(0.85), proptest::option::of(1u32..6)), 0..6),
        moves in proptest::collection::vec((0u8..6, any::<bool>(), 0u32..400), 1..40),
        persists in proptest::option::of((1u32..3, any::<bool>())),
        limits in (proptest::option::of(1u32..30), proptest::option::of(1u32..5), any::<bool>()),
        (nat, one_packet, drops) in any::<(bool, bool, bool)>(),
    ) {
        let rows: Vec<Row> = rows;
        let moves: Vec<Move> = moves;
        let mut service = service(scheduler, &rows, if nat { Method::Nat } else { Method::Dr });
        service.persistence = persists.map(|(seconds, leave_drained)| Persistence {
            by: PersistBy::Client, seconds, prefix_v4: 31, prefix_v6: 128, leave_drained,
        });
        let (connections, client_connections, slow) = limits;
        let rate = slow.then_some(Rate { per_second: 5, burst: 3 });
        service.limits = Limits { connections, client_connections, rate, client_rate: rate, ..Limits::NONE };
        service.one_packet = one_packet;
        if drops {
            service.health.no_server = NoServer::Drop;
        }
        let mut rig = Rig::new(service);
        for (turn, (client, goes_on, wait)) in (0u16..).zip(moves) {
            rig.agrees(client, 2000 + turn)?;
            if goes_on {
                rig.run(client, 2000 + turn, false);
            }
            rig.now += wait;
        }
    }
}
