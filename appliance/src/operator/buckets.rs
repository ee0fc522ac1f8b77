//! `predastore bucket`: buckets, for who has no S3 client at hand. The command asks the daemon on this machine over its control
//! socket: [`Ask`], [`Told`].

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use predastore::catalog::{Bucket, Refusal, Versioning};
use predastore::object::{Error, Store};
use predastore_s3::names::check_bucket_name;
use serde::{Deserialize, Serialize};

use super::{audit, day, human, strange};
use crate::cli::Flags;
use crate::config::{Config, ROOT_ACCOUNT_ID};
use crate::mounts::command::ask;
use crate::mounts::protocol::{Reply, Request};

/// Buckets that one answer has: it fits into a message with them.
const PAGE_COUNT: usize = 500;

/// What may be asked.
#[derive(Subcommand)]
pub(crate) enum BucketCommand {
    /// All buckets, with what they hold
    List {
        #[command(flatten)]
        settings: Flags,
    },
    /// Make a bucket; it is the root credentials' own
    Create {
        /// 3 to 63 small letters, digits, dots and dashes
        name: String,
        #[command(flatten)]
        settings: Flags,
    },
    /// Remove a bucket without objects; its unfinished uploads are aborted
    Remove {
        /// Which
        name: String,
        #[command(flatten)]
        settings: Flags,
    },
    /// Have a bucket keep versions from now on, or stop that: those that there are stay
    Versioning {
        /// Which
        name: String,
        /// Whether
        state: Switch,
        #[command(flatten)]
        settings: Flags,
    },
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Switch {
    On,
    Off,
}

impl BucketCommand {
    /// The settings that came with the command.
    pub(crate) fn take_settings(&mut self) -> Flags {
        std::mem::take(match self {
            BucketCommand::List { settings }
            | BucketCommand::Create { settings, .. }
            | BucketCommand::Remove { settings, .. }
            | BucketCommand::Versioning { settings, .. } => settings,
        })
    }
}

/// What is asked of the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Ask {
    /// Those behind a name.
    List {
        after: Option<String>,
    },
    Create {
        name: String,
        region: String,
    },
    Remove {
        name: String,
    },
    Versioning {
        name: String,
        state: Switch,
    },
}

/// What it says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Told {
    Buckets { buckets: Vec<Row>, has_more: bool },
    Done {},
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    name: String,
    owner: String,
    created_s: i64,
    versioning: String,
    object_count: u64,
    size_bytes: u64,
    version_count: u64,
    version_bytes: u64,
}

/// The daemon's side. `uid`: who asks.
///
/// # Errors
/// Why not, for people.
pub(crate) async fn answer(store: &Store, ask: Ask, uid: u32) -> Result<Told, String> {
    let asked = match &ask {
        Ask::List { .. } => None,
        Ask::Create { name, .. } => Some(format!("bucket create {name}")),
        Ask::Remove { name } => Some(format!("bucket remove {name}")),
        Ask::Versioning { name, state } => Some(format!("bucket versioning {name} {state:?}")),
    };
    let outcome = carry_out(store, ask).await;
    if let Some(asked) = asked {
        audit(uid, &asked, outcome.as_ref().err());
    }
    outcome
}

async fn carry_out(store: &Store, ask: Ask) -> Result<Told, String> {
    match ask {
        Ask::List { after } => {
            let found = store.buckets(after.as_deref(), PAGE_COUNT + 1).await.map_err(|error| error.to_string())?;
            let mut buckets = Vec::with_capacity(found.len());
            for bucket in found.iter().take(PAGE_COUNT) {
                match store.usage(&bucket.name).await {
                    Ok(usage) => buckets.push(Row::new(bucket, &usage)),
                    // Removed meanwhile.
                    Err(Error::Refused(Refusal::NoSuchBucket)) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(Told::Buckets { buckets, has_more: found.len() > PAGE_COUNT })
        }
        Ask::Create { name, region } => {
            check_bucket_name(&name).map_err(|error| format!("`{name}`: {}", error.message))?;
            let made = store.create_bucket(&name, ROOT_ACCOUNT_ID, &region, false).await;
            made.map(|_| Told::Done {}).map_err(|error| format!("`{name}`: {error}"))
        }
        Ask::Remove { name } => done(&name, store.delete_bucket(&name).await),
        Ask::Versioning { name, state } => {
            let versioning = if state == Switch::On { Versioning::Enabled } else { Versioning::Suspended };
            done(&name, store.set_versioning(&name, versioning).await)
        }
    }
}

fn done(name: &str, outcome: Result<(), Error>) -> Result<Told, String> {
    outcome.map(|()| Told::Done {}).map_err(|error| format!("`{name}`: {error}"))
}

impl Row {
    fn new(bucket: &Bucket, usage: &predastore::catalog::Usage) -> Row {
        let versioning = match bucket.versioning {
            Versioning::Never => "never",
            Versioning::Enabled => "enabled",
            Versioning::Suspended => "suspended",
        };
        Row {
            name: bucket.name.clone(),
            owner: bucket.owner.clone(),
            created_s: bucket.created.seconds(),
            versioning: versioning.to_owned(),
            object_count: usage.object_count,
            size_bytes: usage.size_bytes,
            version_count: usage.version_count,
            version_bytes: usage.version_bytes,
        }
    }
}

/// The command's side: what to print.
///
/// # Errors
/// The daemon refuses, or cannot be asked.
pub(crate) fn run(config: &Config, command: BucketCommand) -> Result<String> {
    let socket = &config.control.socket;
    match command {
        BucketCommand::List { settings: _ } => Ok(listed(&all(socket)?)),
        BucketCommand::Create { name, settings: _ } => {
            change(socket, Ask::Create { name, region: config.region.clone() })
        }
        BucketCommand::Remove { name, settings: _ } => change(socket, Ask::Remove { name }),
        BucketCommand::Versioning { name, state, settings: _ } => change(socket, Ask::Versioning { name, state }),
    }
}

fn told(socket: &Path, wanted: Ask) -> Result<Told> {
    match ask(socket, &Request::Buckets(wanted))? {
        Reply::Buckets(told) => Ok(told),
        other => Err(strange(&other)),
    }
}

fn change(socket: &Path, wanted: Ask) -> Result<String> {
    match told(socket, wanted)? {
        Told::Done {} => Ok(String::new()),
        other => Err(strange(&other)),
    }
}

fn all(socket: &Path) -> Result<Vec<Row>> {
    let mut all: Vec<Row> = Vec::new();
    loop {
        match told(socket, Ask::List { after: all.last().map(|row| row.name.clone()) })? {
            Told::Buckets { buckets, has_more: false } => return Ok([all, buckets].concat()),
            Told::Buckets { buckets, has_more: true } => all.extend(buckets),
            other => return Err(strange(&other)),
        }
    }
}

fn listed(rows: &[Row]) -> String {
    let mut text = String::new();
    let width = rows.iter().map(|row| row.name.len()).chain([6]).max().unwrap_or_default();
    if !rows.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<width$} {:>12} {:>10}  since       owner         versions",
            "bucket", "objects", "bytes"
        );
    }
    for row in rows {
        let versions = match row.versioning.as_str() {
            "never" => String::new(),
            state => format!("{state}, {} older of {}", row.version_count, human(row.version_bytes)),
        };
        let (size, since) = (human(row.size_bytes), day(row.created_s));
        let line =
            format!("{:<width$} {:>12} {size:>10}  {since}  {:<12}  {versions}", row.name, row.object_count, row.owner);
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_told_in_columns() {
        let row = Row {
            name: "photos".into(),
            owner: ROOT_ACCOUNT_ID.into(),
            created_s: 0,
            versioning: "never".into(),
            object_count: 12,
            size_bytes: 1536,
            version_count: 0,
            version_bytes: 0,
        };
        let versioned = Row { name: "b".into(), versioning: "enabled".into(), version_count: 3, ..row.clone() };
        let expected = "\
bucket      objects      bytes  since       owner         versions
photos           12    1.5 KiB  1970-01-01  000000000000
b                12    1.5 KiB  1970-01-01  000000000000  enabled, 3 older of 0 B
";
        let squeezed = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&listed(&[row, versioned])), squeezed(expected));
        assert_eq!(listed(&[]), "");
    }
}
