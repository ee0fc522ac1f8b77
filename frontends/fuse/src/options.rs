//! How a mount behaves.

use std::time::Duration;

use predastore::catalog::Stat;

/// One WRITE or READ is never longer: the tree takes no more at once.
pub const MAX_WRITE_BYTES: u32 = 1 << 20;

/// How long the kernel believes what it was told: it is told of changes too.
const CACHED: Duration = Duration::from_secs(60);

/// How a mount behaves. What mount(2) itself wants (nosuid, allow_other) was said to it already.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What is mounted, for logs: `BUCKET[/PREFIX]`.
    pub source: String,
    /// Whether every change is refused, whatever the bucket allows.
    pub read_only: bool,
    /// Whose objects without POSIX attributes are, and what their mode lacks.
    pub defaults: Defaults,
    /// How long the kernel may believe attributes.
    pub attr_ttl: Duration,
    /// How long the kernel may believe names. Names that are not there are never believed.
    pub entry_ttl: Duration,
    /// From a request to its EIO. Requests that move as many bytes as a file has get [`MountOptions::bulk_factor`] as much.
    pub deadline: Duration,
    /// See [`MountOptions::deadline`].
    pub bulk_factor: u32,
    /// Whether requests wait for the store however long it takes.
    pub hard: bool,
    /// Whether times of access are kept.
    pub access_times: AccessTimes,
    /// Which locks this mount's kernel keeps to itself.
    pub local_locks: LocalLocks,
    /// Bytes of the longest WRITE; at most [`MAX_WRITE_BYTES`].
    pub max_write_bytes: u32,
    /// Bytes that the kernel may read ahead; it takes less if its own bound is lower.
    pub max_readahead_bytes: u32,
    /// Threads that take requests from the device, and do what needs not wait.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            source: String::new(),
            read_only: false,
            defaults: Defaults::default(),
            attr_ttl: CACHED,
            entry_ttl: CACHED,
            deadline: Duration::from_secs(60),
            bulk_factor: 10,
            hard: false,
            access_times: AccessTimes::default(),
            local_locks: LocalLocks::default(),
            max_write_bytes: MAX_WRITE_BYTES,
            max_readahead_bytes: MAX_WRITE_BYTES,
            threads: 2,
        }
    }
}

/// Of what times of access are kept, as `relatime` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessTimes {
    /// Of files; not with `noatime`.
    pub files: bool,
    /// Of directories; not with `noatime` or `nodiratime`.
    pub directories: bool,
}

impl Default for AccessTimes {
    fn default() -> Self {
        AccessTimes { files: true, directories: true }
    }
}

/// `local_lock=`: locks that other mounts do not see, which cost nothing and outlive no reboot.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LocalLocks {
    /// Those by `flock(2)`.
    pub flock: bool,
    /// Those by `fcntl(2)`.
    pub posix: bool,
}

/// `uid=`, `gid=`, `umask=`: what an object that nobody gave POSIX attributes shows instead of root's 0644 and 0755.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Defaults {
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Permission bits that are not given: 0777 less these, and no x for files.
    pub umask: Option<u32>,
}

impl Defaults {
    /// `stat` as this mount shows it. `explicit`: whether somebody gave the inode its attributes.
    pub fn shown(self, stat: Stat, explicit: bool) -> Stat {
        if explicit {
            return stat;
        }
        let all = if stat.kind == predastore::catalog::FileKind::Directory { 0o777 } else { 0o666 };
        Stat {
            uid: self.uid.unwrap_or(stat.uid),
            gid: self.gid.unwrap_or(stat.gid),
            mode: self.umask.map_or(stat.mode, |umask| all & !umask),
            ..stat
        }
    }
}

#[cfg(test)]
mod tests {
    use predastore::catalog::FileKind;

    use super::*;
    use crate::attributes::tests::stat;

    #[test]
    fn defaults_are_for_what_has_no_attributes_of_its_own() {
        let defaults = Defaults { uid: Some(1000), gid: Some(100), umask: Some(0o027) };
        let shown = defaults.shown(stat(7, FileKind::File), false);
        assert_eq!((shown.uid, shown.gid, shown.mode), (1000, 100, 0o640));
        assert_eq!(defaults.shown(stat(7, FileKind::Directory), false).mode, 0o750);
        assert_eq!(defaults.shown(stat(7, FileKind::File), true), stat(7, FileKind::File));
        assert_eq!(Defaults::default().shown(stat(7, FileKind::File), false), stat(7, FileKind::File));
    }
}
