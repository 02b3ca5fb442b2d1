//! The XDP filter: which frames the engine takes from an interface.
//!
//! Owns the loaded program of one interface, its maps and its link. Never decides which addresses are ours: the caller
//! gives tables. The link is a file descriptor of this process (`BPF_LINK_CREATE`), so the kernel takes the program off
//! the interface when the process ends, however it ends.
//!
//! Order on start: [`Filter::attach`] (some drivers, gve for one, want the program before sockets are bound; the
//! tables are empty, so everything passes), bind the sockets, [`Filter::set_socket`], then [`Filter::widen`].
//!
//! The program is `filter.c`; `filter.o` is committed beside it and rebuilt by `build.sh`.

mod lists;
mod matcher;
mod table;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, HashMap, MapError, PerCpuArray, XskMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfError, TestRun, TestRunOptions};

use lists::Lists;
pub use matcher::{Fate, Matcher};
pub use table::{FilterEntry, FilterTable, MAX_ADDRESSES, MAX_PORTS, MAX_RANGES, TableError};
use table::{Image, Key, Ranges, Settings};

use super::access::Table;

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAttach {
    /// In the driver, before the kernel makes a packet of the frame.
    Native,
    /// In the kernel's receive path, for drivers without XDP.
    Generic,
}

impl std::fmt::Display for XdpAttach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            XdpAttach::Native => "native",
            XdpAttach::Generic => "generic",
        })
    }
}

/// What can go wrong with the filter of an interface.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The kernel took the object's maps or types not.
    #[error("{interface}: the kernel did not load the XDP filter (needs root or CAP_BPF and CAP_NET_ADMIN)")]
    Load {
        /// Interface name.
        interface: String,
        /// Cause.
        #[source]
        source: Box<EbpfError>,
    },
    /// The kernel took the program not.
    #[error("{interface}: the kernel did not load the XDP program")]
    Program {
        /// Interface name.
        interface: String,
        /// Cause.
        #[source]
        source: Box<ProgramError>,
    },
    /// Another program is there.
    #[error(
        "{interface} has another XDP program already (`ip link show {interface}` names it); stop what uses it or take \
         it off with `ip link set {interface} xdp off`"
    )]
    Occupied {
        /// Interface name.
        interface: String,
    },
    /// The driver has no native XDP, or not with the present settings.
    #[error("{interface}: {attach} XDP refused: {reason}")]
    Refused {
        /// Interface name.
        interface: String,
        /// Mode that was asked for.
        attach: XdpAttach,
        /// The kernel's reason in words.
        reason: String,
    },
    /// The table does not fit.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A map update failed.
    #[error("{interface}: XDP filter map `{map}`")]
    Map {
        /// Interface name.
        interface: String,
        /// Map name in `filter.c`.
        map: &'static str,
        /// Cause.
        #[source]
        source: Box<MapError>,
    },
}

/// What the program counted since it was loaded, summed over the processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FilterCounters {
    /// Frames left to the kernel.
    pub passed: u64,
    /// Frames handed to a socket.
    pub redirected: u64,
    /// Frames that were ours but came on a queue without a socket; the kernel got them.
    pub no_socket: u64,
    /// Frames of clients that the access lists deny; they were dropped.
    pub denied: u64,
}

/// The filter of one interface. Dropping it takes the program off.
pub struct Filter {
    interface: String,
    attach: XdpAttach,
    table: FilterTable,
    image: Image,
    addresses: HashMap<aya::maps::MapData, Key, u32>,
    ports: HashMap<aya::maps::MapData, Key, u32>,
    ranges: HashMap<aya::maps::MapData, Key, Ranges>,
    sockets: XskMap<aya::maps::MapData>,
    counters: PerCpuArray<aya::maps::MapData, u64>,
    settings: Array<aya::maps::MapData, Settings>,
    lists: Lists,
    secret: [u32; 3],
    // Keeps the program, and through it the maps, on the interface. Dropped first on purpose: see `Drop`.
    link: Option<FdLink>,
    ebpf: Ebpf,
    program: &'static str,
}

/// How a frame goes back to the kernel: by a run of the program behind what `struct returned` of `filter.c` describes.
#[derive(Debug)]
pub struct WayBack {
    program: OwnedFd,
    secret: [u32; 3],
    twice: bool,
}

/// Bytes of a [`WayBack::head`].
pub const HEAD: usize = 16;

impl WayBack {
    /// The program.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// How many heads a frame needs: in generic mode the program sees what it passed once more.
    pub fn heads(&self) -> usize {
        if self.twice { 2 } else { 1 }
    }

    /// `struct returned`. A `trial` goes nowhere.
    pub fn head(&self, trial: bool) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        for (bytes, word) in head.chunks_exact_mut(4).zip(self.secret) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        head[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
        head[14] = u8::from(trial);
        head
    }
}

/// From the operating system's entropy, by way of the standard library's hash keys.
fn random_words() -> [u32; 3] {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    [0u8, 1, 2].map(|word| state.hash_one(word) as u32)
}

const OBJECT: &[u8] = aya::include_bytes_aligned!("filter.o");
/// Programs of the object, best first: one that takes frames of several buffers (kernel 5.18), one that does not.
const PROGRAMS: [&str; 2] = ["evenkeel_frags", "evenkeel"];

impl Filter {
    fn load(interface: &str, object: &[u8], programs: [&'static str; 2]) -> Result<Filter, FilterError> {
        let load = |source| FilterError::Load { interface: interface.to_owned(), source: Box::new(source) };
        let mut ebpf = Ebpf::load(object).map_err(load)?;
        let mut program = programs[0];
        if let Err(first) = load_program(&mut ebpf, program) {
            program = programs[1];
            tracing::debug!(interface, error = %first, "no multi-buffer XDP program");
            load_program(&mut ebpf, program)
                .map_err(|source| FilterError::Program { interface: interface.to_owned(), source: Box::new(source) })?;
        }
        fn take<T: TryFrom<aya::maps::Map, Error = MapError>>(
            ebpf: &mut Ebpf,
            interface: &str,
            map: &'static str,
        ) -> Result<T, FilterError> {
            let error = |source| FilterError::Map { interface: interface.to_owned(), map, source: Box::new(source) };
            let found = ebpf.take_map(map).ok_or_else(|| error(MapError::InvalidName { name: map.to_owned() }))?;
            T::try_from(found).map_err(error)
        }
        let lists = Lists::take(&mut ebpf).map_err(|(map, source)| FilterError::Map {
            interface: interface.to_owned(),
            map,
            source: Box::new(source),
        })?;
        let mut filter = Filter {
            interface: interface.to_owned(),
            attach: XdpAttach::Native,
            table: FilterTable::default(),
            image: Image::default(),
            addresses: take(&mut ebpf, interface, "addresses")?,
            ports: take(&mut ebpf, interface, "ports")?,
            ranges: take(&mut ebpf, interface, "ranges")?,
            sockets: take(&mut ebpf, interface, "sockets")?,
            counters: take(&mut ebpf, interface, "counters")?,
            settings: take(&mut ebpf, interface, "settings")?,
            lists,
            secret: random_words(),
            link: None,
            ebpf,
            program,
        };
        filter.write_settings(0)?;
        Ok(filter)
    }

    fn write_settings(&mut self, also: u32) -> Result<(), FilterError> {
        let [a, b, c] = self.secret;
        let done = self.settings.set(0, [a, b, c, also], 0);
        self.map("settings", done)?;
        self.image.also = also;
        Ok(())
    }

    /// What it takes to give frames back to the kernel by this filter's program.
    ///
    /// # Errors
    /// [`FilterError::Program`].
    pub fn way_back(&self) -> Result<WayBack, FilterError> {
        let error = |source| FilterError::Program { interface: self.interface.clone(), source: Box::new(source) };
        let program = self.ebpf.program(self.program).ok_or(ProgramError::NotLoaded).map_err(error)?;
        let program = program.fd().and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?)).map_err(error)?;
        Ok(WayBack { program, secret: self.secret, twice: self.attach == XdpAttach::Generic })
    }

    /// Loads the filter and attaches it to an interface. Its tables are empty: every frame passes to the kernel.
    ///
    /// # Errors
    /// As [`Filter::loaded`] and [`Filter::put_on`].
    pub fn attach(interface: &str, ifindex: u32, attach: XdpAttach) -> Result<Filter, FilterError> {
        let mut filter = Filter::loaded(interface)?;
        filter.put_on(ifindex, attach)?;
        Ok(filter)
    }

    /// A filter for an interface that it is not on yet.
    ///
    /// # Errors
    /// [`FilterError::Load`] and [`FilterError::Program`], for want of privileges above all.
    pub fn loaded(interface: &str) -> Result<Filter, FilterError> {
        Filter::load(interface, OBJECT, PROGRAMS)
    }

    /// Attaches it to its interface. Where one mode is refused, another can be tried.
    ///
    /// # Errors
    /// [`FilterError::Occupied`] when another XDP program is there in any mode, [`FilterError::Refused`] when the
    /// driver does not have the mode.
    pub fn put_on(&mut self, ifindex: u32, attach: XdpAttach) -> Result<(), FilterError> {
        let mode = match attach {
            XdpAttach::Native => XdpMode::Driver,
            XdpAttach::Generic => XdpMode::Skb,
        };
        let interface = self.interface.clone();
        let refused = |reason: String| FilterError::Refused { interface: interface.clone(), attach, reason };
        let error = |source: ProgramError| match errno(&source) {
            Some(libc::EBUSY | libc::EEXIST) => FilterError::Occupied { interface: interface.clone() },
            Some(libc::EOPNOTSUPP) => refused("the driver has no such mode (EOPNOTSUPP)".to_owned()),
            Some(libc::ERANGE | libc::EMSGSIZE) => {
                refused("the MTU is too large for XDP in this driver (ERANGE)".to_owned())
            }
            Some(code) => refused(std::io::Error::from_raw_os_error(code).to_string()),
            None => FilterError::Program { interface: interface.clone(), source: Box::new(source) },
        };
        let program = xdp(&mut self.ebpf, self.program).map_err(error)?;
        let id = program.attach_to_if_index(ifindex, mode).map_err(error)?;
        let link = program.take_link(id).map_err(error)?;
        // aya falls back to netlink where bpf_link is refused; such a program would outlive us.
        let link = FdLink::try_from(link)
            .map_err(|_| refused("no BPF link, so the program would outlive the process (EINVAL)".to_owned()))?;
        (self.link, self.attach) = (Some(link), attach);
        Ok(())
    }

    /// Instructions that the kernel's verifier walked before it took the program; `None` before kernel 5.16.
    pub fn verified(&self) -> Option<u32> {
        self.ebpf.program(self.program)?.info().ok()?.verified_instruction_count()
    }

    /// A filter that is loaded but on no interface, for [`Filter::takes`].
    ///
    /// # Errors
    /// As [`Filter::loaded`].
    pub fn detached() -> Result<Filter, FilterError> {
        Filter::loaded("(no interface)")
    }

    /// The same of another object: one that includes `filter.c` and has a program of its own around it, for benches.
    ///
    /// # Errors
    /// As [`Filter::detached`].
    pub fn detached_from(object: &[u8], program: &'static str) -> Result<Filter, FilterError> {
        Filter::load("(no interface)", object, [program; 2])
    }

    /// The loaded object with the maps that are not the filter's.
    pub fn object(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Runs the program on one frame in the kernel, apart from all interfaces (`BPF_PROG_TEST_RUN`): what would become
    /// of it. Counts like a real frame; meant for a [`Filter::detached`] one.
    ///
    /// # Errors
    /// [`FilterError::Program`], among others for a frame without a whole Ethernet header, which the kernel does not
    /// run.
    pub fn fate(&self, frame: &[u8]) -> Result<Fate, FilterError> {
        let before = self.counters()?;
        self.time(frame, 1)?;
        let after = self.counters()?;
        Ok(match (after.passed > before.passed, after.denied > before.denied) {
            (true, _) => Fate::Passed,
            (_, true) => Fate::Denied,
            _ => Fate::Taken,
        })
    }

    /// Whether [`Filter::fate`] is to be taken.
    ///
    /// # Errors
    /// As [`Filter::fate`].
    pub fn takes(&self, frame: &[u8]) -> Result<bool, FilterError> {
        Ok(self.fate(frame)? == Fate::Taken)
    }

    /// Runs the program many times on one frame, as [`Filter::fate`] does once, and gives the time of a run, as the kernel
    /// took it.
    ///
    /// # Errors
    /// As [`Filter::fate`].
    pub fn time(&self, frame: &[u8], repeat: u32) -> Result<Duration, FilterError> {
        let error = |source| FilterError::Program { interface: self.interface.clone(), source: Box::new(source) };
        let program = self.ebpf.program(self.program).ok_or(ProgramError::NotLoaded).map_err(error)?;
        let program: &Xdp = program.try_into().map_err(error)?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        Ok(program.test_run(options).map_err(error)?.duration)
    }

    /// Judges clients by these lists from here on, where [`FilterTable::judged`] has the service's address.
    ///
    /// # Errors
    /// [`FilterError::Map`]; the lists are the old ones then.
    pub fn set_access(&mut self, table: &Arc<Table>) -> Result<(), FilterError> {
        self.lists.set(table).map_err(|(map, source)| FilterError::Map {
            interface: self.interface.clone(),
            map,
            source: Box::new(source),
        })
    }

    /// The lists that judge now.
    pub fn access(&self) -> &Arc<Table> {
        self.lists.table()
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Where the program runs.
    pub fn attached(&self) -> XdpAttach {
        self.attach
    }

    /// What the filter takes now.
    pub fn table(&self) -> &FilterTable {
        &self.table
    }

    /// Gives the frames of a receive queue to an AF_XDP socket that is bound to this interface and queue.
    ///
    /// # Errors
    /// [`FilterError::Map`], among others when the socket is bound elsewhere or the queue number is 1024 or more.
    pub fn set_socket(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), FilterError> {
        let done = self.sockets.set(queue, socket.as_raw_fd(), 0);
        self.map("sockets", done)
    }

    /// Takes all that `table` takes, besides what is taken already. Done before a new snapshot is published.
    ///
    /// # Errors
    /// [`FilterError::Table`] (nothing was changed) or [`FilterError::Map`] (more may be taken than before, not less).
    pub fn widen(&mut self, table: &FilterTable) -> Result<(), FilterError> {
        let wide = self.table.union(table);
        let image = Image::of(&wide)?;
        self.add(&image)?;
        // What joined ranges made redundant stays until the next `narrow`.
        self.table = wide;
        Ok(())
    }

    /// Takes what `table` takes and nothing else. Done after a new snapshot is in use.
    ///
    /// # Errors
    /// As [`Filter::widen`]; on [`FilterError::Map`] more may still be taken than `table` says.
    pub fn narrow(&mut self, table: &FilterTable) -> Result<(), FilterError> {
        let image = Image::of(table)?;
        self.add(&image)?;
        if self.image.also != image.also {
            self.write_settings(image.also)?;
        }
        for key in difference(&self.image.addresses, &image.addresses) {
            let done = self.addresses.remove(&key);
            self.map("addresses", done)?;
            self.image.addresses.remove(&key);
        }
        for key in difference(&self.image.ranges, &image.ranges) {
            let done = self.ranges.remove(&key);
            self.map("ranges", done)?;
            self.image.ranges.remove(&key);
        }
        let gone: Vec<Key> = self.image.ports.difference(&image.ports).copied().collect();
        for key in gone {
            let done = self.ports.remove(&key);
            self.map("ports", done)?;
            self.image.ports.remove(&key);
        }
        self.table = table.clone();
        Ok(())
    }

    /// Writes what is new or different: ports and ranges first, then the addresses that lead to them. `self.image`
    /// follows the maps entry by entry, so that a failure in the middle leaves it true.
    fn add(&mut self, image: &Image) -> Result<(), FilterError> {
        for key in &image.ports {
            if !self.image.ports.contains(key) {
                let done = self.ports.insert(key, 1, 0);
                self.map("ports", done)?;
                self.image.ports.insert(*key);
            }
        }
        for (key, value) in &image.ranges {
            if self.image.ranges.get(key) != Some(value) {
                let done = self.ranges.insert(key, value, 0);
                self.map("ranges", done)?;
                self.image.ranges.insert(*key, *value);
            }
        }
        for (key, bits) in &image.addresses {
            if self.image.addresses.get(key) != Some(bits) {
                let done = self.addresses.insert(key, bits, 0);
                self.map("addresses", done)?;
                self.image.addresses.insert(*key, *bits);
            }
        }
        if self.image.also | image.also != self.image.also {
            self.write_settings(self.image.also | image.also)?;
        }
        Ok(())
    }

    /// What the program counted so far.
    ///
    /// # Errors
    /// [`FilterError::Map`].
    pub fn counters(&self) -> Result<FilterCounters, FilterError> {
        let sum = |index: u32| -> Result<u64, FilterError> {
            let values = self.counters.get(&index, 0);
            Ok(self.map("counters", values)?.iter().sum())
        };
        Ok(FilterCounters { passed: sum(0)?, redirected: sum(1)?, no_socket: sum(2)?, denied: sum(3)? })
    }

    fn map<T>(&self, map: &'static str, done: Result<T, MapError>) -> Result<T, FilterError> {
        done.map_err(|source| FilterError::Map { interface: self.interface.clone(), map, source: Box::new(source) })
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // Off the interface first, so that no frame meets a half-closed set of maps.
        drop(self.link.take());
    }
}

fn difference<V>(old: &BTreeMap<Key, V>, new: &BTreeMap<Key, V>) -> Vec<Key> {
    old.keys().filter(|key| !new.contains_key(*key)).copied().collect()
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, ProgramError> {
    let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
    program.try_into()
}

fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    xdp(ebpf, name)?.load()
}

/// The error number at the root of an aya error.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
}
