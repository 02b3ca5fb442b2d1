//! A capture as a pcapng file (IETF draft-ietf-opsawg-pcapng), which tcpdump and Wireshark read.
//!
//! Owns its blocks: one interface description for each interface of the engine, one packet block for each copy, with a comment
//! that says what became of the frame. Writes to whatever it is given.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::pcapng::{Block, PcapNgWriter};
use pcap_file::{DataLink, Endianness, PcapError};

use super::{FrameRow, base64};

/// What is wrong with a file that is written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be written.
    #[error("cannot write the capture: {0}")]
    Write(#[from] PcapError),
    /// The engine sent a frame that is none.
    #[error("the engine sent a frame that cannot be read; are both of one version?")]
    Foreign,
}

/// A file that is being written.
pub struct CaptureFile<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: u32,
}

/// Inbound and outbound, in the flags of a packet block.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

impl<W: Write> CaptureFile<W> {
    /// Begins a file of these interfaces.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn begin(writer: W, interfaces: &[String], snaplen: u32) -> Result<Self, FileError> {
        let program = concat!("evenkeel ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(program))],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(writer, section)?;
        for name in interfaces {
            writer.write_block(&Block::InterfaceDescription(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                    // Nanoseconds.
                    InterfaceDescriptionOption::IfTsResol(9),
                ],
            }))?;
        }
        Ok(CaptureFile { writer, interfaces: interfaces.len() as u32 })
    }

    /// Appends a copy.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn append(&mut self, frame: &FrameRow) -> Result<(), FileError> {
        let interface_id = u32::from(frame.interface);
        let data = base64::decode(&frame.data).filter(|_| interface_id < self.interfaces).ok_or(FileError::Foreign)?;
        self.writer.write_block(&Block::EnhancedPacket(EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(frame.time),
            original_len: frame.length,
            data: Cow::Owned(data),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Owned(comment(frame))),
                EnhancedPacketOption::Flags(if frame.leaves { OUTBOUND } else { INBOUND }),
            ],
        }))?;
        Ok(())
    }

    /// Hands on what waits in buffers.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.writer.get_mut().flush()
    }
}

/// What became of a frame, in words: `drop bad-tcp-flags, service web, worker 0`.
pub fn comment(frame: &FrameRow) -> String {
    let mut text = frame.verdict.clone();
    if let Some(reason) = &frame.reason {
        let _ = write!(text, " {reason}");
    }
    if frame.leaves {
        text.push_str(", as it leaves");
    }
    if let Some(service) = &frame.service {
        let _ = write!(text, ", service {service}");
    }
    if let Some(server) = &frame.server {
        let _ = write!(text, ", server {server}");
    }
    if frame.new_flow {
        text.push_str(", new flow");
    }
    let _ = write!(text, ", worker {}", frame.worker);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::PcapNgReader;

    fn frame(verdict: &str) -> FrameRow {
        FrameRow {
            time: 1_700_000_000_123_456_789,
            interface: 1,
            leaves: false,
            worker: 3,
            verdict: verdict.to_owned(),
            reason: None,
            service: None,
            server: None,
            new_flow: false,
            length: 1514,
            data: base64::encode(b"first bytes"),
        }
    }

    #[test]
    fn comments_say_all_that_is_known() {
        let dropped = FrameRow { reason: Some("denied".into()), service: Some("web".into()), ..frame("drop") };
        assert_eq!(comment(&dropped), "drop denied, service web, worker 3");
        let sent = FrameRow {
            leaves: true,
            service: Some("web".into()),
            server: Some("10.0.0.11:80".into()),
            new_flow: true,
            ..frame("tx")
        };
        assert_eq!(comment(&sent), "tx, as it leaves, service web, server 10.0.0.11:80, new flow, worker 3");
        assert_eq!(comment(&frame("pass")), "pass, worker 3");
    }

    #[test]
    fn a_file_has_its_interfaces_and_frames() {
        let mut bytes = Vec::new();
        let names = ["wan0".to_owned(), "lan0".to_owned()];
        let mut file = CaptureFile::begin(&mut bytes, &names, 64).unwrap();
        file.append(&frame("drop")).unwrap();
        file.flush().unwrap();
        for wrong in [FrameRow { interface: 2, ..frame("tx") }, FrameRow { data: "?".into(), ..frame("tx") }] {
            assert!(matches!(file.append(&wrong), Err(FileError::Foreign)));
        }
        drop(file);
        let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block() {
            blocks.push(block.unwrap().into_owned());
        }
        let [Block::InterfaceDescription(wan), Block::InterfaceDescription(_), Block::EnhancedPacket(packet)] =
            &blocks[..]
        else {
            panic!("{blocks:?}");
        };
        assert!(wan.options.contains(&InterfaceDescriptionOption::IfTsResol(9)) && wan.snaplen == 64);
        assert_eq!((packet.interface_id, packet.original_len), (1, 1514));
        assert_eq!((packet.timestamp.as_nanos(), &*packet.data), (1_700_000_000_123_456_789, &b"first bytes"[..]));
        assert!(packet.options.contains(&EnhancedPacketOption::Comment("drop, worker 3".into())));
    }
}
