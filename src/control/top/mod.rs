//! `evenkeel top`: the engine on the whole screen.
//!
//! Owns the terminal, the keys and when the engine is asked. What is shown is [`sample`]'s, [`screen`]'s and [`draw`]'s.

pub mod draw;
pub mod sample;
pub mod screen;

use std::io::{self, IsTerminal, Stdout, stdout};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::{execute, terminal};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::{Terminal, TerminalOptions, Viewport};
use signal_hook::consts::{SIGHUP, SIGTERM};

use super::show::{ask_status, seconds};
use super::socket::client::{ClientError, DEFAULT_SOCKET, failed};
use super::status::Status;
use super::status::parts::{Part, Question};
use draw::{Around, Line, Look};
use sample::Sample;
use screen::{Screen, Wish};

/// The size of a terminal that does not know its own: a serial console.
const SERIAL: Rect = Rect::new(0, 0, 80, 24);

/// Columns of a frame that goes to no terminal.
const COLUMNS: usize = 120;

/// Longest wait for a key, so that a signal is seen.
const KEY: Duration = Duration::from_millis(200);

/// Asking takes at most this share of the time: a large engine is asked less often.
const SHARE: u32 = 10;

/// Arguments of `evenkeel top`.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Only this service: its name, or its protocol, address and port, such as `tcp 192.0.2.10:80`.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    interval: f64,
    /// Print one frame with every list as text, and end: for scripts. It takes one interval, for the rates.
    #[arg(long)]
    once: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
enum TopError {
    /// The engine does not answer the first question.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing to draw on.
    #[error(
        "`evenkeel top` needs a terminal for its keys and its screen; `evenkeel top --once` prints one frame as text"
    )]
    NoTerminal,
    /// The terminal refuses.
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

/// What is asked of the engine.
fn question(service: Option<String>) -> Question {
    let parts = [Part::Engine, Part::Config, Part::Workers, Part::Services, Part::Vrrp, Part::Drops, Part::Warnings];
    Question { service, ..Question::parts(&parts) }
}

/// Runs `evenkeel top`.
pub fn main(args: TopArgs) -> ExitCode {
    let done = if args.once { once(&args) } else { watch(&args) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(TopError::Client(error)) => failed(&error),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn once(args: &TopArgs) -> Result<(), TopError> {
    let question = question(args.service.clone());
    let (before, at) = (ask_status(&args.socket, &question)?, Instant::now());
    std::thread::sleep(Duration::from_secs_f64(args.interval));
    let now = ask_status(&args.socket, &question)?;
    let sample = sample::take(Some((&before, at.elapsed())), &now);
    let width = match stdout().is_terminal() {
        true => terminal::size().map_or(COLUMNS, |(width, _)| usize::from(width).max(usize::from(draw::LEAST.0))),
        false => COLUMNS,
    };
    super::print(&draw::text(&sample, &Around { every: args.interval, trouble: None }, width));
    Ok(())
}

/// An answer, and when it came.
type Answered = (Result<Status, ClientError>, Instant, Duration);

/// Asks on a thread of its own, each time it is told to: an engine that does not answer must not hold up the keys.
fn asker(socket: PathBuf, question: Question) -> (Sender<()>, Receiver<Answered>) {
    let (ask, asked) = channel::<()>();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while asked.recv().is_ok() {
            let begun = Instant::now();
            let answer = ask_status(&socket, &question);
            if tell.send((answer, Instant::now(), begun.elapsed())).is_err() {
                return;
            }
        }
    });
    (ask, told)
}

/// The terminal as a screen. Dropped, it is as it was before.
struct Tty(Terminal<CrosstermBackend<Stdout>>);

impl Tty {
    fn open() -> io::Result<Tty> {
        // A serial console may say that it has no size at all.
        let knows = terminal::size().is_ok_and(|(width, height)| width > 0 && height > 0);
        let viewport = if knows { Viewport::Fullscreen } else { Viewport::Fixed(SERIAL) };
        // Raw mode, and a hook that gives the terminal back after a panic.
        let terminal = ratatui::try_init_with_options(TerminalOptions { viewport })?;
        let tty = Tty(terminal);
        execute!(stdout(), terminal::EnterAlternateScreen, terminal::Clear(terminal::ClearType::All))?;
        Ok(tty)
    }

    /// Forgets what is on the screen. `Terminal::clear` would ask where the cursor is, and not every console answers.
    fn clear(&mut self) -> io::Result<()> {
        let area = self.0.get_frame().area();
        execute!(stdout(), terminal::Clear(terminal::ClearType::All))?;
        self.0.resize(area)
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Puts a frame into a buffer.
fn paint(lines: &[Line], area: Rect, buffer: &mut Buffer) {
    for (line, y) in lines.iter().zip(area.y..area.bottom()) {
        let style = match line.look {
            Look::Plain => Style::new(),
            Look::Strong => Style::new().add_modifier(Modifier::BOLD),
            Look::Bad => Style::new().fg(Color::Red),
            Look::Bar => Style::new().add_modifier(Modifier::REVERSED),
        };
        let style = if line.chosen { style.add_modifier(Modifier::REVERSED) } else { style };
        buffer.set_stringn(area.x, y, &line.text, usize::from(area.width), style);
    }
}

/// What is known of the engine, from look to look.
#[derive(Default)]
struct Seen {
    before: Option<(Status, Instant)>,
    sample: Sample,
    trouble: Option<String>,
}

impl Seen {
    fn take(&mut self, answer: Result<Status, ClientError>, at: Instant) {
        match answer {
            Ok(status) => {
                let before = self.before.as_ref().map(|(before, then)| (before, at.saturating_duration_since(*then)));
                self.sample = sample::take(before, &status);
                self.before = Some((status, at));
                self.trouble = None;
            }
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }
}

/// What the terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    None,
    Some,
    /// It is closed at its other end.
    Gone,
}

/// Waits for keys. The library would read the end of a terminal that is gone, over and over.
fn key_waits(within: Duration) -> io::Result<Keys> {
    keys_of(&io::stdin(), within, || event::poll(Duration::ZERO))
}

fn keys_of(terminal: &impl AsFd, within: Duration, kept: impl FnOnce() -> io::Result<bool>) -> io::Result<Keys> {
    let ask = |timeout: PollTimeout| {
        let mut ends = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ends, timeout) {
            // A signal: that the size is another one, for example.
            Err(Errno::EINTR) => Ok(PollFlags::empty()),
            asked => asked.map(|_| ends[0].revents().unwrap_or(PollFlags::POLLERR)).map_err(io::Error::from),
        }
    };
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let now = ask(PollTimeout::ZERO)?;
    if now.intersects(gone) {
        return Ok(Keys::Gone);
    }
    // Keys that came together, and what the library was told by signals.
    if now.contains(PollFlags::POLLIN) || kept()? {
        return Ok(Keys::Some);
    }
    let then = ask(PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO))?;
    Ok(match then {
        then if then.intersects(gone) => Keys::Gone,
        then if then.contains(PollFlags::POLLIN) => Keys::Some,
        _ => Keys::None,
    })
}

fn watch(args: &TopArgs) -> Result<(), TopError> {
    if !stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let question = question(args.service.clone());
    let (mut seen, mut screen) = (Seen::default(), Screen::default());
    // While errors can still be read.
    let begun = Instant::now();
    seen.take(Ok(ask_status(&args.socket, &question)?), Instant::now());
    let interval = Duration::from_secs_f64(args.interval);
    let mut next = Instant::now() + interval.max(begun.elapsed() * SHARE);
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let (ask, told) = asker(args.socket.clone(), question);
    let mut tty = Tty::open()?;
    let (mut waiting, mut pressed) = (false, None);
    while !ended.load(Relaxed) {
        let around = Around { every: args.interval, trouble: seen.trouble.clone() };
        tty.0.draw(|frame| {
            let area = frame.area();
            let lines = draw::frame(&mut screen, &seen.sample, &around, area.width, area.height);
            paint(&lines, area, frame.buffer_mut());
        })?;
        let until =
            if waiting || screen.paused { KEY } else { next.saturating_duration_since(Instant::now()).min(KEY) };
        match key_waits(until)? {
            // Nobody looks any more, and no signal came: the terminal alone went.
            Keys::Gone => break,
            Keys::None => {}
            Keys::Some => pressed = event::poll(Duration::ZERO)?.then(event::read).transpose()?,
        }
        if let Some(Event::Key(key)) = pressed.take()
            && key.kind != KeyEventKind::Release
        {
            let height = tty.0.get_frame().area().height;
            let (page, lines) = (draw::page_of(&seen.sample, &around, height), draw::count(&screen, &seen.sample));
            match screen.on_key(key.code, key.modifiers, page, lines) {
                Wish::Draw => {}
                Wish::Redraw => tty.clear()?,
                Wish::Quit => break,
            }
        }
        match told.try_recv() {
            Ok((answer, at, took)) => {
                waiting = false;
                next = Instant::now() + interval.saturating_sub(took).max(took * (SHARE - 1));
                if !screen.paused {
                    seen.take(answer, at);
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
        if !waiting && !screen.paused && Instant::now() >= next {
            waiting = ask.send(()).is_ok();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::sample::tests::status;
    use super::*;

    #[test]
    fn a_frame_is_painted_line_for_line_and_follows_the_size() {
        let (mut seen, mut screen) = (Seen::default(), Screen::default());
        let start = Instant::now();
        seen.take(Ok(status(1)), start);
        seen.take(Ok(status(2)), start + Duration::from_secs(1));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut painted = |terminal: &mut Terminal<TestBackend>| {
            let around = Around { every: 1.0, trouble: None };
            let draw = |frame: &mut ratatui::Frame<'_>| {
                let area = frame.area();
                let lines = draw::frame(&mut screen, &seen.sample, &around, area.width, area.height);
                paint(&lines, area, frame.buffer_mut());
            };
            terminal.draw(draw).unwrap();
            terminal.backend().to_string()
        };
        let text = painted(&mut terminal);
        assert!(
            text.contains("  10.0.0.11:8080          UP                2     12      3     10   1000    500"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 24);
        let cell = terminal.backend().buffer().cell((2, 7)).unwrap();
        assert_eq!((cell.symbol(), cell.fg), ("1", Color::Red), "a server that is down");
        terminal.backend_mut().resize(30, 5);
        assert!(painted(&mut terminal).contains("at least 40x8"));
        terminal.backend_mut().resize(132, 50);
        assert!(painted(&mut terminal).contains("out bit/s"));
    }

    #[test]
    fn a_terminal_that_is_gone_is_noticed() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(keys_of(&ours, Duration::ZERO, || Ok(false)).unwrap(), Keys::None);
        assert_eq!(keys_of(&ours, Duration::ZERO, || Ok(true)).unwrap(), Keys::Some, "keys that were read before");
        io::Write::write_all(&mut &theirs, b"q").unwrap();
        assert_eq!(keys_of(&ours, Duration::from_secs(9), || Ok(false)).unwrap(), Keys::Some);
        drop(theirs);
        let asked = || panic!("the library must not read what is gone");
        assert_eq!(keys_of(&ours, Duration::from_secs(9), asked).unwrap(), Keys::Gone);
    }

    #[test]
    fn trouble_leaves_the_last_numbers() {
        let mut seen = Seen::default();
        seen.take(Ok(status(1)), Instant::now());
        seen.take(Err(ClientError::Dead("/run/lb.sock".into())), Instant::now());
        assert_eq!(seen.sample.groups.len(), 2);
        assert!(seen.trouble.as_ref().is_some_and(|why| why.contains("/run/lb.sock is gone")), "{:?}", seen.trouble);
        seen.take(Ok(status(2)), Instant::now());
        assert_eq!(seen.trouble, None);
    }
}
