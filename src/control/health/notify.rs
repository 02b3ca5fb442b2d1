//! Programs that are told when servers become usable or stop being so, and when services find or lose their quorum.
//!
//! Owns the thread `health-notify` and what the programs are told. A service's programs are run in the order of what happened;
//! one that hangs keeps the others waiting for a few seconds only, and is ended after a minute. Never keeps the control loop
//! waiting: it takes from an unbounded channel.

use std::convert::Infallible;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, after, bounded, never, select, unbounded};
use tracing::{error, warn};

use super::Change;
use crate::model::{Desired, ServerKey, ServiceKey};
use crate::programs::queue::{Bounds, Queues, Said, Task};

/// keepalived runs every one, however many there are, and as long as it likes.
const BOUNDS: Bounds = Bounds { waiting: 4096, together: 64, time: Some(Duration::from_secs(60)) };

/// How long the end waits for programs that still run; then they go on alone.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// The program that a change calls for, as it is written (keepalived's `notify_up`, `notify_down`, `quorum_up`, `quorum_down`).
pub(crate) fn task(desired: &Desired, change: &Change) -> Option<Task> {
    let usable = change.usable?;
    let service = desired.services.iter().find(|service| service.key == change.service)?;
    let health = &service.health;
    let command = match &change.server {
        None if usable => &health.quorum.up,
        None => &health.quorum.down,
        Some(key) => {
            let mut servers = service.servers.iter().chain(health.sorry.as_deref());
            let server = servers.find(|server| ServerKey::of(service, server) == *key)?;
            if usable { &server.health.notify_up } else { &server.health.notify_down }
        }
    };
    let mut environment = vec![
        ("EVENKEEL_SERVICE".to_owned(), change.name.clone()),
        ("EVENKEEL_STATE".to_owned(), change.what.name().to_owned()),
        ("EVENKEEL_REASON".to_owned(), change.words.clone()),
    ];
    environment.extend(change.server.map(|server| ("EVENKEEL_SERVER".to_owned(), server.to_string())));
    Some(Task { of: change.name.clone(), command: command.clone()?, environment, user: health.script_user.clone() })
}

/// The thread. Dropped, it runs what waits, gives it a little time, and is over.
pub struct Notifier {
    tasks: Sender<(ServiceKey, Task)>,
    end: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Notifier {
    /// Starts it.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start() -> io::Result<Notifier> {
        let (tasks, taken) = unbounded();
        let (end, ended) = bounded(0);
        let thread = thread::Builder::new().name("health-notify".into()).spawn(move || run(&taken, &ended))?;
        Ok(Notifier { tasks, end: Some(end), thread: Some(thread) })
    }

    /// Has the programs run that these changes call for. Never blocks.
    pub fn tell(&self, desired: &Desired, changes: &[Change]) {
        for change in changes {
            if let Some(task) = task(desired, change) {
                let _ = self.tasks.send((change.service, task));
            }
        }
    }

    /// Whether the thread is there; where it is not, no programs are run any more.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(tasks: &Receiver<(ServiceKey, Task)>, ended: &Receiver<Infallible>) {
    let begun = Instant::now();
    let mut queues = Queues::new(BOUNDS);
    let mut said = Vec::new();
    loop {
        let wait = turn(&mut queues, begun, &mut said).map_or_else(never, after);
        select! {
            recv(tasks) -> task => match task {
                Ok((service, task)) => queues.add(service, task, &mut said),
                Err(_) => break,
            },
            recv(ended) -> _ => break,
            recv(wait) -> _ => {}
        }
    }
    tasks.try_iter().for_each(|(service, task)| queues.add(service, task, &mut said));
    let last = begun.elapsed() + LAST_WAIT;
    while let Some(wait) = turn(&mut queues, begun, &mut said) {
        if begun.elapsed() >= last {
            queues.leave();
            break;
        }
        thread::sleep(wait);
    }
}

/// Looks after the programs; the time until that is due again.
fn turn(queues: &mut Queues<ServiceKey>, begun: Instant, said: &mut Vec<Said>) -> Option<Duration> {
    let now = begun.elapsed();
    queues.turn(now, said);
    for line in said.drain(..) {
        match line {
            Said::Warning(text) => warn!("{text}"),
            Said::Error(text) => error!("{text}"),
        }
    }
    queues.deadline(now).map(|deadline| deadline - now)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::IpAddr;
    use std::path::PathBuf;

    use super::super::What;
    use super::*;
    use crate::model::{Method, PortRange, Protocol, Scheduler, Server, Service};

    struct Place(PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn place(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("evenkeel-notify-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Place(path)
    }

    fn shell(script: &str) -> Option<Vec<String>> {
        Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec())
    }

    fn desired() -> Desired {
        let service = |port: u16| {
            let key = ServiceKey {
                address: IpAddr::from([192, 0, 2, 10]),
                protocol: Protocol::Tcp,
                ports: PortRange::single(port),
            };
            let server = |last| Server::new(IpAddr::from([10, 0, 0, last]), None, 1, Method::Nat);
            Service::dr(&format!("web{port}"), key, Scheduler::RR, vec![server(1), server(2)])
        };
        Desired { services: vec![service(80), service(81)], ..Desired::of(Vec::new()) }
    }

    fn change(desired: &Desired, at: usize, server: Option<usize>, usable: Option<bool>) -> Change {
        let service = &desired.services[at];
        let what = match (server, usable == Some(true)) {
            (Some(_), true) => What::Up,
            (Some(_), false) => What::Down,
            (None, true) => What::QuorumFound,
            (None, false) => What::QuorumLost,
        };
        Change {
            service: service.key,
            name: service.name.clone(),
            server: server.map(|at| ServerKey::of(service, &service.servers[at])),
            what,
            words: "connection refused".to_owned(),
            usable,
            at: Duration::ZERO,
            before: None,
        }
    }

    #[test]
    fn each_change_has_its_program() {
        let mut desired = desired();
        let script = |name: &str| Some(vec![name.to_owned()]);
        {
            let health = &mut desired.services[0].health;
            (health.quorum.up, health.quorum.down) = (script("quorum-up"), script("quorum-down"));
            health.script_user = Some("nobody".to_owned());
        }
        let health = &mut desired.services[0].servers[1].health;
        (health.notify_up, health.notify_down) = (script("up"), script("down"));
        let name = |at, server, usable| {
            task(&desired, &change(&desired, at, server, usable)).map(|task| task.command.join(" "))
        };
        for (at, server, usable, expected) in [
            (0, Some(1), Some(true), Some("up")),
            (0, Some(1), Some(false), Some("down")),
            (0, Some(1), None, None),
            (0, Some(0), Some(true), None),
            (0, None, Some(true), Some("quorum-up")),
            (0, None, Some(false), Some("quorum-down")),
            (1, Some(1), Some(true), None),
            (1, None, Some(true), None),
        ] {
            assert_eq!(name(at, server, usable).as_deref(), expected, "{at} {server:?} {usable:?}");
        }
        let told = task(&desired, &change(&desired, 0, Some(1), Some(false))).expect("a program");
        assert_eq!((told.of.as_str(), told.user.as_deref()), ("web80", Some("nobody")));
        let expected = [
            ("EVENKEEL_SERVICE", "web80"),
            ("EVENKEEL_STATE", "down"),
            ("EVENKEEL_REASON", "connection refused"),
            ("EVENKEEL_SERVER", "10.0.0.2:80"),
        ];
        assert_eq!(told.environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let gone = Change {
            service: ServiceKey { ports: PortRange::single(99), ..desired.services[0].key },
            ..change(&desired, 0, None, Some(true))
        };
        assert_eq!(task(&desired, &gone), None);
    }

    #[test]
    fn programs_are_run_in_order_and_a_hanging_one_holds_up_no_other_service() {
        let place = place("order");
        let out = place.0.display();
        let mut desired = desired();
        let line = format!("echo \"$EVENKEEL_SERVER $EVENKEEL_STATE $EVENKEEL_REASON\" >> {out}/out");
        for server in &mut desired.services[0].servers {
            (server.health.notify_up, server.health.notify_down) = (shell(&line), shell(&line));
        }
        desired.services[0].health.quorum.down = shell(&format!("echo $EVENKEEL_SERVICE >> {out}/out"));
        desired.services[1].health.quorum.up = shell(&format!("echo $$ > {out}/hangs; exec sleep 1000"));
        let notifier = Notifier::start().expect("a thread");
        notifier.tell(&desired, &[change(&desired, 1, None, Some(true))]);
        let all = [(Some(0), false), (Some(1), false), (None, false), (Some(0), true)];
        let changes: Vec<Change> = all.map(|(server, up)| change(&desired, 0, server, Some(up))).into();
        notifier.tell(&desired, &changes);
        let expected = "10.0.0.1:80 down connection refused\n10.0.0.2:80 down connection refused\nweb80\n\
                        10.0.0.1:80 up connection refused\n";
        let start = Instant::now();
        let text = |name: &str| fs::read_to_string(place.0.join(name)).unwrap_or_default();
        while text("out") != expected || !text("hangs").ends_with('\n') {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", text("out"));
            thread::sleep(Duration::from_millis(5));
        }
        assert!(notifier.is_running());
        let hanging = nix::unistd::Pid::from_raw(text("hangs").trim().parse().expect("a number"));
        nix::sys::signal::kill(hanging, nix::sys::signal::Signal::SIGKILL).expect("it hangs still");
    }

    #[test]
    fn what_waits_at_the_end_is_run() {
        let place = place("end");
        let mut desired = desired();
        desired.services[0].health.quorum.up = shell(&format!("echo x >> {}/out", place.0.display()));
        let notifier = Notifier::start().expect("a thread");
        notifier.tell(&desired, &vec![change(&desired, 0, None, Some(true)); 3]);
        drop(notifier);
        // One that has begun goes on alone.
        let start = Instant::now();
        while !place.0.join("out").exists() {
            assert!(start.elapsed() < Duration::from_secs(60), "it was never run");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
