//! Attributes as the kernel wants them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use predastore::catalog::{FileKind, MODE_MASK, Stat};
use predastore::env::Timestamp;
use predastore::ids::Ino;
use predastore::object::tree::SetTime;

use crate::nodes::NodeIds;

/// What programs should read and write at once: a segment.
const PREFERRED_BYTES: u32 = 64 << 10;

/// Of `st_blocks`, whatever the file system.
const STAT_BLOCK_BYTES: u64 = 512;

const NANOS: i128 = 1_000_000_000;

/// `stat` for the kernel.
pub(crate) fn file_attr(ids: NodeIds, stat: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(ids.node(stat.ino)),
        size: stat.size_bytes,
        blocks: stat.stored_bytes.div_ceil(STAT_BLOCK_BYTES),
        atime: system_time(stat.atime),
        mtime: system_time(stat.mtime),
        ctime: system_time(stat.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(stat.kind),
        perm: (stat.mode & MODE_MASK) as u16,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        // The kernel's own 32-bit form, kept as it came.
        rdev: u32::try_from(stat.rdev).unwrap_or(0),
        blksize: PREFERRED_BYTES,
        flags: 0,
    }
}

/// For `.` and `..` of a listing, of which the kernel takes number and type alone.
pub(crate) fn bare_directory(ids: NodeIds, ino: Ino) -> FileAttr {
    FileAttr {
        ino: INodeNo(ids.node(ino)),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PREFERRED_BYTES,
        flags: 0,
    }
}

pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time that a SETATTR sets.
pub(crate) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(requested_time(time)),
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let distance = Duration::from_nanos(time.0.unsigned_abs());
    if time.0 < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// The time that the kernel sent. Beyond the years 1677 and 2262 it becomes the nearest that a [`Timestamp`] holds.
///
/// fuser 0.18 reads a time before 1970, which the kernel sends as (negative seconds, nanoseconds forward), as if the
/// nanoseconds went backward too; this takes them apart again.
fn requested_time(time: SystemTime) -> Timestamp {
    let nanos = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i128,
        Err(before) => {
            let before = before.duration();
            i128::from(before.subsec_nanos()) - i128::from(before.as_secs()) * NANOS
        }
    };
    Timestamp(nanos.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An inode with attributes that are all different.
    pub(crate) fn stat(ino: u64, kind: FileKind) -> Stat {
        Stat {
            ino: Ino(ino),
            kind,
            mode: 0o644,
            uid: 10,
            gid: 20,
            nlink: 3,
            rdev: 0x0103,
            size_bytes: 70_000,
            stored_bytes: 513,
            atime: Timestamp(1_500_000_001),
            mtime: Timestamp(-200_000_000),
            ctime: Timestamp(i64::MIN),
            revision: 5,
            etag: predastore::catalog::ETag { md5: [7; 16], part_count: 0 },
            has_attributes: true,
        }
    }

    #[test]
    fn every_attribute_arrives() {
        let attr = file_attr(NodeIds::new(Ino(9)), &stat(7, FileKind::Fifo));
        assert_eq!((attr.ino.0, attr.size, attr.blocks, attr.kind), (7, 70_000, 2, FileType::NamedPipe));
        assert_eq!((attr.perm, attr.uid, attr.gid, attr.nlink, attr.rdev), (0o644, 10, 20, 3, 0x0103));
        assert_eq!(attr.atime, UNIX_EPOCH + Duration::new(1, 500_000_001));
        assert_eq!(attr.mtime, UNIX_EPOCH - Duration::from_millis(200));
        assert_eq!(attr.ctime, UNIX_EPOCH - Duration::from_nanos(1 << 63));
        assert_eq!(file_attr(NodeIds::new(Ino(9)), &stat(9, FileKind::Directory)).ino.0, 1);
    }

    #[test]
    fn the_type_bits_of_a_mode_never_reach_the_permissions() {
        let odd = Stat { mode: 0o104_755, ..stat(7, FileKind::File) };
        assert_eq!(file_attr(NodeIds::new(Ino(9)), &odd).perm, 0o4_755);
    }

    #[test]
    fn times_before_1970_survive_how_fuser_reads_them() {
        // (-1 s, +800,000,000 ns) is -0.2 s; fuser makes it -1.8 s.
        let as_fuser_reads = |secs: u64, nanos| UNIX_EPOCH - Duration::new(secs, nanos);
        assert_eq!(requested_time(as_fuser_reads(1, 800_000_000)), Timestamp(-200_000_000));
        assert_eq!(requested_time(as_fuser_reads(2, 0)), Timestamp(-2_000_000_000));
        assert_eq!(requested_time(UNIX_EPOCH + Duration::new(3, 7)), Timestamp(3_000_000_007));
    }

    #[test]
    fn times_out_of_range_become_the_nearest() {
        assert_eq!(requested_time(UNIX_EPOCH + Duration::from_secs(1 << 40)), Timestamp(i64::MAX));
        assert_eq!(requested_time(UNIX_EPOCH - Duration::from_secs(1 << 40)), Timestamp(i64::MIN));
    }
}
