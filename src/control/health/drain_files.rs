//! Files by which servers drain: while one exists, its servers take no new flows.
//!
//! Owns the thread `health-files`, which looks every second: a file system that hangs must not hold up the control loop. Never
//! decides what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use tracing::error;

use crate::model::{Desired, ServerKey};

/// How often is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// Calls the control loop.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// The files of all servers.
pub struct DrainFiles {
    wake: Wake,
    /// Which of them exist, as far as is known.
    exist: Files,
    /// Once it is needed.
    thread: Option<Thread>,
}

/// Files, and whether each exists.
type Files = BTreeMap<PathBuf, bool>;

/// To the thread and from it.
struct Thread {
    files: Sender<Files>,
    seen: Receiver<(PathBuf, bool)>,
}

impl DrainFiles {
    /// None yet. `wake` calls the control loop when there is something to read.
    pub fn new(wake: Wake) -> DrainFiles {
        DrainFiles { wake, exist: Files::new(), thread: None }
    }

    /// Takes a configuration. Files that are new to it are looked at before this returns: their servers get no flow first.
    pub fn configure(&mut self, desired: &Desired) {
        let wanted: BTreeSet<&PathBuf> = servers(desired).map(|(_, path)| path).collect();
        let before = std::mem::take(&mut self.exist);
        self.exist = wanted
            .into_iter()
            .map(|path| (path.clone(), before.get(path).copied().or_else(|| exists(path)).unwrap_or(false)))
            .collect();
        if self.thread.is_none() && !self.exist.is_empty() {
            self.thread = self.start().inspect_err(|error| error!("no server drains by its file: {error}")).ok();
        }
        if let Some(thread) = &self.thread {
            let _ = thread.files.send(self.exist.clone());
        }
    }

    fn start(&self) -> io::Result<Thread> {
        let (files, taken) = unbounded();
        let (news, seen) = unbounded();
        let wake = Arc::clone(&self.wake);
        // Not waited for at the end: it may hang in the file system.
        thread::Builder::new().name("health-files".into()).spawn(move || look(&taken, &news, &wake))?;
        Ok(Thread { files, seen })
    }

    /// Takes what the thread has seen. Whether anything is otherwise than before.
    pub fn news(&mut self) -> bool {
        let Some(thread) = &self.thread else { return false };
        let mut any = false;
        for (path, exists) in thread.seen.try_iter() {
            // What came late, of a file that nobody asks for any more, is of no interest.
            if let Some(known) = self.exist.get_mut(&path) {
                any |= std::mem::replace(known, exists) != exists;
            }
        }
        any
    }

    /// The servers of a configuration that have a file, and whether it exists.
    pub fn each<'d>(&'d self, desired: &'d Desired) -> impl Iterator<Item = (ServerKey, bool)> + 'd {
        servers(desired).map(|(key, path)| (key, self.exist.get(path).copied().unwrap_or(false)))
    }
}

/// Servers with such a file.
fn servers(desired: &Desired) -> impl Iterator<Item = (ServerKey, &PathBuf)> {
    let all = desired.services.iter().flat_map(|service| service.servers.iter().map(move |server| (service, server)));
    all.filter_map(|(service, server)| Some((ServerKey::of(service, server), server.health.drain_file.as_ref()?)))
}

/// Whether a file exists; `None` where nobody can say.
fn exists(path: &Path) -> Option<bool> {
    match std::fs::metadata(path) {
        Ok(_) => Some(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Some(false),
        Err(_) => None,
    }
}

/// The thread: ends when nobody sends files any more.
fn look(files: &Receiver<Files>, news: &Sender<(PathBuf, bool)>, wake: &Wake) {
    let mut known = Files::new();
    loop {
        match files.recv_timeout(PERIOD) {
            Ok(new) => known = new,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let mut any = false;
        for (path, before) in &mut known {
            if let Some(now) = exists(path)
                && now != *before
            {
                *before = now;
                any = true;
                let _ = news.send((path.clone(), now));
            }
        }
        if any {
            wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::IpAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::model::{PortRange, Protocol, Scheduler, Server, Service, ServiceKey};

    #[test]
    fn a_file_that_comes_and_goes_is_seen() {
        let folder = std::env::temp_dir().join(format!("evenkeel-drain-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (first, second) = (folder.join("first"), folder.join("missing/second"));
        let key = ServiceKey {
            address: IpAddr::from([192, 0, 2, 10]),
            protocol: Protocol::Tcp,
            ports: PortRange::single(80),
        };
        let server = |last, file: Option<&PathBuf>| {
            let mut server = Server::dr(IpAddr::from([10, 0, 0, last]), 1);
            server.health.drain_file = file.cloned();
            server
        };
        let servers = vec![server(1, Some(&first)), server(2, Some(&second)), server(3, None), server(4, Some(&first))];
        let mut desired = Desired::of(vec![Service::dr("web", key, Scheduler::RR, servers)]);
        fs::write(&first, "").expect("a file");
        let woken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&woken);
        let mut files = DrainFiles::new(Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
        let drained = |files: &DrainFiles, desired: &Desired| -> Vec<bool> {
            files.each(desired).map(|(_, exists)| exists).collect()
        };
        files.configure(&desired);
        assert_eq!(drained(&files, &desired), [true, false, true], "known before a flow comes");
        let until = |files: &mut DrainFiles, desired: &Desired, wanted: &[bool]| {
            let start = Instant::now();
            while !files.news() || drained(files, desired) != wanted {
                assert!(start.elapsed() < Duration::from_secs(60), "{:?}", drained(files, desired));
                thread::sleep(Duration::from_millis(5));
            }
        };
        fs::remove_file(&first).expect("it is there");
        until(&mut files, &desired, &[false, false, false]);
        assert!(woken.load(Ordering::Relaxed) > 0);
        fs::create_dir_all(second.parent().expect("a folder")).expect("a folder");
        fs::write(&second, "").expect("a file");
        until(&mut files, &desired, &[false, true, false]);
        // A server that gets another file, and one that has none any more.
        desired.services[0].servers[0].health.drain_file = Some(second);
        desired.services[0].servers[1].health.drain_file = None;
        files.configure(&desired);
        assert_eq!(drained(&files, &desired), [true, false]);
        let _ = fs::remove_dir_all(&folder);
    }
}
