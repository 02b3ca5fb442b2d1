//! Captures: reading pcap and pcapng files whole, writing pcap files with nanosecond stamps.
//!
//! Never interprets a frame.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened or created.
    #[error("{path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no capture, or is damaged.
    #[error("{path}: frame {frame}: {source}; expected a pcap or pcapng file")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of the frame that could not be read, from 1.
        frame: usize,
        /// What the reader says.
        source: PcapError,
    },
    /// Not an Ethernet capture.
    #[error("{path}: link type {link:?}; expected Ethernet (capture on the interface itself, not on `any`)")]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Its link type.
        link: DataLink,
    },
    /// The output cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: PcapError,
    },
}

/// One captured frame.
#[derive(Clone, Debug)]
pub struct Record {
    /// Stamp, since the epoch.
    pub time: Duration,
    /// Number of the capture interface (pcapng); 0 in pcap files.
    pub interface: u32,
    /// Bytes as captured.
    pub bytes: Vec<u8>,
}

/// A capture, read whole.
pub struct Input {
    /// Its frames, in the order of the file.
    pub records: Vec<Record>,
    /// Why it ends before the file does: a capture that was cut off still has its whole frames.
    pub damage: Option<CaptureError>,
}

impl Input {
    /// Reads a capture.
    ///
    /// # Errors
    /// The file is missing, damaged, or not Ethernet.
    pub fn open(path: &Path) -> Result<Input, CaptureError> {
        let open = |source| CaptureError::Open { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(open)?);
        let mut magic = [0; 4];
        let taken = read_up_to(&mut file, &mut magic).map_err(open)?;
        let whole = magic[..taken].chain(file);
        let mut records = Vec::new();
        let result = if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            pcapng(path, whole, &mut records)
        } else {
            pcap(path, whole, &mut records)
        };
        match result {
            Err(damage @ CaptureError::Damaged { .. }) if !records.is_empty() => {
                Ok(Input { records, damage: Some(damage) })
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Input { records, damage: None }),
        }
    }
}

fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

fn ethernet(path: &Path, link: DataLink) -> Result<(), CaptureError> {
    if link == DataLink::ETHERNET { Ok(()) } else { Err(CaptureError::LinkType { path: path.to_owned(), link }) }
}

fn pcap(path: &Path, file: impl Read, records: &mut Vec<Record>) -> Result<(), CaptureError> {
    let damaged = |frame, source| CaptureError::Damaged { path: path.to_owned(), frame, source };
    let mut reader = PcapReader::new(file).map_err(|e| damaged(0, e))?;
    ethernet(path, reader.header().datalink)?;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.map_err(|e| damaged(records.len() + 1, e))?;
        records.push(Record { time: packet.timestamp, interface: 0, bytes: packet.data.into_owned() });
    }
    Ok(())
}

/// How many units of an interface's stamps make a second (`if_tsresol`; microseconds where it is not written).
fn units_a_second(interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    let (base, exponent): (u64, u8) = match resolution.unwrap_or(6) {
        binary @ 0x80.. => (2, binary & 0x7f),
        decimal => (10, decimal),
    };
    base.checked_pow(u32::from(exponent)).unwrap_or(u64::MAX)
}

fn pcapng(path: &Path, file: impl Read, records: &mut Vec<Record>) -> Result<(), CaptureError> {
    let damaged = |frame, source| CaptureError::Damaged { path: path.to_owned(), frame, source };
    let mut reader = PcapNgReader::new(file).map_err(|e| damaged(0, e))?;
    let mut units: Vec<u64> = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.map_err(|e| damaged(records.len() + 1, e))? {
            // A new section counts its interfaces anew.
            Block::SectionHeader(_) => units.clear(),
            Block::InterfaceDescription(interface) => {
                ethernet(path, interface.linktype)?;
                units.push(units_a_second(&interface));
            }
            Block::EnhancedPacket(packet) => {
                // The reader takes any stamp for nanoseconds.
                let stamp = packet.timestamp.as_nanos() as u64;
                let units = units.get(packet.interface_id as usize).copied().unwrap_or(1_000_000);
                let fraction = u128::from(stamp % units) * 1_000_000_000 / u128::from(units);
                records.push(Record {
                    time: Duration::new(stamp / units, fraction as u32),
                    interface: packet.interface_id,
                    bytes: packet.data.into_owned(),
                });
            }
            Block::SimplePacket(packet) => records.push(Record {
                time: records.last().map_or(Duration::ZERO, |r| r.time),
                interface: 0,
                bytes: packet.data.into_owned(),
            }),
            _ => {}
        }
    }
    Ok(())
}

/// A capture being written.
pub struct Output {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
}

impl Output {
    /// Creates the file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> Result<Output, CaptureError> {
        let file = File::create(path).map_err(|source| CaptureError::Open { path: path.to_owned(), source })?;
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            snaplen: 262_144,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(BufWriter::new(file), header)
            .map_err(|source| CaptureError::Write { path: path.to_owned(), source })?;
        Ok(Output { path: path.to_owned(), writer })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, time: Duration, bytes: &[u8]) -> Result<(), CaptureError> {
        let packet = PcapPacket::new(time, bytes.len() as u32, bytes);
        match self.writer.write_packet(&packet) {
            Ok(_) => Ok(()),
            Err(source) => Err(CaptureError::Write { path: self.path.clone(), source }),
        }
    }

    /// Flushes and closes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(self) -> Result<(), CaptureError> {
        let path = self.path;
        let flushed = self.writer.into_writer().into_inner().map_err(|e| e.into_error());
        flushed.map(drop).map_err(|source| CaptureError::Open { path, source })
    }
}
