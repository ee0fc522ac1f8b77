//! A model of a bucket without versioning that is mounted too: what POSIX and S3 may see of it. Nothing but maps.
//!
//! A path has no slash at its ends; the root is the empty path. A directory is explicit when `mkdir` or a PUT of `path/` made it,
//! or a change by POSIX inside it: S3 lists it then, and it stays when it is empty. An implicit one goes with its last entry.

use std::collections::{BTreeMap, BTreeSet};

/// What an ETag must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Etag {
    /// The MD5 of the bytes.
    Md5,
    /// Anything but this, which belonged to former bytes.
    Not(String),
    /// Anything.
    Any,
}

/// A file, whatever its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// What its ETag must be.
    pub etag: Etag,
}

/// The model.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Whether each is explicit; the root is.
    directories: BTreeMap<String, bool>,
    files: BTreeMap<String, u64>,
    inodes: BTreeMap<u64, Inode>,
    next: u64,
}

/// The directory that `path` is in.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// `name` in the directory `parent`.
pub fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// Whether `path` is below `directory`.
pub fn is_below(path: &str, directory: &str) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

impl Default for Namespace {
    fn default() -> Namespace {
        let directories = BTreeMap::from([(String::new(), true)]);
        Namespace { directories, files: BTreeMap::new(), inodes: BTreeMap::new(), next: 0 }
    }
}

impl Namespace {
    /// All files, in the order of their paths.
    pub fn files(&self) -> impl Iterator<Item = (&String, &Inode)> {
        self.files.iter().map(|(path, id)| (path, &self.inodes[id]))
    }

    /// All directories, with the root.
    pub fn directories(&self) -> impl Iterator<Item = &String> {
        self.directories.keys()
    }

    /// The file at `path`.
    pub fn file(&self, path: &str) -> Option<&Inode> {
        self.files.get(path).map(|id| &self.inodes[id])
    }

    /// The same, to be changed: under all its names.
    pub fn file_mut(&mut self, path: &str) -> Option<&mut Inode> {
        let id = self.files.get(path)?;
        self.inodes.get_mut(id)
    }

    /// How many names the file at `path` has.
    pub fn links(&self, path: &str) -> usize {
        let id = self.files.get(path);
        self.files.values().filter(|other| Some(*other) == id).count()
    }

    /// Whether `path` is a directory.
    pub fn is_directory(&self, path: &str) -> bool {
        self.directories.contains_key(path)
    }

    /// Whether nothing is in `directory`.
    pub fn is_empty(&self, directory: &str) -> bool {
        let all = self.files.keys().chain(self.directories.keys());
        !all.filter(|path| !path.is_empty()).any(|path| is_below(path, directory))
    }

    /// The keys that S3 lists, in its order.
    pub fn keys(&self) -> BTreeSet<String> {
        let markers = self.directories.iter().filter(|(path, explicit)| **explicit && !path.is_empty());
        markers.map(|(path, _)| format!("{path}/")).chain(self.files.keys().cloned()).collect()
    }

    fn add(&mut self, path: &str, inode: Inode) {
        self.inodes.insert(self.next, inode);
        self.files.insert(path.to_owned(), self.next);
        self.next += 1;
    }

    /// What any change of its entries by POSIX does to a directory.
    fn changed_by_posix(&mut self, directory: &str) {
        self.directories.insert(directory.to_owned(), true);
    }

    /// open(O_CREAT|O_TRUNC), write, close.
    pub fn write(&mut self, path: &str, bytes: Vec<u8>) {
        if let Some(inode) = self.file_mut(path) {
            inode.bytes = bytes;
            inode.etag = Etag::Md5;
            return;
        }
        self.changed_by_posix(parent(path));
        self.add(path, Inode { bytes, mode: 0o644, etag: Etag::Md5 });
    }

    /// unlink.
    pub fn unlink(&mut self, path: &str) {
        self.changed_by_posix(parent(path));
        self.files.remove(path);
    }

    /// link.
    pub fn link(&mut self, path: &str, new: &str) {
        self.changed_by_posix(parent(new));
        self.files.insert(new.to_owned(), self.files[path]);
    }

    /// mkdir.
    pub fn make_directory(&mut self, path: &str) {
        self.changed_by_posix(parent(path));
        self.changed_by_posix(path);
    }

    /// rmdir of an empty one.
    pub fn remove_directory(&mut self, path: &str) {
        self.changed_by_posix(parent(path));
        self.directories.remove(path);
    }

    /// rename of a file, over another or none. Two names of one file: nothing happens.
    pub fn rename_file(&mut self, from: &str, to: &str) {
        if self.files.get(from) == self.files.get(to) {
            return;
        }
        self.changed_by_posix(parent(from));
        self.changed_by_posix(parent(to));
        if let Some(id) = self.files.remove(from) {
            self.files.insert(to.to_owned(), id);
        }
    }

    /// rename of a directory, over an empty one or none.
    pub fn rename_directory(&mut self, from: &str, to: &str) {
        self.changed_by_posix(parent(from));
        self.changed_by_posix(parent(to));
        self.directories.remove(to);
        let moved = |path: &str| format!("{to}{}", &path[from.len()..]);
        let is_moved = |path: &str| path == from || is_below(path, from);
        for path in self.directories.keys().filter(|path| is_moved(path)).cloned().collect::<Vec<_>>() {
            if let Some(explicit) = self.directories.remove(&path) {
                self.directories.insert(moved(&path), explicit);
            }
        }
        for path in self.files.keys().filter(|path| is_moved(path)).cloned().collect::<Vec<_>>() {
            if let Some(id) = self.files.remove(&path) {
                self.files.insert(moved(&path), id);
            }
        }
    }

    /// PutObject: a new file, which inherits the mode of the one that it replaces.
    pub fn put(&mut self, key: &str, bytes: Vec<u8>, etag: Etag) {
        let mode = self.file(key).map_or(0o644, |inode| inode.mode);
        self.imply(parent(key));
        self.add(key, Inode { bytes, mode, etag });
    }

    /// DeleteObject.
    pub fn delete(&mut self, key: &str) {
        if self.files.remove(key).is_some() {
            self.prune(parent(key));
        }
    }

    /// PutObject of `directory/`.
    pub fn put_marker(&mut self, directory: &str) {
        self.imply(directory);
        self.directories.insert(directory.to_owned(), true);
    }

    /// DeleteObject of `directory/`.
    pub fn delete_marker(&mut self, directory: &str) {
        if let Some(explicit) = self.directories.get_mut(directory) {
            *explicit = false;
            self.prune(directory);
        }
    }

    fn imply(&mut self, directory: &str) {
        let mut path = directory;
        while !self.directories.contains_key(path) {
            self.directories.insert(path.to_owned(), false);
            path = parent(path);
        }
    }

    fn prune(&mut self, directory: &str) {
        let mut path = directory.to_owned();
        while self.directories.get(&path) == Some(&false) && self.is_empty(&path) {
            self.directories.remove(&path);
            path = parent(&path).to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implicit_directories_go_with_their_last_key_unless_posix_changed_them() {
        let mut model = Namespace::default();
        model.put("a/b/f", vec![1], Etag::Md5);
        assert_eq!(model.keys(), BTreeSet::from(["a/b/f".to_owned()]));
        model.delete("a/b/f");
        assert!(model.is_empty(""));
        model.put("a/b/f", vec![1], Etag::Md5);
        model.unlink("a/b/f");
        assert_eq!(model.keys(), BTreeSet::from(["a/b/".to_owned()]));
        model.delete_marker("a/b");
        assert!(model.is_empty(""));
    }

    #[test]
    fn a_directory_moves_with_all_below() {
        let mut model = Namespace::default();
        model.make_directory("a");
        model.put("a/b/f", vec![1], Etag::Md5);
        model.write("ab", vec![2]);
        model.rename_directory("a", "c");
        let keys = ["ab", "c/", "c/b/f"].map(str::to_owned);
        assert_eq!(model.keys(), BTreeSet::from(keys));
        assert!(model.is_directory("c/b") && !model.is_directory("a"));
    }

    #[test]
    fn a_put_leaves_the_other_names_alone() {
        let mut model = Namespace::default();
        model.write("f", vec![1]);
        model.link("f", "g");
        model.put("f", vec![2], Etag::Md5);
        assert_eq!(model.file("g").map(|inode| inode.bytes.clone()), Some(vec![1]));
        assert_eq!((model.links("f"), model.links("g")), (1, 1));
    }
}
