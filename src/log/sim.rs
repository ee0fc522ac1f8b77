//! A simulated disk for the tests: in memory, and it can crash at any step.
//!
//! After a crash a file holds what was synced, and of what was written since, any subset of its 512-byte sectors; in the
//! worst mode a sector that was in flight holds garbage. Directory changes survive up to some point in their order.
//!
//! It can also be of a limited size, and have ranges that cannot be read.

use super::disk::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

const SECTOR_LEN: usize = 512;
const BLOCK_LEN: usize = super::format::BLOCK_LEN;

/// SplitMix64: small, seeded, good enough to choose test cases.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

#[derive(Clone)]
enum DirChange {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
}

fn apply(names: &mut BTreeMap<String, u64>, change: &DirChange) {
    match change {
        DirChange::Link(name, id) => drop(names.insert(name.clone(), *id)),
        DirChange::Unlink(name) => drop(names.remove(name)),
        DirChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
    /// Blocks that were given back.
    punched: BTreeSet<usize>,
}

impl Content {
    fn allocated(&self) -> usize {
        self.current.len().next_multiple_of(BLOCK_LEN) - self.punched.len() * BLOCK_LEN
    }

    /// What writing to `range` takes that is not allocated yet.
    fn growth(&self, range: &Range<usize>) -> usize {
        let blocks = self.current.len().div_ceil(BLOCK_LEN);
        let beyond = range.end.div_ceil(BLOCK_LEN).saturating_sub(blocks);
        let holes = self.punched.range(range.start / BLOCK_LEN..range.end.div_ceil(BLOCK_LEN)).count();
        (beyond + holes) * BLOCK_LEN
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    content.resize(content.len().max(offset + bytes.len()), 0);
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

#[derive(Clone, Default)]
struct State {
    contents: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<DirChange>,
    next_id: u64,
    steps: u64,
    /// The most bytes of one file that were ever written and not synced.
    unsynced_max: usize,
    crash_at: Option<u64>,
    fatal: Option<String>,
    capacity: Option<usize>,
    unreadable: Vec<(u64, Range<usize>)>,
}

impl State {
    /// Counts one change; an error from the crash on.
    fn step(&mut self) -> io::Result<()> {
        self.steps += 1;
        match self.crash_at {
            Some(at) if self.steps > at => Err(io::Error::other("crashed")),
            _ => Ok(()),
        }
    }

    fn allocated(&self) -> usize {
        self.names.values().map(|id| self.contents[id].allocated()).sum()
    }

    fn check_room(&self, id: u64, range: &Range<usize>) -> io::Result<()> {
        let wanted = self.allocated() + self.contents[&id].growth(range);
        match self.capacity {
            Some(capacity) if wanted > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn change_dir(&mut self, change: DirChange) -> io::Result<()> {
        self.check_alive()?;
        apply(&mut self.names, &change);
        self.pending_names.push(change);
        self.step()
    }

    fn check_alive(&self) -> io::Result<()> {
        let dead = self.crash_at.is_some_and(|at| self.steps > at);
        if dead { Err(io::Error::other("crashed")) } else { Ok(()) }
    }
}

/// What becomes of writes that were not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// Nothing, for only the process dies; but what was not synced is still not.
    Process,
    All,
    None,
    SomeSectors,
    /// And some sectors in flight hold neither old nor new bytes.
    SomeSectorsTorn,
}

/// A directory in memory. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    fn lock(&self) -> MutexGuard<'_, State> {
        super::view::lock(&self.0)
    }

    /// How many changes were made so far.
    pub(super) fn steps(&self) -> u64 {
        self.lock().steps
    }

    pub(super) fn unsynced_max(&self) -> usize {
        self.lock().unsynced_max
    }

    /// Lets `steps` more changes pass; the one after crashes the machine.
    pub(super) fn crash_after(&self, steps: u64) {
        let mut state = self.lock();
        state.crash_at = Some(state.steps + steps);
    }

    /// Leaves room for `free` more bytes; None: no limit.
    pub(crate) fn limit(&self, free: Option<usize>) {
        let mut state = self.lock();
        state.capacity = free.map(|free| state.allocated() + free);
    }

    /// Makes reading any of `range` fail with EIO from now on.
    pub(crate) fn make_unreadable(&self, name: &str, range: Range<usize>) {
        let mut state = self.lock();
        let id = state.names[name];
        state.unreadable.push((id, range));
    }

    pub(super) fn fatal_reason(&self) -> Option<String> {
        self.lock().fatal.clone()
    }

    /// The disk after the machine, or only the process, went off and on again.
    pub(super) fn after_crash(&self, loss: Loss, rng: &mut Rng) -> SimDisk {
        let mut state = self.lock().clone();
        (state.crash_at, state.fatal) = (None, None);
        if matches!(loss, Loss::Process) {
            return SimDisk(Arc::new(Mutex::new(state)));
        }
        let kept = match loss {
            Loss::All => 0,
            Loss::None => state.pending_names.len(),
            _ => rng.below(state.pending_names.len() as u64 + 1) as usize,
        };
        for change in state.pending_names.drain(..).take(kept) {
            apply(&mut state.durable_names, &change);
        }
        for content in state.contents.values_mut() {
            lose(content, loss, rng);
        }
        state.names = state.durable_names.clone();
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// An independent copy, with everything in it as if synced.
    pub(super) fn copy(&self) -> SimDisk {
        self.after_crash(Loss::None, &mut Rng(0))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    pub(super) fn len_of(&self, name: &str) -> usize {
        let state = self.lock();
        state.names.get(name).map_or(0, |id| state.contents[id].current.len())
    }

    pub(crate) fn flip(&self, name: &str, offset: usize, mask: u8) {
        let mut state = self.lock();
        let id = state.names[name];
        if let Some(content) = state.contents.get_mut(&id) {
            content.current[offset] ^= mask;
            content.durable[offset] ^= mask;
        }
    }
}

fn lose(content: &mut Content, loss: Loss, rng: &mut Rng) {
    for (offset, bytes) in std::mem::take(&mut content.pending) {
        for (at, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
            let offset = offset + at * SECTOR_LEN;
            match (loss, rng.below(4)) {
                (Loss::All, _) | (Loss::SomeSectors | Loss::SomeSectorsTorn, 0) => {}
                (Loss::SomeSectorsTorn, 1) => write(&mut content.durable, offset, &rng.bytes(sector.len())),
                _ => write(&mut content.durable, offset, sector),
            }
        }
    }
    content.current = content.durable.clone();
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.lock().check_alive()?;
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        state.next_id += 1;
        let id = state.next_id;
        state.contents.insert(id, Content::default());
        state.change_dir(DirChange::Link(name.to_owned(), id))?;
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.lock().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.lock().change_dir(DirChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().change_dir(DirChange::Unlink(name.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.step()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }

    fn fresh_id(&self) -> io::Result<u64> {
        let mut state = self.lock();
        state.next_id += 1;
        Ok(state.next_id)
    }

    fn fatal(&self, why: &str) {
        self.lock().fatal = Some(why.to_owned());
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl SimFile {
    fn change<T>(&self, change: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        change(&mut self.disk.lock(), self.id)
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.change(|state, id| Ok(state.contents[&id].current.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.change(|state, id| {
            let content = &state.contents[&id].current;
            let range = offset as usize..offset as usize + buffer.len();
            let is_hit = |(of, bad): &(u64, Range<usize>)| *of == id && bad.start < range.end && range.start < bad.end;
            if state.unreadable.iter().any(is_hit) {
                return Err(io::Error::from_raw_os_error(nix::libc::EIO));
            }
            buffer.copy_from_slice(content.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.change(|state, id| {
            state.check_alive()?;
            let range = offset as usize..offset as usize + bytes.len();
            state.check_room(id, &range)?;
            if let Some(content) = state.contents.get_mut(&id) {
                content
                    .punched
                    .retain(|block| !(range.start / BLOCK_LEN..range.end.div_ceil(BLOCK_LEN)).contains(block));
                write(&mut content.current, offset as usize, bytes);
                content.pending.push((offset as usize, bytes.to_vec()));
                let unsynced = content.pending.iter().map(|(_, bytes)| bytes.len()).sum();
                state.unsynced_max = state.unsynced_max.max(unsynced);
            }
            state.step()
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.write_at(0, &vec![0; len as usize])
    }

    fn punch(&self, range: std::ops::Range<u64>) -> io::Result<()> {
        self.write_at(range.start, &vec![0; (range.end - range.start) as usize])?;
        self.change(|state, id| {
            let blocks = range.start as usize / BLOCK_LEN..range.end as usize / BLOCK_LEN;
            state.contents.entry(id).and_modify(|content| content.punched.extend(blocks));
            Ok(())
        })
    }

    fn trim(&self, len: u64) -> io::Result<()> {
        self.change(|state, id| {
            if let Some(content) = state.contents.get_mut(&id) {
                content.current.truncate(len as usize);
                content.durable.truncate(len as usize);
                content.punched.retain(|block| block * BLOCK_LEN < len as usize);
                content.pending.retain(|(offset, bytes)| offset + bytes.len() <= len as usize);
            }
            state.step()
        })
    }

    fn allocated(&self) -> io::Result<u64> {
        self.change(|state, id| Ok(state.contents[&id].allocated() as u64))
    }

    fn sync(&self) -> io::Result<()> {
        self.change(|state, id| {
            state.step()?;
            if let Some(content) = state.contents.get_mut(&id) {
                content.durable = content.current.clone();
                content.pending.clear();
            }
            Ok(())
        })
    }

    fn settle(&self) -> io::Result<()> {
        self.sync()
    }
}
