//! What is mounted where, from `/proc/self/mountinfo`: it tells without asking any file system, of which one may be dead.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type our mounts have.
pub(crate) const FSTYPE: &str = "fuse.predastore";

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Major and minor number of its device; of FUSE the minor one is the connection's.
    pub(crate) device: (u32, u32),
    /// Where.
    pub(crate) path: PathBuf,
    /// Type, with the subtype behind a dot.
    pub(crate) fstype: String,
    /// What.
    pub(crate) source: OsString,
}

impl Entry {
    /// The number of its FUSE connection, if it is one of ours.
    pub(crate) fn connection(&self) -> Option<u32> {
        (self.fstype == FSTYPE && self.device.0 == 0).then_some(self.device.1)
    }
}

/// All mounts of this process's namespace, the oldest first.
///
/// # Errors
/// There is no procfs.
pub(crate) fn read() -> io::Result<Vec<Entry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// What covers `path` itself, if anything is mounted there.
///
/// # Errors
/// There is no procfs.
pub(crate) fn at(path: &Path) -> io::Result<Option<Entry>> {
    Ok(read()?.into_iter().rfind(|entry| entry.path == path))
}

/// Where the FUSE connection of this number is mounted.
///
/// # Errors
/// There is no procfs.
pub(crate) fn of(connection: u32) -> io::Result<Option<Entry>> {
    Ok(read()?.into_iter().rfind(|entry| entry.connection() == Some(connection)))
}

/// Lines that are none are left out.
fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|byte| *byte == b'\n').filter_map(entry).collect()
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 shared:2 - ext3 /dev/root rw`: what stands before the dash varies in number.
fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let path = unescaped(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let fstype = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let source = unescaped(fields.next()?);
    let device = (device.0.parse().ok()?, device.1.parse().ok()?);
    Some(Entry { device, path: PathBuf::from(path), fstype, source })
}

/// The kernel writes blanks, line ends and backslashes as `\040`.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        match (first, behind.first_chunk::<3>().and_then(octal)) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8; 3]) -> Option<u8> {
    let value = digits
        .iter()
        .try_fold(0_u32, |value, digit| (b'0'..=b'7').contains(digit).then(|| value * 8 + u32::from(digit - b'0')))?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    const TEXT: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 22 0:57 / /mnt/my\\040photos rw,nosuid,nodev - fuse.predastore photos/a\\134b rw,user_id=0\n\
        31 22 0:58 / /mnt/x\\011y\\012\xff rw shared:5 master:2 unbindable - fuse.sshfs host:/ rw\n\
        broken\n32 22 0:x / /a rw - tmpfs t rw\n33 22 0:59 / /b rw\n";

    #[test]
    fn mounts_are_read_with_what_is_escaped() {
        let entries = parse(TEXT);
        assert_eq!(entries.len(), 3, "lines that are none are left out");
        assert_eq!((entries[0].path.to_str(), entries[0].connection()), (Some("/"), None));
        assert_eq!(entries[1].path.to_str(), Some("/mnt/my photos"));
        assert_eq!((entries[1].source.to_str(), entries[1].connection()), (Some("photos/a\\b"), Some(57)));
        assert_eq!(entries[2].path.as_os_str().as_bytes(), b"/mnt/x\ty\n\xff");
        assert_eq!((entries[2].fstype.as_str(), entries[2].connection()), ("fuse.sshfs", None));
    }

    #[test]
    fn a_backslash_that_escapes_nothing_stays() {
        for text in ["\\", "\\0", "\\04", "\\999", "\\777", "a\\08"] {
            assert_eq!(unescaped(text.as_bytes()), OsString::from(text));
        }
        assert_eq!(unescaped(b"\\134040\\377"), OsString::from_vec(b"\\040\xff".to_vec()));
    }

    #[test]
    fn this_process_sees_its_root() {
        assert!(at(Path::new("/")).unwrap().is_some());
        assert!(at(Path::new("/no/such/mount")).unwrap().is_none());
    }
}
