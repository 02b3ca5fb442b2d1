//! Rules of ipvsadm -> a configuration: what `ipvsadm -S -n` wrote, or scripts that call it.
//!
//! Follows ipvsadm 1.31's options, one call a line, each doing what it does to a table of the kernel that is empty before.
//! Files are read by the caller. Pure.

mod call;
mod services;

use self::call::{Call, Refusal};
use self::services::Services;
use super::document::{Document, Table, Value};
use super::report::{Broken, Note, Place, Weight};

/// Most bytes of rules.
const MOST_BYTES: usize = 16 << 20;

/// Longest line, in bytes.
const MOST_LINE: usize = 65_536;

/// Imports rules. Returns the configuration, and what was said about the way.
pub fn import(bytes: &[u8], name: &str, interfaces: &[String]) -> Result<(Document, Vec<Note>), Broken> {
    let file = Place::new(name, 0);
    if bytes.len() > MOST_BYTES {
        let text = format!("the file has more than {} MiB", MOST_BYTES >> 20);
        return Err(Broken::new(&file, text, "these are more than rules"));
    }
    let mut services = Services::default();
    let mut report = Vec::new();
    let mut notes = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let at = Place { file: file.file.clone(), line: index + 1 };
        if line.len() > MOST_LINE || line.contains(&0) {
            return Err(Broken::new(&at, "this is no line of rules", "import what `ipvsadm -S -n` prints"));
        }
        let text = String::from_utf8_lossy(line);
        let refused = match call::read(&text) {
            Ok(None) => continue,
            Ok(Some(call)) => run(&call, &text, &at, &mut services, &mut report),
            Err(refused) => Err(refused),
        };
        match refused {
            Ok(()) => {}
            Err(Refusal::Broken(message, help)) => return Err(Broken::new(&at, message, help)),
            Err(Refusal::LeftOut(reason)) => {
                let note = Note { weight: Weight::LeftOut, at, what: text.trim().to_owned(), reason };
                report.push(note.clone());
                notes.push(note);
            }
        }
    }
    let head = vec![
        format!("Imported from ipvsadm's rules in {name} by `evenkeel import ipvsadm`."),
        String::new(),
        "Each part names the line that it comes from. ipvsadm checks no servers, so these services have no checks: add"
            .into(),
        "`[[service.check]]` in the place of `check = \"none\"`. Then: `evenkeel check FILE`.".into(),
    ];
    let mut tables: Vec<Table> = Vec::new();
    for name in interfaces.iter().filter(|name| !name.is_empty()) {
        let mut table = Table::many("interface", &file, "--interface");
        table.set("name", Value::text(name), &file);
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    if tables.is_empty() {
        tables.push(super::unknown_interface(&file));
    }
    tables.extend(services.finish());
    Ok((Document { head, notes, tables }, report))
}

fn run(call: &Call, text: &str, at: &Place, services: &mut Services, report: &mut Vec<Note>) -> Result<(), Refusal> {
    let mut remarks = Vec::new();
    services.run(call, text, at, &mut remarks)?;
    report.extend(remarks);
    Ok(())
}
