//! The files that an import reads, and the name of this machine.
//!
//! Owns the bound on their size. Never writes.

use std::fs::{File, read_dir};
use std::io::Read as _;
use std::path::Path;

/// Most bytes of one file. An import refuses more than this in all.
const MOST: u64 = (16 << 20) + 1;

/// What is in a file, up to a byte more than an import takes; `-` is the standard input.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MOST).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        return Ok(bytes);
    }
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // A FIFO that nobody writes to would never end; the shell's `<(...)` is one that ends.
    if meta.is_dir() {
        return Err("it is a folder".to_owned());
    }
    File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The names in a folder.
pub fn list(folder: &Path) -> Result<Vec<String>, String> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = read_dir(folder).map_err(|error| error.to_string())?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The host's name up to its first point, as keepalived takes it for `@` conditions.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}
