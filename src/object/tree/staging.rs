//! Bytes that were written and are not committed yet: one file an inode, in a directory of this process.
//!
//! ```text
//! DIR/<16 hex>    a number without meaning
//!
//! +0   8   magic "pdstage1"
//! +8   8   inode (all integers little-endian)
//! +16  8   revision of the content that the bytes were written over
//! +24  16  id of the system's boot
//! then records, one behind the other:
//! +0   4   CRC32C of all that follows
//! +4   8   offset in the file; all ones: attributes
//! +12  8   when it was written, nanoseconds since 1970
//! +20  8   the kernel's request, if doing it twice would not be doing it once: an append; else 0
//! +28  4   length in bytes; 0: the file was cut, and the offset is its length
//! +32  n   the bytes; or those of the attributes that were set, as the catalog's commands have them (postcard)
//! ```
//!
//! Invariants
//! - A write returns once its record is in the system's page cache: it survives the end of the process, not that of the
//!   machine. What must survive that is committed.
//! - A record that is not whole is the last one, and its write never returned; or the machine has lost it, and what follows
//!   counts as lost too.
//! - After a reboot a file may be what it was long ago: it counts only if nothing was committed since to what it was written
//!   over.
//! - What was committed is cut off. A process killed in between commits it once more at its next start.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit};

use crate::catalog::SetAttrs;
use crate::env::Timestamp;
use crate::ids::Ino;

use super::dirty::Dirty;
use super::lock;
use super::pending::Pending;

const MAGIC: &[u8; 8] = b"pdstage1";
const HEAD_BYTES: u64 = 40;
const BOOT_BYTES: usize = 16;
const RECORD_HEAD_BYTES: usize = 32;

/// The directory.
pub(super) struct Staging {
    dir: PathBuf,
    boot: [u8; BOOT_BYTES],
    /// Empty files of inodes that need them no more, for the next ones: making a file costs more than writing to it.
    spare: Mutex<Vec<StagingFile>>,
    /// Name of the next file.
    next: AtomicU64,
    /// Files that are some inode's, by their age, and whose.
    in_use: Mutex<BTreeMap<u64, Ino>>,
    /// So many may be.
    in_use_max: usize,
}

/// Of the files that this process may have open, the part that may be in use here.
const OPEN_PART: u64 = 2;
/// Files of which one may be committed for the sake of another.
const OLDEST_COUNT: usize = 8;

/// Spare files at most.
const SPARE_COUNT: usize = 64;

/// The file of one inode. Its calls block.
pub(super) struct StagingFile {
    /// Its age; 0: an earlier process left it, and it is not counted.
    number: u64,
    path: PathBuf,
    file: Arc<File>,
    end: u64,
}

/// What a killed process left of an inode.
pub(super) struct Left {
    pub(super) ino: Ino,
    /// Of the content that it was written over.
    pub(super) revision: u64,
    /// Whether the system was not booted since.
    pub(super) is_of_this_boot: bool,
    pub(super) file: StagingFile,
    pub(super) dirty: Dirty,
    /// When it was written last.
    pub(super) modified: Option<Timestamp>,
    /// Attributes that were set.
    pub(super) pending: Pending,
    /// Requests that appended, and where.
    pub(super) appended: HashMap<u64, u64>,
}

/// The offset of a record of attributes.
const ATTRIBUTES: u64 = u64::MAX;

/// A write as it is staged; without bytes: a cut.
#[derive(Clone)]
pub(super) struct Record {
    /// Where in the file.
    pub(super) offset: u64,
    /// What.
    pub(super) bytes: Bytes,
    /// When.
    pub(super) now: Timestamp,
    /// The kernel's request, of an append; else 0.
    pub(super) request: u64,
}

impl Record {
    /// Attributes that are set.
    pub(super) fn attributes(set: &SetAttrs, now: Timestamp) -> Record {
        // Plain values in memory are encoded without fail.
        let bytes = postcard::to_stdvec(set).unwrap_or_default().into();
        Record { offset: ATTRIBUTES, bytes, now, request: 0 }
    }
}

impl Staging {
    /// Opens or makes the directory.
    pub(super) fn open(dir: &Path) -> io::Result<Staging> {
        Self::open_in_boot(dir, boot_id()?)
    }

    fn open_in_boot(dir: &Path, boot: [u8; BOOT_BYTES]) -> io::Result<Staging> {
        fs::create_dir_all(dir)?;
        let (may_be_open, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        Ok(Staging {
            dir: dir.to_owned(),
            boot,
            spare: Mutex::default(),
            next: AtomicU64::new(1),
            in_use: Mutex::default(),
            in_use_max: usize::try_from(may_be_open / OPEN_PART).unwrap_or(usize::MAX),
        })
    }

    /// Takes back a file; what is in it was committed. Removes it if there are enough.
    pub(super) fn give_back(&self, mut file: StagingFile) -> io::Result<()> {
        lock(&self.in_use).remove(&file.number);
        file.clear()?;
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE_COUNT {
            spare.push(file);
            return Ok(());
        }
        drop(spare);
        file.remove()
    }

    /// A file for an inode, empty. `revision`: of the content that will be written over.
    pub(super) fn create(&self, ino: Ino, revision: u64) -> io::Result<StagingFile> {
        let spare = lock(&self.spare).pop();
        let (path, file) = match spare {
            Some(StagingFile { path, file, .. }) => (path, file),
            None => self.make()?,
        };
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&ino.0.to_le_bytes());
        head.extend_from_slice(&revision.to_le_bytes());
        head.extend_from_slice(&self.boot);
        file.write_all_at(&head, 0)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.in_use).insert(number, ino);
        Ok(StagingFile { number, path, file, end: HEAD_BYTES })
    }

    /// If as many files are in use as may be: whose the oldest are. One of them is to be given back before another is made.
    pub(super) fn oldest(&self) -> Vec<Ino> {
        let in_use = lock(&self.in_use);
        let is_full = in_use.len() >= self.in_use_max;
        in_use.values().take(if is_full { OLDEST_COUNT } else { 0 }).copied().collect()
    }

    fn make(&self) -> io::Result<(PathBuf, Arc<File>)> {
        loop {
            let path = self.dir.join(format!("{:016x}", self.next.fetch_add(1, Ordering::Relaxed)));
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return Ok((path, Arc::new(made?))),
            }
        }
    }

    /// What is there of an earlier process. Files that cannot be read are left where they are, and told.
    pub(super) fn left(&self) -> io::Result<Vec<Left>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            match read(&path, self.boot) {
                Ok(Some(left)) => found.push(left),
                Ok(None) => fs::remove_file(&path)?,
                Err(error) => tracing::error!(path = %path.display(), %error, "a staging file cannot be read"),
            }
        }
        Ok(found)
    }
}

impl StagingFile {
    /// Appends a record. Returns where its bytes are.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<u64> {
        let Record { offset, bytes, now, request } = record;
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut head = Vec::with_capacity(RECORD_HEAD_BYTES);
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&offset.to_le_bytes());
        head.extend_from_slice(&now.0.to_le_bytes());
        head.extend_from_slice(&request.to_le_bytes());
        head.extend_from_slice(&len.to_le_bytes());
        let sum = checksum(&head[4..], bytes);
        head[..4].copy_from_slice(&sum.to_le_bytes());
        let staged = self.end + RECORD_HEAD_BYTES as u64;
        // The head last: a record is whole only with it.
        self.file.write_all_at(bytes, staged)?;
        self.file.write_all_at(&head, self.end)?;
        self.end = staged + bytes.len() as u64;
        Ok(staged)
    }

    /// For reading beside this.
    pub(super) fn reader(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Bytes in it.
    pub(super) fn len_bytes(&self) -> u64 {
        self.end - HEAD_BYTES
    }

    /// Cuts off what was committed.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if self.end == HEAD_BYTES {
            return Ok(());
        }
        self.file.set_len(HEAD_BYTES)?;
        self.end = HEAD_BYTES;
        Ok(())
    }

    /// Removes it.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// Another one after each boot of the system.
fn boot_id() -> io::Result<[u8; BOOT_BYTES]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok(id.to_be_bytes())
}

fn checksum(head: &[u8], bytes: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(head);
    digest.update(bytes);
    digest.finalize() as u32
}

/// None: nothing was written.
fn read(path: &Path, boot: [u8; BOOT_BYTES]) -> io::Result<Option<Left>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let file_len = file.metadata()?.len();
    let mut head = [0; HEAD_BYTES as usize];
    if file_len < HEAD_BYTES {
        return Ok(None);
    }
    file.read_exact(&mut head)?;
    let (magic, rest) = head.split_at(8);
    if magic != MAGIC {
        return Err(io::Error::other("it is no staging file"));
    }
    let (ino, rest) = rest.split_at(8);
    let (revision, written_in) = rest.split_at(8);
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).map_err(io::Error::other);
    let (ino, revision) = (Ino(number(ino)?), number(revision)?);
    let (mut dirty, mut modified, mut end) = (Dirty::default(), None, HEAD_BYTES);
    let mut pending = Pending::default();
    let (mut record, mut appended) = ([0; RECORD_HEAD_BYTES], HashMap::new());
    while end + RECORD_HEAD_BYTES as u64 <= file_len {
        file.read_exact_at(&mut record, end)?;
        let (sum, offset, at, request, len) = parse(&record);
        let staged = end + RECORD_HEAD_BYTES as u64;
        if staged + len > file_len {
            break;
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, staged)?;
        if sum != checksum(&record[4..], &bytes) {
            break;
        }
        match (offset, len) {
            (ATTRIBUTES, _) => pending.add(&postcard::from_bytes(&bytes).map_err(io::Error::other)?, at),
            (len, 0) => dirty.cut(len),
            (start, len) if request != 0 => dirty.append_again(start, len, staged, request),
            (start, len) => dirty.insert(start..start.saturating_add(len), staged),
        }
        if offset != ATTRIBUTES {
            pending.written();
            modified = Some(at);
        }
        if request != 0 {
            appended.insert(request, offset);
        }
        end = staged + len;
    }
    if dirty.is_empty() && pending.is_empty() {
        return Ok(None);
    }
    let file = StagingFile { number: 0, path: path.to_owned(), file: Arc::new(file), end };
    Ok(Some(Left { ino, revision, is_of_this_boot: written_in == boot, file, dirty, modified, pending, appended }))
}

/// Checksum, offset, time, request and length of a record, as it says.
fn parse(record: &[u8; RECORD_HEAD_BYTES]) -> (u32, u64, Timestamp, u64, u64) {
    let four = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| record[at + index]));
    let eight = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| record[at + index]));
    (four(0), eight(4), Timestamp(eight(12) as i64), eight(20), four(28).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(dir: &Path) -> Staging {
        let staging = Staging::open_in_boot(dir, [9; BOOT_BYTES]).unwrap();
        let mut file = staging.create(Ino(7), 300).unwrap();
        file.append(&Record { offset: 10, bytes: Bytes::from_static(b"hello"), now: Timestamp(1), request: 0 })
            .unwrap();
        file.append(&Record { offset: 12, bytes: Bytes::from_static(b"LL"), now: Timestamp(2), request: 500 }).unwrap();
        staging
    }

    #[test]
    fn what_was_written_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let left = written(dir.path()).left().unwrap().remove(0);
        assert_eq!((left.ino, left.revision, left.modified, left.dirty.end()), (Ino(7), 300, Some(Timestamp(2)), 15));
        assert!(left.is_of_this_boot);
        assert_eq!(left.appended, [(500, 12)].into());
        assert!(!Staging::open(dir.path()).unwrap().left().unwrap()[0].is_of_this_boot);
        let mut bytes = vec![0; 5];
        for run in left.dirty.all() {
            let at = (run.start - 10) as usize;
            left.file.reader().read_exact_at(&mut bytes[at..at + run.len as usize], run.staged).unwrap();
        }
        assert_eq!(bytes, b"heLLo");
    }

    #[test]
    fn a_cut_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::open(dir.path()).unwrap();
        let mut file = staging.create(Ino(7), 300).unwrap();
        file.append(&Record { offset: 3, bytes: Bytes::from_static(b""), now: Timestamp(1), request: 0 }).unwrap();
        let left = staging.left().unwrap().remove(0);
        assert_eq!((left.dirty.size_over(100), left.dirty.kept_of(100), left.modified), (3, 3, Some(Timestamp(1))));
        file.append(&Record { offset: 10, bytes: Bytes::from_static(b"hello"), now: Timestamp(2), request: 0 })
            .unwrap();
        let left = staging.left().unwrap().remove(0);
        assert_eq!((left.dirty.size_over(100), left.dirty.holes_in(100).first()), (15, Some(&(3..10))));
    }

    #[test]
    fn attributes_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::open(dir.path()).unwrap();
        let mut file = staging.create(Ino(7), 300).unwrap();
        let set = SetAttrs { uid: Some(9), mtime: Some(Timestamp(5)), ..SetAttrs::default() };
        file.append(&Record::attributes(&set, Timestamp(1))).unwrap();
        let left = staging.left().unwrap().remove(0);
        assert_eq!((left.pending.set, left.modified, left.dirty.is_empty()), (set, None, true));
        // What is written later is dated by that.
        file.append(&Record { offset: 3, bytes: Bytes::from_static(b"x"), now: Timestamp(2), request: 0 }).unwrap();
        let left = staging.left().unwrap().remove(0);
        assert_eq!((left.pending.set, left.modified), (SetAttrs { mtime: None, ..set }, Some(Timestamp(2))));
    }

    #[test]
    fn a_record_that_is_not_whole_was_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let staging = written(dir.path());
        let path = dir.path().join(format!("{:016x}", 1));
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let runs = staging.left().unwrap().first().map_or(Vec::new(), |left| left.dirty.all());
            let expected = if len < HEAD_BYTES as usize + RECORD_HEAD_BYTES + 5 { 0 } else { 1 };
            assert_eq!(runs.len(), expected, "{len}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(staging.left().unwrap()[0].dirty.all().len(), 3);
        // As after a power cut, which keeps some blocks and not others.
        for at in HEAD_BYTES as usize..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let runs = staging.left().unwrap().first().map_or(Vec::new(), |left| left.dirty.all());
            assert_eq!(runs.len(), if at < HEAD_BYTES as usize + RECORD_HEAD_BYTES + 5 { 0 } else { 1 }, "{at}");
            fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn a_file_that_was_given_back_is_the_next_inodes() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::open(dir.path()).unwrap();
        for ino in 1..200 {
            let mut file = staging.create(Ino(ino), 1).unwrap();
            let bytes = vec![7; ino as usize];
            file.append(&Record { offset: ino, bytes: bytes.into(), now: Timestamp(5), request: 0 }).unwrap();
            let left = Staging::open(dir.path()).unwrap().left().unwrap();
            assert_eq!(left.iter().map(|left| (left.ino, left.dirty.end())).collect::<Vec<_>>(), [(Ino(ino), 2 * ino)]);
            staging.give_back(file).unwrap();
        }
        let many: Vec<_> = (0..100).map(|ino| staging.create(Ino(ino), 1).unwrap()).collect();
        many.into_iter().for_each(|file| staging.give_back(file).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), SPARE_COUNT);
    }

    #[test]
    fn the_oldest_are_told_once_too_many_are_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let mut staging = Staging::open(dir.path()).unwrap();
        staging.in_use_max = 3;
        let first = staging.create(Ino(1), 1).unwrap();
        let rest: Vec<_> = (2..4).map(|ino| (staging.oldest(), staging.create(Ino(ino), 1).unwrap())).collect();
        assert!(rest.iter().all(|(oldest, _)| oldest.is_empty()));
        assert_eq!(staging.oldest(), [Ino(1), Ino(2), Ino(3)]);
        staging.give_back(first).unwrap();
        assert_eq!(staging.oldest(), []);
        drop(staging.create(Ino(4), 1).unwrap());
        assert_eq!(staging.oldest(), [Ino(2), Ino(3), Ino(4)]);
    }

    #[test]
    fn the_format_is_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let attributed = Staging::open_in_boot(dir.path(), [9; BOOT_BYTES]).unwrap();
        let set = SetAttrs { mode: Some(0o644), mtime: Some(Timestamp(5)), ..SetAttrs::default() };
        let mut file = attributed.create(Ino(8), 300).unwrap();
        file.append(&Record::attributes(&set, Timestamp(3))).unwrap();
        let hex = |number: u64| -> String {
            let found = fs::read(dir.path().join(format!("{number:016x}"))).unwrap();
            found.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let golden: Vec<&str> = include_str!("golden.txt").lines().collect();
        assert_eq!([hex(1), hex(2)], golden[..]);
    }
}
