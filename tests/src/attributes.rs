//! Trees of files with all that a file system keeps of them, and what two of them differ in.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::random::{Rng, body};
use crate::shell::{self, command, run};

/// All that is compared of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    kind: String,
    is_directory: bool,
    /// Permission bits.
    mode: u32,
    owner: (u32, u32),
    /// Nanoseconds; of directories too.
    mtime: (i64, i64),
    links: u64,
    device: u64,
    /// The first name, in order, of the same inode.
    same_as: String,
    /// As getfattr prints them.
    xattrs: String,
    content: Vec<u8>,
}

/// Everything under `dir`, and itself as the empty name: relative path to attributes.
///
/// # Errors
/// When something cannot be read.
pub fn attributes(dir: &Path) -> Result<BTreeMap<String, Attributes>> {
    let mut found = BTreeMap::new();
    let mut first_names = HashMap::new();
    let mut pending = vec![String::new()];
    while let Some(name) = pending.pop() {
        let path = if name.is_empty() { dir.to_path_buf() } else { dir.join(&name) };
        let meta = fs::symlink_metadata(&path)?;
        let same_as = match meta.is_dir() {
            true => name.clone(),
            false => first_names.entry(meta.ino()).or_insert_with(|| name.clone()).clone(),
        };
        if meta.is_dir() {
            for entry in sorted_names(&path)?.iter().rev() {
                pending.push(if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") });
            }
        }
        found.insert(name, attributes_of(&path, &meta, same_as)?);
    }
    Ok(found)
}

fn sorted_names(dir: &Path) -> Result<Vec<String>> {
    let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = fs::read_dir(dir)?.map(name).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn attributes_of(path: &Path, meta: &Metadata, same_as: String) -> Result<Attributes> {
    let kind = meta.file_type();
    let content = if kind.is_symlink() {
        fs::read_link(path)?.into_os_string().into_encoded_bytes()
    } else if kind.is_file() {
        fs::read(path).with_context(|| path.display().to_string())?
    } else {
        Vec::new()
    };
    let special = kind.is_block_device() || kind.is_char_device();
    Ok(Attributes {
        kind: format!("{kind:?}"),
        is_directory: kind.is_dir(),
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        links: if meta.is_dir() { 0 } else { meta.nlink() },
        device: if special { meta.rdev() } else { 0 },
        same_as,
        xattrs: if kind.is_symlink() { String::new() } else { xattrs(path)? },
        content,
    })
}

fn xattrs(path: &Path) -> Result<String> {
    let mut getfattr =
        command(&["getfattr", "--absolute-names", "--dump", "--encoding=hex", "--match=^user\\.|^system\\.posix_acl"]);
    let text = run(getfattr.arg(path))?;
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

/// Fails unless both directories have the same files with the same attributes and content.
///
/// # Errors
/// With what differs first.
pub fn same_attributes(left: &Path, right: &Path) -> Result<()> {
    let (left, right) = (attributes(left)?, attributes(right)?);
    let names = |tree: &BTreeMap<String, Attributes>| tree.keys().cloned().collect::<Vec<_>>();
    ensure!(names(&left) == names(&right), "{:?} here, {:?} there", names(&left), names(&right));
    for (name, here) in &left {
        let there = &right[name];
        ensure!(here.content == there.content, "{name:?}: the bytes differ");
        let plain = |of: &Attributes| Attributes { content: Vec::new(), ..of.clone() };
        ensure!(here == there, "{name:?}: {:?} here, {:?} there", plain(here), plain(there));
    }
    Ok(())
}

/// Writes a tree with something of everything: modes, owners, times, hard links, symbolic links, FIFOs, devices, holes, extended
/// attributes; ACLs if `acls`. As root.
///
/// # Errors
/// When a file system refuses any.
pub fn make_all_kinds(dir: &Path, acls: bool) -> Result<()> {
    let mut rng = Rng::new(7);
    for index in 0..60u64 {
        let parent = dir.join(format!("d{}", index % 7)).join(format!("e{}", index % 3));
        fs::create_dir_all(&parent)?;
        let file = parent.join(format!("file {index} ü"));
        let len = [0, 1, 4095, 4096, 8193, 70_000, 300_000][index as usize % 7];
        fs::write(&file, body(index, len))?;
        std::os::unix::fs::chown(&file, Some(rng.below(5) as u32 * 1000), Some(rng.below(5) as u32 * 1000))?;
        fs::set_permissions(
            &file,
            fs::Permissions::from_mode([0o644, 0o600, 0o755, 0o4755, 0o2750, 0o0][index as usize % 6]),
        )?;
        if index % 4 == 0 {
            fs::hard_link(&file, dir.join(format!("link {index}")))?;
        }
        if index % 5 == 0 {
            run(command(&["setfattr", "-n", "user.note", "-v", &"n".repeat(index as usize + 1)]).arg(&file))?;
        }
        if index % 6 == 0 && acls {
            run(command(&["setfacl", "-m", "u:daemon:rw,g:bin:r"]).arg(&file))?;
        }
        set_mtime(&file, index)?;
    }
    symlink("d0/e0", dir.join("to a directory"))?;
    symlink("nowhere/at all", dir.join("dangling"))?;
    let holes = File::create(dir.join("holes"))?;
    holes.write_all_at(b"begin", 0)?;
    holes.write_all_at(b"middle", 1 << 20)?;
    holes.set_len((3 << 20) + 17)?;
    let name = |name: &str| dir.join(name).to_string_lossy().into_owned();
    run(&mut command(&["mkfifo", "-m", "640", &name("fifo")]))?;
    run(&mut command(&["mknod", "-m", "600", &name("null"), "c", "1", "3"]))?;
    fs::create_dir_all(dir.join("empty"))?;
    fs::set_permissions(dir.join("empty"), fs::Permissions::from_mode(0o1777))?;
    let others = ["to a directory", "dangling", "holes", "fifo", "null"].map(|other| dir.join(other));
    run(command(&["touch", "--no-dereference", "--date=2001-02-03T04:05:06.789012345Z"]).args(others))?;
    // Last: what is made in a directory changes its time. All are told: to rsync times of one second are the same.
    for (index, name) in (0..).zip(directories_under(dir)?) {
        set_mtime(&dir.join(name), index)?;
    }
    Ok(())
}

/// Their names, that of `dir` itself too, which is empty.
fn directories_under(dir: &Path) -> Result<Vec<String>> {
    let all = attributes(dir)?.into_iter();
    Ok(all.filter(|(_, found)| found.is_directory).map(|(name, _)| name).collect())
}

fn set_mtime(path: &Path, index: u64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + index * 86_400, 123_456_789 + index as u32);
    Ok(File::open(path)?.set_modified(time)?)
}

/// Whether POSIX ACLs can be kept in `dir`.
///
/// # Errors
/// When nothing can be kept there.
pub fn keeps_acls(dir: &Path) -> Result<bool> {
    let file = dir.join(".acl");
    fs::write(&file, "")?;
    let kept = shell::output(command(&["setfacl", "-m", "u:daemon:rw"]).arg(&file))?.status.success();
    fs::remove_file(&file)?;
    Ok(kept)
}
