//! What people read.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write as _},
    process,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::Value;

use super::Exit;

/// Prints a line. Without a reader any more the command ends, and never with success: exit codes are verdicts.
macro_rules! say {
    ($($what:tt)*) => { $crate::cli::print::line(format_args!($($what)*)) };
}
pub(super) use say;

pub(super) fn line(what: fmt::Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout().lock(), "{what}") {
        if error.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("revoked: standard output: {error}");
        }
        process::exit(i32::from(Exit::Failed as u8));
    }
}

/// Prints a table with aligned columns; the last one may be as wide as it likes.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or(0))
        .collect();
    let line = |cells: Vec<&str>| {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say!("{}", cells.join("  ").trim_end());
    };
    line(head.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// Prints names and values.
pub(super) fn pairs(pairs: &[(&str, String)]) {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in pairs {
        say!("{name:width$}  {value}");
    }
}

/// Text that somebody else chose: it must not steer the terminal.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.chars().any(steers) {
        text.chars().map(|c| if steers(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
    } else {
        text.into()
    }
}

/// A value in a word; `-`: there is none.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => plain(text).into_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        other => other.to_string(),
    }
}

/// A time: Unix seconds as people write them, or the word that stands there.
pub(super) fn time(value: &Value) -> String {
    match value.as_u64() {
        Some(secs) if secs < 253_402_300_800 => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(secs)).to_string()
        }
        _ => word(value),
    }
}

/// A duration in seconds.
pub(super) fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |secs| format!("{secs:.1} s"))
}

/// A scope: its values, the issuer last.
pub(super) fn scope(scope: &Value) -> String {
    let names = ["jti", "sid", "sub", "client_id", "sha256", "digest", "iss"];
    let values: Vec<_> =
        names.iter().filter_map(|name| Some(format!("{name}={}", plain(scope[*name].as_str()?)))).collect();
    if values.is_empty() { "(only its key is known)".to_owned() } else { values.join(" ") }
}
