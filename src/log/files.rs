//! The files of a log on disk, oldest first, and which of them are still needed.
//!
//! Invariant: the oldest file may go once no live record of the log *as it is on disk* lies in it: whatever a later
//! file needs from it, its header repeats.

use super::disk::DiskFile;
use super::format::Kind;
use std::collections::VecDeque;
use std::sync::Arc;

const SUFFIX: &str = ".log";

/// The file name of a sequence number.
pub(super) fn name_of(sequence: u32) -> String {
    format!("{sequence:010}{SUFFIX}")
}

/// The sequence number in a file's name, if it is a log file's.
pub(super) fn sequence_of(name: &str) -> Option<u32> {
    let sequence = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (name_of(sequence) == name).then_some(sequence)
}

pub(super) struct LogFile {
    pub(super) sequence: u32,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) len: usize,
    /// One past the greatest index of a live record that may lie here; 0 if there is none.
    live_end: u64,
}

#[derive(Default)]
pub(super) struct Files {
    list: VecDeque<LogFile>,
}

impl Files {
    /// Adds the file that is written from now on.
    pub(super) fn push(&mut self, sequence: u32, file: Arc<dyn DiskFile>, len: usize) {
        self.list.push_back(LogFile { sequence, file, len, live_end: 0 });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &LogFile> {
        self.list.iter()
    }

    /// The file being written.
    pub(super) fn current(&self) -> Option<&LogFile> {
        self.list.back()
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Follows an entry written to the current file.
    pub(super) fn apply(&mut self, kind: Kind, index: u64) {
        match kind {
            Kind::Record => self.list.iter_mut().rev().take(1).for_each(|file| file.live_end = index + 1),
            Kind::Truncate => self.list.iter_mut().for_each(|file| file.live_end = file.live_end.min(index)),
            Kind::Reset => self.list.iter_mut().for_each(|file| file.live_end = 0),
            Kind::Purge | Kind::Mark => {}
        }
    }

    /// Forgets all but the file being written; they are another's to remove.
    pub(super) fn keep_current(&mut self) {
        self.list.drain(..self.list.len().saturating_sub(1));
    }

    /// Takes out the oldest file if nothing at or after `first` lies in it; never the current one.
    pub(super) fn pop_dead(&mut self, first: u64) -> Option<u32> {
        let dead = self.list.len() > 1 && self.list.front()?.live_end <= first;
        if dead { self.list.pop_front().map(|file| file.sequence) } else { None }
    }
}
