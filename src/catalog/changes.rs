//! What is told of every batch to who keeps copies of what a file system shows.
//!
//! Invariant: a change is told after it can be read, in the order of the log; who falls behind is told so.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::ids::Ino;

/// Batches that a listener may be behind.
const BACKLOG_COUNT: usize = 1024;

/// Something that a file system shows is not what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The mount that did it; 0: none.
    pub mount: u64,
    /// What.
    pub what: Changed,
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

/// Changes as they are applied. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Changes(broadcast::Sender<Arc<[Notice]>>);

impl Changes {
    pub(super) fn new() -> Changes {
        Changes(broadcast::Sender::new(BACKLOG_COUNT))
    }

    /// Whether somebody listens.
    pub(super) fn are_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    pub(super) fn tell(&self, changes: Vec<Notice>) {
        if !changes.is_empty() {
            // Whoever listened may have gone.
            let _ = self.0.send(changes.into());
        }
    }

    /// Listens from now on.
    pub fn listen(&self) -> Heard {
        Heard(self.0.subscribe())
    }
}

/// A listener's end.
pub struct Heard(broadcast::Receiver<Arc<[Notice]>>);

impl Heard {
    /// The changes of the next batch. None: there will be no more.
    pub async fn next(&mut self) -> Option<Arc<[Notice]>> {
        match self.0.recv().await {
            Ok(changes) => Some(changes),
            Err(broadcast::error::RecvError::Lagged(_)) => Some([Notice { mount: 0, what: Changed::All }].into()),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
