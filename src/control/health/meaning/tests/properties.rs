//! What must hold whatever comes in which order.

use proptest::prelude::*;

use super::*;

/// Something that comes in.
#[derive(Clone, Debug)]
enum Input {
    Says(u8, bool, Option<Weigh>),
    Admin(u8, Admin),
    Reach(u8, bool),
    Flows(u8, u64, u64),
    Pass(u64),
    Reload,
}

fn input() -> impl Strategy<Value = Input> {
    let server = || 1..=4u8;
    let weigh = prop_oneof![
        3 => Just(None),
        1 => (0..4u16).prop_map(|weight| Some(Weigh::Set(weight))),
        1 => (-3..3i32).prop_map(|more| Some(Weigh::Add(more))),
    ];
    let admin = prop_oneof![Just(Admin::Ready), Just(Admin::Drain), Just(Admin::Maintenance)];
    prop_oneof![
        6 => (server(), any::<bool>(), weigh).prop_map(|(n, up, weigh)| Input::Says(n, up, weigh)),
        2 => (server(), admin).prop_map(|(n, admin)| Input::Admin(n, admin)),
        1 => (server(), any::<bool>()).prop_map(|(n, reached)| Input::Reach(n, reached)),
        3 => (server(), 0..30u64, 0..30u64).prop_map(|(n, new, failed)| Input::Flows(n, new, failed.min(new))),
        4 => (0..40_000u64).prop_map(Input::Pass),
        1 => Just(Input::Reload),
    ]
}

/// A stage that inputs come to.
struct Run {
    stage: Stage,
    reached: [bool; 5],
    total: HashMap<ServerKey, Counts>,
}

impl Run {
    fn new(setting: impl FnOnce(&mut Service)) -> Run {
        Run { stage: Stage::new(&[1, 2, 3, 4], setting), reached: [true; 5], total: HashMap::new() }
    }

    fn take(&mut self, input: &Input) {
        let stage = &mut self.stage;
        match input {
            Input::Says(n, up, weigh) => stage.weighs(*n, *up, "why", *weigh),
            Input::Admin(n, admin) => stage.admin(*n, *admin),
            Input::Reach(n, reached) => self.reached[usize::from(*n)] = *reached,
            Input::Flows(n, new, failed) => {
                let counts = self.total.entry(stage.key(*n)).or_default();
                (counts.new, counts.failed) = (counts.new + new, counts.failed + failed);
                stage.meaning.count(|key| self.total.get(key).copied().unwrap_or_default());
            }
            Input::Pass(ms) => stage.pass(*ms),
            Input::Reload => stage.configure(),
        }
        self.reach();
    }

    fn reach(&mut self) {
        let reached = self.reached;
        self.stage.meaning.reach(&self.stage.desired, |_, server| {
            let IpAddr::V4(address) = server.address else { return Ok(HOP) };
            if reached[usize::from(address.octets()[3])] { Ok(HOP) } else { Err(Reason::NoRoute) }
        });
        self.stage.judge();
    }

    fn views(&self) -> Vec<(ServerState, Standing, String)> {
        (1..=4).map(|n| (self.stage.state(n).0, self.stage.stands(n), self.stage.state(n).1)).collect()
    }
}

proptest! {
    #[test]
    fn traffic_alone_never_takes_all_out(inputs in prop::collection::vec(input(), 1..60), most in 0..=100u8) {
        let mut run = Run::new(|service| {
            service.health.passive = Some(Passive { most_percent: most, ..PASSIVE });
            service.health.damping = Some(Damping {
                failures: 3,
                window: Duration::from_secs(20),
                hold: Duration::from_secs(10),
            });
        });
        for input in &inputs {
            run.take(input);
            let states: Vec<ServerState> = run.views().into_iter().map(|(state, ..)| state).collect();
            let out = states.iter().filter(|state| **state == ServerState::Ejected).count();
            let serves = states.iter().any(|state| matches!(state, ServerState::Up | ServerState::Starting));
            // One that was put out and is drained or held besides shows as ejected, too, but would not serve anyway.
            let would = (1..=4).filter(|n| run.stage.state(*n).0 == ServerState::Ejected && !run.stage.stands(*n).drains);
            prop_assert!(serves || would.count() == 0, "{states:?}");
            prop_assert!(out <= (4 * usize::from(most) / 100).max(usize::from(most > 0)), "{states:?}");
        }
    }

    #[test]
    fn the_quorum_changes_only_at_its_thresholds(
        inputs in prop::collection::vec(input(), 1..60),
        least in 1..5u32,
        hysteresis in 0..3u32,
    ) {
        let mut run = Run::new(|service| {
            service.health.quorum = Quorum { least, hysteresis, ..Quorum::default() };
            service.health.sorry = Some(Box::new(Server::dr(IpAddr::from([10, 0, 0, 99]), 1)));
        });
        let key = run.stage.desired.services[0].key;
        let mut up = run.stage.meaning.service(&key).expect("known").up;
        for input in &inputs {
            run.take(input);
            let view = run.stage.meaning.service(&key).expect("known");
            let (low, high) = (u64::from(least.saturating_sub(hysteresis)).max(1), u64::from(least + hysteresis));
            prop_assert!(!view.up || view.sum >= low, "{view:?}");
            prop_assert!(view.up || view.sum < high, "{view:?}");
            if let Input::Says(..) | Input::Admin(..) = input {
                // One judgement at a time: between the thresholds it stays as it was.
                prop_assert!(view.up == up || view.sum < low || view.sum >= high);
            }
            up = view.up;
            prop_assert_eq!(view.sorry, !view.up);
            let takes = (1..=4).any(|n| run.stage.stands(n).takes);
            prop_assert!(!(takes && view.sorry), "the sorry server serves alone");
            prop_assert_eq!(run.stage.stands(99).takes, view.sorry);
            // What was told adds up to what is.
            let told = run.stage.changes.iter().rev().find_map(|change| match change.what {
                What::QuorumFound => Some(true),
                What::QuorumLost => Some(false),
                _ => None,
            });
            prop_assert_eq!(told.unwrap_or(true), view.up);
        }
    }

    #[test]
    fn without_memory_only_the_last_values_count(inputs in prop::collection::vec(input(), 1..60)) {
        let mut run = Run::new(|_| ());
        inputs.iter().for_each(|input| run.take(input));
        // The same once more, with the last of each kind only, in another order.
        let mut last = Run::new(|_| ());
        for n in (1..=4).rev() {
            let mine = |input: &&Input| match input {
                Input::Says(m, ..) | Input::Admin(m, _) | Input::Reach(m, _) => *m == n,
                _ => false,
            };
            let newest = |kind: fn(&Input) -> bool| inputs.iter().filter(mine).rfind(|input| kind(input));
            for kind in [
                (|input| matches!(input, Input::Reach(..))) as fn(&Input) -> bool,
                |input| matches!(input, Input::Admin(..)),
                |input| matches!(input, Input::Says(..)),
            ] {
                newest(kind).into_iter().for_each(|input| last.take(input));
            }
        }
        last.reach();
        prop_assert_eq!(run.views(), last.views());
        prop_assert_eq!(run.stage.meaning.is_up("web"), last.stage.meaning.is_up("web"));
    }

    #[test]
    fn scripts_are_told_of_every_turn_once(inputs in prop::collection::vec(input(), 1..60)) {
        let mut run = Run::new(|service| service.health.passive = Some(PASSIVE));
        for input in &inputs {
            run.take(input);
        }
        for n in 1..=4u8 {
            let key = run.stage.key(n);
            let turns: Vec<bool> =
                run.stage.changes.iter().filter(|change| change.server == Some(key)).filter_map(|c| c.usable).collect();
            prop_assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
            let serves = matches!(run.stage.state(n).0, ServerState::Up | ServerState::Starting);
            prop_assert_eq!(turns.last().copied().unwrap_or(true), serves);
        }
    }
}
