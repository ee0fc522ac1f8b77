//! `s3d snapshot`: copies of prefixes as of one moment, which the daemon on this machine is asked for over its control socket.
//!
//! - `wire`: what is said; `daemon`: how it is answered; here: the command line, and what it prints.

mod daemon;
mod wire;

use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::strange;
use crate::cli::Flags;
use crate::mounts::options::Source;
use crate::mounts::{Client, Reply, Request};

pub(crate) use daemon::answer;
pub(crate) use wire::{Asked, Row, Rows};

/// What may be asked.
#[derive(Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take a snapshot of what is visible under a prefix now. It is kept under `.snapshots/NAME/` of the same bucket
    Create {
        /// BUCKET, or BUCKET/PREFIX
        source: Source,
        /// Its name, which no other snapshot of the bucket has
        name: String,
        #[command(flatten)]
        settings: Flags,
    },
    /// Print the snapshots of a bucket, and copies of prefixes into it that are under way, or ended within the hour
    List {
        /// BUCKET, or BUCKET/PREFIX: those of this prefix alone
        source: Source,
        #[command(flatten)]
        settings: Flags,
    },
    /// Copy a snapshot to a prefix that is not there yet, to be written; no data is moved
    Clone {
        /// BUCKET/NAME
        snapshot: Name,
        /// BUCKET/PREFIX
        target: Source,
        #[command(flatten)]
        settings: Flags,
    },
    /// Remove a snapshot: at once, with all that was written there since; its space comes back by and by
    Delete {
        /// BUCKET/NAME
        snapshot: Name,
        #[command(flatten)]
        settings: Flags,
    },
}

/// A snapshot, as the command line names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Name {
    bucket: String,
    name: String,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((bucket, name)) if !bucket.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Name { bucket: bucket.to_owned(), name: name.to_owned() })
            }
            _ => Err("a snapshot is named BUCKET/NAME".to_owned()),
        }
    }
}

impl SnapshotCommand {
    /// The settings that came with the command.
    pub(crate) fn take_settings(&mut self) -> Flags {
        std::mem::take(match self {
            SnapshotCommand::Create { settings, .. }
            | SnapshotCommand::List { settings, .. }
            | SnapshotCommand::Clone { settings, .. }
            | SnapshotCommand::Delete { settings, .. } => settings,
        })
    }
}

/// Asks the daemon behind `control`. Returns what to print.
///
/// # Errors
/// The daemon is not there, or says why not.
pub(crate) fn run(control: &Path, command: SnapshotCommand) -> Result<String> {
    match command {
        SnapshotCommand::Create { source, name, .. } => {
            let rows = ask(control, Asked::Create { source: source.clone(), name: name.clone() })?;
            Ok(told(&rows, |row| format!("snapshot {name} of {source}: {}, under {}\n", amount(row), row.place)))
        }
        SnapshotCommand::Clone { snapshot, target, .. } => {
            let asked = Asked::Clone { bucket: snapshot.bucket, name: snapshot.name, target };
            Ok(told(&ask(control, asked)?, |row| format!("{}: {}\n", row.place, amount(row))))
        }
        SnapshotCommand::Delete { snapshot, .. } => {
            ask(control, Asked::Delete { bucket: snapshot.bucket, name: snapshot.name })?;
            Ok(String::new())
        }
        SnapshotCommand::List { source, .. } => list(control, &source),
    }
}

fn list(control: &Path, source: &Source) -> Result<String> {
    let mut all = Vec::new();
    loop {
        let Rows { rows, has_more } = ask(control, Asked::List { bucket: source.bucket.clone(), skip: all.len() })?;
        let is_stuck = rows.is_empty();
        all.extend(rows);
        if !has_more || is_stuck {
            break;
        }
    }
    let wanted = source.to_string();
    all.retain(|row| source.prefix.is_empty() || row.source.trim_end_matches('/') == wanted);
    Ok(table(&all))
}

fn ask(control: &Path, asked: Asked) -> Result<Rows> {
    // It is there when its daemon is; how long a copy takes, only its size tells.
    match Client::connect(control, Duration::ZERO)?.for_ever().ask(&Request::Snapshot(asked), None)? {
        Reply::Snapshots(rows) => Ok(rows),
        Reply::Refused(reason) => bail!(reason),
        other => Err(strange(&other)),
    }
}

fn told(rows: &Rows, tell: impl Fn(&Row) -> String) -> String {
    rows.rows.first().map(tell).unwrap_or_default()
}

fn amount(row: &Row) -> String {
    format!("{} objects, {}", row.object_count, crate::operator::human(row.size_bytes))
}

fn moment(at_ns: i64) -> String {
    let seconds = OffsetDateTime::from_unix_timestamp(at_ns.div_euclid(1_000_000_000));
    seconds.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| "?".to_owned())
}

/// A line each, columns as wide as they must be.
fn table(rows: &[Row]) -> String {
    let head = ["NAME", "SOURCE", "AS OF", "OBJECTS", "BYTES", "PLACE", "STATE"].map(str::to_owned);
    let cells = |row: &Row| {
        [
            if row.name.is_empty() { "-".to_owned() } else { row.name.clone() },
            row.source.clone(),
            moment(row.began_ns),
            row.object_count.to_string(),
            row.size_bytes.to_string(),
            row.place.clone(),
            row.state.clone(),
        ]
    };
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    lines.iter().fold(String::new(), |mut text, line| {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        // Writing into a string has no way to fail.
        let _ = writeln!(text, "{}", padded.join("  ").trim_end());
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_snapshot_is_named_by_its_bucket_and_its_name() {
        let name = "vol/before".parse::<Name>().unwrap();
        assert_eq!((name.bucket.as_str(), name.name.as_str()), ("vol", "before"));
        for text in ["vol", "vol/", "/before", "vol/a/b", ""] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_and_says_why_one_failed() {
        let row = Row {
            name: "before".into(),
            source: "vol/a/".into(),
            place: "vol/.snapshots/before/".into(),
            began_ns: 1_700_000_000_000_000_000,
            object_count: 12,
            size_bytes: 4096,
            state: "ready".into(),
        };
        let failed = Row { name: String::new(), state: "failed: why".into(), ..row.clone() };
        let text = table(&[row, failed]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("NAME    SOURCE"), "{text}");
        assert!(lines[1].contains("2023-11-14T22:13:20Z  12") && lines[1].ends_with("ready"), "{text}");
        assert!(lines[2].starts_with("-  ") && lines[2].ends_with("failed: why"), "{text}");
    }
}
