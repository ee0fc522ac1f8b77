//! What `s3d snapshot` and the daemon say to each other: parts of the control socket's messages.

use serde::{Deserialize, Serialize};

use crate::mounts::options::Source;

/// Rows of one answer: each may have a key of 1,024 bytes twice, and a message is bounded.
pub(super) const ROW_COUNT: usize = 16;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Asked {
    /// Take a snapshot; answered when it is published.
    Create {
        /// Of what.
        source: Source,
        /// Its name.
        name: String,
    },
    /// Tell what there is.
    List {
        /// Where.
        bucket: String,
        /// Rows that are known already.
        skip: usize,
    },
    /// Copy a snapshot to a prefix; answered when that is published.
    Clone {
        /// Where it is.
        bucket: String,
        /// Which.
        name: String,
        /// Where to.
        target: Source,
    },
    /// Remove one.
    Delete {
        /// Where it is.
        bucket: String,
        /// Which.
        name: String,
    },
}

impl Asked {
    /// What it changes, as the log has it. None: nothing.
    pub(crate) fn changes(&self) -> Option<String> {
        match self {
            Asked::List { .. } => None,
            Asked::Create { source, name } => Some(format!("snapshot create {source} {name}")),
            Asked::Clone { bucket, name, target } => Some(format!("snapshot clone {bucket}/{name} {target}")),
            Asked::Delete { bucket, name } => Some(format!("snapshot delete {bucket}/{name}")),
        }
    }
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rows {
    /// What was made, or is there.
    pub(crate) rows: Vec<Row>,
    /// Whether there are more.
    pub(crate) has_more: bool,
}

/// A snapshot, or a copy of a prefix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// Its name; empty: it is no snapshot.
    pub(crate) name: String,
    /// BUCKET/PREFIX that it is of.
    pub(crate) source: String,
    /// BUCKET/PREFIX that it is under.
    pub(crate) place: String,
    /// Its moment, in nanoseconds since 1970.
    pub(crate) began_ns: i64,
    /// Objects that were copied.
    pub(crate) object_count: u64,
    /// Their bytes.
    pub(crate) size_bytes: u64,
    /// How it stands, for people.
    pub(crate) state: String,
}
