//! Writers of files that note what was acknowledged, and the check of what a daemon that was killed has left of it.
//!
//! A change is acknowledged when its last system call returns: close or fsync for bytes, the call itself for names. A change that
//! failed may have happened, or not, or be at a step between that its kind allows; of bytes never one half.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};

use crate::random::{Rng, body};
use crate::views::difference;

/// What a name holds; none: there is none.
type Content = Option<Vec<u8>>;

/// One writer, with a directory of its own.
pub struct FileWriter {
    dir: PathBuf,
    rng: Rng,
    /// By name: what was acknowledged.
    acknowledged: BTreeMap<String, Vec<u8>>,
    /// What a change that has not returned may leave, beside what was.
    pending: Vec<Vec<(String, Content)>>,
    maps: bool,
}

/// Beside the writers' directories: who changes it has locked it.
pub const LOCK_FILE: &str = "lock";

/// Most files of a writer.
const NAMES: u64 = 12;

impl FileWriter {
    /// A writer in `dir`, which it makes.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(dir: PathBuf, rng: Rng) -> Result<FileWriter> {
        fs::create_dir(&dir)?;
        Ok(FileWriter { dir, rng, acknowledged: BTreeMap::new(), pending: Vec::new(), maps: false })
    }

    /// One that maps files too. Only where nothing fails: a mapping has no other way to say so than SIGBUS.
    pub fn with_mappings(self) -> FileWriter {
        FileWriter { maps: true, ..self }
    }

    /// Changes files until `stop`, or until a call fails: that is what a killed daemon looks like, and is told. `count` counts
    /// what was acknowledged.
    pub fn run(&mut self, stop: &AtomicBool, count: &AtomicU64) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.change()?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn change(&mut self) -> io::Result<()> {
        let name = format!("f{}", self.rng.below(NAMES));
        let (known, kind) = (self.acknowledged.get(&name).cloned(), self.rng.below(8));
        let is_known = known.is_some();
        let changed = self.change_so(name, known, kind);
        changed.map_err(|error| io::Error::new(error.kind(), format!("change {kind} ({is_known}): {error}")))
    }

    fn change_so(&mut self, name: String, known: Content, kind: u64) -> io::Result<()> {
        match (known, kind) {
            (None, _) | (Some(_), 0) => self.write(&name),
            (Some(old), 1) => self.write_inside(&name, old),
            (Some(old), 2) => self.append(&name, old),
            (Some(_), 3) => self.replace(&name),
            (Some(old), 4) => self.rename(&name, old),
            (Some(old), 5) if self.maps && !old.is_empty() => self.write_mapping(&name, old),
            (Some(old), 6) => self.write_locked(&name, old),
            (Some(_), _) => self.unlink(&name),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.rng.below(4) {
            0 => self.rng.below(200),
            1 | 2 => self.rng.below(20_000),
            // One request of the kernel still.
            _ => self.rng.below(128 << 10),
        };
        body(self.rng.next_u64(), len as usize)
    }

    /// Remembers what may be left of a change while `change` runs, and that the last of it is acknowledged afterwards.
    fn attempt(
        &mut self,
        outcomes: Vec<Vec<(String, Content)>>,
        change: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        self.pending = outcomes;
        let what =
            || format!("{:?}", self.pending.last().map(|done| done.iter().map(|(name, _)| name).collect::<Vec<_>>()));
        change(&self.dir).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", what())))?;
        if let Some(done) = self.pending.pop() {
            self.acknowledge(done);
        }
        self.pending.clear();
        Ok(())
    }

    fn acknowledge(&mut self, done: Vec<(String, Content)>) {
        for (name, content) in done {
            match content {
                Some(bytes) => self.acknowledged.insert(name, bytes),
                None => self.acknowledged.remove(&name),
            };
        }
    }

    /// Makes or empties a file, writes it, and closes it.
    fn write(&mut self, name: &str) -> io::Result<()> {
        let bytes = self.bytes();
        let outcomes = vec![one(name, Some(Vec::new())), one(name, Some(bytes.clone()))];
        self.attempt(outcomes, |dir| {
            let mut file = File::create(dir.join(name))?;
            file.write_all(&bytes)?;
            close(file)
        })
    }

    fn write_inside(&mut self, name: &str, old: Vec<u8>) -> io::Result<()> {
        let (bytes, at) = (self.bytes(), self.rng.below(old.len() as u64 + 1));
        let mut new = old;
        new.resize(new.len().max(at as usize + bytes.len()), 0);
        new[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
        self.attempt(vec![one(name, Some(new))], |dir| {
            let file = OpenOptions::new().write(true).open(dir.join(name))?;
            file.write_all_at(&bytes, at)?;
            file.sync_all()
        })
    }

    fn append(&mut self, name: &str, old: Vec<u8>) -> io::Result<()> {
        let bytes = self.bytes();
        let new = [old, bytes.clone()].concat();
        self.attempt(vec![one(name, Some(new))], |dir| {
            let mut file = OpenOptions::new().append(true).open(dir.join(name))?;
            file.write_all(&bytes)?;
            close(file)
        })
    }

    /// Through a mapping, and msync.
    fn write_mapping(&mut self, name: &str, old: Vec<u8>) -> io::Result<()> {
        let at = self.rng.below(old.len() as u64) as usize;
        let bytes = body(self.rng.next_u64(), (old.len() - at).min(20_000));
        let mut new = old;
        new[at..at + bytes.len()].copy_from_slice(&bytes);
        self.attempt(vec![one(name, Some(new.clone()))], |dir| {
            let file = OpenOptions::new().read(true).write(true).open(dir.join(name))?;
            let mut mapping = Mapping::new(&file, new.len())?;
            mapping.bytes()[at..at + bytes.len()].copy_from_slice(&bytes);
            mapping.sync()
        })
    }

    /// Under a lock that all writers share: whoever has it has it alone.
    fn write_locked(&mut self, name: &str, old: Vec<u8>) -> io::Result<()> {
        let shared = self.dir.with_file_name(LOCK_FILE);
        let tag = self.rng.next_u64().to_le_bytes();
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(shared)?;
        lock.lock()?;
        lock.write_all_at(&tag, 0)?;
        self.append(name, old)?;
        let mut found = [0; 8];
        lock.read_exact_at(&mut found, 0)?;
        if found != tag {
            return Err(io::Error::other("two have one lock"));
        }
        lock.unlock()
    }

    /// As careful programs save: another file, synced, renamed over the first.
    fn replace(&mut self, name: &str) -> io::Result<()> {
        let (bytes, other) = (self.bytes(), format!("{name}.new"));
        let outcomes = vec![one(&other, Some(Vec::new())), one(&other, Some(bytes.clone()))];
        self.attempt(outcomes, |dir| {
            let mut file = File::create(dir.join(&other))?;
            file.write_all(&bytes)?;
            file.sync_all()
        })?;
        let renamed = vec![(other.clone(), None), (name.to_owned(), Some(bytes))];
        self.attempt(vec![renamed], |dir| fs::rename(dir.join(&other), dir.join(name)))
    }

    fn rename(&mut self, name: &str, old: Vec<u8>) -> io::Result<()> {
        let other = format!("f{}", self.rng.below(NAMES));
        if other == name {
            return self.unlink(name);
        }
        let renamed = vec![(name.to_owned(), None), (other.clone(), Some(old))];
        self.attempt(vec![renamed], |dir| fs::rename(dir.join(name), dir.join(&other)))
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        self.attempt(vec![one(name, None)], |dir| fs::remove_file(dir.join(name)))
    }

    /// Compares what is there with what was acknowledged, syncs it, and takes it for acknowledged. How many files.
    ///
    /// # Errors
    /// With what is lost, mixed or strange.
    pub fn verify(&mut self) -> Result<usize> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).with_context(|| format!("{}", self.dir.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            found.insert(name.clone(), fs::read(self.dir.join(&name)).with_context(|| name)?);
        }
        self.pending.push(Vec::new());
        let differences: Vec<String> =
            self.pending.iter().filter_map(|outcome| self.differs(outcome, &found)).collect();
        if differences.len() == self.pending.len() {
            bail!("{}: none of what may be there:\n{}", self.dir.display(), differences.join("\n"));
        }
        // What was not closed is nobody else's yet: from here on it is.
        let unsettled = self.pending.iter().flatten().filter(|(name, _)| found.contains_key(name));
        for (name, _) in unsettled {
            OpenOptions::new().write(true).open(self.dir.join(name))?.sync_all()?;
        }
        self.pending.clear();
        self.acknowledged = found;
        Ok(self.acknowledged.len())
    }

    /// How what is there differs from what was acknowledged with `outcome` besides; none: not at all.
    fn differs(&self, outcome: &[(String, Content)], found: &BTreeMap<String, Vec<u8>>) -> Option<String> {
        let mut expected: BTreeMap<&String, Content> =
            self.acknowledged.iter().map(|(name, bytes)| (name, Some(bytes.clone()))).collect();
        expected.extend(outcome.iter().map(|(name, content)| (name, content.clone())));
        let names = found.keys().chain(expected.keys().copied());
        let wrong = names.filter(|name| found.get(*name) != expected.get(name).and_then(Option::as_ref)).map(|name| {
            match (found.get(name), expected.get(name).and_then(Option::as_ref)) {
                (Some(found), Some(expected)) => format!("{name}: {}", difference(found, expected)),
                (found, expected) => {
                    format!("{name}: {:?} bytes, not {:?}", found.map(Vec::len), expected.map(Vec::len))
                }
            }
        });
        let wrong: Vec<String> = wrong.collect();
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }

    /// The directory's name, and what was acknowledged in it.
    ///
    /// # Errors
    /// When it has none.
    pub fn acknowledged(&self) -> Result<(&str, &BTreeMap<String, Vec<u8>>)> {
        ensure!(self.pending.is_empty(), "not verified");
        let name = self.dir.file_name().and_then(|name| name.to_str()).context("a directory without a name")?;
        Ok((name, &self.acknowledged))
    }
}

/// A file in memory, shared with who else has it there.
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    /// `len`: of the file, not 0.
    fn new(file: &File, len: usize) -> io::Result<Mapping> {
        let (size, protection) = (NonZeroUsize::new(len), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
        let size = size.ok_or(io::Error::other("nothing to map"))?;
        // SAFETY: a new mapping, at an address that the system chooses.
        let start = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Mapping { start, len })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: that many bytes are mapped, as long as this lives. The file is this writer's, and nobody cuts it meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }

    fn sync(&self) -> io::Result<()> {
        // SAFETY: it is mapped.
        Ok(unsafe { msync(self.start, self.len, MsFlags::MS_SYNC) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody has a part of it any more.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

fn one(name: &str, content: Content) -> Vec<(String, Content)> {
    vec![(name.to_owned(), content)]
}

/// Closes a file and tells what close says: dropping it does not.
///
/// # Errors
/// Those of close.
pub fn close(file: File) -> io::Result<()> {
    Ok(nix::unistd::close(file.into_raw_fd())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Result<(tempfile::TempDir, FileWriter)> {
        let dir = tempfile::tempdir()?;
        let mut writer = FileWriter::new(dir.path().join("w"), Rng::new(1))?.with_mappings();
        for _ in 0..200 {
            writer.change()?;
        }
        writer.verify()?;
        Ok((dir, writer))
    }

    #[test]
    fn what_a_local_disk_keeps_is_right() -> Result<()> {
        written().map(drop)
    }

    #[test]
    fn lost_and_mixed_bytes_are_found() -> Result<()> {
        let (_dir, mut writer) = written()?;
        let (name, bytes) = writer.acknowledged.iter().find(|(_, bytes)| bytes.len() > 10).context("a file")?;
        let file = writer.dir.join(name);
        fs::write(&file, &bytes[1..])?;
        assert!(writer.verify().is_err());
        fs::remove_file(&file)?;
        assert!(writer.verify().is_err());
        Ok(())
    }
}
