//! Who has what open, and what was written to it.
//!
//! Invariants
//! - A file with bytes that are not committed is not forgotten, whoever is thought to have it open.
//! - Opens are counted by the process that answered them. One that the process before this one answered counts for nothing
//!   here; its inode counts as open (`is_inherited`) where that matters: where it has no name, or is locked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::RwLock;

use crate::catalog::Refusal;
use crate::env::Timestamp;
use crate::ids::Ino;
use crate::object::Error;

use super::dirty::{Dirty, Length};
use super::pending::Pending;
use super::staging::StagingFile;
use super::stream::{Front, Streaming};
use super::{FileKind, SetStat, Stat, Tree, lock};

/// Files that are open here, or have bytes that are not committed.
#[derive(Default)]
pub(super) struct Files(Mutex<HashMap<Ino, Entry>>);

struct Entry {
    open_count: u64,
    /// Whether the kernel may have it open since before this process: nobody counted that.
    is_inherited: bool,
    file: Arc<File>,
}

impl Entry {
    fn is_open(&self) -> bool {
        self.open_count > 0 || self.is_inherited
    }

    /// Whether all that was written is committed; none: somebody works with it.
    fn is_committed(&mut self) -> Option<bool> {
        let state = Arc::get_mut(&mut self.file)?.state.get_mut();
        Some(state.dirty.is_empty() && state.pending.is_empty())
    }
}

/// A file that was written to, or is open.
pub(super) struct File {
    pub(super) ino: Ino,
    pub(super) state: RwLock<State>,
    /// What is shown of what was written: readable while the state is locked.
    shown: Mutex<Shown>,
}

/// What was written.
#[derive(Default)]
pub(super) struct State {
    pub(super) dirty: Dirty,
    pub(super) staged: Option<StagingFile>,
    /// What was written goes into chunks as it comes, if it comes front to back.
    pub(super) streaming: Streaming,
    /// How far the file's bytes are digested.
    pub(super) front: Option<Front>,
    /// When it was written last.
    pub(super) modified: Option<Timestamp>,
    /// Attributes that a new file was given.
    pub(super) pending: Pending,
    /// Requests that appended and may come again, and where: of the process before this one, or of this one where what came
    /// after the bytes were staged failed.
    pub(super) appended: HashMap<u64, u64>,
    /// Whether S3 does not see the file yet.
    pub(super) is_hidden: bool,
    /// The revision that a file had when it was made, until it is committed.
    pub(super) made: Option<u64>,
}

/// What is not committed of what an inode shows.
#[derive(Clone, Copy, Default)]
struct Shown {
    bytes: Option<ShownBytes>,
    pending: Pending,
}

#[derive(Clone, Copy)]
struct ShownBytes {
    length: Length,
    modified: Timestamp,
}

impl State {
    /// The content was changed.
    pub(super) fn note_written(&mut self, now: Timestamp) {
        self.modified = Some(now);
        self.pending.written();
    }
}

impl File {
    /// Has others see how far it was written, and when.
    pub(super) fn show(&self, state: &State) {
        let modified = state.modified.filter(|_| !state.dirty.is_empty());
        let bytes = modified.map(|modified| ShownBytes { length: state.dirty.length(), modified });
        *lock(&self.shown) = Shown { bytes, pending: state.pending };
    }
}

impl Files {
    /// Counts an open of a file.
    pub(super) fn open(&self, ino: Ino) {
        self.with(ino, |entry| entry.open_count += 1);
    }

    fn with<T>(&self, ino: Ino, change: impl FnOnce(&mut Entry) -> T) -> T {
        let file = || File { ino, state: RwLock::default(), shown: Mutex::default() };
        let mut files = lock(&self.0);
        change(files.entry(ino).or_insert_with(|| Entry { open_count: 0, is_inherited: false, file: Arc::new(file()) }))
    }

    /// A file to be written.
    pub(super) fn get_or_make(&self, ino: Ino) -> Arc<File> {
        self.with(ino, |entry| entry.file.clone())
    }

    /// A file that is open, or was written.
    pub(super) fn get(&self, ino: Ino) -> Option<Arc<File>> {
        lock(&self.0).get(&ino).map(|entry| entry.file.clone())
    }

    /// Whether somebody has it open.
    pub(super) fn is_open(&self, ino: Ino) -> bool {
        lock(&self.0).get(&ino).is_some_and(Entry::is_open)
    }

    /// A file that the process before this one had open, or had bytes of.
    pub(super) fn inherit(&self, ino: Ino) -> Arc<File> {
        self.with(ino, |entry| {
            entry.is_inherited = true;
            entry.file.clone()
        })
    }

    pub(super) fn is_inherited(&self, ino: Ino) -> bool {
        lock(&self.0).get(&ino).is_some_and(|entry| entry.is_inherited)
    }

    /// Those of them that are open still, as far as is known.
    pub(super) fn inherited(&self) -> Vec<Ino> {
        lock(&self.0).iter().filter(|(_, entry)| entry.is_inherited).map(|(ino, _)| *ino).collect()
    }

    /// The kernel has one of them no more; whether nobody has it open then.
    pub(super) fn disinherit(&self, ino: Ino) -> bool {
        let mut files = lock(&self.0);
        let Some(entry) = files.get_mut(&ino) else { return false };
        entry.is_inherited = false;
        !entry.is_open()
    }

    /// All that are open, or were written.
    pub(super) fn all(&self) -> Vec<Ino> {
        lock(&self.0).keys().copied().collect()
    }

    /// Takes an open back; whether it was the last one.
    pub(super) fn close(&self, ino: Ino) -> bool {
        let mut files = lock(&self.0);
        let Some(entry) = files.get_mut(&ino) else { return false };
        entry.open_count = entry.open_count.saturating_sub(1);
        !entry.is_open()
    }

    /// Forgets a file that is not open, that nobody works with, and of which all is committed.
    pub(super) fn forget(&self, ino: Ino) {
        let mut files = lock(&self.0);
        if files.get_mut(&ino).is_some_and(|entry| !entry.is_open() && entry.is_committed() == Some(true)) {
            files.remove(&ino);
        }
    }

    /// Files that nobody has open and nobody works with, and of which something is not committed.
    pub(super) fn left_behind(&self) -> Vec<Ino> {
        let mut files = lock(&self.0);
        let is_left = |entry: &mut Entry| !entry.is_open() && entry.is_committed() == Some(false);
        files.iter_mut().filter_map(|(ino, entry)| is_left(entry).then_some(*ino)).collect()
    }
}

impl Tree {
    /// Opens an inode; each open needs a [`Tree::release`]. `truncate`: nothing is left of its bytes.
    ///
    /// # Errors
    /// `Refused(Stale)`: it is no more, or has no name any more; with `truncate`, as of [`Tree::set_stat`].
    pub async fn open(&self, ino: Ino, truncate: bool) -> Result<Stat, Error> {
        let stat = self.stat(ino).await?;
        // Whoever comes by a name that stands for something else by now is to look again.
        if stat.nlink == 0 {
            return Err(Refusal::Stale.into());
        }
        self.0.files.open(ino);
        if !truncate || stat.kind != FileKind::File || stat.size_bytes == 0 {
            return Ok(stat);
        }
        let cut = SetStat { size_bytes: Some(0), is_open: true, ..SetStat::default() };
        let truncated = self.set_stat(ino, cut).await;
        if truncated.is_err() {
            self.0.files.close(ino);
        }
        truncated
    }

    /// Takes an open back. After the last one an inode without a name may go.
    ///
    /// # Errors
    /// As of [`Tree::flush`]: what was written and not flushed is committed now. `Refused(NoSession)`: it is gone, for the
    /// file was locked, and the lock is lost.
    pub async fn release(&self, ino: Ino) -> Result<(), Error> {
        if !self.0.files.close(ino) {
            // Of one that was open before this process nobody knows which close is the last.
            return if self.0.files.is_inherited(ino) { self.flush(ino).await } else { Ok(()) };
        }
        let flushed = self.flush(ino).await;
        if self.check_locks(ino).is_err() {
            self.drop_written(ino, "they were written under a lock that was lost").await;
        }
        self.let_go(ino).await;
        self.0.files.forget(ino);
        flushed
    }

    /// The end of an open that this process has not counted: it was the process's before. Who else has the inode open is not
    /// told by it.
    ///
    /// # Errors
    /// As of [`Tree::flush`]: what was written and not flushed is committed now.
    pub async fn release_former(&self, ino: Ino) -> Result<(), Error> {
        let flushed = self.flush(ino).await;
        self.0.files.forget(ino);
        flushed
    }

    /// Commits what is left of files that were closed when it could not be committed: who closed them was told. Of an inode
    /// that is no more nothing is left.
    pub(super) async fn settle_left_behind(&self) {
        for ino in self.0.files.left_behind() {
            match self.flush(ino).await {
                Ok(()) => {}
                Err(Error::Refused(Refusal::Stale)) => self.drop_written(ino, "the file is no more").await,
                Err(error) => {
                    tracing::debug!(%ino, %error, "what was written to a closed file is not committed yet");
                    match error {
                        Error::Refused(_) => continue,
                        // It is the same with the others.
                        _ => return,
                    }
                }
            }
            self.0.files.forget(ino);
        }
    }

    /// Notes that S3 does not see a file yet.
    pub(super) async fn hidden(&self, made: &Stat) {
        let file = self.0.files.get_or_make(made.ino);
        let mut state = file.state.write().await;
        state.is_hidden = true;
        state.made = Some(made.revision);
    }

    /// What an inode shows with what was written here and is not committed.
    pub(super) async fn with_written(&self, stat: Stat) -> Stat {
        let stat = self.0.accesses.over(stat);
        let Some(file) = self.0.files.get(stat.ino) else { return stat };
        let Shown { bytes, pending } = *lock(&file.shown);
        let stat = match bytes {
            None => stat,
            Some(ShownBytes { length, modified }) => {
                Stat { size_bytes: length.over(stat.size_bytes), mtime: modified, ctime: modified, ..stat }
            }
        };
        pending.over(stat)
    }
}
