//! Loop mounts: file systems of a chosen size that can be filled, cut off and mounted again.
//!
//! Invariant: what is mounted here is unmounted when the value is dropped, on a panic too; the loop device goes with the
//! mount (`mount -o loop` clears it by itself).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::shell::{self, command, run};

/// The file systems that can be shut down as if the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// XFS; at least 300 MiB.
    Xfs,
    /// ext4.
    Ext4,
}

/// A file system in an image file, mounted.
pub struct LoopMount {
    kind: FileSystem,
    image: PathBuf,
    mountpoint: PathBuf,
    // Last: the image and the mountpoint go after the mount.
    _dir: TempDir,
}

impl LoopMount {
    /// Makes a file system of `size_mib` and mounts it.
    ///
    /// # Errors
    /// When mkfs or mount fails (see [`crate::knobs::Need::LoopMount`]).
    pub fn new(kind: FileSystem, size_mib: u64) -> Result<LoopMount> {
        let dir = tempfile::tempdir()?;
        let (image, mountpoint) = (dir.path().join("image"), dir.path().join("mnt"));
        std::fs::create_dir(&mountpoint)?;
        std::fs::File::create(&image)?.set_len(size_mib << 20)?;
        let image_text = image.to_str().context("a temporary path that is not UTF-8")?;
        match kind {
            FileSystem::Xfs => run(&mut command(&["mkfs.xfs", "-q", "-f", image_text]))?,
            FileSystem::Ext4 => run(&mut command(&["mkfs.ext4", "-q", "-F", "-m", "0", image_text]))?,
        };
        let disk = LoopMount { kind, image, mountpoint, _dir: dir };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// Cuts the file system off as a power loss would: what was not synced is lost, every later access fails.
    ///
    /// # Errors
    /// When the ioctl is refused.
    pub fn shutdown(&self) -> Result<()> {
        let mut xfs_io = command(&["xfs_io", "-x"]);
        if self.kind == FileSystem::Ext4 {
            xfs_io.arg("-F");
        }
        run(xfs_io.args(["-c", "shutdown"]).arg(&self.mountpoint)).map(drop)
    }

    /// Unmounts and mounts again; the journal is replayed. Nothing may have a file open in it.
    ///
    /// # Errors
    /// When it is busy or cannot be mounted.
    pub fn remount(&self) -> Result<()> {
        run(command(&["umount"]).arg(&self.mountpoint))?;
        self.mount()
    }

    fn mount(&self) -> Result<()> {
        run(command(&["mount", "-o", "loop"]).arg(&self.image).arg(&self.mountpoint)).map(drop)
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        let _ = shell::output(command(&["umount", "-l"]).arg(&self.mountpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::{Need, can_run};
    use std::io::Write;

    fn unsynced_bytes_are_lost(kind: FileSystem) -> Result<()> {
        let disk = LoopMount::new(kind, 320)?;
        let write = |name: &str, sync: bool| -> Result<()> {
            let mut file = std::fs::File::create(disk.path().join(name))?;
            file.write_all(b"bytes")?;
            if sync {
                file.sync_all()?;
                std::fs::File::open(disk.path())?.sync_all()?;
            }
            Ok(())
        };
        write("kept", true)?;
        write("lost", false)?;
        disk.shutdown()?;
        assert!(
            std::fs::read(disk.path().join("kept")).is_err() || std::fs::write(disk.path().join("new"), "x").is_err()
        );
        disk.remount()?;
        assert_eq!(std::fs::read(disk.path().join("kept"))?, b"bytes");
        assert_ne!(std::fs::read(disk.path().join("lost")).unwrap_or_default(), b"bytes");
        Ok(())
    }

    #[test]
    fn a_shutdown_loses_what_was_not_synced() -> Result<()> {
        if can_run("disk", &[Need::LoopMount, Need::Program("xfs_io"), Need::Program("mkfs.xfs")]) {
            unsynced_bytes_are_lost(FileSystem::Xfs)?;
            unsynced_bytes_are_lost(FileSystem::Ext4)?;
        }
        Ok(())
    }
}
