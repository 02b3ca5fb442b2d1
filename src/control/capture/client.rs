//! The command `evenkeel capture`: begins a capture, asks for page after page, and writes them to a file as they come.
//!
//! Owns the arguments and the last sentence. What is in the file when it is killed can be read.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pcap_file::PcapError;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Page;
use super::file::{CaptureFile, FileError};
use crate::control::progress;
use crate::control::socket::Command;
use crate::control::socket::client::{ClientError, DEFAULT_SOCKET, ask_with, failed};

/// Arguments of `evenkeel capture`.
#[derive(Debug, clap::Args)]
pub struct CaptureArgs {
    /// Only frames of which this became: tx, reply, pass, drop or kept.
    #[arg(long, value_name = "WORD")]
    verdict: Option<String>,
    /// Only frames that were dropped for this reason, as `evenkeel status` names it.
    #[arg(long, value_name = "NAME")]
    reason: Option<String>,
    /// Only frames of this service: its name, or such as "tcp 192.0.2.10:80".
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only frames from or to this network, such as 198.51.100.0/24.
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// Only frames of this server: its address, or its address and port.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// Frames as they leave, too, beside those as they came.
    #[arg(long)]
    both: bool,
    /// End after so many frames.
    #[arg(long, value_name = "N", default_value_t = super::options::COUNT.0)]
    count: u64,
    /// End after so many seconds.
    #[arg(long, value_name = "N", default_value_t = super::options::SECONDS.0)]
    seconds: u64,
    /// End after so many bytes of frames.
    #[arg(long, value_name = "N", default_value_t = super::options::BYTES.0)]
    bytes: u64,
    /// Keep so many bytes of each frame.
    #[arg(long, value_name = "N", default_value_t = super::options::SNAPLEN.0)]
    snaplen: u64,
    /// The pcapng file to write; `-` is standard output.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// The answer to `start`.
#[derive(Debug, Deserialize)]
struct Started {
    capture: u64,
    interfaces: Vec<String>,
    snaplen: u32,
}

/// Why a capture failed.
#[derive(Debug, thiserror::Error)]
enum CaptureError {
    #[error(transparent)]
    Ask(#[from] ClientError),
    #[error("cannot write {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Format(#[from] FileError),
}

impl CaptureArgs {
    fn options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        let texts = [
            ("verdict", &self.verdict),
            ("reason", &self.reason),
            ("service", &self.service),
            ("client", &self.client),
            ("server", &self.server),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                options.insert(name.to_owned(), json!(text));
            }
        }
        let numbers =
            [("count", self.count), ("seconds", self.seconds), ("bytes", self.bytes), ("snaplen", self.snaplen)];
        for (name, number) in numbers {
            options.insert(name.to_owned(), json!(number));
        }
        options.insert("both".to_owned(), json!(self.both));
        options
    }
}

/// Runs `evenkeel capture`.
pub fn main(args: CaptureArgs) -> ExitCode {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        eprintln!(
            "a capture is no text: name a file with --output, or pipe it, as in `evenkeel capture | tcpdump -nr -`"
        );
        return ExitCode::from(2);
    }
    match capture(&args, to_stdout) {
        Ok(()) => ExitCode::SUCCESS,
        Err(CaptureError::Ask(error)) => failed(&error),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("{error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn capture(args: &CaptureArgs, to_stdout: bool) -> Result<(), CaptureError> {
    let answer = ask_with(&args.socket, Command::Capture, &Value::Object(args.options()))?;
    let started: Started = serde_json::from_value(answer).map_err(|_| ClientError::Foreign(args.socket.clone()))?;
    let written = write(args, &started, to_stdout);
    if !matches!(written, Ok(Why::Engine(_))) {
        // The engine would find out by itself, some seconds later.
        let _ = ask_with(&args.socket, Command::Capture, &json!({ "action": "stop", "capture": started.capture }));
    }
    if let Ok(Why::Engine(said)) = &written {
        eprintln!("{said}");
    }
    written.map(drop)
}

/// Why a capture ended.
enum Why {
    /// The engine ended it; what is to be said.
    Engine(String),
    /// Who reads it has enough.
    Reader,
}

fn write(args: &CaptureArgs, started: &Started, to_stdout: bool) -> Result<Why, CaptureError> {
    let wrong = |source| CaptureError::File { path: args.output.clone(), source };
    let out: Box<dyn Write> =
        if to_stdout { Box::new(io::stdout().lock()) } else { Box::new(File::create(&args.output).map_err(wrong)?) };
    let mut file = CaptureFile::begin(BufWriter::new(out), &started.interfaces, started.snaplen)?;
    file.flush().map_err(wrong)?;
    let mut copies = 0;
    let progress = progress::counting("frames", !to_stdout);
    let next = json!({ "action": "next", "capture": started.capture });
    loop {
        let answer = ask_with(&args.socket, Command::Capture, &next)?;
        let page: Page = serde_json::from_value(answer).map_err(|_| ClientError::Foreign(args.socket.clone()))?;
        let appended = page.frames.iter().try_for_each(|frame| file.append(frame));
        let written = appended.and_then(|()| Ok(file.flush().map_err(PcapError::IoError)?));
        match written {
            // `evenkeel capture | tcpdump -c 3 -r -`.
            Err(FileError::Write(PcapError::IoError(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(Why::Reader);
            }
            Err(FileError::Write(PcapError::IoError(source))) => return Err(wrong(source)),
            written => written?,
        }
        copies += page.frames.len();
        progress.set_position(copies as u64);
        let why = match page.ended.as_deref() {
            None => continue,
            Some("stopped") => "stopped",
            Some(bound) => &format!("as many {} as were asked for", if bound == "count" { "frames" } else { bound }),
        };
        progress.finish_and_clear();
        let plural = if copies == 1 { "" } else { "s" };
        return Ok(Why::Engine(format!("{copies} frame{plural} captured, {} missed: {why}", page.missed)));
    }
}
