//! Whose a new inode is: the rules of sgid directories, which the kernel leaves to a FUSE file system.
//!
//! What the kernel does itself and this layer must not do again: it applies the umask; it drops sgid of a new file that its
//! creator's groups do not cover; and where suid and sgid must go for a write, a truncation or a change of owner, it asks for
//! it by a SETATTR of its own (without HANDLE_KILLPRIV; the second version of that leaves bits behind).

use predastore::catalog::Stat;

const SGID: u32 = 0o2_000;

/// Mode and group of a new inode in `parent`, made by someone whose group is `gid`.
///
/// `mode`: permission bits as the kernel asked for them.
pub(crate) fn inherited(parent: &Stat, mode: u32, gid: u32, is_directory: bool) -> (u32, u32) {
    if parent.mode & SGID == 0 {
        return (mode, gid);
    }
    let passed_on = if is_directory { SGID } else { 0 };
    (mode | passed_on, parent.gid)
}

#[cfg(test)]
mod tests {
    use predastore::catalog::FileKind;

    use super::*;
    use crate::attributes::tests::stat;

    #[test]
    fn only_an_sgid_directory_gives_its_group_and_only_directories_pass_sgid_on() {
        let plain = Stat { mode: 0o755, gid: 50, ..stat(2, FileKind::Directory) };
        let sgid = Stat { mode: 0o2_775, ..plain };
        assert_eq!(inherited(&plain, 0o644, 100, false), (0o644, 100));
        assert_eq!(inherited(&plain, 0o755, 100, true), (0o755, 100));
        assert_eq!(inherited(&sgid, 0o644, 100, false), (0o644, 50));
        assert_eq!(inherited(&sgid, 0o755, 100, true), (0o2_755, 50));
        assert_eq!(inherited(&sgid, 0o2_755, 100, false), (0o2_755, 50), "the kernel has decided on it");
    }
}
