//! Pre-written files kept ready for the log to roll into.
//!
//! Writing into a file whose blocks were written before needs no metadata change, so an fdatasync costs one disk flush and
//! not a journal commit too. New spares are filled with zeros (fallocate alone leaves extents unwritten, and turning
//! those costs the commit again); purged files come back as they are, which [`super::format`] makes safe.
//!
//! Invariants
//! - No more than [`FILL_LEN`] of zeros is on its way to the disk at any time: the log's own sync may have to wait for
//!   them.
//! - On a full disk nothing half made is left behind, and who may not take the last spare does not.

use super::disk::Disk;
use super::view::lock;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

const PREFIX: &str = "spare-";
pub(super) const FILL_LEN: usize = 1 << 20;

#[derive(Default)]
struct State {
    ready: Vec<String>,
    next_number: u64,
    closing: bool,
}

/// The spares of one log. All methods may be called from any thread.
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    file_len: u64,
    wanted_count: usize,
    prefill: bool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Spares {
    /// Takes over what is in the directory: whole spares are kept as wanted, the others deleted. Without `prefill` new
    /// ones are only allocated: where much is written, writing it twice costs more than the syncs do.
    pub(super) fn adopt(
        disk: Arc<dyn Disk>,
        file_len: u64,
        wanted_count: usize,
        prefill: bool,
        names: &[String],
    ) -> io::Result<Spares> {
        let mut state = State::default();
        for name in names {
            let Some(number) = name.strip_prefix(PREFIX) else {
                continue;
            };
            state.next_number = state.next_number.max(number.parse().map_or(0, |number: u64| number + 1));
            if state.ready.len() < wanted_count && disk.open(name)?.len()? == file_len {
                state.ready.push(name.clone());
            } else {
                disk.remove(name)?;
            }
        }
        Ok(Spares { disk, file_len, wanted_count, prefill, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// A whole spare's name, which is the caller's from now on; made on the spot if no more than `keep` are ready. And
    /// whether it was the last one.
    pub(super) fn take(&self, keep: usize) -> io::Result<(String, bool)> {
        let ready = {
            let mut state = lock(&self.state);
            let ready = if state.ready.len() > keep { state.ready.pop() } else { None };
            ready.map(|name| (name, state.ready.is_empty()))
        };
        self.changed.notify_all();
        ready.map_or_else(|| Ok((self.make()?, false)), Ok)
    }

    /// Takes back what could not be used.
    pub(super) fn put_back(&self, name: String) {
        lock(&self.state).ready.push(name);
    }

    /// Whether a spare is ready, or can be made now.
    pub(super) fn replenish(&self) -> bool {
        if self.ready_count() > 0 {
            return true;
        }
        self.make().map(|name| lock(&self.state).ready.push(name)).is_ok()
    }

    /// Removes a spare, so that its room can be used for something else. False: none was ready.
    pub(super) fn release(&self) -> io::Result<bool> {
        let Some(name) = lock(&self.state).ready.pop() else { return Ok(false) };
        self.disk.remove(&name)?;
        self.disk.sync_dir()?;
        Ok(true)
    }

    /// Keeps the purged file `name` as a spare, or deletes it if there are enough. Durable on return, so that files
    /// disappear from the log in their order.
    pub(super) fn give(&self, name: &str) -> io::Result<()> {
        let spare = self.name_for_one_more();
        match &spare {
            Some(spare) if self.disk.open(name)?.len()? == self.file_len => self.disk.rename(name, spare)?,
            _ => self.disk.remove(name)?,
        }
        self.disk.sync_dir()?;
        lock(&self.state).ready.extend(spare);
        Ok(())
    }

    /// Lets [`Spares::run`] try again: there may be room now.
    pub(super) fn retry(&self) {
        self.changed.notify_all();
    }

    /// How many are ready.
    pub(super) fn ready_count(&self) -> usize {
        lock(&self.state).ready.len()
    }

    /// Keeps the wanted number ready until [`Spares::close`]; a thread of its own runs this.
    pub(super) fn run(&self) {
        let mut failed = false;
        while self.wait_until_wanted() {
            match self.make() {
                Ok(name) => {
                    failed = false;
                    lock(&self.state).ready.push(name);
                }
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(%error, "no spare log file can be made; it is tried again whenever one is needed");
                    }
                    self.wait_for_change();
                }
            }
        }
    }

    /// Ends [`Spares::run`].
    pub(super) fn close(&self) {
        lock(&self.state).closing = true;
        self.changed.notify_all();
    }

    fn name_for_one_more(&self) -> Option<String> {
        let mut state = lock(&self.state);
        (state.ready.len() < self.wanted_count).then(|| next_name(&mut state))
    }

    pub(super) fn make(&self) -> io::Result<String> {
        let name = next_name(&mut lock(&self.state));
        match self.fill(&name) {
            Ok(()) => Ok(name),
            Err(error) => {
                // It takes room, and is of no use. If this fails too the next opening does it.
                let _ = self.disk.remove(&name);
                Err(error)
            }
        }
    }

    fn fill(&self, name: &str) -> io::Result<()> {
        let file = self.disk.create(name)?;
        if !self.prefill {
            file.allocate(self.file_len)?;
            return file.sync();
        }
        let zeros = vec![0; FILL_LEN.min(self.file_len as usize)];
        let mut offset = 0;
        while offset < self.file_len {
            let len = (self.file_len - offset).min(zeros.len() as u64);
            file.write_at(offset, &zeros[..len as usize])?;
            file.sync()?;
            offset += len;
        }
        Ok(())
    }

    /// False when it is time to end.
    fn wait_until_wanted(&self) -> bool {
        let enough = |state: &mut State| !state.closing && state.ready.len() >= self.wanted_count;
        let waited = self.changed.wait_while(lock(&self.state), enough);
        !waited.unwrap_or_else(|poisoned| poisoned.into_inner()).closing
    }

    fn wait_for_change(&self) {
        let state = lock(&self.state);
        if !state.closing {
            drop(self.changed.wait(state));
        }
    }
}

fn next_name(state: &mut State) -> String {
    state.next_number += 1;
    format!("{PREFIX}{:08}", state.next_number)
}
