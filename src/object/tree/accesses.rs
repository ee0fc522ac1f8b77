//! When files were read: shown at once, told to the catalog now and then, for many files by one command.
//!
//! Invariants
//! - As Linux's `relatime`: a time is told if the one before is no later than the last change, or is a day old.
//! - What has no attributes of its own gets none by being read: what S3 wrote stays as S3 wrote it.
//! - A time that is not told yet goes with the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use crate::catalog::{ACCESSED_COUNT_MAX, FileOperation, View};
use crate::env::Timestamp;
use crate::ids::Ino;
use crate::object::Error;

use super::{Inner, Stat, Tree, lock};

const INTERVAL: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What was read since the catalog was told.
#[derive(Default)]
pub(super) struct Accesses {
    times: Mutex<HashMap<Ino, Timestamp>>,
    /// As many as one command names.
    pub(super) are_many: Arc<Notify>,
}

impl Accesses {
    fn note(&self, ino: Ino, now: Timestamp) {
        let mut times = lock(&self.times);
        times.insert(ino, now);
        if times.len() >= ACCESSED_COUNT_MAX {
            self.are_many.notify_one();
        }
    }

    /// What an inode shows with them.
    pub(super) fn over(&self, stat: Stat) -> Stat {
        match lock(&self.times).get(&stat.ino) {
            Some(time) if is_due(&stat, *time) => Stat { atime: *time, ..stat },
            _ => stat,
        }
    }

    fn take(&self) -> Vec<(Ino, Timestamp)> {
        std::mem::take(&mut *lock(&self.times)).into_iter().collect()
    }
}

fn is_due(stat: &Stat, now: Timestamp) -> bool {
    let is_old = now.0.saturating_sub(stat.atime.0) >= DAY.as_nanos() as i64;
    stat.has_attributes && stat.atime < now && (stat.atime <= stat.mtime || stat.atime <= stat.ctime || is_old)
}

impl Tree {
    /// Notes that somebody has read a file, or listed a directory.
    pub fn accessed(&self, ino: Ino) {
        if !self.read_only() {
            self.0.accesses.note(ino, self.0.store.now());
        }
    }

    /// Tells the catalog what was read.
    pub(super) async fn tell_accesses(&self) -> Result<(), Error> {
        let noted = self.0.accesses.take();
        for times in noted.chunks(ACCESSED_COUNT_MAX) {
            let (bucket, asked) = (self.0.bucket.clone(), times.to_vec());
            let query = move |view: &View<'_>| {
                let mut due = Vec::new();
                for (ino, time) in asked {
                    // What has attributes of its own needs no hint where it is.
                    if view.stat(&bucket, ino, None)?.is_some_and(|stat| is_due(&stat, time)) {
                        due.push((ino, time));
                    }
                }
                Ok(due)
            };
            let due = self.0.store.snapshot(query).await?;
            if !due.is_empty() {
                self.propose(FileOperation::Accessed(due)).await?;
            }
        }
        Ok(())
    }
}

/// Tells what was read, until the tree goes.
pub(super) async fn keep_telling(tree: Weak<Inner>, are_many: Arc<Notify>) {
    loop {
        let _ = tokio::time::timeout(INTERVAL, are_many.notified()).await;
        let Some(tree) = tree.upgrade().map(Tree) else { return };
        if let Err(error) = tree.tell_accesses().await {
            tracing::debug!(%error, "times of last access are not kept");
        }
    }
}
