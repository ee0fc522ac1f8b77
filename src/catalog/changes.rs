//! What is told of every batch to who keeps copies of what a file system shows.
//!
//! Invariant: a change is told after it can be read, in the order of the log; who falls behind is told so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;

use crate::ids::Ino;

/// Batches that a listener may be behind.
const BACKLOG_COUNT: usize = 1024;

/// What is told of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// Something that a file system shows is not what it was.
    Changed {
        /// The mount that did it; 0: none.
        mount: u64,
        /// What.
        what: Changed,
    },
    /// What was locked of an inode may be free.
    Unlocked(Ino),
}

/// What changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Bytes or attributes of an inode.
    Inode(Ino),
    /// A name, without the `/` of a directory: it came, went, or stands for something else.
    Name {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: Vec<u8>,
    },
    /// Anything.
    All,
}

impl Notice {
    /// Anything may have changed, by anybody.
    pub(super) const ALL: Notice = Notice::Changed { mount: 0, what: Changed::All };
}

/// Changes as they are applied. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Changes {
    batches: broadcast::Sender<Batch>,
    told: Arc<AtomicU64>,
    access: Arc<AtomicU64>,
}

/// What one transaction changed.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its place among all that were told, from 1.
    pub number: u64,
    /// At least one.
    pub notices: Arc<[Notice]>,
}

impl Changes {
    pub(super) fn new() -> Changes {
        Changes { batches: broadcast::Sender::new(BACKLOG_COUNT), told: Arc::default(), access: Arc::default() }
    }

    /// Whether somebody listens.
    pub(super) fn are_heard(&self) -> bool {
        self.batches.receiver_count() > 0
    }

    /// Of the one writer.
    pub(super) fn tell(&self, changes: Vec<Notice>) {
        if !changes.is_empty() {
            let number = self.told.load(Ordering::Relaxed) + 1;
            // Whoever listened may have gone.
            let _ = self.batches.send(Batch { number, notices: changes.into() });
            self.told.store(number, Ordering::Release);
        }
    }

    /// The number of the last batch; 0: there was none.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Who may do what is another thing by now. Of the one writer.
    pub(super) fn tell_access(&self) {
        self.access.fetch_add(1, Ordering::Release);
    }

    /// Counts the changes of users, of access keys, and of what buckets say of access. What was read after the count was, is no older than that.
    pub fn access(&self) -> u64 {
        self.access.load(Ordering::Acquire)
    }

    /// Listens from now on.
    pub fn listen(&self) -> Heard {
        Heard(self.batches.subscribe())
    }
}

/// A listener's end.
pub struct Heard(broadcast::Receiver<Batch>);

impl Heard {
    /// The next batch; or that some were missed, as one of number 0 in which all has changed. None: there will be no more.
    pub async fn next(&mut self) -> Option<Batch> {
        match self.0.recv().await {
            Ok(batch) => Some(batch),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Batch { number: 0, notices: [Notice::ALL].into() }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
