//! Programs that are run for tracking, checks and notification.
//!
//! Owns finding and checking a program, starting it as its user in a process group of its own, the first line that it prints,
//! and ending that group. Never waits for one: whoever runs it looks whether it has ended.

pub(crate) mod queue;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, PipeReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, Uid, User, geteuid};

/// Changes its user and becomes the program (util-linux). A fork of this process would make the pages of its frames and flows
/// copy-on-write, under the workers' hands; without a user to change to the system spawns without one.
const SETPRIV: [&str; 2] = ["/usr/bin/setpriv", "/bin/setpriv"];

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// It is no file, or cannot be found in `PATH`.
    #[error("{0} does not exist")]
    Missing(String),
    /// It may not be executed.
    #[error("{0} is not executable")]
    NotExecutable(String),
    /// Everybody can replace what would run as root.
    #[error("{0} can be written by everybody: it is not run as root")]
    Writable(String),
    /// There is no such user.
    #[error("there is no user {0}")]
    NoUser(String),
    /// The system refused.
    #[error("{program} cannot be started: {source}")]
    Refused {
        /// What should have been started.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with that exit code.
    Exit(i32),
    /// By that signal.
    Signal(i32),
}

impl Ended {
    fn of(status: ExitStatus) -> Ended {
        status.code().map_or_else(|| Ended::Signal(status.signal().unwrap_or(0)), Ended::Exit)
    }
}

/// What is to be started: found and checked.
pub(crate) struct Program {
    path: PathBuf,
    user: Option<User>,
}

impl Program {
    /// Finds `program`, to be run as `user` (`None`: as this program's own).
    pub fn find(program: &str, user: Option<&str>) -> Result<Program, StartError> {
        let missing = || StartError::Missing(program.to_owned());
        let path = if program.contains('/') { PathBuf::from(program) } else { search(program).ok_or_else(missing)? };
        let found = fs::metadata(&path).map_err(|_| missing())?;
        if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
            return Err(StartError::NotExecutable(path.display().to_string()));
        }
        let user = match user {
            None => None,
            Some(name) => match User::from_name(name) {
                Ok(Some(user)) => Some(user).filter(|user| user.uid != geteuid()),
                _ => return Err(StartError::NoUser(name.to_owned())),
            },
        };
        let program = Program { path, user };
        if program.runs_as_root() {
            program.refuse_if(anybody_may_write)?;
        }
        Ok(program)
    }

    /// What makes it a risk though it is run: somebody who is not root can replace what runs as root (keepalived's
    /// `enable_script_security`).
    pub fn risk(&self) -> Option<String> {
        let others = |found: &Metadata, folder: bool| {
            let group = found.gid() != 0 && found.mode() & 0o020 != 0 && !is_sticky(found, folder);
            found.uid() != 0 || group || anybody_may_write(found, folder)
        };
        let place = self.runs_as_root().then(|| self.place_with(others)).flatten()?;
        Some(format!("{} runs as root, and others than root can write {}", self.path.display(), place.display()))
    }

    /// Starts it with `arguments`, without input and output.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Running, StartError> {
        let mut command = self.command();
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.spawn(command, false)
    }

    /// Starts it with `arguments` and an environment of `PATH` and `environment`, without input. What it leaves in its group
    /// ends with it: nothing of it goes on. The output is the first line of both its outputs.
    pub fn start_alone<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(String, String)],
    ) -> Result<(Running, Output), StartError> {
        let refused = |source| StartError::Refused { program: self.path.display().to_string(), source };
        let (pipe, writer) = io::pipe().map_err(refused)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| refused(errno.into()))?;
        let mut command = self.command();
        command.args(arguments).stdout(writer.try_clone().map_err(refused)?).stderr(writer);
        let path = env::var_os("PATH");
        command.env_clear().envs(path.map(|path| ("PATH", path)));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let running = self.spawn(command, true)?;
        Ok((running, Output { pipe, line: Vec::new(), whole: false }))
    }

    fn spawn(&self, mut command: Command, alone: bool) -> Result<Running, StartError> {
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|source| StartError::Refused { program: self.path.display().to_string(), source })?;
        Ok(Running { group: Pid::from_raw(child.id() as i32), child, ending: alone, over: false })
    }

    fn command(&self) -> Command {
        let Some(user) = &self.user else { return Command::new(&self.path) };
        if let Some(setpriv) = SETPRIV.iter().find(|path| Path::new(path).exists()) {
            let mut command = Command::new(setpriv);
            command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
            // Without what capabilities a service may have been given to pass on.
            command.args(["--init-groups", "--inh-caps=-all", "--"]).arg(&self.path);
            return command;
        }
        let mut command = Command::new(&self.path);
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        command
    }

    fn runs_as_root(&self) -> bool {
        self.user.as_ref().map_or_else(geteuid, |user| user.uid) == Uid::from_raw(0)
    }

    fn refuse_if(&self, unsafe_place: impl Fn(&Metadata, bool) -> bool) -> Result<(), StartError> {
        self.place_with(unsafe_place).map_or(Ok(()), |place| Err(StartError::Writable(place.display().to_string())))
    }

    /// The file, or the first folder above it, of which `says` holds; it also gets whether that is a folder.
    fn place_with(&self, says: impl Fn(&Metadata, bool) -> bool) -> Option<PathBuf> {
        let whole = self.path.canonicalize().ok()?;
        let place = whole
            .ancestors()
            .enumerate()
            .find(|(above, place)| fs::metadata(place).is_ok_and(|found| says(&found, *above > 0)));
        place.map(|(_, place)| place.to_owned())
    }
}

fn anybody_may_write(found: &Metadata, folder: bool) -> bool {
    found.mode() & 0o002 != 0 && !is_sticky(found, folder)
}

/// A folder in which nobody can replace others' files, such as `/tmp`.
fn is_sticky(found: &Metadata, folder: bool) -> bool {
    folder && found.mode() & 0o1000 != 0
}

fn search(program: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// What a program prints: its first line is kept, the rest is thrown away.
pub(crate) struct Output {
    pipe: PipeReader,
    line: Vec<u8>,
    whole: bool,
}

impl Output {
    /// Most bytes of the first line that are kept.
    const LINE: usize = 512;
    /// Most bytes that are read at a time: a program that prints without end waits for the next time.
    const TURN: usize = 64 << 10;

    /// Reads what is there. Never waits.
    pub fn read(&mut self) {
        let mut buffer = [0; 4096];
        for _ in 0..Self::TURN / buffer.len() {
            let Ok(count @ 1..) = self.pipe.read(&mut buffer) else { return };
            for byte in &buffer[..count] {
                if self.whole {
                    break;
                }
                match byte {
                    b'\n' => self.whole = !self.line.trim_ascii().is_empty(),
                    _ => self.line.push(*byte),
                }
                self.whole |= self.line.len() >= Self::LINE;
            }
        }
    }

    /// The first line that has something, without what cannot be printed.
    pub fn line(&self) -> String {
        let text = String::from_utf8_lossy(&self.line);
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect::<String>().trim().to_owned()
    }
}

/// A program that was started, and what it starts in its process group. Dropped while it runs, the group is killed.
pub(crate) struct Running {
    group: Pid,
    child: Child,
    ending: bool,
    over: bool,
}

impl Running {
    /// How it ended, if it has. What it left in the background goes on, unless it was told to end.
    pub fn ended(&mut self) -> Option<Ended> {
        if self.ending {
            // Not reaped yet, so its number cannot be another group's already.
            let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            match waitid(Id::Pid(self.group), look) {
                Ok(WaitStatus::StillAlive) => return None,
                _ => self.signal(Signal::SIGKILL),
            }
        }
        let status = self.child.try_wait().ok()??;
        self.over = true;
        Some(Ended::of(status))
    }

    /// Asks the whole group to end; [`Running::ended`] then kills what does not when its first process is gone.
    pub fn end(&mut self) {
        self.ending = true;
        self.signal(Signal::SIGTERM);
    }

    /// Kills the whole group.
    pub fn kill(&mut self) {
        self.ending = true;
        self.signal(Signal::SIGKILL);
    }

    /// Lets it go on when this is dropped.
    pub fn leave(&mut self) {
        self.over = true;
    }

    fn signal(&self, signal: Signal) {
        if !self.over {
            // It may have ended in this moment.
            let _ = killpg(self.group, signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over && self.ended().is_none() {
            self.kill();
            let _ = self.child.wait();
        }
    }
}
