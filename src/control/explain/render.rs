//! An explanation for people. Pure.

use std::fmt::Write as _;

use super::Explanation;

/// The answer in a sentence, the steps, and the servers.
pub fn render(told: &Explanation) -> String {
    let mut out = format!("{} -> {} {}: {}\n\n", told.client, told.protocol, told.to, told.summary);
    let width = told.steps.iter().map(|step| step.step.len()).max().unwrap_or(0);
    for step in &told.steps {
        let _ = writeln!(out, "{:<width$}  {}", step.step, step.says);
    }
    if told.servers.is_empty() {
        return out;
    }
    let width = told.servers.iter().map(|row| row.server.len()).max().unwrap_or(0).max("Server".len());
    let _ = writeln!(out, "\n   {:<width$} Weight ActiveConn InActConn", "Server");
    for row in &told.servers {
        let mark = if row.taken { "->" } else { "  " };
        let _ = writeln!(
            out,
            "{mark} {:<width$} {:<6} {:<10} {:<9} {}",
            row.server, row.weight, row.active, row.inactive, row.why
        );
    }
    out
}
